//! The pipeline running: which threads there are, and in which order they stop.
//!
//! ```text
//! start: folder ─▶ shards (recovered) ─▶ history ─▶ sources          stop: sources ─▶ shards ─▶ history ─▶ journal
//! ```

use super::archive::{Archivist, run_merges, run_writes};
use super::folder::Folder;
use super::plan::{Plan, PlannedShards};
use super::reader::StreamReader;
use super::shard::{Rules, ShardLimits, ShardRunner, ShardSetup, rules_in_effect};
use super::stop::Stop;
use super::tasks::Tasks;
use super::worker::{Held, ShardVitals, Worker};
use super::writer::StreamWriter;
use crate::adapters::idempotency;
use crate::capture::captures::Captures;
use crate::capture::notes::CAPTURES;
use crate::config::checked::Checked;
use anyhow::{Context, Result, ensure};
use mulgil_engine::shard::{Shard, ShardSpec};
use mulgil_log::Log as _;
use mulgil_log::{Clock, Durability, Journal, LogError, Seek};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::streams::SCHEMAS;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How the pipeline is run, beyond the configuration.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub workers: usize,
    /// Rows a shard takes at once.
    pub batch_rows: usize,
    /// Overrides `idle_after` of every stream: a bounded replay does not wait for the clock.
    pub never_idle: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self { workers, batch_rows: 16_384, never_idle: false }
    }
}

pub struct Running {
    pub config: Arc<Checked>,
    pub plan: Plan,
    pub folder: Arc<Folder>,
    pub clock: Clock,
    /// Every shard's input and how it is.
    pub shards: Vec<(TopicPartition, Arc<ShardVitals>)>,
    /// Asked when a part failed, or when the process is told to end.
    pub ended: Stop,
    wanted_rules: WantedRules,
    finish_below: Arc<AtomicU32>,
    workers: Mutex<Tasks>,
    archive: Mutex<Tasks>,
}

impl Running {
    pub fn start(config: Checked, options: &RunOptions, clock: Clock) -> Result<Self> {
        let plan = Plan::new(&config)?;
        let folder = Arc::new(Folder::open(&config, &plan, &clock)?);
        let ended = Stop::default();
        let finish_below = Arc::new(AtomicU32::new(0));
        let wanted = wanted_rules(&config, &plan)?;
        let (held, shards) = open_shards(&config, &plan, &folder, options, &wanted)?;
        mulgil_disk::failpoint::here("start.recovered");
        let ring = |journal: &Arc<Journal>| {
            let journal = Arc::clone(journal);
            move || journal.ring()
        };
        let mut workers = Tasks::new(ended.clone()).woken_by(ring(&folder.journal));
        for (i, shards) in deal(held, options.workers).into_iter().enumerate() {
            let worker = Worker::new(folder.log(), shards, Arc::clone(&finish_below));
            workers.spawn(&format!("shards-{i}"), move |stop| worker.run(stop))?;
        }
        let mut archive = Tasks::new(ended.clone()).woken_by(ring(&folder.journal));
        let archivist = Archivist::new(folder.log(), Arc::clone(&folder.history), folder.readers.clone());
        archive.spawn("history", move |stop| archivist.run(stop))?;
        let (history, write_clock) = (Arc::clone(&folder.history), Arc::clone(&clock));
        archive.spawn("history-write", move |stop| run_writes(&history, &write_clock, stop))?;
        let (history, merge_clock) = (Arc::clone(&folder.history), Arc::clone(&clock));
        let upkeep_every = config.history.upkeep_every;
        archive.spawn("history-merge", move |stop| run_merges(&history, upkeep_every, &merge_clock, stop))?;
        let (retained, vitals) = (Arc::clone(&folder), shards.clone());
        let decided: Vec<_> = plan.shards.iter().map(|s| (s.input.stream.clone(), s.decisions.clone())).collect();
        let (retention_every, retention_clock) = (config.log.retention_every, Arc::clone(&clock));
        archive.spawn("log-retention", move |stop| run_retention(&retained, &decided, &vitals, &retention_clock, retention_every, stop))?;
        if let Durability::Relaxed { flush_every } = config.log.durability {
            let journal = Arc::clone(&folder.journal);
            archive.spawn("log-flush", move |stop| run_flushes(&journal, flush_every, stop))?;
        }
        let (workers, archive) = (Mutex::new(workers), Mutex::new(archive));
        Ok(Self { config: Arc::new(config), plan, folder, clock, shards, ended, wanted_rules: wanted, finish_below, workers, archive })
    }

