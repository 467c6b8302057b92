//! Keyed state: one value per key, the hot ones in memory and all of them in the shard's store.
//!
//! A value's life: loaded or made (`dirty`), handed over to a snapshot (`handed`), unchanged since a durable snapshot (`clean`), and, when
//! there are more than `hot_max`, forgotten. Only clean values are forgotten, so that the binary may write a snapshot while the shard works
//! on; it must have written it before it takes the next one.
//!
//! Whether a value happens to be hot must never show in an output. So whatever `expired` answers true for must mean the same to its
//! operator as a key that was never seen: an operator checks the same condition when it reads the value.

use crate::error::EngineError;
use crate::pages::Pages;
use crate::state::{Snapshot, StateStore, StateValue};
use hashbrown::HashTable;
use std::ops::Bound;
use xxhash_rust::xxh3::xxh3_64;

/// One table of an operator's state. Store key: operator name, 0x00, table name, 0x00, key bytes.
pub struct Keyed<V> {
    prefix: Vec<u8>,
    hot_max: usize,
    /// Slot numbers by key.
    table: HashTable<u32>,
    slots: Pages<Slot<V>>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    handed: Vec<u32>,
    /// Counts uses, to find the least recently used.
    clock: u64,
    /// Where the sweep of the store goes on.
    swept_to: Option<Vec<u8>>,
}

struct Slot<V> {
    /// Of the key; looked at first, as the key itself lies elsewhere.
    hash: u64,
    key: Box<[u8]>,
    /// None: removed, and kept until the removal is durable.
    value: Option<V>,
    used: u64,
    phase: Phase,
    /// The store may have an entry for the key.
    stored: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Dirty,
    Handed,
    Clean,
    /// On the free list.
    Vacant,
}

impl<V: StateValue> Keyed<V> {
    /// `hot_max` bounds the values kept in memory behind a snapshot; between two snapshots, changed values are kept on top of it.
    pub fn new(operator: &str, table: &str, hot_max: usize) -> Self {
        Self {
            prefix: table_prefix(operator, table),
            hot_max,
            table: HashTable::new(),
            slots: Pages::default(),
            free: Vec::new(),
            dirty: Vec::new(),
            handed: Vec::new(),
            clock: 0,
            swept_to: None,
        }
    }

    /// The value of `key`, from memory, else from the store, else made. It counts as changed.
    pub fn get_or_insert_with(&mut self, key: &[u8], store: &dyn StateStore, make: impl FnOnce() -> V) -> Result<&mut V, EngineError> {
        let at = match self.find(key) {
            Some(at) => at,
            None => {
                let loaded = self.load(key, store)?;
                let stored = loaded.is_some();
                self.insert(key, loaded, stored)
            }
        };
        self.mark_dirty(at);
        Ok(self.slots[at].value.get_or_insert_with(make))
    }

    /// Brings the values of these keys, which are in order, from the store into memory, where that costs less than reading each by itself: the
    /// store is read from the first to the last of them, as long as most of what lies there is wanted.
    pub fn prefetch(&mut self, keys: &[&[u8]], store: &dyn StateStore) -> Result<(), EngineError> {
        let cold: Vec<&[u8]> = keys.iter().copied().filter(|key| self.find_untouched(key).is_none()).collect();
        if cold.len() < TOGETHER_MIN {
            return Ok(());
        }
        let first = [&self.prefix, cold[0]].concat();
        let (mut wanted, mut loaded, mut n_others, mut bad) = (cold.into_iter().peekable(), Vec::new(), 0, None);
        store.scan_from(&self.prefix, Bound::Included(&first), &mut |key, bytes| {
            let key = &key[self.prefix.len()..];
            while wanted.next_if(|next| *next < key).is_some() {}
            if wanted.next_if_eq(&key).is_none() {
                n_others += 1;
            } else {
                match V::read(bytes) {
                    Ok(value) => loaded.push((key.to_vec(), value)),
                    Err(reason) => bad = Some(reason),
                }
            }
            wanted.peek().is_some() && bad.is_none() && n_others <= OTHERS_PER_WANTED * loaded.len() + TOGETHER_MIN
        })?;
        if let Some(reason) = bad {
            return Err(EngineError::State { prefix: self.label(), reason });
        }
        for (key, value) in loaded {
            self.insert(&key, Some(value), true);
        }
        Ok(())
    }

    /// The value of `key`, from memory or from the store. It does not count as changed.
    pub fn get(&mut self, key: &[u8], store: &dyn StateStore) -> Result<Option<&V>, EngineError> {
        let at = match self.find(key) {
            Some(at) => at,
            None => match self.load(key, store)? {
                Some(value) => self.insert(key, Some(value), true),
                None => return Ok(None),
            },
        };
        Ok(self.slots[at].value.as_ref())
    }

