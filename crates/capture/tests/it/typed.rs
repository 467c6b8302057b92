//! What changes of a table are as rows of a stream, and what they are when they are none.

use crate::envelope_arbitrary::{any_kind, datum_of};
use crate::envelope_rows::{TableOf, binary, decimal, text};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use bytes::Bytes;
use mulgil_capture::change::{Change, Op, Origin, Row, Snapshot};
use mulgil_capture::datum::Datum;
use mulgil_capture::table::{Column, Digits, Kind, Table};
use mulgil_capture::typed::{Changes, Counts, Mapper, Mapping, OnBreak, Typed};
use mulgil_model::ids::Topic;
use mulgil_model::json::write_row;
use mulgil_model::schema::{self, ColumnType, StreamKind, StreamSchema};
use mulgil_model::streams::{TradeDecimals, trades};
use mulgil_model::time::ReceiveTime;
use proptest::prelude::*;
use std::sync::Arc;

const RECEIVED: ReceiveTime = ReceiveTime(1_795_350_900_000_000);
const AT_US: i64 = 1_795_350_896_789_012;

fn stock_trades() -> TableOf {
    TableOf::new(
        "public",
        "stock_trades",
        &[
            ("id*", Kind::Int64, "bigint"),
            ("ticker!", Kind::Text, "text"),
            ("price!", Kind::Decimal(Some(Digits { precision: 15, scale: 2 })), "numeric(15,2)"),
            ("volume!", Kind::Int64, "bigint"),
            ("trade_type", Kind::Text, "text"),
            ("event_time!", Kind::TimestampTz, "timestamp with time zone"),
            ("note", Kind::Text, "text"),
        ],
    )
}

fn trade_mapping() -> Mapping {
    let extra = vec![schema::Column::optional("snapshot", ColumnType::Bool), schema::Column::optional("note", ColumnType::Text)];
    let stream = trades(Topic::new("trades").unwrap(), TradeDecimals::default(), extra).unwrap();
    let columns = [("symbol", "ticker"), ("quantity", "volume"), ("side", "trade_type"), ("trade_id", "id")];
    Mapping {
        columns: columns.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect(),
        constants: [("market".to_owned(), "KRX".to_owned())].into_iter().collect(),
        ..Mapping::new(Arc::new(stream))
    }
}

fn trade(id: i64) -> Row {
    vec![Datum::Int(id), text("005930"), decimal("71500.00"), Datum::Int(10), text("b"), Datum::TimestampTz(AT_US), Datum::Null]
}

fn with(mut row: Row, at: usize, datum: Datum) -> Row {
    row[at] = datum;
    row
}

fn shown(typed: &Typed, mapper: &Mapper) -> Vec<String> {
    let row = |i| {
        let mut out = String::new();
        write_row(&mut out, &mapper.mapping().stream, &typed.batch, i);
        out
    };
    (0..typed.batch.num_rows()).map(row).collect()
}

fn of_snapshot(change: Change, snapshot: Snapshot) -> Change {
    Change { origin: Arc::new(Origin { snapshot, ..(*change.origin).clone() }), ..change }
}

#[test]
fn trades_are_inserts_with_their_marks() {
    let table = stock_trades();
    let mut mapper = Mapper::new(trade_mapping()).unwrap();
    let changes = [
        of_snapshot(table.change(Op::Read, None, Some(trade(1))), Snapshot::Initial),
        table.change(Op::Create, None, Some(trade(2))),
        table.change(Op::Update, Some(trade(2)), Some(trade(2))),
        table.change(Op::Delete, Some(trade(2)), None),
    ];
    let typed = mapper.map(&changes, RECEIVED);
    let row = |id, snapshot| {
        format!(
            r#"{{"symbol":"005930","event_time":"2026-11-22T12:34:56.789012Z","price":71500,"quantity":10,"side":"BUY","trade_id":"{id}","market":"KRX","currency":null,"snapshot":{snapshot},"note":null}}"#
        )
    };
    assert_eq!(shown(&typed, &mapper), [row(1, true), row(2, false)]);
    assert_eq!((typed.changes, typed.skipped, typed.n_done), (vec![0, 1], Counts { updates: 1, deletes: 1, ..Counts::default() }, 4));
    assert_eq!(typed.problems, []);
}

