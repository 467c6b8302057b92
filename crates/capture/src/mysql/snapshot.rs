//! Reading tables as they are, in chunks by key and without a lock, while the stream goes on (Netflix, "DBLog: A Watermark Based Change-Data-Capture
//! Framework", with the binlog's own places as watermarks).
//!
//! ```text
//! read a chunk ─▶ high = where the binlog ends now ─▶ the stream goes on to high, given out as ever ─▶ the chunk without the keys that
//!                                                                                                      the stream had meanwhile
//! ```
//! A key that the stream had is given by the stream. So the chunk is right at `high`, and no older row ever follows a newer one. A chunk is one
//! batch: what is stored with it says that it is finished, and an interrupted one is read anew.
//!
//! An update that does not have all columns (a minimal row image) cannot stand for its row: the chunk is then read again, half as large, until nobody
//! changes it meanwhile. One that changes the key may take a row from where the snapshot comes to where it has been: the row is read once more, in a
//! chunk of such rows.
//!
//! A table without a key that can be ordered is read in one transaction that begins at a known place of the binlog; the stream waits there. When it is
//! interrupted it begins anew, and so that its rows are not there twice, with a truncate; behind a filter, where the other rows must stay, its rows
//! are one batch if that is possible, and if not, a message says that they come again. So does a snapshot of a table that is stale (`remarks.rs`),
//! whose readers may have rows that are long gone. Such a truncate is marked as part of the snapshot.

use super::catalog::CatalogTable;
use super::ddl::{Name, unhex};
use super::text::TextShape;
use super::wire::{Connection, TextRow, WireError, quoted};
use crate::change::{Change, Op, Row, What};
use crate::datum::Datum;
use crate::table::{Kind, Table, TableId};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Snapshots that wait at a time.
pub const QUEUED_MAX: usize = 16;
/// Rows of one table that wait to be read again.
const AGAIN_MAX: usize = 1_000;
/// How often the beginning of a transaction is tried at a place of the binlog where nobody writes just then.
const QUIET_TRIES_MAX: u32 = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    Initial,
    Incremental,
}

/// How far a snapshot has come, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub why: Why,
    /// When it was begun, microseconds since 1970 by the server's clock.
    pub begun_us: i64,
    /// Database and name of those that are not finished; the first is under way.
    pub tables: VecDeque<(String, String)>,
    /// Key of the last row of the last finished chunk of the first table, each column's text in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    #[serde(default)]
    pub rows: u64,
    #[serde(default)]
    pub chunks_done: u64,
    /// Its rows were given out before this snapshot, wholly or in part.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_again: bool,
    /// Of the first table, all that follows: the position's commit where its reading began; none before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Rows given out.
    #[serde(default)]
    pub table_rows: u64,
    /// Every chunk is finished, and some rows are still to be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_read: bool,
    /// Keys of rows that are to be read once more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<NamedKey>,
}

impl Progress {
    pub fn new(why: Why, begun_us: i64, tables: VecDeque<(String, String)>, filter: Option<String>) -> Self {
        Self {
            why,
            begun_us,
            tables,
            after: None,
            filter,
            rows: 0,
            chunks_done: 0,
            is_again: false,
            since: None,
            table_rows: 0,
            is_read: false,
            again: Vec::new(),
        }
    }

    pub fn table(&self) -> Option<TableId> {
        let (database, table) = self.tables.front()?;
        Some(TableId { database: database.as_str().into(), schema: "".into(), table: table.as_str().into() })
    }

    /// The chunk is in a batch: where the next one begins, none behind the last.
    pub fn finish(&mut self, end: Option<Vec<String>>, n_rows: u64) {
        self.count(n_rows);
        self.chunks_done += 1;
        match end {
            Some(end) => self.after = Some(end),
            None => self.is_read = true,
        }
        self.end_table_if_read();
    }

    /// So many of the rows that were to be read again are in a batch.
    pub fn finish_again(&mut self, n_keys: usize, n_rows: u64) {
        self.count(n_rows);
        self.again.drain(..n_keys.min(self.again.len()));
        self.end_table_if_read();
    }

