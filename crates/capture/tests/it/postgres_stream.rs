//! PostgreSQL's change stream against a real server.

use crate::postgres_stream_kit::{Capture, SERVER, database, emit, fold, show, show_all, table};
use mulgil_capture::change::{Place, What};
use mulgil_capture::source::SourceErrorKind;
use mulgil_capture::table::Kind;

/// A database with tables, and a source that streams from it.
fn begun(name: &str, setup: &str, tables: &[&str]) -> (String, Capture) {
    let db = database(name);
    SERVER.sql_in(&db, setup).unwrap();
    let mut capture = Capture::new(&SERVER, &db, tables);
    capture.open().unwrap();
    (db, capture)
}

fn check(capture: &mut Capture, db: &str, sql: &str, expected: &str) {
    let found = show_all(&capture.after(&SERVER, db, sql));
    let expected: String = expected.lines().map(|l| l.trim().to_owned() + "\n").filter(|l| l != "\n").collect();
    assert_eq!(found, expected, "{sql}");
}

#[test]
fn rows_change() {
    let (db, mut c) = begun("rows", "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int)", &["public.t"]);
    check(
        &mut c,
        &db,
        "INSERT INTO t VALUES (1,'a'),(2,NULL);
         INSERT INTO other VALUES (1);
         UPDATE t SET v = 'b' WHERE id = 1;
         UPDATE t SET id = 3 WHERE id = 1;
         DELETE FROM t WHERE id = 2;
         SELECT pg_logical_emit_message(true, 'app', 'x'), pg_logical_emit_message(false, 'app', 'y')",
        "c public.t 1|a
         c public.t 2|∅
         u public.t 1|b
         u public.t [1|…] 3|b
         d public.t [2|…]
         m app y false
         m app x true",
    );
    let message_lsns: Vec<u64> = c.changes.iter().map(|c| c.position.commit).collect();
    assert!(message_lsns.is_sorted());
}

#[test]
fn replica_identities_say_what_a_change_carries() {
    let (db, mut c) = begun(
        "identities",
        "CREATE TABLE f (id int PRIMARY KEY, v text, w text); ALTER TABLE f REPLICA IDENTITY FULL;
         CREATE TABLE i (id int PRIMARY KEY, code text NOT NULL UNIQUE, v text); ALTER TABLE i REPLICA IDENTITY USING INDEX i_code_key;
         CREATE TABLE n (id int PRIMARY KEY, v text); ALTER TABLE n REPLICA IDENTITY NOTHING;
         CREATE TABLE k (v text); ALTER TABLE k REPLICA IDENTITY FULL",
        &["public.f", "public.i", "public.n", "public.k"],
    );
    check(
        &mut c,
        &db,
        "INSERT INTO f VALUES (1,'a',NULL); UPDATE f SET v = 'b'; DELETE FROM f;
         INSERT INTO i VALUES (1,'x','a'); UPDATE i SET v = 'b'; UPDATE i SET code = 'y'; DELETE FROM i;
         INSERT INTO n VALUES (1,'a');
         INSERT INTO k VALUES ('a'); UPDATE k SET v = 'b'",
        "c public.f 1|a|∅
         u public.f [1|a|∅] 1|b|∅
         d public.f [1|b|∅]
         c public.i 1|x|a
         u public.i 1|x|b
         u public.i […|x|…] 1|y|b
         d public.i […|y|…]
         c public.n 1|a
         c public.k a
         u public.k [a] b",
    );
    let key = |name: &str| {
        let change = c.changes.iter().find(|c| c.what.table().is_some_and(|t| &*t.table == name)).unwrap();
        let What::Row { table, .. } = &change.what else { panic!() };
        table.key().map(|k| table.columns[k].name.to_string()).collect::<Vec<_>>().join(",")
    };
    assert_eq!([key("f"), key("i"), key("n"), key("k")], ["id", "code", "id", ""]);
}

