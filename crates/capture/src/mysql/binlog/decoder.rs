//! Events, as the server sends them, to what they mean.

use super::compression::{self, Payload};
use super::cursor::Cursor;
use super::error::{BinlogError, Result};
use super::events::{self, Format, Heartbeat, Incident, Query, Rotate, XaPrepare};
use super::header::{self, Checksum, EventKind, Header};
use super::rows::{Rows, RowsForm};
use super::table_map::{TABLE_MAP_BYTES_MAX, TableMap};
use super::transaction::{self, Begin, MariadbBegin};
use crate::mysql::gtid::{GtidSet, MariadbPosition};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the decoder may be made to keep or allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One event, also when uncompressed. Servers write none over `max_allowed_packet`, 1 GiB at most, and a little.
    pub event_bytes_max: usize,
    /// All events of a compressed transaction together. They come one by one: this bounds work, not memory.
    pub transaction_bytes_max: u64,
    /// Table maps that are kept, to be recognised when they come again.
    pub n_tables_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { event_bytes_max: (1 << 30) + (1 << 20), transaction_bytes_max: 64 << 30, n_tables_max: 4096 }
    }
}

#[derive(Debug)]
pub struct Event {
    pub header: Header,
    pub body: Body,
}

#[derive(Debug)]
pub enum Body {
    Format(Format),
    Rotate(Rotate),
    /// MySQL's begin of a transaction, also without a GTID.
    Begin(Begin),
    MariadbBegin(MariadbBegin),
    /// A statement in the binlog: also `BEGIN`, and `COMMIT` of what has no [`Body::Commit`].
    Query(Query),
    /// Ends a transaction (`XID_EVENT`).
    Commit {
        xid: u64,
    },
    XaPrepare(XaPrepare),
    TableMap(Arc<TableMap>),
    Rows(Rows),
    /// A compressed transaction: [`Payload::next`] gives its events.
    Payload(Payload),
    /// The statement that the row events behind it are of (`ROWS_QUERY`, `ANNOTATE_ROWS`).
    Statement(Bytes),
    PreviousGtids(GtidSet),
    MariadbPosition(MariadbPosition),
    Heartbeat(Heartbeat),
    Incident(Incident),
    Checkpoint {
        file: Arc<str>,
    },
    /// Of no meaning for rows, or not known but marked by the server as safe to ignore.
    Other,
}

/// A stream of one server's events, from the start of any file or transaction on.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    format: Option<Format>,
    tables: BTreeMap<u64, Known>,
    table_bytes: usize,
    /// Counts statements, to know which table maps are of the current one.
    statement: u64,
}

#[derive(Debug)]
struct Known {
    map: Arc<TableMap>,
    /// As it came: most table maps come again and again.
    body: Bytes,
    statement: u64,
}

impl Decoder {
    pub fn new(limits: Limits) -> Self {
        Self { limits, format: None, tables: BTreeMap::new(), table_bytes: 0, statement: 0 }
    }

    /// The server's version, once it has said it.
    pub fn format(&self) -> Option<&Format> {
        self.format.as_ref()
    }

    /// One whole event with its header. Behind an error the stream is not to be continued.
    pub fn event(&mut self, bytes: Bytes) -> Result<Event> {
        self.check_length(bytes.len() as u64)?;
        let checksum = match (&self.format, bytes.get(4).copied().map(EventKind)) {
            // It says itself whether it has one.
            (_, Some(EventKind::FORMAT_DESCRIPTION)) | (None, _) => Checksum::Unknown,
            // The first event of a new file is made up before the file's format is known.
            (_, Some(EventKind::ROTATE)) if is_artificial(&bytes) => Checksum::Unknown,
            (Some(format), _) => format.checksum,
        };
        let (header, body) = header::split(&bytes, checksum)?;
        if header.kind != EventKind::FORMAT_DESCRIPTION {
            return self.read(header, body);
        }
        let format = Format::parse(&bytes)?;
        self.format = Some(format.clone());
        self.forget_tables();
        Ok(Event { header, body: Body::Format(format) })
    }

    /// An event of a compressed transaction, which has no checksum of its own.
    pub(super) fn inner_event(&mut self, bytes: Bytes) -> Result<Event> {
        let (header, body) = header::split(&bytes, Checksum::None)?;
        match header.kind {
            EventKind::TRANSACTION_PAYLOAD | EventKind::FORMAT_DESCRIPTION | EventKind::ROTATE => {
                Err(BinlogError::malformed("compressed transaction", "it contains an event that only a file contains"))
            }
            _ => self.read(header, body),
        }
    }

    pub(super) fn check_length(&self, n: u64) -> Result<()> {
        match n > self.limits.event_bytes_max as u64 {
            true => Err(BinlogError::Limit { what: "an event", limit: self.limits.event_bytes_max as u64, name: "event_bytes_max" }),
            false => Ok(()),
        }
    }

    fn forget_tables(&mut self) {
        self.tables.clear();
        self.table_bytes = 0;
    }

