//! PostgreSQL 14 and newer, by logical replication with the plugin `pgoutput`.

pub mod address;
mod login;
pub mod pgoutput;
mod tls;
pub mod wire;
