//! Group commit without a thread of its own: commits join the open group; whoever waits and finds nobody at work leads, which is to
//! write and sync the open group for all who are in it, while the next one gathers.
//!
//! ```text
//! begin ──▶ open group ──(somebody waits, nobody leads)──▶ in flight: write, sync ──▶ settled: readers see it, tickets answer
//!             ▲   │                                            │
//!             │   └──────────── fails with it ◀────────────────┤ it fails
//!             └── the next begin makes a new one               └──▶ settled: tickets answer with the error
//! ```
//!
//! There are two groups at most. The open one holds [`crate::JournalConfig::group_bytes`] (one commit more when that alone is larger);
//! then `begin` waits until it is taken up. A group is written when the one before it is durable, not earlier.
//!
//! What was begun behind a group that failed fails with it, and until every ticket of theirs was waited for or dropped nothing new is
//! begun: so a later commit cannot overtake one that its caller still believes to be on its way.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::doubt;
use crate::format::FRAME_HEAD_BYTES;
use crate::journal::Shared;
use crate::segment;
use crate::tail::{Group, SegmentStart, Tail};
use crate::ticket::Ticket;
use crate::view::Active;
use crate::watch::Bell;
use crate::writer::{WriteError, Writer};
use crate::{Commit, Durability, LogError, LogResult, Stats};

/// What a frame takes beyond its rows or names, at most.
const FRAME_EXTRA_BYTES: usize = FRAME_HEAD_BYTES + 32;

#[derive(Debug)]
pub(crate) struct Committer {
    shared: Arc<Shared>,
    /// Taken before the queue by those who need both.
    writer: Mutex<Writer>,
    queue: Mutex<Queue>,
    /// The open group was taken up, or can be.
    taken: Condvar,
    /// There is an open group that nobody has taken up.
    begun: Condvar,
}

#[derive(Debug)]
struct Queue {
    tail: Tail,
    open: Option<Group>,
    in_flight: Option<InFlight>,
    /// Of the groups that failed together, while somebody still holds a ticket.
    failed: Vec<Weak<Seat>>,
    /// The buffer of the last group, for the next.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct InFlight {
    seat: Arc<Seat>,
    n_commits: u64,
    bytes: usize,
}

/// Where those who hold a ticket of a group wait, with the lock of the queue.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    outcome: OnceLock<LogResult<()>>,
    changed: Condvar,
}

impl Seat {
    pub fn outcome(&self) -> Option<&LogResult<()>> {
        self.outcome.get()
    }

    fn settle(&self, outcome: LogResult<()>) {
        self.outcome.set(outcome).expect("invariant: a group is settled once");
        self.changed.notify_all();
    }
}

/// A group was written: rings for those who read. Not under the lock of the queue.
struct News<'a>(&'a Bell);

impl Drop for News<'_> {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl Queue {
    fn has_room(&self, size: usize, max_bytes: usize, max_commits: u64) -> bool {
        self.open.as_ref().is_none_or(|open| open.frames.len() + size <= max_bytes && open.staged.n_commits < max_commits)
    }

    fn newest(&self) -> Option<Arc<Seat>> {
        let open = self.open.as_ref().map(|group| &group.seat);
        open.or(self.in_flight.as_ref().map(|group| &group.seat)).cloned()
    }

    fn check_failed(&mut self) -> LogResult<()> {
        self.failed.retain(|seat| seat.strong_count() > 0);
        let seat = self.failed.first().and_then(Weak::upgrade);
        seat.and_then(|seat| seat.outcome().cloned()).unwrap_or(Ok(()))
    }
}

impl Committer {
    pub fn new(shared: Arc<Shared>, writer: Writer) -> Self {
        let tail = Tail::new(shared.view.read().ledger.clone(), &writer);
        let queue = Queue { tail, open: None, in_flight: None, failed: Vec::new(), spare: Vec::new() };
        Self { shared, writer: Mutex::new(writer), queue: Mutex::new(queue), taken: Condvar::new(), begun: Condvar::new() }
    }

    /// Gives a commit its place behind all that was begun before.
    pub fn begin(self: &Arc<Self>, commit: Commit) -> LogResult<Ticket> {
        let begun = self.try_begin(commit);
        begun.inspect_err(|_| self.shared.stats.lock().n_refused += 1)
    }

    fn try_begin(self: &Arc<Self>, commit: Commit) -> LogResult<Ticket> {
        let size = self.check_size(&commit)?;
        let mut queue = self.room(size)?;
        if let Err(refusal) = queue.tail.check(&commit) {
            drop(queue);
            return Err(self.certain(refusal));
        }
        let now = (self.shared.clock)();
        if let Some(committed) = queue.tail.empty(&commit, now) {
            // What it says may rest on commits that are not durable.
            let pending = queue.newest().map(|seat| (Arc::clone(self), seat));
            return Ok(Ticket::new(committed, pending));
        }
        let Queue { tail, open, spare, in_flight, .. } = &mut *queue;
        let open = open.get_or_insert_with(|| tail.begin_group(now, &self.shared.config, std::mem::take(spare)));
        let committed = tail.add(commit, open, now);
        if in_flight.is_none() {
            self.begun.notify_one();
        }
        Ok(Ticket::new(committed, Some((Arc::clone(self), Arc::clone(&open.seat)))))
    }

