//! Both disks keep the same promises; the one in memory also breaks them on request.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use mulgil_disk::{Crash, Disk, DiskError, Fault, MemDisk, OpenMode, RealDisk, Writer, read_whole, write_atomic};

fn names(disk: &dyn Disk, dir: &Path) -> Vec<(String, u64)> {
    disk.list(dir).unwrap().into_iter().map(|e| (e.name, e.size_bytes)).collect()
}

fn on_both(test: fn(&dyn Disk, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    test(&RealDisk, folder.path());
    let disk = MemDisk::new(1);
    disk.create_dir_all(Path::new("/d")).unwrap();
    test(&disk, Path::new("/d"));
}

#[test]
fn files_are_written_at_the_end_and_read_anywhere() {
    on_both(|disk, dir| {
        let path = dir.join("a");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        file.append(b"hello ").unwrap();
        Writer(file.clone()).write_all(b"world").unwrap();
        file.sync_data().unwrap();
        let reader = disk.open(&path, OpenMode::Read).unwrap();
        let mut five = [0; 5];
        reader.read_at(6, &mut five).unwrap();
        assert_eq!(&five, b"world");
        assert_eq!(reader.read_at(7, &mut five).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(reader.append(b"x").is_err());

        file.truncate(5).unwrap();
        disk.open(&path, OpenMode::Append).unwrap().append(b"!").unwrap();
        file.append(b"?").unwrap();
        assert_eq!(read_whole(disk, &path, 100).unwrap(), b"hello!?");
        assert!(matches!(read_whole(disk, &path, 6), Err(DiskError::TooLarge { .. })));
        assert_eq!(disk.open(&path, OpenMode::Create).unwrap().size_bytes().unwrap(), 0);
    });
}

#[test]
fn folders_list_rename_and_remove() {
    on_both(|disk, dir| {
        let dir = dir.join("x/y");
        assert!(disk.list(&dir).unwrap_err().is_missing());
        assert!(disk.open(&dir.join("a"), OpenMode::Create).unwrap_err().is_missing());
        disk.create_dir_all(&dir).unwrap();
        disk.create_dir_all(&dir).unwrap();
        write_atomic(disk, &dir.join("b"), b"22").unwrap();
        write_atomic(disk, &dir.join("a"), b"1").unwrap();
        write_atomic(disk, &dir.join("b"), b"333").unwrap();
        assert_eq!(names(disk, &dir), [("a".to_owned(), 1), ("b".to_owned(), 3)]);
        disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
        let removed = disk.open(&dir.join("b"), OpenMode::Read).unwrap();
        disk.remove(&dir.join("b")).unwrap();
        disk.sync_dir(&dir).unwrap();
        assert_eq!(names(disk, &dir), []);
        assert_eq!(removed.size_bytes().unwrap(), 1, "an open file outlives its name");
        assert!(disk.remove(&dir.join("b")).unwrap_err().is_missing());
        let above = dir.parent().unwrap();
        assert_eq!(disk.list_dirs(above).unwrap(), ["y"]);
        assert!(disk.remove_dir(above).is_err(), "not empty");
        assert!(disk.free_bytes(&dir).unwrap() > 0);
        disk.remove_dir(&dir).unwrap();
        assert!(disk.list_dirs(above).unwrap().is_empty() && disk.list_dirs(&dir).unwrap_err().is_missing());
        assert!(disk.remove_dir(&dir).unwrap_err().is_missing());
    });
}

#[test]
fn a_lock_has_one_holder() {
    on_both(|disk, dir| {
        let path = dir.join("lock");
        let held = disk.lock(&path).unwrap();
        let message = disk.lock(&path).unwrap_err().to_string();
        assert!(message.contains("is in use by"), "{message}");
        drop(held);
        disk.lock(&path).unwrap();
    });
    let folder = tempfile::tempdir().unwrap();
    let _held = RealDisk.lock(&folder.path().join("lock")).unwrap();
    let message = RealDisk.lock(&folder.path().join("lock")).unwrap_err().to_string();
    assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
}

fn mem() -> (MemDisk, &'static Path) {
    let disk = MemDisk::new(7);
    disk.create_dir_all(Path::new("/d")).unwrap();
    (disk, Path::new("/d/a"))
}

#[test]
fn a_crash_drops_what_was_not_synced() {
    let (disk, path) = mem();
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.append(b"one").unwrap();
    file.sync_data().unwrap();
    let unnamed = disk.copy();
    unnamed.crash(Crash::DropUnsynced);
    assert!(unnamed.open(path, OpenMode::Read).unwrap_err().is_missing(), "its name was not synced");

    disk.sync_dir(Path::new("/d")).unwrap();
    file.append(b"two").unwrap();
    disk.crash(Crash::DropUnsynced);
    assert!(file.append(b"x").is_err(), "handles do not survive");
    assert_eq!(read_whole(&disk, path, 100).unwrap(), b"one");

    // A cut, and what was written behind it, needs a sync as much as an append does.
    let file = disk.open(path, OpenMode::Append).unwrap();
    file.truncate(1).unwrap();
    file.append(b"!").unwrap();
    let synced = disk.copy();
    disk.crash(Crash::DropUnsynced);
    assert_eq!(read_whole(&disk, path, 100).unwrap(), b"one");
    synced.open(path, OpenMode::Append).unwrap().sync_data().unwrap();
    synced.crash(Crash::DropUnsynced);
    assert_eq!(read_whole(&synced, path, 100).unwrap(), b"o!");

    // A removed name comes back, unless the folder was synced.
    disk.remove(path).unwrap();
    disk.crash(Crash::DropUnsynced);
    disk.remove(path).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.crash(Crash::DropUnsynced);
    assert!(disk.list(Path::new("/d")).unwrap().is_empty());
}

#[test]
fn tearing_is_reproducible_and_keeps_a_prefix() {
    let torn = |seed| {
        let disk = MemDisk::new(seed);
        disk.create_dir_all(Path::new("/d")).unwrap();
        write_atomic(&disk, Path::new("/d/a"), b"safe").unwrap();
        disk.open(Path::new("/d/a"), OpenMode::Append).unwrap().append(&[b'x'; 100]).unwrap();
        disk.crash(Crash::TearUnsynced);
        read_whole(&disk, Path::new("/d/a"), 1000).unwrap()
    };
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let bytes = torn(seed);
        assert_eq!(bytes, torn(seed));
        assert!(bytes.starts_with(b"safe"));
        let kept = &bytes[4..];
        let n_whole = kept.iter().take_while(|b| **b == b'x').count();
        assert!(kept[n_whole..].iter().all(|b| *b == 0));
        lengths.insert(kept.len());
    }
    assert!(lengths.len() > 20, "{lengths:?}");
}

#[test]
fn faults_on_request() {
    let (disk, path) = mem();
    write_atomic(&disk, path, b"abc").unwrap();
    let file = disk.open(path, OpenMode::Append).unwrap();

    disk.set_capacity(Some(5));
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 2);
    assert!(file.append(b"defg").unwrap_err().is_full());
    assert_eq!(read_whole(&disk, path, 100).unwrap(), b"abcde", "a part is written");
    file.truncate(3).unwrap();
    disk.set_capacity(None);

    disk.fail_syncs(1);
    file.append(b"def").unwrap();
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    disk.flip_bit(path, 0, 1).unwrap();
    assert_eq!(read_whole(&disk, path, 100).unwrap(), b"cbcdef");
    disk.crash(Crash::DropUnsynced);
    assert_eq!(read_whole(&disk, path, 100).unwrap(), b"cbc\0\0\0", "a later sync does not bring back what a failed one lost");
}

