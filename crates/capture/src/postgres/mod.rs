//! PostgreSQL 14 and newer, by logical replication with the plugin `pgoutput`.

mod care;
pub mod check;
pub mod schedule;
pub mod settings;
pub mod source;
pub mod stream;

pub mod decoder;
pub mod pgoutput;
pub mod shapes;
pub mod streams;

pub mod forms;
mod moments;
pub mod values;

pub mod catalog;
mod matching;
pub mod publication;
pub mod slot;
pub mod snapshot;

pub mod address;
mod login;
mod tls;
pub mod wire;
