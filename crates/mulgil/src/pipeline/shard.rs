//! One shard at work: rows from the log through the pure shard, what came out back into the log together with how far it has come.
//!
//! ```text
//!   open: state snapshot at S ─▶ replay S..C without emitting (C = what the log says was committed)
//!   then: prepare ─▶ (the worker commits) ─▶ committed ─▶ prepare …        a snapshot follows a commit, never precedes it
//! ```

use super::plan::RULES_OPERATOR;
use super::reader::StreamReader;
use super::state::ShardState;
use super::writer::StreamWriter;
use anyhow::{Context, Result, bail};
use mulgil_engine::decision::{Decided, Decision};
use mulgil_engine::output::{Emitted, Outputs};
use mulgil_engine::shard::{Portion, Shard};
use mulgil_log::{Advance, Append, Commit, Log, Owner, ReadLimit, RecordsBuilder};
use mulgil_model::ids::{Offset, Topic, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::{EventTime, ReceiveTime};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a shard needs from outside, and its limits.
pub struct ShardSetup {
    pub log: Arc<dyn Log>,
    pub reader: Arc<StreamReader>,
    pub input: TopicPartition,
    pub state: ShardState,
    pub writers: BTreeMap<Topic, StreamWriter>,
    pub decisions: Topic,
    pub limits: ShardLimits,
    /// The rules that the configuration asks for; None for a shard without rules.
    pub rules: Option<Rules>,
}

/// Rules as the operator is told them: JSON of `mulgil_detect::rules::Reloaded`.
///
/// Rules take effect by decision only, also the first ones: so a replay knows at every row which rules held, whatever the configuration
/// says by then.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Asked for; changed by a reload.
    pub wanted: Arc<Mutex<String>>,
    /// In effect as of the state snapshot, if there was one.
    pub in_effect: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ShardLimits {
    /// Rows taken at once.
    pub batch_rows: usize,
    pub snapshot_every: Duration,
    /// A snapshot comes early when this many state entries have changed.
    pub dirty_entries_max: usize,
    /// None: an idle partition waits.
    pub idle_after: Option<Duration>,
}

pub struct ShardRunner {
    setup: ShardSetup,
    owner: Owner,
    shard: Shard,
    /// Where the next decision is read from during recovery; kept in the state, so that recovery need not read all of them.
    decisions_next: Offset,
    /// None until the shard is first asked for work: opening it reads no clock.
    times: Option<Times>,
    snapshot_offset: Offset,
    decisions_offset: Offset,
    finish: Finish,
}

/// When the shard did something last.
#[derive(Debug, Clone, Copy)]
struct Times {
    snapshot: Instant,
    row: Instant,
}

/// Windows that one commit closes, about: their rows are in memory together, as values, as batches and as the log's records.
const CLOSES_MAX: usize = 16_384;

/// The end of a bounded input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    No,
    /// Once the input is read to its end.
    Asked,
    Done,
}

/// State entry of the runner itself, beside those of the shard: the offset in the decisions topic, 8 bytes, big endian.
const DECISIONS_KEY: &[u8] = b"runner\0decisions";

/// State entry of the runner: the rules in effect, as told.
const RULES_KEY: &[u8] = b"runner\0rules";

/// The rules that were in effect when the state was saved.
pub fn rules_in_effect(state: &ShardState) -> Result<Option<String>> {
    let stored = mulgil_engine::state::StateStore::get(state, RULES_KEY)?;
    stored.map(|bytes| String::from_utf8(bytes).context("the rules in the state folder are not text: delete it to rebuild it")).transpose()
}

impl ShardRunner {
    /// `build` makes the shard over its state, so that the pure part knows nothing of this one.
    pub fn open(setup: ShardSetup, shard: Shard) -> Result<Self> {
        let owner = Owner::new(&format!("shard/{}", setup.input.topic))?;
        let stored = mulgil_engine::state::StateStore::get(&setup.state, DECISIONS_KEY)?;
        let decisions_next = stored.and_then(|b| b.try_into().ok()).map_or(Offset::ZERO, |b| Offset(u64::from_be_bytes(b)));
        let snapshot_offset = Offset(shard.position().commit);
        let mut runner = Self {
            setup,
            owner,
            shard,
            decisions_next,
            times: None,
            snapshot_offset,
            decisions_offset: decisions_next,
            finish: Finish::No,
        };
        runner.recover()?;
        Ok(runner)
    }

    pub fn input(&self) -> &TopicPartition {
        &self.setup.input
    }

    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The first row that is not covered by a durable snapshot: retention keeps it.
    pub fn snapshot_offset(&self) -> Offset {
        self.snapshot_offset
    }

    /// The first decision that recovery from that snapshot would read.
    pub fn decisions_offset(&self) -> Offset {
        self.decisions_offset
    }

