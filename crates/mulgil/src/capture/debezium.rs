//! Changes in the log as Debezium's JSON: what `mulgil log cat` prints and live clients are sent.

use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result};
use bytes::Bytes;
use mulgil_capture::change::{Change, Op, Place, What};
use mulgil_capture::envelope::avro::ChangeDecoder;
use mulgil_capture::envelope::json::{Connector, Decimals, Events, JsonOptions, JsonWriter};
use mulgil_capture::envelope::key::push_key;
use mulgil_model::avro::schema_id;
use mulgil_model::ids::Topic;
use mulgil_model::time::ReceiveTime;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Reads the records of one topic of changes.
pub struct DebeziumReader {
    schemas: Arc<Schemas>,
    topic: Topic,
    decoder: ChangeDecoder,
    learned: BTreeSet<u32>,
    writer: Option<JsonWriter>,
    events: Events,
}

impl DebeziumReader {
    pub fn new(schemas: Arc<Schemas>, topic: &Topic) -> Self {
        let (decoder, learned, events) = (ChangeDecoder::default(), BTreeSet::new(), Events::default());
        Self { schemas, topic: topic.clone(), decoder, learned, writer: None, events }
    }

    /// The change of one record.
    pub fn change(&mut self, value: &[u8]) -> Result<Change> {
        let id = schema_id(value).context("it does not begin with a zero byte and a schema id")?;
        if !self.learned.contains(&id) {
            let wire = self
                .schemas
                .find(&self.topic, id)
                .with_context(|| format!("it was written with schema {id}, which the log does not know"))?;
            self.decoder.learn(&wire)?;
            self.learned.insert(id);
        }
        Ok(self.decoder.decode(&Bytes::copy_from_slice(value))?)
    }

    /// The events of a change: mostly one, more where the key changed or a row is gone. Decimals are text.
    pub fn events(&mut self, change: &Change, received: ReceiveTime) -> Result<&Events> {
        if self.writer.is_none() {
            let source = self.topic.as_str().split('.').next().unwrap_or_default();
            let options = JsonOptions { decimals: Decimals::String, ..JsonOptions::new(connector(change), source) };
            self.writer = Some(JsonWriter::new(options)?);
        }
        let writer = self.writer.as_mut().expect("invariant: made a line above");
        writer.write(change, received, &mut self.events)?;
        Ok(&self.events)
    }
}

/// The key of the row before an update that changed it.
pub fn old_key(change: &Change) -> Option<Vec<u8>> {
    let (Op::Update, What::Row { table, before: Some(before), .. }) = (change.op, &change.what) else { return None };
    let what = What::Row { table: Arc::clone(table), before: Some(before.clone()), after: None };
    let (mut was, mut is) = (Vec::new(), Vec::new());
    push_key(&mut was, &Change { op: Op::Delete, what, position: change.position, origin: Arc::clone(&change.origin) });
    push_key(&mut is, change);
    (was != is).then_some(was)
}

/// MariaDB's GTIDs are three numbers, `0-1-27`; MySQL's begin with a UUID (both manuals, "GTID Format").
fn connector(change: &Change) -> Connector {
    match &change.origin.place {
        Place::Postgres { .. } => Connector::Postgres,
        Place::Mysql { gtid: Some(gtid), .. } if gtid.split('-').count() == 3 => Connector::Mariadb,
        Place::Mysql { .. } => Connector::Mysql,
    }
}
