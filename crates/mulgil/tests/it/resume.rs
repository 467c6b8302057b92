//! Clients that disconnect and come back see every row exactly once, in order: WebSocket and SSE, over a kill of the server too.

use crate::program::{Server, file};
use futures::{SinkExt, StreamExt};
use mulgil_model::keys::partition_of;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio_tungstenite::tungstenite::Message;

const CONFIG: &str = r#"
[source.market]
type = "simulator"
stream = "trades"
rate = 2000
anomaly_share = 0.05
seed = 3

[stream.trades]
kind = "trade"
decimals = { price = 2, quantity = 0 }
types = { event_id = "text?", label = "text?" }
partitions = 2

[rule.large]
stream = "trades"
severity = "medium"
when = "quantity > 500"
cooldown = "1s"
"#;

/// A client of the whole trade stream that keeps only what a frame says.
async fn read_rows(url: &str, resume: Option<&str>, n_frames: usize) -> (Vec<Value>, String, bool) {
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("{}/api/v1/stock/realtime", url.replacen("http", "ws", 1))).await.unwrap();
    let mut subscribe = serde_json::json!({ "op": "subscribe", "id": "t", "streams": ["trades"], "symbols": "all", "mode": "trades" });
    match resume {
        Some(token) => subscribe["resume"] = token.into(),
        None => subscribe["from"] = "2020-01-01T00:00:00Z".into(),
    }
    socket.send(Message::text(subscribe.to_string())).await.unwrap();
    let (mut rows, mut token, mut recovered, mut frames) = (Vec::new(), String::new(), false, 0);
    while frames < n_frames {
        let message = tokio::time::timeout(crate::program::PATIENCE, socket.next()).await.expect("frames keep coming").unwrap().unwrap();
        let Ok(text) = message.to_text() else { continue };
        let Ok(frame) = serde_json::from_str::<Value>(text) else { continue };
        match frame["type"].as_str() {
            Some("subscribed") => recovered = frame["recovered"].as_bool().unwrap_or(false),
            Some("trades") => {
                rows.extend(frame["rows"].as_array().unwrap().iter().cloned());
                token = frame["cursor"].as_str().unwrap().to_owned();
                frames += 1;
            }
            Some("error") => panic!("{frame}"),
            _ => {}
        }
    }
    (rows, token, recovered)
}

/// Trade ids per partition, in order.
fn by_partition(rows: &[Value]) -> BTreeMap<u32, Vec<String>> {
    let mut ids: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for row in rows {
        let partition = partition_of(row["symbol"].as_str().unwrap().as_bytes(), 2).0;
        ids.entry(partition).or_default().push(row["trade_id"].as_str().unwrap().to_owned());
    }
    ids
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_websocket_client_resumes_exactly_once_over_disconnects_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (file(dir.path(), "mulgil.toml", CONFIG), dir.path().join("data"));
    let mut server = Server::start(&config, &data);
    let (mut rows, mut token) = (Vec::new(), None::<String>);
    let runtime = runtime();
    for round in 0..24usize {
        if round == 12 {
            server.kill();
            server = Server::start(&config, &data);
        }
        // A different number of frames each time, so that disconnects fall at different places.
        let (more, next, recovered) = runtime.block_on(read_rows(&server.url, token.as_deref(), 1 + round * 7 % 5));
        assert!(recovered, "round {round}: nothing was dropped from the log, so nothing can be missing");
        rows.extend(more);
        token = Some(next);
    }
    server.stop();
    let received = by_partition(&rows);
    assert!(rows.len() > 1_000, "only {} rows: the comparison would prove little", rows.len());
    let stored = stored_ids(&data, "trades", "trade_id");
    for (partition, ids) in &received {
        assert_eq!(ids[..], stored[partition][..ids.len()], "partition {partition}");
    }
}

/// The ids in a topic of the log, in order, decoded by `mulgil log cat`.
fn stored_ids(data: &std::path::Path, topic: &str, id: &str) -> BTreeMap<u32, Vec<String>> {
    let config = file(data, "config-for-cat.toml", CONFIG);
    let text = crate::program::ok(&[
        "log",
        "cat",
        topic,
        "-c",
        crate::program::text(&config),
        "--data",
        crate::program::text(data),
        "-n",
        "10000000",
    ]);
    let mut ids: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        ids.entry(row["_partition"].as_u64().unwrap() as u32).or_default().push(row[id].as_str().unwrap().to_owned());
    }
    ids
}

/// Reads events until `n` have come; (id, data) of each.
async fn read_events(url: &str, last_id: Option<&str>, n: usize) -> Vec<(String, Value)> {
    let client = reqwest::Client::new();
    let mut request =
        client.get(format!("{url}/api/v1/stock/anomaly{}", if last_id.is_none() { "?from=2020-01-01T00:00:00Z" } else { "" }));
    if let Some(id) = last_id {
        request = request.header("Last-Event-ID", id);
    }
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let (mut body, mut text, mut events) = (answer.bytes_stream(), String::new(), Vec::new());
    while events.len() < n {
        let bytes = tokio::time::timeout(crate::program::PATIENCE, body.next()).await.expect("events keep coming").unwrap().unwrap();
        text.push_str(std::str::from_utf8(&bytes).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n").map(|(e, r)| (e.to_owned(), r.to_owned())) {
            text = rest;
            let field = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
            if let (Some("anomaly"), Some(id), Some(data)) = (field("event:").as_deref(), field("id:"), field("data:")) {
                events.push((id, serde_json::from_str(&data).unwrap()));
            }
        }
    }
    events.truncate(n);
    events
}

#[test]
fn an_sse_client_resumes_exactly_once_with_last_event_id() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (file(dir.path(), "mulgil.toml", CONFIG), dir.path().join("data"));
    let mut server = Server::start(&config, &data);
    let runtime = runtime();
    let (mut seen, mut last) = (BTreeMap::<u32, Vec<String>>::new(), None::<String>);
    for round in 0..16usize {
        if round == 8 {
            server.kill();
            server = Server::start(&config, &data);
        }
        // Each round throws away what came beside its last event, so that the next resumes in the middle of what the server reads at once.
        let events = runtime.block_on(read_events(&server.url, last.as_deref(), 1 + round % 3));
        last = events.last().map(|(id, _)| id.clone());
        for (_, alert) in events {
            let partition = partition_of(alert["key"].as_str().unwrap().as_bytes(), 2).0;
            seen.entry(partition).or_default().push(alert["id"].as_str().unwrap().to_owned());
        }
    }
    server.stop();
    assert_eq!(seen.len(), 2, "alerts of one partition only prove little");
    let stored = stored_ids(&data, "trades.alerts", "id");
    for (partition, ids) in &seen {
        assert_eq!(ids[..], stored[partition][..ids.len()], "partition {partition}");
    }
}
