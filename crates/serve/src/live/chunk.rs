//! Rows as live clients get them: encoded once, shared by all who want them.

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use mulgil_model::ids::Offset;
use mulgil_model::json;
use mulgil_model::rows::Rows;
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use mulgil_model::streams::change_column;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::OnceLock;

/// Rows read and encoded at a time.
pub const CHUNK_ROWS_MAX: usize = 512;

/// Consecutive rows of one partition. JSON is made when the first client needs it.
pub struct Chunk {
    pub rows: Rows,
    /// One per row: compare these first, then the key itself.
    pub key_hashes: Vec<u64>,
    encoded: OnceLock<Encoded>,
    bytes: usize,
}

struct Encoded {
    text: String,
    /// Row `i` is `text[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
}

impl Chunk {
    pub fn new(rows: Rows, hasher: &RandomState) -> Self {
        let keys = rows.keys();
        let key_hashes = (0..rows.len()).map(|i| hasher.hash_one(keys.value(i))).collect();
        let bytes = bytes_of(&rows);
        Self { rows, key_hashes, encoded: OnceLock::new(), bytes }
    }

    pub fn base(&self) -> Offset {
        self.rows.base
    }

    pub fn next(&self) -> Offset {
        self.rows.next()
    }

    pub fn key(&self, row: usize) -> &str {
        self.rows.keys().value(row)
    }

    pub fn event_time(&self, row: usize) -> i64 {
        self.rows.event_times().value(row)
    }

    /// The letter of a change; None for other rows.
    pub fn op(&self, row: usize) -> Option<&str> {
        self.text_of_change(change_column::OP, row)
    }

    /// What the key was before a change of it.
    pub fn old_key(&self, row: usize) -> Option<&str> {
        self.text_of_change(change_column::OLD_KEY, row)
    }

    pub fn has_old_keys(&self) -> bool {
        self.rows.schema.kind == StreamKind::Change
    }

    fn text_of_change(&self, column: usize, row: usize) -> Option<&str> {
        let texts = (self.rows.schema.kind == StreamKind::Change).then(|| self.rows.column(column).as_string::<i32>())?;
        texts.is_valid(row).then(|| texts.value(row))
    }

    /// Row `row` as a JSON object; a change as its events, which may be more than one.
    pub fn json(&self, row: usize) -> &str {
        if let Some(events) = self.text_of_change(change_column::EVENTS, row) {
            return events;
        }
        let encoded = self.encoded.get_or_init(|| self.encode());
        let start = if row == 0 { 0 } else { encoded.ends[row - 1] as usize };
        &encoded.text[start..encoded.ends[row] as usize]
    }

    /// The rows from `from` on that this chunk holds.
    pub fn range_from(&self, from: Offset) -> Range<usize> {
        from.0.saturating_sub(self.base().0) as usize..self.rows.len()
    }

    /// Roughly what it keeps in memory, whether it is encoded yet or not: always the same for one chunk.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn encode(&self) -> Encoded {
        let mut text = String::with_capacity(self.rows.len() * 192);
        let ends = (0..self.rows.len()).map(|row| {
            write_row(&mut text, &self.rows.schema, &self.rows.batch, row);
            text.len() as u32
        });
        let ends = ends.collect();
        Encoded { text, ends }
    }
}

/// Of buffers that the rows share with their neighbours, which are parts of the same commit, their own part.
fn bytes_of(rows: &Rows) -> usize {
    const ENCODED_ROW_BYTES: usize = 256;
    let columns = rows.batch.columns().iter();
    let own: usize = columns.map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size())).sum();
    rows.len() * ENCODED_ROW_BYTES + own
}

/// A row as a JSON object. An alert's evidence and thresholds are JSON already and are shown as objects, not as text.
pub fn write_row(out: &mut String, schema: &StreamSchema, batch: &arrow::array::RecordBatch, row: usize) {
    if schema.kind != StreamKind::Alert {
        return json::write_row(out, schema, batch, row);
    }
    for (i, column) in schema.columns.iter().enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        json::write_text(out, &column.name);
        out.push(':');
        let array = batch.column(i);
        let holds_json =
            matches!(column.name.as_str(), "evidence" | "thresholds") && column.kind == ColumnType::Text && array.is_valid(row);
        match holds_json.then(|| array.as_string::<i32>().value(row)).filter(|text| is_json(text)) {
            Some(text) => out.push_str(text),
            None => json::write_value(out, column.kind, array.as_ref(), row),
        }
    }
    out.push('}');
}

/// Line breaks between tokens would end an SSE field, so a text with them is sent as text.
fn is_json(text: &str) -> bool {
    !text.contains(['\n', '\r']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The latest event time among the rows.
pub fn newest(rows: &Rows) -> Option<i64> {
    arrow::compute::max(rows.column(rows.schema.event_time).as_primitive::<TimestampMicrosecondType>())
}
