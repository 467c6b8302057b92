//! Aggregates of a window: count, sum, avg, min, max, stddev, first, last.
//!
//! Ints and decimals are summed exactly, so their results do not depend on the order of rows; a sum beyond 38 digits is null. Nulls are
//! skipped. stddev is that of a sample (n - 1, as SQL's STDDEV), null below two values; of ints and decimals it is computed from exact sums.
//! Sums, averages and deviations of floats are compensated (Neumaier, Welford), but their last bits depend on the order of rows: that
//! order is the log's, so they are the same at every replay. first and last go by event time, then by arrival.

use crate::layout::{Fields, put_f64, put_i, put_u};
use crate::panes::{Accumulator, Merge};
use crate::state::StateValue;
use crate::value::Value;
use arrow::datatypes::i256;
use mulgil_model::decimal::{PRECISION_MAX, divide, pow10};
use mulgil_model::schema::ColumnType;
use std::cmp::Ordering;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    Stddev,
    First,
    Last,
}

impl Function {
    pub const ALL: [(&'static str, Self); 8] = [
        ("count", Self::Count),
        ("sum", Self::Sum),
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("stddev", Self::Stddev),
        ("first", Self::First),
        ("last", Self::Last),
    ];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, function)| function)
    }

    pub fn as_str(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, f)| *f == self).map_or("", |(name, _)| name)
    }

    /// The type of the result over a column of type `of`; None where the function makes no sense.
    pub fn result(self, of: ColumnType) -> Option<ColumnType> {
        let exact = |scale: i8| ColumnType::Decimal { precision: PRECISION_MAX, scale };
        match (self, of) {
            (Self::Count, _) => Some(ColumnType::Int),
            (Self::Min | Self::Max | Self::First | Self::Last, of) => Some(of),
            (Self::Sum, ColumnType::Int) => Some(exact(0)),
            (Self::Sum, ColumnType::Decimal { scale, .. }) => Some(exact(scale)),
            (Self::Avg, ColumnType::Int) => Some(exact(AVG_DECIMALS)),
            (Self::Avg, ColumnType::Decimal { scale, .. }) => Some(exact((scale + AVG_DECIMALS).min(PRECISION_MAX as i8))),
            (Self::Stddev, ColumnType::Int | ColumnType::Decimal { .. } | ColumnType::Float) => Some(ColumnType::Float),
            (Self::Sum | Self::Avg, ColumnType::Float) => Some(ColumnType::Float),
            _ => None,
        }
    }
}

/// An average has this many more decimals than its column, rounded half to even.
const AVG_DECIMALS: i8 = 4;

/// One row as the aggregates see it: a value per aggregate.
pub struct SummaryRow<'a> {
    /// Event time, offset.
    pub at: (i64, u64),
    pub functions: &'a [Function],
    pub values: &'a [Option<Value>],
}

/// What one aggregate keeps.
#[derive(Debug, Clone)]
enum Cell {
    Count(u64),
    Exact { n: u64, sum: i256 },
    Float { n: u64, sum: f64, rest: f64 },
    Extreme { largest: bool, value: Option<Value> },
    ExactSpread { n: u64, sum: i256, squares: i256 },
    FloatSpread { n: u64, mean: f64, squares: f64 },
    Edge { latest: bool, at: (i64, u64), value: Option<Value> },
}

/// The aggregates of one group in one window.
#[derive(Debug, Clone)]
pub struct Cells(Vec<Cell>);

impl Accumulator<SummaryRow<'_>> for Cells {
    fn of(row: &SummaryRow<'_>) -> Self {
        let mut cells = Self(row.functions.iter().zip(row.values).map(|(f, v)| Cell::new(*f, v.as_ref())).collect());
        cells.add(row);
        cells
    }

    fn add(&mut self, row: &SummaryRow<'_>) {
        for ((cell, value), function) in self.0.iter_mut().zip(row.values).zip(row.functions) {
            let Some(value) = value else { continue };
            // The first values may have been null, and their type not known.
            if matches!((&*cell, value), (Cell::Exact { n: 0, .. } | Cell::ExactSpread { n: 0, .. }, Value::Float(_))) {
                *cell = Cell::new(*function, Some(value));
            }
            cell.add(value, row.at);
        }
    }
}

