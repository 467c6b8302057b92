//! Rows to Avro and back, in the Confluent wire format: one zero byte, the schema id (4 bytes, big endian), the Avro binary body.
//! Format: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>.

use crate::schema::{ColumnType, StreamSchema};
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow_avro::codec::Tz;
use arrow_avro::errors::AvroError;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, FingerprintStrategy, SCHEMA_METADATA_KEY, SchemaStore};
use arrow_avro::writer::format::AvroSoeFormat;
use arrow_avro::writer::{EncodedRows, Encoder, WriterBuilder};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes before the Avro body.
pub const HEADER_BYTES: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("rows of stream '{stream}' cannot be written as avro: {source}")]
    Encode { stream: String, source: Box<AvroError> },
    #[error("row {row} of stream '{stream}' cannot be read: {reason}")]
    Decode { stream: String, row: u64, reason: String },
    #[error("row {row} of stream '{stream}' was written with schema {id}, which is not known here")]
    UnknownSchema { stream: String, row: u64, id: u32 },
    #[error("the avro schema of stream '{stream}' is not usable: {source}")]
    Schema { stream: String, source: ArrowError },
}

/// An Avro schema with the id under which rows name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireSchema {
    pub id: u32,
    pub json: String,
}

impl WireSchema {
    /// The Avro schema of a stream's columns. The id is a hash of the schema's text, so that the same config gives the same bytes on
    /// every machine; with a Kafka schema registry the registry's id takes its place.
    pub fn of(schema: &StreamSchema) -> Self {
        let fields: Vec<Value> = schema
            .columns
            .iter()
            .map(|c| {
                let kind = avro_type(c.kind);
                if c.nullable {
                    json!({"name": c.name, "type": ["null", kind], "default": null})
                } else {
                    json!({"name": c.name, "type": kind})
                }
            })
            .collect();
        let json = json!({"type": "record", "name": record_name(schema), "namespace": "mulgil", "fields": fields}).to_string();
        let id = (xxhash_rust::xxh3::xxh3_64(json.as_bytes()) & 0x7fff_ffff) as u32;
        Self { id: id.max(1), json }
    }
}

fn avro_type(kind: ColumnType) -> Value {
    match kind {
        ColumnType::Text => json!("string"),
        ColumnType::Int => json!("long"),
        ColumnType::Decimal { precision, scale } => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        ColumnType::Timestamp => json!({"type": "long", "logicalType": "timestamp-micros"}),
        ColumnType::Bool => json!("boolean"),
        ColumnType::Float => json!("double"),
    }
}

/// `trades.bars.1m` -> `trades_bars_1m`; Avro names may not start with a digit.
fn record_name(schema: &StreamSchema) -> String {
    let name: String = schema.stream.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// Turns batches of one stream into one message per row.
pub struct RowEncoder {
    stream: String,
    encoder: Encoder,
    wire: WireSchema,
}

impl RowEncoder {
    pub fn new(schema: &StreamSchema) -> Result<Self, CodecError> {
        let stream = schema.stream.to_string();
        let wire = WireSchema::of(schema);
        let metadata = [(SCHEMA_METADATA_KEY.to_owned(), wire.json.clone())].into_iter().collect();
        let arrow = schema.arrow().as_ref().clone().with_metadata(metadata);
        let builder = WriterBuilder::new(arrow).with_fingerprint_strategy(FingerprintStrategy::Id(wire.id));
        let encoder =
            builder.build_encoder::<AvroSoeFormat>().map_err(|e| CodecError::Encode { stream: stream.clone(), source: Box::new(e) })?;
        Ok(Self { stream, encoder, wire })
    }

    pub fn wire(&self) -> &WireSchema {
        &self.wire
    }

    /// One complete message (header and body) per row, all in one buffer.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<EncodedRows, CodecError> {
        let wrap = |e| CodecError::Encode { stream: self.stream.clone(), source: Box::new(e) };
        // The encoder compares schemas including metadata, which rows inside the process do not carry.
        let batch = batch.clone().with_schema(self.encoder.schema()).map_err(|e| wrap(AvroError::ArrowError(Box::new(e))))?;
        self.encoder.encode(&batch).map_err(wrap)?;
        Ok(self.encoder.flush())
    }
}

/// Turns messages back into batches of the stream's present schema, whichever known schema each was written with.
pub struct RowDecoder {
    schema: Arc<StreamSchema>,
    present: WireSchema,
    store: SchemaStore,
    decoder: Decoder,
    known: BTreeSet<u32>,
}

