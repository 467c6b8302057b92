//! Dates and times from PostgreSQL's ISO text: `0044-03-15 BC`, `12:34:56.789`, `2024-02-29 12:00:00+05:30`.
//!
//! PostgreSQL documentation, "Date/Time Types": dates from 4713 BC to 5874897 AD, times to 24:00:00, years without a zero: 1 BC is before 1 AD.

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
const MICROS_PER_DAY: i64 = SECONDS_PER_DAY * MICROS_PER_SECOND;

/// Days since 1970-01-01; `None` for `infinity` and what is no date.
pub fn date(text: &[u8]) -> Option<i32> {
    let (text, is_bc) = era(text);
    let mut input = Input(text);
    let days = input.date(is_bc)?;
    input.0.is_empty().then(|| i32::try_from(days).ok())?
}

/// Microseconds since midnight.
pub fn time(text: &[u8]) -> Option<i64> {
    let mut input = Input(text);
    let micros = input.time()?;
    input.0.is_empty().then_some(micros)
}

/// Microseconds since 1970 of a wall clock.
pub fn timestamp(text: &[u8]) -> Option<i64> {
    let (text, is_bc) = era(text);
    let mut input = Input(text);
    let micros = input.timestamp(is_bc)?;
    input.0.is_empty().then_some(micros)
}

/// Microseconds since 1970 UTC.
pub fn timestamp_tz(text: &[u8]) -> Option<i64> {
    let (text, is_bc) = era(text);
    let mut input = Input(text);
    let micros = input.timestamp(is_bc)?;
    let offset_seconds = input.zone()?;
    if !input.0.is_empty() {
        return None;
    }
    micros.checked_sub(offset_seconds * MICROS_PER_SECOND)
}

fn era(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    /// A number of `at_least` to `at_most` digits.
    fn number(&mut self, at_least: usize, at_most: usize) -> Option<i64> {
        let n = self.0.iter().take(at_most).take_while(|b| b.is_ascii_digit()).count();
        if n < at_least {
            return None;
        }
        let (digits, rest) = self.0.split_at(n);
        self.0 = rest;
        Some(digits.iter().fold(0, |sum, d| sum * 10 + i64::from(d - b'0')))
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    fn date(&mut self, is_bc: bool) -> Option<i64> {
        let year = self.number(4, 7)?;
        self.skip(b'-')?;
        let month = self.number(2, 2)?;
        self.skip(b'-')?;
        let day = self.number(2, 2)?;
        if year == 0 {
            return None;
        }
        let year = if is_bc { 1 - year } else { year };
        ((1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day)).then(|| days_since_1970(year, month, day))
    }

    fn time(&mut self) -> Option<i64> {
        let hour = self.number(2, 2)?;
        self.skip(b':')?;
        let minute = self.number(2, 2)?;
        self.skip(b':')?;
        let second = self.number(2, 2)?;
        let micros = if self.skip(b'.').is_some() { self.fraction()? } else { 0 };
        let sum = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + micros;
        (minute < 60 && second <= 60 && sum <= MICROS_PER_DAY).then_some(sum)
    }

    /// One to six digits of a second.
    fn fraction(&mut self) -> Option<i64> {
        let before = self.0.len();
        let digits = self.number(1, 6)?;
        let n = (before - self.0.len()) as u32;
        Some(digits * 10_i64.pow(6 - n))
    }

    fn timestamp(&mut self, is_bc: bool) -> Option<i64> {
        let days = self.date(is_bc)?;
        self.skip(b' ')?;
        let time = self.time()?;
        days.checked_mul(MICROS_PER_DAY)?.checked_add(time)
    }

    /// `+00`, `-03:30`, `+01:23:45`: seconds east of Greenwich.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.0.first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.number(2, 2)?;
        let minutes = if self.skip(b':').is_some() { self.number(2, 2)? } else { 0 };
        let seconds = if self.skip(b':').is_some() { self.number(2, 2)? } else { 0 };
        Some(sign * ((hours * 60 + minutes) * 60 + seconds))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of the Gregorian calendar, also before it began, as PostgreSQL counts. Years begin in March here, so that the leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    /// From 0000-03-01 to 1970-01-01.
    const DAYS_BEFORE_1970: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year_of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * DAYS_PER_400_YEARS + day_of_cycle - DAYS_BEFORE_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        // Day by day from year -1 to 2401, against a count of one more each day.
        let mut expected = days_since_1970(-1, 1, 1);
        for year in -1..2401 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected);
                    expected += 1;
                }
            }
        }
        assert_eq!(days_since_1970(1970, 1, 1), 0);
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "infinity",
            "-infinity",
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "0000-01-01",
            "2024-01-01 ",
            "20240-1-01",
            "2024-01-01x",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
        for text in ["24:00:00.000001", "12:60:00", "12:00", "12:00:00.", "12:00:00.1234567"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
        for text in ["infinity", "2024-01-01", "2024-01-01 00:00:00+00", "294277-01-01 00:00:00"] {
            assert_eq!(timestamp(text.as_bytes()), None, "{text}");
        }
        for text in ["2024-01-01 00:00:00", "2024-01-01 00:00:00+", "2024-01-01 00:00:00+0", "-infinity"] {
            assert_eq!(timestamp_tz(text.as_bytes()), None, "{text}");
        }
    }
}
