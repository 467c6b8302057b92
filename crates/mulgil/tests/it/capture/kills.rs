//! A random workload while mulgil and the server are killed at random moments: in the end the log, followed change by change, is the table.
//!
//! Random moments come from a seed that is printed: `MULGIL_KILLS_SEED=n` repeats it, as far as the machine does.
//! `MULGIL_CAPTURE_KILLS=n` kills more often, or less often while working on a test.

use super::{TOPIC, World, exchange, until_it_streams};
use crate::program::until;
use mulgil_servers::{Postgres, Settings};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const KILLS: u64 = 100;

/// Of so many kills one is the server's.
const SERVER_EVERY: u64 = 10;

const FAILPOINTS: [&str; 2] = ["capture.before-commit", "capture.after-commit"];

/// Large enough that PostgreSQL stores it apart, so that an update that leaves it alone does not send it.
const TOASTED_BYTES: usize = 12_000;

#[test]
fn the_log_is_the_table_however_often_both_are_killed() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let seed = number("MULGIL_KILLS_SEED", u64::from(std::process::id()));
    println!("MULGIL_KILLS_SEED={seed}");
    let server = Mutex::new(Postgres::start(&Settings::default().with("logical_decoding_work_mem", "64kB")).unwrap());
    let world = exchange(&lock(&server), "");
    lock(&server).sql("ALTER TABLE stock_trades ALTER note SET STORAGE EXTERNAL").unwrap();
    let first = world.start();
    until_it_streams(&lock(&server));
    first.kill();
    let (is_over, n_done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = StdRng::seed_from_u64(seed);
            while !is_over.load(Ordering::SeqCst) {
                // A statement that the server's death cut off may have happened or not: the table itself is compared.
                let script = script(&mut random);
                lock(&server).sql(&script).ok();
                n_done.fetch_add(1, Ordering::SeqCst);
            }
        });
        kills(&world, &server, &n_done, number("MULGIL_CAPTURE_KILLS", KILLS), seed);
        is_over.store(true, Ordering::SeqCst);
    });
    let server = lock(&server);
    let last = world.start();
    server.sql("INSERT INTO stock_trades VALUES (-1, 'LAST', 1, 1) ON CONFLICT DO NOTHING").unwrap();
    let events =
        until("the last change is in the log", || Some(records(&world)).filter(|r| r.iter().any(|e| e["after"]["trade_id"] == json!(-1))));
    last.stop();
    in_commit_order(&events);
    let (folded, table) = (folded(&events), table(&server));
    assert_eq!(folded.len(), table.len());
    for (id, row) in &table {
        assert_eq!(folded.get(id), Some(row), "row {id}");
    }
    println!("{} changes, {} rows, {} scripts", events.len(), table.len(), n_done.load(Ordering::SeqCst));
}

/// Kills mulgil again and again, and the server now and then; each time something was done in between.
fn kills(world: &World, server: &Mutex<Postgres>, n_done: &AtomicU64, n: u64, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ 1);
    for kill in 0..n {
        let before = n_done.load(Ordering::SeqCst);
        let failpoint = FAILPOINTS.get(kill as usize % 4).filter(|_| kill % SERVER_EVERY != 0);
        let env: Vec<(&str, String)> =
            failpoint.iter().map(|name| ("MULGIL_FAILPOINT", format!("{name}:{}", random.random_range(1..6)))).collect();
        let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (*k, v.as_str())).chain([("DATABASE_URL", world.url.as_str())]).collect();
        let running = crate::program::Server::start_with(&world.config, &world.data(), &[], &env);
        let enough = random.random_range(1..4);
        until("something is done", || (n_done.load(Ordering::SeqCst) >= before + enough).then_some(()));
        std::thread::park_timeout(Duration::from_millis(random.random_range(0..300)));
        if kill % SERVER_EVERY == 0 {
            let mut server = lock(server);
            server.kill_hard().unwrap();
            server.restart().unwrap();
        }
        running.kill();
    }
}

