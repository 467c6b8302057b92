//! Single values taken out of columns, kept in state, and put into columns again.

use crate::layout::{Fields, from_ordered, ordered, put_bytes, put_f64, put_i};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray};
use arrow::array::{TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use mulgil_model::schema::ColumnType;
use std::cmp::Ordering;
use std::sync::Arc;

/// A value of a column that is not null. Decimals are unscaled; the scale is the column's.
#[derive(Debug, Clone)]
pub enum Value {
    Text(Box<str>),
    Int(i64),
    Decimal(i128),
    Timestamp(i64),
    Bool(bool),
    Float(f64),
}

impl Value {
    /// The value in row `i`, or None for null.
    pub fn at(column: &ArrayRef, kind: ColumnType, i: usize) -> Option<Self> {
        if column.is_null(i) {
            return None;
        }
        Some(match kind {
            ColumnType::Text => Self::Text(column.as_string::<i32>().value(i).into()),
            ColumnType::Int => Self::Int(column.as_primitive::<Int64Type>().value(i)),
            ColumnType::Decimal { .. } => Self::Decimal(column.as_primitive::<Decimal128Type>().value(i)),
            ColumnType::Timestamp => Self::Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(i)),
            ColumnType::Bool => Self::Bool(column.as_boolean().value(i)),
            ColumnType::Float => Self::Float(column.as_primitive::<Float64Type>().value(i)),
        })
    }

    /// Order within one column: texts by their bytes, floats with every NaN in its place (IEEE 754 totalOrder).
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            _ => self.tag().cmp(&other.tag()),
        }
    }

    /// The number behind an int or a decimal.
    pub fn integer(&self) -> Option<i128> {
        match self {
            Self::Int(n) => Some((*n).into()),
            Self::Decimal(n) => Some(*n),
            _ => None,
        }
    }

    fn tag(&self) -> u8 {
        match self {
            Self::Text(_) => 1,
            Self::Int(_) => 2,
            Self::Decimal(_) => 3,
            Self::Timestamp(_) => 4,
            Self::Bool(_) => 5,
            Self::Float(_) => 6,
        }
    }

    /// Layout: a tag (0 none, 1 text, 2 int, 3 decimal, 4 timestamp, 5 bool, 6 float), then the value.
    pub fn write(value: Option<&Self>, out: &mut Vec<u8>) {
        out.push(value.map_or(0, Self::tag));
        match value {
            None => {}
            Some(Self::Text(text)) => put_bytes(out, text.as_bytes()),
            Some(Self::Int(n) | Self::Timestamp(n)) => put_i(out, (*n).into()),
            Some(Self::Decimal(n)) => put_i(out, *n),
            Some(Self::Bool(b)) => out.push((*b).into()),
            Some(Self::Float(f)) => put_f64(out, *f),
        }
    }

    pub fn read(fields: &mut Fields<'_>) -> Result<Option<Self>, String> {
        Ok(Some(match fields.u8()? {
            0 => return Ok(None),
            1 => Self::Text(fields.text()?.into()),
            2 => Self::Int(fields.i64()?),
            3 => Self::Decimal(fields.i()?),
            4 => Self::Timestamp(fields.i64()?),
            5 => Self::Bool(fields.u8()? != 0),
            6 => Self::Float(fields.f64()?),
            tag => return Err(format!("it has a value of the unknown kind {tag}")),
        }))
    }
}

/// Appends a value to a group's key such that keys compare as their values do, nulls first: 0 for null, else 1 and the value; texts end
/// with 00 01 and write 00 as 00 02.
pub fn write_ordered(column: &ArrayRef, kind: ColumnType, i: usize, out: &mut Vec<u8>) {
    if column.is_null(i) {
        return out.push(0);
    }
    out.push(1);
    match kind {
        ColumnType::Text => {
            for byte in column.as_string::<i32>().value(i).bytes() {
                out.push(byte);
                if byte == 0 {
                    out.push(2);
                }
            }
            out.extend_from_slice(&[0, 1]);
        }
        ColumnType::Int => out.extend_from_slice(&ordered(column.as_primitive::<Int64Type>().value(i))),
        ColumnType::Timestamp => out.extend_from_slice(&ordered(column.as_primitive::<TimestampMicrosecondType>().value(i))),
        ColumnType::Decimal { .. } => {
            let n = column.as_primitive::<Decimal128Type>().value(i);
            out.extend_from_slice(&((n as u128) ^ (1 << 127)).to_be_bytes());
        }
        ColumnType::Bool => out.push(column.as_boolean().value(i).into()),
        ColumnType::Float => {
            let bits = column.as_primitive::<Float64Type>().value(i).to_bits() as i64;
            out.extend_from_slice(&ordered(bits ^ (((bits >> 63) as u64) >> 1) as i64));
        }
    }
}

