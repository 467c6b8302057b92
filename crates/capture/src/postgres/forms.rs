//! Types: how the text of each is read, what its column holds, and what the database calls it.
//!
//! Object identifiers of built-in types never change (PostgreSQL source, `src/include/catalog/pg_type.dat`); those of others come from the
//! catalog.

use super::catalog::{TypeForm, Types};
use crate::table::{Digits, Kind};

/// An array of an array type or a domain of domains is looked through to this depth; deeper it is text.
const DEPTH_MAX: usize = 32;

/// How the text of a value is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    Bool,
    Int16,
    Int32,
    Int64,
    UInt64,
    Float32,
    Float64,
    Numeric(Option<Digits>),
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Array {
        item: Box<Form>,
        delimiter: u8,
    },
    /// Text of a type that has no form here.
    Unknown,
}

impl Form {
    /// Of a column of this type.
    pub fn of(oid: u32, typmod: i32, types: &Types) -> Self {
        Self::within(oid, typmod, types, 0)
    }

    fn within(oid: u32, typmod: i32, types: &Types, depth: usize) -> Self {
        if depth == DEPTH_MAX {
            return Self::Unknown;
        }
        let (oid, typmod) = types.base(oid, typmod);
        if let Some(known) = built_in(oid) {
            return known.form(typmod);
        }
        if let Some(item) = built_in_item(oid) {
            return Self::array(oid, item.form(typmod));
        }
        match types.get(oid).map(|t| &t.form) {
            Some(TypeForm::Enum(_) | TypeForm::Range) => Self::Text,
            Some(TypeForm::Array { element }) => Self::array(oid, Self::within(*element, typmod, types, depth + 1)),
            _ => Self::Unknown,
        }
    }

    fn array(oid: u32, item: Self) -> Self {
        Self::Array { item: Box::new(item), delimiter: if oid == BOX_ARRAY { b';' } else { b',' } }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Bool => Kind::Bool,
            Self::Int16 => Kind::Int16,
            Self::Int32 => Kind::Int32,
            Self::Int64 => Kind::Int64,
            Self::UInt64 => Kind::UInt64,
            Self::Float32 => Kind::Float32,
            Self::Float64 => Kind::Float64,
            Self::Numeric(digits) => Kind::Decimal(*digits),
            Self::Text => Kind::Text,
            Self::Bytea => Kind::Binary,
            Self::Date => Kind::Date,
            Self::Time => Kind::Time,
            Self::Timestamp => Kind::Timestamp,
            Self::TimestampTz => Kind::TimestampTz,
            Self::Uuid => Kind::Uuid,
            Self::Json => Kind::Json,
            Self::Array { item, .. } => Kind::Array(Box::new(item.kind())),
            Self::Unknown => Kind::Unknown,
        }
    }
}

/// True if nothing of the catalog is needed to read it.
pub fn is_built_in(oid: u32) -> bool {
    built_in(oid).is_some() || built_in_item(oid).is_some()
}

/// What the database calls a type, as `format_type` writes it with an empty `search_path`: `numeric(15,2)`, `public.box3d[]`. An enum is told
/// with its labels, as MySQL writes them, since its consumers need those: `enum('sad','happy')`.
pub fn native(oid: u32, typmod: i32, types: &Types) -> String {
    if let Some(known) = built_in(oid) {
        return known.native(typmod);
    }
    if let Some(item) = built_in_item(oid) {
        return format!("{}[]", item.native(typmod));
    }
    match types.get(oid) {
        None => format!("type {oid}"),
        Some(found) => match &found.form {
            TypeForm::Enum(labels) => {
                let labels: Vec<String> = labels.iter().map(|label| format!("'{}'", label.replace('\'', "''"))).collect();
                format!("enum({})", labels.join(","))
            }
            &TypeForm::Array { element } if element != oid && types.element(element).is_none() => {
                format!("{}[]", native(element, typmod, types))
            }
            _ => format!("{}.{}", quoted(&found.schema), quoted(&found.name)),
        },
    }
}

