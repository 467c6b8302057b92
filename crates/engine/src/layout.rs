//! The bytes of state entries, of this crate's operators and of those of other crates: a version byte, then fields.
//!
//! - unsigned: LEB128, 7 bits a byte, low bits first, the high bit set on all but the last byte;
//! - signed: zigzag (0, -1, 1, -2 … become 0, 1, 2, 3 …), then as unsigned;
//! - 256 bits: the high half signed, then the low half unsigned, inverted where the high half is negative;
//! - float: 8 bytes, IEEE 754, little endian;
//! - text and nested values: length, then bytes.
//!
//! Small numbers dominate (counts, neighbours' differences), so that an entry is a third of its size in memory.

use arrow::datatypes::i256;

/// Appends an unsigned number.
pub fn put_u(out: &mut Vec<u8>, mut n: u128) {
    while n >= 0x80 {
        out.push((n as u8 & 0x7f) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed number.
pub fn put_i(out: &mut Vec<u8>, n: i128) {
    put_u(out, ((n << 1) ^ (n >> 127)) as u128);
}

pub fn put_u64(out: &mut Vec<u8>, n: u64) {
    put_u(out, n.into());
}

pub fn put_i64(out: &mut Vec<u8>, n: i64) {
    put_i(out, n.into());
}

/// Small values of either sign stay short.
pub fn put_i256(out: &mut Vec<u8>, n: i256) {
    let (low, high) = n.to_parts();
    put_i(out, high);
    put_u(out, if high < 0 { !low } else { low });
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u(out, bytes.len() as u128);
    out.extend_from_slice(bytes);
}

/// As [`put_bytes`], of what `write` appends: most values are short, and then nothing is copied.
pub fn put_framed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    const ONE_BYTE_MAX: usize = 0x7f;
    let at = out.len();
    out.push(0);
    write(out);
    let n = out.len() - at - 1;
    if n <= ONE_BYTE_MAX {
        out[at] = n as u8;
    } else {
        let body = out.split_off(at + 1);
        out.truncate(at);
        put_bytes(out, &body);
    }
}

pub fn put_f64(out: &mut Vec<u8>, n: f64) {
    out.extend_from_slice(&n.to_bits().to_le_bytes());
}

/// The order of these 8 bytes is the order of the numbers.
pub fn ordered(n: i64) -> [u8; 8] {
    ((n as u64) ^ (1 << 63)).to_be_bytes()
}

/// Reads what [`ordered`] wrote.
pub fn from_ordered(bytes: &[u8]) -> Option<i64> {
    let bytes: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    Some((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
}

/// Reads fields in the order in which they were written. Every error says what was expected; nothing panics on damaged bytes.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// A part of an entry, which has no version byte of its own.
    pub fn part(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Checks the version byte.
    pub fn open(bytes: &'a [u8], version: u8) -> Result<Self, String> {
        match bytes.split_first() {
            Some((v, rest)) if *v == version => Ok(Self { rest }),
            Some((v, _)) => Err(format!("its layout version is {v}, this build reads {version}")),
            None => Err("it is empty".to_owned()),
        }
    }

    pub fn u(&mut self) -> Result<u128, String> {
        let (mut n, mut shift) = (0u128, 0u32);
        loop {
            let byte = self.u8()?;
            if shift >= 128 || (shift == 126 && byte & 0x7f > 3) {
                return Err("a number is too long".to_owned());
            }
            n |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
            shift += 7;
        }
    }

    pub fn i(&mut self) -> Result<i128, String> {
        let n = self.u()?;
        Ok((n >> 1) as i128 ^ -((n & 1) as i128))
    }

    pub fn i256(&mut self) -> Result<i256, String> {
        let high = self.i()?;
        let low = self.u()?;
        Ok(i256::from_parts(if high < 0 { !low } else { low }, high))
    }

    pub fn u64(&mut self) -> Result<u64, String> {
        self.u()?.try_into().map_err(|_| "a number is too large".to_owned())
    }

    pub fn i64(&mut self) -> Result<i64, String> {
        self.i()?.try_into().map_err(|_| "a number is too large".to_owned())
    }

    /// A number of things that each take at least one byte.
    pub fn count(&mut self) -> Result<usize, String> {
        let n = self.u()?;
        usize::try_from(n).ok().filter(|n| *n <= self.rest.len()).ok_or_else(|| "a length is beyond the entry's end".to_owned())
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], String> {
        let n = self.count()?;
        let (bytes, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(bytes)
    }

    pub fn text(&mut self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    pub fn u8(&mut self) -> Result<u8, String> {
        let (byte, rest) = self.rest.split_first().ok_or_else(|| "it ends too early".to_owned())?;
        self.rest = rest;
        Ok(*byte)
    }

    pub fn f64(&mut self) -> Result<f64, String> {
        Ok(f64::from_bits(u64::from_le_bytes(self.array()?)))
    }

    /// A hash: 8 bytes, little endian.
    pub fn id(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// Exactly so many bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| "it ends too early".to_owned())?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that were not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Every byte must have been read.
    pub fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("it has {} bytes too many", self.rest.len())) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(u: u128, i: i128, small in -70i128..70, bytes: Vec<u8>, f: f64, low: u128, high: i128) {
            let mut out = vec![7];
            put_u(&mut out, u);
            put_i(&mut out, i);
            put_i(&mut out, small);
            put_bytes(&mut out, &bytes);
            put_f64(&mut out, f);
            put_i256(&mut out, i256::from_parts(low, high));
            out.extend_from_slice(&(low as u64).to_le_bytes());
            let mut fields = Fields::open(&out, 7).unwrap();
            prop_assert_eq!((fields.u().unwrap(), fields.i().unwrap(), fields.i().unwrap()), (u, i, small));
            prop_assert_eq!(fields.bytes().unwrap(), &bytes[..]);
            prop_assert_eq!(fields.f64().unwrap().to_bits(), f.to_bits());
            prop_assert_eq!(fields.i256().unwrap(), i256::from_parts(low, high));
            prop_assert_eq!(fields.id().unwrap(), low as u64);
            fields.end().unwrap();
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            if let Ok(mut fields) = Fields::open(&bytes, 1) {
                let _ = (fields.count(), fields.u(), fields.i64(), fields.i256(), fields.text(), fields.f64());
            }
        }

        #[test]
        fn ordered_bytes_compare_as_numbers(a: i64, b: i64) {
            prop_assert_eq!(ordered(a).cmp(&ordered(b)), a.cmp(&b));
            prop_assert_eq!(from_ordered(&ordered(a)), Some(a));
        }
    }

    #[test]
    fn small_numbers_are_short() {
        let mut out = Vec::new();
        put_i256(&mut out, i256::from_i128(-3));
        put_i64(&mut out, -1);
        put_u64(&mut out, 127);
        assert_eq!(out, [1, 2, 1, 127]);
    }
}
