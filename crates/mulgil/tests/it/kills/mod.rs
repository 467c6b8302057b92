//! The real binary under load, killed with -9 at random moments and at every failpoint, at least 200 times in all. In the end what the
//! sources gave, what the log has, what an undisturbed run derives from it, what the history answers and what clients received are one
//! and the same.
//!
//! Random moments come from a seed that is printed: `MULGIL_KILLS_SEED=n` repeats it, as far as the machine does.
//! `MULGIL_KILLS=n` kills more often, or less often while working on a test.

mod accounts;
mod clients;
mod world;

use accounts::{cat, histories_agree, is_prefix_runs, sql};
use clients::{batch, events, poster, websocket};
use mulgil::failpoint::NAMES;
use std::sync::atomic::Ordering;
use world::World;

use crate::determinism::same;
use crate::program::{Server, derived, dump, file, ok, text, until};

const KILLS: u32 = 160;
const KILLS_WITH_RETENTION: u32 = 50;

/// Reached in the second, whose log and history drop what is old.
const FAILPOINTS_OF_RETENTION: [&str; 3] = ["log.retention", "log.retained", "history.dropped"];

/// Reached in the first test, whose log keeps everything: all the others.
fn failpoints() -> Vec<&'static str> {
    NAMES.into_iter().filter(|name| !FAILPOINTS_OF_RETENTION.contains(name) && !name.starts_with("capture.")).collect()
}

const CONFIG: &str = r#"
[log]
segment = "256KB"
retention = { every = "50ms" }

[source.market]
type = "simulator"
stream = "market"
rate = 150
seed = 11
anomaly_share = 0

[stream.market]
kind = "trade"
decimals = { price = 2, quantity = 0 }
types = { event_id = "text?", label = "text?" }
bars = ["1s"]
idle_after = "never"

[stream.orders]
kind = "trade"
decimals = { price = 2, quantity = 0 }
bars = ["1m"]
idle_after = "never"
dedupe = { columns = ["symbol", "event_time", "trade_id"] }

[stream.trades]
kind = "trade"
decimals = { price = 2, quantity = 0 }
types = { event_id = "text?", label = "text?" }
bars = ["1m", "1d"]
timezone = "Asia/Seoul"
idle_after = "never"

[summary.by_side]
stream = "orders"
group_by = ["symbol", "side"]
window = { session = "10s" }
aggregates = { n = "count", total = "sum(quantity)" }

[feature.previous]
stream = "trades"
agg = "lag(price)"

[rule.move]
stream = "trades"
severity = "medium"
when = "abs(price - previous) > 0.01 * previous"

[rule.large]
stream = "orders"
severity = "medium"
when = "quantity > 550"
cooldown = "10s"

[rule.busy]
stream = "orders.bars.1m"
severity = "low"
when = "count > 5"

[state]
snapshot_every = "100ms"
dirty_entries_max = 500
hot_keys_max = 10

[history]
flush_after = "100ms"
upkeep_every = "200ms"

[serve]
bind = "127.0.0.1:0"
"#;

/// Streams whose history is compared row by row, and those whose rows are only counted and summed: they are many.
const DERIVED: [&str; 8] = [
    "market.bars.1s",
    "orders.bars.1m",
    "orders.by_side",
    "orders.alerts",
    "orders.bars.1m.alerts",
    "trades.bars.1m",
    "trades.bars.1d",
    "trades.alerts",
];
const BASE: [&str; 3] = ["market", "orders", "trades"];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn seed() -> u64 {
    let seed = number("MULGIL_KILLS_SEED", u64::from(std::process::id()));
    eprintln!("MULGIL_KILLS_SEED={seed} repeats the moments of the kills");
    seed
}

#[test]
fn nothing_is_lost_repeated_or_invented_over_kills() {
    let mut world = World::new(CONFIG, seed(), 30_000);
    let posting = poster(&world.outside);
    let listeners = [
        websocket(&world.outside, "orders", 40),
        websocket(&world.outside, "trades", 7),
        websocket(&world.outside, "market", 1_000),
        events(&world.outside, 25),
    ];
    world.kill(number("MULGIL_KILLS", KILLS.into()) as u32, &failpoints());
    eprintln!("{} kills, {} of them before the server was ready; failpoints {:?}", world.kills, world.kills_early, world.fired);

    let n_batches = finish(&world, posting);
    let (market, quiet) =
        (cat(&world, "market"), file(world.data.parent().unwrap(), "quiet.toml", &CONFIG.replace("seed = 11", "start = false")));
    let expected = accounts::Received::new(&world);
    let server = Server::start(&quiet, &world.data);
    *world.outside.url.lock().unwrap() = Some(server.url.clone());
    for listener in &listeners {
        let n = expected.n_of(listener.name);
        until(&format!("{} to have received {n} rows", listener.name), || (listener.n_received.load(Ordering::Acquire) >= n).then_some(()));
    }
    world.outside.done.store(true, Ordering::Release);
    listeners.into_iter().for_each(|listener| expected.check(listener));

    let reference = reference(&world, n_batches, &market);
    let (got, want) = (derived(&world.data), derived(&reference));
    same(&want, &got);
    is_prefix_runs(&world, &market);
    let undisturbed = Server::start(&quiet, &reference);
    for stream in BASE.iter().chain(&DERIVED) {
        let n_log: usize = got.iter().filter(|(topic, _)| topic.rsplit_once('/').unwrap().0 == *stream).map(|(_, rows)| rows.len()).sum();
        histories_agree(&server, &undisturbed, stream, n_log, BASE.contains(stream));
    }
    server.stop();
    assert!(ok(&["log", "verify", "--data", text(&world.data)]).contains("every checksum is right"));
}