/// As `quote_ident` does, but for reserved words, of which a type's name is hardly ever one.
fn quoted(name: &str) -> String {
    let is_plain = |(i, c): (usize, char)| c.is_ascii_lowercase() || c == '_' || (i > 0 && c.is_ascii_digit());
    if name.char_indices().all(is_plain) && !name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A built-in type that is not an array.
#[derive(Debug, Clone, Copy)]
struct BuiltIn {
    oid: u32,
    array: u32,
    name: &'static str,
    form: Read,
    typmod: Typmod,
}

/// [`Form`] without what a column's typmod adds.
#[derive(Debug, Clone, Copy)]
enum Read {
    Bool,
    Int16,
    Int32,
    Int64,
    UInt64,
    Float32,
    Float64,
    Numeric,
    Text,
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
}

/// What a typmod says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Typmod {
    Nothing,
    Numeric,
    /// Characters, and four more for the header that such values once had.
    Length,
    /// Bits.
    Bits,
    /// Digits of a second, before ` with time zone` and its like.
    Seconds,
    Interval,
}

impl BuiltIn {
    fn form(&self, typmod: i32) -> Form {
        match self.form {
            Read::Bool => Form::Bool,
            Read::Int16 => Form::Int16,
            Read::Int32 => Form::Int32,
            Read::Int64 => Form::Int64,
            Read::UInt64 => Form::UInt64,
            Read::Float32 => Form::Float32,
            Read::Float64 => Form::Float64,
            Read::Numeric => Form::Numeric(digits(typmod)),
            Read::Text => Form::Text,
            Read::Bytea => Form::Bytea,
            Read::Date => Form::Date,
            Read::Time => Form::Time,
            Read::Timestamp => Form::Timestamp,
            Read::TimestampTz => Form::TimestampTz,
            Read::Uuid => Form::Uuid,
            Read::Json => Form::Json,
        }
    }

    fn native(&self, typmod: i32) -> String {
        let name = self.name;
        match self.typmod {
            // `character` alone is one character; a bpchar without a length is the type behind it.
            Typmod::Length if self.oid == BPCHAR && typmod < 4 => "bpchar".to_owned(),
            Typmod::Bits if self.oid == BIT && typmod < 0 => "\"bit\"".to_owned(),
            _ if typmod < 0 => name.to_owned(),
            Typmod::Nothing => name.to_owned(),
            Typmod::Numeric => match digits(typmod) {
                Some(d) => format!("{name}({},{})", d.precision, d.scale),
                None => name.to_owned(),
            },
            Typmod::Length => format!("{name}({})", typmod - 4),
            Typmod::Bits => format!("{name}({typmod})"),
            Typmod::Seconds => match name.split_once(' ') {
                Some((first, rest)) => format!("{first}({typmod}) {rest}"),
                None => format!("{name}({typmod})"),
            },
            Typmod::Interval => interval(typmod),
        }
    }
}

/// `numeric_typmod`: precision in the upper half, scale in the lower 11 bits with a sign since version 15, four more.
fn digits(typmod: i32) -> Option<Digits> {
    if typmod < 4 {
        return None;
    }
    let packed = typmod - 4;
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    Some(Digits { precision: (packed >> 16) as u16, scale: scale as i16 })
}

/// `intervaltypmodout`: which fields in the upper half, digits of the second in the lower.
fn interval(typmod: i32) -> String {
    const FULL_RANGE: i32 = 0x7fff;
    const ANY_PRECISION: i32 = 0xffff;
    let (range, precision) = ((typmod >> 16) & 0x7fff, typmod & 0xffff);
    // Bits as in `src/include/utils/datetime.h`: MONTH 1, YEAR 2, DAY 3, HOUR 10, MINUTE 11, SECOND 12.
    let fields = match range {
        FULL_RANGE => "",
        0b100 => " year",
        0b10 => " month",
        0b1000 => " day",
        0x400 => " hour",
        0x800 => " minute",
        0x1000 => " second",
        0b110 => " year to month",
        0x408 => " day to hour",
        0xc08 => " day to minute",
        0x1c08 => " day to second",
        0xc00 => " hour to minute",
        0x1c00 => " hour to second",
        0x1800 => " minute to second",
        _ => "",
    };
    if precision == ANY_PRECISION { format!("interval{fields}") } else { format!("interval{fields}({precision})") }
}

const BPCHAR: u32 = 1042;
const BIT: u32 = 1560;
const BOX_ARRAY: u32 = 1020;

