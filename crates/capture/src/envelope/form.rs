//! How Debezium writes a column: Kafka Connect's schema of its values, chosen by the column's kind and its type's own name.
//!
//! The forms are those of Debezium's "Data type mappings" (documentation of the PostgreSQL, MySQL and MariaDB connectors, 3.5), checked
//! against the output of its engine (`testdata/debezium`).

use super::json::JsonOptions;
use super::native::Native;
use super::text::push_json_string;
use super::value::{Unit, push_bytes};
use crate::table::{Column, Kind};

/// Which of Debezium's connectors the output is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connector {
    Postgres,
    Mysql,
    Mariadb,
}

impl Connector {
    /// As `source.connector` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Mysql => "mysql",
            Self::Mariadb => "mariadb",
        }
    }
}

/// `decimal.handling.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Decimals {
    /// Unscaled bytes in base64, with the scale in the schema.
    #[default]
    Precise,
    String,
    /// Loses digits; taken only with [`JsonOptions::allow_inexact_decimals`].
    Double,
}

/// `time.precision.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Times {
    /// Milliseconds where the column has at most three decimals of a second, microseconds elsewhere. For MySQL and MariaDB, as for their
    /// connectors, the same as the next.
    #[default]
    Adaptive,
    /// The same, but a time of the day always is microseconds.
    AdaptiveTimeMicroseconds,
    /// Kafka Connect's own types: milliseconds; finer ones are cut.
    Connect,
    IsoString,
}

/// `binary.handling.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Binaries {
    #[default]
    Bytes,
    Base64,
    Base64UrlSafe,
    Hex,
}

/// `interval.handling.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Intervals {
    /// Microseconds, a month being 30.4375 days.
    #[default]
    Numeric,
    String,
}

