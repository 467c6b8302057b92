//! PostgreSQL 14 and newer, by logical replication with the plugin `pgoutput`.

pub mod address;
mod login;
mod tls;
pub mod wire;

pub mod catalog;
pub mod forms;
mod moments;
pub mod pgoutput;
pub mod values;
