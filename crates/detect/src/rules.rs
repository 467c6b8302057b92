//! The rules of one input stream as an operator: features row by row, conditions by column, then cool-downs and transitions row by row.
//!
//! Rows with `backfill` or `snapshot` true (bool columns) update features and raise nothing.
//!
//! A key that was idle for longer than the time to live is forgotten: when, at a row's arrival, the watermark has passed the key's latest
//! event time by more than that, the row finds a fresh key. The store's entry is deleted by the same measure, so deletion never shows.

use crate::alert::{Alert, AlertBatch, Mode};
use crate::error::DetectError;
use crate::feature::{Feature, FeatureRow, FeatureSpec, FeatureValue};
use crate::key_state::{KeyState, RuleState};
use crate::mark::Marks;
use crate::message::About;
use crate::rule::{Rule, RuleSpec, Test, change};
use crate::scope::Scope;
use crate::source::View;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, RecordBatch,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use mulgil_engine::error::EngineError;
use mulgil_engine::keyed::Keyed;
use mulgil_engine::operator::{Input, Operator, OperatorStats};
use mulgil_engine::output::Outputs;
use mulgil_engine::state::{Snapshot, StateStore};
use mulgil_model::ids::Offset;
use mulgil_model::json;
use mulgil_model::rows::Rows;
use mulgil_model::schema::{ColumnType, StreamSchema};
use mulgil_model::streams;
use mulgil_model::time::parse_duration;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most features, and the most rules, of one stream.
pub const DEFINITIONS_MAX: usize = 256;

/// Every so many rows, so many entries of the store are looked at to find expired keys.
const SWEEP_EVERY_ROWS: usize = 16_384;
const SWEEP_KEYS_MAX: usize = 1_024;

/// Limits of a rules operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulesOptions {
    /// Keys kept in memory.
    pub hot_keys_max: usize,
    /// How long a key may be idle, in microseconds; never less than the longest window and cool-down.
    pub idle_max: i64,
}

impl Default for RulesOptions {
    /// 100,000 keys; 30 days.
    fn default() -> Self {
        Self { hot_keys_max: 100_000, idle_max: parse_duration("30d").expect("invariant: the default is a duration") }
    }
}

/// Definitions compiled for one stream.
struct Definitions {
    features: Vec<Feature>,
    rules: Vec<Rule>,
    scope: Scope,
    first_feature: usize,
    needs_amount: bool,
    idle_max: i64,
}

/// What happened that is no alert, since the operator was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RuleCounts {
    pub alerts: u64,
    /// Alerts held back by a cool-down.
    pub suppressed: u64,
    /// Rows for which an expression could not be computed, and so was null.
    pub failed: u64,
}

/// New definitions, as a decision carries them: the JSON of this is the operator's message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reloaded {
    pub features: Vec<FeatureSpec>,
    pub rules: Vec<RuleSpec>,
}

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reload {
    /// Features whose state goes on.
    pub kept: Vec<String>,
    /// Features that begin anew: new ones and those with another definition.
    pub fresh: Vec<String>,
    pub removed: Vec<String>,
}

/// What the first pass over a batch gives the second one.
struct Computed {
    /// Of the scope: the rows' columns and the features beside them.
    batch: RecordBatch,
    /// Per feature and row: the oldest row that its value rests on.
    firsts: Vec<Vec<Option<u64>>>,
    /// Rows that found their key forgotten. Rules forget it in the second pass, because rows before these come first there too.
    renewed: Vec<usize>,
}

pub struct RulesOperator {
    name: String,
    schema: Arc<StreamSchema>,
    output: Arc<StreamSchema>,
    options: RulesOptions,
    definitions: Definitions,
    marks: Marks,
    keys: Keyed<KeyState>,
    generation: u32,
    counts: RuleCounts,
    /// Rows since the store was last swept for expired keys.
    n_unswept: usize,
}

