//! Replay: NDJSON trades, unthrottled, into fsynced log, all bars, eight rules and history, against parsing the same file on one core.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use anyhow::{Context, Result};
use std::time::Instant;

/// Fresh replays: each writes everything, so fewer of them than of cheap things.
const RUNS_MAX: usize = 3;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let file = bench.trades(bench.n_rows, "200")?;
    let name = file.to_string_lossy().into_owned();
    let mut parsed = Vec::new();
    for _ in 0..bench.n_runs {
        let figures = bench.inside(&["parse", &name])?;
        let field = |key: &str| figures[key].as_f64().with_context(|| format!("`mulgil bench parse` left out {key}"));
        parsed.push(field("rows")? / field("seconds")?);
    }
    let parsed = Runs::new(parsed).context("no runs")?;
    let mut replayed = Vec::new();
    for _ in 0..bench.n_runs.min(RUNS_MAX) {
        let workload = bench.workload("replay")?;
        let started = Instant::now();
        workload.replay(std::slice::from_ref(&file))?;
        replayed.push(bench.n_rows as f64 / started.elapsed().as_secs_f64());
    }
    let replayed = Runs::new(replayed).context("no runs")?;
    Ok(vec![Figure::compared("replay to history", "rows/s", &replayed, "parse only, one core", parsed.median(), Aim::RatioAtLeast(0.5))])
}
