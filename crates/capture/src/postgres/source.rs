//! A PostgreSQL database as a source: a snapshot where the mode asks for one, then the stream, with snapshots on demand beside it.
//!
//! ```text
//! Snapshot ──rows──▶ Settling ──until the stream has passed what the snapshot saw──▶ Streaming ◀──▶ incremental chunks between watermarks
//! ```
//!
//! Notes of a resume: `stream` and `shapes` (see `stream.rs`), `snapshot` and `incremental` (see `snapshot/`).

use super::catalog::{Attribute, Relation, Types};
use super::forms::Form;
use super::publication;
use super::settings::PostgresSettings;
use super::slot::Lsn;
use super::snapshot::contained::Contained;
use super::snapshot::incremental::{Incremental, IncrementalNotes, WATERMARK_PREFIX};
use super::snapshot::mode::{self, Start, Stored};
use super::snapshot::notes::SnapshotNotes;
use super::snapshot::reader::{Pinned, Shapes, SnapshotReader, SnapshotTask};
use super::snapshot::signal::{SIGNAL_PREFIX, Signal};
use super::snapshot::{self, Wanted};
use super::stream::{PostgresSource, Prepared, prepare};
use super::values;
use super::wire::{Connection, Purpose, literal};
use crate::change::{Asker, Askers, Batch, Change, Place, Resume, What};
use crate::datum::Datum;
use crate::snapshot_mode::SnapshotMode;
use crate::source::{Link, Next, Phase, SnapshotRequest, Source, SourceError, SourceErrorKind};
use mulgil_model::position::Position;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Finds out where to begin, and begins.
pub async fn open(settings: PostgresSettings, resume: Option<Resume>, link: Link) -> Result<Box<dyn Source>, SourceError> {
    let notes = resume.as_ref().map(|r| snapshot_notes(&r.notes)).transpose()?.flatten();
    let stored = resume.as_ref().map_or(Stored::Nothing, |_| Stored::Place(notes.as_ref()));
    let (prepared, kept) = match prepare(settings.clone(), resume.as_ref()).await {
        Ok(prepared) => (Some(prepared), Ok(())),
        Err(error) if error.kind == SourceErrorKind::Refused && resume.is_some() => (None, Err(error)),
        Err(error) => return Err(error),
    };
    let (start, mode) = (mode::start(settings.mode, stored, kept.is_ok()), settings.mode);
    let prepared = match (prepared, kept) {
        (Some(prepared), _) => prepared,
        (None, Err(error)) if start == Start::Refuse => return Err(error),
        _ => anew(settings.clone(), resume.as_ref()).await?,
    };
    let mut incremental: IncrementalNotes =
        resume.as_ref().map(|r| read(&r.notes, "incremental")).transpose()?.flatten().unwrap_or_default();
    if mode != SnapshotMode::NoData {
        incremental.add(prepared.anew.iter().map(|(schema, name)| Wanted::table(schema, name)));
    }
    let phase = match start {
        Start::Snapshot { is_reset } => begin_snapshot(prepared, &link, None, is_reset, resume.as_ref()).await?,
        Start::Resume => begin_snapshot(prepared, &link, notes, false, resume.as_ref()).await?,
        Start::Stream | Start::Refuse => Phases::Ready(Box::new(prepared), notes),
    };
    Ok(Box::new(Captured {
        settings,
        mode,
        phase,
        link: Some(link),
        requests: mpsc::channel(1).1,
        incremental,
        accepted: Askers::default(),
    }))
}

fn read<T: serde::de::DeserializeOwned>(notes: &Value, name: &str) -> Result<Option<T>, SourceError> {
    match &notes[name] {
        Value::Null => Ok(None),
        value => serde_json::from_value(value.clone()).map(Some).map_err(|e| {
            SourceError::refused(format!("the stored {name} of this source cannot be read: {e}; reset its stored position to begin anew"))
        }),
    }
}

fn snapshot_notes(notes: &Value) -> Result<Option<SnapshotNotes>, SourceError> {
    read(notes, "snapshot")
}

