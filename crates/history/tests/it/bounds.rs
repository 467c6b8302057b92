//! Queries that would eat memory or never end: each is refused in words within its time, and another is answered meanwhile.

use crate::support::*;
use mulgil_history::{ErrorKind, History, HistoryError, QueryLimits};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const N_ROWS: i64 = 20_000;
/// The time of a query that would never end, and of one that must meet another limit first.
const TIMEOUT: Duration = Duration::from_millis(300);
const TIMEOUT_LONG: Duration = Duration::from_secs(60);
/// The memory of one query.
const MEMORY_BYTES: usize = 4 << 20;
/// After its time a query has to have ended, and beside it a small one has to be answered. Generous: tests run unoptimised and side by side.
const PROMPT: Duration = Duration::from_secs(30);

fn crowded() -> Arc<History> {
    let history = fresh();
    let trades: Vec<_> =
        (0..N_ROWS).map(|i| trade(&format!("S{}", i % 2), us("2019-07-05T00:00:00Z") + i, ONE + i as i128, ONE, None)).collect();
    history.append(&trade_rows(0, 0, &trades)).unwrap();
    history.flush().unwrap();
    history
}

async fn asked(history: &History, sql: &str, timeout: Duration) -> Result<usize, HistoryError> {
    let limits = QueryLimits { timeout, memory_bytes: MEMORY_BYTES, rows_max: 1_000_000 };
    let batches = history.query(sql, Some(limits)).await?.collect().await?;
    Ok(batches.iter().map(|b| b.num_rows()).sum())
}

const TIME: &str = "the query took longer than its limit of 0.3 s";
const MEMORY: &str = "the query needs more memory than its limit";
const GROWTH: &str = "the query grows to more than 10000 terms";
const PARTS: &str = "the names of WITH make more than 2000 parts of the query";

