//! Flushing, compaction, retention and verification.

use crate::support::*;
use mulgil_disk::{Disk, MemDisk};
use mulgil_history::{ErrorKind, HistoryConfig, Retention};
use mulgil_model::ids::{Offset, Partition};
use mulgil_model::time::AppendTime;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DAY_US: i64 = 86_400_000_000;

fn start() -> i64 {
    us("2019-07-05T00:00:00Z")
}

fn three_days(n: i64) -> Vec<Trade> {
    (0..n).map(|i| trade(["B", "A"][(i % 2) as usize], start() + (i % 3) * DAY_US + i, ONE + i as i128, ONE, None)).collect()
}

#[test]
fn a_tail_is_due_by_rows_bytes_and_age() {
    let check = |config: HistoryConfig, now: i64, want: u64| {
        let history = open(&MemDisk::new(1), config).unwrap();
        history.append(&trade_rows(0, 0, &three_days(30))).unwrap();
        assert_eq!(history.flush_due(AppendTime(now)).unwrap().rows, want);
        assert_eq!(history.durable(&topic("trades"), Partition(0)), Offset(want));
        assert_eq!(history.next(&topic("trades"), Partition(0)), Offset(30));
    };
    let appended = 1_600_000_000_000_000;
    let default = HistoryConfig::default;
    check(default(), appended + 59_999_999, 0);
    check(default(), appended + 60_000_000, 30);
    check(default(), i64::MIN, 0);
    check(HistoryConfig { flush_rows: 30, ..default() }, appended, 30);
    check(HistoryConfig { flush_bytes: 1000, ..default() }, appended, 30);
    check(HistoryConfig { tail_bytes_max: 1000, ..default() }, appended, 30);
}

#[test]
fn of_crowded_tails_the_largest_are_written() {
    let config = HistoryConfig { tail_bytes_max: 60_000, ..HistoryConfig::default() };
    let history = open(&MemDisk::new(1), config).unwrap();
    let bar = TestBar { symbol: "A", start: start(), end: start() + 60_000_000, close: ONE, revision: 0 };
    history.append(&bar_rows("trades.bars.1m", 0, 0, &[bar])).unwrap();
    history.append(&trade_rows(0, 0, &three_days(50))).unwrap();
    let now = AppendTime(1_600_000_000_000_000);
    assert_eq!(history.flush_due(now).unwrap().rows, 0, "there is room");
    history.append(&trade_rows(0, 50, &three_days(400))).unwrap();
    let flushed = history.flush_due(now).unwrap();
    assert_eq!((flushed.n_streams, flushed.rows), (1, 450), "the bar's file would hold one row");
    assert_eq!(history.durable(&topic("trades.bars.1m"), Partition(0)), Offset(0));
}

