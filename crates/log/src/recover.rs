//! Opens a journal: takes the lock, checks the chain of segments, reads the last one, cuts a torn tail off it.
//! Sealed segments are not read beyond their checkpoint, so opening takes as long as reading one segment.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mulgil_disk::{Disk, DiskFile, DiskLock, OpenMode, UNFINISHED, failpoint};
use mulgil_model::time::AppendTime;

use crate::doubt;
use crate::format::SegmentHeader;
use crate::ledger::Ledger;
use crate::replay::{self, Depth, Replayed, Stop};
use crate::segment::{self, Segment};
use crate::tail::SegmentStart;
use crate::view::{Active, View};
use crate::writer::Writer;
use crate::{JournalConfig, LogError, LogResult};

/// What was found when a journal was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub n_segments: usize,
    pub journal_bytes: u64,
    /// Commits in the last segment, which was read.
    pub n_replayed: u64,
    /// The last process stopped in order.
    pub was_closed: bool,
    /// What was cut off the end, if the last process or machine died while writing. Nothing of it was ever acknowledged.
    pub repaired: Option<Repaired>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    pub file: PathBuf,
    /// The new end of the file.
    pub byte: u64,
    pub cut_bytes: u64,
    pub reason: String,
}

/// An open journal's parts.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub view: View,
    pub writer: Writer,
    pub opened: Opened,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    ReadWrite,
    /// Changes nothing on disk, and needs no lock.
    ReadOnly,
}

/// Makes the folders and takes the lock.
pub(crate) fn lock(config: &JournalConfig, disk: &dyn Disk) -> LogResult<Box<dyn DiskLock>> {
    let dir = config.journal_dir();
    disk.create_dir_all(&dir)?;
    let lock = disk.lock(&config.dir.join("lock"))?;
    for entry in disk.list(&dir)? {
        if Path::new(&entry.name).extension().is_some_and(|ending| ending == UNFINISHED) {
            disk.remove(&dir.join(&entry.name))?;
        }
    }
    // The last process may have failed between giving a segment its name and making the name durable; what stands here is built upon.
    disk.sync_dir(&dir)?;
    Ok(lock)
}

pub(crate) fn recover(config: &JournalConfig, disk: &dyn Disk, access: Access, now: AppendTime) -> LogResult<Recovered> {
    let dir = config.journal_dir();
    let mut found = find_segments(disk, &dir)?;
    let Some((last, last_bytes)) = found.pop() else {
        return begin(disk, &dir, access, now);
    };
    let mut sealed = VecDeque::with_capacity(found.len());
    let mut previous = None;
    for (sequence, bytes) in found {
        let path = segment::path(&dir, sequence, segment::SEGMENT_ENDING);
        let file = disk.open(&path, OpenMode::Read)?;
        let (header, start, _) = replay::read_start(&file, sequence, bytes).map_err(segment::replay_error(&path))?;
        check_chain(&path, header, previous)?;
        previous = Some(sequence);
        sealed.push_back(Arc::new(Segment::new(&dir, header, bytes, &start)));
    }
    let (replayed, file, repaired) = open_last(disk, &dir, last, last_bytes, access)?;
    check_chain(&segment::path(&dir, last, segment::SEGMENT_ENDING), replayed.header, previous)?;
    Ok(assemble(&dir, sealed, replayed, file, repaired, now))
}

/// The first sequence and size of each segment, in order.
pub(crate) fn find_segments(disk: &dyn Disk, dir: &Path) -> LogResult<Vec<(u64, u64)>> {
    let entries = disk.list(dir)?;
    // Twenty digits with leading zeroes: the order of names is the order of numbers.
    Ok(entries.iter().filter_map(|entry| Some((segment::sequence_of(&entry.name)?, entry.size_bytes))).collect())
}

