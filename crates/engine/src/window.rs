//! Windows of event time, and which of them a row belongs to.

use crate::calendar::{Calendar, CalendarError, Interval, zone};

/// Microseconds, `start` included, `end` excluded. It closes when the watermark reaches `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

impl Window {
    #[inline]
    pub fn contains(&self, t: i64) -> bool {
        self.start <= t && t < self.end
    }

    /// Sessions that touch or overlap become one.
    pub fn joins(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    pub fn cover(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// How a stream of rows is cut into windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowSpec {
    /// One after the other, aligned to the local clock: `interval` as in [`Interval::parse`].
    Tumbling { interval: String, zone: String },
    /// `size` long, one every `hop`, counted from the epoch (UTC). A row belongs to `size / hop` of them, at most [`HOPS_MAX`].
    Hopping { size_us: i64, hop_us: i64 },
    /// For every row, the `range` before it and itself: `[t - range, t]`, as SQL's OVER (RANGE … PRECEDING). Rows of equal time see each other.
    Sliding { range_us: i64 },
    /// Rows that are less than `gap` apart. A session ends `gap` behind its last row.
    Session { gap_us: i64 },
}

/// The most hopping windows that one row may belong to.
pub const HOPS_MAX: i64 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error(transparent)]
    Calendar(#[from] CalendarError),
    #[error("a hopping window needs 0 < hop <= size, and a size of at most {HOPS_MAX} hops")]
    Hop,
    #[error("a window's {0} must be longer than nothing")]
    Empty(&'static str),
}

/// Assigns a row's time to windows that do not depend on other rows: tumbling and hopping ones.
#[derive(Debug, Clone)]
pub enum Assigner {
    Tumbling(Calendar),
    Hopping { size_us: i64, hop_us: i64 },
}

impl Assigner {
    pub fn tumbling(interval: &str, zone_name: &str) -> Result<Self, WindowError> {
        Ok(Self::Tumbling(Calendar::new(Interval::parse(interval)?, zone(zone_name)?)))
    }

    pub fn hopping(size_us: i64, hop_us: i64) -> Result<Self, WindowError> {
        let fits = 0 < hop_us && hop_us <= size_us && (size_us - 1) / hop_us < HOPS_MAX;
        if fits { Ok(Self::Hopping { size_us, hop_us }) } else { Err(WindowError::Hop) }
    }

    /// Replaces `into` by the windows that `t` lies in, earliest first.
    pub fn assign(&mut self, t: i64, into: &mut Vec<Window>) {
        into.clear();
        match self {
            Self::Tumbling(calendar) => into.push(calendar.window_of(t)),
            Self::Hopping { size_us, hop_us } => {
                let latest = t.div_euclid(*hop_us) * *hop_us;
                let n = (latest + *size_us - t - 1).div_euclid(*hop_us);
                into.extend((0..=n).rev().map(|i| latest - i * *hop_us).map(|start| Window { start, end: start + *size_us }));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn check(size: i64, hop: i64, times: &[i64], want: Expect) {
        let mut assigner = Assigner::hopping(size, hop).unwrap();
        let mut windows = vec![];
        let mut text = String::new();
        for &t in times {
            assigner.assign(t, &mut windows);
            let windows: Vec<_> = windows.iter().map(|w| format!("[{},{})", w.start, w.end)).collect();
            text += &format!("{t}: {}\n", windows.join(" "));
        }
        want.assert_eq(&text);
    }

    #[test]
    fn hops() {
        check(
            10,
            5,
            &[-1, 0, 4, 5, 10],
            expect![[r#"
            -1: [-10,0) [-5,5)
            0: [-5,5) [0,10)
            4: [-5,5) [0,10)
            5: [0,10) [5,15)
            10: [5,15) [10,20)
        "#]],
        );
        check(
            10,
            4,
            &[0, 1, 2, 9],
            expect![[r#"
            0: [-8,2) [-4,6) [0,10)
            1: [-8,2) [-4,6) [0,10)
            2: [-4,6) [0,10)
            9: [0,10) [4,14) [8,18)
        "#]],
        );
        check(
            10,
            10,
            &[0, 9, 10],
            expect![[r#"
            0: [0,10)
            9: [0,10)
            10: [10,20)
        "#]],
        );
        for (size, hop) in [(10, 0), (5, 10), (0, 0), (HOPS_MAX + 1, 1), (-1, -1)] {
            assert_eq!(Assigner::hopping(size, hop).unwrap_err(), WindowError::Hop);
        }
    }

    #[test]
    fn sessions_join_when_they_touch() {
        let w = |start, end| Window { start, end };
        assert!(w(0, 5).joins(&w(5, 9)) && w(5, 9).joins(&w(0, 5)) && w(0, 9).joins(&w(2, 3)));
        assert!(!w(0, 5).joins(&w(6, 9)));
        assert_eq!(w(0, 5).cover(&w(3, 9)), w(0, 9));
    }

    proptest! {
        #[test]
        fn every_hop_that_contains_the_time_is_found(t in -1000i64..1000, hop in 1i64..20, more in 0i64..60) {
            let size = hop + more;
            let mut found = vec![];
            Assigner::hopping(size, hop).unwrap().assign(t, &mut found);
            let all = (-200..200).map(|i| Window { start: (t / hop + i) * hop, end: (t / hop + i) * hop + size });
            prop_assert_eq!(found, all.filter(|w| w.contains(t)).collect::<Vec<_>>());
        }
    }
}