#[test]
fn unchanged_toast_is_neither_null_nor_lost() {
    let big = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) n)";
    let (db, mut c) = begun(
        "toast",
        "CREATE TABLE d (id int PRIMARY KEY, n int, big text); ALTER TABLE d ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE f (id int PRIMARY KEY, n int, big text); ALTER TABLE f ALTER big SET STORAGE EXTERNAL; ALTER TABLE f REPLICA IDENTITY FULL",
        &["public.d", "public.f"],
    );
    let sql = format!("INSERT INTO d VALUES (1, 1, {big}); UPDATE d SET n = 2; INSERT INTO f VALUES (1, 1, {big}); UPDATE f SET n = 2");
    let changes = c.after(&SERVER, &db, &sql);
    let value = |at: usize| match &changes[at].what {
        What::Row { after: Some(row), .. } => show(&row[2]),
        other => panic!("{other:?}"),
    };
    assert_eq!(value(0).len(), 9_600);
    assert_eq!([value(1), value(3)], ["…".to_owned(), value(0)]);
}

#[test]
fn truncates_and_ddl_in_the_middle() {
    let (db, mut c) = begun(
        "ddl",
        "CREATE TABLE t (id serial PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY REFERENCES t)",
        &["public.t", "public.u"],
    );
    check(
        &mut c,
        &db,
        "INSERT INTO t (v) VALUES ('a');
         BEGIN; ALTER TABLE t ADD n numeric(10,2) DEFAULT 1.5; INSERT INTO t (v) VALUES ('b'); ALTER TABLE t DROP COLUMN v; INSERT INTO t (n) VALUES (2); COMMIT;
         ALTER TABLE t RENAME n TO amount; ALTER TABLE t ALTER amount TYPE text;
         INSERT INTO t (amount) VALUES ('x');
         TRUNCATE t RESTART IDENTITY CASCADE;
         INSERT INTO t (amount) VALUES ('y')",
        "c public.t 1|a
         c public.t 2|b|1.50
         c public.t 3|2.00
         c public.t 4|x
         t public.t true true
         t public.u true true
         c public.t 1|y",
    );
    let versions: Vec<(u32, usize)> = c
        .changes
        .iter()
        .filter_map(|c| match &c.what {
            What::Row { table, .. } => Some((table.version, table.columns.len())),
            _ => None,
        })
        .collect();
    assert_eq!(versions, [(1, 2), (2, 3), (3, 2), (4, 2), (4, 2)]);
    // Dropped, made again with other columns under the same name. At once: a source that looks at its publication meanwhile finds them all.
    let again = format!(
        "BEGIN; DROP TABLE u; DROP TABLE t; CREATE TABLE t (a int PRIMARY KEY, b int, c int); CREATE TABLE u (id int PRIMARY KEY); \
         ALTER PUBLICATION {} ADD TABLE t, u; COMMIT; INSERT INTO t VALUES (1,2,3)",
        c_publication(&db)
    );
    check(&mut c, &db, &again, "c public.t 1|2|3");
}

fn c_publication(db: &str) -> String {
    format!("mulgil_{db}")
}

#[test]
fn many_rows_share_a_commit_and_each_has_a_position() {
    let (db, c) = begun("shared", "CREATE TABLE t (id int PRIMARY KEY)", &["public.t"]);
    let mut c = c.bounds(100, 1 << 20);
    c.drop_source();
    c.open_patiently();
    let copy = (1..=1000).map(|n| format!("{n}\n")).collect::<String>();
    let changes = c.after(&SERVER, &db, &format!("COPY t FROM STDIN;\n{copy}\\.\nINSERT INTO t SELECT generate_series(1001, 1500)"));
    assert_eq!(changes.len(), 1500);
    let commits: std::collections::BTreeSet<u64> = changes.iter().map(|c| c.position.commit).collect();
    assert_eq!(commits.len(), 2);
    let ordinals: Vec<u64> = changes[..1000].iter().map(|c| c.position.ordinal).collect();
    assert_eq!(ordinals, (1..=1000).collect::<Vec<_>>());
    assert!(c.largest_batch <= 100, "{}", c.largest_batch);
    let Place::Postgres { commit_lsn, txid: Some(_), .. } = changes[0].origin.place else { panic!() };
    assert_eq!(commit_lsn, changes[0].position.commit);
}

