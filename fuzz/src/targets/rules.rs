//! Features and rules as people write them.

use crate::trades::{SCHEMA, batch, rows};
use mulgil_detect::aggregate::Window;
use mulgil_detect::expression::Expression;
use mulgil_detect::feature::FeatureSpec;
use mulgil_detect::rule::RuleSpec;
use mulgil_detect::rules::{Reloaded, RulesOperator, RulesOptions};
use mulgil_detect::scope::Scope;
use mulgil_engine::operator::{Input, Operator, WATERMARK_NONE};
use mulgil_engine::output::Outputs;
use mulgil_engine::state::MemStore;
use mulgil_model::ids::Offset;

/// Every aggregate, and every kind of rule.
pub const RULES: &str = r#"{"features":[
{"name":"n","stream":"trades.in","agg":"count","window":"10s"},
{"name":"total","stream":"trades.in","agg":"sum(quantity)","window":"last 20"},
{"name":"mean","stream":"trades.in","agg":"avg(price)","window":"1h","where":"side = 'BUY'"},
{"name":"low","stream":"trades.in","agg":"min(price)","window":"60s","including":true},
{"name":"spread","stream":"trades.in","agg":"stddev(price)","window":"1h"},
{"name":"share","stream":"trades.in","agg":"ratio(price)","window":"1h"},
{"name":"z","stream":"trades.in","agg":"zscore(price)","window":"1h"},
{"name":"slow","stream":"trades.in","agg":"ewma(quantity, 0.05)","warm_up":2},
{"name":"half","stream":"trades.in","agg":"ewma(price, halflife '6h')"},
{"name":"before","stream":"trades.in","agg":"lag(price)"},
{"name":"day","stream":"trades.in","agg":"lag(price, '24h', '1h')"},
{"name":"sides","stream":"trades.in","agg":"distinct(side)","window":"24h"},
{"name":"seen","stream":"trades.in","agg":"first_seen(market)"},
{"name":"since","stream":"trades.in","agg":"time_since"}],
"rules":[
{"name":"big","stream":"trades.in","when":"quantity > 5 and amount >= case currency when 'KRW' then 1e2 else 0.5 end","cooldown":"1m"},
{"name":"jump","stream":"trades.in","when":"abs(price - before) > 0.05 * before","message":"{key}: {before} -> {price}"},
{"name":"rapid","stream":"trades.in","when":"n >= 1","transitions_only":true,"severity":"high","weight":0.5},
{"name":"steps","stream":"trades.in","value":"price / mean","levels":[0.5,1.0,2.0],"mode":"shadow"}]}"#;

/// Features and rules of a reload's JSON, which is the form that a decision keeps of them.
pub fn specs(json: &str) -> Result<(Vec<FeatureSpec>, Vec<RuleSpec>), serde_json::Error> {
    serde_json::from_str::<Reloaded>(json).map(|r| (r.features, r.rules))
}

/// Definitions are refused by name, or compute: the same alerts whether rows come together or one by one.
pub fn rules(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok((features, rules)) = specs(text) else { return };
    let make =
        || RulesOperator::new("rules", SCHEMA.clone(), &features, &rules, RulesOptions { hot_keys_max: 2, ..RulesOptions::default() });
    let (mut whole, mut single) = match (make(), make()) {
        (Ok(whole), Ok(single)) => (whole, single),
        (Err(e), _) | (_, Err(e)) => return assert!(!e.to_string().is_empty()),
    };
    let n = batch().num_rows();
    let together = alerts(&mut whole, &[(0, n)]);
    let apart = alerts(&mut single, &(0..n).map(|row| (row, 1)).collect::<Vec<_>>());
    assert_eq!(together, apart, "alerts depend on the batch");
}

/// The alerts of some runs of rows, as text, or the error that ended them.
fn alerts(operator: &mut RulesOperator, runs: &[(usize, usize)]) -> String {
    let (store, mut text) = (MemStore::new(), String::new());
    for (from, n) in runs {
        let rows = rows(&SCHEMA, *from as u64, batch().slice(*from, *n));
        let watermarks = vec![WATERMARK_NONE; *n];
        let mut out = Outputs::default();
        if let Err(e) = operator.on_rows(&Input::new(&rows, WATERMARK_NONE, &watermarks), &store, &mut out) {
            return format!("error {e}");
        }
        assert!(rows.base >= Offset(0));
        for emitted in out.into_emitted() {
            (0..emitted.batch.num_rows()).for_each(|row| {
                mulgil_model::json::write_row(&mut text, &emitted.schema, &emitted.batch, row);
                text.push('\n');
            });
        }
    }
    text
}

pub fn rules_seeds() -> Vec<Vec<u8>> {
    let all: serde_json::Value = serde_json::from_str(&RULES.replace("trades.in", "trades")).expect("invariant: it is JSON");
    let one =
        |i: usize, j: usize| serde_json::json!({"features": [all["features"][i]], "rules": [all["rules"][j]]}).to_string().into_bytes();
    vec![all.to_string().into_bytes(), one(0, 2), one(2, 3), one(9, 1), one(8, 0)]
}

/// An expression is refused in words, or it computes a value per row, whatever rows stand beside it; its normal form says the same.
pub fn expression(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = (Window::parse(text), mulgil_detect::aggregate::parse_aggregate(text));
    let scope = Scope::of_row(&SCHEMA);
    let condition = Expression::condition(text, &scope);
    let expression = match Expression::value(text, &scope) {
        Ok(expression) => expression,
        Err(e) => return assert!(!e.is_empty() && e.len() < 16_384 && condition.is_err(), "{} bytes of error", e.len()),
    };
    serde_json::from_str::<serde_json::Value>(&expression.thresholds()).expect("thresholds are JSON");
    let rows = scope.batch(&batch(), true, vec![]).expect("the scope fits its rows");
    let (values, n_failed) = expression.evaluate(&rows).expect("a row that fails is null");
    assert_eq!(values.len(), rows.num_rows());
    assert!(n_failed <= rows.num_rows() as u64);
    for row in 0..rows.num_rows() {
        let (alone, _) = expression.evaluate(&rows.slice(row, 1)).expect("a row that fails is null");
        assert_eq!(format!("{:?}", alone), format!("{:?}", values.slice(row, 1)), "row {row} depends on its neighbours");
    }
    let again = Expression::value(expression.text(), &scope).expect("the normal form can be read");
    assert_eq!(again.text(), expression.text(), "the normal form is not one");
}

pub fn expression_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "quantity > 500",
        "amount >= case currency when 'KRW' then 150000000 else 150000 end",
        "abs(price - 3.5) > 0.05 * price and (side = 'BUY' or market is null)",
        "price / (quantity - 10) > 1e2",
        "coalesce(seq, 0) % 7 in (1, 2, 3) and not block",
        "upper(symbol) like 'KRW-%' or length(trade_id) between 1 and 4",
        "event_time >= timestamp '2026-11-20T00:00:00Z'",
        "sum(price, 3)",
        "last 20",
        "ewma(quantity, halflife '6h')",
    ];
    texts.map(|t| t.as_bytes().to_vec()).to_vec()
}
