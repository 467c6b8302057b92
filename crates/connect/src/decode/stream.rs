//! Text formats read piece by piece, so that a file of any size takes bounded memory.

use super::csv::Csv;
use super::json;
use super::plan::Plan;
use super::table::{Refusal, Table};
use super::{Decoded, Format};
use mulgil_model::time::ReceiveTime;
use std::io::{self, Read};
use std::sync::Arc;

/// Bytes asked of the input at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// A text format in the middle of its input.
#[derive(Debug)]
pub(crate) enum Text {
    Ndjson { line: u64 },
    Csv(Box<Csv>),
}

impl Text {
    pub fn ndjson() -> Self {
        Self::Ndjson { line: 1 }
    }

    pub fn csv() -> Self {
        Self::Csv(Box::new(Csv::new()))
    }

    fn step(&mut self, table: &mut Table, bytes: &[u8], at_end: bool, rows_max: usize) -> Result<usize, Refusal> {
        match self {
            Self::Ndjson { line } => Ok(json::read_lines(table, bytes, line, at_end, rows_max)),
            Self::Csv(csv) => csv.step(table, bytes, at_end, rows_max),
        }
    }

    fn line(&self) -> u64 {
        match self {
            Self::Ndjson { line } => *line,
            Self::Csv(csv) => csv.line(),
        }
    }

    fn line_skipped(&mut self) {
        match self {
            Self::Ndjson { line } => *line += 1,
            Self::Csv(csv) => csv.line_skipped(),
        }
    }
}

/// Decodes a whole text held in memory.
pub(crate) fn decode_text(table: &mut Table, mut text: Text, bytes: &[u8]) {
    let rows_max = table.plan().options.limits.rows_max;
    match text.step(table, bytes, true, rows_max) {
        Ok(used) => {
            let rest = bytes[used..].trim_ascii();
            if !rest.is_empty() {
                table.refuse_row(Refusal::row(0, json::too_many(rows_max)), text.line(), 1, rest);
            }
        }
        Err(refusal) => table.refuse_row(refusal, 1, 1, bytes),
    }
}

/// Why a file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("line {line}: {}{reason}", field.as_deref().map_or_else(String::new, |f| format!("'{f}' ")))]
    Header { line: u64, field: Option<String>, reason: String },
    #[error("{}{reason}", field.as_deref().map_or_else(String::new, |f| format!("'{f}' ")))]
    Schema { field: Option<String>, reason: String },
    #[error("{0} cannot be read piece by piece: use csv, ndjson or parquet")]
    Format(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Decodes a CSV or NDJSON text of any length. Ordinals and lines count from the beginning of the input.
pub struct Decoder<R> {
    table: Table,
    text: Text,
    input: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are done with.
    used: usize,
    at_end: bool,
    /// Inside a row that was refused for its length, up to its line break.
    skipping: bool,
    bytes_done: u64,
}

impl<R: Read> Decoder<R> {
    pub fn new(plan: &Arc<Plan>, format: Format, input: R, received: ReceiveTime) -> Result<Self, ReadError> {
        let text = match format {
            Format::Ndjson => Text::ndjson(),
            Format::Csv => Text::csv(),
            other => return Err(ReadError::Format(other.as_str())),
        };
        let table = Table::new(plan, received);
        Ok(Self { table, text, input, buffer: Vec::new(), used: 0, at_end: false, skipping: false, bytes_done: 0 })
    }

    /// The next rows, good and bad together at most `n_rows_max` and at least one; None behind the last.
    pub fn next(&mut self, n_rows_max: usize) -> Result<Option<Decoded>, ReadError> {
        loop {
            self.step(n_rows_max.max(1))?;
            let n_rows = self.table.n_rows();
            if n_rows >= n_rows_max.max(1) || (self.at_end && n_rows > 0) {
                return Ok(Some(self.table.take()));
            }
            if self.at_end {
                return Ok(None);
            }
            self.refuse_long();
            self.fill()?;
        }
    }

    /// Bytes of the (unpacked) input that the rows so far took.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done
    }

    fn step(&mut self, n_rows_max: usize) -> Result<(), ReadError> {
        if self.skipping {
            self.skip_line();
        }
        if self.skipping {
            return Ok(());
        }
        let line = self.text.line();
        let step = self.text.step(&mut self.table, &self.buffer[self.used..], self.at_end, n_rows_max);
        let used = step.map_err(|Refusal { field, reason, .. }| ReadError::Header { line, field, reason })?;
        self.advance(used);
        Ok(())
    }

    fn advance(&mut self, n: usize) {
        self.used += n;
        self.bytes_done += n as u64;
    }

    /// What is left in the buffer is one row without an end: when it is too long, it is refused without reading it to its end.
    fn refuse_long(&mut self) {
        let rest = &self.buffer[self.used..];
        let max = self.table.plan().options.limits.row_bytes_max;
        if self.skipping || rest.len() <= max {
            return;
        }
        let reason =
            format!("the row is longer than the {max} bytes that a row may have, or a quote is left open; these are its first bytes");
        let first_line = memchr::memchr(b'\n', rest);
        let kept = &rest[..first_line.unwrap_or(max).min(max)];
        self.table.refuse_row(Refusal::row(0, reason), self.text.line(), 1, kept);
        self.skipping = true;
        self.skip_line();
    }

    fn skip_line(&mut self) {
        let rest = &self.buffer[self.used..];
        let n = memchr::memchr(b'\n', rest).map(|at| at + 1);
        if n.is_some() || self.at_end {
            self.text.line_skipped();
            self.skipping = false;
        }
        self.advance(n.unwrap_or(rest.len()));
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let have = self.buffer.len();
        self.buffer.resize(have + CHUNK_BYTES, 0);
        let n = loop {
            match self.input.read(&mut self.buffer[have..]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(have + *n.as_ref().unwrap_or(&0));
        self.at_end = n? == 0;
        Ok(())
    }
}
