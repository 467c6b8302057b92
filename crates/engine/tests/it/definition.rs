//! Whole shards against [`crate::reference`]: every row of every stream, each revision in its place, on random trades around the days on
//! which clocks change, with idle decisions, random batches, snapshots and restarts.

use crate::local_time::LocalTime;
use crate::market::{SECOND, Trade, any_trades, open, rows, schema, spec};
use crate::reference::{Published, Step, fixed, sessions, sliding};
use crate::summaries::summary;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use mulgil_engine::bars::{BarsOperator, BarsSpec};
use mulgil_engine::calendar::Interval;
use mulgil_engine::decision::Decision;
use mulgil_engine::operator::Operator;
use mulgil_engine::output::{Emitted, Outputs};
use mulgil_engine::state::SharedMemStore;
use mulgil_engine::summary::SummaryOperator;
use mulgil_engine::window::WindowSpec;
use mulgil_model::time::{EpochUnit, EventTime, MICROS_MAX, MICROS_MIN, parse_micros};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::collections::BTreeMap;

const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Where clocks change, years and leap days begin and end, and times begin and end; with the zone in which that happens.
const PLACES: [(&str, &str); 17] = [
    ("America/New_York", "2024-03-10T07:00:00Z"),
    ("America/New_York", "2024-11-03T06:00:00Z"),
    ("Europe/London", "2024-03-31T01:00:00Z"),
    ("Europe/London", "2024-10-27T01:00:00Z"),
    ("Asia/Seoul", "1987-05-09T17:00:00Z"),
    ("Asia/Seoul", "1987-10-10T17:00:00Z"),
    ("Asia/Seoul", "1954-03-20T15:00:00Z"),
    ("Asia/Seoul", "1961-08-09T15:30:00Z"),
    ("Asia/Seoul", "1908-03-31T15:32:08Z"),
    ("Asia/Seoul", "2024-02-28T15:00:00Z"),
    ("UTC", "2000-03-01T00:00:00Z"),
    ("UTC", "1970-01-01T00:00:00Z"),
    ("Europe/London", "2024-01-01T00:00:00Z"),
    ("America/New_York", "2024-01-01T05:00:00Z"),
    ("Australia/Lord_Howe", "2024-04-06T15:00:00Z"),
    // Where the clock changed at one minute past midnight.
    ("America/St_Johns", "1990-10-28T02:31:00Z"),
    ("UTC", ""),
];

/// A case: trades in a place, decisions before some of them, and how they are dealt out.
#[derive(Debug, Clone)]
struct Case {
    zone: &'static str,
    trades: Vec<Trade>,
    /// (before which row, to which time)
    decisions: Vec<(usize, i64)>,
    /// (rows of a batch, what follows it: 1 a snapshot, 2 a restart from it)
    batches: Vec<(usize, u8)>,
    lateness_us: i64,
    hot_max: usize,
}

fn any_case(n_max: usize) -> impl Strategy<Value = Case> {
    let place = prop::sample::select(PLACES.to_vec()).prop_flat_map(|(zone, at)| {
        let at = match at {
            "" => prop_oneof![Just(MICROS_MIN + 3 * DAY), Just(MICROS_MAX - 300 * DAY)].boxed(),
            at => Just(parse_micros(at, EpochUnit::Micros).unwrap()).boxed(),
        };
        (Just(zone), at, prop_oneof![2 => -90 * SECOND..0, 1 => -2 * HOUR..0])
    });
    let gap = prop_oneof![3 => Just(None), 1 => (0..n_max, 1i64..200).prop_map(Some)];
    let decision = (0..n_max, prop_oneof![Just(0), -10 * SECOND..60 * SECOND, 0..30 * HOUR]);
    let lateness = prop::sample::select(vec![0i64, 1, 7 * SECOND, 90 * SECOND, HOUR]);
    let dealt = (prop::collection::vec((1usize..30, 0u8..3), 1..12), prop::sample::select(vec![0usize, 2, 1000]));
    let decided = prop::collection::vec(decision, 0..4);
    (any_trades(n_max), place, gap, decided, lateness, dealt).prop_map(|(mut trades, place, gap, decided, lateness_us, dealt)| {
        let (zone, at, before) = place;
        let (gap_at, gap_days) = gap.unwrap_or_default();
        for (i, t) in trades.iter_mut().enumerate() {
            t.at += at + before - 1_700_000_000 * SECOND + if i > gap_at { gap_days * DAY } else { 0 };
            extremes(i, t);
        }
        let n = trades.len();
        let mut decisions: Vec<_> = decided.into_iter().map(|(i, by)| (i % n, trades[i % n].at + by)).collect();
        decisions.sort_unstable();
        Case { zone, trades, decisions, batches: dealt.0, lateness_us, hot_max: dealt.1 }
    })
}

