//! The stream of a real MariaDB: whatever is interrupted, it is what it would have been undisturbed, and it folds to the tables.

use crate::mysql_kit::{Dice, Reader, fold, least_metadata, series, settings, tables_now};
use mulgil_capture::change::{Change, Op, What};
use mulgil_capture::datum::Datum;
use mulgil_servers::{MariaDb, Settings};
use std::fmt::Write;

const MARK: &str = "CREATE DATABASE t; CREATE TABLE t.mark (id int PRIMARY KEY); ";

fn start(settings: &Settings) -> MariaDb {
    let server = MariaDb::start(settings).unwrap();
    server.sql(MARK).unwrap();
    server
}

/// A place from which everything that comes later can be read again.
async fn from_here(server: &MariaDb, tables: &[&str]) -> Reader {
    let mut reader = Reader::new(settings(server, tables));
    reader.until_mark(server, 0).await;
    reader.changes.clear();
    reader
}

/// Without what depends on when the catalog was read: a type's words and a shape's number.
fn told(change: &Change) -> String {
    match &change.what {
        What::Row { table, before, after } => {
            let names: Vec<_> = table.columns.iter().map(|c| &*c.name).collect();
            format!("{} {:?} {} {names:?} {before:?} {after:?} {:?}", change.position, change.op, table.id, change.origin)
        }
        what => format!("{} {:?} {} {:?}", change.position, change.op, what.table().unwrap(), change.origin),
    }
}

/// One transaction or statement at random; `columns` counts the DDL.
fn statement(dice: &mut Dice, columns: &mut Columns) -> String {
    let table = ["t.a", "t.b"][dice.below(2) as usize];
    let id = |dice: &mut Dice| dice.below(400);
    let row = |dice: &mut Dice| {
        let note = "물'\\ ".repeat(dice.below(5) as usize);
        format!(
            "({}, {}.{:02}, {}, from_unixtime({}))",
            dice.below(400),
            dice.below(90),
            dice.below(99),
            mulgil_literal(&note),
            1 + dice.below(2_000_000_000)
        )
    };
    match dice.below(20) {
        0..=6 => {
            let n = 1 + dice.below(9);
            let rows: Vec<String> = (0..n).map(|_| row(dice)).collect();
            format!("REPLACE INTO {table} (id, price, note, at) VALUES {};", rows.join(","))
        }
        7..=10 => format!("UPDATE {table} SET price = price + 1, note = concat(note, 'x') WHERE id < {};", id(dice)),
        11 => format!("UPDATE IGNORE {table} SET id = id + 400 WHERE id = {};", id(dice)),
        12..=13 => format!("DELETE FROM {table} WHERE id BETWEEN {0} AND {0} + 20;", id(dice)),
        14..=16 => format!(
            "BEGIN; REPLACE INTO {table} (id, price) VALUES ({0}, 1); SAVEPOINT s1; DELETE FROM t.b WHERE id < 50; SAVEPOINT `s 2`; REPLACE INTO t.a (id) VALUES ({0}); ROLLBACK TO {1}; REPLACE INTO t.b (id) VALUES ({0} + 1); {2};",
            id(dice),
            ["s1", "`s 2`"][dice.below(2) as usize],
            ["COMMIT", "COMMIT", "ROLLBACK"][dice.below(3) as usize]
        ),
        // The engine without transactions makes the server write the rollback itself. A MySQL with GTIDs refuses it.
        17 => format!(
            "BEGIN; REPLACE INTO t.a (id) VALUES ({0}); SAVEPOINT s; REPLACE INTO t.b (id) VALUES ({0}); {1}ROLLBACK TO s; REPLACE INTO t.a (id) VALUES ({0} + 1); COMMIT;",
            id(dice),
            if columns.is_mysql { "" } else { "INSERT INTO t.m VALUES (1); " }
        ),
        18 if dice.below(4) == 0 => format!("TRUNCATE TABLE {table};"),
        18 => "FLUSH BINARY LOGS;".to_owned(),
        _ => columns.changed(table, ["FIRST", "AFTER id"][dice.below(2) as usize]),
    }
}

