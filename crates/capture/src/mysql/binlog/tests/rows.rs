use super::build::{Put, format, json, json_length, rows, table_map};
use crate::change::Row;
use crate::datum::Datum;
use crate::mysql::binlog::decoder::{Body, Decoder, Limits};
use crate::mysql::binlog::error::{BinlogError, Result};
use crate::mysql::binlog::header::EventKind;
use crate::mysql::binlog::rows::Image;
use crate::mysql::binlog::shape::{Gap, Known, Shape};
use crate::table::{Digits, Kind};
use bytes::Bytes;
use serde_json::json;

type Optional = Vec<(u8, Vec<u8>)>;

fn shape(columns: &[(u8, &[u8])], optional: &Optional, known: Option<&[Known]>) -> Result<Shape> {
    let Body::TableMap(map) = Decoder::new(Limits::default()).event(table_map(5, columns, optional))?.body else { panic!() };
    Shape::new(&map, known)
}

fn images(columns: &[(u8, &[u8])], optional: &Optional, known: Option<&[Known]>, event: Bytes) -> Result<(Vec<Image>, u64)> {
    let mut decoder = Decoder::new(Limits::default());
    decoder.event(table_map(5, columns, optional))?;
    let Body::Rows(rows) = decoder.event(event)?.body else { panic!() };
    let shape = shape(columns, optional, known)?;
    let mut images = rows.images(&shape);
    let all = images.by_ref().collect::<Result<_>>()?;
    Ok((all, images.n_unresolved()))
}

/// One value of one column.
fn value(column: (u8, &[u8]), optional: Optional, known: Option<(&str, Option<&str>)>, raw: &[u8]) -> (Kind, Datum) {
    let known =
        known.map(|(native, charset)| [Known { name: "v".into(), native: native.into(), charset: charset.map(Into::into), is_key: false }]);
    let known = known.as_ref().map(|k| &k[..]);
    let event = rows(EventKind::WRITE_ROWS, 5, 1, &[1], &[&[0], raw].concat());
    let (mut all, _) = images(&[column], &optional, known, event).unwrap();
    let kind = shape(&[column], &optional, known).unwrap().columns()[0].kind.clone();
    (kind, all.remove(0).after.unwrap().remove(0))
}

fn text(text: &'static str) -> Datum {
    Datum::Text(Bytes::from_static(text.as_bytes()))
}

fn odd(text: &'static str) -> Datum {
    Datum::Odd(Bytes::from_static(text.as_bytes()))
}

fn binary(bytes: &'static [u8]) -> Datum {
    Datum::Binary(Bytes::from_static(bytes))
}

const UNSIGNED: (u8, &[u8]) = (1, &[0x80]);
const SIGNED: (u8, &[u8]) = (1, &[0]);

fn field(field: (u8, &[u8])) -> Optional {
    vec![(field.0, field.1.to_vec())]
}