fn built_in(oid: u32) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|t| t.oid == oid)
}

fn built_in_item(array: u32) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|t| t.array == array)
}

const fn t(oid: u32, array: u32, name: &'static str, form: Read, typmod: Typmod) -> BuiltIn {
    BuiltIn { oid, array, name, form, typmod }
}

const fn text(oid: u32, array: u32, name: &'static str) -> BuiltIn {
    t(oid, array, name, Read::Text, Typmod::Nothing)
}

/// All types that a column can have in a database without extensions. What stands as text has no closer form in [`Kind`]: a time with a zone
/// of its own, an interval of months and days, money (whose decimals only the server's locale tells), ranges, networks, geometry.
const BUILT_IN: [BuiltIn; 79] = [
    t(16, 1000, "boolean", Read::Bool, Typmod::Nothing),
    t(17, 1001, "bytea", Read::Bytea, Typmod::Nothing),
    text(18, 1002, "\"char\""),
    text(19, 1003, "name"),
    t(20, 1016, "bigint", Read::Int64, Typmod::Nothing),
    t(21, 1005, "smallint", Read::Int16, Typmod::Nothing),
    // Written as `1 2 3`, not as an array.
    text(22, 1006, "int2vector"),
    t(23, 1007, "integer", Read::Int32, Typmod::Nothing),
    text(24, 1008, "regproc"),
    text(25, 1009, "text"),
    t(26, 1028, "oid", Read::Int64, Typmod::Nothing),
    text(27, 1010, "tid"),
    t(28, 1011, "xid", Read::Int64, Typmod::Nothing),
    t(29, 1012, "cid", Read::Int64, Typmod::Nothing),
    text(30, 1013, "oidvector"),
    t(114, 199, "json", Read::Json, Typmod::Nothing),
    text(142, 143, "xml"),
    text(600, 1017, "point"),
    text(601, 1018, "lseg"),
    text(602, 1019, "path"),
    text(603, BOX_ARRAY, "box"),
    text(604, 1027, "polygon"),
    text(628, 629, "line"),
    text(650, 651, "cidr"),
    t(700, 1021, "real", Read::Float32, Typmod::Nothing),
    t(701, 1022, "double precision", Read::Float64, Typmod::Nothing),
    text(718, 719, "circle"),
    text(774, 775, "macaddr8"),
    text(790, 791, "money"),
    text(829, 1040, "macaddr"),
    text(869, 1041, "inet"),
    text(1033, 1034, "aclitem"),
    t(BPCHAR, 1014, "character", Read::Text, Typmod::Length),
    t(1043, 1015, "character varying", Read::Text, Typmod::Length),
    t(1082, 1182, "date", Read::Date, Typmod::Nothing),
    t(1083, 1183, "time without time zone", Read::Time, Typmod::Seconds),
    t(1114, 1115, "timestamp without time zone", Read::Timestamp, Typmod::Seconds),
    t(1184, 1185, "timestamp with time zone", Read::TimestampTz, Typmod::Seconds),
    t(1186, 1187, "interval", Read::Text, Typmod::Interval),
    t(1266, 1270, "time with time zone", Read::Text, Typmod::Seconds),
    t(BIT, 1561, "bit", Read::Text, Typmod::Bits),
    t(1562, 1563, "bit varying", Read::Text, Typmod::Bits),
    t(1700, 1231, "numeric", Read::Numeric, Typmod::Numeric),
    text(1790, 2201, "refcursor"),
    text(2202, 2207, "regprocedure"),
    text(2203, 2208, "regoper"),
    text(2204, 2209, "regoperator"),
    text(2205, 2210, "regclass"),
    text(2206, 2211, "regtype"),
    text(2970, 2949, "txid_snapshot"),
    t(2950, 2951, "uuid", Read::Uuid, Typmod::Nothing),
    text(3220, 3221, "pg_lsn"),
    text(3614, 3643, "tsvector"),
    text(3615, 3645, "tsquery"),
    text(3642, 3644, "gtsvector"),
    text(3734, 3735, "regconfig"),
    text(3769, 3770, "regdictionary"),
    t(3802, 3807, "jsonb", Read::Json, Typmod::Nothing),
    text(3904, 3905, "int4range"),
    text(3906, 3907, "numrange"),
    text(3908, 3909, "tsrange"),
    text(3910, 3911, "tstzrange"),
    text(3912, 3913, "daterange"),
    text(3926, 3927, "int8range"),
    text(4072, 4073, "jsonpath"),
    text(4089, 4090, "regnamespace"),
    text(4096, 4097, "regrole"),
    text(4191, 4192, "regcollation"),
    text(4451, 6150, "int4multirange"),
    text(4532, 6151, "nummultirange"),
    text(4533, 6152, "tsmultirange"),
    text(4534, 6153, "tstzmultirange"),
    text(4535, 6155, "datemultirange"),
    text(4536, 6157, "int8multirange"),
    text(5038, 5039, "pg_snapshot"),
    t(5069, 271, "xid8", Read::UInt64, Typmod::Nothing),
    text(2275, 1263, "cstring"),
    text(194, 0, "pg_node_tree"),
    text(2249, 2287, "record"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::Type;

    #[test]
    fn a_typmod_says_precision_and_scale() {
        let of = |typmod| Form::of(1700, typmod, &Types::default());
        assert_eq!(of(-1), Form::Numeric(None));
        assert_eq!(of(983_046), Form::Numeric(Some(Digits { precision: 15, scale: 2 })));
        // numeric(5,-2): 5 << 16 | 2046, and 4.
        assert_eq!(of((5 << 16 | 0x7fe) + 4), Form::Numeric(Some(Digits { precision: 5, scale: -2 })));
    }

    #[test]
    fn no_type_stands_twice() {
        let mut oids: Vec<u32> = BUILT_IN.iter().flat_map(|t| [t.oid, t.array]).filter(|o| *o != 0).collect();
        let n = oids.len();
        oids.sort_unstable();
        oids.dedup();
        assert_eq!(oids.len(), n);
    }

    fn types() -> Types {
        let of = |oid, name: &str, form| (oid, Type { oid, schema: "public".into(), name: name.into(), form });
        Types(
            [
                of(90_001, "mood", TypeForm::Enum(vec!["ok".into(), "it's".into()])),
                of(90_002, "_mood", TypeForm::Array { element: 90_001 }),
                of(90_003, "price", TypeForm::Domain { base: 1700, typmod: 983_046 }),
                of(90_004, "_price", TypeForm::Array { element: 90_003 }),
                of(90_005, "pair", TypeForm::Composite),
                of(90_006, "Odd Name", TypeForm::Base),
                of(90_007, "_loop", TypeForm::Array { element: 90_007 }),
                of(90_008, "prices", TypeForm::Domain { base: 1231, typmod: -1 }),
            ]
            .into(),
        )
    }

    #[test]
    fn types_of_the_user_are_found_through_the_catalog() {
        let types = types();
        let kind = |oid| Form::of(oid, -1, &types).kind();
        let price = Kind::Decimal(Some(Digits { precision: 15, scale: 2 }));
        assert_eq!(kind(90_001), Kind::Text);
        assert_eq!(kind(90_002), Kind::Array(Box::new(Kind::Text)));
        assert_eq!(kind(90_003), price);
        assert_eq!(kind(90_004), Kind::Array(Box::new(price)));
        assert_eq!(kind(90_005), Kind::Unknown);
        assert_eq!(kind(90_008), Kind::Array(Box::new(Kind::Decimal(None))));
        kind(90_007);
        assert_eq!(kind(99_999), Kind::Unknown);
    }

    #[test]
    fn names_are_those_of_format_type() {
        let types = types();
        let cases = [
            (1700, 983_046, "numeric(15,2)"),
            (1231, 983_046, "numeric(15,2)[]"),
            (1114, 3, "timestamp(3) without time zone"),
            (1043, 24, "character varying(20)"),
            (1186, (0x1c08 << 16) | 3, "interval day to second(3)"),
            (1186, (0x7fff << 16) | 3, "interval(3)"),
            (90_001, -1, "enum('ok','it''s')"),
            (90_002, -1, "enum('ok','it''s')[]"),
            (90_004, -1, "public.price[]"),
            (90_006, -1, "public.\"Odd Name\""),
            (99_999, -1, "type 99999"),
        ];
        for (oid, typmod, expected) in cases {
            assert_eq!(native(oid, typmod, &types), expected);
        }
    }
}
