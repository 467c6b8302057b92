//! Bars: open, high, low, close, volume, amount, VWAP, count and both sides' volume, per symbol and interval.
//!
//! A bar is published (revision 0) when the watermark reaches its end, in the order of (end, interval, symbol). A row that comes later,
//! but within the allowed lateness, is added to the bar it belongs to, and the bar is published again at once with the next revision:
//! one revision per late row. A bar that nobody traded in does not exist.
//!
//! A row is late when it is older than the watermark by more than the allowed lateness, whatever the interval: it goes to
//! `<stream>.late` and into no bar. So the bars of all intervals are made of the same rows, and sixty minutes add up to their hour.

use crate::calendar::{Calendar, Interval, zone};
use crate::error::EngineError;
use crate::late::LateRows;
use crate::layout::{Fields, put_i, put_u};
use crate::operator::{Input, Operator, OperatorStats};
use crate::output::Outputs;
use crate::panes::{Accumulator, Panes, Published, Series};
use crate::state::{Snapshot, StateStore, StateValue};
use crate::window::Window;
use arrow::array::{
    Array, ArrayBuilder, AsArray, Decimal128Array, Decimal128Builder, Int64Builder, RecordBatch, StringArray, StringBuilder,
};
use arrow::array::{ArrayRef, TimestampMicrosecondBuilder};
use arrow::datatypes::Decimal128Type;
use mulgil_model::candle::{Candle, Side, Tick};
use mulgil_model::ids::{Offset, Topic};
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use mulgil_model::streams::{TradeDecimals, bars};
use std::sync::Arc;

/// Unless configured otherwise, a bar can be revised for 1 h.
pub const ALLOWED_LATENESS_US: i64 = 3_600_000_000;
/// Unless configured otherwise, this many symbols and this many closed bars stay in memory.
pub const HOT_MAX: usize = 200_000;
/// The most intervals of one stream.
pub const INTERVALS_MAX: usize = 32;

#[derive(Debug, Clone)]
pub struct BarsSpec {
    /// The shard's input; a trade stream.
    pub input: Arc<StreamSchema>,
    /// What the names of the outputs begin with: `trades` gives `trades.bars.1m` and `trades.late`.
    pub stream: Topic,
    pub intervals: Vec<Interval>,
    /// IANA name of the market's time zone.
    pub zone: String,
    pub allowed_lateness_us: i64,
    pub hot_max: usize,
}

impl BarsSpec {
    /// The usual choices: bars of `input`, in UTC unless set.
    pub fn new(input: Arc<StreamSchema>, intervals: Vec<Interval>) -> Self {
        let stream = input.stream.clone();
        Self { input, stream, intervals, zone: "UTC".to_owned(), allowed_lateness_us: ALLOWED_LATENESS_US, hot_max: HOT_MAX }
    }
}

pub struct BarsOperator {
    columns: TradeColumns,
    calendars: Vec<Calendar>,
    tables: Vec<BarTable>,
    late: LateRows,
    panes: Panes<Candle>,
    /// Reused per row: the row's window in each interval.
    windows: Vec<(Series, Window)>,
}

/// Where a trade's fields are.
struct TradeColumns {
    price: usize,
    quantity: usize,
    side: usize,
}

impl BarsOperator {
    pub fn new(spec: &BarsSpec) -> Result<Self, EngineError> {
        let config = |e: &dyn std::fmt::Display| EngineError::Config(format!("bars of stream '{}': {e}", spec.stream));
        let (columns, decimals) = trade_columns(&spec.input).map_err(|e| config(&e))?;
        let zone = zone(&spec.zone).map_err(|e| config(&e))?;
        let mut intervals = spec.intervals.clone();
        intervals.sort_unstable();
        intervals.dedup();
        if intervals.is_empty() || intervals.len() > INTERVALS_MAX {
            return Err(config(&format!("give 1 to {INTERVALS_MAX} intervals")));
        }
        let tables = intervals.iter().map(|interval| {
            let stream = spec.stream.derived(&format!("bars.{interval}")).map_err(|e| config(&e))?;
            Ok(BarTable::new(Arc::new(bars(stream, decimals).map_err(|e| config(&e))?), decimals))
        });
        Ok(Self {
            columns,
            tables: tables.collect::<Result<_, EngineError>>()?,
            late: LateRows::new(&spec.input, spec.stream.derived("late").map_err(|e| config(&e))?),
            panes: Panes::new(NAME, spec.allowed_lateness_us, spec.hot_max),
            windows: Vec::with_capacity(intervals.len()),
            calendars: intervals.into_iter().map(|interval| Calendar::new(interval, zone.clone())).collect(),
        })
    }

    fn emit(&mut self, out: &mut Outputs) -> Result<(), EngineError> {
        self.tables.iter_mut().try_for_each(|table| table.emit(out))
    }
}

