//! The stream and the rows that targets share.

use arrow::array::RecordBatch;
use mulgil_connect::decode::{DecodeOptions, Decoded, Format, Limits, Plan, UnknownFields, decode};
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::rows::Rows;
use mulgil_model::schema::{Column, ColumnType, StreamSchema};
use mulgil_model::streams::{TradeDecimals, trades};
use mulgil_model::time::{AppendTime, ReceiveTime};
use std::sync::{Arc, LazyLock};

/// 2026-11-21T00:00:00Z: the receive time of every input.
pub const RECEIVED: ReceiveTime = ReceiveTime(1_795_219_200_000_000);

/// Rows taken of one input: few, so that an input is done in no time, and the limit is met.
pub const ROWS_MAX: usize = 2_000;

pub fn topic(name: &str) -> Topic {
    Topic::new(name).expect("invariant: the names here are valid")
}

/// Trades with a column of every other type behind them.
pub static SCHEMA: LazyLock<Arc<StreamSchema>> = LazyLock::new(|| {
    let extra = [("score", ColumnType::Float), ("seq", ColumnType::Int), ("block", ColumnType::Bool)];
    let extra = extra.map(|(name, kind)| Column::optional(name, kind)).to_vec();
    Arc::new(trades(topic("trades"), TradeDecimals::default(), extra).expect("invariant: the schema is valid"))
});

fn plan(unknown: UnknownFields) -> Arc<Plan> {
    let limits = Limits { rows_max: ROWS_MAX, ..Limits::default() };
    let options = DecodeOptions { unknown, limits, ..DecodeOptions::default() };
    Arc::new(Plan::new(Arc::clone(&SCHEMA), options).expect("invariant: the options fit the schema"))
}

/// Unknown fields refuse a row: nothing of an input is overlooked.
pub static STRICT: LazyLock<Arc<Plan>> = LazyLock::new(|| plan(UnknownFields::Refuse));
/// Unknown fields are passed over, as by default.
pub static LENIENT: LazyLock<Arc<Plan>> = LazyLock::new(|| plan(UnknownFields::Ignore));

pub const CSV: &str = "symbol,event_time,price,quantity,side,trade_id,market,currency,score,seq,block
005930,2026-11-20T09:00:00+09:00,71500,10,BUY,t-1,KRX,KRW,0.5,1,true
KRW-BTC,1795132800123,98123456.78901234,0.00000001,sell,\"a \"\"quoted\"\", id\",,KRW,,-3,
BRK.B,2026-11-20T00:00:01.000001Z,1.5e2,1,,,,,-1e-300,9223372036854775807,false
AAPL,2026-11-20T00:00:00Z,231.25,3,b,,,USD,,,
";

pub fn good(format: Format, bytes: &[u8]) -> Decoded {
    let decoded = decode(&STRICT, format, bytes, RECEIVED);
    assert_eq!(decoded.problems, [], "the rows here are good");
    decoded
}

static BATCH: LazyLock<RecordBatch> = LazyLock::new(|| good(Format::Csv, CSV.as_bytes()).batch);

/// Four rows with every type, nulls and extremes.
pub fn batch() -> RecordBatch {
    BATCH.clone()
}

pub fn rows(schema: &Arc<StreamSchema>, base: u64, batch: RecordBatch) -> Rows {
    let n = batch.num_rows();
    Rows {
        schema: Arc::clone(schema),
        partition: Partition(0),
        base: Offset(base),
        batch,
        appended: vec![AppendTime(RECEIVED.0); n],
        received: vec![RECEIVED; n],
    }
}
