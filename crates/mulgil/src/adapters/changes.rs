//! The changes of captured tables as live clients read them: what is in the log, as Debezium's JSON (`mulgil_model::streams::changes`).

use super::feed::log_error;
use crate::capture::debezium::{DebeziumReader, old_key};
use crate::config::captured::CapturePlan;
use crate::config::checked::Checked;
use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result};
use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use mulgil_capture::envelope::json::Events;
use mulgil_log::{Log, ReadLimit, RecordRef};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::json::write_text;
use mulgil_model::rows::Rows;
use mulgil_model::schema::{ColumnType, StreamSchema};
use mulgil_model::streams;
use mulgil_serve::ports::{PortError, PortErrorKind, StreamInfo};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Of the log, read at a time; as JSON it is a few times as much. A change that alone is larger is given alone.
const READ_BYTES: usize = 256 << 10;

pub struct ChangeTopics {
    log: Arc<dyn Log>,
    schemas: Arc<Schemas>,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// Topics with schemas that were looked at.
    n_seen: usize,
    /// None: rows of a stream.
    topics: BTreeMap<Topic, Option<Arc<ChangeTopic>>>,
}

struct ChangeTopic {
    schema: Arc<StreamSchema>,
    /// At most as many as there were reads at once; a read takes one and gives it back.
    readers: Mutex<Vec<DebeziumReader>>,
}

impl ChangeTopics {
    /// Tables that are configured by name can be listened to before their first change.
    pub fn new(log: Arc<dyn Log>, schemas: Arc<Schemas>, config: &Checked) -> Result<Self> {
        let mut found = Found::default();
        for stream in &config.streams {
            found.topics.insert(stream.schema.stream.clone(), None);
        }
        for capture in &config.captures {
            for table in capture.tables.iter().filter(|t| !t.contains(['*', '?'])) {
                let topic = CapturePlan::topic(&capture.name, table)?;
                let changes = ChangeTopic::new(&topic)?;
                found.topics.entry(topic).or_insert(Some(changes));
            }
        }
        Ok(Self { log, schemas, found: Mutex::new(found) })
    }

    pub fn streams(&self) -> Vec<StreamInfo> {
        let found = self.found();
        found.topics.values().flatten().map(|t| StreamInfo { schema: Arc::clone(&t.schema), partitions: 1 }).collect()
    }

    /// Whether this is a topic of changes.
    pub fn has(&self, topic: &Topic, partition: Partition) -> bool {
        partition == Partition(0) && matches!(self.found().topics.get(topic), Some(Some(_)))
    }

    pub fn read(&self, topic: &Topic, from: Offset, max_rows: usize) -> Result<Rows, PortError> {
        let found = self.found().topics.get(topic).cloned().flatten();
        let found = found.ok_or_else(|| PortError::new(PortErrorKind::NotFound, format!("there is no captured table {topic}")))?;
        let at = TopicPartition::new(topic.clone(), Partition(0));
        let chunk = self.log.read(&at, from, ReadLimit { bytes: READ_BYTES, records: max_rows }).map_err(log_error)?;
        let taken = lock(&found.readers).pop();
        let mut reader = taken.unwrap_or_else(|| DebeziumReader::new(Arc::clone(&self.schemas), topic));
        let (mut rows, mut appended, mut received) = (Columns::default(), Vec::new(), Vec::new());
        for record in chunk.iter() {
            rows.push(&mut reader, &record);
            appended.push(record.append_time);
            received.push(record.receive_time);
        }
        lock(&found.readers).push(reader);
        let batch = rows.finish(&found.schema).map_err(|e| PortError::new(PortErrorKind::Internal, format!("{e:#}")))?;
        Ok(Rows { schema: Arc::clone(&found.schema), partition: Partition(0), base: from, batch, appended, received })
    }

    /// With whatever the log has learned since.
    fn found(&self) -> MutexGuard<'_, Found> {
        let mut found = lock(&self.found);
        let (n_topics, topics) = self.schemas.topics_beyond(found.n_seen);
        found.n_seen = n_topics;
        for topic in topics {
            let changes = || self.schemas.are_changes(&topic).then(|| ChangeTopic::new(&topic).ok()).flatten();
            found.topics.entry(topic.clone()).or_insert_with(changes);
        }
        found
    }
}

impl ChangeTopic {
    fn new(topic: &Topic) -> Result<Arc<Self>> {
        let schema = streams::changes(topic.clone()).with_context(|| format!("the changes in {topic}"))?;
        Ok(Arc::new(Self { schema: Arc::new(schema), readers: Mutex::default() }))
    }
}

/// In the order of `streams::changes`.
#[derive(Default)]
struct Columns {
    keys: StringBuilder,
    committed: TimestampMicrosecondBuilder,
    ops: StringBuilder,
    old_keys: StringBuilder,
    events: StringBuilder,
    /// Of one record.
    text: String,
}

impl Columns {
    fn push(&mut self, reader: &mut DebeziumReader, record: &RecordRef<'_>) {
        self.text.clear();
        let (mut op, mut old) = ("", None);
        let written = reader.change(record.value).and_then(|change| {
            (op, old) = (change.op.letter(), old_key(&change));
            write_events(&mut self.text, reader.events(&change, record.receive_time)?, record.offset);
            Ok(())
        });
        if let Err(error) = written {
            // Neither passed over in silence nor an end to those behind it: whoever listens is told.
            self.text.push_str(&format!(r#"{{"offset":{},"error":"#, record.offset));
            write_text(&mut self.text, &format!("{error:#}"));
            self.text.push('}');
        }
        self.keys.append_value(plain_key(record.key));
        self.committed.append_value(record.event_time.micros());
        self.ops.append_value(op);
        self.old_keys.append_option(old.as_deref().map(plain_key));
        self.events.append_value(&self.text);
    }

    fn finish(self, schema: &StreamSchema) -> Result<RecordBatch> {
        let Self { mut keys, committed, mut ops, mut old_keys, mut events, .. } = self;
        let mut committed = committed.with_data_type(ColumnType::Timestamp.arrow());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(keys.finish()),
            Arc::new(committed.finish()),
            Arc::new(ops.finish()),
            Arc::new(old_keys.finish()),
            Arc::new(events.finish()),
        ];
        Ok(RecordBatch::try_new(Arc::clone(schema.arrow()), columns)?)
    }
}

fn write_events(out: &mut String, events: &Events, offset: Offset) {
    let text = |bytes: Option<&[u8]>| bytes.map_or_else(|| "null".into(), |b| String::from_utf8_lossy(b).into_owned());
    for (i, event) in events.iter().enumerate() {
        let (comma, key, value) = (if i > 0 { "," } else { "" }, text(event.key), text(event.value));
        out.push_str(&format!(r#"{comma}{{"offset":{offset},"key":{key},"value":{value}}}"#));
    }
}

/// `["005930"]` as it is asked for: `005930`. A key of several columns stays as it is.
fn plain_key(key: &[u8]) -> String {
    match serde_json::from_slice::<Vec<Option<String>>>(key) {
        Ok(mut texts) if texts.len() == 1 => texts.pop().flatten().unwrap_or_default(),
        _ => String::from_utf8_lossy(key).into_owned(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::plain_key;

    #[test]
    fn keys_are_asked_for_as_people_write_them() {
        for (key, want) in [(r#"["005930"]"#, "005930"), (r#"["snap","1"]"#, r#"["snap","1"]"#), ("", ""), ("[null]", ""), ("odd", "odd")] {
            assert_eq!(plain_key(key.as_bytes()), want);
        }
    }
}
