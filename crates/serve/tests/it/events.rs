//! The anomaly event stream.

use crate::market::*;
use crate::socket::PATIENCE;
use futures::{Stream, StreamExt};
use mulgil_serve::config::Limits;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

/// A reader of Server-Sent Events, as the standard describes one.
struct Events {
    body: Pin<Box<dyn Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    buffer: String,
    last_id: String,
    retry: String,
    n_comments: usize,
    /// Events that came before the first id.
    early: VecDeque<Event>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    name: String,
    data: serde_json::Value,
}

impl Events {
    async fn open(server: &Running, query: &str, last_id: Option<&str>) -> Self {
        let mut request = reqwest::Client::new().get(server.url(&format!("/api/v1/stock/anomaly{query}")));
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        let mut events = Self {
            body: Box::pin(response.bytes_stream()),
            buffer: String::new(),
            last_id: String::new(),
            retry: String::new(),
            n_comments: 0,
            early: VecDeque::new(),
        };
        // The first block has the retry hint and an id: after it the server's place is fixed.
        while events.last_id.is_empty() {
            let block = events.block().await.unwrap();
            let event = events.read(&block);
            events.early.extend(event);
        }
        events
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.find("\n\n") {
                let rest = self.buffer.split_off(at + 2);
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            let bytes = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("an event in time")?.ok()?;
            self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    fn read(&mut self, block: &str) -> Option<Event> {
        let (mut name, mut data) = (String::from("message"), String::new());
        for line in block.lines().filter(|l| !l.is_empty()) {
            match line.split_once(':').unwrap() {
                ("", _) => self.n_comments += 1,
                ("id", v) => self.last_id = v.trim_start().to_owned(),
                ("event", v) => name = v.trim_start().to_owned(),
                ("data", v) => data = v.trim_start().to_owned(),
                ("retry", v) => self.retry = v.trim_start().to_owned(),
                other => panic!("{other:?}"),
            }
        }
        (!data.is_empty()).then(|| Event { name, data: serde_json::from_str(&data).unwrap() })
    }

    async fn next(&mut self) -> Event {
        if let Some(event) = self.early.pop_front() {
            return event;
        }
        loop {
            let block = self.block().await.expect("the stream is open");
            if let Some(event) = self.read(&block) {
                return event;
            }
        }
    }

    async fn next_id(&mut self) -> String {
        let event = self.next().await;
        assert_eq!(event.name, "anomaly");
        event.data["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn live_alerts_with_their_evidence() {
    let server = start(1).await;
    server.market.alert("A", 1, "rapid_trades", "medium", "live");
    let mut events = Events::open(&server, "", None).await;
    assert_eq!(events.retry, "2000");
    server.market.alert("A", 2, "rapid_trades", "medium", "shadow");
    server.market.alert("A", 3, "rapid_trades", "medium", "live");
    let event = events.next().await;
    assert_eq!(
        (event.name.as_str(), event.data["id"].as_str(), &event.data["evidence"]["count_10s"]),
        ("anomaly", Some("a3"), &serde_json::json!(3))
    );
    server.stop().await;
}

#[tokio::test]
async fn filters() {
    let server = start(2).await;
    let n = |q: &str| q.to_owned();
    let cases = [
        (n("?symbol=A"), vec!["a0", "a3"]),
        (n("?symbol=A,B&severity=high,critical"), vec!["a1"]),
        (n("?type=volume_surge"), vec!["a1"]),
        (n("?mode=shadow"), vec!["a2"]),
        (n("?mode=live,shadow&symbol=A"), vec!["a0", "a2", "a3"]),
        (n("?symbol=A&from=2026-11-21T00:00:03Z"), vec!["a3"]),
    ];
    let mut open = Vec::new();
    for (query, want) in cases {
        // Without a time the stream begins with what comes next, and all are open before the first alert.
        open.push((Events::open(&server, &query, None).await, want, query));
    }
    server.market.alert("A", 0, "rapid_trades", "medium", "live");
    server.market.alert("B", 1, "volume_surge", "high", "live");
    server.market.alert("A", 2, "rapid_trades", "low", "shadow");
    server.market.alert("A", 3, "rapid_trades", "low", "live");
    for (mut events, want, query) in open {
        for id in want {
            assert_eq!(events.next_id().await, id, "{query}");
        }
    }
    for bad in ["?severity=huge", "?mode=off", "?from=noon", "?colour=red", "?lastEventId=AAAA"] {
        let response = reqwest::get(server.url(&format!("/api/v1/stock/anomaly{bad}"))).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
            (400, "application/problem+json"),
            "{bad}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_browser_that_reconnects_gets_every_alert_once_in_order() {
    for seed in 0..6 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let server = start(1).await;
        let (mut n, mut seen, mut last_id) = (0, Vec::new(), None::<String>);
        while seen.len() < 150 {
            let query = if seed % 2 == 0 { String::new() } else { last_id.take().map_or(String::new(), |id| format!("?lastEventId={id}")) };
            let mut events = Events::open(&server, &query, last_id.as_deref()).await;
            if n > 0 {
                let event = events.next().await;
                assert_eq!((event.name.as_str(), &event.data["recovered"]), ("recovery", &serde_json::json!(true)));
            }
            let until = (n + random.random_range(0..20)).min(150);
            (n..until).for_each(|i| server.market.alert("A", i, "r", "low", "live"));
            n = until;
            let target = seen.len() + random.random_range(0..20).min(n - seen.len());
            while seen.len() < target {
                seen.push(events.next_id().await);
            }
            last_id = Some(events.last_id.clone());
            drop(events);
            let until = (n + random.random_range(1..20)).min(150);
            (n..until).for_each(|i| server.market.alert("A", i, "r", "low", "live"));
            n = until;
        }
        assert_eq!(seen, (0..150).map(|i| format!("a{i}")).collect::<Vec<_>>(), "seed {seed}");
        server.stop().await;
    }
}

#[tokio::test]
async fn lost_alerts_are_said() {
    let server = start(1).await;
    let id = Events::open(&server, "", None).await.last_id;
    (0..10).for_each(|i| server.market.alert("A", i, "r", "low", "live"));
    server.market.forget("alerts", 4);
    let mut events = Events::open(&server, "", Some(&id)).await;
    assert_eq!(events.next().await.data["recovered"], serde_json::json!(false));
    assert_eq!(events.next_id().await, "a6", "what is kept comes all the same");
    *server.market.epoch.lock() = "e2";
    let mut events = Events::open(&server, "", Some(&id)).await;
    assert_eq!(events.next().await.data, serde_json::json!({"recovered": false, "epoch": "e2"}));
    server.market.alert("A", 10, "r", "low", "live");
    assert_eq!(events.next_id().await, "a10", "another log begins with the next alert");
    server.stop().await;
}

#[tokio::test]
async fn heartbeats_keep_the_place_fresh_and_slots_are_limited() {
    let limits = Limits { sse_heartbeat: Duration::from_millis(30), sse_clients_max: 1, ..Limits::default() };
    let server = start_limited(1, limits).await;
    let mut events = Events::open(&server, "?symbol=B", None).await;
    let first = events.last_id.clone();
    let refused = reqwest::get(server.url("/api/v1/stock/anomaly")).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    server.market.alert("A", 1, "r", "low", "live");
    while events.last_id == first || events.n_comments < 3 {
        let block = events.block().await.unwrap();
        assert_eq!(events.read(&block), None, "the filter takes nothing");
    }
    server.stop().await;
    assert_eq!(events.block().await, None, "the server's stop ends the stream");
}
