//! Random work of several clients while mulgil and the server are killed at random moments and at every failpoint of the way into the log:
//! in the end the log, followed change by change, is the table, byte for byte, with every change once and in the order of commits.

use super::accident::capture_detail;
use super::database::{Database, Dialect};
use super::fold::Fold;
use super::lives::{Clients, End, Lives, finish, n_lives, seed};
use super::workload;
use crate::program::until;
use mulgil_servers::Settings;
use rand::Rng;
use rand::rngs::StdRng;
use std::sync::RwLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Two databases: more than a hundred kills in all, with those of the servers and those during snapshots.
const LIVES: u64 = 45;
const LIVES_IN_SNAPSHOT: u64 = 14;

/// Where a change may be when the process dies.
const FAILPOINTS: [&str; 9] = [
    "capture.schema-learned",
    "capture.batch-read",
    "capture.before-commit",
    "log.before-write",
    "log.torn-write",
    "log.after-sync",
    "capture.commit-begun",
    "capture.after-commit",
    "capture.acknowledged",
];

#[test]
fn postgres_in_the_log_is_postgres_however_often_both_are_killed() {
    // Transactions are streamed before they are committed.
    killed_at_work(Dialect::Postgres, &settings(Dialect::Postgres).with("logical_decoding_work_mem", "64kB"));
}

#[test]
fn mariadb_in_the_log_is_mariadb_however_often_both_are_killed() {
    killed_at_work(Dialect::MariaDb, &settings(Dialect::MariaDb).with("max-binlog-size", "4M"));
}

fn killed_at_work(dialect: Dialect, settings: &Settings) {
    let (seed, database) = (seed(), Database::start(dialect, settings));
    database.sql(&workload::setup(dialect)).unwrap();
    let world = database.world(&workload::TABLES.map(str::to_owned), "");
    // Behind the snapshot of empty tables every row is seen to come.
    let first = world.start();
    until("it streams", || capture_detail(&first).contains("streaming").then_some(()));
    first.kill();
    let database = RwLock::new(database);
    let clients = Clients::new(&database);
    let mut lives = Lives::new(&world, &database, seed);
    clients.at_work(seed, workload::script, || {
        let mut failpoints = FAILPOINTS.iter().cycle();
        for life in 0..n_lives(LIVES) {
            lives.live(match life % 9 {
                4 => End::Server,
                2 | 7 => End::Committing,
                5 => End::Anytime,
                _ => failpoints.next().map_or(End::Anytime, |name| End::Failpoint(name)),
            });
        }
        reach_all(&mut lives);
    });
    let database = database.read().unwrap();
    let last = world.start();
    finish(&database);
    let mut n_events = 0;
    for table in workload::TABLES {
        let mut fold = Fold::new(&world, dialect, table);
        fold.has_whole_befores |= table == "whole";
        until(&format!("the last change of {table}"), || fold.read().rows.contains_key(&-1).then_some(()));
        fold.is_table(&database.rows(table));
        eprintln!("{table}: {} events, {} rows", fold.n_events, fold.rows.len());
        n_events += fold.n_events;
    }
    last.stop();
    let (n_scripts, n_failed) = (clients.n_scripts.load(Ordering::SeqCst), clients.n_failed.load(Ordering::SeqCst));
    eprintln!("{n_scripts} scripts, {n_failed} cut off or refused; {} kills, failpoints {:?}", lives.n_kills, lives.fired);
    assert!(n_scripts > lives.n_kills && n_scripts > n_failed && n_events > 20 * n_scripts, "too little was done between the kills");
}

/// What no life has reached, for the machine was busy: tried again.
fn reach_all(lives: &mut Lives<'_>) {
    const TRIES_MAX: usize = 6;
    for name in FAILPOINTS {
        let tries = (0..TRIES_MAX).find(|_| {
            if !lives.fired.contains_key(name) {
                lives.live_to(name, 1);
            }
            lives.fired.contains_key(name)
        });
        assert!(tries.is_some(), "nothing reaches {name}");
    }
}

/// For the rest of a snapshot and the stream behind it.
const ALL_WITHIN: Duration = Duration::from_secs(60);

pub const SNAPSHOT_ROWS: u32 = 90_000;
const EVERY: u32 = 499;

#[test]
fn a_snapshot_of_postgres_goes_on_behind_every_chunk() {
    killed_in_snapshot(Dialect::Postgres);
}

#[test]
fn a_snapshot_of_mariadb_goes_on_behind_every_chunk() {
    killed_in_snapshot(Dialect::MariaDb);
}

