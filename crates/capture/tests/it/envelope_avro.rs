//! Changes in the log: whatever the model allows comes back as it was, and bytes of any other origin do no harm.

use crate::envelope_arbitrary::any_change;
use crate::envelope_rows::{mysql_changes, postgres_changes};
use bytes::Bytes;
use mulgil_capture::change::{Change, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::envelope::avro::{AvroError, ChangeDecoder, ChangeEncoder};
use mulgil_capture::envelope::json::{Connector, Decimals, Event, Events, JsonOptions, JsonWriter, Times};
use mulgil_capture::envelope::key::push_key;
use mulgil_model::avro::{WireSchema, schema_id};
use mulgil_model::time::ReceiveTime;
use proptest::prelude::*;

fn encoded(change: &Change) -> (WireSchema, Bytes) {
    let (mut encoder, mut out) = (ChangeEncoder::default(), b"before".to_vec());
    encoder.encode(change, &mut out).unwrap();
    (encoder.wire(change).clone(), Bytes::from(out).slice(6..))
}

/// Floats are compared by their bits: NaN is equal to itself here, and 0 is not -0.
fn same(a: &Change, b: &Change) -> bool {
    format!("{a:?}") == format!("{b:?}") && rows(a).zip(rows(b)).all(|(a, b)| same_bits(a, b))
}

fn rows(change: &Change) -> impl Iterator<Item = &Datum> {
    let (before, after) = match &change.what {
        What::Row { before, after, .. } => (before.as_ref(), after.as_ref()),
        _ => (None, None),
    };
    before.into_iter().chain(after).flatten()
}

fn same_bits(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Float32(a), Datum::Float32(b)) => a.to_bits() == b.to_bits(),
        (Datum::Float64(a), Datum::Float64(b)) => a.to_bits() == b.to_bits(),
        (Datum::Array(a), Datum::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_bits(a, b)),
        (a, b) => a == b,
    }
}

#[test]
fn every_type_of_both_databases_comes_back() {
    let (mut decoder, mut known) = (ChangeDecoder::default(), std::collections::BTreeSet::new());
    for change in postgres_changes().iter().chain(&mysql_changes(true)) {
        let (wire, message) = encoded(change);
        let is_new = !known.contains(&wire.id);
        assert_eq!(decoder.decode(&message).is_err(), is_new);
        known.insert(wire.id);
        decoder.learn(&wire).unwrap();
        assert_eq!(schema_id(&message), Some(wire.id));
        assert!(same(&decoder.decode(&message).unwrap(), change));
    }
}

#[test]
fn changes_of_one_transaction_share_their_origin() {
    let mut decoder = ChangeDecoder::default();
    let changes = postgres_changes();
    let of = |n: usize, decoder: &mut ChangeDecoder| {
        let (wire, message) = encoded(&changes[n]);
        decoder.learn(&wire).unwrap();
        decoder.decode(&message).unwrap().origin
    };
    let shared = changes.windows(2).position(|w| w[0].origin == w[1].origin).unwrap();
    let (a, b) = (of(shared, &mut decoder), of(shared + 1, &mut decoder));
    assert!(std::sync::Arc::ptr_eq(&a, &b));
}

#[test]
fn a_schema_that_is_not_ours_is_refused() {
    let (wire, _) = encoded(&postgres_changes()[3]);
    let check = |json: String, want: &str| {
        let error = ChangeDecoder::default().learn(&WireSchema { id: 7, json }).unwrap_err().to_string();
        assert_eq!(error, format!("schema 7 cannot be used: {want}"));
    };
    check("{".to_owned(), "it is not JSON");
    check("\"string\"".to_owned(), "it has no property \"table\": it is not of a change envelope");
    check(wire.json.replace("\"kind\":\"bool\"", "\"kind\":\"boo\""), "a column is of an unknown kind");
    check(wire.json.replace("\"kind\":\"bool\"", "\"kind\":\"text\""), "its types are not those that its property \"table\" asks for");
    check(wire.json.replace("\"kind\":\"bool\"", &format!("\"kind\":\"bool{}\"", "[]".repeat(5_000))), "a column is of an unknown kind");
    check(wire.json.replace("\"version\":1", "\"version\":-1"), "its table has no version");
    let mut decoder = ChangeDecoder::default();
    decoder.learn(&wire).unwrap();
    decoder.learn(&wire).unwrap();
    let other = WireSchema { id: wire.id, json: encoded(&mysql_changes(true)[1]).0.json };
    assert!(decoder.learn(&other).unwrap_err().to_string().ends_with("another schema has the same id"));
}

