//! One value of an input, and what it is as a number, a time or a side. Nothing is rounded: what does not fit is refused with the reason.

use super::options::{Mapping, Side};
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use mulgil_model::decimal::{self, DecimalError};
use mulgil_model::time::{EpochUnit, MICROS_MAX, MICROS_MIN, TimeError, parse_micros};

/// A value as the format has it. Numbers of text formats stay text, so that decimals are exact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Text(&'a str),
    /// The raw text of a number.
    Number(&'a str),
    Bool(bool),
    Int(i64),
    Decimal(i128, i8),
    Micros(i64),
    /// An object, a list, bytes: what it is called in a reason.
    Other(&'static str),
}

impl Value<'_> {
    /// `a number`, for reasons.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "text",
            Self::Number(_) | Self::Int(_) | Self::Decimal(..) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Micros(_) => "a time",
            Self::Other(what) => what,
        }
    }
}

const POW10: [u64; 19] = {
    let mut table = [1u64; 19];
    let mut i = 1;
    while i < 19 {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
};

/// Reads a decimal exactly; a plain number of up to 18 characters takes the short way.
pub(crate) fn decimal_of(text: &str, precision: u8, scale: i8) -> Result<i128, String> {
    if let Some(v) = short_decimal(text.as_bytes(), precision, scale) {
        return Ok(v);
    }
    let text = text.trim_ascii();
    decimal::parse(text, precision, scale).map_err(|e| match e {
        DecimalError::Format(shown) if is_not_finite(text) => format!("'{shown}' is not a finite number"),
        e => e.to_string(),
    })
}

/// None means: take the long way, not that the text is wrong.
fn short_decimal(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    let (mut value, mut n_decimals, mut n_digits, mut point) = (0u64, 0i32, 0, false);
    for (at, b) in text.iter().enumerate() {
        match b {
            b'0'..=b'9' => {
                value = value * 10 + u64::from(b - b'0');
                n_decimals += i32::from(point);
                n_digits += 1;
            }
            b'.' if !point => point = true,
            b'e' | b'E' => {
                n_decimals -= short_exponent(&text[at + 1..])?;
                break;
            }
            _ => return None,
        }
    }
    let shift = usize::try_from(i32::from(scale) - n_decimals).ok().filter(|_| n_digits > 0)?;
    let value = i128::from(value).checked_mul(i128::from(*POW10.get(shift)?))?;
    (value < decimal::pow10(u32::from(precision.min(decimal::PRECISION_MAX)))).then_some(value)
}

/// `-05`, `+3`, `12`.
fn short_exponent(tail: &[u8]) -> Option<i32> {
    let (sign, digits) = match tail {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    match digits {
        [a @ b'0'..=b'9'] => Some(sign * i32::from(a - b'0')),
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(sign * (i32::from(a - b'0') * 10 + i32::from(b - b'0'))),
        _ => None,
    }
}

fn is_not_finite(text: &str) -> bool {
    let word = text.trim_start_matches(['+', '-']);
    ["nan", "inf", "infinity"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

pub(crate) fn int_of(text: &str) -> Result<i64, String> {
    let text = text.trim_ascii();
    if let Ok(v) = text.parse::<i64>() {
        return Ok(v);
    }
    let value = decimal_of(text, decimal::PRECISION_MAX, 0)
        .map_err(|e| if e.contains("decimals") { format!("{} is not a whole number", shorten(text)) } else { e })?;
    i64::try_from(value).map_err(|_| format!("{} does not fit into 64 bits", shorten(text)))
}

pub(crate) fn float_of(text: &str) -> Result<f64, String> {
    let text = text.trim_ascii();
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() => Ok(v),
        Ok(_) => Err(format!("'{}' is not a finite number", shorten(text))),
        Err(_) => Err(format!("'{}' is not a number", shorten(text))),
    }
}

pub(crate) fn bool_of(text: &str) -> Result<bool, String> {
    match text.trim_ascii() {
        "true" | "TRUE" | "True" => Ok(true),
        "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("'{}' is neither true nor false", shorten(other))),
    }
}

/// Microseconds of a time written as text: RFC 3339, a number in the mapping's unit, or a local time in the mapping's zone.
pub(crate) fn micros_of(text: &str, mapping: &Mapping) -> Result<i64, String> {
    let text = text.trim_ascii();
    match parse_micros(text, mapping.time_unit) {
        Ok(us) => Ok(us),
        Err(e @ TimeError::Range(_)) => Err(e.to_string()),
        Err(e @ TimeError::Format(_)) => {
            fractional_micros(text, mapping.time_unit).or_else(|| local_micros(text, mapping)).unwrap_or_else(|| Err(e.to_string()))
        }
    }
}

/// `1561309495.124` seconds; digits finer than a microsecond are cut, never rounded up into the future.
fn fractional_micros(text: &str, unit: EpochUnit) -> Option<Result<i64, String>> {
    const SCALE: i8 = 12;
    let unscaled = decimal::parse(text, decimal::PRECISION_MAX, SCALE).ok()?;
    let micros = match unit {
        EpochUnit::Seconds => unscaled.div_euclid(1_000_000),
        EpochUnit::Millis => unscaled.div_euclid(1_000_000_000),
        EpochUnit::Micros => unscaled.div_euclid(1_000_000_000_000),
        EpochUnit::Nanos => unscaled.div_euclid(1_000_000_000_000_000),
    };
    let in_range = i64::try_from(micros).ok().filter(|us| (MICROS_MIN..=MICROS_MAX).contains(us));
    Some(in_range.ok_or_else(|| TimeError::Range(shorten(text)).to_string()))
}

fn local_micros(text: &str, mapping: &Mapping) -> Option<Result<i64, String>> {
    const PARSER: DateTimeParser = DateTimeParser::new();
    let local = PARSER.parse_datetime(text).ok()?;
    let Some(zone) = &mapping.time_zone else {
        return Some(Err(format!(
            "'{}' has no offset from UTC: name the input's time zone, or send 2026-11-21T09:00:00+09:00",
            shorten(text)
        )));
    };
    Some(zoned_micros(local, zone).ok_or_else(|| TimeError::Range(shorten(text)).to_string()))
}

/// A local time that a clock change skips or repeats is taken with the offset from before the change, as RFC 5545 does.
pub(crate) fn zoned_micros(local: jiff::civil::DateTime, zone: &TimeZone) -> Option<i64> {
    let us = zone.to_ambiguous_timestamp(local).compatible().ok()?.as_microsecond();
    (MICROS_MIN..=MICROS_MAX).contains(&us).then_some(us)
}

pub(crate) fn side_of(text: &str, mapping: &Mapping) -> Result<Option<Side>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    for side in [Side::Buy, Side::Sell] {
        if text.eq_ignore_ascii_case(side.as_str()) {
            return Ok(Some(side));
        }
    }
    let known = mapping.sides.iter().find(|(spelling, _)| spelling.eq_ignore_ascii_case(text));
    known
        .map(|(_, side)| Some(*side))
        .ok_or_else(|| format!("'{}' is neither BUY nor SELL, nor a spelling that the mapping knows", shorten(text)))
}

/// The longest symbol, in bytes.
pub(crate) const SYMBOL_BYTES_MAX: usize = 64;

/// `005930`, `BRK.B`, `ADX/BTC` and `KRW-BTC` are symbols; what could break a URL, a file name or a terminal is not.
pub(crate) fn check_symbol(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.len() > SYMBOL_BYTES_MAX {
        return Err(format!("'{}' is longer than the {SYMBOL_BYTES_MAX} bytes that a symbol may have", shorten(text)));
    }
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/' | b':' | b'=' | b'^' | b'&' | b'+' | b'#' | b'@' | b'$');
    if text.bytes().all(allowed) && text.bytes().any(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(format!("'{}' is not a symbol: use letters, digits and any of . - _ / : = ^ & + # @ $", shorten(&text.escape_debug().to_string())))
}

/// Stands in a dead letter for a value that has no text.
pub(crate) const UNPRINTABLE: &str = "(unprintable)";

/// Cuts a quoted bad value, so that a 1 MB field does not become a 1 MB reason.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_model::time::format_micros;
    use proptest::prelude::*;

    #[test]
    fn times() {
        let check = |text: &str, unit, zone: Option<&str>, want: &str| {
            let mapping = Mapping { time_unit: unit, time_zone: zone.map(|z| TimeZone::get(z).unwrap()), ..Mapping::default() };
            assert_eq!(micros_of(text, &mapping).map_or_else(|e| e, format_micros), want, "{text}");
        };
        let seoul = Some("Asia/Seoul");
        check("2019-07-05 17:00:00", EpochUnit::Millis, seoul, "2019-07-05T08:00:00Z");
        check("2019-07-05T17:00:00Z", EpochUnit::Millis, seoul, "2019-07-05T17:00:00Z");
        check("2024-11-03 01:30:00", EpochUnit::Millis, Some("America/New_York"), "2024-11-03T05:30:00Z");
        check("1561309495.124", EpochUnit::Seconds, None, "2019-06-23T17:04:55.124Z");
        check("1561309495124.9999", EpochUnit::Millis, None, "2019-06-23T17:04:55.1249999Z".replace("1249999Z", "124999Z").as_str());
        check("1.561309495e9", EpochUnit::Seconds, None, "2019-06-23T17:04:55Z");
        check(
            "2019-07-05 17:00:00",
            EpochUnit::Millis,
            None,
            "'2019-07-05 17:00:00' has no offset from UTC: name the input's time zone, or send 2026-11-21T09:00:00+09:00",
        );
        check("soon", EpochUnit::Millis, seoul, "'soon' is not a time: use RFC 3339 (2026-11-21T09:00:00+09:00) or epoch milliseconds");
    }

    #[test]
    fn symbols() {
        for good in ["005930", "BRK.B", "ADX/BTC", "KRW-BTC", "^GSPC", "ES=F"] {
            assert_eq!(check_symbol(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "A B", "a\u{0}", "삼성", "..", "a'b", "<b>", &"x".repeat(65)] {
            assert!(check_symbol(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_agrees_with_the_long_one(text in "[0-9.]{0,12}([eE][-+]?[0-9]{0,3})?", scale in 0i8..=8) {
            if let Some(v) = short_decimal(text.as_bytes(), 18, scale) {
                prop_assert_eq!(Ok(v), decimal::parse(&text, 18, scale));
            }
        }
    }
}
