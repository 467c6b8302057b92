//! The server's own metrics, by Prometheus conventions.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

/// Call once after the recorder is installed.
pub fn describe() {
    describe_counter!("mulgil_http_requests_total", "Requests by method, route and status.");
    describe_histogram!("mulgil_http_request_duration_seconds", "Until the head of the answer, by method and route.");
    describe_gauge!("mulgil_ws_clients", "Open WebSockets.");
    describe_gauge!("mulgil_ws_buffered_bytes", "Frames that clients have not taken yet, all clients together.");
    describe_counter!("mulgil_ws_frames_sent_total", "Frames handed to WebSockets.");
    describe_counter!("mulgil_ws_slow_disconnects_total", "WebSockets closed because their client read too slowly.");
    describe_counter!("mulgil_ws_candle_late_rows_total", "Trades too late for any candle that a client still watches, per client.");
    describe_gauge!("mulgil_sse_clients", "Open event streams.");
    describe_counter!("mulgil_sse_events_sent_total", "Events handed to event streams.");
    describe_counter!("mulgil_http_refused_total", "Requests and connections refused, by reason.");
    describe_gauge!("mulgil_lag_seconds", "From the event time of the newest row to a hop, by stream and hop.");
    describe_gauge!("mulgil_ready", "1 when data moves or is provably absent.");
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

/// Counts one WebSocket while it lives.
pub struct WsClient {
    buffered: usize,
}

impl WsClient {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        gauge!("mulgil_ws_clients").increment(1.0);
        Self { buffered: 0 }
    }

    pub fn sent(&self, n_frames: u64) {
        counter!("mulgil_ws_frames_sent_total").increment(n_frames);
    }

    /// What waits for this client now.
    pub fn buffered(&mut self, bytes: usize) {
        if bytes != self.buffered {
            gauge!("mulgil_ws_buffered_bytes").increment(bytes as f64 - self.buffered as f64);
            self.buffered = bytes;
        }
    }
}

impl Drop for WsClient {
    fn drop(&mut self) {
        self.buffered(0);
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
