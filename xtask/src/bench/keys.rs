//! Many keys: the replay again, over trades that differ in nothing but how many symbols they are spread over.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::memory::peak_of_replay;
use crate::house;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

const FEW: u64 = 100;
const MANY: u64 = 1_000_000;

/// As far apart as the trades of the `replay` row.
const APART_MS: u64 = 5;
/// When the first of them is.
const MORNING_MS: u64 = 1_760_000_000_000;

/// Fresh replays of both files: minutes each.
const RUNS_MAX: usize = 3;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut few, mut many) = (Replays::default(), Replays::default());
    for _ in 0..bench.n_runs.min(RUNS_MAX) {
        few.run(bench, FEW)?;
        many.run(bench, MANY)?;
    }
    let runs = |runs: Vec<f64>| Runs::new(runs).context("no runs");
    let (few_rate, many_rate) = (runs(few.rates)?, runs(many.rates)?);
    let written = |rows: u64| (bench.n_rows + rows) as f64 / bench.n_rows as f64;
    let (few_written, many_written) = (written(few.n_derived), written(many.n_derived));
    let note = format!("{} rows; from them {} derived rows with {FEW} keys, {} with {MANY}", bench.n_rows, few.n_derived, many.n_derived);
    let aim = Aim::RatioAtLeast(0.6);
    let row = |name: &str| format!("replay, 1 M distinct keys{name}");
    Ok(vec![
        Figure::compared(&row(""), "rows/s", &many_rate, "the same rows, 100 keys", few_rate.median(), aim).noted(note),
        Figure::compared(
            &row(", rows written"),
            "rows/s",
            &many_rate.map(|rate| rate * many_written),
            "the same rows, 100 keys",
            few_rate.median() * few_written,
            aim,
        )
        .noted("trades and what is derived from them: every symbol has bars of its own"),
        Figure::alone(&row(", peak memory"), "MB", &runs(many.peaks)?, Aim::AtMost(600.0)),
    ])
}

#[derive(Default)]
struct Replays {
    rates: Vec<f64>,
    peaks: Vec<f64>,
    n_derived: u64,
}

impl Replays {
    fn run(&mut self, bench: &Bench, n_keys: u64) -> Result<()> {
        let workload = bench.workload("keys")?;
        let file = trades(bench.n_rows, n_keys, APART_MS, MORNING_MS)?;
        let started = Instant::now();
        self.peaks.push(peak_of_replay(&workload, &file)?);
        self.rates.push(bench.n_rows as f64 / started.elapsed().as_secs_f64());
        let topics = workload.topics()?;
        self.n_derived = topics.iter().filter(|(topic, _)| topic.starts_with("trades.")).map(|(_, rows)| rows).sum();
        Ok(())
    }
}

/// Trades dealt to so many keys, as NDJSON, a few milliseconds from one to the next; made once and kept in the cache folder.
pub fn trades(n_rows: u64, n_keys: u64, apart_ms: u64, begin_ms: u64) -> Result<PathBuf> {
    /// Odd and without a factor in common with a round number: it visits all keys before it visits one again.
    const STRIDE: u64 = 2_654_435_761;
    let file = house::cache()?.join(format!("keys-{n_rows}-{n_keys}-{apart_ms}-{begin_ms}.ndjson"));
    if file.exists() {
        return Ok(file);
    }
    let partial = file.with_extension("partial");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&partial)?);
    let mut line = String::new();
    for row in 0..n_rows {
        line.clear();
        let (key, at) = (row * STRIDE % n_keys, begin_ms + row * apart_ms);
        let (cents, quantity) = (10_000 + row % 97 * 25, 1 + row % 13);
        let (won, rest) = (cents / 100, cents % 100);
        writeln!(
            line,
            r#"{{"symbol":"K{key:07}","event_time":{at},"price":{won}.{rest:02},"quantity":{quantity},"side":"BUY","trade_id":"{row}"}}"#
        )?;
        out.write_all(line.as_bytes())?;
    }
    out.into_inner().map_err(|e| anyhow::anyhow!("{e}"))?.sync_all()?;
    std::fs::rename(&partial, &file)?;
    Ok(file)
}
