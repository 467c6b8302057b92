//! What may be posted or replayed as rows, in every format.

use crate::trades::{CSV, LENIENT, RECEIVED, ROWS_MAX, SCHEMA, STRICT, batch};
use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow_avro::writer::AvroWriter;
use mulgil_connect::decode::{Decoded, Decoder, Format, Plan, decode};
use mulgil_model::avro::RowEncoder;
use mulgil_model::json::write_row;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use std::io::Read;
use std::sync::Arc;

/// Rows of the seeds with one long text for all: enough to need more than one batch, and quick.
const LONG_ROWS: usize = 300;
/// The longest reason, whatever the input.
const REASON_BYTES_MAX: usize = 2_048;

pub fn json(input: &[u8]) {
    both(Format::Json, input);
}

pub fn ndjson(input: &[u8]) {
    both(Format::Ndjson, input);
    in_pieces(&STRICT, Format::Ndjson, input);
}

pub fn csv(input: &[u8]) {
    both(Format::Csv, input);
    // An open quote ends where the piece at hand ends: there pieces differ from the whole by design.
    if !input.contains(&b'"') {
        in_pieces(&LENIENT, Format::Csv, input);
    }
}

pub fn avro(input: &[u8]) {
    both(Format::Avro, input);
}

pub fn parquet(input: &[u8]) {
    both(Format::Parquet, input);
}

/// What is refused names its place; what is accepted is a good row that says the same when it is written and read again.
fn both(format: Format, input: &[u8]) {
    for plan in [&STRICT, &LENIENT] {
        let decoded = decode(plan, format, input, RECEIVED);
        check_places(&decoded, input);
        check_rows(&decoded.batch);
    }
}

fn check_places(decoded: &Decoded, input: &[u8]) {
    assert_eq!((decoded.rows.len(), decoded.lines.len()), (decoded.batch.num_rows(), decoded.batch.num_rows()));
    assert!(decoded.n_rows() <= ROWS_MAX + 1, "{} rows", decoded.n_rows());
    let mut ordinals: Vec<u64> = decoded.rows.iter().copied().chain(decoded.problems.iter().map(|p| p.row)).collect();
    ordinals.sort_unstable();
    assert!(ordinals.iter().enumerate().all(|(i, n)| i as u64 == *n), "a row is counted twice or not at all: {ordinals:?}");
    assert!(decoded.rows.is_sorted() && decoded.lines.is_sorted(), "places go backwards");
    assert!(decoded.problems.is_sorted_by_key(|p| p.row), "problems are not in order");
    for problem in &decoded.problems {
        assert!(problem.line >= 1 && problem.column >= 1, "no place: {problem:?}");
        assert!(!problem.reason.is_empty() && problem.reason.len() <= REASON_BYTES_MAX, "{} bytes of reason", problem.reason.len());
        assert!(problem.field.as_ref().is_none_or(|f| f.len() <= REASON_BYTES_MAX), "the field's name is as long as the input");
        assert!(problem.original.len() <= REASON_BYTES_MAX + 64 * input.len(), "{} bytes to repair", problem.original.len());
    }
}

pub fn check_rows(rows: &RecordBatch) {
    let text = ndjson_of(rows);
    let again = decode(&STRICT, Format::Ndjson, text.as_bytes(), RECEIVED);
    assert_eq!(again.problems, [], "a row that was accepted is refused when written by us");
    assert_eq!(&again.batch, rows, "a row is another one when written by us");
}

