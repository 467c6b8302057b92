//! The shards' state on disk: one embedded LSM tree (fjall) for all of them, each shard under its own key prefix.
//!
//! A snapshot is applied as one atomic batch and synced, so that the tree always holds each shard's whole state as of one position.

mod doubt;

use anyhow::{Context, Result};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use mulgil_engine::error::EngineError;
use mulgil_engine::state::{Snapshot, StateStore};
use mulgil_model::ids::TopicPartition;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What keeps the entries of all shards: the embedded tree, or whatever stands in for it in a simulation.
///
/// `apply` is all or nothing and durable when it returns; after an error nothing may be built on either outcome, so the process ends.
pub trait Entries: Send + Sync {
    /// A value to put, or None to remove the key.
    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()>;
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Calls `each` for every entry whose key begins with `prefix`, in key order, until it answers false.
    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.range(Bound::Included(prefix), behind(prefix), each)
    }
    /// As `scan`, between two keys.
    fn range(&self, from: Bound<&[u8]>, to: Bound<Vec<u8>>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()>;
    fn disk_bytes(&self) -> u64;
    /// A tree that has begun to write and finds no room is of no use any more, so it is asked before.
    fn has_room(&self) -> bool {
        true
    }
}

/// The state folder.
#[derive(Clone)]
pub struct StateFolder {
    entries: Arc<dyn Entries>,
}

struct Tree {
    dir: PathBuf,
    database: Database,
    entries: Keyspace,
}

impl StateFolder {
    pub fn over(entries: Arc<dyn Entries>) -> Self {
        Self { entries }
    }

    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self> {
        let hint = || format!("cannot open the state folder {}; it can be deleted, and is rebuilt from the log then", dir.display());
        doubt::resolve(dir).with_context(hint)?;
        let tree = Tree::open(dir, cache_bytes).with_context(hint)?;
        Ok(Self::over(Arc::new(Noting { entries: Arc::new(tree), dir: dir.to_owned() })))
    }

    /// The part of the folder that belongs to the shard of `input`.
    pub fn of_shard(&self, input: &TopicPartition) -> ShardState {
        ShardState { folder: self.clone(), prefix: format!("{input}\0").into_bytes() }
    }

    pub fn disk_bytes(&self) -> u64 {
        self.entries.disk_bytes()
    }
}

/// What was written last is kept in memory until it is so much, by the tree's own count, which is about half of what it takes. The same few
/// entries written with every snapshot fill it too; a larger one is slower to search and longer to read again at a start.
const MEMTABLE_BYTES: u64 = 16 << 20;

/// Room that one snapshot and the merging after it may take.
const ROOM_BYTES: u64 = 8 << 20;

impl Tree {
    fn open(dir: &Path, cache_bytes: u64) -> Result<Self> {
        // A start reads the journal again, up to 64 MB of it, and would compress each value to compare checksums.
        let builder = Database::builder(dir).journal_compression(CompressionType::None);
        let database = builder.cache_size(cache_bytes).worker_threads(1).open()?;
        let entries = database.keyspace("shards", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))?;
        Ok(Self { dir: dir.to_owned(), database, entries })
    }
}

impl Drop for Tree {
    /// What failed in its background is told to the next who writes; there may be none.
    fn drop(&mut self) {
        if self.database.persist(PersistMode::SyncData).is_err() {
            doubt::note(&self.dir);
        }
    }
}

/// Leaves a note of a failed write for the next process.
struct Noting {
    entries: Arc<dyn Entries>,
    dir: PathBuf,
}

impl Entries for Noting {
    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        self.entries.apply(changes).inspect_err(|_| doubt::note(&self.dir))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.entries.get(key)
    }

    fn range(&self, from: Bound<&[u8]>, to: Bound<Vec<u8>>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.entries.range(from, to, each)
    }

    fn disk_bytes(&self) -> u64 {
        self.entries.disk_bytes()
    }

    fn has_room(&self) -> bool {
        self.entries.has_room()
    }
}

impl Entries for Tree {
    fn has_room(&self) -> bool {
        mulgil_disk::check_reserve(&mulgil_disk::RealDisk, &self.dir, ROOM_BYTES).is_ok()
    }

    fn apply(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.entries, key, value),
                None => batch.remove(&self.entries, key),
            }
        }
        batch.commit().context("cannot write a state snapshot")
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.entries.get(key)?.map(|value| value.to_vec()))
    }

    /// Seeks: what lies before `from` is neither read nor decompressed.
    fn range(&self, from: Bound<&[u8]>, to: Bound<Vec<u8>>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        for entry in self.entries.range::<&[u8], _>((from, to.as_ref().map(Vec::as_slice))) {
            let (key, value) = entry.into_inner()?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }
}

