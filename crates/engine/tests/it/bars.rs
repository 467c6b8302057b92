//! Bars against the obvious computation, and their tables.

use crate::market::{SECOND, Trade, any_trades, open, parse, rows, schema, spec, table};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use expect_test::{Expect, expect};
use mulgil_engine::bars::{BarsOperator, BarsSpec};
use mulgil_engine::calendar::Interval;
use mulgil_engine::decision::Decision;
use mulgil_engine::operator::Operator;
use mulgil_engine::output::Emitted;
use mulgil_engine::state::SharedMemStore;
use mulgil_model::time::EventTime;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn operator(intervals: &[&str], lateness_us: i64) -> Vec<Box<dyn Operator>> {
    let intervals = intervals.iter().map(|i| Interval::parse(i).unwrap()).collect();
    let mut bars = BarsSpec::new(schema("trades"), intervals);
    bars.allowed_lateness_us = lateness_us;
    vec![Box::new(BarsOperator::new(&bars).unwrap())]
}

/// One batch of trades, then perhaps a decision; prints the bars of one stream.
fn check(trades: &str, lateness_us: i64, decision: Option<Decision>, stream: &str, want: Expect) {
    let schema = schema("trades");
    let mut shard = open(spec(&schema), operator(&["10s", "1m"], lateness_us), &SharedMemStore::default()).unwrap();
    let mut text = table(shard.process(&rows(&schema, 0, &parse(trades))).unwrap(), stream);
    if let Some(decision) = decision {
        text += &format!("-- {decision:?}\n{}", table(shard.decide(&decision).unwrap(), stream));
    }
    want.assert_eq(&text);
}

const MINUTE: &str = "
    1   A 100 2 B
    3   B  50 1 S
    2   A 110 1 S
    2   A 105 1
    12  A  90 4 B
    14.999 A 91 1 B
    15  A 120 1 B
    31  B  55 0 B
    70  A  99 1 S
";