#[test]
fn runaway_queries_are_refused_while_others_are_answered() {
    let doubled = |n: usize| {
        let views: Vec<String> = (1..n).map(|i| format!("v{i} AS (SELECT * FROM v{} UNION ALL SELECT * FROM v{})", i - 1, i - 1)).collect();
        format!("WITH v0 AS (SELECT price FROM trades), {} SELECT count(*) FROM v{}", views.join(", "), n - 1)
    };
    // Each around the one before, put into the place of `_`.
    let nested = |text: &str, n: usize| {
        (0..n).fold("SELECT trade_id AS t FROM trades".to_owned(), |sql, _| format!("SELECT {text} AS t FROM ({sql})"))
    };
    let each = |text: &str, n: usize| {
        format!(
            "SELECT {} FROM trades",
            vec![text; n].iter().enumerate().map(|(i, text)| format!("{text} AS c{i}")).collect::<Vec<_>>().join(", ")
        )
    };
    let deep = |n: usize| {
        let within = format!("{}a{}", "abs(".repeat(40), ")".repeat(40));
        let names: Vec<String> = (1..n).map(|i| format!("v{i} AS (SELECT {within} AS a FROM v{})", i - 1)).collect();
        format!("WITH v0 AS (SELECT price AS a FROM trades), {} SELECT count(*) FROM v{} WHERE a > 1", names.join(", "), n - 1)
    };
    let cases: Vec<(String, &[&str])> = [
        // Joins that hand on nothing for a long time.
        ("SELECT count(*) FROM trades a, trades b, trades c WHERE a.price + b.price > c.price", &[TIME, MEMORY][..]),
        ("SELECT count(*) FROM trades a JOIN trades b ON a.price + b.price < 0", &[TIME, MEMORY]),
        ("SELECT count(*) FROM trades a LEFT JOIN trades b ON a.price + b.price < 0", &[TIME, MEMORY]),
        ("SELECT count(*) FROM trades a JOIN trades b ON a.symbol = b.symbol AND a.price + b.price < 0", &[TIME, MEMORY]),
        ("SELECT count(*) FROM trades a FULL JOIN trades b ON a.symbol = b.symbol AND a.price * b.price < 0", &[TIME, MEMORY]),
        ("SELECT a.price FROM trades a CROSS JOIN trades b CROSS JOIN trades c ORDER BY a.price + b.price LIMIT 10", &[TIME, MEMORY]),
        ("SELECT count(*) FROM trades a WHERE NOT EXISTS (SELECT 1 FROM trades b WHERE b.price > a.price + 1000)", &[TIME, MEMORY]),
        // What is kept: sorts, groups, distinct values, lists, windows.
        ("SELECT * FROM trades ORDER BY trade_id, price", &[MEMORY]),
        ("SELECT count(*) FROM (SELECT 1 FROM trades a, trades b GROUP BY a.trade_id, b.trade_id)", &[MEMORY, TIME]),
        ("SELECT array_agg(a.trade_id || b.trade_id) FROM trades a, trades b", &[MEMORY, TIME]),
        ("SELECT string_agg(a.trade_id || b.trade_id, ',') FROM trades a, trades b", &[MEMORY, TIME]),
        ("SELECT count(DISTINCT a.price * b.price) FROM trades a, trades b", &[MEMORY, TIME]),
        ("SELECT median(a.price * b.price) FROM trades a, trades b", &[MEMORY, TIME]),
        ("SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY a.price, b.price) AS n FROM trades a, trades b)", &[MEMORY, TIME]),
        // Rows from nothing.
        ("WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", &[TIME]),
        (
            "WITH RECURSIVE n AS (SELECT price FROM trades UNION ALL SELECT b.price FROM n a, trades b) SELECT count(*) FROM n",
            &[MEMORY, TIME],
        ),
        ("SELECT count(*) FROM generate_series(1, 1000000000000) WHERE value % 7 = 8", &[TIME]),
        ("SELECT sum(a.value) FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b", &[TIME, MEMORY]),
        ("SELECT * FROM generate_series(1, 1000000000) ORDER BY value % 1000", &[MEMORY, TIME]),
        // Text that grows.
        ("SELECT repeat('x', 2000000000)", &[MEMORY]),
        ("SELECT length(repeat(trade_id, 1000000)) FROM trades", &[MEMORY]),
        ("SELECT lpad(trade_id, 1000000) FROM trades", &[MEMORY]),
        ("SELECT length(rpad('x', 2147483647, 'y'))", &[MEMORY]),
        ("SELECT replace(repeat('x', 100000), 'x', repeat('y', 100000))", &[MEMORY]),
        ("SELECT regexp_replace(repeat('x', 100000), 'x', repeat('y', 100000), 'g')", &[MEMORY]),
    ]
    .map(|(sql, want)| (sql.to_owned(), want))
    .into_iter()
    .chain([
        (doubled(30), &[PARTS][..]),
        (doubled(30).replace(" AS (", "(price) AS ("), &[PARTS]),
        // Short to write, long to run or to plan.
        (format!("SELECT count(*) FROM ({}) WHERE t > 'x'", nested("t || t", 12)), &[GROWTH]),
        (format!("SELECT count(*) FROM ({}) WHERE t > 'x'", nested("concat(t, t)", 20)), &[GROWTH]),
        (format!("SELECT count(*) FROM ({}) WHERE t > 'x'", nested("t || t", 9)), &[MEMORY]),
        (deep(200), &[GROWTH]),
        (format!("SELECT max(length(t)) FROM ({})", nested("t || t", 14)), &[MEMORY, GROWTH]),
        (each("repeat('x', 60000000) || 'x'", 300), &[MEMORY]),
        (each("repeat(trade_id, 2000)", 100), &[MEMORY]),
        ("SELECT t || t || t || t || t FROM (SELECT repeat(trade_id, 20) AS t FROM trades)".to_owned(), &[MEMORY]),
        ("SELECT max(length(concat(t, t, t, t, t, t, t, t))) FROM (SELECT repeat(trade_id, 20) AS t FROM trades)".to_owned(), &[MEMORY]),
        ("SELECT levenshtein(t, t || 'y') FROM (SELECT repeat(trade_id, 100000) AS t FROM trades WHERE _offset = 0)".to_owned(), &[MEMORY]),
        ("SELECT regexp_count(t, '[a]*b') FROM (SELECT repeat(trade_id, 100000) AS t FROM trades WHERE _offset = 0)".to_owned(), &[MEMORY]),
    ])
    .collect();
    let (history, runtime) = (crowded(), runtime());
    for (sql, want) in cases {
        let small = sql.get(..100).unwrap_or(&sql).to_owned();
        let time = if want.contains(&TIME) { TIMEOUT } else { TIMEOUT_LONG };
        let task = runtime.spawn({
            let history = Arc::clone(&history);
            async move { asked(&history, &sql, time).await }
        });
        let beside = runtime.spawn({
            let history = Arc::clone(&history);
            async move { history.query("SELECT max(price) FROM trades", None).await?.collect().await }
        });
        let started = Instant::now();
        let error = runtime.block_on(async { timeout(PROMPT, task).await.expect("it ends in time").unwrap() }).expect_err(&small);
        let kind = if error.to_string().starts_with(TIME) { ErrorKind::Time } else { ErrorKind::Limit };
        assert_eq!(error.kind(), kind, "{small}: {error}");
        assert!(want.iter().any(|want| error.to_string().starts_with(want)), "{small}: {error}");
        let answered = runtime.block_on(async { timeout(PROMPT, beside).await });
        let answered = answered.unwrap_or_else(|_| panic!("nothing else is answered beside {small}")).unwrap();
        assert_eq!(answered.unwrap_or_else(|error| panic!("beside {small}: {error}"))[0].num_rows(), 1, "{small}");
        // Nothing goes on behind the error: both threads are free again.
        for thread in (0..4).map(|_| runtime.spawn(async {})) {
            runtime.block_on(async { timeout(PROMPT, thread).await }).expect("a thread is free again").unwrap();
        }
        assert!(started.elapsed() < PROMPT, "{small}");
    }
}

