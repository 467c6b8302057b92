//! Named places at which a test has the process end on the spot, as `kill -9` would: nothing is unwound, flushed or closed.
//!
//! A place costs one relaxed load while nothing is armed, so that what is tested is what is shipped. The names belong to those who write
//! them into their code; which of them exist is known to the binary, and it alone arms one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static ARMED: AtomicBool = AtomicBool::new(false);
static POINT: OnceLock<Point> = OnceLock::new();

#[derive(Debug)]
struct Point {
    name: String,
    /// The hit that ends the process, counted from 1.
    nth: u64,
    n_hits: AtomicU64,
}

impl Point {
    /// Counts a visit; true at the one that was asked for.
    fn is_hit(&self, name: &str) -> bool {
        self.name == name && self.n_hits.fetch_add(1, Ordering::Relaxed) + 1 == self.nth
    }
}

/// Has the process end when the place `name` is reached for the `nth` time, counted from 1. One place per process; false when one is armed already.
pub fn arm(name: &str, nth: u64) -> bool {
    let armed = POINT.set(Point { name: name.to_owned(), nth, n_hits: AtomicU64::new(0) }).is_ok();
    ARMED.store(true, Ordering::Relaxed);
    armed
}

/// A place where the process may end.
#[inline]
pub fn here(name: &str) {
    if is_due(name) {
        std::process::abort();
    }
}

/// For a place that leaves something half done first, with [`here`]'s end to be made by the caller: a torn write.
#[inline]
pub fn is_due(name: &str) -> bool {
    ARMED.load(Ordering::Relaxed) && POINT.get().is_some_and(|point| point.is_hit(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_asked_for_visit_of_the_asked_for_place_is_due() {
        assert!(!is_due("here"), "nothing is armed yet");
        assert!(arm("here", 3));
        let due: Vec<bool> = ["here", "there", "here", "here", "here"].into_iter().map(is_due).collect();
        assert_eq!(due, [false, false, false, true, false]);
        assert!(!arm("there", 1), "a process ends once");
    }
}
