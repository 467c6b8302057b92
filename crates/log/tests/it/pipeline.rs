//! Several commits of one caller in flight.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mulgil_disk::{Crash, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;
use mulgil_model::position::Position;

use crate::harness::*;

fn begin(journal: &Journal, n: u64) -> LogResult<Ticket> {
    let (trades, source) = (at("trades", 0), owner("source/x"));
    journal.begin(Commit { progress: vec![advance(&source, &trades, n)], ..append(&trades, &[n.to_string()]) })
}

fn n_readable(journal: &Journal) -> u64 {
    assert_eq!(journal.read(&at("trades", 0), Offset(0), ReadLimit::records(1_000)).unwrap().len() as u64, journal.stats().n_records);
    journal.seek(&at("trades", 0), Seek::Next).unwrap().0
}

#[test]
fn begun_commits_are_in_order_and_unseen_until_they_are_durable() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let before = disk.n_syncs();
    let tickets: Vec<_> = (1..=5).map(|n| begin(&journal, n).unwrap()).collect();
    let offsets: Vec<_> = tickets.iter().map(|ticket| ticket.committed().base_offsets[0].0).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    assert!(tickets.iter().all(|ticket| !ticket.is_settled()));
    assert_eq!((n_readable(&journal), disk.n_syncs()), (0, before));
    assert_eq!(journal.progress(&owner("source/x"), &at("trades", 0)).unwrap(), None);
    assert_eq!((journal.stats().n_waiting, journal.stats().n_in_flight), (5, 5));

    // The position that is in flight counts, and refusing it waits until that is certain.
    assert!(matches!(begin(&journal, 5), Err(LogError::AlreadyCommitted { stored: Position { commit: 5, .. }, .. })));
    assert!(tickets.iter().all(Ticket::is_settled));
    assert_eq!((n_readable(&journal), disk.n_syncs()), (5, before + 1));
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.wait().unwrap().base_offsets, [Offset(i as u64)]);
    }
    assert_eq!(values(&journal, &at("trades", 0)), ["1", "2", "3", "4", "5"]);
}

#[test]
fn waiting_for_the_last_settles_those_before_it() {
    let (journal, _) = open(&MemDisk::new(1));
    let (first, last) = (begin(&journal, 1).unwrap(), begin(&journal, 2).unwrap());
    last.wait().unwrap();
    assert!(first.is_settled());
    assert_eq!((n_readable(&journal), journal.stats().n_syncs), (2, 1));
}

#[test]
fn a_dropped_ticket_is_still_a_commit() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    drop(begin(&journal, 1).unwrap());
    journal.flush().unwrap();
    assert_eq!(n_readable(&journal), 1);
    drop(begin(&journal, 2).unwrap());
    let kept = begin(&journal, 3).unwrap();
    drop(journal);
    assert_eq!(kept.wait().unwrap().base_offsets, [Offset(2)], "closing settles what is in flight");
    let (journal, opened) = open(&disk);
    assert!(opened.was_closed);
    assert_eq!(values(&journal, &at("trades", 0)), ["1", "2", "3"]);
}

#[test]
fn an_undriven_commit_is_gone_after_a_crash() {
    for how in [Crash::DropUnsynced, Crash::TearUnsynced, Crash::KeepUnsynced] {
        let disk = MemDisk::new(1);
        let (journal, _) = open(&disk);
        begin(&journal, 1).unwrap().wait().unwrap();
        let ticket = begin(&journal, 2).unwrap();
        disk.crash(how);
        assert!(matches!(ticket.wait(), Err(LogError::Poisoned { .. })));
        drop(journal);
        let (journal, _) = open(&disk);
        assert_eq!(values(&journal, &at("trades", 0)), ["1"]);
        begin(&journal, 2).unwrap().wait().unwrap();
    }
}

#[test]
fn nothing_overtakes_a_group_that_failed() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    begin(&journal, 1).unwrap().wait().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let (second, third) = (begin(&journal, 2).unwrap(), begin(&journal, 3).unwrap());
    assert!(second.wait().unwrap_err().is_retriable());
    disk.set_capacity(None);
    // There is room again, but the third is not known to have failed: the fourth would leave a hole.
    assert!(third.is_settled());
    assert!(begin(&journal, 4).unwrap_err().is_retriable());
    assert!(third.wait().unwrap_err().is_retriable());
    let tickets: Vec<_> = (2..=4).map(|n| begin(&journal, n).unwrap()).collect();
    tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
    assert_eq!(values(&journal, &at("trades", 0)), ["1", "2", "3", "4"]);
    assert_eq!(journal.stats().n_refused, 3);
}

#[test]
fn a_failed_group_fails_those_that_gathered_behind_it() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let before = disk.n_syncs();
    disk.hold_syncs();
    std::thread::scope(|scope| {
        let first = begin(&journal, 1).unwrap();
        let leader = scope.spawn(|| first.wait());
        while disk.n_syncs() == before {
            std::thread::yield_now();
        }
        let second = begin(&journal, 2).unwrap();
        assert_eq!((journal.stats().n_waiting, journal.stats().n_in_flight), (1, 2));
        disk.fail_syncs(1);
        disk.release_syncs();
        assert!(matches!(second.wait(), Err(LogError::Poisoned { .. })));
        assert!(matches!(leader.join().unwrap(), Err(LogError::Poisoned { .. })));
    });
    assert!(matches!(begin(&journal, 3), Err(LogError::Poisoned { .. })));
    drop(journal);
    disk.crash(Crash::DropUnsynced);
    assert!(values(&open(&disk).0, &at("trades", 0)).is_empty());
}

