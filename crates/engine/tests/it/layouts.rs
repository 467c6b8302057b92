//! What a shard keeps must stay readable: the state of every older version is a fixture that opens and goes on.

use crate::market::{SECOND, open, parse, rows, schema, spec, table};
use crate::summaries::{HOPPING, SESSION, SLIDING, TUMBLING, summary};
use expect_test::{expect, expect_file};
use mulgil_engine::bars::{BarsOperator, BarsSpec};
use mulgil_engine::calendar::Interval;
use mulgil_engine::decision::Decision;
use mulgil_engine::dedupe::DedupeSpec;
use mulgil_engine::operator::Operator;
use mulgil_engine::shard::{Shard, ShardSpec};
use mulgil_engine::state::{SharedMemStore, Snapshot};
use mulgil_engine::summary::SummaryOperator;
use std::fmt::Write;

fn start(store: &SharedMemStore) -> Shard {
    let input = schema("trades.in");
    let mut bars = BarsSpec::new(input.clone(), vec![Interval::parse("10s").unwrap(), Interval::parse("1d").unwrap()]);
    bars.stream = schema("trades").stream.clone();
    let mut operators: Vec<Box<dyn Operator>> = vec![Box::new(BarsOperator::new(&bars).unwrap())];
    for (name, window) in [("tumbling", TUMBLING()), ("hopping", HOPPING()), ("session", SESSION()), ("sliding", SLIDING())] {
        operators.push(Box::new(SummaryOperator::new(&summary(name, "trades.in", window, &["symbol"], 60 * SECOND, 100)).unwrap()));
    }
    let dedupe = DedupeSpec { columns: vec!["trade_id".into()], horizon_us: 60 * SECOND, n_max: 10, output: schema("trades") };
    open(ShardSpec { dedupe: Some(dedupe), ..spec(&input) }, operators, store).unwrap()
}

const BEFORE: &str = "
    1  A 100 1 B x1
    2  B  50 2 S x2
    2  A 110 1 S x3
    19 A 105 1 _ x4
    2  B  50 2 S x2
";

const AFTER: &str = "
    19 A 105 1 _ x4
    3  A 107 1 B x5
    20 B  55 1 B x6
    31 A 100 1 B x7
";

