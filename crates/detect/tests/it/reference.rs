//! Window features against a slow, obvious definition: look at all earlier rows of the key, every time.

use crate::harness::alerts_of;
use proptest::prelude::*;
use std::fmt::Write;

#[derive(Debug, Clone)]
struct Trade {
    key: usize,
    at: i64,
    price: i64,
    side: Option<usize>,
}

const SIDES: [&str; 2] = ["BUY", "SELL"];

fn trades() -> impl Strategy<Value = Vec<Trade>> {
    // Mostly forward, sometimes some seconds back, sometimes far back, often in the same second.
    let step = prop_oneof![6 => 0i64..3, 2 => -6i64..0, 1 => -40i64..0, 1 => 5i64..30];
    let trade = (0usize..2, step, 1i64..50, prop::option::of(0usize..2));
    prop::collection::vec(trade, 1..60).prop_map(|steps| {
        let mut now = 100;
        let at = |step: i64, now: &mut i64| {
            let at = (*now + step).max(0);
            *now = at.max(*now);
            at
        };
        steps.into_iter().map(|(key, step, price, side)| Trade { key, at: at(step, &mut now), price, side }).collect()
    })
}

/// The rows that row `i` looks back on: of its key, arrived before it, in the window that ends at the latest time of the key so far.
fn window(trades: &[Trade], i: usize, width: i64) -> Vec<&Trade> {
    let latest = trades[..=i].iter().filter(|t| t.key == trades[i].key).map(|t| t.at).max().unwrap();
    trades[..i].iter().filter(|t| t.key == trades[i].key && t.at > latest - width).collect()
}

fn expected(trades: &[Trade]) -> String {
    let mut out = String::new();
    for i in 0..trades.len() {
        let near = window(trades, i, 10);
        let all = window(trades, i, i64::MAX / 2);
        let last3 = &all[all.len().saturating_sub(3)..];
        let show = |v: Option<i64>| v.map_or_else(|| "unknown".to_owned(), |v| v.to_string());
        let sides: std::collections::BTreeSet<usize> = near.iter().filter_map(|t| t.side).collect();
        let latest = trades[..=i].iter().filter(|t| t.key == trades[i].key).map(|t| t.at).max().unwrap();
        let mut past: Vec<&&Trade> = all.iter().filter(|t| t.at <= latest - 10 && t.at > latest - 15).collect();
        past.sort_by_key(|t| t.at);
        let buys = near.iter().filter(|t| t.side == Some(0)).count();
        let (sum, n) = (near.iter().map(|t| t.price).sum::<i64>(), near.len());
        let extreme = show(near.iter().map(|t| t.price).min());
        let avg = if n == 0 { "unknown".to_owned() } else { round(sum as f64 / n as f64) };
        writeln!(
            out,
            "{n} {sum} {extreme} {} {} {} {} {} {buys} {avg}",
            show(last3.iter().map(|t| t.price).max()),
            last3.iter().map(|t| t.price).sum::<i64>(),
            sides.len(),
            show(past.last().map(|t| t.price)),
            show(all.last().map(|t| t.price)),
        )
        .unwrap();
    }
    out
}

fn round(x: f64) -> String {
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const CONFIG: &str = r#"
    feature.n = { stream = "trades", agg = "count", window = "10s" }
    feature.total = { stream = "trades", agg = "sum(price)", window = "10s" }
    feature.low = { stream = "trades", agg = "min(price)", window = "10s" }
    feature.high3 = { stream = "trades", agg = "max(price)", window = "last 3" }
    feature.sum3 = { stream = "trades", agg = "sum(price)", window = "last 3" }
    feature.sides = { stream = "trades", agg = "distinct(side)", window = "10s" }
    feature.past = { stream = "trades", agg = "lag(price, '10s', '5s')" }
    feature.before = { stream = "trades", agg = "lag(price)" }
    feature.buys = { stream = "trades", agg = "count", window = "10s", where = "side = 'BUY'" }
    feature.mean = { stream = "trades", agg = "avg(price)", window = "10s" }
    rule.show = { stream = "trades", when = "true", severity = "low", cooldown = "0", message = "{n} {total} {low} {high3} {sum3} {sides} {past} {before} {buys} {mean:4}" }
"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn windows_are_what_they_say(trades in trades()) {
        let table: String = trades.iter().map(|t| format!("K{} {} {} 1 {}\n", t.key, t.at, t.price, t.side.map_or("-", |s| SIDES[s]))).collect();
        prop_assert_eq!(alerts_of(CONFIG, &table, &["message"]), expected(&trades));
    }
}

/// Above 512 rows a time window goes on in buckets of 1/256: it may reach that much further back, and no further.
#[test]
fn dense_windows_stay_bounded_and_near() {
    use mulgil_detect::aggregate::cells::{Cells, Sum};
    use mulgil_detect::aggregate::extreme::Extreme;
    use mulgil_detect::aggregate::{BUCKETS, ROWS_EXACT_MAX, Window};
    let width = 2_560_000;
    let span = Window::Span { micros: width };
    let (mut cells, mut largest) = (Cells::<Sum>::default(), Extreme::default());
    let rows: Vec<(i64, i128)> = (0..20_000i64).map(|i| (i * 1_000 + (i * 7_919) % 900, i128::from(20_000 - i))).collect();
    for (i, (at, value)) in rows.iter().enumerate() {
        cells.add(*at, i as u64, Sum::of(*value), *at, span);
        largest.add(*at, i as u64, *value, *at, span);
        if i % 997 == 0 {
            let sum = |from: i64| rows[..=i].iter().filter(|(t, _)| *t > at - from).map(|(_, v)| v).sum::<i128>();
            let got = cells.total().0.to_i128().unwrap();
            assert!(got >= sum(width) && got <= sum(width + width / BUCKETS), "row {i}");
            let max = |from: i64| rows[..=i].iter().filter(|(t, _)| *t > at - from).map(|(_, v)| *v).max().unwrap();
            let got = largest.largest().unwrap().0;
            assert!(got >= max(width) && got <= max(width + width / BUCKETS), "row {i}");
        }
    }
    let mut bytes = Vec::new();
    cells.write(&mut bytes);
    assert!(bytes.len() < (ROWS_EXACT_MAX as usize + BUCKETS as usize) * 20, "{} bytes", bytes.len());
    // The window empties, and rows are kept one by one again.
    cells.advance(1_000_000_000, span);
    assert_eq!((cells.n(), cells.total().0.to_i128()), (0, Some(0)));
}
