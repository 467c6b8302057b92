//! Text in, text out: a config, a table of rows, and the alerts that come of them.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use mulgil_detect::error::DetectError;
use mulgil_detect::feature::FeatureSpec;
use mulgil_detect::rule::RuleSpec;
use mulgil_detect::rules::{RulesOperator, RulesOptions};
use mulgil_engine::operator::{Input, Operator, WATERMARK_NONE};
use mulgil_engine::output::Outputs;
use mulgil_engine::state::{MemStore, Snapshot};
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::rows::Rows;
use mulgil_model::schema::{Column, ColumnType, StreamSchema};
use mulgil_model::streams::{TradeDecimals, bars, trades};
use mulgil_model::time::{AppendTime, ReceiveTime};
use mulgil_model::{decimal, json};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// 2026-01-01T00:00:00Z.
pub const START: i64 = 1_767_225_600_000_000;
/// Watermarks trail the latest event time by five seconds.
pub const BOUND: i64 = 5_000_000;

const DECIMALS: TradeDecimals = TradeDecimals { price_scale: 2, quantity_scale: 4 };

pub fn trade_schema() -> Arc<StreamSchema> {
    let extra = vec![Column::optional("backfill", ColumnType::Bool)];
    Arc::new(trades(Topic::new("trades").unwrap(), DECIMALS, extra).unwrap())
}

pub fn bar_schema() -> Arc<StreamSchema> {
    Arc::new(bars(Topic::new("trades.bars.1m").unwrap(), DECIMALS).unwrap())
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    feature: BTreeMap<String, FeatureSpec>,
    #[serde(default)]
    rule: BTreeMap<String, RuleSpec>,
}

/// Features and rules of a TOML text; the sections' names become theirs.
pub fn specs(config: &str) -> (Vec<FeatureSpec>, Vec<RuleSpec>) {
    let config: Config = toml::from_str(config).unwrap();
    let features = config.feature.into_iter().map(|(name, spec)| FeatureSpec { name, ..spec }).collect();
    let rules = config.rule.into_iter().map(|(name, spec)| RuleSpec { name, ..spec }).collect();
    (features, rules)
}

pub fn operator(schema: &Arc<StreamSchema>, config: &str) -> Result<RulesOperator, DetectError> {
    let (features, rules) = specs(config);
    RulesOperator::new("rules", Arc::clone(schema), &features, &rules, RulesOptions { hot_keys_max: 2, ..RulesOptions::default() })
}

/// `symbol seconds price quantity [side] [backfill]`, `-` for null.
pub fn trade_rows(table: &str) -> Rows {
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).filter(|l: &Vec<&str>| !l.is_empty()).collect();
    let word = |i: usize| lines.iter().map(move |l| l.get(i).copied().filter(|w| *w != "-")).collect::<Vec<_>>();
    let times: Vec<i64> = word(1).iter().map(|s| START + (s.unwrap().parse::<f64>().unwrap() * 1e6).round() as i64).collect();
    let decimals = |i: usize, p: u8, s: i8| {
        let values: Vec<Option<i128>> = word(i).iter().map(|w| w.map(|w| decimal::parse(w, p, s).unwrap())).collect();
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(p, s).unwrap()) as ArrayRef
    };
    let text = |i: usize| Arc::new(StringArray::from(word(i))) as ArrayRef;
    let none = || Arc::new(StringArray::from(vec![None::<&str>; lines.len()])) as ArrayRef;
    let backfill: Vec<Option<bool>> = word(5).iter().map(|w| w.map(|w| w == "backfill")).collect();
    let columns = vec![
        text(0),
        times_array(&times),
        decimals(2, 12, 2),
        decimals(3, 16, 4),
        text(4),
        none(),
        none(),
        none(),
        Arc::new(BooleanArray::from(backfill)),
    ];
    rows(trade_schema(), columns)
}

