//! A day of event time, UTC: the folder a row's file stands in.

use jiff::civil::Date;
use std::fmt;
use std::str::FromStr;

pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Days since 1970-01-01. Written `2026-11-21`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Day(i32);

impl Day {
    pub fn of(event_time_us: i64) -> Self {
        Self(event_time_us.div_euclid(DAY_US) as i32)
    }

    /// The first microsecond of the day.
    pub fn start_us(self) -> i64 {
        i64::from(self.0) * DAY_US
    }

    /// The first microsecond behind the day.
    pub fn end_us(self) -> i64 {
        self.start_us() + DAY_US
    }
}

const EPOCH: Date = Date::constant(1970, 1, 1);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match EPOCH.checked_add(jiff::Span::new().try_days(self.0).unwrap_or_default()) {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "day{}", self.0),
        }
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let date: Date = text.parse().map_err(|_| format!("'{text}' is not a day: it is written as 2026-11-21"))?;
        let span = EPOCH.until(date).map_err(|e| e.to_string())?;
        Ok(Self(span.get_days()))
    }
}

impl serde::Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Day {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for (us, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (DAY_US, "1970-01-02"),
            (1_562_345_999_999_999, "2019-07-05"),
            (1_795_219_200_000_000, "2026-11-21"),
        ] {
            assert_eq!(Day::of(us).to_string(), text);
            assert_eq!(text.parse::<Day>().unwrap(), Day::of(us));
        }
        assert!("2019-13-01".parse::<Day>().is_err());
    }
}
