//! Session windows: rows of one group that are no more than a gap apart belong together, and a row can join two sessions into one.
//!
//! ```text
//!            watermark reaches the end          end + allowed lateness is over
//!   open ──────────────────────────▶ published ───────────────────────────────▶ gone
//!    ▲                                   │
//!    └───────────────────────────────────┘ a late row joins it: the next revision is published when the joined session ends,
//!                                          at once if it has ended already
//! ```
//! When sessions that were published are joined, the result carries the earliest start; what was published under the later start stays
//! as it was, as in Flink.

use crate::error::EngineError;
use crate::keyed::Keyed;
use crate::layout::{Fields, put_bytes, put_i, put_u};
use crate::operator::{OperatorStats, WATERMARK_NONE};
use crate::panes::{Accumulator, Merge, Published};
use crate::state::{Snapshot, StateStore, StateValue};
use crate::window::Window;
use std::collections::BTreeMap;

pub struct Sessions<A> {
    gap_us: i64,
    lateness_us: i64,
    table: Keyed<Group<A>>,
    /// Keys by the time at which one of their sessions is to be looked at.
    timers: BTreeMap<i64, Vec<Box<[u8]>>>,
    n_open: usize,
}

/// The sessions of one key. Layout, version 1: count, then per session: start, length, revision to come, published (0 or 1), its timer's
/// time, accumulator (with its length).
struct Group<A> {
    sessions: Vec<Session<A>>,
}

struct Session<A> {
    window: Window,
    acc: A,
    /// The next revision to publish.
    revision: u32,
    published: bool,
    /// When a timer looks at it.
    armed: i64,
}

impl<A> Session<A> {
    fn look_at(&self, lateness_us: i64) -> i64 {
        if self.published { self.window.end.saturating_add(lateness_us).saturating_add(1) } else { self.window.end }
    }
}

impl<A> Default for Group<A> {
    fn default() -> Self {
        Self { sessions: Vec::new() }
    }
}

impl<A: StateValue + Merge> Sessions<A> {
    pub fn new(operator: &str, gap_us: i64, lateness_us: i64, hot_max: usize) -> Self {
        let table = Keyed::new(operator, "sessions", hot_max);
        Self { gap_us, lateness_us: lateness_us.max(0), table, timers: BTreeMap::new(), n_open: 0 }
    }

    /// Rebuilds the timers.
    pub fn open(&mut self, store: &dyn StateStore) -> Result<(), EngineError> {
        let prefix = self.table.prefix().to_vec();
        let mut bad = None;
        store.scan(&prefix, &mut |key, bytes| {
            match Group::<A>::read(bytes) {
                Ok(group) => {
                    self.n_open += group.sessions.iter().filter(|s| !s.published).count();
                    for session in &group.sessions {
                        self.timers.entry(session.armed).or_default().push(key[prefix.len()..].into());
                    }
                }
                Err(reason) => bad = Some(EngineError::State { prefix: self.table.label(), reason }),
            }
            bad.is_none()
        })?;
        bad.map_or(Ok(()), Err)
    }

    pub fn is_late(&self, event_time: i64, watermark: i64) -> bool {
        watermark != WATERMARK_NONE && event_time < watermark.saturating_sub(self.lateness_us)
    }