/// Rows decoded into one Arrow batch at most.
pub const DECODE_ROWS_MAX: usize = 65_536;

impl RowDecoder {
    /// `older` are schemas this stream's rows were written with before.
    pub fn new(schema: Arc<StreamSchema>, older: &[WireSchema]) -> Result<Self, CodecError> {
        let wrap = |e| CodecError::Schema { stream: schema.stream.to_string(), source: e };
        let present = WireSchema::of(&schema);
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        let mut known = BTreeSet::new();
        for wire in older.iter().chain([&present]) {
            store.set(Fingerprint::Id(wire.id), AvroSchema::new(wire.json.clone())).map_err(wrap)?;
            known.insert(wire.id);
        }
        let decoder = build_decoder(&present, &store).map_err(wrap)?;
        Ok(Self { schema, present, store, decoder, known })
    }

    pub fn schema(&self) -> &Arc<StreamSchema> {
        &self.schema
    }

    /// Decodes up to [`DECODE_ROWS_MAX`] messages into one batch. A message that cannot be read is an error that names its ordinal; the
    /// decoder is usable again afterwards.
    pub fn decode<'a>(&mut self, messages: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch, CodecError> {
        let result = self.decode_all(messages);
        if result.is_err() {
            self.decoder = build_decoder(&self.present, &self.store)
                .map_err(|e| CodecError::Schema { stream: self.schema.stream.to_string(), source: e })?;
        }
        result
    }

    fn decode_all<'a>(&mut self, messages: impl IntoIterator<Item = &'a [u8]>) -> Result<RecordBatch, CodecError> {
        let stream = || self.schema.stream.to_string();
        let mut parts = Vec::new();
        let mut n_rows = 0u64;
        for message in messages {
            let fail = |reason: String| CodecError::Decode { stream: stream(), row: n_rows, reason };
            let id = schema_id(message).ok_or_else(|| fail("it does not begin with a zero byte and a schema id".to_owned()))?;
            if !self.known.contains(&id) {
                return Err(CodecError::UnknownSchema { stream: stream(), row: n_rows, id });
            }
            let mut rest = message;
            while !rest.is_empty() {
                let used = self.decoder.decode(rest).map_err(|e| fail(e.to_string()))?;
                rest = &rest[used..];
                // No progress means the batch is full or the schema has changed; either way what is there must come out first.
                if used == 0 {
                    let flushed = self.decoder.flush().map_err(|e| fail(e.to_string()))?;
                    parts.push(flushed.ok_or_else(|| fail("the message is cut short".to_owned()))?);
                }
            }
            n_rows += 1;
        }
        let fail = |reason: String| CodecError::Decode { stream: stream(), row: n_rows, reason };
        parts.extend(self.decoder.flush().map_err(|e| fail(e.to_string()))?);
        let n_decoded: usize = parts.iter().map(RecordBatch::num_rows).sum();
        if n_decoded as u64 != n_rows {
            return Err(fail(format!("{n_rows} messages gave {n_decoded} rows")));
        }
        let columns = |b: RecordBatch| RecordBatch::try_new(Arc::clone(self.schema.arrow()), b.columns().to_vec());
        let parts: Vec<RecordBatch> = parts.into_iter().map(columns).collect::<Result<_, _>>().map_err(|e| fail(e.to_string()))?;
        match parts.len() {
            0 => Ok(RecordBatch::new_empty(Arc::clone(self.schema.arrow()))),
            1 => Ok(parts.into_iter().next().expect("one part was counted")),
            _ => arrow::compute::concat_batches(self.schema.arrow(), &parts).map_err(|e| fail(e.to_string())),
        }
    }
}

fn build_decoder(present: &WireSchema, store: &SchemaStore) -> Result<Decoder, ArrowError> {
    ReaderBuilder::new()
        .with_reader_schema(AvroSchema::new(present.json.clone()))
        .with_writer_schema_store(store.clone())
        .with_active_fingerprint(Fingerprint::Id(present.id))
        .with_batch_size(DECODE_ROWS_MAX)
        .with_tz(Tz::Utc)
        .build_decoder()
}

