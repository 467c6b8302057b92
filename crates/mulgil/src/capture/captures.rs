//! All captured databases of the configuration, started and stopped together; each works on its own.

use super::condition;
use super::opening;
use super::supervisor::{Seen, State, Status, Supervisor};
use super::writer::ChangeWriter;
use crate::config::captured::CapturePlan;
use crate::config::checked::Checked;
use crate::pipeline::folder::Folder;
use crate::pipeline::plan::Plan;
use crate::pipeline::stop::Stop;
use crate::pipeline::tasks::Tasks;
use anyhow::{Context, Result};
use mulgil_capture::source::{Phase, SnapshotRequest};
use mulgil_log::Clock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a source may take to take up a snapshot: it is asked between two batches.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

pub struct Captures {
    sources: Vec<Captured>,
    tasks: Mutex<Tasks>,
}

struct Captured {
    plan: CapturePlan,
    status: Arc<Status>,
}

/// Why a snapshot was not taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotRefused {
    #[error("there is no captured database '{0}': see GET /api/v1/captures")]
    Unknown(String),
    #[error("{source_name} does not stream now, it is {state}: ask again when it streams or reads a snapshot")]
    NotStreaming { source_name: String, state: &'static str },
    #[error("{0} has as many snapshots waiting as it takes: try again later")]
    Busy(String),
    #[error("{0} was interrupted: ask again")]
    Interrupted(String),
    #[error("{0} has not answered within {within} s, and may yet take it up: see GET /api/v1/captures", within = ANSWER_WITHIN.as_secs())]
    Silent(String),
    /// What the source has against it, or what is wrong with the filter.
    #[error("{0}")]
    Unfit(String),
}

impl Captures {
    /// Starts them all; `ended` is asked when the log breaks under one.
    pub fn start(config: &Checked, plan: &Plan, folder: &Folder, clock: &Clock, ended: &Stop) -> Result<Self> {
        let (mut tasks, mut sources) = (Tasks::new(ended.clone()), Vec::new());
        for capture in &config.captures {
            let section = || format!("[source.{}]", capture.name);
            let writer = ChangeWriter::new(capture, config, plan, &folder.schemas, folder.log()).with_context(section)?;
            let status = Arc::new(Status::default());
            let supervisor = Supervisor {
                name: capture.name.clone(),
                open: opening::open(capture, &config.log.dir),
                notes: Arc::clone(&folder.notes),
                writer: Arc::new(Mutex::new(writer)),
                recent: Arc::clone(&folder.recent),
                clock: Arc::clone(clock),
                status: Arc::clone(&status),
            };
            tasks.spawn(&format!("capture-{}", capture.name), move |stop| supervisor.run(stop))?;
            sources.push(Captured { plan: capture.clone(), status });
        }
        Ok(Self { sources, tasks: Mutex::new(tasks) })
    }

    /// Stops them all; what they gave is durable then.
    pub fn stop(&self) -> Result<()> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).join()
    }

    pub fn seen(&self) -> impl Iterator<Item = (&CapturePlan, Seen)> {
        self.sources.iter().map(|s| (&s.plan, s.status.seen()))
    }

    /// Asks a source to read tables again; answers when the source has taken it up. Behind a snapshot that is being read it waits for its turn.
    pub async fn snapshot(&self, source: &str, tables: Vec<String>, filter: Option<String>) -> Result<(), SnapshotRefused> {
        let found = self.sources.iter().find(|s| s.plan.name == source);
        let status = &found.ok_or_else(|| SnapshotRefused::Unknown(source.to_owned()))?.status;
        if let Some(filter) = &filter {
            condition::check(filter).map_err(|why| SnapshotRefused::Unfit(format!("the filter {why}")))?;
        }
        let name = || source.to_owned();
        let seen = status.seen();
        let (state, phase) = (seen.state, seen.health.phase);
        let requests = status.requests().filter(|_| state == State::Running && phase != Phase::Connecting);
        let requests = requests.ok_or_else(|| SnapshotRefused::NotStreaming { source_name: name(), state: state.name(phase) })?;
        let (accepted, answer) = oneshot::channel();
        requests.try_send(SnapshotRequest { tables, filter, accepted }).map_err(|_| SnapshotRefused::Busy(name()))?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(Ok(answer)) => answer.map_err(SnapshotRefused::Unfit),
            Ok(Err(_)) => Err(SnapshotRefused::Interrupted(name())),
            Err(_) => Err(SnapshotRefused::Silent(name())),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::parse;
    use mulgil_capture::source::Health;
    use tokio::sync::mpsc;

    #[test]
    fn a_snapshot_is_taken_up_while_another_is_read_and_not_before_the_source_is_open() {
        let config = parse("[source.db]\ntype = \"mysql\"\nurl = \"env:NONE\"\ntables = [\"a.b\"]").unwrap();
        let status = Arc::new(Status::default());
        let captured = Captured { plan: config.captures[0].clone(), status: Arc::clone(&status) };
        let captures = Captures { sources: vec![captured], tasks: Mutex::new(Tasks::new(Stop::default())) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = || runtime.block_on(captures.snapshot("db", vec!["a.b".to_owned()], None));
        let (requests, mut asked) = mpsc::channel::<SnapshotRequest>(1);
        let source = std::thread::spawn(move || {
            while let Some(request) = asked.blocking_recv() {
                request.accepted.send(Ok(())).unwrap();
            }
        });
        for (phase, is_taken_up) in [(Phase::Connecting, false), (Phase::Snapshot, true), (Phase::Streaming, true)] {
            status.test_running(Health { phase, ..Health::default() }, requests.clone());
            assert_eq!(ask().is_ok(), is_taken_up, "{phase:?}");
        }
        drop((requests, captures, status));
        source.join().unwrap();
    }
}
