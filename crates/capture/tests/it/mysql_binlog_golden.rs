//! Binlogs that MySQL 9.7.4 wrote (`testdata/binlog/*.sql` says how) against what its SELECT said.

use crate::mysql_binlog::{Changes, double, read, text};
use mulgil_capture::datum::Datum;
use mulgil_capture::mysql::binlog::decoder::Body;
use mulgil_capture::mysql::binlog::rows::RowsOp;
use mulgil_capture::mysql::binlog::shape::Known;
use mulgil_capture::mysql::gtid::GtidSet;
use mulgil_capture::table::Kind;
use std::collections::BTreeMap;

const TYPES: &[u8] = include_bytes!("../../testdata/binlog/mysql-9.7.binlog");
const TYPES_TEXT: &str = include_str!("../../testdata/binlog/mysql-9.7.txt");
const MINIMAL: &[u8] = include_bytes!("../../testdata/binlog/mysql-9.7-minimal.binlog");
const MINIMAL_COLUMNS: &str = include_str!("../../testdata/binlog/mysql-9.7-minimal.columns");
const PAYLOAD: &[u8] = include_bytes!("../../testdata/binlog/mysql-9.7-payload.binlog");
const PAYLOAD_TEXT: &str = include_str!("../../testdata/binlog/mysql-9.7-payload.txt");

#[test]
fn every_type_of_mysql_is_what_select_said() {
    let read = read(TYPES.to_vec(), &|_| None);
    let mut selected: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for line in TYPES_TEXT.lines() {
        let fields: Vec<&str> = line.splitn(3, '\t').collect();
        let is_float = matches!(read.tables[fields[0]].columns[1].kind, Kind::Float32 | Kind::Float64) && fields[2] != "NULL";
        let value = if is_float { double(fields[2].parse().unwrap()) } else { fields[2].to_owned() };
        selected.entry(fields[0]).or_default().push((fields[1].to_owned(), value));
    }
    let wide = &read.tables["wide"];
    let wide_row = wide.images[0].1.after.as_ref().unwrap();
    assert_eq!(selected.len(), wide.columns.len() - 1);
    for (name, want) in selected {
        let table = &read.tables[name];
        let rows = table.images.iter().map(|(_, image)| image.after.as_ref().unwrap());
        let have: Vec<_> = rows.map(|row| (text(&row[0], &table.columns[0]), text(&row[1], &table.columns[1]))).collect();
        assert_eq!(have, want, "{name} {}", table.columns[1].native);
        let i = name[1..].parse::<usize>().unwrap() + 1;
        assert_eq!(text(&wide_row[i], &wide.columns[i]), want[0].1, "{name} {} among others", wide.columns[i].native);
    }
}

/// The server's default: signs and charsets are in the table map, names and the strings of enums are not.
#[test]
fn minimal_metadata_and_the_catalog_are_as_good_as_full_metadata() {
    let known: Vec<Known> = MINIMAL_COLUMNS.lines().map(known).collect();
    let asked = read(MINIMAL.to_vec(), &|_| Some(known.clone()));
    let (asked, full) = (&asked.tables["wide"], &read(TYPES.to_vec(), &|_| None).tables["wide"]);
    let row = |table: &Changes| table.images[0].1.after.clone().unwrap();
    for (i, ((have, want), (column, same))) in row(asked).iter().zip(&row(full)).zip(asked.columns.iter().zip(&full.columns)).enumerate() {
        assert_eq!(have, want, "column {i} {}", column.native);
        assert_eq!((&column.name, &column.kind, column.is_key), (&same.name, &same.kind, same.is_key));
    }
    // Alone the map still tells every value but those of enums and sets.
    let alone = &read(MINIMAL.to_vec(), &|_| None).tables["wide"];
    for ((have, want), column) in row(alone).iter().zip(&row(full)).zip(&full.columns) {
        let is_choice = column.native.starts_with("enum") || column.native.starts_with("set");
        assert_eq!(have == want, !is_choice, "{}", column.native);
        assert_eq!(matches!(have, Datum::Odd(_)), matches!(want, Datum::Odd(_)) || is_choice, "{}", column.native);
    }
}

