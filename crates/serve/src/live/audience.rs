//! Clients that asked for the same rows: what was pulled for one of them is handed to all who stand at the same place.
//!
//! A thousand clients that watch one list of symbols cost one reading, one filtering and one frame, and a reference to it each. Nobody is
//! held up by another: a client at any other place pulls by itself, and what is shared is only ever rows behind the client's own place.

use axum::extract::ws::Utf8Bytes;
use mulgil_model::ids::Offset;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Pulls remembered, so that a client that missed a beat or two still finds its way.
const SHOWN_MAX: usize = 4;
/// A larger pull is not remembered: clients that are behind have places of their own.
const SHOWN_BYTES_MAX: usize = 64 << 10;

/// All audiences, by what they asked for.
pub struct Audiences {
    /// At most twice as many as there are subscriptions.
    by_wish: Mutex<HashMap<Box<str>, Weak<Audience>>>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

pub struct Audience {
    shown: Mutex<VecDeque<Shown>>,
    /// Of all audiences together.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// One pull: the places before and behind it, and the frames between them.
pub struct Shown {
    pub from: Box<[Offset]>,
    pub to: Box<[Offset]>,
    /// The feed's tick at which nothing was behind `to`.
    pub tick: u64,
    pub frames: Box<[Utf8Bytes]>,
}

impl Audiences {
    /// `bytes_max` bounds the frames that all audiences remember together.
    pub fn new(bytes_max: usize) -> Self {
        Self { by_wish: Mutex::default(), bytes: Arc::default(), bytes_max }
    }

    /// The audience of all who ask for exactly this: the whole of what makes their frames the same.
    pub fn join(&self, wish: String) -> Arc<Audience> {
        let mut by_wish = self.by_wish.lock();
        if let Some(audience) = by_wish.get(wish.as_str()).and_then(Weak::upgrade) {
            return audience;
        }
        if by_wish.len() == by_wish.capacity() {
            by_wish.retain(|_, audience| audience.strong_count() > 0);
        }
        let audience = Arc::new(Audience { shown: Mutex::default(), bytes: Arc::clone(&self.bytes), bytes_max: self.bytes_max });
        by_wish.insert(wish.into(), Arc::downgrade(&audience));
        audience
    }

    /// What is remembered now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Audience {
    /// Whoever comes while one pulls wants what is being pulled, so the lock is held until it is remembered.
    pub fn shown(&self) -> MutexGuard<'_, VecDeque<Shown>> {
        self.shown.lock()
    }

    /// Remembers a pull that moved somebody.
    pub fn remember(&self, all: &mut VecDeque<Shown>, shown: Shown) {
        let bytes = shown.bytes();
        if all.len() == SHOWN_MAX {
            self.forget_oldest(all);
        }
        // Approximate where many do it at once: by one pull each.
        if bytes <= SHOWN_BYTES_MAX && self.bytes.load(Ordering::Relaxed) + bytes <= self.bytes_max {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            all.push_back(shown);
        }
    }

    fn forget_oldest(&self, all: &mut VecDeque<Shown>) {
        if let Some(gone) = all.pop_front() {
            self.bytes.fetch_sub(gone.bytes(), Ordering::Relaxed);
        }
    }
}

impl Drop for Audience {
    fn drop(&mut self) {
        let bytes: usize = self.shown.get_mut().iter().map(Shown::bytes).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shown {
    fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.len()).sum()
    }
}
