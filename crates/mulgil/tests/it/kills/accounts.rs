//! The accounts that must agree: source, log, derived topics, history, and what clients received.

use super::clients::{Listener, Outside, identity};
use super::world::World;
use crate::program::{Server, ok, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// Every row of a topic in the log, as JSON, by partition and in order.
pub fn cat(world: &World, topic: &str) -> Vec<Value> {
    let all = ["-c", text(&world.config), "--data", text(&world.data), "-n", "100000000"];
    let lines = ok(&[&["log", "cat", topic], all.as_slice()].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Rows of the simulator: the same seed every time, so each run in the log must be a prefix of what the seed gives.
pub fn is_prefix_runs(world: &World, market: &[Value]) {
    let out = world.path("market.ndjson");
    ok(&["simulate", "--rows", "30000", "--seed", "11", "--rate", "150", "--anomaly-share", "0", "--out", text(&out)]);
    let mut given: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(&out).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let partition = mulgil_model::keys::partition_of(row["symbol"].as_str().unwrap().as_bytes(), 2);
        given.entry(partition.0.into()).or_default().push(row["trade_id"].as_str().unwrap().to_owned());
    }
    let (mut partition, mut next, mut n_runs) = (u64::MAX, 0, 0);
    for row in market {
        let (at, id) = (row["_partition"].as_u64().unwrap(), row["trade_id"].as_str().unwrap());
        if at != partition || id == given[&at][0] {
            (partition, next, n_runs) = (at, 0, n_runs + 1);
        }
        assert_eq!(id, given[&at][next], "trade {next} of run {n_runs} of the simulator, partition {at}");
        next += 1;
    }
    assert!(n_runs > 4, "the simulator ran only {n_runs} times");
}

/// What clients should have received: where each id stands in the log.
pub struct Received {
    /// By listener: id -> (topic and partition, place in it).
    places: BTreeMap<&'static str, BTreeMap<String, (String, usize)>>,
}

impl Received {
    pub fn new(world: &World) -> Self {
        let mut places: BTreeMap<&'static str, BTreeMap<String, (String, usize)>> = BTreeMap::new();
        let alerts = ["trades.alerts", "orders.alerts", "orders.bars.1m.alerts"].map(|topic| ("alerts", topic, "id"));
        let rows = ["orders", "trades", "market"].map(|topic| (topic, topic, "trade_id"));
        for (listener, topic, id) in alerts.into_iter().chain(rows) {
            let mut next: BTreeMap<String, usize> = BTreeMap::new();
            let of_listener = places.entry(listener).or_default();
            for row in cat(world, topic) {
                let at = format!("{topic}/{}", row["_partition"]);
                let place = next.entry(at.clone()).or_default();
                assert!(of_listener.insert(identity(&row, id), (at, *place)).is_none(), "{topic} holds this row twice: {row}");
                *place += 1;
            }
            assert!(!next.is_empty(), "{topic} is empty: the comparison would prove nothing");
        }
        Self { places }
    }

    pub fn n_of(&self, listener: &str) -> usize {
        self.places[listener].len()
    }

    /// Once each, in order, none missing.
    pub fn check(&self, listener: Listener) {
        let received = listener.thread.join().unwrap();
        let mut next: BTreeMap<&str, usize> = BTreeMap::new();
        for id in &received {
            let (at, place) = &self.places[listener.name][id];
            let due = next.entry(at).or_default();
            assert_eq!(place, due, "a listener to {} received row {place} of {at} when row {due} was due", listener.name);
            *due += 1;
        }
        assert_eq!(received.len(), self.n_of(listener.name), "a listener to {} has not received all", listener.name);
    }
}

pub fn sql(server: &Server, query: &str) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let body = serde_json::json!({ "sql": query }).to_string();
        let request = reqwest::Client::new().post(format!("{}/api/v1/sql", server.url)).header("content-type", "application/json");
        let answer = request.body(body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success() && !text.contains(r#""truncated":true"#), "{query}: {status} {text:.500}");
        serde_json::from_str(&text).unwrap()
    })
}

/// The history of a stream holds each row of the log once, and says the same in both folders.
pub fn histories_agree(server: &Server, undisturbed: &Server, stream: &str, n_log: usize, is_base: bool) {
    let counted =
        sql(server, &format!("SELECT count(*) AS n, count(DISTINCT _partition * 1000000000 + _offset) AS places FROM \"{stream}\""));
    assert_eq!(counted["data"], serde_json::json!([{ "n": n_log, "places": n_log }]), "the history of {stream} beside its log");
    let query = if is_base {
        format!(
            "SELECT _partition, count(*) AS n, max(_offset) AS last, count(DISTINCT trade_id) AS ids, sum(price) AS prices, \
             sum(quantity) AS quantities FROM \"{stream}\" GROUP BY 1 ORDER BY 1"
        )
    } else {
        format!("SELECT * EXCEPT (_append_time, _receive_time) FROM \"{stream}\" ORDER BY _partition, _offset")
    };
    let (got, want) = (sql(server, &query), sql(undisturbed, &query));
    assert!(want["count"].as_u64() > Some(0), "{stream} is empty: the comparison would prove nothing");
    if got != want {
        let (got, want) = (got["data"].as_array().unwrap(), want["data"].as_array().unwrap());
        let at = got.iter().zip(want).position(|(a, b)| a != b).unwrap_or(got.len().min(want.len()));
        panic!("the history of {stream} differs first at row {at}: {:?} instead of {:?}", got.get(at), want.get(at));
    }
}

/// Now and then a row that is older than the history keeps, so that there is something to drop.
pub fn ancient_rows(outside: &Arc<Outside>) -> JoinHandle<()> {
    let outside = Arc::clone(outside);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let row = r#"{"symbol":"OLD","event_time":"1999-12-31T00:00:00Z","price":1,"quantity":1,"side":"BUY","trade_id":"a"}"#;
            while !outside.enough.load(Ordering::Acquire) {
                let url = outside.url.lock().unwrap().clone();
                if let Some(url) = url {
                    let request = reqwest::Client::new().post(format!("{url}/api/v1/ingest/ancient"));
                    request.header("content-type", "application/json").body(row).send().await.ok();
                }
                super::clients::breath().await;
            }
        });
    })
}
