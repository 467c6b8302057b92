//! Why an event could not be read.

use super::header::EventKind;

pub type Result<T> = std::result::Result<T, BinlogError>;

/// Every one of them means that the stream cannot be continued behind this event without losing something: none is to be skipped in silence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinlogError {
    #[error("{what} ends early: {need} more bytes are announced and {have} are there")]
    Truncated { what: &'static str, need: usize, have: usize },
    #[error("{what} is malformed: {why}")]
    Malformed { what: &'static str, why: &'static str },
    #[error(
        "checksum of a {kind} event that ends at {next_at} is {stored:08x}, its bytes give {computed:08x}: read it again, then check the file with mysqlbinlog -c"
    )]
    Checksum { kind: EventKind, next_at: u32, stored: u32, computed: u32 },
    #[error("{what} is over the limit of {limit} ({name}): raise it if the server really writes this")]
    Limit { what: &'static str, limit: u64, name: &'static str },
    #[error("a row event names table number {table_id}, which no table map has introduced: begin at the start of a transaction")]
    UnknownTable { table_id: u64 },
    #[error("event type {kind} is not known and the server does not mark it as safe to ignore: a newer mulgil may know it")]
    UnknownEvent { kind: EventKind },
    #[error("the binlog is encrypted on disk: read it from the server instead of from its files, which sends it in clear")]
    Encrypted,
    #[error("{what} is compressed by method {method}, which is not known")]
    UnknownCompression { what: &'static str, method: u64 },
    #[error("{table} has a column of type {number}, which is not known: a newer mulgil may know it; leave the table out until then")]
    UnknownType { table: String, number: u8 },
    #[error(
        "column {column} of {table} does not fit what the catalog says of it ({native}): the catalog is of another version of the table"
    )]
    Shape { table: String, column: usize, native: String },
    #[error("{table} has {have} columns in the binlog and {want} in the catalog: the catalog is of another version of the table")]
    Columns { table: String, have: usize, want: usize },
}

impl BinlogError {
    pub(crate) fn malformed(what: &'static str, why: &'static str) -> Self {
        Self::Malformed { what, why }
    }
}
