//! PostgreSQL's intervals, in the output style `postgres`: `1 year 2 mons 3 days 04:05:06.789012`, `-1 mons +2 days -00:00:00.000001`.
//! PostgreSQL documentation, "Date/Time Types", Interval Output.

use super::civil::push_seconds;
use super::text::push_signed;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Interval {
    years: i64,
    months: i64,
    days: i64,
    us: i64,
}

/// 365.25 days in twelve parts, as Debezium's `interval.handling.mode = numeric` reckons.
const MONTH_US: i64 = 2_629_800_000_000;
const DAY_US: i64 = 86_400_000_000;

impl Interval {
    pub fn parse(text: &str) -> Option<Self> {
        let mut interval = Self::default();
        let mut words = text.split_ascii_whitespace();
        while let Some(word) = words.next() {
            if word.contains(':') {
                interval.us = clock_us(word)?;
                return words.next().is_none().then_some(interval);
            }
            let n: i64 = word.strip_prefix('+').unwrap_or(word).parse().ok()?;
            match words.next()? {
                "year" | "years" => interval.years = n,
                "mon" | "mons" => interval.months = n,
                "day" | "days" => interval.days = n,
                _ => return None,
            }
        }
        (!text.is_empty()).then_some(interval)
    }

    /// Microseconds, with months of an average length.
    pub fn micros(self) -> Option<i64> {
        let months = self.years.checked_mul(12)?.checked_add(self.months)?;
        months.checked_mul(MONTH_US)?.checked_add(self.days.checked_mul(DAY_US)?)?.checked_add(self.us)
    }

    /// `P1Y2M3DT4H5M6.789012S`, every part written, each with its own sign.
    pub fn push_iso(self, out: &mut Vec<u8>) {
        let seconds = self.us / 1_000_000;
        let parts = [(b'P', self.years), (b'Y', self.months), (b'M', self.days)];
        for (before, n) in parts {
            out.push(before);
            push_signed(out, n);
        }
        out.extend_from_slice(b"DT");
        push_signed(out, seconds / 3_600);
        out.push(b'H');
        push_signed(out, seconds / 60 % 60);
        out.push(b'M');
        push_seconds(out, self.us % 60_000_000);
        out.push(b'S');
    }
}

/// `-04:05:06.789012` in microseconds; hours have as many digits as they need.
pub(crate) fn clock_us(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let mut parts = digits.split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let is_number = |s: &str, n_max: usize| s.len() <= n_max && s.bytes().all(|b| b.is_ascii_digit());
    let fits = is_number(hours, 10) && is_number(minutes, 2) && is_number(seconds, 2) && is_number(fraction, 6);
    if parts.next().is_some() || !fits || minutes.is_empty() || seconds.is_empty() || hours.is_empty() {
        return None;
    }
    let fraction_us: i64 = format!("{fraction:0<6}").parse().ok()?;
    let seconds = hours.parse::<i64>().ok()? * 3_600 + minutes.parse::<i64>().ok()? * 60 + seconds.parse::<i64>().ok()?;
    seconds.checked_mul(1_000_000)?.checked_add(fraction_us)?.checked_mul(sign)
}

/// `12:34:56.789012+09:30` as microseconds of the day in UTC.
pub(crate) fn utc_clock_us(text: &str) -> Option<i64> {
    let at = text.rfind(['+', '-'])?;
    let (clock, offset) = text.split_at(at);
    let n_colons = offset.bytes().filter(|b| *b == b':').count();
    let padded = format!("{offset}{}", if n_colons == 0 { ":00:00" } else { ":00" });
    let offset_us = clock_us(if n_colons == 2 { offset } else { &padded })?;
    Some((clock_us(clock)? - offset_us).rem_euclid(DAY_US))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn read_and_written() {
        let check = |text: &str, micros: i64, want: &str| {
            let interval = Interval::parse(text).unwrap();
            let mut out = Vec::new();
            interval.push_iso(&mut out);
            assert_eq!((interval.micros(), String::from_utf8(out).unwrap().as_str()), (Some(micros), want), "{text}");
        };
        check("1 year 2 mons 3 days 04:05:06.789012", 37_091_106_789_012, "P1Y2M3DT4H5M6.789012S");
        check("-1 days", -86_400_000_000, "P0Y0M-1DT0H0M0S");
        check("-1 mons +2 days -00:00:00.000001", -2_457_000_000_001, "P0Y-1M2DT0H0M-0.000001S");
        check("00:00:00", 0, "P0Y0M0DT0H0M0S");
        check("-838:59:59.5", -3_020_399_500_000, "P0Y0M0DT-838H-59M-59.5S");
        for bad in ["", "1", "1 day x", "day 1", "04:05", "1:2:3:4", "12:34:56 1 day", "9999999999999999999 days", "é"] {
            assert_eq!(Interval::parse(bad), None, "{bad}");
        }
        assert_eq!(Interval::parse("178000000 years").unwrap().micros(), None);
        assert_eq!(utc_clock_us("12:34:56.789012+09"), Some(12_896_789_012));
        assert_eq!(utc_clock_us("00:00:00-09:30"), Some(34_200_000_000));
        assert_eq!(utc_clock_us("00:00:00+15:59:59"), Some(28_801_000_000));
        assert_eq!(utc_clock_us("00:00:00"), None);
    }
}
