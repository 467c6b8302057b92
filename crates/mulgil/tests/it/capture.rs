//! Captured databases, whole: a real server, the real binary, kills of both; and in the log every change exactly once, in the order of commits.

use crate::program::{PATIENCE, Server, fails, file, mulgil, ok, output, text, until};
use mulgil_servers::{Postgres, Settings};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A database, its configuration and its data folder.
struct World {
    dir: tempfile::TempDir,
    config: PathBuf,
    url: String,
}

impl World {
    fn new(config: &str, url: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = file(dir.path(), "mulgil.toml", config);
        Self { dir, config, url }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn start(&self) -> Server {
        self.start_with(&[])
    }

    fn start_with(&self, env: &[(&str, &str)]) -> Server {
        let env: Vec<_> = env.iter().copied().chain([("DATABASE_URL", self.url.as_str())]).collect();
        Server::start_with(&self.config, &self.data(), &[], &env)
    }

    /// The values of all events of a topic, tombstones left out.
    fn events(&self, topic: &str) -> Vec<Value> {
        let args = ["log", "cat", topic, "-n", "1000000", "-c", text(&self.config), "--data", text(&self.data())];
        let out = output(&args);
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(said.contains("has no topic"), "{said}");
            return vec![];
        }
        let lines = String::from_utf8(out.stdout).unwrap();
        let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone());
        values.filter(|value| !value.is_null()).collect()
    }

    fn until_events(&self, topic: &str, n: usize) -> Vec<Value> {
        until(&format!("{n} events in {topic}"), || Some(self.events(topic)).filter(|events| events.len() >= n))
    }
}

const EXCHANGE: &str = r#"
[source.exchange]
type = "postgres"
url = "env:DATABASE_URL"
tables = ["public.stock_trades"]
heartbeat = "500ms"
"#;

const STOCK_TRADES: &str =
    "CREATE TABLE stock_trades (trade_id int PRIMARY KEY, ticker text NOT NULL, price numeric(15,2) NOT NULL, volume int)";

fn exchange(server: &Postgres) -> World {
    server.sql(STOCK_TRADES).unwrap();
    World::new(EXCHANGE, server.url("postgres"))
}

const TOPIC: &str = "exchange.public.stock_trades";

#[test]
fn changes_of_postgres_are_in_the_log_as_debezium_writes_them() {
    let server = Postgres::start(&Settings::default()).unwrap();
    let world = exchange(&server);
    let running = world.start();
    until("the slot streams", || streams(&server).then_some(()));
    server.sql("INSERT INTO stock_trades VALUES (1, '005930', 71500.50, 10)").unwrap();
    server.sql("UPDATE stock_trades SET volume = 11; DELETE FROM stock_trades").unwrap();
    let events = world.until_events(TOPIC, 3);
    let ops: Vec<&str> = events.iter().map(|e| e["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["c", "u", "d"]);
    assert_eq!(events[0]["after"], json!({"trade_id": 1, "ticker": "005930", "price": "71500.50", "volume": 10}));
    assert_eq!(events[1]["after"]["volume"], json!(11));
    assert_eq!((&events[0]["source"]["connector"], &events[0]["source"]["table"]), (&json!("postgresql"), &json!("stock_trades")));
    running.stop();
}

fn streams(server: &Postgres) -> bool {
    server.sql("SELECT count(*) FROM pg_replication_slots WHERE active").unwrap() == "1"
}

/// The table that the events make when they are followed one by one, from an empty one; an event that does not fit fails the test.
fn folded(events: &[Value]) -> std::collections::BTreeMap<i64, Value> {
    let mut rows = std::collections::BTreeMap::new();
    for event in events {
        let id = |side: &str| event[side]["trade_id"].as_i64().unwrap();
        match event["op"].as_str().unwrap() {
            "c" => assert!(rows.insert(id("after"), event["after"].clone()).is_none(), "created twice: {event}"),
            "r" => drop(rows.insert(id("after"), event["after"].clone())),
            "u" => assert!(rows.insert(id("after"), event["after"].clone()).is_some(), "updated what is not there: {event}"),
            "d" => assert!(rows.remove(&id("before")).is_some(), "deleted what is not there: {event}"),
            "t" => rows.clear(),
            other => panic!("an event of kind {other}: {event}"),
        }
    }
    rows
}
