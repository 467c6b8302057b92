//! The header of an event and its checksum.

use super::cursor::Cursor;
use super::error::{BinlogError, Result};
use bytes::Bytes;
use std::fmt;

/// Version 4 ("Binary Log Event Header", dev.mysql.com source documentation, `Log_event_header`): timestamp 4, type 1, server id 4,
/// length 4, end position 4, flags 2.
pub const HEADER_BYTES: usize = 19;
const CHECKSUM_BYTES: usize = 4;

/// `LOG_EVENT_ARTIFICIAL_F`: made up by the sending server, not in its file.
const ARTIFICIAL: u16 = 0x20;
/// `LOG_EVENT_IGNORABLE_F`: who does not know the type may go on.
const IGNORABLE: u16 = 0x80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970 by the server's clock; of a row event, when its statement began. Zero in events that the server makes up.
    pub timestamp: u32,
    pub kind: EventKind,
    /// Of the server that executed it first.
    pub server_id: u32,
    /// Of the whole event, header and checksum included.
    pub length: u32,
    /// Where the next event begins in the file, modulo 4 GiB; zero inside a compressed transaction.
    pub next_at: u32,
    pub flags: u16,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            timestamp: u32_at(0),
            kind: EventKind(bytes[4]),
            server_id: u32_at(5),
            length: u32_at(9),
            next_at: u32_at(13),
            flags: u16::from_le_bytes([bytes[17], bytes[18]]),
        }
    }

    pub fn is_artificial(&self) -> bool {
        self.flags & ARTIFICIAL != 0
    }

    pub fn is_ignorable(&self) -> bool {
        self.flags & IGNORABLE != 0
    }
}

/// How events of a file are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    None,
    /// The last four bytes are the CRC-32 (IEEE) of all before.
    Crc32,
    /// As found: before the format is known, and in events that a server makes up, it is there if it is right.
    Unknown,
}

/// Splits an event into its header and its body, with the checksum verified and taken off.
pub fn split(bytes: &Bytes, checksum: Checksum) -> Result<(Header, Bytes)> {
    let mut cursor = Cursor::new("event header", bytes.clone());
    let header = Header::parse(&cursor.array()?);
    if header.length as usize != bytes.len() {
        return Err(BinlogError::malformed("event header", "the event has another length than it says"));
    }
    let body = cursor.rest();
    let Some(end) = body.len().checked_sub(CHECKSUM_BYTES).filter(|_| checksum != Checksum::None) else {
        return match checksum {
            Checksum::Crc32 => Err(BinlogError::Truncated { what: "event checksum", need: CHECKSUM_BYTES, have: body.len() }),
            _ => Ok((header, body)),
        };
    };
    let stored = u32::from_le_bytes([body[end], body[end + 1], body[end + 2], body[end + 3]]);
    let computed = crc32fast::hash(&bytes[..bytes.len() - CHECKSUM_BYTES]);
    match checksum {
        _ if stored == computed => Ok((header, body.slice(..end))),
        Checksum::Unknown => Ok((header, body)),
        _ => Err(BinlogError::Checksum { kind: header.kind, next_at: header.next_at, stored, computed }),
    }
}

/// The type of an event, by its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventKind(pub u8);

/// Declares the numbers with their names: a list is easier to hold against the servers' own (`Log_event_type`, `log_event.h`).
macro_rules! kinds {
    ($($name:ident = $number:literal,)*) => {
        impl EventKind {
            $(pub const $name: Self = Self($number);)*

            /// The server's own name.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    START_V3 = 1,
    QUERY = 2,
    STOP = 3,
    ROTATE = 4,
    INTVAR = 5,
    LOAD = 6,
    SLAVE = 7,
    CREATE_FILE = 8,
    APPEND_BLOCK = 9,
    EXEC_LOAD = 10,
    DELETE_FILE = 11,
    NEW_LOAD = 12,
    RAND = 13,
    USER_VAR = 14,
    FORMAT_DESCRIPTION = 15,
    XID = 16,
    BEGIN_LOAD_QUERY = 17,
    EXECUTE_LOAD_QUERY = 18,
    TABLE_MAP = 19,
    WRITE_ROWS_V1 = 23,
    UPDATE_ROWS_V1 = 24,
    DELETE_ROWS_V1 = 25,
    INCIDENT = 26,
    HEARTBEAT = 27,
    IGNORABLE = 28,
    ROWS_QUERY = 29,
    WRITE_ROWS = 30,
    UPDATE_ROWS = 31,
    DELETE_ROWS = 32,
    GTID = 33,
    ANONYMOUS_GTID = 34,
    PREVIOUS_GTIDS = 35,
    TRANSACTION_CONTEXT = 36,
    VIEW_CHANGE = 37,
    XA_PREPARE = 38,
    PARTIAL_UPDATE_ROWS = 39,
    TRANSACTION_PAYLOAD = 40,
    HEARTBEAT_V2 = 41,
    GTID_TAGGED = 42,
    ANNOTATE_ROWS = 160,
    BINLOG_CHECKPOINT = 161,
    MARIADB_GTID = 162,
    MARIADB_GTID_LIST = 163,
    START_ENCRYPTION = 164,
    QUERY_COMPRESSED = 165,
    WRITE_ROWS_COMPRESSED_V1 = 166,
    UPDATE_ROWS_COMPRESSED_V1 = 167,
    DELETE_ROWS_COMPRESSED_V1 = 168,
    WRITE_ROWS_COMPRESSED = 169,
    UPDATE_ROWS_COMPRESSED = 170,
    DELETE_ROWS_COMPRESSED = 171,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
