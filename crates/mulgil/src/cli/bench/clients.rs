//! Many WebSocket clients of one server: each counts what it gets and checks that it is exactly its symbols' trades, in order, once.

use super::load::cpu_seconds;
use super::load::poster::Load;
use super::load::socket::RawSocket;
use super::load::trades::{Scanner, Seen, symbol};
use crate::pipeline::now_micros;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[derive(Debug, clap::Args)]
pub struct ClientsArgs {
    #[arg(long)]
    url: String,
    #[arg(long, default_value_t = 1_000)]
    clients: u32,
    /// Symbols of the whole market.
    #[arg(long, default_value_t = 100)]
    symbols: u32,
    /// Symbols of each client; 0: all.
    #[arg(long, default_value_t = 10)]
    each: u32,
    /// Trades a second; 0: none are posted and nothing is checked, because the server is one that only repeats a frame.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, default_value = "trades")]
    stream: String,
    /// The server's process, to tell how much of a core it used.
    #[arg(long)]
    server_pid: u32,
}

/// What arrives so early is not counted into times and rates: connections, caches and allocators are still settling.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the last rows may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Figures of all clients together.
struct Shared {
    scanner: Scanner,
    times: Times,
    n_frames: AtomicU64,
    n_bytes: AtomicU64,
    /// Rows that were not the next of their symbol, or of a symbol that was not asked for.
    n_wrong: AtomicU64,
    /// Where nothing before it is counted.
    counted_from_us: AtomicU64,
}

/// Times in steps of 0.1 ms up to 10 s.
struct Times(Vec<AtomicU32>);

const STEP_US: u64 = 100;
const STEPS: usize = 100_000;

impl Times {
    fn add(&self, us: i64) {
        let step = (us.max(0) as u64 / STEP_US) as usize;
        self.0[step.min(STEPS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|n| u64::from(n.load(Ordering::Relaxed))).sum()
    }

    /// The end of the step in which the time lies that so many of all are not above.
    fn percentile_us(&self, p: f64) -> u64 {
        let wanted = (self.total() as f64 * p).ceil() as u64;
        let mut seen = 0;
        let reached = self.0.iter().position(|n| {
            seen += u64::from(n.load(Ordering::Relaxed));
            seen >= wanted.max(1)
        });
        reached.map_or(0, |step| (step as u64 + 1) * STEP_US)
    }
}

pub fn clients(args: &ClientsArgs) -> Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &ClientsArgs) -> Result<serde_json::Value> {
    let times = Times((0..STEPS).map(|_| AtomicU32::new(0)).collect());
    let shared = Arc::new(Shared {
        scanner: Scanner::new(),
        times,
        n_frames: AtomicU64::new(0),
        n_bytes: AtomicU64::new(0),
        n_wrong: AtomicU64::new(0),
        counted_from_us: AtomicU64::new(u64::MAX),
    });
    let (told, made) = watch::channel(None);
    let mut clients = Vec::new();
    for number in 0..args.clients {
        let client = Client::connect(args, number, Arc::clone(&shared), made.clone()).await.with_context(|| format!("client {number}"))?;
        clients.push(tokio::spawn(client.run()));
    }
    let load = Load {
        url: args.url.clone(),
        stream: args.stream.clone(),
        rate: args.rate,
        seconds: args.seconds + WARM_UP.as_secs(),
        n_symbols: args.symbols,
    };
    let posting = (args.rate > 0).then(|| tokio::spawn(load.post()));
    tokio::time::sleep(WARM_UP).await;
    let window = Window::open(&shared, args.server_pid)?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let mut figures = window.close(&shared, args.server_pid)?;
    let made = match posting {
        Some(posting) => posting.await??,
        None => Vec::new(),
    };
    let expected: u64 = (0..args.clients).map(|c| wanted(args, c).iter().map(|s| made.get(*s as usize).unwrap_or(&0)).sum::<u64>()).sum();
    told.send_replace(Some(Arc::new(made)));
    let mut received = 0;
    for client in clients {
        received += client.await??;
    }
    figures["clients"] = args.clients.into();
    figures["expected"] = expected.into();
    figures["received"] = received.into();
    figures["wrong"] = shared.n_wrong.load(Ordering::Relaxed).into();
    figures["p50_us"] = shared.times.percentile_us(0.5).into();
    figures["p99_us"] = shared.times.percentile_us(0.99).into();
    figures["max_us"] = shared.times.percentile_us(1.0).into();
    Ok(figures)
}

/// The part of the run that is counted.
struct Window {
    began: Instant,
    n_frames: u64,
    n_bytes: u64,
    server_cpu: f64,
    own_cpu: f64,
}

impl Window {
    fn open(shared: &Shared, server: u32) -> Result<Self> {
        shared.counted_from_us.store(now_micros() as u64, Ordering::Relaxed);
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (n_frames, n_bytes) = (count(&shared.n_frames), count(&shared.n_bytes));
        Ok(Self { began: Instant::now(), n_frames, n_bytes, server_cpu: cpu_seconds(server)?, own_cpu: cpu_seconds(std::process::id())? })
    }

