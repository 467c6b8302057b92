//! A reader of a MySQL source that stores what it is given, as the program does, and can be dropped at any point.

use mulgil_capture::change::{Batch, Change, Op, Resume, Row, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::mysql::open;
use mulgil_capture::mysql::settings::Settings;
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::source::{Health, Link, SnapshotRequest, Source, SourceError, SourceErrorKind};
use mulgil_model::position::Position;
use mulgil_servers::MariaDb;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

/// Longest wait for a batch, or for a server to be back.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub fn settings(server: &MariaDb, tables: &[&str]) -> Settings {
    let mut settings = Settings::new(server.url("").parse().unwrap(), tables);
    settings.snapshot = SnapshotMode::NoData;
    settings.heartbeat = Duration::from_secs(1);
    settings
}

/// A `binlog-row-metadata` that says as little of columns as the server can.
pub fn least_metadata() -> &'static str {
    if MariaDb::starts_mysql() { "MINIMAL" } else { "NO_LOG" }
}

/// Forgets the binlog: it begins anew.
pub fn reset(server: &MariaDb) {
    server.sql(if server.is_mysql() { "RESET BINARY LOGS AND GTIDS" } else { "RESET MASTER" }).unwrap();
}

/// For an account with a password, without TLS.
pub fn url_as(server: &MariaDb, user: &str, password: &str) -> String {
    let options = if server.is_mysql() { "?get-server-public-key=true" } else { "" };
    format!("{}{options}", server.url_as(user, password, ""))
}

/// A table of the numbers of a range, its column `seq`.
pub fn series(server: &MariaDb, from: u64, to: u64) -> String {
    if server.is_mysql() {
        format!("(WITH RECURSIVE s (seq) AS (SELECT {from} UNION ALL SELECT seq + 1 FROM s WHERE seq < {to}) SELECT seq FROM s) AS series")
    } else {
        format!("t.seq_{from}_to_{to}")
    }
}

/// Has a server repeat what another one does.
pub fn follow(replica: &MariaDb, server: &MariaDb) {
    let port = server.port();
    let sql = if server.is_mysql() {
        format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'root', SOURCE_AUTO_POSITION = 1, SOURCE_SSL = 0, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA"
        )
    } else {
        format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'root', MASTER_USE_GTID = slave_pos; START SLAVE"
        )
    };
    replica.sql(&sql).unwrap();
}

/// Waits until it has come as far, and has it follow no more.
pub fn follows_no_more(replica: &MariaDb, server: &MariaDb) {
    let (at, wait, stop) = if server.is_mysql() {
        ("SELECT @@gtid_executed", "WAIT_FOR_EXECUTED_GTID_SET", "STOP REPLICA; RESET REPLICA ALL")
    } else {
        ("SELECT @@gtid_binlog_pos", "MASTER_GTID_WAIT", "STOP SLAVE")
    };
    let at = server.sql(at).unwrap().replace("\\n", "");
    let waited = replica.sql(&format!("SELECT {wait}('{at}', 60)")).unwrap();
    assert_eq!(waited, "0", "{:?}", replica.sql("SHOW REPLICA STATUS"));
    replica.sql(stop).unwrap();
}

pub struct Reader {
    pub settings: Settings,
    pub resume: Option<Resume>,
    pub changes: Vec<Change>,
    pub largest: usize,
    open: Option<Opened>,
}

struct Opened {
    source: Box<dyn Source>,
    requests: mpsc::Sender<SnapshotRequest>,
    health: watch::Receiver<Health>,
    _durable: watch::Sender<Position>,
}

impl Reader {
    pub fn new(settings: Settings) -> Self {
        Self { settings, resume: None, changes: Vec::new(), largest: 0, open: None }
    }

    pub async fn try_open(&mut self) -> Result<(), SourceError> {
        let (durable_in, durable) = watch::channel(self.resume.as_ref().map_or(Position::default(), |r| r.position));
        let (health, health_out) = watch::channel(Health::default());
        let (requests_in, requests) = mpsc::channel(4);
        let source = open(self.settings.clone(), self.resume.clone(), Link { durable, health, requests }).await?;
        self.open = Some(Opened { source, requests: requests_in, health: health_out, _durable: durable_in });
        Ok(())
    }

    pub fn health(&self) -> Health {
        self.open.as_ref().unwrap().health.borrow().clone()
    }

    pub fn requests(&self) -> mpsc::Sender<SnapshotRequest> {
        self.open.as_ref().unwrap().requests.clone()
    }

    /// As a kill of the program: only what has been stored stays.
    pub fn drop_source(&mut self) {
        self.open = None;
    }

    pub async fn opened(&mut self) {
        if self.open.is_none() {
            self.try_open().await.unwrap();
        }
    }

