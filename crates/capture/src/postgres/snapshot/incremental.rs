//! Snapshots asked for while streaming: chunk by chunk between two watermarks in the change stream, as in "DBLog: A Watermark Based
//! Change-Data-Capture Framework" (Andreakis, Papapanagiotou, 2020) and Debezium's incremental snapshots.
//!
//! ```text
//! emit low ─▶ read the next chunk ─▶ emit high                         by a task with a connection of its own
//! stream:   … low … changes of the table: their keys are kept … high   the chunk is given here, without those keys
//! ```
//!
//! A row of the chunk that nothing touched between the marks is the same at the high one. Rows are told apart as the changes name them, by the
//! primary key or the replica identity, which need not be the key that is paged by; a change that does not say which row it was makes the
//! chunk void. What the stream gave before the low mark must be contained in the chunk's view; a transaction becomes visible a moment after its
//! commit is in the log (longer with a synchronous standby), so this is checked ([`super::recent`]). A chunk that is void or came too early is
//! read again, after a rest that grows. Marks are transactional logical messages, which any user may write.

use super::error::SnapshotError;
use super::key::{self, KeyColumn};
use super::notes::KeyText;
use super::plan::{Part, TablePlan};
use super::reader::Shapes;
use super::recent::Recent;
use super::rows::Rows;
use super::view::View;
use super::{SnapshotSettings, Wanted, connect};
use crate::change::{Change, Op, Origin, Place, Row, Snapshot, What};
use crate::postgres::address::Address;
use crate::postgres::catalog::{Attribute, Catalog, Selection, number, text};
use crate::postgres::wire::{Connection, WireError, literal};
use crate::table::Table;
use mulgil_model::position::Position;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;

/// The prefix of watermark messages: not for consumers.
pub const WATERMARK_PREFIX: &str = "mulgil.watermark";
/// Tables that may wait.
pub const TABLES_MAX: usize = 1_000;
/// Rows that are told apart between two marks; with more, the chunk is read again.
const TOUCHED_MAX: usize = 1_000_000;
/// Before a chunk that was of no use is read again: doubled each time it happens, and begun anew with the first chunk that is of use.
const REST_FIRST: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_secs(10);
/// For one row of a chunk.
const ROW_TIMEOUT: Duration = Duration::from_secs(300);

/// Stored with every batch while there is something to do, under `incremental`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IncrementalNotes {
    pub is_paused: bool,
    pub tables: VecDeque<TableTask>,
}

impl IncrementalNotes {
    pub fn request(&mut self, tables: Vec<Wanted>) -> Result<(), String> {
        if self.tables.len() + tables.len() > TABLES_MAX {
            return Err(format!("more than {TABLES_MAX} tables would wait for a snapshot: ask again when some are done"));
        }
        self.add(tables);
        Ok(())
    }

