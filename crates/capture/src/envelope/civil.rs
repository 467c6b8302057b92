//! Days and microseconds as ISO 8601, in the proleptic Gregorian calendar with a year 0, for all years that a database can have.

use super::text::{push_int, push_padded};

const DAY_US: i64 = 86_400_000_000;

/// Year, month and day of days since 1970-01-01, by Howard Hinnant's `civil_from_days` ("chrono-Compatible Low-Level Date Algorithms").
pub(crate) fn civil(days: i64) -> (i64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097).unsigned_abs();
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era.cast_signed() + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// `2026-11-22`, `-4712-01-01`, `+294276-12-31`.
pub(crate) fn push_date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    match year {
        0..=9_999 => {}
        year if year < 0 => out.push(b'-'),
        _ => out.push(b'+'),
    }
    push_padded(out, year.unsigned_abs(), 4);
    out.push(b'-');
    push_padded(out, month, 2);
    out.push(b'-');
    push_padded(out, day, 2);
}

/// How many decimals of a second are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fraction {
    /// As many as are not zero.
    Needed,
    /// Always so many; finer ones are cut.
    Fixed(u8),
}

/// `12:34:56.789012` of microseconds since midnight; hours go beyond 24, and a minus stands first, as in an interval of the day.
pub(crate) fn push_time(out: &mut Vec<u8>, us: i64, fraction: Fraction) {
    if us < 0 {
        out.push(b'-');
    }
    let us = us.unsigned_abs();
    let seconds = us / 1_000_000;
    push_padded(out, seconds / 3_600, 2);
    out.push(b':');
    push_padded(out, seconds / 60 % 60, 2);
    out.push(b':');
    push_padded(out, seconds % 60, 2);
    push_fraction(out, us % 1_000_000, fraction);
}

fn push_fraction(out: &mut Vec<u8>, us: u64, fraction: Fraction) {
    let n_digits = match fraction {
        Fraction::Fixed(n) => usize::from(n.min(6)),
        Fraction::Needed if us == 0 => 0,
        Fraction::Needed => 6 - (us.to_string().bytes().rev().take_while(|b| *b == b'0').count()),
    };
    if n_digits > 0 {
        out.push(b'.');
        push_padded(out, us / 10u64.pow(6 - n_digits as u32), n_digits);
    }
}

/// `2026-11-22T12:34:56.789012`, without a zone.
pub(crate) fn push_timestamp(out: &mut Vec<u8>, us: i64, fraction: Fraction) {
    push_date(out, us.div_euclid(DAY_US));
    out.push(b'T');
    push_time(out, us.rem_euclid(DAY_US), fraction);
}

/// Seconds with decimals as ISO 8601 durations have them: `6.789012`, `-0.000001`, `0`.
pub(crate) fn push_seconds(out: &mut Vec<u8>, us: i64) {
    if us < 0 {
        out.push(b'-');
    }
    push_int(out, us.unsigned_abs() / 1_000_000);
    push_fraction(out, us.unsigned_abs() % 1_000_000, Fraction::Needed);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times() {
        let date = |days| {
            let mut out = Vec::new();
            push_date(&mut out, days);
            String::from_utf8(out).unwrap()
        };
        for (days, want) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (20_779, "2026-11-22"),
            (-719_162, "0001-01-01"),
            (-719_163, "0000-12-31"),
            (-2_440_550, "-4712-01-01"),
            (2_145_042_905, "+5874897-12-31"),
            (11_016, "2000-02-29"),
        ] {
            assert_eq!(date(days), want);
        }
        let stamp = |us, fraction| {
            let mut out = Vec::new();
            push_timestamp(&mut out, us, fraction);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(stamp(-1, Fraction::Needed), "1969-12-31T23:59:59.999999");
        assert_eq!(stamp(1_795_350_896_789_000, Fraction::Needed), "2026-11-22T12:34:56.789");
        assert_eq!(stamp(1_795_350_896_789_012, Fraction::Fixed(3)), "2026-11-22T12:34:56.789");
        assert_eq!(stamp(1_795_350_896_000_000, Fraction::Fixed(6)), "2026-11-22T12:34:56.000000");
        assert_eq!(stamp(1_795_350_896_000_000, Fraction::Fixed(0)), "2026-11-22T12:34:56");
        assert_eq!(stamp(i64::MAX, Fraction::Needed), "+294247-01-10T04:00:54.775807");
        assert_eq!(stamp(i64::MIN, Fraction::Needed), "-290308-12-21T19:59:05.224192");
        let mut out = Vec::new();
        push_time(&mut out, -3_020_399_000_000, Fraction::Needed);
        assert_eq!(out, b"-838:59:59");
    }
}
