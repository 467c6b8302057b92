//! The binlog of MySQL 5.7 to 9 and MariaDB 10.5+: bytes to values.
//! Pure: it must never know where the bytes come from, and it asks nobody for what they do not say.
//!
//! ```text
//! Decoder::event(bytes) ─▶ Event ─┬▶ Body::TableMap(Arc<TableMap>) ─▶ Shape::new(&map, catalog)
//!                                 ├▶ Body::Rows(rows) ─▶ rows.images(&shape) ─▶ before, after
//!                                 └▶ Body::Payload(p) ─▶ p.next(&mut decoder) ─▶ Event …
//! ```
//!
//! Where a layout comes from stands beside it: names of files and functions are those of the servers' sources (MySQL 8.4, 9.x:
//! `libs/mysql/binlog/event/`, `sql/`; MariaDB: `sql/`), names of events those of dev.mysql.com "Replication Protocol" and mariadb.com
//! "Replication Protocol".

pub mod decoder;

pub mod header;

pub mod events;
pub mod transaction;

pub mod table_map;

pub(super) mod native;
pub mod shape;

pub mod rows;
mod value;

mod decimal;
pub(super) mod temporal;

pub mod json;
pub mod json_diff;

pub mod charset;

pub mod compression;
pub mod file;

pub(super) mod cursor;
pub mod error;

#[cfg(test)]
mod tests;
