//! Messages written by hand from the field lists of "Logical Replication Message Formats".

use super::*;
use proptest::prelude::*;

/// Fields of a message in the documentation's words.
#[derive(Default)]
struct Build(Vec<u8>);

impl Build {
    fn byte1(mut self, letter: char) -> Self {
        self.0.push(letter as u8);
        self
    }
    fn int8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }
    fn int16(mut self, n: i16) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }
    fn int32(mut self, n: i32) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }
    fn int64(mut self, n: i64) -> Self {
        self.0.extend(n.to_be_bytes());
        self
    }
    fn string(mut self, text: &str) -> Self {
        self.0.extend(text.as_bytes());
        self.int8(0)
    }
    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn text_cell(self, text: &str) -> Self {
        self.byte1('t').int32(text.len() as i32).bytes(text.as_bytes())
    }
}

fn m(letter: char) -> Build {
    Build::default().byte1(letter)
}

fn plain(build: Build) -> Message {
    let (xid, message) = decode(build.0.into(), false).unwrap();
    assert_eq!(xid, None);
    message
}

fn streamed(build: Build) -> (Option<u32>, Message) {
    decode(build.0.into(), true).unwrap()
}

fn cells(tuple: &Tuple) -> Vec<Cell<'_>> {
    tuple.cells().collect()
}

