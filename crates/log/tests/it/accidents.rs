//! What happens to folders: half-copied, emptied, filled to the brim, opened twice, written by a newer mulgil, on a disk that cannot read.
//!
//! Torn tails are in crash.rs, flipped bits and missing segments in damage.rs, failing syncs and full disks in failures.rs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use expect_test::expect;
use mulgil_disk::{Crash, Disk, Fault as DiskFault, MemDisk, Op, OpenMode, RealDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;

use crate::harness::*;

const N_ROWS: u64 = 20;

/// Twenty rows of `a` in several segments, closed in order.
fn several() -> MemDisk {
    let disk = MemDisk::new(1);
    let (journal, _) = open_with(JournalConfig { segment_bytes: 200, ..config() }, &disk);
    for i in 0..N_ROWS {
        journal.commit(append(&at("a", 0), &[format!("row {i}")])).unwrap();
    }
    disk
}

fn try_read_all(journal: &Journal) -> LogResult<u64> {
    let mut next = Offset(0);
    loop {
        let chunk = journal.read(&at("a", 0), next, ReadLimit::records(3))?;
        if chunk.is_empty() {
            return Ok(next.0);
        }
        for row in chunk.iter() {
            assert_eq!(row.value, format!("row {}", row.offset).as_bytes());
        }
        next = chunk.next_offset();
    }
}

fn truncate(disk: &MemDisk, path: &Path, size: u64) {
    let file = disk.open(path, OpenMode::Append).unwrap();
    file.truncate(size).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn a_truncated_sealed_segment_is_refused_at_every_length() {
    let whole = several();
    let files = journal_files(&whole, "log");
    for keeps_index in [true, false] {
        for size in 0..files[1].1 {
            let disk = whole.copy();
            truncate(&disk, &files[1].0, size);
            if !keeps_index {
                disk.remove(&journal_files(&disk, "idx")[1].0).unwrap();
            }
            let error = try_open(&disk).and_then(|(journal, _)| try_read_all(&journal)).unwrap_err();
            let LogError::Damaged { file, .. } = &error else { panic!("{size}: {error}") };
            assert_eq!(file, &files[1].0, "{size}: {error}");
            let damage = verify(&config(), &disk, &mut |_| {}).unwrap().damage;
            // Cut between two commits it ends well; then the next one does not follow.
            assert!([&files[1].0, &files[2].0].contains(&&damage[0].file), "{size}: {damage:?}");
        }
    }
}

#[test]
fn a_truncated_last_segment_is_refused_up_to_its_checkpoint() {
    let whole = several();
    let (last, size) = journal_files(&whole, "log").pop().unwrap();
    let mut refused = Vec::new();
    for size in 0..size {
        let disk = whole.copy();
        truncate(&disk, &last, size);
        match try_open(&disk) {
            Err(LogError::Damaged { file, .. }) => {
                assert_eq!(file, last);
                refused.push(size);
            }
            Err(other) => panic!("{other}"),
            // What a cut-off mark proved cannot be proved any more, so this looks like a torn tail.
            Ok((journal, _)) => assert!(try_read_all(&journal).unwrap() <= N_ROWS),
        }
    }
    assert!(refused.len() > 40 && *refused == (0..refused.len() as u64).collect::<Vec<_>>());
    let disk = whole.copy();
    truncate(&disk, &last, 0);
    let error = try_open(&disk).unwrap_err().to_string();
    let name = last.file_name().unwrap().to_string_lossy().into_owned();
    expect!["/data/journal/LAST is damaged at byte 0: the file ends inside the segment header; restore the file from a copy"]
        .assert_eq(&error.replace(&name, "LAST"));
}

#[test]
fn a_read_error_is_an_error_and_nothing_more() {
    let whole = several();
    let mut n_failed = 0;
    for nth in 0..60 {
        let disk = whole.copy();
        disk.plan(|faults| faults.at_read(nth, DiskFault::Fail { half_done: false }));
        let result = try_open(&disk).and_then(|(journal, _)| try_read_all(&journal));
        n_failed += usize::from(result.is_err());
        match result {
            Ok(n) => assert_eq!(n, N_ROWS),
            Err(LogError::Disk(error)) => assert!(error.to_string().starts_with("cannot read /data/journal/"), "{error}"),
            Err(other) => panic!("{other}"),
        }
        // Nothing was cut off for it.
        disk.plan(|faults| faults.clear());
        let (journal, opened) = open(&disk);
        assert_eq!((opened.repaired, try_read_all(&journal).unwrap()), (None, N_ROWS));
    }
    assert!(n_failed > 10, "{n_failed}");
}

#[test]
fn a_read_error_of_a_running_journal_passes() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    (0..N_ROWS).for_each(|i| drop(journal.commit(append(&at("a", 0), &[format!("row {i}")])).unwrap()));
    disk.plan(|faults| faults.at_read(0, DiskFault::Fail { half_done: false }));
    assert!(matches!(try_read_all(&journal), Err(LogError::Disk(_))));
    assert_eq!((try_read_all(&journal).unwrap(), journal.stats().poisoned), (N_ROWS, None));
}

#[test]
fn more_partitions_than_there_may_be_are_refused_and_the_others_go_on() {
    let disk = MemDisk::new(1);
    let config = JournalConfig { segment_bytes: 64 << 20, ..config() };
    let (journal, _) = open_with(config.clone(), &disk);
    let row = rows(&["x"]);
    let to = |partitions: std::ops::Range<u32>| Commit {
        appends: partitions.map(|p| Append { to: at("t", p), records: row.clone() }).collect(),
        progress: vec![],
    };
    let max = MAX_PARTITIONS as u32;
    journal.commit(to(0..max - 1)).unwrap();
    let error = journal.commit(to(max - 1..max + 1)).unwrap_err();
    expect!["the log is full of partitions: 65536 is the most it keeps"].assert_eq(&error.to_string());
    assert!(!error.is_retriable());
    journal.commit(to(max - 1..max)).unwrap();
    assert!(matches!(journal.commit(to(max..max + 1)), Err(LogError::TooMany { .. })));
    assert_eq!(journal.stats().n_partitions, MAX_PARTITIONS);
    drop(journal);
    // The checkpoint of the next segment names them all.
    let (journal, _) = open_with(JournalConfig { segment_bytes: 1, ..config.clone() }, &disk);
    journal.commit(to(0..1)).unwrap();
    drop(journal);
    let (journal, opened) = open_with(config, &disk);
    assert_eq!((opened.n_segments, journal.topics().len()), (2, MAX_PARTITIONS));
    assert_eq!(values(&journal, &at("t", 0)), ["x", "x"]);
    assert_eq!(values(&journal, &at("t", max - 1)), ["x"]);
}

#[test]
fn more_positions_than_there_may_be_are_refused_and_the_others_go_on() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let to = |partitions: std::ops::Range<u32>, n| Commit {
        appends: vec![],
        progress: partitions.map(|p| advance(&owner("source/x"), &at("t", p), n)).collect(),
    };
    let max = MAX_PROGRESS as u32;
    journal.commit(to(0..max, 1)).unwrap();
    let error = journal.commit(to(max..max + 1, 1)).unwrap_err().to_string();
    expect!["the log is full of progress of owners: 65536 is the most it keeps"].assert_eq(&error);
    journal.commit(to(0..max, 2)).unwrap();
    assert_eq!(journal.stats().n_progress, MAX_PROGRESS);
    drop(journal);
    let (journal, _) = open(&disk);
    let position = journal.progress(&owner("source/x"), &at("t", max - 1)).unwrap();
    assert_eq!(position.map(|position| position.commit), Some(2));
}

