//! Reads a whole segment from its checkpoint on: to open the journal, to rebuild an index, to verify.

use std::sync::Arc;

use mulgil_disk::{DiskError, DiskFile};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::time::AppendTime;

use crate::Advance;
use crate::format::{self, Frame, FrameKind, HEADER_BYTES, Reason, SegmentHeader};
use crate::index::{Entry, SegmentIndex};
use crate::ledger::Ledger;
use crate::records;
use crate::scan::{Scanned, Scanner};

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Checksums, sequences, offsets.
    Frames,
    /// Also that each block holds the records it says.
    Records,
}

/// A segment up to the end of its last whole commit.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub header: SegmentHeader,
    /// As of the checkpoint at the front.
    pub start: Ledger,
    pub ledger: Ledger,
    pub index: SegmentIndex,
    pub next_sequence: u64,
    pub last_append: AppendTime,
    pub n_commits: u64,
    pub n_records: u64,
    /// Where the last whole commit (or mark) ends.
    pub end: u64,
    /// A clean stop wrote the last frame.
    pub is_marked: bool,
    pub stop: Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All of the segment was read.
    End,
    /// What follows was never acknowledged.
    Torn { byte: u64, reason: Reason },
    /// What follows was acknowledged and is not what was written.
    Damaged { byte: u64, reason: Reason },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("byte {byte}: {reason}")]
    Damaged { byte: u64, reason: Reason },
}

/// The header and checkpoint of a segment, and where the checkpoint ends.
pub(crate) fn read_start(file: &Arc<dyn DiskFile>, segment: u64, end: u64) -> Result<(SegmentHeader, Ledger, Scanner), ReplayError> {
    let mut bytes = [0; HEADER_BYTES];
    if end < HEADER_BYTES as u64 {
        return Err(ReplayError::Damaged { byte: 0, reason: "the file ends inside the segment header" });
    }
    file.read_at(0, &mut bytes)?;
    let header = SegmentHeader::decode(&bytes).map_err(|reason| ReplayError::Damaged { byte: 0, reason })?;
    if header.first_sequence != segment {
        return Err(ReplayError::Damaged { byte: 16, reason: "the segment was renamed" });
    }
    let mut scanner = Scanner::new(Arc::clone(file), segment, end);
    let damaged = |reason| ReplayError::Damaged { byte: HEADER_BYTES as u64, reason };
    let ledger = match scanner.next_frame()? {
        Scanned::Frame { frame, .. } if frame.kind == FrameKind::Checkpoint && frame.commit.sequence == segment => {
            Ledger::from_checkpoint(frame.body).ok_or_else(|| damaged("the checkpoint cannot be read"))?
        }
        Scanned::Frame { .. } | Scanned::End => return Err(damaged("the segment does not begin with its checkpoint")),
        Scanned::Bad { reason, .. } => return Err(damaged(reason)),
    };
    Ok((header, ledger, scanner))
}

/// Reads a segment of `end` bytes; `on_bytes` hears how far it has come.
pub(crate) fn replay(
    file: &Arc<dyn DiskFile>,
    segment: u64,
    end: u64,
    depth: Depth,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Replayed, ReplayError> {
    let (header, ledger, mut scanner) = read_start(file, segment, end)?;
    let mut replayer = Replayer::new(header, ledger, scanner.position(), depth);
    let stop = loop {
        match scanner.next_frame()? {
            Scanned::Frame { position, frame } => {
                if let Err(reason) = replayer.take(position, frame) {
                    break Stop::Damaged { byte: position, reason };
                }
                on_bytes(position);
            }
            Scanned::Bad { position, reason } => {
                let is_damage = scanner.proves_durable(position)?;
                break if is_damage { Stop::Damaged { byte: position, reason } } else { Stop::Torn { byte: position, reason } };
            }
            Scanned::End if replayer.batches.is_empty() && replayer.progress.is_empty() => break Stop::End,
            Scanned::End => break Stop::Torn { byte: replayer.done.end, reason: "the file ends inside a commit" },
        }
    };
    Ok(Replayed { stop, ..replayer.done })
}

struct Replayer {
    done: Replayed,
    depth: Depth,
    /// Of the commit whose end has not been seen.
    batches: Vec<(TopicPartition, Entry, u32)>,
    progress: Vec<Advance>,
}

impl Replayer {
    fn new(header: SegmentHeader, start: Ledger, end: u64, depth: Depth) -> Self {
        let done = Replayed {
            header,
            ledger: start.clone(),
            start,
            index: SegmentIndex::default(),
            next_sequence: header.first_sequence,
            last_append: header.started,
            n_commits: 0,
            n_records: 0,
            end,
            is_marked: false,
            stop: Stop::End,
        };
        Self { done, depth, batches: Vec::new(), progress: Vec::new() }
    }

    fn take(&mut self, position: u64, frame: Frame<'_>) -> Result<(), Reason> {
        if frame.commit.sequence != self.done.next_sequence {
            return Err("a commit is missing or out of order");
        }
        if frame.commit.append_time < self.done.last_append {
            return Err("an append time goes backwards");
        }
        let frame_end = position + (format::FRAME_HEAD_BYTES + frame.body.len()) as u64;
        match frame.kind {
            FrameKind::Batch => self.take_batch(position, frame)?,
            FrameKind::Progress => self.progress = format::decode_progress(frame.body).ok_or("progress cannot be read")?,
            FrameKind::Checkpoint => return Err("a checkpoint stands inside the segment"),
            FrameKind::Mark if self.batches.is_empty() => {
                (self.done.end, self.done.is_marked) = (frame_end, true);
                return Ok(());
            }
            FrameKind::Mark => return Err("a mark stands inside a commit"),
        }
        if frame.ends_commit {
            self.end_commit()?;
            self.done.last_append = frame.commit.append_time;
            self.done.end = frame_end;
        }
        Ok(())
    }

    fn take_batch(&mut self, position: u64, frame: Frame<'_>) -> Result<(), Reason> {
        let batch = format::decode_batch(frame.body).ok_or("a batch cannot be read")?;
        let topic = Topic::new(batch.topic).map_err(|_| "a batch names an impossible topic")?;
        if self.depth == Depth::Records && !records::block_is_sound(batch.records, batch.n_records) {
            return Err("a batch does not hold the records it should");
        }
        let entry = Entry {
            base_offset: batch.base_offset,
            append_time: frame.commit.append_time,
            position: position as u32,
            len: (format::FRAME_HEAD_BYTES + frame.body.len()) as u32,
        };
        self.batches.push((TopicPartition::new(topic, Partition(batch.partition)), entry, batch.n_records));
        Ok(())
    }

    fn end_commit(&mut self) -> Result<(), Reason> {
        let done = &mut self.done;
        for (at, entry, n_records) in self.batches.drain(..) {
            if entry.base_offset != done.ledger.next_offset(&at) {
                return Err("a batch does not follow the one before it");
            }
            let no = done.ledger.append(&at, n_records, u64::from(entry.len));
            done.index.push(no, entry);
            done.n_records += u64::from(n_records);
        }
        for advance in self.progress.drain(..) {
            if done.ledger.position(&advance.owner, &advance.partition).is_some_and(|stored| stored >= advance.position) {
                return Err("progress goes backwards");
            }
            done.ledger.advance(&advance);
        }
        done.next_sequence += 1;
        done.n_commits += 1;
        done.is_marked = false;
        Ok(())
    }
}
