//! Every aggregate, by the values that rows see.

use crate::harness::{alerts_of, operator, trade_schema};
use expect_test::{Expect, expect};

/// Prints what each row sees of the feature `f`.
fn check(feature: &str, table: &str, want: Expect) {
    let config = format!(
        "[feature.f]\nstream = 'trades'\n{feature}\n[rule.show]\nstream = 'trades'\nwhen = 'true or f is null'\nseverity = 'low'\ncooldown = '0'\nmessage = '{{key}} {{f:6}}'\n"
    );
    want.assert_eq(&alerts_of(&config, table, &["message"]));
}

const TRADES: &str = "
    A 0    10.00 1   BUY
    A 1    11.00 2   SELL
    B 1    99    7   BUY
    A 4    9.50  -0  BUY
    A 10   12.00 4   BUY
    A 11   12.00 5   SELL
    A 13   8     6   -
";

#[test]
fn counts_and_sums() {
    check(
        "agg = 'count'\nwindow = '10s'",
        TRADES,
        expect![[r#"
        A 0
        A 1
        B 0
        A 2
        A 2
        A 2
        A 3
    "#]],
    );
    check(
        "agg = 'count'\nwindow = '10s'\nincluding = true",
        TRADES,
        expect![[r#"
        A 1
        A 2
        B 1
        A 3
        A 3
        A 3
        A 4
    "#]],
    );
    check(
        "agg = 'sum(quantity)'\nwindow = '10s'",
        TRADES,
        expect![[r#"
        A 0
        A 1
        B 0
        A 3
        A 2
        A 4
        A 9
    "#]],
    );
    check(
        "agg = 'sum(amount)'\nwindow = 'last 2'",
        TRADES,
        expect![[r#"
        A 0
        A 10
        B 0
        A 32
        A 22
        A 48
        A 108
    "#]],
    );
    check(
        "agg = 'sum(amount)'",
        TRADES,
        expect![[r#"
        A 0
        A 10
        B 0
        A 32
        A 32
        A 80
        A 140
    "#]],
    );
    check(
        "agg = 'avg(price)'\nwindow = 'lifetime'\nwarm_up = 2",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A 10.5
        A 10.166667
        A 10.625
        A 10.9
    "#]],
    );
    check(
        "agg = 'stddev(price)'\nwindow = 'last 3'",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A 0.707107
        A 0.763763
        A 1.258306
        A 1.443376
    "#]],
    );
    check(
        "agg = 'ratio(price)'",
        TRADES,
        expect![[r#"
        A unknown
        A 1.1
        B unknown
        A 0.904762
        A 1.180328
        A 1.129412
        A 0.733945
    "#]],
    );
    check(
        "agg = 'zscore(price)'",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A -1.414214
        A 2.400397
        A 1.240216
        A -2.543468
    "#]],
    );
}

#[test]
fn extremes_and_lags() {
    check(
        "agg = 'min(price)'\nwindow = '10s'",
        TRADES,
        expect![[r#"
        A unknown
        A 10
        B unknown
        A 10
        A 9.5
        A 9.5
        A 9.5
    "#]],
    );
    check(
        "agg = 'max(price)'\nwindow = 'last 2'\nincluding = true",
        TRADES,
        expect![[r#"
        A 10
        A 11
        B 99
        A 11
        A 12
        A 12
        A 12
    "#]],
    );
    check(
        "agg = 'max(event_time)'",
        TRADES,
        expect![[r#"
        A unknown
        A 2026-01-01T00:00:00Z
        B unknown
        A 2026-01-01T00:00:01Z
        A 2026-01-01T00:00:04Z
        A 2026-01-01T00:00:10Z
        A 2026-01-01T00:00:11Z
    "#]],
    );
    check(
        "agg = 'lag(price)'",
        TRADES,
        expect![[r#"
        A unknown
        A 10
        B unknown
        A 11
        A 9.5
        A 12
        A 12
    "#]],
    );
    check(
        "agg = 'lag(price, 3)'",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A unknown
        A 10
        A 11
        A 9.5
    "#]],
    );
    check(
        "agg = \"lag(price, '5s')\"",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A unknown
        A 9.5
        A 9.5
        A 9.5
    "#]],
    );
    check(
        "agg = \"lag(price, '5s', '2s')\"",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A unknown
        A 9.5
        A unknown
        A unknown
    "#]],
    );
}

#[test]
fn averages_that_forget() {
    check(
        "agg = 'ewma(price, 0.5)'\nwarm_up = 2",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A 10.5
        A 10
        A 11
        A 11.5
    "#]],
    );
    check(
        "agg = \"ewma(price, halflife '1s')\"",
        TRADES,
        expect![[r#"
        A unknown
        A 10
        B unknown
        A 10.5
        A 9.625
        A 11.962891
        A 11.981445
    "#]],
    );
}

#[test]
fn values_and_recency() {
    check(
        "agg = 'distinct(side)'\nwindow = '10s'",
        TRADES,
        expect![[r#"
        A 0
        A 1
        B 0
        A 2
        A 2
        A 1
        A 2
    "#]],
    );
    check(
        "agg = 'first_seen(side)'",
        TRADES,
        expect![[r#"
        A yes
        A yes
        B yes
        A no
        A no
        A no
        A unknown
    "#]],
    );
    check(
        "agg = 'first_seen(side)'\nwindow = '5s'\nwarm_up = 1",
        TRADES,
        expect![[r#"
        A unknown
        A yes
        B unknown
        A no
        A yes
        A yes
        A unknown
    "#]],
    );
    check(
        "agg = 'time_since'",
        TRADES,
        expect![[r#"
        A unknown
        A 1
        B unknown
        A 3
        A 6
        A 1
        A 2
    "#]],
    );
}

#[test]
fn filters() {
    check(
        "agg = 'count'\nwindow = '1h'\nwhere = \"side = 'BUY'\"",
        TRADES,
        expect![[r#"
        A 0
        A 1
        B 0
        A 1
        A 2
        A 3
        A 3
    "#]],
    );
    check(
        "agg = 'time_since'\nwhere = 'amount > 20'",
        TRADES,
        expect![[r#"
        A unknown
        A unknown
        B unknown
        A 3
        A 9
        A 1
        A 2
    "#]],
    );
}

/// The row at 3 s arrives after the one at 12 s: it sees the window (2, 12], and belongs into it. The row at 1 s does not.
#[test]
fn late_rows() {
    let table = "
        A 1  10 1
        A 12 20 2
        A 3  30 4
        A 1  40 8
        A 12.5 50 16
        A 13 60 32
    ";
    check(
        "agg = 'sum(quantity)'\nwindow = '10s'",
        table,
        expect![[r#"
        A 0
        A 0
        A 2
        A 6
        A 6
        A 18
    "#]],
    );
    check(
        "agg = 'max(price)'\nwindow = '10s'",
        table,
        expect![[r#"
        A unknown
        A unknown
        A 20
        A 30
        A 30
        A 50
    "#]],
    );
    check(
        "agg = 'lag(price)'",
        table,
        expect![[r#"
        A unknown
        A 10
        A 20
        A 30
        A 40
        A 50
    "#]],
    );
    check(
        "agg = \"lag(price, '9s')\"",
        table,
        expect![[r#"
        A unknown
        A 10
        A 10
        A 30
        A 30
        A 30
    "#]],
    );
    check(
        "agg = 'time_since'",
        table,
        expect![[r#"
        A unknown
        A 11
        A 0
        A 0
        A 0.5
        A 0.5
    "#]],
    );
}

/// A key idle for longer than the time to live (30 days) begins anew: B, not A, whose own row is what moves the watermark.
#[test]
fn idle_keys_are_forgotten() {
    let table = "
        A 0 10 1
        B 0 10 1
        A 100 10 1
        B 2592005 10 1
        A 2592006 10 1
        A 2592200 10 1
        A 9999999 10 1
        C 9999999 10 1
        A 9999999 10 1
        B 9999999 10 1
    ";
    check(
        "agg = 'count'",
        table,
        expect![[r#"
        A 0
        B 0
        A 1
        B 1
        A 2
        A 3
        A 4
        C 0
        A 5
        B 0
    "#]],
    );
}

#[test]
fn errors_name_the_feature_and_the_way_out() {
    let error =
        |feature: &str| operator(&trade_schema(), &format!("[feature.f]\nstream = 'trades'\n{feature}")).err().unwrap().to_string() + "\n";
    let cases = [
        "agg = 'cont'",
        "agg = 'sum'",
        "agg = 'sum(prize)'",
        "agg = 'sum(side)'",
        "agg = 'sum(price * 2)'",
        "agg = 'sum(abs(price))'",
        "agg = 'lag(side)'",
        "agg = 'lag(price, 0)'",
        "agg = \"lag(price, '0s')\"",
        "agg = \"lag(price, '9999d')\"",
        "agg = 'ewma(price)'",
        "agg = 'ewma(price, 2)'",
        "agg = 'ewma(price, NaN)'",
        "agg = \"ewma(price, halflife '6x')\"",
        "agg = 'count'\nwindow = '10 sec'",
        "agg = 'count'\nwindow = 'last 9999'",
        "agg = 'count'\nwindow = '0s'",
        "agg = 'lag(price)'\nwindow = '10s'",
        "agg = 'first_seen(side)'\nincluding = true",
        "agg = 'count'\nwhere = 'sid = 1'",
        "agg = 'count'\nwhere = 'price'",
        "agg = 'count'\nwhere = 'f > 1'",
    ];
    expect![[r#"
        feature 'f': there is no aggregate 'cont': did you mean 'count'? (there are count, sum, avg, min, max, stddev, ratio, zscore, ewma, lag, distinct, first_seen, time_since)
        feature 'f': 'sum' must be written sum(column)
        feature 'f': stream 'trades' has no column 'prize': did you mean 'price'? (it has symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount)
        feature 'f': it needs an int, decimal or float column, this one is text
        feature 'f': stream 'trades' has no column 'price * 2': did you mean 'price'? (it has symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount)
        feature 'f': 'sum(abs(price))' must be written name(column) or name(column, parameter): a column cannot be an expression here
        feature 'f': it needs an int, decimal, float or timestamp column, this one is text
        feature 'f': lag must be 1 to 512 rows, it is 0
        feature 'f': '0s' must be longer than zero and at most 400d
        feature 'f': '9999d' must be longer than zero and at most 400d
        feature 'f': 'ewma(price)' must be written ewma(column, 0.05) or ewma(column, halflife '6h')
        feature 'f': the weight of ewma must be above 0 and at most 1, it is 2
        feature 'f': the weight of ewma must be above 0 and at most 1, it is NaN
        feature 'f': '6x' is not a duration: write a whole number and a unit, such as 500ms, 10s, 5m, 1h or 7d
        feature 'f': '10 sec' is not a window: write a duration such as 10s, 1h or 24h, or 'last 20', or 'lifetime'
        feature 'f': window 'last 9999' must be 'last N' with N from 1 to 512
        feature 'f': '0s' must be longer than zero and at most 400d
        feature 'f': 'lag(price)' has no window: remove window = '10000000us'
        feature 'f': 'first_seen(side)' looks at earlier rows only: remove including = true
        feature 'f': there is no column or feature 'sid': did you mean 'side'? (there are symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount)
        feature 'f': 'price' is not a condition: it gives Decimal128(12, 2), not true or false
        feature 'f': there is no column or feature 'f' (there are symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount)
    "#]].assert_eq(&cases.map(error).concat());
    let named = |name: &str| {
        operator(&trade_schema(), &format!("[feature.{name}]\nstream = 'trades'\nagg = 'count'")).err().unwrap().to_string() + "\n"
    };
    expect![[r#"
        feature 'price': stream 'trades' already has a column of that name
        feature 'amount': stream 'trades' already has a column of that name
        feature 'Count': a feature's name is made of a-z, 0-9 and '_' and begins with a letter
        feature 'a b': a feature's name is made of a-z, 0-9 and '_' and begins with a letter
    "#]]
    .assert_eq(&["price", "amount", "Count", "'a b'"].map(named).concat());
}
