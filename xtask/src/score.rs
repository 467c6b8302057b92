//! `cargo xtask score`: the rush-order detector over the real trades, scored against the labelled pump events.

use crate::tally::Tally;
use crate::workload::{self, Workload};
use crate::{house, process, tools};
use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct Options {
    /// The folder with trades/ [default: ../shared/data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// The detector with its defaults, no bars: only the alerts are looked at.
const CONFIG: &str = r#"# Written by `cargo xtask score`.
[stream.trades]
kind = "trade"
columns = { event_time = "timestamp", quantity = "amount" }
time_unit = "ms"
decimals = { price = 8, quantity = 8 }
partitions = 2

[detector.rush]
type = "rush_order"
stream = "trades"
"#;

/// What xtask/verify/score.py answers.
#[derive(Debug, Deserialize)]
pub struct Score {
    pub events: u64,
    pub hits: u64,
    pub false_alerts: u64,
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    pub false_per_symbol_day: f64,
}

#[derive(Debug, Deserialize)]
struct Prepared {
    symbol_days: u64,
}

pub fn run(options: &Options) -> Result<Tally> {
    let trades = house::trades(options.data.as_deref())?;
    let python = tools::python()?;
    let mut tally = Tally::default();
    let scored = scored(&workload::binary()?, &python, &trades);
    tally.check("rush orders against labels.csv", scored.map(|s| format!("F1 {:.3}", s.f1)));
    tally.close();
    Ok(tally)
}

/// Prepares the trades, replays them, scores the alerts and prints the table.
pub fn scored(binary: &Path, python: &Path, trades: &Path) -> Result<Score> {
    let folder = workload::fresh_folder("score")?;
    let workload = Workload::new(binary, &folder, CONFIG)?;
    let (market, alerts) = (folder.join("market.csv.zst"), folder.join("alerts.csv"));
    let script = house::root().join("xtask/verify/score.py");
    let prepared: Prepared =
        serde_json::from_value(process::read_json(process::command(python).arg(&script).arg("prepare").arg(trades).arg(&market))?)?;
    workload.replay(&[market])?;
    workload
        .query("SELECT key AS symbol, CAST(event_time AS BIGINT) AS at FROM \"trades.alerts\" WHERE rule = 'rush' ORDER BY at", &alerts)?;
    let labels = trades.join("labels.csv");
    let mut command = process::command(python);
    command.arg(&script).arg("score").args([&labels, &alerts]).arg(prepared.symbol_days.to_string());
    let score: Score = serde_json::from_value(process::read_json(&mut command)?).context("read the score")?;
    print_table(&score, prepared.symbol_days);
    std::fs::remove_dir_all(&folder)?;
    Ok(score)
}

fn print_table(score: &Score, symbol_days: u64) {
    println!("\n| detector | precision | recall | F1 | false alerts per symbol-day |");
    println!("|---|---|---|---|---|");
    println!("| reference: rush orders, minute buckets, z > 20, price > 1.03 x mean (other event set) | 0.831 | 0.938 | 0.881 | 0.096 |");
    println!(
        "| mulgil rush_order, its defaults | {:.3} | {:.3} | {:.3} | {:.3} |",
        score.precision, score.recall, score.f1, score.false_per_symbol_day
    );
    println!(
        "{} of {} events hit, {} false alerts in {symbol_days} symbol-days (every day with a trade counts)\n",
        score.hits, score.events, score.false_alerts
    );
}
