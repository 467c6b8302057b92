//! The change stream of one slot, as a source.
//!
//! ```text
//! prepare ─▶ slot found and compared, or made ─▶ (a snapshot is read) ─▶ stream ─▶ next, next, …
//! ```
//!
//! Two connections: one streams, the other asks the catalog, looks after the slot and writes heartbeats. The second one's work runs beside
//! the first one's, within `next`; it failing is told in the program's log and tried again, since changes flow without it.

use super::care::{self, Care, Cared};
use super::catalog::{self, Catalog, Selection};
use super::decoder::{Asks, Decoder, DecoderError, Reached};
use super::pgoutput::Relation;
use super::publication::{self, Ensured};
use super::schedule::{Schedule, Standing};
use super::settings::PostgresSettings;
use super::shapes::{Background, Shapes};
use super::slot::{self, Created, Found, Lsn, Slot, Stored, System};
use super::snapshot::notes::SnapshotNotes;
use super::streams::Streams;
use super::wire::{Connection, Purpose, WireError, identifier, literal};
use crate::change::{Askers, Batch, Resume};
use crate::source::{Health, Link, Next, Phase, Source, SourceError};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use mulgil_model::position::Position;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, sleep_until};

/// Messages that are decoded before the clock is looked at: a large transaction of tables that nobody wants must not look like silence.
const MESSAGES_PER_TURN: usize = 20_000;
/// `ERRCODE_INTERNAL_ERROR`
const INTERNAL_ERROR: &str = "XX000";
/// `ERRCODE_UNDEFINED_OBJECT`: while it streams, the publication.
const UNDEFINED_OBJECT: &str = "42704";
/// From this version on a standby decodes, too ("Release 16").
const STANDBY_MAJOR_MIN: u32 = 16;
/// `ERRCODE_UNDEFINED_FILE`: while it streams, "requested WAL segment … has already been removed".
const UNDEFINED_FILE: &str = "58P01";
/// Roots of partitions and chunks that are remembered.
const ROOTS_MAX: usize = 10_000;

/// A source whose slot is there and in order, but does not stream yet: a snapshot can be read before.
pub struct Prepared {
    settings: PostgresSettings,
    connection: Connection,
    sql: Connection,
    stored: Stored,
    /// Of the publication, as it is stored, and as it looks.
    published: Value,
    /// Tables that a pattern means and that are to be read, now that their changes come.
    pub anew: Vec<(String, String)>,
    fingerprint: Option<String>,
    from: Reached,
    given: Position,
    /// As it was stored last.
    known_shapes: Option<Value>,
    pub shapes: Shapes,
    /// The slot was made just now: its snapshot can be imported until [`Prepared::stream`].
    pub created: Option<Created>,
}

