//! The primary is gone and a standby takes its place: capture goes on there, or says why not; never with a hole, never with rows of a
//! transaction that the new primary does not have.

use crate::postgres_stream_kit::{Capture, emit, fold, show_all, table};
use mulgil_capture::source::SourceErrorKind;
use mulgil_servers::{Postgres, Settings, wait_until};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, n int, v text)";
const ROWS: &str = "SELECT id, n, v FROM t";

struct Pair {
    primary: Postgres,
    standby: Postgres,
    capture: Capture,
}

fn settings() -> Settings {
    Settings::default().with("logical_decoding_work_mem", "64kB").with("autovacuum", "off").with("wal_keep_size", "256MB")
}

impl Pair {
    /// A primary with a table and a source that streams from it, and its standby.
    fn new() -> Self {
        let primary = Postgres::start(&settings()).unwrap();
        primary.sql(TABLE).unwrap();
        // First: it has the log from its backup on, and the slot must not begin before.
        let standby = Postgres::standby_of(&primary, &settings()).unwrap();
        Self::of(primary, standby)
    }

    fn of(primary: Postgres, standby: Postgres) -> Self {
        let mut capture = Capture::new(&primary, "postgres", &["public.t"]).bounds(50, 1 << 20);
        capture.open().unwrap();
        capture.after(&primary, "postgres", "INSERT INTO t SELECT g, 0, 'first' FROM generate_series(1, 120) g");
        Self { primary, standby, capture }
    }

    fn catch_up(&self) {
        let here = self.primary.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
        let is_there = format!("SELECT pg_last_wal_replay_lsn() >= '{here}'::pg_lsn");
        wait_until("the standby has caught up", PATIENCE, || Ok(self.standby.sql(&is_there)? == "t")).unwrap();
    }

    /// The standby gets the slot as it is on the primary now: what failover slots of version 17 do all the time, and tools by copying it.
    fn copy_slot(&mut self) {
        self.primary.sql("CHECKPOINT").unwrap();
        self.standby.stop().unwrap();
        let slot = format!("pg_replslot/{}", self.capture.settings.slot);
        let copied =
            Command::new("cp").args(["-a", "--"]).arg(self.primary.data().join(&slot)).arg(self.standby.data().join(&slot)).status();
        assert!(copied.unwrap().success());
        self.standby.restart().unwrap();
    }

    /// The source's url leads to the standby from now on.
    fn switch(&mut self) {
        self.capture.drop_source();
        self.capture.settings.address = self.standby.url("postgres").parse().unwrap();
    }

    fn refused(&mut self, part: &str) {
        let error = self.capture.open().unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Refused, "{error}");
        assert!(error.message.contains(part) && error.message.contains("Choose"), "{error}");
    }

    /// It goes on at the standby, and has what the standby has.
    fn goes_on(&mut self) {
        self.capture.open_patiently();
        let more = "INSERT INTO t SELECT g, 1, 'second' FROM generate_series(1001, 1090) g; UPDATE t SET n = n + 1 WHERE id % 10 = 0";
        self.standby.sql(&format!("{more}; {}", emit("there"))).unwrap();
        self.capture.until("there");
        assert_eq!(fold(&self.capture.changes, "public.t"), table(&self.standby, "postgres", ROWS));
        // And again, from what was stored there: the new timeline is the stored one now.
        self.capture.open_patiently();
        self.capture.after(&self.standby, "postgres", "DELETE FROM t WHERE id < 20");
        assert_eq!(fold(&self.capture.changes, "public.t"), table(&self.standby, "postgres", ROWS));
    }
}

#[test]
fn with_its_slot_at_an_older_place_it_goes_on() {
    let mut pair = Pair::new();
    pair.catch_up();
    pair.copy_slot();
    // Captured from the old primary, behind the place that the copied slot has: sent again by the new one, and not taken twice.
    pair.capture.after(&pair.primary, "postgres", "UPDATE t SET v = 'last' WHERE id <= 70");
    pair.catch_up();
    pair.primary.kill_hard().unwrap();
    // Before it is promoted it is waited for; from version 16 on it can be read from before.
    pair.switch();
    match pair.capture.open() {
        Ok(()) => assert!(pair.standby.major().unwrap() >= 16),
        Err(error) => assert_eq!(error.kind, SourceErrorKind::Retry, "{error}"),
    }
    pair.standby.promote().unwrap();
    pair.goes_on();
}

#[test]
fn without_the_slot_or_with_one_made_later_it_refuses() {
    let mut pair = Pair::new();
    pair.catch_up();
    pair.primary.sql("INSERT INTO t VALUES (500, 0, 'not captured')").unwrap();
    pair.catch_up();
    pair.primary.kill_hard().unwrap();
    pair.switch();
    let error = pair.capture.open().unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Retry, "{error}");
    assert!(error.message.contains("is a standby"), "{error}");
    pair.standby.promote().unwrap();
    pair.refused("is gone");
    pair.standby.sql(&format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", pair.capture.settings.slot)).unwrap();
    pair.refused("made again or moved by somebody else");
}

#[test]
fn a_standby_without_the_last_changes_is_another_history() {
    let mut pair = Pair::new();
    pair.catch_up();
    pair.copy_slot();
    pair.catch_up();
    pair.standby.stop().unwrap();
    // Captured and stored, but never replicated.
    pair.capture.after(&pair.primary, "postgres", "INSERT INTO t VALUES (600, 0, 'lost')");
    pair.primary.kill_hard().unwrap();
    pair.standby.restart().unwrap();
    pair.standby.promote().unwrap();
    pair.switch();
    pair.refused("left timeline 1");
    // Also when its log has grown beyond the stored place since.
    pair.standby.sql("INSERT INTO t SELECT g, 0, repeat('x', 500) FROM generate_series(5001, 9000) g").unwrap();
    pair.refused("left timeline 1");
}

