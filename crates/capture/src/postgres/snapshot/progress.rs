//! How far a snapshot has come, for a progress bar and for metrics.

use super::notes::{SnapshotNotes, TableState};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub n_tables: usize,
    pub n_tables_done: usize,
    /// Tables that could not be read, and why.
    pub skipped: Vec<(String, String)>,
    pub n_rows: u64,
    /// By the planner's statistics; `None` if a table was never analysed.
    pub n_rows_estimated: Option<u64>,
    pub n_chunks: u64,
    /// The chunks given and those that are still expected.
    pub n_chunks_estimated: u64,
}

impl Progress {
    pub fn of(notes: &SnapshotNotes, n_chunks: u64, chunk_rows: usize) -> Self {
        let mut progress = Self { n_tables: notes.tables.len(), n_rows: notes.n_rows(), n_chunks, ..Self::default() };
        let (mut estimate, mut n_chunks_left) = (Some(0), 0);
        for table in &notes.tables {
            match &table.state {
                TableState::Done => progress.n_tables_done += 1,
                TableState::Skipped(why) => progress.skipped.push((format!("{}.{}", table.schema, table.name), why.clone())),
                TableState::Reading => {
                    let n_left = table.n_rows_estimated.unwrap_or(0).saturating_sub(table.n_rows);
                    n_chunks_left += n_left.div_ceil(chunk_rows.max(1) as u64).max(1);
                }
            }
            // What is read is known, what is left is estimated: the sum never is below what was read.
            let of_table =
                if table.state == TableState::Reading { table.n_rows_estimated.map(|n| n.max(table.n_rows)) } else { Some(table.n_rows) };
            estimate = estimate.zip(of_table).map(|(sum, n)| sum + n);
        }
        progress.n_rows_estimated = estimate;
        progress.n_chunks_estimated = n_chunks + n_chunks_left;
        progress
    }
}
