//! A client of the MySQL protocol, as far as capture needs it: log in, ask in text, and be sent the binlog.
//!
//! Our own because a binlog must arrive as the bytes of its events, bounded, with the connection noticed when it is silently cut;
//! `mysql_async` decodes events itself, and a transaction's compressed payload without a bound. Sources: "MySQL Internals: Client/Server Protocol"
//! and MariaDB's knowledge base, "Clientserver Protocol"; named beside each format.

mod auth;
mod connection;
mod error;
mod handshake;
mod packet;
mod rows;
mod rsa;
mod tls;

pub use connection::{Connection, Flavor};
pub use error::WireError;
pub use packet::PacketReader;
pub use rows::{TextRow, literal, quoted};
