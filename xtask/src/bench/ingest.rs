//! Ingest: batches of 10,000 rows through `POST /ingest`, NDJSON and JSON, one after the other and four at a time, into the whole pipeline.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::inside::Inside;
use super::server::Server;
use anyhow::{Context, Result};

const BATCHES: &str = "40";

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for format in ["ndjson", "json"] {
        for (parallel, how) in [("1", "in sequence"), ("4", "four at a time")] {
            figures.extend(measure_one(bench, format, parallel, how)?);
        }
    }
    Ok(figures)
}

fn measure_one(bench: &Bench, format: &str, parallel: &str, how: &str) -> Result<Vec<Figure>> {
    let (mut batch_ms, mut rates, mut worst) = (Vec::new(), Vec::new(), 0.0f64);
    for _ in 0..bench.n_runs {
        // A fresh folder each time: the shards have nothing to catch up with from the run before.
        let workload = bench.workload("ingest")?;
        let server = Server::start(&workload)?;
        let words = ["ingest", "--url", &server.url(), "--batches", BATCHES, "--format", format, "--parallel", parallel];
        let run = Inside::run(bench, &words)?;
        batch_ms.push(run.number("p50_ms")?);
        rates.push(run.number("rows_per_second")?);
        worst = worst.max(run.number("max_ms")?);
    }
    let name = format!("POST 10,000 rows, {format}, {how}");
    let batch = Figure::alone(&format!("{name}, per batch"), "ms", &Runs::new(batch_ms).context("no runs")?, Aim::AtMost(50.0));
    let rate = Figure::alone(&format!("{name}, rows"), "rows/s", &Runs::new(rates).context("no runs")?, Aim::AtLeast(200_000.0));
    Ok(vec![batch.noted(format!("median of {BATCHES} batches a run; the worst of all took {worst:.0} ms")), rate])
}
