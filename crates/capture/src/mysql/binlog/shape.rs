//! How the rows of a table are read: its table map, with what the map leaves out taken from the catalog.
//!
//! Kinds: `tinyint`, `smallint` Int16; `smallint unsigned`, `mediumint`, `int`, `year` Int32; `int unsigned`, `bigint` Int64; `bigint unsigned`
//! UInt64; `bit(1)` Bool, wider bits UInt64; `datetime` Timestamp, `timestamp` TimestampTz; enums, sets and all text Text; `binary`, blobs, geometry
//! (its WKB, without the four bytes of SRID before it) and vectors Binary; MariaDB's `uuid` Uuid, `inet4` and `inet6` Text.

use super::charset::Charset;
use super::decimal;
use super::error::{BinlogError, Result};
use super::native::Native;
use super::table_map::{ColumnKind, MapColumn, TableMap};
use super::temporal::FRACTION_DIGITS_MAX;
use super::value::{Codec, Content, Sign};
use crate::table::{Column, Digits, Kind};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// A column as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub name: Arc<str>,
    /// `information_schema.columns.column_type`; `json` for MariaDB's, which is a `longtext` that is checked to be JSON.
    pub native: Arc<str>,
    /// `information_schema.columns.character_set_name`
    pub charset: Option<Arc<str>>,
    pub is_key: bool,
}

/// What neither the table map nor the catalog says. The values of such a column are still exact, but of a poorer kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// A value whose highest bit is set comes as [`crate::datum::Datum::Odd`] in hexadecimal.
    Sign,
    /// Text comes as bytes.
    Charset,
    /// An enum's or set's number comes as [`crate::datum::Datum::Odd`].
    Values,
    /// It is called `@1` and so on.
    Name,
}

#[derive(Debug, Clone)]
pub struct Shape {
    columns: Vec<Column>,
    pub(super) codecs: Vec<Codec>,
    gaps: Vec<(usize, Gap)>,
}

impl Shape {
    /// An error where the catalog is of another version of the table than the table map: read it again, or use the map alone.
    pub fn new(map: &TableMap, known: Option<&[Known]>) -> Result<Self> {
        if let Some(number) = map.unknown_type {
            return Err(BinlogError::UnknownType { table: map.display_name(), number });
        }
        if let Some(known) = known.filter(|known| known.len() != map.columns.len()) {
            return Err(BinlogError::Columns { table: map.display_name(), have: map.columns.len(), want: known.len() });
        }
        let mut shape = Self { columns: Vec::new(), codecs: Vec::new(), gaps: Vec::new() };
        for (i, column) in map.columns.iter().enumerate() {
            let known = known.map(|known| &known[i]);
            let native = known.map(|k| Native::parse(&k.native));
            let is_other = known
                .zip(native.as_ref())
                .is_some_and(|(known, native)| !native.fits(column) || column.name.as_ref().is_some_and(|name| *name != known.name));
            if is_other {
                let native = known.map_or(String::new(), |k| format!("{} {}", k.name, k.native));
                return Err(BinlogError::Shape { table: map.display_name(), column: i + 1, native });
            }
            shape.push(map, i, known, native.as_ref())?;
        }
        Ok(shape)
    }

    /// By the names that the table map itself has, with the words of whichever known column is called so and fits, the first of them. For a
    /// table whose catalog is of another version: most of its columns are still the same, and a map does not tell a UUID from bytes.
    pub fn by_name(map: &TableMap, known: &[Known]) -> Result<Self> {
        if let Some(number) = map.unknown_type {
            return Err(BinlogError::UnknownType { table: map.display_name(), number });
        }
        let mut shape = Self { columns: Vec::new(), codecs: Vec::new(), gaps: Vec::new() };
        for (i, column) in map.columns.iter().enumerate() {
            let called_so = known.iter().filter(|k| column.name.as_ref() == Some(&k.name));
            let mut fitting = called_so.map(|k| (k, Native::parse(&k.native))).filter(|(_, native)| native.fits(column));
            let (known, native) = fitting.next().unzip();
            shape.push(map, i, known, native.as_ref())?;
        }
        Ok(shape)
    }

