//! A shared scan of one partition: what was read last, and which readers are behind.
//!
//! Reading a row of the log costs far more than handing it to one more client. So those who are behind go together: the hindmost reads,
//! whoever is ahead of it waits until it has come up, and nobody reads on while what is kept is still wanted and there is no room for more.
//!
//! ```text
//!   hindmost            another one            at the end
//!      │ reads ───────────▶ │ waits                │ never waits
//!  ────┴────────────────────┴──────────────────────┴──▶ offsets
//! ```
//!
//! Nobody is held up for long, or by one who does not hurry:
//!
//! - waited for is only a reader that asks, and whose socket takes what it gets ([`Turn::is_held`]);
//! - and only one that is no further away than the end of the log is: at worst, it makes a client twice as late as it is;
//! - and only as long as [`Reader::patience`] lasts, which grows with the rows that a reader gets.

use super::chunk::Chunk;
use mulgil_model::ids::Offset;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a reader rests that waits for others: reading a few chunks takes as long.
pub const WAIT: Duration = Duration::from_millis(5);
/// A reader that did not ask for so long is not waited for.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// How long a reader waits for those further behind before it goes alone, and what each row that it gets adds to that: about the time that
/// reading the row takes.
const PATIENCE_MAX: Duration = Duration::from_secs(5);
const PATIENCE_PER_ROW: Duration = Duration::from_micros(5);

/// One turn of a reader.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The feed's tick as it was seen before.
    pub tick: u64,
    pub now: Instant,
    /// Since its last turn, its socket was full more often than not: nobody waits for it.
    pub is_held: bool,
}

pub type ReaderId = u64;

#[derive(Default)]
pub struct Scan {
    /// By their first offset. Those that were read from different places may overlap; none covers another.
    chunks: BTreeMap<Offset, Arc<Chunk>>,
    /// What the chunks keep in memory, as estimated when they came.
    bytes: usize,
    /// The offset behind the last row that was read, once it is known.
    end: Option<Offset>,
    /// The feed's tick at which nothing was behind the end.
    drained_at: Option<u64>,
    /// Those who are behind.
    readers: HashMap<ReaderId, Reader>,
    /// Those of them who are waited for, by their places.
    hurrying: BTreeSet<(Offset, ReaderId)>,
    /// Where somebody reads just now.
    reading: Vec<Offset>,
}

struct Reader {
    at: Offset,
    asked: Instant,
    patience: Duration,
    /// It waits for somebody further behind; when it asked last.
    waited_at: Option<Instant>,
}

impl Scan {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn n_behind(&self) -> usize {
        self.readers.len()
    }

    pub fn find(&self, from: Offset) -> Option<Arc<Chunk>> {
        let (_, chunk) = self.chunks.range(..=from).next_back()?;
        (from < chunk.next()).then(|| Arc::clone(chunk))
    }

    /// Nothing was behind `from` at this tick.
    pub fn is_drained(&self, from: Offset, tick: u64) -> bool {
        self.end == Some(from) && self.drained_at == Some(tick)
    }

    pub fn drain(&mut self, from: Offset, tick: u64) {
        self.end = Some(from);
        self.drained_at = Some(tick);
    }

    /// Nobody has read what is there.
    pub fn is_end(&self, from: Offset) -> bool {
        self.end.is_none_or(|end| from >= end)
    }

    pub fn is_behind(&self, id: ReaderId) -> bool {
        self.readers.contains_key(&id)
    }

    /// A turn of the reader ended before the end of the log.
    pub fn note_behind(&mut self, id: ReaderId, at: Offset, turn: &Turn) {
        let new = Reader { at, asked: turn.now, patience: PATIENCE_MAX, waited_at: None };
        let reader = self.readers.entry(id).or_insert(new);
        let n_rows = u32::try_from(at.0.saturating_sub(reader.at.0)).unwrap_or(u32::MAX);
        reader.patience = reader.patience.saturating_add(PATIENCE_PER_ROW.saturating_mul(n_rows)).min(PATIENCE_MAX);
        let was = std::mem::replace(&mut reader.at, at);
        reader.asked = turn.now;
        self.hurrying.remove(&(was, id));
        if !turn.is_held {
            self.hurrying.insert((at, id));
        }
    }

    /// The reader is at the end of the log, or gone.
    pub fn forget(&mut self, id: ReaderId) {
        if let Some(reader) = self.readers.remove(&id) {
            self.hurrying.remove(&(reader.at, id));
        }
    }

    /// Whether the reader may read at `from`, where nothing is kept; it waits otherwise. `next` is the end of the log.
    pub fn admits(&mut self, id: ReaderId, from: Offset, next: Offset, bytes_max: usize, now: Instant) -> bool {
        let is_behind_us = self.is_somebody_behind(id, from, next, now);
        let Some(reader) = self.readers.get_mut(&id) else { return true };
        let waited_at = std::mem::replace(&mut reader.waited_at, is_behind_us.then_some(now));
        if is_behind_us {
            let waited = waited_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            reader.patience = reader.patience.saturating_sub(waited);
            if !reader.patience.is_zero() {
                return false;
            }
        }
        self.make_room(id, bytes_max, now) && !self.reading.contains(&from)
    }

