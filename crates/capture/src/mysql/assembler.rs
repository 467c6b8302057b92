//! Events to changes: transactions from their first event to their last, in order, each row with its position.
//!
//! ```text
//! begin (GTID, BEGIN) ─▶ rows, savepoints ─▶ end (XID, COMMIT) ─▶ ready
//!                                        └▶ ROLLBACK, or a new file before the end: nothing of it
//! ```
//! The rows of a transaction wait until its end, for a binlog can undo them where tables without transactions took part. One that is larger than a batch is
//! given out in parts, and `rows_done` says how much of it: should a rollback then reach back into what was given out, the source refuses
//! to go on, since nothing but a new snapshot can put that right. Servers write only such rollbacks if the transaction also changed a table that has no transactions.
//!
//! Rows of `XA PREPARE` are given out when they are prepared.

use super::binlog::decoder::{Body, Decoder, Event};
use super::binlog::events::Query;
use super::binlog::header::Header;
use super::binlog::rows::{Image, Rows, RowsOp};
use super::ddl::{Name, Statement};
use super::place::{FIRST_AT, OneGtid, Place, file_number};
use super::shapes::{Made, MakeError, Shapes};
use super::wire::Connection;
use crate::change::{self, Change, Op, Origin, Snapshot, What};
use crate::datum::Datum;
use crate::source::SourceError;
use mulgil_model::position::Position;
use std::sync::Arc;

/// Savepoints of one transaction.
const SAVEPOINTS_MAX: usize = 1 << 16;
/// Names of tables that are kept for a chunk to see; behind that it takes all tables as touched.
const TOUCHED_MAX: usize = 1 << 10;

pub struct Assembler {
    pub shapes: Shapes,
    pub place: Place,
    pub open: Option<Open>,
    /// Rows of the first transaction that were given out before.
    pub skip: u64,
    pub ready: Vec<Change>,
    pub ready_bytes: usize,
    /// Of the last change or event.
    pub last: Position,
    pub committed_us: Option<i64>,
    /// Tables that were emptied or whose shape may have changed, since they were last taken; a snapshot's chunk is held against them.
    pub touched: Vec<Name>,
    pub is_any_touched: bool,
    /// End of the last event.
    at: u64,
    /// The event whose rows are counted, and the next row's number.
    ordinal: (u64, u64),
}

/// A transaction that has not ended.
pub struct Open {
    gtid: Option<OneGtid>,
    thread: Option<u32>,
    committed_us: i64,
    /// One statement without an end of its own.
    is_standalone: bool,
    pub changes: Vec<Change>,
    pub bytes: usize,
    rows: u64,
    /// Rows that have been given out.
    pub flushed: u64,
    /// Name, rows at that time, changes at that time.
    savepoints: Vec<(String, u64, usize)>,
}

impl Open {
    fn new(gtid: Option<OneGtid>, committed_us: i64, is_standalone: bool, skip: u64) -> Self {
        Self {
            gtid,
            thread: None,
            committed_us,
            is_standalone,
            changes: Vec::new(),
            bytes: 0,
            rows: 0,
            flushed: skip,
            savepoints: Vec::new(),
        }
    }

    fn savepoint(&mut self, name: String) -> Result<(), SourceError> {
        // The same name again takes the old one's place.
        self.savepoints.retain(|(n, ..)| *n != name);
        if self.savepoints.len() >= SAVEPOINTS_MAX {
            return Err(SourceError::refused(format!("a transaction has more than {SAVEPOINTS_MAX} savepoints")));
        }
        self.savepoints.push((name, self.rows, self.changes.len()));
        Ok(())
    }

    /// Undoes what came behind this many rows. What was rolled back before the rows were given out has been undone then.
    fn undo(&mut self, rows: u64, n_changes: usize) -> Result<(), SourceError> {
        if rows < self.flushed && self.rows >= self.flushed {
            return Err(SourceError::refused(
                "a transaction that is larger than a batch was rolled back after part of it was given out (it also changed a table without transactions): take a new snapshot, or raise batch_bytes_max",
            ));
        }
        self.changes.truncate(n_changes);
        self.bytes = self.changes.iter().map(bytes_of).sum();
        Ok(())
    }

