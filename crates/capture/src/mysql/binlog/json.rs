//! MySQL's binary JSON (json_binary.h) to the text that its server makes of it: `{"a": 1.0, "b": [true, "x"]}`, numbers with all their digits.
//!
//! A value is a type byte and what the type says. Objects and arrays: number of elements and size in bytes, two bytes each, or four in the
//! large forms; of an object an entry for each key with its offset (two or four) and length (two); an entry for each value with its type and
//! offset, or the value itself if it fits there; the keys; the values. Offsets count from the number of elements. Lengths of strings have seven bits in
//! each byte, the lowest first, and the highest bit set in all but the last.

use super::decimal;
use super::error::{BinlogError, Result};
use super::temporal;
use bytes::{Bytes, BytesMut};
use std::io::Write;

/// The server's own limit (`JSON_DOCUMENT_MAX_DEPTH`).
pub(super) const DEPTH_MAX: usize = 100;
/// No document without overlaps makes more text of a byte: a control character becomes `\u0001`, an array's `-32768, ` has three.
const TEXT_PER_BYTE_MAX: usize = 8;

const WHAT: &str = "JSON value";

fn bad<T>(why: &'static str) -> Result<T> {
    Err(BinlogError::malformed(WHAT, why))
}

/// The text of a document. None at all stands for null, as the server has it.
pub fn text(document: Bytes) -> Result<Bytes> {
    let mut text = Text::new(document.len());
    match document.first() {
        None => text.put(b"null")?,
        Some(kind) => text.value(*kind, &document[1..], 0)?,
    }
    Ok(text.finish())
}

const SMALL_OBJECT: u8 = 0;
const LARGE_OBJECT: u8 = 1;
const SMALL_ARRAY: u8 = 2;
const LARGE_ARRAY: u8 = 3;
const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

/// An object or array whose entries are all there.
pub(super) struct Container<'a> {
    pub is_object: bool,
    pub n: usize,
    is_large: bool,
    data: &'a [u8],
}

impl<'a> Container<'a> {
    /// None if the type is a scalar's.
    pub fn open(kind: u8, data: &'a [u8]) -> Result<Option<Self>> {
        let (is_object, is_large) = match kind {
            SMALL_OBJECT => (true, false),
            LARGE_OBJECT => (true, true),
            SMALL_ARRAY => (false, false),
            LARGE_ARRAY => (false, true),
            _ => return Ok(None),
        };
        let mut container = Self { is_object, n: 0, is_large, data };
        let width = container.width();
        container.n = container.number(0)?;
        let size = container.number(width)?;
        let entries = container.n.saturating_mul(container.key_entry() + container.value_entry()).saturating_add(2 * width);
        match data.get(..size) {
            Some(data) if entries <= size => Ok(Some(Self { data, ..container })),
            _ => bad("an object or array is longer than its document or shorter than its entries"),
        }
    }

    fn width(&self) -> usize {
        if self.is_large { 4 } else { 2 }
    }

    fn key_entry(&self) -> usize {
        if self.is_object { self.width() + 2 } else { 0 }
    }

    fn value_entry(&self) -> usize {
        1 + self.width()
    }

    fn number(&self, at: usize) -> Result<usize> {
        Ok(uint(get(self.data, at, self.width())?) as usize)
    }

    pub fn key(&self, i: usize) -> Result<&'a [u8]> {
        let entry = 2 * self.width() + i * self.key_entry();
        let (start, n) = (self.number(entry)?, uint(get(self.data, entry + self.width(), 2)?));
        get(self.data, start, n as usize)
    }

    /// Type and data of an element; what follows it in the container is still behind it.
    pub fn value(&self, i: usize) -> Result<(u8, &'a [u8])> {
        let entry = 2 * self.width() + self.n * self.key_entry() + i * self.value_entry();
        let kind = get(self.data, entry, 1)?[0];
        let is_inline = matches!(kind, LITERAL | INT16 | UINT16) || self.is_large && matches!(kind, INT32 | UINT32);
        match is_inline {
            true => Ok((kind, get(self.data, entry + 1, self.width())?)),
            false => {
                let start = self.number(entry + 1)?;
                Ok((kind, get(self.data, start, self.data.len().saturating_sub(start))?))
            }
        }
    }
}

