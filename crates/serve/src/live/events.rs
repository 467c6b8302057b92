//! Alerts as Server-Sent Events. Each event's id is a resume token, so that a browser that reconnects gets every alert exactly once.

use super::chunk::Chunk;
use super::hub::{Hub, Seat, Step};
use super::scan::{Turn, WAIT};
use super::token::Token;
use crate::app::{App, LiveClient};
use crate::measure;
use crate::ports::{PortError, StreamInfo};
use arrow::array::{Array, AsArray};
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use mulgil_model::ids::Offset;
use mulgil_model::rows::Rows;
use mulgil_model::time::EventTime;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// Which alerts; None means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertFilter {
    pub symbols: Option<Vec<String>>,
    pub rules: Option<Vec<String>>,
    pub severities: Option<Vec<String>>,
    pub modes: Option<Vec<String>>,
    pub from: Option<i64>,
}

impl AlertFilter {
    pub fn takes(&self, rows: &Rows, row: usize) -> bool {
        let in_list = |list: &Option<Vec<String>>, value: Option<&str>| {
            list.as_ref().is_none_or(|list| value.is_some_and(|v| list.iter().any(|l| l == v)))
        };
        in_list(&self.symbols, Some(rows.keys().value(row)))
            && in_list(&self.rules, text(rows, "rule", row))
            && in_list(&self.severities, text(rows, "severity", row))
            && in_list(&self.modes, text(rows, "mode", row))
            && self.from.is_none_or(|from| rows.event_times().value(row) >= from)
    }
}

fn text<'a>(rows: &'a Rows, column: &str, row: usize) -> Option<&'a str> {
    let array = rows.column(rows.schema.index_of(column)?).as_string_opt::<i32>()?;
    array.is_valid(row).then(|| array.value(row))
}

/// Where the events begin.
pub enum Begin {
    /// With the next alert.
    Live,
    From(EventTime),
    After(Token),
}

/// The answer to an EventSource.
pub fn stream(app: Arc<App>, filter: AlertFilter, begin: Begin, slot: OwnedSemaphorePermit) -> Result<Response, PortError> {
    let mut events = Events::open(&app, filter, slot)?;
    let mut first = format!("retry: {}\n", app.limits.sse_retry.as_millis());
    match begin {
        Begin::Live => {}
        Begin::From(time) => events.place_at_time(time)?,
        Begin::After(token) => {
            let recovered = events.place_at_token(&token)?;
            let _ = write!(
                first,
                "event: recovery\ndata: {{\"recovered\":{recovered},\"epoch\":{}}}\n\n",
                serde_json::json!(app.ports.feed.epoch())
            );
        }
    }
    // The id comes at once, so that a client that loses the connection before the first alert can resume as well.
    let _ = write!(first, "id: {}\n\n", events.token().encode());
    events.ready = first;
    let body = futures::stream::unfold(events, |mut events| async move {
        let text = events.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), events))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Buffering proxies hold events back otherwise.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// One client's place in all alert streams.
struct Events {
    app: Arc<App>,
    filter: AlertFilter,
    places: Vec<Place>,
    ticks: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    /// Text to send before anything is read.
    ready: String,
    next_beat: Instant,
    /// Others are further behind and read what it wants.
    waits: bool,
    _slot: OwnedSemaphorePermit,
    _paced: LiveClient,
    _counted: measure::SseClient,
}

struct Place {
    seat: Seat,
    at: Offset,
}

impl Events {
    fn open(app: &Arc<App>, filter: AlertFilter, slot: OwnedSemaphorePermit) -> Result<Self, PortError> {
        let ticks = app.ports.feed.changed();
        let mut places = Vec::new();
        for info in app.alert_streams() {
            places.extend(place_at_end(&app.hub, &info)?);
        }
        Ok(Self {
            filter,
            places,
            ticks,
            stop: app.stop.clone(),
            ready: String::new(),
            next_beat: Instant::now() + app.limits.sse_heartbeat,
            waits: false,
            _slot: slot,
            _paced: app.live_client(),
            _counted: measure::SseClient::new(),
            app: Arc::clone(app),
        })
    }

