//! Answers already given, by idempotency key: committed together with the rows, so that a repeated request is never a second one.
//!
//! Topic `_idempotency`, one partition. Record: key = `<stream>/<key>`, value = JSON
//! `{"body":"<xxh3 of the body>","accepted":…,"rejected":…,"placed":[…],"at":<microseconds>}`. `at` is when the key came first; without it
//! that is when the record was appended. Retention of the log may be shorter than a key's day: then its record is written anew before it
//! goes.

use anyhow::{Context, Result};
use mulgil_log::{Append, Commit, Journal, Log, LogError, ReadLimit, RecordsBuilder, Retained, Seek};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};
use mulgil_serve::ports::{IngestAnswer, Placed};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use xxhash_rust::xxh3::xxh3_128;

pub const IDEMPOTENCY: &str = "_idempotency";

/// How long a key is remembered.
pub const HORIZON_US: i64 = 24 * 3_600_000_000;

/// How many keys are remembered, whatever their age.
const KEYS_MAX: usize = 1_000_000;

/// Records of keys that are read, and written anew, at once.
const READ_RECORDS: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    body: String,
    accepted: u64,
    rejected: u64,
    /// (partition, first offset, last offset)
    placed: Vec<(u32, u64, u64)>,
    /// When the key came first, where its record is not the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
}

impl Given {
    pub fn new(body: &[u8], answer: &IngestAnswer) -> Self {
        let placed = answer.placed.iter().map(|p| (p.partition.0, p.first.0, p.last.0)).collect();
        Self { body: hash(body), accepted: answer.accepted, rejected: answer.rejected, placed, at: None }
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
    /// Oldest first, by the time they came.
    order: BTreeSet<(i64, String)>,
}

impl Remembered {
    pub fn open(log: &dyn Log, now: AppendTime) -> Result<Self> {
        let mut remembered = Self::default();
        let mut from = log.seek(&topic(), Seek::AppendedAt(AppendTime(now.0 - HORIZON_US)))?;
        while let Some((keys, next)) = read(log, from, Offset(u64::MAX))? {
            for (key, given, came) in keys.into_iter().filter(|(_, _, came)| *came >= now.0 - HORIZON_US) {
                remembered.insert(key, given, AppendTime(came));
            }
            from = next;
        }
        Ok(remembered)
    }

    pub fn n_keys(&self) -> usize {
        self.given.len()
    }

    pub fn get(&self, key: &str) -> Option<&Given> {
        self.given.get(key)
    }

