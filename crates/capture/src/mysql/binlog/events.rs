//! The small events: what surrounds the rows.

use super::charset::Charset;
use super::cursor::{Cursor, name};
use super::error::{BinlogError, Result};
use super::header::{self, Checksum, EventKind, HEADER_BYTES};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// `FORMAT_DESCRIPTION_EVENT`: binlog version 2, server version 50, creation time 4, header length 1, a post-header length for each event
/// type from 1, and from 5.6.1 on the checksum's algorithm 1 and four bytes for a checksum, also where the algorithm is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pub server_version: Arc<str>,
    pub is_mariadb: bool,
    pub checksum: Checksum,
    post_headers: Bytes,
}

/// `LOG_EVENT_BINLOG_IN_USE_F`, in the first byte of the flags: set while the server writes the file, and not covered by the checksum.
const IN_USE: u8 = 1;
const FLAGS_AT: usize = 17;
const CHECKSUM_BYTES: usize = 4;

impl Format {
    /// Of the whole event.
    pub(crate) fn parse(event: &Bytes) -> Result<Self> {
        let mut cursor = Cursor::new("FORMAT_DESCRIPTION event", event.clone());
        cursor.skip(HEADER_BYTES)?;
        let version = cursor.u16()?;
        let server = cursor.take(50)?;
        cursor.skip(4)?;
        if version != 4 || cursor.u8()? != HEADER_BYTES as u8 {
            return Err(BinlogError::malformed(cursor.what(), "the binlog is not of version 4, which every server since 5.0 writes"));
        }
        let server_version = name(server.split(|b| *b == 0).next().unwrap_or_default());
        let is_mariadb = server_version.contains("MariaDB");
        if !is_mariadb && !knows_checksums(&server_version) {
            return Ok(Self { server_version, is_mariadb, checksum: Checksum::None, post_headers: cursor.rest() });
        }
        let n_post_headers = cursor.left().checked_sub(1 + CHECKSUM_BYTES);
        let n_post_headers = n_post_headers.ok_or(BinlogError::malformed(cursor.what(), "it does not name its checksum"))?;
        let post_headers = cursor.take(n_post_headers)?;
        let checksum = match cursor.u8()? {
            0 => Checksum::None,
            1 => Checksum::Crc32,
            _ => return Err(BinlogError::malformed(cursor.what(), "its checksum is neither none nor CRC32")),
        };
        if checksum == Checksum::Crc32 {
            let mut plain = event.to_vec();
            plain[FLAGS_AT] &= !IN_USE;
            header::split(&plain.into(), checksum)?;
        }
        Ok(Self { server_version, is_mariadb, checksum, post_headers })
    }

    /// How long the fixed part of a type's events is.
    pub(crate) fn post_header(&self, kind: EventKind) -> Option<u8> {
        self.post_headers.get(usize::from(kind.0).checked_sub(1)?).copied()
    }
}

/// From 5.6.1 on.
fn knows_checksums(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= (5, 6, 1)
}

/// The next file, and where in it the next event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    pub at: u64,
    pub file: Arc<str>,
}

impl Rotate {
    pub(crate) fn parse(body: Bytes) -> Result<Self> {
        let mut cursor = Cursor::new("ROTATE event", body);
        Ok(Self { at: cursor.u64()?, file: name(&cursor.rest()) })
    }
}

/// A statement: `BEGIN`, `COMMIT`, `SAVEPOINT …`, DDL, or DML where the format is not ROW.
///
/// Thread 4, seconds 4, length of the database's name 1, error 2, length of the status variables 2; status variables, name and a zero, text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub thread: u32,
    pub error: u16,
    pub database: Arc<str>,
    /// In the client's charset, see [`Query::text`].
    pub sql: Bytes,
    pub status: Status,
}

impl Query {
    pub(crate) fn parse(body: Bytes, unpack: impl FnOnce(Bytes) -> Result<Bytes>) -> Result<Self> {
        let mut cursor = Cursor::new("QUERY event", body);
        let thread = cursor.u32()?;
        cursor.skip(4)?;
        let n_database = usize::from(cursor.u8()?);
        let error = cursor.u16()?;
        let n_status = usize::from(cursor.u16()?);
        let status = Status::parse(cursor.part("status variables of a QUERY event", n_status)?)?;
        let database = name(cursor.slice(n_database)?);
        if cursor.u8()? != 0 {
            return Err(BinlogError::malformed(cursor.what(), "its database's name does not end where it says"));
        }
        Ok(Self { thread, error, database, sql: unpack(cursor.rest())?, status })
    }

    /// The statement in UTF-8; what is not valid in its charset as replacement characters.
    pub fn text(&self) -> Cow<'_, str> {
        match self.status.charset.and_then(Charset::of_collation) {
            Some(charset) => charset.lossy(&self.sql),
            None => String::from_utf8_lossy(&self.sql),
        }
    }
}

/// What of the session's state was written with a statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    pub sql_mode: Option<u64>,
    /// Collation of `character_set_client`.
    pub charset: Option<u16>,
    pub time_zone: Option<Arc<str>>,
    /// Of the second in the event's header.
    pub microseconds: Option<u32>,
    /// Of a DDL statement.
    pub xid: Option<u64>,
}

