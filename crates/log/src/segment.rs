//! Segments: their files, what is remembered of each, and the few sealed ones whose index is in memory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mulgil_disk::{Disk, DiskError, DiskFile, OpenMode};
use parking_lot::Mutex;

use crate::format::{self, CommitHead, FrameHead, FrameKind, HEADER_BYTES, Place, SegmentHeader};
use crate::index::SegmentIndex;
use crate::ledger::{Ledger, PartitionNo};
use crate::replay::{self, Depth, ReplayError, Stop};
use crate::tail::SegmentStart;
use crate::{JournalConfig, LogError, LogResult};

pub(crate) const SEGMENT_ENDING: &str = "log";
pub(crate) const INDEX_ENDING: &str = "idx";

/// What is always in memory of a segment: 16 bytes for each partition that existed when it began.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub path: PathBuf,
    pub bytes: u64,
    starts: Vec<Start>,
}

/// Where a partition stood when the segment began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Start {
    pub next: u64,
    /// Of all its frames before.
    pub bytes: u64,
}

impl Segment {
    pub fn new(dir: &Path, header: SegmentHeader, bytes: u64, start: &Ledger) -> Self {
        let starts = start.ends().iter().map(|end| Start { next: end.next, bytes: end.bytes }).collect();
        Self { header, path: path(dir, header.first_sequence, SEGMENT_ENDING), bytes, starts }
    }

    pub fn start(&self, no: PartitionNo) -> Start {
        self.starts.get(no.0 as usize).copied().unwrap_or_default()
    }

    pub fn index_path(&self) -> PathBuf {
        self.path.with_extension(INDEX_ENDING)
    }

    pub fn damaged(&self, byte: u64, reason: impl Into<String>) -> LogError {
        LogError::Damaged { file: self.path.clone(), byte, reason: reason.into() }
    }
}

pub(crate) fn path(dir: &Path, first_sequence: u64, ending: &str) -> PathBuf {
    dir.join(format!("{first_sequence:020}.{ending}"))
}

/// The sequence in a segment's file name.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(SEGMENT_ENDING)?.strip_suffix('.')?;
    (stem.len() == 20).then(|| stem.parse().ok()).flatten()
}

/// A segment's header and checkpoint.
pub(crate) fn start_bytes(header: SegmentHeader, start: &Ledger) -> Vec<u8> {
    let mut bytes = header.encode().to_vec();
    let place = Place { segment: header.first_sequence, position: HEADER_BYTES as u64 };
    let commit = CommitHead { sequence: header.first_sequence, append_time: header.started };
    let head = FrameHead { kind: FrameKind::Checkpoint, ends_commit: true, unsynced_bytes: 0, commit };
    format::put_frame(&mut bytes, place, head, |into| start.put_checkpoint(into));
    bytes
}

/// Makes a segment of its header and checkpoint; it appears whole or not at all. `at` is what the checkpoint was made of.
pub(crate) fn create(disk: &dyn Disk, dir: &Path, start: &SegmentStart, at: &Ledger) -> Result<(Segment, Arc<dyn DiskFile>), DiskError> {
    let segment = Segment::new(dir, start.header, start.bytes.len() as u64, at);
    mulgil_disk::write_atomic(disk, &segment.path, &start.bytes)?;
    let file = disk.open(&segment.path, OpenMode::Append)?;
    Ok((segment, file))
}

/// Names the file in an error of a replay.
pub(crate) fn replay_error(path: &Path) -> impl FnOnce(ReplayError) -> LogError + '_ {
    move |error| match error {
        ReplayError::Disk(error) => error.into(),
        ReplayError::Damaged { byte, reason } => LogError::Damaged { file: path.to_owned(), byte, reason: reason.into() },
    }
}

/// An open sealed segment and where everything is in it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub file: Arc<dyn DiskFile>,
    pub index: SegmentIndex,
}

/// The most recently read sealed segments, bounded by the memory of their indexes.
#[derive(Debug)]
pub(crate) struct LoadedSegments {
    disk: Arc<dyn Disk>,
    max_bytes: usize,
    max_open: usize,
    /// An index that had to be rebuilt is written down, unless the journal is only read.
    writes_indexes: bool,
    /// The most recently used first.
    recent: Mutex<VecDeque<(u64, Arc<Loaded>)>>,
    /// The first segment whose index may be written: those before it are gone. Held while one is written, as two readers that rebuild the
    /// same index would write the same unfinished file.
    writing: Mutex<u64>,
}

