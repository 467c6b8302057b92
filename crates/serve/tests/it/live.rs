//! The realtime socket: both protocols, resuming, candles, slow readers, limits.

use crate::market::*;
use crate::socket::{Socket, ids};
use mulgil_serve::config::Limits;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

const SYMBOLS: [&str; 5] = ["005930", "000660", "BRK.B", "AAPL", "KRW-BTC"];

/// Every symbol's ids in the order of arrival: what a client must see of each.
fn by_symbol(rows: &[(String, usize)]) -> HashMap<&str, Vec<usize>> {
    let mut out: HashMap<&str, Vec<usize>> = HashMap::new();
    rows.iter().for_each(|(s, id)| out.entry(s).or_default().push(*id));
    out
}

fn rows_of(frame: &Value) -> impl Iterator<Item = (String, usize)> + '_ {
    frame["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (r["symbol"].as_str().unwrap().to_owned(), r["trade_id"].as_str().unwrap().parse().unwrap()))
}

#[tokio::test]
async fn a_client_that_comes_and_goes_sees_every_row_once_in_order() {
    for seed in 0..8 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let server = start(3).await;
        let wanted: Option<Vec<&str>> = (seed % 2 == 0).then(|| SYMBOLS[..3].to_vec());
        let (mut n, mut seen, mut cursor) = (0, Vec::new(), None::<String>);
        let mut sent: Vec<(String, usize)> = Vec::new();
        const TOTAL: usize = 600;
        while seen.len() < expected(&sent, &wanted) || n < TOTAL {
            let mut socket = Socket::open(&server).await;
            let mut ask =
                json!({"op": "subscribe", "id": "a", "streams": ["trades"], "symbols": wanted.clone().map_or(json!("all"), |w| json!(w))});
            if let Some(cursor) = &cursor {
                ask["resume"] = json!(cursor);
            }
            let answer = socket.subscribe(ask).await;
            assert_eq!((&answer["recovered"], &answer["epoch"]), (&json!(true), &json!("e1")));
            cursor = answer["cursor"].as_str().map(str::to_owned);
            // Some rows while connected, read up to a random point; some more while nobody looks.
            for _ in 0..random.random_range(1..4) {
                let (more, step) = batch(&mut random, n, TOTAL);
                n += step;
                server.market.commit(more.iter().map(|(s, id)| trade(s, *id as i64, 100, 1, *id)));
                sent.extend(more);
            }
            let target = seen.len() + random.random_range(0..60);
            while seen.len() < target.min(expected(&sent, &wanted)) {
                let frame = socket.next().await.unwrap();
                if frame["type"] == "trades" {
                    seen.extend(rows_of(&frame));
                    cursor = frame["cursor"].as_str().map(str::to_owned);
                }
            }
            drop(socket);
            let (more, step) = batch(&mut random, n, TOTAL);
            n += step;
            server.market.commit(more.iter().map(|(s, id)| trade(s, *id as i64, 100, 1, *id)));
            sent.extend(more);
        }
        sent.retain(|(s, _)| wanted.as_ref().is_none_or(|w| w.contains(&s.as_str())));
        assert_eq!(by_symbol(&seen), by_symbol(&sent), "seed {seed}");
        server.stop().await;
    }
}

fn batch(random: &mut ChaCha8Rng, n: usize, total: usize) -> (Vec<(String, usize)>, usize) {
    let step = random.random_range(0..50).min(total - n);
    ((n..n + step).map(|id| (SYMBOLS[random.random_range(0..SYMBOLS.len())].to_owned(), id)).collect(), step)
}

fn expected(sent: &[(String, usize)], wanted: &Option<Vec<&str>>) -> usize {
    sent.iter().filter(|(s, _)| wanted.as_ref().is_none_or(|w| w.contains(&s.as_str()))).count()
}