    /// Sets a value without reading the one before.
    pub fn put(&mut self, key: &[u8], value: V) {
        let at = self.find(key).unwrap_or_else(|| self.insert(key, None, true));
        self.slots[at].value = Some(value);
        self.mark_dirty(at);
    }

    pub fn remove(&mut self, key: &[u8]) {
        let at = match self.find(key) {
            Some(at) => at,
            None => self.insert(key, None, true),
        };
        self.slots[at].value = None;
        self.mark_dirty(at);
    }

    /// Hands over what changed since the last call, sorted by key, as deletions where `expired`; then forgets the least recently used
    /// clean values beyond `hot_max`.
    pub fn snapshot(&mut self, into: &mut Snapshot, mut expired: impl FnMut(&[u8], &V) -> bool) {
        self.settle_handed();
        let dirty = std::mem::take(&mut self.dirty);
        let dirty = self.sorted_by_key(dirty);
        let mut scratch = Vec::new();
        for &at in &dirty {
            let slot = &mut self.slots[at];
            if slot.value.as_ref().is_some_and(|v| expired(&slot.key, v)) {
                slot.value = None;
            }
            let key = [&self.prefix, &*slot.key].concat();
            match &slot.value {
                Some(value) => {
                    scratch.clear();
                    value.write(&mut scratch);
                    into.put(key, scratch.as_slice().to_vec());
                    slot.stored = true;
                }
                None if slot.stored => into.delete(key),
                None => {}
            }
            slot.phase = Phase::Handed;
        }
        self.handed = dirty;
        self.forget_cold();
    }

    /// Slots in the order of their keys. Most comparisons see only the keys' beginnings, which stand side by side.
    fn sorted_by_key(&self, slots: Vec<u32>) -> Vec<u32> {
        let key = |at: u32| &*self.slots[at].key;
        let mut sorted: Vec<([u8; KEY_HEAD_BYTES], u32)> = slots.into_iter().map(|at| (head(key(at)), at)).collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
        sorted.into_iter().map(|(_, at)| at).collect()
    }

    /// Deletes expired entries that lie cold in the store: looks at no more than `n_max` of them per call and goes on where the last
    /// call ended. Called just before `snapshot`.
    pub fn sweep(&mut self, store: &dyn StateStore, n_max: usize, mut expired: impl FnMut(&[u8], &V) -> bool) -> Result<(), EngineError> {
        let (mut gone, mut n_seen, mut last) = (Vec::new(), 0, None);
        let from = self.swept_to.as_ref().map(|key| [&self.prefix[..], key].concat());
        let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        store.scan_from(&self.prefix, from, &mut |key, bytes| {
            let key = &key[self.prefix.len()..];
            n_seen += 1;
            // A damaged entry is not the sweep's to report: whoever reads it will.
            if self.find_untouched(key).is_none() && V::read(bytes).is_ok_and(|v| expired(key, &v)) {
                gone.push(key.to_vec());
            }
            last = (n_seen == n_max).then(|| key.to_vec());
            n_seen < n_max
        })?;
        self.swept_to = last;
        gone.iter().for_each(|key| self.remove(key));
        Ok(())
    }

    /// Entries in memory.
    pub fn n_hot(&self) -> usize {
        self.table.len()
    }

    /// Entries changed since the last snapshot.
    pub fn n_dirty(&self) -> usize {
        self.dirty.len()
    }

