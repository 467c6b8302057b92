//! The server's own metrics, by Prometheus conventions.

use crate::live::hub::Kept;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

/// Call once after the recorder is installed.
pub fn describe() {
    describe_counter!("mulgil_http_requests_total", "Requests by method, route and status.");
    describe_histogram!("mulgil_http_request_duration_seconds", "Until the head of the answer, by method and route.");
    describe_gauge!("mulgil_ws_clients", "Open WebSockets.");
    describe_gauge!("mulgil_ws_subscriptions", "Subscriptions of all WebSockets.");
    describe_gauge!("mulgil_ws_buffered_bytes", "Frames that clients have not taken yet, all clients together.");
    describe_counter!("mulgil_ws_frames_sent_total", "Frames handed to WebSockets.");
    describe_counter!("mulgil_ws_slow_disconnects_total", "WebSockets closed because their client read too slowly.");
    describe_counter!("mulgil_ws_candle_late_rows_total", "Trades too late for any candle that a client still watches, per client.");
    describe_gauge!("mulgil_sse_clients", "Open event streams.");
    describe_counter!("mulgil_sse_events_sent_total", "Events handed to event streams.");
    describe_gauge!("mulgil_http_connections", "Open connections, WebSockets and event streams among them.");
    describe_gauge!("mulgil_http_requests_in_flight", "Requests that are not answered yet.");
    describe_gauge!("mulgil_http_body_bytes", "Bodies of requests, as far as they have come.");
    describe_gauge!("mulgil_live_readers_behind", "Live clients that are behind the end of a partition, one for each partition.");
    describe_gauge!("mulgil_live_ring_bytes", "Recent rows kept for all live clients together.");
    describe_counter!("mulgil_http_refused_total", "Requests and connections refused, by reason.");
    describe_gauge!("mulgil_lag_seconds", "From the event time of the newest row to a hop, by stream and hop.");
    describe_gauge!("mulgil_ready", "1 when data moves or is provably absent.");
    begin_at_zero();
}

/// What has no labels is there from the start: a metric that appears only once something has gone wrong cannot be watched.
fn begin_at_zero() {
    for name in
        ["mulgil_ws_clients", "mulgil_ws_subscriptions", "mulgil_ws_buffered_bytes", "mulgil_sse_clients", "mulgil_http_connections"]
    {
        gauge!(name).increment(0.0);
    }
    for name in [
        "mulgil_ws_frames_sent_total",
        "mulgil_ws_slow_disconnects_total",
        "mulgil_ws_candle_late_rows_total",
        "mulgil_sse_events_sent_total",
    ] {
        counter!(name).increment(0);
    }
    for reason in ["connections", "hesitation", "requests", "bodies", "timeout", "ws_clients", "sse_clients"] {
        counter!("mulgil_http_refused_total", "reason" => reason).increment(0);
    }
}

/// `route` is the pattern, never the path, so that the number of series is bounded.
pub fn request(method: &str, route: &str, status: u16, took: Duration) {
    let (method, route) = (method.to_owned(), route.to_owned());
    counter!("mulgil_http_requests_total", "method" => method.clone(), "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    histogram!("mulgil_http_request_duration_seconds", "method" => method, "route" => route).record(took.as_secs_f64());
}

pub fn refused(reason: &'static str) {
    counter!("mulgil_http_refused_total", "reason" => reason).increment(1);
}

pub fn slow_disconnect() {
    counter!("mulgil_ws_slow_disconnects_total").increment(1);
}

pub fn late_row() {
    counter!("mulgil_ws_candle_late_rows_total").increment(1);
}

pub fn events_sent(n: u64) {
    counter!("mulgil_sse_events_sent_total").increment(n);
}

pub fn lag(stream: &str, hop: &str, seconds: f64) {
    gauge!("mulgil_lag_seconds", "stream" => stream.to_owned(), "hop" => hop.to_owned()).set(seconds);
}

pub fn ready(is_ready: bool) {
    gauge!("mulgil_ready").set(f64::from(u8::from(is_ready)));
}

/// Counts one open connection while it lives.
pub struct Connection(());

impl Connection {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        gauge!("mulgil_http_connections").increment(1.0);
        Self(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        gauge!("mulgil_http_connections").decrement(1.0);
    }
}

/// What is counted when somebody asks.
pub fn sizes(requests_in_flight: usize, body_bytes: usize, live: Kept) {
    gauge!("mulgil_http_body_bytes").set(body_bytes as f64);
    gauge!("mulgil_http_requests_in_flight").set(requests_in_flight as f64);
    gauge!("mulgil_live_ring_bytes").set(live.bytes as f64);
    gauge!("mulgil_live_readers_behind").set(live.readers_behind as f64);
}

/// Counts one WebSocket while it lives. It keeps its metrics at hand: they are told several times a frame.
pub struct WsClient {
    buffered: usize,
    n_subscriptions: usize,
    frames: metrics::Counter,
    buffered_bytes: metrics::Gauge,
}

impl WsClient {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        gauge!("mulgil_ws_clients").increment(1.0);
        let (frames, buffered_bytes) = (counter!("mulgil_ws_frames_sent_total"), gauge!("mulgil_ws_buffered_bytes"));
        Self { buffered: 0, n_subscriptions: 0, frames, buffered_bytes }
    }

    pub fn sent(&self, n_frames: u64) {
        if n_frames > 0 {
            self.frames.increment(n_frames);
        }
    }

    pub fn subscribed(&mut self, n: usize) {
        if n != self.n_subscriptions {
            gauge!("mulgil_ws_subscriptions").increment(n as f64 - self.n_subscriptions as f64);
            self.n_subscriptions = n;
        }
    }

    /// What waits for this client now.
    pub fn buffered(&mut self, bytes: usize) {
        if bytes != self.buffered {
            self.buffered_bytes.increment(bytes as f64 - self.buffered as f64);
            self.buffered = bytes;
        }
    }
}

impl Drop for WsClient {
    fn drop(&mut self) {
        self.buffered(0);
        self.subscribed(0);
        gauge!("mulgil_ws_clients").decrement(1.0);
    }
}

/// Counts one event stream while it lives.
pub struct SseClient(());

impl SseClient {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        gauge!("mulgil_sse_clients").increment(1.0);
        Self(())
    }
}

impl Drop for SseClient {
    fn drop(&mut self) {
        gauge!("mulgil_sse_clients").decrement(1.0);
    }
}