/// Minute bars of one symbol: `minutes close [amount]`.
pub fn bar_rows(bars: &[(i64, &str)]) -> Rows {
    let n = bars.len();
    let starts: Vec<i64> = bars.iter().map(|(m, _)| START + m * 60_000_000).collect();
    let ends: Vec<i64> = starts.iter().map(|s| s + 60_000_000).collect();
    let price = || {
        let values: Vec<i128> = bars.iter().map(|(_, c)| decimal::parse(c, 12, 2).unwrap()).collect();
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(12, 2).unwrap()) as ArrayRef
    };
    let sums = |scale: i8| {
        Arc::new(Decimal128Array::from(vec![10i128.pow(scale as u32); n]).with_precision_and_scale(38, scale).unwrap()) as ArrayRef
    };
    let ints = || Arc::new(Int64Array::from(vec![1i64; n])) as ArrayRef;
    let symbol = Arc::new(StringArray::from(vec!["KRW-BTC"; n])) as ArrayRef;
    let columns = vec![
        symbol,
        times_array(&starts),
        times_array(&ends),
        price(),
        price(),
        price(),
        price(),
        sums(4),
        sums(6),
        sums(6),
        ints(),
        sums(4),
        sums(4),
        ints(),
    ];
    rows(bar_schema(), columns)
}

fn times_array(times: &[i64]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC"))
}

fn rows(schema: Arc<StreamSchema>, columns: Vec<ArrayRef>) -> Rows {
    let batch = RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap();
    let n = batch.num_rows();
    Rows { schema, partition: Partition(0), base: Offset(100), batch, appended: vec![AppendTime(0); n], received: vec![ReceiveTime(0); n] }
}

/// A shard in small: watermarks, snapshots after `snapshot_after` batches with a restart, batches ending at `cuts`.
pub fn run(make: &dyn Fn() -> Box<dyn Operator>, rows: &Rows, cuts: &[usize], restart: bool) -> Vec<RecordBatch> {
    let (mut operator, mut store, mut watermark, mut from) = (make(), MemStore::new(), WATERMARK_NONE, 0);
    let mut alerts = Vec::new();
    for to in cuts.iter().copied().chain([rows.len()]).filter(|to| *to <= rows.len()) {
        if to <= from {
            continue;
        }
        let part = rows.slice(from, to - from);
        let mut now = watermark;
        let marks = part.event_times().values().iter().map(|t| {
            now = now.max(t - BOUND);
            now
        });
        let watermarks: Vec<i64> = marks.collect();
        let mut out = Outputs::default();
        operator.on_rows(&Input::new(&part, watermark, &watermarks), &store, &mut out).unwrap();
        alerts.extend(out.into_emitted().into_iter().map(|e| e.batch));
        (watermark, from) = (now, to);
        let mut snapshot = Snapshot::default();
        operator.snapshot(watermark, &mut snapshot);
        store.apply(snapshot);
        if restart {
            operator = make();
        }
    }
    alerts
}

/// One line per alert with the columns named.
pub fn show(alerts: &[RecordBatch], columns: &[&str]) -> String {
    let mut out = String::new();
    for batch in alerts {
        for row in 0..batch.num_rows() {
            for (i, name) in columns.iter().enumerate() {
                out.push_str(if i > 0 { " | " } else { "" });
                let array = batch.column_by_name(name).unwrap();
                if let Some(text) = array.as_string_opt::<i32>() {
                    out.push_str(text.value(row));
                } else {
                    let kind = match array.data_type() {
                        arrow::datatypes::DataType::Int64 => ColumnType::Int,
                        arrow::datatypes::DataType::Float64 => ColumnType::Float,
                        _ => ColumnType::Timestamp,
                    };
                    json::write_value(&mut out, kind, array.as_ref(), row);
                }
            }
            out.push('\n');
        }
    }
    out
}

/// The alerts of `config` on trades, one line each with `columns`.
pub fn alerts_of(config: &str, table: &str, columns: &[&str]) -> String {
    let schema = trade_schema();
    let make = || Box::new(operator(&schema, config).unwrap()) as Box<dyn Operator>;
    let rows = trade_rows(table);
    let whole = show(&run(&make, &rows, &[], false), columns);
    // Every case runs twice: at once, and row by row with a restart after every row.
    let cuts: Vec<usize> = (0..rows.len()).collect();
    assert_eq!(whole, show(&run(&make, &rows, &cuts, true), columns), "batches and restarts must not show");
    whole
}
