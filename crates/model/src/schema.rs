//! What a stream's rows look like: columns with types, and which of them are the key and the event time.

use crate::decimal::PRECISION_MAX;
use crate::ids::Topic;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::fmt;
use std::sync::Arc;

/// The closed set of column types. Money and quantities are decimals; floats are for ratios and statistics only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    Text,
    Int,
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// Microseconds since the epoch, UTC.
    Timestamp,
    Bool,
    Float,
}

impl ColumnType {
    pub fn arrow(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Bool => DataType::Boolean,
            Self::Float => DataType::Float64,
        }
    }

    /// Reads `text`, `int`, `decimal(18, 8)`, `timestamp`, `bool` or `float`.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        let unknown = || SchemaError::UnknownType(text.to_owned());
        Ok(match text.trim() {
            "text" => Self::Text,
            "int" => Self::Int,
            "timestamp" => Self::Timestamp,
            "bool" => Self::Bool,
            "float" => Self::Float,
            other => {
                let inner = other.strip_prefix("decimal(").and_then(|s| s.strip_suffix(')')).ok_or_else(unknown)?;
                let (p, s) = inner.split_once(',').ok_or_else(unknown)?;
                let precision: u8 = p.trim().parse().map_err(|_| unknown())?;
                let scale: i8 = s.trim().parse().map_err(|_| unknown())?;
                if precision == 0 || precision > PRECISION_MAX || scale < 0 || scale.unsigned_abs() > precision {
                    return Err(unknown());
                }
                Self::Decimal { precision, scale }
            }
        })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("text"),
            Self::Int => f.write_str("int"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Bool => f.write_str("bool"),
            Self::Float => f.write_str("float"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub nullable: bool,
}

impl Column {
    pub fn required(name: &str, kind: ColumnType) -> Self {
        Self { name: name.to_owned(), kind, nullable: false }
    }

    pub fn optional(name: &str, kind: ColumnType) -> Self {
        Self { name: name.to_owned(), kind, nullable: true }
    }
}

/// What mulgil knows about the meaning of a stream's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// One row is one trade: has `symbol`, `price`, `quantity`, `side` (see `streams`).
    Trade,
    /// One row is one closed or revised bar.
    Bar,
    /// One row is one alert.
    Alert,
    /// One row is one change of a captured table, or a logical message (see `streams::changes`).
    Change,
    /// Columns as declared, without further meaning.
    Plain,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("unknown column type '{0}': use text, int, decimal(PRECISION, SCALE) with a precision of at most 38, timestamp, bool or float")]
    UnknownType(String),
    #[error("stream '{stream}' has no column '{column}'")]
    NoColumn { stream: Topic, column: String },
    #[error("stream '{stream}' names the column '{column}' twice")]
    Twice { stream: Topic, column: String },
    #[error("column '{column}' of stream '{stream}' is the {role} and must be {wanted}")]
    Role { stream: Topic, column: String, role: &'static str, wanted: &'static str },
    #[error("'{column}' of stream '{stream}' is not a valid column name: use a-z, 0-9 and '_', starting with a letter or '_'")]
    Name { stream: Topic, column: String },
}

/// A stream's declared shape. Immutable; shared as `Arc<StreamSchema>`.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamSchema {
    pub stream: Topic,
    pub kind: StreamKind,
    pub columns: Vec<Column>,
    /// Index of the key column (text, not null): rows of one key share a partition, in order.
    pub key: usize,
    /// Index of the event-time column (timestamp, not null).
    pub event_time: usize,
    arrow: SchemaRef,
}

impl StreamSchema {
    pub fn new(stream: Topic, kind: StreamKind, columns: Vec<Column>, key: &str, event_time: &str) -> Result<Self, SchemaError> {
        for (i, c) in columns.iter().enumerate() {
            if columns[..i].iter().any(|other| other.name == c.name) {
                return Err(SchemaError::Twice { stream, column: c.name.clone() });
            }
            if !is_column_name(&c.name) {
                return Err(SchemaError::Name { stream, column: c.name.clone() });
            }
        }
        let find = |name: &str, role, kind, wanted| {
            let at = columns.iter().position(|c| c.name == name);
            let at = at.ok_or_else(|| SchemaError::NoColumn { stream: stream.clone(), column: name.to_owned() })?;
            let fits = columns[at].kind == kind && !columns[at].nullable;
            if fits { Ok(at) } else { Err(SchemaError::Role { stream: stream.clone(), column: name.to_owned(), role, wanted }) }
        };
        let key = find(key, "key", ColumnType::Text, "text and not null")?;
        let event_time = find(event_time, "event time", ColumnType::Timestamp, "a timestamp and not null")?;
        let arrow = Arc::new(Schema::new(columns.iter().map(|c| Field::new(&c.name, c.kind.arrow(), c.nullable)).collect::<Vec<_>>()));
        Ok(Self { stream, kind, columns, key, event_time, arrow })
    }

    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    pub fn index_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == column)
    }

    pub fn column(&self, name: &str) -> Result<(usize, &Column), SchemaError> {
        let at = self.index_of(name).ok_or_else(|| SchemaError::NoColumn { stream: self.stream.clone(), column: name.to_owned() })?;
        Ok((at, &self.columns[at]))
    }

    /// The same shape under another name, for `late`, `duplicates` and `shadow` copies.
    pub fn renamed(&self, stream: Topic) -> Self {
        Self { stream, ..self.clone() }
    }
}

fn is_column_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn column_types_round_trip() {
        for text in ["text", "int", "decimal(18, 8)", "timestamp", "bool", "float"] {
            assert_eq!(ColumnType::parse(text).unwrap().to_string(), text);
        }
        for bad in ["decimal", "decimal(0, 0)", "decimal(39, 2)", "decimal(4, 5)", "decimal(4, -1)", "varchar"] {
            assert!(ColumnType::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_are_checked() {
        let t = || Topic::new("t").unwrap();
        let columns = vec![Column::required("k", ColumnType::Text), Column::optional("at", ColumnType::Timestamp)];
        let say = |key: &str, at: &str| StreamSchema::new(t(), StreamKind::Plain, columns.clone(), key, at).unwrap_err().to_string();
        assert_eq!(say("x", "at"), "stream 't' has no column 'x'");
        assert_eq!(say("k", "at"), "column 'at' of stream 't' is the event time and must be a timestamp and not null");
    }
}
