//! Our JSON beside that of the real Debezium engine, for the same changes, field by field (`testdata/debezium/README.md`).

use crate::envelope_rows::{TableOf, binary, decimal, mysql_changes, mysql_every_type, postgres_changes, postgres_every_type, text};
use mulgil_capture::change::Change;
use mulgil_capture::datum::Datum;
use mulgil_capture::envelope::json::{
    Binaries, Connector, Decimals, Events, Intervals, JsonError, JsonOptions, JsonWriter, Times, UnsignedBigints,
};
use mulgil_model::time::ReceiveTime;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const AT: ReceiveTime = ReceiveTime(1_795_322_737_896_312);

fn golden(name: &str) -> Value {
    let path = crate::own("../../testdata/debezium").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

struct Record {
    topic: String,
    key: Value,
    value: Value,
    key_schema: Value,
    value_schema: Value,
}

fn written(options: JsonOptions, changes: &[Change]) -> Vec<Record> {
    let mut writer = JsonWriter::new(options).unwrap();
    let (mut events, mut records) = (Events::default(), Vec::new());
    for change in changes {
        writer.write(change, AT, &mut events).unwrap();
        for event in events.iter() {
            let part = |bytes: Option<&[u8]>| match bytes {
                None => (Value::Null, Value::Null),
                Some(bytes) => {
                    let mut whole: Value = serde_json::from_slice(bytes).unwrap();
                    (whole["schema"].take(), whole["payload"].take())
                }
            };
            let ((key_schema, key), (value_schema, value)) = (part(event.key), part(event.value));
            records.push(Record { topic: event.topic.to_owned(), key, value, key_schema, value_schema });
        }
    }
    records
}

/// Compares but for `except`: paths of columns whose Debezium form is a loss or an invention (table in `envelope/json.rs`).
fn compare_rows(which: &str, theirs: &Value, ours: &Value, except: &[&str], more: &[&str]) {
    let (Some(theirs), Some(ours)) = (theirs.as_object(), ours.as_object()) else {
        return assert_eq!(theirs, ours, "{which}");
    };
    for (name, value) in theirs {
        if !except.contains(&name.as_str()) {
            assert_eq!(Some(value), ours.get(name), "{which}: column {name}");
        }
    }
    let names = |row: &Map<String, Value>| row.keys().cloned().collect::<BTreeSet<_>>();
    let extra: Vec<_> = names(ours).difference(&names(theirs)).cloned().collect();
    assert!(extra.iter().all(|name| more.contains(&name.as_str())), "{which}: {extra:?}");
}

/// What differs from one run to the next is compared by its type only.
fn compare_source(which: &str, theirs: &Value, ours: &Value) {
    const OF_THE_RUN: [&str; 9] = ["version", "ts_ms", "ts_us", "ts_ns", "lsn", "txId", "sequence", "pos", "row"];
    // Not known to the model, or worded otherwise.
    const OURS: [&str; 4] = ["snapshot", "query", "gtid", "server_id"];
    let (theirs, ours) = (theirs.as_object().unwrap(), ours.as_object().unwrap());
    assert_eq!(theirs.keys().collect::<BTreeSet<_>>(), ours.keys().collect::<BTreeSet<_>>(), "{which}");
    for (name, value) in theirs {
        if OF_THE_RUN.contains(&name.as_str()) {
            assert_eq!(std::mem::discriminant(value), std::mem::discriminant(&ours[name]), "{which}: source.{name}");
        } else if !OURS.contains(&name.as_str()) {
            assert_eq!(value, &ours[name], "{which}: source.{name}");
        }
    }
}

fn compare(theirs: &Value, ours: &[Record], except: &[&str], more: &[&str]) {
    let records = theirs["records"].as_array().unwrap();
    let ops = |value: &Value| value["op"].as_str().unwrap_or("tombstone").to_owned();
    let list = |n: usize, topic: &Value, value: &Value| format!("{n} {} {}", topic.as_str().unwrap(), ops(value));
    let their_list: Vec<_> = records.iter().enumerate().map(|(n, r)| list(n, &r["topic"], &r["value"])).collect();
    let our_list: Vec<_> = ours.iter().enumerate().map(|(n, r)| list(n, &json!(r.topic), &r.value)).collect();
    assert_eq!(their_list, our_list);
    for ((record, our), which) in records.iter().zip(ours).zip(&their_list) {
        assert_eq!(record["key"], our.key, "{which}");
        let their = &record["value"];
        if their.is_null() {
            assert!(our.value.is_null(), "{which}");
            continue;
        }
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(their), keys(&our.value), "{which}");
        // The default of a column stands in Debezium's `before` where the database sent nothing.
        compare_rows(&format!("{which} before"), &their["before"], &our.value["before"], &[except, &["i4"]].concat(), more);
        compare_rows(&format!("{which} after"), &their["after"], &our.value["after"], except, more);
        compare_source(which, &their["source"], &our.value["source"]);
        assert_eq!(their["message"], our.value["message"], "{which}");
        let order = |t: &Value| (t["total_order"].clone(), t["data_collection_order"].clone());
        assert_eq!(order(&their["transaction"]), order(&our.value["transaction"]), "{which}");
        assert_eq!(our.value["ts_ms"], json!(AT.micros() / 1_000), "{which}");
    }
}

