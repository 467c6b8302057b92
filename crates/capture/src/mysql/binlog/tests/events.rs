use super::build::{Put, event, flagged, format, rows, table_map, with_checksum};
use crate::mysql::binlog::decoder::{Body, Decoder, Limits};
use crate::mysql::binlog::error::BinlogError;
use crate::mysql::binlog::header::{Checksum, EventKind};
use crate::mysql::gtid::GtidSet;
use bytes::Bytes;
use std::io::Write;

fn decoder() -> Decoder {
    Decoder::new(Limits::default())
}

fn body(kind: EventKind, bytes: &[u8]) -> Body {
    decoder().event(event(kind, bytes)).unwrap().body
}

fn refused(kind: EventKind, bytes: &[u8]) -> BinlogError {
    decoder().event(event(kind, bytes)).unwrap_err()
}

const UUID: [u8; 16] = [0x3e, 0x11, 0xfa, 0x47, 0x71, 0xca, 0x11, 0xe1, 0x9e, 0x33, 0xc8, 0x0a, 0xa9, 0x42, 0x95, 0x62];
const UUID_TEXT: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

#[test]
fn the_format_says_whether_events_have_checksums() {
    let xid = event(EventKind::XID, &7u64.to_le_bytes());
    let mut decoder = decoder();
    decoder.event(format("8.4.2", 1)).unwrap();
    assert_eq!(decoder.format().map(|f| (f.checksum, f.is_mariadb)), Some((Checksum::Crc32, false)));
    assert!(matches!(decoder.event(with_checksum(&xid)).unwrap().body, Body::Commit { xid: 7 }));
    let mut flipped = with_checksum(&xid).to_vec();
    flipped[20] ^= 1;
    assert!(matches!(decoder.event(flipped.into()), Err(BinlogError::Checksum { kind: EventKind::XID, .. })));
    assert!(matches!(decoder.event(xid.clone()), Err(BinlogError::Checksum { .. })));
    decoder.event(format("8.4.2", 0)).unwrap();
    assert!(matches!(decoder.event(xid).unwrap().body, Body::Commit { xid: 7 }));
    let mut wrong = format("8.4.2", 1).to_vec();
    wrong[30] ^= 1;
    assert!(matches!(decoder.event(wrong.into()), Err(BinlogError::Checksum { .. })));
}

#[test]
fn the_format_of_a_file_that_is_being_written_is_whole() {
    let mut in_use = format("8.0.36", 1).to_vec();
    in_use[17] |= 1;
    assert!(decoder().event(in_use.into()).is_ok());
}

#[test]
fn a_made_up_rotate_comes_with_or_without_a_checksum() {
    const ARTIFICIAL: u16 = 0x20;
    let plain = flagged(EventKind::ROTATE, ARTIFICIAL, &Put::default().u64(4).bytes(b"binlog.000002").0);
    let mut decoder = decoder();
    for round in [None, Some(0), Some(1)] {
        if let Some(algorithm) = round {
            decoder.event(format("9.1.0", algorithm)).unwrap();
        }
        for rotate in [plain.clone(), with_checksum(&plain)] {
            let Body::Rotate(rotate) = decoder.event(rotate).unwrap().body else { panic!() };
            assert_eq!((rotate.at, &*rotate.file), (4, "binlog.000002"));
        }
    }
}

#[test]
fn a_statement_has_its_session_with_it() {
    let status = Put::default().u8(0).u32(0).u8(1).u64(0x40).u8(6).counted(b"std").u8(3).u16(1).u16(1);
    let status = status.u8(4).u16(8).u16(33).u16(8).u8(5).counted(b"SYSTEM").u8(12).u8(2).bytes(b"a\0bc\0").u8(13).bytes(&[1, 2, 0]);
    let status = status.u8(17).u64(99).u8(200).bytes(b"of a later version").0;
    let query = |status: &[u8]| Put::default().u32(5).u32(0).u8(4).u16(1).u16(status.len() as u16).bytes(status).bytes(b"shop\0");
    let Body::Query(q) = body(EventKind::QUERY, &query(&status).bytes(b"DROP TABLE caf\xe9").0) else { panic!() };
    assert_eq!((q.thread, &*q.database, q.error, q.text().as_ref()), (5, "shop", 1, "DROP TABLE café"));
    assert_eq!(
        (q.status.sql_mode, q.status.time_zone.as_deref(), q.status.microseconds, q.status.xid),
        (Some(0x40), Some("SYSTEM"), Some(513), Some(99))
    );
    assert!(matches!(refused(EventKind::QUERY, &query(&[1, 2]).0), BinlogError::Truncated { .. }));
    assert!(matches!(
        refused(EventKind::QUERY, &Put::default().u32(5).u32(0).u8(4).u16(0).u16(0).bytes(b"shopX").0),
        BinlogError::Malformed { .. }
    ));
}

