//! Rows on their way into columns: one checked value, and a stream's column types as Arrow builders.

use crate::schema::ColumnType;
use arrow::array::{ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use std::sync::Arc;

/// A checked value that waits for the rest of its row. A text is a part of a scratch text, from and to these bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell {
    /// Not given yet.
    Missing,
    Null,
    Text(usize, usize),
    Int(i64),
    Decimal(i128),
    Bool(bool),
    Float(f64),
}

/// Dispatch by match, so that appending a row needs no virtual call.
pub enum ColumnBuilder {
    Text(StringBuilder),
    Int(Int64Builder),
    Decimal(Decimal128Builder),
    Time(TimestampMicrosecondBuilder),
    Bool(BooleanBuilder),
    Float(Float64Builder),
}

impl ColumnBuilder {
    pub fn new(kind: ColumnType) -> Self {
        match kind {
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Int => Self::Int(Int64Builder::new()),
            ColumnType::Decimal { .. } => Self::Decimal(Decimal128Builder::new().with_data_type(kind.arrow())),
            ColumnType::Timestamp => Self::Time(TimestampMicrosecondBuilder::new().with_data_type(kind.arrow())),
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Float => Self::Float(Float64Builder::new()),
        }
    }

    /// `texts` is what a text's cell points into. A cell of another type, which the checks never give, is null.
    pub fn append(&mut self, cell: Cell, texts: &str) {
        match (self, cell) {
            (Self::Text(b), Cell::Text(start, end)) => b.append_value(&texts[start..end]),
            (Self::Text(b), _) => b.append_null(),
            (Self::Int(b), Cell::Int(v)) => b.append_value(v),
            (Self::Int(b), _) => b.append_null(),
            (Self::Decimal(b), Cell::Decimal(v)) => b.append_value(v),
            (Self::Decimal(b), _) => b.append_null(),
            (Self::Time(b), Cell::Int(v)) => b.append_value(v),
            (Self::Time(b), _) => b.append_null(),
            (Self::Bool(b), Cell::Bool(v)) => b.append_value(v),
            (Self::Bool(b), _) => b.append_null(),
            (Self::Float(b), Cell::Float(v)) => b.append_value(v),
            (Self::Float(b), _) => b.append_null(),
        }
    }

    pub fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(b) => Arc::new(b.finish()),
            Self::Int(b) => Arc::new(b.finish()),
            Self::Decimal(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Float(b) => Arc::new(b.finish()),
        }
    }
}
