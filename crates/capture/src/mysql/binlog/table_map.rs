//! `TABLE_MAP`: which table the row events behind it are of, and how its columns are written ("Table_map_event", rows_event.h).
//!
//! Table number 6 (4 if the post-header is 6 long), flags 2; database and table, each with its length 1 before and a zero behind; number of
//! columns; a type for each; their metadata; a bit for each, lowest first, that may be null; optional metadata (`binlog_row_metadata`).

use super::cursor::{Cursor, name};
use super::error::{BinlogError, Result};
use bytes::Bytes;
use std::sync::Arc;

/// MySQL's limit of columns; MariaDB's is lower.
pub const N_COLUMNS_MAX: usize = 4096;
/// Names and enum strings of 4,096 columns are far below it.
pub const TABLE_MAP_BYTES_MAX: usize = 16 << 20;

const WHAT: &str = "TABLE_MAP event";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    pub table_id: u64,
    pub database: Arc<str>,
    pub table: Arc<str>,
    pub columns: Vec<MapColumn>,
    /// The first type that is not known: how long its metadata is cannot be told, so that nothing is known of the columns, and only
    /// [`super::shape::Shape::new`] refuses it. A stream does not end for a table that nobody reads.
    pub unknown_type: Option<u8>,
    /// Positions of the primary key's columns. None: not said; with `binlog_row_metadata=FULL` it is empty where there is no key.
    pub primary_key: Option<Vec<usize>>,
}

/// A column; what is none was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapColumn {
    /// The real type: enums and sets, which are written as strings, are told apart.
    pub kind: ColumnKind,
    pub metadata: u16,
    pub is_nullable: bool,
    pub is_unsigned: Option<bool>,
    pub collation: Option<u16>,
    pub name: Option<Arc<str>>,
    /// Of an enum or set, in the column's charset.
    pub values: Option<Arc<[Bytes]>>,
    /// 0 is any, then point, linestring, polygon, their multiples, collection.
    pub geometry: Option<u64>,
    pub is_visible: Option<bool>,
}