/// Ties on the second, which is where windows end; prices and quantities as large as their columns allow, zero and negative ones.
fn extremes(i: usize, t: &mut Trade) {
    match (i as i128 + t.price) % 11 {
        0..5 => t.at = t.at.div_euclid(SECOND) * SECOND,
        5 => (t.price, t.quantity) = (10i128.pow(12) - 1, 10i128.pow(14) - 1),
        6 => (t.price, t.quantity) = (1 - 10i128.pow(12), 10i128.pow(14) - 1),
        7 => (t.price, t.quantity) = (-t.price, -t.quantity),
        _ => {}
    }
}

impl Case {
    fn steps(&self) -> Vec<Step<'_>> {
        let mut steps = vec![];
        for (i, trade) in self.trades.iter().enumerate() {
            steps.extend(self.decisions.iter().filter(|(at, _)| *at == i).map(|(_, to)| Step::Advance(*to)));
            steps.push(Step::Row(i, trade));
        }
        steps.push(Step::Advance(i64::MAX));
        steps
    }

    /// The engine's word: everything emitted, in order.
    fn run(&self, operators: impl Fn() -> Vec<Box<dyn Operator>>) -> Vec<Emitted> {
        let (input, store) = (schema("trades"), SharedMemStore::default());
        let start = || open(spec(&input), operators(), &store).unwrap();
        let (mut shard, mut at, mut emitted) = (start(), 0, vec![]);
        let mut take = |outputs: Outputs| emitted.extend(outputs.into_emitted());
        let mut due = self.decisions.iter().peekable();
        for (n, then) in self.batches.iter().cycle() {
            while let Some((_, to)) = due.next_if(|(row, _)| *row == at) {
                take(shard.decide(&Decision::AdvanceWatermark { to: EventTime(*to), at_most: None }).unwrap());
            }
            let next = due.peek().map_or(self.trades.len(), |(row, _)| *row).min(at + n);
            take(shard.process(&rows(&input, at as u64, &self.trades[at..next])).unwrap());
            at = next;
            if *then > 0 {
                store.apply(shard.snapshot());
            }
            if *then == 2 {
                shard = start();
            }
            if at == self.trades.len() {
                break;
            }
        }
        take(shard.decide(&Decision::Finish).unwrap());
        assert_eq!(shard.stats().operators.n_open_windows, 0);
        store.apply(shard.snapshot());
        emitted
    }

    fn late(&self, late: &[usize]) -> Vec<Line> {
        let line =
            |t: &Trade| Line { exact: vec![Some(t.symbol.clone()), number(t.at), number(t.price), number(t.quantity)], floats: vec![] };
        late.iter().map(|i| line(&self.trades[*i])).collect()
    }

    fn sum(&self, rows: &[usize], of: impl Fn(&Trade) -> i128) -> i128 {
        rows.iter().map(|i| of(&self.trades[*i])).sum()
    }
}

/// One row of an output; floats apart, because they are compared less strictly.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    exact: Vec<Option<String>>,
    floats: Vec<Option<f64>>,
}

