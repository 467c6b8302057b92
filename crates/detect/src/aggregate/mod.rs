//! What a feature keeps per key, and how it is written: `count`, `sum(quantity)`, `ewma(price, halflife '6h')`, `lag(close, '24h')`.
//!
//! One module per kind of state. Each is O(1) amortised per row, bounded in memory, and ordered by an *axis*: the event time for windows
//! of time, the number of the row for windows of rows. Rows that arrive out of order are put where their event time belongs.

pub mod cells;
pub mod ewma;
pub mod extreme;
pub mod lag;
pub mod values;

mod parse;

pub use parse::parse_aggregate;

use mulgil_model::time::parse_duration;

/// Rows of a window that are kept one by one. With more, a time window goes on in [`BUCKETS`] buckets, until half as many rows are left.
pub const ROWS_EXACT_MAX: u64 = 512;

/// Buckets of a time window that has more rows than are kept one by one. A bucket leaves with its newest row, so the window then reaches
/// up to 1/256 of its width further back.
pub const BUCKETS: i64 = 256;

/// The largest N of `last N`.
pub const LAST_MAX: u64 = ROWS_EXACT_MAX;

/// The longest time window and lag: 400 days, in microseconds.
pub const SPAN_MAX: i64 = 400 * 86_400 * 1_000_000;

/// Over which rows of the key a feature is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Rows with an event time in (T - width, T], where T is the latest event time of the key so far, the row under test included.
    Span {
        micros: i64,
    },
    /// The last N rows in order of arrival that pass the filter and are not null.
    Last {
        rows: u64,
    },
    Lifetime,
}

impl Window {
    /// Reads `10s`, `24h`, `last 20` or `lifetime`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "lifetime" {
            return Ok(Self::Lifetime);
        }
        if let Some(n) = text.strip_prefix("last ") {
            let rows = n.trim().parse().ok().filter(|n| (1..=LAST_MAX).contains(n));
            return rows
                .map(|rows| Self::Last { rows })
                .ok_or_else(|| format!("window '{text}' must be 'last N' with N from 1 to {LAST_MAX}"));
        }
        let micros = parse_duration(text)
            .map_err(|_| format!("'{text}' is not a window: write a duration such as 10s, 1h or 24h, or 'last 20', or 'lifetime'"))?;
        check_span(micros, text)?;
        Ok(Self::Span { micros })
    }

    /// How much of the axis the window covers; None when all of it.
    pub fn width(self) -> Option<i64> {
        match self {
            Self::Span { micros } => Some(micros),
            Self::Last { rows } => Some(rows as i64),
            Self::Lifetime => None,
        }
    }

    /// The width of one bucket on the axis.
    fn bucket(self) -> i64 {
        self.width().map_or(1, |w| (w / BUCKETS).max(1))
    }
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Span { micros } => write!(f, "{micros}us"),
            Self::Last { rows } => write!(f, "last {rows}"),
            Self::Lifetime => f.write_str("lifetime"),
        }
    }
}

fn check_span(micros: i64, text: &str) -> Result<(), String> {
    if (1..=SPAN_MAX).contains(&micros) { Ok(()) } else { Err(format!("'{text}' must be longer than zero and at most 400d")) }
}

/// The closed set of aggregates, with their parameters but without their column and window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregate {
    /// Rows.
    Count,
    Sum,
    Avg,
    Min,
    Max,
    /// Sample standard deviation.
    Stddev,
    /// The row's value divided by the average of the window.
    Ratio,
    /// How many standard deviations the row's value is away from the average of the window.
    Zscore,
    Ewma(ewma::Decay),
    /// The value `rows` rows earlier, 1 being the row before.
    LagRows {
        rows: u64,
    },
    /// The value as of `micros` earlier, if it is not older than `tolerance` more.
    LagTime {
        micros: i64,
        tolerance: i64,
    },
    /// Different values.
    Distinct,
    FirstSeen,
    /// Seconds since the key's row before.
    TimeSince,
}

/// Room for the first entry alone: most keys never have a second one, and there may be millions of keys.
fn room_for_one<T>(entries: &mut std::collections::VecDeque<T>) {
    if entries.capacity() == 0 {
        entries.reserve_exact(1);
    }
}
