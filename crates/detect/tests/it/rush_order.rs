//! The rush-order detector against its definition (detection.md, M1): for every trade, count all earlier trades of the symbol again.

use crate::harness::{START, run, trade_rows, trade_schema};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use mulgil_detect::detectors::{DetectorConfig, build};
use proptest::prelude::*;

/// Seconds per bucket, buckets of the window and of the price window, and the limits.
#[derive(Debug, Clone)]
struct Settings {
    bucket: i64,
    window: i64,
    prices: i64,
    min_obs: i64,
    z_min: f64,
    count_min: usize,
    ratio: f64,
    floor: f64,
    cooldown_ms: i64,
}

#[derive(Debug, Clone)]
struct Trade {
    symbol: usize,
    ms: i64,
    cents: i64,
    buy: bool,
    backfill: bool,
}

/// A symbol without trades for this many windows and price windows is forgotten.
const IDLE_WINDOWS: i64 = 7;

impl Settings {
    fn toml(&self) -> DetectorConfig {
        let Self { bucket, min_obs, z_min, count_min, ratio, floor, cooldown_ms, .. } = self;
        let text = format!(
            "name = 'pumps'\nstream = 'trades'\ntype = 'rush_order'\nbucket = '{bucket}s'\nwindow = '{}s'\nprice_window = '{}s'\nmin_obs = {min_obs}\n\
             z_min = {z_min}\ncount_min = {count_min}\nprice_ratio = {ratio}\nsigma_floor = {floor}\ncooldown = '{cooldown_ms}ms'\n",
            bucket * self.window,
            bucket * self.prices
        );
        toml::from_str(&text).unwrap()
    }

    fn bucket_of(&self, t: &Trade) -> i64 {
        (START / 1000 + t.ms).div_euclid(self.bucket * 1000)
    }

    /// The rush orders of a bucket: buys that share their millisecond with another.
    fn rush_orders(&self, known: &[&Trade], bucket: i64) -> usize {
        let shares = |t: &Trade| known.iter().filter(|o| o.buy && o.ms == t.ms).count() > 1;
        known.iter().filter(|t| t.buy && self.bucket_of(t) == bucket && shares(t)).count()
    }

    /// Whether the trade that came last, of all that are known of its symbol, makes a burst; and of how many rush orders.
    fn burst(&self, known: &[&Trade], alerted: Option<i64>) -> Option<usize> {
        let trade = known.last().unwrap();
        let present = known.iter().map(|t| self.bucket_of(t)).max().unwrap();
        let watched = present - self.bucket_of(known[0]);
        let n = self.rush_orders(known, present);
        let cooling = alerted.is_some_and(|last| trade.ms - last < self.cooldown_ms);
        if n == 0 || n < self.count_min || watched < self.min_obs || self.bucket_of(trade) < present || cooling {
            return None;
        }
        let counts: Vec<f64> = (1..=watched.min(self.window)).map(|back| self.rush_orders(known, present - back) as f64).collect();
        // Rush orders of late trades in buckets before the first trade count, though the buckets do not.
        let before: Vec<f64> = (watched + 1..=self.window).map(|back| self.rush_orders(known, present - back) as f64).collect();
        let n_buckets = counts.len() as f64;
        let all = || counts.iter().chain(&before);
        let mean = all().sum::<f64>() / n_buckets;
        let variance = all().map(|c| c * c).sum::<f64>() / n_buckets - mean * mean;
        let z = (n as f64 - mean) / variance.max(0.0).sqrt().max(self.floor);
        let prices: Vec<i64> = known.iter().filter(|t| self.bucket_of(t) > present - self.prices).map(|t| t.cents).collect();
        let price_mean = prices.iter().sum::<i64>() as f64 / prices.len() as f64;
        (z > self.z_min && trade.cents as f64 > self.ratio * price_mean).then_some(n)
    }

