//! The events that begin a transaction and name it, and those that say which came before.

use super::cursor::Cursor;
use super::error::{BinlogError, Result};
use super::events::Xa;
use crate::mysql::gtid::{Gtid, GtidSet, MariadbGtid, MariadbPosition, Source};
use bytes::Bytes;

/// `GTID_LOG_EVENT`, `ANONYMOUS_GTID_LOG_EVENT`, `GTID_TAGGED_LOG_EVENT`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    /// None with `gtid_mode` off.
    pub gtid: Option<Gtid>,
    pub has_statements: bool,
    pub last_committed: Option<u64>,
    pub sequence_number: Option<u64>,
    /// Microseconds since 1970: when the server that sends it committed it. From 8.0.1 on.
    pub immediate_commit_us: Option<u64>,
    /// When the server that executed it first did.
    pub original_commit_us: Option<u64>,
    /// Of all events of the transaction, this one included. From 8.0.2 on.
    pub transaction_bytes: Option<u64>,
}

/// `FLAG_MAY_HAVE_SBR`.
const HAS_STATEMENTS: u8 = 1;
/// Type code before the two logical timestamps.
const LOGICAL_TIMESTAMPS: u8 = 2;
/// The highest bit of the 7 bytes: the original timestamp follows, because it is another.
const HAS_ORIGINAL: u64 = 1 << 55;

impl Begin {
    /// Flags 1, uuid 16, number 8, type 1, last committed 8, sequence number 8, timestamps of 7 bytes, length, server versions of 4 bytes
    /// and a ticket of 8 ("Gtid_event", control_events.h). Older servers end earlier.
    pub(crate) fn parse(body: Bytes, is_anonymous: bool) -> Result<Self> {
        let mut cursor = Cursor::new("GTID event", body);
        let has_statements = cursor.u8()? & HAS_STATEMENTS != 0;
        let source = Source { uuid: cursor.array()?, tag: "".into() };
        let number = cursor.u64()?;
        let gtid = if is_anonymous { None } else { Some(numbered(source, number)?) };
        let mut begin = Self { gtid, has_statements, ..Self::default() };
        if cursor.peek() != Some(LOGICAL_TIMESTAMPS) {
            return Ok(begin);
        }
        cursor.skip(1)?;
        begin.last_committed = Some(cursor.u64()?);
        begin.sequence_number = Some(cursor.u64()?);
        if cursor.left() < 7 {
            return Ok(begin);
        }
        let immediate = cursor.uint(7)?;
        begin.immediate_commit_us = Some(immediate & !HAS_ORIGINAL);
        begin.original_commit_us = if immediate & HAS_ORIGINAL != 0 { Some(cursor.uint(7)?) } else { begin.immediate_commit_us };
        begin.transaction_bytes = if cursor.is_empty() { None } else { Some(cursor.lenenc()?) };
        Ok(begin)
    }

    /// A message of MySQL's own serialisation (libs/mysql/serialization/readme.md): version, size and the last field that may not be
    /// ignored, then each field with its number before it, in order; those that have their default are left out
    /// (`Gtid_event::define_fields`, control_events.h).
    pub(crate) fn parse_tagged(body: Bytes) -> Result<Self> {
        const WHAT: &str = "GTID_TAGGED event";
        const FIELD_LAST_KNOWN: u64 = 12;
        let mut cursor = Cursor::new(WHAT, body);
        let all = cursor.left();
        let version = varint(&mut cursor)?;
        let size = usize::try_from(varint(&mut cursor)?).ok().and_then(|size| size.checked_sub(all - cursor.left()));
        let size = size.ok_or(BinlogError::malformed(WHAT, "it says that it is shorter than its head"))?;
        let mut cursor = cursor.part(WHAT, size)?;
        if version != 1 || varint(&mut cursor)? > FIELD_LAST_KNOWN {
            return Err(BinlogError::malformed(WHAT, "it has a version or fields that are not known, and that may not be ignored"));
        }
        let (mut begin, mut uuid, mut number, mut tag) = (Self::default(), None, None, String::new());
        while !cursor.is_empty() {
            match varint(&mut cursor)? {
                0 => begin.has_statements = varint(&mut cursor)? & u64::from(HAS_STATEMENTS) != 0,
                1 => uuid = Some(varint_bytes(&mut cursor)?),
                2 => number = Some(varint_signed(&mut cursor)?),
                3 => tag = text(&mut cursor)?,
                4 => begin.last_committed = Some(varint_signed(&mut cursor)?),
                5 => begin.sequence_number = Some(varint_signed(&mut cursor)?),
                6 => begin.immediate_commit_us = Some(varint(&mut cursor)?),
                7 => begin.original_commit_us = Some(varint(&mut cursor)?),
                8 => begin.transaction_bytes = Some(varint(&mut cursor)?),
                9..=11 => drop(varint(&mut cursor)?),
                _ => break,
            }
        }
        let (Some(uuid), Some(number)) = (uuid, number) else { return Err(BinlogError::malformed(WHAT, "it has no uuid or no number")) };
        let source = Source::new(uuid, &tag).map_err(|_| BinlogError::malformed(WHAT, "its tag is not one"))?;
        begin.gtid = Some(numbered(source, number)?);
        begin.original_commit_us = begin.original_commit_us.or(begin.immediate_commit_us);
        Ok(begin)
    }
}

