//! Sequences of messages, each written as one line: what comes out, where, and what may be acknowledged.

use super::super::pgoutput::EPOCH_US;
use super::super::shapes::Background;
use super::super::streams::Spill;
use super::*;
use mulgil_disk::MemDisk;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BOUNDS: Bounds = Bounds { rows_max: 1_000, bytes_max: 1 << 20 };

fn decoder(from: Reached, bounds: Bounds) -> Decoder {
    let shapes = Shapes::new("db".into(), &["public.t".into()], BTreeMap::new());
    let spill = Spill { disk: Arc::new(MemDisk::new(1)), dir: "/spill".into(), memory_bytes_max: 100 };
    Decoder::new("db".into(), shapes, Streams::open(spill).unwrap(), bounds, from)
}

fn reached(commit: u64, ordinal: u64, flush_lsn: u64) -> Reached {
    Reached { position: Position::new(commit, ordinal), flush_lsn }
}

/// One message: `begin 100 7` (LSN, xid), `commit 100 120` (LSN, end), `relation 1 t`, `insert 1 a`, `truncate 1,2`, `message 50 p`,
/// `start 7`, `stop`, `abort 7 8`, `end 7 100 120`; `@8` in front: within a stream, of this (sub)transaction.
fn bytes(line: &str) -> Bytes {
    let (xid, line) = match line.strip_prefix('@') {
        Some(rest) => rest.split_once(' ').map(|(x, l)| (Some(x.parse::<u32>().unwrap()), l)).unwrap(),
        None => (None, line),
    };
    let words: Vec<&str> = line.split(' ').collect();
    let n32 = |at: usize| words[at].parse::<u32>().unwrap().to_be_bytes().to_vec();
    let n64 = |at: usize| words[at].parse::<u64>().unwrap().to_be_bytes().to_vec();
    let time = vec![0; 8];
    let cell = |text: &str| [b"t".to_vec(), (text.len() as u32).to_be_bytes().to_vec(), text.into()].concat();
    let (tag, body) = match words[0] {
        "begin" => (b'B', [n64(1), time, n32(2)].concat()),
        "commit" => (b'C', [vec![0], n64(1), n64(2), time].concat()),
        "relation" => {
            (b'R', [n32(1), b"public\0".to_vec(), words[2].into(), b"\0d\0\x01\x01v\0\0\0\0\x19\xff\xff\xff\xff".to_vec()].concat())
        }
        "insert" => (b'I', [n32(1), b"N\0\x01".to_vec(), cell(words[2])].concat()),
        "truncate" => {
            let oids: Vec<u8> = words[1].split(',').flat_map(|o| o.parse::<u32>().unwrap().to_be_bytes()).collect();
            (b'T', [((oids.len() / 4) as u32).to_be_bytes().to_vec(), vec![0], oids].concat())
        }
        "message" => (b'M', [vec![u8::from(words[1] == "0")], n64(1), words[2].into(), vec![0, 0, 0, 0, 0]].concat()),
        "start" => (b'S', [n32(1), vec![1]].concat()),
        "stop" => (b'E', vec![]),
        "abort" => (b'A', [n32(1), n32(2)].concat()),
        "end" => (b'c', [n32(1), vec![0], n64(2), n64(3), time].concat()),
        other => panic!("{other}"),
    };
    let xid = xid.map_or(vec![], |x| x.to_be_bytes().to_vec());
    [vec![tag], xid, body].concat().into()
}

fn obey(decoder: &mut Decoder, asks: Asks) {
    if let Asks::Shape(relation) = asks {
        decoder.shapes.learn(&relation, &Background::default());
    }
}

fn feed(decoder: &mut Decoder, script: &str) -> Result<(), DecoderError> {
    for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let asks = decoder.feed(bytes(line))?;
        obey(decoder, asks);
        while let Some(asks) = decoder.feed_replay()? {
            obey(decoder, asks);
        }
    }
    Ok(())
}

fn show(changes: &[Change]) -> Vec<String> {
    let text = |row: &Row| match &row[0] {
        Datum::Text(b) => String::from_utf8(b.to_vec()).unwrap(),
        other => format!("{other:?}"),
    };
    let what = |c: &Change| match &c.what {
        What::Row { after: Some(row), .. } => text(row),
        What::Message { prefix, .. } => format!("message {prefix}"),
        other => format!("{:?}", other.table().map(ToString::to_string)),
    };
    changes.iter().map(|c| format!("{} {}", c.position, what(c))).collect()
}

const TWO: &str = "
    begin 100 7
    relation 1 t
    relation 2 other
    insert 1 a
    insert 2 x
    insert 1 b
    commit 100 120
    begin 200 8
    insert 1 c
    commit 200 230";

#[test]
fn positions_count_what_is_not_wanted_too() {
    let mut d = decoder(reached(50, 0, 50), BOUNDS);
    feed(&mut d, TWO).unwrap();
    assert_eq!(d.reached(), reached(200, 2, 230));
    let changes = d.take_changes();
    assert_eq!(show(&changes), ["100.1 a", "100.3 b", "200.1 c"]);
    assert_eq!(changes[0].origin.committed_us, EPOCH_US);
    assert!(Arc::ptr_eq(&changes[0].origin, &changes[1].origin));
}