    /// Takes up what was committed after the last snapshot, without emitting it again.
    fn recover(&mut self) -> Result<()> {
        let Some(committed) = self.setup.log.progress(&self.owner, &self.setup.input)? else {
            if self.shard.position() > Position::default() {
                bail!("the state of {} is ahead of the log: was the log replaced? delete the state folder to rebuild it", self.setup.input);
            }
            return Ok(());
        };
        let mut decisions = self.decisions_from(self.decisions_next)?.into_iter().peekable();
        while self.shard.position() < committed {
            let at = self.shard.position();
            if let Some(next) = decisions.peek()
                && next.at == at
            {
                let decision = next.decision.clone();
                decisions.next();
                self.decisions_next = self.decisions_next.plus(1);
                self.decided(&decision)?;
                continue;
            }
            let until = decisions.peek().map_or(committed.commit, |d| d.at.commit.min(committed.commit));
            let n = usize::try_from(until.saturating_sub(at.commit)).unwrap_or(usize::MAX).min(self.setup.limits.batch_rows);
            if n == 0 {
                bail!(
                    "the log holds no decision for {} at {at}, though the shard committed {committed}: is the decisions topic damaged?",
                    self.setup.input
                );
            }
            let rows = self.setup.reader.read(self.setup.input.partition, Offset(at.commit), n)?;
            if rows.is_empty() {
                bail!(
                    "{} ends at offset {}, but its shard committed {committed}: was the log replaced? delete the state folder",
                    self.setup.input,
                    at.commit
                );
            }
            self.shard.process(&rows).with_context(|| format!("replaying {}", self.setup.input))?;
            mulgil_disk::failpoint::here("shard.recovering");
            self.snapshot_when_large()?;
        }
        if self.shard.position() > committed {
            bail!(
                "the state of {} is at {}, ahead of the log at {committed}: delete the state folder to rebuild it",
                self.setup.input,
                self.shard.position()
            );
        }
        Ok(())
    }

    /// Takes a decision, new or recorded.
    fn decided(&mut self, decision: &Decision) -> Result<Outputs> {
        if matches!(decision, Decision::Tell { operator, .. } if operator == RULES_OPERATOR) && self.setup.rules.is_none() {
            // Recorded when there were rules; now there is nobody to tell. It still counts as a decision, one without effect.
            let to = EventTime(self.shard.watermark());
            return Ok(self.shard.decide(&Decision::AdvanceWatermark { to, at_most: None })?);
        }
        if let (Decision::Tell { operator, message }, Some(rules)) = (decision, &mut self.setup.rules)
            && operator == RULES_OPERATOR
        {
            rules.in_effect = Some(message.clone());
        }
        Ok(self.shard.decide(decision)?)
    }

    /// The rules asked for, where they are not those in effect.
    fn new_rules(&self) -> Option<Decision> {
        let rules = self.setup.rules.as_ref()?;
        let wanted = rules.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (rules.in_effect.as_ref() != Some(&wanted)).then(|| Decision::Tell { operator: RULES_OPERATOR.to_owned(), message: wanted })
    }

    fn decisions_at(&self) -> TopicPartition {
        TopicPartition::new(self.setup.decisions.clone(), self.setup.input.partition)
    }

    fn decisions_from(&self, mut from: Offset) -> Result<Vec<Decided>> {
        let mut all = Vec::new();
        loop {
            let chunk = self.setup.log.read(&self.decisions_at(), from, ReadLimit::records(10_000))?;
            if chunk.is_empty() {
                return Ok(all);
            }
            for record in chunk.iter() {
                all.push(
                    serde_json::from_slice(record.value).with_context(|| format!("decision {} of {}", record.offset, self.setup.input))?,
                );
            }
            from = chunk.next_offset();
        }
    }

    /// The next commit of this shard, if there is anything to do. It must be committed before the next call.
    pub fn prepare(&mut self, now: Instant) -> Result<Option<Commit>> {
        self.times(now);
        if self.shard.is_owing() {
            let rest = self.advance(self.shard.watermark());
            return self.take(rest).map(Some);
        }
        if let Some(decision) = self.new_rules() {
            return self.take(decision).map(Some);
        }
        let mut rows =
            self.setup.reader.read(self.setup.input.partition, Offset(self.shard.position().commit), self.setup.limits.batch_rows)?;
        if rows.is_empty() {
            return match self.decide(now) {
                Some(decision) => self.take(decision).map(Some),
                None => Ok(None),
            };
        }
        self.times(now).row = now;
        let at_most = self.closes_max();
        match self.shard.portion(&rows, at_most) {
            Portion::Rows(n) if n < rows.len() => rows = rows.slice(0, n),
            Portion::Rows(_) => {}
            Portion::CloseAhead(to) => return self.take(Decision::CloseAhead { to, at_most }).map(Some),
        }
        let outputs = self.shard.process(&rows).with_context(|| format!("shard of {}", self.setup.input))?;
        let appends = self.encode(outputs.into_emitted())?;
        Ok(Some(self.commit(appends)))
    }

    /// Asks for all windows to be closed once the input is used up, as at the end of a bounded replay.
    pub fn finish(&mut self) {
        if self.finish == Finish::No {
            // A shard that was finished before, by an earlier run, has nothing left to close.
            let is_over = self.shard.watermark() == i64::MAX && !self.shard.is_owing();
            self.finish = if is_over { Finish::Done } else { Finish::Asked };
        }
    }