    /// Starts reading the configured databases; to be stopped before the rest.
    pub fn start_captures(&self) -> Result<Arc<Captures>> {
        Ok(Arc::new(Captures::start(&self.config, &self.plan, &self.folder, &self.clock, &self.ended)?))
    }

    /// Rows that shards have still to read.
    pub fn backlog(&self) -> Result<u64> {
        let mut rows = 0;
        for (input, vitals) in &self.shards {
            let next = self.folder.journal.seek(input, Seek::Next)?;
            rows += next.0.saturating_sub(vitals.next_offset.load(Ordering::Acquire));
        }
        Ok(rows)
    }

    /// Rows that the history has still to take.
    pub fn history_backlog(&self) -> Result<u64> {
        let mut rows = 0;
        for (reader, n_partitions) in &self.folder.readers {
            for partition in (0..*n_partitions).map(Partition) {
                let at = TopicPartition::new(reader.schema().stream.clone(), partition);
                let next = self.folder.journal.seek(&at, Seek::Next)?;
                rows += next.0.saturating_sub(self.folder.history.next(&at.topic, partition).0);
            }
        }
        Ok(rows)
    }

    /// Rows of a topic that its shards or the history, whichever is further behind, have still to read.
    pub fn lag(&self, topic: &Topic) -> Result<u64> {
        let mut most = 0;
        for (input, vitals) in self.shards.iter().filter(|(input, _)| input.topic == *topic) {
            let next = self.folder.journal.seek(input, Seek::Next)?;
            most = most.max(next.0.saturating_sub(vitals.next_offset.load(Ordering::Acquire)));
        }
        for (reader, n_partitions) in self.folder.readers.iter().filter(|(reader, _)| reader.schema().stream == *topic) {
            for partition in (0..*n_partitions).map(Partition) {
                let at = TopicPartition::new(reader.schema().stream.clone(), partition);
                let next = self.folder.journal.seek(&at, Seek::Next)?;
                most = most.max(next.0.saturating_sub(self.folder.history.next(&at.topic, partition).0));
            }
        }
        Ok(most)
    }

    /// Waits until all that is in the log has gone through shards and history; with `finish`, closes all windows as at the end of a
    /// bounded input, level by level. False when it ended before.
    pub fn drain(&self, finish: bool, mut on_wait: impl FnMut(u64)) -> Result<bool> {
        let mut watch = self.folder.journal.watch();
        let mut level = 0;
        loop {
            if self.ended.asked() {
                return Ok(false);
            }
            let backlog = self.backlog()?;
            on_wait(backlog);
            let level_done = |level| {
                self.shards.iter().zip(self.levels()).filter(|(_, l)| *l < level).all(|((_, v), _)| v.finished.load(Ordering::Acquire))
            };
            if backlog == 0 && level_done(level) {
                if !finish || level > self.levels().max().unwrap_or(0) {
                    break;
                }
                level += 1;
                self.finish_below.store(level, Ordering::Release);
            }
            watch.wait(Duration::from_millis(20));
        }
        while self.history_backlog()? > 0 && !self.ended.asked() {
            watch.wait(Duration::from_millis(20));
        }
        Ok(!self.ended.asked())
    }

