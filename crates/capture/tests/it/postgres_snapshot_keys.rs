//! Keys of any type that a unique index can have, each paged in the order of its own index.

use crate::postgres_snapshot_support::*;
use mulgil_capture::change::Row;
use mulgil_capture::postgres::snapshot::Wanted;
use mulgil_capture::postgres::snapshot::incremental::{Incremental, IncrementalNotes};
use mulgil_capture::postgres::snapshot::reader::Pinned;

/// A table's name, its columns, what to put in for `i` of 1 to 90; more statements.
const TABLES: [(&str, &str, &str); 14] = [
    ("citext_key", "k ext.citext PRIMARY KEY", "(CASE i % 2 WHEN 0 THEN 'key ' ELSE 'KEY ' END) || i"),
    ("domain_of_citext", "k shown PRIMARY KEY", "'Key' || i"),
    ("domain_of_array", "k trail PRIMARY KEY", "ARRAY[i % 5, i]"),
    (
        "enums",
        "a mood, b mood, c int, PRIMARY KEY (a, b, c)",
        "(enum_range(null::mood))[1 + i % 3], (enum_range(null::mood))[1 + i % 2], i",
    ),
    ("ints", "k int[] PRIMARY KEY", "CASE i WHEN 7 THEN '{}' ELSE ARRAY[i % 4, i] END"),
    ("texts", "k text[] PRIMARY KEY", "ARRAY['a\"', '', 'null', 'x,' || i, NULL]"),
    ("moods", "k mood[] PRIMARY KEY", "(SELECT array_agg((enum_range(null::mood))[1 + ((i >> b) & 1)]) FROM generate_series(0, 6) b)"),
    ("dates", "k date[] PRIMARY KEY", "ARRAY['2024-01-01'::date + i, '0044-03-15 BC'::date]"),
    ("rows_of_two", "k pair PRIMARY KEY", "ROW(i % 3, 'it''s (' || i || ')')::pair"),
    ("trees", "k ext.ltree PRIMARY KEY", "('a.b' || i % 7 || '.c' || i)::ext.ltree"),
    ("stores", "k ext.hstore PRIMARY KEY", "ext.hstore('a', i::text)"),
    (
        "mixed",
        "a ext.citext, b int[], c bigint, d public.price, PRIMARY KEY (a, b, c, d)",
        "CASE i % 3 WHEN 0 THEN 'x' ELSE 'Y' END, ARRAY[i % 2], i, i / 10.0",
    ),
    ("no_case", "k text COLLATE no_case PRIMARY KEY", "(CASE i % 2 WHEN 0 THEN 'a' ELSE 'B' END) || i"),
    ("german", "k text COLLATE german PRIMARY KEY", "(ARRAY['ä', 'a', 'z', 'Ä', 'ß', 'ss', 'o', 'ö'])[1 + i % 8] || i"),
];

