//! Packets: three bytes of length, one sequence number, payload; 16 MiB and more in several.
//!
//! "MySQL Packets": a payload of exactly 2^24-1 bytes is continued by the next packet, which may be empty.

use super::error::WireError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEADER_BYTES: usize = 4;
const PART_BYTES_MAX: usize = (1 << 24) - 1;
/// Asked of the system at a time; memory grows only with what has arrived.
const READ_BYTES: usize = 128 << 10;

/// TCP, or TLS over it.
pub trait Transport: AsyncRead + AsyncWrite + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Send + Sync> Transport for T {}

pub type Io = Pin<Box<dyn Transport>>;

/// Joins packets to payloads. What a payload is sliced from is shared, not copied, unless it came in several packets.
///
/// May be dropped while it waits and asked again: what has arrived is kept here.
#[derive(Default)]
pub struct PacketReader {
    arrived: BytesMut,
    /// Of a payload whose last packet has not arrived.
    parts: BytesMut,
    sequence: u8,
    max: usize,
}

impl PacketReader {
    pub fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    /// The answer to a command counts from one.
    pub(super) fn expect_sequence(&mut self, sequence: u8) {
        self.sequence = sequence;
    }

    pub(super) fn sequence(&self) -> u8 {
        self.sequence
    }

    /// Bytes that the server sent and nobody has asked for.
    pub(super) fn has_more(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Bytes as they arrived. For tests and fuzzing; a connection reads them itself.
    pub fn push(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
    }

    /// The next payload, if all of it has arrived.
    pub fn take(&mut self) -> Result<Option<Bytes>, WireError> {
        loop {
            if self.arrived.len() < HEADER_BYTES {
                return Ok(None);
            }
            let length = self.arrived[..3].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
            if length + self.parts.len() > self.max {
                return Err(WireError::TooLarge { max: self.max });
            }
            if self.arrived[3] != self.sequence {
                return Err(WireError::Malformed { what: "packet in its order" });
            }
            if self.arrived.len() < HEADER_BYTES + length {
                return Ok(None);
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.arrived.advance(HEADER_BYTES);
            let part = self.arrived.split_to(length);
            if length < PART_BYTES_MAX && self.parts.is_empty() {
                return Ok(Some(part.freeze()));
            }
            self.parts.unsplit_or_extend(part);
            if length < PART_BYTES_MAX {
                return Ok(Some(std::mem::take(&mut self.parts).freeze()));
            }
        }
    }

    pub(super) async fn read(&mut self, io: &mut Io) -> Result<Bytes, WireError> {
        loop {
            if let Some(payload) = self.take()? {
                return Ok(payload);
            }
            if self.arrived.capacity() - self.arrived.len() < READ_BYTES / 2 {
                self.arrived.reserve(READ_BYTES);
            }
            let n = io.read_buf(&mut self.arrived).await.map_err(|source| WireError::Io { what: "read from the server", source })?;
            if n == 0 {
                return Err(WireError::Closed);
            }
        }
    }
}

trait Extend {
    fn unsplit_or_extend(&mut self, part: BytesMut);
}

impl Extend for BytesMut {
    fn unsplit_or_extend(&mut self, part: BytesMut) {
        if self.is_empty() { *self = part } else { self.extend_from_slice(&part) }
    }
}

/// Writes a payload as packets from this sequence number on, and gives the next one.
pub(super) async fn write(io: &mut Io, mut sequence: u8, payload: &[u8]) -> Result<u8, WireError> {
    let bytes = framed(&mut sequence, payload);
    let failed = |source| WireError::Io { what: "write to the server", source };
    io.write_all(&bytes).await.map_err(failed)?;
    io.flush().await.map_err(failed)?;
    Ok(sequence)
}

fn framed(sequence: &mut u8, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(payload.len() + HEADER_BYTES * (1 + payload.len() / PART_BYTES_MAX));
    let mut rest = payload;
    loop {
        let (part, behind) = rest.split_at(rest.len().min(PART_BYTES_MAX));
        out.put_uint_le(part.len() as u64, 3);
        out.put_u8(*sequence);
        out.put_slice(part);
        *sequence = sequence.wrapping_add(1);
        if part.len() < PART_BYTES_MAX {
            return out;
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(max: usize) -> PacketReader {
        PacketReader::new(max)
    }

    #[test]
    fn payloads_of_any_length_arrive_whole_however_they_are_cut() {
        for length in [0, 1, 300, PART_BYTES_MAX - 1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 2 * PART_BYTES_MAX] {
            let payload: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let bytes = framed(&mut 0, &payload);
            let mut reader = reader(1 << 26);
            let mut got = None;
            for piece in bytes.chunks(1_000_003) {
                assert!(got.is_none(), "{length}");
                reader.push(piece);
                got = reader.take().expect("packet");
            }
            assert_eq!(got.as_deref(), Some(&payload[..]), "{length}");
        }
    }

    #[test]
    fn the_documented_example_is_read() {
        // "MySQL Packets", example: COM_QUIT.
        let mut reader = reader(100);
        reader.push(&[0x01, 0x00, 0x00, 0x00, 0x01]);
        assert_eq!(reader.take().expect("packet").as_deref(), Some(&[1][..]));
    }

    #[test]
    fn too_large_and_out_of_order_are_refused_before_they_arrive() {
        let mut r = reader(100);
        r.push(&[101, 0, 0, 0]);
        assert!(matches!(r.take(), Err(WireError::TooLarge { max: 100 })));
        let mut r = reader(100);
        r.push(&[1, 0, 0, 7, 0]);
        assert!(matches!(r.take(), Err(WireError::Malformed { .. })));
    }
}
