//! The embedded log: one journal on local disk for all topics, one writer, group commit.
//!
//! It spawns nothing: commits are written by those who wait for them (committer.rs). Readers share files with the writer, but never see
//! beyond the last group that is on disk.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mulgil_disk::{Disk, DiskError, DiskLock};
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;
use parking_lot::{Mutex, RwLock};

use crate::chunk::ChunkBuilder;
use crate::committer::Committer;
use crate::doubt;
use crate::file_cache::{FileCache, Piece};
use crate::recover::{self, Access, Recovered};
use crate::retain::Retaining;
use crate::segment::{self, LoadedSegments};
use crate::view::View;
use crate::watch::Bell;
use crate::writer::Writer;
use crate::{
    Chunk, Clock, Commit, Committed, JournalConfig, Log, LogError, LogResult, Opened, Owner, ReadLimit, Seek, Stats, Ticket, Watch, fetch,
};

/// What those who commit and those who read share.
pub(crate) struct Shared {
    pub config: JournalConfig,
    pub disk: Arc<dyn Disk>,
    pub clock: Clock,
    pub view: RwLock<View>,
    pub loaded: LoadedSegments,
    pub bell: Arc<Bell>,
    pub stats: Mutex<Stats>,
    file_cache: Mutex<FileCache>,
    poisoned: OnceLock<Arc<str>>,
}

