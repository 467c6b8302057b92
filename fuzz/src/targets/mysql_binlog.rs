//! Events of a binlog, one behind the other, to rows.

use bytes::Bytes;
use mulgil_capture::datum::Datum;
use mulgil_capture::mysql::binlog::decoder::{Body, Decoder, Event, Limits};
use mulgil_capture::mysql::binlog::file::File;
use mulgil_capture::mysql::binlog::header::{HEADER_BYTES, Header};
use mulgil_capture::mysql::binlog::rows::Rows;
use mulgil_capture::mysql::binlog::shape::{Known, Shape};
use mulgil_capture::mysql::binlog::table_map::TableMap;
use mulgil_capture::table::Kind;
use std::sync::LazyLock;

/// Small, so that the limits are met.
const LIMITS: Limits = Limits { event_bytes_max: 1 << 20, transaction_bytes_max: 1 << 21, n_tables_max: 16 };
/// Rows of one input that are looked at.
const ROWS_MAX: usize = 2_000;

const FORMAT_DESCRIPTION: u8 = 15;
const IS_MARIADB: u8 = 1;
const HAS_CATALOG: u8 = 2;

/// One byte of mode, then events: type 1, length 3 (of the body, little endian), body. Made by a MySQL or a MariaDB, read with or without a
/// catalog. Values are of their kinds, texts are UTF-8, rows are as wide as their table.
pub fn run(input: &[u8]) {
    let Some((mode, mut rest)) = input.split_first() else { return };
    let mut decoder = Decoder::new(LIMITS);
    decoder.event(format(mode & IS_MARIADB != 0).into()).expect("our own format is one");
    let mut n_rows = 0;
    while let Some(([kind, a, b, c], behind)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        let (body, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        // The stream is not gone on with behind an error; the next events are those of another one.
        match decoder.event(event(*kind, body).into()) {
            Ok(event) => look(event, &mut decoder, mode & HAS_CATALOG != 0, &mut n_rows),
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    }
}

fn look(event: Event, decoder: &mut Decoder, has_catalog: bool, n_rows: &mut usize) {
    match event.body {
        Body::Rows(rows) => images(&rows, has_catalog, n_rows),
        Body::Payload(mut payload) => {
            while let Ok(Some(inner)) = payload.next(decoder) {
                assert!(!matches!(inner.body, Body::Payload(_)), "a compressed transaction in another");
                look(inner, decoder, has_catalog, n_rows);
            }
        }
        Body::Query(q) => drop(q.text().len()),
        _ => {}
    }
}

fn images(rows: &Rows, has_catalog: bool, n_rows: &mut usize) {
    let Some(map) = &rows.table else { return };
    let known = if has_catalog { catalog(map) } else { None };
    let Ok(shape) = Shape::new(map, known.as_deref()).or_else(|_| Shape::by_name(map, &KNOWN)) else { return };
    for image in rows.images(&shape).take(ROWS_MAX.saturating_sub(*n_rows)) {
        *n_rows += 1;
        let Ok(image) = image else { return };
        for row in [image.before, image.after].into_iter().flatten() {
            assert_eq!(row.len(), shape.columns().len(), "a row is not as wide as its table");
            row.iter().zip(shape.columns()).for_each(|(datum, column)| of_kind(datum, &column.kind));
        }
    }
}

fn of_kind(datum: &Datum, kind: &Kind) {
    let is_of_it = match (datum, kind) {
        (Datum::Null | Datum::Unavailable | Datum::Odd(_), _) => true,
        (Datum::Text(b), Kind::Text) | (Datum::Json(b), Kind::Json) => std::str::from_utf8(b).is_ok(),
        (Datum::Decimal(b), Kind::Decimal(Some(_))) => b.iter().all(|b| b.is_ascii_digit() || b"-.".contains(b)),
        (Datum::Bool(_), Kind::Bool)
        | (Datum::Int(_), Kind::Int16 | Kind::Int32 | Kind::Int64)
        | (Datum::UInt(_), Kind::UInt64)
        | (Datum::Float32(_), Kind::Float32)
        | (Datum::Float64(_), Kind::Float64)
        | (Datum::Binary(_), Kind::Binary)
        | (Datum::Date(_), Kind::Date)
        | (Datum::Time(_), Kind::Time)
        | (Datum::Timestamp(_), Kind::Timestamp)
        | (Datum::TimestampTz(_), Kind::TimestampTz)
        | (Datum::Uuid(_), Kind::Uuid) => true,
        _ => false,
    };
    assert!(is_of_it, "{datum:?} in a column of {kind:?}");
}

/// Without a checksum: nobody finds one by chance.
pub fn event(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + body.len()) as u32;
    [&[1, 0, 0, 0, kind][..], &1u32.to_le_bytes(), &length.to_le_bytes(), &length.to_le_bytes(), &[0, 0], body].concat()
}

/// `FORMAT_DESCRIPTION_EVENT` of a server that writes no checksums.
fn format(is_mariadb: bool) -> Vec<u8> {
    let version: &[u8] = if is_mariadb { b"10.11.19-MariaDB" } else { b"9.7.4" };
    let mut server = [0; 50];
    server[..version.len()].copy_from_slice(version);
    event(FORMAT_DESCRIPTION, &[&[4, 0], &server[..], &[0; 4], &[HEADER_BYTES as u8], &[8; 171], &[0; 5]].concat())
}

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../../crates/capture/testdata/binlog/", $name))
    };
}

