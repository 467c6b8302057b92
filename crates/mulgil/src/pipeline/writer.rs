//! Rows on their way into the log: encoded once, dealt to partitions by key.

use super::recent::Dealt;
use super::schemas::Schemas;
use anyhow::Result;
use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use mulgil_log::{Append, Records, RecordsBuilder};
use mulgil_model::avro::RowEncoder;
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::keys::partition_of;
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::{EventTime, ReceiveTime};
use std::sync::Arc;

/// What a record takes beside its value, about: both times, the key and the lengths. Only a first guess of how much room a batch needs.
pub const RECORD_HEAD_BYTES: usize = 24;

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
        let (appends, _) = self.deal(batch, received)?;
        Ok(appends)
    }

    /// As [`Self::by_key`], with the rows of each append as they were, for [`super::recent::Recent`].
    pub fn deal(&mut self, batch: &RecordBatch, received: ReceiveTime) -> Result<(Vec<Append>, Vec<Dealt>)> {
        let (mut appends, mut dealt) = (Vec::new(), Vec::new());
        for (partition, batch) in self.split(batch)? {
            let records = self.encode(&batch, Some(received))?;
            let append = self.append(partition, records);
            dealt.push(Dealt { to: append.to.clone(), batch, received });
            appends.push(append);
        }
        Ok((appends, dealt))
    }

    /// The rows of each partition that gets any, in their order.
    fn split(&self, batch: &RecordBatch) -> Result<Vec<(Partition, RecordBatch)>> {
        if self.n_partitions == 1 {
            return Ok(if batch.num_rows() == 0 { vec![] } else { vec![(Partition(0), batch.clone())] });
        }
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); self.n_partitions as usize];
        let keys = batch.column(self.schema.key).as_string::<i32>();
        for row in 0..batch.num_rows() {
            rows[partition_of(keys.value(row).as_bytes(), self.n_partitions).0 as usize].push(row as u32);
        }
        let filled = rows.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
        filled.map(|(p, rows)| Ok((Partition(p as u32), take_record_batch(batch, &UInt32Array::from(rows))?))).collect()
    }

    /// All rows into one partition, as a shard does with what it derives. Derived rows carry no time of the clock, so that they are the
    /// same bytes whenever they are computed: their receive time is their event time.
    pub fn for_partition(&mut self, batch: &RecordBatch, partition: Partition) -> Result<Append> {
        let records = self.encode(batch, None)?;
        Ok(self.append(partition, records))
    }

    fn append(&self, partition: Partition, records: Records) -> Append {
        Append { to: TopicPartition::new(self.topic.clone(), partition), records }
    }

    fn encode(&mut self, batch: &RecordBatch, received: Option<ReceiveTime>) -> Result<Records> {
        let rows = self.encoder.encode(batch)?;
        let (bytes, offsets) = (rows.bytes(), rows.offsets());
        let keys = batch.column(self.schema.key).as_string::<i32>();
        let times = batch.column(self.schema.event_time).as_primitive::<TimestampMicrosecondType>();
        let mut builder = RecordsBuilder::with_capacity(bytes.len() + batch.num_rows() * RECORD_HEAD_BYTES);
        for row in 0..batch.num_rows() {
            let (value, at) = (&bytes[offsets[row]..offsets[row + 1]], times.value(row));
            builder.push(keys.value(row).as_bytes(), &[], value, EventTime(at), received.unwrap_or(ReceiveTime(at)));
        }
        Ok(builder.finish())
    }
}
