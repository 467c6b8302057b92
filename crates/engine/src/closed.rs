//! Closed windows, open to revision for the allowed lateness.
//!
//! There are many of them (an hour of 1 s bars of every symbol), and hardly any is looked at again. So the windows that close together are
//! written together, in blocks of a few kilobytes that never change. A window that a late row did reach has an entry of its own from then
//! on, which counts before what the block says. Time removes both from the front.

use crate::error::EngineError;
use crate::keyed::{Keyed, label, table_prefix};
use crate::layout::{Fields, from_ordered, ordered, put_bytes, put_framed, put_u};
use crate::operator::WATERMARK_NONE;
use crate::panes::Series;
use crate::state::{Snapshot, StateStore, StateValue};
use crate::window::Window;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Closed windows are removed when the watermark has moved this far: 60 s.
const PURGE_EVERY_US: i64 = 60_000_000;
/// At most this many entries of each table at a time.
const PURGE_MAX: usize = 100_000;

/// A block is full when it has this many bytes: about a hundred bars.
const BLOCK_BYTES: usize = 8 << 10;
/// Blocks that are in the store and in memory too, the latest ones, as late rows are seldom very late.
const HOT_BYTES_MAX: usize = 4 << 20;
/// So many bytes of blocks count as one entry.
const ENTRY_BYTES: usize = 256;

/// The closed windows of one operator.
pub struct ClosedWindows<A> {
    blocks: Blocks,
    revised: Keyed<Closed<A>>,
    purged_to: i64,
}

impl<A: StateValue> ClosedWindows<A> {
    /// `hot_max` bounds the revised windows in memory, and the blocks too where it is small.
    pub fn new(operator: &str, hot_max: usize) -> Self {
        let hot_bytes_max = hot_max.saturating_mul(ENTRY_BYTES).min(HOT_BYTES_MAX);
        Self {
            blocks: Blocks::new(operator, BLOCK_BYTES, hot_bytes_max),
            revised: Keyed::new(operator, "closed", hot_max),
            purged_to: i64::MIN,
        }
    }

    /// Takes windows that close together, in the order of their keys; [`Self::seal`] ends each such group.
    pub fn push(&mut self, key: &[u8], series: Series, window: Window, acc: &A) {
        self.blocks.push(header(window, series), key, acc);
    }

    pub fn seal(&mut self) {
        self.blocks.seal();
    }

    /// Changes a window: `add` puts the late row into what it has, `make` begins one that nobody traded in until now.
    pub fn revise(
        &mut self,
        key: &[u8],
        series: Series,
        window: Window,
        store: &dyn StateStore,
        make: impl FnOnce() -> A,
        add: impl FnOnce(&mut A),
    ) -> Result<&Closed<A>, EngineError> {
        let header = header(window, series);
        let whole = [&header[..], key].concat();
        let mut before = None;
        if self.revised.get(&whole, store)?.is_none() {
            before = self.blocks.find(header, key, store)?;
        }
        let mut is_new = false;
        let closed = self.revised.get_or_insert_with(&whole, store, || {
            is_new = before.is_none();
            Closed { acc: before.unwrap_or_else(make), revision: 0 }
        })?;
        if !is_new {
            add(&mut closed.acc);
            closed.revision = closed.revision.saturating_add(1);
        }
        Ok(closed)
    }

    /// Removes what ended at `limit` or before from the store. When this happens never shows in what is published.
    pub fn purge(&mut self, limit: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        if limit < self.purged_to.saturating_add(PURGE_EVERY_US) {
            return Ok(());
        }
        let (gone, revised_to) = due(self.revised.prefix(), self.purged_to, limit, store)?;
        gone.iter().for_each(|key| self.revised.remove(key));
        let blocks_to = self.blocks.purge(self.purged_to, limit, store)?;
        self.purged_to = revised_to.min(blocks_to);
        Ok(())
    }

    pub fn snapshot(&mut self, limit: i64, into: &mut Snapshot) {
        self.blocks.snapshot(limit, into);
        self.revised.snapshot(into, |key, _| from_ordered(key).is_some_and(|end| end <= limit));
    }

    pub fn n_hot(&self) -> usize {
        self.revised.n_hot() + self.blocks.memory_bytes / ENTRY_BYTES
    }

