//! An incremental snapshot whose chunk is held up in the middle, so that what is written meanwhile surely lies between its two marks, and
//! surely is not in the rows that it reads.

use crate::postgres_stream_kit::{Capture, SERVER, Session, database, emit, show};
use mulgil_capture::change::{Change, Op, What};
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::source::SnapshotRequest;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Waits, when the rows are read, for a lock that the test has: by then the low mark is written and the view is taken.
const GATE: &str = "(SELECT pg_advisory_xact_lock_shared(4711))::text IS NOT NULL";
const WAITS: &str = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted \
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Asks for a snapshot of `public.t` and writes while its first chunk of seven rows is read. Gives everything that came, in order.
fn written_between_the_marks(name: &str, setup: &str, write: &str) -> (String, Vec<Change>) {
    let db = database(name);
    SERVER.sql_in(&db, setup).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]);
    (c.is_whole, c.settings.mode, c.settings.snapshot.chunk_rows) = (true, SnapshotMode::NoData, 7);
    c.open().unwrap();
    let mut gate = Session::open(&SERVER, &db);
    gate.run("SELECT pg_advisory_lock(4711)");
    let (accepted, mut answer) = oneshot::channel();
    c.requests.try_send(SnapshotRequest { tables: vec!["public.t".into()], filter: Some(GATE.to_owned()), accepted }).unwrap();
    // Taken up at the latest while the source waits for the batch behind the next.
    let is_accepted = (0..10).any(|_| {
        c.after(&SERVER, &db, "SELECT 1");
        answer.try_recv() == Ok(Ok(()))
    });
    assert!(is_accepted);
    gate.wait(WAITS);
    SERVER.sql_in(&db, write).unwrap();
    gate.run("SELECT pg_advisory_unlock(4711)");
    let is_done = |c: &Capture| c.resume.as_ref().is_some_and(|r| r.notes["incremental"]["tables"].as_array().is_none_or(Vec::is_empty));
    let mut n = 0;
    while n == 0 || !is_done(&c) {
        n += 1;
        assert!(
            n < 60,
            "it does not come to an end: {} {changes}",
            c.resume.as_ref().unwrap().notes["incremental"],
            changes = crate::postgres_stream_kit::show_all(&c.changes)
        );
        SERVER.sql_in(&db, "SELECT pg_logical_emit_message(true, 'app', '')").unwrap();
        c.step().unwrap();
    }
    SERVER.sql_in(&db, &emit("end")).unwrap();
    c.until("end");
    (db, c.changes.drain(..).filter(|c| c.op != Op::Message).collect())
}

/// What a consumer has that keeps rows by this column, of which it had none before.
fn kept(changes: &[Change], column: usize) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for change in changes {
        let What::Row { before, after, .. } = &change.what else { panic!("{change:?}") };
        if let Some(before) = before {
            rows.remove(&show(&before[column]));
        }
        if let Some(after) = after {
            rows.insert(show(&after[column]), after.iter().map(show).collect::<Vec<_>>().join("|"));
        }
    }
    rows
}

fn table(db: &str, key: usize) -> BTreeMap<String, String> {
    let rows = SERVER.sql_in(db, "SELECT * FROM t").unwrap();
    rows.lines().map(|line| (line.split('|').nth(key).unwrap().to_owned(), line.to_owned())).collect()
}

/// The first column of the rows that the snapshot gave.
fn read(changes: &[Change]) -> Vec<i64> {
    let rows = changes.iter().filter(|c| c.op == Op::Read).filter_map(|c| match &c.what {
        What::Row { after: Some(row), .. } => Some(show(&row[0]).parse().unwrap()),
        _ => None,
    });
    rows.collect()
}

#[test]
fn rows_that_change_between_the_marks_are_not_brought_back() {
    let (db, changes) = written_between_the_marks(
        "window",
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 14) i",
        "UPDATE t SET v = 'new' WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE t SET id = 103 WHERE id = 3;
         BEGIN; DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (4, 'again'); COMMIT;
         BEGIN; UPDATE t SET v = 'gone' WHERE id = 5; ROLLBACK; INSERT INTO t VALUES (-1, 'above')",
    );
    // Of the first seven rows these were as they were read; then comes the second chunk, and what is behind it.
    let found = read(&changes);
    assert_eq!(found[..3], [5, 6, 7], "{found:?}");
    assert_eq!(found[3..], [8, 9, 10, 11, 12, 13, 14, 103]);
    assert_eq!(kept(&changes, 0), table(&db, 0));
}

/// The changes name rows by another index than the one that pages them.
#[test]
fn a_replica_identity_beside_the_primary_key_names_what_changed() {
    let (db, changes) = written_between_the_marks(
        "window_identity",
        "CREATE TABLE t (id int PRIMARY KEY, u text NOT NULL UNIQUE); ALTER TABLE t REPLICA IDENTITY USING INDEX t_u_key;
         INSERT INTO t SELECT i, 'u' || i FROM generate_series(1, 7) i",
        "DELETE FROM t WHERE id = 2; UPDATE t SET id = 103 WHERE id = 3; UPDATE t SET u = 'x' WHERE id = 4",
    );
    assert_eq!(read(&changes), [1, 5, 6, 7, 103]);
    assert_eq!(kept(&changes, 1), table(&db, 1));
}

/// A key too large to be sent again with an update of another column.
#[test]
fn a_large_key_that_did_not_change_is_known_all_the_same() {
    let large = "(SELECT string_agg(md5((i * 100 + j)::text), '') FROM generate_series(1, 70) j)";
    let (db, changes) = written_between_the_marks(
        "window_toast",
        &format!(
            "CREATE TABLE t (id int, k text PRIMARY KEY, v text); ALTER TABLE t ALTER k SET STORAGE EXTERNAL;
             INSERT INTO t SELECT i, i || {large}, 'old' FROM generate_series(1, 3) i"
        ),
        "UPDATE t SET v = 'new' WHERE id = 2",
    );
    assert_eq!(read(&changes), [1, 3]);
    let update = changes.iter().find(|c| c.op == Op::Update).unwrap();
    let What::Row { before: Some(before), after: Some(after), .. } = &update.what else { panic!("{update:?}") };
    assert_eq!((show(&after[1]).as_str(), show(&before[1]).len() > 2_000), ("…", true), "the key is in the row before alone");
    assert_eq!(table(&db, 0).len(), 3);
}
