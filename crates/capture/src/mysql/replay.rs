//! The rows of a prepared transaction that are not in memory, read again from the binlog beside the stream.

use super::binlog::compression::Payload;
use super::binlog::decoder::{Body, Decoder, Event, Limits};
use super::binlog::header::{EventKind, HEADER_BYTES, Header};
use super::ddl::Statement;
use super::place::{FIRST_AT, file_number};
use super::prepared::Begin;
use super::server::Server;
use super::settings::Settings;
use super::stream::Stream;
use super::wire::{Connection, WireError};
use crate::source::SourceError;
use std::sync::Arc;

/// What was committed, and has to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub xid: String,
    pub begin: Begin,
    /// Where the event that commits it ends: what was prepared is before it.
    pub before: (Arc<str>, u64),
}

pub struct Replay {
    reader: Reader,
    pub xid: String,
    is_inside: bool,
}

impl Replay {
    pub async fn open(settings: &Settings, server: &Server, sql: &mut Connection, wanted: Wanted) -> Result<Self, SourceError> {
        let begin = match wanted.begin {
            Some(begin) => begin,
            None => locate(settings, server, sql, &wanted).await?.ok_or_else(|| gone(&wanted.xid))?,
        };
        let reader = Reader::open(settings, server, &begin.0, begin.1).await.map_err(|e| purged(&wanted.xid, e))?;
        Ok(Self { reader, xid: wanted.xid, is_inside: false })
    }

    /// The events between its `XA START` and its prepare; none behind that.
    pub async fn next(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            let event = match self.reader.next().await {
                Ok(Some(event)) => event,
                Ok(None) => return Err(gone(&self.xid)),
                Err(Failed::Wire(e)) => return Err(purged(&self.xid, e)),
                Err(Failed::Said(e)) => return Err(e),
            };
            match &event.body {
                body if !self.is_inside => match prepared_as(body) {
                    Some(xid) if xid == self.xid => self.is_inside = true,
                    Some(_) => return Err(gone(&self.xid)),
                    None => {}
                },
                Body::XaPrepare(_) => return Ok(None),
                _ => return Ok(Some(event)),
            }
        }
    }
}

/// The name under which the rows that follow will be prepared: MySQL has it in a statement, MariaDB in the event that begins the transaction.
fn prepared_as(body: &Body) -> Option<String> {
    match body {
        Body::MariadbBegin(begin) if begin.is_prepared_xa => begin.xa.as_ref().map(ToString::to_string),
        Body::Query(q) => match Statement::read(&q.text(), &q.database) {
            Statement::XaStart(xa) => Some(xa.to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// Where the last transaction begins that was prepared under this name before the given place. Reads the whole binlog: only for what was
/// prepared before capture began, or before it went on on another server.
async fn locate(settings: &Settings, server: &Server, sql: &mut Connection, wanted: &Wanted) -> Result<Begin, SourceError> {
    let logs = sql.query("SHOW BINARY LOGS").await.map_err(|e| e.during("list the binlog's files"))?;
    let first = logs.first().map(|row| row.text(0)).ok_or_else(|| gone(&wanted.xid))?;
    tracing::info!(
        xid = wanted.xid,
        from = first,
        "a transaction was committed that was prepared before capture began here: it is searched for in the binlog"
    );
    let mut reader = Reader::open(settings, server, &first, FIRST_AT).await.map_err(|e| e.during("search for a prepared transaction"))?;
    reader.is_searching = true;
    let end = (file_number(&wanted.before.0)?, wanted.before.1);
    let mut found = None;
    while let Some(event) = reader.next().await.map_err(|e| e.during("search for a prepared transaction"))? {
        if (file_number(&reader.file)?, reader.begin) >= end {
            break;
        }
        if prepared_as(&event.body).is_some_and(|xid| xid == wanted.xid) {
            found = Some((reader.file.clone(), reader.begin));
        }
    }
    Ok(found)
}

fn gone(xid: &str) -> SourceError {
    SourceError::refused(format!(
        "the XA transaction {xid} was committed, and the binlog no longer has its rows, which were prepared long before: take a new snapshot (delete the stored place)"
    ))
}

/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`: the file was purged.
fn purged(xid: &str, e: WireError) -> SourceError {
    const CANNOT_SEND: u16 = 1236;
    if e.code() == Some(CANNOT_SEND) { gone(xid) } else { e.during("read a prepared transaction again") }
}

enum Failed {
    Wire(WireError),
    Said(SourceError),
}

impl Failed {
    fn during(self, what: &str) -> SourceError {
        match self {
            Self::Wire(e) => e.during(what),
            Self::Said(e) => e,
        }
    }
}

/// Events one by one, those of compressed transactions too.
struct Reader {
    stream: Stream,
    decoder: Decoder,
    payload: Option<Payload>,
    file: Arc<str>,
    /// Of the transaction that is being read.
    begin: u64,
    /// Rows are of no interest.
    is_searching: bool,
}

impl Reader {
    async fn open(settings: &Settings, server: &Server, file: &str, at: u64) -> Result<Self, WireError> {
        let stream = Stream::open_again(settings, server, file, at).await?;
        let decoder = Decoder::new(Limits { event_bytes_max: settings.packet_bytes_max, ..Limits::default() });
        Ok(Self { stream, decoder, payload: None, file: file.into(), begin: at, is_searching: false })
    }

    async fn next(&mut self) -> Result<Option<Event>, Failed> {
        loop {
            if let Some(payload) = &mut self.payload {
                match payload.next(&mut self.decoder).map_err(unreadable)? {
                    Some(event) => return Ok(Some(event)),
                    None => self.payload = None,
                }
            }
            let bytes = match self.stream.event().await {
                Ok(bytes) => bytes,
                Err(WireError::Closed) => return Ok(None),
                Err(e) => return Err(Failed::Wire(e)),
            };
            let kind = bytes.get(4).map_or(EventKind(0), |kind| EventKind(*kind));
            let begins = [EventKind::GTID, EventKind::ANONYMOUS_GTID, EventKind::GTID_TAGGED, EventKind::MARIADB_GTID].contains(&kind);
            if let Some(header) = bytes.first_chunk::<HEADER_BYTES>().map(Header::parse).filter(|_| begins) {
                self.begin = u64::from(header.next_at.saturating_sub(header.length));
            }
            if self.is_searching && is_uninteresting(kind) {
                continue;
            }
            let event = self.decoder.event(bytes).map_err(unreadable)?;
            match event.body {
                Body::Payload(payload) => self.payload = Some(payload),
                Body::Rotate(rotate) => self.file = rotate.file,
                _ => return Ok(Some(event)),
            }
        }
    }
}

fn is_uninteresting(kind: EventKind) -> bool {
    use EventKind as Kind;
    let is_read =
        [Kind::FORMAT_DESCRIPTION, Kind::ROTATE, Kind::QUERY, Kind::QUERY_COMPRESSED, Kind::TRANSACTION_PAYLOAD, Kind::MARIADB_GTID];
    !is_read.contains(&kind)
}

fn unreadable(e: super::binlog::error::BinlogError) -> Failed {
    Failed::Said(super::assembler::unreadable(e))
}
