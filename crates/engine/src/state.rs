//! Keyed state: hot entries in memory, all entries in a store that the binary brings along (an embedded LSM tree, or memory in tests).
//!
//! A snapshot is the set of entries changed since the last one. The binary writes it to the store in one atomic, durable batch together
//! with the shard's position, so that the store always holds the whole state as of that position.

use crate::error::EngineError;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Reads of the last durable snapshot. Entries changed since then live in the operators' memory only.
pub trait StateStore: Send {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Calls `each` for every entry whose key begins with `prefix`, in key order, until it answers false.
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError>;

    /// As `scan`, from a key on. A store that can seek should; this one reads over what lies before.
    fn scan_from(&self, prefix: &[u8], from: Bound<&[u8]>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.scan(prefix, &mut |key, value| {
            let before = match from {
                Bound::Unbounded => false,
                Bound::Included(from) => key < from,
                Bound::Excluded(from) => key <= from,
            };
            before || each(key, value)
        })
    }
}

/// Changed entries on their way to the store: a value to put, or None to delete.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Snapshot {
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.entries.push((key, Some(value)));
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.entries.push((key, None));
    }
}

/// A value that can be kept in [`Keyed`] state. The layout is documented beside each implementation and begins with a version byte.
pub trait StateValue: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Result<Self, String>;
}

/// A store in memory, for tests, back-tests and simulation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MemStore {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemStore {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn apply(&mut self, snapshot: Snapshot) {
        for (key, value) in snapshot.entries {
            match value {
                Some(value) => self.entries.insert(key, value),
                None => self.entries.remove(&key),
            };
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(k, v)| (&k[..], &v[..]))
    }
}

impl StateStore for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.scan_from(prefix, Bound::Unbounded, each)
    }

    fn scan_from(&self, prefix: &[u8], from: Bound<&[u8]>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        let from = if matches!(from, Bound::Unbounded) { Bound::Included(prefix) } else { from };
        for (key, value) in self.entries.range::<[u8], _>((from, Bound::Unbounded)) {
            if !key.starts_with(prefix) || !each(key, value) {
                break;
            }
        }
        Ok(())
    }
}

/// A store that several owners share: the binary applies snapshots to it while a shard reads from it.
#[derive(Debug, Default, Clone)]
pub struct SharedMemStore(pub std::sync::Arc<std::sync::RwLock<MemStore>>);

impl SharedMemStore {
    pub fn apply(&self, snapshot: Snapshot) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).apply(snapshot);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, MemStore> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl StateStore for SharedMemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.read().get(key)
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.read().scan(prefix, each)
    }

    fn scan_from(&self, prefix: &[u8], from: Bound<&[u8]>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.read().scan_from(prefix, from, each)
    }
}

#[cfg(test)]
pub mod testing {
    use super::StateValue;
    use crate::layout::{Fields, put_u};

    /// A value for tests of what keeps values.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Count(pub u64);

    impl StateValue for Count {
        fn write(&self, out: &mut Vec<u8>) {
            out.push(1);
            put_u(out, self.0.into());
        }
        fn read(bytes: &[u8]) -> Result<Self, String> {
            Fields::open(bytes, 1)?.u64().map(Self)
        }
    }
}
