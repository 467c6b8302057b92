//! Accidents of MariaDB, by name: each ends in going on without a hole, or in a refusal that says what, where and what can be done.

use super::accident::{MARIADB, Proxy, capture_detail, mariadb};
use crate::program::until;
use mulgil_servers::{MariaDb, Settings, wait_until};
use std::time::Duration;

#[test]
fn binlog_purged() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    let accident = mariadb(&server, "purged", "");
    let sql = |text: &str| server.sql_in("purged", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("INSERT INTO t VALUES (2, NULL)");
    accident.until_seen("r1 c2");
    running.stop();
    sql("INSERT INTO t VALUES (3, NULL); FLUSH BINARY LOGS");
    // Not as long as the server has not noticed that its last reader is gone.
    let purged = || !sql("PURGE BINARY LOGS TO 'binlog.000002'; SHOW BINARY LOGS").contains("binlog.000001");
    wait_until("the first file is gone", Duration::from_secs(60), || Ok(purged())).unwrap();
    accident.refused(accident.world.start(), &["binlog.000001", "purged", "Choose", "capture forget exchange"]);
    accident.forget();
    let running = accident.world.start();
    accident.until_seen("r1 c2 r1 r2 r3");
    sql("INSERT INTO t VALUES (4, NULL)");
    accident.until_seen("r1 c2 r1 r2 r3 c4");
    running.stop();
}

#[test]
fn server_switched() {
    let (first, second) = (MariaDb::start(&Settings::default()).unwrap(), MariaDb::start(&Settings::default()).unwrap());
    let mut accident = mariadb(&first, "switched", "");
    let running = accident.world.start();
    accident.until_seen("r1");
    first.sql_in("switched", "INSERT INTO t VALUES (2, NULL)").unwrap();
    accident.until_seen("r1 c2");
    running.stop();
    accident.at(second.url("switched"));
    // One that knows nothing of the transactions that were read.
    second.sql("CREATE DATABASE switched").unwrap();
    accident.refused(accident.world.start(), &["another server", "Choose"]);
    second.sql("DROP DATABASE switched; RESET MASTER").unwrap();
    // A replica is gone on with, by the names of transactions.
    let replicate = format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'root', MASTER_USE_GTID = slave_pos; START SLAVE",
        first.port()
    );
    second.sql(&replicate).unwrap();
    first.sql_in("switched", "INSERT INTO t VALUES (3, NULL); UPDATE t SET v = 'x' WHERE id = 1").unwrap();
    let at = first.sql("SELECT @@gtid_binlog_pos").unwrap();
    assert_eq!(second.sql(&format!("SELECT MASTER_GTID_WAIT('{at}', 60)")).unwrap(), "0");
    second.sql("STOP SLAVE").unwrap();
    let running = accident.world.start();
    accident.until_seen("r1 c2 c3 u1");
    second.sql_in("switched", "INSERT INTO t VALUES (4, NULL)").unwrap();
    accident.until_seen("r1 c2 c3 u1 c4");
    running.stop();
}

#[test]
fn connection_cut_silently() {
    let mut accident = mariadb(&MARIADB, "cut", "");
    let sql = |text: &str| MARIADB.sql_in("cut", text).unwrap();
    let proxy = Proxy::to(MARIADB.port());
    accident.at_port(MARIADB.port(), proxy.port);
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("INSERT INTO t VALUES (2, NULL)");
    accident.until_seen("r1 c2");
    proxy.cut(true);
    sql("INSERT INTO t VALUES (3, NULL)");
    until("the silence is noticed", || capture_detail(&running).contains("waiting").then_some(()));
    proxy.cut(false);
    accident.until_seen("r1 c2 c3");
    running.stop();
}

#[test]
fn table_dropped_and_recreated() {
    let accident = mariadb(&MARIADB, "table_anew", "");
    let sql = |text: &str| MARIADB.sql_in("table_anew", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("DROP TABLE t; CREATE TABLE t (v text, id int PRIMARY KEY, more int); INSERT INTO t VALUES ('new', 5, 1)");
    sql("CREATE OR REPLACE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (6)");
    sql("RENAME TABLE t TO gone; CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (7); INSERT INTO gone VALUES (8)");
    accident.until_seen("r1 c5 c6 c7");
    running.stop();
}

#[test]
fn server_restarted() {
    let mut server = MariaDb::start(&Settings::default()).unwrap();
    let accident = mariadb(&server, "restarted", "");
    let running = accident.world.start();
    accident.until_seen("r1");
    server.restart().unwrap();
    server.sql_in("restarted", "INSERT INTO t VALUES (2, NULL)").unwrap();
    accident.until_seen("r1 c2");
    server.kill_hard().unwrap();
    until("it is told", || capture_detail(&running).contains("waiting").then_some(()));
    server.restart().unwrap();
    server.sql_in("restarted", "INSERT INTO t VALUES (3, NULL)").unwrap();
    accident.until_seen("r1 c2 c3");
    running.stop();
}
