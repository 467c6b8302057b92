//! What expressions may say, and what the hostile ones get.

use crate::harness::{alerts_of, operator, trade_schema};
use expect_test::expect;

fn error(when: &str) -> String {
    let when = when.replace('\\', "\\\\").replace('"', "\\\"");
    let config = format!(
        "[feature.volume_ema]\nstream = 'trades'\nagg = 'ewma(quantity, 0.05)'\n[rule.r]\nstream = 'trades'\nseverity = 'low'\nwhen = \"{when}\""
    );
    operator(&trade_schema(), &config).err().map_or_else(|| "ok\n".to_owned(), |e| format!("{e}\n"))
}

#[test]
fn refused() {
    let cases = [
        "prize > 1",
        "quantity >= 50 * volume_emma",
        "price",
        "price > 'abc",
        "price > 1 extra",
        "price > 1; drop table x",
        "trades.price > 1",
        "price > (select 1)",
        "exists (select 1)",
        "symbol in (select symbol from trades)",
        "sum(price) > 1",
        "row_number() over () > 1",
        "now() > event_time",
        "current_timestamp > event_time",
        "random() > 0.5",
        "uuid() = symbol",
        "repeat(symbol, 1000000000) = 'x'",
        "uper(symbol) = 'A'",
        "$1 > 2",
        "side + 1 > 2 and symbol > 3 * side || 1",
        "",
    ];
    expect![[r#"
        rule 'r': there is no column or feature 'prize': did you mean 'price'? (there are symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount, volume_ema)
        rule 'r': there is no column or feature 'volume_emma': did you mean 'volume_ema'? (there are symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount, volume_ema)
        rule 'r': 'price' is not a condition: it gives Decimal128(12, 2), not true or false
        rule 'r': 'price > 'abc' is not a SQL expression: sql parser error: Unterminated string literal at Line: 1, Column: 9
        rule 'r': 'price > 1 extra' is not a SQL expression: it goes on with 'extra' where it should end
        rule 'r': 'price > 1; drop table x' is not a SQL expression: it goes on with ';' where it should end
        rule 'r': 'trades.price' cannot be used: write the column's name alone, without a dot
        rule 'r': subqueries cannot be used: an expression sees one row and its features
        rule 'r': subqueries cannot be used: an expression sees one row and its features
        rule 'r': subqueries cannot be used: an expression sees one row and its features
        rule 'r': 'sum' looks at many rows, an expression at one: declare a feature with agg = "sum…" and use its name
        rule 'r': 'row_number() OVER ()' cannot be used: window functions are features here
        rule 'r': function 'now' cannot be used: the same row must always give the same answer, with bounded memory
        rule 'r': function 'current_timestamp' cannot be used: the same row must always give the same answer, with bounded memory
        rule 'r': function 'random' cannot be used: the same row must always give the same answer, with bounded memory
        rule 'r': function 'uuid' cannot be used: the same row must always give the same answer, with bounded memory
        rule 'r': function 'repeat' cannot be used: the same row must always give the same answer, with bounded memory
        rule 'r': there is no function 'uper': did you mean 'upper'?
        rule 'r': '$1' cannot be used: an expression has no parameters
        rule 'r': 'side + 1 > 2 and symbol > 3 * side || 1' cannot be used: Error during planning: Cannot coerce arithmetic expression Utf8 + Int64 to valid types
        rule 'r': '' is not a SQL expression: sql parser error: Expected: an expression, found: EOF
    "#]].assert_eq(&cases.map(error).concat());
}

#[test]
fn large_ones_are_refused_and_nothing_overflows() {
    let many = |n: usize, join: &str| vec!["price > 1"; n].join(join);
    let cases = [
        "(".repeat(2_000) + "price" + &")".repeat(2_000),
        "not ".repeat(1_000) + "true",
        "- ".repeat(2_000) + "price > 1",
        many(39, " and "),
        many(300, " or "),
        many(1_000, " and "),
        format!("price in ({})", vec!["1"; 350].join(",")),
        format!("price in ({})", vec!["1"; 1_000].join(",")),
        "case when price > 1 then ".repeat(60) + "true" + &" end".repeat(60),
        "abs(".repeat(100) + "price" + &")".repeat(100) + " > 1",
        "1 + ".repeat(900) + "price > 1",
    ];
    let short = |text: String| {
        text.lines().next().unwrap_or_default().chars().rev().take(120).collect::<Vec<_>>().into_iter().rev().collect::<String>() + "\n"
    };
    expect![[r#"
        ((((((((((((((((((((((((((((((((((((((((((((((((((…' is not a SQL expression: sql parser error: recursion limit exceeded
        ot not not not not not not not not not not not not …' is not a SQL expression: it goes on with 'not' where it should end
        - - - - - - - - - - - - - - - - - - - - - - - - - …' is not a SQL expression: sql parser error: recursion limit exceeded
        ok
        rule 'r': the expression is too large: 40 levels and 400 parts are allowed; split it with features or more rules
        rule 'r': an expression may have 4096 bytes, this one has 13995
        ok
        rule 'r': the expression is too large: 40 levels and 400 parts are allowed; split it with features or more rules
         price > 1 then case when price > 1 then case when …' is not a SQL expression: it goes on with 'end' where it should end
        s(abs(abs(abs(abs(abs(abs(abs(abs(abs(abs(abs(abs(…' is not a SQL expression: sql parser error: recursion limit exceeded
        rule 'r': the expression is too large: 40 levels and 400 parts are allowed; split it with features or more rules
    "#]]
    .assert_eq(&cases.map(|c| short(error(&c))).concat());
}

/// One row per case: what the condition gives. Null is not true.
#[test]
fn logic_is_that_of_sql() {
    let fires = |when: &str| {
        let when = when.replace('"', "\\\"");
        let config = format!(
            "[feature.before]\nstream = 'trades'\nagg = 'lag(price)'\n[rule.r]\nstream = 'trades'\nseverity = 'low'\ncooldown = '0'\nwhen = \"{when}\"\nmessage = '{{quantity}}'"
        );
        let rows = "A 0 0.10 1 BUY\nA 1 0 2 -\nA 2 0.30 3 SELL\n";
        format!("{when}: {}\n", alerts_of(&config, rows, &["message"]).replace('\n', " "))
    };
    let cases = [
        "price >= 0.1",
        "price > 0.09999999999999999999",
        "price = 0.1 + 0.0",
        "price * 3 = 0.3",
        "quantity > 1",
        "amount = 0.9",
        "before is null",
        "before < price",
        "not (before < price)",
        "before < price or side = 'SELL'",
        "before < price and side = 'BUY'",
        "side <> 'BUY'",
        "side is distinct from 'BUY'",
        "1 / price > 5",
        "abs(price - before) > 0.05 * before",
        "price / before > 0",
        "case symbol when 'A' then quantity >= 2 else false end",
        "symbol in ('A', 'B') and quantity between 2 and 3",
        "upper(lower(symbol)) like 'A%'",
        "date_part('hour', event_time at time zone 'Asia/Seoul') = 9",
        "extract(second from event_time) >= 2",
        "PRICE > 0.2",
        "coalesce(before, 0) = 0",
    ];
    expect![[r#"
        price >= 0.1: 1 3 
        price > 0.09999999999999999999: 1 3 
        price = 0.1 + 0.0: 1 
        price * 3 = 0.3: 1 
        quantity > 1: 2 3 
        amount = 0.9: 3 
        before is null: 1 
        before < price: 3 
        not (before < price): 2 
        before < price or side = 'SELL': 3 
        before < price and side = 'BUY': 
        side <> 'BUY': 3 
        side is distinct from 'BUY': 2 3 
        1 / price > 5: 1 
        abs(price - before) > 0.05 * before: 2 3 
        price / before > 0: 
        case symbol when 'A' then quantity >= 2 else false end: 2 3 
        symbol in ('A', 'B') and quantity between 2 and 3: 2 3 
        upper(lower(symbol)) like 'A%': 1 2 3 
        date_part('hour', event_time at time zone 'Asia/Seoul') = 9: 1 2 3 
        extract(second from event_time) >= 2: 3 
        PRICE > 0.2: 3 
        coalesce(before, 0) = 0: 
    "#]]
    .assert_eq(&cases.map(fires).concat());
}
