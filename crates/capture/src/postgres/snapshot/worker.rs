//! Reads one part of a table over one connection.

use super::SnapshotSettings;
use super::error::SnapshotError;
use super::notes::KeyText;
use super::plan::{Part, TablePlan};
use super::rows::Rows;
use crate::change::Row;
use crate::postgres::catalog::{number, optional};
use crate::postgres::wire::{Connection, literal};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// For one row: the first one may have to wait until the server has sorted the table.
const ROW_TIMEOUT: Duration = Duration::from_secs(900);
/// Longer than `lock_timeout`.
const LOCK_TIMEOUT: Duration = Duration::from_secs(90);

pub(super) struct Job {
    pub plan: Arc<TablePlan>,
    pub from: From,
    pub part: Part,
    /// Of the exported snapshot.
    pub snapshot: Arc<str>,
    pub settings: SnapshotSettings,
}

/// Which part of which table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct From {
    pub table: usize,
    /// Counts how often the table was begun.
    pub generation: u32,
    pub span: usize,
    pub view: usize,
}

pub(super) enum Event {
    Chunk(Chunk),
    Ended(Ended),
}

/// Rows of one part, in its order, none left out.
pub(super) struct Chunk {
    pub from: From,
    pub rows: Vec<Row>,
    /// What the rows take in memory, about.
    pub n_bytes: usize,
    /// The key of the last row; `None` at the end of the part, and for tables without a key.
    pub upto: Option<KeyText>,
    pub is_end: bool,
}

pub(super) struct Ended {
    pub from: From,
    /// To be used again.
    pub connection: Option<Connection>,
    pub outcome: Result<Outcome, SnapshotError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Read,
    /// The table is gone, has other columns, or has other files: it must be planned anew, under a new snapshot.
    Changed,
}

impl Job {
    /// Tells everything to `events`, the end included.
    pub async fn run(self, mut connection: Connection, events: Sender<Event>) {
        let from = self.from;
        let outcome = match self.read(&mut connection, &events).await {
            Err(error) if error.is_table_changed() => Ok(Outcome::Changed),
            other => other,
        };
        let is_usable = matches!(outcome, Ok(Outcome::Read)) || connection.query("ROLLBACK").await.is_ok();
        let ended = Ended { from, connection: is_usable.then_some(connection), outcome };
        // Nobody listens when the snapshot was dropped.
        events.send(Event::Ended(ended)).await.ok();
    }

    async fn read(&self, connection: &mut Connection, events: &Sender<Event>) -> Result<Outcome, SnapshotError> {
        import(connection, &self.snapshot).await?;
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", self.plan.quoted);
        connection.query_within(&lock, LOCK_TIMEOUT).await.map_err(|e| self.plan.failed(e))?;
        if !has_same_files(connection, &self.plan).await? {
            return Ok(Outcome::Changed);
        }
        connection.copy_out(&self.plan.copy(&self.part)).await.map_err(|e| self.plan.failed(e))?;
        let mut rows = Rows::new(&self.plan);
        let (mut chunk, mut n_bytes) = (Vec::new(), 0);
        while let Some(row) = connection.copied(ROW_TIMEOUT).await.map_err(|e| self.plan.failed(e))? {
            let (row, row_bytes) = rows.decode(row)?;
            n_bytes += row_bytes;
            chunk.push(row);
            if chunk.len() >= self.settings.chunk_rows || n_bytes >= self.settings.chunk_bytes {
                let full = Chunk { from: self.from, rows: std::mem::take(&mut chunk), n_bytes, upto: rows.key()?, is_end: false };
                n_bytes = 0;
                if events.send(Event::Chunk(full)).await.is_err() {
                    return Ok(Outcome::Read);
                }
            }
        }
        connection.query("COMMIT").await?;
        let last = Chunk { from: self.from, rows: chunk, n_bytes, upto: None, is_end: true };
        events.send(Event::Chunk(last)).await.ok();
        Ok(Outcome::Read)
    }
}

/// Begins a transaction that sees what the exported snapshot sees.
pub(super) async fn import(connection: &mut Connection, snapshot: &str) -> Result<(), SnapshotError> {
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}", literal(snapshot));
    connection.query(&begin).await?;
    Ok(())
}

/// Whether the table's rows still lie where they lay when it was planned. The lock that the transaction holds keeps them there.
async fn has_same_files(connection: &mut Connection, plan: &TablePlan) -> Result<bool, SnapshotError> {
    let oids = plan.leaves.iter().map(|l| l.oid.to_string()).collect::<Vec<_>>().join(",");
    let sql = format!("SELECT o, pg_relation_filenode(o), to_regclass({})::oid FROM unnest('{{{oids}}}'::oid[]) o", literal(&plan.quoted));
    let mut files = BTreeMap::new();
    for row in connection.query(&sql).await? {
        if optional(&row, 2)? != Some(plan.oid.to_string().as_str()) {
            return Ok(false);
        }
        files.insert(number::<u32>(&row, 0)?, optional(&row, 1)?.and_then(|f| f.parse::<u32>().ok()));
    }
    Ok(plan.leaves.iter().all(|leaf| files.get(&leaf.oid) == Some(&Some(leaf.file))))
}
