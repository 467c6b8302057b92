//! CSV rows under a header line (RFC 4180; a quoted field may hold line breaks). An empty field is null.

use super::json::BOM;
use super::options::{UnknownFields, nearest};
use super::place::Lines;
use super::plan::Plan;
use super::table::{Refusal, Table};
use super::value::Value;
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::io::Read;

/// How often in one input the reader starts again behind a row whose quote is never closed. Each time costs a pass over the rest.
const RESYNCS_MAX: usize = 16;

/// Stands before what a reader is given: it passes over it, and takes a byte order mark for one no more, which belongs to the first line
/// of an input and to no other.
const LINE_BREAK: &[u8] = b"\n";

#[derive(Debug)]
pub(crate) struct Csv {
    /// The column of the stream that each field of a row fills; None until the header is read.
    columns: Option<Vec<Option<usize>>>,
    /// 1-based line of the next byte.
    line: u64,
    /// Characters of that line before it: a row that ends in a carriage return alone ends no line.
    before: u64,
    n_resyncs: usize,
    record: ByteRecord,
}

/// Where a record stands in the bytes at hand.
struct Span {
    start: usize,
    end: usize,
}

impl Csv {
    pub fn new() -> Self {
        Self { columns: None, line: 1, before: 0, n_resyncs: 0, record: ByteRecord::new() }
    }

    /// Reads complete rows, at most until the table holds `rows_max`, and says how many bytes they took. Fails when the header cannot be
    /// used: then no row can.
    pub fn step(&mut self, table: &mut Table, bytes: &[u8], at_end: bool, rows_max: usize) -> Result<usize, Refusal> {
        let mut from = if self.line == 1 && self.before == 0 && bytes.starts_with(BOM) { BOM.len() } else { 0 };
        let mut lines = Lines::within(self.line, self.before);
        while table.n_rows() < rows_max {
            let before = from;
            let again = self.pass(table, bytes, &mut from, &mut lines, at_end, rows_max)?;
            if !again || from == before {
                break;
            }
        }
        lines.advance(bytes, from);
        (self.line, self.before) = (lines.line, lines.before(bytes));
        Ok(from)
    }

    /// One run of the reader from `from`; true when it must start again at the new `from`.
    fn pass(
        &mut self,
        table: &mut Table,
        bytes: &[u8],
        from: &mut usize,
        lines: &mut Lines,
        at_end: bool,
        rows_max: usize,
    ) -> Result<bool, Refusal> {
        let base = *from;
        let input = LINE_BREAK.chain(&bytes[base..]);
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
        while table.n_rows() < rows_max {
            let Some(span) = self.next_record(&mut reader, bytes, base) else {
                *from = if at_end { bytes.len() } else { *from };
                return Ok(false);
            };
            let is_last = span.end == bytes.len();
            if is_last && !at_end {
                // The last record may go on in bytes that are not here yet.
                return Ok(false);
            }
            lines.advance(bytes, span.start);
            *from = span.end;
            let Some(columns) = &self.columns else {
                self.columns = Some(read_header(table.plan(), &self.record)?);
                continue;
            };
            let row = bytes[span.start..span.end].trim_ascii_end();
            let Err(refusal) = read_row(table, columns, &self.record, row, lines.line) else { continue };
            let torn = is_last || self.record.len() != columns.len();
            let first_line = memchr::memchr(b'\n', row).filter(|_| torn && self.n_resyncs < RESYNCS_MAX);
            let row = &row[..first_line.unwrap_or(row.len())];
            let (line, column) = lines.place(bytes, span.start + refusal.at.min(row.len()));
            table.refuse_row(refusal, line, column, row);
            if let Some(n) = first_line {
                // A quote left open took lines that are none of its row's: only its own line is lost.
                self.n_resyncs += 1;
                *from = span.start + n + 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_record(&mut self, reader: &mut Reader<impl Read>, bytes: &[u8], base: usize) -> Option<Span> {
        let at = |reader: &Reader<_>| base + (reader.position().byte() as usize).saturating_sub(LINE_BREAK.len());
        let before = at(reader);
        // Reading from memory as bytes, with any number of fields allowed, cannot fail.
        if !reader.read_byte_record(&mut self.record).unwrap_or(false) {
            return None;
        }
        let end = at(reader).min(bytes.len());
        let n_breaks = bytes[before..end].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        Some(Span { start: before + n_breaks, end })
    }

    pub fn line(&self) -> u64 {
        self.line
    }

    /// The caller passed over one line without reading it.
    pub fn line_skipped(&mut self) {
        self.line += 1;
        self.before = 0;
    }
}

fn read_header(plan: &Plan, record: &ByteRecord) -> Result<Vec<Option<usize>>, Refusal> {
    let mut columns = Vec::with_capacity(record.len());
    for field in record {
        let name = std::str::from_utf8(field).map_err(|_| Refusal::row(0, "the header is not valid UTF-8"))?.trim();
        let column = plan.column_of(name, &mut columns.len().clone());
        if column.is_none() && plan.options.unknown == UnknownFields::Refuse {
            return Err(Refusal::field(
                name,
                0,
                format!("is not a field of stream '{}'{}", plan.schema.stream, nearest(name, plan.field_names())),
            ));
        }
        if column.is_some() && columns.contains(&column) {
            return Err(Refusal::field(name, 0, "stands twice in the header"));
        }
        columns.push(column);
    }
    let missing = plan.required_fields().find(|f| plan.column_of(f, &mut 0).is_some_and(|c| !columns.contains(&Some(c))));
    let header = || record.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(",");
    match missing {
        Some(field) => {
            let hint = nearest(field, header().split(',')).replace("did you mean", "is it");
            Err(Refusal::field(field, 0, format!("is required and not in the header '{}'{hint}", super::value::shorten(&header()))))
        }
        None => Ok(columns),
    }
}

fn read_row(table: &mut Table, columns: &[Option<usize>], record: &ByteRecord, row: &[u8], line: u64) -> Result<(), Refusal> {
    let row_bytes_max = table.plan().options.limits.row_bytes_max;
    if row.len() > row_bytes_max {
        return Err(Refusal::row(0, format!("the row is {} bytes long; a row may have {row_bytes_max}", row.len())));
    }
    if record.len() != columns.len() {
        return Err(Refusal::row(0, format!("the row has {} fields, the header has {}", record.len(), columns.len())));
    }
    table.begin_row();
    for (i, column) in columns.iter().enumerate() {
        let Some(column) = *column else { continue };
        let placed = |e: Refusal| Refusal { at: field_start(row, i), ..e };
        let field = record.get(i).unwrap_or_default();
        if field.is_empty() {
            table.set(column, Value::Null, 0).map_err(placed)?;
            continue;
        }
        let invalid = |e: std::str::Utf8Error| {
            Refusal::field(table.plan().field_name(column), field_start(row, i) + e.valid_up_to(), "not valid UTF-8")
        };
        let text = std::str::from_utf8(field).map_err(invalid)?;
        table.set(column, Value::Text(text), 0).map_err(placed)?;
    }
    table.finish_row(line)
}

/// Where field `n` of a row begins: behind the n-th comma outside of quotes.
fn field_start(row: &[u8], n: usize) -> usize {
    let mut quoted = false;
    let commas = row.iter().enumerate().filter(|(_, b)| {
        quoted ^= **b == b'"';
        **b == b',' && !quoted
    });
    n.checked_sub(1).and_then(|n| commas.map(|(at, _)| at + 1).nth(n)).unwrap_or(0)
}
