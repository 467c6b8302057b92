//! Reads every file and compares it with what the manifest says of it.

use crate::error::HistoryError;
use crate::history::History;
use crate::layout::Layout;
use crate::manifest::{FileEntry, PartitionCover};
use crate::parquet_file::{DataFile, describe};
use crate::reader;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows read at a time.
const BATCH_ROWS: usize = 64 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub n_files: usize,
    pub rows: u64,
    pub bytes: u64,
    /// Each names a file or a partition and what is wrong with it; empty when all is well.
    pub problems: Vec<String>,
}

/// One bit for each offset of a partition. Bits are kept where offsets were seen: a damaged manifest may claim any number of them.
struct Seen {
    start: u64,
    covered: u64,
    bits: BTreeMap<u64, [u64; BLOCK_WORDS as usize]>,
}

const BLOCK_WORDS: u64 = 64;

impl Seen {
    fn of(cover: &PartitionCover) -> Self {
        Self { start: cover.start, covered: cover.covered, bits: BTreeMap::new() }
    }

    /// False if the offset is outside, or was there before.
    fn note(&mut self, offset: u64) -> bool {
        if !(self.start..self.covered).contains(&offset) {
            return false;
        }
        let (word, bit) = (offset / 64, 1 << (offset % 64));
        let block = self.bits.entry(word / BLOCK_WORDS).or_insert([0; BLOCK_WORDS as usize]);
        let word = &mut block[(word % BLOCK_WORDS) as usize];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

impl History {
    /// Every file is readable, sorted, of one day and as the manifest describes it; no row is there twice; and the files hold exactly the
    /// rows up to the covered offsets, less those that retention dropped. Appends and flushes go on meanwhile.
    pub fn verify(&self) -> Result<VerifyReport, HistoryError> {
        let mut report = VerifyReport::default();
        for (name, layout) in &self.layouts {
            let (files, covers) = {
                // The two locks in the order of a flush, so that files and covers belong together.
                let upkeep = self.upkeep.lock();
                let covers = upkeep.streams.get(name.as_str()).map(|s| s.partitions.clone()).unwrap_or_default();
                (self.state.lock().get(name).map(|s| Arc::clone(&s.files)).unwrap_or_default(), covers)
            };
            let mut seen: BTreeMap<u32, Seen> = covers.iter().map(|c| (c.partition, Seen::of(c))).collect();
            for file in files.iter() {
                report.n_files += 1;
                report.rows += file.entry.rows;
                report.bytes += file.entry.bytes;
                if let Err(problem) = check_file(layout, file, &mut seen) {
                    report.problems.push(format!("{}: {problem}", file.path.display()));
                }
            }
            let held = |partition| -> u64 {
                files.iter().flat_map(|f| &f.entry.offsets).filter(|r| r.partition == partition).map(|r| r.rows).sum()
            };
            for cover in covers {
                let (held, dropped, want) = (held(cover.partition), cover.dropped, cover.covered - cover.start);
                if held + dropped != want {
                    let place = format!("{name}/{}", cover.partition);
                    report
                        .problems
                        .push(format!("{place}: {held} rows in files and {dropped} dropped are not the {want} that are covered"));
                }
            }
        }
        Ok(report)
    }
}

fn check_file(layout: &Layout, file: &DataFile, seen: &mut BTreeMap<u32, Seen>) -> Result<(), String> {
    file.check().map_err(|e| match e {
        HistoryError::Corrupt { problem, .. } => problem,
        other => other.to_string(),
    })?;
    let mut described: Vec<FileEntry> = Vec::new();
    let mut last = None;
    for batch in reader::batches(file, BATCH_ROWS).map_err(|e| e.to_string())? {
        let batch = layout.adapt(&batch.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        if batch.num_rows() == 0 {
            continue;
        }
        let (keys, times) = (layout.keys(&batch), layout.event_times(&batch));
        let (partitions, offsets) = (layout.partitions(&batch), layout.offsets(&batch));
        for row in 0..batch.num_rows() {
            let place = (keys.value(row), times.value(row), partitions.value(row), offsets.value(row));
            let partition = place.2 as u32;
            if !seen.get_mut(&partition).is_some_and(|s| s.note(place.3 as u64)) {
                return Err(format!("holds offset {} of partition {partition}, which is there twice or not covered", place.3));
            }
            if last.as_ref().is_some_and(|(key, rest): &(String, _)| (key.as_str(), *rest) > (place.0, (place.1, place.2, place.3))) {
                return Err(format!("is not sorted at offset {} of partition {partition}", place.3));
            }
            match &mut last {
                Some((key, rest)) if key == place.0 => *rest = (place.1, place.2, place.3),
                _ => last = Some((place.0.to_owned(), (place.1, place.2, place.3))),
            }
        }
        described.push(describe(layout, &batch));
    }
    let found = FileEntry::merged(&described.iter().collect::<Vec<_>>()).ok_or("is empty")?;
    let found = FileEntry { name: file.entry.name.clone(), bytes: file.entry.bytes, crc32c: file.entry.crc32c, ..found };
    if crate::day::Day::of(found.event_time_min) != file.entry.day {
        return Err(format!("has rows of another day than {}", file.entry.day));
    }
    if found != file.entry { Err(format!("holds {found:?}, but the manifest says {:?}", file.entry)) } else { Ok(()) }
}