#[test]
fn what_was_rolled_back_never_comes_in_small_and_in_streamed_transactions() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, pad text)";
    for n in [5, 3000] {
        let (db, mut c) = begun("savepoints", setup, &["public.t"]);
        let rows = |from: i32| format!("INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series({from}, {}) g;", from + n - 1);
        let sql = format!(
            "BEGIN; {} SAVEPOINT a; {} ROLLBACK TO a; {} SAVEPOINT b; {} RELEASE b; SAVEPOINT c; {} SAVEPOINT d; {} ROLLBACK TO c; {} COMMIT;
             BEGIN; {} ROLLBACK;
             BEGIN; SAVEPOINT e; ALTER TABLE t ADD extra int; {} ROLLBACK TO e; {} COMMIT",
            rows(0),
            rows(10_000),
            rows(20_000),
            rows(30_000),
            rows(40_000),
            rows(50_000),
            rows(60_000),
            rows(70_000),
            rows(80_000).replace("'x', 100)", "'x', 100), 1"),
            rows(90_000),
        );
        let changes = c.after(&SERVER, &db, &sql);
        assert_eq!(changes.len(), 5 * n as usize, "{n} rows each");
        assert_eq!(fold(&changes, "public.t"), table(&SERVER, &db, "SELECT * FROM t"));
    }
}

