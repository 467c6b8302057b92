//! `mulgil run`: the whole program, with its server, until it is told to stop.

use super::{Where, remote};
use crate::adapters::captured::{CapturedDatabases, Started};
use crate::adapters::feed::{LogFeed, forward_commits};
use crate::adapters::generator::Market;
use crate::adapters::ingest::LogIngest;
use crate::adapters::past::HistoryPast;
use crate::adapters::vitals::PipelineVitals;
use crate::capture::rows;
use crate::config::checked::Checked;
use crate::config::load;
use crate::pipeline::clock;
use crate::pipeline::folder::query_limits;
use crate::pipeline::running::{RunOptions, Running};
use crate::pipeline::stop::Stop;
use anyhow::{Context, Result};
use clap::Args;
use futures::FutureExt;
use mulgil_serve::config::{KeyConfig, Scope, ServeConfig, Tls};
use mulgil_serve::ports::Ports;
use mulgil_serve::server::Server;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;
use tokio::sync::watch;

#[derive(Debug, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    at: Where,
    /// Listen here, instead of the configuration's [serve] bind.
    #[arg(short, long, value_name = "ADDR:PORT")]
    bind: Option<SocketAddr>,
    /// Listen on a public address although no keys are configured: everybody who reaches it may read, ingest and control.
    #[arg(long)]
    allow_public: bool,
}

pub fn run(args: RunArgs) -> Result<()> {
    log_to_stderr();
    let mut config = load(&args.at)?;
    config.serve.bind = args.bind.unwrap_or(config.serve.bind);
    config.serve.allow_public |= args.allow_public;
    rows::check(&config)?;
    let server = ServerSetup::new(&config)?;
    let running = Arc::new(Running::start(config, &RunOptions::default(), clock())?);
    let market = Arc::new(Market::new(Arc::clone(&running)));
    let served = server.start(&running, &market)?;
    let stop = on_signal(&served.threads, &running.ended);
    greet(&running, &served);
    market.start_configured()?;
    let captures = running.start_captures()?;
    served.captures.set(Arc::clone(&captures)).ok();
    reload_on_hangup(&served.threads, &running, args.at);
    show_status(&running, &served, &stop);
    eprintln!("stopping: sources, server, shards, history, log");
    market.stop_all();
    let captured = captures.stop();
    served.stop()?;
    running.stop().and(captured)?;
    eprintln!("stopped; everything that was accepted is on disk");
    Ok(())
}

/// What can be refused before anything is opened: addresses, keys, certificates.
pub struct ServerSetup {
    config: ServeConfig,
}

/// The server at work.
pub struct Served {
    pub url: String,
    pub threads: Runtime,
    live: Runtime,
    queries: Runtime,
    pub vitals: Arc<PipelineVitals>,
    pub captures: Started,
    stop: Stop,
    server: tokio::task::JoinHandle<Result<()>>,
    dir: std::path::PathBuf,
}

impl ServerSetup {
    pub fn new(config: &Checked) -> Result<Self> {
        let plan = &config.serve;
        let scope = |name: &str, text: &String| {
            Scope::parse(text).with_context(|| format!("[[serve.keys]] {name}: scope '{text}' is not known: use read, ingest or admin"))
        };
        let mut keys = Vec::new();
        for key in &plan.keys {
            let scopes = key.scopes.iter().map(|s| scope(&key.name, s)).collect::<Result<_>>()?;
            keys.push(KeyConfig { name: key.name.clone(), scopes, key: key.secret.clone() });
        }
        let pem = |path: &std::path::Path| std::fs::read(path).with_context(|| format!("[serve.tls] cannot read {}", path.display()));
        let tls =
            plan.tls.as_ref().map(|(cert, key)| Ok::<_, anyhow::Error>(Tls { cert_pem: pem(cert)?, key_pem: pem(key)? })).transpose()?;
        let mut serve = ServeConfig {
            bind: plan.bind,
            keys,
            allow_public: plan.allow_public,
            tls,
            cors_origins: plan.cors_origins.clone(),
            ..ServeConfig::default()
        };
        serve.limits.body_bytes_max = plan.body_bytes_max as usize;
        serve.limits.bodies_bytes_max = plan.bodies_bytes_max as usize;
        serve.limits.request_timeout = plan.request_timeout;
        serve.limits.header_timeout = plan.header_timeout;
        serve.limits.ws_clients_max = plan.ws_clients_max;
        serve.limits.sse_clients_max = plan.sse_clients_max;
        serve.limits.connections_max = plan.connections_max;
        serve.limits.requests_max = plan.requests_max;
        serve.limits.ws_subscriptions_max = plan.ws_subscriptions_max;
        serve.limits.ws_buffer_bytes_max = plan.ws_buffer_bytes_max as usize;
        serve.limits.ring_bytes_max = plan.ring_bytes_max as usize;
        serve.check_reach()?;
        Ok(Self { config: serve })
    }

