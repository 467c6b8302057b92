//! A data folder opened for work: journal, state and history, and the identity of the log.
//!
//! ```text
//! data/
//!   lock  journal/      the log                       (crates/log)
//!   state/              shard snapshots, rebuildable  (fjall)
//!   history/            Parquet files and manifest    (crates/history), rebuildable while the log still has the rows
//!   epoch               identity of this log: 32 hexadecimal digits
//! ```

use super::plan::Plan;
use super::reader::StreamReader;
use super::recent::Recent;
use super::schemas::Schemas;
use super::state::StateFolder;
use crate::capture::notes::Notes;
use crate::config::checked::Checked;
use anyhow::{Context, Result};
use mulgil_disk::{Disk, RealDisk, read_whole, write_atomic};
use mulgil_history::{History, HistoryConfig, QueryLimits};
use mulgil_log::{Clock, Journal, JournalConfig, Log, Retention, Seek};
use mulgil_model::ids::{Offset, Partition, TopicPartition};
use mulgil_model::schema::StreamSchema;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub struct Folder {
    pub dir: PathBuf,
    pub journal: Arc<Journal>,
    pub schemas: Arc<Schemas>,
    /// Where the latest record of all schemas begins in their topic.
    pub schemas_from: Offset,
    pub state: StateFolder,
    pub history: Arc<History>,
    pub epoch: String,
    /// What was cut off because it had never been committed, if anything.
    pub repaired: Option<String>,
    /// A reader for every stream, with its number of partitions.
    pub readers: Vec<(Arc<StreamReader>, u32)>,
    /// What sources committed a moment ago: they put it there, and all readers look there first.
    pub recent: Arc<Recent>,
    /// Where captured databases go on.
    pub notes: Arc<Notes>,
}

impl Folder {
    /// Opens (or makes) the folder for this process alone.
    pub fn open(config: &Checked, plan: &Plan, clock: &Clock) -> Result<Self> {
        let state = || StateFolder::open(&config.log.dir.join("state"), config.state.cache_bytes);
        Self::open_on(Arc::new(RealDisk), state, || uuid::Uuid::new_v4().simple().to_string(), config, plan, clock)
    }

    /// As [`Self::open`], on another disk; `state` and a new `identity` come from whoever knows how to get them.
    pub fn open_on(
        disk: Arc<dyn Disk>,
        state: impl FnOnce() -> Result<StateFolder>,
        identity: impl FnOnce() -> String,
        config: &Checked,
        plan: &Plan,
        clock: &Clock,
    ) -> Result<Self> {
        let dir = config.log.dir.clone();
        let journal_config = journal_config(config);
        let (journal, opened) = Journal::open(journal_config, Arc::clone(&disk), Arc::clone(clock))
            .with_context(|| format!("cannot open the log in {}", dir.display()))?;
        let journal = Arc::new(journal);
        let schemas: Vec<Arc<StreamSchema>> = plan.streams.iter().map(|s| Arc::clone(&s.schema)).collect();
        let inputs: Vec<Arc<StreamSchema>> = plan.shards.iter().map(|s| Arc::clone(&s.input)).chain(schemas.iter().cloned()).collect();
        let (known, schemas_from) = Schemas::open(&*journal, &inputs)?;
        let known = Arc::new(known);
        let state = state()?;
        let history = open_history(config, plan, Arc::clone(&disk))?;
        let log: Arc<dyn Log> = Arc::clone(&journal) as Arc<dyn Log>;
        let recent = Arc::new(Recent::new(config.log.recent_cache_bytes as usize));
        let reader = |s: &super::plan::PlannedStream| {
            let reader = StreamReader::new(Arc::clone(&log), Arc::clone(&known), Arc::clone(&s.schema));
            (Arc::new(reader.with_recent(Arc::clone(&recent))), s.partitions)
        };
        let readers: Vec<(Arc<StreamReader>, u32)> = plan.streams.iter().map(reader).collect();
        begin_where_the_log_does(&history, &*log, &readers)?;
        let notes = Arc::new(Notes::open(Arc::clone(&log)).context("cannot read the notes of captured databases")?);
        let epoch = epoch(&*disk, &dir, identity)?;
        Ok(Self {
            dir,
            journal,
            schemas: known,
            schemas_from,
            state,
            history,
            epoch,
            repaired: opened.repaired.map(|r| format!("{} bytes at the end of {}: {}", r.cut_bytes, r.file.display(), r.reason)),
            readers,
            recent,
            notes,
        })
    }

