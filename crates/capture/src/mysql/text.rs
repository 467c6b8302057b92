//! Rows of a snapshot: the server's text as the same values, and of the same kinds, as the binlog gives them.

use super::binlog::native::Native;
use super::binlog::temporal::Written;
use super::catalog::{CatalogColumn, CatalogTable};
use super::wire::{TextRow, quoted};
use crate::change::Row;
use crate::datum::Datum;
use crate::table::{Column, Digits, Kind};
use bytes::Bytes;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Before the WKB of a geometry.
const SRID_BYTES: usize = 4;

/// How a column is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// `FLOAT` is printed with six digits: as a product it is a `DOUBLE`, which is printed with all.
    Float,
    Bits,
    Geometry,
    Inet4,
    Inet6,
}

/// The columns of a table's text rows.
#[derive(Debug, Clone)]
pub struct TextShape {
    pub columns: Vec<Column>,
    forms: Vec<Form>,
}

impl TextShape {
    pub fn new(table: &CatalogTable) -> Self {
        let natives: Vec<Native> = table.columns.iter().map(|c| Native::parse(&c.native)).collect();
        Self {
            columns: table.columns.iter().zip(&natives).map(|(c, native)| column(c, native)).collect(),
            forms: natives.iter().map(form).collect(),
        }
    }

    /// What stands behind SELECT; every column by its name, for invisible ones are not in `*`.
    pub fn select_list(&self) -> String {
        let one = |(c, form): (&Column, &Form)| match form {
            Form::Float => format!("{} * 1e0", quoted(&c.name)),
            _ => quoted(&c.name),
        };
        self.columns.iter().zip(&self.forms).map(one).collect::<Vec<_>>().join(", ")
    }

    pub fn row(&self, row: &TextRow) -> Row {
        let values = self.columns.iter().zip(&self.forms).zip(&row.0);
        values.map(|((column, form), raw)| raw.as_ref().map_or(Datum::Null, |raw| datum(&column.kind, *form, raw))).collect()
    }
}

/// Positions of key columns and their constant defaults, where the catalog has the very columns that rows are read with.
pub fn key_defaults(table: &CatalogTable, columns: &[Column]) -> Vec<(usize, Datum)> {
    let is_same = table.columns.len() == columns.len() && table.columns.iter().zip(columns).all(|(a, b)| a.name == b.name);
    let key = if is_same { &table.key[..] } else { &[] };
    let one = |&i: &usize| {
        let (native, default) = (Native::parse(&table.columns[i].native), table.columns[i].default.as_ref()?);
        let value = datum(&columns[i].kind, form(&native), default);
        // A bit's default is written as a literal, and a value of no such kind would be none.
        (form(&native) == Form::Plain && !matches!(value, Datum::Odd(_))).then_some((i, value))
    };
    key.iter().filter_map(one).collect()
}

fn column(c: &CatalogColumn, native: &Native) -> Column {
    Column {
        name: c.name.clone(),
        kind: kind(native, c.charset.as_deref()),
        is_nullable: c.is_nullable,
        is_key: c.is_key,
        native: c.native.clone(),
    }
}

fn form(native: &Native) -> Form {
    match native.base.as_str() {
        "float" => Form::Float,
        "bit" => Form::Bits,
        "inet4" => Form::Inet4,
        "inet6" => Form::Inet6,
        base if is_geometry(base) => Form::Geometry,
        _ => Form::Plain,
    }
}

fn is_geometry(base: &str) -> bool {
    base.contains("geom") || base.ends_with("point") || base.ends_with("linestring") || base.ends_with("polygon")
}

