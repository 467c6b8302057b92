//! Bars of a search: windows on a local clock, the newest few of many, and their batch.

use crate::error::HistoryError;
use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use mulgil_model::candle::Candle;
use mulgil_model::schema::{ColumnType, StreamSchema};
use mulgil_model::search::Interval;
use std::collections::BTreeMap;
use std::sync::Arc;

const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;

/// Finds the windows [start, end) of one interval in one zone: minutes and hours where the local clock reads a multiple, cut where the
/// clock is put forward or back; days from midnight to midnight.
#[derive(Debug, Clone)]
pub(crate) struct Windows {
    interval: Interval,
    zone: TimeZone,
    last: (i64, i64),
}

impl Windows {
    pub fn new(interval: Interval, zone: &TimeZone) -> Self {
        Self { interval, zone: zone.clone(), last: (0, 0) }
    }

    /// The window that `t` (microseconds) lies in. Neighbours in time cost a comparison.
    pub fn of(&mut self, t: i64) -> (i64, i64) {
        if !(self.last.0 <= t && t < self.last.1) {
            self.last = match self.interval {
                Interval::Tick => (t, t + 1),
                Interval::Minute => self.fixed(t, MINUTE_US),
                Interval::Hour => self.fixed(t, HOUR_US),
                Interval::Day => self.day(t).unwrap_or_else(|| self.fixed(t, 24 * HOUR_US)),
            };
        }
        self.last
    }

    fn fixed(&self, t: i64, us: i64) -> (i64, i64) {
        let Ok(at) = Timestamp::from_microsecond(t) else { return (t.div_euclid(us) * us, t.div_euclid(us) * us + us) };
        let offset = |at: Timestamp| i64::from(self.zone.to_offset(at).seconds()) * 1_000_000;
        let start = (t + offset(at)).div_euclid(us) * us - offset(at);
        let (mut from, mut until) = (start, start + us);
        let differs = |us: i64| Timestamp::from_microsecond(us).is_ok_and(|other| offset(other) != offset(at));
        if differs(start) {
            let changes = self.zone.preceding(Timestamp::from_microsecond(t + 1).unwrap_or(at)).map(|c| c.timestamp().as_microsecond());
            from = changes.take_while(|us| *us > start).last().unwrap_or(from);
        }
        if differs(until - 1) {
            until = self.zone.following(at).map(|c| c.timestamp().as_microsecond()).next().unwrap_or(until);
        }
        (from, until)
    }

    /// None beyond the years that jiff knows.
    fn day(&self, t: i64) -> Option<(i64, i64)> {
        let mut date = Timestamp::from_microsecond(t).ok()?.to_zoned(self.zone.clone()).date();
        let midnight = |date: jiff::civil::Date| Some(date.to_zoned(self.zone.clone()).ok()?.timestamp().as_microsecond());
        let mut start = midnight(date)?;
        loop {
            date = date.tomorrow().ok()?;
            let end = midnight(date)?;
            if end > t {
                return Some((start, end));
            }
            start = end;
        }
    }
}

/// Among the zones compiled in, so that the machine's own tables cannot change an answer.
pub(crate) fn zone(name: &str) -> Result<TimeZone, HistoryError> {
    let unknown = |_| HistoryError::User(format!("'{name}' is not a known time zone: use an IANA name such as Asia/Seoul or UTC"));
    TimeZoneDatabase::bundled().get(name).map_err(unknown)
}

/// One row of a bar stream; decimals unscaled, at the scales of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bar {
    pub start: i64,
    pub end: i64,
    /// Open, high, low, close, volume, amount, buy volume, sell volume.
    pub values: [i128; 8],
    pub vwap: Option<i128>,
    pub count: i64,
    pub revision: i64,
}

const VALUES: [&str; 8] = ["open", "high", "low", "close", "volume", "amount", "buy_volume", "sell_volume"];

impl Bar {
    pub fn open(candle: &Candle, (start, end): (i64, i64), price_scale: i8, quantity_scale: i8) -> Self {
        let c = candle;
        Self {
            start,
            end,
            values: [c.open, c.high, c.low, c.close, c.volume, c.amount, c.buy_volume, c.sell_volume],
            vwap: c.vwap(price_scale, quantity_scale),
            count: i64::try_from(c.count).unwrap_or(i64::MAX),
            revision: 0,
        }
    }
}

