//! De-duplication by natural key: of rows that agree in the named columns, only the first is seen by operators, within a bounded horizon.
//!
//! The shard then reads `<stream>.in` and writes the first-seen rows, unchanged, to `<stream>`; duplicates are counted and go nowhere.
//! A key is remembered until the watermark is `horizon` behind its row's event time, and at most `n_max` keys are: beyond that, the one
//! that came first is forgotten first. Duplicates do not move the watermark and do not extend the horizon.
//!
//! Keys are remembered as 128-bit hashes: two different keys meet by chance once in 10^26 pairs, but who wants them to meet can find some.
//! State: about 100 bytes per key in memory, all of it read at `open`, so `n_max` also bounds the time of a start.

use crate::error::EngineError;
use crate::keyed::table_prefix;
use crate::layout::{Fields, put_i};
use crate::operator::{OperatorStats, WATERMARK_NONE};
use crate::output::Outputs;
use crate::state::{Snapshot, StateStore, StateValue};
use crate::watermark::Watermark;
use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use mulgil_model::rows::Rows;
use mulgil_model::schema::{ColumnType, StreamSchema};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// Unless configured otherwise: 1 h.
pub const HORIZON_US: i64 = 3_600_000_000;
/// Unless configured otherwise: a million keys per shard.
pub const KEYS_MAX: usize = 1_000_000;

#[derive(Debug, Clone)]
pub struct DedupeSpec {
    /// Names of the columns that make rows the same.
    pub columns: Vec<String>,
    pub horizon_us: i64,
    pub n_max: usize,
    /// Where first-seen rows go: the input's columns under the stream's own name.
    pub output: Arc<StreamSchema>,
}

pub struct Dedupe {
    spec: DedupeSpec,
    columns: Vec<(usize, ColumnType)>,
    prefix: Vec<u8>,
    /// Sequence number and event time per key.
    seen: HashMap<u128, Seen, BuildHasherDefault<Identity>>,
    /// In order of arrival; the first one's sequence number is `first`.
    queue: VecDeque<Entry>,
    first: u64,
    /// Sequence numbers below are in the store (or deleted from it).
    n_stored: u64,
    /// Sequence numbers below are deleted from the store.
    n_deleted: u64,
    n_duplicates: u64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    sequence: u64,
    event_time: i64,
}

/// One remembered key. Store key: the prefix and the sequence number, big endian. Layout, version 1: the hash (16 bytes, little endian),
/// the event time (zigzag varint).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    hash: u128,
    event_time: i64,
}

/// The keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}

impl Dedupe {
    pub fn new(spec: &DedupeSpec, input: &StreamSchema) -> Result<Self, EngineError> {
        let config = |reason: String| EngineError::Config(format!("deduplication of stream '{}': {reason}", spec.output.stream));
        let column = |name: &String| input.column(name).map(|(at, c)| (at, c.kind)).map_err(|e| config(e.to_string()));
        let columns = spec.columns.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        if columns.is_empty() || spec.n_max == 0 || spec.horizon_us <= 0 {
            return Err(config("give at least one column, a horizon, and room for at least one key".to_owned()));
        }
        if spec.output.columns != input.columns || spec.output.stream == input.stream {
            return Err(config(format!("'{}' must have the columns of '{}' and another name", spec.output.stream, input.stream)));
        }
        let (prefix, seen, queue) = (table_prefix("dedupe", "seen"), HashMap::default(), VecDeque::new());
        Ok(Self { spec: spec.clone(), columns, prefix, seen, queue, first: 0, n_stored: 0, n_deleted: 0, n_duplicates: 0 })
    }

    pub fn output(&self) -> &Arc<StreamSchema> {
        &self.spec.output
    }

    /// Duplicates since `open`.
    pub fn n_duplicates(&self) -> u64 {
        self.n_duplicates
    }

    /// Reads every remembered key.
    pub fn open(&mut self, store: &dyn StateStore) -> Result<(), EngineError> {
        let mut bad = None;
        store.scan(&self.prefix.clone(), &mut |key, bytes| {
            let sequence = key[self.prefix.len()..].try_into().map(u64::from_be_bytes).map_err(|_| "its key is damaged".to_owned());
            match (sequence, Entry::read(bytes)) {
                (Ok(sequence), Ok(entry)) => self.restore(sequence, entry),
                (Err(reason), _) | (_, Err(reason)) => bad = Some(reason),
            }
            bad.is_none()
        })?;
        self.n_stored = self.next_sequence();
        self.n_deleted = self.first;
        bad.map_or(Ok(()), |reason| Err(EngineError::State { prefix: "dedupe/seen".to_owned(), reason }))
    }

    fn restore(&mut self, sequence: u64, entry: Entry) {
        if self.queue.is_empty() {
            self.first = sequence;
        }
        self.seen.insert(entry.hash, Seen { sequence, event_time: entry.event_time });
        self.queue.push_back(entry);
    }

