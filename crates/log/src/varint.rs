//! Whole numbers in as few bytes as they need: seven bits a byte, the lowest first, the high bit says that more follow (LEB128).
//! Signed numbers are zigzag-folded first, so that small negative ones stay small.

/// The longest encoding of a `u64`.
pub(crate) const VARINT_BYTES_MAX: usize = 10;

pub(crate) fn put(into: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        into.push(n as u8 | 0x80);
        n >>= 7;
    }
    into.push(n as u8);
}

pub(crate) fn put_signed(into: &mut Vec<u8>, n: i64) {
    put(into, ((n << 1) ^ (n >> 63)) as u64);
}

pub(crate) fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    put(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// How many bytes `put_bytes` writes.
pub(crate) fn bytes_len(bytes: &[u8]) -> usize {
    let n_bits = usize::BITS - (bytes.len() | 1).leading_zeros();
    n_bits.div_ceil(7) as usize + bytes.len()
}

/// Takes values off the front of a slice; `None` means that it ends too early or does not hold such a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        if *first < 0x80 {
            self.0 = rest;
            return Some(u64::from(*first));
        }
        self.long_number()
    }

    fn long_number(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for (i, byte) in self.0.iter().take(VARINT_BYTES_MAX).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if i == VARINT_BYTES_MAX - 1 && bits > 1 {
                return None;
            }
            n |= bits << (7 * i);
            if *byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Some(n);
            }
        }
        None
    }

    #[inline]
    pub fn signed(&mut self) -> Option<i64> {
        let n = self.number()?;
        Some((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    pub fn number_u32(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    #[inline]
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(bytes)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let near_powers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
        for n in near_powers {
            let mut bytes = Vec::new();
            put(&mut bytes, n);
            put_signed(&mut bytes, n as i64);
            put_signed(&mut bytes, (n as i64).wrapping_neg());
            let mut reader = Reader(&bytes);
            assert_eq!(reader.number(), Some(n));
            assert_eq!(reader.signed(), Some(n as i64));
            assert_eq!(reader.signed(), Some((n as i64).wrapping_neg()));
            assert!(reader.is_empty());
        }
        for n in [0, 1, 127, 128, 16383, 16384] {
            let mut bytes = Vec::new();
            put_bytes(&mut bytes, &vec![7; n]);
            assert_eq!(bytes.len(), bytes_len(&vec![7; n]));
            assert_eq!(Reader(&bytes).bytes().unwrap().len(), n);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(Reader(&[]).number(), None);
        assert_eq!(Reader(&[0x80]).number(), None);
        assert_eq!(Reader(&[0xff; 11]).number(), None);
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).number(), None);
        assert_eq!(Reader(&[5, 1, 2]).bytes(), None);
        assert_eq!(Reader(&[1, 0xff]).text(), None);
    }
}