impl RulesOperator {
    /// Takes the features and rules that are declared for `schema`'s stream and leaves the others.
    pub fn new(
        name: &str,
        schema: Arc<StreamSchema>,
        features: &[FeatureSpec],
        rules: &[RuleSpec],
        options: RulesOptions,
    ) -> Result<Self, DetectError> {
        let definitions = Definitions::compile(&schema, features, rules, &options)?;
        let output = alert_stream(&schema)?;
        let marks = Marks::of(&schema);
        let keys = Keyed::new(name, "keys", options.hot_keys_max);
        Ok(Self {
            name: name.to_owned(),
            schema,
            output,
            options,
            definitions,
            marks,
            keys,
            generation: 1,
            counts: RuleCounts::default(),
            n_unswept: 0,
        })
    }

    /// Changes the definitions between two batches. Features whose name, aggregate, window and filter did not change keep their state, and
    /// so do the cool-downs and transitions of rules that keep their name. On an error everything stays as it was.
    pub fn reload(&mut self, features: &[FeatureSpec], rules: &[RuleSpec]) -> Result<Reload, DetectError> {
        let next = Definitions::compile(&self.schema, features, rules, &self.options)?;
        let before = std::mem::replace(&mut self.definitions, next);
        let next = &self.definitions.features;
        let names = |of: &[Feature], with: &dyn Fn(&Feature) -> bool| of.iter().filter(|f| with(f)).map(|f| f.name.clone()).collect();
        let known = |f: &Feature| before.features.iter().any(|b| b.id == f.id);
        self.generation += 1;
        Ok(Reload {
            kept: names(next, &known),
            fresh: names(next, &|f| !known(f)),
            removed: names(&before.features, &|f| !next.iter().any(|n| n.name == f.name)),
        })
    }

    pub fn counts(&self) -> RuleCounts {
        self.counts
    }

    pub fn rules(&self) -> &[Rule] {
        &self.definitions.rules
    }

    /// Features row by row.
    fn compute_features(&mut self, input: &Input<'_>, store: &dyn StateStore) -> Result<Computed, EngineError> {
        let rows = input.rows;
        let definitions = &self.definitions;
        let accepted = accepted(definitions, &self.schema, rows, &mut self.counts)?;
        let views: Vec<Option<View<'_>>> = definitions.features.iter().map(|f| f.source().map(|s| s.view(&rows.batch))).collect();
        let mut columns: Vec<FeatureColumn> = definitions.features.iter().map(|f| FeatureColumn::new(f.kind, rows.len())).collect();
        let mut firsts: Vec<Vec<Option<u64>>> = vec![Vec::with_capacity(rows.len()); columns.len()];
        let (keys, times, mut renewed) = (rows.keys(), rows.event_times(), Vec::new());
        for row in 0..rows.len() {
            let event_time = times.value(row);
            let state = self.keys.get_or_insert_with(keys.value(row).as_bytes(), store, || definitions.fresh(event_time))?;
            if is_idle(state, input.watermark_at(row), definitions.idle_max) {
                *state = KeyState { rules: std::mem::take(&mut state.rules), ..definitions.fresh(event_time) };
                renewed.push(row);
            }
            definitions.arrange(state, self.generation);
            state.latest = state.latest.max(event_time);
            let latest = state.latest;
            let offset = input.offset_of(row).0;
            for (i, feature) in definitions.features.iter().enumerate() {
                let accepted = accepted[i].as_ref().is_none_or(|mask| mask.is_valid(row) && mask.value(row));
                let at = FeatureRow { row, event_time, latest, offset, accepted };
                let (value, first) = feature.step(&mut state.features[i].1, views[i].as_ref(), at);
                columns[i].append(value);
                firsts[i].push(first);
            }
        }
        let columns = columns.into_iter().map(FeatureColumn::finish).collect::<Result<_, _>>()?;
        let batch = definitions.scope.batch(&rows.batch, definitions.needs_amount, columns)?;
        Ok(Computed { batch, firsts, renewed })
    }

