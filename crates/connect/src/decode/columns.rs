//! Rows of formats that are columns already (Avro, Parquet): every value passes the same checks as one from a text.

use super::options::{UnknownFields, nearest};
use super::plan::Plan;
use super::table::{Refusal, Table};
use super::value::{self, Value, zoned_micros};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float32Type, Float64Type, Int64Type, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use jiff::tz::TimeZone;
use mulgil_model::json::write_text;
use std::fmt::Write;

/// Which column of the stream each column of the input fills.
pub(crate) struct Columns {
    targets: Vec<Option<usize>>,
}

impl Columns {
    /// Fails when no row of such an input could be good.
    pub fn of(plan: &Plan, schema: &Schema) -> Result<Self, Refusal> {
        let mut targets = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let target = plan.column_of(field.name(), &mut targets.len().clone());
            if target.is_none() && plan.options.unknown == UnknownFields::Refuse {
                let hint = nearest(field.name(), plan.field_names());
                return Err(Refusal::field(field.name(), 0, format!("is not a field of stream '{}'{hint}", plan.schema.stream)));
            }
            if target.is_some() && targets.contains(&target) {
                return Err(Refusal::field(field.name(), 0, "stands twice in the input's schema"));
            }
            targets.push(target);
        }
        let missing = plan.required_fields().find(|f| schema.fields().iter().all(|have| have.name() != f));
        match missing {
            Some(field) => Err(Refusal::field(field, 0, "is required and not in the input's schema")),
            None => Ok(Self { targets }),
        }
    }

    /// Appends every row of a batch. A refused row is kept as JSON text, since columns hold no bytes of a row; its line is its ordinal
    /// plus one, and its column the input's column.
    pub fn append(&self, table: &mut Table, batch: &RecordBatch) -> Result<(), ArrowError> {
        let used = self.targets.iter().enumerate().filter_map(|(i, target)| target.map(|t| (i, t)));
        let columns = used.map(|(i, target)| Ok((i, target, Values::of(batch.column(i))?))).collect::<Result<Vec<_>, ArrowError>>()?;
        for row in 0..batch.num_rows() {
            let line = table.next_row() + 1;
            if let Err(refusal) = append_row(table, &columns, row, line) {
                let column = refusal.at as u64 + 1;
                table.refuse_row(refusal, line, column, row_text(batch, row).as_bytes());
            }
        }
        Ok(())
    }
}

fn append_row(table: &mut Table, columns: &[(usize, usize, Values)], row: usize, line: u64) -> Result<(), Refusal> {
    table.begin_row();
    let mut scratch = String::new();
    for (i, target, values) in columns {
        let zone = table.plan().options.mapping.time_zone.clone();
        let value = values.value(row, zone.as_ref(), &mut scratch);
        table.set(*target, value, *i)?;
    }
    table.finish_row(line)
}

/// A column as one of few kinds. Casts are only between types that hold each other's values exactly.
enum Values {
    Text(StringArray),
    /// Numbers as text: 256-bit decimals.
    NumberText(StringArray),
    Int(Int64Array),
    Decimal(Decimal128Array, i8),
    /// Floats are taken as the shortest decimal that gives the same float, which is what was once written.
    Float32(Float32Array),
    Float64(Float64Array),
    Bool(BooleanArray),
    /// Points in time, with the nanoseconds of their unit.
    Instant(Int64Array, i128),
    /// Local times without a zone.
    Local(Int64Array, i128),
    Other(ArrayRef, &'static str),
}

impl Values {
    fn of(array: &ArrayRef) -> Result<Self, ArrowError> {
        let text = || Ok::<_, ArrowError>(cast(array, &DataType::Utf8)?.as_string::<i32>().clone());
        let ints = || Ok::<_, ArrowError>(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone());
        Ok(match array.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text(text()?),
            DataType::Dictionary(_, values) if values.is_string() => Self::Text(text()?),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::UInt8
            | DataType::UInt16
            | DataType::UInt32 => Self::Int(ints()?),
            DataType::UInt64 | DataType::Decimal256(..) => Self::NumberText(text()?),
            DataType::Decimal32(_, s) | DataType::Decimal64(_, s) | DataType::Decimal128(_, s) => {
                Self::Decimal(cast(array, &DataType::Decimal128(38, *s))?.as_primitive::<Decimal128Type>().clone(), *s)
            }
            DataType::Float16 | DataType::Float32 => Self::Float32(cast(array, &DataType::Float32)?.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Self::Float64(array.as_primitive::<Float64Type>().clone()),
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Timestamp(unit, Some(_)) => Self::Instant(ints()?, unit_nanos(*unit)),
            DataType::Timestamp(unit, None) => Self::Local(ints()?, unit_nanos(*unit)),
            DataType::Date32 => Self::Local(
                cast(&cast(array, &DataType::Int32)?, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
                86_400_000_000_000,
            ),
            DataType::Date64 => Self::Local(ints()?, 1_000_000),
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => Self::Other(array.clone(), "a list"),
            DataType::Struct(_) | DataType::Map(..) => Self::Other(array.clone(), "an object"),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Other(array.clone(), "bytes")
            }
            _ => Self::Other(array.clone(), "a value of a type that is not known here"),
        })
    }

