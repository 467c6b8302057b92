//! MySQL 5.7 to 9 and MariaDB 10.5+ by their row binlog.
//!
//! ```text
//! settings ─▶ open ─┬▶ wire ─▶ stream ─▶ binlog ─▶ assembler (shapes, ddl) ─┬▶ source ─▶ batches
//!                   └▶ catalog, server ─▶ snapshot (text) ──────────────────┘
//! ```

pub mod binlog;
pub mod ddl;
pub mod gtid;
pub mod settings;
pub mod wire;

mod assembler;
mod catalog;
mod check;
mod open;
mod place;
mod prepared;
mod remarks;
mod replay;
mod server;
mod shapes;
mod snapshot;
mod source;
mod stream;
mod text;
mod transaction;

pub use check::check;
pub use open::open;
pub use source::MysqlSource;
