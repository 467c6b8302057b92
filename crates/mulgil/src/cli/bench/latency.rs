//! From the append of a row to its arrival at a WebSocket client of a running server on the same machine. The instant of the append is
//! read from the log afterwards: it is taken before the row is written and synced, so the disk is part of the figure.

use super::load::poster::Load;
use super::load::socket::RawSocket;
use super::load::trades::{Scanner, symbol};
use super::{fdatasync_us, percentile};
use crate::cli::{Where, log};
use crate::pipeline::now_micros;
use anyhow::{Context, Result, ensure};
use mulgil_log::{Journal, Log, ReadLimit};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::keys::partition_of;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct LatencyArgs {
    #[arg(long)]
    url: String,
    /// Rows a second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    #[command(flatten)]
    at: Where,
    #[arg(long, default_value = "trades")]
    stream: String,
    #[arg(long, default_value_t = 50)]
    symbols: u32,
}

/// How long the last rows may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn latency(args: &LatencyArgs) -> Result<serde_json::Value> {
    let topic = Topic::new(&args.stream)?;
    let partitions = crate::config::load(&args.at)?.streams.iter().find(|s| s.schema.stream == topic).map(|s| s.partitions);
    let n_partitions = partitions.with_context(|| format!("there is no stream '{topic}'"))?;
    // What earlier runs left is not waited for.
    let begins = ends(&log::open_journal(&args.at)?, &topic, n_partitions)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (arrived, sent) = runtime.block_on(measure(args, n_partitions))?;
    let received: usize = arrived.iter().map(Vec::len).sum();
    ensure!(received as u64 == sent, "{sent} rows were sent, {received} arrived");
    let appended = append_times(&log::open_journal(&args.at)?, &topic, &begins, &arrived)?;
    let mut from_append = Vec::new();
    let mut from_due = Vec::new();
    for (arrived, appended) in arrived.iter().zip(appended) {
        // The first tenth is warm-up.
        for (seen, appended) in arrived.iter().zip(appended).skip(arrived.len() / 10) {
            from_append.push((seen.at_us - appended) as f64);
            from_due.push((seen.at_us - seen.due_us) as f64);
        }
    }
    let (p50, p99) = fdatasync_us(&crate::config::load(&args.at)?.log.dir, 200)?;
    let max = from_append.iter().copied().fold(0.0, f64::max);
    Ok(serde_json::json!({
        "rows": from_append.len(), "sent": sent, "received": received, "seconds": args.seconds,
        "p50_us": percentile(&mut from_append, 0.5), "p99_us": percentile(&mut from_append, 0.99), "max_us": max,
        "due_p50_us": percentile(&mut from_due, 0.5), "due_p99_us": percentile(&mut from_due, 0.99),
        "fdatasync_p50_us": p50, "fdatasync_p99_us": p99,
    }))
}

struct Arrived {
    symbol: u32,
    due_us: i64,
    at_us: i64,
}

/// Posts, and listens to everything: what arrived of each partition, in the order of arrival; and the number of rows sent.
async fn measure(args: &LatencyArgs, n_partitions: u32) -> Result<(Vec<Vec<Arrived>>, u64)> {
    let address = args.url.trim_start_matches("http://");
    let mut socket = RawSocket::connect(address, "/api/v1/stock/realtime").await?;
    let subscribe = serde_json::json!({ "op": "subscribe", "id": "bench", "streams": [args.stream], "symbols": "all", "mode": "stream" });
    socket.send_text(&subscribe.to_string()).await?;
    let first = socket.next().await?;
    ensure!(memchr::memmem::find(first, b"\"subscribed\"").is_some(), "no subscription: {}", String::from_utf8_lossy(first));
    let load = Load { url: args.url.clone(), stream: args.stream.clone(), rate: args.rate, seconds: args.seconds, n_symbols: args.symbols };
    let mut posting = tokio::spawn(load.post());
    let scanner = Scanner::new();
    let partitions: Vec<usize> = (0..args.symbols).map(|s| partition_of(symbol(s).as_bytes(), n_partitions).0 as usize).collect();
    let mut arrived: Vec<Vec<Arrived>> = (0..n_partitions).map(|_| Vec::new()).collect();
    let (mut received, mut sent) = (0, None::<u64>);
    while sent.is_none_or(|sent| received < sent) {
        tokio::select! {
            made = &mut posting, if sent.is_none() => sent = Some(made??.iter().sum()),
            frame = tokio::time::timeout(PATIENCE, socket.next()) => {
                let frame = frame.with_context(|| format!("nothing came any more after {received} rows"))??;
                let at_us = now_micros();
                received += scanner.each(frame, |seen| {
                    arrived[partitions[seen.symbol as usize]].push(Arrived { symbol: seen.symbol, due_us: seen.due_us, at_us });
                });
            }
        }
    }
    Ok((arrived, sent.unwrap_or_default()))
}

fn ends(journal: &Journal, topic: &Topic, n_partitions: u32) -> Result<Vec<Offset>> {
    let seek = |p| Ok(journal.seek(&TopicPartition::new(topic.clone(), Partition(p)), mulgil_log::Seek::Next)?);
    (0..n_partitions).map(seek).collect()
}

/// When each row was appended, in the order of offsets, which is the order of arrival: the keys must agree.
fn append_times(journal: &Journal, topic: &Topic, begins: &[Offset], arrived: &[Vec<Arrived>]) -> Result<Vec<Vec<i64>>> {
    const ROWS_AT_ONCE: usize = 10_000;
    let mut all = Vec::new();
    for (p, (begin, arrived)) in begins.iter().zip(arrived).enumerate() {
        let at = TopicPartition::new(topic.clone(), Partition(u32::try_from(p)?));
        let (mut times, mut next) = (Vec::with_capacity(arrived.len()), *begin);
        while times.len() < arrived.len() {
            let chunk = journal.read(&at, next, ReadLimit::records(ROWS_AT_ONCE))?;
            ensure!(!chunk.is_empty(), "{} rows of {at} arrived, but the log has only {}", arrived.len(), times.len());
            for (record, seen) in chunk.iter().zip(&arrived[times.len()..]) {
                ensure!(record.key == symbol(seen.symbol).as_bytes(), "offset {} of {at} did not arrive in its turn", record.offset);
                times.push(record.append_time.0);
            }
            next = chunk.next_offset();
        }
        all.push(times);
    }
    Ok(all)
}
