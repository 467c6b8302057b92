//! The key a table is paged by, and its values in SQL.
//!
//! Keys are compared by the database alone, and always in one order: that of the key's own index, whose columns each have a collation and a
//! btree operator class (PostgreSQL documentation, "Operator Classes and Operator Families"). In that order no two rows are equal, because the
//! index is unique by it, so paging never steps over a row; under another collation or class two keys may be equal (`a` and `A` where case does
//! not count), and all but one of them would be lost. Values go to and fro as text with a cast, so any type will do that has such an index:
//! of an extension, a domain, an enum, an array, a row type.

use super::notes::KeyText;
use crate::datum::Datum;
use crate::postgres::catalog::Relation;
use crate::postgres::wire::{identifier, literal};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    pub name: String,
    /// Its type as `format_type` writes it.
    pub native: String,
    /// Of the index.
    pub collation: Option<String>,
    /// Its place among the captured columns.
    pub at: usize,
    /// Where `<` and `>` as they are found without a `search_path`, and the column's own collation, are not those of the index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// The operators of an operator class as they stand in a statement, `OPERATOR(public.<)`: below, at most, equal, at least, above (btree's
/// strategies 1 to 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order(pub [String; 5]);

impl Order {
    const BELOW: usize = 0;
    const AT_MOST: usize = 1;
    const EQUAL: usize = 2;
    const AT_LEAST: usize = 3;
    const ABOVE: usize = 4;
}

/// The first of the table's keys that can be paged by: the primary key, the replica identity, another unique index. Empty if there is none.
///
/// `captured` are the columns that are read.
pub fn choose(relation: &Relation, captured: &[i16]) -> Vec<KeyColumn> {
    let keys = relation.keys.iter().map(|key| {
        let columns = key.columns.iter().enumerate().map(|(n, number)| {
            let at = captured.iter().position(|c| c == number)?;
            let attribute = relation.column(*number)?;
            let ordered = key.ordered.get(n);
            Some(KeyColumn {
                name: attribute.name.to_string(),
                native: attribute.native.to_string(),
                collation: ordered.map_or(attribute.collation.as_deref(), |o| o.collation.as_deref()).map(str::to_owned),
                at,
                order: ordered.and_then(|o| o.order.clone()),
            })
        });
        columns.collect::<Option<Vec<_>>>()
    });
    keys.flatten().next().unwrap_or_default()
}

/// `"id", "at"`
pub fn names(key: &[KeyColumn]) -> String {
    key.iter().map(|c| identifier(&c.name)).collect::<Vec<_>>().join(", ")
}

/// What to write behind `ORDER BY`: `"id", "name" COLLATE pg_catalog."C" USING OPERATOR(public.<)`.
pub fn order(key: &[KeyColumn]) -> String {
    let columns = key.iter().map(|c| match (&c.order, &c.collation) {
        (None, _) => identifier(&c.name),
        (Some(order), None) => format!("{} USING {}", identifier(&c.name), order.0[Order::BELOW]),
        (Some(order), Some(collation)) => format!("{} COLLATE {collation} USING {}", identifier(&c.name), order.0[Order::BELOW]),
    });
    columns.collect::<Vec<_>>().join(", ")
}

/// `("id", "at") > ('7'::bigint, …)`: rows behind this key.
pub fn above(key: &[KeyColumn], values: &KeyText) -> String {
    compared(key, values, (">", Order::ABOVE, Order::AT_LEAST))
}

/// Rows up to this key and with it.
pub fn upto(key: &[KeyColumn], values: &KeyText) -> String {
    compared(key, values, ("<=", Order::AT_MOST, Order::AT_MOST))
}

