//! The end of the journal as the next commit finds it: all that was begun counts, whether it is on disk yet or not.
//! Checks commits and turns them into frames; readers see them only when their group is on disk and the view has followed.

use std::collections::HashMap;
use std::sync::Arc;

use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;

use crate::committer::Seat;
use crate::config::is_older;
use crate::format::{self, CommitHead, FrameHead, FrameKind, Place, SegmentHeader};
use crate::index::Entry;
use crate::ledger::{Ledger, MAX_PARTITIONS, MAX_PROGRESS};
use crate::segment;
use crate::writer::Writer;
use crate::{Advance, Append, Commit, Committed, Durability, JournalConfig, LogError, LogResult, Owner};

/// Built anew from what is on disk when a group fails.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Ahead of the view's by the groups that are not on disk.
    ledger: Ledger,
    segment: u64,
    segment_started: AppendTime,
    /// Where the next frame will stand.
    position: u64,
    /// Up to where the segment is known durable; it may be further by now.
    synced: u64,
    next_sequence: u64,
    last_append: AppendTime,
}

/// Commits that are written and synced together.
#[derive(Debug)]
pub(crate) struct Group {
    pub seat: Arc<Seat>,
    /// It begins a segment.
    pub start: Option<SegmentStart>,
    pub frames: Vec<u8>,
    pub staged: Staged,
    pub last_append: AppendTime,
    /// Where its first frame stands.
    pub position: u64,
    /// What its frames say is durable. Whoever writes the group sees to it that this is so.
    synced: u64,
}

/// The header and checkpoint of a segment that is to be made.
#[derive(Debug)]
pub(crate) struct SegmentStart {
    pub header: SegmentHeader,
    pub bytes: Vec<u8>,
}

/// What to do to the ledger and the index once the frames are on disk.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    pub batches: Vec<StagedBatch>,
    pub progress: Vec<Advance>,
    pub n_commits: u64,
    pub n_records: u64,
}

#[derive(Debug)]
pub(crate) struct StagedBatch {
    pub at: TopicPartition,
    pub entry: Entry,
    pub n_records: u32,
}

/// The commit whose frames are being made.
struct Staging<'a> {
    group: &'a mut Group,
    commit: CommitHead,
    n_frames_left: usize,
}

impl Tail {
    pub fn new(ledger: Ledger, writer: &Writer) -> Self {
        Self {
            ledger,
            segment: writer.segment,
            segment_started: writer.segment_started,
            position: writer.position,
            synced: writer.synced,
            next_sequence: writer.next_sequence,
            last_append: writer.last_append,
        }
    }

    /// Whether the commit can follow what was begun so far.
    pub fn check(&self, commit: &Commit) -> LogResult<()> {
        self.check_progress(&commit.progress)?;
        self.check_room(commit)
    }

    /// Each position must be greater than what is stored, also by this very commit.
    fn check_progress(&self, progress: &[Advance]) -> LogResult<()> {
        let mut here: HashMap<(&Owner, &TopicPartition), Position> = HashMap::new();
        for advance in progress {
            let before = here.insert((&advance.owner, &advance.partition), advance.position);
            if let Some(stored) = before.or_else(|| self.ledger.position(&advance.owner, &advance.partition))
                && stored >= advance.position
            {
                return Err(LogError::AlreadyCommitted { owner: advance.owner.clone(), partition: advance.partition.clone(), stored });
            }
        }
        Ok(())
    }

    /// An upper bound suffices: a commit that names a new partition twice is refused a little early.
    fn check_room(&self, commit: &Commit) -> LogResult<()> {
        let is_new = |append: &&Append| self.ledger.number(&append.to).is_none();
        if self.ledger.n_partitions() + commit.appends.iter().filter(is_new).count() > MAX_PARTITIONS {
            return Err(LogError::TooMany { what: "partitions", max: MAX_PARTITIONS });
        }
        let n_new = commit.progress.iter().filter(|advance| self.ledger.position(&advance.owner, &advance.partition).is_none()).count();
        if self.ledger.n_progress() + n_new > MAX_PROGRESS {
            return Err(LogError::TooMany { what: "progress of owners", max: MAX_PROGRESS });
        }
        Ok(())
    }

