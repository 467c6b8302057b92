//! Functions that make text, or take long over it: what they would make or do is known before they begin, and refused when it is too much.
//!
//! An operator that hands on a batch of any size is found out when it is too late, and a function of one batch cannot be stopped.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat;
use arrow::compute::kernels::concat_elements::concat_elements_dyn;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::FunctionRewrite;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{BinaryExpr, ColumnarValue, Expr, ExprSchemable, Operator};
use datafusion::logical_expr::{ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::any::Any;
use std::sync::Arc;

/// Text that a function makes of one batch of rows, at most; less when a query has many of them ([`TextShare`]).
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Text made of constants, at most: it is made while the query is planned, and kept in the plan.
const CONSTANT_BYTES_MAX: u64 = 64 << 10;
/// Steps that a function may take over one batch of rows in the worst case, at most: half a minute if texts or a pattern are made for it,
/// which few are. Texts of 2 kB in every row are within.
const STEPS_MAX: u64 = 1 << 35;

/// Those of DataFusion's that [`bounded`] knows; `||` is [`Joining`]'s.
pub(crate) const FUNCTIONS: [&str; 10] =
    ["repeat", "lpad", "rpad", "replace", "regexp_replace", "concat", "concat_ws", "levenshtein", "regexp_count", "regexp_instr"];

/// What each function of a query may make of one batch of rows: all that the terms of a batch make is held at the same time.
#[derive(Debug, Clone)]
pub(crate) struct TextShare {
    bytes: u64,
}

impl TextShare {
    /// Of a query that may hold `memory_bytes` and has so many terms that make values.
    pub fn of(memory_bytes: usize, n_makers: u64) -> Self {
        Self { bytes: (memory_bytes as u64 / n_makers.max(1)).min(TEXT_BYTES_MAX) }
    }
}

impl ConfigExtension for TextShare {
    const PREFIX: &'static str = "text_share";
}

impl ExtensionOptions for TextShare {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<()> {
        Err(DataFusionError::Configuration(format!("{key} is not for users to set")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}

/// Text that one call may make.
fn bytes_max(args: &ScalarFunctionArgs, all_scalar: bool) -> u64 {
    let share = args.config_options.extensions.get::<TextShare>().map_or(TEXT_BYTES_MAX, |share| share.bytes);
    if all_scalar { share.min(CONSTANT_BYTES_MAX) } else { share }
}

/// What a function is asked to do for one row or a batch of them.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    text_bytes: u64,
    steps: u64,
}

impl Cost {
    fn and(self, other: Self) -> Self {
        Self { text_bytes: self.text_bytes.saturating_add(other.text_bytes), steps: self.steps.saturating_add(other.steps) }
    }
}

/// Calls `theirs`, one of [`FUNCTIONS`], unless that would make or take too much.
pub(crate) fn bounded(theirs: &ScalarUDF, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    let n_rows = if all_scalar { 1 } else { args.number_rows };
    let name = theirs.name();
    let cost = (0..n_rows).fold(Cost::default(), |cost, row| cost.and(cost_at(name, &args.args, row)));
    if cost.steps > STEPS_MAX {
        return Err(DataFusionError::ResourcesExhausted(format!("{name} could take {} steps over a batch of rows", cost.steps)));
    }
    let max = bytes_max(&args, all_scalar);
    if cost.text_bytes <= max {
        return theirs.inner().invoke_with_args(args);
    }
    // What [`cost_at`] says is made of these, not only the most that could be.
    if n_rows <= 1 || matches!(name, "repeat" | "lpad" | "rpad" | "concat" | "concat_ws") {
        return Err(too_long(name, max));
    }
    // Few texts become as long as they could: the halves are made one after the other, and what they really became counts.
    let half = n_rows / 2;
    let first = bounded(theirs, slice(&args, 0, half))?.into_array(half)?;
    let rest = bounded(theirs, slice(&args, half, n_rows - half))?.into_array(n_rows - half)?;
    if (first.get_array_memory_size() + rest.get_array_memory_size()) as u64 > max {
        return Err(too_long(name, max));
    }
    Ok(ColumnarValue::Array(concat(&[first.as_ref(), rest.as_ref()])?))
}

/// How long the text of a row becomes, at most. Of padding it counts characters: bytes are one to four times that.
fn cost_at(name: &str, args: &[ColumnarValue], row: usize) -> Cost {
    let text = |at: usize| args.get(at).map_or(0, |arg| bytes_at(arg, row).map_or(0, <[u8]>::len) as u64);
    let count = || args.get(1).map_or(0, |arg| count_at(arg, row));
    // Each match is looked for from where the last ended, possibly to the end of the text, in vain.
    let matching = text(0).saturating_mul(text(0));
    match name {
        "repeat" => Cost { text_bytes: text(0).saturating_mul(count()), steps: 0 },
        "lpad" | "rpad" => Cost { text_bytes: count(), steps: 0 },
        "replace" => Cost { text_bytes: (text(0) + 1).saturating_mul(text(2).max(1)), steps: 0 },
        "concat" => Cost { text_bytes: (0..args.len()).map(text).sum(), steps: 0 },
        "concat_ws" => Cost { text_bytes: (1..args.len()).map(|at| text(at) + text(0)).sum(), steps: 0 },
        "levenshtein" => Cost { text_bytes: 0, steps: text(0).saturating_mul(text(1)) },
        "regexp_replace" => {
            // Each character and the end can match, and a reference stands for as much as the whole text.
            let with = args.get(2).and_then(|arg| bytes_at(arg, row)).unwrap_or_default();
            let n_references = with.iter().filter(|b| matches!(b, b'$' | b'\\')).count() as u64;
            let each = (text(2) + n_references.saturating_mul(text(0))).max(1);
            Cost { text_bytes: (text(0) + 1).saturating_mul(each), steps: matching }
        }
        _ => Cost { text_bytes: 0, steps: matching },
    }
}

fn too_long(name: &str, max: u64) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!("{name} could make more than {max} bytes of text of a batch of rows"))
}

fn slice(args: &ScalarFunctionArgs, from: usize, n_rows: usize) -> ScalarFunctionArgs {
    let part = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, n_rows)),
        ColumnarValue::Scalar(_) => arg.clone(),
    };
    let parts = args.args.iter().map(part).collect();
    ScalarFunctionArgs { args: parts, number_rows: n_rows, ..args.clone() }
}

