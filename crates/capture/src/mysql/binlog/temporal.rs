//! Dates and times in their packed forms (`my_time.cc`), to counts since 1970, or to the server's text where there is no such day.

use crate::datum::Datum;
use bytes::{BufMut, BytesMut};
use std::fmt::Write;

const US_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Digits of a second's fraction, at most 6.
pub const FRACTION_DIGITS_MAX: u8 = 6;

/// Bytes of a fraction of so many digits: two digits in each.
pub fn fraction_bytes(digits: u8) -> usize {
    usize::from(digits.min(FRACTION_DIGITS_MAX)).div_ceil(2)
}

/// From the stored integer of as many bytes to microseconds.
fn fraction_us(stored: u64, n_bytes: usize) -> u32 {
    stored as u32 * [US_PER_SECOND as u32, 10_000, 100, 1][n_bytes.min(3)]
}

/// A day and a time as they are written, whether or not there is such a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub year: u32,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub us: u32,
}

impl Written {
    fn day(year: u32, month: u32, day: u32) -> Self {
        Self { year, month, day, hour: 0, minute: 0, second: 0, us: 0 }
    }

    /// Days since 1970-01-01; none for zero dates, and for days that are let in by `ALLOW_INVALID_DATES`.
    pub fn days(&self) -> Option<i32> {
        let is_leap = self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        let length = match self.month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if is_leap => 29,
            2 => 28,
            _ => return None,
        };
        if !(1..=length).contains(&self.day) {
            return None;
        }
        // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil: years begin in March.
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * ((i64::from(self.month) + 9) % 12) + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
        i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
    }

    fn us_of_day(&self) -> Option<i64> {
        let is_time = self.hour < 24 && self.minute < 60 && self.second < 60 && i64::from(self.us) < US_PER_SECOND;
        let seconds = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        is_time.then_some(seconds * US_PER_SECOND + i64::from(self.us))
    }

    pub fn timestamp(&self) -> Option<i64> {
        Some(i64::from(self.days()?) * SECONDS_PER_DAY * US_PER_SECOND + self.us_of_day()?)
    }

    pub fn put_date(&self, out: &mut BytesMut) {
        let _ = write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day);
    }

    pub fn put_time(&self, out: &mut BytesMut, digits: u8) {
        let _ = write!(out, "{:02}:{:02}:{:02}", self.hour, self.minute, self.second);
        put_fraction(out, self.us, digits);
    }

    fn odd(&self, arena: &mut BytesMut, digits: u8) -> Datum {
        self.put_date(arena);
        arena.put_u8(b' ');
        self.put_time(arena, digits);
        Datum::Odd(arena.split().freeze())
    }
}

fn put_fraction(out: &mut BytesMut, us: u32, digits: u8) {
    if digits > 0 {
        let cut = 10u32.pow(u32::from(FRACTION_DIGITS_MAX.saturating_sub(digits)));
        let _ = write!(out, ".{:0width$}", us / cut, width = usize::from(digits));
    }
}

/// `DATE`: day in 5 bits, month in 4, year above, of three bytes.
pub fn date(stored: u32, arena: &mut BytesMut) -> Datum {
    let written = Written::day(stored >> 9, stored >> 5 & 15, stored & 31);
    match written.days() {
        Some(days) => Datum::Date(days),
        None => {
            written.put_date(arena);
            Datum::Odd(arena.split().freeze())
        }
    }
}

/// `DATETIME` from before 5.6.4: the decimal number YYYYMMDDhhmmss.
pub fn datetime_decimal(stored: u64, arena: &mut BytesMut) -> Datum {
    let (day, time) = ((stored / 1_000_000 % 1_0000_0000) as u32, (stored % 1_000_000) as u32);
    let written = Written {
        hour: time / 10_000,
        minute: time / 100 % 100,
        second: time % 100,
        ..Written::day(day / 10_000, day / 100 % 100, day % 100)
    };
    written.timestamp().map_or_else(|| written.odd(arena, 0), Datum::Timestamp)
}

