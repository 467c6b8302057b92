//! Copies what can still be read of a damaged journal to a new folder, and names what is lost.
//!
//! Every good frame is found again, also behind a bad one, because a frame's checksum covers its place. What is missing shows in the
//! offsets: where a partition's next batch, a checkpoint or a consumer's position is ahead of what was read, the rows between are lost.
//! The copy has no holes: rows behind lost ones move down by so many offsets, and the positions that are offsets with them. A partition that
//! lost nothing keeps its offsets. A commit of which a part is lost is copied without it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mulgil_disk::{Disk, DiskError, DiskFile, DiskResult, OpenMode};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;

use crate::config::COMMIT_BYTES_MAX;
use crate::format::{self, Batch, Frame, FrameKind, HEADER_BYTES, SegmentHeader};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::scan::{Scanned, Scanner};
use crate::segment::{self, SEGMENT_ENDING};
use crate::tail::SegmentStart;
use crate::{Advance, Append, Commit, Damage, Durability, JournalConfig, LogError, LogResult, Owner, Records, Verifying};

/// What cannot be read is tried again in pieces of this size, and taken for zeroes where that fails too.
const PIECE_BYTES: usize = 4_096;

/// What to salvage, and where to.
#[derive(Debug)]
pub struct Salvage<'a> {
    /// The damaged journal. Nothing of it is changed.
    pub from: &'a JournalConfig,
    /// Must hold no journal yet.
    pub to: JournalConfig,
    pub disk: Arc<dyn Disk>,
    /// Whether an owner's positions are offsets of the partitions they are kept for; else they are left as they are.
    pub is_offset: fn(&Owner) -> bool,
}

/// What a salvage brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Salvaged {
    pub n_segments: usize,
    pub n_commits: u64,
    pub n_records: u64,
    /// In the order in which they were missed.
    pub lost: Vec<Lost>,
    /// Bytes that were passed over.
    pub damage: Vec<Damage>,
}

/// Rows that are gone, by their old offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub at: TopicPartition,
    pub from: Offset,
    /// The first that is not lost.
    pub to: Offset,
}

impl Salvage<'_> {
    /// Copies everything; `on_progress` hears how far it has come. On an error the new folder is to be deleted.
    pub fn run(self, on_progress: &mut dyn FnMut(Verifying)) -> LogResult<Salvaged> {
        let dir = self.from.journal_dir();
        let segments = crate::recover::find_segments(&*self.disk, &dir)?;
        let total_bytes = segments.iter().map(|(_, bytes)| bytes).sum();
        let mut copying = Copying::begin(self, &dir, segments.first().copied())?;
        let mut done_bytes = 0;
        for (sequence, bytes) in segments {
            copying.segment(&dir, sequence, bytes)?;
            done_bytes += bytes;
            on_progress(Verifying { done_bytes, total_bytes });
        }
        copying.journal.flush()?;
        Ok(copying.done)
    }
}

struct Copying {
    journal: Journal,
    disk: Arc<dyn Disk>,
    is_offset: fn(&Owner) -> bool,
    /// The append time of what is copied.
    now: Arc<AtomicI64>,
    /// By old offsets: what was read or is known to be lost.
    next: HashMap<TopicPartition, u64>,
    /// The commit that is being gathered, and its sequence.
    commit: Commit,
    sequence: Option<u64>,
    /// The segment before, if its header could be read.
    previous: Option<u64>,
    done: Salvaged,
}

impl Copying {
    fn begin(salvage: Salvage<'_>, dir: &Path, first: Option<(u64, u64)>) -> LogResult<Self> {
        let Salvage { from, to, disk, is_offset } = salvage;
        let new_dir = to.journal_dir();
        if to.dir == from.dir || disk.list(&new_dir).is_ok_and(|entries| !entries.is_empty()) {
            return Err(LogError::Config { reason: format!("{} holds a journal already; salvage to an empty folder", to.dir.display()) });
        }
        let Some((sequence, bytes)) = first else {
            return Err(LogError::Config { reason: format!("there is no journal in {}", from.dir.display()) });
        };
        let start = first_ledger(&*disk, dir, sequence, bytes);
        disk.create_dir_all(&new_dir)?;
        let header = SegmentHeader { first_sequence: 0, previous: None, started: AppendTime::from_micros(i64::MIN) };
        let segment_start = SegmentStart { header, bytes: segment::start_bytes(header, &start) };
        segment::create(&*disk, &new_dir, &segment_start, &start)?;
        let now = Arc::new(AtomicI64::new(i64::MIN));
        let hands = Arc::clone(&now);
        // The end is flushed; until then a crash only means to begin again.
        let durability = Durability::Relaxed { flush_every: Duration::MAX };
        let config = JournalConfig { durability, max_record_bytes: COMMIT_BYTES_MAX, max_commit_bytes: COMMIT_BYTES_MAX, ..to };
        let clock = Arc::new(move || AppendTime::from_micros(hands.load(Ordering::Relaxed)));
        let (journal, _) = Journal::open(config, Arc::clone(&disk), clock)?;
        let next = start.ends().iter().map(|end| (end.at.clone(), end.next)).collect();
        let (commit, done) = (Commit::default(), Salvaged::default());
        Ok(Self { journal, disk, is_offset, now, next, commit, sequence: None, previous: None, done })
    }