#[test]
fn numbers() {
    type Case = (u8, &'static [u8], Optional, Vec<u8>, Kind, Datum);
    let cases: Vec<Case> = vec![
        (1, &[], field(SIGNED), vec![0x80], Kind::Int16, Datum::Int(-128)),
        (1, &[], field(UNSIGNED), vec![0xff], Kind::Int16, Datum::Int(255)),
        (2, &[], field(UNSIGNED), vec![0xff, 0xff], Kind::Int32, Datum::Int(65_535)),
        (9, &[], field(SIGNED), vec![0, 0, 0x80], Kind::Int32, Datum::Int(-8_388_608)),
        (9, &[], field(UNSIGNED), vec![0, 0, 0x80], Kind::Int32, Datum::Int(8_388_608)),
        (3, &[], field(SIGNED), vec![0xff; 4], Kind::Int32, Datum::Int(-1)),
        (3, &[], field(UNSIGNED), vec![0xff; 4], Kind::Int64, Datum::Int(4_294_967_295)),
        (8, &[], field(SIGNED), vec![0xff; 8], Kind::Int64, Datum::Int(-1)),
        (8, &[], field(UNSIGNED), vec![0xff; 8], Kind::UInt64, Datum::UInt(u64::MAX)),
        // Nobody has said whether it is signed.
        (1, &[], vec![], vec![0x7f], Kind::Int16, Datum::Int(127)),
        (1, &[], vec![], vec![0xff], Kind::Int16, odd("0xFF")),
        (8, &[], vec![], (1u64 << 63).to_le_bytes().to_vec(), Kind::Int64, odd("0x8000000000000000")),
        (4, &[4], vec![], 1.5f32.to_le_bytes().to_vec(), Kind::Float32, Datum::Float32(1.5)),
        (5, &[8], vec![], (-0.1f64).to_le_bytes().to_vec(), Kind::Float64, Datum::Float64(-0.1)),
        (246, &[4, 2], vec![], vec![0x80 + 12, 50], Kind::Decimal(Some(Digits { precision: 4, scale: 2 })), Datum::Decimal("12.50".into())),
        (16, &[1, 0], vec![], vec![1], Kind::Bool, Datum::Bool(true)),
        (16, &[2, 1], vec![], vec![2, 1], Kind::UInt64, Datum::UInt(513)),
        (16, &[0, 8], vec![], vec![0xff; 8], Kind::UInt64, Datum::UInt(u64::MAX)),
        (13, &[], vec![], vec![124], Kind::Int32, Datum::Int(2024)),
        (13, &[], vec![], vec![0], Kind::Int32, Datum::Int(0)),
    ];
    for (kind, metadata, optional, raw, want_kind, want) in cases {
        assert_eq!(value((kind, metadata), optional, None, &raw), (want_kind, want), "{kind} {raw:?}");
    }
}

#[test]
fn dates_and_times_of_old_and_new_servers() {
    let cases: Vec<(u8, &[u8], Vec<u8>, Datum)> = vec![
        (10, &[], ((1970 << 9 | 1 << 5 | 2) as u32).to_le_bytes()[..3].to_vec(), Datum::Date(1)),
        (14, &[], vec![0, 0, 0], odd("0000-00-00")),
        (11, &[], (-10_203i32).to_le_bytes()[..3].to_vec(), Datum::Time(-3_723_000_000)),
        (12, &[], 19_700_101_000_001u64.to_le_bytes().to_vec(), Datum::Timestamp(1_000_000)),
        (7, &[], vec![1, 0, 0, 0], Datum::TimestampTz(1_000_000)),
        (7, &[], vec![0, 0, 0, 0], odd("0000-00-00 00:00:00")),
        (17, &[0], vec![0, 0, 0, 1], Datum::TimestampTz(1_000_000)),
        (17, &[3], vec![0, 0, 0, 1, 0x03, 0xe8], Datum::TimestampTz(1_100_000)),
        (17, &[6], vec![0, 0, 0, 0, 0, 0, 0], odd("0000-00-00 00:00:00.000000")),
        (18, &[0], vec![0x80, 0, 0, 0, 0], odd("0000-00-00 00:00:00")),
        (19, &[0], vec![0x7f, 0xff, 0xff], Datum::Time(-1_000_000)),
        (19, &[2], vec![0x7f, 0xff, 0xff, 0xff], Datum::Time(-10_000)),
    ];
    for (kind, metadata, raw, want) in cases {
        assert_eq!(value((kind, metadata), vec![], None, &raw).1, want, "{kind} {raw:?}");
    }
}

#[test]
fn texts_and_bytes() {
    let collation = |id: u8| vec![(3u8, vec![id])];
    type Case = (u8, &'static [u8], Optional, &'static [u8], Datum);
    let cases: Vec<Case> = vec![
        (15, &[20, 0], collation(45), "\u{6}물길".as_bytes(), text("물길")),
        (15, &[20, 0], collation(8), b"\x04caf\xe9", text("café")),
        (15, &[20, 0], collation(63), b"\x02\x00\xff", binary(b"\x00\xff")),
        // A text that is none in its charset is kept, as the literal that it would be.
        (15, &[20, 0], collation(45), b"\x02a\xff", odd("0x61FF")),
        (15, &[20, 0], vec![], b"\x02a\xff", binary(b"a\xff")),
        (15, &[0, 4], collation(45), b"\x01\x00x", text("x")),
        (253, &[253, 10], collation(45), b"\x01x", text("x")),
        (254, &[254, 4], collation(63), b"\x01\x07", binary(&[7, 0, 0, 0])),
        (254, &[254, 4], collation(45), b"\x01x", text("x")),
        // CHAR(255) of four bytes each: 1020, of which bits 8 and 9 are turned in the first byte.
        (254, &[0xce, 0xfc], collation(45), b"\x02\x00xy", text("xy")),
        (252, &[1], collation(63), b"\x01x", binary(b"x")),
        (252, &[4], collation(45), b"\x01\0\0\0x", text("x")),
        (242, &[4], vec![], b"\x04\0\0\0\0\0\x80\x3f", binary(b"\0\0\x80\x3f")),
        (255, &[4], vec![], b"\x09\0\0\0\xe6\x10\0\0WKB..", binary(b"WKB..")),
    ];
    for (kind, metadata, optional, raw, want) in cases {
        assert_eq!(value((kind, metadata), optional, None, raw).1, want, "{kind} {raw:?}");
    }
}

#[test]
fn enums_and_sets() {
    let strings =
        |field: u8, strings: &[&[u8]]| (field, strings.iter().fold(Put::default().lenenc(strings.len()), |put, s| put.counted(s)).0);
    let utf8 = (11, vec![45u8]);
    let latin1 = (11, vec![8u8]);
    let buy = vec![strings(6, &[b"BUY", b"SELL"]), utf8.clone()];
    let abc = vec![strings(5, &[b"a", b"b", b"\xc3\xa9"]), utf8];
    type Known = (&'static str, Option<&'static str>);
    type Case = (&'static [u8], Optional, Option<Known>, &'static [u8], Datum);
    let cases: Vec<Case> = vec![
        (&[247, 1], buy.clone(), None, &[2], text("SELL")),
        (&[247, 1], buy.clone(), None, &[0], text("")),
        (&[247, 1], buy, None, &[3], odd("3")),
        (&[247, 1], vec![strings(6, &[b"\xe9"]), latin1], None, &[1], text("é")),
        (&[247, 2], vec![], Some(("enum('x','it''s')", Some("latin1"))), &[2, 0], text("it's")),
        (&[247, 1], vec![], None, &[2], odd("2")),
        (&[248, 1], abc.clone(), None, &[0b101], text("a,é")),
        (&[248, 1], abc.clone(), None, &[0b010], text("b")),
        (&[248, 1], abc.clone(), None, &[0], text("")),
        (&[248, 1], abc, None, &[0b1000], odd("8")),
        (&[248, 8], vec![], Some(("set('x')", None)), &[1, 0, 0, 0, 0, 0, 0, 0], text("x")),
    ];
    for (metadata, optional, known, raw, want) in cases {
        assert_eq!(value((254, metadata), optional, known, raw), (Kind::Text, want), "{metadata:?} {raw:?}");
    }
}

#[test]
fn a_shape_is_told_by_the_map_alone_where_that_says_everything() {
    let names = ["id", "price", "name", "raw", "side", "at"].iter().fold(Put::default(), |put, n| put.counted(n.as_bytes())).0;
    let optional = vec![
        (1, vec![0b1000_0000]),
        // The default is utf8mb4; the second of the columns with a charset is bytes.
        (2, vec![45, 1, 63]),
        (4, names),
        (6, Put::default().lenenc(2).counted(b"BUY").counted(b"SELL").0),
        (9, vec![0, 0, 2, 10]),
        (10, vec![45]),
        (12, vec![0b1110_1100]),
        (99, vec![1, 2, 3]),
    ];
    let columns: [(u8, &[u8]); 6] = [(8, &[]), (246, &[12, 4]), (15, &[80, 0]), (252, &[2]), (254, &[247, 1]), (18, &[6])];
    let shape = shape(&columns, &optional, None).unwrap();
    let told: Vec<String> = shape.columns().iter().map(|c| format!("{} {} {:?} {}", c.name, c.native, c.kind, c.is_key)).collect();
    assert_eq!(
        told,
        [
            "id bigint unsigned UInt64 true",
            "price decimal(12,4) Decimal(Some(Digits { precision: 12, scale: 4 })) false",
            "name varchar(20) Text true",
            "raw blob Binary false",
            "side enum('BUY','SELL') Text false",
            "at datetime(6) Timestamp false",
        ]
    );
    assert_eq!(shape.gaps(), []);
}

#[test]
fn mariadb_lists_a_charset_of_geometry_and_mysql_of_vectors() {
    let columns: [(u8, &[u8]); 4] = [(255, &[4]), (252, &[2]), (252, &[2]), (242, &[4])];
    let cases = [
        ("10.11.19-MariaDB-log", (3, vec![63, 45, 8, 63])),
        ("10.11.19-MariaDB-log", (2, vec![45, 0, 63, 2, 8, 3, 63])),
        ("9.7.4", (3, vec![45, 8, 63])),
        ("9.7.4", (2, vec![45, 1, 8, 2, 63])),
    ];
    for (version, charsets) in cases {
        let mut decoder = Decoder::new(Limits::default());
        decoder.event(format(version, 0)).unwrap();
        let Body::TableMap(map) = decoder.event(table_map(5, &columns, &[charsets])).unwrap().body else { panic!() };
        assert_eq!((map.columns[1].collation, map.columns[2].collation), (Some(45), Some(8)), "{version}");
    }
}

#[test]
fn a_table_with_a_type_that_is_not_known_stops_only_who_reads_it() {
    let mut decoder = Decoder::new(Limits::default());
    let Body::TableMap(map) = decoder.event(table_map(5, &[(3, &[]), (200, &[1, 2, 3])], &[])).unwrap().body else { panic!() };
    assert!(matches!(Shape::new(&map, None), Err(BinlogError::UnknownType { number: 200, .. })));
    let insert = decoder.event(rows(EventKind::WRITE_ROWS, 5, 2, &[3], &[0, 1, 0, 0, 0, 9])).unwrap();
    assert!(matches!(insert.body, Body::Rows(rows) if rows.ends_statement && rows.table.is_some()));
}

#[test]
fn what_nobody_says_is_a_gap() {
    let columns: [(u8, &[u8]); 3] = [(3, &[]), (15, &[80, 0]), (254, &[247, 1])];
    let shape = shape(&columns, &vec![], None).unwrap();
    assert_eq!(shape.gaps(), [(0, Gap::Sign), (0, Gap::Name), (1, Gap::Charset), (1, Gap::Name), (2, Gap::Values), (2, Gap::Name)]);
    assert_eq!(shape.columns().iter().map(|c| &*c.name).collect::<Vec<_>>(), ["@1", "@2", "@3"]);
}

#[test]
fn a_catalog_of_another_version_is_refused() {
    let known =
        |native: &str, name: &str| Known { name: name.into(), native: native.into(), charset: Some("utf8mb4".into()), is_key: false };
    let named = vec![(4u8, Put::default().counted(b"v").0)];
    type Case<'a> = ((u8, &'static [u8]), &'a Optional, &'static str, bool);
    let cases: [Case; 9] = [
        ((3, &[]), &vec![], "int(11) unsigned", true),
        ((3, &[]), &vec![], "bigint(20)", false),
        ((246, &[10, 2]), &vec![], "decimal(10,2)", true),
        ((246, &[10, 2]), &vec![], "decimal(12,2)", false),
        ((18, &[3]), &vec![], "datetime(6)", false),
        ((15, &[80, 0]), &vec![], "int", false),
        ((252, &[4]), &vec![], "json", true),
        ((3, &[]), &named, "int", true),
        ((254, &[254, 16]), &vec![], "uuid", true),
    ];
    for (column, optional, native, fits) in cases {
        assert_eq!(shape(&[column], optional, Some(&[known(native, "v")])).is_ok(), fits, "{native}");
    }
    let renamed = shape(&[(3, &[])], &named, Some(&[known("int", "w")]));
    assert!(matches!(renamed, Err(BinlogError::Shape { column: 1, .. })));
    let more = shape(&[(3, &[])], &vec![], Some(&[known("int", "v"), known("int", "w")]));
    assert!(matches!(more, Err(BinlogError::Columns { have: 1, want: 2, .. })));
}

