//! Snapshots of a real MariaDB while it is written to.

use crate::mysql_kit::{Dice, Reader, fold, series, settings, tables_now};
use mulgil_capture::change::{Op, Snapshot, What};
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::source::{Phase, SnapshotRequest};
use mulgil_servers::{MariaDb, Settings};
use tokio::sync::oneshot;

const MARK: &str = "CREATE DATABASE t; CREATE TABLE t.mark (id int PRIMARY KEY); ";

fn start(settings: &Settings) -> MariaDb {
    let server = MariaDb::start(settings).unwrap();
    server.sql(MARK).unwrap();
    server
}

fn reader(server: &MariaDb, tables: &[&str], mode: SnapshotMode) -> Reader {
    let mut settings = settings(server, tables);
    settings.snapshot = mode;
    Reader::new(settings)
}

/// Every type, with values at its edges; `''` and such are as the server stores them.
const TYPES: &[(&str, &str)] = &[
    ("tinyint", "-128, 127, 0, NULL"),
    ("tinyint unsigned", "255, 0"),
    ("smallint", "-32768, 32767"),
    ("smallint unsigned", "65535"),
    ("mediumint", "-8388608, 8388607"),
    ("mediumint unsigned zerofill", "16777215, 7"),
    ("int", "-2147483648, 2147483647"),
    ("int(10) unsigned zerofill", "4294967295, 1"),
    ("bigint", "-9223372036854775808, 9223372036854775807"),
    ("bigint unsigned", "18446744073709551615"),
    ("boolean", "true, false"),
    ("bit(1)", "b'1', b'0'"),
    ("bit(12)", "b'101010101010', b'0'"),
    ("bit(64)", "18446744073709551615"),
    ("float", "0.1, -3.4028234e38, 1.17549e-38, 16777217, -0.0"),
    ("double", "0.1, -1.7976931348623157e308, 2.2250738585072014e-308, 1e15"),
    ("float(7,3)", "1234.567"),
    ("decimal(10,2)", "-0.50, 12345678.90, 0, 0.01"),
    ("decimal(65,30)", "12345678901234567890123456789012345.123456789012345678901234567890, -1"),
    ("decimal(5,0) unsigned zerofill", "0, 123"),
    ("date", "'1000-01-01', '9999-12-31', '1969-12-31', '0000-00-00', '2024-02-00'"),
    ("time", "'-838:59:59', '00:00:00', '838:59:59'"),
    ("time(6)", "'-00:00:00.000001', '12:34:56.789012', '-838:59:59.999999'"),
    ("time(3)", "'-01:02:03.456'"),
    ("datetime", "'1000-01-01 00:00:00', '9999-12-31 23:59:59', '0000-00-00 00:00:00'"),
    ("datetime(6)", "'2024-02-29 23:59:59.999999', '1969-12-31 23:59:59.000001'"),
    ("datetime(1)", "'2024-02-29 23:59:59.9', '2024-00-01 01:02:03.4'"),
    ("timestamp NULL", "'1970-01-01 00:00:01', '2038-01-19 03:14:07', '0000-00-00 00:00:00'"),
    ("timestamp(6) NULL", "'2024-02-29 23:59:59.999999'"),
    ("year", "1901, 2155, 0"),
    ("char(10)", "'a', '', 'end  ', '물길'"),
    ("char(10) CHARACTER SET latin1", "'äö', ''"),
    ("varchar(300)", "'a', '', 'end  ', '물길 🌊'"),
    ("varchar(20) CHARACTER SET euckr", "'물길'"),
    ("varchar(20) CHARACTER SET utf16", "'물길 🌊'"),
    ("text", "'text', repeat('x', 60000)"),
    ("longtext CHARACTER SET latin1", "'ÿ'"),
    ("binary(5)", "'a', x'0000000000', x'ff00'"),
    ("varbinary(300)", "x'00ff00', ''"),
    ("blob", "x'00', repeat(x'ff', 300)"),
    ("enum('BUY','SELL','it''s')", "'BUY', 'it''s', 3"),
    ("set('a','b','c d')", "'a,c d', '', 'b'"),
    ("json", "'{\"a\": [1, 2.50, \"물\"]}', 'null'"),
    ("uuid", "'123e4567-e89b-12d3-a456-426655440000', '00000000-0000-0000-0000-000000000000'"),
    ("inet6", "'2001:db8::ff00:42:8329', '::', '::ffff:1.2.3.4'"),
    ("inet4", "'192.0.2.1', '0.0.0.0'"),
    ("point", "ST_GeomFromText('POINT(1 2)', 4326)"),
    ("geometry", "ST_GeomFromText('LINESTRING(0 0, 1 1)')"),
    ("int GENERATED ALWAYS AS (1 + 1) STORED", ""),
    ("int DEFAULT 7 INVISIBLE", "8"),
];

