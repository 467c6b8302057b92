//! The Avro schema of a table's shape, and the shape back from its schema.
//!
//! ```text
//! record Change                        namespace mulgil.change.<schema or database>.<table>; property "table": the shape, exactly
//!   op        enum c u d r t m
//!   before    null | record Row        one field per column, in order; property "column": the column's own name
//!   after     null | Row
//!   source    record Source
//!     committed  timestamp-micros      snapshot  enum no initial last incremental
//!     commit     long (the 64 bits)    ordinal   long (the 64 bits)
//!     place      record Postgres: database string, commit_lsn long (the 64 bits), txid null|long
//!              | record Mysql: server_id long, file string, at long (the 64 bits), gtid null|string, thread null|long
//!   truncate  null | record Truncate: cascade boolean, restart_identity boolean
//!
//! column = null | value | enum Unavailable | odd | verbatim (decimals only)
//!   odd       string, the database's own text; where the value is a string itself: record Odd with that string (the same bytes)
//!   verbatim  record Verbatim with a string: a decimal that its database writes in another way than `value` would give back
//! array  = record with one field "items": array of (null | value | Unavailable | odd | verbatim | the record itself)
//!
//! record Message                       of a logical message: prefix string, content bytes, is_transactional boolean, source
//! ```
//!
//! | kind | value |
//! |---|---|
//! | bool | boolean |
//! | int16, int32 | int |
//! | int64 | long |
//! | uint64 | bytes, decimal(20, 0) |
//! | float32, float64 | float, double |
//! | decimal(p, s) with 0 ≤ s ≤ p ≤ 38 | bytes, decimal |
//! | other decimals | string in plain notation |
//! | text, unknown | string |
//! | json | string, property "content": "json" |
//! | binary | bytes |
//! | date | int, date |
//! | time | long, microseconds: also beyond a day and below zero, so not `time-micros` |
//! | timestamp | long, local-timestamp-micros |
//! | timestamptz | long, timestamp-micros |
//! | uuid | string, uuid |
//!
//! Format: Avro 1.12.0 specification, Schema Declaration and Logical Types.

use crate::table::{Column, Digits, Kind, Table, TableId};
use mulgil_model::avro::WireSchema;
use serde_json::{Value, json};
use std::collections::HashSet;

/// More columns than a table of either database can have (MySQL: 4,096; PostgreSQL: 1,600).
pub(crate) const COLUMNS_MAX: usize = 4_096;

/// Arrays of arrays in a kind; PostgreSQL has arrays of six dimensions at most.
pub(crate) const ARRAY_DEPTH_MAX: usize = 16;

/// The most digits for which a decimal is Avro's.
const DIGITS_MAX: u16 = 38;

/// The scale of a decimal that is written as Avro's.
pub(crate) fn decimal_scale(digits: Option<Digits>) -> Option<u32> {
    let digits = digits.filter(|d| d.precision <= DIGITS_MAX && d.precision > 0)?;
    u32::try_from(digits.scale).ok().filter(|scale| *scale <= u32::from(digits.precision))
}

/// The kind of an array's items, however deep it is nested.
pub(crate) fn item_kind(kind: &Kind) -> &Kind {
    match kind {
        Kind::Array(inner) => item_kind(inner),
        kind => kind,
    }
}

/// Where in the union of an array's items the array itself stands.
pub(crate) fn nested_branch(item: &Kind) -> u8 {
    if matches!(item, Kind::Decimal(digits) if decimal_scale(*digits).is_some()) { 5 } else { 4 }
}

pub(crate) fn of_table(table: &Table) -> WireSchema {
    let id = &table.id;
    let space = if id.schema.is_empty() { &id.database } else { &id.schema };
    let namespace = format!("mulgil.change.{}.{}", avro_name(space), avro_name(&id.table));
    let mut taken = HashSet::new();
    let fields: Vec<Value> = table.columns.iter().enumerate().map(|(i, c)| column_field(i, c, &mut taken)).collect();
    let row = json!({"type": "record", "name": "Row", "fields": fields});
    let truncate = json!({"type": "record", "name": "Truncate", "fields": [
        {"name": "cascade", "type": "boolean"}, {"name": "restart_identity", "type": "boolean"}]});
    wire(&json!({"type": "record", "name": "Change", "namespace": namespace, "table": shape(table), "fields": [
        {"name": "op", "type": {"type": "enum", "name": "Op", "symbols": ["c", "u", "d", "r", "t", "m"]}},
        {"name": "before", "type": ["null", row], "default": null},
        {"name": "after", "type": ["null", "Row"], "default": null},
        {"name": "source", "type": source()},
        {"name": "truncate", "type": ["null", truncate], "default": null}]}))
}