    /// What every store key of this table begins with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    fn find_untouched(&self, key: &[u8]) -> Option<u32> {
        let hash = xxh3_64(key);
        let is_it = |&at: &u32| {
            let slot = &self.slots[at];
            slot.hash == hash && *slot.key == *key
        };
        self.table.find(hash, is_it).copied()
    }

    fn find(&mut self, key: &[u8]) -> Option<u32> {
        let at = self.find_untouched(key)?;
        self.clock += 1;
        self.slots[at].used = self.clock;
        Some(at)
    }

    fn load(&self, key: &[u8], store: &dyn StateStore) -> Result<Option<V>, EngineError> {
        let Some(bytes) = store.get(&[&self.prefix, key].concat())? else { return Ok(None) };
        V::read(&bytes).map(Some).map_err(|reason| EngineError::State { prefix: self.label(), reason })
    }

    /// The table's name for error messages.
    pub fn label(&self) -> String {
        label(&self.prefix)
    }

    fn insert(&mut self, key: &[u8], value: Option<V>, stored: bool) -> u32 {
        self.clock += 1;
        let hash = xxh3_64(key);
        let slot = Slot { hash, key: key.into(), value, used: self.clock, phase: Phase::Clean, stored };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at] = slot;
                at
            }
            None => self.slots.push(slot),
        };
        let slots = &self.slots;
        self.table.insert_unique(hash, at, |&at| slots[at].hash);
        at
    }

    fn mark_dirty(&mut self, at: u32) {
        let slot = &mut self.slots[at];
        if slot.phase != Phase::Dirty {
            slot.phase = Phase::Dirty;
            self.dirty.push(at);
        }
    }

    /// The last snapshot is durable by now: what it handed over is clean, and what it deleted can go.
    fn settle_handed(&mut self) {
        for at in std::mem::take(&mut self.handed) {
            let slot = &mut self.slots[at];
            if slot.phase != Phase::Handed {
                continue;
            }
            slot.phase = Phase::Clean;
            if slot.value.is_none() {
                self.forget(at);
            }
        }
    }

    fn forget_cold(&mut self) {
        let n_over = self.table.len().saturating_sub(self.hot_max);
        if n_over == 0 {
            return;
        }
        let clean = self.slots.iter().zip(0..).filter(|(s, _)| s.phase == Phase::Clean);
        let mut clean: Vec<(u64, u32)> = clean.map(|(s, at)| (s.used, at)).collect();
        if n_over < clean.len() {
            clean.select_nth_unstable(n_over);
            clean.truncate(n_over);
        }
        clean.iter().for_each(|&(_, at)| self.forget(at));
    }

    fn forget(&mut self, at: u32) {
        let slot = &mut self.slots[at];
        (slot.phase, slot.value, slot.key) = (Phase::Vacant, None, Box::default());
        let entry = self.table.find_entry(slot.hash, |&other| other == at);
        entry.expect("invariant: every slot in use is in the table").remove();
        self.free.push(at);
    }
}

/// Reading so many keys one by one costs about as much as to begin reading them together.
const TOGETHER_MIN: usize = 16;
/// Reading a key by itself costs about as much as to step over so many others.
const OTHERS_PER_WANTED: usize = 4;

/// A closed window's times and a short symbol.
const KEY_HEAD_BYTES: usize = 32;

/// The beginning of a key, filled up with zeros: in the order of the keys themselves, but for equal ones.
fn head(key: &[u8]) -> [u8; KEY_HEAD_BYTES] {
    let mut head = [0; KEY_HEAD_BYTES];
    let n = key.len().min(KEY_HEAD_BYTES);
    head[..n].copy_from_slice(&key[..n]);
    head
}

/// What the store keys of one table begin with.
pub fn table_prefix(operator: &str, table: &str) -> Vec<u8> {
    [operator.as_bytes(), &[0], table.as_bytes(), &[0]].concat()
}

