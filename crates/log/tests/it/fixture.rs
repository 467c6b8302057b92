//! A journal that version 1 wrote must open for ever.
//!
//! The folder was written by `write_fixture` below, which still writes the same bytes; a new version gets a folder of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use expect_test::expect;
use mulgil_disk::{Disk, OpenMode, RealDisk};
use mulgil_log::*;
use mulgil_model::ids::Offset;
use mulgil_model::time::{EventTime, ReceiveTime};

use crate::harness::*;

fn fixture() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("testdata/journal-v1")
}

/// Three segments, two topics, headers, progress, a clean stop.
fn write_fixture(dir: &Path) {
    let hands = Hands::default();
    let config = JournalConfig { segment_bytes: 500, ..JournalConfig::new(dir) };
    let (journal, _) = Journal::open(config, Arc::new(RealDisk), hands.clock()).unwrap();
    for i in 0..9i64 {
        hands.set(1_700_000_000_000_000 + i * 1_000);
        let mut builder = RecordsBuilder::new();
        let event = EventTime::from_micros(1_600_000_000_000_000 - i);
        builder.push(b"005930", &[("schema", b"7")], format!("trade {i}").as_bytes(), event, ReceiveTime::from_micros(i));
        builder.push("삼성".as_bytes(), &[], &[0, 255], EventTime::from_micros(i64::MIN), ReceiveTime::from_micros(i64::MAX));
        let to = at(["trades", "trades.bars.1m"][(i % 2) as usize], (i % 2) as u32);
        let progress = vec![advance(&owner("source/simulator"), &to, i as u64 + 1)];
        journal.commit(Commit { appends: vec![Append { to, records: builder.finish() }], progress }).unwrap();
    }
}

/// A test must not change the fixture, and opening writes; so it is opened elsewhere.
fn copy_of_fixture() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    RealDisk.create_dir_all(&copy.path().join("journal")).unwrap();
    for entry in RealDisk.list(&fixture().join("journal")).unwrap() {
        let bytes = mulgil_disk::read_whole(&RealDisk, &fixture().join("journal").join(&entry.name), 1 << 20).unwrap();
        RealDisk.open(&copy.path().join("journal").join(&entry.name), OpenMode::Create).unwrap().append(&bytes).unwrap();
    }
    copy
}

#[test]
fn version_1_opens_and_reads_exactly() {
    let copy = copy_of_fixture();
    let (journal, opened) = Journal::open(JournalConfig::new(copy.path()), Arc::new(RealDisk), Hands::default().clock()).unwrap();
    let mut text = format!("{} segments, closed: {}\n", opened.n_segments, opened.was_closed);
    for partition in journal.topics() {
        let position = journal.progress(&owner("source/simulator"), &partition.at).unwrap().unwrap();
        text += &format!("{} {}..{} {} bytes, progress {position}\n", partition.at, partition.first, partition.next, partition.bytes);
        for r in journal.read(&partition.at, Offset(0), ReadLimit::records(100)).unwrap().iter() {
            let (key, value) = (String::from_utf8_lossy(r.key), r.value.escape_ascii());
            let headers: Vec<_> = r.headers().map(|(n, v)| format!("{n}={}", v.escape_ascii())).collect();
            let times = format!("{} {} {}", r.append_time.0, r.event_time.0, r.receive_time.0);
            text += &format!("  {} {times} {key} {headers:?} {value}\n", r.offset);
        }
    }
    expect![[r#"
        5 segments, closed: true
        trades/0 0..10 535 bytes, progress 9.0
          0 1700000000000000 1600000000000000 0 005930 ["schema=7"] trade 0
          1 1700000000000000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
          2 1700000000002000 1599999999999998 2 005930 ["schema=7"] trade 2
          3 1700000000002000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
          4 1700000000004000 1599999999999996 4 005930 ["schema=7"] trade 4
          5 1700000000004000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
          6 1700000000006000 1599999999999994 6 005930 ["schema=7"] trade 6
          7 1700000000006000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
          8 1700000000008000 1599999999999992 8 005930 ["schema=7"] trade 8
          9 1700000000008000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
        trades.bars.1m/1 0..8 460 bytes, progress 8.0
          0 1700000000001000 1599999999999999 1 005930 ["schema=7"] trade 1
          1 1700000000001000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
          2 1700000000003000 1599999999999997 3 005930 ["schema=7"] trade 3
          3 1700000000003000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
          4 1700000000005000 1599999999999995 5 005930 ["schema=7"] trade 5
          5 1700000000005000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
          6 1700000000007000 1599999999999993 7 005930 ["schema=7"] trade 7
          7 1700000000007000 -9223372036854775808 9223372036854775807 삼성 [] \x00\xff
    "#]]
    .assert_eq(&text);
    let verified = journal.verify(&mut |_| {}).unwrap();
    assert_eq!((verified.n_commits, verified.n_records, verified.damage), (9, 18, vec![]));
    journal.commit(append(&at("trades", 0), &["it goes on"])).unwrap();
}

#[test]
fn todays_code_still_writes_version_1() {
    let folder = tempfile::tempdir().unwrap();
    write_fixture(folder.path());
    let names = |dir: &Path| RealDisk.list(&dir.join("journal")).unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() && !fixture().exists() {
        RealDisk.create_dir_all(&fixture().join("journal")).unwrap();
        write_fixture(&fixture());
        RealDisk.remove(&fixture().join("lock")).unwrap();
    }
    assert_eq!(names(folder.path()), names(&fixture()));
    for entry in names(folder.path()) {
        let read = |dir: &Path| mulgil_disk::read_whole(&RealDisk, &dir.join("journal").join(&entry.name), 1 << 20).unwrap();
        assert_eq!(read(folder.path()), read(&fixture()), "{}", entry.name);
    }
}