pub(crate) fn of_messages() -> WireSchema {
    wire(&json!({"type": "record", "name": "Message", "namespace": "mulgil.change", "fields": [
        {"name": "prefix", "type": "string"}, {"name": "content", "type": "bytes"}, {"name": "is_transactional", "type": "boolean"},
        {"name": "source", "type": source()}]}))
}

/// The id is a hash of the text, as for every schema in the log ([`WireSchema::of`]).
fn wire(schema: &Value) -> WireSchema {
    let json = schema.to_string();
    let id = (xxhash_rust::xxh3::xxh3_64(json.as_bytes()) & 0x7fff_ffff) as u32;
    WireSchema { id: id.max(1), json }
}

fn source() -> Value {
    let postgres = json!({"type": "record", "name": "Postgres", "fields": [
        {"name": "database", "type": "string"}, {"name": "commit_lsn", "type": "long"}, {"name": "txid", "type": ["null", "long"]}]});
    let mysql = json!({"type": "record", "name": "Mysql", "fields": [
        {"name": "server_id", "type": "long"}, {"name": "file", "type": "string"}, {"name": "at", "type": "long"},
        {"name": "gtid", "type": ["null", "string"]}, {"name": "thread", "type": ["null", "long"]}]});
    json!({"type": "record", "name": "Source", "fields": [
        {"name": "committed", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "snapshot", "type": {"type": "enum", "name": "Snapshot", "symbols": ["no", "initial", "last", "incremental"]}},
        {"name": "commit", "type": "long"}, {"name": "ordinal", "type": "long"}, {"name": "place", "type": [postgres, mysql]}]})
}

fn column_field(i: usize, column: &Column, taken: &mut HashSet<String>) -> Value {
    // Debezium's rule for such names, and a number where two become the same.
    let mut name = avro_name(&column.name);
    if !taken.insert(name.clone()) {
        name = format!("{name}_{i}");
        while !taken.insert(name.clone()) {
            name.push('_');
        }
    }
    let mut names = Names { column: i, unavailable: i == 0 };
    let branches = match &column.kind {
        Kind::Array(_) => {
            let item = item_kind(&column.kind);
            let record = format!("Array_{i}");
            // Where a name is first used its type stands whole: the items stand before the rest of the column's own union.
            let mut items = names.branches(item, &value(item));
            items.push(json!(record));
            let array = json!({"type": "record", "name": record, "fields": [{"name": "items", "type": {"type": "array", "items": items}}]});
            let unavailable = json!("Unavailable");
            vec![json!("null"), array, unavailable, json!("string")]
        }
        kind => names.branches(kind, &value(kind)),
    };
    json!({"name": name, "column": &*column.name, "type": branches})
}

/// Types that have a name stand whole where they are first used, and as a name afterwards.
struct Names {
    column: usize,
    unavailable: bool,
}

impl Names {
    fn branches(&mut self, kind: &Kind, value: &Value) -> Vec<Value> {
        let text = json!([{"name": "text", "type": "string"}]);
        let whole = json!({"type": "enum", "name": "Unavailable", "symbols": ["unavailable"]});
        let unavailable = if std::mem::take(&mut self.unavailable) { whole } else { json!("Unavailable") };
        let is_string = *value == json!("string") || value["type"] == "string";
        let odd =
            if is_string { json!({"type": "record", "name": format!("Odd_{}", self.column), "fields": text}) } else { json!("string") };
        let mut branches = vec![json!("null"), value.clone(), unavailable, odd];
        if matches!(kind, Kind::Decimal(digits) if decimal_scale(*digits).is_some()) {
            branches.push(json!({"type": "record", "name": format!("Verbatim_{}", self.column), "fields": text}));
        }
        branches
    }
}

