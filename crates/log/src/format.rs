//! The journal on disk, version 1. All fixed-width numbers are little-endian, `varint` and `bytes` as in [`crate::varint`].
//!
//! ```text
//! <data folder>/lock                              held by the one process that has the journal open
//! <data folder>/journal/00000000000000000000.log  a segment, named after the sequence of its first commit
//! <data folder>/journal/00000000000000000000.idx  rebuildable index of a sealed segment (see index.rs)
//!
//! segment  =  header, checkpoint frame, then frames; only the last segment is written to
//!
//! header (40 bytes)              0  8 bytes "mulgil-j"
//!                                8  u32     version, 1
//!                               12  u32     crc32c of the other 36 bytes
//!                               16  u64     sequence of the first commit; equals the file's name
//!                               24  u64     the same of the segment before, u64::MAX for the very first
//!                               32  i64     when the segment was begun, microseconds; no append time in it is earlier
//!
//! frame                          0  u16     0x674d
//!                                2  u8      kind: 1 batch, 2 progress, 3 checkpoint, 4 mark
//!                                3  u8      1 if it ends its commit, else 0
//!                                4  u32     crc32c (below)
//!                                8  u32     bytes in the body
//!                               12  u32     bytes before this frame that were not known durable when it was written
//!                               16  u64     sequence of its commit; for 3 and 4: of the next commit
//!                               24  i64     append time of its commit, microseconds
//!                               32          body
//!
//! body of a batch      bytes topic, varint partition, varint offset of the first record, varint number of records,
//!                      then the records (records.rs) up to the end
//! body of progress     varint n, n times: bytes owner, bytes topic, varint partition, varint commit, varint ordinal
//! body of a checkpoint varint n, n times: bytes topic, varint partition, varint next offset, varint bytes of all its batch frames ever;
//!                      then progress, as above
//! body of a mark       nothing
//! ```
//!
//! One commit is a group of frames of the same sequence: a batch per block of records, then progress if there is any; the last has its
//! end flag set, and without it the commit does not exist. Sequences have no holes. Append times never go backwards. A partition's
//! place in the checkpoint is its number in indexes; new partitions get the next number with their first batch.
//!
//! The crc covers the segment's first sequence, the frame's position in the file (both u64), bytes 0..4 and 8.. of the frame and its
//! body. So a frame copied elsewhere (a journal inside a row's value) is not taken for one of ours.
//!
//! **Torn tail or damage?** Power loss may leave any part of what was not yet synced. Bytes 12..16 say how far back that reaches. A bad
//! frame is damage if a good frame behind it says that the bad one was durable by then; else nothing behind it was ever acknowledged
//! and the file is cut at the end of the last whole commit. A clean stop writes a mark, so that the last commit too has a good frame
//! behind it.

use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;

use crate::varint::{self, Reader};
use crate::{Advance, Owner};

pub(crate) const HEADER_BYTES: usize = 40;
pub(crate) const FRAME_HEAD_BYTES: usize = 32;
pub(crate) const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"mulgil-j";
pub(crate) const FRAME_MAGIC: [u8; 2] = 0x674d_u16.to_le_bytes();
const NO_SEGMENT: u64 = u64::MAX;

/// The first 40 bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub first_sequence: u64,
    pub previous: Option<u64>,
    pub started: AppendTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Batch = 1,
    Progress = 2,
    Checkpoint = 3,
    Mark = 4,
}

/// What is the same in all frames of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CommitHead {
    pub sequence: u64,
    pub append_time: AppendTime,
}

/// Where a frame stands: part of what its checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u64,
    pub position: u64,
}

/// What a frame says before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub kind: FrameKind,
    pub ends_commit: bool,
    pub unsynced_bytes: u32,
    pub commit: CommitHead,
}

/// A frame whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub kind: FrameKind,
    pub ends_commit: bool,
    pub unsynced_bytes: u32,
    pub commit: CommitHead,
    pub body: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batch<'a> {
    pub topic: &'a str,
    pub partition: u32,
    pub base_offset: u64,
    pub n_records: u32,
    pub records: &'a [u8],
}

/// How far a partition has come, as a checkpoint keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionEnd {
    pub at: TopicPartition,
    pub next: u64,
    /// Of all its batch frames ever, so that differences of checkpoints give sizes.
    pub bytes: u64,
}

/// Why bytes are not what they should be; for people.
pub(crate) type Reason = &'static str;

impl SegmentHeader {
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.previous.unwrap_or(NO_SEGMENT).to_le_bytes());
        bytes[32..40].copy_from_slice(&self.started.micros().to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Reason> {
        if &bytes[..8] != MAGIC {
            return Err("not a mulgil journal segment");
        }
        if u32_at(bytes, 12) != crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]) {
            return Err("the checksum of the segment header is wrong");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("the segment was written by a newer mulgil");
        }
        Ok(Self {
            first_sequence: u64_at(bytes, 16),
            previous: Some(u64_at(bytes, 24)).filter(|n| *n != NO_SEGMENT),
            started: AppendTime::from_micros(u64_at(bytes, 32) as i64),
        })
    }
}

