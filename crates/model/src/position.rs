//! How far a source or a consumer has come.

use std::fmt;

/// A place in a source that can be compared: the commit (an LSN, an offset, a byte in a file) and the ordinal of the row inside that
/// commit. Never the commit alone: many rows share one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub commit: u64,
    pub ordinal: u64,
}

impl Position {
    pub fn new(commit: u64, ordinal: u64) -> Self {
        Self { commit, ordinal }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.commit, self.ordinal)
    }
}
