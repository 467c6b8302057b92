//! Changes as they stand in the log: Avro with one schema for each shape of a table.

use bytes::Bytes;
use mulgil_capture::change::{Change, Op, Origin, Place, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::envelope::avro::{ChangeDecoder, ChangeEncoder};
use mulgil_capture::table::{Column, Digits, Kind, Table, TableId};
use mulgil_model::avro::{HEADER_BYTES, WireSchema};
use mulgil_model::position::Position;
use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

fn column(name: &str, kind: Kind, is_key: bool) -> Column {
    Column { name: name.into(), native: "a type".into(), kind, is_nullable: !is_key, is_key }
}

fn table(name: &str, columns: Vec<Column>) -> Arc<Table> {
    let id = TableId { database: "shop".into(), schema: "".into(), table: name.into() };
    Arc::new(Table { id, version: 3, columns })
}

/// Every kind there is, one column each.
fn wide() -> Arc<Table> {
    let digits = |precision, scale| Kind::Decimal(Some(Digits { precision, scale }));
    let kinds = [
        Kind::Int64,
        Kind::Bool,
        Kind::Int16,
        Kind::Int32,
        Kind::UInt64,
        Kind::Float32,
        Kind::Float64,
        Kind::Decimal(None),
        digits(10, 2),
        digits(60, 0),
        Kind::Text,
        Kind::Binary,
        Kind::Date,
        Kind::Time,
        Kind::Timestamp,
        Kind::TimestampTz,
        Kind::Uuid,
        Kind::Json,
        Kind::Unknown,
        Kind::Array(Box::new(Kind::Text)),
        Kind::Array(Box::new(digits(10, 2))),
    ];
    table("wide", kinds.into_iter().enumerate().map(|(i, kind)| column(&format!("c{i}"), kind, i == 0)).collect())
}

fn values() -> Vec<Datum> {
    let text = |t: &'static str| Bytes::from_static(t.as_bytes());
    let nested =
        vec![Datum::Array(vec![Datum::Text(text("a")), Datum::Null]), Datum::Array(vec![Datum::Text(text("b")), Datum::Odd(text("c"))])];
    vec![
        Datum::Int(i64::MIN),
        Datum::Bool(true),
        Datum::Int(-5),
        Datum::Int(70_000),
        Datum::UInt(u64::MAX),
        Datum::Float32(0.1),
        Datum::Float64(f64::MIN_POSITIVE),
        Datum::Odd(text("NaN")),
        Datum::Decimal(text("-12345678.90")),
        Datum::Decimal(text("123456789012345678901234567890123456789012345678901234567890")),
        Datum::Text(text("물길")),
        Datum::Binary(text("\u{1}\u{2}")),
        Datum::Date(-1),
        Datum::Time(-3_020_399_000_001),
        Datum::Timestamp(i64::MAX),
        Datum::Odd(text("0000-00-00 00:00:00")),
        Datum::Uuid([7; 16]),
        Datum::Json(text("{\"a\": 1}")),
        Datum::Unavailable,
        Datum::Array(nested),
        Datum::Array(vec![Datum::Decimal(text("1.00"))]),
    ]
}

fn samples() -> Vec<Change> {
    let (wide, small) = (wide(), table("small", vec![column("id", Kind::Int32, true), column("a b", Kind::Text, false)]));
    let row = |table: &Arc<Table>, before, after| What::Row { table: table.clone(), before, after };
    let small_row = |id, text: Option<&'static str>| vec![Datum::Int(id), text.map_or(Datum::Null, |t| Datum::Text(t.into()))];
    let whats = [
        (Op::Create, row(&wide, None, Some(values()))),
        (Op::Update, row(&wide, Some(vec![Datum::Null; wide.columns.len()]), Some(values()))),
        (Op::Delete, row(&small, Some(small_row(1, Some("x"))), None)),
        (Op::Read, row(&small, None, Some(small_row(-2, None)))),
        (Op::Truncate, What::Truncate { table: small.clone(), cascade: true, restart_identity: false }),
        (Op::Message, What::Message { prefix: "mulgil.stale".into(), content: Bytes::from_static(b"{}"), is_transactional: true }),
    ];
    let places = [
        Place::Postgres { database: "db".into(), commit_lsn: u64::MAX, txid: Some(7) },
        Place::Mysql { server_id: 9, file: "binlog.000004".into(), at: 1 << 33, gtid: Some("0-1-7".into()), thread: None },
    ];
    let snapshots = [Snapshot::No, Snapshot::Initial, Snapshot::Last, Snapshot::Incremental];
    let change = |(i, (op, what)): (usize, (Op, What))| {
        let origin = Origin { committed_us: -1, snapshot: snapshots[i % 4], place: places[i % 2].clone() };
        Change { op, what, position: Position::new(1 << 40, i as u64), origin: Arc::new(origin) }
    };
    whats.into_iter().enumerate().map(change).collect()
}

/// The schemas that the samples are written with, each once.
static SCHEMAS: LazyLock<Vec<WireSchema>> = LazyLock::new(|| {
    let mut encoder = ChangeEncoder::default();
    let mut schemas: Vec<WireSchema> = samples().iter().map(|change| encoder.wire(change).clone()).collect();
    schemas.dedup_by_key(|wire| wire.id);
    schemas
});

/// A logical message, and how it is written.
static GOOD: LazyLock<(Change, Bytes)> = LazyLock::new(|| {
    let good = samples().pop().expect("invariant: there are samples");
    let mut written = Vec::new();
    ChangeEncoder::default().encode(&good, &mut written).expect("our own change can be written");
    (good, written.into())
});

thread_local! {
    /// One for all inputs: as in the log, broken messages stand among good ones.
    static DECODER: RefCell<ChangeDecoder> = RefCell::new({
        let mut decoder = ChangeDecoder::default();
        SCHEMAS.iter().for_each(|wire| decoder.learn(wire).expect("our own schema is known"));
        decoder
    });
}

/// What is read is written as a message that reads the same. Compared as text: a NaN is not equal to itself.
fn reads_again(decoder: &mut ChangeDecoder, message: Vec<u8>) {
    let Ok(change) = decoder.decode(&message.into()) else { return };
    let mut encoder = ChangeEncoder::default();
    let mut written = Vec::new();
    encoder.encode(&change, &mut written).expect("what was read can be written");
    let again = decoder.decode(&written.into()).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{change:?}"));
}

fn message(wire: &WireSchema, body: &[u8]) -> Vec<u8> {
    [&[0], &wire.id.to_be_bytes()[..], body].concat()
}

/// The body of a message behind a good header; the first byte says of which schema.
pub fn change(input: &[u8]) {
    let Some((which, body)) = input.split_first() else { return };
    DECODER.with_borrow_mut(|decoder| {
        reads_again(decoder, message(&SCHEMAS[usize::from(*which) % SCHEMAS.len()], body));
        // A broken message does no harm to the next one.
        let (good, written) = &*GOOD;
        assert_eq!(decoder.decode(written).as_ref(), Ok(good));
    });
}

pub fn change_seeds() -> Vec<Vec<u8>> {
    let mut encoder = ChangeEncoder::default();
    let seed = |change: &Change| {
        let id = encoder.wire(change).id;
        let which = SCHEMAS.iter().position(|wire| wire.id == id).expect("invariant: every sample's schema is there");
        let mut out = Vec::new();
        encoder.encode(change, &mut out).expect("our own change can be written");
        [&[which as u8], &out[HEADER_BYTES..]].concat()
    };
    samples().iter().map(seed).collect()
}

/// A schema as the log keeps it, then a zero byte and the body of a message that was written with it.
pub fn schema(input: &[u8]) {
    let split = input.iter().position(|b| *b == 0).unwrap_or(input.len());
    let Ok(json) = std::str::from_utf8(&input[..split]) else { return };
    let wire = WireSchema { id: 7, json: json.to_owned() };
    let mut decoder = ChangeDecoder::default();
    if decoder.learn(&wire).is_ok() {
        let _ = decoder.decode(&message(&wire, input.get(split + 1..).unwrap_or_default()).into());
    }
}

pub fn schema_seeds() -> Vec<Vec<u8>> {
    let bodies = change_seeds();
    let of = |body: &Vec<u8>| [SCHEMAS[usize::from(body[0])].json.as_bytes(), &[0], &body[1..]].concat();
    bodies.iter().map(of).collect()
}