fn number(n: impl Into<i128>) -> Option<String> {
    Some(n.into().to_string())
}

/// The first `n_columns` of what was emitted to `stream`.
fn lines(emitted: &[Emitted], stream: &str, n_columns: usize) -> Vec<Line> {
    let mut all = vec![];
    for e in emitted.iter().filter(|e| e.schema.stream.as_str() == stream) {
        for i in 0..e.batch.num_rows() {
            let (floats, exact): (Vec<&ArrayRef>, Vec<&ArrayRef>) =
                e.batch.columns().iter().take(n_columns).partition(|c| *c.data_type() == DataType::Float64);
            let float = |c: &ArrayRef| c.is_valid(i).then(|| c.as_primitive::<Float64Type>().value(i));
            all.push(Line { exact: exact.into_iter().map(|c| cell(c, i)).collect(), floats: floats.into_iter().map(float).collect() });
        }
    }
    all
}

fn cell(column: &ArrayRef, i: usize) -> Option<String> {
    column.is_valid(i).then(|| match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(i).to_owned(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(i).to_string(),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(i).to_string(),
        _ => column.as_primitive::<Decimal128Type>().value(i).to_string(),
    })
}

/// Exact columns are equal; floats are as near as the order of additions allows.
fn assert_same(what: &str, got: &[Line], want: &[Line]) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert_eq!(g.exact, w.exact, "{what}, row {i}");
        for pair in g.floats.iter().zip(&w.floats) {
            let near = match pair {
                (Some(g), Some(w)) => (g - w).abs() <= 1e-9 * g.abs().max(w.abs()).max(1e-3),
                (g, w) => g == w,
            };
            assert!(near, "{what}, row {i}: {pair:?} in {g:?}");
        }
    }
    assert_eq!(got.len(), want.len(), "{what}: rows");
}

/// n / d, half to even.
fn rounded(n: i128, d: i128) -> Option<String> {
    if d == 0 {
        return None;
    }
    let (n, d) = (n * d.signum(), d.abs());
    let (below, rest) = (n.div_euclid(d), n.rem_euclid(d));
    let up = rest * 2 > d || (rest * 2 == d && below.rem_euclid(2) == 1);
    number(below + i128::from(up))
}

fn bar(case: &Case, p: &Published<String>) -> Line {
    let of = |i: usize| &case.trades[p.rows[i]];
    let prices = || p.rows.iter().map(|i| case.trades[*i].price);
    let volume = |side| case.sum(&p.rows, |t| if side == Some("") || t.side == side { t.quantity } else { 0 });
    let amount = case.sum(&p.rows, |t| t.price * t.quantity);
    let exact = vec![
        Some(p.key.clone()),
        number(p.start),
        number(p.end),
        number(of(0).price),
        number(prices().max().unwrap()),
        number(prices().min().unwrap()),
        number(of(p.rows.len() - 1).price),
        number(volume(Some(""))),
        number(amount),
        rounded(amount * 10_000, volume(Some(""))),
        number(p.rows.len() as i64),
        number(volume(Some("BUY"))),
        number(volume(Some("SELL"))),
        number(p.revision),
    ];
    Line { exact, floats: vec![] }
}

const INTERVALS: [(&str, i64); 10] = [
    ("1s", SECOND),
    ("15s", 15 * SECOND),
    ("1m", 60 * SECOND),
    ("5m", 300 * SECOND),
    ("30m", 1800 * SECOND),
    ("1h", HOUR),
    ("2h", 2 * HOUR),
    ("4h", 4 * HOUR),
    ("1d", DAY),
    ("7d", 7 * DAY),
];

