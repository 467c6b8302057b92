//! The embedded log: one journal on local disk for all topics, one writer, group commit.
//!
//! It spawns nothing. Of the threads that commit at the same time one leads: it writes what all of them brought in one write and
//! one sync, while the next group gathers. Readers share files with the writer, but never see beyond the last whole group.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mulgil_disk::{Disk, DiskError, DiskLock, failpoint};
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;
use parking_lot::{Mutex, RwLock};

use crate::chunk::ChunkBuilder;
use crate::format::{FRAME_HEAD_BYTES, SegmentHeader};
use crate::group::{GroupLimit, GroupQueue};
use crate::recover::{self, Access, Recovered};
use crate::segment::{self, LoadedSegments};
use crate::stage::{Stage, Staged};
use crate::view::{Active, View};
use crate::watch::Bell;
use crate::writer::{WriteError, Writer};
use crate::{
    Chunk, Clock, Commit, Committed, Durability, JournalConfig, Log, LogError, LogResult, Opened, Owner, ReadLimit, Seek, Stats, Watch,
    fetch,
};

/// What one sync covers at most, beyond the first commit. Bounds the memory of the group and how long a small commit waits.
const GROUP_LIMIT: GroupLimit = GroupLimit { jobs: 4096, weight: 16 << 20 };
/// What a frame takes beyond its rows or names, at most.
const FRAME_EXTRA_BYTES: usize = FRAME_HEAD_BYTES + 32;

pub struct Journal {
    pub(crate) config: JournalConfig,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Clock,
    pub(crate) view: RwLock<View>,
    pub(crate) loaded: LoadedSegments,
    /// Held while retention removes files, so that it removes them in order.
    pub(crate) retaining: Mutex<()>,
    /// None when the journal is only read.
    writer: Option<Mutex<Writer>>,
    queue: GroupQueue<Commit, LogResult<Committed>>,
    bell: Arc<Bell>,
    stats: Mutex<Stats>,
    poisoned: OnceLock<Arc<str>>,
    /// Last, so that the files are closed before another process may open them.
    _lock: Option<Box<dyn DiskLock>>,
}

/// A partition as [`Journal::topics`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    pub at: TopicPartition,
    /// The first row still there.
    pub first: Offset,
    /// Where the next row will be.
    pub next: Offset,
    /// On disk.
    pub bytes: u64,
}

impl Journal {
    /// Opens the journal of a data folder, or begins one. Refused while another process has it open, and when what was committed is
    /// damaged; a torn tail is cut off and reported.
    pub fn open(config: JournalConfig, disk: Arc<dyn Disk>, clock: Clock) -> LogResult<(Self, Opened)> {
        config.check()?;
        let lock = recover::lock(&config, &*disk)?;
        Self::assemble(config, disk, clock, Access::ReadWrite, Some(lock))
    }

    /// Opens the journal as it is at this moment, for reading only, also while another process writes to it. What is committed later
    /// is not seen, and rows that the writer has not yet synced may be.
    pub fn open_read_only(config: JournalConfig, disk: Arc<dyn Disk>, clock: Clock) -> LogResult<(Self, Opened)> {
        config.check()?;
        Self::assemble(config, disk, clock, Access::ReadOnly, None)
    }

    fn assemble(
        config: JournalConfig,
        disk: Arc<dyn Disk>,
        clock: Clock,
        access: Access,
        lock: Option<Box<dyn DiskLock>>,
    ) -> LogResult<(Self, Opened)> {
        let Recovered { mut view, mut writer, opened } = recover::recover(&config, &*disk, access, clock())?;
        let is_writable = access == Access::ReadWrite;
        if is_writable {
            writer.mark(clock())?;
            view.set_active_bytes(writer.position);
        }
        let journal = Self {
            loaded: LoadedSegments::new(Arc::clone(&disk), config.index_cache_bytes, is_writable),
            config,
            disk,
            clock,
            view: RwLock::new(view),
            retaining: Mutex::new(()),
            writer: is_writable.then(|| Mutex::new(writer)),
            queue: GroupQueue::new(GROUP_LIMIT),
            bell: Arc::default(),
            stats: Mutex::default(),
            poisoned: OnceLock::new(),
            _lock: lock,
        };
        Ok((journal, opened))
    }