    /// Behind those that wait, but for those that wait already.
    pub fn add(&mut self, tables: impl IntoIterator<Item = Wanted>) {
        for wanted in tables {
            if !self.tables.iter().any(|t| t.wanted() == wanted) {
                let Wanted { schema, name, columns, filter } = wanted;
                self.tables.push_back(TableTask { schema, name, columns, filter, at: None, n_rows: 0 });
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableTask {
    pub schema: String,
    pub name: String,
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    #[serde(default)]
    pub filter: Option<String>,
    /// The last key that was given, and the names of its columns; with another key the table begins again.
    #[serde(default)]
    pub at: Option<(Vec<String>, KeyText)>,
    #[serde(default)]
    pub n_rows: u64,
}

impl TableTask {
    fn wanted(&self) -> Wanted {
        Wanted { schema: self.schema.clone(), name: self.name.clone(), columns: self.columns.clone(), filter: self.filter.clone() }
    }
}

pub struct Incremental {
    address: Address,
    settings: SnapshotSettings,
    shapes: Shapes,
    notes: IncrementalNotes,
    /// Tells marks of this run from those of another, which the stream may still bring.
    run: u64,
    /// Of the chunk under way.
    number: u64,
    window: Window,
    touched_max: usize,
    recent: Recent,
    is_under_way: bool,
    /// Chunks that were of no use, one after the other.
    n_void: u32,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// At most one: the chunk under way. A task of its own, since the stream goes on meanwhile.
    task: JoinSet<Result<Ended, SnapshotError>>,
    idle: Option<Connection>,
}

#[derive(Debug, Default)]
enum Window {
    #[default]
    Closed,
    /// Between the marks.
    Open {
        names: RowNames,
        /// The rows of the table that changed, by the bytes of their names.
        touched: BTreeSet<Vec<u8>>,
        /// Transactions that were given before the low mark.
        earlier: Recent,
        /// The chunk is of no use: the table was truncated, too much changed, or it is not known what.
        is_void: bool,
    },
}

/// By which columns rows are paged, and by which changes name them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RowNames {
    key: Vec<KeyColumn>,
    identity: Vec<Arc<str>>,
}

impl RowNames {
    fn of(plan: &TablePlan) -> Self {
        let identity = identity(&plan.table).unwrap_or_else(|| plan.key.iter().map(|c| c.name.as_str().into()).collect());
        Self { key: plan.key.clone(), identity }
    }

    /// Where the columns stand in this shape of the table; `None`: rows are named otherwise there.
    fn places(&self, table: &Table) -> Option<Vec<usize>> {
        if identity(table).is_some_and(|now| now != self.identity) {
            return None;
        }
        self.identity.iter().map(|name| table.position(name)).collect()
    }

    /// The names of the row that a change touched, before and after it. `None`: it does not say them all.
    fn touched(&self, table: &Table, before: Option<&Row>, after: Option<&Row>) -> Option<Vec<Vec<u8>>> {
        let places = self.places(table)?;
        let mut names = Vec::with_capacity(2);
        if let Some(before) = before {
            names.push(key::bytes_of(&places, before)?);
        }
        if let Some(after) = after {
            match key::bytes_of(&places, after) {
                Some(name) => names.push(name),
                // Large values that did not change are only in the row before.
                None if before.is_some() => {}
                None => return None,
            }
        }
        Some(names)
    }
}

/// The columns of the table's key; `None`: it has none, and only whole rows name themselves (replica identity FULL).
fn identity(table: &Table) -> Option<Vec<Arc<str>>> {
    let names: Vec<Arc<str>> = table.key().map(|at| table.columns[at].name.clone()).collect();
    (!names.is_empty()).then_some(names)
}

enum Event {
    /// Told before the low mark is written.
    Planned { number: u64, names: RowNames },
    /// Told before the high mark is written.
    Read(Chunk),
}

/// A chunk as it was read.
struct Chunk {
    number: u64,
    view: View,
    plan: Arc<TablePlan>,
    rows: Vec<Row>,
    /// The key of the last row.
    upto: Option<KeyText>,
    is_end: bool,
    read_us: i64,
}

/// How a task ended.
struct Ended {
    number: u64,
    connection: Connection,
    /// Both marks are written, and the stream will bring them. Else the chunk is begun again.
    is_read: bool,
    /// Why the table cannot be read.
    left_out: Option<SnapshotError>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Mark {
    run: u64,
    number: u64,
    is_high: bool,
}

impl Incremental {
    /// `run` must differ from that of every earlier run of this source: the time of day will do.
    pub fn new(address: Address, settings: SnapshotSettings, shapes: Shapes, run: u64, notes: IncrementalNotes) -> Self {
        let (sender, events) = channel(2);
        let mut incremental = Self {
            address,
            settings,
            shapes,
            notes,
            run,
            number: 0,
            window: Window::Closed,
            touched_max: TOUCHED_MAX,
            recent: Recent::default(),
            is_under_way: false,
            n_void: 0,
            events,
            sender,
            task: JoinSet::new(),
            idle: None,
        };
        incremental.begin();
        incremental
    }

    /// Reads these tables again, behind those that are being read. The caller knows that they are captured. Accepted once the notes are stored.
    pub fn request(&mut self, tables: Vec<Wanted>) -> Result<(), String> {
        self.notes.request(tables)?;
        self.begin();
        Ok(())
    }

    /// Gives up these tables, all if none is named. What was given stays given.
    pub fn stop(&mut self, tables: &[(String, String)]) {
        let is_stopped = |t: &TableTask| tables.is_empty() || tables.iter().any(|(schema, name)| *schema == t.schema && *name == t.name);
        if self.notes.tables.front().is_some_and(is_stopped) {
            self.forget();
        }
        self.notes.tables.retain(|t| !is_stopped(t));
        self.begin();
    }

    /// Finishes no more chunks until told to go on.
    pub fn pause(&mut self, is_paused: bool) {
        self.notes.is_paused = is_paused;
        if is_paused {
            self.forget();
        }
        self.begin();
    }

    pub fn is_active(&self) -> bool {
        !self.notes.tables.is_empty()
    }

    /// What to store with the next batch, under `incremental`.
    pub fn notes(&self) -> &IncrementalNotes {
        &self.notes
    }

    /// Tell every change here in the order in which it is given to the consumer, before the message that follows it.
    pub fn on_change(&mut self, change: &Change) {
        let Window::Open { names, touched, is_void, .. } = &mut self.window else { return };
        let Some(task) = self.notes.tables.front() else { return };
        let is_of_table = change.what.table().is_some_and(|t| *t.schema == *task.schema && *t.table == *task.name);
        if !is_of_table {
            return;
        }
        match &change.what {
            What::Row { table, before, after } if touched.len() < self.touched_max => {
                match names.touched(table, before.as_ref(), after.as_ref()) {
                    Some(names) => touched.extend(names),
                    None => *is_void = true,
                }
            }
            What::Row { .. } | What::Truncate { .. } => *is_void = true,
            What::Message { .. } => {}
        }
    }

    /// Tell the number of every transaction of the stream here, when it has been given to the consumer.
    pub fn on_commit(&mut self, xid: u32) {
        self.recent.push(xid);
    }

    /// Tell every logical message here whose prefix is [`WATERMARK_PREFIX`]. The answer are the rows of a chunk, to be given at this place of the
    /// stream: `place` is that of the message's transaction, and `at` of the message itself; the rows follow it. All of them belong into one
    /// batch, together with [`Self::notes`] as they are then.
    pub fn on_watermark(&mut self, content: &[u8], at: Position, place: &Place) -> Result<Vec<Change>, SnapshotError> {
        let Ok(mark) = serde_json::from_slice::<Mark>(content) else { return Ok(Vec::new()) };
        if (mark.run, mark.number) != (self.run, self.number) {
            return Ok(Vec::new());
        }
        if !mark.is_high {
            if let Some(Event::Planned { number, names }) = self.told()
                && number == self.number
            {
                self.window = Window::Open { names, touched: BTreeSet::new(), earlier: self.recent.clone(), is_void: false };
            }
            return Ok(Vec::new());
        }
        let window = std::mem::take(&mut self.window);
        let changes = match self.told() {
            Some(Event::Read(chunk)) => self.given(chunk, window, at, place),
            _ => None,
        };
        self.n_void = if changes.is_some() { 0 } else { self.n_void.saturating_add(1) };
        self.is_under_way = false;
        self.begin();
        Ok(changes.unwrap_or_default())
    }

    fn told(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Waits for a failure of the task that reads: for ever, if there is none. To be polled beside the stream, since it also begins the next
    /// chunk. May be dropped at any time.
    pub async fn failure(&mut self) -> SnapshotError {
        loop {
            match self.task.join_next().await {
                Some(Ok(Ok(ended))) => self.ended(ended),
                Some(Ok(Err(error))) => return error,
                Some(Err(_)) => return SnapshotError::Lost,
                None => std::future::pending::<()>().await,
            }
        }
    }

    fn ended(&mut self, ended: Ended) {
        if ended.number != self.number {
            return;
        }
        self.idle = Some(ended.connection);
        if let Some(error) = ended.left_out {
            tracing::warn!(%error, "an incremental snapshot leaves a table out");
            self.notes.tables.pop_front();
        }
        if !ended.is_read {
            (self.is_under_way, self.window) = (false, Window::Closed);
            while self.told().is_some() {}
        }
        self.begin();
    }

    /// The rows of the chunk that are the same at the high mark as when they were read. `None`: it must be read again.
    fn given(&mut self, chunk: Chunk, window: Window, at: Position, place: &Place) -> Option<Vec<Change>> {
        let Window::Open { names, touched, earlier, is_void } = window else { return None };
        let task = self.notes.tables.front_mut().filter(|_| chunk.number == self.number)?;
        // What was given before the low mark and is not in the view is newer than the rows.
        let is_early = !earlier.is_all_in(&chunk.view);
        self.recent.forget_those_in(&chunk.view);
        if is_void || is_early || names != RowNames::of(&chunk.plan) {
            return None;
        }
        let places = names.places(&chunk.plan.table)?;
        let origin = Arc::new(Origin { committed_us: chunk.read_us, snapshot: Snapshot::Incremental, place: place.clone() });
        let mut position = at;
        let mut changes = Vec::with_capacity(chunk.rows.len());
        for row in chunk.rows {
            if touched.contains(&key::bytes_of(&places, &row)?) {
                continue;
            }
            position.ordinal += 1;
            let what = What::Row { table: chunk.plan.table.clone(), before: None, after: Some(row) };
            changes.push(Change { op: Op::Read, what, position, origin: origin.clone() });
        }
        task.n_rows += changes.len() as u64;
        if let Some(upto) = chunk.upto.filter(|_| !chunk.is_end) {
            task.at = Some((names.key.into_iter().map(|c| c.name).collect(), upto));
        } else {
            self.notes.tables.pop_front();
        }
        Some(changes)
    }

    /// What is under way is of no use any more: its marks are no longer known.
    fn forget(&mut self) {
        self.number += 1;
        self.window = Window::Closed;
        self.task.abort_all();
        self.task = JoinSet::new();
        self.idle = None;
        self.is_under_way = false;
        while self.told().is_some() {}
    }

    /// Has the next chunk read, if none is under way.
    fn begin(&mut self) {
        let is_free = !self.is_under_way && self.task.is_empty() && !self.notes.is_paused;
        let Some(task) = self.notes.tables.front().filter(|_| is_free) else { return };
        self.number += 1;
        self.is_under_way = true;
        let job = Job {
            address: self.address.clone(),
            settings: self.settings.clone(),
            shapes: self.shapes.clone(),
            task: task.clone(),
            mark: Mark { run: self.run, number: self.number, is_high: false },
            events: self.sender.clone(),
            rest: rest(self.n_void),
        };
        self.task.spawn(job.run(self.idle.take()));
    }
}

/// Before the next chunk, behind so many that were of no use.
fn rest(n_void: u32) -> Duration {
    match n_void {
        0 => Duration::ZERO,
        n => REST_FIRST.saturating_mul(1 << (n - 1).min(16)).min(REST_MAX),
    }
}

/// Reads one chunk.
struct Job {
    address: Address,
    settings: SnapshotSettings,
    shapes: Shapes,
    task: TableTask,
    mark: Mark,
    events: Sender<Event>,
    rest: Duration,
}

impl Job {
    /// Gives the connection back, to be used again.
    async fn run(mut self, idle: Option<Connection>) -> Result<Ended, SnapshotError> {
        tokio::time::sleep(self.rest).await;
        let mut connection = match idle {
            Some(connection) => connection,
            None => connect(&self.address).await?,
        };
        let number = self.mark.number;
        match self.chunk(&mut connection).await {
            Ok(()) => Ok(Ended { number, connection, is_read: true, left_out: None }),
            Err(error @ (SnapshotError::NoTable(_) | SnapshotError::NoKey(_))) => {
                connection.query("ROLLBACK").await?;
                Ok(Ended { number, connection, is_read: false, left_out: Some(error) })
            }
            Err(error) if error.is_table_changed() => {
                connection.query("ROLLBACK").await?;
                Ok(Ended { number, connection, is_read: false, left_out: None })
            }
            Err(error) => Err(error),
        }
    }

    async fn chunk(&mut self, connection: &mut Connection) -> Result<(), SnapshotError> {
        let of_mark = self.mark.number;
        let names = RowNames::of(&self.plan(connection).await?);
        self.events.send(Event::Planned { number: of_mark, names }).await.ok();
        self.write_mark(connection, false).await?;
        connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let sql = "SELECT pg_current_snapshot()::text, (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let rows = connection.query(sql).await?;
        let row = rows.first().ok_or(ODD)?;
        let (view, read_us) = (View::parse(text(row, 0)?, 0, false).ok_or(ODD)?, number(row, 1)?);
        // Planned again, so that the columns are those of the rows.
        let plan = self.plan(connection).await?;
        let names = plan.key.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
        let above = self.task.at.take().filter(|(columns, _)| *columns == names).map(|(_, key)| key);
        let limit = self.settings.chunk_rows.max(1);
        let part = Part::Keys { above, upto: None };
        connection.copy_out(&plan.copy_first(&part, limit)).await.map_err(|e| plan.failed(e))?;
        let mut decoder = Rows::new(&plan);
        let (mut rows, mut n_bytes, mut n_rows) = (Vec::new(), 0, 0);
        while let Some(row) = connection.copied(ROW_TIMEOUT).await.map_err(|e| plan.failed(e))? {
            n_rows += 1;
            // A chunk that has grown too large ends here; the rest of the answer is read and left to the next.
            if rows.is_empty() || n_bytes < self.settings.chunk_bytes {
                let (row, row_bytes) = decoder.decode(row)?;
                n_bytes += row_bytes;
                rows.push(row);
            }
        }
        connection.query("COMMIT").await?;
        let upto = if rows.is_empty() { None } else { decoder.key()? };
        let is_end = n_rows < limit && rows.len() == n_rows;
        self.events.send(Event::Read(Chunk { number: of_mark, view, plan: Arc::new(plan), rows, upto, is_end, read_us })).await.ok();
        self.write_mark(connection, true).await
    }

    async fn plan(&self, connection: &mut Connection) -> Result<TablePlan, SnapshotError> {
        let wanted = self.task.wanted();
        let name = format!("{}.{}", wanted.schema, wanted.name);
        let selection = Selection::Names(vec![(wanted.schema.clone(), wanted.name.clone())]);
        let catalog = Catalog::read(connection, &selection).await?;
        let relation = catalog.relations.first().ok_or_else(|| SnapshotError::NoTable(name.clone()))?;
        let table = |attributes: &[Attribute]| (self.shapes)(relation, attributes, &catalog.types);
        let plan = TablePlan::new(relation, &catalog.types, &wanted, table);
        if plan.key.is_empty() { Err(SnapshotError::NoKey(name)) } else { Ok(plan) }
    }

    /// In a transaction of its own, whose commit is flushed at once: a message without one waits in an idle server's buffers.
    async fn write_mark(&self, connection: &mut Connection, is_high: bool) -> Result<(), SnapshotError> {
        let mark = serde_json::json!(Mark { is_high, ..self.mark }).to_string();
        let sql = format!("SELECT pg_logical_emit_message(true, {}, {})", literal(WATERMARK_PREFIX), literal(&mark));
        connection.query(&sql).await?;
        Ok(())
    }
}

const ODD: WireError = WireError::Protocol("no snapshot where one was asked for");

#[cfg(test)]
mod tests;