    /// Refuses what can be refused without knowing anybody else's commit; gives the size otherwise.
    fn check_size(&self, commit: &Commit) -> LogResult<usize> {
        let max_bytes = self.shared.config.max_record_bytes;
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
        let max_bytes = self.shared.config.max_commit_bytes;
        if size_bytes > max_bytes { Err(LogError::CommitTooLarge { size_bytes, max_bytes }) } else { Ok(size_bytes) }
    }

    /// Waits until the open group can take `size` bytes more.
    fn room(&self, size: usize) -> LogResult<MutexGuard<'_, Queue>> {
        let config = &self.shared.config;
        let mut queue = self.queue.lock();
        loop {
            self.shared.check_alive()?;
            queue.check_failed()?;
            if queue.has_room(size, config.group_bytes, config.group_commits) {
                return Ok(queue);
            }
            if queue.in_flight.is_some() {
                self.taken.wait(&mut queue);
            } else {
                MutexGuard::unlocked(&mut queue, || drop(self.lead()));
            }
        }
    }

    /// A position that was already begun is a reason to refuse only once it is durable: till then it may still fail.
    fn certain(&self, refusal: LogError) -> LogError {
        if let LogError::AlreadyCommitted { owner, partition, stored } = &refusal {
            let is_durable = self.shared.view.read().ledger.position(owner, partition) == Some(*stored);
            if !is_durable && let Err(failed) = self.settle_all() {
                return failed;
            }
        }
        refusal
    }

    /// Returns when all that was begun so far is on disk, or has failed.
    pub fn settle_all(&self) -> LogResult<()> {
        let newest = self.queue.lock().newest();
        newest.map_or(Ok(()), |seat| self.settle(&seat, || ()))
    }

    /// Returns when the group of `seat` is on disk, or has failed; leads if nobody does. `first` is done as soon as it is on disk: before readers
    /// are woken, who may take this thread's place on its core.
    pub fn settle(&self, seat: &Seat, first: impl FnOnce()) -> LogResult<()> {
        let mut queue = self.queue.lock();
        let mut news = None;
        loop {
            if let Some(outcome) = seat.outcome() {
                drop(queue);
                if outcome.is_ok() {
                    first();
                }
                drop(news);
                return outcome.clone();
            }
            if queue.in_flight.is_some() {
                seat.changed.wait(&mut queue);
            } else {
                MutexGuard::unlocked(&mut queue, || news = self.lead());
            }
        }
    }

    /// Waits for an open group that nobody works on, and takes it up. Says whether there was one.
    pub fn drive(&self, timeout: Duration) -> bool {
        let mut queue = self.queue.lock();
        let is_idle = |queue: &mut Queue| queue.open.is_none() || queue.in_flight.is_some();
        self.begun.wait_while_for(&mut queue, is_idle, timeout);
        let has_work = !is_idle(&mut queue);
        drop(queue);
        if has_work {
            drop(self.lead());
        }
        has_work
    }

    /// Takes up the open group, unless another thread is at work or there is none. Readers are woken when the answer is dropped.
    fn lead(&self) -> Option<News<'_>> {
        let mut group = self.take_up()?;
        let mut writer = self.writer.lock();
        let result = self.write(&mut writer, &mut group);
        let mut queue = self.queue.lock();
        queue.in_flight = None;
        match &result {
            Ok(()) => queue.tail.has_synced(&writer),
            Err(error) => self.fail(&mut queue, &writer, &group, error),
        }
        self.shared.stats.lock().n_groups += 1;
        let Group { seat, frames, .. } = group;
        if let Some(open) = &queue.open {
            // Whichever of these there are, one of them leads the next group. Those who wait for room may be the only ones. Before those who only
            // take their answer: they would come to the lock first, one after the other, while the disk rests.
            open.seat.changed.notify_one();
            self.begun.notify_one();
            self.taken.notify_one();
        }
        seat.settle(result);
        queue.spare = spare(frames, self.shared.config.spare_bytes);
        // Within the lock, so that whoever is told of a failure finds no ticket but those that are held.
        drop(seat);
        Some(News(&self.shared.bell))
    }

    fn take_up(&self) -> Option<Group> {
        let mut queue = self.queue.lock();
        if queue.in_flight.is_some() {
            return None;
        }
        let group = queue.open.take()?;
        queue.in_flight = Some(InFlight { seat: Arc::clone(&group.seat), n_commits: group.staged.n_commits, bytes: group.frames.len() });
        self.taken.notify_all();
        Some(group)
    }

    /// The open group stands behind the one that failed: its offsets and positions count on it.
    fn fail(&self, queue: &mut Queue, writer: &Writer, group: &Group, error: &LogError) {
        let mut n_refused = group.staged.n_commits;
        queue.failed = vec![Arc::downgrade(&group.seat)];
        if let Some(open) = queue.open.take() {
            n_refused += open.staged.n_commits;
            queue.failed.push(Arc::downgrade(&open.seat));
            open.seat.settle(Err(error.clone()));
        }
        queue.tail = Tail::new(self.shared.view.read().ledger.clone(), writer);
        self.shared.stats.lock().n_refused += n_refused;
        // Those who wait for room must hear of it.
        self.taken.notify_all();
    }

    fn write(&self, writer: &mut Writer, group: &mut Group) -> LogResult<()> {
        self.shared.check_alive()?;
        if let Some(start) = group.start.take() {
            self.begin_segment(writer, start)?;
        }
        assert_eq!(writer.position, group.position, "invariant: a group stands where its frames say");
        writer.append(&group.frames).map_err(|error| match error {
            WriteError::Full(error) => LogError::from(error),
            WriteError::Unknown(error) => self.shared.poison(&error),
        })?;
        if self.is_sync_due(writer) {
            self.shared.sync(writer).map_err(|error| self.shared.poison(&error))?;
        }
        let staged = std::mem::take(&mut group.staged);
        writer.next_sequence += staged.n_commits;
        writer.last_append = group.last_append;
        {
            let mut stats = self.shared.stats.lock();
            stats.n_commits += staged.n_commits;
            stats.n_records += staged.n_records;
            stats.written_bytes += group.frames.len() as u64;
            stats.unsynced_bytes = writer.position - writer.synced;
        }
        self.shared.view.write().apply(staged, group.frames.len() as u64);
        Ok(())
    }

    fn is_sync_due(&self, writer: &Writer) -> bool {
        match self.shared.config.durability {
            Durability::Fsync => true,
            Durability::Relaxed { flush_every } => crate::config::is_older(writer.last_sync, (self.shared.clock)(), flush_every),
        }
    }

    fn begin_segment(&self, writer: &mut Writer, start: SegmentStart) -> LogResult<()> {
        let shared = &*self.shared;
        if writer.synced < writer.position {
            shared.sync(writer).map_err(|error| shared.poison(&error))?;
        }
        // All groups before this one are on disk, so the view stands where the checkpoint does.
        let created = segment::create(&*shared.disk, &shared.config.journal_dir(), &start, &shared.view.read().ledger);
        let (segment, file) = created.map_err(|error| if error.is_full() { error.into() } else { shared.poison(&error) })?;
        mulgil_disk::failpoint::here("log.segment-begun");
        writer.move_to(Arc::clone(&file), start.header.started, segment.bytes);
        let active = Active { segment: Arc::new(segment), file, index: Default::default() };
        let sealed = {
            let mut view = shared.view.write();
            let sealed = std::mem::replace(&mut view.active, active);
            view.sealed.push_back(Arc::clone(&sealed.segment));
            sealed
        };
        shared.loaded.seal(&sealed.segment, sealed.file, sealed.index);
        Ok(())
    }

    /// Makes everything durable, also what was only begun and what relaxed durability left to the system.
    pub fn flush(&self) -> LogResult<()> {
        let settled = self.settle_all();
        self.shared.check_alive()?;
        let mut writer = self.writer.lock();
        if writer.synced < writer.position {
            self.shared.sync(&mut writer).map_err(|error| self.shared.poison(&error))?;
        }
        settled
    }

    /// The last thing that happens to a journal.
    pub fn close(&self) -> LogResult<()> {
        let settled = self.settle_all();
        self.shared.check_alive()?;
        let marked = self.writer.lock().mark((self.shared.clock)());
        marked.inspect_err(|_| doubt::note(&*self.shared.disk, &self.shared.config.journal_dir()))?;
        settled
    }

    pub fn add_stats(&self, stats: &mut Stats) {
        let queue = self.queue.lock();
        let (open, in_flight) = (queue.open.as_ref(), queue.in_flight.as_ref());
        stats.n_waiting = open.map_or(0, |open| open.staged.n_commits as usize);
        stats.n_in_flight = stats.n_waiting + in_flight.map_or(0, |group| group.n_commits as usize);
        stats.group_bytes = open.map_or(0, |open| open.frames.len()) + in_flight.map_or(0, |group| group.bytes);
        stats.spare_bytes = queue.spare.capacity();
    }
}

/// A buffer that grew for one large group is not kept at that size.
fn spare(mut frames: Vec<u8>, max_bytes: usize) -> Vec<u8> {
    frames.clear();
    frames.shrink_to(max_bytes);
    frames
}