    /// In the order of the table. Whether the database sends a column depends on the event: see [`crate::datum::Datum::Unavailable`].
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Positions of columns and what is not known of them.
    pub fn gaps(&self) -> &[(usize, Gap)] {
        &self.gaps
    }

    fn push(&mut self, map: &TableMap, i: usize, known: Option<&Known>, native: Option<&Native>) -> Result<()> {
        let column = &map.columns[i];
        let mut gap = None;
        let codec = codec(column, known, native, &mut gap)?;
        self.gaps.extend(gap.map(|gap| (i, gap)));
        let name = column.name.clone().or_else(|| known.map(|k| k.name.clone())).unwrap_or_else(|| {
            self.gaps.push((i, Gap::Name));
            format!("@{}", i + 1).into()
        });
        let is_key = match (known, &map.primary_key) {
            (Some(known), _) => known.is_key,
            (None, Some(key)) => key.contains(&i),
            (None, None) => false,
        };
        let native = known.map_or_else(|| words(column, &codec).into(), |k| k.native.clone());
        self.columns.push(Column { name, kind: kind(&codec), is_nullable: column.is_nullable, is_key, native });
        self.codecs.push(codec);
        Ok(())
    }
}

fn codec(column: &MapColumn, known: Option<&Known>, native: Option<&Native>, gap: &mut Option<Gap>) -> Result<Codec> {
    use ColumnKind::*;
    let digits = column.metadata.min(u16::from(u8::MAX)) as u8;
    let [high, low] = column.metadata.to_be_bytes();
    let refuse = |why| Err(BinlogError::malformed("TABLE_MAP event", why));
    Ok(match column.kind {
        Tiny => int(1, column, native, gap),
        Short => int(2, column, native, gap),
        Int24 => int(3, column, native, gap),
        Long => int(4, column, native, gap),
        LongLong => int(8, column, native, gap),
        Float if digits == 4 => Codec::Float,
        Double | Float if digits == 8 => Codec::Double,
        Float | Double => return refuse("a floating point column has neither four nor eight bytes"),
        NewDecimal if high > decimal::PRECISION_MAX || low > high || high == 0 => {
            return refuse("a decimal's precision or scale is out of range");
        }
        NewDecimal => Codec::Decimal { precision: high, scale: low },
        Bit if high > 7 || !(1..=64).contains(&(u16::from(low) * 8 + u16::from(high))) => {
            return refuse("a bit column has none or more than 64");
        }
        Bit => Codec::Bit { n_bits: low * 8 + high },
        Year => Codec::Year,
        Date | NewDate => Codec::Date,
        Time => Codec::TimeDecimal,
        DateTime => Codec::DateTimeDecimal,
        Timestamp => Codec::TimestampSeconds,
        Time2 | DateTime2 | Timestamp2 if digits > FRACTION_DIGITS_MAX => {
            return refuse("a time has more than six digits behind its seconds");
        }
        Time2 => Codec::Time { digits },
        DateTime2 => Codec::DateTime { digits },
        Timestamp2 => Codec::Timestamp { digits },
        Enum if !(1..=2).contains(&low) => return refuse("an enum has neither one byte nor two"),
        Enum => Codec::Enum { bytes: low, values: strings(column, known, native, gap) },
        Set if !(1..=8).contains(&low) => return refuse("a set has none or more than eight bytes"),
        Set => Codec::Set { bytes: low, values: strings(column, known, native, gap) },
        Json | Geometry | Vector | TinyBlob | MediumBlob | LongBlob | Blob | BlobCompressed if !(1..=4).contains(&digits) => {
            return refuse("the length of a blob has none or more than four bytes");
        }
        Json => Codec::Json { prefix: digits },
        Geometry => Codec::Geometry { prefix: digits },
        Vector => Codec::Bytes { prefix: digits, is_compressed: false, content: Content::Binary { pad: 0 } },
        TinyBlob | MediumBlob | LongBlob | Blob | BlobCompressed => {
            Codec::Bytes { prefix: digits, is_compressed: column.kind == BlobCompressed, content: content(column, known, native, gap) }
        }
        Varchar | VarString | String | VarcharCompressed => {
            let prefix = if column.metadata > 255 { 2 } else { 1 };
            Codec::Bytes { prefix, is_compressed: column.kind == VarcharCompressed, content: content(column, known, native, gap) }
        }
        Decimal | Null => return refuse("a column has a type that servers from 5.0.3 on do not write"),
    })
}

