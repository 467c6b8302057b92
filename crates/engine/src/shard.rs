//! A shard: the one owner of one input partition, its watermark, its operators and their state.
//!
//! ```text
//!   open(store at S) ── replay S..C, outputs discarded, decisions taken again ──▶ process / decide, outputs committed with position()
//!        ▲                                                                                 │
//!        └───── a durable store ◀── the binary writes it, before it takes the next ◀── snapshot()
//! ```
//!
//! After an error the shard's state is undefined: it refuses further work, and is opened again from the store.

use crate::decision::{Decided, Decision};
use crate::dedupe::{Dedupe, DedupeSpec};
use crate::error::EngineError;
use crate::layout::{Fields, put_i, put_u};
use crate::operator::{Input, Operator, OperatorStats};
use crate::output::Outputs;
use crate::state::{Snapshot, StateStore, StateValue};
use crate::watermark::Watermark;
use mulgil_model::ids::{Offset, Partition};
use mulgil_model::position::Position;
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::EventTime;
use std::borrow::Cow;
use std::sync::Arc;

/// Store key of the shard's own entry. No operator has an empty name.
const META_KEY: &[u8] = b"\0shard\0";

pub struct ShardSpec {
    /// Of the input topic.
    pub schema: Arc<StreamSchema>,
    pub partition: Partition,
    pub out_of_orderness_us: i64,
    /// Masks repeated rows before any operator sees them.
    pub dedupe: Option<DedupeSpec>,
}

/// Counts for metrics, and for "snapshot early when too much is dirty". Row counts are since `open`, replayed rows included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    pub n_rows: u64,
    pub n_duplicates: u64,
    pub operators: OperatorStats,
}

/// How to take the next rows so that few of them close very many windows at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    /// So many of the rows, at least one.
    Rows(usize),
    /// None before [`Decision::CloseAhead`] to this watermark was taken: the first row alone would close too many.
    CloseAhead(EventTime),
}

pub struct Shard {
    spec: ShardSpec,
    dedupe: Option<Dedupe>,
    operators: Vec<Box<dyn Operator>>,
    store: Box<dyn StateStore>,
    position: Position,
    watermark: Watermark,
    n_rows: u64,
    failed: bool,
    /// Reused per batch.
    watermarks: Vec<i64>,
}

impl Shard {
    /// Reads the shard's position and watermark from the store and lets every operator find its state. An empty store is a shard that
    /// has seen nothing.
    pub fn open(spec: ShardSpec, mut operators: Vec<Box<dyn Operator>>, store: Box<dyn StateStore>) -> Result<Self, EngineError> {
        check_names(&operators)?;
        let meta = match store.get(META_KEY)? {
            Some(bytes) => Meta::read(&bytes).map_err(|reason| EngineError::State { prefix: "shard".to_owned(), reason })?,
            None => Meta::NEW,
        };
        let mut dedupe = spec.dedupe.as_ref().map(|d| Dedupe::new(d, &spec.schema)).transpose()?;
        if let Some(dedupe) = &mut dedupe {
            dedupe.open(&*store)?;
        }
        for operator in &mut operators {
            operator.open(meta.watermark, &*store)?;
        }
        let watermark = Watermark::resume(spec.out_of_orderness_us, meta.watermark, meta.event_time_max);
        Ok(Self { spec, dedupe, operators, store, position: meta.position, watermark, n_rows: 0, failed: false, watermarks: vec![] })
    }

    /// `commit` is the next input offset, `ordinal` the number of decisions taken at it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Microseconds, or [`crate::operator::WATERMARK_NONE`].
    pub fn watermark(&self) -> i64 {
        self.watermark.now()
    }

    /// Takes the next rows. Rows below the position were taken before and are skipped; a hole is refused.
    pub fn process(&mut self, rows: &Rows) -> Result<Outputs, EngineError> {
        let n_known = self.n_known(rows)?;
        if n_known == rows.len() {
            return Ok(Outputs::default());
        }
        let rows = if n_known == 0 { Cow::Borrowed(rows) } else { Cow::Owned(rows.slice(n_known, rows.len() - n_known)) };
        self.guarded(|shard| shard.take_rows(&rows))
    }

