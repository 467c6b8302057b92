//! Golden scenarios: each folder of testdata/scenarios is a configuration, some trades and what must come out; run straight, and with a
//! kill after every commit.

use crate::program::{mulgil, ok, repository, text, until};
use std::path::Path;
use std::process::Stdio;

/// What is compared: every derived stream, through SQL.
fn outcome(config: &Path, data: &Path, queries: &str) -> String {
    let mut out = String::new();
    for sql in queries.lines().filter(|l| !l.trim().is_empty()) {
        out.push_str(&format!("> {sql}\n{}\n", ok(&["query", sql, "-c", text(config), "--data", text(data), "--format", "csv"])));
    }
    out
}

fn replay(folder: &Path, data: &Path, batch: &str) -> std::process::Command {
    let mut command = mulgil();
    command.args([
        "replay",
        text(&folder.join("trades.csv")),
        "-c",
        text(&folder.join("mulgil.toml")),
        "--data",
        text(data),
        "--finish",
        "--tolerance",
        "1d",
        "--batch",
        batch,
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn every_scenario_straight_and_killed() {
    let mut n_scenarios = 0;
    for folder in std::fs::read_dir(repository("testdata/scenarios")).unwrap().flatten().map(|e| e.path()) {
        n_scenarios += 1;
        let dir = tempfile::tempdir().unwrap();
        let (config, queries) = (folder.join("mulgil.toml"), std::fs::read_to_string(folder.join("queries.sql")).unwrap());
        let straight = dir.path().join("straight");
        assert!(replay(&folder, &straight, "1000").status().unwrap().success(), "{}", folder.display());
        let got = outcome(&config, &straight, &queries);
        expect_test::expect_file![folder.join("expected.txt")].assert_eq(&got);
        let killed = dir.path().join("killed");
        let kills = run_killed(&folder, &killed);
        assert!(kills > 0, "{} was never killed", folder.display());
        assert_eq!(outcome(&config, &killed, &queries), got, "{} differs after {kills} kills", folder.display());
    }
    assert!(n_scenarios > 0);
}

/// Kills the replay as soon as it has committed anything new, until there is nothing left to commit.
fn run_killed(folder: &Path, data: &Path) -> u32 {
    let mut kills = 0;
    loop {
        let before = crate::program::journal_bytes(data);
        let mut child = replay(folder, data, "3").spawn().unwrap();
        // A start writes the schemas again: that alone is not progress.
        let ended = until("the replay to commit or to end", || match child.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => (kills < 12 && crate::program::journal_bytes(data) > before + 6_000).then_some(None),
        });
        match ended {
            Some(status) => {
                assert!(status.success());
                return kills;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
            }
        }
    }
}
