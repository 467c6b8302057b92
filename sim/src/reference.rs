//! What the shards should have derived: every shard run once, undisturbed, in memory, over what its input topic and its decisions say.

use crate::mirror::{Mirror, Record};
use anyhow::{Context, Result, bail, ensure};
use mulgil::config::checked::Checked;
use mulgil::pipeline::plan::{Plan, PlannedShards};
use mulgil_engine::decision::Decided;
use mulgil_engine::output::Outputs;
use mulgil_engine::shard::{Shard, ShardSpec};
use mulgil_engine::state::SharedMemStore;
use mulgil_log::{Log, Owner};
use mulgil_model::avro::RowEncoder;
use mulgil_model::ids::{Offset, Topic, TopicPartition};
use mulgil_model::position::Position;
use std::collections::BTreeMap;

type Derived = BTreeMap<TopicPartition, Vec<Vec<u8>>>;

/// Compares every derived topic with the undisturbed run, up to where each shard says it has come. Returns the rows compared.
pub fn compare(config: &Checked, plan: &Plan, mirror: &Mirror, log: &dyn Log) -> Result<usize> {
    // The reference keeps everything in memory: how much the program keeps there must not show.
    let mut config = config.clone();
    config.state.hot_keys_max = 1_000_000;
    let mut derived = Derived::new();
    for planned in &plan.shards {
        for partition in (0..planned.partitions).map(mulgil_model::ids::Partition) {
            let input = TopicPartition::new(planned.input.stream.clone(), partition);
            let owner = Owner::new(&format!("shard/{}", input.topic))?;
            let come = log.progress(&owner, &input)?.unwrap_or_default();
            run(&config, planned, &input, come, mirror, &mut derived).with_context(|| format!("the undisturbed run of {input}"))?;
        }
    }
    let inputs: Vec<&Topic> = plan.shards.iter().filter(|s| s.level == 0).map(|s| &s.input.stream).collect();
    let mut n_rows = 0;
    for stream in plan.streams.iter().filter(|s| !inputs.contains(&&s.schema.stream)) {
        for partition in (0..stream.partitions).map(mulgil_model::ids::Partition) {
            let at = TopicPartition::new(stream.schema.stream.clone(), partition);
            same(&at, derived.get(&at).map_or(&[], Vec::as_slice), mirror.of(&at))?;
            n_rows += mirror.of(&at).len();
        }
    }
    Ok(n_rows)
}

fn same(at: &TopicPartition, want: &[Vec<u8>], got: &[Record]) -> Result<()> {
    for (i, (want, got)) in want.iter().zip(got).enumerate() {
        ensure!(
            *want == got.value,
            "{at} offset {i} differs from the undisturbed run: {} is not {}",
            String::from_utf8_lossy(&got.value).escape_debug(),
            String::from_utf8_lossy(want).escape_debug()
        );
    }
    let (n_want, n_got) = (want.len(), got.len());
    ensure!(n_want == n_got, "{at} has {n_got} derived rows, but {n_want} in the undisturbed run of the same input");
    Ok(())
}

fn run(
    config: &Checked,
    planned: &PlannedShards,
    input: &TopicPartition,
    come: Position,
    mirror: &Mirror,
    into: &mut Derived,
) -> Result<()> {
    let spec = ShardSpec {
        schema: planned.input.clone(),
        partition: input.partition,
        out_of_orderness_us: planned.out_of_orderness_us,
        dedupe: planned.dedupe.clone(),
    };
    let mut shard = Shard::open(spec, planned.operators(config)?, Box::new(SharedMemStore::default()))?;
    let decisions = TopicPartition::new(planned.decisions.clone(), input.partition);
    let decided = mirror.of(&decisions).iter().map(|r| serde_json::from_slice(&r.value)).collect::<Result<Vec<Decided>, _>>()?;
    let mut decided = decided.iter().peekable();
    while shard.position() < come {
        let at = shard.position();
        if let Some(next) = decided.next_if(|d| d.at == at) {
            let outputs = shard.decide(&next.decision)?;
            encode(outputs, input, into)?;
            continue;
        }
        let until = decided.peek().map_or(come.commit, |d| d.at.commit.min(come.commit));
        ensure!(until > at.commit, "the shard committed {come}, but there is no decision at {at}");
        let rows = mirror.rows(&planned.input, input, Offset(at.commit), (until - at.commit) as usize)?;
        ensure!(rows.len() as u64 == until - at.commit, "the shard committed {come}, but its input ends at {}", rows.next());
        encode(shard.process(&rows)?, input, into)?;
    }
    if let Some(extra) = decided.next() {
        bail!("a decision at {} is in the log, but the shard has come only to {come}", extra.at);
    }
    ensure!(shard.position() == come, "the shard committed {come}, the undisturbed run is at {}", shard.position());
    Ok(())
}

fn encode(outputs: Outputs, input: &TopicPartition, into: &mut Derived) -> Result<()> {
    for emitted in outputs.into_emitted() {
        let rows = RowEncoder::new(&emitted.schema)?.encode(&emitted.batch)?;
        let (bytes, ends) = (rows.bytes(), rows.offsets());
        let at = TopicPartition::new(emitted.schema.stream.clone(), input.partition);
        let values = into.entry(at).or_default();
        values.extend(ends.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()));
    }
    Ok(())
}
