//! Everything that was ever readable in the log, kept apart from it: what was once read must be there for ever, and stay what it was.

use anyhow::{Context, Result, bail, ensure};
use mulgil_log::{Journal, Log, ReadLimit, RecordRef};
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub event_time: EventTime,
    pub receive_time: ReceiveTime,
    pub append_time: AppendTime,
}

#[derive(Debug, Default, Clone)]
pub struct Mirror {
    partitions: BTreeMap<TopicPartition, Vec<Record>>,
}

impl Record {
    fn of(record: &RecordRef<'_>) -> Self {
        Self {
            key: record.key.to_vec(),
            value: record.value.to_vec(),
            event_time: record.event_time,
            receive_time: record.receive_time,
            append_time: record.append_time,
        }
    }
}

impl Mirror {
    /// Compares all that the log still has with what was seen of it, and takes what is new.
    pub fn compare(&mut self, journal: &Journal) -> Result<()> {
        let topics: BTreeMap<_, _> = journal.topics().into_iter().map(|t| (t.at.clone(), t)).collect();
        for (at, seen) in &self.partitions {
            let next = topics.get(at).map_or(0, |t| t.next.0);
            ensure!(
                next >= seen.len() as u64,
                "{at} had {} rows that could be read, and now has {next}: committed rows are lost",
                seen.len()
            );
        }
        for (at, info) in topics {
            let seen = self.partitions.entry(at.clone()).or_default();
            read(journal, &at, info.first, &mut |offset, record| {
                let i = offset.0 as usize;
                match seen.get(i) {
                    Some(known) if *known == record => Ok(()),
                    Some(known) => bail!("{at} offset {i} was {known:?} and is now {record:?}"),
                    None if i == seen.len() => {
                        seen.push(record);
                        Ok(())
                    }
                    None => bail!("{at} goes from offset {} to {i}", seen.len()),
                }
            })?;
            ensure!(seen.len() as u64 == info.next.0, "{at} should end at {}, but {} rows can be read", info.next, seen.len());
        }
        Ok(())
    }

    pub fn of(&self, at: &TopicPartition) -> &[Record] {
        self.partitions.get(at).map_or(&[], Vec::as_slice)
    }

    pub fn topics(&self) -> impl Iterator<Item = (&TopicPartition, &[Record])> {
        self.partitions.iter().map(|(at, records)| (at, records.as_slice()))
    }

    pub fn n_rows(&self) -> usize {
        self.partitions.values().map(Vec::len).sum()
    }

    /// Rows of a partition, decoded.
    pub fn rows(&self, schema: &Arc<StreamSchema>, at: &TopicPartition, from: Offset, n_max: usize) -> Result<Rows> {
        let records = self.of(at).get(from.0 as usize..).unwrap_or_default();
        let records = &records[..records.len().min(n_max)];
        let mut decoder = mulgil_model::avro::RowDecoder::new(Arc::clone(schema), &[])?;
        let batch = decoder.decode(records.iter().map(|r| r.value.as_slice())).with_context(|| format!("decoding {at}"))?;
        Ok(Rows {
            schema: Arc::clone(schema),
            partition: at.partition,
            base: from,
            batch,
            appended: records.iter().map(|r| r.append_time).collect(),
            received: records.iter().map(|r| r.receive_time).collect(),
        })
    }
}

fn read(journal: &Journal, at: &TopicPartition, first: Offset, each: &mut dyn FnMut(Offset, Record) -> Result<()>) -> Result<()> {
    let mut from = first;
    loop {
        let chunk = journal.read(at, from, ReadLimit { bytes: 1 << 20, records: 1_000 }).with_context(|| format!("reading {at}"))?;
        if chunk.is_empty() {
            return Ok(());
        }
        for record in chunk.iter() {
            each(record.offset, Record::of(&record))?;
        }
        from = chunk.next_offset();
    }
}
