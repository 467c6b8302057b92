//! What is asked of the log and what it answers.

use std::fmt;
use std::sync::Arc;

use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;

use crate::Records;

/// The longest owner name, in bytes.
pub const OWNER_BYTES_MAX: usize = 200;

/// Who records progress: `shard/trades`, `source/simulator`. 1 to 200 printable bytes without spaces.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not a valid owner of progress: use 1 to {OWNER_BYTES_MAX} visible ASCII characters, such as source/simulator")]
pub struct InvalidOwner {
    pub name: String,
}

impl Owner {
    pub fn new(name: &str) -> Result<Self, InvalidOwner> {
        let valid = !name.is_empty() && name.len() <= OWNER_BYTES_MAX && name.bytes().all(|b| b.is_ascii_graphic());
        if valid { Ok(Self(name.into())) } else { Err(InvalidOwner { name: name.chars().take(OWNER_BYTES_MAX).collect() }) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rows for the end of one partition. The partition comes into being with its first row.
#[derive(Debug, Clone)]
pub struct Append {
    pub to: TopicPartition,
    pub records: Records,
}

/// How far `owner` has come with `partition`. Must be greater than what is stored, or the whole commit is refused with
/// [`crate::LogError::AlreadyCommitted`]: so nothing is ever written twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    pub owner: Owner,
    pub partition: TopicPartition,
    pub position: Position,
}

/// Happens as a whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub appends: Vec<Append>,
    pub progress: Vec<Advance>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The offset of the first row of each append, in their order.
    pub base_offsets: Vec<Offset>,
    pub append_time: AppendTime,
}

/// A place in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The first row still there.
    First,
    /// Where the next row will be.
    Next,
    /// The first row that was appended at this time or later; where the next row will be if there is none.
    AppendedAt(AppendTime),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_names() {
        for good in ["shard/trades", "source/simulator", "sink/a:b@1"] {
            assert_eq!(Owner::new(good).map(|o| o.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "물", &"x".repeat(201)] {
            assert!(Owner::new(bad).is_err(), "{bad}");
        }
    }
}
