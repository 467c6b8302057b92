//! commit, read, progress, seek, watch; restarts; limits.

use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;
use mulgil_disk::{Crash, MemDisk, RealDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;
use mulgil_model::position::Position;
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};

use crate::harness::*;

#[test]
fn a_commit_is_read_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let hands = Hands::default();
    hands.set(1_000);
    let open = || Journal::open(JournalConfig::new(folder.path()), Arc::new(RealDisk), hands.clock()).unwrap();
    let (journal, opened) = open();
    assert_eq!((opened.n_replayed, opened.was_closed, opened.repaired), (0, true, None));

    let (trades, source) = (at("trades", 3), owner("source/simulator"));
    let mut builder = RecordsBuilder::new();
    builder.push(b"005930", &[("schema", b"1")], b"first", EventTime::from_micros(-7), ReceiveTime::from_micros(9));
    builder.push(b"AAPL", &[], b"", EventTime::from_micros(5), ReceiveTime::from_micros(9));
    let appends = vec![
        Append { to: trades.clone(), records: builder.finish() },
        Append { to: at("raw", 0), records: rows(&["x"]) },
        Append { to: trades.clone(), records: rows(&["third"]) },
        Append { to: at("empty", 0), records: Records::default() },
    ];
    let progress = vec![Advance { owner: source.clone(), partition: trades.clone(), position: Position::new(10, 2) }];
    let committed = journal.commit(Commit { appends, progress }).unwrap();
    assert_eq!(committed.base_offsets, [Offset(0), Offset(0), Offset(2), Offset(0)]);
    assert_eq!(committed.append_time.micros(), 1_000);

    let check = |journal: &Journal| {
        let chunk = journal.read(&trades, Offset(0), ReadLimit::records(10)).unwrap();
        let seen: Vec<_> = chunk
            .iter()
            .map(|r| {
                let headers: Vec<_> = r.headers().map(|(n, v)| format!("{n}={}", String::from_utf8_lossy(v))).collect();
                let (key, value) = (String::from_utf8_lossy(r.key), String::from_utf8_lossy(r.value));
                format!("{} {} {} {} {key} {headers:?} {value}\n", r.offset, r.append_time.0, r.event_time.0, r.receive_time.0)
            })
            .collect();
        expect![[r#"
            0 1000 -7 9 005930 ["schema=1"] first
            1 1000 5 9 AAPL [] 
            2 1000 1 2 key [] third
        "#]]
        .assert_eq(&seen.concat());
        assert_eq!((chunk.len(), chunk.next_offset()), (3, Offset(3)));
        assert_eq!(journal.progress(&source, &trades).unwrap(), Some(Position::new(10, 2)));
        assert_eq!(journal.progress(&source, &at("raw", 0)).unwrap(), None);
        assert_eq!(journal.progress(&owner("nobody"), &trades).unwrap(), None);
        let names: Vec<_> = journal.topics().into_iter().map(|t| format!("{} {}..{}", t.at, t.first, t.next)).collect();
        assert_eq!(names, ["raw/0 0..1", "trades/3 0..3"]);
    };
    check(&journal);
    drop(journal);
    let (journal, opened) = open();
    assert_eq!((opened.n_segments, opened.n_replayed, opened.was_closed, opened.repaired), (1, 1, true, None));
    check(&journal);
    let verified = journal.verify(&mut |_| {}).unwrap();
    assert_eq!((verified.n_commits, verified.n_records, verified.damage, verified.torn), (1, 4, vec![], None));
}

#[test]
fn a_position_that_was_committed_is_refused_with_its_rows() {
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let (trades, source) = (at("trades", 0), owner("source/x"));
    let commit = |journal: &Journal, commit, ordinal, value: &str| {
        let position = Position::new(commit, ordinal);
        let progress = vec![Advance { owner: source.clone(), partition: trades.clone(), position }];
        journal.commit(Commit { progress, ..append(&trades, &[value]) })
    };
    commit(&journal, 5, 1, "a").unwrap();
    for (c, o) in [(5, 1), (5, 0), (4, 9)] {
        match commit(&journal, c, o, "again") {
            Err(LogError::AlreadyCommitted { owner, partition, stored }) => {
                assert_eq!((owner, partition, stored), (source.clone(), trades.clone(), Position::new(5, 1)));
            }
            other => panic!("{other:?}"),
        }
    }
    commit(&journal, 5, 2, "b").unwrap();
    commit(&journal, 6, 0, "c").unwrap();
    // Twice in one commit is held to the same rule, and refuses all of it.
    let twice = vec![advance(&source, &trades, 8), advance(&source, &trades, 8)];
    assert!(matches!(
        journal.commit(Commit { progress: twice, ..append(&at("other", 0), &["no"]) }),
        Err(LogError::AlreadyCommitted { .. })
    ));
    drop(journal);
    let (journal, _) = open(&disk);
    assert!(commit(&journal, 6, 0, "again").is_err());
    assert_eq!(values(&journal, &trades), ["a", "b", "c"]);
    assert_eq!(journal.topics().len(), 1);
    assert_eq!(journal.stats().n_refused, 1);
}

#[test]
fn reads_keep_their_limits() {
    let (journal, _) = open(&MemDisk::new(1));
    let trades = at("trades", 0);
    for n in [1, 500, 3, 2_000, 1] {
        journal.commit(append(&trades, &vec![[b'v'; 100]; n])).unwrap();
        journal.commit(append(&at("other", 0), &["between"])).unwrap();
    }
    let n_all = 2_505;
    for (bytes, records) in [(0, 1), (0, 9), (1 << 20, 1), (1 << 20, 7), (1_000, 100_000), (150_000, 1_000), (1 << 30, 1 << 30)] {
        let mut next = Offset(0);
        while next.0 < n_all {
            let chunk = journal.read(&trades, next, ReadLimit { bytes, records }).unwrap();
            let offsets: Vec<_> = chunk.iter().map(|r| r.offset.0).collect();
            assert_eq!(offsets, (next.0..chunk.next_offset().0).collect::<Vec<_>>());
            assert_eq!((chunk.len(), chunk.is_empty()), (offsets.len(), false));
            assert!(chunk.len() <= records && (chunk.size_bytes() <= bytes || chunk.len() == 1));
            let is_full = chunk.len() == records || chunk.size_bytes() + 110 > bytes;
            assert!(is_full || chunk.next_offset().0 == n_all, "{bytes} {records} {}", chunk.len());
            next = chunk.next_offset();
        }
    }
    assert!(journal.read(&trades, Offset(n_all), ReadLimit::records(1)).unwrap().is_empty());
    assert!(journal.read(&trades, Offset(0), ReadLimit::records(0)).unwrap().is_empty());
    assert!(journal.read(&at("nothing", 0), Offset(0), ReadLimit::records(1)).unwrap().is_empty());
    let ahead = journal.read(&trades, Offset(n_all + 1), ReadLimit::records(1)).unwrap_err().to_string();
    expect!["trades/0 ends before offset 2505, but 2506 was asked for: was the data folder replaced?"].assert_eq(&ahead);
}

#[test]
fn seeks_by_time_across_segments() {
    let (disk, hands) = (MemDisk::new(1), Hands::default());
    let config = JournalConfig { segment_bytes: 200, ..config() };
    let open = || Journal::open(config.clone(), Arc::new(disk.clone()), hands.clock()).unwrap().0;
    let (mut journal, trades, late) = (open(), at("trades", 0), at("late", 0));
    // The clock stands still and goes back, append times do not.
    let times = [10, 20, 20, 15, 30, 40, 40, 50];
    for us in times {
        hands.set(us);
        journal.commit(append(&trades, &["a", "b"])).unwrap();
    }
    journal.commit(append(&late, &["z"])).unwrap();
    for _ in 0..2 {
        assert!(journal.stats().n_segments > 2);
        let seek = |at, us| journal.seek(at, Seek::AppendedAt(AppendTime::from_micros(us))).unwrap().0;
        let cases = [(i64::MIN, 0), (10, 0), (11, 2), (20, 2), (21, 8), (30, 8), (31, 10), (40, 10), (41, 14), (50, 14), (51, 16)];
        for (us, want) in cases {
            assert_eq!(seek(&trades, us), want, "{us}");
        }
        assert_eq!((seek(&late, 0), seek(&late, 50), seek(&late, 51), seek(&at("none", 0), 0)), (0, 0, 1, 0));
        assert_eq!(journal.seek(&trades, Seek::First).unwrap(), Offset(0));
        assert_eq!(journal.seek(&trades, Seek::Next).unwrap(), Offset(16));
        assert_eq!(journal.seek(&at("none", 0), Seek::Next).unwrap(), Offset(0));
        drop(journal);
        journal = open();
    }
    let chunk = journal.read(&trades, Offset(0), ReadLimit::records(100)).unwrap();
    let append_times: Vec<_> = chunk.iter().map(|r| r.append_time.micros()).step_by(2).collect();
    assert_eq!(append_times, [10, 20, 20, 20, 30, 40, 40, 50]);
}

#[test]
fn many_small_segments_read_like_one() {
    let disk = MemDisk::new(1);
    // Room for the index of a single segment, so that most are loaded again and again.
    let config = JournalConfig { segment_bytes: 600, index_cache_bytes: 1, ..config() };
    let (mut journal, _) = open_with(config.clone(), &disk);
    let topics: Vec<_> = (0..3).map(|p| at("t", p)).collect();
    for i in 0..100 {
        journal.commit(append(&topics[i % 3], &[format!("{i}"), format!("{i}+")])).unwrap();
    }
    for _ in 0..2 {
        assert!(journal.stats().n_segments > 10);
        for (p, topic) in topics.iter().enumerate() {
            let want: Vec<_> = (0..100).filter(|i| i % 3 == p).flat_map(|i| [format!("{i}"), format!("{i}+")]).collect();
            assert_eq!(values(&journal, topic), want);
            assert_eq!(read_from(&journal, topic, 41)[0], (41, want[41].clone()));
        }
        let bytes: u64 = journal.topics().iter().map(|t| t.bytes).sum();
        assert!(bytes > 100 * 40 && bytes < journal.stats().journal_bytes);
        // Indexes are a convenience: without them, or with wrong ones, all is the same.
        drop(journal);
        for (i, (path, _)) in journal_files(&disk, "idx").into_iter().enumerate() {
            if i % 2 == 0 { mulgil_disk::Disk::remove(&disk, &path).unwrap() } else { disk.flip_bit(&path, 50, 1).unwrap() }
        }
        journal = open_with(config.clone(), &disk).0;
    }
}

#[test]
fn what_is_done_first_is_done_when_a_commit_is_durable_and_before_readers_are_woken() {
    let (journal, _) = open(&MemDisk::new(1));
    let (mut watch, mut n_found) = (journal.watch(), None);
    let ticket = journal.begin(append(&at("trades", 0), &["a"])).unwrap();
    let first = |committed: &Committed| {
        let chunk = journal.read(&at("trades", 0), committed.base_offsets[0], ReadLimit::records(10)).unwrap();
        n_found = Some((chunk.len(), watch.wait(Duration::ZERO)));
    };
    ticket.wait_and(first).unwrap();
    assert_eq!(n_found, Some((1, false)));
    assert!(watch.wait(Duration::ZERO));

    // Of one that has failed nothing is done.
    let disk = MemDisk::new(1);
    let (journal, _) = open(&disk);
    let ticket = journal.begin(append(&at("trades", 0), &["a"])).unwrap();
    disk.stop(Crash::DropUnsynced);
    assert!(ticket.wait_and(|_| panic!("it is not durable")).is_err());
}

#[test]
fn a_watch_wakes_with_every_commit() {
    let (journal, _) = open(&MemDisk::new(1));
    let mut watch = journal.watch();
    assert!(!watch.wait(Duration::ZERO));
    journal.commit(append(&at("trades", 0), &["a"])).unwrap();
    assert!(watch.wait(Duration::ZERO));
    assert!(!watch.wait(Duration::ZERO));

    // A reader at the end, without polling: it sees all rows although it never asks twice for the same.
    let journal = Arc::new(journal);
    let reader = std::thread::spawn({
        let journal = Arc::clone(&journal);
        move || {
            let (mut next, mut watch) = (Offset(0), journal.watch());
            while next.0 < 101 {
                let chunk = journal.read(&at("trades", 0), next, ReadLimit::records(10)).unwrap();
                if chunk.is_empty() {
                    assert!(watch.wait(Duration::from_secs(60)));
                }
                next = chunk.next_offset();
            }
        }
    });
    for _ in 0..100 {
        journal.commit(append(&at("trades", 0), &["b"])).unwrap();
    }
    reader.join().unwrap();
}

#[test]
fn what_is_too_large_is_refused_by_name() {
    let disk = MemDisk::new(1);
    let config = JournalConfig { max_record_bytes: 1_000, max_commit_bytes: 10_000, ..config() };
    let (journal, _) = open_with(config.clone(), &disk);
    let error = |values: &[Vec<u8>]| journal.commit(append(&at("t", 0), values)).unwrap_err().to_string();
    expect!["a record for t/0 has 1010 bytes, more than the 1000 of [log] max_record_bytes"].assert_eq(&error(&[vec![0; 1_001]]));
    expect!["a commit has 18245 bytes, more than the 10000 of [log] max_commit_bytes: commit fewer rows at once"]
        .assert_eq(&error(&vec![vec![0; 900]; 20]));
    journal.commit(append(&at("t", 0), &vec![[0; 900]; 10])).unwrap();
    assert_eq!(journal.stats().n_refused, 2);

    for (bad, what) in [
        (JournalConfig { segment_bytes: u64::MAX, ..config.clone() }, "segment_bytes"),
        (JournalConfig { max_commit_bytes: usize::MAX, ..config.clone() }, "max_commit_bytes"),
        (JournalConfig { max_record_bytes: 20_000, ..config }, "max_record_bytes"),
    ] {
        let error = Journal::open(bad, Arc::new(MemDisk::new(1)), Hands::default().clock()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn one_process_writes_and_others_may_look() {
    let disk = MemDisk::new(1);
    let read_only = || Journal::open_read_only(config(), Arc::new(disk.clone()), Hands::default().clock());
    assert!(read_only().is_err());
    let (journal, _) = open(&disk);
    let trades = at("trades", 0);
    journal.commit(append(&trades, &["a"])).unwrap();
    assert!(try_open(&disk).unwrap_err().to_string().contains("is in use by"));

    let (looker, _) = read_only().unwrap();
    assert_eq!(values(&looker, &trades), ["a"]);
    assert!(matches!(looker.commit(append(&trades, &["b"])), Err(LogError::ReadOnly)));
    assert!(matches!(looker.retain(&|_| Offset(0)), Err(LogError::ReadOnly)));
    drop(looker);
    journal.commit(append(&trades, &["b"])).unwrap();
    drop(journal);
    assert_eq!(values(&open(&disk).0, &trades), ["a", "b"]);
}

#[test]
fn a_million_rows_one_by_one_need_little_memory_for_their_index() {
    // A tenth of it here; the index of the last segment is what grows, 24 bytes a commit.
    let config = JournalConfig { segment_bytes: 1 << 20, index_cache_bytes: 1 << 20, ..config() };
    let (journal, _) = open_with(config, &MemDisk::new(1));
    let trades = at("trades", 0);
    let one = append(&trades, &[[7; 41]]);
    for _ in 0..100_000 {
        journal.commit(one.clone()).unwrap();
    }
    assert_eq!(journal.seek(&trades, Seek::Next).unwrap(), Offset(100_000));
    let chunk = journal.read(&trades, Offset(50_000), ReadLimit::records(20_000)).unwrap();
    assert_eq!((chunk.len(), chunk.iter().last().unwrap().offset), (20_000, Offset(69_999)));
}

#[test]
fn the_system_is_left_to_keep_the_newest_bytes_only() {
    const MB: u64 = 1 << 20;
    let disk = MemDisk::new(1);
    let config = JournalConfig { segment_bytes: 10 * MB, file_cache_bytes: 8 * MB, ..config() };
    let (journal, _) = open_with(config, &disk);
    let trades = at("trades", 0);
    let large = append(&trades, &[vec![7; MB as usize]]);
    for _ in 0..50 {
        journal.commit(large.clone()).unwrap();
        let kept = journal.stats().file_cache_bytes;
        assert!(kept <= 8 * MB + 10 * MB, "{kept} bytes are kept");
    }
    let mut given_up: Vec<(std::path::PathBuf, std::ops::Range<u64>)> = Vec::new();
    for (path, bytes) in disk.forgotten() {
        match given_up.last_mut() {
            Some((last, before)) if *last == path => {
                assert_eq!(before.end, bytes.start, "{}", path.display());
                before.end = bytes.end;
            }
            _ => given_up.push((path, bytes)),
        }
    }
    assert!(given_up.is_sorted_by(|(a, _), (b, _)| a < b), "the oldest first, each segment once");
    let n_given_up: u64 = given_up.iter().map(|(_, bytes)| bytes.end - bytes.start).sum();
    let stats = journal.stats();
    assert_eq!(n_given_up + stats.file_cache_bytes, stats.written_bytes);
    assert_eq!(journal.read(&trades, Offset(0), ReadLimit::records(1)).unwrap().len(), 1);
}