/// The columns of a batch that has those of a bar stream.
pub(crate) struct BarColumns<'a> {
    pub symbols: &'a StringArray,
    starts: &'a TimestampMicrosecondArray,
    ends: &'a TimestampMicrosecondArray,
    values: [&'a Decimal128Array; 8],
    vwaps: &'a Decimal128Array,
    counts: &'a Int64Array,
    pub revisions: &'a Int64Array,
}

impl<'a> BarColumns<'a> {
    pub fn of(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("a bar without '{name}'")));
        let decimals = |name: &str| Ok::<_, ArrowError>(column(name)?.as_primitive::<Decimal128Type>());
        let mut values = [decimals("open")?; 8];
        for (value, name) in values.iter_mut().zip(VALUES) {
            *value = decimals(name)?;
        }
        Ok(Self {
            symbols: column("symbol")?.as_string(),
            starts: column("start")?.as_primitive::<TimestampMicrosecondType>(),
            ends: column("event_time")?.as_primitive::<TimestampMicrosecondType>(),
            values,
            vwaps: decimals("vwap")?,
            counts: column("count")?.as_primitive::<Int64Type>(),
            revisions: column("revision")?.as_primitive::<Int64Type>(),
        })
    }

    pub fn start(&self, row: usize) -> i64 {
        self.starts.value(row)
    }

    pub fn bar(&self, row: usize) -> Bar {
        Bar {
            start: self.starts.value(row),
            end: self.ends.value(row),
            values: self.values.map(|column| column.value(row)),
            vwap: self.vwaps.is_valid(row).then(|| self.vwaps.value(row)),
            count: self.counts.value(row),
            revision: self.revisions.value(row),
        }
    }
}

/// A batch of bars of `schema` (that of `mulgil_model::streams::bars`).
pub(crate) fn batch(schema: &StreamSchema, bars: &[(String, Bar)]) -> Result<RecordBatch, ArrowError> {
    let times = |f: fn(&Bar) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(bars.iter().map(|(_, b)| f(b))).with_timezone("UTC"))
    };
    let ints = |f: fn(&Bar) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(bars.iter().map(|(_, b)| f(b)))) };
    let column = |c: &mulgil_model::schema::Column| -> Result<ArrayRef, ArrowError> {
        Ok(match (c.name.as_str(), c.kind) {
            ("symbol", _) => Arc::new(StringArray::from_iter_values(bars.iter().map(|(symbol, _)| symbol))),
            ("start", _) => times(|b| b.start),
            ("event_time", _) => times(|b| b.end),
            ("count", _) => ints(|b| b.count),
            ("revision", _) => ints(|b| b.revision),
            ("vwap", ColumnType::Decimal { precision, scale }) => {
                Arc::new(bars.iter().map(|(_, b)| b.vwap).collect::<Decimal128Array>().with_precision_and_scale(precision, scale)?)
            }
            (name, ColumnType::Decimal { precision, scale }) => {
                let at = VALUES.iter().position(|v| *v == name);
                let at = at.ok_or_else(|| ArrowError::SchemaError(format!("a bar has no '{name}'")))?;
                let values = Decimal128Array::from_iter_values(bars.iter().map(|(_, b)| b.values[at]));
                Arc::new(values.with_precision_and_scale(precision, scale)?)
            }
            (name, _) => return Err(ArrowError::SchemaError(format!("a bar has no '{name}'"))),
        })
    };
    RecordBatch::try_new(Arc::clone(schema.arrow()), schema.columns.iter().map(column).collect::<Result<_, _>>()?)
}

/// The `n` newest of any number of (start, symbol), below a bound. What falls out can never come back: only larger keys pushed it out, and
/// they stay. So a fold over rows in any order is right with the memory of one page.
#[derive(Debug)]
pub(crate) struct Newest<V> {
    n: usize,
    below: Option<(i64, String)>,
    held: BTreeMap<(i64, String), V>,
}

