//! One Parquet file of the history: how it is written, what is noted of it, and when it is removed.

use crate::error::HistoryError;
use crate::layout::{APPEND_TIME, Layout, OFFSET, RECEIVE_TIME};
use crate::manifest::{FileEntry, OffsetRange};
use arrow::array::RecordBatch;
use mulgil_disk::{Disk, OpenMode};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of one row group: the unit of parallel reading, and what a writer holds in memory (encoded).
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Rows of one page: the unit of skipping, by the page index.
const PAGE_ROWS: usize = 2 * 1024;
/// How files are compressed that are merged later: not at all. Most of a row are ids that nothing compresses, the encodings do the rest: LZ4 made
/// such a file a quarter smaller, and took a tenth of a replay's time.
pub(crate) const OF_FLUSH: Compression = Compression::UNCOMPRESSED;

/// What a column's dictionary takes in such a file before values are written as they are: a merge holds one of each column and file.
const DICTIONARY_BYTES_OF_FLUSH: usize = 128 << 10;

/// How merged files are compressed, which stay: better.
pub(crate) fn of_merge() -> Compression {
    const LEVEL: i32 = 3;
    Compression::ZSTD(ZstdLevel::try_new(LEVEL).expect("invariant: the level is between 1 and 22"))
}
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// A file of the manifest. Shared by every snapshot that may read it.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub entry: FileEntry,
    pub path: PathBuf,
    pub disk: Arc<dyn Disk>,
    /// No longer in the manifest: removed with the last snapshot that knows it.
    doomed: AtomicBool,
}

impl DataFile {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, stream: &str, entry: FileEntry) -> Arc<Self> {
        let path = entry.path(dir, stream);
        Arc::new(Self { entry, path, disk, doomed: AtomicBool::new(false) })
    }

    /// Reads the whole file: it is, byte for byte, what was written. Parquet has no sums of its own here, and some damage decompresses.
    pub fn check(&self) -> Result<(), HistoryError> {
        let Some(want) = self.entry.crc32c else { return Ok(()) };
        let corrupt = |problem: String| HistoryError::Corrupt { path: self.path.clone(), problem };
        let file = self.disk.open(&self.path, OpenMode::Read)?;
        let size = file.size_bytes()?;
        if size != self.entry.bytes {
            return Err(corrupt(format!("has {size} bytes, but {} were written: restore it from a copy", self.entry.bytes)));
        }
        let (mut sum, mut at, mut buffer) = (0, 0, vec![0; WRITE_BUFFER_BYTES]);
        while at < size {
            let part = &mut buffer[..(size - at).min(WRITE_BUFFER_BYTES as u64) as usize];
            file.read_at(at, part)?;
            sum = crc32c::crc32c_append(sum, part);
            at += part.len() as u64;
        }
        if sum == want { Ok(()) } else { Err(corrupt("is not what was written (its checksum differs): restore it from a copy".to_owned())) }
    }

    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if !self.doomed.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::warn!(%error, "a file that left the history is removed when it is opened next");
        }
    }
}