/// The stream has not come that far yet, but rows of the snapshot that was gone on with are of it.
#[test]
fn rows_of_a_snapshot_that_have_seen_what_was_lost_are_told() {
    let primary = Postgres::start(&settings()).unwrap();
    primary.sql(&format!("{TABLE}; INSERT INTO t SELECT g, 0, 'there' FROM generate_series(1, 500) g")).unwrap();
    let standby = Postgres::standby_of(&primary, &settings()).unwrap();
    let mut capture = Capture::new(&primary, "postgres", &["public.t"]);
    (capture.is_whole, capture.settings.snapshot.chunk_rows) = (true, 60);
    capture.open().unwrap();
    while capture.changes.is_empty() {
        capture.step().unwrap();
    }
    let mut pair = Pair { primary, standby, capture };
    pair.catch_up();
    pair.copy_slot();
    pair.catch_up();
    pair.standby.stop().unwrap();
    let first = pair.capture.resume.clone().unwrap();
    // Read on under a view of its own, as after a restart.
    pair.primary.sql("UPDATE t SET v = 'lost'").unwrap();
    pair.capture.open_patiently();
    while !show_all(&pair.capture.changes).contains("lost") {
        pair.capture.step().unwrap();
    }
    let last = pair.capture.resume.clone().unwrap();
    assert_eq!(first.notes["stream"]["flush_lsn"], last.notes["stream"]["flush_lsn"], "the stream itself has not seen it");
    pair.primary.kill_hard().unwrap();
    pair.standby.restart().unwrap();
    pair.standby.promote().unwrap();
    pair.switch();
    pair.refused("rows of a snapshot were read at");
}

/// Half of a large transaction was captured, and its commit never reached the standby: those rows exist nowhere any more.
#[test]
fn a_transaction_that_was_given_in_part_and_lost_is_told() {
    let mut pair = Pair::new();
    pair.catch_up();
    pair.copy_slot();
    pair.catch_up();
    pair.standby.stop().unwrap();
    pair.primary.sql("INSERT INTO t SELECT g, 0, 'half' FROM generate_series(2001, 2400) g").unwrap();
    let before = pair.capture.changes.len();
    while pair.capture.changes.len() < before + 100 {
        pair.capture.step().unwrap();
    }
    let stored = pair.capture.resume.clone().unwrap();
    assert_eq!(stored.notes["stream"]["flush_lsn"], stored.position.commit, "within the transaction");
    pair.primary.kill_hard().unwrap();
    pair.standby.restart().unwrap();
    pair.standby.promote().unwrap();
    pair.switch();
    pair.refused("left timeline 1");
}

/// What version 17 has for it: the slot is made to follow, and the standby fetches it. Before 17 it is a slot as any other.
#[test]
fn a_failover_slot_goes_over_to_the_standby() {
    let primary = Postgres::start(&settings()).unwrap();
    let follows = primary.major().unwrap() >= 17;
    primary.sql(&format!("{TABLE}; SELECT pg_create_physical_replication_slot('standby', true)")).unwrap();
    let following = settings().with("primary_slot_name", "standby").with("hot_standby_feedback", "on");
    let following = if follows { following.with("sync_replication_slots", "on") } else { following };
    let standby = Postgres::standby_of(&primary, &following).unwrap();
    let mut pair = Pair::of(primary, standby);
    if !follows {
        let slots = pair.primary.sql("SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical'").unwrap();
        assert_eq!(slots, pair.capture.settings.slot);
        return;
    }
    let is_there = "SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary AND failover";
    wait_until("the standby has the slot", PATIENCE, || {
        // It is kept there once it has moved beyond what the standby has thrown away.
        pair.primary.sql("SELECT pg_log_standby_snapshot()")?;
        pair.capture.after(&pair.primary, "postgres", "UPDATE t SET n = n + 1 WHERE id = 1");
        Ok(pair.standby.sql(is_there)? == "1")
    })
    .unwrap();
    // Captured from the old primary, behind the place at which the standby has the slot.
    pair.capture.after(&pair.primary, "postgres", "UPDATE t SET v = 'last' WHERE id <= 70");
    pair.catch_up();
    pair.primary.kill_hard().unwrap();
    pair.switch();
    // The slot belongs to the primary until there is another.
    let error = pair.capture.open().unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::Retry, "{error}");
    pair.standby.promote().unwrap();
    pair.goes_on();
}

/// From version 16 on a standby decodes its log too, so that the primary need not; before, it is waited for.
#[test]
fn a_standby_with_a_slot_is_read_from_where_it_can_be() {
    let mut pair = Pair::new();
    pair.catch_up();
    pair.copy_slot();
    pair.switch();
    if let Err(error) = pair.capture.open() {
        assert_eq!(error.kind, SourceErrorKind::Retry, "{error}");
        assert!(pair.standby.major().unwrap() < 16);
        return;
    }
    for n in 1..4 {
        let sql = format!("UPDATE t SET n = n + 1 WHERE id <= {n}0; INSERT INTO t VALUES ({n}00000, 0, 'from the primary')");
        pair.primary.sql(&format!("{sql}; {}", emit(&format!("primary {n}")))).unwrap();
        pair.capture.until(&format!("primary {n}"));
        assert_eq!(fold(&pair.capture.changes, "public.t"), table(&pair.primary, "postgres", ROWS));
        // Also to one who comes back.
        pair.capture.open_patiently();
    }
    pair.primary.kill_hard().unwrap();
    pair.standby.promote().unwrap();
    pair.goes_on();
}