    /// Takes what has come so far.
    fn flush(&mut self) -> Vec<Change> {
        self.flushed = self.flushed.max(self.rows);
        self.savepoints.iter_mut().for_each(|(_, _, n_changes)| *n_changes = 0);
        self.bytes = 0;
        std::mem::take(&mut self.changes)
    }

    fn rollback_to(&mut self, name: &str) -> Result<(), SourceError> {
        let Some(i) = self.savepoints.iter().position(|(n, ..)| n == name) else { return Ok(()) };
        let (_, rows, n_changes) = self.savepoints[i];
        self.savepoints.truncate(i + 1);
        self.undo(rows, n_changes)
    }
}

/// Of a change, in memory, about.
pub fn bytes_of(change: &Change) -> usize {
    let row = |row: &Option<change::Row>| row.iter().flatten().map(|d| size_of::<Datum>() + d.heap_bytes()).sum::<usize>();
    size_of::<Change>()
        + match &change.what {
            What::Row { before, after, .. } => row(before) + row(after),
            What::Truncate { .. } | What::Message { .. } => 0,
        }
}

impl Assembler {
    pub fn new(shapes: Shapes, place: Place, skip: u64, last: Position) -> Self {
        let at = place.at;
        Self {
            shapes,
            place,
            open: None,
            skip,
            ready: Vec::new(),
            ready_bytes: 0,
            last,
            committed_us: None,
            touched: Vec::new(),
            is_any_touched: false,
            at,
            ordinal: (0, 0),
        }
    }

    /// Nothing of a transaction has been read or given out that is not also ended.
    pub fn is_between(&self) -> bool {
        self.open.is_none() && self.skip == 0
    }

    /// Gives out what has come of the open transaction.
    pub fn flush_open(&mut self) {
        if let Some(open) = &mut self.open {
            self.ready_bytes += open.bytes;
            self.ready.extend(open.flush());
        }
    }

    /// Rows of the open transaction that are in a batch or were in an earlier one.
    pub fn rows_done(&self) -> u64 {
        self.open.as_ref().map_or(self.skip, |open| open.flushed)
    }

    pub async fn event(&mut self, event: Event, decoder: &mut Decoder, sql: &mut Connection) -> Result<(), SourceError> {
        let header = event.header;
        if let Body::Payload(mut payload) = event.body {
            self.at = self.end_of(&header);
            while let Some(inner) = payload.next(decoder).map_err(unreadable)? {
                self.body(inner.header, inner.body, sql).await?;
            }
            return Ok(());
        }
        if header.next_at != 0 && !header.is_artificial() && !matches!(event.body, Body::Rotate(_) | Body::Heartbeat(_)) {
            self.at = self.end_of(&header);
        }
        self.body(header, event.body, sql).await?;
        if self.open.is_none() && self.at > self.place.at {
            self.place.at = self.at;
        }
        Ok(())
    }

    /// The header has 32 bits of it; a file grows beyond them by a large transaction.
    fn end_of(&self, header: &Header) -> u64 {
        let end = self.at & !u64::from(u32::MAX) | u64::from(header.next_at);
        // A dump by GTID or from a file's start repeats the format's event, which is behind us by little.
        if end + u64::from(u32::MAX / 2) < self.at { end + (1 << 32) } else { end }
    }

    async fn body(&mut self, header: Header, body: Body, sql: &mut Connection) -> Result<(), SourceError> {
        match body {
            Body::Rotate(r) => self.rotate(r.file, r.at.max(FIRST_AT))?,
            Body::Format(_) => self.abandon()?,
            Body::MariadbBegin(b) => self.begin(Some(OneGtid::MariaDb(b.gtid)), seconds_us(header), b.is_standalone)?,
            Body::Begin(b) => {
                let committed = b.immediate_commit_us.map_or(seconds_us(header), |us| us as i64);
                self.begin(b.gtid.map(OneGtid::MySql), committed, true)?;
            }
            Body::Query(q) => self.query(header, &q, sql).await?,
            Body::Commit { .. } | Body::XaPrepare(_) => self.commit()?,
            Body::TableMap(map) if self.shapes.must_be_made(&map) => {
                let made = self.shapes.make(&map, sql).await;
                made.map_err(|e| match e {
                    MakeError::Wire(e) => e.during("read the catalog"),
                    MakeError::Binlog(e) => unreadable(e),
                })?;
            }
            Body::Rows(rows) => self.rows(header, &rows)?,
            Body::Heartbeat(h) if self.open.is_none() && h.file == self.place.file && h.at > self.at => self.at = h.at,
            Body::PreviousGtids(set) if self.place.gtids == super::place::Gtids::None => self.place.gtids = super::place::Gtids::MySql(set),
            Body::Incident(i) => {
                let said: String = i.message.chars().take(100).collect();
                return Err(SourceError::refused(format!(
                    "the server says that changes are missing from its binlog (incident {}: {said}) at {} {}: take a new snapshot",
                    i.number, self.place.file, self.at
                )));
            }
            _ => {}
        }
        Ok(())
    }

