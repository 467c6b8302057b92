//! The promise of a shard: whatever the batches, snapshots, kills and restarts, it writes the bytes of one undisturbed run.

use crate::market::{SECOND, Trade, Written, any_trades, open, rows, schema};
use crate::summaries::{HOPPING, SESSION, SLIDING, TUMBLING, summary};
use mulgil_engine::bars::{BarsOperator, BarsSpec};
use mulgil_engine::calendar::Interval;
use mulgil_engine::decision::{Decided, Decision};
use mulgil_engine::dedupe::DedupeSpec;
use mulgil_engine::operator::Operator;
use mulgil_engine::shard::{Portion, Shard, ShardSpec};
use mulgil_engine::state::SharedMemStore;
use mulgil_engine::summary::SummaryOperator;
use mulgil_model::ids::Partition;
use mulgil_model::position::Position;
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::EventTime;
use proptest::prelude::*;
use std::sync::Arc;

/// How the shard under test is made, each time it starts.
#[derive(Debug, Clone)]
struct Setup {
    hot_max: usize,
    lateness_us: i64,
    dedupe: bool,
    /// Windows that one step should close.
    closes_max: usize,
}

impl Setup {
    fn input(&self) -> Arc<StreamSchema> {
        schema(if self.dedupe { "trades.in" } else { "trades" })
    }

    fn start(&self, store: &SharedMemStore) -> Shard {
        let input = self.input();
        let dedupe =
            DedupeSpec { columns: vec!["symbol".into(), "trade_id".into()], horizon_us: 60 * SECOND, n_max: 20, output: schema("trades") };
        let spec = ShardSpec {
            schema: Arc::clone(&input),
            partition: Partition(0),
            out_of_orderness_us: 5 * SECOND,
            dedupe: self.dedupe.then_some(dedupe),
        };
        open(spec, self.operators(&input), store).unwrap()
    }

    fn operators(&self, input: &Arc<StreamSchema>) -> Vec<Box<dyn Operator>> {
        let intervals = ["1s", "1m", "1h", "1d"].map(|i| Interval::parse(i).unwrap()).to_vec();
        let mut bars = BarsSpec::new(Arc::clone(input), intervals);
        bars.stream = schema("trades").stream.clone();
        (bars.zone, bars.allowed_lateness_us, bars.hot_max) = ("Asia/Seoul".into(), self.lateness_us, self.hot_max);
        let mut operators: Vec<Box<dyn Operator>> = vec![Box::new(BarsOperator::new(&bars).unwrap())];
        for (name, window) in [("tumbling", TUMBLING()), ("hopping", HOPPING()), ("session", SESSION()), ("sliding", SLIDING())] {
            let spec = summary(name, input.stream.as_str(), window, &["symbol", "side"], self.lateness_us, self.hot_max);
            operators.push(Box::new(SummaryOperator::new(&spec).unwrap()));
        }
        operators
    }
}

/// What happens on the way, in this order, again and again.
#[derive(Debug, Clone)]
enum Event {
    /// Take up to so many rows and commit what came out.
    Rows(usize),
    /// Take rows, and die before the commit.
    RowsThenKill(usize),
    Kill,
    /// Hand over a snapshot; it becomes durable before the next one, or at `Durable`, or never.
    Snapshot,
    Durable,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1usize..20).prop_map(Event::Rows),
        1 => (1usize..20).prop_map(Event::RowsThenKill),
        1 => Just(Event::Kill),
        2 => Just(Event::Snapshot),
        2 => Just(Event::Durable),
    ]
}

/// Decisions by the row before which they are taken; several may be taken at one row.
fn any_decisions() -> impl Strategy<Value = Vec<(usize, Decision)>> {
    let to = prop_oneof![0..60 * SECOND, 0..100 * 3600 * SECOND].prop_map(|t| EventTime(1_700_000_000 * SECOND + t));
    prop::collection::vec((0usize..300, to.prop_map(|to| Decision::AdvanceWatermark { to, at_most: None })), 0..6)
}

