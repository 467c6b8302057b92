//! The log's own record of every schema its rows were written with, so that rows outlive a change of the configuration.

use anyhow::{Context, Result};
use mulgil_capture::envelope::avro::ChangeDecoder;
use mulgil_log::{Append, Commit, Log, ReadLimit, RecordsBuilder, Seek};
use mulgil_model::avro::{RowDecoder, RowEncoder, WireSchema};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::SCHEMAS;
use mulgil_model::time::{EventTime, ReceiveTime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Header of a schema's record: its id, as decimal text.
const ID_HEADER: &str = "id";

/// Every schema known to this log. New ones come while it runs: a captured table has one per shape.
#[derive(Debug, Default)]
pub struct Schemas {
    known: Mutex<Known>,
}

/// By stream.
type Known = BTreeMap<Topic, Vec<WireSchema>>;

impl Schemas {
    /// Reads what the log knows, and records the schemas of `streams` that it does not. Also says from where on the log has them all:
    /// retention must keep that until they are recorded anew.
    pub fn open(log: &dyn Log, streams: &[Arc<StreamSchema>]) -> Result<(Self, Offset)> {
        let schemas = Self::read(log)?;
        let mut fresh = Known::new();
        for schema in streams {
            let (stream, wire) = (schema.stream.clone(), WireSchema::of(schema));
            if add(&mut schemas.known(), stream.clone(), wire.clone()) {
                add(&mut fresh, stream, wire);
            }
        }
        let from = log.seek(&topic()?, Seek::First)?;
        write(log, &fresh)?;
        Ok((schemas, from))
    }

    /// Writes all known schemas to the end of their topic, so that retention may take the older records. Where they begin.
    pub fn record(&self, log: &dyn Log) -> Result<Offset> {
        // Held until they are written: one that is learned meanwhile comes behind them.
        write(log, &self.known())
    }

    /// Makes sure that the log knows a schema before rows are written with it.
    pub fn learn(&self, log: &dyn Log, stream: &Topic, wire: &WireSchema) -> Result<()> {
        let mut known = self.known();
        if known.get(stream).is_some_and(|all| all.contains(wire)) {
            return Ok(());
        }
        write(log, &Known::from([(stream.clone(), vec![wire.clone()])]))?;
        add(&mut known, stream.clone(), wire.clone());
        Ok(())
    }

    /// The text of one schema.
    pub fn find(&self, stream: &Topic, id: u32) -> Option<WireSchema> {
        self.known().get(stream)?.iter().find(|wire| wire.id == id).cloned()
    }

    /// How many topics there are schemas of, and the names of all if there are more than so many.
    pub fn topics_beyond(&self, n_seen: usize) -> (usize, Vec<Topic>) {
        let known = self.known();
        (known.len(), if known.len() > n_seen { known.keys().cloned().collect() } else { vec![] })
    }

    /// True for a topic of changes: its schemas name the table they are of.
    pub fn are_changes(&self, topic: &Topic) -> bool {
        self.known().get(topic).is_some_and(|all| all.iter().any(|wire| ChangeDecoder::default().learn(wire).is_ok()))
    }

    /// Reads what the log knows.
    pub fn read(log: &dyn Log) -> Result<Self> {
        let (at, mut known) = (topic()?, Known::new());
        let mut from = log.seek(&at, Seek::First)?;
        loop {
            let chunk = log.read(&at, from, ReadLimit::records(1_000)).context("cannot read the schemas in the log")?;
            if chunk.is_empty() {
                return Ok(Self { known: Mutex::new(known) });
            }
            for record in chunk.iter() {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).context("a schema in the log is not text");
                let stream = Topic::new(&text(record.key)?)?;
                let id = text(record.header(ID_HEADER).unwrap_or_default())?.parse().context("a schema in the log has no id")?;
                add(&mut known, stream, WireSchema { id, json: text(record.value)? });
            }
            from = chunk.next_offset();
        }
    }

    pub fn decoder(&self, schema: &Arc<StreamSchema>) -> Result<RowDecoder> {
        let older = self.known().get(&schema.stream).cloned().unwrap_or_default();
        Ok(RowDecoder::new(Arc::clone(schema), &older)?)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn encoder(&self, schema: &StreamSchema) -> Result<RowEncoder> {
        Ok(RowEncoder::new(schema)?)
    }
}

/// False if it was known.
fn add(known: &mut Known, stream: Topic, wire: WireSchema) -> bool {
    let known = known.entry(stream).or_default();
    let is_new = !known.contains(&wire);
    if is_new {
        known.push(wire);
    }
    is_new
}

/// Where they begin in their topic.
fn write(log: &dyn Log, known: &Known) -> Result<Offset> {
    let mut records = RecordsBuilder::new();
    for (stream, wire) in known.iter().flat_map(|(stream, all)| all.iter().map(move |wire| (stream, wire))) {
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

fn topic() -> Result<TopicPartition> {
    Ok(TopicPartition::new(Topic::new(SCHEMAS)?, Partition(0)))
}
