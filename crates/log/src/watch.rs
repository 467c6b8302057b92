//! Tailing without polling.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// What commits ring and readers at the end wait for.
///
/// Nobody is woken under a lock: who is woken may take the place of who rings on its core, and would leave everybody else to wait for
/// that lock until the ringer runs again. Tasks, which serve clients, are woken before threads, which have more to do.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Counts rings, so that one between two waits is not missed.
    n_rings: AtomicU64,
    tasks: Mutex<Vec<Waker>>,
    /// How many threads wait.
    threads: Mutex<usize>,
    rung: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        self.n_rings.fetch_add(1, Ordering::SeqCst);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.into_iter().for_each(Waker::wake);
        // A thread that saw the old count still holds this lock, or waits already.
        let is_awaited = *self.threads.lock() > 0;
        if is_awaited {
            self.rung.notify_all();
        }
    }

    pub fn watch(self: &Arc<Self>) -> Watch {
        Watch { seen: self.n_rings.load(Ordering::SeqCst), bell: Arc::clone(self) }
    }

    /// The task is woken by the next ring. A task that asks again is there once.
    fn wake_later(&self, task: &Waker) {
        let mut tasks = self.tasks.lock();
        if !tasks.iter().any(|other| other.will_wake(task)) {
            tasks.push(task.clone());
        }
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
        if self.take_news() {
            return true;
        }
        let deadline = Instant::now().checked_add(timeout);
        let bell = Arc::clone(&self.bell);
        let mut n_waiting = bell.threads.lock();
        *n_waiting += 1;
        let is_news = loop {
            if self.take_news() {
                break true;
            }
            let is_over = match deadline {
                Some(deadline) => bell.rung.wait_until(&mut n_waiting, deadline).timed_out(),
                None => {
                    bell.rung.wait(&mut n_waiting);
                    false
                }
            };
            if is_over {
                break self.take_news();
            }
        };
        *n_waiting -= 1;
        is_news
    }

    /// Returns once there is news.
    pub async fn changed(&mut self) {
        poll_fn(|context| self.poll_changed(context)).await;
    }

    fn poll_changed(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.take_news() {
            return Poll::Ready(());
        }
        self.bell.wake_later(context.waker());
        // It may have rung before it knew of this task.
        if self.take_news() { Poll::Ready(()) } else { Poll::Pending }
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
        while *bell.threads.lock() == 0 {
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
