//! Earlier values: the one N rows before, and the one as of some time ago.

use super::room_for_one;
use mulgil_engine::layout::{Fields, put_i, put_i64, put_u64};
use std::collections::VecDeque;

/// The largest N of `lag(column, N)`.
pub const LAG_ROWS_MAX: u64 = 512;

/// Rows kept for `lag(column, 'time')`: more than two days of minute bars. Above it, only the latest row of each 1/2048 of the lag is kept.
pub const LAG_ENTRIES_MAX: usize = 4_096;
const LAG_BUCKETS: i64 = 2_048;

/// The last values in order of arrival.
///
/// Layout: number of entries, then per entry, oldest first: offset less that of the entry before, value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LagRows {
    entries: VecDeque<(u64, i128)>,
}

impl LagRows {
    /// The value `rows` rows ago, and its offset.
    pub fn value(&self, rows: u64) -> Option<(i128, u64)> {
        let index = self.entries.len().checked_sub(usize::try_from(rows).ok()?)?;
        self.entries.get(index).map(|(offset, value)| (*value, *offset))
    }

    pub fn add(&mut self, offset: u64, value: i128, rows: u64) {
        room_for_one(&mut self.entries);
        self.entries.push_back((offset, value));
        if self.entries.len() as u64 > rows {
            self.entries.pop_front();
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.entries.len() as u64);
        let mut before = 0i64;
        for (offset, value) in &self.entries {
            put_i64(out, (*offset as i64).wrapping_sub(before));
            put_i(out, *value);
            before = *offset as i64;
        }
    }

    pub fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let n = bytes.count()?;
        let (mut entries, mut offset) = (VecDeque::with_capacity(n), 0i64);
        for _ in 0..n {
            offset = offset.wrapping_add(bytes.i64()?);
            entries.push_back((offset as u64, bytes.i()?));
        }
        Ok(Self { entries })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Past {
    at: i64,
    offset: u64,
    value: i128,
}

/// Rows by event time: those of the last `lag`, and the one before them.
///
/// Layout: number of entries, then per entry by time: time less that of the entry before, offset less that of the entry before, value
/// less that of the entry before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LagTime {
    entries: VecDeque<Past>,
}

impl LagTime {
    /// The value of the latest row at or before `now - lag`, if that row is less than `tolerance` older; and its offset.
    pub fn value(&mut self, now: i64, lag: i64, tolerance: i64) -> Option<(i128, u64)> {
        self.advance(now, lag);
        let as_of = now.saturating_sub(lag);
        let entry = self.entries.front().filter(|e| e.at <= as_of && e.at > as_of.saturating_sub(tolerance))?;
        Some((entry.value, entry.offset))
    }

    fn advance(&mut self, now: i64, lag: i64) {
        while self.entries.get(1).is_some_and(|e| e.at <= now.saturating_sub(lag)) {
            self.entries.pop_front();
        }
    }

    pub fn add(&mut self, at: i64, offset: u64, value: i128, now: i64, lag: i64) {
        let behind = self.entries.iter().rev().take_while(|e| e.at > at).count();
        room_for_one(&mut self.entries);
        self.entries.insert(self.entries.len() - behind, Past { at, offset, value });
        self.advance(now, lag);
        if self.entries.len() > LAG_ENTRIES_MAX {
            self.merge_buckets((lag / LAG_BUCKETS).max(1));
        }
    }

    fn merge_buckets(&mut self, bucket: i64) {
        let mut merged: VecDeque<Past> = VecDeque::new();
        for entry in self.entries.drain(..) {
            match merged.back_mut() {
                Some(last) if last.at.div_euclid(bucket) == entry.at.div_euclid(bucket) => *last = entry,
                _ => merged.push_back(entry),
            }
        }
        self.entries = merged;
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.entries.len() as u64);
        let mut before = Past { at: 0, offset: 0, value: 0 };
        for e in &self.entries {
            put_i64(out, e.at.wrapping_sub(before.at));
            put_i64(out, (e.offset as i64).wrapping_sub(before.offset as i64));
            put_i(out, e.value.wrapping_sub(before.value));
            before = *e;
        }
    }

    pub fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let n = bytes.count()?;
        let mut entries = VecDeque::with_capacity(n);
        let mut before = Past { at: 0, offset: 0, value: 0 };
        for _ in 0..n {
            before = Past {
                at: before.at.wrapping_add(bytes.i64()?),
                offset: (before.offset as i64).wrapping_add(bytes.i64()?) as u64,
                value: before.value.wrapping_add(bytes.i()?),
            };
            entries.push_back(before);
        }
        Ok(Self { entries })
    }
}