/// Sums what goes through.
struct Summed {
    to: mulgil_disk::Writer,
    crc32c: u32,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// Writes sorted batches as one file and makes it durable, its name too. Returns its size in bytes and its CRC-32C.
pub(crate) fn write(
    disk: &dyn Disk,
    path: &Path,
    layout: &Layout,
    compression: Compression,
    batches: impl IntoIterator<Item = Result<RecordBatch, HistoryError>>,
) -> Result<(u64, u32), HistoryError> {
    let dir = path.parent().expect("invariant: a file of the history stands in a day's folder");
    disk.create_dir_all(dir)?;
    let file = disk.open(path, OpenMode::Create)?;
    let summed = Summed { to: mulgil_disk::Writer(Arc::clone(&file)), crc32c: 0 };
    let sink = std::io::BufWriter::with_capacity(WRITE_BUFFER_BYTES, summed);
    let doing = || format!("writing {}", path.display());
    let mut writer = ArrowWriter::try_new(sink, Arc::clone(&layout.arrow), Some(properties(layout, compression)))
        .map_err(HistoryError::internal(doing()))?;
    for batch in batches {
        writer.write(&batch?).map_err(HistoryError::internal(doing()))?;
    }
    let mut sink = writer.into_inner().map_err(HistoryError::internal(doing()))?;
    sink.flush().map_err(HistoryError::internal(doing()))?;
    let crc32c = sink.get_ref().crc32c;
    file.sync_data()?;
    disk.sync_dir(dir)?;
    Ok((file.size_bytes()?, crc32c))
}

/// No bloom filters: the rows are sorted by key, so the page index finds a key's pages exactly.
fn properties(layout: &Layout, compression: Compression) -> WriterProperties {
    let sorting = layout.sort_indices().map(|at| SortingColumn { column_idx: at as i32, descending: false, nulls_first: true });
    let mut properties = WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_sorting_columns(Some(sorting.to_vec()));
    if compression == OF_FLUSH {
        properties = properties.set_dictionary_page_size_limit(DICTIONARY_BYTES_OF_FLUSH);
    }
    // Rising or nearly rising within a key: differences are far smaller than a dictionary.
    let rising = [OFFSET, APPEND_TIME, RECEIVE_TIME, layout.stream.columns[layout.stream.event_time].name.as_str()];
    for name in rising {
        let column = ColumnPath::from(name);
        properties =
            properties.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}

/// What the manifest notes of a sorted, non-empty batch, but for its file's name and size.
pub(crate) fn describe(layout: &Layout, batch: &RecordBatch) -> FileEntry {
    let (keys, times) = (layout.keys(batch), layout.event_times(batch).values());
    let (partitions, offsets) = (layout.partitions(batch).values(), layout.offsets(batch).values());
    let rows = partitions.iter().zip(offsets).zip(times).map(|((partition, offset), time)| (*partition, *offset, *time));
    describe_rows((keys.value(0), keys.value(batch.num_rows() - 1)), rows)
}

/// As [`describe`], of the smallest and largest key and every row's partition, offset and event time.
pub(crate) fn describe_rows((key_min, key_max): (&str, &str), rows: impl Iterator<Item = (i32, i64, i64)>) -> FileEntry {
    let mut ranges: Vec<OffsetRange> = Vec::new();
    let (mut time_min, mut time_max) = (i64::MAX, i64::MIN);
    for (partition, offset, time) in rows {
        let (partition, offset) = (partition as u32, offset as u64);
        (time_min, time_max) = (time_min.min(time), time_max.max(time));
        match ranges.iter_mut().find(|r| r.partition == partition) {
            Some(r) => {
                r.first = r.first.min(offset);
                r.last = r.last.max(offset);
                r.rows += 1;
                r.event_time_max = r.event_time_max.max(time);
            }
            None => ranges.push(OffsetRange { partition, first: offset, last: offset, rows: 1, event_time_max: time }),
        }
    }
    ranges.sort_by_key(|r| r.partition);
    FileEntry {
        day: crate::day::Day::of(time_max),
        name: String::new(),
        rows: ranges.iter().map(|r| r.rows).sum(),
        bytes: 0,
        crc32c: None,
        event_time_min: time_min,
        event_time_max: time_max,
        key_min: key_min.to_owned(),
        key_max: key_max.to_owned(),
        offsets: ranges,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_disk::MemDisk;

    #[test]
    fn a_doomed_file_lives_as_long_as_a_reader() {
        let disk = MemDisk::new(0);
        let text = include_str!("../testdata/manifest-v1.json");
        let manifest: crate::manifest::Manifest = serde_json::from_str(text).unwrap();
        let entry = manifest.streams["trades"].files[0].clone();
        let file = DataFile::new(Arc::new(disk.clone()), Path::new("/h"), "trades", entry);
        disk.create_dir_all(file.path.parent().unwrap()).unwrap();
        disk.open(&file.path, OpenMode::Create).unwrap();
        let (path, reader) = (file.path.clone(), Arc::clone(&file));
        file.doom();
        drop(file);
        assert!(disk.open(&path, OpenMode::Read).is_ok());
        drop(reader);
        assert!(disk.open(&path, OpenMode::Read).unwrap_err().is_missing());
    }
}
