//! mulgil's own disk is full while a database is captured: it waits, says so, and goes on by itself without a hole.

use super::World;
use super::accident::{Accident, MARIADB, POSTGRES, capture_detail, mariadb, postgres};
use super::database::Dialect;
use super::fold::Fold;
use crate::disk_full::{fill, start_on_small_disk};
use crate::program::until;

/// Much less than the disk, more than what notes and history write meanwhile.
const LOG: &str = "[log]\nsegment = \"1MB\"\nreserve = \"24MB\"\n";
const RESERVE_BYTES: u64 = 24 << 20;

/// More than is free when the disk is nearly full.
const ROWS: usize = 20_000;

#[test]
fn disk_full_under_postgres() {
    let rows = format!("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(2, {ROWS}) n");
    let accident = postgres(&POSTGRES, "disk_full", LOG);
    disk_full(accident, Dialect::Postgres, "t", || drop(POSTGRES.sql_in("disk_full", &rows).unwrap()));
}

#[test]
fn disk_full_under_mariadb() {
    let rows = format!("INSERT INTO t SELECT seq, REPEAT('x', 200) FROM seq_2_to_{ROWS}");
    let accident = mariadb(&MARIADB, "disk_full", LOG);
    disk_full(accident, Dialect::MariaDb, "disk_full.t", || drop(MARIADB.sql_in("disk_full", &rows).unwrap()));
}

fn disk_full(mut accident: Accident, dialect: Dialect, table: &str, insert: impl Fn()) {
    let world: &World = &accident.world;
    let (running, disk) = start_on_small_disk(world.dir.path(), &world.config, &[("DATABASE_URL", &world.url)]);
    accident.world.data = disk.join("data");
    accident.until_seen("r1");
    fill(&disk, RESERVE_BYTES + (1 << 20));
    insert();
    until("it waits for room", || {
        let detail = capture_detail(&running);
        (detail.starts_with("waiting") && detail.contains("disk")).then_some(())
    });
    std::fs::remove_file(disk.join("ballast")).unwrap();
    let mut fold = Fold::new(&accident.world, dialect, table);
    until("every row", || (fold.read().rows.len() == ROWS).then_some(()));
    assert_eq!(fold.n_events, ROWS as u64, "each once");
    running.stop();
}
