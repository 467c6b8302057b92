//! What handlers take from a request, with problem documents instead of plain-text rejections.

use crate::app::App;
use crate::problem::Problem;
use crate::seat::Seat;
use axum::body::BodyDataStream;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use mulgil_model::time::{EpochUnit, EventTime, parse_micros};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;

/// Query parameters; an unknown one is an error that names it.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Query(value) =
            Query::try_from_uri(&parts.uri).map_err(|e| Problem::invalid(format!("the query cannot be read: {}", source_of(&e))))?;
        Ok(Self(value))
    }
}

/// A body of at most `body_bytes_max`.
pub struct Body(pub Bytes);

impl FromRequest<Arc<App>> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let bytes_max = app.limits.body_bytes_max;
        let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
        let seat = request.extensions().get::<Seat>().cloned().unwrap_or_default();
        let had_slot = seat.leave();
        if declared.is_some_and(|n| n > bytes_max as u64) {
            let asks_first = request.headers().contains_key(header::EXPECT);
            if !asks_first {
                drain(request.into_body().into_data_stream()).await;
            }
            return Err(Problem::too_large(bytes_max));
        }
        let (mut pieces, mut whole) = (request.into_body().into_data_stream(), BytesMut::new());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| Problem::invalid("the body ended early"))?;
            if whole.len() + piece.len() > bytes_max {
                drop(whole);
                drain(pieces).await;
                return Err(Problem::too_large(bytes_max));
            }
            seat.grow(app, piece.len())?;
            whole.extend_from_slice(&piece);
        }
        if had_slot {
            seat.take(app)?;
        }
        Ok(Self(whole.freeze()))
    }
}

/// What is still read of a body that is too large, and for how long.
const DRAINED_BYTES_MAX: usize = 32 << 20;
const DRAINED_FOR: Duration = Duration::from_secs(1);

/// Most clients write all of a body before they read; those whose connection closes meanwhile see a broken pipe instead of the refusal.
async fn drain(mut pieces: BodyDataStream) {
    let rest = async {
        let mut n_bytes = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            n_bytes += piece.len();
            if n_bytes > DRAINED_BYTES_MAX {
                break;
            }
        }
    };
    tokio::time::timeout(DRAINED_FOR, rest).await.ok();
}

/// A JSON body; an empty one is the default when the type has one (see [`OptionalJson`]).
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        check_is_json(&request)?;
        let Body(bytes) = Body::from_request(request, app).await?;
        read_json(&bytes).map(Self)
    }
}

pub struct OptionalJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<App>> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let checked = check_is_json(&request);
        let Body(bytes) = Body::from_request(request, app).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        checked?;
        read_json(&bytes).map(Self)
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|e| Problem::invalid(format!("the JSON body cannot be read: {e}")))
}

/// Asking for the type also keeps other sites' forms out, which cannot set it.
fn check_is_json(request: &Request) -> Result<(), Problem> {
    match media_type(request.headers()) {
        Some(kind) if kind == "application/json" => Ok(()),
        _ => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "send JSON with Content-Type: application/json")),
    }
}

/// Lower case, without parameters.
pub fn media_type(headers: &axum::http::HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The innermost message, which is the one that names the field.
fn source_of(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

pub fn time(name: &str, text: Option<&str>) -> Result<Option<EventTime>, Problem> {
    let read = |text| parse_micros(text, EpochUnit::Millis).map(EventTime).map_err(|e| Problem::parameter(name, format!("{name}: {e}")));
    text.map(read).transpose()
}

/// A whole number from 1 to `max`.
pub fn count(name: &str, text: Option<&str>, default: usize, max: usize) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(default.min(max)) };
    let n = text.parse::<usize>().ok().filter(|n| (1..=max).contains(n));
    n.ok_or_else(|| Problem::parameter(name, format!("{name} is a whole number from 1 to {max}")))
}

/// `a,b` as a list; the words must be among `known` where that is not empty.
pub fn words(name: &str, text: Option<&str>, known: &[&str]) -> Result<Option<Vec<String>>, Problem> {
    let Some(text) = text.filter(|t| !t.is_empty()) else { return Ok(None) };
    let list: Vec<String> = text.split(',').map(|w| w.trim().to_owned()).collect();
    let bad = list.iter().find(|w| w.is_empty() || w.len() > 200 || (!known.is_empty() && !known.contains(&w.as_str())));
    match bad {
        None => Ok(Some(list)),
        Some(_) if known.is_empty() => Err(Problem::parameter(name, format!("{name} is a list of names with commas between them"))),
        Some(_) => Err(Problem::parameter(name, format!("{name} is one or more of {}", known.join(", ")))),
    }
}
