//! What readers see: the ledger and the segments, up to the last commit. Only the leader of a group and retention change it.

use std::collections::VecDeque;
use std::sync::Arc;

use mulgil_disk::DiskFile;
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::time::AppendTime;

use crate::index::{Entry, SegmentIndex};
use crate::ledger::{Ledger, PartitionNo};
use crate::segment::Segment;
use crate::tail::Staged;
use crate::{LogError, LogResult};

#[derive(Debug)]
pub(crate) struct View {
    pub ledger: Ledger,
    /// The oldest first.
    pub sealed: VecDeque<Arc<Segment>>,
    pub active: Active,
}

/// The segment that is written to.
#[derive(Debug)]
pub(crate) struct Active {
    pub segment: Arc<Segment>,
    pub file: Arc<dyn DiskFile>,
    pub index: SegmentIndex,
}

/// One segment's share of a partition.
#[derive(Debug)]
pub(crate) struct Share {
    pub segment: Arc<Segment>,
    pub no: PartitionNo,
    /// The partition's end in this segment.
    pub end: u64,
    /// The batches that are asked for, when the segment is the active one.
    pub active: Option<(Arc<dyn DiskFile>, Vec<Entry>)>,
}

impl View {
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        self.sealed.iter().chain(std::iter::once(&self.active.segment))
    }

    pub fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.bytes).sum()
    }

    pub fn first_offset(&self, no: PartitionNo) -> u64 {
        self.segments().next().map_or(0, |segment| segment.start(no).next)
    }

    /// The partition's bytes in the segments that are still there.
    pub fn partition_bytes(&self, no: PartitionNo) -> u64 {
        self.ledger.end(no).bytes - self.segments().next().map_or(0, |segment| segment.start(no).bytes)
    }

    /// Where the partition ends in the `i`-th segment.
    pub fn end_in(&self, i: usize, no: PartitionNo) -> u64 {
        self.segments().nth(i + 1).map_or(self.ledger.end(no).next, |following| following.start(no).next)
    }

    /// Whether `from` can be read: `None` says that nothing is there yet.
    pub fn readable(&self, at: &TopicPartition, from: Offset) -> LogResult<Option<PartitionNo>> {
        let no = self.ledger.number(at);
        let next = no.map_or(0, |no| self.ledger.end(no).next);
        let first = no.map_or(0, |no| self.first_offset(no));
        if from.0 > next {
            return Err(LogError::AheadOfLog { at: at.clone(), asked: from, next: Offset(next) });
        }
        if from.0 < first {
            return Err(LogError::BelowRetention { at: at.clone(), asked: from, first: Offset(first) });
        }
        Ok(no.filter(|_| from.0 < next))
    }

    /// The segment that holds an offset which can be read; `select` picks batches if it is the active one.
    pub fn share(&self, no: PartitionNo, from: u64, select: impl FnOnce(&[Entry], u64) -> Vec<Entry>) -> Share {
        // The last segment in which the partition starts at or before `from`: those before it hold nothing from there on.
        let i = self.sealed.partition_point(|segment| segment.start(no).next <= from);
        if self.active.segment.start(no).next <= from {
            let end = self.ledger.end(no).next;
            let entries = select(self.active.index.of(no), end);
            let active = Some((Arc::clone(&self.active.file), entries));
            return Share { segment: Arc::clone(&self.active.segment), no, end, active };
        }
        let i = i.saturating_sub(1);
        Share { segment: Arc::clone(&self.sealed[i]), no, end: self.end_in(i, no), active: None }
    }

    /// The first segment that can hold rows appended at `time` or later.
    pub fn index_at(&self, time: AppendTime) -> usize {
        // A segment's rows are no later than the start of the one behind it.
        let starts_behind = self.segments().skip(1).map(|segment| segment.header.started);
        starts_behind.take_while(|started| *started < time).count()
    }

    /// A mark was written.
    pub fn set_active_bytes(&mut self, bytes: u64) {
        Arc::make_mut(&mut self.active.segment).bytes = bytes;
    }

    /// The group's frames are on disk: `frame_bytes` more.
    pub fn apply(&mut self, staged: Staged, frame_bytes: u64) {
        Arc::make_mut(&mut self.active.segment).bytes += frame_bytes;
        for batch in staged.batches {
            let no = self.ledger.append(&batch.at, batch.n_records, u64::from(batch.entry.len));
            self.active.index.push(no, batch.entry);
        }
        for advance in &staged.progress {
            self.ledger.advance(advance);
        }
    }
}
