//! A real database, the real source, and a disk whose syncs are held back: nothing that is not durable is acknowledged, told or skipped.

use super::super::*;
use crate::capture::opening;
use crate::config::checked::Checked;
use crate::config::parse;
use crate::pipeline::folder::Folder;
use crate::pipeline::plan::Plan;
use crate::pipeline::state::StateFolder;
use mulgil_capture::source::SnapshotRequest;
use mulgil_disk::{Crash, MemDisk};
use mulgil_log::{Log as _, ReadLimit, Seek};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::time::AppendTime;
use mulgil_servers::{MariaDb, Postgres, Settings, wait_until};
use std::sync::atomic::{AtomicI64, Ordering};

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// The program's part that captures, over a disk that a test holds.
struct Held {
    disk: MemDisk,
    config: Checked,
    /// The time of day, microseconds since 1970.
    now_us: Arc<AtomicI64>,
    topic: &'static str,
    _dir: tempfile::TempDir,
}

struct Running {
    /// Where it went on from.
    resumed: Option<Resume>,
    folder: Folder,
    status: Arc<Status>,
    stop: Stop,
    thread: JoinHandle<Result<()>>,
}

impl Held {
    fn new(kind: &str, url: &str, table: &str, topic: &'static str) -> Self {
        Self::with_heartbeat("200ms", kind, url, table, topic)
    }

    /// Where a disk is held, a heartbeat's commit would hold up what is begun behind it.
    fn with_heartbeat(heartbeat: &str, kind: &str, url: &str, table: &str, topic: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = dir.path().join("url");
        std::fs::write(&address, url).unwrap();
        let source = format!("[source.db]\ntype = \"{kind}\"\nurl = \"file:{}\"\ntables = [\"{table}\"]\n", address.display());
        let mut config = parse(&format!("{source}snapshot = \"no_data\"\nheartbeat = \"{heartbeat}\"")).unwrap();
        config.log.dir = dir.path().join("data");
        Self { disk: MemDisk::new(1), config, now_us: Arc::new(AtomicI64::new(DAY_US * 20_000)), topic, _dir: dir }
    }

    fn start(&self) -> Running {
        let plan = Plan::new(&self.config).unwrap();
        let now_us = Arc::clone(&self.now_us);
        let clock: Clock = Arc::new(move || AppendTime(now_us.load(Ordering::SeqCst)));
        let state = || StateFolder::open(&self.config.log.dir.join("state"), self.config.state.cache_bytes);
        let folder = Folder::open_on(Arc::new(self.disk.clone()), state, || "e".repeat(32), &self.config, &plan, &clock).unwrap();
        let capture = &self.config.captures[0];
        let (status, stop) = (Arc::new(Status::default()), Stop::default());
        let supervisor = Supervisor {
            name: capture.name.clone(),
            open: opening::open(capture, &self.config.log.dir),
            notes: Arc::clone(&folder.notes),
            writer: Arc::new(Mutex::new(ChangeWriter::new(capture, &self.config, &plan, &folder.schemas, folder.log()).unwrap())),
            recent: Arc::clone(&folder.recent),
            clock,
            status: Arc::clone(&status),
        };
        let (asked, resumed) = (stop.clone(), folder.notes.resume(&capture.name));
        let thread = std::thread::spawn(move || supervisor.run(&asked));
        Running { resumed, folder, status, stop, thread }
    }
}

impl Running {
    fn until_it_streams(&self) {
        until("it streams", || self.status.seen().health.phase == Phase::Streaming && self.status.seen().durable.is_some());
    }

    /// Where the source goes on behind what was begun, durable or not.
    fn begun(&self) -> u64 {
        self.folder.notes.resume("db").map_or(0, |r| r.position.commit)
    }

