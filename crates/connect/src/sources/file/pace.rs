//! How fast a replay goes. Pure: whoever replays asks when a row is due, and waits by its own clock.

use mulgil_model::time::EventTime;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Pace {
    /// Rows follow each other as they did when they happened.
    Recorded,
    /// So many times faster.
    Times(f64),
    #[default]
    Unthrottled,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("'{0}' is not a pace: write recorded, unthrottled, or how many times faster, such as 10x")]
pub struct PaceError(String);

impl Pace {
    /// Reads `recorded`, `unthrottled` or `10x`.
    pub fn parse(text: &str) -> Result<Self, PaceError> {
        match text {
            "recorded" => Ok(Self::Recorded),
            "unthrottled" => Ok(Self::Unthrottled),
            other => {
                let times = other.strip_suffix('x').and_then(|n| n.parse::<f64>().ok()).filter(|n| n.is_finite() && *n > 0.0);
                times.map(Self::Times).ok_or_else(|| PaceError(text.to_owned()))
            }
        }
    }

    /// The instant, in the microseconds of the clock that `start_us` is read from, at which a row with `event_time` is due, when the row
    /// with `first` was sent at `start_us`. Never before `start_us`.
    pub fn due(self, first: EventTime, start_us: i64, event_time: EventTime) -> i64 {
        let passed = event_time.micros().saturating_sub(first.micros()).max(0);
        match self {
            Self::Recorded => start_us.saturating_add(passed),
            Self::Times(times) if times > 0.0 => start_us.saturating_add((passed as f64 / times) as i64),
            Self::Times(_) | Self::Unthrottled => start_us,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn due_times() {
        let due = |pace: &str, at: i64| Pace::parse(pace).unwrap().due(EventTime(1_000), 50, EventTime(at));
        assert_eq!(due("recorded", 4_000), 3_050);
        assert_eq!(due("10x", 4_000), 350);
        assert_eq!(due("0.5x", 4_000), 6_050);
        assert_eq!(due("unthrottled", 4_000), 50);
        assert_eq!(due("recorded", 0), 50);
        assert_eq!(due("recorded", i64::MAX), i64::MAX - 950);
        for bad in ["", "x", "0x", "-1x", "NaNx", "infx", "fast"] {
            assert!(Pace::parse(bad).is_err(), "{bad}");
        }
    }
}