const NAME: &str = "bars";

impl Operator for BarsOperator {
    fn name(&self) -> &str {
        NAME
    }

    fn outputs(&self) -> Vec<Arc<StreamSchema>> {
        self.tables.iter().map(|t| &t.schema).chain([self.late.schema()]).map(Arc::clone).collect()
    }

    fn open(&mut self, _watermark: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        self.panes.open(store)
    }

    fn on_rows(&mut self, input: &Input<'_>, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let trades = Trades::of(input, &self.columns);
        let Self { calendars, tables, late, panes, windows, .. } = self;
        for i in 0..input.rows.len() {
            let (at, watermark) = (trades.times[i], input.watermark_at(i));
            if panes.is_late(at, watermark) {
                late.push(i);
            } else {
                windows.clear();
                windows.extend(calendars.iter_mut().map(|c| (c.interval().micros(), c.window_of(at))));
                let tick = trades.tick(i, input.offset_of(i));
                panes.add(trades.keys.value(i).as_bytes(), windows, &tick, watermark, store, |bar| append(tables, calendars, &bar))?;
            }
            panes.close(input.watermarks[i], store, |bar| append(tables, calendars, &bar))?;
        }
        late.emit(input, out)?;
        panes.purge(input.watermarks.last().copied().unwrap_or(input.watermark_before), store)?;
        self.emit(out)
    }

    fn on_watermark(&mut self, watermark: i64, _at: Offset, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let Self { calendars, tables, panes, .. } = self;
        panes.close(watermark, store, |bar| append(tables, calendars, &bar))?;
        panes.purge(watermark, store)?;
        self.emit(out)
    }

    fn n_due(&self, to: i64, max: usize) -> usize {
        self.panes.n_due(to, max)
    }

    fn close_ahead(&mut self, to: i64, at_most: usize, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let Self { calendars, tables, panes, .. } = self;
        panes.close_some(to, at_most, store, |bar| append(tables, calendars, &bar))?;
        self.emit(out)
    }

    fn snapshot(&mut self, watermark: i64, into: &mut Snapshot) {
        self.panes.snapshot(watermark, into);
    }

    fn stats(&self) -> OperatorStats {
        OperatorStats { n_late: self.late.n_total(), ..self.panes.stats() }
    }
}

/// Bars of an interval that is no longer configured close without being published.
fn append(tables: &mut [BarTable], calendars: &[Calendar], bar: &Published<'_, Candle>) {
    if let Some(at) = calendars.iter().position(|c| c.interval().micros() == bar.series) {
        tables[at].append(bar);
    }
}

fn trade_columns(input: &StreamSchema) -> Result<(TradeColumns, TradeDecimals), String> {
    if input.kind != StreamKind::Trade {
        return Err("it is not a trade stream: set kind = \"trade\"".to_owned());
    }
    let decimal = |name: &str| match input.column(name) {
        Ok((at, column)) => match column.kind {
            ColumnType::Decimal { scale, .. } if !column.nullable && scale <= TradeDecimals::SCALE_MAX => Ok((at, scale)),
            _ => Err(format!("column '{name}' must be a decimal of at most {} decimals, and not null", TradeDecimals::SCALE_MAX)),
        },
        Err(e) => Err(e.to_string()),
    };
    let ((price, price_scale), (quantity, quantity_scale)) = (decimal("price")?, decimal("quantity")?);
    let (side, column) = input.column("side").map_err(|e| e.to_string())?;
    if column.kind != ColumnType::Text {
        return Err("column 'side' must be text".to_owned());
    }
    Ok((TradeColumns { price, quantity, side }, TradeDecimals { price_scale, quantity_scale }))
}

/// A batch's columns, looked up once.
struct Trades<'a> {
    keys: &'a StringArray,
    times: &'a [i64],
    prices: &'a Decimal128Array,
    quantities: &'a Decimal128Array,
    sides: &'a StringArray,
}

impl<'a> Trades<'a> {
    fn of(input: &Input<'a>, columns: &TradeColumns) -> Self {
        Self {
            keys: input.rows.keys(),
            times: input.rows.event_times().values(),
            prices: input.rows.column(columns.price).as_primitive::<Decimal128Type>(),
            quantities: input.rows.column(columns.quantity).as_primitive::<Decimal128Type>(),
            sides: input.rows.column(columns.side).as_string(),
        }
    }

    fn tick(&self, i: usize, offset: Offset) -> Tick {
        Tick {
            at: (self.times[i], offset.0),
            price: self.prices.value(i),
            quantity: self.quantities.value(i),
            side: Side::parse(self.sides.is_valid(i).then(|| self.sides.value(i))),
        }
    }
}

impl Accumulator<Tick> for Candle {
    fn of(tick: &Tick) -> Self {
        Candle::of(tick)
    }

    fn add(&mut self, tick: &Tick) {
        Candle::add(self, tick);
    }
}

