//! Files to replay: plain, gzip or zstd, told apart by their first bytes and their name.

use super::ingest::{check_rows, ndjson_seeds, parquet_seeds};
use crate::trades::{CSV, LENIENT, RECEIVED};
use mulgil_connect::sources::file::{Replay, ReplayOptions};
use std::io::Write;
use std::path::PathBuf;

/// Names under which the same bytes may lie there.
const NAMES: [&str; 4] = ["rows", "rows.csv", "rows.ndjson.gz", "rows.zst"];

/// Batches read of one input; a bomb may have more.
const BATCHES_MAX: usize = 64;

/// A folder in memory where there is one: thousands of files a second.
fn folder() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    let base = if shm.is_dir() { shm } else { std::env::temp_dir() };
    base.join(format!("mulgil-fuzz-{}", std::process::id()))
}

pub fn run(input: &[u8]) {
    let name = NAMES[input.iter().map(|b| usize::from(*b)).sum::<usize>() % NAMES.len()];
    let path = folder().join(name);
    let written = std::fs::create_dir_all(folder()).and_then(|()| std::fs::write(&path, input));
    written.expect("the machine has room for a small file");
    replay(&path);
    std::fs::remove_dir_all(folder()).expect("the folder was made above");
}

fn replay(path: &PathBuf) {
    let options = || ReplayOptions { batch_rows: 100, ..ReplayOptions::default() };
    let mut replay = match Replay::open(&[path], options(), LENIENT.clone(), RECEIVED) {
        Ok(replay) => replay,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    let (mut next, mut places) = (0, Vec::new());
    for _ in 0..BATCHES_MAX {
        let batch = match replay.next_batch() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(e) => return assert!(!e.to_string().is_empty()),
        };
        let mut ordinals: Vec<u64> = batch.ordinals.iter().copied().chain(batch.problems.iter().map(|p| p.ordinal)).collect();
        ordinals.sort_unstable();
        assert!(ordinals.iter().all(|n| std::mem::replace(&mut next, n + 1) == *n), "ordinals have a hole: {ordinals:?}");
        assert_eq!(batch.position.commit + 1, next, "the position is not that of the last row");
        check_rows(&batch.batch);
        places.push(batch.position);
    }
    // A replay that continues behind its first batch gives what the first run gave next.
    let Some([first, second]) = places.first_chunk::<2>() else { return };
    let mut again = Replay::open(&[path], options(), LENIENT.clone(), RECEIVED).expect("it could be opened before");
    again.resume_after(*first).expect("the position is of this replay");
    let batch = again.next_batch().expect("it could be read before").expect("there was a second batch");
    assert_eq!(batch.position, *second);
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(CSV.as_bytes()).expect("memory takes everything");
    let gzip = gzip.finish().expect("memory takes everything");
    let ndjson = ndjson_seeds().swap_remove(0);
    let zstd = zstd::encode_all(ndjson.as_slice(), 3).expect("memory takes everything");
    let long = format!("{}{}", CSV, CSV.lines().nth(1).map(|l| format!("{l}\n")).unwrap_or_default().repeat(250));
    vec![
        CSV.as_bytes().to_vec(),
        ndjson,
        gzip,
        zstd,
        zstd::encode_all(long.as_bytes(), 3).expect("memory takes everything"),
        parquet_seeds().swap_remove(0),
    ]
}
