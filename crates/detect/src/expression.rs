//! SQL expressions over one row: parsed, checked and compiled once, evaluated on columns.
//!
//! An expression is a pure function of its row: no subqueries, no aggregates (those are features), no clock, no randomness. Its text,
//! nesting and size are bounded. Literals with a point are decimals, so `price >= 0.1` compares exactly. An operation that fails on a row
//! (a division by zero, a decimal that overflows) makes the whole expression null for that row, and for that row only.

use crate::scope::Scope;
use crate::spelling;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DataFusionError, TableReference, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF};
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr as Ast, Query, UnaryOperator, Value, Visit, Visitor, visit_expressions_mut};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::Token;
use mulgil_model::{decimal, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

/// The longest expression, in bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// The deepest nesting. A chain of `and` nests once per member.
pub const DEPTH_MAX: usize = 40;
/// Columns, literals and operations of one expression.
pub const NODES_MAX: usize = 400;
/// How deep the parser follows brackets and prefixes: an unoptimised build takes some 50 KB of stack for each.
const PARSER_DEPTH_MAX: usize = 20;

#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    columns: Vec<usize>,
    thresholds: Vec<(String, Vec<String>)>,
    kind: DataType,
    multiple: Option<(String, String, String)>,
    physical: Arc<dyn PhysicalExpr>,
}

impl Expression {
    /// An expression that is true, false or null.
    pub fn condition(text: &str, scope: &Scope) -> Result<Self, String> {
        let expression = Self::value(text, scope)?;
        match expression.kind {
            DataType::Boolean => Ok(expression),
            ref other => Err(format!("'{}' is not a condition: it gives {other}, not true or false", spelling::shown(text))),
        }
    }

    /// An expression of any type.
    pub fn value(text: &str, scope: &Scope) -> Result<Self, String> {
        let ast = parse(text)?;
        let survey = Survey::of(&ast, scope)?;
        let explain = |e: DataFusionError| format!("'{}' cannot be used: {}", spelling::shown(text), plain(&e));
        let (kind, physical) = compile(ast.clone(), scope).map_err(explain)?;
        Ok(Self { text: written(&ast), columns: survey.columns, thresholds: survey.thresholds, kind, multiple: multiple(&ast), physical })
    }

    /// The expression in a normal form: the same whatever spaces and brackets it was typed with.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_number(&self) -> bool {
        self.kind.is_numeric()
    }

    /// (x, k, y) where the expression says x > k * y or x >= k * y, with names x and y and a number k.
    pub fn as_multiple(&self) -> Option<(&str, &str, &str)> {
        self.multiple.as_ref().map(|(x, k, y)| (x.as_str(), k.as_str(), y.as_str()))
    }

    /// Indices in the scope, in the order of first use.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The literals by the comparison they stand in, as a JSON object: `{"quantity > 500":500}`.
    pub fn thresholds(&self) -> String {
        let mut out = String::from("{");
        for (i, (comparison, literals)) in self.thresholds.iter().enumerate() {
            out.push_str(if i > 0 { "," } else { "" });
            json::write_text(&mut out, comparison);
            match &literals[..] {
                [one] => out.push_str(&format!(":{one}")),
                several => out.push_str(&format!(":[{}]", several.join(","))),
            }
        }
        out.push('}');
        out
    }

    /// One value per row. The number says for how many rows it failed, which have null.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<(ArrayRef, u64), ArrowError> {
        if batch.num_rows() == 0 {
            return Ok((new_null_array(&self.kind, 0), 0));
        }
        match self.try_evaluate(batch) {
            Ok(values) => Ok((values, 0)),
            // One row's failure fails the batch. Row by row, the others keep their values, wherever batches begin and end.
            Err(_) => self.evaluate_by_row(batch),
        }
    }

    /// As [`Self::evaluate`], for a condition.
    pub fn evaluate_condition(&self, batch: &RecordBatch) -> Result<(BooleanArray, u64), ArrowError> {
        let (values, n_failed) = self.evaluate(batch)?;
        Ok((values.as_boolean().clone(), n_failed))
    }

    fn try_evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        self.physical.evaluate(batch)?.into_array(batch.num_rows())
    }

    fn evaluate_by_row(&self, batch: &RecordBatch) -> Result<(ArrayRef, u64), ArrowError> {
        let mut n_failed = 0;
        let rows: Vec<ArrayRef> = (0..batch.num_rows())
            .map(|row| {
                self.try_evaluate(&batch.slice(row, 1)).unwrap_or_else(|_| {
                    n_failed += 1;
                    new_null_array(&self.kind, 1)
                })
            })
            .collect();
        let rows: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
        Ok((concat(&rows)?, n_failed))
    }
}

