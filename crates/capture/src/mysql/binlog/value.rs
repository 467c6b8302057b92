//! The values of a row image ("Rows_event: the row image", and each type's own packing, `Field::pack` and `log_event_print_value`).

use super::charset::Charset;
use super::compression;
use super::cursor::Cursor;
use super::decimal;
use super::error::{BinlogError, Result};
use super::json;
use super::temporal;
use crate::datum::Datum;
use bytes::{BufMut, Bytes, BytesMut};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// How a column's values are written.
#[derive(Debug, Clone)]
pub(super) enum Codec {
    Int {
        bytes: u8,
        sign: Sign,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bit {
        n_bits: u8,
    },
    Year,
    Date,
    Time {
        digits: u8,
    },
    TimeDecimal,
    DateTime {
        digits: u8,
    },
    DateTimeDecimal,
    Timestamp {
        digits: u8,
    },
    TimestampSeconds,
    Enum {
        bytes: u8,
        values: Option<Arc<[Bytes]>>,
    },
    Set {
        bytes: u8,
        values: Option<Arc<[Bytes]>>,
    },
    Json {
        prefix: u8,
    },
    Geometry {
        prefix: u8,
    },
    /// Strings and blobs: a length of `prefix` bytes before each.
    Bytes {
        prefix: u8,
        is_compressed: bool,
        content: Content,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Signed,
    Unsigned,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Text(Charset),
    /// Zeros are put to its end up to so many bytes.
    Binary {
        pad: u16,
    },
    Json,
    Uuid,
    Inet4,
    Inet6,
}

/// The four bytes before a geometry's WKB.
const SRID_BYTES: usize = 4;

impl Codec {
    /// Texts that have to be made are put into `arena`, which is empty before and after.
    pub fn read(&self, cursor: &mut Cursor, arena: &mut BytesMut, bytes_max: usize) -> Result<Datum> {
        Ok(match self {
            Self::Int { bytes, sign } => int(cursor.uint(usize::from(*bytes))?, *bytes, *sign, arena),
            Self::Float => Datum::Float32(f32::from_le_bytes(cursor.array()?)),
            Self::Double => Datum::Float64(f64::from_le_bytes(cursor.array()?)),
            Self::Decimal { precision, scale } => {
                decimal::put(arena, cursor.slice(decimal::n_bytes(*precision, *scale))?, *precision, *scale)?;
                Datum::Decimal(arena.split().freeze())
            }
            Self::Bit { n_bits } => match cursor.uint_be(usize::from(n_bits.div_ceil(8)))? {
                bit if *n_bits == 1 => Datum::Bool(bit != 0),
                bits => Datum::UInt(bits),
            },
            Self::Year => Datum::Int(match i64::from(cursor.u8()?) {
                0 => 0,
                n => 1900 + n,
            }),
            Self::Date => temporal::date(cursor.uint(3)? as u32, arena),
            Self::Time { digits } => temporal::time(cursor.uint_be(3 + temporal::fraction_bytes(*digits))?, *digits),
            Self::TimeDecimal => temporal::time_decimal((cursor.uint(3)? as i32) << 8 >> 8),
            Self::DateTime { digits } => {
                let packed = cursor.uint_be(5)?;
                temporal::datetime(packed, cursor.uint_be(temporal::fraction_bytes(*digits))?, *digits, arena)
            }
            Self::DateTimeDecimal => temporal::datetime_decimal(cursor.u64()?, arena),
            Self::Timestamp { digits } => {
                let seconds = cursor.uint_be(4)? as u32;
                temporal::timestamp(seconds, cursor.uint_be(temporal::fraction_bytes(*digits))?, *digits, arena)
            }
            Self::TimestampSeconds => temporal::timestamp(cursor.u32()?, 0, 0, arena),
            Self::Enum { bytes, values } => choice(cursor.uint(usize::from(*bytes))?, values.as_deref(), arena),
            Self::Set { bytes, values } => choices(cursor.uint(usize::from(*bytes))?, values.as_deref(), arena),
            Self::Json { prefix } => Datum::Json(json::text(prefixed(cursor, *prefix)?)?),
            Self::Geometry { prefix } => {
                let mut raw = prefixed(cursor, *prefix)?;
                Datum::Binary(if raw.len() < SRID_BYTES { raw } else { raw.split_off(SRID_BYTES) })
            }
            Self::Bytes { prefix, is_compressed, content } => {
                let raw = prefixed(cursor, *prefix)?;
                let raw = if *is_compressed { compression::inflate_column(raw, bytes_max)? } else { raw };
                content.read(raw, arena)?
            }
        })
    }
}

impl Content {
    fn read(self, raw: Bytes, arena: &mut BytesMut) -> Result<Datum> {
        Ok(match self {
            Self::Text(charset) => match charset.decode(raw.clone(), arena) {
                Some(text) => Datum::Text(text),
                None => hex(&raw, arena),
            },
            Self::Binary { pad } => Datum::Binary(padded(raw, usize::from(pad), arena)),
            Self::Json => match std::str::from_utf8(&raw) {
                Ok(_) => Datum::Json(raw),
                Err(_) => hex(&raw, arena),
            },
            Self::Uuid => Datum::Uuid(array(&raw)?),
            Self::Inet4 => text(Ipv4Addr::from(array(&raw)?), arena),
            Self::Inet6 => text(Ipv6Addr::from(array(&raw)?), arena),
        })
    }
}

fn prefixed(cursor: &mut Cursor, prefix: u8) -> Result<Bytes> {
    let n = cursor.uint(usize::from(prefix))? as usize;
    cursor.take(n)
}

fn int(stored: u64, bytes: u8, sign: Sign, arena: &mut BytesMut) -> Datum {
    let shift = 64 - 8 * u32::from(bytes);
    let signed = (stored << shift) as i64 >> shift;
    match sign {
        Sign::Unsigned if bytes == 8 => Datum::UInt(stored),
        Sign::Unsigned => Datum::Int(stored as i64),
        Sign::Unknown if signed < 0 => hex(&stored.to_be_bytes()[8 - usize::from(bytes)..], arena),
        Sign::Signed | Sign::Unknown => Datum::Int(signed),
    }
}

/// A value that its column's kind cannot hold, as the hexadecimal literal that the server would take for it.
fn hex(raw: &[u8], arena: &mut BytesMut) -> Datum {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    arena.reserve(2 + 2 * raw.len());
    arena.put_slice(b"0x");
    for byte in raw {
        arena.put_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    Datum::Odd(arena.split().freeze())
}

fn text(value: impl std::fmt::Display, arena: &mut BytesMut) -> Datum {
    let _ = write!(arena, "{value}");
    Datum::Text(arena.split().freeze())
}

fn odd_number(value: u64, arena: &mut BytesMut) -> Datum {
    let _ = write!(arena, "{value}");
    Datum::Odd(arena.split().freeze())
}

/// Zero is what the server keeps of a string that is none of the values: it shows it as empty.
fn choice(number: u64, values: Option<&[Bytes]>, arena: &mut BytesMut) -> Datum {
    let at = usize::try_from(number).unwrap_or(usize::MAX).checked_sub(1);
    match (at, values) {
        (None, _) => Datum::Text(Bytes::new()),
        (Some(at), Some(values)) if at < values.len() => Datum::Text(values[at].clone()),
        _ => odd_number(number, arena),
    }
}

fn choices(bits: u64, values: Option<&[Bytes]>, arena: &mut BytesMut) -> Datum {
    let n_values = values.map_or(0, <[Bytes]>::len) as u32;
    let Some(values) = values.filter(|_| bits.checked_shr(n_values).unwrap_or(0) == 0) else {
        return if bits == 0 { Datum::Text(Bytes::new()) } else { odd_number(bits, arena) };
    };
    let mut chosen = values.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, value)| value);
    if bits.count_ones() == 1 {
        return Datum::Text(chosen.next().cloned().unwrap_or_default());
    }
    for (i, value) in chosen.enumerate() {
        if i > 0 {
            arena.put_u8(b',');
        }
        arena.put_slice(value);
    }
    Datum::Text(arena.split().freeze())
}

fn padded(raw: Bytes, length: usize, arena: &mut BytesMut) -> Bytes {
    if raw.len() >= length {
        return raw;
    }
    arena.put_slice(&raw);
    arena.resize(length, 0);
    arena.split().freeze()
}

/// Fixed types are kept like `BINARY(n)`, without the zeros at their end.
fn array<const N: usize>(raw: &[u8]) -> Result<[u8; N]> {
    let mut array = [0; N];
    let head = array.get_mut(..raw.len()).ok_or(BinlogError::malformed("row image", "a value is longer than its type"))?;
    head.copy_from_slice(raw);
    Ok(array)
}
