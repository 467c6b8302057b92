//! Everything bad that issue 3 lists, as tables: each gets a clear reason and a place, and the rows around it are kept.

use super::{decoded, plan, strict};
use expect_test::{Expect, expect};
use mulgil_connect::decode::{DecodeOptions, Format, Mapping, Plan, Side, decode};
use proptest::prelude::*;

/// One row with these fields in place of the good ones.
fn row(changes: &[(&str, &str)]) -> String {
    let mut fields = vec![("symbol", "\"005930\""), ("event_time", "1561309495124"), ("price", "71500"), ("quantity", "3")];
    for (name, value) in changes {
        match fields.iter_mut().find(|(n, _)| n == name) {
            Some(field) => field.1 = value,
            None => fields.push((name, value)),
        }
    }
    let fields: Vec<String> = fields.iter().filter(|(_, v)| !v.is_empty()).map(|(n, v)| format!("\"{n}\":{v}")).collect();
    format!("{{{}}}", fields.join(","))
}

fn reasons(rows: &[String]) -> String {
    decoded(&strict(), Format::Ndjson, rows.join("\n").as_bytes())
}

fn check(rows: &[String], want: Expect) {
    want.assert_eq(&reasons(rows));
}

#[test]
fn numbers() {
    let one = |name: &'static str, value: &str| row(&[(name, value)]);
    check(
        &[
            one("price", "\"NaN\""),
            one("price", "\"-Infinity\""),
            one("price", "0"),
            one("price", "-1"),
            one("price", "1.348e-05"),
            one("price", "1234567890123456789012345678901234567890"),
            one("price", "0.1234567890123456789012345678901234567890"),
            one("price", "true"),
            one("price", "[1]"),
            one("price", "{\"a\":1}"),
            one("price", "null"),
            one("price", ""),
            one("price", "\"12,5\""),
            one("quantity", "0"),
            one("quantity", "\"7\""),
            one("quantity", "1e400"),
            one("score", "\"inf\""),
            one("score", "1e999"),
            one("score", "0.5"),
            one("seq", "1.5"),
            one("seq", "2.0"),
            one("seq", "9223372036854775808"),
        ],
        expect![[r#"
            0 !1:55 'price' 'NaN' is not a finite number | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":\"NaN\",
            1 !2:55 'price' '-Infinity' is not a finite number | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":\"-Infi
            2 !3:55 'price' must be greater than zero | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":0,\"qua
            3 !4:55 'price' must be greater than zero | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":-1,\"qu
            4 @5 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":0.00001348,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
            5 !6:55 'price' 1234567890123456789012345678901234567890 does not fit into decimal(18, 8) | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":123456
            6 !7:55 'price' 0.1234567890123456789012345678901234567890 has more than 8 decimals: widen the column's scale, or send fewer decimals | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":0.1234
            7 !8:55 'price' must be a number, not a boolean | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":true,\"
            8 !9:55 'price' must be a number, not a list | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":[1],\"q
            9 !10:55 'price' must be a number, not an object | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":{\"a\":1
            10 !11:1 'price' is required | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":null,\"
            11 !12:1 'price' is required | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"quantity\":3}
            12 !13:55 'price' '12,5' is not a number | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":\"12,5\"
            13 !14:72 'quantity' must be greater than zero | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            14 @15 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":7,"side":null,"trade_id":null,"market":null,"currency":null}
            15 !16:72 'quantity' 1e400 does not fit into decimal(20, 8) | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            16 !17:82 'score' 'inf' is not a finite number | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            17 !18:82 'score' '1e999' is not a finite number | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            18 @19 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null,"score":0.5,"seq":null,"block":null}
            19 !20:80 'seq' 1.5 is not a whole number | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            20 @21 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null,"score":null,"seq":2,"block":null}
            21 !22:80 'seq' 9223372036854775808 does not fit into 64 bits | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
        "#]],
    );
}