/// The 40 bits of a `DATETIME` before its fraction: a sign that is always set, year * 13 + month in 17, day 5, hour 5, minute 6, second 6.
pub fn written(packed: u64, us: u32) -> Written {
    let year_month = (packed >> 22 & 0x1_ffff) as u32;
    let bits = |shift: u32, n: u32| (packed >> shift) as u32 & ((1 << n) - 1);
    Written { hour: bits(12, 5), minute: bits(6, 6), second: bits(0, 6), us, ..Written::day(year_month / 13, year_month % 13, bits(17, 5)) }
}

/// `DATETIME(digits)`: five bytes, the highest first, then the fraction.
pub fn datetime(packed: u64, fraction: u64, digits: u8, arena: &mut BytesMut) -> Datum {
    let written = written(packed, fraction_us(fraction, fraction_bytes(digits)));
    written.timestamp().map_or_else(|| written.odd(arena, digits), Datum::Timestamp)
}

/// `TIMESTAMP(digits)`: seconds since 1970, then the fraction. MariaDB counts to 2106 from 11.5 on: without a sign. No seconds and no fraction
/// is the zero date.
pub fn timestamp(seconds: u32, fraction: u64, digits: u8, arena: &mut BytesMut) -> Datum {
    let us = fraction_us(fraction, fraction_bytes(digits));
    match (seconds, us) {
        (0, 0) => Written::day(0, 0, 0).odd(arena, digits),
        _ => Datum::TimestampTz(i64::from(seconds) * US_PER_SECOND + i64::from(us)),
    }
}

/// `TIME` from before 5.6.4: the decimal number hhmmss, with its sign.
pub fn time_decimal(stored: i32) -> Datum {
    let n = i64::from(stored.unsigned_abs());
    let us = (n / 10_000 * 3600 + n / 100 % 100 * 60 + n % 100) * US_PER_SECOND;
    Datum::Time(if stored < 0 { -us } else { us })
}

/// `TIME(digits)`: a sign bit that is set from zero on, an unused bit, hours in 10, minutes in 6, seconds in 6, and the fraction behind it, as
/// one number, the highest byte first: below zero it is the two's complement of the whole.
pub fn time(stored: u64, digits: u8) -> Datum {
    let n_bytes = fraction_bytes(digits);
    let bits = 8 * n_bytes as u32;
    Datum::Time(interval_us(stored as i64 - (0x80_0000 << bits), bits, n_bytes))
}

fn interval_us(value: i64, bits: u32, n_bytes: usize) -> i64 {
    let size = value.unsigned_abs();
    let (whole, fraction) = (size >> bits, size & ((1 << bits) - 1));
    let seconds = (whole >> 12 & 0x3ff) * 3600 + (whole >> 6 & 0x3f) * 60 + (whole & 0x3f);
    let us = seconds as i64 * US_PER_SECOND + i64::from(fraction_us(fraction, n_bytes));
    if value < 0 { -us } else { us }
}

