//! Changes of rows, in the order in which the database committed them.

use crate::datum::Datum;
use crate::table::{Table, TableId};
use bytes::Bytes;
use mulgil_model::position::Position;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// The values of one row, one for each of its table's columns.
pub type Row = Vec<Datum>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `c`
    Create,
    /// `u`
    Update,
    /// `d`
    Delete,
    /// `r`: a row of a snapshot.
    Read,
    /// `t`
    Truncate,
    /// `m`: a logical message.
    Message,
}

impl Op {
    /// Debezium's letter.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
            Self::Truncate => "t",
            Self::Message => "m",
        }
    }
}

/// One change.
///
/// `position` names it for ever: the same change has the same position whenever and however often it is read, and the next change of the
/// source has a higher one. A row of a snapshot has a place of its own, see [`Snapshot`].
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub op: Op,
    pub what: What,
    pub position: Position,
    /// Shared by all changes of one transaction, or of one chunk of a snapshot.
    pub origin: Arc<Origin>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Create, update, delete, read. `before` of an update or delete has what the replica identity or row image gives: the columns that are
    /// not part of it are [`Datum::Unavailable`]; none at all where the database sent none.
    Row {
        table: Arc<Table>,
        before: Option<Row>,
        after: Option<Row>,
    },
    Truncate {
        table: Arc<Table>,
        cascade: bool,
        restart_identity: bool,
    },
    /// PostgreSQL's `pg_logical_emit_message`.
    Message {
        prefix: String,
        content: Bytes,
        is_transactional: bool,
    },
}

impl What {
    pub fn table(&self) -> Option<&TableId> {
        match self {
            Self::Row { table, .. } | Self::Truncate { table, .. } => Some(&table.id),
            Self::Message { .. } => None,
        }
    }
}

/// Where a change comes from: what Debezium puts into `source` and `transaction`, but for what each change has of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// When it was committed, microseconds since 1970 by the database's clock; of a snapshot's row, when the snapshot was begun.
    pub committed_us: i64,
    pub snapshot: Snapshot,
    pub place: Place,
}

/// The place in the database's own words.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    Postgres {
        database: Arc<str>,
        commit_lsn: u64,
        txid: Option<u32>,
    },
    /// `file` and `at` are of the event that ends the transaction's last statement seen so far; `gtid` in the server's notation.
    Mysql {
        server_id: u32,
        file: Arc<str>,
        at: u64,
        gtid: Option<Arc<str>>,
        thread: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshot {
    /// A change of the stream.
    No,
    /// A row of the first snapshot.
    Initial,
    /// A row of the very last chunk of the first snapshot.
    Last,
    /// A row of a snapshot that was asked for while streaming.
    Incremental,
}

/// What a source gives at a time: changes in order, and how to come back to the place behind them.
///
/// Whoever makes the changes durable stores `resume` with them, all or nothing, and hands the last stored one to the source when it is
/// opened again. May be without changes: a heartbeat of an idle database still moves the place on.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub changes: Vec<Change>,
    pub resume: Resume,
    pub askers: Askers,
}

/// Whose wishes are in the notes of a batch: they are told when it is durable, and learn that they were not heard when it is dropped.
#[derive(Debug, Clone, Default)]
pub struct Askers(Arc<Mutex<Vec<Asker>>>);

pub type Asker = oneshot::Sender<Result<(), String>>;

impl Askers {
    pub fn push(&self, asker: Asker) {
        self.all().push(asker);
    }

    /// The batch is durable.
    pub fn tell(&self) {
        // Whoever asked may have gone.
        self.all().drain(..).for_each(|asker| drop(asker.send(Ok(()))));
    }

    fn all(&self) -> MutexGuard<'_, Vec<Asker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch is what it says, whoever waits for it.
impl PartialEq for Askers {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// How far a source has come: a position that can be compared, and all that the source needs to go on there, as JSON of its own making
/// (slot and system identifier, GTID set and binlog file, finished chunks of a snapshot, shapes of tables).
///
/// What is large and seldom changes need not be given with every batch: the key `same` of the notes names what is as it was in the batch before
/// it (never in the first of an opening), and is not stored itself. What the notes leave out without a word is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    pub position: Position,
    pub notes: serde_json::Value,
}