/// Types that MySQL does not have.
const OF_MARIADB: [&str; 3] = ["uuid", "inet6", "inet4"];

#[tokio::test]
async fn the_snapshot_reads_every_type_as_the_stream_does() {
    let server = start(&Settings::default());
    let mut script = String::from("SET sql_mode = 'NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES', time_zone = '+00:00'; USE t; ");
    for (i, (native, values)) in TYPES.iter().enumerate() {
        if server.is_mysql() && OF_MARIADB.contains(native) {
            continue;
        }
        script += &format!("CREATE TABLE x{i} (id int AUTO_INCREMENT PRIMARY KEY, v {native}); ");
        // A function's commas are not between values.
        let values: Vec<&str> = if values.is_empty() || values.contains('(') || values.contains('{') || native.starts_with("set") {
            Vec::new()
        } else {
            values.split(", ").collect()
        };
        values.iter().for_each(|value| script += &format!("INSERT INTO x{i} (v) VALUES ({value}); "));
        let whole = TYPES[i].1;
        if values.is_empty() && !whole.is_empty() && (native.starts_with("point") || native.starts_with("geometry")) {
            script += &format!("INSERT INTO x{i} (v) VALUES ({whole}); ");
        } else if values.is_empty() {
            let rows: Vec<String> = split(whole).iter().map(|v| format!("({v})")).collect();
            script += &if rows.is_empty() {
                format!("INSERT INTO x{i} (id) VALUES (3); ")
            } else {
                format!("INSERT INTO x{i} (v) VALUES {}; ", rows.join(","))
            };
        }
    }
    let mut stream = reader(&server, &["t.*"], SnapshotMode::NoData);
    stream.until_mark(&server, 0).await;
    server.sql(&script).unwrap();
    stream.until_mark(&server, 1).await;
    let mut snapshot = reader(&server, &["t.*"], SnapshotMode::InitialOnly);
    snapshot.settings.server_id += 1;
    snapshot.until_snapshot_done().await;
    let rows = |r: &Reader| {
        let mut rows: Vec<_> = r
            .changes
            .iter()
            .filter_map(|c| match &c.what {
                What::Row { table, after: Some(row), .. } if &*table.id.table != "mark" => {
                    Some((table.id.table.clone(), format!("{row:?}"), table.columns.clone()))
                }
                _ => None,
            })
            .collect();
        rows.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        rows
    };
    let (streamed, read) = (rows(&stream), rows(&snapshot));
    for (s, r) in streamed.iter().zip(&read) {
        assert_eq!(s, r, "{}", TYPES[s.0[1..].parse::<usize>().unwrap()].0);
    }
    assert_eq!(streamed.len(), read.len());
    assert!(streamed.len() > TYPES.len() * 3 / 2, "{}", streamed.len());
}

/// At commas that are outside of quotes and brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut is_quoted) = (vec![String::new()], 0, false);
    for c in text.chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth -= 1,
            ',' if !is_quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(c);
    }
    parts.retain(|p| !p.trim().is_empty());
    parts
}

const ROWS: u64 = 3_000;

