//! Binlogs that a real MariaDB wrote, decoded and held against what SELECT says.

use bytes::Bytes;
use mulgil_capture::datum::Datum;
use mulgil_capture::mysql::binlog::decoder::{Body, Decoder, Event, Limits};
use mulgil_capture::mysql::binlog::file::File;
use mulgil_capture::mysql::binlog::header::EventKind;
use mulgil_capture::mysql::binlog::rows::{Image, RowsOp};
use mulgil_capture::mysql::binlog::shape::{Known, Shape};
use mulgil_capture::mysql::binlog::table_map::TableMap;
use mulgil_capture::table::{Column, Kind};
use mulgil_servers::{MariaDb, Settings};
use std::collections::BTreeMap;
use std::fs;

/// The changes of one table, in order, with the columns they were read with.
#[derive(Default)]
pub struct Changes {
    pub columns: Vec<Column>,
    pub images: Vec<(RowsOp, Image)>,
}

/// What the files hold, by table, and how many events of each kind.
#[derive(Default)]
pub struct Read {
    pub tables: BTreeMap<String, Changes>,
    pub kinds: BTreeMap<&'static str, usize>,
    pub bodies: Vec<Event>,
}

impl Read {
    fn event(&mut self, decoder: &mut Decoder, event: Event, known: &impl Fn(&TableMap) -> Option<Vec<Known>>) {
        *self.kinds.entry(event.header.kind.name().unwrap()).or_default() += 1;
        let rows = match event.body {
            Body::Rows(rows) => rows,
            Body::Payload(mut payload) => {
                while let Some(inner) = payload.next(decoder).unwrap() {
                    self.event(decoder, inner, known);
                }
                return;
            }
            _ => {
                self.bodies.push(event);
                return;
            }
        };
        let Some(map) = &rows.table else { return };
        let shape = Shape::new(map, known(map).as_deref()).unwrap();
        let table = self.tables.entry(map.table.to_string()).or_default();
        table.columns = shape.columns().to_vec();
        table.images.extend(rows.images(&shape).map(|image| (rows.op, image.unwrap())));
    }
}

pub fn read(binlog: Vec<u8>, known: &impl Fn(&TableMap) -> Option<Vec<Known>>) -> Read {
    let (mut decoder, mut read) = (Decoder::new(Limits::default()), Read::default());
    for event in File::new(binlog.into()).unwrap() {
        let event = decoder.event(event.unwrap()).unwrap();
        read.event(&mut decoder, event, known);
    }
    read
}

/// A column's type, how it is asked for as the text that [`text`] makes, and values as SQL has them.
type Case = (&'static str, &'static str, &'static [&'static str]);

const PLAIN: &str = "v";
/// Of texts, in UTF-8.
const TEXT: &str = "HEX(CONVERT(v USING utf8mb4))";
const BINARY: &str = "HEX(v)";

