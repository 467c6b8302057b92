//! A decimal text as the bytes of its unscaled integer: two's complement, big endian, as short as it goes. Java's `BigInteger.toByteArray`,
//! which Kafka Connect's `Decimal` is made of, and the bytes of Avro's `decimal` (Avro 1.12.0 specification, Logical Types, Decimal).

use bytes::BufMut;

/// More digits than a PostgreSQL numeric can have (131,072 before and 16,383 behind the point).
pub(crate) const DIGITS_MAX: usize = 150_000;

/// A plain decimal taken apart: `-12.50`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub negative: bool,
    pub whole: &'a [u8],
    pub fraction: &'a [u8],
}

impl<'a> Parts<'a> {
    pub fn of(text: &'a [u8]) -> Option<Self> {
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let point = digits.iter().position(|b| *b == b'.');
        let (whole, fraction) = point.map_or((digits, &digits[..0]), |p| (&digits[..p], &digits[p + 1..]));
        let is_plain = !whole.is_empty()
            && digits.len() <= DIGITS_MAX
            && point.is_none_or(|_| !fraction.is_empty())
            && whole.iter().chain(fraction).all(u8::is_ascii_digit);
        is_plain.then_some(Self { negative, whole, fraction })
    }

    pub fn scale(&self) -> i32 {
        // At most DIGITS_MAX digits.
        self.fraction.len() as i32
    }

    /// Appends the unscaled integer at `scale`. False, with nothing appended, if the scale cannot hold the value exactly.
    pub fn push_unscaled(&self, scale: i32, out: &mut Vec<u8>) -> bool {
        let shift = i64::from(scale) - i64::from(self.scale());
        let n_digits = self.whole.len() + self.fraction.len();
        let digits = self.whole.iter().chain(self.fraction);
        let n_zeros = usize::try_from(shift).unwrap_or(0);
        let n_cut = usize::try_from(-shift).unwrap_or(0);
        if n_zeros > DIGITS_MAX || digits.clone().skip(n_digits.saturating_sub(n_cut)).any(|d| *d != b'0') {
            return false;
        }
        let digits = digits.take(n_digits.saturating_sub(n_cut)).copied().chain(std::iter::repeat_n(b'0', n_zeros));
        if n_digits + n_zeros <= 38 {
            let value = digits.fold(0i128, |v, d| v * 10 + i128::from(d - b'0'));
            push_i128(out, if self.negative { -value } else { value });
        } else {
            push_long(out, self.negative, digits);
        }
        true
    }
}

/// Appends the shortest two's complement.
pub(crate) fn push_i128(out: &mut Vec<u8>, value: i128) {
    let bytes = value.to_be_bytes();
    // So many leading bits only repeat the sign, beside the one that must stay.
    let n_spare = (if value < 0 { value.leading_ones() } else { value.leading_zeros() } - 1) / 8;
    out.extend_from_slice(&bytes[n_spare as usize..]);
}

/// The same for any number of digits: school multiplication by 10^9, quadratic and bounded by [`DIGITS_MAX`].
fn push_long(out: &mut Vec<u8>, negative: bool, digits: impl Iterator<Item = u8>) {
    let mut limbs: Vec<u32> = Vec::new();
    let mut push = |factor: u64, addend: u64| {
        let mut carry = addend;
        for limb in &mut limbs {
            let sum = u64::from(*limb) * factor + carry;
            *limb = sum as u32;
            carry = sum >> 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    };
    let (mut chunk, mut factor) = (0, 1);
    for digit in digits {
        chunk = chunk * 10 + u64::from(digit - b'0');
        factor *= 10;
        if factor == 1_000_000_000 {
            push(factor, chunk);
            (chunk, factor) = (0, 1);
        }
    }
    push(factor, chunk);
    let mut bytes: Vec<u8> = std::iter::once(0).chain(limbs.iter().rev().flat_map(|l| l.to_be_bytes())).collect();
    if negative {
        // Invert and add one.
        let mut carry = true;
        for byte in bytes.iter_mut().rev() {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, over);
        }
    }
    let n_spare = bytes.windows(2).take_while(|w| (w[0] == 0 && w[1] < 0x80) || (w[0] == 0xff && w[1] >= 0x80)).count();
    out.extend_from_slice(&bytes[n_spare..]);
}

/// The unscaled integer as text with `scale` decimals, as a database writes it. None where more than 16 bytes stand for it.
pub(crate) fn push_decimal(out: &mut impl BufMut, unscaled: &[u8], scale: u32) -> bool {
    if unscaled.is_empty() || unscaled.len() > 16 {
        return false;
    }
    let mut bytes = [if unscaled[0] & 0x80 == 0 { 0 } else { 0xff }; 16];
    bytes[16 - unscaled.len()..].copy_from_slice(unscaled);
    let value = i128::from_be_bytes(bytes);
    let Some(one) = 10u128.checked_pow(scale) else { return false };
    if value < 0 {
        out.put_u8(b'-');
    }
    let (whole, fraction) = (value.unsigned_abs() / one, value.unsigned_abs() % one);
    push_u128(out, whole, 1);
    if scale > 0 {
        out.put_u8(b'.');
        push_u128(out, fraction, scale as usize);
    }
    true
}

fn push_u128(out: &mut impl BufMut, mut n: u128, width: usize) {
    let mut digits = [b'0'; 39];
    let mut start = digits.len();
    while n > 0 {
        start -= 1;
        digits[start] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.put_slice(&digits[start.min(digits.len() - width.min(digits.len()))..]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unscaled(text: &str, scale: i32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        Parts::of(text.as_bytes()).unwrap().push_unscaled(scale, &mut out).then_some(out)
    }

    #[test]
    fn the_bytes_are_those_of_big_integer() {
        for (text, scale, want) in [
            ("0", 0, &[0][..]),
            ("-0.01", 2, &[0xff]),
            ("1.27", 2, &[0x7f]),
            ("1.28", 2, &[0, 0x80]),
            ("-1.28", 2, &[0x80]),
            ("-1.29", 2, &[0xff, 0x7f]),
            ("12300", -2, &[123]),
            ("1.5", 3, &[0x05, 0xdc]),
            ("1.500", 1, &[15]),
            ("-170141183460469231731687303715884105728", 0, &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("170141183460469231731687303715884105728", 0, &[0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(unscaled(text, scale).as_deref(), Some(want), "{text}");
        }
        assert_eq!(unscaled("1.25", 1), None);
        assert_eq!(unscaled("125", -1), None);
        for bad in ["", "-", ".5", "1.", "1e5", "+1", "NaN", "1 ", "--1", "1.2.3"] {
            assert_eq!(Parts::of(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn short_and_long_agree(negative: bool, digits in "[0-9]{1,38}") {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            let value: i128 = digits.parse().unwrap();
            push_i128(&mut short, if negative { -value } else { value });
            push_long(&mut long, negative, digits.bytes());
            prop_assert_eq!(short, long);
        }

        #[test]
        fn text_to_bytes_and_back(negative: bool, whole in "0|[1-9][0-9]{0,18}", fraction in "([0-9]{1,18})?") {
            let sign = if negative && format!("{whole}{fraction}").bytes().any(|b| b != b'0') { "-" } else { "" };
            let text = if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            let bytes = unscaled(&text, fraction.len() as i32).unwrap();
            let mut out = Vec::new();
            prop_assert!(push_decimal(&mut out, &bytes, fraction.len() as u32));
            prop_assert_eq!(String::from_utf8(out).unwrap(), text);
        }
    }
}