/// A table of many chunks, killed after one or two of them again and again, while clients move its rows about.
fn killed_in_snapshot(dialect: Dialect) {
    let (seed, database) = (seed(), Database::start(dialect, &settings(dialect)));
    database.sql(&big(dialect)).unwrap();
    let world = database.world(&["big".to_owned()], "");
    let database = RwLock::new(database);
    let clients = Clients::new(&database);
    let mut lives = Lives::new(&world, &database, seed);
    clients.at_work(seed, about, || {
        for life in 0..n_lives(LIVES_IN_SNAPSHOT) {
            match life % 7 {
                3 => lives.live(End::Committing),
                1 | 5 => lives.live(End::Server),
                at => lives.live_to(["capture.after-commit", "capture.before-commit", "log.torn-write"][at as usize % 3], 2 + at % 2),
            }
        }
    });
    let database = database.read().unwrap();
    let last = world.start();
    database.sql("INSERT INTO big (id) VALUES (-1)").unwrap();
    let mut fold = Fold::new(&world, dialect, "big");
    (fold.is_ahead_of_snapshot, fold.has_whole_befores) = (dialect == Dialect::MariaDb, dialect == Dialect::MariaDb);
    let began = Instant::now();
    let table = until("the last row", || {
        let table = database.rows("big");
        let is_there = fold.read().rows.contains_key(&-1) && fold.rows.len() == table.len();
        // What is missing then is named below.
        (is_there || began.elapsed() > ALL_WITHIN).then_some(table)
    });
    fold.is_table(&table);
    last.stop();
    let again: Vec<_> = fold.reads.iter().filter(|(_, n)| **n > 1).take(5).collect();
    assert!(again.is_empty(), "finished chunks were read again: {again:?}");
    let n_read = fold.reads.len();
    eprintln!("{n_read} rows read, {} events, {} kills, failpoints {:?}", fold.n_events, lives.n_kills, lives.fired);
    assert!(n_read > SNAPSHOT_ROWS as usize / 2 && fold.n_events > n_read as u64, "a snapshot and a stream: {n_read} of {}", fold.n_events);
}

pub fn big(dialect: Dialect) -> String {
    let rows = match dialect {
        Dialect::Postgres => format!("SELECT k, k, md5(k::text) FROM generate_series(1, {SNAPSHOT_ROWS}) k"),
        Dialect::MariaDb => format!("SELECT seq, seq, MD5(seq) FROM seq_1_to_{SNAPSHOT_ROWS}"),
    };
    format!("CREATE TABLE big (id bigint PRIMARY KEY, n int, note text); INSERT INTO big (id, n, note) {rows};\n")
}

/// Rows changed, gone, come, and moved from one end of the table to the other: over chunks that are read already, and over those to come.
pub fn about(_: Dialect, random: &mut StdRng) -> String {
    let n = random.random_range(1..5);
    let one = |random: &mut StdRng| {
        let id = random.random_range(1..SNAPSHOT_ROWS);
        match random.random_range(0..10) {
            // In every chunk some: one that is being read has to do without them.
            0..4 => format!("UPDATE big SET n = n + 1 WHERE id % {EVERY} = {};", id % EVERY),
            4 | 5 => format!("DELETE FROM big WHERE id >= {id} AND id < {};", id + 5),
            6 => format!("INSERT INTO big VALUES ({}, 0, 'new');", random.random_range(SNAPSHOT_ROWS..1_000_000_000)),
            7 => format!("UPDATE big SET id = {} - id WHERE id = {id};", SNAPSHOT_ROWS + 1),
            8 => format!("UPDATE big SET id = id + 1000000 WHERE id = {id};"),
            _ => format!("SAVEPOINT s; DELETE FROM big WHERE id < {id} AND id > {id} - 50; ROLLBACK TO SAVEPOINT s;"),
        }
    };
    format!("BEGIN;\n{}\nCOMMIT;\n", (0..n).map(|_| one(random)).collect::<String>())
}

/// Clients that stand in each other's way are soon told so. PostgreSQL writes nothing of its log that nobody waits for, so that a kill takes it
/// back, numbers of transactions included. MariaDB syncs its logs as in production: with less it promises the binlog and the
/// tables to agree after a kill of its own no more, and a binlog that has what the tables lost is nothing that a reader could mend.
pub fn settings(dialect: Dialect) -> Settings {
    match dialect {
        Dialect::Postgres => {
            Settings::default().with("deadlock_timeout", "200ms").with("lock_timeout", "1s").with("wal_writer_delay", "10s")
        }
        Dialect::MariaDb => {
            Settings::default().durable().with("innodb-lock-wait-timeout", "1").with("transaction-isolation", "READ-COMMITTED")
        }
    }
}
