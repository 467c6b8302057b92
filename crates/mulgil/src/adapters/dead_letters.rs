//! Input that could not be read, kept in the log with its original bytes.
//!
//! Topic `dead-letters`, one partition. Record: key = the stream it was meant for, value = the original bytes, headers `source` (http,
//! file, dlq), `position` (where in the source, as text), `line`, `column`, `field` (may be empty), `reason`, `format` (as in connect's
//! `Format`). Receive time is the record's own.

use anyhow::{Context, Result};
use mulgil_connect::decode::Format;
use mulgil_log::{Append, Chunk, Log, ReadLimit, RecordRef, RecordsBuilder, Seek};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::problem::RowProblem;
use mulgil_model::streams::DEAD_LETTERS;
use mulgil_model::time::{EventTime, ReceiveTime};

/// Longer originals are cut here: the log refuses huge records, and a problem must not become a second one.
const ORIGINAL_BYTES_MAX: usize = 1 << 20;

pub fn topic() -> TopicPartition {
    TopicPartition::new(Topic::new(DEAD_LETTERS).expect("the name is valid"), Partition(0))
}

/// The records of some bad rows; None when there are none. A row's position is its ordinal in `source`.
pub fn append(stream: &Topic, source: &str, format: Format, problems: &[RowProblem], received: ReceiveTime) -> Option<Append> {
    if problems.is_empty() {
        return None;
    }
    let mut records = RecordsBuilder::new();
    for problem in problems {
        let (position, line, column) = (problem.row.to_string(), problem.line.to_string(), problem.column.to_string());
        let field = problem.field.as_deref().unwrap_or_default();
        let headers = [source, &position, &line, &column, field, &problem.reason, format.as_str()];
        let original = &problem.original[..problem.original.len().min(ORIGINAL_BYTES_MAX)];
        push(&mut records, stream.as_str(), headers, original, received);
    }
    Some(Append { to: topic(), records: records.finish() })
}

const HEADERS: [&str; 7] = ["source", "position", "line", "column", "field", "reason", "format"];

fn push(records: &mut RecordsBuilder, stream: &str, headers: [&str; HEADERS.len()], original: &[u8], received: ReceiveTime) {
    let headers: Vec<(&str, &[u8])> = HEADERS.into_iter().zip(headers.map(str::as_bytes)).collect();
    records.push(stream.as_bytes(), &headers, original, EventTime(received.0), received);
}

/// One dead letter, read back.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub offset: Offset,
    pub received: ReceiveTime,
    pub stream: String,
    pub source: String,
    pub position: String,
    pub line: String,
    pub column: String,
    pub field: String,
    pub reason: String,
    pub format: String,
    pub original: Vec<u8>,
}

impl DeadLetter {
    /// The letter once more, with the reason for which it is still one.
    pub fn again(&self, reason: &str) -> Append {
        let Self { stream, source, position, line, column, field, format, original, received, .. } = self;
        let mut records = RecordsBuilder::new();
        push(&mut records, stream, [source, position, line, column, field, reason, format], original, *received);
        Append { to: topic(), records: records.finish() }
    }

    fn of(record: &RecordRef<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header = |name| text(record.header(name).unwrap_or_default());
        Self {
            offset: record.offset,
            received: record.receive_time,
            stream: text(record.key),
            source: header("source"),
            position: header("position"),
            line: header("line"),
            column: header("column"),
            field: header("field"),
            reason: header("reason"),
            format: header("format"),
            original: record.value.to_vec(),
        }
    }
}

/// Calls `each` for every dead letter from `from` on, until it answers false.
pub fn scan(log: &dyn Log, from: Offset, mut each: impl FnMut(DeadLetter) -> Result<bool>) -> Result<()> {
    let at = topic();
    let mut from = from.max(log.seek(&at, Seek::First)?);
    loop {
        let chunk: Chunk = log.read(&at, from, ReadLimit::records(1_000)).context("cannot read the dead letters")?;
        if chunk.is_empty() {
            return Ok(());
        }
        for record in chunk.iter() {
            if !each(DeadLetter::of(&record))? {
                return Ok(());
            }
        }
        from = chunk.next_offset();
    }
}
