//! Changes as they stand in the log: Avro in the Confluent wire format, one schema per shape of a table. The layout is in `avro_schema`.

pub use super::avro_read::ChangeDecoder;
use super::avro_schema::{self, decimal_scale, item_kind, nested_branch};
use super::text::push_uuid;
use super::unscaled::push_i128;
use crate::change::{Change, Op, Place, Row, Snapshot, What};
use crate::datum::Datum;
use crate::table::{Kind, Table};
use mulgil_model::avro::WireSchema;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AvroError {
    #[error("column '{column}' of {table} has a value of another kind than its column: this is a fault of the source")]
    Kind { table: String, column: String },
    #[error("a change of {table} has a row of {found} values where its table has {expected} columns: this is a fault of the source")]
    Width { table: String, found: usize, expected: usize },
    #[error("a change was written with schema {id}, which is not known here")]
    UnknownSchema { id: u32 },
    #[error("schema {id} cannot be used: {reason}")]
    Schema { id: u32, reason: &'static str },
    #[error("a change cannot be read: {reason}")]
    Damaged { reason: &'static str },
}

/// Shapes of tables whose schemas are kept; all are forgotten when there are more.
const TABLES_MAX: usize = 4_096;

/// Writes changes. Cheap to make; holds the schemas of the shapes it has met.
pub struct ChangeEncoder {
    /// By the address of the shape, which is held, so that it stays its own.
    shapes: HashMap<usize, (Arc<Table>, WireSchema)>,
    messages: WireSchema,
}

impl Default for ChangeEncoder {
    fn default() -> Self {
        Self { shapes: HashMap::new(), messages: avro_schema::of_messages() }
    }
}

impl ChangeEncoder {
    /// The schema that the change is written with: to be registered before the change is committed.
    pub fn wire(&mut self, change: &Change) -> &WireSchema {
        let table = match &change.what {
            What::Row { table, .. } | What::Truncate { table, .. } => table,
            What::Message { .. } => return &self.messages,
        };
        let address = Arc::as_ptr(table) as usize;
        if self.shapes.len() >= TABLES_MAX && !self.shapes.contains_key(&address) {
            self.shapes.clear();
        }
        &self.shapes.entry(address).or_insert_with(|| (Arc::clone(table), avro_schema::of_table(table))).1
    }

    /// Appends the message: header and body. On an error nothing is appended.
    pub fn encode(&mut self, change: &Change, out: &mut Vec<u8>) -> Result<(), AvroError> {
        let start = out.len();
        out.push(0);
        out.extend_from_slice(&self.wire(change).id.to_be_bytes());
        let result = push_body(out, change);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }
}

fn push_body(out: &mut Vec<u8>, change: &Change) -> Result<(), AvroError> {
    match &change.what {
        What::Row { table, before, after } => {
            push_op(out, change.op);
            push_row(out, table, before.as_ref())?;
            push_row(out, table, after.as_ref())?;
            push_source(out, change);
            out.push(0);
        }
        What::Truncate { cascade, restart_identity, .. } => {
            push_op(out, change.op);
            out.extend_from_slice(&[0, 0]);
            push_source(out, change);
            out.extend_from_slice(&[2, u8::from(*cascade), u8::from(*restart_identity)]);
        }
        What::Message { prefix, content, is_transactional } => {
            push_bytes(out, prefix.as_bytes());
            push_bytes(out, content);
            out.push(u8::from(*is_transactional));
            push_source(out, change);
        }
    }
    Ok(())
}

/// Operations in the order of the schema's symbols.
pub(crate) const OPS: [Op; 6] = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate, Op::Message];
pub(crate) const SNAPSHOTS: [Snapshot; 4] = [Snapshot::No, Snapshot::Initial, Snapshot::Last, Snapshot::Incremental];

fn push_op(out: &mut Vec<u8>, op: Op) {
    let index = match op {
        Op::Create => 0,
        Op::Update => 1,
        Op::Delete => 2,
        Op::Read => 3,
        Op::Truncate => 4,
        Op::Message => 5,
    };
    push_long(out, index);
}

fn push_source(out: &mut Vec<u8>, change: &Change) {
    push_long(out, change.origin.committed_us);
    let snapshot = match change.origin.snapshot {
        Snapshot::No => 0,
        Snapshot::Initial => 1,
        Snapshot::Last => 2,
        Snapshot::Incremental => 3,
    };
    push_long(out, snapshot);
    push_long(out, change.position.commit.cast_signed());
    push_long(out, change.position.ordinal.cast_signed());
    match &change.origin.place {
        Place::Postgres { database, commit_lsn, txid } => {
            out.push(0);
            push_bytes(out, database.as_bytes());
            push_long(out, commit_lsn.cast_signed());
            push_optional(out, *txid);
        }
        Place::Mysql { server_id, file, at, gtid, thread } => {
            out.push(2);
            push_long(out, i64::from(*server_id));
            push_bytes(out, file.as_bytes());
            push_long(out, at.cast_signed());
            match gtid {
                Some(gtid) => {
                    out.push(2);
                    push_bytes(out, gtid.as_bytes());
                }
                None => out.push(0),
            }
            push_optional(out, *thread);
        }
    }
}

fn push_optional(out: &mut Vec<u8>, n: Option<u32>) {
    match n {
        Some(n) => {
            out.push(2);
            push_long(out, i64::from(n));
        }
        None => out.push(0),
    }
}

fn push_row(out: &mut Vec<u8>, table: &Table, row: Option<&Row>) -> Result<(), AvroError> {
    let Some(row) = row else {
        out.push(0);
        return Ok(());
    };
    if row.len() != table.columns.len() {
        return Err(AvroError::Width { table: table.id.to_string(), found: row.len(), expected: table.columns.len() });
    }
    out.push(2);
    for (datum, column) in row.iter().zip(&table.columns) {
        if !push_datum(out, &column.kind, datum) {
            return Err(AvroError::Kind { table: table.id.to_string(), column: column.name.to_string() });
        }
    }
    Ok(())
}

/// The branches of a column's union, as they are written.
const NULL: u8 = 0;
const VALUE: u8 = 2;
const UNAVAILABLE: u8 = 4;
const ODD: u8 = 6;
const VERBATIM: u8 = 8;

/// False if the value is not of the kind.
fn push_datum(out: &mut Vec<u8>, kind: &Kind, datum: &Datum) -> bool {
    match datum {
        Datum::Null => out.push(NULL),
        Datum::Unavailable => out.extend_from_slice(&[UNAVAILABLE, 0]),
        Datum::Odd(text) => {
            out.push(ODD);
            push_bytes(out, text);
            return std::str::from_utf8(text).is_ok();
        }
        Datum::Decimal(text) => return matches!(kind, Kind::Decimal(_)) && push_decimal(out, kind, text),
        datum => {
            out.push(VALUE);
            return push_value(out, kind, datum);
        }
    }
    true
}

fn push_value(out: &mut Vec<u8>, kind: &Kind, datum: &Datum) -> bool {
    match (kind, datum) {
        (Kind::Bool, Datum::Bool(v)) => out.push(u8::from(*v)),
        (Kind::Int16 | Kind::Int32, Datum::Int(v)) => {
            push_long(out, *v);
            return i32::try_from(*v).is_ok();
        }
        (Kind::Int64, Datum::Int(v)) | (Kind::Time, Datum::Time(v)) => push_long(out, *v),
        (Kind::Timestamp, Datum::Timestamp(v)) | (Kind::TimestampTz, Datum::TimestampTz(v)) => push_long(out, *v),
        (Kind::UInt64, Datum::UInt(v)) => push_short(out, |out| push_i128(out, i128::from(*v))),
        (Kind::Float32, Datum::Float32(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (Kind::Float64, Datum::Float64(v)) => out.extend_from_slice(&v.to_le_bytes()),
        (Kind::Text | Kind::Unknown, Datum::Text(v)) | (Kind::Binary, Datum::Binary(v)) | (Kind::Json, Datum::Json(v)) => {
            push_bytes(out, v)
        }
        (Kind::Date, Datum::Date(v)) => push_long(out, i64::from(*v)),
        (Kind::Uuid, Datum::Uuid(v)) => push_short(out, |out| push_uuid(out, v)),
        (Kind::Array(_), Datum::Array(items)) => return push_array(out, item_kind(kind), items, 0),
        _ => return false,
    }
    true
}

fn push_array(out: &mut Vec<u8>, item: &Kind, items: &[Datum], depth: usize) -> bool {
    if depth >= avro_schema::ARRAY_DEPTH_MAX {
        return false;
    }
    if !items.is_empty() {
        push_long(out, items.len() as i64);
        for datum in items {
            let is_written = match datum {
                Datum::Array(inner) => {
                    out.push(nested_branch(item) * 2);
                    push_array(out, item, inner, depth + 1)
                }
                datum => push_datum(out, item, datum),
            };
            if !is_written {
                return false;
            }
        }
    }
    out.push(0);
    true
}

/// With its union's branch: as Avro's decimal where reading it back gives the same text.
fn push_decimal(out: &mut Vec<u8>, kind: &Kind, text: &[u8]) -> bool {
    let Kind::Decimal(digits) = kind else { return false };
    let Some(scale) = decimal_scale(*digits) else {
        out.push(VALUE);
        push_bytes(out, text);
        return super::unscaled::Parts::of(text).is_some();
    };
    let precision = digits.map_or(0, |d| d.precision);
    match canonical(text, usize::from(precision), scale as usize) {
        Some(unscaled) => {
            out.push(VALUE);
            push_short(out, |out| push_i128(out, unscaled));
            true
        }
        None => {
            out.push(VERBATIM);
            push_bytes(out, text);
            super::unscaled::Parts::of(text).is_some()
        }
    }
}

/// The unscaled number of a text that is written in the one way that [`super::unscaled::push_decimal`] writes: exactly `scale` decimals, no
/// zero before the first digit, no negative zero.
fn canonical(text: &[u8], precision: usize, scale: usize) -> Option<i128> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let n_whole = digits.len().checked_sub(if scale > 0 { scale + 1 } else { 0 })?;
    if n_whole == 0 || n_whole + scale > precision.max(scale + 1) || (scale > 0 && digits[n_whole] != b'.') {
        return None;
    }
    if digits[0] == b'0' && n_whole > 1 {
        return None;
    }
    let mut value = 0i128;
    let fraction = if scale > 0 { &digits[n_whole + 1..] } else { &digits[..0] };
    // Digits in machine words: the multiplication of 128 bits is needed once for every 18.
    for part in [&digits[..n_whole], fraction] {
        for chunk in part.chunks(18) {
            let (mut word, mut factor) = (0u64, 1u64);
            for digit in chunk {
                if !digit.is_ascii_digit() {
                    return None;
                }
                word = word * 10 + u64::from(digit - b'0');
                factor *= 10;
            }
            value = value.checked_mul(i128::from(factor))?.checked_add(i128::from(word))?;
        }
    }
    if is_negative && value == 0 { None } else { Some(if is_negative { -value } else { value }) }
}

/// Zig-zag, seven bits a byte, the lowest first.
pub(crate) fn push_long(out: &mut Vec<u8>, n: i64) {
    let mut rest = ((n << 1) ^ (n >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Bytes whose number is not known before they are written, but is below 64, so that their length is one byte.
fn push_short(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let n_bytes = out.len() - at - 1;
    debug_assert!(n_bytes < 64, "invariant: uuids have 36 bytes, 128-bit numbers 16");
    out[at] = (n_bytes as u8) << 1;
}