/// Finds or makes slot and publication, and compares them with what was stored.
pub async fn prepare(mut settings: PostgresSettings, resume: Option<&Resume>) -> Result<Prepared, SourceError> {
    settings.validate()?;
    let mut connection = Connection::open(&settings.address, Purpose::Replication).await?;
    let mut sql = Connection::open(&settings.address, Purpose::Sql).await?;
    // Asked first: a standby that is promoted meanwhile is only waited for once more.
    let is_standby = slot::is_standby(&mut sql).await?;
    let system = System::read(&mut connection).await?;
    let found = Slot::read(&mut sql, &settings.slot).await?;
    let notes = resume.map(|r| read_notes(&r.notes)).transpose()?;
    if let Some(Noted { stored, seen_lsn, .. }) = &notes {
        let left = system.left(&mut connection, stored.timeline).await?;
        let database = settings.address.database.as_str();
        let is_within = resume.is_some_and(|r| r.position.commit == stored.flush_lsn && r.position.ordinal > 0);
        let (slot, slot_name) = (found.as_ref(), settings.slot.as_str());
        let (system, seen_lsn) = (&system, *seen_lsn);
        slot::compare(stored, &Found { system, slot, left, database, slot_name, is_standby, is_within, seen_lsn })?;
    }
    if is_standby && connection.server_major() < STANDBY_MAJOR_MIN {
        return Err(SourceError::retry(
            "the server is a standby, where this version of PostgreSQL does not decode: waiting until it is promoted, or name the primary in the url",
        ));
    }
    settings.resolve(&mut sql).await?;
    let noted = notes.as_ref().and_then(|n| n.published.as_ref());
    let Ensured { noted: published, anew, dropped } = publication::ensure(&mut sql, &settings, noted).await?;
    settings.dropped = dropped;
    let fingerprint = publication::fingerprint(&mut sql, &settings.publication).await?;
    let mut created = None;
    let flush_lsn = match (&notes, &found) {
        (Some(noted), _) => noted.stored.flush_lsn,
        (None, Some(slot)) => usable(slot, &settings)?,
        (None, None) if settings.manages => {
            let made = slot::create(&mut connection, &settings.slot, settings.failover).await?;
            tracing::info!(slot = %settings.slot, lsn = %Lsn(made.consistent_lsn), "made a replication slot");
            created.insert(made).consistent_lsn
        }
        (None, None) => {
            let statement = format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput')", literal(&settings.slot));
            return Err(SourceError::config(format!("the replication slot {} does not exist; make it: {statement}", settings.slot)));
        }
    };
    let (database, committed_us) = (settings.address.database.clone(), notes.as_ref().and_then(|n| n.stored.committed_us));
    let stored =
        Stored { system: system.identifier, timeline: system.timeline, database, slot: settings.slot.clone(), flush_lsn, committed_us };
    let position = resume.map_or(Position::new(flush_lsn, 0), |r| r.position);
    let seen = notes.map(|n| n.seen).unwrap_or_default();
    let shapes = Shapes::new(settings.address.database.as_str().into(), &settings.tables, seen);
    let given = resume.map_or(Position::default(), |r| r.position);
    let from = Reached { position, flush_lsn };
    let published = serde_json::to_value(published).expect("invariant: names can be JSON");
    Ok(Prepared { settings, connection, sql, stored, published, anew, fingerprint, from, given, known_shapes: None, shapes, created })
}

/// A slot that somebody else made, or that we made without storing anything after it: where it begins.
fn usable(slot: &Slot, settings: &PostgresSettings) -> Result<u64, SourceError> {
    let name = &settings.slot;
    if slot.plugin != "pgoutput" {
        return Err(SourceError::config(format!(
            "the replication slot {name} is of the plugin {:?}, not pgoutput; name another slot",
            slot.plugin
        )));
    }
    if slot.database != settings.address.database {
        return Err(SourceError::config(format!("the replication slot {name} is of the database {}; name another slot", slot.database)));
    }
    if slot.is_lost() {
        let statement = format!("SELECT pg_drop_replication_slot({})", literal(name));
        return Err(SourceError::refused(format!("the replication slot {name} has lost its WAL; drop it to begin anew: {statement}")));
    }
    slot.confirmed_lsn.ok_or_else(|| SourceError::config(format!("the replication slot {name} is not a logical one")))
}

impl Prepared {
    pub fn sql(&mut self) -> &mut Connection {
        &mut self.sql
    }

    pub fn settings(&self) -> &PostgresSettings {
        &self.settings
    }

    /// Where the stream begins.
    pub fn from(&self) -> Reached {
        self.from
    }

    /// What to store with a batch of the snapshot, so that the stream begins at its place after it.
    pub fn notes(&mut self) -> Value {
        match self.shapes.naming().news() {
            Some(seen) => {
                let shapes = self.known_shapes.insert(shapes_notes(&seen));
                json!({ "stream": self.stored, "shapes": shapes, "publication": self.published })
            }
            None => same_notes(&self.stored),
        }
    }

    /// Batches up to here were given.
    pub fn given_until(&mut self, position: Position) {
        self.given = position;
        self.from.position = self.from.position.max(position);
    }

