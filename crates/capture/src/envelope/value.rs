//! One value as its form's JSON.

use super::civil::{Fraction, push_date, push_time, push_timestamp};
use super::form::{Binaries, Form, Intervals, Shape};
use super::hstore::push_hstore;
use super::interval::{Interval, utc_clock_us};
use super::spatial::{push_geometry, push_json_float, push_point_text};
use super::text::{push_float32, push_hex, push_int, push_json_string, push_signed, push_text, push_uuid};
use super::unscaled::{Parts, push_i128};
use crate::datum::Datum;
use base64::Engine;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Why a value has no place in its form.
pub(crate) type Refusal = &'static str;

const OF_ANOTHER_KIND: Refusal = "its value is of another kind than its column";
const ODD: Refusal = "Debezium has no form for this value (NaN, infinity or out of range): decimal.handling.mode = string or \
                      time.precision.mode = isostring may have one, or exclude the column";
const OUT_OF_SCALE: Refusal = "it has more decimals than its column declares";
const OUT_OF_UNIT: Refusal = "the time does not fit the chosen time.precision.mode: choose adaptive";

const DAY_US: i64 = 86_400_000_000;

/// Appends the value. On a refusal something may have been appended: the caller cuts it off.
pub(crate) fn push_value(out: &mut Vec<u8>, form: &Form, datum: &Datum) -> Result<(), Refusal> {
    match datum {
        Datum::Null => out.extend_from_slice(b"null"),
        Datum::Odd(text) => return push_odd(out, form, text),
        _ => return push_plain(out, &form.shape, datum),
    }
    Ok(())
}

fn push_plain(out: &mut Vec<u8>, shape: &Shape, datum: &Datum) -> Result<(), Refusal> {
    match (shape, datum) {
        (Shape::Bool, Datum::Bool(v)) => out.extend_from_slice(if *v { b"true" } else { b"false" }),
        (Shape::Bool | Shape::Bits(_), _) => return push_bits(out, shape, datum),
        (Shape::Int(_), Datum::Int(v)) => push_signed(out, *v),
        (Shape::Int(_), Datum::UInt(v)) => push_int(out, *v),
        (Shape::Int(_), Datum::Text(digits)) if Parts::of(digits).is_some_and(|p| p.fraction.is_empty()) => out.extend_from_slice(digits),
        (Shape::Int(_), Datum::Bool(v)) => out.push(b'0' + u8::from(*v)),
        (Shape::Float | Shape::Double, Datum::Float32(v)) if v.is_finite() => push_float32(out, *v),
        (Shape::Float | Shape::Double, Datum::Float32(v)) => push_json_float(out, f64::from(*v)),
        (Shape::Float | Shape::Double, Datum::Float64(v)) => push_json_float(out, *v),
        (Shape::Decimal { .. } | Shape::VariableDecimal | Shape::DecimalText | Shape::Double, _) => return push_decimal(out, shape, datum),
        (Shape::Text(_) | Shape::Enum { .. }, Datum::Text(v) | Datum::Json(v)) => push_json_string(out, v),
        (Shape::Text(_), Datum::Uuid(uuid)) => {
            out.push(b'"');
            push_uuid(out, uuid);
            out.push(b'"');
        }
        (Shape::Hstore, Datum::Text(text)) => return push_hstore_text(out, text),
        (Shape::Bytes(binaries), Datum::Binary(bytes)) => push_bytes(out, *binaries, bytes),
        (Shape::Date(_) | Shape::Time(_) | Shape::Timestamp(_) | Shape::ZonedTimestamp(_), _) => return push_moment(out, shape, datum),
        (Shape::ZonedTime, Datum::Text(text)) => push_zoned_time(out, text),
        (Shape::Interval(as_what), Datum::Text(text)) => return push_interval(out, *as_what, text),
        (Shape::Point, Datum::Text(text)) => {
            let is_point = std::str::from_utf8(text).is_ok_and(|text| push_point_text(out, text));
            return if is_point { Ok(()) } else { Err("it is not a point") };
        }
        (Shape::Point | Shape::Geometry, Datum::Binary(wkb)) => {
            let is_geometry = push_geometry(out, wkb, matches!(shape, Shape::Point));
            return if is_geometry { Ok(()) } else { Err("it is not well-known binary") };
        }
        (Shape::Array(item), Datum::Array(items)) => return push_array(out, item, items),
        // A column whose kind has no form of its own is text.
        (Shape::Text(_), Datum::Array(_) | Datum::Unavailable) => return Err(OF_ANOTHER_KIND),
        (Shape::Text(_), other) => {
            out.push(b'"');
            push_text(out, other);
            out.push(b'"');
        }
        _ => return Err(OF_ANOTHER_KIND),
    }
    Ok(())
}

