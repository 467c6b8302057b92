//! What is left of a damaged journal, in a new folder.

use std::path::Path;
use std::sync::Arc;

use mulgil_disk::{Disk, Fault, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;
use mulgil_model::position::Position;

use crate::harness::*;

/// Commits 0 to 11 with two rows each, by turns to `a` and `b`; a source's position with each, and a shard that has read `a` so far.
fn journal(segment_bytes: u64) -> MemDisk {
    let disk = MemDisk::new(1);
    let hands = Hands::default();
    let config = JournalConfig { segment_bytes, ..config() };
    let (journal, _) = Journal::open(config, Arc::new(disk.clone()), hands.clock()).unwrap();
    for i in 0..12u64 {
        hands.set(1_000 * i as i64);
        let to = at(["a", "b"][i as usize % 2], 0);
        let mut commit = append(&to, &[format!("{i:04}"), format!("{i:04}+")]);
        commit.progress.push(advance(&owner("source/x"), &to, 100 + i));
        if i % 2 == 1 {
            commit.progress.push(advance(&owner("shard/y"), &at("a", 0), i + 1));
        }
        journal.commit(commit).unwrap();
    }
    disk
}

fn salvage(disk: &MemDisk) -> (Salvaged, Journal) {
    let from = config();
    let to = JournalConfig::new("/new");
    let salvage =
        Salvage { from: &from, to: to.clone(), disk: Arc::new(disk.clone()), is_offset: |owner| owner.as_str().starts_with("shard/") };
    let mut steps = Vec::new();
    let salvaged = salvage.run(&mut |step| steps.push((step.done_bytes, step.total_bytes))).unwrap();
    assert_eq!(steps.last().map(|(done, total)| done == total), Some(true));
    let verified = verify(&to, disk, &mut |_| {}).unwrap();
    assert_eq!((verified.damage, verified.torn), (vec![], None));
    (salvaged, Journal::open(to, Arc::new(disk.clone()), Hands::default().clock()).unwrap().0)
}

/// All files of the old folder.
fn old_bytes(disk: &MemDisk) -> Vec<Vec<u8>> {
    let paths = ["log", "idx"].iter().flat_map(|ending| journal_files(disk, ending));
    paths.map(|(path, size)| mulgil_disk::read_whole(disk, &path, size).unwrap()).collect()
}

fn times(journal: &Journal, topic: &str) -> Vec<i64> {
    let chunk = journal.read(&at(topic, 0), Offset(0), ReadLimit::records(100)).unwrap();
    chunk.iter().map(|row| row.append_time.micros()).collect()
}

#[test]
fn an_undamaged_journal_is_copied_as_it_is() {
    for segment_bytes in [1 << 20, 200] {
        let disk = journal(segment_bytes);
        let whole = Journal::open_read_only(config(), Arc::new(disk.clone()), Hands::default().clock()).unwrap().0;
        let (salvaged, copy) = salvage(&disk);
        assert_eq!((salvaged.n_commits, salvaged.n_records, &salvaged.lost, &salvaged.damage), (12, 24, &vec![], &vec![]));
        for topic in ["a", "b"] {
            assert_eq!(values(&copy, &at(topic, 0)), values(&whole, &at(topic, 0)));
            assert_eq!(times(&copy, topic), times(&whole, topic));
            for name in ["source/x", "shard/y"] {
                let progress = |journal: &Journal| journal.progress(&owner(name), &at(topic, 0)).unwrap();
                assert_eq!(progress(&copy), progress(&whole));
            }
        }
    }
}

#[test]
fn a_flip_at_every_byte_loses_at_most_its_frame_and_names_it() {
    let all = |topic: usize| (0..12).filter(move |i| i % 2 == topic).flat_map(|i| [format!("{i:04}"), format!("{i:04}+")]);
    for segment_bytes in [1 << 20, 200] {
        let whole = journal(segment_bytes);
        for (path, size) in journal_files(&whole, "log") {
            // Every third byte: each field of each frame is hit.
            for byte in (0..size).step_by(3) {
                let disk = whole.copy();
                disk.flip_bit(&path, byte, (byte % 8) as u8).unwrap();
                let before = old_bytes(&disk);
                let (salvaged, copy) = salvage(&disk);
                assert!(old_bytes(&disk) == before, "the old folder is not touched");
                assert_eq!(salvaged.damage.len(), 1, "byte {byte}: {:?}", salvaged.damage);
                assert_eq!(&salvaged.damage[0].file, &path);
                assert!(salvaged.damage[0].byte <= byte);
                let n_lost: u64 = salvaged.lost.iter().map(|lost| lost.to.0 - lost.from.0).sum();
                assert!(n_lost <= 2, "{:?}", salvaged.lost);
                for (i, topic) in ["a", "b"].into_iter().enumerate() {
                    let is_lost = |n: u64| salvaged.lost.iter().any(|l| l.at == at(topic, 0) && (l.from.0..l.to.0).contains(&n));
                    let want: Vec<_> = all(i).zip(0..).filter(|(_, n)| !is_lost(*n)).map(|(value, _)| value).collect();
                    let seen = values(&copy, &at(topic, 0));
                    // Only of the last commit nothing behind it tells how many rows it had.
                    let is_end = seen.len() + 2 == want.len() && topic == "b" && path == journal_files(&whole, "log").last().unwrap().0;
                    assert!(seen == want || (is_end && seen == want[..10]), "byte {byte}: {seen:?}, {:?}", salvaged.lost);
                }
                let n_read = copy.progress(&owner("shard/y"), &at("a", 0)).unwrap().unwrap();
                let next = copy.seek(&at("a", 0), Seek::Next).unwrap();
                assert!(n_read.commit <= next.0 && next.0 - n_read.commit <= 2, "a position moves with its rows");
            }
        }
    }
}

#[test]
fn what_a_lost_segment_held_is_named() {
    let disk = journal(200);
    let files = journal_files(&disk, "log");
    let index = journal_files(&disk, "idx");
    let gone = files[2].0.clone();
    disk.remove(&gone).unwrap();
    disk.remove(&index[2].0).unwrap();
    let (salvaged, copy) = salvage(&disk);
    assert_eq!((salvaged.damage[0].file.as_path(), salvaged.damage[0].reason.as_str()), (gone.as_path(), "the segment is missing"));
    let n_lost: u64 = salvaged.moved().iter().map(|(_, n)| n).sum();
    assert!(n_lost > 0);
    assert_eq!(salvaged.n_records + n_lost, 24);
    assert_eq!(copy.progress(&owner("source/x"), &at("b", 0)).unwrap(), Some(Position::new(111, 0)));
    let shard = copy.progress(&owner("shard/y"), &at("a", 0)).unwrap().unwrap().commit;
    assert_eq!(shard, copy.seek(&at("a", 0), Seek::Next).unwrap().0, "the shard had read everything, and still has");
    // It is a journal like any other.
    copy.commit(append(&at("a", 0), &["goes on"])).unwrap();
}

#[test]
fn what_the_disk_cannot_read_is_read_around() {
    // One failed read is tried again in pieces; where a piece fails too, there is damage, and it is named.
    let whole = journal(1 << 20);
    let from = config();
    let (mut n_whole, mut n_damaged) = (0, 0);
    for nth in 0..12 {
        for n_faults in 1..=2 {
            let disk = whole.copy();
            disk.plan(|faults| (nth..nth + n_faults).for_each(|nth| faults.at_read(nth, Fault::Fail { half_done: false })));
            let salvage = Salvage { from: &from, to: JournalConfig::new("/new"), disk: Arc::new(disk), is_offset: |_| false };
            match salvage.run(&mut |_| {}) {
                Ok(salvaged) if salvaged.damage.is_empty() => n_whole += usize::from(salvaged.n_records == 24),
                Ok(salvaged) => n_damaged += usize::from(n_faults == 2 && salvaged.n_records < 24),
                Err(error) => assert!(error.to_string().contains("/new/"), "only the new folder must be readable: {error}"),
            }
        }
    }
    assert!(n_whole > 12 && n_damaged > 0, "{n_whole} {n_damaged}");
}

#[test]
fn only_an_empty_folder_is_salvaged_to() {
    let disk = journal(1 << 20);
    let run = |from: &JournalConfig, to: &str| {
        let salvage = Salvage { from, to: JournalConfig::new(to), disk: Arc::new(disk.clone()), is_offset: |_| false };
        salvage.run(&mut |_| {})
    };
    assert!(run(&config(), "/data").unwrap_err().to_string().contains("salvage to an empty folder"));
    run(&config(), "/new").unwrap();
    assert!(run(&config(), "/new").unwrap_err().to_string().contains("/new holds a journal already"));
    disk.create_dir_all(Path::new("/nothing/journal")).unwrap();
    assert!(run(&JournalConfig::new("/nothing"), "/other").unwrap_err().to_string().contains("there is no journal in /nothing"));
}