#[test]
fn a_bar_is_published_when_the_watermark_reaches_its_end() {
    check(
        MINUTE,
        0,
        None,
        "trades.bars.10s",
        expect![[r#"
        A 00:00:00Z 00:00:10Z 100 110 100 105 4 415 103.75 3 2 1 0
        B 00:00:00Z 00:00:10Z 50 50 50 50 1 50 50 1 0 1 0
        A 00:00:10Z 00:00:20Z 90 120 90 120 6 571 95.166667 3 6 0 0
        B 00:00:30Z 00:00:40Z 55 55 55 55 0 0 null 1 0 0 0
    "#]],
    );
    check(
        MINUTE,
        0,
        Some(Decision::Finish),
        "trades.bars.1m",
        expect![[r#"
        A 00:00:00Z 00:01:00Z 100 120 90 120 10 986 98.6 6 8 1 0
        B 00:00:00Z 00:01:00Z 50 55 50 55 1 50 50 2 0 1 0
        -- Finish
        A 00:01:00Z 00:02:00Z 99 99 99 99 1 99 99 1 0 1 0
    "#]],
    );
    check(
        MINUTE,
        0,
        Some(Decision::AdvanceWatermark { to: EventTime(75 * SECOND), at_most: None }),
        "trades.bars.10s",
        expect![[r#"
        A 00:00:00Z 00:00:10Z 100 110 100 105 4 415 103.75 3 2 1 0
        B 00:00:00Z 00:00:10Z 50 50 50 50 1 50 50 1 0 1 0
        A 00:00:10Z 00:00:20Z 90 120 90 120 6 571 95.166667 3 6 0 0
        B 00:00:30Z 00:00:40Z 55 55 55 55 0 0 null 1 0 0 0
        -- AdvanceWatermark { to: EventTime(75000000), at_most: None }
    "#]],
    );
}

const LATE: &str = "
    1  A 100 1 B
    30 A 110 1 B
    2  A  90 1 B
    12 A 105 1 B
    3  A  95 1 B
    16 A 106 1 B
    60 A 120 1 B
    14 A  80 1 B
";

#[test]
fn a_late_row_revises_its_bar_at_once_and_a_later_one_is_put_aside() {
    check(
        LATE,
        30 * SECOND,
        None,
        "trades.bars.10s",
        expect![[r#"
        A 00:00:00Z 00:00:10Z 100 100 100 100 1 100 100 1 1 0 0
        A 00:00:00Z 00:00:10Z 100 100 90 90 2 190 95 2 2 0 1
        A 00:00:10Z 00:00:20Z 105 105 105 105 1 105 105 1 1 0 0
        A 00:00:00Z 00:00:10Z 100 100 90 95 3 285 95 3 3 0 2
        A 00:00:10Z 00:00:20Z 105 106 105 106 2 211 105.5 2 2 0 1
        A 00:00:30Z 00:00:40Z 110 110 110 110 1 110 110 1 1 0 0
    "#]],
    );
    check(
        LATE,
        30 * SECOND,
        None,
        "trades.late",
        expect![[r#"
        A 00:00:14Z 80 1 BUY null null null
    "#]],
    );
    check(
        LATE,
        0,
        None,
        "trades.late",
        expect![[r#"
        A 00:00:02Z 90 1 BUY null null null
        A 00:00:12Z 105 1 BUY null null null
        A 00:00:03Z 95 1 BUY null null null
        A 00:00:16Z 106 1 BUY null null null
        A 00:00:14Z 80 1 BUY null null null
    "#]],
    );
}

/// (symbol, start) -> what a bar says, by sorting all trades of its window.
type Reference = BTreeMap<(String, i64), (i64, [i128; 8])>;

fn reference(trades: &[(usize, &Trade)], interval_us: i64) -> Reference {
    let mut windows: BTreeMap<(String, i64), Vec<(usize, &Trade)>> = BTreeMap::new();
    for &(i, t) in trades {
        windows.entry((t.symbol.clone(), t.at.div_euclid(interval_us) * interval_us)).or_default().push((i, t));
    }
    let bar = |mut trades: Vec<(usize, &Trade)>| {
        trades.sort_by_key(|(i, t)| (t.at, *i));
        let prices = || trades.iter().map(|(_, t)| t.price);
        let volume = |side| trades.iter().filter(|(_, t)| side == Some("") || t.side == side).map(|(_, t)| t.quantity).sum();
        let amount = trades.iter().map(|(_, t)| t.price * t.quantity).sum();
        let sums = [volume(Some("")), amount, volume(Some("BUY")), volume(Some("SELL"))];
        let ohlc = [prices().next(), prices().max(), prices().min(), prices().next_back()].map(Option::unwrap);
        (trades.len() as i64, [ohlc[0], ohlc[1], ohlc[2], ohlc[3], sums[0], sums[1], sums[2], sums[3]])
    };
    windows.into_iter().map(|(key, trades)| (key, bar(trades))).collect()
}

/// The last revision of each bar.
fn latest(emitted: &[Emitted], stream: &str, revisions: &mut BTreeMap<(String, i64), Vec<i64>>) -> Reference {
    let mut bars = Reference::new();
    for e in emitted.iter().filter(|e| e.schema.stream.as_str() == stream) {
        let column = |name: &str| e.batch.column(e.schema.index_of(name).unwrap());
        for i in 0..e.batch.num_rows() {
            let key = (
                column("symbol").as_string::<i32>().value(i).to_owned(),
                column("start").as_primitive::<TimestampMicrosecondType>().value(i),
            );
            let names = ["open", "high", "low", "close", "volume", "amount", "buy_volume", "sell_volume"];
            let values = names.map(|n| column(n).as_primitive::<Decimal128Type>().value(i));
            let count = column("count").as_primitive::<Int64Type>().value(i);
            assert_eq!(column("vwap").is_null(i), values[4] == 0);
            revisions.entry(key.clone()).or_default().push(column("revision").as_primitive::<Int64Type>().value(i));
            bars.insert(key, (count, values));
        }
    }
    bars
}

/// The rows that are not late: no older than the watermark by more than the allowed lateness.
fn on_time(trades: &[Trade], lateness_us: i64) -> (Vec<(usize, &Trade)>, usize) {
    let (mut latest, mut kept) = (i64::MIN, vec![]);
    for (i, t) in trades.iter().enumerate() {
        if latest == i64::MIN || t.at >= latest - 5 * SECOND - lateness_us {
            kept.push((i, t));
        }
        latest = latest.max(t.at);
    }
    let n_late = trades.len() - kept.len();
    (kept, n_late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn equal_the_obvious_computation(trades in any_trades(300), lateness_us in prop::sample::select(vec![0, 7 * SECOND, 3600 * SECOND])) {
        let schema = schema("trades");
        let mut shard = open(spec(&schema), operator(&["1s", "5m", "1d"], lateness_us), &SharedMemStore::default()).unwrap();
        let mut emitted = shard.process(&rows(&schema, 0, &trades)).unwrap().into_emitted();
        emitted.extend(shard.decide(&Decision::Finish).unwrap().into_emitted());
        let (kept, n_late) = on_time(&trades, lateness_us);
        for (interval, us) in [("1s", SECOND), ("5m", 300 * SECOND), ("1d", 86_400 * SECOND)] {
            let mut revisions = BTreeMap::new();
            prop_assert_eq!(latest(&emitted, &format!("trades.bars.{interval}"), &mut revisions), reference(&kept, us));
            for (bar, numbers) in revisions {
                prop_assert_eq!(&numbers, &(0..numbers.len() as i64).collect::<Vec<_>>(), "revisions of {:?}", bar);
            }
        }
        prop_assert_eq!(shard.stats().operators.n_late, n_late as u64);
        prop_assert_eq!(shard.stats().operators.n_open_windows, 0);
        let late: usize = emitted.iter().filter(|e| e.schema.stream.as_str() == "trades.late").map(|e| e.batch.num_rows()).sum();
        prop_assert_eq!(late, n_late);
    }
}

#[test]
fn state_is_gone_when_its_time_is_over() {
    let schema = schema("trades");
    let store = SharedMemStore::default();
    let mut shard = open(spec(&schema), operator(&["1s", "1m"], 60 * SECOND), &store).unwrap();
    let n = 500;
    let trades: Vec<_> = (0..n).map(|i| parse(&format!("{i} S{} 100 1 B", i % 7)).remove(0)).collect();
    for (i, chunk) in trades.chunks(20).enumerate() {
        shard.process(&rows(&schema, i as u64 * 20, chunk)).unwrap();
        store.apply(shard.snapshot());
    }
    let n_entries = store.0.read().unwrap().len();
    // A minute of 1 s bars, two minutes of 1 m bars of 7 symbols, two purges' delay, the open windows, the shard's own entry.
    assert!(n_entries < 250, "{n_entries}");
    shard.decide(&Decision::Finish).unwrap();
    store.apply(shard.snapshot());
    assert_eq!(store.0.read().unwrap().len(), 2, "only the shard's own entry is left, and the one that begins the timers");
}

#[test]
fn what_cannot_be_barred_is_refused() {
    let say = |stream: &str, intervals: &[&str], zone: &str| {
        let mut spec = BarsSpec::new(schema(stream), intervals.iter().map(|i| Interval::parse(i).unwrap()).collect());
        spec.zone = zone.into();
        BarsOperator::new(&spec).map(|_| ()).unwrap_err().to_string()
    };
    expect!["bars of stream 'trades': 'Mars' is not a known time zone: use an IANA name such as Asia/Seoul, America/New_York or UTC"]
        .assert_eq(&say("trades", &["1m"], "Mars"));
    expect!["bars of stream 'trades': give 1 to 32 intervals"].assert_eq(&say("trades", &[], "UTC"));
}
