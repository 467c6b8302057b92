//! Captured databases, whole: a real server, the real binary, kills of both; and in the log every change exactly once, in the order of commits.

mod database;
mod fold;
mod lives;
mod workload;

mod changes;
mod generated;
mod snapshots;
mod socket;

mod accident;
mod accidents_clock;
mod accidents_disk;
mod accidents_mariadb;
mod accidents_postgres;
mod kills;
mod kills_on_demand;
mod large;
mod presets;

use crate::program::{Server, fails, file, ok, output, text, until};
use mulgil_servers::{Postgres, Settings};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A database's configuration and the data folder of whoever captures it.
struct World {
    dir: tempfile::TempDir,
    config: PathBuf,
    data: PathBuf,
    url: String,
}

impl World {
    fn new(config: &str, url: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (config, data) = (file(dir.path(), "mulgil.toml", config), dir.path().join("data"));
        Self { dir, config, data, url }
    }

    fn data(&self) -> PathBuf {
        self.data.clone()
    }

    fn start(&self) -> Server {
        Server::start_with(&self.config, &self.data(), &[], &[("DATABASE_URL", self.url.as_str())])
    }

    /// The records of a topic as they are printed; none while there is no such topic.
    fn cat(&self, topic: &str) -> Vec<Value> {
        let data = self.data();
        let out = output(&["log", "cat", topic, "-n", "1000000", "-c", text(&self.config), "--data", text(&data)]);
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(said.contains("has no topic"), "{said}");
            return vec![];
        }
        let lines = String::from_utf8(out.stdout).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The values of all events of a topic, tombstones left out.
    fn events(&self, topic: &str) -> Vec<Value> {
        self.cat(topic).into_iter().map(|mut line| line["value"].take()).filter(|value| !value.is_null()).collect()
    }

    fn until_events(&self, topic: &str, n: usize) -> Vec<Value> {
        until(&format!("{n} events in {topic}"), || Some(self.events(topic)).filter(|events| events.len() >= n))
    }

    fn until_rows(&self, topic: &str, n: usize) -> Vec<Value> {
        until(&format!("{n} rows in {topic}"), || Some(self.cat(topic)).filter(|rows| rows.len() >= n))
    }
}

const EXCHANGE: &str = r#"
[source.exchange]
type = "postgres"
url = "env:DATABASE_URL"
tables = ["public.stock_trades"]
heartbeat = "500ms"
"#;

const STOCK_TRADES: &str = "CREATE TABLE stock_trades (trade_id int PRIMARY KEY, ticker text NOT NULL, price numeric(15,2) NOT NULL, volume int, \
                            at timestamptz NOT NULL DEFAULT now(), note text)";

fn exchange(server: &Postgres, more: &str) -> World {
    server.sql(STOCK_TRADES).unwrap();
    World::new(&format!("{EXCHANGE}{more}"), server.url("postgres"))
}

const TOPIC: &str = "exchange.public.stock_trades";

fn until_it_streams(server: &Postgres) {
    until("the slot streams", || (server.sql("SELECT count(*) FROM pg_replication_slots WHERE active").unwrap() == "1").then_some(()));
}

