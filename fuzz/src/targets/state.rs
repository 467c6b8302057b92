//! What a shard and its rules keep between runs.

use crate::trades::{CSV, RECEIVED, SCHEMA, batch, good, rows, topic};
use mulgil_connect::decode::Format;
use mulgil_detect::detectors::{self, DetectorConfig};
use mulgil_detect::key_state::KeyState;
use mulgil_detect::rules::{RulesOperator, RulesOptions};
use mulgil_engine::aggregate::Function;
use mulgil_engine::bars::{BarsOperator, BarsSpec};
use mulgil_engine::calendar::Interval;
use mulgil_engine::decision::Decision;
use mulgil_engine::dedupe::DedupeSpec;
use mulgil_engine::error::EngineError;
use mulgil_engine::operator::Operator;
use mulgil_engine::shard::{Shard, ShardSpec};
use mulgil_engine::state::{SharedMemStore, Snapshot, StateValue};
use mulgil_engine::summary::{AggregateSpec, SummaryOperator, SummarySpec};
use mulgil_engine::window::WindowSpec;
use mulgil_model::ids::Partition;
use mulgil_model::schema::StreamSchema;
use std::sync::{Arc, LazyLock};

const SECOND: i64 = 1_000_000;

static INPUT: LazyLock<Arc<StreamSchema>> = LazyLock::new(|| Arc::new(SCHEMA.renamed(topic("trades.in"))));

/// The name of the operator of rules, with which the keys of its entries begin.
const RULES: &str = "rules";

fn summary(name: &str, window: WindowSpec) -> Box<dyn Operator> {
    let functions = [
        ("n", Function::Count, None),
        ("volume", Function::Sum, Some("quantity")),
        ("mean", Function::Avg, Some("price")),
        ("low", Function::Min, Some("price")),
        ("spread", Function::Stddev, Some("price")),
        ("opening", Function::First, Some("price")),
        ("last_side", Function::Last, Some("side")),
    ];
    let aggregate =
        |(name, function, column): (&str, _, Option<&str>)| AggregateSpec { name: name.into(), function, column: column.map(Into::into) };
    let spec = SummarySpec {
        name: name.into(),
        input: INPUT.clone(),
        stream: topic("trades"),
        group_by: vec!["symbol".into()],
        window,
        filter: None,
        aggregates: functions.map(aggregate).to_vec(),
        allowed_lateness_us: 60 * SECOND,
        n_partitions: 1,
        hot_max: 100,
    };
    Box::new(SummaryOperator::new(&spec).expect("the summary is valid"))
}

/// Rules are SQL, and slow to compile: they are there where something is kept for them.
fn operators(with_rules: bool) -> Vec<Box<dyn Operator>> {
    let intervals = ["10s", "1d"].map(|text| Interval::parse(text).expect("invariant: the interval is valid"));
    let mut bars = BarsSpec::new(INPUT.clone(), intervals.to_vec());
    bars.stream = topic("trades");
    let pumps: DetectorConfig =
        toml::from_str("name = \"pumps\"\ntype = \"rush_order\"\nstream = \"trades.in\"").expect("the detector is valid");
    let mut operators: Vec<Box<dyn Operator>> = vec![
        Box::new(BarsOperator::new(&bars).expect("the bars are valid")),
        summary("tumbling", WindowSpec::Tumbling { interval: "1m".into(), zone: "Asia/Kolkata".into() }),
        summary("hopping", WindowSpec::Hopping { size_us: 25 * SECOND, hop_us: 10 * SECOND }),
        summary("session", WindowSpec::Session { gap_us: 10 * SECOND }),
        summary("sliding", WindowSpec::Sliding { range_us: 10 * SECOND }),
        detectors::build(&pumps, &INPUT).expect("the detector is valid"),
    ];
    if with_rules {
        let (features, rules) = super::rules::specs(super::rules::RULES).expect("the rules are valid");
        let options = RulesOptions { hot_keys_max: 2, ..RulesOptions::default() };
        operators.push(Box::new(RulesOperator::new(RULES, INPUT.clone(), &features, &rules, options).expect("the rules are valid")));
    }
    operators
}

