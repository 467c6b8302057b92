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
pub mod shapes;
pub mod streams;
pub mod decoder;
pub mod slot;
pub mod snapshot;
pub mod publication;
pub mod settings;
pub mod check;
pub mod stream;
pub mod source;
