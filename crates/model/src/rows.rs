//! Rows as they travel inside the process: an Arrow batch of one stream, with where its rows stand in the log.

use crate::ids::{Offset, Partition};
use crate::schema::StreamSchema;
use crate::time::{AppendTime, ReceiveTime};
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use std::sync::Arc;

/// Committed rows of one partition, in order and without holes: row `i` has the offset `base + i`.
#[derive(Debug, Clone)]
pub struct Rows {
    pub schema: Arc<StreamSchema>,
    pub partition: Partition,
    pub base: Offset,
    pub batch: RecordBatch,
    /// One per row.
    pub appended: Vec<AppendTime>,
    /// One per row.
    pub received: Vec<ReceiveTime>,
}

impl Rows {
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset behind the last row.
    pub fn next(&self) -> Offset {
        self.base.plus(self.len() as u64)
    }

    pub fn keys(&self) -> &StringArray {
        self.column(self.schema.key).as_string::<i32>()
    }

    /// Microseconds.
    pub fn event_times(&self) -> &TimestampMicrosecondArray {
        self.column(self.schema.event_time).as_primitive::<TimestampMicrosecondType>()
    }

    pub fn column(&self, index: usize) -> &ArrayRef {
        self.batch.column(index)
    }

    /// Rows `from .. from + n`, zero-copy.
    pub fn slice(&self, from: usize, n: usize) -> Self {
        Self {
            schema: Arc::clone(&self.schema),
            partition: self.partition,
            base: self.base.plus(from as u64),
            batch: self.batch.slice(from, n),
            appended: self.appended[from..from + n].to_vec(),
            received: self.received[from..from + n].to_vec(),
        }
    }
}
