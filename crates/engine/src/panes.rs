//! Windowed state: an accumulator per key and window, closed by the watermark and kept open to revision for the allowed lateness.
//!
//! Open windows have one entry per key, because a row touches all windows of its key. Closed ones are kept by time: [`crate::closed`].
//! When they close is in [`crate::timers`].

use crate::closed::{ClosedWindows, limit_of};
use crate::error::EngineError;
use crate::keyed::Keyed;
use crate::layout::{Fields, put_framed, put_i, put_u};
use crate::operator::{OperatorStats, WATERMARK_NONE};
use crate::state::{Snapshot, StateStore, StateValue};
use crate::timers::Timers;
use crate::window::Window;

/// What a window keeps of its rows. The result must not depend on the order of rows, other than through what a row itself carries.
pub trait Accumulator<R>: StateValue {
    fn of(row: &R) -> Self;
    fn add(&mut self, row: &R);
}

/// An accumulator whose parts can be put together.
pub trait Merge {
    /// Takes in a part with later rows.
    fn merge(&mut self, later: &Self);
}

/// Windows that are read together before they are closed.
const KEYS_AHEAD: usize = 1_024;

/// Which of an operator's window kinds: the bar interval in microseconds, so that it means the same under another configuration.
pub type Series = i64;

/// One window's result, as often as it is published. A later revision replaces an earlier one.
#[derive(Debug)]
pub struct Published<'a, A> {
    pub key: &'a [u8],
    pub series: Series,
    pub window: Window,
    pub acc: &'a A,
    pub revision: u32,
}

pub struct Panes<A> {
    lateness_us: i64,
    open: Keyed<Open<A>>,
    closed: ClosedWindows<A>,
    timers: Timers,
}

impl<A: StateValue> Panes<A> {
    pub fn new(operator: &str, lateness_us: i64, hot_max: usize) -> Self {
        Self {
            lateness_us: lateness_us.max(0),
            open: Keyed::new(operator, "open", hot_max),
            closed: ClosedWindows::new(operator, hot_max),
            timers: Timers::new(operator),
        }
    }

    /// Reads the timers. A state of an older version has none: they are rebuilt from every key that has an open window.
    pub fn open(&mut self, store: &dyn StateStore) -> Result<(), EngineError> {
        if self.timers.open(store)? {
            return Ok(());
        }
        let (prefix, label) = (self.open.prefix().to_vec(), self.open.label());
        let mut bad = None;
        store.scan(&prefix, &mut |key, bytes| {
            match Open::<A>::read(bytes) {
                Ok(open) => open.panes.iter().for_each(|p| self.timers.arm(p.window.end, p.series, &key[prefix.len()..])),
                Err(reason) => bad = Some(EngineError::State { prefix: label.clone(), reason }),
            }
            bad.is_none()
        })?;
        bad.map_or(Ok(()), Err)
    }

    /// The row is older than any window may be that is still kept.
    #[inline]
    pub fn is_late(&self, event_time: i64, watermark: i64) -> bool {
        watermark != WATERMARK_NONE && event_time < watermark.saturating_sub(self.lateness_us)
    }