/// Has the poster finish its batch, then the replay its file, and all windows closed. The number of batches.
fn finish(world: &World, posting: std::thread::JoinHandle<u64>) -> u64 {
    world.outside.enough.store(true, Ordering::Release);
    let server = Server::start(&world.config, &world.data);
    *world.outside.url.lock().unwrap() = Some(server.url.clone());
    let n_batches = posting.join().unwrap();
    *world.outside.url.lock().unwrap() = None;
    server.stop();
    ok(&["replay", text(&world.trades), "-s", "trades", "-c", text(&world.config), "--data", text(&world.data), "--finish"]);
    n_batches
}

/// The same input in another folder, without any disturbance.
fn reference(world: &World, n_batches: u64, market: &[serde_json::Value]) -> std::path::PathBuf {
    let data = world.path("reference");
    let orders = file(world.data.parent().unwrap(), "orders.ndjson", &(0..n_batches).map(batch).collect::<String>());
    let lines =
        |partition: u64| market.iter().filter(|row| row["_partition"] == partition).map(|row| format!("{row}\n")).collect::<String>();
    let markets: Vec<_> = (0..2).map(|p| file(world.data.parent().unwrap(), &format!("market-{p}.ndjson"), &lines(p))).collect();
    let at = ["-c", text(&world.config), "--data", text(&data)];
    let replay = |args: &[&str]| ok(&[&["replay"], args, &at].concat());
    replay(&[text(&world.trades), "-s", "trades"]);
    replay(&[text(&orders), "-s", "orders"]);
    replay(&[text(&markets[0]), text(&markets[1]), "-s", "market", "--tolerance", "3650d", "--finish"]);
    data
}

#[test]
fn retention_loses_nothing_that_is_needed_over_kills() {
    let config = CONFIG
        .replace("segment = \"256KB\"", "segment = \"64KB\"")
        .replace("retention = { every", "retention = { bytes = \"256KB\", every")
        .replace("upkeep_every = \"200ms\"", "upkeep_every = \"200ms\"\nretention = \"3650d\"")
        + "[stream.ancient]\nkind = \"trade\"\n";
    let mut world = World::new(&config, seed() + 1, 6_000);
    let posting = poster(&world.outside);
    let ancient = accounts::ancient_rows(&world.outside);
    world.kill(number("MULGIL_KILLS", KILLS_WITH_RETENTION.into()) as u32, &FAILPOINTS_OF_RETENTION);
    eprintln!("{} kills, {} of them before the server was ready; failpoints {:?}", world.kills, world.kills_early, world.fired);
    let n_batches = finish(&world, posting);
    ancient.join().unwrap();
    let is_cut = |rows: &Vec<crate::program::Record>| rows.first().is_some_and(|first| first.0 > 0);
    assert!(dump(&world.data).values().any(is_cut), "every topic begins at its first row: retention has removed nothing");

    let quiet = file(world.data.parent().unwrap(), "quiet.toml", &config.replace("seed = 11", "start = false"));
    let server = Server::start(&quiet, &world.data);
    let market = sql(&server, "SELECT * FROM market ORDER BY _partition, _offset");
    let market: Vec<serde_json::Value> = market["data"].as_array().unwrap().clone();
    is_prefix_runs(&world, &market);
    let reference = reference(&world, n_batches, &market);
    let undisturbed = Server::start(&quiet, &reference);
    for stream in BASE.iter().chain(&DERIVED) {
        let n = sql(&undisturbed, &format!("SELECT count(*) AS n FROM \"{stream}\""))["data"][0]["n"].as_u64().unwrap();
        histories_agree(&server, &undisturbed, stream, n as usize, BASE.contains(stream));
    }
    server.stop();
    assert!(ok(&["log", "verify", "--data", text(&world.data)]).contains("every checksum is right"));
}
