//! From change to stream: what a change of a table is as a row of a declared stream.
//!
//! **Which changes are rows** ([`Changes`], in the config `changes = "…"`):
//!
//! | word | create, read | update | delete | for |
//! |---|---|---|---|---|
//! | `inserts` (default of trades) | a row | counted | counted | facts that are written once: trades, ticks, payments |
//! | `upserts` | a row | the row as it is now | counted | the present state of things, kept by key |
//! | `all` (default of others) | a row | the row as it is now | the row as it was, `is_deleted` true | the history of changes |
//!
//! What is counted is in the change topic as every change is; a truncate has no rows and is counted too. With `all` the stream must have the
//! columns `op` (text: c, r, u, d) and `is_deleted` (bool), so that nobody takes a deleted row for a live one. Deletes then need the whole row
//! before: `REPLICA IDENTITY FULL`, `binlog_row_image = FULL`.
//!
//! **Marks.** A stream's column named `snapshot` (bool) is true for rows of a snapshot: detectors take them as history, and raise nothing
//! (`crates/detect/src/mark.rs`). `op`, `is_deleted` and `snapshot` are filled by themselves where no column of the table is mapped to them;
//! `@op`, `@is_deleted`, `@snapshot`, `@committed` (the commit's time) and `@position` can be mapped to any column: `event_time = "@committed"`
//! for a table that has no time of its own.
//!
//! **Values** are exact: nothing is rounded, no number becomes a float unless its column is one; what does not fit is a [`Problem`] that
//! names column and reason, and the change belongs to the dead letters. A value that the database did not send is taken from the row
//! before; where that has none it is a problem, never null.
//!
//! **The table may change.** A column that is added is ignored unless it is mapped. A mapped column that is dropped, renamed or retyped so
//! that its values can no longer be those of the stream is a [`Break`]: an alert, and by [`OnBreak`] the end of this stream until somebody
//! changes the mapping, or a dead letter for every change of that shape. An optional column that is filled by its own name counts as mapped
//! from the first shape on that has it, for as long as the mapper lives: name it in the mapping, and its loss is a break after a restart too.

mod bind;
mod cell;

use crate::change::{Change, Op, Row, Snapshot, What};
use crate::table::Table;
use arrow::array::{ArrayRef, RecordBatch};
use bind::{Binding, From};
use cell::Checks;
use jiff::tz::TimeZone;
use mulgil_model::columns::{Cell, ColumnBuilder};
use mulgil_model::position::Position;
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use mulgil_model::time::{EpochUnit, ReceiveTime};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    Inserts,
    Upserts,
    All,
}

impl Changes {
    pub fn parse(text: &str) -> Option<Self> {
        [("inserts", Self::Inserts), ("upserts", Self::Upserts), ("all", Self::All)].into_iter().find(|(t, _)| *t == text).map(|(_, c)| c)
    }

    pub fn default_of(kind: StreamKind) -> Self {
        if kind == StreamKind::Trade { Self::Inserts } else { Self::All }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBreak {
    /// The stream ends with the break's words; its place stays before the change, and nothing is lost.
    #[default]
    Stop,
    /// Every change of the shape becomes a dead letter, which can be replayed when the mapping is right again.
    DeadLetter,
}

/// How a table's columns become a stream's.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub stream: Arc<StreamSchema>,
    pub changes: Changes,
    /// Stream column to table column, or to one of the words with `@`. Others are found under their own name.
    pub columns: BTreeMap<String, String>,
    /// Stream column to the value that every row gets: `market = "KRX"`.
    pub constants: BTreeMap<String, String>,
    /// Of times without a zone. Without it a column of such times cannot be mapped to a time.
    pub time_zone: Option<TimeZone>,
    /// Of times that are numbers.
    pub time_unit: EpochUnit,
    /// How the table spells the taker's side, in any case of ASCII letters, beside BUY and SELL: to true for buy.
    pub sides: BTreeMap<String, bool>,
    pub on_break: OnBreak,
    /// How far an event time may lie behind the receive time (in its future).
    pub future_us_max: i64,
}

/// The longest text of one value.
pub const FIELD_BYTES_MAX: usize = 64 << 10;

impl Mapping {
    pub fn new(stream: Arc<StreamSchema>) -> Self {
        let sides =
            [("b", true), ("bid", true), ("buyer", true), ("매수", true), ("s", false), ("ask", false), ("seller", false), ("매도", false)];
        Self {
            changes: Changes::default_of(stream.kind),
            stream,
            columns: BTreeMap::new(),
            constants: BTreeMap::new(),
            time_zone: None,
            time_unit: EpochUnit::default(),
            sides: sides.into_iter().map(|(text, is_buy)| (text.to_owned(), is_buy)).collect(),
            on_break: OnBreak::default(),
            future_us_max: 300_000_000,
        }
    }
}

/// The user's mistake in a mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    #[error("the mapping names the column '{column}', which stream '{stream}' does not have")]
    NoColumn { stream: String, column: String },
    #[error("column '{column}' is both a constant and mapped from a column: remove one of them")]
    Both { column: String },
    #[error("the constant of column '{column}' is not valid: {reason}")]
    Constant { column: String, reason: String },
    #[error("column '{column}' is mapped from '{word}': the words are @op, @is_deleted, @snapshot, @committed and @position")]
    Word { column: String, word: String },
    #[error("'{word}' cannot fill column '{column}', which is {kind}: it is {wanted}")]
    WordKind { column: String, word: String, kind: ColumnType, wanted: &'static str },
    #[error(
        "stream '{stream}' takes all changes and has no column '{column}' ({wanted}): add it, or choose changes = \"inserts\" or \"upserts\""
    )]
    Unmarked { stream: String, column: &'static str, wanted: &'static str },
}