fn compare_schemas(theirs: &Value, ours: &[Record], except: &[&str]) {
    let without_defaults = |schema: &Value| {
        let mut schema = schema.clone();
        strip(&mut schema, except);
        schema
    };
    for (topic, schemas) in theirs["schemas"].as_object().unwrap() {
        let strict = |r: &&Record| r.topic == *topic && !r.value.is_null() && r.value["before"].is_null();
        let ours = ours.iter().find(strict).unwrap();
        assert_eq!(without_defaults(&schemas["value"]), without_defaults(&ours.value_schema), "{topic}");
        let sorted = |schema: &Value| {
            let mut fields = schema["fields"].as_array().cloned().unwrap_or_default();
            fields.sort_by_key(|f| f["field"].to_string());
            (fields, schema["name"].clone(), schema["optional"].clone())
        };
        assert_eq!(sorted(&schemas["key"]), sorted(&ours.key_schema), "{topic}");
    }
}

fn strip(schema: &mut Value, except: &[&str]) {
    match schema {
        Value::Object(map) => {
            map.remove("default");
            map.values_mut().for_each(|v| strip(v, except));
        }
        Value::Array(list) => {
            list.retain(|f| !except.contains(&f["field"].as_str().unwrap_or_default()));
            list.iter_mut().for_each(|v| strip(v, except));
        }
        _ => {}
    }
}

fn options(connector: Connector) -> JsonOptions {
    JsonOptions { schemas: true, ..JsonOptions::new(connector, "dbz") }
}

/// Declared with a negative scale, which Debezium 3.5 reads as 2,046; of type `name`, which it loses; an array of enums, whose items it
/// says cannot be null; and zeros at the end of a numeric, which it strips.
const POSTGRES_EXCEPT: [&str; 3] = ["n3_m2", "nm", "n"];
const NOT_KNOWN_TO_DEBEZIUM: [&str; 2] = ["ln", "bx"];
const POSTGRES_SCHEMA_EXCEPT: [&str; 4] = ["n3_m2", "am", "ln", "bx"];

#[test]
fn postgres_precise_adaptive_bytes() {
    let (theirs, ours) = (golden("postgres.json"), written(options(Connector::Postgres), &postgres_changes()));
    compare(&theirs, &ours, &POSTGRES_EXCEPT, &NOT_KNOWN_TO_DEBEZIUM);
    compare_schemas(&theirs, &ours, &POSTGRES_SCHEMA_EXCEPT);
    let row = &ours.iter().find(|r| r.value["after"]["id"] == 2).unwrap().value["after"];
    assert_eq!((&row["n"]["scale"], &row["nm"], &row["n3_m2"]), (&json!(6), &json!("name"), &json!("ew==")));
}

#[test]
fn postgres_string_connect_base64() {
    let options = JsonOptions {
        decimals: Decimals::String,
        times: Times::Connect,
        binaries: Binaries::Base64,
        intervals: Intervals::String,
        transactions: true,
        tombstones: false,
        ..options(Connector::Postgres)
    };
    let (theirs, ours) = (golden("postgres-string.json"), written(options, &postgres_changes()));
    compare(&theirs, &ours, &["n3_m2", "ln", "bx"], &[]);
    compare_schemas(&theirs, &ours, &["am"]);
}

#[test]
fn postgres_double_iso_hex() {
    let options = JsonOptions {
        decimals: Decimals::Double,
        allow_inexact_decimals: true,
        times: Times::IsoString,
        binaries: Binaries::Hex,
        ..options(Connector::Postgres)
    };
    let (theirs, ours) = (golden("postgres-double.json"), written(options, &postgres_changes()));
    // 24:00:00 is the end of a day: not its beginning.
    let t6 = ours.iter().find(|r| r.value["after"]["id"] == 4).unwrap();
    assert_eq!(t6.value["after"]["t6"], "24:00:00Z");
    compare(&theirs, &ours, &["nm", "t6"], &NOT_KNOWN_TO_DEBEZIUM);
    compare_schemas(&theirs, &ours, &["am", "ln", "bx"]);
}

