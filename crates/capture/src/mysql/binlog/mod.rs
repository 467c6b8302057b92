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

pub mod charset;
pub mod compression;
pub(super) mod cursor;
mod decimal;
pub mod decoder;
pub mod error;
pub mod events;
pub mod file;
pub mod header;
mod json;
mod json_diff;
pub(super) mod native;
pub mod rows;
pub mod shape;
pub mod table_map;
pub(super) mod temporal;
pub mod transaction;
mod value;
