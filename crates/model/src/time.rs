//! The three times of a row, as distinct types: all are microseconds since 1970-01-01T00:00:00Z, and mixing them up does not compile.

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimeParser;
use std::fmt;

macro_rules! instant {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl $name {
            pub const fn from_micros(us: i64) -> Self {
                Self(us)
            }
            pub const fn micros(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&format_micros(self.0))
            }
        }
    };
}

instant! {
    /// When it happened, by the source's own account (exchange time, commit time, a column).
    EventTime
}
instant! {
    /// When mulgil first held the row.
    ReceiveTime
}
instant! {
    /// When the row's commit was written to the log.
    AppendTime
}

/// The earliest and latest times accepted anywhere: years 1900 to 2200. Outside of it, a value is taken for a wrong unit.
pub const MICROS_MIN: i64 = -2_208_988_800_000_000;
pub const MICROS_MAX: i64 = 7_258_118_400_000_000;

/// RFC 3339 in UTC with as many decimals as needed: `2026-11-21T01:02:03.5Z`. Times outside jiff's range are written as microseconds.
pub fn format_micros(us: i64) -> String {
    match Timestamp::from_microsecond(us) {
        Ok(t) => t.to_string(),
        Err(_) => format!("{us}us"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("'{0}' is not a time: use RFC 3339 (2026-11-21T09:00:00+09:00) or epoch milliseconds")]
    Format(String),
    #[error("time {0} is outside the years 1900 to 2200: is its unit right?")]
    Range(String),
}

/// The unit of a number that stands for a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EpochUnit {
    Seconds,
    #[default]
    Millis,
    Micros,
    Nanos,
}

impl EpochUnit {
    /// The microseconds that `n` of this unit are; nanoseconds are cut, never rounded up into the future.
    pub fn to_micros(self, n: i64) -> Result<i64, TimeError> {
        let us = match self {
            Self::Seconds => n.checked_mul(1_000_000),
            Self::Millis => n.checked_mul(1_000),
            Self::Micros => Some(n),
            Self::Nanos => Some(n.div_euclid(1_000)),
        };
        us.filter(|us| (MICROS_MIN..=MICROS_MAX).contains(us)).ok_or_else(|| TimeError::Range(n.to_string()))
    }
}

/// Reads RFC 3339 (offset required), or a whole number in `unit`.
pub fn parse_micros(text: &str, unit: EpochUnit) -> Result<i64, TimeError> {
    let text = text.trim();
    if let Ok(n) = text.parse::<i64>() {
        return unit.to_micros(n);
    }
    const PARSER: DateTimeParser = DateTimeParser::new();
    let t = PARSER.parse_timestamp(text).map_err(|_| TimeError::Format(shorten(text)))?;
    let us = t.as_microsecond();
    if (MICROS_MIN..=MICROS_MAX).contains(&us) { Ok(us) } else { Err(TimeError::Range(shorten(text))) }
}

/// Cuts a quoted bad value, so that a 1 MB field does not become a 1 MB error.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    if text.chars().count() <= SHOWN_CHARS_MAX {
        text.to_owned()
    } else {
        text.chars().take(SHOWN_CHARS_MAX).chain("…".chars()).collect()
    }
}

/// Parses `500ms`, `10s`, `5m`, `1h`, `7d` to microseconds.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let err = || DurationError { text: shorten(text) };
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(err)?;
    let n: i64 = text[..split].parse().map_err(|_| err())?;
    let unit = match &text[split..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(err()),
    };
    n.checked_mul(unit).filter(|us| *us <= MICROS_MAX).ok_or_else(err)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a duration: write a whole number and a unit, such as 500ms, 10s, 5m, 1h or 7d")]
pub struct DurationError {
    pub text: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, unit, want: &str| {
            assert_eq!(parse_micros(text, unit).map_or_else(|e| e.to_string(), format_micros), want, "{text}")
        };
        check("2019-07-05T17:00:00Z", EpochUnit::Millis, "2019-07-05T17:00:00Z");
        check("2019-07-06T02:00:00+09:00", EpochUnit::Millis, "2019-07-05T17:00:00Z");
        check("1561309495124", EpochUnit::Millis, "2019-06-23T17:04:55.124Z");
        check("1561309495", EpochUnit::Seconds, "2019-06-23T17:04:55Z");
        check("-1", EpochUnit::Nanos, "1969-12-31T23:59:59.999999Z");
        check("1561309495124000", EpochUnit::Millis, "time 1561309495124000 is outside the years 1900 to 2200: is its unit right?");
        check(
            "2019-07-05 17:00",
            EpochUnit::Millis,
            "'2019-07-05 17:00' is not a time: use RFC 3339 (2026-11-21T09:00:00+09:00) or epoch milliseconds",
        );
        check("9223372036854775807", EpochUnit::Seconds, "time 9223372036854775807 is outside the years 1900 to 2200: is its unit right?");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("10s").unwrap(), 10_000_000);
        assert_eq!(parse_duration("1d").unwrap(), 86_400_000_000);
        for bad in ["", "10", "s", "-1s", "1.5s", "1w", "99999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
