//! What happens to servers and connections, and what the source says of it.

use crate::mysql_kit::{Reader, fold, follow, follows_no_more, least_metadata, reset, series, settings, tables_now, url_as};
use mulgil_capture::change::Op;
use mulgil_capture::mysql::check;
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::source::{SourceError, SourceErrorKind};
use mulgil_servers::{MariaDb, Settings};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const MARK: &str = "CREATE DATABASE t; CREATE TABLE t.mark (id int PRIMARY KEY); CREATE TABLE t.a (id int PRIMARY KEY, v text); INSERT INTO t.a VALUES (1, 'one')";

fn start(settings: &Settings) -> MariaDb {
    let server = MariaDb::start(settings).unwrap();
    server.sql(MARK).unwrap();
    server
}

async fn read_some(server: &MariaDb) -> Reader {
    let mut reader = Reader::new(settings(server, &["t.a", "t.mark"]));
    reader.until_mark(server, 1).await;
    reader.drop_source();
    reader
}

async fn refused(reader: &mut Reader) -> SourceError {
    let error = reader.try_open().await.expect_err("it must be refused");
    assert_eq!(error.kind, SourceErrorKind::Refused, "{error}");
    error
}

/// Reads everything again, above all positions before.
async fn heals_when_needed(reader: &mut Reader, server: &MariaDb) {
    reader.settings.snapshot = SnapshotMode::WhenNeeded;
    let before = reader.changes.len();
    // What is stored is of before: only what this opening gives tells of the new snapshot.
    reader.step().await;
    reader.until_snapshot_done().await;
    reader.until_mark(server, 77).await;
    assert_eq!(fold(&reader.changes[before..]), tables_now(&reader.settings).await);
}

#[tokio::test]
async fn a_purged_binlog_is_refused_and_healed_when_asked_for() {
    let server = start(&Settings::default());
    let mut reader = read_some(&server).await;
    server.sql("INSERT INTO t.a VALUES (2, 'missed'); FLUSH BINARY LOGS").unwrap();
    // Not as long as the server has not noticed that its last reader is gone.
    let purged = || !server.sql("PURGE BINARY LOGS TO 'binlog.000002'; SHOW BINARY LOGS").unwrap().contains("binlog.000001");
    mulgil_servers::wait_until("the first file is gone", Duration::from_secs(60), || Ok(purged())).unwrap();
    let said = refused(&mut reader).await.to_string();
    assert!(said.contains("purged") && said.contains("binlog.000001") && said.contains("when_needed"), "{said}");
    heals_when_needed(&mut reader, &server).await;
}

#[tokio::test]
async fn a_reset_binlog_is_refused_also_when_it_has_grown_again() {
    let server = start(&Settings::default());
    let mut reader = read_some(&server).await;
    reset(&server);
    let said = refused(&mut reader).await.to_string();
    assert!(said.contains("reset"), "{said}");
    server.sql(&format!("INSERT INTO t.a SELECT seq, repeat('x', 100) FROM {}", series(&server, 10, 200))).unwrap();
    let said = refused(&mut reader).await.to_string();
    assert!(said.contains("reset"), "{said}");
    heals_when_needed(&mut reader, &server).await;
}

/// The new binlog has the same bytes up to the place, and goes on as the old one would have.
#[tokio::test]
async fn a_reset_binlog_that_looks_alike_is_refused() {
    let server = start(&Settings::default());
    reset(&server);
    let mut reader = read_some(&server).await;
    let notes = reader.resume.as_ref().unwrap().notes.clone();
    let is_later = format!("SELECT UNIX_TIMESTAMP() > {}", notes["file_begun"]);
    mulgil_servers::wait_until("the next file is a second younger", Duration::from_secs(30), || Ok(server.sql(&is_later)? == "1")).unwrap();
    reset(&server);
    server.sql("SET sql_log_bin = 0; DELETE FROM t.mark; SET sql_log_bin = 1; INSERT INTO t.mark VALUES (1)").unwrap();
    let end = server.sql("SHOW BINARY LOGS").unwrap().split('\t').nth(1).unwrap().to_owned();
    assert_eq!((notes["file"].as_str(), notes["at"].to_string()), (Some("binlog.000001"), end), "the test is about this");
    server.sql("INSERT INTO t.a VALUES (50, 'missed')").unwrap();
    let said = refused(&mut reader).await.to_string();
    assert!(said.contains("reset"), "{said}");
    heals_when_needed(&mut reader, &server).await;
}

