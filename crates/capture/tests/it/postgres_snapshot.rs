//! Snapshots of a real server, undisturbed.

use crate::postgres_snapshot_support::*;
use mulgil_capture::change::{Batch, Op, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::postgres::catalog::{Catalog, ReplicaIdentity, Selection, Server, Shape, roots};
use mulgil_capture::postgres::snapshot::reader::{Pinned, SnapshotReader};
use mulgil_capture::postgres::snapshot::{SnapshotSettings, Wanted, connect};
use mulgil_capture::source::{SourceError, SourceErrorKind};
use mulgil_model::position::Position;

fn rows_of(batches: &[Batch]) -> usize {
    batches.iter().map(|b| b.changes.len()).sum()
}

/// Every batch has a place above the last, every row too, the very last chunk is marked, and the notes say that all is done.
fn check_order(batches: &[Batch]) {
    let mut last = Position::default();
    let with_rows = batches.iter().filter(|b| b.changes.iter().any(|c| c.op == Op::Read)).count();
    let mut n = 0;
    for batch in batches {
        for change in &batch.changes {
            assert!(change.position > last);
            last = change.position;
        }
        assert!(batch.resume.position > last || (batch.resume.position == last && !batch.changes.is_empty()));
        last = batch.resume.position;
        if let Some(change) = batch.changes.iter().find(|c| c.op == Op::Read) {
            n += 1;
            let expected = if n == with_rows { Snapshot::Last } else { Snapshot::Initial };
            assert_eq!(change.origin.snapshot, expected, "chunk {n} of {with_rows}");
        }
    }
    let complete: Vec<bool> = batches.iter().map(|b| notes_of(b).is_complete).collect();
    assert_eq!(complete.iter().filter(|c| **c).count(), 1);
    assert_eq!(complete.last(), Some(&true));
}

async fn check(database: &Database, tables: &[&str], task: mulgil_capture::postgres::snapshot::reader::SnapshotTask) -> Vec<Batch> {
    let batches = read_all(task).await.unwrap();
    check_order(&batches);
    let mut fold = Fold::default();
    batches.iter().for_each(|b| fold.batch(b));
    for table in tables {
        let columns = database.sql(&format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
             WHERE attrelid = 'public.\"{table}\"'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        ));
        fold.assert_equals(table, database.rows(table, &columns).await);
    }
    batches
}

