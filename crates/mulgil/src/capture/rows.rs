//! Rows of one stream, made from the changes of one table (`capture::typed` says how).

use crate::adapters::dead_letters;
use crate::adapters::feed::AHEAD_OF_CLOCK_MAX_US;
use crate::adapters::ingest::writer_into;
use crate::config::captured::Origin;
use crate::config::checked::{Checked, StreamPlan};
use crate::pipeline::plan::Plan;
use crate::pipeline::recent::Dealt;
use crate::pipeline::schemas::Schemas;
use crate::pipeline::writer::StreamWriter;
use anyhow::{Context, Result};
use mulgil_capture::change::{Change, Op, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::envelope::text::push_text;
use mulgil_capture::source::SourceError;
use mulgil_capture::table::{Table, TableId};
use mulgil_capture::typed::{Mapper, Mapping, Problem};
use mulgil_connect::decode::Format;
use mulgil_log::Append;
use mulgil_model::ids::Topic;
use mulgil_model::json::write_text;
use mulgil_model::problem::RowProblem;
use mulgil_model::time::ReceiveTime;
use std::sync::Arc;

pub struct TableRows {
    stream: Topic,
    from: Origin,
    mapper: Mapper,
    writer: StreamWriter,
    /// The shape of our table that was met last.
    shape: Option<Arc<Table>>,
}

/// What changes bring to a stream.
#[derive(Default)]
pub struct Taken {
    pub appends: Vec<Append>,
    pub dealt: Vec<Dealt>,
    pub dead_letters: Option<Append>,
}

impl TableRows {
    /// None: the stream is made of something else.
    pub fn new(stream: &StreamPlan, plan: &Plan, schemas: &Schemas) -> Result<Option<Self>> {
        let Some(from) = &stream.from else { return Ok(None) };
        let name = &stream.schema.stream;
        let (mapper, writer) = (mapper(stream, from)?, writer_into(plan, schemas, name)?);
        Ok(Some(Self { stream: name.clone(), from: from.clone(), mapper, writer, shape: None }))
    }

    pub fn take(&mut self, changes: &[Change], received: ReceiveTime) -> Result<Taken> {
        let ours: Vec<&Change> = changes.iter().filter(|c| self.is_ours(c)).collect();
        if ours.is_empty() {
            return Ok(Taken::default());
        }
        let typed = self.mapper.map_some(&ours, received);
        for broken in &typed.breaks {
            tracing::error!(stream = %self.stream, "{broken}");
            metrics::counter!("mulgil_capture_breaks_total", "stream" => self.stream.to_string()).increment(1);
        }
        if typed.n_done < ours.len() {
            let said = typed.breaks.first().map(ToString::to_string).unwrap_or_default();
            let choice = "mend the mapping and restart, or set on_break = \"dead_letters\" for the stream";
            return Err(SourceError::refused(format!("{said}; {choice}")).into());
        }
        let problems: Vec<RowProblem> = typed.problems.into_iter().map(|p| row_problem(ours[p.change], p)).collect();
        let source = format!("capture {}", self.from.source);
        let dead_letters = dead_letters::append(&self.stream, &source, Format::Ndjson, &problems, received);
        let (appends, dealt) = self.writer.deal(&typed.batch, received)?;
        Ok(Taken { appends, dealt, dead_letters })
    }

    fn is_ours(&mut self, change: &Change) -> bool {
        let (What::Row { table, .. } | What::Truncate { table, .. }) = &change.what else { return false };
        if self.shape.as_ref().is_some_and(|known| Arc::ptr_eq(known, table)) {
            return true;
        }
        let is_ours = is_written(&table.id, &self.from.table);
        if is_ours {
            self.shape = Some(Arc::clone(table));
        }
        is_ours
    }
}

/// Whether a configuration means this table by `text`: as its id is displayed, but without making a text of each change's.
fn is_written(id: &TableId, text: &str) -> bool {
    let first = if id.schema.is_empty() { &id.database } else { &id.schema };
    text.strip_prefix(&**first).and_then(|rest| rest.strip_prefix('.')) == Some(&*id.table)
}

/// Whether every stream that is made of changes can be, as far as its own columns tell: asked before anything starts.
pub fn check(config: &Checked) -> Result<()> {
    config.streams.iter().try_for_each(|stream| stream.from.as_ref().map_or(Ok(()), |from| mapper(stream, from).map(drop)))
}

fn mapper(stream: &StreamPlan, from: &Origin) -> Result<Mapper> {
    Mapper::new(mapping(stream, from)?).with_context(|| format!("[stream.{}]", stream.schema.stream))
}

/// How the stream is mapped, from its configuration.
pub fn mapping(stream: &StreamPlan, from: &Origin) -> Result<Mapping> {
    let mut mapping = Mapping::new(Arc::clone(&stream.schema));
    mapping.changes = from.changes;
    mapping.on_break = from.on_break;
    mapping.columns = stream.input.columns.clone();
    mapping.constants = stream.input.constants.clone();
    mapping.time_unit = stream.input.time_unit;
    mapping.time_zone =
        Some(jiff::tz::TimeZone::get(&stream.timezone).with_context(|| format!("[stream.{}] timezone", stream.schema.stream))?);
    mapping.future_us_max = AHEAD_OF_CLOCK_MAX_US;
    Ok(mapping)
}

/// The change as a line of JSON, which `mulgil dlq replay` reads as the mapping does: the table's columns under their names, the change's
/// own words with and without their `@`.
fn row_problem(change: &Change, problem: Problem) -> RowProblem {
    let mut line = String::from("{");
    let mut push = |name: &str, datum: &Datum| {
        line.push_str(if line.len() > 1 { "," } else { "" });
        write_text(&mut line, name);
        line.push(':');
        match datum {
            Datum::Null | Datum::Unavailable => line.push_str("null"),
            Datum::Bool(v) => line.push_str(if *v { "true" } else { "false" }),
            datum => {
                let mut text = Vec::new();
                push_text(&mut text, datum);
                write_text(&mut line, &String::from_utf8_lossy(&text));
            }
        }
    };
    let words = [
        ("op", Datum::Text(change.op.letter().as_bytes().into())),
        ("is_deleted", Datum::Bool(change.op == Op::Delete)),
        ("snapshot", Datum::Bool(change.origin.snapshot != Snapshot::No)),
        ("committed", Datum::TimestampTz(change.origin.committed_us)),
        ("position", Datum::Text(change.position.to_string().into())),
    ];
    let mut named = Vec::new();
    if let What::Row { table, before, after } = &change.what
        && let Some(row) = after.as_ref().or(before.as_ref())
    {
        for (column, datum) in table.columns.iter().zip(row) {
            push(&column.name, datum);
            named.push(Arc::clone(&column.name));
        }
    }
    for (word, datum) in &words {
        push(&format!("@{word}"), datum);
        if !named.iter().any(|n| **n == **word) {
            push(word, datum);
        }
    }
    line.push('}');
    let n = problem.change as u64;
    let reason = problem.column.as_ref().map_or_else(|| problem.reason.clone(), |column| format!("'{column}' {}", problem.reason));
    RowProblem { row: n, line: n + 1, column: 1, field: problem.column, reason, original: line.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_written_as_it_is_displayed() {
        let id = |schema: &str, table: &str| TableId { database: "shop".into(), schema: schema.into(), table: table.into() };
        for id in [id("public", "t"), id("", "t"), id("a.b", "c"), id("a", "b.c"), id("", "")] {
            assert!(is_written(&id, &id.to_string()), "{id}");
            for text in ["", "t", ".t", "public", "public.", "public.tt", "publict", "shop.tt"] {
                assert_eq!(is_written(&id, text), id.to_string() == text, "{id} {text}");
            }
        }
    }
}
