//! What a shard should publish, and when, by the definitions: after every step, look at all rows again. Slow, obvious, and without a line
//! of the engine.

use crate::market::{SECOND, Trade};
use std::collections::BTreeSet;

/// The order of the world: a row, or a decision that moves the watermark.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    Row(usize, &'a Trade),
    Advance(i64),
}

/// One result, as often as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Published<K> {
    pub series: usize,
    pub key: K,
    pub start: i64,
    pub end: i64,
    /// Of the rows in it, by event time, then by arrival.
    pub rows: Vec<usize>,
    pub revision: i64,
}

/// Watermark = latest event time - 5 s, never back; decisions move it on.
#[derive(Default)]
struct Clock {
    now: Option<i64>,
    latest: Option<i64>,
}

impl Clock {
    fn take(&mut self, step: Step<'_>) {
        let to = match step {
            Step::Advance(to) => to,
            Step::Row(_, trade) => {
                self.latest = self.latest.max(Some(trade.at));
                self.latest.unwrap() - 5 * SECOND
            }
        };
        self.now = self.now.max(Some(to));
    }

    fn is_late(&self, at: i64, lateness_us: i64) -> bool {
        self.now.is_some_and(|now| i128::from(at) < i128::from(now) - i128::from(lateness_us))
    }

    fn has_reached(&self, end: i64) -> bool {
        self.now.is_some_and(|now| end <= now)
    }
}

/// (row, key, time) of what was not late.
type Accepted<K> = Vec<(usize, K, i64)>;

fn inside<K: PartialEq>(accepted: &Accepted<K>, key: &K, holds: impl Fn(i64) -> bool) -> Vec<usize> {
    let mut rows: Vec<(i64, usize)> = accepted.iter().filter(|(_, k, at)| k == key && holds(*at)).map(|(i, _, at)| (*at, *i)).collect();
    rows.sort_unstable();
    rows.into_iter().map(|(_, i)| i).collect()
}