/// One entry per line: key and value, in hexadecimal where they are not plain text.
fn dump(store: &SharedMemStore) -> String {
    let mut text = String::new();
    for (key, value) in store.0.read().unwrap().iter() {
        for byte in key {
            let plain = byte.is_ascii_alphanumeric() || b"._".contains(byte);
            if plain { text.push(char::from(*byte)) } else { write!(text, "%{byte:02x}").unwrap() }
        }
        text.push(' ');
        value.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}

fn restore(text: &str) -> SharedMemStore {
    let byte = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
    let store = SharedMemStore::default();
    for line in text.lines() {
        let (key, value) = line.split_once(' ').unwrap();
        let mut parts = key.split('%');
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(byte(&part[..2]));
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        let value = (0..value.len() / 2).map(|i| byte(&value[2 * i..2 * i + 2])).collect();
        store.apply(Snapshot { entries: vec![(bytes, Some(value))] });
    }
    store
}

#[test]
fn the_present_layout_is_the_fixture() {
    let store = SharedMemStore::default();
    let mut shard = start(&store);
    shard.process(&rows(&schema("trades.in"), 0, &parse(BEFORE))).unwrap();
    store.apply(shard.snapshot());
    assert_eq!(dump(&restore(&dump(&store))), dump(&store));
    expect_file!["../../testdata/state-v4.txt"].assert_eq(&dump(&store));
}

/// Version 2 keeps closed windows in blocks, version 3 the times at which open ones close, version 4 is refused by older builds.
#[test]
fn a_state_of_every_version_opens_and_goes_on() {
    for state in [
        include_str!("../../testdata/state-v1.txt"),
        include_str!("../../testdata/state-v2.txt"),
        include_str!("../../testdata/state-v3.txt"),
        include_str!("../../testdata/state-v4.txt"),
    ] {
        opens_and_goes_on(state);
    }
}

/// An older build went on with a state of version 3, whose lists it did not know: windows have closed and others opened since.
#[test]
fn a_state_that_an_older_build_has_gone_on_with_opens_and_goes_on() {
    let [before, after] = [include_str!("../../testdata/state-v2.txt"), include_str!("../../testdata/state-v3.txt")];
    let is_list = |line: &&str| line.contains("%00timers%00");
    let mut gone_on: String = before.lines().map(|line| format!("{line}\n")).collect();
    let lists: Vec<&str> = after.lines().filter(is_list).collect();
    assert!(lists.len() > 3);
    for line in lists {
        // As they were before: other windows at other times.
        writeln!(gone_on, "{}", line.replace("%01", "%02")).unwrap();
    }
    opens_and_goes_on(&gone_on);
}

fn opens_and_goes_on(state: &str) {
    let mut shard = start(&restore(state));
    let mut text = format!("position {}, watermark {}\n", shard.position(), shard.watermark());
    let mut outputs = vec![shard.process(&rows(&schema("trades.in"), 5, &parse(AFTER))).unwrap()];
    outputs.push(shard.decide(&Decision::Finish).unwrap());
    let emitted: Vec<_> = outputs.into_iter().flat_map(|o| o.into_emitted()).collect();
    for stream in ["trades", "trades.bars.10s", "trades.bars.1d", "trades.tumbling", "trades.hopping", "trades.session", "trades.sliding"] {
        let mut of_stream = mulgil_engine::output::Outputs::default();
        emitted.iter().for_each(|e| of_stream.emit(&e.schema, e.batch.clone()));
        writeln!(text, "{stream}\n{}", table(of_stream, stream)).unwrap();
    }
    expect![[r#"
        position 5.0, watermark 14000000
        trades
        A 00:00:03Z 107 1 BUY x5 null null
        B 00:00:20Z 55 1 BUY x6 null null
        A 00:00:31Z 100 1 BUY x7 null null

        trades.bars.10s
        A 00:00:00Z 00:00:10Z 100 110 100 107 3 317 105.666667 3 2 1 1
        A 00:00:10Z 00:00:20Z 105 105 105 105 1 105 105 1 0 0 0
        B 00:00:20Z 00:00:30Z 55 55 55 55 1 55 55 1 1 0 0
        A 00:00:30Z 00:00:40Z 100 100 100 100 1 100 100 1 1 0 0

        trades.bars.1d
        A 00:00:00Z 1970-01-02T00:00:00Z 100 110 100 100 5 522 104.4 5 3 1 0
        B 00:00:00Z 1970-01-02T00:00:00Z 50 55 50 55 3 155 51.666667 2 1 2 0

        trades.tumbling
        A 00:00:00Z 00:01:00Z 5 4 5 104.4 100 110 4.39317652729776 100 BUY 0
        B 00:00:00Z 00:01:00Z 2 2 3 52.5 50 55 3.5355339059327378 50 BUY 0

        trades.hopping
        A 1969-12-31T23:59:40Z 00:00:05Z 3 3 3 105.666667 100 110 5.131601439446883 100 BUY 1
        A 1969-12-31T23:59:50Z 00:00:15Z 3 3 3 105.666667 100 110 5.131601439446883 100 BUY 0
        B 1969-12-31T23:59:50Z 00:00:15Z 1 1 2 50 50 50 null 50 SELL 0
        A 00:00:00Z 00:00:25Z 4 3 4 105.5 100 110 4.203173404306163 100 BUY 0
        B 00:00:00Z 00:00:25Z 2 2 3 52.5 50 55 3.5355339059327378 50 BUY 0
        A 00:00:10Z 00:00:35Z 2 1 2 102.5 100 105 3.5355339059327378 105 BUY 0
        B 00:00:10Z 00:00:35Z 1 1 1 55 55 55 null 55 BUY 0
        A 00:00:20Z 00:00:45Z 1 1 1 100 100 100 null 100 BUY 0
        B 00:00:20Z 00:00:45Z 1 1 1 55 55 55 null 55 BUY 0
        A 00:00:30Z 00:00:55Z 1 1 1 100 100 100 null 100 BUY 0

        trades.session
        A 00:00:01Z 00:00:13Z 3 3 3 105.666667 100 110 5.131601439446883 100 BUY 1
        A 00:00:19Z 00:00:29Z 1 0 1 105 105 105 null 105 null 0
        B 00:00:20Z 00:00:30Z 1 1 1 55 55 55 null 55 BUY 0
        A 00:00:31Z 00:00:41Z 1 1 1 100 100 100 null 100 BUY 0

        trades.sliding
        A 00:00:09Z 00:00:19Z 1 0 1 105 105 105 null 105 null 0
        B 00:00:10Z 00:00:20Z 1 1 1 55 55 55 null 55 BUY 0
        A 00:00:21Z 00:00:31Z 1 1 1 100 100 100 null 100 BUY 0

    "#]]
    .assert_eq(&text);
}