const CASES: &[Case] = &[
    ("TINYINT", PLAIN, &["-128", "127", "0", "-1"]),
    ("TINYINT UNSIGNED", PLAIN, &["0", "255", "128"]),
    ("BOOL", PLAIN, &["TRUE", "FALSE"]),
    ("SMALLINT", PLAIN, &["-32768", "32767"]),
    ("SMALLINT UNSIGNED", PLAIN, &["65535", "32768"]),
    ("MEDIUMINT", PLAIN, &["-8388608", "8388607", "-1"]),
    ("MEDIUMINT UNSIGNED", PLAIN, &["16777215", "8388608"]),
    ("INT", PLAIN, &["-2147483648", "2147483647"]),
    ("INT UNSIGNED", PLAIN, &["4294967295", "2147483648"]),
    ("BIGINT", PLAIN, &["-9223372036854775808", "9223372036854775807"]),
    ("BIGINT UNSIGNED", PLAIN, &["18446744073709551615", "9223372036854775808"]),
    ("FLOAT", "v * 1e0", &["0", "-0.1", "3.4028234e38", "1.4e-45", "16777217"]),
    ("FLOAT UNSIGNED", "v * 1e0", &["1.5"]),
    ("DOUBLE", PLAIN, &["0", "-0.1", "1.7976931348623157e308", "2.2250738585072014e-308", "1e15", "123456789012345680", "1e-5"]),
    ("DECIMAL(10,2)", PLAIN, &["0", "-0.01", "99999999.99", "-99999999.99", "12.5", "1000000"]),
    ("DECIMAL(9,0)", PLAIN, &["0", "-1", "999999999", "-999999999"]),
    ("DECIMAL(5,5)", PLAIN, &["0", "-0.00001", "0.99999"]),
    ("DECIMAL(18,9) UNSIGNED", PLAIN, &["999999999.999999999", "0.000000001"]),
    (
        "DECIMAL(65,30)",
        PLAIN,
        &[
            "99999999999999999999999999999999999.999999999999999999999999999999",
            "-1e-30",
            "-12345678901234567890123456789012345.000000000000000000000000000001",
        ],
    ),
    ("DECIMAL(65,38)", PLAIN, &["-123456789012345678901234567.12345678901234567890123456789012345678"]),
    ("DECIMAL(1,0)", PLAIN, &["-9", "9", "0"]),
    ("BIT(1)", "v + 0", &["b'0'", "b'1'"]),
    ("BIT(12)", "v + 0", &["b'111111111111'", "b'100000000001'", "0"]),
    ("BIT(64)", "v + 0", &["18446744073709551615", "1"]),
    ("YEAR", PLAIN, &["1901", "2155", "0", "2024"]),
    ("DATE", PLAIN, &["'1000-01-01'", "'9999-12-31'", "'0000-00-00'", "'2024-00-00'", "'2024-02-29'", "'2023-02-31'", "'1969-12-31'"]),
    ("TIME", PLAIN, &["'-838:59:59'", "'838:59:59'", "'00:00:00'", "'-00:00:01'"]),
    ("TIME(1)", PLAIN, &["'-00:00:00.1'", "'23:59:59.9'"]),
    ("TIME(2)", PLAIN, &["'-00:00:00.01'", "'-00:00:01.99'", "'12:00:00.5'"]),
    ("TIME(3)", PLAIN, &["'-838:59:59.999'", "'00:00:00.001'"]),
    ("TIME(4)", PLAIN, &["'-00:00:00.0001'", "'01:02:03.0405'"]),
    ("TIME(6)", PLAIN, &["'-838:59:59.999999'", "'838:59:59.999999'", "'-00:00:00.000001'"]),
    ("DATETIME", PLAIN, &["'1000-01-01 00:00:00'", "'9999-12-31 23:59:59'", "'0000-00-00 00:00:00'", "'2024-00-15 01:02:03'"]),
    ("DATETIME(1)", PLAIN, &["'2024-02-29 12:34:56.7'", "'0000-00-00'"]),
    ("DATETIME(3)", PLAIN, &["'1969-12-31 23:59:59.999'"]),
    ("DATETIME(5)", PLAIN, &["'1969-12-31 23:59:59.99999'"]),
    ("DATETIME(6)", PLAIN, &["'9999-12-31 23:59:59.999999'", "'0000-00-00'"]),
    ("TIMESTAMP NULL", PLAIN, &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "'0000-00-00'"]),
    ("TIMESTAMP(2) NULL", PLAIN, &["'2024-05-06 07:08:09.12'", "'0000-00-00'"]),
    ("TIMESTAMP(6) NULL", PLAIN, &["'2038-01-19 03:14:07.999999'", "'1970-01-01 00:00:01.000001'"]),
    ("CHAR(10)", TEXT, &["''", "'a'", "'물길'", "'trail   '"]),
    ("CHAR(255)", TEXT, &["REPEAT('🌊',255)", "''"]),
    ("CHAR(100) CHARACTER SET latin1", TEXT, &["'caf\u{e9} €'", "'plain'"]),
    ("VARCHAR(20)", TEXT, &["''", "'trail   '", "'한글 🌊 é'"]),
    ("VARCHAR(300)", TEXT, &["REPEAT('é',300)", "'x'"]),
    ("VARCHAR(20) CHARACTER SET euckr", TEXT, &["'물길 ok'"]),
    ("VARCHAR(20) CHARACTER SET sjis", TEXT, &["'日本ｱ'"]),
    ("VARCHAR(20) CHARACTER SET ujis", TEXT, &["'日本ｱ'"]),
    ("VARCHAR(20) CHARACTER SET gbk", TEXT, &["'中文'"]),
    ("VARCHAR(20) CHARACTER SET big5", TEXT, &["'中文'"]),
    ("VARCHAR(20) CHARACTER SET utf16", TEXT, &["'물🌊'"]),
    ("VARCHAR(20) CHARACTER SET utf16le", TEXT, &["'물🌊'"]),
    ("VARCHAR(20) CHARACTER SET utf32", TEXT, &["'물🌊'"]),
    ("VARCHAR(20) CHARACTER SET ucs2", TEXT, &["'물'"]),
    ("VARCHAR(20) CHARACTER SET ascii", TEXT, &["'ok'"]),
    ("VARCHAR(20) CHARACTER SET koi8r", TEXT, &["'вода'"]),
    ("VARCHAR(20) CHARACTER SET utf8mb3 COLLATE utf8mb3_croatian_ci", TEXT, &["'é'"]),
    ("VARCHAR(20) COLLATE uca1400_swedish_ai_ci", TEXT, &["'물🌊'"]),
    ("VARCHAR(20) COLLATE utf8mb4_nopad_bin", TEXT, &["'물🌊'"]),
    ("BINARY(4)", BINARY, &["''", "x'00'", "x'01000000'", "x'0100'", "x'FFFFFFFF'"]),
    ("BINARY(255)", BINARY, &["''", "REPEAT(x'FF',255)"]),
    ("VARBINARY(10)", BINARY, &["''", "x'00'", "x'FF00'"]),
    ("VARBINARY(300)", BINARY, &["REPEAT(x'FE',300)"]),
    ("TINYTEXT", TEXT, &["'물'"]),
    ("TEXT", TEXT, &["REPEAT('물',1000)", "''"]),
    ("MEDIUMTEXT CHARACTER SET latin1", TEXT, &["'é'"]),
    ("LONGTEXT", TEXT, &["REPEAT('y',70000)"]),
    ("TINYBLOB", BINARY, &["x'00FF00'"]),
    ("BLOB", BINARY, &["x'00'", "''"]),
    ("MEDIUMBLOB", BINARY, &["REPEAT(x'00',70000)"]),
    ("LONGBLOB", BINARY, &["x'FF'"]),
    ("ENUM('BUY','SELL','it''s','물길','')", TEXT, &["'BUY'", "'it''s'", "'물길'", "''"]),
    ("ENUM('é','ü') CHARACTER SET latin1", TEXT, &["'é'", "'ü'", "'nothing'"]),
    ("SET('a','b','c','물')", TEXT, &["''", "'a'", "'a,c'", "'b,물'", "'a,b,c,물'"]),
    ("SET('x1','x2','x3','x4','x5','x6','x7','x8','x9')", TEXT, &["'x9'", "'x1,x9'"]),
    ("JSON", TEXT, &["'{\"a\": 1.50, \"b\": [true, null, \"물\"]}'", "'1'"]),
    ("GEOMETRY", "HEX(ST_AsWKB(v))", &["ST_GeomFromText('POINT(1 -2)', 4326)", "ST_GeomFromText('LINESTRING(0 0, 1 1.5)')"]),
    ("POINT", "HEX(ST_AsWKB(v))", &["POINT(3, 4)"]),
    ("POLYGON", "HEX(ST_AsWKB(v))", &["ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"]),
    ("TEXT COMPRESSED", TEXT, &["REPEAT('물',1000)", "''", "'short'"]),
    ("VARCHAR(2000) COMPRESSED", TEXT, &["REPEAT('é',2000)", "''", "'short'"]),
    ("BLOB COMPRESSED", BINARY, &["REPEAT(x'00',1000)", "x'01'"]),
];

