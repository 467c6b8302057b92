//! One run of the simulator on its thread: trades as they happen, into the log or into a captured database's table.

use super::targets::{Table, Target};
use crate::pipeline::recent::Recent;
use crate::pipeline::stop::Stop;
use crate::pipeline::writer::StreamWriter;
use anyhow::Result;
use arrow::array::{Array, RecordBatch};
use mulgil_connect::sources::simulator::Simulator;
use mulgil_log::{Advance, Clock, Commit, Log, LogError, Owner};
use mulgil_model::ids::TopicPartition;
use mulgil_model::position::Position;
use mulgil_model::time::{EventTime, ReceiveTime};
use mulgil_serve::ports::{GeneratorStatus, PortError, PortErrorKind, RunState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;

/// How often trades are committed: what a client waits for at most, before the disk.
const BEAT: Duration = Duration::from_millis(20);

/// Trades of one commit at most.
const BATCH_ROWS: usize = 20_000;

const DISK_FULL_WAIT: Duration = Duration::from_secs(1);

/// When a run ends by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    pub after: Option<Duration>,
    pub count: Option<u64>,
}

/// Where the trades are to go.
pub enum Wanted {
    Log(IntoLog),
    Table(Target),
}

/// Where they go.
pub enum Way {
    Log(IntoLog),
    Table(IntoTable),
}

pub struct IntoLog {
    pub log: Arc<dyn Log>,
    pub writer: StreamWriter,
    pub recent: Arc<Recent>,
    pub source: Owner,
    pub at: TopicPartition,
    pub started: i64,
}

/// The connection lives in the runtime, on the thread of the run.
pub struct IntoTable {
    runtime: Runtime,
    table: Table,
}

impl Wanted {
    /// On the thread of the run.
    pub fn open(self) -> Result<Way, PortError> {
        match self {
            Self::Log(log) => Ok(Way::Log(log)),
            Self::Table(target) => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|e| PortError::new(PortErrorKind::Internal, format!("cannot make a runtime: {e}")))?;
                let table = runtime.block_on(target.open())?;
                Ok(Way::Table(IntoTable { runtime, table }))
            }
        }
    }
}

pub struct Producer {
    pub name: String,
    pub simulator: Simulator,
    pub way: Way,
    pub started: i64,
    pub ends: Ends,
    pub status: Arc<Mutex<GeneratorStatus>>,
}

impl Producer {
    pub fn run(mut self, clock: &Clock, stop: &Stop) {
        let result = self.produce(clock, stop);
        if let Way::Table(IntoTable { runtime, table }) = self.way {
            runtime.block_on(table.close());
        }
        let mut status = lock(&self.status);
        status.ended = Some(clock().0);
        status.state = match &result {
            Ok(true) => RunState::Finished,
            Ok(false) => RunState::Stopped,
            Err(_) => RunState::Failed,
        };
        if let Err(error) = result {
            status.detail = format!("{error:#}");
            tracing::error!(source = self.name, error = format!("{error:#}"), "the simulator failed");
        }
    }

    /// True when the run came to its own end.
    fn produce(&mut self, clock: &Clock, stop: &Stop) -> Result<bool> {
        let until_us = self.ends.after.map(|d| self.started.saturating_add(crate::pipeline::plan::micros(d)));
        let batch_rows = self.way.batch_rows();
        let mut produced = 0u64;
        loop {
            let now = clock().0;
            let left = self.ends.count.map_or(u64::MAX, |n| n - produced);
            let until = until_us.map_or(now, |end| now.min(end));
            let batch = self.simulator.next_until(EventTime(until), batch_rows.min(usize::try_from(left).unwrap_or(usize::MAX)));
            produced += batch.num_rows() as u64;
            if batch.num_rows() > 0 && !self.commit(&batch, produced, ReceiveTime(now), stop)? {
                return Ok(false);
            }
            if self.ends.count == Some(produced) || until_us.is_some_and(|end| now >= end) && batch.num_rows() == 0 {
                return Ok(true);
            }
            // A full batch means that more is due already.
            if batch.num_rows() < batch_rows && stop.wait(BEAT) || stop.asked() {
                return Ok(false);
            }
        }
    }

    /// False when told to stop before it was done.
    fn commit(&mut self, batch: &RecordBatch, produced: u64, received: ReceiveTime, stop: &Stop) -> Result<bool> {
        let is_done = match &mut self.way {
            Way::Log(log) => log.commit(batch, produced, received, stop, &self.status)?,
            Way::Table(IntoTable { runtime, table }) => {
                runtime.block_on(table.insert(batch))?;
                true
            }
        };
        if is_done {
            let mut status = lock(&self.status);
            status.detail.clear();
            status.produced = produced;
            status.anomalies += n_labelled(batch);
        }
        Ok(is_done)
    }
}

impl Way {
    fn batch_rows(&self) -> usize {
        match self {
            Self::Log(_) => BATCH_ROWS,
            Self::Table(way) => way.table.rows_max(),
        }
    }
}

impl IntoLog {
    /// Commits, waiting out a full disk; false when told to stop meanwhile.
    fn commit(
        &mut self,
        batch: &RecordBatch,
        produced: u64,
        received: ReceiveTime,
        stop: &Stop,
        status: &Mutex<GeneratorStatus>,
    ) -> Result<bool> {
        let position = Position::new(u64::try_from(self.started).unwrap_or(0), produced);
        let progress = vec![Advance { owner: self.source.clone(), partition: self.at.clone(), position }];
        let (appends, dealt) = self.writer.deal(batch, received)?;
        let commit = Commit { appends, progress };
        loop {
            match self.log.commit(commit.clone()) {
                Ok(committed) => {
                    self.recent.keep(dealt, &committed);
                    break;
                }
                Err(error @ LogError::DiskFull { .. }) => {
                    lock(status).detail = error.to_string();
                    if stop.wait(DISK_FULL_WAIT) {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        mulgil_disk::failpoint::here("simulator.after-commit");
        Ok(true)
    }
}

fn n_labelled(batch: &RecordBatch) -> u64 {
    batch.column_by_name("label").map_or(0, |labels| (labels.len() - labels.null_count()) as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
