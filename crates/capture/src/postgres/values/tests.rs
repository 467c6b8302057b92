use super::*;
use crate::postgres::catalog::Types;
use proptest::prelude::*;

fn read(oid: u32, text: &str) -> Datum {
    decode(&Form::of(oid, -1, &Types::default()), Bytes::copy_from_slice(text.as_bytes()))
}

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// `type oid | text | value`. The texts are PostgreSQL's own; the integration tests read all of them back from a server.
#[test]
fn every_type() {
    use Datum::*;
    let day = 86_400_000_000;
    let array = |items: &[Datum]| Array(items.to_vec());
    let text = |t: &'static str| Text(b(t));
    let cases: Vec<(u32, &'static str, Datum)> = vec![
        (16, "t", Bool(true)),
        (16, "f", Bool(false)),
        (16, "x", Odd(b("x"))),
        (21, "-32768", Int(-32_768)),
        (21, "32768", Odd(b("32768"))),
        (23, "2147483647", Int(2_147_483_647)),
        (23, "-2147483649", Odd(b("-2147483649"))),
        (20, "-9223372036854775808", Int(i64::MIN)),
        (20, "9223372036854775807", Int(i64::MAX)),
        (20, "9223372036854775808", Odd(b("9223372036854775808"))),
        (20, "", Odd(b(""))),
        (20, "-", Odd(b("-"))),
        (20, "+1", Odd(b("+1"))),
        (26, "4294967295", Int(4_294_967_295)),
        (28, "4294967295", Int(4_294_967_295)),
        (5069, "18446744073709551615", UInt(u64::MAX)),
        (700, "3.4028235e+38", Float32(f32::MAX)),
        (700, "1e-45", Float32(1e-45)),
        (701, "0.1", Float64(0.1)),
        (701, "-0", Float64(-0.0)),
        (701, "Infinity", Float64(f64::INFINITY)),
        (701, "-Infinity", Float64(f64::NEG_INFINITY)),
        (1700, "-12.50", Decimal(b("-12.50"))),
        (1700, "0.000000000000000000000000000000000000000001", Decimal(b("0.000000000000000000000000000000000000000001"))),
        (1700, "NaN", Odd(b("NaN"))),
        (1700, "-Infinity", Odd(b("-Infinity"))),
        (1700, "1e5", Odd(b("1e5"))),
        (1700, "1.", Odd(b("1."))),
        (1700, ".", Odd(b("."))),
        (790, "-$1,234.56", text("-$1,234.56")),
        (25, "héllo\n", text("héllo\n")),
        (25, "", text("")),
        (1042, "ab   ", text("ab   ")),
        (18, "a", text("a")),
        (17, "\\x", Binary(b(""))),
        (17, "\\x00ff7F", Binary(Bytes::from_static(&[0, 255, 127]))),
        (17, "\\x0", Odd(b("\\x0"))),
        (17, "abc", Odd(b("abc"))),
        (1082, "1970-01-01", Date(0)),
        (1082, "1969-12-31", Date(-1)),
        (1082, "2024-02-29", Date(19_782)),
        (1082, "0001-01-01", Date(-719_162)),
        (1082, "0001-12-31 BC", Date(-719_163)),
        (1082, "4713-01-01 BC", Date(-2_440_550)),
        (1082, "5874897-12-31", Date(2_145_042_905)),
        (1082, "infinity", Odd(b("infinity"))),
        (1083, "00:00:00", Time(0)),
        (1083, "24:00:00", Time(day)),
        (1083, "23:59:59.999999", Time(day - 1)),
        (1083, "12:00:00.5", Time(day / 2 + 500_000)),
        (1266, "12:00:00+05:30", text("12:00:00+05:30")),
        (1114, "1970-01-02 00:00:00.000001", Timestamp(day + 1)),
        (1114, "-infinity", Odd(b("-infinity"))),
        (1114, "294276-12-31 23:59:59.999999", Odd(b("294276-12-31 23:59:59.999999"))),
        (1114, "294246-12-31 23:59:59.999999", Timestamp(9_223_371_244_799_999_999)),
        (1184, "1970-01-01 00:00:00+00", TimestampTz(0)),
        (1184, "1970-01-01 05:30:00+05:30", TimestampTz(0)),
        (1184, "1969-12-31 14:00:00-10", TimestampTz(0)),
        (1184, "4714-11-24 00:00:00+00 BC", TimestampTz(-2_440_588 * day)),
        (1186, "1 year 2 mons -3 days +04:05:06.789", text("1 year 2 mons -3 days +04:05:06.789")),
        (
            2950,
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            Uuid([0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11]),
        ),
        (2950, "a0eebc999c0b4ef8bb6d6bb9bd380a11----", Odd(b("a0eebc999c0b4ef8bb6d6bb9bd380a11----"))),
        (3802, "{\"a\": [1, 2.50]}", Json(b("{\"a\": [1, 2.50]}"))),
        (114, "{ \"a\":1}", Json(b("{ \"a\":1}"))),
        (3904, "[1,10)", text("[1,10)")),
        (869, "192.168.0.1/24", text("192.168.0.1/24")),
        (600, "(1,2)", text("(1,2)")),
        (1560, "0101", text("0101")),
        (22, "1 2 3", text("1 2 3")),
        (1007, "{}", array(&[])),
        (1007, "{1,NULL,-3}", array(&[Int(1), Null, Int(-3)])),
        (1007, "[0:1]={7,8}", array(&[Int(7), Int(8)])),
        (1007, "{{1,2},{3,4}}", array(&[array(&[Int(1), Int(2)]), array(&[Int(3), Int(4)])])),
        (1007, "[1:1][-2:-1][3:4]={{{1,2},{3,4}}}", array(&[array(&[array(&[Int(1), Int(2)]), array(&[Int(3), Int(4)])])])),
        (
            1009,
            r#"{a,"NULL",NULL,"","a b","\"\\","{,}"}"#,
            array(&[text("a"), text("NULL"), Null, text(""), text("a b"), text("\"\\"), text("{,}")]),
        ),
        (1009, "{a,}", Odd(b("{a,}"))),
        (1009, "{a", Odd(b("{a"))),
        (1009, "{a}b", Odd(b("{a}b"))),
        (1009, r#"{"a\"#, Odd(b(r#"{"a\"#))),
        (1009, "[1:2]", Odd(b("[1:2]"))),
        (1020, "{(1,1),(0,0);(3,3),(2,2)}", array(&[text("(1,1),(0,0)"), text("(3,3),(2,2)")])),
        (1231, "{1.50,NaN}", array(&[Decimal(b("1.50")), Odd(b("NaN"))])),
        (1001, r#"{"\\x01ff"}"#, array(&[Binary(Bytes::from_static(&[1, 255]))])),
        (1185, "{\"1970-01-01 00:00:00+00\",infinity}", array(&[TimestampTz(0), Odd(b("infinity"))])),
        (3807, r#"{"{\"a\": 1}"}"#, array(&[Json(b("{\"a\": 1}"))])),
        (1007, "{{{{{{{1}}}}}}}", Odd(b("{{{{{{{1}}}}}}}"))),
    ];
    for (oid, input, expected) in cases {
        assert_eq!(read(oid, input), expected, "type {oid}: {input}");
    }
    let Datum::Float64(nan) = read(701, "NaN") else { panic!() };
    assert!(nan.is_nan());
}

#[test]
fn text_that_is_not_utf8_stays_as_it_came() {
    let latin1 = Bytes::from_static(&[b'h', 0xe9]);
    for form in [Form::Text, Form::Unknown, Form::Json, Form::Int32, Form::Float64] {
        assert_eq!(decode(&form, latin1.clone()), Datum::Odd(latin1.clone()));
    }
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let types = Types::default();
        for oid in [16, 17, 20, 21, 23, 25, 700, 701, 1082, 1083, 1114, 1184, 1700, 2950, 3802, 5069, 1007, 1009, 1001, 1231] {
            decode(&Form::of(oid, -1, &types), Bytes::from(bytes.clone()));
        }
    }

    #[test]
    fn texts_made_of_the_right_letters_never_panic(text in "[-+{},\"\\\\:. 0-9nNBC\\[\\]=]{0,40}") {
        for oid in [1007, 1009, 1020, 1082, 1083, 1114, 1184, 1700, 20] {
            read(oid, &text);
        }
    }

    #[test]
    fn integers_are_read_back(n: i64) {
        prop_assert_eq!(read(20, &n.to_string()), Datum::Int(n));
    }

    #[test]
    fn floats_are_read_back(bits: u64) {
        let x = f64::from_bits(bits);
        prop_assume!(x.is_finite());
        prop_assert_eq!(read(701, &format!("{x:e}")), Datum::Float64(x));
    }

    #[test]
    fn arrays_of_any_text_are_read_back(items in proptest::collection::vec(proptest::option::of(".{0,12}"), 0..6)) {
        let quote = |item: &Option<String>| match item {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        };
        let text = format!("{{{}}}", items.iter().map(quote).collect::<Vec<_>>().join(","));
        let expected = items.into_iter().map(|i| i.map_or(Datum::Null, |t| Datum::Text(t.into())));
        prop_assert_eq!(read(1009, &text), Datum::Array(expected.collect()));
    }
}
