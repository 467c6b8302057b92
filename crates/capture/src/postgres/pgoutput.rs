//! The messages of the output plugin `pgoutput`, protocol versions 1 to 4, decoded without a copy.
//!
//! PostgreSQL documentation, chapter "Frontend/Backend Protocol", section "Logical Replication Message Formats". Numbers are big-endian,
//! `String` ends with a zero byte. Inside a streamed transaction (version 2 and later) most messages carry the transaction they are of, which
//! may be a subtransaction of the streamed one.

use super::wire::c_string;
use bytes::{Buf, Bytes};

/// Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub const EPOCH_US: i64 = 946_684_800_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a {0} message that ends early")]
    Short(&'static str),
    #[error("a message of the unknown kind {0:#04x}")]
    UnknownMessage(u8),
    #[error("a tuple of the unknown kind {0:#04x}")]
    UnknownTuple(u8),
    #[error("a column of the unknown kind {0:#04x}")]
    UnknownCell(u8),
    #[error("a name that is not UTF-8")]
    NotUtf8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Begin {
        final_lsn: u64,
        committed_us: i64,
        xid: u32,
    },
    Commit {
        commit_lsn: u64,
        end_lsn: u64,
        committed_us: i64,
    },
    Origin {
        lsn: u64,
        name: String,
    },
    Relation(Relation),
    Type {
        oid: u32,
        schema: String,
        name: String,
    },
    Insert {
        relation: u32,
        new: Tuple,
    },
    Update {
        relation: u32,
        old: Option<Old>,
        new: Tuple,
    },
    Delete {
        relation: u32,
        old: Old,
    },
    Truncate {
        relations: Vec<u32>,
        cascade: bool,
        restart_identity: bool,
    },
    Logical {
        is_transactional: bool,
        lsn: u64,
        prefix: String,
        content: Bytes,
    },
    StreamStart {
        xid: u32,
        is_first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit_lsn: u64,
        end_lsn: u64,
        committed_us: i64,
    },
    /// `xid == subxid`: the whole transaction.
    StreamAbort {
        xid: u32,
        subxid: u32,
    },
    /// Of two-phase commit (version 3): sent only to who asks for it, which this program does not.
    TwoPhase {
        kind: TwoPhase,
        xid: u32,
        gid: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwoPhase {
    BeginPrepare,
    Prepare,
    CommitPrepared,
    RollbackPrepared,
    StreamPrepare,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    /// Empty in the message for `pg_catalog`; here its name.
    pub schema: String,
    pub name: String,
    pub identity: Identity,
    pub columns: Vec<RelationColumn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Default,
    Nothing,
    Full,
    Index,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Part of the replica identity; with `FULL` all are.
    pub is_key: bool,
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
}

/// The row as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// Only the columns of the replica identity; the others come as null, which they need not be.
    Key(Tuple),
    Full(Tuple),
}

/// TupleData, whose columns were found complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple {
    n_columns: u16,
    cells: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    /// A TOASTed value that did not change.
    Unchanged,
    Text(&'a [u8]),
    /// Sent only to who asks for `binary`, which this program does not.
    Binary(&'a [u8]),
}

impl Tuple {
    pub fn len(&self) -> usize {
        usize::from(self.n_columns)
    }

    pub fn is_empty(&self) -> bool {
        self.n_columns == 0
    }

    /// The columns, each a part of [`Self::bytes`].
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let mut rest = &self.cells[..];
        (0..self.n_columns).map_while(move |_| cell(&mut rest).ok())
    }

    /// What the columns were sent as, which a value can share.
    pub fn bytes(&self) -> &Bytes {
        &self.cells
    }
}

/// Decodes one message. `in_stream`: between Stream Start and Stream Stop, where it also gives the (sub)transaction's id.
pub fn decode(mut body: Bytes, in_stream: bool) -> Result<(Option<u32>, Message), DecodeError> {
    let tag = body.try_get_u8().map_err(|_| DecodeError::Short("empty"))?;
    let mut input = Input { body, what: name(tag) };
    let has_xid = in_stream && matches!(tag, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M');
    let xid = if has_xid { Some(input.u32()?) } else { None };
    let message = match tag {
        b'B' => Message::Begin { final_lsn: input.u64()?, committed_us: input.time()?, xid: input.u32()? },
        b'C' => {
            input.u8()?; // Flags, unused.
            Message::Commit { commit_lsn: input.u64()?, end_lsn: input.u64()?, committed_us: input.time()? }
        }
        b'O' => Message::Origin { lsn: input.u64()?, name: input.text()? },
        b'R' => Message::Relation(relation(&mut input)?),
        b'Y' => Message::Type { oid: input.u32()?, schema: input.schema()?, name: input.text()? },
        b'I' => insert(&mut input)?,
        b'U' => update(&mut input)?,
        b'D' => delete(&mut input)?,
        b'T' => truncate(&mut input)?,
        b'M' => logical(&mut input)?,
        b'S' => Message::StreamStart { xid: input.u32()?, is_first: input.u8()? == 1 },
        b'E' => Message::StreamStop,
        b'c' => stream_commit(&mut input)?,
        // Version 4 adds the LSN and time of the abort, only with `streaming = parallel`.
        b'A' => Message::StreamAbort { xid: input.u32()?, subxid: input.u32()? },
        b'b' => two_phase(&mut input, TwoPhase::BeginPrepare, 0, 3)?,
        b'P' => two_phase(&mut input, TwoPhase::Prepare, 1, 3)?,
        b'K' => two_phase(&mut input, TwoPhase::CommitPrepared, 1, 3)?,
        b'r' => two_phase(&mut input, TwoPhase::RollbackPrepared, 1, 4)?,
        b'p' => two_phase(&mut input, TwoPhase::StreamPrepare, 1, 3)?,
        other => return Err(DecodeError::UnknownMessage(other)),
    };
    Ok((xid, message))
}

fn name(tag: u8) -> &'static str {
    match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        b'S' => "Stream Start",
        b'c' => "Stream Commit",
        b'A' => "Stream Abort",
        _ => "two-phase",
    }
}

