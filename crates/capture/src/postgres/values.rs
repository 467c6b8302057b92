//! Values from PostgreSQL's text format, exactly. What a form cannot hold, or text that is not of the form it should be, stays as it came:
//! [`Datum::Odd`]. So nothing here fails, and nothing is lost.

use super::forms::Form;
use super::moments;
use crate::datum::Datum;
use bytes::{Bytes, BytesMut};

/// Dimensions of an array (PostgreSQL source, `MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

/// Reads one value; see [`decode_part`].
pub fn decode(form: &Form, text: Bytes) -> Datum {
    decode_part(form, &text, &text)
}

/// Reads one value of a message. `text` is a part of the message, and so is what comes out wherever it has bytes of its own; what has none
/// leaves the message's reference count alone, which all its values share.
///
/// Panics where `text` is no part of `message`.
pub fn decode_part(form: &Form, message: &Bytes, text: &[u8]) -> Datum {
    let own = || message.slice_ref(text);
    let value = match form {
        Form::Bool => boolean(text),
        Form::Int16 => integer(text).filter(|n| i16::try_from(*n).is_ok()).map(Datum::Int),
        Form::Int32 => integer(text).filter(|n| i32::try_from(*n).is_ok()).map(Datum::Int),
        Form::Int64 => integer(text).map(Datum::Int),
        Form::UInt64 => ascii(text).and_then(|t| t.parse().ok()).map(Datum::UInt),
        Form::Float32 => ascii(text).and_then(|t| t.parse().ok()).map(Datum::Float32),
        Form::Float64 => ascii(text).and_then(|t| t.parse().ok()).map(Datum::Float64),
        Form::Numeric(_) => is_plain_decimal(text).then(|| Datum::Decimal(own())),
        Form::Text | Form::Unknown => is_utf8(text).then(|| Datum::Text(own())),
        Form::Json => is_utf8(text).then(|| Datum::Json(own())),
        Form::Bytea => bytea(text).map(Datum::Binary),
        Form::Date => moments::date(text).map(Datum::Date),
        Form::Time => moments::time(text).map(Datum::Time),
        Form::Timestamp => moments::timestamp(text).map(Datum::Timestamp),
        Form::TimestampTz => moments::timestamp_tz(text).map(Datum::TimestampTz),
        Form::Uuid => uuid(text).map(Datum::Uuid),
        Form::Array { item, delimiter } => Array { message, text, at: 0, item, delimiter: *delimiter }.whole(),
    };
    value.unwrap_or_else(|| Datum::Odd(own()))
}

fn is_utf8(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok()
}

fn ascii(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

fn boolean(text: &[u8]) -> Option<Datum> {
    match text {
        b"t" => Some(Datum::Bool(true)),
        b"f" => Some(Datum::Bool(false)),
        _ => None,
    }
}

/// Digits behind an optional `-`, nothing else; `None` beyond 64 bits.
fn integer(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut sum: u64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum = sum * 10 + u64::from(digit); // 19 digits stay below 2^64.
    }
    if is_negative { 0_i64.checked_sub_unsigned(sum) } else { i64::try_from(sum).ok() }
}

/// `numeric_out` writes an optional sign, digits and at most one point; or NaN, Infinity, -Infinity.
fn is_plain_decimal(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let (mut n_digits, mut n_points) = (0, 0);
    for byte in digits {
        match byte {
            b'0'..=b'9' => n_digits += 1,
            b'.' if n_digits > 0 => n_points += 1,
            _ => return false,
        }
    }
    n_digits > 0 && n_points <= 1 && digits.last() != Some(&b'.')
}

/// What a digit stands for; [`NO_DIGIT`] for what is none.
const DIGITS: [u8; 256] = {
    let (mut digits, mut n) = ([NO_DIGIT; 256], 0);
    while n < 16 {
        digits[b"0123456789abcdef"[n] as usize] = n as u8;
        digits[b"0123456789ABCDEF"[n] as usize] = n as u8;
        n += 1;
    }
    digits
};
const NO_DIGIT: u8 = 0xff;

