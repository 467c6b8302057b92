//! A journal whose files hold anything, with good checksums or bad ones: opened, verified, read, written to and opened again.

use crate::trades::{RECEIVED, topic};
use mulgil_disk::{Disk, MemDisk, OpenMode, read_whole, write_atomic};
use mulgil_log::{Advance, Append, Commit, Journal, JournalConfig, Log, LogResult, Opened, Owner, ReadLimit, RecordsBuilder, Seek, verify};
use mulgil_model::ids::{Partition, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::{AppendTime, EventTime};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

const JOURNAL: &str = "/data/journal";
const HEADER_BYTES: usize = 40;
const FRAME_HEAD_BYTES: usize = 32;
/// Reads of one partition; more would mean that a read gives nothing new.
const READS_MAX: usize = 10_000;

fn config() -> JournalConfig {
    JournalConfig { segment_bytes: 600, ..JournalConfig::new("/data") }
}

fn open(disk: &MemDisk) -> LogResult<(Journal, Opened)> {
    Journal::open(config(), Arc::new(disk.clone()), Arc::new(|| AppendTime(RECEIVED.0)))
}

fn at(name: &str) -> TopicPartition {
    TopicPartition::new(topic(name), Partition(1))
}

fn commit(name: &str, values: &[&str], ordinal: u64) -> Commit {
    let mut records = RecordsBuilder::new();
    for value in values {
        records.push(b"key", &[("h", b"1")], value.as_bytes(), EventTime(1), RECEIVED);
    }
    let owner = Owner::new("source/a").expect("invariant: the name is valid");
    let progress = vec![Advance { owner, partition: at("in"), position: Position::new(ordinal, 2) }];
    Commit { appends: vec![Append { to: at(name), records: records.finish() }], progress }
}

/// Three segments, two of them sealed and with an index.
static GOOD: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk).expect("an empty folder can be opened");
    for n in 0..6u64 {
        let long = "x".repeat(if n % 3 == 0 { 300 } else { 3 });
        journal.commit(commit(["a", "b"][n as usize % 2], &["one", &long], n)).expect("memory takes everything");
    }
    drop(journal);
    let names = disk.list(Path::new(JOURNAL)).expect("the folder is there");
    let paths = names.iter().map(|e| Path::new(JOURNAL).join(&e.name));
    paths.map(|p| (p.clone(), read_whole(&disk, &p, 1 << 20).expect("the file is there"))).collect()
});

fn disk_of(files: &[(PathBuf, Vec<u8>)]) -> MemDisk {
    let disk = MemDisk::new(1);
    disk.create_dir_all(Path::new(JOURNAL)).expect("memory takes everything");
    for (path, bytes) in files {
        write_atomic(&disk, path, bytes).expect("memory takes everything");
    }
    disk
}

/// The first segment alone, as it is and with its checksums made good.
pub fn run(input: &[u8]) {
    for bytes in [input.to_vec(), sealed(input)] {
        let first = u64_at(&bytes, 16).unwrap_or(0);
        exercise(&disk_of(&[(Path::new(JOURNAL).join(format!("{first:020}.log")), bytes)]));
    }
}

/// Any one file of three segments; the first byte says which.
pub fn run_sealed(input: &[u8]) {
    let Some((which, rest)) = input.split_first() else { return };
    let which = usize::from(*which) % GOOD.len();
    for bytes in [rest.to_vec(), sealed(rest)] {
        let mut files = GOOD.clone();
        files[which].1 = bytes;
        exercise(&disk_of(&files));
    }
}