    /// The windows were closed, and that is committed once the present commit is.
    pub fn finished(&self) -> bool {
        self.finish == Finish::Done
    }

    /// What the outside world makes of the silence.
    fn decide(&mut self, now: Instant) -> Option<Decision> {
        if self.finish == Finish::Asked {
            return Some(match self.advance(i64::MAX) {
                Decision::AdvanceWatermark { at_most: None, .. } => {
                    self.finish = Finish::Done;
                    Decision::Finish
                }
                a_part => a_part,
            });
        }
        let idle = now.duration_since(self.times(now).row);
        let waited_long_enough = self.setup.limits.idle_after.is_some_and(|after| idle >= after);
        if !waited_long_enough || self.shard.stats().operators.n_open_windows == 0 {
            return None;
        }
        self.times(now).row = now;
        let to = self.shard.watermark().saturating_add(i64::try_from(idle.as_micros()).unwrap_or(i64::MAX));
        Some(self.advance(to))
    }

    fn closes_max(&self) -> usize {
        self.setup.limits.dirty_entries_max.clamp(1, CLOSES_MAX)
    }

    /// With a limit where more windows than one commit should hold would close: the others are owed, and closed next.
    fn advance(&self, to: i64) -> Decision {
        let limit = self.closes_max();
        let is_crowded = self.shard.n_due(to, limit.saturating_add(1)) > limit;
        Decision::AdvanceWatermark { to: EventTime(to), at_most: is_crowded.then_some(limit) }
    }

    fn take(&mut self, decision: Decision) -> Result<Commit> {
        let at = self.shard.position();
        let recorded = Decided { at, decision };
        let outputs = self.decided(&recorded.decision)?;
        let mut appends = self.encode(outputs.into_emitted())?;
        let mut records = RecordsBuilder::new();
        records.push(b"", &[], &serde_json::to_vec(&recorded)?, EventTime::default(), ReceiveTime::default());
        appends.push(Append { to: self.decisions_at(), records: records.finish() });
        self.decisions_next = self.decisions_next.plus(1);
        Ok(self.commit(appends))
    }

    fn encode(&mut self, emitted: Vec<Emitted>) -> Result<Vec<Append>> {
        let partition = self.setup.input.partition;
        let mut appends = Vec::with_capacity(emitted.len());
        for Emitted { schema, batch } in emitted {
            let writer = self.setup.writers.get_mut(&schema.stream);
            let writer =
                writer.with_context(|| format!("shard of {} emits '{}', which is not planned", self.setup.input, schema.stream))?;
            appends.push(writer.for_partition(&batch, partition)?);
        }
        Ok(appends)
    }

    fn commit(&self, appends: Vec<Append>) -> Commit {
        let advance = Advance { owner: self.owner.clone(), partition: self.setup.input.clone(), position: self.shard.position() };
        Commit { appends, progress: vec![advance] }
    }

    /// To be called after the prepared commit is durable: only now may a snapshot contain it.
    pub fn committed(&mut self, now: Instant) -> Result<()> {
        if now.duration_since(self.times(now).snapshot) >= self.setup.limits.snapshot_every {
            self.times(now).snapshot = now;
            return self.snapshot();
        }
        self.snapshot_when_large()
    }

    fn times(&mut self, now: Instant) -> &mut Times {
        self.times.get_or_insert(Times { snapshot: now, row: now })
    }

    fn snapshot_when_large(&mut self) -> Result<()> {
        if self.shard.stats().operators.n_dirty >= self.setup.limits.dirty_entries_max { self.snapshot() } else { Ok(()) }
    }

    /// A durable snapshot holds everything so far, the decisions too.
    pub fn is_covered(&self) -> bool {
        let read = self.shard.position().commit == self.snapshot_offset.0 && self.decisions_next == self.decisions_offset;
        read && self.shard.stats().operators.n_dirty == 0
    }

    /// Makes the state durable as of the present position.
    pub fn snapshot(&mut self) -> Result<()> {
        if self.is_covered() {
            return Ok(());
        }
        // Without one, a restart reads more of the log: that is better than a state folder that broke off in the middle.
        if !self.setup.state.has_room() {
            tracing::warn!(shard = %self.setup.input, "the disk is full: a state snapshot is put off");
            return Ok(());
        }
        let mut snapshot = self.shard.snapshot();
        snapshot.put(DECISIONS_KEY.to_vec(), self.decisions_next.0.to_be_bytes().to_vec());
        if let Some(in_effect) = self.setup.rules.as_ref().and_then(|rules| rules.in_effect.as_ref()) {
            snapshot.put(RULES_KEY.to_vec(), in_effect.clone().into_bytes());
        }
        mulgil_disk::failpoint::here("shard.before-snapshot");
        self.setup.state.apply(snapshot)?;
        mulgil_disk::failpoint::here("shard.after-snapshot");
        self.snapshot_offset = Offset(self.shard.position().commit);
        self.decisions_offset = self.decisions_next;
        Ok(())
    }
}