/// The stored place is gone and the mode says what then: the slot is made again.
async fn anew(settings: PostgresSettings, resume: Option<&Resume>) -> Result<Prepared, SourceError> {
    if settings.manages {
        let mut sql = Connection::open(&settings.address, Purpose::Sql).await?;
        let name = literal(&settings.slot);
        tracing::warn!(slot = %settings.slot, "the stored place is gone; the slot is made again, and everything is read again");
        sql.query(&format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {name}")).await?;
    }
    let prepared = prepare(settings, None).await?;
    let begins = prepared.from().flush_lsn;
    match resume {
        Some(r) if begins <= r.position.commit => Err(SourceError::refused(format!(
            "the log of this server is at {}, below the stored position {}: it is another server, or was reset. Name the source anew, or reset its \
             stored position",
            Lsn(begins),
            Lsn(r.position.commit)
        ))),
        _ => Ok(prepared),
    }
}

async fn begin_snapshot(
    mut prepared: Prepared,
    link: &Link,
    notes: Option<SnapshotNotes>,
    is_reset: bool,
    resume: Option<&Resume>,
) -> Result<Phases, SourceError> {
    let tables = publication::wanted(&mut prepared).await?;
    let naming = prepared.shapes.naming().clone();
    let shapes: Shapes = Arc::new(move |r: &Relation, a: &[Attribute], t: &Types| naming.of_catalog(r, a, t));
    // Below the place where the stream begins, and above all that was given.
    let below = Position::new(prepared.from().flush_lsn.saturating_sub(1), 0);
    let pinned = match &prepared.created {
        Some(created) => Pinned::Slot { snapshot: created.snapshot.clone(), consistent_point: created.consistent_lsn },
        None => Pinned::Now,
    };
    let task = SnapshotTask {
        address: prepared.settings().address.clone(),
        settings: prepared.settings().snapshot.clone(),
        tables,
        pinned,
        after: resume.map_or(below, |r| r.position.max(below)),
        is_reset,
        notes,
        shapes,
    };
    let reader = SnapshotReader::open(task).await?;
    link.health.send_modify(|h| h.phase = Phase::Snapshot);
    Ok(Phases::Snapshot(Box::new(reader), Box::new(prepared)))
}

const ONLY_A_SNAPSHOT: &str = "this source reads one snapshot and no more (snapshot = \"initial_only\")";

enum Phases {
    Snapshot(Box<SnapshotReader>, Box<Prepared>),
    /// To stream, or to end if there was only a snapshot to read.
    Ready(Box<Prepared>, Option<SnapshotNotes>),
    Streaming(Box<Streaming>),
    /// While one becomes the other.
    Between,
}

struct Captured {
    settings: PostgresSettings,
    mode: SnapshotMode,
    phase: Phases,
    /// Until the stream has it.
    link: Option<Link>,
    requests: mpsc::Receiver<SnapshotRequest>,
    incremental: IncrementalNotes,
    /// Of the next batch of the snapshot, which has what they wish in its notes.
    accepted: Askers,
}

impl Source for Captured {
    fn next(&mut self) -> Next<'_> {
        Box::pin(self.next_batch())
    }
}

impl Captured {
    async fn next_batch(&mut self) -> Result<Batch, SourceError> {
        loop {
            self.take_up_requests();
            match &mut self.phase {
                Phases::Snapshot(reader, prepared) => {
                    if let Some(batch) = reader.next().await? {
                        if let Some(link) = &self.link {
                            tell(link, reader);
                        }
                        let batch = with_place(batch, prepared, &self.incremental);
                        return Ok(Batch { askers: std::mem::take(&mut self.accepted), ..batch });
                    }
                    let notes = reader.notes().clone();
                    let Phases::Snapshot(_, prepared) = std::mem::replace(&mut self.phase, Phases::Between) else { continue };
                    self.phase = Phases::Ready(prepared, Some(notes));
                }
                Phases::Ready(..) if !self.mode.streams() => {
                    // Nothing comes any more; the slot stays for whoever streams from it later.
                    while let Some(request) = next_request(&mut self.link).await {
                        drop(request.accepted.send(Err(ONLY_A_SNAPSHOT.to_owned())));
                    }
                    std::future::pending::<()>().await;
                }
                Phases::Ready(..) => self.begin_stream().await?,
                Phases::Streaming(streaming) => return streaming.next_batch(&mut self.requests).await,
                Phases::Between => return Err(SourceError::retry("the stream could not be begun; the source is opened again")),
            }
        }
    }

    /// Tables that are asked for while the snapshot is read are read again behind it, while it streams.
    fn take_up_requests(&mut self) {
        while let Some(request) = self.link.as_mut().and_then(|link| link.requests.try_recv().ok()) {
            let (wanted, accepted) = wanted_of(request, &self.settings);
            let wanted = wanted.and_then(|w| if self.mode.streams() { Ok(w) } else { Err(ONLY_A_SNAPSHOT.to_owned()) });
            match wanted.and_then(|w| self.incremental.request(w)) {
                Ok(()) => self.accepted.push(accepted),
                // Whoever asked may be gone.
                Err(why) => drop(accepted.send(Err(why))),
            }
        }
    }

