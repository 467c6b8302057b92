//! Rows as bytes: built once by whoever appends, copied into the journal as they are, and read back without being copied.
//!
//! A record, all parts in [`crate::varint`] encoding:
//!
//! ```text
//! signed  event time, microseconds, minus that of the record before it in its block (the first: minus 0)
//! signed  receive time, likewise
//! bytes   key                         length, then the bytes
//! bytes   headers                     all of them as one run: name, value, name, value, … each length and bytes
//! bytes   value
//! ```
//!
//! Records stand in blocks of at most about [`BLOCK_BYTES`]; a block is read alone, so the first record of each is not a difference.

use bytes::Bytes;
use mulgil_model::ids::Offset;
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};

use crate::varint::{self, Reader};

/// A block is closed once it has this many bytes. It bounds what reading a single row costs, and the index needs 24 bytes for each.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// Encoded rows of one append.
#[derive(Debug, Clone, Default)]
pub struct Records {
    bytes: Bytes,
    blocks: Vec<Block>,
    largest_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it ends in the buffer.
    pub end: usize,
    pub n_records: u32,
}

impl Records {
    pub fn len(&self) -> u64 {
        self.blocks.iter().map(|b| u64::from(b.n_records)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The largest record, encoded.
    pub fn largest_bytes(&self) -> usize {
        self.largest_bytes
    }

    /// A block as it stands in the journal. `None` if it does not hold that many sound records.
    pub(crate) fn from_block(block: &[u8], n_records: u32) -> Option<Self> {
        let is_sound = n_records > 0 && block_is_sound(block, n_records);
        // No record is larger than its block.
        is_sound.then(|| Self {
            bytes: Bytes::copy_from_slice(block),
            blocks: vec![Block { end: block.len(), n_records }],
            largest_bytes: block.len(),
        })
    }

    pub(crate) fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The bytes and number of records of each block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (&[u8], u32)> {
        let starts = std::iter::once(0).chain(self.blocks.iter().map(|b| b.end));
        starts.zip(&self.blocks).map(|(start, block)| (&self.bytes[start..block.end], block.n_records))
    }
}

/// Encodes rows into one buffer. Costs about a copy.
#[derive(Debug, Default)]
pub struct RecordsBuilder {
    bytes: Vec<u8>,
    blocks: Vec<Block>,
    /// Of the block that is being filled.
    block_start: usize,
    n_in_block: u32,
    event_us: i64,
    receive_us: i64,
    largest_bytes: usize,
}

impl RecordsBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub fn push(&mut self, key: &[u8], headers: &[(&str, &[u8])], value: &[u8], event_time: EventTime, receive_time: ReceiveTime) {
        let start = self.bytes.len();
        // Wrapping, so that the two ends of the scale are as good as any other times.
        varint::put_signed(&mut self.bytes, event_time.micros().wrapping_sub(self.event_us));
        varint::put_signed(&mut self.bytes, receive_time.micros().wrapping_sub(self.receive_us));
        varint::put_bytes(&mut self.bytes, key);
        let headers_len: usize = headers.iter().map(|(name, value)| varint::bytes_len(name.as_bytes()) + varint::bytes_len(value)).sum();
        varint::put(&mut self.bytes, headers_len as u64);
        for (name, value) in headers {
            varint::put_bytes(&mut self.bytes, name.as_bytes());
            varint::put_bytes(&mut self.bytes, value);
        }
        varint::put_bytes(&mut self.bytes, value);

        self.event_us = event_time.micros();
        self.receive_us = receive_time.micros();
        self.n_in_block += 1;
        self.largest_bytes = self.largest_bytes.max(self.bytes.len() - start);
        if self.bytes.len() - self.block_start >= BLOCK_BYTES {
            self.close_block();
        }
    }

    pub fn len(&self) -> u64 {
        self.blocks.iter().map(|b| u64::from(b.n_records)).sum::<u64>() + u64::from(self.n_in_block)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes so far, to decide when a commit is large enough.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(mut self) -> Records {
        self.close_block();
        Records { bytes: self.bytes.into(), blocks: self.blocks, largest_bytes: self.largest_bytes }
    }

    fn close_block(&mut self) {
        if self.n_in_block > 0 {
            self.blocks.push(Block { end: self.bytes.len(), n_records: self.n_in_block });
            self.block_start = self.bytes.len();
            (self.n_in_block, self.event_us, self.receive_us) = (0, 0, 0);
        }
    }
}

/// One row of the log, borrowed from its [`crate::Chunk`].
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    pub offset: Offset,
    pub append_time: AppendTime,
    pub event_time: EventTime,
    pub receive_time: ReceiveTime,
    pub key: &'a [u8],
    pub value: &'a [u8],
    headers: &'a [u8],
}

impl<'a> RecordRef<'a> {
    pub fn headers(&self) -> Headers<'a> {
        Headers(Reader(self.headers))
    }

    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

/// Names and values of a record's headers, in their order.
#[derive(Debug, Clone)]
pub struct Headers<'a>(Reader<'a>);

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.text()?, self.0.bytes()?))
    }
}

