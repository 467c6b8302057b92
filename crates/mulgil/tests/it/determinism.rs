//! The same rows give the same bytes: in other batches, on other numbers of threads, and killed again and again.

use crate::program::{PATIENCE, derived, file, journal_bytes, mulgil, ok, text, until};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

const CONFIG: &str = r#"
[stream.trades]
kind = "trade"
decimals = { price = 2, quantity = 0 }
types = { event_id = "text?", label = "text?" }
bars = ["1s", "1m", "1h", "1d"]
timezone = "Asia/Seoul"
partitions = 3
allowed_lateness = "10s"

[summary.by_side]
stream = "trades"
group_by = ["symbol", "side"]
window = { tumbling = "5m" }
aggregates = { n = "count", total = "sum(quantity)", mean = "avg(price)", spread = "stddev(price)" }

[feature.previous]
stream = "trades"
agg = "lag(price)"

[feature.n]
stream = "trades"
agg = "count"
window = "10s"

[feature.ema]
stream = "trades"
agg = "ewma(quantity, 0.05)"
warm_up = 20

[rule.move]
stream = "trades"
severity = "medium"
when = "abs(price - previous) > 0.02 * previous"
cooldown = "10s"

[rule.burst]
stream = "trades"
severity = "medium"
when = "n >= 8"
transitions_only = true

[rule.surge]
stream = "trades"
severity = "medium"
when = "quantity >= 10 * ema"
cooldown = "1m"

[rule.bar]
stream = "trades.bars.1m"
severity = "medium"
when = "count > 20"
cooldown = "1m"

[detector.rush]
type = "rush_order"
stream = "trades"

[state]
snapshot_every = "100ms"
dirty_entries_max = 500
hot_keys_max = 10
"#;

struct Case<'a> {
    dir: &'a Path,
    config: String,
    trades: String,
}

impl Case<'_> {
    fn args(&self, data: &Path, extra: &[&str]) -> Vec<String> {
        let fixed = ["replay", &self.trades, "-c", &self.config, "--data", text(data), "--finish"];
        fixed.iter().chain(extra).map(|s| (*s).to_owned()).collect()
    }

    fn run(&self, name: &str, extra: &[&str]) -> std::path::PathBuf {
        let data = self.dir.join(name);
        let args = self.args(&data, extra);
        ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        data
    }

    /// Kills the replay whenever the journal has grown by `step` bytes, until it comes through.
    fn run_killed(&self, name: &str, step: u64) -> (std::path::PathBuf, u32) {
        let data = self.dir.join(name);
        let args = self.args(&data, &["--batch", "300"]);
        let (mut kills, started) = (0, Instant::now());
        loop {
            let before = journal_bytes(&data);
            let mut child = mulgil().args(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let ended = until("the replay to end or to write", || match child.try_wait().unwrap() {
                Some(status) => Some(Some(status)),
                None => (journal_bytes(&data) > before + step).then_some(None),
            });
            match ended {
                Some(status) => {
                    assert!(status.success());
                    return (data, kills);
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    kills += 1;
                }
            }
            assert!(started.elapsed() < 5 * PATIENCE, "killed {kills} times without coming through");
        }
    }
}

#[test]
fn the_same_bytes_in_any_batches_threads_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let trades = dir.path().join("trades.ndjson");
    ok(&["simulate", "--rows", "30000", "--seed", "42", "--rate", "20", "--anomaly-share", "0.01", "--out", text(&trades)]);
    let case =
        Case { dir: dir.path(), config: text(&file(dir.path(), "mulgil.toml", CONFIG)).to_owned(), trades: text(&trades).to_owned() };
    let straight = derived(&case.run("straight", &["--workers", "2"]));
    for topic in ["trades", "trades.bars.1s", "trades.bars.1d", "trades.by_side", "trades.alerts", "trades.bars.1m.alerts"] {
        let n: usize = straight.iter().filter(|(name, _)| name.rsplit_once('/').unwrap().0 == topic).map(|(_, rows)| rows.len()).sum();
        assert!(n > 0, "{topic} is empty: the comparison would prove nothing");
    }
    let n_trades: usize = straight.iter().filter(|(name, _)| name.starts_with("trades/")).map(|(_, rows)| rows.len()).sum();
    assert_eq!(n_trades, 30_000);
    same(&straight, &derived(&case.run("small-batches", &["--batch", "97", "--workers", "1"])));
    same(&straight, &derived(&case.run("many-workers", &["--batch", "1000", "--workers", "7"])));
    let (killed, kills) = case.run_killed("killed", 150_000);
    assert!(kills >= 5, "only {kills} kills: the comparison would prove little");
    same(&straight, &derived(&killed));
    // Once more over the finished folder: nothing is written twice.
    let again = case.run("killed", &[]);
    same(&straight, &derived(&again));
}

pub fn same(
    want: &std::collections::BTreeMap<String, Vec<crate::program::Record>>,
    got: &std::collections::BTreeMap<String, Vec<crate::program::Record>>,
) {
    assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (topic, rows) in want {
        let other = &got[topic];
        if let Some(i) = rows.iter().zip(other).position(|(a, b)| a != b) {
            panic!("{topic} differs first at row {i}:\n{:?}\n{:?}", rows[i], other[i]);
        }
        assert_eq!(rows.len(), other.len(), "{topic}");
    }
}