    pub fn insert(&mut self, key: String, given: Given, at: AppendTime) {
        self.given.insert(key.clone(), given);
        self.order.insert((at.0, key));
        while self.order.first().is_some_and(|(t, _)| *t < at.0 - HORIZON_US) || self.order.len() > KEYS_MAX {
            if let Some((_, oldest)) = self.order.pop_first() {
                self.given.remove(&oldest);
            }
        }
    }
}

/// Writes the keys below `end` whose day is not over to the end of their topic, so that retention may take the older records.
pub fn renew(log: &dyn Log, end: Offset, now: AppendTime) -> Result<()> {
    let mut from = log.seek(&topic(), Seek::First)?;
    while let Some((keys, next)) = read(log, from, end)? {
        let mut renewed = RecordsBuilder::new();
        for (key, given, came) in keys.into_iter().filter(|(_, _, came)| *came >= now.0 - HORIZON_US) {
            let value = serde_json::to_vec(&Given { at: Some(came), ..given })?;
            renewed.push(key.as_bytes(), &[], &value, EventTime(came), ReceiveTime(came));
        }
        if !renewed.is_empty() {
            log.commit(Commit { appends: vec![Append { to: topic(), records: renewed.finish() }], progress: vec![] })?;
        }
        from = next;
    }
    Ok(())
}

/// Drops what the log need not keep below `floor`, and no key whose day is not over: those that stand in the way are written anew.
/// `keys_from` is where the keys begin that were not; zero at first.
pub fn retain(journal: &Journal, now: AppendTime, keys_from: &mut Offset, floor: &dyn Fn(&TopicPartition) -> Offset) -> Result<Retained> {
    let at = topic();
    // What is written anew here stays for now, however little the log is to keep.
    let until = journal.seek(&at, Seek::Next)?;
    loop {
        let retained = journal.retain(&|asked| if *asked == at { *keys_from } else { floor(asked) });
        let retained = retained.context("cannot drop old rows from the log")?;
        match &retained.held_by {
            Some((held, end)) if *held == at && *end <= until => {
                renew(journal, *end, now)?;
                *keys_from = *end;
            }
            _ => return Ok(retained),
        }
    }
}

/// A key, its answer, and when it came first.
type Came = (String, Given, i64);

/// Some keys from `from` to before `end`, and where to read on. None: there are no more.
fn read(log: &dyn Log, from: Offset, end: Offset) -> Result<Option<(Vec<Came>, Offset)>> {
    let chunk = match log.read(&topic(), from, ReadLimit::records(READ_RECORDS)) {
        // Retention was faster.
        Err(LogError::BelowRetention { first, .. }) if first > from => return Ok(Some((Vec::new(), first))),
        read => read.context("cannot read the idempotency keys")?,
    };
    if from >= end || chunk.is_empty() {
        return Ok(None);
    }
    let mut keys = Vec::new();
    for record in chunk.iter().filter(|record| record.offset < end) {
        let given: Given = serde_json::from_slice(record.value).with_context(|| format!("idempotency key at offset {}", record.offset))?;
        let came = given.at.unwrap_or(record.append_time.0);
        keys.push((String::from_utf8_lossy(record.key).into_owned(), given, came));
    }
    Ok(Some((keys, chunk.next_offset())))
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
    TopicPartition::new(Topic::new(IDEMPOTENCY).expect("the name is valid"), Partition(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_disk::MemDisk;
    use mulgil_log::{Journal, JournalConfig, Retention};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    const HOUR_US: i64 = 3_600_000_000;

    /// A log that keeps a few small segments, whatever their age.
    fn small_log(now: &Arc<AtomicI64>) -> Journal {
        let now = Arc::clone(now);
        let retention = Retention { time: None, bytes: Some(4_000) };
        let config = JournalConfig { segment_bytes: 1_000, retention, ..JournalConfig::new("/data") };
        Journal::open(config, Arc::new(MemDisk::new(1)), Arc::new(move || AppendTime(now.load(Ordering::SeqCst)))).unwrap().0
    }

    #[test]
    fn keys_outlive_the_records_that_retention_takes() {
        let now = Arc::new(AtomicI64::new(0));
        let log = small_log(&now);
        let answer = IngestAnswer { accepted: 3, ..IngestAnswer::default() };
        let mut keys_from = Offset::ZERO;
        for hour in 0..40 {
            now.store(hour * HOUR_US, Ordering::SeqCst);
            let append = record(&format!("trades/{hour}"), &Given::new(b"body", &answer), ReceiveTime(0)).unwrap();
            log.commit(Commit { appends: vec![append], progress: vec![] }).unwrap();
            let mut rows = RecordsBuilder::new();
            rows.push(b"k", &[], &[7; 600], EventTime(0), ReceiveTime(0));
            let to = TopicPartition::new(Topic::new("trades").unwrap(), Partition(0));
            log.commit(Commit { appends: vec![Append { to, records: rows.finish() }], progress: vec![] }).unwrap();
            retain(&log, AppendTime(hour * HOUR_US), &mut keys_from, &|_| Offset(u64::MAX)).unwrap();
        }
        let first = log.seek(&topic(), Seek::First).unwrap();
        assert!(first > Offset(20), "old records are gone: {first}");
        assert!(log.stats().journal_bytes < 20_000, "what is written anew does not grow without end: {:?}", log.stats());
        let now = AppendTime(39 * HOUR_US);
        let remembered = Remembered::open(&log, now).unwrap();
        for hour in 0..40 {
            let found = remembered.get(&format!("trades/{hour}")).map(|given| given.is_of(b"body") && given.answer().accepted == 3);
            assert_eq!(found, (hour >= 15).then_some(true), "hour {hour}");
        }
        assert_eq!(remembered.n_keys(), 25);
    }
}
