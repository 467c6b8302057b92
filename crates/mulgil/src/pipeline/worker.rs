//! A worker: one thread that runs some of the shards, and commits for all of them at once, so that they share one disk sync.

use super::shard::ShardRunner;
use super::stop::Stop;
use anyhow::Result;
use mulgil_log::{Commit, Log, LogError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an idle worker sleeps at most before it looks at the clock again: the resolution of idleness and snapshots.
const IDLE_WAIT: Duration = Duration::from_millis(250);

/// What others may know of a shard while it works.
#[derive(Debug, Default)]
pub struct ShardVitals {
    /// The first input offset that is not covered by a durable snapshot.
    pub snapshot_offset: AtomicU64,
    /// The first decision that recovery from that snapshot would read.
    pub decisions_offset: AtomicU64,
    pub next_offset: AtomicU64,
    pub watermark: AtomicI64,
    pub n_late: AtomicU64,
    pub n_duplicates: AtomicU64,
    pub hot_keys: AtomicU64,
    pub open_windows: AtomicU64,
    pub finished: AtomicBool,
}

/// A shard as a worker holds it.
pub struct Held {
    pub runner: ShardRunner,
    pub vitals: Arc<ShardVitals>,
    /// 0 for a shard of input rows, 1 for one that reads what such a shard derives, and so on.
    pub level: u32,
}

pub struct Worker {
    log: Arc<dyn Log>,
    shards: Vec<Held>,
    finish_below: Arc<AtomicU32>,
    /// What found the disk full, to be committed before anything else.
    paused: Option<Commit>,
}

impl Worker {
    /// Shards of a level below `finish_below` close their windows once they have read their input to the end.
    pub fn new(log: Arc<dyn Log>, shards: Vec<Held>, finish_below: Arc<AtomicU32>) -> Self {
        let worker = Self { log, shards, finish_below, paused: None };
        worker.shards.iter().for_each(publish);
        worker
    }

    /// Works until it is told to stop; leaves a snapshot behind.
    pub fn run(mut self, stop: &Stop) -> Result<()> {
        let mut watch = self.log.watch();
        while !stop.asked() {
            if !self.step(Instant::now())? {
                watch.wait(IDLE_WAIT);
            }
        }
        self.close()
    }

    /// Leaves a snapshot behind, unless work is prepared that could not be committed: the state holds it already, and must never be ahead
    /// of the log.
    pub fn close(mut self) -> Result<()> {
        if self.paused.is_some() {
            return Ok(());
        }
        self.shards.iter_mut().try_for_each(|held| held.runner.snapshot())
    }

    /// One round over all shards, committed together. False when there was nothing to do, or no room on the disk.
    pub fn step(&mut self, now: Instant) -> Result<bool> {
        let Some(prepared) = self.prepare(now)? else {
            self.cover(now)?;
            return Ok(false);
        };
        // A full disk pauses the shards and loses nothing; any other refusal ends them.
        mulgil_disk::failpoint::here("shard.before-commit");
        match self.log.commit(prepared.clone()) {
            Ok(_) => mulgil_disk::failpoint::here("shard.after-commit"),
            Err(error @ LogError::DiskFull { .. }) => {
                tracing::warn!(%error, "shards are paused");
                self.paused = Some(prepared);
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        }
        self.cover(now)?;
        Ok(true)
    }

    /// Snapshots that are due, also of shards that have had nothing to do since: what they committed last would hold the log's retention
    /// for as long as their stream is silent. To be called when all that was prepared is committed.
    fn cover(&mut self, now: Instant) -> Result<()> {
        for held in self.shards.iter_mut().filter(|held| !held.runner.is_covered()) {
            held.runner.committed(now)?;
            publish(held);
        }
        Ok(())
    }

    /// The commit that waits for room, or else what all shards have to do.
    fn prepare(&mut self, now: Instant) -> Result<Option<Commit>> {
        if let Some(paused) = self.paused.take() {
            return Ok(Some(paused));
        }
        let (mut prepared, mut worked) = (Commit::default(), false);
        let finish_below = self.finish_below.load(Ordering::Acquire);
        for held in &mut self.shards {
            if held.level < finish_below {
                held.runner.finish();
                publish(held);
            }
            if let Some(mut part) = held.runner.prepare(now)? {
                prepared.appends.append(&mut part.appends);
                prepared.progress.append(&mut part.progress);
                worked = true;
            }
        }
        Ok(worked.then_some(prepared))
    }
}

fn publish(held: &Held) {
    let (shard, vitals) = (&held.runner, &held.vitals);
    let stats = shard.shard().stats();
    vitals.snapshot_offset.store(shard.snapshot_offset().0, Ordering::Release);
    vitals.decisions_offset.store(shard.decisions_offset().0, Ordering::Release);
    vitals.next_offset.store(shard.shard().position().commit, Ordering::Release);
    vitals.watermark.store(shard.shard().watermark(), Ordering::Release);
    vitals.n_late.store(stats.operators.n_late, Ordering::Relaxed);
    vitals.n_duplicates.store(stats.n_duplicates, Ordering::Relaxed);
    vitals.hot_keys.store(stats.operators.n_hot as u64, Ordering::Relaxed);
    vitals.open_windows.store(stats.operators.n_open_windows as u64, Ordering::Relaxed);
    vitals.finished.store(shard.finished(), Ordering::Release);
}