/// Gives the first segment another version, with a checksum that is right.
fn with_version(disk: &MemDisk, version: u32) -> PathBuf {
    let (path, size) = journal_files(disk, "log")[0].clone();
    let mut bytes = mulgil_disk::read_whole(disk, &path, size).unwrap();
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..40]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    mulgil_disk::write_atomic(disk, &path, &bytes).unwrap();
    path
}

#[test]
fn a_journal_of_a_newer_mulgil_is_refused_and_left_alone() {
    for disk in [several(), {
        let disk = MemDisk::new(1);
        open(&disk).0.commit(append(&at("a", 0), &["row 0"])).unwrap();
        disk
    }] {
        let path = with_version(&disk, 2);
        let before = mulgil_disk::read_whole(&disk, &path, 1 << 20).unwrap();
        let error = try_open(&disk).unwrap_err().to_string();
        assert!(error.contains("00000000000000000000.log") && error.contains("the segment was written by a newer mulgil"), "{error}");
        assert!(Journal::open_read_only(config(), Arc::new(disk.clone()), Hands::default().clock()).is_err());
        assert_eq!(verify(&config(), &disk, &mut |_| {}).unwrap().damage[0].reason, "the segment was written by a newer mulgil");
        assert_eq!(mulgil_disk::read_whole(&disk, &path, 1 << 20).unwrap(), before);
        with_version(&disk, 1);
        assert!(try_read_all(&open(&disk).0).unwrap() > 0);
    }
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Journal::open(JournalConfig::new(folder.path()), Arc::new(RealDisk), Hands::default().clock());
    let (journal, _) = open().unwrap();
    journal.commit(append(&at("a", 0), &["row 0"])).unwrap();
    let error = open().unwrap_err();
    let holder = format!("is in use by process {}; stop that process first, or use another data folder", std::process::id());
    assert!(error.to_string().ends_with(&holder), "{error}");
    // The refused one changed nothing, and the first goes on.
    journal.commit(append(&at("a", 0), &["row 1"])).unwrap();
    // A ticket that outlives the journal does not hold the folder.
    let ticket = journal.begin(append(&at("a", 0), &["row 2"])).unwrap();
    drop(journal);
    let (journal, opened) = open().unwrap();
    assert!(opened.was_closed && ticket.wait().is_ok());
    assert_eq!(try_read_all(&journal).unwrap(), 3);
}

