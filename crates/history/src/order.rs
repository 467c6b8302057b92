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
#[derive(Debug, Clone, Copy, Default)]
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

/// Where a row stands, before anything else of it is looked at.
struct At {
    /// Its key's number, in the order in which they were met.
    key: u32,
    batch: u32,
    row: u32,
}

/// The rows of `batches`, which outlive them, day by day; each day is sorted when it is asked for. The distinct keys come out in `keys`, in
/// their order.
pub(crate) fn sorted_days<'a>(
    layout: &'a Layout,
    batches: &'a [RecordBatch],
    keys: &'a mut Vec<&'a str>,
) -> impl Iterator<Item = SortedDay<'a>> {
    let days = rows_of_days(layout, batches, keys);
    let ranks = rank(keys);
    let keys: &'a [&'a str] = keys;
    days.into_values().map(move |rows| SortedDay { keys, places: sorted(layout, batches, &rows, &ranks) })
}

fn rows_of_days<'a>(layout: &Layout, batches: &'a [RecordBatch], keys: &mut Vec<&'a str>) -> BTreeMap<Day, Vec<At>> {
    let mut n_rows: BTreeMap<Day, usize> = BTreeMap::new();
    for batch in batches {
        by_day(layout.event_times(batch).values()).for_each(|(day, n)| *n_rows.entry(day).or_default() += n);
    }
    let mut days: BTreeMap<Day, Vec<At>> = n_rows.into_iter().map(|(day, n)| (day, Vec::with_capacity(n))).collect();
    // Seeded anew by each process: keys come from strangers.
    let mut numbers: HashMap<&str, u32, RandomState> = HashMap::default();
    for (batch_at, batch) in batches.iter().enumerate() {
        let (names, mut row) = (layout.keys(batch), 0);
        for (day, n) in by_day(layout.event_times(batch).values()) {
            let rows = days.get_mut(&day).expect("invariant: every row's day was counted");
            for _ in 0..n {
                let key = *numbers.entry(names.value(row)).or_insert_with(|| {
                    keys.push(names.value(row));
                    (keys.len() - 1) as u32
                });
                rows.push(At { key, batch: batch_at as u32, row: row as u32 });
                row += 1;
            }
        }
    }
    days
}

/// Neighbours of one day, counted.
fn by_day(event_times: &[i64]) -> impl Iterator<Item = (Day, usize)> {
    event_times.chunk_by(|a, b| Day::of(*a) == Day::of(*b)).map(|times| (Day::of(times[0]), times.len()))
}

/// By key first, in two passes over the rows; then each key's rows, which came nearly in order, so that sorting them costs little more than
/// looking at them.
fn sorted(layout: &Layout, batches: &[RecordBatch], rows: &[At], ranks: &[u32]) -> Vec<Place> {
    let mut ends = vec![0_usize; ranks.len()];
    rows.iter().for_each(|at| ends[ranks[at.key as usize] as usize] += 1);
    let mut sum = 0;
    for end in &mut ends {
        // Where the key's next row goes: its start now, its end when all rows have gone.
        sum += std::mem::replace(end, sum);
    }
    let mut sorted = vec![Place::default(); rows.len()];
    for of_batch in rows.chunk_by(|a, b| a.batch == b.batch) {
        let batch = &batches[of_batch[0].batch as usize];
        let (partitions, offsets) = (layout.partitions(batch).values(), layout.offsets(batch).values());
        let times = layout.event_times(batch).values();
        for &At { key, batch, row } in of_batch {
            let (key, at) = (ranks[key as usize], row as usize);
            let place = &mut ends[key as usize];
            sorted[*place] = Place { key, partition: partitions[at], event_time: times[at], offset: offsets[at], batch, row };
            *place += 1;
        }
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