    fn sweep(&mut self, watermark: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        let idle_max = self.definitions.idle_max;
        self.n_unswept = 0;
        self.keys.sweep(store, SWEEP_KEYS_MAX, |_, state| is_idle(state, watermark, idle_max))
    }

    /// Rows on which a rule has something to say, in row order and within a row in the order of the rules.
    fn candidates(&mut self, rows: &Rows, batch: &RecordBatch) -> Result<Vec<Candidate>, ArrowError> {
        let mut candidates = Vec::new();
        for (rule, definition) in self.definitions.rules.iter().enumerate() {
            if definition.mode == Mode::Off {
                continue;
            }
            let (found, n_failed) = findings(&definition.test, batch)?;
            self.counts.failed += n_failed;
            candidates.extend(found.into_iter().map(|(row, finding)| Candidate { row, rule, finding }));
        }
        candidates.retain(|c| !self.marks.is_marked(rows, c.row));
        candidates.sort_by_key(|c| (c.row, c.rule));
        Ok(candidates)
    }

    /// Cool-downs, transitions and levels, in row order.
    fn raise(
        &mut self,
        input: &Input<'_>,
        store: &dyn StateStore,
        computed: &Computed,
        candidates: &[Candidate],
    ) -> Result<RecordBatch, EngineError> {
        let (rows, Computed { batch, firsts, renewed }) = (input.rows, computed);
        let mut renewed = renewed.iter().copied().peekable();
        let mut alerts = AlertBatch::new(&self.schema, rows.partition);
        let (keys, times) = (rows.keys(), rows.event_times());
        for candidate in candidates {
            while let Some(row) = renewed.next_if(|at| *at <= candidate.row) {
                self.forget_rules(keys.value(row), store)?;
            }
            let (row, rule) = (candidate.row, &self.definitions.rules[candidate.rule]);
            let state = self.keys.get_or_insert_with(keys.value(row).as_bytes(), store, || self.definitions.fresh(times.value(row)))?;
            let known = state.rules.get(candidate.rule).map_or_else(RuleState::default, |(_, state)| *state);
            let mut next = known;
            let decision = decide(rule, &mut next, candidate.finding, times.value(row));
            if next != known {
                self.definitions.remember(state, candidate.rule, next);
            }
            match decision {
                Decision::Silent => {}
                Decision::Suppressed => self.counts.suppressed += 1,
                Decision::Alert { state, level } => {
                    self.counts.alerts += 1;
                    let about = About { key: keys.value(row), state, level: &level };
                    let first_offset = first_offset(&self.definitions, rule, firsts, row, input.offset_of(row));
                    alerts.push(&Alert {
                        key: about.key,
                        event_time: times.value(row),
                        rule: &rule.name,
                        version: &rule.version,
                        severity: rule.severity,
                        mode: rule.mode,
                        state,
                        score: rule.score,
                        message: rule.message.render(batch, row, about)?,
                        condition: &rule.condition,
                        evidence: evidence(&self.definitions.scope, rule, batch, row),
                        thresholds: &rule.thresholds,
                        offset: input.offset_of(row),
                        first_offset,
                    });
                }
            }
        }
        renewed.try_for_each(|row| self.forget_rules(keys.value(row), store))?;
        Ok(alerts.finish(&self.output)?)
    }

    fn forget_rules(&mut self, key: &str, store: &dyn StateStore) -> Result<(), EngineError> {
        let state = self.keys.get_or_insert_with(key.as_bytes(), store, || self.definitions.fresh(0))?;
        state.rules = Vec::new();
        Ok(())
    }
}

impl Operator for RulesOperator {
    fn name(&self) -> &str {
        &self.name
    }

    fn outputs(&self) -> Vec<Arc<StreamSchema>> {
        vec![Arc::clone(&self.output)]
    }