/// A table's prefix for error messages.
pub fn label(prefix: &[u8]) -> String {
    String::from_utf8_lossy(prefix).trim_end_matches('\0').replace('\0', "/")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::state::MemStore;
    use crate::state::testing::Count;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    fn take(keyed: &mut Keyed<Count>) -> Snapshot {
        let mut into = Snapshot::default();
        keyed.snapshot(&mut into, |_, _| false);
        into
    }

    #[test]
    fn a_snapshot_is_what_changed_sorted_by_key() {
        let (mut keyed, mut store) = (Keyed::new("op", "t", 10), MemStore::new());
        for key in ["c", "a", "b"] {
            keyed.get_or_insert_with(key.as_bytes(), &store, || Count(1)).unwrap().0 += 1;
        }
        let first = take(&mut keyed);
        let keys: Vec<_> = first.entries.iter().map(|(k, _)| String::from_utf8_lossy(k).into_owned()).collect();
        assert_eq!(keys, ["op\0t\0a", "op\0t\0b", "op\0t\0c"]);
        store.apply(first);
        assert_eq!(keyed.get(b"a", &store).unwrap(), Some(&Count(2)));
        assert_eq!(take(&mut keyed).entries, [], "reading changes nothing");
        keyed.remove(b"a");
        keyed.get_or_insert_with(b"new", &store, || Count(7)).unwrap();
        keyed.remove(b"new");
        assert_eq!(take(&mut keyed).entries, [(b"op\0t\0a".to_vec(), None)], "what was never stored need not be deleted");
    }

    #[test]
    fn the_least_recently_used_is_forgotten_once_it_is_durable() {
        let (mut keyed, mut store) = (Keyed::new("op", "t", 2), MemStore::new());
        for key in ["a", "b", "c", "d"] {
            keyed.get_or_insert_with(key.as_bytes(), &store, || Count(1)).unwrap();
        }
        store.apply(take(&mut keyed));
        assert_eq!((keyed.n_hot(), keyed.n_dirty()), (4, 0), "the snapshot may not be durable yet");
        keyed.get(b"a", &store).unwrap();
        take(&mut keyed);
        assert_eq!(keyed.n_hot(), 2);
        assert!(keyed.find(b"a").is_some() && keyed.find(b"d").is_some() && keyed.find(b"b").is_none());
        assert_eq!(keyed.get(b"b", &store).unwrap(), Some(&Count(1)));
    }

    #[test]
    fn the_sweep_removes_what_is_cold_and_over() {
        let (mut keyed, mut store) = (Keyed::new("op", "t", 0), MemStore::new());
        for n in 0..10u8 {
            keyed.get_or_insert_with(&[n], &store, || Count(n.into())).unwrap();
        }
        store.apply(take(&mut keyed));
        store.apply(take(&mut keyed));
        assert_eq!((keyed.n_hot(), store.len()), (0, 10));
        for _ in 0..4 {
            keyed.sweep(&store, 3, |_, count| count.0 % 2 == 0).unwrap();
            store.apply(take(&mut keyed));
        }
        assert_eq!(store.len(), 5);
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let (mut keyed, mut store) = (Keyed::<Count>::new("bars", "open", 2), MemStore::new());
        store.apply(Snapshot { entries: vec![(b"bars\0open\0k".to_vec(), Some(vec![9]))] });
        let error = keyed.get(b"k", &store).unwrap_err().to_string();
        assert_eq!(
            error,
            "state entry 'bars/open' cannot be read: its layout version is 9, this build reads 1; delete the state folder to rebuild it from the log"
        );
    }

    /// Counts what is read of it.
    struct Counting {
        store: MemStore,
        n_gets: Cell<usize>,
        n_scanned: Cell<usize>,
    }

    impl StateStore for Counting {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
            self.n_gets.set(self.n_gets.get() + 1);
            self.store.get(key)
        }

        fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
            self.store.scan(prefix, &mut |key, value| {
                self.n_scanned.set(self.n_scanned.get() + 1);
                each(key, value)
            })
        }

        fn scan_from(&self, prefix: &[u8], from: Bound<&[u8]>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
            self.store.scan_from(prefix, from, &mut |key, value| {
                self.n_scanned.set(self.n_scanned.get() + 1);
                each(key, value)
            })
        }
    }

    fn stored(keys: impl Iterator<Item = u16>) -> Counting {
        let (mut keyed, mut store) = (Keyed::new("op", "t", 0), MemStore::new());
        keys.for_each(|key| keyed.put(&key.to_be_bytes(), Count(key.into())));
        store.apply(take(&mut keyed));
        // Neighbours in the store.
        store.apply(Snapshot { entries: [&b"op\0s\0z"[..], b"op\0u\0a"].map(|key| (key.to_vec(), Some(vec![9]))).to_vec() });
        Counting { store, n_gets: Cell::new(0), n_scanned: Cell::new(0) }
    }

    #[test]
    fn what_lies_together_is_read_together() {
        let store = stored(0..1_000);
        let read = |keys: &[u16]| {
            let mut keyed = Keyed::<Count>::new("op", "t", 10);
            let keys: Vec<[u8; 2]> = keys.iter().map(|key| key.to_be_bytes()).collect();
            keyed.prefetch(&keys.iter().map(|key| &key[..]).collect::<Vec<_>>(), &store).unwrap();
            for key in &keys {
                let wanted = u16::from_be_bytes(*key);
                assert_eq!(keyed.get(key, &store).unwrap().map(|count| count.0), (wanted < 1_000).then_some(wanted.into()));
            }
            (store.n_gets.replace(0), store.n_scanned.replace(0))
        };
        assert_eq!(read(&(100..600).collect::<Vec<_>>()), (0, 500));
        assert_eq!(read(&(900..1_100).collect::<Vec<_>>()), (100, 100), "those that are not there are looked for again");
        assert_eq!(read(&(0..300).map(|n| n * 3).collect::<Vec<_>>()), (0, 898));
        assert_eq!(read(&[1, 2, 3]), (3, 0), "too few");
        let (n_gets, n_scanned) = read(&(0..50).map(|n| n * 20).collect::<Vec<_>>());
        assert!(n_gets > 45 && n_scanned < 50, "far apart: {n_gets} one by one, {n_scanned} stepped over");
    }

    #[test]
    fn a_damaged_entry_among_others_is_named() {
        let mut store = stored(0..100);
        store.store.apply(Snapshot { entries: vec![(b"op\0t\0\0\x05".to_vec(), Some(vec![9]))] });
        let keys: Vec<[u8; 2]> = (0..100u16).map(u16::to_be_bytes).collect();
        let mut keyed = Keyed::<Count>::new("op", "t", 10);
        let error = keyed.prefetch(&keys.iter().map(|key| &key[..]).collect::<Vec<_>>(), &store).unwrap_err().to_string();
        assert!(error.starts_with("state entry 'op/t' cannot be read: its layout version is 9"), "{error}");
    }

    proptest! {
        /// Whatever is wanted, hot, changed or removed: the values are the same as without.
        #[test]
        fn reading_together_changes_nothing(
            there in prop::collection::btree_set(0u16..300, 0..300),
            changed in prop::collection::btree_map(0u16..300, prop::option::of(0u64..9), 0..40),
            wanted in prop::collection::btree_set(0u16..300, 0..300),
        ) {
            let store = stored(there.iter().copied());
            let mut keyed = Keyed::<Count>::new("op", "t", 10);
            for (key, value) in &changed {
                match value {
                    Some(n) => keyed.put(&key.to_be_bytes(), Count(*n)),
                    None => keyed.remove(&key.to_be_bytes()),
                }
            }
            let keys: Vec<[u8; 2]> = wanted.iter().map(|key| key.to_be_bytes()).collect();
            keyed.prefetch(&keys.iter().map(|key| &key[..]).collect::<Vec<_>>(), &store).unwrap();
            prop_assert_eq!(keyed.n_dirty(), changed.len());
            for key in 0u16..300 {
                let want = changed.get(&key).copied().unwrap_or_else(|| there.contains(&key).then_some(key.into()));
                prop_assert_eq!(keyed.get(&key.to_be_bytes(), &store).unwrap().map(|count| count.0), want);
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8),
        Read(u8),
        Put(u8),
        Remove(u8),
        Snapshot,
        Durable,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..12).prop_map(Step::Add),
            2 => (0u8..12).prop_map(Step::Read),
            1 => (0u8..12).prop_map(Step::Put),
            2 => (0u8..12).prop_map(Step::Remove),
            2 => Just(Step::Snapshot),
            1 => Just(Step::Durable),
        ]
    }

    proptest! {
        /// A map that forgets and reloads is a map; and the store always holds it as of the last durable snapshot. Values of 5 and more
        /// count as never seen.
        #[test]
        fn is_a_map(steps in prop::collection::vec(any_step(), 0..200), hot_max in 0usize..6) {
            let (mut keyed, mut store, mut model) = (Keyed::new("op", "t", hot_max), MemStore::new(), BTreeMap::<u8, u64>::new());
            let mut pending: Option<(Snapshot, BTreeMap<u8, u64>)> = None;
            let alive = |count: Option<u64>| count.filter(|n| *n < 5);
            for step in steps {
                match step {
                    Step::Add(k) => {
                        let count = keyed.get_or_insert_with(&[k], &store, || Count(0)).unwrap();
                        count.0 = alive(Some(count.0)).unwrap_or(0) + 1;
                        let want = alive(model.get(&k).copied()).unwrap_or(0) + 1;
                        model.insert(k, want);
                        prop_assert_eq!(count.0, want);
                    }
                    Step::Read(k) => {
                        let got = keyed.get(&[k], &store).unwrap().map(|c| c.0);
                        prop_assert_eq!(alive(got), alive(model.get(&k).copied()));
                    }
                    Step::Put(k) => {
                        keyed.put(&[k], Count(3));
                        model.insert(k, 3);
                    }
                    Step::Remove(k) => {
                        keyed.remove(&[k]);
                        model.remove(&k);
                    }
                    Step::Snapshot | Step::Durable => {
                        if let Some((snapshot, want)) = pending.take() {
                            store.apply(snapshot);
                            let got: BTreeMap<u8, u64> = store.iter().map(|(k, v)| (k[k.len() - 1], Count::read(v).unwrap().0)).collect();
                            prop_assert_eq!(got, want);
                        }
                        if matches!(step, Step::Snapshot) {
                            let mut into = Snapshot::default();
                            keyed.snapshot(&mut into, |_, count| count.0 >= 5);
                            prop_assert_eq!(keyed.n_dirty(), 0);
                            model.retain(|_, n| *n < 5);
                            pending = Some((into, model.clone()));
                        }
                    }
                }
            }
        }
    }
}
