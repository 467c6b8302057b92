//! Many keys: the replay again, over trades that differ in nothing but how many symbols they are spread over.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
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

/// Fresh replays of both files: minutes each.
const RUNS_MAX: usize = 3;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut few, mut many, mut rows) = (Vec::new(), Vec::new(), [0; 2]);
    for _ in 0..bench.n_runs.min(RUNS_MAX) {
        for (n_keys, runs, n_derived) in [(FEW, &mut few, 0), (MANY, &mut many, 1)] {
            let workload = bench.workload("keys")?;
            let file = trades(bench.n_rows, n_keys, APART_MS)?;
            let started = Instant::now();
            workload.replay(&[file])?;
            runs.push(bench.n_rows as f64 / started.elapsed().as_secs_f64());
            let topics = workload.topics()?;
            rows[n_derived] = topics.iter().filter(|(topic, _)| topic.starts_with("trades.")).map(|(_, rows)| rows).sum();
        }
    }
    let (few, many) = (Runs::new(few).context("no runs")?, Runs::new(many).context("no runs")?);
    let note = format!("{} rows; from them {} derived rows with {FEW} keys, {} with {MANY}", bench.n_rows, rows[0], rows[1]);
    let aim = Aim::RatioAtLeast(0.6);
    Ok(vec![Figure::compared("replay, 1 M distinct keys", "rows/s", &many, "the same rows, 100 keys", few.median(), aim).noted(note)])
}

/// Trades dealt to so many keys, as NDJSON, a few milliseconds from one to the next; made once and kept in the cache folder.
pub fn trades(n_rows: u64, n_keys: u64, apart_ms: u64) -> Result<PathBuf> {
    /// Odd and without a factor in common with a round number: it visits all keys before it visits one again.
    const STRIDE: u64 = 2_654_435_761;
    const MORNING_MS: u64 = 1_760_000_000_000;
    let file = house::cache()?.join(format!("keys-{n_rows}-{n_keys}-{apart_ms}.ndjson"));
    if file.exists() {
        return Ok(file);
    }
    let partial = file.with_extension("partial");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&partial)?);
    let mut line = String::new();
    for row in 0..n_rows {
        line.clear();
        let (key, at) = (row * STRIDE % n_keys, MORNING_MS + row * apart_ms);
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
