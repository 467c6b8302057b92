//! Snapshots asked for while streaming, from a real server under writes.

use crate::postgres_snapshot_support::*;
use mulgil_capture::change::{Change, Op, Place, Snapshot, What};
use mulgil_capture::postgres::snapshot::Wanted;
use mulgil_capture::postgres::snapshot::incremental::{Incremental, IncrementalNotes, WATERMARK_PREFIX};
use mulgil_capture::postgres::snapshot::signal::{SIGNAL_PREFIX, Signal};
use std::time::Duration;

/// Longest wait for a chunk.
const WAIT_MAX: Duration = Duration::from_secs(60);
const TABLES: [(&str, &str); 2] = [("a", "#"), ("b", "('k' || #)")];

fn sql() -> &'static str {
    "CREATE TABLE a (k int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'old' FROM generate_series(1, 60) i;
     CREATE TABLE b (k text PRIMARY KEY, v text); INSERT INTO b SELECT 'k' || i, 'old' FROM generate_series(1, 60) i;
     CREATE TABLE c (v text); ANALYZE"
}

fn incremental(database: &Database, run: u64, notes: IncrementalNotes) -> Incremental {
    Incremental::new(database.address.clone(), settings(), shapes(), run, notes)
}

fn wanted(tables: &[&str]) -> Vec<Wanted> {
    tables.iter().map(|t| Wanted::table("public", t)).collect()
}

/// Reads the stream once and lets the snapshot have its part of it. Gives the chunks that came out.
pub async fn pump(database: &Database, incremental: &mut Incremental, fold: &mut Fold) -> Vec<Vec<Change>> {
    let mut chunks = Vec::new();
    for (xid, lsn, changes) in database.stream().await {
        for change in &changes {
            incremental.on_change(change);
            fold.apply(change);
            if let What::Message { prefix, content, .. } = &change.what
                && prefix == WATERMARK_PREFIX
            {
                let place = Place::Postgres { database: "db".into(), commit_lsn: lsn, txid: Some(xid) };
                let rows = incremental.on_watermark(content, change.position, &place).unwrap();
                rows.iter().for_each(|row| fold.apply(row));
                if !rows.is_empty() {
                    chunks.push(rows);
                }
            }
        }
        incremental.on_commit(xid);
    }
    // Begins the next chunk; a failure is a failure of the test.
    if let Ok(error) = tokio::time::timeout(Duration::from_millis(20), incremental.failure()).await {
        panic!("{error}");
    }
    chunks
}

fn random_writes(database: &Database, dice: &mut Dice) {
    let mut sql = String::new();
    for _ in 0..dice.roll(6) {
        let (table, key) = TABLES[dice.roll(2) as usize];
        let mut some_key = || key.replace('#', &(dice.roll(80) + 1).to_string());
        let (at, to) = (some_key(), some_key());
        sql += &match dice.roll(4) {
            0 => format!("INSERT INTO {table} VALUES ({at}, 'new') ON CONFLICT DO NOTHING;\n"),
            1 => format!("DELETE FROM {table} WHERE k = {at};\n"),
            2 => format!("UPDATE {table} SET v = v || '.' WHERE k = {at};\n"),
            _ => format!("UPDATE {table} SET k = {to} WHERE k = {at} AND NOT EXISTS (SELECT 1 FROM {table} WHERE k = {to});\n"),
        };
    }
    database.sql(&sql);
}

