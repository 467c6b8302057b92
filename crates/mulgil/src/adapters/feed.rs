//! The log as live clients read it.

use super::changes::ChangeTopics;
use crate::config::checked::Checked;
use crate::pipeline::folder::Folder;
use crate::pipeline::reader::StreamReader;
use anyhow::Result;
use mulgil_log::{Log, LogError, Seek};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::rows::Rows;
use mulgil_model::time::{AppendTime, EventTime};
use mulgil_serve::ports::{Bounds, Feed, PortError, PortErrorKind, ReadFrom, StreamInfo};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

pub struct LogFeed {
    log: Arc<dyn Log>,
    streams: BTreeMap<Topic, (Arc<StreamReader>, u32)>,
    changes: ChangeTopics,
    epoch: String,
    changed: watch::Receiver<u64>,
}

/// Rows can be stamped this much later than they were appended (a source's clock ahead of ours; ingest refuses more).
pub const AHEAD_OF_CLOCK_MAX_US: i64 = 300_000_000;

impl LogFeed {
    /// `changed` is ticked after each commit, see [`forward_commits`].
    pub fn new(folder: &Folder, config: &Checked, changed: watch::Receiver<u64>) -> Result<Self> {
        let changes = ChangeTopics::new(folder.log(), Arc::clone(&folder.schemas), config)?;
        let streams = folder.readers.iter().map(|(reader, n)| (reader.schema().stream.clone(), (Arc::clone(reader), *n)));
        Ok(Self { log: folder.log(), streams: streams.collect(), changes, epoch: folder.epoch.clone(), changed })
    }

    fn reader(&self, stream: &Topic, partition: Partition) -> Result<&StreamReader, PortError> {
        let found = self.streams.get(stream).filter(|(_, n)| partition.0 < *n);
        found
            .map(|(reader, _)| &**reader)
            .ok_or_else(|| PortError::new(PortErrorKind::NotFound, format!("there is no stream {stream}/{partition}")))
    }
}

impl Feed for LogFeed {
    fn streams(&self) -> Vec<StreamInfo> {
        let rows = self.streams.values().map(|(reader, n)| StreamInfo { schema: Arc::clone(reader.schema()), partitions: *n });
        rows.chain(self.changes.streams()).collect()
    }

    fn epoch(&self) -> &str {
        &self.epoch
    }

    fn bounds(&self, stream: &Topic, partition: Partition) -> Result<Bounds, PortError> {
        if !self.changes.has(stream, partition) {
            self.reader(stream, partition)?;
        }
        let at = TopicPartition::new(stream.clone(), partition);
        let seek = |to| self.log.seek(&at, to).map_err(log_error);
        Ok(Bounds { first: seek(Seek::First)?, next: seek(Seek::Next)? })
    }

    fn read(&self, stream: &Topic, partition: Partition, from: ReadFrom, max_rows: usize) -> Result<Rows, PortError> {
        let offset = match from {
            ReadFrom::Offset(offset) => offset,
            ReadFrom::Time(time) => self.offset_at(stream, partition, time)?,
        };
        if self.changes.has(stream, partition) {
            return self.changes.read(stream, offset, max_rows);
        }
        let reader = self.reader(stream, partition)?;
        reader.read(partition, offset, max_rows).map_err(|error| match error.downcast::<LogError>() {
            Ok(error) => log_error(error),
            Err(error) => PortError::new(PortErrorKind::Internal, format!("{error:#}")),
        })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }
}

impl LogFeed {
    /// A row is appended after it happened (but for clocks that are ahead), so that rows of an event time are never before that append
    /// time.
    fn offset_at(&self, stream: &Topic, partition: Partition, time: EventTime) -> Result<Offset, PortError> {
        let at = TopicPartition::new(stream.clone(), partition);
        let appended = AppendTime(time.0.saturating_sub(AHEAD_OF_CLOCK_MAX_US));
        self.log.seek(&at, Seek::AppendedAt(appended)).map_err(log_error)
    }
}

pub fn log_error(error: LogError) -> PortError {
    let kind = match &error {
        LogError::BelowRetention { .. } | LogError::AheadOfLog { .. } => PortErrorKind::NotFound,
        LogError::DiskFull { .. } => PortErrorKind::Full,
        LogError::RecordTooLarge { .. } | LogError::CommitTooLarge { .. } => PortErrorKind::TooLarge,
        _ => PortErrorKind::Internal,
    };
    PortError::new(kind, error.to_string())
}

/// Turns commits into ticks of `changed`, until the sender's receivers are gone or `stop` resolves.
pub async fn forward_commits(log: Arc<dyn Log>, changed: watch::Sender<u64>, stop: crate::pipeline::stop::Stop) {
    let mut commits = log.watch();
    loop {
        tokio::select! {
            () = commits.changed() => changed.send_modify(|n| *n += 1),
            () = stop.wait_async() => return,
        }
    }
}
