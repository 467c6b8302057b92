//! Errors as clients see them: problem documents, RFC 9457.

use crate::ports::{PortError, PortErrorKind};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mulgil_model::problem::RowProblem;
use serde::Serialize;
use std::time::Duration;

/// `type` is a tag URI of its own per kind of problem: an identifier, not an address.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Bad rows of an ingest request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<RowReport>,
    #[serde(skip)]
    #[schema(ignore)]
    retry_after: Option<Duration>,
}

/// Why one row was not accepted.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct RowReport {
    /// 0-based.
    pub row: u64,
    /// 1-based, in the body as sent.
    pub line: u64,
    pub column: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub reason: String,
}

impl From<&RowProblem> for RowReport {
    fn from(p: &RowProblem) -> Self {
        Self { row: p.row, line: p.line, column: p.column, field: p.field.clone(), reason: p.reason.clone() }
    }
}

impl Problem {
    pub fn new(status: StatusCode, slug: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:mulgil:problem:{slug}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            parameter: None,
            problems: Vec::new(),
            retry_after: None,
        }
    }

    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// A query parameter or field with a value that cannot be used.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self { parameter: Some(name.to_owned()), ..Self::invalid(detail) }
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).after(Duration::from_secs(1))
    }

    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub fn too_large(bytes_max: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", format!("the body has more than {bytes_max} bytes: send it in parts"))
    }
}

impl From<PortError> for Problem {
    fn from(error: PortError) -> Self {
        let (status, slug) = match error.kind {
            PortErrorKind::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            PortErrorKind::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            PortErrorKind::Forbidden => (StatusCode::FORBIDDEN, "not-allowed"),
            PortErrorKind::Conflict => (StatusCode::CONFLICT, "conflict"),
            PortErrorKind::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            PortErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            PortErrorKind::Full => (StatusCode::SERVICE_UNAVAILABLE, "disk-full"),
            PortErrorKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            PortErrorKind::Internal => {
                tracing::error!(error = %error.detail, "a request failed inside");
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server could not answer: its log says why");
            }
        };
        let wait = match error.kind {
            PortErrorKind::Busy => error.retry_after.or(Some(Duration::from_secs(1))),
            PortErrorKind::Full => error.retry_after.or(Some(Duration::from_secs(30))),
            _ => error.retry_after,
        };
        let problems = error.problems.iter().map(RowReport::from).collect();
        Self { problems, retry_after: wait, ..Self::new(status, slug, error.detail) }
    }
}

pub const PROBLEM_JSON: &str = "application/problem+json";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self).expect("a problem holds only text and numbers");
        let mut response = (status, [(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))], body).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs().max(1);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"mulgil\""));
        }
        response
    }
}
