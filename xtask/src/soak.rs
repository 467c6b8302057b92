//! `cargo xtask soak`: the whole pipeline at half of what it was just measured to sustain, for an hour. Everything that could grow is
//! sampled into a CSV and drawn; the verdict is about memory, open files, threads and rows that wait.

mod plot;
mod sample;

use crate::bench::inside::Inside;
use crate::bench::server::Server;
use crate::bench::{Bench, CONFIG};
use crate::tally::Tally;
use crate::workload::{self, Workload};
use anyhow::{Context, Result, bail};
use clap::Args;
use sample::{COLUMNS, Sample, growth};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Args)]
pub struct Options {
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Rows a second [default: half of the rate that is measured first, with the clients]
    #[arg(long)]
    rate: Option<u64>,
    /// WebSocket clients with ten of the hundred symbols each
    #[arg(long, default_value_t = 50)]
    clients: u32,
    /// Where soak.csv and soak.svg are written [default: the cache folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Log and history are kept small, so that removing what is old is part of the run.
const KEPT: &str = "\ndisk_budget = \"1GB\"\nflush_after = \"10s\"\n\n[log]\nretention = { bytes = \"1GB\" }\n";

const SAMPLE_EVERY: Duration = Duration::from_secs(3);

/// Growth over the second half, as a share of the mean there, that is still called flat: the tails of the history and the caches of the
/// disk come and go by more than that.
const GROWTH_MAX: f64 = 0.10;

/// Rows that wait at the end: two seconds' worth, since shards and history take what they find in batches.
const WAITING_SECONDS_MAX: f64 = 2.0;

pub fn run(options: &Options) -> Result<Tally> {
    let bench = Bench::new(1, None)?;
    let out = options.out.clone().map_or_else(crate::house::cache, Ok)?;
    std::fs::create_dir_all(&out)?;
    let rate = match options.rate {
        Some(rate) => rate,
        None => followed(&bench, options.clients, sustained(&bench)?)? / 2,
    };
    println!("{rate} rows/s for {} minutes, {} clients", options.minutes, options.clients);
    let config = format!("{CONFIG}{KEPT}");
    let workload = Workload::new(&bench.binary, &workload::fresh_folder("soak")?, &config)?;
    let server = Server::start(&workload)?;
    let (samples, clients) = soak(&bench, &server, &workload, options, rate)?;
    write_csv(&out.join("soak.csv"), &samples)?;
    std::fs::write(out.join("soak.svg"), plot::draw(&samples, rate))?;
    let mut tally = Tally::default();
    judge(&mut tally, &samples, rate, &clients);
    println!("{} and soak.svg beside it: {} samples", out.join("soak.csv").display(), samples.len());
    tally.close();
    Ok(tally)
}

/// Rows a second from the first post to the moment when shards and history have taken everything.
fn sustained(bench: &Bench) -> Result<u64> {
    const WITHIN: Duration = Duration::from_secs(300);
    let workload = bench.workload("soak-maximum")?;
    let server = Server::start(&workload)?;
    let started = Instant::now();
    let words = ["ingest", "--url", &server.url(), "--batches", "120", "--parallel", "4", "--format", "ndjson"];
    let rows = Inside::run(bench, &words)?.number("rows")?;
    loop {
        let metrics = server.metrics()?;
        let waiting = |name: &str| metrics.get(name).copied().unwrap_or(f64::MAX);
        if waiting("mulgil_shard_backlog_rows") == 0.0 && waiting("mulgil_history_backlog_rows") == 0.0 {
            let rate = rows / started.elapsed().as_secs_f64();
            println!("measured maximum: {rate:.0} rows/s");
            return Ok(rate as u64);
        }
        if started.elapsed() > WITHIN {
            bail!("{rows} rows were not through shards and history within {} s", WITHIN.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The highest of ever lower rates at which every client follows, for half a minute: a slow one is closed before that.
fn followed(bench: &Bench, clients: u32, from: u64) -> Result<u64> {
    const TRIED_SECONDS: &str = "30";
    const P99_US_MAX: f64 = 1e6;
    let mut rate = from;
    while rate > 1_000 {
        let workload = bench.workload("soak-maximum")?;
        let server = Server::start(&workload)?;
        let load = Load { url: server.url(), pid: server.pid(), clients, rate };
        let is_followed = load.run(bench, TRIED_SECONDS).and_then(|run| {
            let (p99_us, all) = (run.number("p99_us")?, delivered(&Ok(run)));
            Ok(p99_us < P99_US_MAX && all.is_ok())
        });
        if is_followed.unwrap_or(false) {
            println!("measured maximum with {clients} clients: {rate} rows/s");
            return Ok(rate);
        }
        println!("{clients} clients do not follow {rate} rows/s");
        rate = rate * 4 / 5;
    }
    bail!("{clients} clients follow no rate at all")
}

/// Rows posted at a rate, and clients that read them.
struct Load {
    url: String,
    pid: u32,
    clients: u32,
    rate: u64,
}

impl Load {
    fn run(&self, bench: &Bench, seconds: &str) -> Result<Inside> {
        let [pid, clients, rate] = [u64::from(self.pid), self.clients.into(), self.rate].map(|n| n.to_string());
        let words = ["clients", "--url", &self.url, "--server-pid", &pid, "--clients", &clients, "--rate", &rate, "--seconds", seconds];
        Inside::run(bench, &words)
    }
}

fn soak(bench: &Bench, server: &Server, workload: &Workload, options: &Options, rate: u64) -> Result<(Vec<Sample>, Result<Inside>)> {
    let load = Load { url: server.url(), pid: server.pid(), clients: options.clients, rate };
    let seconds = (options.minutes * 60).to_string();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load.run(bench, &seconds));
        let (began, mut samples) = (Instant::now(), Vec::new());
        while !load.is_finished() {
            samples.push(Sample::take(server, workload, began.elapsed().as_secs_f64())?);
            std::thread::sleep(SAMPLE_EVERY);
        }
        let load = load.join().map_err(|_| anyhow::anyhow!("the load broke"))?;
        Ok((samples, load))
    })
}

fn judge(tally: &mut Tally, samples: &[Sample], rate: u64, clients: &Result<Inside>) {
    for name in ["resident_mb", "open_files", "threads"] {
        tally.check(&format!("{name} is flat over the second half"), flat(samples, name));
    }
    for name in ["shard_backlog_rows", "history_backlog_rows"] {
        tally.check(&format!("{name} at the end"), few(samples, name, WAITING_SECONDS_MAX * rate as f64));
    }
    tally.check("every client got its rows, in order, once", delivered(clients));
}

fn flat(samples: &[Sample], name: &str) -> Result<String> {
    let (growth, mean) = growth(samples, name).context("too few samples")?;
    let said = format!("{:+.1} on a mean of {mean:.1} ({:+.1} %, at most {:.0} %)", growth, growth / mean * 100.0, GROWTH_MAX * 100.0);
    if growth > GROWTH_MAX * mean {
        bail!("{said}");
    }
    Ok(said)
}

fn few(samples: &[Sample], name: &str, most: f64) -> Result<String> {
    let last = samples.last().context("no samples")?.value(name);
    if last > most {
        bail!("{last:.0} rows wait, at most {most:.0}");
    }
    Ok(format!("{last:.0} of at most {most:.0}"))
}

fn delivered(clients: &Result<Inside>) -> Result<String> {
    let run = clients.as_ref().map_err(|e| anyhow::anyhow!("{e:#}"))?;
    let (expected, received, wrong) = (run.number("expected")?, run.number("received")?, run.number("wrong")?);
    if wrong > 0.0 || expected != received {
        bail!("{expected} rows were due, {received} came, {wrong} out of turn");
    }
    Ok(format!("{received:.0} rows, p50 {:.1} ms, p99 {:.1} ms", run.number("p50_us")? / 1e3, run.number("p99_us")? / 1e3))
}

fn write_csv(path: &Path, samples: &[Sample]) -> Result<()> {
    let head = std::iter::once("seconds").chain(COLUMNS.iter().map(|c| c.name)).collect::<Vec<_>>().join(",");
    let lines = samples.iter().map(|s| {
        let values = s.values.iter().map(|v| format!("{v:.3}")).collect::<Vec<_>>().join(",");
        format!("{:.1},{values}", s.seconds)
    });
    let text = std::iter::once(head).chain(lines).map(|l| l + "\n").collect::<String>();
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