    fn on_rows(&mut self, input: &Input<'_>, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let computed = self.compute_features(input, store)?;
        let candidates = self.candidates(input.rows, &computed.batch)?;
        if !(candidates.is_empty() && computed.renewed.is_empty()) {
            let alerts = self.raise(input, store, &computed, &candidates)?;
            out.emit(&self.output, alerts);
        }
        self.n_unswept += input.rows.len();
        if self.n_unswept >= SWEEP_EVERY_ROWS {
            self.sweep(input.watermarks.last().copied().unwrap_or(input.watermark_before), store)?;
        }
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, _at: Offset, store: &dyn StateStore, _out: &mut Outputs) -> Result<(), EngineError> {
        self.sweep(watermark, store)
    }

    fn snapshot(&mut self, watermark: i64, into: &mut Snapshot) {
        let idle_max = self.definitions.idle_max;
        self.keys.snapshot(into, |_, state| is_idle(state, watermark, idle_max));
    }

    /// A reload, as JSON: see [`Reloaded`].
    fn on_message(&mut self, message: &str, _at: Offset, _store: &dyn StateStore, _out: &mut Outputs) -> Result<(), EngineError> {
        let fail = |reason: String| EngineError::Operator { operator: self.name.clone(), reason };
        let next: Reloaded = serde_json::from_str(message).map_err(|e| fail(format!("the new rules cannot be read: {e}")))?;
        self.reload(&next.features, &next.rules)
            .map(|_| ())
            .map_err(|e| EngineError::Operator { operator: self.name.clone(), reason: e.to_string() })
    }

    fn stats(&self) -> OperatorStats {
        OperatorStats { n_hot: self.keys.n_hot(), n_dirty: self.keys.n_dirty(), ..OperatorStats::default() }
    }
}

/// The stream that all alerts about `schema`'s rows go to.
pub fn alert_stream(schema: &StreamSchema) -> Result<Arc<StreamSchema>, DetectError> {
    Ok(Arc::new(streams::alerts(schema.stream.derived("alerts")?)?))
}

fn is_idle(state: &KeyState, watermark: i64, idle_max: i64) -> bool {
    watermark.saturating_sub(state.latest) > idle_max
}

impl Definitions {
    fn compile(schema: &StreamSchema, features: &[FeatureSpec], rules: &[RuleSpec], options: &RulesOptions) -> Result<Self, DetectError> {
        let stream = schema.stream.as_str();
        let features = features.iter().filter(|f| f.stream == stream).map(|f| Feature::parse(f, schema)).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = features.iter().enumerate().find(|(i, f)| features[..*i].iter().any(|o| o.name == f.name)) {
            return Err(DetectError::Feature { feature: twice.1.name.clone(), reason: "it is declared twice".to_owned() });
        }
        let scope = Scope::new(schema, &features);
        let specs: Vec<&RuleSpec> = rules.iter().filter(|r| r.stream == stream).collect();
        let rules = specs.iter().map(|r| Rule::parse(r, schema, &features, &scope)).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = rules.iter().enumerate().find(|(i, r)| rules[..*i].iter().any(|o| o.name == r.name)) {
            return Err(DetectError::Rule { rule: twice.1.name.clone(), reason: "it is declared twice".to_owned() });
        }
        let too_many = || DetectError::Rule {
            rule: stream.to_owned(),
            reason: format!("a stream may have {DEFINITIONS_MAX} features and as many rules"),
        };
        if features.len() > DEFINITIONS_MAX || rules.len() > DEFINITIONS_MAX {
            return Err(too_many());
        }
        let needs_amount = rules.iter().flat_map(Rule::needs).any(|i| Some(i) == scope.amount_index());
        let horizons = features.iter().map(Feature::horizon).chain(rules.iter().map(|r| r.cooldown));
        let idle_max = horizons.fold(options.idle_max, i64::max);
        Ok(Self { first_feature: scope.first_feature(schema), features, rules, scope, needs_amount, idle_max })
    }

    fn fresh(&self, event_time: i64) -> KeyState {
        KeyState { latest: event_time, features: Vec::new(), rules: Vec::new(), arranged: 0 }
    }