    pub fn n_dirty(&self) -> usize {
        self.revised.n_dirty() + self.blocks.fresh_bytes.div_ceil(ENTRY_BYTES) + self.blocks.gone.len()
    }
}

/// Windows that ended at this time or before can not be revised any more.
pub fn limit_of(watermark: i64, lateness_us: i64) -> i64 {
    if watermark == WATERMARK_NONE { i64::MIN } else { watermark.saturating_sub(lateness_us) }
}

/// What the keys of a group's windows begin with: end and start (ordered), series (ordered).
type Header = [u8; 24];

fn header(window: Window, series: Series) -> Header {
    let mut header = [0; 24];
    for (part, n) in header.chunks_exact_mut(8).zip([window.end, window.start, series]) {
        part.copy_from_slice(&ordered(n));
    }
    header
}

/// Keys of entries from `from` to `limit`, both times of ends, and how far that goes.
fn due(prefix: &[u8], from: i64, limit: i64, store: &dyn StateStore) -> Result<(Vec<Vec<u8>>, i64), EngineError> {
    let from = [prefix, &ordered(from)].concat();
    let (mut gone, mut reached) = (Vec::new(), limit);
    store.scan_from(prefix, Bound::Included(&from), &mut |key, _| {
        let key = &key[prefix.len()..];
        let end = from_ordered(key).unwrap_or(i64::MIN);
        if end <= limit && gone.len() == PURGE_MAX {
            reached = end;
        }
        let more = end <= limit && gone.len() < PURGE_MAX;
        if more {
            gone.push(key.to_vec());
        }
        more
    })?;
    Ok((gone, reached))
}

/// Blocks of windows. The key of one is its group's header and the last of its windows' keys, so that a search for a window's own key
/// finds the block it would be in. Layout, version 1: version byte, then per window in the order of keys: key, accumulator (each with its
/// length).
struct Blocks {
    prefix: Vec<u8>,
    block_bytes: usize,
    hot_bytes_max: usize,
    /// Those that are not durable yet, and the latest of the others.
    memory: BTreeMap<Vec<u8>, Block>,
    memory_bytes: usize,
    fresh_bytes: usize,
    building: Vec<u8>,
    header: Header,
    last_key: Vec<u8>,
    /// To be deleted with the next snapshot.
    gone: Vec<Vec<u8>>,
}

struct Block {
    bytes: Box<[u8]>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fresh,
    /// In a snapshot that may not be durable yet.
    Handed,
    Stored,
}

const BLOCK_VERSION: u8 = 1;

impl Blocks {
    fn new(operator: &str, block_bytes: usize, hot_bytes_max: usize) -> Self {
        Self {
            prefix: table_prefix(operator, "blocks"),
            block_bytes,
            hot_bytes_max,
            memory: BTreeMap::new(),
            memory_bytes: 0,
            fresh_bytes: 0,
            building: Vec::new(),
            header: [0; 24],
            last_key: Vec::new(),
            gone: Vec::new(),
        }
    }

