//! What the configuration amounts to: every stream there will be, and which shards compute which of them.

use crate::config::checked::{Checked, StreamPlan};
use crate::config::nearest::nearest;
use anyhow::{Context, Result, bail};
use mulgil_detect::detectors;
use mulgil_detect::rules::{Reloaded, RulesOperator, RulesOptions};
use mulgil_engine::bars::{BarsOperator, BarsSpec};
use mulgil_engine::calendar::Interval;
use mulgil_engine::dedupe::DedupeSpec;
use mulgil_engine::operator::Operator;
use mulgil_engine::summary::{SummaryOperator, SummarySpec};
use mulgil_model::ids::Topic;
use mulgil_model::schema::StreamSchema;
use std::sync::Arc;
use std::time::Duration;

/// `<stream>.in`: where rows of a stream go that is de-duplicated before anyone reads it.
const INPUT_SUFFIX: &str = "in";

/// `<stream>.decisions`: what the shards of a stream were told from outside.
const DECISIONS_SUFFIX: &str = ".decisions";

/// The operator of a shard that evaluates features and rules.
pub const RULES_OPERATOR: &str = "rules";

pub struct Plan {
    /// Every stream that can be read, base streams and derived ones.
    pub streams: Vec<PlannedStream>,
    pub shards: Vec<PlannedShards>,
}

#[derive(Clone)]
pub struct PlannedStream {
    pub schema: Arc<StreamSchema>,
    pub partitions: u32,
}

/// The shards of one input, one per partition.
pub struct PlannedShards {
    /// Of the topic they read.
    pub input: Arc<StreamSchema>,
    /// The stream that rules and summaries name; the same as the input's but for de-duplicated streams.
    stream: Arc<StreamSchema>,
    base: Arc<StreamPlan>,
    pub partitions: u32,
    /// 0 for base streams, 1 for what is computed from the streams they derive, …
    pub level: u32,
    pub out_of_orderness_us: i64,
    pub idle_after: Option<Duration>,
    pub dedupe: Option<DedupeSpec>,
    pub decisions: Topic,
}

impl Plan {
    pub fn new(config: &Checked) -> Result<Self> {
        let mut plan = Self { streams: Vec::new(), shards: Vec::new() };
        for base in &config.streams {
            plan.add(config, &Arc::clone(&base.schema), &Arc::new(base.clone()), 0)?;
        }
        plan.check_names(config)?;
        Ok(plan)
    }

    /// Adds a stream, the shards that read it if anything is to be computed from it, and in turn the streams they derive.
    fn add(&mut self, config: &Checked, schema: &Arc<StreamSchema>, base: &Arc<StreamPlan>, level: u32) -> Result<()> {
        self.streams.push(PlannedStream { schema: Arc::clone(schema), partitions: base.partitions });
        let shards = PlannedShards::new(schema, base, level)?;
        let operators = shards.operators(config)?;
        if operators.is_empty() && shards.dedupe.is_none() {
            return Ok(());
        }
        self.shards.push(shards);
        let mut derived: Vec<Arc<StreamSchema>> = Vec::new();
        for output in operators.iter().flat_map(|o| o.outputs()) {
            if !derived.iter().any(|d| d.stream == output.stream) {
                derived.push(output);
            }
        }
        derived.iter().try_for_each(|output| self.add(config, output, base, level + 1))
    }

    /// Rules and their like on streams that do not exist would never run: they are mistakes.
    fn check_names(&self, config: &Checked) -> Result<()> {
        let features = config.features.iter().map(|f| ("feature", &f.name, f.stream.as_str()));
        let rules = config.rules.iter().map(|r| ("rule", &r.name, r.stream.as_str()));
        let detectors = config.detectors.iter().map(|d| ("detector", &d.name, d.stream.as_str()));
        let summaries = config.summaries.iter().map(|s| ("summary", &s.name, s.stream.as_str()));
        for (section, name, stream) in features.chain(rules).chain(detectors).chain(summaries) {
            if self.streams.iter().any(|s| s.schema.stream.as_str() == stream) {
                continue;
            }
            let known: Vec<&str> = self.streams.iter().map(|s| s.schema.stream.as_str()).collect();
            match nearest(stream, known.iter().copied()) {
                Some(near) => bail!("[{section}.{name}] reads the stream '{stream}', which does not exist: did you mean '{near}'?"),
                None => bail!("[{section}.{name}] reads the stream '{stream}', which does not exist: there are {}", known.join(", ")),
            }
        }
        Ok(())
    }

