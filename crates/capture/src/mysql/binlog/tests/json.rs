use super::build::{Put, json, json_length};
use crate::mysql::binlog::json::text;
use proptest::prelude::*;
use serde_json::{Value, json};

fn shown(bytes: Vec<u8>) -> String {
    String::from_utf8(text(bytes.into()).unwrap().to_vec()).unwrap()
}

#[test]
fn documents_are_written_as_the_server_writes_them() {
    let cases = [
        (json!(null), "null"),
        (json!([]), "[]"),
        (json!({"a": true, "b": false}), r#"{"a": true, "b": false}"#),
        (json!({"b": 1, "aa": 2, "a": 3}), r#"{"a": 3, "b": 1, "aa": 2}"#),
        (
            json!([-32768, 65535, -2147483648, 4294967295u64, i64::MIN, u64::MAX]),
            "[-32768, 65535, -2147483648, 4294967295, -9223372036854775808, 18446744073709551615]",
        ),
        (json!("quote \" back \\ line \n tab \t \u{1} \u{8}\u{c}\r 물🌊 /"), r#""quote \" back \\ line \n tab \t \u0001 \b\f\r 물🌊 /""#),
        (json!({"": {"deep": [[[{}]]]}}), r#"{"": {"deep": [[[{}]]]}}"#),
    ];
    for (value, want) in cases {
        assert_eq!(shown(json(&value, false)), want);
        assert_eq!(shown(json(&value, true)), want);
    }
    assert_eq!(shown(vec![]), "null", "a column that ALTER TABLE has filled with nothing");
}

/// The texts are those of MariaDB 10.11 for the same doubles (`SELECT 1.5e-5 * 1e0`), which has the same `my_gcvt`, with `.0` behind whole ones.
#[test]
#[allow(clippy::excessive_precision, reason = "the very value, which Rust would write in another way")]
fn doubles_have_all_their_digits() {
    let cases = [
        (0.0, "0.0"),
        (1.0, "1.0"),
        (-2.5, "-2.5"),
        (0.1 + 0.2, "0.30000000000000004"),
        (0.00001, "0.00001"),
        (1.5e-5, "0.000015"),
        (1e-15, "0.000000000000001"),
        (1.5e-15, "0.0000000000000015"),
        (1e-16, "1e-16"),
        (1e14, "100000000000000.0"),
        (1e15, "1e15"),
        (123_456_789_012_345.0, "123456789012345.0"),
        (1_234_567_890_123_456.0, "1.234567890123456e15"),
        (1_234_567_890_123_456.8, "1234567890123456.8"),
        (12_345_678_901_234_567.0, "1.2345678901234568e16"),
        (1e300, "1e300"),
        // MySQL 9.7.4 writes this one, although .3 is as near.
        (988_663_864_770_878.25, "988663864770878.2"),
        (5e-324, "5e-324"),
        (-1.7976931348623157e308, "-1.7976931348623157e308"),
    ];
    for (value, want) in cases {
        assert_eq!(shown(Put::default().u8(11).bytes(&f64::to_le_bytes(value)).0), want);
    }
    assert!(text(Put::default().u8(11).bytes(&f64::NAN.to_le_bytes()).0.into()).is_err());
}

fn opaque(kind: u8, bytes: &[u8]) -> Vec<u8> {
    Put::default().u8(15).u8(kind).bytes(&json_length(bytes.len())).bytes(bytes).0
}

#[test]
fn values_of_the_servers_other_types() {
    let day = |y: i64, m: i64, d: i64, h: i64, min: i64, s: i64, us: i64| {
        ((((y * 13 + m) << 5 | d) << 17 | h << 12 | min << 6 | s) << 24 | us).to_le_bytes()
    };
    let time = |h: i64, m: i64, s: i64, us: i64| (h << 12 | m << 6 | s) << 24 | us;
    let cases = [
        (opaque(246, &[4, 2, 0x80 + 12, 50]), "12.50"),
        (opaque(246, &[3, 2, 0x80 ^ 0xff ^ 1, 0xff ^ 5]), "-1.05"),
        (opaque(12, &day(2024, 1, 15, 10, 30, 45, 123_456)), r#""2024-01-15 10:30:45.123456""#),
        (opaque(7, &day(2024, 1, 15, 10, 30, 45, 0)), r#""2024-01-15 10:30:45.000000""#),
        (opaque(10, &day(2024, 1, 15, 0, 0, 0, 0)), r#""2024-01-15""#),
        (opaque(11, &time(838, 59, 59, 5).to_le_bytes()), r#""838:59:59.000005""#),
        (opaque(11, &(-time(1, 2, 3, 500_000)).to_le_bytes()), r#""-01:02:03.500000""#),
        (opaque(252, b"any carnal pleas"), r#""base64:type252:YW55IGNhcm5hbCBwbGVhcw==""#),
        (opaque(16, b"any carnal pleasu"), r#""base64:type16:YW55IGNhcm5hbCBwbGVhc3U=""#),
    ];
    for (bytes, want) in cases {
        assert_eq!(shown(bytes), want);
    }
    let long = shown(opaque(252, &[0; 58]));
    assert_eq!(long, format!(r#""base64:type252:{}\nAA==""#, "A".repeat(76)));
}

#[test]
fn documents_that_are_none_are_refused() {
    let deep = (0..101).fold(json!(1), |inner, _| json!([inner]));
    let cases = [
        vec![2, 1, 0, 7, 0],
        vec![0, 1, 0, 20, 0],
        vec![12, 5, b'a'],
        vec![12, 0x80, 0x80, 0x80, 0x80, 0x80],
        vec![12, 1, 0xff],
        vec![4, 3],
        vec![5, 1],
        vec![13, 0],
        vec![15],
        opaque(246, &[66, 2, 1]),
        opaque(246, &[4, 2, 1]),
        opaque(12, &[1]),
        json(&deep, false),
        // An array that contains itself.
        vec![2, 1, 0, 7, 0, 2, 0, 0],
        // Sixteen elements that are all the same array of sixteen, and so on: more text than any document of this size has.
        {
            let mut bytes = vec![2];
            for level in 0..8u16 {
                let (start, size) = (level * 52, 52 * (8 - level));
                let next = if level < 7 { 52u16 } else { 0 };
                bytes.extend(Put::default().u16(16).u16(size).0);
                for _ in 0..16 {
                    bytes.extend(Put::default().u8(if level < 7 { 2 } else { 5 }).u16(next).0);
                }
                assert_eq!(bytes.len(), usize::from(start) + 53);
            }
            bytes
        },
    ];
    for bytes in cases {
        assert!(text(bytes.clone().into()).is_err(), "{bytes:?}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        // Eighths, which every reader reads exactly.
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_document_reads_back(value in any_json(), is_large: bool) {
        let shown = shown(json(&value, is_large));
        prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value, "{}", shown);
    }

    #[test]
    fn every_double_reads_back(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
        let shown = shown(Put::default().u8(11).bytes(&value.to_le_bytes()).0);
        prop_assert_eq!(shown.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{}", shown);
        prop_assert!(shown.contains(['.', 'e']), "{}", shown);
    }

    #[test]
    fn text_is_bounded_by_its_document(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = text(bytes.clone().into()) {
            prop_assert!(text.len() <= 8 * bytes.len() + 64 + 24);
        }
    }
}
