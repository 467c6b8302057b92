//! What happened, step by step: a digest always, the text on request.

use std::sync::{Arc, Mutex, PoisonError};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    digest: u64,
    n_lines: u64,
    /// None: only the digest is kept.
    lines: Option<Vec<String>>,
}

impl Trace {
    pub fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner { lines: keep.then(Vec::new), ..Inner::default() })))
    }

    pub fn say(&self, line: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.digest = inner.digest.rotate_left(7) ^ xxh3_64(line.as_bytes());
        inner.n_lines += 1;
        if let Some(lines) = &mut inner.lines {
            lines.push(line.to_owned());
        }
    }

    /// The digest of all lines, and how many there were.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.digest, inner.n_lines)
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone().unwrap_or_default()
    }
}