fn check_bars(case: &Case, intervals: &[(&str, i64)]) {
    let operators = || -> Vec<Box<dyn Operator>> {
        let mut bars = BarsSpec::new(schema("trades"), intervals.iter().map(|(i, _)| Interval::parse(i).unwrap()).collect());
        (bars.zone, bars.allowed_lateness_us, bars.hot_max) = (case.zone.into(), case.lateness_us, case.hot_max);
        vec![Box::new(BarsOperator::new(&bars).unwrap())]
    };
    let emitted = case.run(operators);
    let mut clocks: Vec<_> = intervals.iter().map(|(_, us)| LocalTime::new(*us, case.zone)).collect();
    let windows_of = |t| clocks.iter_mut().map(|c| c.window(t)).enumerate().map(|(i, (start, end))| (i, start, end)).collect();
    let (published, late) = fixed(&case.steps(), case.lateness_us, |t| t.symbol.clone(), windows_of);
    for (series, (interval, _)) in intervals.iter().enumerate() {
        let want: Vec<_> = published.iter().filter(|p| p.series == series).map(|p| bar(case, p)).collect();
        assert_same(&format!("{interval} bars"), &lines(&emitted, &format!("trades.bars.{interval}"), 14), &want);
    }
    assert_same("late rows", &lines(&emitted, "trades.late", 4), &case.late(&late));
}

type Group = (String, Option<String>);

fn group(t: &Trade) -> Group {
    (t.symbol.clone(), t.side.map(str::to_owned))
}

fn summed(case: &Case, p: &Published<Group>) -> Line {
    let trades: Vec<&Trade> = p.rows.iter().map(|i| &case.trades[*i]).collect();
    let prices = || trades.iter().map(|t| t.price);
    let n = trades.len() as i128;
    let exact = vec![
        Some(p.key.0.clone()),
        p.key.1.clone(),
        number(p.start),
        number(p.end),
        number(n),
        number(trades.iter().filter(|t| t.side.is_some()).count() as i64),
        number(case.sum(&p.rows, |t| t.quantity)),
        rounded(prices().sum::<i128>() * 10_000, n),
        number(prices().min().unwrap()),
        number(prices().max().unwrap()),
        number(trades[0].price),
        trades.iter().rev().find_map(|t| t.side).map(str::to_owned),
        number(p.revision),
    ];
    // Deviations from the mean, in whole numbers: n times the mean is one.
    let sum: i128 = prices().sum();
    let squares: f64 = prices().map(|p| ((p * n - sum) as f64 / n as f64).powi(2)).sum();
    Line { exact, floats: vec![(n > 1).then(|| (squares / (n - 1) as f64).sqrt() / 100.0)] }
}

fn check_summary(case: &Case, window: &WindowSpec) {
    let spec = summary("sum", "trades", window.clone(), &["symbol", "side"], case.lateness_us, case.hot_max);
    let emitted = case.run(|| vec![Box::new(SummaryOperator::new(&spec).unwrap()) as Box<dyn Operator>]);
    let steps = case.steps();
    let (published, late) = match window {
        WindowSpec::Tumbling { interval, zone } => {
            let mut clock = LocalTime::new(Interval::parse(interval).unwrap().micros(), zone);
            fixed(&steps, case.lateness_us, group, |t| vec![clock.window(t)].into_iter().map(|(start, end)| (0, start, end)).collect())
        }
        WindowSpec::Hopping { size_us, hop_us } => fixed(&steps, case.lateness_us, group, |t| {
            let all = (t / hop_us - size_us / hop_us - 2)..=(t / hop_us + 1);
            all.map(|i| (0, i * hop_us, i * hop_us + size_us)).filter(|(_, start, end)| (*start..*end).contains(&t)).collect()
        }),
        WindowSpec::Session { gap_us } => sessions(&steps, case.lateness_us, group, *gap_us),
        WindowSpec::Sliding { range_us } => sliding(&steps, group, *range_us),
    };
    let want: Vec<_> = published.iter().map(|p| summed(case, p)).collect();
    assert_same(&format!("{window:?}"), &lines(&emitted, "trades.sum", 14), &want);
    assert_same("late rows", &lines(&emitted, "trades.sum.late", 4), &case.late(&late));
}