/// A change that is no row of the stream though it should be: a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The change's place in what was handed in.
    pub change: usize,
    pub position: Position,
    /// The table's column.
    pub column: Option<String>,
    pub reason: String,
}

/// A shape of the table that the mapping does not fit: an alert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream '{stream}' cannot take {table} as it is since version {version}: column '{column}' {reason}; change the mapping of column '{target}', or the table"
)]
pub struct Break {
    pub stream: String,
    pub table: String,
    pub version: u32,
    /// The table's column.
    pub column: String,
    /// The stream's.
    pub target: String,
    pub reason: String,
    /// Of the first change of that shape.
    pub position: Position,
}

/// Changes that were read and are no rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
    pub messages: u64,
}

/// What came of a run of changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    pub batch: RecordBatch,
    /// For each row of the batch, the place of its change in what was handed in; ascending.
    pub changes: Vec<usize>,
    pub problems: Vec<Problem>,
    /// Of shapes that were met for the first time; with [`OnBreak::Stop`] at most one, and what was handed in is done up to its change only.
    pub breaks: Vec<Break>,
    pub skipped: Counts,
    /// How many of the changes that were handed in are done: fewer than all only at a break that stops.
    pub n_done: usize,
}

/// Shapes that are kept; all are forgotten when there are more.
const SHAPES_MAX: usize = 1_024;

/// How a shape fills the stream, or why it cannot.
type Bound = Result<Arc<Binding>, Break>;

/// Makes rows of one stream from the changes of its table. Holds no rows.
pub struct Mapper {
    mapping: Mapping,
    checks: Checks,
    /// By the address of the shape, which is held, so that it stays its own.
    bindings: HashMap<usize, (Arc<Table>, Bound)>,
    /// Columns of the stream that some shape has filled by their own name: from then on they are mapped.
    once_found: BTreeSet<usize>,
    constants: Vec<Option<Cell>>,
    texts: String,
    /// Room for one row.
    cells: Vec<Cell>,
}

impl Mapper {
    pub fn new(mapping: Mapping) -> Result<Self, MappingError> {
        bind::check(&mapping)?;
        let checks = Checks::of(&mapping);
        let (mut constants, mut texts) = (vec![None; mapping.stream.columns.len()], String::new());
        for (column, value) in &mapping.constants {
            let at = mapping.stream.index_of(column).expect("invariant: the names of constants were checked");
            let cell = checks.text_cell(at, value, i64::MAX, &mut texts);
            constants[at] = Some(cell.map_err(|reason| MappingError::Constant { column: column.clone(), reason })?);
        }
        Ok(Self { mapping, checks, bindings: HashMap::new(), once_found: BTreeSet::new(), constants, texts, cells: Vec::new() })
    }

    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The rows of `changes`, which are of the stream's table and in order. After a break that stops, the same changes give the same break
    /// again until the mapping or the table is another.
    pub fn map(&mut self, changes: &[Change], received: ReceiveTime) -> Typed {
        self.map_some(&changes.iter().collect::<Vec<_>>(), received)
    }