/// The schema id of a message, if it is in the wire format.
pub fn schema_id(message: &[u8]) -> Option<u32> {
    match message {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ids::Topic;
    use crate::schema::{Column, StreamKind};
    use crate::streams::{TradeDecimals, trades};
    use arrow::array::{ArrayRef, Decimal128Array, StringArray, TimestampMicrosecondArray};

    fn trade_batch(schema: &StreamSchema, n: usize) -> RecordBatch {
        let decimal = |i: usize, kind: ColumnType, base: i128| -> ArrayRef {
            let ColumnType::Decimal { precision, scale } = kind else { unreachable!("{i} is a decimal") };
            Arc::new(
                Decimal128Array::from_iter_values((0..n as i128).map(|v| base + v)).with_precision_and_scale(precision, scale).unwrap(),
            )
        };
        let columns = schema.columns.iter().enumerate().map(|(i, c)| match c.kind {
            ColumnType::Text => {
                Arc::new(StringArray::from_iter((0..n).map(|r| (!c.nullable || r % 2 == 0).then(|| format!("{}{r}", c.name))))) as ArrayRef
            }
            ColumnType::Timestamp => {
                Arc::new(TimestampMicrosecondArray::from_iter_values((0..n as i64).map(|v| v * 1_000)).with_timezone("UTC")) as ArrayRef
            }
            kind => decimal(i, kind, -3),
        });
        RecordBatch::try_new(Arc::clone(schema.arrow()), columns.collect()).unwrap()
    }

    #[test]
    fn round_trip() {
        let schema = Arc::new(trades(Topic::new("trades").unwrap(), TradeDecimals::default(), vec![]).unwrap());
        let batch = trade_batch(&schema, 1000);
        let mut encoder = RowEncoder::new(&schema).unwrap();
        let rows = encoder.encode(&batch).unwrap();
        assert_eq!(rows.len(), 1000);
        let mut decoder = RowDecoder::new(Arc::clone(&schema), &[]).unwrap();
        let messages: Vec<_> = rows.iter().collect();
        let back = decoder.decode(messages.iter().map(|m| m.as_ref())).unwrap();
        assert_eq!(back, batch);
        // Again with the same decoder, and row by row: the bytes of a row do not depend on its batch.
        assert_eq!(decoder.decode(messages.iter().map(|m| m.as_ref())).unwrap(), batch);
        for (i, message) in messages.iter().enumerate().take(5) {
            assert_eq!(encoder.encode(&batch.slice(i, 1)).unwrap().bytes(), message);
        }
        assert_eq!(decoder.decode([]).unwrap().num_rows(), 0);
    }

    #[test]
    fn damage_is_an_error_and_the_decoder_lives_on() {
        let schema = Arc::new(trades(Topic::new("trades").unwrap(), TradeDecimals::default(), vec![]).unwrap());
        let batch = trade_batch(&schema, 3);
        let rows = RowEncoder::new(&schema).unwrap().encode(&batch).unwrap();
        let mut decoder = RowDecoder::new(Arc::clone(&schema), &[]).unwrap();
        let good = rows.row(0).unwrap();
        for bad in [&b""[..], b"\x00", b"\x01\x00\x00\x00\x01abc", b"\x00\x00\x00\x00\x01abc", &good[..good.len() - 1], &good[..6]] {
            assert!(decoder.decode([good.as_ref(), bad]).is_err(), "{bad:?}");
            assert_eq!(decoder.decode([good.as_ref()]).unwrap(), batch.slice(0, 1));
        }
    }

    #[test]
    fn rows_of_an_older_schema_are_read_into_the_present_one() {
        let t = Topic::new("trades").unwrap();
        let old = Arc::new(trades(t.clone(), TradeDecimals::default(), vec![]).unwrap());
        let new = Arc::new(trades(t, TradeDecimals::default(), vec![Column::optional("venue", ColumnType::Text)]).unwrap());
        assert_eq!(new.kind, StreamKind::Trade);
        let (a, b) = (trade_batch(&old, 2), trade_batch(&new, 2));
        let mut messages: Vec<_> = RowEncoder::new(&old).unwrap().encode(&a).unwrap().iter().collect();
        messages.extend(RowEncoder::new(&new).unwrap().encode(&b).unwrap().iter());
        let mut decoder = RowDecoder::new(Arc::clone(&new), &[WireSchema::of(&old)]).unwrap();
        let rows = decoder.decode(messages.iter().map(|m| m.as_ref())).unwrap();
        assert_eq!(rows.num_rows(), 4);
        assert_eq!(rows.column(8).null_count(), 3);
        assert_eq!(rows.slice(2, 2), b);
    }
}
