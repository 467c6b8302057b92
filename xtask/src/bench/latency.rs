//! Latency: from the append of a row to its arrival at a WebSocket client, at 10,000 rows a second, against one fdatasync. The append
//! time is the one in the log, taken before the row is written and synced.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::inside::Inside;
use super::server::Server;
use anyhow::{Context, Result};

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("latency")?;
    let server = Server::start(&workload)?;
    let (config, data) = (workload.config.to_string_lossy(), workload.data.to_string_lossy());
    let mut runs = Vec::new();
    for _ in 0..bench.n_runs {
        let words = ["latency", "--url", &server.url(), "--rate", "10000", "--seconds", "6", "--config", &config, "--data", &data];
        runs.push(Inside::run(bench, &words)?);
    }
    let each = |key: &str| -> Result<Runs> {
        let values: Result<Vec<f64>> = runs.iter().map(|r| Ok(r.number(key)? / 1e3)).collect();
        Runs::new(values?).context("no runs")
    };
    let disk = each("fdatasync_p99_us")?.median();
    let row = |name: &str, key: &str, aim: f64| -> Result<Figure> {
        Ok(Figure::compared(name, "ms", &each(key)?, "one fdatasync, p99", disk, Aim::RatioAtMost(aim)))
    };
    let due = (each("due_p50_us")?.median(), each("due_p99_us")?.median());
    let note = format!(
        "{} rows a run; from the instant at which a batch was due at the poster, so with HTTP and decoding: p50 {:.2} ms, p99 {:.2} ms; \
         one fdatasync p50 {:.2} ms",
        runs[0].number("rows")?,
        due.0,
        due.1,
        each("fdatasync_p50_us")?.median()
    );
    Ok(vec![row("append to WebSocket, p50", "p50_us", 2.0)?, row("append to WebSocket, p99", "p99_us", 4.0)?.noted(note)])
}
