//! The largest value of a sliding window. The smallest is the largest of the negated values.
//!
//! State: the rows that can still become the largest, ordered by the axis, their values falling. Above `ROWS_EXACT_MAX` of them, those of
//! one bucket become one: its largest value, until its newest row leaves.

use super::{ROWS_EXACT_MAX, Window, room_for_one};
use mulgil_engine::layout::{Fields, put_i, put_i64, put_u64};
use std::collections::VecDeque;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    at: i64,
    offset: u64,
    value: i128,
}

/// Layout: number of entries, then per entry: axis less that of the entry before, offset less that of the entry before, value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Extreme {
    entries: VecDeque<Entry>,
}

impl Extreme {
    /// The largest value, and the offset of its row.
    pub fn largest(&self) -> Option<(i128, u64)> {
        self.entries.front().map(|e| (e.value, e.offset))
    }

    pub fn advance(&mut self, now: i64, window: Window) {
        let Some(width) = window.width() else { return };
        while self.entries.front().is_some_and(|e| e.at <= now.saturating_sub(width)) {
            self.entries.pop_front();
        }
    }

    pub fn add(&mut self, at: i64, offset: u64, value: i128, now: i64, window: Window) {
        self.advance(now, window);
        // Nothing ever leaves a lifetime window: all rows may stand at the same place.
        let Some(width) = window.width() else { return self.place(Entry { at: 0, offset, value }) };
        if at > now.saturating_sub(width) {
            self.place(Entry { at, offset, value });
        }
        if self.entries.len() as u64 > ROWS_EXACT_MAX {
            self.merge_buckets(window.bucket());
        }
    }

    fn place(&mut self, entry: Entry) {
        let behind = self.entries.iter().rev().take_while(|e| e.at > entry.at).count();
        let index = self.entries.len() - behind;
        if self.entries.get(index).is_some_and(|later| later.value >= entry.value) {
            return;
        }
        let beaten = self.entries.range(..index).rev().take_while(|e| e.value <= entry.value).count();
        if beaten == 0 {
            room_for_one(&mut self.entries);
            return self.entries.insert(index, entry);
        }
        self.entries[index - beaten] = entry;
        self.entries.drain(index - beaten + 1..index);
    }

    fn merge_buckets(&mut self, bucket: i64) {
        let mut merged: VecDeque<Entry> = VecDeque::new();
        for entry in self.entries.drain(..) {
            match merged.back_mut() {
                Some(last) if last.at.div_euclid(bucket) == entry.at.div_euclid(bucket) => last.at = entry.at,
                _ => merged.push_back(entry),
            }
        }
        self.entries = merged;
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.entries.len() as u64);
        let (mut at, mut offset) = (0i64, 0i64);
        for e in &self.entries {
            put_i64(out, e.at.wrapping_sub(at));
            put_i64(out, (e.offset as i64).wrapping_sub(offset));
            put_i(out, e.value);
            (at, offset) = (e.at, e.offset as i64);
        }
    }

    pub fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let n = bytes.count()?;
        let mut entries = VecDeque::with_capacity(n);
        let (mut at, mut offset) = (0i64, 0i64);
        for _ in 0..n {
            at = at.wrapping_add(bytes.i64()?);
            offset = offset.wrapping_add(bytes.i64()?);
            entries.push_back(Entry { at, offset: offset as u64, value: bytes.i()? });
        }
        Ok(Self { entries })
    }
}
