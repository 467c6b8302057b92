//! The rows that came too late for an operator, as a stream of their own: never dropped in silence.

use crate::error::EngineError;
use crate::operator::Input;
use crate::output::Outputs;
use arrow::array::UInt64Array;
use arrow::compute::take_record_batch;
use mulgil_model::ids::Topic;
use mulgil_model::schema::StreamSchema;
use std::sync::Arc;

/// Collects late rows of one batch and emits them, as they came, to a stream with the input's columns.
pub struct LateRows {
    schema: Arc<StreamSchema>,
    rows: Vec<u64>,
    n_total: u64,
}

impl LateRows {
    pub fn new(input: &StreamSchema, stream: Topic) -> Self {
        Self { schema: Arc::new(input.renamed(stream)), rows: Vec::new(), n_total: 0 }
    }

    pub fn schema(&self) -> &Arc<StreamSchema> {
        &self.schema
    }

    /// Late rows since the start.
    pub fn n_total(&self) -> u64 {
        self.n_total
    }

    pub fn push(&mut self, row: usize) {
        self.n_total += 1;
        self.rows.push(row as u64);
    }

    /// Emits what was pushed for this batch.
    pub fn emit(&mut self, input: &Input<'_>, out: &mut Outputs) -> Result<(), EngineError> {
        if !self.rows.is_empty() {
            let rows = UInt64Array::from(std::mem::take(&mut self.rows));
            out.emit(&self.schema, take_record_batch(&input.rows.batch, &rows)?);
        }
        Ok(())
    }
}