/// The world outside of the shard: the log, and the script of decisions.
struct World {
    setup: Setup,
    input: Arc<StreamSchema>,
    trades: Vec<Trade>,
    script: Vec<(usize, Decision)>,
    written: Written,
    /// Progress that was committed with the outputs: the shard's, and the script's.
    committed: Position,
    n_scripted: usize,
    /// Those of the script, and those that close some of many windows.
    decided: Vec<Decided>,
}

impl World {
    fn new(setup: &Setup, trades: &[Trade], decisions: &[(usize, Decision)]) -> Self {
        let mut script: Vec<_> = decisions.iter().map(|(at, d)| (*at % (trades.len() + 1), d.clone())).collect();
        script.sort_by_key(|(at, _)| *at);
        script.push((trades.len(), Decision::Finish));
        let (trades, written) = (trades.to_vec(), Written::default());
        let (input, committed) = (setup.input(), Position::default());
        Self { setup: setup.clone(), input, trades, script, written, committed, n_scripted: 0, decided: vec![] }
    }

    fn is_done(&self) -> bool {
        self.committed.commit == self.trades.len() as u64 && self.n_scripted == self.script.len()
    }

    /// One step of the binary: a decision when one is due, else rows up to the next decision. Commits unless killed.
    fn step(&mut self, shard: &mut Shard, n_rows: usize, killed: bool) {
        let (at, n_scripted) = (shard.position(), self.n_scripted + usize::from(self.is_script_next(shard)));
        let decision = self.decision(shard, n_rows);
        let outputs = match &decision {
            Some(decision) => shard.decide(decision).unwrap(),
            None => {
                let next = self.next_rows(shard, n_rows);
                let Portion::Rows(n) = shard.portion(&next, self.setup.closes_max) else { unreachable!("no decision") };
                // The log may hand over rows that were taken before.
                let (at, known) = (at.commit as usize, at.commit as usize % 3);
                shard.process(&rows(&self.input, (at - known) as u64, &self.trades[at - known..at + n])).unwrap()
            }
        };
        if !killed {
            self.written.add(outputs);
            self.committed = shard.position();
            // Where all windows are to close and only some did, the script's own decision is still to come.
            if decision.as_ref().is_some_and(|d| !matches!(d, Decision::AdvanceWatermark { to: EventTime(i64::MAX), .. })) {
                self.n_scripted = n_scripted;
            }
            self.decided.extend(decision.map(|decision| Decided { at, decision }));
        }
    }

    fn is_script_next(&self, shard: &Shard) -> bool {
        let at = shard.position().commit as usize;
        !shard.is_owing() && self.script.get(self.n_scripted).is_some_and(|(row, _)| *row == at)
    }

    fn next_rows(&self, shard: &Shard, n_rows: usize) -> Rows {
        let at = shard.position().commit as usize;
        let end = self.script.get(self.n_scripted).map_or(self.trades.len(), |(row, _)| *row);
        rows(&self.input, at as u64, &self.trades[at..end.min(at + n_rows)])
    }

    /// The script's next, or one that closes only some of many windows.
    fn decision(&self, shard: &Shard, n_rows: usize) -> Option<Decision> {
        let closes_max = self.setup.closes_max;
        let is_crowded = |to: i64| shard.n_due(to, closes_max.saturating_add(1)) > closes_max;
        let advance = |to: EventTime| Decision::AdvanceWatermark { to, at_most: is_crowded(to.micros()).then_some(closes_max) };
        if shard.is_owing() {
            return Some(advance(EventTime(shard.watermark())));
        }
        if self.is_script_next(shard) {
            return Some(match &self.script[self.n_scripted].1 {
                Decision::AdvanceWatermark { to, .. } => advance(*to),
                Decision::Finish if is_crowded(i64::MAX) => advance(EventTime(i64::MAX)),
                other => other.clone(),
            });
        }
        match shard.portion(&self.next_rows(shard, n_rows), closes_max) {
            Portion::CloseAhead(to) => Some(Decision::CloseAhead { to, at_most: closes_max }),
            Portion::Rows(_) => None,
        }
    }

