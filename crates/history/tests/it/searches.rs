//! Pages of a search against a plain reference: a list of trades, sorted and folded without any of the history's code.

use crate::support::*;
use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use mulgil_disk::MemDisk;
use mulgil_history::{ErrorKind, History, HistoryConfig};
use mulgil_model::candle::{Candle, Side, Tick};
use mulgil_model::rows::Rows;
use mulgil_model::search::{Interval, SearchCursor, SearchRequest, SearchTie};
use mulgil_model::time::EventTime;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
const SEOUL_US: i64 = 9 * HOUR_US;
const SYMBOLS: [&str; 3] = ["005930", "AAPL", "TSLA"];

fn start() -> i64 {
    us("2019-07-05T00:00:00Z")
}

/// A trade with its partition and offset.
type Logged = (u32, u64, Trade);

#[derive(Debug, Clone)]
struct Case {
    trades: Vec<Logged>,
    n_flushed: usize,
    seoul: bool,
    interval: Interval,
    symbol: Option<&'static str>,
    side: Option<&'static str>,
    from: i64,
    to: i64,
    limit: usize,
    /// Bars that end up to here are closed and stored; None stores none.
    closed: Option<i64>,
}

fn cases() -> impl Strategy<Value = Case> {
    let side = || prop::sample::select(vec![None, Some("BUY"), Some("SELL")]);
    let trade = (0usize..3, 0i64..4 * 86_400, 1i128..50, 1i128..9, side(), prop::bool::weighted(0.5));
    let trades = prop::collection::vec(trade, 0..60);
    let range = (start() - DAY_US / 2..start() + 4 * DAY_US, 1i64..4 * DAY_US);
    let interval = prop::sample::select(Interval::ALL.to_vec());
    let symbol = prop::sample::select(vec![None, Some("AAPL"), Some("NONE")]);
    let closed = prop::option::of(start()..start() + 5 * DAY_US);
    (trades, 0usize..60, any::<bool>(), interval, (symbol, side(), closed), range, 1usize..9).prop_map(
        |(trades, n_flushed, seoul, interval, (symbol, side, closed), (from, length), limit)| {
            let mut next = [0u64; 2];
            let logged = trades.into_iter().map(|(s, second, price, quantity, side, whole)| {
                // Many trades share minutes and instants.
                let second = if whole { second / 7200 * 7200 } else { second };
                let partition = (s % 2) as u32;
                let offset = next[partition as usize];
                next[partition as usize] += 1;
                (partition, offset, trade_of(SYMBOLS[s], second, price, quantity, side))
            });
            Case { trades: logged.collect(), n_flushed, seoul, interval, symbol, side, from, to: from + length, limit, closed }
        },
    )
}

fn trade_of(symbol: &str, second: i64, price: i128, quantity: i128, side: Option<&'static str>) -> Trade {
    trade(symbol, start() + second * 1_000_000, price * ONE / 7, quantity * ONE / 3, side)
}

fn window(case: &Case, at: i64) -> (i64, i64) {
    let us = match case.interval {
        Interval::Tick => 1,
        Interval::Minute => 60_000_000,
        Interval::Hour => HOUR_US,
        Interval::Day => DAY_US,
    };
    let offset = if case.seoul { SEOUL_US } else { 0 };
    let start = (at + offset).div_euclid(us) * us - offset;
    (start, start + us)
}

fn tick(offset: u64, t: &Trade) -> Tick {
    Tick { at: (t.at, offset), price: t.price, quantity: t.quantity, side: Side::parse(t.side) }
}

/// All bars of the trades that pass: by (start, symbol).
fn folded<'a>(case: &Case, trades: impl Iterator<Item = &'a Logged>) -> BTreeMap<(i64, String), (u32, Candle)> {
    let mut bars = BTreeMap::new();
    for (partition, offset, trade) in trades {
        let tick = tick(*offset, trade);
        let key = (window(case, trade.at).0, trade.symbol.clone());
        bars.entry(key).and_modify(|(_, c): &mut (u32, Candle)| c.add(&tick)).or_insert((*partition, Candle::of(&tick)));
    }
    bars
}

