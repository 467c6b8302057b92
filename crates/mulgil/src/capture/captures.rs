//! All captured databases of the configuration, started and stopped together; each works on its own.

use super::opening;
use super::supervisor::{Seen, Status, Supervisor};
use super::writer::ChangeWriter;
use crate::config::checked::Checked;
use crate::pipeline::folder::Folder;
use crate::pipeline::plan::Plan;
use crate::pipeline::stop::Stop;
use crate::pipeline::tasks::Tasks;
use anyhow::{Context, Result};
use mulgil_capture::source::SnapshotRequest;
use mulgil_log::Clock;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

pub struct Captures {
    sources: Vec<(String, Arc<Status>)>,
    tasks: Mutex<Tasks>,
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
            sources.push((capture.name.clone(), status));
        }
        Ok(Self { sources, tasks: Mutex::new(tasks) })
    }

    /// Stops them all; what they gave is durable then.
    pub fn stop(&self) -> Result<()> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).join()
    }

    pub fn seen(&self) -> impl Iterator<Item = (&str, Seen)> {
        self.sources.iter().map(|(name, status)| (name.as_str(), status.seen()))
    }

    /// Asks a source to read tables again while it streams; answers when the source has taken it up.
    pub async fn snapshot(&self, source: &str, tables: Vec<String>, filter: Option<String>) -> Result<(), String> {
        let status = self.sources.iter().find(|(name, _)| name == source).map(|(_, status)| status);
        let status = status.ok_or_else(|| format!("there is no captured database '{source}'"))?;
        let requests = status.requests().ok_or_else(|| format!("{source} is not connected now: try again when it is"))?;
        let (accepted, answer) = oneshot::channel();
        let busy = |_| format!("{source} has as many snapshots waiting as it takes: try again later");
        requests.try_send(SnapshotRequest { tables, filter, accepted }).map_err(busy)?;
        answer.await.unwrap_or_else(|_| Err(format!("{source} was interrupted: ask again")))
    }
}