fn any_window() -> impl Strategy<Value = WindowSpec> {
    let zone = prop::sample::select(vec!["UTC", "America/New_York", "Asia/Seoul", "Europe/London"]);
    let interval = prop::sample::select(vec!["1s", "1m", "1h", "1d"]);
    prop_oneof![
        (interval, zone).prop_map(|(interval, zone)| WindowSpec::Tumbling { interval: interval.into(), zone: zone.into() }),
        (1i64..20, 1i64..4, 0i64..3).prop_map(|(hop, n, more)| WindowSpec::Hopping {
            hop_us: hop * SECOND,
            size_us: hop * n * SECOND + more.min(hop - 1) * SECOND
        }),
        prop::sample::select(vec![1, 2 * SECOND, 10 * SECOND, 90 * SECOND, 2 * HOUR]).prop_map(|gap_us| WindowSpec::Session { gap_us }),
        prop::sample::select(vec![1, SECOND, 10 * SECOND, 90 * SECOND]).prop_map(|range_us| WindowSpec::Sliding { range_us }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn bars_are_what_they_say(case in any_case(80), from in 0usize..8) {
        check_bars(&case, &INTERVALS[from..from + 3]);
    }

    #[test]
    fn summaries_are_what_they_say(case in any_case(80), window in any_window()) {
        check_summary(&case, &window);
    }
}

/// St John's clock went from 00:01 back to 23:01: the hour that had begun lasted a minute.
#[test]
fn an_hour_is_cut_where_the_clock_changes_within_it() {
    let change = parse_micros("1990-10-28T02:31:00Z", EpochUnit::Micros).unwrap();
    let trade = |at: i64| Trade { symbol: "A".into(), at, price: 100, quantity: 100, side: None, id: None };
    let trades: Vec<Trade> = [-61, -59, -1, 0, 1, 3_539, 3_540, 7_140].map(|s| trade(change + s * SECOND)).to_vec();
    let case = Case { zone: "America/St_Johns", trades, decisions: vec![], batches: vec![(3, 2)], lateness_us: HOUR, hot_max: 0 };
    check_bars(&case, &INTERVALS[3..6]);
    let mut hours = LocalTime::new(HOUR, case.zone);
    let minute = 60 * SECOND;
    assert_eq!(hours.window(change - 1), (change - minute, change));
    assert_eq!(hours.window(change), (change, change + HOUR - minute));
}

/// The generator reaches what the tests are about: late rows, revisions, joined sessions, both kinds of days that are not 24 hours.
#[test]
fn the_cases_are_not_all_easy() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..60 {
        let case = any_case(80).new_tree(&mut runner).unwrap().current();
        let (steps, mut days) = (case.steps(), LocalTime::new(DAY, case.zone));
        let windows_of = |t: i64| {
            let (day, minute) = (days.window(t), t.div_euclid(60 * SECOND) * 60 * SECOND);
            vec![(0, day.0, day.1), (1, minute, minute + 60 * SECOND)]
        };
        let (bars, late) = fixed(&steps, case.lateness_us, |t| t.symbol.clone(), windows_of);
        let (joined, _) = sessions(&steps, case.lateness_us, |t| t.symbol.clone(), 10 * SECOND);
        let mut count = |what, n: usize| *seen.entry(what).or_default() += u32::from(n > 0);
        count("late rows", late.len());
        count("revised minutes", bars.iter().filter(|p| p.series == 1 && p.revision > 0).count());
        count("short days", bars.iter().filter(|p| p.series == 0 && p.end - p.start < DAY).count());
        count("long days", bars.iter().filter(|p| p.end - p.start > DAY).count());
        count("revised sessions", joined.iter().filter(|p| p.revision > 0).count());
        count("decisions", case.decisions.len());
    }
    assert!(seen.len() == 6 && seen.values().all(|n| *n >= 3), "{seen:?}");
}
