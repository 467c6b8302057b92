//! One WebSocket, from the upgrade to the close.
//!
//! A single loop: it reads what the client says, writes what waits, and pulls new rows only when nothing waits. So a client's memory is
//! one pull, and a slow client falls behind in the log instead of in our memory.

use super::outbox::Outbox;
use super::request::{self, Context, Refusal, Request};
use super::scan::{Turn, WAIT};
use super::selection::{Form, OpenError, PullError, Pulled, Selection, Spec};
use crate::app::{App, Beat};
use crate::measure;
use crate::ports::{PortError, PortErrorKind};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::FutureExt;
use futures::task::AtomicWaker;
use mulgil_model::json;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as Waking, Poll, Wake, Waker};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

/// Why the server ends a socket: WebSocket close codes, RFC 6455 section 7.4.1.
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;
const INTERNAL: u16 = 1011;
/// "Try again later".
const SLOW: u16 = 1013;
/// How long a closing socket may take to say goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

pub async fn run(app: Arc<App>, socket: WebSocket) {
    let _paced = app.live_client();
    let ticks = app.ports.feed.changed();
    let mut client = Client::new(Arc::clone(&app), Outbox::new(socket), ticks);
    // Waiting for these begins once, not anew with every frame: a busy socket would spend more on that than on its rows.
    let (stopping, time, rest) = (stopping(app.stop.clone()), sleep_until(client.due()), sleep_until(client.next_pull));
    let (knock, knocker) = Knock::new();
    let commit = next_commit(client.ticks.clone());
    tokio::pin!(stopping, time, rest, commit);
    let end = loop {
        if set(time.as_mut(), client.due()) {
            knock.note();
        }
        if client.is_resting {
            set(rest.as_mut(), client.next_pull);
        }
        if client.listens() && !client.is_listening {
            commit.set(next_commit(client.ticks.clone()));
            client.is_listening = true;
        }
        let event = poll_fn(|cx| {
            // Rest ends once a beat: it can be first without holding up the others.
            if client.is_resting && rest.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Rested);
            }
            if let Poll::Ready(event) = client.poll_write(cx) {
                return Poll::Ready(event);
            }
            let seldom = knock.answer(cx, || {
                let mut cx = Waking::from_waker(&knocker);
                if stopping.as_mut().poll(&mut cx).is_ready() {
                    return Poll::Ready(Event::Stop);
                }
                if time.as_mut().poll(&mut cx).is_ready() { Poll::Ready(Event::Due) } else { client.poll_hear(&mut cx) }
            });
            if seldom.is_ready() { seldom } else { client.poll_rows(cx, commit.as_mut()) }
        });
        match event.await {
            Event::Stop => break Some((GOING_AWAY, "the server stops: come again with the last cursor")),
            Event::Heard(message) => {
                if let Some(end) = client.hear(message) {
                    break end;
                }
            }
            Event::Gone => break None,
            Event::Written => client.note_sent(),
            Event::Commit(feed_lives) => client.note_commit(feed_lives),
            Event::Rested => {
                if let ControlFlow::Break(end) = client.go_on() {
                    break end;
                }
                if client.behind.is_some() {
                    // Others are behind as well, and go side by side with this one.
                    tokio::task::yield_now().await;
                }
            }
            Event::Due => {
                if let Some(end) = client.keep_time() {
                    break Some(end);
                }
            }
        }
    };
    client.close(end).await;
}

/// What a socket's loop goes on with.
enum Event {
    Stop,
    Heard(Message),
    /// The client, or the way to it.
    Gone,
    Written,
    /// False: the feed has ended.
    Commit(bool),
    Rested,
    Due,
}

/// Tells whether a task was woken by what seldom happens. A busy socket is woken for every frame, and to ask each time whether the client
/// has said something, or the server stops, would cost more than the frame.
struct Knock {
    task: AtomicWaker,
    is_there: AtomicBool,
}