#[tokio::test]
async fn another_server_is_refused_and_a_replica_is_gone_on_with() {
    let (server, other) = (start(&Settings::default()), MariaDb::start(&Settings::default()).unwrap());
    let mut reader = read_some(&server).await;
    let old = reader.settings.address.clone();
    reader.settings.address = other.url("").parse().unwrap();
    let said = refused(&mut reader).await.to_string();
    let lacks = if server.is_mysql() { "lacks transactions" } else { "not come as far" };
    assert!(said.contains("another server") && said.contains(lacks), "{said}");

    follow(&other, &server);
    reader.settings.address = old;
    let numbers = series(&server, 10, 5_000);
    server.sql(&format!("INSERT INTO t.a SELECT seq, repeat('x', 100) FROM {numbers}; UPDATE t.a SET v = 'y' WHERE id = 1")).unwrap();
    // Left in the middle of a transaction.
    reader.settings.batch_rows_max = 1_000;
    reader.until("some of it", |r| r.count(Op::Create) >= 1_000).await;
    assert!(reader.count(Op::Create) < 4_991);
    reader.drop_source();
    follows_no_more(&other, &server);
    reader.settings.address = other.url("").parse().unwrap();
    reader.until_mark(&other, 2).await;
    assert_eq!((reader.count(Op::Create), reader.count(Op::Update)), (4_991, 1));
    reader.settings.gtid = mulgil_capture::mysql::settings::GtidMode::Off;
    reader.drop_source();
    reader.until_mark(&other, 3).await;
}

#[tokio::test]
async fn a_statement_in_the_binlog_instead_of_rows_is_refused() {
    let server = start(&Settings::default());
    let mut reader = read_some(&server).await;
    server.sql("SET binlog_format = STATEMENT; INSERT INTO t.mark VALUES (50)").unwrap();
    let error = loop {
        if let Err(e) = reader.try_step().await {
            break e;
        }
    };
    assert_eq!(error.kind, SourceErrorKind::Refused);
    assert!(error.to_string().contains("binlog_format = ROW"), "{error}");
}

/// Passes bytes on until it is told to swallow them, on both ways and without a word.
async fn proxy(to: u16) -> (u16, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let ((mut cr, mut cw), (mut sr, mut sw)) = (client.into_split(), server.into_split());
            let (a, b) = (is_cut.clone(), is_cut.clone());
            tokio::spawn(async move { pass(&mut cr, &mut sw, &a).await });
            tokio::spawn(async move { pass(&mut sr, &mut cw, &b).await });
        }
    });
    (port, cut)
}

async fn pass(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin), is_cut: &watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 {
            return;
        }
        if !*is_cut.borrow() && to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_connection_that_is_silently_cut_is_noticed_by_its_silence() {
    let server = start(&Settings::default());
    let (port, cut) = proxy(server.port()).await;
    let mut reader = Reader::new(settings(&server, &["t.a", "t.mark"]));
    reader.settings.address.port = port;
    reader.settings.heartbeat = Duration::from_millis(200);
    reader.until_mark(&server, 1).await;
    cut.send(true).unwrap();
    server.sql("INSERT INTO t.a VALUES (2, 'unseen')").unwrap();
    let error = loop {
        if let Err(e) = reader.try_step().await {
            break e;
        }
    };
    assert_eq!(error.kind, SourceErrorKind::Retry);
    assert!(error.to_string().contains("said nothing"), "{error}");
    cut.send(false).unwrap();
    reader.drop_source();
    reader.until("the row", |r| r.count(Op::Create) == 1).await;
}

#[tokio::test]
async fn an_idle_server_moves_the_place_on_and_no_change_comes() {
    let server = start(&Settings::default());
    let mut reader = Reader::new(settings(&server, &["t.a", "t.mark"]));
    reader.settings.heartbeat = Duration::from_millis(100);
    reader.until_mark(&server, 1).await;
    server.sql("CREATE TABLE t.uncaptured (id int); INSERT INTO t.uncaptured VALUES (1); FLUSH BINARY LOGS").unwrap();
    reader.until("the next file", |r| r.resume.as_ref().unwrap().notes["file"] == "binlog.000002").await;
    assert_eq!(reader.changes.len(), 1);
}