#[test]
fn texts() {
    let one = |name: &'static str, value: &str| row(&[(name, value)]);
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    check(
        &[
            one("symbol", "5930"),
            one("symbol", "\"\""),
            one("symbol", "\"A B\""),
            one("symbol", "\"\\u0041DX/BTC\""),
            one("symbol", "\"\\ud800\""),
            one("symbol", &long),
            one("side", "\"bid\""),
            one("side", "\"hold\""),
            one("side", "\"\""),
            one("trade_id", "17"),
            one("trade_id", &long),
            one("block", "1"),
            one("block", "\"true\""),
            one("prise", "1"),
        ],
        expect![[r#"
            0 !1:11 'symbol' must be text, not a number | {\"symbol\":5930,\"event_time\":1561309495124,\"price\":71500,\"qua
            1 !2:11 'symbol' must not be empty | {\"symbol\":\"\",\"event_time\":1561309495124,\"price\":71500,\"quant
            2 !3:11 'symbol' 'A B' is not a symbol: use letters, digits and any of . - _ / : = ^ & + # @ $ | {\"symbol\":\"A B\",\"event_time\":1561309495124,\"price\":71500,\"qu
            3 @4 {"symbol":"ADX/BTC","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
            4 !5:11 not valid JSON: invalid surrogate unicode code point | {\"symbol\":\"\\ud800\",\"event_time\":1561309495124,\"price\":71500,
            5 !6:11 'symbol' is 1048576 bytes long; a field may have 65536 | {\"symbol\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
            6 @7 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
            7 !8:81 'side' 'hold' is neither BUY nor SELL, nor a spelling that the mapping knows | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            8 @9 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
            9 @10 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":"17","market":null,"currency":null}
            10 !11:85 'trade_id' is 1048576 bytes long; a field may have 65536 | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            11 !12:82 'block' must be true or false, not a number | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
            12 @13 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null,"score":null,"seq":null,"block":true}
            13 !14:82 'prise' is not a field of stream 'trades'; did you mean 'price'? | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
        "#]],
    );
}

#[test]
fn times() {
    let one = |value: &str| row(&[("event_time", value)]);
    check(
        &[
            one("1561309495"),
            one("\"2019-07-05T17:00:00+09:00\""),
            one("\"2019-07-05 17:00:00\""),
            one("1795219500000"),
            one("1795219500001"),
            one("\"2199-01-01T00:00:00Z\""),
            one("9999999999999999"),
            one("-99999999999999"),
            one("\"1899-12-31T23:59:59Z\""),
            one("\"yesterday\""),
            one("false"),
        ],
        expect![[r#"
            0 @1 {"symbol":"005930","event_time":"1970-01-19T01:41:49.495Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
            1 @2 {"symbol":"005930","event_time":"2019-07-05T08:00:00Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
            2 !3:33 'event_time' '2019-07-05 17:00:00' has no offset from UTC: name the input's time zone, or send 2026-11-21T09:00:00+09:00 | {\"symbol\":\"005930\",\"event_time\":\"2019-07-05 17:00:00\",\"price
            3 @4 {"symbol":"005930","event_time":"2026-11-21T00:05:00Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
            4 !5:33 'event_time' 2026-11-21T00:05:00.001Z lies 300 s in the future of its receipt: is its unit or time zone right? | {\"symbol\":\"005930\",\"event_time\":1795219500001,\"price\":71500,
            5 !6:33 'event_time' 2199-01-01T00:00:00Z lies 5431363200 s in the future of its receipt: is its unit or time zone right? | {\"symbol\":\"005930\",\"event_time\":\"2199-01-01T00:00:00Z\",\"pric
            6 !7:33 'event_time' time 9999999999999999 is outside the years 1900 to 2200: is its unit right? | {\"symbol\":\"005930\",\"event_time\":9999999999999999,\"price\":715
            7 !8:33 'event_time' time -99999999999999 is outside the years 1900 to 2200: is its unit right? | {\"symbol\":\"005930\",\"event_time\":-99999999999999,\"price\":7150
            8 !9:33 'event_time' time 1899-12-31T23:59:59Z is outside the years 1900 to 2200: is its unit right? | {\"symbol\":\"005930\",\"event_time\":\"1899-12-31T23:59:59Z\",\"pric
            9 !10:33 'event_time' 'yesterday' is not a time: use RFC 3339 (2026-11-21T09:00:00+09:00) or epoch milliseconds | {\"symbol\":\"005930\",\"event_time\":\"yesterday\",\"price\":71500,\"q
            10 !11:33 'event_time' must be a time, not a boolean | {\"symbol\":\"005930\",\"event_time\":false,\"price\":71500,\"quantit
        "#]],
    );
}

#[test]
fn ndjson_text() {
    let good = row(&[]);
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let mut bytes = Vec::new();
    for line in [
        good.as_str(),
        "{\"symbol\":\"A\",",
        "",
        "   ",
        "{\"symbol\": nan}",
        "[]",
        "42",
        &format!("{good} {good}"),
        &format!("{good}]"),
        "{}",
        "{\"symbol\":\"A\",\"symbol\":\"B\"}",
        &deep,
        "{\"symbol\":\"\u{1}\"}",
        "nonsense",
    ] {
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(b"{\"symbol\":\"A\xff\"}\n\xf0\x28\n\r\n");
    bytes.extend_from_slice(format!("  {good}  ").as_bytes());
    expect![[r#"
        0 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !2:13 not valid JSON: expected this character to be '"' or '}' | {\"symbol\":\"A\",
        2 !5:14 not valid JSON: invalid literal (`true`, `false`, or a `null`) | {\"symbol\": nan}
        3 !6:1 a row must be a JSON object | []
        4 !7:1 a row must be a JSON object | 42
        5 !8:75 unexpected text behind the object: put each object on a line of its own, or send a list | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
        6 !9:74 unexpected text behind the object: put each object on a line of its own, or send a list | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,
        7 !10:1 'symbol' is required | {}
        8 !11:24 'symbol' is given twice | {\"symbol\":\"A\",\"symbol\":\"B\"}
        9 !12:37 nested more than 32 levels deep | {\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
        10 !13:11 not valid JSON: control character found while parsing a string | {\"symbol\":\"\u{1}\"}
        11 !14:1 a row must be a JSON object | nonsense
        12 !15:13 not valid UTF-8 | {\"symbol\":\"A�\"}
        13 !16:1 not valid UTF-8 | �(
        14 @18 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
    "#]].assert_eq(&decoded(&strict(), Format::Ndjson, &bytes));
}

#[test]
fn json_documents() {
    let good = row(&[]);
    let show = |text: &str| decoded(&strict(), Format::Json, text.as_bytes()) + "\n";
    let mut out = String::new();
    for text in [
        good.clone(),
        format!("[{good},\n  {{\"price\": }},\n{good}]"),
        format!("[{good}, 7, {{\"symbol\":\"A]\\\"}}\", \"price\": {{\"x\":[1,2]}}}}, {good},]"),
        format!("[{good},\n{{\"symbol\":\"A}},\n{good}]"),
        format!("[{good}"),
        format!("[{good}] x"),
        format!("{good} {good}"),
        "[]".to_owned(),
        "".to_owned(),
        "[".repeat(1000),
        "\"text\"".to_owned(),
    ] {
        out += &show(&text);
    }
    expect![[r#"
        0 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}

        0 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !2:12 not valid JSON: invalid json value | {\"price\": }
        2 @3 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}

        0 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !1:77 a row must be a JSON object | 7
        2 !1:90 'symbol' 'A]\"}' is not a symbol: use letters, digits and any of . - _ / : = ^ & + # @ $ | {\"symbol\":\"A]\\\"}\", \"price\": {\"x\":[1,2]}}
        3 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
        4 !1:196 an object must follow the comma | ]

        0 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !2:13 not valid JSON: it ends too early | {\"symbol\":\"A},
        2 @3 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}

        0 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !1:75 the list has no end: ']' is missing | 

        0 @1 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":null,"trade_id":null,"market":null,"currency":null}
        1 !1:77 unexpected text behind the list | x

        0 !1:75 unexpected text behind the object: put each object on a line of its own, or send a list | {\"symbol\":\"005930\",\"event_time\":1561309495124,\"price\":71500,


        0 !1:1 the input is empty: send an object or a list of objects | 

        0 !1:34 nested more than 32 levels deep | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
        1 !1:1001 the list has no end: ']' is missing | 

        0 !1:1 a row must be a JSON object | \"text\"

    "#]].assert_eq(&out);
}

#[test]
fn csv_text() {
    let header = "symbol,event_time,price,quantity,side\n";
    let good = "005930,1561309495124,71500,3,buy\n";
    let mut out = String::new();
    for body in [
        format!("{good}\n\r\n{good}"),
        format!("{good}005930,1561309495124,71500,3\n{good}"),
        format!("{good}005930,1561309495124,NaN,3,buy\n005930,1561309495124,,3,\n"),
        format!("{good}\"005930\",\"1561309495124\",\"71500\",\"3\",\"buy\"\n005930,\"15613\n09495124\",1,1,\n{good}"),
        format!("{good}\"005930,1561309495124,71500,3,buy\n{good}{good}"),
        good.trim_end().to_owned(),
    ] {
        out += &(decoded(&strict(), Format::Csv, format!("{header}{body}").as_bytes()) + "\n");
    }
    let mut bytes = format!("{header}{good}").into_bytes();
    bytes.extend_from_slice(b"A\xff,1561309495124,1,1,\n");
    out += &decoded(&strict(), Format::Csv, &bytes);
    expect![[r#"
        0 @2 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        1 @5 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}

        0 @2 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        1 !3:1 the row has 4 fields, the header has 5 | 005930,1561309495124,71500,3
        2 @4 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}

        0 @2 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        1 !3:22 'price' 'NaN' is not a finite number | 005930,1561309495124,NaN,3,buy
        2 !4:1 'price' is required | 005930,1561309495124,,3,

        0 @2 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        1 @3 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        2 !4:8 'event_time' '15613
        09495124' is not a time: use RFC 3339 (2026-11-21T09:00:00+09:00) or epoch milliseconds | 005930,\"15613\n09495124\",1,1,
        3 @6 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}

        0 @2 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        1 !3:1 the row has 1 fields, the header has 5 | \"005930,1561309495124,71500,3,buy
        2 @4 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        3 @5 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}

        0 @2 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}

        0 @2 {"symbol":"005930","event_time":"2019-06-23T17:04:55.124Z","price":71500,"quantity":3,"side":"BUY","trade_id":null,"market":null,"currency":null}
        1 !3:2 'symbol' not valid UTF-8 | A�,1561309495124,1,1,
    "#]].assert_eq(&out);
}

#[test]
fn csv_headers() {
    let show = |text: &str| format!("{:?}\n{}", text, decoded(&strict(), Format::Csv, text.as_bytes()));
    let all = [
        "symbol,event_time,prise,quantity\nA,1,1,1",
        "symbol,event_time,price,price,quantity\n",
        "symbol,event_time\n",
        "",
        "\u{feff}symbol,event_time,price,quantity\nA,0,1,1\n",
        "symbol,event_time,price,quantity\n\u{feff}A,0,1,1\nB,0,1,1,\"\n\u{feff}B,0,1,1\n",
    ];
    expect![[r#"
        "symbol,event_time,prise,quantity\nA,1,1,1"
        0 !1:1 'prise' is not a field of stream 'trades'; did you mean 'price'? | symbol,event_time,prise,quantity\nA,1,1,1
        "symbol,event_time,price,price,quantity\n"
        0 !1:1 'price' stands twice in the header | symbol,event_time,price,price,quantity\n
        "symbol,event_time\n"
        0 !1:1 'price' is required and not in the header 'symbol,event_time' | symbol,event_time\n
        ""
        "\u{feff}symbol,event_time,price,quantity\nA,0,1,1\n"
        0 @2 {"symbol":"A","event_time":"1970-01-01T00:00:00Z","price":1,"quantity":1,"side":null,"trade_id":null,"market":null,"currency":null}
        "symbol,event_time,price,quantity\n\u{feff}A,0,1,1\nB,0,1,1,\"\n\u{feff}B,0,1,1\n"
        0 !2:1 'symbol' '\u{feff}A' is not a symbol: use letters, digits and any of . - _ / : = ^ & + # @ $ | \u{feff}A,0,1,1
        1 !3:1 the row has 5 fields, the header has 4 | B,0,1,1,\"
        2 !4:1 'symbol' '\u{feff}B' is not a symbol: use letters, digits and any of . - _ / : = ^ & + # @ $ | \u{feff}B,0,1,1
    "#]].assert_eq(&all.map(show).concat());
}

#[test]
fn mapped() {
    let plan = plan(|o: &mut DecodeOptions| {
        o.mapping.columns =
            [("symbol", "ticker"), ("quantity", "amount"), ("event_time", "timestamp")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        o.mapping.constants = [("market", "KRX"), ("currency", "KRW")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        o.mapping.sides.insert("taker_buys".to_owned(), Side::Buy);
        o.mapping.time_zone = Some(jiff::tz::TimeZone::get("Asia/Seoul").unwrap());
    });
    let text = "ticker,timestamp,side,price,amount,note,market\nADX/BTC,2019-06-24 02:04:55.124,TAKER_BUYS,1.348e-05,81.0,hi,XX\n";
    expect![[r#"
        0 @2 {"symbol":"ADX/BTC","event_time":"2019-06-23T17:04:55.124Z","price":0.00001348,"quantity":81,"side":"BUY","trade_id":null,"market":"KRX","currency":"KRW"}
    "#]].assert_eq(&decoded(&plan, Format::Csv, text.as_bytes()));
}

#[test]
fn options_are_checked() {
    let say = |change: fn(&mut Mapping)| {
        let mut options = DecodeOptions::default();
        change(&mut options.mapping);
        Plan::new(super::trade_schema(), options).unwrap_err().to_string()
    };
    let all = [
        say(|m| _ = m.columns.insert("prise".into(), "p".into())),
        say(|m| _ = m.columns.insert("price".into(), "quantity".into())),
        say(|m| {
            m.columns.insert("market".into(), "m".into());
            m.constants.insert("market".into(), "KRX".into());
        }),
        say(|m| _ = m.constants.insert("price".into(), "-1".into())),
        say(|m| _ = m.constants.insert("quantite".into(), "1".into())),
    ];
    expect![[r#"
        the mapping names the column 'prise', which stream 'trades' does not have; did you mean 'price'?
        the mapping reads both 'price' and 'quantity' from the field 'quantity': name each field once
        column 'market' is both a constant and mapped from a field: remove one of them
        the constant of column 'price' is not valid: must be greater than zero
        the mapping names the column 'quantite', which stream 'trades' does not have; did you mean 'quantity'?"#]]
    .assert_eq(&all.join("\n"));
}

#[test]
fn rows_are_bounded() {
    let plan = plan(|o| o.limits.rows_max = 2);
    let good = row(&[]);
    let lines = decode(&plan, Format::Ndjson, format!("{good}\nx\n{good}\n{good}").as_bytes(), super::RECEIVED);
    assert_eq!((lines.rows.len(), lines.problems.len()), (1, 2));
    assert_eq!(lines.problems[1].original, format!("{good}\n{good}").as_bytes());
    let list = decode(&plan, Format::Json, format!("[{good},{good},{good}]").as_bytes(), super::RECEIVED);
    assert_eq!((list.rows.len(), list.problems.len()), (2, 1));
    assert_eq!(list.problems[0].original, format!("{good}]").as_bytes());
    let csv = decode(&plan, Format::Csv, b"symbol,event_time,price,quantity\nA,0,1,1\nA,0,1,1\nA,0,1,1\n", super::RECEIVED);
    assert_eq!((csv.rows.len(), csv.problems.len()), (2, 1));
    assert_eq!(csv.problems[0].original, b"A,0,1,1");
}

/// Bytes that look enough like the formats to get far into the decoders.
fn near_input() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(row(&[]).into_bytes()),
        Just(b"symbol,event_time,price,quantity\n".to_vec()),
        Just(b"\"A\"\"\",0,1,1\n".to_vec()),
        Just(b"[{\"symbol\":".to_vec()),
        Just(b"\x00\x00\x00\x00\x01".to_vec()),
        Just(b"Obj\x01".to_vec()),
        Just(b"PAR1".to_vec()),
        "[\\[\\]{}\",:\\\\\n0-9a-z -]{0,12}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|p| p.concat())
}

proptest! {
    #[test]
    fn no_bytes_panic_and_none_vanish(bytes in near_input()) {
        for format in Format::ALL {
            let decoded = decode(&strict(), format, &bytes, super::RECEIVED);
            let mut seen: Vec<u64> = decoded.rows.iter().copied().chain(decoded.problems.iter().map(|p| p.row)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..decoded.n_rows() as u64).collect::<Vec<_>>());
        }
    }
}