/// DDL in its turn: two columns come, and the second of them goes.
struct Columns {
    n: u32,
    is_mysql: bool,
    /// Where the last one came.
    last: Option<String>,
}

impl Columns {
    fn changed(&mut self, table: &str, place: &str) -> String {
        self.n += 1;
        match self.last.take().filter(|_| self.n.is_multiple_of(3)) {
            Some(table) => format!("ALTER TABLE {table} DROP COLUMN c{};", self.n - 1),
            None => {
                self.last = Some(table.to_owned());
                format!("ALTER TABLE {table} ADD COLUMN c{} bigint unsigned DEFAULT {} {place};", self.n, self.n)
            }
        }
    }
}

fn mulgil_literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

const TABLES: &str = "CREATE TABLE t.a (id int PRIMARY KEY, price decimal(10,2), note varchar(4000) CHARACTER SET utf8mb4, at timestamp(3) NULL) ENGINE=InnoDB; \
    CREATE TABLE t.b LIKE t.a; CREATE TABLE t.m (id int) ENGINE=MyISAM; CREATE TABLE t.other (id int PRIMARY KEY);";

/// Runs the workload with the source dropped and the server killed in between, and compares with an undisturbed reading of the same binlog.
async fn is_undisturbed(server_settings: &Settings, seed: u64, rounds: u64) {
    let mut server = start(server_settings);
    server.sql(TABLES).unwrap();
    let captured = ["t.a", "t.b", "t.mark"];
    let mut reader = from_here(&server, &captured).await;
    let origin = reader.resume.clone();
    let (mut dice, mut columns) = (Dice(seed), Columns { n: 0, is_mysql: server.is_mysql(), last: None });
    let mut kills = 0;
    for round in 0..rounds {
        let mut script = String::new();
        for _ in 0..1 + dice.below(12) {
            let one = statement(&mut dice, &mut columns);
            writeln!(script, "{one}").unwrap();
        }
        server.sql(&script).unwrap();
        reader.settings.batch_rows_max = [5, 50, 8_192][dice.below(3) as usize];
        for _ in 0..dice.below(4) {
            // A place that moves on, so that there is a batch also when all changes were read.
            server.sql("INSERT INTO t.m VALUES (1)").unwrap();
            reader.step().await;
        }
        match dice.below(4) {
            0 | 1 => {
                reader.drop_source();
                kills += 1;
            }
            2 if round % 5 == 0 => {
                server.kill_hard().unwrap();
                server.restart().unwrap();
                kills += 1;
            }
            _ => {}
        }
    }
    reader.until_mark(&server, 1).await;
    assert!(kills > rounds / 4, "{kills}");
    let mut again = Reader::new(settings(&server, &captured));
    again.resume = origin;
    again.until("the mark", |r| r.changes.len() >= reader.changes.len()).await;
    let (got, want): (Vec<_>, Vec<_>) = (reader.changes.iter().map(told).collect(), again.changes.iter().map(told).collect());
    if let Some(i) = (0..got.len().max(want.len())).find(|&i| got.get(i) != want.get(i)) {
        panic!("seed {seed}: change {i} is\n{:?}, undisturbed\n{:?}", got.get(i), want.get(i));
    }
    let (folded, now) = (fold(&reader.changes), tables_now(&settings(&server, &["t.a", "t.b"])).await);
    assert_eq!(without_dropped(&folded, &now), now, "seed {seed}");
    let n: usize = server.sql("SELECT (SELECT COUNT(*) FROM t.a) + (SELECT COUNT(*) FROM t.b)").unwrap().parse().unwrap();
    assert_eq!(now.values().map(|rows| rows.len()).sum::<usize>(), n);
}