    /// Brings a key's state into the order of the definitions of `generation`.
    fn arrange(&self, state: &mut KeyState, generation: u32) {
        if state.arranged == generation {
            return;
        }
        let mut features = std::mem::take(&mut state.features);
        let mut take = |f: &Feature| features.iter().position(|(id, _)| *id == f.id).map(|at| features.swap_remove(at));
        state.features = self.features.iter().map(|f| take(f).unwrap_or_else(|| (f.id, f.fresh()))).collect();
        let rules = std::mem::take(&mut state.rules);
        let known = |id| rules.iter().find(|(other, _)| *other == id).map_or_else(RuleState::default, |(_, s)| *s);
        if self.rules.iter().any(|r| known(r.id) != RuleState::default()) {
            state.rules = self.rules.iter().map(|r| (r.id, known(r.id))).collect();
        }
        state.arranged = generation;
    }

    fn remember(&self, state: &mut KeyState, rule: usize, what: RuleState) {
        if state.rules.is_empty() {
            state.rules = self.rules.iter().map(|r| (r.id, RuleState::default())).collect();
        }
        state.rules[rule].1 = what;
    }
}

/// Per feature, which rows pass its filter; None for no filter.
fn accepted(
    definitions: &Definitions,
    schema: &StreamSchema,
    rows: &Rows,
    counts: &mut RuleCounts,
) -> Result<Vec<Option<BooleanArray>>, ArrowError> {
    let scope = Scope::of_row(schema);
    if definitions.features.iter().all(|f| f.filter().is_none()) {
        return Ok(vec![None; definitions.features.len()]);
    }
    let batch = scope.batch(&rows.batch, true, Vec::new())?;
    let masks = definitions.features.iter().map(|f| {
        let Some(filter) = f.filter() else { return Ok(None) };
        let (mask, n_failed) = filter.evaluate_condition(&batch)?;
        counts.failed += n_failed;
        Ok(Some(mask))
    });
    masks.collect()
}

struct Candidate {
    row: usize,
    rule: usize,
    finding: Finding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Holds,
    DoesNot,
    Level(i32),
}

/// What a rule's expressions say about the rows of a batch, without the rows about which they say nothing.
fn findings(test: &Test, batch: &RecordBatch) -> Result<(Vec<(usize, Finding)>, u64), ArrowError> {
    let known = |mask: &BooleanArray, row: usize| mask.is_valid(row).then(|| mask.value(row));
    match test {
        Test::Each { when } => {
            let (mask, n_failed) = when.evaluate_condition(batch)?;
            if mask.true_count() == 0 {
                return Ok((Vec::new(), n_failed));
            }
            Ok(((0..mask.len()).filter(|row| known(&mask, *row) == Some(true)).map(|row| (row, Finding::Holds)).collect(), n_failed))
        }
        Test::Transition { when } => {
            let (mask, n_failed) = when.evaluate_condition(batch)?;
            let finding = |row| known(&mask, row).map(|holds| (row, if holds { Finding::Holds } else { Finding::DoesNot }));
            Ok(((0..mask.len()).filter_map(finding).collect(), n_failed))
        }
        Test::Levels { when, level, .. } => {
            let (levels, mut n_failed) = level.evaluate(batch)?;
            let levels = levels.as_primitive::<Int64Type>();
            let gate = when.as_ref().map(|w| w.evaluate_condition(batch)).transpose()?;
            n_failed += gate.as_ref().map_or(0, |(_, n)| *n);
            let counts = |row: &usize| levels.is_valid(*row) && gate.as_ref().is_none_or(|(mask, _)| known(mask, *row) == Some(true));
            let found = (0..batch.num_rows()).filter(counts).map(|row| (row, Finding::Level(levels.value(row) as i32)));
            Ok((found.collect(), n_failed))
        }
    }
}

