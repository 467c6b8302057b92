//! What the binlog of a real MariaDB does not have as rows, and what changes around the stream.

use crate::mysql_kit::{Reader, fold, series, settings, tables_now};
use mulgil_capture::change::{Op, Snapshot, What};
use mulgil_capture::mysql::settings::OnStale;
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::source::SourceErrorKind;
use mulgil_servers::{MariaDb, Settings};

const TABLES: &str = "CREATE DATABASE t; CREATE TABLE t.mark (id int PRIMARY KEY); \
    CREATE TABLE t.p (id int PRIMARY KEY, v int) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20), PARTITION p2 VALUES LESS THAN MAXVALUE); \
    CREATE TABLE t.q (id int PRIMARY KEY, v int); INSERT INTO t.q VALUES (12, -1)";

fn start() -> MariaDb {
    let server = MariaDb::start(&Settings::default()).unwrap();
    server.sql(TABLES).unwrap();
    server.sql(&format!("INSERT INTO t.p SELECT seq, seq FROM {}", series(&server, 1, 30))).unwrap();
    server
}

async fn snapshotted(server: &MariaDb) -> Reader {
    let mut settings = settings(server, &["t.p", "t.q", "t.mark"]);
    settings.snapshot = SnapshotMode::Initial;
    let mut reader = Reader::new(settings);
    reader.until_snapshot_done().await;
    reader
}

#[tokio::test]
async fn rows_that_go_with_a_partition_are_told_and_a_snapshot_heals_the_table() {
    let server = start();
    let mut reader = snapshotted(&server).await;
    server.sql("ALTER TABLE t.p DROP PARTITION p0; INSERT INTO t.p VALUES (100, 100)").unwrap();
    server.sql("ALTER TABLE t.p EXCHANGE PARTITION p1 WITH TABLE t.q; DELETE FROM t.p WHERE id = 12").unwrap();
    reader.until_mark(&server, 1).await;
    let told: Vec<_> = reader
        .changes
        .iter()
        .filter_map(|c| match &c.what {
            What::Message { prefix, content, .. } => {
                let said: serde_json::Value = serde_json::from_slice(content).unwrap();
                Some(format!("{prefix} {} {}", said["table"].as_str().unwrap(), said["statement"].as_str().unwrap()))
            }
            _ => None,
        })
        .collect();
    let exchange = "ALTER TABLE t.p EXCHANGE PARTITION p1 WITH TABLE t.q";
    assert_eq!(
        told,
        [
            "mulgil.stale t.p ALTER TABLE t.p DROP PARTITION p0".to_owned(),
            format!("mulgil.stale t.p {exchange}"),
            format!("mulgil.stale t.q {exchange}")
        ]
    );
    assert_ne!(fold(&reader.changes), tables_now(&reader.settings).await, "the stream alone does not have it");
    // Also after a restart, and the last statement of each table.
    reader.drop_source();
    reader.opened().await;
    let stale = reader.health().stale;
    assert!(
        stale.len() == 2 && stale[0].starts_with(&format!("t.p: {exchange} at binlog.0")) && stale[1].starts_with("t.q: "),
        "{stale:?}"
    );
    reader.snapshot(&server, "t.p").await;
    assert_eq!(reader.health().stale.len(), 1, "{:?}", reader.health().stale);
    reader.snapshot(&server, "t.q").await;
    assert_eq!(reader.health().stale, [""; 0]);
    assert!(reader.resume.as_ref().unwrap().notes["remarks"].is_null());
    let truncates: Vec<_> = reader.changes.iter().filter(|c| c.op == Op::Truncate).collect();
    assert!(truncates.len() == 2 && truncates.iter().all(|c| c.origin.snapshot == Snapshot::Incremental), "{truncates:?}");
    reader.until_mark(&server, 2).await;
    assert_eq!(fold(&reader.changes), tables_now(&reader.settings).await);
    reader.snapshot(&server, "t.q").await;
    assert_eq!(reader.count(Op::Truncate), 2, "a table that is not stale is only read");
}

#[tokio::test]
async fn rows_that_go_with_a_partition_stop_the_source_if_that_was_chosen() {
    let server = start();
    let mut reader = snapshotted(&server).await;
    reader.settings.on_stale = OnStale::Stop;
    reader.drop_source();
    server.sql("ALTER TABLE t.p TRUNCATE PARTITION p1").unwrap();
    let error = loop {
        if let Err(e) = reader.try_step().await {
            break e;
        }
    };
    assert_eq!(error.kind, SourceErrorKind::Refused);
    assert!(error.to_string().contains("t.p") && error.to_string().contains("on_stale"), "{error}");
    reader.settings.on_stale = OnStale::Tell;
    reader.drop_source();
    reader.until_mark(&server, 1).await;
    assert_eq!(reader.health().stale.len(), 1);
}