fn script(random: &mut StdRng) -> String {
    let mut script = String::from("BEGIN;\n");
    for _ in 0..random.random_range(1..6) {
        let id = random.random_range(0..300);
        let statement = match random.random_range(0..100) {
            0..35 => format!(
                "INSERT INTO stock_trades SELECT n, 'S' || n, n * 1.25, n, now() FROM generate_series({id}, {}) n ON CONFLICT DO NOTHING;",
                id + random.random_range(0..40)
            ),
            35..55 => format!(
                "UPDATE stock_trades SET volume = volume + 1, price = price + 0.01 WHERE trade_id >= {id} AND trade_id < {};",
                id + 20
            ),
            55..65 => format!("UPDATE stock_trades SET note = repeat(md5(random()::text), {}) WHERE trade_id = {id};", TOASTED_BYTES / 32),
            65..75 => format!("DELETE FROM stock_trades WHERE trade_id >= {id} AND trade_id < {};", id + 5),
            75..80 => format!(
                "UPDATE stock_trades SET trade_id = trade_id + 1000 WHERE trade_id = {id} AND NOT EXISTS (SELECT FROM stock_trades WHERE trade_id = {id} + 1000);"
            ),
            80..88 => format!("SAVEPOINT s; DELETE FROM stock_trades WHERE trade_id < {id}; ROLLBACK TO s;"),
            88..90 => "TRUNCATE stock_trades;".to_owned(),
            90..96 => format!(
                "INSERT INTO stock_trades SELECT n, 'BULK', n, 1, now() FROM generate_series(10000, {}) n ON CONFLICT (trade_id) DO UPDATE SET volume = stock_trades.volume + 1;",
                10_000 + random.random_range(500..3_000)
            ),
            _ => format!(
                "COPY stock_trades (trade_id, ticker, price) FROM STDIN;\n{}\tCOPIED\t1.5\n\\.\n",
                20_000 + random.random_range(0..1_000_000)
            ),
        };
        script.push_str(&statement);
        script.push('\n');
    }
    script.push_str(if random.random_range(0..10) == 0 { "ROLLBACK;" } else { "COMMIT;" });
    script
}

/// The events of the topic, each with the offset of its record.
fn records(world: &World) -> Vec<Value> {
    let lines = world.cat(TOPIC).into_iter();
    let with_offset = lines.map(|mut line| {
        let mut value = line["value"].take();
        value["_offset"] = line["_offset"].take();
        value
    });
    with_offset.filter(|value| value["op"].is_string()).collect()
}

/// Each record is behind the one before it in the database's own order; so none is there twice.
fn in_commit_order(events: &[Value]) {
    let place = |event: &Value| {
        let sequence: Vec<String> = serde_json::from_str(event["source"]["sequence"].as_str().unwrap()).unwrap();
        (sequence[0].parse::<u64>().unwrap(), sequence[1].parse::<u64>().unwrap())
    };
    for pair in events.windows(2).filter(|pair| pair[0]["_offset"] != pair[1]["_offset"]) {
        assert!(place(&pair[0]) < place(&pair[1]), "out of order:\n{}\n{}", pair[0], pair[1]);
    }
}

/// The table that the events make when they are followed one by one; one that does not fit fails the test.
fn folded(events: &[Value]) -> BTreeMap<i64, Value> {
    const UNCHANGED: &str = "__debezium_unavailable_value";
    let mut rows: BTreeMap<i64, Value> = BTreeMap::new();
    for event in events {
        let id = |side: &str| event[side]["trade_id"].as_i64().unwrap();
        match event["op"].as_str().unwrap() {
            "r" => drop(rows.insert(id("after"), event["after"].clone())),
            "c" => assert!(rows.insert(id("after"), event["after"].clone()).is_none(), "created twice: {event}"),
            "u" => {
                let row = rows.get_mut(&id("after")).unwrap_or_else(|| panic!("updated what is not there: {event}"));
                let after = event["after"].as_object().unwrap();
                after.iter().filter(|(_, value)| **value != json!(UNCHANGED)).for_each(|(name, value)| row[name] = value.clone());
            }
            "d" => assert!(rows.remove(&id("before")).is_some(), "deleted what is not there: {event}"),
            "t" => rows.clear(),
            other => panic!("an event of kind {other}: {event}"),
        }
    }
    rows
}

/// The table as the database has it, in the events' words.
fn table(server: &Postgres) -> BTreeMap<i64, Value> {
    let at = "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') || 'Z'";
    let row = format!(
        "json_build_object('trade_id', trade_id, 'ticker', ticker, 'price', price::text, 'volume', volume, 'at', {at}, 'note', note)"
    );
    let lines = server.sql(&format!("SELECT {row} FROM stock_trades")).unwrap();
    lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).map(|row| (row["trade_id"].as_i64().unwrap(), row)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
