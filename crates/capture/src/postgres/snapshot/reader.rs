//! Takes a snapshot: plans it, has it read over several connections, and gives it chunk by chunk with the notes to go on from there.

use super::error::{RESTARTS_MAX, SnapshotError};
use super::notes::{KeyText, SnapshotNotes, SpanNotes, TableNotes, TableState};
use super::plan::TablePlan;
use super::progress::Progress;
use super::view::View;
use super::worker::{Chunk, Ended, Event, From, Job, Outcome, import};
use super::{SnapshotSettings, Wanted, connect};
use crate::change::{Askers, Batch, Change, Op, Origin, Place, Resume, Snapshot, What};
use crate::postgres::address::Address;
use crate::postgres::care;
use crate::postgres::catalog::{Attribute, Catalog, Relation, Selection, Types, number, parse_lsn, text};
use crate::postgres::slot::Lsn;
use crate::postgres::wire::{Connection, WireError};
use crate::table::Table;
use mulgil_model::position::Position;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// For the server's log to come to its disk.
const FLUSHED_WITHIN: Duration = Duration::from_secs(60);
const FLUSHED_POLL: Duration = Duration::from_millis(20);

/// Makes the table that changes carry, from these columns of a relation: the stream and the snapshot of a source count shapes the same.
pub type Shapes = Arc<dyn Fn(&Relation, &[Attribute], &Types) -> Arc<Table> + Send + Sync>;

pub struct SnapshotTask {
    pub address: Address,
    pub settings: SnapshotSettings,
    /// In the order in which they are read.
    pub tables: Vec<Wanted>,
    pub pinned: Pinned,
    /// The rows come above this: `(consistent point - 1, 0)` of a new slot, since a commit may stand at the consistent point itself, and no
    /// record ends between the two; the stored position when a snapshot goes on.
    pub after: Position,
    /// What was given of these tables before is void: each begins with a truncate.
    pub is_reset: bool,
    /// What was stored with the last batch of an earlier run. Not together with [`Pinned::Slot`].
    pub notes: Option<SnapshotNotes>,
    pub shapes: Shapes,
}

/// What the rows are read as of.
#[derive(Debug, Clone)]
pub enum Pinned {
    /// The snapshot that `CREATE_REPLICATION_SLOT … (SNAPSHOT 'export')` gave: it must live until [`SnapshotReader::open`] has returned, no longer.
    Slot { snapshot: String, consistent_point: u64 },
    /// A snapshot of now, beside a slot that exists. The stream must be filtered through [`super::contained::Contained`].
    Now,
}

/// A snapshot under way. Dropping it ends its connections.
pub struct SnapshotReader {
    address: Address,
    settings: SnapshotSettings,
    shapes: Shapes,
    notes: SnapshotNotes,
    at: Position,
    /// What each table is read by; the same order as in the notes.
    runs: Vec<Run>,
    /// Keep the exported snapshots alive, one for each that was taken in this run: its name, its place among the views.
    holders: Vec<Holder>,
    /// For the catalog and for samples.
    planner: Connection,
    queue: VecDeque<Job>,
    idle: Vec<Connection>,
    /// Reading tasks, which end when this is dropped. They are tasks of their own so that rows are parsed on all cores.
    tasks: JoinSet<()>,
    n_reading: usize,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// The newest chunks are held back until there is a newer one: only then they are known not to be the last. Small ones, as many small
    /// tables have them, become one batch, since each batch carries the notes of all tables.
    held: Vec<Chunk>,
    ready: VecDeque<Batch>,
    n_chunks: u64,
    is_finished: bool,
}

struct Run {
    plan: Option<Arc<TablePlan>>,
    wanted: Wanted,
    generation: u32,
    /// Which of the holders it is read under.
    holder: usize,
    /// Parts whose end has not been given yet.
    n_parts_left: usize,
    /// One part at a time.
    is_in_order: bool,
    /// Parts being read now.
    n_reading: usize,
}

struct Holder {
    /// The transaction is open as long as this lives.
    _connection: Connection,
    snapshot: Arc<str>,
    view: usize,
}