#[test]
fn two_readers_do_not_write_the_same_index_at_once() {
    let disk = several();
    let index = journal_files(&disk, "idx").swap_remove(0).0;
    disk.remove(&index).unwrap();
    let (journal, _) = open(&disk);
    // How many are between making the unfinished file and giving it its name; a second one is given time to come.
    let (inside, most) = (Arc::new((Mutex::new(0), Condvar::new())), Arc::new(AtomicUsize::new(0)));
    let unfinished = index.with_extension("idx.tmp");
    disk.watch(Arc::new({
        let most = Arc::clone(&most);
        move |op, path| {
            let mut n = inside.0.lock().unwrap();
            match op {
                Op::Create if path == unfinished => *n += 1,
                Op::Rename if path == unfinished => *n -= 1,
                _ => return,
            }
            most.fetch_max(*n, Ordering::SeqCst);
            inside.1.notify_all();
            if op == Op::Create {
                drop(inside.1.wait_timeout_while(n, Duration::from_millis(300), |n| *n == 1).unwrap());
            }
        }
    }));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| journal.read(&at("a", 0), Offset(0), ReadLimit::records(1)).unwrap());
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 1);
    assert!(disk.list(Path::new("/data/journal")).unwrap().iter().all(|entry| !entry.name.ends_with("tmp")));
}

#[test]
fn indexes_may_be_deleted_and_are_written_again() {
    let disk = several();
    let indexes = journal_files(&disk, "idx");
    assert!(indexes.len() > 3);
    indexes.iter().for_each(|(path, _)| disk.remove(path).unwrap());
    assert_eq!(verify(&config(), &disk, &mut |_| {}).unwrap().damage, []);
    let (journal, _) = open(&disk);
    assert_eq!(try_read_all(&journal).unwrap(), N_ROWS);
    assert_eq!(journal_files(&disk, "idx"), indexes);
    // Under a running journal too, and also when there is no room to write them again.
    indexes.iter().for_each(|(path, _)| disk.remove(path).unwrap());
    disk.set_capacity(Some(disk.used_bytes()));
    assert_eq!(try_read_all(&journal).unwrap(), N_ROWS);
    drop(journal);
    disk.crash(Crash::DropUnsynced);
    assert_eq!(try_read_all(&open(&disk).0).unwrap(), N_ROWS);
}