fn hex(byte: u8) -> Option<u8> {
    Some(DIGITS[usize::from(byte)]).filter(|digit| *digit != NO_DIGIT)
}

/// `\x` and two digits a byte ("bytea Hex Format").
fn bytea(text: &[u8]) -> Option<Bytes> {
    let digits = text.strip_prefix(b"\\x")?;
    if digits.len() % 2 != 0 {
        return None;
    }
    let bytes: Option<Vec<u8>> = digits.chunks_exact(2).map(|pair| Some(hex(pair[0])? << 4 | hex(pair[1])?)).collect();
    bytes.map(Bytes::from)
}

/// `a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11`
fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    const BYTES_AT: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = text.try_into().ok()?;
    let (mut uuid, mut seen) = ([0; 16], 0);
    for (byte, at) in uuid.iter_mut().zip(BYTES_AT) {
        let (high, low) = (DIGITS[usize::from(text[at])], DIGITS[usize::from(text[at + 1])]);
        *byte = high << 4 | low & 15;
        seen |= high | low;
    }
    (seen < 16 && [8, 13, 18, 23].iter().all(|at| text[*at] == b'-')).then_some(uuid)
}

/// Reads `{1,NULL,"a \"b\""}` and `[0:1][1:2]={{…},{…}}` ("Arrays", section "Array Input and Output Syntax"). Lower bounds other than 1 are
/// not kept: no consumer of changes has a place for them.
struct Array<'a> {
    message: &'a Bytes,
    text: &'a [u8],
    at: usize,
    item: &'a Form,
    delimiter: u8,
}

impl Array<'_> {
    fn whole(mut self) -> Option<Datum> {
        if self.peek() == Some(b'[') {
            self.at += memchr::memchr(b'=', self.text)? + 1;
        }
        let array = self.dimension(1)?;
        (self.at == self.text.len()).then_some(array)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn dimension(&mut self, depth: usize) -> Option<Datum> {
        if depth > DIMENSIONS_MAX {
            return None;
        }
        self.take(b'{')?;
        let mut items = Vec::new();
        if self.take(b'}').is_some() {
            return Some(Datum::Array(items));
        }
        loop {
            items.push(match self.peek()? {
                b'{' => self.dimension(depth + 1)?,
                b'"' => self.quoted()?,
                _ => self.plain()?,
            });
            if self.take(self.delimiter).is_none() {
                self.take(b'}')?;
                return Some(Datum::Array(items));
            }
        }
    }

    /// Up to the delimiter or the brace; has neither quotes nor backslashes.
    fn plain(&mut self) -> Option<Datum> {
        let rest = &self.text[self.at..];
        let length = memchr::memchr2(self.delimiter, b'}', rest)?;
        let value = &rest[..length];
        self.at += length;
        match value {
            b"" => None,
            b"NULL" => Some(Datum::Null),
            _ => Some(decode_part(self.item, self.message, value)),
        }
    }

    fn quoted(&mut self) -> Option<Datum> {
        self.take(b'"')?;
        let start = self.at;
        let length = memchr::memchr2(b'"', b'\\', &self.text[start..])?;
        self.at += length;
        let value = if self.peek() == Some(b'"') {
            decode_part(self.item, self.message, &self.text[start..self.at])
        } else {
            decode(self.item, self.unescaped(start)?)
        };
        self.take(b'"')?;
        Some(value)
    }

    /// From the first backslash on; leaves the closing quote.
    fn unescaped(&mut self, start: usize) -> Option<Bytes> {
        let mut value = BytesMut::from(&self.text[start..self.at]);
        loop {
            let rest = &self.text[self.at..];
            let length = memchr::memchr2(b'"', b'\\', rest)?;
            value.extend_from_slice(&rest[..length]);
            self.at += length;
            if rest[length] == b'"' {
                return Some(value.freeze());
            }
            value.extend_from_slice(rest.get(length + 1..length + 2)?);
            self.at += 2;
        }
    }
}

#[cfg(test)]
mod tests;