fn expected(case: &Case) -> Vec<String> {
    let passes = |t: &Trade| case.symbol.is_none_or(|s| t.symbol == s) && case.side.is_none_or(|s| t.side == Some(s));
    let rows = case.trades.iter().filter(|(_, _, t)| passes(t));
    let inside = |at: i64| case.from <= at && at < case.to;
    if case.interval == Interval::Tick {
        let mut ticks: Vec<_> = rows.filter(|(_, _, t)| inside(t.at)).map(|(p, o, t)| (t.at, *p, *o, t.symbol.clone(), t.price)).collect();
        ticks.sort();
        return ticks.into_iter().rev().map(|(at, p, o, symbol, price)| format!("{at} {symbol} {price} {p}-{o}")).collect();
    }
    let bars = folded(case, rows).into_iter().rev().filter(|((start, _), _)| inside(*start));
    bars.map(|((start, symbol), (_, c))| shown(start, window(case, start).1, &symbol, &c)).collect()
}

fn shown(start: i64, end: i64, symbol: &str, c: &Candle) -> String {
    let values = [c.open, c.high, c.low, c.close, c.volume, c.amount, c.buy_volume, c.sell_volume];
    format!("{start} {end} {symbol} {values:?} {:?} {}", c.vwap(8, 8), c.count)
}

fn shown_rows(interval: Interval, batch: &RecordBatch) -> Vec<String> {
    let time = |name: &str, row| batch.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().value(row);
    let text = |name: &str, row| batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
    let decimal = |name: &str, row| batch.column_by_name(name).unwrap().as_primitive::<Decimal128Type>().value(row);
    let one = |row| {
        if interval == Interval::Tick {
            return format!("{} {} {} {}", time("event_time", row), text("symbol", row), decimal("price", row), text("trade_id", row));
        }
        let values = ["open", "high", "low", "close", "volume", "amount", "buy_volume", "sell_volume"].map(|name| decimal(name, row));
        let count = batch.column_by_name("count").unwrap().as_primitive::<Int64Type>().value(row);
        let (start, end, vwap) = (time("start", row), time("event_time", row), Some(decimal("vwap", row)));
        format!("{start} {end} {} {values:?} {vwap:?} {count}", text("symbol", row))
    };
    (0..batch.num_rows()).map(one).collect()
}

type StoredBar = (String, (i64, i64), Candle, i64);

fn stored(stream: &str, partition: u32, base: u64, bars: &[StoredBar]) -> Rows {
    let prices = |f: fn(&Candle) -> i128| decimals(bars.iter().map(|(_, _, c, _)| f(c)), 18, 8);
    let volumes = |f: fn(&Candle) -> i128| decimals(bars.iter().map(|(_, _, c, _)| f(c)), 38, 8);
    let columns: Vec<ArrayRef> = vec![
        text(bars.iter().map(|b| b.0.as_str())),
        times(bars.iter().map(|b| b.1.0)),
        times(bars.iter().map(|b| b.1.1)),
        prices(|c| c.open),
        prices(|c| c.high),
        prices(|c| c.low),
        prices(|c| c.close),
        volumes(|c| c.volume),
        decimals(bars.iter().map(|b| b.2.amount), 38, 16),
        decimals(bars.iter().map(|b| b.2.vwap(8, 8).unwrap()), 38, 12),
        ints(bars.iter().map(|b| b.2.count as i64)),
        volumes(|c| c.buy_volume),
        volumes(|c| c.sell_volume),
        ints(bars.iter().map(|b| b.3)),
    ];
    rows_of(&bar_schema(stream), partition, base, columns)
}

