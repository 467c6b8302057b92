use mulgil_servers::{Postgres, Settings};

#[test]
fn it_decodes_its_wal_and_comes_back_after_a_kill() {
    let mut server = Postgres::start(&Settings::default().with("work_mem", "5MB")).unwrap();
    assert_eq!(server.sql("SHOW wal_level; SHOW work_mem; SHOW fsync").unwrap(), "logical\n5MB\noff");
    assert!(server.major().unwrap() >= 14);
    server.sql("CREATE TABLE t (id int PRIMARY KEY, s text)").unwrap();
    server.sql("COPY t FROM STDIN;\n1\tone\n2\t\\N\n\\.\n").unwrap();
    server.sql("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").unwrap();
    let port = server.port();
    server.kill_hard().unwrap();
    assert!(server.sql("SELECT 1").is_err(), "a killed server answers");
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_eq!(server.sql("SELECT * FROM t ORDER BY id; SELECT slot_name FROM pg_replication_slots").unwrap(), "1|one\n2|\ns");
    server.set("max_slot_wal_keep_size", "64MB");
    server.restart().unwrap();
    assert_eq!(server.sql("SHOW max_slot_wal_keep_size").unwrap(), "64MB");
}

#[test]
fn a_standby_follows_and_is_promoted() {
    let primary = Postgres::start(&Settings::default().durable()).unwrap();
    assert_eq!(primary.sql("SHOW fsync").unwrap(), "on");
    primary.sql("CREATE TABLE t AS SELECT 7 AS n").unwrap();
    let standby = Postgres::standby_of(&primary, &Settings::default()).unwrap();
    assert_eq!(standby.sql("SELECT pg_is_in_recovery(), n FROM t").unwrap(), "t|7");
    standby.promote().unwrap();
    standby.sql("INSERT INTO t VALUES (8)").unwrap();
}

#[test]
fn errors_say_what_happened() {
    let server = Postgres::start(&Settings::default().hba("host all bob 127.0.0.1/32 scram-sha-256")).unwrap();
    let error = server.sql("SELECT nothing").unwrap_err().to_string();
    assert!(error.contains("column \"nothing\" does not exist"), "{error}");
    server.sql("CREATE ROLE bob LOGIN PASSWORD 'right'").unwrap();
    let ask = |url: String| {
        let mut client = server.client("psql", "postgres");
        client.args(["-X", "-A", "-t", "-c", "SELECT current_user"]).arg(url).output().unwrap()
    };
    assert_eq!(ask(server.url_as("bob", "right", "postgres")).stdout, b"bob\n");
    assert!(String::from_utf8(ask(server.url_as("bob", "wrong", "postgres")).stderr).unwrap().contains("password authentication failed"));
    let error = Postgres::start(&Settings::default().with("wal_level", "sideways")).map(drop).unwrap_err();
    assert!(format!("{error:#}").contains("invalid value for parameter \"wal_level\""), "{error:#}");
}