/// One shard's entries.
#[derive(Clone)]
pub struct ShardState {
    folder: StateFolder,
    prefix: Vec<u8>,
}

impl ShardState {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_slice(), key].concat()
    }

    pub fn has_room(&self) -> bool {
        self.folder.entries.has_room()
    }

    /// Writes a snapshot; durable when it returns.
    pub fn apply(&self, snapshot: Snapshot) -> Result<()> {
        self.folder.entries.apply(snapshot.entries.into_iter().map(|(key, value)| (self.key(&key), value)).collect())
    }
}

impl StateStore for ShardState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.folder.entries.get(&self.key(key)).map_err(|e| EngineError::Store(format!("{e:#}")))
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        let n_before = self.prefix.len();
        let scanned = self.folder.entries.scan(&self.key(prefix), &mut |key, value| each(&key[n_before..], value));
        scanned.map_err(|e| EngineError::Store(format!("{e:#}")))
    }

    fn scan_from(&self, prefix: &[u8], from: Bound<&[u8]>, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        let (n_before, whole) = (self.prefix.len(), self.key(prefix));
        let from = match from {
            Bound::Unbounded => Bound::Included(whole.clone()),
            Bound::Included(from) => Bound::Included(self.key(from)),
            Bound::Excluded(from) => Bound::Excluded(self.key(from)),
        };
        let from = from.as_ref().map(Vec::as_slice);
        let scanned = self.folder.entries.range(from, behind(&whole), &mut |key, value| each(&key[n_before..], value));
        scanned.map_err(|e| EngineError::Store(format!("{e:#}")))
    }
}

/// Where the keys that begin with `prefix` end.
fn behind(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_model::ids::{Partition, Topic};

    #[test]
    fn shards_do_not_see_each_other_and_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let at = |p| TopicPartition::new(Topic::new("trades").unwrap(), Partition(p));
        {
            let folder = StateFolder::open(dir.path(), 1 << 20).unwrap();
            let mut snapshot = Snapshot::default();
            snapshot.put(b"a/1".to_vec(), b"x".to_vec());
            snapshot.put(b"a/2".to_vec(), b"y".to_vec());
            snapshot.put(b"b/1".to_vec(), b"z".to_vec());
            folder.of_shard(&at(1)).apply(snapshot).unwrap();
            let mut gone = Snapshot::default();
            gone.delete(b"a/2".to_vec());
            folder.of_shard(&at(1)).apply(gone).unwrap();
        }
        let folder = StateFolder::open(dir.path(), 1 << 20).unwrap();
        let mut seen = Vec::new();
        folder
            .of_shard(&at(1))
            .scan(b"a/", &mut |k, v| {
                seen.push((k.to_vec(), v.to_vec()));
                true
            })
            .unwrap();
        assert_eq!(seen, [(b"a/1".to_vec(), b"x".to_vec())]);
        assert_eq!(folder.of_shard(&at(1)).get(b"b/1").unwrap(), Some(b"z".to_vec()));
        assert_eq!(folder.of_shard(&at(10)).get(b"b/1").unwrap(), None);
    }

    /// The store answers as the plain one in memory does, also at the edges of the prefix.
    #[test]
    fn a_scan_begins_and_ends_where_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let folder = StateFolder::open(dir.path(), 1 << 20).unwrap();
        let state = folder.of_shard(&TopicPartition::new(Topic::new("trades").unwrap(), Partition(0)));
        let keys: [&[u8]; 8] = [b"a", b"a\xff", b"b\0", b"b\0\0", b"b\0\xff", b"b\0\xff\xff", b"b\x01", b"c"];
        let mut snapshot = Snapshot::default();
        keys.iter().for_each(|key| snapshot.put(key.to_vec(), key.to_vec()));
        let mut plain = mulgil_engine::state::MemStore::new();
        plain.apply(snapshot.clone());
        state.apply(snapshot).unwrap();
        let scan = |store: &dyn StateStore, prefix: &[u8], from: Bound<&[u8]>| {
            let mut seen = Vec::new();
            let mut each = |key: &[u8], value: &[u8]| {
                seen.push((key.to_vec(), value.to_vec()));
                seen.len() < 4
            };
            store.scan_from(prefix, from, &mut each).unwrap();
            seen
        };
        for prefix in [&b""[..], b"a", b"b\0", b"b\0\xff", b"\xff"] {
            assert_eq!(scan(&state, prefix, Bound::Unbounded), scan(&plain, prefix, Bound::Unbounded), "{prefix:?}");
            for from in keys.iter().filter(|key| key.starts_with(prefix)) {
                for from in [Bound::Included(*from), Bound::Excluded(*from)] {
                    assert_eq!(scan(&state, prefix, from), scan(&plain, prefix, from), "{prefix:?} {from:?}");
                }
            }
        }
    }
}
