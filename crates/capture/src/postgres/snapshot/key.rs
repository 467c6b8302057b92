//! The key a table is paged by, and its values in SQL. Keys are compared by the database alone: only it knows its collations.

use super::notes::KeyText;
use crate::datum::Datum;
use crate::postgres::catalog::{Relation, TypeForm, Types};
use crate::postgres::wire::{identifier, literal};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    pub name: String,
    /// Its type as `format_type` writes it.
    pub native: String,
    pub collation: Option<String>,
    /// Its place among the captured columns.
    pub at: usize,
}

/// The first of the table's keys that can be paged by: the primary key, the replica identity, another unique index. Empty if there is none.
///
/// `captured` are the columns that are read. A key of a type of an extension does not count: its operators are found through `search_path`,
/// which is empty here. Nor does an array: its text cannot be made from its items with certainty.
pub fn choose(relation: &Relation, types: &Types, captured: &[i16]) -> Vec<KeyColumn> {
    let column_of = |number: i16| -> Option<KeyColumn> {
        let at = captured.iter().position(|n| *n == number)?;
        let attribute = relation.column(number)?;
        let (base, _) = types.base(attribute.type_oid, attribute.typmod);
        let of_server = types.get(base).is_some_and(|t| match t.form {
            TypeForm::Base => &*t.schema == "pg_catalog",
            TypeForm::Enum(_) | TypeForm::Range => true,
            _ => false,
        });
        of_server.then(|| KeyColumn {
            name: attribute.name.to_string(),
            native: attribute.native.to_string(),
            collation: attribute.collation.as_deref().map(str::to_owned),
            at,
        })
    };
    let keys = relation.keys.iter().map(|key| key.columns.iter().map(|n| column_of(*n)).collect::<Option<Vec<_>>>());
    keys.flatten().next().unwrap_or_default()
}

/// `"id", "at"`
pub fn names(key: &[KeyColumn]) -> String {
    key.iter().map(|c| identifier(&c.name)).collect::<Vec<_>>().join(", ")
}

/// `("id", "at") > ('7'::bigint, …)`: rows behind this key.
pub fn above(key: &[KeyColumn], values: &KeyText) -> String {
    format!("({}) > ({})", names(key), point(key, values))
}

/// Rows up to this key and with it.
pub fn upto(key: &[KeyColumn], values: &KeyText) -> String {
    format!("({}) <= ({})", names(key), point(key, values))
}

/// `'7'::bigint, 'x'::text COLLATE pg_catalog."C"`
pub fn point(key: &[KeyColumn], values: &KeyText) -> String {
    key.iter().zip(values).map(|(column, value)| cast(column, &literal(value))).collect::<Vec<_>>().join(", ")
}

fn cast(column: &KeyColumn, expression: &str) -> String {
    match &column.collation {
        Some(collation) => format!("({expression}::{} COLLATE {collation})", column.native),
        None => format!("{expression}::{}", column.native),
    }
}

/// The key of a row of the change stream as SQL; `None` if a column of it is not there.
pub fn point_of(key: &[KeyColumn], row: &[Datum]) -> Option<String> {
    let columns = key.iter().map(|column| Some(cast(column, &expression(row.get(column.at)?)?)));
    Some(columns.collect::<Option<Vec<_>>>()?.join(", "))
}

/// A value as SQL, in which dates and times are counted by the database: it has the calendar.
fn expression(value: &Datum) -> Option<String> {
    /// 24:00:00, which adding to midnight would turn into 00:00:00.
    const DAY_US: i64 = 86_400_000_000;
    let text = |bytes: &[u8]| Some(literal(std::str::from_utf8(bytes).ok()?));
    let counted = |from: &str, us: i64| Some(format!("({from} + '{us} microseconds'::interval)"));
    match value {
        Datum::Null | Datum::Unavailable | Datum::Array(_) => None,
        Datum::Odd(b) | Datum::Decimal(b) | Datum::Text(b) | Datum::Json(b) => text(b),
        Datum::Bool(b) => Some(format!("'{b}'")),
        Datum::Int(n) => Some(format!("'{n}'")),
        Datum::UInt(n) => Some(format!("'{n}'")),
        Datum::Float32(f) => Some(format!("'{f}'")),
        Datum::Float64(f) => Some(format!("'{f}'")),
        Datum::Binary(b) => Some(format!("'\\x{}'::bytea", hex(b))),
        Datum::Date(days) => Some(format!("('1970-01-01'::date + ({days}))")),
        Datum::Time(DAY_US) => Some("'24:00:00'::time".to_owned()),
        Datum::Time(us) => counted("'00:00:00'::time", *us),
        Datum::Timestamp(us) => counted("'1970-01-01 00:00:00'::timestamp", *us),
        Datum::TimestampTz(us) => counted("'1970-01-01 00:00:00+00'::timestamptz", *us),
        Datum::Uuid(b) => Some(format!("'{}'", hex(b))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The key of a row as bytes that are equal for equal values, for rows and changes of one source: their texts, each behind its length.
/// `None` if a column of it is not there.
pub fn bytes_of(key: &[KeyColumn], row: &[Datum]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(key.len() * 16);
    for column in key {
        let text = expression(row.get(column.at)?)?;
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn column(name: &str, native: &str, collation: Option<&str>, at: usize) -> KeyColumn {
        KeyColumn { name: name.to_owned(), native: native.to_owned(), collation: collation.map(str::to_owned), at }
    }

    #[test]
    fn a_page_is_written_with_types_and_collations() {
        let key = [column("Symbol", "text", Some("pg_catalog.\"C\""), 1), column("id", "bigint", None, 0)];
        let values = vec!["it's".to_owned(), "7".to_owned()];
        assert_eq!(above(&key, &values), r#"("Symbol", "id") > (('it''s'::text COLLATE pg_catalog."C"), '7'::bigint)"#);
        let row = [Datum::Int(7), Datum::Text(Bytes::from_static(b"it's"))];
        assert_eq!(point_of(&key, &row).unwrap(), point(&key, &values));
        assert_eq!(point_of(&key, &[Datum::Int(7), Datum::Unavailable]), None);
    }

    #[test]
    fn keys_with_the_same_joined_text_differ() {
        let key = [column("a", "text", None, 0), column("b", "text", None, 1)];
        let text = |t: &'static str| Datum::Text(Bytes::from_static(t.as_bytes()));
        assert_ne!(bytes_of(&key, &[text("a"), text("bc")]), bytes_of(&key, &[text("ab"), text("c")]));
        assert_eq!(bytes_of(&key, &[text("a"), Datum::Null]), None);
    }
}
