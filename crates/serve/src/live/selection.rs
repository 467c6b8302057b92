//! One subscription: which rows, from where on, in which form. It holds places in the log, not rows, so that a client that reads slowly
//! costs no memory.

use super::audience::{Audience, Shown};
use super::candles::Candles;
use super::chunk::{CHUNK_ROWS_MAX, Chunk, newest};
use super::filter::Filter;
use super::hub::{Hub, Seat, Step};
use super::latest::Latest;
use super::scan::Turn;
use super::token::Token;
use crate::ports::{PortError, ReadFrom, StreamInfo};
use axum::extract::ws::Utf8Bytes;
use mulgil_model::ids::Offset;
use mulgil_model::json;
use mulgil_model::schema::StreamKind;
use mulgil_model::time::EventTime;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Text gathered before a frame is closed, in bytes. A socket keeps room for the largest frame that it ever sent, so that a client that
/// was behind once would cost as much for good.
const FRAME_BYTES: usize = 32 << 10;
/// Rows taken between two looks at that.
const FRAME_ROWS: usize = 64;
/// Rows looked at before others get their turn.
const PULL_ROWS_MAX: usize = 16 << 10;
/// Rows per partition from which the first latest state is taken.
const LATEST_ROWS: u64 = 4096;

pub struct Selection {
    pub id: String,
    pub filter: Filter,
    pub form: Form,
    legs: Vec<Leg>,
    /// All places as (leg, place), and whose turn it is: a busy one does not starve the others.
    order: Vec<(usize, usize)>,
    turn: usize,
    phase: Phase,
    latest: Latest,
    candles: Option<Candles>,
    /// Those who want the same rows in the same frames.
    audience: Option<Arc<Audience>>,
    /// A place waits for others, in this turn.
    is_waiting: bool,
    /// The last turn ended before the end of the log.
    is_behind: bool,
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every row.
    Stream,
    /// The latest row of each key.
    Cache,
    Candles {
        tick_seconds: u32,
        /// Frames without an id, as the simple protocol has them.
        simple: bool,
    },
}

/// ```text
/// Opening ──▶ Live          candles and cache: state is built from the log, then shown once
/// Replaying ──▶ Live        `from` or `resume`: rows are shown; then the marker
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Replaying,
    Live,
}

/// One stream of a selection.
struct Leg {
    info: StreamInfo,
    places: Vec<Place>,
    /// What its row frames begin with.
    opening: String,
}

/// A frame that is being written: rows of one stream.
#[derive(Default)]
struct OpenFrame {
    leg: usize,
    /// Empty before its first row.
    text: String,
}

struct Place {
    seat: Seat,
    at: Offset,
    /// The log's end when the client came.
    edge: Offset,
}

pub enum Start {
    Live,
    From(EventTime),
    Resume(Token),
}

pub struct Spec {
    pub id: String,
    pub streams: Vec<StreamInfo>,
    /// Keys; none: all.
    pub symbols: Option<Vec<String>>,
    /// Debezium's letters, of changes; none: all.
    pub ops: Option<Vec<String>>,
    pub form: Form,
    pub start: Start,
    /// Rows with earlier event times are left out, for the whole life of the selection.
    pub from: Option<EventTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    CaughtUp,
    More,
    /// Others are further behind: nothing before they have come up.
    Waits,
}

