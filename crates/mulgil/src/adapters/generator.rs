//! The market simulator as a source: trades of a seeded random walk, started and stopped on demand.

use super::ingest::writer_into;
use super::inserts;
use super::producer::{Ends, IntoLog, Producer, Wanted};
use super::targets::Target;
use crate::config::checked::SimulatorPlan;
use crate::pipeline::running::Running;
use crate::pipeline::stop::Stop;
use anyhow::{Context, Result};
use futures::{FutureExt, future::BoxFuture};
use mulgil_connect::sources::simulator::{Hours, Simulator, SimulatorConfig};
use mulgil_log::Owner;
use mulgil_model::ids::{Partition, TopicPartition};
use mulgil_model::schema::{StreamKind, StreamSchema};
use mulgil_model::time::EventTime;
use mulgil_serve::ports::{GenerateRequest, Generator, GeneratorStatus, PortError, PortErrorKind, RunState, Started};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// What the generator may be asked for: more than any disk takes.
const RATE_MAX: f64 = 5_000_000.0;

/// Whether the run could begin, or why not.
type Opened = oneshot::Receiver<Result<(), PortError>>;

enum Begun {
    Fresh(GeneratorStatus, Opened),
    Before(GeneratorStatus),
}

/// Starts and stops runs of the simulator; at most one run per configured source.
pub struct Market {
    running: Arc<Running>,
    runs: Mutex<Vec<Run>>,
    starting: Mutex<()>,
}

struct Run {
    plan: SimulatorPlan,
    status: Arc<Mutex<GeneratorStatus>>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Market {
    pub fn new(running: Arc<Running>) -> Self {
        Self { running, runs: Mutex::default(), starting: Mutex::default() }
    }

    /// Starts the sources that the configuration wants running.
    pub fn start_configured(&self) -> Result<()> {
        for plan in self.running.config.simulators.iter().filter(|p| p.start) {
            self.begin(plan.clone(), Ends::default(), None).with_context(|| format!("[source.{}]", plan.name))?;
        }
        Ok(())
    }

    pub fn stop_all(&self) {
        let mut runs = lock(&self.runs);
        runs.iter().for_each(|run| run.stop.ask());
        runs.iter_mut().filter_map(|run| run.thread.take()).for_each(|thread| drop(thread.join()));
    }

    /// A second start changes nothing, but for one that wants the trades elsewhere.
    fn begin_or_find(&self, plan: SimulatorPlan, ends: Ends, target: Option<Target>) -> Result<Begun, PortError> {
        let _one_at_a_time = lock(&self.starting);
        let under_way = lock(&self.runs).iter().map(|run| lock(&run.status).clone()).find(|s| s.state == RunState::Running);
        let Some(status) = under_way else {
            let begun = self.begin(plan, ends, target).map_err(|e| PortError::new(PortErrorKind::Invalid, format!("{e:#}")))?;
            return Ok(Begun::Fresh(begun.0, begun.1));
        };
        let wanted = target.as_ref().map(Target::name);
        if status.into == wanted {
            return Ok(Begun::Before(status));
        }
        let place = |into: Option<String>| into.unwrap_or_else(|| "the stream".to_owned());
        let detail = format!("a run puts trades into {}: stop it before one into {}", place(status.into), place(wanted));
        Err(PortError::new(PortErrorKind::Conflict, detail))
    }

    /// What runs now, and whether its way is open, as soon as that is known.
    fn begin(&self, plan: SimulatorPlan, ends: Ends, into: Option<Target>) -> Result<(GeneratorStatus, Opened)> {
        let started = (self.running.clock)().0;
        let config = simulator_config(&plan, started);
        let symbols = config.validate()?.iter().map(|i| i.symbol.to_owned()).collect();
        let status = Arc::new(Mutex::new(GeneratorStatus {
            id: format!("{}-{started}", plan.name),
            state: RunState::Running,
            symbols,
            rate: plan.rate,
            seed: config.seed,
            into: into.as_ref().map(Target::name),
            produced: 0,
            anomalies: 0,
            started,
            ended: None,
            detail: String::new(),
        }));
        let (schema, wanted) = match into {
            Some(target) => (inserts::schema(target.stream())?, Wanted::Table(target)),
            None => self.to_log(&plan, started)?,
        };
        let simulator = Simulator::new(&config, schema)?;
        let (opened, is_open) = oneshot::channel();
        let (clock, stop, name) = (Arc::clone(&self.running.clock), Stop::default(), plan.name.clone());
        let (asked, told) = (stop.clone(), Arc::clone(&status));
        let body = move || match wanted.open() {
            Ok(way) => {
                // Whoever asked may be gone; the run is there to be asked about.
                opened.send(Ok(())).ok();
                Producer { name, simulator, way, started, ends, status: told }.run(&clock, &asked);
            }
            Err(error) => {
                let mut status = lock(&told);
                (status.state, status.ended, status.detail) = (RunState::Failed, Some(clock().0), error.detail.clone());
                drop(status);
                opened.send(Err(error)).ok();
            }
        };
        let thread =
            std::thread::Builder::new().name(format!("source-{}", plan.name)).spawn(body).context("cannot start the simulator's thread")?;
        let now = lock(&status).clone();
        let mut runs = lock(&self.runs);
        runs.retain(|run| run.plan.name != plan.name || lock(&run.status).state == RunState::Running);
        runs.push(Run { plan, status, stop, thread: Some(thread) });
        Ok((now, is_open))
    }

    fn to_log(&self, plan: &SimulatorPlan, started: i64) -> Result<(Arc<StreamSchema>, Wanted)> {
        let schema = self.running.config.streams.iter().find(|s| s.schema.stream == plan.stream).map(|s| Arc::clone(&s.schema));
        let schema = schema.with_context(|| format!("there is no stream '{}'", plan.stream))?;
        let writer = writer_into(&self.running.plan, &self.running.folder.schemas, &plan.stream)?;
        let (log, recent) = (self.running.folder.log(), Arc::clone(&self.running.folder.recent));
        Ok((schema, Wanted::Log(IntoLog { log, writer, recent, source: source(plan)?, at: at(plan), started })))
    }

    /// The plan that a request is about: the first simulator of the configuration, or one for the table or the first stream of trades.
    fn plan(&self, request: &GenerateRequest, target: Option<&Target>) -> Result<SimulatorPlan, PortError> {
        let config = &self.running.config;
        let first = config.simulators.first().cloned();
        let of_stream = || {
            let trades = config.streams.iter().find(|s| s.schema.kind == StreamKind::Trade).map(|s| &s.schema.stream);
            target.map(Target::stream).or(trades).map(|stream| SimulatorPlan {
                name: "market".to_owned(),
                stream: stream.clone(),
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
            let target = request.into.as_deref().map(|into| Target::find(&self.running.config, into)).transpose()?;
            let plan = self.plan(&request, target.as_ref())?;
            let ends = Ends { after: request.duration, count: request.count };
            let (status, is_open) = match self.begin_or_find(plan, ends, target)? {
                Begun::Fresh(status, is_open) => (status, is_open),
                Begun::Before(status) => return Ok(Started { status, already_running: true }),
            };
            let broke = |_| Err(PortError::new(PortErrorKind::Internal, "the simulator's thread broke"));
            is_open.await.unwrap_or_else(broke)?;
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
