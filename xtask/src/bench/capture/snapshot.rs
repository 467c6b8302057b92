//! Snapshot: the rows that a table has already, from the start of `mulgil run` until all are durable in the log, against the server's own
//! client that reads the table over one connection and drops it.

use super::database::{Database, Kind};
use super::stream::drained;
use super::{Capture, Consumers, verify, workload};
use crate::bench::Bench;
use crate::bench::figure::{Aim, Figure, Runs};
use anyhow::{Context, Result};

const ROWS: u64 = 10_000_000;
const ROWS_PER_TRANSACTION: u64 = 100_000;
/// Each writes everything anew.
const RUNS_MAX: usize = 2;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let each = Kind::ALL.map(|kind| of(bench, kind).unwrap_or_else(|e| vec![Figure::missing(&format!("{} snapshot", kind.name()), &e)]));
    Ok(each.into_iter().flatten().collect())
}

fn of(bench: &Bench, kind: Kind) -> Result<Vec<Figure>> {
    let (database, n_rows) = (Database::start(kind)?, bench.asked_rows.unwrap_or(ROWS));
    database.fill(0, n_rows, ROWS_PER_TRANSACTION)?;
    database.rest()?;
    // Once for the page cache.
    drained(database.read_all()?)?;
    let figure = |consumers: Consumers| {
        let row = format!("{} snapshot, {}", kind.name(), consumers.name());
        run(bench, &database, consumers, n_rows, &row).unwrap_or_else(|e| Figure::missing(&row, &e))
    };
    Ok(Consumers::ALL.map(figure).into())
}

fn run(bench: &Bench, database: &Database, consumers: Consumers, n_rows: u64, row: &str) -> Result<Figure> {
    let (mut read, mut ours, mut cpu) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..bench.n_runs.min(RUNS_MAX) {
        read.push(drained(database.read_all()?)?);
        if database.kind == Kind::Postgres {
            database.drop_slot("mulgil_exchange")?;
        }
        let workload = workload(bench, "snapshot", database.kind, consumers, "initial")?;
        let capture = Capture::start(&workload, database)?;
        ours.push(capture.seconds_until(&capture.until_durable(n_rows)?)?);
        cpu = capture.server.cpu_seconds()?;
        capture.server.kill()?;
        verify(&workload, database, consumers)?;
    }
    let rate = |seconds: Vec<f64>| Runs::new(seconds).context("no runs").map(|runs| runs.map(|s| n_rows as f64 / s));
    let client = match database.kind {
        Kind::Postgres => "COPY TO STDOUT",
        Kind::MariaDb => "mariadb --quick, SELECT *",
    };
    let note = format!("{n_rows} rows; {:.0} rows per second of mulgil's processor time", n_rows as f64 / cpu);
    Ok(Figure::compared(row, "rows/s", &rate(ours)?, client, rate(read)?.median(), Aim::RatioAtLeast(0.6)).noted(note))
}