#[test]
fn held_syncs_wait_for_their_release() {
    let (disk, path) = mem();
    let file = disk.open(path, OpenMode::Create).unwrap();
    disk.hold_syncs();
    let waiting = std::thread::spawn(move || file.sync_data());
    while disk.n_syncs() == 0 {
        std::thread::yield_now();
    }
    assert!(!waiting.is_finished());
    disk.release_syncs();
    waiting.join().unwrap().unwrap();
}

/// What goes wrong at the nth operation, and what is left then: a file of two synced bytes to which three are written, and synced.
#[test]
fn planned_faults_strike_once_where_they_were_planned() {
    let eio = Fault::Fail { half_done: false };
    let crash = |half_done| Fault::Crash { how: Crash::DropUnsynced, half_done };
    let check = |nth: u64, fault: Fault, want: &str| {
        let (disk, path) = mem();
        let dir = path.parent().unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.append(b"ab").and_then(|()| file.sync_data()).and_then(|()| disk.sync_dir(dir)).unwrap();
        disk.plan(|faults| faults.at_change(nth, fault));
        let said = file.append(b"cde").and_then(|()| file.sync_data()).and_then(|()| disk.rename(path, &dir.join("g")));
        let (failed, down) = (said.is_err(), disk.is_down());
        if down {
            assert!(disk.list(dir).is_err(), "a disk that is down answers nothing");
            disk.restart();
        } else {
            disk.crash(Crash::DropUnsynced);
        }
        let (name, size) = names(&disk, dir).remove(0);
        assert_eq!(format!("failed {failed}, down {down}, {name} {size}"), want);
        assert_eq!(disk.n_struck(), u64::from(failed));
    };
    check(0, eio, "failed true, down false, a 2");
    check(1, eio, "failed true, down false, a 2");
    check(2, eio, "failed true, down false, a 5");
    check(2, Fault::Fail { half_done: true }, "failed true, down false, a 5");
    check(0, crash(false), "failed true, down true, a 2");
    check(1, crash(false), "failed true, down true, a 2");
    check(1, crash(true), "failed true, down true, a 5");
    check(2, crash(false), "failed true, down true, a 5");
    check(2, crash(true), "failed true, down true, g 5");
    check(3, eio, "failed false, down false, g 5");
}

#[test]
fn planned_reads_fail_or_come_short_and_the_watcher_hears_of_all() {
    let (disk, path) = mem();
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.append(b"ab").unwrap();
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let ear = Arc::clone(&heard);
    disk.watch(Arc::new(move |op, path| ear.lock().unwrap().push(format!("{op:?} {}", path.display()))));
    disk.plan(|faults| {
        faults.at_read(0, Fault::Short);
        faults.at_read(1, Fault::Fail { half_done: false });
        faults.at_read(2, Fault::Fail { half_done: false });
        faults.at_read(3, Fault::Short);
    });
    let mut into = [0; 2];
    assert_eq!(file.read_at(0, &mut into).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(file.read_at(0, &mut into).unwrap_err().kind(), std::io::ErrorKind::Other);
    disk.plan(|faults| faults.hold(true));
    file.read_at(0, &mut into).unwrap();
    assert_eq!((&into, disk.n_struck()), (b"ab", 2));
    assert_eq!(*heard.lock().unwrap(), vec![format!("Read {}", path.display()); 3]);
    assert_eq!(disk.files(), [(path.to_owned(), 2, 0)]);
    disk.plan(|faults| faults.hold(false));
    assert_eq!(file.read_at(0, &mut into).unwrap_err().kind(), std::io::ErrorKind::Other, "what waited strikes the next");
}