enum Decision {
    Silent,
    Suppressed,
    Alert { state: &'static str, level: String },
}

fn decide(rule: &Rule, state: &mut RuleState, finding: Finding, event_time: i64) -> Decision {
    let cooling = rule.cooldown > 0 && state.alerted.is_some_and(|last| event_time.saturating_sub(last) < rule.cooldown);
    let (name, level) = match (&rule.test, finding) {
        (Test::Each { .. }, Finding::Holds) => ("raised", String::new()),
        (Test::Transition { .. }, Finding::DoesNot) => {
            state.holds = false;
            return Decision::Silent;
        }
        (Test::Transition { .. }, Finding::Holds) if !state.holds => ("raised", String::new()),
        (Test::Levels { levels, .. }, Finding::Level(to)) if to != state.level => (change(state.level, to), levels.name(to)),
        _ => return Decision::Silent,
    };
    if cooling {
        return Decision::Suppressed;
    }
    state.holds = finding == Finding::Holds;
    if let Finding::Level(to) = finding {
        state.level = to;
    }
    state.alerted = Some(state.alerted.map_or(event_time, |last| last.max(event_time)));
    Decision::Alert { state: name, level }
}

/// The oldest row behind the features that the rule uses; the row itself when it uses none.
fn first_offset(definitions: &Definitions, rule: &Rule, firsts: &[Vec<Option<u64>>], row: usize, own: Offset) -> Option<Offset> {
    let used = rule.columns.iter().filter_map(|i| i.checked_sub(definitions.first_feature));
    let mut used = used.peekable();
    if used.peek().is_none() {
        return Some(own);
    }
    used.filter_map(|feature| firsts[feature][row]).min().map(Offset)
}

fn evidence(scope: &Scope, rule: &Rule, batch: &RecordBatch, row: usize) -> String {
    let mut out = String::from("{");
    for (i, index) in rule.columns.iter().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        json::write_text(&mut out, scope.name(*index));
        out.push(':');
        json::write_value(&mut out, scope.kind(*index), batch.column(*index).as_ref(), row);
    }
    out.push('}');
    out
}

/// A feature's values, one per row.
enum FeatureColumn {
    Int(Int64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl FeatureColumn {
    fn new(kind: ColumnType, n: usize) -> Self {
        match kind {
            ColumnType::Decimal { precision, scale } => Self::Decimal(Decimal128Builder::with_capacity(n), precision, scale),
            ColumnType::Float => Self::Float(Float64Builder::with_capacity(n)),
            ColumnType::Bool => Self::Bool(BooleanBuilder::with_capacity(n)),
            ColumnType::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(n).with_timezone("UTC")),
            ColumnType::Int | ColumnType::Text => Self::Int(Int64Builder::with_capacity(n)),
        }
    }

    fn append(&mut self, value: FeatureValue) {
        match (self, value) {
            (Self::Int(b), FeatureValue::Int(v)) => b.append_option(i64::try_from(v).ok()),
            (Self::Timestamp(b), FeatureValue::Int(v)) => b.append_option(i64::try_from(v).ok()),
            (Self::Decimal(b, ..), FeatureValue::Int(v)) => b.append_value(v),
            (Self::Float(b), FeatureValue::Float(v)) => b.append_option(v.is_finite().then_some(v)),
            (Self::Bool(b), FeatureValue::Bool(v)) => b.append_value(v),
            (Self::Int(b), _) => b.append_null(),
            (Self::Timestamp(b), _) => b.append_null(),
            (Self::Decimal(b, ..), _) => b.append_null(),
            (Self::Float(b), _) => b.append_null(),
            (Self::Bool(b), _) => b.append_null(),
        }
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Int(mut b) => Arc::new(b.finish()),
            Self::Decimal(mut b, precision, scale) => Arc::new(b.finish().with_precision_and_scale(precision, scale)?),
            Self::Float(mut b) => Arc::new(b.finish()),
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Timestamp(mut b) => Arc::new(b.finish()),
        })
    }
}