    pub fn log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.journal) as Arc<dyn Log>
    }
}

/// The most the log takes at once.
const CHANGE_BYTES_MAX: usize = 256 << 20;

pub fn journal_config(config: &Checked) -> JournalConfig {
    let mut journal = JournalConfig::new(&config.log.dir);
    journal.segment_bytes = config.log.segment_bytes;
    journal.durability = config.log.durability;
    journal.reserve_bytes = config.log.reserve_bytes;
    journal.file_cache_bytes = config.log.file_cache_bytes;
    journal.index_cache_bytes = config.log.index_cache_bytes as usize;
    if !config.captures.is_empty() {
        // A row of a database may be large, and its change has it twice.
        (journal.max_record_bytes, journal.max_commit_bytes) = (CHANGE_BYTES_MAX, CHANGE_BYTES_MAX);
    }
    journal.retention = Retention { time: config.log.retention_time, bytes: config.log.retention_bytes };
    journal
}

pub fn open_history(config: &Checked, plan: &Plan, disk: Arc<dyn Disk>) -> Result<Arc<History>> {
    let dir = config.log.dir.join("history");
    let schemas = plan.streams.iter().map(|s| Arc::clone(&s.schema)).collect();
    History::open(disk, &dir, history_config(config), schemas).with_context(|| format!("cannot open the history in {}", dir.display()))
}

pub fn history_config(config: &Checked) -> HistoryConfig {
    let plan = &config.history;
    let mut history = HistoryConfig {
        flush_after: plan.flush_after,
        disk_budget_bytes: plan.disk_budget_bytes,
        query: query_limits(config),
        queries_max: plan.queries_max,
        searches_max: plan.searches_max,
        tail_bytes_max: plan.tail_bytes_max as usize,
        footer_cache_bytes: plan.footer_cache_bytes as usize,
        ..HistoryConfig::default()
    };
    history.retention.default = plan.retention;
    history.time_zones = config.streams.iter().map(|s| (s.schema.stream.clone(), s.timezone.clone())).collect();
    history
}

pub fn query_limits(config: &Checked) -> QueryLimits {
    let plan = &config.history;
    QueryLimits { memory_bytes: plan.query_memory_bytes as usize, timeout: plan.query_timeout, rows_max: plan.query_rows_max as u64 }
}

/// A history that was deleted begins again with the first row that the log still has.
fn begin_where_the_log_does(history: &History, log: &dyn Log, readers: &[(Arc<StreamReader>, u32)]) -> Result<()> {
    for (reader, n_partitions) in readers {
        let stream = &reader.schema().stream;
        for partition in (0..*n_partitions).map(Partition) {
            let first = log.seek(&TopicPartition::new(stream.clone(), partition), Seek::First)?;
            if history.next(stream, partition) == Offset::ZERO && first > Offset::ZERO {
                history.start_at(stream, partition, first)?;
            }
        }
    }
    Ok(())
}

/// The log's identity, made when the folder is. A folder restored from a copy should lose its `epoch` file, so that clients do not
/// resume into other rows.
fn epoch(disk: &dyn Disk, dir: &Path, identity: impl FnOnce() -> String) -> Result<String> {
    const EPOCH_BYTES_MAX: u64 = 64;
    let path = dir.join("epoch");
    match read_whole(disk, &path, EPOCH_BYTES_MAX) {
        Ok(text) => {
            String::from_utf8(text).map(|t| t.trim().to_owned()).with_context(|| format!("{} is not text: delete it", path.display()))
        }
        Err(error) if error.is_missing() => {
            let epoch = identity();
            write_atomic(disk, &path, epoch.as_bytes())?;
            Ok(epoch)
        }
        Err(error) => Err(error.into()),
    }
}