    /// All partitions, by topic and number.
    pub fn topics(&self) -> Vec<PartitionInfo> {
        let view = self.view.read();
        let info = |end: &crate::format::PartitionEnd| {
            let no = view.ledger.number(&end.at)?;
            let (first, bytes) = (Offset(view.first_offset(no)), view.partition_bytes(no));
            Some(PartitionInfo { at: end.at.clone(), first, next: Offset(end.next), bytes })
        };
        let mut infos: Vec<_> = view.ledger.ends().iter().filter_map(info).collect();
        infos.sort_by(|a, b| a.at.cmp(&b.at));
        infos
    }

    pub fn stats(&self) -> Stats {
        let mut stats = self.stats.lock().clone();
        let view = self.view.read();
        stats.n_waiting = self.queue.n_waiting();
        stats.n_segments = view.sealed.len() + 1;
        stats.journal_bytes = view.bytes();
        stats.poisoned = self.poisoned.get().cloned();
        stats
    }

    /// Makes everything durable that relaxed durability has not yet.
    pub fn flush(&self) -> LogResult<()> {
        self.check_alive()?;
        let Some(writer) = &self.writer else { return Ok(()) };
        let mut writer = writer.lock();
        if writer.synced < writer.position { self.sync(&mut writer).map_err(|error| self.poison(&error)) } else { Ok(()) }
    }

    /// Refuses what can be refused without knowing anybody else's commit; gives the size otherwise.
    fn check_size(&self, commit: &Commit) -> LogResult<usize> {
        let max_bytes = self.config.max_record_bytes;
        if let Some(append) = commit.appends.iter().find(|append| append.records.largest_bytes() > max_bytes) {
            let size_bytes = append.records.largest_bytes();
            return Err(LogError::RecordTooLarge { to: append.to.clone(), size_bytes, max_bytes });
        }
        let of_append = |append: &crate::Append| {
            append.records.size_bytes() + append.records.n_blocks() * (FRAME_EXTRA_BYTES + append.to.topic.as_str().len())
        };
        let of_advance =
            |advance: &crate::Advance| FRAME_EXTRA_BYTES + advance.owner.as_str().len() + advance.partition.topic.as_str().len();
        let size_bytes = commit.appends.iter().map(of_append).chain(commit.progress.iter().map(of_advance)).sum();
        let max_bytes = self.config.max_commit_bytes;
        if size_bytes > max_bytes { Err(LogError::CommitTooLarge { size_bytes, max_bytes }) } else { Ok(size_bytes) }
    }

    /// Writes a group, as its leader. Every commit gets its answer.
    fn write_group(&self, writer: &Mutex<Writer>, commits: Vec<Commit>) -> Vec<LogResult<Committed>> {
        let n = commits.len();
        let mut writer = writer.lock();
        let result = self.check_alive().and_then(|()| self.begin_segment_if_due(&mut writer)).and_then(|()| {
            let append_time = writer.append_time((self.clock)());
            let view = self.view.read();
            let buffer = std::mem::take(&mut writer.buffer);
            let mut stage = Stage::new(&view.ledger, writer.stage_at(append_time), buffer);
            let answers: Vec<_> = commits.into_iter().map(|commit| stage.add(commit)).collect();
            let (frames, staged) = stage.finish();
            drop(view);
            // What one commit was told may rest on another of its group, so they fail together.
            self.write_frames(&mut writer, frames, staged, append_time).map(|()| answers)
        });
        let answers = result.unwrap_or_else(|error| vec![Err(error); n]);
        let mut stats = self.stats.lock();
        stats.n_groups += 1;
        stats.n_refused += answers.iter().filter(|answer| answer.is_err()).count() as u64;
        answers
    }

