//! The same rows give the same alerts, byte for byte, however they are batched and wherever the program is restarted.

use crate::harness::{operator, run, trade_rows, trade_schema};
use arrow::compute::concat_batches;
use mulgil_engine::operator::Operator;
use proptest::prelude::*;

const CONFIG: &str = r#"
    feature.n = { stream = "trades", agg = "count", window = "10s" }
    feature.mean = { stream = "trades", agg = "avg(price)", window = "1m", warm_up = 2 }
    feature.spread = { stream = "trades", agg = "stddev(price)", window = "last 5" }
    feature.ema = { stream = "trades", agg = "ewma(quantity, 0.2)" }
    feature.slow = { stream = "trades", agg = "ewma(price, halflife '30s')" }
    feature.before = { stream = "trades", agg = "lag(price)" }
    feature.ago = { stream = "trades", agg = "lag(price, '20s')" }
    feature.top = { stream = "trades", agg = "max(price)", window = "20s" }
    feature.sides = { stream = "trades", agg = "distinct(side)", window = "20s" }
    feature.new_side = { stream = "trades", agg = "first_seen(side)", warm_up = 1 }
    feature.gap = { stream = "trades", agg = "time_since", where = "side = 'BUY'" }
    feature.z = { stream = "trades", agg = "zscore(price)", window = "1h" }
    rule.often = { stream = "trades", when = "n >= 3", severity = "low", transitions_only = true }
    rule.away = { stream = "trades", when = "abs(price - mean) > spread or z > 2", severity = "medium", cooldown = "7s" }
    rule.more = { stream = "trades", when = "quantity >= 2 * ema and amount > 20", severity = "high", cooldown = "0" }
    rule.fresh = { stream = "trades", when = "new_side or gap > 5 or sides = 2", severity = "low", cooldown = "3s", mode = "shadow" }
    rule.steps = { stream = "trades", value = "price / ago - 1", levels = [-0.5, 0.25, 0.5, 1.0], severity = "high" }
    rule.risky = { stream = "trades", when = "quantity / (price - before) > 1 and price <= top and slow > 0", severity = "low", cooldown = "1s" }
"#;

fn rows() -> impl Strategy<Value = String> {
    let row = (0usize..4, -4i64..8, 1i64..40, 1i64..30, 0usize..3);
    prop::collection::vec(row, 1..80).prop_map(|rows| {
        let mut now = 50;
        let line = |(key, step, price, quantity, side): (usize, i64, i64, i64, usize)| {
            let at = now + step;
            now = now.max(at);
            format!("K{key} {at} {price} {quantity} {}\n", ["BUY", "SELL", "-"][side])
        };
        rows.into_iter().map(line).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn batches_and_restarts_do_not_show(table in rows(), mut cuts in prop::collection::vec(0usize..80, 0..8), restart: bool) {
        let schema = trade_schema();
        let make = || Box::new(operator(&schema, CONFIG).unwrap()) as Box<dyn Operator>;
        let rows = trade_rows(&table);
        cuts.sort_unstable();
        let together = |parts: Vec<arrow::array::RecordBatch>| parts.first().map(|p| concat_batches(&p.schema(), &parts).unwrap());
        prop_assert_eq!(together(run(&make, &rows, &[], false)), together(run(&make, &rows, &cuts, restart)));
    }
}

/// The layout of version 1 must keep opening. The fixture was written by this test; it changes only together with the version byte.
#[test]
fn stored_state_keeps_opening() {
    use mulgil_detect::key_state::KeyState;
    use mulgil_engine::state::{Snapshot, StateValue};
    let schema = trade_schema();
    let mut operator = operator(&schema, CONFIG).unwrap();
    let rows = trade_rows("A 0 10 1 BUY\nA 1 12 2 SELL\nA 2 11.5 3 -\nA 30 30 9 BUY\n");
    let mut out = mulgil_engine::output::Outputs::default();
    operator.on_rows(&mulgil_engine::operator::Input::new(&rows, 0, &[0; 4]), &mulgil_engine::state::MemStore::new(), &mut out).unwrap();
    let mut snapshot = Snapshot::default();
    operator.snapshot(0, &mut snapshot);
    let bytes = snapshot.entries[0].1.clone().unwrap();
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    expect_test::expect_file!["../../testdata/key-state-v1.hex"].assert_eq(&hex);
    let read = KeyState::read(&bytes).unwrap();
    let mut again = Vec::new();
    read.write(&mut again);
    assert_eq!(again, bytes);
    for n in 0..bytes.len() {
        assert!(KeyState::read(&bytes[..n]).is_err(), "cut at {n}");
    }
    assert_eq!(KeyState::read(&[9]).unwrap_err(), "its layout version is 9, this build reads 1");
}
