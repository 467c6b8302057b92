//! The edges of a shard: what it refuses, skips and reports.

use crate::market::{SECOND, open, parse, rows, schema, spec, table};
use expect_test::expect;
use mulgil_engine::bars::{BarsOperator, BarsSpec};
use mulgil_engine::calendar::Interval;
use mulgil_engine::decision::{Decided, Decision};
use mulgil_engine::dedupe::DedupeSpec;
use mulgil_engine::operator::{Operator, WATERMARK_NONE};
use mulgil_engine::shard::{Portion, Shard, ShardSpec};
use mulgil_engine::state::SharedMemStore;
use mulgil_model::position::Position;
use mulgil_model::time::EventTime;

fn bars() -> Box<dyn Operator> {
    Box::new(BarsOperator::new(&BarsSpec::new(schema("trades"), vec![Interval::parse("1m").unwrap()])).unwrap())
}

fn start(store: &SharedMemStore) -> Shard {
    open(spec(&schema("trades")), vec![bars()], store).unwrap()
}

const TRADES: &str = "
    1 A 100 1 B
    2 A 101 1 B
    3 A 102 1 B
";

#[test]
fn positions_gaps_and_rows_that_were_taken_before() {
    let mut shard = start(&SharedMemStore::default());
    let batch = |base| rows(&schema("trades"), base, &parse(TRADES));
    assert_eq!((shard.position(), shard.watermark()), (Position::new(0, 0), WATERMARK_NONE));
    shard.process(&batch(0)).unwrap();
    assert_eq!((shard.position(), shard.watermark()), (Position::new(3, 0), -2 * SECOND));
    assert!(shard.process(&batch(0)).unwrap().is_empty());
    shard.process(&batch(1)).unwrap();
    assert_eq!((shard.position(), shard.stats().n_rows), (Position::new(4, 0), 4));
    expect!["rows of 'trades' begin at offset 7, expected 4"].assert_eq(&shard.process(&batch(7)).unwrap_err().to_string());
    shard.process(&batch(4)).expect("a refused batch changes nothing");
    shard.decide(&Decision::AdvanceWatermark { to: EventTime(30 * SECOND), at_most: None }).unwrap();
    shard.decide(&Decision::AdvanceWatermark { to: EventTime(20 * SECOND), at_most: None }).unwrap();
    assert_eq!((shard.position(), shard.watermark()), (Position::new(7, 2), 30 * SECOND));
    let elsewhere = rows(&schema("other"), 7, &parse(TRADES));
    expect!["rows of other/0 were handed to the shard of trades/0"].assert_eq(&shard.process(&elsewhere).unwrap_err().to_string());
}

#[test]
fn a_shard_goes_on_where_its_snapshot_was_taken() {
    let store = SharedMemStore::default();
    let mut shard = start(&store);
    shard.process(&rows(&schema("trades"), 0, &parse(TRADES))).unwrap();
    shard.decide(&Decision::AdvanceWatermark { to: EventTime(9 * SECOND), at_most: None }).unwrap();
    store.apply(shard.snapshot());
    let mut again = start(&store);
    assert_eq!((again.position(), again.watermark()), (Position::new(3, 1), 9 * SECOND));
    assert_eq!(again.stats().operators.n_open_windows, 1);
    let entries = again.snapshot().entries;
    assert_eq!(entries.len(), 1, "only the shard's own entry: nothing has changed");
}

#[test]
fn a_decision_in_the_wrong_place_is_refused() {
    let mut shard = start(&SharedMemStore::default());
    let decided = Decided { at: Position::new(1, 1), decision: Decision::Finish };
    let error = shard.replay(&rows(&schema("trades"), 0, &parse(TRADES)), &[decided]).unwrap_err();
    expect!["a recorded decision belongs to position 1.1, but the shard is at 1.0: rows or decisions are missing in between"]
        .assert_eq(&error.to_string());
}

#[test]
fn after_an_error_a_shard_refuses_to_go_on() {
    let mut shard = start(&SharedMemStore::default());
    let tell = |operator: &str| Decision::Tell { operator: operator.into(), message: "hello".into() };
    expect!["operator 'bars': takes no messages"].assert_eq(&shard.decide(&tell("bars")).unwrap_err().to_string());
    expect!["the shard has failed before: open it again from its store"]
        .assert_eq(&shard.decide(&Decision::Finish).unwrap_err().to_string());
    let mut shard = start(&SharedMemStore::default());
    expect!["operator 'nobody': there is none of this name"].assert_eq(&shard.decide(&tell("nobody")).unwrap_err().to_string());
}

#[test]
fn operators_have_names_of_their_own() {
    let error = open(spec(&schema("trades")), vec![bars(), bars()], &SharedMemStore::default()).map(drop).unwrap_err();
    expect!["operator 'bars': its name must be unique in the shard, not empty, and without a zero byte"].assert_eq(&error.to_string());
}

/// The last row closes two bars: the watermark before it is 236, so that the bar of 181 is open too.
const A_JUMP: &str = "
    1   A 100 1 B t1
    61  A 100 1 B t2
    121 A 100 1 B t3
    181 A 100 1 B t4
    241 A 100 1 B t5
    901 A 100 1 B t6
";

#[test]
fn many_windows_are_closed_ahead_of_the_row_that_closes_them() {
    let rows = |from: usize, to: usize| rows(&schema("trades"), from as u64, &parse(A_JUMP)[from..to]);
    let mut shard = start(&SharedMemStore::default());
    assert_eq!(shard.portion(&rows(0, 6), 5), Portion::Rows(6), "nothing is open yet");
    shard.process(&rows(0, 5)).unwrap();
    assert_eq!(shard.portion(&rows(5, 6), 2), Portion::Rows(1));
    assert_eq!(shard.portion(&rows(5, 6), 1), Portion::CloseAhead(EventTime(896 * SECOND)));
    let watermark = shard.watermark();
    let outputs = shard.decide(&Decision::CloseAhead { to: EventTime(896 * SECOND), at_most: 1 }).unwrap();
    expect![[r#"
        A 00:03:00Z 00:04:00Z 100 100 100 100 1 100 100 1 1 0 0
    "#]]
    .assert_eq(&table(outputs, "trades.bars.1m"));
    assert_eq!((shard.watermark(), shard.stats().operators.n_open_windows), (watermark, 1), "the watermark is the row's to move");
    assert_eq!(shard.portion(&rows(5, 6), 1), Portion::Rows(1));
}

#[test]
fn a_duplicate_of_another_time_closes_nothing_ahead() {
    let input = schema("trades.in");
    let dedupe = DedupeSpec { columns: vec!["trade_id".into()], horizon_us: 3600 * SECOND, n_max: 10, output: schema("trades") };
    let bars = BarsOperator::new(&BarsSpec::new(input.clone(), vec![Interval::parse("1m").unwrap()])).unwrap();
    let spec = ShardSpec { dedupe: Some(dedupe), ..spec(&input) };
    let mut shard = open(spec, vec![Box::new(bars)], &SharedMemStore::default()).unwrap();
    shard.process(&rows(&input, 0, &parse("1 A 100 1 B t1"))).unwrap();
    let next = |id: &str| rows(&input, 1, &parse(&format!("901 A 100 1 B {id}\n 902 A 100 1 B t9")));
    assert_eq!(shard.portion(&next("t1"), 0), Portion::Rows(1));
    assert_eq!(shard.portion(&next("t2"), 0), Portion::CloseAhead(EventTime(896 * SECOND)));
}
