//! A captured table as it was at a place in the change stream.

use std::fmt;
use std::sync::Arc;

/// `database.schema.table`; MySQL has no schemas: there `schema` is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId {
    pub database: Arc<str>,
    pub schema: Arc<str>,
    pub table: Arc<str>,
}

/// As a user writes it in the config: `public.stock_trades`, or `shop.orders` for MySQL.
impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = if self.schema.is_empty() { &self.database } else { &self.schema };
        write!(f, "{first}.{}", self.table)
    }
}

/// One shape of a table. A change carries the shape its row was written in, so that any DDL between two rows does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub id: TableId,
    /// Counts the shapes of this table that the source has seen, from 1.
    pub version: u32,
    pub columns: Vec<Column>,
}

impl Table {
    /// Positions of the key's columns (primary key, or the replica identity where there is none), in the order of the table. Empty: no key.
    pub fn key(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, c)| c.is_key).map(|(i, _)| i)
    }

    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == column)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: Arc<str>,
    pub kind: Kind,
    pub is_nullable: bool,
    pub is_key: bool,
    /// The database's own words: `numeric(15,2)`, `int unsigned`, `enum('BUY','SELL')`.
    pub native: Arc<str>,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    UInt64,
    Float32,
    Float64,
    /// `None`: a numeric without a declared precision, whose every value has its own scale.
    Decimal(Option<Digits>),
    Text,
    Binary,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    /// Of any number of dimensions: PostgreSQL declares none. Items of an inner dimension are arrays again.
    Array(Box<Kind>),
    /// A type this program has no form for; its values are the database's text. Told once per column in the program's log.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digits {
    pub precision: u16,
    pub scale: i16,
}

/// Whether a name is meant: `*` in the pattern stands for any characters. What is left to look at shrinks with each star that has been passed: at
/// most pattern times text steps.
pub(crate) fn is_like(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else { return false };
    let Some(tail) = pattern.contains('*').then(|| parts.next_back().unwrap_or_default()) else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}
