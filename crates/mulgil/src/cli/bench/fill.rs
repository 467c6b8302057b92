//! A history of so many generated trades and their minute bars, written without a log: what the queries over 100 million rows are asked of.

use crate::cli::Where;
use crate::config::load;
use crate::pipeline::folder::open_history;
use crate::pipeline::plan::Plan;
use anyhow::{Context, Result, bail};
use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use mulgil_disk::RealDisk;
use mulgil_history::{ErrorKind, History};
use mulgil_model::ids::{Offset, Partition};
use mulgil_model::rows::Rows;
use mulgil_model::schema::{Column, ColumnType, StreamKind, StreamSchema};
use mulgil_model::time::{AppendTime, ReceiveTime};
use std::sync::Arc;
use std::time::Instant;

/// 2026-01-05, a Monday.
const BEGIN_US: i64 = 1_767_571_200_000_000;
const DAY_US: i64 = 86_400_000_000;
const MINUTE_US: i64 = 60_000_000;
const N_DAYS: i64 = 30;
const N_SYMBOLS: u64 = 32;
const BATCH_ROWS: u64 = 32 * 1024;

#[derive(Debug, clap::Args)]
pub struct FillArgs {
    /// Trades, spread over 30 days and 32 symbols.
    #[arg(long)]
    rows: u64,
    #[command(flatten)]
    at: Where,
}

pub fn fill(args: &FillArgs) -> Result<serde_json::Value> {
    let config = load(&args.at)?;
    let started = Instant::now();
    let plan = Plan::new(&config)?;
    let history = open_history(&config, &plan, Arc::new(RealDisk))?;
    let schema = |kind: StreamKind, ending: &str| {
        let found = plan.streams.iter().find(|s| s.schema.kind == kind && s.schema.stream.as_str().ends_with(ending));
        found.map(|s| Arc::clone(&s.schema)).with_context(|| format!("the configuration has no stream that ends in {ending:?}"))
    };
    let (trades, bars) = (schema(StreamKind::Trade, "")?, schema(StreamKind::Bar, ".bars.1m")?);
    if history.next(&trades.stream, Partition(0)) > Offset::ZERO {
        bail!("the history in {} has trades already: name an empty folder", config.log.dir.display());
    }
    let step_us = (N_DAYS * DAY_US) as f64 / args.rows.max(1) as f64;
    write(&history, &trades, args.rows, |n| Made { n, symbol: random(n) % N_SYMBOLS, at: BEGIN_US + (n as f64 * step_us) as i64 })?;
    let n_minutes = (N_DAYS * DAY_US / MINUTE_US) as u64;
    write(&history, &bars, n_minutes * N_SYMBOLS, |n| Made {
        n,
        symbol: n % N_SYMBOLS,
        at: BEGIN_US + (n / N_SYMBOLS + 1) as i64 * MINUTE_US,
    })?;
    let stats = history.stats();
    let bytes: u64 = stats.iter().map(|s| s.file_bytes).sum();
    let files: usize = stats.iter().map(|s| s.n_files).sum();
    Ok(serde_json::json!({ "rows": args.rows, "bytes": bytes, "files": files, "seconds": started.elapsed().as_secs_f64() }))
}

/// One generated row: the rest of it follows from its number.
struct Made {
    n: u64,
    symbol: u64,
    at: i64,
}

fn write(history: &History, schema: &Arc<StreamSchema>, n_rows: u64, row: impl Fn(u64) -> Made) -> Result<()> {
    for base in (0..n_rows).step_by(BATCH_ROWS as usize) {
        let made: Vec<Made> = (base..n_rows.min(base + BATCH_ROWS)).map(&row).collect();
        let columns = schema.columns.iter().map(|column| values(column, &made)).collect::<Result<Vec<_>>>()?;
        let rows = Rows {
            schema: Arc::clone(schema),
            partition: Partition(0),
            base: Offset(base),
            batch: RecordBatch::try_new(Arc::clone(schema.arrow()), columns)?,
            appended: made.iter().map(|m| AppendTime(m.at)).collect(),
            received: made.iter().map(|m| ReceiveTime(m.at)).collect(),
        };
        match history.append(&rows) {
            Err(error) if error.kind() == ErrorKind::Busy => {
                history.flush()?;
                history.append(&rows)?;
            }
            appended => appended?,
        }
    }
    history.flush()?;
    while history.compact()?.n_files_before > 0 {}
    Ok(())
}

fn values(column: &Column, made: &[Made]) -> Result<ArrayRef> {
    let text = |of: &dyn Fn(&Made) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(made.iter().map(of))) };
    Ok(match (column.kind, column.name.as_str()) {
        (ColumnType::Text, "symbol") => text(&|m| format!("{:06}", 100 + m.symbol * 37)),
        (ColumnType::Text, "side") => text(&|m| if random(m.n ^ 1).is_multiple_of(2) { "BUY" } else { "SELL" }.to_owned()),
        (ColumnType::Text, "trade_id") => text(&|m| format!("t{}", m.n)),
        (ColumnType::Text, _) if column.nullable => Arc::new(StringArray::from(vec![None::<&str>; made.len()])),
        (ColumnType::Text, name) => text(&|_| name.to_owned()),
        (ColumnType::Int, "revision") => Arc::new(Int64Array::from_value(0, made.len())),
        (ColumnType::Int, _) => Arc::new(Int64Array::from_iter_values(made.iter().map(|m| (random(m.n ^ 2) % 500) as i64))),
        (ColumnType::Timestamp, name) => {
            let before = if name == "start" { MINUTE_US } else { 0 };
            Arc::new(TimestampMicrosecondArray::from_iter_values(made.iter().map(|m| m.at - before)).with_timezone("UTC"))
        }
        (ColumnType::Decimal { precision, scale }, name) => {
            let salt = name.bytes().fold(3, |salt, byte| salt * 31 + u64::from(byte));
            let digits = made
                .iter()
                .map(|m| i128::from(50_000 + m.symbol * 1_000 + random(m.n ^ salt) % 1_000) * 10_i128.pow(scale.max(0) as u32) / 100);
            Arc::new(Decimal128Array::from_iter_values(digits).with_precision_and_scale(precision, scale)?)
        }
        (ColumnType::Bool, _) => Arc::new(BooleanArray::from(vec![true; made.len()])),
        (ColumnType::Float, _) => Arc::new(Float64Array::from_iter_values(made.iter().map(|m| m.n as f64))),
    })
}

/// SplitMix64: the same numbers on every machine.
fn random(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
