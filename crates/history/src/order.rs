//! The order in which a tail's rows go into files: by day, then by (key, event time, partition, offset). Rows are put in order by their places
//! alone and gathered a piece at a time, so that a flush needs no second copy of the tail.

use crate::day::Day;
use crate::layout::Layout;
use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap};

/// Rows gathered at once: small enough to be written while they are in the processor's cache.
const GATHER_ROWS: usize = 8 * 1024;

/// Where a row stands, and what it is sorted by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The key's rank among the keys of the tail.
    key: u32,
    pub partition: i32,
    pub event_time: i64,
    pub offset: i64,
    batch: u32,
    row: u32,
}

/// The rows of one day, sorted.
pub(crate) struct SortedDay<'a> {
    keys: &'a [&'a str],
    pub places: Vec<Place>,
}

/// The places of all rows of `batches`, which outlive them, by day. The distinct keys come out in `keys`, in their order.
pub(crate) fn sorted_days<'a>(layout: &Layout, batches: &'a [RecordBatch], keys: &'a mut Vec<&'a str>) -> BTreeMap<Day, SortedDay<'a>> {
    let mut days: BTreeMap<Day, Vec<Place>> = BTreeMap::new();
    // Seeded anew by each process: keys come from strangers.
    let mut numbers: HashMap<&str, u32, RandomState> = HashMap::default();
    for (batch_at, batch) in batches.iter().enumerate() {
        let (names, times) = (layout.keys(batch), layout.event_times(batch).values());
        let (partitions, offsets) = (layout.partitions(batch).values(), layout.offsets(batch).values());
        for row in 0..batch.num_rows() {
            let key = *numbers.entry(names.value(row)).or_insert_with(|| {
                keys.push(names.value(row));
                (keys.len() - 1) as u32
            });
            let (event_time, partition, offset) = (times[row], partitions[row], offsets[row]);
            let place = Place { key, partition, event_time, offset, batch: batch_at as u32, row: row as u32 };
            days.entry(Day::of(event_time)).or_default().push(place);
        }
    }
    let ranks = rank(keys);
    let keys: &'a [&'a str] = keys;
    days.into_iter().map(|(day, places)| (day, SortedDay { keys, places: sorted(places, &ranks) })).collect()
}

/// By key first, in two passes over the rows; then each key's rows, which came nearly in order, so that sorting them costs little more than
/// looking at them.
fn sorted(places: Vec<Place>, ranks: &[u32]) -> Vec<Place> {
    let mut ends = vec![0_usize; ranks.len()];
    places.iter().for_each(|p| ends[ranks[p.key as usize] as usize] += 1);
    let mut sum = 0;
    for end in &mut ends {
        // Where the key's next row goes: its start now, its end when all rows have gone.
        sum += std::mem::replace(end, sum);
    }
    let mut sorted = places.clone();
    for place in places {
        let key = ranks[place.key as usize];
        let at = &mut ends[key as usize];
        sorted[*at] = Place { key, ..place };
        *at += 1;
    }
    let mut start = 0;
    for end in ends {
        sorted[start..end].sort_by_key(|p| (p.event_time, p.partition, p.offset));
        start = end;
    }
    sorted
}

/// Sorts the keys and says for each where it went.
fn rank(keys: &mut [&str]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..keys.len() as u32).collect();
    order.sort_unstable_by_key(|at| keys[*at as usize]);
    let mut ranks = vec![0; keys.len()];
    order.iter().enumerate().for_each(|(rank, at)| ranks[*at as usize] = rank as u32);
    keys.sort_unstable();
    ranks
}

impl SortedDay<'_> {
    /// The smallest and the largest key.
    pub fn key_range(&self) -> (&str, &str) {
        let key = |place: Option<&Place>| place.map_or("", |p| self.keys[p.key as usize]);
        (key(self.places.first()), key(self.places.last()))
    }

    /// The rows themselves, in order.
    pub fn gather<'b>(&'b self, batches: &'b [RecordBatch]) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + 'b {
        let sources: Vec<&RecordBatch> = batches.iter().collect();
        self.places.chunks(GATHER_ROWS).map(move |places| {
            let rows: Vec<(usize, usize)> = places.iter().map(|p| (p.batch as usize, p.row as usize)).collect();
            interleave_record_batch(&sources, &rows)
        })
    }
}
