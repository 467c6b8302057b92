//! Streaming: a backlog of rows in small transactions, from the start of `mulgil run` until all of it is durable in the log, against the
//! server's own tool that reads the same stream and drops it.

use super::database::{BinlogPlace, Database, Kind};
use super::{Capture, Consumers, verify, workload};
use crate::bench::Bench;
use crate::bench::figure::{Aim, Figure, Runs};
use crate::process;
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use std::time::Instant;

const ROWS: u64 = 1_000_000;
const ROWS_PER_TRANSACTION: u64 = 100;
/// Each writes everything anew.
const RUNS_MAX: usize = 3;
const AIM: Aim = Aim::RatioAtLeast(0.7);

/// The example's own slot, one that nobody moves, and the one that is drained.
const SLOT: &str = "mulgil_exchange";
const KEPT: &str = "kept";
const DRAINED: &str = "drained";

/// PostgreSQL's server reads every value before it sends a row; MariaDB's sends its binlog as it is, so its tool is told to read them.
const DECODED: [&str; 2] = ["--verbose", "--base64-output=decode-rows"];

pub fn measure_postgres(bench: &Bench) -> Result<Vec<Figure>> {
    Ok(of(bench, Kind::Postgres))
}

pub fn measure_mariadb(bench: &Bench) -> Result<Vec<Figure>> {
    Ok(of(bench, Kind::MariaDb))
}

fn of(bench: &Bench, kind: Kind) -> Vec<Figure> {
    let figure = |consumers: Consumers| {
        let row = format!("{} streaming, {}", kind.name(), consumers.name());
        Backlog::make(bench, kind, consumers).and_then(|backlog| backlog.measure(bench, &row)).unwrap_or_else(|e| Figure::missing(&row, &e))
    };
    Consumers::ALL.map(figure).into()
}

/// Rows that wait, and a data folder that stands in front of them.
struct Backlog {
    database: Database,
    consumers: Consumers,
    n_rows: u64,
    /// Has the first row, and with it the place behind it.
    begun: Workload,
    /// MariaDB's.
    place: Option<BinlogPlace>,
}

/// What the runs gave, in seconds.
#[derive(Default)]
struct Seconds {
    reference: Vec<f64>,
    ours: Vec<f64>,
    cpu: Vec<f64>,
    /// Of the thread that reads from the socket and decodes, and does nothing else.
    read: Vec<f64>,
}

impl Backlog {
    fn make(bench: &Bench, kind: Kind, consumers: Consumers) -> Result<Self> {
        let (database, n_rows) = (Database::start(kind)?, bench.asked_rows.unwrap_or(ROWS));
        let begun = workload(bench, "begun", kind, consumers, "no_data")?;
        let capture = Capture::start(&begun, &database)?;
        capture.until_it_streams()?;
        database.fill(0, 1, 1)?;
        capture.until_durable(1)?;
        capture.server.kill()?;
        let place = match kind {
            Kind::Postgres => {
                database.until_free(SLOT)?;
                database.copy_slot(SLOT, KEPT)?;
                None
            }
            Kind::MariaDb => Some(database.binlog_end()?),
        };
        database.fill(1, n_rows, ROWS_PER_TRANSACTION)?;
        Ok(Self { database, consumers, n_rows, begun, place })
    }

    fn measure(&self, bench: &Bench, row: &str) -> Result<Figure> {
        let mut seconds = Seconds::default();
        for _ in 0..bench.n_runs.min(RUNS_MAX) {
            seconds.reference.push(self.reference()?);
            let [ours, cpu, read] = self.ours(bench)?;
            seconds.ours.push(ours);
            seconds.cpu.push(cpu);
            seconds.read.push(read);
        }
        let n_rows = self.n_rows as f64;
        let rate = |seconds: Vec<f64>| Runs::new(seconds).context("no runs").map(|runs| runs.map(|s| n_rows / s));
        let (reference, ours, cpu, read) = (rate(seconds.reference)?, rate(seconds.ours)?, rate(seconds.cpu)?, rate(seconds.read)?);
        let tool = match self.database.kind {
            Kind::Postgres => "pg_recvlogical",
            Kind::MariaDb => "mariadb-binlog",
        };
        let beside = match self.consumers {
            Consumers::None => "nothing else".to_owned(),
            Consumers::Example => self.database.kind.consumers().to_owned(),
        };
        let mut note = format!(
            "{} rows in transactions of {ROWS_PER_TRANSACTION}; from the start of the process; {:.0} rows per second of mulgil's processor \
             time, {:.0} per second of the thread that receives and decodes; beside the capture: {beside}",
            self.n_rows,
            cpu.median(),
            read.median(),
        );
        if let Some(place) = &self.place {
            note += &self.other_ways(place)?;
        }
        Ok(Figure::compared(row, "rows/s", &ours, tool, reference.median(), AIM).noted(note))
    }

    fn reference(&self) -> Result<f64> {
        match &self.place {
            Some(place) => drained(self.database.read_binlog(place, &DECODED)?),
            None => {
                self.database.copy_slot(KEPT, DRAINED)?;
                drained(self.database.recvlogical(DRAINED)?)
            }
        }
    }

    /// What the tool does when it looks into no row: prints them as base64, as it does when nothing is said, or writes what came to a file.
    fn other_ways(&self, place: &BinlogPlace) -> Result<String> {
        let plain = drained(self.database.read_binlog(place, &[])?)?;
        let folder = self.begun.data.with_file_name("raw");
        std::fs::create_dir_all(&folder)?;
        let result = format!("--result-file={}/", folder.display());
        let raw = drained(self.database.read_binlog(place, &["--raw", &result])?)?;
        std::fs::remove_dir_all(&folder)?;
        let n_rows = self.n_rows as f64;
        Ok(format!(
            "; mariadb-binlog reads every value ({}); with rows as base64 it does {:.0} rows/s, with --raw {:.0} rows/s",
            DECODED.join(" "),
            n_rows / plain,
            n_rows / raw
        ))
    }

    /// Wall-clock and processor time of a fresh copy of what was begun, and the processor time of its reading thread.
    fn ours(&self, bench: &Bench) -> Result<[f64; 3]> {
        if self.place.is_none() {
            self.database.copy_slot(KEPT, SLOT)?;
        }
        let workload = workload(bench, "stream", self.database.kind, self.consumers, "no_data")?;
        process::read(process::command("cp").arg("--archive").arg(&self.begun.data).arg(&workload.data))?;
        let capture = Capture::start(&workload, &self.database)?;
        let durable = capture.until_durable(self.n_rows)?;
        let seconds = [capture.seconds_until(&durable)?, capture.server.cpu_seconds()?, capture.server.thread_seconds("capture-")?];
        capture.server.kill()?;
        verify(&workload, &self.database, self.consumers)?;
        Ok(seconds)
    }
}

/// Seconds until a tool has read everything; what it prints goes to /dev/null.
pub fn drained(mut command: Command) -> Result<f64> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = output.with_context(|| format!("start `{}`", process::line(&command)))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` ended with {}: {said}", process::line(&command), output.status);
    Ok(started.elapsed().as_secs_f64())
}