#[test]
fn images_of_both_versions_hold_what_they_hold() {
    let columns: [(u8, &[u8]); 3] = [(1, &[]), (1, &[]), (1, &[])];
    let signed: Optional = vec![(1, vec![0])];
    let read = |kind, bits: &[u8], bytes: &[u8]| images(&columns, &signed, None, rows(kind, 5, 3, bits, bytes)).map(|(all, _)| all);
    let some = |row: [Option<i64>; 3]| -> Row { row.into_iter().map(|n| n.map_or(Datum::Unavailable, Datum::Int)).collect() };
    // Columns 1 and 3 before, column 2 after; two rows.
    for kind in [EventKind::UPDATE_ROWS_V1, EventKind::UPDATE_ROWS] {
        let all = read(kind, &[0b101, 0b010], &[0, 1, 3, 0, 2, 0b10, 4, 1]).unwrap();
        assert_eq!(all[0], Image { before: Some(some([Some(1), None, Some(3)])), after: Some(some([None, Some(2), None])) });
        assert_eq!(all[1].before.as_ref().unwrap()[2], Datum::Null);
        assert_eq!(all[1].after.as_ref().unwrap()[1], Datum::Null);
        assert_eq!(all.len(), 2);
    }
    let deleted = read(EventKind::DELETE_ROWS, &[0b001], &[0, 9]).unwrap();
    assert_eq!(deleted, [Image { before: Some(some([Some(9), None, None])), after: None }]);
    // An insert of defaults only, with a minimal image.
    assert_eq!(read(EventKind::WRITE_ROWS, &[0], &[]).unwrap(), [Image { before: None, after: Some(some([None, None, None])) }]);
    assert!(read(EventKind::WRITE_ROWS, &[0], &[1]).is_err(), "bytes that no column takes");
    assert!(read(EventKind::WRITE_ROWS, &[0b111], &[0, 1, 2]).is_err(), "a row that ends early");
}

