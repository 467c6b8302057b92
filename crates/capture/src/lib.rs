//! Change capture: a database's own change stream as changes of rows, each in its place and exactly as the database has them.
//! It must never know the log, the engine or who consumes a change, and it acknowledges nothing before it is told that it is durable.

pub mod change;
pub mod datum;
pub mod envelope;
pub mod filter;
pub mod mysql;
pub mod postgres;
pub mod snapshot_mode;
pub mod source;
pub mod table;
pub mod typed;

mod tls;
pub mod url;
