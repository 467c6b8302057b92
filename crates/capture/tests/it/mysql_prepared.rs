//! Transactions of two phases (`XA`) on a real MariaDB: nothing before `XA COMMIT`, and nothing at all after `XA ROLLBACK`.

use crate::mysql_kit::{Dice, Reader, fold, follow, follows_no_more, series, settings, tables_now};
use mulgil_capture::change::{Change, Op, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::source::SourceErrorKind;
use mulgil_servers::{MariaDb, Settings, wait_until};
use std::time::Duration;

/// What is prepared holds its locks: of its rows alone, not of what lies between them.
fn without_gaps() -> Settings {
    Settings::default().with("transaction-isolation", "READ-COMMITTED")
}

fn start() -> MariaDb {
    let server = MariaDb::start(&without_gaps()).unwrap();
    server.sql("CREATE DATABASE t; CREATE TABLE t.mark (id int PRIMARY KEY); CREATE TABLE t.x (id int PRIMARY KEY, v varchar(100)); CREATE TABLE t.m (id int) ENGINE=MyISAM").unwrap();
    server
}

async fn from_here(server: &MariaDb) -> Reader {
    let mut reader = Reader::new(settings(server, &["t.x", "t.mark"]));
    reader.until_mark(server, 0).await;
    reader.changes.clear();
    reader
}

fn prepare(server: &MariaDb, name: &str, statements: &str) {
    server.sql(&format!("XA START '{name}'; {statements}; XA END '{name}'; XA PREPARE '{name}'")).unwrap();
}

/// `COMMIT` or `ROLLBACK`, as soon as the server has noticed that the session that prepared it is gone.
fn end(server: &MariaDb, what: &str, name: &str) {
    let is_done = || Ok(server.sql(&format!("XA {what} '{name}'")).is_ok());
    wait_until(&format!("XA {what} {name}"), Duration::from_secs(30), is_done).unwrap();
}

/// `Create 7` for each change, without the marks.
fn told(reader: &Reader) -> Vec<String> {
    let one = |c: &Change| match &c.what {
        What::Row { table, before, after } if &*table.id.table == "x" => {
            let id = after.as_ref().or(before.as_ref()).map(|row| row[0].clone());
            Some(format!("{:?} {:?}", c.op, id.unwrap()))
        }
        _ => None,
    };
    reader.changes.iter().filter_map(one).collect()
}

fn noted(reader: &Reader) -> usize {
    reader.resume.as_ref().unwrap().notes["prepared"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn what_is_prepared_comes_with_its_commit_or_never() {
    // In memory, and read again from the binlog.
    for prepared_bytes_max in [1 << 20, 0] {
        let server = start();
        let mut reader = from_here(&server).await;
        reader.settings.prepared_bytes_max = prepared_bytes_max;
        reader.drop_source();
        prepare(
            &server,
            "a",
            "INSERT INTO t.x VALUES (1, 'a'), (2, 'a'); SAVEPOINT s; INSERT INTO t.x VALUES (3, 'gone'); ROLLBACK TO s; INSERT INTO t.x VALUES (4, 'a')",
        );
        prepare(&server, "b", "INSERT INTO t.x VALUES (5, 'b')");
        prepare(&server, "a b\\'\\\\", "INSERT INTO t.x VALUES (6, 'an odd name')");
        server.sql("INSERT INTO t.x VALUES (7, 'between')").unwrap();
        server.sql("XA START 'one'; INSERT INTO t.x VALUES (8, 'one phase'); XA END 'one'; XA COMMIT 'one' ONE PHASE").unwrap();
        server.sql("XA START 'none'; INSERT INTO t.x VALUES (9, 'never prepared'); XA END 'none'; XA ROLLBACK 'none'").unwrap();
        reader.until_mark(&server, 1).await;
        assert_eq!(told(&reader), ["Create Int(7)", "Create Int(8)"]);
        assert_eq!(noted(&reader), 3);
        end(&server, "ROLLBACK", "b");
        server.sql("INSERT INTO t.x VALUES (5, 'another')").unwrap();
        end(&server, "COMMIT", "a");
        end(&server, "COMMIT", "a b\\'\\\\");
        server.sql("DELETE FROM t.x WHERE id = 1").unwrap();
        reader.until_mark(&server, 2).await;
        let behind = ["Create Int(5)", "Create Int(1)", "Create Int(2)", "Create Int(4)", "Create Int(6)", "Delete Int(1)"];
        assert_eq!(told(&reader)[2..], behind, "{prepared_bytes_max}");
        assert_eq!(noted(&reader), 0);
        assert_eq!(fold(&reader.changes), tables_now(&reader.settings).await);
        // Of the commit: its GTID, which no other transaction has, and its place.
        let of_x = reader.changes.iter().filter(|c| c.what.table().is_some_and(|id| &*id.table == "x"));
        let places: Vec<_> = of_x.map(|c| format!("{:?}", c.origin.place)).collect();
        assert!(places[2] != places[3] && places[3] == places[4] && places[4] == places[5] && places[5] != places[6], "{places:?}");
    }
}

#[tokio::test]
async fn interrupted_at_random_prepared_transactions_are_the_same_stream() {
    let mut server = start();
    let mut reader = from_here(&server).await;
    let origin = reader.resume.clone();
    let mut dice = Dice(11);
    let (mut pending, mut next, mut drops): (Vec<u64>, u64, u64) = (Vec::new(), 0, 0);
    for round in 0..70 {
        next += 1;
        let from = next * 1_000;
        match dice.below(6) {
            0..=2 if pending.len() < 8 => {
                let last = from + [0, 3, 40, 400][dice.below(4) as usize];
                let undone = format!("SAVEPOINT s; UPDATE t.x SET v = 'undone' WHERE id BETWEEN {from} AND {last}; ROLLBACK TO s");
                // The engine without transactions makes the server write the rollback itself.
                let mixed =
                    if dice.below(3) == 0 && !server.is_mysql() { "SAVEPOINT s; INSERT INTO t.m VALUES (1)" } else { undone.as_str() };
                prepare(
                    &server,
                    &next.to_string(),
                    &format!(
                        "INSERT INTO t.x SELECT seq, repeat('r', 90) FROM {}; {mixed}; DELETE FROM t.x WHERE id = {from}",
                        series(&server, from, last)
                    ),
                );
                pending.push(next);
            }
            3 | 4 if !pending.is_empty() => {
                let name = pending.swap_remove(dice.below(pending.len() as u64) as usize);
                end(&server, ["COMMIT", "COMMIT", "ROLLBACK"][dice.below(3) as usize], &name.to_string());
            }
            _ => drop(server.sql(&format!("INSERT INTO t.x VALUES ({from}, 'plain'); FLUSH BINARY LOGS")).unwrap()),
        }
        if dice.below(2) == 0 {
            // A place that moves on, so that there is a batch also when all changes were read.
            server.sql("INSERT INTO t.m VALUES (2)").unwrap();
            reader.step().await;
        }
        reader.settings.batch_rows_max = [10, 100, 8_192][dice.below(3) as usize];
        reader.settings.prepared_bytes_max = [0, 5_000, 1 << 20][dice.below(3) as usize];
        if dice.below(3) == 0 {
            reader.drop_source();
            drops += 1;
        }
        if round == 40 {
            server.kill_hard().unwrap();
            server.restart().unwrap();
        }
    }
    for (i, name) in pending.iter().enumerate() {
        end(&server, ["COMMIT", "ROLLBACK"][i % 2], &name.to_string());
        reader.step().await;
        reader.drop_source();
    }
    reader.until_mark(&server, 1).await;
    assert!(drops > 10 && noted(&reader) == 0, "{drops}");
    let mut again = Reader::new(settings(&server, &["t.x", "t.mark"]));
    again.resume = origin;
    again.until("the mark", |r| r.changes.len() >= reader.changes.len()).await;
    let all = |r: &Reader| r.changes.iter().map(|c| format!("{} {:?} {:?} {:?}", c.position, c.op, c.what, c.origin)).collect::<Vec<_>>();
    let (got, want) = (all(&reader), all(&again));
    if let Some(i) = (0..got.len().max(want.len())).find(|&i| got.get(i) != want.get(i)) {
        panic!("change {i} is\n{:?}, undisturbed\n{:?}", got.get(i), want.get(i));
    }
    assert!(got.len() > 500, "{}", got.len());
    assert_eq!(fold(&reader.changes), tables_now(&reader.settings).await);
}

#[tokio::test]
async fn what_was_prepared_before_capture_began_is_found_in_the_binlog() {
    let server = start();
    // The same name before, ended in both ways.
    for (n, what) in [(1, "ROLLBACK"), (2, "COMMIT")] {
        prepare(&server, "a", &format!("INSERT INTO t.x VALUES ({n}, 'before')"));
        end(&server, what, "a");
        server.sql("FLUSH BINARY LOGS").unwrap();
    }
    prepare(&server, "a", "INSERT INTO t.x VALUES (3, 'prepared'), (4, 'prepared')");
    server.sql("FLUSH BINARY LOGS").unwrap();
    let mut reader = from_here(&server).await;
    assert_eq!(noted(&reader), 0);
    end(&server, "COMMIT", "a");
    prepare(&server, "a", "INSERT INTO t.x VALUES (5, 'later')");
    reader.until_mark(&server, 1).await;
    assert_eq!(told(&reader), ["Create Int(3)", "Create Int(4)"]);
}

#[tokio::test]
async fn a_large_prepared_transaction_is_bounded_and_gone_on_with_in_its_middle() {
    const ROWS: usize = 30_000;
    let server = start();
    let mut reader = from_here(&server).await;
    reader.settings.batch_rows_max = 1_000;
    reader.drop_source();
    prepare(&server, "big", &format!("INSERT INTO t.x SELECT seq, repeat('r', 90) FROM {}", series(&server, 1, ROWS as u64)));
    reader.until_mark(&server, 1).await;
    assert_eq!(reader.count(Op::Create), 0);
    end(&server, "COMMIT", "big");
    reader.until_created_with_drops(ROWS).await;
    reader.until_mark(&server, 2).await;
    assert_eq!(reader.ids_of("x"), (1..=ROWS as i64).map(Datum::Int).collect::<Vec<_>>());
    assert!(reader.largest < 1_500, "{}", reader.largest);
}

#[tokio::test]
async fn rows_that_were_purged_between_prepare_and_commit_are_a_hole_that_is_told() {
    let server = start();
    let mut reader = from_here(&server).await;
    prepare(&server, "a", "INSERT INTO t.x VALUES (1, 'a')");
    reader.until_mark(&server, 1).await;
    reader.drop_source();
    server.sql("FLUSH BINARY LOGS").unwrap();
    reader.until_mark(&server, 2).await;
    reader.drop_source();
    wait_until("the old file is purged", Duration::from_secs(30), || {
        server.sql("PURGE BINARY LOGS TO 'binlog.000002'")?;
        Ok(!server.sql("SHOW BINARY LOGS")?.contains("binlog.000001"))
    })
    .unwrap();
    end(&server, "COMMIT", "a");
    let error = loop {
        if let Err(e) = reader.try_step().await {
            break e;
        }
    };
    assert_eq!(error.kind, SourceErrorKind::Refused);
    assert!(error.to_string().contains("X'61'") && error.to_string().contains("new snapshot"), "{error}");
}

#[tokio::test]
async fn what_is_prepared_is_found_on_the_server_that_takes_over() {
    let server = start();
    let other = MariaDb::start(&without_gaps()).unwrap();
    // Its files are other ones.
    other.sql("FLUSH BINARY LOGS; FLUSH BINARY LOGS").unwrap();
    follow(&other, &server);
    let mut reader = from_here(&server).await;
    // In memory as well, which does not outlive the server.
    prepare(&server, "a", "INSERT INTO t.x VALUES (1, 'a'), (2, 'a')");
    prepare(&server, "b", "INSERT INTO t.x VALUES (3, 'b')");
    reader.until_mark(&server, 1).await;
    assert_eq!((noted(&reader), reader.count(Op::Create)), (2, 0));
    reader.drop_source();
    follows_no_more(&other, &server);
    reader.settings.address = other.url("").parse().unwrap();
    end(&other, "COMMIT", "a");
    end(&other, "ROLLBACK", "b");
    reader.until_mark(&other, 2).await;
    assert_eq!((told(&reader), noted(&reader)), (vec!["Create Int(1)".to_owned(), "Create Int(2)".to_owned()], 0));
    assert_eq!(fold(&reader.changes), tables_now(&reader.settings).await);
}
