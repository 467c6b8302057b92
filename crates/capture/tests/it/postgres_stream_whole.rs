//! Snapshot and stream together, as the program has them.

use crate::postgres_stream_kit::{Capture, SERVER, database, emit, fold, table};
use mulgil_capture::change::{Op, Snapshot, What};
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::source::{SnapshotRequest, SourceErrorKind};
use tokio::sync::oneshot;

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'old ' || g FROM generate_series(1, 500) g";
const ROWS: &str = "SELECT id, v FROM t";

fn whole(name: &str) -> (String, Capture) {
    let db = database(name);
    SERVER.sql_in(&db, SETUP).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]);
    c.is_whole = true;
    c.settings.snapshot.chunk_rows = 60;
    c.settings.snapshot.connections = 2;
    (db, c)
}

fn n_reads(c: &Capture, what: Snapshot) -> usize {
    c.changes.iter().filter(|c| c.op == Op::Read && c.origin.snapshot == what).count()
}

#[test]
fn rows_that_are_there_come_first_then_their_changes() {
    let (db, mut c) = whole("whole");
    c.open().unwrap();
    // Written while the snapshot is read: not in it, but in the stream.
    c.step().unwrap();
    SERVER
        .sql_in(
            &db,
            &format!(
                "UPDATE t SET v = 'new' WHERE id % 10 = 0; DELETE FROM t WHERE id = 77; INSERT INTO t VALUES (501, 'x'); {}",
                emit("end")
            ),
        )
        .unwrap();
    c.until("end");
    assert_eq!((n_reads(&c, Snapshot::Initial) > 0, n_reads(&c, Snapshot::Initial) + n_reads(&c, Snapshot::Last)), (true, 500));
    assert_eq!(fold(&c.changes, "public.t"), table(&SERVER, &db, ROWS));
    // Opened again it only streams.
    c.open_patiently();
    let changes = c.after(&SERVER, &db, "INSERT INTO t VALUES (502, 'y')");
    assert_eq!(changes.len(), 1);
}

#[test]
fn dropped_behind_every_batch_of_the_snapshot_it_goes_on_there() {
    let (db, mut c) = whole("resumed");
    c.open().unwrap();
    let mut n = 0;
    while n_reads(&c, Snapshot::Last) == 0 {
        n += 1;
        assert!(n < 100, "it does not come to an end");
        // The first batch is the plan; a chunk is held back until there is a newer one.
        let before = c.changes.len();
        while c.changes.len() == before {
            c.step().unwrap();
        }
        let sql = format!(
            "UPDATE t SET v = 'round {n}' WHERE id % 9 = {}; INSERT INTO t VALUES (1000 + {n}, 'n'); DELETE FROM t WHERE id = {n}",
            n % 9
        );
        SERVER.sql_in(&db, &sql).unwrap();
        c.open_patiently();
    }
    assert!(n >= 5, "{n}");
    SERVER.sql_in(&db, &emit("end")).unwrap();
    c.until("end");
    assert_eq!(fold(&c.changes, "public.t"), table(&SERVER, &db, ROWS));
}

#[test]
fn a_table_is_read_again_while_it_is_written() {
    let (db, mut c) = whole("again");
    c.settings.mode = SnapshotMode::NoData;
    c.open().unwrap();
    c.step().unwrap();
    assert!(c.changes.is_empty());
    let (accepted, answer) = oneshot::channel();
    c.requests.try_send(SnapshotRequest { tables: vec!["public.t".into()], filter: None, accepted }).unwrap();
    let (refused, why_not) = oneshot::channel();
    c.requests.try_send(SnapshotRequest { tables: vec!["public.other".into()], filter: None, accepted: refused }).unwrap();
    let mut n = 0;
    while n_reads(&c, Snapshot::Incremental) < 400 {
        n += 1;
        assert!(n < 200, "it does not come to an end");
        SERVER.sql_in(&db, &format!("UPDATE t SET v = 'round {n}' WHERE id % 50 = {}", n % 50)).unwrap();
        c.step().unwrap();
    }
    SERVER.sql_in(&db, &emit("end")).unwrap();
    c.until("end");
    assert_eq!(answer.blocking_recv().unwrap(), Ok(()));
    assert!(why_not.blocking_recv().unwrap().unwrap_err().contains("not one that this source captures"));
    // The last of the chunks may still be on their way.
    for n in 0..200 {
        if c.resume.as_ref().unwrap().notes["incremental"]["tables"].as_array().is_none_or(Vec::is_empty) {
            break;
        }
        SERVER.sql_in(&db, &format!("SELECT pg_logical_emit_message(true, 'app', '{n}')")).unwrap();
        c.step().unwrap();
    }
    let mut seen = std::collections::BTreeMap::new();
    for change in &c.changes {
        if let mulgil_capture::change::What::Row { after: Some(row), .. } = &change.what {
            seen.insert(crate::postgres_stream_kit::show(&row[0]), crate::postgres_stream_kit::show_row(row));
        }
    }
    assert_eq!(seen, table(&SERVER, &db, ROWS));
}