    /// (row, rush orders) of every alert.
    fn expected(&self, trades: &[Trade]) -> Vec<(usize, usize)> {
        let idle_ms = (self.bucket * (self.window + self.prices) * IDLE_WINDOWS * 1000).max(self.cooldown_ms);
        let (mut alerts, mut begins, mut alerted) = (vec![], [0usize; 3], [None; 3]);
        for (i, trade) in trades.iter().enumerate() {
            let watermark = trades[..i].iter().map(|t| t.ms).max().map(|ms| ms - 5_000);
            let known = |from: usize, to: usize| trades[from..to].iter().filter(|t| t.symbol == trade.symbol).collect::<Vec<_>>();
            let latest = known(begins[trade.symbol], i).iter().map(|t| t.ms).max();
            if latest.zip(watermark).is_some_and(|(latest, w)| w - latest > idle_ms) {
                (begins[trade.symbol], alerted[trade.symbol]) = (i, None);
            }
            let burst = self.burst(&known(begins[trade.symbol], i + 1), alerted[trade.symbol]);
            if let Some(n) = burst.filter(|_| !trade.backfill) {
                alerted[trade.symbol] = Some(trade.ms);
                alerts.push((i, n));
            }
        }
        alerts
    }
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let limits = (
        prop::sample::select(vec![0.71, 2.013, 4.07]),
        0usize..6,
        prop::sample::select(vec![0.5013, 1.0307]),
        prop::sample::select(vec![0.5, 1.0, 2.7]),
    );
    (1i64..20, 2i64..7, 1i64..5, 1i64..7, limits, prop::sample::select(vec![1i64, 1_500, 60_000])).prop_map(
        |(bucket, window, prices, min_obs, limits, cooldown_ms)| {
            let (z_min, count_min, ratio, floor) = limits;
            Settings { bucket, window, prices, min_obs: min_obs.min(window), z_min, count_min, ratio, floor, cooldown_ms }
        },
    )
}

fn any_trades() -> impl Strategy<Value = Vec<Trade>> {
    let step =
        prop_oneof![12 => Just(0i64), 4 => 1i64..4, 4 => 100i64..4_000, 2 => -3_000i64..0, 1 => 5_000i64..40_000, 1 => Just(1_000_000)];
    let trade = (prop_oneof![5 => Just(0usize), 1 => 1usize..3], step, 50i64..400, 0u8..4, 0u8..15);
    prop::collection::vec(trade, 1..120).prop_map(|steps| {
        let mut now = 20_000;
        let mut trade = |(symbol, step, cents, sell, mark): (usize, i64, i64, u8, u8)| {
            let ms = now + step;
            now = now.max(ms);
            Trade { symbol, ms, cents, buy: sell > 0, backfill: mark == 0 }
        };
        steps.into_iter().map(&mut trade).collect()
    })
}

fn check(settings: &Settings, trades: &[Trade], cuts: &[usize], restart: bool) -> usize {
    let line = |t: &Trade| {
        let (side, mark) = (if t.buy { "BUY" } else { "SELL" }, if t.backfill { "backfill" } else { "-" });
        format!("S{} {}.{:03} {}.{:02} 1 {side} {mark}\n", t.symbol, t.ms / 1000, t.ms % 1000, t.cents / 100, t.cents % 100)
    };
    let (schema, config, rows) = (trade_schema(), settings.toml(), trade_rows(&trades.iter().map(line).collect::<String>()));
    let mut got = vec![];
    for batch in run(&|| build(&config, &schema).unwrap(), &rows, cuts, restart) {
        let offsets = batch.column_by_name("input_offset").unwrap().as_primitive::<Int64Type>().clone();
        let evidence = batch.column_by_name("evidence").unwrap().as_string::<i32>().clone();
        for i in 0..batch.num_rows() {
            let evidence: serde_json::Value = serde_json::from_str(evidence.value(i)).unwrap();
            got.push((offsets.value(i) as usize - 100, evidence["rush_orders"].as_u64().unwrap() as usize));
        }
    }
    let want = settings.expected(trades);
    assert_eq!(got, want);
    want.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn is_what_the_paper_says(settings in any_settings(), trades in any_trades(), mut cuts in prop::collection::vec(0usize..120, 0..6), restart: bool) {
        cuts.sort_unstable();
        check(&settings, &trades, &cuts, restart);
    }
}

/// The random cases would prove nothing if nothing were ever a burst.
#[test]
fn bursts_are_found_in_random_trades() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut case = || (any_settings(), any_trades()).new_tree(&mut runner).unwrap().current();
    let n_bursts: usize = (0..60).map(|_| case()).map(|(settings, trades)| check(&settings, &trades, &[], false).min(1)).sum();
    assert!(n_bursts > 5, "{n_bursts} of 60 cases have a burst");
}
