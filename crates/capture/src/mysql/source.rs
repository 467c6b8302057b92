//! The stream and its snapshots as one source: what is given out when.
//!
//! ```text
//! next: ┬ a chunk whose high mark the stream has passed ─▶ a batch of its rows
//!       ├ no chunk under way and one to do, between two transactions ─▶ read it
//!       ├ an event that is here ─▶ changes ─▶ a batch if it is full
//!       └ none ─▶ a batch of what there is, or wait: for an event, a request, the time to say how it goes
//! ```

use super::assembler::{Assembler, unreadable};
use super::binlog::compression::Payload;
use super::binlog::decoder::{Body, Decoder};
use super::catalog;
use super::open::{Begin, connect, progress, stream_error};
use super::place::{NOTES_VERSION, Notes, file_number};
use super::replay::Replay;
use super::server::Server;
use super::settings::Settings;
use super::snapshot::{self, Chunk, First, Part, Plan, Progress, QUEUED_MAX, Whole, Why};
use super::stream::Stream;
use super::wire::{Connection, Flavor, WireError};
use crate::change::{Askers, Batch, Change, Origin, Place, Resume, Row, Snapshot};
use crate::snapshot_mode::SnapshotMode;
use crate::source::{Health, Link, Next, Phase, SnapshotRequest, Source, SourceError};
use crate::table::TableId;
use bytes::Bytes;
use mulgil_model::position::Position;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How often the server is asked how far behind we are.
const HEALTH_EVERY: Duration = Duration::from_secs(10);
/// No answer for so long, and the connection counts as cut: the stream is not read meanwhile.
const HEALTH_WAIT_MAX: Duration = Duration::from_secs(10);

pub struct MysqlSource {
    settings: Settings,
    server: Server,
    sql: Connection,
    link: Link,
    stream: Stream,
    decoder: Decoder,
    /// A compressed transaction whose events are taken one by one.
    payload: Option<Payload>,
    /// A prepared transaction that is committed where the stream is.
    replay: Option<Replay>,
    assembler: Assembler,
    snapshots: VecDeque<Progress>,
    /// Of the snapshots that no batch's notes have yet.
    askers: Askers,
    work: Work,
    chunk_rows: usize,
    /// Changes of the assembler that the chunk has been held against.
    n_seen: usize,
    /// Position of the last batch.
    given: Position,
    given_when: Instant,
    /// The notes have something that is not in a batch yet.
    is_news: bool,
    /// The requests' sender is gone.
    is_alone: bool,
    health: Health,
    health_when: Instant,
}

/// What of a snapshot is under way.
enum Work {
    Nothing,
    Chunk(Box<Chunk>),
    /// A table without a key: the stream goes to where it was begun, and waits there until it is read.
    Whole(Box<Whole>),
}

/// What waiting ended with.
enum Woken {
    Event(Bytes),
    Request(Option<SnapshotRequest>),
    Time,
}

impl Source for MysqlSource {
    fn next(&mut self) -> Next<'_> {
        Box::pin(self.advance())
    }
}

impl MysqlSource {
    pub(super) fn new(settings: Settings, server: Server, sql: Connection, link: Link, begin: Begin) -> Self {
        let Begin { stream, decoder, assembler, snapshots } = begin;
        let now = Instant::now();
        let mut source = Self {
            chunk_rows: settings.chunk_rows_max.max(1),
            given: assembler.last,
            // The place where it begins is stored at once, or the next opening would begin somewhere else.
            is_news: true,
            settings,
            server,
            sql,
            link,
            stream,
            decoder,
            payload: None,
            replay: None,
            assembler,
            snapshots,
            askers: Askers::default(),
            work: Work::Nothing,
            n_seen: 0,
            given_when: now,
            is_alone: false,
            health: Health::default(),
            health_when: now,
        };
        source.tell_progress();
        source
    }

