//! 1,000 WebSocket clients with ten symbols each, at 5,000 trades a second: how late the rows come, and whether memory grows.

use super::figure::{Aim, Figure, Runs};
use super::inside::Inside;
use super::memory::Watched;
use super::server::Server;
use super::{Bench, CONFIG};
use crate::workload::{self, Workload};
use anyhow::{Context, Result, bail};

/// What fills up to its limit is full within the first third: the history's tail, which grows between two files, and the cache of recent
/// rows, whose 40 MB take a minute at this rate.
const SOON_FULL: &str = "\nflush_after = \"2s\"\n\n[log]\nrecent_cache = \"4MB\"\n";

/// Two thirds of a run count: its first third fills rings, tails and allocators.
const SECONDS: &str = "30";

/// Memory that may come and go with the beat of files and snapshots, in MB per minute.
const GROWTH_MB_MAX: f64 = 10.0;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let config = format!("{CONFIG}{SOON_FULL}");
    let workload = Workload::new(&bench.binary, &workload::fresh_folder("bench-clients")?, &config)?;
    let server = Server::start(&workload)?;
    let (mut p99, mut p50, mut growth, mut notes) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    for _ in 0..bench.n_runs {
        let watched = Watched::start(server.pid());
        let words = ["clients", "--url", &server.url(), "--seconds", SECONDS, "--server-pid", &server.pid().to_string()];
        let run = Inside::run(bench, &words)?;
        growth.push(watched.stop()?.growth_per_minute(1.0 / 3.0));
        check(&run)?;
        p99.push(run.number("p99_us")? / 1e3);
        p50.push(run.number("p50_us")? / 1e3);
        let seconds = run.number("seconds")?;
        notes = format!(
            "{:.0} rows a second delivered in {:.0} frames; no row missing, repeated or out of order; the server used {:.2} cores, the \
             1,000 clients {:.2}; resident at the end {:.0} MB",
            run.number("received")? / (seconds + 2.0),
            run.number("frames")? / seconds,
            run.number("server_cpu_seconds")? / seconds,
            run.number("own_cpu_seconds")? / seconds,
            server.resident_mb()?
        );
    }
    let runs = |values: Vec<f64>| Runs::new(values).context("no runs");
    let p99 = Figure::alone("1,000 clients of 10 symbols, 5,000 trades/s, p99", "ms", &runs(p99)?, Aim::AtMost(50.0));
    let note = format!("from the instant at which a batch was due at the poster to the frame's arrival; p50 {:.1} ms", runs(p50)?.median());
    let growth = Figure::alone("1,000 clients, growth of memory", "MB/min", &runs(growth)?, Aim::AtMost(GROWTH_MB_MAX)).noted(notes);
    Ok(vec![p99.noted(note), growth])
}

/// Every client got exactly its symbols' rows.
pub fn check(run: &Inside) -> Result<()> {
    let (expected, received, wrong) = (run.number("expected")?, run.number("received")?, run.number("wrong")?);
    if wrong > 0.0 || received != expected {
        bail!("{expected} rows were due to the clients, {received} came, {wrong} of them out of turn");
    }
    Ok(())
}