#[test]
fn transactions_are_named() {
    let head = Put::default().u8(1).bytes(&UUID).u64(23).u8(2).u64(4).u64(5);
    let with_times = head.clone().bytes(&[1, 0, 0, 0, 0, 0, 0x80]).bytes(&[2, 0, 0, 0, 0, 0, 0]).lenenc(300).u32(80_400).u64(1);
    let same_time = head.clone().bytes(&[9, 0, 0, 0, 0, 0, 0]).lenenc(300).u32(80_400);
    for (bytes, times, size) in
        [(&head, (None, None), None), (&with_times, (Some(1), Some(2)), Some(300)), (&same_time, (Some(9), Some(9)), Some(300))]
    {
        let Body::Begin(begin) = body(EventKind::GTID, &bytes.0) else { panic!() };
        assert_eq!(begin.gtid.map(|g| g.to_string()), Some(format!("{UUID_TEXT}:23")));
        assert_eq!((begin.has_statements, begin.last_committed, begin.sequence_number), (true, Some(4), Some(5)));
        assert_eq!(((begin.immediate_commit_us, begin.original_commit_us), begin.transaction_bytes), (times, size));
    }
    let anonymous = Put::default().u8(0).bytes(&[0; 16]).u64(0).0;
    assert!(matches!(body(EventKind::ANONYMOUS_GTID, &anonymous), Body::Begin(begin) if begin.gtid.is_none()));
    assert!(matches!(refused(EventKind::GTID, &anonymous), BinlogError::Malformed { .. }));
}

fn tagged(last_field: u64, fields: &Put) -> Vec<u8> {
    let rest = Put::default().varint(last_field).bytes(&fields.0).0;
    // Version and size are one byte each.
    Put::default().varint(1).varint(rest.len() as u64 + 2).bytes(&rest).0
}

#[test]
fn transactions_with_tags_are_named() {
    let uuid = UUID.iter().fold(Put::default().varint(1), |put, byte| put.varint(u64::from(*byte)));
    let name = |number: u64| Put::default().varint(0).varint(1).bytes(&uuid.0).varint(2).varint(number << 1);
    let tag = |put: Put, tag: &[u8]| put.varint(3).varint(tag.len() as u64).bytes(tag);
    let fields =
        tag(name(1 << 40), b"blue").varint(4).varint(6).varint(5).varint(8).varint(6).varint(1_700_000_000_000_000).varint(8).varint(77);
    let Body::Begin(begin) = body(EventKind::GTID_TAGGED, &tagged(12, &fields)) else { panic!() };
    assert_eq!(begin.gtid.map(|g| g.to_string()), Some(format!("{UUID_TEXT}:blue:{}", 1u64 << 40)));
    assert_eq!(
        (begin.has_statements, begin.last_committed, begin.sequence_number, begin.transaction_bytes),
        (true, Some(3), Some(4), Some(77))
    );
    assert_eq!((begin.immediate_commit_us, begin.original_commit_us), (Some(1_700_000_000_000_000), Some(1_700_000_000_000_000)));
    let later = fields.clone().varint(20).bytes(b"whatever it is");
    assert!(matches!(body(EventKind::GTID_TAGGED, &tagged(12, &later)), Body::Begin(b) if b.gtid.is_some()), "a field of a later version");
    for bad in [
        tagged(13, &fields),
        tagged(12, &tag(name(0), b"x")),
        tagged(12, &tag(name(1), b"1x")),
        tagged(12, &Put::default()),
        vec![1, 1],
        vec![2, 200],
    ] {
        decoder().event(event(EventKind::GTID_TAGGED, &bad)).unwrap_err();
    }
}

#[test]
fn variable_length_integers_are_those_of_the_documentation() {
    // libs/mysql/serialization/readme.md: 65535 takes three bytes, the first with two ones at its end.
    assert_eq!(Put::default().varint(65_535).0, [0b1111_1011, 0b1111_1111, 0b0000_0111]);
    for n in [0, 127, 128, 16_383, 16_384, (1 << 49) - 1, 1 << 49, (1 << 56) - 1, 1 << 56, u64::MAX >> 1] {
        let fields =
            UUID.iter().fold(Put::default().varint(1), |put, byte| put.varint(u64::from(*byte))).varint(2).varint(2).varint(6).varint(n);
        assert!(matches!(body(EventKind::GTID_TAGGED, &tagged(12, &fields)), Body::Begin(b) if b.immediate_commit_us == Some(n)), "{n}");
    }
}