    async fn advance(&mut self) -> Result<Batch, SourceError> {
        self.stream.was_left_alone();
        // Whoever is behind never waits, and is asked about most.
        if Instant::now() >= self.health_when {
            self.tell_health().await?;
        }
        loop {
            while let Ok(request) = self.link.requests.try_recv() {
                self.accept(request).await?;
            }
            if self.is_between() {
                let before = std::mem::discriminant(&self.work);
                if let Some(batch) = self.snapshot_step().await? {
                    return Ok(batch);
                }
                // The stream may be past the chunk already: on an idle server nothing would wake us to see it.
                if std::mem::discriminant(&self.work) != before {
                    continue;
                }
                if self.is_over() {
                    self.tell_health().await?;
                    if let Some(batch) = self.batch()? {
                        return Ok(batch);
                    }
                    std::future::pending::<()>().await;
                }
            }
            if self.inner_event().await? || self.event_now().await? {
                if let Some(batch) = self.full()? {
                    return Ok(batch);
                }
                continue;
            }
            if let Some(batch) = self.due()? {
                return Ok(batch);
            }
            self.wait().await?;
        }
    }

    fn is_between(&self) -> bool {
        self.assembler.is_between() && self.payload.is_none() && self.replay.is_none()
    }

    /// A snapshot was all that was asked for, and it is done.
    fn is_over(&self) -> bool {
        self.settings.snapshot == SnapshotMode::InitialOnly && self.snapshots.is_empty()
    }

    async fn wait(&mut self) -> Result<(), SourceError> {
        let wake = self.health_when.min(self.given_when + self.settings.heartbeat.max(Duration::from_millis(10)));
        let wake = wake.max(Instant::now() + Duration::from_millis(1));
        let woken = tokio::select! {
            biased;
            event = self.stream.event() => Woken::Event(event.map_err(stream_error)?),
            request = self.link.requests.recv(), if !self.is_alone => Woken::Request(request),
            () = sleep_until(wake) => Woken::Time,
        };
        match woken {
            Woken::Event(bytes) => self.event(bytes).await?,
            Woken::Request(Some(request)) => self.accept(request).await?,
            Woken::Request(None) => self.is_alone = true,
            Woken::Time if Instant::now() >= self.health_when => self.tell_health().await?,
            Woken::Time => {}
        }
        Ok(())
    }

    async fn event_now(&mut self) -> Result<bool, SourceError> {
        let Some(bytes) = self.stream.event_now().map_err(stream_error)? else { return Ok(false) };
        self.event(bytes).await?;
        Ok(true)
    }

    async fn event(&mut self, bytes: Bytes) -> Result<(), SourceError> {
        let event = self.decoder.event(bytes).map_err(|e| SourceError::retry(format!("binlog: {e}")))?;
        if let Body::Payload(payload) = event.body {
            self.assembler.payload(&event.header);
            self.payload = Some(payload);
            return Ok(());
        }
        self.assembler.event(event, &mut self.sql).await?;
        self.begin_replay().await?;
        self.look();
        Ok(())
    }

    async fn begin_replay(&mut self) -> Result<(), SourceError> {
        if let Some(wanted) = self.assembler.wanted.take() {
            self.replay = Some(Replay::open(&self.settings, &self.server, &mut self.sql, wanted).await?);
        }
        Ok(())
    }

    /// An event of what is under way, which comes before all that the server sends next.
    async fn inner_event(&mut self) -> Result<bool, SourceError> {
        if let Some(replay) = &mut self.replay {
            match replay.next().await? {
                Some(event) => self.assembler.replayed(event, &mut self.sql).await?,
                None => {
                    self.assembler.replay_end(&replay.xid)?;
                    self.replay = None;
                }
            }
            self.stream.was_left_alone();
        } else if let Some(payload) = &mut self.payload {
            match payload.next(&mut self.decoder).map_err(unreadable)? {
                Some(event) => {
                    self.assembler.inner(event, &mut self.sql).await?;
                    self.begin_replay().await?;
                }
                None => {
                    self.assembler.payload_end();
                    self.payload = None;
                }
            }
        } else {
            return Ok(false);
        }
        self.look();
        Ok(true)
    }

