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
//! What is prepared by `XA PREPARE` waits until `XA COMMIT` (`prepared.rs`), and is then given out as that commit's.

use super::binlog::decoder::{Body, Event};
use super::binlog::events::{Query, XaPrepare};
use super::binlog::header::Header;
use super::binlog::rows::{Image, Rows, RowsOp};
use super::ddl::{Name, Statement};
use super::place::{FIRST_AT, OneGtid, Place, file_number};
use super::prepared::{Prepared, Waiting};
use super::remarks::{self, Remark, Remarks};
use super::replay::Wanted;
use super::settings::{OnStale, Settings};
use super::shapes::{Made, MakeError, Shapes};
use super::transaction::{Open, copy_values};
use super::wire::Connection;
use crate::change::{self, Change, Op, Origin, Snapshot, What};
use crate::datum::Datum;
use crate::source::SourceError;
use mulgil_model::position::Position;
use std::sync::Arc;

/// What readers of the stream are told when rows of a table came or went without row events: `{"table", "statement", "file", "at"}`.
pub const STALE: &str = "mulgil.stale";
/// Names of tables that are kept for a chunk to see; behind that it takes all tables as touched.
const TOUCHED_MAX: usize = 1 << 10;

pub struct Assembler {
    pub shapes: Shapes,
    pub place: Place,
    pub open: Option<Open>,
    /// When the place's file was begun, once that is known.
    pub file_begun: Option<u32>,
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
    pub prepared: Prepared,
    pub remarks: Remarks,
    /// A transaction was committed whose rows have to be read again; until they are, it is the open one.
    pub wanted: Option<Wanted>,
    limits: Limits,
    /// End of the last event.
    at: u64,
    /// Where the last transaction begins.
    begun_at: u64,
    /// The event whose rows are counted, and the next row's number.
    ordinal: (u64, u64),
}

/// When a file was begun, by its first event, which is sent again, whole, wherever reading begins.
pub fn begun(format: &Header) -> Option<u32> {
    Some(format.timestamp).filter(|at| *at > 0)
}

/// Of the settings.
struct Limits {
    batch_rows_max: usize,
    batch_bytes_max: usize,
    on_stale: OnStale,
}