/// Declares the numbers with their names, to be held against `enum_field_types` (field_types.h) and MariaDB's (mysql_com.h).
macro_rules! column_kinds {
    ($($name:ident = $number:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ColumnKind { $($name = $number,)* }

        impl ColumnKind {
            fn of(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

column_kinds! {
    Decimal = 0,
    Tiny = 1,
    Short = 2,
    Long = 3,
    Float = 4,
    Double = 5,
    Null = 6,
    Timestamp = 7,
    LongLong = 8,
    Int24 = 9,
    Date = 10,
    Time = 11,
    DateTime = 12,
    Year = 13,
    NewDate = 14,
    Varchar = 15,
    Bit = 16,
    Timestamp2 = 17,
    DateTime2 = 18,
    Time2 = 19,
    BlobCompressed = 140,
    VarcharCompressed = 141,
    Vector = 242,
    Json = 245,
    NewDecimal = 246,
    Enum = 247,
    Set = 248,
    TinyBlob = 249,
    MediumBlob = 250,
    LongBlob = 251,
    Blob = 252,
    VarString = 253,
    String = 254,
    Geometry = 255,
}

impl ColumnKind {
    /// That has a bit in the field of signs (`is_numeric_type`).
    fn has_sign(self) -> bool {
        use ColumnKind::*;
        matches!(self, Decimal | Tiny | Short | Int24 | Long | LongLong | NewDecimal | Float | Double | Year)
    }

    /// That has a collation in the field of charsets (`is_character_type`), `BINARY` and the blobs with that of bytes included; so do MySQL's
    /// vectors. MariaDB lists geometry too, which is a blob to it.
    fn has_charset(self, is_mariadb: bool) -> bool {
        use ColumnKind::*;
        matches!(self, Varchar | VarString | String | Blob | TinyBlob | MediumBlob | LongBlob | VarcharCompressed | BlobCompressed | Vector)
            || is_mariadb && self == Geometry
    }

    fn has_values(self) -> bool {
        matches!(self, Self::Enum | Self::Set)
    }

    /// Bytes of metadata (`save_field_metadata`).
    fn metadata_bytes(self) -> usize {
        use ColumnKind::*;
        match self {
            Float | Double | TinyBlob | MediumBlob | LongBlob | Blob | BlobCompressed | Geometry | Json | Vector | Timestamp2
            | DateTime2 | Time2 => 1,
            Varchar | VarcharCompressed | Bit | NewDecimal | String | VarString | Enum | Set => 2,
            _ => 0,
        }
    }
}

impl TableMap {
    /// `is_mariadb` where the server has said what it is: see [`ColumnKind::has_charset`].
    pub(crate) fn parse(body: Bytes, id_bytes: usize, is_mariadb: bool) -> Result<Self> {
        if body.len() > TABLE_MAP_BYTES_MAX {
            return Err(BinlogError::Limit { what: WHAT, limit: TABLE_MAP_BYTES_MAX as u64, name: "TABLE_MAP_BYTES_MAX" });
        }
        let mut cursor = Cursor::new(WHAT, body);
        let table_id = cursor.uint(id_bytes)?;
        cursor.skip(2)?;
        let database = short_name(&mut cursor)?;
        let table = short_name(&mut cursor)?;
        let n = cursor.length()?;
        if n > N_COLUMNS_MAX {
            return Err(BinlogError::Limit { what: "the number of a table's columns", limit: N_COLUMNS_MAX as u64, name: "N_COLUMNS_MAX" });
        }
        let kinds = cursor.take(n)?;
        if let Some(unknown) = kinds.iter().find(|kind| ColumnKind::of(**kind).is_none()) {
            return Ok(Self { table_id, database, table, columns: Vec::new(), unknown_type: Some(*unknown), primary_key: None });
        }
        let n_metadata = cursor.length()?;
        let mut metadata = cursor.part(WHAT, n_metadata)?;
        let mut columns = kinds.iter().map(|kind| column(*kind, &mut metadata)).collect::<Result<Vec<_>>>()?;
        metadata.finish()?;
        let nullable = cursor.slice(n.div_ceil(8))?;
        for (i, column) in columns.iter_mut().enumerate() {
            column.is_nullable = nullable[i / 8] >> (i % 8) & 1 == 1;
        }
        let mut map = Self { table_id, database, table, columns, unknown_type: None, primary_key: None };
        while !cursor.is_empty() {
            let field = cursor.u8()?;
            let value = Cursor::new("optional metadata of a TABLE_MAP event", cursor.lenenc_bytes()?);
            map.optional(field, value, is_mariadb)?;
        }
        Ok(map)
    }

    /// `Optional_metadata_field_type`. What is not known is left: it is optional.
    fn optional(&mut self, field: u8, mut value: Cursor, is_mariadb: bool) -> Result<()> {
        match field {
            1 => {
                let unsigned = value.rest();
                self.each(ColumnKind::has_sign, |n, column| column.is_unsigned = unsigned.get(n / 8).map(|b| b << (n % 8) & 0x80 != 0));
                Ok(())
            }
            2 => self.default_charset(|kind| kind.has_charset(is_mariadb), value),
            3 => self.charsets(|kind| kind.has_charset(is_mariadb), value),
            4 => {
                for column in &mut self.columns {
                    column.name = Some(name(&value.lenenc_bytes()?));
                }
                self.primary_key.get_or_insert_default();
                value.finish()
            }
            5 => self.values(ColumnKind::Set, value),
            6 => self.values(ColumnKind::Enum, value),
            7 => self.try_each(|kind| kind == ColumnKind::Geometry, |_, column| value.lenenc().map(|n| column.geometry = Some(n))),
            8 => self.key(value, false),
            9 => self.key(value, true),
            10 => self.default_charset(ColumnKind::has_values, value),
            11 => self.charsets(ColumnKind::has_values, value),
            12 => {
                let visible = value.rest();
                self.each(|_| true, |n, column| column.is_visible = visible.get(n / 8).map(|b| b << (n % 8) & 0x80 != 0));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Calls `set` with each column of a kind and its number among them.
    fn each(&mut self, of: impl Fn(ColumnKind) -> bool, mut set: impl FnMut(usize, &mut MapColumn)) {
        self.columns.iter_mut().filter(|c| of(c.kind)).enumerate().for_each(|(n, column)| set(n, column));
    }

    fn try_each(&mut self, of: impl Fn(ColumnKind) -> bool, mut set: impl FnMut(usize, &mut MapColumn) -> Result<()>) -> Result<()> {
        self.columns.iter_mut().filter(|c| of(c.kind)).enumerate().try_for_each(|(n, column)| set(n, column))
    }

    /// The collation of most, then pairs of a column's number among them and its collation.
    fn default_charset(&mut self, of: impl Fn(ColumnKind) -> bool + Copy, mut value: Cursor) -> Result<()> {
        let most = collation(&mut value)?;
        self.each(of, |_, column| column.collation = Some(most));
        let mut ours: Vec<_> = self.columns.iter_mut().filter(|c| of(c.kind)).collect();
        while !value.is_empty() {
            let n = usize::try_from(value.lenenc()?).unwrap_or(usize::MAX);
            let column = ours.get_mut(n).ok_or(BinlogError::malformed(WHAT, "a charset is of a column that is not there"))?;
            column.collation = Some(collation(&mut value)?);
        }
        Ok(())
    }

    fn charsets(&mut self, of: impl Fn(ColumnKind) -> bool, mut value: Cursor) -> Result<()> {
        self.try_each(of, |_, column| collation(&mut value).map(|id| column.collation = Some(id)))?;
        value.finish()
    }

    fn values(&mut self, kind: ColumnKind, mut value: Cursor) -> Result<()> {
        self.try_each(
            |k| k == kind,
            |_, column| {
                let n = value.length()?;
                column.values = Some((0..n).map(|_| value.lenenc_bytes()).collect::<Result<_>>()?);
                Ok(())
            },
        )?;
        value.finish()
    }

    fn key(&mut self, mut value: Cursor, has_prefixes: bool) -> Result<()> {
        let mut key = Vec::new();
        while !value.is_empty() {
            let n = usize::try_from(value.lenenc()?).unwrap_or(usize::MAX);
            if n >= self.columns.len() || key.len() >= self.columns.len() {
                return Err(BinlogError::malformed(WHAT, "its primary key has a column that is not there"));
            }
            key.push(n);
            if has_prefixes {
                value.lenenc()?;
            }
        }
        self.primary_key = Some(key);
        Ok(())
    }

    /// `shop.orders`
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }
}

fn collation(value: &mut Cursor) -> Result<u16> {
    u16::try_from(value.lenenc()?).map_err(|_| BinlogError::malformed(WHAT, "a collation's number is too large"))
}

fn short_name(cursor: &mut Cursor) -> Result<Arc<str>> {
    let n = usize::from(cursor.u8()?);
    let text = name(cursor.slice(n)?);
    match cursor.u8()? {
        0 => Ok(text),
        _ => Err(BinlogError::malformed(WHAT, "a name does not end where it says")),
    }
}

fn column(number: u8, metadata: &mut Cursor) -> Result<MapColumn> {
    let mut kind = ColumnKind::of(number).ok_or(BinlogError::malformed(WHAT, "a column's type is not known"))?;
    let n = kind.metadata_bytes();
    let bytes = metadata.slice(n)?;
    let mut value = match *bytes {
        [] => 0,
        [one] => u16::from(one),
        // Two things in two bytes: for these the first of them is the higher.
        [first, second, ..] => match kind {
            ColumnKind::Varchar | ColumnKind::VarcharCompressed => u16::from_le_bytes([first, second]),
            _ => u16::from_be_bytes([first, second]),
        },
    };
    if matches!(kind, ColumnKind::String | ColumnKind::VarString) {
        (kind, value) = real_string(value);
    }
    Ok(MapColumn {
        kind,
        metadata: value,
        is_nullable: false,
        is_unsigned: None,
        collation: None,
        name: None,
        values: None,
        geometry: None,
        is_visible: None,
    })
}

/// The real type is in the first byte and the length in the second; bits 8 and 9 of a length over 255 are, turned, in bits 4 and 5 of the first,
/// which every type that can be there has set (`Field_string::do_save_field_metadata`).
fn real_string(metadata: u16) -> (ColumnKind, u16) {
    let [first, length] = metadata.to_be_bytes();
    match ColumnKind::of(first | 0x30) {
        Some(kind @ (ColumnKind::Enum | ColumnKind::Set)) => (kind, u16::from(length)),
        _ => (ColumnKind::String, u16::from(length) | u16::from((first & 0x30) ^ 0x30) << 4),
    }
}