    /// Holds what snapshots are doing against what has come.
    fn look(&mut self) {
        let Self { work, snapshots, assembler, .. } = self;
        let is_shape_news = assembler.is_any_touched || !assembler.touched.is_empty();
        for change in assembler.ready.iter().skip(self.n_seen) {
            let mut goes_on = true;
            for progress in snapshots.iter_mut() {
                goes_on &= progress.observe(change);
            }
            if let Work::Chunk(chunk) = work {
                chunk.reconcile(change);
                chunk.is_spoiled |= !goes_on;
            }
        }
        if let Work::Chunk(chunk) = work {
            chunk.touch(&assembler.touched, assembler.is_any_touched);
        }
        self.n_seen = assembler.ready.len();
        assembler.touched.clear();
        assembler.is_any_touched = false;
        if is_shape_news {
            self.tell_progress();
        }
    }

    /// A batch if there is enough for one.
    fn full(&mut self) -> Result<Option<Batch>, SourceError> {
        let (rows_max, bytes_max) = (self.settings.batch_rows_max, self.settings.batch_bytes_max);
        let (open_rows, open_bytes) = self.assembler.open.as_ref().map_or((0, 0), |o| (o.changes.len(), o.bytes));
        let is_large = open_rows >= rows_max || open_bytes >= bytes_max;
        let is_full = self.assembler.ready.len() >= rows_max || self.assembler.ready_bytes >= bytes_max;
        if is_large {
            self.assembler.flush_open();
            self.look();
        }
        if is_full || is_large { self.batch() } else { Ok(None) }
    }

    /// A batch if nothing more is here: changes at once, an empty one when the place has moved and the last is some time ago.
    fn due(&mut self) -> Result<Option<Batch>, SourceError> {
        let is_due = !self.assembler.ready.is_empty() || self.is_news || Instant::now() >= self.given_when + self.settings.heartbeat;
        if is_due { self.batch() } else { Ok(None) }
    }

    /// What has come; none if there are neither changes nor a new place.
    fn batch(&mut self) -> Result<Option<Batch>, SourceError> {
        let changes = std::mem::take(&mut self.assembler.ready);
        (self.assembler.ready_bytes, self.n_seen) = (0, 0);
        self.given_when = Instant::now();
        let mut position = changes.last().map_or(self.given, |c| c.position);
        if self.is_between() {
            position = position.max(self.assembler.place.position(self.assembler.place.at, 0)?);
            if position == self.given && self.is_news {
                position.ordinal += 1;
            }
        }
        if position <= self.given {
            return Ok(None);
        }
        let health = &mut self.health;
        health.committed_us = self.assembler.committed_us.or(health.committed_us);
        Ok(Some(self.given_out(changes, position)))
    }

    fn given_out(&mut self, changes: Vec<Change>, position: Position) -> Batch {
        self.given = position;
        self.is_news = false;
        Batch { changes, resume: Resume { position, notes: self.notes() }, askers: std::mem::take(&mut self.askers) }
    }

    fn notes(&self) -> serde_json::Value {
        let place = &self.assembler.place;
        let notes = Notes {
            v: NOTES_VERSION,
            server_id: self.server.id,
            server_uuid: self.server.uuid.clone(),
            is_mariadb: self.server.flavor == Flavor::MariaDb,
            file: place.file.to_string(),
            at: place.at,
            file_begun: self.assembler.file_begun,
            file_base: place.file_base,
            gtid: place.gtids.text(),
            rows_done: self.assembler.rows_done(),
            tables: self.assembler.shapes.counted_by(),
            prepared: self.assembler.prepared.noted(),
            remarks: self.assembler.remarks.clone(),
            snapshots: self.snapshots.iter().cloned().collect(),
            shapes: self.assembler.shapes.versions.clone(),
        };
        serde_json::to_value(notes).expect("invariant: notes are names and numbers")
    }