/// Appends a frame to `into`; `write_body` appends its body.
pub(crate) fn put_frame(into: &mut Vec<u8>, place: Place, head: FrameHead, write_body: impl FnOnce(&mut Vec<u8>)) {
    let start = into.len();
    into.extend_from_slice(&FRAME_MAGIC);
    into.extend_from_slice(&[head.kind as u8, u8::from(head.ends_commit)]);
    into.extend_from_slice(&[0; 8]);
    into.extend_from_slice(&head.unsynced_bytes.to_le_bytes());
    into.extend_from_slice(&head.commit.sequence.to_le_bytes());
    into.extend_from_slice(&head.commit.append_time.micros().to_le_bytes());
    write_body(into);
    let body_bytes = (into.len() - start - FRAME_HEAD_BYTES) as u32;
    into[start + 8..start + 12].copy_from_slice(&body_bytes.to_le_bytes());
    let crc = frame_crc(&into[start..], place);
    into[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

fn frame_crc(frame: &[u8], place: Place) -> u32 {
    let crc = crc32c::crc32c(&place.segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &place.position.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &frame[..4]);
    crc32c::crc32c_append(crc, &frame[8..])
}

/// The length of a frame by its head, which is not checked here.
pub(crate) fn frame_len(head: &[u8]) -> usize {
    FRAME_HEAD_BYTES + u32_at(head, 8) as usize
}

/// Checks the frame that `bytes` are, exactly.
pub(crate) fn decode_frame(bytes: &[u8], place: Place) -> Result<Frame<'_>, Reason> {
    if bytes.len() < FRAME_HEAD_BYTES || frame_len(bytes) != bytes.len() {
        return Err("a frame has the wrong length");
    }
    if bytes[..2] != FRAME_MAGIC {
        return Err("no frame begins here");
    }
    if u32_at(bytes, 4) != frame_crc(bytes, place) {
        return Err("the checksum of a frame is wrong");
    }
    let kind = match bytes[2] {
        1 => FrameKind::Batch,
        2 => FrameKind::Progress,
        3 => FrameKind::Checkpoint,
        4 => FrameKind::Mark,
        _ => return Err("a frame is of an unknown kind"),
    };
    Ok(Frame {
        kind,
        ends_commit: bytes[3] == 1,
        unsynced_bytes: u32_at(bytes, 12),
        commit: CommitHead { sequence: u64_at(bytes, 16), append_time: AppendTime::from_micros(u64_at(bytes, 24) as i64) },
        body: &bytes[FRAME_HEAD_BYTES..],
    })
}

pub(crate) fn put_batch(into: &mut Vec<u8>, at: &TopicPartition, base: Offset, n_records: u32, records: &[u8]) {
    put_partition(into, at);
    varint::put(into, base.0);
    varint::put(into, u64::from(n_records));
    into.extend_from_slice(records);
}

pub(crate) fn decode_batch(body: &[u8]) -> Option<Batch<'_>> {
    let mut reader = Reader(body);
    let topic = reader.text()?;
    let partition = reader.number_u32()?;
    let base_offset = reader.number()?;
    let n_records = reader.number_u32()?;
    // An offset that cannot be counted on from is not one.
    base_offset.checked_add(u64::from(n_records))?;
    Some(Batch { topic, partition, base_offset, n_records, records: reader.0 })
}

pub(crate) fn put_progress<'a>(into: &mut Vec<u8>, progress: impl ExactSizeIterator<Item = (&'a Owner, &'a TopicPartition, Position)>) {
    varint::put(into, progress.len() as u64);
    for (owner, at, position) in progress {
        varint::put_bytes(into, owner.as_str().as_bytes());
        put_partition(into, at);
        varint::put(into, position.commit);
        varint::put(into, position.ordinal);
    }
}

pub(crate) fn decode_progress(body: &[u8]) -> Option<Vec<Advance>> {
    let mut reader = Reader(body);
    let progress = take_progress(&mut reader)?;
    reader.is_empty().then_some(progress)
}

pub(crate) fn put_ends<'a>(into: &mut Vec<u8>, ends: impl ExactSizeIterator<Item = &'a PartitionEnd>) {
    varint::put(into, ends.len() as u64);
    for end in ends {
        put_partition(into, &end.at);
        varint::put(into, end.next);
        varint::put(into, end.bytes);
    }
}

