//! The Avro messages of the log: read back, whichever known schema wrote them.

use super::ingest::avro_messages;
use crate::trades::{SCHEMA, batch};
use arrow::array::RecordBatch;
use mulgil_model::avro::{HEADER_BYTES, RowDecoder, RowEncoder, WireSchema};
use std::sync::LazyLock;

static WIRE: LazyLock<WireSchema> = LazyLock::new(|| WireSchema::of(&SCHEMA));

/// A row, and how it is written.
static GOOD: LazyLock<(RecordBatch, Vec<u8>)> = LazyLock::new(|| {
    let row = batch().slice(0, 1);
    let written = avro_messages(&row);
    (row, written)
});

/// One message's body behind a good header. What is read must be written as a message that reads the same.
pub fn run(input: &[u8]) {
    let message: Vec<u8> = [&[0], &WIRE.id.to_be_bytes()[..], input].concat();
    let mut decoder = RowDecoder::new(SCHEMA.clone(), &[]).expect("the stream's own schema can be read");
    match decoder.decode([message.as_slice()]) {
        Ok(rows) => {
            assert_eq!(rows.num_rows(), 1, "one message is one row");
            let written = RowEncoder::new(&SCHEMA).and_then(|mut e| e.encode(&rows)).expect("what was read can be written");
            let again =
                decoder.decode(written.iter().collect::<Vec<_>>().iter().map(|m| m.as_ref())).expect("what was written can be read");
            // Compared as text: a NaN is not equal to itself.
            assert_eq!(format!("{again:?}"), format!("{rows:?}"));
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
    let (row, written) = &*GOOD;
    assert_eq!(&decoder.decode([written.as_slice()]).expect("the decoder lives on"), row);
}

pub fn seeds() -> Vec<Vec<u8>> {
    (0..batch().num_rows()).map(|row| avro_messages(&batch().slice(row, 1))[HEADER_BYTES..].to_vec()).collect()
}

/// An older schema of the stream, as the log keeps it, then a zero byte and the body of a message that was written with it.
pub fn schema(input: &[u8]) {
    let split = input.iter().position(|b| *b == 0).unwrap_or(input.len());
    let Ok(json) = std::str::from_utf8(&input[..split]) else { return };
    let older = WireSchema { id: 7, json: json.to_owned() };
    let Ok(mut decoder) = RowDecoder::new(SCHEMA.clone(), &[older]) else { return };
    let message: Vec<u8> = [&[0, 0, 0, 0, 7], input.get(split + 1..).unwrap_or_default()].concat();
    if let Ok(rows) = decoder.decode([message.as_slice()]) {
        assert_eq!(rows.schema_ref(), SCHEMA.arrow());
    }
}

pub fn schema_seeds() -> Vec<Vec<u8>> {
    let own = WireSchema::of(&SCHEMA).json;
    let smaller = own.replace(r#"{"default":null,"name":"score","type":["null","double"]},"#, "");
    let seed = |json: &str, body: &[u8]| [json.as_bytes(), &[0], body].concat();
    vec![seed(&own, &seeds()[0]), seed(&smaller, &seeds()[1])]
}
