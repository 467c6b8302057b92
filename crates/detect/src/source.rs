//! Where a feature takes its values from: a column of the stream, or `amount` = price x quantity of a trade.
//!
//! Every number becomes one scaled integer, so that sums are exact and never drift. Float columns, which hold ratios and statistics only,
//! are rounded to [`FLOAT_SCALE`] decimals on the way in.

use crate::spelling;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The name of the computed column of trade streams.
pub const AMOUNT: &str = "amount";

/// Decimals kept of a float.
pub const FLOAT_SCALE: i8 = 12;
/// Floats of this magnitude or above count as null.
const FLOAT_MAX: f64 = 1e20;

/// A named input of features, resolved against one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Column { index: usize, kind: ColumnType },
    Amount { price: usize, quantity: usize, scale: i8 },
}

impl Source {
    /// Finds `name` in the stream, or says which names there are.
    pub fn find(name: &str, schema: &StreamSchema) -> Result<Self, String> {
        if let Some(index) = schema.index_of(name) {
            return Ok(Self::Column { index, kind: schema.columns[index].kind });
        }
        if let Some(amount) = Self::amount(schema).filter(|_| name == AMOUNT) {
            return Ok(amount);
        }
        let names: Vec<&str> = schema.columns.iter().map(|c| c.name.as_str()).chain(Self::amount(schema).map(|_| AMOUNT)).collect();
        let hint = spelling::hint(name, names.iter().copied());
        Err(format!("stream '{}' has no column '{}'{hint} (it has {})", schema.stream, spelling::shown(name), names.join(", ")))
    }

    /// The computed amount: trade streams only, and only where no column has that name.
    pub fn amount(schema: &StreamSchema) -> Option<Self> {
        if schema.kind != StreamKind::Trade || schema.index_of(AMOUNT).is_some() {
            return None;
        }
        let decimal = |name| {
            let index = schema.index_of(name)?;
            let ColumnType::Decimal { scale, .. } = schema.columns[index].kind else { return None };
            Some((index, scale))
        };
        let ((price, price_scale), (quantity, quantity_scale)) = (decimal("price")?, decimal("quantity")?);
        Some(Self::Amount { price, quantity, scale: price_scale + quantity_scale })
    }

    pub fn kind(self) -> ColumnType {
        match self {
            Self::Column { kind, .. } => kind,
            Self::Amount { scale, .. } => ColumnType::Decimal { precision: 38, scale },
        }
    }

    /// The decimals of the scaled integers that [`View::number`] gives; None for text.
    pub fn scale(self) -> Option<i8> {
        match self.kind() {
            ColumnType::Decimal { scale, .. } => Some(scale),
            ColumnType::Float => Some(FLOAT_SCALE),
            ColumnType::Int | ColumnType::Timestamp => Some(0),
            ColumnType::Text | ColumnType::Bool => None,
        }
    }

    /// The values of one batch, ready to be read row by row.
    pub fn view(self, batch: &RecordBatch) -> View<'_> {
        match self {
            Self::Amount { price, quantity, .. } => View::Amount(batch.column(price).as_primitive(), batch.column(quantity).as_primitive()),
            Self::Column { index, kind } => {
                let column = batch.column(index);
                match kind {
                    ColumnType::Text => View::Text(column.as_string::<i32>()),
                    ColumnType::Int => View::Int(column.as_primitive::<Int64Type>()),
                    ColumnType::Decimal { .. } => View::Decimal(column.as_primitive::<Decimal128Type>()),
                    ColumnType::Timestamp => View::Timestamp(column.as_primitive::<TimestampMicrosecondType>()),
                    ColumnType::Bool => View::Bool(column.as_boolean()),
                    ColumnType::Float => View::Float(column.as_primitive::<Float64Type>()),
                }
            }
        }
    }

    /// The whole column, for expressions.
    pub fn array(self, batch: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let scale = match self {
            Self::Column { index, .. } => return Ok(Arc::clone(batch.column(index))),
            Self::Amount { scale, .. } => scale,
        };
        let view = self.view(batch);
        let values: Decimal128Array = (0..batch.num_rows()).map(|row| view.number(row)).collect();
        Ok(Arc::new(values.with_precision_and_scale(38, scale)?))
    }
}

/// One column of one batch.
pub enum View<'a> {
    Text(&'a StringArray),
    Int(&'a Int64Array),
    Decimal(&'a Decimal128Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Bool(&'a BooleanArray),
    Float(&'a Float64Array),
    Amount(&'a Decimal128Array, &'a Decimal128Array),
}

impl View<'_> {
    /// The value as a scaled integer; None for null and for what is not a number.
    pub fn number(&self, row: usize) -> Option<i128> {
        match self {
            Self::Int(a) => a.is_valid(row).then(|| i128::from(a.value(row))),
            Self::Timestamp(a) => a.is_valid(row).then(|| i128::from(a.value(row))),
            Self::Decimal(a) => a.is_valid(row).then(|| a.value(row)),
            Self::Float(a) => a.is_valid(row).then(|| a.value(row)).and_then(scaled_float),
            Self::Amount(p, q) if p.is_valid(row) && q.is_valid(row) => p.value(row).checked_mul(q.value(row)),
            Self::Amount(..) | Self::Text(_) | Self::Bool(_) => None,
        }
    }

    /// A hash that tells values of this column apart; None for null.
    pub fn hash(&self, row: usize) -> Option<u64> {
        match self {
            Self::Text(a) => a.is_valid(row).then(|| xxh3_64(a.value(row).as_bytes())),
            Self::Bool(a) => a.is_valid(row).then(|| u64::from(a.value(row))),
            Self::Float(a) => a.is_valid(row).then(|| a.value(row).to_bits()),
            _ => self.number(row).map(|n| xxh3_64(&n.to_le_bytes())),
        }
    }
}

fn scaled_float(x: f64) -> Option<i128> {
    (x.abs() < FLOAT_MAX).then(|| (x * 10f64.powi(i32::from(FLOAT_SCALE))).round() as i128)
}