#[tokio::test]
async fn check_names_what_is_missing_and_its_statement_puts_it_right() {
    let server = start(&Settings::default().with("binlog-format", "MIXED").with("binlog-row-metadata", least_metadata()));
    server.sql("CREATE USER cdc@'%' IDENTIFIED BY 'pw'; CREATE TABLE t.nokey (v int)").unwrap();
    let mut settings = settings(&server, &["t.a", "t.nokey"]);
    settings.snapshot = SnapshotMode::Initial;
    settings.address = url_as(&server, "cdc", "pw").parse().unwrap();
    let missing = check(&settings).await.unwrap();
    let fatal: Vec<_> =
        missing.iter().filter(|m| m.is_fatal).map(|m| m.fix.split("; --").next().unwrap().trim_end_matches(';').to_owned()).collect();
    assert_eq!(
        fatal,
        [
            "SET GLOBAL binlog_format = 'ROW'",
            "GRANT REPLICATION SLAVE ON *.* TO 'cdc'@'%'",
            if server.is_mysql() { "GRANT REPLICATION CLIENT ON *.* TO 'cdc'@'%'" } else { "GRANT BINLOG MONITOR ON *.* TO 'cdc'@'%'" },
            "GRANT SELECT ON `t`.`a` TO 'cdc'@'%'",
            "GRANT SELECT ON `t`.`nokey` TO 'cdc'@'%'",
        ]
    );
    for statement in fatal {
        server.sql(&statement).unwrap();
    }
    let missing = check(&settings).await.unwrap();
    assert!(missing.iter().all(|m| !m.is_fatal), "{missing:?}");
    assert!(
        missing.iter().any(|m| m.what.contains("binlog_row_metadata"))
            && missing.iter().any(|m| m.what.contains("t.nokey has no primary key")),
        "{missing:?}"
    );
    let mut reader = Reader::new(settings);
    reader.until("both tables", |r| r.count(Op::Read) == 1).await;
    server.sql("INSERT INTO t.a VALUES (3, 'three')").unwrap();
    reader.until("a change", |r| r.count(Op::Create) == 1).await;
}

#[tokio::test]
async fn a_wrong_password_or_table_is_a_setting_and_shows_no_secret() {
    let server = start(&Settings::default());
    server.sql("CREATE USER cdc@'%' IDENTIFIED BY 'right'").unwrap();
    let mut reader = Reader::new(settings(&server, &["t.a"]));
    reader.settings.address = url_as(&server, "cdc", "wrong").parse().unwrap();
    let error = reader.try_open().await.expect_err("wrong password");
    assert_eq!(error.kind, SourceErrorKind::Config);
    assert!(error.to_string().contains("1045") && !error.to_string().contains("wrong"), "{error}");
    let mut reader = Reader::new(settings(&server, &["t.nothing"]));
    reader.settings.snapshot = SnapshotMode::Initial;
    let error = reader.try_open().await.expect_err("no table");
    assert_eq!(error.kind, SourceErrorKind::Config, "{error}");
}

#[tokio::test]
async fn tls_is_used_and_certificates_are_verified_as_asked() {
    let folder = crate::own("tests/data");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let plain = start(&Settings::default());
    let secure = Settings::default().file("server.pem", &read("server.pem")).file("server.key", &read("server.key"));
    let server = start(&secure.with("ssl-cert", "server.pem").with("ssl-key", "server.key"));
    server.sql("CREATE USER tls@'%' IDENTIFIED BY 'pw' REQUIRE SSL; GRANT ALL ON *.* TO tls@'%'").unwrap();
    let connects = |server: &MariaDb, host: &str, options: &str| {
        let mut settings = settings(server, &["t.a"]);
        let url = format!("{}?{}", server.url_as("tls", "pw", ""), options.replace("DATA", &folder.display().to_string()));
        settings.address = url.replace("127.0.0.1", host).parse().unwrap();
        async move { Reader::new(settings).try_open().await.map_err(|e| e.to_string()) }
    };
    connects(&server, "127.0.0.1", "ssl-mode=preferred").await.unwrap();
    connects(&server, "127.0.0.1", "ssl-mode=verify-identity&ssl-ca=DATA/ca.pem").await.unwrap();
    connects(&server, "127.0.0.1", "ssl-mode=verify-ca&ssl-ca=DATA/ca.pem").await.unwrap();
    for mode in ["verify-ca", "verify-identity"] {
        let said = connects(&server, "127.0.0.1", &format!("ssl-mode={mode}&ssl-ca=DATA/other-ca.pem")).await.unwrap_err();
        assert!(said.contains("TLS"), "{said}");
    }
    assert!(connects(&server, "127.0.0.1", "ssl-mode=disabled").await.is_err());
    let said = connects(&plain, "127.0.0.1", "ssl-mode=required").await.unwrap_err();
    assert!(said.contains("TLS"), "{said}");
}
