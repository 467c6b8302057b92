//! Removes old segments, whole ones, from the front, and never a row that somebody still needs.

use std::sync::Arc;

use mulgil_disk::{DiskResult, OpenMode, failpoint};
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

/// What one retention leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Retaining {
    /// A segment was removed, and the folder could not be synced.
    has_unsynced_names: bool,
}

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
        let mut retaining = self.retaining.lock();
        self.sync_names(&mut retaining)?;
        let mut retained = Retained::default();
        loop {
            match self.candidate(floor) {
                Candidate::None => return Ok(retained),
                Candidate::Held(at, end) => {
                    retained.held_by = Some((at, end));
                    return Ok(retained);
                }
                Candidate::Segment(segment) => {
                    self.remove(&segment, &mut retaining)?;
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

    /// First out of sight, then off the disk; back in sight if it is still there, so that nothing behind it goes before it does.
    fn remove(&self, segment: &Arc<Segment>, retaining: &mut Retaining) -> LogResult<()> {
        self.shared.view.write().sealed.pop_front();
        self.shared.loaded.forget(segment);
        if let Err(error) = self.remove_files(segment) {
            self.shared.view.write().sealed.push_front(Arc::clone(segment));
            return Err(error.into());
        }
        retaining.has_unsynced_names = true;
        failpoint::here("log.retained");
        self.sync_names(retaining)
    }

    fn remove_files(&self, segment: &Segment) -> DiskResult<()> {
        let disk = &self.shared.disk;
        match disk.remove(&segment.index_path()) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
        failpoint::here("log.retention");
        // One that failed may have happened all the same.
        let is_gone = || disk.open(&segment.path, OpenMode::Read).is_err_and(|error| error.is_missing());
        disk.remove(&segment.path).or_else(|error| if is_gone() { Ok(()) } else { Err(error) })
    }

    /// One by one: after a crash the removed segments are the first ones, without a hole. So none goes before the one in front of it is
    /// known to be gone for good.
    fn sync_names(&self, retaining: &mut Retaining) -> LogResult<()> {
        if retaining.has_unsynced_names {
            self.shared.disk.sync_dir(&self.shared.config.journal_dir())?;
            retaining.has_unsynced_names = false;
        }
        Ok(())
    }
}
