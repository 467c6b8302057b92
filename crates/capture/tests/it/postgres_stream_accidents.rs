//! What goes wrong around a change stream: kills, cuts, slots that are gone. Nothing is lost, repeated or passed over in silence.

use crate::postgres_stream_kit::{Capture, SERVER, Session, database, emit, fold, show_all, show_change, table};
use mulgil_capture::postgres::check::check;
use mulgil_capture::postgres::slot::Lsn;
use mulgil_capture::source::{SourceError, SourceErrorKind};
use mulgil_model::position::Position;
use mulgil_servers::{Postgres, Settings};
use rand_of_tests::Rng;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Numbers from a seed, the same in every run.
mod rand_of_tests {
    pub struct Rng(pub u64);

    impl Rng {
        /// SplitMix64.
        pub fn next(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % below
        }
    }
}

/// Statements over a table `t (id, n, v)`: rows in and out, changed keys, savepoints, truncates, many rows at a time, DDL.
fn workload(rng: &mut Rng, n_statements: usize) -> String {
    let mut next_id = 0;
    let mut sql = String::new();
    for at in 0..n_statements {
        let some = |rng: &mut Rng| rng.next(next_id.max(1));
        sql += &match rng.next(12) {
            0..=3 => {
                let n = if rng.next(8) == 0 { 2_000 } else { 1 + rng.next(20) };
                next_id += n;
                format!(
                    "INSERT INTO t (id, n, v) SELECT g, 0, repeat('x', 150) FROM generate_series({}, {}) g;\n",
                    next_id - n,
                    next_id - 1
                )
            }
            4 | 5 => format!("UPDATE t SET n = n + 1 WHERE id % 7 = {};\n", rng.next(7)),
            6 => format!("UPDATE t SET id = -id - 1000000 * {at} WHERE id = {};\n", some(rng)),
            7 => format!("DELETE FROM t WHERE id BETWEEN {0} AND {0} + 5;\n", some(rng)),
            8 => {
                next_id += 20;
                let (a, b) = (next_id - 20, next_id - 10);
                format!(
                    "BEGIN; INSERT INTO t (id) SELECT generate_series({a}, {a} + 9); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; \
                     INSERT INTO t (id) SELECT generate_series({b}, {b} + 9); COMMIT;\n"
                )
            }
            9 => "BEGIN; UPDATE t SET v = 'gone'; ROLLBACK;\n".to_owned(),
            10 if rng.next(4) == 0 => "TRUNCATE t;\n".to_owned(),
            10 => format!("ALTER TABLE t ADD extra{at} int DEFAULT {at}; ALTER TABLE t DROP COLUMN extra{at};\n"),
            _ => "SELECT pg_logical_emit_message(false, 'app', 'note');\n".to_owned(),
        };
    }
    sql
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, n int, v text)";
const ROWS: &str = "SELECT id, n, v FROM t";

/// Drops the source at random points, with batches that were read but not yet durable, and opens it again.
#[test]
fn dropped_at_random_points_every_change_comes_exactly_once() {
    for seed in 1..=2 {
        let db = database("kills");
        SERVER.sql_in(&db, TABLE).unwrap();
        let mut rng = Rng(seed);
        let sql = workload(&mut rng, 40);
        let mut straight = Capture::new(&SERVER, &db, &["public.t"]).bounds(97, 1 << 20);
        straight.settings.slot = format!("straight_{db}");
        straight.open().unwrap();
        let mut killed = Capture::new(&SERVER, &db, &["public.t"]).bounds(61, 1 << 20);
        killed.open().unwrap();
        SERVER.sql_in(&db, &format!("{sql}\n{}", emit("end"))).unwrap();
        straight.until("end");

        let mut n_kills = 0;
        while !killed.seen("end") {
            for _ in 0..rng.next(16) {
                let batch = killed.next().unwrap();
                // One in four is lost with the process, as are those after it.
                if rng.next(4) == 0 {
                    break;
                }
                killed.make_durable(batch);
            }
            if !killed.seen("end") {
                n_kills += 1;
                killed.drop_source();
                killed.open_patiently();
            } else {
                break;
            }
        }
        assert!(n_kills >= 10, "{n_kills}");
        let positions = |c: &Capture| c.changes.iter().map(|c| c.position).collect::<Vec<Position>>();
        assert_eq!(positions(&killed), positions(&straight), "seed {seed}");
        assert_eq!(show_all(&killed.changes), show_all(&straight.changes), "seed {seed}");
        assert_eq!(killed.changes, straight.changes, "shapes and origins too, seed {seed}");
        assert_eq!(fold(&killed.changes, "public.t"), table(&SERVER, &db, ROWS), "seed {seed}");
    }
}

