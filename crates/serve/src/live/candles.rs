//! Candles as they grow: trades folded into windows aligned to the epoch, shown whenever they changed.

use super::chunk::{Chunk, newest};
use crate::measure;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Decimal128Type;
use mulgil_model::candle::{Candle, Side, Tick};
use mulgil_model::schema::{ColumnType, StreamSchema};
use mulgil_model::{decimal, json, time};
use std::collections::{BTreeMap, HashMap};

/// Tick lengths a client may choose, in seconds.
pub const TICK_SECONDS: std::ops::RangeInclusive<u32> = 1..=60;
/// Rows so much older than the newest still change their candle.
const LATENESS_US: i64 = 10_000_000;
/// Symbols one subscription may watch as candles; more are not shown.
pub const CANDLE_SYMBOLS_MAX: usize = 2000;

/// The candles of one subscription.
pub struct Candles {
    tick_us: i64,
    columns: Columns,
    symbols: HashMap<String, Windows>,
    /// The newest event time seen on the stream, of any symbol.
    newest: i64,
    /// Windows before this were not read from their start.
    floor: i64,
    /// The subscription's id; None writes the simple protocol's frames.
    id: Option<String>,
}

#[derive(Clone, Copy)]
struct Columns {
    price: usize,
    quantity: usize,
    side: Option<usize>,
    price_scale: i8,
    quantity_scale: i8,
}

#[derive(Default)]
struct Windows {
    /// By start.
    kept: BTreeMap<i64, Window>,
    /// End of the newest window that was let go.
    floor: i64,
}

struct Window {
    candle: Candle,
    is_changed: bool,
    closed_shown: bool,
    revision: u32,
}

impl Candles {
    /// None when the stream has no decimal `price` and `quantity`.
    pub fn new(schema: &StreamSchema, tick_seconds: u32, floor: i64, id: Option<String>) -> Option<Self> {
        let decimal = |name| match schema.column(name) {
            Ok((at, column)) => match column.kind {
                ColumnType::Decimal { scale, .. } => Some((at, scale)),
                _ => None,
            },
            Err(_) => None,
        };
        let ((price, price_scale), (quantity, quantity_scale)) = (decimal("price")?, decimal("quantity")?);
        let columns = Columns { price, quantity, side: schema.index_of("side"), price_scale, quantity_scale };
        let tick_us = i64::from(tick_seconds) * 1_000_000;
        Some(Self { tick_us, columns, symbols: HashMap::new(), newest: i64::MIN, floor: align(floor, tick_us), id })
    }

    /// Folds the rows in that pass `picked`. Changed windows that must be let go are written to `out` first.
    pub fn fold(&mut self, chunk: &Chunk, picked: impl Iterator<Item = usize>, out: &mut Vec<String>) {
        self.newest = self.newest.max(newest(&chunk.rows).unwrap_or(i64::MIN));
        let n_kept_max = (LATENESS_US / self.tick_us + 2) as usize;
        for row in picked {
            let Some(tick) = self.columns.tick(chunk, row) else { continue };
            let start = align(tick.at.0, self.tick_us);
            let symbol = chunk.key(row);
            if !self.symbols.contains_key(symbol) {
                if self.symbols.len() >= CANDLE_SYMBOLS_MAX {
                    continue;
                }
                self.symbols.insert(symbol.to_owned(), Windows { floor: self.floor, ..Windows::default() });
            }
            let windows = self.symbols.get_mut(symbol).expect("inserted above");
            if start < windows.floor {
                measure::late_row();
                continue;
            }
            windows.add(start, &tick);
            while windows.kept.len() > n_kept_max {
                let (start, mut window) = windows.kept.pop_first().expect("there is more than one");
                windows.floor = start + self.tick_us;
                if window.is_due(true) {
                    out.push(window.frame(&Shape {
                        symbol,
                        start,
                        closed: true,
                        tick_us: self.tick_us,
                        columns: self.columns,
                        id: self.id.as_deref(),
                    }));
                }
            }
        }
    }

