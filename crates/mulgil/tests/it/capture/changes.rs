//! Raw changes of a captured table on the socket: Debezium's JSON, the same as in the log, with nothing lost or repeated over a reconnect.

use super::socket::Client;
use super::{TOPIC, World, exchange, until_it_streams};
use mulgil_servers::{Postgres, Settings};
use serde_json::{Value, json};

/// Stored apart from its row, so that an update that leaves it alone does not send it.
const TOASTED_CHARS: usize = 12_000;

fn watch(resume: Option<&str>) -> Value {
    let mut ask = json!({"streams": [TOPIC]});
    if let Some(resume) = resume {
        ask["resume"] = resume.into();
    }
    ask
}

/// What is in the log, in the words of the socket.
fn in_log(world: &World) -> Vec<Value> {
    let line = |mut l: Value| json!({"offset": l["_offset"].take(), "key": l["key"].take(), "value": l["value"].take()});
    world.cat(TOPIC).into_iter().map(line).collect()
}

#[test]
fn a_client_gets_what_is_in_the_log_each_change_once() {
    let server = Postgres::start(&Settings::default()).unwrap();
    let world = exchange(&server, "");
    server.sql("ALTER TABLE stock_trades ALTER note SET STORAGE EXTERNAL").unwrap();
    let running = world.start();
    until_it_streams(&server);
    let mut client = Client::of(&running.url);
    // The table is known before anything of it has changed.
    let told = client.subscribe(watch(None));
    assert_eq!(told["recovered"], json!(true));
    server.sql(&format!("INSERT INTO stock_trades VALUES (1, '005930', 71500.50, 10, now(), repeat('x', {TOASTED_CHARS}))")).unwrap();
    server.sql("UPDATE stock_trades SET volume = 11; UPDATE stock_trades SET trade_id = 2; DELETE FROM stock_trades").unwrap();
    // Create, update; the key's change is a delete, a tombstone and a create; delete and tombstone.
    let (seen, cursor) = client.rows("changes", 7);
    let what = |row: &Value| {
        (row["offset"].as_u64().unwrap(), row["key"]["trade_id"].as_i64().unwrap(), row["value"]["op"].as_str().map(str::to_owned))
    };
    let told: Vec<_> = seen.iter().map(what).collect();
    let op = |op: &str| Some(op.to_owned());
    assert_eq!(told, [(0, 1, op("c")), (1, 1, op("u")), (2, 1, op("d")), (2, 1, None), (2, 2, op("c")), (3, 2, op("d")), (3, 2, None)]);
    assert_eq!(seen[0]["value"]["after"]["price"], json!("71500.50"));
    assert_eq!(seen[1]["value"]["after"]["note"], json!("__debezium_unavailable_value"), "what was not sent is not null");
    assert_eq!(seen[6]["value"], Value::Null);
    assert_eq!(seen, in_log(&world));

    // The client hangs up, more happens, mulgil is killed and comes again.
    let mut all = seen;
    server.sql("INSERT INTO stock_trades SELECT n, 'S' || n, n, n, now(), repeat('y', 2000) FROM generate_series(10, 400) n").unwrap();
    world.until_events(TOPIC, 5 + 391);
    running.kill();
    let running = world.start();
    let mut client = Client::of(&running.url);
    assert_eq!(client.subscribe(watch(Some(&cursor)))["recovered"], json!(true));
    let (seen, cursor) = client.rows("changes", 1);
    all.extend(seen);
    // And again in the middle of it, as far as it had come.
    assert_eq!(client.subscribe(watch(Some(&cursor)))["recovered"], json!(true));
    until_it_streams(&server);
    server.sql("UPDATE stock_trades SET volume = 0 WHERE trade_id = 10").unwrap();
    let n_left = 7 + 391 + 1 - all.len();
    all.extend(client.rows("changes", n_left).0);
    assert_eq!(all, in_log(&world), "no change is missing, and none comes twice");

    // Filters: keys as people write them, and operations.
    client.subscribe(json!({"streams": [TOPIC], "symbols": ["10", "2"], "ops": ["u", "d"], "from": "2020-01-01T00:00:00Z"}));
    let (seen, _) = client.rows("changes", 6);
    let keys: Vec<_> = seen.iter().map(|r| (r["key"]["trade_id"].as_i64().unwrap(), r["value"]["op"].as_str())).collect();
    assert_eq!(keys, [(1, Some("d")), (1, None), (2, Some("c")), (2, Some("d")), (2, None), (10, Some("u"))]);
    let listed = client.get("/api/v1/streams");
    let kind = listed["streams"].as_array().unwrap().iter().find(|s| s["name"] == TOPIC).map(|s| &s["kind"]);
    assert_eq!(kind, Some(&json!("change")));
    running.stop();
}
