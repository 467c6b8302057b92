//! A source under test, and what its changes add up to.

use mulgil_capture::change::{Batch, Change, Op, Resume, Row, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::postgres::decoder::Bounds;
use mulgil_capture::postgres::settings::PostgresSettings;
use mulgil_capture::postgres::source;
use mulgil_capture::postgres::stream::prepare;
use mulgil_capture::postgres::streams::Spill;
use mulgil_capture::source::{Health, Link, SnapshotRequest, Source, SourceError};
use mulgil_disk::RealDisk;
use mulgil_model::position::Position;
use mulgil_servers::{Postgres, Settings};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server for all tests that do not harm it.
pub static SERVER: LazyLock<Postgres> = LazyLock::new(|| {
    let settings = Settings::default().with("logical_decoding_work_mem", "64kB").with("autovacuum", "off");
    Postgres::start(&settings).unwrap()
});

/// A database of the shared server.
pub fn database(name: &str) -> String {
    static N: AtomicU32 = AtomicU32::new(0);
    let name = format!("{name}_{}", N.fetch_add(1, Ordering::Relaxed));
    SERVER.sql(&format!("CREATE DATABASE {name}")).unwrap();
    name
}

/// A source as its supervisor has it: what is durable is what was asked to be.
pub struct Capture {
    runtime: Runtime,
    pub settings: PostgresSettings,
    _dir: TempDir,
    source: Option<Box<dyn Source>>,
    /// With its snapshot, as the settings say; else the stream alone.
    pub is_whole: bool,
    pub requests: mpsc::Sender<SnapshotRequest>,
    durable: watch::Sender<Position>,
    pub health: watch::Receiver<Health>,
    /// The last batch that was made durable.
    pub resume: Option<Resume>,
    pub changes: Vec<Change>,
    pub n_batches: usize,
    /// Batches whose changes were not yet made durable are lost when the source is dropped.
    pub largest_batch: usize,
}

impl Capture {
    pub fn new(server: &Postgres, database: &str, tables: &[&str]) -> Self {
        Self::at(&server.url(database), database, tables)
    }

    pub fn at(url: &str, name: &str, tables: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill { disk: Arc::new(RealDisk), dir: dir.path().join("spill"), memory_bytes_max: 1 << 20 };
        let mut settings = PostgresSettings::new(name, url.parse().unwrap(), spill);
        settings.tables = tables.iter().map(|t| (*t).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (durable, health) = (watch::channel(Position::default()).0, watch::channel(Health::default()).1);
        Self {
            runtime,
            settings,
            _dir: dir,
            source: None,
            is_whole: false,
            requests: mpsc::channel(1).0,
            durable,
            health,
            resume: None,
            changes: Vec::new(),
            n_batches: 0,
            largest_batch: 0,
        }
    }

    pub fn bounds(mut self, rows_max: usize, bytes_max: usize) -> Self {
        self.settings.bounds = Bounds { rows_max, bytes_max };
        self
    }

    pub fn open(&mut self) -> Result<(), SourceError> {
        self.source = None;
        let (durable, durable_out) = watch::channel(self.resume.as_ref().map_or(Position::default(), |r| r.position));
        let (health, health_out) = watch::channel(Health::default());
        let (requests, requests_out) = mpsc::channel(8);
        let link = Link { durable: durable_out, health, requests: requests_out };
        (self.durable, self.health, self.requests) = (durable, health_out, requests);
        let (settings, resume, is_whole) = (self.settings.clone(), self.resume.clone(), self.is_whole);
        let opening = async {
            if is_whole {
                return source::open(settings, resume, link).await;
            }
            let stream = prepare(settings, resume.as_ref()).await?.stream(link).await?;
            Ok(Box::new(stream) as Box<dyn Source>)
        };
        self.source = Some(self.runtime.block_on(opening)?);
        Ok(())
    }

    /// As a supervisor does it: as long as the error says that trying again may help.
    pub fn open_patiently(&mut self) {
        mulgil_servers::wait_until("the source opens", PATIENCE, || match self.open() {
            Ok(()) => Ok(true),
            Err(e) if e.kind == mulgil_capture::source::SourceErrorKind::Retry => Ok(false),
            Err(e) => panic!("{e}"),
        })
        .unwrap();
    }

    pub fn drop_source(&mut self) {
        self.source = None;
    }

    /// The next batch, not yet durable.
    pub fn next(&mut self) -> Result<Batch, SourceError> {
        let source = self.source.as_mut().expect("it was opened");
        let next = async { tokio::time::timeout(PATIENCE, source.next()).await.expect("a batch in time") };
        let batch = self.runtime.block_on(next)?;
        let last = self.changes.last().map(|c| c.position);
        let mut positions = last.into_iter().chain(batch.changes.iter().map(|c| c.position));
        let mut before = positions.next().unwrap_or_default();
        for position in positions {
            assert!(position > before, "{position} after {before}");
            before = position;
        }
        assert!(batch.resume.position >= before, "resume {} at {before}", batch.resume.position);
        let stored = self.resume.as_ref().map_or(Position::default(), |r| r.position);
        assert!(batch.resume.position > stored, "{} after {stored}", batch.resume.position);
        self.largest_batch = self.largest_batch.max(batch.changes.len());
        self.n_batches += 1;
        Ok(batch)
    }

    /// A batch that is read and lost.
    pub fn next_undurable(&mut self) {
        let source = self.source.as_mut().expect("it was opened");
        let next = async { tokio::time::timeout(PATIENCE, source.next()).await.expect("a batch in time") };
        self.runtime.block_on(next).unwrap();
    }

    pub fn make_durable(&mut self, batch: Batch) {
        self.durable.send_replace(batch.resume.position);
        batch.askers.tell();
        self.changes.extend(batch.changes);
        // Through text, as it is stored.
        let mut notes: serde_json::Value = serde_json::from_str(&batch.resume.notes.to_string()).unwrap();
        let same = notes.as_object_mut().unwrap().remove("same");
        for name in same.iter().flat_map(|names| names.as_array().unwrap()).map(|name| name.as_str().unwrap()) {
            notes[name] = self.resume.as_ref().unwrap().notes[name].clone();
        }
        self.resume = Some(Resume { position: batch.resume.position, notes });
    }

    pub fn step(&mut self) -> Result<(), SourceError> {
        let batch = self.next()?;
        self.make_durable(batch);
        Ok(())
    }

    /// Until a logical message with this content is durable, which is not kept.
    pub fn until(&mut self, mark: &str) {
        while !self.seen(mark) {
            match self.step() {
                Err(e) if e.kind == mulgil_capture::source::SourceErrorKind::Retry => self.open_patiently(),
                other => other.unwrap(),
            }
        }
    }

    pub fn seen(&mut self, mark: &str) -> bool {
        let is_mark =
            |c: &Change| matches!(&c.what, What::Message { prefix, content, .. } if prefix == "mark" && *content == mark.as_bytes());
        let found = self.changes.iter().rposition(is_mark);
        found.inspect(|at| drop(self.changes.remove(*at))).is_some()
    }

    /// Runs SQL, then waits until its changes are here, and gives them.
    pub fn after(&mut self, server: &Postgres, database: &str, sql: &str) -> Vec<Change> {
        static N: AtomicU32 = AtomicU32::new(0);
        let mark = format!("after {}", N.fetch_add(1, Ordering::Relaxed));
        server.sql_in(database, &format!("{sql};\n{}", emit(&mark))).unwrap();
        let from = self.changes.len();
        self.until(&mark);
        self.changes[from..].to_vec()
    }

    /// Lets the source run until the condition holds; its heartbeats end each step.
    pub fn run_until(&mut self, what: &str, mut is_so: impl FnMut(&Health) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let health = self.health.borrow().clone();
            if is_so(&health) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "waited in vain until {what}: {health:?}");
            self.step().unwrap();
        }
    }
}