    async fn begin_stream(&mut self) -> Result<(), SourceError> {
        let Phases::Ready(prepared, notes) = std::mem::replace(&mut self.phase, Phases::Between) else { return Ok(()) };
        let Some(link) = self.link.take() else { return Ok(()) };
        let Link { durable, health, requests } = link;
        self.requests = requests;
        let naming = prepared.shapes.naming().clone();
        let shapes: Shapes = Arc::new(move |r: &Relation, a: &[Attribute], t: &Types| naming.of_catalog(r, a, t));
        let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let (address, settings) = (self.settings.address.clone(), self.settings.snapshot.clone());
        let stream = prepared.stream(Link { durable, health, requests: mpsc::channel(1).1 }).await?;
        let incremental = Incremental::new(address, settings, shapes, run, std::mem::take(&mut self.incremental));
        let contained = notes.as_ref().map(Contained::of);
        let settings = self.settings.clone();
        let accepted = std::mem::take(&mut self.accepted);
        let streaming = Streaming { settings, stream, incremental, contained, notes, sql: None, last_xid: None, accepted };
        self.phase = Phases::Streaming(Box::new(streaming));
        Ok(())
    }
}

/// A batch of the snapshot, with the place where the stream begins.
fn with_place(mut batch: Batch, prepared: &mut Prepared, incremental: &IncrementalNotes) -> Batch {
    let mut notes = prepared.notes();
    merge(&mut notes, &batch.resume.notes);
    if *incremental != IncrementalNotes::default() {
        // Plain data, which serde_json always can write.
        merge(&mut notes, &json!({ "incremental": incremental }));
    }
    batch.resume.notes = notes;
    prepared.given_until(batch.resume.position);
    batch
}

/// Until the source is dropped.
async fn next_request(link: &mut Option<Link>) -> Option<SnapshotRequest> {
    link.as_mut()?.requests.recv().await
}