#[test]
fn a_value_of_another_kind_is_a_named_fault() {
    let mut change = postgres_changes().swap_remove(3);
    let What::Row { after: Some(row), .. } = &mut change.what else { unreachable!() };
    row[1] = Datum::Int(1);
    let mut out = vec![9];
    let error = ChangeEncoder::default().encode(&change, &mut out).unwrap_err();
    assert_eq!(error, AvroError::Kind { table: "public.every_type".to_owned(), column: "b".to_owned() });
    assert_eq!(out, [9]);
}

#[test]
fn keys_are_stable() {
    let keys: Vec<String> = postgres_changes()
        .iter()
        .map(|change| {
            let mut out = Vec::new();
            push_key(&mut out, change);
            String::from_utf8(out).unwrap()
        })
        .collect();
    let want = [
        r#"["1"]"#,
        r#"["snap","1"]"#,
        r#"["snap","2"]"#,
        r#"["2"]"#,
        r#"["2"]"#,
        r#"["3"]"#,
        r#"["3"]"#,
        r#"["4"]"#,
        r#"["5"]"#,
        "",
        "",
        "",
        "",
        r#"["a","3"]"#,
        r#"["1"]"#,
        r#"["b","3"]"#,
        "",
        "",
        "",
        "",
    ];
    assert_eq!(keys, want);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_the_model_allows_comes_back(change in any_change()) {
        let (wire, message) = encoded(&change);
        let mut decoder = ChangeDecoder::default();
        decoder.learn(&wire).unwrap();
        let back = decoder.decode(&message).unwrap();
        prop_assert!(same(&back, &change), "{change:?}\n{back:?}");
        // The schema is valid JSON whose names are Avro's.
        let schema: serde_json::Value = serde_json::from_str(&wire.json).unwrap();
        prop_assert!(names_are_valid(&schema));
    }

    #[test]
    fn any_bytes_are_read_or_refused(change in any_change(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8) {
        let (wire, message) = encoded(&change);
        let mut decoder = ChangeDecoder::default();
        decoder.learn(&wire).unwrap();
        let cut = cut.index(message.len());
        prop_assert!(decoder.decode(&message.slice(..cut)).is_err());
        let mut damaged = message.to_vec();
        let at = 5.min(damaged.len() - 1) + at.index(damaged.len().saturating_sub(5).max(1)).min(damaged.len() - 1 - 5.min(damaged.len() - 1));
        damaged[at] = byte;
        // What is read of it is a change that can be written again.
        if let Ok(read) = decoder.decode(&Bytes::from(damaged)) {
            let (_, again) = encoded(&read);
            prop_assert!(same(&decoder.decode(&again).unwrap(), &read));
        }
    }

    #[test]
    fn json_is_json_or_a_named_refusal(change in any_change(), schemas: bool, iso: bool, strings: bool) {
        for connector in [Connector::Postgres, Connector::Mysql] {
            let options = JsonOptions {
                schemas,
                times: if iso { Times::IsoString } else { Times::Adaptive },
                decimals: if strings { Decimals::String } else { Decimals::Precise },
                ..JsonOptions::new(connector, "any")
            };
            let (mut writer, mut events) = (JsonWriter::new(options).unwrap(), Events::default());
            if writer.write(&change, ReceiveTime(0), &mut events).is_err() {
                prop_assert_eq!(events.iter().count(), 0);
            }
            for Event { key, value, .. } in events.iter() {
                for part in [key, value].into_iter().flatten() {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(part).is_ok(), "{}", String::from_utf8_lossy(part));
                }
            }
        }
    }
}

fn names_are_valid(schema: &serde_json::Value) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    match schema {
        serde_json::Value::Object(map) => map.iter().all(|(key, value)| match key.as_str() {
            "table" => true,
            "name" => value.as_str().is_some_and(is_name),
            "namespace" => value.as_str().is_some_and(|n| n.split('.').all(is_name)),
            _ => names_are_valid(value),
        }),
        serde_json::Value::Array(list) => list.iter().all(names_are_valid),
        _ => true,
    }
}