    fn n_records(&self, topic: &str) -> u64 {
        let at = TopicPartition::new(Topic::new(topic).unwrap(), Partition(0));
        self.folder.journal.seek(&at, Seek::Next).unwrap().0
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_until(what, Duration::from_secs(60), || Ok(is_so())).unwrap();
}

/// Rows come while the disk holds its syncs, then the machine stops and loses what was not synced: what was told to be durable is exactly
/// what there is, and every row is there once in the end. `behind` waits until the database has heard from us behind those rows; what it
/// found then is held against the place that is stored when the machine is back.
fn held_back<T>(held: &Held, insert: impl Fn(), behind: impl FnOnce() -> T, check: impl FnOnce(&Resume, T)) {
    let running = held.start();
    running.until_it_streams();
    insert();
    until("the first row is durable", || running.n_records(held.topic) == 1);
    held.disk.hold_syncs();
    let before = running.begun();
    insert();
    until("its commit is begun", || running.begun() > before);
    insert();
    let behind = behind();
    let told = running.status.seen().durable;
    held.disk.stop(Crash::DropUnsynced);
    // Also where nothing more comes that would be refused.
    until("it ends with the disk", || running.thread.is_finished());
    assert!(running.thread.join().unwrap().is_err());
    drop(running.folder);
    held.disk.release_syncs();
    held.disk.restart();
    let again = held.start();
    let stored = again.resumed.clone().unwrap();
    assert_eq!(told, Some(stored.position), "what was told to be durable, and what is");
    check(&stored, behind);
    insert();
    until("every row", || again.n_records(held.topic) >= 4);
    again.stop.ask();
    again.thread.join().unwrap().unwrap();
    let at = TopicPartition::new(Topic::new(held.topic).unwrap(), Partition(0));
    assert_eq!(again.folder.journal.seek(&at, Seek::Next).unwrap().0, 4, "each once");
}

#[test]
fn postgres_is_told_of_nothing_that_the_disk_does_not_have() {
    let server = Postgres::start(&Settings::default()).unwrap();
    server.sql("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)").unwrap();
    let held = Held::with_heartbeat("1h", "postgres", &server.url("postgres"), "public.t", "db.public.t");
    let insert = || drop(server.sql("INSERT INTO t DEFAULT VALUES").unwrap());
    let confirmed = || {
        let wal = server.sql("SELECT pg_current_wal_lsn()").unwrap();
        // Each of its words has what it has read and what it has stored.
        let heard = format!("SELECT count(*) FROM pg_stat_replication WHERE write_lsn >= '{wal}'");
        until("the server has heard from it", || server.sql(&heard).unwrap() == "1");
        server.sql("SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots").unwrap().parse::<u64>().unwrap()
    };
    held_back(&held, insert, confirmed, |stored, confirmed| {
        let flush = stored.notes["stream"]["flush_lsn"].as_u64().unwrap();
        assert!(confirmed <= flush, "the server may forget what is before {confirmed}, and {flush} is stored");
    });
}

#[test]
fn of_mariadb_the_place_that_is_told_is_the_one_that_the_disk_has() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY)").unwrap();
    let held = Held::with_heartbeat("1h", "mysql", &server.url("shop"), "shop.t", "db.shop.t");
    held_back(&held, || drop(server.sql_in("shop", "INSERT INTO t VALUES ()").unwrap()), || {}, |_, ()| {});
}

/// A snapshot that is asked for is promised when its commit is durable and no sooner: a kill in between forgets it, and whoever asked knows.
/// `is_begun`: of the place before, and of what was begun since.
fn promised_when_durable(held: &Held, insert: impl Fn(), table: &str, is_begun: impl Fn(Position, &Resume) -> bool) {
    let running = held.start();
    running.until_it_streams();
    insert();
    until("the first row is durable", || running.n_records(held.topic) == 1);
    held.disk.hold_syncs();
    let (accepted, mut answer) = tokio::sync::oneshot::channel();
    let request = SnapshotRequest { tables: vec![table.to_owned()], filter: None, accepted };
    let resume = || running.folder.notes.resume("db").unwrap();
    let before = resume().position;
    running.status.requests().unwrap().try_send(request).unwrap();
    until("its commit is begun", || is_begun(before, &resume()));
    assert!(answer.try_recv().is_err(), "promised before it is durable");
    held.disk.release_syncs();
    until("it is promised", || matches!(answer.try_recv(), Ok(Ok(()))));
    until("it is read", || running.n_records(held.topic) >= 2);
    running.stop.ask();
    running.thread.join().unwrap().unwrap();
}

#[test]
fn a_snapshot_of_postgres_is_promised_when_that_is_durable() {
    let server = Postgres::start(&Settings::default()).unwrap();
    server.sql("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)").unwrap();
    let held = Held::with_heartbeat("1h", "postgres", &server.url("postgres"), "public.t", "db.public.t");
    let is_begun = |_, now: &Resume| now.notes["incremental"]["tables"].as_array().is_some_and(|tables| !tables.is_empty());
    promised_when_durable(&held, || drop(server.sql("INSERT INTO t DEFAULT VALUES").unwrap()), "public.t", is_begun);
}

#[test]
fn a_snapshot_of_mariadb_is_promised_when_that_is_durable() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY)").unwrap();
    let held = Held::with_heartbeat("1h", "mysql", &server.url("shop"), "shop.t", "db.shop.t");
    let is_begun = |before, now: &Resume| now.position > before;
    promised_when_durable(&held, || drop(server.sql_in("shop", "INSERT INTO t VALUES ()").unwrap()), "shop.t", is_begun);
}

