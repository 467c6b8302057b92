//! What the log knows by heart: how far each partition and each owner of progress has come. A checkpoint writes it down whole.

use std::collections::HashMap;

use mulgil_model::ids::TopicPartition;
use mulgil_model::position::Position;

use crate::format::{self, PartitionEnd};
use crate::{Advance, Owner};

/// Most partitions of all topics together. Each segment's checkpoint names them all.
pub const MAX_PARTITIONS: usize = 65_536;
/// Most pairs of owner and partition. Each segment's checkpoint holds them all.
pub const MAX_PROGRESS: usize = 65_536;

/// A partition's number in this journal: its place in checkpoints, the same after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionNo(pub u32);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    numbers: HashMap<TopicPartition, PartitionNo>,
    ends: Vec<PartitionEnd>,
    progress: HashMap<Owner, HashMap<TopicPartition, Position>>,
    n_progress: usize,
}

impl Ledger {
    pub fn from_checkpoint(body: &[u8]) -> Option<Self> {
        let (ends, progress) = format::decode_checkpoint(body)?;
        let mut ledger = Self::default();
        for end in ends {
            let no = ledger.number_or_new(&end.at);
            *ledger.ends.get_mut(no.0 as usize)? = end;
        }
        for advance in progress {
            ledger.advance(&advance);
        }
        Some(ledger)
    }

    pub fn put_checkpoint(&self, into: &mut Vec<u8>) {
        format::put_ends(into, self.ends.iter());
        let mut progress: Vec<_> =
            self.progress.iter().flat_map(|(owner, of)| of.iter().map(move |(at, position)| (owner, at, *position))).collect();
        // Sorted, so that the same state gives the same bytes.
        progress.sort_unstable();
        format::put_progress(into, progress.into_iter());
    }

    pub fn number(&self, at: &TopicPartition) -> Option<PartitionNo> {
        self.numbers.get(at).copied()
    }

    pub fn ends(&self) -> &[PartitionEnd] {
        &self.ends
    }

    pub fn end(&self, no: PartitionNo) -> &PartitionEnd {
        &self.ends[no.0 as usize]
    }

    pub fn next_offset(&self, at: &TopicPartition) -> u64 {
        self.number(at).map_or(0, |no| self.end(no).next)
    }

    pub fn position(&self, owner: &Owner, at: &TopicPartition) -> Option<Position> {
        self.progress.get(owner)?.get(at).copied()
    }

    pub fn n_partitions(&self) -> usize {
        self.ends.len()
    }

    pub fn n_progress(&self) -> usize {
        self.n_progress
    }

    /// Counts a batch in, and gives its partition's number, a new one if it is the partition's first.
    pub fn append(&mut self, at: &TopicPartition, n_records: u32, frame_bytes: u64) -> PartitionNo {
        let no = self.number_or_new(at);
        let end = &mut self.ends[no.0 as usize];
        end.next += u64::from(n_records);
        end.bytes += frame_bytes;
        no
    }

    pub fn advance(&mut self, advance: &Advance) {
        let of_owner = match self.progress.get_mut(&advance.owner) {
            Some(of_owner) => of_owner,
            None => self.progress.entry(advance.owner.clone()).or_default(),
        };
        if of_owner.insert(advance.partition.clone(), advance.position).is_none() {
            self.n_progress += 1;
        }
    }

    fn number_or_new(&mut self, at: &TopicPartition) -> PartitionNo {
        if let Some(no) = self.number(at) {
            return no;
        }
        let no = PartitionNo(self.ends.len() as u32);
        self.ends.push(PartitionEnd { at: at.clone(), next: 0, bytes: 0 });
        self.numbers.insert(at.clone(), no);
        no
    }
}
