//! Opening a source: who the server is, where to begin, and what is still to be read of a snapshot.

use super::assembler::{Assembler, begun};
use super::binlog::decoder::{Body, Decoder, Event, Limits};
use super::catalog::{self, Selection};
use super::place::{Notes, Place, base_above};
use super::prepared::Prepared;
use super::server::{Server, Start};
use super::settings::Settings;
use super::shapes::Shapes;
use super::snapshot::{Progress, Why};
use super::source::MysqlSource;
use super::stream::Stream;
use super::wire::{Connection, WireError};
use crate::change::Resume;
use crate::snapshot_mode::SnapshotMode;
use crate::source::{Link, Source, SourceError};
use mulgil_model::position::Position;
use std::collections::VecDeque;

/// `ER_MASTER_FATAL_ERROR_READING_BINLOG`: the server cannot send from there.
const CANNOT_SEND: u16 = 1236;
/// Times are told in UTC; no statement of ours waits for a lock for long; text comes as it is.
const SESSION: &str =
    "SET SESSION time_zone = '+00:00', sql_mode = '', lock_wait_timeout = 60, net_write_timeout = 3600, wait_timeout = 86400";

pub async fn open(settings: Settings, resume: Option<Resume>, link: Link) -> Result<Box<dyn Source>, SourceError> {
    let mut sql = connect(&settings).await?;
    let server = Server::ask(&mut sql).await.map_err(|e| e.during("ask the server who it is"))?;
    let notes = resume.as_ref().map(|r| Notes::parse(&r.notes)).transpose()?;
    let stored = notes.zip(resume.map(|r| r.position));
    match begin(&settings, &server, &mut sql, stored.clone()).await {
        Err(Begun::Refused(why)) if settings.snapshot == SnapshotMode::WhenNeeded => {
            tracing::warn!(why, "everything is read again: the snapshot mode is when_needed");
            let last = stored.map(|(_, position)| position);
            let begun = afresh(&settings, &server, &mut sql, last, true).await;
            finish(settings, server, sql, link, begun)
        }
        begun => finish(settings, server, sql, link, begun),
    }
}

pub async fn connect(settings: &Settings) -> Result<Connection, SourceError> {
    let mut sql = Connection::open(settings).await.map_err(|e| e.during(&format!("connect to {}", settings.address)))?;
    sql.query(SESSION).await.map_err(|e| e.during("set up the session"))?;
    Ok(sql)
}

/// Where a source begins.
pub(super) struct Begin {
    pub stream: Stream,
    pub decoder: Decoder,
    pub assembler: Assembler,
    pub snapshots: VecDeque<Progress>,
}

enum Begun {
    Refused(String),
    Failed(SourceError),
}

impl From<SourceError> for Begun {
    fn from(e: SourceError) -> Self {
        Self::Failed(e)
    }
}

fn finish(
    settings: Settings,
    server: Server,
    sql: Connection,
    link: Link,
    begun: Result<Begin, Begun>,
) -> Result<Box<dyn Source>, SourceError> {
    match begun {
        Ok(b) => Ok(Box::new(MysqlSource::new(settings, server, sql, link, b))),
        Err(Begun::Failed(e)) => Err(e),
        Err(Begun::Refused(why)) => Err(SourceError::refused(format!(
            "{why}. Going on would skip or repeat changes. Choose: point the source at the server that has the stored place; or set snapshot = \"when_needed\" \
             to read all tables again and go on from there; or delete the stored place to begin as if for the first time"
        ))),
    }
}

async fn begin(settings: &Settings, server: &Server, sql: &mut Connection, stored: Option<(Notes, Position)>) -> Result<Begin, Begun> {
    let mode = settings.snapshot;
    let Some((notes, last)) = stored else {
        return afresh(settings, server, sql, None, mode != SnapshotMode::NoData).await;
    };
    let start = server.start(sql, &notes, settings.gtid).await.map_err(|e| e.during("look for the stored place"))?;
    let by_gtid = match start {
        Start::Refused(why) => return Err(Begun::Refused(why)),
        Start::File => false,
        Start::Gtid => {
            tracing::info!(server = server.id, before = notes.server_id, "another server: going on by GTID");
            true
        }
    };
    let mut place = Place { file: notes.file.as_str().into(), at: notes.at, file_base: notes.file_base, gtids: notes.gtids() };
    let mut stream = Stream::open(settings, server, &place, by_gtid).await.map_err(|e| e.during("ask for the binlog"))?;
    let mut decoder = Decoder::new(limits(settings));
    if by_gtid {
        // The first event names the file; another server's numbers are its own.
        let file = first_file(&mut stream, &mut decoder).await?;
        place.file_base = base_above(last, &file)?;
        (place.file, place.at) = (file.into(), super::place::FIRST_AT);
    }
    let file_begun = if by_gtid { None } else { same_file(&mut stream, &mut decoder, &notes).await? };
    let mut snapshots: VecDeque<Progress> = notes.snapshots.into();
    if mode == SnapshotMode::Always {
        snapshots.retain(|s| s.why != Why::Initial);
        snapshots.push_front(Progress { is_again: true, ..initial(settings, sql).await? });
    }
    let mut shapes = Shapes::new(selection(settings)?, notes.shapes);
    if notes.rows_done > 0 && !notes.tables.is_empty() && notes.tables != settings.tables {
        shapes.count_by(Selection::new(&notes.tables).map_err(SourceError::refused)?);
    }
    let mut prepared = notes.prepared;
    if by_gtid {
        // Places are of the other server's files.
        prepared.iter_mut().for_each(|p| p.file = None);
    }
    let mut assembler = Assembler::new(settings, shapes, place, notes.rows_done, last);
    assembler.file_begun = file_begun;
    assembler.prepared = Prepared::new(settings.prepared_bytes_max, prepared);
    assembler.remarks = notes.remarks;
    Ok(Begin { stream, decoder, assembler, snapshots })
}

