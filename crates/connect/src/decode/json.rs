//! JSON rows: one object is one row. sonic-rs walks the object; numbers are taken from their raw text, so decimals stay exact.

use super::options::{UnknownFields, nearest};
use super::place::{Lines, column};
use super::table::{Refusal, Table};
use super::value::Value;
use sonic_rs::to_object_iter;

/// A byte order mark is allowed before a text.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads one row. Offsets in the refusal are bytes of `row`.
pub(crate) fn read_object(table: &mut Table, row: &[u8], line: u64) -> Result<(), Refusal> {
    let limits = &table.plan().options.limits;
    if row.len() > limits.row_bytes_max {
        return Err(Refusal::row(0, format!("the row is {} bytes long; a row may have {}", row.len(), limits.row_bytes_max)));
    }
    check_nesting(row, limits.nesting_max)?;
    let text = std::str::from_utf8(row).map_err(|e| Refusal::row(e.valid_up_to(), "not valid UTF-8"))?;
    if !text.trim_start().starts_with('{') {
        return Err(Refusal::row(text.len() - text.trim_start().len(), "a row must be a JSON object"));
    }
    table.begin_row();
    let (mut hint, mut end) = (0, None);
    for entry in to_object_iter(text) {
        let (key, value) = entry.map_err(|e| Refusal::row(e.offset().saturating_sub(1), syntax_reason(&e)))?;
        let raw = value.as_raw_str();
        // The value's text is a part of the row's: its address tells its place.
        let at = (raw.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        end = Some(at + raw.len());
        match table.plan().column_of(&key, &mut hint) {
            Some(column) => set_raw(table, column, raw, at)?,
            None => check_unknown(table, &key, at)?,
        }
    }
    check_end(text, end)?;
    table.finish_row(line)
}

fn set_raw(table: &mut Table, column: usize, raw: &str, at: usize) -> Result<(), Refusal> {
    let unescaped;
    let value = match raw.as_bytes().first() {
        Some(b'"') if memchr::memchr(b'\\', raw.as_bytes()).is_none() => Value::Text(raw.get(1..raw.len() - 1).unwrap_or_default()),
        Some(b'"') => {
            unescaped = sonic_rs::from_str::<String>(raw).map_err(|e| Refusal::row(at, syntax_reason(&e)))?;
            Value::Text(&unescaped)
        }
        Some(b'{') => Value::Other("an object"),
        Some(b'[') => Value::Other("a list"),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') => Value::Null,
        _ => Value::Number(raw),
    };
    table.set(column, value, at)
}

fn check_unknown(table: &Table, key: &str, at: usize) -> Result<(), Refusal> {
    let plan = table.plan();
    match plan.options.unknown {
        UnknownFields::Ignore => Ok(()),
        UnknownFields::Refuse => {
            Err(Refusal::field(key, at, format!("is not a field of stream '{}'{}", plan.schema.stream, nearest(key, plan.field_names()))))
        }
    }
}

/// Nothing but white space may stand behind the object. `end` is where its last value ends.
fn check_end(text: &str, end: Option<usize>) -> Result<(), Refusal> {
    let open = text.find('{').expect("the row begins with a brace") + 1;
    let from = end.unwrap_or(open);
    let rest = text[from..].trim_ascii_start();
    let behind = rest.strip_prefix('}').unwrap_or(rest).trim_ascii_start();
    if behind.is_empty() {
        Ok(())
    } else {
        Err(Refusal::row(
            text.len() - behind.len(),
            "unexpected text behind the object: put each object on a line of its own, or send a list",
        ))
    }
}

/// The parser calls itself for every level of nesting, so the depth is bounded before it runs.
fn check_nesting(row: &[u8], nesting_max: usize) -> Result<(), Refusal> {
    let n_open = row.iter().filter(|b| matches!(b, b'{' | b'[')).count();
    if n_open <= nesting_max {
        return Ok(());
    }
    let (mut depth, mut scan) = (0usize, Scan::default());
    for (at, b) in row.iter().enumerate() {
        match scan.outside_text(*b) {
            Some(b'{' | b'[') => depth += 1,
            Some(b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > nesting_max {
            return Err(Refusal::row(at, format!("nested more than {nesting_max} levels deep")));
        }
    }
    // Text that never ends hides brackets from the count above, and the parser sees them as text too.
    Ok(())
}

/// Knows whether a byte of JSON stands inside a string.
#[derive(Default)]
struct Scan {
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// The byte, when it is structure and not part of a string.
    fn outside_text(&mut self, b: u8) -> Option<u8> {
        if !self.in_text {
            self.in_text = b == b'"';
            return (b != b'"').then_some(b);
        }
        match b {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_text = false,
            _ => {}
        }
        None
    }
}

fn syntax_reason(e: &sonic_rs::Error) -> String {
    let shown = e.to_string();
    let first = shown.lines().next().unwrap_or_default();
    let first = first.split(" at line").next().unwrap_or(first).replace("EOF while parsing", "it ends too early");
    format!("not valid JSON: {}", first.trim_end_matches(" while parsing").to_lowercase())
}

/// A document: one object, or a list of objects.
pub(crate) fn decode_document(table: &mut Table, bytes: &[u8]) {
    let from = if bytes.starts_with(BOM) { BOM.len() } else { 0 };
    let at = from + spaces(&bytes[from..]);
    match bytes.get(at) {
        Some(b'[') => decode_list(table, bytes, at + 1),
        Some(_) => {
            let mut lines = Lines::from(1);
            lines.advance(bytes, at);
            read_at(table, bytes, at, bytes.len(), lines);
        }
        None => table.refuse_row(Refusal::row(0, "the input is empty: send an object or a list of objects"), 1, 1, bytes),
    }
}

fn decode_list(table: &mut Table, bytes: &[u8], from: usize) {
    let rows_max = table.plan().options.limits.rows_max;
    let mut lines = Lines::from(1);
    let (mut at, mut expects_row) = (from, false);
    loop {
        at += spaces(&bytes[at..]);
        lines.advance(bytes, at);
        let mut refuse_rest = |at: usize, reason: &str| {
            let (line, column) = lines.place(bytes, at);
            table.refuse_row(Refusal::row(at, reason), line, column, &bytes[at..]);
        };
        match bytes.get(at) {
            None => return refuse_rest(at, "the list has no end: ']' is missing"),
            Some(b']') if expects_row => return refuse_rest(at, "an object must follow the comma"),
            Some(b']') => {
                at += 1;
                at += spaces(&bytes[at..]);
                return if at < bytes.len() {
                    refuse_rest(at, "unexpected text behind the list")
                };
            }
            Some(_) => {}
        }
        if table.n_rows() >= rows_max {
            let (line, column) = lines.place(bytes, at);
            return table.refuse_row(Refusal::row(at, too_many(rows_max)), line, column, &bytes[at..]);
        }
        let end = at + element_len(&bytes[at..]);
        read_at(table, bytes, at, end, lines);
        expects_row = bytes.get(end) == Some(&b',');
        at = end + usize::from(expects_row);
    }
}

pub(crate) fn too_many(rows_max: usize) -> String {
    format!("more than {rows_max} rows in one input: send the rest, from here on, by itself")
}

fn read_at(table: &mut Table, bytes: &[u8], from: usize, to: usize, lines: Lines) {
    let row = bytes[from..to].trim_ascii_end();
    if let Err(refusal) = read_object(table, row, lines.line) {
        let (line, column) = lines.place(bytes, from + refusal.at);
        table.refuse_row(refusal, line, column, row);
    }
}

/// Bytes up to the comma or bracket that ends the element, whether or not the element is valid. A line break inside a string ends it too:
/// JSON allows none there, and so a forgotten quote spoils one line and not all that follow.
fn element_len(bytes: &[u8]) -> usize {
    let (mut depth, mut scan) = (0usize, Scan::default());
    for (at, b) in bytes.iter().enumerate() {
        if *b == b'\n' && scan.in_text {
            return at;
        }
        match scan.outside_text(*b) {
            Some(b'{' | b'[') => depth += 1,
            Some(b',' | b']') if depth == 0 => return at,
            Some(b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    bytes.len()
}

fn spaces(bytes: &[u8]) -> usize {
    bytes.len() - bytes.trim_ascii_start().len()
}

/// Reads complete lines, at most until the table holds `rows_max` rows, and says how many bytes they took. At the end of the input the
/// last line needs no line break.
pub(crate) fn read_lines(table: &mut Table, bytes: &[u8], line: &mut u64, at_end: bool, rows_max: usize) -> usize {
    let first = *line;
    let mut at = if first == 1 && bytes.starts_with(BOM) { BOM.len() } else { 0 };
    while at < bytes.len() && table.n_rows() < rows_max {
        let end = match memchr::memchr(b'\n', &bytes[at..]) {
            Some(n) => at + n,
            None if at_end => bytes.len(),
            None => break,
        };
        let row = bytes[at..end].trim_ascii_end();
        if !row.is_empty()
            && let Err(refusal) = read_object(table, row, *line)
        {
            let column = column(&row[..refusal.at.min(row.len())]);
            table.refuse_row(refusal, *line, column, row);
        }
        *line += 1;
        at = (end + 1).min(bytes.len());
    }
    // The mark stays before its line until that is whole: seen twice, it would be two.
    if *line == first && !at_end { 0 } else { at }
}