impl SnapshotReader {
    /// Plans the snapshot and pins it. Nothing is read yet.
    pub async fn open(task: SnapshotTask) -> Result<Self, SnapshotError> {
        let planner = connect(&task.address).await?;
        let (sender, events) = channel(task.settings.connections.max(1));
        let mut notes = task.notes.unwrap_or_default();
        check(&notes)?;
        notes.forget_unused_views();
        let mut reader = Self {
            address: task.address,
            settings: task.settings,
            shapes: task.shapes,
            notes,
            at: task.after,
            runs: Vec::new(),
            holders: Vec::new(),
            planner,
            queue: VecDeque::new(),
            idle: Vec::new(),
            tasks: JoinSet::new(),
            n_reading: 0,
            events,
            sender,
            held: Vec::new(),
            ready: VecDeque::new(),
            n_chunks: 0,
            is_finished: false,
        };
        reader.pin(&task.pinned).await?;
        reader.plan(task.tables, task.is_reset).await?;
        Ok(reader)
    }

    /// The next chunk, `None` behind the last. The first batch may have no changes: with it the plan becomes durable.
    pub async fn next(&mut self) -> Result<Option<Batch>, SnapshotError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.is_finished {
                return Ok(None);
            }
            self.dispatch().await?;
            if self.n_reading == 0 {
                self.finish();
                continue;
            }
            match self.event().await? {
                Event::Chunk(chunk) => self.take(chunk),
                Event::Ended(ended) => self.ended(ended).await?,
            }
        }
    }

    pub fn progress(&self) -> Progress {
        Progress::of(&self.notes, self.n_chunks, self.settings.chunk_rows)
    }

    /// As stored with the last batch that was given.
    pub fn notes(&self) -> &SnapshotNotes {
        &self.notes
    }

    /// Exports a snapshot in a transaction that stays open.
    async fn pin(&mut self, pinned: &Pinned) -> Result<(), SnapshotError> {
        let mut holder = connect(&self.address).await?;
        match pinned {
            Pinned::Slot { snapshot, .. } => import(&mut holder, snapshot).await?,
            Pinned::Now => drop(holder.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?),
        }
        // The place in the log is read when the snapshot has been taken: what the snapshot contains lies below it.
        let sql = "SELECT pg_export_snapshot(), pg_current_snapshot()::text, \
             (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text, \
             (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let rows = holder.query(sql).await?;
        let odd = || SnapshotError::Wire(WireError::Protocol("no snapshot where one was asked for"));
        let row = rows.first().ok_or_else(odd)?;
        let here = parse_lsn(text(row, 2)?).ok_or_else(odd)?;
        let (lsn, is_of_slot) = match pinned {
            Pinned::Slot { consistent_point, .. } => (*consistent_point, true),
            Pinned::Now => (here, false),
        };
        let view = View::parse(text(row, 1)?, lsn, is_of_slot).ok_or_else(odd)?;
        if !is_of_slot {
            flushed(&mut self.planner, lsn).await?;
        }
        if self.notes.begun_us == 0 {
            (self.notes.begun_us, self.notes.lsn) = (number(row, 3)?, lsn);
        }
        self.holders.push(Holder { _connection: holder, snapshot: text(row, 0)?.into(), view: self.notes.views.len() });
        self.notes.views.push(view);
        Ok(())
    }

    async fn plan(&mut self, tables: Vec<Wanted>, is_reset: bool) -> Result<(), SnapshotError> {
        let catalog = self.catalog(&tables).await?;
        let mut before = std::mem::take(&mut self.notes.tables);
        let mut void = Vec::new();
        for wanted in tables {
            let old = before.iter().position(|t| t.schema == wanted.schema && t.name == wanted.name).map(|at| before.swap_remove(at));
            let plan = self.table_plan(&catalog, &wanted);
            let (notes, is_void) = self.table_notes(plan.as_deref(), &wanted, old).await?;
            if let Some(plan) = plan.as_ref().filter(|_| is_void || is_reset) {
                void.push(plan.table.clone());
            }
            self.notes.tables.push(notes);
            let is_in_order = self.settings.in_order.contains(&format!("{}.{}", wanted.schema, wanted.name));
            self.runs.push(Run { plan, wanted, generation: 0, holder: 0, n_parts_left: 0, is_in_order, n_reading: 0 });
            self.enqueue(self.runs.len() - 1);
        }
        let batch = self.truncates(void);
        self.ready.push_back(batch);
        Ok(())
    }

    /// The tables as the newest snapshot shows them.
    async fn catalog(&mut self, tables: &[Wanted]) -> Result<Catalog, SnapshotError> {
        let holder = self.holders.last().expect("invariant: a snapshot is pinned before it is planned");
        import(&mut self.planner, &holder.snapshot).await?;
        let names = tables.iter().map(|w| (w.schema.clone(), w.name.clone())).collect();
        let catalog = Catalog::read(&mut self.planner, &Selection::Names(names)).await;
        self.planner.query("ROLLBACK").await?;
        Ok(catalog?)
    }

    fn table_plan(&self, catalog: &Catalog, wanted: &Wanted) -> Option<Arc<TablePlan>> {
        let relation = catalog.relation(&wanted.schema, &wanted.name)?;
        let table = |attributes: &[Attribute]| (self.shapes)(relation, attributes, &catalog.types);
        Some(Arc::new(TablePlan::new(relation, &catalog.types, wanted, table)))
    }

    /// The table's notes to go on from, and whether what was given of it is void.
    async fn table_notes(
        &mut self,
        plan: Option<&TablePlan>,
        wanted: &Wanted,
        old: Option<TableNotes>,
    ) -> Result<(TableNotes, bool), SnapshotError> {
        let n_given = old.as_ref().map_or(0, |t| t.n_rows);
        let plan = match (plan, old) {
            // Read, or gone before: whatever happened since is told by the stream.
            (_, Some(old)) if old.state != TableState::Reading => return Ok((old, false)),
            (None, old) => return Ok((skipped(wanted, old), false)),
            (Some(plan), Some(old)) if old.form == plan.form && old.key == plan.key && (!plan.key.is_empty() || n_given == 0) => {
                return Ok((old, false));
            }
            (Some(plan), _) => plan,
        };
        Ok((plan.begin(&mut self.planner, &self.settings).await?, n_given > 0))
    }

    fn enqueue(&mut self, table: usize) {
        let notes = &mut self.notes.tables[table];
        let run = &mut self.runs[table];
        let Some(plan) = run.plan.as_ref().filter(|_| notes.state == TableState::Reading) else { return };
        run.holder = self.holders.len() - 1;
        let holder = &self.holders[run.holder];
        let parts = plan.parts(notes, &self.settings);
        run.n_parts_left = parts.len();
        if parts.is_empty() {
            finish_table(notes, holder.view);
        }
        for (span, part) in parts {
            let from = From { table, generation: run.generation, span, view: holder.view };
            let (plan, snapshot, settings) = (plan.clone(), holder.snapshot.clone(), self.settings.clone());
            self.queue.push_back(Job { plan, from, part, snapshot, settings });
        }
    }

    /// Has every connection read.
    async fn dispatch(&mut self) -> Result<(), SnapshotError> {
        while self.n_reading < self.settings.connections.max(1) {
            let Some(job) = self.next_job() else { break };
            let connection = match self.idle.pop() {
                Some(connection) => connection,
                None => match connect(&self.address).await {
                    Ok(connection) => connection,
                    // The server has no room for another: go on with those that there are.
                    Err(error) if self.n_reading > 0 => {
                        tracing::warn!(%error, n_connections = self.n_reading, "a snapshot reads over fewer connections than it may");
                        self.settings.connections = self.n_reading;
                        self.queue.push_front(job);
                        break;
                    }
                    Err(error) => return Err(error.into()),
                },
            };
            self.n_reading += 1;
            self.runs[job.from.table].n_reading += 1;
            self.tasks.spawn(job.run(connection, self.sender.clone()));
        }
        Ok(())
    }

    fn next_job(&mut self) -> Option<Job> {
        let is_free = |job: &Job| !self.runs[job.from.table].is_in_order || self.runs[job.from.table].n_reading == 0;
        self.queue.iter().position(is_free).and_then(|at| self.queue.remove(at))
    }

    async fn event(&mut self) -> Result<Event, SnapshotError> {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => return Ok(event),
                Some(ended) = self.tasks.join_next() => {
                    // A task tells its end as an event first; one that panicked did not.
                    ended.map_err(|_| SnapshotError::Lost)?;
                }
            }
        }
    }

    fn take(&mut self, chunk: Chunk) {
        if self.runs[chunk.from.table].generation != chunk.from.generation {
            return;
        }
        let n_rows: usize = self.held.iter().map(|c| c.rows.len()).sum();
        let n_bytes: usize = self.held.iter().map(|c| c.n_bytes).sum();
        if n_rows + chunk.rows.len() > self.settings.chunk_rows || n_bytes + chunk.n_bytes > self.settings.chunk_bytes {
            self.flush(Snapshot::Initial);
        }
        self.held.push(chunk);
    }

    async fn ended(&mut self, ended: Ended) -> Result<(), SnapshotError> {
        self.n_reading -= 1;
        self.runs[ended.from.table].n_reading -= 1;
        self.idle.extend(ended.connection);
        let is_current = self.runs[ended.from.table].generation == ended.from.generation;
        match ended.outcome {
            Ok(Outcome::Changed) if is_current => self.begin_again(ended.from.table).await,
            Err(error) if is_current => Err(error),
            _ => Ok(()),
        }
    }

    /// The table is no longer the one that was planned.
    async fn begin_again(&mut self, table: usize) -> Result<(), SnapshotError> {
        let run = &mut self.runs[table];
        run.generation += 1;
        let (wanted, used) = (run.wanted.clone(), run.holder);
        if run.generation > RESTARTS_MAX {
            return Err(SnapshotError::Rewritten(format!("{}.{}", wanted.schema, wanted.name)));
        }
        self.queue.retain(|job| job.from.table != table);
        self.flush(Snapshot::Initial);
        if used + 1 == self.holders.len() {
            self.pin(&Pinned::Now).await?;
        }
        let catalog = self.catalog(std::slice::from_ref(&wanted)).await?;
        let plan = self.table_plan(&catalog, &wanted);
        let old = self.notes.tables[table].clone();
        let n_given = old.n_rows;
        match &plan {
            None => {
                tracing::warn!(table = %format!("{}.{}", wanted.schema, wanted.name), "the table was dropped while its snapshot was read");
                self.notes.tables[table] = skipped(&wanted, Some(old));
            }
            Some(plan) => {
                self.notes.tables[table] = plan.begin(&mut self.planner, &self.settings).await?;
                if n_given > 0 {
                    let batch = self.truncates(vec![plan.table.clone()]);
                    self.ready.push_back(batch);
                }
            }
        }
        self.runs[table].plan = plan;
        self.enqueue(table);
        Ok(())
    }

    /// All is read.
    fn finish(&mut self) {
        let was_complete = std::mem::replace(&mut self.notes.is_complete, true);
        self.flush(Snapshot::Last);
        if self.ready.is_empty() && !was_complete {
            let batch = self.truncates(Vec::new());
            self.ready.push_back(batch);
        }
        self.holders.clear();
        self.idle.clear();
        self.is_finished = true;
    }

    /// Gives the chunks that are held back.
    fn flush(&mut self, mark: Snapshot) {
        let mut changes = Vec::with_capacity(self.held.iter().map(|c| c.rows.len()).sum());
        let origin = self.origin(mark);
        for chunk in std::mem::take(&mut self.held) {
            let run = &self.runs[chunk.from.table];
            let Some(plan) = run.plan.clone().filter(|_| run.generation == chunk.from.generation) else { continue };
            self.note(chunk.from, chunk.rows.len() as u64, chunk.upto, chunk.is_end);
            self.n_chunks += u64::from(!chunk.rows.is_empty());
            for row in chunk.rows {
                let what = What::Row { table: plan.table.clone(), before: None, after: Some(row) };
                changes.push(Change { op: Op::Read, what, position: self.step(), origin: origin.clone() });
            }
        }
        // Ends of empty parts alone are told with the next rows.
        if !changes.is_empty() {
            let batch = self.batch(changes);
            self.ready.push_back(batch);
        }
    }

    /// Notes rows as given, up to this key or to the part's end.
    fn note(&mut self, from: From, n_rows: u64, upto: Option<KeyText>, is_end: bool) {
        let run = &mut self.runs[from.table];
        if run.generation != from.generation {
            return;
        }
        let notes = &mut self.notes.tables[from.table];
        notes.n_rows += n_rows;
        let upto = upto.filter(|_| !is_end);
        if let Some(span) = notes.spans.get_mut(from.span).filter(|_| is_end || upto.is_some()) {
            span.advance(upto, from.view);
        }
        if is_end {
            run.n_parts_left -= 1;
            if run.n_parts_left == 0 {
                finish_table(notes, from.view);
            }
        }
    }

    /// A batch that says that what was given of these tables is void. Of none: only notes.
    fn truncates(&mut self, tables: Vec<Arc<Table>>) -> Batch {
        let origin = self.origin(Snapshot::Initial);
        let mut changes = Vec::with_capacity(tables.len());
        for table in tables {
            let what = What::Truncate { table, cascade: false, restart_identity: false };
            changes.push(Change { op: Op::Truncate, what, position: self.step(), origin: origin.clone() });
        }
        self.batch(changes)
    }

    fn batch(&mut self, changes: Vec<Change>) -> Batch {
        // Each batch has a place of its own, one without changes too.
        let position = if changes.is_empty() { self.step() } else { self.at };
        let notes = serde_json::json!({ "snapshot": self.notes });
        Batch { changes, resume: Resume { position, notes }, askers: Askers::default() }
    }

    fn step(&mut self) -> Position {
        self.at.ordinal += 1;
        self.at
    }

    fn origin(&self, mark: Snapshot) -> Arc<Origin> {
        let database = self.runs.iter().find_map(|r| r.plan.as_ref()).map_or_else(|| Arc::from(""), |p| p.table.id.database.clone());
        let place = Place::Postgres { database, commit_lsn: self.notes.lsn, txid: None };
        Arc::new(Origin { committed_us: self.notes.begun_us, snapshot: mark, place })
    }
}

