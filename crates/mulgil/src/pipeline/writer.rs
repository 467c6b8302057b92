//! Rows on their way into the log: encoded once, dealt to partitions by key.

use super::schemas::Schemas;
use anyhow::Result;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use mulgil_log::{Append, RecordsBuilder};
use mulgil_model::avro::RowEncoder;
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::keys::partition_of;
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::{EventTime, ReceiveTime};
use std::sync::Arc;

/// Writes rows of one stream.
pub struct StreamWriter {
    schema: Arc<StreamSchema>,
    /// Where the rows go: the stream's own topic, or `<stream>.in` for one that is de-duplicated first.
    topic: Topic,
    n_partitions: u32,
    encoder: RowEncoder,
}

impl StreamWriter {
    pub fn new(schemas: &Schemas, schema: Arc<StreamSchema>, topic: Topic, n_partitions: u32) -> Result<Self> {
        let encoder = schemas.encoder(&schema)?;
        Ok(Self { schema, topic, n_partitions, encoder })
    }

    /// One append per partition that gets rows, in partition order; `received` holds for all of them.
    pub fn by_key(&mut self, batch: &RecordBatch, received: ReceiveTime) -> Result<Vec<Append>> {
        let n = self.n_partitions;
        let mut builders: Vec<RecordsBuilder> = (0..n).map(|_| RecordsBuilder::new()).collect();
        self.encode(batch, Some(received), |key, push| push(&mut builders[partition_of(key, n).0 as usize]))?;
        let filled = builders.into_iter().enumerate().filter(|(_, b)| !b.is_empty());
        Ok(filled.map(|(p, b)| self.append(Partition(p as u32), b)).collect())
    }

    /// All rows into one partition, as a shard does with what it derives. Derived rows carry no time of the clock, so that they are the
    /// same bytes whenever they are computed: their receive time is their event time.
    pub fn for_partition(&mut self, batch: &RecordBatch, partition: Partition) -> Result<Append> {
        let mut builder = RecordsBuilder::new();
        self.encode(batch, None, |_, push| push(&mut builder))?;
        Ok(self.append(partition, builder))
    }

    fn append(&self, partition: Partition, records: RecordsBuilder) -> Append {
        Append { to: TopicPartition::new(self.topic.clone(), partition), records: records.finish() }
    }

    fn encode(
        &mut self,
        batch: &RecordBatch,
        received: Option<ReceiveTime>,
        mut place: impl FnMut(&[u8], &mut dyn FnMut(&mut RecordsBuilder)),
    ) -> Result<()> {
        let rows = self.encoder.encode(batch)?;
        let (bytes, offsets) = (rows.bytes(), rows.offsets());
        let keys = batch.column(self.schema.key).as_string::<i32>();
        let times = batch.column(self.schema.event_time).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let key = keys.value(row).as_bytes();
            let value = &bytes[offsets[row]..offsets[row + 1]];
            let at = times.value(row);
            let received = received.unwrap_or(ReceiveTime(at));
            place(key, &mut |builder| builder.push(key, &[], value, EventTime(at), received));
        }
        Ok(())
    }
}
