//! From messages to changes: transactions, positions, batches. Reads nothing and waits for nothing; see `stream.rs` for that.
//!
//! ```text
//! Begin ─▶ changes ─▶ Commit                                       one transaction, sent when it has committed
//! Stream Start ─▶ messages ─▶ Stream Stop … Stream Commit | Abort   pieces of several, kept until then; at Commit replayed as above
//! ```
//!
//! **Positions.** A change is (LSN of its transaction's commit record, ordinal from 1): counted over everything the server sends, wanted or
//! not, so that it never depends on the settings. The commit itself takes the ordinal behind the last change. (LSN, 0) says that all
//! transactions whose commit record lies below the LSN are done. The server sends transactions in the order of their commit records, and
//! logical messages outside of transactions at their own place among them.
//!
//! **Acknowledging.** A position has the LSN up to which the server may forget: the commit record's own while its transaction is incomplete
//! (then all of it comes again, and what is stored is skipped), the LSN behind it afterwards.

use super::pgoutput::{Cell, DecodeError, Message, Old, Relation, Tuple};
use super::shapes::{Known, Shapes};
use super::streams::{Replay, Streams, StreamsError};
use super::values;
use crate::change::{Change, Op, Origin, Place, Row, Snapshot, What};
use crate::datum::Datum;
use bytes::Bytes;
use mulgil_model::position::Position;
use std::sync::Arc;

/// The prefix of this program's heartbeats.
pub const HEARTBEAT: &str = "mulgil.heartbeat";
/// TimescaleDB's markers around rows that it moves between a chunk and its compressed form: no rows of the user's change there
/// (TimescaleDB documentation, "timescaledb.enable_compression_wal_markers").
const MOVING_STARTS: [&str; 2] = ["::timescaledb-compression-start", "::timescaledb-decompression-start"];
const MOVING_ENDS: [&str; 2] = ["::timescaledb-compression-end", "::timescaledb-decompression-end"];

#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    #[error("PostgreSQL sent {0}")]
    Decode(#[from] DecodeError),
    #[error("PostgreSQL sent {0}")]
    Order(&'static str),
    #[error("PostgreSQL sent a change of the relation {0}, which it never described")]
    UnknownRelation(u32),
    #[error("PostgreSQL sent a row of {found} columns for {table}, which has {expected}")]
    Columns { table: String, found: usize, expected: usize },
    #[error(transparent)]
    Streams(#[from] StreamsError),
}

/// How far the stream is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    pub position: Position,
    /// What may be acknowledged once the position is durable.
    pub flush_lsn: u64,
}

/// What decoding a message asks of the caller.
#[derive(Debug)]
pub enum Asks {
    Nothing,
    /// Teach [`Decoder::shapes`] this relation before the next message.
    Shape(Relation),
}

/// The most that goes into one batch.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub rows_max: usize,
    pub bytes_max: usize,
}

#[derive(Debug)]
pub struct Decoder {
    pub shapes: Shapes,
    database: Arc<str>,
    bounds: Bounds,
    /// Changes up to here were given before.
    resume: Position,
    reached: Reached,
    transaction: Option<Transaction>,
    streams: Streams,
    /// Between Stream Start and Stream Stop.
    streaming: Option<u32>,
    replay: Option<(Replay, u64)>,
    changes: Vec<Change>,
    bytes: usize,
    committed_us: Option<i64>,
}

#[derive(Debug)]
struct Transaction {
    origin: Arc<Origin>,
    commit_lsn: u64,
    ordinal: u64,
    /// Between TimescaleDB's markers.
    is_moving: bool,
}

impl Decoder {
    pub fn new(database: Arc<str>, shapes: Shapes, streams: Streams, bounds: Bounds, from: Reached) -> Self {
        Self {
            shapes,
            database,
            bounds,
            resume: from.position,
            reached: from,
            transaction: None,
            streams,
            streaming: None,
            replay: None,
            changes: Vec::new(),
            bytes: 0,
            committed_us: None,
        }
    }

    /// When the last transaction before the place was committed.
    #[must_use]
    pub fn committed_before(self, committed_us: Option<i64>) -> Self {
        Self { committed_us, ..self }
    }

    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// When the last change was committed.
    pub fn committed_us(&self) -> Option<i64> {
        self.committed_us
    }

    pub fn is_full(&self) -> bool {
        self.changes.len() >= self.bounds.rows_max || self.bytes >= self.bounds.bytes_max
    }

    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// All of each transaction that has been begun is there.
    pub fn is_between(&self) -> bool {
        self.transaction.is_none() && self.replay.is_none()
    }

    pub fn take_changes(&mut self) -> Vec<Change> {
        self.bytes = 0;
        std::mem::take(&mut self.changes)
    }