    /// Goes on with a snapshot, if there is one.
    async fn snapshot_step(&mut self) -> Result<Option<Batch>, SourceError> {
        match &self.work {
            Work::Nothing if self.snapshots.is_empty() => Ok(None),
            Work::Nothing => self.begin_chunk().await,
            Work::Chunk(chunk) if !self.has_passed(&chunk.high)? => Ok(None),
            Work::Whole(whole) if !self.has_passed(&whole.at)? => Ok(None),
            // What came before it goes first.
            _ if !self.assembler.ready.is_empty() => self.batch(),
            Work::Chunk(_) => self.end_chunk().await,
            Work::Whole(_) => self.whole_rows().await,
        }
    }

    fn has_passed(&self, (file, at): &(String, u64)) -> Result<bool, SourceError> {
        let place = &self.assembler.place;
        Ok((file_number(&place.file)?, place.at) >= (file_number(file)?, *at))
    }

    async fn begin_chunk(&mut self) -> Result<Option<Batch>, SourceError> {
        let failed = |e: WireError| e.during("read a chunk of a snapshot");
        let Some(progress) = self.snapshots.front_mut() else { return Ok(None) };
        let Some(id) = progress.table() else {
            self.snapshots.pop_front();
            self.is_news = true;
            return Ok(None);
        };
        let Some(table) = catalog::read(&mut self.sql, std::slice::from_ref(&id)).await.map_err(failed)?.pop() else {
            tracing::warn!(table = %id, "the table is gone: its snapshot ends");
            progress.end_table();
            self.is_news = true;
            return Ok(None);
        };
        let plan = Plan::new(&table);
        if !plan.has_key() {
            self.begin_whole(plan).await?;
        } else if let Some(batch) = self.begin_table(&plan)? {
            return Ok(Some(batch));
        } else if let Some(progress) = self.snapshots.front() {
            let mut chunk =
                Chunk::read(&mut self.sql, plan, progress, self.chunk_rows, self.settings.batch_bytes_max).await.map_err(failed)?;
            chunk.high = snapshot::end(&mut self.sql, self.server.status).await.map_err(failed)?;
            self.work = Work::Chunk(Box::new(chunk));
        }
        self.stream.was_left_alone();
        Ok(None)
    }

    /// Before the first chunk of a table: what readers have of one that is stale is void.
    fn begin_table(&mut self, plan: &Plan) -> Result<Option<Batch>, SourceError> {
        let since = self.assembler.place.position(self.assembler.place.at, 0)?.commit;
        let Some(progress) = self.snapshots.front_mut().filter(|p| p.since.is_none()) else { return Ok(None) };
        let is_stale = progress.filter.is_none() && self.assembler.remarks.is_stale(&plan.id);
        if is_stale && !self.assembler.ready.is_empty() {
            // What came before it goes first.
            return self.batch();
        }
        progress.since = Some(since);
        match is_stale {
            false => Ok(None),
            true => self.chunk_batch(plan.id.clone(), plan.shape.columns.clone(), std::iter::empty(), First::Clear, false).map(Some),
        }
    }

    async fn begin_whole(&mut self, plan: Plan) -> Result<(), SourceError> {
        let Some(progress) = self.snapshots.front() else { return Ok(()) };
        let is_repeated = progress.table_rows > 0 || progress.is_again || progress.why == Why::Incremental;
        let first = match progress.filter {
            None if is_repeated || self.assembler.remarks.is_stale(&plan.id) => First::Clear,
            // A part of the table: its other rows are not void.
            Some(_) if progress.table_rows > 0 => First::Repeated,
            _ => First::Row,
        };
        let (own, id) = (connect(&self.settings).await?, plan.id.clone());
        let begun = Whole::begin(own, plan, self.server.status).await.map_err(|e| e.during("read a table without a key"))?;
        let mut whole = begun.ok_or_else(|| {
            SourceError::retry(format!("{id} has no key to read it by, and no moment was found at which the binlog stood still: add a primary key, or read it when less is written"))
        })?;
        whole.first = first;
        self.work = Work::Whole(Box::new(whole));
        Ok(())
    }