impl LoadedSegments {
    pub fn new(disk: Arc<dyn Disk>, config: &JournalConfig, writes_indexes: bool) -> Self {
        let (max_bytes, max_open) = (config.index_cache_bytes, config.open_segments);
        Self { disk, max_bytes, max_open, writes_indexes, recent: Mutex::default(), writing: Mutex::default() }
    }

    /// How many there are, and the bytes of their indexes.
    pub fn size(&self) -> (usize, usize) {
        let recent = self.recent.lock();
        (recent.len(), recent.iter().map(|(_, loaded)| loaded.index.size_bytes()).sum())
    }

    pub fn get(&self, segment: &Segment) -> LogResult<Arc<Loaded>> {
        let key = segment.header.first_sequence;
        {
            let mut recent = self.recent.lock();
            if let Some(i) = recent.iter().position(|(k, _)| *k == key)
                && let Some(found) = recent.remove(i)
            {
                let loaded = Arc::clone(&found.1);
                recent.push_front(found);
                return Ok(loaded);
            }
        }
        let loaded = Arc::new(self.load(segment)?);
        self.put(key, Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Keeps the index of a segment that was just sealed, and writes it down for the next start.
    pub fn seal(&self, segment: &Segment, file: Arc<dyn DiskFile>, index: SegmentIndex) {
        self.write_index(segment, &index);
        self.put(segment.header.first_sequence, Arc::new(Loaded { file, index }));
    }

    /// Before the segment is removed: a reader that still has it writes no index of it any more.
    pub fn forget(&self, segment: &Segment) {
        let key = segment.header.first_sequence;
        self.recent.lock().retain(|(k, _)| *k != key);
        let mut writing = self.writing.lock();
        *writing = (*writing).max(key + 1);
    }

    fn put(&self, key: u64, loaded: Arc<Loaded>) {
        let mut recent = self.recent.lock();
        recent.retain(|(k, _)| *k != key);
        recent.push_front((key, loaded));
        let mut bytes = 0;
        let fits = |(i, (_, loaded)): &(usize, &(u64, Arc<Loaded>))| {
            bytes += loaded.index.size_bytes();
            *i == 0 || (*i < self.max_open && bytes <= self.max_bytes)
        };
        let n = recent.iter().enumerate().take_while(fits).count();
        recent.truncate(n);
    }

    fn load(&self, segment: &Segment) -> LogResult<Loaded> {
        let file = self.disk.open(&segment.path, OpenMode::Read)?;
        // An index is at most as large as what it describes.
        let written = mulgil_disk::read_whole(&*self.disk, &segment.index_path(), segment.bytes);
        let index = written.ok().and_then(|bytes| SegmentIndex::decode(&bytes, segment.header.first_sequence, segment.bytes));
        if let Some(index) = index {
            return Ok(Loaded { file, index });
        }
        tracing::info!(segment = %segment.path.display(), "rebuilding the index of a segment");
        let replayed = replay::replay(&file, segment.header.first_sequence, segment.bytes, Depth::Frames, &mut |_| {})
            .map_err(replay_error(&segment.path))?;
        match replayed.stop {
            Stop::End => {}
            Stop::Torn { byte, reason } | Stop::Damaged { byte, reason } => return Err(segment.damaged(byte, reason)),
        }
        if self.writes_indexes {
            self.write_index(segment, &replayed.index);
        }
        Ok(Loaded { file, index: replayed.index })
    }

    fn write_index(&self, segment: &Segment, index: &SegmentIndex) {
        let first_kept = self.writing.lock();
        if segment.header.first_sequence < *first_kept {
            return;
        }
        let bytes = index.encode(segment.header.first_sequence, segment.bytes);
        if let Err(error) = mulgil_disk::write_atomic(&*self.disk, &segment.index_path(), &bytes) {
            tracing::warn!(%error, "an index could not be written and will be rebuilt when needed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_model::time::AppendTime;

    #[test]
    fn no_index_of_a_removed_segment_is_written() {
        let (disk, dir) = (Arc::new(mulgil_disk::MemDisk::new(1)), Path::new("/data"));
        disk.create_dir_all(dir).unwrap();
        let loaded = LoadedSegments::new(Arc::clone(&disk) as Arc<dyn Disk>, &JournalConfig::new("/data"), true);
        let segment = |first_sequence| {
            let header = SegmentHeader { first_sequence, previous: None, started: AppendTime::from_micros(0) };
            Segment::new(dir, header, 100, &Ledger::default())
        };
        loaded.forget(&segment(7));
        [3, 7, 9].iter().for_each(|n| loaded.write_index(&segment(*n), &SegmentIndex::default()));
        let names: Vec<String> = disk.list(dir).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["00000000000000000009.idx"]);
    }
}