/// Stores the bars that end up to `closed`, each first with a wrong close and then revised.
fn store_bars(history: &History, case: &Case, closed: i64) {
    let stream = match case.interval {
        Interval::Tick => return,
        Interval::Minute => "trades.bars.1m",
        Interval::Hour => "trades.bars.1h",
        Interval::Day => "trades.bars.1d",
    };
    for partition in 0..2 {
        let mut bars: Vec<StoredBar> = Vec::new();
        for ((start, symbol), (of, candle)) in folded(case, case.trades.iter()) {
            let window = window(case, start);
            if of == partition && window.1 <= closed {
                bars.push((symbol.clone(), window, Candle { close: candle.high + 1, ..candle }, 0));
                bars.push((symbol, window, candle, 1));
            }
        }
        if !bars.is_empty() {
            let half = bars.len() / 2;
            history.append(&stored(stream, partition, 0, &bars[..half])).unwrap();
            history.flush().unwrap();
            history.append(&stored(stream, partition, half as u64, &bars[half..])).unwrap();
        }
    }
}

fn filled(case: &Case) -> Arc<History> {
    let mut config = HistoryConfig::default();
    if case.seoul {
        config.time_zones.insert(topic("trades"), "Asia/Seoul".to_owned());
    }
    let history = open(&MemDisk::new(1), config).unwrap();
    for (n, (partition, offset, trade)) in case.trades.iter().enumerate() {
        if n == case.n_flushed {
            history.flush().unwrap();
        }
        history.append(&trade_rows(*partition, *offset, std::slice::from_ref(trade))).unwrap();
    }
    if let Some(closed) = case.closed {
        store_bars(&history, case, closed);
    }
    history
}

fn request(case: &Case, after: Option<SearchCursor>) -> SearchRequest {
    SearchRequest {
        stream: topic("trades"),
        symbol: case.symbol.map(str::to_owned),
        side: case.side.map(str::to_owned),
        market: None,
        from: EventTime(case.from),
        to: EventTime(case.to),
        interval: case.interval,
        limit: case.limit,
        after,
    }
}

async fn pages(history: &History, case: &Case) -> Vec<String> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = history.search(&request(case, after)).await.unwrap();
        assert_eq!(page.schema.arrow(), page.batch.schema_ref());
        assert!(page.batch.num_rows() <= case.limit);
        assert!(page.next.is_none() || page.batch.num_rows() == case.limit);
        rows.extend(shown_rows(case.interval, &page.batch));
        let Some(next) = page.next else { return rows };
        after = Some(next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn pages_equal_the_reference(case in cases()) {
        let history = filled(&case);
        prop_assert_eq!(runtime().block_on(pages(&history, &case)), expected(&case));
    }
}

#[test]
fn bad_questions_are_told() {
    let case = Case {
        trades: vec![],
        n_flushed: 0,
        seoul: false,
        interval: Interval::Minute,
        symbol: None,
        side: None,
        from: start(),
        to: start() + DAY_US,
        limit: 5,
        closed: None,
    };
    let history = filled(&case);
    let tick_cursor = SearchCursor { at: EventTime(0), tie: SearchTie::Tick { partition: 0, offset: 0 } };
    let good = request(&case, None);
    for (bad, want) in [
        (SearchRequest { limit: 0, ..good.clone() }, "limit is 0, but must be from 1 to 10000"),
        (SearchRequest { limit: 10_001, ..good.clone() }, "limit is 10001, but must be from 1 to 10000"),
        (SearchRequest { stream: topic("trade"), ..good.clone() }, "there is no stream 'trade'"),
        (SearchRequest { stream: topic("trades.alerts"), ..good.clone() }, "stream 'trades.alerts' has no trades: search it by tick"),
        (
            SearchRequest { after: Some(tick_cursor), ..good.clone() },
            "the cursor is of a search with another interval: begin again without it",
        ),
    ] {
        let error = runtime().block_on(history.search(&bad)).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::User, want));
    }
}