impl Knock {
    /// Itself, and the waker for what seldom happens. Nothing has been asked yet, so it begins with a knock.
    fn new() -> (Arc<Self>, Waker) {
        let knock = Arc::new(Self { task: AtomicWaker::new(), is_there: AtomicBool::new(true) });
        (Arc::clone(&knock), Waker::from(knock))
    }

    fn note(&self) {
        self.is_there.store(true, Ordering::SeqCst);
    }

    /// Asks, after a knock, until there is no answer.
    fn answer(&self, cx: &Waking<'_>, ask: impl FnOnce() -> Poll<Event>) -> Poll<Event> {
        self.task.register(cx.waker());
        if !self.is_there.swap(false, Ordering::SeqCst) {
            return Poll::Pending;
        }
        let answer = ask();
        if answer.is_ready() {
            self.note();
        }
        answer
    }
}

impl Wake for Knock {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.note();
        self.task.wake();
    }
}

async fn stopping(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopping| *stopping).await;
}

async fn next_commit(mut ticks: watch::Receiver<u64>) -> bool {
    ticks.changed().await.is_ok()
}

/// True when it was another time before.
fn set(timer: Pin<&mut Sleep>, at: Instant) -> bool {
    let is_other = timer.deadline() != at;
    if is_other {
        timer.reset(at);
    }
    is_other
}

