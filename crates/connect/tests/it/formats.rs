//! The same rows in every format decode to the same columns.

use super::{RECEIVED, strict, trade_schema};
use arrow::array::RecordBatch;
use arrow_avro::writer::AvroWriter;
use expect_test::expect;
use mulgil_connect::decode::{Decoder, Format, Plan, decode};
use mulgil_model::avro::RowEncoder;
use mulgil_model::decimal;
use mulgil_model::json::write_row;
use mulgil_model::time::format_micros;
use proptest::prelude::*;
use std::fmt::Write;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Row {
    pub symbol: String,
    pub event_time: i64,
    pub price: i128,
    pub quantity: i128,
    pub side: Option<&'static str>,
    pub trade_id: Option<String>,
    pub seq: Option<i64>,
    pub block: Option<bool>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let side = prop_oneof![Just(None), Just(Some("BUY")), Just(Some("SELL"))];
    let id = proptest::option::of("[a-zA-Z0-9가 ,\"\\\\-]{1,12}");
    let seq = proptest::option::of(any::<i64>());
    let row = (
        "[A-Z0-9./-]{0,9}[A-Z0-9]",
        0i64..1_700_000_000_000_000,
        1i128..1_000_000_000_000_000_000,
        1i128..1_000_000_000_000_000_000,
        side,
        id,
        seq,
        any::<Option<bool>>(),
    );
    let row = row.prop_map(|(symbol, event_time, price, quantity, side, trade_id, seq, block)| Row {
        symbol,
        event_time,
        price,
        quantity,
        side,
        trade_id,
        seq,
        block,
    });
    proptest::collection::vec(row, 0..40)
}

pub fn to_csv(rows: &[Row]) -> String {
    let mut out = String::from("symbol,event_time,price,quantity,side,trade_id,seq,block\n");
    for r in rows {
        let id = r.trade_id.as_ref().map_or(String::new(), |id| format!("\"{}\"", id.replace('"', "\"\"")));
        let (seq, block) = (r.seq.map_or(String::new(), |v| v.to_string()), r.block.map_or(String::new(), |v| v.to_string()));
        let (price, quantity) = (decimal::format(r.price, 8), decimal::format(r.quantity, 8));
        writeln!(out, "{},{},{price},{quantity},{},{id},{seq},{block}", r.symbol, format_micros(r.event_time), r.side.unwrap_or_default())
            .unwrap();
    }
    out
}

fn batch_of(plan: &Arc<Plan>, rows: &[Row]) -> RecordBatch {
    let decoded = decode(plan, Format::Csv, to_csv(rows).as_bytes(), RECEIVED);
    assert_eq!(decoded.problems, []);
    decoded.batch
}

pub fn to_ndjson(batch: &RecordBatch) -> String {
    let mut out = String::new();
    for i in 0..batch.num_rows() {
        write_row(&mut out, &trade_schema(), batch, i);
        out.push('\n');
    }
    out
}

pub fn to_parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut out, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    out
}

fn to_avro_file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = AvroWriter::new(Vec::new(), batch.schema().as_ref().clone()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner()
}