    /// How many of these rows, the next ones, close at most so many of the windows that are open now.
    pub fn portion(&self, rows: &Rows, at_most: usize) -> Portion {
        let times = rows.event_times().values();
        let mut behind = Vec::new();
        let mut watermark = self.watermark;
        watermark.take_rows(times, &mut behind);
        let is_crowded = |to: i64| self.n_due(to, at_most.saturating_add(1)) > at_most;
        if !is_crowded(watermark.now()) {
            return Portion::Rows(rows.len());
        }
        match behind.partition_point(|to| !is_crowded(*to)) {
            // A duplicate moves no watermark, whatever its time.
            0 if self.dedupe.as_ref().is_some_and(|d| d.is_known(rows, 0, self.watermark.now())) => Portion::Rows(1),
            0 => Portion::CloseAhead(EventTime(behind[0])),
            n => Portion::Rows(n),
        }
    }

    /// Windows that a watermark of `to` closes, counted up to `max`.
    pub fn n_due(&self, to: i64, max: usize) -> usize {
        self.operators.iter().fold(0, |n, operator| n + operator.n_due(to, max - n))
    }

    /// A decision moved the watermark past windows that it left open.
    pub fn is_owing(&self) -> bool {
        self.n_due(self.watermark.now(), 1) > 0
    }

    /// Takes a decision at the present position.
    pub fn decide(&mut self, decision: &Decision) -> Result<Outputs, EngineError> {
        self.guarded(|shard| shard.take_decision(decision))
    }

    /// Takes rows and recorded decisions again, in their places, without their outputs. Decisions below the position were taken before;
    /// those behind these rows are left for the next call. Recorded decisions are in order.
    pub fn replay(&mut self, rows: &Rows, decided: &[Decided]) -> Result<(), EngineError> {
        for Decided { at, decision } in decided {
            if *at < self.position {
                continue;
            }
            if at.commit > rows.next().0 {
                break;
            }
            if at.commit > self.position.commit {
                let n = at.commit.saturating_sub(rows.base.0) as usize;
                self.process(&rows.slice(0, n))?;
            }
            if *at != self.position {
                return Err(EngineError::Decision { at: *at, position: self.position });
            }
            self.decide(decision)?;
        }
        self.process(rows).map(drop)
    }

    /// Everything that changed since the last snapshot, and the position it belongs to. Atomic with respect to rows and decisions; it
    /// must be durable in the store before the next one is taken.
    pub fn snapshot(&mut self) -> Snapshot {
        let mut into = Snapshot::default();
        let watermark = self.watermark.now();
        if let Some(dedupe) = &mut self.dedupe {
            dedupe.snapshot(&mut into);
        }
        self.operators.iter_mut().for_each(|operator| operator.snapshot(watermark, &mut into));
        let mut meta = Vec::new();
        Meta { position: self.position, watermark, event_time_max: self.watermark.event_time_max() }.write(&mut meta);
        into.put(META_KEY.to_vec(), meta);
        into
    }

    /// Every stream the shard writes.
    pub fn outputs(&self) -> Vec<Arc<StreamSchema>> {
        let first_seen = self.dedupe.iter().map(|d| Arc::clone(d.output()));
        first_seen.chain(self.operators.iter().flat_map(|o| o.outputs())).collect()
    }

    pub fn stats(&self) -> ShardStats {
        let mut operators = OperatorStats::default();
        self.operators.iter().for_each(|o| operators.add(&o.stats()));
        if let Some(dedupe) = &self.dedupe {
            operators.add(&dedupe.stats());
        }
        ShardStats { n_rows: self.n_rows, n_duplicates: self.dedupe.as_ref().map_or(0, Dedupe::n_duplicates), operators }
    }