#[test]
fn a_killed_server_comes_back_and_nothing_is_missing() {
    let mut server = Postgres::start(&Settings::default().with("logical_decoding_work_mem", "64kB").durable()).unwrap();
    server.sql(TABLE).unwrap();
    let mut c = Capture::new(&server, "postgres", &["public.t"]).bounds(200, 1 << 20);
    c.open().unwrap();
    let mut rng = Rng(9);
    for round in 0..4 {
        let from = round * 100_000;
        let small = format!(
            "INSERT INTO t (id, n) SELECT g, 0 FROM generate_series({from}, {from} + 99) g; UPDATE t SET n = n + 1 WHERE id >= {from};"
        );
        let large = format!("INSERT INTO t (id, n, v) SELECT g, 1, repeat('y', 100) FROM generate_series({from} + 1000, {from} + 4000) g;");
        server.sql(&format!("{small} {large} {}", emit(&format!("round {round}")))).unwrap();
        for _ in 0..rng.next(10) {
            c.step().unwrap();
        }
        server.kill_hard().unwrap();
        let error = loop {
            if let Err(error) = c.step() {
                break error;
            }
        };
        assert_eq!(error.kind, SourceErrorKind::Retry, "{error}");
        server.restart().unwrap();
        c.open_patiently();
    }
    server.sql(&emit("end")).unwrap();
    c.until("end");
    for round in 0..4 {
        assert!(c.seen(&format!("round {round}")));
    }
    assert_eq!(fold(&c.changes, "public.t"), table(&server, "postgres", ROWS));
}

/// A part of it is large enough to be sent before its commit, and PostgreSQL (14 to 18) cannot send that part: it takes what was rolled back of the DDL
/// for done. Read when all has happened, by one who was away.
#[test]
fn a_transaction_that_the_server_cannot_send_in_parts_is_waited_for() {
    let db = database("parts");
    SERVER.sql_in(&db, TABLE).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]);
    c.open().unwrap();
    c.after(&SERVER, &db, "INSERT INTO t VALUES (0, 0, 'before')");
    c.drop_source();
    let rows = |from: u32, to: u32| format!("INSERT INTO t (id, n, v) SELECT g, 0, md5(g::text) FROM generate_series({from}, {to}) g;");
    let sql = format!(
        "BEGIN; {} SAVEPOINT s; ALTER TABLE t ADD COLUMN x int DEFAULT 5; UPDATE t SET n = n + 1; {} ROLLBACK TO SAVEPOINT s; {} \
         ALTER TABLE t ADD COLUMN x varchar(9) DEFAULT 'in'; COMMIT; UPDATE t SET n = n + 1; {}",
        rows(1, 30),
        rows(1_000, 2_000),
        rows(3_000, 4_000),
        emit("end"),
    );
    SERVER.sql_in(&db, &sql).unwrap();
    c.open_patiently();
    let refusal = loop {
        match c.step() {
            Ok(()) if c.seen("end") => break None,
            Ok(()) => {}
            Err(error) => break Some(error),
        }
    };
    if let Some(error) = refusal {
        assert_eq!(error.kind, SourceErrorKind::Retry, "{error}");
        assert!(error.to_string().contains("asked for when they have committed"), "{error}");
        c.open_patiently();
        c.until("end");
    }
    assert_eq!(fold(&c.changes, "public.t"), table(&SERVER, &db, ROWS));
    assert!(c.changes.last().map(show_change).is_some_and(|c| c.ends_with("|in")), "the column that came is there");
    assert_eq!(c.changes.len(), 1 + (30 + 1_001) + (1 + 30 + 1_001));
}

fn refused(c: &mut Capture, part: &str) {
    let error = c.open().unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Refused, "{error}");
    assert!(error.message.contains(part) && error.message.contains("Choose"), "{error}");
}

