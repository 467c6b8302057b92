//! What is not one request: connections that dawdle, sockets that babble, and very many of everything.

use super::Victim;
use super::cases;
use crate::program::PATIENCE;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Attack = fn(&Victim) -> String;

pub const ALL: [(&str, Attack); 12] = [
    ("200 connections that say nothing", silent),
    ("200 connections that never end their head", slow_heads),
    ("40 requests that never end their body, while a good row is sent", slow_bodies),
    ("20 bodies of 1 MB that stop short of their end", large_slow_bodies),
    ("a head of 1 MB", endless_head),
    ("bytes that are no HTTP", no_http),
    ("a row four minutes ahead of the clock, then one of now: neither is late", ahead_of_the_clock),
    ("a socket that speaks garbage", garbage_messages),
    ("a socket whose frames are none", garbage_frames),
    ("a socket with a message of 100 KB, and one of bytes", large_message),
    ("a socket with 10,000 subscriptions", subscriptions),
    ("very many distinct keys", distinct_keys),
];

fn address(victim: &Victim) -> String {
    victim.server.url.trim_start_matches("http://").to_owned()
}

fn connect(victim: &Victim) -> TcpStream {
    let socket = TcpStream::connect(address(victim)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// What a connection was told until it was closed: the status line, or nothing.
fn last_words(mut socket: TcpStream) -> String {
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => "still open".to_owned(),
        _ if said.is_empty() => "closed".to_owned(),
        _ => format!("{}, then closed", String::from_utf8_lossy(&said).lines().next().unwrap_or_default()),
    }
}

/// Equal words counted.
fn counted(all: impl IntoIterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    all.into_iter().for_each(|words| *counts.entry(words).or_default() += 1);
    counts.into_iter().map(|(words, n)| format!("{n} times: {words}")).collect::<Vec<_>>().join("\n")
}

fn silent(victim: &Victim) -> String {
    let sockets: Vec<TcpStream> = (0..200).map(|_| connect(victim)).collect();
    victim.is_well("while 200 connections say nothing");
    counted(sockets.into_iter().map(last_words))
}

fn slow_heads(victim: &Victim) -> String {
    let mut sockets: Vec<TcpStream> = (0..200).map(|_| connect(victim)).collect();
    for socket in &mut sockets {
        socket.write_all(b"POST /api/v1/ingest/trades HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
    }
    victim.is_well("while 200 connections send their head");
    counted(sockets.into_iter().map(last_words))
}

fn begun_body(victim: &Victim, declared: usize, sent: usize) -> TcpStream {
    let mut socket = connect(victim);
    let head = format!(
        "POST /api/v1/ingest/trades HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {declared}\r\n\r\n",
        address(victim)
    );
    socket.write_all(head.as_bytes()).unwrap();
    // The server may have refused it already.
    socket.write_all(&vec![b' '; sent]).ok();
    socket
}

fn slow_bodies(victim: &Victim) -> String {
    let sockets: Vec<TcpStream> = (0..40).map(|_| begun_body(victim, 1_000, 10)).collect();
    victim.is_well("while 40 requests send their body");
    counted(sockets.into_iter().map(status_only))
}

/// More than all bodies together may have: some are told so at once, the others when their time is over.
fn large_slow_bodies(victim: &Victim) -> String {
    let sockets: Vec<TcpStream> = (0..20).map(|_| begun_body(victim, 1_900_000, 1 << 20)).collect();
    let mut said: Vec<String> = sockets.into_iter().map(status_only).collect();
    said.sort();
    said.dedup();
    said.join("\n")
}

/// The status line of the first answer.
fn status_only(socket: TcpStream) -> String {
    let mut line = String::new();
    match std::io::BufRead::read_line(&mut std::io::BufReader::new(socket), &mut line) {
        Ok(0) => "closed".to_owned(),
        Ok(_) => line.trim_end().to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => "closed".to_owned(),
        Err(e) => e.to_string(),
    }
}

fn endless_head(victim: &Victim) -> String {
    let mut socket = connect(victim);
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ").unwrap();
    socket.write_all(&vec![b'x'; 1 << 20]).ok();
    status_only(socket)
}

fn no_http(victim: &Victim) -> String {
    let mut socket = connect(victim);
    socket.write_all(&(0..=255u8).cycle().take(4_096).collect::<Vec<_>>()).ok();
    status_only(socket)
}

fn ahead_of_the_clock(victim: &Victim) -> String {
    let row = |ahead_s: i64, id: &str| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead_s);
        let text = format!(r#"{{"symbol":"AHEAD","event_time":"{at}","price":1,"quantity":1,"trade_id":"{id}"}}"#);
        cases::Send { body: text.into_bytes(), ..cases::good_row() }
    };
    let told = [victim.answer(&row(240, "ahead")), victim.answer(&row(0, "now"))];
    let beyond = victim.answer(&row(600, "beyond"));
    let late = cases::Send {
        path: "/api/v1/sql".to_owned(),
        body: br#"{"sql":"SELECT count(*) AS n FROM \"trades.late\" WHERE symbol = 'AHEAD'"}"#.to_vec(),
        ..cases::good_row()
    };
    format!("{}\n{}\nten minutes ahead: {}\nlate: {}", told[0], told[1], beyond.split(':').next().unwrap(), victim.answer(&late))
}

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn open(victim: &Victim) -> Socket {
    tokio_tungstenite::connect_async(format!("ws://{}/api/v1/stock/realtime", address(victim))).await.unwrap().0
}

/// The code of an error frame, or how the socket was closed.
async fn next_answer(socket: &mut Socket) -> String {
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await.expect("an answer") {
            None => return "closed".to_owned(),
            Some(Err(error)) => return format!("closed: {error}"),
            Some(Ok(Message::Close(Some(close)))) => return format!("closed with {}: {}", u16::from(close.code), close.reason),
            Some(Ok(Message::Text(text))) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                match frame["type"].as_str() {
                    Some("error") => return format!("error {}", frame["code"].as_str().unwrap()),
                    Some("subscribed") => return "subscribed".to_owned(),
                    _ => {}
                }
            }
            Some(Ok(_)) => {}
        }
    }
}