#[test]
fn a_full_group_makes_the_next_commit_wait() {
    let disk = MemDisk::new(1);
    let config = JournalConfig { group_bytes: 10_000, group_commits: 8, ..config() };
    let (journal, _) = open_with(config.clone(), &disk);
    let before = disk.n_syncs();
    let mut tickets = Vec::new();
    for n in 1..=20 {
        tickets.push(begin(&journal, n).unwrap());
        assert!(journal.stats().n_waiting <= 8);
    }
    // Nobody waited, so whoever found the group full wrote it.
    assert_eq!((disk.n_syncs() - before, n_readable(&journal)), (2, 16));
    for _ in 0..20 {
        tickets.push(journal.begin(append(&at("large", 0), &[[b'x'; 3_000]])).unwrap());
        assert!(journal.stats().group_bytes <= config.group_bytes);
    }
    tickets.push(journal.begin(append(&at("large", 0), &[[b'x'; 30_000]])).unwrap());
    tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
    assert_eq!(journal.seek(&at("large", 0), Seek::Next).unwrap(), Offset(21));
}

#[test]
fn a_thread_that_drives_makes_begun_commits_durable() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    assert!(!journal.drive(Duration::ZERO));
    let ticket = begin(&journal, 1).unwrap();
    assert!(journal.drive(Duration::ZERO) && ticket.is_settled());
    std::thread::scope(|scope| {
        let driver = scope.spawn(|| {
            while journal.seek(&at("trades", 0), Seek::Next).unwrap().0 < 101 {
                journal.drive(Duration::from_secs(60));
            }
        });
        let tickets: Vec<_> = (2..=101).map(|n| begin(&journal, n).unwrap()).collect();
        driver.join().unwrap();
        assert!(tickets.iter().all(Ticket::is_settled));
    });
    assert_eq!(values(&journal, &at("trades", 0)).len(), 101);
}

#[test]
fn a_segment_ends_between_groups_in_flight() {
    let disk = MemDisk::new(1);
    let config = JournalConfig { segment_bytes: 300, group_commits: 2, ..config() };
    let (journal, _) = open_with(config.clone(), &disk);
    let tickets: Vec<_> = (1..=40).map(|n| begin(&journal, n).unwrap()).collect();
    tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
    assert!(journal.stats().n_segments > 5);
    drop(journal);
    let verified = verify(&config, &disk, &mut |_| {}).unwrap();
    assert_eq!((verified.n_commits, verified.damage, verified.torn), (40, vec![], None));
    let (journal, _) = open_with(config, &disk);
    assert_eq!(values(&journal, &at("trades", 0)), (1..=40).map(|n: i32| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_commit_of_nothing_answers_when_what_it_rests_on_is_durable() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let nothing = || Commit { appends: vec![Append { to: at("trades", 0), records: Records::default() }], progress: vec![] };
    assert!(journal.begin(nothing()).unwrap().is_settled());
    let row = begin(&journal, 1).unwrap();
    let empty = journal.begin(nothing()).unwrap();
    assert_eq!((empty.committed().base_offsets[0], empty.is_settled()), (Offset(1), false));
    row.wait().unwrap();
    assert!(empty.is_settled());
}

/// Who led the last group may have other things to do than to wait for the next one: even wait for the one who waits for room.
#[test]
fn whoever_waits_for_room_leads_when_nobody_else_does() {
    let disk = MemDisk::new(1);
    let (journal, _) = open_with(JournalConfig { group_commits: 1, ..config() }, &disk);
    let (journal, before) = (Arc::new(journal), disk.n_syncs());
    disk.hold_syncs();
    let first = begin(&journal, 1).unwrap();
    let leader = std::thread::spawn(move || first.wait());
    while disk.n_syncs() == before {
        std::thread::yield_now();
    }
    let second = begin(&journal, 2).unwrap();
    let (sender, third) = mpsc::channel();
    let (shared, (tell_id, id)) = (Arc::clone(&journal), mpsc::channel());
    std::thread::spawn(move || {
        tell_id.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        sender.send(begin(&shared, 3).unwrap()).unwrap();
    });
    // Its group is full, and another one in flight.
    let status = Path::new("/proc").join(id.recv().unwrap()).join("stat");
    let is_asleep = || std::fs::read_to_string(&status).unwrap().rsplit(')').next().unwrap().trim_start().starts_with('S');
    while !is_asleep() {
        std::thread::yield_now();
    }
    disk.release_syncs();
    assert_eq!(leader.join().unwrap().unwrap().base_offsets, [Offset(0)]);
    let third = third.recv_timeout(Duration::from_secs(20)).expect("room is made by whoever waits for it");
    assert!(second.is_settled() && !third.is_settled());
    assert_eq!(third.wait().unwrap().base_offsets, [Offset(2)]);
}
