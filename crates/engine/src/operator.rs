//! An operator: one step of a shard that turns input rows into rows of its output streams.
//!
//! Call order: `open` once, then `on_rows` for every batch in offset order, `on_watermark` when a decision moved the watermark without a row, `snapshot`
//! between any two of these. Everything an operator emits must depend only on the rows, their order and the watermarks, never on where
//! one batch ends and the next begins.

use crate::error::EngineError;
use crate::output::Outputs;
use crate::state::{Snapshot, StateStore};
use mulgil_model::ids::Offset;
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use std::sync::Arc;

/// No row has been seen yet.
pub const WATERMARK_NONE: i64 = i64::MIN;

/// A batch as an operator sees it.
pub struct Input<'a> {
    pub rows: &'a Rows,
    /// Microseconds; the watermark that held when the first row arrived.
    pub watermark_before: i64,
    /// The watermark after each row: `max event time so far - bound`, never going back. Row `i` is late for a window that ends at or
    /// before the watermark that held when it arrived, `watermark_at(i)`.
    pub watermarks: &'a [i64],
    /// The rows' offsets where some rows were filtered out (duplicates); None: `rows.base + i`. Ask [`Input::offset_of`].
    pub offsets: Option<&'a [u64]>,
}

impl<'a> Input<'a> {
    /// A batch without filtered rows.
    pub fn new(rows: &'a Rows, watermark_before: i64, watermarks: &'a [i64]) -> Self {
        Self { rows, watermark_before, watermarks, offsets: None }
    }

    /// Where row `i` stands in the input partition: the only way to ask.
    pub fn offset_of(&self, i: usize) -> Offset {
        self.offsets.map_or_else(|| self.rows.base.plus(i as u64), |offsets| Offset(offsets[i]))
    }

    /// The watermark that held when row `i` arrived.
    pub fn watermark_at(&self, i: usize) -> i64 {
        if i == 0 { self.watermark_before } else { self.watermarks[i - 1] }
    }
}

pub trait Operator: Send {
    /// Unique within its shard and stable over restarts: its state is stored under this name.
    fn name(&self) -> &str;

    /// The streams this operator writes. `Outputs::emit` takes the index into this list.
    fn outputs(&self) -> Vec<Arc<StreamSchema>>;

    /// Called once, before anything else, with the watermark of the snapshot in `store`: the place to rebuild what only lives in memory.
    fn open(&mut self, _watermark: i64, _store: &dyn StateStore) -> Result<(), EngineError> {
        Ok(())
    }

    fn on_rows(&mut self, input: &Input<'_>, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError>;

    /// A decision taken before the row at `at` moved the watermark to `watermark`.
    fn on_watermark(&mut self, watermark: i64, at: Offset, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError>;

    /// Windows that a watermark of `to` closes, counted up to `max`; 0 for an operator that closes all of its own at once, whatever their number.
    /// The number must be the same after a restart: recorded decisions speak of it.
    fn n_due(&self, _to: i64, _max: usize) -> usize {
        0
    }

    /// Closes the earliest of the windows that [`Operator::n_due`] counts, at most so many of them, before the watermark is there.
    fn close_ahead(&mut self, _to: i64, _at_most: usize, _store: &dyn StateStore, _out: &mut Outputs) -> Result<(), EngineError> {
        Ok(())
    }

    /// Hands over every state entry changed since the last call, and may forget entries that are unchanged and cold.
    fn snapshot(&mut self, watermark: i64, into: &mut Snapshot);

    /// A decision with words for this operator. They must be understood the same way at every replay.
    fn on_message(&mut self, _message: &str, _at: Offset, _store: &dyn StateStore, _out: &mut Outputs) -> Result<(), EngineError> {
        Err(EngineError::Operator { operator: self.name().to_owned(), reason: "takes no messages".to_owned() })
    }

    fn stats(&self) -> OperatorStats {
        OperatorStats::default()
    }
}

/// Counts for metrics. None of them may influence what an operator emits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperatorStats {
    /// Rows that came too late, since `open`.
    pub n_late: u64,
    /// State entries in memory.
    pub n_hot: usize,
    /// State entries changed since the last snapshot.
    pub n_dirty: usize,
    pub n_open_windows: usize,
}

impl OperatorStats {
    pub fn add(&mut self, other: &Self) {
        self.n_late += other.n_late;
        self.n_hot += other.n_hot;
        self.n_dirty += other.n_dirty;
        self.n_open_windows += other.n_open_windows;
    }
}
