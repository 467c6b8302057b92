//! Where the batches of a segment are: 24 bytes for each, in memory for the segment that is written, in a file beside sealed ones.
//!
//! An index file, little-endian. It can be deleted at any time: it is rebuilt from its segment, as it is when its checksum is wrong.
//!
//! ```text
//! 0   8 bytes "mulgil-i"
//! 8   u32     version, 1
//! 12  u32     crc32c of everything behind it
//! 16  u64     first sequence of its segment
//! 24  u64     bytes of its segment
//! 32  u32     number of partitions, then for each:
//!             u32 partition number, u32 number of batches, and for each batch
//!             u64 first offset, i64 append time, u32 position of its frame, u32 bytes of its frame
//! ```

use std::collections::BTreeMap;

use mulgil_model::time::AppendTime;

use crate::ledger::PartitionNo;

const MAGIC: &[u8; 8] = b"mulgil-i";
const VERSION: u32 = 1;
const ENTRY_BYTES: usize = 24;

/// Where one batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub base_offset: u64,
    pub append_time: AppendTime,
    pub position: u32,
    pub len: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    batches: BTreeMap<PartitionNo, Vec<Entry>>,
}

impl SegmentIndex {
    pub fn push(&mut self, no: PartitionNo, entry: Entry) {
        self.batches.entry(no).or_default().push(entry);
    }

    pub fn of(&self, no: PartitionNo) -> &[Entry] {
        self.batches.get(&no).map_or(&[], Vec::as_slice)
    }

    pub fn size_bytes(&self) -> usize {
        self.batches.values().map(|entries| entries.capacity() * ENTRY_BYTES).sum()
    }

    pub fn encode(&self, segment: u64, segment_bytes: u64) -> Vec<u8> {
        let n: usize = self.batches.values().map(Vec::len).sum();
        let mut bytes = Vec::with_capacity(36 + 8 * self.batches.len() + ENTRY_BYTES * n);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&segment.to_le_bytes());
        bytes.extend_from_slice(&segment_bytes.to_le_bytes());
        bytes.extend_from_slice(&(self.batches.len() as u32).to_le_bytes());
        for (no, entries) in &self.batches {
            bytes.extend_from_slice(&no.0.to_le_bytes());
            bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
            for entry in entries {
                bytes.extend_from_slice(&entry.base_offset.to_le_bytes());
                bytes.extend_from_slice(&entry.append_time.micros().to_le_bytes());
                bytes.extend_from_slice(&entry.position.to_le_bytes());
                bytes.extend_from_slice(&entry.len.to_le_bytes());
            }
        }
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if the bytes are not the index of just this segment.
    pub fn decode(bytes: &[u8], segment: u64, segment_bytes: u64) -> Option<Self> {
        let mut fields = Fields(bytes);
        let known = fields.take::<8>()? == *MAGIC && fields.u32()? == VERSION;
        let intact = fields.u32()? == crc32c::crc32c(bytes.get(16..)?);
        if !(known && intact && fields.u64()? == segment && fields.u64()? == segment_bytes) {
            return None;
        }
        let mut index = Self::default();
        for _ in 0..fields.u32()? {
            let no = PartitionNo(fields.u32()?);
            let n = fields.u32()? as usize;
            let mut entries = Vec::with_capacity(n.min(fields.0.len() / ENTRY_BYTES));
            for _ in 0..n {
                let (base_offset, time) = (fields.u64()?, fields.u64()?);
                let append_time = AppendTime::from_micros(time as i64);
                entries.push(Entry { base_offset, append_time, position: fields.u32()?, len: fields.u32()? });
            }
            index.batches.insert(no, entries);
        }
        fields.0.is_empty().then_some(index)
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_or_is_refused() {
        let mut index = SegmentIndex::default();
        for i in 0..5u32 {
            let entry = Entry { base_offset: 7 * u64::from(i), append_time: AppendTime::from_micros(-3), position: 40 + i, len: 9 };
            index.push(PartitionNo(i % 2), entry);
        }
        let bytes = index.encode(3, 999);
        assert_eq!(SegmentIndex::decode(&bytes, 3, 999).as_ref(), Some(&index));
        assert_eq!(SegmentIndex::decode(&bytes, 4, 999), None);
        assert_eq!(SegmentIndex::decode(&bytes, 3, 998), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentIndex::decode(&flipped, 3, 999), None, "bit {bit}");
        }
        for n in 0..bytes.len() {
            assert_eq!(SegmentIndex::decode(&bytes[..n], 3, 999), None);
        }
    }
}
