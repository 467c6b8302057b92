//! Windows of fixed length on a local clock: `1s` to `59m` and `1h` windows begin where the local clock reads a multiple, longer ones at
//! wall-clock boundaries of the local day.
//!
//! Windows always partition the time line: every instant lies in exactly one. Where the clock is put forward or back:
//! - up to one hour, a window is cut at the change: New York's second 01:00 hour in November is a window of its own, and Lord Howe's
//!   half-hour change leaves two half windows;
//! - above one hour, a window lasts from one wall-clock boundary to the next, so a day has 23 or 25 hours, and a boundary that the clock
//!   skips or repeats counts at the first instant that has it.

use crate::window::Window;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};

const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3600 * SECOND_US;
const DAY_US: i64 = 24 * HOUR_US;

/// Blocks of days are counted from this Monday, so that `7d` is an ISO week.
const EPOCH_MONDAY: Date = Date::constant(1970, 1, 5);

/// The longest interval, in days.
const DAYS_MAX: i64 = 366;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    #[error(
        "'{0}' is not a bar interval: write Ns or Nm with N dividing 60, Nh with N dividing 24, or Nd with N up to {DAYS_MAX}, such as 1s, 5m, 1h or 1d"
    )]
    Interval(String),
    #[error("'{0}' is not a known time zone: use an IANA name such as Asia/Seoul, America/New_York or UTC")]
    Zone(String),
}

/// A length of time that divides the clock evenly: `1s`, `5m`, `4h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    us: i64,
}

impl Interval {
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        let err = || CalendarError::Interval(text.chars().take(40).collect());
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(err)?);
        let n: i64 = digits.parse().map_err(|_| err())?;
        let (unit_us, fits) = match unit {
            "s" => (SECOND_US, n > 0 && 60 % n == 0),
            "m" => (60 * SECOND_US, n > 0 && 60 % n == 0),
            "h" => (HOUR_US, n > 0 && 24 % n == 0),
            "d" => (DAY_US, (1..=DAYS_MAX).contains(&n)),
            _ => return Err(err()),
        };
        if fits { Ok(Self { us: n * unit_us }) } else { Err(err()) }
    }

    /// Microseconds, with days of 24 hours: what the interval is called, not how long each of its windows lasts.
    pub fn micros(self) -> i64 {
        self.us
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [(DAY_US, 'd'), (HOUR_US, 'h'), (60 * SECOND_US, 'm'), (SECOND_US, 's')];
        let (unit_us, unit) = units.into_iter().find(|(us, _)| self.us % us == 0).unwrap_or((SECOND_US, 's'));
        write!(f, "{}{unit}", self.us / unit_us)
    }
}

/// Finds the time zone among those compiled in, so that the machine's own tables cannot change a result.
pub fn zone(name: &str) -> Result<TimeZone, CalendarError> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| CalendarError::Zone(name.chars().take(60).collect()))
}

/// Assigns instants to the windows of one interval in one time zone. Keeps what it looked up last: neighbours in time cost a comparison.
#[derive(Debug, Clone)]
pub struct Calendar {
    interval: Interval,
    zone: TimeZone,
    last: Window,
    /// Where the zone's offset is constant, and that offset.
    span: Span,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    from: i64,
    until: i64,
    offset_us: i64,
}

impl Calendar {
    pub fn new(interval: Interval, zone: TimeZone) -> Self {
        Self { interval, zone, last: Window { start: 0, end: 0 }, span: Span { from: 0, until: 0, offset_us: 0 } }
    }

    pub fn interval(&self) -> Interval {
        self.interval
    }

    /// The window that `t` (microseconds) lies in.
    #[inline]
    pub fn window_of(&mut self, t: i64) -> Window {
        if !self.last.contains(t) {
            self.last = self.look_up(t);
        }
        self.last
    }

    fn look_up(&mut self, t: i64) -> Window {
        if !(self.span.from <= t && t < self.span.until) {
            self.span = span_of(&self.zone, t);
        }
        let Span { from, until, offset_us } = self.span;
        let us = self.interval.us;
        if us <= HOUR_US {
            let start = (t + offset_us).div_euclid(us) * us - offset_us;
            return Window { start: start.max(from), end: (start + us).min(until) };
        }
        self.civil_window(t).unwrap_or_else(|| fixed_window(t, us))
    }