    pub fn start(self, running: &Arc<Running>, market: &Arc<Market>) -> Result<Served> {
        let metrics = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().context("cannot set up metrics")?;
        let threads = runtime("serve", THREADS)?;
        let queries = runtime("query", THREADS)?;
        let live = runtime("live", live_threads())?;
        let (ticks, changed) = watch::channel(0);
        let stop = Stop::default();
        live.spawn(forward_commits(running.folder.log(), ticks, stop.clone()));
        let captures = Started::default();
        let vitals = Arc::new(PipelineVitals::new(Arc::clone(running), Arc::clone(&captures)));
        let folder = &running.folder;
        let clock = Arc::clone(&running.clock);
        let clients = live.handle().clone();
        let ports = Ports {
            feed: Arc::new(LogFeed::new(folder, &running.config, changed)?),
            ingest: Arc::new(LogIngest::new(&running.config, &running.plan, folder, clock())?),
            past: Arc::new(HistoryPast::new(Arc::clone(&folder.history), queries.handle().clone(), query_limits(&running.config))),
            generator: Arc::clone(market) as _,
            captured: Arc::new(CapturedDatabases(Arc::clone(&captures))),
            vitals: Arc::clone(&vitals) as _,
            clock: Arc::new(move || clock().0),
            live: Arc::new(move |client| clients.spawn(client).map(drop).boxed()),
            metrics,
        };
        let server = Server::new(self.config, ports)?;
        let listener = server.bind().context("the server cannot start (--bind or [serve] bind choose another address)")?;
        let url = server.url(listener.local_addr()?).trim_end_matches('/').to_owned();
        let ending = stop.clone();
        let ended = running.ended.clone();
        let server = threads.spawn(async move {
            let result = server.serve(listener, async move { ending.wait_async().await }).await;
            ended.ask();
            result.context("the server")
        });
        remote::announce(&folder.dir, &url)?;
        Ok(Served { url, threads, live, queries, vitals, captures, stop, server, dir: folder.dir.clone() })
    }
}

impl Served {
    pub fn stop(self) -> Result<()> {
        remote::withdraw(&self.dir);
        self.stop.ask();
        let result = self.threads.block_on(self.server).context("the server broke")?;
        self.queries.shutdown_background();
        self.live.shutdown_background();
        self.threads.shutdown_timeout(Duration::from_secs(1));
        result
    }
}

/// Of the runtimes for requests and for queries.
pub const THREADS: usize = 2;

/// Live clients get half of the machine: what they need beyond that makes them rest longer, not requests wait.
fn live_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).max(1)
}

/// Threads that the history may be asked on.
pub fn runtime(name: &str, n_threads: usize) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(n_threads).thread_stack_size(mulgil_history::STACK_BYTES).thread_name(name);
    Ok(builder.enable_all().build()?)
}

/// Libraries that warn about what is no fault of the user's (statistics that a file does not have) are heard only when they fail.
const QUIET: &str =
    "warn,parquet=error,datafusion=error,datafusion_datasource_parquet=error,datafusion_physical_plan=error,datafusion_pruning=error";