/// Types that are told from the bytes they are kept in by the catalog alone.
const CATALOG_CASES: &[Case] = &[
    (
        "UUID",
        PLAIN,
        &[
            "'12345678-9abc-1def-8123-456789abcdef'",
            "'12345678-9abc-4def-8123-456789abcdef'",
            "'01890a5d-ac96-774b-bcce-b302099a8057'",
            "'00000000-0000-0000-0000-000000000000'",
        ],
    ),
    ("INET4", PLAIN, &["'192.168.0.0'", "'0.0.0.0'", "'255.255.255.255'"]),
    ("INET6", PLAIN, &["'::'", "'2001:db8::ff00:42:8329'", "'::ffff:192.0.2.128'"]),
];

fn sql_of(cases: &[Case], database: &str) -> String {
    let mut sql = format!("CREATE DATABASE {database}; USE {database}; SET time_zone = '+00:00'; SET NAMES utf8mb4;");
    sql += "SET sql_mode = 'ALLOW_INVALID_DATES';";
    for (i, (kind, _, values)) in cases.iter().enumerate() {
        sql += &format!("CREATE TABLE c{i} (id INT PRIMARY KEY, v {kind}) CHARACTER SET utf8mb4;\n");
        let rows = values.iter().enumerate().map(|(n, v)| format!("({n}, {v})")).collect::<Vec<_>>().join(", ");
        sql += &format!("INSERT INTO c{i} VALUES {rows}, (99, NULL);\n");
    }
    // All in one table: the map's metadata counts columns by their types.
    let columns = cases.iter().enumerate().map(|(i, (kind, ..))| format!(", v{i} {kind}")).collect::<String>();
    let values = cases.iter().map(|(_, _, values)| format!(", {}", values[0])).collect::<String>();
    sql += &format!(
        "CREATE TABLE wide (id INT PRIMARY KEY{columns}) ENGINE=MyISAM CHARACTER SET utf8mb4; INSERT INTO wide VALUES (0{values});"
    );
    sql
}