fn bytes_at(arg: &ColumnarValue, row: usize) -> Option<&[u8]> {
    let array = match arg {
        ColumnarValue::Scalar(ScalarValue::Binary(value) | ScalarValue::LargeBinary(value) | ScalarValue::BinaryView(value)) => {
            return value.as_deref();
        }
        ColumnarValue::Scalar(value) => return value.try_as_str().flatten().map(str::as_bytes),
        ColumnarValue::Array(array) if array.is_null(row) => return None,
        ColumnarValue::Array(array) => array,
    };
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row).as_bytes()),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row).as_bytes()),
        DataType::Utf8View => Some(array.as_string_view().value(row).as_bytes()),
        DataType::Binary => Some(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => Some(array.as_binary_view().value(row)),
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

/// Puts [`Joined`] in the place of `||`, with the types that DataFusion would give both sides.
#[derive(Debug)]
pub(crate) struct Joining {
    joined: Arc<ScalarUDF>,
}

impl Default for Joining {
    fn default() -> Self {
        Self { joined: Arc::new(ScalarUDF::from(Joined { signature: Signature::any(2, Volatility::Immutable) })) }
    }
}

impl FunctionRewrite for Joining {
    fn name(&self) -> &str {
        "joined_text"
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema, _: &ConfigOptions) -> Result<Transformed<Expr>> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) = expr else { return Ok(Transformed::no(expr)) };
        let (left_type, right_type) = (left.get_type(schema)?, right.get_type(schema)?);
        let (left_type, right_type) = BinaryTypeCoercer::new(&left_type, &Operator::StringConcat, &right_type).get_input_types()?;
        let side = |expr: Box<Expr>, kind: DataType| {
            let kind = if matches!(kind, DataType::FixedSizeBinary(_)) { DataType::Binary } else { kind };
            expr.cast_to(&kind, schema)
        };
        let args = vec![side(left, left_type)?, side(right, right_type)?];
        Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&self.joined), args))))
    }
}

/// `a || b`: nothing if one of them is nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Joined {
    signature: Signature,
}

impl ScalarUDFImpl for Joined {
    fn name(&self) -> &str {
        "||"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let names: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(names.join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.first().cloned().ok_or_else(|| DataFusionError::Internal("|| without sides".to_owned()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let n_rows = if all_scalar { 1 } else { args.number_rows };
        let cost = (0..n_rows).fold(Cost::default(), |cost, row| cost.and(cost_at("concat", &args.args, row)));
        let max = bytes_max(&args, all_scalar);
        if cost.text_bytes > max {
            return Err(too_long(self.name(), max));
        }
        let sides: Vec<ArrayRef> = args.args.iter().map(|arg| arg.to_array(n_rows)).collect::<Result<_>>()?;
        let [left, right] = &sides[..] else { return Err(DataFusionError::Internal("|| has two sides".to_owned())) };
        let joined = concat_elements_dyn(left, right)?;
        Ok(if all_scalar { ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?) } else { ColumnarValue::Array(joined) })
    }
}
