//! Tables that are read again on demand, over HTTP and from the command line.

use super::accident::capture_detail;
use super::database::{Database, Dialect};
use super::fold::Fold;
use super::socket::Client;
use super::{TOPIC, World, exchange, until_it_streams};
use crate::program::{fails, ok, text, until};
use mulgil_servers::{MariaDb, Postgres, Settings};
use serde_json::{Value, json};

const SNAPSHOT: &str = "/api/v1/captures/exchange/snapshot";

#[test]
fn a_snapshot_on_demand_reads_rows_again_while_changes_go_on() {
    let server = Postgres::start(&Settings::default()).unwrap();
    let world = exchange(&server, "");
    let running = world.start();
    until_it_streams(&server);
    let client = Client::of(&running.url);
    server.sql("INSERT INTO stock_trades SELECT n, 'S' || n, n, n FROM generate_series(1, 20) n").unwrap();
    world.until_events(TOPIC, 20);
    let source = || client.get("/api/v1/captures")["captures"][0].clone();
    let is_told = |s: &Value| {
        s["state"] == "streaming"
            && s["changes"] == json!(20)
            && s["position"].is_string()
            && s["lag_bytes"].is_u64()
            && s["committed"].is_string()
    };
    let told = until("it is told how far it is", || Some(source()).filter(is_told));
    assert_eq!((&told["source"], &told["type"]), (&json!("exchange"), &json!("postgres")));
    assert_eq!((&told["tables"], &told["wal_status"]), (&json!(["public.stock_trades"]), &json!("reserved")));

    let (status, said) = client.post(SNAPSHOT, &json!({"tables": ["public.stock_trades"], "filter": "price > 15"}));
    assert_eq!((status, said), (202, json!({"source": "exchange", "tables": ["public.stock_trades"]})));
    let read = |events: &[Value]| events.iter().filter(|e| e["op"] == "r").cloned().collect::<Vec<_>>();
    let rows = read(&world.until_events(TOPIC, 25));
    let ids: Vec<i64> = rows.iter().map(|e| e["after"]["trade_id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [16, 17, 18, 19, 20]);
    assert!(rows.iter().all(|e| e["source"]["snapshot"] == "incremental"));

    let data = world.data();
    let place = ["-c", text(&world.config), "--data", text(&data)];
    let said = ok(&[&["capture", "snapshot", "exchange", "public.stock_trades", "--filter", "price > 18"][..], &place].concat());
    assert!(said.starts_with("exchange reads public.stock_trades again"), "{said}");
    assert_eq!(read(&world.until_events(TOPIC, 27)).len(), 7);

    let refused = |source: &str, body: Value| {
        let (status, problem) = client.post(&format!("/api/v1/captures/{source}/snapshot"), &body);
        (status, problem["detail"].as_str().unwrap().to_owned())
    };
    let (status, said) = refused("nope", json!({"tables": ["public.stock_trades"]}));
    assert!(status == 404 && said.contains("no captured database 'nope'"), "{status} {said}");
    let (status, said) = refused("exchange", json!({"tables": ["public.other"]}));
    assert!(status == 422 && said.contains("public.other"), "{status} {said}");
    let (status, said) = refused("exchange", json!({"tables": ["public.stock_trades"], "filter": "true) ; DROP TABLE stock_trades"}));
    assert!(status == 422 && said.contains("parenthesis"), "{status} {said}");
    let said = fails(&[&["capture", "snapshot", "exchange", "public.other"][..], &place].concat());
    assert!(said.contains("public.other"), "{said}");

    // A database that is gone takes up nothing.
    drop(server);
    let down = until("it is told that it waits", || Some(source()).filter(|s| s["state"] == "waiting"));
    assert!(!down["detail"].as_str().unwrap().is_empty(), "{down}");
    let (status, said) = refused("exchange", json!({"tables": ["public.stock_trades"]}));
    assert!(status == 409 && said.contains("does not stream now"), "{status} {said}");
    running.stop();
    let said = fails(&[&["capture", "snapshot", "exchange", "public.stock_trades"][..], &place].concat());
    assert!(said.contains("no mulgil runs on"), "{said}");
}

/// Captured because a pattern means it, with the rows that it has before anybody looks, and again after a restart.
fn a_table_that_comes(database: &Database) {
    let world = database.world(&["log_*".to_owned()], "");
    database.sql("CREATE TABLE log_a (id int PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY)").unwrap();
    let running = world.start();
    let dialect = database.dialect();
    until("it streams", || capture_detail(&running).contains("streaming").then_some(()));
    database
        .sql("INSERT INTO other VALUES (1); CREATE TABLE log_b (id int PRIMARY KEY, v int); INSERT INTO log_b VALUES (1, 0), (2, 0)")
        .unwrap();
    database.sql("UPDATE log_b SET v = 1 WHERE id = 2").unwrap();
    let mut fold = Fold::new(&world, dialect, "log_b");
    let mut until_it_is = |n: usize| {
        let table = database.rows("log_b");
        assert_eq!(table.len(), n);
        until("its rows", || (fold.read().rows == table).then_some(()));
    };
    until_it_is(2);
    running.kill();
    database.sql("INSERT INTO log_b VALUES (3, 0)").unwrap();
    let running = world.start();
    until_it_is(3);
    running.stop();
    assert!(world.cat(&dialect.topic("other")).is_empty());
}

#[test]
fn a_table_that_comes_to_postgres_is_captured_by_its_pattern() {
    a_table_that_comes(&Database::start(Dialect::Postgres, &Settings::default()));
}

#[test]
fn a_table_that_comes_to_mariadb_is_captured_by_its_pattern() {
    a_table_that_comes(&Database::start(Dialect::MariaDb, &Settings::default()));
}

#[test]
fn a_snapshot_of_mariadb_reaches_those_who_listen_to_its_changes() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE orders (id int PRIMARY KEY, price decimal(15,2))").unwrap();
    server.sql_in("shop", "INSERT INTO orders VALUES (1, 10.50), (2, 20), (3, 30.25)").unwrap();
    let source = "[source.exchange]\ntype = \"mysql\"\nurl = \"env:DATABASE_URL\"\ntables = [\"shop.orders\"]\nsnapshot = \"no_data\"\n";
    let world = World::new(source, server.url("shop"));
    let running = world.start();
    let mut client = Client::of(&running.url);
    until("it streams", || (client.get("/api/v1/captures")["captures"][0]["state"] == "streaming").then_some(()));
    client.subscribe(json!({"streams": ["exchange.shop.orders"], "ops": ["r"]}));
    let (status, said) = client.post(SNAPSHOT, &json!({"tables": ["shop.orders"], "filter": "price > 15"}));
    assert_eq!(status, 202, "{said}");
    let (rows, _) = client.rows("changes", 2);
    let seen: Vec<_> = rows.iter().map(|r| (r["key"]["id"].as_i64().unwrap(), r["value"]["after"]["price"].as_str().unwrap())).collect();
    assert_eq!(seen, [(2, "20.00"), (3, "30.25")]);
    let (status, said) = client.post(SNAPSHOT, &json!({"tables": ["shop.nope"]}));
    assert!(status == 422 && said["detail"].as_str().unwrap().contains("shop.nope"), "{status} {said}");
    running.stop();
}
