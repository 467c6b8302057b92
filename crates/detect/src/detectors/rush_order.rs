//! M1, rush orders: the onset of a pump, seen in buys that share a millisecond with another buy of the symbol.
//!
//! One market order that eats through several price levels is several trades in one millisecond. When a pump is announced, many people
//! send such orders at once. Per symbol and bucket (60 s), n counts these trades; z = (n - mean) / max(sigma, `sigma_floor`), where mean and
//! population sigma are over the buckets of the trailing window (24 h), empty ones included, the present one not. It alerts when
//! z > `z_min` and n >= `count_min` and the price is above `price_ratio` x the mean price of all trades of the last `price_window`, the
//! present bucket included.
//!
//! The condition is tested with every row of the present bucket, so an alert comes with the trade that completes it and not at the end of
//! the bucket; that depends on the rows and their order only. Rows of earlier buckets are counted where they belong and raise nothing.
//! Buys of one millisecond are found as long as no more than 64 other milliseconds with buys came between them.
//!
//! Before a symbol has been watched for `min_obs` buckets (half the window) it raises nothing: a fresh baseline makes anything a burst.
//!
//! A Python prototype of the same formula measured, on the 124 events of `data/trades`, one day before to one day after each onset, every file on its own: precision .867, recall
//! .895, F1 .881, .069 false alerts per symbol and day; over all 19 days of each file .101 false alerts per symbol and day. Overlapping files
//! repeat trades, which then look like rush orders: replay them apart, or without the repetition.
//! Source: La Morgia, Mei, Sassi, Stefa, "Pump and Dumps in the Bitcoin Era", ICCCN 2020.

use super::{DetectorConfig, Parameters};
use crate::alert::{Alert, AlertBatch, Mode, score, version_of};
use crate::error::DetectError;
use crate::mark::Marks;
use crate::rule::parse_severity;
use crate::rules::alert_stream;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Decimal128Type;
use mulgil_engine::error::EngineError;
use mulgil_engine::keyed::Keyed;
use mulgil_engine::layout::{Fields, put_i, put_i64, put_u, put_u64};
use mulgil_engine::operator::{Input, Operator, OperatorStats};
use mulgil_engine::output::Outputs;
use mulgil_engine::state::{Snapshot, StateStore, StateValue};
use mulgil_model::candle::Side;
use mulgil_model::decimal;
use mulgil_model::ids::Offset;
use mulgil_model::json::write_float;
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use mulgil_model::streams::Severity;
use std::collections::VecDeque;
use std::sync::Arc;

/// Buckets of the trailing window, at most.
const BUCKETS_MAX: i64 = 10_000;

/// Milliseconds with buys that are remembered, to find the other buys of the same millisecond.
const RECENT_MAX: usize = 64;

/// Symbols kept in memory.
const HOT_SYMBOLS_MAX: usize = 50_000;

/// A symbol without trades for this many windows is forgotten.
const IDLE_WINDOWS: i64 = 7;

const CONDITION: &str = "rush orders in the bucket: z > z_min and count >= count_min and price > price_ratio * mean price";

/// Defaults: detection.md, M1. Times are microseconds, `*_buckets` are numbers of buckets.
#[derive(Debug, Clone, PartialEq)]
struct Settings {
    bucket: i64,
    window_buckets: i64,
    price_buckets: i64,
    min_obs: i64,
    z_min: f64,
    count_min: u64,
    price_ratio: f64,
    sigma_floor: f64,
    cooldown: i64,
}

pub fn build(config: &DetectorConfig, schema: &Arc<StreamSchema>) -> Result<Box<dyn Operator>, DetectError> {
    let fail = |reason| DetectError::Detector { detector: config.name.clone(), reason };
    let settings = Settings::read(Parameters::new(config)).map_err(fail)?;
    let severity = config.severity.as_deref().map_or(Ok(Severity::High), parse_severity).map_err(fail)?;
    if schema.kind != StreamKind::Trade {
        return Err(fail(format!("it needs a stream of trades (kind = \"trade\"), '{}' is none", schema.stream)));
    }
    let column = |name: &str| schema.column(name).map(|(index, _)| index);
    let columns = Columns { price: column("price")?, side: column("side")?, price_scale: price_scale(schema) };
    let name = format!("detector.{}", config.name);
    Ok(Box::new(RushOrder {
        keys: Keyed::new(&name, "symbols", HOT_SYMBOLS_MAX),
        version: version_of(&format!("rush_order {settings:?} {severity:?}")),
        thresholds: settings.thresholds(),
        output: alert_stream(schema)?,
        schema: Arc::clone(schema),
        marks: Marks::of(schema),
        rule: config.name.clone(),
        mode: config.mode,
        name,
        settings,
        severity,
        columns,
    }))
}

