//! One file of a replay: what it is, its content's hash, and its rows in order.

use crate::decode::{Decoded, Decoder, Format, ParquetRows, Plan, ReadError};
use flate2::read::MultiGzDecoder;
use mulgil_model::time::{ReceiveTime, format_micros};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::Xxh3;

/// Why a replay cannot begin or go on. All but `Read` of a failing disk are the user's to mend; none is worth a retry by itself.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("no file to replay: name at least one")]
    NoFiles,
    #[error("cannot read '{}': {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read '{}': {source}", path.display())]
    Read { path: PathBuf, source: ReadError },
    #[error("cannot tell the format of '{}': name it csv, ndjson or parquet, before .gz or .zst", path.display())]
    Format { path: PathBuf },
    #[error("'{}' is a JSON list, which cannot be replayed piece by piece: write one object per line", path.display())]
    List { path: PathBuf },
    #[error("'{}' is packed parquet: unpack it first, parquet is compressed inside", path.display())]
    PackedParquet { path: PathBuf },
    #[error("'{}' has changed since the replay began: begin it anew", path.display())]
    Changed { path: PathBuf },
    #[error(
        "'{}' is not in time order: line {line} has {}, more than {tolerance_us} us before {} on a line above; sort the file, or allow a larger tolerance",
        path.display(), format_micros(*event_time), format_micros(*newest)
    )]
    OutOfOrder { path: PathBuf, line: u64, event_time: i64, newest: i64, tolerance_us: i64 },
    #[error("row {ordinal} was already replayed, but these files have only {n_rows} rows: are they the same files as before?")]
    PastEnd { ordinal: u64, n_rows: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A file that was looked at, but is not held open.
#[derive(Debug, Clone)]
pub(crate) struct InputFile {
    pub path: PathBuf,
    pub n_bytes: u64,
    /// xxh3 of the content as it lies on disk.
    pub hash: u64,
    packing: Packing,
    format: Format,
}

/// Bytes looked at to tell a format.
const SNIFF_BYTES: usize = 4_096;

/// Bytes read at a time to hash a file.
const HASH_CHUNK_BYTES: usize = 64 << 10;

impl InputFile {
    /// Reads the whole file once, for its hash. A format that is given is taken; else the name tells it, else the first bytes.
    pub fn examine(path: &Path, format: Option<Format>) -> Result<Self, FileError> {
        let wrap = |source| FileError::Open { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(wrap)?;
        let (mut hash, mut n_bytes) = (Xxh3::new(), 0u64);
        let mut chunk = vec![0; HASH_CHUNK_BYTES];
        let mut magic = Vec::new();
        loop {
            let n = read_some(&mut file, &mut chunk).map_err(wrap)?;
            if n == 0 {
                break;
            }
            magic.extend(chunk[..n].iter().take(4usize.saturating_sub(magic.len())));
            hash.update(&chunk[..n]);
            n_bytes += n as u64;
        }
        let packing = packing_of(&magic);
        let mut found = Self { path: path.to_owned(), n_bytes, hash: hash.digest(), packing, format: Format::Csv };
        found.format = match format {
            Some(format) => format,
            None => found.format_of(&magic)?,
        };
        if found.format == Format::Parquet && packing != Packing::Plain {
            return Err(FileError::PackedParquet { path: path.to_owned() });
        }
        Ok(found)
    }

    fn format_of(&self, magic: &[u8]) -> Result<Format, FileError> {
        if magic == b"PAR1" {
            return Ok(Format::Parquet);
        }
        let name = self.path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let stem = [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|e| name.strip_suffix(e)).unwrap_or(&name);
        let by_name = match stem.rsplit('.').next().unwrap_or_default() {
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            "parquet" | "pq" => Some(Format::Parquet),
            _ => None,
        };
        by_name.map_or_else(|| self.format_of_text(), Ok)
    }

    fn format_of_text(&self) -> Result<Format, FileError> {
        let mut input = self.unpacked(Arc::default())?;
        let mut start = vec![0; SNIFF_BYTES];
        let n = read_some(&mut input, &mut start).map_err(|source| FileError::Open { path: self.path.clone(), source })?;
        let text = start[..n].strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start[..n]).trim_ascii_start();
        match text.first() {
            Some(b'{') => Ok(Format::Ndjson),
            Some(b'[') => Err(FileError::List { path: self.path.clone() }),
            Some(_) if text.split(|b| *b == b'\n').next().is_some_and(|l| l.contains(&b',') && l.is_ascii()) => Ok(Format::Csv),
            _ => Err(FileError::Format { path: self.path.clone() }),
        }
    }

    /// Opens the file for reading from its beginning. `done` counts the bytes of the file as they are used.
    pub fn rows(&self, plan: &Arc<Plan>, received: ReceiveTime, done: Arc<AtomicU64>) -> Result<Rows, FileError> {
        let wrap = |source| FileError::Read { path: self.path.clone(), source };
        if self.format == Format::Parquet {
            let rows = ParquetRows::open(plan, self.file()?, CHUNK_ROWS, received).map_err(wrap)?;
            return Ok(Rows::Parquet { rows: Box::new(rows), n_bytes: self.n_bytes, counted: 0, done });
        }
        Decoder::new(plan, self.format, self.unpacked(done)?, received).map(|d| Rows::Text(Box::new(d))).map_err(wrap)
    }

    fn file(&self) -> Result<File, FileError> {
        let wrap = |source| FileError::Open { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(wrap)?;
        if file.metadata().map_err(wrap)?.len() != self.n_bytes {
            return Err(FileError::Changed { path: self.path.clone() });
        }
        Ok(file)
    }

    fn unpacked(&self, done: Arc<AtomicU64>) -> Result<Box<dyn Read + Send>, FileError> {
        let file = Counted { file: self.file()?, done };
        Ok(match self.packing {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(MultiGzDecoder::new(file)),
            Packing::Zstd => Box::new(zstd::Decoder::new(file).map_err(|source| FileError::Open { path: self.path.clone(), source })?),
        })
    }
}

fn packing_of(magic: &[u8]) -> Packing {
    match magic {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
        _ => Packing::Plain,
    }
}

fn read_some(input: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(chunk) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Counts what is read of a file, for the progress shown.
struct Counted {
    file: File,
    done: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(chunk)?;
        self.done.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Rows decoded of one file at a time. Small, since many files may be open together; it never shows in what comes out.
const CHUNK_ROWS: usize = 2_048;

/// A file that is being read.
pub(crate) enum Rows {
    Text(Box<Decoder<Box<dyn Read + Send>>>),
    Parquet { rows: Box<ParquetRows>, n_bytes: u64, counted: u64, done: Arc<AtomicU64> },
}

impl Rows {
    pub fn next(&mut self) -> Result<Option<Decoded>, ReadError> {
        match self {
            Self::Text(decoder) => decoder.next(CHUNK_ROWS),
            Self::Parquet { rows, n_bytes, counted, done } => {
                let decoded = rows.next()?;
                // Parquet is not read from front to back: its share of rows stands for its share of bytes.
                let now = if decoded.is_none() {
                    *n_bytes
                } else {
                    (u128::from(*n_bytes) * u128::from(rows.n_rows_done) / u128::from(rows.n_rows.max(1))) as u64
                };
                done.fetch_add(now.saturating_sub(*counted), Ordering::Relaxed);
                *counted = now.max(*counted);
                Ok(decoded)
            }
        }
    }
}