/// `bigint.unsigned.handling.mode`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UnsignedBigints {
    /// The number itself. Debezium writes those above 2^63 as negative ones; here they stay what they are.
    #[default]
    Long,
    Precise,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    Bool,
    /// `int16`, `int32` or `int64`.
    Int(&'static str),
    Float,
    Double,
    Decimal {
        scale: i32,
        precision: Option<u16>,
    },
    VariableDecimal,
    DecimalText,
    /// With the name of its meaning, if it has one.
    Text(Option<&'static str>),
    Hstore,
    Enum {
        name: &'static str,
        allowed: String,
    },
    Bytes(Binaries),
    /// How many bytes there always are; None: as few as hold the number.
    Bits(Option<usize>),
    Date(Unit),
    Time(Unit),
    Timestamp(Unit),
    /// With so many decimals of a second.
    ZonedTimestamp(u8),
    ZonedTime,
    Interval(Intervals),
    Point,
    Geometry,
    Array(Box<Form>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    pub shape: Shape,
    pub is_optional: bool,
    /// Of the schema: `"name":…,"version":1,"parameters":…`, each with a comma before it.
    meaning: String,
}

impl Form {
    pub fn of(column: &Column, options: &JsonOptions) -> Self {
        let native = Native::of(&column.native);
        Self::build(&column.kind, &native, column.is_nullable, options)
    }

    fn build(kind: &Kind, native: &Native, is_optional: bool, options: &JsonOptions) -> Self {
        let shape = match kind {
            Kind::Array(item) => {
                let mut inner = &**item;
                while let Kind::Array(deeper) = inner {
                    inner = deeper;
                }
                let name = native.name.replace("[]", "").trim().to_owned();
                Shape::Array(Box::new(Self::build(inner, &Native { name, ..native.clone() }, true, options)))
            }
            kind => named_shape(kind, native, options).unwrap_or_else(|| plain_shape(kind, native, options)),
        };
        let meaning = meaning(&shape, native, options.times == Times::Connect);
        Self { shape, is_optional, meaning }
    }

    /// Appends the field's schema, as Kafka Connect's JsonConverter writes it.
    pub fn push_schema(&self, out: &mut Vec<u8>, field: &str, is_optional: bool) {
        self.push_type(out, is_optional);
        out.extend_from_slice(b",\"field\":");
        push_json_string(out, field.as_bytes());
        out.push(b'}');
    }

    fn push_type(&self, out: &mut Vec<u8>, is_optional: bool) {
        const WKB_FIELDS: &str = r#"{"type":"bytes","optional":"#;
        const SRID_FIELD: &str = r#","field":"wkb"},{"type":"int32","optional":true,"field":"srid"}]"#;
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(type_of(&self.shape).as_bytes());
        out.push(b'"');
        match &self.shape {
            Shape::Array(item) => {
                out.extend_from_slice(b",\"items\":");
                item.push_type(out, true);
                out.push(b'}');
            }
            Shape::VariableDecimal => out.extend_from_slice(
                br#","fields":[{"type":"int32","optional":false,"field":"scale"},{"type":"bytes","optional":false,"field":"value"}]"#,
            ),
            Shape::Point => {
                let xy = r#","fields":[{"type":"double","optional":false,"field":"x"},{"type":"double","optional":false,"field":"y"},"#;
                out.extend_from_slice(format!("{xy}{WKB_FIELDS}true{SRID_FIELD}").as_bytes());
            }
            Shape::Geometry => out.extend_from_slice(format!(",\"fields\":[{WKB_FIELDS}false{SRID_FIELD}").as_bytes()),
            _ => {}
        }
        out.extend_from_slice(if is_optional { b",\"optional\":true" } else { b",\"optional\":false" });
        out.extend_from_slice(self.meaning.as_bytes());
    }

    /// Debezium's placeholder stands in a list of its own for an array, and in base64 for bytes.
    pub fn push_placeholder(&self, out: &mut Vec<u8>, placeholder: &str) {
        match &self.shape {
            Shape::Array(item) => {
                out.push(b'[');
                item.push_placeholder(out, placeholder);
                out.push(b']');
            }
            Shape::Bytes(binaries) => push_bytes(out, *binaries, placeholder.as_bytes()),
            _ => push_json_string(out, placeholder.as_bytes()),
        }
    }

    /// Whether the placeholder for a value that was not sent fits the form: text and bytes, as in Debezium, but not the bytes of a number.
    pub fn has_room_for_placeholder(&self) -> bool {
        match &self.shape {
            Shape::Array(item) => item.has_room_for_placeholder(),
            Shape::Decimal { .. } | Shape::Bits(_) => false,
            shape => matches!(type_of(shape), "string" | "bytes"),
        }
    }
}

/// Types that Debezium knows by name, whatever kind this program has for them.
fn named_shape(kind: &Kind, native: &Native, options: &JsonOptions) -> Option<Shape> {
    let is_postgres = options.connector == Connector::Postgres;
    let is_text = matches!(kind, Kind::Text | Kind::Unknown);
    let allowed = || native.members.iter().map(|m| m.replace(',', "\\,")).collect::<Vec<_>>().join(",");
    // PostgreSQL's names of an extension's types have their schema before them.
    let name = native.name.rsplit('.').next().unwrap_or(&native.name);
    Some(match name {
        name if name.starts_with("interval") && is_text => Shape::Interval(options.intervals),
        "enum" if !native.members.is_empty() => Shape::Enum { name: "io.debezium.data.Enum", allowed: allowed() },
        "set" if !native.members.is_empty() => Shape::Enum { name: "io.debezium.data.EnumSet", allowed: allowed() },
        "bit" if native.length.unwrap_or(1) == 1 => Shape::Bool,
        "bit" | "\"bit\"" | "bit varying" if is_postgres => Shape::Bits(None),
        "bit" => Shape::Bits(Some((native.length.unwrap_or(1) as usize).div_ceil(8))),
        "year" => Shape::Int("int32"),
        "oid" => Shape::Int("int64"),
        "money" if *kind == Kind::Decimal(None) => match options.decimals {
            Decimals::Precise => Shape::Decimal { scale: 2, precision: None },
            Decimals::String => Shape::DecimalText,
            Decimals::Double => Shape::Double,
        },
        "time with time zone" if is_text => Shape::ZonedTime,
        "xml" => Shape::Text(Some("io.debezium.data.Xml")),
        "ltree" => Shape::Text(Some("io.debezium.data.Ltree")),
        "tsvector" => Shape::Text(Some("io.debezium.data.Tsvector")),
        "hstore" if is_text => Shape::Hstore,
        "point" => Shape::Point,
        "geometry" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
        | "geomcollection"
            if *kind == Kind::Binary =>
        {
            Shape::Geometry
        }
        _ => return None,
    })
}

fn plain_shape(kind: &Kind, native: &Native, options: &JsonOptions) -> Shape {
    let is_postgres = options.connector == Connector::Postgres;
    let digits = native.length.unwrap_or(if is_postgres { 6 } else { 0 });
    let adaptive = if digits <= 3 { Unit::Millis } else { Unit::Micros };
    let (date, time, timestamp) = match options.times {
        Times::Adaptive if is_postgres => (Unit::Days, adaptive, adaptive),
        Times::Adaptive | Times::AdaptiveTimeMicroseconds => (Unit::Days, Unit::Micros, adaptive),
        Times::Connect => (Unit::Days, Unit::Millis, Unit::Millis),
        Times::IsoString => (Unit::Iso, Unit::Iso, Unit::Iso),
    };
    match kind {
        Kind::Bool => Shape::Bool,
        Kind::Int16 => Shape::Int("int16"),
        Kind::Int32 => Shape::Int("int32"),
        Kind::Int64 => Shape::Int("int64"),
        Kind::UInt64 if options.unsigned_bigints == UnsignedBigints::Precise => Shape::Decimal { scale: 0, precision: Some(20) },
        Kind::UInt64 => Shape::Int("int64"),
        Kind::Float32 => Shape::Float,
        Kind::Float64 => Shape::Double,
        Kind::Decimal(digits) => match (options.decimals, digits) {
            (Decimals::String, _) => Shape::DecimalText,
            (Decimals::Double, _) => Shape::Double,
            (Decimals::Precise, Some(d)) => Shape::Decimal { scale: i32::from(d.scale), precision: Some(d.precision) },
            (Decimals::Precise, None) => Shape::VariableDecimal,
        },
        Kind::Binary => Shape::Bytes(options.binaries),
        Kind::Date => Shape::Date(date),
        Kind::Time => Shape::Time(time),
        Kind::Timestamp => Shape::Timestamp(timestamp),
        Kind::TimestampTz => Shape::ZonedTimestamp(digits.min(6) as u8),
        Kind::Uuid => Shape::Text(Some("io.debezium.data.Uuid")),
        Kind::Json => Shape::Text(Some("io.debezium.data.Json")),
        Kind::Text | Kind::Unknown | Kind::Array(_) => Shape::Text(None),
    }
}

fn type_of(shape: &Shape) -> &'static str {
    match shape {
        Shape::Bool => "boolean",
        Shape::Int(name) => name,
        Shape::Float => "float",
        Shape::Double => "double",
        Shape::Decimal { .. } | Shape::Bytes(Binaries::Bytes) | Shape::Bits(_) => "bytes",
        Shape::VariableDecimal | Shape::Point | Shape::Geometry => "struct",
        Shape::DecimalText | Shape::Text(_) | Shape::Hstore | Shape::Enum { .. } | Shape::Bytes(_) => "string",
        Shape::ZonedTimestamp(_) | Shape::ZonedTime | Shape::Interval(Intervals::String) => "string",
        Shape::Date(Unit::Iso) | Shape::Time(Unit::Iso) | Shape::Timestamp(Unit::Iso) => "string",
        Shape::Date(_) | Shape::Time(Unit::Millis | Unit::Days) => "int32",
        Shape::Time(Unit::Micros) | Shape::Timestamp(_) | Shape::Interval(Intervals::Numeric) => "int64",
        Shape::Array(_) => "array",
    }
}

fn meaning(shape: &Shape, native: &Native, is_connect: bool) -> String {
    let versioned = |name: &str, rest: String| format!(r#","name":"{name}","version":1{rest}"#);
    let named = |name: &str| versioned(name, String::new());
    let documented = |name: &str, doc: &str| versioned(name, format!(r#","doc":"{doc}""#));
    match shape {
        Shape::Decimal { scale, precision } => {
            let precision = precision.map_or_else(String::new, |p| format!(r#","connect.decimal.precision":"{p}""#));
            versioned("org.apache.kafka.connect.data.Decimal", format!(r#","parameters":{{"scale":"{scale}"{precision}}}"#))
        }
        Shape::VariableDecimal => documented("io.debezium.data.VariableScaleDecimal", "Variable scaled decimal"),
        Shape::Text(Some(name)) => named(name),
        Shape::Hstore => named("io.debezium.data.Json"),
        Shape::Enum { name, allowed } => {
            let mut quoted = Vec::new();
            push_json_string(&mut quoted, allowed.as_bytes());
            versioned(name, format!(r#","parameters":{{"allowed":{}}}"#, String::from_utf8_lossy(&quoted)))
        }
        Shape::Bits(_) => {
            let length = native.length.unwrap_or(i32::MAX.cast_unsigned());
            versioned("io.debezium.data.Bits", format!(r#","parameters":{{"length":"{length}"}}"#))
        }
        Shape::Int(_) if native.name == "year" => named("io.debezium.time.Year"),
        Shape::Date(_) | Shape::Time(_) | Shape::Timestamp(_) if is_connect => named(moment_name(shape).1),
        Shape::Date(_) | Shape::Time(_) | Shape::Timestamp(_) => named(moment_name(shape).0),
        Shape::ZonedTimestamp(_) => named("io.debezium.time.ZonedTimestamp"),
        Shape::ZonedTime => named("io.debezium.time.ZonedTime"),
        Shape::Interval(Intervals::Numeric) => named("io.debezium.time.MicroDuration"),
        Shape::Interval(Intervals::String) => named("io.debezium.time.Interval"),
        Shape::Point => documented("io.debezium.data.geometry.Point", "Geometry (POINT)"),
        Shape::Geometry => documented("io.debezium.data.geometry.Geometry", "Geometry"),
        _ => String::new(),
    }
}

/// Debezium's name and Kafka Connect's own.
fn moment_name(shape: &Shape) -> (&'static str, &'static str) {
    match shape {
        Shape::Date(Unit::Iso) => ("io.debezium.time.IsoDate", ""),
        Shape::Date(_) => ("io.debezium.time.Date", "org.apache.kafka.connect.data.Date"),
        Shape::Time(Unit::Iso) => ("io.debezium.time.IsoTime", ""),
        Shape::Time(Unit::Micros) => ("io.debezium.time.MicroTime", ""),
        Shape::Time(_) => ("io.debezium.time.Time", "org.apache.kafka.connect.data.Time"),
        Shape::Timestamp(Unit::Iso) => ("io.debezium.time.IsoTimestamp", ""),
        Shape::Timestamp(Unit::Micros) => ("io.debezium.time.MicroTimestamp", ""),
        _ => ("io.debezium.time.Timestamp", "org.apache.kafka.connect.data.Timestamp"),
    }
}