fn price_scale(schema: &StreamSchema) -> i8 {
    match schema.column("price").map(|(_, c)| c.kind) {
        Ok(ColumnType::Decimal { scale, .. }) => scale,
        _ => 0,
    }
}

impl Settings {
    fn read(mut parameters: Parameters<'_>) -> Result<Self, String> {
        let bucket = parameters.duration("bucket", "60s")?;
        let window = parameters.duration("window", "24h")?;
        let price_window = parameters.duration("price_window", "60m")?;
        let window_buckets = window / bucket.max(1);
        let settings = Self {
            bucket,
            window_buckets,
            price_buckets: price_window / bucket.max(1),
            min_obs: parameters.count("min_obs", (window_buckets / 2).max(1).cast_unsigned())?.min(i64::MAX as u64) as i64,
            z_min: parameters.positive("z_min", 20.0)?,
            count_min: parameters.count("count_min", 10)?,
            price_ratio: parameters.positive("price_ratio", 1.03)?,
            sigma_floor: parameters.positive("sigma_floor", 1.0)?,
            cooldown: parameters.duration("cooldown", "30m")?,
        };
        parameters.finish()?;
        if bucket < 1_000_000 || !(2..=BUCKETS_MAX).contains(&window_buckets) || !(1..=BUCKETS_MAX).contains(&settings.price_buckets) {
            return Err(format!("bucket must be 1s or more, and window and price_window 2 to {BUCKETS_MAX} buckets"));
        }
        if settings.min_obs < 1 || settings.min_obs > window_buckets {
            return Err(format!("min_obs must be 1 to {window_buckets} buckets, as many as the window has"));
        }
        Ok(settings)
    }

    fn thresholds(&self) -> String {
        let mut out = String::from("{\"z\":");
        write_float(&mut out, self.z_min);
        out.push_str(&format!(",\"rush_orders\":{},\"price_ratio\":", self.count_min));
        write_float(&mut out, self.price_ratio);
        out.push('}');
        out
    }

    fn idle_max(&self) -> i64 {
        self.bucket.saturating_mul(self.window_buckets + self.price_buckets).saturating_mul(IDLE_WINDOWS).max(self.cooldown)
    }
}

struct Columns {
    price: usize,
    side: usize,
    price_scale: i8,
}

struct RushOrder {
    /// Of the operator, under which its state is kept.
    name: String,
    /// What alerts call it.
    rule: String,
    version: String,
    thresholds: String,
    settings: Settings,
    severity: Severity,
    mode: Mode,
    schema: Arc<StreamSchema>,
    output: Arc<StreamSchema>,
    columns: Columns,
    marks: Marks,
    keys: Keyed<Symbol>,
}

/// One trade as the detector sees it.
#[derive(Debug, Clone, Copy)]
struct Trade {
    at: i64,
    offset: u64,
    price: i128,
    buy: bool,
}

/// What made an alert.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Burst {
    n: u64,
    mean: f64,
    sigma: f64,
    z: f64,
    price_mean: f64,
    first: u64,
}

impl Operator for RushOrder {
    fn name(&self) -> &str {
        &self.name
    }

    fn outputs(&self) -> Vec<Arc<StreamSchema>> {
        vec![Arc::clone(&self.output)]
    }