#[test]
fn postgres_string_micros_url_safe() {
    let options = JsonOptions {
        decimals: Decimals::String,
        times: Times::AdaptiveTimeMicroseconds,
        binaries: Binaries::Base64UrlSafe,
        ..options(Connector::Postgres)
    };
    let (theirs, ours) = (golden("postgres-micro.json"), written(options, &postgres_changes()));
    compare(&theirs, &ours, &["n3_m2", "nm", "abt"], &NOT_KNOWN_TO_DEBEZIUM);
    compare_schemas(&theirs, &ours, &["am", "ln", "bx"]);
}

/// The number above 2^63, the comma in an enum's value, the year 0, and a UUID, which Debezium loses.
const MARIADB_EXCEPT: [&str; 4] = ["i8u", "e", "y", "u"];

#[test]
fn mariadb_precise_adaptive_bytes() {
    let (theirs, ours) = (golden("mariadb.json"), written(options(Connector::Mariadb), &mysql_changes(true)));
    compare(&theirs, &ours, &MARIADB_EXCEPT, &[]);
    compare_schemas(&theirs, &ours, &[]);
    let row = &ours.iter().find(|r| r.value["after"]["id"] == 2).unwrap().value["after"];
    assert_eq!(row["u"], "01234567-89ab-cdef-0123-456789abcdef");
    assert_eq!((&row["i8u"], &row["e"]), (&json!(u64::MAX), &json!("it's, \"odd\"")));
}

#[test]
fn mariadb_string_connect_hex() {
    let options = JsonOptions {
        decimals: Decimals::String,
        times: Times::Connect,
        binaries: Binaries::Hex,
        unsigned_bigints: UnsignedBigints::Precise,
        transactions: true,
        ..options(Connector::Mariadb)
    };
    let (theirs, ours) = (golden("mariadb-string.json"), written(options, &mysql_changes(false)));
    compare(&theirs, &ours, &["e", "y", "u"], &[]);
    compare_schemas(&theirs, &ours, &[]);
}

#[test]
fn mariadb_double_iso_base64() {
    let options = JsonOptions {
        decimals: Decimals::Double,
        allow_inexact_decimals: true,
        times: Times::IsoString,
        binaries: Binaries::Base64,
        ..options(Connector::Mariadb)
    };
    let (theirs, ours) = (golden("mariadb-iso.json"), written(options, &mysql_changes(false)));
    compare(&theirs, &ours, &MARIADB_EXCEPT, &[]);
    compare_schemas(&theirs, &ours, &[]);
}

fn odd(word: &'static str) -> Datum {
    Datum::Odd(bytes::Bytes::from_static(word.as_bytes()))
}