    fn push<A: StateValue>(&mut self, header: Header, key: &[u8], acc: &A) {
        if self.header != header {
            self.seal();
            self.header = header;
        }
        if self.building.is_empty() {
            self.building.push(BLOCK_VERSION);
        }
        put_bytes(&mut self.building, key);
        put_framed(&mut self.building, |out| acc.write(out));
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        if self.building.len() >= self.block_bytes {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if self.building.is_empty() {
            return;
        }
        let bytes: Box<[u8]> = self.building.as_slice().into();
        self.building.clear();
        self.memory_bytes += bytes.len();
        self.fresh_bytes += bytes.len();
        self.memory.insert([&self.header[..], &self.last_key].concat(), Block { bytes, phase: Phase::Fresh });
    }

    fn find<A: StateValue>(&self, header: Header, key: &[u8], store: &dyn StateStore) -> Result<Option<A>, EngineError> {
        let whole = [&header[..], key].concat();
        let in_memory = self.memory.range(whole.clone()..).next().filter(|(at, _)| at.starts_with(&header));
        let mut found = in_memory.map_or(Ok(None), |(_, block)| search(&block.bytes, key));
        // An earlier block of the group may have left memory.
        if let Ok(None) = found {
            let from = [&self.prefix[..], &whole].concat();
            store.scan_from(&self.prefix, Bound::Included(&from), &mut |at, bytes| {
                if at[self.prefix.len()..].starts_with(&header) {
                    found = search(bytes, key);
                }
                false
            })?;
        }
        found.map_err(|reason| EngineError::State { prefix: label(&self.prefix), reason })
    }

    fn purge(&mut self, from: i64, limit: i64, store: &dyn StateStore) -> Result<i64, EngineError> {
        let (gone, reached) = due(&self.prefix, from, limit, store)?;
        self.gone.extend(gone);
        let (gone, memory_bytes) = (&mut self.gone, &mut self.memory_bytes);
        self.memory.retain(|key, block| {
            let stays = block.phase == Phase::Fresh || from_ordered(key).is_none_or(|end| end > limit);
            if !stays {
                *memory_bytes -= block.bytes.len();
            }
            if !stays && block.phase == Phase::Handed {
                gone.push(key.clone());
            }
            stays
        });
        Ok(reached)
    }

    /// The last snapshot is durable by now.
    fn snapshot(&mut self, limit: i64, into: &mut Snapshot) {
        let (prefix, memory_bytes) = (&self.prefix, &mut self.memory_bytes);
        self.memory.retain(|key, block| match block.phase {
            Phase::Fresh if from_ordered(key).is_some_and(|end| end <= limit) => {
                *memory_bytes -= block.bytes.len();
                false
            }
            Phase::Fresh => {
                into.put([prefix, &key[..]].concat(), block.bytes.to_vec());
                block.phase = Phase::Handed;
                true
            }
            Phase::Handed | Phase::Stored => {
                block.phase = Phase::Stored;
                true
            }
        });
        self.fresh_bytes = 0;
        self.gone.drain(..).for_each(|key| into.delete([prefix, &key[..]].concat()));
        while self.memory_bytes > self.hot_bytes_max
            && let Some(first) = self.memory.first_entry().filter(|first| first.get().phase == Phase::Stored)
        {
            self.memory_bytes -= first.remove().bytes.len();
        }
    }
}

fn search<A: StateValue>(block: &[u8], key: &[u8]) -> Result<Option<A>, String> {
    let mut fields = Fields::open(block, BLOCK_VERSION)?;
    while !fields.is_empty() {
        let (at, acc) = (fields.bytes()?, fields.bytes()?);
        if at == key {
            return A::read(acc).map(Some);
        }
    }
    Ok(None)
}

/// A window that was revised. Layout, version 1: revision, accumulator (with its length).
pub struct Closed<A> {
    pub acc: A,
    pub revision: u32,
}

const VERSION: u8 = 1;

impl<A: StateValue> StateValue for Closed<A> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_u(out, self.revision.into());
        put_framed(out, |out| self.acc.write(out));
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(bytes, VERSION)?;
        let revision = fields.u()?.try_into().map_err(|_| "a revision is too large")?;
        let closed = Self { acc: A::read(fields.bytes()?)?, revision };
        fields.end()?;
        Ok(closed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::MemStore;
    use crate::state::testing::Count;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;

    fn window(end: i64) -> Window {
        Window { start: (end - 1) * SECOND, end: end * SECOND }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Windows of these keys close one second after those before.
        Close(Vec<u16>),
        /// A late row: key, and how many seconds ago its window ended.
        Revise(u16, i64),
        Snapshot,
        Durable,
        Restart,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => prop::collection::btree_set(0u16..300, 0..60).prop_map(|keys| Step::Close(keys.into_iter().collect())),
            6 => (0u16..300, 0i64..12).prop_map(|(key, ago)| Step::Revise(key, ago)),
            2 => Just(Step::Snapshot),
            1 => Just(Step::Durable),
            1 => Just(Step::Restart),
        ]
    }

    const LATENESS: i64 = 8;