    fn on_rows(&mut self, input: &Input<'_>, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let rows = input.rows;
        let mut alerts = AlertBatch::new(&self.schema, rows.partition);
        let (keys, times) = (rows.keys(), rows.event_times());
        let prices = rows.column(self.columns.price).as_primitive::<Decimal128Type>();
        let sides = rows.column(self.columns.side).as_string::<i32>();
        for row in 0..rows.len() {
            let side = Side::parse(sides.is_valid(row).then(|| sides.value(row)));
            let trade = Trade { at: times.value(row), offset: input.offset_of(row).0, price: prices.value(row), buy: side == Side::Buy };
            let symbol = self.keys.get_or_insert_with(keys.value(row).as_bytes(), store, || Symbol::new(&trade, &self.settings))?;
            if is_idle(symbol, input.watermark_at(row), self.settings.idle_max()) {
                *symbol = Symbol::new(&trade, &self.settings);
            }
            symbol.add(&trade, &self.settings);
            let quiet = self.mode == Mode::Off || self.marks.is_marked(rows, row);
            if let Some(burst) = symbol.burst(&trade, &self.settings, self.columns.price_scale).filter(|_| !quiet) {
                symbol.alerted = Some(trade.at);
                alerts.push(&self.alert(keys.value(row), &trade, &burst));
            }
        }
        out.emit(&self.output, alerts.finish(&self.output)?);
        Ok(())
    }

    fn on_watermark(&mut self, _watermark: i64, _at: Offset, _store: &dyn StateStore, _out: &mut Outputs) -> Result<(), EngineError> {
        Ok(())
    }

    fn snapshot(&mut self, watermark: i64, into: &mut Snapshot) {
        let idle_max = self.settings.idle_max();
        self.keys.snapshot(into, |_, symbol| is_idle(symbol, watermark, idle_max));
    }

    fn stats(&self) -> OperatorStats {
        OperatorStats { n_hot: self.keys.n_hot(), n_dirty: self.keys.n_dirty(), ..OperatorStats::default() }
    }
}

impl RushOrder {
    fn alert<'a>(&'a self, key: &'a str, trade: &Trade, burst: &Burst) -> Alert<'a> {
        let price = decimal::format(trade.price, self.columns.price_scale);
        let ratio = decimal::to_f64(trade.price, self.columns.price_scale) / burst.price_mean;
        let mut evidence = format!("{{\"rush_orders\":{}", burst.n);
        for (name, value) in [("z", burst.z), ("mean", burst.mean), ("sigma", burst.sigma), ("mean_price", burst.price_mean)] {
            evidence.push_str(&format!(",\"{name}\":"));
            write_float(&mut evidence, value);
        }
        evidence.push_str(&format!(",\"price\":{price}}}"));
        let seconds = self.settings.bucket as f64 / 1e6;
        let message = format!(
            "{key}: {} rush orders within {seconds} s, {:.1} sigma above the usual (threshold {}), price {ratio:.3} x its recent mean",
            burst.n, burst.z, self.settings.z_min
        );
        Alert {
            key,
            event_time: trade.at,
            rule: &self.rule,
            version: &self.version,
            severity: self.severity,
            mode: self.mode,
            state: "raised",
            score: score(self.severity, 1.0),
            message,
            condition: CONDITION,
            evidence,
            thresholds: &self.thresholds,
            offset: Offset(trade.offset),
            first_offset: Some(Offset(burst.first)),
        }
    }
}

