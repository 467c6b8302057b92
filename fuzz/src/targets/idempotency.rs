//! Idempotency keys as the log keeps them.

use crate::trades::RECEIVED;
use mulgil::adapters::idempotency::{Given, Remembered};
use mulgil_disk::MemDisk;
use mulgil_log::{Append, Commit, Journal, JournalConfig, RecordsBuilder};
use mulgil_model::ids::{Offset, Partition, TopicPartition};
use mulgil_model::time::{AppendTime, EventTime};
use mulgil_serve::ports::{IngestAnswer, Placed};
use std::sync::Arc;

/// The record of one key, whatever its value: an error that names the offset, or the answer that was given, to the same body only.
pub fn run(input: &[u8]) {
    let now = AppendTime(RECEIVED.0);
    let disk = Arc::new(MemDisk::new(1));
    let (journal, _) = Journal::open(JournalConfig::new("/data"), disk, Arc::new(move || now)).expect("an empty folder can be opened");
    let mut records = RecordsBuilder::new();
    records.push(b"trades/key", &[], input, EventTime(now.0), RECEIVED);
    let to = TopicPartition::new(crate::trades::topic("_idempotency"), Partition(0));
    let append = Append { to, records: records.finish() };
    journal.commit(Commit { appends: vec![append], progress: vec![] }).expect("memory takes everything");
    match Remembered::open(&journal, now) {
        Err(e) => assert!(format!("{e:#}").contains("offset 0"), "{e:#}"),
        Ok(remembered) => {
            let given = remembered.get("trades/key").expect("the key was remembered");
            assert!(given.answer().replayed);
            let written = serde_json::to_vec(given).expect("what was read can be written");
            assert_eq!(&serde_json::from_slice::<Given>(&written).expect("what was written can be read"), given);
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let placed = vec![Placed { partition: Partition(1), first: Offset(7), last: Offset(9) }];
    let answer = IngestAnswer { accepted: 3, rejected: 1, placed, ..IngestAnswer::default() };
    vec![serde_json::to_vec(&Given::new(b"body", &answer)).expect("it can be written")]
}