impl Merge for Cells {
    fn merge(&mut self, later: &Self) {
        for (cell, other) in self.0.iter_mut().zip(&later.0) {
            cell.merge(other);
        }
    }
}

impl Cells {
    /// The result of aggregate `i`; `of` is its column's type.
    pub fn result(&self, i: usize, function: Function, of: ColumnType) -> Option<Value> {
        self.0.get(i)?.result(function, of)
    }
}

impl Cell {
    fn new(function: Function, first: Option<&Value>) -> Self {
        let float = matches!(first, Some(Value::Float(_)));
        match function {
            Function::Count => Self::Count(0),
            Function::Sum | Function::Avg if float => Self::Float { n: 0, sum: 0.0, rest: 0.0 },
            Function::Sum | Function::Avg => Self::Exact { n: 0, sum: i256::ZERO },
            Function::Min => Self::Extreme { largest: false, value: None },
            Function::Max => Self::Extreme { largest: true, value: None },
            Function::Stddev if float => Self::FloatSpread { n: 0, mean: 0.0, squares: 0.0 },
            Function::Stddev => Self::ExactSpread { n: 0, sum: i256::ZERO, squares: i256::ZERO },
            Function::First => Self::Edge { latest: false, at: (0, 0), value: None },
            Function::Last => Self::Edge { latest: true, at: (0, 0), value: None },
        }
    }

    fn add(&mut self, value: &Value, at: (i64, u64)) {
        match (self, value) {
            (Self::Count(n), _) => *n += 1,
            (Self::Float { n, sum, rest }, Value::Float(x)) => {
                *n += 1;
                add_compensated(sum, rest, *x);
            }
            (Self::FloatSpread { n, mean, squares }, Value::Float(x)) => {
                *n += 1;
                let delta = x - *mean;
                *mean += delta / *n as f64;
                *squares += delta * (x - *mean);
            }
            (Self::Extreme { largest, value: kept }, value) => keep_extreme(*largest, kept, value),
            (Self::Edge { latest, at: kept_at, value: kept }, value) => keep_edge(*latest, (kept_at, kept), at, value),
            (Self::Exact { n, sum }, value) => {
                *n += 1;
                *sum = sum.wrapping_add(i256::from_i128(value.integer().unwrap_or(0)));
            }
            (Self::ExactSpread { n, sum, squares }, value) => {
                let x = i256::from_i128(value.integer().unwrap_or(0));
                *n += 1;
                *sum = sum.wrapping_add(x);
                *squares = add_squares(*squares, x.wrapping_mul(x));
            }
            _ => {}
        }
    }

    fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(n), Self::Count(m)) => *n += m,
            (Self::Exact { n, sum }, Self::Exact { n: m, sum: other }) => {
                *n += m;
                *sum = sum.wrapping_add(*other);
            }
            (Self::Float { n, sum, rest }, Self::Float { n: m, sum: other, rest: other_rest }) => {
                *n += m;
                add_compensated(sum, rest, *other);
                *rest += other_rest;
            }
            (Self::Extreme { largest, value }, Self::Extreme { value: Some(other), .. }) => keep_extreme(*largest, value, other),
            (Self::Edge { latest, at, value }, Self::Edge { at: other_at, value: Some(other), .. }) => {
                keep_edge(*latest, (at, value), *other_at, other)
            }
            (Self::ExactSpread { n, sum, squares }, Self::ExactSpread { n: m, sum: other, squares: other_squares }) => {
                *n += m;
                *sum = sum.wrapping_add(*other);
                *squares = add_squares(*squares, *other_squares);
            }
            (Self::FloatSpread { n, mean, squares }, Self::FloatSpread { n: m, mean: other, squares: other_squares }) if *m > 0 => {
                let (a, b) = (*n as f64, *m as f64);
                let delta = other - *mean;
                *mean += delta * b / (a + b);
                *squares += other_squares + delta * delta * a * b / (a + b);
                *n += m;
            }
            // A part without any float has not learnt its type yet.
            (
                part @ (Self::Exact { n: 0, .. } | Self::ExactSpread { n: 0, .. }),
                other @ (Self::Float { .. } | Self::FloatSpread { .. }),
            ) => {
                *part = other.clone();
            }
            _ => {}
        }
    }

    fn result(&self, function: Function, of: ColumnType) -> Option<Value> {
        let scale = if let ColumnType::Decimal { scale, .. } = of { scale } else { 0 };
        match self {
            Self::Count(n) => Some(Value::Int(*n as i64)),
            Self::Exact { n: 0, .. } | Self::Float { n: 0, .. } => None,
            Self::Exact { n, sum } => {
                let limit = pow10(PRECISION_MAX.into());
                let fits = |n: &i128| -limit < *n && *n < limit;
                let sum = sum.to_i128().filter(fits)?;
                let avg_scale = (scale + AVG_DECIMALS).min(PRECISION_MAX as i8);
                let result = if function == Function::Avg { divide(sum, scale, (*n).into(), 0, avg_scale) } else { Some(sum) };
                result.filter(fits).map(Value::Decimal)
            }
            Self::Float { n, sum, rest } => {
                let sum = sum + rest;
                Some(Value::Float(if function == Function::Avg { sum / *n as f64 } else { sum }))
            }
            Self::Extreme { value, .. } | Self::Edge { value, .. } => value.clone(),
            Self::ExactSpread { n, sum, squares } => exact_stddev(*n, *sum, *squares, scale).map(Value::Float),
            Self::FloatSpread { n, squares, .. } => (*n > 1).then(|| Value::Float((squares / (*n - 1) as f64).sqrt())),
        }
    }
}