pub fn emit(mark: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, 'mark', '{mark}');")
}

/// A value in one line of text, for comparing with what the server writes.
pub fn show(datum: &Datum) -> String {
    let text = |b: &bytes::Bytes| String::from_utf8(b.to_vec()).unwrap();
    match datum {
        Datum::Null => "∅".to_owned(),
        Datum::Unavailable => "…".to_owned(),
        Datum::Odd(b) => format!("odd {}", text(b)),
        Datum::Bool(b) => b.to_string(),
        Datum::Int(n) => n.to_string(),
        Datum::UInt(n) => n.to_string(),
        Datum::Float32(x) => x.to_string(),
        Datum::Float64(x) => x.to_string(),
        Datum::Decimal(b) | Datum::Text(b) | Datum::Json(b) => text(b),
        Datum::Binary(b) => b.iter().map(|b| format!("{b:02x}")).collect(),
        Datum::Date(n) => n.to_string(),
        Datum::Time(n) | Datum::Timestamp(n) | Datum::TimestampTz(n) => n.to_string(),
        Datum::Uuid(b) => b.iter().map(|b| format!("{b:02x}")).collect(),
        Datum::Array(items) => format!("{{{}}}", items.iter().map(show).collect::<Vec<_>>().join(",")),
    }
}

pub fn show_row(row: &Row) -> String {
    row.iter().map(show).collect::<Vec<_>>().join("|")
}