/// Functions that are bounded or taken from elsewhere still answer as they should.
#[test]
fn ordinary_text_and_times_are_unharmed() {
    let history = crowded();
    let answer = |sql: &str| runtime().block_on(ask(&history, sql));
    expect_test::expect![[r#"
        +----+-----+-------+-------------+
        | r  | l   | p     | x           |
        +----+-----+-------+-------------+
        | aa | 00a | <0-0> | 0-0 and 0-0 |
        +----+-----+-------+-------------+
    "#]]
    .assert_eq(&answer(
        "SELECT repeat('a', 2) AS r, lpad('a', 3, '0') AS l, replace('<x>', 'x', trade_id) AS p, \
         regexp_replace(trade_id, '(.+)', '\\1 and \\1') AS x FROM trades WHERE _offset = 0",
    ));
    // Nothing joined to nothing is nothing, and types are made alike.
    expect_test::expect![[r#"
        +-----+---+-----+--------+-----+
        | a   | b | c   | d      | e   |
        +-----+---+-----+--------+-----+
        | 0-0 |   | 1S0 | S01.50 | 0-0 |
        +-----+---+-----+--------+-----+
    "#]]
    .assert_eq(&answer(
        "SELECT trade_id || '' AS a, symbol || side AS b, 1 || symbol AS c, symbol || 1.50 AS d, concat(trade_id, side) AS e \
         FROM trades WHERE symbol || '!' = 'S0!' AND _offset = 0",
    ));
    // A row here and there may be long: the bound is on what is made, not on the longest row times all rows.
    expect_test::expect![[r#"
        +---------+
        | n       |
        +---------+
        | 1140026 |
        +---------+
    "#]]
    .assert_eq(&answer(
        "SELECT sum(length(repeat('ab', CASE WHEN _offset = 7 THEN 500020 ELSE CAST(_offset % 8 AS BIGINT) END))) AS n FROM trades",
    ));
    expect_test::expect![[r#"
        +----------------------+--------------------------+----------------------+------+
        | d                    | s                        | m                    | n    |
        +----------------------+--------------------------+----------------------+------+
        | 2019-07-05T00:00:00Z | 2019-07-05T00:00:00.010Z | 2019-07-01T00:00:00Z | 1000 |
        | 2019-07-05T00:00:00Z | 2019-07-05T00:00:00.011Z | 2019-07-01T00:00:00Z | 1000 |
        +----------------------+--------------------------+----------------------+------+
    "#]]
    .assert_eq(&answer(
        "SELECT date_trunc('day', event_time) AS d, date_trunc('millisecond', event_time) AS s, date_trunc('month', event_time) AS m, \
         count(*) AS n FROM trades GROUP BY 1, 2, 3 ORDER BY 2 LIMIT 2 OFFSET 10",
    ));
}
