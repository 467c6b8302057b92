//! Which files are the history, and up to which offset they hold every row.
//!
//! `manifest.json` in the history's folder, replaced as a whole ([`mulgil_disk::write_atomic`]) after the files it names are durable. A
//! file that it does not name is not part of the history: it was being written, or was replaced, when the process stopped, and
//! opening removes it. Layout of version 1, all times in microseconds since the epoch, UTC:
//!
//! ```json
//! { "format": "mulgil-history", "version": 1,
//!   "generation": 7,            // counts replacements of this file
//!   "next_file": 12,            // the number of the next file; never used twice
//!   "streams": { "trades": {
//!     "partitions": [ { "partition": 0, "start": 0, "covered": 1500, "dropped": 0 } ],
//!     "files": [ { "day": "2019-07-05", "name": "0-11.parquet", "rows": 1500, "bytes": 40211, "crc32c": 2868712349,
//!                  "event_time_min": 1562284800000000, "event_time_max": 1562371199999999,
//!                  "key_min": "005930", "key_max": "TSLA",
//!                  "offsets": [ { "partition": 0, "first": 0, "last": 1499, "rows": 1500, "event_time_max": 1562371199999999 } ] } ] } },
//!   "crc32c": 3735928559 }      // of the bytes of this file without this last field and the comma before it
//! ```
//!
//! For each partition: rows in files + `dropped` (by retention) = `covered` - `start`. Rows from `covered` on are not in files.

use crate::day::Day;
use crate::error::HistoryError;
use mulgil_disk::{Disk, read_whole, write_atomic};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub(crate) const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "mulgil-history";
const VERSION: u32 = 1;
/// Offsets and sizes beyond it are taken for damage; sums of many below it fit into 64 bits.
const NUMBER_MAX: u64 = 1 << 48;
/// What stands before the checksum, and how a manifest ends with and without one.
const SUM: &str = ",\n  \"crc32c\": ";
const END: &str = "\n}";
/// Some 400,000 files; more are taken for damage.
const MANIFEST_BYTES_MAX: u64 = 128 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub format: String,
    pub version: u32,
    pub generation: u64,
    pub next_file: u64,
    pub streams: BTreeMap<String, StreamFiles>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamFiles {
    pub partitions: Vec<PartitionCover>,
    pub files: Vec<FileEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartitionCover {
    pub partition: u32,
    /// The first offset ever taken.
    pub start: u64,
    /// Every row from `start` up to here, exclusive, is in a file or was dropped by retention.
    pub covered: u64,
    /// Rows that retention removed.
    pub dropped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntry {
    pub day: Day,
    /// Unique within the history: `<first offset>-<number>.parquet`.
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    /// CRC-32C of the whole file; files of early versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<u32>,
    pub event_time_min: i64,
    pub event_time_max: i64,
    pub key_min: String,
    pub key_max: String,
    pub offsets: Vec<OffsetRange>,
}

/// Which rows of a partition a file holds: `rows` of those from `first` to `last`; the others are in files of other days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OffsetRange {
    pub partition: u32,
    pub first: u64,
    pub last: u64,
    pub rows: u64,
    /// Of this partition's rows.
    pub event_time_max: i64,
}

impl Manifest {
    pub fn empty() -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, generation: 0, next_file: 1, streams: BTreeMap::new() }
    }

    /// What `dir` holds; empty when there is no manifest yet.
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, HistoryError> {
        let path = dir.join(MANIFEST);
        let bytes = match read_whole(disk, &path, MANIFEST_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(Self::empty()),
            read => read?,
        };
        let corrupt = |problem: String| HistoryError::Corrupt { path: path.clone(), problem };
        let body = body(&bytes).map_err(corrupt)?;
        let manifest: Self = serde_json::from_slice(&body).map_err(|e| corrupt(format!("not a manifest of the history: {e}")))?;
        if manifest.format != FORMAT || manifest.version != VERSION {
            let (format, version) = (&manifest.format, manifest.version);
            return Err(corrupt(format!("has format '{format}' version {version}, but this program reads '{FORMAT}' version {VERSION}")));
        }
        if manifest.generation.max(manifest.next_file) > NUMBER_MAX {
            let (generation, next_file) = (manifest.generation, manifest.next_file);
            return Err(corrupt(format!("generation {generation} and file number {next_file} cannot be counted on from")));
        }
        for (name, stream) in &manifest.streams {
            stream.check().map_err(|problem| corrupt(format!("stream '{name}': {problem}")))?;
        }
        Ok(manifest)
    }

    /// Puts this on disk, durable when it returns. After an error either may stand on disk; the next one settles it.
    pub fn store(&self, disk: &dyn Disk, dir: &Path) -> Result<(), HistoryError> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(HistoryError::internal("writing the manifest"))?;
        let sum = crc32c::crc32c(&bytes);
        bytes.truncate(bytes.len() - END.len());
        bytes.extend_from_slice(format!("{SUM}{sum}{END}").as_bytes());
        Ok(write_atomic(disk, &dir.join(MANIFEST), &bytes)?)
    }

    /// A name for a file whose lowest offset is `first`.
    pub fn new_name(&mut self, first: u64) -> String {
        let number = self.next_file;
        self.next_file += 1;
        format!("{first}-{number}.parquet")
    }
}