/// Close code and reason; None: the client is gone.
type End = (u16, &'static str);

struct Client {
    app: Arc<App>,
    outbox: Outbox<WebSocket>,
    gauge: measure::WsClient,
    selections: Vec<Selection>,
    /// The selection that is pulled next, so that a busy one does not starve the others.
    turn: usize,
    ticks: watch::Receiver<u64>,
    has_ticks: bool,
    /// Somebody waits for the next tick already.
    is_listening: bool,
    /// There may be rows that were not pulled.
    is_pending: bool,
    is_replaying: bool,
    next_pull: Instant,
    /// When it pulled last, and how long its socket had been full until then.
    last_pull: (Instant, Duration),
    /// It has just pulled and does not listen before `next_pull`: with many clients and commits, being woken costs more than the rows.
    is_resting: bool,
    behind: Option<Behind>,
    is_warned: bool,
    n_bad: u32,
    n_ids: u64,
    next_ping: Instant,
    pinged: Option<Instant>,
}

/// The client has not reached the end of the log since then.
struct Behind {
    since: Instant,
    /// How long its socket had been full until then.
    full_before: Duration,
}

impl Client {
    fn new(app: Arc<App>, outbox: Outbox<WebSocket>, ticks: watch::Receiver<u64>) -> Self {
        let now = Instant::now();
        let next_ping = now + app.limits.ws_ping_every;
        Self {
            app,
            outbox,
            gauge: measure::WsClient::new(),
            selections: Vec::new(),
            turn: 0,
            ticks,
            has_ticks: true,
            is_listening: false,
            is_pending: false,
            is_replaying: false,
            next_pull: now,
            last_pull: (now, Duration::ZERO),
            is_resting: false,
            behind: None,
            is_warned: false,
            n_bad: 0,
            n_ids: 0,
            next_ping,
            pinged: None,
        }
    }

    fn can_pull(&self) -> bool {
        self.is_pending && !self.selections.is_empty() && self.outbox.is_empty()
    }

    fn listens(&self) -> bool {
        self.has_ticks && !self.is_pending && !self.is_resting && !self.selections.is_empty()
    }

    /// Before anything is heard: a client that never stops talking cannot hold up its own answers.
    fn poll_write(&mut self, cx: &mut Waking<'_>) -> Poll<Event> {
        if self.outbox.is_empty() {
            return Poll::Pending;
        }
        self.outbox.poll_write(cx, self.is_replaying).map(|written| if written.is_ok() { Event::Written } else { Event::Gone })
    }

    fn poll_hear(&mut self, cx: &mut Waking<'_>) -> Poll<Event> {
        match self.outbox.poll_hear(cx) {
            Poll::Ready(Some(Ok(message))) => Poll::Ready(Event::Heard(message)),
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(Event::Gone),
            Poll::Pending => Poll::Pending,
        }
    }

    /// A client that does not rest pulls at once: a timer, even one that is over, answers with the next millisecond.
    fn poll_rows(&mut self, cx: &mut Waking<'_>, commit: Pin<&mut impl Future<Output = bool>>) -> Poll<Event> {
        if self.listens()
            && let Poll::Ready(feed_lives) = commit.poll(cx)
        {
            self.is_listening = false;
            return Poll::Ready(Event::Commit(feed_lives));
        }
        if !self.is_resting && self.can_pull() { Poll::Ready(Event::Rested) } else { Poll::Pending }
    }

    /// Pulls and writes what the socket takes at once.
    fn go_on(&mut self) -> ControlFlow<Option<End>> {
        self.is_resting = false;
        self.note_missed();
        if self.can_pull() {
            if let Some(end) = self.pull() {
                return ControlFlow::Break(Some(end));
            }
            if !self.write_now() {
                return ControlFlow::Break(None);
            }
        }
        ControlFlow::Continue(())
    }

    /// Commits that came while it rested.
    fn note_missed(&mut self) {
        match self.ticks.has_changed() {
            Ok(false) => {}
            changed => self.note_commit(changed.is_ok()),
        }
    }

    fn note_commit(&mut self, feed_lives: bool) {
        self.has_ticks = feed_lives;
        self.is_pending = true;
        if !self.outbox.is_empty() {
            self.note_behind(Instant::now());
        }
    }

    fn note_behind(&mut self, now: Instant) {
        let outbox = &self.outbox;
        self.behind.get_or_insert_with(|| Behind { since: now, full_before: outbox.full_for(now) });
    }

    /// How long the client has been behind by its own doing. One whose socket was full for less than half of that time waits for the server, not
    /// the server for it.
    fn behind_for(&self, now: Instant) -> Duration {
        let Some(Behind { since, full_before }) = self.behind else { return Duration::ZERO };
        let (all, full) = (now.duration_since(since), self.outbox.full_for(now).saturating_sub(full_before));
        if 2 * full >= all { all } else { Duration::ZERO }
    }

    /// Writes what the socket takes without waiting for it; false when it is broken.
    fn write_now(&mut self) -> bool {
        let written = poll_fn(|cx| self.outbox.poll_write(cx, self.is_replaying)).now_or_never();
        self.note_sent();
        !matches!(written, Some(Err(_)))
    }

    fn note_sent(&mut self) {
        self.gauge.sent(self.outbox.take_sent());
        self.gauge.buffered(self.outbox.bytes());
    }

    /// Answers a message; Some ends the socket (Some(None): the client closed).
    fn hear(&mut self, message: Message) -> Option<Option<End>> {
        self.pinged = None;
        let text = match message {
            Message::Text(text) => text,
            Message::Close(_) => return Some(None),
            Message::Ping(_) | Message::Pong(_) => return None,
            Message::Binary(_) => {
                return self.refuse(&Refusal::new("bad_message", "messages are text frames with JSON"), true).map(Some);
            }
        };
        // Answers wait behind rows: a client that asks without reading is held like any other.
        if self.outbox.bytes() > self.app.limits.ws_buffer_bytes_max {
            return Some(Some((POLICY, "too many messages without reading the answers")));
        }
        let app = Arc::clone(&self.app);
        let context = Context { limits: &app.limits, stream: &|name| app.hub.stream(name), trades: &|| app.trades() };
        let answered = match request::read(text.as_str(), &context) {
            Ok(Request::Subscribe(spec)) => self.subscribe(*spec),
            Ok(Request::Watch(spec)) => self.select(*spec).map(drop),
            Ok(Request::Unsubscribe { id }) => self.unsubscribe(&id),
            Ok(Request::Ping { id }) => {
                self.say(frame("pong", id.as_deref(), ""));
                Ok(())
            }
            Err(refusal) => return self.refuse(&refusal, refusal.code == "bad_message").map(Some),
        };
        answered.err().and_then(|refusal| self.refuse(&refusal, false)).map(Some)
    }

    fn subscribe(&mut self, mut spec: Spec) -> Result<(), Refusal> {
        if spec.id.is_empty() {
            self.n_ids += 1;
            spec.id = format!("s{}", self.n_ids);
        }
        let id = spec.id.clone();
        let (recovered, cursor) = self.select(spec)?;
        let mut rest = String::from(r#","subscriptions":"#);
        write_list(&mut rest, &self.selections);
        rest.push_str(r#","epoch":"#);
        json::write_text(&mut rest, self.app.ports.feed.epoch());
        rest.push_str(&format!(r#","recovered":{recovered}"#));
        if let Some(cursor) = cursor {
            rest.push_str(&format!(r#","cursor":"{cursor}""#));
        }
        self.say(frame("subscribed", Some(&id), &rest));
        Ok(())
    }

    /// Opens the selection, in the place of one with the same id. Its cursor is where it begins.
    fn select(&mut self, spec: Spec) -> Result<(bool, Option<String>), Refusal> {
        let id = spec.id.clone();
        let with_id = |refusal: Refusal| Refusal { id: Some(id.clone()), ..refusal };
        let others = self.selections.iter().filter(|s| s.id != id).count();
        if others >= self.app.limits.ws_subscriptions_max {
            let message = format!(
                "a socket has at most {} subscriptions: unsubscribe from one, or open another socket",
                self.app.limits.ws_subscriptions_max
            );
            return Err(with_id(Refusal::new("too_many_subscriptions", message)));
        }
        let (selection, recovered) = Selection::open(&self.app.hub, spec).map_err(|e| with_id(open_refusal(&e)))?;
        self.selections.retain(|s| s.id != id);
        let cursor = (selection.form == Form::Stream).then(|| selection.token(&self.app.hub).encode());
        self.selections.push(selection);
        self.gauge.subscribed(self.selections.len());
        self.is_replaying = true;
        self.is_pending = true;
        Ok((recovered, cursor))
    }

    fn unsubscribe(&mut self, id: &str) -> Result<(), Refusal> {
        let n = self.selections.len();
        self.selections.retain(|s| s.id != id);
        if self.selections.len() == n {
            return Err(Refusal { id: Some(id.to_owned()), ..Refusal::new("unknown_id", format!("there is no subscription '{id}'")) });
        }
        self.gauge.subscribed(n - 1);
        let mut rest = String::from(r#","subscriptions":"#);
        write_list(&mut rest, &self.selections);
        self.say(frame("unsubscribed", Some(id), &rest));
        Ok(())
    }

    /// Tells what was wrong; the socket ends after too many messages that made no sense at all.
    fn refuse(&mut self, refusal: &Refusal, is_garbage: bool) -> Option<End> {
        let mut rest = format!(r#","code":"{}","message":"#, refusal.code);
        json::write_text(&mut rest, &refusal.message);
        self.say(frame("error", refusal.id.as_deref(), &rest));
        self.n_bad += u32::from(is_garbage);
        (self.n_bad >= self.app.limits.ws_bad_messages_max).then_some((POLICY, "too many messages that cannot be read"))
    }

    fn say(&mut self, text: String) {
        self.outbox.push(Message::text(text));
    }

    /// Pulls the selections in turn until about a buffer's worth waits.
    fn pull(&mut self) -> Option<End> {
        let now = Instant::now();
        let latest = *self.ticks.borrow_and_update();
        let Beat { tick, ends } = self.app.beat(now, latest);
        (self.next_pull, self.is_resting) = (ends, ends > now);
        // What it waited for is what it marks as seen now.
        self.is_listening = false;
        let turn = Turn { tick, now, is_held: self.was_held(now) };
        let (mut is_behind, mut waits) = (false, false);
        // Half of the buffer, as the last frame of a pull may go over.
        let bytes_max = self.app.limits.ws_buffer_bytes_max / 2;
        let mut frames = Vec::new();
        for _ in 0..self.selections.len() {
            self.turn = (self.turn + 1) % self.selections.len();
            match self.selections[self.turn].pull(&self.app.hub, &turn, bytes_max, &mut frames) {
                Ok(Pulled::CaughtUp) => {}
                Ok(Pulled::More) => is_behind = true,
                Ok(Pulled::Waits) => waits = true,
                Err(e) => {
                    // What was read before is part of the cursor that is told last.
                    frames.drain(..).for_each(|f| self.outbox.push(Message::Text(f)));
                    return Some(self.pull_failed(&e));
                }
            }
            if frames.iter().map(|f| f.len()).sum::<usize>() >= bytes_max {
                // Whoever was not asked yet is first the next time.
                is_behind = true;
                break;
            }
        }
        self.is_replaying = self.selections.iter().any(Selection::is_replaying);
        // Commits after the beat's are for the next one.
        self.is_pending = is_behind || waits || tick != latest;
        if waits && !is_behind {
            (self.next_pull, self.is_resting) = (ends.max(now + WAIT), true);
        }
        if (is_behind || waits) && !self.is_replaying {
            self.note_behind(now);
        } else {
            self.behind = None;
            self.is_warned = false;
        }
        frames.into_iter().for_each(|f| self.outbox.push(Message::Text(f)));
        None
    }

    /// Since it pulled last, its socket was full more often than not.
    fn was_held(&mut self, now: Instant) -> bool {
        let (pulled, full_before) = std::mem::replace(&mut self.last_pull, (now, self.outbox.full_for(now)));
        2 * (self.last_pull.1 - full_before) > now - pulled
    }

    fn pull_failed(&mut self, error: &PullError) -> End {
        match error {
            PullError::Gone(_) => self.slow("gone", "rows that you had not read are no longer kept"),
            PullError::Port(e) => {
                tracing::warn!(error = %e, "a live client's rows cannot be read");
                (INTERNAL, "the log cannot be read: come again with the last cursor")
            }
        }
    }

    /// When `keep_time` is wanted next.
    fn due(&self) -> Instant {
        let limits = &self.app.limits;
        let mut due = self.pinged.map_or(self.next_ping, |at| self.next_ping.min(at + limits.ws_pong_within));
        let slow_after = if self.is_warned { limits.ws_slow_close } else { limits.ws_slow_warn };
        for since in [self.outbox.waiting_since(), self.behind.as_ref().map(|b| b.since)].into_iter().flatten() {
            due = due.min(since + slow_after);
        }
        due
    }

    /// Heartbeat and slow-reader policy.
    fn keep_time(&mut self) -> Option<End> {
        let now = Instant::now();
        let limits = self.app.limits.clone();
        if self.pinged.is_some_and(|at| now >= at + limits.ws_pong_within) {
            return Some((POLICY, "no answer to a ping"));
        }
        if now >= self.next_ping {
            self.next_ping = now + limits.ws_ping_every;
            self.pinged.get_or_insert(now);
            self.outbox.push(Message::Ping(bytes::Bytes::new()));
            self.tell_cursors();
        }
        let behind_for = self.behind_for(now);
        let slow_for = behind_for.max(self.outbox.stalled(now));
        if slow_for >= limits.ws_slow_close && self.is_warned {
            return Some(self.slow("slow", "you read too slowly: come again with the cursor, or use mode cache"));
        }
        if slow_for >= limits.ws_slow_warn && !self.is_warned {
            self.is_warned = true;
            let rest =
                format!(r#","behind_seconds":{},"closes_after_seconds":{}"#, slow_for.as_secs_f32(), limits.ws_slow_close.as_secs_f32());
            self.say(frame("slow", None, &rest));
        }
        if behind_for.is_zero() && self.behind.take().is_some() {
            // Looked at anew from here on.
            self.note_behind(now);
        }
        None
    }

    /// A quiet selection of a busy stream must not keep a cursor that grows old.
    fn tell_cursors(&mut self) {
        let cursor = |s: &Selection| frame("cursor", Some(&s.id), &format!(r#","cursor":"{}""#, s.token(&self.app.hub).encode()));
        let frames: Vec<String> = self.selections.iter().filter(|s| s.form == Form::Stream).map(cursor).collect();
        frames.into_iter().for_each(|f| self.say(f));
    }

    /// The last words to a slow client: where to resume is told once more, behind what waits already.
    fn slow(&mut self, code: &'static str, reason: &'static str) -> End {
        measure::slow_disconnect();
        let refusal = Refusal::new(code, reason);
        self.refuse(&refusal, false);
        self.tell_cursors();
        (SLOW, reason)
    }

    async fn close(mut self, end: Option<End>) {
        let Some((code, reason)) = end else { return };
        self.outbox.push(Message::Close(Some(CloseFrame { code, reason: reason.into() })));
        let written = poll_fn(|cx| self.outbox.poll_write(cx, false)).map(drop);
        let _ = tokio::time::timeout(CLOSE_WITHIN, written).await;
        self.note_sent();
    }
}

fn open_refusal(error: &OpenError) -> Refusal {
    let code = match error {
        OpenError::OtherStreams { .. } | OpenError::Ahead(_) => "bad_token",
        OpenError::NoCandles(_) => "bad_mode",
        OpenError::Port(PortError { kind: PortErrorKind::NotFound, .. }) => "unknown_stream",
        OpenError::Port(e) => {
            tracing::warn!(error = %e, "a subscription cannot be opened");
            return Refusal::new("unavailable", "the log cannot be read now: try again");
        }
    };
    Refusal::new(code, error.to_string())
}

/// `{"type":kind,"id":id` + rest + `}`
fn frame(kind: &str, id: Option<&str>, rest: &str) -> String {
    let mut out = format!(r#"{{"type":"{kind}""#);
    if let Some(id) = id {
        out.push_str(r#","id":"#);
        json::write_text(&mut out, id);
    }
    out.push_str(rest);
    out.push('}');
    out
}

fn write_list(out: &mut String, selections: &[Selection]) {
    let item = |s: &Selection| {
        let (mode, tick) = match s.form {
            Form::Stream => ("stream", None),
            Form::Cache => ("cache", None),
            Form::Candles { tick_seconds, .. } => ("candles", Some(tick_seconds)),
        };
        let symbols = s.filter.symbols().map_or_else(|| "all".into(), serde_json::Value::from);
        let mut item = serde_json::json!({ "id": s.id, "streams": s.streams().collect::<Vec<_>>(), "symbols": symbols, "mode": mode });
        if let Some(tick) = tick {
            item["tick"] = tick.into();
        }
        if let Some(ops) = s.filter.ops() {
            item["ops"] = ops.into();
        }
        item
    };
    let list: Vec<_> = selections.iter().map(item).collect();
    out.push_str(&serde_json::Value::from(list).to_string());
}

/// How long a client waits between two pulls: the more clients, the more rows each gets at a time. A few are served with every commit,
/// because a timer of milliseconds is longer than the commit itself.
pub fn pace(n_clients: usize) -> Duration {
    const PER_CLIENT: Duration = Duration::from_micros(20);
    const AT_ONCE_MAX: usize = 16;
    if n_clients <= AT_ONCE_MAX {
        return Duration::ZERO;
    }
    let clients = u32::try_from(n_clients).unwrap_or(u32::MAX);
    PER_CLIENT.saturating_mul(clients).clamp(Duration::from_millis(1), Duration::from_millis(40))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_bounded() {
        assert_eq!([0, 16, 17, 100, 1000, 1_000_000].map(|n| pace(n).as_micros()), [0, 0, 1_000, 2_000, 20_000, 40_000]);
    }
}