#[test]
fn transactions_that_interleave_come_whole_in_commit_order() {
    let (db, mut c) = begun("interleaved", "CREATE TABLE t (id int PRIMARY KEY, pad text)", &["public.t"]);
    // Three sessions that wait for each other: `dblink` is not needed, psql's own coprocesses do it.
    let script = |from: i32, lock: i32| {
        format!(
            "BEGIN; INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series({from}, {}) g; SELECT pg_advisory_xact_lock({lock});
             INSERT INTO t SELECT g, repeat('y', 200) FROM generate_series({}, {}) g; COMMIT",
            from + 999,
            from + 1000,
            from + 1999
        )
    };
    // The main session holds both locks until the others have written their first half.
    let mut holder = crate::postgres_stream_kit::Session::open(&SERVER, &db);
    holder.run("BEGIN; SELECT pg_advisory_xact_lock(1), pg_advisory_xact_lock(2)");
    let others: Vec<_> = [(0, 1), (10_000, 2)]
        .map(|(from, lock)| {
            let (db, sql) = (db.clone(), script(from, lock));
            std::thread::spawn(move || SERVER.sql_in(&db, &sql).unwrap())
        })
        .into();
    holder.wait("SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
    holder.run("INSERT INTO t SELECT g, 'z' FROM generate_series(20000, 20999) g; COMMIT");
    for other in others {
        other.join().unwrap();
    }
    let changes = c.after(&SERVER, &db, "SELECT 1");
    assert_eq!(changes.len(), 5000);
    let mut commits: Vec<u64> = changes.iter().map(|c| c.position.commit).collect();
    commits.dedup();
    assert_eq!(commits.len(), 3, "each transaction is in one piece");
    assert_eq!(fold(&changes, "public.t"), table(&SERVER, &db, "SELECT * FROM t"));
}

#[test]
fn partitions_are_their_root() {
    let setup = "CREATE TABLE p (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
         CREATE TABLE p2 (v text, gone int, at date NOT NULL, id int NOT NULL); ALTER TABLE p2 DROP COLUMN gone;
         ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');";
    let work = "INSERT INTO p VALUES (1,'2024-01-01','a'), (2,'2025-01-01','b'); UPDATE p SET at = '2025-02-01' WHERE id = 1;
         CREATE TABLE p3 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'); INSERT INTO p VALUES (3,'2026-01-01','c')";
    let expected = "c public.p 1|19723|a
         c public.p 2|20089|b
         d public.p [1|19723|…]
         c public.p 1|20120|a
         c public.p 3|20454|c";
    let (db, mut c) = begun("roots", setup, &["public.p"]);
    check(&mut c, &db, work, expected);
    // A publication of somebody else's that sends the leaves under their own names.
    let db = database("leaves");
    SERVER.sql_in(&db, &format!("{setup} CREATE PUBLICATION mulgil_{db} FOR ALL TABLES")).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.p"]);
    c.open().unwrap();
    check(&mut c, &db, work, expected);
}

/// TimescaleDB's own layout: chunks inherit from the hypertable, and its catalog names them.
const TIMESCALE: &str = "CREATE SCHEMA _timescaledb_catalog; CREATE SCHEMA _timescaledb_internal;
    CREATE TABLE _timescaledb_catalog.hypertable (id int PRIMARY KEY, schema_name name, table_name name, compressed_hypertable_id int);
    CREATE TABLE _timescaledb_catalog.chunk (id int PRIMARY KEY, hypertable_id int, schema_name name, table_name name, compressed_chunk_id int, dropped bool DEFAULT false);
    CREATE TABLE ticks (at timestamptz NOT NULL, symbol text NOT NULL, price numeric, PRIMARY KEY (at, symbol));
    INSERT INTO _timescaledb_catalog.hypertable VALUES (1, 'public', 'ticks', 2), (2, '_timescaledb_internal', '_compressed_hypertable_2', NULL);";

fn chunk(n: i32) -> String {
    format!(
        "CREATE TABLE _timescaledb_internal._hyper_1_{n}_chunk (PRIMARY KEY (at, symbol)) INHERITS (public.ticks);
         INSERT INTO _timescaledb_catalog.chunk VALUES ({n}, 1, '_timescaledb_internal', '_hyper_1_{n}_chunk', NULL);"
    )
}

#[test]
fn timescaledb_chunks_are_their_hypertable_new_ones_too() {
    let (db, mut c) = begun("timescale", &format!("{TIMESCALE} {}", chunk(1)), &["public.ticks"]);
    check(
        &mut c,
        &db,
        &format!(
            "INSERT INTO _timescaledb_internal._hyper_1_1_chunk VALUES ('2024-01-01 00:00+00', 'A', 1.5);
             {} INSERT INTO _timescaledb_internal._hyper_1_2_chunk VALUES ('2024-01-08 00:00+00', 'A', 2.5);
             UPDATE _timescaledb_internal._hyper_1_2_chunk SET price = 3;
             CREATE TABLE _timescaledb_internal.compress_hyper_2_3_chunk (symbol text, price bytea);
             BEGIN; SELECT pg_logical_emit_message(true, '::timescaledb-compression-start', '');
             INSERT INTO _timescaledb_internal.compress_hyper_2_3_chunk VALUES ('A', '\\x01'); DELETE FROM _timescaledb_internal._hyper_1_2_chunk;
             SELECT pg_logical_emit_message(true, '::timescaledb-compression-end', '');
             INSERT INTO _timescaledb_internal._hyper_1_2_chunk VALUES ('2024-01-09 00:00+00', 'B', 7); COMMIT;
             TRUNCATE _timescaledb_internal._hyper_1_1_chunk",
            chunk(2)
        ),
        "c public.ticks 1704067200000000|A|1.5
         c public.ticks 1704672000000000|A|2.5
         u public.ticks 1704672000000000|A|3
         m ::timescaledb-compression-start  true
         m ::timescaledb-compression-end  true
         c public.ticks 1704758400000000|B|7",
    );
}

/// Its rows went into a chunk that nobody had published: before version 15 no publication of some tables would ever have it.
#[test]
fn a_table_that_became_a_hypertable_is_refused_until_its_chunks_are_sent() {
    let plain = format!("{TIMESCALE} DELETE FROM _timescaledb_catalog.hypertable WHERE id = 1");
    let (db, mut c) = begun("becomes", &plain, &["public.ticks"]);
    check(&mut c, &db, "INSERT INTO ticks VALUES ('2024-01-01 00:00+00', 'A', 1.5)", "c public.ticks 1704067200000000|A|1.5");
    c.drop_source();
    let became = "INSERT INTO _timescaledb_catalog.hypertable VALUES (1, 'public', 'ticks', 2);";
    let row = "INSERT INTO _timescaledb_internal._hyper_1_1_chunk VALUES ('2024-01-02 00:00+00', 'A', 2)";
    SERVER.sql_in(&db, &format!("{became} {} {row}", chunk(1))).unwrap();
    let error = c.open().unwrap_err();
    assert!(error.message.contains("no longer has public.ticks"), "{error}");
    assert!(error.message.contains("ADD TABLES IN SCHEMA") || error.message.contains("FOR ALL TABLES"), "{error}");
}

#[test]
fn a_million_rows_in_one_transaction_take_little_memory() {
    let (db, mut c) = begun("million", "CREATE TABLE t (id int PRIMARY KEY, v text)", &["public.t"]);
    SERVER
        .sql_in(&db, &format!("BEGIN; INSERT INTO t SELECT g, 'value ' || g FROM generate_series(1, 1000000) g; COMMIT; {}", emit("end")))
        .unwrap();
    let before = memory_bytes();
    let (mut n, mut sum, mut peak, mut is_over) = (0_u64, 0_u64, 0, false);
    while !is_over {
        let batch = c.next().unwrap();
        for change in &batch.changes {
            match &change.what {
                What::Row { after: Some(row), .. } => {
                    n += 1;
                    assert_eq!(change.position.ordinal, n);
                    sum += show(&row[0]).parse::<u64>().unwrap();
                }
                _ => is_over = true,
            }
        }
        c.make_durable(batch);
        c.changes.clear();
        peak = peak.max(memory_bytes());
    }
    assert_eq!((n, sum), (1_000_000, 500_000_500_000));
    assert!(peak.saturating_sub(before) < 200 << 20, "{} MB", (peak - before) >> 20);
}

/// Resident memory of this process (proc(5), `statm`).
fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// `type | literal | SQL that writes the value as `show` does`; `$` is the column.
const TYPES: &str = r#"
    boolean                 | true                                   | CASE WHEN $ THEN 'true' ELSE 'false' END
    smallint                | -32768                                 | $
    integer                 | 2147483647                             | $
    bigint                  | -9223372036854775808                   | $
    oid                     | 4294967295                             | $
    xid8                    | '18446744073709551615'                 | $
    real                    | 0.1                                    | $
    real                    | 16777217                               | 16777216
    double precision        | 0.1                                    | $
    double precision        | 'NaN'                                  | $
    double precision        | '-Infinity'                            | '-inf'
    numeric                 | 123456789012345678901234567890.123456  | $
    numeric                 | 'NaN'                                  | 'odd NaN'
    numeric                 | '-Infinity'                            | 'odd -Infinity'
    numeric(15,2)           | -0.5                                   | $
    numeric(3,-2)           | 12345                                  | $
    money                   | '-1234.56'                             | $
    text                    | E'héllo\t''wörld'' \\ ""'              | $
    varchar(10)             | ''                                     | $
    character(5)            | 'ab'                                   | rpad('ab', 5)
    ""char""                | 'x'                                    | $
    name                    | 'n'                                    | $
    bytea                   | '\x00ff7f'                             | '00ff7f'
    bytea                   | ''                                     | ''
    date                    | '2024-02-29'                           | $ - date '1970-01-01'
    date                    | '0044-03-15 BC'                        | $ - date '1970-01-01'
    date                    | '5874897-12-31'                        | $ - date '1970-01-01'
    date                    | '4713-01-01 BC'                        | $ - date '1970-01-01'
    date                    | 'infinity'                             | 'odd infinity'
    time                    | '23:59:59.123456'                      | (extract(epoch from $) * 1000000)::bigint
    time                    | '24:00:00'                             | 86400000000
    time(0)                 | '12:00:01.7'                           | 43202000000
    timetz                  | '12:00:00+05:30'                       | $
    timestamp               | '2024-02-29 12:34:56.789'              | (extract(epoch from $) * 1000000)::bigint
    timestamp               | '4713-06-01 00:00:00 BC'               | (extract(epoch from $) * 1000000)::bigint
    timestamp               | '-infinity'                            | 'odd -infinity'
    timestamptz             | '2024-02-29 12:34:56.789+09'           | (extract(epoch from $) * 1000000)::bigint
    timestamptz             | '1900-01-01 00:00:00 Asia/Seoul'       | (extract(epoch from $) * 1000000)::bigint
    timestamptz             | '294276-12-31 23:59:59+00'             | 'odd 294276-12-31 23:59:59+00'
    interval                | '1 year -2 days 03:04:05.6'            | $
    interval day to second(3) | '2 days 03:04:05.6789'               | $
    uuid                    | 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' | replace($::text, '-', '')
    json                    | '{ ""a"":  1 }'                        | $
    jsonb                   | '{ ""a"":  1.50, ""b"": null }'        | $
    xml                     | '<a>b</a>'                             | $
    inet                    | '10.0.0.1/8'                           | $
    cidr                    | '10.0.0.0/8'                           | $
    macaddr                 | '08:00:2b:01:02:03'                    | $
    bit(4)                  | B'0101'                                | $
    bit varying             | B'011'                                 | $
    point                   | '(1,2)'                                | $
    int4range               | '[1,10)'                               | $
    tstzrange               | '[2024-01-01 00:00+00,)'               | '[""2024-01-01 00:00:00+00"",)'
    int8multirange          | '{[1,3),[5,7)}'                        | $
    tsvector                | 'a fat cat'                            | $
    pg_lsn                  | '16/B374D848'                          | $
    regclass                | 'pg_class'                             | $
    integer[]               | '{{1,NULL},{3,4}}'                     | '{{1,∅},{3,4}}'
    numeric(10,2)[]         | '{1.5,NaN}'                            | '{1.50,odd NaN}'
    text[]                  | ARRAY['a,b', 'NULL', NULL, '""', '']   | '{a,b,NULL,∅,"",}'
    date[]                  | '[0:0]={1970-01-02}'                   | '{1}'
    jsonb[]                 | ARRAY['{""a"":1}'::jsonb]              | '{{""a"": 1}}'
    mood                    | 'so so'                                | $
    mood[]                  | '{ok,""so so""}'                       | '{ok,so so}'
    price                   | 12.5                                   | $
    prices                  | '{1.234,2}'                            | '{1.234,2}'
    pair                    | ROW(1,'x y')                           | $
    hundred                 | 42                                     | $
"#;

fn scales_may_be_negative() -> bool {
    const SINCE: u32 = 150_000;
    SERVER.sql("SHOW server_version_num").unwrap().parse::<u32>().unwrap() >= SINCE
}

#[test]
fn every_type_is_as_the_server_has_it() {
    let cases: Vec<[String; 3]> = TYPES
        .lines()
        .filter(|l| !l.trim().is_empty() && (!l.contains("numeric(3,-2)") || scales_may_be_negative()))
        .map(|l| {
            let mut parts = l.splitn(3, '|').map(|p| p.trim().replace("\"\"", "\""));
            [(); 3].map(|()| parts.next().unwrap())
        })
        .collect();
    let columns: Vec<String> = cases.iter().enumerate().map(|(n, [t, _, _])| format!("c{n} {t}")).collect();
    let setup = format!(
        "CREATE TYPE mood AS ENUM ('ok', 'so so'); CREATE DOMAIN price AS numeric(15,2); CREATE DOMAIN prices AS numeric[];
         CREATE TYPE pair AS (a int, b text); CREATE DOMAIN hundred AS integer CHECK (VALUE <= 100);
         CREATE TABLE t (id int PRIMARY KEY, {})",
        columns.join(", ")
    );
    let (db, mut c) = begun("types", &setup, &["public.t"]);
    let values: Vec<&str> = cases.iter().map(|[_, v, _]| v.as_str()).collect();
    let nulls: Vec<&str> = cases.iter().map(|_| "NULL").collect();
    let changes = c.after(&SERVER, &db, &format!("INSERT INTO t VALUES (1, {}), (2, {})", values.join(", "), nulls.join(", ")));
    let What::Row { table, after: Some(row), .. } = &changes[0].what else { panic!() };
    for (n, [name, _, expression]) in cases.iter().enumerate() {
        let sql = format!(
            "SET timezone = 'UTC'; SET datestyle = 'ISO, YMD'; SELECT ({})::text FROM t WHERE id = 1",
            expression.replace('$', &format!("c{n}"))
        );
        let expected = SERVER.sql_in(&db, &sql).unwrap();
        assert_eq!(show(&row[n + 1]), expected, "{name}");
        let native =
            format!("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'c{n}'");
        let native = SERVER.sql_in(&db, &format!("SET search_path = pg_catalog; {}", native.replace("'t'", "'public.t'"))).unwrap();
        // An enum is told with its labels.
        let native = native.replace("public.mood", "enum('ok','so so')");
        assert_eq!(*table.columns[n + 1].native, *native, "{name}");
        assert_eq!(table.columns[n + 1].kind == Kind::Unknown, name == "pair", "{name}");
    }
    let What::Row { after: Some(row), .. } = &changes[1].what else { panic!() };
    assert!(row[1..].iter().all(mulgil_capture::datum::Datum::is_null));
}

/// Every built-in type has a form of its own, and the array oids belong to their items.
#[test]
fn the_table_of_types_is_the_servers() {
    use mulgil_capture::postgres::catalog::Types;
    use mulgil_capture::postgres::forms::{Form, is_built_in, native};
    let sql = "SELECT oid, typarray, format_type(oid, NULL), typcategory FROM pg_type
         WHERE oid < 10000 AND typtype IN ('b','r','m') AND typcategory <> 'A' AND typname !~ '^(pg_brin|pg_ndistinct|pg_mcv|pg_depend|pg_ddl)'";
    let rows = SERVER.sql(sql).unwrap();
    assert!(rows.lines().count() > 60);
    for line in rows.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let (oid, array): (u32, u32) = (fields[0].parse().unwrap(), fields[1].parse().unwrap());
        assert!(is_built_in(oid), "{line}");
        assert_eq!(
            native(oid, -1, &Types::default()).trim_matches('"'),
            fields[2].trim_matches('"').replace("character", if oid == 1042 { "bpchar" } else { "character" }),
            "{line}"
        );
        if array != 0 {
            let Form::Array { item, .. } = Form::of(array, -1, &Types::default()) else { panic!("{line}") };
            assert_eq!(*item, Form::of(oid, -1, &Types::default()), "{line}");
        }
    }
}

