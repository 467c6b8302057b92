//! Where live clients meet: one ring of recent rows per partition, filled by whichever client asks first and read by all.
//!
//! There is no task and no queue: a client that wakes after a commit asks the tail for the rows behind its own offset. The first one
//! reads and encodes them, the others find them. Clients that are behind what the ring holds leave what they read for those behind them: after
//! a pause of the machine all of them are, and each reading everything for itself would be the reason that none catches up.

use super::audience::Audiences;
use super::chunk::{CHUNK_ROWS_MAX, Chunk};
use crate::ports::{Bounds, Feed, PortError, PortErrorKind, ReadFrom, StreamInfo};
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::time::EventTime;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::sync::Arc;

pub struct Hub {
    feed: Arc<dyn Feed>,
    hasher: RandomState,
    ring_bytes_max: usize,
    /// Bounded by the partitions of the feed's streams.
    tails: Mutex<HashMap<(Topic, Partition), Arc<Tail>>>,
    audiences: Audiences,
}

/// What lies behind an offset.
pub enum Step {
    /// Rows of the chunk from the asked offset on.
    Rows(Arc<Chunk>),
    End,
    /// The log no longer has the offset.
    Gone,
}

/// The shared end of one partition.
pub struct Tail {
    pub topic: Topic,
    pub partition: Partition,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    /// Without holes, oldest first.
    chunks: VecDeque<Arc<Chunk>>,
    /// What the chunks keep in memory, as estimated when they came.
    bytes: usize,
    /// The feed's tick at which nothing was behind the ring.
    drained_at: Option<u64>,
    /// The offset behind its last row, once it is known.
    end: Option<Offset>,
    /// What was read last for clients behind the ring.
    reread: Reread,
}

#[derive(Default)]
struct Reread {
    chunks: VecDeque<Arc<Chunk>>,
    bytes: usize,
}

impl Hub {
    pub fn new(feed: Arc<dyn Feed>, ring_bytes_max: usize) -> Self {
        Self { feed, hasher: RandomState::new(), ring_bytes_max, tails: Mutex::default(), audiences: Audiences::new(ring_bytes_max) }
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

    /// One tail per partition, from 0.
    pub fn tails(&self, info: &StreamInfo) -> Vec<Arc<Tail>> {
        let topic = &info.schema.stream;
        let mut tails = self.tails.lock();
        let mut tail = |partition| {
            let make = || Arc::new(Tail { topic: topic.clone(), partition, ring: Mutex::default() });
            Arc::clone(tails.entry((topic.clone(), partition)).or_insert_with(make))
        };
        (0..info.partitions).map(|p| tail(Partition(p))).collect()
    }

    pub fn audiences(&self) -> &Audiences {
        &self.audiences
    }

    /// What all rings and audiences keep in memory.
    pub fn ring_bytes(&self) -> usize {
        let kept = |tail: &Arc<Tail>| {
            let ring = tail.ring.lock();
            ring.bytes + ring.reread.bytes
        };
        self.tails.lock().values().map(kept).sum::<usize>() + self.audiences.bytes()
    }

    pub fn bounds(&self, tail: &Tail) -> Result<Bounds, PortError> {
        self.feed.bounds(&tail.topic, tail.partition)
    }

    /// The offset from which on all rows of `time` and later are found.
    pub fn offset_at(&self, tail: &Tail, time: EventTime) -> Result<Offset, PortError> {
        Ok(self.feed.read(&tail.topic, tail.partition, ReadFrom::Time(time), 1)?.base)
    }

    /// The rows at `from`. `tick` is the feed's tick as it was seen before.
    pub fn step(&self, tail: &Tail, from: Offset, tick: u64) -> Result<Step, PortError> {
        let mut ring = tail.ring.lock();
        if let Some(chunk) = ring.find(from) {
            return Ok(Step::Rows(chunk));
        }
        let is_behind = ring.end.is_some_and(|end| from < end);
        if is_behind {
            if let Some(chunk) = ring.reread.find(from) {
                return Ok(Step::Rows(chunk));
            }
            drop(ring);
            let step = self.read(tail, from)?;
            if let Step::Rows(chunk) = &step {
                tail.ring.lock().reread.push(Arc::clone(chunk), self.ring_bytes_max);
            }
            return Ok(step);
        }
        if ring.end == Some(from) && ring.drained_at == Some(tick) {
            return Ok(Step::End);
        }
        let step = self.read(tail, from)?;
        match &step {
            Step::Rows(chunk) => ring.push(Arc::clone(chunk), self.ring_bytes_max),
            Step::End => ring.drain(from, tick),
            Step::Gone => {}
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

impl Ring {
    fn find(&self, from: Offset) -> Option<Arc<Chunk>> {
        let at = self.chunks.partition_point(|c| c.next() <= from);
        self.chunks.get(at).filter(|c| c.base() <= from).map(Arc::clone)
    }

    fn push(&mut self, chunk: Arc<Chunk>, bytes_max: usize) {
        if self.end != Some(chunk.base()) {
            self.chunks.clear();
            self.bytes = 0;
        }
        self.end = Some(chunk.next());
        self.bytes += chunk.bytes();
        self.chunks.push_back(chunk);
        while self.bytes > bytes_max && self.chunks.len() > 1 {
            self.bytes -= self.chunks.pop_front().map_or(0, |c| c.bytes());
        }
    }

    fn drain(&mut self, end: Offset, tick: u64) {
        if self.end != Some(end) {
            self.chunks.clear();
            self.bytes = 0;
        }
        self.end = Some(end);
        self.drained_at = Some(tick);
    }
}

impl Reread {
    fn find(&self, from: Offset) -> Option<Arc<Chunk>> {
        self.chunks.iter().find(|c| c.base() <= from && from < c.next()).map(Arc::clone)
    }

    fn push(&mut self, chunk: Arc<Chunk>, bytes_max: usize) {
        self.bytes += chunk.bytes();
        self.chunks.push_back(chunk);
        while self.bytes > bytes_max {
            self.bytes -= self.chunks.pop_front().map_or(0, |c| c.bytes());
        }
    }
}
