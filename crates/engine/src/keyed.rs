//! Keyed state: one value per key, the hot ones in memory and all of them in the shard's store.
//!
//! A value's life: loaded or made (`dirty`), handed over to a snapshot (`handed`), unchanged since a durable snapshot (`clean`), and, when
//! there are more than `hot_max`, forgotten. Only clean values are forgotten, so that the binary may write a snapshot while the shard works
//! on; it must have written it before it takes the next one.
//!
//! Whether a value happens to be hot must never show in an output. So whatever `expired` answers true for must mean the same to its
//! operator as a key that was never seen: an operator checks the same condition when it reads the value.

use crate::error::EngineError;
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
    slots: Vec<Slot<V>>,
    free: Vec<u32>,
    dirty: Vec<u32>,
    handed: Vec<u32>,
    /// Counts uses, to find the least recently used.
    clock: u64,
    /// Where the sweep of the store goes on.
    swept_to: Option<Vec<u8>>,
}

struct Slot<V> {
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
            slots: Vec::new(),
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
        Ok(self.slots[at as usize].value.get_or_insert_with(make))
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
        Ok(self.slots[at as usize].value.as_ref())
    }

    /// Sets a value without reading the one before.
    pub fn put(&mut self, key: &[u8], value: V) {
        let at = self.find(key).unwrap_or_else(|| self.insert(key, None, true));
        self.slots[at as usize].value = Some(value);
        self.mark_dirty(at);
    }

    pub fn remove(&mut self, key: &[u8]) {
        let at = match self.find(key) {
            Some(at) => at,
            None => self.insert(key, None, true),
        };
        self.slots[at as usize].value = None;
        self.mark_dirty(at);
    }

    /// Hands over what changed since the last call, sorted by key, as deletions where `expired`; then forgets the least recently used
    /// clean values beyond `hot_max`.
    pub fn snapshot(&mut self, into: &mut Snapshot, mut expired: impl FnMut(&[u8], &V) -> bool) {
        self.settle_handed();
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.sort_unstable_by(|a, b| self.slots[*a as usize].key.cmp(&self.slots[*b as usize].key));
        for &at in &dirty {
            let slot = &mut self.slots[at as usize];
            if slot.value.as_ref().is_some_and(|v| expired(&slot.key, v)) {
                slot.value = None;
            }
            let key = [&self.prefix, &*slot.key].concat();
            match &slot.value {
                Some(value) => {
                    let mut bytes = Vec::new();
                    value.write(&mut bytes);
                    into.put(key, bytes);
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
        self.table.find(xxh3_64(key), |&at| *self.slots[at as usize].key == *key).copied()
    }

    fn find(&mut self, key: &[u8]) -> Option<u32> {
        let at = self.find_untouched(key)?;
        self.clock += 1;
        self.slots[at as usize].used = self.clock;
        Some(at)
    }

    fn load(&self, key: &[u8], store: &dyn StateStore) -> Result<Option<V>, EngineError> {
        let Some(bytes) = store.get(&[&self.prefix, key].concat())? else { return Ok(None) };
        V::read(&bytes).map(Some).map_err(|reason| EngineError::State { prefix: self.label(), reason })
    }

    /// The table's name for error messages.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.prefix).trim_end_matches('\0').replace('\0', "/")
    }

    fn insert(&mut self, key: &[u8], value: Option<V>, stored: bool) -> u32 {
        self.clock += 1;
        let slot = Slot { key: key.into(), value, used: self.clock, phase: Phase::Clean, stored };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).expect("invariant: fewer than 2^32 hot entries fit into memory")
            }
        };
        let slots = &self.slots;
        self.table.insert_unique(xxh3_64(key), at, |&at| xxh3_64(&slots[at as usize].key));
        at
    }

    fn mark_dirty(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        if slot.phase != Phase::Dirty {
            slot.phase = Phase::Dirty;
            self.dirty.push(at);
        }
    }

    /// The last snapshot is durable by now: what it handed over is clean, and what it deleted can go.
    fn settle_handed(&mut self) {
        for at in std::mem::take(&mut self.handed) {
            let slot = &mut self.slots[at as usize];
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
        let clean = self.slots.iter().enumerate().filter(|(_, s)| s.phase == Phase::Clean);
        let mut clean: Vec<(u64, u32)> = clean.map(|(at, s)| (s.used, at as u32)).collect();
        if n_over < clean.len() {
            clean.select_nth_unstable(n_over);
            clean.truncate(n_over);
        }
        clean.iter().for_each(|&(_, at)| self.forget(at));
    }

    fn forget(&mut self, at: u32) {
        let slot = &mut self.slots[at as usize];
        let hash = xxh3_64(&slot.key);
        (slot.phase, slot.value, slot.key) = (Phase::Vacant, None, Box::default());
        let entry = self.table.find_entry(hash, |&other| other == at);
        entry.expect("invariant: every slot in use is in the table").remove();
        self.free.push(at);
    }
}

/// What the store keys of one table begin with.
pub fn table_prefix(operator: &str, table: &str) -> Vec<u8> {
    [operator.as_bytes(), &[0], table.as_bytes(), &[0]].concat()
}