fn int(bytes: u8, column: &MapColumn, native: Option<&Native>, gap: &mut Option<Gap>) -> Codec {
    let sign = match column.is_unsigned.or_else(|| native.map(|n| n.is_unsigned)) {
        Some(true) => Sign::Unsigned,
        Some(false) => Sign::Signed,
        None => {
            *gap = Some(Gap::Sign);
            Sign::Unknown
        }
    };
    Codec::Int { bytes, sign }
}

/// What the bytes of a string or blob mean.
fn content(column: &MapColumn, known: Option<&Known>, native: Option<&Native>, gap: &mut Option<Gap>) -> Content {
    match native.map(|n| n.base.as_str()) {
        Some("uuid") => return Content::Uuid,
        Some("inet4") => return Content::Inet4,
        Some("inet6") => return Content::Inet6,
        Some("json") => return Content::Json,
        _ => {}
    }
    let is_binary = native.is_some_and(|n| n.base == "vector" || n.base.ends_with("binary") || n.base.ends_with("blob"));
    let charset = match is_binary {
        true => Charset::named("binary"),
        false => column.collation.and_then(Charset::of_collation).or_else(|| Charset::named(known?.charset.as_deref()?)),
    };
    // BINARY(n) is written without the zeros at its end.
    let pad = if column.kind == ColumnKind::String { column.metadata } else { 0 };
    match charset {
        Some(charset) if charset.is_binary() => Content::Binary { pad },
        Some(charset) => Content::Text(charset),
        None => {
            *gap = Some(Gap::Charset);
            Content::Binary { pad: 0 }
        }
    }
}

/// The strings of an enum or set in UTF-8: the table map has them in the column's charset, the catalog as the connection has them.
fn strings(column: &MapColumn, known: Option<&Known>, native: Option<&Native>, gap: &mut Option<Gap>) -> Option<Arc<[Bytes]>> {
    let charset = column.collation.and_then(Charset::of_collation).or_else(|| Charset::named(known?.charset.as_deref()?));
    let of_map = column.values.as_ref().zip(charset).and_then(|(values, charset)| {
        let mut arena = BytesMut::new();
        values.iter().map(|value| charset.decode(value.clone(), &mut arena)).collect::<Option<Arc<[Bytes]>>>()
    });
    let values = of_map.or_else(|| native.map(|n| n.values.iter().cloned().collect()));
    if values.is_none() {
        *gap = Some(Gap::Values);
    }
    values
}