/// Squares never fall, so a sum that has reached the limit of 256 bits stays there, and [`exact_stddev`] finds it too large.
fn add_squares(squares: i256, more: i256) -> i256 {
    squares.checked_add(more).unwrap_or(i256::MAX)
}

fn add_compensated(sum: &mut f64, rest: &mut f64, x: f64) {
    let next = *sum + x;
    *rest += if sum.abs() >= x.abs() { (*sum - next) + x } else { (x - next) + *sum };
    *sum = next;
}

fn keep_extreme(largest: bool, kept: &mut Option<Value>, value: &Value) {
    let wanted = if largest { Ordering::Greater } else { Ordering::Less };
    if kept.as_ref().is_none_or(|kept| value.order(kept) == wanted) {
        *kept = Some(value.clone());
    }
}

fn keep_edge(latest: bool, kept: (&mut (i64, u64), &mut Option<Value>), at: (i64, u64), value: &Value) {
    if kept.1.is_none() || (at > *kept.0) == latest {
        (*kept.0, *kept.1) = (at, Some(value.clone()));
    }
}

/// sqrt((n * sum of squares - (sum)^2) / (n * (n - 1))): one rounding at the end. None below two values, or when 256 bits do not suffice.
fn exact_stddev(n: u64, sum: i256, squares: i256, scale: i8) -> Option<f64> {
    if n < 2 {
        return None;
    }
    let n_wide = i256::from_i128(n.into());
    let spread = n_wide.checked_mul(squares)?.checked_sub(sum.checked_mul(sum)?)?;
    let (low, high) = spread.to_parts();
    let spread = high as f64 * 2f64.powi(128) + low as f64;
    Some((spread / (n as f64 * (n - 1) as f64)).sqrt() / 10f64.powi(scale.into()))
}

/// Layout, version 1: count of aggregates, then per aggregate a tag (1 count, 2 exact, 3 float, 4 extreme, 5 exact spread, 6 float spread,
/// 7 edge, 8 exact with a sum beyond 128 bits) and its fields in the order of the type; 256-bit numbers as 0 and a signed varint, or 1
/// and 32 bytes little endian, but the sum of tag 2 as a signed varint alone.
impl StateValue for Cells {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_u(out, self.0.len() as u128);
        self.0.iter().for_each(|cell| cell.write(out));
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::open(bytes, 1)?;
        let n = fields.count()?;
        let cells = (0..n).map(|_| Cell::read(&mut fields)).collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(Self(cells))
    }
}

