//! What a stop at any moment leaves behind.

use mulgil_disk::{Crash, Disk, MemDisk, OpenMode};
use mulgil_log::*;
use mulgil_model::position::Position;
use std::path::Path;
use std::time::Duration;

use crate::harness::*;

const SEGMENT: &str = "/data/journal/00000000000000000000.log";

fn bytes(disk: &MemDisk) -> Vec<u8> {
    mulgil_disk::read_whole(disk, Path::new(SEGMENT), 10_000).unwrap()
}

fn size(disk: &MemDisk) -> u64 {
    bytes(disk).len() as u64
}

/// Three commits; the last has two topics and progress, so three frames. Gives the disk as a crash leaves it, and where the third begins.
fn three_commits() -> (MemDisk, u64) {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let (a, b, source) = (at("a", 0), at("b", 0), owner("source/x"));
    journal.commit(Commit { progress: vec![advance(&source, &a, 1)], ..append(&a, &["one"]) }).unwrap();
    journal.commit(Commit { progress: vec![advance(&source, &a, 2)], ..append(&a, &["two"]) }).unwrap();
    let before = size(&disk);
    let mut third = append(&a, &["three"]);
    third.appends.extend(append(&b, &["drei"]).appends);
    third.progress = vec![advance(&source, &a, 3)];
    journal.commit(third).unwrap();
    disk.crash(Crash::DropUnsynced);
    drop(journal);
    (disk, before)
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    let (whole, before) = three_commits();
    let end = size(&whole);
    for cut in before..=end {
        for garbage in [&[][..], &[0], &[0; 50], &[0xaa; 50]] {
            let disk = whole.copy();
            let file = disk.open(Path::new(SEGMENT), OpenMode::Append).unwrap();
            file.truncate(cut).unwrap();
            file.append(garbage).unwrap();
            file.sync_data().unwrap();
            // The commit may end in zeroes itself.
            let n_bytes = cut + garbage.len() as u64;
            let is_whole = bytes(&disk).starts_with(&bytes(&whole));
            let (journal, opened) = open(&disk);
            let last = if is_whole { end } else { before };
            assert_eq!(opened.repaired.is_some(), n_bytes != last, "cut {cut}, {garbage:?}");
            if let Some(repaired) = opened.repaired {
                assert_eq!((repaired.byte, repaired.cut_bytes), (last, n_bytes - last));
                assert_eq!(repaired.file, Path::new(SEGMENT));
            }
            assert_eq!(values(&journal, &at("a", 0)).len(), if is_whole { 3 } else { 2 });
            assert_eq!(values(&journal, &at("b", 0)).len(), usize::from(is_whole));
            let progress = journal.progress(&owner("source/x"), &at("a", 0)).unwrap();
            assert_eq!(progress, Some(Position::new(if is_whole { 3 } else { 2 }, 0)));

            // And it goes on from there.
            journal.commit(append(&at("a", 0), &["next"])).unwrap();
            drop(journal);
            let (journal, opened) = open(&disk);
            assert_eq!((opened.repaired, opened.was_closed), (None, true));
            assert_eq!(values(&journal, &at("a", 0)).last().unwrap(), "next");
        }
    }
}

#[test]
fn a_crash_at_every_sync_loses_nothing_that_was_answered() {
    for how in [Crash::DropUnsynced, Crash::TearUnsynced, Crash::KeepUnsynced] {
        for seed in 0..30 {
            let disk = MemDisk::new(seed);
            let config = JournalConfig { segment_bytes: 500, ..config() };
            let trades = at("trades", 0);
            let mut n = 0;
            for _ in 0..8 {
                let (journal, _) = open_with(config.clone(), &disk);
                assert_eq!(values(&journal, &trades), (0..n).map(|i| i.to_string()).collect::<Vec<_>>());
                for _ in 0..5 {
                    journal.commit(append(&trades, &[n.to_string()])).unwrap();
                    n += 1;
                }
                disk.crash(how);
                drop(journal);
            }
        }
    }
}

