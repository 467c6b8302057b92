//! Keyed state: hot entries in memory, all entries in a store that the binary brings along (an embedded LSM tree, or memory in tests).
//!
//! A snapshot is the set of entries changed since the last one. The binary writes it to the store in one atomic, durable batch together
//! with the shard's position, so that the store always holds the whole state as of that position.

use crate::error::EngineError;

/// Reads of the last durable snapshot. Entries changed since then live in the operators' memory only.
pub trait StateStore: Send {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Calls `each` for every entry whose key begins with `prefix`, in key order, until it answers false.
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError>;
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