/// Pumps until there is nothing to do, with writes between.
async fn finish(database: &Database, incremental: &mut Incremental, fold: &mut Fold, dice: &mut Dice) -> Vec<Vec<Change>> {
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    let mut chunks = Vec::new();
    while incremental.is_active() {
        random_writes(database, dice);
        chunks.extend(pump(database, incremental, fold).await);
        assert!(tokio::time::Instant::now() < deadline, "the snapshot does not come forward: {:?}", incremental.notes());
    }
    chunks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_come_between_the_changes_and_never_bring_back_the_past() {
    let mut database = Database::new("incremental", sql());
    database.slot().await;
    // The consumer has nothing yet: only the snapshot brings what was not touched.
    let mut fold = Fold::partial();
    let mut reading = incremental(&database, 1, IncrementalNotes::default());
    reading.request(wanted(&["a", "b"])).unwrap();
    let mut dice = Dice(42);
    let chunks = finish(&database, &mut reading, &mut fold, &mut dice).await;
    assert!(chunks.len() >= 16, "{} chunks", chunks.len());
    assert!(chunks.iter().flatten().all(|c| c.op == Op::Read && c.origin.snapshot == Snapshot::Incremental));
    pump(&database, &mut reading, &mut fold).await;
    fold.assert_equals("a", database.rows("a", "k, v").await);
    fold.assert_equals("b", database.rows("b", "k, v").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_one_goes_on_from_its_last_chunk() {
    let mut database = Database::new("incremental_kills", sql());
    database.slot().await;
    let mut fold = Fold::partial();
    let mut dice = Dice(7);
    let mut notes = IncrementalNotes::default();
    let mut n_rows = 0;
    for run in 1..200 {
        // The notes as they come back from the disk.
        let stored = serde_json::to_string(&notes).unwrap();
        let mut reading = incremental(&database, run, serde_json::from_str(&stored).unwrap());
        if run == 1 {
            reading.request(wanted(&["a", "b"])).unwrap();
        }
        let deadline = tokio::time::Instant::now() + WAIT_MAX;
        let mut chunks = Vec::new();
        while reading.is_active() && chunks.len() < 2 {
            random_writes(&database, &mut dice);
            chunks.extend(pump(&database, &mut reading, &mut fold).await);
            assert!(tokio::time::Instant::now() < deadline);
        }
        n_rows += chunks.iter().map(Vec::len).sum::<usize>();
        notes = reading.notes().clone();
        if !reading.is_active() {
            assert!(run > 3, "it was killed between its chunks");
            pump(&database, &mut reading, &mut fold).await;
            fold.assert_equals("a", database.rows("a", "k, v").await);
            fold.assert_equals("b", database.rows("b", "k, v").await);
            assert!(n_rows <= 160, "rows were read again: {n_rows}");
            return;
        }
    }
    panic!("it was never finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_stopped_paused_and_asked_for_part_of_a_table() {
    let mut database = Database::new("incremental_words", sql());
    database.slot().await;
    let mut fold = Fold::partial();
    let mut reading = incremental(&database, 1, IncrementalNotes::default());
    reading.request(wanted(&["a", "b", "c"])).unwrap();
    reading.stop(&[("public".to_owned(), "a".to_owned())]);
    reading.pause(true);
    assert!(pump(&database, &mut reading, &mut fold).await.is_empty());
    assert_eq!(reading.notes().tables.len(), 2);
    reading.pause(false);
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    let mut n_rows = 0;
    // A table without a key is left out.
    while reading.is_active() {
        n_rows += pump(&database, &mut reading, &mut fold).await.iter().map(Vec::len).sum::<usize>();
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert_eq!((n_rows, fold.n_rows("a"), fold.n_rows("b")), (60, 0, 60));
    reading.request(vec![Wanted { filter: Some("k % 10 = 0".to_owned()), ..Wanted::table("public", "a") }]).unwrap();
    finish(&database, &mut reading, &mut Fold::partial(), &mut Dice(1)).await;
    reading.request(wanted(&["a"])).unwrap();
    reading.stop(&[]);
    assert!(!reading.is_active());
    assert!(reading.request((0..2_000).map(|i| Wanted::table("public", &format!("t{i}"))).collect()).unwrap_err().contains("1000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_between_the_marks_leaves_nothing_of_the_chunk() {
    let mut database = Database::new("incremental_truncate", sql());
    database.slot().await;
    let mut fold = Fold::partial();
    let mut reading = incremental(&database, 1, IncrementalNotes::default());
    reading.request(wanted(&["a"])).unwrap();
    let deadline = tokio::time::Instant::now() + WAIT_MAX;
    let mut n = 0;
    while reading.is_active() {
        n += 1;
        if n < 6 {
            database.sql(&format!("TRUNCATE a; INSERT INTO a SELECT i, 'after {n}' FROM generate_series(1, 20) i"));
        }
        pump(&database, &mut reading, &mut fold).await;
        assert!(tokio::time::Instant::now() < deadline);
    }
    pump(&database, &mut reading, &mut fold).await;
    fold.assert_equals("a", database.rows("a", "k, v").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_come_as_rows_and_as_messages() {
    let mut database =
        Database::new("signals", "CREATE TABLE signals (id varchar(42) PRIMARY KEY, type varchar(32) NOT NULL, data varchar(2048))");
    database.slot().await;
    let data = r#"{"data-collections": ["public.a"]}"#;
    database.sql(&format!(
        "INSERT INTO signals VALUES ('1', 'execute-snapshot', '{data}'), ('2', 'stop-snapshot', NULL); DELETE FROM signals;
         SELECT pg_logical_emit_message(true, '{SIGNAL_PREFIX}', '{{\"type\": \"execute-snapshot\", \"data\": {data}}}')"
    ));
    let mut signals = Vec::new();
    for change in database.stream().await.iter().flat_map(|(_, _, changes)| changes) {
        match &change.what {
            What::Message { prefix, content, .. } if prefix == SIGNAL_PREFIX => signals.push(Signal::of_message(content).unwrap()),
            _ => signals.extend(Signal::of_change(change).map(Result::unwrap)),
        }
    }
    let execute = Signal::Execute(vec![("public.a".to_owned(), None)]);
    assert_eq!(signals, [execute.clone(), Signal::Stop(vec![]), execute]);
}