const MYSQL: &[u8] = golden!("mysql-9.7.binlog");
const MYSQL_MINIMAL: &[u8] = golden!("mysql-9.7-minimal.binlog");
const MYSQL_PAYLOAD: &[u8] = golden!("mysql-9.7-payload.binlog");
const MYSQL_XA: &[u8] = golden!("mysql-9.7-xa.binlog");
const MARIADB: &[u8] = golden!("mariadb-10.11.binlog");
const MARIADB_COMPRESSED: &[u8] = golden!("mariadb-10.11-compressed.binlog");
const MINIMAL_COLUMNS: &str = include_str!("../../../crates/capture/testdata/binlog/mysql-9.7-minimal.columns");

/// What the catalog said of the table that the minimal binlog is of.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let known = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let charset = Some(fields[2]).filter(|c| !c.is_empty()).map(Into::into);
        Known { name: fields[0].into(), native: fields[1].into(), charset, is_key: fields[3] == "PRI" }
    };
    MINIMAL_COLUMNS.lines().map(known).collect()
});

fn catalog(map: &TableMap) -> Option<Vec<Known>> {
    KNOWN.get(..map.columns.len()).map(<[Known]>::to_vec)
}

/// The bodies of a file's events, without their checksums.
fn bodies(file: &'static [u8]) -> Vec<(u8, Bytes)> {
    const CHECKSUM_BYTES: usize = 4;
    let events = File::new(Bytes::from_static(file)).expect("our own file is one").map(|event| event.expect("our own file is whole"));
    let body = |event: Bytes| {
        let head = event.first_chunk::<HEADER_BYTES>().expect("invariant: an event has a header");
        (Header::parse(head).kind.0, event.slice(HEADER_BYTES..event.len() - CHECKSUM_BYTES))
    };
    events.map(body).filter(|(kind, _)| *kind != FORMAT_DESCRIPTION).collect()
}

fn input(mode: u8, events: &[(u8, Bytes)]) -> Vec<u8> {
    let one = |(kind, body): &(u8, Bytes)| [&[*kind], &(body.len() as u32).to_le_bytes()[..3], body].concat();
    [mode].into_iter().chain(events.iter().flat_map(one)).collect()
}

/// Transactions of real servers, few at a time: what is short is changed in more places.
pub fn seeds() -> Vec<Vec<u8>> {
    let files = [
        (0, MYSQL),
        (HAS_CATALOG, MYSQL_MINIMAL),
        (0, MYSQL_MINIMAL),
        (0, MYSQL_PAYLOAD),
        (0, MYSQL_XA),
        (IS_MARIADB, MARIADB),
        (IS_MARIADB, MARIADB_COMPRESSED),
    ];
    files.iter().flat_map(|(mode, file)| bodies(file).chunks(12).map(|events| input(*mode, events)).collect::<Vec<_>>()).collect()
}

/// Seeds for documents and their changes: what the columns of the golden binlog hold.
pub fn documents() -> Vec<Vec<u8>> {
    let seed = |before: &[u8], changes: &[u8]| [&(before.len() as u16).to_le_bytes()[..], before, changes].concat();
    // {"a": 1, "b": [true, "x"]}, in the small form, then $.a replaced by 7, "y" appended to $.b, and $.a removed.
    let object: &[u8] =
        &[0, 2, 0, 36, 0, 18, 0, 1, 0, 19, 0, 1, 0, 5, 1, 0, 2, 20, 0, b'a', b'b', 2, 0, 12, 0, 4, 1, 0, 12, 10, 0, 1, b'x'];
    let changes: &[u8] =
        &[0, 3, b'$', b'.', b'a', 3, 5, 7, 0, 1, 6, b'$', b'.', b'b', b'[', b'2', b']', 3, 12, 1, b'y', 2, 3, b'$', b'.', b'a'];
    let scalars: [&[u8]; 5] =
        [&[5, 0xff, 0xff], &[11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f], &[12, 2, 0xeb, 0xac], &[15, 246, 4, 4, 2, 0x8c, 0x32], &[4, 1]];
    scalars.iter().map(|s| seed(s, &[])).chain([seed(object, &[]), seed(object, changes)]).collect()
}
