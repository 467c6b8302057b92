//! Summaries against the obvious computation, and their tables.

use crate::market::{SECOND, Trade, any_trades, open, parse, rows, schema, spec, table};
use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use expect_test::{Expect, expect};
use mulgil_engine::aggregate::Function;
use mulgil_engine::decision::Decision;
use mulgil_engine::output::{Emitted, Outputs};
use mulgil_engine::state::SharedMemStore;
use mulgil_engine::summary::{AggregateSpec, SummaryOperator, SummarySpec};
use mulgil_engine::window::{Window, WindowSpec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const TUMBLING: fn() -> WindowSpec = || WindowSpec::Tumbling { interval: "1m".into(), zone: "Asia/Kolkata".into() };
pub const HOPPING: fn() -> WindowSpec = || WindowSpec::Hopping { size_us: 25 * SECOND, hop_us: 10 * SECOND };
pub const SESSION: fn() -> WindowSpec = || WindowSpec::Session { gap_us: 10 * SECOND };
pub const SLIDING: fn() -> WindowSpec = || WindowSpec::Sliding { range_us: 10 * SECOND };

/// Everything that can be asked of a group of trades.
pub fn summary(name: &str, stream: &str, window: WindowSpec, group_by: &[&str], lateness_us: i64, hot_max: usize) -> SummarySpec {
    let aggregate = |(name, function, column): (&str, Function, Option<&str>)| AggregateSpec {
        name: name.into(),
        function,
        column: column.map(Into::into),
    };
    let aggregates = [
        ("n", Function::Count, None),
        ("n_sides", Function::Count, Some("side")),
        ("volume", Function::Sum, Some("quantity")),
        ("mean", Function::Avg, Some("price")),
        ("low", Function::Min, Some("price")),
        ("high", Function::Max, Some("price")),
        ("spread", Function::Stddev, Some("price")),
        ("opening", Function::First, Some("price")),
        ("last_side", Function::Last, Some("side")),
    ];
    SummarySpec {
        name: name.into(),
        input: schema(stream),
        stream: schema("trades").stream.clone(),
        group_by: group_by.iter().map(|c| (*c).to_owned()).collect(),
        window,
        filter: None,
        aggregates: aggregates.map(aggregate).to_vec(),
        allowed_lateness_us: lateness_us,
        n_partitions: 1,
        hot_max,
    }
}

fn run(spec_of: &SummarySpec, trades: &[Trade]) -> [Outputs; 2] {
    let schema = schema("trades");
    let operator = SummaryOperator::new(spec_of).unwrap();
    let mut shard = open(spec(&schema), vec![Box::new(operator)], &SharedMemStore::default()).unwrap();
    let outputs = shard.process(&rows(&schema, 0, trades)).unwrap();
    let rest = shard.decide(&Decision::Finish).unwrap();
    assert_eq!(shard.stats().operators.n_open_windows, 0);
    [outputs, rest]
}

fn check(window: WindowSpec, lateness_us: i64, trades: &str, want: Expect) {
    let [outputs, rest] = run(&summary("sum", "trades", window, &["symbol"], lateness_us, 10), &parse(trades));
    want.assert_eq(&format!("{}-- finish\n{}", table(outputs, "trades.sum"), table(rest, "trades.sum")));
}

const TRADES: &str = "
    1   A 100 2 B
    3   B  50 1 S
    2   A 110 1 S
    2   A 105 1
    16  A  90 4 B
    9   A  95 1 B
    18  A  91 1 B
    40  A 120 1
    95  B  99 1 S
";

#[test]
fn tables_of_windows() {
    check(
        TUMBLING(),
        0,
        TRADES,
        expect![[r#"
        A 00:00:00Z 00:01:00Z 6 4 10 102.666667 90 120 11.518101695447331 100 BUY 0
        B 00:00:00Z 00:01:00Z 1 1 1 50 50 50 null 50 SELL 0
        -- finish
        B 00:01:00Z 00:02:00Z 1 1 1 99 99 99 null 99 SELL 0
    "#]],
    );
    check(
        HOPPING(),
        0,
        TRADES,
        expect![[r#"
        A 1969-12-31T23:59:40Z 00:00:05Z 3 2 4 105 100 110 5.0 100 SELL 0
        B 1969-12-31T23:59:40Z 00:00:05Z 1 1 1 50 50 50 null 50 SELL 0
        A 1969-12-31T23:59:50Z 00:00:15Z 3 2 4 105 100 110 5.0 100 SELL 0
        B 1969-12-31T23:59:50Z 00:00:15Z 1 1 1 50 50 50 null 50 SELL 0
        A 00:00:00Z 00:00:25Z 5 4 9 99.2 90 110 8.700574693662482 100 BUY 0
        B 00:00:00Z 00:00:25Z 1 1 1 50 50 50 null 50 SELL 0
        A 00:00:10Z 00:00:35Z 2 2 5 90.5 90 91 0.7071067811865476 90 BUY 0
        A 00:00:20Z 00:00:45Z 1 0 1 120 120 120 null 120 null 0
        A 00:00:30Z 00:00:55Z 1 0 1 120 120 120 null 120 null 0
        A 00:00:40Z 00:01:05Z 1 0 1 120 120 120 null 120 null 0
        -- finish
        B 00:01:20Z 00:01:45Z 1 1 1 99 99 99 null 99 SELL 0
        B 00:01:30Z 00:01:55Z 1 1 1 99 99 99 null 99 SELL 0
    "#]],
    );
    check(
        SLIDING(),
        0,
        TRADES,
        expect![[r#"
        A 1969-12-31T23:59:51Z 00:00:01Z 1 1 2 100 100 100 null 100 BUY 0
        A 1969-12-31T23:59:52Z 00:00:02Z 3 2 4 105 100 110 5.0 100 SELL 0
        B 1969-12-31T23:59:53Z 00:00:03Z 1 1 1 50 50 50 null 50 SELL 0
        A 00:00:06Z 00:00:16Z 1 1 4 90 90 90 null 90 BUY 0
        A 00:00:08Z 00:00:18Z 2 2 5 90.5 90 91 0.7071067811865476 90 BUY 0
        A 00:00:30Z 00:00:40Z 1 0 1 120 120 120 null 120 null 0
        -- finish
        B 00:01:25Z 00:01:35Z 1 1 1 99 99 99 null 99 SELL 0
    "#]],
    );
    check(
        SESSION(),
        0,
        TRADES,
        expect![[r#"
        A 00:00:01Z 00:00:12Z 3 2 4 105 100 110 5.0 100 SELL 0
        B 00:00:03Z 00:00:13Z 1 1 1 50 50 50 null 50 SELL 0
        A 00:00:16Z 00:00:28Z 2 2 5 90.5 90 91 0.7071067811865476 90 BUY 0
        A 00:00:40Z 00:00:50Z 1 0 1 120 120 120 null 120 null 0
        -- finish
        B 00:01:35Z 00:01:45Z 1 1 1 99 99 99 null 99 SELL 0
    "#]],
    );
}

#[test]
fn late_rows_join_sessions() {
    // 1..11 and 15..25 are published when 45 comes; 9 joins both; 26 is a session that has ended already; 44 and 52 grow the open one.
    let trades = "
        1  A 100 1 B
        15 A 101 1 B
        45 A 102 1 B
        9  A 103 1 B
        26 A 104 1 B
        44 A 105 1 B
        52 A 106 1 B
        90 A 107 1 B
    ";
    check(
        SESSION(),
        60 * SECOND,
        trades,
        expect![[r#"
        A 00:00:01Z 00:00:11Z 1 1 1 100 100 100 null 100 BUY 0
        A 00:00:15Z 00:00:25Z 1 1 1 101 101 101 null 101 BUY 0
        A 00:00:01Z 00:00:25Z 3 3 3 101.333333 100 103 1.5275252316519468 100 BUY 1
        A 00:00:26Z 00:00:36Z 1 1 1 104 104 104 null 104 BUY 0
        A 00:00:44Z 00:01:02Z 3 3 3 104.333333 102 106 2.0816659994661326 105 BUY 0
        -- finish
        A 00:01:30Z 00:01:40Z 1 1 1 107 107 107 null 107 BUY 0
    "#]],
    );
}

#[test]
fn joined_sessions_go_on_with_the_highest_revision() {
    // 1..11 and 15..25 are published, 15..26 is published again, and 9 joins them.
    let trades = "
        1  A 100 1 B
        15 A 101 1 B
        45 B 102 1 B
        16 A 103 1 B
        9  A 104 1 B
    ";
    check(
        SESSION(),
        60 * SECOND,
        trades,
        expect![[r#"
        A 00:00:01Z 00:00:11Z 1 1 1 100 100 100 null 100 BUY 0
        A 00:00:15Z 00:00:25Z 1 1 1 101 101 101 null 101 BUY 0
        A 00:00:15Z 00:00:26Z 2 2 2 102 101 103 1.4142135623730951 101 BUY 1
        A 00:00:01Z 00:00:26Z 4 4 4 102 100 104 1.8257418583505538 100 BUY 2
        -- finish
        B 00:00:45Z 00:00:55Z 1 1 1 102 102 102 null 102 BUY 0
    "#]],
    );
    // The watermark is 71: a row of second 11 is just not late, and the session that ended there is just not gone.
    let trades = "
        1  A 100 1 B
        76 B 102 1 B
        11 A 101 1 B
    ";
    check(
        SESSION(),
        60 * SECOND,
        trades,
        expect![[r#"
        A 00:00:01Z 00:00:11Z 1 1 1 100 100 100 null 100 BUY 0
        A 00:00:01Z 00:00:21Z 2 2 2 100.5 100 101 0.7071067811865476 100 BUY 1
        -- finish
        B 00:01:16Z 00:01:26Z 1 1 1 102 102 102 null 102 BUY 0
    "#]],
    );
}

#[test]
fn a_filter_chooses_rows() {
    let mut buys = summary("buys", "trades", TUMBLING(), &["symbol"], 0, 10);
    buys.filter =
        Some(Arc::new(|batch| Ok(batch.column(4).as_string::<i32>().iter().map(|s| s.map(|s| s == "BUY")).collect::<BooleanArray>())));
    let [outputs, rest] = run(&buys, &parse(TRADES));
    expect![[r#"
        A 00:00:00Z 00:01:00Z 3 3 7 93.666667 90 100 5.507570547286102 100 BUY 0
    "#]]
    .assert_eq(&format!("{}{}", table(outputs, "trades.buys"), table(rest, "trades.buys")));
}

#[test]
fn a_summary_that_makes_no_sense_is_refused() {
    let say = |change: fn(&mut SummarySpec)| {
        let mut spec = summary("sum", "trades", TUMBLING(), &["symbol"], 0, 10);
        change(&mut spec);
        SummaryOperator::new(&spec).map(|_| ()).unwrap_err().to_string()
    };
    let all = [
        say(|s| s.group_by = vec!["nope".into()]),
        say(|s| s.group_by = vec!["side".into()]),
        say(|s| (s.group_by, s.n_partitions) = (vec!["side".into()], 2)),
        say(|s| s.aggregates[2].column = Some("side".into())),
        say(|s| s.aggregates[2].column = None),
        say(|s| s.aggregates[2].name = "start".into()),
        say(|s| s.window = WindowSpec::Session { gap_us: 0 }),
        say(|s| s.window = WindowSpec::Hopping { size_us: 5, hop_us: 6 }),
        say(|s| s.name = "Sum".into()),
    ];
    expect![[r#"
        summary 'sum' of stream 'trades': stream 'trades' has no column 'nope'
        summary 'sum' of stream 'trades': group_by needs at least one text column that is never null
        summary 'sum' of stream 'trades': group_by must contain the key 'symbol', because a group's rows must be in one partition; or give the stream one partition
        summary 'sum' of stream 'trades': sum of column 'side', which is text, has no meaning
        summary 'sum' of stream 'trades': 'volume' needs a column: only count can do without
        summary 'sum' of stream 'trades': stream 'trades.sum' names the column 'start' twice
        summary 'sum' of stream 'trades': a window's gap must be longer than nothing
        summary 'sum' of stream 'trades': a hopping window needs 0 < hop <= size, and a size of at most 1000 hops
        summary 'Sum' of stream 'trades': 'trades.Sum' is not a valid stream name: use 1 to 200 of a-z, 0-9, '.', '_' and '-', not starting with '.'"#]].assert_eq(&all.join("\n"));
}

/// (symbol, side), start.
type Key = ((String, Option<String>), i64);

/// What a summary says of one window.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    end: i64,
    counts: [i64; 2],
    /// volume, mean, low, high, opening.
    decimals: [i128; 5],
    spread: Option<f64>,
    last_side: Option<String>,
}

fn line(end: i64, mut trades: Vec<(usize, &Trade)>) -> Line {
    trades.sort_by_key(|(i, t)| (t.at, *i));
    let prices: Vec<i128> = trades.iter().map(|(_, t)| t.price).collect();
    let (n, sum) = (prices.len() as i128, prices.iter().sum::<i128>());
    let mean = sum as f64 / n as f64;
    let spread = (prices.iter().map(|p| (*p as f64 - mean).powi(2)).sum::<f64>() / (n - 1) as f64).sqrt() / 100.0;
    // Four more decimals, half to even.
    let (quotient, rest) = (sum * 10_000 / n, sum * 10_000 % n);
    let up = rest * 2 > n || (rest * 2 == n && quotient % 2 == 1);
    let volume = trades.iter().map(|(_, t)| t.quantity).sum();
    Line {
        end,
        counts: [n as i64, trades.iter().filter(|(_, t)| t.side.is_some()).count() as i64],
        decimals: [volume, quotient + i128::from(up), *prices.iter().min().unwrap(), *prices.iter().max().unwrap(), prices[0]],
        spread: (n > 1).then_some(spread),
        last_side: trades.iter().rev().find_map(|(_, t)| t.side).map(str::to_owned),
    }
}

fn group(t: &Trade) -> (String, Option<String>) {
    (t.symbol.clone(), t.side.map(str::to_owned))
}

/// Every window of every group over the given trades.
fn reference(trades: &[(usize, &Trade)], window: &WindowSpec) -> BTreeMap<Key, Line> {
    let mut groups: BTreeMap<_, Vec<(usize, &Trade)>> = BTreeMap::new();
    trades.iter().for_each(|(i, t)| groups.entry(group(t)).or_default().push((*i, t)));
    let mut lines = BTreeMap::new();
    for (group, trades) in groups {
        let times: BTreeSet<i64> = trades.iter().map(|(_, t)| t.at).collect();
        for w in windows(&times, window) {
            let inside = |t: &Trade| w.contains(t.at) || (t.at == w.end && matches!(window, WindowSpec::Sliding { .. }));
            let inside: Vec<_> = trades.iter().filter(|(_, t)| inside(t)).copied().collect();
            lines.insert((group.clone(), w.start), line(w.end, inside));
        }
    }
    lines
}

fn windows(times: &BTreeSet<i64>, window: &WindowSpec) -> BTreeSet<Window> {
    let mut windows: BTreeSet<Window> = BTreeSet::new();
    let mut session: Option<Window> = None;
    for &t in times {
        match window {
            // India's minutes are UTC's minutes.
            WindowSpec::Tumbling { .. } => {
                windows.extend([Window { start: t / (60 * SECOND) * 60 * SECOND, end: (t / (60 * SECOND) + 1) * 60 * SECOND }])
            }
            WindowSpec::Hopping { size_us, hop_us } => {
                let starts = (0..10).map(|i| (t / hop_us - i) * hop_us);
                windows.extend(starts.map(|start| Window { start, end: start + size_us }).filter(|w| w.contains(t)));
            }
            WindowSpec::Sliding { range_us } => windows.extend([Window { start: t - range_us, end: t }]),
            WindowSpec::Session { gap_us } => {
                let w = Window { start: t, end: t + gap_us };
                session = match session {
                    Some(s) if s.end >= t => Some(s.cover(&w)),
                    s => {
                        windows.extend(s);
                        Some(w)
                    }
                };
            }
        }
    }
    windows.extend(session);
    windows
}

/// The last revision of each line.
fn latest(emitted: &[Emitted]) -> BTreeMap<Key, Line> {
    let mut lines: BTreeMap<Key, (Line, i64)> = BTreeMap::new();
    for e in emitted.iter().filter(|e| e.schema.stream.as_str() == "trades.sum") {
        let column = |name: &str| e.batch.column(e.schema.index_of(name).unwrap());
        for i in 0..e.batch.num_rows() {
            let text = |name: &str| column(name).is_valid(i).then(|| column(name).as_string::<i32>().value(i).to_owned());
            let time = |name: &str| column(name).as_primitive::<TimestampMicrosecondType>().value(i);
            let int = |name: &str| column(name).as_primitive::<Int64Type>().value(i);
            let line = Line {
                end: time("event_time"),
                counts: ["n", "n_sides"].map(int),
                decimals: ["volume", "mean", "low", "high", "opening"].map(|n| column(n).as_primitive::<Decimal128Type>().value(i)),
                spread: column("spread").is_valid(i).then(|| column("spread").as_primitive::<Float64Type>().value(i)),
                last_side: text("last_side"),
            };
            let key = ((text("symbol").unwrap(), text("side")), time("start"));
            if let Some((_, revision)) = lines.insert(key, (line, int("revision"))) {
                assert!(revision < int("revision"), "revisions grow");
            }
        }
    }
    lines.into_iter().map(|(key, (line, _))| (key, line)).collect()
}

fn on_time(trades: &[Trade], lateness_us: i64) -> Vec<(usize, &Trade)> {
    let mut latest = i64::MIN;
    let kept = trades.iter().enumerate().filter(|(_, t)| {
        let watermark = latest.saturating_sub(5 * SECOND + lateness_us);
        latest = latest.max(t.at);
        t.at >= watermark
    });
    kept.collect()
}

fn without_spread(line: &Line) -> Line {
    Line { spread: None, ..line.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn equal_the_obvious_computation(
        trades in any_trades(200),
        window in prop::sample::select(vec![TUMBLING(), HOPPING(), SESSION(), SLIDING()]),
        lateness_us in prop::sample::select(vec![0, 7 * SECOND, 3600 * SECOND]),
    ) {
        let [outputs, rest] = run(&summary("sum", "trades", window.clone(), &["symbol", "side"], lateness_us, 5), &trades);
        let emitted: Vec<_> = [outputs, rest].into_iter().flat_map(Outputs::into_emitted).collect();
        let kept = on_time(&trades, if matches!(window, WindowSpec::Sliding { .. }) { 0 } else { lateness_us });
        let (mut got, want) = (latest(&emitted), reference(&kept, &window));
        if matches!(window, WindowSpec::Session { .. }) {
            // Sessions that were joined into earlier ones stay as they were published; they lie inside of the joined ones.
            let joined: Vec<_> = got.keys().filter(|key| !want.contains_key(key)).cloned().collect();
            for key in joined {
                let old = got.remove(&key).unwrap();
                prop_assert!(want.iter().any(|((group, start), line)| *group == key.0 && *start < key.1 && old.end <= line.end));
            }
        }
        let spreads = got.values().zip(want.values()).map(|(g, w)| (g.spread, w.spread));
        for (g, w) in spreads {
            prop_assert!(g == w || (g.unwrap() - w.unwrap()).abs() < 1e-6, "{g:?} {w:?}");
        }
        let plain = |lines: &BTreeMap<Key, Line>| lines.iter().map(|(k, l)| (k.clone(), without_spread(l))).collect::<Vec<_>>();
        prop_assert_eq!(plain(&got), plain(&want));
        let n_late: usize = emitted.iter().filter(|e| e.schema.stream.as_str() == "trades.sum.late").map(|e| e.batch.num_rows()).sum();
        prop_assert_eq!(n_late, trades.len() - kept.len());
    }
}
