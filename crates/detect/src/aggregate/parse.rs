//! Reads `name`, `name(column)` and `name(column, parameter)`.

use super::ewma::Decay;
use super::lag::LAG_ROWS_MAX;
use super::{Aggregate, check_span};
use crate::spelling;
use mulgil_model::time::parse_duration;

/// The longest aggregate text, in bytes.
const TEXT_BYTES_MAX: usize = 200;

/// Name, and how it is written, for errors.
const FORMS: [(&str, &str); 14] = [
    ("count", "count"),
    ("sum", "sum(column)"),
    ("avg", "avg(column)"),
    ("min", "min(column)"),
    ("max", "max(column)"),
    ("stddev", "stddev(column)"),
    ("ratio", "ratio(column)"),
    ("zscore", "zscore(column)"),
    ("ewma", "ewma(column, 0.05) or ewma(column, halflife '6h')"),
    ("lag", "lag(column), lag(column, 3), lag(column, '24h') or lag(column, '24h', '1h') with a tolerance"),
    ("distinct", "distinct(column)"),
    ("first_seen", "first_seen(column)"),
    ("time_since", "time_since"),
    ("count_distinct", "distinct(column)"),
];

/// The aggregate, and the name of its column if it has one.
pub fn parse_aggregate(text: &str) -> Result<(Aggregate, Option<String>), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("an aggregate may have {TEXT_BYTES_MAX} bytes, this one has {}", text.len()));
    }
    let (name, arguments) = split_call(text)?;
    let form = FORMS.iter().find(|(known, _)| *known == name).map(|(_, form)| *form).ok_or_else(|| unknown(name))?;
    let wrong = || format!("'{}' must be written {form}", text.trim());
    let column = arguments.first().map(|a| (*a).to_owned());
    let aggregate = match (name, &arguments[..]) {
        ("count", []) => Aggregate::Count,
        ("time_since", []) => Aggregate::TimeSince,
        ("sum", [_]) => Aggregate::Sum,
        ("avg", [_]) => Aggregate::Avg,
        ("min", [_]) => Aggregate::Min,
        ("max", [_]) => Aggregate::Max,
        ("stddev", [_]) => Aggregate::Stddev,
        ("ratio", [_]) => Aggregate::Ratio,
        ("zscore", [_]) => Aggregate::Zscore,
        ("distinct" | "count_distinct", [_]) => Aggregate::Distinct,
        ("first_seen", [_]) => Aggregate::FirstSeen,
        ("ewma", [_, decay]) => Aggregate::Ewma(parse_decay(decay).ok_or_else(wrong)??),
        ("lag", [_]) => Aggregate::LagRows { rows: 1 },
        ("lag", [_, by]) => parse_lag(by).ok_or_else(wrong)??,
        ("lag", [_, by, tolerance]) => parse_time_lag(by, tolerance).ok_or_else(wrong)??,
        _ => return Err(wrong()),
    };
    Ok((aggregate, column))
}

fn unknown(name: &str) -> String {
    let hint = spelling::hint(name, FORMS.iter().map(|(n, _)| *n));
    let all: Vec<&str> = FORMS.iter().take(FORMS.len() - 1).map(|(n, _)| *n).collect();
    format!("there is no aggregate '{}'{hint} (there are {})", spelling::shown(name), all.join(", "))
}

/// `ewma(price, 0.05)` -> ("ewma", ["price", "0.05"]).
fn split_call(text: &str) -> Result<(&str, Vec<&str>), String> {
    let text = text.trim();
    let Some((name, rest)) = text.split_once('(') else { return Ok((text, Vec::new())) };
    let inner = rest.strip_suffix(')').ok_or_else(|| format!("'{text}' has no closing ')'"))?;
    let arguments: Vec<&str> = inner.split(',').map(str::trim).collect();
    if arguments.iter().any(|a| a.is_empty() || a.contains(['(', ')'])) {
        return Err(format!("'{text}' must be written name(column) or name(column, parameter): a column cannot be an expression here"));
    }
    Ok((name.trim(), arguments))
}

fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('\'')?.strip_suffix('\'')
}

fn span(text: &str) -> Result<i64, String> {
    let micros = parse_duration(text).map_err(|e| e.to_string())?;
    check_span(micros, text)?;
    Ok(micros)
}

/// None: not of a known form; an error inside: of the form, but out of range.
fn parse_decay(text: &str) -> Option<Result<Decay, String>> {
    if let Some(rest) = text.strip_prefix("halflife") {
        let text = quoted(rest.trim())?;
        return Some(span(text).map(|micros| Decay::HalfLife { micros }));
    }
    let alpha: f64 = text.parse().ok()?;
    let valid = alpha > 0.0 && alpha <= 1.0;
    Some(if valid { Ok(Decay::Alpha(alpha)) } else { Err(format!("the weight of ewma must be above 0 and at most 1, it is {text}")) })
}

fn parse_lag(by: &str) -> Option<Result<Aggregate, String>> {
    if let Some(text) = quoted(by) {
        return Some(span(text).map(|micros| Aggregate::LagTime { micros, tolerance: micros }));
    }
    let rows: u64 = by.parse().ok()?;
    let valid = (1..=LAG_ROWS_MAX).contains(&rows);
    Some(if valid { Ok(Aggregate::LagRows { rows }) } else { Err(format!("lag must be 1 to {LAG_ROWS_MAX} rows, it is {rows}")) })
}

fn parse_time_lag(by: &str, tolerance: &str) -> Option<Result<Aggregate, String>> {
    let (by, tolerance) = (quoted(by)?, quoted(tolerance)?);
    let both = span(by).and_then(|micros| Ok((micros, span(tolerance)?)));
    Some(both.map(|(micros, tolerance)| Aggregate::LagTime { micros, tolerance }))
}
