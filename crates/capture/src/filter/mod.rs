//! What may leave a source: columns, rows, operations and keys as the user wants them, and values disguised. It stands before everything
//! else, so that what is masked here never reaches the log.
//!
//! **Columns.** Included ones first (none named: all), then excluded ones taken away. A column of the key stays, or the key is overridden.
//!
//! **Disguises.** A mask stands for every value, null too; a hash is SHA-256 of salt and text ([`crate::envelope::text::push_text`]) in
//! hexadecimal, null staying null; a truncated text keeps its first characters. All become text. A value that the database did not send stays
//! "not sent".
//!
//! **Rows.** All conditions of a table must hold, with SQL's rules: nothing but `is null` holds for null. An update that leaves the condition
//! is a delete, one that enters it an insert, as PostgreSQL's own row filters have it. Where a value that decides was not sent, the row is
//! kept: nothing is lost for want of knowledge.

mod condition;
mod disguise;
mod pattern;

pub use condition::{Comparison, Condition};
pub use disguise::{Disguise, Salt};
pub use pattern::{Pattern, PatternError};

use crate::change::{Change, Op, Row, What};
use crate::datum::Datum;
use crate::table::{Column, Kind, Table};
use condition::Test;
use std::collections::HashMap;
use std::sync::Arc;

/// What the user wants. Patterns are of `schema.table.column` or `schema.table` (of MySQL: the database first), see [`Pattern`].
#[derive(Debug, Clone, Default)]
pub struct FilterOptions {
    pub include_columns: Vec<Pattern>,
    pub exclude_columns: Vec<Pattern>,
    /// The first that names a column counts.
    pub disguises: Vec<(Pattern, Disguise)>,
    pub skip_operations: Vec<Op>,
    /// Conditions of the tables that the pattern names; those of all patterns must hold.
    pub rows: Vec<(Pattern, Vec<Condition>)>,
    /// The columns that are the key of the tables that the pattern names, in the place of the table's own. The first counts.
    pub keys: Vec<(Pattern, Vec<String>)>,
}

/// The user's mistake, found when a table is first seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("column '{column}' of {table} is part of the key and cannot be left out: override the key, or include the column")]
    KeyExcluded { table: String, column: String },
    #[error("the key of {table} is overridden with column '{column}', which the table does not have or which is left out")]
    NoKeyColumn { table: String, column: String },
    #[error("a condition on the rows of {table} names column '{column}', which the table does not have")]
    NoColumn { table: String, column: String },
    #[error("'{value}' cannot be compared with column '{column}' of {table}: {reason}")]
    Operand { table: String, column: String, value: String, reason: &'static str },
    #[error("column '{column}' of {table} is not text and cannot be truncated: mask or hash it")]
    NotText { table: String, column: String },
    #[error("a change of {table} has a row of {found} values where its table has {expected} columns: this is a fault of the source")]
    Width { table: String, found: usize, expected: usize },
}

/// Shapes of tables whose plans are kept; all are forgotten when there are more.
const TABLES_MAX: usize = 4_096;

pub struct Filter {
    options: FilterOptions,
    /// By the address of the shape, which the plan holds, so that it stays its own.
    plans: HashMap<usize, Arc<Plan>>,
}

/// What is done to every row of one shape.
struct Plan {
    from: Arc<Table>,
    /// The shape of what comes out.
    to: Arc<Table>,
    /// One per column of `from`; empty: nothing is done.
    actions: Vec<Action>,
    tests: Vec<(usize, Test)>,
}

#[derive(Clone)]
enum Action {
    Keep,
    Drop,
    Disguise(Disguise),
}

impl Filter {
    pub fn new(options: FilterOptions) -> Self {
        Self { options, plans: HashMap::new() }
    }

    /// The change as it may leave the source, or None. Its position stays its own.
    pub fn apply(&mut self, mut change: Change) -> Result<Option<Change>, FilterError> {
        if self.options.skip_operations.contains(&change.op) {
            return Ok(None);
        }
        match &mut change.what {
            What::Message { .. } => {}
            What::Truncate { table, .. } => *table = Arc::clone(&self.plan(table)?.to),
            What::Row { table, before, after } => {
                let plan = self.plan(table)?;
                for row in [&*before, &*after].into_iter().flatten() {
                    if row.len() != plan.from.columns.len() {
                        let (found, expected) = (row.len(), plan.from.columns.len());
                        return Err(FilterError::Width { table: plan.from.id.to_string(), found, expected });
                    }
                }
                let Some(op) = plan.admit(change.op, before, after) else { return Ok(None) };
                // What was turned into another operation may be one that is not wanted.
                if self.options.skip_operations.contains(&op) {
                    return Ok(None);
                }
                change.op = op;
                for row in [before, after].into_iter().flatten() {
                    plan.rewrite(row);
                }
                *table = Arc::clone(&plan.to);
            }
        }
        Ok(Some(change))
    }

    fn plan(&mut self, table: &Arc<Table>) -> Result<Arc<Plan>, FilterError> {
        let address = Arc::as_ptr(table) as usize;
        if let Some(plan) = self.plans.get(&address) {
            return Ok(Arc::clone(plan));
        }
        if self.plans.len() >= TABLES_MAX {
            self.plans.clear();
        }
        let plan = Arc::new(Plan::of(table, &self.options)?);
        self.plans.insert(address, Arc::clone(&plan));
        Ok(plan)
    }
}