fn odd_rows() -> Vec<(i64, Vec<(&'static str, Datum)>)> {
    let infinite = |word: &'static str| [("d", odd(word)), ("ts", odd(word)), ("tstz", odd(word)), ("ts3", odd(word))];
    vec![
        (
            2,
            [&infinite("infinity")[..], &[("f4", Datum::Float32(f32::NAN)), ("f8", Datum::Float64(f64::NAN)), ("iv", text("-1 days"))]]
                .concat(),
        ),
        (
            3,
            [
                &infinite("-infinity")[..],
                &[
                    ("f4", Datum::Float32(f32::INFINITY)),
                    ("f8", Datum::Float64(f64::NEG_INFINITY)),
                    ("iv", text("-1 mons +2 days -00:00:00.000001")),
                ],
            ]
            .concat(),
        ),
        (
            4,
            vec![
                ("d", Datum::Date(-2_440_550)),
                ("ts", Datum::Timestamp(-210_863_520_000_000_000)),
                ("tstz", Datum::TimestampTz(-210_863_520_000_000_000)),
                ("iv", text("00:00:00")),
            ],
        ),
    ]
}

/// NaN, infinities and the ends of the calendar: as Debezium where it says something true, refused where it says null or something else.
#[test]
fn odd_values() {
    let numbers = |n: Datum, n5_2: Datum| [("n", n), ("n5_2", n5_2)];
    let table = TableOf::odd_values();
    let changes: Vec<_> = odd_rows().into_iter().map(|(id, row)| table.create(id, row)).collect();
    for (file, options) in [
        ("postgres-odd.json", JsonOptions::new(Connector::Postgres, "dbz")),
        (
            "postgres-odd-string.json",
            JsonOptions {
                decimals: Decimals::String,
                times: Times::IsoString,
                intervals: Intervals::String,
                ..JsonOptions::new(Connector::Postgres, "dbz")
            },
        ),
    ] {
        let theirs = golden(file);
        let is_iso = options.times == Times::IsoString;
        let mut writer = JsonWriter::new(options).unwrap();
        let mut events = Events::default();
        for (record, change) in theirs["records"].as_array().unwrap().iter().zip(&changes) {
            writer.write(change, AT, &mut events).unwrap();
            let ours: Value = serde_json::from_slice(events.iter().next().unwrap().value.unwrap()).unwrap();
            let (their_row, our_row) = (&record["value"]["after"], &ours["after"]);
            for (name, value) in their_row.as_object().unwrap() {
                // As ISO strings, Debezium writes the end of Java's clock for an infinity; ours is the database's word.
                if is_iso && our_row[name].as_str().is_some_and(|t| t.ends_with("infinity")) {
                    continue;
                }
                assert_eq!(value, &our_row[name], "{file} {} {name}", our_row["id"]);
            }
        }
        for row in [numbers(odd("NaN"), Datum::Null), numbers(odd("-Infinity"), Datum::Null), numbers(Datum::Null, odd("NaN"))] {
            let result = writer.write(&table.create(6, row.to_vec()), AT, &mut events);
            if is_iso {
                result.unwrap();
                let ours: Value = serde_json::from_slice(events.iter().next().unwrap().value.unwrap()).unwrap();
                let (name, datum) = row.iter().find(|(_, d)| *d != Datum::Null).unwrap();
                let Datum::Odd(word) = datum else { unreachable!() };
                assert_eq!(ours["after"][name], std::str::from_utf8(word).unwrap());
            } else {
                assert!(matches!(result.unwrap_err(), JsonError::Value { .. }));
                assert_eq!(events.iter().count(), 0);
            }
        }
        let beyond = table.create(5, vec![("ts", odd("294276-12-31 23:59:59.999999"))]);
        assert_eq!(writer.write(&beyond, AT, &mut events).is_ok(), is_iso);
    }
}

#[test]
fn what_cannot_be_written_is_named() {
    assert_eq!(
        JsonWriter::new(JsonOptions { decimals: Decimals::Double, ..options(Connector::Postgres) }).err().unwrap().to_string(),
        "decimal.handling.mode = double loses digits of money: use precise or string, or say that inexact decimals are wanted"
    );
    let check = |connector, times, table: &TableOf, row: Vec<(&str, Datum)>, want: &str| {
        let mut writer = JsonWriter::new(JsonOptions { times, ..options(connector) }).unwrap();
        let mut events = Events::default();
        let error = writer.write(&table.create(9, row), AT, &mut events).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    let (pg, my) = (postgres_every_type(), mysql_every_type());
    check(Connector::Postgres, Times::Adaptive, &pg, vec![("n15_2", decimal("1.234"))], "column 'n15_2' of public.every_type");
    check(Connector::Postgres, Times::Adaptive, &pg, vec![("n15_2", decimal("1.234"))], "more decimals than its column declares");
    check(Connector::Postgres, Times::Adaptive, &pg, vec![("i8", text("x"))], "another kind than its column");
    check(Connector::Postgres, Times::Adaptive, &pg, vec![("pt", text("no point"))], "it is not a point");
    check(Connector::Postgres, Times::Adaptive, &pg, vec![("iv", text("soon"))], "it is not an interval");
    check(Connector::Mysql, Times::Connect, &my, vec![("t3", Datum::Time(-1))], "time.precision.mode");
    check(Connector::Mysql, Times::IsoString, &my, vec![("t3", Datum::Time(86_400_000_001))], "time.precision.mode");
    check(Connector::Mysql, Times::Adaptive, &my, vec![("g", binary(&[9, 9, 9, 9]))], "well-known binary");
    let mut narrow = pg.create(9, vec![]);
    let mulgil_capture::change::What::Row { after: Some(row), .. } = &mut narrow.what else { unreachable!() };
    row.pop();
    let error = JsonWriter::new(options(Connector::Postgres)).unwrap().write(&narrow, AT, &mut Events::default()).unwrap_err();
    assert!(matches!(error, JsonError::Width { .. }), "{error}");
}

/// A value that was not sent is the placeholder, or its field is missing: never null. The row before is as Debezium's consumers know it.
#[test]
fn a_value_that_was_not_sent() {
    let table = mysql_every_type();
    let unavailable: Vec<(&str, Datum)> = ["tx", "bl", "i2", "dt", "j", "d10_2"].into_iter().map(|c| (c, Datum::Unavailable)).collect();
    let mut writer = JsonWriter::new(JsonOptions::new(Connector::Mysql, "dbz")).unwrap();
    let mut events = Events::default();
    writer.write(&table.create(9, unavailable), AT, &mut events).unwrap();
    let event: Value = serde_json::from_slice(events.iter().next().unwrap().value.unwrap()).unwrap();
    let after = event["after"].as_object().unwrap();
    assert_eq!((&after["tx"], &after["j"]), (&json!("__debezium_unavailable_value"), &json!("__debezium_unavailable_value")));
    assert_eq!(after["bl"], "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==");
    // The placeholder's bytes would be read as a number.
    assert!(["i2", "dt", "d10_2"].iter().all(|c| !after.contains_key(*c)) && after.contains_key("i4"));
}