#[tokio::test]
async fn history_then_live_over_the_same_messages() {
    let server = start(1).await;
    server.market.commit((0..20).map(|i| trade("A", i * SECOND, 100, 1, i as usize)));
    let mut socket = Socket::open(&server).await;
    let answer = socket.subscribe(json!({"op": "subscribe", "id": 7, "streams": ["trades"], "from": "2026-11-21T00:00:12Z"})).await;
    assert_eq!(answer["subscriptions"], json!([{"id": "7", "streams": ["trades"], "symbols": "all", "mode": "stream"}]));
    assert_eq!(answer["recovered"], json!(true));
    let mut seen = Vec::new();
    loop {
        let frame = socket.next().await.unwrap();
        if frame["type"] == "replay_completed" {
            assert_eq!(frame["id"], json!("7"));
            break;
        }
        seen.extend(ids(&frame));
    }
    assert_eq!(seen, (12..20).collect::<Vec<_>>());
    server.market.commit([trade("A", 20 * SECOND, 12_345, 150, 20)]);
    let frame = socket.next().await.unwrap();
    assert_eq!(frame["type"], "trades");
    let row = json!({"symbol": "A", "event_time": "2026-11-21T00:00:20Z", "price": 123.45, "quantity": 1.5, "side": "BUY", "trade_id": "20", "market": "KRX", "currency": "KRW"});
    assert_eq!(frame["rows"], json!([row]));
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_resumed_is_said() {
    let server = start(2).await;
    server.market.commit((0..50).map(|i| trade(SYMBOLS[i % 5], i as i64, 100, 1, i)));
    let mut socket = Socket::open(&server).await;
    let old = socket.subscribe(json!({"op": "subscribe", "id": "a"})).await["cursor"].as_str().unwrap().to_owned();
    let ask = |token: &str| json!({"op": "subscribe", "id": "a", "streams": ["trades"], "resume": token});
    // A token of other streams, a damaged one, one from the future: errors, and the old subscription stays.
    socket.say(json!({"op": "subscribe", "id": "b", "streams": ["alerts"], "resume": old})).await;
    assert_eq!(socket.next().await.unwrap()["code"], "bad_token");
    for i in [0, old.len() / 2, old.len() - 1] {
        let mut bad = old.clone();
        bad.replace_range(i..=i, if &old[i..=i] == "B" { "C" } else { "B" });
        socket.say(ask(&bad)).await;
        let error = socket.next().await.unwrap();
        assert_eq!((&error["type"], &error["code"], &error["id"]), (&json!("error"), &json!("bad_token"), &json!("a")), "{error}");
    }
    let other = start(2).await;
    let mut there = Socket::open(&other).await;
    there.say(ask(&old)).await;
    assert_eq!(there.next().await.unwrap()["code"], "bad_token", "it lies ahead of an empty log");
    other.stop().await;
    // Rows that retention took: not recovered, and the client starts at the end.
    server.market.commit((50..100).map(|i| trade(SYMBOLS[i % 5], i as i64, 100, 1, i)));
    let mut n_seen = 0;
    while n_seen < 50 {
        n_seen += ids(&socket.next_of("trades").await).len();
    }
    server.market.forget("trades", 3);
    assert_eq!(socket.subscribe(ask(&old)).await["recovered"], json!(false));
    server.market.commit([trade("A", 0, 1, 1, 100)]);
    assert_eq!(ids(&socket.next_of("trades").await), [100]);
    // Another log.
    *server.market.epoch.lock() = "e2";
    let answer = socket.subscribe(ask(&old)).await;
    assert_eq!((&answer["recovered"], &answer["epoch"]), (&json!(false), &json!("e2")));
    server.stop().await;
}

fn candle(frame: &Value) -> String {
    let d = &frame["data"];
    let flags = format!(
        "{}{}",
        if frame["closed"] == true { " closed" } else { "" },
        frame["revision"].as_u64().filter(|r| *r > 0).map_or(String::new(), |r| format!(" r{r}"))
    );
    let start = frame["start"].as_str().unwrap().trim_start_matches("2026-11-21T");
    format!(
        "{} {start}/{} {} {} {} {} {}{flags}",
        frame["ticker"].as_str().unwrap(),
        frame["current_tick"],
        d["open"],
        d["high"],
        d["low"],
        d["close"],
        d["volume"]
    )
}

#[tokio::test]
async fn candles_of_the_simple_protocol() {
    for path in ["/api/v1/stock/realtime", "/api/v1/stock/real-time"] {
        let server = start(2).await;
        server.market.commit([
            trade("A", SECOND, 100, 100, 0),
            trade("B", 2 * SECOND, 900, 100, 1),
            trade("A", 6 * SECOND, 300, 200, 2),
            trade("A", 7 * SECOND, 200, 100, 3),
        ]);
        let mut socket = Socket::open_at(&server, path).await;
        socket.say(json!({"ticker": "A", "tick": 5})).await;
        // The open candle is whole from the first frame on.
        assert_eq!(candle(&socket.next().await.unwrap()), "A 00:00:05Z/5 3 3 2 2 3");
        server.market.commit([trade("A", 8 * SECOND, 450, 100, 4)]);
        assert_eq!(candle(&socket.next().await.unwrap()), "A 00:00:05Z/5 3 4.5 2 4.5 4");
        // Late by a second: it is the new open.
        server.market.commit([trade("A", 5 * SECOND, 250, 50, 5)]);
        assert_eq!(candle(&socket.next().await.unwrap()), "A 00:00:05Z/5 2.5 4.5 2 4.5 4.5");
        // Another symbol's trade shows that the window is over.
        server.market.commit([trade("B", 10 * SECOND, 900, 100, 6)]);
        assert_eq!(candle(&socket.next().await.unwrap()), "A 00:00:05Z/5 2.5 4.5 2 4.5 4.5 closed");
        // Too late for the window, but not for a revision.
        server.market.commit([trade("A", 9 * SECOND, 50, 50, 7)]);
        assert_eq!(candle(&socket.next().await.unwrap()), "A 00:00:05Z/5 2.5 4.5 0.5 0.5 5 closed r1");
        socket.say(json!({"ticker": "B", "tick": 60})).await;
        assert_eq!(candle(&socket.next().await.unwrap()), "B 00:00:00Z/60 9 9 9 9 2");
        server.stop().await;
    }
}

#[tokio::test]
async fn candles_from_the_past_on() {
    let server = start(2).await;
    server.market.commit((0..8).map(|i| trade("A", i * SECOND, 100 + i as i128 * 100, 100, i as usize)));
    let mut socket = Socket::open(&server).await;
    socket
        .subscribe(json!({"op": "subscribe", "id": "c", "mode": "candles", "tick": 2, "symbols": ["A"], "from": "2026-11-21T00:00:03Z"}))
        .await;
    let mut last = HashMap::new();
    loop {
        let frame = socket.next().await.unwrap();
        if frame["type"] == "replay_completed" {
            break;
        }
        assert_eq!(frame["id"], "c");
        last.insert(frame["start"].as_str().unwrap().to_owned(), candle(&frame));
    }
    let mut last: Vec<_> = last.into_values().collect();
    last.sort();
    assert_eq!(last, ["A 00:00:02Z/2 3 4 3 4 2 closed", "A 00:00:04Z/2 5 6 5 6 2 closed", "A 00:00:06Z/2 7 8 7 8 2"]);
    server.stop().await;
}

#[tokio::test]
async fn the_latest_state_is_conflated() {
    let server = start(2).await;
    server.market.commit((0..30).map(|i| trade(SYMBOLS[i % 3], i as i64, 100, 1, i)));
    let mut socket = Socket::open(&server).await;
    socket.subscribe(json!({"op": "subscribe", "id": "c", "mode": "cache"})).await;
    let frame = socket.next_of("trades").await;
    let mut seen = ids(&frame);
    seen.sort_unstable();
    assert_eq!((seen, &frame["snapshot"], &frame["conflated"]), (vec![27, 28, 29], &json!(true), &json!(27)));
    server.market.commit((30..40).map(|i| trade("A", i as i64, 100, 1, i)));
    let frame = socket.next_of("trades").await;
    assert_eq!((ids(&frame), &frame["snapshot"], &frame["conflated"]), (vec![39], &json!(false), &json!(9)));
    server.stop().await;
}

#[tokio::test]
async fn any_stream_can_be_watched() {
    let server = start(1).await;
    let mut socket = Socket::open(&server).await;
    socket.subscribe(json!({"op": "subscribe", "id": "x", "streams": ["alerts", "trades.bars.1m"], "symbols": ["A"]})).await;
    server.market.alert("B", 1, "rapid_trades", "medium", "live");
    server.market.alert("A", 2, "rapid_trades", "medium", "live");
    let frame = socket.next().await.unwrap();
    assert_eq!(
        (&frame["type"], &frame["stream"], &frame["rows"][0]["evidence"]),
        (&json!("alerts"), &json!("alerts"), &json!({"count_10s": 2}))
    );
    assert_eq!(frame["rows"].as_array().unwrap().len(), 1);
    socket.say(json!({"op": "unsubscribe", "id": "x"})).await;
    assert_eq!(socket.next().await.unwrap(), json!({"type": "unsubscribed", "id": "x", "subscriptions": []}));
    socket.say(json!({"op": "ping", "id": "p"})).await;
    assert_eq!(socket.next().await.unwrap(), json!({"type": "pong", "id": "p"}));
    server.stop().await;
}

#[tokio::test]
async fn a_reader_that_stops_or_stays_behind_is_warned_then_closed_and_can_come_back() {
    // One after the other: the count of those who were closed is of the whole process.
    check_one_that_stops().await;
    check_one_that_stays_behind().await;
}

async fn check_one_that_stops() {
    let limits = Limits { ws_slow_warn: Duration::from_millis(100), ws_slow_close: Duration::from_millis(400), ..Limits::default() };
    let server = start_limited(1, limits).await;
    let mut socket = Socket::open(&server).await;
    let mut cursor = socket.subscribe(json!({"op": "subscribe", "id": "a"})).await["cursor"].as_str().unwrap().to_owned();
    // More than the sockets' own buffers hold. The server sends what they take, then waits, warns, and gives up.
    const ROWS: usize = 1500;
    let long = "S".repeat(20_000);
    let metrics = server.url("/metrics");
    let before = slow_disconnects(&metrics).await;
    for from in (0..ROWS).step_by(100) {
        server.market.commit((from..from + 100).map(|i| trade(&long, i as i64, 100, 1, i)));
    }
    let given_up = async {
        while slow_disconnects(&metrics).await == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::socket::PATIENCE, given_up).await.expect("the server gives up on the reader");
    let mut seen = Vec::new();
    while let Ok(frame) = socket.next().await {
        if frame["type"] == "trades" {
            seen.extend(ids(&frame));
        }
        if let Some(c) = frame["cursor"].as_str() {
            cursor = c.to_owned();
        }
    }
    assert!(seen.len() < ROWS, "the test's rows fit into the sockets' buffers: make them more");
    let mut socket = Socket::open(&server).await;
    assert_eq!(socket.subscribe(json!({"op": "subscribe", "id": "a", "resume": cursor})).await["recovered"], json!(true));
    while seen.len() < ROWS {
        seen.extend(ids(&socket.next_of("trades").await));
    }
    assert!(seen.iter().copied().eq(0..ROWS), "no row is missing, none comes twice");
    server.stop().await;
}

/// It never stops, and takes each frame in time, but less than there is.
async fn check_one_that_stays_behind() {
    let (ws_slow_warn, ws_slow_close) = (Duration::from_millis(300), Duration::from_millis(900));
    let server = start_limited(1, Limits { ws_slow_warn, ws_slow_close, ws_buffer_bytes_max: 50_000, ..Limits::default() }).await;
    let mut socket = Socket::open(&server).await;
    socket.subscribe(json!({"op": "subscribe", "id": "a"})).await;
    // However fast it is, there is more.
    const AHEAD: usize = 2_000;
    let (long, metrics) = ("S".repeat(20_000), server.url("/metrics"));
    let (mut n_committed, mut n_seen, mut is_warned) = (0, 0, false);
    let mut commit_ahead = |n_seen| {
        while n_committed < n_seen + AHEAD {
            server.market.commit((n_committed..n_committed + 100).map(|i| trade(&long, i as i64, 100, 1, i)));
            n_committed += 100;
        }
    };
    commit_ahead(0);
    while let Ok(frame) = socket.next().await {
        is_warned |= frame["type"] == "slow";
        n_seen += if frame["type"] == "trades" { ids(&frame).len() } else { 0 };
        // What it is busy with.
        slow_disconnects(&metrics).await;
        commit_ahead(n_seen);
    }
    assert!(is_warned && n_seen > 0, "warned: {is_warned}, {n_seen} rows came");
    server.stop().await;
}

/// Many pulls behind, and longer than any reader may be slow; but it reads.
#[tokio::test]
async fn a_reader_is_not_to_blame_for_what_the_server_has_not_sent_yet() {
    let at_once = Duration::from_micros(1);
    let limits = Limits { ws_slow_warn: at_once, ws_slow_close: at_once, ws_buffer_bytes_max: 2_000, ..Limits::default() };
    let server = start_limited(1, limits).await;
    let mut socket = Socket::open(&server).await;
    socket.subscribe(json!({"op": "subscribe", "id": "a"})).await;
    const ROWS: usize = 1_000;
    for from in (0..10 * ROWS).step_by(ROWS) {
        server.market.commit((from..from + ROWS).map(|i| trade("A", i as i64, 100, 1, i)));
        let (mut seen, mut n_frames) = (Vec::new(), 0);
        while seen.len() < ROWS {
            let frame = socket.next().await.expect("it is not closed");
            if frame["type"] == "trades" {
                seen.extend(ids(&frame));
                n_frames += 1;
            }
        }
        assert!(seen.iter().copied().eq(from..from + ROWS) && n_frames > 50, "{n_frames}");
    }
    server.stop().await;
}

async fn slow_disconnects(metrics: &str) -> u64 {
    let text = reqwest::get(metrics).await.unwrap().text().await.unwrap();
    text.lines().find_map(|l| l.strip_prefix("mulgil_ws_slow_disconnects_total ")).map_or(0, |n| n.parse().unwrap())
}

#[tokio::test]
async fn limits_of_a_socket() {
    let limits = Limits {
        ws_clients_max: 1,
        ws_subscriptions_max: 50,
        ws_symbols_max: 3,
        ws_bad_messages_max: 4,
        ws_message_bytes_max: 4096,
        ..Limits::default()
    };
    let server = start_limited(1, limits).await;
    let mut socket = Socket::open(&server).await;
    let refused = tokio_tungstenite::connect_async(format!("ws://{}/api/v1/stock/realtime", server.addr)).await;
    assert!(matches!(refused, Err(tokio_tungstenite::tungstenite::Error::Http(r)) if r.status() == 503));
    let mut n_refused = 0;
    for i in 0..10_000 {
        socket.say(json!({"op": "subscribe", "id": i, "symbols": ["A"]})).await;
        let answer = socket.next().await.unwrap();
        n_refused += usize::from(answer["code"] == "too_many_subscriptions");
    }
    assert_eq!(n_refused, 9950);
    let check = async |socket: &mut Socket, ask: &str, code: &str| {
        socket.say_text(ask).await;
        let answer = socket.next().await.unwrap();
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{ask}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    };
    check(&mut socket, r#"{"op":"subscribe","id":"1","symbols":["a","b","c","d"]}"#, "too_many_symbols").await;
    check(&mut socket, r#"{"op":"subscribe","id":"1","symbols":"some"}"#, "bad_symbols").await;
    check(&mut socket, r#"{"op":"subscribe","id":"1","streams":["nope"]}"#, "unknown_stream").await;
    check(&mut socket, r#"{"op":"subscribe","id":"1","streams":["alerts"],"mode":"candles","tick":1}"#, "bad_mode").await;
    check(&mut socket, r#"{"op":"subscribe","id":"1","mode":"candles","tick":0}"#, "bad_tick").await;
    check(&mut socket, r#"{"op":"subscribe","id":"1","mode":"fast"}"#, "bad_mode").await;
    check(&mut socket, r#"{"op":"subscribe","id":"1","from":"noon"}"#, "bad_time").await;
    check(&mut socket, r#"{"op":"dance"}"#, "bad_op").await;
    check(&mut socket, r#"{"op":"unsubscribe","id":"nope"}"#, "unknown_id").await;
    for tick in ["61", "0", "-1", "1.5", "null", "\"x\""] {
        check(&mut socket, &format!(r#"{{"ticker":"A","tick":{tick}}}"#), "bad_tick").await;
    }
    for garbage in ["", "[]", "{\"a\":1}"] {
        check(&mut socket, garbage, "bad_message").await;
    }
    socket.say_text("garbage").await;
    assert_eq!(socket.next().await.unwrap()["code"], "bad_message");
    assert_eq!(socket.next().await.unwrap_err().unwrap().0, 1008);
    drop(socket);
    // The slot is free again, as soon as the server has seen the end.
    let mut socket = loop {
        if let Ok((socket, _)) = tokio_tungstenite::connect_async(format!("ws://{}/api/v1/stock/realtime", server.addr)).await {
            break Socket(socket);
        }
        tokio::task::yield_now().await;
    };
    socket.say_text(&format!(r#"{{"op":"ping","id":"{}"}}"#, "x".repeat(5000))).await;
    assert!(socket.next().await.is_err(), "a message above the limit ends the socket");
    server.stop().await;
}

#[tokio::test]
async fn heartbeat_and_goodbye() {
    let limits = Limits { ws_ping_every: Duration::from_millis(50), ws_pong_within: Duration::from_secs(2), ..Limits::default() };
    let server = start_limited(1, limits).await;
    // This client answers pings, so it gets fresh cursors although nothing happens.
    let mut socket = Socket::open(&server).await;
    socket.subscribe(json!({"op": "subscribe", "id": "a"})).await;
    for _ in 0..3 {
        assert_eq!(socket.next().await.unwrap()["type"], "cursor");
    }
    // This one does not read, hence does not answer: it is closed while the other lives on.
    let mut silent = Socket::open(&server).await;
    for _ in 0..60 {
        assert_eq!(socket.next().await.unwrap()["type"], "cursor");
    }
    let end = silent.next().await.unwrap_err();
    assert!(end.is_none_or(|(code, _)| code == 1008));
    let stopping = tokio::spawn(server.stop());
    let end = loop {
        if let Err(end) = socket.next().await {
            break end;
        }
    };
    assert_eq!(end.unwrap().0, 1001);
    stopping.await.unwrap();
}
