//! Cells of a query's answer, whatever Arrow type it has: as JSON values and as CSV fields.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType, UInt64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mulgil_model::{decimal, json, time};

/// A column in one of the few types that are written here.
pub struct Column {
    array: ArrayRef,
    form: Form,
}

enum Form {
    Null,
    Text,
    Int,
    Uint,
    Float,
    Bool,
    Decimal(i8),
    /// Microseconds, UTC.
    Instant,
    /// Anything else: as Arrow shows it, in quotes.
    Shown,
}

impl Column {
    pub fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let (array, form) = match array.data_type() {
            DataType::Dictionary(_, value) => return Self::new(&cast(array, value)?),
            DataType::Null => (array.clone(), Form::Null),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => (cast(array, &DataType::Utf8)?, Form::Text),
            DataType::UInt64 => (array.clone(), Form::Uint),
            t if t.is_integer() => (cast(array, &DataType::Int64)?, Form::Int),
            t if t.is_floating() => (cast(array, &DataType::Float64)?, Form::Float),
            DataType::Boolean => (array.clone(), Form::Bool),
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) if *s >= 0 => {
                (cast(array, &DataType::Decimal128(*p, *s))?, Form::Decimal(*s))
            }
            DataType::Timestamp(_, Some(_)) => (cast(array, &utc())?, Form::Instant),
            _ => (array.clone(), Form::Shown),
        };
        Ok(Self { array, form })
    }

    pub fn write_json(&self, out: &mut String, row: usize) {
        if self.array.is_null(row) || matches!(self.form, Form::Null) {
            return out.push_str("null");
        }
        match self.form {
            Form::Text | Form::Instant | Form::Shown => json::write_text(out, &self.plain(row)),
            Form::Float => json::write_float(out, self.array.as_primitive::<Float64Type>().value(row)),
            _ => out.push_str(&self.plain(row)),
        }
    }

    /// Null is an empty field; an empty text is `""`.
    pub fn write_csv(&self, out: &mut String, row: usize) {
        if self.array.is_null(row) || matches!(self.form, Form::Null) {
            return;
        }
        write_csv_field(out, &self.plain(row));
    }

    fn plain(&self, row: usize) -> String {
        let array = &self.array;
        match self.form {
            Form::Null => String::new(),
            Form::Text => array.as_string::<i32>().value(row).to_owned(),
            Form::Int => array.as_primitive::<Int64Type>().value(row).to_string(),
            Form::Uint => array.as_primitive::<UInt64Type>().value(row).to_string(),
            Form::Float => array.as_primitive::<Float64Type>().value(row).to_string(),
            Form::Bool => array.as_boolean().value(row).to_string(),
            Form::Decimal(scale) => decimal::format(array.as_primitive::<Decimal128Type>().value(row), scale),
            Form::Instant => time::format_micros(array.as_primitive::<TimestampMicrosecondType>().value(row)),
            Form::Shown => match ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()) {
                Ok(shown) => shown.value(row).try_to_string().unwrap_or_default(),
                Err(_) => String::new(),
            },
        }
    }
}

/// RFC 4180.
pub fn write_csv_field(out: &mut String, text: &str) {
    if !text.is_empty() && !text.contains(['"', ',', '\n', '\r']) {
        return out.push_str(text);
    }
    out.push('"');
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

/// A type's name for people.
pub fn type_name(kind: &DataType) -> String {
    match kind {
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        t if t.is_integer() => "int".into(),
        t if t.is_floating() => "float".into(),
        DataType::Boolean => "bool".into(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => {
            format!("decimal({p}, {s})")
        }
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::array::*;
    use std::sync::Arc;

    #[test]
    fn cells_of_many_types() {
        let check = |array: ArrayRef, json: &str, csv: &str| {
            let column = Column::new(&array).unwrap();
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for row in 0..array.len() {
                let (mut j, mut c) = (String::new(), String::new());
                column.write_json(&mut j, row);
                column.write_csv(&mut c, row);
                a.push(j);
                b.push(c);
            }
            assert_eq!((a.join(" ").as_str(), b.join(" ").as_str()), (json, csv), "{}", array.data_type());
        };
        check(Arc::new(StringViewArray::from(vec![Some("a,\"b"), Some(""), None])), r#""a,\"b" "" null"#, r#""a,""b" "" "#);
        check(Arc::new(LargeStringArray::from(vec!["물"])), r#""물""#, "물");
        check(Arc::new(UInt64Array::from(vec![u64::MAX])), "18446744073709551615", "18446744073709551615");
        check(Arc::new(Int8Array::from(vec![-1])), "-1", "-1");
        check(Arc::new(Float64Array::from(vec![0.5, f64::NAN])), "0.5 null", "0.5 NaN");
        check(Arc::new(BooleanArray::from(vec![true])), "true", "true");
        check(Arc::new(Decimal128Array::from(vec![1348]).with_precision_and_scale(18, 8).unwrap()), "0.00001348", "0.00001348");
        check(
            Arc::new(TimestampNanosecondArray::from(vec![1_500_000_000]).with_timezone("Asia/Seoul")),
            r#""1970-01-01T00:00:01.5Z""#,
            "1970-01-01T00:00:01.5Z",
        );
        check(Arc::new(TimestampSecondArray::from(vec![1])), r#""1970-01-01T00:00:01""#, "1970-01-01T00:00:01");
        check(Arc::new(Date32Array::from(vec![1])), r#""1970-01-02""#, "1970-01-02");
        check(Arc::new(NullArray::new(1)), "null", "");
        check(Arc::new(vec!["x"].into_iter().collect::<DictionaryArray<arrow::datatypes::Int32Type>>()), r#""x""#, "x");
    }
}
