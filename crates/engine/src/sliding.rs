//! Sliding windows: for every distinct time at which a group has a row, the rows of the `range` up to it, that time included.
//!
//! Published when the watermark has passed the time, in the order of (time, key). There are no revisions: a row behind the watermark is
//! late. A group keeps one accumulator per distinct time in its range and adds them up for each result, so this is for short ranges and
//! modest rates; features (crates/detect) are the fast way to have a trailing aggregate at every row.

use crate::error::EngineError;
use crate::keyed::Keyed;
use crate::layout::{Fields, put_bytes, put_i, put_u};
use crate::operator::OperatorStats;
use crate::panes::{Accumulator, Merge, Published};
use crate::state::{Snapshot, StateStore, StateValue};
use crate::window::Window;
use std::collections::BTreeMap;

pub struct Sliding<A> {
    range_us: i64,
    table: Keyed<Trail<A>>,
    /// Keys by the times that wait to be published.
    timers: BTreeMap<i64, Vec<Box<[u8]>>>,
    n_open: usize,
    purged_at: i64,
}

/// The accumulators of one key by time, earliest first. Layout, version 1: count, then per time: the time, accumulator (with its length).
struct Trail<A> {
    times: Vec<(i64, A)>,
}

impl<A> Default for Trail<A> {
    fn default() -> Self {
        Self { times: Vec::new() }
    }
}

impl<A: StateValue + Merge + Clone> Sliding<A> {
    pub fn new(operator: &str, range_us: i64, hot_max: usize) -> Self {
        Self { range_us, table: Keyed::new(operator, "trail", hot_max), timers: BTreeMap::new(), n_open: 0, purged_at: i64::MIN }
    }

    /// Rebuilds the timers: times at or behind the watermark are yet to be published.
    pub fn open(&mut self, watermark: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        let prefix = self.table.prefix().to_vec();
        let mut bad = None;
        store.scan(&prefix, &mut |key, bytes| {
            match Trail::<A>::read(bytes) {
                Ok(trail) => {
                    for (at, _) in trail.times.iter().filter(|(at, _)| *at >= watermark) {
                        self.n_open += 1;
                        self.timers.entry(*at).or_default().push(key[prefix.len()..].into());
                    }
                }
                Err(reason) => bad = Some(EngineError::State { prefix: self.table.label(), reason }),
            }
            bad.is_none()
        })?;
        bad.map_or(Ok(()), Err)
    }

    pub fn is_late(&self, event_time: i64, watermark: i64) -> bool {
        event_time < watermark
    }

    /// Adds a row that is not late.
    pub fn add<R>(&mut self, (key, at): (&[u8], i64), row: &R, store: &dyn StateStore) -> Result<(), EngineError>
    where
        A: Accumulator<R>,
    {
        let trail = self.table.get_or_insert_with(key, store, Trail::default)?;
        match trail.times.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(i) => trail.times[i].1.add(row),
            Err(i) => {
                trail.times.insert(i, (at, A::of(row)));
                self.n_open += 1;
                self.timers.entry(at).or_default().push(key.into());
            }
        }
        Ok(())
    }

    /// Publishes every time that the watermark has passed.
    pub fn close(&mut self, watermark: i64, store: &dyn StateStore, mut publish: impl FnMut(Published<'_, A>)) -> Result<(), EngineError> {
        while let Some(due) = self.timers.first_entry().filter(|t| *t.key() < watermark) {
            let (at, mut keys) = due.remove_entry();
            keys.sort_unstable();
            for key in keys {
                let window = Window { start: at.saturating_sub(self.range_us), end: at };
                let trail = self.table.get_or_insert_with(&key, store, Trail::default)?;
                trail.times.retain(|(t, _)| *t >= window.start);
                let mut parts = trail.times.iter().take_while(|(t, _)| *t <= at).map(|(_, acc)| acc);
                let mut acc = parts.next().expect("invariant: a timer has a time").clone();
                parts.for_each(|part| acc.merge(part));
                self.n_open -= 1;
                publish(Published { key: &key, series: 0, window, acc: &acc, revision: 0 });
            }
        }
        Ok(())
    }

    /// Groups without a row in the range are gone.
    pub fn snapshot(&mut self, watermark: i64, into: &mut Snapshot) {
        let range_us = self.range_us;
        self.table.snapshot(into, |_, trail| is_over(trail, watermark, range_us));
    }

    /// Looks for such groups in the store.
    pub fn purge(&mut self, watermark: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        if watermark < self.purged_at.saturating_add(PURGE_EVERY_US) {
            return Ok(());
        }
        self.purged_at = watermark;
        let range_us = self.range_us;
        self.table.sweep(store, SWEEP_MAX, |_, trail| is_over(trail, watermark, range_us))
    }

    pub fn stats(&self) -> OperatorStats {
        OperatorStats { n_late: 0, n_hot: self.table.n_hot(), n_dirty: self.table.n_dirty(), n_open_windows: self.n_open }
    }
}

/// How far the watermark moves between two looks for groups that are over (10 s), and the groups looked at each time.
const PURGE_EVERY_US: i64 = 10_000_000;
const SWEEP_MAX: usize = 4_096;

/// No row that may still come can have any of these in its range.
fn is_over<A>(trail: &Trail<A>, watermark: i64, range_us: i64) -> bool {
    trail.times.last().is_none_or(|(at, _)| at.saturating_add(range_us) < watermark)
}

impl<A: StateValue> StateValue for Trail<A> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u(out, self.times.len() as u128);
        let mut scratch = Vec::new();
        for (at, acc) in &self.times {
            put_i(out, (*at).into());
            scratch.clear();
            acc.write(&mut scratch);
            put_bytes(out, &scratch);
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(bytes, 1)?;
        let n = fields.count()?;
        let times = (0..n).map(|_| Ok((fields.i64()?, A::read(fields.bytes()?)?))).collect::<Result<Vec<_>, String>>()?;
        fields.end()?;
        if !times.is_sorted_by(|(one, _), (next, _)| one < next) {
            return Err("its times are not in ascending order".to_owned());
        }
        Ok(Self { times })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::testing::Count;

    #[test]
    fn times_that_do_not_ascend_are_refused() {
        for (times, is_good) in [(vec![], true), (vec![-3, 0, 5], true), (vec![5, -3], false), (vec![5, 5], false)] {
            let trail = Trail { times: times.iter().map(|at| (*at, Count(1))).collect() };
            let mut bytes = Vec::new();
            trail.write(&mut bytes);
            assert_eq!(Trail::<Count>::read(&bytes).is_ok(), is_good, "{times:?}");
        }
    }
}
