//! Trades for tests, what a shard wrote, and shards over a store that survives them.

use arrow::array::{ArrayRef, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use mulgil_engine::error::EngineError;
use mulgil_engine::operator::Operator;
use mulgil_engine::output::Outputs;
use mulgil_engine::shard::{Shard, ShardSpec};
use mulgil_engine::state::SharedMemStore;
use mulgil_model::avro::RowEncoder;
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::json::write_value;
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::streams::{TradeDecimals, trades};
use mulgil_model::time::{AppendTime, ReceiveTime};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const SECOND: i64 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    pub symbol: String,
    pub at: i64,
    pub price: i128,
    pub quantity: i128,
    pub side: Option<&'static str>,
    pub id: Option<String>,
}

/// Two decimals each, so that tables stay readable.
pub fn schema(stream: &str) -> Arc<StreamSchema> {
    let decimals = TradeDecimals { price_scale: 2, quantity_scale: 2 };
    Arc::new(trades(Topic::new(stream).unwrap(), decimals, vec![]).unwrap())
}

pub fn rows(schema: &Arc<StreamSchema>, base: u64, trades: &[Trade]) -> Rows {
    let decimal = |of: fn(&Trade) -> i128, column: usize| -> ArrayRef {
        let array = Decimal128Array::from_iter_values(trades.iter().map(of));
        Arc::new(array.with_data_type(schema.columns[column].kind.arrow()))
    };
    let text = |of: fn(&Trade) -> Option<&str>| -> ArrayRef { Arc::new(trades.iter().map(of).collect::<StringArray>()) };
    let columns = vec![
        text(|t| Some(&t.symbol)),
        Arc::new(TimestampMicrosecondArray::from_iter_values(trades.iter().map(|t| t.at)).with_timezone("UTC")) as ArrayRef,
        decimal(|t| t.price, 2),
        decimal(|t| t.quantity, 3),
        text(|t| t.side),
        text(|t| t.id.as_deref()),
        text(|_| None),
        text(|_| None),
    ];
    Rows {
        schema: Arc::clone(schema),
        partition: Partition(0),
        base: Offset(base),
        batch: RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap(),
        appended: vec![AppendTime(0); trades.len()],
        received: vec![ReceiveTime(0); trades.len()],
    }
}

/// `seconds symbol price quantity side` per line.
pub fn parse(table: &str) -> Vec<Trade> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let mut number = || words.next().unwrap();
        let at = (number().parse::<f64>().unwrap() * SECOND as f64) as i64;
        let symbol = number().to_owned();
        let price = number().parse::<i128>().unwrap() * 100;
        let quantity = number().parse::<i128>().unwrap() * 100;
        let side = match words.next() {
            Some("B") => Some("BUY"),
            Some("S") => Some("SELL"),
            _ => None,
        };
        Trade { symbol, at, price, quantity, side, id: words.next().map(str::to_owned) }
    };
    table.lines().map(str::trim).filter(|l| !l.is_empty()).map(line).collect()
}

/// Random trades: ties, rows out of order up to and beyond every bound, repeated rows, jumps of hours and days, few or many symbols.
pub fn any_trades(n_max: usize) -> impl Strategy<Value = Vec<Trade>> {
    let step = prop_oneof![
        4 => Just(0i64),
        10 => 0..3 * SECOND,
        6 => -6 * SECOND..0,
        2 => -90 * SECOND..0,
        1 => -2 * 3600 * SECOND..0,
        1 => 30 * SECOND..300 * SECOND,
        1 => 3600 * SECOND..40 * 3600 * SECOND,
    ];
    let side = prop::sample::select(vec![None, Some("BUY"), Some("SELL")]);
    let trade = (step, 0u32..1000, 1i128..50_000, 0i128..500, side, 0..10u8);
    (1u32..60, prop::collection::vec(trade, 1..n_max)).prop_map(|(n_symbols, steps)| {
        let mut now = 1_700_000_000 * SECOND;
        let mut trades: Vec<Trade> = Vec::new();
        for (i, (step, symbol, price, quantity, side, again)) in steps.into_iter().enumerate() {
            if again == 0 && i > 0 {
                trades.push(trades[symbol as usize % i].clone());
                continue;
            }
            let at = now + step;
            now = now.max(at);
            let symbol = format!("S{}", symbol % n_symbols);
            trades.push(Trade { symbol, at, price, quantity, side, id: Some(format!("t{i}")) });
        }
        trades
    })
}

/// Everything written per stream, as the messages of the log, one after the other.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Written(pub BTreeMap<String, Vec<u8>>);

impl Written {
    pub fn add(&mut self, outputs: Outputs) {
        for emitted in outputs.into_emitted() {
            let mut encoder = RowEncoder::new(&emitted.schema).unwrap();
            let bytes = self.0.entry(emitted.schema.stream.to_string()).or_default();
            encoder.encode(&emitted.batch).unwrap().iter().for_each(|message| bytes.extend_from_slice(message.as_ref()));
        }
    }
}

/// Rows of `stream` as text, one line each, values without names.
pub fn table(outputs: Outputs, stream: &str) -> String {
    let mut text = String::new();
    for emitted in outputs.into_emitted().iter().filter(|e| e.schema.stream.as_str() == stream) {
        for row in 0..emitted.batch.num_rows() {
            for (i, column) in emitted.schema.columns.iter().enumerate() {
                text.push_str(if i == 0 { "" } else { " " });
                write_value(&mut text, column.kind, emitted.batch.column(i).as_ref(), row);
            }
            text.push('\n');
        }
    }
    text.replace('"', "").replace("1970-01-01T", "")
}

pub fn spec(schema: &Arc<StreamSchema>) -> ShardSpec {
    ShardSpec { schema: Arc::clone(schema), partition: Partition(0), out_of_orderness_us: 5 * SECOND, dedupe: None }
}

pub fn open(spec: ShardSpec, operators: Vec<Box<dyn Operator>>, store: &SharedMemStore) -> Result<Shard, EngineError> {
    Shard::open(spec, operators, Box::new(store.clone()))
}