impl<V> Newest<V> {
    pub fn new(n: usize, below: Option<(i64, String)>) -> Self {
        Self { n, below, held: BTreeMap::new() }
    }

    pub fn is_full(&self) -> bool {
        self.held.len() >= self.n
    }

    fn is_too_old(&self, start: i64) -> bool {
        self.is_full() && self.held.first_key_value().is_some_and(|((oldest, _), _)| start < *oldest)
    }

    /// Changes what is held of a key, or begins with `first`.
    pub fn fold(&mut self, start: i64, symbol: &str, first: impl FnOnce() -> V, change: impl FnOnce(&mut V)) {
        // Most rows end here, before a key is made.
        if self.is_too_old(start) || self.below.as_ref().is_some_and(|(at, tie)| (start, symbol) >= (*at, tie.as_str())) {
            return;
        }
        self.held.entry((start, symbol.to_owned())).and_modify(change).or_insert_with(first);
        if self.held.len() > self.n {
            self.held.pop_first();
        }
    }

    /// Newest first.
    pub fn into_rows(self) -> Vec<((i64, String), V)> {
        self.held.into_iter().rev().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_model::time::{EpochUnit, format_micros, parse_micros};

    #[test]
    fn windows_on_local_clocks() {
        let check = |interval, name: &str, at: &str, want: &str| {
            let (start, end) = Windows::new(interval, &zone(name).unwrap()).of(parse_micros(at, EpochUnit::Micros).unwrap());
            assert_eq!(format!("{} .. {}", format_micros(start), format_micros(end)), want, "{at} in {name}");
        };
        check(Interval::Minute, "UTC", "2019-07-05T17:00:59.999999Z", "2019-07-05T17:00:00Z .. 2019-07-05T17:01:00Z");
        check(Interval::Hour, "Asia/Kolkata", "2024-01-01T00:00:00Z", "2023-12-31T23:30:00Z .. 2024-01-01T00:30:00Z");
        check(Interval::Day, "Asia/Seoul", "2019-07-05T14:59:59Z", "2019-07-04T15:00:00Z .. 2019-07-05T15:00:00Z");
        check(Interval::Day, "Asia/Seoul", "2019-07-05T15:00:00Z", "2019-07-05T15:00:00Z .. 2019-07-06T15:00:00Z");
        check(Interval::Day, "America/New_York", "2024-03-10T12:00:00Z", "2024-03-10T05:00:00Z .. 2024-03-11T04:00:00Z");
        check(Interval::Day, "America/New_York", "2024-11-03T12:00:00Z", "2024-11-03T04:00:00Z .. 2024-11-04T05:00:00Z");
        check(Interval::Hour, "America/New_York", "2024-11-03T06:30:00Z", "2024-11-03T06:00:00Z .. 2024-11-03T07:00:00Z");
        check(Interval::Hour, "Australia/Lord_Howe", "2024-04-06T14:10:00Z", "2024-04-06T14:00:00Z .. 2024-04-06T15:00:00Z");
        check(Interval::Hour, "Australia/Lord_Howe", "2024-04-06T15:10:00Z", "2024-04-06T15:00:00Z .. 2024-04-06T15:30:00Z");
        check(Interval::Day, "America/Toronto", "1990-10-28T04:30:00Z", "1990-10-28T04:00:00Z .. 1990-10-29T05:00:00Z");
        assert!(zone("Asia/Soul").is_err());
    }

    #[test]
    fn newest_keeps_the_top_whatever_the_order() {
        let rows = [(3, "b"), (1, "a"), (3, "a"), (2, "z"), (1, "a"), (3, "b"), (4, "q"), (2, "z"), (3, "a")];
        let count = |rows: &mut dyn Iterator<Item = &(i64, &str)>| {
            let mut newest = Newest::new(3, Some((4, "a".to_owned())));
            rows.for_each(|(start, symbol)| newest.fold(*start, symbol, || 1, |n| *n += 1));
            newest.into_rows()
        };
        let want = vec![((3, "b".to_owned()), 2), ((3, "a".to_owned()), 2), ((2, "z".to_owned()), 2)];
        assert_eq!(count(&mut rows.iter()), want);
        assert_eq!(count(&mut rows.iter().rev()), want);
    }
}