fn known(line: &str) -> Known {
    let fields: Vec<&str> = line.split('\t').collect();
    let charset = Some(fields[2]).filter(|c| !c.is_empty()).map(Into::into);
    Known { name: fields[0].into(), native: fields[1].into(), charset, is_key: fields[3] == "PRI" }
}

/// Updates as changes of documents, in compressed transactions: the rows, folded, are the table.
#[test]
fn partial_documents_in_compressed_transactions_are_what_select_said() {
    let read = read(PAYLOAD.to_vec(), &|_| None);
    assert!(read.kinds["TRANSACTION_PAYLOAD"] >= 10 && read.kinds["PARTIAL_UPDATE_ROWS"] >= 8, "{:?}", read.kinds);
    let table = &read.tables["d"];
    let mut rows: BTreeMap<String, Vec<Datum>> = BTreeMap::new();
    for (op, image) in &table.images {
        let key = |row: &Vec<Datum>| text(&row[0], &table.columns[0]);
        let before = image.before.as_ref().map(|row| rows.remove(&key(row)).unwrap());
        let Some(after) = &image.after else { continue };
        assert_eq!(before.is_some(), *op == RowsOp::Update);
        let kept = |i: usize| before.as_ref().map_or(Datum::Unavailable, |row| row[i].clone());
        let row: Vec<Datum> =
            after.iter().enumerate().map(|(i, datum)| if *datum == Datum::Unavailable { kept(i) } else { datum.clone() }).collect();
        rows.insert(key(&row), row);
    }
    let have =
        rows.values().map(|row| row.iter().zip(&table.columns).map(|(datum, column)| text(datum, column)).collect::<Vec<_>>().join("\t"));
    assert_eq!(have.collect::<Vec<_>>(), PAYLOAD_TEXT.lines().collect::<Vec<_>>());
}

#[test]
fn what_surrounds_the_rows_of_mysql_is_read_too() {
    let read = read(PAYLOAD.to_vec(), &|_| None);
    let bodies: Vec<&Body> = read.bodies.iter().map(|event| &event.body).collect();
    let Body::PreviousGtids(before) = bodies[1] else { panic!() };
    let gtids: Vec<String> = bodies
        .iter()
        .filter_map(|b| if let Body::Begin(begin) = b { begin.gtid.as_ref().map(ToString::to_string) } else { None })
        .collect();
    let uuid = gtids[0].split(':').next().unwrap();
    let tagged: Vec<&String> = gtids.iter().filter(|gtid| gtid.starts_with(&format!("{uuid}:blue:"))).collect();
    assert_eq!(tagged.len(), 1, "{gtids:?}");
    assert!(before.to_string().contains(":blue:1"), "the set of the files before has tags too: {before}");
    let mut after = before.clone();
    for gtid in &gtids {
        assert_eq!(after.add(&gtid.parse().unwrap()), Ok(true), "{gtid}");
    }
    assert_eq!(after.n_transactions(), before.n_transactions() + gtids.len() as u64);
    assert_eq!(after.to_string().parse::<GtidSet>().as_ref(), Ok(&after), "{after}");
    assert!(after.contains(before) && !before.contains(&after));
    assert_eq!(after.subtract(before).n_transactions(), gtids.len() as u64);
    assert_eq!(read.kinds["GTID_TAGGED"], 1);
    assert!(bodies.iter().any(|b| matches!(b, Body::Statement(s) if s.starts_with(b"UPDATE d SET a = JSON_SET(a, '$.price', 11)"))));
    let begins = bodies.iter().filter_map(|b| if let Body::Begin(begin) = b { Some(begin) } else { None });
    assert!(begins.clone().all(|b| b.immediate_commit_us == b.original_commit_us && b.transaction_bytes.is_some_and(|n| n > 100)));
    assert!(begins.clone().all(|b| (1_700_000_000_000_000..4_000_000_000_000_000).contains(&b.immediate_commit_us.unwrap())));
    assert!(begins.map(|b| b.sequence_number.unwrap()).eq(1..=gtids.len() as u64));
    assert_eq!(read.tables["d"].columns.iter().map(|c| &*c.native).collect::<Vec<_>>(), ["int", "json", "json", "int unsigned", "text"]);
}
