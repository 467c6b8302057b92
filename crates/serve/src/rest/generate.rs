//! `/api/v1/stock/generate`: the market simulator.

use crate::app::App;
use crate::extract::{OptionalJson, Params};
use crate::ports::{GenerateRequest, GeneratorStatus};
use crate::problem::Problem;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use mulgil_model::time::{format_micros, parse_duration};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

const SYMBOLS_MAX: usize = 10_000;
const RATE_MAX: f64 = 10_000_000.0;
/// A source's name, a schema's and a table's.
const TARGET_BYTES_MAX: usize = 200;

/// All fields may be left out.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerateBody {
    /// `["005930", "BRK.B"]`; all that the generator knows when left out.
    symbols: Option<Vec<String>>,
    /// Trades per second.
    rate: Option<f64>,
    /// Seconds, or a text such as `"10m"`. Without duration and count it runs until stopped.
    #[schema(value_type = Option<Object>)]
    duration: Option<DurationValue>,
    count: Option<u64>,
    /// Share of trades that belong to an injected anomaly, 0 to 1.
    anomaly_share: Option<f64>,
    /// The same seed gives the same trades.
    seed: Option<u64>,
    /// A captured database, `"exchange"` or `"exchange.public.stock_trades"`: the trades are inserted into its table (of MySQL: as orders),
    /// and come back as changes. Only where its configuration says `allow_generate = true`.
    into: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DurationValue {
    Seconds(f64),
    Text(String),
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunQuery {
    /// A run's id; the latest run when left out.
    id: Option<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub struct RunReport {
    id: String,
    /// running, finished, stopped or failed
    state: &'static str,
    /// It was running before this call, which changed nothing.
    already_running: bool,
    symbols: Vec<String>,
    rate: f64,
    seed: u64,
    /// The table that gets the trades; without one they go into the stream.
    into: Option<String>,
    /// Trades that are committed, by the log or by the database.
    produced: u64,
    anomalies: u64,
    started: String,
    ended: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
}

impl RunReport {
    fn new(status: GeneratorStatus, already_running: bool) -> Self {
        Self {
            id: status.id,
            state: status.state.as_str(),
            already_running,
            symbols: status.symbols,
            rate: status.rate,
            seed: status.seed,
            into: status.into,
            produced: status.produced,
            anomalies: status.anomalies,
            started: format_micros(status.started),
            ended: status.ended.map(format_micros),
            detail: status.detail,
        }
    }
}

/// Starts synthetic trades; a second start while it runs changes nothing.
#[utoipa::path(post, path = "/api/v1/stock/generate", tag = "stock", request_body(content = GenerateBody, description = "May be empty."), responses(
    (status = 202, description = "It runs.", body = RunReport),
    (status = 400, description = "A field cannot be used.", body = Problem, content_type = "application/problem+json"),
    (status = 403, description = "The configuration or the database does not allow trades into it.", body = Problem, content_type = "application/problem+json"),
    (status = 404, description = "No stream of trades, or no such captured database.", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "A run goes somewhere else: stop it first.", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A symbol is not known, or the table cannot take trades.", body = Problem, content_type = "application/problem+json"),
    (status = 503, description = "The database cannot be reached.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn start(State(app): State<Arc<App>>, OptionalJson(body): OptionalJson<GenerateBody>) -> Result<Response, Problem> {
    let started = app.ports.generator.start(body.check()?).await?;
    let location = [(header::LOCATION, "/api/v1/stock/generate")];
    let report = RunReport::new(started.status, started.already_running);
    Ok((StatusCode::ACCEPTED, location, axum::Json(report)).into_response())
}

/// How the generator is doing.
#[utoipa::path(get, path = "/api/v1/stock/generate", tag = "stock", params(RunQuery), responses(
    (status = 200, body = RunReport),
    (status = 404, description = "Never started.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn status(State(app): State<Arc<App>>, Params(query): Params<RunQuery>) -> Result<Response, Problem> {
    let status = app.ports.generator.status(query.id.as_deref())?;
    Ok(axum::Json(RunReport::new(status, false)).into_response())
}

/// Stops the generator; answers when its last trade is committed.
#[utoipa::path(delete, path = "/api/v1/stock/generate", tag = "stock", params(RunQuery), responses(
    (status = 200, body = RunReport),
    (status = 404, description = "Never started.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn stop(State(app): State<Arc<App>>, Params(query): Params<RunQuery>) -> Result<Response, Problem> {
    let status = app.ports.generator.stop(query.id).await?;
    Ok(axum::Json(RunReport::new(status, false)).into_response())
}

/// The same as DELETE, for those who can only POST.
#[utoipa::path(post, path = "/api/v1/stock/generate/stop", tag = "stock", params(RunQuery), responses(
    (status = 200, body = RunReport),
    (status = 404, description = "Never started.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn stop_by_post(state: State<Arc<App>>, query: Params<RunQuery>) -> Result<Response, Problem> {
    stop(state, query).await
}

impl GenerateBody {
    fn check(self) -> Result<GenerateRequest, Problem> {
        let symbols = self.symbols.unwrap_or_default();
        if symbols.len() > SYMBOLS_MAX || symbols.iter().any(|s| s.is_empty() || s.len() > 200) {
            return Err(Problem::parameter("symbols", format!("symbols is a list of at most {SYMBOLS_MAX} names")));
        }
        if self.rate.is_some_and(|r| !(r > 0.0 && r <= RATE_MAX)) {
            return Err(Problem::parameter("rate", format!("rate is a number of trades per second, above 0 and at most {RATE_MAX}")));
        }
        if self.anomaly_share.is_some_and(|s| !(0.0..=1.0).contains(&s)) {
            return Err(Problem::parameter("anomaly_share", "anomaly_share is a number from 0 to 1"));
        }
        if self.count == Some(0) {
            return Err(Problem::parameter("count", "count is 1 or more"));
        }
        if self.into.as_ref().is_some_and(|into| into.is_empty() || into.len() > TARGET_BYTES_MAX) {
            return Err(Problem::parameter("into", "into names a captured database, such as \"exchange\", or one of its tables"));
        }
        let duration = self.duration.map(DurationValue::check).transpose()?;
        let (rate, count, anomaly_share, seed, into) = (self.rate, self.count, self.anomaly_share, self.seed, self.into);
        Ok(GenerateRequest { symbols, rate, duration, count, anomaly_share, seed, into })
    }
}

impl DurationValue {
    fn check(self) -> Result<Duration, Problem> {
        let bad = || Problem::parameter("duration", "duration is a number of seconds above 0, or a text such as \"10m\"");
        let duration = match self {
            Self::Seconds(s) => Duration::try_from_secs_f64(s).map_err(|_| bad())?,
            Self::Text(text) => Duration::from_micros(parse_duration(&text).map_err(|_| bad())?.unsigned_abs()),
        };
        if duration.is_zero() { Err(bad()) } else { Ok(duration) }
    }
}
