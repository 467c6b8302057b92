//! Aggregates of nullable columns of every number type, near the limits of 38 digits, by sorting all values of a window.

use crate::market::{SECOND, open, spec};
use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, i256};
use mulgil_engine::aggregate::Function;
use mulgil_engine::decision::Decision;
use mulgil_engine::output::Emitted;
use mulgil_engine::state::SharedMemStore;
use mulgil_engine::summary::{AggregateSpec, SummaryOperator, SummarySpec};
use mulgil_engine::window::WindowSpec;
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::rows::Rows;
use mulgil_model::schema::{Column, ColumnType, StreamKind, StreamSchema};
use mulgil_model::time::{AppendTime, ReceiveTime};
use proptest::prelude::*;
use std::sync::Arc;

const LIMIT: i128 = 10i128.pow(38);

#[derive(Debug, Clone)]
struct Reading {
    at: i64,
    /// decimal(38, 4)
    amount: Option<i128>,
    n: Option<i64>,
    ratio: Option<f64>,
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let amount = prop_oneof![
        3 => -1_000i128..1_000,
        2 => (0i128..100).prop_map(|n| LIMIT - 1 - n),
        2 => (0i128..100).prop_map(|n| n - LIMIT + 1),
        2 => -(LIMIT / 3)..LIMIT / 3,
        1 => (-(10i128.pow(33)))..10i128.pow(33),
    ];
    let n = prop_oneof![3 => -9i64..9, 1 => Just(i64::MAX), 1 => Just(i64::MIN), 1 => any::<i64>()];
    let ratio = prop_oneof![3 => (-20i32..20).prop_map(|n| f64::from(n) / 4.0), 1 => -1e9..1e9, 1 => -1e-9..1e-9];
    let maybe = |weight| prop::sample::select(vec![false, true, true, true][..weight].to_vec());
    (0i64..50, prop::option::weighted(0.8, amount), prop::option::weighted(0.8, n), prop::option::weighted(0.8, ratio), maybe(4))
        .prop_map(|(at, amount, n, ratio, float)| Reading { at: at * SECOND, amount, n, ratio: ratio.filter(|_| float) })
}

fn readings() -> Arc<StreamSchema> {
    let columns = vec![
        Column::required("device", ColumnType::Text),
        Column::required("event_time", ColumnType::Timestamp),
        Column::optional("amount", ColumnType::Decimal { precision: 38, scale: 4 }),
        Column::optional("n", ColumnType::Int),
        Column::optional("ratio", ColumnType::Float),
    ];
    Arc::new(StreamSchema::new(Topic::new("readings").unwrap(), StreamKind::Plain, columns, "device", "event_time").unwrap())
}

fn batch(schema: &Arc<StreamSchema>, base: usize, of: &[Reading]) -> Rows {
    let amounts: Decimal128Array = of.iter().map(|r| r.amount).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["d"; of.len()])),
        Arc::new(TimestampMicrosecondArray::from_iter_values(of.iter().map(|r| r.at)).with_timezone("UTC")),
        Arc::new(amounts.with_precision_and_scale(38, 4).unwrap()),
        Arc::new(of.iter().map(|r| r.n).collect::<Int64Array>()),
        Arc::new(of.iter().map(|r| r.ratio).collect::<Float64Array>()),
    ];
    Rows {
        schema: Arc::clone(schema),
        partition: Partition(0),
        base: Offset(base as u64),
        batch: RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap(),
        appended: vec![AppendTime(0); of.len()],
        received: vec![ReceiveTime(0); of.len()],
    }
}

/// Every function of every column, named `sum_amount` and so on.
fn everything(schema: &Arc<StreamSchema>, window: WindowSpec) -> SummarySpec {
    let aggregate = |column: &str, (name, function): (&str, Function)| AggregateSpec {
        name: format!("{name}_{column}"),
        function,
        column: Some(column.to_owned()),
    };
    SummarySpec {
        name: "all".into(),
        input: Arc::clone(schema),
        stream: schema.stream.clone(),
        group_by: vec!["device".into()],
        window,
        filter: None,
        aggregates: ["amount", "n", "ratio"].iter().flat_map(|c| Function::ALL.map(|f| aggregate(c, f))).collect(),
        allowed_lateness_us: 0,
        n_partitions: 1,
        hot_max: 0,
    }
}

/// One row with everything about the readings: the window is longer than they are. Restarted before every batch.
fn run(readings_of: &[Reading], n: usize, window: &WindowSpec) -> Emitted {
    let (schema, store) = (readings(), SharedMemStore::default());
    let start =
        || open(spec(&schema), vec![Box::new(SummaryOperator::new(&everything(&schema, window.clone())).unwrap())], &store).unwrap();
    for (i, part) in readings_of.chunks(n).enumerate() {
        let mut shard = start();
        assert!(
            shard.process(&batch(&schema, i * n, part)).unwrap().into_emitted().iter().all(|e| e.schema.stream.as_str() != "readings.all")
        );
        store.apply(shard.snapshot());
    }
    let mut emitted = start().decide(&Decision::Finish).unwrap().into_emitted();
    emitted.pop().unwrap()
}

