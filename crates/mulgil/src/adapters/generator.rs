//! The market simulator as a source: trades of a seeded random walk, committed as they happen.

use super::ingest::writer_into;
use crate::config::checked::SimulatorPlan;
use crate::pipeline::recent::Recent;
use crate::pipeline::running::Running;
use crate::pipeline::stop::Stop;
use crate::pipeline::writer::StreamWriter;
use anyhow::{Context, Result};
use arrow::array::{Array, RecordBatch};
use futures::{FutureExt, future::BoxFuture};
use mulgil_connect::sources::simulator::{Hours, Simulator, SimulatorConfig};
use mulgil_log::{Advance, Commit, Log, LogError, Owner};
use mulgil_model::ids::{Partition, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::{EventTime, ReceiveTime};
use mulgil_serve::ports::{GenerateRequest, Generator, GeneratorStatus, PortError, PortErrorKind, RunState, Started};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often trades are committed: what a client waits for at most, before the disk.
const BEAT: Duration = Duration::from_millis(20);

/// Trades of one commit at most.
const BATCH_ROWS: usize = 20_000;

/// What the generator may be asked for: more than any disk takes.
const RATE_MAX: f64 = 5_000_000.0;

const DISK_FULL_WAIT: Duration = Duration::from_secs(1);

/// Starts and stops runs of the simulator; at most one run per configured source.
pub struct Market {
    running: Arc<Running>,
    runs: Mutex<Vec<Run>>,
}

struct Run {
    plan: SimulatorPlan,
    status: Arc<Mutex<GeneratorStatus>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// When a run ends by itself.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    after: Option<Duration>,
    count: Option<u64>,
}

impl Market {
    pub fn new(running: Arc<Running>) -> Self {
        Self { running, runs: Mutex::default() }
    }

    /// Starts the sources that the configuration wants running.
    pub fn start_configured(&self) -> Result<()> {
        for plan in self.running.config.simulators.iter().filter(|p| p.start) {
            self.begin(plan.clone(), Ends::default()).with_context(|| format!("[source.{}]", plan.name))?;
        }
        Ok(())
    }

    pub fn stop_all(&self) {
        let mut runs = lock(&self.runs);
        runs.iter().for_each(|run| run.stop.ask());
        runs.iter_mut().filter_map(|run| run.thread.take()).for_each(|thread| drop(thread.join()));
    }

    fn begin(&self, plan: SimulatorPlan, ends: Ends) -> Result<GeneratorStatus> {
        let started = (self.running.clock)().0;
        let schema = self.running.config.streams.iter().find(|s| s.schema.stream == plan.stream).map(|s| Arc::clone(&s.schema));
        let schema = schema.with_context(|| format!("there is no stream '{}'", plan.stream))?;
        let config = simulator_config(&plan, started);
        let symbols = config.validate()?.iter().map(|i| i.symbol.to_owned()).collect();
        let simulator = Simulator::new(&config, schema)?;
        let writer = writer_into(&self.running.plan, &self.running.folder.schemas, &plan.stream)?;
        let status = Arc::new(Mutex::new(GeneratorStatus {
            id: format!("{}-{started}", plan.name),
            state: RunState::Running,
            symbols,
            rate: plan.rate,
            seed: config.seed,
            produced: 0,
            anomalies: 0,
            started,
            ended: None,
            detail: String::new(),
        }));
        let stop = Stop::default();
        let producer = Producer {
            log: self.running.folder.log(),
            simulator,
            writer,
            recent: Arc::clone(&self.running.folder.recent),
            source: source(&plan)?,
            at: at(&plan),
            started,
            ends,
            status: Arc::clone(&status),
        };
        let (clock, asked) = (Arc::clone(&self.running.clock), stop.clone());
        let body = move || producer.run(&clock, &asked);
        let thread =
            std::thread::Builder::new().name(format!("source-{}", plan.name)).spawn(body).context("cannot start the simulator's thread")?;
        let now = lock(&status).clone();
        let mut runs = lock(&self.runs);
        runs.retain(|run| run.plan.name != plan.name || lock(&run.status).state == RunState::Running);
        runs.push(Run { plan, status, stop, thread: Some(thread) });
        Ok(now)
    }

    /// The plan that a request is about: the first simulator of the configuration, or one for the first stream of trades.
    fn plan(&self, request: &GenerateRequest) -> Result<SimulatorPlan, PortError> {
        let config = &self.running.config;
        let first = config.simulators.first().cloned();
        let of_stream = || {
            config.streams.iter().find(|s| s.schema.kind == mulgil_model::schema::StreamKind::Trade).map(|s| SimulatorPlan {
                name: "market".to_owned(),
                stream: s.schema.stream.clone(),
                start: false,
                rate: 100.0,
                seed: None,
                symbols: vec![],
                anomaly_share: 0.002,
                always_open: true,
            })
        };
        let no_stream = || PortError::new(PortErrorKind::NotFound, "no stream of trades is configured: add a [stream.trades]");
        let mut plan = first.or_else(of_stream).ok_or_else(no_stream)?;
        plan.rate = request.rate.unwrap_or(plan.rate);
        plan.seed = request.seed.or(plan.seed);
        plan.anomaly_share = request.anomaly_share.unwrap_or(plan.anomaly_share);
        if !request.symbols.is_empty() {
            plan.symbols.clone_from(&request.symbols);
        }
        if !(plan.rate > 0.0 && plan.rate <= RATE_MAX) {
            return Err(PortError::new(
                PortErrorKind::Invalid,
                format!("rate {} must be above 0 and at most {RATE_MAX} trades per second", plan.rate),
            ));
        }
        Ok(plan)
    }

    fn status_of(&self, id: Option<&str>) -> Result<Arc<Mutex<GeneratorStatus>>, PortError> {
        let runs = lock(&self.runs);
        let found = runs.iter().rev().find(|run| id.is_none_or(|id| lock(&run.status).id == id));
        found.map(|run| Arc::clone(&run.status)).ok_or_else(|| {
            PortError::new(PortErrorKind::NotFound, "the generator has not run yet: start it with POST /api/v1/stock/generate")
        })
    }
}

impl Generator for Market {
    fn start(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Started, PortError>> {
        async move {
            let plan = self.plan(&request)?;
            let under_way = lock(&self.runs).iter().map(|run| lock(&run.status).clone()).find(|s| s.state == RunState::Running);
            if let Some(status) = under_way {
                return Ok(Started { status, already_running: true });
            }
            let status = self.begin(plan, Ends { after: request.duration, count: request.count });
            let status = status.map_err(|e| PortError::new(PortErrorKind::Invalid, format!("{e:#}")))?;
            Ok(Started { status, already_running: false })
        }
        .boxed()
    }

    fn status(&self, id: Option<&str>) -> Result<GeneratorStatus, PortError> {
        Ok(lock(&*self.status_of(id)?).clone())
    }

    fn stop(&self, id: Option<String>) -> BoxFuture<'_, Result<GeneratorStatus, PortError>> {
        async move {
            let status = self.status_of(id.as_deref())?;
            let thread = {
                let mut runs = lock(&self.runs);
                let run = runs.iter_mut().find(|run| Arc::ptr_eq(&run.status, &status));
                run.and_then(|run| {
                    run.stop.ask();
                    run.thread.take()
                })
            };
            if let Some(thread) = thread {
                let joined = tokio::task::spawn_blocking(move || thread.join().is_ok()).await;
                tracing::debug!(ok = joined.unwrap_or(false), "simulator stopped");
            }
            let now = lock(&status).clone();
            Ok(now)
        }
        .boxed()
    }
}

fn source(plan: &SimulatorPlan) -> Result<Owner> {
    Ok(Owner::new(&format!("source/{}", plan.name))?)
}

/// A simulator has one partition of its own to be at a place in.
fn at(plan: &SimulatorPlan) -> TopicPartition {
    TopicPartition::new(plan.stream.clone(), Partition(0))
}

fn simulator_config(plan: &SimulatorPlan, start: i64) -> SimulatorConfig {
    SimulatorConfig {
        symbols: plan.symbols.clone(),
        rate: plan.rate,
        anomaly_share: plan.anomaly_share,
        seed: plan.seed.unwrap_or(start.unsigned_abs()),
        start: EventTime(start),
        hours: if plan.always_open { Hours::Always } else { Hours::Session },
        ..SimulatorConfig::default()
    }
}

/// One run on its thread.
struct Producer {
    log: Arc<dyn Log>,
    simulator: Simulator,
    writer: StreamWriter,
    recent: Arc<Recent>,
    source: Owner,
    at: TopicPartition,
    started: i64,
    ends: Ends,
    status: Arc<Mutex<GeneratorStatus>>,
}

impl Producer {
    fn run(mut self, clock: &mulgil_log::Clock, stop: &Stop) {
        let result = self.produce(clock, stop);
        let mut status = lock(&self.status);
        status.ended = Some(clock().0);
        status.state = match &result {
            Ok(true) => RunState::Finished,
            Ok(false) => RunState::Stopped,
            Err(_) => RunState::Failed,
        };
        if let Err(error) = result {
            status.detail = format!("{error:#}");
            tracing::error!(source = self.source.as_str(), error = format!("{error:#}"), "the simulator failed");
        }
    }

    /// True when the run came to its own end.
    fn produce(&mut self, clock: &mulgil_log::Clock, stop: &Stop) -> Result<bool> {
        let until_us = self.ends.after.map(|d| self.started.saturating_add(crate::pipeline::plan::micros(d)));
        let mut produced = 0u64;
        loop {
            let now = clock().0;
            let left = self.ends.count.map_or(u64::MAX, |n| n - produced);
            let until = until_us.map_or(now, |end| now.min(end));
            let batch = self.simulator.next_until(EventTime(until), BATCH_ROWS.min(usize::try_from(left).unwrap_or(usize::MAX)));
            produced += batch.num_rows() as u64;
            if batch.num_rows() > 0 && !self.commit(&batch, produced, ReceiveTime(now), stop)? {
                return Ok(false);
            }
            if self.ends.count == Some(produced) || until_us.is_some_and(|end| now >= end) && batch.num_rows() == 0 {
                return Ok(true);
            }
            // A full batch means that more is due already.
            if batch.num_rows() < BATCH_ROWS && stop.wait(BEAT) || stop.asked() {
                return Ok(false);
            }
        }
    }

    /// Commits, waiting out a full disk; false when told to stop meanwhile.
    fn commit(&mut self, batch: &RecordBatch, produced: u64, received: ReceiveTime, stop: &Stop) -> Result<bool> {
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
                    lock(&self.status).detail = error.to_string();
                    if stop.wait(DISK_FULL_WAIT) {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        mulgil_disk::failpoint::here("simulator.after-commit");
        let mut status = lock(&self.status);
        status.detail.clear();
        status.produced = produced;
        status.anomalies += n_labelled(batch);
        Ok(true)
    }
}

fn n_labelled(batch: &RecordBatch) -> u64 {
    batch.column_by_name("label").map_or(0, |labels| (labels.len() - labels.null_count()) as u64)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