impl Status {
    /// A code of one byte before each ("Query_event: status variables", statement_events.h). The first code that is not known ends them:
    /// nobody can tell how long its value is, and the servers do the same.
    fn parse(mut cursor: Cursor) -> Result<Self> {
        let mut status = Self::default();
        while !cursor.is_empty() {
            match cursor.u8()? {
                0 | 3 | 10 => cursor.skip(4)?,
                1 => status.sql_mode = Some(cursor.u64()?),
                2 => {
                    let n = usize::from(cursor.u8()?);
                    cursor.skip(n + 1)?;
                }
                4 => {
                    status.charset = Some(cursor.u16()?);
                    cursor.skip(4)?;
                }
                5 => {
                    let n = usize::from(cursor.u8()?);
                    status.time_zone = Some(name(cursor.slice(n)?));
                }
                6 => short_text(&mut cursor)?,
                7 | 8 | 18 => cursor.skip(2)?,
                9 => cursor.skip(8)?,
                11 => {
                    short_text(&mut cursor)?;
                    short_text(&mut cursor)?;
                }
                12 => updated_databases(&mut cursor)?,
                13 | 128 => status.microseconds = Some(cursor.uint(3)? as u32),
                16 | 19 | 20 => cursor.skip(1)?,
                17 | 129 => status.xid = Some(cursor.u64()?),
                _ => break,
            }
        }
        Ok(status)
    }
}

fn short_text(cursor: &mut Cursor) -> Result<()> {
    let n = usize::from(cursor.u8()?);
    cursor.skip(n)
}

/// `Q_UPDATED_DB_NAMES`: how many, then the names with a zero behind each; 254 says that there were too many to name.
fn updated_databases(cursor: &mut Cursor) -> Result<()> {
    const TOO_MANY: u8 = 254;
    let n = cursor.u8()?;
    for _ in 0..if n == TOO_MANY { 0 } else { n } {
        while cursor.u8()? != 0 {}
    }
    Ok(())
}

/// The server is there, and this far. Version 1 has the file's name and the position in the header; version 2, for files over 4 GiB, has
/// fields of type, length and value: 1 is the name, 2 the position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub file: Arc<str>,
    pub at: u64,
}

impl Heartbeat {
    pub(crate) fn parse(body: &[u8], next_at: u32) -> Self {
        Self { file: name(body), at: u64::from(next_at) }
    }

    pub(crate) fn parse_v2(body: Bytes) -> Result<Self> {
        let mut cursor = Cursor::new("HEARTBEAT_V2 event", body);
        let (mut file, mut at) = (None, None);
        while !cursor.is_empty() {
            let kind = cursor.lenenc()?;
            if kind == 0 {
                break;
            }
            let mut value = Cursor::new(cursor.what(), cursor.lenenc_bytes()?);
            match kind {
                1 => file = Some(name(&value.rest())),
                2 => at = Some(value.lenenc()?),
                _ => {}
            }
        }
        let (Some(file), Some(at)) = (file, at) else {
            return Err(BinlogError::malformed(cursor.what(), "it names no file or no position"));
        };
        Ok(Self { file, at })
    }
}

/// The server lost changes of its own: its binlog has a hole here, and only a new snapshot can heal it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub number: u16,
    pub message: Arc<str>,
}

impl Incident {
    pub(crate) fn parse(body: Bytes) -> Result<Self> {
        let mut cursor = Cursor::new("INCIDENT event", body);
        let number = cursor.u16()?;
        let n = if cursor.is_empty() { 0 } else { usize::from(cursor.u8()?) };
        Ok(Self { number, message: name(cursor.slice(n)?) })
    }
}

/// A branch of a distributed transaction, as `XA START` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xa {
    pub format: u32,
    pub gtrid: Bytes,
    pub bqual: Bytes,
}

impl Xa {
    /// Of the global name and of the branch's, each ("XA Transaction SQL Statements").
    pub const NAME_BYTES_MAX: usize = 64;

    pub(super) fn read(cursor: &mut Cursor, format: u32, n_gtrid: usize, n_bqual: usize) -> Result<Self> {
        if n_gtrid.max(n_bqual) > Self::NAME_BYTES_MAX {
            return Err(BinlogError::malformed(cursor.what(), "the name of an XA transaction is longer than 64 bytes"));
        }
        // Copied: it is kept until the transaction ends, the event is not.
        let mut name = |n| cursor.slice(n).map(Bytes::copy_from_slice);
        Ok(Self { format, gtrid: name(n_gtrid)?, bqual: name(n_bqual)? })
    }
}

/// As servers write it into their statements: `X'31',X'',1`.
impl fmt::Display for Xa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X'{}',X'{}',{}", hex(&self.gtrid), hex(&self.bqual), self.format)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Ends the events of an XA transaction, which is committed or rolled back by a later `XA …` statement, unless it is of one phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XaPrepare {
    pub is_one_phase: bool,
    pub xa: Xa,
}

impl XaPrepare {
    /// One phase 1, format 4, lengths of gtrid and bqual 4 each, both.
    pub(crate) fn parse(body: Bytes) -> Result<Self> {
        let mut cursor = Cursor::new("XA_PREPARE event", body);
        let is_one_phase = cursor.u8()? != 0;
        let format = cursor.u32()?;
        let (n_gtrid, n_bqual) = (cursor.u32()? as usize, cursor.u32()? as usize);
        Ok(Self { is_one_phase, xa: Xa::read(&mut cursor, format, n_gtrid, n_bqual)? })
    }
}

/// `BINLOG_CHECKPOINT`: length 4, name of the oldest file that a crashed server would still need.
pub(crate) fn checkpoint(body: Bytes) -> Result<Arc<str>> {
    let mut cursor = Cursor::new("BINLOG_CHECKPOINT event", body);
    let n = cursor.u32()? as usize;
    Ok(name(cursor.slice(n)?))
}

/// `ROWS_QUERY`: one byte of length that is too short to be used, then the statement.
pub(crate) fn rows_query(body: Bytes) -> Result<Bytes> {
    let mut cursor = Cursor::new("ROWS_QUERY event", body);
    cursor.skip(1)?;
    Ok(cursor.rest())
}
