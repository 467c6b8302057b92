//! One condition on a row: a column compared with constants, exactly and by the column's own order.

use crate::datum::Datum;
use crate::envelope::text::push_text;
use crate::envelope::unscaled::Parts;
use crate::table::Kind;
use mulgil_model::time::{EpochUnit, parse_micros};
use std::cmp::Ordering;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub column: String,
    pub comparison: Comparison,
}

/// Constants are written as in the config: `12.50`, `BUY`, `true`, `2026-11-22`, `2026-11-22T09:00:00`, `2026-11-22T09:00:00+09:00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    IsNull,
    IsNotNull,
    /// One of them.
    In(Vec<String>),
    NotIn(Vec<String>),
    Less(String),
    AtMost(String),
    Greater(String),
    AtLeast(String),
}

/// A condition made ready for its column's kind.
pub(super) struct Test {
    comparison: Kindless,
    operands: Vec<Operand>,
}

enum Kindless {
    Null(bool),
    /// True: one of them; false: none of them.
    Among(bool),
    /// The orders that hold.
    Order(&'static [Ordering]),
}

/// A constant of a kind with an order.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// Plain decimal notation.
    Number(Vec<u8>),
    Float(f64),
    Text(Vec<u8>),
    Bool(bool),
    Int(i64),
}

impl Test {
    /// Fails with the constant and what is wrong with it.
    pub fn of(condition: &Condition, kind: &Kind) -> Result<Self, (String, &'static str)> {
        use Ordering::{Equal, Greater, Less};
        let (comparison, texts) = match &condition.comparison {
            Comparison::IsNull => (Kindless::Null(true), &[][..]),
            Comparison::IsNotNull => (Kindless::Null(false), &[][..]),
            Comparison::In(values) => (Kindless::Among(true), values.as_slice()),
            Comparison::NotIn(values) => (Kindless::Among(false), values.as_slice()),
            Comparison::Less(value) => (Kindless::Order(&[Less]), std::slice::from_ref(value)),
            Comparison::AtMost(value) => (Kindless::Order(&[Less, Equal]), std::slice::from_ref(value)),
            Comparison::Greater(value) => (Kindless::Order(&[Greater]), std::slice::from_ref(value)),
            Comparison::AtLeast(value) => (Kindless::Order(&[Greater, Equal]), std::slice::from_ref(value)),
        };
        let operand = |text: &String| Operand::of(kind, text).map_err(|reason| (text.chars().take(60).collect(), reason));
        Ok(Self { comparison, operands: texts.iter().map(operand).collect::<Result<_, _>>()? })
    }

    /// None where it cannot be known. Null holds for nothing but `is null`.
    pub fn holds(&self, datum: &Datum) -> Option<bool> {
        match (&self.comparison, datum) {
            (_, Datum::Unavailable) => None,
            (Kindless::Null(wanted), datum) => Some(datum.is_null() == *wanted),
            (_, Datum::Null) => Some(false),
            (Kindless::Among(wanted), datum) => {
                let mut unknown = false;
                for operand in &self.operands {
                    match operand.compare(datum) {
                        Some(Ordering::Equal) => return Some(*wanted),
                        None => unknown = true,
                        Some(_) => {}
                    }
                }
                if unknown { None } else { Some(!wanted) }
            }
            (Kindless::Order(holding), datum) => {
                self.operands.first().and_then(|operand| operand.compare(datum)).map(|order| holding.contains(&order))
            }
        }
    }
}

