//! `cargo xtask bench`: what mulgil does against what the machine can do, as one table. `bench/README.md` says what the binary must offer.

mod duckdb;
mod figure;
pub mod inside;
pub mod server;

mod build;
mod capture;
mod clients;
mod delivery;
mod ingest;
mod journal;
mod keys;
mod latency;
pub mod memory;
mod queries;
mod replay;
mod restart;

use crate::tally::Tally;
use crate::workload::{self, Workload};
use crate::{house, process};
use anyhow::{Context, Result, bail};
use clap::Args;
use figure::{Figure, Output};
use std::path::PathBuf;

#[derive(Args)]
pub struct Options {
    /// Only these rows [default: all but `state` (1 GB of keyed state), `history` (queries over --rows generated trades),
    /// `capture-snapshot` (10 million rows) and `build` (a cold build), which take many minutes]
    names: Vec<String>,
    /// Write the figures as JSON objects, one a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the table as Markdown, for docs/performance.md
    #[arg(long)]
    markdown: bool,
    /// Runs of what is cheap to repeat; the median is reported
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Trades in the generated file [default: 2 million], or rows of the captured table [default: each row's own]
    #[arg(long)]
    rows: Option<u64>,
}

const TRADES: u64 = 2_000_000;

/// What one row of the table measures: one file in this folder, one line here.
type Row = fn(&Bench) -> Result<Vec<Figure>>;
const ROWS: [(&str, Row, Asked); 18] = [
    ("replay", replay::measure, Asked::Always),
    ("keys", keys::measure, Asked::Always),
    ("journal", journal::measure, Asked::Always),
    ("latency", latency::measure, Asked::Always),
    ("clients", clients::measure, Asked::Always),
    ("delivery", delivery::measure, Asked::Always),
    ("queries", queries::measure, Asked::Always),
    ("ingest", ingest::measure, Asked::Always),
    ("memory", memory::measure, Asked::Always),
    ("restart", restart::measure, Asked::Always),
    ("capture-postgres", capture::stream::measure_postgres, Asked::Always),
    ("capture-mariadb", capture::stream::measure_mariadb, Asked::Always),
    ("capture-latency", capture::latency::measure, Asked::Always),
    ("capture-memory", capture::memory::measure, Asked::Always),
    ("capture-snapshot", capture::snapshot::measure, Asked::ByName),
    ("state", restart::measure_with_state, Asked::ByName),
    ("history", queries::measure_generated, Asked::ByName),
    ("build", build::measure, Asked::ByName),
];

/// When a row is measured: what takes many minutes only when it is named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Always,
    ByName,
}

/// All bars and eight rules: what the replay row promises to carry.
pub const CONFIG: &str = include_str!("bench/bench.toml");

pub struct Bench {
    pub binary: PathBuf,
    /// How often cheap things are measured.
    n_runs: usize,
    n_rows: u64,
    /// What `--rows` says.
    asked_rows: Option<u64>,
}

impl Bench {
    pub fn new(n_runs: usize, asked_rows: Option<u64>) -> Result<Self> {
        Ok(Self { binary: workload::binary()?, n_runs: n_runs.max(1), n_rows: asked_rows.unwrap_or(TRADES), asked_rows })
    }

    /// A fresh data folder with the bench's configuration.
    pub fn workload(&self, name: &str) -> Result<Workload> {
        Workload::new(&self.binary, &workload::fresh_folder(&format!("bench-{name}"))?, CONFIG)
    }

    /// The simulator's trades as NDJSON, so many in each second of simulated time; made once and kept in the cache folder.
    fn trades(&self, n_rows: u64, per_second: &str) -> Result<PathBuf> {
        let file = house::cache()?.join(format!("trades-{n_rows}-{per_second}.ndjson"));
        if !file.exists() {
            let partial = file.with_extension("partial");
            let mut simulate = process::command(&self.binary);
            simulate.args(["simulate", "--seed", "1", "--rows", &n_rows.to_string(), "--rate", per_second, "--out"]).arg(&partial);
            process::read(&mut simulate)?;
            std::fs::rename(&partial, &file).with_context(|| format!("keep {}", file.display()))?;
        }
        Ok(file)
    }

    /// `mulgil bench …`: one JSON object.
    fn inside(&self, words: &[&str]) -> Result<serde_json::Value> {
        process::read_json(process::command(&self.binary).arg("bench").args(words))
    }
}

pub fn run(options: &Options) -> Result<Tally> {
    if let Some(unknown) = options.names.iter().find(|n| !ROWS.iter().any(|(name, ..)| name == n)) {
        bail!("there is no row {unknown}; the rows are {}", ROWS.map(|(name, ..)| name).join(", "));
    }
    let bench = Bench::new(options.runs, options.rows)?;
    let mut figures = Vec::new();
    let is_named = |name: &str| options.names.iter().any(|n| n == name);
    let is_wanted =
        |(name, _, asked): &&(&str, Row, Asked)| if options.names.is_empty() { *asked == Asked::Always } else { is_named(name) };
    for (name, measure, _) in ROWS.iter().filter(is_wanted) {
        eprintln!("measuring {name}");
        figures.extend(measure(&bench).unwrap_or_else(|error| vec![Figure::missing(name, &error)]));
    }
    let output = if options.markdown { Output::Markdown } else { Output::Terminal };
    print!("{}", figure::table(&figures, output));
    if let Some(file) = &options.json {
        let lines: Vec<String> = figures.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        std::fs::write(file, lines.join("\n") + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    // A missed aim is a finding, not a failure of the bench; a row without a figure is.
    let n_failed = figures.iter().filter(|f| f.figure.is_none()).count() as u64;
    Ok(Tally { n_passed: figures.len() as u64 - n_failed, n_failed })
}
