//! A request's share of what all requests have together: a slot to be worked on, and room for its body.
//!
//! ```text
//! taken at the door ─▶ left while the body is waited for (room grows with what has come) ─▶ taken again ─▶ given back with the answer
//! ```
//!
//! A client that sends its body slowly holds a connection and the bytes it has sent, and no slot that others need.

use crate::app::App;
use crate::measure;
use crate::problem::Problem;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

#[derive(Clone, Default)]
pub struct Seat(Arc<Mutex<Share>>);

#[derive(Default)]
struct Share {
    slot: Option<OwnedSemaphorePermit>,
    room: Option<OwnedSemaphorePermit>,
}

impl Seat {
    /// One of `requests_max`; those who wait for nobody (health) do without.
    pub fn take(&self, app: &App) -> Result<(), Problem> {
        let slot = Arc::clone(&app.request_slots).try_acquire_owned().map_err(|_| {
            measure::refused("requests");
            Problem::busy("too many requests at once")
        })?;
        self.share().slot = Some(slot);
        Ok(())
    }

    /// Whether a slot was taken that is free again now.
    pub fn leave(&self) -> bool {
        self.share().slot.take().is_some()
    }

    /// Room for more of the body, out of `bodies_bytes_max`.
    pub fn grow(&self, app: &App, n_bytes: usize) -> Result<(), Problem> {
        let n_bytes = u32::try_from(n_bytes).unwrap_or(u32::MAX);
        let more = Arc::clone(&app.body_room).try_acquire_many_owned(n_bytes).map_err(|_| {
            measure::refused("bodies");
            Problem::busy("too many bytes are being sent at once")
        })?;
        let mut share = self.share();
        match &mut share.room {
            Some(room) => room.merge(more),
            None => share.room = Some(more),
        }
        Ok(())
    }

    fn share(&self) -> std::sync::MutexGuard<'_, Share> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
