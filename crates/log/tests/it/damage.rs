//! A bit flips somewhere: it is always noticed, and what was committed is never cut off.

use std::path::Path;
use std::sync::Arc;

use expect_test::expect;
use mulgil_disk::{Disk, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;

use crate::harness::*;

/// A small journal, closed in order, of one segment or several.
fn small(segment_bytes: u64) -> MemDisk {
    let disk = MemDisk::new(1);
    let (journal, _) = open_with(JournalConfig { segment_bytes, ..config() }, &disk);
    for i in 0..6u64 {
        let to = at(["a", "b"][i as usize % 2], 0);
        let progress = vec![advance(&owner("source/x"), &to, i + 1)];
        journal.commit(Commit { progress, ..append(&to, &[format!("row {i}"), "more".into()]) }).unwrap();
    }
    disk
}

/// Everything that can be read, or the first error.
fn read_all(journal: &Journal) -> LogResult<usize> {
    let mut n = 0;
    for topic in ["a", "b"] {
        n += journal.read(&at(topic, 0), Offset(0), ReadLimit::records(100))?.len();
    }
    Ok(n)
}

#[test]
fn a_flip_at_every_byte_is_refused_with_file_and_byte() {
    let mark_bytes = 32;
    for segment_bytes in [1 << 20, 200] {
        let whole = small(segment_bytes);
        let files = journal_files(&whole, "log");
        let verified = verify(&config(), &whole, &mut |_| {}).unwrap();
        assert_eq!((verified.n_commits, verified.damage.len(), verified.torn), (6, 0, None));
        for (i, (path, size)) in files.iter().enumerate() {
            for byte in 0..*size {
                let disk = whole.copy();
                disk.flip_bit(path, byte, (byte % 8) as u8).unwrap();
                let in_mark = i + 1 == files.len() && byte >= size - mark_bytes;
                let verified = verify(&config(), &disk, &mut |_| {}).unwrap();
                let seen = verified.damage.first().or(verified.torn.as_ref()).unwrap();
                assert_eq!(&seen.file, path);
                assert!(seen.byte <= byte, "{} {byte}", seen.byte);
                assert_eq!(verified.torn.is_some(), in_mark, "byte {byte} of {}", path.display());

                // Either the journal does not open, or a read says so; the only thing ever cut is the mark.
                match try_open(&disk) {
                    Ok((journal, opened)) => match read_all(&journal) {
                        Ok(n) => assert!(n == 12 && opened.repaired.is_some() == in_mark, "byte {byte} of {}", path.display()),
                        Err(error) => assert_damaged(error, path),
                    },
                    Err(error) => assert_damaged(error, path),
                }
            }
        }
    }
}

fn assert_damaged(error: LogError, path: &Path) {
    match error {
        LogError::Damaged { file, .. } => assert_eq!(file, path),
        other => panic!("{other}"),
    }
}

#[test]
fn a_flip_under_a_running_journal_is_refused_on_read() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let trades = at("trades", 0);
    for i in 0..3 {
        journal.commit(append(&trades, &[format!("row {i}")])).unwrap();
    }
    let path = journal_files(&disk, "log")[0].0.clone();
    let bytes = mulgil_disk::read_whole(&disk, &path, 10_000).unwrap();
    let value = bytes.windows(5).position(|w| w == b"row 1").unwrap() as u64;
    disk.flip_bit(&path, value, 0).unwrap();
    assert_eq!(journal.read(&trades, Offset(0), ReadLimit::records(1)).unwrap().len(), 1);
    let error = journal.read(&trades, Offset(1), ReadLimit::records(1)).unwrap_err();
    expect![
        "/data/journal/00000000000000000000.log is damaged at byte 129: the checksum of a frame is wrong; restore the file from a copy"
    ]
    .assert_eq(&error.to_string());
    let LogError::Damaged { byte, .. } = error else { panic!("{error}") };
    assert!(byte < value && value < byte + 100);
    assert!(!error.is_retriable() && error.fault() == Fault::External);
    let verified = journal.verify(&mut |_| {}).unwrap();
    assert_eq!((verified.damage.len(), verified.damage[0].byte, verified.torn), (1, byte, None));
}