fn push_array(out: &mut Vec<u8>, item: &Form, items: &[Datum]) -> Result<(), Refusal> {
    out.push(b'[');
    for (i, datum) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match datum {
            // Debezium has no arrays of arrays; ours nest as deep as the value does.
            Datum::Array(inner) => push_array(out, item, inner)?,
            Datum::Unavailable => return Err(OF_ANOTHER_KIND),
            datum => push_value(out, item, datum)?,
        }
    }
    out.push(b']');
    Ok(())
}

fn push_decimal(out: &mut Vec<u8>, shape: &Shape, datum: &Datum) -> Result<(), Refusal> {
    if let (Shape::Decimal { scale: 0, .. }, Datum::UInt(v)) = (shape, datum) {
        let mut bytes = Vec::with_capacity(9);
        push_i128(&mut bytes, i128::from(*v));
        push_base64(out, &bytes);
        return Ok(());
    }
    let Datum::Decimal(text) = datum else { return Err(OF_ANOTHER_KIND) };
    let parts = Parts::of(text).ok_or(OF_ANOTHER_KIND)?;
    match shape {
        Shape::DecimalText => {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        Shape::Double => {
            let value: f64 = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(OF_ANOTHER_KIND)?;
            push_json_float(out, value);
        }
        Shape::Decimal { scale, .. } => push_unscaled(out, &parts, *scale)?,
        _ => {
            out.extend_from_slice(b"{\"scale\":");
            push_signed(out, i64::from(parts.scale()));
            out.extend_from_slice(b",\"value\":");
            push_unscaled(out, &parts, parts.scale())?;
            out.push(b'}');
        }
    }
    Ok(())
}

fn push_unscaled(out: &mut Vec<u8>, parts: &Parts<'_>, scale: i32) -> Result<(), Refusal> {
    // Nearly every number fits into 16 bytes, which this keeps off the heap for all but a few.
    let mut bytes = Vec::with_capacity(17);
    if !parts.push_unscaled(scale, &mut bytes) {
        return Err(OUT_OF_SCALE);
    }
    push_base64(out, &bytes);
    Ok(())
}

fn push_hstore_text(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Refusal> {
    let mut object = Vec::new();
    if push_hstore(&mut object, text) {
        push_json_string(out, &object);
        Ok(())
    } else {
        Err("it is not an hstore")
    }
}

/// Bits as a little-endian number, as `java.util.BitSet` has them: of PostgreSQL as many bytes as are not zero, of MySQL all.
fn push_bits(out: &mut Vec<u8>, shape: &Shape, datum: &Datum) -> Result<(), Refusal> {
    let mut bytes: Vec<u8> = match datum {
        Datum::Text(digits) if digits.iter().all(|d| matches!(d, b'0' | b'1')) => {
            let byte = |chunk: &[u8]| chunk.iter().fold(0, |v, d| v << 1 | (d - b'0'));
            digits.rchunks(8).map(byte).collect()
        }
        Datum::UInt(v) => v.to_le_bytes().to_vec(),
        Datum::Int(v) => v.to_le_bytes().to_vec(),
        Datum::Binary(big_endian) => big_endian.iter().rev().copied().collect(),
        Datum::Bool(v) => vec![u8::from(*v)],
        _ => return Err(OF_ANOTHER_KIND),
    };
    let Shape::Bits(width) = shape else {
        out.extend_from_slice(if bytes.iter().any(|b| *b != 0) { b"true" } else { b"false" });
        return Ok(());
    };
    match width {
        Some(n_bytes) => bytes.resize(*n_bytes, 0),
        None => bytes.truncate(bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)),
    }
    push_base64(out, &bytes);
    Ok(())
}

pub(crate) fn push_bytes(out: &mut Vec<u8>, binaries: Binaries, bytes: &[u8]) {
    match binaries {
        Binaries::Bytes | Binaries::Base64 => push_base64(out, bytes),
        Binaries::Base64UrlSafe => push_encoded(out, &URL_SAFE, bytes),
        Binaries::Hex => {
            out.push(b'"');
            push_hex(out, bytes);
            out.push(b'"');
        }
    }
}

pub(crate) fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    push_encoded(out, &STANDARD, bytes);
}

fn push_encoded(out: &mut Vec<u8>, engine: &GeneralPurpose, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    engine.encode_slice(bytes, &mut out[start..]).expect("invariant: four characters for every three bytes begun");
    out.push(b'"');
}

/// How a column's times are written; see [`Shape`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Days, for a date.
    Days,
    Millis,
    Micros,
    Iso,
}

