//! `mulgil simulate`: trades of the simulator as a file, for replays and benchmarks.

use anyhow::{Context, Result};
use clap::Args;
use mulgil_connect::sources::simulator::{Hours, Simulator, SimulatorConfig, schema};
use mulgil_model::ids::Topic;
use mulgil_model::json;
use mulgil_model::streams::TradeDecimals;
use mulgil_model::time::{EpochUnit, EventTime, parse_micros};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many trades.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// The same seed gives the same file.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Trades per second of simulated time.
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// Share of trades that belong to an injected anomaly.
    #[arg(long, default_value_t = 0.002)]
    anomaly_share: f64,
    /// When the simulated time begins (RFC 3339).
    #[arg(long, default_value = "2026-01-05T00:00:00Z")]
    start: String,
    /// One JSON object per line.
    #[arg(short, long, value_name = "FILE.ndjson")]
    out: PathBuf,
}

const BATCH_ROWS: u64 = 50_000;

pub fn simulate(args: &SimulateArgs) -> Result<()> {
    let start = EventTime(parse_micros(&args.start, EpochUnit::Millis)?);
    let config = SimulatorConfig {
        rate: args.rate,
        anomaly_share: args.anomaly_share,
        seed: args.seed,
        start,
        hours: Hours::Always,
        ..SimulatorConfig::default()
    };
    let decimals = TradeDecimals { price_scale: 2, quantity_scale: 0 };
    let schema = Arc::new(schema(Topic::new("trades")?, decimals)?);
    let mut simulator = Simulator::new(&config, Arc::clone(&schema))?;
    let file = File::create(&args.out).with_context(|| format!("cannot write {}", args.out.display()))?;
    let (mut out, mut line, mut left) = (BufWriter::with_capacity(1 << 20, file), String::new(), args.rows);
    let bar = indicatif::ProgressBar::new(args.rows);
    while left > 0 {
        let batch = simulator.next_rows(usize::try_from(left.min(BATCH_ROWS)).unwrap_or(usize::MAX));
        for row in 0..batch.num_rows() {
            line.clear();
            json::write_row(&mut line, &schema, &batch, row);
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        left -= (batch.num_rows() as u64).min(left);
        bar.inc(batch.num_rows() as u64);
    }
    out.flush()?;
    bar.finish_and_clear();
    println!("{} trades in {}", args.rows, args.out.display());
    Ok(())
}