fn kind(codec: &Codec) -> Kind {
    match codec {
        Codec::Int { bytes, sign } => match (bytes, sign) {
            (8, Sign::Unsigned) => Kind::UInt64,
            (8, _) | (4, Sign::Unsigned) => Kind::Int64,
            (1, _) | (2, Sign::Signed | Sign::Unknown) => Kind::Int16,
            _ => Kind::Int32,
        },
        Codec::Float => Kind::Float32,
        Codec::Double => Kind::Float64,
        Codec::Decimal { precision, scale } => Kind::Decimal(Some(Digits { precision: u16::from(*precision), scale: i16::from(*scale) })),
        Codec::Bit { n_bits: 1 } => Kind::Bool,
        Codec::Bit { .. } => Kind::UInt64,
        Codec::Year => Kind::Int32,
        Codec::Date => Kind::Date,
        Codec::Time { .. } | Codec::TimeDecimal => Kind::Time,
        Codec::DateTime { .. } | Codec::DateTimeDecimal => Kind::Timestamp,
        Codec::Timestamp { .. } | Codec::TimestampSeconds => Kind::TimestampTz,
        Codec::Enum { .. } | Codec::Set { .. } => Kind::Text,
        Codec::Json { .. } => Kind::Json,
        Codec::Geometry { .. } => Kind::Binary,
        Codec::Bytes { content, .. } => match content {
            Content::Text(_) | Content::Inet4 | Content::Inet6 => Kind::Text,
            Content::Binary { .. } => Kind::Binary,
            Content::Json => Kind::Json,
            Content::Uuid => Kind::Uuid,
        },
    }
}

/// The type in words like the server's, where the catalog was not asked.
fn words(column: &MapColumn, codec: &Codec) -> String {
    let fraction = |name: &str, digits: &u8| if *digits > 0 { format!("{name}({digits})") } else { name.to_owned() };
    let list = |name: &str, values: &Option<Arc<[Bytes]>>| {
        let quoted = |v: &Bytes| format!("'{}'", String::from_utf8_lossy(v).replace('\'', "''"));
        let values = values.as_ref().map_or(String::new(), |v| v.iter().map(quoted).collect::<Vec<_>>().join(","));
        format!("{name}({values})")
    };
    match codec {
        Codec::Int { bytes, sign } => {
            let name = ["tinyint", "smallint", "mediumint", "int", "bigint"][usize::from(*bytes).min(5) - 1];
            format!("{name}{}", if *sign == Sign::Unsigned { " unsigned" } else { "" })
        }
        Codec::Float => "float".into(),
        Codec::Double => "double".into(),
        Codec::Decimal { precision, scale } => {
            format!("decimal({precision},{scale}){}", if column.is_unsigned == Some(true) { " unsigned" } else { "" })
        }
        Codec::Bit { n_bits } => format!("bit({n_bits})"),
        Codec::Year => "year".into(),
        Codec::Date => "date".into(),
        Codec::Time { digits } => fraction("time", digits),
        Codec::TimeDecimal => "time".into(),
        Codec::DateTime { digits } => fraction("datetime", digits),
        Codec::DateTimeDecimal => "datetime".into(),
        Codec::Timestamp { digits } => fraction("timestamp", digits),
        Codec::TimestampSeconds => "timestamp".into(),
        Codec::Enum { values, .. } => list("enum", values),
        Codec::Set { values, .. } => list("set", values),
        Codec::Json { .. } => "json".into(),
        Codec::Geometry { .. } => geometry_words(column).into(),
        Codec::Bytes { content, .. } => bytes_words(column, *content),
    }
}

fn geometry_words(column: &MapColumn) -> &'static str {
    const NAMES: [&str; 8] =
        ["geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection"];
    let n = column.geometry.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    NAMES.get(n).unwrap_or(&NAMES[0])
}

fn bytes_words(column: &MapColumn, content: Content) -> String {
    use ColumnKind::*;
    let (is_text, width) = match content {
        Content::Text(charset) => (true, u16::from(charset.width_max)),
        _ => (false, 1),
    };
    let n = column.metadata / width;
    match (column.kind, is_text) {
        (Vector, _) => "vector".into(),
        (String, true) => format!("char({n})"),
        (String, false) => format!("binary({n})"),
        (Varchar | VarString | VarcharCompressed, true) => format!("varchar({n})"),
        (Varchar | VarString | VarcharCompressed, false) => format!("varbinary({n})"),
        (_, is_text) => {
            let size = ["tiny", "", "medium", "long"][usize::from(column.metadata.clamp(1, 4)) - 1];
            format!("{size}{}", if is_text { "text" } else { "blob" })
        }
    }
}
