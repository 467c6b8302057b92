//! Small streams of trades, bars and alerts to test with.

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::util::pretty::pretty_format_batches;
use mulgil_disk::MemDisk;
use mulgil_history::{History, HistoryConfig, HistoryError};
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::{TradeDecimals, alerts, bars, trades};
use mulgil_model::time::{AppendTime, EpochUnit, ReceiveTime, parse_micros};
use std::path::Path;
use std::sync::Arc;

pub const DIR: &str = "/history";
pub const DECIMALS: TradeDecimals = TradeDecimals { price_scale: 8, quantity_scale: 8 };
pub const ONE: i128 = 100_000_000;

pub fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub fn us(text: &str) -> i64 {
    parse_micros(text, EpochUnit::Micros).unwrap()
}

pub fn trade_schema() -> Arc<StreamSchema> {
    Arc::new(trades(topic("trades"), DECIMALS, vec![]).unwrap())
}

pub fn bar_schema(name: &str) -> Arc<StreamSchema> {
    Arc::new(bars(topic(name), DECIMALS).unwrap())
}

pub fn all_schemas() -> Vec<Arc<StreamSchema>> {
    let alerts = Arc::new(alerts(topic("trades.alerts")).unwrap());
    vec![trade_schema(), bar_schema("trades.bars.1m"), bar_schema("trades.bars.1h"), bar_schema("trades.bars.1d"), alerts]
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    pub symbol: String,
    pub at: i64,
    pub price: i128,
    pub quantity: i128,
    pub side: Option<&'static str>,
}

pub fn trade(symbol: &str, at: i64, price: i128, quantity: i128, side: Option<&'static str>) -> Trade {
    Trade { symbol: symbol.to_owned(), at, price, quantity, side }
}

pub fn times(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

pub fn text<'a>(values: impl IntoIterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

pub fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

pub fn decimals(values: impl IntoIterator<Item = i128>, precision: u8, scale: i8) -> ArrayRef {
    Arc::new(Decimal128Array::from_iter_values(values).with_precision_and_scale(precision, scale).unwrap())
}

pub fn rows_of(schema: &Arc<StreamSchema>, partition: u32, base: u64, columns: Vec<ArrayRef>) -> Rows {
    let batch = RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap();
    let n = batch.num_rows() as i64;
    let appended = (0..n).map(|i| AppendTime(1_600_000_000_000_000 + base as i64 + i)).collect();
    let received = (0..n).map(|i| ReceiveTime(1_599_999_999_000_000 + base as i64 + i)).collect();
    Rows { schema: Arc::clone(schema), partition: Partition(partition), base: Offset(base), batch, appended, received }
}

pub fn trade_rows(partition: u32, base: u64, trades: &[Trade]) -> Rows {
    let id = |i: usize| format!("{partition}-{}", base + i as u64);
    let columns: Vec<ArrayRef> = vec![
        text(trades.iter().map(|t| t.symbol.as_str())),
        times(trades.iter().map(|t| t.at)),
        decimals(trades.iter().map(|t| t.price), 18, 8),
        decimals(trades.iter().map(|t| t.quantity), 20, 8),
        Arc::new(trades.iter().map(|t| t.side).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values((0..trades.len()).map(id))),
        Arc::new(StringArray::from_iter_values(trades.iter().map(|_| "KRX"))),
        Arc::new(StringArray::from(vec![None::<&str>; trades.len()])),
    ];
    rows_of(&trade_schema(), partition, base, columns)
}

pub struct TestBar<'a> {
    pub symbol: &'a str,
    pub start: i64,
    pub end: i64,
    pub close: i128,
    pub revision: i64,
}

pub fn bar_rows(stream: &str, partition: u32, base: u64, bars: &[TestBar]) -> Rows {
    let price = || decimals(bars.iter().map(|b| b.close), 18, 8);
    let volume = || decimals(bars.iter().map(|_| ONE), 38, 8);
    let columns = vec![
        text(bars.iter().map(|b| b.symbol)),
        times(bars.iter().map(|b| b.start)),
        times(bars.iter().map(|b| b.end)),
        price(),
        price(),
        price(),
        price(),
        volume(),
        decimals(bars.iter().map(|b| b.close * ONE), 38, 16),
        decimals(bars.iter().map(|b| b.close * 10_000), 38, 12),
        ints(bars.iter().map(|_| 1)),
        volume(),
        volume(),
        ints(bars.iter().map(|b| b.revision)),
    ];
    rows_of(&bar_schema(stream), partition, base, columns)
}

pub fn open(disk: &MemDisk, config: HistoryConfig) -> Result<Arc<History>, HistoryError> {
    History::open(Arc::new(disk.clone()), Path::new(DIR), config, all_schemas())
}

pub fn fresh() -> Arc<History> {
    open(&MemDisk::new(1), HistoryConfig::default()).unwrap()
}

pub fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_stack_size(mulgil_history::STACK_BYTES).enable_all().build().unwrap()
}

/// The answer as a table, or the error's kind and words.
pub async fn ask(history: &History, sql: &str) -> String {
    let answer = match history.query(sql, None).await {
        Ok(rows) => rows.collect().await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(batches) => format!("{}\n", pretty_format_batches(&batches).unwrap()),
        Err(error) => format!("{:?}: {error}\n", error.kind()),
    }
}
