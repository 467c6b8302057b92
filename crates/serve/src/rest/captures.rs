//! `/api/v1/captures`: the captured databases, and snapshots of their tables on demand.

use crate::app::App;
use crate::extract::Json;
use crate::ports::{CaptureStatus, SnapshotRequest};
use crate::problem::Problem;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const TABLES_MAX: usize = 1_000;
/// A schema's name and a table's.
const TABLE_BYTES_MAX: usize = 200;
const FILTER_BYTES_MAX: usize = 4_096;

#[derive(Serialize, utoipa::ToSchema)]
pub struct CaptureList {
    captures: Vec<CaptureReport>,
}

/// What a database does not have is null.
#[derive(Serialize, utoipa::ToSchema)]
pub struct CaptureReport {
    source: String,
    /// postgres or mysql
    #[serde(rename = "type")]
    kind: &'static str,
    /// As the configuration names them; each has its changes in `SOURCE.schema.table`.
    tables: Vec<String>,
    /// connecting, snapshot, streaming, waiting (it is tried again), refused (a person has to choose) or stopped
    state: &'static str,
    /// Why it does not stream.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    since: String,
    /// All changes up to here are durable; null before the first commit since the start.
    position: Option<String>,
    /// Since the start.
    changes: u64,
    commits: u64,
    failures: u64,
    /// When the last change that was read was committed, by the database's clock.
    committed: Option<String>,
    /// Written by the database and not read yet.
    lag_bytes: Option<u64>,
    /// What the database keeps for this source.
    retained_bytes: Option<u64>,
    wal_status: Option<String>,
    safe_wal_bytes: Option<i64>,
    /// Tables that are no longer what was captured of them, with why: a snapshot mends each.
    stale: Vec<String>,
    snapshot: SnapshotProgress,
}

/// Of the snapshot under way, or the last one.
#[derive(Serialize, utoipa::ToSchema)]
pub struct SnapshotProgress {
    rows: u64,
    chunks_done: u64,
    chunks: u64,
}

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotBody {
    /// `["public.stock_trades"]`
    tables: Vec<String>,
    /// A condition on the rows, in the database's SQL: `price > 10`. One expression: no comments, semicolons or backslashes.
    filter: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct SnapshotReport {
    source: String,
    tables: Vec<String>,
}

impl From<CaptureStatus> for CaptureReport {
    fn from(s: CaptureStatus) -> Self {
        Self {
            source: s.source,
            kind: s.kind,
            tables: s.tables,
            state: s.state,
            detail: s.detail,
            since: s.since.to_string(),
            position: s.position,
            changes: s.n_changes,
            commits: s.n_commits,
            failures: s.n_failures,
            committed: s.committed.map(|t| t.to_string()),
            lag_bytes: s.lag_bytes,
            retained_bytes: s.retained_bytes,
            wal_status: s.wal_status,
            safe_wal_bytes: s.safe_wal_bytes,
            stale: s.stale,
            snapshot: SnapshotProgress { rows: s.snapshot_rows, chunks_done: s.snapshot_chunks_done, chunks: s.snapshot_chunks },
        }
    }
}

/// Every captured database: state, place, lag, and how far its snapshot has come.
#[utoipa::path(get, path = "/api/v1/captures", tag = "captures", operation_id = "captures", responses(
    (status = 200, body = CaptureList),
    (status = 503, description = "Still starting.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let captures = app.ports.captured.list()?.into_iter().map(CaptureReport::from).collect();
    Ok(([(header::CACHE_CONTROL, "no-store")], axum::Json(CaptureList { captures })).into_response())
}

/// Reads tables again while their changes go on.
///
/// 202 when the source has taken it up; it goes on after a restart. The rows come as changes with op `r` and snapshot `incremental`, and
/// none of them contradicts a change before or behind it.
#[utoipa::path(post, path = "/api/v1/captures/{source}/snapshot", tag = "captures",
    params(("source" = String, Path, description = "A captured database, see /api/v1/captures.")),
    request_body = SnapshotBody,
    responses(
        (status = 202, description = "Taken up.", body = SnapshotReport),
        (status = 400, description = "A field cannot be used.", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such captured database.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It does not stream now.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A table is not captured, or the filter cannot be used.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "As many snapshots wait as it takes.", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The source did not answer in time.", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn snapshot(State(app): State<Arc<App>>, Path(source): Path<String>, body: Json<SnapshotBody>) -> Result<Response, Problem> {
    let Json(SnapshotBody { tables, filter }) = body;
    let is_table = |t: &String| t.len() <= TABLE_BYTES_MAX && t.split_once('.').is_some_and(|(s, n)| !s.is_empty() && !n.is_empty());
    if tables.is_empty() || tables.len() > TABLES_MAX || !tables.iter().all(is_table) {
        let detail = format!("tables is a list of 1 to {TABLES_MAX} names with their schema, such as \"public.stock_trades\"");
        return Err(Problem::parameter("tables", detail));
    }
    if filter.as_ref().is_some_and(|f| f.trim().is_empty() || f.len() > FILTER_BYTES_MAX) {
        return Err(Problem::parameter("filter", format!("filter is a condition of 1 to {FILTER_BYTES_MAX} bytes")));
    }
    app.ports.captured.snapshot(SnapshotRequest { source: source.clone(), tables: tables.clone(), filter }).await?;
    let location = [(header::LOCATION, "/api/v1/captures")];
    Ok((StatusCode::ACCEPTED, location, axum::Json(SnapshotReport { source, tables })).into_response())
}
