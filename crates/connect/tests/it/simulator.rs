//! The simulated market: the same every time, never ahead of its time, and statistically what it claims to be.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use expect_test::expect;
use mulgil_connect::sources::simulator::{Anomaly, Hours, INSTRUMENTS, Market, Simulator, SimulatorConfig, schema};
use mulgil_model::ids::Topic;
use mulgil_model::json::write_row;
use mulgil_model::position::Position;
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::TradeDecimals;
use mulgil_model::time::EventTime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// 2026-03-02T00:00:00Z, a Monday, when KRX opens.
const START: EventTime = EventTime(1_772_409_600_000_000);
const DAY_US: i64 = 86_400_000_000;

fn stream() -> Arc<StreamSchema> {
    Arc::new(schema(Topic::new("trades").unwrap(), TradeDecimals::default()).unwrap())
}

fn config() -> SimulatorConfig {
    SimulatorConfig { start: START, ..SimulatorConfig::default() }
}

fn simulator(config: &SimulatorConfig) -> Simulator {
    Simulator::new(config, stream()).unwrap()
}

fn times(batch: &RecordBatch) -> Vec<i64> {
    batch.column(1).as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn decimals(batch: &RecordBatch, column: &str) -> Vec<i128> {
    batch.column_by_name(column).unwrap().as_primitive::<Decimal128Type>().values().to_vec()
}

#[test]
fn the_first_rows() {
    let batch = simulator(&config()).next_rows(3);
    let mut out = String::new();
    for i in 0..3 {
        write_row(&mut out, &stream(), &batch, i);
        out.push('\n');
    }
    expect![[r#"
        {"symbol":"006400","event_time":"2026-03-02T00:00:00.010299Z","price":342000,"quantity":7,"side":"SELL","trade_id":"c393238e-dbd5-452d-b619-a1e1e9f90b1a","market":"KRX","currency":"KRW","event_id":"019cabd8-380a-72bd-b67b-e34910f15efa","label":null}
        {"symbol":"012450","event_time":"2026-03-02T00:00:00.015251Z","price":312000,"quantity":5,"side":"SELL","trade_id":"b76556c4-f6ee-41ae-8103-4a5412cb1b00","market":"KRX","currency":"KRW","event_id":"019cabd8-380f-7c16-b57a-e1ba8b29a9b5","label":null}
        {"symbol":"042700","event_time":"2026-03-02T00:00:00.027334Z","price":98000,"quantity":15,"side":"SELL","trade_id":"65946221-a917-4e46-92bb-fc39b98639fa","market":"KRX","currency":"KRW","event_id":"019cabd8-381b-7cf9-b51b-9b038a16d662","label":null}
    "#]].assert_eq(&out);
}

#[test]
fn the_same_however_it_is_asked() {
    let want = simulator(&config()).next_rows(5_000);
    let mut parts = Vec::new();
    let mut live = simulator(&config());
    let (mut now, mut n) = (START.micros(), 0);
    while n < 5_000 {
        now += 700_000;
        loop {
            let part = live.next_until(EventTime(now), 7);
            assert!(part.num_rows() <= 7 && times(&part).iter().all(|t| *t <= now), "no row from the future");
            if part.num_rows() == 0 {
                break;
            }
            n += part.num_rows();
            parts.push(part);
        }
        assert!(live.next_time().micros() > now);
    }
    let got = concat_batches(stream().arrow(), &parts).unwrap();
    assert_eq!(got.slice(0, 5_000), want);
    assert!(times(&want).is_sorted() && times(&want)[0] >= START.micros());

    let mut resumed = simulator(&config());
    resumed.resume_after(Position::new(1_233, 0));
    assert_eq!(resumed.next_rows(100), want.slice(1_234, 100));
    assert_eq!(resumed.position(), Some(Position::new(1_333, 0)));

    let other = SimulatorConfig { seed: 2, ..config() };
    assert_ne!(simulator(&other).next_rows(10), want.slice(0, 10));
    assert_ne!(simulator(&other).identity(), simulator(&config()).identity());
    assert_eq!(simulator(&config()).identity(), resumed.identity());
}

#[test]
fn prices_stand_on_the_grid_and_ids_are_distinct() {
    let batch = simulator(&config()).next_rows(12_000);
    let markets: BTreeMap<&str, Market> = INSTRUMENTS.iter().map(|i| (i.symbol, i.market)).collect();
    let (prices, quantities) = (decimals(&batch, "price"), decimals(&batch, "quantity"));
    let mut ids = BTreeSet::new();
    for row in 0..batch.num_rows() {
        let symbol = text(&batch, "symbol", row).unwrap();
        let hundredths = i64::try_from(prices[row] / 1_000_000).unwrap();
        assert_eq!(prices[row] % 1_000_000, 0);
        assert_eq!(hundredths % markets[&*symbol].tick(hundredths), 0, "{symbol} at {hundredths}");
        assert!(prices[row] > 0 && quantities[row] > 0 && quantities[row] % 100_000_000 == 0);
        assert_eq!(text(&batch, "market", row).unwrap(), markets[&*symbol].as_str());
        assert_eq!(text(&batch, "currency", row).unwrap(), markets[&*symbol].currency());
        let (event, trade) = (text(&batch, "event_id", row).unwrap(), text(&batch, "trade_id", row).unwrap());
        assert_eq!((event.as_bytes()[14], trade.as_bytes()[14], event.len()), (b'7', b'4', 36));
        assert!(ids.insert(event) && ids.insert(trade));
    }
}

/// What each anomaly promises, seen in the rows alone.
#[test]
fn anomalies_are_labelled_and_real() {
    let config = SimulatorConfig { anomaly_share: 0.05, ..config() };
    let batch = simulator(&config).next_rows(60_000);
    let (prices, quantities, at) = (decimals(&batch, "price"), decimals(&batch, "quantity"), times(&batch));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut last, mut bursts, mut rushes) = (BTreeMap::new(), BTreeMap::<_, Vec<i64>>::new(), BTreeMap::<_, usize>::new());
    for row in 0..batch.num_rows() {
        let symbol = text(&batch, "symbol", row).unwrap();
        let before = last.insert(symbol.clone(), prices[row]).unwrap_or(prices[row]);
        let pieces = quantities[row] / 100_000_000;
        let amount = prices[row] / 100_000_000 * pieces;
        let Some(label) = text(&batch, "label", row) else {
            assert!(pieces <= 500, "a usual trade has 500 pieces at most");
            continue;
        };
        *counts.entry(label.clone()).or_default() += 1;
        let floor = if text(&batch, "currency", row).unwrap() == "KRW" { 100_000_000 } else { 100_000 };
        match label.as_str() {
            "large_quantity" => assert!(pieces > 500),
            "large_amount" => assert!(amount > floor, "{amount}"),
            "price_jump" => assert!((prices[row] - before).abs() * 100 > before * 5, "{before} -> {}", prices[row]),
            "volume_surge" => assert!(pieces >= 100),
            "rapid_trades" => bursts.entry(symbol).or_default().push(at[row]),
            "rush_order" => {
                assert_eq!(text(&batch, "side", row).unwrap(), "BUY");
                *rushes.entry((symbol, at[row] / 1_000)).or_default() += 1;
            }
            other => panic!("unknown label {other}"),
        }
    }
    assert_eq!(
        counts.keys().cloned().collect::<Vec<_>>(),
        Anomaly::ALL.map(|a| a.as_str().to_owned()).into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    let n_labelled: usize = counts.values().sum();
    assert!((2_000..=4_200).contains(&n_labelled), "{n_labelled} of 60,000");
    assert!(bursts.values().any(|t| t.windows(100).any(|w| w[99] - w[0] <= 10_000_000)));
    assert!(rushes.values().all(|n| *n >= 5), "every rush order shares its millisecond");
}

/// Whoever looks at a fresh market sees the first within the time that is usual between two, and then never waits twice as long.
#[test]
fn anomalies_are_never_far_apart() {
    const USUAL: usize = 672;
    for seed in 0..40 {
        let batch = simulator(&SimulatorConfig { anomaly_share: 0.02, seed, ..config() }).next_rows(6_000);
        let labelled = (0..batch.num_rows()).filter(|row| text(&batch, "label", *row).is_some());
        // A rush order is labelled a millisecond after the trade with which it begins.
        let ends = [0].into_iter().chain(labelled).chain([batch.num_rows()]).collect::<Vec<_>>();
        assert!(ends[1] <= USUAL + 5, "seed {seed}: the first is row {}", ends[1]);
        let longest = ends.windows(2).map(|w| w[1] - w[0]).max();
        assert!(longest <= Some(2 * USUAL + 5), "seed {seed}: none for {longest:?} rows");
    }
}

#[test]
fn sessions_are_kept_and_busiest_at_the_ends() {
    let config = SimulatorConfig { hours: Hours::Session, rate: 0.5, symbols: vec!["005930".into(), "AAPL".into()], ..config() };
    let mut simulator = simulator(&config);
    let mut by_hour: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for day in 0..7 {
        let batch = simulator.next_until(EventTime(START.micros() + (day + 1) * DAY_US), usize::MAX);
        if day >= 5 {
            // 2026-03-07 and 08 are a weekend; New York's Friday ends at 21:00 UTC.
            assert_eq!(batch.num_rows(), 0);
        }
        for (row, t) in times(&batch).iter().enumerate() {
            *by_hour.entry((text(&batch, "market", row).unwrap(), t.rem_euclid(DAY_US) / 3_600_000_000)).or_default() += 1;
        }
    }
    let hours = |market: &str| by_hour.keys().filter(|(m, _)| m == market).map(|(_, h)| *h).collect::<Vec<_>>();
    assert_eq!(hours("KRX"), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(hours("NASDAQ"), [14, 15, 16, 17, 18, 19, 20]);
    let krx = |hour| by_hour[&("KRX".to_owned(), hour)];
    assert!(krx(0) > 2 * krx(3) && krx(5) > krx(3), "{by_hour:?}");
}

/// Ten-minute returns of a symbol whose price step is small against its moves: their volatility is the configured one within a factor.
#[test]
fn volatility_is_what_was_asked() {
    let config = SimulatorConfig { symbols: vec!["MSFT".into()], rate: 1.0, anomaly_share: 0.0, ..config() };
    let batch = simulator(&config).next_until(EventTime(START.micros() + 2 * DAY_US), usize::MAX);
    let rate = batch.num_rows() as f64 / (2.0 * 86_400.0);
    assert!((0.97..1.03).contains(&rate), "{rate} rows per second");
    let mut closes: BTreeMap<i64, f64> = BTreeMap::new();
    for (t, p) in times(&batch).iter().zip(decimals(&batch, "price")) {
        closes.insert(t / 600_000_000, p as f64);
    }
    let closes: Vec<f64> = closes.into_values().map(f64::ln).collect();
    let returns: Vec<f64> = closes.windows(2).map(|w| w[1] - w[0]).collect();
    let deviation = (returns.iter().map(|r| r * r).sum::<f64>() / returns.len() as f64).sqrt();
    let year = deviation * (252.0 * 6.5 * 6.0f64).sqrt();
    assert!((0.24 / 1.4..0.24 * 1.4).contains(&year), "{year} against 0.24");
    let sizes = decimals(&batch, "quantity");
    let mut sorted: Vec<i128> = sizes.iter().map(|q| q / 100_000_000).collect();
    sorted.sort_unstable();
    let (median, mean) = (sorted[sorted.len() / 2] as f64, sorted.iter().sum::<i128>() as f64 / sorted.len() as f64);
    assert!((1.15..1.6).contains(&(mean / median)), "log-normal: mean {mean}, median {median}");
}

#[test]
fn configs_are_checked() {
    let say = |change: fn(&mut SimulatorConfig)| {
        let mut config = config();
        change(&mut config);
        Simulator::new(&config, stream()).err().unwrap().to_string()
    };
    let plain = Simulator::new(&config(), super::trade_schema());
    assert!(plain.is_ok(), "columns that are not the simulator's stay null");
    let all = [
        say(|c| c.symbols = vec!["005931".into()]),
        say(|c| c.symbols = vec!["ZZZZ".into()]),
        say(|c| c.sectors = vec!["chips".into()]),
        say(|c| c.rate = f64::NAN),
        say(|c| c.anomaly_share = 0.9),
        say(|c| c.start = EventTime(i64::MAX)),
    ];
    expect![[r#"
        the simulator has no symbol '005931'; did you mean '005930'?
        the simulator has no symbol 'ZZZZ'
        the simulator has no sector 'chips': choose among automotive, batteries, consumer, finance, games, healthcare, industrials, internet, materials, semiconductors, technology
        a rate of NaN trades per second is not possible: use 0.001 to 10000000
        an anomaly share of 0.9 is not possible: use 0 to 0.5
        the start time 9223372036854775807us is outside the years 1900 to 2200"#]].assert_eq(&all.join("\n"));
}
