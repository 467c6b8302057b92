//! The windows of a local clock by their definition: sample the zone's offset, and look where the clock reads a multiple. Slow, and without
//! a line of the engine's calendar.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600;

/// Windows of one interval (`us`, days of 24 h) in one zone, as [start, end).
pub struct LocalTime {
    us: i64,
    zone: TimeZone,
    found: Vec<(i64, i64)>,
}

/// Seconds from which on, and before which, the zone has this offset.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: i64,
    until: i64,
    offset: i64,
}

impl LocalTime {
    pub fn new(us: i64, zone: &str) -> Self {
        Self { us, zone: TimeZoneDatabase::bundled().get(zone).unwrap(), found: vec![] }
    }

    pub fn window(&mut self, t: i64) -> (i64, i64) {
        if let Some(window) = self.found.iter().find(|(start, end)| (*start..*end).contains(&t)) {
            return *window;
        }
        let window = if self.us <= HOUR * SECOND { self.short(t) } else { self.long(t) };
        assert!((window.0..window.1).contains(&t), "{window:?} without {t}");
        self.found.push(window);
        window
    }

    fn offset(&self, second: i64) -> i64 {
        self.zone.to_offset(Timestamp::from_second(second).unwrap()).seconds().into()
    }

    /// Sampled every quarter of an hour, and bisected to the second where two samples differ.
    fn stretches(&self, from: i64, until: i64) -> Vec<Stretch> {
        let mut stretches = vec![Stretch { from, until, offset: self.offset(from) }];
        let mut before = from;
        while before < until {
            let next = (before + 900).min(until);
            if self.offset(next) != self.offset(before) {
                let (mut low, mut high) = (before, next);
                while high - low > 1 {
                    let middle = (low + high) / 2;
                    if self.offset(middle) == self.offset(before) { low = middle } else { high = middle }
                }
                stretches.last_mut().unwrap().until = high;
                stretches.push(Stretch { from: high, until, offset: self.offset(high) });
            }
            before = next;
        }
        stretches
    }

    /// Up to an hour: where the clock reads a multiple, cut where the offset changes.
    fn short(&self, t: i64) -> (i64, i64) {
        let second = t.div_euclid(SECOND);
        let stretches = self.stretches(second - 2 * HOUR, second + 2 * HOUR);
        let Stretch { from, until, offset } = *stretches.iter().find(|s| (s.from..s.until).contains(&second)).unwrap();
        let seconds = self.us / SECOND;
        let start = (second + offset).div_euclid(seconds) * seconds - offset;
        (start.max(from) * SECOND, (start + seconds).min(until) * SECOND)
    }

    /// Above an hour: from one wall-clock boundary to the next, each at the first instant whose clock has reached it.
    fn long(&self, t: i64) -> (i64, i64) {
        let second = t.div_euclid(SECOND);
        let reach = self.us / SECOND + 30 * HOUR;
        let stretches = self.stretches(second - 2 * reach, second + 2 * reach);
        let middle = Timestamp::from_second(second).unwrap().to_zoned(TimeZone::UTC).datetime();
        let first_day = middle.date().checked_sub((reach / (24 * HOUR) + 2).days()).unwrap();
        let n_days = 2 * (reach / (24 * HOUR) + 2) + 1;
        let boundaries = (0..n_days).flat_map(|n| self.boundaries(first_day.checked_add(n.days()).unwrap()));
        let instants: Vec<i64> = boundaries.filter_map(|b| instant(&stretches, b)).collect();
        let start = instants.iter().filter(|s| **s <= second).max().unwrap();
        let end = instants.iter().filter(|s| **s > second).min().unwrap();
        (start * SECOND, end * SECOND)
    }

    fn boundaries(&self, day: Date) -> Vec<DateTime> {
        let hours = self.us / SECOND / HOUR;
        if hours < 24 {
            return (0..24).filter(|h| h % hours == 0).map(|h| day.at(h as i8, 0, 0, 0)).collect();
        }
        let since = i64::from(day.since(jiff::civil::date(1970, 1, 5)).unwrap().get_days());
        if since.rem_euclid(hours / 24) == 0 { vec![day.to_datetime(Time::midnight())] } else { vec![] }
    }
}

/// Of the seconds whose local clock reads at least `boundary`, the first within reach of it.
fn instant(stretches: &[Stretch], boundary: DateTime) -> Option<i64> {
    let read = boundary.to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
    let reached = |s: &Stretch| Some(s.from.max(read - s.offset)).filter(|at| *at < s.until);
    // Before its first stretch nothing is known.
    stretches.iter().find_map(reached).filter(|at| *at > stretches[0].from)
}