    proptest! {
        /// Against a plain map: whatever was forgotten, kept in blocks, purged or opened again, a window has the same sum and revision.
        #[test]
        fn is_a_map(steps in prop::collection::vec(any_step(), 0..80), hot_max in 0usize..4, block_bytes in 1usize..200) {
            let fresh = || {
                let mut closed = ClosedWindows::<Count>::new("op", hot_max);
                closed.blocks.block_bytes = block_bytes;
                closed
            };
            let (mut closed, mut store, mut now) = (fresh(), MemStore::new(), 100i64);
            let mut model = BTreeMap::<(i64, u16), (u64, u32)>::new();
            let (mut durable, mut pending) = ((now, model.clone()), None);
            for step in steps {
                match step {
                    Step::Close(keys) => {
                        now += 1;
                        for key in keys {
                            closed.push(&key.to_be_bytes(), 1, window(now), &Count(key.into()));
                            model.insert((now, key), (key.into(), 0));
                        }
                        closed.seal();
                        closed.purge((now - LATENESS) * SECOND, &store).unwrap();
                    }
                    Step::Revise(key, ago) if ago < LATENESS => {
                        let end = now - ago;
                        let got = closed.revise(&key.to_be_bytes(), 1, window(end), &store, || Count(7), |sum| sum.0 += 10).unwrap();
                        let want = model.entry((end, key)).and_modify(|(sum, n)| (*sum, *n) = (*sum + 10, *n + 1)).or_insert((7, 0));
                        prop_assert_eq!((got.acc.0, got.revision), *want);
                    }
                    Step::Revise(..) => {}
                    Step::Snapshot | Step::Durable => {
                        if let Some((snapshot, state)) = pending.take() {
                            store.apply(snapshot);
                            durable = state;
                        }
                        if matches!(step, Step::Snapshot) {
                            let mut into = Snapshot::default();
                            closed.snapshot((now - LATENESS) * SECOND, &mut into);
                            prop_assert_eq!(closed.n_dirty(), 0);
                            pending = Some((into, (now, model.clone())));
                        }
                    }
                    Step::Restart => {
                        pending = None;
                        closed = fresh();
                        (now, model) = durable.clone();
                    }
                }
            }
        }
    }

    fn settle(closed: &mut ClosedWindows<Count>, store: &mut MemStore, limit: i64) {
        let mut into = Snapshot::default();
        closed.snapshot(limit * SECOND, &mut into);
        store.apply(into);
    }

    #[test]
    fn windows_that_close_together_are_few_entries_and_time_removes_them() {
        let (mut closed, mut store) = (ClosedWindows::new("op", 1_000), MemStore::new());
        for key in 0..10_000u16 {
            closed.push(&key.to_be_bytes(), 1, window(1), &Count(key.into()));
        }
        closed.seal();
        settle(&mut closed, &mut store, 0);
        assert!((1..20).contains(&store.len()), "{} entries", store.len());
        closed.revise(&5u16.to_be_bytes(), 1, window(1), &store, || Count(0), |sum| sum.0 += 1).unwrap();
        settle(&mut closed, &mut store, 0);
        closed.purge(61 * SECOND, &store).unwrap();
        settle(&mut closed, &mut store, 61);
        settle(&mut closed, &mut store, 61);
        assert_eq!((store.len(), closed.n_hot(), closed.n_dirty()), (0, 0, 0));
    }

    #[test]
    fn what_was_on_its_way_to_the_store_when_its_time_was_over_is_removed_from_there() {
        let (mut closed, mut store) = (ClosedWindows::new("op", 1_000), MemStore::new());
        closed.push(b"k", 1, window(1), &Count(1));
        closed.seal();
        let mut on_its_way = Snapshot::default();
        closed.snapshot(0, &mut on_its_way);
        closed.purge(61 * SECOND, &store).unwrap();
        store.apply(on_its_way);
        assert_eq!(store.len(), 1);
        settle(&mut closed, &mut store, 61);
        assert_eq!((store.len(), closed.n_hot()), (0, 0));
    }

    #[test]
    fn a_damaged_block_is_named() {
        let (mut closed, mut store) = (ClosedWindows::<Count>::new("bars", 0), MemStore::new());
        let key = [&b"bars\0blocks\0"[..], &header(window(1), 1), b"z"].concat();
        store.apply(Snapshot { entries: vec![(key, Some(vec![9]))] });
        let error = closed.revise(b"k", 1, window(1), &store, || Count(0), |_| ()).err().unwrap().to_string();
        assert!(error.starts_with("state entry 'bars/blocks' cannot be read: its layout version is 9"), "{error}");
    }
}
