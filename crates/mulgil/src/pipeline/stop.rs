//! The signal by which the parts of the program are told to stop, in order.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Asked once, for good. Cheap to clone; threads wait with a time limit, tasks by await.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: Mutex<bool>,
    changed: Condvar,
    notify: Notify,
}

impl Stop {
    pub fn ask(&self) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
        self.0.notify.notify_waiters();
    }

    pub fn asked(&self) -> bool {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most so long; true when asked to stop.
    pub fn wait(&self, at_most: Duration) -> bool {
        let asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, _) = self.0.changed.wait_timeout_while(asked, at_most, |asked| !*asked).unwrap_or_else(PoisonError::into_inner);
        *asked
    }

    pub async fn wait_async(&self) {
        loop {
            let notified = self.0.notify.notified();
            tokio::pin!(notified);
            // Registered before the look, so that an ask in between is not missed.
            notified.as_mut().enable();
            if self.asked() {
                return;
            }
            notified.await;
        }
    }
}
