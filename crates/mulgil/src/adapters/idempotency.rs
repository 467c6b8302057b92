//! Answers already given, by idempotency key: committed together with the rows, so that a repeated request is never a second one.
//!
//! Topic `_idempotency`, one partition. Record: key = `<stream>/<key>`, value = JSON `{"body":"<xxh3 of the body>","answer":{…}}`.

use anyhow::{Context, Result};
use mulgil_log::{Append, Log, LogError, ReadLimit, RecordsBuilder, Seek};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};
use mulgil_serve::ports::{IngestAnswer, Placed};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use xxhash_rust::xxh3::xxh3_128;

/// How long a key is remembered.
pub const HORIZON_US: i64 = 24 * 3_600_000_000;

/// How many keys are remembered, whatever their age.
const KEYS_MAX: usize = 1_000_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    body: String,
    accepted: u64,
    rejected: u64,
    /// (partition, first offset, last offset)
    placed: Vec<(u32, u64, u64)>,
}

impl Given {
    pub fn new(body: &[u8], answer: &IngestAnswer) -> Self {
        let placed = answer.placed.iter().map(|p| (p.partition.0, p.first.0, p.last.0)).collect();
        Self { body: hash(body), accepted: answer.accepted, rejected: answer.rejected, placed }
    }

    /// The first answer again. Row problems are in the dead letters; they are not told twice.
    pub fn answer(&self) -> IngestAnswer {
        let placed = |&(p, first, last): &(u32, u64, u64)| Placed { partition: Partition(p), first: Offset(first), last: Offset(last) };
        IngestAnswer {
            accepted: self.accepted,
            rejected: self.rejected,
            placed: self.placed.iter().map(placed).collect(),
            replayed: true,
            ..IngestAnswer::default()
        }
    }

    pub fn is_of(&self, body: &[u8]) -> bool {
        self.body == hash(body)
    }
}

fn hash(body: &[u8]) -> String {
    format!("{:032x}", xxh3_128(body))
}

/// The keys of the last day.
#[derive(Debug, Default)]
pub struct Remembered {
    given: HashMap<String, Given>,
    /// Oldest first, with the time of their commit.
    order: VecDeque<(i64, String)>,
}

impl Remembered {
    pub fn open(log: &dyn Log, now: AppendTime) -> Result<Self> {
        let mut remembered = Self::default();
        let at = topic();
        let mut from = log.seek(&at, Seek::AppendedAt(AppendTime(now.0 - HORIZON_US)))?;
        loop {
            let chunk = match log.read(&at, from, ReadLimit::records(10_000)) {
                // Retention was faster.
                Err(LogError::BelowRetention { first, .. }) if first > from => {
                    from = first;
                    continue;
                }
                read => read.context("cannot read the idempotency keys")?,
            };
            if chunk.is_empty() {
                return Ok(remembered);
            }
            for record in chunk.iter() {
                let given = serde_json::from_slice(record.value).with_context(|| format!("idempotency key at offset {}", record.offset))?;
                remembered.insert(String::from_utf8_lossy(record.key).into_owned(), given, record.append_time);
            }
            from = chunk.next_offset();
        }
    }

    pub fn n_keys(&self) -> usize {
        self.given.len()
    }

    pub fn get(&self, key: &str) -> Option<&Given> {
        self.given.get(key)
    }

    pub fn insert(&mut self, key: String, given: Given, at: AppendTime) {
        self.given.insert(key.clone(), given);
        self.order.push_back((at.0, key));
        while self.order.front().is_some_and(|(t, _)| *t < at.0 - HORIZON_US || self.order.len() > KEYS_MAX) {
            if let Some((_, oldest)) = self.order.pop_front() {
                self.given.remove(&oldest);
            }
        }
    }
}

/// What a key is filed under.
pub fn filed(stream: &Topic, key: &str) -> String {
    format!("{stream}/{key}")
}

pub fn record(filed: &str, given: &Given, received: ReceiveTime) -> Result<Append> {
    let mut records = RecordsBuilder::new();
    records.push(filed.as_bytes(), &[], &serde_json::to_vec(given)?, EventTime(received.0), received);
    Ok(Append { to: topic(), records: records.finish() })
}

fn topic() -> TopicPartition {
    TopicPartition::new(Topic::new("_idempotency").expect("the name is valid"), Partition(0))
}