    /// The topic into which rows of a base stream are put from outside.
    pub fn input_of(&self, stream: &Topic) -> Option<(Arc<StreamSchema>, u32)> {
        let shards = self.shards.iter().find(|s| s.stream.stream == *stream && s.level == 0).map(|s| (Arc::clone(&s.input), s.partitions));
        shards.or_else(|| self.streams.iter().find(|s| s.schema.stream == *stream).map(|s| (Arc::clone(&s.schema), s.partitions)))
    }
}

impl PlannedShards {
    fn new(schema: &Arc<StreamSchema>, base: &Arc<StreamPlan>, level: u32) -> Result<Self> {
        let dedupe = base.dedupe.as_ref().filter(|_| level == 0);
        let input = match dedupe {
            Some(_) => Arc::new(schema.renamed(schema.stream.derived(INPUT_SUFFIX)?)),
            None => Arc::clone(schema),
        };
        let dedupe = dedupe.map(|d| DedupeSpec {
            columns: d.columns.clone(),
            horizon_us: micros(d.horizon),
            n_max: d.entries_max,
            output: Arc::clone(schema),
        });
        Ok(Self {
            decisions: Topic::new(&format!("{}{DECISIONS_SUFFIX}", input.stream))?,
            input,
            stream: Arc::clone(schema),
            base: Arc::clone(base),
            partitions: base.partitions,
            level,
            out_of_orderness_us: micros(base.out_of_orderness),
            idle_after: base.idle_after,
            dedupe,
        })
    }

    /// New operators for one shard, in their order.
    pub fn operators(&self, config: &Checked) -> Result<Vec<Box<dyn Operator>>> {
        let mut operators: Vec<Box<dyn Operator>> = Vec::new();
        let stream = &self.stream.stream;
        if self.level == 0 && !self.base.bars.is_empty() {
            operators.push(Box::new(self.bars(config).with_context(|| format!("[stream.{stream}] bars"))?));
        }
        for summary in config.summaries.iter().filter(|s| s.stream == *stream) {
            let spec = SummarySpec {
                name: summary.name.clone(),
                input: Arc::clone(&self.stream),
                stream: stream.clone(),
                group_by: summary.group_by.clone(),
                window: summary.window.clone(),
                filter: None,
                aggregates: summary.aggregates.clone(),
                allowed_lateness_us: micros(summary.allowed_lateness),
                n_partitions: self.partitions,
                hot_max: config.state.hot_keys_max,
            };
            operators.push(Box::new(SummaryOperator::new(&spec).with_context(|| format!("[summary.{}]", summary.name))?));
        }
        if config.rules.iter().any(|r| r.stream == stream.as_str()) {
            let options = RulesOptions { hot_keys_max: config.state.hot_keys_max, ..RulesOptions::default() };
            operators.push(Box::new(RulesOperator::new(
                RULES_OPERATOR,
                Arc::clone(&self.stream),
                &config.features,
                &config.rules,
                options,
            )?));
        }
        for detector in config.detectors.iter().filter(|d| d.stream == stream.as_str()) {
            operators.push(detectors::build(detector, &self.stream)?);
        }
        Ok(operators)
    }

    /// As [`Self::operators`], under rules that were told before instead of those of the configuration.
    pub fn operators_under(&self, config: &Checked, told: Option<&str>) -> Result<Vec<Box<dyn Operator>>> {
        let Some(told) = told else { return self.operators(config) };
        let told: Reloaded = serde_json::from_str(told).context("the rules in the state folder cannot be read: delete it to rebuild it")?;
        self.operators(&Checked { features: told.features, rules: told.rules, ..config.clone() })
    }

    /// What the rules operator of these shards is told, if there is one. Features and rules of other streams are no business of theirs.
    pub fn rules(&self, config: &Checked) -> Result<Option<String>> {
        let stream = self.stream.stream.as_str();
        let rules: Vec<_> = config.rules.iter().filter(|r| r.stream == stream).cloned().collect();
        let features = config.features.iter().filter(|f| f.stream == stream).cloned().collect();
        if rules.is_empty() { Ok(None) } else { Ok(Some(serde_json::to_string(&Reloaded { features, rules })?)) }
    }

    fn bars(&self, config: &Checked) -> Result<BarsOperator> {
        let base = &self.base;
        let intervals = base.bars.iter().map(|text| Interval::parse(text)).collect::<Result<_, _>>()?;
        let mut spec = BarsSpec::new(Arc::clone(&self.stream), intervals);
        spec.zone.clone_from(&base.timezone);
        spec.allowed_lateness_us = micros(base.allowed_lateness);
        spec.hot_max = config.state.hot_keys_max;
        Ok(BarsOperator::new(&spec)?)
    }
}

pub fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}
