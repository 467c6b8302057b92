//! `DECIMAL` in its packed form (`decimal2bin`, strings/decimal.c): the digits before the point and those behind it in groups of nine, four
//! bytes each, the highest first; the group that is not full is at the outer end of its side and takes as many bytes as its digits need. The
//! highest bit of all is turned, and of a negative number then every bit.

use super::error::{BinlogError, Result};
use bytes::{BufMut, BytesMut};

pub const PRECISION_MAX: u8 = 65;

const GROUP_DIGITS: usize = 9;
const GROUP_BYTES: usize = 4;
/// Bytes of a group of so many digits.
const PART_BYTES: [usize; GROUP_DIGITS + 1] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const BYTES_MAX: usize = 40;

/// How many bytes a value of this precision and scale takes.
pub fn n_bytes(precision: u8, scale: u8) -> usize {
    let side = |digits: usize| digits / GROUP_DIGITS * GROUP_BYTES + PART_BYTES[digits % GROUP_DIGITS];
    side(usize::from(precision.saturating_sub(scale))) + side(usize::from(scale))
}

/// Puts the digits, as many behind the point as the scale says.
pub fn put(out: &mut BytesMut, raw: &[u8], precision: u8, scale: u8) -> Result<()> {
    let (whole, scale) = (usize::from(precision.saturating_sub(scale)), usize::from(scale));
    let mut bytes = [0; BYTES_MAX];
    let Some(bytes) = bytes.get_mut(..raw.len()).filter(|b| !b.is_empty()) else {
        return Err(BinlogError::malformed("decimal", "its precision or scale is out of range"));
    };
    bytes.copy_from_slice(raw);
    bytes[0] ^= 0x80;
    if raw[0] & 0x80 == 0 {
        bytes.iter_mut().for_each(|b| *b = !*b);
        out.put_u8(b'-');
    }
    let mut bytes = &*bytes;
    let start = out.len();
    group(out, &mut bytes, whole % GROUP_DIGITS)?;
    for _ in 0..whole / GROUP_DIGITS {
        group(out, &mut bytes, GROUP_DIGITS)?;
    }
    strip_zeros(out, start);
    if scale > 0 {
        out.put_u8(b'.');
        for _ in 0..scale / GROUP_DIGITS {
            group(out, &mut bytes, GROUP_DIGITS)?;
        }
        group(out, &mut bytes, scale % GROUP_DIGITS)?;
    }
    Ok(())
}

/// The next group with all its digits.
fn group(out: &mut BytesMut, bytes: &mut &[u8], digits: usize) -> Result<()> {
    let Some((head, rest)) = bytes.split_at_checked(PART_BYTES[digits]) else {
        return Err(BinlogError::malformed("decimal", "its bytes are too few"));
    };
    *bytes = rest;
    let mut value = head.iter().fold(0u32, |value, byte| value << 8 | u32::from(*byte));
    let mut text = [b'0'; GROUP_DIGITS];
    for digit in text[..digits].iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    if value > 0 {
        return Err(BinlogError::malformed("decimal", "a group of its digits is too large"));
    }
    out.put_slice(&text[..digits]);
    Ok(())
}

/// Leaves one digit before the point.
fn strip_zeros(out: &mut BytesMut, start: usize) {
    let digits = &out[start..];
    let zeros = digits.iter().take_while(|d| **d == b'0').count();
    match zeros == digits.len() {
        true => {
            out.truncate(start);
            out.put_u8(b'0');
        }
        false => {
            out.copy_within(start + zeros.., start);
            out.truncate(out.len() - zeros);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(raw: &[u8], precision: u8, scale: u8) -> Result<String> {
        let mut out = BytesMut::new();
        put(&mut out, raw, precision, scale)?;
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    /// The first two are the example of `decimal2bin`'s own comment: 1234567890.1234 of DECIMAL(14,4), and the same below zero.
    #[test]
    fn packed_decimals() {
        let cases: [(&[u8], u8, u8, &str); 9] = [
            (&[0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2], 14, 4, "1234567890.1234"),
            (&[0x7e, 0xf2, 0x04, 0xc7, 0x2d, 0xfb, 0x2d], 14, 4, "-1234567890.1234"),
            (&[0x80, 0x00], 3, 0, "0"),
            (&[0x80, 0x00], 3, 1, "0.0"),
            (&[0x80], 2, 2, "0.00"),
            (&[0x80 + 7], 2, 2, "0.07"),
            (&[0x78], 2, 2, "-0.07"),
            (&[0xe3], 2, 0, "99"),
            (&[0x80, 0, 0, 5, 0x80 ^ 0x80, 0, 0, 1], 18, 9, "5.000000001"),
        ];
        for (raw, precision, scale, want) in cases {
            assert_eq!(n_bytes(precision, scale), raw.len(), "{want}");
            assert_eq!(text(raw, precision, scale).as_deref(), Ok(want));
        }
    }

    #[test]
    fn the_longest_one_has_all_its_digits() {
        assert_eq!(n_bytes(65, 30), 30);
        let nines = 999_999_999u32.to_be_bytes();
        let mut raw = vec![0x80 ^ 0x05, 0xf5, 0xe0, 0xff];
        for _ in 0..3 {
            raw.extend(nines);
        }
        for _ in 0..3 {
            raw.extend(nines);
        }
        raw.extend([0x03, 0xe7]);
        assert_eq!(text(&raw, 65, 30), Ok(format!("{}.{}", "9".repeat(35), "9".repeat(30))));
    }

    #[test]
    fn groups_that_no_server_writes_are_refused() {
        for (raw, precision, scale) in [(&[0xff][..], 2, 0), (&[0xff, 0xff, 0xff, 0xff], 9, 0), (&[], 0, 0), (&[0x80; 41], 65, 30)] {
            assert!(text(raw, precision, scale).is_err(), "{raw:?}");
        }
    }
}
