//! What SQL answers, what it refuses, and where it ends.

use crate::support::*;
use expect_test::{Expect, expect};
use futures::StreamExt;
use mulgil_disk::MemDisk;
use mulgil_history::{ErrorKind, History, HistoryConfig, QueryLimits};
use mulgil_model::ids::{Offset, Partition};
use std::sync::Arc;
use std::time::Duration;

const DAY: &str = "2019-07-05T00:00:00Z";

/// Some rows in files of two days, some in the tail.
fn filled() -> Arc<History> {
    let history = fresh();
    let at = us(DAY);
    let day = 86_400_000_000;
    let trades = [
        trade("B", at + 1, 2 * ONE, ONE, Some("BUY")),
        trade("A", at + 2, 1_348, 5 * ONE, Some("SELL")),
        trade("A", at + day, 3 * ONE, ONE / 2, None),
        trade("C", at + day + 1, 71_500 * ONE, 7 * ONE, Some("BUY")),
    ];
    history.append(&trade_rows(0, 0, &trades[..3])).unwrap();
    history.flush().unwrap();
    history.append(&trade_rows(0, 3, &trades[3..])).unwrap();
    let minute = 60_000_000;
    let bar = |start, revision, close| TestBar { symbol: "A", start, end: start + minute, close, revision };
    history.append(&bar_rows("trades.bars.1m", 0, 0, &[bar(at, 0, ONE), bar(at + minute, 0, 2 * ONE)])).unwrap();
    history.flush().unwrap();
    history.append(&bar_rows("trades.bars.1m", 0, 2, &[bar(at, 1, 3 * ONE)])).unwrap();
    history.append(&trade_rows(1, 0, &trades[..1])).unwrap();
    history
}

fn check(sql: &str, want: Expect) {
    let history = filled();
    want.assert_eq(&runtime().block_on(ask(&history, sql)));
}

