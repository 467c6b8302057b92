//! Rows on their way into columns: a row's values are checked one by one and stand aside until the row is complete; only a row that is
//! good as a whole is appended. So a bad row leaves no trace in the columns.

use super::Decoded;
use super::plan::{Plan, Role};
use super::value::{self, Value};
use arrow::array::{ArrayRef, RecordBatch};
use mulgil_model::columns::{Cell, ColumnBuilder};
use mulgil_model::problem::RowProblem;
use mulgil_model::schema::ColumnType;
use mulgil_model::time::{MICROS_MAX, MICROS_MIN, ReceiveTime, format_micros};
use std::sync::Arc;

/// Why a value, or a row, is not accepted. `at` is its byte within the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub field: Option<String>,
    pub at: usize,
    pub reason: String,
}

impl Refusal {
    pub fn row(at: usize, reason: impl Into<String>) -> Self {
        Self { field: None, at, reason: reason.into() }
    }

    pub fn field(field: &str, at: usize, reason: impl Into<String>) -> Self {
        Self { field: Some(value::shorten(field)), at, reason: reason.into() }
    }
}

pub(crate) struct Table {
    plan: Arc<Plan>,
    /// The latest event time accepted.
    latest_us: i64,
    received: ReceiveTime,
    cells: Vec<Cell>,
    text: String,
    columns: Vec<ColumnBuilder>,
    rows: Vec<u64>,
    lines: Vec<u64>,
    problems: Vec<RowProblem>,
    /// The ordinal of the next row.
    next_row: u64,
}

impl Table {
    pub fn new(plan: &Arc<Plan>, received: ReceiveTime) -> Self {
        let columns = plan.schema.columns.iter().map(|c| ColumnBuilder::new(c.kind)).collect();
        let latest_us = received.micros().saturating_add(plan.options.limits.future_us_max).min(MICROS_MAX);
        let (cells, text) = (plan.template.clone(), plan.template_text.clone());
        Self {
            plan: Arc::clone(plan),
            latest_us,
            received,
            cells,
            text,
            columns,
            rows: Vec::new(),
            lines: Vec::new(),
            problems: Vec::new(),
            next_row: 0,
        }
    }

    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Good and bad rows since the last [`Self::take`].
    pub fn n_rows(&self) -> usize {
        self.rows.len() + self.problems.len()
    }

    pub fn next_row(&self) -> u64 {
        self.next_row
    }

    pub fn begin_row(&mut self) {
        self.cells.copy_from_slice(&self.plan.template);
        self.text.truncate(self.plan.template_text.len());
    }

    /// Sets a column of the row that was begun.
    pub fn set(&mut self, column: usize, value: Value<'_>, at: usize) -> Result<(), Refusal> {
        if self.cells[column] != Cell::Missing {
            return Err(self.refusal(column, at, "is given twice"));
        }
        self.cells[column] = self.cell(column, value).map_err(|reason| self.refusal(column, at, reason))?;
        Ok(())
    }

    /// Appends the row, or says what it lacks. Either way the next row can begin.
    pub fn finish_row(&mut self, line: u64) -> Result<(), Refusal> {
        for (i, cell) in self.cells.iter_mut().enumerate() {
            if *cell == Cell::Missing {
                *cell = Cell::Null;
            }
            if *cell == Cell::Null && !self.plan.schema.columns[i].nullable {
                return Err(self.refusal(i, 0, "is required"));
            }
        }
        for (builder, cell) in self.columns.iter_mut().zip(&self.cells) {
            builder.append(*cell, &self.text);
        }
        self.rows.push(self.next_row);
        self.lines.push(line);
        self.next_row += 1;
        Ok(())
    }

    /// Counts the row as bad. `line` and `column` are the place of the refused byte, 1-based.
    pub fn refuse_row(&mut self, refusal: Refusal, line: u64, column: u64, original: &[u8]) {
        let Refusal { field, reason, .. } = refusal;
        self.problems.push(RowProblem { row: self.next_row, line, column, field, reason, original: original.to_vec() });
        self.next_row += 1;
    }

    /// What was decoded since the last call; row ordinals go on counting.
    pub fn take(&mut self) -> Decoded {
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        let batch = RecordBatch::try_new(Arc::clone(self.plan.schema.arrow()), arrays)
            .expect("every row has a value or null in every column, and null only where allowed");
        Decoded {
            batch,
            rows: std::mem::take(&mut self.rows),
            lines: std::mem::take(&mut self.lines),
            problems: std::mem::take(&mut self.problems),
        }
    }

    /// The cells and the text of the row that was begun.
    pub fn staged(self) -> (Vec<Cell>, String) {
        (self.cells, self.text)
    }

    fn refusal(&self, column: usize, at: usize, reason: impl Into<String>) -> Refusal {
        Refusal::field(self.plan.field_name(column), at, reason)
    }

