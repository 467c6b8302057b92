//! `GET /api/v1/stock/search`: the past of the trade stream, page by page.

use crate::app::App;
use crate::extract::{Params, count, time};
use crate::live::token::{seal, unseal};
use crate::problem::Problem;
use axum::extract::State;
use axum::response::Response;
use mulgil_model::json;
use mulgil_model::schema::{StreamKind, StreamSchema};
use mulgil_model::search::{Interval, SearchCursor, SearchPage, SearchRequest, SearchTie};
use mulgil_model::streams::{BUY, SELL};
use mulgil_model::time::EventTime;
use serde::Deserialize;
use std::sync::Arc;

const DURATION_MINUTES_DEFAULT: i64 = 60;
const DURATION_MINUTES_MAX: i64 = 100 * 366 * 24 * 60;
const ROWS_DEFAULT: usize = 1000;
const SYMBOL_BYTES_MAX: usize = 200;

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SearchQuery {
    /// `005930`, `BRK.B`; all when left out.
    ticker: Option<String>,
    /// `BUY` or `SELL`.
    #[serde(rename = "tradeType")]
    trade_type: Option<String>,
    /// `KRX`, `NASDAQ`, …
    #[serde(rename = "marketCode")]
    market_code: Option<String>,
    /// Minutes back from now; 60 when neither this nor `from` is given.
    duration: Option<String>,
    /// RFC 3339 or epoch milliseconds; belongs to the answer.
    from: Option<String>,
    /// As `from`; does not belong to the answer. Now when left out.
    to: Option<String>,
    /// `tick` (the default), `minute`, `hour` or `day`.
    interval: Option<String>,
    /// Rows of a page, 1000 when left out.
    limit: Option<String>,
    /// `cursor` of the page before. It also keeps that page's `from` and `to`.
    cursor: Option<String>,
}

/// What a client saw last, and the bounds that the pages share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub from: EventTime,
    pub to: EventTime,
    pub after: SearchCursor,
}

/// Trades or candles of the past, newest first.
#[utoipa::path(get, path = "/api/v1/stock/search", tag = "stock", params(SearchQuery), responses(
    (status = 200, description = "`{data, count, filters, cursor}`; cursor is null on the last page. Ticks have event_time, event_id, ticker, price, volume, trade_type, trade_id, market_code, currency_code; candles have ticker, start, event_time (the end), open, high, low, close, volume, amount, vwap, count, buy_volume, sell_volume, revision. Decimals are exact numbers.", body = serde_json::Value),
    (status = 400, description = "A parameter cannot be used.", body = Problem, content_type = "application/problem+json"),
    (status = 504, description = "It took too long.", body = Problem, content_type = "application/problem+json"),
))]
pub async fn search(State(app): State<Arc<App>>, Params(query): Params<SearchQuery>) -> Result<Response, Problem> {
    let request = read(&app, &query)?;
    let page = app.ports.past.search(request.clone()).await?;
    Ok(super::json(write_page(&request, &page)))
}

fn read(app: &App, query: &SearchQuery) -> Result<SearchRequest, Problem> {
    let stream = app.trades().ok_or_else(|| Problem::not_found("there is no stream of trades"))?;
    let cursor = query.cursor.as_deref().map(read_cursor).transpose()?;
    let (from, to, after) = match cursor {
        Some(c) => (c.from, c.to, Some(c.after)),
        None => {
            let (from, to) = bounds(app.now(), query)?;
            (from, to, None)
        }
    };
    let side = query.trade_type.as_deref().map(|text| {
        let upper = text.to_ascii_uppercase();
        if upper == BUY || upper == SELL { Ok(upper) } else { Err(Problem::parameter("tradeType", "tradeType is BUY or SELL")) }
    });
    let interval = query
        .interval
        .as_deref()
        .map(|text| Interval::parse(text).ok_or_else(|| Problem::parameter("interval", "interval is tick, minute, hour or day")));
    let interval = interval.transpose()?.unwrap_or(Interval::Tick);
    let fits = |c: &SearchCursor| {
        matches!((&c.tie, interval), (SearchTie::Tick { .. }, Interval::Tick))
            || (matches!(c.tie, SearchTie::Bar { .. }) && interval != Interval::Tick)
    };
    if !after.as_ref().is_none_or(fits) {
        return Err(Problem::parameter("cursor", "the cursor belongs to a search with another interval"));
    }
    Ok(SearchRequest {
        stream: stream.schema.stream.clone(),
        symbol: name("ticker", query.ticker.as_deref())?,
        side: side.transpose()?,
        market: name("marketCode", query.market_code.as_deref())?,
        from,
        to,
        interval,
        limit: count("limit", query.limit.as_deref(), ROWS_DEFAULT, app.limits.search_rows_max)?,
        after,
    })
}