/// Waits until the server's log up to here is on its disk: a crash then takes back nothing that a view of before has seen. Else rows would be
/// given of a commit that did not wait for the disk (`synchronous_commit = off`) and is lost; and the number of a transaction that was rolled
/// back, which the view knows as ended, is given again to one whose changes then seem to be in the rows. Decoding reads only what is flushed,
/// so this is not needed for the slot's own snapshot.
async fn flushed(connection: &mut Connection, lsn: u64) -> Result<(), SnapshotError> {
    // Whoever may not write messages waits for the server, which brings all to the disk by itself, in an idle hour every fifteen seconds.
    if let Err(error) = connection.query(&care::beat()).await {
        tracing::debug!(%error, "no heartbeat hurries the server's log to its disk");
    }
    let is_flushed =
        format!("SELECT CASE WHEN pg_is_in_recovery() THEN true ELSE pg_current_wal_flush_lsn() >= '{}'::pg_lsn END", Lsn(lsn));
    let began = Instant::now();
    while began.elapsed() < FLUSHED_WITHIN {
        let rows = connection.query(&is_flushed).await?;
        if rows.first().is_some_and(|row| text(row, 0).is_ok_and(|t| t == "t")) {
            return Ok(());
        }
        sleep(FLUSHED_POLL).await;
    }
    Err(SnapshotError::NotFlushed(Lsn(lsn), FLUSHED_WITHIN))
}