    fn write_frames(&self, writer: &mut Writer, frames: Vec<u8>, staged: Staged, append_time: AppendTime) -> LogResult<()> {
        if frames.is_empty() {
            writer.keep_buffer(frames);
            return Ok(());
        }
        writer.append(&frames).map_err(|error| match error {
            WriteError::Full(error) => LogError::from(error),
            WriteError::Unknown(error) => self.poison(&error),
        })?;
        if self.is_sync_due(writer) {
            self.sync(writer).map_err(|error| self.poison(&error))?;
        }
        writer.next_sequence += staged.n_commits;
        writer.last_append = append_time;
        {
            let mut stats = self.stats.lock();
            stats.n_commits += staged.n_commits;
            stats.n_records += staged.n_records;
            stats.written_bytes += frames.len() as u64;
            stats.unsynced_bytes = writer.position - writer.synced;
        }
        self.view.write().apply(staged, frames.len() as u64);
        writer.keep_buffer(frames);
        self.bell.ring();
        Ok(())
    }

    fn is_sync_due(&self, writer: &Writer) -> bool {
        match self.config.durability {
            Durability::Fsync => true,
            Durability::Relaxed { flush_every } => is_older(writer.last_sync, (self.clock)(), flush_every),
        }
    }

    fn sync(&self, writer: &mut Writer) -> Result<(), DiskError> {
        let began = (self.clock)();
        writer.sync(began)?;
        let took = (self.clock)().micros().saturating_sub(began.micros());
        let mut stats = self.stats.lock();
        stats.count_sync(u64::try_from(took).unwrap_or(0));
        stats.unsynced_bytes = 0;
        Ok(())
    }

    fn begin_segment_if_due(&self, writer: &mut Writer) -> LogResult<()> {
        let now = writer.append_time((self.clock)());
        let is_old = is_older(writer.segment_started, now, self.config.segment_age);
        let is_empty = writer.next_sequence == writer.segment;
        if is_empty || !(is_old || writer.position >= self.config.segment_bytes) {
            return Ok(());
        }
        if writer.synced < writer.position {
            self.sync(writer).map_err(|error| self.poison(&error))?;
        }
        let header = SegmentHeader { first_sequence: writer.next_sequence, previous: Some(writer.segment), started: now };
        let created = segment::create(&*self.disk, &self.config.journal_dir(), header, &self.view.read().ledger);
        let (segment, file) = created.map_err(|error| if error.is_full() { error.into() } else { self.poison(&error) })?;
        failpoint::here("log.segment-begun");
        writer.move_to(Arc::clone(&file), now, segment.bytes);
        let active = Active { segment: Arc::new(segment), file, index: Default::default() };
        let sealed = {
            let mut view = self.view.write();
            let sealed = std::mem::replace(&mut view.active, active);
            view.sealed.push_back(Arc::clone(&sealed.segment));
            sealed
        };
        self.loaded.seal(&sealed.segment, sealed.file, sealed.index);
        Ok(())
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.writer.is_none()
    }

    pub(crate) fn check_alive(&self) -> LogResult<()> {
        match self.poisoned.get() {
            Some(reason) => Err(LogError::Poisoned { reason: Arc::clone(reason) }),
            None => Ok(()),
        }
    }

    /// Nothing that was written since the last sync can be trusted any more, and a second sync could claim success for nothing.
    fn poison(&self, error: &DiskError) -> LogError {
        let reason = Arc::clone(self.poisoned.get_or_init(|| error.to_string().into()));
        tracing::error!(%reason, "the journal stops: it cannot make commits durable");
        self.bell.ring();
        LogError::Poisoned { reason }
    }

