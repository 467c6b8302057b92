//! Memory: how much more the process holds, at most, while one transaction of a million rows goes through it than while it is idle.

use super::database::{Database, Kind};
use super::{Capture, Consumers, verify, workload};
use crate::bench::Bench;
use crate::bench::figure::{Aim, Figure, Runs};
use anyhow::{Context, Result};
use std::time::Duration;

const ROWS: u64 = 1_000_000;
/// Before and afterwards: what a fresh process still allocates, and what readers of the log still take.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
const RUNS_MAX: usize = 3;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut figures, n_rows) = (Vec::new(), bench.asked_rows.unwrap_or(ROWS));
    for kind in Kind::ALL {
        for consumers in Consumers::ALL {
            let row = format!("{}, a transaction of {n_rows} rows, {}", kind.name(), consumers.name());
            figures.push(of(bench, kind, consumers, n_rows, &row).unwrap_or_else(|e| Figure::missing(&row, &e)));
        }
    }
    Ok(figures)
}

fn of(bench: &Bench, kind: Kind, consumers: Consumers, n_rows: u64, row: &str) -> Result<Figure> {
    let (mut more, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..bench.n_runs.min(RUNS_MAX) {
        let database = Database::start(kind)?;
        let workload = workload(bench, "memory", kind, consumers, "no_data")?;
        let capture = Capture::start(&workload, &database)?;
        capture.until_it_streams()?;
        database.fill(0, 1, 1)?;
        capture.until_durable(1)?;
        std::thread::sleep(SETTLES_WITHIN);
        let before = capture.server.resident_mb()?;
        capture.server.forget_peak()?;
        database.fill(1, n_rows, n_rows)?;
        capture.until_durable(1 + n_rows)?;
        std::thread::sleep(SETTLES_WITHIN);
        more.push(capture.server.peak_mb()? - before);
        idle.push(before);
        capture.server.kill()?;
        verify(&workload, &database, consumers)?;
    }
    let note = format!("over {:.0} MB of the idle process", Runs::new(idle).context("no runs")?.median());
    Ok(Figure::alone(row, "MB", &Runs::new(more).context("no runs")?, Aim::AtMost(200.0)).noted(note))
}
