//! A history folder that was damaged: its manifest, or one of its files.

use crate::trades::{RECEIVED, SCHEMA, batch, rows, topic};
use mulgil_disk::{Disk, MemDisk, OpenMode, read_whole, write_atomic};
use mulgil_history::{History, HistoryConfig, HistoryError};
use mulgil_model::ids::{Offset, Partition};
use mulgil_model::time::AppendTime;
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

/// The file is as long as the manifest says; what is in it is anything.
pub fn file(input: &[u8]) {
    let disk = damaged(&data_file(), input);
    let manifest = String::from_utf8(bytes_of(Path::new(MANIFEST))).expect("a manifest is text");
    let length = bytes_of(&data_file()).len();
    disk.remove(Path::new(MANIFEST)).expect("the file is there");
    put(&disk, Path::new(MANIFEST), manifest.replace(&format!("\"bytes\": {length}"), &format!("\"bytes\": {}", input.len())).as_bytes());
    exercise(&disk);
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
    let value: serde_json::Value = serde_json::from_slice(&text).expect("a manifest is JSON");
    vec![value.to_string().into_bytes(), text]
}

pub fn file_seeds() -> Vec<Vec<u8>> {
    vec![bytes_of(&data_file())]
}