/// A column that was added has its default in rows that were not written since, and one that was dropped is gone: DDL has no row events.
fn without_dropped(folded: &crate::mysql_kit::Tables, now: &crate::mysql_kit::Tables) -> crate::mysql_kit::Tables {
    let mut folded = folded.clone();
    for (name, rows) in &mut folded {
        for (key, row) in rows.iter_mut() {
            let Some(now) = now.get(name).and_then(|rows| rows.get(key)) else { continue };
            row.retain(|column, _| now.contains_key(column));
            for (column, value) in now.iter().filter(|(c, _)| c.starts_with('c')) {
                row.entry(column.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    folded
}

#[tokio::test]
async fn interrupted_at_random_it_is_the_same_stream() {
    is_undisturbed(&Settings::default(), 1, 40).await;
}

fn without_metadata() -> Settings {
    Settings::default().with("binlog-row-metadata", least_metadata())
}

#[tokio::test]
async fn interrupted_without_metadata_and_checksums_it_is_the_same_stream() {
    let mut server = start(
        &without_metadata()
            .with("binlog-checksum", "NONE")
            .with("loose-log-bin-compress", "ON")
            .with("loose-log-bin-compress-min-len", "10")
            .with("loose-binlog-transaction-compression", "ON"),
    );
    server.sql(TABLES).unwrap();
    let mut reader = from_here(&server, &["t.a", "t.mark"]).await;
    server.sql("INSERT INTO t.a VALUES (1, -1.50, 'x', NULL), (2, 2, repeat('y', 3000), '2024-01-01 00:00:00')").unwrap();
    reader.until("rows", |r| r.count(Op::Create) == 2).await;
    reader.drop_source();
    server.kill_hard().unwrap();
    server.restart().unwrap();
    server.sql("UPDATE t.a SET id = 3 WHERE id = 2; DELETE FROM t.a WHERE id = 1").unwrap();
    reader.until_mark(&server, 1).await;
    assert_eq!(fold(&reader.changes), tables_now(&reader.settings).await);
    assert_eq!((reader.count(Op::Create), reader.count(Op::Update), reader.count(Op::Delete)), (2, 1, 1));
}

#[tokio::test]
async fn a_large_transaction_comes_in_batches_and_is_continued_in_its_middle() {
    const ROWS: usize = 60_000;
    let server = start(&Settings::default());
    server.sql("CREATE TABLE t.big (id int PRIMARY KEY, text varchar(100))").unwrap();
    let mut reader = from_here(&server, &["t.big", "t.mark"]).await;
    reader.settings.batch_rows_max = 2_000;
    reader.drop_source();
    server.sql(&format!("INSERT INTO t.big SELECT seq, repeat('r', 90) FROM {}", series(&server, 1, ROWS as u64))).unwrap();
    let batches = reader.until_created_with_drops(ROWS).await;
    reader.until_mark(&server, 1).await;
    assert_eq!(reader.ids_of("big"), (1..=ROWS as i64).map(Datum::Int).collect::<Vec<_>>());
    assert!(batches >= ROWS / 2_500 && reader.largest < 2_500, "{batches} batches, the largest {}", reader.largest);
}

#[tokio::test]
async fn a_minimal_image_has_what_it_has_and_the_rest_is_unavailable() {
    let server = start(&Settings::default().with("binlog-row-image", "MINIMAL"));
    server.sql("CREATE TABLE t.a (id int PRIMARY KEY, x int, y text); INSERT INTO t.a VALUES (1, 1, 'one'), (2, 2, NULL)").unwrap();
    let mut settings = settings(&server, &["t.a", "t.mark"]);
    settings.snapshot = mulgil_capture::snapshot_mode::SnapshotMode::Initial;
    let mut reader = Reader::new(settings);
    reader.until_snapshot_done().await;
    server.sql("UPDATE t.a SET x = 10 WHERE id = 1; UPDATE t.a SET id = 3 WHERE id = 2; INSERT INTO t.a VALUES (4, 4, 'four'); DELETE FROM t.a WHERE id = 4").unwrap();
    reader.until_mark(&server, 1).await;
    let update = reader.changes.iter().find(|c| c.op == Op::Update).unwrap();
    let What::Row { before, after, .. } = &update.what else { panic!("{update:?}") };
    let gone = Datum::Unavailable;
    assert_eq!(before.as_ref().unwrap(), &[Datum::Int(1), gone.clone(), gone.clone()]);
    // The key is what it was, or the server would have sent it.
    assert_eq!(after.as_ref().unwrap(), &[Datum::Int(1), Datum::Int(10), gone]);
    assert_eq!(fold(&reader.changes), tables_now(&reader.settings).await);
}

#[tokio::test]
async fn the_cut_over_of_gh_ost_goes_on_under_the_tables_name() {
    let server = start(&Settings::default());
    server.sql("CREATE TABLE t.orders (id int PRIMARY KEY, v int); INSERT INTO t.orders VALUES (1, 1)").unwrap();
    let mut reader = from_here(&server, &["t.*"]).await;
    server
        .sql(
            "CREATE TABLE t._orders_gho LIKE t.orders; ALTER TABLE t._orders_gho ADD COLUMN w varchar(10) DEFAULT 'new'; \
             INSERT INTO t._orders_gho (id, v) SELECT * FROM t.orders; INSERT INTO t.orders VALUES (2, 2); INSERT INTO t._orders_gho (id, v) VALUES (2, 2); \
             RENAME TABLE t.orders TO t._orders_del, t._orders_gho TO t.orders; INSERT INTO t.orders VALUES (3, 3, 'after'); DROP TABLE t._orders_del;",
        )
        .unwrap();
    reader.until_mark(&server, 1).await;
    let seen: Vec<_> = reader
        .changes
        .iter()
        .filter(|c| &*c.what.table().unwrap().table != "mark")
        .map(|c| match &c.what {
            What::Row { table, after, .. } => format!("{} v{} {:?} {:?}", table.id, table.version, c.op, after.as_ref().map(Vec::len)),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, ["t.orders v1 Create Some(2)", "t.orders v2 Create Some(3)"]);
}

#[tokio::test]
async fn ddl_while_nobody_reads_keeps_every_row() {
    let server = start(&without_metadata());
    server.sql("CREATE TABLE t.p (id int PRIMARY KEY, a int unsigned); CREATE TABLE t.q (id int PRIMARY KEY, a int, b int)").unwrap();
    let mut reader = from_here(&server, &["t.p", "t.q", "t.mark"]).await;
    reader.drop_source();
    server
        .sql(
            "INSERT INTO t.p VALUES (1, 4000000000); ALTER TABLE t.p ADD COLUMN b text; INSERT INTO t.p VALUES (2, 2, 'b'); \
             INSERT INTO t.q VALUES (1, 2, 3); ALTER TABLE t.q DROP COLUMN a; INSERT INTO t.q VALUES (4, 5); \
             CREATE EVENT t.e ON SCHEDULE EVERY 1 YEAR DO DELETE FROM t.q; /* nobody knows */ OPTIMIZE TABLE t.p; ANALYZE TABLE t.q",
        )
        .unwrap();
    reader.until_mark(&server, 1).await;
    let rows: Vec<_> = reader
        .changes
        .iter()
        .filter_map(|c| match &c.what {
            What::Row { table, after: Some(row), .. } if &*table.id.table != "mark" => {
                Some(format!("{} {} {row:?}", table.id.table, table.columns.iter().map(|c| &*c.name).collect::<Vec<_>>().join(",")))
            }
            _ => None,
        })
        .collect();
    // Columns added behind have the catalog's names before; where one in front is gone, columns have numbers.
    assert_eq!(
        rows,
        [
            "p id,a [Int(1), Int(4000000000)]",
            "p id,a,b [Int(2), Int(2), Text(b\"b\")]",
            "q @1,@2,@3 [Int(1), Int(2), Int(3)]",
            "q id,b [Int(4), Int(5)]",
        ]
    );
}