fn get(data: &[u8], at: usize, n: usize) -> Result<&[u8]> {
    match at.checked_add(n).and_then(|end| data.get(at..end)) {
        Some(bytes) => Ok(bytes),
        None => bad("something is outside of what contains it"),
    }
}

fn uint(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn array<const N: usize>(data: &[u8]) -> Result<[u8; N]> {
    let mut array = [0; N];
    array.copy_from_slice(get(data, 0, N)?);
    Ok(array)
}

/// The bytes of a string or opaque value.
fn counted(data: &[u8]) -> Result<&[u8]> {
    const LENGTH_BYTES_MAX: usize = 5;
    let mut n = 0u64;
    for (i, byte) in data.iter().take(LENGTH_BYTES_MAX).enumerate() {
        n |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return get(data, i + 1, usize::try_from(n).unwrap_or(usize::MAX));
        }
    }
    bad("the length of a string does not end")
}

/// The text so far, and how long it may get.
pub(super) struct Text {
    out: Vec<u8>,
    bytes_max: usize,
}

impl Text {
    pub fn new(document_bytes: usize) -> Self {
        Self { out: Vec::with_capacity(document_bytes), bytes_max: document_bytes.saturating_mul(TEXT_PER_BYTE_MAX).saturating_add(64) }
    }

