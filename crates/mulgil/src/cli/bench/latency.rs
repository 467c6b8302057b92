//! From the append of a row to its arrival at a WebSocket client, seen by one client of a running server on the same machine.

use super::{fdatasync_us, percentile};
use crate::pipeline::now_micros;
use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

#[derive(Debug, clap::Args)]
pub struct LatencyArgs {
    #[arg(long)]
    url: String,
    /// Rows a second.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// A folder on the disk that the server's log is on.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long, default_value = "trades")]
    stream: String,
}

/// Rows are posted in batches so far apart.
const BEAT: Duration = Duration::from_millis(10);

/// How long the last rows may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn latency(args: LatencyArgs) -> Result<serde_json::Value> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut figures = runtime.block_on(measure(&args))?;
    let (p50, p99) = fdatasync_us(&args.dir, 200)?;
    figures["fdatasync_p50_us"] = p50.into();
    figures["fdatasync_p99_us"] = p99.into();
    Ok(figures)
}

/// Every row carries in `trade_id` the instant of its commit's request; the reported latency is from the answer to that request.
async fn measure(args: &LatencyArgs) -> Result<serde_json::Value> {
    let socket_url = format!("{}/api/v1/stock/realtime", args.url.replacen("http", "ws", 1));
    let (socket, _) = tokio_tungstenite::connect_async(&socket_url).await.with_context(|| format!("cannot reach {socket_url}"))?;
    let (mut send, mut receive) = socket.split();
    let subscribe = serde_json::json!({ "op": "subscribe", "id": "bench", "streams": [args.stream], "symbols": "all", "mode": "trades" });
    send.send(Message::text(subscribe.to_string())).await?;
    let first = receive.next().await.context("the server closed the socket")??;
    if !first.to_text()?.contains("subscribed") {
        bail!("the server did not take the subscription: {first}");
    }
    let n_batches = args.seconds * 1_000 / BEAT.as_millis() as u64;
    let rows_per_batch = (args.rate * BEAT.as_millis() as u64 / 1_000).max(1);
    let sender = tokio::spawn(post(args.url.clone(), args.stream.clone(), n_batches, rows_per_batch));
    let total = n_batches * rows_per_batch;
    let arrived = collect(&mut receive, total).await?;
    let received = arrived.len();
    let committed = sender.await??;
    let skip = committed.len() / 10;
    let mut latencies: Vec<f64> = Vec::new();
    for (batch, at) in arrived {
        if batch >= skip
            && let Some(answered) = committed.get(batch)
        {
            latencies.push((at - answered).max(0) as f64);
        }
    }
    let rows = latencies.len();
    let max = latencies.iter().copied().fold(0.0, f64::max);
    Ok(serde_json::json!({
        "rows": rows, "sent": total, "received": received, "seconds": args.seconds,
        "p50_us": percentile(&mut latencies, 0.5), "p99_us": percentile(&mut latencies, 0.99), "max_us": max,
    }))
}

/// The instant of each batch's answer.
async fn post(url: String, stream: String, n_batches: u64, rows: u64) -> Result<Vec<i64>> {
    let client = reqwest::Client::new();
    let started = Instant::now();
    let mut requests = Vec::new();
    for batch in 0..n_batches {
        tokio::time::sleep_until(started + BEAT * u32::try_from(batch)?).await;
        let mut body = String::new();
        let now = now_micros() / 1_000;
        for row in 0..rows {
            body.push_str(&format!(
                "{{\"symbol\":\"B{:03}\",\"event_time\":{now},\"price\":100.5,\"quantity\":1,\"side\":\"BUY\",\"trade_id\":\"{batch}\"}}\n",
                row % 50
            ));
        }
        let request = client.post(format!("{url}/api/v1/ingest/{stream}")).header("content-type", "application/x-ndjson").body(body);
        requests.push(tokio::spawn(async move {
            let answer = request.send().await?.error_for_status()?;
            let at = now_micros();
            answer.bytes().await?;
            Ok::<_, reqwest::Error>(at)
        }));
    }
    let mut answered = Vec::with_capacity(requests.len());
    for request in requests {
        answered.push(request.await??);
    }
    Ok(answered)
}

type Receive = futures::stream::SplitStream<tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>>;

/// (batch, arrival) of every row.
async fn collect(receive: &mut Receive, total: u64) -> Result<Vec<(usize, i64)>> {
    let mut arrived = Vec::new();
    while (arrived.len() as u64) < total {
        let frame = tokio::time::timeout(PATIENCE, receive.next())
            .await
            .with_context(|| format!("only {} of {total} rows arrived", arrived.len()))?;
        let frame = frame.context("the server closed the socket")??;
        let at = now_micros();
        let Ok(text) = frame.to_text() else { continue };
        let Ok(frame) = serde_json::from_str::<serde_json::Value>(text) else { continue };
        for row in frame["rows"].as_array().into_iter().flatten() {
            if let Some(batch) = row["trade_id"].as_str().and_then(|b| b.parse().ok()) {
                arrived.push((batch, at));
            }
        }
    }
    Ok(arrived)
}