#[test]
fn what_is_asked_for_while_the_first_snapshot_is_read_comes_behind_it() {
    let (db, mut c) = whole("asked_early");
    c.settings.heartbeat = Some(std::time::Duration::from_millis(100));
    c.open().unwrap();
    c.step().unwrap();
    let (accepted, mut answer) = oneshot::channel();
    c.requests.try_send(SnapshotRequest { tables: vec!["public.t".into()], filter: Some("id <= 5".into()), accepted }).unwrap();
    while answer.try_recv() != Ok(Ok(())) {
        assert_eq!(n_reads(&c, Snapshot::Last), 0, "answered while the snapshot is read");
        c.step().unwrap();
    }
    // The process is killed, and what was accepted is not forgotten.
    c.drop_source();
    c.open_patiently();
    for _ in 0..100 {
        if n_reads(&c, Snapshot::Incremental) == 5 {
            break;
        }
        c.step().unwrap();
    }
    assert_eq!(n_reads(&c, Snapshot::Incremental), 5, "what was accepted");
    assert_eq!(n_reads(&c, Snapshot::Initial) + n_reads(&c, Snapshot::Last), 500, "and before it, all of the first");
    c.after(&SERVER, &db, "INSERT INTO t VALUES (501, 'x')");
    assert_eq!(n_reads(&c, Snapshot::Incremental), 5);
}

#[test]
fn a_source_that_only_reads_a_snapshot_says_so_when_it_is_asked_for_another() {
    let (_, mut c) = whole("asked_only");
    c.settings.mode = SnapshotMode::InitialOnly;
    c.open().unwrap();
    c.step().unwrap();
    let (accepted, mut answer) = oneshot::channel();
    c.requests.try_send(SnapshotRequest { tables: vec!["public.t".into()], filter: None, accepted }).unwrap();
    c.step().unwrap();
    assert!(answer.try_recv().unwrap().unwrap_err().contains("initial_only"));
}

#[test]
fn a_lost_place_is_read_anew_only_where_the_mode_says_so() {
    let (db, mut c) = whole("needed");
    c.open().unwrap();
    c.after(&SERVER, &db, "INSERT INTO t VALUES (600, 'a')");
    c.drop_source();
    let free = format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND active", c.settings.slot);
    mulgil_servers::wait_until("the slot is free", std::time::Duration::from_secs(60), || Ok(SERVER.sql(&free)? == "0")).unwrap();
    SERVER.sql(&format!("SELECT pg_drop_replication_slot('{}')", c.settings.slot)).unwrap();
    SERVER.sql_in(&db, "DELETE FROM t WHERE id < 100; INSERT INTO t VALUES (601, 'b')").unwrap();
    assert_eq!(c.open().unwrap_err().kind, SourceErrorKind::Refused);
    c.settings.mode = SnapshotMode::WhenNeeded;
    c.open_patiently();
    SERVER.sql_in(&db, &format!("INSERT INTO t VALUES (602, 'c'); {}", emit("end"))).unwrap();
    c.until("end");
    assert!(c.changes.iter().any(|c| c.op == Op::Truncate), "what was given before is void");
    assert_eq!(fold(&c.changes, "public.t"), table(&SERVER, &db, ROWS));
}

#[test]
fn an_enum_is_told_with_its_labels_by_the_snapshot_and_by_the_stream() {
    let db = database("enums");
    SERVER
        .sql_in(&db, "CREATE TYPE mood AS ENUM ('sad', 'it''s ok'); CREATE TABLE t (id int PRIMARY KEY, m mood, a mood[]); INSERT INTO t VALUES (1, 'sad', '{sad}')")
        .unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]);
    c.is_whole = true;
    c.open().unwrap();
    c.after(&SERVER, &db, "INSERT INTO t VALUES (2, 'it''s ok', '{}')");
    let shapes: Vec<_> = c.changes.iter().map(|c| if let What::Row { table, .. } = &c.what { table } else { panic!("{c:?}") }).collect();
    assert_eq!((shapes.len(), shapes[0]), (2, shapes[1]));
    let native: Vec<&str> = shapes[0].columns.iter().map(|c| &*c.native).collect();
    assert_eq!(native, ["integer", "enum('sad','it''s ok')", "enum('sad','it''s ok')[]"]);
}
