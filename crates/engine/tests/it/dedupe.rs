//! De-duplication against the obvious computation.

use crate::market::{SECOND, Trade, any_trades, open, parse, rows, schema, spec, table};
use expect_test::expect;
use mulgil_engine::dedupe::DedupeSpec;
use mulgil_engine::error::EngineError;
use mulgil_engine::operator::{Input, Operator};
use mulgil_engine::output::Outputs;
use mulgil_engine::shard::{Shard, ShardSpec};
use mulgil_engine::state::{SharedMemStore, Snapshot, StateStore};
use mulgil_model::ids::Offset;
use mulgil_model::schema::StreamSchema;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};

fn dedupe(columns: &[&str], n_max: usize) -> DedupeSpec {
    DedupeSpec { columns: columns.iter().map(|c| (*c).to_owned()).collect(), horizon_us: 20 * SECOND, n_max, output: schema("trades") }
}

/// Notes the offsets and watermarks it is shown.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<(u64, i64)>>>);

impl Operator for Witness {
    fn name(&self) -> &str {
        "witness"
    }
    fn outputs(&self) -> Vec<Arc<StreamSchema>> {
        vec![]
    }
    fn on_rows(&mut self, input: &Input<'_>, _: &dyn StateStore, _: &mut Outputs) -> Result<(), EngineError> {
        let seen = (0..input.rows.len()).map(|i| (input.offset_of(i).0, input.watermark_at(i)));
        self.0.lock().unwrap().extend(seen);
        Ok(())
    }
    fn on_watermark(&mut self, _: i64, _: Offset, _: &dyn StateStore, _: &mut Outputs) -> Result<(), EngineError> {
        Ok(())
    }
    fn snapshot(&mut self, _: i64, _: &mut Snapshot) {}
}

fn start(dedupe: DedupeSpec, witness: &Witness, store: &SharedMemStore) -> Shard {
    let input = schema("trades.in");
    open(ShardSpec { dedupe: Some(dedupe), ..spec(&input) }, vec![Box::new(witness.clone())], store).unwrap()
}