    /// Begins to stream.
    pub async fn stream(mut self, link: Link) -> Result<PostgresSource, SourceError> {
        // Whatever was given in the meantime is in the notes of the snapshot; here all shapes are told again.
        let shapes = self.known_shapes.take().unwrap_or(Value::Null);
        let streams = Streams::open(self.settings.spill.clone()).map_err(DecoderError::from)?;
        self.connection.copy_both(&start_statement(&self.settings, self.from.flush_lsn, self.connection.server_major())).await?;
        let schedule = Schedule::new(Instant::now(), self.settings.heartbeat, self.settings.silence);
        let database: Arc<str> = self.settings.address.database.as_str().into();
        let (received_lsn, given) = (self.from.flush_lsn, self.given);
        let decoder =
            Decoder::new(database, self.shapes, streams, self.settings.bounds, self.from).committed_before(self.stored.committed_us);
        link.health.send_modify(|h| h.phase = Phase::Streaming);
        Ok(PostgresSource {
            decoder,
            connection: self.connection,
            sql: Some(self.sql),
            settings: self.settings,
            link,
            stored: self.stored,
            published: self.published,
            fingerprint: self.fingerprint,
            shapes,
            is_news: true,
            roots: HashMap::new(),
            pending: VecDeque::new(),
            durable_lsn: received_lsn,
            told_lsn: 0,
            received_lsn,
            given,
            schedule,
            care: None,
        })
    }
}

/// Version 2 streams large transactions (PostgreSQL 14), 3 and 4 add what is not asked for. Messages are asked for because heartbeats are some.
fn start_statement(settings: &PostgresSettings, from_lsn: u64, server_major: u32) -> String {
    let version = match server_major {
        ..15 => 2,
        15 => 3,
        _ => 4,
    };
    let publication = identifier(&settings.publication).replace('\'', "''");
    let early = if settings.waits_for_commits.load(Ordering::Relaxed) { "off" } else { "on" };
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '{version}', publication_names '{publication}', messages 'true', streaming '{early}')",
        identifier(&settings.slot),
        Lsn(from_lsn)
    )
}

/// Shapes and publication are as they were in the batch before (`change::Resume`).
fn same_notes(stored: &Stored) -> Value {
    json!({ "stream": stored, "same": ["shapes", "publication"] })
}

fn shapes_notes(seen: &BTreeMap<String, Vec<u64>>) -> Value {
    seen.iter().map(|(table, shapes)| (table.clone(), Value::from(shapes.clone()))).collect::<serde_json::Map<_, _>>().into()
}

/// What is stored of a stream.
struct Noted {
    stored: Stored,
    seen: BTreeMap<String, Vec<u64>>,
    /// Not by older versions of this program.
    published: Option<publication::Noted>,
    /// Of the views of a snapshot that the stream has not passed yet.
    seen_lsn: u64,
}

fn read_notes(notes: &Value) -> Result<Noted, SourceError> {
    let damaged = |e: serde_json::Error| SourceError::refused(format!("the stored position of this source cannot be read: {e}"));
    let stored = serde_json::from_value(notes["stream"].clone()).map_err(damaged)?;
    let seen = match &notes["shapes"] {
        Value::Null => BTreeMap::new(),
        shapes => serde_json::from_value(shapes.clone()).map_err(damaged)?,
    };
    let published = serde_json::from_value(notes["publication"].clone()).map_err(damaged)?;
    let snapshot: Option<SnapshotNotes> = serde_json::from_value(notes["snapshot"].clone()).map_err(damaged)?;
    Ok(Noted { stored, seen, published, seen_lsn: snapshot.map_or(0, |s| s.seen_lsn()) })
}

pub struct PostgresSource {
    settings: PostgresSettings,
    link: Link,
    connection: Connection,
    decoder: Decoder,
    /// Away while it looks after the slot.
    sql: Option<Connection>,
    stored: Stored,
    /// Of the publication, as it is stored, and as it looked when it was read.
    published: Value,
    fingerprint: Option<String>,
    /// As it is stored: made again only when there is a new shape, and given only then, and with the first batch.
    shapes: Value,
    is_news: bool,
    roots: HashMap<u32, catalog::Relation>,
    /// What may be acknowledged when each batch is durable; the supervisor bounds how many are under way.
    pending: VecDeque<Reached>,
    durable_lsn: u64,
    told_lsn: u64,
    received_lsn: u64,
    given: Position,
    schedule: Schedule,
    care: Option<Care>,
}

impl Source for PostgresSource {
    fn next(&mut self) -> Next<'_> {
        Box::pin(self.next_batch())
    }
}

enum Woken {
    Read(Result<(), WireError>),
    Durable,
    Cared(Box<Cared>),
    Late,
    /// Nothing more has arrived.
    Dry,
}

