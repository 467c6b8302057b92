//! What is large: a transaction of a million rows, whose memory is bounded; hundreds of tables, hundreds of columns, a row of 64 MB.

use super::database::{Database, Dialect};
use super::fold::Fold;
use crate::program::{Server, mulgil, ok, open, text, until};
use mulgil_log::{Log, ReadLimit, Seek};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_servers::Settings;
use serde_json::Value;
use std::collections::BTreeSet;

/// The suite's; `MULGIL_LARGE_ROWS=1000000` is the issue's.
const LARGE_ROWS: u64 = 200_000;

/// Above what an idle process takes.
const MEMORY_BYTES_MAX: u64 = 200 << 20;

#[test]
fn a_large_transaction_of_postgres_fits_into_little_memory() {
    large_transaction(Dialect::Postgres);
}

#[test]
fn a_large_transaction_of_mariadb_fits_into_little_memory() {
    large_transaction(Dialect::MariaDb);
}

fn large_transaction(dialect: Dialect) {
    let n_rows: u64 = std::env::var("MULGIL_LARGE_ROWS").map_or(LARGE_ROWS, |n| n.parse().unwrap());
    let database = Database::start(dialect, &Settings::default());
    database.sql("CREATE TABLE large (id bigint PRIMARY KEY, a varchar(60), b varchar(150), n int)").unwrap();
    let world = database.world(&["large".to_owned()], "snapshot = \"no_data\"\n");
    let running = world.start();
    // The first change has everything made that is made once.
    until("the place is stored", || world.is_listed().then_some(()));
    database.sql("INSERT INTO large VALUES (0, 'first', '', 0)").unwrap();
    let at = TopicPartition::new(Topic::new(&dialect.topic("large")).unwrap(), Partition(0));
    let rows = |world: &super::World| open(&world.data()).seek(&at, Seek::Next).map_or(0, |next| next.0);
    until("the first row", || (rows(&world) == 1).then_some(()));
    let idle = forget_high_water(&running);
    let values = match dialect {
        Dialect::Postgres => format!("SELECT n, md5(n::text), repeat(md5(n::text), 4), n FROM generate_series(1, {n_rows}) n"),
        Dialect::MariaDb => format!("SELECT seq, MD5(seq), REPEAT(MD5(seq), 4), seq FROM seq_1_to_{n_rows}"),
    };
    database.sql(&format!("BEGIN; INSERT INTO large {values}; COMMIT")).unwrap();
    until("the whole transaction", || (rows(&world) > n_rows).then_some(()));
    let high = status_bytes(&running, "VmHWM");
    running.stop();
    eprintln!("{n_rows} rows in a transaction: {} MB above {} MB idle", (high - idle) >> 20, idle >> 20);
    assert!(high - idle < MEMORY_BYTES_MAX, "{} MB above {} MB idle", (high - idle) >> 20, idle >> 20);
    assert_eq!(distinct_keys(&world.data(), &at), n_rows as usize + 1, "each row once");
}

fn distinct_keys(data: &std::path::Path, at: &TopicPartition) -> usize {
    let (journal, mut keys) = (open(data), BTreeSet::new());
    let mut from = journal.seek(at, Seek::First).unwrap();
    let mut n_records = 0;
    loop {
        let chunk = journal.read(at, from, ReadLimit::records(10_000)).unwrap();
        if chunk.is_empty() {
            assert_eq!(keys.len(), n_records, "a key is there twice");
            return keys.len();
        }
        n_records += chunk.len();
        keys.extend(chunk.iter().map(|record| record.key.to_vec()));
        from = chunk.next_offset();
    }
}

/// Of `/proc/PID/status`, in bytes.
fn status_bytes(running: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Has the kernel measure the most memory from now on (proc(5), clear_refs 5). What is taken now.
fn forget_high_water(running: &Server) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", running.pid()), "5").unwrap();
    status_bytes(running, "VmRSS")
}

const TABLES: usize = 500;

#[test]
fn five_hundred_tables_of_postgres() {
    five_hundred_tables(Dialect::Postgres);
}

#[test]
fn five_hundred_tables_of_mariadb() {
    five_hundred_tables(Dialect::MariaDb);
}