/// The same as the binlog's decoder has for the same column.
fn kind(native: &Native, charset: Option<&str>) -> Kind {
    let number = |n: usize, otherwise| native.numbers.get(n).copied().unwrap_or(otherwise);
    match (native.base.as_str(), native.is_unsigned) {
        ("tinyint", _) | ("smallint", false) => Kind::Int16,
        ("smallint", true) | ("mediumint", _) | ("int", false) | ("year", _) => Kind::Int32,
        ("int", true) | ("bigint", false) => Kind::Int64,
        ("bigint", true) => Kind::UInt64,
        ("float", _) => Kind::Float32,
        ("double", _) => Kind::Float64,
        ("decimal", _) => Kind::Decimal(Some(Digits { precision: number(0, 10) as u16, scale: number(1, 0) as i16 })),
        ("bit", _) if number(0, 1) == 1 => Kind::Bool,
        ("bit", _) => Kind::UInt64,
        ("date", _) => Kind::Date,
        ("time", _) => Kind::Time,
        ("datetime", _) => Kind::Timestamp,
        ("timestamp", _) => Kind::TimestampTz,
        ("json", _) => Kind::Json,
        ("uuid", _) => Kind::Uuid,
        ("inet4" | "inet6", _) => Kind::Text,
        _ if charset.is_some_and(|c| c != "binary") => Kind::Text,
        _ => Kind::Binary,
    }
}

fn datum(kind: &Kind, form: Form, raw: &Bytes) -> Datum {
    let known = match form {
        Form::Bits => bits(kind, raw),
        Form::Geometry => raw.len().checked_sub(SRID_BYTES).map(|_| Datum::Binary(raw.slice(SRID_BYTES..))),
        Form::Inet4 => parsed::<Ipv4Addr>(raw).map(|a| Datum::Text(a.to_string().into())),
        Form::Inet6 => parsed::<Ipv6Addr>(raw).map(|a| Datum::Text(a.to_string().into())),
        Form::Plain | Form::Float => plain(kind, raw),
    };
    known.unwrap_or_else(|| Datum::Odd(raw.clone()))
}

fn parsed<T: std::str::FromStr>(raw: &[u8]) -> Option<T> {
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// `BIT` comes as its bytes, the highest first.
fn bits(kind: &Kind, raw: &[u8]) -> Option<Datum> {
    let value = raw.iter().try_fold(0_u64, |n, b| (n >> 56 == 0).then_some(n << 8 | u64::from(*b)))?;
    Some(if *kind == Kind::Bool { Datum::Bool(value != 0) } else { Datum::UInt(value) })
}

fn plain(kind: &Kind, raw: &Bytes) -> Option<Datum> {
    Some(match kind {
        Kind::Int16 | Kind::Int32 | Kind::Int64 => Datum::Int(parsed(raw)?),
        Kind::UInt64 => Datum::UInt(parsed(raw)?),
        // The text is that of the same number as a double: exact.
        Kind::Float32 => Datum::Float32(parsed::<f64>(raw)? as f32),
        Kind::Float64 => Datum::Float64(parsed(raw)?),
        Kind::Decimal(_) => Datum::Decimal(decimal(raw)),
        Kind::Date => Datum::Date(written(raw)?.days()?),
        Kind::Timestamp => Datum::Timestamp(written(raw)?.timestamp()?),
        Kind::TimestampTz => Datum::TimestampTz(written(raw)?.timestamp()?),
        Kind::Time => Datum::Time(time_us(raw)?),
        Kind::Uuid => Datum::Uuid(uuid(raw)?),
        Kind::Json => std::str::from_utf8(raw).ok().map(|_| Datum::Json(raw.clone()))?,
        Kind::Text => std::str::from_utf8(raw).ok().map(|_| Datum::Text(raw.clone()))?,
        Kind::Binary => Datum::Binary(raw.clone()),
        Kind::Bool | Kind::Array(_) | Kind::Unknown => return None,
    })
}

/// Without the zeros that ZEROFILL puts in front.
fn decimal(raw: &Bytes) -> Bytes {
    let whole = raw.iter().position(|b| *b == b'.').unwrap_or(raw.len());
    let zeros = raw[..whole].iter().take_while(|b| **b == b'0').count();
    raw.slice(zeros.min(whole.saturating_sub(1))..)
}

/// `2024-01-31`, or with a time `2024-01-31 23:59:59.123456`.
fn written(raw: &[u8]) -> Option<Written> {
    let text = std::str::from_utf8(raw).ok()?;
    let (day, time) = text.split_once(' ').unwrap_or((text, "0:0:0"));
    let mut day = day.splitn(3, '-').map(str::parse);
    let (hour, minute, second, us) = clock(time)?;
    Some(Written { year: day.next()?.ok()?, month: day.next()?.ok()?, day: day.next()?.ok()?, hour, minute, second, us })
}

fn clock(text: &str) -> Option<(u32, u32, u32, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = whole.splitn(3, ':').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?, micros(fraction)?))
}

