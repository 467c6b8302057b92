//! Snapshots that are disturbed: killed and resumed under writes, tables that are rewritten, dropped or made anew, connections that break.

use crate::postgres_snapshot_support::*;
use mulgil_capture::change::{Batch, Op};
use mulgil_capture::postgres::address::Address;
use mulgil_capture::postgres::snapshot::contained::Contained;
use mulgil_capture::postgres::snapshot::notes::TableState;
use mulgil_capture::postgres::snapshot::reader::{Pinned, SnapshotReader, SnapshotTask};
use mulgil_capture::postgres::snapshot::{SnapshotSettings, Wanted, connect};
use mulgil_capture::postgres::wire::TextRow;
use mulgil_capture::source::{SourceError, SourceErrorKind};
use mulgil_model::position::Position;
use mulgil_servers::{Postgres, Settings};

/// Runs until so many batches were given, then drops everything. Gives the last one, and whether the snapshot is complete.
async fn run(task: SnapshotTask, n_batches: usize, fold: &mut Fold, mut writes: impl FnMut()) -> (Option<Batch>, bool) {
    let mut reader = SnapshotReader::open(task).await.unwrap();
    writes();
    let mut last = None;
    for n in 0..n_batches {
        if n == 1 {
            writes();
        }
        let Some(batch) = reader.next().await.unwrap() else { return (last, true) };
        fold.batch(&batch);
        last = Some(batch);
    }
    let is_complete = last.as_ref().is_some_and(|b| notes_of(b).is_complete);
    (last, is_complete)
}

/// Kills the snapshot behind every so many batches, with writes between, until it is complete; then the stream must bring the fold to what
/// the tables are. Gives how often it was killed.
async fn check_kills(
    database: &mut Database,
    tables: &[(&str, &str)],
    batches_per_run: usize,
    mut writes: impl FnMut(&Database, u64),
) -> u64 {
    let names: Vec<&str> = tables.iter().map(|(name, _)| *name).collect();
    let mut fold = Fold::default();
    let pinned = database.slot().await;
    let mut task = database.task(&names, pinned);
    let mut kills = 0;
    loop {
        writes(database, kills * 10);
        let mut n_writes = kills * 10;
        let within = || {
            n_writes += 1;
            writes(database, n_writes);
        };
        let (last, is_complete) = run(task, batches_per_run, &mut fold, within).await;
        let last = last.unwrap();
        if is_complete {
            writes(database, kills * 10 + 9);
            stream_behind(database, &notes_of(&last), &mut fold).await;
            break;
        }
        kills += 1;
        assert!(kills < 500, "the snapshot does not come forward");
        task = SnapshotTask { notes: Some(notes_of(&last)), after: last.resume.position, ..database.task(&names, Pinned::Now) };
    }
    for (table, columns) in tables {
        fold.assert_equals(table, database.rows(table, columns).await);
    }
    kills
}

/// Inserts, updates, deletes and moves of keys, in transactions of several.
fn random_writes(database: &Database, seed: u64, tables: &[(&str, &str)]) {
    let mut dice = Dice(seed * 7_919 + 17);
    let mut sql = String::new();
    for _ in 0..6 {
        sql += "BEGIN;\n";
        for _ in 0..dice.roll(4) + 1 {
            let (table, key) = tables[dice.roll(tables.len() as u64) as usize];
            let some_key = |dice: &mut Dice| key.replace('#', &(dice.roll(150) + 1).to_string());
            let (at, to) = (some_key(&mut dice), some_key(&mut dice));
            sql += &match dice.roll(4) {
                0 => format!("INSERT INTO {table} (k, v) VALUES ({at}, 'new') ON CONFLICT DO NOTHING;\n"),
                1 => format!("DELETE FROM {table} WHERE k = {at};\n"),
                2 => format!("UPDATE {table} SET v = v || '.' WHERE k = {at};\n"),
                _ => format!(
                    "UPDATE {table} SET k = {to}, v = v || '>' WHERE k = {at} AND NOT EXISTS (SELECT 1 FROM {table} WHERE k = {to});\n"
                ),
            };
        }
        sql += if dice.roll(5) == 0 { "ROLLBACK;\n" } else { "COMMIT;\n" };
    }
    database.sql(&sql);
}