#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The client was so slow that the log let its next rows go.
    #[error("rows of stream '{0}' that were still to be sent are no longer kept")]
    Gone(String),
    #[error(transparent)]
    Port(#[from] PortError),
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the resume token is for {token}, not for {asked}: subscribe to the same streams, or without it")]
    OtherStreams { token: String, asked: String },
    #[error("the resume token lies ahead of stream '{0}': it is not from this log. Subscribe without it")]
    Ahead(String),
    #[error("stream '{0}' cannot be folded into candles: it has no decimal columns 'price' and 'quantity'")]
    NoCandles(String),
    #[error(transparent)]
    Port(#[from] PortError),
}

impl Selection {
    /// The selection, and whether nothing is missing before its first row.
    pub fn open(hub: &Hub, spec: Spec) -> Result<(Self, bool), OpenError> {
        let filter = Filter::new(hub, spec.symbols.as_deref(), spec.ops, spec.from);
        let mut legs = Vec::with_capacity(spec.streams.len());
        for info in spec.streams {
            let places = hub.seats(&info).into_iter().map(|seat| {
                let end = hub.bounds(&seat.tail)?.next;
                Ok(Place { seat, at: end, edge: end })
            });
            let places = places.collect::<Result<Vec<_>, PortError>>()?;
            let opening = head(&info, &spec.id) + r#","rows":["#;
            legs.push(Leg { info, places, opening });
        }
        let order = legs.iter().enumerate().flat_map(|(l, leg)| (0..leg.places.len()).map(move |p| (l, p))).collect();
        let (phase, latest) = (Phase::Live, Latest::default());
        let mut selection = Self {
            id: spec.id,
            filter,
            form: spec.form,
            legs,
            order,
            turn: 0,
            phase,
            latest,
            candles: None,
            audience: None,
            is_waiting: false,
            is_behind: false,
        };
        let recovered = selection.place(hub, spec.start)?;
        if selection.form == Form::Stream {
            selection.audience = Some(hub.audiences().join(selection.wish()));
        }
        Ok((selection, recovered))
    }

    fn place(&mut self, hub: &Hub, start: Start) -> Result<bool, OpenError> {
        let recovered = match (self.form, start) {
            (Form::Candles { tick_seconds, .. }, Start::From(time)) => {
                self.phase = Phase::Replaying;
                // A candle is shown whole or not at all.
                let open = align(time.micros(), tick_seconds);
                self.filter.from = Some(open);
                self.place_at_time(hub, EventTime(open))?
            }
            (_, Start::From(time)) => {
                self.phase = Phase::Replaying;
                self.place_at_time(hub, time)?
            }
            (Form::Stream, Start::Live) => true,
            (Form::Stream, Start::Resume(token)) => {
                self.phase = Phase::Replaying;
                self.place_at_token(hub, &token)?
            }
            (Form::Cache, _) => {
                self.phase = Phase::Opening;
                for place in self.legs.iter_mut().flat_map(|l| &mut l.places) {
                    let first = hub.bounds(&place.seat.tail)?.first;
                    place.at = first.max(Offset(place.edge.0.saturating_sub(LATEST_ROWS)));
                }
                true
            }
            (Form::Candles { tick_seconds, .. }, _) => {
                self.phase = Phase::Opening;
                let newest = self.newest(hub)?;
                let open = newest.map(|t| align(t, tick_seconds));
                self.filter.from = open;
                if let Some(open) = open { self.place_at_time(hub, EventTime(open))? } else { true }
            }
        };
        if let Form::Candles { tick_seconds, simple } = self.form {
            for leg in &self.legs {
                let id = (!simple).then(|| self.id.clone());
                let candles = Candles::new(&leg.info.schema, tick_seconds, self.filter.from.unwrap_or(i64::MIN), id);
                self.candles = Some(candles.ok_or_else(|| OpenError::NoCandles(leg.info.schema.stream.to_string()))?);
            }
        }
        Ok(recovered)
    }

    /// The newest event time among the last rows of each partition.
    fn newest(&self, hub: &Hub) -> Result<Option<i64>, PortError> {
        const LAST_ROWS: u64 = 256;
        let mut found = None;
        for place in self.legs.iter().flat_map(|l| &l.places) {
            let from = hub.bounds(&place.seat.tail)?.first.max(Offset(place.edge.0.saturating_sub(LAST_ROWS)));
            if from < place.edge {
                let rows =
                    hub.feed().read(&place.seat.tail.topic, place.seat.tail.partition, ReadFrom::Offset(from), LAST_ROWS as usize)?;
                found = found.max(newest(&rows));
            }
        }
        Ok(found)
    }

    /// True when the log reaches back to `time`: it has lost no row, or still has one from before.
    fn place_at_time(&mut self, hub: &Hub, time: EventTime) -> Result<bool, PortError> {
        let mut is_whole = true;
        for place in self.legs.iter_mut().flat_map(|l| &mut l.places) {
            let first = hub.bounds(&place.seat.tail)?.first;
            place.at = hub.offset_at(&place.seat.tail, time)?.max(first).min(place.edge);
            if place.at == first && first > Offset::ZERO && first < place.edge {
                let row = hub.feed().read(&place.seat.tail.topic, place.seat.tail.partition, ReadFrom::Offset(first), 1)?;
                is_whole &= newest(&row).is_some_and(|t| t < time.micros());
            }
        }
        Ok(is_whole)
    }

    /// False (and placed at the end) when rows behind the token are gone, or the log is another one.
    fn place_at_token(&mut self, hub: &Hub, token: &Token) -> Result<bool, OpenError> {
        let asked: Vec<&str> = self.legs.iter().map(|l| l.info.schema.stream.as_str()).collect();
        if token.streams.len() != asked.len() || asked.iter().any(|s| !token.streams.contains_key(*s)) {
            let said = token.streams.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(OpenError::OtherStreams { token: said, asked: asked.join(", ") });
        }
        if token.epoch != hub.feed().epoch() {
            return Ok(false);
        }
        let mut starts = Vec::new();
        for leg in &self.legs {
            let name = leg.info.schema.stream.as_str();
            let offsets = &token.streams[name];
            for (p, place) in leg.places.iter().enumerate() {
                // A partition that the token does not know has come since, so all of its rows are new.
                let at = offsets.get(p).copied().unwrap_or(Offset::ZERO);
                if at > place.edge {
                    return Err(OpenError::Ahead(name.to_owned()));
                }
                if at < hub.bounds(&place.seat.tail)?.first {
                    return Ok(false);
                }
                starts.push(at);
            }
        }
        self.legs.iter_mut().flat_map(|l| &mut l.places).zip(starts).for_each(|(place, at)| place.at = at);
        Ok(true)
    }

    pub fn streams(&self) -> impl Iterator<Item = &str> {
        self.legs.iter().map(|l| l.info.schema.stream.as_str())
    }

    /// Rows are still being caught up, which may take as long as it takes.
    pub fn is_replaying(&self) -> bool {
        self.phase != Phase::Live
    }

    /// Where to resume.
    pub fn token(&self, hub: &Hub) -> Token {
        let offsets = |leg: &Leg| leg.places.iter().map(|p| p.at).collect();
        let streams: BTreeMap<_, _> = self.legs.iter().map(|l| (l.info.schema.stream.to_string(), offsets(l))).collect();
        Token { epoch: hub.feed().epoch().to_owned(), streams }
    }

    /// All that its frames depend on, but for the place in the log.
    fn wish(&self) -> String {
        let mut wish = String::new();
        self.legs.iter().for_each(|leg| wish.push_str(&leg.opening));
        let _ = write!(wish, "{:?} {:?} {:?}", self.filter.symbols(), self.filter.ops(), self.filter.from);
        wish
    }

    /// Appends frames until `bytes_max` is reached or nothing is left. What others of the same audience were given from this place on is
    /// given again.
    pub fn pull(&mut self, hub: &Hub, turn: &Turn, bytes_max: usize, out: &mut Vec<Utf8Bytes>) -> Result<Pulled, PullError> {
        let pulled = self.pull_shared(hub, turn, bytes_max, out)?;
        let (was_behind, places) = (self.is_behind, self.legs.iter().flat_map(|leg| &leg.places));
        self.is_behind = pulled != Pulled::CaughtUp;
        if self.is_behind {
            places.for_each(|place| place.seat.note_behind(place.at, turn));
        } else if was_behind {
            places.for_each(|place| place.seat.note_caught_up());
        }
        Ok(pulled)
    }

    fn pull_shared(&mut self, hub: &Hub, turn: &Turn, bytes_max: usize, out: &mut Vec<Utf8Bytes>) -> Result<Pulled, PullError> {
        // One other at least, who keeps it alive as well.
        let audience = self.audience.clone().filter(|audience| Arc::strong_count(audience) > 2 && self.phase == Phase::Live);
        let Some(audience) = audience else { return self.pull_alone(hub, turn, bytes_max, out) };
        let mut shown = audience.shown();
        while let Some(found) = shown.iter().find(|shown| self.stands_at(&shown.from)) {
            out.extend(found.frames.iter().cloned());
            self.move_to(&found.to);
            if found.tick == turn.tick {
                return Ok(Pulled::CaughtUp);
            }
            if bytes_of(out) >= bytes_max {
                return Ok(Pulled::More);
            }
        }
        self.pull_for(&audience, &mut shown, hub, turn, bytes_max, out)
    }

    /// Pulls, and remembers it for the audience.
    fn pull_for(
        &mut self,
        audience: &Audience,
        shown: &mut VecDeque<Shown>,
        hub: &Hub,
        turn: &Turn,
        bytes_max: usize,
        out: &mut Vec<Utf8Bytes>,
    ) -> Result<Pulled, PullError> {
        let (from, n_before) = (self.places(), out.len());
        let pulled = self.pull_alone(hub, turn, bytes_max, out)?;
        if pulled == Pulled::CaughtUp {
            if self.stands_at(&from) {
                shown.iter_mut().filter(|shown| shown.to == from).for_each(|shown| shown.tick = turn.tick);
            } else {
                audience.remember(shown, Shown { from, to: self.places(), tick: turn.tick, frames: out[n_before..].into() });
            }
        }
        Ok(pulled)
    }

    fn pull_alone(&mut self, hub: &Hub, turn: &Turn, bytes_max: usize, out: &mut Vec<Utf8Bytes>) -> Result<Pulled, PullError> {
        let mut frames = Vec::new();
        let pulled = self.pull_rows(hub, turn, bytes_max.saturating_sub(bytes_of(out)), &mut frames);
        // What was read before an error is part of the cursor.
        out.extend(frames.into_iter().map(Utf8Bytes::from));
        pulled
    }

    fn places(&self) -> Box<[Offset]> {
        self.legs.iter().flat_map(|leg| &leg.places).map(|place| place.at).collect()
    }

    fn stands_at(&self, places: &[Offset]) -> bool {
        self.legs.iter().flat_map(|leg| &leg.places).map(|place| place.at).eq(places.iter().copied())
    }

    fn move_to(&mut self, places: &[Offset]) {
        self.legs.iter_mut().flat_map(|leg| &mut leg.places).zip(places).for_each(|(place, at)| place.at = *at);
    }

    /// Writes frames until `bytes_max` is reached or nothing is left.
    fn pull_rows(&mut self, hub: &Hub, turn: &Turn, bytes_max: usize, out: &mut Vec<String>) -> Result<Pulled, PullError> {
        let (mut n_rows, mut open) = (0, OpenFrame::default());
        self.is_waiting = false;
        let pulled = loop {
            let n = match self.pass(hub, turn, bytes_max, &mut open, out) {
                Ok(n) => n,
                Err(e) => {
                    // The places have moved over these rows already.
                    self.close_frame(hub, &mut open, out);
                    return Err(e);
                }
            };
            n_rows += n;
            let is_full = n_rows >= PULL_ROWS_MAX || open.text.len() + bytes_of(out) >= bytes_max;
            if n == 0 || is_full || self.phase != Phase::Live {
                self.close_frame(hub, &mut open, out);
            }
            self.advance_phase(out);
            if n == 0 {
                break if self.is_waiting { Pulled::Waits } else { Pulled::CaughtUp };
            }
            if is_full {
                break Pulled::More;
            }
        };
        if self.phase != Phase::Opening {
            self.show(out);
        }
        Ok(pulled)
    }

    /// One chunk of each partition, from where the last pass ended; the number of rows looked at.
    fn pass(&mut self, hub: &Hub, turn: &Turn, bytes_max: usize, open: &mut OpenFrame, out: &mut Vec<String>) -> Result<usize, PullError> {
        let mut n_rows = 0;
        for _ in 0..self.order.len() {
            let (leg, place) = self.order[self.turn];
            if leg != open.leg {
                self.close_frame(hub, open, out);
                open.leg = leg;
            }
            if let Some(chunk) = self.step(hub, leg, place, turn)? {
                n_rows += self.take(hub, leg, place, &chunk, open, out);
            }
            self.turn = (self.turn + 1) % self.order.len();
            if open.text.len() + bytes_of(out) >= bytes_max {
                break;
            }
        }
        Ok(n_rows)
    }

    /// Moves a place over a chunk and takes what the filter wants; the number of rows looked at.
    fn take(&mut self, hub: &Hub, leg: usize, place: usize, chunk: &Arc<Chunk>, open: &mut OpenFrame, out: &mut Vec<String>) -> usize {
        let range = chunk.range_from(self.legs[leg].places[place].at);
        let n_rows = if self.form == Form::Stream { FRAME_ROWS } else { CHUNK_ROWS_MAX };
        for start in range.clone().step_by(n_rows) {
            let end = range.end.min(start + n_rows);
            self.take_part(leg, place, chunk, start..end, &mut open.text, out);
            if open.text.len() >= FRAME_BYTES {
                self.close_frame(hub, open, out);
            }
        }
        range.len()
    }

    fn take_part(&mut self, leg: usize, place: usize, chunk: &Arc<Chunk>, part: Range<usize>, text: &mut String, out: &mut Vec<String>) {
        let Leg { places, opening, .. } = &mut self.legs[leg];
        places[place].at = chunk.base().plus(part.end as u64);
        match self.form {
            Form::Stream => self.filter.pick(chunk, part, |row| join(text, opening, chunk.json(row))),
            Form::Cache => self.filter.pick(chunk, part, |row| self.latest.add(leg, chunk, row)),
            Form::Candles { .. } => {
                let (mut picked, mut let_go) = (Vec::new(), Vec::new());
                self.filter.pick(chunk, part, |row| picked.push(row));
                self.candles.as_mut().expect("made when opened").fold(chunk, picked.into_iter(), &mut let_go);
                if self.phase != Phase::Opening {
                    out.append(&mut let_go);
                }
            }
        }
    }

    fn close_frame(&self, hub: &Hub, open: &mut OpenFrame, out: &mut Vec<String>) {
        let mut text = std::mem::take(&mut open.text);
        if !text.is_empty() {
            text.push_str(r#"],"cursor":""#);
            text.push_str(&self.token(hub).encode());
            text.push_str("\"}");
            out.push(text);
        }
    }

    fn step(&mut self, hub: &Hub, leg: usize, place: usize, turn: &Turn) -> Result<Option<Arc<Chunk>>, PullError> {
        let place = &self.legs[leg].places[place];
        match hub.step(&place.seat, place.at, turn)? {
            Step::Rows(chunk) => Ok(Some(chunk)),
            Step::End => Ok(None),
            Step::Wait => {
                self.is_waiting = true;
                Ok(None)
            }
            Step::Gone => Err(PullError::Gone(place.seat.tail.topic.to_string())),
        }
    }

    fn advance_phase(&mut self, out: &mut Vec<String>) {
        if self.phase == Phase::Live || self.legs.iter().flat_map(|l| &l.places).any(|p| p.at < p.edge) {
            return;
        }
        match self.phase {
            Phase::Opening => {
                if let Some(candles) = &mut self.candles {
                    candles.forget_all_but_last();
                }
                self.latest.is_snapshot = true;
            }
            _ => {
                self.show(out);
                let mut marker = String::from(r#"{"type":"replay_completed","id":"#);
                json::write_text(&mut marker, &self.id);
                marker.push('}');
                out.push(marker);
            }
        }
        self.phase = Phase::Live;
        if self.form == Form::Cache || matches!(self.form, Form::Candles { .. }) {
            self.show(out);
        }
    }

    /// Writes what has gathered in forms that gather.
    fn show(&mut self, out: &mut Vec<String>) {
        if let Some(candles) = &mut self.candles {
            candles.show(out);
        }
        let legs = &self.legs;
        let id = &self.id;
        self.latest.show(FRAME_BYTES, out, |leg| head(&legs[leg].info, id));
    }
}

fn align(time_us: i64, tick_seconds: u32) -> i64 {
    time_us - time_us.rem_euclid(i64::from(tick_seconds) * 1_000_000)
}

fn bytes_of(frames: &[impl Deref<Target = str>]) -> usize {
    frames.iter().map(|frame| frame.len()).sum()
}

fn join(text: &mut String, opening: &str, row: &str) {
    /// A frame of a few rows and its cursor.
    const FRAME_GUESS_BYTES: usize = 1 << 10;
    if text.is_empty() {
        text.reserve(FRAME_GUESS_BYTES);
        text.push_str(opening);
    } else {
        text.push(',');
    }
    text.push_str(row);
}

/// `{"type":"trades","id":"…","stream":"trades"`
fn head(info: &StreamInfo, id: &str) -> String {
    let kind = match info.schema.kind {
        StreamKind::Trade => "trades",
        StreamKind::Bar => "bars",
        StreamKind::Alert => "alerts",
        StreamKind::Change => "changes",
        StreamKind::Plain => "rows",
    };
    let mut out = format!(r#"{{"type":"{kind}","id":"#);
    json::write_text(&mut out, id);
    out.push_str(r#","stream":"#);
    json::write_text(&mut out, info.schema.stream.as_str());
    out
}