fn is_idle(symbol: &Symbol, watermark: i64, idle_max: i64) -> bool {
    watermark.saturating_sub(symbol.latest) > idle_max
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rushes {
    bucket: i64,
    n: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Prices {
    bucket: i64,
    n: u64,
    sum: i128,
    first: u64,
}

/// Layout: version byte; latest event time; first bucket; 0 or 1 + time of the last alert; sum and sum of squares of the rush counts;
/// sum and number of prices; then three lists, each with its length: buckets with rush orders (bucket less the one before, n), buckets
/// with prices (bucket less the one before, n, sum, first offset), milliseconds with buys (millisecond less the one before, n).
#[derive(Debug, Clone, PartialEq)]
struct Symbol {
    latest: i64,
    first_bucket: i64,
    alerted: Option<i64>,
    /// Over `rushes`, the present bucket included.
    sum: u64,
    squares: u128,
    price_sum: i128,
    price_n: u64,
    /// Ordered by bucket.
    rushes: VecDeque<Rushes>,
    prices: VecDeque<Prices>,
    /// In order of arrival.
    recent: VecDeque<(i64, u64)>,
}

impl Symbol {
    fn new(trade: &Trade, settings: &Settings) -> Self {
        Self {
            latest: trade.at,
            first_bucket: trade.at.div_euclid(settings.bucket),
            alerted: None,
            sum: 0,
            squares: 0,
            price_sum: 0,
            price_n: 0,
            rushes: VecDeque::new(),
            prices: VecDeque::new(),
            recent: VecDeque::new(),
        }
    }

    fn add(&mut self, trade: &Trade, settings: &Settings) {
        self.latest = self.latest.max(trade.at);
        let (present, own) = (self.latest.div_euclid(settings.bucket), trade.at.div_euclid(settings.bucket));
        self.expire(present, settings);
        if own > present - settings.price_buckets {
            self.add_price(own, trade);
        }
        if trade.buy && own >= present - settings.window_buckets {
            let n = self.rush_orders(trade.at.div_euclid(1_000));
            self.add_rushes(own, n);
        }
    }

    fn expire(&mut self, present: i64, settings: &Settings) {
        while let Some(old) = self.rushes.pop_front_if(|r| r.bucket < present - settings.window_buckets) {
            self.sum -= old.n;
            self.squares -= u128::from(old.n).pow(2);
        }
        while let Some(old) = self.prices.pop_front_if(|p| p.bucket <= present - settings.price_buckets) {
            self.price_sum = self.price_sum.saturating_sub(old.sum);
            self.price_n -= old.n;
        }
    }

    fn add_price(&mut self, bucket: i64, trade: &Trade) {
        self.price_sum = self.price_sum.saturating_add(trade.price);
        self.price_n += 1;
        let at = self.prices.len() - self.prices.iter().rev().take_while(|p| p.bucket > bucket).count();
        match at.checked_sub(1).map(|i| &mut self.prices[i]) {
            Some(same) if same.bucket == bucket => {
                same.n += 1;
                same.sum = same.sum.saturating_add(trade.price);
            }
            _ => self.prices.insert(at, Prices { bucket, n: 1, sum: trade.price, first: trade.offset }),
        }
    }

    /// How many rush orders one more buy of this millisecond makes: none, two, then one each.
    fn rush_orders(&mut self, ms: i64) -> u64 {
        if let Some((_, n)) = self.recent.iter_mut().rev().find(|(other, _)| *other == ms) {
            *n += 1;
            return if *n == 2 { 2 } else { 1 };
        }
        self.recent.push_back((ms, 1));
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        0
    }

    fn add_rushes(&mut self, bucket: i64, n: u64) {
        if n == 0 {
            return;
        }
        let at = self.rushes.len() - self.rushes.iter().rev().take_while(|r| r.bucket > bucket).count();
        let index = match at.checked_sub(1) {
            Some(i) if self.rushes[i].bucket == bucket => i,
            _ => {
                self.rushes.insert(at, Rushes { bucket, n: 0 });
                at
            }
        };
        let before = self.rushes[index].n;
        self.rushes[index].n = before + n;
        self.sum += n;
        self.squares += u128::from(before + n).pow(2) - u128::from(before).pow(2);
    }

    /// Whether the present bucket is a burst now, with this trade.
    fn burst(&self, trade: &Trade, settings: &Settings, price_scale: i8) -> Option<Burst> {
        let present = self.latest.div_euclid(settings.bucket);
        let n = self.rushes.back().filter(|r| r.bucket == present)?.n;
        let n_watched = present.saturating_sub(self.first_bucket);
        let late = trade.at.div_euclid(settings.bucket) < present;
        let cooling = self.alerted.is_some_and(|last| trade.at.saturating_sub(last) < settings.cooldown);
        if n < settings.count_min || n_watched < settings.min_obs || late || cooling {
            return None;
        }
        let n_buckets = n_watched.min(settings.window_buckets) as f64;
        let mean = (self.sum - n) as f64 / n_buckets;
        let variance = (self.squares - u128::from(n).pow(2)) as f64 / n_buckets - mean * mean;
        let sigma = variance.max(0.0).sqrt().max(settings.sigma_floor);
        let z = (n as f64 - mean) / sigma;
        let price_mean = decimal::to_f64(self.price_sum, price_scale) / self.price_n as f64;
        let risen = decimal::to_f64(trade.price, price_scale) > settings.price_ratio * price_mean;
        let first = self.prices.back()?.first;
        (z > settings.z_min && risen).then_some(Burst { n, mean, sigma, z, price_mean, first })
    }
}

/// The version of the layout above.
const LAYOUT: u8 = 1;

impl StateValue for Symbol {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(LAYOUT);
        put_i64(out, self.latest);
        put_i64(out, self.first_bucket);
        out.push(u8::from(self.alerted.is_some()));
        put_i64(out, self.alerted.unwrap_or(0));
        put_u64(out, self.sum);
        put_u(out, self.squares);
        put_i(out, self.price_sum);
        put_u64(out, self.price_n);
        put_list(out, self.rushes.iter().map(|r| (r.bucket, r)), |out, r| put_u64(out, r.n));
        put_list(out, self.prices.iter().map(|p| (p.bucket, p)), |out, p| {
            put_u64(out, p.n);
            put_i(out, p.sum);
            put_u64(out, p.first);
        });
        put_list(out, self.recent.iter().map(|r| (r.0, r)), |out, (_, n)| put_u64(out, *n));
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let bytes = &mut Fields::open(bytes, LAYOUT)?;
        let (latest, first_bucket) = (bytes.i64()?, bytes.i64()?);
        let (has_alerted, alerted) = (bytes.u8()? != 0, bytes.i64()?);
        let symbol = Self {
            latest,
            first_bucket,
            alerted: has_alerted.then_some(alerted),
            sum: bytes.u64()?,
            squares: bytes.u()?,
            price_sum: bytes.i()?,
            price_n: bytes.u64()?,
            rushes: read_list(bytes, |bytes, bucket| Ok(Rushes { bucket, n: bytes.u64()? }))?,
            prices: read_list(bytes, |bytes, bucket| Ok(Prices { bucket, n: bytes.u64()?, sum: bytes.i()?, first: bytes.u64()? }))?,
            recent: read_list(bytes, |bytes, ms| Ok((ms, bytes.u64()?)))?,
        };
        bytes.end()?;
        if symbol.adds_up() { Ok(symbol) } else { Err("its sums are not those of its buckets".to_owned()) }
    }
}

/// More than one bucket counts.
const COUNT_MAX: u64 = u32::MAX as u64;

impl Symbol {
    /// Buckets ascend, and the counts over them are what they say. (The sum of prices need not be: it ends at 38 digits.)
    fn adds_up(&self) -> bool {
        let counts = self.rushes.iter().map(|r| r.n).chain(self.prices.iter().map(|p| p.n)).chain(self.recent.iter().map(|r| r.1));
        let (mut counts, rushes) = (counts, self.rushes.iter().map(|r| r.n));
        counts.all(|n| n <= COUNT_MAX)
            && self.rushes.iter().is_sorted_by(|one, next| one.bucket < next.bucket)
            && self.prices.iter().is_sorted_by(|one, next| one.bucket < next.bucket)
            && rushes.clone().sum::<u64>() == self.sum
            && rushes.map(|n| u128::from(n).pow(2)).sum::<u128>() == self.squares
            && self.prices.iter().map(|p| p.n).sum::<u64>() == self.price_n
    }
}

fn put_list<T>(out: &mut Vec<u8>, items: impl ExactSizeIterator<Item = (i64, T)>, put: impl Fn(&mut Vec<u8>, T)) {
    put_u64(out, items.len() as u64);
    let mut before = 0i64;
    for (at, item) in items {
        put_i64(out, at.wrapping_sub(before));
        put(out, item);
        before = at;
    }
}

fn read_list<T>(bytes: &mut Fields<'_>, read: impl Fn(&mut Fields<'_>, i64) -> Result<T, String>) -> Result<VecDeque<T>, String> {
    let mut at = 0i64;
    (0..bytes.count()?)
        .map(|_| {
            at = at.wrapping_add(bytes.i64()?);
            read(bytes, at)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use expect_test::expect_file;
    use proptest::prelude::*;

    fn settings() -> Settings {
        let second = 1_000_000;
        Settings {
            bucket: 60 * second,
            window_buckets: 5,
            price_buckets: 3,
            min_obs: 1,
            z_min: 1.0,
            count_min: 2,
            price_ratio: 0.5,
            sigma_floor: 1.0,
            cooldown: 1,
        }
    }

    fn watch(trades: &[(i64, i64, bool)]) -> Symbol {
        let trade = |(offset, (ms, price, buy)): (usize, &(i64, i64, bool))| Trade {
            at: ms * 1_000,
            offset: offset as u64,
            price: i128::from(*price),
            buy: *buy,
        };
        let mut symbol = Symbol::new(&trade((0, &trades[0])), &settings());
        trades.iter().enumerate().for_each(|t| symbol.add(&trade(t), &settings()));
        symbol
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let good = watch(&[(1_000, 5, true), (1_000, 6, true), (70_000, 5, true), (70_000, 5, true)]);
        assert!(good.rushes.len() == 2 && good.prices.len() == 2);
        let read = |change: &dyn Fn(&mut Symbol)| {
            let (mut symbol, mut bytes) = (good.clone(), Vec::new());
            change(&mut symbol);
            symbol.write(&mut bytes);
            Symbol::read(&bytes)
        };
        assert_eq!(read(&|_| {}).unwrap(), good);
        let damages: [&dyn Fn(&mut Symbol); 6] = [
            &|s| s.sum += 1,
            &|s| s.squares -= 1,
            &|s| s.price_n = 0,
            &|s| s.rushes.swap(0, 1),
            &|s| s.prices[1].bucket = s.prices[0].bucket,
            &|s| s.recent[0].1 = u64::MAX,
        ];
        for (i, damage) in damages.into_iter().enumerate() {
            assert!(read(damage).is_err(), "{i}");
        }
    }

    proptest! {
        /// Against counting everything again from the trades.
        #[test]
        fn counts_are_what_they_say(steps in prop::collection::vec((-30_000i64..60_000, 1i64..9, any::<bool>()), 1..40)) {
            let mut now = 1_000_000;
            let trades: Vec<(i64, i64, bool)> = steps.iter().map(|(step, price, buy)| {
                // Half of the trades share the millisecond of the latest.
                let at = if step % 2 == 0 { now } else { now + step };
                now = now.max(at);
                (at, *price, *buy)
            }).collect();
            let symbol = watch(&trades);
            let present = now.div_euclid(60_000);
            let buys = |ms: i64| trades.iter().filter(|t| t.2 && t.0 == ms).count() as u64;
            let bucket_sum = |b: i64| trades.iter().filter(|t| t.2 && t.0.div_euclid(60_000) == b && buys(t.0) > 1).count() as u64;
            let window = present - 5..=present;
            let recent: Vec<_> = trades.iter().filter(|t| t.0.div_euclid(60_000) > present - 3).collect();
            prop_assert_eq!(symbol.sum, window.clone().map(bucket_sum).sum::<u64>());
            prop_assert_eq!(symbol.squares, window.map(|b| u128::from(bucket_sum(b)).pow(2)).sum::<u128>());
            prop_assert_eq!(symbol.price_n, recent.len() as u64);
            prop_assert_eq!(symbol.price_sum, recent.iter().map(|t| i128::from(t.1)).sum::<i128>());
            let mut bytes = Vec::new();
            symbol.write(&mut bytes);
            prop_assert_eq!(Symbol::read(&bytes).unwrap(), symbol);
        }
    }

    /// The layout of version 1 must keep opening.
    #[test]
    fn stored_state_keeps_opening() {
        let symbol = watch(&[
            (1_000_000, 7, true),
            (1_000_000, 8, true),
            (1_070_000, 9, false),
            (1_090_000, 9, true),
            (1_090_000, 9, true),
            (1_090_000, 10, true),
        ]);
        let mut bytes = Vec::new();
        symbol.write(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        expect_file!["../../testdata/rush-order-v1.hex"].assert_eq(&hex);
        assert_eq!(Symbol::read(&bytes).unwrap(), symbol);
        for n in 0..bytes.len() {
            assert!(Symbol::read(&bytes[..n]).is_err(), "cut at {n}");
        }
    }
}
