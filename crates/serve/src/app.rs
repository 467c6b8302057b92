//! What every request needs, in one place.

use crate::auth::Keyring;
use crate::config::{Limits, ServeConfig};
use crate::live::hub::Hub;
use crate::live::socket;
use crate::ports::{Ports, StreamInfo};
use mulgil_model::ids::Topic;
use mulgil_model::schema::StreamKind;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

pub struct App {
    pub ports: Ports,
    pub limits: Limits,
    pub hub: Hub,
    pub keys: Keyring,
    pub ws_slots: Arc<Semaphore>,
    pub sse_slots: Arc<Semaphore>,
    pub request_slots: Arc<Semaphore>,
    /// Bytes of bodies that may be held at once.
    pub body_room: Arc<Semaphore>,
    /// Turns true when the server stops.
    pub stop: watch::Receiver<bool>,
    trades: Option<Topic>,
    n_live: AtomicUsize,
    began: Instant,
    beat: Mutex<Beat>,
}

/// Clients that rest look for rows at the same instants and up to the same commit: what one has read and written is then just what the
/// others want.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// The feed's tick up to which rows are looked for.
    pub tick: u64,
    pub ends: Instant,
}

impl App {
    pub fn new(config: &ServeConfig, keys: Keyring, ports: Ports, stop: watch::Receiver<bool>) -> Self {
        let (limits, began) = (config.limits.clone(), Instant::now());
        Self {
            hub: Hub::new(Arc::clone(&ports.feed), limits.ring_bytes_max),
            ws_slots: Arc::new(Semaphore::new(limits.ws_clients_max)),
            sse_slots: Arc::new(Semaphore::new(limits.sse_clients_max)),
            request_slots: Arc::new(Semaphore::new(limits.requests_max)),
            body_room: Arc::new(Semaphore::new(body_room_max(&limits))),
            keys,
            stop,
            trades: config.trades.clone(),
            n_live: AtomicUsize::new(0),
            began,
            beat: Mutex::new(Beat { tick: 0, ends: began }),
            limits,
            ports,
        }
    }

    pub fn body_room_max(&self) -> usize {
        body_room_max(&self.limits)
    }

    pub fn now(&self) -> i64 {
        (self.ports.clock)()
    }

    /// The trade stream that `/api/v1/stock` speaks of.
    pub fn trades(&self) -> Option<StreamInfo> {
        let fits = |s: &StreamInfo| match &self.trades {
            Some(name) => s.schema.stream == *name,
            None => s.schema.kind == StreamKind::Trade,
        };
        self.ports.feed.streams().into_iter().find(fits)
    }

    pub fn alert_streams(&self) -> Vec<StreamInfo> {
        self.ports.feed.streams().into_iter().filter(|s| s.schema.kind == StreamKind::Alert).collect()
    }

    /// Counts a live client, for the pace of all, until dropped.
    pub fn live_client(self: &Arc<Self>) -> LiveClient {
        self.n_live.fetch_add(1, Ordering::Relaxed);
        LiveClient(Arc::clone(self))
    }

    pub fn pace(&self) -> Duration {
        socket::pace(self.n_live.load(Ordering::Relaxed))
    }

    /// The beat of `now`; `latest` is the feed's tick, which whoever comes first in a beat makes the beat's.
    pub fn beat(&self, now: Instant, latest: u64) -> Beat {
        let pace = self.pace();
        if pace.is_zero() {
            return Beat { tick: latest, ends: now };
        }
        let mut beat = self.beat.lock();
        if now >= beat.ends {
            let into = now.duration_since(self.began).as_micros() % pace.as_micros();
            *beat = Beat { tick: latest, ends: now + pace.saturating_sub(Duration::from_micros(into as u64)) };
        }
        *beat
    }
}

/// Never less than one whole body.
fn body_room_max(limits: &Limits) -> usize {
    limits.bodies_bytes_max.max(limits.body_bytes_max)
}

pub struct LiveClient(Arc<App>);

impl Drop for LiveClient {
    fn drop(&mut self) {
        self.0.n_live.fetch_sub(1, Ordering::Relaxed);
    }
}