fn exercise(disk: &MemDisk) {
    let verified = verify(&config(), disk, &mut |_| {});
    let was_sound = verified.as_ref().is_ok_and(|v| v.damage.is_empty());
    if let Ok((journal, _)) = Journal::open_read_only(config(), Arc::new(disk.clone()), Arc::new(|| AppendTime(RECEIVED.0))) {
        read_all(&journal, was_sound);
    }
    let Ok((journal, opened)) = open(disk) else { return };
    let before = read_all(&journal, was_sound);
    let to = at("a");
    let next = journal.seek(&to, Seek::Next).expect("an open journal knows its ends");
    // A position that cannot grow is refused, and so are rows when offsets are used up: by name, not by a wrong place.
    if let Ok(done) = journal.commit(Commit { progress: vec![], ..commit("a", &["new"], 0) }) {
        assert_eq!(done.base_offsets, [next], "a row is not where the end was");
        let chunk = journal.read(&to, next, ReadLimit::records(1)).expect("what was just written can be read");
        assert_eq!(chunk.iter().map(|r| r.value.to_vec()).collect::<Vec<_>>(), [b"new"]);
        drop(journal);
        let (journal, again) = open(disk).expect("a journal that was open opens again");
        assert_eq!((again.repaired, again.was_closed), (None, true), "first: {opened:?}");
        let after = read_all(&journal, was_sound);
        assert!(!was_sound || after == before + 1, "{after} rows after one more than {before}");
        let chunk = journal.read(&to, next, ReadLimit::records(1)).expect("what was written before can be read");
        assert_eq!(chunk.iter().map(|r| r.value.to_vec()).collect::<Vec<_>>(), [b"new"]);
    }
}

/// Everything, in order and without holes; the number of rows.
fn read_all(journal: &Journal, was_sound: bool) -> u64 {
    let mut n_rows = 0;
    for partition in journal.topics() {
        assert!(partition.first <= partition.next, "{partition:?}");
        let mut from = partition.first;
        for read in 0.. {
            assert!(read < READS_MAX, "{partition:?} has no end");
            let chunk = match journal.read(&partition.at, from, ReadLimit { bytes: 4096, records: 7 }) {
                Ok(chunk) => chunk,
                Err(e) => {
                    assert!(!was_sound && !e.to_string().is_empty(), "a verified journal cannot be read: {e}");
                    break;
                }
            };
            if chunk.is_empty() {
                assert_eq!(from, partition.next, "rows are missing at the end of {partition:?}");
                break;
            }
            for (n, record) in chunk.iter().enumerate() {
                assert_eq!(record.offset, from.plus(n as u64), "a hole");
                assert!(record.headers().count() < 1 << 20);
            }
            assert!(chunk.next_offset() > from, "the position stands still");
            n_rows += chunk.next_offset().0 - from.0;
            from = chunk.next_offset();
        }
    }
    n_rows
}

/// The same bytes with every checksum that can be found made good, so that fuzzing gets behind them.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() < HEADER_BYTES {
        return bytes;
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..HEADER_BYTES]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let segment = u64_at(&bytes, 16).unwrap_or(0);
    let mut at = HEADER_BYTES;
    while let Some(head) = bytes.get(at..at + FRAME_HEAD_BYTES) {
        let n_body = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let Some(frame) = bytes.get_mut(at..at + FRAME_HEAD_BYTES + n_body) else { break };
        let crc = crc32c::crc32c(&segment.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &(at as u64).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &frame[..4]), &frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        at += FRAME_HEAD_BYTES + n_body;
    }
    bytes
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let disk = MemDisk::new(1);
    let (journal, _) = Journal::open(JournalConfig::new("/data"), Arc::new(disk.clone()), Arc::new(|| AppendTime(RECEIVED.0)))
        .expect("an empty folder can be opened");
    for (n, name) in ["a", "b", "a"].into_iter().enumerate() {
        journal.commit(commit(name, &["one", "two"], n as u64)).expect("memory takes everything");
    }
    let path = Path::new(JOURNAL).join("00000000000000000000.log");
    assert!(disk.open(&path, OpenMode::Read).is_ok(), "the first segment has this name");
    let unclosed = read_whole(&disk, &path, 1 << 20).expect("the file is there");
    drop(journal);
    vec![unclosed, read_whole(&disk, &path, 1 << 20).expect("the file is there")]
}

pub fn sealed_seeds() -> Vec<Vec<u8>> {
    GOOD.iter().enumerate().map(|(i, (_, bytes))| [&[i as u8], bytes.as_slice()].concat()).collect()
}
