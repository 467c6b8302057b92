//! Simulated trades as columns of a trade stream.

use super::anomaly::Anomaly;
use super::config::SimulatorError;
use super::market::Instrument;
use super::walk::Taker;
use arrow::array::{ArrayRef, Decimal128Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder, new_null_array};
use mulgil_model::decimal::pow10;
use mulgil_model::schema::{ColumnType, StreamSchema};
use std::sync::Arc;
use uuid::Builder;

/// Prices have two decimals.
const PRICE_DECIMALS: i8 = 2;

pub(crate) struct Trade {
    pub us: i64,
    pub walk: usize,
    /// In hundredths.
    pub price: i64,
    pub quantity: i64,
    pub taker: Taker,
    pub anomaly: Option<Anomaly>,
    /// For the ids: 10 bytes of the event's (UUID v7), 16 of the trade's (UUID v4).
    pub random: [u8; 26],
}

/// One builder per column of the schema.
pub(crate) struct RowColumns {
    schema: Arc<StreamSchema>,
    columns: Vec<Target>,
    n_rows: usize,
}

enum Target {
    Symbol(StringBuilder),
    Time(TimestampMicrosecondBuilder),
    /// With what one hundredth is at the column's scale.
    Price(Decimal128Builder, i128),
    Quantity(Decimal128Builder, i128),
    Side(StringBuilder),
    TradeId(StringBuilder),
    Market(StringBuilder),
    Currency(StringBuilder),
    EventId(StringBuilder),
    Label(StringBuilder),
    Null,
}

impl RowColumns {
    pub fn new(schema: Arc<StreamSchema>) -> Result<Self, SimulatorError> {
        let columns = (0..schema.columns.len()).map(|i| target(&schema, i)).collect::<Result<_, _>>()?;
        Ok(Self { schema, columns, n_rows: 0 })
    }

    pub fn append(&mut self, trade: &Trade, instrument: &Instrument) {
        let mut text = uuid::Uuid::encode_buffer();
        for column in &mut self.columns {
            match column {
                Target::Symbol(b) => b.append_value(instrument.symbol),
                Target::Time(b) => b.append_value(trade.us),
                Target::Price(b, unit) => b.append_value(i128::from(trade.price) * *unit),
                Target::Quantity(b, unit) => b.append_value(i128::from(trade.quantity) * *unit),
                Target::Side(b) => b.append_value(trade.taker.as_str()),
                Target::Market(b) => b.append_value(instrument.market.as_str()),
                Target::Currency(b) => b.append_value(instrument.market.currency()),
                Target::Label(b) => b.append_option(trade.anomaly.map(Anomaly::as_str)),
                Target::EventId(b) => {
                    let random = trade.random[..10].try_into().expect("ten bytes");
                    let millis = u64::try_from(trade.us.div_euclid(1_000)).unwrap_or(0);
                    b.append_value(Builder::from_unix_timestamp_millis(millis, random).into_uuid().hyphenated().encode_lower(&mut text));
                }
                Target::TradeId(b) => {
                    let random = trade.random[10..].try_into().expect("sixteen bytes");
                    b.append_value(Builder::from_random_bytes(random).into_uuid().hyphenated().encode_lower(&mut text));
                }
                Target::Null => {}
            }
        }
        self.n_rows += 1;
    }

    pub fn take(&mut self) -> RecordBatch {
        let n_rows = std::mem::take(&mut self.n_rows);
        let columns = self.columns.iter_mut().zip(&self.schema.columns);
        let arrays: Vec<ArrayRef> = columns.map(|(target, column)| target.finish(column.kind, n_rows)).collect();
        RecordBatch::try_new(Arc::clone(self.schema.arrow()), arrays)
            .expect("every column got a value per row, and null only where allowed")
    }
}

impl Target {
    fn finish(&mut self, kind: ColumnType, n_rows: usize) -> ArrayRef {
        match self {
            Self::Symbol(b)
            | Self::Side(b)
            | Self::TradeId(b)
            | Self::Market(b)
            | Self::Currency(b)
            | Self::EventId(b)
            | Self::Label(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Price(b, _) | Self::Quantity(b, _) => Arc::new(b.finish()),
            Self::Null => new_null_array(&kind.arrow(), n_rows),
        }
    }
}

fn target(schema: &StreamSchema, at: usize) -> Result<Target, SimulatorError> {
    let column = &schema.columns[at];
    let refuse = |reason| SimulatorError::Column { column: column.name.clone(), stream: schema.stream.to_string(), reason };
    let text = StringBuilder::new;
    Ok(match (column.name.as_str(), column.kind) {
        (_, ColumnType::Timestamp) if at == schema.event_time => {
            Target::Time(TimestampMicrosecondBuilder::new().with_data_type(column.kind.arrow()))
        }
        (_, ColumnType::Text) if at == schema.key => Target::Symbol(text()),
        ("price", ColumnType::Decimal { scale, precision }) if scale >= PRICE_DECIMALS && precision.cast_signed() - scale >= 8 => {
            Target::Price(
                Decimal128Builder::new().with_data_type(column.kind.arrow()),
                pow10((scale - PRICE_DECIMALS).unsigned_abs().into()),
            )
        }
        ("price", _) => return Err(refuse("it needs at least two decimals and eight whole digits")),
        ("quantity", ColumnType::Decimal { scale, precision }) if scale >= 0 && precision.cast_signed() - scale >= 8 => {
            Target::Quantity(Decimal128Builder::new().with_data_type(column.kind.arrow()), pow10(scale.unsigned_abs().into()))
        }
        ("quantity", _) => return Err(refuse("it needs at least eight whole digits")),
        ("side", ColumnType::Text) => Target::Side(text()),
        ("trade_id", ColumnType::Text) => Target::TradeId(text()),
        ("market", ColumnType::Text) => Target::Market(text()),
        ("currency", ColumnType::Text) => Target::Currency(text()),
        ("event_id", ColumnType::Text) => Target::EventId(text()),
        ("label", ColumnType::Text) if column.nullable => Target::Label(text()),
        _ if column.nullable => Target::Null,
        _ => return Err(refuse("it has no such value, and the column must not be null")),
    })
}
