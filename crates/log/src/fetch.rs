//! Reads batches from a segment: neighbours in one go, each checked before a byte of it is believed.

use std::sync::Arc;

use bytes::Bytes;
use mulgil_disk::DiskFile;
use mulgil_model::ids::TopicPartition;

use crate::chunk::{ChunkBuilder, ReadLimit};
use crate::format::{self, FrameKind, Place};
use crate::index::Entry;
use crate::segment::Segment;
use crate::{LogError, LogResult};

/// Batches of other partitions between two of ours are read along when they take less than this.
const GAP_BYTES: u64 = 16 * 1024;
/// The most that is read in one go, unless one batch alone is larger.
const SPAN_BYTES: u64 = 1 << 20;

/// The batches that hold `from` and what follows, as many as could be needed for `limit`. `end` is the partition's end in this segment.
pub(crate) fn select(entries: &[Entry], from: u64, end: u64, limit: ReadLimit) -> Vec<Entry> {
    let first = entries.partition_point(|entry| entry.base_offset <= from).saturating_sub(1);
    let mut selected = Vec::new();
    let mut bytes = 0usize;
    for entry in &entries[first..] {
        // The last batch may be cut short by the limit, so one that begins at the limit is not needed.
        let n_before = entry.base_offset.saturating_sub(from);
        if entry.base_offset >= end || bytes > limit.bytes || n_before >= limit.records as u64 {
            break;
        }
        bytes = bytes.saturating_add(entry.len as usize);
        selected.push(*entry);
    }
    selected
}

/// Reads those batches, in order, into the chunk until it is full.
pub(crate) fn fetch(
    file: &Arc<dyn DiskFile>,
    segment: &Segment,
    at: &TopicPartition,
    entries: &[Entry],
    into: &mut ChunkBuilder,
) -> LogResult<()> {
    let mut rest = entries;
    while !rest.is_empty() && !into.is_full() {
        let (near, later) = rest.split_at(n_near(rest));
        let (start, end) = (near[0].position, near[near.len() - 1]);
        let mut span = vec![0; (end.position + end.len - start) as usize];
        file.read_at(u64::from(start), &mut span).map_err(|error| read_error(segment, u64::from(start), error))?;
        let span = Bytes::from(span);
        for entry in near {
            let from = (entry.position - start) as usize;
            push_batch(segment, at, entry, span.slice(from..from + entry.len as usize), into)?;
            if into.is_full() {
                break;
            }
        }
        rest = later;
    }
    Ok(())
}

/// How many of the first entries to read in one go.
fn n_near(entries: &[Entry]) -> usize {
    let start = u64::from(entries[0].position);
    let near = |pair: &&[Entry]| {
        let before_end = u64::from(pair[0].position) + u64::from(pair[0].len);
        let end = u64::from(pair[1].position) + u64::from(pair[1].len);
        u64::from(pair[1].position).saturating_sub(before_end) <= GAP_BYTES && end - start <= SPAN_BYTES
    };
    1 + entries.windows(2).take_while(near).count()
}

fn push_batch(segment: &Segment, at: &TopicPartition, entry: &Entry, bytes: Bytes, into: &mut ChunkBuilder) -> LogResult<()> {
    let position = u64::from(entry.position);
    let place = Place { segment: segment.header.first_sequence, position };
    let frame = format::decode_frame(&bytes, place).map_err(|reason| segment.damaged(position, reason))?;
    let batch = match frame.kind {
        FrameKind::Batch => format::decode_batch(frame.body),
        FrameKind::Progress | FrameKind::Checkpoint | FrameKind::Mark => None,
    };
    let ours = batch.filter(|b| b.topic == at.topic.as_str() && b.partition == at.partition.0 && b.base_offset == entry.base_offset);
    let batch = ours.ok_or_else(|| segment.damaged(position, "the index leads to another batch"))?;
    into.push(bytes.slice_ref(batch.records), batch.base_offset, batch.n_records, frame.commit.append_time)
        .ok_or_else(|| segment.damaged(position, format!("offset {} of {at} is not where it should be", into.next_offset())))
}

fn read_error(segment: &Segment, position: u64, error: mulgil_disk::DiskError) -> LogError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => segment.damaged(position, "the file ends before a batch that was committed"),
        _ => error.into(),
    }
}