#[test]
fn a_slot_that_is_gone_made_again_or_moved_is_refused() {
    let db = database("slots");
    SERVER.sql_in(&db, TABLE).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]);
    c.open().unwrap();
    c.after(&SERVER, &db, "INSERT INTO t VALUES (1)");
    c.drop_source();
    let slot = c.settings.slot.clone();
    let mut session = Session::open(&SERVER, &db);
    session.wait(&format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{slot}'"));
    session.run("INSERT INTO t VALUES (2)");
    session.run(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"));
    refused(&mut c, "moved by somebody else");
    session.run(&format!("SELECT pg_drop_replication_slot('{slot}')"));
    refused(&mut c, "is gone");
    session.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    refused(&mut c, "made again");
    // The person chose: the stored position is reset, and it goes on from where the slot is.
    c.resume = None;
    c.open_patiently();
    assert_eq!(show_all(&c.after(&SERVER, &db, "INSERT INTO t VALUES (3)")), "c public.t 3|∅|∅\n");
}

#[test]
fn a_slot_whose_wal_is_gone_is_refused() {
    let settings = Settings::default()
        .with("max_slot_wal_keep_size", "1MB")
        .with("wal_keep_size", "0")
        .with("max_wal_size", "32MB")
        .with("min_wal_size", "32MB");
    let server = Postgres::start(&settings).unwrap();
    server.sql(TABLE).unwrap();
    let mut c = Capture::new(&server, "postgres", &["public.t"]);
    c.open().unwrap();
    c.after(&server, "postgres", "INSERT INTO t VALUES (1)");
    c.drop_source();
    let lost = format!("SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = '{}'", c.settings.slot);
    mulgil_servers::wait_until("the slot has lost its WAL", Duration::from_secs(60), || {
        server.sql("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 4000000)) FROM generate_series(1, 5); SELECT pg_switch_wal(); CHECKPOINT")?;
        Ok(server.sql(&lost)? == "t")
    })
    .unwrap();
    refused(&mut c, "lost its WAL");
}

#[test]
fn another_server_or_another_history_is_refused_a_promoted_standby_is_not() {
    let primary = Postgres::start(&Settings::default()).unwrap();
    primary.sql(TABLE).unwrap();
    let mut c = Capture::new(&primary, "postgres", &["public.t"]);
    c.open().unwrap();
    c.after(&primary, "postgres", "INSERT INTO t VALUES (1)");
    c.drop_source();
    let other = Postgres::start(&Settings::default()).unwrap();
    other.sql(TABLE).unwrap();
    c.settings.address = other.url("postgres").parse().unwrap();
    // Servers of these tests are copies of one, and share a system identifier; this one's log is shorter.
    refused(&mut c, "log ends at");

    // Version 15 has no slots on standbys: one is made there as a failover slot would be, at the place that was confirmed.
    let standby = Postgres::standby_of(&primary, &Settings::default()).unwrap();
    let caught_up = format!("SELECT pg_last_wal_replay_lsn() >= '{}'::pg_lsn", primary.sql("SELECT pg_current_wal_lsn()").unwrap());
    mulgil_servers::wait_until("the standby is there", Duration::from_secs(60), || Ok(standby.sql(&caught_up)? == "t")).unwrap();
    primary.sql("INSERT INTO t VALUES (2)").unwrap();
    let two = "SELECT count(*) = 2 FROM t";
    mulgil_servers::wait_until("the standby has the row", Duration::from_secs(60), || Ok(standby.sql(two)? == "t")).unwrap();
    standby.promote().unwrap();
    c.settings.address = standby.url("postgres").parse().unwrap();
    refused(&mut c, "is gone");
    standby.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", c.settings.slot)).unwrap();
    refused(&mut c, "made again");
}

/// Passes bytes on between a source and the server, until it is told to swallow them.
struct Proxy {
    port: u16,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    fn to(server: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, target, is_cut) = (listener.local_addr().unwrap().port(), server.port(), Arc::new(AtomicBool::new(false)));
        let cut = is_cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", target)).unwrap());
                for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                    let cut = cut.clone();
                    std::thread::spawn(move || {
                        let mut buffer = vec![0; 65_536];
                        while let Ok(n @ 1..) = from.read(&mut buffer) {
                            if !cut.load(Ordering::Relaxed) && to.write_all(&buffer[..n]).is_err() {
                                break;
                            }
                        }
                        if !cut.load(Ordering::Relaxed) {
                            let _ = to.shutdown(Shutdown::Both);
                        }
                    });
                }
            }
        });
        Self { port, is_cut }
    }
}