/// An update of the key.
fn is_moved(change: &mulgil_capture::change::Change) -> bool {
    let What::Row { table, before: Some(before), after: Some(after) } = &change.what else { return false };
    table.key().any(|i| before[i] != after[i])
}

/// Writes between all steps of the snapshot, drops the source at many chunks, and compares in the end.
async fn goes_on_while_written(server_settings: &Settings, seed: u64) {
    let server = start(server_settings);
    server
        .sql(&format!(
            "CREATE TABLE t.k (a varchar(20) CHARACTER SET latin1, b int unsigned, v text, w int, PRIMARY KEY (b, a)); \
             CREATE TABLE t.l (id datetime(3) PRIMARY KEY, v int); CREATE TABLE t.empty (id int PRIMARY KEY); \
             INSERT INTO t.k SELECT concat('é', seq), seq DIV 3, repeat('v', seq % 50), 0 FROM {}; \
             INSERT INTO t.l SELECT '2024-01-01' + INTERVAL seq SECOND, seq FROM {}",
            series(&server, 1, ROWS),
            series(&server, 1, 500)
        ))
        .unwrap();
    let mut reader = reader(&server, &["t.k", "t.l", "t.empty", "t.mark"], SnapshotMode::Initial);
    reader.settings.chunk_rows_max = 100;
    let mut dice = Dice(seed);
    let mut drops = 0;
    while reader.resume.as_ref().is_none_or(|r| !r.notes["snapshots"].is_null()) {
        reader.step().await;
        let b = dice.below(ROWS / 3);
        server
            .sql(&format!(
                "UPDATE t.k SET w = w + 1 WHERE b BETWEEN {b} AND {b} + 40; DELETE FROM t.k WHERE b = {}; UPDATE IGNORE t.k SET b = {} WHERE b = {}; \
                 REPLACE INTO t.k VALUES ('é{b}', {b}, 'new', 9); UPDATE t.l SET v = -v WHERE v BETWEEN {b} AND {b} + 9",
                dice.below(ROWS / 3),
                dice.below(ROWS / 3),
                dice.below(ROWS / 3)
            ))
            .unwrap();
        if dice.below(3) == 0 {
            reader.drop_source();
            drops += 1;
        }
    }
    reader.until_mark(&server, 1).await;
    assert!(drops > 8, "{drops}");
    assert_eq!(fold(&reader.changes), tables_now(&reader.settings).await, "seed {seed}");
    let (n_read, n_moved) = (reader.count(Op::Read), reader.changes.iter().filter(|c| is_moved(c)).count());
    let most = ROWS as usize + 500 + 900 + n_moved;
    assert!(
        n_read > 1_000 && n_read <= most,
        "{n_read} rows were read, {n_moved} were moved: an interrupted snapshot goes on at its chunk"
    );
    let kinds: Vec<_> = reader.changes.iter().filter(|c| c.op == Op::Read).map(|c| c.origin.snapshot).collect();
    assert!(kinds.contains(&Snapshot::Initial) && !kinds.contains(&Snapshot::No));
    assert!(reader.changes.iter().filter(|c| c.op != Op::Read).all(|c| c.origin.snapshot == Snapshot::No));
}

#[tokio::test]
async fn a_snapshot_goes_on_while_the_tables_are_written() {
    goes_on_while_written(&Settings::default(), 7).await;
}

/// Updates of keys among them, which take rows to where the snapshot has been and do not have their other columns.
#[tokio::test]
async fn a_snapshot_with_minimal_images_reads_again_what_they_do_not_have() {
    goes_on_while_written(&Settings::default().with("binlog-row-image", "MINIMAL"), 8).await;
}

