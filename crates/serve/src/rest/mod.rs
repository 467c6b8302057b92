//! Request and answer: one file per resource.

pub mod alerts;
pub mod captures;
pub mod generate;
pub mod health;
pub mod ingest;
pub mod realtime;
pub mod search;
pub mod sql;
pub mod streams;

pub mod cells;

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// A JSON text as an answer.
pub fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text).into_response()
}
