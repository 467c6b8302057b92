//! `cargo xtask verify`: the real trades through the whole program, and its bars, counts and alerts against an independent computation.

use crate::tally::Tally;
use crate::workload::{self, Workload};
use crate::{house, process, score, tools};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[derive(Args)]
pub struct Options {
    /// The folder with trades/ [default: ../shared/data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep the data folder of the replay for a look
    #[arg(long)]
    keep: bool,
}

/// Time in UTC, every trade kept whatever its age, no limit that a whole export would meet.
const CONFIG: &str = r#"# Written by `cargo xtask verify`.
[stream.trades]
kind = "trade"
columns = { event_time = "timestamp", quantity = "amount" }
time_unit = "ms"
decimals = { price = 8, quantity = 8 }
bars = ["1m", "1h"]
timezone = "UTC"
partitions = 2

[history]
query_timeout = "10m"
query_memory = "2GB"
query_rows_max = 100000000
"#;

/// What the scripts in xtask/verify answer.
#[derive(Deserialize)]
struct Verdict {
    ok: bool,
    detail: String,
}

pub fn run(options: &Options) -> Result<Tally> {
    let trades = house::trades(options.data.as_deref())?;
    let python = tools::python()?;
    let folder = workload::fresh_folder("verify")?;
    let workload = Workload::new(&workload::binary()?, &folder, CONFIG)?;
    let files = workload::trade_files(&trades)?;

    let mut tally = Tally::default();
    tally.check("replay of all files", replay(&workload, &files));
    tally.check("rows in files = log = history", counts(&workload, &python, &trades));
    for (interval, seconds) in [("1m", "60"), ("1h", "3600")] {
        tally.check(&format!("{interval} bars equal DuckDB's"), bars(&workload, &python, &trades, &folder, interval, seconds));
    }
    tally.check("random questions equal DuckDB's", agreement(&workload, &python, &folder));
    tally.check("random trades give DuckDB's bars and summaries", random_trades(&python));
    tally.check("a second replay changes nothing", again(&workload, &files));
    tally.check("every checksum of the log", process::read(&mut workload.command(&["log", "verify"])).map(|_| String::new()));
    tally.check("rush orders against labels.csv", score::scored(&workload.binary, &python, &trades).map(|s| format!("F1 {:.3}", s.f1)));
    if options.keep {
        println!("kept: {}", folder.display());
    } else {
        std::fs::remove_dir_all(&folder)?;
    }
    tally.close();
    Ok(tally)
}

fn replay(workload: &Workload, files: &[PathBuf]) -> Result<String> {
    let started = Instant::now();
    workload.replay(files)?;
    Ok(format!("{} files in {:.0} s", files.len(), started.elapsed().as_secs_f64()))
}

fn counts(workload: &Workload, python: &Path, trades: &Path) -> Result<String> {
    let script = house::root().join("xtask/verify/count.py");
    let counted = process::read_json(process::command(python).arg(script).arg(trades))?;
    let in_files = counted["rows"].as_u64().context("count.py left out rows")?;
    let in_log = workload.topics()?.get("trades").copied().unwrap_or(0);
    let in_history = workload.number("SELECT count(*) FROM trades")?;
    if in_files != in_log || in_log != in_history {
        bail!("{in_files} rows in the files, {in_log} in the log, {in_history} in history");
    }
    Ok(format!("{in_files} rows"))
}

fn bars(workload: &Workload, python: &Path, trades: &Path, folder: &Path, interval: &str, seconds: &str) -> Result<String> {
    let out = folder.join(format!("bars-{interval}.csv"));
    let sql = format!(
        "SELECT symbol, CAST(start AS BIGINT) AS start, CAST(event_time AS BIGINT) AS event_time, open, high, low, close, volume, amount, vwap, \
         count, buy_volume, sell_volume FROM \"trades.bars.{interval}.latest\" ORDER BY symbol, start"
    );
    workload.query(&sql, &out)?;
    let script = house::root().join("xtask/verify/bars.py");
    let answer = process::read_json(process::command(python).arg(script).arg(trades).arg(seconds).arg(&out))?;
    let verdict: Verdict = serde_json::from_value(answer)?;
    if !verdict.ok {
        bail!("{}", verdict.detail);
    }
    Ok(verdict.detail)
}

/// The same random questions to both, over the same files.
fn agreement(workload: &Workload, python: &Path, folder: &Path) -> Result<String> {
    const N_QUESTIONS: &str = "200";
    let seed = seed()?.to_string();
    let script = house::root().join("xtask/verify/agree.py");
    let mut command = process::command(python);
    command.arg(script).arg(&workload.binary).arg(&workload.config).arg(&workload.data).arg(folder.join("answers"));
    let verdict: Verdict = serde_json::from_value(process::read_json(command.args([N_QUESTIONS, &seed]))?)?;
    if !verdict.ok {
        bail!("{}", verdict.detail);
    }
    Ok(verdict.detail)
}

/// Another one every second, or what `MULGIL_VERIFY_SEED` says: to see a failure again.
fn seed() -> Result<u64> {
    match std::env::var("MULGIL_VERIFY_SEED") {
        Ok(said) => said.parse().with_context(|| format!("MULGIL_VERIFY_SEED={said} is not a number")),
        Err(_) => Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("read the clock")?.as_secs()),
    }
}

/// Cases of the test `bars_duckdb` that nobody has seen before.
const FRESH_SEEDS: u64 = 5;

fn random_trades(python: &Path) -> Result<String> {
    let first = seed()?;
    let last = first + FRESH_SEEDS - 1;
    for seed in first..=last {
        let mut test = process::command("cargo");
        test.args(["test", "--package", "mulgil", "--test", "it", "bars_duckdb"]);
        let said = process::read(test.env("MULGIL_PYTHON", python).env("MULGIL_SEED", seed.to_string()));
        said.with_context(|| format!("repeat with MULGIL_SEED={seed} cargo test -p mulgil bars_duckdb"))?;
    }
    Ok(format!("seeds {first} to {last}"))
}

fn again(workload: &Workload, files: &[PathBuf]) -> Result<String> {
    let before = workload.topics()?;
    workload.replay(files)?;
    let after = workload.topics()?;
    if before != after {
        bail!("rows per topic before: {before:?}\nafter: {after:?}");
    }
    Ok(format!("{} topics", after.len()))
}
