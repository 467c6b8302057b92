//! `mulgil bench`: what only the inside can measure, as one JSON object each. See xtask/src/bench/README.md.

mod load;

mod broadcast;
mod clients;
mod fill;
mod ingest;
mod journal;
mod latency;
mod parse;
mod query;

use anyhow::Result;
use clap::{Args, Subcommand};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Parse an NDJSON file of trades into Arrow, one thread, nothing else.
    Parse(parse::ParseArgs),
    /// The journal against plain sequential writes with fdatasync.
    Journal(journal::JournalArgs),
    /// From the commit of a row to its arrival at a WebSocket client.
    Latency(latency::LatencyArgs),
    /// Many WebSocket clients: what each gets, in which order, how late.
    Clients(clients::ClientsArgs),
    /// Serve one frame again and again to whoever connects, with the WebSocket library alone.
    Broadcast(broadcast::BroadcastArgs),
    /// Large batches through the door for rows.
    Ingest(ingest::IngestArgs),
    /// A history of so many generated rows, without a log.
    Fill(fill::FillArgs),
    /// One query, many times in one process.
    Query(query::QueryArgs),
}

pub fn bench(args: BenchArgs) -> Result<()> {
    let figures = match args.command {
        BenchCommand::Parse(args) => parse::parse(&args)?,
        BenchCommand::Journal(args) => journal::journal(&args)?,
        BenchCommand::Latency(args) => latency::latency(&args)?,
        BenchCommand::Clients(args) => clients::clients(&args)?,
        BenchCommand::Broadcast(args) => broadcast::broadcast(&args)?,
        BenchCommand::Ingest(args) => ingest::ingest(&args)?,
        BenchCommand::Fill(args) => fill::fill(&args)?,
        BenchCommand::Query(args) => query::query(&args)?,
    };
    println!("{figures}");
    Ok(())
}

/// p50 and p99, in microseconds, of so many fdatasync calls of 4 KiB each on a file in `dir`.
fn fdatasync_us(dir: &Path, n: usize) -> Result<(f64, f64)> {
    let path = dir.join("fdatasync.bench");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(&path)?;
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        file.write_all(&[7; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path)?;
    Ok((percentile(&mut times, 0.5), percentile(&mut times, 0.99)))
}

fn percentile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * p) as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}