    fn end_table_if_read(&mut self) {
        if self.is_read && self.again.is_empty() {
            self.end_table();
        }
    }

    /// The next table, if there is one.
    pub fn end_table(&mut self) {
        self.tables.pop_front();
        self.begin_table_anew();
        self.since = None;
    }

    pub fn begin_table_anew(&mut self) {
        (self.after, self.is_read, self.table_rows) = (None, false, 0);
        self.again.clear();
    }

    pub fn count(&mut self, n_rows: u64) {
        self.rows += n_rows;
        self.table_rows += n_rows;
    }

    /// A change of the stream while its table is read. An update of the key that does not have the whole row (a minimal image) may take a row
    /// from where the snapshot comes to where it has been: nobody would ever see its other columns. False if the table is read from its
    /// beginning because of that.
    pub fn observe(&mut self, change: &Change) -> bool {
        let What::Row { table, before: Some(before), after: Some(after) } = &change.what else { return true };
        if self.since.is_none() || self.table().as_ref() != Some(&table.id) || !after.contains(&Datum::Unavailable) {
            return true;
        }
        let key = |row: &Row| key_bytes(table.key().map(|i| row.get(i)));
        if key(after).is_none_or(|new| key(before) == Some(new)) {
            return true;
        }
        if self.again.len() >= AGAIN_MAX {
            tracing::warn!(table = %table.id, "more than {AGAIN_MAX} keys were changed in minimal row images while it was read: it is read from its beginning");
            self.begin_table_anew();
            return false;
        }
        self.again.push(table.key().map(|i| (table.columns[i].name.to_string(), hex(&key_text(&after[i])))).collect());
        true
    }

    /// What is to be read now: rows once more when there are many or when all others were read.
    fn part(&self, rows_max: usize) -> Part {
        let is_time = self.is_read || self.again.len() >= AGAIN_MAX / 2;
        if is_time && !self.again.is_empty() { Part::Again(self.again.len().min(rows_max)) } else { Part::Next }
    }
}

/// Names of the key's columns, and each one's text in hexadecimal.
pub type NamedKey = Vec<(String, String)>;

/// Which rows are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those behind the last chunk.
    Next,
    /// The first so many of those that are to be read again.
    Again(usize),
}

/// How a table is read.
#[derive(Debug, Clone)]
pub struct Plan {
    pub id: TableId,
    pub shape: TextShape,
    /// Positions of the columns to go by, in the key's order. Empty: none that can be ordered.
    key: Vec<usize>,
}

impl Plan {
    pub fn new(table: &CatalogTable) -> Self {
        let shape = TextShape::new(table);
        let is_ordered = |&i: &usize| is_ordered(&shape.columns[i].kind, &shape.columns[i].native);
        let key = if table.key.iter().all(is_ordered) { table.key.clone() } else { Vec::new() };
        Self { id: table.id.clone(), shape, key }
    }

    pub fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// The key's columns in a row of the stream, which may be of another shape.
    fn positions(&self, table: &Table) -> Option<Vec<usize>> {
        self.key.iter().map(|&i| table.position(&self.shape.columns[i].name)).collect()
    }

    /// One row more than the chunk has, to know whether another follows.
    fn sql(&self, progress: &Progress, what: Part, rows_max: usize) -> String {
        let mut conditions: Vec<String> = progress.filter.iter().map(|f| format!("({f}\n)")).collect();
        match what {
            Part::Next => conditions.extend(progress.after.as_ref().and_then(|after| self.behind(after))),
            Part::Again(n) => conditions.push(self.one_of(&progress.again[..n])),
        }
        let condition = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let order: Vec<String> = self.key.iter().map(|&i| quoted(&self.shape.columns[i].name)).collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {} LIMIT {}", order.join(", "), rows_max + 1) };
        format!("SELECT {} FROM {}.{}{condition}{order}", self.shape.select_list(), quoted(&self.id.database), quoted(&self.id.table))
    }

