//! The newest rows of a stream, in memory until they are in a file.

use arrow::array::{Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use mulgil_model::time::AppendTime;

/// Batches are joined as they come until they hold this many rows, so that a stream of single rows does not become a million batches.
const BATCH_ROWS_MAX: usize = 4 * 1024;

/// `sealed` is what the running flush writes (or a failed one left): it changes only when a flush ends. `open` takes new rows.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    sealed: Vec<RecordBatch>,
    open: Vec<RecordBatch>,
    pub rows: usize,
    pub bytes: usize,
    /// The append time of the oldest row.
    pub oldest: Option<AppendTime>,
    open_rows: usize,
    open_bytes: usize,
    open_oldest: Option<AppendTime>,
}

impl Tail {
    pub fn push(&mut self, batch: RecordBatch, oldest: AppendTime) -> Result<(), ArrowError> {
        let (rows, bytes) = (batch.num_rows(), batch_bytes(&batch));
        self.open.push(batch);
        self.join_small()?;
        self.rows += rows;
        self.bytes += bytes;
        self.open_rows += rows;
        self.open_bytes += bytes;
        self.oldest.get_or_insert(oldest);
        self.open_oldest.get_or_insert(oldest);
        Ok(())
    }

    /// Joins the last two batches while the one before is at most twice as long: each row is copied a logarithmic number of times.
    fn join_small(&mut self) -> Result<(), ArrowError> {
        while let [.., before, last] = self.open.as_slice() {
            let joined_rows = before.num_rows() + last.num_rows();
            if before.num_rows() > 2 * last.num_rows() || joined_rows > BATCH_ROWS_MAX {
                return Ok(());
            }
            let joined = concat_batches(before.schema_ref(), [before, last])?;
            self.open.truncate(self.open.len() - 2);
            self.open.push(joined);
        }
        Ok(())
    }

    /// Every row now held, for a flush; they stay visible until [`Tail::forget_sealed`].
    pub fn seal(&mut self) -> Vec<RecordBatch> {
        self.sealed.append(&mut self.open);
        (self.open_rows, self.open_bytes, self.open_oldest) = (0, 0, None);
        self.sealed.clone()
    }

    /// The sealed rows are in a file now.
    pub fn forget_sealed(&mut self) {
        self.sealed.clear();
        (self.rows, self.bytes, self.oldest) = (self.open_rows, self.open_bytes, self.open_oldest);
    }

    pub fn batches(&self) -> Vec<RecordBatch> {
        self.sealed.iter().chain(&self.open).cloned().collect()
    }
}

/// Bytes of the rows themselves; a slice of a large batch counts only its part.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
    sizes.map(|size| size.unwrap_or(0)).sum()
}