    pub fn finish(self) -> Bytes {
        self.out.into()
    }

    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.out.len() + bytes.len() > self.bytes_max {
            return bad("its parts overlap");
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    pub fn value(&mut self, kind: u8, data: &[u8], depth: usize) -> Result<()> {
        match Container::open(kind, data)? {
            _ if depth > DEPTH_MAX => bad("it is nested deeper than 100 levels"),
            Some(container) => self.container(&container, depth),
            None => self.scalar(kind, data),
        }
    }

    fn container(&mut self, container: &Container<'_>, depth: usize) -> Result<()> {
        self.put(if container.is_object { b"{" } else { b"[" })?;
        for i in 0..container.n {
            self.put(if i > 0 { b", " } else { b"" })?;
            if container.is_object {
                self.string(container.key(i)?)?;
                self.put(b": ")?;
            }
            let (kind, data) = container.value(i)?;
            self.value(kind, data, depth + 1)?;
        }
        self.put(if container.is_object { b"}" } else { b"]" })
    }

    fn scalar(&mut self, kind: u8, data: &[u8]) -> Result<()> {
        match kind {
            LITERAL => match get(data, 0, 1)?[0] {
                0 => self.put(b"null"),
                1 => self.put(b"true"),
                2 => self.put(b"false"),
                _ => bad("a literal is not known"),
            },
            INT16 => self.display(i16::from_le_bytes(array(data)?)),
            UINT16 => self.display(u16::from_le_bytes(array(data)?)),
            INT32 => self.display(i32::from_le_bytes(array(data)?)),
            UINT32 => self.display(u32::from_le_bytes(array(data)?)),
            INT64 => self.display(i64::from_le_bytes(array(data)?)),
            UINT64 => self.display(u64::from_le_bytes(array(data)?)),
            DOUBLE => self.double(f64::from_le_bytes(array(data)?)),
            STRING => self.string(counted(data)?),
            OPAQUE => self.opaque(get(data, 0, 1)?[0], counted(get(data, 1, data.len() - 1)?)?),
            _ => bad("a type is not known"),
        }
    }

    fn display(&mut self, value: impl std::fmt::Display) -> Result<()> {
        let _ = write!(self.out, "{value}");
        self.put(b"")
    }

    /// The shortest digits that are this number, laid out as `my_gcvt` does (dtoa.cc): with an exponent from 1e15 on and below 1e-15, and
    /// always to be told from an integer.
    fn double(&mut self, value: f64) -> Result<()> {
        const POINT_MAX: i32 = 15;
        // Two shortest texts may be equally near: this one ends with an even digit then, as the server's does; `core`'s does not.
        let Some(number) = serde_json::Number::from_f64(value.abs()) else { return bad("a number is not finite") };
        let text = number.to_string();
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        let n_zeros = all.len() - significant.len();
        let digits = if significant.is_empty() { "0" } else { significant.trim_end_matches('0') };
        // Where the point is, counted from the first digit.
        let point = if significant.is_empty() { 1 } else { whole.len() as i32 - n_zeros as i32 + exponent.parse::<i32>().unwrap_or(0) };
        let n = digits.len() as i32;
        self.put(if value.is_sign_negative() { b"-" } else { b"" })?;
        if point < 1 - POINT_MAX || point > POINT_MAX && n <= point {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            return self.display(format_args!("{first}{dot}{rest}e{}", point - 1));
        }
        match usize::try_from(point) {
            Ok(0) | Err(_) => self.display(format_args!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))),
            Ok(at) if at >= digits.len() => self.display(format_args!("{digits}{}.0", "0".repeat(at - digits.len()))),
            Ok(at) => self.display(format_args!("{}.{}", &digits[..at], &digits[at..])),
        }
    }

    pub fn string(&mut self, raw: &[u8]) -> Result<()> {
        let Ok(text) = std::str::from_utf8(raw) else { return bad("a string is not UTF-8") };
        self.put(b"\"")?;
        let mut from = 0;
        for (i, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.put(&raw[from..i])?;
            from = i + 1;
            match byte {
                b'"' => self.put(b"\\\"")?,
                b'\\' => self.put(b"\\\\")?,
                8 => self.put(b"\\b")?,
                b'\t' => self.put(b"\\t")?,
                b'\n' => self.put(b"\\n")?,
                12 => self.put(b"\\f")?,
                b'\r' => self.put(b"\\r")?,
                control => self.display(format_args!("\\u{control:04x}"))?,
            }
        }
        self.put(&raw[from..])?;
        self.put(b"\"")
    }

    /// A value of one of the server's other types.
    fn opaque(&mut self, kind: u8, raw: &[u8]) -> Result<()> {
        const TIMESTAMP: u8 = 7;
        const DATE: u8 = 10;
        const TIME: u8 = 11;
        const DATETIME: u8 = 12;
        const NEWDECIMAL: u8 = 246;
        let mut out = BytesMut::new();
        match kind {
            NEWDECIMAL => {
                let [precision, scale] = array(raw)?;
                if precision > decimal::PRECISION_MAX || scale > precision || raw.len() != 2 + decimal::n_bytes(precision, scale) {
                    return bad("a decimal has another length than its precision says");
                }
                decimal::put(&mut out, &raw[2..], precision, scale)?;
                return self.put(&out);
            }
            DATE | DATETIME | TIMESTAMP => {
                let packed = u64::from_le_bytes(array(raw)?);
                let written = temporal::written(packed >> 24, (packed & 0xff_ffff) as u32);
                written.put_date(&mut out);
                if kind != DATE {
                    out.extend_from_slice(b" ");
                    written.put_time(&mut out, temporal::FRACTION_DIGITS_MAX);
                }
            }
            TIME => temporal::put_json_time(&mut out, i64::from_le_bytes(array(raw)?)),
            _ => {
                self.display(format_args!("\"base64:type{kind}:"))?;
                self.base64(raw)?;
                return self.put(b"\"");
            }
        }
        self.string(&out)
    }

    /// With a line's end, as a string has it, after every 76 characters (`base64_encode`, base64.h).
    fn base64(&mut self, raw: &[u8]) -> Result<()> {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const GROUPS_PER_LINE: usize = 19;
        for (i, group) in raw.chunks(3).enumerate() {
            if i > 0 && i % GROUPS_PER_LINE == 0 {
                self.put(b"\\n")?;
            }
            let bits = group.iter().fold(0usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
            let mut text = [18, 12, 6, 0].map(|shift| DIGITS[bits >> shift & 63]);
            text[group.len() + 1..].fill(b'=');
            self.put(&text)?;
        }
        Ok(())
    }
}