fn name(parameter: &str, text: Option<&str>) -> Result<Option<String>, Problem> {
    match text {
        Some(t) if t.is_empty() || t.len() > SYMBOL_BYTES_MAX || t.contains(char::is_control) => {
            Err(Problem::parameter(parameter, format!("{parameter} has 1 to {SYMBOL_BYTES_MAX} bytes and no control characters")))
        }
        other => Ok(other.map(str::to_owned)),
    }
}

fn bounds(now: i64, query: &SearchQuery) -> Result<(EventTime, EventTime), Problem> {
    let from = time("from", query.from.as_deref())?;
    let to = time("to", query.to.as_deref())?;
    if query.duration.is_some() && from.is_some() {
        return Err(Problem::parameter("duration", "give duration or from, not both"));
    }
    let minutes = query.duration.as_deref().map(|text| {
        let minutes = text.parse::<i64>().ok().filter(|m| (1..=DURATION_MINUTES_MAX).contains(m));
        minutes.ok_or_else(|| Problem::parameter("duration", "duration is a whole number of minutes, 1 or more"))
    });
    let minutes = minutes.transpose()?.unwrap_or(DURATION_MINUTES_DEFAULT);
    // "Until now" includes the present microsecond.
    let to = to.unwrap_or(EventTime(now + 1));
    let from = from.unwrap_or(EventTime(to.micros() - minutes * 60_000_000));
    if from >= to {
        return Err(Problem::parameter("from", "from must be earlier than to"));
    }
    Ok((from, to))
}

impl Cursor {
    /// Version 1: `1`, from, to, time of the last row, then `t` partition offset or `b` symbol; fields separated by a zero byte.
    pub fn body(&self) -> Vec<u8> {
        let tie = match &self.after.tie {
            SearchTie::Tick { partition, offset } => format!("t\0{partition}\0{offset}"),
            SearchTie::Bar { symbol } => format!("b\0{symbol}"),
        };
        format!("1\0{}\0{}\0{}\0{tie}", self.from.micros(), self.to.micros(), self.after.at.micros()).into_bytes()
    }

    pub fn write(&self) -> String {
        seal(self.body())
    }
}

fn write_cursor(request: &SearchRequest, after: &SearchCursor) -> String {
    Cursor { from: request.from, to: request.to, after: after.clone() }.write()
}

pub fn read_cursor(text: &str) -> Result<Cursor, Problem> {
    let read = || {
        let body = String::from_utf8(unseal(text)?).ok()?;
        let mut fields = body.splitn(6, '\0');
        fields.next().filter(|v| *v == "1")?;
        let mut micros = || fields.next()?.parse().ok().map(EventTime);
        let (from, to, at) = (micros()?, micros()?, micros()?);
        let tie = match (fields.next()?, fields.next()?) {
            ("t", place) => {
                let (partition, offset) = place.split_once('\0')?;
                SearchTie::Tick { partition: partition.parse().ok()?, offset: offset.parse().ok()? }
            }
            ("b", symbol) => SearchTie::Bar { symbol: symbol.to_owned() },
            _ => return None,
        };
        Some(Cursor { from, to, after: SearchCursor { at, tie } })
    };
    read().ok_or_else(|| Problem::parameter("cursor", "the cursor is damaged or not from this server: search again without it"))
}

