//! The watermark of one partition: the event time up to which rows are taken to be complete.

use crate::operator::WATERMARK_NONE;
use mulgil_model::time::EventTime;

/// Rows may come this much later than the latest one and still be on time, unless configured otherwise: 5 s.
pub const OUT_OF_ORDERNESS_US: i64 = 5_000_000;

/// Watermark = latest event time - bound, after every row, never going back. A decision can move it on (an idle partition).
///
/// One row from a clock that runs an hour ahead makes an hour of other rows late: mulgil does not judge event times beyond the model's
/// years 1900 to 2200, a source that knows better should refuse such rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    bound_us: i64,
    now: i64,
    event_time_max: i64,
}

impl Watermark {
    pub fn new(bound_us: i64) -> Self {
        Self::resume(bound_us, WATERMARK_NONE, WATERMARK_NONE)
    }

    /// Goes on from stored values.
    pub fn resume(bound_us: i64, now: i64, event_time_max: i64) -> Self {
        Self { bound_us: bound_us.max(0), now, event_time_max }
    }

    /// Microseconds, or [`WATERMARK_NONE`].
    pub fn now(&self) -> i64 {
        self.now
    }

    /// The latest event time seen, in microseconds, or [`WATERMARK_NONE`].
    pub fn event_time_max(&self) -> i64 {
        self.event_time_max
    }

    /// Takes rows in order and appends the watermark behind each of them to `behind`.
    pub fn take_rows(&mut self, event_times: &[i64], behind: &mut Vec<i64>) {
        behind.reserve(event_times.len());
        for &t in event_times {
            if t > self.event_time_max {
                self.event_time_max = t;
                self.now = self.now.max(t.saturating_sub(self.bound_us));
            }
            behind.push(self.now);
        }
    }

    pub fn advance_to(&mut self, to: EventTime) {
        self.now = self.now.max(to.micros());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_latest_row_and_never_goes_back() {
        let mut watermark = Watermark::new(5);
        let mut behind = vec![];
        watermark.take_rows(&[10, 8, 12, 12, 3], &mut behind);
        assert_eq!(behind, [5, 5, 7, 7, 7]);
        watermark.advance_to(EventTime(20));
        watermark.advance_to(EventTime(1));
        behind.clear();
        watermark.take_rows(&[24, 26], &mut behind);
        assert_eq!(behind, [20, 21]);
        assert_eq!(watermark, Watermark::resume(5, 21, 26));
    }

    #[test]
    fn before_the_first_row_nothing_is_late() {
        assert_eq!(Watermark::new(5).now(), WATERMARK_NONE);
        let mut behind = vec![];
        Watermark::new(5).take_rows(&[i64::MIN, i64::MIN + 2], &mut behind);
        assert_eq!(behind, [i64::MIN, i64::MIN]);
    }
}