    fn levels(&self) -> impl Iterator<Item = u32> + '_ {
        self.plan.shards.iter().flat_map(|s| std::iter::repeat_n(s.level, s.partitions as usize))
    }

    /// Has the shards follow the features and rules of another configuration, from the next row on. The streams must be the same;
    /// everything else of the other configuration waits for a restart. How many streams got new rules.
    pub fn reload_rules(&self, next: &Checked) -> Result<usize> {
        let plan = Plan::new(next)?;
        let wanted = wanted_rules(next, &plan)?;
        let same = wanted.keys().eq(self.wanted_rules.keys());
        ensure!(same, "rules were added to a stream that had none, or the last of a stream were removed: that takes a restart");
        let mut n_changed = 0;
        for (topic, rules) in wanted {
            let rules = rules.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut present = self.wanted_rules[&topic].lock().unwrap_or_else(PoisonError::into_inner);
            n_changed += usize::from(*present != rules);
            *present = rules;
        }
        Ok(n_changed)
    }

    /// Stops everything in order, after the sources and the server were stopped; loses nothing. The first error of any part comes out.
    pub fn stop(&self) -> Result<()> {
        let join = |tasks: &Mutex<Tasks>| tasks.lock().unwrap_or_else(PoisonError::into_inner).join();
        let results = [join(&self.workers), join(&self.archive)];
        self.folder.journal.flush().context("cannot flush the log")?;
        results.into_iter().collect()
    }
}

pub type Shards = Vec<(TopicPartition, Arc<ShardVitals>)>;

/// Drops old rows from the log, but none that a shard's snapshot or the history's files do not cover yet.
fn run_retention(folder: &Folder, plan: &[(Topic, Topic)], shards: &Shards, clock: &Clock, every: Duration, stop: &Stop) -> Result<()> {
    let (mut schemas_from, mut keys_from) = (folder.schemas_from, Offset::ZERO);
    while !stop.wait(every) {
        let floor = |at: &TopicPartition| lowest_needed(at, folder, plan, shards, schemas_from);
        let Some(retained) = unless_full(idempotency::retain(&folder.journal, clock(), &mut keys_from, &floor))? else { continue };
        let held = |topic: &str| retained.held_by.as_ref().is_some_and(|(at, _)| at.topic.as_str() == topic);
        if held(SCHEMAS) {
            schemas_from = unless_full(folder.schemas.record(&*folder.journal))?.unwrap_or(schemas_from);
        }
        unless_full(folder.notes.renew(held(CAPTURES)))?;
    }
    Ok(())
}