/// Rows of a table without a key, each as often as it is there.
fn bag(reader: &Reader, table: &str) -> std::collections::BTreeMap<String, i64> {
    let mut bag = std::collections::BTreeMap::<String, i64>::new();
    // What the stream had before is in the rows that were read.
    let is_of_snapshot =
        |c: &mulgil_capture::change::Change| c.origin.snapshot != Snapshot::No && c.what.table().is_some_and(|id| &*id.table == table);
    for change in reader.changes.iter().skip_while(|c| !is_of_snapshot(c)).filter(|c| c.what.table().is_some_and(|id| &*id.table == table))
    {
        match &change.what {
            What::Row { before, after, .. } => {
                before.iter().for_each(|row| *bag.entry(format!("{row:?}")).or_default() -= 1);
                after.iter().for_each(|row| *bag.entry(format!("{row:?}")).or_default() += 1);
            }
            What::Truncate { .. } => bag.clear(),
            What::Message { .. } => panic!("{change:?}"),
        }
    }
    bag.retain(|_, n| *n != 0);
    bag
}

fn fill_keyless(server: &MariaDb) {
    let (many, few) = (series(server, 1, 1_000), series(server, 1, 9));
    let table = "CREATE TABLE t.n (a int, b enum('x','y'))";
    server.sql(&format!("{table}; INSERT INTO t.n SELECT seq, 'y' FROM {many}; INSERT INTO t.n SELECT 7, 'y' FROM {few}")).unwrap();
}

fn bag_now(server: &MariaDb) -> Vec<i64> {
    let text = server.sql("SELECT COUNT(*) FROM t.n GROUP BY a, b ORDER BY 1").unwrap();
    text.lines().map(|n| n.parse().unwrap()).collect()
}

fn counts(bag: &std::collections::BTreeMap<String, i64>) -> Vec<i64> {
    let mut counts: Vec<i64> = bag.values().copied().collect();
    counts.sort_unstable();
    counts
}

#[tokio::test]
async fn a_table_without_a_key_is_read_at_one_place_of_the_binlog() {
    let server = start(&Settings::default());
    fill_keyless(&server);
    let mut reader = reader(&server, &["t.n", "t.mark"], SnapshotMode::Initial);
    reader.settings.batch_rows_max = 300;
    while reader.resume.as_ref().is_none_or(|r| !r.notes["snapshots"].is_null()) {
        reader.step().await;
        server.sql("DELETE FROM t.n ORDER BY a LIMIT 2; INSERT INTO t.n VALUES (5000, 'x')").unwrap();
    }
    reader.until_mark(&server, 1).await;
    assert_eq!(reader.count(Op::Truncate), 0, "nothing was read twice");
    assert_eq!(counts(&bag(&reader, "n")), bag_now(&server));
}

#[tokio::test]
async fn an_interrupted_snapshot_without_a_key_begins_anew_with_a_truncate() {
    let server = start(&Settings::default());
    fill_keyless(&server);
    let mut reader = reader(&server, &["t.n", "t.mark"], SnapshotMode::Initial);
    reader.settings.batch_rows_max = 300;
    // Interrupted after its first rows, twice, and asked for once more when it is done.
    for n in 1..=2 {
        reader.until("rows of the table", |r| r.count(Op::Read) >= 300 * n).await;
        reader.drop_source();
        server.sql("DELETE FROM t.n ORDER BY a LIMIT 2; INSERT INTO t.n VALUES (5000, 'x')").unwrap();
    }
    reader.until_snapshot_done().await;
    reader.until_mark(&server, 1).await;
    assert_eq!(reader.count(Op::Truncate), 2);
    assert_eq!(counts(&bag(&reader, "n")), bag_now(&server));
    reader.snapshot(&server, "t.n").await;
    reader.until_mark(&server, 2).await;
    let marks: Vec<_> = reader.changes.iter().filter(|c| c.op == Op::Truncate).map(|c| c.origin.snapshot).collect();
    assert_eq!(marks, [Snapshot::Initial, Snapshot::Initial, Snapshot::Incremental], "no truncate of the table's own");
    assert_eq!(counts(&bag(&reader, "n")), bag_now(&server));
}

