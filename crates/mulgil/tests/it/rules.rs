//! Rules change while the program runs, at a place that a replay finds again; and are tried over what happened before.

use crate::program::{Server, derived, dump, file, ok, text, until};
use std::path::Path;

const CONFIG: &str = r#"
[stream.trades]
kind = "trade"
decimals = { price = 2, quantity = 0 }
partitions = 1

[feature.previous]
stream = "trades"
agg = "lag(price)"

[rule.dear]
stream = "trades"
when = "price > LIMIT and previous is not null"
"#;

fn config(dir: &Path, limit: u32) -> std::path::PathBuf {
    file(dir, "mulgil.toml", &CONFIG.replace("LIMIT", &limit.to_string()))
}

/// One trade an hour, so that no cool-down is in the way.
fn put(server: &Server, hour: u32) {
    let row = format!(r#"{{"symbol":"A","event_time":"2026-01-05T{hour:02}:00:00Z","price":500,"quantity":1}}"#);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let url = format!("{}/api/v1/ingest/trades", server.url);
        reqwest::Client::new().post(url).header("content-type", "application/json").body(row).send().await.unwrap()
    });
    assert!(answer.status().is_success());
}

fn n_rows(data: &Path, topic: &str) -> usize {
    dump(data).get(topic).map_or(0, Vec::len)
}

#[test]
fn a_reload_takes_effect_at_a_recorded_offset() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(&config(dir.path(), 1000), &data);
    (0..3).for_each(|hour| put(&server, hour));
    until("the first rules to be told", || (n_rows(&data, "trades.decisions/0") == 1).then_some(()));
    config(dir.path(), 100);
    server.signal("HUP");
    until("the new rules to be told", || (n_rows(&data, "trades.decisions/0") == 2).then_some(()));
    put(&server, 3);
    until("the alert", || (n_rows(&data, "trades.alerts/0") == 1).then_some(()));
    // A mistake changes nothing.
    file(dir.path(), "mulgil.toml", &CONFIG.replace("LIMIT", "no_such_column"));
    server.signal("HUP");
    put(&server, 4);
    until("the second alert", || (n_rows(&data, "trades.alerts/0") == 2).then_some(()));
    let said = server.stop();
    assert!(said.contains("the rules stay as they are") && said.contains("no_such_column"), "{said}");
    let before = derived(&data);

    // Rebuilt from the log alone, under the latest configuration: the same alerts at the same places, none of them twice.
    let latest = config(dir.path(), 100);
    std::fs::remove_dir_all(data.join("state")).unwrap();
    let server = Server::start(&latest, &data);
    put(&server, 5);
    until("the third alert", || (n_rows(&data, "trades.alerts/0") == 3).then_some(()));
    server.stop();
    let after = derived(&data);
    assert_eq!(before["trades.decisions/0"], after["trades.decisions/0"]);
    assert_eq!(before["trades.alerts/0"][..], after["trades.alerts/0"][..2]);

    // The same rules over all six rows: five have a previous price.
    let tried = ok(&["backtest", "-c", text(&latest), "--data", text(&data)]);
    assert!(tried.contains("dear") && tried.contains("       5\n") && tried.contains("6 rows read"), "{tried}");
    let listed = ok(&["backtest", "-c", text(&latest), "--data", text(&data), "--alerts"]);
    assert_eq!(listed.lines().count(), 5);
}
