//! Removes old segments, whole ones, from the front, and never a row that somebody still needs.

use std::sync::Arc;

use mulgil_disk::{DiskResult, failpoint};
use mulgil_model::ids::{Offset, TopicPartition};

use crate::config::is_older;
use crate::format::PartitionEnd;
use crate::journal::Journal;
use crate::segment::Segment;
use crate::view::View;
use crate::{LogError, LogResult};

/// What [`Journal::retain`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retained {
    pub n_segments: usize,
    pub bytes: u64,
    /// A partition whose floor kept a segment that was due to go, and the offset up to which the floor would have to rise.
    pub held_by: Option<(TopicPartition, Offset)>,
}

/// A partition, and where it ends in a segment.
type End = (TopicPartition, Offset);

enum Candidate {
    None,
    Held(TopicPartition, Offset),
    Segment(Arc<Segment>),
}

impl Journal {
    /// Removes sealed segments while [`crate::Retention`] is exceeded, but only those whose rows are all below `floor`: the first
    /// offset of a partition that must stay. Progress is never removed. Call it now and then; the journal does not by itself.
    pub fn retain(&self, floor: &dyn Fn(&TopicPartition) -> Offset) -> LogResult<Retained> {
        self.shared.check_alive()?;
        if self.is_read_only() {
            return Err(LogError::ReadOnly);
        }
        let _one_at_a_time = self.retaining.lock();
        let mut retained = Retained::default();
        loop {
            match self.candidate(floor) {
                Candidate::None => return Ok(retained),
                Candidate::Held(at, end) => {
                    retained.held_by = Some((at, end));
                    return Ok(retained);
                }
                Candidate::Segment(segment) => {
                    self.remove(&segment)?;
                    retained.n_segments += 1;
                    retained.bytes += segment.bytes;
                }
            }
        }
    }

    fn candidate(&self, floor: &dyn Fn(&TopicPartition) -> Offset) -> Candidate {
        // The floor may ask the journal something, so it is asked without the view.
        let Some((oldest, ends)) = self.oldest_due() else { return Candidate::None };
        match ends.into_iter().find(|(at, end)| floor(at) < *end) {
            Some((at, end)) => Candidate::Held(at, end),
            None => Candidate::Segment(oldest),
        }
    }

    /// The segment that is to go next, with the end of each partition that has rows in it.
    fn oldest_due(&self) -> Option<(Arc<Segment>, Vec<End>)> {
        let view = self.shared.view.read();
        let oldest = view.sealed.front().filter(|_| self.is_due(&view))?;
        let end_here = |end: &PartitionEnd| {
            let no = view.ledger.number(&end.at)?;
            let end_here = view.end_in(0, no);
            (oldest.start(no).next < end_here).then(|| (end.at.clone(), Offset(end_here)))
        };
        Some((Arc::clone(oldest), view.ledger.ends().iter().filter_map(end_here).collect()))
    }

    fn is_due(&self, view: &View) -> bool {
        let too_large = self.shared.config.retention.bytes.is_some_and(|max| view.bytes() > max);
        // The youngest row of a segment is no younger than the start of the next.
        let sealed_at = view.segments().nth(1).map(|following| following.header.started);
        let too_old =
            self.shared.config.retention.time.zip(sealed_at).is_some_and(|(max, sealed)| is_older(sealed, (self.shared.clock)(), max));
        too_large || too_old
    }

    /// First out of sight, then off the disk; back in sight if that fails, so that nothing behind it goes before it does.
    fn remove(&self, segment: &Arc<Segment>) -> LogResult<()> {
        self.shared.view.write().sealed.pop_front();
        self.shared.loaded.forget(segment);
        if let Err(error) = self.remove_files(segment) {
            self.shared.view.write().sealed.push_front(Arc::clone(segment));
            return Err(error.into());
        }
        Ok(())
    }

    /// Synced one by one: after a crash the removed segments are the first ones, without a hole.
    fn remove_files(&self, segment: &Segment) -> DiskResult<()> {
        match self.shared.disk.remove(&segment.index_path()) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
        failpoint::here("log.retention");
        self.shared.disk.remove(&segment.path)?;
        failpoint::here("log.retained");
        self.shared.disk.sync_dir(&self.shared.config.journal_dir())
    }
}
