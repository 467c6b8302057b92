//! The two clocks of the simulated machine: the wall clock, which may jump, and the one that only goes forward.

use mulgil_log::Clock;
use mulgil_model::time::AppendTime;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// 2026-01-01T00:00:00Z, microseconds.
const START_US: i64 = 1_767_225_600_000_000;

#[derive(Debug, Clone)]
pub struct Hands {
    wall_us: Arc<AtomicI64>,
    passed_us: Arc<AtomicU64>,
    /// An `Instant` cannot be made of a number; only differences to this one are ever looked at.
    origin: Instant,
}

impl Hands {
    pub fn new() -> Self {
        Self { wall_us: Arc::new(AtomicI64::new(START_US)), passed_us: Arc::default(), origin: Instant::now() }
    }

    pub fn pass(&self, us: u64) {
        self.passed_us.fetch_add(us, Ordering::Relaxed);
        self.wall_us.fetch_add(us as i64, Ordering::Relaxed);
    }

    pub fn jump(&self, us: i64) {
        self.wall_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn wall_us(&self) -> i64 {
        self.wall_us.load(Ordering::Relaxed)
    }

    pub fn now(&self) -> Instant {
        self.origin + Duration::from_micros(self.passed_us.load(Ordering::Relaxed))
    }

    pub fn clock(&self) -> Clock {
        let wall = Arc::clone(&self.wall_us);
        Arc::new(move || AppendTime(wall.load(Ordering::Relaxed)))
    }
}

impl Default for Hands {
    fn default() -> Self {
        Self::new()
    }
}