    /// `((a = 1 AND b = 2) OR (a = 3 AND b = 4))`
    fn one_of(&self, keys: &[NamedKey]) -> String {
        let equal = |(name, hex): &(String, String)| {
            let column = self.shape.columns.iter().find(|c| *c.name == **name)?;
            key_literal(&column.kind, hex).map(|literal| format!("{} = {literal}", quoted(name)))
        };
        let one = |key: &NamedKey| key.iter().map(equal).collect::<Option<Vec<_>>>().filter(|parts| !parts.is_empty());
        // A column that is gone took the rows' keys with it: the table was read again since.
        let each: Vec<String> = keys.iter().filter_map(one).map(|parts| format!("({})", parts.join(" AND "))).collect();
        if each.is_empty() { "FALSE".to_owned() } else { format!("({})", each.join(" OR ")) }
    }

    /// `(a > 1) OR (a = 1 AND b > 2)`: a comparison of rows would not use the index.
    fn behind(&self, after: &[String]) -> Option<String> {
        let literals =
            self.key.iter().zip(after).map(|(&i, hex)| key_literal(&self.shape.columns[i].kind, hex)).collect::<Option<Vec<_>>>()?;
        let names: Vec<String> = self.key.iter().map(|&i| quoted(&self.shape.columns[i].name)).collect();
        if literals.len() != names.len() {
            return None;
        }
        let one = |n: usize| {
            let equal = (0..n).map(|i| format!("{} = {}", names[i], literals[i]));
            let parts: Vec<String> = equal.chain([format!("{} > {}", names[n], literals[n])]).collect();
            format!("({})", parts.join(" AND "))
        };
        Some(format!("({})", (0..names.len()).map(one).collect::<Vec<_>>().join(" OR ")))
    }
}

/// Whether the server orders and compares such a column as it does its text in a statement, by the index.
fn is_ordered(kind: &Kind, native: &str) -> bool {
    let is_by_number = native.starts_with("enum") || native.starts_with("set") || native.starts_with("inet");
    let is_plain = matches!(
        kind,
        Kind::Int16
            | Kind::Int32
            | Kind::Int64
            | Kind::UInt64
            | Kind::Decimal(_)
            | Kind::Text
            | Kind::Binary
            | Kind::Date
            | Kind::Time
            | Kind::Timestamp
            | Kind::TimestampTz
            | Kind::Uuid
    );
    is_plain && !is_by_number && !native.starts_with("bit")
}

