//! What a stream does by the clock: heartbeats, words to the server, empty batches, and when a silent server counts as gone. Reads no clock
//! itself.

use std::time::Duration;
use tokio::time::Instant;

/// The server is told this often how far we are, news or not.
pub const STATUS_EVERY: Duration = Duration::from_secs(10);
/// And not more often than this, however many batches became durable.
pub const STATUS_AFTER: Duration = Duration::from_millis(500);
/// A place without changes is given this often.
pub const EMPTY_BATCH_EVERY: Duration = Duration::from_secs(1);
/// The slot is looked after this often.
pub const CARE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Schedule {
    heartbeat: Option<Duration>,
    silence: Duration,
    given_at: Instant,
    heard_at: Instant,
    /// When the server was asked for a sign of life; `None` once it gave one.
    asked_at: Option<Instant>,
    told_at: Instant,
    care_at: Instant,
    beat_at: Instant,
    /// Changes were given since the last heartbeat was due: they move the slot on by themselves.
    is_active: bool,
}

/// How the stream stands when it is asked what is due.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// It has a place behind the one that was given last.
    pub has_place: bool,
    /// More is durable than the server was told.
    pub has_news: bool,
    /// The slot is being looked after.
    pub is_caring: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Due {
    /// The server was asked for a sign of life, and gave none in time.
    pub is_gone: bool,
    /// Tell it how far we are, and ask for a sign of life.
    pub asks: bool,
    /// Tell it how far we are.
    pub tells: bool,
    /// Look after the slot; with a heartbeat or without.
    pub cares: Option<bool>,
}

impl Schedule {
    /// A first empty batch, and the first look at the slot, are due at once.
    pub fn new(now: Instant, heartbeat: Option<Duration>, silence: Duration) -> Self {
        let given_at = now.checked_sub(EMPTY_BATCH_EVERY).unwrap_or(now);
        let (heard_at, told_at, care_at, beat_at) = (now, now, now, now);
        Self { heartbeat, silence, given_at, heard_at, asked_at: None, told_at, care_at, beat_at, is_active: false }
    }

    /// Something came from the server.
    pub fn heard(&mut self, now: Instant) {
        (self.heard_at, self.asked_at) = (now, None);
    }

    /// The server was told how far we are.
    pub fn told(&mut self, now: Instant) {
        self.told_at = now;
    }

    /// A batch was given.
    pub fn given(&mut self, now: Instant, has_changes: bool) {
        self.given_at = now;
        self.is_active |= has_changes;
    }

    pub fn is_empty_batch_due(&self, now: Instant, standing: Standing) -> bool {
        standing.has_place && now >= self.given_at + EMPTY_BATCH_EVERY
    }

    /// When to look again, if nothing happens before.
    pub fn deadline(&self, standing: Standing) -> Instant {
        let told = self.told_at + if standing.has_news { STATUS_AFTER } else { STATUS_EVERY };
        let heard = self.heard_at + if self.asked_at.is_some() { self.silence } else { self.silence / 2 };
        let mut deadline = told.min(heard);
        if standing.has_place {
            deadline = deadline.min(self.given_at + EMPTY_BATCH_EVERY);
        }
        if standing.is_caring { deadline } else { deadline.min(self.care_at) }
    }

    /// What is due. It is taken for done, but for telling: say so with [`Self::told`].
    pub fn due(&mut self, now: Instant, standing: Standing) -> Due {
        if self.asked_at.is_some() && now >= self.heard_at + self.silence {
            return Due { is_gone: true, ..Due::default() };
        }
        let asks = self.asked_at.is_none() && now >= self.heard_at + self.silence / 2;
        if asks {
            self.asked_at = Some(now);
        }
        let tells = now >= self.told_at + STATUS_EVERY || (standing.has_news && now >= self.told_at + STATUS_AFTER);
        let is_care_due = !standing.is_caring && now >= self.care_at;
        Due { is_gone: false, asks, tells: tells && !asks, cares: is_care_due.then(|| self.care(now)) }
    }

    /// Whether there is a heartbeat with this look at the slot.
    fn care(&mut self, now: Instant) -> bool {
        self.care_at = now + self.heartbeat.map_or(CARE_EVERY, |every| every.min(CARE_EVERY));
        let is_due = self.heartbeat.is_some_and(|every| now >= self.beat_at + every);
        if !is_due {
            return false;
        }
        self.beat_at = now;
        !std::mem::take(&mut self.is_active)
    }
}

#[cfg(test)]
mod tests;