/// While the disk is busy, transactions wait: then many of them are one commit, in their order and none in two.
#[test]
fn small_transactions_that_wait_become_few_commits() {
    const TRANSACTIONS: u64 = 1_000;
    let server = Postgres::start(&Settings::default()).unwrap();
    server.sql("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)").unwrap();
    let held = Held::new("postgres", &server.url("postgres"), "public.t", "db.public.t");
    let running = held.start();
    running.until_it_streams();
    held.disk.hold_syncs();
    let before = running.status.seen().n_commits;
    server.sql(&"BEGIN; INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES; COMMIT;\n".repeat(TRANSACTIONS as usize)).unwrap();
    let wal = server.sql("SELECT pg_current_wal_lsn()").unwrap();
    let sent = format!("SELECT count(*) FROM pg_stat_replication WHERE sent_lsn >= '{wal}'");
    until("the server has sent them", || server.sql(&sent).unwrap() == "1");
    held.disk.release_syncs();
    let mut n_records = 0;
    until("they are durable", || {
        n_records = running.n_records(held.topic);
        assert_eq!(n_records % 2, 0, "a part of a transaction");
        n_records == 2 * TRANSACTIONS
    });
    let at = TopicPartition::new(Topic::new(held.topic).unwrap(), Partition(0));
    let chunk = running.folder.journal.read(&at, Offset(0), ReadLimit::records(10_000)).unwrap();
    let keys: Vec<String> = chunk.iter().map(|r| String::from_utf8(r.key.to_vec()).unwrap()).collect();
    assert_eq!(keys, (1..=2 * TRANSACTIONS).map(|n| format!("[\"{n}\"]")).collect::<Vec<_>>());
    let n_commits = running.status.seen().n_commits - before;
    // Those that were under way when the disk was held, and a few for all the others.
    let few = (COMMITS_IN_FLIGHT_MAX + BATCHES_READ_MAX) as u64 + 30;
    assert!(n_commits <= few, "{n_commits} commits for {TRANSACTIONS} transactions, not {few}");
    running.stop.ask();
    running.thread.join().unwrap().unwrap();
}

/// The time of day jumps, while it runs and while it does not: every row comes once and in order, the place moves on, and the times of the log's
/// records never go back.
fn the_clock_jumps(held: &Held, insert: impl Fn(), mut until_idle_place_moves: impl FnMut(&Running)) {
    let mut n = 0;
    for (running_us, stopped_us) in [(-HOUR_US, DAY_US), (DAY_US, -HOUR_US), (-3 * DAY_US, 0)] {
        let running = held.start();
        running.until_it_streams();
        for jump in [0, running_us] {
            held.now_us.fetch_add(jump, Ordering::SeqCst);
            insert();
            n += 1;
            until("the row is there", || running.n_records(held.topic) == n);
        }
        until_idle_place_moves(&running);
        let seen = running.status.seen();
        assert_eq!((seen.state, seen.n_failures), (State::Running, 0), "{}", seen.detail);
        running.stop.ask();
        running.thread.join().unwrap().unwrap();
        let at = TopicPartition::new(Topic::new(held.topic).unwrap(), Partition(0));
        let chunk = running.folder.journal.read(&at, Offset(0), ReadLimit::records(100)).unwrap();
        let keys: Vec<String> = chunk.iter().map(|r| String::from_utf8(r.key.to_vec()).unwrap()).collect();
        assert_eq!(keys, (1..=n).map(|n| format!("[\"{n}\"]")).collect::<Vec<_>>());
        assert!(chunk.iter().map(|r| r.append_time).is_sorted(), "the log's own time went back");
        held.now_us.fetch_add(stopped_us, Ordering::SeqCst);
    }
}

#[test]
fn a_clock_that_jumps_changes_nothing_of_postgres() {
    let server = Postgres::start(&Settings::default()).unwrap();
    server.sql("CREATE DATABASE other; CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)").unwrap();
    let held = Held::new("postgres", &server.url("postgres"), "public.t", "db.public.t");
    let insert = || drop(server.sql("INSERT INTO t DEFAULT VALUES").unwrap());
    let mut n = 0;
    the_clock_jumps(&held, insert, |_| {
        n += 1;
        // What others write is passed by a heartbeat alone.
        server.sql_in("other", &format!("CREATE TABLE t{n} AS SELECT generate_series(1, 1000)")).unwrap();
        let wal = server.sql("SELECT pg_current_wal_lsn()").unwrap();
        let passed = format!("SELECT confirmed_flush_lsn > '{wal}' FROM pg_replication_slots");
        until("the slot has moved on", || server.sql(&passed).unwrap() == "t");
    });
}

#[test]
fn a_clock_that_jumps_changes_nothing_of_mariadb() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY); CREATE TABLE other (id int)").unwrap();
    let held = Held::new("mysql", &server.url("shop"), "shop.t", "db.shop.t");
    the_clock_jumps(
        &held,
        || drop(server.sql_in("shop", "INSERT INTO t VALUES ()").unwrap()),
        |running| {
            let before = running.status.seen().durable;
            server.sql_in("shop", "INSERT INTO other VALUES (1)").unwrap();
            until("the place has moved on", || running.status.seen().durable > before);
        },
    );
}