    /// A commit without rows and progress leaves no trace.
    pub fn empty(&self, commit: &Commit, now: AppendTime) -> Option<Committed> {
        let is_empty = n_frames(commit) == 0;
        is_empty.then(|| Committed {
            base_offsets: commit.appends.iter().map(|append| Offset(self.ledger.next_offset(&append.to))).collect(),
            append_time: now.max(self.last_append),
        })
    }

    /// An empty group behind all others, in a new segment if one is due. `frames` is empty.
    pub fn begin_group(&mut self, now: AppendTime, config: &JournalConfig, frames: Vec<u8>) -> Group {
        let started = now.max(self.last_append);
        let is_due = self.position >= config.segment_bytes || is_older(self.segment_started, started, config.segment_age);
        let start = (is_due && self.next_sequence > self.segment).then(|| self.begin_segment(started));
        let synced = match config.durability {
            // A group is written when the one before it is synced, not earlier.
            Durability::Fsync => self.position,
            Durability::Relaxed { .. } => self.synced,
        };
        let (seat, staged) = (Arc::default(), Staged::default());
        Group { seat, start, frames, staged, last_append: started, position: self.position, synced }
    }

    fn begin_segment(&mut self, started: AppendTime) -> SegmentStart {
        let header = SegmentHeader { first_sequence: self.next_sequence, previous: Some(self.segment), started };
        let bytes = segment::start_bytes(header, &self.ledger);
        (self.segment, self.segment_started) = (header.first_sequence, started);
        (self.position, self.synced) = (bytes.len() as u64, bytes.len() as u64);
        SegmentStart { header, bytes }
    }

    /// Adds a commit that was checked to the last group.
    pub fn add(&mut self, commit: Commit, group: &mut Group, now: AppendTime) -> Committed {
        let append_time = now.max(self.last_append);
        let head = CommitHead { sequence: self.next_sequence, append_time };
        let mut staging = Staging { n_frames_left: n_frames(&commit), commit: head, group };
        let base_offsets = commit.appends.iter().map(|append| self.add_batches(append, &mut staging)).collect();
        self.add_progress(commit.progress, &mut staging);
        group.staged.n_commits += 1;
        group.last_append = append_time;
        self.next_sequence += 1;
        self.last_append = append_time;
        Committed { base_offsets, append_time }
    }

    fn add_batches(&mut self, append: &Append, staging: &mut Staging<'_>) -> Offset {
        let base = self.ledger.next_offset(&append.to);
        let mut next = base;
        for (block, n_records) in append.records.blocks() {
            let (position, len) = self.put_frame(staging, FrameKind::Batch, |into| {
                format::put_batch(into, &append.to, Offset(next), n_records, block);
            });
            let entry = Entry { base_offset: next, append_time: staging.commit.append_time, position, len };
            staging.group.staged.batches.push(StagedBatch { at: append.to.clone(), entry, n_records });
            self.ledger.append(&append.to, n_records, u64::from(len));
            next += u64::from(n_records);
        }
        staging.group.staged.n_records += next - base;
        Offset(base)
    }

    fn add_progress(&mut self, progress: Vec<Advance>, staging: &mut Staging<'_>) {
        if progress.is_empty() {
            return;
        }
        let list = progress.iter().map(|advance| (&advance.owner, &advance.partition, advance.position));
        self.put_frame(staging, FrameKind::Progress, |into| format::put_progress(into, list));
        progress.iter().for_each(|advance| self.ledger.advance(advance));
        staging.group.staged.progress.extend(progress);
    }

    /// The frame's position in the segment and its length.
    fn put_frame(&mut self, staging: &mut Staging<'_>, kind: FrameKind, write_body: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        staging.n_frames_left -= 1;
        let head = FrameHead {
            kind,
            ends_commit: staging.n_frames_left == 0,
            unsynced_bytes: (self.position - staging.group.synced) as u32,
            commit: staging.commit,
        };
        let (position, frames) = (self.position, &mut staging.group.frames);
        let start = frames.len();
        format::put_frame(frames, Place { segment: self.segment, position }, head, write_body);
        let len = frames.len() - start;
        self.position += len as u64;
        (position as u32, len as u32)
    }

    /// A group was written and the file synced so far.
    pub fn has_synced(&mut self, writer: &Writer) {
        if writer.segment == self.segment {
            self.synced = writer.synced;
        }
    }
}

fn n_frames(commit: &Commit) -> usize {
    commit.appends.iter().map(|append| append.records.n_blocks()).sum::<usize>() + usize::from(!commit.progress.is_empty())
}
