//! Values as plain text, each in one way only: what keys are made of and hashes are taken of.

use super::civil::{Fraction, push_date, push_time, push_timestamp};
use crate::datum::Datum;
use std::io::Write;

/// Appends decimal digits.
pub(crate) fn push_int(out: &mut Vec<u8>, n: u64) {
    push_padded(out, n, 1);
}

pub(crate) fn push_signed(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    push_int(out, n.unsigned_abs());
}

/// Appends at least `width` digits, at most 20.
pub(crate) fn push_padded(out: &mut Vec<u8>, mut n: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    while n > 0 {
        start -= 1;
        digits[start] = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&digits[start.min(digits.len() - width.min(digits.len()))..]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

pub(crate) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

pub(crate) fn push_uuid(out: &mut Vec<u8>, uuid: &[u8; 16]) {
    // Its digits at once: most tables that are captured have some in every row.
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in uuid.iter().enumerate() {
        at += usize::from(matches!(i, 4 | 6 | 8 | 10));
        (text[at], text[at + 1]) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
        at += 2;
    }
    out.extend_from_slice(&text);
}

/// The shortest digits that give the same float again: `0.1`, `1e300`, `NaN`, `Infinity`.
pub(crate) fn push_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        write!(out, "{value:?}").expect("writing to a Vec cannot fail");
    }
}

pub(crate) fn push_float32(out: &mut Vec<u8>, value: f32) {
    if value.is_finite() {
        write!(out, "{value:?}").expect("writing to a Vec cannot fail");
    } else {
        push_float(out, f64::from(value));
    }
}

/// Appends a JSON string with its quotes. Only what RFC 8259, section 7, asks for is escaped. The bytes are UTF-8, as every text of a
/// change is.
pub(crate) fn push_json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    push_json_escaped(out, text);
    out.push(b'"');
}

pub(crate) fn push_json_escaped(out: &mut Vec<u8>, text: &[u8]) {
    // Nearly every text is as it is: that is asked of all of its bytes at once, which is quick.
    if !text.iter().fold(false, |found, byte| found | (*byte < 32) | (*byte == b'"') | (*byte == b'\\')) {
        out.extend_from_slice(text);
        return;
    }
    out.reserve(text.len() + 2);
    let mut from = 0;
    for (at, byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            8 => b'b',
            12 => b'f',
            0..=31 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&text[from..at]);
        from = at + 1;
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(b"00");
            push_hex(out, &[*byte]);
        }
    }
    out.extend_from_slice(&text[from..]);
}

/// Appends a value as text: numbers in decimal notation, times as ISO 8601 (`2026-11-22T12:34:56.5`, with `Z` where the column has a
/// zone), bytes as hexadecimal digits, arrays as JSON arrays of texts, text as it is. Nothing for null and for a value that was not sent.
pub fn push_text(out: &mut Vec<u8>, datum: &Datum) {
    match datum {
        Datum::Null | Datum::Unavailable => {}
        Datum::Odd(b) | Datum::Decimal(b) | Datum::Text(b) | Datum::Json(b) => out.extend_from_slice(b),
        Datum::Bool(v) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        Datum::Int(v) => push_signed(out, *v),
        Datum::UInt(v) => push_int(out, *v),
        Datum::Float32(v) => push_float32(out, *v),
        Datum::Float64(v) => push_float(out, *v),
        Datum::Binary(b) => push_hex(out, b),
        Datum::Date(days) => push_date(out, i64::from(*days)),
        Datum::Time(us) => push_time(out, *us, Fraction::Needed),
        Datum::Timestamp(us) => push_timestamp(out, *us, Fraction::Needed),
        Datum::TimestampTz(us) => {
            push_timestamp(out, *us, Fraction::Needed);
            out.push(b'Z');
        }
        Datum::Uuid(uuid) => push_uuid(out, uuid),
        Datum::Array(items) => push_texts(out, items.iter()),
    }
}

/// Appends a JSON array of texts; null for null and for a value that was not sent.
pub(crate) fn push_texts<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a Datum>) {
    let mut scratch = Vec::new();
    out.push(b'[');
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match item {
            Datum::Null | Datum::Unavailable => out.extend_from_slice(b"null"),
            Datum::Array(inner) => push_texts(out, inner.iter()),
            Datum::Text(text) => push_json_string(out, text),
            _ => {
                scratch.clear();
                push_text(&mut scratch, item);
                push_json_string(out, &scratch);
            }
        }
    }
    out.push(b']');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn one_text_for_each_value() {
        let check = |datum: Datum, want: &str| {
            let mut out = Vec::new();
            push_text(&mut out, &datum);
            assert_eq!(String::from_utf8(out).unwrap(), want, "{datum:?}");
        };
        let bytes = Bytes::from_static;
        check(Datum::Int(i64::MIN), "-9223372036854775808");
        check(Datum::UInt(u64::MAX), "18446744073709551615");
        check(Datum::Int(0), "0");
        check(Datum::Float64(1e300), "1e300");
        check(Datum::Float32(f32::NEG_INFINITY), "-Infinity");
        check(Datum::Float32(0.1), "0.1");
        check(Datum::Bool(true), "true");
        check(Datum::Binary(bytes(b"\x00\xff")), "00ff");
        check(Datum::Uuid(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef"), "01234567-89ab-cdef-0123-456789abcdef");
        check(Datum::TimestampTz(500_000), "1970-01-01T00:00:00.5Z");
        check(Datum::Null, "");
        let inner = Datum::Array(vec![Datum::Text(bytes(b"q\"")), Datum::Int(3)]);
        check(Datum::Array(vec![Datum::Null, inner]), r#"[null,["q\"","3"]]"#);
    }

    #[test]
    fn strings_are_what_a_json_reader_reads() {
        for text in ["", "plain", "q\"b\\s/", "\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}", "물€𝄞"] {
            let mut out = Vec::new();
            push_json_string(&mut out, text.as_bytes());
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