/// What SELECT says, by table.
fn selected(server: &MariaDb, cases: &[Case], database: &str) -> BTreeMap<String, Vec<String>> {
    let each = |(i, (_, expression, _)): (usize, &Case)| format!("SELECT 'c{i}', id, {expression} FROM {database}.c{i} ORDER BY id;");
    let sql = cases.iter().enumerate().map(each).collect::<Vec<_>>().concat();
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in server.sql(&format!("SET time_zone = '+00:00'; SET sql_mode = 'ALLOW_INVALID_DATES'; {sql}")).unwrap().lines() {
        let mut fields = line.splitn(3, '\t');
        let table = fields.next().unwrap().to_owned();
        tables.entry(table).or_default().push(format!("{} {}", fields.next().unwrap(), fields.next().unwrap()));
    }
    tables
}

/// A value as the expressions above give it.
pub fn text(datum: &Datum, column: &Column) -> String {
    let hex = |bytes: &Bytes| bytes.iter().map(|b| format!("{b:02X}")).collect();
    let digits = column.native.split(['(', ')']).nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    match datum {
        Datum::Null => "NULL".into(),
        Datum::Odd(t) | Datum::Decimal(t) => String::from_utf8(t.to_vec()).unwrap(),
        Datum::Bool(b) => u8::from(*b).to_string(),
        Datum::Int(n) if &*column.native == "year" || column.native.starts_with("year(") => format!("{n:04}"),
        Datum::Int(n) => n.to_string(),
        Datum::UInt(n) => n.to_string(),
        Datum::Float32(f) => double(f64::from(*f)),
        Datum::Float64(f) => double(*f),
        Datum::Text(t) if matches!(&*column.native, "inet4" | "inet6") => String::from_utf8(t.to_vec()).unwrap(),
        Datum::Text(t) | Datum::Json(t) | Datum::Binary(t) => hex(t),
        Datum::Date(days) => date(i64::from(*days)),
        Datum::Time(us) => format!("{}{}", if *us < 0 { "-" } else { "" }, clock(us.unsigned_abs(), digits)),
        Datum::Timestamp(us) | Datum::TimestampTz(us) => {
            format!("{} {}", date(us.div_euclid(86_400_000_000)), clock(us.rem_euclid(86_400_000_000) as u64, digits))
        }
        Datum::Uuid(u) => {
            let h: String = u.iter().map(|b| format!("{b:02x}")).collect();
            format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
        }
        other => panic!("{other:?}"),
    }
}

/// As numbers are compared: both sides' texts are parsed.
pub fn double(f: f64) -> String {
    format!("{f:e}")
}

fn clock(us: u64, digits: usize) -> String {
    let seconds = us / 1_000_000;
    let fraction = format!("{:06}", us % 1_000_000);
    let dot = if digits > 0 { "." } else { "" };
    format!("{:02}:{:02}:{:02}{dot}{}", seconds / 3600, seconds / 60 % 60, seconds % 60, &fraction[..digits])
}