    fn rotate(&mut self, file: Arc<str>, at: u64) -> Result<(), SourceError> {
        if file == self.place.file && at >= self.place.at {
            return Ok(());
        }
        if file_number(&file)? < file_number(&self.place.file)? {
            return Err(SourceError::refused(format!(
                "the server goes from binlog file {} to {file}: its binlog was reset. Take a new snapshot (snapshot = \"when_needed\"), or delete the stored place",
                self.place.file
            )));
        }
        self.abandon()?;
        (self.at, self.place.at) = (at, at);
        self.place.file = file;
        Ok(())
    }

    /// A transaction that a file ends in was never committed: the server crashed.
    fn abandon(&mut self) -> Result<(), SourceError> {
        if let Some(mut open) = self.open.take() {
            open.undo(0, 0)?;
        }
        self.shapes.forget_made();
        Ok(())
    }

    fn begin(&mut self, gtid: Option<OneGtid>, committed_us: i64, is_standalone: bool) -> Result<(), SourceError> {
        if self.open.is_some() {
            // Servers write an end to each; one of only statements that are not ours may be without.
            self.commit()?;
        }
        self.open = Some(Open::new(gtid, committed_us, is_standalone, self.skip));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), SourceError> {
        self.place.at = self.at;
        self.skip = 0;
        self.last = self.last.max(self.place.position(self.at, 0)?);
        let Some(open) = self.open.take() else { return Ok(()) };
        if let Some(gtid) = &open.gtid {
            self.place.gtids.add(gtid)?;
        }
        if !open.changes.is_empty() {
            self.committed_us = Some(open.committed_us);
        }
        self.ready_bytes += open.bytes;
        self.ready.extend(open.changes);
        Ok(())
    }