fn open(store: &SharedMemStore, with_rules: bool) -> Result<Shard, EngineError> {
    let dedupe = DedupeSpec { columns: vec!["trade_id".into()], horizon_us: 60 * SECOND, n_max: 10, output: SCHEMA.clone() };
    let spec = ShardSpec { schema: INPUT.clone(), partition: Partition(0), out_of_orderness_us: 5 * SECOND, dedupe: Some(dedupe) };
    Shard::open(spec, operators(with_rules), Box::new(store.clone()))
}

/// A store of any entries: an error that says which, or a shard that works on and leaves a state that it can read.
pub fn run(input: &[u8]) {
    let store = SharedMemStore::default();
    let entries = entries(input);
    let with_rules = entries.iter().any(|(key, _)| key.starts_with(RULES.as_bytes()));
    store.apply(Snapshot { entries });
    let mut shard = match open(&store, with_rules) {
        Ok(shard) => shard,
        Err(e) => return told(&e),
    };
    let position = shard.position();
    let base = position.commit.min(1 << 60);
    for step in [shard.process(&rows(&INPUT, base, batch())).map(drop), shard.decide(&Decision::Finish).map(drop)] {
        if let Err(e) = step {
            return told(&e);
        }
    }
    assert!(shard.position() >= position, "the position went backwards");
    store.apply(shard.snapshot());
    match open(&store, with_rules) {
        Ok(again) => assert_eq!((again.position(), again.watermark()), (shard.position(), shard.watermark())),
        Err(e) => told(&e),
    }
}

fn told(error: &EngineError) {
    assert!(!error.to_string().is_empty());
}

/// Pairs of key and value, each behind its length as a 16-bit number.
fn entries(mut rest: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut take = || {
        let (n, behind) = rest.split_first_chunk::<2>()?;
        let n = usize::from(u16::from_le_bytes(*n)).min(behind.len());
        let (bytes, behind) = behind.split_at(n);
        rest = behind;
        Some(bytes.to_vec())
    };
    let mut entries = Vec::new();
    while let (Some(key), Some(value)) = (take(), take()) {
        entries.push((key, Some(value)));
    }
    entries
}

fn bytes_of(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let parts = entries.iter().flat_map(|(key, value)| [key, value]);
    parts.flat_map(|part| [&(part.len() as u16).to_le_bytes()[..], part].concat()).collect()
}

/// The state after some trades, with windows open.
fn kept() -> Vec<(Vec<u8>, Vec<u8>)> {
    let store = SharedMemStore::default();
    let mut shard = open(&store, true).expect("an empty store is a new shard");
    let more = CSV.replace("t-1", "t-2").replace("09:00:00", "09:00:07");
    for (n, text) in [CSV, &more].into_iter().enumerate() {
        let rows = rows(&INPUT, 4 * n as u64, good(Format::Csv, text.as_bytes()).batch);
        shard.process(&rows).expect("good rows are processed");
    }
    store.apply(shard.snapshot());
    let held = store.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    held.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

pub fn seeds() -> Vec<Vec<u8>> {
    let kept = kept();
    let mut seeds: Vec<Vec<u8>> = kept.iter().map(|entry| bytes_of(std::slice::from_ref(entry))).collect();
    seeds.push(bytes_of(&kept));
    seeds
}

/// What features and rules keep of one key: read, it is written as the same value.
pub fn key_state(input: &[u8]) {
    let Ok(state) = KeyState::read(input) else { return };
    let mut written = Vec::new();
    state.write(&mut written);
    let again = KeyState::read(&written).expect("what was written can be read");
    let mut twice = Vec::new();
    again.write(&mut twice);
    assert_eq!(twice, written, "{state:?} is read as {again:?}");
}

pub fn key_state_seeds() -> Vec<Vec<u8>> {
    let of_rules = |entry: &&(Vec<u8>, Vec<u8>)| entry.0.starts_with(RULES.as_bytes());
    let mut seeds: Vec<Vec<u8>> = kept().iter().filter(of_rules).map(|(_, value)| value.clone()).collect();
    seeds.sort();
    assert!(!seeds.is_empty() && RECEIVED.0 > 0, "the rules kept something");
    seeds
}