    fn n_known(&self, rows: &Rows) -> Result<usize, EngineError> {
        if rows.schema.stream != self.spec.schema.stream || rows.partition != self.spec.partition {
            let owner = format!("{}/{}", self.spec.schema.stream, self.spec.partition);
            return Err(EngineError::Misdirected { owner, got: format!("{}/{}", rows.schema.stream, rows.partition) });
        }
        if rows.base.0 > self.position.commit {
            let stream = rows.schema.stream.to_string();
            return Err(EngineError::Gap { stream, expected: self.position.commit, got: rows.base.0 });
        }
        Ok(((self.position.commit - rows.base.0) as usize).min(rows.len()))
    }

    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<Outputs, EngineError>) -> Result<Outputs, EngineError> {
        if self.failed {
            return Err(EngineError::Failed);
        }
        let result = work(self);
        self.failed = result.is_err();
        result
    }

    fn take_rows(&mut self, rows: &Rows) -> Result<Outputs, EngineError> {
        let mut out = Outputs::default();
        let next = Position::new(rows.next().0, 0);
        self.n_rows += rows.len() as u64;
        if self.is_owing() {
            self.close(None, &mut out)?;
        }
        match &mut self.dedupe {
            None => self.run_operators(rows, None, &mut out)?,
            Some(dedupe) => {
                let first_seen = dedupe.filter(rows, self.watermark, &mut out)?;
                if let Some((rows, offsets)) = first_seen {
                    self.run_operators(&rows, Some(&offsets), &mut out)?;
                }
            }
        }
        self.position = next;
        Ok(out)
    }

    fn run_operators(&mut self, rows: &Rows, offsets: Option<&[u64]>, out: &mut Outputs) -> Result<(), EngineError> {
        let watermark_before = self.watermark.now();
        self.watermarks.clear();
        self.watermark.take_rows(rows.event_times().values(), &mut self.watermarks);
        let input = Input { rows, watermark_before, watermarks: &self.watermarks, offsets };
        self.operators.iter_mut().try_for_each(|operator| operator.on_rows(&input, &*self.store, out))
    }

    fn take_decision(&mut self, decision: &Decision) -> Result<Outputs, EngineError> {
        let mut out = Outputs::default();
        let at = Offset(self.position.commit);
        match decision {
            Decision::AdvanceWatermark { to, at_most } => {
                self.watermark.advance_to(*to);
                self.close(*at_most, &mut out)?;
            }
            Decision::Finish => {
                self.watermark.advance_to(EventTime(i64::MAX));
                self.close(None, &mut out)?;
            }
            Decision::CloseAhead { to, at_most } => {
                let mut left = *at_most;
                for operator in &mut self.operators {
                    let n = operator.n_due(to.micros(), left);
                    operator.close_ahead(to.micros(), n, &*self.store, &mut out)?;
                    left -= n;
                }
            }
            Decision::Tell { operator, message } => {
                let told = self.operators.iter_mut().find(|o| o.name() == operator);
                let told = told
                    .ok_or_else(|| EngineError::Operator { operator: operator.clone(), reason: "there is none of this name".to_owned() })?;
                told.on_message(message, at, &*self.store, &mut out)?;
            }
        }
        self.position.ordinal += 1;
        Ok(out)
    }

    /// Closes what the watermark has passed; with a limit, the rest is owed. The operators that count nothing close all.
    fn close(&mut self, at_most: Option<usize>, out: &mut Outputs) -> Result<(), EngineError> {
        let (watermark, at, mut left) = (self.watermark.now(), Offset(self.position.commit), at_most.unwrap_or(usize::MAX));
        for operator in &mut self.operators {
            let n = operator.n_due(watermark, left.saturating_add(1));
            if n <= left {
                operator.on_watermark(watermark, at, &*self.store, out)?;
                left -= n;
            } else {
                operator.close_ahead(watermark, left, &*self.store, out)?;
                left = 0;
            }
        }
        Ok(())
    }
}

fn check_names(operators: &[Box<dyn Operator>]) -> Result<(), EngineError> {
    for (i, operator) in operators.iter().enumerate() {
        let name = operator.name();
        if name.is_empty() || name.contains('\0') || operators[..i].iter().any(|o| o.name() == name) {
            let reason = "its name must be unique in the shard, not empty, and without a zero byte".to_owned();
            return Err(EngineError::Operator { operator: name.to_owned(), reason });
        }
    }
    Ok(())
}

/// The shard's own entry. Layout, versions 1 and 2: next offset and ordinal (unsigned varints), watermark and latest event time (zigzag varints). Version 2
/// keeps builds out that would leave the lists of open windows as they are (`timers.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meta {
    position: Position,
    watermark: i64,
    event_time_max: i64,
}

impl Meta {
    const VERSION: u8 = 2;
    const VERSION_BEFORE: u8 = 1;
    const NEW: Self = Self {
        position: Position { commit: 0, ordinal: 0 },
        watermark: crate::operator::WATERMARK_NONE,
        event_time_max: crate::operator::WATERMARK_NONE,
    };
}

impl StateValue for Meta {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(Self::VERSION);
        put_u(out, self.position.commit.into());
        put_u(out, self.position.ordinal.into());
        put_i(out, self.watermark.into());
        put_i(out, self.event_time_max.into());
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let is_before = bytes.first() == Some(&Self::VERSION_BEFORE);
        let mut fields = Fields::open(bytes, if is_before { Self::VERSION_BEFORE } else { Self::VERSION })?;
        let position = Position::new(fields.u64()?, fields.u64()?);
        let meta = Self { position, watermark: fields.i64()?, event_time_max: fields.i64()? };
        fields.end()?;
        Ok(meta)
    }
}