impl PostgresSource {
    /// Waits for the next batch. Dropped only together with the source.
    pub(super) async fn next_batch(&mut self) -> Result<Batch, SourceError> {
        // Nobody listened while the last batch was made durable, so nothing was missed.
        self.schedule.heard(Instant::now());
        loop {
            let is_more = self.decode_arrived().await?;
            if self.decoder.is_full() {
                return Ok(self.batch());
            }
            self.tell_in_time().await?;
            if is_more {
                tokio::task::yield_now().await;
                continue;
            }
            match self.wait().await {
                Woken::Read(read) => {
                    read?;
                    self.schedule.heard(Instant::now());
                }
                Woken::Dry => return Ok(self.batch()),
                Woken::Cared(cared) => self.cared(*cared)?,
                Woken::Durable | Woken::Late => {}
            }
            if self.schedule.is_empty_batch_due(Instant::now(), self.standing()) {
                return Ok(self.batch());
            }
        }
    }

    /// A change that was written while there was no such publication cannot be decoded, whatever is there now.
    fn stream_error(&self, error: WireError) -> SourceError {
        let (name, slot) = (&self.settings.publication, &self.settings.slot);
        match error.code() {
            Some(UNDEFINED_OBJECT) => SourceError::refused(format!(
                "{error}: at {} the publication {name} was gone, and what was changed then cannot be decoded. Choose: drop the slot {slot} and \
                 reset the stored position of this source, so that it begins anew with a snapshot",
                Lsn(self.received_lsn)
            )),
            Some(UNDEFINED_FILE) => SourceError::refused(format!(
                "{error}: the server no longer has the log that the replication slot {slot} needs. Choose: bring it back (from the archive), or \
                 drop the slot and reset the stored position of this source, so that it begins anew with a snapshot"
            )),
            // PostgreSQL 15 sends a part of a transaction whose DDL was rolled back to a savepoint with the catalog as that DDL left it, finds no table
            // ("could not map filenode"), and would never get over it. What has committed it decodes rightly.
            Some(INTERNAL_ERROR) if !self.settings.waits_for_commits.swap(true, Ordering::Relaxed) => {
                SourceError::retry(format!("{error}: from now on large transactions are asked for when they have committed"))
            }
            _ => error.into(),
        }
    }

    async fn wait(&mut self) -> Woken {
        // The server sends a transaction when it has committed, message by message: the rest of it is on its way, and one batch is one commit.
        let has_changes = self.decoder.has_changes() && self.decoder.is_between();
        let deadline = self.schedule.deadline(self.standing());
        let is_caring = self.care.is_some();
        let care = &mut self.care;
        if let Some(gather) = self.settings.gather.filter(|_| !self.decoder.is_between()) {
            // What the server's side had kept back until the last read comes at once: a turn of the runtime finds it.
            tokio::task::yield_now().await;
            tokio::select! {
                biased;
                read = self.connection.readable() => return Woken::Read(read),
                () = std::future::ready(()) => gather(),
            }
        }
        tokio::select! {
            biased;
            read = self.connection.readable() => Woken::Read(read),
            () = std::future::ready(()), if has_changes => Woken::Dry,
            changed = self.link.durable.changed(), if self.link.durable.has_changed().is_ok() => { let _ = changed; Woken::Durable }
            cared = async { care.as_mut().expect("invariant: the branch is only open with one").await }, if is_caring => Woken::Cared(cared),
            () = sleep_until(deadline) => Woken::Late,
        }
    }

    /// Decodes what is there. `true`: there is more, but others may have a turn.
    async fn decode_arrived(&mut self) -> Result<bool, SourceError> {
        for _ in 0..MESSAGES_PER_TURN {
            if self.decoder.is_full() {
                return Ok(true);
            }
            let asks = match self.decoder.feed_replay()? {
                Some(asks) => asks,
                None => match self.connection.arrived().map_err(|e| self.stream_error(e))? {
                    None => return Ok(false),
                    Some(piece) => self.piece(piece).await?,
                },
            };
            if let Asks::Shape(relation) = asks {
                self.learn(&relation).await?;
            }
        }
        Ok(true)
    }