#[test]
fn files_and_tail_are_one_table() {
    check(
        "SELECT symbol, event_time, price, quantity, side, _partition, _offset FROM trades ORDER BY _partition, _offset",
        expect![[r#"
            +--------+-----------------------------+----------------+------------+------+------------+---------+
            | symbol | event_time                  | price          | quantity   | side | _partition | _offset |
            +--------+-----------------------------+----------------+------------+------+------------+---------+
            | B      | 2019-07-05T00:00:00.000001Z | 2.00000000     | 1.00000000 | BUY  | 0          | 0       |
            | A      | 2019-07-05T00:00:00.000002Z | 0.00001348     | 5.00000000 | SELL | 0          | 1       |
            | A      | 2019-07-06T00:00:00Z        | 3.00000000     | 0.50000000 |      | 0          | 2       |
            | C      | 2019-07-06T00:00:00.000001Z | 71500.00000000 | 7.00000000 | BUY  | 0          | 3       |
            | B      | 2019-07-05T00:00:00.000001Z | 2.00000000     | 1.00000000 | BUY  | 1          | 0       |
            +--------+-----------------------------+----------------+------------+------+------------+---------+
        "#]],
    );
    check(
        "SELECT count(*) AS n, max(event_time) AS newest FROM trades WHERE event_time >= '2019-07-06'",
        expect![[r#"
        +---+-----------------------------+
        | n | newest                      |
        +---+-----------------------------+
        | 2 | 2019-07-06T00:00:00.000001Z |
        +---+-----------------------------+
    "#]],
    );
    check(
        "SELECT symbol, sum(price * quantity) AS amount FROM \"trades\" WHERE price < 2.5 GROUP BY symbol ORDER BY symbol",
        expect![[r#"
        +--------+--------------------+
        | symbol | amount             |
        +--------+--------------------+
        | A      | 0.0000674000000000 |
        | B      | 4.0000000000000000 |
        +--------+--------------------+
    "#]],
    );
    check(
        "SELECT count(*) AS n FROM trades WHERE symbol = 'A' AND _append_time > TIMESTAMP '2020-01-01T00:00:00Z'",
        expect![[r#"
        +---+
        | n |
        +---+
        | 2 |
        +---+
    "#]],
    );
}

#[test]
fn names_and_views() {
    check(
        "SELECT start, close, revision FROM \"trades.bars.1m\" ORDER BY start, revision",
        expect![[r#"
        +----------------------+------------+----------+
        | start                | close      | revision |
        +----------------------+------------+----------+
        | 2019-07-05T00:00:00Z | 1.00000000 | 0        |
        | 2019-07-05T00:00:00Z | 3.00000000 | 1        |
        | 2019-07-05T00:01:00Z | 2.00000000 | 0        |
        +----------------------+------------+----------+
    "#]],
    );
    check(
        "SELECT start, close, revision FROM trades_bars_1m_latest WHERE symbol = 'A' ORDER BY start",
        expect![[r#"
        +----------------------+------------+----------+
        | start                | close      | revision |
        +----------------------+------------+----------+
        | 2019-07-05T00:00:00Z | 3.00000000 | 1        |
        | 2019-07-05T00:01:00Z | 2.00000000 | 0        |
        +----------------------+------------+----------+
    "#]],
    );
    check(
        "SELECT count(*) AS n FROM \"trades.bars.1m.latest\"",
        expect![[r#"
        +---+
        | n |
        +---+
        | 2 |
        +---+
    "#]],
    );
    check(
        "SELECT count(*) AS n FROM alerts",
        expect![[r#"
        +---+
        | n |
        +---+
        | 0 |
        +---+
    "#]],
    );
    check(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
        expect![[r#"
        +-----------------------+
        | table_name            |
        +-----------------------+
        | alerts                |
        | trades                |
        | trades.alerts         |
        | trades.bars.1d        |
        | trades.bars.1d.latest |
        | trades.bars.1h        |
        | trades.bars.1h.latest |
        | trades.bars.1m        |
        | trades.bars.1m.latest |
        | trades_alerts         |
        | trades_bars_1d        |
        | trades_bars_1d_latest |
        | trades_bars_1h        |
        | trades_bars_1h_latest |
        | trades_bars_1m        |
        | trades_bars_1m_latest |
        +-----------------------+
    "#]],
    );
    check(
        "DESCRIBE trades",
        expect![[r#"
        +---------------+----------------------+-------------+
        | column_name   | data_type            | is_nullable |
        +---------------+----------------------+-------------+
        | symbol        | Utf8                 | NO          |
        | event_time    | Timestamp(µs, "UTC") | NO          |
        | price         | Decimal128(18, 8)    | NO          |
        | quantity      | Decimal128(20, 8)    | NO          |
        | side          | Utf8                 | YES         |
        | trade_id      | Utf8                 | YES         |
        | market        | Utf8                 | YES         |
        | currency      | Utf8                 | YES         |
        | _partition    | Int32                | NO          |
        | _offset       | Int64                | NO          |
        | _append_time  | Timestamp(µs, "UTC") | NO          |
        | _receive_time | Timestamp(µs, "UTC") | NO          |
        +---------------+----------------------+-------------+
    "#]],
    );
}

/// The physical plan, without the lines that only say how rows are handed on.
fn plan(sql: &str) -> String {
    let history = filled();
    let plan = runtime().block_on(ask(&history, &format!("EXPLAIN FORMAT INDENT {sql}")));
    let lines = plan.lines().filter(|line| ["DataSourceExec", "PlaceholderRowExec", "Filter"].iter().any(|word| line.contains(word)));
    let lines = lines
        .map(|line| line.trim_matches(['|', ' ']).trim_start_matches("physical_plan").trim_start_matches(['|', ' ']).to_owned() + "\n");
    lines.filter(|line| line.contains("Exec")).collect()
}

#[test]
fn files_are_skipped_and_counts_read_none() {
    let check = |sql: &str, want: Expect| want.assert_eq(&plan(sql));
    check(
        "SELECT count(*) FROM trades",
        expect![[r#"
        PlaceholderRowExec
    "#]],
    );
    check(
        "SELECT price FROM trades WHERE event_time < '2019-07-06'",
        expect![[r#"
            DataSourceExec: file_groups={1 group: [[history/trades/2019-07-05/0-1.parquet]]}, projection=[price], file_type=parquet, predicate=event_time@1 < 1562371200000000, pruning_predicate=event_time_null_count@1 != row_count@2 AND event_time_min@0 < 1562371200000000, required_guarantees=[]
            FilterExec: event_time@0 < 1562371200000000, projection=[price@1]
            DataSourceExec: partitions=1, partition_sizes=[1]
        "#]],
    );
    check(
        "SELECT price FROM trades WHERE symbol = 'B'",
        expect![[r#"
            DataSourceExec: file_groups={1 group: [[history/trades/2019-07-05/0-1.parquet]]}, projection=[price], file_type=parquet, predicate=symbol@0 = B, pruning_predicate=symbol_null_count@2 != row_count@3 AND symbol_min@0 <= B AND B <= symbol_max@1, required_guarantees=[symbol in (B)]
            FilterExec: symbol@0 = B, projection=[price@1]
            DataSourceExec: partitions=1, partition_sizes=[1]
        "#]],
    );
    check(
        "SELECT close FROM trades_bars_1m_latest WHERE symbol = 'A' AND event_time < '2019-07-06'",
        expect![[r#"
            FilterExec: _rank@1 = 1, projection=[close@0]
            DataSourceExec: file_groups={1 group: [[history/trades.bars.1m/2019-07-05/0-4.parquet]]}, projection=[symbol, start, event_time, close, revision, _offset], file_type=parquet, predicate=symbol@0 = A AND event_time@2 < 1562371200000000, pruning_predicate=symbol_null_count@2 != row_count@3 AND symbol_min@0 <= A AND A <= symbol_max@1 AND event_time_null_count@5 != row_count@3 AND event_time_min@4 < 1562371200000000, required_guarantees=[symbol in (A)]
            FilterExec: symbol@0 = A AND event_time@2 < 1562371200000000
            DataSourceExec: partitions=1, partition_sizes=[1]
        "#]],
    );
}

#[test]
fn only_questions_are_answered() {
    for (sql, want) in [
        (
            "CREATE TABLE x AS SELECT 1",
            expect![[r#"
            User: the history is read-only, CreateMemoryTable is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
        (
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
            expect![[r#"
            User: the history is read-only, CreateExternalTable is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
        (
            "COPY trades TO '/tmp/out.parquet'",
            expect![[r#"
            User: the history is read-only, COPY is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
        (
            "INSERT INTO trades SELECT * FROM trades",
            expect![[r#"
            User: the history is read-only, Insert Into is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
        (
            "DROP TABLE trades",
            expect![[r#"
            User: the history is read-only, DropTable is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
        (
            "DELETE FROM trades",
            expect![[r#"
            User: the history is read-only, Delete is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
        (
            "SET datafusion.execution.target_partitions = 64",
            expect![[r#"
            User: the history is read-only, SetVariable is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
        (
            "SELECT * FROM '/etc/passwd'",
            expect![[r#"
            User: there is no table '/etc/passwd'. Tables: alerts, trades, "trades.alerts", "trades.bars.1d", "trades.bars.1d.latest", "trades.bars.1h", "trades.bars.1h.latest", "trades.bars.1m", "trades.bars.1m.latest", trades_alerts, trades_bars_1d, trades_bars_1d_latest, trades_bars_1h, trades_bars_1h_latest, trades_bars_1m, trades_bars_1m_latest
        "#]],
        ),
        (
            "SELECT 1; SELECT 2",
            expect![[r#"
            User: The context currently only supports a single SQL statement
        "#]],
        ),
        (
            "SELECT * FROM trads",
            expect![[r#"
            User: there is no table 'trads', did you mean trades? Tables: alerts, trades, "trades.alerts", "trades.bars.1d", "trades.bars.1d.latest", "trades.bars.1h", "trades.bars.1h.latest", "trades.bars.1m", "trades.bars.1m.latest", trades_alerts, trades_bars_1d, trades_bars_1d_latest, trades_bars_1h, trades_bars_1h_latest, trades_bars_1m, trades_bars_1m_latest
        "#]],
        ),
        (
            "SELECT pirce FROM trades",
            expect![[r#"
            User: No field named pirce. Did you mean 'trades.price'?
            Valid fields are trades.symbol, trades.event_time, trades.price, trades.quantity, trades.side, trades.trade_id, trades.market, trades.currency, trades._partition, trades._offset, trades._append_time, trades._receive_time.
        "#]],
        ),
        (
            "SELEKT 1",
            expect![[r#"
            User: sql parser error: Expected: an SQL statement, found: SELEKT at Line: 1, Column: 1
        "#]],
        ),
        (
            "",
            expect![[r#"
            User: No SQL statements were provided in the query string
        "#]],
        ),
        (
            "SELECT 1 / 0 FROM trades",
            expect![[r#"
            User: division by zero
        "#]],
        ),
        (
            "SELECT * FROM other.trades",
            expect![[r#"
            User: there is no table 'other.trades', did you mean trades? Tables: alerts, trades, "trades.alerts", "trades.bars.1d", "trades.bars.1d.latest", "trades.bars.1h", "trades.bars.1h.latest", "trades.bars.1m", "trades.bars.1m.latest", trades_alerts, trades_bars_1d, trades_bars_1d_latest, trades_bars_1h, trades_bars_1h_latest, trades_bars_1m, trades_bars_1m_latest
        "#]],
        ),
        (
            "EXPLAIN ANALYZE INSERT INTO trades SELECT * FROM trades",
            expect![[r#"
            User: the history is read-only, Insert Into is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE
        "#]],
        ),
    ] {
        check(sql, want);
    }
}

#[test]
fn what_cannot_be_worked_out_is_told_in_plain_words() {
    for (sql, want) in [
        (
            "SELECT * FROM trades WHERE 1 / (_offset - _offset) = 1",
            expect![[r#"
            User: division by zero
        "#]],
        ),
        (
            // The same text of each row: which one is met first is not said.
            "SELECT * FROM trades WHERE CAST(concat('no number', substr(trade_id, 1, 0)) AS INT) = 1",
            expect![[r#"
            User: Cannot cast string 'no number' to value of Int32 type
        "#]],
        ),
        (
            "SELECT * FROM generate_series('a', 1)",
            expect![[r#"
            User: Argument #1 must be an INTEGER, TIMESTAMP, DATE or NULL, got Utf8
        "#]],
        ),
        (
            "SELECT * FROM generate_series(1, 10, 0)",
            expect![[r#"
            User: Step cannot be zero
        "#]],
        ),
        (
            "SELECT * FROM generate_series(1, price)",
            expect![[r#"
                User: Argument #2 must be an INTEGER or NULL
            "#]],
        ),
        (
            "SELECT nope FROM generate_series(1, 10)",
            expect![[r#"
            User: No field named nope.
            Valid fields are "generate_series()".value.
        "#]],
        ),
        (
            "SELECT * FROM generate_series(1, 10) WHERE value LIKE 'x'",
            expect![[r#"
            User: There isn't a common type to coerce Int64 and Utf8 in LIKE expression
        "#]],
        ),
        (
            "SELECT * FROM generate_series(1, 10), trads",
            expect![[r#"
            User: there is no table 'trads', did you mean trades? Tables: alerts, trades, "trades.alerts", "trades.bars.1d", "trades.bars.1d.latest", "trades.bars.1h", "trades.bars.1h.latest", "trades.bars.1m", "trades.bars.1m.latest", trades_alerts, trades_bars_1d, trades_bars_1d_latest, trades_bars_1h, trades_bars_1h_latest, trades_bars_1m, trades_bars_1m_latest
        "#]],
        ),
        (
            "SELECT * FROM generate_serie(1, 10)",
            expect![[r#"
            User: there is no table 'generate_serie'. Tables: alerts, trades, "trades.alerts", "trades.bars.1d", "trades.bars.1d.latest", "trades.bars.1h", "trades.bars.1h.latest", "trades.bars.1m", "trades.bars.1m.latest", trades_alerts, trades_bars_1d, trades_bars_1d_latest, trades_bars_1h, trades_bars_1h_latest, trades_bars_1m, trades_bars_1m_latest
        "#]],
        ),
    ] {
        check(sql, want);
    }
}

#[test]
fn a_runaway_query_ends_and_appends_go_on() {
    let history = fresh();
    let trades: Vec<_> = (0..20_000).map(|i| trade("A", us(DAY) + i, ONE, ONE, None)).collect();
    history.append(&trade_rows(0, 0, &trades)).unwrap();
    let limits = QueryLimits { timeout: Duration::from_millis(300), memory_bytes: 16 << 20, rows_max: 1_000 };
    let runtime = runtime();
    let run = |sql: &'static str| {
        let (history, limits) = (Arc::clone(&history), limits.clone());
        runtime.spawn(async move {
            match history.query(sql, Some(limits)).await {
                Ok(rows) => rows.collect().await.map(|b| b.len()),
                Err(e) => Err(e),
            }
        })
    };
    let cross = run("SELECT count(*) FROM trades a, trades b, trades c WHERE a.price + b.price > c.price");
    history.append(&trade_rows(0, 20_000, &trades[..10])).unwrap();
    assert_eq!(history.next(&topic("trades"), Partition(0)), Offset(20_010));
    let ends = |task: tokio::task::JoinHandle<Result<usize, mulgil_history::HistoryError>>, want: Expect| {
        let error = runtime.block_on(task).unwrap().unwrap_err();
        want.assert_eq(&format!("{:?}: {error}", error.kind()));
    };
    ends(cross, expect!["Time: the query took longer than its limit of 0.3 s: narrow its time range"]);
    ends(run("SELECT _offset FROM trades"), expect!["Limit: the answer has more than 1000 rows: add LIMIT, or narrow the query"]);
    let limits = QueryLimits { timeout: Duration::from_secs(60), memory_bytes: 1 << 20, rows_max: 1_000 };
    let sorted =
        runtime.block_on(async { history.query("SELECT * FROM trades ORDER BY trade_id, price", Some(limits)).await?.collect().await });
    expect!["the query needs more memory than its limit: narrow its time range, group by fewer values, or join less"]
        .assert_eq(&sorted.unwrap_err().to_string());
}

#[test]
fn places_are_limited_and_given_back() {
    let config = HistoryConfig { queries_max: 1, wait_max: Duration::from_millis(10), ..HistoryConfig::default() };
    let history = open(&MemDisk::new(1), config).unwrap();
    runtime().block_on(async {
        let mut first = history.query("SELECT * FROM trades", None).await.unwrap();
        let second = history.query("SELECT 1", None).await.unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Busy);
        assert!(first.next().await.is_none());
        let third = history.query("SELECT 1", None).await.unwrap();
        drop(third);
        history.query("SELECT 1", None).await.unwrap();
    });
}

#[test]
fn a_query_sees_one_moment() {
    let history = filled();
    runtime().block_on(async {
        let rows = history.query("SELECT count(*) AS n FROM (SELECT * FROM trades UNION ALL SELECT * FROM trades)", None).await.unwrap();
        history.append(&trade_rows(0, 4, &[trade("Z", us(DAY), ONE, ONE, None)])).unwrap();
        history.flush().unwrap();
        let batches = rows.collect().await.unwrap();
        let n = arrow::util::display::array_value_to_string(batches[0].column(0), 0).unwrap();
        assert_eq!(n, "10");
        expect![[r#"
            +---+
            | n |
            +---+
            | 6 |
            +---+
        "#]]
        .assert_eq(&ask(&history, "SELECT count(*) AS n FROM trades").await);
    });
}
