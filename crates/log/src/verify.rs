//! Reads everything and checks it: checksums, sequences, offsets, records, checkpoints, indexes.

use std::path::{Path, PathBuf};

use mulgil_disk::{Disk, OpenMode};

use crate::index::SegmentIndex;
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::replay::{self, Depth, ReplayError, Replayed, Stop};
use crate::segment::{self, INDEX_ENDING, SEGMENT_ENDING};
use crate::{JournalConfig, LogResult};

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verifying {
    pub done_bytes: u64,
    pub total_bytes: u64,
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    pub n_segments: usize,
    pub n_commits: u64,
    pub n_records: u64,
    pub bytes: u64,
    /// The first damage of each file that has any.
    pub damage: Vec<Damage>,
    /// An end that was never acknowledged: normal while a process writes or after it was killed; the next start cuts it off.
    pub torn: Option<Damage>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    pub byte: u64,
    pub reason: String,
}

/// Verifies the journal of a data folder without opening it, also when it cannot be opened. Changes nothing and needs no lock.
pub fn verify(config: &JournalConfig, disk: &dyn Disk, on_progress: &mut dyn FnMut(Verifying)) -> LogResult<Verified> {
    let dir = config.journal_dir();
    let segments = crate::recover::find_segments(disk, &dir)?;
    Verification::new(disk, &dir, segments, on_progress).run()
}

impl Journal {
    /// Verifies everything that is committed at this moment, while commits go on.
    pub fn verify(&self, on_progress: &mut dyn FnMut(Verifying)) -> LogResult<Verified> {
        let segments = self.shared.view.read().segments().map(|segment| (segment.header.first_sequence, segment.bytes)).collect();
        Verification::new(&*self.shared.disk, &self.shared.config.journal_dir(), segments, on_progress).run()
    }
}

struct Verification<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    /// First sequence and bytes.
    segments: Vec<(u64, u64)>,
    on_progress: &'a mut dyn FnMut(Verifying),
    found: Verified,
}

impl<'a> Verification<'a> {
    fn new(disk: &'a dyn Disk, dir: &'a Path, segments: Vec<(u64, u64)>, on_progress: &'a mut dyn FnMut(Verifying)) -> Self {
        Self { disk, dir, segments, on_progress, found: Verified::default() }
    }

    fn run(mut self) -> LogResult<Verified> {
        let mut before: Option<Before> = None;
        let segments = std::mem::take(&mut self.segments);
        let total_bytes = segments.iter().map(|(_, bytes)| bytes).sum();
        for (i, (sequence, bytes)) in segments.iter().copied().enumerate() {
            let path = segment::path(self.dir, sequence, SEGMENT_ENDING);
            let replayed = self.replay(&path, sequence, bytes, total_bytes)?;
            self.found.n_segments += 1;
            self.found.bytes += bytes;
            let is_last = i + 1 == segments.len();
            before = replayed.and_then(|replayed| self.check(&path, bytes, is_last, replayed, before.take()));
            if !is_last && before.is_some() {
                self.check_index(sequence, bytes, before.as_ref())?;
            }
        }
        (self.on_progress)(Verifying { done_bytes: total_bytes, total_bytes });
        Ok(self.found)
    }

    fn replay(&mut self, path: &Path, sequence: u64, bytes: u64, total_bytes: u64) -> LogResult<Option<Replayed>> {
        let file = self.disk.open(path, OpenMode::Read)?;
        let done = self.found.bytes;
        let on_progress = &mut *self.on_progress;
        let mut on_bytes = |at: u64| on_progress(Verifying { done_bytes: done + at, total_bytes });
        match replay::replay(&file, sequence, bytes, Depth::Records, &mut on_bytes) {
            Ok(replayed) => Ok(Some(replayed)),
            Err(ReplayError::Disk(error)) => Err(error.into()),
            Err(ReplayError::Damaged { byte, reason }) => {
                self.damaged(path, byte, reason);
                Ok(None)
            }
        }
    }

    /// Counts a segment in; gives what the next one must continue, unless that is not known.
    fn check(&mut self, path: &Path, bytes: u64, is_last: bool, replayed: Replayed, before: Option<Before>) -> Option<Before> {
        self.found.n_commits += replayed.n_commits;
        self.found.n_records += replayed.n_records;
        if let Some(before) = before {
            if replayed.header.previous != Some(before.segment) || replayed.header.first_sequence != before.next_sequence {
                self.damaged(path, 24, "a segment before it is missing");
            } else if replayed.start != before.ledger {
                self.damaged(path, crate::format::HEADER_BYTES as u64, "the checkpoint is not where the segment before it ended");
            }
        }
        match replayed.stop {
            Stop::Torn { byte, reason } if is_last => {
                self.found.torn =
                    Some(Damage { file: path.to_owned(), byte, reason: format!("{reason}, {} bytes are torn", bytes - byte) });
                None
            }
            Stop::Torn { byte, reason } | Stop::Damaged { byte, reason } => {
                self.damaged(path, byte, reason);
                None
            }
            Stop::End => Some(Before {
                segment: replayed.header.first_sequence,
                next_sequence: replayed.next_sequence,
                ledger: replayed.ledger,
                index: replayed.index,
            }),
        }
    }

    fn check_index(&mut self, sequence: u64, bytes: u64, segment: Option<&Before>) -> LogResult<()> {
        let path = segment::path(self.dir, sequence, INDEX_ENDING);
        let written = match mulgil_disk::read_whole(self.disk, &path, bytes) {
            Ok(written) => written,
            Err(error) if error.is_missing() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if SegmentIndex::decode(&written, sequence, bytes).as_ref() != segment.map(|segment| &segment.index) {
            self.damaged(&path, 0, "the index does not fit its segment; delete the index, it is rebuilt when needed");
        }
        Ok(())
    }

    fn damaged(&mut self, file: &Path, byte: u64, reason: &str) {
        self.found.damage.push(Damage { file: file.to_owned(), byte, reason: reason.to_owned() });
    }
}

/// How a segment ended.
struct Before {
    segment: u64,
    next_sequence: u64,
    ledger: Ledger,
    index: SegmentIndex,
}
