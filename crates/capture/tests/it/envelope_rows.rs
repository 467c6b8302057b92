//! The tables and changes of `testdata/debezium/*.sql`, as the sources give them.

use bytes::Bytes;
use mulgil_capture::change::{Change, Op, Origin, Place, Row, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::table::{Column, Digits, Kind, Table, TableId};
use mulgil_model::position::Position;
use std::sync::Arc;

pub fn text(value: &str) -> Datum {
    Datum::Text(Bytes::copy_from_slice(value.as_bytes()))
}

pub fn decimal(value: &str) -> Datum {
    Datum::Decimal(Bytes::copy_from_slice(value.as_bytes()))
}

pub fn binary(value: &[u8]) -> Datum {
    Datum::Binary(Bytes::copy_from_slice(value))
}

fn json(value: &str) -> Datum {
    Datum::Json(Bytes::copy_from_slice(value.as_bytes()))
}

fn digits(precision: u16, scale: i16) -> Kind {
    Kind::Decimal(Some(Digits { precision, scale }))
}

fn array(kind: Kind) -> Kind {
    Kind::Array(Box::new(kind))
}

pub struct TableOf {
    pub table: Arc<Table>,
    origin: Arc<Origin>,
}

/// Name, kind, native type; `!` behind the name: not null, `*`: of the key.
type Declared<'a> = (&'a str, Kind, &'a str);

impl TableOf {
    pub fn new(schema: &str, name: &str, columns: &[Declared<'_>]) -> Self {
        let is_postgres = schema == "public";
        let column = |(name, kind, native): &Declared<'_>| Column {
            name: name.trim_end_matches(['!', '*']).into(),
            kind: kind.clone(),
            is_nullable: !name.ends_with(['!', '*']),
            is_key: name.ends_with('*'),
            native: (*native).into(),
        };
        let id = TableId {
            database: if is_postgres { "market".into() } else { schema.into() },
            schema: if is_postgres { "public".into() } else { "".into() },
            table: name.into(),
        };
        let place = if is_postgres {
            Place::Postgres { database: "market".into(), commit_lsn: 27_297_960, txid: Some(740) }
        } else {
            Place::Mysql { server_id: 184, file: "mariadb-bin.000001".into(), at: 4_078, gtid: Some("0-184-11".into()), thread: None }
        };
        let origin = Origin { committed_us: 1_795_322_738_260_962, snapshot: Snapshot::No, place };
        let table = Table { id, version: 1, columns: columns.iter().map(column).collect() };
        Self { table: Arc::new(table), origin: Arc::new(origin) }
    }

    pub fn odd_values() -> Self {
        Self::new(
            "public",
            "odd_values",
            &[
                ("id*", Kind::Int32, "integer"),
                ("n", Kind::Decimal(None), "numeric"),
                ("n5_2", digits(5, 2), "numeric(5,2)"),
                ("f4", Kind::Float32, "real"),
                ("f8", Kind::Float64, "double precision"),
                ("d", Kind::Date, "date"),
                ("ts", Kind::Timestamp, "timestamp without time zone"),
                ("tstz", Kind::TimestampTz, "timestamp with time zone"),
                ("ts3", Kind::Timestamp, "timestamp(3) without time zone"),
                ("iv", Kind::Text, "interval"),
            ],
        )
    }

    /// The named values; the first column is `id`, `i4` is 7 as its default says, all else is null.
    pub fn row(&self, id: i64, values: Vec<(&str, Datum)>) -> Row {
        let mut row = vec![Datum::Null; self.table.columns.len()];
        row[0] = if self.table.columns[0].kind == Kind::UInt64 { Datum::UInt(id as u64) } else { Datum::Int(id) };
        if let Some(i4) = self.table.position("i4") {
            row[i4] = Datum::Int(7);
        }
        for (name, value) in values {
            row[self.table.position(name).unwrap()] = value;
        }
        row
    }

    pub fn create(&self, id: i64, values: Vec<(&str, Datum)>) -> Change {
        self.change(Op::Create, None, Some(self.row(id, values)))
    }

    pub fn change(&self, op: Op, before: Option<Row>, after: Option<Row>) -> Change {
        let what = What::Row { table: Arc::clone(&self.table), before, after };
        Change { op, what, position: Position::new(27_297_960, 0), origin: Arc::clone(&self.origin) }
    }

    fn truncate(&self) -> Change {
        let what = What::Truncate { table: Arc::clone(&self.table), cascade: true, restart_identity: true };
        Change { op: Op::Truncate, what, position: Position::new(27_297_960, 0), origin: Arc::clone(&self.origin) }
    }

    fn read(&self, row: Row) -> Change {
        let origin = Origin { snapshot: Snapshot::Initial, ..(*self.origin).clone() };
        Change { origin: Arc::new(origin), ..self.change(Op::Read, None, Some(row)) }
    }

    fn message(&self, content: &[u8], txid: Option<u32>) -> Change {
        let place = Place::Postgres { database: "market".into(), commit_lsn: 27_297_960, txid };
        let origin = Arc::new(Origin { place, ..(*self.origin).clone() });
        let what = What::Message { prefix: "mulgil".into(), content: Bytes::copy_from_slice(content), is_transactional: txid.is_some() };
        Change { op: Op::Message, what, position: Position::new(27_297_960, 0), origin }
    }
}

/// Gives each transaction an id of its own, and its changes their places.
fn number(transactions: Vec<Vec<Change>>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (n, transaction) in transactions.into_iter().enumerate() {
        let commit = 27_297_960 + 100 * n as u64;
        for (ordinal, mut change) in transaction.into_iter().enumerate() {
            let mut origin = (*change.origin).clone();
            match &mut origin.place {
                Place::Postgres { commit_lsn, txid, .. } => (*commit_lsn, *txid) = (commit, txid.map(|t| t + n as u32)),
                Place::Mysql { gtid, .. } => *gtid = Some(format!("0-184-{n}").into()),
            }
            (change.origin, change.position) = (Arc::new(origin), Position::new(commit, ordinal as u64));
            changes.push(change);
        }
    }
    changes
}

pub fn postgres_every_type() -> TableOf {
    TableOf::new("public", "every_type", &[plain_columns(), other_columns()].concat())
}

fn plain_columns() -> Vec<Declared<'static>> {
    vec![
        ("id*", Kind::Int64, "bigint"),
        ("b", Kind::Bool, "boolean"),
        ("i2", Kind::Int16, "smallint"),
        ("i4!", Kind::Int32, "integer"),
        ("i8", Kind::Int64, "bigint"),
        ("f4", Kind::Float32, "real"),
        ("f8", Kind::Float64, "double precision"),
        ("n", Kind::Decimal(None), "numeric"),
        ("n15_2", digits(15, 2), "numeric(15,2)"),
        ("n38_10", digits(38, 10), "numeric(38,10)"),
        ("n5_0", digits(5, 0), "numeric(5,0)"),
        ("n3_m2", digits(3, -2), "numeric(3,-2)"),
        ("m", Kind::Decimal(None), "money"),
        ("t", Kind::Text, "text"),
        ("v", Kind::Text, "character varying(20)"),
        ("c", Kind::Text, "character(5)"),
        ("ci", Kind::Text, "public.citext"),
        ("nm", Kind::Text, "name"),
        ("by", Kind::Binary, "bytea"),
        ("d", Kind::Date, "date"),
        ("t0", Kind::Time, "time(0) without time zone"),
        ("t3", Kind::Time, "time(3) without time zone"),
        ("t6", Kind::Time, "time without time zone"),
        ("tz6", Kind::Text, "time with time zone"),
        ("ts0", Kind::Timestamp, "timestamp(0) without time zone"),
        ("ts3", Kind::Timestamp, "timestamp(3) without time zone"),
        ("ts6", Kind::Timestamp, "timestamp without time zone"),
        ("tstz", Kind::TimestampTz, "timestamp with time zone"),
        ("tstz3", Kind::TimestampTz, "timestamp(3) with time zone"),
        ("iv", Kind::Text, "interval"),
        ("u", Kind::Uuid, "uuid"),
        ("j", Kind::Json, "json"),
        ("jb", Kind::Json, "jsonb"),
        ("x", Kind::Text, "xml"),
    ]
}