    /// Emits the first-seen rows and returns them with their offsets, or None when there are none. `watermark` is the one before the
    /// batch; a copy of it is moved along with the first-seen rows.
    pub fn filter(&mut self, rows: &Rows, mut watermark: Watermark, out: &mut Outputs) -> Result<Option<(Rows, Vec<u64>)>, EngineError> {
        let times = rows.event_times().values();
        let (mut kept, mut scratch, mut behind) = (Vec::with_capacity(rows.len()), Vec::new(), Vec::new());
        for (i, &event_time) in times.iter().enumerate() {
            let hash = self.hash_row(rows, i, &mut scratch);
            if self.is_first(hash, event_time, watermark.now()) {
                kept.push(i as u64);
                watermark.take_rows(&[event_time], &mut behind);
            }
        }
        self.n_duplicates += (rows.len() - kept.len()) as u64;
        if kept.is_empty() {
            return Ok(None);
        }
        let batch =
            if kept.len() == rows.len() { rows.batch.clone() } else { take_record_batch(&rows.batch, &UInt64Array::from(kept.clone()))? };
        out.emit(&self.spec.output, batch.clone());
        let appended = kept.iter().map(|&i| rows.appended[i as usize]).collect();
        let received = kept.iter().map(|&i| rows.received[i as usize]).collect();
        let offsets = kept.iter().map(|i| rows.base.0 + i).collect();
        Ok(Some((
            Rows { schema: Arc::clone(&rows.schema), partition: rows.partition, base: rows.base, batch, appended, received },
            offsets,
        )))
    }

    /// The row is a duplicate as things stand before it.
    pub fn is_known(&self, rows: &Rows, i: usize, watermark: i64) -> bool {
        self.is_seen(self.hash_row(rows, i, &mut Vec::new()), watermark)
    }

    fn is_seen(&self, hash: u128, watermark: i64) -> bool {
        self.seen.get(&hash).is_some_and(|seen| self.is_remembered(seen.event_time, watermark))
    }

    fn is_first(&mut self, hash: u128, event_time: i64, watermark: i64) -> bool {
        if self.is_seen(hash, watermark) {
            return false;
        }
        self.seen.insert(hash, Seen { sequence: self.next_sequence(), event_time });
        self.queue.push_back(Entry { hash, event_time });
        while self.queue.len() > self.spec.n_max || self.queue.front().is_some_and(|e| !self.is_remembered(e.event_time, watermark)) {
            self.forget_first();
        }
        true
    }

    fn is_remembered(&self, event_time: i64, watermark: i64) -> bool {
        watermark == WATERMARK_NONE || event_time.saturating_add(self.spec.horizon_us) > watermark
    }

    fn forget_first(&mut self) {
        let Some(entry) = self.queue.pop_front() else { return };
        // The key may have come again since, and then has a later place in the queue.
        if self.seen.get(&entry.hash).is_some_and(|seen| seen.sequence == self.first) {
            self.seen.remove(&entry.hash);
        }
        self.first += 1;
    }

    fn next_sequence(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    pub fn snapshot(&mut self, into: &mut Snapshot) {
        for sequence in self.n_deleted..self.first.min(self.n_stored) {
            into.delete(self.store_key(sequence));
        }
        let new_from = self.n_stored.max(self.first);
        for (sequence, entry) in (self.first..).zip(&self.queue).skip((new_from - self.first) as usize) {
            let mut bytes = Vec::new();
            entry.write(&mut bytes);
            into.put(self.store_key(sequence), bytes);
        }
        (self.n_stored, self.n_deleted) = (self.next_sequence(), self.first);
    }

    pub fn stats(&self) -> OperatorStats {
        let n_dirty = (self.next_sequence() - self.n_stored.max(self.first)) as usize;
        OperatorStats { n_hot: self.queue.len(), n_dirty, ..OperatorStats::default() }
    }

    fn store_key(&self, sequence: u64) -> Vec<u8> {
        [&self.prefix[..], &sequence.to_be_bytes()].concat()
    }

    /// Hash of the row's values in the named columns, each with its length or a mark for null.
    fn hash_row(&self, rows: &Rows, i: usize, scratch: &mut Vec<u8>) -> u128 {
        scratch.clear();
        for &(at, kind) in &self.columns {
            write_value(rows.column(at), kind, i, scratch);
        }
        xxh3_128(scratch)
    }
}

fn write_value(column: &ArrayRef, kind: ColumnType, i: usize, out: &mut Vec<u8>) {
    if column.is_null(i) {
        out.push(0);
        return;
    }
    out.push(1);
    match kind {
        ColumnType::Text => {
            let text = column.as_string::<i32>().value(i);
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        ColumnType::Int => out.extend_from_slice(&column.as_primitive::<Int64Type>().value(i).to_le_bytes()),
        ColumnType::Decimal { .. } => out.extend_from_slice(&column.as_primitive::<Decimal128Type>().value(i).to_le_bytes()),
        ColumnType::Timestamp => out.extend_from_slice(&column.as_primitive::<TimestampMicrosecondType>().value(i).to_le_bytes()),
        ColumnType::Bool => out.push(column.as_boolean().value(i).into()),
        ColumnType::Float => out.extend_from_slice(&column.as_primitive::<Float64Type>().value(i).to_bits().to_le_bytes()),
    }
}

impl StateValue for Entry {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        out.extend_from_slice(&self.hash.to_le_bytes());
        put_i(out, self.event_time.into());
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(bytes, 1)?;
        let entry = Self { hash: u128::from_le_bytes(fields.array()?), event_time: fields.i64()? };
        fields.end()?;
        Ok(entry)
    }
}
