//! `/health/*` and `/metrics`: for those who watch the process.

use crate::app::App;
use crate::measure;
use crate::ports::Readiness;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize, utoipa::ToSchema)]
pub struct LiveReport {
    /// live, or dead: restart it
    status: &'static str,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct ReadyReport {
    /// ready, or waiting
    status: &'static str,
    checks: Vec<CheckReport>,
    /// Seconds from event time to each hop.
    lag: Vec<LagReport>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct CheckReport {
    name: String,
    ok: bool,
    detail: String,
    since: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct LagReport {
    stream: String,
    hop: String,
    seconds: f64,
}

/// Whether the process should go on living.
#[utoipa::path(get, path = "/health/live", tag = "health", responses(
    (status = 200, body = LiveReport), (status = 503, description = "Restart it.", body = LiveReport),
))]
pub async fn live(State(app): State<Arc<App>>) -> Response {
    let is_live = app.ports.vitals.live();
    answer(is_live, LiveReport { status: if is_live { "live" } else { "dead" } })
}

/// Whether data moves, or is provably absent.
#[utoipa::path(get, path = "/health/ready", tag = "health", responses(
    (status = 200, body = ReadyReport), (status = 503, description = "Not yet, or not any more: see checks.", body = ReadyReport),
))]
pub async fn ready(State(app): State<Arc<App>>) -> Response {
    let Readiness { ready, checks } = app.ports.vitals.ready();
    let check = |c: crate::ports::Check| CheckReport { name: c.name, ok: c.ok, detail: c.detail, since: c.since.map(|t| t.to_string()) };
    let lag = app.ports.vitals.lag().into_iter().map(|l| LagReport { stream: l.stream.to_string(), hop: l.hop, seconds: l.seconds });
    let report = ReadyReport {
        status: if ready { "ready" } else { "waiting" },
        checks: checks.into_iter().map(check).collect(),
        lag: lag.collect(),
    };
    answer(ready, report)
}

fn answer(is_good: bool, report: impl Serialize) -> Response {
    let status = if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(report)).into_response()
}

/// Metrics in Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    // These two are asked for, not told, so they are fresh at every scrape.
    for lag in app.ports.vitals.lag() {
        measure::lag(lag.stream.as_str(), &lag.hop, lag.seconds);
    }
    measure::ready(app.ports.vitals.ready().ready);
    let in_flight = app.limits.requests_max - app.request_slots.available_permits();
    measure::sizes(in_flight, app.body_room_max() - app.body_room.available_permits(), app.hub.kept());
    app.ports.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.ports.metrics.render()).into_response()
}