    fn value<'a>(&'a self, row: usize, zone: Option<&TimeZone>, scratch: &'a mut String) -> Value<'a> {
        if self.is_null(row) {
            return Value::Null;
        }
        match self {
            Self::Text(a) => Value::Text(a.value(row)),
            Self::NumberText(a) => Value::Number(a.value(row)),
            Self::Int(a) => Value::Int(a.value(row)),
            Self::Decimal(a, scale) => Value::Decimal(a.value(row), *scale),
            Self::Float32(a) => float_text(scratch, a.value(row)),
            Self::Float64(a) => float_text(scratch, a.value(row)),
            Self::Bool(a) => Value::Bool(a.value(row)),
            Self::Instant(a, unit) => Value::Micros(micros(a.value(row), *unit)),
            Self::Local(a, unit) => Value::Micros(local_micros(micros(a.value(row), *unit), zone)),
            Self::Other(_, what) => Value::Other(what),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Text(a) | Self::NumberText(a) => a.is_null(row),
            Self::Int(a) | Self::Instant(a, _) | Self::Local(a, _) => a.is_null(row),
            Self::Decimal(a, _) => a.is_null(row),
            Self::Float32(a) => a.is_null(row),
            Self::Float64(a) => a.is_null(row),
            Self::Bool(a) => a.is_null(row),
            Self::Other(a, _) => a.data_type() == &DataType::Null || a.is_null(row),
        }
    }
}

fn float_text<'a>(scratch: &'a mut String, value: impl std::fmt::LowerExp) -> Value<'a> {
    scratch.clear();
    write!(scratch, "{value:e}").expect("writing to a String cannot fail");
    Value::Number(scratch)
}

fn unit_nanos(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// Out of 64 bits means out of any accepted time too, so the nearest end stands for it and is refused as out of range.
fn micros(n: i64, unit_nanos: i128) -> i64 {
    let us = (i128::from(n) * unit_nanos).div_euclid(1_000);
    i64::try_from(us).unwrap_or(if us < 0 { i64::MIN } else { i64::MAX })
}

/// A local time in the mapping's zone; in UTC when none is named, as the writers of such files mean it.
fn local_micros(us: i64, zone: Option<&TimeZone>) -> i64 {
    let Some(zone) = zone else { return us };
    let local = jiff::Timestamp::from_microsecond(us).map(|t| TimeZone::UTC.to_datetime(t));
    local.ok().and_then(|local| zoned_micros(local, zone)).unwrap_or(i64::MAX)
}

/// The row as a JSON object of texts.
fn row_text(batch: &RecordBatch, row: usize) -> String {
    let mut out = String::from("{");
    for (i, (field, column)) in batch.schema_ref().fields().iter().zip(batch.columns()).enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_text(&mut out, field.name());
        out.push(':');
        let options = FormatOptions::default().with_null("");
        match ArrayFormatter::try_new(column, &options) {
            Ok(_) if column.is_null(row) => out.push_str("null"),
            Ok(f) => write_text(&mut out, &f.value(row).try_to_string().unwrap_or_default()),
            Err(_) => write_text(&mut out, value::UNPRINTABLE),
        }
    }
    out.push('}');
    out
}