    fn cell(&mut self, column: usize, value: Value<'_>) -> Result<Cell, String> {
        if let Value::Text(text) | Value::Number(text) = value
            && text.len() > self.plan.options.limits.field_bytes_max
        {
            return Err(format!("is {} bytes long; a field may have {}", text.len(), self.plan.options.limits.field_bytes_max));
        }
        if value == Value::Null {
            return Ok(Cell::Null);
        }
        let (kind, role) = (self.plan.schema.columns[column].kind, self.plan.roles[column]);
        match kind {
            ColumnType::Text => self.text_cell(role, value),
            ColumnType::Int => int_cell(value),
            ColumnType::Decimal { precision, scale } => decimal_cell(value, precision, scale).and_then(|v| positive(v, role)),
            ColumnType::Timestamp => self.time_cell(role, value),
            ColumnType::Bool => bool_cell(value),
            ColumnType::Float => float_cell(value),
        }
    }

    fn text_cell(&mut self, role: Role, value: Value<'_>) -> Result<Cell, String> {
        let number;
        let text = match (value, role) {
            (Value::Text(text), _) => text,
            // A symbol written as a number has lost its leading zeros.
            (Value::Number(text), Role::Plain | Role::Key) => text,
            (Value::Int(n), Role::Plain | Role::Key) => {
                number = n.to_string();
                &number
            }
            (Value::Bool(b), Role::Plain) => {
                if b {
                    "true"
                } else {
                    "false"
                }
            }
            (other, _) => return Err(format!("must be text, not {}", other.what())),
        };
        let text = match role {
            Role::Symbol => value::check_symbol(text).map(|()| text)?,
            Role::Key if text.is_empty() => return Err("must not be empty".to_owned()),
            Role::Side => match value::side_of(text, &self.plan.options.mapping)? {
                Some(side) => side.as_str(),
                None => return Ok(Cell::Null),
            },
            _ => text,
        };
        let start = self.text.len();
        self.text.push_str(text);
        Ok(Cell::Text(start, self.text.len()))
    }

    fn time_cell(&self, role: Role, value: Value<'_>) -> Result<Cell, String> {
        let mapping = &self.plan.options.mapping;
        let us = match value {
            Value::Text(text) | Value::Number(text) => value::micros_of(text, mapping)?,
            Value::Int(n) => mapping.time_unit.to_micros(n).map_err(|e| e.to_string())?,
            Value::Micros(us) if (MICROS_MIN..=MICROS_MAX).contains(&us) => us,
            Value::Micros(us) => return Err(mulgil_model::time::TimeError::Range(format_micros(us)).to_string()),
            other => return Err(format!("must be a time, not {}", other.what())),
        };
        if role == Role::EventTime && us > self.latest_us {
            let ahead_s = us.saturating_sub(self.received.micros()) / 1_000_000;
            return Err(format!("{} lies {ahead_s} s in the future of its receipt: is its unit or time zone right?", format_micros(us)));
        }
        Ok(Cell::Int(us))
    }
}

fn positive(value: i128, role: Role) -> Result<Cell, String> {
    if role == Role::Positive && value <= 0 { Err("must be greater than zero".to_owned()) } else { Ok(Cell::Decimal(value)) }
}

fn int_cell(value: Value<'_>) -> Result<Cell, String> {
    match value {
        Value::Text(text) | Value::Number(text) => value::int_of(text).map(Cell::Int),
        Value::Int(n) => Ok(Cell::Int(n)),
        Value::Decimal(v, scale) => value::int_of(&mulgil_model::decimal::format(v, scale)).map(Cell::Int),
        other => Err(format!("must be a whole number, not {}", other.what())),
    }
}

fn decimal_cell(value: Value<'_>, precision: u8, scale: i8) -> Result<i128, String> {
    match value {
        Value::Text(text) | Value::Number(text) => value::decimal_of(text, precision, scale),
        Value::Int(n) => value::decimal_of(&n.to_string(), precision, scale),
        Value::Decimal(v, have) => value::decimal_of(&mulgil_model::decimal::format(v, have), precision, scale),
        other => Err(format!("must be a number, not {}", other.what())),
    }
}

fn bool_cell(value: Value<'_>) -> Result<Cell, String> {
    match value {
        Value::Bool(b) => Ok(Cell::Bool(b)),
        Value::Text(text) => value::bool_of(text).map(Cell::Bool),
        other => Err(format!("must be true or false, not {}", other.what())),
    }
}

fn float_cell(value: Value<'_>) -> Result<Cell, String> {
    match value {
        Value::Text(text) | Value::Number(text) => value::float_of(text).map(Cell::Float),
        Value::Int(n) => Ok(Cell::Float(n as f64)),
        Value::Decimal(v, scale) => Ok(Cell::Float(mulgil_model::decimal::to_f64(v, scale))),
        other => Err(format!("must be a number, not {}", other.what())),
    }
}