/// From where the binlog ends now.
async fn afresh(
    settings: &Settings,
    server: &Server,
    sql: &mut Connection,
    last: Option<Position>,
    with_data: bool,
) -> Result<Begin, Begun> {
    let (file, at, gtids) = server.end(sql).await.map_err(|e| e.during("ask where the binlog ends"))?;
    let file_base = last.map_or(Ok(0), |last| base_above(last, &file))?;
    let place = Place { file: file.into(), at, file_base, gtids };
    let first = place.position(at, 0)?;
    let is_again = last.is_some();
    let snapshots = if with_data { VecDeque::from([Progress { is_again, ..initial(settings, sql).await? }]) } else { VecDeque::new() };
    let stream = Stream::open(settings, server, &place, false).await.map_err(|e| e.during("ask for the binlog"))?;
    let shapes = Shapes::new(selection(settings)?, Default::default());
    Ok(Begin { stream, decoder: Decoder::new(limits(settings)), assembler: Assembler::new(settings, shapes, place, 0, first), snapshots })
}

fn limits(settings: &Settings) -> Limits {
    Limits { event_bytes_max: settings.packet_bytes_max, ..Limits::default() }
}

fn selection(settings: &Settings) -> Result<Selection, SourceError> {
    Selection::new(&settings.tables).map_err(SourceError::config)
}

async fn initial(settings: &Settings, sql: &mut Connection) -> Result<Progress, SourceError> {
    let selection = selection(settings)?;
    let tables = catalog::names(sql, &selection).await.map_err(|e| e.during("list the tables"))?;
    let missing = selection
        .patterns()
        .find(|(d, t)| !t.contains('*') && !d.contains('*') && !tables.iter().any(|id| *id.database == **d && *id.table == **t));
    if let Some((d, t)) = missing {
        return Err(SourceError::config(format!(
            "the table {d}.{t} does not exist, or the account may not read it: GRANT SELECT ON `{d}`.`{t}` TO the account, or take it out of tables"
        )));
    }
    progress(sql, Why::Initial, tables.iter().map(|id| (id.database.to_string(), id.table.to_string())).collect(), None).await
}

pub async fn progress(
    sql: &mut Connection,
    why: Why,
    tables: VecDeque<(String, String)>,
    filter: Option<String>,
) -> Result<Progress, SourceError> {
    let now = sql.query("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").await.map_err(|e| e.during("ask for the time"))?;
    let begun_us = now.first().and_then(|r| r.number(0)).unwrap_or(0);
    Ok(Progress::new(why, begun_us, tables, filter))
}

async fn first_file(stream: &mut Stream, decoder: &mut Decoder) -> Result<String, Begun> {
    let bytes = stream.event().await.map_err(refused_or_failed)?;
    match decoder.event(bytes).map(|e| e.body) {
        Ok(Body::Rotate(r)) => Ok(r.file.to_string()),
        _ => Err(SourceError::retry("the binlog does not begin with the name of its file").into()),
    }
}

/// When the file was begun that is read from; refused if it is another one than what was read of it, after a reset of the binlog.
async fn same_file(stream: &mut Stream, decoder: &mut Decoder, notes: &Notes) -> Result<Option<u32>, Begun> {
    first_file(stream, decoder).await?;
    let bytes = stream.event().await.map_err(refused_or_failed)?;
    let begun = match decoder.event(bytes) {
        Ok(Event { header, body: Body::Format(_) }) => begun(&header),
        _ => return Err(SourceError::retry("the binlog's file does not begin with its format").into()),
    };
    match (notes.file_begun, begun) {
        (Some(read), Some(begun)) if read != begun => Err(Begun::Refused(format!(
            "the binlog was reset: the file {} that was read was begun at {read} (seconds since 1970), the server's file of that name at {begun}",
            notes.file
        ))),
        _ => Ok(begun),
    }
}

fn refused_or_failed(e: WireError) -> Begun {
    match e.code() {
        Some(CANNOT_SEND) => Begun::Refused(format!("the server cannot send the binlog from the stored place: {e}")),
        _ => Begun::Failed(e.during("ask for the binlog")),
    }
}

/// Of the stream while it runs.
pub fn stream_error(e: WireError) -> SourceError {
    match e.code() {
        Some(CANNOT_SEND) => SourceError::refused(format!(
            "the server no longer sends the binlog from here: {e}. It was purged, or this is another server: set snapshot = \"when_needed\" to read all tables again, or delete the stored place"
        )),
        _ => e.during("read the binlog"),
    }
}