fn relation(input: &mut Input) -> Result<Relation, DecodeError> {
    let (oid, schema, name) = (input.u32()?, input.schema()?, input.text()?);
    let identity = match input.u8()? {
        b'n' => Identity::Nothing,
        b'f' => Identity::Full,
        b'i' => Identity::Index,
        _ => Identity::Default,
    };
    let n = usize::from(input.u16()?);
    // A column takes at least ten bytes.
    let mut columns = Vec::with_capacity(n.min(input.body.len() / 10));
    for _ in 0..n {
        let is_key = input.u8()? & 1 != 0;
        columns.push(RelationColumn { is_key, name: input.text()?, type_oid: input.u32()?, typmod: input.u32()? as i32 });
    }
    Ok(Relation { oid, schema, name, identity, columns })
}

fn insert(input: &mut Input) -> Result<Message, DecodeError> {
    let relation = input.u32()?;
    match input.u8()? {
        b'N' => Ok(Message::Insert { relation, new: input.tuple()? }),
        other => Err(DecodeError::UnknownTuple(other)),
    }
}

fn update(input: &mut Input) -> Result<Message, DecodeError> {
    let relation = input.u32()?;
    let mut kind = input.u8()?;
    let old = match kind {
        b'K' => Some(Old::Key(input.tuple()?)),
        b'O' => Some(Old::Full(input.tuple()?)),
        _ => None,
    };
    if old.is_some() {
        kind = input.u8()?;
    }
    match kind {
        b'N' => Ok(Message::Update { relation, old, new: input.tuple()? }),
        other => Err(DecodeError::UnknownTuple(other)),
    }
}

fn delete(input: &mut Input) -> Result<Message, DecodeError> {
    let relation = input.u32()?;
    let old = match input.u8()? {
        b'K' => Old::Key(input.tuple()?),
        b'O' => Old::Full(input.tuple()?),
        other => return Err(DecodeError::UnknownTuple(other)),
    };
    Ok(Message::Delete { relation, old })
}

