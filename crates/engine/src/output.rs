//! What a shard emits: batches per output stream, in the order in which they were emitted.

use arrow::array::RecordBatch;
use mulgil_model::schema::StreamSchema;
use std::sync::Arc;

/// Rows for one output stream.
#[derive(Debug, Clone)]
pub struct Emitted {
    pub schema: Arc<StreamSchema>,
    pub batch: RecordBatch,
}

/// Collects what the operators of a shard emit while one batch or decision is processed.
#[derive(Debug, Default)]
pub struct Outputs {
    emitted: Vec<Emitted>,
}

impl Outputs {
    /// Appends rows to `schema`'s stream; an empty batch is dropped.
    pub fn emit(&mut self, schema: &Arc<StreamSchema>, batch: RecordBatch) {
        debug_assert_eq!(batch.schema().fields(), schema.arrow().fields(), "an operator emits rows of the schema it declared");
        if batch.num_rows() > 0 {
            self.emitted.push(Emitted { schema: Arc::clone(schema), batch });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.emitted.is_empty()
    }

    pub fn into_emitted(self) -> Vec<Emitted> {
        self.emitted
    }
}