pub(crate) fn decode_checkpoint(body: &[u8]) -> Option<(Vec<PartitionEnd>, Vec<Advance>)> {
    let mut reader = Reader(body);
    let n = reader.number()?;
    let ends = (0..n).map(|_| Some(PartitionEnd { at: take_partition(&mut reader)?, next: reader.number()?, bytes: reader.number()? }));
    let ends = ends.collect::<Option<Vec<_>>>()?;
    let progress = take_progress(&mut reader)?;
    reader.is_empty().then_some((ends, progress))
}

fn take_progress(reader: &mut Reader<'_>) -> Option<Vec<Advance>> {
    let n = reader.number()?;
    let one = |_| {
        let owner = Owner::new(reader.text()?).ok()?;
        let partition = take_partition(reader)?;
        Some(Advance { owner, partition, position: Position::new(reader.number()?, reader.number()?) })
    };
    (0..n).map(one).collect()
}

fn put_partition(into: &mut Vec<u8>, at: &TopicPartition) {
    varint::put_bytes(into, at.topic.as_str().as_bytes());
    varint::put(into, u64::from(at.partition.0));
}

fn take_partition(reader: &mut Reader<'_>) -> Option<TopicPartition> {
    let topic = Topic::new(reader.text()?).ok()?;
    Some(TopicPartition::new(topic, Partition(reader.number_u32()?)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use expect_test::expect;

    const PLACE: Place = Place { segment: 3, position: 40 };

    fn at(topic: &str, partition: u32) -> TopicPartition {
        TopicPartition::new(Topic::new(topic).unwrap(), Partition(partition))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().chunks(16).map(|line| line.join(" ") + "\n").collect()
    }

    fn frame(kind: FrameKind, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        let commit = CommitHead { sequence: 7, append_time: AppendTime::from_micros(-2) };
        put_frame(&mut bytes, PLACE, FrameHead { kind, ends_commit: false, unsynced_bytes: 5, commit }, body);
        bytes
    }

    #[test]
    fn headers_and_frames_have_fixed_bytes() {
        let header = SegmentHeader { first_sequence: 3, previous: Some(1), started: AppendTime::from_micros(1_000) };
        expect![[r#"
            6d 75 6c 67 69 6c 2d 6a 01 00 00 00 3a e8 93 6e
            03 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00
            e8 03 00 00 00 00 00 00
        "#]]
        .assert_eq(&hex(&header.encode()));
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        let first = SegmentHeader { previous: None, ..header };
        assert_eq!(SegmentHeader::decode(&first.encode()), Ok(first));

        let batch = frame(FrameKind::Batch, |into| put_batch(into, &at("trades", 1), Offset(300), 2, b"rows"));
        expect![[r#"
            4d 67 01 00 46 dc 96 f2 0f 00 00 00 05 00 00 00
            07 00 00 00 00 00 00 00 fe ff ff ff ff ff ff ff
            06 74 72 61 64 65 73 01 ac 02 02 72 6f 77 73
        "#]]
        .assert_eq(&hex(&batch));
    }

    #[test]
    fn every_flipped_bit_of_a_header_or_frame_is_seen() {
        let header = SegmentHeader { first_sequence: 3, previous: None, started: AppendTime::from_micros(1_000) };
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
        }
        let good = frame(FrameKind::Progress, |into| put_progress(into, [].into_iter()));
        assert!(decode_frame(&good, PLACE).is_ok());
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&bytes, PLACE).is_err(), "bit {bit}");
        }
        for place in [Place { position: 41, ..PLACE }, Place { segment: 4, ..PLACE }] {
            assert_eq!(decode_frame(&good, place), Err("the checksum of a frame is wrong"));
        }
    }

    #[test]
    fn bodies_come_back() {
        let owner = Owner::new("shard/x").unwrap();
        let ends = [PartitionEnd { at: at("a", 0), next: 5, bytes: 900 }, PartitionEnd { at: at("b.c", 70_000), next: 0, bytes: 0 }];
        let progress = [Advance { owner: owner.clone(), partition: at("a", 0), position: Position::new(u64::MAX, 1) }];
        let mut body = Vec::new();
        put_ends(&mut body, ends.iter());
        put_progress(&mut body, progress.iter().map(|p| (&p.owner, &p.partition, p.position)));
        assert_eq!(decode_checkpoint(&body), Some((ends.to_vec(), progress.to_vec())));
        for n in 0..body.len() {
            assert_eq!(decode_checkpoint(&body[..n]), None);
        }
        assert_eq!(decode_progress(&body[body.len() - 23..]), Some(progress.to_vec()));

        let batch = frame(FrameKind::Batch, |into| put_batch(into, &at("trades", 1), Offset(300), 2, b"rows"));
        let decoded = decode_frame(&batch, PLACE).unwrap();
        assert!(!decoded.ends_commit && decoded.unsynced_bytes == 5 && decoded.commit.sequence == 7);
        let want = Batch { topic: "trades", partition: 1, base_offset: 300, n_records: 2, records: b"rows" };
        assert_eq!(decode_batch(decoded.body), Some(want));
    }
}