    /// The chunk as a batch, or read it again.
    async fn end_chunk(&mut self) -> Result<Option<Batch>, SourceError> {
        let Work::Chunk(mut chunk) = std::mem::replace(&mut self.work, Work::Nothing) else { return Ok(None) };
        if chunk.is_spoiled {
            self.chunk_rows = (self.chunk_rows / 2).max(1);
            return Ok(None);
        }
        self.chunk_rows = (self.chunk_rows * 2).min(self.settings.chunk_rows_max.max(1));
        let rows = std::mem::take(&mut chunk.rows);
        let n_rows = rows.len() as u64;
        let Some(progress) = self.snapshots.front_mut() else { return Ok(None) };
        let since = progress.since.filter(|_| progress.filter.is_none());
        match chunk.part {
            Part::Next => progress.finish(chunk.end.clone(), n_rows),
            Part::Again(n_keys) => progress.finish_again(n_keys, n_rows),
        }
        let is_last = progress.tables.is_empty();
        if let (Some(since), None) = (since, progress.since) {
            self.assembler.remarks.was_read(&chunk.plan.id, since);
        }
        self.chunk_batch(chunk.plan.id.clone(), chunk.plan.shape.columns.clone(), rows.into_iter().flatten(), First::Row, is_last).map(Some)
    }

    async fn whole_rows(&mut self) -> Result<Option<Batch>, SourceError> {
        let Work::Whole(mut whole) = std::mem::replace(&mut self.work, Work::Nothing) else { return Ok(None) };
        let since = self.assembler.place.position(self.assembler.place.at, 0)?.commit;
        let Some(progress) = self.snapshots.front_mut() else { return Ok(None) };
        let (rows_max, bytes_max) = match progress.filter {
            None => (self.settings.batch_rows_max, self.settings.batch_bytes_max),
            // All at once if that can be: what is given in parts is repeated when it is interrupted.
            Some(_) => (usize::MAX, self.settings.filtered_bytes_max),
        };
        let read = whole.read(progress, rows_max, bytes_max).await;
        let (rows, has_more) = read.map_err(|e| e.during("read a table without a key"))?;
        let (id, columns) = (whole.plan.id.clone(), whole.plan.shape.columns.clone());
        let first = std::mem::take(&mut whole.first);
        if first != First::Row {
            progress.table_rows = 0;
        }
        progress.count(rows.len() as u64);
        if has_more {
            self.work = Work::Whole(whole);
        } else {
            progress.chunks_done += 1;
            progress.end_table();
        }
        let is_last = !has_more && progress.tables.is_empty();
        if !has_more && progress.filter.is_none() {
            self.assembler.remarks.was_read(&id, since);
        }
        self.chunk_batch(id, columns, rows.into_iter(), first, is_last).map(Some)
    }

    fn chunk_batch(
        &mut self,
        id: TableId,
        columns: Vec<crate::table::Column>,
        rows: impl Iterator<Item = Row>,
        first: First,
        is_last: bool,
    ) -> Result<Batch, SourceError> {
        let table = self.assembler.shapes.table(id, columns);
        let place = &self.assembler.place;
        let progress = self.snapshots.front();
        let origin = Arc::new(Origin {
            committed_us: progress.map_or(0, |p| p.begun_us),
            snapshot: match progress.map(|p| p.why) {
                Some(Why::Incremental) => Snapshot::Incremental,
                _ if is_last => Snapshot::Last,
                _ => Snapshot::Initial,
            },
            place: Place::Mysql { server_id: self.server.id, file: place.file.clone(), at: place.at, gtid: None, thread: None },
        });
        let mut position = self.given.max(place.position(place.at, 0)?);
        let told = match first {
            First::Row => None,
            First::Clear => Some(snapshot::clear(&table)),
            First::Repeated => Some(snapshot::repeated(&table.id, progress.and_then(|p| p.filter.as_deref()))),
        };
        let changes = told.into_iter().chain(rows.map(|row| snapshot::read_row(&table, row)));
        let changes = changes
            .map(|(op, what)| {
                position.ordinal += 1;
                Change { op, what, position, origin: origin.clone() }
            })
            .collect::<Vec<_>>();
        if is_last {
            self.snapshots.pop_front();
        }
        if changes.is_empty() {
            position.ordinal += 1;
        }
        self.tell_progress();
        Ok(self.given_out(changes, position))
    }