const KEYED: [(&str, &str); 5] = [
    ("t_int", "(#)::int"),
    ("t_text", "('K' || (#)::text)"),
    ("t_icu", "md5((#)::text)"),
    ("t_uuid", "md5((#)::text)::uuid"),
    ("t_numeric", "(# / 7.0 - 5)"),
];

fn keyed_tables() -> String {
    let mut sql = String::new();
    for (table, key) in KEYED {
        let kind = match table {
            "t_icu" => "text COLLATE \"und-x-icu\"",
            _ => table.strip_prefix("t_").unwrap(),
        };
        let key = key.replace('#', "i");
        sql += &format!(
            "CREATE TABLE {table} (k {kind} PRIMARY KEY, v text); INSERT INTO {table} SELECT {key}, 'old' FROM generate_series(1, 100) i;\n"
        );
    }
    sql + "ANALYZE;"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_behind_every_chunk_it_goes_on_under_writes() {
    let tables = KEYED.map(|(table, _)| (table, "k, v"));
    let mut kills = 0;
    for batches_per_run in [2, 3, 7] {
        let mut database = Database::new(&format!("kills_{batches_per_run}"), &keyed_tables());
        kills +=
            check_kills(&mut database, &tables, batches_per_run, |d, n| random_writes(d, n + 1_000 * batches_per_run as u64, &KEYED)).await;
    }
    assert!(kills > 100, "{kills} kills");
}

/// The number of a transaction that was rolled back, which the view knows as ended, is not given to another by a server that has crashed: that
/// one's changes would seem to be in the rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_view_has_seen_outlives_a_crash_of_the_server() {
    // The server's own writer would hide what this is about.
    check_crash(("wal_writer_delay", "10s"), "postgres", "").await;
    // And is waited for by whoever may not hurry it.
    // Its arguments are not the same in all versions.
    let revoked = "SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM public', oid::regprocedure) FROM pg_proc \
                   WHERE proname = 'pg_logical_emit_message' \\gexec";
    check_crash(("wal_writer_delay", "200ms"), "reader", revoked).await;
}