/// Reads what [`write_ordered`] wrote and moves `bytes` behind it.
pub fn read_ordered(bytes: &mut &[u8], kind: ColumnType) -> Option<Option<Value>> {
    let (present, rest) = bytes.split_first()?;
    *bytes = rest;
    if *present == 0 {
        return Some(None);
    }
    let mut take = |n: usize| {
        let (head, rest) = bytes.split_at_checked(n)?;
        *bytes = rest;
        Some(head)
    };
    Some(Some(match kind {
        ColumnType::Text => return read_text(bytes).map(|text| Some(Value::Text(text))),
        ColumnType::Int => Value::Int(from_ordered(take(8)?)?),
        ColumnType::Timestamp => Value::Timestamp(from_ordered(take(8)?)?),
        ColumnType::Decimal { .. } => Value::Decimal((u128::from_be_bytes(take(16)?.try_into().ok()?) ^ (1 << 127)) as i128),
        ColumnType::Bool => Value::Bool(take(1)? == [1]),
        ColumnType::Float => {
            let bits = from_ordered(take(8)?)?;
            Value::Float(f64::from_bits((bits ^ (((bits >> 63) as u64) >> 1) as i64) as u64))
        }
    }))
}

fn read_text(bytes: &mut &[u8]) -> Option<Box<str>> {
    let mut text = Vec::new();
    loop {
        match bytes {
            [0, 1, rest @ ..] => {
                *bytes = rest;
                return String::from_utf8(text).ok().map(Into::into);
            }
            [0, 2, rest @ ..] => {
                text.push(0);
                *bytes = rest;
            }
            [0, ..] | [] => return None,
            [byte, rest @ ..] => {
                text.push(*byte);
                *bytes = rest;
            }
        }
    }
}

/// A column of `kind` from values of that kind.
pub fn column(kind: ColumnType, values: &[Option<Value>]) -> ArrayRef {
    macro_rules! pick {
        ($kind:ident) => {
            values.iter().map(|v| match v {
                Some(Value::$kind(v)) => Some(*v),
                _ => None,
            })
        };
    }
    match kind {
        ColumnType::Text => {
            Arc::new(values.iter().map(|v| if let Some(Value::Text(t)) = v { Some(&**t) } else { None }).collect::<StringArray>())
        }
        ColumnType::Int => Arc::new(pick!(Int).collect::<Int64Array>()),
        ColumnType::Timestamp => Arc::new(pick!(Timestamp).collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        ColumnType::Bool => Arc::new(pick!(Bool).collect::<BooleanArray>()),
        ColumnType::Float => Arc::new(pick!(Float).collect::<Float64Array>()),
        ColumnType::Decimal { precision, scale } => {
            let array = pick!(Decimal).collect::<Decimal128Array>().with_precision_and_scale(precision, scale);
            array.map_or_else(|_| new_null_array(&kind.arrow(), values.len()), |array| Arc::new(array))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DECIMAL: ColumnType = ColumnType::Decimal { precision: 38, scale: 2 };

    fn any_value(kind: ColumnType) -> BoxedStrategy<Option<Value>> {
        let some = match kind {
            ColumnType::Text => "[a\u{0}b가\u{1}]{0,4}".prop_map(|t| Value::Text(t.into())).boxed(),
            ColumnType::Int => any::<i64>().prop_map(Value::Int).boxed(),
            ColumnType::Decimal { .. } => (-(10i128.pow(37))..10i128.pow(37)).prop_map(Value::Decimal).boxed(),
            ColumnType::Timestamp => any::<i64>().prop_map(Value::Timestamp).boxed(),
            ColumnType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
            ColumnType::Float => any::<f64>().prop_map(Value::Float).boxed(),
        };
        prop_oneof![1 => Just(None), 6 => some.prop_map(Some)].boxed()
    }

    fn any_pair() -> impl Strategy<Value = (ColumnType, Option<Value>, Option<Value>)> {
        let kinds = vec![ColumnType::Text, ColumnType::Int, DECIMAL, ColumnType::Timestamp, ColumnType::Bool, ColumnType::Float];
        prop::sample::select(kinds).prop_flat_map(|kind| (Just(kind), any_value(kind), any_value(kind)))
    }

    fn order(a: &Option<Value>, b: &Option<Value>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) => a.order(b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }

    proptest! {
        #[test]
        fn columns_state_and_ordered_keys_round_trip((kind, a, b) in any_pair()) {
            let array = column(kind, &[a.clone(), b.clone()]);
            let back = [0, 1].map(|i| Value::at(&array, kind, i));
            prop_assert_eq!(format!("{back:?}"), format!("{:?}", [&a, &b]));

            let mut bytes = vec![9];
            Value::write(a.as_ref(), &mut bytes);
            let mut fields = Fields::open(&bytes, 9).unwrap();
            prop_assert_eq!(format!("{:?}", Value::read(&mut fields).unwrap()), format!("{a:?}"));
            fields.end().unwrap();

            let keys = [0, 1].map(|i| {
                let mut key = vec![];
                write_ordered(&array, kind, i, &mut key);
                key
            });
            prop_assert_eq!(keys[0].cmp(&keys[1]), order(&a, &b));
            let mut rest = &keys[0][..];
            prop_assert_eq!(format!("{:?}", read_ordered(&mut rest, kind).unwrap()), format!("{a:?}"));
            prop_assert!(rest.is_empty());
        }
    }
}
