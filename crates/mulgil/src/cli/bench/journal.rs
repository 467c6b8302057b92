//! The journal against the disk itself: the same bytes by plain writes, one fdatasync per group.

use super::fdatasync_us;
use crate::pipeline::clock;
use crate::pipeline::writer::RECORD_HEAD_BYTES;
use anyhow::{Context, Result};
use mulgil_disk::RealDisk;
use mulgil_log::{Append, Commit, Journal, JournalConfig, Log, RecordsBuilder, Stats};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::time::{EventTime, ReceiveTime};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct JournalArgs {
    /// An empty folder on the disk in question.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    #[arg(long, default_value_t = 100)]
    row_bytes: usize,
    /// Threads that commit.
    #[arg(long, default_value_t = 4)]
    writers: u64,
    /// Commits that each of them has on their way.
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// A thread that only drives the disk, so that no writer has to.
    #[arg(long)]
    driver: bool,
}

/// Rows of a commit: a source's batch.
const COMMIT_ROWS: u64 = 5_000;
/// How long the driver waits for work before it asks whether the writers are done.
const DRIVE_FOR: Duration = Duration::from_millis(20);

/// Once unmeasured, then the raw bytes, the journal and the raw bytes again. Each leaves its memory to the next: pages of the disk's cache that
/// a virtual machine touches for the first time cost more than the copy into them, and would all be charged to whoever comes first.
pub fn journal(args: &JournalArgs) -> Result<serde_json::Value> {
    std::fs::create_dir_all(&args.dir)?;
    let (warm, _) = once(args)?;
    let before = raw(&args.dir, warm.written_bytes, warm.n_groups)?;
    let (stats, seconds) = once(args)?;
    let after = raw(&args.dir, stats.written_bytes, stats.n_groups)?;
    let (p50, p99) = fdatasync_us(&args.dir, 200)?;
    Ok(serde_json::json!({
        "rows": stats.n_records, "row_bytes": args.row_bytes, "bytes": stats.written_bytes, "commits": stats.n_groups, "seconds": seconds,
        "raw_bytes": stats.written_bytes, "raw_seconds": (before + after) / 2.0, "fdatasync_p50_us": p50, "fdatasync_p99_us": p99,
    }))
}

/// A new journal that takes all rows and is gone afterwards; how long it took.
fn once(args: &JournalArgs) -> Result<(Stats, f64)> {
    let dir = args.dir.join("journal-bench");
    let (log, _) = Journal::open(JournalConfig::new(dir.clone()), Arc::new(RealDisk), clock())?;
    let started = Instant::now();
    append(&log, args)?;
    let seconds = started.elapsed().as_secs_f64();
    let stats = log.stats();
    drop(log);
    std::fs::remove_dir_all(dir)?;
    Ok((stats, seconds))
}

fn append(log: &Journal, args: &JournalArgs) -> Result<()> {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        if args.driver {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    log.drive(DRIVE_FOR);
                }
            });
        }
        let writers: Vec<_> = (0..args.writers).map(|w| scope.spawn(move || write(log, w, args))).collect();
        let written = writers.into_iter().try_for_each(|w| w.join().map_err(|_| anyhow::anyhow!("a writer broke"))?);
        is_done.store(true, Ordering::Relaxed);
        written
    })
}

fn write(log: &Journal, writer: u64, args: &JournalArgs) -> Result<()> {
    let to = TopicPartition::new(Topic::new("bench")?, Partition(u32::try_from(writer)?));
    let value = vec![0x5a; args.row_bytes];
    let mut tickets = VecDeque::new();
    let mut left = args.rows / args.writers;
    while left > 0 {
        let n = left.min(COMMIT_ROWS);
        // As whoever writes a batch of rows does it, and knows about how large they become.
        let mut records = RecordsBuilder::with_capacity(n as usize * (args.row_bytes + RECORD_HEAD_BYTES));
        for _ in 0..n {
            records.push(b"", &[], &value, EventTime(0), ReceiveTime(0));
        }
        tickets.push_back(log.begin(Commit { appends: vec![Append { to: to.clone(), records: records.finish() }], progress: vec![] })?);
        if tickets.len() >= args.in_flight
            && let Some(oldest) = tickets.pop_front()
        {
            oldest.wait()?;
        }
        left -= n;
    }
    tickets.into_iter().try_for_each(|ticket| ticket.wait().map(drop))?;
    Ok(())
}

fn raw(dir: &Path, bytes: u64, groups: u64) -> Result<f64> {
    let path = dir.join("raw.bench");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
    let group = vec![0x5a; usize::try_from(bytes / groups.max(1)).context("a group fits into memory")?];
    let started = Instant::now();
    for _ in 0..groups {
        file.write_all(&group)?;
        file.sync_data()?;
    }
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(seconds)
}