/// Each has a row that a snapshot reads and one that the stream brings, in a transaction over all of them.
fn five_hundred_tables(dialect: Dialect) {
    let database = Database::start(dialect, &Settings::default());
    let names: Vec<String> = (0..TABLES).map(|n| format!("t{n}")).collect();
    let of_each = |sql: &str| names.iter().map(|name| sql.replace("NAME", name)).collect::<String>();
    database.sql(&of_each("CREATE TABLE NAME (id int PRIMARY KEY, v text); INSERT INTO NAME VALUES (1, 'NAME');\n")).unwrap();
    let world = database.world(&names, "");
    let running = world.start();
    let rows_of_all = || {
        let listed = ok(&["log", "ls", "--json", "-c", text(&world.config), "--data", text(&world.data())]);
        let topics = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let ours = topics.filter(|t| t["topic"].as_str().unwrap().starts_with(&dialect.topic("t")));
        ours.map(|t| t["rows"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    until("a row of each table", || (rows_of_all().len() == TABLES).then_some(()));
    database.sql(&format!("BEGIN; {} COMMIT", of_each("INSERT INTO NAME VALUES (2, 'NAME');\n"))).unwrap();
    until("two rows of each table", || (rows_of_all().iter().filter(|n| **n == 2).count() == TABLES).then_some(()));
    running.stop();
    for name in ["t0", "t250", "t499"] {
        let mut fold = Fold::new(&world, dialect, name);
        fold.read().is_table(&database.rows(name));
    }
}

const COLUMNS: usize = 200;

#[test]
fn two_hundred_columns() {
    for dialect in [Dialect::Postgres, Dialect::MariaDb] {
        let database = Database::start(dialect, &Settings::default());
        let kinds = ["int", "numeric(12,3)", "varchar(30)", "date", "double precision", "bigint", "text"];
        let columns: Vec<String> = (1..COLUMNS).map(|n| format!("c{n} {}", kinds[n % kinds.len()])).collect();
        let values: Vec<String> =
            (1..COLUMNS).map(|n| if n % kinds.len() == 3 { "'2026-01-05'".to_owned() } else { n.to_string() }).collect();
        database.sql(&format!("CREATE TABLE wide (id int PRIMARY KEY, {})", columns.join(", "))).unwrap();
        database.sql(&format!("INSERT INTO wide VALUES (1, {})", values.join(", "))).unwrap();
        let world = database.world(&["wide".to_owned()], "");
        let running = world.start();
        let mut fold = Fold::new(&world, dialect, "wide");
        until("the row that was there", || (fold.read().n_events == 1).then_some(()));
        fold.is_table(&database.rows("wide"));
        database.sql(&format!("INSERT INTO wide VALUES (2, {})", values.join(", "))).unwrap();
        database.sql("UPDATE wide SET c199 = NULL, c100 = 5, c7 = 7 WHERE id = 1").unwrap();
        until("both changes", || (fold.read().n_events == 3).then_some(()));
        fold.is_table(&database.rows("wide"));
        running.stop();
    }
}

const ROW_BYTES: usize = 64 << 20;

#[test]
fn a_row_of_64_mb() {
    for dialect in [Dialect::Postgres, Dialect::MariaDb] {
        let database = Database::start(dialect, &Settings::default());
        let text_type = if dialect == Dialect::Postgres { "text" } else { "longtext" };
        database.sql(&format!("CREATE TABLE huge (id int PRIMARY KEY, note {text_type})")).unwrap();
        let row = |id: u32| format!("INSERT INTO huge SELECT {id}, repeat('{id}234567890abcdef', {})", ROW_BYTES / 16);
        database.sql(&row(1)).unwrap();
        let world = database.world(&["huge".to_owned()], "");
        let running = world.start();
        let mut fold = Fold::new(&world, dialect, "huge");
        // One by the snapshot, one by the stream.
        until("the row that was there", || (fold.read().rows.len() == 1).then_some(()));
        database.sql(&row(2)).unwrap();
        until("the row", || (fold.read().rows.len() == 2).then_some(()));
        eprintln!("a row of 64 MB: at most {} MB in all", status_bytes(&running, "VmHWM") >> 20);
        running.stop();
        for id in 1..=2 {
            let note = fold.rows[&id]["note"].as_str().unwrap();
            assert!(note.len() == ROW_BYTES && note == format!("{id}234567890abcdef").repeat(ROW_BYTES / 16), "row {id}");
        }
    }
}

impl super::World {
    /// Whether the source has stored a place.
    fn is_listed(&self) -> bool {
        let out = mulgil().args(["capture", "ls", "-c", text(&self.config), "--data", text(&self.data())]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).contains(" behind ")
    }
}