/// `last` compares the last column, `first` those before it. Several columns with operators of their own have no comparison of rows in SQL: it
/// is spelled out, with the first column's bound in front, by which the index can be searched.
fn compared(key: &[KeyColumn], values: &KeyText, (sign, last, first): (&str, usize, usize)) -> String {
    if key.iter().all(|c| c.order.is_none()) {
        return format!("({}) {sign} ({})", names(key), point(key, values));
    }
    let columns: Vec<(&KeyColumn, String)> = key.iter().zip(values).map(|(c, v)| (c, cast(c, &literal(v)))).collect();
    let test = |(column, value): &(&KeyColumn, String), operator: usize| {
        let plain = ["<", "<=", "=", ">=", ">"][operator];
        let operator = column.order.as_ref().map_or(plain, |order| &order.0[operator]);
        format!("{} {operator} {value}", identifier(&column.name))
    };
    let strictly = if last == Order::ABOVE { Order::ABOVE } else { Order::BELOW };
    let mut all = String::new();
    for (n, column) in columns.iter().enumerate().rev() {
        all = if n + 1 == columns.len() {
            test(column, last)
        } else {
            format!("{} AND ({} OR ({} AND {all}))", test(column, first), test(column, strictly), test(column, Order::EQUAL))
        };
    }
    format!("({all})")
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
    // Before version 15 a field of an interval has 32 bits. Our connections are in UTC, where a day has 24 hours.
    let counted = |from: &str, us: i64| {
        let (days, of_day) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
        let (seconds, rest) = (of_day / 1_000_000, of_day % 1_000_000);
        Some(format!("({from} + '{days} days {seconds} seconds {rest} microseconds'::interval)"))
    };
    match value {
        Datum::Null | Datum::Unavailable => None,
        Datum::Array(items) if items.is_empty() => Some("'{}'".to_owned()),
        // The cast behind it makes each item what it is. Lower bounds are not known any more, and taken for 1.
        Datum::Array(items) => {
            let item = |item: &Datum| if item.is_null() { Some("NULL".to_owned()) } else { expression(item) };
            Some(format!("ARRAY[{}]", items.iter().map(item).collect::<Option<Vec<_>>>()?.join(", ")))
        }
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

/// The values of these columns as bytes that are equal for equal values, for rows and changes of one source: their texts, each behind its
/// length. `None` if one of them is not there.
pub fn bytes_of(columns: &[usize], row: &[Datum]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(columns.len() * 16);
    for at in columns {
        let text = expression(row.get(*at)?)?;
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
        KeyColumn { name: name.to_owned(), native: native.to_owned(), collation: collation.map(str::to_owned), at, order: None }
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
    fn a_page_of_other_orders_names_its_operators() {
        let order = Order(["<", "<=", "=", ">=", ">"].map(|o| format!("OPERATOR(ext.{o})")));
        let key = [
            KeyColumn { order: Some(order), ..column("name", "ext.citext", Some("pg_catalog.\"de\""), 0) },
            column("id", "bigint", None, 1),
        ];
        let values = vec!["Ab".to_owned(), "7".to_owned()];
        let value = r#"('Ab'::ext.citext COLLATE pg_catalog."de")"#;
        assert_eq!(
            above(&key, &values),
            format!(
                r#"("name" OPERATOR(ext.>=) {value} AND ("name" OPERATOR(ext.>) {value} OR ("name" OPERATOR(ext.=) {value} AND "id" > '7'::bigint)))"#
            )
        );
        assert_eq!(
            upto(&key, &values),
            format!(
                r#"("name" OPERATOR(ext.<=) {value} AND ("name" OPERATOR(ext.<) {value} OR ("name" OPERATOR(ext.=) {value} AND "id" <= '7'::bigint)))"#
            )
        );
        assert_eq!(super::order(&key), r#""name" COLLATE pg_catalog."de" USING OPERATOR(ext.<), "id""#);
        assert_eq!(names(&key), r#""name", "id""#);
    }

    #[test]
    fn an_array_is_made_of_its_items() {
        let key = [column("a", "integer[]", None, 0)];
        let row = |items: Vec<Datum>| [Datum::Array(items)];
        let nested = Datum::Array(vec![Datum::Int(3)]);
        assert_eq!(point_of(&key, &row(vec![Datum::Int(1), Datum::Null])).unwrap(), "ARRAY['1', NULL]::integer[]");
        assert_eq!(point_of(&key, &row(vec![nested])).unwrap(), "ARRAY[ARRAY['3']]::integer[]");
        assert_eq!(point_of(&key, &row(vec![])).unwrap(), "'{}'::integer[]");
        assert_eq!(point_of(&key, &row(vec![Datum::Unavailable])), None);
    }

    #[test]
    fn keys_with_the_same_joined_text_differ() {
        let text = |t: &'static str| Datum::Text(Bytes::from_static(t.as_bytes()));
        assert_ne!(bytes_of(&[0, 1], &[text("a"), text("bc")]), bytes_of(&[0, 1], &[text("ab"), text("c")]));
        assert_eq!(bytes_of(&[1, 0], &[text("a"), text("b")]), bytes_of(&[0, 1], &[text("b"), text("a")]));
        assert_eq!(bytes_of(&[0, 1], &[text("a"), Datum::Null]), None);
    }

    #[test]
    fn a_key_that_was_stored_before_there_were_orders_is_the_same() {
        let stored = r#"{"name": "id", "native": "bigint", "collation": null, "at": 0}"#;
        assert_eq!(serde_json::from_str::<KeyColumn>(stored).unwrap(), column("id", "bigint", None, 0));
        assert!(!serde_json::to_string(&column("id", "bigint", None, 0)).unwrap().contains("order"));
    }
}