    fn read(&mut self, header: Header, body: Bytes) -> Result<Event> {
        let bytes_max = self.limits.event_bytes_max;
        let body = match header.kind {
            EventKind::ROTATE => Body::Rotate(Rotate::parse(body)?),
            EventKind::QUERY => Body::Query(Query::parse(body, Ok)?),
            EventKind::QUERY_COMPRESSED => {
                Body::Query(Query::parse(body, |b| compression::inflate("QUERY_COMPRESSED event", b, bytes_max))?)
            }
            EventKind::XID => Body::Commit { xid: Cursor::new("XID event", body).u64()? },
            EventKind::GTID => Body::Begin(Begin::parse(body, false)?),
            EventKind::ANONYMOUS_GTID => Body::Begin(Begin::parse(body, true)?),
            EventKind::GTID_TAGGED => Body::Begin(Begin::parse_tagged(body)?),
            EventKind::PREVIOUS_GTIDS => Body::PreviousGtids(transaction::previous(body)?),
            EventKind::MARIADB_GTID => Body::MariadbBegin(MariadbBegin::parse(body, header.server_id)?),
            EventKind::MARIADB_GTID_LIST => Body::MariadbPosition(transaction::list(body)?),
            EventKind::TABLE_MAP => Body::TableMap(self.table_map(header.kind, body)?),
            EventKind::TRANSACTION_PAYLOAD => Body::Payload(Payload::parse(body, self.limits.transaction_bytes_max)?),
            EventKind::ROWS_QUERY => Body::Statement(events::rows_query(body)?),
            EventKind::ANNOTATE_ROWS => Body::Statement(body),
            EventKind::HEARTBEAT => Body::Heartbeat(Heartbeat::parse(&body, header.next_at)),
            EventKind::HEARTBEAT_V2 => Body::Heartbeat(Heartbeat::parse_v2(body)?),
            EventKind::INCIDENT => Body::Incident(Incident::parse(body)?),
            EventKind::XA_PREPARE => Body::XaPrepare(XaPrepare::parse(body)?),
            EventKind::BINLOG_CHECKPOINT => Body::Checkpoint { file: events::checkpoint(body)? },
            EventKind::START_ENCRYPTION => return Err(BinlogError::Encrypted),
            kind => match RowsForm::of(kind) {
                Some(form) => Body::Rows(self.rows(kind, form, body)?),
                None if header.is_ignorable() || is_of_no_meaning(kind) => Body::Other,
                None => return Err(BinlogError::UnknownEvent { kind }),
            },
        };
        Ok(Event { header, body })
    }

    /// Four bytes where the post-header is six, as servers before 5.1.4 had it.
    fn id_bytes(&self, kind: EventKind) -> usize {
        match self.format.as_ref().and_then(|f| f.post_header(kind)) {
            Some(6) => 4,
            _ => 6,
        }
    }

    fn rows(&mut self, kind: EventKind, form: RowsForm, body: Bytes) -> Result<Rows> {
        let bytes_max = self.limits.event_bytes_max;
        let unpack =
            |bytes: Bytes| if form.is_compressed { compression::inflate("compressed row event", bytes, bytes_max) } else { Ok(bytes) };
        let table = |id| self.tables.get(&id).map(|known| known.map.clone());
        let rows = Rows::parse(form, body, self.id_bytes(kind), bytes_max, table, unpack)?;
        self.statement += u64::from(rows.ends_statement);
        Ok(rows)
    }

    /// The same table map is the same value, so that whoever has made a shape of it can see that by `Arc::ptr_eq`.
    fn table_map(&mut self, kind: EventKind, body: Bytes) -> Result<Arc<TableMap>> {
        let id_bytes = self.id_bytes(kind);
        let id = Cursor::new("TABLE_MAP event", body.clone()).uint(id_bytes)?;
        if let Some(known) = self.tables.get_mut(&id).filter(|known| known.body == body) {
            known.statement = self.statement;
            return Ok(known.map.clone());
        }
        let is_mariadb = self.format.as_ref().is_some_and(|format| format.is_mariadb);
        // Its strings would keep the whole buffer that it came in.
        let body = Bytes::copy_from_slice(&body);
        let map = Arc::new(TableMap::parse(body.clone(), id_bytes, is_mariadb)?);
        self.make_room(body.len())?;
        self.table_bytes += body.len();
        let known = Known { map: map.clone(), body, statement: self.statement };
        if let Some(old) = self.tables.insert(id, known) {
            self.table_bytes -= old.body.len();
        }
        Ok(map)
    }

    /// Forgets the tables of earlier statements when there are too many.
    fn make_room(&mut self, n_bytes: usize) -> Result<()> {
        let fits =
            |decoder: &Self| decoder.tables.len() < decoder.limits.n_tables_max && decoder.table_bytes + n_bytes <= 4 * TABLE_MAP_BYTES_MAX;
        if fits(self) {
            return Ok(());
        }
        self.tables.retain(|_, known| known.statement == self.statement);
        self.table_bytes = self.tables.values().map(|known| known.body.len()).sum();
        match fits(self) {
            true => Ok(()),
            false => Err(BinlogError::Limit {
                what: "the number of tables of one statement",
                limit: self.limits.n_tables_max as u64,
                name: "n_tables_max",
            }),
        }
    }
}

fn is_artificial(bytes: &Bytes) -> bool {
    bytes.first_chunk::<{ header::HEADER_BYTES }>().is_some_and(|head| Header::parse(head).is_artificial())
}

/// What only statements or other servers need.
fn is_of_no_meaning(kind: EventKind) -> bool {
    use EventKind as Kind;
    matches!(
        kind,
        Kind::START_V3
            | Kind::STOP
            | Kind::INTVAR
            | Kind::RAND
            | Kind::USER_VAR
            | Kind::IGNORABLE
            | Kind::TRANSACTION_CONTEXT
            | Kind::VIEW_CHANGE
            | Kind::SLAVE
            | Kind::LOAD
            | Kind::NEW_LOAD
            | Kind::CREATE_FILE
            | Kind::APPEND_BLOCK
            | Kind::EXEC_LOAD
            | Kind::DELETE_FILE
            | Kind::BEGIN_LOAD_QUERY
            | Kind::EXECUTE_LOAD_QUERY
    )
}
