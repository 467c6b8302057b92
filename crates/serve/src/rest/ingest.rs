//! `POST /api/v1/ingest/{stream}`: rows in, answered after the commit.

use crate::app::App;
use crate::extract::{Body, media_type};
use crate::ports::{ContentKind, IngestAnswer, IngestRequest, PROBLEMS_MAX};
use crate::problem::{Problem, RowReport};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use mulgil_model::ids::Topic;
use mulgil_model::time::ReceiveTime;
use serde::Serialize;
use std::sync::Arc;

const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;

#[derive(Serialize, utoipa::ToSchema)]
pub struct IngestReport {
    stream: String,
    accepted: u64,
    /// Bad rows: they are in the dead letters, and the first 100 in `problems`.
    rejected: u64,
    /// The idempotency key was known: this is the first answer again, and nothing was written.
    replayed: bool,
    offsets: Vec<OffsetRange>,
    problems: Vec<RowReport>,
}

/// Both ends belong to it.
#[derive(Serialize, utoipa::ToSchema)]
pub struct OffsetRange {
    partition: u32,
    first: u64,
    last: u64,
}

/// Takes rows into a stream.
///
/// 200 when at least one row was good: look at `rejected`, and at `problems` for line and column of what was not. 422 when none was.
#[utoipa::path(post, path = "/api/v1/ingest/{stream}", tag = "ingest",
    params(
        ("stream" = String, Path, description = "A stream that takes rows, see /api/v1/streams."),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters: the same key again writes nothing and gives the first answer."),
    ),
    request_body(description = "One object, an array, one object per line, or Avro.", content(
        (serde_json::Value = "application/json"), (String = "application/x-ndjson"), (Vec<u8> = "application/avro"),
    )),
    responses(
        (status = 200, description = "Committed.", body = IngestReport),
        (status = 404, description = "No such stream.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The idempotency key came with another body before.", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too large.", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "Neither JSON, NDJSON nor Avro.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "No row was good.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Disk full or under back-pressure: see Retry-After.", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn ingest(State(app): State<Arc<App>>, Path(stream): Path<String>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let Body(body) = body;
    let topic = Topic::new(&stream).map_err(|e| Problem::not_found(e.to_string()))?;
    let content = content_kind(&headers)?;
    let idempotency_key = idempotency_key(&headers)?;
    if body.is_empty() {
        return Err(Problem::invalid("the body is empty: send at least one row"));
    }
    let request = IngestRequest { stream: topic, content, body, idempotency_key, received: ReceiveTime(app.now()) };
    let answer = app.ports.ingest.ingest(request).await?;
    Ok(report(stream, &answer))
}

fn report(stream: String, answer: &IngestAnswer) -> Response {
    let problems: Vec<RowReport> = answer.problems.iter().take(PROBLEMS_MAX).map(RowReport::from).collect();
    if answer.accepted == 0 && answer.rejected > 0 {
        let detail = format!("none of the {} rows could be taken", answer.rejected);
        let mut problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "rows", detail);
        problem.problems = problems;
        return problem.into_response();
    }
    let offsets = answer.placed.iter().map(|p| OffsetRange { partition: p.partition.0, first: p.first.0, last: p.last.0 }).collect();
    let report =
        IngestReport { stream, accepted: answer.accepted, rejected: answer.rejected, replayed: answer.replayed, offsets, problems };
    axum::Json(report).into_response()
}

fn content_kind(headers: &HeaderMap) -> Result<ContentKind, Problem> {
    match media_type(headers).as_deref() {
        Some("application/json") => Ok(ContentKind::Json),
        Some("application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines") => Ok(ContentKind::NdJson),
        Some("application/avro" | "avro/binary" | "application/vnd.apache.avro" | "application/vnd.apache.avro+binary") => {
            Ok(ContentKind::Avro)
        }
        _ => {
            let detail = "send Content-Type: application/json, application/x-ndjson or application/avro";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", detail))
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let is_good = (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if is_good {
        Ok(Some(text.to_owned()))
    } else {
        Err(Problem::parameter("Idempotency-Key", format!("Idempotency-Key has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters")))
    }
}