fn value(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!("boolean"),
        Kind::Int16 | Kind::Int32 => json!("int"),
        Kind::Int64 => json!("long"),
        Kind::UInt64 => json!({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0}),
        Kind::Float32 => json!("float"),
        Kind::Float64 => json!("double"),
        Kind::Decimal(Some(d)) if decimal_scale(Some(*d)).is_some() => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": d.precision, "scale": d.scale})
        }
        Kind::Decimal(_) | Kind::Text | Kind::Unknown | Kind::Array(_) => json!("string"),
        Kind::Json => json!({"type": "string", "content": "json"}),
        Kind::Binary => json!("bytes"),
        Kind::Date => json!({"type": "int", "logicalType": "date"}),
        Kind::Time => json!({"type": "long", "unit": "microseconds"}),
        Kind::Timestamp => json!({"type": "long", "logicalType": "local-timestamp-micros"}),
        Kind::TimestampTz => json!({"type": "long", "logicalType": "timestamp-micros"}),
        Kind::Uuid => json!({"type": "string", "logicalType": "uuid"}),
    }
}

/// Letters, digits and `_`, not beginning with a digit.
fn avro_name(name: &str) -> String {
    let mut out: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

fn shape(table: &Table) -> Value {
    let column = |c: &Column| json!({"name": &*c.name, "kind": kind_name(&c.kind), "nullable": c.is_nullable, "key": c.is_key, "native": &*c.native});
    let id = &table.id;
    json!({"database": &*id.database, "schema": &*id.schema, "table": &*id.table, "version": table.version,
        "columns": table.columns.iter().map(column).collect::<Vec<_>>()})
}

const KINDS: [(&str, Kind); 17] = [
    ("bool", Kind::Bool),
    ("int16", Kind::Int16),
    ("int32", Kind::Int32),
    ("int64", Kind::Int64),
    ("uint64", Kind::UInt64),
    ("float32", Kind::Float32),
    ("float64", Kind::Float64),
    ("decimal", Kind::Decimal(None)),
    ("text", Kind::Text),
    ("binary", Kind::Binary),
    ("date", Kind::Date),
    ("time", Kind::Time),
    ("timestamp", Kind::Timestamp),
    ("timestamptz", Kind::TimestampTz),
    ("uuid", Kind::Uuid),
    ("json", Kind::Json),
    ("unknown", Kind::Unknown),
];

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Decimal(Some(d)) => format!("decimal({},{})", d.precision, d.scale),
        Kind::Array(inner) => format!("{}[]", kind_name(inner)),
        kind => KINDS.iter().find(|(_, k)| k == kind).map_or("unknown", |(name, _)| name).to_owned(),
    }
}

fn kind_of(name: &str, depth: usize) -> Option<Kind> {
    if let Some(inner) = name.strip_suffix("[]") {
        return (depth < ARRAY_DEPTH_MAX).then(|| kind_of(inner, depth + 1))?.map(|k| Kind::Array(Box::new(k)));
    }
    if let Some(digits) = name.strip_prefix("decimal(").and_then(|n| n.strip_suffix(')')) {
        let (precision, scale) = digits.split_once(',')?;
        return Some(Kind::Decimal(Some(Digits { precision: precision.parse().ok()?, scale: scale.parse().ok()? })));
    }
    KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind.clone())
}

/// What a schema of ours is of: a table, or messages (None). An error says what it lacks.
pub(crate) fn read(json: &str) -> Result<Option<Table>, &'static str> {
    let schema: Value = serde_json::from_str(json).map_err(|_| "it is not JSON")?;
    if schema["name"] == "Message" && schema["namespace"] == "mulgil.change" {
        return Ok(None);
    }
    let shape = schema.get("table").ok_or("it has no property \"table\": it is not of a change envelope")?;
    let text =
        |of: &Value, name: &str| of[name].as_str().map(std::sync::Arc::<str>::from).ok_or("a name in its property \"table\" is missing");
    let id = TableId { database: text(shape, "database")?, schema: text(shape, "schema")?, table: text(shape, "table")? };
    let version = shape["version"].as_u64().and_then(|v| u32::try_from(v).ok()).ok_or("its table has no version")?;
    let columns = shape["columns"].as_array().filter(|c| c.len() <= COLUMNS_MAX).ok_or("it has no columns, or too many")?;
    let column = |c: &Value| {
        let kind = c["kind"].as_str().and_then(|k| kind_of(k, 0)).ok_or("a column is of an unknown kind")?;
        let flag = |name: &str| c[name].as_bool().ok_or("a column lacks a property");
        Ok(Column { name: text(c, "name")?, kind, is_nullable: flag("nullable")?, is_key: flag("key")?, native: text(c, "native")? })
    };
    let columns = columns.iter().map(column).collect::<Result<_, &'static str>>()?;
    Ok(Some(Table { id, version, columns }))
}