async fn check_crash(setting: (&str, &str), user: &str, sql: &str) {
    // Whole pages in the log would bring a part of what is rolled back to the disk.
    let mut server = Postgres::start(&Settings::default().with(setting.0, setting.1).with("full_page_writes", "off")).unwrap();
    server.sql("CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 20) i").unwrap();
    server.sql(&format!("CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON t TO reader; {sql}")).unwrap();
    let owner: Address = server.url("postgres").parse().unwrap();
    let mut client = connect(&owner).await.unwrap();
    let number = |rows: Vec<TextRow>| String::from_utf8(rows[0][0].as_ref().unwrap().to_vec()).unwrap().parse::<u32>().unwrap();
    let changed = "BEGIN; UPDATE public.t SET v = v + 1 WHERE k = 1; SELECT pg_current_xact_id()::text;";
    let gone = number(client.query(&format!("{changed} ROLLBACK")).await.unwrap());
    let task = SnapshotTask {
        address: Address { user: user.to_owned(), ..owner.clone() },
        settings: settings(),
        tables: vec![Wanted::table("public", "t")],
        pinned: Pinned::Now,
        after: Position::new(1, 0),
        is_reset: false,
        notes: None,
        shapes: shapes(),
    };
    let reader = SnapshotReader::open(task).await.unwrap();
    let view = reader.notes().views[0].clone();
    assert!(view.contains(gone));
    server.kill_hard().unwrap();
    server.restart().unwrap();
    let mut client = connect(&owner).await.unwrap();
    let come = number(client.query(&format!("{changed} COMMIT")).await.unwrap());
    assert!(!view.contains(come), "{come} was ended when the rows were read under {view:?}, and has changed one of them since");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_composite_key_goes_on_under_writes() {
    let mut database = Database::new(
        "kills_composite",
        "CREATE TYPE side AS ENUM ('buy', 'sell', 'hold');
         CREATE TABLE t (at timestamptz, side side, symbol varchar(10) COLLATE \"und-x-icu\", v int, PRIMARY KEY (side, symbol, at));
         INSERT INTO t SELECT '2024-01-01'::timestamptz + i * '1 s'::interval, (enum_range(null::side))[1 + i % 3], chr(65 + i % 2 * 32 + i % 20), i
         FROM generate_series(1, 150) i; ANALYZE;",
    );
    let kills = check_kills(&mut database, &[("t", "at, side, symbol, v")], 2, |database, n| {
        database.sql(&format!(
            "UPDATE t SET side = 'hold' WHERE v % 17 = {n} % 17; UPDATE t SET symbol = lower(symbol), v = v + 1 WHERE v % 13 = {n} % 13;
             DELETE FROM t WHERE v % 31 = {n} % 31; INSERT INTO t VALUES (now() + '{n} s', 'buy', 'Zz', {n});"
        ));
    })
    .await;
    assert!(kills > 10, "{kills} kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_identity_and_partitions_go_on_under_writes() {
    let mut database = Database::new(
        "kills_full",
        "CREATE TABLE f (k int PRIMARY KEY, v text); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f SELECT i, 'old' FROM generate_series(1, 100) i;
         CREATE TABLE p (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (60); CREATE TABLE p_2 PARTITION OF p DEFAULT;
         INSERT INTO p SELECT i, 'old' FROM generate_series(1, 100) i; ANALYZE;",
    );
    let tables = [("f", "#"), ("p", "#")];
    let kills = check_kills(&mut database, &[("f", "k, v"), ("p", "k, v")], 3, |d, n| random_writes(d, n + 5, &tables)).await;
    assert!(kills > 5, "{kills} kills");
}

/// A table without a key can only be added to while it is published (or has its whole row as identity).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_without_a_key_begin_again_behind_a_truncate() {
    let mut database = Database::new(
        "kills_no_key",
        "CREATE TABLE n (v text, w int); INSERT INTO n SELECT repeat('x', 400), i / 3 FROM generate_series(1, 150) i;
         CREATE TABLE f (v text, w int); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f SELECT repeat('y', 400), i FROM generate_series(1, 150) i;
         CREATE TABLE k (id int PRIMARY KEY); INSERT INTO k SELECT generate_series(1, 10);",
    );
    let mut fold = Fold::default();
    let pinned = database.slot().await;
    let mut task = database.task(&["n", "f", "k"], pinned);
    let mut truncates = 0;
    // Ever more batches in a run, or the first table would never be finished.
    for n_batches in (4..200).step_by(9) {
        database.sql(&format!("INSERT INTO n VALUES ('more', {n_batches}); UPDATE f SET v = 'u' WHERE w = {n_batches}; DELETE FROM f WHERE w = {n_batches} + 1"));
        let mut reader = SnapshotReader::open(task).await.unwrap();
        let mut last = None;
        for _ in 0..n_batches {
            let Some(batch) = reader.next().await.unwrap() else { break };
            truncates += batch.changes.iter().filter(|c| c.op == Op::Truncate).count();
            fold.batch(&batch);
            last = Some(batch);
        }
        let last = last.unwrap();
        let notes = notes_of(&last);
        if notes.is_complete {
            stream_behind(&database, &notes, &mut fold).await;
            fold.assert_equals("n", database.rows("n", "v, w").await);
            fold.assert_equals("f", database.rows("f", "v, w").await);
            assert!(truncates > 0);
            return;
        }
        task = SnapshotTask { notes: Some(notes), after: last.resume.position, ..database.task(&["n", "f", "k"], Pinned::Now) };
    }
    panic!("it was never finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_slot_that_exists_nothing_appears_twice() {
    let mut database = Database::new("given_slot", &keyed_tables());
    database.slot().await;
    for n in 0..5 {
        random_writes(&database, n + 1, &KEYED);
    }
    let mut fold = Fold::default();
    let names = KEYED.map(|(table, _)| table);
    let batches = read_all(database.task(&names, Pinned::Now)).await.unwrap();
    batches.iter().for_each(|b| fold.batch(b));
    random_writes(&database, 99, &KEYED);
    let notes = notes_of(batches.last().unwrap());
    fold.is_unordered = true;
    stream_behind(&database, &notes, &mut fold).await;
    for table in names {
        fold.assert_equals(table, database.rows(table, "k, v").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewritten_and_dropped_tables_do_not_stop_the_others() {
    for (name, ddl, is_gone) in [
        ("truncated", "TRUNCATE a; INSERT INTO a VALUES (1000, 'fresh'), (3, 'again')", false),
        ("retyped", "ALTER TABLE a ALTER v TYPE varchar(50) USING v || '!'", false),
        ("rewritten", "ALTER TABLE a ALTER v TYPE varchar(50); ALTER TABLE a ALTER v TYPE char(9)", false),
        ("column_dropped", "ALTER TABLE a DROP COLUMN v", false),
        ("column_added", "ALTER TABLE a ADD COLUMN w int DEFAULT 7", false),
        ("moved", "VACUUM FULL a", false),
        ("dropped", "DROP TABLE a", true),
        ("recreated", "DROP TABLE a; CREATE TABLE a (v text PRIMARY KEY); INSERT INTO a VALUES ('x')", false),
    ] {
        for n_before in [1, 3] {
            let sql = "CREATE TABLE a (k int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'v' FROM generate_series(1, 200) i;
                 CREATE TABLE b (k int PRIMARY KEY, v text); INSERT INTO b SELECT i, 'v' FROM generate_series(1, 60) i; ANALYZE;";
            let mut database = Database::new(&format!("ddl_{name}_{n_before}"), sql);
            let pinned = database.slot().await;
            let mut task = database.task(&["a", "b"], pinned);
            // One connection, so that ranges of the first table are still to be read when the statement runs. It waits for none of our locks
            // for long: a part is a transaction of its own, and once its rows are sent it is over.
            task.settings = SnapshotSettings { connections: 1, ..settings() };
            let mut fold = Fold::default();
            let mut reader = SnapshotReader::open(task).await.unwrap();
            for _ in 0..n_before {
                fold.batch(&reader.next().await.unwrap().unwrap());
            }
            let ddl_done = tokio::task::spawn_blocking({
                let (database, ddl) = (database.name.clone(), ddl.to_owned());
                move || server().sql_in(&database, &ddl).unwrap()
            });
            let mut last = None;
            if n_before == 1 {
                ddl_done.await.unwrap();
                while let Some(batch) = reader.next().await.unwrap() {
                    fold.batch(&batch);
                    last = Some(batch);
                }
            } else {
                // The statement may have to wait for the part that is read: both go on.
                while let Some(batch) = reader.next().await.unwrap() {
                    fold.batch(&batch);
                    last = Some(batch);
                }
                ddl_done.await.unwrap();
            }
            let notes = notes_of(&last.unwrap());
            assert!(notes.is_complete, "{name}");
            assert!(notes.tables[1].is_done() && fold.n_rows("b") == 60, "{name}");
            assert!(
                !is_gone || n_before > 1 || matches!(notes.tables[0].state, TableState::Skipped(_)),
                "{name}: {:?}",
                notes.tables[0].state
            );
            match name {
                "truncated" | "moved" => {
                    stream_behind(&database, &notes, &mut fold).await;
                    fold.assert_equals("a", database.rows("a", "k, v").await);
                }
                // The statement ran before any row was read, so they are as it left them.
                "retyped" | "rewritten" if n_before == 1 => fold.assert_equals("a", database.rows("a", "k, v").await),
                "recreated" if n_before == 1 => fold.assert_equals("a", database.rows("a", "v").await),
                "column_dropped" if n_before == 1 => fold.assert_equals("a", database.rows("a", "k").await),
                // As they were planned: the stream tells the new column with the next change.
                "column_added" => fold.assert_equals("a", database.rows("a", "k, v").await),
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_connection_is_an_error_to_try_again_after() {
    let mut database = Database::new("broken", &keyed_tables());
    let pinned = database.slot().await;
    let names = KEYED.map(|(table, _)| table);
    let mut fold = Fold::default();
    let mut task = database.task(&names, pinned);
    let mut n_broken = 0;
    loop {
        let mut reader = SnapshotReader::open(task).await.unwrap();
        let mut last = reader.next().await.unwrap().unwrap();
        fold.batch(&last);
        if n_broken < 4 {
            fold.batch(&{
                last = reader.next().await.unwrap().unwrap();
                last.clone()
            });
            database.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
        }
        let error = loop {
            match reader.next().await {
                Ok(Some(batch)) => {
                    fold.batch(&batch);
                    last = batch;
                }
                Ok(None) => break None,
                Err(error) => break Some(SourceError::from(error)),
            }
        };
        let Some(error) = error else {
            stream_behind(&database, &notes_of(&last), &mut fold).await;
            break;
        };
        assert_eq!(error.kind, SourceErrorKind::Retry, "{error}");
        n_broken += 1;
        random_writes(&database, n_broken, &KEYED);
        task = SnapshotTask { notes: Some(notes_of(&last)), after: last.resume.position, ..database.task(&names, Pinned::Now) };
    }
    assert!(n_broken > 0);
    for table in names {
        fold.assert_equals(table, database.rows(table, "k, v").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn always_voids_what_was_given_before() {
    let mut database = Database::new("always", &keyed_tables());
    let pinned = database.slot().await;
    let names = KEYED.map(|(table, _)| table);
    let mut fold = Fold::default();
    let first = read_all(database.task(&names, pinned)).await.unwrap();
    first.iter().for_each(|b| fold.batch(b));
    random_writes(&database, 3, &KEYED);
    // The writes are not read from the stream: the next snapshot has them, and says that what was before is void.
    let after = first.last().unwrap().resume.position;
    let again = read_all(SnapshotTask { after, is_reset: true, ..database.task(&names, Pinned::Now) }).await.unwrap();
    assert_eq!(again[0].changes.iter().filter(|c| c.op == Op::Truncate).count(), names.len());
    again.iter().for_each(|b| fold.batch(b));
    random_writes(&database, 4, &KEYED);
    stream_behind(&database, &notes_of(again.last().unwrap()), &mut fold).await;
    for table in names {
        fold.assert_equals(table, database.rows(table, "k, v").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_can_be_asked_for() {
    let mut database = Database::new(
        "one_key",
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 40) i; ANALYZE",
    );
    let pinned = database.slot().await;
    let mut fold = Fold::default();
    let mut task = database.task(&["t"], pinned);
    task.settings = SnapshotSettings { span_rows: 1_000, connections: 1, ..settings() };
    let (last, _) = run(task, 2, &mut fold, || ()).await;
    let last = last.unwrap();
    database.sql("UPDATE t SET v = 'w'");
    let task = SnapshotTask { notes: Some(notes_of(&last)), after: last.resume.position, ..database.task(&["t"], Pinned::Now) };
    let rest = read_all(task).await.unwrap();
    let contained = Contained::of(&notes_of(rest.last().unwrap()));
    let transactions = database.stream().await;
    let (xid, _, changes) = &transactions[0];
    let mut connection = connect(&database.address).await.unwrap();
    let mut found = Vec::new();
    for change in changes {
        let mulgil_capture::change::What::Row { table, after: Some(row), .. } = &change.what else { panic!("no row") };
        found.push(contained.is_already_in_snapshot(&mut connection, &table.id, row, *xid).await.unwrap());
    }
    // The first chunk was read under the slot's view, which has no change of the stream; the rest when the update was there.
    assert_eq!(found.iter().filter(|is_in| !**is_in).count(), 7);
    let left = contained.remove(&mut connection, changes.clone(), *xid).await.unwrap();
    assert_eq!(left.len(), 7);
}
