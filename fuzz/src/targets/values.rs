//! Small texts with a grammar of their own: numbers, times, names, types. What is read is written as a text that reads the same.

use mulgil_engine::calendar::Interval;
use mulgil_log::Owner;
use mulgil_model::decimal::{self, PRECISION_MAX};
use mulgil_model::ids::{TOPIC_BYTES_MAX, Topic};
use mulgil_model::schema::ColumnType;
use mulgil_model::time::{EpochUnit, MICROS_MAX, MICROS_MIN, format_micros, parse_duration, parse_micros};

const UNITS: [EpochUnit; 4] = [EpochUnit::Seconds, EpochUnit::Millis, EpochUnit::Micros, EpochUnit::Nanos];
/// The longest words about a value, whatever the value.
const REASON_BYTES_MAX: usize = 1_024;

pub fn run(input: &[u8]) {
    divisions(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    decimals(text);
    times(text);
    names(text);
}

fn short(error: impl std::fmt::Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() <= REASON_BYTES_MAX, "{} bytes about a value", text.len());
}

fn decimals(text: &str) {
    for (precision, scale) in [(18, 8), (PRECISION_MAX, 0), (PRECISION_MAX, 16), (4, 4)] {
        match decimal::parse(text, precision, scale) {
            Ok(value) => {
                assert!(value.unsigned_abs() < decimal::pow10(u32::from(precision)).unsigned_abs(), "{text} is too large");
                assert_eq!(decimal::parse(&decimal::format(value, scale), precision, scale), Ok(value), "{text}");
                assert!(decimal::to_f64(value, scale).is_finite());
            }
            Err(e) => short(e),
        }
    }
}

/// Two numbers and three scales: a quotient rounded to a neighbour, or none.
fn divisions(input: &[u8]) {
    let Some((numbers, rest)) = input.split_first_chunk::<32>() else { return };
    let number = |at: usize| i128::from_le_bytes(std::array::from_fn(|i| numbers[at + i])) / 4;
    let scale = |at: usize| (rest.get(at).copied().unwrap_or(0) % 39).cast_signed();
    let (a, b) = (number(0), number(16));
    if let Some(quotient) = decimal::divide(a, scale(0), b, scale(1), scale(2)) {
        let exact = decimal::to_f64(a, scale(0)) / decimal::to_f64(b, scale(1));
        let got = decimal::to_f64(quotient, scale(2));
        let unit = 10f64.powi(-i32::from(scale(2)));
        assert!((got - exact).abs() <= unit + exact.abs() * 1e-9, "{a} / {b} is {got}, should be {exact}");
    }
}

fn times(text: &str) {
    for unit in UNITS {
        match parse_micros(text, unit) {
            Ok(us) => {
                assert!((MICROS_MIN..=MICROS_MAX).contains(&us), "{text}");
                assert_eq!(parse_micros(&format_micros(us), unit), Ok(us), "{text}");
            }
            Err(e) => short(e),
        }
    }
    match parse_duration(text) {
        Ok(us) => assert_eq!(parse_duration(&format!("{us}us")), Ok(us), "{text}"),
        Err(e) => short(e),
    }
    match Interval::parse(text) {
        Ok(interval) => {
            assert_eq!(format!("{:?}", Interval::parse(&interval.to_string())), format!("{:?}", Ok::<_, ()>(interval)), "{text}")
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
    let _ = (mulgil::config::units::bytes("k", text), mulgil::config::units::duration("k", text));
}

fn names(text: &str) {
    if let Ok(topic) = Topic::new(text) {
        assert!(topic.as_str() == text && text.len() <= TOPIC_BYTES_MAX && !text.contains(['/', '\\', '\0']) && !text.starts_with('.'));
        assert!(topic.derived("alerts").is_ok() || text.len() + 7 > TOPIC_BYTES_MAX, "{text}");
    }
    if let Ok(kind) = ColumnType::parse(text) {
        assert_eq!(ColumnType::parse(&kind.to_string()).map_err(|e| e.to_string()), Ok(kind), "{text}");
    }
    if let Ok(owner) = Owner::new(text) {
        assert_eq!(owner.as_str(), text);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "123.45678901",
        "-0.1e-7",
        "1e30",
        "2026-11-21T09:00:00.123456+09:00",
        "1795132800123",
        "-1",
        "500ms",
        "7d",
        "1w",
        "10s",
        "1h",
        "trades.bars.1m",
        "decimal(18, 8)",
        "timestamp",
        "source/a:b@1",
        "64MiB",
        "0123456789abcdef0123456789abcdef\u{8}\u{4}\u{c}",
    ];
    texts.map(|t| t.as_bytes().to_vec()).to_vec()
}