fn other_columns() -> Vec<Declared<'static>> {
    const MOOD: &str = "enum('sad','ok','happy')";
    vec![
        ("mo", Kind::Text, MOOD),
        ("po", Kind::Int32, "integer"),
        ("pr", digits(12, 4), "numeric(12,4)"),
        ("bit1", Kind::Text, "bit(1)"),
        ("bit5", Kind::Text, "bit(5)"),
        ("vb", Kind::Text, "bit varying(12)"),
        ("vbu", Kind::Text, "bit varying"),
        ("ip", Kind::Text, "inet"),
        ("ci4", Kind::Text, "cidr"),
        ("ma", Kind::Text, "macaddr"),
        ("oi", Kind::Int64, "oid"),
        ("r4", Kind::Text, "int4range"),
        ("rn", Kind::Text, "numrange"),
        ("rt", Kind::Text, "tstzrange"),
        ("rd", Kind::Text, "daterange"),
        ("pt", Kind::Text, "point"),
        ("hs", Kind::Unknown, "public.hstore"),
        ("lt", Kind::Unknown, "public.ltree"),
        ("ts", Kind::Unknown, "tsvector"),
        ("ai", array(Kind::Int32), "integer[]"),
        ("ai8", array(Kind::Int64), "bigint[]"),
        ("at", array(Kind::Text), "text[]"),
        ("an", array(digits(10, 2)), "numeric(10,2)[]"),
        ("au", array(Kind::Uuid), "uuid[]"),
        ("ats", array(Kind::Timestamp), "timestamp without time zone[]"),
        ("atz", array(Kind::TimestampTz), "timestamp with time zone[]"),
        ("ad", array(Kind::Date), "date[]"),
        ("ab", array(Kind::Bool), "boolean[]"),
        ("aj", array(Kind::Json), "jsonb[]"),
        ("am", array(Kind::Text), MOOD),
        ("abt", array(Kind::Binary), "bytea[]"),
        ("big", Kind::Text, "text"),
        ("ln", Kind::Unknown, "line"),
        ("bx", Kind::Unknown, "box"),
        ("ma8", Kind::Text, "macaddr8"),
        ("vvv", Kind::Text, "\"char\""),
        ("atm", array(Kind::Time), "time without time zone[]"),
        ("af", array(Kind::Float32), "real[]"),
        ("anv", array(Kind::Decimal(None)), "numeric[]"),
    ]
}

