//! DuckDB on the Parquet files that mulgil wrote: the same question, warm, in one process.

use super::figure::Runs;
use crate::{house, process, tools};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::Instant;

/// Seconds per run, and the number of rows of the answer.
pub fn measure(parquet: &Path, sql: &str, n_runs: usize) -> Result<(Runs, u64)> {
    let script = house::root().join("xtask/verify/query.py");
    let mut command = process::command(tools::python()?);
    let answer = process::read_json(command.arg(script).arg(parquet).arg(sql).arg(n_runs.to_string()))?;
    let (seconds, rows) = seconds_and_rows(&answer)?;
    Ok((seconds, rows))
}

/// From the start of a Python to the end of one answer, in seconds: nothing is warm.
pub fn measure_cold(parquet: &Path, sql: &str) -> Result<f64> {
    let script = house::root().join("xtask/verify/query.py");
    let mut command = process::command(tools::python()?);
    command.arg(script).arg(parquet).arg(sql).arg("0");
    let started = Instant::now();
    process::read_json(&mut command)?;
    Ok(started.elapsed().as_secs_f64())
}

/// `{"rows": n, "seconds": […]}`, as query.py and `mulgil bench query` print it.
pub fn seconds_and_rows(answer: &serde_json::Value) -> Result<(Runs, u64)> {
    let seconds = answer["seconds"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect();
    Ok((Runs::new(seconds).context("no run was timed")?, answer["rows"].as_u64().context("rows is left out")?))
}
