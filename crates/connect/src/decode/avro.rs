//! Avro rows: messages in the Confluent wire format, one after the other, or an object container file.
//! Formats: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>,
//! <https://avro.apache.org/docs/1.12.0/specification/#object-container-files> (uncompressed blocks only).

use super::columns::Columns;
use super::container::{self, Budget, Checked, Shapes};
use super::json::too_many;
use super::plan::Plan;
use super::table::{Refusal, Table};
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder, Reader, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use mulgil_model::avro::{HEADER_BYTES, WireSchema, schema_id};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Rows taken out of the Avro reader at a time.
const BATCH_ROWS: usize = 8_192;

pub(crate) fn decode(table: &mut Table, bytes: &[u8]) {
    if bytes.starts_with(container::MAGIC) { decode_container(table, bytes) } else { decode_messages(table, bytes) }
}

/// Runs a foreign decoder on foreign bytes. Its bugs are not ours to meet with a dead process: a panic is one more refusal.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("the decoder gave up on these bytes: they are damaged".to_owned()))
}

fn decode_container(table: &mut Table, bytes: &[u8]) {
    if let Err(refusal) = read_container(table, bytes) {
        let line = table.next_row() + 1;
        table.refuse_row(refusal, line, 1, bytes);
    }
}

fn read_container(table: &mut Table, bytes: &[u8]) -> Result<(), Refusal> {
    let refuse = |reason: String| Refusal::row(0, format!("not a readable avro file: {reason}"));
    let rows_max = table.plan().options.limits.rows_max;
    container::check(bytes, rows_max).map_err(refuse)?;
    let build = || {
        ReaderBuilder::new().with_batch_size(BATCH_ROWS.min(rows_max)).with_tz(Tz::Utc).build(Cursor::new(bytes)).map_err(|e| e.to_string())
    };
    let mut reader: Reader<Cursor<&[u8]>> = guarded(build).map_err(refuse)?;
    let columns = Columns::of(table.plan(), &reader.schema())?;
    while let Some(batch) = guarded(|| reader.next().transpose().map_err(|e| e.to_string())).map_err(refuse)? {
        columns.append(table, &batch).map_err(|e| refuse(e.to_string()))?;
    }
    Ok(())
}

/// Messages have no length of their own: behind one that cannot be read, nothing can. Each is walked by its schema first, so that the
/// decoder meets runs of whole messages, and what it decoded of one run is in the table before the next is begun.
fn decode_messages(table: &mut Table, bytes: &[u8]) {
    if bytes.is_empty() {
        let reason = "the input is empty: send avro messages in the wire format, or an avro file";
        return table.refuse_row(Refusal::row(0, reason), 1, 1, bytes);
    }
    if let Err((at, refusal)) = read_messages(table, bytes) {
        let (line, column) = (table.next_row() + 1, at as u64 + 1);
        table.refuse_row(refusal, line, column, &bytes[at..]);
    }
}

/// Why the run of messages ends, and at which byte.
type Stopped = (usize, Refusal);

fn read_messages(table: &mut Table, bytes: &[u8]) -> Result<(), Stopped> {
    let unreadable = |reason: String| Refusal::row(0, format!("not a readable avro message: {reason}"));
    let plan = Arc::clone(table.plan());
    let rows_max = plan.options.limits.rows_max;
    let mut decoder = guarded(|| build_decoder(&plan).map_err(|e| e.to_string())).map_err(|e| (0, unreadable(e)))?;
    let shapes: Vec<(u32, Checked<Shapes>)> = plan.wire.iter().map(|w| (w.id, Shapes::parse(&w.json))).collect();
    let (mut used, mut budget) = (0, Budget::of(bytes));
    while used < bytes.len() {
        let room = BATCH_ROWS.min(rows_max - table.n_rows());
        if room == 0 {
            return Err((used, Refusal::row(0, too_many(rows_max))));
        }
        let (ends, stopped) = walk(&plan, &shapes, &bytes[used..], room, &mut budget);
        let end = used + ends.last().copied().unwrap_or(0);
        if append_run(table, &mut decoder, &bytes[used..end]).is_err() {
            // The run is good in its frame and not in a value: one message at a time finds the one.
            return Err(append_singly(table, &bytes[..end], used, &ends));
        }
        used = end;
        if let Some(reason) = stopped {
            return Err((used, unreadable(reason)));
        }
    }
    Ok(())
}