fn merge(notes: &mut Value, more: &Value) {
    if let (Value::Object(notes), Value::Object(more)) = (notes, more) {
        notes.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

fn tell(link: &Link, reader: &SnapshotReader) {
    let progress = reader.progress();
    link.health.send_modify(|h| {
        h.snapshot_rows = progress.n_rows;
        h.snapshot_chunks_done = progress.n_chunks;
        h.snapshot_chunks = progress.n_chunks_estimated;
    });
}

struct Streaming {
    settings: PostgresSettings,
    stream: PostgresSource,
    incremental: Incremental,
    /// Until the stream has passed what the snapshot saw.
    contained: Option<Contained>,
    notes: Option<SnapshotNotes>,
    sql: Option<Connection>,
    last_xid: Option<u32>,
    /// Of the next batch, which has what they wish in its notes.
    accepted: Askers,
}

impl Streaming {
    async fn next_batch(&mut self, requests: &mut mpsc::Receiver<SnapshotRequest>) -> Result<Batch, SourceError> {
        let batch = {
            let mut next = std::pin::pin!(self.stream.next_batch());
            loop {
                tokio::select! {
                    batch = &mut next => break batch?,
                    failure = self.incremental.failure() => return Err(failure.into()),
                    Some(request) = requests.recv() => {
                        let (wanted, accepted) = wanted_of(request, &self.settings);
                        match wanted.and_then(|w| self.incremental.request(w)) {
                            Ok(()) => self.accepted.push(accepted),
                            // Whoever asked may be gone.
                            Err(why) => drop(accepted.send(Err(why))),
                        }
                    }
                }
            }
        };
        let mut batch = self.without_contained(batch).await?;
        let changes = std::mem::take(&mut batch.changes);
        for change in changes {
            self.take(change, &mut batch.changes)?;
        }
        if let Some(last) = batch.changes.last() {
            batch.resume.position = batch.resume.position.max(last.position);
            self.stream.given_until(batch.resume.position);
        }
        self.annotate(&mut batch);
        batch.askers = std::mem::take(&mut self.accepted);
        Ok(batch)
    }

    fn annotate(&mut self, batch: &mut Batch) {
        if self.contained.as_ref().is_some_and(|c| c.is_passed(batch.resume.position.commit)) {
            self.contained = None;
            self.notes = self.notes.take().map(|n| SnapshotNotes { views: Vec::new(), tables: Vec::new(), ..n });
            self.sql = None;
        }
        if let Value::Object(notes) = &mut batch.resume.notes {
            // Both are plain data, which serde_json always can write.
            if let Some(snapshot) = &self.notes {
                notes.insert("snapshot".to_owned(), serde_json::to_value(snapshot).unwrap_or_default());
            }
            let incremental = self.incremental.notes();
            if *incremental != IncrementalNotes::default() {
                notes.insert("incremental".to_owned(), serde_json::to_value(incremental).unwrap_or_default());
            }
        }
    }

    /// Takes out what the rows of the snapshot contain already, transaction by transaction.
    async fn without_contained(&mut self, mut batch: Batch) -> Result<Batch, SourceError> {
        let Some(contained) = &self.contained else { return Ok(batch) };
        let mut changes = std::mem::take(&mut batch.changes).into_iter().peekable();
        while let Some(first) = changes.next() {
            let (commit, xid) = (first.position.commit, xid(&first));
            let mut transaction = vec![first];
            while let Some(change) = changes.next_if(|c| c.position.commit == commit) {
                transaction.push(change);
            }
            if let Some(xid) = xid.filter(|_| !contained.is_passed(commit)) {
                let sql = match &mut self.sql {
                    Some(sql) => sql,
                    none => none.insert(snapshot::connect(&self.settings.address).await?),
                };
                transaction = contained.remove(sql, transaction, xid).await?;
            }
            batch.changes.extend(transaction);
        }
        Ok(batch)
    }

    /// Passes a change on, with what it sets off.
    fn take(&mut self, change: Change, out: &mut Vec<Change>) -> Result<(), SourceError> {
        let xid = xid(&change);
        if let Some(before) = self.last_xid.filter(|x| Some(*x) != xid) {
            self.incremental.on_commit(before);
        }
        self.last_xid = xid;
        if let What::Message { prefix, content, .. } = &change.what {
            if prefix == WATERMARK_PREFIX {
                out.extend(self.incremental.on_watermark(content, change.position, &change.origin.place)?);
                return Ok(());
            }
            if prefix == SIGNAL_PREFIX {
                self.obey(Signal::of_message(content));
                return Ok(());
            }
        }
        let is_signal = change.what.table().zip(self.settings.signal_table.as_ref()).is_some_and(|(t, s)| t.to_string() == *s);
        if is_signal {
            if let Some(signal) = Signal::of_change(&change) {
                self.obey(signal);
            }
            return Ok(());
        }
        self.incremental.on_change(&change);
        out.push(change);
        Ok(())
    }

    fn obey(&mut self, signal: Result<Signal, String>) {
        let done = signal.and_then(|signal| match signal {
            Signal::Execute(tables) => {
                let wanted =
                    tables.into_iter().map(|(table, filter)| wanted_one(&table, filter, &self.settings)).collect::<Result<_, _>>()?;
                self.incremental.request(wanted)
            }
            Signal::Stop(tables) => {
                let names: Vec<_> = tables.iter().filter_map(|t| t.split_once('.')).map(|(s, t)| (s.to_owned(), t.to_owned())).collect();
                self.incremental.stop(&names);
                Ok(())
            }
            Signal::Pause => {
                self.incremental.pause(true);
                Ok(())
            }
            Signal::Resume => {
                self.incremental.pause(false);
                Ok(())
            }
        });
        if let Err(why) = done {
            tracing::warn!(%why, "a signal was not obeyed");
        }
    }
}

fn xid(change: &Change) -> Option<u32> {
    match &change.origin.place {
        Place::Postgres { txid, .. } => *txid,
        Place::Mysql { .. } => None,
    }
}

fn wanted_of(request: SnapshotRequest, settings: &PostgresSettings) -> (Result<Vec<Wanted>, String>, Asker) {
    let wanted = request.tables.iter().map(|t| wanted_one(t, request.filter.clone(), settings)).collect();
    (wanted, request.accepted)
}

fn wanted_one(table: &str, filter: Option<String>, settings: &PostgresSettings) -> Result<Wanted, String> {
    let (schema, name) = table.split_once('.').ok_or_else(|| format!("the table {table} must be written with its schema"))?;
    if !settings.captures(schema, name) {
        return Err(format!("the table {table} is not one that this source captures"));
    }
    Ok(Wanted { filter, ..Wanted::table(schema, name) })
}

/// Reads a text array as the catalog gives it.
pub(super) fn names(text: &bytes::Bytes) -> Vec<String> {
    let form = Form::Array { item: Box::new(Form::Text), delimiter: b',' };
    let Datum::Array(items) = values::decode(&form, text.clone()) else { return Vec::new() };
    let name = |item: Datum| match item {
        Datum::Text(b) => Some(String::from_utf8_lossy(&b).into_owned()),
        _ => None,
    };
    items.into_iter().filter_map(name).collect()
}