impl Assembler {
    pub fn new(settings: &Settings, shapes: Shapes, place: Place, skip: u64, last: Position) -> Self {
        let at = place.at;
        Self {
            prepared: Prepared::new(settings.prepared_bytes_max, Vec::new()),
            remarks: Remarks::default(),
            wanted: None,
            limits: Limits {
                batch_rows_max: settings.batch_rows_max,
                batch_bytes_max: settings.batch_bytes_max,
                on_stale: settings.on_stale,
            },
            shapes,
            place,
            open: None,
            file_begun: None,
            skip,
            ready: Vec::new(),
            ready_bytes: 0,
            last,
            committed_us: None,
            touched: Vec::new(),
            is_any_touched: false,
            at,
            begun_at: at,
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

    /// An event as it stands in the binlog.
    pub async fn event(&mut self, event: Event, sql: &mut Connection) -> Result<(), SourceError> {
        let header = event.header;
        if header.next_at != 0 && !header.is_artificial() && !matches!(event.body, Body::Rotate(_) | Body::Heartbeat(_)) {
            self.at = self.end_of(&header);
        }
        if matches!(event.body, Body::Begin(_) | Body::MariadbBegin(_)) {
            // The stream's place may be far before it: a server that is asked by GTID leaves out what was read.
            self.begun_at = self.at.saturating_sub(u64::from(header.length));
        }
        self.body(header, event.body, sql).await?;
        self.go_on();
        Ok(())
    }

    /// A compressed transaction: its events come by [`Self::inner`], one by one, and all end where it ends.
    pub fn payload(&mut self, header: &Header) {
        self.at = self.end_of(header);
    }

    pub async fn inner(&mut self, event: Event, sql: &mut Connection) -> Result<(), SourceError> {
        self.body(event.header, event.body, sql).await
    }

    pub fn payload_end(&mut self) {
        self.go_on();
    }

    fn go_on(&mut self) {
        if self.open.is_none() && self.at > self.place.at {
            self.place.at = self.at;
        }
    }

    /// An event of the prepared transaction that is committed here.
    pub async fn replayed(&mut self, event: Event, sql: &mut Connection) -> Result<(), SourceError> {
        match event.body {
            Body::TableMap(_) | Body::Rows(_) => self.body(event.header, event.body, sql).await,
            Body::Query(q) => match (Statement::read(&q.text(), &q.database), &mut self.open) {
                (Statement::Savepoint(name), Some(open)) => open.savepoint(name),
                (Statement::RollbackTo(name), Some(open)) => open.rollback_to(&name),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    pub fn replay_end(&mut self, xid: &str) -> Result<(), SourceError> {
        self.prepared.end(xid);
        self.commit()?;
        self.go_on();
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
            Body::Format(_) => {
                self.abandon()?;
                self.file_begun = begun(&header);
            }
            Body::MariadbBegin(b) => {
                self.begin(Some(OneGtid::MariaDb(b.gtid)), seconds_us(header), b.is_standalone)?;
                self.branch(b.xa.filter(|_| b.is_prepared_xa));
            }
            Body::Begin(b) => {
                let committed = b.immediate_commit_us.map_or(seconds_us(header), |us| us as i64);
                self.begin(b.gtid.map(OneGtid::MySql), committed, true)?;
            }
            Body::Query(q) => self.query(header, &q, sql).await?,
            Body::Commit { .. } => self.commit()?,
            Body::XaPrepare(x) => self.prepare(x)?,
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
        // An event of the new file may end at the very number where the last one did.
        self.ordinal = (0, 0);
        (self.place.file, self.file_begun) = (file, None);
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
            if let Some(open) = self.open.as_mut().filter(|open| open.xa.is_some()) {
                open.undo(0, 0)?;
            }
            self.commit()?;
        }
        self.open = Some(Open::new(gtid, committed_us, is_standalone, self.skip));
        Ok(())
    }

    /// The open transaction is one that will be prepared.
    fn branch(&mut self, xa: Option<super::binlog::events::Xa>) {
        if let (Some(open), Some(xa)) = (&mut self.open, xa) {
            (open.is_standalone, open.xa) = (false, Some(xa));
        }
    }

    /// What is prepared is kept, and where it begins. In one phase (MySQL) it is committed as well.
    fn prepare(&mut self, prepare: XaPrepare) -> Result<(), SourceError> {
        let begin = (self.place.file.clone(), self.begun_at);
        let Some(open) = &mut self.open else { return self.commit() };
        let xid = prepare.xa.to_string();
        if !prepare.is_one_phase {
            let (mut changes, bytes) = open.take_rows();
            // Small enough for one batch, or it is read again.
            let fits = !open.is_dropped && self.prepared.has_room(bytes);
            changes.iter_mut().for_each(copy_values);
            self.prepared.hold(xid, begin, fits.then_some(Waiting { changes, bytes }))?;
            return self.commit();
        }
        if open.is_dropped {
            open.begin_anew();
            self.wanted = Some(Wanted { xid, begin: Some(begin), before: (self.place.file.clone(), self.at) });
            return Ok(());
        }
        let (changes, _) = open.take_rows();
        self.give(changes)?;
        self.commit()
    }

    /// The rows of what was prepared before, as those of the open transaction.
    fn commit_prepared(&mut self, xid: String) -> Result<(), SourceError> {
        let Some(changes) = self.prepared.take_waiting(&xid) else {
            let before = (self.place.file.clone(), self.at);
            self.wanted = Some(Wanted { begin: self.prepared.begin(&xid), xid, before });
            self.open.iter_mut().for_each(Open::begin_anew);
            return Ok(());
        };
        self.give(changes)?;
        self.prepared.end(&xid);
        self.commit()
    }

    /// Rows of a branch, once they are committed: at the place of the event that does it.
    fn give(&mut self, changes: Vec<Change>) -> Result<(), SourceError> {
        let mut origins = Origins::default();
        let Some(open) = &mut self.open else { return Ok(()) };
        for mut change in changes {
            change.position = self.place.position(self.at, change.position.ordinal)?;
            change.origin = origins.of(open, &self.place, self.at, &change.origin);
            open.rows = change.position.ordinal;
            if open.count() {
                self.last = change.position;
                open.push(change);
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), SourceError> {
        self.place.at = self.at;
        self.skip = 0;
        self.shapes.end_counting();
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
            Statement::XaStart(xa) => {
                self.branch(Some(xa));
                return Ok(());
            }
            Statement::XaCommit(xa) => return self.commit_prepared(xa.to_string()),
            Statement::XaRollback(xa) => {
                open.undo(0, 0)?;
                self.prepared.end(&xa.to_string());
                return self.commit();
            }
            Statement::XaUnread => {
                return Err(SourceError::refused(format!(
                    "the end of an XA transaction at {} {} does not say of which: take a new snapshot (delete the stored place)",
                    self.place.file, self.at
                )));
            }
            Statement::Truncate(name) => self.truncate(&name, sql).await?,
            Statement::Shapes(names) => self.shapes_changed(&names),
            Statement::Partitions(names) => self.partitions(&names, &text)?,
            Statement::Dml => self.dml(&text, &q.database)?,
            Statement::Unread => {
                let remark = self.remark("", &text)?;
                tracing::warn!(
                    statement = remark.statement,
                    file = remark.file,
                    at = remark.at,
                    "a statement that changes tables could not be read: all shapes are read again"
                );
                self.remarks.add_unread(remark);
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

    fn remark(&self, table: &str, text: &str) -> Result<Remark, SourceError> {
        let (file, commit) = (self.place.file.to_string(), self.place.position(self.at, 0)?.commit);
        Ok(Remark { table: table.to_owned(), statement: remarks::statement_head(text), file, at: self.at, commit })
    }

    /// Rows came or went that nobody can read: readers are told, and the tables are stale until a snapshot of them.
    fn partitions(&mut self, names: &[Name], text: &str) -> Result<(), SourceError> {
        self.shapes_changed(names);
        for name in names.iter().filter(|n| self.shapes.selection.has(&n.database, &n.table)).collect::<Vec<_>>() {
            let remark = self.remark(&remarks::display(name), text)?;
            if self.limits.on_stale == OnStale::Stop {
                return Err(SourceError::refused(format!(
                    "rows of {} came or went without row events, by {} at {} {}: choose on_stale = \"tell\" to go on, and take a new snapshot of the table",
                    remark.table, remark.statement, remark.file, remark.at
                )));
            }
            tracing::error!(
                table = remark.table,
                statement = remark.statement,
                file = remark.file,
                at = remark.at,
                "rows came or went without row events: what was captured is no longer the table until a new snapshot of it"
            );
            let content = serde_json::json!({"table": remark.table, "statement": remark.statement, "file": remark.file, "at": remark.at});
            let content = content.to_string().into();
            self.rowless(Op::Message, What::Message { prefix: STALE.to_owned(), content, is_transactional: true })?;
            self.remarks.add_stale(remark);
        }
        Ok(())
    }

    /// A change that stands where the statement does.
    fn rowless(&mut self, op: Op, what: What) -> Result<(), SourceError> {
        let position = self.next_position()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.count() {
            let origin = Arc::new(origin(open, &self.place, self.at, 0));
            open.push(Change { op, what, position, origin });
            self.last = position;
        }
        Ok(())
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
        let Some(table) = table.filter(|t| self.shapes.is_given(&t.id)) else { return Ok(()) };
        self.rowless(Op::Truncate, What::Truncate { table, cascade: false, restart_identity: true })
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
        if open.is_dropped {
            return Ok(());
        }
        let is_given = self.shapes.is_given(&made.table.id);
        let is_branch = open.xa.is_some();
        let origin = Arc::new(origin(open, &self.place, self.at, header.server_id));
        // Of a branch the whole transaction is one event: the one that commits it.
        let is_one = is_branch || open.is_replayed;
        for image in rows.images(&made.shape) {
            let n_rows = self.open.as_ref().map_or(0, |open| open.rows);
            let position = if is_one { self.place.position(self.at, n_rows)? } else { self.next_position()? };
            let image = image.map_err(unreadable)?;
            let Some(open) = &mut self.open else { continue };
            if !open.count() || !is_given {
                continue;
            }
            open.push(change(rows.op, image, &made, position, &origin));
            if !is_branch {
                self.last = position;
            }
        }
        self.drop_large_branch();
        Ok(())
    }

    /// What is prepared and larger than a batch does not wait in memory.
    fn drop_large_branch(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.xa.is_some()) else { return };
        let is_large = open.changes.len() >= self.limits.batch_rows_max || open.bytes >= self.limits.batch_bytes_max;
        if is_large || !self.prepared.has_room(open.bytes) {
            open.drop_rows();
        }
    }
}

/// The origins of a prepared transaction's rows, once they are the commit's: one for each server that they were executed on.
#[derive(Default)]
struct Origins(Vec<(u32, Arc<Origin>)>);

impl Origins {
    fn of(&mut self, open: &Open, place: &Place, at: u64, prepared: &Origin) -> Arc<Origin> {
        let change::Place::Mysql { server_id, .. } = &prepared.place else { return Arc::new(prepared.clone()) };
        if let Some((_, origin)) = self.0.iter().find(|(id, _)| id == server_id) {
            return origin.clone();
        }
        let made = Arc::new(origin(open, place, at, *server_id));
        self.0.push((*server_id, made.clone()));
        made
    }
}

fn change(op: RowsOp, mut image: Image, made: &Made, position: Position, origin: &Arc<Origin>) -> Change {
    complete(&mut image, made);
    let op = match op {
        RowsOp::Insert => Op::Create,
        RowsOp::Update => Op::Update,
        RowsOp::Delete => Op::Delete,
    };
    let what = What::Row { table: made.table.clone(), before: image.before, after: image.after };
    Change { op, what, position, origin: origin.clone() }
}

/// Puts into a minimal image what is certain of it: what an update did not send behind itself and did send before is unchanged, and a key
/// that an insert did not send has its column's default. So every row can be told by its key.
fn complete(image: &mut Image, made: &Made) {
    let Some(after) = &mut image.after else { return };
    match &image.before {
        Some(before) => {
            let pairs = after.iter_mut().zip(before).filter(|(a, b)| **a == Datum::Unavailable && **b != Datum::Unavailable);
            pairs.for_each(|(a, b)| *a = b.clone());
        }
        None => {
            for (i, default) in &made.key_defaults {
                if let Some(value) = after.get_mut(*i).filter(|value| **value == Datum::Unavailable) {
                    *value = default.clone();
                }
            }
        }
    }
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
pub fn unreadable(e: super::binlog::error::BinlogError) -> SourceError {
    match e {
        super::binlog::error::BinlogError::Checksum { .. } => SourceError::retry(format!("binlog: {e}")),
        e => SourceError::refused(format!("binlog: {e}")),
    }
}

#[cfg(test)]
mod tests;
