//! Rows that were committed a moment ago, as their writer held them: whoever reads on at the end of a stream finds them decoded already.
//!
//! The log stays the truth. What is not here, because it is older, was written by somebody else or fell out to make room, is read from the
//! log and decoded, and gives the same rows. Nothing is put here before it is durable.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use mulgil_log::Committed;
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::{AppendTime, ReceiveTime};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rows that were committed apart are joined until a read has this many, so that a stream of single rows is not read one by one.
const JOIN_ROWS: usize = 2_048;

/// Readers that lag further behind than this reaches decode from the log.
pub struct Recent {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By the offset of the first row.
    partitions: HashMap<TopicPartition, BTreeMap<u64, Entry>>,
    /// In the order in which they came.
    oldest: VecDeque<(TopicPartition, u64)>,
    bytes: usize,
}

#[derive(Clone)]
struct Entry {
    batch: RecordBatch,
    appended: AppendTime,
    received: ReceiveTime,
}

/// A part of a batch on its way into one partition.
pub struct Dealt {
    pub to: TopicPartition,
    pub batch: RecordBatch,
    pub received: ReceiveTime,
}

impl Recent {
    /// `bytes_max` bounds what is kept of all streams together.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    /// Keeps what was dealt, whose appends were the first of the commit, in this order.
    pub fn keep(&self, dealt: Vec<Dealt>, committed: &Committed) {
        let mut kept = self.kept();
        for (Dealt { to, batch, received }, base) in dealt.into_iter().zip(&committed.base_offsets) {
            let entry = Entry { batch, appended: committed.append_time, received };
            kept.bytes += entry.bytes();
            kept.oldest.push_back((to.clone(), base.0));
            kept.partitions.entry(to).or_default().insert(base.0, entry);
        }
        while kept.bytes > self.bytes_max && kept.drop_oldest() {}
    }

    /// Up to `max_rows` rows from `from` on, if the first of them is here.
    pub fn find(&self, at: &TopicPartition, from: Offset, schema: &Arc<StreamSchema>, max_rows: usize) -> Result<Option<Rows>, ArrowError> {
        let found = self.kept().from(at, from.0, max_rows);
        if found.is_empty() {
            return Ok(None);
        }
        let (mut appended, mut received) = (Vec::new(), Vec::new());
        for entry in &found {
            appended.resize(appended.len() + entry.batch.num_rows(), entry.appended);
            received.resize(received.len() + entry.batch.num_rows(), entry.received);
        }
        let batch = match found.as_slice() {
            [one] => RecordBatch::try_new(Arc::clone(schema.arrow()), one.batch.columns().to_vec())?,
            many => concat_batches(schema.arrow(), many.iter().map(|entry| &entry.batch))?,
        };
        Ok(Some(Rows { schema: Arc::clone(schema), partition: at.partition, base: from, batch, appended, received }))
    }

    /// Of all that is kept.
    pub fn bytes(&self) -> usize {
        self.kept().bytes
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The rows from `from` on that follow each other without a hole; no more than [`JOIN_ROWS`] unless the first entry has more.
    fn from(&self, at: &TopicPartition, from: u64, max_rows: usize) -> Vec<Entry> {
        let mut found = Vec::new();
        let Some(entries) = self.partitions.get(at) else { return found };
        let first = entries.range(..=from).next_back().map_or(from, |(base, _)| *base);
        let (mut next, mut n_rows) = (from, 0);
        for (base, entry) in entries.range(first..) {
            let skipped = next.checked_sub(*base).and_then(|n| usize::try_from(n).ok());
            let Some(skipped) = skipped.filter(|n| *n < entry.batch.num_rows()) else { break };
            let n = (entry.batch.num_rows() - skipped).min(max_rows - n_rows);
            if n == 0 || (n_rows > 0 && n_rows + n > JOIN_ROWS) {
                break;
            }
            found.push(Entry { batch: entry.batch.slice(skipped, n), ..*entry });
            n_rows += n;
            next += n as u64;
        }
        found
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((at, base)) = self.oldest.pop_front() else { return false };
        if let Some(entries) = self.partitions.get_mut(&at) {
            let gone = entries.remove(&base);
            self.bytes -= gone.map_or(0, |entry| entry.bytes());
            if entries.is_empty() {
                self.partitions.remove(&at);
            }
        }
        true
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        self.batch.get_array_memory_size()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use mulgil_model::ids::{Partition, Topic};
    use mulgil_model::schema::{Column, ColumnType, StreamKind};

    fn schema() -> Arc<StreamSchema> {
        let columns = vec![
            Column::required("id", ColumnType::Text),
            Column::required("at", ColumnType::Timestamp),
            Column::required("n", ColumnType::Int),
        ];
        Arc::new(StreamSchema::new(Topic::new("things").unwrap(), StreamKind::Plain, columns, "id", "at").unwrap())
    }

    fn batch(n: std::ops::Range<i64>) -> RecordBatch {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(n.clone().map(|n| n.to_string()))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(n.clone()).with_timezone("UTC")),
            Arc::new(Int64Array::from_iter_values(n)),
        ];
        RecordBatch::try_new(Arc::clone(schema().arrow()), columns).unwrap()
    }

