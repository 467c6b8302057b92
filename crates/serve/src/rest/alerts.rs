//! Alerts: the latest as a list, and the next ones as events.

use crate::app::App;
use crate::extract::{Params, count, time, words};
use crate::live::chunk::write_row;
use crate::live::events::{self, AlertFilter, Begin};
use crate::live::token::Token;
use crate::measure;
use crate::ports::ReadFrom;
use crate::problem::Problem;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use mulgil_model::ids::{Offset, Partition};
use mulgil_model::rows::Rows;
use serde::Deserialize;
use std::sync::Arc;

const ALERTS_DEFAULT: usize = 100;
const ALERTS_MAX: usize = 1000;
/// Rows per partition among which the latest alerts are looked for; older ones are a matter for SQL.
const SCAN_ROWS_MAX: u64 = 50_000;
const SCAN_STEP_ROWS: u64 = 1000;
const MODES: [&str; 2] = ["live", "shadow"];

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AlertQuery {
    /// One or more keys, with commas between them.
    symbol: Option<String>,
    /// One or more rules.
    #[serde(rename = "type")]
    rule: Option<String>,
    /// One or more of low, medium, high, critical.
    severity: Option<String>,
    /// live (the default), shadow, or `live,shadow`.
    mode: Option<String>,
    /// RFC 3339 or epoch milliseconds: alerts of this event time and later.
    from: Option<String>,
    /// How many, for the list; 100 when left out.
    limit: Option<String>,
    /// For EventSources that cannot send the Last-Event-ID header.
    #[serde(rename = "lastEventId")]
    last_event_id: Option<String>,
    #[param(ignore)]
    #[serde(rename = "key")]
    _key: Option<String>,
    #[param(ignore)]
    #[serde(rename = "access_token")]
    _access_token: Option<String>,
}

impl AlertQuery {
    fn filter(&self) -> Result<AlertFilter, Problem> {
        let modes = words("mode", self.mode.as_deref(), &MODES)?;
        Ok(AlertFilter {
            symbols: words("symbol", self.symbol.as_deref(), &[])?,
            rules: words("type", self.rule.as_deref(), &[])?,
            severities: words("severity", self.severity.as_deref(), &["low", "medium", "high", "critical"])?,
            modes: Some(modes.unwrap_or_else(|| vec!["live".to_owned()])),
            from: time("from", self.from.as_deref())?.map(|t| t.micros()),
        })
    }
}

/// The next alerts, as Server-Sent Events named `anomaly`.
///
/// Each event's id resumes behind it (Last-Event-ID): every alert comes exactly once, in order. After a resume an event `recovery` says
/// `{"recovered": true}` when nothing is missing. Comments keep the connection alive.
#[utoipa::path(get, path = "/api/v1/stock/anomaly", tag = "alerts",
    params(AlertQuery, ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event received.")),
    responses(
        (status = 200, description = "Events; `data` is an alert with its evidence and thresholds.", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter or the id cannot be used.", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn anomaly(State(app): State<Arc<App>>, headers: HeaderMap, Params(query): Params<AlertQuery>) -> Result<Response, Problem> {
    let filter = query.filter()?;
    let in_header = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    let begin = match in_header.or(query.last_event_id.as_deref()).filter(|id| !id.is_empty()) {
        Some(id) => Begin::After(Token::decode(id).map_err(|e| Problem::parameter("Last-Event-ID", e.to_string()))?),
        None => match time("from", query.from.as_deref())? {
            Some(from) => Begin::From(from),
            None => Begin::Live,
        },
    };
    let slot = Arc::clone(&app.sse_slots).try_acquire_owned().map_err(|_| {
        measure::refused("sse_clients");
        Problem::busy("too many event streams are open")
    })?;
    Ok(events::stream(app, filter, begin, slot)?)
}

/// The latest alerts, newest first.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(AlertQuery), responses(
    (status = 200, description = "`{data, count}`, newest first.", body = serde_json::Value),
    (status = 400, description = "A parameter cannot be used.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn latest(State(app): State<Arc<App>>, Params(query): Params<AlertQuery>) -> Result<Response, Problem> {
    let filter = query.filter()?;
    let limit = count("limit", query.limit.as_deref(), ALERTS_DEFAULT, ALERTS_MAX)?;
    let mut found: Vec<(i64, String)> = Vec::new();
    for info in app.alert_streams() {
        for p in 0..info.partitions {
            scan(&app, &info.schema.stream, Partition(p), &filter, limit, &mut found)?;
        }
    }
    found.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    found.truncate(limit);
    let rows: Vec<&str> = found.iter().map(|(_, row)| row.as_str()).collect();
    Ok(super::json(format!(r#"{{"data":[{}],"count":{}}}"#, rows.join(","), rows.len())))
}

/// The last `limit` alerts of one partition, read backwards.
fn scan(
    app: &App,
    stream: &mulgil_model::ids::Topic,
    partition: Partition,
    filter: &AlertFilter,
    limit: usize,
    found: &mut Vec<(i64, String)>,
) -> Result<(), Problem> {
    let feed = &app.ports.feed;
    let bounds = feed.bounds(stream, partition)?;
    let oldest = bounds.first.0.max(bounds.next.0.saturating_sub(SCAN_ROWS_MAX));
    let (mut end, mut n_found) = (bounds.next.0, 0);
    while end > oldest && n_found < limit {
        let start = oldest.max(end.saturating_sub(SCAN_STEP_ROWS));
        let mut step = Vec::new();
        let mut at = start;
        while at < end {
            let rows = feed.read(stream, partition, ReadFrom::Offset(Offset(at)), (end - at) as usize)?;
            if rows.is_empty() {
                break;
            }
            at = rows.next().0;
            step.extend(
                (0..rows.len()).filter(|row| filter.takes(&rows, *row)).map(|row| (rows.event_times().value(row), write(&rows, row))),
            );
        }
        step.reverse();
        step.truncate(limit - n_found);
        n_found += step.len();
        found.append(&mut step);
        end = start;
    }
    Ok(())
}

fn write(rows: &Rows, row: usize) -> String {
    let mut out = String::new();
    write_row(&mut out, &rows.schema, &rows.batch, row);
    out
}