fn to_avro_messages(batch: &RecordBatch) -> Vec<u8> {
    let rows = RowEncoder::new(&trade_schema()).unwrap().encode(batch).unwrap();
    rows.iter().flat_map(|m| m.to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_formats_agree(rows in rows()) {
        let plan = strict();
        let batch = batch_of(&plan, &rows);
        prop_assert_eq!(batch.num_rows(), rows.len());
        let ndjson = to_ndjson(&batch);
        let list = format!("[{}]", ndjson.trim_end().replace('\n', ",\n"));
        let mut inputs = vec![(Format::Ndjson, ndjson.into_bytes()), (Format::Json, list.into_bytes()), (Format::Parquet, to_parquet(&batch)), (Format::Avro, to_avro_file(&batch))];
        if !rows.is_empty() {
            inputs.push((Format::Avro, to_avro_messages(&batch)));
        }
        for (format, bytes) in inputs {
            let decoded = decode(&plan, format, &bytes, RECEIVED);
            prop_assert_eq!(&decoded.problems, &vec![], "{:?}", format);
            prop_assert_eq!(&decoded.batch, &batch, "{:?}", format);
            prop_assert_eq!(decoded.rows, (0..rows.len() as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn pieces_give_what_the_whole_gives(rows in rows(), noise in "[\",\n{}a0]{0,30}", n_rows_max in 1usize..20, chunk in 20usize..400) {
        let plan = strict();
        for format in [Format::Csv, Format::Ndjson] {
            let good = if format == Format::Csv { to_csv(&rows) } else { to_ndjson(&batch_of(&plan, &rows)) };
            // Without quotes: an open quote ends where the piece at hand ends, and that differs by design only in what one bad row takes.
            let text = format!("{good}{}\n{}", noise.replace('"', ""), if format == Format::Csv { "A,0,1,1,,,,\n" } else { "{\"symbol\":\"A\",\"event_time\":0,\"price\":1,\"quantity\":1}" });
            let whole = decode(&plan, format, text.as_bytes(), RECEIVED);
            let mut decoder = Decoder::new(&plan, format, Slow(text.as_bytes(), chunk), RECEIVED).unwrap();
            let (mut n_rows, mut lines, mut problems, mut batches) = (vec![], vec![], vec![], vec![]);
            while let Some(part) = decoder.next(n_rows_max).unwrap() {
                prop_assert!(part.n_rows() <= n_rows_max);
                n_rows.extend(part.rows);
                lines.extend(part.lines);
                problems.extend(part.problems);
                batches.push(part.batch);
            }
            prop_assert_eq!(decoder.bytes_done(), text.len() as u64);
            prop_assert_eq!(n_rows, whole.rows);
            prop_assert_eq!(lines, whole.lines);
            prop_assert_eq!(problems, whole.problems);
            prop_assert_eq!(arrow::compute::concat_batches(trade_schema().arrow(), &batches).unwrap(), whole.batch);
        }
    }

    #[test]
    fn damaged_binary_files_never_panic(rows in rows(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let plan = strict();
        let batch = batch_of(&plan, &rows);
        for (format, mut bytes) in [(Format::Parquet, to_parquet(&batch)), (Format::Avro, to_avro_file(&batch)), (Format::Avro, to_avro_messages(&batch))] {
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] = byte };
            decode(&plan, format, &bytes, RECEIVED);
        }
    }
}

/// Gives a few bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl std::io::Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.1.min(self.0.len()).min(out.len());
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

fn sample(n: usize) -> RecordBatch {
    let row = |i: usize| Row {
        symbol: format!("S{i}"),
        event_time: i as i64,
        price: 1 + i as i128,
        quantity: 1,
        side: None,
        trade_id: None,
        seq: None,
        block: None,
    };
    batch_of(&strict(), &(0..n).map(row).collect::<Vec<_>>())
}

/// Behind a damaged message nothing can be read, but what is before it is kept.
#[test]
fn a_damaged_avro_message_ends_the_run() {
    let mut bytes = to_avro_messages(&sample(3));
    let good = to_avro_messages(&sample(2)).len();
    bytes[good] = 9;
    let decoded = decode(&strict(), Format::Avro, &bytes, RECEIVED);
    assert_eq!(decoded.batch, sample(2));
    assert_eq!(decoded.problems[0].original, &bytes[good..]);
    expect![[r#"
        0 !1:1 not a readable avro message: it does not begin with a zero byte and a schema id | \tw���\u{4}S2\u{4}\u{2}\u{3}\u{2}\u{1}\0\0\0\0\0\0\0
    "#]].assert_eq(&super::decoded(&strict(), Format::Avro, &bytes[good..]));
    expect![[r#"
        0 !1:1 not a readable avro message: schema 1 is not known for stream 'trades' | \0\0\0\0\u{1}abc
    "#]]
    .assert_eq(&super::decoded(&strict(), Format::Avro, b"\x00\x00\x00\x00\x01abc"));
}

/// Columns of other writers' types: floats, seconds, naive times, and values that no trade may have.
#[test]
fn foreign_column_types() {
    use arrow::array::{ArrayRef, Float64Array, Int32Array, LargeStringArray, TimestampNanosecondArray, UInt64Array};
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("symbol", Arc::new(LargeStringArray::from(vec!["A", "B", "C D", "E"]))),
        ("event_time", Arc::new(TimestampNanosecondArray::from(vec![1_561_309_495_124_000_999, 0, 0, i64::MAX]))),
        ("price", Arc::new(Float64Array::from(vec![1.348e-05, f64::NAN, 1.0, 0.1]))),
        ("quantity", Arc::new(Int32Array::from(vec![7, 1, 1, 1]))),
        ("seq", Arc::new(UInt64Array::from(vec![None, Some(1), None, Some(u64::MAX)]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    expect![[r#"
        0 @1 {"symbol":"A","event_time":"2019-06-23T17:04:55.124Z","price":0.00001348,"quantity":7,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !2:3 'price' 'NaN' is not a finite number | {\"symbol\":\"B\",\"event_time\":\"1970-01-01T00:00:00\",\"price\":\"Na
        2 !3:1 'symbol' 'C D' is not a symbol: use letters, digits and any of . - _ / : = ^ & + # @ $ | {\"symbol\":\"C D\",\"event_time\":\"1970-01-01T00:00:00\",\"price\":\"
        3 !4:2 'event_time' time 2262-04-11T23:47:16.854775Z is outside the years 1900 to 2200: is its unit right? | {\"symbol\":\"E\",\"event_time\":\"2262-04-11T23:47:16.854775807\",\"
    "#]].assert_eq(&super::decoded(&strict(), Format::Parquet, &to_parquet(&batch)));
    let lacking = RecordBatch::try_from_iter(vec![("symbol", batch.column(0).clone())]).unwrap();
    let shown = super::decoded(&strict(), Format::Parquet, &to_parquet(&lacking));
    assert!(shown.starts_with("0 !1:1 'event_time' is required and not in the input's schema"), "{shown}");
}

#[test]
fn a_row_without_end_is_refused_in_bounded_memory() {
    let plan = super::plan(|o| o.limits.row_bytes_max = 1_000);
    let header = "symbol,event_time,price,quantity\n";
    let text = format!("{header}A,0,1,1\n\"{}\nB,0,1,1\n{}\nC,0,1,1\n", "x,".repeat(200_000), "y".repeat(300_000));
    let mut decoder = Decoder::new(&plan, Format::Csv, text.as_bytes(), RECEIVED).unwrap();
    let mut out = String::new();
    while let Some(part) = decoder.next(10).unwrap() {
        out += &super::show(&plan, &part);
    }
    expect![[r#"
        0 @2 {"symbol":"A","event_time":"1970-01-01T00:00:00Z","price":1,"quantity":1,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !3:1 the row is longer than the 1000 bytes that a row may have, or a quote is left open; these are its first bytes | \"x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x
        2 @4 {"symbol":"B","event_time":"1970-01-01T00:00:00Z","price":1,"quantity":1,"side":null,"trade_id":null,"market":null,"currency":null}
        3 !5:1 the row is longer than the 1000 bytes that a row may have, or a quote is left open; these are its first bytes | yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy
        4 @6 {"symbol":"C","event_time":"1970-01-01T00:00:00Z","price":1,"quantity":1,"side":null,"trade_id":null,"market":null,"currency":null}
    "#]].assert_eq(&out);
}

/// Every byte of a small container, wrong in several ways: refused or read, and never an endless wait for rows that are not there.
#[test]
fn every_byte_of_an_avro_container_damaged() {
    let (plan, bytes) = (strict(), to_avro_file(&sample(2)));
    for at in 0..bytes.len() {
        for byte in [0, 1, 2, 3, 4, 6, 0x7f, 0x80, 0xfe, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(2)] {
            let mut damaged = bytes.clone();
            damaged[at] = byte;
            decode(&plan, Format::Avro, &damaged, RECEIVED);
        }
        decode(&plan, Format::Avro, &bytes[..at], RECEIVED);
    }
}

#[test]
fn avro_blocks_are_what_they_claim() {
    let bytes = to_avro_file(&sample(2));
    let sync = bytes.len() - 16;
    let rows = &to_avro_messages(&sample(2))[5..];
    let first = to_avro_messages(&sample(1)).len() - 5;
    let data_bytes = first + rows.len() - first - 5;
    let block = sync - data_bytes - 2;
    assert_eq!(bytes[block], 4, "two rows, as a zig-zag number");
    let mut out = String::new();
    let mut check = |at: usize, byte: u8| {
        let mut damaged = bytes.clone();
        damaged[at] = byte;
        out.push_str(&super::decoded(&strict(), Format::Avro, &damaged));
    };
    check(block, 0);
    check(block, 2);
    check(block, 6);
    check(block, 1);
    check(block + 1, 2);
    check(sync, bytes[sync] ^ 0xff);
    expect![[r#"
        0 !1:1 not a readable avro file: block 1: 30 bytes are left behind its 0 rows | Obj\u{1}\u{4}\u{16}avro.schema�\n{\"fields\":[{\"name\":\"symbol\",\"type\":\"strin
        0 !1:1 not a readable avro file: block 1: 15 bytes are left behind its 1 rows | Obj\u{1}\u{4}\u{16}avro.schema�\n{\"fields\":[{\"name\":\"symbol\",\"type\":\"strin
        0 !1:1 not a readable avro file: block 1: row 3 of 3: it ends in the middle of a number | Obj\u{1}\u{4}\u{16}avro.schema�\n{\"fields\":[{\"name\":\"symbol\",\"type\":\"strin
        0 !1:1 not a readable avro file: block 1: a length or count of -1 | Obj\u{1}\u{4}\u{16}avro.schema�\n{\"fields\":[{\"name\":\"symbol\",\"type\":\"strin
        0 !1:1 not a readable avro file: block 1: row 1 of 2: it ends 2 bytes too early | Obj\u{1}\u{4}\u{16}avro.schema�\n{\"fields\":[{\"name\":\"symbol\",\"type\":\"strin
        0 !1:1 not a readable avro file: block 1: its sync marker is not the file's | Obj\u{1}\u{4}\u{16}avro.schema�\n{\"fields\":[{\"name\":\"symbol\",\"type\":\"strin
    "#]].assert_eq(&out);
}
