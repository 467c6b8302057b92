//! Tailing without polling.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use event_listener::{Event, Listener};

/// What commits ring and readers at the end wait for.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Counts rings, so that one between two waits is not missed.
    n_rings: AtomicU64,
    event: Event,
}

impl Bell {
    pub fn ring(&self) {
        self.n_rings.fetch_add(1, Ordering::SeqCst);
        self.event.notify(usize::MAX);
    }

    pub fn watch(self: &Arc<Self>) -> Watch {
        Watch { seen: self.n_rings.load(Ordering::SeqCst), bell: Arc::clone(self) }
    }
}

/// Wakes when something was committed since it last did (to any partition), or when the log failed.
/// Take it, read to the end, then wait: a commit in between wakes at once. Dropping a waiting future is fine.
#[derive(Debug)]
pub struct Watch {
    bell: Arc<Bell>,
    seen: u64,
}

impl Watch {
    /// Blocks until there is news (`true`) or the time is over (`false`).
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if self.take_news() {
                return true;
            }
            let listener = self.bell.event.listen();
            if self.take_news() {
                return true;
            }
            let rang = match deadline {
                Some(deadline) => listener.wait_deadline(deadline).is_some(),
                None => {
                    listener.wait();
                    true
                }
            };
            if !rang {
                return self.take_news();
            }
        }
    }

    /// Returns once there is news.
    pub async fn changed(&mut self) {
        loop {
            if self.take_news() {
                return;
            }
            let listener = self.bell.event.listen();
            if self.take_news() {
                return;
            }
            listener.await;
        }
    }

    fn take_news(&mut self) -> bool {
        let n_rings = self.bell.n_rings.load(Ordering::SeqCst);
        std::mem::replace(&mut self.seen, n_rings) != n_rings
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[test]
    fn every_watch_wakes_once_for_what_it_missed() {
        let bell = Arc::new(Bell::default());
        let (mut a, mut b) = (bell.watch(), bell.watch());
        assert!(!a.wait(Duration::ZERO));
        bell.ring();
        bell.ring();
        assert!(a.wait(Duration::ZERO) && !a.wait(Duration::ZERO));
        assert!(b.wait(Duration::MAX) && !b.wait(Duration::ZERO));
        assert!(!bell.watch().wait(Duration::ZERO), "what was before is no news");
    }

    #[test]
    fn a_ring_wakes_who_waits() {
        let bell = Arc::new(Bell::default());
        let mut watch = bell.watch();
        let waiting = std::thread::spawn(move || watch.wait(Duration::from_secs(60)));
        while bell.event.total_listeners() == 0 {
            std::thread::yield_now();
        }
        bell.ring();
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn the_async_wait_is_pending_until_the_ring() {
        let bell = Arc::new(Bell::default());
        let mut watch = bell.watch();
        let mut changed = pin!(watch.changed());
        let context = &mut Context::from_waker(Waker::noop());
        assert!(changed.as_mut().poll(context).is_pending());
        bell.ring();
        assert!(changed.as_mut().poll(context).is_ready());
    }
}
