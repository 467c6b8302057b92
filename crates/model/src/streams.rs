//! The schemas that mulgil itself gives: trades, bars, alerts, late rows, dead letters.

use crate::ids::Topic;
use crate::schema::{Column, ColumnType, SchemaError, StreamKind, StreamSchema};

/// The decimal types of one trade stream. Kept so small that price times quantity is exact in 38 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TradeDecimals {
    pub price_scale: i8,
    pub quantity_scale: i8,
}

impl Default for TradeDecimals {
    fn default() -> Self {
        Self { price_scale: 8, quantity_scale: 8 }
    }
}

impl TradeDecimals {
    /// 10 whole digits for a price: up to 9,999,999,999, above any quoted price in KRW.
    pub fn price(self) -> ColumnType {
        ColumnType::Decimal { precision: 10 + self.price_scale.unsigned_abs(), scale: self.price_scale }
    }

    /// 12 whole digits for a quantity.
    pub fn quantity(self) -> ColumnType {
        ColumnType::Decimal { precision: 12 + self.quantity_scale.unsigned_abs(), scale: self.quantity_scale }
    }

    /// Price times quantity and sums of it.
    pub fn amount(self) -> ColumnType {
        ColumnType::Decimal { precision: 38, scale: self.price_scale + self.quantity_scale }
    }

    /// Sums of quantities.
    pub fn volume(self) -> ColumnType {
        ColumnType::Decimal { precision: 38, scale: self.quantity_scale }
    }

    /// Volume-weighted average price: four more decimals than the price, rounded half to even.
    pub fn vwap(self) -> ColumnType {
        ColumnType::Decimal { precision: 38, scale: self.price_scale + 4 }
    }

    /// The largest scale allowed for each: 8 + 8 decimals of an amount still leave 22 whole digits.
    pub const SCALE_MAX: i8 = 8;
}

/// Columns every trade has, in this order; a stream may declare more behind them.
pub fn trade_columns(decimals: TradeDecimals) -> Vec<Column> {
    vec![
        Column::required("symbol", ColumnType::Text),
        Column::required("event_time", ColumnType::Timestamp),
        Column::required("price", decimals.price()),
        Column::required("quantity", decimals.quantity()),
        Column::optional("side", ColumnType::Text),
        Column::optional("trade_id", ColumnType::Text),
        Column::optional("market", ColumnType::Text),
        Column::optional("currency", ColumnType::Text),
    ]
}

/// `side` as it is stored: the taker's side.
pub const BUY: &str = "BUY";
pub const SELL: &str = "SELL";

pub fn trades(stream: Topic, decimals: TradeDecimals, extra: Vec<Column>) -> Result<StreamSchema, SchemaError> {
    let columns = trade_columns(decimals).into_iter().chain(extra).collect();
    StreamSchema::new(stream, StreamKind::Trade, columns, "symbol", "event_time")
}

/// Bars of one interval. `start` and `end` bound the window [start, end); `event_time` is `end`, as a bar is known only then.
/// A later `revision` of the same (symbol, start) replaces an earlier one.
pub fn bars(stream: Topic, decimals: TradeDecimals) -> Result<StreamSchema, SchemaError> {
    let price = decimals.price();
    let columns = vec![
        Column::required("symbol", ColumnType::Text),
        Column::required("start", ColumnType::Timestamp),
        Column::required("event_time", ColumnType::Timestamp),
        Column::required("open", price),
        Column::required("high", price),
        Column::required("low", price),
        Column::required("close", price),
        Column::required("volume", decimals.volume()),
        Column::required("amount", decimals.amount()),
        Column::optional("vwap", decimals.vwap()),
        Column::required("count", ColumnType::Int),
        Column::required("buy_volume", decimals.volume()),
        Column::required("sell_volume", decimals.volume()),
        Column::required("revision", ColumnType::Int),
    ];
    StreamSchema::new(stream, StreamKind::Bar, columns, "symbol", "event_time")
}

/// Alerts of one stream. `key` is the key of the row that fired; `evidence` is a JSON object of feature and column values, with
/// decimals as numbers written exactly; `thresholds` the same for the rule's literals; `input_offset` (with the partition, which is the
/// alert's own) names the row; `first_offset` the oldest row that the rule's evidence rests on, where known.
pub fn alerts(stream: Topic) -> Result<StreamSchema, SchemaError> {
    let columns = vec![
        Column::required("id", ColumnType::Text),
        Column::required("key", ColumnType::Text),
        Column::required("event_time", ColumnType::Timestamp),
        Column::required("stream", ColumnType::Text),
        Column::required("rule", ColumnType::Text),
        Column::required("rule_version", ColumnType::Text),
        Column::required("severity", ColumnType::Text),
        Column::required("mode", ColumnType::Text),
        Column::required("state", ColumnType::Text),
        Column::required("score", ColumnType::Float),
        Column::required("message", ColumnType::Text),
        Column::required("condition", ColumnType::Text),
        Column::required("evidence", ColumnType::Text),
        Column::required("thresholds", ColumnType::Text),
        Column::required("input_partition", ColumnType::Int),
        Column::required("input_offset", ColumnType::Int),
        Column::optional("first_offset", ColumnType::Int),
    ];
    StreamSchema::new(stream, StreamKind::Alert, columns, "key", "event_time")
}

/// Changes of one captured table, as live clients read them: never stored in this form. `key` is the key of the row (the value itself where
/// one column is the key, else a JSON array of texts, empty where there is none), `old_key` what it was before a change of the key,
/// `committed` when the database committed it, `op` Debezium's letter, and `events` its JSON: one object or more, with commas between them.
pub fn changes(stream: Topic) -> Result<StreamSchema, SchemaError> {
    let columns = vec![
        Column::required("key", ColumnType::Text),
        Column::required("committed", ColumnType::Timestamp),
        Column::required("op", ColumnType::Text),
        Column::optional("old_key", ColumnType::Text),
        Column::required("events", ColumnType::Text),
    ];
    StreamSchema::new(stream, StreamKind::Change, columns, "key", "committed")
}

/// Where the columns of [`changes`] stand.
pub mod change_column {
    pub const OP: usize = 2;
    pub const OLD_KEY: usize = 3;
    pub const EVENTS: usize = 4;
}

/// Input that could not be decoded. The record's value is the original bytes, untouched; reason, source, position and line travel as
/// record headers, so this topic has no columns of its own.
pub const DEAD_LETTERS: &str = "dead-letters";

/// Every schema ever written, as one record each: key = stream, header `id`, value = Avro schema JSON.
pub const SCHEMAS: &str = "_schemas";

/// How an alert can weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}
