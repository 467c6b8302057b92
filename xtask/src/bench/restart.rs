//! Restart: kill -9 under load, then from the start of the process to its first "ready".

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::inside::Inside;
use super::keys;
use super::server::Server;
use crate::process;
use crate::workload::Workload;
use anyhow::{Context, Result};
use std::time::{SystemTime, UNIX_EPOCH};

/// On the data that the replay has written.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("restart")?;
    workload.replay(&[bench.trades(bench.n_rows, "200")?])?;
    let seconds = kill_again_and_again(bench, &workload)?;
    let note =
        format!("after {} replayed rows and {} s of 10,000 rows/s; includes the start of the process", bench.n_rows, 2 * bench.n_runs);
    Ok(vec![Figure::alone("kill -9 to ready", "s", &seconds, Aim::AtMost(1.0)).noted(note)])
}

/// Keys that have traded once: with all bars and features of each, about so many make 1 GB of state.
const DISTINCT_KEYS: u64 = 3_600_000;
/// All within the last hour: what is posted before the kill must not close the day of all of them.
const APART_MS: u64 = 1;

/// With 1 GB of keyed state.
pub fn measure_with_state(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("state")?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
    let trades = keys::trades(DISTINCT_KEYS, DISTINCT_KEYS, APART_MS, now_ms - DISTINCT_KEYS * APART_MS)?;
    workload.replay_open(&[&trades])?;
    std::fs::remove_file(trades)?;
    let seconds = kill_again_and_again(bench, &workload)?;
    let state = process::folder_bytes(&workload.data.join("state"))?;
    let server = Server::start(&workload)?;
    let note = format!(
        "{:.2} GB in the state folder, {DISTINCT_KEYS} distinct keys; the state counts {:.2} GB itself; includes the start of the process",
        state as f64 / 1e9,
        server.metric("mulgil_state_bytes")? / 1e9
    );
    Ok(vec![Figure::alone("kill -9 to ready, 1 GB of keyed state", "s", &seconds, Aim::AtMost(1.0)).noted(note)])
}

fn kill_again_and_again(bench: &Bench, workload: &Workload) -> Result<Runs> {
    let (config, data) = (workload.config.to_string_lossy(), workload.data.to_string_lossy());
    let mut seconds = Vec::new();
    for _ in 0..bench.n_runs {
        let server = Server::start(workload)?;
        let words = ["latency", "--url", &server.url(), "--rate", "10000", "--seconds", "2", "--config", &config, "--data", &data];
        Inside::run(bench, &words)?;
        server.kill()?;
        let again = Server::start(workload)?;
        seconds.push(again.ready_after.as_secs_f64());
        again.kill()?;
    }
    Runs::new(seconds).context("no runs")
}
