//! Kills while a table is read again on demand, beside a table without a key: every row of the one is there as it is, and every change of the other
//! once, though nothing tells its rows apart.

use super::World;
use super::accident::capture_detail;
use super::database::{Database, Dialect};
use super::fold::Fold;
use super::kills::{SNAPSHOT_ROWS, about, big, settings};
use super::lives::{Clients, End, Lives, n_lives, seed};
use crate::program::{ok, text, until};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::RwLock;

const LIVES: u64 = 6;

#[test]
fn a_snapshot_of_postgres_on_demand_goes_on_behind_every_chunk() {
    killed_on_demand(Dialect::Postgres);
}

#[test]
fn a_snapshot_of_mariadb_on_demand_goes_on_behind_every_chunk() {
    killed_on_demand(Dialect::MariaDb);
}

fn killed_on_demand(dialect: Dialect) {
    let (seed, database) = (seed(), Database::start(dialect, &settings(dialect)));
    let identity = if dialect == Dialect::Postgres { "ALTER TABLE bare REPLICA IDENTITY FULL;" } else { "" };
    database.sql(&format!("{}CREATE TABLE bare (n int, note varchar(40)); {identity}", big(dialect))).unwrap();
    // What is not read on demand is nowhere.
    let world = database.world(&["big".to_owned(), "bare".to_owned()], "snapshot = \"no_data\"\n");
    let database = RwLock::new(database);
    let clients = Clients::new(&database);
    let mut lives = Lives::new(&world, &database, seed);
    let mut fold = Fold::new(&world, dialect, "big");
    fold.is_ahead_of_snapshot = true;
    // Of the table without a key every row is seen to come.
    let first = world.start();
    until("it streams", || capture_detail(&first).contains("streaming").then_some(()));
    clients.at_work(seed, both, || {
        ok(&["capture", "snapshot", "exchange", &dialect.captured("big"), "-c", text(&world.config), "--data", text(&world.data())]);
        until("the first chunk", || (!fold.read().reads.is_empty()).then_some(()));
        first.kill();
        for life in 0..n_lives(LIVES) {
            match life % 4 {
                1 => lives.live(End::Committing),
                3 => lives.live(End::Server),
                at => {
                    lives.live_to(["capture.after-commit", "log.torn-write", "capture.before-commit"][(life / 2 % 3) as usize], 2 + at % 2)
                }
            }
        }
    });
    let database = database.read().unwrap();
    let last = world.start();
    database.sql("INSERT INTO big (id) VALUES (-1); INSERT INTO bare (n) VALUES (-1)").unwrap();
    let table = until("the whole table", || {
        let table = database.rows("big");
        (fold.read().rows.contains_key(&-1) && fold.rows.len() == table.len()).then_some(table)
    });
    fold.is_table(&table);
    let again: Vec<_> = fold.reads.iter().filter(|(_, n)| **n > 1).take(5).collect();
    assert!(again.is_empty(), "finished chunks were read again: {again:?}");
    let n_read = fold.reads.len();
    let bare = until("the last row without a key", || Some(counted(&world, dialect)).filter(|rows| rows.contains_key(&row(-1, None))));
    last.stop();
    eprintln!("{n_read} rows read, {} rows without a key, {} kills, failpoints {:?}", bare.len(), lives.n_kills, lives.fired);
    assert_eq!(bare, in_table(&database), "rows without a key, each so often");
    assert!(n_read > SNAPSHOT_ROWS as usize / 2 && bare.len() > 10, "a snapshot and a stream: {n_read} of {}", fold.n_events);
}

/// Work on both tables: rows of the one without a key come many times alike.
fn both(dialect: Dialect, random: &mut StdRng) -> String {
    let (n, other) = (random.random_range(0..20), random.random_range(0..20));
    let bare = match random.random_range(0..6) {
        0..3 => format!("INSERT INTO bare VALUES ({n}, 'alike'), ({n}, 'alike'), ({other}, NULL);"),
        3 | 4 => format!("UPDATE bare SET n = {other} WHERE n = {n};"),
        _ => format!("DELETE FROM bare WHERE n = {n};"),
    };
    about(dialect, random).replace("COMMIT;", &format!("{bare}\nCOMMIT;"))
}

/// How often a row is there.
type Counted = BTreeMap<String, i64>;

fn row(n: i64, note: Option<&str>) -> String {
    format!("{n} {}", note.unwrap_or("NULL"))
}

/// What the log makes of it.
fn counted(world: &World, dialect: Dialect) -> Counted {
    let mut rows = Counted::new();
    let mut count = |value: &Value, by: i64| {
        let n = value["n"].as_i64().unwrap_or_else(|| panic!("not a whole row: {value}"));
        *rows.entry(row(n, value["note"].as_str())).or_default() += by;
    };
    for event in world.events(&dialect.topic("bare")) {
        match event["op"].as_str().unwrap() {
            "c" => count(&event["after"], 1),
            "d" => count(&event["before"], -1),
            "u" => {
                count(&event["before"], -1);
                count(&event["after"], 1);
            }
            other => panic!("an event of kind {other}: {event}"),
        }
    }
    rows.retain(|_, n| *n != 0);
    rows
}

fn in_table(database: &Database) -> Counted {
    let listed = database.sql("SELECT CONCAT(n, ' ', COALESCE(note, 'NULL')), COUNT(*) FROM bare GROUP BY n, note").unwrap();
    listed.lines().map(|line| line.split_once(['|', '\t']).unwrap()).map(|(row, n)| (row.to_owned(), n.parse().unwrap())).collect()
}