#[test]
fn a_connection_that_is_cut_silently_is_noticed() {
    let db = database("cut");
    SERVER.sql_in(&db, TABLE).unwrap();
    let proxy = Proxy::to(&SERVER);
    let mut c = Capture::at(&format!("postgres://postgres@127.0.0.1:{}/{db}?sslmode=disable", proxy.port), &db, &["public.t"]);
    c.settings.silence = Duration::from_secs(2);
    c.settings.heartbeat = None;
    c.open().unwrap();
    c.after(&SERVER, &db, "INSERT INTO t VALUES (1)");
    proxy.is_cut.store(true, Ordering::Relaxed);
    SERVER.sql_in(&db, "INSERT INTO t VALUES (2)").unwrap();
    let error: SourceError = loop {
        if let Err(error) = c.step() {
            break error;
        }
    };
    assert_eq!(error.kind, SourceErrorKind::Retry);
    assert!(error.message.contains("did not answer"), "{error}");
    // The server still holds the old connection for a while: opening is tried until the slot is free.
    SERVER
        .sql(&format!("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'", c.settings.slot))
        .unwrap();
    proxy.is_cut.store(false, Ordering::Relaxed);
    c.open_patiently();
    c.after(&SERVER, &db, "SELECT 1");
    assert_eq!(show_all(&c.changes), "c public.t 1|∅|∅\nc public.t 2|∅|∅\n");
}

/// An idle server that is heard of on request is not taken for gone, and its slot moves on with its heartbeats.
#[test]
fn an_idle_database_keeps_its_slot_moving() {
    let server = Postgres::start(&Settings::default()).unwrap();
    server.sql("CREATE DATABASE busy").unwrap();
    server.sql(TABLE).unwrap();
    let mut c = Capture::new(&server, "postgres", &["public.t"]);
    c.settings.heartbeat = Some(Duration::from_millis(200));
    c.settings.silence = Duration::from_secs(2);
    c.open().unwrap();
    let confirmed = format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'", c.settings.slot);
    c.after(&server, "postgres", "SELECT 1");
    let start = server.sql("SELECT pg_current_wal_lsn()").unwrap();
    // All the writing is in another database.
    server.sql_in("busy", "CREATE TABLE b AS SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g").unwrap();
    let wal = server.sql("SELECT pg_current_wal_lsn()").unwrap();
    let passed = format!("SELECT ({confirmed}) > '{wal}'::pg_lsn AND '{wal}'::pg_lsn > '{start}'::pg_lsn + 5000000");
    c.run_until("the slot has passed what others wrote", |_| server.sql(&passed).unwrap() == "t");
    c.run_until("its health is known", |h| {
        h.retained_bytes.is_some() && h.wal_status.as_deref() == Some("reserved") && h.lag_bytes.is_some_and(|l| l < 1 << 20)
    });
    assert!(c.changes.is_empty(), "heartbeats are no changes");
}

#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let db = database("acks");
    SERVER.sql_in(&db, TABLE).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]).bounds(10, 1 << 20);
    c.settings.heartbeat = Some(Duration::from_millis(100));
    c.open().unwrap();
    c.after(&SERVER, &db, "INSERT INTO t VALUES (-1)");
    let durable = c.resume.clone().unwrap();
    SERVER.sql_in(&db, &format!("INSERT INTO t SELECT generate_series(1, 95); {}", emit("end"))).unwrap();
    // Read, but not durable: the source may run for as long as it wants.
    for _ in 0..25 {
        c.next_undurable();
    }
    let flush = durable.notes["stream"]["flush_lsn"].as_u64().unwrap();
    let sql =
        format!("SELECT confirmed_flush_lsn <= '{}'::pg_lsn FROM pg_replication_slots WHERE slot_name = '{}'", Lsn(flush), c.settings.slot);
    assert_eq!(SERVER.sql(&sql).unwrap(), "t");
    c.open_patiently();
    c.until("end");
    assert_eq!(fold(&c.changes, "public.t").len(), 96);
}