#[test]
fn words_say_which_changes_are_rows() {
    let columns = vec![
        schema::Column::required("k", ColumnType::Text),
        schema::Column::required("at", ColumnType::Timestamp),
        schema::Column::optional("v", ColumnType::Int),
        schema::Column::required("op", ColumnType::Text),
        schema::Column::required("is_deleted", ColumnType::Bool),
        schema::Column::optional("place", ColumnType::Text),
    ];
    let stream = Arc::new(StreamSchema::new(Topic::new("states").unwrap(), StreamKind::Plain, columns, "k", "at").unwrap());
    let table = TableOf::new("public", "states", &[("id*", Kind::Int64, "bigint"), ("v", Kind::Int32, "integer")]);
    let row = |v| vec![Datum::Int(7), Datum::Int(v)];
    let changes = [
        table.change(Op::Create, None, Some(row(1))),
        table.change(Op::Update, None, Some(row(2))),
        table.change(Op::Delete, Some(row(2)), None),
        table.change(Op::Delete, Some(vec![Datum::Int(7), Datum::Unavailable]), None),
    ];
    let check = |word: &str, want: &[(&str, bool, i64)], n_problems: usize, skipped: Counts| {
        let sources = [("k", "id"), ("at", "@committed"), ("place", "@position")];
        let columns = sources.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let mapping = Mapping { changes: Changes::parse(word).unwrap(), columns, ..Mapping::new(Arc::clone(&stream)) };
        let mut mapper = Mapper::new(mapping).unwrap();
        let typed = mapper.map(&changes, RECEIVED);
        let want: Vec<_> = want
            .iter()
            .map(|(op, gone, v)| {
                format!(r#"{{"k":"7","at":"2026-11-22T04:45:38.260962Z","v":{v},"op":"{op}","is_deleted":{gone},"place":"27297960.0"}}"#)
            })
            .collect();
        assert_eq!(shown(&typed, &mapper), want, "{word}");
        assert_eq!((typed.problems.len(), typed.skipped), (n_problems, skipped), "{word}");
        if let Some(problem) = typed.problems.first() {
            assert_eq!((problem.change, problem.column.as_deref()), (3, Some("v")));
            assert!(problem.reason.contains("REPLICA IDENTITY FULL"), "{}", problem.reason);
        }
    };
    check("inserts", &[("c", false, 1)], 0, Counts { updates: 1, deletes: 2, ..Counts::default() });
    check("upserts", &[("c", false, 1), ("u", false, 2)], 0, Counts { deletes: 2, ..Counts::default() });
    check("all", &[("c", false, 1), ("u", false, 2), ("d", true, 2)], 1, Counts::default());
    assert_eq!(
        (Changes::parse("some"), Changes::default_of(StreamKind::Trade), Changes::default_of(StreamKind::Plain)),
        (None, Changes::Inserts, Changes::All)
    );
}

/// A value that was not sent is the one before, or a named problem: never null.
#[test]
fn a_value_that_was_not_sent() {
    let table = stock_trades();
    let mut mapper = Mapper::new(Mapping { changes: Changes::Upserts, ..trade_mapping() }).unwrap();
    let unsent = || with(trade(1), 6, Datum::Unavailable);
    let changes = [
        table.change(Op::Update, Some(with(trade(1), 6, text("long"))), Some(unsent())),
        table.change(Op::Update, Some(unsent()), Some(unsent())),
        table.change(Op::Update, None, Some(unsent())),
        table.change(Op::Update, Some(with(trade(1), 6, Datum::Null)), Some(unsent())),
    ];
    let typed = mapper.map(&changes, RECEIVED);
    let notes = typed.batch.column_by_name("note").unwrap().as_string::<i32>().clone();
    assert_eq!((notes.value(0), notes.is_null(1), notes.len()), ("long", true, 2));
    assert_eq!(typed.changes, [0, 3]);
    assert_eq!(typed.problems.iter().map(|p| (p.change, p.column.as_deref())).collect::<Vec<_>>(), [(1, Some("note")), (2, Some("note"))]);
}

#[test]
fn what_does_not_fit_is_named() {
    let table = stock_trades();
    let check = |at: usize, datum: Datum, column: &str, want: &str| {
        let mut mapper = Mapper::new(trade_mapping()).unwrap();
        let changes = [table.create(1, vec![]), table.change(Op::Create, None, Some(trade(2)))];
        let bad = table.change(Op::Create, None, Some(with(trade(1), at, datum)));
        let typed = mapper.map(&[bad, changes[1].clone()], RECEIVED);
        let problem = &typed.problems[0];
        assert_eq!((problem.change, problem.column.as_deref(), problem.reason.as_str()), (0, Some(column), want));
        // The bad row leaves no trace in the good one.
        assert_eq!((typed.changes.as_slice(), typed.batch.num_rows()), (&[1][..], 1));
        assert_eq!(typed.batch.column(0).as_string::<i32>().value(0), "005930");
    };
    check(1, text(""), "ticker", "must not be empty");
    check(1, text("삼성"), "ticker", "'삼성' is not a symbol: use up to 64 letters, digits and any of . - _ / : = ^ & + # @ $");
    check(1, Datum::Null, "ticker", "is required");
    check(2, decimal("0.123456789"), "price", "0.123456789 has more than 8 decimals: widen the column's scale, or send fewer decimals");
    check(2, decimal("99999999999"), "price", "99999999999 does not fit into decimal(18, 8)");
    check(2, decimal("-1"), "price", "must be greater than zero");
    check(2, Datum::Odd(Bytes::from_static(b"NaN")), "price", "'NaN' is not a number");
    check(4, text("hold"), "trade_type", "'hold' is neither BUY nor SELL, nor a spelling that the mapping knows");
    check(
        5,
        Datum::TimestampTz(RECEIVED.micros() + 300_000_001),
        "event_time",
        "2026-11-22T12:40:00.000001Z lies too far in the future of its receipt: is its unit or time zone right?",
    );
    check(5, Datum::TimestampTz(i64::MIN), "event_time", "-9223372036854775808us is outside the years 1900 to 2200: is its unit right?");
    check(
        5,
        Datum::Odd(Bytes::from_static(b"infinity")),
        "event_time",
        "'infinity' is not a time: use RFC 3339 (2026-11-21T09:00:00+09:00) or epoch milliseconds",
    );
    check(6, text(&"x".repeat(70_000)), "note", "is 70000 bytes long; a value may have 65536");
}

/// Of every kind into every type: the value exactly, or its reason.
#[test]
fn values_by_kind_and_type() {
    let d = ColumnType::Decimal { precision: 20, scale: 4 };
    let seoul = jiff::tz::TimeZone::get("Asia/Seoul").unwrap();
    let check = |kind: Kind, datum: Datum, to: ColumnType, want: Result<&str, &str>| {
        let columns = vec![
            schema::Column::required("k", ColumnType::Text),
            schema::Column::required("at", ColumnType::Timestamp),
            schema::Column::optional("v", to),
        ];
        let stream = Arc::new(StreamSchema::new(Topic::new("s").unwrap(), StreamKind::Plain, columns, "k", "at").unwrap());
        let table = TableOf::new("public", "t", &[("k*", Kind::Text, "text"), ("v", kind.clone(), "any")]);
        let columns = [("at".to_owned(), "@committed".to_owned())].into_iter().collect();
        let mapping = Mapping { changes: Changes::Upserts, columns, time_zone: Some(seoul.clone()), ..Mapping::new(stream) };
        let mut mapper = Mapper::new(mapping).unwrap();
        let typed = mapper.map(&[table.change(Op::Create, None, Some(vec![text("a"), datum.clone()]))], RECEIVED);
        let got = match (shown(&typed, &mapper).first(), typed.problems.first(), typed.breaks.first()) {
            (Some(row), None, None) => Ok(row.split_once("\"v\":").unwrap().1.trim_end_matches('}').to_owned()),
            (None, Some(problem), None) => Err(problem.reason.clone()),
            (None, None, Some(found)) => Err(found.reason.clone()),
            other => panic!("{other:?}"),
        };
        let got = got.as_deref().map_err(String::as_str);
        match (got, want) {
            (Err(got), Err(want)) => assert!(got.contains(want), "{kind:?} {to}: {got}"),
            _ => assert_eq!(got, want, "{kind:?} {datum:?} {to}"),
        }
    };
    use ColumnType::{Bool, Float, Int, Text, Timestamp};
    check(Kind::UInt64, Datum::UInt(u64::MAX), Int, Err("does not fit into 64 bits"));
    check(Kind::UInt64, Datum::UInt(5), Int, Ok("5"));
    check(Kind::UInt64, Datum::UInt(u64::MAX), Text, Ok("\"18446744073709551615\""));
    check(Kind::Decimal(None), decimal("12.0"), Int, Ok("12"));
    check(Kind::Decimal(None), decimal("12.5"), Int, Err("12.5 is not a whole number"));
    check(Kind::Decimal(None), decimal("0.1"), d, Ok("0.1"));
    check(Kind::Float64, Datum::Float64(0.1), d, Ok("0.1"));
    check(Kind::Float32, Datum::Float32(0.1), d, Ok("0.1"));
    check(Kind::Float64, Datum::Float64(1e300), d, Err("does not fit"));
    check(Kind::Float64, Datum::Float64(f64::NAN), d, Err("'NaN' is not a number"));
    check(Kind::Float64, Datum::Float64(f64::INFINITY), Float, Err("not a finite number"));
    check(Kind::Text, text("-0.5"), d, Ok("-0.5"));
    check(Kind::Int16, Datum::Int(1), Bool, Ok("true"));
    check(Kind::Int16, Datum::Int(2), Bool, Err("neither true nor false"));
    check(Kind::Bool, Datum::Bool(true), Text, Ok("\"true\""));
    check(Kind::Bool, Datum::Bool(true), Int, Err("that cannot be int"));
    check(Kind::Timestamp, Datum::Timestamp(0), Timestamp, Ok("\"1969-12-31T15:00:00Z\""));
    check(Kind::Date, Datum::Date(20_779), Timestamp, Ok("\"2026-11-21T15:00:00Z\""));
    check(Kind::Date, Datum::Date(i32::MAX), Timestamp, Err("outside the years 1900 to 2200"));
    check(Kind::Int64, Datum::Int(1_561_309_495_124), Timestamp, Ok("\"2019-06-23T17:04:55.124Z\""));
    check(Kind::Time, Datum::Time(1), Timestamp, Err("a time of the day"));
    check(Kind::Time, Datum::Time(1), Text, Ok("\"00:00:00.000001\""));
    check(Kind::Uuid, Datum::Uuid([1; 16]), Text, Ok("\"01010101-0101-0101-0101-010101010101\""));
    check(Kind::Json, Datum::Json(Bytes::from_static(b"{}")), Text, Ok("\"{}\""));
    check(Kind::Binary, binary(b"x"), Text, Err("is of a type (bytes) that cannot be text"));
    check(Kind::Array(Box::new(Kind::Text)), Datum::Array(vec![]), Text, Err("an array"));
    check(Kind::Text, Datum::Null, Int, Ok("null"));
}

fn changed(table: &TableOf, version: u32, change: impl FnOnce(&mut Vec<Column>)) -> Arc<Table> {
    let mut shape = (*table.table).clone();
    shape.version = version;
    change(&mut shape.columns);
    Arc::new(shape)
}

fn of_shape(table: &TableOf, shape: &Arc<Table>, row: Row) -> Change {
    let mut change = table.change(Op::Create, None, Some(row));
    let mulgil_capture::change::What::Row { table, .. } = &mut change.what else { unreachable!() };
    *table = Arc::clone(shape);
    change
}

#[test]
fn the_table_may_change() {
    let table = stock_trades();
    let good = table.change(Op::Create, None, Some(trade(1)));
    let check = |shape: Arc<Table>, row: Row, want: Option<&str>| {
        for on_break in [OnBreak::Stop, OnBreak::DeadLetter] {
            let mut mapper = Mapper::new(Mapping { on_break, ..trade_mapping() }).unwrap();
            let bad = of_shape(&table, &shape, row.clone());
            let changes = [good.clone(), bad.clone(), bad.clone(), good.clone()];
            let typed = mapper.map(&changes, RECEIVED);
            let words: Vec<_> = typed.breaks.iter().map(ToString::to_string).collect();
            match (want, on_break) {
                (None, _) => assert_eq!((typed.changes, typed.n_done, words.len()), (vec![0, 1, 2, 3], 4, 0)),
                (Some(want), OnBreak::Stop) => {
                    assert_eq!((words, typed.changes, typed.n_done), (vec![want.to_owned()], vec![0], 1));
                    // Asked again, it answers the same: nothing goes on over it.
                    assert_eq!(mapper.map(&changes[1..], RECEIVED).breaks.len(), 1);
                }
                (Some(want), OnBreak::DeadLetter) => {
                    assert_eq!((words, typed.changes, typed.n_done), (vec![want.to_owned()], vec![0, 3], 4));
                    assert_eq!(typed.problems.iter().map(|p| p.change).collect::<Vec<_>>(), [1, 2]);
                    assert!(mapper.map(&changes[1..], RECEIVED).breaks.is_empty());
                }
            }
        }
    };
    let added = changed(&table, 2, |c| {
        c.push(Column { name: "more".into(), kind: Kind::Binary, is_nullable: true, is_key: false, native: "bytea".into() })
    });
    check(added, [trade(2), vec![Datum::Null]].concat(), None);
    let widened = changed(&table, 2, |c| c[3].kind = Kind::Decimal(None));
    check(widened, with(trade(2), 3, decimal("10.5")), None);
    let words = |column: &str, reason: &str, target: &str| {
        format!(
            "stream 'trades' cannot take public.stock_trades as it is since version 2: column '{column}' {reason}; change the mapping of column '{target}', or the table"
        )
    };
    let without = |at: usize| {
        let mut row = trade(2);
        row.remove(at);
        (changed(&table, 2, |c| drop(c.remove(at))), row)
    };
    let (dropped, row) = without(4);
    check(dropped, row, Some(&words("trade_type", "is no longer there", "side")));
    let (dropped, row) = without(6);
    check(dropped, row, Some(&words("note", "is no longer there", "note")));
    let renamed = changed(&table, 2, |c| c[2].name = "cost".into());
    check(renamed, trade(2), Some(&words("price", "is no longer there", "price")));
    let retyped = changed(&table, 2, |c| c[2].kind = Kind::Binary);
    check(retyped, with(trade(2), 2, binary(b"1")), Some(&words("price", "is of a type (bytes) that cannot be decimal(18, 8)", "price")));
    let symbol = changed(&table, 2, |c| c[1].kind = Kind::Int32);
    check(
        symbol,
        with(trade(2), 1, Datum::Int(5930)),
        Some(&words("ticker", "is of a type (a whole number) that cannot be a symbol", "symbol")),
    );
    let local = changed(&table, 2, |c| c[5].kind = Kind::Timestamp);
    let zone = "has no time zone: name it in the mapping (timezone = \"Asia/Seoul\"), or make the column one with a zone";
    check(local, with(trade(2), 5, Datum::Timestamp(AT_US)), Some(&words("event_time", zone, "event_time")));
}

#[test]
fn mistakes_in_the_mapping_are_named() {
    let check = |change: &dyn Fn(&mut Mapping), want: &str| {
        let mut mapping = trade_mapping();
        change(&mut mapping);
        assert_eq!(Mapper::new(mapping).err().unwrap().to_string(), want);
    };
    let set = |m: &mut Mapping, column: &str, source: &str| m.columns.insert(column.to_owned(), source.to_owned());
    check(&|m| drop(set(m, "prise", "price")), "the mapping names the column 'prise', which stream 'trades' does not have");
    check(&|m| drop(set(m, "market", "venue")), "column 'market' is both a constant and mapped from a column: remove one of them");
    check(
        &|m| drop(set(m, "note", "@when")),
        "column 'note' is mapped from '@when': the words are @op, @is_deleted, @snapshot, @committed and @position",
    );
    check(&|m| drop(set(m, "price", "@committed")), "'@committed' cannot fill column 'price', which is decimal(18, 8): it is a timestamp");
    check(
        &|m| drop(m.constants.insert("price".to_owned(), "0".to_owned())),
        "the constant of column 'price' is not valid: must be greater than zero",
    );
    check(
        &|m| m.changes = Changes::All,
        "stream 'trades' takes all changes and has no column 'op' (text): add it, or choose changes = \"inserts\" or \"upserts\"",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the value, a row is the value exactly or a problem: nothing is lost between the two.
    #[test]
    fn every_change_is_a_row_or_a_problem((kind, datum) in any_kind().prop_flat_map(|k| (Just(k.clone()), datum_of(&k, true))), to in 0usize..6) {
        let types = [ColumnType::Text, ColumnType::Int, ColumnType::Decimal { precision: 38, scale: 10 }, ColumnType::Timestamp, ColumnType::Bool, ColumnType::Float];
        let columns = vec![schema::Column::required("k", ColumnType::Text), schema::Column::required("at", ColumnType::Timestamp), schema::Column::optional("v", types[to])];
        let stream = Arc::new(StreamSchema::new(Topic::new("s").unwrap(), StreamKind::Plain, columns, "k", "at").unwrap());
        let table = TableOf::new("public", "t", &[("k*", Kind::Text, "text"), ("v", kind, "any")]);
        let columns = [("at".to_owned(), "@committed".to_owned())].into_iter().collect();
        let mapping = Mapping { changes: Changes::Upserts, columns, on_break: OnBreak::DeadLetter, time_zone: Some(jiff::tz::TimeZone::UTC), ..Mapping::new(stream) };
        let mut mapper = Mapper::new(mapping).unwrap();
        let typed = mapper.map(&[table.change(Op::Create, None, Some(vec![text("a"), datum.clone()]))], RECEIVED);
        prop_assert_eq!(typed.changes.len() + typed.problems.len(), 1);
        prop_assert_eq!(typed.batch.num_rows(), typed.changes.len());
        if typed.batch.num_rows() == 1 {
            let value = typed.batch.column(2);
            prop_assert_eq!(value.is_null(0), datum == Datum::Null, "{:?}", datum);
            match (&datum, types[to]) {
                (Datum::Int(v), ColumnType::Decimal { .. }) => {
                    prop_assert_eq!(value.as_primitive::<Decimal128Type>().value(0), i128::from(*v) * 10_000_000_000);
                }
                (Datum::TimestampTz(us), ColumnType::Timestamp) => prop_assert_eq!(value.as_primitive::<TimestampMicrosecondType>().value(0), *us),
                (Datum::Text(t), ColumnType::Text) => prop_assert_eq!(value.as_string::<i32>().value(0).as_bytes(), &**t),
                _ => {}
            }
        }
    }
}