    /// None beyond the years that jiff knows.
    fn civil_window(&self, t: i64) -> Option<Window> {
        let mut local = self.floor(self.zone.to_datetime(Timestamp::from_microsecond(t).ok()?))?;
        // The boundary below the local time can lie behind `t` (skipped clock times) or two before it (repeated ones).
        let mut start = self.instant(local)?;
        while start > t {
            local = self.step(local, -1)?;
            start = self.instant(local)?;
        }
        loop {
            local = self.step(local, 1)?;
            let end = self.instant(local)?;
            if end > t {
                return Some(Window { start, end });
            }
            start = end;
        }
    }

    /// The wall-clock boundary at or before a local time.
    fn floor(&self, local: DateTime) -> Option<DateTime> {
        if self.interval.us < DAY_US {
            let hours = (self.interval.us / HOUR_US) as i8;
            return Some(local.date().at(local.hour() / hours * hours, 0, 0, 0));
        }
        let days = self.interval.us / DAY_US;
        let since = i64::from(local.date().since(EPOCH_MONDAY).ok()?.get_days());
        let start = EPOCH_MONDAY.checked_add((since.div_euclid(days) * days).days()).ok()?;
        Some(start.to_datetime(Time::midnight()))
    }

    fn step(&self, local: DateTime, n: i64) -> Option<DateTime> {
        let step =
            if self.interval.us < DAY_US { (n * self.interval.us / HOUR_US).hours() } else { (n * self.interval.us / DAY_US).days() };
        local.checked_add(step).ok()
    }

    fn instant(&self, local: DateTime) -> Option<i64> {
        self.zone.to_ambiguous_timestamp(local).compatible().ok().map(Timestamp::as_microsecond)
    }
}

fn span_of(zone: &TimeZone, t: i64) -> Span {
    let Ok(at) = Timestamp::from_microsecond(t) else { return Span { from: i64::MIN, until: i64::MAX, offset_us: 0 } };
    // `preceding` excludes its argument, and a change at `t` itself already holds.
    let just_after = at.checked_add(1.microsecond()).unwrap_or(at);
    // Some entries change only a name.
    let changes = |at: &Timestamp| at.checked_sub(1.microsecond()).is_ok_and(|before| zone.to_offset(before) != zone.to_offset(*at));
    let from = zone.preceding(just_after).map(|c| c.timestamp()).find(changes).map_or(i64::MIN, Timestamp::as_microsecond);
    let until = zone.following(at).map(|c| c.timestamp()).find(changes).map_or(i64::MAX, Timestamp::as_microsecond);
    Span { from, until, offset_us: i64::from(zone.to_offset(at).seconds()) * SECOND_US }
}