    /// Opens the shard from what is durable and replays up to what was committed.
    fn recover(&self, store: &SharedMemStore, batch: usize) -> Shard {
        let mut shard = self.setup.start(store);
        while shard.position() < self.committed {
            let from = shard.position().commit as usize;
            let to = (from + batch).min(self.committed.commit as usize);
            shard.replay(&rows(&self.input, from as u64, &self.trades[from..to]), &self.decided).unwrap();
        }
        assert_eq!(shard.position(), self.committed);
        shard
    }
}

fn undisturbed(setup: &Setup, trades: &[Trade], decisions: &[(usize, Decision)]) -> World {
    let mut world = World::new(setup, trades, decisions);
    let mut shard = setup.start(&SharedMemStore::default());
    while !world.is_done() {
        world.step(&mut shard, usize::MAX / 2, false);
    }
    world
}

fn disturbed(setup: &Setup, trades: &[Trade], decisions: &[(usize, Decision)], events: &[Event]) -> World {
    let mut world = World::new(setup, trades, decisions);
    let mut store = SharedMemStore::default();
    let mut shard = setup.start(&store);
    let mut pending = None;
    for event in events.iter().cycle() {
        if world.is_done() {
            break;
        }
        match event {
            Event::Rows(n) => world.step(&mut shard, *n, false),
            Event::Snapshot => {
                pending.take().into_iter().for_each(|snapshot| store.apply(snapshot));
                pending = Some(shard.snapshot());
            }
            Event::Durable => pending.take().into_iter().for_each(|snapshot| store.apply(snapshot)),
            Event::Kill | Event::RowsThenKill(_) => {
                if let Event::RowsThenKill(n) = event {
                    world.step(&mut shard, *n, true);
                }
                // A snapshot that was not yet durable is gone, and so is the process that could have written to this store.
                pending = None;
                let durable = store.0.read().unwrap().clone();
                store = SharedMemStore(Arc::new(std::sync::RwLock::new(durable)));
                shard = world.recover(&store, 7);
            }
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_bytes_are_those_of_an_undisturbed_run(
        trades in any_trades(250),
        decisions in any_decisions(),
        mut events in prop::collection::vec(any_event(), 1..40),
        hot_max in prop::sample::select(vec![0usize, 3, 1000]),
        lateness_us in prop::sample::select(vec![0i64, 10 * SECOND, 3600 * SECOND]),
        dedupe: bool,
        closes_max in prop::sample::select(vec![1usize, 4, 30, usize::MAX]),
    ) {
        // Without this, nothing but kills could be on the list.
        events.push(Event::Rows(5));
        let setup = Setup { hot_max, lateness_us, dedupe, closes_max };
        let want = undisturbed(&Setup { closes_max: usize::MAX, ..setup.clone() }, &trades, &decisions);
        let got = disturbed(&setup, &trades, &decisions, &events);
        prop_assert!(!want.written.0.is_empty());
        prop_assert_eq!(got.written, want.written);
    }

    /// A process that died between the parts of a decision goes on with rows instead, as another decides when it is idle.
    #[test]
    fn what_a_decision_left_open_is_closed_before_the_next_row(
        trades in any_trades(120),
        split in 0usize..120,
        ahead in 0..90 * SECOND,
        closes_max in 0usize..40,
        hot_max in prop::sample::select(vec![0usize, 1000]),
    ) {
        let setup = Setup { hot_max, lateness_us: 3600 * SECOND, dedupe: false, closes_max };
        let split = split.min(trades.len());
        let written = |at_most: Option<usize>| {
            let (mut written, store, input) = (Written::default(), SharedMemStore::default(), setup.input());
            let mut shard = setup.start(&store);
            written.add(shard.process(&rows(&input, 0, &trades[..split])).unwrap());
            let to = EventTime(shard.watermark().saturating_add(ahead));
            written.add(shard.decide(&Decision::AdvanceWatermark { to, at_most }).unwrap());
            store.apply(shard.snapshot());
            let mut shard = setup.start(&store);
            written.add(shard.process(&rows(&input, split as u64, &trades[split..])).unwrap());
            written.add(shard.decide(&Decision::Finish).unwrap());
            written
        };
        prop_assert_eq!(written(Some(closes_max)), written(None));
    }
}