/// Counted day by day from 1970, the slow and plain way.
fn date(mut days: i64) -> String {
    let is_leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let of_year = |y| if is_leap(y) { 366 } else { 365 };
    let mut year = 1970;
    while days < 0 {
        year -= 1;
        days += of_year(year);
    }
    while days >= of_year(year) {
        days -= of_year(year);
        year += 1;
    }
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year:04}-{:02}-{:02}", month + 1, days + 1)
}

fn check(read: &Read, selected: &BTreeMap<String, Vec<String>>, cases: &[Case], what: &str) {
    for (i, (kind, ..)) in cases.iter().enumerate() {
        let table = &read.tables[&format!("c{i}")];
        let column = &table.columns[1];
        let is_float = matches!(column.kind, Kind::Float32 | Kind::Float64);
        let want = selected[&format!("c{i}")].iter().map(|line| match line.split_once(' ') {
            Some((id, value)) if is_float && value != "NULL" => format!("{id} {}", double(value.parse().unwrap())),
            _ => line.clone(),
        });
        let have = table.images.iter().map(|(op, image)| {
            assert_eq!((*op, image.before.is_none()), (RowsOp::Insert, true));
            let row = image.after.as_ref().unwrap();
            format!("{} {}", text(&row[0], &table.columns[0]), text(&row[1], column))
        });
        let (have, want): (Vec<_>, Vec<_>) = (have.collect(), want.collect());
        assert_eq!(have, want, "{kind} with {what}");
        let wide = &read.tables["wide"];
        let of_wide = text(&wide.images[0].1.after.as_ref().unwrap()[i + 1], &wide.columns[i + 1]);
        assert_eq!(format!("0 {of_wide}"), want[0], "{kind} among others with {what}");
    }
}

/// The catalog's words, as the source asks for them.
fn catalog(server: &MariaDb, database: &str) -> BTreeMap<String, Vec<Known>> {
    let sql = format!(
        "SELECT table_name, column_name, column_type, COALESCE(character_set_name, ''), column_key FROM information_schema.columns \
         WHERE table_schema = '{database}' ORDER BY table_name, ordinal_position"
    );
    let mut tables: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    for line in server.sql(&sql).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let known = Known {
            name: fields[1].into(),
            native: fields[2].replace("\\\\", "\\").into(),
            charset: Some(fields[3]).filter(|c| !c.is_empty()).map(Into::into),
            is_key: fields[4] == "PRI",
        };
        tables.entry(fields[0].to_owned()).or_default().push(known);
    }
    tables
}

/// Runs the statements between two new binlog files, and gives the file that they are in.
fn written(server: &MariaDb, settings: &str, sql: &str) -> Vec<u8> {
    server.sql(&format!("{settings}; FLUSH BINARY LOGS")).unwrap();
    let status = server.sql(if server.is_mysql() { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }).unwrap();
    let name = status.split('\t').next().unwrap().to_owned();
    server.sql(sql).unwrap();
    fs::read(server.data().join(name)).unwrap()
}

#[test]
fn every_type_is_what_select_says() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    if server.is_mysql() {
        return; // MariaDB's settings and types; MySQL's binlogs are in mysql_binlog_golden.
    }
    let full = "SET GLOBAL log_bin_compress = OFF; SET GLOBAL binlog_row_metadata = FULL; SET GLOBAL binlog_checksum = CRC32";
    let ways = [
        ("names_in_the_map", full.to_owned(), false),
        ("no_metadata", "SET GLOBAL binlog_row_metadata = NO_LOG".to_owned(), true),
        ("minimal_metadata", "SET GLOBAL binlog_row_metadata = MINIMAL; SET GLOBAL binlog_checksum = NONE".to_owned(), true),
        ("compressed", format!("{full}; SET GLOBAL log_bin_compress = ON; SET GLOBAL log_bin_compress_min_len = 10"), true),
    ];
    for (database, settings, asks) in ways {
        let cases = if asks { [CASES, CATALOG_CASES].concat() } else { CASES.to_vec() };
        let binlog = written(&server, &settings, &sql_of(&cases, database));
        let catalog = if asks { catalog(&server, database) } else { BTreeMap::new() };
        let read = read(binlog, &|map| catalog.get(&*map.table).cloned());
        check(&read, &selected(&server, &cases, database), &cases, database);
        let n_compressed = read.kinds.keys().filter(|kind| kind.contains("_COMPRESSED")).count();
        assert_eq!(n_compressed > 0, database == "compressed", "{:?}", read.kinds);
    }
}