fn fixed_window(t: i64, us: i64) -> Window {
    let start = t.div_euclid(us).saturating_mul(us);
    Window { start, end: start.saturating_add(us) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use mulgil_model::time::{EpochUnit, format_micros, parse_micros};
    use proptest::prelude::*;

    fn local(zone: &TimeZone, us: i64) -> String {
        let zoned = Timestamp::from_microsecond(us).unwrap().to_zoned(zone.clone());
        format!("{}{}", zoned.strftime("%F %T"), zone.to_offset(zoned.timestamp()))
    }

    /// Walks from window to window and prints them on the local clock.
    fn check(interval: &str, zone_name: &str, from: &str, n: usize, want: Expect) {
        let zone = zone(zone_name).unwrap();
        let mut calendar = Calendar::new(Interval::parse(interval).unwrap(), zone.clone());
        let mut t = parse_micros(from, EpochUnit::Micros).unwrap();
        let mut text = String::new();
        for _ in 0..n {
            let w = calendar.window_of(t);
            let hours = (w.end - w.start) as f64 / HOUR_US as f64;
            text += &format!("{} .. {} {hours}h\n", local(&zone, w.start), local(&zone, w.end));
            t = w.end;
        }
        want.assert_eq(&text);
    }

    #[test]
    fn days_of_23_and_25_hours() {
        check(
            "1d",
            "America/New_York",
            "2024-03-09T12:00:00Z",
            3,
            expect![[r#"
            2024-03-09 00:00:00-05 .. 2024-03-10 00:00:00-05 24h
            2024-03-10 00:00:00-05 .. 2024-03-11 00:00:00-04 23h
            2024-03-11 00:00:00-04 .. 2024-03-12 00:00:00-04 24h
        "#]],
        );
        check(
            "1d",
            "America/New_York",
            "2024-11-02T12:00:00Z",
            3,
            expect![[r#"
            2024-11-02 00:00:00-04 .. 2024-11-03 00:00:00-04 24h
            2024-11-03 00:00:00-04 .. 2024-11-04 00:00:00-05 25h
            2024-11-04 00:00:00-05 .. 2024-11-05 00:00:00-05 24h
        "#]],
        );
        check(
            "1d",
            "Asia/Seoul",
            "2024-02-28T14:59:59.999999Z",
            3,
            expect![[r#"
            2024-02-28 00:00:00+09 .. 2024-02-29 00:00:00+09 24h
            2024-02-29 00:00:00+09 .. 2024-03-01 00:00:00+09 24h
            2024-03-01 00:00:00+09 .. 2024-03-02 00:00:00+09 24h
        "#]],
        );
    }

    #[test]
    fn hours_on_the_local_clock() {
        check(
            "1h",
            "America/New_York",
            "2024-11-03T04:30:00Z",
            4,
            expect![[r#"
            2024-11-03 00:00:00-04 .. 2024-11-03 01:00:00-04 1h
            2024-11-03 01:00:00-04 .. 2024-11-03 01:00:00-05 1h
            2024-11-03 01:00:00-05 .. 2024-11-03 02:00:00-05 1h
            2024-11-03 02:00:00-05 .. 2024-11-03 03:00:00-05 1h
        "#]],
        );
        check(
            "1h",
            "America/New_York",
            "2024-03-10T05:59:59Z",
            4,
            expect![[r#"
            2024-03-10 00:00:00-05 .. 2024-03-10 01:00:00-05 1h
            2024-03-10 01:00:00-05 .. 2024-03-10 03:00:00-04 1h
            2024-03-10 03:00:00-04 .. 2024-03-10 04:00:00-04 1h
            2024-03-10 04:00:00-04 .. 2024-03-10 05:00:00-04 1h
        "#]],
        );
        check(
            "1h",
            "Asia/Kolkata",
            "2024-01-01T00:00:00Z",
            2,
            expect![[r#"
            2024-01-01 05:00:00+05:30 .. 2024-01-01 06:00:00+05:30 1h
            2024-01-01 06:00:00+05:30 .. 2024-01-01 07:00:00+05:30 1h
        "#]],
        );
        check(
            "1h",
            "Australia/Lord_Howe",
            "2024-04-06T14:10:00Z",
            4,
            expect![[r#"
            2024-04-07 01:00:00+11 .. 2024-04-07 01:30:00+10:30 1h
            2024-04-07 01:30:00+10:30 .. 2024-04-07 02:00:00+10:30 0.5h
            2024-04-07 02:00:00+10:30 .. 2024-04-07 03:00:00+10:30 1h
            2024-04-07 03:00:00+10:30 .. 2024-04-07 04:00:00+10:30 1h
        "#]],
        );
        check(
            "15m",
            "Asia/Kathmandu",
            "2024-01-01T00:00:00Z",
            2,
            expect![[r#"
            2024-01-01 05:45:00+05:45 .. 2024-01-01 06:00:00+05:45 0.25h
            2024-01-01 06:00:00+05:45 .. 2024-01-01 06:15:00+05:45 0.25h
        "#]],
        );
    }

    #[test]
    fn hours_of_a_day_that_is_longer_or_shorter() {
        check(
            "4h",
            "America/New_York",
            "2024-11-03T03:30:00Z",
            4,
            expect![[r#"
            2024-11-02 20:00:00-04 .. 2024-11-03 00:00:00-04 4h
            2024-11-03 00:00:00-04 .. 2024-11-03 04:00:00-05 5h
            2024-11-03 04:00:00-05 .. 2024-11-03 08:00:00-05 4h
            2024-11-03 08:00:00-05 .. 2024-11-03 12:00:00-05 4h
        "#]],
        );
        check(
            "4h",
            "America/New_York",
            "2024-03-10T04:30:00Z",
            3,
            expect![[r#"
            2024-03-09 20:00:00-05 .. 2024-03-10 00:00:00-05 4h
            2024-03-10 00:00:00-05 .. 2024-03-10 04:00:00-04 3h
            2024-03-10 04:00:00-04 .. 2024-03-10 08:00:00-04 4h
        "#]],
        );
    }

    #[test]
    fn odd_zones() {
        // A day that never was, a midnight that was skipped, and one that came twice.
        check(
            "1d",
            "Pacific/Apia",
            "2011-12-29T20:00:00Z",
            3,
            expect![[r#"
            2011-12-29 00:00:00-10 .. 2011-12-31 00:00:00+14 24h
            2011-12-31 00:00:00+14 .. 2012-01-01 00:00:00+14 24h
            2012-01-01 00:00:00+14 .. 2012-01-02 00:00:00+14 24h
        "#]],
        );
        check(
            "1d",
            "America/Sao_Paulo",
            "2018-11-03T12:00:00Z",
            3,
            expect![[r#"
            2018-11-03 00:00:00-03 .. 2018-11-04 01:00:00-02 24h
            2018-11-04 01:00:00-02 .. 2018-11-05 00:00:00-02 23h
            2018-11-05 00:00:00-02 .. 2018-11-06 00:00:00-02 24h
        "#]],
        );
        check(
            "1d",
            "America/Sao_Paulo",
            "2018-02-17T12:00:00Z",
            3,
            expect![[r#"
            2018-02-17 00:00:00-02 .. 2018-02-18 00:00:00-03 25h
            2018-02-18 00:00:00-03 .. 2018-02-19 00:00:00-03 24h
            2018-02-19 00:00:00-03 .. 2018-02-20 00:00:00-03 24h
        "#]],
        );
        check(
            "1d",
            "America/Toronto",
            "1990-10-27T12:00:00Z",
            3,
            expect![[r#"
            1990-10-27 00:00:00-04 .. 1990-10-28 00:00:00-04 24h
            1990-10-28 00:00:00-04 .. 1990-10-29 00:00:00-05 25h
            1990-10-29 00:00:00-05 .. 1990-10-30 00:00:00-05 24h
        "#]],
        );
        check(
            "7d",
            "UTC",
            "2024-02-28T00:00:00Z",
            2,
            expect![[r#"
            2024-02-26 00:00:00+00 .. 2024-03-04 00:00:00+00 168h
            2024-03-04 00:00:00+00 .. 2024-03-11 00:00:00+00 168h
        "#]],
        );
    }

    #[test]
    fn intervals() {
        for good in ["1s", "15s", "1m", "5m", "30m", "1h", "4h", "1d", "7d"] {
            assert_eq!(Interval::parse(good).unwrap().to_string(), good);
        }
        assert_eq!(Interval::parse("60m").unwrap(), Interval::parse("1h").unwrap());
        for bad in ["", "0s", "7s", "7m", "5h", "25h", "400d", "1w", "m", "-1m", "1.5h", "99999999999999999999s"] {
            assert!(Interval::parse(bad).is_err(), "{bad}");
        }
        assert!(zone("Asia/Soul").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(80))]

        /// Windows partition time: each contains its instant, its neighbours touch it, and the cache never shows.
        #[test]
        fn windows_partition_time(
            times in prop::collection::vec(-2_000_000_000i64..4_000_000_000, 1..20),
            zone_name in prop::sample::select(vec!["UTC", "Asia/Seoul", "America/New_York", "Australia/Lord_Howe", "America/Toronto", "Pacific/Apia", "Asia/Kolkata"]),
            interval in prop::sample::select(vec!["1s", "30s", "5m", "30m", "1h", "2h", "12h", "1d", "3d", "7d"]),
        ) {
            let zone = zone(zone_name).unwrap();
            let fresh = || Calendar::new(Interval::parse(interval).unwrap(), zone.clone());
            let mut cached = fresh();
            for t in times.into_iter().map(|s| s * SECOND_US + 17) {
                let w = cached.window_of(t);
                prop_assert!(w.contains(t), "{} in {w:?}", format_micros(t));
                prop_assert_eq!(fresh().window_of(t), w);
                prop_assert_eq!(fresh().window_of(w.start), w);
                prop_assert_eq!(fresh().window_of(w.end - 1), w);
                prop_assert_eq!(cached.window_of(w.end).start, w.end);
                prop_assert_eq!(cached.window_of(w.start - 1).end, w.start);
            }
        }
    }
}