/// Rows behind a filter of a table without a key, and what comes before them.
async fn interrupted_behind_a_filter(bytes_max: usize) -> Vec<String> {
    let server = start(&Settings::default());
    fill_keyless(&server);
    let mut reader = reader(&server, &["t.n", "t.mark"], SnapshotMode::NoData);
    (reader.settings.batch_rows_max, reader.settings.filtered_bytes_max) = (100, bytes_max);
    reader.opened().await;
    let (accepted, answer) = tokio::sync::oneshot::channel();
    let request = mulgil_capture::source::SnapshotRequest { tables: vec!["t.n".into()], filter: Some("a > 500".into()), accepted };
    reader.requests().send(request).await.unwrap();
    reader.until("some of its rows", |r| r.count(Op::Read) > 0).await;
    answer.await.unwrap().unwrap();
    let first = reader.count(Op::Read);
    reader.drop_source();
    reader.until_snapshot_done().await;
    reader.until_mark(&server, 1).await;
    let told = reader.changes.iter().filter_map(|c| match &c.what {
        What::Message { prefix, content, .. } => Some(format!("{prefix} {}", String::from_utf8_lossy(content))),
        _ => None,
    });
    told.chain([format!("{} {}", first, reader.count(Op::Read))]).collect()
}

#[tokio::test]
async fn a_filtered_snapshot_without_a_key_is_one_batch_or_says_that_its_rows_come_again() {
    assert_eq!(interrupted_behind_a_filter(32 << 20).await, ["500 500"]);
    let told = interrupted_behind_a_filter(10_000).await;
    assert_eq!(told[..told.len() - 1], [r#"mulgil.repeated {"filter":"a > 500","table":"t.n"}"#]);
    let (first, all) = told.last().unwrap().split_once(' ').unwrap();
    assert_eq!(first.parse::<u32>().unwrap() + 500, all.parse::<u32>().unwrap(), "what came before, and then all of them");
}

#[tokio::test]
async fn an_insert_in_a_minimal_image_has_a_key_that_is_a_default() {
    let server = start(&Settings::default().with("binlog-row-image", "MINIMAL"));
    server
        .sql(
            "CREATE TABLE t.d (a int DEFAULT 7, b varchar(10) DEFAULT 'it''s', c decimal(6,2) DEFAULT 1.5, e datetime(3) DEFAULT '2024-01-02 03:04:05.678', \
             v int DEFAULT 9, PRIMARY KEY (b, a, e, c)); CREATE TABLE t.auto (id int AUTO_INCREMENT PRIMARY KEY, v int)",
        )
        .unwrap();
    let mut reader = reader(&server, &["t.d", "t.auto", "t.mark"], SnapshotMode::Initial);
    reader.until_snapshot_done().await;
    server.sql("INSERT INTO t.d () VALUES (); UPDATE t.d SET v = 1; UPDATE t.d SET a = 8; INSERT INTO t.d (b) VALUES ('other'); INSERT INTO t.auto (v) VALUES (5)").unwrap();
    reader.until_mark(&server, 1).await;
    let mut folded = fold(&reader.changes);
    let now = tables_now(&reader.settings).await;
    // A default that is not of the key stays unavailable: nobody sent it.
    let unset =
        folded.get_mut("t.d").unwrap().values_mut().find(|row| row["b"] == mulgil_capture::datum::Datum::Text("other".into())).unwrap();
    assert_eq!(unset.insert("v".into(), mulgil_capture::datum::Datum::Int(9)), Some(mulgil_capture::datum::Datum::Unavailable));
    assert_eq!(folded, now);
}

#[tokio::test]
async fn json_of_mariadb_is_json() {
    let server = start(&Settings::default());
    if server.is_mysql() {
        return; // It has a type of its own for JSON.
    }
    server
        .sql("CREATE TABLE t.j (id int PRIMARY KEY, a json, b longtext, c longtext CHECK (json_valid(c)), d longtext CHECK (json_valid(d) AND d <> ''), e json); INSERT INTO t.j VALUES (1, '{\"a\": 1}', '{}', '[]', '[]', NULL)")
        .unwrap();
    let mut reader = reader(&server, &["t.j", "t.mark"], SnapshotMode::Initial);
    reader.until_snapshot_done().await;
    server.sql("INSERT INTO t.j VALUES (2, '{\"a\":  2}', '', '[1]', '[2]', '3')").unwrap();
    reader.until_mark(&server, 1).await;
    use mulgil_capture::datum::Datum::{Int, Json, Null, Text};
    let rows: Vec<_> = reader.changes.iter().filter(|c| c.what.table().is_some_and(|id| &*id.table == "j")).collect();
    let want = [
        vec![Int(1), Json("{\"a\": 1}".into()), Text("{}".into()), Json("[]".into()), Text("[]".into()), Null],
        vec![Int(2), Json("{\"a\":  2}".into()), Text("".into()), Json("[1]".into()), Text("[2]".into()), Json("3".into())],
    ];
    for (change, want) in rows.iter().zip(want) {
        let What::Row { table, after, .. } = &change.what else { panic!("{change:?}") };
        assert_eq!(after.as_ref().unwrap(), &want);
        assert_eq!((table.version, &*table.columns[1].native), (1, "json"), "the snapshot and the stream have the same shape");
    }
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_snapshot_can_be_asked_for_while_streaming() {
    let server = start(&Settings::default());
    server
        .sql(&format!("CREATE TABLE t.s (id int PRIMARY KEY, v int); INSERT INTO t.s SELECT seq, seq FROM {}", series(&server, 1, 500)))
        .unwrap();
    let mut reader = reader(&server, &["t.s", "t.mark"], SnapshotMode::NoData);
    reader.settings.chunk_rows_max = 50;
    reader.until_mark(&server, 1).await;
    assert_eq!((reader.count(Op::Read), reader.health().phase), (0, Phase::Streaming));
    let cases = [("t.s", Some("id <= 120"), true), ("t.other", None, false), ("t.s", Some("nothing = 1"), false), ("s", None, false)];
    for (table, filter, is_taken) in cases {
        reader.opened().await;
        let (accepted, mut answer) = oneshot::channel();
        let request = SnapshotRequest { tables: vec![table.into()], filter: filter.map(str::to_owned), accepted };
        reader.requests().send(request).await.unwrap();
        // The source answers while somebody waits for its next batch, and so that one comes something changes.
        let answer = loop {
            server.sql("UPDATE t.s SET v = v + 1 WHERE id = 1").unwrap();
            reader.step().await;
            if let Ok(answer) = answer.try_recv() {
                break answer;
            }
        };
        assert_eq!(answer.is_ok(), is_taken, "{table} {filter:?}: {answer:?}");
        if is_taken {
            reader.drop_source();
        }
    }
    reader.until_snapshot_done().await;
    let read: Vec<_> = reader.changes.iter().filter(|c| c.op == Op::Read).collect();
    assert!((115..=120).contains(&read.len()), "{}", read.len());
    assert!(read.iter().all(|c| c.origin.snapshot == Snapshot::Incremental));
}

#[tokio::test]
async fn always_reads_again_and_initial_does_not() {
    let server = start(&Settings::default());
    server.sql("CREATE TABLE t.s (id int PRIMARY KEY); INSERT INTO t.s VALUES (1), (2)").unwrap();
    let mut reader = reader(&server, &["t.s"], SnapshotMode::Initial);
    for (mode, reads) in [(SnapshotMode::Initial, 2), (SnapshotMode::Initial, 2), (SnapshotMode::Always, 4)] {
        reader.settings.snapshot = mode;
        reader.drop_source();
        server.sql("INSERT INTO t.s VALUES (9); DELETE FROM t.s WHERE id = 9").unwrap();
        let before = reader.count(Op::Delete);
        reader
            .until("the stream and its snapshot", |r| {
                r.count(Op::Read) >= reads
                    && r.resume.as_ref().unwrap().notes["snapshots"].is_null()
                    && (before == 0 || r.count(Op::Delete) > before)
            })
            .await;
        assert_eq!(reader.count(Op::Read), reads, "{mode:?}");
    }
    let last: Vec<_> = reader.changes.iter().filter(|c| c.origin.snapshot == Snapshot::Last).collect();
    assert!(!last.is_empty());
}
