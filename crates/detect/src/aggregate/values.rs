//! Which different values a key has had, and when each was seen last: for `distinct` and `first_seen`.
//!
//! Values are told apart by a 64-bit hash. Above [`VALUES_MAX`] of them the one not seen for longest is forgotten: `distinct` then stays
//! at the limit, and a forgotten value counts as never seen.

use super::Window;
use mulgil_engine::layout::{Fields, put_i64, put_u64};
use std::collections::{BTreeMap, BTreeSet};

/// Different values remembered per feature and key.
pub const VALUES_MAX: usize = 1_024;

/// Layout: number of values, then per value in order of the last sighting: axis less that of the value before, hash (8 bytes).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Values {
    seen: BTreeMap<u64, i64>,
    by_age: BTreeSet<(i64, u64)>,
}

impl Values {
    pub fn n(&self) -> u64 {
        self.seen.len() as u64
    }

    pub fn contains(&self, value: u64) -> bool {
        self.seen.contains_key(&value)
    }

    pub fn advance(&mut self, now: i64, window: Window) {
        let Some(width) = window.width() else { return };
        while let Some(&(at, value)) = self.by_age.first().filter(|(at, _)| *at <= now.saturating_sub(width)) {
            self.by_age.remove(&(at, value));
            self.seen.remove(&value);
        }
    }

    pub fn add(&mut self, at: i64, value: u64, now: i64, window: Window) {
        self.advance(now, window);
        if window.width().is_some_and(|width| at <= now.saturating_sub(width)) {
            return;
        }
        if let Some(before) = self.seen.get(&value).copied() {
            if before >= at {
                return;
            }
            self.by_age.remove(&(before, value));
        }
        self.seen.insert(value, at);
        self.by_age.insert((at, value));
        if self.seen.len() > VALUES_MAX {
            let (_, oldest) = self.by_age.pop_first().expect("invariant: a set above its limit is not empty");
            self.seen.remove(&oldest);
        }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.by_age.len() as u64);
        let mut before = 0i64;
        for &(at, value) in &self.by_age {
            put_i64(out, at.wrapping_sub(before));
            out.extend_from_slice(&value.to_le_bytes());
            before = at;
        }
    }

    pub fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let n = bytes.count()?;
        let mut values = Self::default();
        let mut at = 0i64;
        for _ in 0..n {
            at = at.wrapping_add(bytes.i64()?);
            let value = bytes.id()?;
            values.seen.insert(value, at);
            values.by_age.insert((at, value));
        }
        Ok(values)
    }
}
