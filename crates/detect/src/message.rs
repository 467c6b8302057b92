//! Sentences for people, from templates: `{symbol}: quantity {quantity} is {quantity / volume_ema:1} x its average`.
//!
//! What stands in braces is an expression, as in a rule, with the number of decimals after a colon if wanted; `{key}` and `{state}` and
//! `{level}` are the alert's own. A brace itself is written twice.

use crate::expression::Expression;
use crate::scope::Scope;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use arrow::error::ArrowError;
use mulgil_model::decimal;
use mulgil_model::time::format_micros;

/// The longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 1_000;

/// The longest message, in bytes; a longer one is cut.
const MESSAGE_BYTES_MAX: usize = 2_000;

#[derive(Debug, Clone)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Key,
    State,
    Level,
    Value { expression: Box<Expression>, decimals: Option<usize> },
}

/// What a template can say beside the row's values.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub key: &'a str,
    pub state: &'a str,
    pub level: &'a str,
}

impl Template {
    pub fn parse(text: &str, scope: &Scope) -> Result<Self, String> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("a message may have {TEMPLATE_BYTES_MAX} bytes, this one has {}", text.len()));
        }
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                plain.push_str(brace);
                rest = after;
                continue;
            }
            let end = rest.find('}').filter(|_| brace == "{").ok_or_else(|| {
                format!("message '{text}' has a '{brace}' without its other half: write {brace}{brace} for the sign itself")
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(placeholder(&rest[..end], scope)?);
            rest = &rest[end + 1..];
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self { parts })
    }

    /// Whether the row's `amount` or a feature is read: the scope's indices that are.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        let expressions = self.parts.iter().filter_map(|p| if let Part::Value { expression, .. } = p { Some(expression) } else { None });
        expressions.flat_map(|e| e.columns().iter().copied())
    }

    /// The sentence for row `row` of a batch of the scope.
    pub fn render(&self, batch: &RecordBatch, row: usize, about: About<'_>) -> Result<String, ArrowError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Key => out.push_str(about.key),
                Part::State => out.push_str(about.state),
                Part::Level => out.push_str(about.level),
                Part::Value { expression, decimals } => {
                    let (value, _) = expression.evaluate(&batch.slice(row, 1))?;
                    write_value(&mut out, value.as_ref(), *decimals);
                }
            }
        }
        if out.len() > MESSAGE_BYTES_MAX {
            out.truncate((0..=MESSAGE_BYTES_MAX).rev().find(|n| out.is_char_boundary(*n)).unwrap_or(0));
            out.push('…');
        }
        Ok(out)
    }
}

fn placeholder(inner: &str, scope: &Scope) -> Result<Part, String> {
    match inner.trim() {
        "key" => return Ok(Part::Key),
        "state" => return Ok(Part::State),
        "level" => return Ok(Part::Level),
        _ => {}
    }
    let split = inner.rsplit_once(':').and_then(|(e, d)| Some((e, d.trim().parse::<usize>().ok().filter(|d| *d <= 20)?)));
    let (text, decimals) = split.map_or((inner, None), |(e, d)| (e, Some(d)));
    let expression = Expression::value(text, scope).map_err(|reason| format!("in the message, {reason}"))?;
    Ok(Part::Value { expression: Box::new(expression), decimals })
}

fn write_value(out: &mut String, value: &dyn Array, decimals: Option<usize>) {
    if value.is_null(0) {
        return out.push_str("unknown");
    }
    match value.data_type() {
        DataType::Utf8 => out.push_str(value.as_string::<i32>().value(0)),
        DataType::Boolean => out.push_str(if value.as_boolean().value(0) { "yes" } else { "no" }),
        DataType::Int64 => out.push_str(&grouped(&value.as_primitive::<Int64Type>().value(0).to_string())),
        DataType::UInt64 => out.push_str(&grouped(&value.as_primitive::<UInt64Type>().value(0).to_string())),
        DataType::Float64 => out.push_str(&float_text(value.as_primitive::<Float64Type>().value(0), decimals)),
        DataType::Decimal128(_, scale) => out.push_str(&decimal_text(value.as_primitive::<Decimal128Type>().value(0), *scale, decimals)),
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _) => {
            out.push_str(&format_micros(value.as_primitive::<TimestampMicrosecondType>().value(0)))
        }
        _ => out.push_str(&arrow::util::display::array_value_to_string(value, 0).unwrap_or_default()),
    }
}

/// Two decimals, or for small numbers four digits that count.
fn float_text(x: f64, decimals: Option<usize>) -> String {
    let decimals = decimals.unwrap_or_else(|| {
        if x == 0.0 || x.abs() >= 1.0 || !x.is_finite() { 2 } else { (3 - x.abs().log10().floor() as i32).clamp(2, 18) as usize }
    });
    let text = format!("{x:.decimals$}");
    grouped(if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text })
}

/// The exact value, or rounded half to even where decimals are given.
fn decimal_text(unscaled: i128, scale: i8, decimals: Option<usize>) -> String {
    let rounded = decimals
        .and_then(|d| i8::try_from(d).ok())
        .filter(|d| *d < scale)
        .and_then(|d| Some((decimal::divide(unscaled, scale, 1, 0, d)?, d)));
    let (unscaled, scale) = rounded.unwrap_or((unscaled, scale));
    grouped(&decimal::format(unscaled, scale))
}

/// `1234567.89` -> `1,234,567.89`.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |d| ("-", d));
    let (whole, fraction) = digits.find('.').map_or((digits, ""), |at| digits.split_at(at));
    if !whole.bytes().all(|b| b.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut out = sign.to_owned();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out.push_str(fraction);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        for (x, want) in [
            (61.304, "61.3"),
            (1234567.891, "1,234,567.89"),
            (0.0, "0"),
            (-0.000012345678, "-0.00001235"),
            (f64::NAN, "NaN"),
            (100.0, "100"),
        ] {
            assert_eq!(float_text(x, None), want);
        }
        assert_eq!(float_text(61.35, Some(1)), "61.4");
        assert_eq!(decimal_text(12_000_000, 2, None), "120,000");
        assert_eq!(decimal_text(-123_456_789, 8, None), "-1.23456789");
        assert_eq!(decimal_text(123_456_789, 8, Some(2)), "1.23");
        assert_eq!(grouped("999"), "999");
        assert_eq!(grouped("-1000"), "-1,000");
    }
}