const UUID: [u8; 16] = *b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef";
const CLOCK_US: i64 = 45_296_789_012;
const LOCAL_US: i64 = 1_795_350_896_789_012;
const ZONED_US: i64 = LOCAL_US - 9 * 3_600_000_000;

fn numbers_of_row_2() -> Vec<(&'static str, Datum)> {
    vec![
        ("b", Datum::Bool(true)),
        ("i2", Datum::Int(-32_768)),
        ("i4", Datum::Int(2_147_483_647)),
        ("i8", Datum::Int(i64::MIN)),
        ("f4", Datum::Float32(1.5)),
        ("f8", Datum::Float64(0.1)),
        ("n", decimal("12345.678900")),
        ("n15_2", decimal("-1234567890123.45")),
        ("n38_10", decimal("1234567890123456789012345678.0123456789")),
        ("n5_0", decimal("99999")),
        ("n3_m2", decimal("12300")),
        ("m", decimal("1234.56")),
        ("oi", Datum::Int(4_294_967_295)),
        ("po", Datum::Int(42)),
        ("pr", decimal("12.3456")),
    ]
}

fn times_of_row_2() -> Vec<(&'static str, Datum)> {
    vec![
        ("d", Datum::Date(20_779)),
        ("t0", Datum::Time(45_296_000_000)),
        ("t3", Datum::Time(45_296_789_000)),
        ("t6", Datum::Time(CLOCK_US)),
        ("tz6", text("12:34:56.789012+09")),
        ("ts0", Datum::Timestamp(1_795_350_896_000_000)),
        ("ts3", Datum::Timestamp(1_795_350_896_789_000)),
        ("ts6", Datum::Timestamp(LOCAL_US)),
        ("tstz", Datum::TimestampTz(ZONED_US)),
        ("tstz3", Datum::TimestampTz(1_795_350_896_789_000 - 9 * 3_600_000_000)),
        ("iv", text("1 year 2 mons 3 days 04:05:06.789012")),
    ]
}