    /// "Streaming Replication Protocol": XLogData and Primary keepalive message.
    async fn piece(&mut self, mut piece: Bytes) -> Result<Asks, SourceError> {
        let short = || SourceError::retry("PostgreSQL sent a piece of its stream that ends early");
        match piece.try_get_u8() {
            Ok(b'w') => {
                let start = piece.try_get_u64().map_err(|_| short())?;
                if piece.len() < 16 {
                    return Err(short());
                }
                piece.advance(16);
                self.received_lsn = self.received_lsn.max(start);
                Ok(self.decoder.feed(piece)?)
            }
            Ok(b'k') => {
                let end = piece.try_get_u64().map_err(|_| short())?;
                let wants_reply = piece.len() > 8 && piece[8] == 1;
                self.received_lsn = self.received_lsn.max(end);
                self.decoder.idle_until(end);
                if wants_reply {
                    self.tell(false).await?;
                }
                Ok(Asks::Nothing)
            }
            _ => Err(SourceError::retry("PostgreSQL sent a piece of its stream of an unknown kind")),
        }
    }

    /// Reads what a Relation message leaves open. If the table has changed again meanwhile, the message counts for its columns.
    async fn learn(&mut self, relation: &Relation) -> Result<(), SourceError> {
        let mut connection = match self.sql.take() {
            Some(connection) => connection,
            None => Connection::open(&self.settings.address, Purpose::Sql).await?,
        };
        let mut own = Catalog::read(&mut connection, &Selection::Oids(vec![relation.oid])).await?.relations.pop();
        if own.is_none() {
            // Dropped, and perhaps made again since: the next of its name tells best what the key was where the message does not.
            let named = Selection::Names(vec![(relation.schema.to_string(), relation.name.to_string())]);
            own = Catalog::read(&mut connection, &named).await?.relations.pop();
        }
        let root = match own.as_ref().and_then(|r| r.root) {
            Some(oid) => self.root(&mut connection, oid, relation).await?,
            None => None,
        };
        let oids: BTreeSet<u32> = relation.columns.iter().map(|c| c.type_oid).filter(|oid| !super::forms::is_built_in(*oid)).collect();
        let types = if oids.is_empty() { Default::default() } else { catalog::types(&mut connection, oids).await? };
        if self.care.is_none() {
            self.sql = Some(connection);
        }
        if !self.decoder.shapes.learn(relation, &Background { relation: own, root, types }) {
            return Err(SourceError::retry("PostgreSQL described more relations than can be kept"));
        }
        Ok(())
    }

    /// The root as it was read last, unless the part has a column that it had not then.
    async fn root(&mut self, connection: &mut Connection, oid: u32, part: &Relation) -> Result<Option<catalog::Relation>, SourceError> {
        let has_all = |root: &&catalog::Relation| part.columns.iter().all(|c| root.columns.iter().any(|a| *a.name == *c.name));
        if let Some(root) = self.roots.get(&oid).filter(has_all) {
            return Ok(Some(root.clone()));
        }
        let root = Catalog::read(connection, &Selection::Oids(vec![oid])).await?.relations.pop();
        if let Some(mut root) = root.clone() {
            // Of thousands of chunks nothing is asked later.
            root.leaves = Vec::new();
            if self.roots.len() < ROOTS_MAX {
                self.roots.insert(oid, root);
            }
        }
        Ok(root)
    }

    fn batch(&mut self) -> Batch {
        let reached = self.decoder.reached();
        if let Some(seen) = self.decoder.shapes.naming().news() {
            self.shapes = shapes_notes(&seen);
            self.is_news = true;
        }
        (self.stored.flush_lsn, self.stored.committed_us) = (reached.flush_lsn, self.decoder.committed_us());
        self.pending.push_back(reached);
        self.given = reached.position;
        self.schedule.given(Instant::now(), self.decoder.has_changes());
        let notes = if std::mem::take(&mut self.is_news) {
            json!({ "stream": self.stored, "shapes": self.shapes, "publication": self.published })
        } else {
            same_notes(&self.stored)
        };
        if let Some(committed_us) = self.decoder.committed_us() {
            self.link.health.send_if_modified(|h| h.committed_us.replace(committed_us) != Some(committed_us));
        }
        Batch { changes: self.decoder.take_changes(), resume: Resume { position: reached.position, notes }, askers: Askers::default() }
    }