#[test]
fn what_came_before_is_a_set() {
    let set: GtidSet = format!("{UUID_TEXT}:1-5:9:blue:1-3").parse().unwrap();
    assert!(matches!(body(EventKind::PREVIOUS_GTIDS, &set.encode()), Body::PreviousGtids(s) if s == set));
    let longer = [set.encode(), vec![0]].concat();
    assert!(matches!(refused(EventKind::PREVIOUS_GTIDS, &longer), BinlogError::Malformed { .. }));
}

#[test]
fn mariadbs_transactions_are_named() {
    let grouped = Put::default().u64(9).u32(1).u8(0x02 | 0x04).u64(33).0;
    let Body::MariadbBegin(begin) = body(EventKind::MARIADB_GTID, &grouped) else { panic!() };
    assert_eq!(
        (begin.gtid.to_string(), begin.commit_id, begin.is_standalone, begin.is_transactional),
        ("1-7-9".to_owned(), Some(33), false, true)
    );
    let list = Put::default().u32(2 | 1 << 28).u32(0).u32(1).u64(5).u32(3).u32(2).u64(8).0;
    assert!(matches!(body(EventKind::MARIADB_GTID_LIST, &list), Body::MariadbPosition(p) if p.to_string() == "0-1-5,3-2-8"));
}

#[test]
fn small_events() {
    assert!(matches!(body(EventKind::HEARTBEAT, b"binlog.000009"), Body::Heartbeat(h) if (&*h.file, h.at) == ("binlog.000009", 1000)));
    let v2 = Put::default().lenenc(1).counted(b"binlog.000009").lenenc(2).lenenc(9).u8(254).u64(1 << 33).lenenc(0).0;
    assert!(matches!(body(EventKind::HEARTBEAT_V2, &v2), Body::Heartbeat(h) if (&*h.file, h.at) == ("binlog.000009", 1 << 33)));
    assert!(matches!(body(EventKind::ROWS_QUERY, b"\x08DELETE FROM t"), Body::Statement(s) if &s[..] == b"DELETE FROM t"));
    assert!(matches!(body(EventKind::INCIDENT, b"\x01\x00\x04LOST"), Body::Incident(i) if (i.number, &*i.message) == (1, "LOST")));
    let prepare = Put::default().u8(1).u32(7).u32(1).u32(2).bytes(b"xyz").0;
    assert!(matches!(body(EventKind::XA_PREPARE, &prepare), Body::XaPrepare(p) if p.is_one_phase && &p.xa.bqual[..] == b"yz"));
    assert!(
        matches!(body(EventKind::BINLOG_CHECKPOINT, &Put::default().u32(3).bytes(b"b.1").0), Body::Checkpoint { file } if &*file == "b.1")
    );
    assert!(matches!(body(EventKind::STOP, b""), Body::Other));
    assert_eq!(refused(EventKind::START_ENCRYPTION, &[1; 17]), BinlogError::Encrypted);
}

#[test]
fn what_is_not_known_is_passed_over_only_where_the_server_says_so() {
    const LATER: EventKind = EventKind(199);
    const IGNORABLE: u16 = 0x80;
    assert_eq!(refused(LATER, b"x"), BinlogError::UnknownEvent { kind: LATER });
    assert!(matches!(decoder().event(flagged(LATER, IGNORABLE, b"x")).unwrap().body, Body::Other));
}

#[test]
fn a_row_event_needs_its_table_map() {
    let insert = rows(EventKind::WRITE_ROWS, 5, 1, &[1], &[0, 7]);
    assert_eq!(decoder().event(insert.clone()).unwrap_err(), BinlogError::UnknownTable { table_id: 5 });
    let mut decoder = decoder();
    decoder.event(table_map(5, &[(1, &[])], &[])).unwrap();
    assert!(decoder.event(insert).is_ok());
    decoder.event(format("8.4.2", 0)).unwrap();
    let insert = rows(EventKind::WRITE_ROWS, 5, 1, &[1], &[0, 7]);
    assert!(decoder.event(insert).is_err(), "a new file begins with new table numbers");
    let empty = rows(EventKind::DELETE_ROWS, 0xff_ffff, 0, &[], &[]);
    assert!(matches!(decoder.event(empty).unwrap().body, Body::Rows(r) if r.table.is_none() && r.ends_statement));
}