/// A row in a line: `1 / ? / NULL`, where the question mark stands for what the server did not send.
fn line(row: Option<&Vec<Datum>>, columns: &[Column]) -> String {
    let value = |(datum, column): (&Datum, &Column)| match datum {
        Datum::Unavailable => "?".to_owned(),
        Datum::Text(t) => String::from_utf8(t.to_vec()).unwrap(),
        other => text(other, column),
    };
    row.map_or("-".into(), |row| row.iter().zip(columns).map(value).collect::<Vec<_>>().join(" / "))
}

fn lines(table: &Changes) -> Vec<String> {
    let each = |(op, image): &(RowsOp, Image)| {
        format!("{op:?} {} -> {}", line(image.before.as_ref(), &table.columns), line(image.after.as_ref(), &table.columns))
    };
    table.images.iter().map(each).collect()
}

#[test]
fn columns_that_the_server_does_not_send_are_unavailable() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    if server.is_mysql() {
        return; // It gives texts no default.
    }
    let sql = |database: &str| {
        format!(
            "CREATE DATABASE {database}; USE {database};
             CREATE TABLE t (id INT PRIMARY KEY DEFAULT 7, a INT NULL, b TEXT DEFAULT 'x', c VARCHAR(9) NULL);
             INSERT INTO t VALUES ();
             INSERT INTO t VALUES (1, NULL, 'long', 'c1'), (2, 20, NULL, NULL);
             UPDATE t SET a = 11 WHERE id = 1;
             UPDATE t SET b = NULL, c = 'd' WHERE id = 2;
             UPDATE t SET id = 3 WHERE id = 2;
             DELETE FROM t WHERE id = 3;"
        )
    };
    let images = [
        (
            "FULL",
            [
                "Insert - -> 7 / NULL / x / NULL",
                "Insert - -> 1 / NULL / long / c1",
                "Insert - -> 2 / 20 / NULL / NULL",
                "Update 1 / NULL / long / c1 -> 1 / 11 / long / c1",
                "Update 2 / 20 / NULL / NULL -> 2 / 20 / NULL / d",
                "Update 2 / 20 / NULL / d -> 3 / 20 / NULL / d",
                "Delete 3 / 20 / NULL / d -> -",
            ],
        ),
        (
            "NOBLOB",
            [
                "Insert - -> 7 / NULL / x / NULL",
                "Insert - -> 1 / NULL / long / c1",
                "Insert - -> 2 / 20 / NULL / NULL",
                "Update 1 / NULL / ? / c1 -> 1 / 11 / ? / c1",
                "Update 2 / 20 / ? / NULL -> 2 / 20 / NULL / d",
                "Update 2 / 20 / ? / d -> 3 / 20 / ? / d",
                "Delete 3 / 20 / ? / d -> -",
            ],
        ),
        (
            "MINIMAL",
            [
                // Not even its key: only what its defaults had to compute is sent of an insert without values.
                "Insert - -> ? / ? / x / ?",
                "Insert - -> 1 / NULL / long / c1",
                "Insert - -> 2 / 20 / NULL / NULL",
                "Update 1 / ? / ? / ? -> ? / 11 / ? / ?",
                "Update 2 / ? / ? / ? -> ? / ? / NULL / d",
                "Update 2 / ? / ? / ? -> 3 / ? / ? / ?",
                "Delete 3 / ? / ? / ? -> -",
            ],
        ),
    ];
    for (image, want) in images {
        let settings = format!("SET GLOBAL binlog_row_image = {image}");
        let read = read(written(&server, &settings, &sql(image)), &|_| None);
        assert_eq!(lines(&read.tables["t"]), want, "{image}");
        assert!(read.tables["t"].columns[0].is_key && !read.tables["t"].columns[1].is_key);
    }
}

