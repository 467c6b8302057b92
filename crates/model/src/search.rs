//! A question about a trade stream's past, and a page of the answer.

use crate::ids::Topic;
use crate::schema::StreamSchema;
use crate::time::EventTime;
use arrow::array::RecordBatch;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    Tick,
    Minute,
    Hour,
    Day,
}

impl Interval {
    pub const ALL: [Self; 4] = [Self::Tick, Self::Minute, Self::Hour, Self::Day];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tick => "tick",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|i| i.as_str() == text)
    }
}

/// Rows of `[from, to)` in event time, newest first. None in a filter means any.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    pub stream: Topic,
    pub symbol: Option<String>,
    pub side: Option<String>,
    pub market: Option<String>,
    pub from: EventTime,
    pub to: EventTime,
    pub interval: Interval,
    pub limit: usize,
    /// Continue behind this place.
    pub after: Option<SearchCursor>,
}

/// The last row of a page: where the next page begins. Ticks are ordered by (event time, partition, offset), bars by (start, symbol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchCursor {
    pub at: EventTime,
    pub tie: SearchTie,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SearchTie {
    Tick { partition: u32, offset: u64 },
    Bar { symbol: String },
}

/// `schema` is the stream's own for ticks, that of its bars for the other intervals.
#[derive(Debug, Clone)]
pub struct SearchPage {
    pub schema: Arc<StreamSchema>,
    pub batch: RecordBatch,
    pub next: Option<SearchCursor>,
}