fn texts_of_row_2() -> Vec<(&'static str, Datum)> {
    let texts = [
        ("t", "text \"quoted\" \\ \n\t물\u{1}€"),
        ("v", "varchar"),
        ("c", "ch   "),
        ("ci", "CiText"),
        ("nm", "name"),
        ("x", "<a>b</a>"),
        ("mo", "happy"),
        ("bit1", "1"),
        ("bit5", "10110"),
        ("vb", "101"),
        ("vbu", "1111000011110"),
        ("ip", "192.168.0.1/24"),
        ("ci4", "10.0.0.0/8"),
        ("ma", "08:00:2b:01:02:03"),
        ("r4", "[1,10)"),
        ("rn", "(1.5,2.5]"),
        ("rt", "[\"2026-01-01 00:00:00+00\",\"2026-12-31 00:00:00+00\")"),
        ("rd", "[2026-01-01,2026-02-01)"),
        ("pt", "(1.5,-2)"),
        ("hs", "\"a\"=>\"1\", \"b\"=>NULL"),
        ("lt", "a.b.c"),
        ("ts", "'&' 'fat' 'rat'"),
        ("ln", "{1,2,3}"),
        ("bx", "(1,1),(0,0)"),
        ("ma8", "08:00:2b:01:02:03:04:05"),
        ("vvv", "x"),
    ];
    let mut values: Vec<_> = texts.into_iter().map(|(name, value)| (name, text(value))).collect();
    values.extend([("u", Datum::Uuid(UUID)), ("by", binary(b"\x00\x01\xfe\xff"))]);
    values.extend([("j", json(r#"{"a": [1, 2.50, null]}"#)), ("jb", json(r#"{"b": {"c": "d"}, "n": 1.10}"#))]);
    values
}

fn arrays_of_row_2() -> Vec<(&'static str, Datum)> {
    let of = |items: Vec<Datum>| Datum::Array(items);
    vec![
        ("ai", of(vec![Datum::Int(1), Datum::Null, Datum::Int(3)])),
        ("ai8", of(vec![Datum::Int(i64::MAX)])),
        ("at", of(vec![text("a"), text("b c"), Datum::Null, text("q\"uote")])),
        ("an", of(vec![decimal("1.10"), decimal("2.25")])),
        ("au", of(vec![Datum::Uuid(UUID)])),
        ("ats", of(vec![Datum::Timestamp(LOCAL_US)])),
        ("atz", of(vec![Datum::TimestampTz(1_795_318_496_000_000)])),
        ("ad", of(vec![Datum::Date(20_779)])),
        ("ab", of(vec![Datum::Bool(true), Datum::Bool(false)])),
        ("aj", of(vec![json(r#"{"a": 1}"#)])),
        ("am", of(vec![text("sad"), text("happy")])),
        ("abt", of(vec![binary(b"\x00\xff")])),
        ("atm", of(vec![Datum::Time(45_296_500_000)])),
        ("af", of(vec![Datum::Float32(1.5), Datum::Float32(2.25)])),
        ("anv", of(vec![decimal("1.5"), decimal("22.125")])),
    ]
}

/// What `md5` gives for 1 to 400, as it stands in Debezium's own output.
fn big() -> Datum {
    let path = crate::own("../../testdata/debezium/postgres.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let row = golden["records"].as_array().unwrap().iter().find(|r| r["value"]["op"] == "c").unwrap();
    text(row["value"]["after"]["big"].as_str().unwrap())
}

pub fn postgres_changes() -> Vec<Change> {
    let every = postgres_every_type();
    let two = TableOf::new(
        "public",
        "two_keys",
        &[("k1*", Kind::Text, "text"), ("k2*", Kind::Int32, "integer"), ("v!", digits(8, 3), "numeric(8,3)")],
    );
    let none = TableOf::new("public", "no_key", &[("a", Kind::Int32, "integer"), ("b", Kind::Text, "text")]);
    let named = TableOf::new("public", "Odd Näme", &[("Colümn-1*", Kind::Int32, "integer"), ("2nd", Kind::Text, "text")]);
    let full: Vec<_> = [numbers_of_row_2(), times_of_row_2(), texts_of_row_2(), arrays_of_row_2(), vec![("big", big())]].concat();
    let after = |id, big: Datum| {
        let mut row = every.row(id, full.clone());
        row[every.table.position("i4").unwrap()] = Datum::Int(8);
        row[every.table.position("big").unwrap()] = big;
        row
    };
    let key_only = |id| {
        let mut row = vec![Datum::Unavailable; every.table.columns.len()];
        row[0] = Datum::Int(id);
        row
    };
    let pair = |k1: &str, k2, v: &str| vec![text(k1), Datum::Int(k2), decimal(v)];
    let (x, y) = (vec![Datum::Int(1), text("x")], vec![Datum::Int(1), text("y")]);
    let insert = |table: &TableOf, row: Row| table.change(Op::Create, None, Some(row));
    number(vec![
        vec![every.read(every.row(1, vec![])), two.read(pair("snap", 1, "1.500")), two.read(pair("snap", 2, "-0.125"))],
        vec![insert(&every, every.row(2, full.clone()))],
        vec![every.change(Op::Update, None, Some(after(2, Datum::Unavailable)))],
        vec![every.change(Op::Update, Some(key_only(2)), Some(after(3, Datum::Unavailable)))],
        vec![every.change(Op::Delete, Some(key_only(3)), None)],
        vec![every.create(4, extremes_of_row_4())],
        vec![every.create(5, extremes_of_row_5())],
        vec![insert(&none, x.clone()), insert(&none, vec![Datum::Null, Datum::Null])],
        vec![none.change(Op::Update, Some(x), Some(y.clone()))],
        vec![none.change(Op::Delete, Some(y), None)],
        vec![insert(&two, pair("a", 3, "1.000")), insert(&named, vec![Datum::Int(1), text("one")]), insert(&two, pair("b", 3, "2.000"))],
        vec![two.message(b"in a transaction", Some(740))],
        vec![two.message(b"\x00\x01\xff", None)],
        vec![two.truncate(), none.truncate()],
    ])
}

fn extremes_of_row_4() -> Vec<(&'static str, Datum)> {
    vec![
        ("f4", Datum::Float32(1e-10)),
        ("f8", Datum::Float64(1e300)),
        ("n15_2", decimal("0.00")),
        ("d", Datum::Date(-719_162)),
        ("ts6", Datum::Timestamp(-62_135_596_800_000_000)),
        ("tstz", Datum::TimestampTz(-62_135_596_800_000_000)),
        ("t6", Datum::Time(86_400_000_000)),
    ]
}

fn extremes_of_row_5() -> Vec<(&'static str, Datum)> {
    vec![
        ("f4", Datum::Float32(f32::MAX)),
        ("f8", Datum::Float64(0.0)),
        ("n15_2", decimal("-0.01")),
        ("d", Datum::Date(-1)),
        ("ts6", Datum::Timestamp(-1)),
        ("tstz", Datum::TimestampTz(-1)),
        ("t6", Datum::Time(0)),
        ("ts3", Datum::Timestamp(253_402_300_799_999_000)),
        ("tstz3", Datum::TimestampTz(1_795_305_600_000_000)),
    ]
}

pub fn mysql_every_type() -> TableOf {
    TableOf::new(
        "shop",
        "every_type",
        &[
            ("id*", Kind::UInt64, "bigint(20) unsigned"),
            ("bo", Kind::Int16, "tinyint(1)"),
            ("t1", Kind::Int16, "tinyint(4)"),
            ("t1u", Kind::Int16, "tinyint(3) unsigned"),
            ("t11", Kind::Int16, "tinyint(1)"),
            ("i2", Kind::Int16, "smallint(6)"),
            ("i2u", Kind::Int32, "smallint(5) unsigned"),
            ("i3", Kind::Int32, "mediumint(9)"),
            ("i3u", Kind::Int32, "mediumint(8) unsigned"),
            ("i4!", Kind::Int32, "int(11)"),
            ("i4u", Kind::Int64, "int(10) unsigned"),
            ("i8", Kind::Int64, "bigint(20)"),
            ("i8u", Kind::UInt64, "bigint(20) unsigned"),
            ("f", Kind::Float32, "float"),
            ("dbl", Kind::Float64, "double"),
            ("d10_2", digits(10, 2), "decimal(10,2)"),
            ("d65_30", digits(65, 30), "decimal(65,30)"),
            ("d5", digits(5, 0), "decimal(5,0)"),
            ("du", digits(10, 2), "decimal(10,2) unsigned"),
            ("b1", Kind::UInt64, "bit(1)"),
            ("b5", Kind::UInt64, "bit(5)"),
            ("b64", Kind::Binary, "bit(64)"),
            ("c", Kind::Text, "char(5)"),
            ("v", Kind::Text, "varchar(20)"),
            ("v1", Kind::Text, "varchar(20)"),
            ("tx", Kind::Text, "text"),
            ("mt", Kind::Text, "mediumtext"),
            ("bi", Kind::Binary, "binary(4)"),
            ("vb", Kind::Binary, "varbinary(10)"),
            ("bl", Kind::Binary, "blob"),
            ("lb", Kind::Binary, "longblob"),
            ("dt", Kind::Date, "date"),
            ("t", Kind::Time, "time"),
            ("t3", Kind::Time, "time(3)"),
            ("t6", Kind::Time, "time(6)"),
            ("dt0", Kind::Timestamp, "datetime"),
            ("dt3", Kind::Timestamp, "datetime(3)"),
            ("dt6", Kind::Timestamp, "datetime(6)"),
            ("ts", Kind::TimestampTz, "timestamp"),
            ("ts3", Kind::TimestampTz, "timestamp(3)"),
            ("ts6", Kind::TimestampTz, "timestamp(6)"),
            ("y", Kind::Int16, "year(4)"),
            ("e", Kind::Text, "enum('BUY','SELL','it''s, \"odd\"')"),
            ("s", Kind::Text, "set('a','b','c')"),
            ("j", Kind::Text, "longtext"),
            ("g", Kind::Binary, "geometry"),
            ("po", Kind::Binary, "point"),
            ("u", Kind::Uuid, "uuid"),
        ],
    )
}

fn mysql_row_2(beyond_a_day: bool) -> Vec<(&'static str, Datum)> {
    let geometry = |srid: u32, wkb: &[u8]| binary(&[&srid.to_le_bytes()[..], wkb].concat());
    let line: Vec<u8> = [&[1, 2, 0, 0, 0, 2, 0, 0, 0][..], &[0; 16], &1f64.to_le_bytes(), &1f64.to_le_bytes()].concat();
    let point: Vec<u8> = [&[1, 1, 0, 0, 0][..], &1.5f64.to_le_bytes(), &(-2f64).to_le_bytes()].concat();
    let ints =
        [("bo", 1), ("t1", -128), ("t1u", 255), ("t11", 1), ("i2", -32_768), ("i2u", 65_535), ("i3", -8_388_608), ("i3u", 16_777_215)];
    let mut row: Vec<_> = ints.into_iter().map(|(name, n)| (name, Datum::Int(n))).collect();
    let wide = [("i4", 2_147_483_647), ("i4u", 4_294_967_295), ("i8", i64::MIN), ("y", 2026)];
    row.extend(wide.into_iter().map(|(name, n)| (name, Datum::Int(n))));
    row.extend([("i8u", Datum::UInt(u64::MAX)), ("f", Datum::Float32(1.5)), ("dbl", Datum::Float64(0.1))]);
    row.extend([("d10_2", decimal("-12345678.90")), ("d5", decimal("99999")), ("du", decimal("1.10"))]);
    row.push(("d65_30", decimal("12345678901234567890123456789012345.678901234567890123456789012345")));
    row.extend([("b1", Datum::UInt(1)), ("b5", Datum::UInt(0b10110)), ("b64", binary(&[0x80, 0, 0, 0, 0, 0, 0, 1]))]);
    let texts = [("c", "ch"), ("v", "text \"q\" 물€"), ("v1", "café"), ("tx", "a\nb"), ("mt", "mt"), ("e", "it's, \"odd\""), ("s", "a,c")];
    row.extend(texts.into_iter().map(|(name, value)| (name, text(value))));
    row.push(("j", text(r#"{"a": [1, 2.50, null]}"#)));
    row.extend([("bi", binary(&[0, 1, 0, 0])), ("vb", binary(&[0, 255])), ("bl", binary(&[0, 1, 254])), ("lb", binary(&[]))]);
    row.extend([("dt", Datum::Date(20_779)), ("t", Datum::Time(45_296_000_000)), ("t6", Datum::Time(CLOCK_US))]);
    row.extend(beyond_a_day.then_some(("t3", Datum::Time(-3_020_399_000_000))));
    let local = [("dt0", 1_795_350_896_000_000), ("dt3", 1_795_350_896_789_000), ("dt6", LOCAL_US)];
    row.extend(local.into_iter().map(|(name, us)| (name, Datum::Timestamp(us))));
    let zoned = [("ts", 1_795_318_496_000_000), ("ts3", 1_795_318_496_789_000), ("ts6", ZONED_US)];
    row.extend(zoned.into_iter().map(|(name, us)| (name, Datum::TimestampTz(us))));
    row.extend([("g", geometry(4_326, &line)), ("po", geometry(0, &point)), ("u", Datum::Uuid(UUID))]);
    row
}

/// Without times beyond a day, for the modes that have no form for them.
pub fn mysql_changes(beyond_a_day: bool) -> Vec<Change> {
    let every = mysql_every_type();
    let two = TableOf::new(
        "shop",
        "two_keys",
        &[("k1*", Kind::Text, "varchar(10)"), ("k2*", Kind::Int32, "int(11)"), ("v!", digits(8, 3), "decimal(8,3)")],
    );
    let none = TableOf::new("shop", "no_key", &[("a", Kind::Int32, "int(11)"), ("b", Kind::Text, "varchar(10)")]);
    let row =
        |id, i4: Option<i64>| every.row(id, [mysql_row_2(beyond_a_day), i4.map(|n| ("i4", Datum::Int(n))).into_iter().collect()].concat());
    let zero = |text: &'static str| Datum::Odd(Bytes::from_static(text.as_bytes()));
    let mut row_4 = vec![
        ("dt", Datum::Date(-354_285)),
        ("dt0", Datum::Timestamp(-30_610_224_000_000_000)),
        ("dt6", Datum::Timestamp(253_402_300_799_999_999)),
        ("ts", Datum::TimestampTz(1_000_000)),
        ("y", Datum::Int(1901)),
    ];
    row_4.extend(beyond_a_day.then(|| [("t", Datum::Time(3_020_399_000_000)), ("t6", Datum::Time(-1))]).into_iter().flatten());
    let zeros = vec![
        ("dt", zero("0000-00-00")),
        ("dt0", zero("0000-00-00 00:00:00")),
        ("ts", zero("0000-00-00 00:00:00")),
        ("y", Datum::Int(0)),
        ("e", text("")),
        ("s", text("")),
    ];
    let pair = |k1: &str, k2, v: &str| vec![text(k1), Datum::Int(k2), decimal(v)];
    let (x, y) = (vec![Datum::Int(1), text("x")], vec![Datum::Int(1), text("y")]);
    let insert = |table: &TableOf, row: Row| table.change(Op::Create, None, Some(row));
    number(vec![
        vec![every.read(every.row(1, vec![])), two.read(pair("snap", 1, "1.500")), two.read(pair("snap", 2, "-0.125"))],
        vec![insert(&every, row(2, None))],
        vec![every.change(Op::Update, Some(row(2, None)), Some(row(2, Some(8))))],
        vec![every.change(Op::Update, Some(row(2, Some(8))), Some(row(3, Some(8))))],
        vec![every.change(Op::Delete, Some(row(3, Some(8))), None)],
        vec![every.create(4, row_4)],
        vec![every.create(5, zeros)],
        vec![insert(&none, x.clone()), insert(&none, vec![Datum::Null, Datum::Null])],
        vec![none.change(Op::Update, Some(x), Some(y.clone()))],
        vec![none.change(Op::Delete, Some(y), None)],
        vec![
            insert(&two, pair("a", 3, "1.000")),
            insert(&none, vec![Datum::Int(9), text("in")]),
            insert(&two, pair("b", 3, "2.000")),
            insert(&two, pair("c", 3, "2.000")),
        ],
        vec![none.truncate()],
    ])
}