/// Windows that do not depend on other rows: `windows_of` says (series, start, end) of those that a time lies in.
pub fn fixed<K: Ord + Clone>(
    steps: &[Step<'_>],
    lateness_us: i64,
    key_of: impl Fn(&Trade) -> K,
    mut windows_of: impl FnMut(i64) -> Vec<(usize, i64, i64)>,
) -> (Vec<Published<K>>, Vec<usize>) {
    let (mut clock, mut accepted, mut late, mut out) = (Clock::default(), Accepted::<K>::new(), vec![], Vec::<Published<K>>::new());
    let mut known: BTreeSet<(i64, usize, K, i64)> = BTreeSet::new();
    let publish = |out: &mut Vec<Published<K>>, accepted: &Accepted<K>, (end, series, key, start): (i64, usize, K, i64)| {
        let revision = out.iter().filter(|p| (p.series, p.start, &p.key) == (series, start, &key)).count() as i64;
        let rows = inside(accepted, &key, |at| start <= at && at < end);
        out.push(Published { series, key, start, end, rows, revision });
    };
    for step in steps {
        match step {
            Step::Row(i, t) if clock.is_late(t.at, lateness_us) => late.push(*i),
            Step::Row(i, t) => {
                let key = key_of(t);
                accepted.push((*i, key.clone(), t.at));
                for (series, start, end) in windows_of(t.at) {
                    known.insert((end, series, key.clone(), start));
                    if clock.has_reached(end) {
                        publish(&mut out, &accepted, (end, series, key.clone(), start));
                    }
                }
            }
            Step::Advance(_) => {}
        }
        clock.take(*step);
        for window in known.clone() {
            let never = !out.iter().any(|p| (p.end, p.series, &p.key, p.start) == (window.0, window.1, &window.2, window.3));
            if clock.has_reached(window.0) && never {
                publish(&mut out, &accepted, window);
            }
        }
    }
    (out, late)
}

/// Rows of a group that are at most `gap` apart. A session ends `gap` behind its last row.
pub fn sessions<K: Ord + Clone>(
    steps: &[Step<'_>],
    lateness_us: i64,
    key_of: impl Fn(&Trade) -> K,
    gap_us: i64,
) -> (Vec<Published<K>>, Vec<usize>) {
    let (mut clock, mut accepted, mut late, mut out) = (Clock::default(), Accepted::<K>::new(), vec![], Vec::<Published<K>>::new());
    for step in steps {
        match step {
            Step::Row(i, t) if clock.is_late(t.at, lateness_us) => late.push(*i),
            Step::Row(i, t) => {
                let key = key_of(t);
                accepted.push((*i, key.clone(), t.at));
                let joined = split(&accepted, gap_us).into_iter().find(|p| p.rows.contains(i)).unwrap();
                if clock.has_reached(joined.end) {
                    again(&mut out, joined);
                }
            }
            Step::Advance(_) => {}
        }
        clock.take(*step);
        let mut due: Vec<_> = split(&accepted, gap_us).into_iter().filter(|p| clock.has_reached(p.end)).collect();
        due.sort_by_key(|p| (p.end, p.key.clone()));
        for session in due {
            if !out.iter().any(|p| (&p.key, &p.rows) == (&session.key, &session.rows)) {
                again(&mut out, session);
            }
        }
    }
    (out, late)
}

/// The next revision of whatever was published of its rows.
fn again<K: PartialEq>(out: &mut Vec<Published<K>>, mut session: Published<K>) {
    let parts = out.iter().filter(|p| p.key == session.key && session.start <= p.start && p.end <= session.end);
    session.revision = parts.map(|p| p.revision + 1).max().unwrap_or(0);
    out.push(session);
}

fn split<K: Ord + Clone>(accepted: &Accepted<K>, gap_us: i64) -> Vec<Published<K>> {
    let keys: BTreeSet<&K> = accepted.iter().map(|(_, key, _)| key).collect();
    let mut all = vec![];
    for key in keys {
        let times: BTreeSet<i64> = accepted.iter().filter(|(_, k, _)| k == key).map(|(_, _, at)| *at).collect();
        let mut bounds: Vec<(i64, i64)> = vec![];
        for at in times {
            match bounds.last_mut() {
                Some((_, end)) if *end >= at => *end = at + gap_us,
                _ => bounds.push((at, at + gap_us)),
            }
        }
        all.extend(bounds.into_iter().map(|(start, end)| {
            let rows = inside(accepted, key, |at| start <= at && at < end);
            Published { series: 0, key: key.clone(), start, end, rows, revision: 0 }
        }));
    }
    all
}

/// For every distinct time of a group, the rows of the range up to it, once the watermark has passed it.
pub fn sliding<K: Ord + Clone>(steps: &[Step<'_>], key_of: impl Fn(&Trade) -> K, range_us: i64) -> (Vec<Published<K>>, Vec<usize>) {
    let (mut clock, mut accepted, mut late, mut out) = (Clock::default(), Accepted::<K>::new(), vec![], Vec::<Published<K>>::new());
    for step in steps {
        match step {
            Step::Row(i, t) if clock.is_late(t.at, 0) => late.push(*i),
            Step::Row(i, t) => accepted.push((*i, key_of(t), t.at)),
            Step::Advance(_) => {}
        }
        clock.take(*step);
        let times: BTreeSet<(i64, K)> = accepted.iter().map(|(_, key, at)| (*at, key.clone())).collect();
        for (end, key) in times {
            if clock.now.is_some_and(|now| end < now) && !out.iter().any(|p| (p.end, &p.key) == (end, &key)) {
                let start = end - range_us;
                let rows = inside(&accepted, &key, |at| start <= at && at <= end);
                out.push(Published { series: 0, key, start, end, rows, revision: 0 });
            }
        }
    }
    (out, late)
}
