//! Many threads commit at once.

use std::sync::Arc;

use mulgil_disk::{MemDisk, RealDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;

use crate::harness::*;

#[test]
fn commits_that_wait_share_one_sync() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let trades = at("trades", 0);
    let before = disk.n_syncs();
    disk.hold_syncs();
    let committed = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10)
            .map(|i| {
                let (journal, trades) = (&journal, &trades);
                let progress = vec![advance(&owner("source/x"), trades, i + 1)];
                let thread = scope.spawn(move || journal.commit(Commit { progress, ..append(trades, &[i.to_string()]) }).unwrap());
                // One after the other, so that the order of calls is known: the first leads and is held, the others queue behind it.
                while disk.n_syncs() == before || (journal.stats().n_waiting as u64) < i {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        assert!(journal.read(&trades, Offset(0), ReadLimit::records(1)).unwrap().is_empty(), "nothing is seen before it is durable");
        disk.release_syncs();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(disk.n_syncs() - before, 2);
    let stats = journal.stats();
    assert_eq!((stats.n_commits, stats.n_groups, stats.n_syncs), (10, 2, 2));
    let offsets: Vec<_> = committed.iter().map(|c| c.base_offsets[0].0).collect();
    assert_eq!(offsets, (0..10).collect::<Vec<_>>());
    assert_eq!(values(&journal, &trades), (0..10).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_group_refuses_the_second_of_two_equal_positions() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let (trades, before) = (at("trades", 0), disk.n_syncs());
    disk.hold_syncs();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|i| {
                let (journal, trades) = (&journal, &trades);
                let progress = if i == 0 { vec![] } else { vec![advance(&owner("s"), trades, 7)] };
                let thread = scope.spawn(move || journal.commit(Commit { progress, ..append(trades, &[i.to_string()]) }));
                // The third is refused, but not before the second is durable: so it never waits in the group.
                while disk.n_syncs() == before || journal.stats().n_waiting < i.min(1) {
                    std::thread::yield_now();
                }
                thread
            })
            .collect();
        assert!(!threads[2].is_finished());
        disk.release_syncs();
        threads.into_iter().map(|thread| thread.join().unwrap().is_ok()).collect()
    });
    assert_eq!(answers, [true, true, false]);
    assert_eq!(values(&journal, &trades), ["0", "1"]);
}

#[test]
fn threads_on_a_real_disk_keep_each_partitions_order() {
    const THREADS: u32 = 8;
    const COMMITS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let config = JournalConfig { segment_bytes: 20_000, ..JournalConfig::new(folder.path()) };
    let open = || Arc::new(Journal::open(config.clone(), Arc::new(RealDisk), Hands::default().clock()).unwrap().0);
    let journal = open();
    let threads: Vec<_> = (0..THREADS)
        .map(|t| {
            let journal = Arc::clone(&journal);
            std::thread::spawn(move || {
                let (own, shared, me) = (at("own", t), at("shared", 0), owner(&format!("source/{t}")));
                for i in 0..COMMITS {
                    let mut commit = append(&own, &[i.to_string()]);
                    commit.appends.extend(append(&shared, &[format!("{t} {i}")]).appends);
                    commit.progress = vec![advance(&me, &own, i + 1)];
                    assert_eq!(journal.commit(commit).unwrap().base_offsets[0], Offset(i));
                    assert_eq!(journal.seek(&own, Seek::Next).unwrap(), Offset(i + 1), "a commit is readable when it returns");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let check = |journal: &Journal| {
        let mut next = [0; THREADS as usize];
        for value in values(journal, &at("shared", 0)) {
            let (t, i) = value.split_once(' ').unwrap();
            let next = &mut next[t.parse::<usize>().unwrap()];
            assert_eq!(i.parse::<u64>().unwrap(), *next);
            *next += 1;
        }
        assert_eq!(next, [COMMITS; THREADS as usize]);
        for t in 0..THREADS {
            assert_eq!(values(journal, &at("own", t)), (0..COMMITS).map(|i| i.to_string()).collect::<Vec<_>>());
        }
    };
    check(&journal);
    assert_eq!(journal.stats().n_commits, u64::from(THREADS) * COMMITS);
    drop(journal);
    check(&open());
    let verified = verify(&config, &RealDisk, &mut |_| {}).unwrap();
    assert_eq!((verified.n_commits, verified.damage.len()), (u64::from(THREADS) * COMMITS, 0));
}
