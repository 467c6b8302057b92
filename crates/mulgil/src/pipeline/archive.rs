//! Committed rows on their way into the history: each stream read from the log at its own pace, from where the history's manifest ends.

use super::reader::StreamReader;
use super::stop::Stop;
use anyhow::{Context, Result};
use mulgil_history::{ErrorKind, History, HistoryError};
use mulgil_log::Log;
use mulgil_model::ids::Partition;
use mulgil_model::rows::Rows;
use std::sync::Arc;
use std::time::Duration;

/// Rows taken from one partition before the next has its turn.
const BATCH_ROWS: usize = 32_768;

/// How long a silent log is waited for, or a disk without room.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often it is looked whether rows are due to be written to files: the faster they come, the sooner they are.
const DUE_EVERY: Duration = Duration::from_millis(100);

/// How long rows gather at the end of the log before they are taken: live clients, who wait for each commit, are woken by the same one.
const GATHER_FOR: Duration = Duration::from_millis(20);

pub struct Archivist {
    log: Arc<dyn Log>,
    history: Arc<History>,
    streams: Vec<(Arc<StreamReader>, u32)>,
}

impl Archivist {
    pub fn new(log: Arc<dyn Log>, history: Arc<History>, streams: Vec<(Arc<StreamReader>, u32)>) -> Self {
        Self { log, history, streams }
    }

    /// Works until it is told to stop; what is still in memory then is read from the log again at the next start.
    pub fn run(self, stop: &Stop) -> Result<()> {
        let mut watch = self.log.watch();
        while !stop.asked() {
            let moved = self.step()?;
            if moved == 0 && watch.wait(LOOK_EVERY) {
                stop.wait(GATHER_FOR);
            }
        }
        // Without room for it, what is in memory is read from the log again.
        self.history.flush().map(drop).or_else(paused).context("writing history")
    }

    /// Copies what is new; the number of rows. None while there is no room.
    pub fn step(&self) -> Result<usize> {
        let mut moved = 0;
        for (reader, n_partitions) in &self.streams {
            for partition in (0..*n_partitions).map(Partition) {
                let from = self.history.next(&reader.schema().stream, partition);
                let rows = reader.read(partition, from, BATCH_ROWS)?;
                if !rows.is_empty() {
                    moved += rows.len();
                    if !self.append(&rows).with_context(|| format!("history of {}", reader.schema().stream))? {
                        return Ok(0);
                    }
                    mulgil_disk::failpoint::here("archive.taken");
                }
            }
        }
        Ok(moved)
    }

    /// A full tail is written to files first. False when there is no room for them either: the log waits patiently, nothing is lost.
    fn append(&self, rows: &Rows) -> Result<bool, HistoryError> {
        let is_full = |appended: &Result<(), HistoryError>| appended.as_ref().is_err_and(|e| e.kind() == ErrorKind::Busy);
        let mut appended = self.history.append(rows);
        if is_full(&appended) {
            // What is being written makes room.
            self.history.wait_for_flush();
            appended = self.history.append(rows);
        }
        if is_full(&appended) {
            if let Err(error) = self.history.flush() {
                return paused(error).map(|()| false);
            }
            appended = self.history.append(rows);
        }
        appended.map(|()| true)
    }
}

/// A full disk is waited out: rows that are not in files stay in memory, or in the log. Any other error ends the archivist.
fn paused(error: HistoryError) -> Result<(), HistoryError> {
    if !error.is_disk_full() {
        return Err(error);
    }
    tracing::warn!(%error, "the history is paused");
    Ok(())
}

/// Writes rows to files when they are due, while new ones are taken: whoever reads a file into the log need not wait for it.
pub fn run_writes(history: &History, clock: &mulgil_log::Clock, stop: &Stop) -> Result<()> {
    while !stop.wait(DUE_EVERY) {
        if let Err(error) = history.flush_due(clock()) {
            paused(error).context("writing history")?;
            stop.wait(LOOK_EVERY);
        }
    }
    Ok(())
}

/// Merges small files and drops old ones, away from the path of new rows.
pub fn run_merges(history: &History, every: Duration, clock: &mulgil_log::Clock, stop: &Stop) -> Result<()> {
    while !stop.wait(every) {
        // Dropping first makes room for merging.
        history.retain(clock()).map(drop).or_else(paused).context("dropping old history")?;
        history.compact().map(drop).or_else(paused).context("merging history files")?;
    }
    Ok(())
}
