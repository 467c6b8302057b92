//! `GET /api/v1/stock/realtime`: the upgrade to a WebSocket.

use crate::app::App;
use crate::live::socket;
use crate::measure;
use crate::problem::Problem;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// Live rows and candles over a WebSocket.
///
/// Simple protocol: send `{"ticker":"005930","tick":5}` (1 to 60 seconds; send again to switch), receive
/// `{"type":"candle_tick","ticker":"005930","data":{"open":…,"high":…,"low":…,"close":…,"volume":…},"current_tick":5,…}`.
///
/// Full protocol: send `{"op":"subscribe","id":"a","streams":["trades"],"symbols":["005930"],"mode":"stream","from":"2026-11-21T00:00:00Z"}`
/// (mode stream, cache or candles with tick; symbols a list or "all"; `resume` with a cursor instead of `from`), `{"op":"unsubscribe","id":"a"}`,
/// `{"op":"ping"}`; receive `subscribed` (with epoch and recovered), row frames (`trades`, `bars`, `alerts`, `changes`, `rows`) with a cursor,
/// `replay_completed`, `cursor`, `slow`, `unsubscribed`, `pong` and `error` frames. A second subscription with the same id takes the place
/// of the first. Repeat `from` with `resume` to keep it as a filter.
///
/// Streams of kind change (`exchange.public.stock_trades`) are the raw changes of captured tables: frames `changes`, whose rows are
/// `{"offset":…,"key":…,"value":…}` with key and value as Debezium writes them (value null: a tombstone; one change can be several rows of
/// one offset), or `{"offset":…,"error":"…"}` for one that cannot be written so. `symbols` are the table's keys, `ops` chooses among c, u, d,
/// r, t and m.
#[utoipa::path(get, path = "/api/v1/stock/realtime", tag = "stock",
    params(("access_token" = Option<String>, Query, description = "The key, for browsers, which cannot set headers here.")),
    responses(
        (status = 101, description = "The socket is open."),
        (status = 426, description = "Not a WebSocket handshake.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many clients.", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn realtime(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade =
        upgrade.map_err(|e| Problem::new(StatusCode::UPGRADE_REQUIRED, "websocket", format!("this address speaks WebSocket: {e}")))?;
    let slot = Arc::clone(&app.ws_slots).try_acquire_owned().map_err(|_| {
        measure::refused("ws_clients");
        Problem::busy("too many WebSockets are open")
    })?;
    let bytes_max = app.limits.ws_message_bytes_max;
    let upgrade = upgrade.max_message_size(bytes_max).max_frame_size(bytes_max).read_buffer_size(2 << 10).write_buffer_size(16 << 10);
    let live = Arc::clone(&app.ports.live);
    Ok(upgrade.on_upgrade(move |socket| {
        live(Box::pin(async move {
            socket::run(app, socket).await;
            drop(slot);
        }))
    }))
}
