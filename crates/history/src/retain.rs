//! What is too old, or too much, goes: whole days of a stream at a time, never a row of the tail.

use crate::day::Day;
use crate::error::HistoryError;
use crate::history::History;
use crate::manifest::Manifest;
use mulgil_model::time::AppendTime;
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetainReport {
    pub n_days: usize,
    pub rows: u64,
    pub bytes: u64,
    /// By how much the newest day alone is above the disk budget. It stays all the same.
    pub bytes_over_budget: u64,
}

impl History {
    /// Drops the days whose retention has passed at `now`, then the oldest days until the disk budget is kept.
    pub fn retain(&self, now: AppendTime) -> Result<RetainReport, HistoryError> {
        let mut upkeep = self.upkeep.lock();
        let mut dropped = self.days_expired(&upkeep, now);
        let bytes_over_budget = self.days_over_budget(&upkeep, &mut dropped);
        let mut report = RetainReport { n_days: dropped.len(), bytes_over_budget, ..RetainReport::default() };
        if dropped.is_empty() {
            return Ok(report);
        }
        let is_dropped = |stream: &str, day: Day| dropped.contains(&(day, stream.to_owned()));
        let mut next = upkeep.clone();
        for (name, held) in &mut next.streams {
            let (gone, kept): (Vec<_>, Vec<_>) = held.files.drain(..).partition(|f| is_dropped(name, f.day));
            held.files = kept;
            for file in gone {
                report.rows += file.rows;
                report.bytes += file.bytes;
                for range in file.offsets {
                    let cover = held.partitions.iter_mut().find(|c| c.partition == range.partition);
                    cover.expect("invariant: a file's partitions are covered").dropped += range.rows;
                }
            }
        }
        self.switch(&mut upkeep, next, |state| {
            for (name, state) in state {
                let name = name.as_str();
                state.files.iter().filter(|f| is_dropped(name, f.entry.day)).for_each(|f| f.doom());
                Arc::make_mut(&mut state.files).retain(|f| !is_dropped(name, f.entry.day));
            }
        })?;
        mulgil_disk::failpoint::here("history.dropped");
        self.remove_folders(&dropped);
        Ok(report)
    }

    fn days_expired(&self, manifest: &Manifest, now: AppendTime) -> BTreeSet<(Day, String)> {
        let mut days = BTreeSet::new();
        for (name, held) in &manifest.streams {
            let Some(kept) = self.config.retention.of(name) else { continue };
            let kept_us = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
            let expired = |day: Day| day.end_us() <= now.micros().saturating_sub(kept_us);
            days.extend(held.files.iter().map(|f| f.day).filter(|day| expired(*day)).map(|day| (day, name.clone())));
        }
        days
    }

    /// Adds the oldest days to `dropped` until the rest is within the budget; the newest day is not added. Returns what is left over it.
    fn days_over_budget(&self, manifest: &Manifest, dropped: &mut BTreeSet<(Day, String)>) -> u64 {
        let Some(budget) = self.config.disk_budget_bytes else { return 0 };
        let files = || manifest.streams.iter().flat_map(|(name, held)| held.files.iter().map(move |f| (name, f)));
        let newest = files().map(|(_, f)| f.day).max();
        let days: BTreeSet<(Day, String)> = files().map(|(name, f)| (f.day, name.clone())).collect();
        let bytes_of = |day: &(Day, String)| -> u64 { files().filter(|(n, f)| f.day == day.0 && **n == day.1).map(|(_, f)| f.bytes).sum() };
        let mut bytes: u64 = days.iter().filter(|day| !dropped.contains(*day)).map(bytes_of).sum();
        for day in days.iter().filter(|(day, _)| Some(*day) != newest) {
            if bytes <= budget {
                break;
            }
            if dropped.insert(day.clone()) {
                bytes -= bytes_of(day);
            }
        }
        bytes.saturating_sub(budget)
    }

    /// The folders of dropped days, as far as they are empty: a running query may still read a file, then opening removes the folder.
    fn remove_folders(&self, days: &BTreeSet<(Day, String)>) {
        for (day, stream) in days {
            self.disk.remove_dir(&self.dir.join(stream).join(day.to_string())).ok();
        }
    }
}
