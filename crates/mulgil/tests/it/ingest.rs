//! Rows over HTTP: accepted only when committed, refused with their place, kept as dead letters, tried again.

use crate::program::{Server, file, ok, text, until};
use serde_json::{Value, json};

const CONFIG: &str = r#"
[stream.trades]
kind = "trade"
decimals = { price = 2, quantity = 0 }
bars = ["1m"]
partitions = 2
dedupe = { columns = ["symbol", "event_time", "trade_id"] }
"#;

fn post(server: &Server, stream: &str, kind: &str, key: Option<&str>, body: String) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut request =
            reqwest::Client::new().post(format!("{}/api/v1/ingest/{stream}", server.url)).header("content-type", kind).body(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
    })
}

fn row(id: u32, price: &str) -> String {
    format!(
        r#"{{"symbol":"005930","event_time":"2026-01-05T09:00:0{}Z","price":{price},"quantity":10,"side":"BUY","trade_id":"{id}"}}"#,
        id % 10
    )
}

fn count(server_data: &std::path::Path, config: &std::path::Path, sql: &str) -> String {
    ok(&["query", sql, "-c", text(config), "--data", text(server_data), "--format", "csv"]).lines().last().unwrap().to_owned()
}

#[test]
fn accepted_rows_survive_a_kill_and_repeated_requests_do_not_repeat_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (file(dir.path(), "mulgil.toml", CONFIG), dir.path().join("data"));
    let server = Server::start(&config, &data);
    let body = [row(1, "71500"), row(2, "71500.5"), row(3, "1.5e2")].join("\n");
    let (status, answer) = post(&server, "trades", "application/x-ndjson", Some("k1"), body.clone());
    assert_eq!((status, &answer["accepted"]), (200, &json!(3)), "{answer}");
    server.kill();
    let server = Server::start(&config, &data);
    let (status, answer) = post(&server, "trades", "application/x-ndjson", Some("k1"), body.clone());
    assert_eq!((status, &answer["accepted"], &answer["replayed"]), (200, &json!(3), &json!(true)), "{answer}");
    let (status, _) = post(&server, "trades", "application/x-ndjson", Some("k1"), row(9, "1"));
    assert_eq!(status, 409);
    // The same rows again without a key: the stream's natural key drops them.
    post(&server, "trades", "application/x-ndjson", None, body);
    until("three rows in the history", || (count(&data, &config, "SELECT count(*) FROM trades") == "3").then_some(()));
    server.stop();
    assert_eq!(count(&data, &config, "SELECT sum(price) FROM trades"), "143150.50");
}

#[test]
fn bad_rows_are_told_kept_and_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (config, data) = (file(dir.path(), "mulgil.toml", CONFIG), dir.path().join("data"));
    let server = Server::start(&config, &data);
    let body = [row(1, "71500"), row(2, "-1"), row(3, "71500.123"), "{oops".to_owned(), row(4, "72000")].join("\n");
    let (status, answer) = post(&server, "trades", "application/x-ndjson", None, body);
    assert_eq!((status, &answer["accepted"], &answer["rejected"]), (200, &json!(2), &json!(3)), "{answer}");
    let lines: Vec<u64> = answer["problems"].as_array().unwrap().iter().map(|p| p["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3, 4]);
    let (status, answer) = post(&server, "trades", "application/json", None, "[]nonsense".to_owned());
    assert!(status == 422 || status == 400, "{status} {answer}");
    assert_eq!(post(&server, "nosuch", "application/json", None, "{}".to_owned()).0, 404);
    assert_eq!(post(&server, "trades", "text/plain", None, "x".to_owned()).0, 415);
    server.stop();
    let listed = ok(&["dlq", "list", "-c", text(&config), "--data", text(&data)]);
    assert_eq!(listed.lines().count(), 1 + 4, "{listed}");
    let shown = ok(&["dlq", "show", "1", "-c", text(&config), "--data", text(&data)]);
    assert!(shown.contains("71500.123") && shown.contains("decimals"), "{shown}");
    // A wider price makes one of them readable.
    let wider = file(dir.path(), "wider.toml", &CONFIG.replace("price = 2", "price = 4"));
    let said = ok(&["dlq", "replay", "-c", text(&wider), "--data", text(&data)]);
    assert!(said.starts_with("1 put in, 3 still bad"), "{said}");
    // The others are tried as often as somebody asks, and listed once.
    let again = ok(&["dlq", "replay", "-c", text(&wider), "--data", text(&data)]);
    assert!(again.starts_with("0 put in, 3 still bad"), "{again}");
    let listed = |more: &[&str]| ok(&[&["dlq", "list", "-c", text(&wider), "--data", text(&data)][..], more].concat());
    assert_eq!((listed(&[]).lines().count(), listed(&["--all"]).lines().count()), (1 + 3, 1 + 4 + 3 + 3));
}
