//! Commands and their errors, as a person meets them.

use crate::program::{fails, file, ok, text};
use expect_test::{Expect, expect};

fn says(args: &[&str], want: Expect) {
    want.assert_eq(fails(args).trim_end());
}

#[test]
fn errors_name_the_thing_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let bad = file(dir.path(), "bad.toml", "[stream.trades]\nkind = \"trade\"\nbarz = [\"1m\"]\n");
    let shown = |message: String| message.replace(text(dir.path()), "DIR");
    expect![["error: in DIR/bad.toml: line 3: unknown key 'barz': did you mean 'bars'?\n"]].assert_eq(&shown(fails(&[
        "check",
        "-c",
        text(&bad),
    ])));
    expect![["error: cannot read the configuration DIR/none.toml: No such file or directory (os error 2)\n"]].assert_eq(&shown(fails(&[
        "run",
        "-c",
        &path("none.toml"),
    ])));
    expect![["error: DIR/empty holds no data: name the folder with --data, or start with `mulgil run`\n"]].assert_eq(&shown(fails(&[
        "query",
        "SELECT 1",
        "--data",
        &path("empty"),
    ])));
    let rule = file(dir.path(), "rule.toml", "[stream.trades]\nkind = \"trade\"\n[rule.x]\nstream = \"trade\"\nwhen = \"price > 1\"\n");
    expect![["error: [rule.x] reads the stream 'trade', which does not exist: did you mean 'trades'?\n"]].assert_eq(&shown(fails(&[
        "check",
        "-c",
        text(&rule),
    ])));
    says(
        &["run", "--bind", "0.0.0.0:0", "--data", &path("public")],
        expect![
            "error: refusing to listen on 0.0.0.0:0: others can reach this address, and no keys are configured. Add a [[serve.keys]] entry, or bind to 127.0.0.1, or set allow_public = true if everybody may read, ingest and control"
        ],
    );
}

#[test]
fn init_writes_what_check_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mulgil.toml");
    ok(&["init", text(&config)]);
    let said = ok(&["check", "-c", text(&config), "--data", text(&dir.path().join("data"))]);
    assert!(said.contains("is understood") && said.contains("trades.bars.1m"), "{said}");
    assert!(fails(&["init", text(&config)]).contains("exists already"));
    assert!(ok(&["completions", "bash"]).contains("mulgil"));
    assert!(ok(&["version"]).starts_with("mulgil 0."));
}

#[test]
fn a_replay_can_be_asked_in_every_format_and_its_log_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (trades, data) = (dir.path().join("t.ndjson"), dir.path().join("data"));
    ok(&["simulate", "--rows", "500", "--out", text(&trades)]);
    let first = ok(&["replay", text(&trades), "--data", text(&data)]);
    assert!(first.starts_with("500 rows"), "{first}");
    let again = ok(&["replay", text(&trades), "--data", text(&data)]);
    assert_eq!(again.trim(), "nothing new: these files were replayed into this folder before");
    let count = |format: &str| ok(&["query", "SELECT count(*) AS n FROM trades", "--data", text(&data), "--format", format]);
    assert_eq!(count("csv"), "n\n500\n");
    assert_eq!(count("json"), "{\"n\":500}\n");
    assert!(count("table").contains("500"));
    // Deeper than the stack of the program's first thread has room for, unoptimised.
    let deep = format!("SELECT max(_offset{}) >= 0 AS n FROM trades", " + _offset".repeat(450));
    assert_eq!(ok(&["query", &deep, "--data", text(&data), "--format", "csv"]), "n\ntrue\n");
    let parquet = dir.path().join("out.parquet");
    ok(&["query", "SELECT * FROM trades", "--data", text(&data), "--format", "parquet", "--out", text(&parquet)]);
    assert_eq!(&std::fs::read(&parquet).unwrap()[..4], b"PAR1");
    let verified = ok(&["log", "verify", "--data", text(&data)]);
    assert!(verified.contains("every checksum is right"), "{verified}");
    flip_a_bit(&data);
    let damaged = fails(&["log", "verify", "--data", text(&data)]);
    assert!(damaged.contains("is damaged at byte"), "{damaged}");
}

/// In the middle of the journal's first segment.
fn flip_a_bit(data: &std::path::Path) {
    let segment = std::fs::read_dir(data.join("journal"))
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .min()
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, bytes).unwrap();
}

#[test]
fn sql_cannot_write_or_read_files() {
    let dir = tempfile::tempdir().unwrap();
    let (trades, data) = (dir.path().join("t.ndjson"), dir.path().join("data"));
    ok(&["simulate", "--rows", "10", "--out", text(&trades)]);
    ok(&["replay", text(&trades), "--data", text(&data)]);
    for sql in [
        "DROP TABLE trades",
        "INSERT INTO trades VALUES (1)",
        "COPY trades TO '/tmp/x.csv'",
        "CREATE TABLE x AS SELECT 1",
        "SELECT * FROM '/etc/passwd'",
        "SET x = 1",
    ] {
        let said = fails(&["query", sql, "--data", text(&data)]);
        assert!(said.starts_with("error: "), "{sql}: {said}");
    }
    assert_eq!(ok(&["query", "SELECT count(*) FROM trades", "--data", text(&data), "--format", "csv"]).lines().last(), Some("10"));
}