#[test]
fn what_is_missing_is_named_with_its_statement() {
    let server = Postgres::start(&Settings::default().with("wal_level", "replica").with("max_slot_wal_keep_size", "-1")).unwrap();
    server.sql("CREATE ROLE reader LOGIN; CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE bare (v text); CREATE TABLE hidden (id int PRIMARY KEY)").unwrap();
    server.sql("CREATE PUBLICATION mulgil_check FOR TABLE bare; GRANT SELECT ON t, bare TO reader").unwrap();
    let emit = "SELECT oid::regprocedure FROM pg_proc WHERE proname = 'pg_logical_emit_message' AND pg_get_function_arguments(oid) LIKE '%text%text%'";
    let emit = server.sql(emit).unwrap();
    server.sql(&format!("CREATE TABLE signals (id text PRIMARY KEY); REVOKE EXECUTE ON FUNCTION {emit} FROM public")).unwrap();
    let tables = ["public.t", "public.bare", "public.hidden", "public.absent"];
    let mut c = Capture::at(&server.url_as("reader", "x", "postgres"), "check", &tables);
    c.settings.signal_table = Some("public.signals".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let missing = runtime.block_on(check(&c.settings)).unwrap();
    let found: Vec<String> = missing.iter().map(|m| format!("{} {} -> {}", if m.is_fatal { "!" } else { "?" }, m.what, m.fix)).collect();
    let found = found.join("\n");
    for expected in [
        "! wal_level is replica, not logical -> ALTER SYSTEM SET wal_level = 'logical'",
        "! the role reader may not replicate -> ALTER ROLE \"reader\" REPLICATION",
        "! table public.absent does not exist",
        "! the role reader may not read public.hidden -> GRANT SELECT ON \"public\".\"hidden\" TO \"reader\"",
        "! the publication mulgil_check lacks public.hidden, public.t -> ALTER PUBLICATION \"mulgil_check\" ADD TABLE",
        "! public.bare has no replica identity",
        "ALTER TABLE \"public\".\"bare\" REPLICA IDENTITY FULL",
        "? max_slot_wal_keep_size is unlimited",
        "? the signal table public.signals is not captured",
        "? the role reader may not put signals into public.signals; whoever asks for snapshots there needs that -> GRANT INSERT ON \"public\".\"signals\" TO \"reader\"",
        &format!("? the role reader may not write heartbeats and the marks of snapshots -> GRANT EXECUTE ON FUNCTION {emit} TO \"reader\""),
    ] {
        assert!(found.contains(expected), "{expected} is not in:\n{found}");
    }
    // With all of it put right nothing fatal is left.
    let db = database("checked");
    SERVER.sql_in(&db, TABLE).unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]);
    c.open().unwrap();
    let missing = runtime.block_on(check(&c.settings)).unwrap();
    assert!(missing.iter().all(|m| !m.is_fatal), "{missing:?}");
}

#[test]
fn a_password_is_proved_and_never_shown() {
    let server = Postgres::start(
        &Settings::default()
            .hba("host all bob 127.0.0.1/32 scram-sha-256")
            .hba("host all eve 127.0.0.1/32 md5")
            .hba("host all joe 127.0.0.1/32 password"),
    )
    .unwrap();
    server.sql("CREATE ROLE bob LOGIN SUPERUSER PASSWORD 'it''s secret'; SET password_encryption = 'md5'; CREATE ROLE eve LOGIN SUPERUSER PASSWORD 'secret'").unwrap();
    server.sql("CREATE ROLE joe LOGIN SUPERUSER PASSWORD 'secret'").unwrap();
    let open = |user: &str, password: &str| Capture::at(&server.url_as(user, password, "postgres"), user, &[]).open();
    open("bob", "it's%20secret").unwrap();
    open("eve", "secret").unwrap();
    for (user, password) in [("bob", "wrongsecret"), ("eve", "wrongsecret"), ("joe", "secret")] {
        let error = open(user, password).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Config, "{error}");
        assert!(!error.message.contains("secret"), "{error}");
    }
}

/// Who is behind always has something to read, and is asked about most.
#[test]
fn health_is_told_before_the_stream_is_drained() {
    let db = database("behind");
    SERVER.sql_in(&db, "CREATE TABLE t (id int PRIMARY KEY, v text)").unwrap();
    let mut c = Capture::new(&SERVER, &db, &["public.t"]).bounds(1_000, 1 << 20);
    c.open_patiently();
    c.drop_source();
    const ROWS: usize = 200_000;
    SERVER.sql_in(&db, &format!("INSERT INTO t SELECT n, repeat('v', 100) FROM generate_series(1, {ROWS}) n")).unwrap();
    c.open_patiently();
    let mut n_rows = 0;
    while c.health.borrow().retained_bytes.is_none() {
        n_rows += c.next().unwrap().changes.len();
    }
    assert!(n_rows < ROWS / 2, "{n_rows}");
}