/// A column's type, how its n-th value is made from `i`, and how often it may repeat.
const KEYS: [(&str, &str); 20] = [
    ("int", "i - 100"),
    ("bigint", "i * 4611686018427387 - 230584300921369395"),
    ("smallint", "i"),
    ("numeric", "CASE i WHEN 3 THEN 'NaN' WHEN 4 THEN 'Infinity' ELSE ((i - 100) / 7.0)::text END::numeric"),
    ("numeric(20,5)", "i * -1.00001"),
    ("text", "chr(65 + i % 57) || E'\\\\ \\t'''  || i"),
    ("text COLLATE \"und-x-icu\"", "CASE i % 2 WHEN 0 THEN upper(md5(i::text)) ELSE md5(i::text) || 'ä' END"),
    ("varchar(40) COLLATE \"C\"", "md5(i::text)"),
    ("char(8)", "'k' || i"),
    ("uuid", "md5(i::text)::uuid"),
    ("date", "'1969-12-01'::date + i"),
    ("time", "CASE i WHEN 5 THEN '24:00:00' ELSE '00:00:00.000001'::time + i * '1 second'::interval END"),
    ("timestamp", "CASE i WHEN 5 THEN 'infinity' ELSE '1969-12-31 23:59:00'::timestamp + i * '0.000001 second'::interval END"),
    ("timestamptz", "CASE i WHEN 5 THEN '-infinity' ELSE '1969-12-31 23:00:00+00'::timestamptz + i * '1 minute'::interval END"),
    ("double precision", "CASE i WHEN 3 THEN 'NaN' WHEN 4 THEN '-Infinity' ELSE 1.0 / i END"),
    ("real", "CASE i WHEN 3 THEN 'NaN' ELSE 1.0 / i END"),
    ("bytea", "decode(md5(i::text), 'hex')"),
    ("inet", "('10.0.0.0'::inet + i)"),
    ("public.price", "i / 100.0"),
    ("interval", "i * '1 hour'::interval"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_read_by_keys_of_every_type() {
    let tables: Vec<String> = (0..KEYS.len()).map(|n| format!("t{n}")).collect();
    let mut sql = "CREATE DOMAIN public.price AS numeric(12,2) CHECK (VALUE > 0);\n".to_owned();
    for (table, (kind, value)) in tables.iter().zip(KEYS) {
        sql += &format!(
            "CREATE TABLE {table} (v text, k {kind} PRIMARY KEY); INSERT INTO {table} SELECT 'v' || i, {value} FROM generate_series(1, 120) i;\n"
        );
    }
    sql += "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
        CREATE TABLE composite (b text, a mood, c int, PRIMARY KEY (a, b DESC)) ;
        INSERT INTO composite SELECT (i % 60)::text, (enum_range(null::mood))[1 + i % 3], i FROM generate_series(1, 60) i;
        ANALYZE;";
    let sql = sql.replace(", PRIMARY KEY (a, b DESC)", ", PRIMARY KEY (a, b)");
    let mut database = Database::new("every_key", &sql);
    let mut names: Vec<&str> = tables.iter().map(String::as_str).collect();
    names.push("composite");
    let pinned = database.slot().await;
    // What is committed behind the slot is none of the snapshot's.
    let task = database.task(&names, pinned);
    let batches = check(&database, &names, task).await;
    let spans: Vec<usize> = notes_of(batches.last().unwrap()).tables.iter().map(|t| t.spans.len()).collect();
    assert!(spans.iter().all(|n| *n >= 1) && spans.iter().filter(|n| **n >= 2).count() >= KEYS.len(), "several ranges each: {spans:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_shows_the_slots_moment() {
    let mut database =
        Database::new("moment", "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 50) i");
    let pinned = database.slot().await;
    database.sql("UPDATE t SET v = 1; INSERT INTO t VALUES (51, 1); DELETE FROM t WHERE id <= 5");
    let mut fold = Fold::default();
    let batches = read_all(database.task(&["t"], pinned)).await.unwrap();
    batches.iter().for_each(|b| fold.batch(b));
    assert_eq!((rows_of(&batches), fold.n_rows("t")), (50, 50));
    let all_old =
        batches.iter().flat_map(|b| &b.changes).all(|c| matches!(&c.what, What::Row { after: Some(row), .. } if row[1] == Datum::Int(0)));
    assert!(all_old);
    stream_behind(&database, &notes_of(batches.last().unwrap()), &mut fold).await;
    fold.assert_equals("t", database.rows("t", "id, v").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_tables_are_read_too() {
    let mut database = Database::new(
        "odd_tables",
        "CREATE TABLE empty (id int PRIMARY KEY);
         CREATE TABLE empty_without_key (v text);
         CREATE TABLE without_key (v text, n int);
         INSERT INTO without_key SELECT repeat('x', 500), i % 3 FROM generate_series(1, 200) i;
         CREATE TABLE \"Order \"\" Items\" (\"Id\" int, \"select\" text, PRIMARY KEY (\"Id\", \"select\"));
         INSERT INTO \"Order \"\" Items\" SELECT i, 'a''b' FROM generate_series(1, 20) i;
         CREATE TABLE generated (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED);
         INSERT INTO generated SELECT i, i FROM generate_series(1, 10) i;
         CREATE TABLE parts (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
         CREATE TABLE parts_2 (v text, at date NOT NULL, gone int, id int NOT NULL);
         ALTER TABLE parts_2 DROP COLUMN gone;
         ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
         INSERT INTO parts SELECT i, '2024-01-01'::date + i, 'v' || i FROM generate_series(0, 59) i;
         CREATE TABLE parts_without_key (at date, v text) PARTITION BY RANGE (at);
         CREATE TABLE parts_without_key_1 PARTITION OF parts_without_key DEFAULT;
         INSERT INTO parts_without_key SELECT '2024-01-01', 'v' || i FROM generate_series(0, 9) i;
         CREATE TABLE dropped_column (a int, b int, id int UNIQUE NOT NULL);
         ALTER TABLE dropped_column DROP COLUMN a;
         INSERT INTO dropped_column SELECT i, i FROM generate_series(1, 10) i;
         CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child () INHERITS (parent);
         INSERT INTO parent VALUES (1, 'parent'); INSERT INTO child VALUES (2, 'child');
         ANALYZE;",
    );
    let names = ["empty", "empty_without_key", "without_key", "generated", "parts", "parts_without_key", "dropped_column"];
    let pinned = database.slot().await;
    let mut task = database.task(&names, pinned);
    for name in ["Order \" Items", "parent", "not there"] {
        task.tables.push(Wanted::table("public", name));
    }
    let batches = check(&database, &names, task).await;
    let mut fold = Fold::default();
    batches.iter().for_each(|b| fold.batch(b));
    assert_eq!((fold.n_rows("Order \" Items"), fold.n_rows("parent"), fold.n_rows("not there")), (20, 1, 0));
    let reader_notes = notes_of(batches.last().unwrap());
    let skipped: Vec<&str> = reader_notes.tables.iter().filter(|t| !t.is_done()).map(|t| t.name.as_str()).collect();
    assert_eq!(skipped, ["not there"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_tables_take_one_plan() {
    let database = Database::new(
        "many_tables",
        "SELECT format('CREATE TABLE t%s (id int PRIMARY KEY, v text); INSERT INTO t%s VALUES (1, ''a''), (2, ''b'')', i, i) FROM generate_series(1, 500) i \\gexec",
    );
    let names: Vec<String> = (1..=500).map(|i| format!("t{i}")).collect();
    let mut task = database.task(&names.iter().map(String::as_str).collect::<Vec<_>>(), Pinned::Now);
    task.settings.connections = 2;
    let batches = read_all(task).await.unwrap();
    check_order(&batches);
    assert_eq!(rows_of(&batches), 1_000);
    assert!(notes_of(batches.last().unwrap()).tables.iter().all(|t| t.is_done() && t.n_rows == 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_tables_and_large_rows_come_whole() {
    let columns: Vec<String> = (1..=200).map(|i| format!("c{i} {}", ["int", "text", "numeric", "boolean", "timestamptz"][i % 5])).collect();
    let values: Vec<&str> =
        (1..=200).map(|i| ["i", "'t' || i", "i / 3.0", "i % 2 = 0", "'2024-01-01'::timestamptz + i * '1 s'::interval"][i % 5]).collect();
    let database = Database::new(
        "wide",
        &format!(
            "CREATE TABLE wide (id int PRIMARY KEY, {}); INSERT INTO wide SELECT i, {} FROM generate_series(1, 40) i;
             CREATE TABLE large (id int PRIMARY KEY, v text);
             INSERT INTO large SELECT i, repeat('x', CASE i WHEN 5 THEN 64 << 20 ELSE 10 END) FROM generate_series(1, 9) i;",
            columns.join(", "),
            values.join(", ")
        ),
    );
    let task = database.task(&["wide", "large"], Pinned::Now);
    let chunk_bytes = task.settings.chunk_bytes;
    let batches = read_all(task).await.unwrap();
    check_order(&batches);
    let mut fold = Fold::default();
    let sizes = batches.iter().map(|b| {
        b.changes
            .iter()
            .map(|c| match &c.what {
                What::Row { after: Some(row), .. } => row.iter().map(Datum::heap_bytes).sum(),
                _ => 0usize,
            })
            .collect::<Vec<_>>()
    });
    let sizes: Vec<Vec<usize>> = sizes.collect();
    batches.iter().for_each(|b| fold.batch(b));
    let all: Vec<String> = (1..=200).map(|i| format!("c{i}")).collect();
    fold.assert_equals("wide", database.rows("wide", &format!("id, {}", all.join(", "))).await);
    let largest = sizes.iter().flatten().max().unwrap();
    assert_eq!(*largest, 64 << 20);
    // The large row ends its chunk.
    let chunk = sizes.iter().find(|rows| rows.contains(largest)).unwrap();
    assert_eq!(chunk.last(), Some(largest));
    assert!(chunk.iter().sum::<usize>() - largest < chunk_bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_and_rows_that_are_not_published_stay_away() {
    let database = Database::new(
        "partly",
        "CREATE TABLE t (id int PRIMARY KEY, secret text, v int); INSERT INTO t SELECT i, 's', i FROM generate_series(1, 30) i",
    );
    let mut task = database.task(&[], Pinned::Now);
    let columns = Some(vec!["v".to_owned(), "id".to_owned()]);
    task.tables.push(Wanted { schema: "public".to_owned(), name: "t".to_owned(), columns, filter: Some("v % 2 = 0 OR v = 1".to_owned()) });
    let batches = read_all(task).await.unwrap();
    let mut fold = Fold::default();
    batches.iter().for_each(|b| fold.batch(b));
    let expected = (1..=30).filter(|v| v % 2 == 0 || *v == 1).map(|v| vec![Datum::Int(v), Datum::Int(v)]).collect();
    fold.assert_equals("t", expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_says_which_grant_is_missing() {
    let database = Database::new(
        "grants",
        "CREATE TABLE closed (id int PRIMARY KEY); CREATE TABLE policed (id int PRIMARY KEY); ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
         INSERT INTO policed VALUES (1); CREATE ROLE reader LOGIN PASSWORD 'x'; GRANT SELECT ON policed TO reader;
         CREATE POLICY few ON policed USING (id > 5);",
    );
    for table in ["closed", "policed"] {
        let mut task = database.task(&[table], Pinned::Now);
        task.address = server().url_as("reader", "x", "grants").parse().unwrap();
        let error = SourceError::from(read_all(task).await.unwrap_err());
        assert_eq!(error.kind, SourceErrorKind::Config, "{error}");
        assert!(error.message.contains(&format!("GRANT SELECT ON public.{table}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_counts_rows_and_chunks() {
    let database = Database::new(
        "progress",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100); CREATE TABLE u (id int PRIMARY KEY); ANALYZE",
    );
    let mut reader = SnapshotReader::open(database.task(&["t", "u", "v"], Pinned::Now)).await.unwrap();
    let begun = reader.progress();
    assert_eq!((begun.n_tables, begun.n_tables_done, begun.n_rows, begun.n_rows_estimated), (3, 0, 0, Some(100)));
    assert_eq!(begun.skipped, [("public.v".to_owned(), "does not exist".to_owned())]);
    while reader.next().await.unwrap().is_some() {
        let progress = reader.progress();
        assert!(progress.n_rows <= progress.n_rows_estimated.unwrap() && progress.n_chunks <= progress.n_chunks_estimated);
    }
    let done = reader.progress();
    assert_eq!((done.n_tables_done, done.n_rows, done.n_rows_estimated), (2, 100, Some(100)));
    assert_eq!((done.n_chunks, done.n_chunks_estimated), (done.n_chunks_estimated, done.n_chunks));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalog_is_read_as_it_is() {
    let database = Database::new(
        "catalog",
        "CREATE TYPE mood AS ENUM ('sad', 'a, \"b\"'); CREATE DOMAIN money2 AS numeric(12,2); CREATE DOMAIN money3 AS money2;
         CREATE TABLE t (b int NOT NULL, a int NOT NULL, m mood[], d money3, v varchar(7) COLLATE \"C\", g int GENERATED ALWAYS AS (a) STORED, PRIMARY KEY (a, b));
         CREATE TABLE i (x int, e text NOT NULL); CREATE UNIQUE INDEX i_e ON i (e); CREATE UNIQUE INDEX ON i (x); CREATE UNIQUE INDEX ON i (lower(e));
         ALTER TABLE i REPLICA IDENTITY USING INDEX i_e;
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
         CREATE TABLE p11 PARTITION OF p1 DEFAULT; CREATE VIEW w AS SELECT 1 AS one; ALTER TABLE p REPLICA IDENTITY FULL;",
    );
    let mut connection = connect(&database.address).await.unwrap();
    let server = Server::read(&mut connection).await.unwrap();
    assert!(
        server.version >= 140_000
            && server.system_identifier > 0
            && server.wal_lsn > 0
            && !server.is_in_recovery
            && !server.has_timescaledb
    );
    assert_eq!((&*server.database, server.settings["wal_level"].as_str()), ("catalog", "logical"));

    let catalog = Catalog::read(&mut connection, &Selection::All).await.unwrap();
    let names: Vec<&str> = catalog.relations.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["i", "p", "t"]);
    let t = catalog.relation("public", "t").unwrap();
    let native: Vec<&str> = t.columns.iter().map(|c| &*c.native).collect();
    assert_eq!(native, ["integer", "integer", "public.mood[]", "public.money3", "character varying(7)", "integer"]);
    assert_eq!(t.columns[4].collation.as_deref(), Some("pg_catalog.\"C\""));
    assert_eq!((t.primary_key().unwrap().columns.as_slice(), t.columns[5].is_generated), ([2, 1].as_slice(), true));
    let numeric = catalog.types.base(t.columns[3].type_oid, t.columns[3].typmod);
    assert_eq!(numeric, (1700, (12 << 16 | 2) + 4));
    let i = catalog.relation("public", "i").unwrap();
    assert_eq!((i.replica_identity, i.keys.len(), i.identity().unwrap().columns.as_slice()), (ReplicaIdentity::Index, 1, [2].as_slice()));
    let p = catalog.relation("public", "p").unwrap();
    assert_eq!((p.shape, p.replica_identity, p.leaves.len(), &*p.leaves[0].name), (Shape::Partitioned, ReplicaIdentity::Full, 1, "p11"));
    let parts = Catalog::read(&mut connection, &Selection::Names(vec![("public".into(), "p11".into()), ("public".into(), "w".into())]))
        .await
        .unwrap();
    assert_eq!(
        parts.relations.iter().map(|r| (r.root, r.shape)).collect::<Vec<_>>(),
        [(Some(p.oid), Shape::Ordinary), (None, Shape::Other)]
    );
    assert_eq!(roots(&mut connection).await.unwrap().get(&parts.relations[0].oid), Some(&p.oid));
}

/// TimescaleDB's catalog and chunks, laid out like its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hypertable_is_read_through_its_root() {
    let database = Database::new(
        "hypertable",
        "CREATE SCHEMA _timescaledb_catalog; CREATE SCHEMA _timescaledb_internal;
         CREATE TABLE _timescaledb_catalog.hypertable (id int PRIMARY KEY, schema_name name, table_name name);
         CREATE TABLE _timescaledb_catalog.chunk (id int PRIMARY KEY, hypertable_id int, schema_name name, table_name name, dropped bool);
         CREATE TABLE ticks (at timestamptz NOT NULL, price numeric); CREATE TABLE keyed (at timestamptz PRIMARY KEY, price numeric);
         INSERT INTO _timescaledb_catalog.hypertable VALUES (1, 'public', 'ticks'), (2, 'public', 'keyed');
         CREATE TABLE _timescaledb_internal._hyper_1_1_chunk () INHERITS (public.ticks);
         CREATE TABLE _timescaledb_internal._hyper_1_2_chunk () INHERITS (public.ticks);
         CREATE TABLE _timescaledb_internal._hyper_2_3_chunk (PRIMARY KEY (at)) INHERITS (public.keyed);
         INSERT INTO _timescaledb_catalog.chunk VALUES (1, 1, '_timescaledb_internal', '_hyper_1_1_chunk', false),
             (2, 1, '_timescaledb_internal', '_hyper_1_2_chunk', false), (3, 2, '_timescaledb_internal', '_hyper_2_3_chunk', false);
         INSERT INTO _timescaledb_internal._hyper_1_1_chunk SELECT '2024-01-01', i FROM generate_series(1, 30) i;
         INSERT INTO _timescaledb_internal._hyper_1_2_chunk SELECT '2024-01-02', i FROM generate_series(1, 30) i;
         INSERT INTO _timescaledb_internal._hyper_2_3_chunk SELECT '2024-01-02'::timestamptz + i * '1 s'::interval, i FROM generate_series(1, 30) i;",
    );
    let batches = check(&database, &["ticks", "keyed"], database.task(&["ticks", "keyed"], Pinned::Now)).await;
    assert_eq!(rows_of(&batches), 90);
    let mut connection = connect(&database.address).await.unwrap();
    let catalog = Catalog::read(&mut connection, &Selection::All).await.unwrap();
    let shapes: Vec<_> = catalog.relations.iter().map(|r| (&*r.name, r.shape, r.leaves.len())).collect();
    assert_eq!(shapes, [("keyed", Shape::Hypertable, 2), ("ticks", Shape::Hypertable, 3)]);
    let ticks = catalog.relation("public", "ticks").unwrap();
    let found = roots(&mut connection).await.unwrap();
    assert_eq!(found.values().filter(|root| **root == ticks.oid).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_found_where_there_is_no_primary_key() {
    let database = Database::new(
        "keys",
        "CREATE TABLE a (v text, id int NOT NULL UNIQUE); INSERT INTO a SELECT 'v', i FROM generate_series(1, 30) i;
         CREATE TABLE b (id int UNIQUE); INSERT INTO b VALUES (1), (null), (null);
         CREATE TABLE c (id int, e text NOT NULL); CREATE UNIQUE INDEX ON c (lower(e)); CREATE UNIQUE INDEX ON c (e) WHERE id > 3;
         CREATE TABLE d (id int UNIQUE DEFERRABLE NOT NULL);",
    );
    let task = database.task(&["a", "b", "c", "d"], Pinned::Now);
    let batches = read_all(task).await.unwrap();
    let keys: Vec<usize> = notes_of(batches.last().unwrap()).tables.iter().map(|t| t.key.len()).collect();
    assert_eq!((keys, rows_of(&batches)), (vec![1, 0, 0, 0], 33));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_connections_than_wished_are_enough() {
    let database = Database::new(
        "few_connections",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 300); ANALYZE; CREATE ROLE few LOGIN CONNECTION LIMIT 4; GRANT SELECT ON t TO few",
    );
    let mut task = database.task(&["t"], Pinned::Now);
    task.address = server().url_as("few", "", "few_connections").parse().unwrap();
    task.settings = SnapshotSettings { connections: 16, ..settings() };
    assert_eq!(rows_of(&read_all(task).await.unwrap()), 300);
}

/// A table whose rows are wanted in order gives them in the order of its key, though others are read at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_wanted_in_order_is_read_range_by_range() {
    let database = Database::new(
        "in_order",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 500);
         CREATE TABLE heap (id int); INSERT INTO heap SELECT generate_series(1, 1000);
         CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other SELECT generate_series(1, 500); ANALYZE",
    );
    let mut task = database.task(&["t", "heap", "other"], Pinned::Now);
    task.settings.in_order = ["public.t", "public.heap"].map(str::to_owned).into();
    let batches = check(&database, &["t", "heap", "other"], task).await;
    assert!(notes_of(batches.last().unwrap()).tables[0].spans.len() > 5, "several ranges");
    for (table, n) in [("t", 500), ("heap", 1000)] {
        let id = |what: &What| match what {
            What::Row { table: of, after: Some(row), .. } if &*of.id.table == table => Some(row[0].clone()),
            _ => None,
        };
        let ids: Vec<_> = batches.iter().flat_map(|b| &b.changes).filter_map(|c| id(&c.what)).collect();
        assert_eq!(ids, (1..=n).map(Datum::Int).collect::<Vec<_>>(), "{table}");
    }
}