    fn at() -> TopicPartition {
        TopicPartition::new(Topic::new("things").unwrap(), Partition(0))
    }

    fn keep(recent: &Recent, rows: std::ops::Range<i64>) {
        let committed = Committed { base_offsets: vec![Offset(rows.start as u64)], append_time: AppendTime(rows.start) };
        recent.keep(vec![Dealt { to: at(), batch: batch(rows), received: ReceiveTime(7) }], &committed);
    }

    /// The offsets that a read gives; each row's number is its offset, and so is the append time of its commit's first row.
    fn read(recent: &Recent, from: u64, max_rows: usize) -> Vec<i64> {
        let Some(rows) = recent.find(&at(), Offset(from), &schema(), max_rows).unwrap() else { return vec![] };
        assert_eq!((rows.base, rows.appended.len(), rows.received.len()), (Offset(from), rows.len(), rows.len()));
        assert!(rows.appended.iter().zip(from as i64..).all(|(at, n)| at.0 <= n));
        rows.batch.column(2).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec()
    }

    #[test]
    fn rows_that_follow_each_other_are_joined_and_a_hole_ends_a_read() {
        let recent = Recent::new(1 << 20);
        [0..3, 3..5, 5..6, 8..10].into_iter().for_each(|rows| keep(&recent, rows));
        assert_eq!(read(&recent, 0, 100), [0, 1, 2, 3, 4, 5]);
        assert_eq!(read(&recent, 2, 2), [2, 3]);
        assert_eq!(read(&recent, 4, 100), [4, 5]);
        assert_eq!(read(&recent, 8, 1), [8]);
        for missing in [6, 7, 10, 11] {
            assert!(read(&recent, missing, 100).is_empty(), "{missing}");
        }
        assert!(recent.find(&TopicPartition::new(at().topic, Partition(1)), Offset(0), &schema(), 9).unwrap().is_none());
    }

    #[test]
    fn large_commits_are_handed_out_as_they_are() {
        let recent = Recent::new(1 << 20);
        [0..3_000, 3_000..6_000, 6_000..6_010].into_iter().for_each(|rows| keep(&recent, rows));
        assert_eq!(read(&recent, 0, 100_000).len(), 3_000);
        assert_eq!(read(&recent, 2_990, 100_000).len(), 10);
        assert_eq!(read(&recent, 6_000, 100_000).len(), 10);
    }

    #[test]
    fn the_oldest_rows_make_room() {
        let bytes = batch(0..100).get_array_memory_size();
        let recent = Recent::new(2 * bytes + bytes / 2);
        for base in (0..1_000).step_by(100) {
            keep(&recent, base..base + 100);
        }
        assert!(recent.bytes() <= 2 * bytes + bytes / 2);
        assert!(read(&recent, 700, 10).is_empty());
        assert_eq!(read(&recent, 850, 1_000).first(), Some(&850));
        let none = Recent::new(0);
        keep(&none, 0..100);
        assert!(read(&none, 0, 1).is_empty() && none.bytes() == 0);
    }
}
