//! The shards' state on disk: one embedded LSM tree (fjall) for all of them, each shard under its own key prefix.
//!
//! A snapshot is applied as one atomic batch and synced, so that the tree always holds each shard's whole state as of one position.

use anyhow::{Context, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use mulgil_engine::error::EngineError;
use mulgil_engine::state::{Snapshot, StateStore};
use mulgil_model::ids::TopicPartition;
use std::path::Path;

/// The state folder.
#[derive(Clone)]
pub struct StateFolder {
    database: Database,
    entries: Keyspace,
}

impl StateFolder {
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self> {
        let hint = || format!("cannot open the state folder {}; it can be deleted, and is rebuilt from the log then", dir.display());
        let database = Database::builder(dir).cache_size(cache_bytes).worker_threads(1).open().with_context(hint)?;
        let entries = database.keyspace("shards", KeyspaceCreateOptions::default).with_context(hint)?;
        Ok(Self { database, entries })
    }

    /// The part of the folder that belongs to the shard of `input`.
    pub fn of_shard(&self, input: &TopicPartition) -> ShardState {
        ShardState { folder: self.clone(), prefix: format!("{input}\0").into_bytes() }
    }

    pub fn disk_bytes(&self) -> u64 {
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

    /// Writes a snapshot; durable when it returns.
    pub fn apply(&self, snapshot: Snapshot) -> Result<()> {
        let mut batch = self.folder.database.batch().durability(Some(PersistMode::SyncAll));
        for (key, value) in snapshot.entries {
            match value {
                Some(value) => batch.insert(&self.folder.entries, self.key(&key), value),
                None => batch.remove(&self.folder.entries, self.key(&key)),
            }
        }
        batch.commit().context("cannot write a state snapshot")
    }
}

impl StateStore for ShardState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let found = self.folder.entries.get(self.key(key)).map_err(|e| EngineError::Store(e.to_string()))?;
        Ok(found.map(|v| v.to_vec()))
    }

    fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        for entry in self.folder.entries.prefix(self.key(prefix)) {
            let (key, value) = entry.into_inner().map_err(|e| EngineError::Store(e.to_string()))?;
            if !each(&key[self.prefix.len()..], &value) {
                break;
            }
        }
        Ok(())
    }
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
}