/// Layout, version 1: time and offset of the opening trade, those of the closing trade as differences, open, high - open, low - open,
/// close - open, volume, amount, count, buy volume, sell volume.
impl StateValue for Candle {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_i(out, self.open_at.0.into());
        put_u(out, self.open_at.1.into());
        put_i(out, i128::from(self.close_at.0) - i128::from(self.open_at.0));
        put_i(out, i128::from(self.close_at.1) - i128::from(self.open_at.1));
        put_i(out, self.open);
        for price in [self.high, self.low, self.close] {
            put_i(out, price.wrapping_sub(self.open));
        }
        put_i(out, self.volume);
        put_i(out, self.amount);
        put_u(out, self.count.into());
        put_i(out, self.buy_volume);
        put_i(out, self.sell_volume);
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(bytes, 1)?;
        let open_at = (fields.i64()?, fields.u64()?);
        let beyond = |_| "a closing trade lies beyond all time".to_owned();
        let close_at = (
            fields.i()?.saturating_add(open_at.0.into()).try_into().map_err(beyond)?,
            fields.i()?.saturating_add(open_at.1.into()).try_into().map_err(beyond)?,
        );
        let open = fields.i()?;
        let mut price = || fields.i().map(|p| open.wrapping_add(p));
        let (high, low, close) = (price()?, price()?, price()?);
        let (volume, amount, count) = (fields.i()?, fields.i()?, fields.u64()?);
        let candle =
            Self { open_at, close_at, open, high, low, close, volume, amount, count, buy_volume: fields.i()?, sell_volume: fields.i()? };
        fields.end()?;
        Ok(candle)
    }
}

/// Bars of one interval on their way out, as columns.
struct BarTable {
    schema: Arc<StreamSchema>,
    decimals: TradeDecimals,
    symbol: StringBuilder,
    start: TimestampMicrosecondBuilder,
    end: TimestampMicrosecondBuilder,
    prices: [Decimal128Builder; 4],
    volume: Decimal128Builder,
    amount: Decimal128Builder,
    vwap: Decimal128Builder,
    count: Int64Builder,
    sides: [Decimal128Builder; 2],
    revision: Int64Builder,
}

impl BarTable {
    fn new(schema: Arc<StreamSchema>, decimals: TradeDecimals) -> Self {
        let decimal = |kind: ColumnType| Decimal128Builder::new().with_data_type(kind.arrow());
        let time = || TimestampMicrosecondBuilder::new().with_data_type(ColumnType::Timestamp.arrow());
        Self {
            schema,
            decimals,
            symbol: StringBuilder::new(),
            start: time(),
            end: time(),
            prices: std::array::from_fn(|_| decimal(decimals.price())),
            volume: decimal(decimals.volume()),
            amount: decimal(decimals.amount()),
            vwap: decimal(decimals.vwap()),
            count: Int64Builder::new(),
            sides: std::array::from_fn(|_| decimal(decimals.volume())),
            revision: Int64Builder::new(),
        }
    }

    fn append(&mut self, bar: &Published<'_, Candle>) {
        let candle = bar.acc;
        // Keys are text columns: they were UTF-8 when they came, and are never cut.
        self.symbol.append_value(String::from_utf8_lossy(bar.key));
        self.start.append_value(bar.window.start);
        self.end.append_value(bar.window.end);
        for (column, price) in self.prices.iter_mut().zip([candle.open, candle.high, candle.low, candle.close]) {
            column.append_value(price);
        }
        self.volume.append_value(candle.volume);
        self.amount.append_value(candle.amount);
        self.vwap.append_option(candle.vwap(self.decimals.price_scale, self.decimals.quantity_scale));
        self.count.append_value(candle.count as i64);
        self.sides[0].append_value(candle.buy_volume);
        self.sides[1].append_value(candle.sell_volume);
        self.revision.append_value(bar.revision.into());
    }

    fn emit(&mut self, out: &mut Outputs) -> Result<(), EngineError> {
        if self.revision.is_empty() {
            return Ok(());
        }
        let [open, high, low, close] = &mut self.prices;
        let [buy, sell] = &mut self.sides;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.symbol.finish()),
            Arc::new(self.start.finish()),
            Arc::new(self.end.finish()),
            Arc::new(open.finish()),
            Arc::new(high.finish()),
            Arc::new(low.finish()),
            Arc::new(close.finish()),
            Arc::new(self.volume.finish()),
            Arc::new(self.amount.finish()),
            Arc::new(self.vwap.finish()),
            Arc::new(self.count.finish()),
            Arc::new(buy.finish()),
            Arc::new(sell.finish()),
            Arc::new(self.revision.finish()),
        ];
        out.emit(&self.schema, RecordBatch::try_new(Arc::clone(self.schema.arrow()), columns)?);
        Ok(())
    }
}
