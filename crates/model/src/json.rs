//! Rows as JSON objects: decimals as numbers with their exact digits, times as RFC 3339 in UTC.

use crate::decimal;
use crate::schema::{ColumnType, StreamSchema};
use crate::time::format_micros;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};

/// Appends row `row` as one JSON object.
pub fn write_row(out: &mut String, schema: &StreamSchema, batch: &RecordBatch, row: usize) {
    out.push('{');
    write_fields(out, schema, batch, row);
    out.push('}');
}

/// Appends `"name":value,…` without braces, so that the caller can add fields of its own around it.
pub fn write_fields(out: &mut String, schema: &StreamSchema, batch: &RecordBatch, row: usize) {
    for (i, column) in schema.columns.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_text(out, &column.name);
        out.push(':');
        write_value(out, column.kind, batch.column(i).as_ref(), row);
    }
}

/// Appends one value; null for null.
pub fn write_value(out: &mut String, kind: ColumnType, array: &dyn Array, row: usize) {
    use std::fmt::Write;
    if array.is_null(row) {
        return out.push_str("null");
    }
    match kind {
        ColumnType::Text => write_text(out, array.as_string::<i32>().value(row)),
        ColumnType::Int => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)).expect("writing to a String cannot fail"),
        ColumnType::Decimal { scale, .. } => decimal::write(out, array.as_primitive::<Decimal128Type>().value(row), scale),
        ColumnType::Timestamp => write_text(out, &format_micros(array.as_primitive::<TimestampMicrosecondType>().value(row))),
        ColumnType::Bool => out.push_str(if array.as_boolean().value(row) { "true" } else { "false" }),
        ColumnType::Float => write_float(out, array.as_primitive::<Float64Type>().value(row)),
    }
}

/// JSON has no NaN and no infinities: they become null.
pub fn write_float(out: &mut String, value: f64) {
    match serde_json::Number::from_f64(value) {
        Some(n) => out.push_str(&n.to_string()),
        None => out.push_str("null"),
    }
}

/// Appends a JSON string with its quotes and escapes.
pub fn write_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("a string always serialises"));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ids::Topic;
    use crate::schema::{Column, StreamKind};
    use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    #[test]
    fn exact_and_escaped() {
        let d = ColumnType::Decimal { precision: 18, scale: 8 };
        let columns = vec![
            Column::required("k", ColumnType::Text),
            Column::required("at", ColumnType::Timestamp),
            Column::optional("d", d),
            Column::optional("n", ColumnType::Int),
            Column::optional("b", ColumnType::Bool),
            Column::optional("f", ColumnType::Float),
        ];
        let schema = StreamSchema::new(Topic::new("t").unwrap(), StreamKind::Plain, columns, "k", "at").unwrap();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["a\"\n물", "b"])),
            Arc::new(TimestampMicrosecondArray::from(vec![1_561_309_495_124_000, 0]).with_timezone("UTC")),
            Arc::new(Decimal128Array::from(vec![Some(1348), None]).with_precision_and_scale(18, 8).unwrap()),
            Arc::new(Int64Array::from(vec![Some(-7), None])),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN)])),
        ];
        let batch = RecordBatch::try_new(Arc::clone(schema.arrow()), arrays).unwrap();
        let mut out = String::new();
        write_row(&mut out, &schema, &batch, 0);
        assert_eq!(out, r#"{"k":"a\"\n물","at":"2019-06-23T17:04:55.124Z","d":0.00001348,"n":-7,"b":true,"f":0.5}"#);
        out.clear();
        write_row(&mut out, &schema, &batch, 1);
        assert_eq!(out, r#"{"k":"b","at":"1970-01-01T00:00:00Z","d":null,"n":null,"b":null,"f":null}"#);
    }
}