/// What was stored is from outside: it must not name views that it does not have.
fn check(notes: &SnapshotNotes) -> Result<(), SnapshotError> {
    let pieces = notes.tables.iter().flat_map(|t| &t.spans).flat_map(|s| &s.pieces);
    let is_whole = pieces.into_iter().all(|p| p.view < notes.views.len());
    let has_keys = notes.tables.iter().all(|t| t.spans.iter().flat_map(|s| &s.upto).all(|k| k.len() == t.key.len()));
    if is_whole && has_keys { Ok(()) } else { Err(SnapshotError::Notes("it names a view or a key that it does not have".to_owned())) }
}

fn skipped(wanted: &Wanted, old: Option<TableNotes>) -> TableNotes {
    let why = if old.as_ref().is_some_and(|t| t.n_rows > 0) { "dropped while it was read" } else { "does not exist" };
    let empty = TableNotes {
        schema: wanted.schema.clone(),
        name: wanted.name.clone(),
        oid: 0,
        form: 0,
        key: Vec::new(),
        n_rows: 0,
        n_rows_estimated: None,
        state: TableState::Reading,
        spans: Vec::new(),
    };
    TableNotes { state: TableState::Skipped(why.to_owned()), spans: Vec::new(), ..old.unwrap_or(empty) }
}

/// A table without a key was read under one view, or it would have been begun again.
fn finish_table(notes: &mut TableNotes, view: usize) {
    notes.state = TableState::Done;
    if notes.key.is_empty() {
        let mut whole = SpanNotes::default();
        whole.advance(None, view);
        notes.spans = vec![whole];
    }
}