#[test]
fn damage_without_a_clean_stop_is_not_cut_off_either() {
    // The last group of a crashed journal may be torn; those before it were durable when it was written.
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    for i in 0..3 {
        journal.commit(append(&at("a", 0), &[format!("row {i}")])).unwrap();
    }
    disk.crash(mulgil_disk::Crash::DropUnsynced);
    drop(journal);
    let path = journal_files(&disk, "log")[0].0.clone();
    let bytes = mulgil_disk::read_whole(&disk, &path, 10_000).unwrap();
    let at_value = |i: usize| bytes.windows(5).position(|w| w == format!("row {i}").as_bytes()).unwrap() as u64;
    for i in [0, 1] {
        let disk = disk.copy();
        disk.flip_bit(&path, at_value(i), 3).unwrap();
        assert_damaged(try_open(&disk).unwrap_err(), &path);
        assert_eq!(mulgil_disk::read_whole(&disk, &path, 10_000).unwrap().len(), bytes.len());
    }
    // Once it was opened, the last one too has a mark behind it.
    drop(open(&disk));
    disk.flip_bit(&path, at_value(2), 3).unwrap();
    assert_damaged(try_open(&disk).unwrap_err(), &path);
}

#[test]
fn missing_and_renamed_segments_are_noticed() {
    let whole = small(200);
    let files = journal_files(&whole, "log");
    assert!(files.len() > 3);

    let disk = whole.copy();
    disk.remove(&files[1].0).unwrap();
    let error = try_open(&disk).unwrap_err().to_string();
    expect!["/data/journal/00000000000000000003.log is damaged at byte 24: the segment before it should be 00000000000000000002.log, which is missing; restore the file from a copy"].assert_eq(&error);
    assert_eq!(verify(&config(), &disk, &mut |_| {}).unwrap().damage[0].reason, "a segment before it is missing");

    let disk = whole.copy();
    let last = &files.last().unwrap().0;
    disk.rename(last, Path::new("/data/journal/00000000000000000099.log")).unwrap();
    assert!(try_open(&disk).unwrap_err().to_string().contains("the segment was renamed"));

    let disk = whole.copy();
    let index = &journal_files(&disk, "idx")[0].0;
    disk.flip_bit(index, 20, 1).unwrap();
    let verified = verify(&config(), &disk, &mut |_| {}).unwrap();
    assert_eq!((&verified.damage[0].file, verified.damage.len()), (index, 1));
}

#[test]
fn a_journal_inside_a_row_is_not_taken_for_the_journal() {
    let inner = small(1 << 20);
    let inner_bytes = mulgil_disk::read_whole(&inner, &journal_files(&inner, "log")[0].0, 10_000).unwrap();
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    journal.commit(append(&at("a", 0), &["first"])).unwrap();
    journal.commit(append(&at("a", 0), &[inner_bytes])).unwrap();
    disk.crash(mulgil_disk::Crash::DropUnsynced);
    drop(journal);
    let (path, size) = journal_files(&disk, "log")[0].clone();
    let file = disk.open(&path, mulgil_disk::OpenMode::Append).unwrap();
    file.truncate(size - 10).unwrap();
    let (journal, opened) = open(&disk);
    assert!(opened.repaired.is_some());
    assert_eq!(values(&journal, &at("a", 0)), ["first"]);
}

#[test]
fn verification_tells_how_far_it_is() {
    let disk = small(200);
    let mut seen = Vec::new();
    verify(&config(), &disk as &dyn Disk, &mut |v| seen.push((v.done_bytes, v.total_bytes))).unwrap();
    assert!(seen.is_sorted() && seen.len() > 6);
    let (done, total) = *seen.last().unwrap();
    assert_eq!((done, total), (total, journal_files(&disk, "log").iter().map(|f| f.1).sum()));
    let (journal, _) = Journal::open_read_only(config(), Arc::new(disk), Hands::default().clock()).unwrap();
    assert_eq!(journal.verify(&mut |_| {}).unwrap().n_records, 12);
}
