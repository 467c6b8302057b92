//! Where live clients meet: what was read last of each partition, read by whichever client comes first and handed to all.
//!
//! There is no task and no queue: a client that wakes after a commit asks the tail for the rows behind its own offset. The first one
//! reads and encodes them, the others find them. Those who are behind wait for each other ([`super::scan`]): after a pause of the machine, or
//! when all come again after a restart, each reading everything for itself would be the reason that none catches up.

use super::audience::Audiences;
use super::chunk::{CHUNK_ROWS_MAX, Chunk};
use super::scan::{ReaderId, Scan, Turn};
use crate::ports::{Bounds, Feed, PortError, PortErrorKind, ReadFrom, StreamInfo};
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::time::EventTime;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Hub {
    feed: Arc<dyn Feed>,
    hasher: RandomState,
    ring_bytes_max: usize,
    /// Bounded by the partitions of the feed's streams.
    tails: Mutex<HashMap<(Topic, Partition), Arc<Tail>>>,
    audiences: Audiences,
    n_readers: AtomicU64,
}

/// What lies behind an offset.
pub enum Step {
    /// Rows of the chunk from the asked offset on.
    Rows(Arc<Chunk>),
    End,
    /// Others are further behind and read what is wanted here: ask again in a moment.
    Wait,
    /// The log no longer has the offset.
    Gone,
}

/// What is kept for live clients.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// In memory, of all tails and audiences.
    pub bytes: usize,
    /// One for each client and partition.
    pub readers_behind: usize,
}

/// The shared end of one partition.
pub struct Tail {
    pub topic: Topic,
    pub partition: Partition,
    scan: Mutex<Scan>,
}

/// A reader of a tail, until dropped.
pub struct Seat {
    pub tail: Arc<Tail>,
    reader: ReaderId,
}

impl Seat {
    /// A turn ended before the end of the log: those ahead may wait for this one from now on, and this one for others.
    pub fn note_behind(&self, at: Offset, turn: &Turn) {
        self.tail.scan.lock().note_behind(self.reader, at, turn);
    }

    pub fn note_caught_up(&self) {
        self.tail.scan.lock().forget(self.reader);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.note_caught_up();
    }
}

impl Hub {
    pub fn new(feed: Arc<dyn Feed>, ring_bytes_max: usize) -> Self {
        Self {
            feed,
            hasher: RandomState::new(),
            ring_bytes_max,
            tails: Mutex::default(),
            audiences: Audiences::new(ring_bytes_max),
            n_readers: AtomicU64::new(0),
        }
    }

    pub fn feed(&self) -> &dyn Feed {
        self.feed.as_ref()
    }

    pub fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    pub fn stream(&self, name: &str) -> Option<StreamInfo> {
        self.feed.streams().into_iter().find(|s| s.schema.stream.as_str() == name)
    }

    /// A seat at each partition's tail, from 0.
    pub fn seats(&self, info: &StreamInfo) -> Vec<Seat> {
        let topic = &info.schema.stream;
        let mut tails = self.tails.lock();
        let mut tail = |partition| {
            let make = || Arc::new(Tail { topic: topic.clone(), partition, scan: Mutex::default() });
            Arc::clone(tails.entry((topic.clone(), partition)).or_insert_with(make))
        };
        let seat = |p| Seat { tail: tail(Partition(p)), reader: self.n_readers.fetch_add(1, Ordering::Relaxed) };
        (0..info.partitions).map(seat).collect()
    }

    pub fn audiences(&self) -> &Audiences {
        &self.audiences
    }

    pub fn kept(&self) -> Kept {
        let mut kept = Kept { bytes: self.audiences.bytes(), readers_behind: 0 };
        for tail in self.tails.lock().values() {
            let scan = tail.scan.lock();
            kept.bytes += scan.bytes();
            kept.readers_behind += scan.n_behind();
        }
        kept
    }

    pub fn bounds(&self, tail: &Tail) -> Result<Bounds, PortError> {
        self.feed.bounds(&tail.topic, tail.partition)
    }

    /// The offset from which on all rows of `time` and later are found.
    pub fn offset_at(&self, tail: &Tail, time: EventTime) -> Result<Offset, PortError> {
        Ok(self.feed.read(&tail.topic, tail.partition, ReadFrom::Time(time), 1)?.base)
    }

    /// The rows at `from`.
    pub fn step(&self, seat: &Seat, from: Offset, turn: &Turn) -> Result<Step, PortError> {
        let Seat { tail, reader } = seat;
        let mut scan = tail.scan.lock();
        if let Some(chunk) = scan.find(from) {
            return Ok(Step::Rows(chunk));
        }
        if scan.is_drained(from, turn.tick) {
            scan.forget(*reader);
            return Ok(Step::End);
        }
        let is_behind = scan.is_behind(*reader);
        if !is_behind && !scan.is_end(from) {
            // Others may be about to come from the same place: after this, all of them know of each other.
            scan.note_behind(*reader, from, turn);
            return Ok(Step::Wait);
        }
        if is_behind && !scan.admits(*reader, from, self.bounds(tail)?.next, self.ring_bytes_max, turn.now) {
            return Ok(Step::Wait);
        }
        let step = if is_behind {
            scan.begin(from);
            let step = MutexGuard::unlocked(&mut scan, || self.read(tail, from));
            scan.finish(from);
            step?
        } else {
            // Whoever comes meanwhile wants the same.
            self.read(tail, from)?
        };
        match &step {
            Step::Rows(chunk) => scan.keep(*reader, chunk, self.ring_bytes_max, turn.now),
            Step::End => {
                scan.drain(from, turn.tick);
                scan.forget(*reader);
            }
            Step::Wait | Step::Gone => {}
        }
        Ok(step)
    }

    fn read(&self, tail: &Tail, from: Offset) -> Result<Step, PortError> {
        match self.feed.read(&tail.topic, tail.partition, ReadFrom::Offset(from), CHUNK_ROWS_MAX) {
            Ok(rows) if rows.is_empty() => Ok(Step::End),
            Ok(rows) => Ok(Step::Rows(Arc::new(Chunk::new(rows, &self.hasher)))),
            Err(e) if e.kind == PortErrorKind::NotFound => Ok(Step::Gone),
            Err(e) => Err(e),
        }
    }
}