    fn segment(&mut self, dir: &Path, sequence: u64, bytes: u64) -> LogResult<()> {
        let path = segment::path(dir, sequence, SEGMENT_ENDING);
        let file: Arc<dyn DiskFile> = Arc::new(Patient(self.disk.open(&path, OpenMode::Read)?));
        self.header(dir, &path, &*file, sequence, bytes)?;
        let mut scanner = Scanner::new(file, sequence, bytes);
        let mut bad = None;
        loop {
            match scanner.next_frame()? {
                Scanned::End => break,
                Scanned::Frame { frame, .. } => self.frame(frame)?,
                Scanned::Bad { position, reason } => {
                    bad = Some((position, reason));
                }
            }
            if let Some((position, reason)) = bad.take() {
                let end = scanner.pass_over()?.unwrap_or(bytes);
                self.damaged(&path, position, format!("{reason}; {} bytes are passed over", end - position));
            }
        }
        self.done.n_segments += 1;
        Ok(())
    }

    /// Nothing that is needed: frames are known by the file's name. But it says whether a segment is missing.
    fn header(&mut self, dir: &Path, path: &Path, file: &dyn DiskFile, sequence: u64, bytes: u64) -> LogResult<()> {
        let mut header = [0; HEADER_BYTES];
        if bytes < HEADER_BYTES as u64 {
            self.damaged(path, 0, "the file ends inside the segment header".to_owned());
        } else {
            file.read_at(0, &mut header)?;
            match SegmentHeader::decode(&header) {
                Err(reason) => self.damaged(path, 0, reason.to_owned()),
                Ok(SegmentHeader { previous: Some(named), .. }) if self.previous.is_some_and(|found| found != named) => {
                    self.damaged(&segment::path(dir, named, SEGMENT_ENDING), 0, "the segment is missing".to_owned());
                }
                Ok(_) => {}
            }
        }
        self.previous = Some(sequence);
        Ok(())
    }

    fn frame(&mut self, frame: Frame<'_>) -> LogResult<()> {
        if self.sequence != Some(frame.commit.sequence) {
            // The end of the one before was lost.
            self.end_commit()?;
            self.sequence = Some(frame.commit.sequence);
        }
        self.now.store(frame.commit.append_time.micros(), Ordering::Relaxed);
        match frame.kind {
            FrameKind::Batch => self.batch(format::decode_batch(frame.body)),
            FrameKind::Progress => format::decode_progress(frame.body).into_iter().flatten().for_each(|advance| self.advance(advance)),
            FrameKind::Checkpoint => self.checkpoint(frame.body),
            FrameKind::Mark => {}
        }
        if frame.ends_commit { self.end_commit() } else { Ok(()) }
    }

    fn batch(&mut self, batch: Option<Batch<'_>>) {
        let Some(batch) = batch else { return };
        let (Ok(topic), Some(records)) = (Topic::new(batch.topic), Records::from_block(batch.records, batch.n_records)) else { return };
        let to = TopicPartition::new(topic, Partition(batch.partition));
        self.reaches(&to, batch.base_offset);
        if self.next.get(&to).is_some_and(|next| *next == batch.base_offset) {
            self.next.insert(to.clone(), batch.base_offset + u64::from(batch.n_records));
            self.commit.appends.push(Append { to, records });
        }
    }

    /// The partition is known to have had all rows below `offset`.
    fn reaches(&mut self, at: &TopicPartition, offset: u64) {
        let next = self.next.entry(at.clone()).or_insert(0);
        if *next < offset {
            self.done.lost.push(Lost { at: at.clone(), from: Offset(*next), to: Offset(offset) });
            *next = offset;
        }
    }