/// Walks the records of one block.
#[derive(Debug, Clone)]
pub(crate) struct BlockReader<'a> {
    reader: Reader<'a>,
    offset: u64,
    append_time: AppendTime,
    event_us: i64,
    receive_us: i64,
}

impl<'a> BlockReader<'a> {
    pub fn new(block: &'a [u8], base_offset: u64, append_time: AppendTime) -> Self {
        Self { reader: Reader(block), offset: base_offset, append_time, event_us: 0, receive_us: 0 }
    }

    /// The next record, or `None` when the bytes are none.
    #[inline]
    pub fn next_record(&mut self) -> Option<RecordRef<'a>> {
        self.event_us = self.event_us.wrapping_add(self.reader.signed()?);
        self.receive_us = self.receive_us.wrapping_add(self.reader.signed()?);
        let key = self.reader.bytes()?;
        let headers = self.reader.bytes()?;
        let value = self.reader.bytes()?;
        let offset = Offset(self.offset);
        self.offset += 1;
        Some(RecordRef {
            offset,
            append_time: self.append_time,
            event_time: EventTime::from_micros(self.event_us),
            receive_time: ReceiveTime::from_micros(self.receive_us),
            key,
            value,
            headers,
        })
    }

    pub fn remaining_bytes(&self) -> usize {
        self.reader.0.len()
    }
}

/// Whether a block holds exactly that many well-formed records.
pub(crate) fn block_is_sound(block: &[u8], n_records: u32) -> bool {
    let mut reader = BlockReader::new(block, 0, AppendTime::from_micros(0));
    let sound = |record: RecordRef<'_>| {
        let mut headers = record.headers();
        headers.by_ref().for_each(drop);
        headers.0.is_empty()
    };
    (0..n_records).all(|_| reader.next_record().is_some_and(sound)) && reader.reader.is_empty()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn times(us: i64) -> (EventTime, ReceiveTime) {
        (EventTime::from_micros(us), ReceiveTime::from_micros(us.wrapping_add(5)))
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let mut builder = RecordsBuilder::new();
        let us = [0, 1_700_000_000_000_000, 1_700_000_000_000_001, i64::MIN, i64::MAX, -1];
        for us in us {
            let (event, receive) = times(us);
            builder.push(b"k", &[("schema", b"7"), ("empty", b""), ("schema", b"8")], &us.to_le_bytes(), event, receive);
        }
        assert_eq!((builder.len(), builder.is_empty()), (6, false));
        let records = builder.finish();
        assert_eq!((records.len(), records.n_blocks()), (6, 1));
        let (block, n) = records.blocks().next().unwrap();
        assert!(block_is_sound(block, n));
        assert!(!block_is_sound(block, n - 1) && !block_is_sound(block, n + 1) && !block_is_sound(&block[..block.len() - 1], n));

        let mut reader = BlockReader::new(block, 100, AppendTime::from_micros(9));
        for (i, us) in us.into_iter().enumerate() {
            let record = reader.next_record().unwrap();
            assert_eq!((record.offset.0, record.append_time.micros()), (100 + i as u64, 9));
            assert_eq!((record.event_time, record.receive_time), times(us));
            assert_eq!((record.key, record.value), (&b"k"[..], &us.to_le_bytes()[..]));
            assert_eq!(record.headers().map(|(name, _)| name).collect::<Vec<_>>(), ["schema", "empty", "schema"]);
            assert_eq!((record.header("schema"), record.header("nothing")), (Some(&b"7"[..]), None));
        }
        assert!(reader.next_record().is_none());
    }

    #[test]
    fn blocks_are_bounded_and_read_alone() {
        let mut builder = RecordsBuilder::with_capacity(1 << 20);
        for i in 0..10_000 {
            let (event, receive) = times(1_700_000_000_000_000 + i);
            builder.push(b"005930", &[], &[1; 41], event, receive);
        }
        builder.push(b"", &[], &vec![0; 3 * BLOCK_BYTES], EventTime::from_micros(1), ReceiveTime::from_micros(1));
        let records = builder.finish();
        assert_eq!((records.len(), records.n_blocks()), (10_001, records.blocks().count()));
        assert!(records.largest_bytes() > 3 * BLOCK_BYTES);
        let mut n = 0;
        for (block, n_records) in records.blocks() {
            assert!(block_is_sound(block, n_records));
            assert!(block.len() < BLOCK_BYTES + records.largest_bytes());
            let first = BlockReader::new(block, n, AppendTime::from_micros(0)).next_record().unwrap();
            assert!(first.event_time.micros() >= 1_700_000_000_000_000);
            n += u64::from(n_records);
        }
        assert!(RecordsBuilder::new().finish().is_empty());
    }
}