/// What a column of exact numbers says: (time, arrival, value) in any order.
fn check_exact(e: &Emitted, row: usize, column: &str, scale: i8, mut values: Vec<(i64, usize, i128)>) {
    let get = |name: &str| e.batch.column(e.schema.index_of(&format!("{name}_{column}")).unwrap());
    let value = |name: &str| {
        let array = get(name);
        array.is_valid(row).then(|| {
            array
                .as_primitive_opt::<Decimal128Type>()
                .map_or_else(|| i128::from(array.as_primitive::<Int64Type>().value(row)), |a| a.value(row))
        })
    };
    values.sort_unstable();
    let wide = |v: i128| i256::from_i128(v);
    let n = values.len() as i128;
    let sum = values.iter().fold(i256::ZERO, |sum, (_, _, v)| sum.checked_add(wide(*v)).unwrap());
    let fits = |v: i256| v.to_i128().filter(|v| -LIMIT < *v && *v < LIMIT);
    assert_eq!(value("count"), Some(n));
    let sum_fits = if n > 0 { fits(sum) } else { None };
    assert_eq!(value("sum"), sum_fits, "sum of {column}");
    assert_eq!(value("avg"), sum_fits.and_then(|_| fits(average(sum, n))), "avg of {column}");
    assert_eq!(value("min"), values.iter().map(|v| v.2).min());
    assert_eq!(value("max"), values.iter().map(|v| v.2).max());
    assert_eq!(value("first"), values.first().map(|v| v.2));
    assert_eq!(value("last"), values.last().map(|v| v.2));
    let spread = get("stddev");
    if let Some(got) = spread.is_valid(row).then(|| spread.as_primitive::<Float64Type>().value(row)) {
        let mean = sum.to_string().parse::<f64>().unwrap() / n as f64;
        let largest = values.iter().map(|v| v.2.unsigned_abs()).max().unwrap() as f64;
        let squares: f64 = values.iter().map(|v| (v.2 as f64 - mean).powi(2)).sum();
        let want = (squares / (n - 1) as f64).sqrt() / 10f64.powi(scale.into());
        assert!((got - want).abs() <= 1e-9 * (largest / 10f64.powi(scale.into())).max(want), "stddev of {column}: {got}, not {want}");
    } else {
        // 256 bits do not suffice for n x the sum of squares of the largest values, and a deviation needs two.
        assert!(n < 2 || values.iter().any(|v| v.2.unsigned_abs() > 10u128.pow(36)), "stddev of {column} is missing");
    }
}

/// sum / n with four more decimals, half to even.
fn average(sum: i256, n: i128) -> i256 {
    let (n, two, one) = (i256::from_i128(n), i256::from_i128(2), i256::from_i128(1));
    let scaled = sum.checked_mul(i256::from_i128(10_000)).unwrap();
    let (mut below, mut rest) = (scaled / n, scaled % n);
    if rest < i256::ZERO {
        (below, rest) = (below - one, rest + n);
    }
    let up = rest * two > n || (rest * two == n && below % two != i256::ZERO);
    if up { below + one } else { below }
}

fn check_floats(e: &Emitted, mut values: Vec<(i64, usize, f64)>) {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let only: Vec<f64> = values.iter().map(|v| v.2).collect();
    let n = only.len() as f64;
    let (sum, scale) = (only.iter().sum::<f64>(), only.iter().fold(1e-12, |m: f64, v| m.max(v.abs())));
    let spread = (only.iter().map(|v| (v - sum / n).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let some = |v: f64| (n > 0.0).then_some(v);
    let want = [
        ("sum", some(sum)),
        ("avg", some(sum / n)),
        ("min", only.iter().copied().reduce(f64::min)),
        ("max", only.iter().copied().reduce(f64::max)),
        ("stddev", (n > 1.0).then_some(spread)),
        ("first", only.first().copied()),
        ("last", only.last().copied()),
    ];
    for (name, want) in want {
        let array = e.batch.column(e.schema.index_of(&format!("{name}_ratio")).unwrap());
        let got = array.is_valid(0).then(|| array.as_primitive::<Float64Type>().value(0));
        let near = match (got, want) {
            (Some(g), Some(w)) => (g - w).abs() <= 1e-9 * scale * n.max(1.0),
            (g, w) => g == w,
        };
        assert!(near, "{name} of {only:?}: {got:?}, not {want:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn aggregates_are_what_they_say(
        mut all in prop::collection::vec(any_reading(), 1..24),
        n in 1usize..24,
        kind in 0usize..3,
    ) {
        // All within five seconds of the latest: whatever comes when, nothing is late. Sliding: one window looks back on all of them.
        let window = match kind {
            0 => WindowSpec::Tumbling { interval: "1m".into(), zone: "UTC".into() },
            1 => WindowSpec::Session { gap_us: 10 * SECOND },
            _ => WindowSpec::Sliding { range_us: 10 * SECOND },
        };
        all.iter_mut().for_each(|r| r.at = 30 * SECOND + r.at / 10);
        let e = run(&all, n, &window);
        // Of sliding windows the last one that is published.
        let row = e.batch.num_rows() - 1;
        let e = Emitted { schema: e.schema.clone(), batch: e.batch.slice(row, 1) };
        let of = |pick: fn(&Reading) -> Option<i128>| all.iter().enumerate().filter_map(|(i, r)| Some((r.at, i, pick(r)?))).collect();
        check_exact(&e, 0, "amount", 4, of(|r| r.amount));
        check_exact(&e, 0, "n", 0, of(|r| r.n.map(i128::from)));
        check_floats(&e, all.iter().enumerate().filter_map(|(i, r)| Some((r.at, i, r.ratio?))).collect());
    }
}
