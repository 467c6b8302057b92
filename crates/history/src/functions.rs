//! Functions of SQL that differ from DataFusion's: they answer the same, but truncate time in UTC by arithmetic, and refuse to make more
//! text than a query may hold before they make it.

use arrow::array::{Array, AsArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

/// Text that a function makes of one batch of rows, at most.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Puts ours in the place of DataFusion's.
pub(crate) fn replace(state: &mut SessionState) -> Result<()> {
    for name in ["repeat", "lpad", "rpad", "replace", "regexp_replace"] {
        let theirs = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Bounded { theirs })))?;
    }
    let theirs = state.udf("date_trunc")?;
    state.register_udf(Arc::new(ScalarUDF::from(DateTrunc { theirs })))?;
    Ok(())
}

/// `date_trunc` over the times of the tables, which are UTC: what has no zone is truncated by arithmetic, what has one by a calendar, some
/// thirty times slower.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    theirs: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.theirs.name()
    }

    fn aliases(&self) -> &[String] {
        self.theirs.aliases()
    }

    fn signature(&self) -> &Signature {
        self.theirs.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.theirs.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.theirs.return_field_from_args(args)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.theirs.output_ordering(inputs)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.theirs.documentation()
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let theirs = self.theirs.inner();
        let Some(ColumnarValue::Array(times)) = args.args.get(1) else { return theirs.invoke_with_args(args) };
        let with_zone = times.data_type().clone();
        let unit = match &with_zone {
            DataType::Timestamp(unit, Some(zone)) if zone.as_ref() == "UTC" => *unit,
            _ => return theirs.invoke_with_args(args),
        };
        // Neither cast touches a value.
        args.args[1] = ColumnarValue::Array(cast(times, &DataType::Timestamp(unit, None))?);
        let n_rows = args.number_rows;
        let truncated = theirs.invoke_with_args(args)?.into_array(n_rows)?;
        Ok(ColumnarValue::Array(cast(&truncated, &with_zone)?))
    }
}

/// A function whose text can be far longer than what it is given.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    theirs: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.theirs.name()
    }

    fn aliases(&self) -> &[String] {
        self.theirs.aliases()
    }

    fn signature(&self) -> &Signature {
        self.theirs.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.theirs.return_type(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.theirs.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let n_rows = if all_scalar { 1 } else { args.number_rows };
        let bytes = (0..n_rows).fold(0, |bytes: u64, row| bytes.saturating_add(self.bytes_at(&args.args, row)));
        if bytes <= TEXT_BYTES_MAX {
            return self.theirs.inner().invoke_with_args(args);
        }
        if n_rows <= 1 || self.is_exact() {
            return Err(self.too_long());
        }
        // Few texts become as long as they could: the halves are made one after the other, and what they really became counts.
        let half = n_rows / 2;
        let first = self.invoke_with_args(slice(&args, 0, half))?.into_array(half)?;
        let rest = self.invoke_with_args(slice(&args, half, n_rows - half))?.into_array(n_rows - half)?;
        if (first.get_array_memory_size() + rest.get_array_memory_size()) as u64 > TEXT_BYTES_MAX {
            return Err(self.too_long());
        }
        Ok(ColumnarValue::Array(concat(&[first.as_ref(), rest.as_ref()])?))
    }
}

impl Bounded {
    /// What [`Self::bytes_at`] says is what is made, not only the most that could be.
    fn is_exact(&self) -> bool {
        matches!(self.name(), "repeat" | "lpad" | "rpad")
    }

    /// How long the text of a row becomes, at most. Of padding it counts characters: bytes are one to four times that.
    fn bytes_at(&self, args: &[ColumnarValue], row: usize) -> u64 {
        let text = |at: usize| args.get(at).and_then(|arg| text_at(arg, row)).map_or(0, |text| text.len() as u64);
        let count = || args.get(1).map_or(0, |arg| count_at(arg, row));
        match self.name() {
            "repeat" => text(0).saturating_mul(count()),
            "lpad" | "rpad" => count(),
            "replace" => (text(0) + 1).saturating_mul(text(2).max(1)),
            // Each character and the end can match, and a reference stands for as much as the whole text.
            _ => {
                let with = args.get(2).and_then(|arg| text_at(arg, row)).unwrap_or_default();
                let n_references = with.bytes().filter(|b| matches!(b, b'$' | b'\\')).count() as u64;
                (text(0) + 1).saturating_mul((text(2) + n_references.saturating_mul(text(0))).max(1))
            }
        }
    }

    fn too_long(&self) -> DataFusionError {
        let mib = TEXT_BYTES_MAX >> 20;
        DataFusionError::ResourcesExhausted(format!("{} could make more than {mib} MiB of text of a batch of rows", self.name()))
    }
}

fn slice(args: &ScalarFunctionArgs, from: usize, n_rows: usize) -> ScalarFunctionArgs {
    let part = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, n_rows)),
        ColumnarValue::Scalar(_) => arg.clone(),
    };
    let parts = args.args.iter().map(part).collect();
    ScalarFunctionArgs { args: parts, number_rows: n_rows, ..args.clone() }
}

fn text_at(arg: &ColumnarValue, row: usize) -> Option<&str> {
    let array = match arg {
        ColumnarValue::Scalar(value) => return value.try_as_str().flatten(),
        ColumnarValue::Array(array) => array,
    };
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    }
}

fn count_at(arg: &ColumnarValue, row: usize) -> u64 {
    let value = match arg {
        ColumnarValue::Scalar(ScalarValue::Int64(value)) => *value,
        ColumnarValue::Array(array) => array.as_primitive_opt::<Int64Type>().filter(|a| a.is_valid(row)).map(|a| a.value(row)),
        ColumnarValue::Scalar(_) => None,
    };
    value.unwrap_or(0).max(0) as u64
}