#[test]
fn the_same_table_map_is_the_same_value() {
    let mut decoder = Decoder::new(Limits { n_tables_max: 3, ..Limits::default() });
    let mut map = |id, kind: u8| match decoder.event(table_map(id, &[(kind, &[])], &[])).map(|e| e.body) {
        Ok(Body::TableMap(map)) => Ok(map),
        Ok(_) => panic!(),
        Err(e) => Err(e),
    };
    let first = map(1, 1).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &map(1, 1).unwrap()));
    assert!(!std::sync::Arc::ptr_eq(&first, &map(1, 3).unwrap()));
    assert!(map(2, 1).is_ok() && map(3, 1).is_ok());
    assert!(matches!(map(4, 1), Err(BinlogError::Limit { name: "n_tables_max", .. })), "four tables in one statement");
}

fn payload(method: u64, uncompressed: usize, bytes: &[u8]) -> Bytes {
    let field = |put: Put, kind: usize, value: Put| put.lenenc(kind).counted(&value.0);
    let put = field(Put::default(), 2, Put::default().lenenc(method as usize));
    let put = field(put, 3, Put::default().lenenc(uncompressed));
    let put = field(put, 1, Put::default().lenenc(bytes.len())).lenenc(0).bytes(bytes);
    event(EventKind::TRANSACTION_PAYLOAD, &put.0)
}

fn transaction() -> Vec<u8> {
    let begin = Put::default().u32(5).u32(0).u8(0).u16(0).u16(0).bytes(b"\0BEGIN").0;
    let xid = event(EventKind::XID, &7u64.to_le_bytes());
    let insert = rows(EventKind::WRITE_ROWS, 5, 1, &[1], &[0, 7]);
    [event(EventKind::QUERY, &begin), table_map(5, &[(1, &[])], &[]), insert, xid].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The kinds of the events in it, or why it cannot be read.
fn unpacked(limits: Limits, payload: Bytes) -> Result<Vec<EventKind>, BinlogError> {
    let mut decoder = Decoder::new(limits);
    let Body::Payload(mut payload) = decoder.event(payload)?.body else { panic!() };
    let mut kinds = Vec::new();
    while let Some(event) = payload.next(&mut decoder)? {
        kinds.push(event.header.kind);
    }
    Ok(kinds)
}

#[test]
fn a_compressed_transaction_gives_its_events() {
    let plain = transaction();
    let want = [EventKind::QUERY, EventKind::TABLE_MAP, EventKind::WRITE_ROWS, EventKind::XID];
    for compressed in [payload(0, plain.len(), &zstd(&plain)), payload(255, plain.len(), &plain)] {
        assert_eq!(unpacked(Limits::default(), compressed).unwrap(), want);
    }
}

#[test]
fn a_compressed_transaction_cannot_grow_without_bound() {
    let small = Limits { transaction_bytes_max: 1000, event_bytes_max: 500, ..Limits::default() };
    let bomb = event(EventKind::ROWS_QUERY, &vec![0; 10 << 20]);
    let compressed = zstd(&bomb);
    assert!(compressed.len() < 2000);
    let limits = |name| move |e: &BinlogError| matches!(e, BinlogError::Limit { name: n, .. } if *n == name);
    assert!(
        unpacked(Limits { event_bytes_max: 5000, ..small }, payload(0, bomb.len(), &compressed))
            .is_err_and(|e| limits("transaction_bytes_max")(&e))
    );
    assert!(
        unpacked(Limits { event_bytes_max: 5000, ..small }, payload(0, 999, &compressed)).is_err_and(|e| limits("event_bytes_max")(&e))
    );
    let many: Vec<u8> = event(EventKind::XID, &[0; 8]).repeat(100);
    let lied = unpacked(Limits::default(), payload(0, 999, &zstd(&many))).unwrap_err();
    assert!(matches!(lied, BinlogError::Malformed { why: "more comes out of it than it says", .. }), "{lied:?}");
}

#[test]
fn a_broken_compressed_transaction_is_refused() {
    let plain = transaction();
    let nested = payload(255, 10, &plain);
    let cases = [
        payload(0, plain.len(), &plain),
        payload(0, plain.len(), &zstd(&plain)[..40]),
        payload(255, plain.len(), &plain[..plain.len() - 1]),
        payload(255, plain.len(), &plain[..10]),
        payload(1, plain.len(), &plain),
        payload(255, nested.len(), &nested),
        event(EventKind::TRANSACTION_PAYLOAD, &[0]),
        event(EventKind::TRANSACTION_PAYLOAD, &[1, 1, 9, 2, 1, 255, 0, 1]),
    ];
    for (i, case) in cases.into_iter().enumerate() {
        assert!(unpacked(Limits::default(), case).is_err(), "{i}");
    }
}
