//! Rows of one stream, made from the changes of one table.

use crate::adapters::ingest::writer_into;
use crate::config::checked::StreamPlan;
use crate::pipeline::plan::Plan;
use crate::pipeline::recent::Dealt;
use crate::pipeline::schemas::Schemas;
use crate::pipeline::writer::StreamWriter;
use anyhow::Result;
use mulgil_capture::change::Change;
use mulgil_log::Append;
use mulgil_model::time::ReceiveTime;

pub struct TableRows {
    _writer: StreamWriter,
}

/// What changes bring to a stream.
#[derive(Default)]
pub struct Taken {
    pub appends: Vec<Append>,
    pub dealt: Vec<Dealt>,
    pub dead_letters: Option<Append>,
}

impl TableRows {
    pub fn new(stream: &StreamPlan, plan: &Plan, schemas: &Schemas) -> Result<Self> {
        Ok(Self { _writer: writer_into(plan, schemas, &stream.schema.stream)? })
    }

    pub fn take(&mut self, changes: &[Change], received: ReceiveTime) -> Result<Taken> {
        let _ = (changes, received);
        Ok(Taken::default())
    }
}