#[test]
fn operators_see_first_rows_under_their_input_offsets() {
    let witness = Witness::default();
    let mut shard = start(dedupe(&["symbol", "trade_id"], 100), &witness, &SharedMemStore::default());
    let trades = parse(
        "1  A 100 1 B x
         1  A 100 1 B x
         2  B 100 1 B x
         30 A 100 1 B y
         1  A 100 1 B x
         2  B 100 1 B x",
    );
    let outputs = shard.process(&rows(&schema("trades.in"), 0, &trades)).unwrap();
    // The watermark is 25 at the end: A x of second 1 was forgotten at 21, B x of second 2 at 22.
    expect![[r#"
        A 00:00:01Z 100 1 BUY x null null
        B 00:00:02Z 100 1 BUY x null null
        A 00:00:30Z 100 1 BUY y null null
        A 00:00:01Z 100 1 BUY x null null
        B 00:00:02Z 100 1 BUY x null null
    "#]]
    .assert_eq(&table(outputs, "trades"));
    expect!["[(0, -9223372036854775808), (2, -4000000), (3, -3000000), (4, 25000000), (5, 25000000)]"]
        .assert_eq(&format!("{:?}", witness.0.lock().unwrap()));
    assert_eq!(shard.stats().n_duplicates, 1);
    assert_eq!(shard.outputs()[0].stream.as_str(), "trades");
}

#[test]
fn a_key_is_forgotten_when_the_watermark_reaches_its_horizon() {
    let n_duplicates = |seconds: &str| {
        let mut shard = start(dedupe(&["symbol", "trade_id"], 100), &Witness::default(), &SharedMemStore::default());
        let trades = parse(&format!("1 A 100 1 B x\n{seconds} B 100 1 B y\n1 A 100 1 B x"));
        shard.process(&rows(&schema("trades.in"), 0, &trades)).unwrap();
        shard.stats().n_duplicates
    };
    // 5 s behind it, the watermark stands just before second 21, and on it.
    assert_eq!((n_duplicates("25.999999"), n_duplicates("26")), (1, 0));
}

#[test]
fn a_key_that_came_again_outlives_its_first_sighting() {
    let mut shard = start(dedupe(&["symbol", "trade_id"], 100), &Witness::default(), &SharedMemStore::default());
    // X of second 10 is forgotten behind A of second 30, which waits at the front of the queue; both leave it when E comes.
    let trades = parse(
        "30 A 100 1 B a
         10 X 100 1 B x
         36 C 100 1 B c
         40 X 100 1 B x
         56 D 100 1 B d
         56 E 100 1 B e
         40 X 100 1 B x",
    );
    shard.process(&rows(&schema("trades.in"), 0, &trades)).unwrap();
    assert_eq!(shard.stats().n_duplicates, 1);
}

#[test]
fn a_deduplication_that_cannot_work_is_refused() {
    let say = |spec: DedupeSpec| {
        let (shard, store) = (crate::market::spec(&schema("trades.in")), SharedMemStore::default());
        open(ShardSpec { dedupe: Some(spec), ..shard }, vec![], &store).map(|_| ()).unwrap_err().to_string()
    };
    expect!["deduplication of stream 'trades': stream 'trades.in' has no column 'nope'"].assert_eq(&say(dedupe(&["nope"], 5)));
    expect!["deduplication of stream 'trades': give at least one column, a horizon, and room for at least one key"]
        .assert_eq(&say(dedupe(&[], 5)));
    expect!["deduplication of stream 'trades.in': 'trades.in' must have the columns of 'trades.in' and another name"]
        .assert_eq(&say(DedupeSpec { output: schema("trades.in"), ..dedupe(&["symbol"], 5) }));
}

/// First-seen rows, by looking back over a plain list of what is remembered.
fn reference(trades: &[Trade], n_max: usize) -> Vec<u64> {
    let (mut remembered, mut kept, mut latest): (Vec<&Trade>, Vec<u64>, Option<i64>) = (vec![], vec![], None);
    for (i, t) in trades.iter().enumerate() {
        let fresh = |other: &Trade| latest.is_none_or(|l| other.at + 20 * SECOND > l - 5 * SECOND);
        if remembered.iter().any(|r| (&r.symbol, &r.id) == (&t.symbol, &t.id) && fresh(r)) {
            continue;
        }
        kept.push(i as u64);
        remembered.push(t);
        while remembered.len() > n_max || remembered.first().is_some_and(|r| !fresh(r)) {
            remembered.remove(0);
        }
        latest = latest.max(Some(t.at));
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn equals_the_obvious_computation(mut trades in any_trades(200), whole: bool, n_max in 1usize..40, cuts in prop::collection::vec(1usize..30, 1..10)) {
        // On whole seconds, keys come again just when they are forgotten.
        trades.iter_mut().filter(|_| whole).for_each(|t| t.at -= t.at % SECOND);
        let (witness, store) = (Witness::default(), SharedMemStore::default());
        let (mut from, input) = (0, schema("trades.in"));
        for n in cuts.iter().cycle() {
            // A new shard for every batch: what it remembers comes from the store.
            let mut shard = start(dedupe(&["symbol", "trade_id"], n_max), &witness, &store);
            let to = (from + n).min(trades.len());
            shard.process(&rows(&input, from as u64, &trades[from..to])).unwrap();
            store.apply(shard.snapshot());
            prop_assert!(store.0.read().unwrap().len() <= n_max + 1);
            from = to;
            if from == trades.len() {
                break;
            }
        }
        let seen: Vec<u64> = witness.0.lock().unwrap().iter().map(|(offset, _)| *offset).collect();
        prop_assert_eq!(seen, reference(&trades, n_max));
    }
}