pub struct Journal {
    pub(crate) shared: Arc<Shared>,
    /// Held while retention removes files, so that it removes them in order.
    pub(crate) retaining: Mutex<Retaining>,
    /// None when the journal is only read.
    committer: Option<Arc<Committer>>,
    /// Last, so that everything is on disk before another process may open the journal.
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
    /// Has everyone who watches look again, as a commit does: to be told of something else than rows.
    pub fn ring(&self) {
        self.shared.bell.ring();
    }

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
            writer.mark(clock()).inspect_err(|_| doubt::note(&*disk, &config.journal_dir()))?;
            view.set_active_bytes(writer.position);
        }
        let shared = Arc::new(Shared {
            loaded: LoadedSegments::new(Arc::clone(&disk), &config, is_writable),
            file_cache: Mutex::new(FileCache::new(config.file_cache_bytes)),
            config,
            disk,
            clock,
            view: RwLock::new(view),
            bell: Arc::default(),
            stats: Mutex::default(),
            poisoned: OnceLock::new(),
        });
        let committer = is_writable.then(|| Arc::new(Committer::new(Arc::clone(&shared), writer)));
        let journal = Self { shared, retaining: Mutex::default(), committer, _lock: lock };
        Ok((journal, opened))
    }

    /// Both steps of a commit in one: durable when it returns.
    pub fn commit(&self, commit: Commit) -> LogResult<Committed> {
        self.begin(commit)?.wait()
    }

    /// Makes begun commits durable although nobody waits for them: takes up one group, or waits up to `timeout` for one. Says whether there
    /// was one. For a thread of the binary that calls it in a loop, so that whoever begins commits can go on while the disk works; without
    /// one the journal does the same, when somebody waits.
    pub fn drive(&self, timeout: Duration) -> bool {
        self.committer.as_ref().is_some_and(|committer| committer.drive(timeout))
    }

    /// All partitions, by topic and number.
    pub fn topics(&self) -> Vec<PartitionInfo> {
        let view = self.shared.view.read();
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
        let mut stats = self.shared.stats.lock().clone();
        if let Some(committer) = &self.committer {
            committer.add_stats(&mut stats);
        }
        (stats.open_segments, stats.index_cache_bytes) = self.shared.loaded.size();
        let view = self.shared.view.read();
        stats.n_segments = view.sealed.len() + 1;
        stats.journal_bytes = view.bytes();
        stats.active_index_bytes = view.active.index.size_bytes();
        (stats.n_partitions, stats.n_progress) = (view.ledger.n_partitions(), view.ledger.n_progress());
        stats.poisoned = self.shared.poisoned.get().cloned();
        stats
    }

    /// Makes everything durable: what was begun and what relaxed durability has left to the system.
    pub fn flush(&self) -> LogResult<()> {
        self.shared.check_alive()?;
        self.committer.as_ref().map_or(Ok(()), |committer| committer.flush())
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.committer.is_none()
    }

    /// Reads on from one segment, once.
    fn read_segment(&self, at: &TopicPartition, into: &mut ChunkBuilder) -> LogResult<Step> {
        let (from, room) = (into.next_offset(), into.room());
        let share = {
            let view = self.shared.view.read();
            let Some(no) = view.readable(at, Offset(from))? else { return Ok(Step::AtEnd) };
            view.share(no, from, |entries, end| fetch::select(entries, from, end, room))
        };
        let (file, entries) = match share.active {
            Some(active) => active,
            None => match self.shared.loaded.get(&share.segment) {
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
        self.shared.view.read().segments().next().is_some_and(|first| first.header.first_sequence > segment)
    }

    fn seek_time(&self, at: &TopicPartition, time: AppendTime) -> LogResult<Offset> {
        let (segment, no, end) = {
            let view = self.shared.view.read();
            let Some(no) = view.ledger.number(at) else { return Ok(Offset::ZERO) };
            let i = view.index_at(time);
            let end = view.end_in(i, no);
            match view.sealed.get(i) {
                Some(segment) => (Arc::clone(segment), no, end),
                None => return Ok(first_at(view.active.index.of(no), time, end)),
            }
        };
        Ok(first_at(self.shared.loaded.get(&segment)?.index.of(no), time, end))
    }
}

impl Shared {
    pub fn check_alive(&self) -> LogResult<()> {
        match self.poisoned.get() {
            Some(reason) => Err(LogError::Poisoned { reason: Arc::clone(reason) }),
            None => Ok(()),
        }
    }

    /// Nothing that was written since the last sync can be trusted any more, and a second sync could claim success for nothing.
    pub fn poison(&self, error: &DiskError) -> LogError {
        let reason = Arc::clone(self.poisoned.get_or_init(|| error.to_string().into()));
        doubt::note(&*self.disk, &self.config.journal_dir());
        tracing::error!(%reason, "the journal stops: it cannot make commits durable");
        self.bell.ring();
        LogError::Poisoned { reason }
    }

    pub fn sync(&self, writer: &mut Writer) -> Result<(), DiskError> {
        let began = (self.clock)();
        let written = Piece { segment: writer.segment, bytes: writer.synced..writer.position };
        writer.sync(began)?;
        let took = (self.clock)().micros().saturating_sub(began.micros());
        let file_cache_bytes = self.left_to_cache(written);
        let mut stats = self.stats.lock();
        stats.count_sync(u64::try_from(took).unwrap_or(0));
        stats.unsynced_bytes = 0;
        stats.file_cache_bytes = file_cache_bytes;
        Ok(())
    }

    /// Gives up what was written long ago for what was written now; the bytes that are kept.
    fn left_to_cache(&self, written: Piece) -> u64 {
        let mut file_cache = self.file_cache.lock();
        file_cache.add(written);
        while let Some(Piece { segment, bytes }) = file_cache.give_up() {
            self.disk.forget(&segment::path(&self.config.journal_dir(), segment, segment::SEGMENT_ENDING), bytes);
        }
        file_cache.bytes()
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

impl Log for Journal {
    fn begin(&self, commit: Commit) -> LogResult<Ticket> {
        self.shared.check_alive()?;
        let config = &self.shared.config;
        mulgil_disk::check_reserve(&*self.shared.disk, &config.dir, config.reserve_bytes)?;
        self.committer.as_ref().ok_or(LogError::ReadOnly)?.begin(commit)
    }

    fn read(&self, at: &TopicPartition, from: Offset, limit: ReadLimit) -> LogResult<Chunk> {
        self.shared.check_alive()?;
        self.shared.view.read().readable(at, from)?;
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
        self.shared.check_alive()?;
        Ok(self.shared.view.read().ledger.position(owner, at))
    }

    fn seek(&self, at: &TopicPartition, to: Seek) -> LogResult<Offset> {
        self.shared.check_alive()?;
        match to {
            Seek::First => {
                let view = self.shared.view.read();
                Ok(Offset(view.ledger.number(at).map_or(0, |no| view.first_offset(no))))
            }
            Seek::Next => Ok(Offset(self.shared.view.read().ledger.next_offset(at))),
            Seek::AppendedAt(time) => self.seek_time(at, time),
        }
    }

    fn watch(&self) -> Watch {
        self.shared.bell.watch()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let Some(committer) = &self.committer else { return };
        if self.shared.check_alive().is_ok()
            && let Err(error) = committer.close()
        {
            tracing::warn!(%error, "the journal could not be closed in order; the next start looks at its end more closely");
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("dir", &self.shared.config.dir).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}
