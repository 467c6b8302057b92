//! Frames on their way to one client: written as fast as the socket takes them, and never waited for.

use axum::extract::ws::Message;
use futures::{Sink, Stream};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

pub struct Outbox<S> {
    sink: S,
    queue: VecDeque<Message>,
    bytes: usize,
    is_unflushed: bool,
    /// Since when there is something that the socket has not taken.
    waiting_since: Option<Instant>,
    /// Since when it takes nothing, and how long it took nothing before.
    full_since: Option<Instant>,
    full_for: Duration,
    n_sent: u64,
}

impl<S: Sink<Message> + Unpin> Outbox<S> {
    pub fn new(sink: S) -> Self {
        Self {
            sink,
            queue: VecDeque::new(),
            bytes: 0,
            is_unflushed: false,
            waiting_since: None,
            full_since: None,
            full_for: Duration::ZERO,
            n_sent: 0,
        }
    }

    pub fn push(&mut self, message: Message) {
        self.bytes += size(&message);
        self.queue.push_back(message);
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.is_unflushed
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the client says.
    pub fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>>
    where
        S: Stream,
    {
        Pin::new(&mut self.sink).poll_next(cx)
    }

    /// How long the socket has been unable to take everything.
    pub fn stalled(&self, now: Instant) -> Duration {
        self.waiting_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    /// How long the socket took nothing, all in all.
    pub fn full_for(&self, now: Instant) -> Duration {
        self.full_for + self.full_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }

    pub fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    /// Frames handed to the socket since last asked.
    pub fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.n_sent)
    }

    /// Ready when everything is written. Dropping the poll loses nothing.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, progress_counts: bool) -> Poll<Result<(), S::Error>> {
        let written = self.poll_all(cx, progress_counts);
        if written.is_pending() {
            self.full_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.full_since.take() {
            self.full_for += since.elapsed();
        }
        written
    }

    fn poll_all(&mut self, cx: &mut Context<'_>, progress_counts: bool) -> Poll<Result<(), S::Error>> {
        while !self.queue.is_empty() {
            ready!(Pin::new(&mut self.sink).poll_ready(cx))?;
            if let Some(message) = self.queue.pop_front() {
                self.bytes -= size(&message);
                self.is_unflushed = true;
                self.n_sent += 1;
                Pin::new(&mut self.sink).start_send(message)?;
            }
            if progress_counts {
                self.waiting_since = Some(Instant::now());
            }
        }
        ready!(Pin::new(&mut self.sink).poll_flush(cx))?;
        self.is_unflushed = false;
        self.waiting_since = None;
        Poll::Ready(Ok(()))
    }
}

fn size(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}