fn parse(text: &str) -> Result<Ast, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("an expression may have {TEXT_BYTES_MAX} bytes, this one has {}", text.len()));
    }
    let explain = |e: &dyn std::fmt::Display| format!("'{}' is not a SQL expression: {e}", spelling::shown(text));
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_recursion_limit(PARSER_DEPTH_MAX).try_with_sql(text).map_err(|e| explain(&e))?;
    let ast = parser.parse_expr().map_err(|e| explain(&e))?;
    match parser.peek_token().token {
        Token::EOF => {
            check_size(&ast)?;
            Ok(normal(ast))
        }
        other => Err(explain(&format!("it goes on with '{other}' where it should end"))),
    }
}

/// Breaks off at the first level that is too deep, so that nothing after it needs to fear for the stack.
fn check_size(ast: &Ast) -> Result<(), String> {
    struct Size {
        depth: usize,
        n_nodes: usize,
    }
    impl Visitor for Size {
        type Break = ();
        fn pre_visit_expr(&mut self, _ast: &Ast) -> ControlFlow<()> {
            self.depth += 1;
            self.n_nodes += 1;
            if self.depth > DEPTH_MAX || self.n_nodes > NODES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
        fn post_visit_expr(&mut self, _ast: &Ast) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
    }
    match ast.visit(&mut Size { depth: 0, n_nodes: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(format!(
            "the expression is too large: {DEPTH_MAX} levels and {NODES_MAX} parts are allowed; split it with features or more rules"
        )),
    }
}

/// Names without quotes do not depend on their case, so neither does the text.
fn normal(mut ast: Ast) -> Ast {
    let _ = visit_expressions_mut(&mut ast, |e| {
        if let Ast::Identifier(name) = e
            && name.quote_style.is_none()
        {
            name.value = name.value.to_lowercase();
        }
        ControlFlow::<()>::Continue(())
    });
    ast
}

/// What the parser prints is not always what it reads. Two quotes inside a text are printed as they are, taken for one that is escaped:
/// `'a''b'` and `'a''''b'` would be one and the same normal form; doubled before, each stays what it is. And a minus of a minus is printed as
/// the beginning of a comment, but for brackets.
fn written(ast: &Ast) -> String {
    let mut ast = ast.clone();
    let _ = visit_expressions_mut(&mut ast, |e| {
        match e {
            Ast::Value(value) => {
                if let Value::SingleQuotedString(text) = &mut value.value {
                    *text = text.replace('\'', "''");
                }
            }
            Ast::UnaryOp { op: UnaryOperator::Minus, expr } if matches!(**expr, Ast::UnaryOp { op: UnaryOperator::Minus, .. }) => {
                **expr = Ast::Nested(expr.clone());
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
    ast.to_string()
}

fn compile(ast: Ast, scope: &Scope) -> Result<(DataType, Arc<dyn PhysicalExpr>), DataFusionError> {
    let schema = DFSchema::try_from(Arc::clone(scope.arrow()))?;
    let options = ParserOptions::new().with_parse_float_as_decimal(true).with_map_string_types_to_utf8view(false);
    let logical: Expr = SqlToRel::new_with_options(&*FUNCTIONS, options).sql_to_expr(ast, &schema, &mut PlannerContext::new())?;
    let typed = ExprSimplifier::new(SimplifyContext::default()).coerce(logical, &schema)?;
    let physical = create_physical_expr(&typed, &schema, &ExecutionProps::new(), &Default::default())?;
    Ok((physical.data_type(scope.arrow())?, physical))
}

/// The first line of a DataFusion error, without what is about DataFusion.
fn plain(error: &DataFusionError) -> String {
    const SHOWN_MAX: usize = 300;
    let text = error.strip_backtrace();
    text.lines().next().unwrap_or("").chars().take(SHOWN_MAX).collect()
}

/// Walks the syntax tree before anything is planned: refuses what is no function of the row, and notes names and literals.
struct Survey<'a> {
    scope: &'a Scope,
    columns: Vec<usize>,
    thresholds: Vec<(String, Vec<String>)>,
    comparisons: Vec<Option<String>>,
    negative: bool,
}

impl<'a> Survey<'a> {
    fn of(ast: &Ast, scope: &'a Scope) -> Result<Self, String> {
        let mut survey = Self { scope, columns: Vec::new(), thresholds: Vec::new(), comparisons: Vec::new(), negative: false };
        match ast.visit(&mut survey) {
            ControlFlow::Break(reason) => Err(*reason),
            ControlFlow::Continue(()) => Ok(survey),
        }
    }

    fn check(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Identifier(name) => self.column(&name.value),
            Ast::CompoundIdentifier(_) | Ast::CompoundFieldAccess { .. } => {
                Err(format!("'{ast}' cannot be used: write the column's name alone, without a dot"))
            }
            Ast::Function(call) if call.over.is_some() || call.filter.is_some() => {
                Err(format!("'{ast}' cannot be used: window functions are features here"))
            }
            Ast::Function(call) => check_function(&call.name.to_string()),
            Ast::UnaryOp { op: UnaryOperator::Minus, expr } if matches!(**expr, Ast::Value(_)) => {
                self.negative = true;
                Ok(())
            }
            Ast::Value(value) => self.literal(&value.value),
            _ => Ok(()),
        }
    }

    fn column(&mut self, name: &str) -> Result<(), String> {
        let Some(index) = self.scope.index_of(name) else {
            let known: Vec<&str> = self.scope.names().collect();
            let hint = spelling::hint(name, known.iter().copied());
            return Err(format!("there is no column or feature '{}'{hint} (there are {})", spelling::shown(name), known.join(", ")));
        };
        if !self.columns.contains(&index) {
            self.columns.push(index);
        }
        Ok(())
    }

    fn literal(&mut self, value: &Value) -> Result<(), String> {
        let sign = if std::mem::take(&mut self.negative) { "-" } else { "" };
        let text = match value {
            Value::Placeholder(name) => return Err(format!("'{name}' cannot be used: an expression has no parameters")),
            Value::Number(digits, _) => json_number(&format!("{sign}{digits}")),
            Value::Boolean(_) | Value::Null => return Ok(()),
            other => {
                let mut out = String::new();
                let text = other.clone().into_string().unwrap_or_else(|| other.to_string());
                json::write_text(&mut out, &text);
                out
            }
        };
        let Some(comparison) = self.comparisons.iter().rev().flatten().next() else { return Ok(()) };
        match self.thresholds.iter_mut().find(|(c, _)| c == comparison) {
            Some((_, literals)) => literals.push(text),
            None => self.thresholds.push((comparison.clone(), vec![text])),
        }
        Ok(())
    }
}

impl Visitor for Survey<'_> {
    type Break = Box<String>;

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<Self::Break> {
        ControlFlow::Break(Box::new("subqueries cannot be used: an expression sees one row and its features".to_owned()))
    }

    fn pre_visit_expr(&mut self, ast: &Ast) -> ControlFlow<Self::Break> {
        self.comparisons.push(is_comparison(ast).then(|| written(ast)));
        match self.check(ast) {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => ControlFlow::Break(Box::new(reason)),
        }
    }

    fn post_visit_expr(&mut self, _ast: &Ast) -> ControlFlow<Self::Break> {
        self.comparisons.pop();
        ControlFlow::Continue(())
    }
}

fn is_comparison(ast: &Ast) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    match ast {
        Ast::BinaryOp { op, .. } => matches!(op, Eq | NotEq | Gt | GtEq | Lt | LtEq),
        Ast::Between { .. } | Ast::InList { .. } | Ast::Like { .. } | Ast::ILike { .. } | Ast::SimilarTo { .. } | Ast::RLike { .. } => true,
        _ => false,
    }
}

fn multiple(ast: &Ast) -> Option<(String, String, String)> {
    let Ast::BinaryOp { left, op: BinaryOperator::Gt | BinaryOperator::GtEq, right } = ast else { return None };
    let Ast::BinaryOp { left: a, op: BinaryOperator::Multiply, right: b } = &**right else { return None };
    let (k, y) = if matches!(**a, Ast::Value(_)) { (a, b) } else { (b, a) };
    match (&**left, &**k, &**y) {
        (Ast::Identifier(x), Ast::Value(k), Ast::Identifier(y)) => Some((x.to_string(), k.to_string(), y.to_string())),
        _ => None,
    }
}

/// Exact digits where the number fits 38 of them, else its text.
fn json_number(text: &str) -> String {
    const SCALES: [i8; 5] = [0, 4, 8, 18, 30];
    let exact = SCALES.iter().find_map(|scale| decimal::parse(text, 38, *scale).ok().map(|v| decimal::format(v, *scale)));
    exact.unwrap_or_else(|| format!("\"{text}\""))
}

fn check_function(name: &str) -> Result<(), String> {
    const AGGREGATES: [&str; 8] = ["avg", "count", "first_value", "last_value", "max", "min", "stddev", "sum"];
    let name = name.to_lowercase();
    if FUNCTIONS.scalars.contains_key(&name) {
        return Ok(());
    }
    if AGGREGATES.contains(&name.as_str()) {
        return Err(format!(
            "'{name}' looks at many rows, an expression at one: declare a feature with agg = \"{name}…\" and use its name"
        ));
    }
    if FUNCTIONS.refused.contains(&name) {
        return Err(format!("function '{name}' cannot be used: the same row must always give the same answer, with bounded memory"));
    }
    let hint = spelling::hint(&name, FUNCTIONS.scalars.keys().map(String::as_str));
    Err(format!("there is no function '{}'{hint}", spelling::shown(&name)))
}

/// The functions an expression may call: all of DataFusion's that are pure and do not make large values out of small ones.
static FUNCTIONS: LazyLock<Functions> = LazyLock::new(Functions::new);

struct Functions {
    options: ConfigOptions,
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    refused: Vec<String>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Functions {
    fn new() -> Self {
        const LARGE: [&str; 3] = ["repeat", "lpad", "rpad"];
        let (mut scalars, mut refused) = (BTreeMap::new(), Vec::new());
        for function in datafusion_functions::all_default_functions() {
            let pure = function.signature().volatility == Volatility::Immutable && !LARGE.contains(&function.name());
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
                if pure {
                    scalars.insert(name.to_owned(), Arc::clone(&function));
                } else {
                    refused.push(name.to_owned());
                }
            }
        }
        let planners: Vec<Arc<dyn ExprPlanner>> = vec![
            Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
            Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
            Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        ];
        Self { options: ConfigOptions::default(), scalars, refused, planners }
    }
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>, DataFusionError> {
        plan_err!("there is no table '{name}' here")
    }
    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }
    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(name).cloned()
    }
    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }
    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }
    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }
    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }
    fn options(&self) -> &ConfigOptions {
        &self.options
    }
    fn udf_names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
    }
    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }
    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