impl Plan {
    fn of(table: &Arc<Table>, options: &FilterOptions) -> Result<Self, FilterError> {
        let id = &table.id;
        let names = |patterns: &[Pattern], column: &Column| patterns.iter().any(|p| p.names_column(id, &column.name));
        let is_kept =
            |c: &Column| (options.include_columns.is_empty() || names(&options.include_columns, c)) && !names(&options.exclude_columns, c);
        let key = options.keys.iter().find(|(p, _)| p.names_table(id)).map(|(_, columns)| columns);
        let action = |c: &Column| match options.disguises.iter().find(|(p, _)| p.names_column(id, &c.name)) {
            _ if !is_kept(c) => Action::Drop,
            Some((_, disguise)) => Action::Disguise(disguise.clone()),
            None => Action::Keep,
        };
        let actions: Vec<Action> = table.columns.iter().map(action).collect();
        let mut columns = Vec::with_capacity(table.columns.len());
        for (column, action) in table.columns.iter().zip(&actions) {
            columns.extend(column_after(table, column, action, key)?);
        }
        for name in key.into_iter().flatten() {
            if !columns.iter().any(|c: &Column| *c.name == **name) {
                return Err(FilterError::NoKeyColumn { table: id.to_string(), column: name.clone() });
            }
        }
        let tests = tests(table, options)?;
        let to = Table { id: id.clone(), version: table.version, columns };
        let is_unchanged = to == **table && actions.iter().all(|a| matches!(a, Action::Keep));
        let (to, actions) = if is_unchanged { (Arc::clone(table), Vec::new()) } else { (Arc::new(to), actions) };
        Ok(Self { from: Arc::clone(table), to, actions, tests })
    }

    /// The operation that is left of a change by the conditions; None: nothing.
    fn admit(&self, op: Op, before: &mut Option<Row>, after: &mut Option<Row>) -> Option<Op> {
        if self.tests.is_empty() {
            return Some(op);
        }
        let was = before.as_ref().and_then(|row| self.holds(row, None));
        let is = after.as_ref().and_then(|row| self.holds(row, before.as_ref()));
        match op {
            Op::Update if is == Some(false) && was == Some(false) => None,
            Op::Update if is == Some(false) => {
                let row = after.take();
                if before.is_none() {
                    *before = row.map(|row| self.key_of(row));
                }
                Some(Op::Delete)
            }
            Op::Update if was == Some(false) => {
                *before = None;
                Some(Op::Create)
            }
            Op::Create | Op::Read if is == Some(false) => None,
            Op::Delete if was == Some(false) => None,
            op => Some(op),
        }
    }

    /// None where a value that decides was not sent, neither with the row nor with the one before it.
    fn holds(&self, row: &Row, before: Option<&Row>) -> Option<bool> {
        let mut all = Some(true);
        for (i, test) in &self.tests {
            let datum = match &row[*i] {
                Datum::Unavailable => before.map_or(&Datum::Unavailable, |b| &b[*i]),
                datum => datum,
            };
            match test.holds(datum) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all = None,
            }
        }
        all
    }

    /// The row that a delete tells of where the database sent none: its key, which has not changed.
    fn key_of(&self, row: Row) -> Row {
        let of_key = |(datum, column): (Datum, &Column)| if column.is_key { datum } else { Datum::Unavailable };
        row.into_iter().zip(&self.from.columns).map(of_key).collect()
    }

    fn rewrite(&self, row: &mut Row) {
        if self.actions.is_empty() {
            return;
        }
        let mut actions = self.actions.iter();
        row.retain_mut(|datum| match actions.next() {
            Some(Action::Drop) => false,
            Some(Action::Disguise(disguise)) => {
                disguise.put_on(datum);
                true
            }
            Some(Action::Keep) | None => true,
        });
    }
}

/// The column as it comes out; None if it does not.
fn column_after(table: &Table, column: &Column, action: &Action, key: Option<&Vec<String>>) -> Result<Option<Column>, FilterError> {
    let (name, text) = (|| column.name.to_string(), || table.id.to_string());
    let is_key = key.map_or(column.is_key, |names| names.iter().any(|n| **n == *column.name));
    let disguise = match action {
        Action::Drop if is_key => return Err(FilterError::KeyExcluded { table: text(), column: name() }),
        Action::Drop => return Ok(None),
        Action::Keep => return Ok(Some(Column { is_key, ..column.clone() })),
        Action::Disguise(disguise) => disguise,
    };
    if matches!(disguise, Disguise::Truncate { .. }) && !matches!(column.kind, Kind::Text | Kind::Unknown | Kind::Json) {
        return Err(FilterError::NotText { table: text(), column: name() });
    }
    Ok(Some(Column { kind: Kind::Text, is_key, native: "text".into(), ..column.clone() }))
}

fn tests(table: &Table, options: &FilterOptions) -> Result<Vec<(usize, Test)>, FilterError> {
    let mut tests = Vec::new();
    let conditions = options.rows.iter().filter(|(pattern, _)| pattern.names_table(&table.id)).flat_map(|(_, conditions)| conditions);
    for condition in conditions {
        let (name, column) = (|| table.id.to_string(), || condition.column.clone());
        let i = table.position(&condition.column).ok_or_else(|| FilterError::NoColumn { table: name(), column: column() })?;
        let test = Test::of(condition, &table.columns[i].kind).map_err(|(value, reason)| FilterError::Operand {
            table: name(),
            column: column(),
            value,
            reason,
        })?;
        tests.push((i, test));
    }
    Ok(tests)
}
