//! The log's own record of every schema its rows were written with, so that rows outlive a change of the configuration.

use anyhow::{Context, Result};
use mulgil_log::{Append, Commit, Log, ReadLimit, RecordsBuilder, Seek};
use mulgil_model::avro::{RowDecoder, RowEncoder, WireSchema};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::SCHEMAS;
use mulgil_model::time::{EventTime, ReceiveTime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Header of a schema's record: its id, as decimal text.
const ID_HEADER: &str = "id";

/// Every schema known to this log, by stream.
#[derive(Debug, Default, Clone)]
pub struct Schemas {
    known: BTreeMap<Topic, Vec<WireSchema>>,
}

impl Schemas {
    /// Reads what the log knows, and records the schemas of `streams` that it does not. Also says from where on the log has them all:
    /// retention must keep that until they are recorded anew.
    pub fn open(log: &dyn Log, streams: &[Arc<StreamSchema>]) -> Result<(Self, Offset)> {
        let mut schemas = Self::read(log)?;
        let mut fresh = Self::default();
        for schema in streams {
            let (stream, wire) = (schema.stream.clone(), WireSchema::of(schema));
            if schemas.add(stream.clone(), wire.clone()) {
                fresh.add(stream, wire);
            }
        }
        let from = log.seek(&topic()?, Seek::First)?;
        fresh.record(log)?;
        Ok((schemas, from))
    }

    /// Writes all known schemas to the end of their topic, so that retention may take the older records. Where they begin.
    pub fn record(&self, log: &dyn Log) -> Result<Offset> {
        let mut records = RecordsBuilder::new();
        for (stream, wire) in self.known.iter().flat_map(|(stream, all)| all.iter().map(move |wire| (stream, wire))) {
            let id = wire.id.to_string();
            let headers = [(ID_HEADER, id.as_bytes())];
            records.push(stream.as_str().as_bytes(), &headers, wire.json.as_bytes(), EventTime::default(), ReceiveTime::default());
        }
        if records.is_empty() {
            return Ok(Offset::ZERO);
        }
        let append = Append { to: topic()?, records: records.finish() };
        let committed = log.commit(Commit { appends: vec![append], progress: vec![] }).context("cannot record the schemas in the log")?;
        Ok(committed.base_offsets.first().copied().unwrap_or(Offset::ZERO))
    }

    /// False if it was known.
    fn add(&mut self, stream: Topic, wire: WireSchema) -> bool {
        let known = self.known.entry(stream).or_default();
        let is_new = !known.contains(&wire);
        if is_new {
            known.push(wire);
        }
        is_new
    }

    /// Reads what the log knows.
    pub fn read(log: &dyn Log) -> Result<Self> {
        let (at, mut schemas) = (topic()?, Self::default());
        let mut from = log.seek(&at, Seek::First)?;
        loop {
            let chunk = log.read(&at, from, ReadLimit::records(1_000)).context("cannot read the schemas in the log")?;
            if chunk.is_empty() {
                return Ok(schemas);
            }
            for record in chunk.iter() {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).context("a schema in the log is not text");
                let stream = Topic::new(&text(record.key)?)?;
                let id = text(record.header(ID_HEADER).unwrap_or_default())?.parse().context("a schema in the log has no id")?;
                schemas.add(stream, WireSchema { id, json: text(record.value)? });
            }
            from = chunk.next_offset();
        }
    }

    pub fn decoder(&self, schema: &Arc<StreamSchema>) -> Result<RowDecoder> {
        let older = self.known.get(&schema.stream).map_or(&[][..], Vec::as_slice);
        Ok(RowDecoder::new(Arc::clone(schema), older)?)
    }

    pub fn encoder(&self, schema: &StreamSchema) -> Result<RowEncoder> {
        Ok(RowEncoder::new(schema)?)
    }
}

fn topic() -> Result<TopicPartition> {
    Ok(TopicPartition::new(Topic::new(SCHEMAS)?, Partition(0)))
}
