//! Functions of SQL that differ from DataFusion's: they answer the same, but truncate time in UTC by arithmetic, and refuse to make more
//! text than a query may hold before they make it.

use crate::text::{self, Joining};
use arrow::array::{Array, ArrayRef, make_array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};
use std::sync::Arc;

/// Puts ours in the place of DataFusion's.
pub(crate) fn replace(state: &mut SessionState) -> Result<()> {
    let text = text::FUNCTIONS.iter().map(|name| (*name, How::Bounded));
    for (name, how) in text.chain([("date_trunc", How::UtcByArithmetic)]) {
        let theirs = state.udf(name)?;
        state.register_udf(Arc::new(ScalarUDF::from(Replaced { theirs, how })))?;
    }
    state.register_function_rewrite(Arc::new(Joining::default()))
}

/// One of DataFusion's functions in all but how it is called. What it would simplify itself to is theirs again, so it does not.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Replaced {
    theirs: Arc<ScalarUDF>,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum How {
    /// Text can be far longer than what it is made of.
    Bounded,
    /// The times of the tables are UTC: what has no zone is truncated by arithmetic, what has one by a calendar, some thirty times slower.
    UtcByArithmetic,
}

impl ScalarUDFImpl for Replaced {
    fn name(&self) -> &str {
        self.theirs.name()
    }

    fn aliases(&self) -> &[String] {
        self.theirs.aliases()
    }

    fn signature(&self) -> &Signature {
        self.theirs.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.theirs.coerce_types(types)
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

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.how {
            How::Bounded => text::bounded(&self.theirs, args),
            How::UtcByArithmetic => truncated(&self.theirs, args),
        }
    }
}

fn truncated(theirs: &ScalarUDF, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let Some(ColumnarValue::Array(times)) = args.args.get(1) else { return theirs.invoke_with_args(args) };
    let with_zone = times.data_type().clone();
    let unit = match &with_zone {
        DataType::Timestamp(unit, Some(zone)) if zone.as_ref() == "UTC" => *unit,
        _ => return theirs.invoke_with_args(args),
    };
    args.args[1] = ColumnarValue::Array(named(times, DataType::Timestamp(unit, None))?);
    let n_rows = args.number_rows;
    let truncated = theirs.inner().invoke_with_args(args)?.into_array(n_rows)?;
    Ok(ColumnarValue::Array(named(&truncated, with_zone)?))
}

/// The same numbers under another type. A cast would give the same, but takes each through a calendar.
fn named(times: &ArrayRef, as_type: DataType) -> Result<ArrayRef> {
    Ok(make_array(times.to_data().into_builder().data_type(as_type).build()?))
}
