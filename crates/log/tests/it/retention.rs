//! Old segments go, what is needed stays.

use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;
use mulgil_disk::{Crash, Disk, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;
use mulgil_model::position::Position;

use crate::harness::*;

const NOTHING: Offset = Offset(0);
const EVERYTHING: Offset = Offset(u64::MAX);

/// Twenty rows each in `a` and `b`, one second apart, in segments of about four commits.
fn filled(retention: Retention) -> (MemDisk, Hands, Journal) {
    let (disk, hands) = (MemDisk::new(1), Hands::default());
    let journal = reopen(retention, &disk, &hands);
    for i in 1..=20 {
        hands.set(i * 1_000_000);
        let mut commit = append(&at("a", 0), &[format!("a{i}")]);
        commit.appends.extend(append(&at("b", 0), &[format!("b{i}")]).appends);
        commit.progress = vec![advance(&owner("shard/a"), &at("a", 0), i as u64)];
        journal.commit(commit).unwrap();
    }
    (disk, hands, journal)
}

fn reopen(retention: Retention, disk: &MemDisk, hands: &Hands) -> Journal {
    let config = JournalConfig { segment_bytes: 900, retention, ..config() };
    Journal::open(config, Arc::new(disk.clone()), hands.clock()).unwrap().0
}

fn seconds(n: u64) -> Retention {
    Retention { time: Some(Duration::from_secs(n)), bytes: None }
}

#[test]
fn by_time_whole_segments_go_from_the_front() {
    let (disk, hands, journal) = filled(seconds(10));
    let n_before = journal.stats().n_segments;
    let retained = journal.retain(&|_| EVERYTHING).unwrap();
    assert!(retained.n_segments > 0 && retained.held_by.is_none());
    assert_eq!(journal.stats().n_segments, n_before - retained.n_segments);
    let first = journal.seek(&at("a", 0), Seek::First).unwrap();
    // Row i was appended at second i + 1; nothing younger than ten seconds is gone, and what is older goes with its segment.
    assert!(first > NOTHING && first.0 <= 10, "{first}");
    assert_eq!(read_from(&journal, &at("a", 0), first.0).len() as u64, 20 - first.0);
    let error = journal.read(&at("a", 0), Offset(first.0 - 1), ReadLimit::records(1)).unwrap_err();
    match &error {
        LogError::BelowRetention { first: named, .. } => assert_eq!(*named, first),
        other => panic!("{other}"),
    }
    assert_eq!(journal.retain(&|_| EVERYTHING).unwrap(), Retained::default());
    assert_eq!(journal_files(&disk, "log").len(), journal.stats().n_segments);

    // The same after a restart, and progress has survived.
    drop(journal);
    let journal = reopen(seconds(10), &disk, &hands);
    assert_eq!(journal.seek(&at("a", 0), Seek::First).unwrap(), first);
    assert_eq!(journal.progress(&owner("shard/a"), &at("a", 0)).unwrap(), Some(Position::new(20, 0)));
    assert_eq!(journal.topics()[0].first, first);
    assert_eq!(verify(&config(), &disk, &mut |_| {}).unwrap().damage, []);

    // A day later all but the segment that is written to goes; time alone never empties a partition of its offsets.
    hands.set(100_000_000_000);
    journal.retain(&|_| EVERYTHING).unwrap();
    assert_eq!(journal.stats().n_segments, 1);
    assert_eq!(journal.seek(&at("a", 0), Seek::Next).unwrap(), Offset(20));
    // The next commit begins a new segment, for the last one is old by then, and so it can go too.
    journal.commit(append(&at("a", 0), &["new"])).unwrap();
    hands.set(200_000_000_000);
    assert_eq!(journal.retain(&|_| EVERYTHING).unwrap().n_segments, 1);
    assert_eq!(journal.seek(&at("a", 0), Seek::First).unwrap(), Offset(20));
    assert_eq!(journal.seek(&at("b", 0), Seek::First).unwrap(), Offset(20));
    assert!(journal.read(&at("b", 0), Offset(20), ReadLimit::records(1)).unwrap().is_empty());
    assert_eq!(journal.topics()[1].bytes, 0);
}

#[test]
fn by_bytes_until_it_fits() {
    let (_, _, journal) = filled(Retention { time: None, bytes: Some(2_000) });
    assert!(journal.stats().journal_bytes > 2_000);
    let retained = journal.retain(&|_| EVERYTHING).unwrap();
    assert!(retained.bytes > 0 && journal.stats().journal_bytes <= 2_000);
    assert_eq!(values_from_first(&journal, "b").last().unwrap(), "b20");
}

fn values_from_first(journal: &Journal, topic: &str) -> Vec<String> {
    let first = journal.seek(&at(topic, 0), Seek::First).unwrap();
    read_from(journal, &at(topic, 0), first.0).into_iter().map(|(_, value)| value).collect()
}

#[test]
fn a_floor_protects_its_rows() {
    for floor in 0..=20 {
        let (_, _, journal) = filled(seconds(0));
        // The floor may ask the journal itself.
        let floors = |tp: &_| {
            journal.progress(&owner("shard/a"), tp).unwrap();
            if *tp == at("b", 0) { Offset(floor) } else { EVERYTHING }
        };
        let retained = journal.retain(&floors).unwrap();
        let first = journal.seek(&at("b", 0), Seek::First).unwrap();
        assert!(first.0 <= floor, "{first} {floor}");
        match retained.held_by {
            Some((held, up_to)) => assert!(held == at("b", 0) && up_to.0 > floor),
            None => assert_eq!(journal.stats().n_segments, 1),
        }
        let all: Vec<_> = (first.0 + 1..=20).map(|i| format!("b{i}")).collect();
        assert_eq!(values_from_first(&journal, "b"), all);
    }
    let (_, _, journal) = filled(Retention::default());
    assert_eq!(journal.retain(&|_| EVERYTHING).unwrap(), Retained::default());
}

#[test]
fn a_crash_while_removing_leaves_no_hole() {
    let (disk, hands, journal) = filled(seconds(5));
    journal.retain(&|_| EVERYTHING).unwrap();
    let first = journal.seek(&at("a", 0), Seek::First).unwrap();
    // One more is removed, but the machine stops before the folder is synced.
    disk.remove(&journal_files(&disk, "log")[0].0).unwrap();
    disk.crash(Crash::DropUnsynced);
    drop(journal);
    let journal = reopen(seconds(5), &disk, &hands);
    assert_eq!(journal.seek(&at("a", 0), Seek::First).unwrap(), first);
    assert_eq!(values_from_first(&journal, "a").len() as u64, 20 - first.0);
}

#[test]
fn what_retention_says_is_plain() {
    let (_, _, journal) = filled(seconds(5));
    journal.retain(&|_| EVERYTHING).unwrap();
    let error = journal.read(&at("a", 0), NOTHING, ReadLimit::records(1)).unwrap_err().to_string();
    expect!["a/0 begins at offset 12, 0 was removed by retention: read from 12, or restore from a snapshot"].assert_eq(&error);
}

#[test]
fn a_removal_that_fails_in_any_step_is_taken_up_again() {
    for nth in 0..3 {
        for half_done in [false, true] {
            let (disk, hands, journal) = filled(seconds(5));
            disk.plan(|faults| faults.at_change(nth, mulgil_disk::Fault::Fail { half_done }));
            // A failed removal may have happened; then there is nothing to tell.
            let failed = journal.retain(&|_| EVERYTHING).is_err();
            assert!(failed || (nth == 1 && half_done), "{nth} {half_done}");
            let first = journal.seek(&at("a", 0), Seek::First).unwrap();
            assert_eq!(values_from_first(&journal, "a").len() as u64, 20 - first.0, "what is in sight can be read");
            journal.retain(&|_| EVERYTHING).unwrap();
            disk.crash(Crash::DropUnsynced);
            drop(journal);
            let journal = reopen(seconds(5), &disk, &hands);
            assert_eq!(journal.seek(&at("a", 0), Seek::First).unwrap(), Offset(12));
            assert_eq!(values_from_first(&journal, "a").len(), 8);
        }
    }
}