fn text(text: &'static str) -> Cell<'static> {
    Cell::Text(text.as_bytes())
}

#[test]
fn begin_and_commit() {
    assert_eq!(
        plain(m('B').int64(0x16_B374_D848).int64(1_000_000).int32(77)),
        Message::Begin { final_lsn: 0x16_B374_D848, committed_us: EPOCH_US + 1_000_000, xid: 77 }
    );
    assert_eq!(
        plain(m('C').int8(0).int64(5).int64(9).int64(-1)),
        Message::Commit { commit_lsn: 5, end_lsn: 9, committed_us: EPOCH_US - 1 }
    );
}

#[test]
fn origin_and_type() {
    assert_eq!(plain(m('O').int64(3).string("elsewhere")), Message::Origin { lsn: 3, name: "elsewhere".into() });
    assert_eq!(
        plain(m('Y').int32(16_400).string("public").string("mood")),
        Message::Type { oid: 16_400, schema: "public".into(), name: "mood".into() }
    );
}

#[test]
fn relation() {
    let body = |b: Build| {
        b.int32(16_385)
            .string("public")
            .string("t")
            .byte1('d')
            .int16(2)
            .int8(1)
            .string("id")
            .int32(20)
            .int32(-1)
            .int8(0)
            .string("n")
            .int32(1700)
            .int32(983_046)
    };
    let column = |is_key, name: &str, type_oid, typmod| RelationColumn { is_key, name: name.into(), type_oid, typmod };
    let expected = Message::Relation(Relation {
        oid: 16_385,
        schema: "public".into(),
        name: "t".into(),
        identity: Identity::Default,
        columns: vec![column(true, "id", 20, -1), column(false, "n", 1700, 983_046)],
    });
    assert_eq!(plain(body(m('R'))), expected);
    assert_eq!(streamed(body(m('R').int32(9))), (Some(9), expected));
    for (letter, identity) in [('d', Identity::Default), ('n', Identity::Nothing), ('f', Identity::Full), ('i', Identity::Index)] {
        let Message::Relation(r) = plain(m('R').int32(1).string("").string("t").byte1(letter).int16(0)) else { panic!() };
        assert_eq!((r.identity, r.schema.as_str()), (identity, "pg_catalog"));
    }
}

#[test]
fn insert_with_every_kind_of_column() {
    let body = |b: Build| b.int32(7).byte1('N').int16(4).text_cell("hi").byte1('n').byte1('u').byte1('b').int32(1).int8(0xff);
    let Message::Insert { relation: 7, new } = plain(body(m('I'))) else { panic!() };
    assert_eq!(cells(&new), [text("hi"), Cell::Null, Cell::Unchanged, Cell::Binary(&[0xff])]);
    let (Some(12), Message::Insert { relation: 7, .. }) = streamed(body(m('I').int32(12))) else { panic!() };
}

#[test]
fn update_with_nothing_a_key_or_a_whole_row_before() {
    let Message::Update { old: None, new, .. } = plain(m('U').int32(7).byte1('N').int16(1).text_cell("b")) else { panic!() };
    assert_eq!(cells(&new), [text("b")]);
    let with = |letter| m('U').int32(7).byte1(letter).int16(2).text_cell("a").byte1('n').byte1('N').int16(2).text_cell("b").byte1('u');
    let Message::Update { old: Some(Old::Key(old)), new, .. } = plain(with('K')) else { panic!() };
    assert_eq!((cells(&old), cells(&new)), (vec![text("a"), Cell::Null], vec![text("b"), Cell::Unchanged]));
    let Message::Update { old: Some(Old::Full(_)), .. } = plain(with('O')) else { panic!() };
}

#[test]
fn delete_with_a_key_or_a_whole_row() {
    let Message::Delete { relation: 7, old: Old::Key(_) } = plain(m('D').int32(7).byte1('K').int16(1).text_cell("a")) else { panic!() };
    let Message::Delete { old: Old::Full(_), .. } = plain(m('D').int32(7).byte1('O').int16(1).text_cell("a")) else { panic!() };
}

#[test]
fn truncate_with_its_options() {
    assert_eq!(
        plain(m('T').int32(2).int8(3).int32(7).int32(8)),
        Message::Truncate { relations: vec![7, 8], cascade: true, restart_identity: true }
    );
    assert_eq!(
        streamed(m('T').int32(5).int32(1).int8(2).int32(7)),
        (Some(5), Message::Truncate { relations: vec![7], cascade: false, restart_identity: true })
    );
}

#[test]
fn logical_message() {
    let content = Bytes::from_static(b"\0\xff!");
    assert_eq!(
        plain(m('M').int8(1).int64(40).string("audit").int32(3).bytes(&content)),
        Message::Logical { is_transactional: true, lsn: 40, prefix: "audit".into(), content }
    );
    let (Some(6), Message::Logical { is_transactional: false, .. }) = streamed(m('M').int32(6).int8(0).int64(40).string("").int32(0))
    else {
        panic!()
    };
}

#[test]
fn streams() {
    assert_eq!(plain(m('S').int32(9).int8(1)), Message::StreamStart { xid: 9, is_first: true });
    assert_eq!(streamed(m('E')), (None, Message::StreamStop));
    assert_eq!(
        plain(m('c').int32(9).int8(0).int64(5).int64(6).int64(0)),
        Message::StreamCommit { xid: 9, commit_lsn: 5, end_lsn: 6, committed_us: EPOCH_US }
    );
    assert_eq!(plain(m('A').int32(9).int32(10)), Message::StreamAbort { xid: 9, subxid: 10 });
    assert_eq!(plain(m('A').int32(9).int32(9).int64(1).int64(2)), Message::StreamAbort { xid: 9, subxid: 9 });
}

#[test]
fn two_phase_messages_are_understood() {
    let cases = [
        (m('b').int64(1).int64(2).int64(3), TwoPhase::BeginPrepare),
        (m('P').int8(0).int64(1).int64(2).int64(3), TwoPhase::Prepare),
        (m('K').int8(0).int64(1).int64(2).int64(3), TwoPhase::CommitPrepared),
        (m('r').int8(0).int64(1).int64(2).int64(3).int64(4), TwoPhase::RollbackPrepared),
        (m('p').int8(0).int64(1).int64(2).int64(3), TwoPhase::StreamPrepare),
    ];
    for (build, kind) in cases {
        assert_eq!(plain(build.int32(77).string("gid-1")), Message::TwoPhase { kind, xid: 77, gid: "gid-1".into() });
    }
}

#[test]
fn a_message_cut_anywhere_is_an_error() {
    let whole = [
        m('B').int64(1).int64(2).int32(3),
        m('R').int32(1).string("s").string("t").byte1('d').int16(1).int8(1).string("id").int32(20).int32(-1),
        m('U').int32(7).byte1('K').int16(1).text_cell("a").byte1('N').int16(2).text_cell("b").byte1('u'),
        m('T').int32(2).int8(3).int32(7).int32(8),
        m('M').int8(1).int64(40).string("audit").int32(3).bytes(b"abc"),
        m('c').int32(9).int8(0).int64(5).int64(6).int64(0),
        m('r').int8(0).int64(1).int64(2).int64(3).int64(4).int32(5).string("g"),
    ];
    for Build(bytes) in whole {
        for cut in 0..bytes.len() {
            assert!(decode(Bytes::copy_from_slice(&bytes[..cut]), false).is_err(), "{} cut at {cut}", bytes[0] as char);
        }
        assert!(decode(bytes.into(), false).is_ok());
    }
}

#[test]
fn counts_that_lie_allocate_nothing() {
    for build in
        [m('T').int32(-1).int8(0), m('R').int32(1).string("").string("").byte1('d').int16(-1), m('I').int32(1).byte1('N').int16(-1)]
    {
        assert!(decode(build.0.into(), false).is_err());
    }
    assert!(decode(m('I').int32(1).byte1('N').int16(1).byte1('t').int32(-1).0.into(), false).is_err());
    assert!(decode(m('M').int8(0).int64(0).string("").int32(-1).0.into(), false).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(tag in proptest::sample::select(b"BCORYIUDTMSEcAbPKrp?".to_vec()), rest in proptest::collection::vec(any::<u8>(), 0..120), in_stream: bool) {
        let bytes = Bytes::from([&[tag][..], &rest].concat());
        if let Ok((_, Message::Insert { new, .. } | Message::Update { new, .. })) = decode(bytes, in_stream) {
            prop_assert_eq!(new.cells().count(), new.len());
        }
    }

    /// Bytes that look more like tuples, so that the walk goes deeper.
    #[test]
    fn arbitrary_tuples_never_panic(cells in proptest::collection::vec((proptest::sample::select(b"ntub".to_vec()), 0u32..9, proptest::collection::vec(any::<u8>(), 0..6)), 0..8), n in 0i16..9) {
        let mut build = m('I').int32(1).byte1('N').int16(n);
        for (kind, length, bytes) in cells {
            build = build.int8(kind);
            if kind == b't' || kind == b'b' {
                build = build.int32(length as i32).bytes(&bytes);
            }
        }
        if let Ok((_, Message::Insert { new, .. })) = decode(build.0.into(), false) {
            prop_assert_eq!(new.cells().count(), new.len());
        }
    }
}