#[test]
fn what_was_given_before_is_skipped_at_every_place() {
    let all = ["100.1 a", "100.3 b", "200.1 c"];
    for (commit, ordinal, n) in [(100, 0, 0), (100, 1, 1), (100, 2, 1), (100, 3, 2), (100, 4, 2), (200, 0, 2), (200, 1, 3), (200, 2, 3)] {
        let mut d = decoder(reached(commit, ordinal, 1), BOUNDS);
        feed(&mut d, TWO).unwrap();
        assert_eq!(show(&d.take_changes()), all[n..], "{commit}.{ordinal}");
        assert_eq!(d.reached().position, Position::new(200, 2), "{commit}.{ordinal}");
    }
}

#[test]
fn half_a_transaction_is_acknowledged_only_up_to_its_commit_record() {
    let mut d = decoder(reached(50, 0, 50), BOUNDS);
    feed(&mut d, "begin 100 7\nrelation 1 t\ninsert 1 a").unwrap();
    assert_eq!(d.reached(), reached(100, 1, 100));
    d.idle_until(150);
    assert_eq!(d.reached(), reached(100, 1, 100), "a keepalive in the middle says nothing");
    feed(&mut d, "commit 100 120").unwrap();
    assert_eq!(d.reached(), reached(100, 2, 120));
    d.idle_until(110);
    assert_eq!(d.reached(), reached(110, 0, 110));
    d.idle_until(100);
    assert_eq!(d.reached(), reached(110, 0, 110), "never back");
}

#[test]
fn streamed_transactions_come_at_their_commit() {
    let mut d = decoder(reached(50, 0, 50), BOUNDS);
    let script = "
        start 7
        @7 relation 1 t
        @7 insert 1 a
        @8 insert 1 rolled-back
        stop
        begin 90 20
        relation 1 t
        insert 1 between
        commit 90 95
        start 9
        @9 relation 1 t
        @9 insert 1 whole
        stop
        start 7
        @7 insert 1 b
        @7 message 0 app
        stop
        abort 7 8
        abort 9 9
        end 7 100 120";
    feed(&mut d, script).unwrap();
    assert_eq!(show(&d.take_changes()), ["90.1 between", "100.1 a", "100.2 b", "100.3 message app"]);
    assert_eq!(d.reached(), reached(100, 4, 120));
}

#[test]
fn heartbeats_move_the_place_and_are_no_changes() {
    let mut d = decoder(reached(50, 0, 50), BOUNDS);
    feed(&mut d, &format!("begin 100 7\nmessage 0 {HEARTBEAT}\ncommit 100 120")).unwrap();
    assert!(!d.has_changes());
    assert_eq!(d.reached(), reached(100, 2, 120));
    // Outside of transactions a message has the place of its record's last byte, before a commit that begins behind it.
    feed(&mut d, "message 200 app\nbegin 200 8\nmessage 0 app\ncommit 200 220").unwrap();
    assert_eq!(show(&d.take_changes()), ["199.1 message app", "200.1 message app"]);
}

#[test]
fn a_truncate_is_one_change_per_table() {
    let mut d = decoder(reached(50, 0, 50), BOUNDS);
    feed(&mut d, "begin 100 7\nrelation 1 t\nrelation 2 other\ntruncate 2,1\ninsert 1 a\ncommit 100 120").unwrap();
    assert_eq!(show(&d.take_changes()), ["100.2 Some(\"public.t\")", "100.3 a"]);
}

#[test]
fn a_batch_is_full_by_rows_and_by_bytes() {
    let rows = "begin 100 7\nrelation 1 t\n".to_owned() + &"insert 1 a\n".repeat(3);
    let mut d = decoder(reached(50, 0, 50), Bounds { rows_max: 3, bytes_max: 1 << 20 });
    feed(&mut d, &rows).unwrap();
    assert!(d.is_full());
    d.take_changes();
    assert!(!d.is_full());
    let mut d = decoder(reached(50, 0, 50), Bounds { rows_max: 1_000, bytes_max: 500 });
    feed(&mut d, &format!("begin 100 7\nrelation 1 t\ninsert 1 {}", "x".repeat(500))).unwrap();
    assert!(d.is_full());
}

#[test]
fn messages_out_of_order_are_errors() {
    for script in [
        "commit 100 120",
        "insert 1 a",
        "begin 100 7\ninsert 1 a",
        "begin 100 7\nbegin 101 8",
        "stop",
        "abort 7 8",
        "end 7 100 120",
        "begin 1 7\nstart 8\nstop\nend 8 100 120",
    ] {
        assert!(feed(&mut decoder(reached(50, 0, 50), BOUNDS), script).is_err(), "{script}");
    }
}

proptest! {
    /// A hostile server may send anything in any order.
    #[test]
    fn arbitrary_sequences_never_panic(lines in proptest::collection::vec(proptest::sample::select(vec![
        "begin 100 7", "commit 100 120", "relation 1 t", "relation 2 other", "insert 1 a", "insert 2 a", "insert 3 a", "truncate 1,2", "message 50 p",
        "message 0 p", "start 7", "start 8", "stop", "@7 insert 1 a", "@8 insert 1 b", "@7 relation 1 t", "abort 7 8", "abort 7 7", "end 7 100 120",
        "end 8 130 140", "@7 begin 100 7",
    ]), 0..30)) {
        let mut d = decoder(reached(50, 0, 50), BOUNDS);
        for line in lines {
            if feed(&mut d, line).is_err() {
                break;
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10)) {
        let mut d = decoder(reached(50, 0, 50), BOUNDS);
        for message in messages {
            if d.feed(message.into()).is_err() {
                break;
            }
        }
    }
}
