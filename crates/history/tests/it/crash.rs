//! Exactly the committed rows: random appends, flushes, compactions, retention, faults and crashes against a list of rows.

use crate::support::*;
use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use mulgil_disk::{Crash, MemDisk};
use mulgil_history::{History, HistoryConfig};
use mulgil_model::ids::{Offset, Partition};
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Step {
    Append { partition: u32, n: usize, again: u64 },
    Flush,
    FlushWithFailedSync(u32),
    FlushOnFullDisk,
    Compact,
    CompactWithFailedSync(u32),
    Crash(Crash),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let crash = prop::sample::select(vec![Crash::DropUnsynced, Crash::TearUnsynced, Crash::KeepUnsynced]);
    let step = prop_oneof![
        6 => (0u32..2, 1usize..40, 0u64..5).prop_map(|(partition, n, again)| Step::Append { partition, n, again }),
        4 => Just(Step::Flush),
        1 => (1u32..3).prop_map(Step::FlushWithFailedSync),
        1 => Just(Step::FlushOnFullDisk),
        2 => Just(Step::Compact),
        1 => (1u32..3).prop_map(Step::CompactWithFailedSync),
        3 => crash.prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..25)
}

/// The log: what every partition holds, by offset.
fn logged(partition: u32, offset: u64) -> Trade {
    let seed = offset.wrapping_mul(0x9e37_79b9).wrapping_add(u64::from(partition) * 77);
    let day = (seed % 3) as i64 * 86_400_000_000;
    trade(["A", "B", "C"][(seed / 3 % 3) as usize], us("2019-07-05T00:00:00Z") + day + (seed % 1_000_003) as i64, ONE, ONE, Some("BUY"))
}

fn append(history: &History, partition: u32, from: u64, until: u64) {
    let trades: Vec<_> = (from..until).map(|offset| logged(partition, offset)).collect();
    history.append(&trade_rows(partition, from, &trades)).unwrap();
}

fn next(history: &History, partition: u32) -> u64 {
    history.next(&topic("trades"), Partition(partition)).0
}

async fn held(history: &History) -> Vec<(u32, u64)> {
    let sql = "SELECT _partition, _offset FROM trades ORDER BY 1, 2";
    let batches = history.query(sql, None).await.unwrap().collect().await.unwrap();
    let rows = batches.iter().flat_map(|b| {
        let (partitions, offsets) = (b.column(0).as_primitive::<Int32Type>(), b.column(1).as_primitive::<Int64Type>());
        partitions.values().iter().zip(offsets.values()).map(|(p, o)| (*p as u32, *o as u64)).collect::<Vec<_>>()
    });
    rows.collect()
}

fn config() -> HistoryConfig {
    HistoryConfig { compact_files_min: 2, ..HistoryConfig::default() }
}

async fn run(seed: u64, steps: &[Step]) {
    let disk = MemDisk::new(seed);
    let mut history = open(&disk, config()).unwrap();
    let mut written = [0u64; 2];
    for step in steps {
        match step {
            Step::Append { partition, n, again } => {
                let from = next(&history, *partition);
                let until = from + *n as u64;
                append(&history, *partition, from.saturating_sub(*again), until);
                written[*partition as usize] = written[*partition as usize].max(until);
            }
            Step::Flush => drop(history.flush().unwrap()),
            Step::FlushWithFailedSync(n) => {
                disk.fail_syncs(*n);
                history.flush().ok();
                disk.fail_syncs(0);
            }
            Step::FlushOnFullDisk => {
                disk.set_capacity(Some(disk.used_bytes() + 500));
                history.flush().ok();
                disk.set_capacity(None);
            }
            Step::Compact => drop(history.compact().unwrap()),
            Step::CompactWithFailedSync(n) => {
                disk.fail_syncs(*n);
                history.compact().ok();
                disk.fail_syncs(0);
            }
            Step::Crash(how) => {
                // Forgotten, not dropped: a process that dies does not tidy up.
                std::mem::forget(std::mem::replace(&mut history, crash(&disk, *how)));
                for (partition, written) in written.iter().enumerate() {
                    let from = next(&history, partition as u32);
                    assert!(from <= *written, "only rows of the log are held");
                    assert_eq!(history.durable(&topic("trades"), Partition(partition as u32)), Offset(from));
                    append(&history, partition as u32, from, *written);
                }
            }
        }
        let want: Vec<(u32, u64)> = (0..2).flat_map(|p| (0..written[p as usize]).map(move |o| (p, o))).collect();
        assert_eq!(held(&history).await, want, "after {step:?}");
    }
    history.flush().unwrap();
    history.compact().unwrap();
    let report = history.verify().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.rows, written.iter().sum::<u64>());
}

fn crash(disk: &MemDisk, how: Crash) -> Arc<History> {
    disk.crash(how);
    open(disk, config()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn no_row_is_lost_or_there_twice(seed in any::<u64>(), steps in steps()) {
        runtime().block_on(run(seed, &steps));
    }
}

#[test]
fn gaps_and_strangers_are_refused() {
    let history = fresh();
    let error = history.append(&trade_rows(0, 5, &[logged(0, 5)])).unwrap_err();
    assert_eq!(error.to_string(), "rows of trades/0 begin at offset 5, but 0 is the next one wanted: read again from there");
    history.start_at(&topic("trades"), Partition(0), Offset(5)).unwrap();
    append(&history, 0, 5, 8);
    assert_eq!(next(&history, 0), 8);
    assert!(history.start_at(&topic("trades"), Partition(0), Offset(9)).is_err());
    history.flush().unwrap();
    assert_eq!(history.verify().unwrap().problems, Vec::<String>::new());
}

#[test]
fn strays_are_removed_and_one_process_holds_it() {
    use mulgil_disk::{Disk, OpenMode};
    use std::path::Path;
    let disk = MemDisk::new(3);
    let history = open(&disk, config()).unwrap();
    assert!(open(&disk, config()).unwrap_err().to_string().contains("in use"));
    append(&history, 0, 0, 10);
    history.flush().unwrap();
    drop(history);
    let folder = Path::new("/history/trades/2019-07-05");
    let n_files = disk.list(folder).unwrap().len();
    disk.open(&folder.join("0-999.parquet"), OpenMode::Create).unwrap();
    disk.create_dir_all(Path::new("/history/trades/2001-01-01")).unwrap();
    let history = open(&disk, config()).unwrap();
    assert_eq!(disk.list(folder).unwrap().len(), n_files);
    assert!(disk.list(Path::new("/history/trades/2001-01-01")).is_err());
    assert_eq!(next(&history, 0), 10);
}
