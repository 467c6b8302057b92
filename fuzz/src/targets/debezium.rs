//! Changes of one column of any type, with any value of its kind, on their way out: as Debezium's JSON, as a record's key, and into the log.

use crate::trades::RECEIVED;
use bytes::Bytes;
use mulgil_capture::change::{Change, Op, Origin, Place, Row, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::envelope::avro::{ChangeDecoder, ChangeEncoder};
use mulgil_capture::envelope::json::{Binaries, Connector, Decimals, Events, Intervals, JsonOptions, JsonWriter, Times, UnsignedBigints};
use mulgil_capture::envelope::key::push_key;
use mulgil_capture::table::{Column, Digits, Kind, Table, TableId};
use mulgil_model::position::Position;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Types that have a form of their own, as PostgreSQL and MySQL write them. A number beyond them: the input says the type, too.
const NATIVES: [&str; 38] = [
    "int",
    "bit(1)",
    "bit(12)",
    "bit varying(9)",
    "\"bit\"",
    "year",
    "oid",
    "money",
    "numeric(10,2)",
    "interval",
    "interval day to second(3)",
    "enum('BUY','it''s, so')",
    "set('a','b')",
    "time with time zone",
    "time(3) without time zone",
    "timestamp(3) without time zone",
    "timestamp(9) with time zone",
    "xml",
    "ltree",
    "tsvector",
    "public.hstore",
    "point",
    "geometry",
    "polygon",
    "geometrycollection",
    "date",
    "datetime(6)",
    "time(6)",
    "uuid",
    "json",
    "text[]",
    "interval[]",
    "numeric(10,2)[]",
    "point[]",
    "bit varying(9)[]",
    "public.hstore[]",
    "bytea",
    "bigint unsigned",
];

/// One byte each of type, options, kind and shape of the change, then the value; a type of the input's own ends with a zero byte.
pub fn run(input: &[u8]) {
    let Some(([native, options, kind, shape], rest)) = input.split_first_chunk::<4>() else { return };
    let known = NATIVES.get(usize::from(*native));
    let (native, rest) = match known {
        Some(native) => ((*native).to_owned(), rest),
        None => {
            let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
            (String::from_utf8_lossy(&rest[..end]).into_owned(), rest.get(end + 1..).unwrap_or_default())
        }
    };
    let (kind, datum) = value(*kind, rest);
    let change = change(native, kind, datum, *shape);
    goes_out(&change, json_options(*options, *shape));
    let mut key = Vec::new();
    push_key(&mut key, &change);
    assert!(key.is_empty() || serde_json::from_slice::<Vec<&RawValue>>(&key).is_ok(), "{}", String::from_utf8_lossy(&key));
    // Reading a schema is slow, and `change` does it for known types.
    if known.is_none() {
        goes_into_the_log(&change);
    }
}

/// What is written is JSON; of what is refused nothing is left.
fn goes_out(change: &Change, options: JsonOptions) {
    let (mut writer, mut events) = (JsonWriter::new(options).expect("the options are allowed"), Events::default());
    if let Err(e) = writer.write(change, RECEIVED, &mut events) {
        assert!(events.iter().next().is_none() && !e.to_string().is_empty());
        return;
    }
    let texts = events.iter().flat_map(|event| [event.key, event.value]).flatten();
    for text in texts {
        // Not a tree of it, which would take a multiple of its memory.
        let read = serde_json::from_slice::<&RawValue>(text);
        assert!(read.is_ok(), "{} is no JSON: {:?}", String::from_utf8_lossy(text), read.err());
    }
    assert!(events.iter().next().is_some(), "a change of a row is an event");
}

/// Compared as text: a NaN is not equal to itself.
fn goes_into_the_log(change: &Change) {
    let (mut encoder, mut decoder, mut written) = (ChangeEncoder::default(), ChangeDecoder::default(), Vec::new());
    if encoder.encode(change, &mut written).is_err() {
        return;
    }
    decoder.learn(encoder.wire(change)).expect("our own schema is known");
    let again = decoder.decode(&written.into()).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{change:?}"));
}

fn json_options(bits: u8, more: u8) -> JsonOptions {
    JsonOptions {
        schemas: bits & 1 == 1,
        decimals: [Decimals::Precise, Decimals::String, Decimals::Double, Decimals::Precise][usize::from(bits >> 1) % 4],
        allow_inexact_decimals: true,
        times: [Times::Adaptive, Times::AdaptiveTimeMicroseconds, Times::Connect, Times::IsoString][usize::from(bits >> 3) % 4],
        binaries: [Binaries::Bytes, Binaries::Base64, Binaries::Base64UrlSafe, Binaries::Hex][usize::from(bits >> 5) % 4],
        intervals: if bits >> 7 == 0 { Intervals::Numeric } else { Intervals::String },
        unsigned_bigints: if more & 0x80 == 0 { UnsignedBigints::Long } else { UnsignedBigints::Precise },
        transactions: more & 0x40 != 0,
        ..JsonOptions::new([Connector::Postgres, Connector::Mysql, Connector::Mariadb][usize::from(more >> 4) % 4 % 3], "shop")
    }
}

/// A kind, and a value of it, or one of the three that fit every kind.
fn value(which: u8, bytes: &[u8]) -> (Kind, Datum) {
    let number = bytes.iter().take(8).fold(0u64, |n, b| n << 8 | u64::from(*b));
    let (signed, text) = (number.cast_signed(), || Bytes::from(String::from_utf8_lossy(bytes).into_owned()));
    let digits = |precision, scale| Kind::Decimal(Some(Digits { precision, scale }));
    let items = |item: fn(&[u8]) -> Datum| Datum::Array(bytes.split(|b| *b == 0).take(100).map(item).collect());
    let (kind, datum) = match which % 20 {
        0 => (Kind::Bool, Datum::Bool(number & 1 == 1)),
        1 => (Kind::Int16, Datum::Int(i64::from(signed as i16))),
        2 => (Kind::Int32, Datum::Int(i64::from(signed as i32))),
        3 => (Kind::Int64, Datum::Int(signed)),
        4 => (Kind::UInt64, Datum::UInt(number)),
        5 => (Kind::Float32, Datum::Float32(f32::from_bits(number as u32))),
        6 => (Kind::Float64, Datum::Float64(f64::from_bits(number))),
        7 => (Kind::Decimal(None), decimal(bytes)),
        8 => (digits(10, 2), decimal(bytes)),
        9 => (digits(60, 0), decimal(bytes)),
        10 => (Kind::Text, Datum::Text(text())),
        11 => (Kind::Binary, Datum::Binary(Bytes::copy_from_slice(bytes))),
        12 => (Kind::Date, Datum::Date(signed as i32)),
        13 => (Kind::Time, Datum::Time(signed)),
        14 => (Kind::Timestamp, Datum::Timestamp(signed)),
        15 => (Kind::TimestampTz, Datum::TimestampTz(signed)),
        16 => (Kind::Uuid, Datum::Uuid(*bytes.first_chunk().unwrap_or(&[7; 16]))),
        17 => (Kind::Json, Datum::Json(text())),
        18 => (Kind::Array(Box::new(Kind::Text)), items(|b| Datum::Text(String::from_utf8_lossy(b).into_owned().into()))),
        _ => (Kind::Array(Box::new(digits(10, 2))), items(decimal)),
    };
    match which / 20 {
        0..=8 => (kind, datum),
        9 => (kind, Datum::Null),
        10 => (kind, Datum::Unavailable),
        _ => (kind, Datum::Odd(text())),
    }
}

/// Plain notation of any length: the first byte says where the point is.
fn decimal(bytes: &[u8]) -> Datum {
    let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut digits: String = rest.iter().map(|b| char::from(b'0' + b % 10)).collect();
    let at = usize::from(first >> 1) % (digits.len() + 1);
    if at > 0 && at < digits.len() {
        digits.insert(at, '.');
    }
    let digits = if digits.is_empty() { "0".to_owned() } else { digits };
    Datum::Decimal(if first & 1 == 1 { format!("-{digits}") } else { digits }.into())
}

fn change(native: String, kind: Kind, datum: Datum, shape: u8) -> Change {
    let column = |name: &str, native: &str, kind, is_key: bool| Column {
        name: name.into(),
        native: native.into(),
        kind,
        is_nullable: !is_key,
        is_key,
    };
    let is_key = shape & 8 != 0;
    let columns = vec![column("a \"b\"\n", &native, kind, is_key), column("id", "bigint", Kind::Int64, shape & 4 != 0)];
    let id = TableId { database: "shop".into(), schema: "public".into(), table: "t-물길".into() };
    let table = Arc::new(Table { id, version: 1, columns });
    let row = |first: Datum| -> Row { vec![first, Datum::Int(1)] };
    let (op, before, after) = match shape % 4 {
        0 => (Op::Create, None, Some(row(datum))),
        1 => (Op::Update, Some(row(Datum::Null)), Some(row(datum))),
        2 => (Op::Update, Some(row(datum.clone())), Some(row(datum))),
        _ => (Op::Delete, Some(row(datum)), None),
    };
    let place = Place::Postgres { database: "shop".into(), commit_lsn: 9, txid: Some(7) };
    let origin = Arc::new(Origin { committed_us: -1, snapshot: Snapshot::No, place });
    Change { op, what: What::Row { table, before, after }, position: Position::new(9, 1), origin }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let of = |native: &str, kind: u8, value: &[u8]| {
        let native = NATIVES.iter().position(|n| *n == native).expect("invariant: the types here are in the list");
        [&[native as u8, 1, kind, 0x50], value].concat()
    };
    let wkb = b"\0\0\0\0\x01\x01\0\0\0\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0";
    vec![
        of("int", 2, &[0; 8]),
        of("bit(12)", 11, b"\x01\x02"),
        of("bit varying(9)", 10, b"101010101"),
        of("money", 7, b"\x041234"),
        of("numeric(10,2)", 8, b"\x05123456"),
        of("interval", 10, b"1 year 2 mons -3 days +04:05:06.7"),
        of("enum('BUY','it''s, so')", 10, b"BUY"),
        of("time with time zone", 10, b"12:34:56.5+09:30"),
        of("time(6)", 13, &[0, 0, 0, 19, 0, 0, 0, 0]),
        of("timestamp(3) without time zone", 14, &[0, 6, 0, 0, 0, 0, 0, 0]),
        of("timestamp(9) with time zone", 15, &[255; 8]),
        of("public.hstore", 10, b"\"a\"=>\"1\", \"b \\\"\"=>NULL"),
        of("point", 10, b"(1.5,-2)"),
        of("point", 11, &wkb[4..]),
        of("geometry", 11, wkb),
        of("json", 17, b"{\"a\": 1}"),
        of("text[]", 18, b"a\0b"),
        of("numeric(10,2)[]", 19, b"\x0412\0\x0334"),
        of("bigint unsigned", 4, &[255; 8]),
        of("date", 231, b"0000-00-00"),
        [&[200, 0x1f, 10, 0xd2][..], b"set('x','y')\0x,y"].concat(),
    ]
}
