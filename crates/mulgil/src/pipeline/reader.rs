//! Rows of a stream, read from the log and decoded.

use super::recent::Recent;
use super::schemas::Schemas;
use anyhow::{Context, Result};
use mulgil_log::{Chunk, Log, ReadLimit};
use mulgil_model::avro::{DECODE_ROWS_MAX, RowDecoder};
use mulgil_model::ids::{Offset, Partition, TopicPartition};
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads one stream. Shared by all readers of the stream; each call borrows a decoder of its own.
pub struct StreamReader {
    log: Arc<dyn Log>,
    schema: Arc<StreamSchema>,
    schemas: Arc<Schemas>,
    /// Looked at before the log is.
    recent: Option<Arc<Recent>>,
    /// At most as many as there were calls at once; a call takes one and gives it back.
    decoders: Mutex<Vec<RowDecoder>>,
}

/// The encoded size of one read.
const READ_BYTES: usize = 8 << 20;

impl StreamReader {
    pub fn new(log: Arc<dyn Log>, schemas: Arc<Schemas>, schema: Arc<StreamSchema>) -> Self {
        Self { log, schema, schemas, recent: None, decoders: Mutex::new(Vec::new()) }
    }

    /// Takes rows that were committed a moment ago from there instead of decoding them again.
    pub fn with_recent(self, recent: Arc<Recent>) -> Self {
        Self { recent: Some(recent), ..self }
    }

    pub fn schema(&self) -> &Arc<StreamSchema> {
        &self.schema
    }

    /// Up to `max_rows` rows of a partition from `from` on; none at its end.
    pub fn read(&self, partition: Partition, from: Offset, max_rows: usize) -> Result<Rows> {
        let at = TopicPartition::new(self.schema.stream.clone(), partition);
        if let Some(recent) = &self.recent
            && let Some(rows) = recent.find(&at, from, &self.schema, max_rows)?
        {
            return Ok(rows);
        }
        let limit = ReadLimit { bytes: READ_BYTES, records: max_rows.min(DECODE_ROWS_MAX) };
        let chunk = self.log.read(&at, from, limit)?;
        let mut decoder = match self.decoders.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            Some(decoder) => decoder,
            None => self.schemas.decoder(&self.schema)?,
        };
        let rows = decode(&mut decoder, &chunk, partition, from).with_context(|| format!("offsets from {from} of {at}"));
        self.decoders.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
        rows
    }
}

fn decode(decoder: &mut RowDecoder, chunk: &Chunk, partition: Partition, from: Offset) -> Result<Rows> {
    let batch = decoder.decode(chunk.iter().map(|r| r.value))?;
    let mut appended = Vec::with_capacity(batch.num_rows());
    let mut received = Vec::with_capacity(batch.num_rows());
    for record in chunk.iter() {
        appended.push(record.append_time);
        received.push(record.receive_time);
    }
    Ok(Rows { schema: Arc::clone(decoder.schema()), partition, base: from, batch, appended, received })
}
