//! Many files as one ordered stream, and its continuation at any row.

use super::formats::to_parquet;
use super::{RECEIVED, plan, strict};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::TimestampMicrosecondType;
use expect_test::expect;
use mulgil_connect::decode::{Format, Plan, decode};
use mulgil_connect::sources::file::{Replay, ReplayBatch, ReplayOptions};
use mulgil_model::position::Position;
use proptest::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const HEADER: &str = "symbol,event_time,price,quantity\n";

/// One CSV row per time; a negative time stands for a bad row.
fn csv(name: &str, times: &[i64]) -> String {
    let row = |(i, t): (usize, &i64)| if *t < 0 { format!("{name}{i},bad,1,1\n") } else { format!("{name}{i},{t},1,1\n") };
    times.iter().enumerate().map(row).fold(HEADER.to_owned(), |out, line| out + &line)
}

fn write(dir: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    let file = std::fs::File::create(&path).unwrap();
    match name.rsplit('.').next().unwrap() {
        "gz" => flate2::write::GzEncoder::new(file, flate2::Compression::fast()).write_all(content).unwrap(),
        "zst" => {
            let mut encoder = zstd::Encoder::new(file, 1).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
        _ => std::fs::write(&path, content).unwrap(),
    }
    path
}

fn open<P: AsRef<Path>>(paths: &[P], batch_rows: usize) -> Replay {
    Replay::open(paths, ReplayOptions { batch_rows, ..ReplayOptions::default() }, strict(), RECEIVED).unwrap()
}

/// Every row in order: `ordinal symbol`, or `ordinal ! file:line`.
fn rows_of(batches: &[ReplayBatch]) -> Vec<String> {
    let mut rows: Vec<(u64, String)> = Vec::new();
    for b in batches {
        let symbols = b.batch.column(0).as_string::<i32>();
        rows.extend(b.ordinals.iter().enumerate().map(|(i, o)| (*o, symbols.value(i).to_owned())));
        rows.extend(
            b.problems.iter().map(|p| (p.ordinal, format!("!{}:{}", p.file.file_name().unwrap().to_string_lossy(), p.problem.line))),
        );
    }
    assert!(batches.iter().all(|b| b.ordinals.is_sorted() && b.batch.num_rows() == b.ordinals.len()));
    rows.sort();
    rows.into_iter().map(|(o, text)| format!("{o} {text}")).collect()
}

fn all(replay: Replay) -> Vec<ReplayBatch> {
    replay.collect::<Result<_, _>>().unwrap()
}

#[test]
fn files_merge_by_time_then_order_then_row() {
    let dir = TempDir::new().unwrap();
    let a = write(&dir, "a.csv.zst", csv("a", &[10, 20, 20, 30]).as_bytes());
    let b = write(&dir, "b.csv.gz", csv("b", &[5, -1, 20, 25, 3000]).as_bytes());
    let c = write(&dir, "c", csv("c", &[-1, 1, 20]).as_bytes());
    let replay = open(&[&a, &b, &c], 3);
    let (done, total) = replay.progress();
    assert!(done == 0 && total > 100);
    expect![[r#"
        0 !c:2
        1 c1
        2 b0
        3 !b.csv.gz:3
        4 a0
        5 a1
        6 a2
        7 b2
        8 c2
        9 b3
        10 a3
        11 b4"#]]
    .assert_eq(&rows_of(&all(replay)).join("\n"));
    let mut replay = open(&[&a, &b, &c], 3);
    while replay.next_batch().unwrap().is_some() {}
    let (done, total) = replay.progress();
    assert_eq!(done, total);
}

#[test]
fn formats_and_packings_replay_alike() {
    let dir = TempDir::new().unwrap();
    let times: Vec<i64> = (0..5000).map(|i| i * 7).collect();
    let text = csv("a", &times);
    let batch = decode(&strict(), Format::Csv, text.as_bytes(), RECEIVED).batch;
    let ndjson = super::formats::to_ndjson(&batch);
    let one = |path: PathBuf| {
        let batches = all(open(&[path], 1_000));
        concat_batches(&batch.schema(), batches.iter().map(|b| &b.batch)).unwrap()
    };
    for (name, content) in [
        ("x.csv", text.as_bytes()),
        ("x.csv.gz", text.as_bytes()),
        ("x.csv.zst", text.as_bytes()),
        ("x.unknown.zst", text.as_bytes()),
        ("x.ndjson", ndjson.as_bytes()),
        ("x.jsonl.gz", ndjson.as_bytes()),
        ("x.log", ndjson.as_bytes()),
        ("x.parquet", &to_parquet(&batch)),
        ("plain", &to_parquet(&batch)),
    ] {
        assert_eq!(one(write(&dir, name, content)), batch, "{name}");
    }
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let dir = TempDir::new().unwrap();
    let say = |name: &str, content: &[u8]| {
        let path = write(&dir, name, content);
        let failure = Replay::open(&[path], ReplayOptions::default(), strict(), RECEIVED).and_then(|mut r| {
            while r.next_batch()?.is_some() {}
            Ok(())
        });
        failure.unwrap_err().to_string().replace(&*dir.path().to_string_lossy(), "DIR")
    };
    let mut torn = zstd::encode_all(csv("a", &[0; 1000]).as_bytes(), 1).unwrap();
    torn.truncate(torn.len() / 2);
    std::fs::write(dir.path().join("torn.csv.zst"), &torn).unwrap();
    let torn = Replay::open(&[dir.path().join("torn.csv.zst")], ReplayOptions::default(), strict(), RECEIVED);
    assert!(torn.and_then(|r| r.collect::<Result<Vec<_>, _>>()).is_err());
    let all = [
        say("a.csv", csv("a", &[10_000, 20_000, 14_999]).as_bytes()),
        say("b.csv", b"symbol,when,price\n"),
        say("c.json", b"[{}]"),
        say("d.bin", b"\x01\x02\x03"),
        say("e.parquet.gz", b"x"),
        say("f.parquet", b"PAR1xxxxxxxxxxxxxx"),
        Replay::open(&["/nowhere.csv"], ReplayOptions::default(), strict(), RECEIVED).err().unwrap().to_string(),
        Replay::open::<&str>(&[], ReplayOptions::default(), strict(), RECEIVED).err().unwrap().to_string(),
    ];
    expect![[r#"
        'DIR/a.csv' is not in time order: line 4 has 1970-01-01T00:00:14.999Z, more than 5000000 us before 1970-01-01T00:00:20Z on a line above; sort the file, or allow a larger tolerance
        cannot read 'DIR/b.csv': line 1: 'when' is not a field of stream 'trades'
        'DIR/c.json' is a JSON list, which cannot be replayed piece by piece: write one object per line
        cannot tell the format of 'DIR/d.bin': name it csv, ndjson or parquet, before .gz or .zst
        'DIR/e.parquet.gz' is packed parquet: unpack it first, parquet is compressed inside
        cannot read 'DIR/f.parquet': not a readable parquet file: Parquet error: Invalid Parquet file. Corrupt footer
        cannot read '/nowhere.csv': No such file or directory (os error 2)
        no file to replay: name at least one"#]].assert_eq(&all.join("\n"));
}

/// The rows before the place of the failure are delivered, whatever the size of the batches.
#[test]
fn disorder_stops_at_the_same_row() {
    let dir = TempDir::new().unwrap();
    let a = write(&dir, "a.csv", csv("a", &[0, 10_000, 20_000, 1]).as_bytes());
    let b = write(&dir, "b.csv", csv("b", &[15_000, 30_000]).as_bytes());
    for batch_rows in 1..6 {
        let mut replay = open(&[&a, &b], batch_rows);
        let mut batches = Vec::new();
        let failure = loop {
            match replay.next_batch() {
                Ok(batch) => batches.push(batch.unwrap()),
                Err(e) => break e,
            }
        };
        assert_eq!(rows_of(&batches), ["0 a0", "1 a1", "2 b0", "3 a2"]);
        assert!(failure.to_string().contains("line 5 has 1970-01-01T00:00:00.001Z"), "{failure}");
        assert!(replay.next_batch().unwrap().is_none());
    }
}

#[test]
fn the_identity_names_files_content_and_mapping() {
    let dir = TempDir::new().unwrap();
    let a = write(&dir, "a.csv", csv("a", &[1]).as_bytes());
    let b = write(&dir, "b.csv", csv("a", &[1]).as_bytes());
    let identity = |paths: &[&PathBuf], plan: Arc<Plan>| Replay::open(paths, ReplayOptions::default(), plan, RECEIVED).unwrap().identity();
    let first = identity(&[&a, &b], strict());
    assert_eq!(first, identity(&[&a, &b], strict()));
    assert_ne!(first, identity(&[&b, &a], strict()));
    assert_ne!(first, identity(&[&a], strict()));
    assert_ne!(first, identity(&[&a, &b], plan(|o| _ = o.mapping.constants.insert("market".into(), "KRX".into()))));
    write(&dir, "b.csv", csv("a", &[2]).as_bytes());
    assert_ne!(first, identity(&[&a, &b], strict()));
}

#[test]
fn a_position_behind_the_end_is_refused() {
    let dir = TempDir::new().unwrap();
    let a = write(&dir, "a.csv", csv("a", &[1, 2, 3]).as_bytes());
    let mut replay = open(&[&a], 10);
    replay.resume_after(Position::new(2, 0)).unwrap();
    assert!(replay.next_batch().unwrap().is_none());
    let failure = open(&[&a], 10).resume_after(Position::new(3, 0)).unwrap_err();
    assert_eq!(failure.to_string(), "row 3 was already replayed, but these files have only 3 rows: are they the same files as before?");
}

fn times() -> impl Strategy<Value = Vec<i64>> {
    // Small steps make ties; every tenth row or so is bad.
    proptest::collection::vec((0i64..4, 0u8..10), 0..12).prop_map(|steps| {
        let mut now = 0;
        steps
            .into_iter()
            .map(|(step, bad)| {
                now += step;
                if bad == 0 { -1 } else { now }
            })
            .collect()
    })
}

/// The order by its definition: sort all rows by (newest time of the file so far, file, row).
fn reference(files: &[Vec<i64>]) -> Vec<String> {
    let mut rows = Vec::new();
    for (f, times) in files.iter().enumerate() {
        let mut newest = i64::MIN;
        for (i, t) in times.iter().enumerate() {
            newest = newest.max(if *t < 0 { newest } else { *t });
            rows.push(((newest, f, i), if *t < 0 { format!("!f{f}.csv:{}", i + 2) } else { format!("F{f}x{i}") }));
        }
    }
    rows.sort();
    rows.into_iter().enumerate().map(|(o, (_, text))| format!("{o} {text}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn merging_equals_sorting_and_resumes_anywhere(files in proptest::collection::vec(times(), 1..5), batch_rows in 1usize..40, resume_rows in 1usize..40) {
        let dir = TempDir::new().unwrap();
        let paths: Vec<PathBuf> = files.iter().enumerate().map(|(f, times)| write(&dir, &format!("f{f}.csv"), csv(&format!("F{f}x"), times).as_bytes())).collect();
        let straight = all(open(&paths, batch_rows));
        prop_assert!(straight.iter().all(|b| b.ordinals.len() + b.problems.len() <= batch_rows));
        let want = reference(&files);
        prop_assert_eq!(&rows_of(&straight), &want);
        let times_of = |b: &RecordBatch| b.column(1).as_primitive::<TimestampMicrosecondType>().values().to_vec();
        prop_assert!(straight.iter().flat_map(|b| times_of(&b.batch)).is_sorted());
        for ordinal in 0..=want.len() {
            let mut replay = open(&paths, resume_rows);
            replay.skip_to(ordinal as u64).unwrap();
            prop_assert_eq!(rows_of(&all(replay)), &want[ordinal..]);
        }
        for batch in &straight {
            let mut replay = open(&paths, resume_rows);
            replay.resume_after(batch.position).unwrap();
            let rest = rows_of(&all(replay));
            prop_assert_eq!(&rest[..], &want[batch.position.commit as usize + 1..]);
        }
    }
}
