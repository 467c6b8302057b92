//! A history folder that was damaged: its manifest, or one of its files.

use crate::trades::{LENIENT, RECEIVED, SCHEMA, batch, rows, topic};
use mulgil_connect::decode::{Format, decode};
use mulgil_disk::{Disk, MemDisk, OpenMode, read_whole, write_atomic};
use mulgil_history::{History, HistoryConfig, HistoryError};
use mulgil_model::ids::{Offset, Partition};
use mulgil_model::time::AppendTime;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

const DIR: &str = "/history";
const MANIFEST: &str = "/history/manifest.json";

fn open(disk: &MemDisk) -> Result<Arc<History>, HistoryError> {
    History::open(
        Arc::new(disk.clone()),
        Path::new(DIR),
        HistoryConfig { compact_files_min: 2, ..HistoryConfig::default() },
        vec![SCHEMA.clone()],
    )
}

/// Two files of one day.
static GOOD: LazyLock<MemDisk> = LazyLock::new(|| {
    let disk = MemDisk::new(1);
    let history = open(&disk).expect("an empty folder can be opened");
    for base in [0, 2] {
        history.append(&rows(&SCHEMA, base, batch().slice(base as usize, 2))).expect("rows in order are taken");
        history.flush().expect("memory takes everything");
    }
    disk
});

fn bytes_of(path: &Path) -> Vec<u8> {
    read_whole(&*GOOD, path, 1 << 20).expect("the file is there")
}

fn data_file() -> PathBuf {
    let day = Path::new(DIR).join("trades/2026-11-20");
    day.join(&GOOD.list(&day).expect("both files are of this day")[0].name)
}

/// A history of its own; the files that a wrong manifest lets be removed are not those of the next run.
fn damaged(path: &Path, bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::new(1);
    for dir in [DIR.into(), Path::new(DIR).join("trades/2026-11-20")] {
        disk.create_dir_all(&dir).expect("memory takes everything");
        for entry in GOOD.list(&dir).expect("the folder is there") {
            put(&disk, &dir.join(&entry.name), &bytes_of(&dir.join(&entry.name)));
        }
    }
    if disk.open(path, OpenMode::Read).is_ok() {
        disk.remove(path).expect("the file is there");
    }
    put(&disk, path, bytes);
    disk
}

fn put(disk: &MemDisk, path: &Path, bytes: &[u8]) {
    write_atomic(disk, path, bytes).expect("memory takes everything");
}

/// Opening says what is wrong or gives a history that can be asked, kept up and closed.
pub fn manifest(input: &[u8]) {
    exercise(&damaged(Path::new(MANIFEST), input));
}

/// The file has the length and the checksum that the manifest says; what is in it is anything.
pub fn file(input: &[u8]) {
    if claims_much(input) {
        return;
    }
    let disk = damaged(&data_file(), input);
    let mut manifest: Value = serde_json::from_slice(&bytes_of(Path::new(MANIFEST))).expect("a manifest is JSON");
    let name = data_file().file_name().map(|n| n.to_string_lossy().into_owned());
    let entries = manifest["streams"]["trades"]["files"].as_array_mut().expect("a stream has files");
    let entry = entries.iter_mut().find(|e| e["name"].as_str() == name.as_deref()).expect("the file is named");
    entry["bytes"] = input.len().into();
    entry["crc32c"] = crc32c::crc32c(input).into();
    disk.remove(Path::new(MANIFEST)).expect("the file is there");
    put(&disk, Path::new(MANIFEST), manifest.to_string().as_bytes());
    exercise(&disk);
}

/// A page whose head claims gigabytes is refused where files come from outside (`connect`); the history takes the claim of its own files.
fn claims_much(input: &[u8]) -> bool {
    let decoded = decode(&LENIENT, Format::Parquet, input, RECEIVED);
    decoded.problems.iter().any(|p| p.reason.contains("row group "))
}

fn exercise(disk: &MemDisk) {
    let history = match open(disk) {
        Ok(history) => history,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    let (stream, partition) = (topic("trades"), Partition(0));
    let (next, durable) = (history.next(&stream, partition), history.durable(&stream, partition));
    assert!(durable <= next, "more is durable than there is");
    let verified = history.verify().expect("a verification tells of damage, it does not fail by it");
    assert!(verified.problems.iter().all(|p| !p.is_empty()));
    told(history.compact());
    if verified.problems.is_empty() && next < Offset(1 << 60) {
        history.append(&rows(&SCHEMA, next.0, batch())).expect("a good history takes rows");
        history.flush().expect("a good history takes rows");
        drop(history);
        let history = open(disk).expect("a good history opens again");
        assert_eq!(history.verify().expect("as above").problems, Vec::<String>::new());
        assert_eq!(history.next(&stream, partition), next.plus(4), "the position is not behind the last row");
        told(history.retain(AppendTime(RECEIVED.0)));
    }
}

fn told<T>(done: Result<T, HistoryError>) {
    if let Err(e) = done {
        assert!(!e.to_string().is_empty());
    }
}

pub fn manifest_seeds() -> Vec<Vec<u8>> {
    let text = bytes_of(Path::new(MANIFEST));
    let value: Value = serde_json::from_slice(&text).expect("a manifest is JSON");
    vec![value.to_string().into_bytes(), text]
}

pub fn file_seeds() -> Vec<Vec<u8>> {
    vec![bytes_of(&data_file())]
}