    /// Decodes what the server sent.
    pub fn feed(&mut self, body: Bytes) -> Result<Asks, DecoderError> {
        if let Some(xid) = self.streaming {
            // What is inside of a streamed block is only decoded when it is replayed.
            if body.first() == Some(&b'E') {
                self.streaming = None;
            } else {
                self.streams.keep(xid, &body)?;
            }
            return Ok(Asks::Nothing);
        }
        let length = body.len();
        let (_, message) = super::pgoutput::decode(body, false)?;
        self.take(message, length)
    }

    /// Decodes the next message of a streamed transaction that has committed; `None` when there is none, and more can be fed.
    pub fn feed_replay(&mut self) -> Result<Option<Asks>, DecoderError> {
        let Some((replay, end_lsn)) = &mut self.replay else { return Ok(None) };
        let end_lsn = *end_lsn;
        match replay.next_message()? {
            Some((message, length)) => self.take(message, length).map(Some),
            None => {
                self.replay = None;
                self.commit(end_lsn)?;
                Ok(Some(Asks::Nothing))
            }
        }
    }

    /// The server says that it has decoded all below `lsn` and sent what there was of it.
    pub fn idle_until(&mut self, lsn: u64) {
        let position = Position::new(lsn, 0);
        if self.is_between() && position > self.reached.position {
            self.reached = Reached { position, flush_lsn: lsn };
        }
    }

    fn take(&mut self, message: Message, length: usize) -> Result<Asks, DecoderError> {
        match message {
            Message::Relation(relation) => return Ok(Asks::Shape(relation)),
            Message::Type { .. } | Message::Origin { .. } => {}
            Message::Begin { final_lsn, committed_us, xid } => self.begin(final_lsn, committed_us, xid)?,
            Message::Commit { end_lsn, .. } => self.commit(end_lsn)?,
            Message::Insert { relation, new } => self.row(relation, length, Op::Create, None, Some(new))?,
            Message::Update { relation, old, new } => self.row(relation, length, Op::Update, old, Some(new))?,
            Message::Delete { relation, old } => self.row(relation, length, Op::Delete, Some(old), None)?,
            Message::Truncate { relations, cascade, restart_identity } => self.truncate(&relations, cascade, restart_identity)?,
            Message::Logical { is_transactional, lsn, prefix, content } => self.logical(is_transactional, lsn, prefix, content)?,
            Message::StreamStart { xid, .. } => {
                self.streams.begin(xid)?;
                self.streaming = Some(xid);
            }
            Message::StreamStop => return Err(DecoderError::Order("the end of a stream that was not begun")),
            Message::StreamAbort { xid, subxid } => self.streams.abort(xid, subxid)?,
            Message::StreamCommit { xid, commit_lsn, end_lsn, committed_us } => {
                let replay = self.streams.commit(xid)?;
                self.begin(commit_lsn, committed_us, xid)?;
                self.replay = Some((replay, end_lsn));
            }
            Message::TwoPhase { .. } => return Err(DecoderError::Order("a prepared transaction, which was not asked for")),
        }
        Ok(Asks::Nothing)
    }

    fn begin(&mut self, commit_lsn: u64, committed_us: i64, xid: u32) -> Result<(), DecoderError> {
        if self.transaction.is_some() {
            return Err(DecoderError::Order("a transaction within another"));
        }
        self.committed_us = Some(committed_us);
        let origin = self.origin(commit_lsn, committed_us, Some(xid));
        self.transaction = Some(Transaction { origin, commit_lsn, ordinal: 0, is_moving: false });
        Ok(())
    }

    fn origin(&self, commit_lsn: u64, committed_us: i64, txid: Option<u32>) -> Arc<Origin> {
        let place = Place::Postgres { database: self.database.clone(), commit_lsn, txid };
        Arc::new(Origin { committed_us, snapshot: Snapshot::No, place })
    }

    fn commit(&mut self, end_lsn: u64) -> Result<(), DecoderError> {
        let transaction = self.transaction.take().ok_or(DecoderError::Order("a commit without its transaction"))?;
        let position = Position::new(transaction.commit_lsn, transaction.ordinal + 1);
        if position > self.reached.position {
            self.reached = Reached { position, flush_lsn: end_lsn };
        }
        Ok(())
    }

    /// Counts a change of the open transaction. `None`: it was given before.
    fn place(&mut self) -> Result<Option<Position>, DecoderError> {
        let transaction = self.transaction.as_mut().ok_or(DecoderError::Order("a change outside of a transaction"))?;
        transaction.ordinal += 1;
        let position = Position::new(transaction.commit_lsn, transaction.ordinal);
        if position <= self.resume {
            return Ok(None);
        }
        self.reached = Reached { position, flush_lsn: transaction.commit_lsn };
        Ok(Some(position))
    }

    fn push(&mut self, op: Op, what: What, position: Position, bytes: usize) -> Result<(), DecoderError> {
        let transaction = self.transaction.as_ref().ok_or(DecoderError::Order("a change outside of a transaction"))?;
        self.changes.push(Change { op, what, position, origin: transaction.origin.clone() });
        self.bytes += size_of::<Change>() + bytes;
        Ok(())
    }

