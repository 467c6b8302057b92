//! Every limit of the history, with its unit and its default.

use mulgil_model::ids::Topic;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct HistoryConfig {
    /// A stream's tail is written to a file when it holds this many rows. Default 500,000.
    pub flush_rows: usize,
    /// ... or this many bytes in memory. Default 32 MiB.
    pub flush_bytes: usize,
    /// ... or when its oldest row was appended to the log this long ago. Default 60 s.
    pub flush_after: Duration,
    /// All tails together: beyond it `append` answers [`crate::HistoryError::Busy`] until a flush made room; at half of it the
    /// largest are due. Default 64 MiB.
    pub tail_bytes_max: usize,
    /// A smaller file is a candidate for compaction. Default 32 MiB.
    pub compact_small_bytes: u64,
    /// So many small files of like size of one stream and day are merged; of a day that is over, two are enough. Default 8.
    pub compact_files_min: usize,
    /// Compaction makes no file larger than this, by the sum of what it merges. Default 128 MiB.
    pub file_bytes_max: u64,
    pub retention: Retention,
    /// All files together; beyond it the oldest days go first, the newest stays. Default none.
    pub disk_budget_bytes: Option<u64>,
    /// The IANA zone of a trade stream's hour and day bars, where that is not UTC.
    pub time_zones: BTreeMap<Topic, String>,
    /// What one query may use, unless it says otherwise itself.
    pub query: QueryLimits,
    /// SQL queries at a time. Default 4.
    pub queries_max: usize,
    /// Searches at a time, apart from SQL. Default 8.
    pub searches_max: usize,
    /// How long a query waits for its turn before it is told that the history is busy. Default 2 s.
    pub wait_max: Duration,
    /// The largest page of a search. Default 10,000 rows.
    pub search_rows_max: usize,
    /// Footers of files kept in memory. Default 64 MiB.
    pub footer_cache_bytes: usize,
}

/// How long rows are kept, counted from the end of their day (UTC, event time). None keeps them for ever.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retention {
    pub default: Option<Duration>,
    /// Streams that differ from the default.
    pub streams: BTreeMap<Topic, Option<Duration>>,
}

impl Retention {
    pub(crate) fn of(&self, stream: &str) -> Option<Duration> {
        self.streams.iter().find(|(topic, _)| topic.as_str() == stream).map_or(self.default, |(_, kept)| *kept)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct QueryLimits {
    /// What sorts, joins and groups of one query may hold. Default 256 MiB.
    pub memory_bytes: usize,
    /// From the first word to the last row. Default 30 s.
    pub timeout: Duration,
    /// Rows of the answer. Default 1,000,000.
    pub rows_max: u64,
}

const MIB: usize = 1 << 20;

impl Default for QueryLimits {
    fn default() -> Self {
        Self { memory_bytes: 256 * MIB, timeout: Duration::from_secs(30), rows_max: 1_000_000 }
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            flush_rows: 500_000,
            flush_bytes: 32 * MIB,
            flush_after: Duration::from_secs(60),
            tail_bytes_max: 64 * MIB,
            compact_small_bytes: 32 * MIB as u64,
            compact_files_min: 8,
            file_bytes_max: 128 * MIB as u64,
            retention: Retention::default(),
            disk_budget_bytes: None,
            time_zones: BTreeMap::new(),
            query: QueryLimits::default(),
            queries_max: 4,
            searches_max: 8,
            wait_max: Duration::from_secs(2),
            search_rows_max: 10_000,
            footer_cache_bytes: 64 * MIB,
        }
    }
}
