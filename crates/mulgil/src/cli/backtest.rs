//! `mulgil backtest`: features, rules and detectors over the rows the log still has, with the same code as live, writing nothing.

use super::Where;
use super::log::open_journal;
use crate::config::load;
use crate::pipeline::plan::{Plan, PlannedShards};
use crate::pipeline::reader::StreamReader;
use crate::pipeline::schemas::Schemas;
use anyhow::{Result, ensure};
use arrow::array::AsArray;
use clap::Args;
use mulgil_engine::output::Emitted;
use mulgil_engine::shard::{Shard, ShardSpec};
use mulgil_engine::state::MemStore;
use mulgil_log::{Journal, Log, Seek};
use mulgil_model::ids::{Partition, TopicPartition};
use mulgil_model::json;
use mulgil_model::schema::StreamKind;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

#[derive(Debug, Args)]
pub struct BacktestArgs {
    #[command(flatten)]
    at: Where,
    /// Print every alert as JSON, one a line, instead of the counts.
    #[arg(long)]
    alerts: bool,
}

const BATCH_ROWS: usize = 32_768;

pub fn backtest(args: &BacktestArgs) -> Result<()> {
    let config = load(&args.at)?;
    let plan = Plan::new(&config)?;
    let journal: Arc<Journal> = Arc::new(open_journal(&args.at)?);
    let schemas = Arc::new(Schemas::read(&*journal)?);
    let (mut counts, mut n_rows) = (BTreeMap::new(), 0);
    for planned in &plan.shards {
        for partition in (0..planned.partitions).map(Partition) {
            let log = Arc::clone(&journal) as Arc<dyn Log>;
            let reader = StreamReader::new(log, Arc::clone(&schemas), Arc::clone(&planned.input));
            let shard = ShardSpec {
                schema: Arc::clone(&planned.input),
                partition,
                out_of_orderness_us: planned.out_of_orderness_us,
                dedupe: planned.dedupe.clone(),
            };
            let shard = Shard::open(shard, planned.operators(&config)?, Box::new(MemStore::default()))?;
            n_rows += run(shard, &reader, planned, partition, &journal, &mut |alerts| tell(alerts, args.alerts, &mut counts))?;
        }
    }
    ensure!(n_rows > 0, "the log holds no rows of the configured streams");
    if !args.alerts {
        println!("{:<32} {:<10} {:>8}", "rule", "severity", "alerts");
        counts.iter().for_each(|((rule, severity), n)| println!("{rule:<32} {severity:<10} {n:>8}"));
        println!("\n{n_rows} rows read; nothing was written");
    }
    Ok(())
}

/// One partition from its first row to its last.
fn run(
    mut shard: Shard,
    reader: &StreamReader,
    planned: &PlannedShards,
    partition: Partition,
    journal: &Journal,
    each: &mut dyn FnMut(&Emitted) -> Result<()>,
) -> Result<u64> {
    let at = TopicPartition::new(planned.input.stream.clone(), partition);
    let first = journal.seek(&at, Seek::First)?;
    let (mut from, mut n_rows) = (first, 0);
    loop {
        let mut rows = reader.read(partition, from, BATCH_ROWS)?;
        if rows.is_empty() {
            return Ok(n_rows);
        }
        from = rows.next();
        n_rows += rows.len() as u64;
        // A shard begins at offset 0; what retention has removed counts as if it had never been.
        rows.base = mulgil_model::ids::Offset(rows.base.0 - first.0);
        for emitted in shard.process(&rows)?.into_emitted() {
            if emitted.schema.kind == StreamKind::Alert {
                each(&emitted)?;
            }
        }
    }
}

fn tell(alerts: &Emitted, print: bool, counts: &mut BTreeMap<(String, String), u64>) -> Result<()> {
    let text = |name: &str| alerts.batch.column_by_name(name).map(|c| c.as_string::<i32>().clone());
    let (Some(rules), Some(severities)) = (text("rule"), text("severity")) else { return Ok(()) };
    for row in 0..alerts.batch.num_rows() {
        if print {
            let mut line = String::new();
            json::write_row(&mut line, &alerts.schema, &alerts.batch, row);
            writeln!(std::io::stdout().lock(), "{line}")?;
        }
        *counts.entry((rules.value(row).to_owned(), severities.value(row).to_owned())).or_default() += 1;
    }
    Ok(())
}
