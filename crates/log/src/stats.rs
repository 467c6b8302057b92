//! Figures of a running journal, for metrics.

use std::sync::Arc;

/// Upper bounds, in microseconds, of [`Stats::sync_us_histogram`]; the last count is of what is above all of them.
pub const SYNC_BUCKETS_US: [u64; 12] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 1_000_000];

/// Since the journal was opened, except where it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub n_commits: u64,
    /// Commits that were answered with an error, whatever the reason.
    pub n_refused: u64,
    pub n_records: u64,
    /// Group commits: one write and one sync each.
    pub n_groups: u64,
    pub written_bytes: u64,
    pub n_syncs: u64,
    pub sync_us_sum: u64,
    pub sync_us_max: u64,
    /// Counts of syncs, not cumulative; see [`SYNC_BUCKETS_US`].
    pub sync_us_histogram: [u64; SYNC_BUCKETS_US.len() + 1],
    /// Now: commits in the open group, which wait to be taken up. At most [`crate::JournalConfig::group_commits`].
    pub n_waiting: usize,
    /// Now: commits that were begun and are not settled, those that wait included.
    pub n_in_flight: usize,
    /// Now: bytes of those commits. At most twice [`crate::JournalConfig::group_bytes`], and two commits.
    pub group_bytes: usize,
    /// Now: the buffer kept for the next group. At most [`crate::JournalConfig::spare_bytes`].
    pub spare_bytes: usize,
    /// Now: indexes of sealed segments in memory. At most [`crate::JournalConfig::index_cache_bytes`], and one index.
    pub index_cache_bytes: usize,
    /// Now: what the system was left to keep in its file cache of what was written. At most [`crate::JournalConfig::file_cache_bytes`] and some MiB.
    pub file_cache_bytes: u64,
    /// Now: sealed segments that are open for reading. At most [`crate::JournalConfig::open_segments`].
    pub open_segments: usize,
    /// Now: the index of the segment that is written to, 24 bytes for each batch in it.
    pub active_index_bytes: usize,
    /// Now: at most [`crate::MAX_PARTITIONS`].
    pub n_partitions: usize,
    /// Now: at most [`crate::MAX_PROGRESS`].
    pub n_progress: usize,
    /// Now: segments on disk.
    pub n_segments: usize,
    /// Now: bytes of all segments.
    pub journal_bytes: u64,
    /// Now: written but not known durable (only with relaxed durability).
    pub unsynced_bytes: u64,
    /// Why the journal stopped, if it did.
    pub poisoned: Option<Arc<str>>,
}

impl Stats {
    pub(crate) fn count_sync(&mut self, us: u64) {
        self.n_syncs += 1;
        self.sync_us_sum += us;
        self.sync_us_max = self.sync_us_max.max(us);
        self.sync_us_histogram[SYNC_BUCKETS_US.partition_point(|bound| *bound < us)] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_counted_by_their_time() {
        let mut stats = Stats::default();
        for us in [0, 50, 51, 2_000_000] {
            stats.count_sync(us);
        }
        assert_eq!((stats.n_syncs, stats.sync_us_sum, stats.sync_us_max), (4, 2_000_101, 2_000_000));
        assert_eq!(stats.sync_us_histogram, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