    async fn query(&mut self, header: Header, q: &Query, sql: &mut Connection) -> Result<(), SourceError> {
        let text = q.text();
        let statement = Statement::read(&text, &q.database);
        if self.open.is_none() {
            self.open = Some(Open::new(None, seconds_us(header), true, self.skip));
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.thread = Some(q.thread);
        match statement {
            Statement::Begin => {
                open.is_standalone = false;
                return Ok(());
            }
            Statement::Commit => return self.commit(),
            Statement::Rollback => {
                open.undo(0, 0)?;
                return self.commit();
            }
            Statement::Savepoint(name) => return open.savepoint(name),
            Statement::RollbackTo(name) => return open.rollback_to(&name),
            Statement::XaRollback => tracing::error!(
                file = %self.place.file, at = self.at,
                "an XA transaction was rolled back after it was prepared: if it changed captured tables, its rows were given out; take a new snapshot of them"
            ),
            Statement::Truncate(name) => self.truncate(&name, sql).await?,
            Statement::Shapes(names) => self.shapes_changed(&names),
            Statement::Partitions(name) => {
                self.shapes_changed(std::slice::from_ref(&name));
                if self.shapes.selection.has(&name.database, &name.table) {
                    tracing::error!(table = %format!("{}.{}", name.database, name.table), file = %self.place.file, at = self.at,
                        "rows of partitions came or went without row events: take a new snapshot of the table");
                }
            }
            Statement::Dml => self.dml(&text, &q.database)?,
            Statement::Unread => {
                tracing::warn!(file = %self.place.file, at = self.at, "a statement that changes tables could not be read: all shapes are read again");
                self.shapes_changed(&[]);
            }
            Statement::Other => {}
        }
        if self.open.as_ref().is_some_and(|open| open.is_standalone) { self.commit() } else { Ok(()) }
    }

    fn shapes_changed(&mut self, names: &[Name]) {
        self.shapes.forget(names);
        self.is_any_touched |= names.is_empty() || self.touched.len() >= TOUCHED_MAX;
        if !self.is_any_touched {
            self.touched.extend_from_slice(names);
        }
    }

    /// Rows changed by a statement in the binlog are not there to be read.
    fn dml(&self, text: &str, database: &str) -> Result<(), SourceError> {
        match self.shapes.selection.may_be_in(text, database) {
            false => Ok(()),
            true => Err(SourceError::refused(format!(
                "a captured table was changed by a statement that is in the binlog instead of its rows, at {} {}: set binlog_format = ROW for all sessions, then take a new snapshot (snapshot = \"when_needed\" does not see this: delete the stored place)",
                self.place.file, self.at
            ))),
        }
    }

    async fn truncate(&mut self, name: &Name, sql: &mut Connection) -> Result<(), SourceError> {
        let table = self.shapes.current(name, sql).await.map_err(|e| e.during("read the catalog"))?;
        self.shapes_changed(std::slice::from_ref(name));
        let Some(table) = table else { return Ok(()) };
        let position = self.next_position()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        open.rows += 1;
        if open.rows <= open.flushed {
            return Ok(());
        }
        let origin = Arc::new(origin(open, &self.place, self.at, 0));
        let what = What::Truncate { table, cascade: false, restart_identity: true };
        open.changes.push(Change { op: Op::Truncate, what, position, origin });
        self.last = position;
        Ok(())
    }

    /// Of the next row of the event that ends at `at`.
    fn next_position(&mut self) -> Result<Position, SourceError> {
        let ordinal = if self.ordinal.0 == self.at { self.ordinal.1 } else { 0 };
        self.ordinal = (self.at, ordinal + 1);
        self.place.position(self.at, ordinal)
    }

    fn rows(&mut self, header: Header, rows: &Rows) -> Result<(), SourceError> {
        let Some(map) = &rows.table else { return Ok(()) };
        let Some(made) = self.shapes.of(map).cloned() else { return Ok(()) };
        let Some(open) = &self.open else {
            return Err(SourceError::retry("rows without a transaction around them: reading begins again at the stored place"));
        };
        let origin = Arc::new(origin(open, &self.place, self.at, header.server_id));
        for image in rows.images(&made.shape) {
            let position = self.next_position()?;
            let change = change(rows.op, image.map_err(unreadable)?, &made, position, &origin);
            let Some(open) = &mut self.open else { continue };
            open.rows += 1;
            if open.rows <= open.flushed {
                continue;
            }
            open.bytes += bytes_of(&change);
            open.changes.push(change);
            self.last = position;
        }
        Ok(())
    }
}

fn change(op: RowsOp, image: Image, made: &Made, position: Position, origin: &Arc<Origin>) -> Change {
    let op = match op {
        RowsOp::Insert => Op::Create,
        RowsOp::Update => Op::Update,
        RowsOp::Delete => Op::Delete,
    };
    let what = What::Row { table: made.table.clone(), before: image.before, after: image.after };
    Change { op, what, position, origin: origin.clone() }
}

fn origin(open: &Open, place: &Place, at: u64, server_id: u32) -> Origin {
    let gtid = open.gtid.as_ref().map(|gtid| match gtid {
        OneGtid::MySql(gtid) => Arc::from(gtid.to_string()),
        OneGtid::MariaDb(gtid) => Arc::from(gtid.to_string()),
    });
    let place = change::Place::Mysql { server_id, file: place.file.clone(), at, gtid, thread: open.thread };
    Origin { committed_us: open.committed_us, snapshot: Snapshot::No, place }
}

fn seconds_us(header: Header) -> i64 {
    i64::from(header.timestamp) * 1_000_000
}

/// Reading the event again will fail again; the server or its file has to be looked at.
fn unreadable(e: super::binlog::error::BinlogError) -> SourceError {
    match e {
        super::binlog::error::BinlogError::Checksum { .. } => SourceError::retry(format!("binlog: {e}")),
        e => SourceError::refused(format!("binlog: {e}")),
    }
}