    /// Adds a row that is not late to its windows. Windows that have closed before are published at once, with the next revision.
    pub fn add<R>(
        &mut self,
        key: &[u8],
        windows: &[(Series, Window)],
        row: &R,
        watermark: i64,
        store: &dyn StateStore,
        mut publish: impl FnMut(Published<'_, A>),
    ) -> Result<(), EngineError>
    where
        A: Accumulator<R>,
    {
        if windows.iter().any(|(_, window)| window.end > watermark) {
            let open = self.open.get_or_insert_with(key, store, Open::default)?;
            // Exactly as many as there are windows: an accumulator is large, and there may be a million keys.
            open.panes.reserve_exact(windows.len().saturating_sub(open.panes.len()));
            for &(series, window) in windows.iter().filter(|(_, window)| window.end > watermark) {
                match open.panes.iter_mut().find(|p| p.series == series && p.window == window) {
                    Some(pane) => pane.acc.add(row),
                    None => {
                        open.panes.push(Pane { series, window, acc: A::of(row) });
                        self.timers.arm(window.end, series, key);
                    }
                }
            }
        }
        for &(series, window) in windows {
            if window.end <= watermark {
                self.revise(key, series, window, row, store, &mut publish)?;
            }
        }
        Ok(())
    }

    fn revise<R>(
        &mut self,
        key: &[u8],
        series: Series,
        window: Window,
        row: &R,
        store: &dyn StateStore,
        publish: &mut impl FnMut(Published<'_, A>),
    ) -> Result<(), EngineError>
    where
        A: Accumulator<R>,
    {
        let closed = self.closed.revise(key, series, window, store, || A::of(row), |acc| acc.add(row))?;
        publish(Published { key, series, window, acc: &closed.acc, revision: closed.revision });
        Ok(())
    }

    /// Publishes every window whose end the watermark has reached, ordered by (end, series, key).
    #[inline]
    pub fn close(&mut self, watermark: i64, store: &dyn StateStore, publish: impl FnMut(Published<'_, A>)) -> Result<(), EngineError> {
        if watermark < self.timers.next_end() { Ok(()) } else { self.close_some(watermark, usize::MAX, store, publish) }
    }

    /// Windows that end at `to` or before, counted up to `max`.
    pub fn n_due(&self, to: i64, max: usize) -> usize {
        self.timers.n_due(to, max)
    }

    /// Publishes them in the same order, at most so many.
    pub fn close_some(
        &mut self,
        watermark: i64,
        at_most: usize,
        store: &dyn StateStore,
        mut publish: impl FnMut(Published<'_, A>),
    ) -> Result<(), EngineError> {
        let mut left = at_most;
        while let Some(due) = self.timers.take(watermark, left, store)? {
            let (end, series, keys) = (due.end, due.series, due.keys());
            left -= keys.len();
            for (n, &key) in keys.iter().enumerate() {
                if n % KEYS_AHEAD == 0 {
                    self.open.prefetch(&keys[n..keys.len().min(n + KEYS_AHEAD)], store)?;
                }
                let open = self.open.get_or_insert_with(key, store, Open::default)?;
                let at = open.panes.iter().position(|p| p.window.end == end && p.series == series);
                let Some(at) = at else { return Err(self.timers.damaged("a window that they name is not open".to_owned())) };
                let Pane { window, acc, .. } = open.panes.swap_remove(at);
                if open.panes.is_empty() {
                    self.open.remove(key);
                } else if 2 * open.panes.len() < open.panes.capacity() {
                    // The short windows of a key that has gone quiet.
                    open.panes.shrink_to_fit();
                }
                publish(Published { key, series, window, acc: &acc, revision: 0 });
                if end > limit_of(watermark, self.lateness_us) {
                    self.closed.push(key, series, window, &acc);
                }
            }
            self.closed.seal();
        }
        Ok(())
    }

    /// Removes closed windows beyond the allowed lateness from the store. When this happens never shows in what is published.
    pub fn purge(&mut self, watermark: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        if watermark == WATERMARK_NONE { Ok(()) } else { self.closed.purge(limit_of(watermark, self.lateness_us), store) }
    }

    pub fn snapshot(&mut self, watermark: i64, into: &mut Snapshot) {
        self.open.snapshot(into, |_, open| open.panes.is_empty());
        self.closed.snapshot(limit_of(watermark, self.lateness_us), into);
        self.timers.snapshot(into);
    }

    pub fn stats(&self) -> OperatorStats {
        OperatorStats {
            n_late: 0,
            n_hot: self.open.n_hot() + self.closed.n_hot(),
            n_dirty: self.open.n_dirty() + self.closed.n_dirty(),
            n_open_windows: self.timers.n(),
        }
    }
}

/// The open windows of one key. Layout, version 1: count, then per window: series, start, length, accumulator (with its length).
struct Open<A> {
    panes: Vec<Pane<A>>,
}

struct Pane<A> {
    series: Series,
    window: Window,
    acc: A,
}

impl<A> Default for Open<A> {
    fn default() -> Self {
        Self { panes: Vec::new() }
    }
}

const VERSION: u8 = 1;

impl<A: StateValue> StateValue for Open<A> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_u(out, self.panes.len() as u128);
        for pane in &self.panes {
            put_i(out, pane.series.into());
            put_i(out, pane.window.start.into());
            put_i(out, i128::from(pane.window.end) - i128::from(pane.window.start));
            put_framed(out, |out| pane.acc.write(out));
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(bytes, VERSION)?;
        let n = fields.count()?;
        let mut panes = Vec::with_capacity(n);
        for _ in 0..n {
            let (series, start, length) = (fields.i64()?, fields.i64()?, fields.i64()?);
            let end = start.checked_add(length).ok_or("a window ends beyond all time")?;
            panes.push(Pane { series, window: Window { start, end }, acc: A::read(fields.bytes()?)? });
        }
        fields.end()?;
        Ok(Self { panes })
    }
}
