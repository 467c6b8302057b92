//! Latency: from the instant before COMMIT is sent to the one at which the change is durable in the log, at 10,000 rows a second, against
//! one fdatasync on the same disk.

use super::database::{Database, Kind};
use super::{Capture, Consumers, DAY_US, Durable, apart_us, verify, workload};
use crate::bench::Bench;
use crate::bench::figure::{Aim, Figure, Runs};
use crate::process;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const ROWS_PER_TRANSACTION: u64 = 100;
const EVERY: Duration = Duration::from_millis(10);
/// Ten seconds, of which the first is not counted.
const TRANSACTIONS: u64 = 1_000;
const WARM_UP: usize = 100;
const RUNS_MAX: usize = 3;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let each =
        Kind::ALL.map(|kind| of(bench, kind).unwrap_or_else(|e| vec![Figure::missing(&format!("{} commit to log", kind.name()), &e)]));
    Ok(each.into_iter().flatten().collect())
}

/// All in microseconds.
#[derive(Default)]
struct Percentiles {
    p50: Vec<f64>,
    p99: Vec<f64>,
    disk_p50: Vec<f64>,
    disk_p99: Vec<f64>,
    /// Of them, from the source having read the transaction on.
    own_p50: Vec<f64>,
    own_p99: Vec<f64>,
}

fn of(bench: &Bench, kind: Kind) -> Result<Vec<Figure>> {
    let database = Database::start(kind)?;
    let workload = workload(bench, "latency", kind, Consumers::Example, "no_data")?;
    let capture = Capture::start(&workload, &database)?;
    capture.until_it_streams()?;
    let (mut found, mut n_rows, mut seconds) = (Percentiles::default(), 0, 0.0);
    for _ in 0..bench.n_runs.min(RUNS_MAX) {
        let mut disk = fdatasync_us(&workload.data)?;
        let begun = Instant::now();
        let committed = write(&database, &workload.data, n_rows)?;
        seconds += begun.elapsed().as_secs_f64();
        let durable = capture.until_durable(n_rows + TRANSACTIONS * ROWS_PER_TRANSACTION)?;
        let mut delays = delays(&committed, &durable, n_rows);
        n_rows += TRANSACTIONS * ROWS_PER_TRANSACTION;
        let mut own: Vec<f64> = durable.iter().filter(|d| d.n_changes > 0).skip(WARM_UP).map(|d| d.own_us as f64).collect();
        found.p50.push(percentile(&mut delays, 0.5));
        found.p99.push(percentile(&mut delays, 0.99));
        found.own_p50.push(percentile(&mut own, 0.5));
        found.own_p99.push(percentile(&mut own, 0.99));
        found.disk_p50.push(percentile(&mut disk, 0.5));
        found.disk_p99.push(percentile(&mut disk, 0.99));
    }
    capture.server.kill()?;
    verify(&workload, &database, Consumers::Example)?;
    let ms = |runs| Runs::new(runs).context("no runs").map(|runs| runs.map(|us| us / 1e3));
    let note = format!(
        "{:.0} rows/s in transactions of {ROWS_PER_TRANSACTION}, from the instant before COMMIT is sent; the server syncs nothing itself; \
         of it p50 {:.2} and p99 {:.1} ms from the last byte's arrival on, the rest is the server's: COMMIT, decoding, sending; beside the \
         capture: {}",
        n_rows as f64 / seconds,
        ms(found.own_p50)?.median(),
        ms(found.own_p99)?.median(),
        kind.consumers()
    );
    let row = |which: &str, runs: Vec<f64>, disk: Vec<f64>, aim: f64| -> Result<Figure> {
        let (name, against) = (format!("{} commit to log, {which}", kind.name()), format!("one fdatasync, {which}"));
        Ok(Figure::compared(&name, "ms", &ms(runs)?, &against, ms(disk)?.median(), Aim::RatioAtMost(aim)))
    };
    Ok(vec![row("p50", found.p50, found.disk_p50, 3.0)?, row("p99", found.p99, found.disk_p99, 10.0)?.noted(note)])
}

/// Writes transactions, each when it is due, and gives the instants before their commits, microseconds of the day.
fn write(database: &Database, folder: &Path, from: u64) -> Result<Vec<i64>> {
    let answers = folder.with_file_name("answers");
    let mut command = database.client()?;
    command.stdin(Stdio::piped()).stdout(File::create(&answers)?).stderr(Stdio::piped());
    let mut client = command.spawn().with_context(|| format!("start `{}`", process::line(&command)))?;
    let mut statements = client.stdin.take().context("invariant: its input is a pipe")?;
    let begun = Instant::now();
    for k in 0..TRANSACTIONS {
        std::thread::sleep((begun + EVERY * k as u32).saturating_duration_since(Instant::now()));
        let insert = database.insert(from + k * ROWS_PER_TRANSACTION, ROWS_PER_TRANSACTION);
        // A client that has ended says why below.
        if write!(statements, "BEGIN;\n{insert}{}COMMIT;\n", database.ask_time()).is_err() {
            break;
        }
    }
    drop(statements);
    let output = client.wait_with_output()?;
    ensure!(output.status.success(), "`{}` said: {}", process::line(&command), String::from_utf8_lossy(&output.stderr));
    let answers = std::fs::read_to_string(&answers)?;
    let times: Vec<i64> = answers.lines().map(|line| Ok(line.trim().parse::<i64>()? % DAY_US)).collect::<Result<_>>()?;
    ensure!(times.len() as u64 == TRANSACTIONS, "{} transactions were written, not {TRANSACTIONS}", times.len());
    Ok(times)
}

/// Of each row behind the first `n_before`, but for the warm-up: from its commit to the commit of the log that brought it.
fn delays(committed: &[i64], durable: &[Durable], n_before: u64) -> Vec<f64> {
    let mut delays = Vec::new();
    let mut row = 0;
    for step in durable {
        for _ in 0..step.n_changes {
            let transaction = (row >= n_before).then(|| ((row - n_before) / ROWS_PER_TRANSACTION) as usize);
            if let Some(at) = transaction.filter(|t| *t >= WARM_UP).and_then(|t| committed.get(t)) {
                delays.push(apart_us(*at, step.at_us) as f64);
            }
            row += 1;
        }
    }
    delays
}

/// As `mulgil bench latency` does it: 4 KiB each.
fn fdatasync_us(folder: &Path) -> Result<Vec<f64>> {
    const TIMES: usize = 200;
    let path = folder.with_file_name("fdatasync");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}

fn percentile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * p) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_waits_from_its_commit_to_the_commit_that_brought_it() {
        let committed: Vec<i64> = (0..WARM_UP as i64 + 2).map(|k| k * 1_000).collect();
        let n_rows = committed.len() as u64 * ROWS_PER_TRANSACTION;
        let last_us = committed[WARM_UP + 1];
        // All but the last 50 rows together, then those; 7 rows were there before.
        let durable = [(500, 7 + n_rows - 50), (700, 50)].map(|(us, n_changes)| Durable { at_us: last_us + us, n_changes, own_us: 9 });
        let mut found = delays(&committed, &durable, 7);
        assert_eq!(found.len() as u64, 2 * ROWS_PER_TRANSACTION);
        assert_eq!((percentile(&mut found, 0.0), percentile(&mut found, 0.3), percentile(&mut found, 0.9)), (500.0, 700.0, 1_500.0));
    }
}