fn begin(disk: &dyn Disk, dir: &Path, access: Access, now: AppendTime) -> LogResult<Recovered> {
    if access == Access::ReadOnly {
        return Err(LogError::Config { reason: format!("there is no journal in {}", dir.display()) });
    }
    let header = SegmentHeader { first_sequence: 0, previous: None, started: now };
    let ledger = Ledger::default();
    let start = SegmentStart { header, bytes: segment::start_bytes(header, &ledger) };
    let (segment, file) = segment::create(disk, dir, &start, &ledger)?;
    let replayed = replay::replay(&file, 0, segment.bytes, Depth::Frames, &mut |_| {}).map_err(segment::replay_error(&segment.path))?;
    Ok(assemble(dir, VecDeque::new(), Replayed { is_marked: true, ..replayed }, file, None, now))
}

/// Each segment names the one before it, so that a lost file does not go unnoticed. What retention removed is before the first.
fn check_chain(path: &Path, header: SegmentHeader, previous: Option<u64>) -> LogResult<()> {
    match (previous, header.previous) {
        (Some(found), named) if named != Some(found) => {
            let named = named.map_or("none".to_owned(), |n| format!("{n:020}.{}", segment::SEGMENT_ENDING));
            let reason = format!("the segment before it should be {named}, which is missing");
            Err(LogError::Damaged { file: path.to_owned(), byte: 24, reason })
        }
        _ => Ok(()),
    }
}

fn open_last(
    disk: &dyn Disk,
    dir: &Path,
    sequence: u64,
    bytes: u64,
    access: Access,
) -> LogResult<(Replayed, Arc<dyn DiskFile>, Option<Repaired>)> {
    let path = segment::path(dir, sequence, segment::SEGMENT_ENDING);
    let mode = if access == Access::ReadOnly { OpenMode::Read } else { OpenMode::Append };
    let file = disk.open(&path, mode)?;
    let replayed = replay::replay(&file, sequence, bytes, Depth::Frames, &mut |_| {}).map_err(segment::replay_error(&path))?;
    let repaired = match replayed.stop {
        Stop::End => None,
        Stop::Damaged { byte, reason } => return Err(LogError::Damaged { file: path, byte, reason: reason.to_owned() }),
        Stop::Torn { reason, .. } => {
            Some(Repaired { file: path, byte: replayed.end, cut_bytes: bytes - replayed.end, reason: reason.to_owned() })
        }
    };
    if access == Access::ReadOnly {
        return Ok((replayed, file, repaired));
    }
    let path = segment::path(dir, sequence, segment::SEGMENT_ENDING);
    let file = make_durable(disk, dir, &path, file, &replayed, repaired.is_some())?;
    Ok((replayed, file, repaired))
}

/// A process that died may have left commits that are in the cache of the system only; what is read must be durable.
fn make_durable(
    disk: &dyn Disk,
    dir: &Path,
    path: &Path,
    file: Arc<dyn DiskFile>,
    replayed: &Replayed,
    is_torn: bool,
) -> LogResult<Arc<dyn DiskFile>> {
    if doubt::is_noted(disk, dir)? {
        return Ok(doubt::resolve(disk, path, &*file, replayed.end)?);
    }
    if is_torn {
        file.truncate(replayed.end)?;
        failpoint::here("log.tail-cut");
    }
    file.sync_data().inspect_err(|_| doubt::note(disk, dir))?;
    Ok(file)
}

fn assemble(
    dir: &Path,
    sealed: VecDeque<Arc<Segment>>,
    last: Replayed,
    file: Arc<dyn DiskFile>,
    repaired: Option<Repaired>,
    now: AppendTime,
) -> Recovered {
    let segment = Arc::new(Segment::new(dir, last.header, last.end, &last.start));
    let writer = Writer {
        file: Arc::clone(&file),
        segment: last.header.first_sequence,
        segment_started: last.header.started,
        position: last.end,
        synced: last.end,
        next_sequence: last.next_sequence,
        last_append: last.last_append,
        last_sync: now,
        is_unmarked: !last.is_marked,
    };
    let view = View { ledger: last.ledger, sealed, active: Active { segment, file, index: last.index } };
    let opened = Opened {
        n_segments: view.sealed.len() + 1,
        journal_bytes: view.bytes(),
        n_replayed: last.n_commits,
        was_closed: last.is_marked && repaired.is_none(),
        repaired,
    };
    Recovered { view, writer, opened }
}