    fn row(&mut self, relation: u32, length: usize, op: Op, old: Option<Old>, new: Option<Tuple>) -> Result<(), DecoderError> {
        let Some(position) = self.place()? else { return Ok(()) };
        let known = self.shapes.known(relation).ok_or(DecoderError::UnknownRelation(relation))?;
        let is_moving = self.transaction.as_ref().is_some_and(|t| t.is_moving);
        if !known.is_wanted || (is_moving && known.is_chunk) {
            return Ok(());
        }
        let known = known.clone();
        let is_full = matches!(old, Some(Old::Full(_)));
        let before = match old {
            None => None,
            Some(Old::Full(tuple)) => Some(row(&known, &tuple, false)?),
            Some(Old::Key(tuple)) => Some(row(&known, &tuple, true)?),
        };
        let mut after = new.map(|tuple| row(&known, &tuple, false)).transpose()?;
        if let (true, Some(before), Some(after)) = (is_full, &before, &mut after) {
            fill_unchanged(after, before);
        }
        let n_values = known.forms.len() * (usize::from(before.is_some()) + usize::from(after.is_some()));
        let what = What::Row { table: known.table.clone(), before, after };
        self.push(op, what, position, length + n_values * size_of::<Datum>())
    }

    fn truncate(&mut self, relations: &[u32], cascade: bool, restart_identity: bool) -> Result<(), DecoderError> {
        for relation in relations {
            let Some(position) = self.place()? else { continue };
            let known = self.shapes.known(*relation).ok_or(DecoderError::UnknownRelation(*relation))?;
            if known.is_wanted && known.is_chunk {
                tracing::debug!(table = %known.table.id, "a chunk was emptied; its rows are in its compressed form, or were dropped with it");
            } else if known.is_wanted {
                let table = known.table.clone();
                self.push(Op::Truncate, What::Truncate { table, cascade, restart_identity }, position, 0)?;
            }
        }
        Ok(())
    }

    fn logical(&mut self, is_transactional: bool, lsn: u64, prefix: String, content: Bytes) -> Result<(), DecoderError> {
        let is_ours = prefix == HEARTBEAT;
        let bytes = content.len();
        if !is_transactional {
            // The server gives the end of its record, where a commit record may begin: the last byte inside is nobody else's place.
            let position = Position::new(lsn.saturating_sub(1), 1);
            if position <= self.resume || position <= self.reached.position {
                return Ok(());
            }
            self.reached = Reached { position, flush_lsn: position.commit };
            if !is_ours {
                let origin = self.origin(lsn, self.committed_us.unwrap_or(0), None);
                self.changes.push(Change { op: Op::Message, what: What::Message { prefix, content, is_transactional }, position, origin });
                self.bytes += size_of::<Change>() + bytes;
            }
            return Ok(());
        }
        let Some(position) = self.place()? else { return Ok(()) };
        if let Some(transaction) = &mut self.transaction {
            transaction.is_moving = (transaction.is_moving || MOVING_STARTS.contains(&&*prefix)) && !MOVING_ENDS.contains(&&*prefix);
        }
        if is_ours {
            return Ok(());
        }
        self.push(Op::Message, What::Message { prefix, content, is_transactional }, position, bytes)
    }
}

/// One row in the order of its table. `is_key`: what is not part of the replica identity came as null and is not known.
fn row(known: &Known, tuple: &Tuple, is_key: bool) -> Result<Row, DecoderError> {
    if tuple.len() != known.forms.len() {
        return Err(DecoderError::Columns { table: known.table.id.to_string(), found: tuple.len(), expected: known.forms.len() });
    }
    let mut row: Row = Vec::with_capacity(tuple.len());
    for ((cell, form), is_identity) in tuple.cells().zip(&known.forms).zip(&known.is_identity) {
        row.push(match cell {
            Cell::Null if is_key && !is_identity => Datum::Unavailable,
            Cell::Null => Datum::Null,
            Cell::Unchanged => Datum::Unavailable,
            Cell::Text(text) => values::decode_part(form, tuple.bytes(), text),
            Cell::Binary(_) => return Err(DecoderError::Order("a binary value, which was not asked for")),
        });
    }
    let Some(order) = &known.order else { return Ok(row) };
    let mut ordered = vec![Datum::Null; row.len()];
    for (value, place) in row.into_iter().zip(order) {
        ordered[*place] = value;
    }
    Ok(ordered)
}

/// With replica identity FULL the row before has every value, those that TOAST keeps included.
fn fill_unchanged(after: &mut Row, before: &Row) {
    for (new, old) in after.iter_mut().zip(before) {
        if *new == Datum::Unavailable {
            *new = old.clone();
        }
    }
}

#[cfg(test)]
mod tests;