fn numbered(source: Source, number: u64) -> Result<Gtid> {
    match number {
        1..=0x7fff_ffff_ffff_fffe => Ok(Gtid { source, number }),
        _ => Err(BinlogError::malformed("GTID event", "its number is out of range")),
    }
}

/// As many ones at the lower end of the first byte as bytes follow it; the value is what is above them, little endian.
fn varint(cursor: &mut Cursor) -> Result<u64> {
    let first = cursor.u8()?;
    let n = first.trailing_ones();
    let more = cursor.uint(n as usize)?;
    Ok(match n {
        8 => more,
        7 => more,
        _ => u64::from(first) >> (n + 1) | more << (7 - n),
    })
}

/// Signed values have their sign in the lowest bit; none of these is ever below zero.
fn varint_signed(cursor: &mut Cursor) -> Result<u64> {
    match varint(cursor)? {
        n if n & 1 == 0 => Ok(n >> 1),
        _ => Err(BinlogError::malformed(cursor.what(), "a number is below zero")),
    }
}

/// Each byte of an array is an integer of its own.
fn varint_bytes(cursor: &mut Cursor) -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = u8::try_from(varint(cursor)?).map_err(|_| BinlogError::malformed(cursor.what(), "a byte of its uuid is over 255"))?;
    }
    Ok(bytes)
}

fn text(cursor: &mut Cursor) -> Result<String> {
    let n = usize::try_from(varint(cursor)?).unwrap_or(usize::MAX);
    Ok(String::from_utf8_lossy(cursor.slice(n)?).into_owned())
}

/// `PREVIOUS_GTIDS_LOG_EVENT`: all transactions of the files before.
pub(crate) fn previous(body: Bytes) -> Result<GtidSet> {
    let mut cursor = Cursor::new("PREVIOUS_GTIDS event", body);
    let set = GtidSet::decode(&mut cursor)?;
    cursor.finish()?;
    Ok(set)
}

/// MariaDB's `GTID_EVENT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MariadbBegin {
    pub gtid: MariadbGtid,
    /// The transaction is the one event that follows, without a `COMMIT`: a DDL statement, mostly.
    pub is_standalone: bool,
    pub is_transactional: bool,
    pub is_ddl: bool,
    /// Shared by transactions that were committed together.
    pub commit_id: Option<u64>,
    pub xa: Option<Xa>,
    /// `XA PREPARE`; else, with `xa`, the commit or rollback of what was prepared before.
    pub is_prepared_xa: bool,
}

impl MariadbBegin {
    /// Number 8, domain 4, flags 1, then what the flags say ("GTID_EVENT", MariaDB Replication Protocol). What newer servers put behind that
    /// (`FL_EXTRA…`) is of no use here.
    pub(crate) fn parse(body: Bytes, server: u32) -> Result<Self> {
        let mut cursor = Cursor::new("MariaDB GTID event", body);
        let number = cursor.u64()?;
        let domain = cursor.u32()?;
        let flags = cursor.u8()?;
        let has = |bit: u8| flags & bit != 0;
        let commit_id = if has(0x02) { Some(cursor.u64()?) } else { None };
        let is_prepared_xa = has(0x40);
        let xa = if is_prepared_xa || has(0x80) { Some(xa(&mut cursor)?) } else { None };
        let gtid = MariadbGtid { domain, server, number };
        Ok(Self { gtid, is_standalone: has(0x01), is_transactional: has(0x04), is_ddl: has(0x20), commit_id, xa, is_prepared_xa })
    }
}

fn xa(cursor: &mut Cursor) -> Result<Xa> {
    let format = cursor.u32()?;
    let (n_gtrid, n_bqual) = (usize::from(cursor.u8()?), usize::from(cursor.u8()?));
    Xa::read(cursor, format, n_gtrid, n_bqual)
}

/// `GTID_LIST_EVENT`: the last transaction of each domain and server; the last that is listed of a domain is its latest.
pub(crate) fn list(body: Bytes) -> Result<MariadbPosition> {
    const COUNT: u32 = (1 << 28) - 1;
    let mut cursor = Cursor::new("MariaDB GTID_LIST event", body);
    let mut position = MariadbPosition::default();
    for _ in 0..cursor.u32()? & COUNT {
        let (domain, server, number) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
        position
            .add(MariadbGtid { domain, server, number })
            .map_err(|_| BinlogError::malformed(cursor.what(), "it has more domains than a position may"))?;
    }
    Ok(position)
}