/// `JSON_SET`, `JSON_REPLACE` and `JSON_REMOVE` as the server logs them.
fn change(operation: u8, path: &str, value: Option<serde_json::Value>) -> Put {
    let put = Put::default().u8(operation).counted(path.as_bytes());
    value.iter().fold(put, |put, value| put.counted(&json(value, false)))
}

fn blob(bytes: &[u8]) -> Vec<u8> {
    Put::default().u32(bytes.len() as u32).bytes(bytes).0
}

const JSON: (u8, &[u8]) = (245, &[4]);

#[test]
fn partial_updates_are_applied_to_the_document_before() {
    let before = json!({"a": 1, "b": {"c": [1, 2, 3]}, "name with \"quote\"": "x", "zz": null});
    let cases: Vec<(Vec<Put>, &str)> = vec![
        (vec![change(0, "$.a", Some(json!(2.5)))], r#"{"a": 2.5, "b": {"c": [1, 2, 3]}, "zz": null, "name with \"quote\"": "x"}"#),
        (vec![change(0, "$.b.c[1]", Some(json!("물")))], r#"{"a": 1, "b": {"c": [1, "물", 3]}, "zz": null, "name with \"quote\"": "x"}"#),
        (vec![change(1, "$.b.c[3]", Some(json!(4)))], r#"{"a": 1, "b": {"c": [1, 2, 3, 4]}, "zz": null, "name with \"quote\"": "x"}"#),
        (vec![change(1, "$.b.c[0]", Some(json!(0)))], r#"{"a": 1, "b": {"c": [0, 1, 2, 3]}, "zz": null, "name with \"quote\"": "x"}"#),
        // Keys are in the server's order: by length, then by their bytes.
        (vec![change(1, "$.aa", Some(json!({})))], r#"{"a": 1, "b": {"c": [1, 2, 3]}, "aa": {}, "zz": null, "name with \"quote\"": "x"}"#),
        (
            vec![change(2, "$.b.c", None), change(1, "$.b.d", Some(json!([])))],
            r#"{"a": 1, "b": {"d": []}, "zz": null, "name with \"quote\"": "x"}"#,
        ),
        (
            vec![change(0, r#"$."name with \"quote\"""#, Some(json!(false)))],
            r#"{"a": 1, "b": {"c": [1, 2, 3]}, "zz": null, "name with \"quote\"": false}"#,
        ),
        (vec![change(0, "$", Some(json!([true])))], "[true]"),
        (vec![], r#"{"a": 1, "b": {"c": [1, 2, 3]}, "zz": null, "name with \"quote\"": "x"}"#),
    ];
    for (changes, want) in cases {
        let diff: Vec<u8> = changes.iter().flat_map(|put| put.0.clone()).collect();
        for is_large in [false, true] {
            let bytes = [vec![0], blob(&json(&before, is_large)), vec![1, 1, 0], blob(&diff)].concat();
            let (all, n) = images(&[JSON], &vec![], None, rows(EventKind::PARTIAL_UPDATE_ROWS, 5, 1, &[1, 1], &bytes)).unwrap();
            let after = all[0].after.as_ref().unwrap()[0].clone();
            assert_eq!((after, n), (Datum::Json(Bytes::copy_from_slice(want.as_bytes())), 0), "{diff:?}");
        }
    }
}

#[test]
fn partial_bits_count_every_json_column_of_the_table() {
    // Four columns: JSON not in the image, int, JSON whole, JSON partial.
    let columns = [JSON, (1, &[][..]), JSON, JSON];
    let before = [vec![0], vec![7], blob(&json(&json!(1), false)), blob(&json(&json!([1]), false))].concat();
    let after = [vec![1, 0b100, 0], vec![8], blob(&json(&json!("new"), false)), blob(&change(0, "$[0]", Some(json!(2))).0)].concat();
    let event = rows(EventKind::PARTIAL_UPDATE_ROWS, 5, 4, &[0b1110, 0b1110], &[before, after].concat());
    let (all, n) = images(&columns, &field(SIGNED), None, event).unwrap();
    let row = all[0].after.clone().unwrap();
    assert_eq!(row, [Datum::Unavailable, Datum::Int(8), Datum::Json(r#""new""#.into()), Datum::Json("[2]".into())]);
    assert_eq!(n, 0);
}

#[test]
fn a_partial_update_without_the_document_before_is_counted() {
    let bytes = [vec![0, 7], vec![1, 1, 0], blob(&change(0, "$.a", Some(json!(2))).0)].concat();
    let event = rows(EventKind::PARTIAL_UPDATE_ROWS, 5, 2, &[0b01, 0b10], &bytes);
    let (all, n) = images(&[(1, &[]), JSON], &field(SIGNED), None, event).unwrap();
    assert_eq!((all[0].after.clone().unwrap(), n), (vec![Datum::Unavailable, Datum::Unavailable], 1));
}

#[test]
fn changes_that_do_not_fit_their_document_are_refused() {
    let before = json!({"a": [1]});
    let bad = [
        change(0, "$.b", Some(json!(1))),
        change(0, "$.a[1]", Some(json!(1))),
        change(0, "$.a.x", Some(json!(1))),
        change(0, "$.a[0].x", Some(json!(1))),
        change(1, "$.a", Some(json!(1))),
        change(1, "$", Some(json!(1))),
        change(2, "$.b", None),
        change(2, "$.a[1]", None),
        change(2, "$", None),
        change(3, "$.a", Some(json!(1))),
        change(0, "a", Some(json!(1))),
        change(0, "$a", Some(json!(1))),
        change(0, "$.", Some(json!(1))),
        change(0, "$[x]", Some(json!(1))),
        change(0, "$.\"a", Some(json!(1))),
        Put::default().u8(0).counted(b"$.a").counted(b""),
    ];
    for change in bad {
        let bytes = [vec![0], blob(&json(&before, false)), vec![1, 1, 0], blob(&change.0)].concat();
        let result = images(&[JSON], &vec![], None, rows(EventKind::PARTIAL_UPDATE_ROWS, 5, 1, &[1, 1], &bytes));
        assert!(result.is_err(), "{:?}", String::from_utf8_lossy(&change.0));
    }
}

#[test]
fn changes_that_open_the_same_elements_again_and_again_are_refused() {
    // An array whose elements are all the same inner array, which is only allocated as often as the document is long.
    const N: u16 = 3000;
    let inner_at = 4 + 3 * usize::from(N);
    let inner = json(&json!(vec![1; 3000]), false);
    let mut data = Put::default().u16(N).u16((inner_at + inner.len() - 1) as u16);
    for _ in 0..N {
        data = data.u8(2).u16(inner_at as u16);
    }
    let document = Put::default().u8(2).bytes(&data.bytes(&inner[1..]).0).0;
    let diff: Vec<u8> = (0..200).flat_map(|i| change(0, &format!("$[{i}][0]"), Some(json!(2))).0).collect();
    let bytes = [vec![0], blob(&json(&json!(1), false)), vec![1, 1, 0], blob(&diff)].concat();
    let whole = images(&[JSON], &vec![], None, rows(EventKind::PARTIAL_UPDATE_ROWS, 5, 1, &[1, 1], &bytes));
    assert!(whole.is_err());
    let applied = crate::mysql::binlog::json_diff::apply(document.into(), diff.into());
    assert_eq!(applied, Err(BinlogError::Malformed { what: "JSON difference", why: "the parts of its document overlap" }));
    assert_eq!(json_length(300), [0xac, 2]);
}