/// The manifest without its checksum, which must be right. The first manifests had none.
fn body(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let tail_at = bytes.len().saturating_sub(SUM.len() + END.len() + 10);
    let Some(at) = bytes[tail_at..].windows(SUM.len()).position(|found| found == SUM.as_bytes()).map(|at| tail_at + at) else {
        return Ok(Cow::Borrowed(bytes));
    };
    let body = [&bytes[..at], END.as_bytes()].concat();
    let sum = bytes[at + SUM.len()..].strip_suffix(END.as_bytes()).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    if sum == Some(crc32c::crc32c(&body)) {
        Ok(Cow::Owned(body))
    } else {
        Err("its checksum is wrong; restore the file from a copy".to_owned())
    }
}

impl StreamFiles {
    /// What every manifest that was written here keeps to, so that numbers can be added and names joined to a folder without a thought.
    /// Whether the files hold what is said of them is for `verify` to find out.
    fn check(&self) -> Result<(), String> {
        let mut partitions = BTreeSet::new();
        for cover in &self.partitions {
            let n_rows = cover.covered.checked_sub(cover.start).filter(|n| cover.covered <= NUMBER_MAX && cover.dropped <= *n);
            if n_rows.is_none() || !partitions.insert(cover.partition) {
                return Err(format!("partition {} cannot be as it says: {cover:?}", cover.partition));
            }
        }
        self.files.iter().try_for_each(|file| file.check(&partitions))
    }
}

impl FileEntry {
    fn check(&self, partitions: &BTreeSet<u32>) -> Result<(), String> {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let numbers = self.name.strip_suffix(".parquet").and_then(|stem| stem.split_once('-'));
        if !numbers.is_some_and(|(first, number)| is_number(first) && is_number(number)) {
            return Err(format!("'{}' is not the name of a file of the history", self.name));
        }
        let wrong = |range: &OffsetRange| {
            let n_offsets = range.last.checked_sub(range.first).map(|n| n.saturating_add(1));
            range.last >= NUMBER_MAX || n_offsets.is_none_or(|n| range.rows > n) || !partitions.contains(&range.partition)
        };
        if let Some(range) = self.offsets.iter().find(|r| wrong(r)) {
            return Err(format!("file {} cannot hold what it says: {range:?}", self.name));
        }
        if self.bytes > NUMBER_MAX || self.offsets.iter().map(|r| u128::from(r.rows)).sum::<u128>() != u128::from(self.rows) {
            return Err(format!("file {} cannot have {} rows in {} bytes", self.name, self.rows, self.bytes));
        }
        Ok(())
    }

    pub fn path(&self, dir: &Path, stream: &str) -> PathBuf {
        dir.join(stream).join(self.day.to_string()).join(&self.name)
    }