#[test]
fn changes_of_postgres_are_in_the_log_as_debezium_writes_them() {
    let server = Postgres::start(&Settings::default()).unwrap();
    let world = exchange(&server, "");
    let running = world.start();
    until_it_streams(&server);
    server.sql("INSERT INTO stock_trades VALUES (1, '005930', 71500.50, 10, '2026-01-05T09:00:00.123456Z')").unwrap();
    server.sql("UPDATE stock_trades SET volume = 11; DELETE FROM stock_trades").unwrap();
    let events = world.until_events(TOPIC, 3);
    let ops: Vec<&str> = events.iter().map(|e| e["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["c", "u", "d"]);
    let after =
        json!({"trade_id": 1, "ticker": "005930", "price": "71500.50", "volume": 10, "at": "2026-01-05T09:00:00.123456Z", "note": null});
    assert_eq!(events[0]["after"], after);
    assert_eq!(events[1]["after"]["volume"], json!(11));
    assert_eq!((&events[0]["source"]["connector"], &events[0]["source"]["table"]), (&json!("postgresql"), &json!("stock_trades")));
    let listed = ok(&["capture", "ls", "-c", text(&world.config), "--data", text(&world.data())]);
    assert!(listed.starts_with("exchange ") && listed.contains("behind"), "{listed}");
    running.stop();
}

#[test]
fn a_table_becomes_a_typed_stream() {
    let server = Postgres::start(&Settings::default()).unwrap();
    let stream = r#"
[stream.trades]
from = "exchange.public.stock_trades"
kind = "trade"
partitions = 1
decimals = { price = 2, quantity = 0 }
columns = { symbol = "ticker", quantity = "volume", event_time = "at" }
types = { op = "text", snapshot = "bool" }

[stream.holdings]
from = "exchange.public.stock_trades"
changes = "all"
kind = "plain"
partitions = 1
key = "id"
event_time = "committed"
columns = { id = "trade_id", committed = "@committed" }
types = { id = "text", committed = "timestamp", op = "text", is_deleted = "bool", volume = "int?" }
"#;
    let world = exchange(&server, stream);
    let running = world.start();
    until_it_streams(&server);
    server.sql("ALTER TABLE stock_trades REPLICA IDENTITY FULL").unwrap();
    server.sql("INSERT INTO stock_trades VALUES (1, '005930', 71500.50, 10, '2026-01-05T09:00:00Z'), (2, 'AAPL', 1, NULL, now())").unwrap();
    server.sql("UPDATE stock_trades SET volume = 11 WHERE trade_id = 1; DELETE FROM stock_trades WHERE trade_id = 2").unwrap();
    let trades = world.until_rows("trades", 1);
    let fields = ["symbol", "event_time", "price", "quantity", "trade_id", "op", "snapshot"].map(|name| trades[0][name].clone());
    assert_eq!(json!(fields), json!(["005930", "2026-01-05T09:00:00Z", 71500.50, 10, "1", "c", false]));
    let holdings = world.until_rows("holdings", 4);
    let seen: Vec<_> = holdings.iter().map(|r| (r["id"].as_str().unwrap(), r["op"].as_str().unwrap(), r["volume"].as_i64())).collect();
    assert_eq!(seen, [("1", "c", Some(10)), ("2", "c", None), ("1", "u", Some(11)), ("2", "d", None)]);
    // A trade without a quantity is none: it is kept with its reason.
    let listed = ok(&["dlq", "list", "-c", text(&world.config), "--data", text(&world.data())]);
    assert!(listed.contains("capture exchange") && listed.contains("'volume' is required"), "{listed}");
    assert_eq!(world.cat("trades").len(), 1, "an update of a trade is no trade");
    running.stop();
}

#[test]
fn what_may_not_leave_the_database_is_nowhere_in_the_log() {
    let server = Postgres::start(&Settings::default()).unwrap();
    let filter = r#"exclude_columns = ["public.stock_trades.at"]
mask = { "public.stock_trades.note" = 4 }
skip_operations = ["delete"]
rows = { "public.stock_trades" = { ticker = ["A", "B"], price = ">= 10" } }
"#;
    let world = exchange(&server, filter);
    let running = world.start();
    until_it_streams(&server);
    server.sql("INSERT INTO stock_trades VALUES (1, 'A', 10, 1, now(), 'quite secret')").unwrap();
    server.sql("INSERT INTO stock_trades VALUES (2, 'B', 9.99, 1, now(), 'quite secret'), (3, 'C', 99, 1, now(), NULL)").unwrap();
    server.sql("DELETE FROM stock_trades; INSERT INTO stock_trades VALUES (4, 'B', 10.01, 1)").unwrap();
    let events = world.until_events(TOPIC, 2);
    let seen: Vec<_> = events.iter().map(|e| (e["op"].as_str().unwrap(), e["after"].clone())).collect();
    let row = |id: i64, ticker: &str, price: &str| json!({"trade_id": id, "ticker": ticker, "price": price, "volume": 1, "note": "****"});
    assert_eq!(seen, [("c", row(1, "A", "10.00")), ("c", row(4, "B", "10.01"))]);
    running.stop();
    let is_in = |file: std::path::PathBuf| std::fs::read(file).unwrap().windows(12).any(|w| w == b"quite secret");
    let files = std::fs::read_dir(world.data().join("journal")).unwrap().map(|f| f.unwrap().path());
    assert!(!files.into_iter().any(is_in), "the value that was to be masked is in the journal");
}

#[test]
fn a_source_that_cannot_be_opened_stops_no_other() {
    let server = Postgres::start(&Settings::default()).unwrap();
    let other = "[source.gone]\ntype = \"postgres\"\nurl = \"env:NOT_SET_ANYWHERE\"\ntables = [\"public.t\"]\n";
    let world = exchange(&server, other);
    let running = world.start();
    until_it_streams(&server);
    server.sql("INSERT INTO stock_trades VALUES (1, 'A', 1, 1)").unwrap();
    world.until_events(TOPIC, 1);
    let health = until("the other one is told of", || {
        let body = get(&format!("{}/health/ready", running.url));
        body.contains("NOT_SET_ANYWHERE").then_some(body)
    });
    assert!(health.contains("capture gone") && health.contains("capture exchange"), "{health}");
    running.stop();
}

fn get(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { reqwest::get(url).await.unwrap().text().await.unwrap() })
}

#[test]
fn check_names_what_the_database_lacks_and_the_statement_that_mends_it() {
    let server = Postgres::start(&Settings::default().with("wal_level", "replica")).unwrap();
    let world = exchange(&server, "");
    let command = |world: &World| {
        let data = world.data();
        let mut command = crate::program::mulgil();
        command.args(["check", "-c", text(&world.config), "--data", text(&data)]).env("DATABASE_URL", &world.url);
        let out = command.output().unwrap();
        (out.status.success(), String::from_utf8(out.stdout).unwrap())
    };
    let (_, said) = command(&world);
    assert!(said.contains("FAIL  database of [source.exchange]") && said.contains("ALTER SYSTEM SET wal_level"), "{said}");
    let world = World::new(EXCHANGE, "postgres://nobody@127.0.0.1:1/x".to_owned());
    let (succeeded, said) = command(&world);
    assert!(!succeeded && said.contains("nobody@127.0.0.1:1"), "{said}");
    let said = fails(&["capture", "forget", "exchange", "-c", text(&world.config), "--data", text(&world.data())]);
    assert!(said.contains("nothing of a captured database 'exchange'"), "{said}");
}

#[test]
fn a_mapping_that_cannot_be_is_told_before_anything_starts() {
    let stream = "[stream.rows]\nfrom = \"exchange.public.t\"\nchanges = \"all\"\nkind = \"plain\"\nkey = \"id\"\nevent_time = \"at\"\n\
                  columns = { at = \"@committed\" }\ntypes = { id = \"text\", at = \"timestamp\" }\n";
    let world = World::new(&format!("{EXCHANGE}{stream}"), "postgres://nobody@127.0.0.1:1/x".to_owned());
    for command in ["check", "run"] {
        let said = fails(&[command, "-c", text(&world.config), "--data", text(&world.data())]);
        assert!(said.contains("[stream.rows]") && said.contains("no column 'op'") && !said.contains("live page"), "{command}: {said}");
        assert!(!world.data().exists());
    }
}
