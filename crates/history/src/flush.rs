//! From the tail into files. Files are written and synced first, then the manifest names them, then the rows leave the tail: a crash at
//! any moment leaves files without a name or rows that are read from the log again, never a row lost or held twice.

use crate::error::HistoryError;
use crate::history::{History, StreamState};
use crate::layout::Layout;
use crate::manifest::{FileEntry, Manifest, PartitionCover};
use crate::order::{SortedDay, sorted_days};
use crate::parquet_file::{DataFile, OF_FLUSH, describe_rows, write};
use arrow::array::RecordBatch;
use mulgil_disk::failpoint;
use mulgil_model::ids::Topic;
use mulgil_model::time::AppendTime;
use parking_lot::MutexGuard;
use parquet::basic::Compression;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlushReport {
    pub n_streams: usize,
    pub n_files: usize,
    pub rows: u64,
    pub bytes: u64,
}

/// The rows of one stream that a flush writes, and how far they reach.
struct Sealed {
    layout: Arc<Layout>,
    batches: Vec<RecordBatch>,
    covers: Vec<(u32, u64, u64)>,
}

impl History {
    /// Writes the tails that are long, large or old enough at `now`; the largest of them, too, when all together fill half of their memory.
    pub fn flush_due(&self, now: AppendTime) -> Result<FlushReport, HistoryError> {
        let upkeep = self.upkeep.lock();
        let due = self.due(&self.state.lock(), now);
        self.flush_streams(upkeep, &due)
    }

    fn due(&self, state: &BTreeMap<Topic, StreamState>, now: AppendTime) -> Vec<Topic> {
        let bytes = |tails: &[(&Topic, &StreamState)]| tails.iter().map(|(_, s)| s.tail.bytes).sum::<usize>();
        let held: Vec<_> = state.iter().filter(|(_, s)| s.tail.rows > 0).collect();
        let is_crowded = bytes(&held) >= self.config.tail_bytes_max / 2;
        let (due, mut others): (Vec<_>, Vec<_>) = held.into_iter().partition(|(_, s)| self.is_due(s, now));
        let mut due: Vec<Topic> = due.into_iter().map(|(name, _)| name.clone()).collect();
        others.sort_by_key(|(_, s)| s.tail.bytes);
        // A small tail is left to grow: its file would only have to be merged.
        while is_crowded && bytes(&others) > self.config.tail_bytes_max / 8 {
            due.extend(others.pop().map(|(name, _)| name.clone()));
        }
        due
    }

    fn is_due(&self, state: &StreamState, now: AppendTime) -> bool {
        let age_us = state.tail.oldest.map_or(0, |oldest| now.micros().saturating_sub(oldest.micros()));
        state.tail.rows >= self.config.flush_rows
            || state.tail.bytes >= self.config.flush_bytes
            || u128::try_from(age_us).is_ok_and(|us| us >= self.config.flush_after.as_micros())
    }

    /// Writes every tail, whatever its size.
    pub fn flush(&self) -> Result<FlushReport, HistoryError> {
        let all: Vec<Topic> = self.layouts.keys().cloned().collect();
        self.flush_streams(self.upkeep.lock(), &all)
    }

    /// Until the flush that runs, if one does, has ended.
    pub fn wait_for_flush(&self) {
        drop(self.upkeep.lock());
    }

    fn flush_streams(&self, mut upkeep: MutexGuard<'_, Manifest>, due: &[Topic]) -> Result<FlushReport, HistoryError> {
        if due.is_empty() {
            return Ok(FlushReport::default());
        }
        let sealed = self.seal(due);
        let mut next = upkeep.clone();
        let mut written = BTreeMap::new();
        for (name, sealed) in &sealed {
            match self.write_stream(&mut next, sealed) {
                Ok(files) => written.insert(name.clone(), files),
                Err(error) => {
                    upkeep.next_file = next.next_file;
                    written.values().flatten().for_each(|file: &Arc<DataFile>| file.doom());
                    return Err(error);
                }
            };
        }
        let files = || written.values().flatten();
        let report = FlushReport {
            n_streams: sealed.len(),
            n_files: files().count(),
            rows: files().map(|f| f.entry.rows).sum(),
            bytes: files().map(|f| f.entry.bytes).sum(),
        };
        if report.n_files == 0 {
            return Ok(report);
        }
        failpoint::here("history.files-written");
        self.switch(&mut upkeep, next, |state| {
            for (name, files) in &written {
                let state = state.get_mut(name).expect("invariant: a stream is never taken out of the state");
                Arc::make_mut(&mut state.files).extend(files.iter().cloned());
                for (partition, _, covered) in &sealed[name].covers {
                    if let Some(p) = state.partitions.get_mut(partition) {
                        p.covered = *covered;
                    }
                }
                state.tail.forget_sealed();
            }
        })?;
        Ok(report)
    }