/// The same rows and problems come of a reader that gives a few bytes at a time, and positions only grow.
fn in_pieces(plan: &Arc<Plan>, format: Format, input: &[u8]) {
    let whole = decode(plan, format, input, RECEIVED);
    if whole.n_rows() >= ROWS_MAX {
        return;
    }
    let sum: usize = input.iter().map(|b| usize::from(*b)).sum();
    let (n_rows_max, piece_bytes) = (1 + sum % 7, 1 + sum % 61);
    let mut decoder =
        Decoder::new(plan, format, Pieces { rest: input, bytes: piece_bytes }, RECEIVED).expect("a text format can be read in pieces");
    let (mut rows, mut lines, mut problems, mut batches, mut done) = (vec![], vec![], vec![], vec![], 0);
    loop {
        let part = match decoder.next(n_rows_max) {
            Ok(Some(part)) => part,
            Ok(None) => break,
            // A header that cannot be used is an error here, and the one problem of the whole there.
            Err(e) => {
                assert!(!e.to_string().is_empty() && rows.is_empty() && whole.rows.is_empty(), "{e}");
                return;
            }
        };
        assert!((1..=n_rows_max).contains(&part.n_rows()));
        assert!(decoder.bytes_done() >= done && decoder.bytes_done() <= input.len() as u64, "the position went backwards");
        done = decoder.bytes_done();
        rows.extend(part.rows);
        lines.extend(part.lines);
        problems.extend(part.problems);
        batches.push(part.batch);
    }
    assert_eq!((&rows, &lines, &problems), (&whole.rows, &whole.lines, &whole.problems), "pieces of {piece_bytes} bytes");
    assert_eq!(concat_batches(SCHEMA.arrow(), &batches).expect("parts have one schema"), whole.batch);
    assert_eq!(decoder.bytes_done(), input.len() as u64, "bytes are left over");
}

struct Pieces<'a> {
    rest: &'a [u8],
    bytes: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.bytes.min(self.rest.len()).min(out.len());
        out[..n].copy_from_slice(&self.rest[..n]);
        self.rest = &self.rest[n..];
        Ok(n)
    }
}

pub fn ndjson_of(rows: &RecordBatch) -> String {
    let mut out = String::new();
    for row in 0..rows.num_rows() {
        write_row(&mut out, &SCHEMA, rows, row);
        out.push('\n');
    }
    out
}

pub fn ndjson_seeds() -> Vec<Vec<u8>> {
    let odd = "{\"symbol\":\"A\",\"event_time\":\"2026-11-20T00:00:00Z\",\"price\":\"1e-8\",\"quantity\":1,\"trade_id\":\"\\ud83d\\ude00\\n\",\"x\":{\"y\":[1,null]}}\r\n\n[]\n{\"symbol\":\"A\"";
    vec![ndjson_of(&batch()).into_bytes(), odd.as_bytes().to_vec(), b"\xef\xbb\xbf{}\n".to_vec()]
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    let rows = ndjson_of(&batch());
    let list = format!("[{}]", rows.trim_end().replace('\n', ",\n"));
    let first = rows.lines().next().unwrap_or_default().to_owned();
    vec![list.into_bytes(), first.into_bytes(), b" [ {\"symbol\": \"A}]\"} , 1,]x".to_vec()]
}

pub fn csv_seeds() -> Vec<Vec<u8>> {
    let open_quote = "symbol,event_time,price,quantity\nA,\"0,1,1\nB,0,1,1\r\n\"C\",\"0\",\"1\n\",1\n";
    vec![CSV.as_bytes().to_vec(), open_quote.as_bytes().to_vec(), CSV.replace('"', "").replace('\n', "\r\n").into_bytes()]
}

pub fn avro_file(rows: &RecordBatch) -> Vec<u8> {
    let mut writer = AvroWriter::new(Vec::new(), rows.schema().as_ref().clone()).expect("the schema has an avro form");
    writer.write(rows).expect("memory takes everything");
    writer.finish().expect("memory takes everything");
    writer.into_inner()
}

pub fn avro_messages(rows: &RecordBatch) -> Vec<u8> {
    let encoded = RowEncoder::new(&SCHEMA).and_then(|mut e| e.encode(rows)).expect("rows of the stream can be written");
    encoded.iter().flat_map(|m| m.to_vec()).collect()
}