fn garbage_messages(victim: &Victim) -> String {
    victim.runtime.block_on(async {
        let mut socket = open(victim).await;
        for i in 0..20 {
            socket.send(Message::text(format!("garbage {i}"))).await.ok();
        }
        let mut said = Vec::new();
        while !said.last().is_some_and(|last: &String| last.starts_with("closed")) {
            said.push(next_answer(&mut socket).await);
        }
        counted(said)
    })
}

/// By hand: an upgrade, then bytes that no WebSocket frame begins with.
fn garbage_frames(victim: &Victim) -> String {
    let mut socket = connect(victim);
    let head = format!(
        "GET /api/v1/stock/realtime HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        address(victim)
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(&[0xff; 64]).unwrap();
    last_words(socket)
}

fn large_message(victim: &Victim) -> String {
    victim.runtime.block_on(async {
        let (mut large, mut bytes) = (open(victim).await, open(victim).await);
        large.send(Message::text("x".repeat(100_000))).await.ok();
        bytes.send(Message::binary(vec![0; 100])).await.ok();
        let large = next_answer(&mut large).await;
        format!("{}\n{}", large.split(':').next().unwrap(), next_answer(&mut bytes).await)
    })
}

fn subscriptions(victim: &Victim) -> String {
    victim.runtime.block_on(async {
        let mut socket = open(victim).await;
        let (mut said, mut n) = (Vec::new(), 0);
        while n < 10_000 && !said.last().is_some_and(|last: &String| last.starts_with("closed")) {
            // Some at a time: the server does not read ahead of what the client takes.
            for _ in 0..50 {
                let subscribe = format!(r#"{{"op":"subscribe","id":"s{n}","streams":["trades"],"symbols":["NONE"],"mode":"trades"}}"#);
                socket.send(Message::text(subscribe)).await.ok();
                n += 1;
            }
            for _ in 0..50 {
                said.push(next_answer(&mut socket).await);
            }
        }
        counted(said)
    })
}

fn distinct_keys(victim: &Victim) -> String {
    let n_keys: u32 = std::env::var("MULGIL_KEYS").map_or(20_000, |n| n.parse().unwrap());
    const ROWS: u32 = 1_000;
    for batch in 0..n_keys / ROWS {
        let rows = (0..ROWS).map(|i| {
            let key = batch * ROWS + i;
            format!(r#"{{"symbol":"K{key}","event_time":"2026-01-05T00:00:00Z","price":1,"quantity":1,"trade_id":"{key}"}}"#)
        });
        let body = rows.collect::<Vec<_>>().join("\n").into_bytes();
        let said =
            victim.answer(&cases::Send { body, headers: vec![("content-type", b"application/x-ndjson".to_vec())], ..cases::good_row() });
        assert_eq!(said, format!("200 accepted {ROWS}, rejected 0"));
    }
    "every row was taken".to_owned()
}
