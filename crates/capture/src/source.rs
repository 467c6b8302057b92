//! A captured database as its supervisor sees it.
//!
//! ```text
//! open(settings, last stored Resume, Link) ─▶ next ─▶ Batch ─▶ the supervisor makes it durable ─▶ Link::durable moves on ─▶ the source tells
//!                                              ▲                                                                             the database
//!                                              └── again, until an error or until it is dropped
//! ```
//!
//! Each kind of database has `pub async fn open(settings, Option<Resume>, Link) -> Result<Box<dyn Source>, SourceError>` and
//! `pub async fn check(&settings) -> Result<Vec<Missing>, SourceError>`.

use crate::change::{Asker, Batch};
use mulgil_model::position::Position;
use std::future::Future;
use std::pin::Pin;
use tokio::sync::{mpsc, watch};

/// The next batch, as soon as there is one.
pub type Next<'a> = Pin<Box<dyn Future<Output = Result<Batch, SourceError>> + Send + 'a>>;

pub trait Source: Send {
    /// Waits for changes, or for a heartbeat that moves the place on. Positions of `resume` grow strictly from batch to batch, and the first
    /// is above the stored one. A batch is bounded in rows and bytes (but for one row that alone is larger), and a transaction may span
    /// many. What is told through the [`Link`] is served while this waits. The future is dropped only together with the source; after an
    /// error the source is dropped, and opened again if the error says that it may be.
    fn next(&mut self) -> Next<'_>;
}

/// What a source and its supervisor tell each other while it runs: handed in at opening.
pub struct Link {
    /// All up to here is durable and may be acknowledged to the database; nothing above it ever.
    pub durable: watch::Receiver<Position>,
    /// Sent to whenever something of it has changed, at least every ten seconds.
    pub health: watch::Sender<Health>,
    /// Snapshots that are asked for while streaming; bounded by whoever asks.
    pub requests: mpsc::Receiver<SnapshotRequest>,
}

/// Reads these tables again while streaming continues.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// As in the config: `public.stock_trades`.
    pub tables: Vec<String>,
    /// A condition on the rows, in the database's SQL; only from the API, whose caller may read the table anyway.
    pub filter: Option<String>,
    /// Goes with the batch whose `resume` has it; answered at once with the reason where it is not accepted.
    pub accepted: Asker,
}

/// How a source is, for metrics, alarms and /health. What a database does not have stays `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    pub phase: Phase,
    /// When the last change that was read was committed, microseconds since 1970 by the database's clock.
    pub committed_us: Option<i64>,
    /// Written by the database but not read yet.
    pub lag_bytes: Option<u64>,
    /// WAL or binlog the database keeps for this source.
    pub retained_bytes: Option<u64>,
    /// PostgreSQL: `pg_replication_slots.wal_status` and `safe_wal_size`.
    pub wal_status: Option<String>,
    pub safe_wal_bytes: Option<i64>,
    /// MySQL: tables whose rows came or went without row events, each with the statement: what was captured is not the table until a new
    /// snapshot of it.
    pub stale: Vec<String>,
    /// Of the snapshot under way.
    pub snapshot_rows: u64,
    pub snapshot_chunks_done: u64,
    pub snapshot_chunks: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Connecting,
    Snapshot,
    Streaming,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Snapshot => "snapshot",
            Self::Streaming => "streaming",
        }
    }
}

/// Why a source ended. The text names the thing and says what to do; it never carries a password or a value of a row.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    pub kind: SourceErrorKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The connection or the server: opening it again may help, and is tried with back-off for ever.
    Retry,
    /// Going on would skip or repeat changes (slot gone, binlog purged, another server): a person chooses, and the message spells the
    /// choices out. Not tried again by itself.
    Refused,
    /// A setting, privilege or name is wrong. Tried again slowly, since the database can be put right while this runs.
    Config,
}

impl SourceError {
    pub fn retry(message: impl Into<String>) -> Self {
        Self { kind: SourceErrorKind::Retry, message: message.into() }
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: SourceErrorKind::Refused, message: message.into() }
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self { kind: SourceErrorKind::Config, message: message.into() }
    }
}

/// Something the database lacks for capture, as `mulgil check` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// `wal_level is replica, not logical`
    pub what: String,
    /// The statement that puts it right: `ALTER SYSTEM SET wal_level = logical; -- then restart the server`
    pub fix: String,
    /// Capture does not start without it; else it only works less well.
    pub is_fatal: bool,
}
