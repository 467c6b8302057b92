//! Tables that are captured by a pattern: those that are there, and those that come.

use crate::postgres_stream_kit::{Capture, SERVER, database, fold, table};
use mulgil_capture::change::{Op, Snapshot};
use mulgil_capture::postgres::check::check;
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::source::SourceErrorKind;
use std::time::Duration;

/// Heartbeats end each step; a few are enough.
const STEPS_MAX: u32 = 100;

const SETUP: &str = "CREATE TABLE log_a (id int PRIMARY KEY, v text); INSERT INTO log_a VALUES (1, 'old'); \
     CREATE TABLE other (id int PRIMARY KEY, v text); CREATE TABLE log_bare (id int, v text)";

fn captured(name: &str) -> (String, Capture) {
    let db = database(name);
    SERVER.sql_in(&db, SETUP).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.log_*"]);
    c.is_whole = true;
    c.settings.heartbeat = Some(Duration::from_millis(100));
    (db, c)
}

/// Runs, opened again as often as it takes, until a table is what the server has.
fn until_it_is_there(c: &mut Capture, db: &str, name: &str) {
    let there = table(&SERVER, db, &format!("SELECT id, v FROM {name}"));
    for _ in 0..STEPS_MAX {
        if fold(&c.changes, &format!("public.{name}")) == there {
            return;
        }
        match c.step() {
            Err(e) if e.kind == SourceErrorKind::Retry => c.open_patiently(),
            other => other.unwrap(),
        }
    }
    assert_eq!(fold(&c.changes, &format!("public.{name}")), there, "{name}");
}

fn is_of(c: &Capture, name: &str) -> bool {
    c.changes.iter().any(|c| c.what.table().is_some_and(|t| &*t.table == name))
}

#[test]
fn what_a_pattern_means_is_captured_and_a_table_that_comes_is_read_and_followed() {
    let (db, mut c) = captured("patterns");
    c.open().unwrap();
    c.after(&SERVER, &db, "INSERT INTO log_a VALUES (2, 'x'); INSERT INTO other VALUES (1, 'x'); INSERT INTO log_bare VALUES (1, 'x')");
    assert_eq!(fold(&c.changes, "public.log_a"), table(&SERVER, &db, "SELECT id, v FROM log_a"));
    // Its rows come before anybody knows of the table.
    SERVER.sql_in(&db, "CREATE TABLE log_c (id int PRIMARY KEY, v text); INSERT INTO log_c VALUES (1, 'a'), (2, 'b')").unwrap();
    SERVER.sql_in(&db, "UPDATE log_c SET v = 'c' WHERE id = 2").unwrap();
    until_it_is_there(&mut c, &db, "log_c");
    let of_c = |c: &Capture| c.changes.iter().filter(|c| c.what.table().is_some_and(|t| &*t.table == "log_c")).cloned().collect::<Vec<_>>();
    assert!(of_c(&c).iter().all(|c| (c.op, c.origin.snapshot) == (Op::Read, Snapshot::Incremental)));
    c.after(&SERVER, &db, "INSERT INTO log_c VALUES (3, 'd'); DELETE FROM log_c WHERE id = 1");
    assert_eq!(fold(&c.changes, "public.log_c"), table(&SERVER, &db, "SELECT id, v FROM log_c"));
    // Opened again it is known, and not read once more.
    let n = c.changes.len();
    c.open_patiently();
    c.after(&SERVER, &db, "INSERT INTO log_c VALUES (4, 'e')");
    assert_eq!(c.changes.len(), n + 1);
    assert!(!is_of(&c, "other") && !is_of(&c, "log_bare"), "never meant, or without a name for its rows");
}

#[test]
fn a_table_whose_rows_have_no_name_is_left_out_until_they_have_one() {
    let (db, mut c) = captured("patterns_bare");
    c.open().unwrap();
    // Published, this would fail.
    c.after(&SERVER, &db, "INSERT INTO log_bare VALUES (1, 'x'); UPDATE log_bare SET v = 'y'");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = runtime.block_on(check(&c.settings)).unwrap();
    let bare = told.iter().find(|m| m.what.contains("public.log_bare is left out")).unwrap();
    assert!(!bare.is_fatal && bare.fix.starts_with("ALTER TABLE \"public\".\"log_bare\" REPLICA IDENTITY FULL"), "{bare:?}");
    assert!(told.iter().all(|m| !m.is_fatal), "{told:?}");
    SERVER.sql_in(&db, "ALTER TABLE log_bare ADD PRIMARY KEY (id)").unwrap();
    until_it_is_there(&mut c, &db, "log_bare");
}

#[test]
fn a_table_that_is_made_anew_is_read_anew() {
    let (db, mut c) = captured("patterns_anew");
    c.open().unwrap();
    c.after(&SERVER, &db, "UPDATE log_a SET v = 'x'");
    SERVER
        .sql_in(
            &db,
            "DELETE FROM log_a; DROP TABLE log_a; CREATE TABLE log_a (id int PRIMARY KEY, v text); INSERT INTO log_a VALUES (7, 'anew')",
        )
        .unwrap();
    until_it_is_there(&mut c, &db, "log_a");
    // Taken out of the publication it is a hole, as for any other.
    SERVER.sql_in(&db, &format!("ALTER PUBLICATION {} DROP TABLE log_a", c.settings.publication)).unwrap();
    let mut error = None;
    for _ in 0..STEPS_MAX {
        match c.step().or_else(|e| if e.kind == SourceErrorKind::Retry { c.open() } else { Err(e) }) {
            Err(e) if e.kind != SourceErrorKind::Retry => {
                error = Some(e);
                break;
            }
            _ => {}
        }
    }
    let error = error.unwrap();
    assert!(error.kind == SourceErrorKind::Refused && error.message.contains("no longer has public.log_a"), "{error}");
}

#[test]
fn without_data_and_without_tables_it_begins_with_what_comes() {
    let db = database("patterns_none");
    let mut c = Capture::new(&SERVER, &db, &["public.*"]);
    (c.is_whole, c.settings.mode, c.settings.heartbeat) = (true, SnapshotMode::NoData, Some(Duration::from_millis(100)));
    c.open().unwrap();
    c.after(&SERVER, &db, "SELECT 1");
    SERVER.sql_in(&db, "CREATE TABLE t (id int PRIMARY KEY, v text)").unwrap();
    // Nothing tells of a table without rows but the publication.
    let published = format!("SELECT count(*) FROM pg_publication_tables WHERE pubname = '{}'", c.settings.publication);
    for _ in 0..STEPS_MAX {
        if SERVER.sql_in(&db, &published).unwrap() == "1" {
            break;
        }
        c.step().unwrap_or_else(|e| {
            assert_eq!(e.kind, SourceErrorKind::Retry, "{e}");
            c.open_patiently();
        });
    }
    c.after(&SERVER, &db, "INSERT INTO t VALUES (1, 'x')");
    assert_eq!(c.changes.iter().map(|c| c.op).collect::<Vec<_>>(), [Op::Create]);
}