    /// Changes up to here were put into the batch that was given last.
    pub(super) fn given_until(&mut self, position: Position) {
        self.given = self.given.max(position);
    }

    fn standing(&self) -> Standing {
        Standing {
            has_place: self.decoder.reached().position > self.given,
            has_news: self.durable_lsn > self.told_lsn,
            is_caring: self.care.is_some(),
        }
    }

    /// Everything that is due by the clock.
    async fn tell_in_time(&mut self) -> Result<(), SourceError> {
        let durable = *self.link.durable.borrow_and_update();
        while let Some(reached) = self.pending.front().filter(|r| r.position <= durable) {
            self.durable_lsn = self.durable_lsn.max(reached.flush_lsn);
            self.pending.pop_front();
        }
        let due = self.schedule.due(Instant::now(), self.standing());
        if due.is_gone {
            return Err(WireError::Silent(self.settings.silence).into());
        }
        if due.asks || due.tells {
            self.tell(due.asks).await?;
        }
        if let Some(is_beat) = due.cares {
            self.begin_care(is_beat);
        }
        Ok(())
    }

    /// "Standby status update": written, flushed, applied, the time, and whether an answer is wanted. Flushed is what is durable here.
    async fn tell(&mut self, wants_reply: bool) -> Result<(), SourceError> {
        let mut update = BytesMut::with_capacity(34);
        update.put_u8(b'r');
        update.put_u64(self.received_lsn.max(self.durable_lsn));
        update.put_u64(self.durable_lsn);
        update.put_u64(self.durable_lsn);
        update.put_i64(0); // The server only logs it.
        update.put_u8(u8::from(wants_reply));
        self.connection.copy_in(&update).await?;
        self.told_lsn = self.durable_lsn;
        self.schedule.told(Instant::now());
        Ok(())
    }

    fn begin_care(&mut self, is_beat: bool) {
        self.care = Some(care::begin(self.settings.clone(), self.sql.take(), is_beat));
    }

    /// A publication that is another now may lack a table: opening again finds out.
    fn cared(&mut self, Cared { connection, found }: Cared) -> Result<(), SourceError> {
        self.care = None;
        self.sql = connection;
        let care::Found { slot, fingerprint, news } = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, slot = %self.settings.slot, "the slot could not be looked after");
                return Ok(());
            }
        };
        if self.fingerprint != fingerprint {
            return Err(SourceError::retry(format!("the publication {} has changed: it is looked at again", self.settings.publication)));
        }
        if !news.is_empty() {
            return Err(SourceError::retry(format!(
                "tables have come that are captured: {}; it is opened again with them",
                news.join(", ")
            )));
        }
        let Some(slot) = slot else {
            tracing::warn!(slot = %self.settings.slot, "the replication slot is gone");
            return Ok(());
        };
        self.link.health.send_modify(|health| {
            *health = Health {
                phase: Phase::Streaming,
                lag_bytes: Some(slot.wal_lsn.saturating_sub(self.decoder.reached().position.commit)),
                retained_bytes: slot.retained_bytes(),
                wal_status: slot.wal_status,
                safe_wal_bytes: slot.safe_wal_bytes,
                ..health.clone()
            };
        });
        Ok(())
    }
}

impl From<DecoderError> for SourceError {
    fn from(error: DecoderError) -> Self {
        Self::retry(error.to_string())
    }
}

impl From<WireError> for SourceError {
    /// By the SQLSTATE's class (PostgreSQL documentation, appendix "PostgreSQL Error Codes"): connections, resources, operator intervention,
    /// system errors and objects in use pass; the rest is a setting, a privilege or a name.
    fn from(error: WireError) -> Self {
        let message = error.to_string();
        match &error {
            WireError::Server(e) => match e.code.get(..2).unwrap_or("") {
                "08" | "40" | "53" | "55" | "57" | "58" | "XX" | "25" => Self::retry(message),
                _ => Self::config(message),
            },
            WireError::Login { .. } | WireError::Tls { .. } => Self::config(message),
            _ => Self::retry(message),
        }
    }
}