pub fn avro_seeds() -> Vec<Vec<u8>> {
    let mut late_damage = avro_messages(&batch()).repeat(40);
    late_damage.truncate(late_damage.len() - 3);
    let doubling = (1..24).fold(r#"{"type":"record","name":"r0","fields":[{"name":"a","type":"null"}]}"#.to_owned(), |inner, n| {
        format!(r#"{{"type":"record","name":"r{n}","fields":[{{"name":"a","type":{inner}}},{{"name":"b","type":"r{}"}}]}}"#, n - 1)
    });
    let nulls = r#"{"type":"array","items":"null"}"#;
    let itself = r#"{"type":"record","name":"s","fields":[{"name":"n","type":["null","s"]}]}"#;
    // An array of a million nulls, in three bytes and an end.
    let million = [0x80, 0x89, 0x7a, 0];
    let mut seeds = vec![avro_file(&batch()), avro_messages(&batch()), avro_file(&batch().slice(0, 1)), late_damage];
    seeds.extend([container(&doubling, 3, &[]), container(nulls, 40, &million.repeat(40)), container(itself, 1, &[0])]);
    seeds
}

/// A container whose rows have the required columns and one more, `x`, of any type.
fn container(x: &str, n_rows: u8, x_values: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8 * 2], text.as_bytes()].concat();
    let schema = format!(
        r#"{{"type":"record","name":"t","fields":[{{"name":"symbol","type":"string"}},{{"name":"event_time","type":"long"}},{{"name":"price","type":"string"}},{{"name":"quantity","type":"string"}},{{"name":"x","type":{x}}}]}}"#
    );
    let row = [text("A"), vec![2], text("1"), text("1")].concat();
    let size = x_values.len() / usize::from(n_rows.max(1));
    let rows: Vec<u8> = (0..usize::from(n_rows)).flat_map(|i| [row.as_slice(), &x_values[i * size..][..size]].concat()).collect();
    let mut out = [b"Obj\x01\x02", text("avro.schema").as_slice()].concat();
    put_long(&mut out, schema.len());
    out.extend([schema.as_bytes(), &[0], &[7; 16]].concat());
    put_long(&mut out, usize::from(n_rows));
    put_long(&mut out, rows.len());
    out.extend([rows.as_slice(), &[7; 16]].concat());
    out
}

fn put_long(out: &mut Vec<u8>, n: usize) {
    let mut rest = n * 2;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn parquet_file(rows: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, rows.schema(), Some(properties)).expect("the schema has a parquet form");
    writer.write(rows).expect("memory takes everything");
    writer.close().expect("memory takes everything");
    out
}

pub fn parquet_seeds() -> Vec<Vec<u8>> {
    let plain = WriterProperties::builder().set_dictionary_enabled(false).set_compression(Compression::UNCOMPRESSED);
    let snappy = WriterProperties::builder().set_compression(Compression::SNAPPY).set_writer_version(WriterVersion::PARQUET_2_0);
    let zstd = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default()));
    let packings = [plain.build(), snappy.build(), zstd.build()];
    let mut seeds: Vec<Vec<u8>> = packings.into_iter().map(|p| parquet_file(&batch().slice(0, 2), p)).collect();
    // One long text for every row: a few bytes as a dictionary, and as what differs from the row before.
    let ids = StringArray::from(vec!["x".repeat(4_000); LONG_ROWS]);
    let row = take_record_batch(&batch(), &UInt32Array::from(vec![0; LONG_ROWS])).expect("the row is there");
    let columns = row.columns().iter().enumerate().map(|(i, c)| if i == 5 { Arc::new(ids.clone()) as ArrayRef } else { c.clone() });
    let long = RecordBatch::try_new(row.schema(), columns.collect()).expect("the column has its type");
    let packed = || WriterProperties::builder().set_compression(Compression::ZSTD(Default::default()));
    seeds.push(parquet_file(&long, packed().build()));
    let id = ColumnPath::from("trade_id");
    let differences = packed().set_column_dictionary_enabled(id.clone(), false).set_column_encoding(id, Encoding::DELTA_BYTE_ARRAY);
    seeds.push(parquet_file(&long, differences.build()));
    seeds
}
