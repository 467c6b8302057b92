//! Snapshots: the rows that a table has when capture begins, or when somebody asks for them.
//!
//! ```text
//! holder     keeps a transaction open whose snapshot is exported: the slot's own, or a new one
//! readers    one connection each; every part of a table is read in a transaction of its own that imports the snapshot
//! chunk      rows of one part, given as one Batch; its notes name the last key of each part, so a kill costs one chunk per reader
//! after a kill the exported snapshot is gone: the rest is read under a new one. `contained` then tells, for every change of the stream,
//!            whether the rows already have it, by the key's range and the transactions that its view contains.
//! ```
//!
//! A table without a key can only be read whole: interrupted, it is given again from its beginning, behind a truncate. So is a table that was
//! rewritten (TRUNCATE, some forms of ALTER TABLE) while it was read: PostgreSQL shows such a table as empty to older snapshots
//! (documentation, "Caveats" of chapter "Concurrency Control").

pub mod contained;
pub mod copy;
pub mod error;
pub mod incremental;
pub mod key;
pub mod mode;
pub mod notes;
pub mod progress;
pub mod reader;
pub mod recent;
pub mod signal;
pub mod view;

mod plan;
mod rows;
mod worker;

use super::address::Address;
use super::wire::{Connection, Purpose, WireError};
use std::collections::BTreeSet;

/// How much is read at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// Connections that read at the same time, beside the one that holds the snapshot.
    pub connections: usize,
    /// A chunk ends when it has this many rows.
    pub chunk_rows: usize,
    /// Or when its rows take this much memory, about; a row that alone is larger is a chunk of its own.
    pub chunk_bytes: usize,
    /// Tables with a key are cut into ranges of about this many rows, read side by side.
    pub span_rows: u64,
    /// Tables without a key into ranges of this many pages.
    pub span_pages: u64,
    /// Tables (`public.trades`) whose ranges are read one after the other: whoever computes in event time wants the rows in the order of a key
    /// that grows with time, not four ranges mixed.
    pub in_order: BTreeSet<String>,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self {
            connections: 4,
            chunk_rows: 8_192,
            chunk_bytes: 4 << 20,
            span_rows: 1_000_000,
            span_pages: 16_384,
            in_order: BTreeSet::new(),
        }
    }
}

/// A table to read, and what of it: a publication's column list and row filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub schema: String,
    pub name: String,
    /// `None`: all but generated ones.
    pub columns: Option<Vec<String>>,
    /// A condition in SQL, which comes from the database's own catalog or from somebody who may read the table anyway.
    pub filter: Option<String>,
}

impl Wanted {
    pub fn table(schema: &str, name: &str) -> Self {
        Self { schema: schema.to_owned(), name: name.to_owned(), columns: None, filter: None }
    }
}

/// No lock is waited for longer than this, so that a forgotten transaction does not stop a snapshot in silence. With an empty `search_path`
/// nobody else's function or operator is called. With `row_security` off a table that policies would hide a part of is an error instead. What is
/// written here (marks) is on the server's disk when it is answered, whatever the role's default; no standby is waited for.
const SESSION: &str = "SET search_path = ''; SET lock_timeout = '60s'; SET row_security = off; SET synchronous_commit = local; \
     SET standard_conforming_strings = on; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// A connection that reads tables.
pub async fn connect(address: &Address) -> Result<Connection, WireError> {
    let mut connection = Connection::open(address, Purpose::Sql).await?;
    connection.query(SESSION).await?;
    Ok(connection)
}