    fn checkpoint(&mut self, body: &[u8]) {
        let Some((ends, progress)) = format::decode_checkpoint(body) else { return };
        ends.iter().for_each(|end| self.reaches(&end.at, end.next));
        progress.into_iter().for_each(|advance| self.advance(advance));
    }

    /// Keeps a position, unless it says no more than what is kept already.
    fn advance(&mut self, mut advance: Advance) {
        if (self.is_offset)(&advance.owner) {
            self.reaches(&advance.partition, advance.position.commit);
            let moved = self.moved(&advance.partition, advance.position.commit);
            advance.position = Position::new(moved, advance.position.ordinal);
        }
        let is_same = |kept: &&mut Advance| kept.owner == advance.owner && kept.partition == advance.partition;
        if let Some(kept) = self.commit.progress.iter_mut().find(is_same) {
            kept.position = kept.position.max(advance.position);
        } else {
            self.commit.progress.push(advance);
        }
    }

    /// The new offset of an old one.
    fn moved(&self, at: &TopicPartition, offset: u64) -> u64 {
        let before = self.done.lost.iter().filter(|lost| lost.at == *at && lost.from.0 < offset);
        offset - before.map(|lost| lost.to.0.min(offset) - lost.from.0).sum::<u64>()
    }

    fn end_commit(&mut self) -> LogResult<()> {
        let mut commit = std::mem::take(&mut self.commit);
        let mut is_new = Vec::with_capacity(commit.progress.len());
        for advance in &commit.progress {
            let stored = crate::Log::progress(&self.journal, &advance.owner, &advance.partition)?;
            is_new.push(stored.is_none_or(|stored| stored < advance.position));
        }
        let mut is_new = is_new.into_iter();
        commit.progress.retain(|_| is_new.next().unwrap_or(false));
        self.done.n_commits += u64::from(!commit.appends.is_empty() || !commit.progress.is_empty());
        self.done.n_records += commit.appends.iter().map(|append| append.records.len()).sum::<u64>();
        self.journal.commit(commit).map(drop)
    }

    fn damaged(&mut self, file: &Path, byte: u64, reason: String) {
        self.done.damage.push(Damage { file: file.to_owned(), byte, reason });
    }
}

impl Salvaged {
    /// Partitions whose rows behind the first lost one have new offsets, and by how many they moved down in the end.
    pub fn moved(&self) -> Vec<(TopicPartition, u64)> {
        let mut seen = HashSet::new();
        let partitions = self.lost.iter().filter(|lost| seen.insert(&lost.at));
        let n_lost = |at: &TopicPartition| self.lost.iter().filter(|lost| lost.at == *at).map(|lost| lost.to.0 - lost.from.0).sum();
        partitions.map(|lost| (lost.at.clone(), n_lost(&lost.at))).collect()
    }
}

/// Where the partitions began, if that can still be read: what retention removed is not lost.
fn first_ledger(disk: &dyn Disk, dir: &Path, sequence: u64, bytes: u64) -> Ledger {
    let read = || {
        let file: Arc<dyn DiskFile> = Arc::new(Patient(disk.open(&segment::path(dir, sequence, SEGMENT_ENDING), OpenMode::Read)?));
        let mut scanner = Scanner::new(file, sequence, bytes);
        Ok::<_, DiskError>(match scanner.next_frame()? {
            Scanned::Frame { frame, .. } if frame.kind == FrameKind::Checkpoint => Ledger::from_checkpoint(frame.body),
            _ => None,
        })
    };
    read().ok().flatten().unwrap_or_default()
}

/// Reads around what cannot be read.
#[derive(Debug)]
struct Patient(Arc<dyn DiskFile>);

impl DiskFile for Patient {
    fn read_at(&self, at: u64, into: &mut [u8]) -> DiskResult<()> {
        if self.0.read_at(at, into).is_err() {
            for (i, piece) in into.chunks_mut(PIECE_BYTES).enumerate() {
                if self.0.read_at(at + (i * PIECE_BYTES) as u64, piece).is_err() {
                    piece.fill(0);
                }
            }
        }
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> DiskResult<()> {
        self.0.append(bytes)
    }

    fn sync_data(&self) -> DiskResult<()> {
        self.0.sync_data()
    }

    fn size_bytes(&self) -> DiskResult<u64> {
        self.0.size_bytes()
    }

    fn truncate(&self, size_bytes: u64) -> DiskResult<()> {
        self.0.truncate(size_bytes)
    }
}
