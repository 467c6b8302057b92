//! Accidents of PostgreSQL, by name: each ends in going on without a hole, or in a refusal that says what, where and what can be done.

use super::accident::{POSTGRES, Proxy, capture_detail, drop_slot, postgres};
use crate::program::until;
use mulgil_servers::{Postgres, Settings, wait_until};
use std::time::Duration;

#[test]
fn slot_dropped() {
    let accident = postgres(&POSTGRES, "slot_dropped", "");
    let sql = |text: &str| POSTGRES.sql_in("slot_dropped", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("INSERT INTO t VALUES (2)");
    accident.until_seen("r1 c2");
    drop_slot(&POSTGRES, "slot_dropped");
    sql("INSERT INTO t VALUES (3); DELETE FROM t WHERE id = 1");
    accident.refused(running, &["the replication slot slot_dropped is gone", "may be lost", "Choose", "capture forget exchange"]);
    // Nothing changes by itself.
    accident.refused(accident.world.start(), &["slot_dropped is gone"]);
    accident.forget();
    let running = accident.world.start();
    accident.until_seen("r1 c2 r2 r3");
    sql("INSERT INTO t VALUES (4)");
    accident.until_seen("r1 c2 r2 r3 c4");
    running.stop();
}

#[test]
fn slot_recreated() {
    let accident = postgres(&POSTGRES, "slot_recreated", "");
    let sql = |text: &str| POSTGRES.sql_in("slot_recreated", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    running.stop();
    drop_slot(&POSTGRES, "slot_recreated");
    sql("INSERT INTO t VALUES (2)");
    sql("SELECT pg_create_logical_replication_slot('slot_recreated', 'pgoutput')");
    accident.refused(accident.world.start(), &["slot_recreated was made again or moved by somebody else", "Choose"]);
    assert_eq!(accident.seen(), "r1");
}

#[test]
fn slot_dropped_when_needed_reads_everything_again() {
    let accident = postgres(&POSTGRES, "slot_needed", "snapshot = \"when_needed\"\n");
    let sql = |text: &str| POSTGRES.sql_in("slot_needed", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("INSERT INTO t VALUES (2)");
    accident.until_seen("r1 c2");
    drop_slot(&POSTGRES, "slot_needed");
    sql("INSERT INTO t VALUES (3); DELETE FROM t WHERE id = 1");
    // What was there before is void: a truncate says so.
    accident.until_seen("r1 c2 t r2 r3");
    sql("INSERT INTO t VALUES (4)");
    accident.until_seen("r1 c2 t r2 r3 c4");
    running.stop();
}

#[test]
fn publication_without_the_table() {
    let accident = postgres(&POSTGRES, "publication_cut", "");
    let sql = |text: &str| POSTGRES.sql_in("publication_cut", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("INSERT INTO t VALUES (2)");
    accident.until_seen("r1 c2");
    sql("ALTER PUBLICATION mulgil_exchange DROP TABLE t; INSERT INTO t VALUES (3)");
    accident.refused(running, &["public.t", "publication mulgil_exchange", "Choose"]);
    // It is not put back in silence, as if nothing had been missed.
    accident.refused(accident.world.start(), &["public.t"]);
    assert_eq!(accident.seen(), "r1 c2");
}

#[test]
fn publication_dropped() {
    let accident = postgres(&POSTGRES, "publication_gone", "");
    let sql = |text: &str| POSTGRES.sql_in("publication_gone", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("DROP PUBLICATION mulgil_exchange; INSERT INTO t VALUES (2)");
    accident.refused(running, &["publication mulgil_exchange", "Choose"]);
    // Made again it does not help: PostgreSQL decodes a change with the catalog of its time.
    sql("CREATE PUBLICATION mulgil_exchange FOR TABLE t");
    accident.refused(accident.world.start(), &["publication mulgil_exchange", "Choose"]);
    drop_slot(&POSTGRES, "publication_gone");
    accident.forget();
    let running = accident.world.start();
    accident.until_seen("r1 r1 r2");
    running.stop();
}

#[test]
fn table_dropped_and_recreated() {
    let accident = postgres(&POSTGRES, "table_anew", "");
    let sql = |text: &str| POSTGRES.sql_in("table_anew", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    // As somebody does it who knows of the publication: everything is there.
    sql("BEGIN; DROP TABLE t; CREATE TABLE t (v text, id int PRIMARY KEY, more int); \
         ALTER PUBLICATION mulgil_exchange ADD TABLE t; INSERT INTO t VALUES ('new', 5, 1); COMMIT");
    accident.until_seen("r1 c5");
    // And as somebody who does not: PostgreSQL sends nothing of the new table.
    sql("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (6)");
    accident.refused(running, &["public.t", "publication mulgil_exchange", "Choose"]);
    assert_eq!(accident.seen(), "r1 c5");
}

#[test]
fn replica_identity_changed() {
    let accident = postgres(&POSTGRES, "identity", "");
    let sql = |text: &str| POSTGRES.sql_in("identity", text).unwrap();
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("UPDATE t SET v = 'a'; ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET v = 'b'");
    sql(
        "CREATE UNIQUE INDEX by_v ON t (v); ALTER TABLE t ALTER v SET NOT NULL; ALTER TABLE t REPLICA IDENTITY USING INDEX by_v; UPDATE t SET v = 'c'",
    );
    sql("ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET v = 'd'; DELETE FROM t");
    // With an index as its identity, the index is the table's key: it changes.
    accident.until_seen("r1 u1 u1 d c1 u1 d1");
    let events = accident.world.events("exchange.public.t");
    let befores: Vec<String> = events.iter().map(|e| e["before"].to_string()).collect();
    let expected = ["null", "null", r#"{"id":1,"v":"a"}"#, r#"{"id":null,"v":"b"}"#, "null", "null", r#"{"id":1,"v":null}"#];
    assert_eq!(befores, expected, "the row before has what the identity gives");
    running.stop();
}

#[test]
fn connection_cut_silently() {
    let mut accident = postgres(&POSTGRES, "cut", "");
    let sql = |text: &str| POSTGRES.sql_in("cut", text).unwrap();
    let proxy = Proxy::to(POSTGRES.port());
    accident.at_port(POSTGRES.port(), proxy.port);
    let running = accident.world.start();
    accident.until_seen("r1");
    sql("INSERT INTO t VALUES (2)");
    accident.until_seen("r1 c2");
    proxy.cut(true);
    sql("INSERT INTO t VALUES (3)");
    until("the silence is noticed", || capture_detail(&running).contains("waiting").then_some(()));
    proxy.cut(false);
    // The server does not know that the old connection is dead, and keeps the slot for it as long as its wal_sender_timeout says.
    POSTGRES.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'cut'").unwrap();
    accident.until_seen("r1 c2 c3");
    running.stop();
}

#[test]
fn server_restarted_and_wal_limit_reached() {
    let settings = Settings::default()
        .with("max_slot_wal_keep_size", "1MB")
        .with("wal_keep_size", "0")
        .with("max_wal_size", "32MB")
        .with("min_wal_size", "32MB");
    let mut server = Postgres::start(&settings).unwrap();
    let accident = postgres(&server, "wal_limit", "");
    let running = accident.world.start();
    accident.until_seen("r1");
    server.restart().unwrap();
    server.sql_in("wal_limit", "INSERT INTO t VALUES (2)").unwrap();
    accident.until_seen("r1 c2");
    // A program that stands still, as on a machine without memory, while the database goes on.
    running.signal("STOP");
    wait_until("the slot has lost its WAL", Duration::from_secs(60), || {
        server.sql("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 4000000)) FROM generate_series(1, 5); SELECT pg_switch_wal(); CHECKPOINT")?;
        Ok(server.sql("SELECT wal_status FROM pg_replication_slots")? == "lost")
    })
    .unwrap();
    server.sql_in("wal_limit", "INSERT INTO t VALUES (3)").unwrap();
    running.signal("CONT");
    accident.refused(running, &["lost its WAL", "max_slot_wal_keep_size", "Choose"]);
    drop_slot(&server, "wal_limit");
    accident.forget();
    let running = accident.world.start();
    accident.until_seen("r1 c2 r1 r2 r3");
    running.stop();
}

#[test]
fn standby_promoted() {
    let primary = Postgres::start(&Settings::default()).unwrap();
    let mut accident = postgres(&primary, "promoted", "");
    let running = accident.world.start();
    accident.until_seen("r1");
    let standby = Postgres::standby_of(&primary, &Settings::default()).unwrap();
    primary.sql_in("promoted", "INSERT INTO t VALUES (2)").unwrap();
    accident.until_seen("r1 c2");
    running.stop();
    let end = primary.sql("SELECT pg_current_wal_lsn()").unwrap();
    let is_there = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
    wait_until("the standby is there", Duration::from_secs(60), || Ok(standby.sql(&is_there)? == "t")).unwrap();
    accident.at(standby.url("promoted"));
    // Before version 16 a standby decodes nothing: it is tried again until the standby has taken over.
    let running = accident.world.start();
    until("it waits for the promotion", || capture_detail(&running).contains("standby").then_some(()));
    drop(primary);
    standby.promote().unwrap();
    standby.sql_in("promoted", "INSERT INTO t VALUES (3)").unwrap();
    // Slots are a server's own: the one that takes over has none.
    accident.refused(running, &["the replication slot promoted is gone", "Choose"]);
    assert_eq!(accident.seen(), "r1 c2");
    accident.forget();
    let running = accident.world.start();
    accident.until_seen("r1 c2 r1 r2 r3");
    standby.sql_in("promoted", "INSERT INTO t VALUES (4)").unwrap();
    accident.until_seen("r1 c2 r1 r2 r3 c4");
    running.stop();
}
