//! What a read gives: rows in order, borrowed from the bytes that were read.

use bytes::Bytes;
use mulgil_model::ids::Offset;
use mulgil_model::time::AppendTime;

use crate::records::{BlockReader, RecordRef};

/// The most a read gives, whatever was asked for (and one record more when that alone is larger).
pub const MAX_READ_BYTES: usize = 64 << 20;

/// How much to read. A single record is given whatever its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimit {
    pub bytes: usize,
    pub records: usize,
}

impl ReadLimit {
    pub fn records(n: usize) -> Self {
        Self { bytes: MAX_READ_BYTES, records: n }
    }
}

/// Consecutive rows of one partition.
#[derive(Debug, Clone)]
pub struct Chunk {
    parts: Vec<Part>,
    next: Offset,
    n_records: usize,
    n_bytes: usize,
}

/// Some records of one block.
#[derive(Debug, Clone)]
struct Part {
    block: Bytes,
    base_offset: u64,
    append_time: AppendTime,
    /// Of the block: how many to pass over, and how many to give then.
    n_skipped: usize,
    n_records: usize,
}

impl Chunk {
    /// The rows in order; each borrows from the chunk.
    pub fn iter(&self) -> impl Iterator<Item = RecordRef<'_>> {
        self.parts.iter().flat_map(|part| {
            let mut reader = BlockReader::new(&part.block, part.base_offset, part.append_time);
            std::iter::from_fn(move || reader.next_record()).skip(part.n_skipped).take(part.n_records)
        })
    }

    pub fn len(&self) -> usize {
        self.n_records
    }

    pub fn is_empty(&self) -> bool {
        self.n_records == 0
    }

    /// Where to read on.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// The encoded size of its rows.
    pub fn size_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// Gathers a chunk until its limit is reached.
#[derive(Debug)]
pub(crate) struct ChunkBuilder {
    chunk: Chunk,
    limit: ReadLimit,
    is_full: bool,
}

impl ChunkBuilder {
    pub fn new(from: Offset, limit: ReadLimit) -> Self {
        let limit = ReadLimit { bytes: limit.bytes.min(MAX_READ_BYTES), records: limit.records };
        let chunk = Chunk { parts: Vec::new(), next: from, n_records: 0, n_bytes: 0 };
        Self { chunk, limit, is_full: limit.records == 0 }
    }

    pub fn is_full(&self) -> bool {
        self.is_full
    }

    pub fn next_offset(&self) -> u64 {
        self.chunk.next.0
    }

    /// What still fits: records, and their bytes.
    pub fn room(&self) -> ReadLimit {
        ReadLimit {
            bytes: self.limit.bytes.saturating_sub(self.chunk.n_bytes),
            records: self.limit.records.saturating_sub(self.chunk.n_records),
        }
    }

    /// Takes those records of a block that are wanted. `None`: the block is not what it should be.
    pub fn push(&mut self, block: Bytes, base_offset: u64, n_in_block: u32, append_time: AppendTime) -> Option<()> {
        let n_skipped = self.next_offset().checked_sub(base_offset)?;
        let n_skipped = usize::try_from(n_skipped).ok().filter(|n| *n < n_in_block as usize)?;
        let mut reader = BlockReader::new(&block, base_offset, append_time);
        for _ in 0..n_skipped {
            reader.next_record()?;
        }
        let mut n_records = 0;
        let mut before = reader.remaining_bytes();
        while n_records < n_in_block as usize - n_skipped {
            reader.next_record()?;
            let size = before - reader.remaining_bytes();
            before = reader.remaining_bytes();
            let is_first = self.chunk.n_records == 0;
            if self.chunk.n_records == self.limit.records || (!is_first && self.chunk.n_bytes + size > self.limit.bytes) {
                self.is_full = true;
                break;
            }
            self.chunk.n_records += 1;
            self.chunk.n_bytes += size;
            n_records += 1;
        }
        // Known here and not only with the next record: there may be none in this block.
        self.is_full |= self.chunk.n_records >= self.limit.records || self.chunk.n_bytes >= self.limit.bytes;
        if n_records > 0 {
            self.chunk.next = self.chunk.next.plus(n_records as u64);
            self.chunk.parts.push(Part { block, base_offset, append_time, n_skipped, n_records });
        }
        Some(())
    }

    pub fn finish(self) -> Chunk {
        self.chunk
    }
}