/// Where each of the next whole messages ends, at most `n_max`, and what is wrong with the one behind them.
fn walk(plan: &Plan, shapes: &[(u32, Checked<Shapes>)], bytes: &[u8], n_max: usize, budget: &mut Budget) -> (Vec<usize>, Option<String>) {
    let (mut ends, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() && ends.len() < n_max {
        let skipped = check_header(plan, rest).and_then(|id| {
            let known = shapes.iter().find(|(known, _)| *known == id).ok_or("its schema is not known")?;
            rest = &rest[HEADER_BYTES..];
            known.1.as_ref().map_err(Clone::clone)?.skip_one(&mut rest, budget)
        });
        if let Err(reason) = skipped {
            return (ends, Some(reason));
        }
        ends.push(bytes.len() - rest.len());
    }
    (ends, None)
}

/// Decodes whole messages and appends their rows; on an error none of them.
fn append_run(table: &mut Table, decoder: &mut Decoder, mut run: &[u8]) -> Result<(), String> {
    let mut batches = Vec::new();
    while !run.is_empty() {
        let used = guarded(|| decoder.decode(run).map_err(|e| e.to_string()))?;
        let batch = guarded(|| decoder.flush().map_err(|e| e.to_string()))?;
        if used == 0 && batch.is_none() {
            return Err("it ends too early".to_owned());
        }
        run = &run[used..];
        batches.extend(batch);
    }
    for batch in &batches {
        let columns = Columns::of(table.plan(), batch.schema_ref()).map_err(|e| e.reason)?;
        columns.append(table, batch).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Messages from `from` on, which end at `ends`, up to the one that cannot be decoded.
fn append_singly(table: &mut Table, bytes: &[u8], from: usize, ends: &[usize]) -> Stopped {
    let unreadable = |reason: String| Refusal::row(0, format!("not a readable avro message: {reason}"));
    let plan = Arc::clone(table.plan());
    // The decoder that failed keeps what it had begun: this is a new one.
    let mut decoder = match guarded(|| build_decoder(&plan).map_err(|e| e.to_string())) {
        Ok(decoder) => decoder,
        Err(reason) => return (from, unreadable(reason)),
    };
    let mut used = from;
    for end in ends.iter().map(|end| from + end) {
        if let Err(reason) = append_run(table, &mut decoder, &bytes[used..end]) {
            return (used, unreadable(reason));
        }
        used = end;
    }
    (from, Refusal::row(0, "not readable avro messages: they can be read one by one, but not together"))
}

fn check_header(plan: &Plan, message: &[u8]) -> Checked<u32> {
    let id = schema_id(message).ok_or("it does not begin with a zero byte and a schema id")?;
    if plan.wire.iter().any(|w| w.id == id) { Ok(id) } else { Err(format!("schema {id} is not known for stream '{}'", plan.schema.stream)) }
}

fn build_decoder(plan: &Plan) -> Result<Decoder, arrow::error::ArrowError> {
    let present = WireSchema::of(&plan.schema);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    for wire in &plan.wire {
        store.set(Fingerprint::Id(wire.id), AvroSchema::new(wire.json.clone()))?;
    }
    ReaderBuilder::new()
        .with_reader_schema(AvroSchema::new(present.json))
        .with_writer_schema_store(store)
        .with_active_fingerprint(Fingerprint::Id(present.id))
        .with_batch_size(BATCH_ROWS)
        .with_tz(Tz::Utc)
        .build_decoder()
}