/// A key's value in a statement, from its text in hexadecimal.
fn key_literal(kind: &Kind, hex: &str) -> Option<String> {
    let bytes = unhex(hex)?;
    match kind {
        Kind::Text => Some(format!("_utf8mb4 x'{hex}'")),
        Kind::Binary => Some(format!("x'{hex}'")),
        Kind::Date | Kind::Time | Kind::Timestamp | Kind::TimestampTz | Kind::Uuid => {
            let is_safe = bytes.iter().all(|b| b.is_ascii_hexdigit() || b"-:. ".contains(b));
            is_safe.then(|| format!("'{}'", String::from_utf8_lossy(&bytes)))
        }
        _ => {
            let is_number = !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_digit() || b"-.".contains(b));
            is_number.then(|| String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Rows that were read, and until where in the binlog the stream must come before they are right.
#[derive(Debug)]
pub struct Chunk {
    pub plan: Plan,
    pub part: Part,
    pub rows: Vec<Option<Row>>,
    keys: HashMap<Vec<u8>, usize>,
    /// Where the next one begins; none of a table's last.
    pub end: Option<Vec<String>>,
    pub high: (String, u64),
    /// Something happened that it cannot be held against: it is to be read again.
    pub is_spoiled: bool,
}

impl Chunk {
    /// Reads at most so many rows and bytes. A result that is longer is read to its end and thrown away behind them.
    pub async fn read(sql: &mut Connection, plan: Plan, progress: &Progress, rows_max: usize, bytes_max: usize) -> Result<Self, WireError> {
        let part = progress.part(rows_max);
        sql.ask(&plan.sql(progress, part, rows_max)).await?;
        let mut chunk = Self { plan, part, rows: Vec::new(), keys: HashMap::new(), end: None, high: (String::new(), 0), is_spoiled: false };
        let (mut last, mut n_bytes, mut has_more) = (None, 0, false);
        while let Some(row) = sql.row().await? {
            if chunk.rows.len() >= rows_max || (n_bytes > bytes_max && !chunk.rows.is_empty()) {
                has_more = true;
                continue;
            }
            n_bytes += row.bytes() + row.0.len() * size_of::<Datum>();
            chunk.push(&row);
            last = Some(row);
        }
        if let (Part::Again(_), true) = (part, has_more) {
            // Rows too large to be read together: fewer the next time.
            chunk.is_spoiled = true;
        }
        chunk.end = last.filter(|_| has_more).map(|row| chunk.key_texts(&row));
        Ok(chunk)
    }

    fn key_texts(&self, row: &TextRow) -> Vec<String> {
        self.plan.key.iter().map(|&i| hex(row.0.get(i).and_then(Option::as_deref).unwrap_or_default())).collect()
    }

    fn push(&mut self, row: &TextRow) {
        let row = self.plan.shape.row(row);
        let names = self.plan.key.iter().map(|&i| Some(&row[i]));
        if let Some(key) = key_bytes(names) {
            self.keys.insert(key, self.rows.len());
        }
        self.rows.push(Some(row));
    }

    /// A change of the stream that is given out before the chunk.
    pub fn reconcile(&mut self, change: &Change) {
        let What::Row { table, before, after } = &change.what else { return };
        if table.id != self.plan.id {
            return;
        }
        let Some(positions) = self.plan.positions(table) else {
            self.is_spoiled = true;
            return;
        };
        let is_partial = after.as_ref().is_some_and(|row| row.contains(&Datum::Unavailable));
        let images = [before, after];
        let keys: Vec<_> =
            images.iter().filter_map(|row| row.as_ref()).map(|row| key_bytes(positions.iter().map(|&i| row.get(i)))).collect();
        // What has no key could be any row.
        if keys.iter().all(Option::is_none) {
            self.is_spoiled = true;
        }
        for key in keys.into_iter().flatten() {
            if let Some(&i) = self.keys.get(&key) {
                self.rows[i] = None;
                self.is_spoiled |= is_partial;
            }
        }
    }

    pub fn touch(&mut self, names: &[Name], is_any: bool) {
        let is_ours = |n: &Name| n.database == *self.plan.id.database && n.table == *self.plan.id.table;
        self.is_spoiled |= is_any || names.iter().any(is_ours);
    }
}

/// A key that can be compared; none if a column of it is not there.
fn key_bytes<'a>(values: impl Iterator<Item = Option<&'a Datum>>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for value in values {
        let (tag, bytes): (u8, &[u8]) = match value? {
            Datum::Int(n) => (1, &n.to_be_bytes()),
            Datum::UInt(n) => (2, &n.to_be_bytes()),
            Datum::Decimal(b) => (3, b),
            Datum::Text(b) => (4, b),
            Datum::Binary(b) => (5, b),
            Datum::Date(n) => (6, &n.to_be_bytes()),
            Datum::Time(n) => (7, &n.to_be_bytes()),
            Datum::Timestamp(n) => (8, &n.to_be_bytes()),
            Datum::TimestampTz(n) => (9, &n.to_be_bytes()),
            Datum::Uuid(u) => (10, u),
            Datum::Odd(b) => (11, b),
            _ => return None,
        };
        out.push(tag);
        out.extend((bytes.len() as u64).to_be_bytes());
        out.extend_from_slice(bytes);
    }
    (!out.is_empty()).then_some(out)
}

/// As the server writes it in a row of text, in a form that a statement takes too.
fn key_text(value: &Datum) -> Vec<u8> {
    let mut text = Vec::new();
    match value {
        Datum::Binary(bytes) => text.extend_from_slice(bytes),
        value => crate::envelope::text::push_text(&mut text, value),
    }
    if let Datum::Timestamp(_) | Datum::TimestampTz(_) = value {
        text.retain(|b| *b != b'Z');
        text.iter_mut().filter(|b| **b == b'T').for_each(|b| *b = b' ');
    }
    text
}

/// What comes before the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// Nothing but the rows.
    #[default]
    Row,
    /// Rows of the table have been given out before: readers are told to forget them.
    Clear,
    /// Rows behind a filter, some of which have been given out and cannot be told apart: they are said to come again, from the first.
    Repeated,
}

/// The prefix of the message before rows that come again.
pub const REPEATED: &str = "mulgil.repeated";

/// The rows of a table without a key, as they are at one place of the binlog.
pub struct Whole {
    sql: Connection,
    pub plan: Plan,
    pub at: (String, u64),
    /// What readers are told before its rows.
    pub first: First,
    is_asked: bool,
    /// One row ahead, to know which is the last.
    ahead: Option<TextRow>,
}

impl Whole {
    /// Begins a transaction where the binlog's end is known: MariaDB says it, elsewhere the end is looked at before and after until it is the same.
    pub async fn begin(mut sql: Connection, plan: Plan, status: &str) -> Result<Option<Self>, WireError> {
        sql.query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        for _ in 0..QUIET_TRIES_MAX {
            let before = end(&mut sql, status).await?;
            sql.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
            let own = sql.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
            let get = |name: &str| own.iter().find(|r| r.text(0).eq_ignore_ascii_case(name)).map(|r| r.text(1));
            let said = get("binlog_snapshot_file")
                .filter(|f| !f.is_empty() && f != "none")
                .zip(get("binlog_snapshot_position").and_then(|p| p.parse().ok()));
            let at = match said {
                Some(at) => Some(at),
                None => Some(end(&mut sql, status).await?).filter(|after| *after == before),
            };
            if let Some(at) = at {
                return Ok(Some(Self { sql, plan, at, first: First::Row, is_asked: false, ahead: None }));
            }
            sql.query("ROLLBACK").await?;
        }
        Ok(None)
    }

    /// The next rows, and whether there are more.
    pub async fn read(&mut self, progress: &Progress, rows_max: usize, bytes_max: usize) -> Result<(Vec<Row>, bool), WireError> {
        if !self.is_asked {
            self.sql.ask(&self.plan.sql(progress, Part::Next, rows_max)).await?;
            self.is_asked = true;
            self.ahead = self.sql.row().await?;
        }
        let (mut rows, mut n_bytes) = (Vec::new(), 0);
        while let Some(row) = self.ahead.take() {
            n_bytes += row.bytes() + row.0.len() * size_of::<Datum>();
            rows.push(self.plan.shape.row(&row));
            self.ahead = self.sql.row().await?;
            if rows.len() >= rows_max || n_bytes > bytes_max {
                break;
            }
        }
        let has_more = self.ahead.is_some();
        Ok((rows, has_more))
    }
}

/// Where the binlog ends now, by the statement that this server has for it.
pub async fn end(sql: &mut Connection, status: &str) -> Result<(String, u64), WireError> {
    let rows = sql.query(status).await?;
    let row = rows.first().ok_or(WireError::Login("the server writes no binlog: set log_bin, and restart it".into()))?;
    Ok((row.text(0), row.number(1).ok_or(WireError::Malformed { what: "end of the binlog" })?))
}

/// All rows that readers have of the table are void.
pub fn clear(table: &Arc<Table>) -> (Op, What) {
    (Op::Truncate, What::Truncate { table: table.clone(), cascade: false, restart_identity: false })
}

/// What was read of the table behind the filter is void, the rest is not.
pub fn repeated(table: &TableId, filter: Option<&str>) -> (Op, What) {
    let content = serde_json::json!({ "table": table.to_string(), "filter": filter }).to_string().into();
    (Op::Message, What::Message { prefix: REPEATED.to_owned(), content, is_transactional: true })
}

pub fn read_row(table: &Arc<Table>, row: Row) -> (Op, What) {
    (Op::Read, What::Row { table: table.clone(), before: None, after: Some(row) })
}