/// The digits behind the point, of which there may be fewer than six. Without a text of its own: every row has times.
fn micros(fraction: &str) -> Option<u32> {
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    digits.map(|b| char::from(b).to_digit(10)).try_fold(0, |us, digit| Some(us * 10 + digit?))
}

/// `-838:59:59.000000`
fn time_us(raw: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(raw).ok()?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (hour, minute, second, us) = clock(text)?;
    Some(sign * ((i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)) * 1_000_000 + i64::from(us)))
}

fn uuid(raw: &[u8]) -> Option<[u8; 16]> {
    let digits: Vec<u8> =
        raw.iter().filter(|b| **b != b'-').map(|b| char::from(*b).to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok().filter(|_| digits.len() == 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_values() {
        let cases: &[(&str, &[u8], Datum)] = &[
            ("int(10) unsigned zerofill", b"0000000007", Datum::Int(7)),
            ("bigint(20) unsigned", b"18446744073709551615", Datum::UInt(u64::MAX)),
            ("bit(1)", b"\x01", Datum::Bool(true)),
            ("bit(12)", b"\x0f\xff", Datum::UInt(4095)),
            ("float", b"0.10000000149011612", Datum::Float32(0.1)),
            ("double", b"-1.7976931348623157e308", Datum::Float64(f64::MIN)),
            ("decimal(10,2)", b"-0.50", Datum::Decimal(Bytes::from_static(b"-0.50"))),
            ("decimal(10,2) unsigned zerofill", b"00000012.50", Datum::Decimal(Bytes::from_static(b"12.50"))),
            ("decimal(5,0) unsigned zerofill", b"00000", Datum::Decimal(Bytes::from_static(b"0"))),
            ("date", b"1969-12-31", Datum::Date(-1)),
            ("date", b"2024-00-00", Datum::Odd(Bytes::from_static(b"2024-00-00"))),
            ("datetime(3)", b"1970-01-02 00:00:00.250", Datum::Timestamp(86_400_250_000)),
            ("datetime(6)", b"1970-01-01 00:00:01.000002", Datum::Timestamp(1_000_002)),
            ("datetime(6)", b"1970-01-01 00:00:00.+25", Datum::Odd(Bytes::from_static(b"1970-01-01 00:00:00.+25"))),
            ("timestamp", b"0000-00-00 00:00:00", Datum::Odd(Bytes::from_static(b"0000-00-00 00:00:00"))),
            ("time(6)", b"-838:59:59.000001", Datum::Time(-3_020_399_000_001)),
            ("uuid", b"123e4567-e89b-12d3-a456-426655440000", Datum::Uuid(0x123e4567_e89b_12d3_a456_426655440000_u128.to_be_bytes())),
            ("point", b"\0\0\0\0\x01wkb", Datum::Binary(Bytes::from_static(b"\x01wkb"))),
            ("inet6", b"2001:db8::ff00:42:8329", Datum::Text("2001:db8::ff00:42:8329".into())),
            ("year(4)", b"2024", Datum::Int(2024)),
        ];
        for (native, raw, want) in cases {
            let native = Native::parse(native);
            assert_eq!(&datum(&kind(&native, None), form(&native), &Bytes::from_static(raw)), want, "{native:?}");
        }
    }

    #[test]
    fn what_is_no_such_value_is_kept_as_it_came() {
        for native in ["int", "date", "datetime", "time", "uuid", "bit(1)", "point", "float", "json", "inet4"] {
            let (native, raw) = (Native::parse(native), Bytes::from_static(b"\xff1"));
            let got = datum(&kind(&native, None), form(&native), &raw);
            assert!(matches!(&got, Datum::Odd(b) if *b == raw) || native.base == "bit", "{native:?}: {got:?}");
        }
    }
}