    /// Somebody has to read on its way to `from`, and is worth waiting for.
    fn is_somebody_behind(&self, id: ReaderId, from: Offset, next: Offset, now: Instant) -> bool {
        let lateness = next.0.saturating_sub(from.0);
        let nearest = Offset(from.0.saturating_sub(lateness));
        let Some(hindmost) = self.others(id, nearest, from, now).next() else { return false };
        // Between here and `from` everything is kept.
        let mut near = from;
        while near > hindmost {
            match self.chunks.range(..near).next_back() {
                Some((base, chunk)) if chunk.next() >= near => near = *base,
                _ => return true,
            }
        }
        false
    }

    /// Where others stand who hurry, from the hindmost on.
    fn others(&self, id: ReaderId, from: Offset, to: Offset, now: Instant) -> impl Iterator<Item = Offset> {
        let asks = move |other: &ReaderId| self.readers.get(other).is_some_and(|r| now.saturating_duration_since(r.asked) < SILENT_AFTER);
        let is_worth_it = move |(_, other): &&(Offset, ReaderId)| *other != id && asks(other);
        self.hurrying.range((from, 0)..(to, 0)).filter(is_worth_it).map(|(at, _)| *at)
    }

    pub fn begin(&mut self, from: Offset) {
        self.reading.push(from);
    }

    pub fn finish(&mut self, from: Offset) {
        if let Some(i) = self.reading.iter().position(|at| *at == from) {
            self.reading.swap_remove(i);
        }
    }

    /// Keeps what was read. Rows at the end take the place of what is older, wanted or not; others were admitted when there was room.
    pub fn keep(&mut self, id: ReaderId, chunk: &Arc<Chunk>, bytes_max: usize, now: Instant) {
        let is_end = self.is_end(chunk.base());
        self.end = self.end.max(Some(chunk.next()));
        self.insert(chunk);
        while is_end && !self.make_room(id, bytes_max, now) {
            let Some((_, gone)) = self.chunks.pop_first() else { break };
            self.bytes -= gone.bytes();
        }
    }

    /// In the place of those that it covers. So the last one that begins before an offset is the one that reaches furthest, and whoever stands in
    /// the midst of a chunk finds it.
    fn insert(&mut self, chunk: &Arc<Chunk>) {
        let before = self.chunks.range(..=chunk.base()).next_back();
        if before.is_some_and(|(_, before)| before.next() >= chunk.next()) {
            return;
        }
        let covered = self.chunks.range(chunk.base()..chunk.next()).filter(|(_, other)| other.next() <= chunk.next());
        for base in covered.map(|(base, _)| *base).collect::<Vec<_>>() {
            self.bytes -= self.chunks.remove(&base).map_or(0, |gone| gone.bytes());
        }
        self.bytes += chunk.bytes();
        self.chunks.insert(chunk.base(), Arc::clone(chunk));
    }

    /// Drops what nobody wants, the oldest first; false when what is wanted takes all the room. Besides the last `bytes_max` before the end,
    /// as much is kept for those who are behind.
    fn make_room(&mut self, id: ReaderId, bytes_max: usize, now: Instant) -> bool {
        if self.bytes <= bytes_max {
            return true;
        }
        let (recent, bytes) = self.recent(bytes_max);
        while self.bytes - bytes > bytes_max {
            let Some(gone) = self.unwanted(id, recent, now).and_then(|base| self.chunks.remove(&base)) else { return false };
            self.bytes -= gone.bytes();
        }
        true
    }

    /// The oldest chunk before `recent` that no other reader has before it.
    fn unwanted(&self, id: ReaderId, recent: Offset, now: Instant) -> Option<Offset> {
        let (mut kept_to, mut is_wanted) = (None, false);
        for (base, chunk) in self.chunks.range(..recent) {
            let goes_on = kept_to.is_some_and(|to| *base <= to);
            is_wanted = (goes_on && is_wanted) || self.others(id, *base, chunk.next(), now).next().is_some();
            if !is_wanted {
                return Some(*base);
            }
            kept_to = kept_to.max(Some(chunk.next()));
        }
        None
    }

    /// Where the last `bytes_max` of the rows before the end begin, and what they keep in memory; at least one chunk.
    fn recent(&self, bytes_max: usize) -> (Offset, usize) {
        let mut begin = self.end.unwrap_or(Offset::ZERO);
        let mut bytes = 0;
        for (base, chunk) in self.chunks.iter().rev() {
            if chunk.next() < begin || (bytes > 0 && bytes + chunk.bytes() > bytes_max) {
                break;
            }
            bytes += chunk.bytes();
            begin = *base;
        }
        (begin, bytes)
    }
}