/// Here the index tells rows apart that its column's own order does not: paged by that, all but one of them would be stepped over.
const FINER: &str = "
    CREATE TABLE finer_collation (k text COLLATE no_case NOT NULL, n int); CREATE UNIQUE INDEX ON finer_collation (k COLLATE \"C\");
    INSERT INTO finer_collation SELECT (ARRAY['a', 'A'])[1 + i % 2] || i / 2, i FROM generate_series(2, 91) i;
    CREATE TABLE finer_class (k ext.citext NOT NULL, n int); CREATE UNIQUE INDEX ON finer_class (k text_pattern_ops);
    INSERT INTO finer_class SELECT ((ARRAY['a', 'A'])[1 + i % 2] || i / 2)::ext.citext, i FROM generate_series(2, 91) i;
    CREATE TABLE finer_pair (a text COLLATE no_case NOT NULL, b text NOT NULL, n int); CREATE UNIQUE INDEX ON finer_pair (a COLLATE \"C\", b DESC);
    INSERT INTO finer_pair SELECT (ARRAY['a', 'A', 'b'])[1 + i % 3], i::text, i FROM generate_series(1, 90) i;
    ALTER TABLE finer_collation REPLICA IDENTITY FULL; ALTER TABLE finer_class REPLICA IDENTITY FULL; ALTER TABLE finer_pair REPLICA IDENTITY FULL;";

fn setup() -> String {
    let mut sql =
        "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext;
        CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE COLLATION german (provider = icu, locale = 'de-u-co-phonebk');
        CREATE TYPE mood AS ENUM ('sad', 'a, \"b\"', 'happy'); CREATE TYPE pair AS (n int, t text);
        CREATE DOMAIN shown AS ext.citext CHECK (VALUE <> ''); CREATE DOMAIN trail AS int[]; CREATE DOMAIN price AS numeric(12,2);\n"
            .to_owned();
    for (name, columns, values) in TABLES {
        sql += &format!(
            "SET search_path = public, ext; CREATE TABLE {name} ({columns}, n int); INSERT INTO {name} SELECT {values}, i FROM generate_series(1, 90) i;\n"
        );
    }
    sql + FINER + " ANALYZE;"
}

fn names() -> Vec<&'static str> {
    TABLES.iter().map(|t| t.0).chain(["finer_collation", "finer_class", "finer_pair"]).collect()
}

/// The columns of a table, as a list.
fn columns(database: &Database, table: &str) -> String {
    database.sql(&format!(
        "SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'public.{table}'::regclass AND attnum > 0 AND NOT attisdropped"
    ))
}

async fn expected(database: &Database, table: &str) -> Vec<Row> {
    let columns = columns(database, table);
    database.rows(table, &columns).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_unique_index_pages_its_table() {
    let mut database = Database::new("keys_of_all_types", &setup());
    let pinned = database.slot().await;
    let batches = read_all(database.task(&names(), pinned)).await.unwrap();
    let mut fold = Fold::default();
    batches.iter().for_each(|b| fold.batch(b));
    let notes = notes_of(batches.last().unwrap());
    for table in &notes.tables {
        assert!(!table.key.is_empty() && table.spans.len() >= 2, "{}: {} ranges by {:?}", table.name, table.spans.len(), table.key);
        assert_eq!(table.n_rows, 90, "{}", table.name);
        fold.assert_equals(&table.name, expected(&database, &table.name).await);
    }
}

/// Killed behind every batch and written to meanwhile: changes are sorted into the ranges that were read before and after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_costs_no_row_of_any_key() {
    let mut database = Database::new("keys_and_kills", &setup());
    let mut pinned = database.slot().await;
    let (mut fold, mut notes, mut n_kills) = (Fold::default(), None, 0);
    fold.is_unordered = true;
    loop {
        let mut task = database.task(&names(), std::mem::replace(&mut pinned, Pinned::Now));
        task.notes = notes.take();
        let mut reader = mulgil_capture::postgres::snapshot::reader::SnapshotReader::open(task).await.unwrap();
        let mut is_finished = true;
        for _ in 0..24 {
            let Some(batch) = reader.next().await.unwrap() else { break };
            batch.changes.iter().for_each(|c| fold.apply(c));
            notes = Some(notes_of(&batch));
            is_finished = notes.as_ref().unwrap().is_complete;
        }
        if is_finished && notes.as_ref().unwrap().is_complete {
            break;
        }
        n_kills += 1;
        let write =
            |table| format!("UPDATE {table} SET n = n + 1000 WHERE n % 11 = {}; DELETE FROM {table} WHERE n = {n_kills};\n", n_kills % 11);
        database.sql(&names().into_iter().map(write).collect::<String>());
    }
    assert!(n_kills >= 3, "{n_kills}");
    stream_behind(&database, notes.as_ref().unwrap(), &mut fold).await;
    for table in names() {
        fold.assert_equals(table, expected(&database, table).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_snapshot_goes_on_behind_any_key() {
    let mut database = Database::new("keys_incremental", &setup());
    database.slot().await;
    let mut reading = Incremental::new(database.address.clone(), settings(), shapes(), 1, IncrementalNotes::default());
    reading.request(names().iter().map(|t| Wanted::table("public", t)).collect()).unwrap();
    let mut fold = Fold::partial();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
    while reading.is_active() {
        crate::postgres_snapshot_incremental::pump(&database, &mut reading, &mut fold).await;
        assert!(tokio::time::Instant::now() < deadline, "{:?}", reading.notes());
    }
    for table in names() {
        fold.assert_equals(table, expected(&database, table).await);
    }
}