#[test]
fn an_unanswered_commit_is_there_whole_or_not_at_all() {
    let (mut n_there, mut n_gone) = (0, 0);
    for seed in 0..200 {
        let disk = MemDisk::new(seed);
        let (journal, _) = open(&disk);
        journal.commit(append(&at("a", 0), &["safe"])).unwrap();
        let before = disk.n_syncs();
        disk.hold_syncs();
        std::thread::scope(|scope| {
            let commit = scope.spawn(|| {
                let mut commit = append(&at("a", 0), &["maybe"; 5]);
                commit.appends.extend(append(&at("b", 0), &["maybe"; 5]).appends);
                journal.commit(commit)
            });
            while disk.n_syncs() == before {
                std::thread::yield_now();
            }
            disk.crash(if seed % 2 == 0 { Crash::TearUnsynced } else { Crash::KeepUnsynced });
            assert!(matches!(commit.join().unwrap(), Err(LogError::Poisoned { .. })));
        });
        assert_eq!(journal.topics_or_poison(), None);
        drop(journal);
        let (journal, _) = open(&disk);
        match (values(&journal, &at("a", 0)).len(), values(&journal, &at("b", 0)).len()) {
            (1, 0) => n_gone += 1,
            (6, 5) => n_there += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(n_gone > 50 && n_there > 50, "{n_gone} {n_there}");
}

trait Dead {
    fn topics_or_poison(&self) -> Option<usize>;
}

impl Dead for Journal {
    /// A dead journal answers no question about rows.
    fn topics_or_poison(&self) -> Option<usize> {
        self.read(&at("a", 0), mulgil_model::ids::Offset(0), ReadLimit::records(1)).ok().map(|c| c.len())
    }
}

#[test]
fn an_unfinished_segment_file_is_removed() {
    let disk = MemDisk::new(1);
    drop(open(&disk));
    let unfinished = Path::new("/data/journal/00000000000000000007.log.tmp");
    disk.open(unfinished, OpenMode::Create).unwrap();
    drop(open(&disk));
    assert!(disk.open(unfinished, OpenMode::Read).unwrap_err().is_missing());
}

#[test]
fn relaxed_durability_loses_the_newest_commits_only() {
    let disk = MemDisk::new(1);
    let hands = Hands::default();
    let durability = Durability::Relaxed { flush_every: Duration::from_secs(1) };
    let config = JournalConfig { durability, ..config() };
    let open = || Journal::open(config.clone(), std::sync::Arc::new(disk.clone()), hands.clock()).unwrap().0;
    let (journal, trades) = (open(), at("trades", 0));
    let before = disk.n_syncs();
    for i in 0..3 {
        journal.commit(append(&trades, &[i.to_string()])).unwrap();
    }
    assert_eq!((disk.n_syncs(), values(&journal, &trades).len()), (before, 3), "readable before it is durable");
    assert!(journal.stats().unsynced_bytes > 0);
    hands.set(1_000_000);
    journal.commit(append(&trades, &["3"])).unwrap();
    assert_eq!((disk.n_syncs(), journal.stats().unsynced_bytes), (before + 1, 0));
    journal.commit(append(&trades, &["flushed"])).unwrap();
    journal.flush().unwrap();
    journal.commit(append(&trades, &["lost"])).unwrap();
    disk.crash(Crash::DropUnsynced);
    drop(journal);
    let journal = open();
    assert_eq!(values(&journal, &trades), ["0", "1", "2", "3", "flushed"]);
    journal.commit(append(&trades, &["closed in order"])).unwrap();
    drop(journal);
    disk.crash(Crash::DropUnsynced);
    assert_eq!(values(&open(), &trades).len(), 6);
}

#[test]
fn an_open_journal_holds_only_durable_rows() {
    // The process died after the write and before the sync; the next one must not show rows that power loss could still take.
    let disk = MemDisk::new(1);
    let relaxed = Durability::Relaxed { flush_every: Duration::MAX };
    let (journal, _) = open_with(JournalConfig { durability: relaxed, ..config() }, &disk);
    journal.commit(append(&at("a", 0), &["written"])).unwrap();
    disk.crash(Crash::KeepUnsynced);
    drop(journal);
    let (journal, _) = open(&disk);
    assert_eq!(values(&journal, &at("a", 0)), ["written"]);
    disk.crash(Crash::DropUnsynced);
    drop(journal);
    assert_eq!(values(&open(&disk).0, &at("a", 0)), ["written"]);
}
