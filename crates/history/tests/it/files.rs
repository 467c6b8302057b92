//! The files as others read them.

use crate::support::*;
use expect_test::expect;
use mulgil_disk::RealDisk;
use mulgil_history::{History, HistoryConfig};
use std::process::Command;
use std::sync::Arc;

/// `python3` with DuckDB: the machine's own, or a virtual environment in cargo's folder for tests.
fn python() -> String {
    let works = |python: &str| Command::new(python).args(["-c", "import duckdb"]).output().is_ok_and(|out| out.status.success());
    if works("python3") {
        return "python3".to_owned();
    }
    let venv = format!("{}/history-duckdb", env!("CARGO_TARGET_TMPDIR"));
    let python = format!("{venv}/bin/python");
    if !works(&python) {
        let made = Command::new("python3").args(["-m", "venv", &venv]).status().unwrap();
        let installed = Command::new(&python).args(["-m", "pip", "install", "-q", "duckdb"]).status().unwrap();
        assert!(made.success() && installed.success(), "this test needs DuckDB for Python: pip install duckdb");
    }
    python
}

#[test]
fn duckdb_reads_them_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(Arc::new(RealDisk), dir.path(), HistoryConfig::default(), all_schemas()).unwrap();
    let at = us("2019-07-05T09:00:00.000001Z");
    let trades = [
        trade("TSLA", at, 1_348, 999_999_999_999 * ONE, Some("BUY")),
        trade("005930", at + 1, 71_500 * ONE, ONE / 4, Some("SELL")),
        trade("005930", at + 86_400_000_000, 9_999_999_999 * ONE + 99_999_999, 1, None),
    ];
    history.append(&trade_rows(3, 0, &trades)).unwrap();
    let bar = TestBar { symbol: "TSLA", start: at, end: at + 60_000_000, close: -1, revision: 2 };
    history.append(&bar_rows("trades.bars.1m", 3, 0, &[bar])).unwrap();
    history.flush().unwrap();
    let script = r#"
import duckdb, sys
db = duckdb.connect()
db.execute("SET TimeZone = 'UTC'")
def show(sql):
    for row in db.execute(sql).fetchall():
        print(*row, sep=" | ")
files = sys.argv[1] + "/trades/*/*.parquet"
show(f"SELECT count(*), sum(quantity), min(price) FROM '{files}'")
show(f"SELECT COLUMNS(*)::VARCHAR FROM '{files}' ORDER BY _offset")
show(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM '{files}')")
show(f"SELECT symbol, start::VARCHAR, open, vwap, amount, revision FROM '{sys.argv[1]}/trades.bars.1m/*/*.parquet'")
show(f"SELECT DISTINCT compression FROM parquet_metadata('{files}')")
"#;
    let out = Command::new(python()).args(["-c", script, dir.path().to_str().unwrap()]).env("TZ", "UTC").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    expect![[r#"
        3 | 999999999999.25000001 | 0.00001348
        TSLA | 2019-07-05 09:00:00.000001+00 | 0.00001348 | 999999999999.00000000 | BUY | 3-0 | KRX | None | 3 | 0 | 2020-09-13 12:26:40+00 | 2020-09-13 12:26:39+00
        005930 | 2019-07-05 09:00:00.000002+00 | 71500.00000000 | 0.25000000 | SELL | 3-1 | KRX | None | 3 | 1 | 2020-09-13 12:26:40.000001+00 | 2020-09-13 12:26:39.000001+00
        005930 | 2019-07-06 09:00:00.000001+00 | 9999999999.99999999 | 0.00000001 | None | 3-2 | KRX | None | 3 | 2 | 2020-09-13 12:26:40.000002+00 | 2020-09-13 12:26:39.000002+00
        symbol | VARCHAR
        event_time | TIMESTAMP WITH TIME ZONE
        price | DECIMAL(18,8)
        quantity | DECIMAL(20,8)
        side | VARCHAR
        trade_id | VARCHAR
        market | VARCHAR
        currency | VARCHAR
        _partition | INTEGER
        _offset | BIGINT
        _append_time | TIMESTAMP WITH TIME ZONE
        _receive_time | TIMESTAMP WITH TIME ZONE
        TSLA | 2019-07-05 09:00:00.000001+00 | -1E-8 | -1.0000E-8 | -1.00000000E-8 | 2
        UNCOMPRESSED
    "#]].assert_eq(&String::from_utf8(out.stdout).unwrap());
    let ours = runtime().block_on(ask(&history, "SELECT count(*) AS n, sum(quantity) AS q, min(price) AS p FROM trades"));
    expect![[r#"
        +---+-----------------------+------------+
        | n | q                     | p          |
        +---+-----------------------+------------+
        | 3 | 999999999999.25000001 | 0.00001348 |
        +---+-----------------------+------------+
    "#]]
    .assert_eq(&ours);
}
