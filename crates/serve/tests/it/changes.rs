//! Raw changes of captured tables on the socket.

use crate::market::*;
use crate::socket::Socket;
use serde_json::{Value, json};

fn event(offset: usize, key: &str, value: Value) -> String {
    json!({"offset": offset, "key": {"id": key}, "value": value}).to_string()
}

fn rows(frame: &Value) -> Vec<Value> {
    frame["rows"].as_array().unwrap().clone()
}

/// Until so many rows have come, all of them.
async fn read(socket: &mut Socket, n: usize) -> (Vec<Value>, String) {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    while seen.len() < n {
        let frame = socket.next_of("changes").await;
        assert_eq!(frame["stream"], CHANGES);
        seen.extend(rows(&frame));
        cursor = frame["cursor"].as_str().unwrap().to_owned();
    }
    (seen, cursor)
}

#[tokio::test]
async fn changes_come_as_they_were_written_and_resume_behind_the_last() {
    let server = start(1).await;
    let market = &server.market;
    let mut socket = Socket::open(&server).await;
    let told = socket.subscribe(json!({"op": "subscribe", "id": "c", "streams": [CHANGES]})).await;
    let mut cursor = told["cursor"].as_str().unwrap().to_owned();
    // Numbers keep their digits: what was written is sent, not read and written again.
    let exact = r#"{"offset":0,"key":{"id":"1"},"value":{"op":"c","after":{"id":"1","price":71500.5000000000000000000001}}}"#;
    market.change("c", "1", None, exact);
    let raw = loop {
        let text = socket.next_text().await;
        if text.contains(r#""type":"changes""#) {
            break text;
        }
    };
    assert!(raw.contains(exact), "{raw}");
    // A delete is two events of one offset, the second a tombstone.
    let gone = format!("{},{}", event(1, "1", json!({"op": "d"})), event(1, "1", Value::Null));
    market.change("d", "1", None, &gone);
    let (seen, _) = read(&mut socket, 2).await;
    assert_eq!((&seen[0]["value"]["op"], &seen[1]["value"], &seen[1]["offset"]), (&json!("d"), &Value::Null, &json!(1)));
    // The connection breaks; meanwhile more happens. Nothing is missing and nothing comes twice, wherever it resumes.
    drop(socket);
    for i in 2..40 {
        market.change("c", &i.to_string(), None, &event(i, &i.to_string(), json!({"op": "c"})));
    }
    let mut all = Vec::new();
    while all.len() < 41 {
        let mut socket = Socket::open(&server).await;
        let told = socket.subscribe(json!({"op": "subscribe", "id": "c", "streams": [CHANGES], "resume": cursor})).await;
        assert_eq!(told["recovered"], json!(true));
        let (seen, at) = read(&mut socket, 1).await;
        (cursor, all) = (at, [all, seen].concat());
    }
    let offsets: Vec<u64> = all.iter().map(|r| r["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [0, 1, 1].into_iter().chain(2..40).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn keys_and_operations_choose_among_changes() {
    let server = start(1).await;
    let market = &server.market;
    let mut socket = Socket::open(&server).await;
    socket.subscribe(json!({"op": "subscribe", "id": "one", "streams": [CHANGES], "symbols": ["1"]})).await;
    let told = socket.subscribe(json!({"op": "subscribe", "id": "gone", "streams": [CHANGES], "ops": ["d", "t"]})).await;
    assert_eq!(told["subscriptions"][1]["ops"], json!(["d", "t"]));
    let changes = [("c", "1", None), ("c", "2", None), ("u", "3", Some("1")), ("d", "2", None), ("t", "", None), ("c", "4", None)];
    for (i, (op, key, was)) in changes.into_iter().enumerate() {
        market.change(op, key, was, &event(i, key, json!({"op": op})));
    }
    let mut seen = std::collections::BTreeMap::<String, Vec<u64>>::new();
    while seen.values().map(Vec::len).sum::<usize>() < 4 {
        let frame = socket.next_of("changes").await;
        let offsets = rows(&frame).iter().map(|r| r["offset"].as_u64().unwrap()).collect::<Vec<_>>();
        seen.entry(frame["id"].as_str().unwrap().to_owned()).or_default().extend(offsets);
    }
    // Who follows key 1 is told when its row gets another key.
    assert_eq!(seen, [("one".to_owned(), vec![0, 2]), ("gone".to_owned(), vec![3, 4])].into());
    server.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_changes_is_refused() {
    let server = start(1).await;
    let mut socket = Socket::open(&server).await;
    let asks = [
        (json!({"mode": "cache", "streams": [CHANGES]}), "bad_mode"),
        (json!({"mode": "candles", "tick": 1, "streams": [CHANGES]}), "bad_mode"),
        (json!({"ops": ["x"], "streams": [CHANGES]}), "bad_ops"),
        (json!({"ops": [], "streams": [CHANGES]}), "bad_ops"),
        (json!({"ops": ["c"], "streams": [CHANGES, "trades"]}), "bad_ops"),
        (json!({"ops": ["c"], "streams": ["trades"]}), "bad_ops"),
        (json!({"streams": ["exchange.public.other"]}), "unknown_stream"),
    ];
    for (mut ask, code) in asks {
        (ask["op"], ask["id"]) = (json!("subscribe"), json!("x"));
        socket.say(ask.clone()).await;
        let answer = socket.next().await.unwrap();
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{ask}: {answer}");
    }
    server.stop().await;
}