    /// Reads on from one segment, once.
    fn read_segment(&self, at: &TopicPartition, into: &mut ChunkBuilder) -> LogResult<Step> {
        let (from, room) = (into.next_offset(), into.room());
        let share = {
            let view = self.view.read();
            let Some(no) = view.readable(at, Offset(from))? else { return Ok(Step::AtEnd) };
            view.share(no, from, |entries, end| fetch::select(entries, from, end, room))
        };
        let (file, entries) = match share.active {
            Some(active) => active,
            None => match self.loaded.get(&share.segment) {
                Ok(loaded) => (Arc::clone(&loaded.file), fetch::select(loaded.index.of(share.no), from, share.end, room)),
                Err(LogError::Disk(error)) if error.is_missing() && self.is_removed(share.segment.header.first_sequence) => {
                    return Ok(Step::Again);
                }
                Err(error) => return Err(error),
            },
        };
        fetch::fetch(&file, &share.segment, at, &entries, into)?;
        if into.next_offset() == from && !into.is_full() {
            return Err(share.segment.damaged(0, format!("offset {from} of {at} is missing")));
        }
        Ok(Step::Again)
    }

    /// Retention was faster than a read.
    fn is_removed(&self, segment: u64) -> bool {
        self.view.read().segments().next().is_some_and(|first| first.header.first_sequence > segment)
    }

    fn seek_time(&self, at: &TopicPartition, time: AppendTime) -> LogResult<Offset> {
        let (segment, no, end) = {
            let view = self.view.read();
            let Some(no) = view.ledger.number(at) else { return Ok(Offset::ZERO) };
            let i = view.index_at(time);
            let end = view.end_in(i, no);
            match view.sealed.get(i) {
                Some(segment) => (Arc::clone(segment), no, end),
                None => return Ok(first_at(view.active.index.of(no), time, end)),
            }
        };
        Ok(first_at(self.loaded.get(&segment)?.index.of(no), time, end))
    }
}

enum Step {
    AtEnd,
    Again,
}

fn first_at(entries: &[crate::index::Entry], time: AppendTime, end: u64) -> Offset {
    let i = entries.partition_point(|entry| entry.append_time < time);
    Offset(entries.get(i).map_or(end, |entry| entry.base_offset))
}

pub(crate) fn is_older(since: AppendTime, now: AppendTime, than: Duration) -> bool {
    let age = now.micros().saturating_sub(since.micros());
    u64::try_from(age).is_ok_and(|age| Duration::from_micros(age) >= than)
}

impl Log for Journal {
    fn commit(&self, commit: Commit) -> LogResult<Committed> {
        self.check_alive()?;
        let writer = self.writer.as_ref().ok_or(LogError::ReadOnly)?;
        let size = self.check_size(&commit).inspect_err(|_| self.stats.lock().n_refused += 1)?;
        self.queue.submit(commit, size, |commits| self.write_group(writer, commits))
    }

    fn read(&self, at: &TopicPartition, from: Offset, limit: ReadLimit) -> LogResult<Chunk> {
        self.check_alive()?;
        self.view.read().readable(at, from)?;
        let mut chunk = ChunkBuilder::new(from, limit);
        while !chunk.is_full() {
            match self.read_segment(at, &mut chunk)? {
                Step::Again => {}
                Step::AtEnd => break,
            }
        }
        Ok(chunk.finish())
    }

    fn progress(&self, owner: &Owner, at: &TopicPartition) -> LogResult<Option<Position>> {
        self.check_alive()?;
        Ok(self.view.read().ledger.position(owner, at))
    }

    fn seek(&self, at: &TopicPartition, to: Seek) -> LogResult<Offset> {
        self.check_alive()?;
        match to {
            Seek::First => {
                let view = self.view.read();
                Ok(Offset(view.ledger.number(at).map_or(0, |no| view.first_offset(no))))
            }
            Seek::Next => Ok(Offset(self.view.read().ledger.next_offset(at))),
            Seek::AppendedAt(time) => self.seek_time(at, time),
        }
    }

    fn watch(&self) -> Watch {
        self.bell.watch()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.check_alive().is_err() {
            return;
        }
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.get_mut().mark((self.clock)())
        {
            tracing::warn!(%error, "the journal could not be closed in order; the next start looks at its end more closely");
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("dir", &self.config.dir).field("stats", &self.stats()).finish_non_exhaustive()
    }
}
