//! Turns the commits of one group into frames, checking each against the ledger and against those before it in the group.
//! Nothing here has happened yet: the ledger is changed only when the frames are on disk.

use std::collections::HashMap;

use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;

use crate::format::{self, CommitHead, FrameKind, Place};
use crate::index::Entry;
use crate::ledger::{Ledger, MAX_PARTITIONS, MAX_PROGRESS};
use crate::{Advance, Append, Commit, Committed, LogError, LogResult, Owner};

/// Where the frames will stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StageAt {
    pub segment: u64,
    pub position: u64,
    /// Up to where the segment is durable.
    pub synced: u64,
    pub next_sequence: u64,
    pub append_time: AppendTime,
}

#[derive(Debug)]
pub(crate) struct Stage<'a> {
    ledger: &'a Ledger,
    at: StageAt,
    next: HashMap<TopicPartition, u64>,
    positions: HashMap<(Owner, TopicPartition), Position>,
    n_new_partitions: usize,
    n_new_progress: usize,
    frames: Vec<u8>,
    /// Where in `frames` the last of them begins.
    last_frame: usize,
    done: Staged,
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

impl<'a> Stage<'a> {
    /// Frames go to `frames`, which is empty.
    pub fn new(ledger: &'a Ledger, at: StageAt, frames: Vec<u8>) -> Self {
        Self {
            ledger,
            at,
            next: HashMap::new(),
            positions: HashMap::new(),
            n_new_partitions: 0,
            n_new_progress: 0,
            frames,
            last_frame: 0,
            done: Staged::default(),
        }
    }

    /// Adds a whole commit, or refuses it and adds nothing.
    pub fn add(&mut self, commit: Commit) -> LogResult<Committed> {
        self.check_progress(&commit.progress)?;
        self.check_room(&commit)?;
        let start = self.frames.len();
        let base_offsets = commit.appends.iter().map(|append| self.add_batches(append)).collect();
        self.add_progress(commit.progress);
        if self.frames.len() > start {
            let position = self.at.position + self.last_frame as u64;
            format::end_commit(&mut self.frames[self.last_frame..], Place { segment: self.at.segment, position });
            self.done.n_commits += 1;
        }
        Ok(Committed { base_offsets, append_time: self.at.append_time })
    }

    pub fn finish(self) -> (Vec<u8>, Staged) {
        (self.frames, self.done)
    }

    /// Each position must be greater than what is stored, also by this very commit.
    fn check_progress(&self, progress: &[Advance]) -> LogResult<()> {
        let mut here: HashMap<(&Owner, &TopicPartition), Position> = HashMap::new();
        for advance in progress {
            let before = here.insert((&advance.owner, &advance.partition), advance.position);
            if let Some(stored) = before.or_else(|| self.position(advance))
                && stored >= advance.position
            {
                return Err(LogError::AlreadyCommitted { owner: advance.owner.clone(), partition: advance.partition.clone(), stored });
            }
        }
        Ok(())
    }

    /// An upper bound suffices: a commit that names a new partition twice is refused a little early.
    fn check_room(&self, commit: &Commit) -> LogResult<()> {
        let is_new = |append: &&Append| self.ledger.number(&append.to).is_none() && !self.next.contains_key(&append.to);
        let n_partitions = self.ledger.ends().len() + self.n_new_partitions + commit.appends.iter().filter(is_new).count();
        if n_partitions > MAX_PARTITIONS {
            return Err(LogError::TooMany { what: "partitions", max: MAX_PARTITIONS });
        }
        let n_new = commit.progress.iter().filter(|advance| self.position(advance).is_none()).count();
        if self.ledger.n_progress() + self.n_new_progress + n_new > MAX_PROGRESS {
            return Err(LogError::TooMany { what: "progress of owners", max: MAX_PROGRESS });
        }
        Ok(())
    }

    fn position(&self, of: &Advance) -> Option<Position> {
        let staged = if self.positions.is_empty() { None } else { self.positions.get(&(of.owner.clone(), of.partition.clone())) };
        staged.copied().or_else(|| self.ledger.position(&of.owner, &of.partition))
    }

    fn add_batches(&mut self, append: &Append) -> Offset {
        let mut next = match self.next.get(&append.to) {
            Some(next) => *next,
            None => self.ledger.next_offset(&append.to),
        };
        let base = Offset(next);
        for (block, n_records) in append.records.blocks() {
            let (position, len) =
                self.put_frame(FrameKind::Batch, |into| format::put_batch(into, &append.to, Offset(next), n_records, block));
            let entry = Entry { base_offset: next, append_time: self.at.append_time, position, len };
            self.done.batches.push(StagedBatch { at: append.to.clone(), entry, n_records });
            next += u64::from(n_records);
        }
        if next > base.0 {
            self.done.n_records += next - base.0;
            if self.next.insert(append.to.clone(), next).is_none() && self.ledger.number(&append.to).is_none() {
                self.n_new_partitions += 1;
            }
        }
        base
    }

    fn add_progress(&mut self, progress: Vec<Advance>) {
        if !progress.is_empty() {
            let list = progress.iter().map(|advance| (&advance.owner, &advance.partition, advance.position));
            self.put_frame(FrameKind::Progress, |into| format::put_progress(into, list));
        }
        for advance in progress {
            let key = (advance.owner.clone(), advance.partition.clone());
            if self.positions.insert(key, advance.position).is_none() && self.ledger.position(&advance.owner, &advance.partition).is_none()
            {
                self.n_new_progress += 1;
            }
            self.done.progress.push(advance);
        }
    }

    /// The frame's position in the segment and its length.
    fn put_frame(&mut self, kind: FrameKind, write_body: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        let start = self.frames.len();
        self.last_frame = start;
        let position = self.at.position + start as u64;
        let place = Place { segment: self.at.segment, position };
        let head = CommitHead { sequence: self.at.next_sequence + self.done.n_commits, append_time: self.at.append_time };
        format::put_frame(&mut self.frames, place, head, kind, (position - self.at.synced) as u32, write_body);
        (position as u32, (self.frames.len() - start) as u32)
    }
}
