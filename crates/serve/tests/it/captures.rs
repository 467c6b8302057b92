//! Captured databases and snapshots on demand.

use crate::market::*;
use crate::rest::answer;
use expect_test::expect;
use serde_json::{Value, json};

#[tokio::test]
async fn captured_databases_are_told_with_state_lag_and_progress() {
    let server = start(1).await;
    let (status, list) = answer(server.get("/api/v1/captures")).await;
    assert_eq!(status, 200);
    expect![[r#"
        {
          "captures": [
            {
              "changes": 9,
              "commits": 2,
              "committed": "2026-11-21T00:00:00Z",
              "failures": 0,
              "lag_bytes": 64,
              "position": "7:1",
              "retained_bytes": 1024,
              "safe_wal_bytes": null,
              "since": "2026-11-21T00:00:00Z",
              "snapshot": {
                "chunks": 2,
                "chunks_done": 1,
                "rows": 5
              },
              "source": "exchange",
              "stale": [
                "public.stock_trades: a partition was dropped"
              ],
              "state": "streaming",
              "tables": [
                "public.stock_trades"
              ],
              "type": "postgres",
              "wal_status": "reserved"
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&list).unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_snapshot_is_taken_up_or_refused() {
    let server = start(1).await;
    let mut table = String::new();
    let asks = [
        ("exchange", json!({"tables": ["public.stock_trades"]})),
        ("exchange", json!({"tables": ["public.stock_trades"], "filter": "price > 10"})),
        ("exchange", json!({"tables": ["public.other"]})),
        ("asleep", json!({"tables": ["public.stock_trades"]})),
        ("nope", json!({"tables": ["public.stock_trades"]})),
        ("exchange", json!({"tables": []})),
        ("exchange", json!({"tables": ["stock_trades"]})),
        ("exchange", json!({"tables": [".t"]})),
        ("exchange", json!({"tables": [format!("public.{}", "t".repeat(200))]})),
        ("exchange", json!({"tables": vec!["public.t"; 1001]})),
        ("exchange", json!({"tables": ["public.stock_trades"], "filter": " "})),
        ("exchange", json!({"tables": ["public.stock_trades"], "filter": "x".repeat(4097)})),
        ("exchange", json!({"table": "public.stock_trades"})),
        ("exchange", json!({})),
    ];
    for (source, body) in asks {
        let (status, said) = answer(server.post(&format!("/api/v1/captures/{source}/snapshot")).json(&body)).await;
        let said = if status == 202 { said.to_string() } else { text(&said["type"]) + " " + &text(&said["parameter"]) };
        table += &format!("{source} {} -> {status} {said}\n", body.to_string().chars().take(70).collect::<String>());
    }
    expect![[r#"
        exchange {"tables":["public.stock_trades"]} -> 202 {"source":"exchange","tables":["public.stock_trades"]}
        exchange {"filter":"price > 10","tables":["public.stock_trades"]} -> 202 {"source":"exchange","tables":["public.stock_trades"]}
        exchange {"tables":["public.other"]} -> 422 invalid -
        asleep {"tables":["public.stock_trades"]} -> 409 conflict -
        nope {"tables":["public.stock_trades"]} -> 404 not-found -
        exchange {"tables":[]} -> 400 invalid tables
        exchange {"tables":["stock_trades"]} -> 400 invalid tables
        exchange {"tables":[".t"]} -> 400 invalid tables
        exchange {"tables":["public.ttttttttttttttttttttttttttttttttttttttttttttttttttt -> 400 invalid tables
        exchange {"tables":["public.t","public.t","public.t","public.t","public.t","pub -> 400 invalid tables
        exchange {"filter":" ","tables":["public.stock_trades"]} -> 400 invalid filter
        exchange {"filter":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx -> 400 invalid filter
        exchange {"table":"public.stock_trades"} -> 400 invalid -
        exchange {} -> 400 invalid -
    "#]]
    .assert_eq(&table);
    server.stop().await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("-").trim_start_matches("urn:mulgil:problem:").to_owned()
}
