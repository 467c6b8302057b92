//! Reading files of the history through the disk trait: batch by batch for upkeep, and as DataFusion wants it for queries.
//!
//! Both paths read with blocking positional reads. For queries that is on purpose: a page from the cache of the operating system
//! costs microseconds, less than handing the read to another thread and waiting for it.

use crate::error::HistoryError;
use crate::parquet_file::DataFile;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use mulgil_disk::{DiskFile, OpenMode};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

const READ_BUFFER_BYTES: usize = 64 * 1024;

/// An open file with its size.
#[derive(Debug, Clone)]
pub(crate) struct Chunks {
    file: Arc<dyn DiskFile>,
    size_bytes: u64,
}

impl Chunks {
    pub fn open(data: &DataFile) -> Result<Self, HistoryError> {
        let file = data.disk.open(&data.path, OpenMode::Read)?;
        let size_bytes = file.size_bytes()?;
        if size_bytes != data.entry.bytes {
            let problem = format!("has {size_bytes} bytes, but the manifest says {}", data.entry.bytes);
            return Err(HistoryError::Corrupt { path: data.path.clone(), problem });
        }
        Ok(Self { file, size_bytes })
    }

    fn bytes(&self, range: Range<u64>) -> ParquetResult<Bytes> {
        let n = range.end.checked_sub(range.start).filter(|_| range.end <= self.size_bytes);
        let n = n.ok_or_else(|| ParquetError::EOF(format!("bytes {range:?} of a file of {}", self.size_bytes)))?;
        let mut bytes = vec![0; n as usize];
        self.file.read_at(range.start, &mut bytes).map_err(|e| ParquetError::External(Box::new(e)))?;
        Ok(bytes.into())
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.size_bytes
    }
}

impl ChunkReader for Chunks {
    type T = std::io::BufReader<ReadFrom>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(std::io::BufReader::with_capacity(READ_BUFFER_BYTES, ReadFrom { chunks: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.bytes(start..start + length as u64)
    }
}

pub(crate) struct ReadFrom {
    chunks: Chunks,
    at: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = (into.len() as u64).min(self.chunks.size_bytes.saturating_sub(self.at)) as usize;
        self.chunks.file.read_at(self.at, &mut into[..n])?;
        self.at += n as u64;
        Ok(n)
    }
}

/// All rows of a file, in batches of at most `batch_rows`.
pub(crate) fn batches(data: &DataFile, batch_rows: usize) -> Result<Batches, HistoryError> {
    let corrupt = |e: ParquetError| HistoryError::Corrupt { path: data.path.clone(), problem: e.to_string() };
    let chunks = Chunks::open(data)?;
    let open = || ParquetRecordBatchReaderBuilder::try_new(chunks)?.with_batch_size(batch_rows).build();
    guarded(open).map(Batches).map_err(corrupt)
}

/// Runs the Parquet reader on bytes that may be damaged: where it panics, that is one more error, and the thread lives on.
fn guarded<T>(read: impl FnOnce() -> ParquetResult<T>) -> ParquetResult<T> {
    let damaged = |_| Err(ParquetError::General("the reader gave up on these bytes: they are damaged".to_owned()));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(damaged)
}

/// The rows of one file; behind an error there are no more.
pub(crate) struct Batches(ParquetRecordBatchReader);

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        guarded(|| Ok(self.0.next().transpose()?)).map_err(|e| ArrowError::ParquetError(e.to_string())).transpose()
    }
}

/// Footers (with page indexes) of files read before, up to a number of bytes; the oldest go first. Files never change, so an entry is
/// never stale.
#[derive(Debug)]
pub(crate) struct FooterCache {
    bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    footers: BTreeMap<PathBuf, Arc<ParquetMetaData>>,
    order: VecDeque<PathBuf>,
    bytes: usize,
}

impl FooterCache {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, held: Mutex::default() })
    }

    fn get(&self, data: &DataFile, chunks: &Chunks) -> ParquetResult<Arc<ParquetMetaData>> {
        if let Some(footer) = self.held.lock().footers.get(&data.path) {
            return Ok(Arc::clone(footer));
        }
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
        let footer = Arc::new(guarded(|| reader.parse_and_finish(chunks))?);
        let held = &mut *self.held.lock();
        if held.footers.insert(data.path.clone(), Arc::clone(&footer)).is_none() {
            held.order.push_back(data.path.clone());
            held.bytes += footer.memory_size();
        }
        while held.bytes > self.bytes_max {
            let Some(footer) = held.order.pop_front().and_then(|oldest| held.footers.remove(&oldest)) else { break };
            held.bytes -= footer.memory_size();
        }
        Ok(footer)
    }
}

/// Opens the [`DataFile`] that each planned file carries.
#[derive(Debug)]
pub(crate) struct DiskReaders {
    pub footers: Arc<FooterCache>,
}

impl ParquetFileReaderFactory for DiskReaders {
    fn create_reader(
        &self,
        _partition: usize,
        planned: PartitionedFile,
        _footer_bytes: Option<usize>,
        _metrics: &ExecutionPlanMetricsSet,
    ) -> datafusion::error::Result<Box<dyn AsyncFileReader + Send>> {
        let data = planned.extension::<Arc<DataFile>>().cloned();
        let data =
            data.ok_or_else(|| datafusion::error::DataFusionError::Internal(format!("{} is not a file of the history", planned.path())))?;
        let chunks = Chunks::open(&data).map_err(|e| datafusion::error::DataFusionError::External(Box::new(e)))?;
        Ok(Box::new(DiskReader { chunks, data, footers: Arc::clone(&self.footers) }))
    }
}

struct DiskReader {
    chunks: Chunks,
    data: Arc<DataFile>,
    footers: Arc<FooterCache>,
}

impl AsyncFileReader for DiskReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        futures::future::ready(self.chunks.bytes(range)).boxed()
    }

    fn get_metadata<'a>(&'a mut self, _options: Option<&'a ArrowReaderOptions>) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        futures::future::ready(self.footers.get(&self.data, &self.chunks)).boxed()
    }
}
