//! The bytes of persisted state: little numbers are written short, because most of a window's entries differ little from their neighbours.
//!
//! - unsigned: LEB128, 7 bits a byte, low bits first, the high bit set on all but the last byte;
//! - signed: zigzag (0, -1, 1, -2 … become 0, 1, 2, 3 …), then as unsigned;
//! - float: 8 bytes, IEEE 754, little endian;
//! - text and nested values: length, then bytes.

use arrow::datatypes::i256;

pub fn put_u64(out: &mut Vec<u8>, n: u64) {
    put_u128(out, u128::from(n));
}

pub fn put_i64(out: &mut Vec<u8>, n: i64) {
    put_i128(out, i128::from(n));
}

pub fn put_u128(out: &mut Vec<u8>, mut n: u128) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub fn put_i128(out: &mut Vec<u8>, n: i128) {
    put_u128(out, ((n << 1) ^ (n >> 127)).cast_unsigned());
}

/// The high half, then the low half: small values of either sign stay short.
pub fn put_i256(out: &mut Vec<u8>, n: i256) {
    let (low, high) = n.to_parts();
    put_i128(out, high);
    put_u128(out, if high < 0 { !low } else { low });
}

pub fn put_f64(out: &mut Vec<u8>, x: f64) {
    out.extend_from_slice(&x.to_le_bytes());
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote. Every error says what was expected; nothing panics on damaged bytes.
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn u8(&mut self) -> Result<u8, String> {
        let (first, rest) = self.rest.split_first().ok_or("it ends too early")?;
        self.rest = rest;
        Ok(*first)
    }

    pub fn u128(&mut self) -> Result<u128, String> {
        let mut n = 0u128;
        for shift in (0..).step_by(7) {
            let byte = self.u8()?;
            if shift > 126 || (shift == 126 && byte > 3) {
                return Err("a number is too long".to_owned());
            }
            n |= u128::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Ok(n)
    }

    pub fn i128(&mut self) -> Result<i128, String> {
        let n = self.u128()?;
        Ok((n >> 1).cast_signed() ^ -((n & 1).cast_signed()))
    }

    pub fn i256(&mut self) -> Result<i256, String> {
        let high = self.i128()?;
        let low = self.u128()?;
        Ok(i256::from_parts(if high < 0 { !low } else { low }, high))
    }

    pub fn u64(&mut self) -> Result<u64, String> {
        u64::try_from(self.u128()?).map_err(|_| "a number is too large".to_owned())
    }

    pub fn i64(&mut self) -> Result<i64, String> {
        i64::try_from(self.i128()?).map_err(|_| "a number is too large".to_owned())
    }

    pub fn f64(&mut self) -> Result<f64, String> {
        self.id().map(f64::from_bits)
    }

    /// A hash: 8 bytes, little endian.
    pub fn id(&mut self) -> Result<u64, String> {
        let (head, rest) = self.rest.split_first_chunk::<8>().ok_or("it ends too early")?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*head))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], String> {
        let n = self.length()?;
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        Ok(head)
    }

    /// A count of things that take at least one byte each, so that a damaged length cannot ask for memory that is not there.
    pub fn length(&mut self) -> Result<usize, String> {
        let n = self.u64()?;
        usize::try_from(n).ok().filter(|n| *n <= self.rest.len()).ok_or_else(|| "a length is too large".to_owned())
    }

    pub fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("{} bytes are left over", self.rest.len())) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(a: u64, b: i64, c: i128, d: u128, e: f64, high: i128, text: Vec<u8>) {
            let mut out = Vec::new();
            put_u64(&mut out, a);
            put_i64(&mut out, b);
            put_i128(&mut out, c);
            put_u128(&mut out, d);
            put_f64(&mut out, e);
            put_i256(&mut out, i256::from_parts(d, high));
            put_bytes(&mut out, &text);
            let mut bytes = Bytes::new(&out);
            prop_assert_eq!(bytes.u64().unwrap(), a);
            prop_assert_eq!(bytes.i64().unwrap(), b);
            prop_assert_eq!(bytes.i128().unwrap(), c);
            prop_assert_eq!(bytes.u128().unwrap(), d);
            prop_assert_eq!(bytes.f64().unwrap().to_bits(), e.to_bits());
            prop_assert_eq!(bytes.i256().unwrap(), i256::from_parts(d, high));
            prop_assert_eq!(bytes.bytes().unwrap(), &text[..]);
            prop_assert!(bytes.end().is_ok());
        }

        #[test]
        fn damaged_bytes_never_panic(damaged: Vec<u8>) {
            let mut bytes = Bytes::new(&damaged);
            let _ = (bytes.u64(), bytes.i128(), bytes.i256(), bytes.bytes(), bytes.f64(), bytes.length());
        }
    }

    #[test]
    fn small_numbers_are_short() {
        let mut out = Vec::new();
        put_i256(&mut out, i256::from_i128(-3));
        put_i64(&mut out, -1);
        assert_eq!(out, [1, 2, 1]);
    }
}