impl Cell {
    fn write(&self, out: &mut Vec<u8>) {
        let tagged = |out: &mut Vec<u8>, tag: u8, n: u64| {
            out.push(tag);
            put_u(out, n.into());
        };
        match self {
            Self::Count(n) => tagged(out, 1, *n),
            Self::Exact { n, sum } => match sum.to_i128() {
                Some(sum) => {
                    tagged(out, 2, *n);
                    put_i(out, sum);
                }
                None => {
                    tagged(out, 8, *n);
                    put_wide(out, *sum);
                }
            },
            Self::Float { n, sum, rest } => {
                tagged(out, 3, *n);
                put_f64(out, *sum);
                put_f64(out, *rest);
            }
            Self::Extreme { largest, value } => {
                tagged(out, 4, (*largest).into());
                Value::write(value.as_ref(), out);
            }
            Self::ExactSpread { n, sum, squares } => {
                tagged(out, 5, *n);
                put_wide(out, *sum);
                put_wide(out, *squares);
            }
            Self::FloatSpread { n, mean, squares } => {
                tagged(out, 6, *n);
                put_f64(out, *mean);
                put_f64(out, *squares);
            }
            Self::Edge { latest, at, value } => {
                tagged(out, 7, (*latest).into());
                put_i(out, at.0.into());
                put_u(out, at.1.into());
                Value::write(value.as_ref(), out);
            }
        }
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, String> {
        let (tag, n) = (fields.u8()?, fields.u64()?);
        Ok(match tag {
            1 => Self::Count(n),
            2 => Self::Exact { n, sum: i256::from_i128(fields.i()?) },
            3 => Self::Float { n, sum: fields.f64()?, rest: fields.f64()? },
            4 => Self::Extreme { largest: n == 1, value: Value::read(fields)? },
            5 => Self::ExactSpread { n, sum: read_wide(fields)?, squares: read_wide(fields)? },
            6 => Self::FloatSpread { n, mean: fields.f64()?, squares: fields.f64()? },
            7 => Self::Edge { latest: n == 1, at: (fields.i64()?, fields.u64()?), value: Value::read(fields)? },
            8 => Self::Exact { n, sum: read_wide(fields)? },
            tag => return Err(format!("it has an aggregate of the unknown kind {tag}")),
        })
    }
}

fn put_wide(out: &mut Vec<u8>, n: i256) {
    match n.to_i128() {
        Some(n) => {
            out.push(0);
            put_i(out, n);
        }
        None => {
            out.push(1);
            out.extend_from_slice(&n.to_le_bytes());
        }
    }
}

fn read_wide(fields: &mut Fields<'_>) -> Result<i256, String> {
    match fields.u8()? {
        0 => fields.i().map(i256::from_i128),
        1 => fields.array().map(i256::from_le_bytes),
        mark => Err(format!("it has a wide number of the unknown form {mark}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use Function::{Avg, Count, First, Last, Max, Min, Stddev, Sum};
    const FUNCTIONS: [Function; 8] = [Count, Sum, Avg, Min, Max, Stddev, First, Last];

    fn fold(rows: &[(i64, Option<Value>)], first_offset: u64) -> Option<Cells> {
        let mut cells: Option<Cells> = None;
        for (i, (at, value)) in rows.iter().enumerate() {
            let values = vec![value.clone(); FUNCTIONS.len()];
            let row = SummaryRow { at: (*at, first_offset + i as u64), functions: &FUNCTIONS, values: &values };
            match &mut cells {
                Some(cells) => cells.add(&row),
                None => cells = Some(Cells::of(&row)),
            }
        }
        cells
    }

    fn results(cells: &Cells, of: ColumnType) -> Vec<Option<Value>> {
        FUNCTIONS.iter().enumerate().map(|(i, f)| cells.result(i, *f, of)).collect()
    }

    fn show(cells: &Cells, of: ColumnType) -> String {
        format!("{:?}", results(cells, of))
    }

    const DECIMAL: ColumnType = ColumnType::Decimal { precision: 38, scale: 2 };

    #[test]
    fn nulls_are_skipped_and_too_much_is_null() {
        let nothing = fold(&[(1, None)], 0).unwrap();
        assert_eq!(show(&nothing, ColumnType::Float), "[Some(Int(0)), None, None, None, None, None, None, None]");
        let big = 9 * 10i128.pow(37);
        let cells = fold(&[(1, Some(Value::Decimal(big))), (1, Some(Value::Decimal(big)))], 0).unwrap();
        assert!(results(&cells, DECIMAL)[1].is_none() && results(&cells, DECIMAL)[2].is_none());
        let cells = fold(&[(1, Some(Value::Decimal(big))), (1, Some(Value::Decimal(-big)))], 0).unwrap();
        assert!(matches!(results(&cells, DECIMAL)[1], Some(Value::Decimal(0))));
    }

    /// The classic case in which a naive sum of squares loses every digit: large values with a small spread.
    #[test]
    fn stddev_keeps_its_digits() {
        let rows = [4i128, 7, 13, 16].map(|x| (0, Some(Value::Decimal(10i128.pow(30) + x))));
        let Some(Value::Float(spread)) = results(&fold(&rows, 0).unwrap(), ColumnType::Decimal { precision: 38, scale: 0 })[5] else {
            panic!("none")
        };
        assert!((spread - 30f64.sqrt()).abs() < 1e-12, "{spread}");
        let rows = [4f64, 7.0, 13.0, 16.0].map(|x| (0, Some(Value::Float(1e9 + x))));
        let Some(Value::Float(spread)) = results(&fold(&rows, 0).unwrap(), ColumnType::Float)[5] else { panic!("none") };
        assert!((spread - 30f64.sqrt()).abs() < 1e-9, "{spread}");
    }

    #[test]
    fn functions_know_their_types() {
        for (name, function) in Function::ALL {
            assert_eq!((Function::parse(name), function.as_str()), (Some(function), name));
        }
        assert_eq!(Sum.result(ColumnType::Text), None);
        assert_eq!(Avg.result(DECIMAL), Some(ColumnType::Decimal { precision: 38, scale: 6 }));
        assert_eq!(Max.result(ColumnType::Text), Some(ColumnType::Text));
    }

    fn any_rows() -> impl Strategy<Value = (ColumnType, Vec<(i64, Option<Value>)>)> {
        let value = |float: bool| {
            let some = if float {
                (-1e6f64..1e6).prop_map(Value::Float).boxed()
            } else {
                prop_oneof![-1000i128..1000, -(10i128.pow(36))..10i128.pow(36)].prop_map(Value::Decimal).boxed()
            };
            prop_oneof![1 => Just(None), 4 => some.prop_map(Some)]
        };
        let rows = move |float| prop::collection::vec((0i64..5, value(float)), 1..20);
        any::<bool>().prop_flat_map(move |float| (Just(if float { ColumnType::Float } else { DECIMAL }), rows(float)))
    }

    proptest! {
        #[test]
        fn parts_put_together_are_the_whole((of, rows) in any_rows(), at in 0usize..20) {
            let whole = fold(&rows, 0).unwrap();
            let at = at % rows.len();
            let mut parts = fold(&rows[at..], at as u64).unwrap();
            if let Some(mut first) = fold(&rows[..at], 0) {
                first.merge(&parts);
                parts = first;
            }
            for (i, (a, b)) in results(&whole, of).into_iter().zip(results(&parts, of)).enumerate() {
                match (a, b) {
                    (Some(Value::Float(a)), Some(Value::Float(b))) => prop_assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{i}: {a} {b}"),
                    (a, b) => prop_assert_eq!(format!("{a:?}"), format!("{b:?}")),
                }
            }
        }

        #[test]
        fn exact_results_do_not_depend_on_the_order(mut rows in prop::collection::vec((0i64..50, -(10i128.pow(30))..10i128.pow(30)), 1..20)) {
            let cells = |rows: &[(i64, i128)]| fold(&rows.iter().map(|(at, v)| (*at, Some(Value::Decimal(*v)))).collect::<Vec<_>>(), 0).unwrap();
            let forward = results(&cells(&rows), DECIMAL);
            rows.reverse();
            // first and last go by time, and by arrival among equals.
            prop_assert_eq!(format!("{:?}", &forward[..6]), format!("{:?}", &results(&cells(&rows), DECIMAL)[..6]));
        }

        #[test]
        fn state_round_trips((of, rows) in any_rows()) {
            let cells = fold(&rows, 0).unwrap();
            let mut bytes = vec![];
            cells.write(&mut bytes);
            let back = Cells::read(&bytes).unwrap();
            prop_assert_eq!(show(&back, of), show(&cells, of));
            let mut again = vec![];
            back.write(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}
