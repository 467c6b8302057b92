//! Avro rows: messages in the Confluent wire format, one after the other, or an object container file.
//! Formats: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>,
//! <https://avro.apache.org/docs/1.12.0/specification/#object-container-files> (uncompressed blocks only).

use super::columns::Columns;
use super::container;
use super::json::too_many;
use super::plan::Plan;
use super::table::{Refusal, Table};
use arrow::array::RecordBatch;
use arrow_avro::codec::Tz;
use arrow_avro::reader::{Decoder, Reader, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use mulgil_model::avro::{WireSchema, schema_id};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Messages have no length of their own: behind one that cannot be read, nothing can.
fn decode_messages(table: &mut Table, bytes: &[u8]) {
    if bytes.is_empty() {
        return table.refuse_row(
            Refusal::row(0, "the input is empty: send avro messages in the wire format, or an avro file"),
            1,
            1,
            bytes,
        );
    }
    let rows_max = table.plan().options.limits.rows_max;
    let read = match guarded(|| read_messages(table.plan(), bytes, BATCH_ROWS, rows_max)) {
        Ok(read) => read,
        // One message at a time is slow, and finds the damaged one.
        Err(_) => match guarded(|| read_messages(table.plan(), bytes, 1, rows_max)) {
            Ok(read) => read,
            Err(reason) => return table.refuse_row(Refusal::row(0, reason), 1, 1, bytes),
        },
    };
    for batch in &read.batches {
        let appended =
            Columns::of(table.plan(), batch.schema_ref()).and_then(|c| c.append(table, batch).map_err(|e| Refusal::row(0, e.to_string())));
        if let Err(refusal) = appended {
            return table.refuse_row(refusal, 1, 1, bytes);
        }
    }
    if let Some(reason) = read.stopped {
        let (line, column) = (table.next_row() + 1, read.used as u64 + 1);
        table.refuse_row(Refusal::row(0, reason), line, column, &bytes[read.used..]);
    }
}

/// What could be read of a run of messages.
struct Messages {
    batches: Vec<RecordBatch>,
    /// Bytes of the messages that were read.
    used: usize,
    /// Why the rest could not be.
    stopped: Option<String>,
}

/// In batches an error is returned, since the messages before it are lost in the decoder; one by one it ends the run.
fn read_messages(plan: &Plan, bytes: &[u8], batch_rows: usize, rows_max: usize) -> Result<Messages, String> {
    let mut decoder = build_decoder(plan, batch_rows).map_err(|e| e.to_string())?;
    let mut read = Messages { batches: Vec::new(), used: 0, stopped: None };
    let mut n_rows = 0;
    while read.used < bytes.len() {
        let rest = &bytes[read.used..];
        let used = match check_header(plan, rest).and_then(|()| guarded(|| decoder.decode(rest).map_err(|e| e.to_string()))) {
            Ok(used) => used,
            Err(reason) if batch_rows == 1 => {
                read.stopped = Some(format!("not a readable avro message: {reason}"));
                break;
            }
            Err(reason) => return Err(reason),
        };
        read.used += used;
        let batch = decoder.flush().map_err(|e| e.to_string())?;
        n_rows += batch.as_ref().map_or(0, RecordBatch::num_rows);
        if n_rows >= rows_max && read.used < bytes.len() {
            read.stopped = Some(too_many(rows_max));
        }
        if used == 0 && batch.is_none() {
            read.stopped = Some("not a readable avro message: it ends too early".to_owned());
        }
        read.batches.extend(batch);
        if read.stopped.is_some() {
            break;
        }
    }
    Ok(read)
}

fn check_header(plan: &Plan, message: &[u8]) -> Result<(), String> {
    let id = schema_id(message).ok_or("it does not begin with a zero byte and a schema id")?;
    if plan.wire.iter().any(|w| w.id == id) { Ok(()) } else { Err(format!("schema {id} is not known for stream '{}'", plan.schema.stream)) }
}

fn build_decoder(plan: &Plan, batch_rows: usize) -> Result<Decoder, arrow::error::ArrowError> {
    let present = WireSchema::of(&plan.schema);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    for wire in &plan.wire {
        store.set(Fingerprint::Id(wire.id), AvroSchema::new(wire.json.clone()))?;
    }
    ReaderBuilder::new()
        .with_reader_schema(AvroSchema::new(present.json))
        .with_writer_schema_store(store)
        .with_active_fingerprint(Fingerprint::Id(present.id))
        .with_batch_size(batch_rows)
        .with_tz(Tz::Utc)
        .build_decoder()
}
