//! Any bytes at all: no panic, no end without an error or an event, no memory beyond what came.

use super::build::{event, format, json, rows, table_map};
use crate::datum::Datum;
use crate::mysql::binlog::decoder::{Body, Decoder, Event, Limits};
use crate::mysql::binlog::error::Result;
use crate::mysql::binlog::file::File;
use crate::mysql::binlog::header::EventKind;
use crate::mysql::binlog::shape::Shape;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

const PLAIN: &[u8] = include_bytes!("../../../../testdata/binlog/mariadb-10.11.binlog");
const COMPRESSED: &[u8] = include_bytes!("../../../../testdata/binlog/mariadb-10.11-compressed.binlog");

/// What may come of so many bytes: the longest value that is made of another is hexadecimal, three times as long, and every value has a place.
const HEAP_PER_BYTE_MAX: usize = 16;

#[derive(Default)]
struct Seen {
    n_events: usize,
    n_images: usize,
    heap_bytes: usize,
    shown: Vec<String>,
}

fn small() -> Limits {
    Limits { event_bytes_max: 1 << 20, transaction_bytes_max: 1 << 20, ..Limits::default() }
}

impl Seen {
    fn event(&mut self, decoder: &mut Decoder, event: Event) -> Result<()> {
        self.n_events += 1;
        match event.body {
            Body::Rows(rows) => {
                let Some(map) = &rows.table else { return Ok(()) };
                let shape = Shape::new(map, None)?;
                for image in rows.images(&shape) {
                    let image = image?;
                    self.n_images += 1;
                    self.heap_bytes += image.before.iter().chain(&image.after).flatten().map(Datum::heap_bytes).sum::<usize>();
                    self.shown.push(format!("{:?} {image:?}", rows.op));
                }
            }
            Body::Payload(mut payload) => {
                while let Some(inner) = payload.next(decoder)? {
                    self.event(decoder, inner)?;
                }
            }
            Body::Query(query) => drop(query.text().into_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// Every event by itself, whether or not the one before it could be read.
fn read(events: impl Iterator<Item = Bytes>) -> Seen {
    let (mut decoder, mut seen) = (Decoder::new(small()), Seen::default());
    for event in events {
        let _ = decoder.event(event).and_then(|event| seen.event(&mut decoder, event));
    }
    seen
}

fn events(file: &'static [u8]) -> Vec<Bytes> {
    File::new(Bytes::from_static(file)).unwrap().collect::<Result<_>>().unwrap()
}

fn whole(file: &'static [u8]) -> (Seen, BTreeMap<&'static str, usize>) {
    let (mut decoder, mut seen, mut kinds) = (Decoder::new(small()), Seen::default(), BTreeMap::new());
    for event in events(file) {
        let event = decoder.event(event).unwrap();
        *kinds.entry(event.header.kind.name().unwrap()).or_default() += 1;
        seen.event(&mut decoder, event).unwrap();
    }
    (seen, kinds)
}

#[test]
fn the_files_of_a_real_server_are_read_whole() {
    let (plain, kinds) = whole(PLAIN);
    assert_eq!((kinds["WRITE_ROWS_V1"], kinds["UPDATE_ROWS_V1"], kinds["DELETE_ROWS_V1"]), (3, 1, 1), "{kinds:?}");
    assert_eq!(plain.n_images, 1 + 2 + 1 + 2 + 1);
    let (compressed, kinds) = whole(COMPRESSED);
    assert!(kinds["WRITE_ROWS_COMPRESSED_V1"] >= 2 && kinds["QUERY_COMPRESSED"] > 0, "{kinds:?}");
    assert_eq!(compressed.n_images, plain.n_images);
    // Of an insert of all columns the minimal image is the full one.
    assert_eq!(compressed.shown[0], plain.shown[0]);
    assert!(plain.shown[0].contains("Decimal(b\"-12345678901234.567891\")"), "{}", plain.shown[0]);
    assert!(plain.shown[1].contains("Odd(b\"0000-00-00 00:00:00.000\")"), "{}", plain.shown[1]);
}

#[test]
fn a_file_ends_with_an_event_or_an_error() {
    for n in 0..PLAIN.len() {
        let Ok(file) = File::new(Bytes::from_static(&PLAIN[..n])) else {
            assert!(n < 4);
            continue;
        };
        let n_bytes: usize = file.filter_map(Result::ok).map(|event| event.len()).sum();
        let is_whole = File::new(Bytes::from_static(&PLAIN[..n])).unwrap().all(|event| event.is_ok());
        assert_eq!(is_whole, n_bytes + 4 == n, "{n}");
    }
    assert!(File::new(Bytes::from_static(b"\xfdbin....")).is_err());
}

/// With the length of its header set right, so that it is its inside that is cut, and without a checksum.
fn cut(event: &Bytes, at: usize) -> Bytes {
    let mut bytes = event[..at].to_vec();
    bytes[9..13].copy_from_slice(&(at as u32).to_le_bytes());
    bytes.into()
}

/// Files whose events have no checksum to hide behind.
fn without_checksums(file: &'static [u8]) -> Vec<Bytes> {
    let mut stripped = vec![format("10.11.19-MariaDB", 0)];
    let has_checksums = file == PLAIN;
    stripped.extend(events(file).iter().skip(1).map(|e| if has_checksums { cut(e, e.len() - 4) } else { e.clone() }));
    stripped
}

#[test]
fn events_that_end_early_are_refused_or_shorter() {
    for file in [PLAIN, COMPRESSED] {
        let all = without_checksums(file);
        for (i, event) in all.iter().enumerate().skip(1) {
            // The events before it, for the table maps.
            let mut decoder = Decoder::new(small());
            let mut seen = Seen::default();
            all[..i].iter().for_each(|e| drop(decoder.event(e.clone())));
            for at in 19..event.len() {
                let _ = decoder.event(cut(event, at)).and_then(|e| seen.event(&mut decoder, e));
            }
        }
    }
}

fn flips() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6)
}

/// The lengths in the headers are kept, so that the damage is inside.
fn damaged(events: &[Bytes], flips: &[(prop::sample::Index, u8)]) -> Vec<Bytes> {
    let mut events: Vec<Vec<u8>> = events.iter().map(|e| e.to_vec()).collect();
    let total: usize = events.iter().map(Vec::len).sum();
    for (index, flip) in flips {
        let mut at = index.index(total);
        let event = events
            .iter_mut()
            .find(|e| {
                let is_it = at < e.len();
                if !is_it {
                    at -= e.len();
                }
                is_it
            })
            .unwrap();
        if !(9..13).contains(&at) {
            event[at] ^= flip;
        }
    }
    events.into_iter().map(Bytes::from).collect()
}

/// Every event that MySQL alone writes, and that has the most to lose.
fn mysql_events() -> Vec<Bytes> {
    let document = json(&serde_json::json!({"a": [1, {"b": "text"}], "c": 1.5, "d": [70000, null, true]}), false);
    let blob = [&(document.len() as u32).to_le_bytes()[..], &document].concat();
    let value = json(&serde_json::json!([1]), false);
    let diff = [&[0, 3][..], b"$.c", &[value.len() as u8], &value].concat();
    let diff = [&(diff.len() as u32).to_le_bytes()[..], &diff].concat();
    let columns: [(u8, &[u8]); 6] = [(245, &[4]), (18, &[6]), (246, &[20, 6]), (254, &[247, 1]), (16, &[1, 1]), (15, &[200, 0])];
    let optional =
        [(1, vec![0]), (3, vec![45]), (4, b"\x01a\x01b\x01c\x01d\x01e\x01f".to_vec()), (6, b"\x02\x01x\x01y".to_vec()), (11, vec![45])];
    let rest = [&[0x99, 0xb2, 0x01, 0x02, 0x03, 0, 0, 1][..], &[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 1], &[1], &[1, 1], b"\x03abc"].concat();
    let image = |json: &[u8]| [&[0][..], json, &rest].concat();
    let set = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:9:blue:1-3".parse::<crate::mysql::gtid::GtidSet>().unwrap();
    vec![
        table_map(5, &columns, &optional),
        rows(EventKind::WRITE_ROWS, 5, 6, &[0x3f], &image(&blob)),
        rows(EventKind::PARTIAL_UPDATE_ROWS, 5, 6, &[0x3f, 0x3f], &[image(&blob), vec![1, 1], image(&diff)].concat()),
        event(EventKind::PREVIOUS_GTIDS, &set.encode()),
        event(EventKind::GTID, &[0; 60]),
        event(EventKind::HEARTBEAT_V2, b"\x01\x03b.1\x02\x01\x09\x00"),
    ]
}

#[test]
fn the_events_that_are_damaged_are_good_before() {
    let (mut decoder, mut seen) = (Decoder::new(small()), Seen::default());
    for event in mysql_events().into_iter().take(4) {
        let event = decoder.event(event).unwrap();
        seen.event(&mut decoder, event).unwrap();
    }
    assert_eq!(seen.n_images, 2);
    assert!(seen.shown[1].contains(r#"\"c\": [1]"#), "{}", seen.shown[1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_are_refused_or_read(kind: u8, flags: u16, body in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = super::build::flagged(EventKind(kind), flags, &body);
        let n = bytes.len();
        let seen = read([bytes, Bytes::from(body)].into_iter());
        prop_assert!(seen.heap_bytes <= HEAP_PER_BYTE_MAX * n + 1024);
    }

    #[test]
    fn damaged_events_of_a_real_server_are_refused_or_read(flips in flips(), is_plain: bool) {
        let events = without_checksums(if is_plain { PLAIN } else { COMPRESSED });
        let seen = read(damaged(&events, &flips).into_iter());
        prop_assert!(seen.heap_bytes <= 4 << 20, "{}", seen.heap_bytes);
    }

    #[test]
    fn damaged_events_of_mysql_are_refused_or_read(flips in flips()) {
        let events = mysql_events();
        let seen = read(damaged(&events, &flips).into_iter());
        prop_assert!(seen.heap_bytes <= 1 << 20, "{}", seen.heap_bytes);
    }

    /// With checksums no damage is missed.
    #[test]
    fn checksums_find_damage(flip in 1u8.., index: prop::sample::Index) {
        let mut decoder = Decoder::new(small());
        for event in events(PLAIN) {
            let mut bad = event.to_vec();
            let at = index.index(bad.len());
            // Only the format's event itself says that it is one, and that there are checksums.
            let says_so = decoder.format().is_none() && (at == 4 || at == bad.len() - 5);
            if !(9..13).contains(&at) && at != 17 && !says_so {
                bad[at] ^= flip;
                prop_assert!(decoder.event(bad.into()).is_err());
            }
            decoder.event(event).unwrap();
        }
    }
}