    /// What a file of all of these entries' rows is, but for its name and size. At least one entry.
    pub fn merged(entries: &[&FileEntry]) -> Option<Self> {
        let (head, rest) = entries.split_first()?;
        let mut merged = FileEntry { crc32c: None, ..(*head).clone() };
        for entry in rest {
            merged.rows += entry.rows;
            merged.event_time_min = merged.event_time_min.min(entry.event_time_min);
            merged.event_time_max = merged.event_time_max.max(entry.event_time_max);
            merged.key_min = merged.key_min.min(entry.key_min.clone());
            merged.key_max = merged.key_max.max(entry.key_max.clone());
            entry.offsets.iter().for_each(|range| merged.add(*range));
        }
        Some(merged)
    }

    fn add(&mut self, range: OffsetRange) {
        match self.offsets.iter_mut().find(|r| r.partition == range.partition) {
            Some(r) => {
                r.first = r.first.min(range.first);
                r.last = r.last.max(range.last);
                r.rows += range.rows;
                r.event_time_max = r.event_time_max.max(range.event_time_max);
            }
            None => self.offsets.push(range),
        }
        self.offsets.sort_by_key(|r| r.partition);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_disk::MemDisk;

    const V1: &str = include_str!("../testdata/manifest-v1.json");

    fn load(text: &str) -> Result<Manifest, HistoryError> {
        let (disk, dir) = (MemDisk::new(0), Path::new("/h"));
        disk.create_dir_all(dir).unwrap();
        write_atomic(&disk, &dir.join(MANIFEST), text.as_bytes()).unwrap();
        Manifest::load(&disk, dir)
    }

    #[test]
    fn version_1_keeps_opening_and_is_written_as_it_was() {
        let manifest = load(V1).unwrap();
        assert_eq!(manifest.streams["trades"].files[0].path(Path::new("/h"), "trades"), Path::new("/h/trades/2019-07-05/0-11.parquet"));
        let (disk, dir) = (MemDisk::new(0), Path::new("/h"));
        disk.create_dir_all(dir).unwrap();
        manifest.store(&disk, dir).unwrap();
        let written = String::from_utf8(read_whole(&disk, &dir.join(MANIFEST), 1 << 20).unwrap()).unwrap();
        let sum = crc32c::crc32c(V1.trim_end().as_bytes());
        assert_eq!(written, format!("{},\n  \"crc32c\": {sum}\n}}", V1.trim_end().strip_suffix("\n}").unwrap()));
        assert_eq!(Manifest::load(&disk, dir).unwrap(), manifest);
        for (at, bit) in (0..written.len()).map(|at| (at, at % 7)) {
            let mut damaged = written.clone().into_bytes();
            damaged[at] ^= 1 << bit;
            let read = std::str::from_utf8(&damaged).is_ok_and(|text| load(text).is_ok());
            assert!(!read, "bit {bit} of byte {at}");
        }
    }

    #[test]
    fn damage_is_told_with_the_file() {
        let check = |text: &str, want: &str| {
            let said = load(text).unwrap_err().to_string();
            assert!(said.starts_with("/h/manifest.json: ") && said.contains(want), "{said}");
        };
        check("", "EOF");
        check(&V1.replace("\"rows\": 1500", "\"rows\": \"1500\""), "invalid type");
        check(&V1.replace("2019-07-05", "2019-07-35"), "is not a day");
        check(&V1.replace("\"version\": 1", "\"version\": 2"), "this program reads 'mulgil-history' version 1");
        check(&V1.replace("\"generation\"", "\"generations\""), "unknown field");
        check(&V1.replace("0-11.parquet", "../../../0-11.parquet"), "is not the name of a file of the history");
        check(&V1.replace("\"start\": 0", "\"start\": 1501"), "partition 0 cannot be as it says");
        check(&V1.replace("\"last\": 1499", "\"last\": 1498"), "file 0-11.parquet cannot hold what it says");
        check(&V1.replace("\"rows\": 1500,\n          \"bytes\"", "\"rows\": 1501,\n          \"bytes\""), "cannot have 1501 rows");
    }
}
