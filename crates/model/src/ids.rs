//! Names and numbers of places in the log.

use std::fmt;
use std::sync::Arc;

/// A topic's name: `trades`, `trades.bars.1m`. Lower-case letters, digits, `.`, `_` and `-`, 1 to 200 bytes, so that it is also a
/// valid Kafka topic and a valid folder name everywhere.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(Arc<str>);

/// The longest topic name, in bytes.
pub const TOPIC_BYTES_MAX: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{name}' is not a valid stream name: use 1 to {TOPIC_BYTES_MAX} of a-z, 0-9, '.', '_' and '-', not starting with '.'")]
pub struct InvalidTopic {
    pub name: String,
}

impl Topic {
    pub fn new(name: &str) -> Result<Self, InvalidTopic> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let valid = !name.is_empty() && name.len() <= TOPIC_BYTES_MAX && !name.starts_with('.') && name.bytes().all(allowed);
        if valid { Ok(Self(name.into())) } else { Err(InvalidTopic { name: name.to_owned() }) }
    }

    /// The name of a stream derived from this one: `trades` + `bars.1m` = `trades.bars.1m`.
    pub fn derived(&self, suffix: &str) -> Result<Self, InvalidTopic> {
        Self::new(&format!("{}.{suffix}", self.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition's number within its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

/// A row's place in its partition, from 0, without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    pub const ZERO: Self = Self(0);

    /// The offset `n` rows further on.
    pub fn plus(self, n: u64) -> Self {
        Self(self.0 + n)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: Topic,
    pub partition: Partition,
}

impl TopicPartition {
    pub fn new(topic: Topic, partition: Partition) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        for good in ["trades", "trades.bars.1m", "a_b-c", "0"] {
            assert_eq!(Topic::new(good).map(|t| t.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", ".x", "Trades", "a/b", "a b", "가", &"x".repeat(201)] {
            assert!(Topic::new(bad).is_err(), "{bad}");
        }
    }
}