/// Normal operation is quiet: warnings and errors only, unless RUST_LOG says otherwise.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| QUIET.into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init().ok();
}

fn greet(running: &Running, served: &Served) {
    let url = &served.url;
    eprintln!("mulgil {} · data in {}", env!("CARGO_PKG_VERSION"), running.folder.dir.display());
    if let Some(repaired) = &running.folder.repaired {
        eprintln!("the log's last write was cut short and has been removed; it had never been acknowledged ({repaired})");
    }
    eprintln!();
    eprintln!("  live page   {url}/");
    eprintln!("  history     curl '{url}/api/v1/stock/search?ticker=005930&interval=minute'");
    eprintln!("  alerts      curl -N {url}/api/v1/stock/anomaly");
    eprintln!(
        "  SQL         mulgil query 'SELECT symbol, count(*) FROM trades GROUP BY symbol ORDER BY 2 DESC' --data {}",
        running.folder.dir.display()
    );
    eprintln!(
        "  put rows in curl {url}/api/v1/ingest/trades -H 'content-type: application/json' -d '{{\"symbol\":\"005930\",\"event_time\":…}}'"
    );
    eprintln!();
    eprintln!("Ctrl-C stops in order and loses nothing.");
}

/// Resolves when the process is told to end, or a part of it has failed. From here on a signal no longer just ends the process.
fn on_signal(threads: &Runtime, ended: &Stop) -> Stop {
    let (stop, ended) = (Stop::default(), ended.clone());
    let asked = stop.clone();
    let _inside = threads.enter();
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| tokio::signal::unix::signal(kind).ok());
    let [interrupted, terminated] = signals.map(|signal| async move {
        match signal {
            Some(mut signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    });
    threads.spawn(async move {
        tokio::select! {
            () = interrupted => {}
            () = terminated => {}
            () = ended.wait_async() => {}
        }
        asked.ask();
    });
    stop
}

/// `kill -HUP`: features and rules are read again and take effect from the next row on. A configuration with a mistake changes nothing.
fn reload_on_hangup(threads: &Runtime, running: &Arc<Running>, at: Where) {
    let running = Arc::clone(running);
    threads.spawn(async move {
        let Ok(mut hangups) = tokio::signal::unix::signal(SignalKind::hangup()) else { return };
        while hangups.recv().await.is_some() {
            match load(&at).and_then(|next| running.reload_rules(&next)) {
                Ok(n) => eprintln!("rules read again: {n} streams have new ones"),
                Err(error) => eprintln!("the rules stay as they are: {error:#}"),
            }
        }
    });
}

/// Samples vitals once a second until told to stop, and keeps one quiet line on a terminal up to date.
fn show_status(running: &Running, served: &Served, stop: &Stop) {
    let line = indicatif::ProgressBar::new_spinner();
    let shown = std::io::stderr().is_terminal();
    line.set_draw_target(if shown { indicatif::ProgressDrawTarget::stderr() } else { indicatif::ProgressDrawTarget::hidden() });
    line.set_style(indicatif::ProgressStyle::with_template("{msg}").unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()));
    let mut rows_before = None;
    loop {
        served.vitals.sample();
        let rows = served.vitals.n_input_rows.load(std::sync::atomic::Ordering::Relaxed);
        let rate = rows - rows_before.unwrap_or(rows);
        rows_before = Some(rows);
        let lag =
            mulgil_serve::ports::Vitals::lag(&*served.vitals).into_iter().filter(|h| h.hop == "log").map(|h| h.seconds).fold(0.0, f64::max);
        let log_mb = running.folder.journal.stats().journal_bytes / 1_000_000;
        line.set_message(format!("{rows} rows · {rate}/s · log {log_mb} MB · lag {:.0} ms", lag * 1e3));
        if stop.wait(Duration::from_secs(1)) {
            line.finish_and_clear();
            return;
        }
    }
}
