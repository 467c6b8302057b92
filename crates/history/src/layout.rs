//! How a stream's rows stand in its files: the stream's columns, then where and when each row was committed, in one sort order.

use crate::error::HistoryError;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use std::sync::Arc;

/// The row's partition in the log, 32-bit.
pub const PARTITION: &str = "_partition";
/// The row's offset in its partition, 64-bit.
pub const OFFSET: &str = "_offset";
/// When the row's commit was written to the log: microseconds, UTC.
pub const APPEND_TIME: &str = "_append_time";
/// When mulgil first held the row: microseconds, UTC.
pub const RECEIVE_TIME: &str = "_receive_time";

/// The shape of one stream's files: its columns in their order, then the four above. Sorted by (key, event time, partition, offset), so
/// that one symbol's day is one run of pages.
#[derive(Debug)]
pub(crate) struct Layout {
    pub stream: Arc<StreamSchema>,
    pub arrow: SchemaRef,
}

impl Layout {
    pub fn new(stream: Arc<StreamSchema>) -> Result<Self, HistoryError> {
        if let Some(taken) = [PARTITION, OFFSET, APPEND_TIME, RECEIVE_TIME].into_iter().find(|name| stream.index_of(name).is_some()) {
            return Err(HistoryError::User(format!(
                "stream '{}' has a column '{taken}', which the history adds itself: rename it",
                stream.stream
            )));
        }
        let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let added = [(PARTITION, DataType::Int32), (OFFSET, DataType::Int64), (APPEND_TIME, timestamp.clone()), (RECEIVE_TIME, timestamp)];
        let fields = stream.arrow().fields().iter().cloned();
        let fields = fields.chain(added.map(|(name, kind)| Arc::new(Field::new(name, kind, false))));
        let arrow = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Self { stream, arrow })
    }

    pub fn name(&self) -> &str {
        self.stream.stream.as_str()
    }

    fn partition_index(&self) -> usize {
        self.stream.columns.len()
    }

    pub fn keys<'a>(&self, batch: &'a RecordBatch) -> &'a StringArray {
        batch.column(self.stream.key).as_string::<i32>()
    }

    pub fn event_times<'a>(&self, batch: &'a RecordBatch) -> &'a TimestampMicrosecondArray {
        batch.column(self.stream.event_time).as_primitive::<TimestampMicrosecondType>()
    }

    pub fn partitions<'a>(&self, batch: &'a RecordBatch) -> &'a Int32Array {
        batch.column(self.partition_index()).as_primitive::<Int32Type>()
    }

    pub fn offsets<'a>(&self, batch: &'a RecordBatch) -> &'a Int64Array {
        batch.column(self.partition_index() + 1).as_primitive::<Int64Type>()
    }

    /// The rows with the four columns behind them; the stream's columns are shared, not copied.
    pub fn batch(&self, rows: &Rows) -> Result<RecordBatch, ArrowError> {
        let n = rows.len();
        let partition = i32::try_from(rows.partition.0).map_err(|e| ArrowError::InvalidArgumentError(e.to_string()))?;
        let base = i64::try_from(rows.base.0).map_err(|e| ArrowError::InvalidArgumentError(e.to_string()))?;
        let times = |us: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(us).with_timezone("UTC")) };
        let mut columns = rows.batch.columns().to_vec();
        columns.push(Arc::new(Int32Array::from_value(partition, n)));
        columns.push(Arc::new(Int64Array::from_iter_values(base..base + n as i64)));
        columns.push(times(rows.appended.iter().map(|t| t.micros()).collect()));
        columns.push(times(rows.received.iter().map(|t| t.micros()).collect()));
        RecordBatch::try_new(Arc::clone(&self.arrow), columns)
    }

    /// Indexes of the columns that the rows are sorted by.
    pub fn sort_indices(&self) -> [usize; 4] {
        [self.stream.key, self.stream.event_time, self.partition_index(), self.partition_index() + 1]
    }

    /// A batch of an older file in today's shape: a column that came later is null there, one that went is left out.
    pub fn adapt(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let column = |field: &Arc<Field>| -> Result<ArrayRef, ArrowError> {
            match batch.column_by_name(field.name()) {
                Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
                Some(column) => arrow::compute::cast(column, field.data_type()),
                None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            }
        };
        RecordBatch::try_new(Arc::clone(&self.arrow), self.arrow.fields().iter().map(column).collect::<Result<_, _>>()?)
    }
}