/// What is written anew because only its old records keep rows from going, at most once per segment. None: there is no room for it now.
fn unless_full<T>(written: Result<T>) -> Result<Option<T>> {
    match written {
        Ok(done) => Ok(Some(done)),
        Err(error) if matches!(error.downcast_ref(), Some(LogError::DiskFull { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// With relaxed durability the journal itself syncs only when it commits: what was committed last must not wait for the next commit.
fn run_flushes(journal: &Journal, flush_every: Duration, stop: &Stop) -> Result<()> {
    while !stop.wait(flush_every) {
        journal.flush().context("cannot flush the log")?;
    }
    Ok(())
}

/// The first offset that somebody still needs; `decided` pairs each shard input with its topic of decisions.
pub fn lowest_needed(at: &TopicPartition, folder: &Folder, decided: &[(Topic, Topic)], shards: &Shards, schemas_from: Offset) -> Offset {
    if at.topic.as_str() == SCHEMAS {
        return schemas_from;
    }
    if at.topic.as_str() == CAPTURES {
        return folder.notes.needed_from();
    }
    let of_shard = |input: &Topic| shards.iter().find(|(i, _)| i.topic == *input && i.partition == at.partition).map(|(_, v)| v);
    if let Some((input, _)) = decided.iter().find(|(_, decisions)| *decisions == at.topic) {
        return of_shard(input).map_or(Offset(u64::MAX), |v| Offset(v.decisions_offset.load(Ordering::Acquire)));
    }
    let by_shard = of_shard(&at.topic).map_or(u64::MAX, |v| v.snapshot_offset.load(Ordering::Acquire));
    let in_history = folder.readers.iter().any(|(r, _)| r.schema().stream == at.topic);
    let by_history = if in_history { folder.history.durable(&at.topic, at.partition).0 } else { u64::MAX };
    Offset(by_shard.min(by_history))
}

/// By input topic: the rules that its shards are to follow.
pub type WantedRules = BTreeMap<Topic, Arc<Mutex<String>>>;

pub fn wanted_rules(config: &Checked, plan: &Plan) -> Result<WantedRules> {
    let mut wanted = WantedRules::new();
    for planned in &plan.shards {
        if let Some(rules) = planned.rules(config)? {
            wanted.insert(planned.input.stream.clone(), Arc::new(Mutex::new(rules)));
        }
    }
    Ok(wanted)
}

pub type Opened = (Vec<Held>, Shards);

/// All shards, recovered.
pub fn open_shards(config: &Checked, plan: &Plan, folder: &Folder, options: &RunOptions, wanted: &WantedRules) -> Result<Opened> {
    let (mut held, mut vitals) = (Vec::new(), Vec::new());
    for planned in &plan.shards {
        let reader = StreamReader::new(folder.log(), Arc::clone(&folder.schemas), Arc::clone(&planned.input));
        let reader = Arc::new(reader.with_recent(Arc::clone(&folder.recent)));
        for partition in (0..planned.partitions).map(Partition) {
            let runner = open_shard(config, planned, partition, &reader, folder, options, wanted)?;
            let seen = Arc::new(ShardVitals::default());
            vitals.push((runner.input().clone(), Arc::clone(&seen)));
            held.push(Held { runner, vitals: seen, level: planned.level });
        }
    }
    Ok((held, vitals))
}

fn open_shard(
    config: &Checked,
    planned: &PlannedShards,
    partition: Partition,
    reader: &Arc<StreamReader>,
    folder: &Folder,
    options: &RunOptions,
    wanted: &WantedRules,
) -> Result<ShardRunner> {
    let input = TopicPartition::new(planned.input.stream.clone(), partition);
    let state = folder.state.of_shard(&input);
    let rules = match wanted.get(&planned.input.stream) {
        Some(wanted) => Some(Rules { wanted: Arc::clone(wanted), in_effect: rules_in_effect(&state)? }),
        None => None,
    };
    let operators = planned.operators_under(config, rules.as_ref().and_then(|r| r.in_effect.as_deref()))?;
    let spec = ShardSpec {
        schema: Arc::clone(&planned.input),
        partition,
        out_of_orderness_us: planned.out_of_orderness_us,
        dedupe: planned.dedupe.clone(),
    };
    let shard = Shard::open(spec, operators, Box::new(state.clone())).with_context(|| format!("cannot open the shard of {input}"))?;
    let mut writers = BTreeMap::new();
    for schema in shard.outputs() {
        writers.insert(
            schema.stream.clone(),
            StreamWriter::new(&folder.schemas, Arc::clone(&schema), schema.stream.clone(), planned.partitions)?,
        );
    }
    let limits = ShardLimits {
        batch_rows: options.batch_rows,
        snapshot_every: config.state.snapshot_every,
        dirty_entries_max: config.state.dirty_entries_max,
        idle_after: planned.idle_after.filter(|_| !options.never_idle),
    };
    let setup = ShardSetup {
        log: folder.log(),
        reader: Arc::clone(reader),
        decisions: planned.decisions.clone(),
        input,
        state,
        writers,
        limits,
        rules,
    };
    ShardRunner::open(setup, shard)
}

/// Deals the shards out to workers, shards of one input apart from each other.
pub fn deal(held: Vec<Held>, workers: usize) -> Vec<Vec<Held>> {
    let mut hands: Vec<Vec<Held>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    let n = hands.len();
    for (i, held) in held.into_iter().enumerate() {
        hands[i % n].push(held);
    }
    hands.retain(|hand| !hand.is_empty());
    hands
}