    /// The next batch, stored; opens the source again as its supervisor does.
    pub async fn step(&mut self) -> Batch {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            match self.try_step().await {
                Ok(batch) => return batch,
                Err(e) if e.kind == SourceErrorKind::Retry && Instant::now() < deadline => self.drop_source(),
                Err(e) => panic!("{e}"),
            }
        }
    }

    pub async fn try_step(&mut self) -> Result<Batch, SourceError> {
        if self.open.is_none() {
            self.try_open().await?;
        }
        let source = &mut self.open.as_mut().unwrap().source;
        let batch = timeout(WAIT_MAX, source.next()).await.expect("a batch in time")?;
        self.store(&batch);
        batch.askers.tell();
        Ok(batch)
    }

    fn store(&mut self, batch: &Batch) {
        let mut last = self.resume.as_ref().map(|r| r.position);
        for change in &batch.changes {
            assert!(last.is_none_or(|last| last < change.position), "{last:?} then {:?}", change.position);
            last = Some(change.position);
        }
        let of_last = batch.changes.last().map(|c| c.position);
        assert!(of_last.is_none_or(|p| p <= batch.resume.position), "{batch:?}");
        assert!(self.resume.as_ref().is_none_or(|r| r.position < batch.resume.position), "{:?} then {:?}", self.resume, batch.resume);
        // Through text, as it is kept.
        let notes = serde_json::from_str(&batch.resume.notes.to_string()).unwrap();
        self.resume = Some(Resume { position: batch.resume.position, notes });
        self.largest = self.largest.max(batch.changes.len());
        self.changes.extend(batch.changes.iter().cloned());
    }

    pub async fn until(&mut self, what: &str, is_there: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + WAIT_MAX;
        while !is_there(self) {
            assert!(Instant::now() < deadline, "{what} did not come; there are {} changes", self.changes.len());
            self.step().await;
        }
    }

    /// Reads until this row of `t.mark` has come by the stream, which it writes.
    pub async fn until_mark(&mut self, server: &MariaDb, mark: i64) {
        if self.resume.is_none() {
            self.step().await;
        }
        server.sql(&format!("INSERT INTO t.mark VALUES ({mark})")).unwrap();
        self.until("the mark", |r| r.changes.iter().rev().any(|c| is_mark(c, mark))).await;
    }

    /// Reads until so many rows were inserted, without a source after every seventh batch; the number of batches.
    pub async fn until_created_with_drops(&mut self, n_rows: usize) -> usize {
        let mut n_batches = 0;
        while self.count(Op::Create) < n_rows {
            self.step().await;
            n_batches += 1;
            if n_batches % 7 == 0 {
                self.drop_source();
            }
        }
        n_batches
    }

    /// The first column of each row that the table was given, in the order of the stream.
    pub fn ids_of(&self, name: &str) -> Vec<Datum> {
        let id = |change: &Change| match &change.what {
            What::Row { table, after: Some(row), .. } if &*table.id.table == name => Some(row[0].clone()),
            _ => None,
        };
        self.changes.iter().filter_map(id).collect()
    }

    pub async fn until_snapshot_done(&mut self) {
        self.until("the end of the snapshot", |r| r.resume.as_ref().is_some_and(|r| r.notes["snapshots"].is_null())).await;
    }

    /// Asks for a snapshot of a table, and waits until it is done.
    pub async fn snapshot(&mut self, server: &MariaDb, table: &str) {
        self.opened().await;
        let (accepted, mut answer) = tokio::sync::oneshot::channel();
        self.requests().send(SnapshotRequest { tables: vec![table.into()], filter: None, accepted }).await.unwrap();
        // The source answers while somebody waits for its next batch, and so that one comes something changes.
        let taken = loop {
            server.sql("REPLACE INTO t.mark VALUES (-1)").unwrap();
            self.step().await;
            if let Ok(answer) = answer.try_recv() {
                break answer;
            }
        };
        taken.unwrap();
        self.until_snapshot_done().await;
    }

    pub fn count(&self, op: Op) -> usize {
        self.changes.iter().filter(|c| c.op == op && !is_of_mark(c)).count()
    }
}

fn is_of_mark(change: &Change) -> bool {
    change.what.table().is_some_and(|id| &*id.table == "mark")
}

fn is_mark(change: &Change, mark: i64) -> bool {
    matches!(&change.what, What::Row { after: Some(row), .. } if is_of_mark(change) && change.op == Op::Create && row[0] == Datum::Int(mark))
}

/// Tables by name, rows by key: names and values of their columns.
pub type Tables = BTreeMap<String, BTreeMap<String, BTreeMap<String, Datum>>>;

/// What the tables are after these changes.
pub fn fold(changes: &[Change]) -> Tables {
    let mut tables = Tables::new();
    for change in changes.iter().filter(|c| !is_of_mark(c)) {
        let Some(id) = change.what.table() else { continue };
        let rows = tables.entry(id.to_string()).or_default();
        let (table, before, after) = match &change.what {
            What::Truncate { .. } => {
                rows.clear();
                continue;
            }
            What::Row { table, before, after } => (table, before, after),
            What::Message { .. } => continue,
        };
        let key = |row: &Row| format!("{:?}", table.key().map(|i| &row[i]).collect::<Vec<_>>());
        let old = before.as_ref().and_then(|row| rows.remove(&key(row)));
        let Some(after) = after else { continue };
        let old = old.or_else(|| rows.remove(&key(after))).unwrap_or_default();
        let value = |(c, d): (&mulgil_capture::table::Column, &Datum)| {
            let known = old.get(&*c.name).filter(|_| *d == Datum::Unavailable);
            (c.name.to_string(), known.unwrap_or(d).clone())
        };
        assert!(table.key().all(|i| after[i] != Datum::Unavailable), "a row that cannot be told from others: {change:?}");
        let row: BTreeMap<_, _> = table.columns.iter().zip(after).map(value).collect();
        rows.insert(key(after), row);
    }
    tables.retain(|_, rows| !rows.is_empty());
    tables
}

/// The tables as they are now, read as text.
pub async fn tables_now(settings: &Settings) -> Tables {
    let mut settings = settings.clone();
    settings.snapshot = SnapshotMode::InitialOnly;
    settings.server_id += 1;
    let mut reader = Reader::new(settings);
    reader.until_snapshot_done().await;
    assert_eq!(reader.count(Op::Read), reader.changes.iter().filter(|c| !is_of_mark(c)).count());
    fold(&reader.changes)
}

/// A number after another, the same for the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}