/// One line per change: `c public.t 1|a`, `u public.t 1|a -> 2|a`.
pub fn show_change(change: &Change) -> String {
    let letter = change.op.letter();
    match &change.what {
        What::Row { table, before, after } => {
            let before = before.as_ref().map(|r| format!(" [{}]", show_row(r))).unwrap_or_default();
            let after = after.as_ref().map(|r| format!(" {}", show_row(r))).unwrap_or_default();
            format!("{letter} {}{before}{after}", table.id)
        }
        What::Truncate { table, cascade, restart_identity } => format!("{letter} {} {cascade} {restart_identity}", table.id),
        What::Message { prefix, content, is_transactional } => {
            format!("{letter} {prefix} {} {is_transactional}", String::from_utf8_lossy(content))
        }
    }
}

pub fn show_all(changes: &[Change]) -> String {
    changes.iter().map(|c| show_change(c) + "\n").collect()
}

/// What the changes of one table make of an empty table: rows by their key's text.
pub fn fold(changes: &[Change], table: &str) -> BTreeMap<String, String> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for change in changes.iter().filter(|c| c.what.table().is_some_and(|t| t.to_string() == table)) {
        let (shape, before, after) = match &change.what {
            What::Truncate { .. } => {
                rows.clear();
                continue;
            }
            What::Row { table, before, after } => (table, before, after),
            What::Message { .. } => continue,
        };
        let key = |row: &Row| shape.key().map(|k| show(&row[k])).collect::<Vec<_>>().join("|");
        let old = before.as_ref().or(after.as_ref()).map(key).unwrap();
        match (change.op, after) {
            (Op::Read, Some(row)) => drop(rows.insert(old, row.clone())),
            (Op::Create, Some(row)) => assert_eq!(rows.insert(old.clone(), row.clone()), None, "{old} was inserted twice"),
            (Op::Update, Some(row)) => {
                let known = rows.remove(&old).unwrap_or_else(|| panic!("{old} was updated but never inserted"));
                let row = row.iter().zip(&known).map(|(new, old)| if *new == Datum::Unavailable { old.clone() } else { new.clone() });
                let row: Row = row.collect();
                rows.insert(key(&row), row);
            }
            (Op::Delete, None) => drop(rows.remove(&old).unwrap_or_else(|| panic!("{old} was deleted but never inserted"))),
            other => panic!("{other:?}"),
        }
    }
    rows.into_iter().map(|(key, row)| (key, show_row(&row))).collect()
}

/// The table as the server has it, in the same form. `key` and `row` are SQL.
pub fn table(server: &Postgres, database: &str, query: &str) -> BTreeMap<String, String> {
    let rows = server.sql_in(database, &format!("\\pset null '∅'\n{query}")).unwrap();
    rows.lines().map(|line| (line.split('|').next().unwrap().to_owned(), line.to_owned())).collect()
}

/// A session that stays open: psql, told what to run and answering each time.
pub struct Session {
    child: std::process::Child,
    input: std::process::ChildStdin,
    output: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Session {
    pub fn open(server: &Postgres, database: &str) -> Self {
        use std::io::BufRead;
        use std::process::Stdio;
        let mut command = server.client("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, input, output: std::io::BufReader::new(output).lines() }
    }

    /// Runs SQL and waits for its end; gives what it wrote.
    pub fn run(&mut self, sql: &str) -> String {
        use std::io::Write;
        writeln!(self.input, "{sql};\n\\echo done").unwrap();
        let mut found = String::new();
        for line in self.output.by_ref() {
            match line.unwrap().as_str() {
                "done" => return found,
                line => found.push_str(line),
            }
        }
        panic!("psql ended at: {sql}");
    }

    /// Asks until the answer is yes.
    pub fn wait(&mut self, question: &str) {
        mulgil_servers::wait_until(question, PATIENCE, || Ok(self.run(question) == "t")).unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