#[test]
fn replica_identity_and_publication_change_while_it_streams() {
    let (db, mut c) =
        begun("changing", "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY)", &["public.t", "public.u"]);
    check(
        &mut c,
        &db,
        "INSERT INTO t VALUES (1,'a'); UPDATE t SET v = 'b';
         ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET v = 'c';
         ALTER TABLE t REPLICA IDENTITY DEFAULT; DELETE FROM t; INSERT INTO u VALUES (2)",
        "c public.t 1|a
         u public.t 1|b
         u public.t [1|b] 1|c
         d public.t [1|…]
         c public.u 2",
    );
    // What the publication has no more is named at the next start, since it changes unseen.
    c.drop_source();
    SERVER.sql_in(&db, &format!("ALTER PUBLICATION mulgil_{db} DROP TABLE u")).unwrap();
    let error = c.open().unwrap_err();
    assert!(error.message.contains("no longer has public.u") && error.message.contains("ADD TABLE \"public\".\"u\""), "{error}");
    SERVER.sql_in(&db, &format!("ALTER PUBLICATION mulgil_{db} ADD TABLE u")).unwrap();
    c.open_patiently();
    check(&mut c, &db, "INSERT INTO u VALUES (3)", "c public.u 3");
}

#[test]
fn a_dropped_table_stops_no_other() {
    let (db, mut c) =
        begun("dropped", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)", &["public.t", "public.u"]);
    check(&mut c, &db, "INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)", "c public.t 1\nc public.u 1");
    // As it runs, and at each start after that.
    check(&mut c, &db, "INSERT INTO u VALUES (2); DROP TABLE u; INSERT INTO t VALUES (2)", "c public.u 2\nc public.t 2");
    for n in 3..6 {
        c.drop_source();
        SERVER.sql_in(&db, &format!("INSERT INTO t VALUES ({n})")).unwrap();
        c.open_patiently();
        check(&mut c, &db, &format!("INSERT INTO t VALUES ({})", 10 * n), &format!("c public.t {n}\nc public.t {}", 10 * n));
    }
    // One that has its name has rows that were not sent, until it is published.
    c.drop_source();
    SERVER.sql_in(&db, "CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (7)").unwrap();
    let error = c.open().unwrap_err();
    assert!(error.kind == SourceErrorKind::Refused && error.message.contains("no longer has public.u"), "{error}");
    SERVER.sql_in(&db, &format!("ALTER PUBLICATION mulgil_{db} ADD TABLE u")).unwrap();
    c.open_patiently();
    check(&mut c, &db, "INSERT INTO u VALUES (8)", "c public.u 8");
}

#[test]
fn a_renamed_table_is_refused_and_one_that_never_was_there_too() {
    let (db, mut c) =
        begun("renamed", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)", &["public.t", "public.u"]);
    check(&mut c, &db, "INSERT INTO u VALUES (1)", "c public.u 1");
    c.drop_source();
    SERVER.sql_in(&db, "ALTER TABLE u RENAME TO elsewhere").unwrap();
    let error = c.open().unwrap_err();
    assert!(error.kind == SourceErrorKind::Refused && error.message.contains("public.u is called public.elsewhere now"), "{error}");
    SERVER.sql_in(&db, "ALTER TABLE elsewhere RENAME TO u").unwrap();
    c.open_patiently();
    check(&mut c, &db, "INSERT INTO u VALUES (2)", "c public.u 2");
    c.drop_source();
    c.settings.tables.push("public.never".into());
    let error = c.open().unwrap_err();
    assert!(error.kind == SourceErrorKind::Config && error.message.contains("table public.never does not exist"), "{error}");
}