fn truncate(input: &mut Input) -> Result<Message, DecodeError> {
    let n = input.u32()? as usize;
    let options = input.u8()?;
    let mut relations = Vec::with_capacity(n.min(input.body.len() / 4));
    for _ in 0..n {
        relations.push(input.u32()?);
    }
    Ok(Message::Truncate { relations, cascade: options & 1 != 0, restart_identity: options & 2 != 0 })
}

fn logical(input: &mut Input) -> Result<Message, DecodeError> {
    let is_transactional = input.u8()? & 1 != 0;
    let (lsn, prefix) = (input.u64()?, input.text()?);
    let length = input.u32()? as usize;
    Ok(Message::Logical { is_transactional, lsn, prefix, content: input.bytes(length)? })
}

fn stream_commit(input: &mut Input) -> Result<Message, DecodeError> {
    let xid = input.u32()?;
    input.u8()?; // Flags, unused.
    Ok(Message::StreamCommit { xid, commit_lsn: input.u64()?, end_lsn: input.u64()?, committed_us: input.time()? })
}

/// All five are flags (but for Begin Prepare), LSNs and times of eight bytes, the transaction's id, its name.
fn two_phase(input: &mut Input, kind: TwoPhase, flag_bytes: usize, n_longs: usize) -> Result<Message, DecodeError> {
    input.bytes(flag_bytes + 8 * n_longs)?;
    Ok(Message::TwoPhase { kind, xid: input.u32()?, gid: input.text()? })
}

/// TupleData's column: a letter, and for text and binary a length and as many bytes.
fn cell<'a>(body: &mut &'a [u8]) -> Result<Cell<'a>, DecodeError> {
    let short = DecodeError::Short("TupleData");
    let kind = body.try_get_u8().map_err(|_| short)?;
    match kind {
        b'n' => return Ok(Cell::Null),
        b'u' => return Ok(Cell::Unchanged),
        b't' | b'b' => {}
        other => return Err(DecodeError::UnknownCell(other)),
    }
    let length = body.try_get_u32().map_err(|_| short)? as usize;
    let (value, rest) = body.split_at_checked(length).ok_or(short)?;
    *body = rest;
    Ok(if kind == b't' { Cell::Text(value) } else { Cell::Binary(value) })
}

struct Input {
    body: Bytes,
    what: &'static str,
}

impl Input {
    fn short(&self) -> DecodeError {
        DecodeError::Short(self.what)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.body.try_get_u8().map_err(|_| self.short())
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.body.try_get_u16().map_err(|_| self.short())
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.body.try_get_u32().map_err(|_| self.short())
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.body.try_get_u64().map_err(|_| self.short())
    }

    /// As microseconds since 1970.
    fn time(&mut self) -> Result<i64, DecodeError> {
        Ok((self.u64()? as i64).saturating_add(EPOCH_US))
    }

    fn bytes(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.body.len() {
            return Err(self.short());
        }
        Ok(self.body.split_to(length))
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = c_string(&mut self.body).ok_or_else(|| self.short())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::NotUtf8)
    }

    fn schema(&mut self) -> Result<String, DecodeError> {
        let schema = self.text()?;
        Ok(if schema.is_empty() { "pg_catalog".to_owned() } else { schema })
    }

    /// Walks over a tuple, so that its end is known and its cells are complete.
    fn tuple(&mut self) -> Result<Tuple, DecodeError> {
        let n_columns = self.u16()?;
        let bytes: &[u8] = &self.body;
        let mut at = 0;
        for _ in 0..n_columns {
            at += match bytes.get(at) {
                Some(b'n' | b'u') => 1,
                Some(b't' | b'b') => {
                    let length = bytes.get(at + 1..at + 5).and_then(|l| <[u8; 4]>::try_from(l).ok());
                    let length = u32::from_be_bytes(length.ok_or_else(|| self.short())?) as usize;
                    if bytes.len() - at - 5 < length {
                        return Err(self.short());
                    }
                    5 + length
                }
                Some(other) => return Err(DecodeError::UnknownCell(*other)),
                None => return Err(self.short()),
            };
        }
        Ok(Tuple { n_columns, cells: self.body.split_to(at) })
    }
}

#[cfg(test)]
mod tests;