    async fn accept(&mut self, request: SnapshotRequest) -> Result<(), SourceError> {
        match self.wanted(&request).await? {
            // Whoever asked may have gone.
            Err(why) => drop(request.accepted.send(Err(why))),
            Ok(tables) => {
                let progress = progress(&mut self.sql, Why::Incremental, tables, request.filter.clone()).await?;
                self.snapshots.push_back(progress);
                self.is_news = true;
                self.askers.push(request.accepted);
            }
        }
        Ok(())
    }

    /// The tables of a request that exist and are captured; else why not.
    async fn wanted(&mut self, request: &SnapshotRequest) -> Result<Result<VecDeque<(String, String)>, String>, SourceError> {
        if self.snapshots.len() >= QUEUED_MAX {
            return Ok(Err(format!("{QUEUED_MAX} snapshots are waiting already")));
        }
        let mut ids = Vec::new();
        for name in &request.tables {
            match name.split_once('.').filter(|(d, t)| self.assembler.shapes.selection.has(d, t)) {
                Some((d, t)) => ids.push(TableId { database: d.into(), schema: "".into(), table: t.into() }),
                None => return Ok(Err(format!("{name} is not a captured table"))),
            }
        }
        let found = catalog::read(&mut self.sql, &ids).await.map_err(|e| e.during("look for the tables"))?;
        if let Some(id) = ids.iter().find(|id| !found.iter().any(|t| t.id == **id)) {
            return Ok(Err(format!("{id} does not exist")));
        }
        if let Some(filter) = &request.filter
            && let Some(why) = self.refused_filter(&ids, filter).await?
        {
            return Ok(Err(why));
        }
        Ok(Ok(ids.iter().map(|id| (id.database.to_string(), id.table.to_string())).collect()))
    }

    /// What the server has against the condition; it could else never be got rid of again.
    async fn refused_filter(&mut self, ids: &[TableId], filter: &str) -> Result<Option<String>, SourceError> {
        for id in ids {
            let (d, t) = (super::wire::quoted(&id.database), super::wire::quoted(&id.table));
            let tried = self.sql.query(&format!("SELECT 1 FROM {d}.{t} WHERE ({filter}\n) LIMIT 0")).await;
            match tried {
                Ok(_) => {}
                Err(e) if e.code().is_some() => return Ok(Some(format!("the filter does not fit {id}: {e}"))),
                Err(e) => return Err(e.during("try a filter")),
            }
        }
        Ok(None)
    }

    fn tell_progress(&mut self) {
        let (rows, done) = self.snapshots.front().map_or((0, 0), |p| (p.rows, p.chunks_done));
        let phase = if self.snapshots.is_empty() { Phase::Streaming } else { Phase::Snapshot };
        let health = &mut self.health;
        (health.snapshot_rows, health.snapshot_chunks_done, health.phase) = (rows, done, phase);
        health.stale = self.assembler.remarks.told();
        self.link.health.send_replace(self.health.clone());
    }

    async fn tell_health(&mut self) -> Result<(), SourceError> {
        self.health_when = Instant::now() + HEALTH_EVERY;
        let asked = timeout(HEALTH_WAIT_MAX, self.server.files(&mut self.sql)).await;
        let files = asked.unwrap_or(Err(WireError::Silent(HEALTH_WAIT_MAX))).map_err(|e| e.during("ask where the binlog ends"))?;
        let place = &self.assembler.place;
        self.health.lag_bytes = files.behind(file_number(&place.file)?, place.at);
        let (number, at) = place.of(*self.link.durable.borrow()).unwrap_or((file_number(&place.file)?, place.at));
        self.health.retained_bytes = files.behind(number, at).filter(|_| files.is_whole);
        self.tell_progress();
        Ok(())
    }
}