    /// The same, of changes that are picked out among those of other tables.
    pub fn map_some(&mut self, changes: &[&Change], received: ReceiveTime) -> Typed {
        let mut columns: Vec<_> = self.mapping.stream.columns.iter().map(|c| ColumnBuilder::new(c.kind)).collect();
        let mut typed = Typed {
            batch: RecordBatch::new_empty(Arc::clone(self.mapping.stream.arrow())),
            changes: Vec::new(),
            problems: Vec::new(),
            breaks: Vec::new(),
            skipped: Counts::default(),
            n_done: changes.len(),
        };
        let latest_us = received.micros().saturating_add(self.mapping.future_us_max);
        for (i, change) in changes.iter().enumerate() {
            let Some((table, row, before)) = self.row_of(change, &mut typed.skipped) else { continue };
            let (binding, is_new) = self.binding(table, change.position);
            let binding = match binding {
                Ok(binding) => binding,
                Err(found) => {
                    let stops = self.mapping.on_break == OnBreak::Stop;
                    let (column, reason) = (Some(found.column.clone()), found.to_string());
                    typed.breaks.extend((is_new || stops).then_some(found));
                    if stops {
                        typed.n_done = i;
                        break;
                    }
                    typed.problems.push(Problem { change: i, position: change.position, column, reason });
                    continue;
                }
            };
            match self.append(&mut columns, change, &binding, row, before, latest_us) {
                Ok(()) => typed.changes.push(i),
                Err((column, reason)) => typed.problems.push(Problem { change: i, position: change.position, column, reason }),
            }
        }
        let arrays: Vec<ArrayRef> = columns.iter_mut().map(ColumnBuilder::finish).collect();
        typed.batch = RecordBatch::try_new(Arc::clone(self.mapping.stream.arrow()), arrays)
            .expect("invariant: every row has a value or null in every column, and null only where allowed");
        typed
    }

    /// The row that a change is to the stream, and the one before it. None: it is none.
    fn row_of<'a>(&self, change: &'a Change, skipped: &mut Counts) -> Option<(&'a Arc<Table>, Option<&'a Row>, Option<&'a Row>)> {
        let (table, before, after) = match &change.what {
            What::Row { table, before, after } => (table, before.as_ref(), after.as_ref()),
            What::Truncate { .. } => {
                skipped.truncates += 1;
                return None;
            }
            What::Message { .. } => {
                skipped.messages += 1;
                return None;
            }
        };
        match (change.op, self.mapping.changes) {
            (Op::Update, Changes::Inserts) => skipped.updates += 1,
            (Op::Delete, Changes::Inserts | Changes::Upserts) => skipped.deletes += 1,
            (Op::Delete, Changes::All) => return Some((table, before, None)),
            _ => return Some((table, after, before)),
        }
        None
    }

    fn binding(&mut self, table: &Arc<Table>, position: Position) -> (Result<Arc<Binding>, Break>, bool) {
        let address = Arc::as_ptr(table) as usize;
        if let Some((_, binding)) = self.bindings.get(&address) {
            return (binding.clone(), false);
        }
        if self.bindings.len() >= SHAPES_MAX {
            self.bindings.clear();
        }
        let binding = Binding::of(table, &self.mapping, &self.once_found, position).map(Arc::new);
        if let Ok(binding) = &binding {
            let found = binding.from.iter().enumerate().filter(|(_, from)| matches!(from, From::Column(_)));
            self.once_found.extend(found.map(|(i, _)| i));
        }
        self.bindings.insert(address, (Arc::clone(table), binding.clone()));
        (binding, true)
    }

    fn append(
        &mut self,
        columns: &mut [ColumnBuilder],
        change: &Change,
        binding: &Binding,
        row: Option<&Row>,
        before: Option<&Row>,
        latest_us: i64,
    ) -> Result<(), (Option<String>, String)> {
        let row = row.ok_or((None, "the change has no row: the database did not send it".to_owned()))?;
        if row.len() != binding.n_columns || before.is_some_and(|b| b.len() != binding.n_columns) {
            return Err((None, "the change has a row of another width than its table: this is a fault of the source".to_owned()));
        }
        let n_constant_bytes = self.texts.len();
        self.cells.clear();
        for (target, from) in binding.from.iter().enumerate() {
            let cell = match from {
                From::Constant => self.constants[target].ok_or_else(|| "has no value".to_owned()),
                From::Nothing => Ok(Cell::Null),
                From::Word(word) => self.checks.word_cell(target, *word, change, latest_us, &mut self.texts),
                From::Column(i) => match cell::sent(row, before, *i) {
                    Some(datum) => self.checks.cell(target, datum, latest_us, &mut self.texts),
                    None => Err(cell::NOT_SENT.to_owned()),
                },
            };
            let cell = cell.and_then(|cell| {
                if cell == Cell::Null && !self.checks.is_nullable(target) { Err("is required".to_owned()) } else { Ok(cell) }
            });
            match cell {
                Ok(cell) => self.cells.push(cell),
                Err(reason) => {
                    self.texts.truncate(n_constant_bytes);
                    return Err((Some(binding.names[target].clone()), reason));
                }
            }
        }
        for (column, cell) in columns.iter_mut().zip(&self.cells) {
            column.append(*cell, &self.texts);
        }
        self.texts.truncate(n_constant_bytes);
        Ok(())
    }
}

/// True for a row of any snapshot.
fn is_of_snapshot(change: &Change) -> bool {
    change.op == Op::Read || change.origin.snapshot != Snapshot::No
}