    fn seal(&self, due: &[Topic]) -> BTreeMap<Topic, Sealed> {
        let mut state = self.state.lock();
        let mut all = BTreeMap::new();
        for name in due {
            let Some(stream) = state.get_mut(name).filter(|s| s.tail.rows > 0) else { continue };
            let covers = stream.partitions.iter().map(|(partition, p)| (*partition, p.start, p.next)).collect();
            let layout = Arc::clone(&self.layouts[name]);
            all.insert(name.clone(), Sealed { layout, batches: stream.tail.seal(), covers });
        }
        all
    }

    /// Writes a file for each day of the rows and notes them in `next`.
    fn write_stream(&self, next: &mut Manifest, sealed: &Sealed) -> Result<Vec<Arc<DataFile>>, HistoryError> {
        let layout = &sealed.layout;
        let mut keys = Vec::new();
        let mut files = Vec::new();
        for day in sorted_days(layout, &sealed.batches, &mut keys) {
            match self.write_day(next, sealed, &day) {
                Ok(file) => {
                    failpoint::here("history.a-file-written");
                    files.push(file);
                }
                Err(error) => {
                    files.iter().for_each(|file: &Arc<DataFile>| file.doom());
                    return Err(error);
                }
            }
        }
        let held = next.streams.entry(layout.name().to_owned()).or_default();
        held.files.extend(files.iter().map(|f| f.entry.clone()));
        for (partition, start, covered) in &sealed.covers {
            match held.partitions.iter_mut().find(|c| c.partition == *partition) {
                Some(cover) => cover.covered = *covered,
                None => held.partitions.push(PartitionCover { partition: *partition, start: *start, covered: *covered, dropped: 0 }),
            }
        }
        Ok(files)
    }

    fn write_day(&self, next: &mut Manifest, sealed: &Sealed, day: &SortedDay<'_>) -> Result<Arc<DataFile>, HistoryError> {
        let layout = &sealed.layout;
        let mut entry = describe_rows(day.key_range(), day.places.iter().map(|p| (p.partition, p.offset, p.event_time)));
        let first = entry.offsets.iter().map(|r| r.first).min().unwrap_or_default();
        entry.name = next.new_name(first);
        let gathering = || HistoryError::internal(format!("sorting rows of {}", layout.name()));
        let rows = day.gather(&sealed.batches).map(|rows| rows.map_err(gathering()));
        self.write_file(layout, &mut entry, OF_FLUSH, rows)?;
        Ok(DataFile::new(Arc::clone(&self.disk), &self.dir, layout.name(), entry))
    }

    /// Writes the file of `entry` and notes its size and sum; what could not be finished is removed again.
    pub(crate) fn write_file(
        &self,
        layout: &Layout,
        entry: &mut FileEntry,
        compression: Compression,
        batches: impl IntoIterator<Item = Result<RecordBatch, HistoryError>>,
    ) -> Result<(), HistoryError> {
        let path = entry.path(&self.dir, layout.name());
        let written = write(self.disk.as_ref(), &path, layout, compression, batches);
        if written.is_err() {
            // The first error is the one worth telling; a leftover is removed by the next opening.
            self.disk.remove(&path).ok();
        }
        let (bytes, crc32c) = written?;
        (entry.bytes, entry.crc32c) = (bytes, Some(crc32c));
        Ok(())
    }
}
