//! Those outside while the server is killed: one that puts rows in and repeats what was not answered, and some that listen and resume.

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// What clients know of the server at the moment.
#[derive(Default)]
pub struct Outside {
    pub url: Mutex<Option<String>>,
    /// No more new batches: the present one is still repeated until it is answered.
    pub enough: AtomicBool,
    /// Listeners hang up.
    pub done: AtomicBool,
}

impl Outside {
    fn url(&self) -> Option<String> {
        self.url.lock().unwrap().clone()
    }

    fn done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// Nobody answers at the moment: the next try in a moment, so that the core is left to the server.
const BREATH: Duration = Duration::from_millis(5);

/// A request that is not answered for so long is taken for lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub const BATCH_ROWS: u64 = 10;

/// Orders number `n * BATCH_ROWS` and following, one per second of event time, as NDJSON.
pub fn batch(n: u64) -> String {
    const SYMBOLS: [&str; 7] = ["005930", "000660", "AAPL", "MSFT", "NVDA", "TSLA", "035420"];
    let row = |i: u64| {
        let at = jiff::Timestamp::from_second(1_767_600_000 + i as i64).unwrap();
        let (symbol, price, quantity) = (SYMBOLS[(i * i % 7) as usize], 10_000 + i * 7919 % 5_000, 1 + i * 31 % 600);
        let side = if i.is_multiple_of(3) { "SELL" } else { "BUY" };
        format!(r#"{{"symbol":"{symbol}","event_time":"{at}","price":{price}.25,"quantity":{quantity},"side":"{side}","trade_id":"o{i}"}}"#)
    };
    (n * BATCH_ROWS..(n + 1) * BATCH_ROWS).map(row).collect::<Vec<_>>().join("\n") + "\n"
}

/// What tells a row from all others. The simulator gives the same ids in every run, at other times.
pub fn identity(row: &Value, id: &str) -> String {
    let at = if id == "id" { "" } else { row["event_time"].as_str().unwrap() };
    format!("{}{at}", row[id].as_str().unwrap())
}

fn on_thread<T: Send + 'static, F: Future<Output = T>>(work: impl FnOnce() -> F + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work()))
}

/// The pace of the load: nothing is waited for here that a longer or shorter pause would change.
pub async fn breath() {
    tokio::time::interval_at(tokio::time::Instant::now() + BREATH, BREATH).tick().await;
}

/// Posts batch after batch, each until it is answered; the number of batches when it has had enough.
pub fn poster(outside: &Arc<Outside>) -> JoinHandle<u64> {
    let outside = Arc::clone(outside);
    on_thread(|| async move {
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build().unwrap();
        let mut n = 0;
        while !outside.enough.load(Ordering::Acquire) {
            post_until_answered(&outside, &client, n).await;
            n += 1;
            breath().await;
        }
        n
    })
}

async fn post_until_answered(outside: &Outside, client: &reqwest::Client, n: u64) {
    // Some are sent again although they were answered: an answer may be lost on its way, too.
    let mut answers_wanted = if n.is_multiple_of(5) { 2 } else { 1 };
    while answers_wanted > 0 {
        let answered = match outside.url() {
            Some(url) => post(client, &url, n).await,
            None => None,
        };
        match answered {
            Some(answer) => {
                assert_eq!(answer["accepted"], BATCH_ROWS, "batch {n}: {answer}");
                answers_wanted -= 1;
            }
            None => breath().await,
        }
    }
}

/// None when it is to be tried again.
async fn post(client: &reqwest::Client, url: &str, n: u64) -> Option<Value> {
    let request = client.post(format!("{url}/api/v1/ingest/orders")).header("content-type", "application/x-ndjson");
    let answer = request.header("idempotency-key", format!("batch-{n}")).body(batch(n)).send().await.ok()?;
    let (status, text) = (answer.status().as_u16(), answer.text().await.ok()?);
    match status {
        200 => Some(serde_json::from_str(&text).unwrap()),
        // A request whose answer was given up is still being worked on, or the server is stopping.
        409 | 408 | 429 | 500..=599 => None,
        _ => panic!("batch {n} was refused with {status}: {text}"),
    }
}

/// What a listener received, in order, by id; and how much of it there is already.
pub struct Listener {
    pub name: &'static str,
    pub n_received: Arc<AtomicUsize>,
    pub thread: JoinHandle<Vec<String>>,
}

/// Listens to all rows of a stream over WebSocket; hangs up by itself after some frames, and resumes.
pub fn websocket(outside: &Arc<Outside>, stream: &'static str, hang_up_after: usize) -> Listener {
    let (outside, n_received) = (Arc::clone(outside), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&n_received);
    let thread = on_thread(move || async move {
        let (mut ids, mut cursor) = (Vec::new(), None);
        while !outside.done() {
            match outside.url() {
                Some(url) => drop(listen(&outside, &url, stream, hang_up_after, &mut ids, &mut cursor, &count).await),
                None => breath().await,
            }
        }
        ids
    });
    Listener { name: stream, n_received, thread }
}

async fn listen(
    outside: &Outside,
    url: &str,
    stream: &str,
    mut n_frames: usize,
    ids: &mut Vec<String>,
    cursor: &mut Option<String>,
    count: &AtomicUsize,
) -> Option<()> {
    let url = format!("{}/api/v1/stock/realtime", url.replacen("http", "ws", 1));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.ok()?;
    let mut subscribe = serde_json::json!({ "op": "subscribe", "id": "s", "streams": [stream], "symbols": "all", "mode": "stream" });
    match cursor.as_deref() {
        Some(cursor) => subscribe["resume"] = cursor.into(),
        None => subscribe["from"] = "1990-01-01T00:00:00Z".into(),
    }
    socket.send(Message::text(subscribe.to_string())).await.ok()?;
    while n_frames > 0 && !outside.done() {
        let Ok(message) = tokio::time::timeout(BREATH * 20, socket.next()).await else { continue };
        let Ok(frame) = serde_json::from_str::<Value>(message?.ok()?.to_text().ok()?) else { continue };
        if frame["type"] == "subscribed" && cursor.is_some() {
            assert_eq!(frame["recovered"], true, "{stream}: the log has every row, so nothing can be missing: {frame}");
        }
        // A server that is ending says goodbye with an error, too.
        if frame["type"] == "error" {
            return None;
        }
        if let Some(rows) = frame["rows"].as_array() {
            ids.extend(rows.iter().map(|row| identity(row, "trade_id")));
            *cursor = Some(frame["cursor"].as_str().unwrap().to_owned());
            count.store(ids.len(), Ordering::Release);
            n_frames -= 1;
        }
    }
    Some(())
}

/// Listens to the alerts of all streams over SSE; hangs up by itself after some, and resumes.
pub fn events(outside: &Arc<Outside>, hang_up_after: usize) -> Listener {
    let (outside, n_received) = (Arc::clone(outside), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&n_received);
    let thread = on_thread(move || async move {
        let (mut ids, mut last) = (Vec::new(), None);
        while !outside.done() {
            match outside.url() {
                Some(url) => drop(read_events(&outside, &url, hang_up_after, &mut ids, &mut last, &count).await),
                None => breath().await,
            }
        }
        ids
    });
    Listener { name: "alerts", n_received, thread }
}

async fn read_events(
    outside: &Outside,
    url: &str,
    mut n_events: usize,
    ids: &mut Vec<String>,
    last: &mut Option<String>,
    count: &AtomicUsize,
) -> Option<()> {
    let from = if last.is_none() { "?from=1990-01-01T00:00:00Z" } else { "" };
    let mut request = reqwest::Client::new().get(format!("{url}/api/v1/stock/anomaly{from}"));
    if let Some(id) = last.as_deref() {
        request = request.header("Last-Event-ID", id);
    }
    let answer = request.send().await.ok()?;
    if !answer.status().is_success() {
        return None;
    }
    let (mut body, mut text) = (answer.bytes_stream(), String::new());
    while n_events > 0 && !outside.done() {
        let Ok(bytes) = tokio::time::timeout(BREATH * 20, body.next()).await else { continue };
        text.push_str(std::str::from_utf8(&bytes?.ok()?).unwrap());
        while n_events > 0
            && let Some((event, rest)) = text.split_once("\n\n").map(|(e, r)| (e.to_owned(), r.to_owned()))
        {
            text = rest;
            let field = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
            assert!(!event.contains(r#""recovered":false"#), "the log has every alert, so nothing can be missing: {event}");
            if let (Some("anomaly"), Some(id), Some(data)) = (field("event:").as_deref(), field("id:"), field("data:")) {
                let alert: Value = serde_json::from_str(&data).unwrap();
                ids.push(identity(&alert, "id"));
                *last = Some(id);
                count.store(ids.len(), Ordering::Release);
                n_events -= 1;
            }
        }
    }
    Some(())
}
