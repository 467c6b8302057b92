//! Short names for what every test does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use mulgil_disk::{Disk, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};

/// A clock that tests turn.
#[derive(Clone, Default)]
pub struct Hands(Arc<AtomicI64>);

impl Hands {
    pub fn set(&self, us: i64) {
        self.0.store(us, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let hands = Arc::clone(&self.0);
        Arc::new(move || AppendTime::from_micros(hands.load(Ordering::SeqCst)))
    }
}

pub fn config() -> JournalConfig {
    JournalConfig::new("/data")
}

pub fn open(disk: &MemDisk) -> (Journal, Opened) {
    open_with(config(), disk)
}

pub fn open_with(config: JournalConfig, disk: &MemDisk) -> (Journal, Opened) {
    Journal::open(config, Arc::new(disk.clone()), Hands::default().clock()).unwrap()
}

pub fn try_open(disk: &MemDisk) -> LogResult<(Journal, Opened)> {
    Journal::open(config(), Arc::new(disk.clone()), Hands::default().clock())
}

pub fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(Topic::new(topic).unwrap(), Partition(partition))
}

pub fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

pub fn rows<V: AsRef<[u8]>>(values: &[V]) -> Records {
    let mut builder = RecordsBuilder::new();
    for value in values {
        builder.push(b"key", &[], value.as_ref(), EventTime::from_micros(1), ReceiveTime::from_micros(2));
    }
    builder.finish()
}

pub fn append<V: AsRef<[u8]>>(to: &TopicPartition, values: &[V]) -> Commit {
    Commit { appends: vec![Append { to: to.clone(), records: rows(values) }], progress: vec![] }
}

pub fn advance(by: &Owner, partition: &TopicPartition, commit: u64) -> Advance {
    Advance { owner: by.clone(), partition: partition.clone(), position: Position::new(commit, 0) }
}

/// Offset and value of everything from `from` on, read in small steps.
pub fn read_from(journal: &Journal, at: &TopicPartition, from: u64) -> Vec<(u64, String)> {
    let mut rows = Vec::new();
    let mut next = Offset(from);
    loop {
        let chunk = journal.read(at, next, ReadLimit { bytes: 1 << 20, records: 7 }).unwrap();
        if chunk.is_empty() {
            return rows;
        }
        rows.extend(chunk.iter().map(|r| (r.offset.0, String::from_utf8_lossy(r.value).into_owned())));
        next = chunk.next_offset();
    }
}

pub fn values(journal: &Journal, at: &TopicPartition) -> Vec<String> {
    read_from(journal, at, 0).into_iter().map(|(_, value)| value).collect()
}

pub fn journal_files(disk: &dyn Disk, ending: &str) -> Vec<(PathBuf, u64)> {
    let dir = Path::new("/data/journal");
    let entries = disk.list(dir).unwrap().into_iter().filter(|e| e.name.ends_with(ending));
    entries.map(|e| (dir.join(e.name), e.size_bytes)).collect()
}
