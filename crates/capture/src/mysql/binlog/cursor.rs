//! Reading the pieces that events are made of, never beyond their end.
//!
//! Integers are little endian unless they say otherwise ("MySQL Internals: Integer types"); a length-encoded integer is one byte below 251,
//! else 252, 253 or 254 and 2, 3 or 8 bytes.

use super::error::{BinlogError, Result};
use bytes::Bytes;

/// A place in an event's bytes. What it gives out are slices of the event: nothing is copied.
#[derive(Debug, Clone)]
pub struct Cursor {
    bytes: Bytes,
    at: usize,
    /// What is being read, for errors.
    what: &'static str,
}

impl Cursor {
    pub fn new(what: &'static str, bytes: Bytes) -> Self {
        Self { bytes, at: 0, what }
    }

    pub fn what(&self) -> &'static str {
        self.what
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    fn raw(&mut self, n: usize) -> Result<&[u8]> {
        if n > self.left() {
            return Err(BinlogError::Truncated { what: self.what, need: n, have: self.left() });
        }
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    /// The next `n` bytes, not kept.
    #[inline]
    pub fn slice(&mut self, n: usize) -> Result<&[u8]> {
        self.raw(n)
    }

    #[inline]
    pub fn take(&mut self, n: usize) -> Result<Bytes> {
        self.raw(n)?;
        Ok(self.bytes.slice(self.at - n..self.at))
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(N)?);
        Ok(array)
    }

    pub fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }

    pub fn skip(&mut self, n: usize) -> Result<()> {
        self.raw(n).map(|_| ())
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.raw(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Of `n` bytes, at most eight.
    #[inline]
    pub fn uint(&mut self, n: usize) -> Result<u64> {
        Ok(self.raw(n)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Of `n` bytes, at most eight, the highest first.
    #[inline]
    pub fn uint_be(&mut self, n: usize) -> Result<u64> {
        Ok(self.raw(n)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A length-encoded integer.
    pub fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            n @ 0..=250 => Ok(u64::from(n)),
            252 => self.uint(2),
            253 => self.uint(3),
            254 => self.u64(),
            _ => Err(BinlogError::malformed(self.what, "a length begins with 251 or 255")),
        }
    }

    /// A length-encoded integer that counts bytes of what follows.
    pub fn length(&mut self) -> Result<usize> {
        let n = self.lenenc()?;
        usize::try_from(n).ok().filter(|n| *n <= self.left()).ok_or(BinlogError::Truncated {
            what: self.what,
            need: usize::try_from(n).unwrap_or(usize::MAX),
            have: self.left(),
        })
    }

    pub fn lenenc_bytes(&mut self) -> Result<Bytes> {
        let n = self.length()?;
        self.take(n)
    }

    /// A cursor over the next `n` bytes alone.
    pub fn part(&mut self, what: &'static str, n: usize) -> Result<Self> {
        Ok(Self::new(what, self.take(n)?))
    }

    /// Unless all has been read.
    pub fn finish(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(BinlogError::malformed(self.what, "bytes are left over behind its last field")) }
    }
}

/// Names are UTF-8 on the wire; what is not is shown with replacement characters rather than refused.
pub fn name(bytes: &[u8]) -> std::sync::Arc<str> {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_encoded_integers() {
        let cases: [(&[u8], u64); 6] = [
            (&[0], 0),
            (&[250], 250),
            (&[252, 251, 0], 251),
            (&[252, 255, 255], 65_535),
            (&[253, 0, 0, 1], 65_536),
            (&[254, 1, 0, 0, 0, 0, 0, 0, 128], (1 << 63) + 1),
        ];
        for (bytes, want) in cases {
            let mut cursor = Cursor::new("test", Bytes::from_static(bytes));
            assert_eq!(cursor.lenenc(), Ok(want));
            cursor.finish().unwrap();
        }
        for bad in [&[251u8][..], &[255], &[252, 1], &[253, 1, 1], &[254, 1, 1, 1, 1, 1, 1, 1], &[]] {
            assert!(Cursor::new("test", Bytes::from_static(bad)).lenenc().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_anything_is_taken() {
        let mut cursor = Cursor::new("test", Bytes::from_static(&[254, 255, 255, 255, 255, 255, 255, 255, 255, 1]));
        assert!(matches!(cursor.lenenc_bytes(), Err(BinlogError::Truncated { have: 1, .. })));
    }
}
