//! `docs/limits.md` is held to its word: every key in it is one that the configuration takes, every metric one that the server tells.

use crate::program::{Server, file, repository};
use std::collections::BTreeSet;

const STREAM: &str = r#"
stream.trades.kind = "trade"
stream.trades.bars = ["1m"]
stream.trades.partitions = 1
stream.trades.dedupe.columns = ["symbol", "trade_id"]
"#;

/// What stands between backticks in a column of the page's tables; 1 is the first.
fn quoted(page: &str, column: usize) -> BTreeSet<String> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what"));
    let cells = rows.map(|row| row.split('|').nth(column).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// A value of the kind that the key takes.
fn value(key: &str) -> &'static str {
    match key.rsplit('.').next().unwrap() {
        "body_bytes_max" => "\"77MB\"",
        name if name.ends_with("_max") => "77",
        "time" | "retention" | "flush_after" | "upkeep_every" | "query_timeout" => "\"77s\"",
        _ => "\"77MB\"",
    }
}

#[test]
fn every_key_is_taken_and_every_metric_is_told() {
    let page = std::fs::read_to_string(repository("docs/limits.md")).unwrap();
    // A constant stands beside its file, which has a slash, or has no dot.
    let keys: Vec<String> = quoted(&page, 3).into_iter().filter(|k| k.contains('.') && !k.contains('/')).collect();
    assert!(keys.len() > 20, "{keys:?}");
    let lines: String = keys.iter().map(|key| format!("{key} = {}\n", value(key))).collect();
    mulgil::config::parse(&format!("{STREAM}{lines}")).expect("the keys of docs/limits.md are those of the configuration");

    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&file(dir.path(), "mulgil.toml", STREAM), &dir.path().join("data"));
    let promised = quoted(&page, 4);
    assert!(promised.len() > 20, "{promised:?}");
    // Figures are sampled once a second; the first sample may be still to come.
    crate::program::until("every metric of docs/limits.md in /metrics", || {
        let told = metrics(&server.url);
        let missing: Vec<&String> = promised.iter().filter(|m| !told.contains(m.as_str())).collect();
        eprintln!("not told yet: {missing:?}");
        missing.is_empty().then_some(())
    });
    server.stop();
}

/// The names of all metrics.
fn metrics(url: &str) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async { reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap() });
    let names = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(['{', ' ']).next());
    names.map(str::to_owned).collect()
}
