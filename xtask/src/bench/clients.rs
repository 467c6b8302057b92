//! 1,000 WebSocket clients with ten symbols each, at 5,000 trades a second: how late the rows come, and whether memory grows.

use super::figure::{Aim, Figure, Runs};
use super::inside::Inside;
use super::memory::Watched;
use super::server::Server;
use super::{Bench, CONFIG};
use crate::workload::{self, Workload};
use anyhow::{Context, Result, bail};

/// Files of the history are written soon, not once in a while.
const SOON: &str = "\nflush_after = \"2s\"\n";

const SECONDS: &str = "30";

/// What fills up to its limit is full before the clients come: 5,000 rows a second take minutes to fill the cache of recent rows, what the state keeps
/// in memory, rings, and what the allocator holds between two files.
const FILL: [&str; 6] = ["--clients", "1", "--rate", "100000", "--seconds", "20"];

/// Of all runs together: what 1,000 clients take themselves has come by then.
const COME_WITHIN: f64 = 1.0 / 3.0;

/// Memory that may come and go with the beat of files and snapshots, in MB per minute.
const GROWTH_MB_MAX: f64 = 10.0;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let config = format!("{CONFIG}{SOON}");
    let workload = Workload::new(&bench.binary, &workload::fresh_folder("bench-clients")?, &config)?;
    let server = Server::start(&workload)?;
    let (mut p99, mut p50, mut notes) = (Vec::new(), Vec::new(), String::new());
    let (url, pid) = (server.url(), server.pid().to_string());
    let load = |more: &[&str]| Inside::run(bench, &[&["clients", "--url", &url, "--server-pid", &pid][..], more].concat());
    load(&FILL)?;
    let watched = Watched::start(server.pid());
    for _ in 0..bench.n_runs {
        let run = load(&["--seconds", SECONDS])?;
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
    // One run is too short for it: memory comes and goes by 30 MB with files and snapshots.
    let growth = vec![watched.stop()?.growth_per_minute(COME_WITHIN)];
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