    fn place_at_time(&mut self, time: EventTime) -> Result<(), PortError> {
        self.filter.from = Some(time.micros());
        for place in &mut self.places {
            place.at = self.app.hub.offset_at(&place.seat.tail, time)?;
        }
        Ok(())
    }

    /// False when alerts may be missing: then it begins with the oldest kept (same log), or with the next (another log).
    fn place_at_token(&mut self, token: &Token) -> Result<bool, PortError> {
        if token.epoch != self.app.ports.feed.epoch() {
            return Ok(false);
        }
        let mut is_whole = true;
        for place in &mut self.places {
            let known =
                token.streams.get(place.seat.tail.topic.as_str()).and_then(|offsets| offsets.get(place.seat.tail.partition.0 as usize));
            // A stream or partition that the token does not know has come since.
            let at = known.copied().unwrap_or(Offset::ZERO);
            let bounds = self.app.hub.bounds(&place.seat.tail)?;
            is_whole &= (bounds.first..=bounds.next).contains(&at);
            place.at = at.clamp(bounds.first, bounds.next);
        }
        Ok(is_whole)
    }

    fn token(&self) -> Token {
        let mut streams: std::collections::BTreeMap<String, Vec<Offset>> = std::collections::BTreeMap::new();
        for place in &self.places {
            streams.entry(place.seat.tail.topic.to_string()).or_default().push(place.at);
        }
        Token { epoch: self.app.ports.feed.epoch().to_owned(), streams }
    }

    /// The next text to send; None when the server stops.
    async fn next(&mut self) -> Option<String> {
        if !self.ready.is_empty() {
            return Some(std::mem::take(&mut self.ready));
        }
        let mut stop = self.stop.clone();
        loop {
            let tick = *self.ticks.borrow_and_update();
            match self.pull(tick) {
                Ok(text) if !text.is_empty() => return Some(text),
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(error = %e, "an event stream's alerts cannot be read");
                    return None;
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stopping| *stopping) => return None,
                changed = self.ticks.changed() => changed.ok()?,
                () = sleep(WAIT), if self.waits => {}
                () = sleep_until(self.next_beat) => {
                    self.next_beat = Instant::now() + self.app.limits.sse_heartbeat;
                    // An id without data moves the client's place silently: quiet filters keep a fresh token.
                    return Some(format!(": beat\nid: {}\n\n", self.token().encode()));
                }
            }
            // Commits that follow closely are looked at together.
            sleep(self.app.pace()).await;
        }
    }

    /// Events for the rows behind the places; empty when there are none.
    fn pull(&mut self, tick: u64) -> Result<String, PortError> {
        let mut out = String::new();
        // Whether its socket is full is not known here: nobody waits for it.
        let turn = Turn { tick, now: Instant::now(), is_held: true };
        self.waits = false;
        loop {
            let mut n_rows = 0;
            for p in 0..self.places.len() {
                let Place { seat, at } = &self.places[p];
                match self.app.hub.step(seat, *at, &turn)? {
                    Step::Rows(chunk) => n_rows += self.write(&mut out, p, &chunk),
                    Step::End => {}
                    Step::Wait => self.waits = true,
                    Step::Gone => {
                        self.places[p].at = self.app.hub.bounds(&seat.tail)?.first;
                        out.push_str("event: recovery\ndata: {\"recovered\":false}\n\n");
                    }
                }
            }
            if n_rows == 0 || !out.is_empty() {
                return Ok(out);
            }
        }
    }

    fn write(&mut self, out: &mut String, place: usize, chunk: &Chunk) -> usize {
        let range = chunk.range_from(self.places[place].at);
        let n_rows = range.len();
        let mut n_events = 0;
        for row in range {
            self.places[place].at = chunk.base().plus(row as u64 + 1);
            if self.filter.takes(&chunk.rows, row) {
                let _ = write!(out, "id: {}\nevent: anomaly\ndata: {}\n\n", self.token().encode(), chunk.json(row));
                n_events += 1;
            }
        }
        measure::events_sent(n_events);
        n_rows
    }
}

fn place_at_end(hub: &Hub, info: &StreamInfo) -> Result<Vec<Place>, PortError> {
    let place = |seat: Seat| Ok(Place { at: hub.bounds(&seat.tail)?.next, seat });
    hub.seats(info).into_iter().map(place).collect()
}
