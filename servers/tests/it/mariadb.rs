use mulgil_servers::{MariaDb, Settings};

#[test]
fn it_writes_a_row_binlog_and_comes_back_after_a_kill() {
    let mut server = MariaDb::start(&Settings::default().with("binlog-row-image", "MINIMAL")).unwrap();
    let asked = "SELECT @@binlog_format, @@binlog_row_metadata, @@binlog_row_image, @@gtid_strict_mode";
    assert_eq!(server.sql(asked).unwrap(), "ROW\tFULL\tMINIMAL\t1");
    assert!(server.version().unwrap().contains("MariaDB"));
    server.sql("CREATE DATABASE shop; USE shop; CREATE TABLE t (id int PRIMARY KEY, s text)").unwrap();
    server.sql_in("shop", "INSERT INTO t VALUES (1, 'a\tb'), (2, NULL), (3, '물길')").unwrap();
    let port = server.port();
    server.kill_hard().unwrap();
    assert!(server.sql("SELECT 1").is_err(), "a killed server answers");
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_eq!(server.sql("SELECT * FROM shop.t").unwrap(), "1\ta\\tb\n2\tNULL\n3\t물길");
    let over_tcp = server.client("mariadb").unwrap();
    let mut client = std::process::Command::new(over_tcp.get_program());
    client.args(["--no-defaults", "-h127.0.0.1", "-uroot", "--batch", "-Ne", "SELECT 1"]).arg(format!("-P{}", server.port()));
    assert_eq!(client.output().unwrap().stdout, b"1\n", "root without a password over TCP, as its url says");
}

#[test]
fn errors_say_what_happened() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    let error = server.sql("SELECT * FROM nowhere.t").unwrap_err().to_string();
    assert!(error.contains("Table 'nowhere.t' doesn't exist"), "{error}");
    let error = MariaDb::start(&Settings::default().with("no-such-thing", "1")).map(drop).unwrap_err();
    assert!(format!("{error:#}").contains("unknown variable 'no-such-thing=1'"), "{error:#}");
}