#[test]
fn a_full_tail_says_so_and_a_flush_makes_room() {
    let history = open(&MemDisk::new(1), HistoryConfig { tail_bytes_max: 3000, ..HistoryConfig::default() }).unwrap();
    history.append(&trade_rows(0, 0, &three_days(20))).unwrap();
    let error = history.append(&trade_rows(0, 20, &three_days(20))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(history.next(&topic("trades"), Partition(0)), Offset(20));
    history.flush().unwrap();
    history.append(&trade_rows(0, 20, &three_days(20))).unwrap();
}

#[test]
fn appends_and_queries_go_on_while_a_flush_waits_for_the_disk() {
    let disk = MemDisk::new(1);
    let history = open(&disk, HistoryConfig::default()).unwrap();
    history.append(&trade_rows(0, 0, &three_days(30))).unwrap();
    disk.hold_syncs();
    let before = disk.n_syncs();
    let flushing = {
        let history = Arc::clone(&history);
        std::thread::spawn(move || history.flush().unwrap())
    };
    while disk.n_syncs() == before {
        std::thread::yield_now();
    }
    history.append(&trade_rows(0, 30, &three_days(5))).unwrap();
    let count = || runtime().block_on(ask(&history, "SELECT count(*) AS n, count(DISTINCT _offset) AS d FROM trades"));
    assert!(count().contains("| 35 | 35 |"), "{}", count());
    disk.release_syncs();
    assert_eq!(flushing.join().unwrap().rows, 30);
    assert!(count().contains("| 35 | 35 |"), "{}", count());
    assert_eq!(history.stats().iter().find(|s| s.stream == topic("trades")).map(|s| (s.file_rows, s.tail_rows)), Some((30, 5)));
}

#[test]
fn compaction_merges_days_and_running_queries_keep_their_files() {
    let disk = MemDisk::new(1);
    let history = open(&disk, HistoryConfig::default()).unwrap();
    for i in 0..9u64 {
        history.append(&trade_rows(0, i * 30, &three_days(30))).unwrap();
        history.flush().unwrap();
    }
    let files = || disk.list(Path::new("/history/trades/2019-07-05")).unwrap().len();
    assert_eq!(files(), 9);
    runtime().block_on(async {
        let sql = "SELECT symbol, event_time, _offset FROM trades ORDER BY _offset";
        let rows = history.query(sql, None).await.unwrap();
        let report = history.compact().unwrap();
        assert_eq!((report.n_files_before, report.n_files_after), (27, 3));
        let before = rows.collect().await.unwrap();
        assert_eq!(before.iter().map(|b| b.num_rows()).sum::<usize>(), 270);
        assert_eq!(files(), 1, "the last reader removed the others");
        assert_eq!(history.query(sql, None).await.unwrap().collect().await.unwrap(), before);
    });
    assert_eq!(history.compact().unwrap().n_files_before, 0);
    assert_eq!(history.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn retention_drops_whole_days_and_never_the_tail() {
    let disk = MemDisk::new(1);
    let retention = Retention { default: Some(Duration::from_secs(86_400)), ..Retention::default() };
    let history = open(&disk, HistoryConfig { retention, ..HistoryConfig::default() }).unwrap();
    history.append(&trade_rows(0, 0, &three_days(30))).unwrap();
    history.flush().unwrap();
    history.append(&trade_rows(0, 30, &three_days(3))).unwrap();
    assert_eq!(history.retain(AppendTime(start() + 2 * DAY_US - 1)).unwrap().n_days, 0);
    let report = history.retain(AppendTime(start() + 2 * DAY_US)).unwrap();
    assert_eq!((report.n_days, report.rows), (1, 10));
    assert!(disk.list(Path::new("/history/trades/2019-07-05")).is_err(), "the folder is gone");
    assert_eq!(history.verify().unwrap().problems, Vec::<String>::new());
    assert_eq!(history.durable(&topic("trades"), Partition(0)), Offset(30));
    let count = runtime().block_on(ask(&history, "SELECT count(*) AS n FROM trades"));
    assert!(count.contains("| 23 |"), "{count}");
}

#[test]
fn the_disk_budget_drops_the_oldest_days_first() {
    let disk = MemDisk::new(1);
    let history = open(&disk, HistoryConfig { disk_budget_bytes: Some(1), ..HistoryConfig::default() }).unwrap();
    history.append(&trade_rows(0, 0, &three_days(30))).unwrap();
    history.flush().unwrap();
    let report = history.retain(AppendTime(0)).unwrap();
    assert_eq!(report.n_days, 2);
    assert!(report.bytes_over_budget > 0, "the newest day stays");
    let days = runtime().block_on(ask(&history, "SELECT DISTINCT date_trunc('day', event_time) AS day FROM trades"));
    assert!(days.contains("2019-07-07T00:00:00Z") && !days.contains("2019-07-06"), "{days}");
}

#[test]
fn verification_finds_damage() {
    let disk = MemDisk::new(1);
    let history = open(&disk, HistoryConfig::default()).unwrap();
    history.append(&trade_rows(0, 0, &three_days(30))).unwrap();
    history.flush().unwrap();
    let folder = Path::new("/history/trades/2019-07-06");
    let file = &disk.list(folder).unwrap()[0];
    let healthy = history.verify().unwrap();
    assert_eq!((healthy.n_files, healthy.rows, healthy.problems.len()), (3, 30, 0));
    // Whatever bit of the pages flips, the file is named. The footer's unused bytes are not looked for.
    let mut n_found = 0;
    for at in (4..200).step_by(7) {
        disk.flip_bit(&folder.join(&file.name), at, 3).unwrap();
        let problems = history.verify().unwrap().problems;
        n_found += usize::from(problems.iter().any(|p| p.contains(&file.name)));
        disk.flip_bit(&folder.join(&file.name), at, 3).unwrap();
    }
    assert!(n_found > 10, "{n_found}");
    disk.remove(&folder.join(&file.name)).unwrap();
    assert!(history.verify().unwrap().problems[0].contains(&file.name));
}