    /// Writes every window that changed or closed since it was last shown, symbols in order.
    pub fn show(&mut self, out: &mut Vec<String>) {
        let mut symbols: Vec<_> = self.symbols.iter_mut().collect();
        symbols.sort_unstable_by(|a, b| a.0.cmp(b.0));
        for (symbol, windows) in symbols {
            for (&start, window) in &mut windows.kept {
                let closed = start + self.tick_us <= self.newest;
                if window.is_due(closed) {
                    out.push(window.frame(&Shape {
                        symbol,
                        start,
                        closed,
                        tick_us: self.tick_us,
                        columns: self.columns,
                        id: self.id.as_deref(),
                    }));
                }
            }
        }
    }

    /// After the state was built from the log: only the newest window of each symbol is news.
    pub fn forget_all_but_last(&mut self) {
        for windows in self.symbols.values_mut() {
            let n = windows.kept.len();
            for (start, window) in windows.kept.iter_mut().take(n.saturating_sub(1)) {
                window.is_changed = false;
                window.closed_shown = start + self.tick_us <= self.newest;
            }
        }
    }
}

impl Windows {
    fn add(&mut self, start: i64, tick: &Tick) {
        match self.kept.get_mut(&start) {
            Some(window) => {
                window.candle.add(tick);
                window.is_changed = true;
            }
            None => {
                self.kept.insert(start, Window { candle: Candle::of(tick), is_changed: true, closed_shown: false, revision: 0 });
            }
        }
    }
}

/// What a candle's frame says besides the candle.
struct Shape<'a> {
    symbol: &'a str,
    start: i64,
    closed: bool,
    tick_us: i64,
    columns: Columns,
    id: Option<&'a str>,
}

impl Window {
    fn is_due(&self, closed: bool) -> bool {
        self.is_changed || (closed && !self.closed_shown)
    }

    /// The frame; marks the window as shown.
    fn frame(&mut self, shape: &Shape) -> String {
        use std::fmt::Write;
        if self.closed_shown {
            self.revision += 1;
        }
        self.is_changed = false;
        self.closed_shown |= shape.closed;
        let mut out = String::with_capacity(256);
        out.push_str(r#"{"type":"candle_tick","ticker":"#);
        json::write_text(&mut out, shape.symbol);
        let c = &self.candle;
        let (price, quantity) = (shape.columns.price_scale, shape.columns.quantity_scale);
        for (lead, value, scale) in [
            (r#","data":{"open":"#, c.open, price),
            (r#","high":"#, c.high, price),
            (r#","low":"#, c.low, price),
            (r#","close":"#, c.close, price),
            (r#","volume":"#, c.volume, quantity),
        ] {
            out.push_str(lead);
            decimal::write(&mut out, value, scale);
        }
        let (start, end) = (time::format_micros(shape.start), time::format_micros(shape.start + shape.tick_us));
        let seconds = shape.tick_us / 1_000_000;
        write!(
            out,
            r#"}},"current_tick":{seconds},"start":"{start}","end":"{end}","count":{},"closed":{},"revision":{}"#,
            c.count, shape.closed, self.revision
        )
        .expect("writing to a String cannot fail");
        if let Some(id) = shape.id {
            out.push_str(r#","id":"#);
            json::write_text(&mut out, id);
        }
        out.push('}');
        out
    }
}

impl Columns {
    /// None for a row without price or quantity.
    fn tick(self, chunk: &Chunk, row: usize) -> Option<Tick> {
        let decimal = |at: usize| {
            let array = chunk.rows.column(at).as_primitive::<Decimal128Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        let side = self.side.map(|at| chunk.rows.column(at).as_string::<i32>()).filter(|a| a.is_valid(row)).map(|a| a.value(row));
        let arrival = chunk.base().0 + row as u64;
        Some(Tick {
            at: (chunk.event_time(row), arrival),
            price: decimal(self.price)?,
            quantity: decimal(self.quantity)?,
            side: Side::parse(side),
        })
    }
}

fn align(time: i64, tick_us: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(tick_us))
}