fn write_page(request: &SearchRequest, page: &SearchPage) -> String {
    let n = page.batch.num_rows();
    let mut out = String::with_capacity(256 + n * 224);
    out.push_str(r#"{"data":["#);
    for row in 0..n {
        if row > 0 {
            out.push(',');
        }
        write_row(&mut out, &page.schema, &page.batch, row);
    }
    let filters = serde_json::json!({
        "ticker": request.symbol, "tradeType": request.side, "marketCode": request.market, "from": request.from.to_string(),
        "to": request.to.to_string(), "interval": request.interval.as_str(), "limit": request.limit,
    });
    let cursor = serde_json::Value::from(page.next.as_ref().map(|next| write_cursor(request, next)));
    out.push_str(&format!(r#"],"count":{n},"filters":{filters},"cursor":{cursor}}}"#));
    out
}

/// A row in the names that clients of the stock preset know.
fn write_row(out: &mut String, schema: &StreamSchema, batch: &arrow::array::RecordBatch, row: usize) {
    out.push('{');
    for (i, column) in schema.columns.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        json::write_text(out, stock_name(schema.kind, &column.name));
        out.push(':');
        json::write_value(out, column.kind, batch.column(i).as_ref(), row);
    }
    // Clients may rely on the field; streams that do not carry one have none to give.
    if schema.kind == StreamKind::Trade && schema.index_of("event_id").is_none() {
        out.push_str(r#","event_id":null"#);
    }
    out.push('}');
}

fn stock_name(kind: StreamKind, column: &str) -> &str {
    match (kind, column) {
        (_, "symbol") => "ticker",
        (StreamKind::Trade, "quantity") => "volume",
        (StreamKind::Trade, "side") => "trade_type",
        (StreamKind::Trade, "market") => "market_code",
        (StreamKind::Trade, "currency") => "currency_code",
        (_, other) => other,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_model::ids::Topic;

    #[test]
    fn cursors_round_trip_and_resist_editing() {
        let request = SearchRequest {
            stream: Topic::new("trades").unwrap(),
            symbol: None,
            side: None,
            market: None,
            from: EventTime(-5),
            to: EventTime(70),
            interval: Interval::Tick,
            limit: 1,
            after: None,
        };
        for tie in [
            SearchTie::Tick { partition: 3, offset: u64::MAX },
            SearchTie::Bar { symbol: "BRK.B".into() },
            SearchTie::Bar { symbol: "물\u{1}".into() },
        ] {
            let after = SearchCursor { at: EventTime(7), tie };
            let text = write_cursor(&request, &after);
            let back = read_cursor(&text).unwrap();
            assert_eq!((back.from, back.to, back.after), (request.from, request.to, after));
            assert!(read_cursor(&text[1..]).is_err());
            assert!(read_cursor(&text.replace(&text[4..6], "zz")).is_err());
        }
        assert!(read_cursor("").is_err());
    }

    #[test]
    fn bounds_of_a_search() {
        let check = |duration: Option<&str>, from: Option<&str>, to: Option<&str>, want: &str| {
            let query = SearchQuery {
                duration: duration.map(Into::into),
                from: from.map(Into::into),
                to: to.map(Into::into),
                ..SearchQuery::default()
            };
            let got = bounds(7_200_000_000, &query).map_or_else(|p| p.detail, |(f, t)| format!("{} {}", f.micros(), t.micros()));
            assert_eq!(got, want);
        };
        check(None, None, None, "3600000001 7200000001");
        check(Some("1"), None, None, "7140000001 7200000001");
        check(None, Some("1970-01-01T00:00:01Z"), None, "1000000 7200000001");
        check(None, Some("1000"), Some("2000"), "1000000 2000000");
        check(Some("1"), None, Some("60000"), "0 60000000");
        check(None, Some("2000"), Some("2000"), "from must be earlier than to");
        check(Some("0"), None, None, "duration is a whole number of minutes, 1 or more");
        check(Some("1"), Some("0"), None, "give duration or from, not both");
        check(
            None,
            Some("yesterday"),
            None,
            "from: 'yesterday' is not a time: use RFC 3339 (2026-11-21T09:00:00+09:00) or epoch milliseconds",
        );
    }
}