#[tokio::test]
async fn a_statement_that_cannot_be_read_is_kept_with_the_place() {
    let server = start();
    let mut reader = snapshotted(&server).await;
    let names: Vec<String> = (0..7_000).map(|n| format!("t.not_there_{n}")).collect();
    server
        .sql(&format!(
            "DROP TABLE IF EXISTS {}; ALTER TABLE t.q ADD COLUMN w int DEFAULT 3; INSERT INTO t.q VALUES (1, 2, 3)",
            names.join(", ")
        ))
        .unwrap();
    reader.until_mark(&server, 1).await;
    let unread = &reader.resume.as_ref().unwrap().notes["remarks"]["unread"];
    let statement = unread[0]["statement"].as_str().unwrap();
    assert!(unread.as_array().unwrap().len() == 1 && statement.starts_with("DROP TABLE IF EXISTS") && statement.len() < 1_000, "{unread}");
    assert_eq!(reader.health().stale, [""; 0], "no row was lost by it");
    assert_eq!(reader.count(Op::Create), 1);
}

#[tokio::test]
async fn the_list_of_tables_may_change_in_the_middle_of_a_transaction() {
    let server = start();
    server.sql("CREATE TABLE t.c LIKE t.q").unwrap();
    let mut reader = Reader::new(settings(&server, &["t.p", "t.q", "t.mark"]));
    reader.settings.batch_rows_max = 100;
    reader.until_mark(&server, 1).await;
    reader.changes.clear();
    reader.drop_source();
    let mut script = String::from("BEGIN;");
    for round in 0..20 {
        let from = 1_000 * (round + 1);
        let numbers = series(&server, from, from + 49);
        ["p", "q", "c"].iter().for_each(|t| script += &format!("INSERT INTO t.{t} SELECT seq, seq FROM {numbers};"));
    }
    server.sql(&(script + "COMMIT; INSERT INTO t.c VALUES (1, 1)")).unwrap();
    let of = |r: &Reader, table: &str| {
        let is_it = |c: &&mulgil_capture::change::Change| c.op == Op::Create && c.what.table().is_some_and(|id| &*id.table == table);
        r.changes.iter().filter(is_it).count()
    };
    reader.until("some of the transaction", |r| of(r, "p") >= 300).await;
    let (p, q) = (of(&reader, "p"), of(&reader, "q"));
    assert!(p < 1_000 && q < 1_000);
    for tables in [["t.c", "t.p", "t.mark"], ["t.p", "t.c", "t.mark"]] {
        reader.drop_source();
        reader.settings.tables = tables.map(str::to_owned).to_vec();
        reader.step().await;
    }
    reader.until_mark(&server, 2).await;
    assert_eq!(of(&reader, "p"), 1_000, "{p} were given out before");
    assert_eq!((of(&reader, "q"), of(&reader, "c")), (q, 1), "a table that comes is captured from behind the transaction on");
}

#[tokio::test]
async fn what_the_server_keeps_for_the_source_is_counted_over_files() {
    let server = start();
    let mut reader = Reader::new(settings(&server, &["t.q", "t.mark"]));
    reader.until_mark(&server, 1).await;
    reader.drop_source();
    let at: u64 = reader.resume.as_ref().unwrap().notes["at"].as_u64().unwrap();
    for from in [1_000, 3_000] {
        let numbers = series(&server, from, from + 1_000);
        server.sql(&format!("INSERT INTO t.q SELECT seq, seq FROM {numbers}; FLUSH BINARY LOGS")).unwrap();
    }
    let sizes =
        || server.sql("SHOW BINARY LOGS").unwrap().lines().map(|l| l.split('\t').nth(1).unwrap().parse::<u64>().unwrap()).sum::<u64>();
    let least = sizes() - at;
    // Told also while there is always something to read.
    reader.until_mark(&server, 2).await;
    let health = reader.health();
    let (retained, lag) = (health.retained_bytes.unwrap(), health.lag_bytes.unwrap());
    assert!(retained >= least && retained <= sizes() - at && lag <= retained, "{least} {retained} {lag}");
}