    fn close(self, shared: &Shared, server: u32) -> Result<serde_json::Value> {
        let seconds = self.began.elapsed().as_secs_f64();
        let since = |n: &AtomicU64, before: u64| n.load(Ordering::Relaxed) - before;
        Ok(serde_json::json!({
            "seconds": seconds, "frames": since(&shared.n_frames, self.n_frames), "bytes": since(&shared.n_bytes, self.n_bytes),
            "server_cpu_seconds": cpu_seconds(server)? - self.server_cpu, "own_cpu_seconds": cpu_seconds(std::process::id())? - self.own_cpu,
        }))
    }
}

/// The symbols of a client: spread over the market, so that each symbol has about as many listeners as any other.
fn wanted(args: &ClientsArgs, client: u32) -> Vec<u32> {
    match args.each {
        0 => (0..args.symbols).collect(),
        each => (0..each.min(args.symbols)).map(|i| (client * each + i) % args.symbols).collect(),
    }
}

struct Client {
    socket: RawSocket,
    shared: Arc<Shared>,
    /// By symbol: the place of its next trade.
    next: BTreeMap<u32, u64>,
    received: u64,
    /// How many trades of each symbol there were, once all are posted.
    made: watch::Receiver<Option<Arc<Vec<u64>>>>,
    is_checked: bool,
}

impl Client {
    async fn connect(args: &ClientsArgs, number: u32, shared: Arc<Shared>, made: watch::Receiver<Option<Arc<Vec<u64>>>>) -> Result<Self> {
        let address = args.url.trim_start_matches("http://");
        let mut socket = RawSocket::connect(address, "/api/v1/stock/realtime").await?;
        let wanted = wanted(args, number);
        let is_checked = args.rate > 0;
        if is_checked {
            let symbols = match args.each {
                0 => serde_json::json!("all"),
                _ => wanted.iter().map(|s| symbol(*s)).collect::<Vec<_>>().into(),
            };
            let subscribe =
                serde_json::json!({ "op": "subscribe", "id": "c", "streams": [args.stream], "symbols": symbols, "mode": "stream" });
            socket.send_text(&subscribe.to_string()).await?;
            let first = socket.next().await?;
            ensure!(memchr::memmem::find(first, b"\"subscribed\"").is_some(), "no subscription: {}", String::from_utf8_lossy(first));
        }
        Ok(Self { socket, shared, next: wanted.into_iter().map(|s| (s, 0)).collect(), received: 0, made, is_checked })
    }

    /// Until everything that was posted has arrived (or, from a server that repeats itself, until the end is told); the rows received.
    async fn run(mut self) -> Result<u64> {
        let mut made = self.made.clone();
        loop {
            let told = self.made.borrow().clone();
            let is_done = |made: &Arc<Vec<u64>>| self.next.iter().all(|(s, next)| made.get(*s as usize).unwrap_or(&0) <= next);
            if told.as_ref().is_some_and(is_done) {
                return Ok(self.received);
            }
            tokio::select! {
                frame = tokio::time::timeout(PATIENCE, self.socket.next()) => {
                    let frame = frame.with_context(|| format!("nothing came any more after {} rows", self.received))??;
                    let Some(n) = look(&self.shared, frame, &mut self.next, self.is_checked) else { continue };
                    self.received += n;
                }
                changed = made.changed(), if told.is_none() => changed.context("the poster is gone")?,
            }
        }
    }
}

/// Checks a frame's trades; None for a frame without any, such as a cursor.
fn look(shared: &Shared, frame: &[u8], next: &mut BTreeMap<u32, u64>, is_checked: bool) -> Option<u64> {
    let now = now_micros();
    let is_counted = now as u64 >= shared.counted_from_us.load(Ordering::Relaxed);
    let mut n_wrong = 0;
    let n = if is_checked {
        shared.scanner.each(frame, |Seen { symbol, place, due_us }| {
            match next.get_mut(&symbol) {
                Some(next) => {
                    n_wrong += u64::from(*next != place);
                    *next = place + 1;
                }
                None => n_wrong += 1,
            }
            if is_counted {
                shared.times.add(now - due_us);
            }
        })
    } else {
        1
    };
    shared.n_wrong.fetch_add(n_wrong, Ordering::Relaxed);
    (n > 0).then(|| {
        shared.n_frames.fetch_add(1, Ordering::Relaxed);
        shared.n_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        n
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_ends_of_their_steps() {
        let times = Times((0..STEPS).map(|_| AtomicU32::new(0)).collect());
        (1..=100).for_each(|ms| times.add(ms * 1_000 - 1));
        assert_eq!((times.percentile_us(0.5), times.percentile_us(0.99), times.percentile_us(1.0)), (50_000, 99_000, 100_000));
    }
}
