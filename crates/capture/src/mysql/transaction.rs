//! A transaction whose end has not come: its rows, and what of them a savepoint can still take back.

use super::binlog::events::Xa;
use super::place::OneGtid;
use crate::change::{self, Change, What};
use crate::datum::Datum;
use crate::source::SourceError;
use bytes::Bytes;

/// Savepoints of one transaction.
const SAVEPOINTS_MAX: usize = 1 << 16;

#[derive(Debug)]
pub struct Open {
    pub gtid: Option<OneGtid>,
    pub thread: Option<u32>,
    pub committed_us: i64,
    /// One statement without an end of its own.
    pub is_standalone: bool,
    /// The branch that it will be prepared as: its rows are not given out at its end.
    pub xa: Option<Xa>,
    /// Of a branch that is too large to wait in memory: its rows are read again when it is committed.
    pub is_dropped: bool,
    /// Its rows are read again.
    pub is_replayed: bool,
    pub changes: Vec<Change>,
    pub bytes: usize,
    /// Rows that have come, of counted tables.
    pub rows: u64,
    /// Rows that have been given out.
    pub flushed: u64,
    /// Name, rows at that time, changes at that time.
    savepoints: Vec<(String, u64, usize)>,
}

impl Open {
    pub fn new(gtid: Option<OneGtid>, committed_us: i64, is_standalone: bool, skip: u64) -> Self {
        Self {
            gtid,
            thread: None,
            committed_us,
            is_standalone,
            xa: None,
            is_dropped: false,
            is_replayed: false,
            changes: Vec::new(),
            bytes: 0,
            rows: 0,
            flushed: skip,
            savepoints: Vec::new(),
        }
    }

    /// Counts one more row; false if it was given out before.
    pub fn count(&mut self) -> bool {
        self.rows += 1;
        self.rows > self.flushed
    }

    pub fn push(&mut self, change: Change) {
        self.bytes += bytes_of(&change);
        self.changes.push(change);
    }

    /// What has come so far, for somebody else to keep.
    pub fn take_rows(&mut self) -> (Vec<Change>, usize) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.bytes))
    }

    /// Its rows come once more, from the first one on.
    pub fn begin_anew(&mut self) {
        (self.is_dropped, self.is_replayed, self.xa, self.rows) = (false, true, None, 0);
        self.savepoints.clear();
    }

    pub fn drop_rows(&mut self) {
        (self.is_dropped, self.bytes) = (true, 0);
        self.changes = Vec::new();
        self.savepoints.iter_mut().for_each(|(_, _, n_changes)| *n_changes = 0);
    }

    pub fn savepoint(&mut self, name: String) -> Result<(), SourceError> {
        // The same name again takes the old one's place.
        self.savepoints.retain(|(n, ..)| *n != name);
        if self.savepoints.len() >= SAVEPOINTS_MAX {
            return Err(SourceError::refused(format!("a transaction has more than {SAVEPOINTS_MAX} savepoints")));
        }
        self.savepoints.push((name, self.rows, self.changes.len()));
        Ok(())
    }

    /// Undoes what came behind this many rows. What was rolled back before the rows were given out has been undone then.
    pub fn undo(&mut self, rows: u64, n_changes: usize) -> Result<(), SourceError> {
        if rows < self.flushed && self.rows >= self.flushed {
            return Err(SourceError::refused(
                "a transaction that is larger than a batch was rolled back after part of it was given out (it also changed a table without transactions): take a new snapshot, or raise batch_bytes_max",
            ));
        }
        self.changes.truncate(n_changes);
        self.bytes = self.changes.iter().map(bytes_of).sum();
        Ok(())
    }

    /// Takes what has come so far.
    pub fn flush(&mut self) -> Vec<Change> {
        self.flushed = self.flushed.max(self.rows);
        self.savepoints.iter_mut().for_each(|(_, _, n_changes)| *n_changes = 0);
        self.bytes = 0;
        std::mem::take(&mut self.changes)
    }

    pub fn rollback_to(&mut self, name: &str) -> Result<(), SourceError> {
        let Some(i) = self.savepoints.iter().position(|(n, ..)| n == name) else { return Ok(()) };
        let (_, rows, n_changes) = self.savepoints[i];
        self.savepoints.truncate(i + 1);
        self.undo(rows, n_changes)
    }
}

/// Values are slices of what the server sent, and would keep all of it for as long as they are kept.
pub fn copy_values(change: &mut Change) {
    let What::Row { before, after, .. } = &mut change.what else { return };
    before.iter_mut().chain(after).flatten().for_each(|datum| match datum {
        Datum::Odd(b) | Datum::Decimal(b) | Datum::Text(b) | Datum::Binary(b) | Datum::Json(b) => *b = Bytes::copy_from_slice(b),
        _ => {}
    });
}

/// Of a change, in memory, about.
pub fn bytes_of(change: &Change) -> usize {
    let row = |row: &Option<change::Row>| row.iter().flatten().map(|d| size_of::<Datum>() + d.heap_bytes()).sum::<usize>();
    size_of::<Change>()
        + match &change.what {
            What::Row { before, after, .. } => row(before) + row(after),
            What::Message { content, .. } => content.len(),
            What::Truncate { .. } => 0,
        }
}