fn push_moment(out: &mut Vec<u8>, shape: &Shape, datum: &Datum) -> Result<(), Refusal> {
    match (shape, datum) {
        (Shape::Date(Unit::Iso), Datum::Date(days)) => {
            out.push(b'"');
            push_date(out, i64::from(*days));
            out.extend_from_slice(b"Z\"");
        }
        (Shape::Date(_), Datum::Date(days)) => push_signed(out, i64::from(*days)),
        (Shape::Time(Unit::Micros), Datum::Time(us)) => push_signed(out, *us),
        (Shape::Time(_), Datum::Time(us)) if !(0..=DAY_US).contains(us) => return Err(OUT_OF_UNIT),
        (Shape::Time(Unit::Iso), Datum::Time(us)) => {
            out.push(b'"');
            push_time(out, *us, Fraction::Needed);
            out.extend_from_slice(b"Z\"");
        }
        (Shape::Time(_), Datum::Time(us)) => push_signed(out, us / 1_000),
        (Shape::Timestamp(Unit::Iso), Datum::Timestamp(us)) => {
            out.push(b'"');
            push_timestamp(out, *us, Fraction::Needed);
            out.extend_from_slice(b"Z\"");
        }
        (Shape::Timestamp(Unit::Micros), Datum::Timestamp(us)) => push_signed(out, *us),
        (Shape::Timestamp(_), Datum::Timestamp(us)) => push_signed(out, us.div_euclid(1_000)),
        (Shape::ZonedTimestamp(digits), Datum::TimestampTz(us)) => {
            out.push(b'"');
            push_timestamp(out, *us, Fraction::Fixed(*digits));
            out.extend_from_slice(b"Z\"");
        }
        _ => return Err(OF_ANOTHER_KIND),
    }
    Ok(())
}

fn push_zoned_time(out: &mut Vec<u8>, text: &[u8]) {
    match std::str::from_utf8(text).ok().and_then(utc_clock_us) {
        Some(us) => {
            out.push(b'"');
            push_time(out, us, Fraction::Needed);
            out.extend_from_slice(b"Z\"");
        }
        None => push_json_string(out, text),
    }
}

fn push_interval(out: &mut Vec<u8>, as_what: Intervals, text: &[u8]) -> Result<(), Refusal> {
    let interval = std::str::from_utf8(text).ok().and_then(Interval::parse).ok_or("it is not an interval in PostgreSQL's own style")?;
    match as_what {
        Intervals::Numeric => push_signed(out, interval.micros().ok_or("the interval is longer than 64 bits of microseconds")?),
        Intervals::String => {
            out.push(b'"');
            interval.push_iso(out);
            out.push(b'"');
        }
    }
    Ok(())
}

/// What Debezium writes for PostgreSQL's infinities: the ends of Java's clock, as measured (`testdata/debezium/postgres-odd.json`).
const INFINITE_DAYS: [i64; 2] = [-2_147_472_692, -2_147_472_691];
const INFINITE_US: [i64; 2] = [9_223_372_036_825_200_000, -9_223_372_036_832_400_000];

/// A zero date is null where the column may be null and the epoch elsewhere, an infinity is the end of Java's clock: Debezium's documented
/// forms. In a form that is text a value stays the database's own text. Nothing else may stand for a value: it is refused.
fn push_odd(out: &mut Vec<u8>, form: &Form, text: &[u8]) -> Result<(), Refusal> {
    if std::str::from_utf8(text).is_err() {
        return Err(ODD);
    }
    let infinity = [&b"infinity"[..], b"-infinity"].iter().position(|word| *word == text);
    let is_zero_date = text.first().is_some_and(u8::is_ascii_digit) && (text.get(5..7) == Some(b"00") || text.get(8..10) == Some(b"00"));
    match (&form.shape, infinity) {
        (Shape::Date(unit), Some(which)) if *unit != Unit::Iso => push_signed(out, INFINITE_DAYS[which]),
        (Shape::Timestamp(Unit::Micros), Some(which)) => push_signed(out, INFINITE_US[which]),
        (Shape::Timestamp(Unit::Millis), Some(which)) => push_signed(out, INFINITE_US[which] / 1_000),
        (Shape::Date(_) | Shape::Timestamp(_), None) if is_zero_date && form.is_optional => out.extend_from_slice(b"null"),
        (Shape::ZonedTimestamp(_), None) if is_zero_date => push_plain(out, &form.shape, &Datum::TimestampTz(0))?,
        (shape @ Shape::Date(_), None) if is_zero_date => push_plain(out, shape, &Datum::Date(0))?,
        (shape @ Shape::Timestamp(_), None) if is_zero_date => push_plain(out, shape, &Datum::Timestamp(0))?,
        (Shape::Double | Shape::Float, _) if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") => push_json_string(out, text),
        (
            Shape::DecimalText
            | Shape::Text(_)
            | Shape::ZonedTimestamp(_)
            | Shape::ZonedTime
            | Shape::Date(Unit::Iso)
            | Shape::Time(Unit::Iso)
            | Shape::Timestamp(Unit::Iso),
            _,
        ) => push_json_string(out, text),
        _ => return Err(ODD),
    }
    Ok(())
}
