//! Full disks and failing syncs.

use mulgil_disk::{Crash, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;
use std::time::Duration;

use crate::harness::*;

#[test]
fn a_full_disk_refuses_whole_commits_and_the_journal_goes_on() {
    let disk = MemDisk::new(1);
    let config = JournalConfig { segment_bytes: 2_000, ..config() };
    let (journal, _) = open_with(config.clone(), &disk);
    let (trades, source) = (at("trades", 0), owner("source/x"));
    let commit = |journal: &Journal, n: u64| {
        let progress = vec![advance(&source, &trades, n)];
        journal.commit(Commit { progress, ..append(&trades, &[format!("{n:0100}")]) })
    };
    let (mut n, mut n_full) = (0, 0);
    for room in [0, 1, 31, 33, 100, 200, 250, 1_000, 5_000] {
        disk.set_capacity(Some(disk.used_bytes() + room));
        loop {
            match commit(&journal, n + 1) {
                Ok(_) => n += 1,
                Err(error @ LogError::DiskFull { .. }) => {
                    assert!(error.is_retriable());
                    n_full += 1;
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(values(&journal, &trades).len() as u64, n);
        disk.set_capacity(None);
        commit(&journal, n + 1).unwrap();
        n += 1;
    }
    assert_eq!((n_full, journal.stats().poisoned), (9, None));
    disk.set_capacity(Some(disk.used_bytes() + 20));
    commit(&journal, n + 1).unwrap_err();
    // What was refused does not come back after a crash.
    disk.crash(Crash::TearUnsynced);
    drop(journal);
    disk.set_capacity(None);
    let (journal, _) = open_with(config, &disk);
    assert_eq!(values(&journal, &trades), (1..=n).map(|i| format!("{i:0100}")).collect::<Vec<_>>());
    commit(&journal, n + 1).unwrap();
}

#[test]
fn a_full_disk_does_not_keep_the_journal_from_opening() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    journal.commit(append(&at("a", 0), &["row"])).unwrap();
    disk.stop(Crash::DropUnsynced);
    drop(journal);
    disk.restart();
    disk.set_capacity(Some(disk.used_bytes()));
    let (journal, _) = open(&disk);
    assert_eq!(values(&journal, &at("a", 0)), ["row"]);
    assert!(journal.commit(append(&at("a", 0), &["row"])).unwrap_err().is_retriable());
    disk.set_capacity(None);
    journal.commit(append(&at("a", 0), &["two"])).unwrap();
    assert_eq!(values(&journal, &at("a", 0)), ["row", "two"]);
}

#[test]
fn a_failed_sync_poisons_for_good() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let trades = at("trades", 0);
    journal.commit(append(&trades, &["safe"])).unwrap();
    let mut watch = journal.watch();
    let before = disk.n_syncs();
    disk.fail_syncs(1);
    let failed = journal.commit(append(&trades, &["doubtful"])).unwrap_err();
    assert!(matches!(failed, LogError::Poisoned { .. }) && !failed.is_retriable());
    assert!(watch.wait(Duration::ZERO), "readers at the end are told");
    let is_poisoned = |result: Result<(), LogError>| matches!(result, Err(LogError::Poisoned { .. }));
    assert!(is_poisoned(journal.commit(append(&trades, &["x"])).map(drop)));
    assert!(is_poisoned(journal.read(&trades, Offset(0), ReadLimit::records(1)).map(drop)));
    assert!(is_poisoned(journal.progress(&owner("x"), &trades).map(drop)));
    assert!(is_poisoned(journal.seek(&trades, Seek::First).map(drop)));
    assert!(is_poisoned(journal.retain(&|_| Offset(0)).map(drop)));
    assert!(is_poisoned(journal.flush()));
    assert!(journal.stats().poisoned.unwrap().contains("cannot sync /data/journal/"));
    drop(journal);
    assert_eq!(disk.n_syncs(), before + 1, "never tried again");

    disk.crash(Crash::DropUnsynced);
    let (journal, _) = open(&disk);
    assert_eq!(values(&journal, &trades), ["safe"]);
}

#[test]
fn what_a_failed_sync_left_is_written_anew_by_the_next_process() {
    // The system shows what it could not write, and calls it clean: without a copy the next process would build on it, and after a crash
    // of the machine the rows before its own would be a hole.
    for fails in [true, false] {
        let disk = MemDisk::new(1);
        let (journal, _) = open(&disk);
        let trades = at("trades", 0);
        journal.commit(append(&trades, &["safe"])).unwrap();
        if fails {
            disk.fail_syncs(1);
        }
        assert_eq!(journal.commit(append(&trades, &["shown"])).is_err(), fails);
        let note = std::path::Path::new("/data/journal/doubtful");
        let is_noted = || mulgil_disk::Disk::open(&disk, note, mulgil_disk::OpenMode::Read).is_ok();
        assert_eq!(is_noted(), fails);
        disk.crash(Crash::KeepUnsynced);
        drop(journal);
        let (journal, _) = open(&disk);
        assert!(!is_noted());
        assert_eq!(values(&journal, &trades), ["safe", "shown"]);
        journal.commit(append(&trades, &["built on it"])).unwrap();
        disk.crash(Crash::DropUnsynced);
        drop(journal);
        assert_eq!(values(&open(&disk).0, &trades), ["safe", "shown", "built on it"]);
    }
}