#[test]
fn what_surrounds_the_rows_is_read_too() {
    let server = MariaDb::start(&Settings::default()).unwrap();
    if server.is_mysql() {
        return; // MariaDB's settings and types; MySQL's binlogs are in mysql_binlog_golden.
    }
    let binlog = written(
        &server,
        "SET GLOBAL binlog_annotate_row_events = ON",
        "SET timestamp = 1700000000.25; CREATE DATABASE shop; USE shop;
         CREATE TABLE orders (id BIGINT UNSIGNED PRIMARY KEY, `가격` DECIMAL(12,4), e ENUM('a','b'), KEY (e)) ENGINE=InnoDB;
         BEGIN; INSERT INTO orders VALUES (1, 1.5, 'a'); SAVEPOINT s1; INSERT INTO orders VALUES (2, 2.5, 'b'); ROLLBACK TO s1;
         INSERT INTO orders VALUES (3, 3.5, NULL); COMMIT;
         ALTER TABLE orders ADD COLUMN note TEXT FIRST; INSERT INTO orders VALUES ('n', 4, 4, 'a');
         XA START 'x','y',7; INSERT INTO orders VALUES ('xa', 5, 5, 'b'); XA END 'x','y',7; XA PREPARE 'x','y',7; XA COMMIT 'x','y',7;
         FLUSH BINARY LOGS;",
    );
    let read = read(binlog, &|_| None);
    let bodies: Vec<&Body> = read.bodies.iter().map(|event| &event.body).collect();
    let statements: Vec<String> =
        bodies.iter().filter_map(|b| if let Body::Query(q) = b { Some(q.text().into_owned()) } else { None }).collect();
    assert!(statements.iter().any(|s| s.starts_with("ALTER TABLE orders ADD COLUMN")), "{statements:?}");
    assert!(statements.iter().any(|s| s.contains("`가격`")), "{statements:?}");
    assert!(statements.iter().any(|s| s.starts_with("XA COMMIT")), "{statements:?}");
    let annotated: Vec<&Body> = bodies.iter().copied().filter(|b| matches!(b, Body::Statement(_))).collect();
    assert!(matches!(annotated[0], Body::Statement(s) if s.starts_with(b"INSERT INTO orders VALUES (1")));
    let begins: Vec<_> = bodies.iter().filter_map(|b| if let Body::MariadbBegin(begin) = b { Some(begin) } else { None }).collect();
    assert_eq!(begins.iter().map(|b| b.gtid.number).collect::<Vec<_>>(), (1..=begins.len() as u64).collect::<Vec<_>>());
    assert!(begins[0].is_standalone && begins[0].is_ddl && !begins[2].is_standalone && begins[2].is_transactional);
    assert!(begins.iter().any(|b| b.is_prepared_xa && b.xa.as_ref().is_some_and(|xa| (xa.format, &xa.gtrid[..]) == (7, b"x"))));
    assert!(bodies.iter().any(|b| matches!(b, Body::Commit { .. })) && bodies.iter().any(|b| matches!(b, Body::XaPrepare(_))));
    assert!(matches!(bodies[0], Body::Format(f) if f.is_mariadb && f.server_version.starts_with("1")));
    assert!(matches!(bodies[1], Body::MariadbPosition(p) if p.is_empty()));
    assert!(matches!(bodies.last(), Some(Body::Rotate(r)) if r.at == 4 && r.file.starts_with("binlog.")));
    let ddl = read.bodies.iter().find(|event| matches!(event.body, Body::Query(_))).unwrap();
    assert_eq!((ddl.header.timestamp, ddl.header.kind), (1_700_000_000, EventKind::QUERY));
    let table = &read.tables["orders"];
    assert_eq!(table.columns.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["note", "id", "가격", "e"]);
    assert_eq!(table.columns[1].native.as_ref(), "bigint unsigned");
    let ids: Vec<String> = lines(table).iter().map(|l| l.split(" -> ").nth(1).unwrap().to_owned()).collect();
    // Rows before the ALTER have three columns, those behind it four; what was rolled back to the savepoint is not there.
    assert_eq!(table.images.iter().map(|(_, i)| i.after.as_ref().unwrap().len()).collect::<Vec<_>>(), [3, 3, 4, 4], "{ids:?}");
}
