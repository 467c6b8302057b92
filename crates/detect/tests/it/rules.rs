//! Rules as their users write them: those of systems.md A and D.

use crate::harness::{alerts_of, bar_rows, bar_schema, operator, run, show, trade_schema};
use expect_test::expect;
use mulgil_engine::operator::Operator;

const BRIEF: [&str; 3] = ["rule", "key", "message"];

#[test]
fn fixed_limits() {
    let config = r#"
        [feature.last_price]
        stream = "trades"
        agg = "lag(price)"

        [rule.big_quantity]
        stream = "trades"
        when = "quantity > 500"
        severity = "low"

        [rule.big_amount]
        stream = "trades"
        when = "amount > 100000000"
        severity = "high"
        cooldown = "0"

        [rule.price_jump]
        stream = "trades"
        when = "abs(price - last_price) > 0.05 * last_price"
        severity = "medium"
        message = "{key}: {price} after {last_price}, {(price / last_price - 1) * 100:1} %"
    "#;
    let rows = "
        005930 0    71500 500
        005930 1    71500 500.0001
        005930 2    71500 600
        005930 3    75075 1
        005930 4    78828.75 1
        005930 5    82770.19 1
        005930 6    100000.01 1000
        BRK.B  7    100000 1000
        005930 1801 71500 501
    ";
    expect![[r#"
        big_quantity | 005930 | 005930: quantity > 500 (quantity 500.0001)
        price_jump | 005930 | 005930: 82,770.19 after 78,828.75, 5 %
        big_amount | 005930 | 005930: amount > 100000000 (amount 100,000,010)
        big_quantity | BRK.B | BRK.B: quantity > 500 (quantity 1,000)
        big_quantity | 005930 | 005930: quantity > 500 (quantity 501)
    "#]]
    .assert_eq(&alerts_of(config, rows, &BRIEF));
}

#[test]
fn orders_in_ten_seconds() {
    let config = r#"
        [feature.count_10s]
        stream = "trades"
        agg = "count"
        window = "10s"
        including = true

        [rule.rapid]
        stream = "trades"
        when = "count_10s >= 5"
        severity = "medium"
        transitions_only = true
    "#;
    let rows = "
        A 0 1 1
        A 1 1 1
        A 2 1 1
        A 3 1 1
        A 4 1 1
        A 5 1 1
        A 20 1 1
        A 21 1 1
        A 22 1 1
        A 23 1 1
        A 24 1 1
    ";
    expect![[r#"
        "2026-01-01T00:00:04Z" | raised | A: count_10s >= 5 (count_10s 5) | {"count_10s":5} | {"count_10s >= 5":5} | 104 | 100 | 50.0
        "2026-01-01T00:00:24Z" | raised | A: count_10s >= 5 (count_10s 5) | {"count_10s":5} | {"count_10s >= 5":5} | 110 | 106 | 50.0
    "#]]
    .assert_eq(&alerts_of(
        config,
        rows,
        &["event_time", "state", "message", "evidence", "thresholds", "input_offset", "first_offset", "score"],
    ));
}

#[test]
fn hundred_trades_in_ten_seconds() {
    let config = "[feature.n]\nstream = 'trades'\nagg = 'count'\nwindow = '10s'\n[rule.rapid]\nstream = 'trades'\nwhen = 'n >= 100'\nseverity = 'medium'\ntransitions_only = true";
    let rows: String = (0..300).map(|i| format!("A {} 1 1\n", f64::from(i) * if i < 250 { 0.05 } else { 0.5 })).collect();
    expect![[r#"
        "2026-01-01T00:00:05Z" | A: n >= 100 (n 100) | 100
    "#]]
    .assert_eq(&alerts_of(config, &rows, &["event_time", "message", "first_offset"]));
}

#[test]
fn volume_surge_after_warm_up() {
    let config = r#"
        [feature.volume_ema]
        stream = "trades"
        agg = "ewma(quantity, 0.05)"
        warm_up = 50

        [rule.volume_surge]
        stream = "trades"
        when = "quantity >= 50 * volume_ema"
        severity = "high"
        cooldown = "30m"
    "#;
    let rows: String = (0..60).map(|i| format!("A {i} 1 {}\n", if matches!(i, 10 | 55 | 58) { 120_000 } else { 2_000 })).collect();
    let quiet: String = (0..60).map(|i| format!("B {i} 1 {}\n", if i == 55 { 120_000 } else { 2_000 })).collect();
    expect![[r#"
        volume_surge | high | B: quantity 120,000 is 60 x volume_ema (threshold 50 x) | quantity >= 50 * volume_ema | {"quantity":120000,"volume_ema":2000.0} | {"quantity >= 50 * volume_ema":50} | 215
    "#]].assert_eq(&alerts_of(config, &(rows + &quiet), &["rule", "severity", "message", "condition", "evidence", "thresholds", "input_offset"]));
}

#[test]
fn limits_by_symbol() {
    let config = r#"
        [feature.last_price]
        stream = "trades"
        agg = "lag(price)"

        [rule.whale]
        stream = "trades"
        when = "amount >= case symbol when 'KRW-BTC' then 500000000 when 'KRW-ETH' then 300000000 else 100000000 end"
        severity = "high"

        [rule.move]
        stream = "trades"
        when = "abs(price - last_price) >= last_price * case when symbol = 'KRW-BTC' then 0.02 else 0.03 end"
        severity = "medium"
    "#;
    let rows = "
        KRW-BTC 0 100000000 4.9999
        KRW-BTC 1 102000000 5
        KRW-ETH 0 5000000 60
        KRW-ETH 1 5149999.99 59
        KRW-XRP 0 1000 100000
        KRW-XRP 1 1030 1
    ";
    expect![[r#"
        move | KRW-BTC | {"price":102000000,"last_price":100000000,"symbol":"KRW-BTC"} | {"symbol = 'KRW-BTC'":"KRW-BTC","abs(price - last_price) >= last_price * CASE WHEN symbol = 'KRW-BTC' THEN 0.02 ELSE 0.03 END":[0.02,0.03]}
        whale | KRW-BTC | {"amount":510000000,"symbol":"KRW-BTC"} | {"amount >= CASE symbol WHEN 'KRW-BTC' THEN 500000000 WHEN 'KRW-ETH' THEN 300000000 ELSE 100000000 END":["KRW-BTC",500000000,"KRW-ETH",300000000,100000000]}
        whale | KRW-ETH | {"amount":300000000,"symbol":"KRW-ETH"} | {"amount >= CASE symbol WHEN 'KRW-BTC' THEN 500000000 WHEN 'KRW-ETH' THEN 300000000 ELSE 100000000 END":["KRW-BTC",500000000,"KRW-ETH",300000000,100000000]}
        whale | KRW-XRP | {"amount":100000000,"symbol":"KRW-XRP"} | {"amount >= CASE symbol WHEN 'KRW-BTC' THEN 500000000 WHEN 'KRW-ETH' THEN 300000000 ELSE 100000000 END":["KRW-BTC",500000000,"KRW-ETH",300000000,100000000]}
        move | KRW-XRP | {"price":1030,"last_price":1000,"symbol":"KRW-XRP"} | {"symbol = 'KRW-BTC'":"KRW-BTC","abs(price - last_price) >= last_price * CASE WHEN symbol = 'KRW-BTC' THEN 0.02 ELSE 0.03 END":[0.02,0.03]}
    "#]].assert_eq(&alerts_of(config, rows, &["rule", "key", "evidence", "thresholds"]));
}

const LEVELS: &str = r#"
    [feature.close_24h]
    stream = "trades.bars.1m"
    agg = "lag(close, '24h', '1h')"

    [rule.day_move]
    stream = "trades.bars.1m"
    value = "close / close_24h - 1"
    levels = [-0.5, 0.5, 1.0, 2.0]
    severity = "high"
    message = "{key}: {close} against {close_24h} a day ago, level {level} {state}"
"#;

#[test]
fn levels_against_the_day_before() {
    let day = 24 * 60;
    let closes = ["149", "150", "155", "149.99", "150", "200", "301", "99", "49", "100", "310"];
    let mut bars: Vec<(i64, &str)> = (0..20).map(|m| (m, "100")).collect();
    bars.extend(closes.iter().enumerate().map(|(i, c)| (day + i as i64, *c)));
    // Nothing is known about a day ago here: the level stays.
    bars.push((day + 120, "500"));
    let schema = bar_schema();
    let make = || Box::new(operator(&schema, LEVELS).unwrap()) as Box<dyn Operator>;
    let rows = bar_rows(&bars);
    let whole = show(&run(&make, &rows, &[], false), &["event_time", "state", "message", "condition", "thresholds"]);
    let cuts: Vec<usize> = (0..rows.len()).collect();
    assert_eq!(whole, show(&run(&make, &rows, &cuts, true), &["event_time", "state", "message", "condition", "thresholds"]));
    expect![[r#"
        "2026-01-02T00:02:00Z" | raised | KRW-BTC: 150 against 100 a day ago, level 0.5 raised | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:04:00Z" | cleared | KRW-BTC: 149.99 against 100 a day ago, level 0 cleared | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:05:00Z" | raised | KRW-BTC: 150 against 100 a day ago, level 0.5 raised | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:06:00Z" | raised | KRW-BTC: 200 against 100 a day ago, level 1 raised | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:07:00Z" | raised | KRW-BTC: 301 against 100 a day ago, level 2 raised | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:08:00Z" | cleared | KRW-BTC: 99 against 100 a day ago, level 0 cleared | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:09:00Z" | raised | KRW-BTC: 49 against 100 a day ago, level -0.5 raised | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:10:00Z" | cleared | KRW-BTC: 100 against 100 a day ago, level 0 cleared | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
        "2026-01-02T00:11:00Z" | raised | KRW-BTC: 310 against 100 a day ago, level 2 raised | close / close_24h - 1 at levels -0.5, 0.5, 1, 2 | {"levels":[-0.5, 0.5, 1, 2]}
    "#]].assert_eq(&whole);
}

#[test]
fn day_volume_against_the_week_with_a_floor() {
    let config = r#"
        [feature.amount_24h]
        stream = "trades"
        agg = "sum(amount)"
        window = "24h"
        including = true

        [feature.amount_7d]
        stream = "trades"
        agg = "sum(amount)"
        window = "7d"

        [rule.day_volume]
        stream = "trades"
        when = "amount_24h >= 1000000000 and amount_24h >= 4 * amount_7d / 7"
        severity = "high"
        transitions_only = true
    "#;
    let mut rows: String = (0..14).map(|d| format!("A {} 1000 300000\nB {} 1000 30000\n", d * 43_200, d * 43_200)).collect();
    rows.push_str("A 605000 1000 2200000\nB 605000 1000 300000\nA 605100 1000 1\n");
    expect![[r#"
        day_volume | A | "2026-01-08T00:03:20Z" | {"amount_24h":2500000000,"amount_7d":3900000000}
    "#]]
    .assert_eq(&alerts_of(config, &rows, &["rule", "key", "event_time", "evidence"]));
}

#[test]
fn marked_rows_are_history() {
    let config = "[feature.n]\nstream = 'trades'\nagg = 'count'\n[rule.r]\nstream = 'trades'\nwhen = 'quantity > 5'\nseverity = 'low'\ncooldown = '0'\nmessage = '{n}'";
    expect![[r#"
        1
        2
        4
    "#]]
    .assert_eq(&alerts_of(config, "A 0 1 10 - backfill\nA 1 1 10 - live\nA 2 1 10\nA 3 1 10 BUY backfill\nA 4 1 10", &["message"]));
}

#[test]
fn modes_and_cooldowns() {
    let rule = |mode: &str, cooldown: &str| {
        format!("[rule.r]\nstream = 'trades'\nwhen = 'price >= 2'\nseverity = 'critical'\nweight = 3\nmode = '{mode}'\n{cooldown}")
    };
    let rows = "A 0 2 1\nA 1 2 1\nA 1799.9 2 1\nA 1800 2 1\nA 1700 2 1\nA 1801 1 1\nA 1802 2 1\nB 3 2 1";
    let fires = |config: &str| alerts_of(config, rows, &["mode", "key", "event_time", "score"]);
    expect![[r#"
        shadow | A | "2026-01-01T00:00:00Z" | 97.5
        shadow | A | "2026-01-01T00:30:00Z" | 97.5
        shadow | B | "2026-01-01T00:00:03Z" | 97.5
    "#]]
    .assert_eq(&fires(&rule("shadow", "")));
    assert_eq!(fires(&rule("off", "")), "");
    expect![[r#"
        live | A | "2026-01-01T00:00:00Z" | 97.5
        live | A | "2026-01-01T00:30:02Z" | 97.5
        live | B | "2026-01-01T00:00:03Z" | 97.5
    "#]]
    .assert_eq(&fires(&rule("live", "transitions_only = true")));
    // Held back at 1802, reported when it still holds after the cool-down.
    let rows = "A 0 2 1\nA 1 1 1\nA 2 2 1\nA 60 2 1\nA 61 2 1";
    expect![[r#"
        "2026-01-01T00:00:00Z"
        "2026-01-01T00:01:00Z"
    "#]]
    .assert_eq(&alerts_of(&rule("live", "transitions_only = true\ncooldown = '1m'"), rows, &["event_time"]));
}

#[test]
fn failures_of_one_row_stay_with_it() {
    let config = "[rule.r]\nstream = 'trades'\nwhen = '1 / price > 0.5'\nseverity = 'low'\ncooldown = '0'\nmessage = '{price}'";
    expect![[r#"
        1
        1.5
    "#]]
    .assert_eq(&alerts_of(config, "A 0 1 1\nA 1 0 1\nA 2 1.5 1\nA 3 9 1", &["message"]));
}

#[test]
fn errors_name_the_rule_and_the_way_out() {
    let error = |rule: &str| {
        operator(&trade_schema(), &format!("[rule.r]\nstream = 'trades'\n{rule}")).err().map_or_else(|| "ok".to_owned(), |e| e.to_string())
            + "\n"
    };
    let cases = [
        "severity = 'hihg'\nwhen = 'true'",
        "severity = 'high'",
        "severity = 'high'\nwhen = 'true'\nweight = -1",
        "severity = 'high'\nwhen = 'true'\ncooldown = 'soon'",
        "severity = 'high'\nvalue = 'price'",
        "severity = 'high'\nlevels = [1.0]",
        "severity = 'high'\nvalue = 'prize'\nlevels = [1.0]",
        "severity = 'high'\nvalue = 'price'\nlevels = [1.0, 1.0]",
        "severity = 'high'\nvalue = 'price'\nlevels = [0.0]",
        "severity = 'high'\nvalue = 'symbol'\nlevels = [1]",
        "severity = 'high'\nwhen = 'true'\nmessage = 'a {prize} b'",
        "severity = 'high'\nwhen = 'true'\nmessage = 'a {price b'",
        "severity = 'high'\nwhen = 'true'\nmessage = 'a } b'",
        "severity = 'high'\nwhen = 'true'\nmessage = '{{a}} {price:2} {key}'",
    ];
    expect![[r#"
        rule 'r': there is no severity 'hihg': did you mean 'high'? (there are low, medium, high, critical)
        rule 'r': it needs a condition: when = "…"
        rule 'r': weight must be 0 or more, it is -1
        rule 'r': cooldown: 'soon' is not a duration: write a whole number and a unit, such as 500ms, 10s, 5m, 1h or 7d
        rule 'r': value needs levels = [0.5, 1.0, …]
        rule 'r': levels need a value = "…" to measure
        rule 'r': there is no column or feature 'prize': did you mean 'price'? (there are symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount)
        rule 'r': levels must be 1 to 16 different numbers other than 0
        rule 'r': levels must be 1 to 16 different numbers other than 0
        rule 'r': value 'symbol' is not a number
        rule 'r': in the message, there is no column or feature 'prize': did you mean 'price'? (there are symbol, event_time, price, quantity, side, trade_id, market, currency, backfill, amount)
        rule 'r': message 'a {price b' has a '{' without its other half: write {{ for the sign itself
        rule 'r': message 'a } b' has a '}' without its other half: write }} for the sign itself
        ok
    "#]].assert_eq(&cases.map(error).concat());
}

#[test]
fn versions_follow_the_meaning() {
    let version = |extra: &str, window: &str, when: &str| {
        let config = format!(
            "[feature.n]\nstream = 'trades'\nagg = 'count'\nwindow = '{window}'\n[rule.r]\nstream = 'trades'\nwhen = '{when}'\nseverity = 'low'\n{extra}"
        );
        operator(&trade_schema(), &config).unwrap().rules()[0].version.clone()
    };
    let base = version("", "10s", "n > 5");
    assert_eq!(base, version("message = 'x'\nmode = 'shadow'", "10s", "  N  >5"));
    assert_ne!(base, version("", "11s", "n > 5"));
    assert_ne!(base, version("", "10s", "n > 6"));
    assert_ne!(base, version("weight = 2", "10s", "n > 5"));
    assert_eq!(base.len(), 8);
}

#[test]
fn reload_keeps_what_did_not_change() {
    let config = |window: &str, when: &str| {
        format!(
            "[feature.a]\nstream = 'trades'\nagg = 'count'\n[feature.b]\nstream = 'trades'\nagg = 'count'\nwindow = '{window}'\n[rule.r]\nstream = 'trades'\nwhen = '{when}'\nseverity = 'low'\ncooldown = '0'\nmessage = '{{a}} {{b}}'"
        )
    };
    let schema = trade_schema();
    let mut rules = operator(&schema, &config("1h", "true")).unwrap();
    let rows = crate::harness::trade_rows("A 0 1 1\nA 1 1 1\nA 2 1 1\nA 3 1 1");
    let step = |rules: &mut dyn Operator, from: usize, n: usize| {
        let part = rows.slice(from, n);
        let mut out = mulgil_engine::output::Outputs::default();
        let watermarks = vec![0; n];
        rules
            .on_rows(&mulgil_engine::operator::Input::new(&part, 0, &watermarks), &mulgil_engine::state::MemStore::new(), &mut out)
            .unwrap();
        show(&out.into_emitted().into_iter().map(|e| e.batch).collect::<Vec<_>>(), &["message"])
    };
    assert_eq!(step(&mut rules, 0, 2), "0 0\n1 1\n");
    let (features, specs) = crate::harness::specs(&config("2h", "true"));
    let reload = rules.reload(&features, &specs).unwrap();
    assert_eq!((reload.kept, reload.fresh, reload.removed), (vec!["a".to_owned()], vec!["b".to_owned()], vec![]));
    assert_eq!(step(&mut rules, 2, 1), "2 0\n");
    let (features, bad) = crate::harness::specs(&config("2h", "nonsense > 1"));
    assert!(rules.reload(&features, &bad).is_err());
    let message = serde_json::to_string(&mulgil_detect::rules::Reloaded { features, rules: specs }).unwrap();
    rules
        .on_message(
            &message,
            mulgil_model::ids::Offset(3),
            &mulgil_engine::state::MemStore::new(),
            &mut mulgil_engine::output::Outputs::default(),
        )
        .unwrap();
    assert_eq!(step(&mut rules, 3, 1), "3 1\n");
}
