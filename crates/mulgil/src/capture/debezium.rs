//! Changes in the log as Debezium's JSON.

use crate::pipeline::schemas::Schemas;
use anyhow::{Context, Result};
use bytes::Bytes;
use mulgil_capture::change::{Change, Place};
use mulgil_capture::envelope::avro::ChangeDecoder;
use mulgil_capture::envelope::json::{Connector, Decimals, Events, JsonOptions, JsonWriter};
use mulgil_model::avro::schema_id;
use mulgil_model::ids::Topic;
use mulgil_model::time::ReceiveTime;

/// Reads the records of one topic of changes.
pub struct DebeziumReader<'a> {
    schemas: &'a Schemas,
    topic: Topic,
    decoder: ChangeDecoder,
    writer: Option<JsonWriter>,
    events: Events,
}

impl<'a> DebeziumReader<'a> {
    pub fn new(schemas: &'a Schemas, topic: &Topic) -> Self {
        Self { schemas, topic: topic.clone(), decoder: ChangeDecoder::default(), writer: None, events: Events::default() }
    }

    /// The events of one record: mostly one, more where the key changed or a row is gone. Decimals are text.
    pub fn events(&mut self, value: &[u8], received: ReceiveTime) -> Result<&Events> {
        let change = self.change(value)?;
        if self.writer.is_none() {
            let source = self.topic.as_str().split('.').next().unwrap_or_default();
            let options = JsonOptions { decimals: Decimals::String, ..JsonOptions::new(connector(&change), source) };
            self.writer = Some(JsonWriter::new(options)?);
        }
        let writer = self.writer.as_mut().expect("invariant: made a line above");
        writer.write(&change, received, &mut self.events)?;
        Ok(&self.events)
    }

    fn change(&mut self, value: &[u8]) -> Result<Change> {
        let id = schema_id(value).context("it does not begin with a zero byte and a schema id")?;
        let wire =
            self.schemas.find(&self.topic, id).with_context(|| format!("it was written with schema {id}, which the log does not know"))?;
        self.decoder.learn(&wire)?;
        Ok(self.decoder.decode(&Bytes::copy_from_slice(value))?)
    }
}

/// MariaDB's GTIDs are three numbers, `0-1-27`; MySQL's begin with a UUID (both manuals, "GTID Format").
fn connector(change: &Change) -> Connector {
    match &change.origin.place {
        Place::Postgres { .. } => Connector::Postgres,
        Place::Mysql { gtid: Some(gtid), .. } if gtid.split('-').count() == 3 => Connector::Mariadb,
        Place::Mysql { .. } => Connector::Mysql,
    }
}