impl Operand {
    fn of(kind: &Kind, text: &str) -> Result<Self, &'static str> {
        const DAY_US: i64 = 86_400_000_000;
        let micros = |suffix: &str| parse_micros(&format!("{text}{suffix}"), EpochUnit::Micros).map_err(|_| "write a time of 1900 to 2200");
        Ok(match kind {
            Kind::Int16 | Kind::Int32 | Kind::Int64 | Kind::UInt64 | Kind::Decimal(_) => {
                let number = Parts::of(text.as_bytes()).map(|_| text.as_bytes().to_vec());
                Self::Number(number.ok_or("write a number in plain notation, such as -12.50")?)
            }
            Kind::Float32 | Kind::Float64 => Self::Float(text.parse().map_err(|_| "write a number")?),
            Kind::Bool => Self::Bool(text.parse().map_err(|_| "write true or false")?),
            Kind::Text | Kind::Unknown | Kind::Uuid => Self::Text(text.as_bytes().to_vec()),
            Kind::Date => Self::Int(micros("T00:00:00Z").map_err(|_| "write a date of 1900 to 2200, such as 2026-11-22")? / DAY_US),
            Kind::Timestamp => Self::Int(micros("Z")?),
            Kind::TimestampTz => Self::Int(micros("")?),
            Kind::Time | Kind::Binary | Kind::Json | Kind::Array(_) => return Err("columns of this kind can only be null or not null"),
        })
    }

    /// How the value stands to the constant.
    fn compare(&self, datum: &Datum) -> Option<Ordering> {
        match (self, datum) {
            (Self::Number(n), Datum::Decimal(value)) => compare_numbers(value, n),
            (Self::Number(n), Datum::Int(_) | Datum::UInt(_)) => {
                let mut value = Vec::with_capacity(20);
                push_text(&mut value, datum);
                compare_numbers(&value, n)
            }
            (Self::Float(f), Datum::Float64(value)) => value.partial_cmp(f),
            (Self::Float(f), Datum::Float32(value)) => f64::from(*value).partial_cmp(f),
            (Self::Bool(b), Datum::Bool(value)) => Some(value.cmp(b)),
            (Self::Int(n), Datum::Date(days)) => Some(i64::from(*days).cmp(n)),
            (Self::Int(n), Datum::Timestamp(us) | Datum::TimestampTz(us)) => Some(us.cmp(n)),
            (Self::Text(t), Datum::Text(value)) => Some((**value).cmp(t)),
            (Self::Text(t), Datum::Uuid(_)) => {
                let mut value = Vec::with_capacity(36);
                push_text(&mut value, datum);
                Some(value.cmp(&t.to_ascii_lowercase()))
            }
            _ => None,
        }
    }
}

/// Plain decimals of any length, compared exactly: `1.5` is `1.50`.
fn compare_numbers(a: &[u8], b: &[u8]) -> Option<Ordering> {
    let (a, b) = (Parts::of(a)?, Parts::of(b)?);
    let trimmed = |p: &Parts<'_>| -> (Vec<u8>, Vec<u8>) {
        let whole = p.whole.iter().copied().skip_while(|d| *d == b'0').collect();
        let n_fraction = p.fraction.iter().rposition(|d| *d != b'0').map_or(0, |last| last + 1);
        (whole, p.fraction[..n_fraction].to_vec())
    };
    let ((whole_a, fraction_a), (whole_b, fraction_b)) = (trimmed(&a), trimmed(&b));
    let is_zero = |whole: &[u8], fraction: &[u8]| whole.is_empty() && fraction.is_empty();
    let negative_a = a.negative && !is_zero(&whole_a, &fraction_a);
    let negative_b = b.negative && !is_zero(&whole_b, &fraction_b);
    let magnitude = whole_a.len().cmp(&whole_b.len()).then_with(|| whole_a.cmp(&whole_b)).then_with(|| fraction_a.cmp(&fraction_b));
    Some(match (negative_a, negative_b) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (true, true) => magnitude.reverse(),
        (false, false) => magnitude,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_compare_as_numbers(a in -1_000i64..1_000, b in -1_000i64..1_000, zeros in "0{0,3}") {
            // Thousandths, written with more zeros than they need on either side.
            let text = |n: i64| format!("{}{zeros}{}.{:03}{zeros}", if n < 0 { "-" } else { "" }, n.abs() / 1_000, n.abs() % 1_000);
            prop_assert_eq!(compare_numbers(text(a).as_bytes(), text(b).as_bytes()), Some(a.cmp(&b)));
        }
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(compare_numbers(b"-0.00", b"0"), Some(Ordering::Equal));
        assert_eq!(compare_numbers(b"NaN", b"0"), None);
    }
}