    /// Adds a row that is not late, joining every session it touches.
    pub fn add<R>(
        &mut self,
        (key, at): (&[u8], i64),
        row: &R,
        watermark: i64,
        store: &dyn StateStore,
        publish: impl FnOnce(Published<'_, A>),
    ) -> Result<(), EngineError>
    where
        A: Accumulator<R>,
    {
        let lateness_us = self.lateness_us;
        let group = self.table.get_or_insert_with(key, store, Group::default)?;
        let mut window = Window { start: at, end: at.saturating_add(self.gap_us) };
        let mut joined: Vec<Session<A>> = group.sessions.extract_if(.., |s| s.window.joins(&window)).collect();
        joined.sort_unstable_by_key(|s| s.window.start);
        self.n_open -= joined.iter().filter(|s| !s.published).count();
        window = joined.iter().fold(window, |window, s| window.cover(&s.window));
        let mut session = join(joined, window, row);
        let revision = session.revision;
        if window.end <= watermark {
            publish(Published { key, series: 0, window, acc: &session.acc, revision });
            (session.published, session.revision, session.armed) = (true, revision.saturating_add(1), i64::MAX);
        } else {
            self.n_open += 1;
        }
        if session.armed == i64::MAX {
            session.armed = session.look_at(lateness_us);
            self.timers.entry(session.armed).or_default().push(key.into());
        }
        group.sessions.push(session);
        Ok(())
    }

    /// Publishes the sessions whose end the watermark has reached, ordered by (end, key), and removes those whose lateness is over.
    pub fn close(&mut self, watermark: i64, store: &dyn StateStore, mut publish: impl FnMut(Published<'_, A>)) -> Result<(), EngineError> {
        while let Some(due) = self.timers.first_entry().filter(|t| *t.key() <= watermark) {
            let (now, mut keys) = due.remove_entry();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                self.look(now, key, store, &mut publish)?;
            }
        }
        Ok(())
    }

    fn look(
        &mut self,
        now: i64,
        key: Box<[u8]>,
        store: &dyn StateStore,
        publish: &mut impl FnMut(Published<'_, A>),
    ) -> Result<(), EngineError> {
        let lateness_us = self.lateness_us;
        let group = self.table.get_or_insert_with(&key, store, Group::default)?;
        group.sessions.retain(|s| !(s.published && s.armed == now));
        let mut again = Vec::new();
        for session in group.sessions.iter_mut().filter(|s| s.armed == now) {
            if session.window.end == now {
                publish(Published { key: &key, series: 0, window: session.window, acc: &session.acc, revision: session.revision });
                (session.published, session.revision) = (true, session.revision.saturating_add(1));
                self.n_open -= 1;
            }
            session.armed = session.look_at(lateness_us);
            again.push(session.armed);
        }
        if group.sessions.is_empty() {
            self.table.remove(&key);
        }
        for at in again {
            self.timers.entry(at).or_default().push(key.clone());
        }
        Ok(())
    }

    pub fn snapshot(&mut self, into: &mut Snapshot) {
        self.table.snapshot(into, |_, group| group.sessions.is_empty());
    }

    pub fn stats(&self) -> OperatorStats {
        OperatorStats { n_late: 0, n_hot: self.table.n_hot(), n_dirty: self.table.n_dirty(), n_open_windows: self.n_open }
    }
}

/// One session of the given ones, earliest first, and a row. It has no timer (`i64::MAX`) unless one is still to come, no later than the
/// session's end: that one serves the joined session as well.
fn join<A: Accumulator<R> + Merge, R>(joined: Vec<Session<A>>, window: Window, row: &R) -> Session<A> {
    let revision = joined.iter().map(|s| s.revision).max().unwrap_or(0);
    let armed = joined.iter().filter(|s| !s.published).map(|s| s.armed).min().unwrap_or(i64::MAX);
    let merged = joined.into_iter().map(|s| s.acc).reduce(|mut acc, part| {
        acc.merge(&part);
        acc
    });
    let acc = match merged {
        Some(mut acc) => {
            acc.add(row);
            acc
        }
        None => A::of(row),
    };
    Session { window, acc, revision, published: false, armed }
}

const VERSION: u8 = 1;

impl<A: StateValue> StateValue for Group<A> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_u(out, self.sessions.len() as u128);
        let mut acc = Vec::new();
        for session in &self.sessions {
            put_i(out, session.window.start.into());
            put_i(out, i128::from(session.window.end) - i128::from(session.window.start));
            put_u(out, session.revision.into());
            out.push(session.published.into());
            put_i(out, session.armed.into());
            acc.clear();
            session.acc.write(&mut acc);
            put_bytes(out, &acc);
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(bytes, VERSION)?;
        let n = fields.count()?;
        let mut sessions = Vec::with_capacity(n);
        for _ in 0..n {
            let (start, length) = (fields.i64()?, fields.i64()?);
            let window = Window { start, end: start.checked_add(length).ok_or("a session ends beyond all time")? };
            let revision = fields.u()?.try_into().map_err(|_| "a revision is too large")?;
            let (published, armed) = (fields.u8()? == 1, fields.i64()?);
            sessions.push(Session { window, acc: A::read(fields.bytes()?)?, revision, published, armed });
        }
        fields.end()?;
        Ok(Self { sessions })
    }
}
