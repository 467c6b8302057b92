//! `POST /ingest`: large batches, one after the other or several at a time, from the first byte sent to the answer.

use super::load::trades::Trades;
use super::percentile;
use crate::pipeline::now_micros;
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub struct IngestArgs {
    #[arg(long)]
    url: String,
    #[arg(long, default_value_t = 10_000)]
    rows: u64,
    /// Batches that are timed, of all clients together.
    #[arg(long, default_value_t = 50)]
    batches: u64,
    /// Clients, each of which waits for one answer before it sends the next batch.
    #[arg(long, default_value_t = 1)]
    parallel: u64,
    #[arg(long, value_enum)]
    format: BodyFormat,
    #[arg(long, default_value = "trades")]
    stream: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BodyFormat {
    Ndjson,
    Json,
}

const SYMBOLS: u32 = 100;

/// Batches before those that are timed, of each client.
const WARM_UP: u64 = 3;

pub fn ingest(args: &IngestArgs) -> Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: &IngestArgs) -> Result<serde_json::Value> {
    let client = reqwest::Client::new();
    let body = bytes::Bytes::from(body(args.format, args.rows));
    let per_client = args.batches / args.parallel.max(1);
    ensure!(per_client > 0, "fewer batches than clients");
    for _ in 0..WARM_UP {
        post(&client, args, body.clone()).await?;
    }
    let started = Instant::now();
    let clients: Vec<_> = (0..args.parallel.max(1))
        .map(|_| {
            let (client, body) = (client.clone(), body.clone());
            async move {
                let mut times = Vec::new();
                for _ in 0..per_client {
                    times.push(post(&client, args, body.clone()).await?);
                }
                Ok::<_, anyhow::Error>(times)
            }
        })
        .collect();
    let mut times: Vec<f64> = futures::future::try_join_all(clients).await?.into_iter().flatten().collect();
    let seconds = started.elapsed().as_secs_f64();
    let rows = times.len() as u64 * args.rows;
    Ok(serde_json::json!({
        "rows": rows, "bytes_each": body.len(), "seconds": seconds, "rows_per_second": rows as f64 / seconds,
        "p50_ms": percentile(&mut times, 0.5), "p99_ms": percentile(&mut times, 0.99), "max_ms": percentile(&mut times, 1.0),
    }))
}

/// Milliseconds until the answer has been read; every row must have been taken.
async fn post(client: &reqwest::Client, args: &IngestArgs, body: bytes::Bytes) -> Result<f64> {
    let kind = match args.format {
        BodyFormat::Ndjson => "application/x-ndjson",
        BodyFormat::Json => "application/json",
    };
    let url = format!("{}/api/v1/ingest/{}", args.url, args.stream);
    let started = Instant::now();
    let answer = client.post(&url).header("content-type", kind).body(body).send().await;
    let text = answer.and_then(reqwest::Response::error_for_status).with_context(|| format!("post to {url}"))?.text().await?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let answer: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(answer["accepted"] == args.rows, "{} rows were sent, the answer is {text:.200}", args.rows);
    Ok(ms)
}

fn body(format: BodyFormat, rows: u64) -> String {
    let lines = Trades::of(0..SYMBOLS).batch(rows, now_micros());
    match format {
        BodyFormat::Ndjson => lines,
        BodyFormat::Json => format!("[{}]", lines.trim_end().replace('\n', ",")),
    }
}