/// A time inside a JSON document: as in memory, with 24 bits of microseconds; written with a minus sign and all six digits.
pub fn put_json_time(out: &mut BytesMut, packed: i64) {
    let us = interval_us(packed, 24, 3);
    let (seconds, fraction) = (us.unsigned_abs() / US_PER_SECOND as u64, (us.unsigned_abs() % US_PER_SECOND as u64) as u32);
    let sign = if us < 0 { "-" } else { "" };
    let _ = write!(out, "{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    put_fraction(out, fraction, FRACTION_DIGITS_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn odd(text: &'static str) -> Datum {
        Datum::Odd(Bytes::from_static(text.as_bytes()))
    }

    fn pack(year: u64, month: u64, day: u64, hour: u64, minute: u64, second: u64) -> u64 {
        1 << 39 | (year * 13 + month) << 22 | day << 17 | hour << 12 | minute << 6 | second
    }

    #[test]
    fn dates() {
        let cases = [
            ((1970, 1, 1), Datum::Date(0)),
            ((2000, 2, 29), Datum::Date(11_016)),
            ((1000, 1, 1), Datum::Date(-354_285)),
            ((9999, 12, 31), Datum::Date(2_932_896)),
            ((0, 0, 0), odd("0000-00-00")),
            ((2024, 0, 0), odd("2024-00-00")),
            ((2024, 1, 0), odd("2024-01-00")),
            ((2023, 2, 29), odd("2023-02-29")),
            ((1900, 2, 29), odd("1900-02-29")),
            ((2024, 4, 31), odd("2024-04-31")),
        ];
        for ((year, month, day), want) in cases {
            assert_eq!(date(year << 9 | month << 5 | day, &mut BytesMut::new()), want, "{year}-{month}-{day}");
        }
    }

    #[test]
    fn datetimes() {
        let at = |packed, fraction, digits| datetime(packed, fraction, digits, &mut BytesMut::new());
        assert_eq!(at(pack(1970, 1, 1, 0, 0, 1), 0, 0), Datum::Timestamp(1_000_000));
        assert_eq!(at(pack(1969, 12, 31, 23, 59, 59), 99, 2), Datum::Timestamp(-10_000));
        assert_eq!(at(pack(1969, 12, 31, 23, 59, 59), 9_990, 3), Datum::Timestamp(-1_000));
        assert_eq!(at(pack(9999, 12, 31, 23, 59, 59), 999_999, 6), Datum::Timestamp(253_402_300_799_999_999));
        assert_eq!(at(pack(0, 0, 0, 0, 0, 0), 0, 0), odd("0000-00-00 00:00:00"));
        assert_eq!(at(pack(0, 0, 0, 0, 0, 0), 0, 3), odd("0000-00-00 00:00:00.000"));
        assert_eq!(at(pack(2024, 2, 0, 1, 2, 3), 1_200, 3), odd("2024-02-00 01:02:03.120"));
        let old = |n| datetime_decimal(n, &mut BytesMut::new());
        assert_eq!(old(19_700_101_000_001), Datum::Timestamp(1_000_000));
        assert_eq!(old(0), odd("0000-00-00 00:00:00"));
    }

    #[test]
    fn timestamps() {
        let at = |seconds, fraction, digits| timestamp(seconds, fraction, digits, &mut BytesMut::new());
        assert_eq!(at(1, 0, 0), Datum::TimestampTz(1_000_000));
        assert_eq!(at(i32::MAX as u32, 999_999, 6), Datum::TimestampTz(2_147_483_647_999_999));
        assert_eq!(at(u32::MAX, 0, 0), Datum::TimestampTz(4_294_967_295_000_000));
        assert_eq!(at(0, 0, 1), odd("0000-00-00 00:00:00.0"));
    }

    /// The bytes of -00:00:00.01 and its neighbours are those of `my_time_packed_to_binary`'s comment.
    #[test]
    #[allow(clippy::unusual_byte_groupings, reason = "the fraction stands apart")]
    fn times() {
        let cases = [
            (0x80_0000, 0, 0),
            (0x80_0001, 0, 1_000_000),
            (0x7f_ffff, 0, -1_000_000),
            (0x7f_ffff_ff, 2, -10_000),
            (0x7f_ffff_00, 2, -1_000_000),
            (0x7f_fffe_ff, 2, -1_010_000),
            (0x80_0000_01, 1, 10_000),
            (0x7f_ffff_ffff, 4, -100),
            (0x7f_ffff_ff_ffff, 5, -1),
            (0x80_0000 + (838 << 12 | 59 << 6 | 59), 0, 3_020_399_000_000),
            (0x80_0000 - (838 << 12 | 59 << 6 | 59), 0, -3_020_399_000_000),
        ];
        for (stored, digits, want) in cases {
            assert_eq!(time(stored, digits), Datum::Time(want), "{stored:x}");
        }
        assert_eq!(time_decimal(-8_385_959), Datum::Time(-3_020_399_000_000));
        assert_eq!(time_decimal(10_203), Datum::Time(3_723_000_000));
    }
}
