//! Many small files of one stream and day become one. The files stay sorted, so this is a merge that holds a batch of each.

use crate::day::Day;
use crate::error::HistoryError;
use crate::history::History;
use crate::layout::Layout;
use crate::manifest::FileEntry;
use crate::parquet_file::{DataFile, of_merge};
use crate::reader;
use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use mulgil_disk::failpoint;
use mulgil_model::ids::Topic;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows in memory while merging, of all files together: at 200 bytes a row, some 13 MB.
const MERGED_ROWS: usize = 64 * 1024;
/// Rows of one batch while merging, however few the files are.
const BATCH_ROWS_MAX: usize = 8 * 1024;
/// Files merged into one at a time.
const FILES_MERGED_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactReport {
    pub n_files_before: usize,
    pub n_files_after: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

impl History {
    /// Merges small files, stream by stream and day by day. Queries and flushes go on meanwhile; files that a running query still reads
    /// are removed when it ends.
    pub fn compact(&self) -> Result<CompactReport, HistoryError> {
        let mut report = CompactReport::default();
        for (name, layout) in &self.layouts {
            let files = self.state.lock().get(name).map(|s| Arc::clone(&s.files)).unwrap_or_default();
            for group in self.groups(&files) {
                if let Some(merged) = self.merge(name, layout, &group)? {
                    report.n_files_before += group.len();
                    report.n_files_after += 1;
                    report.bytes_before += group.iter().map(|f| f.entry.bytes).sum::<u64>();
                    report.bytes_after += merged;
                }
            }
        }
        Ok(report)
    }

    /// Which files to merge: small ones of one day and of like size, so that a row is rewritten a logarithmic number of times; all
    /// small ones of a day that is over.
    fn groups(&self, files: &[Arc<DataFile>]) -> Vec<Vec<Arc<DataFile>>> {
        let newest = files.iter().map(|f| f.entry.day).max();
        let mut classes: BTreeMap<(Day, u32), Vec<Arc<DataFile>>> = BTreeMap::new();
        for file in files.iter().filter(|f| f.entry.bytes < self.config.compact_small_bytes) {
            let class = if Some(file.entry.day) == newest { file.entry.bytes.max(1).ilog2() / 2 } else { 0 };
            classes.entry((file.entry.day, class)).or_default().push(Arc::clone(file));
        }
        let mut groups = Vec::new();
        for ((day, _), files) in classes {
            let n_min = if Some(day) == newest { self.config.compact_files_min.max(2) } else { 2 };
            groups.extend(self.split(files).into_iter().filter(|group| group.len() >= n_min));
        }
        groups
    }

    /// Cuts a list of files where their sum would make too large a file.
    fn split(&self, files: Vec<Arc<DataFile>>) -> Vec<Vec<Arc<DataFile>>> {
        let mut groups: Vec<Vec<Arc<DataFile>>> = Vec::new();
        let mut bytes = 0;
        for file in files {
            bytes += file.entry.bytes;
            match groups.last_mut() {
                Some(group) if group.len() < FILES_MERGED_MAX && bytes <= self.config.file_bytes_max => group.push(file),
                _ => {
                    bytes = file.entry.bytes;
                    groups.push(vec![file]);
                }
            }
        }
        groups
    }

    /// Writes one file of all rows of `group` and puts it in their place. None if retention removed one of them meanwhile.
    fn merge(&self, name: &Topic, layout: &Arc<Layout>, group: &[Arc<DataFile>]) -> Result<Option<u64>, HistoryError> {
        let entries: Vec<&FileEntry> = group.iter().map(|f| &f.entry).collect();
        let mut entry = FileEntry::merged(&entries).expect("invariant: a group has at least two files");
        let first = entry.offsets.iter().map(|r| r.first).min().unwrap_or_default();
        entry.name = self.upkeep.lock().new_name(first);
        // Damage must not go into a new file that is then thought to be sound.
        group.iter().try_for_each(|file| file.check())?;
        let mut merged = merge_sorted(layout, group)?;
        let mut n_rows = 0;
        let batches = std::iter::from_fn(|| futures::executor::block_on(merged.next()))
            .inspect(|batch| n_rows += batch.as_ref().map_or(0, RecordBatch::num_rows) as u64)
            .map(|batch| batch.map_err(HistoryError::internal(format!("merging files of {name}"))));
        self.write_file(layout, &mut entry, of_merge(), batches)?;
        let path = entry.path(&self.dir, layout.name());
        if n_rows != entry.rows {
            self.disk.remove(&path).ok();
            let problem = format!("{} files should hold {} rows together, but {n_rows} were read; run verify", group.len(), entry.rows);
            return Err(HistoryError::Corrupt { path, problem });
        }
        let bytes = entry.bytes;
        failpoint::here("history.merged");
        Ok(self.replace(name, group, entry)?.then_some(bytes))
    }

    fn replace(&self, name: &Topic, group: &[Arc<DataFile>], entry: FileEntry) -> Result<bool, HistoryError> {
        let merged = DataFile::new(Arc::clone(&self.disk), &self.dir, name.as_str(), entry);
        let is_old = |file: &str| group.iter().any(|f| f.entry.name == file);
        let mut upkeep = self.upkeep.lock();
        let mut next = upkeep.clone();
        let held = next.streams.entry(name.as_str().to_owned()).or_default();
        let n_before = held.files.len();
        held.files.retain(|f| !is_old(&f.name));
        if n_before - held.files.len() != group.len() {
            merged.doom();
            return Ok(false);
        }
        held.files.push(merged.entry.clone());
        self.switch(&mut upkeep, next, |state| {
            let state = state.get_mut(name).expect("invariant: a stream is never taken out of the state");
            let files = Arc::make_mut(&mut state.files);
            files.retain(|f| !is_old(&f.entry.name));
            files.push(merged);
        })?;
        failpoint::here("history.merge-swapped");
        group.iter().for_each(|file| file.doom());
        Ok(true)
    }
}

/// The rows of sorted files as one sorted stream.
fn merge_sorted(layout: &Arc<Layout>, files: &[Arc<DataFile>]) -> Result<SendableRecordBatchStream, HistoryError> {
    let batch_rows = (MERGED_ROWS / files.len().max(1)).min(BATCH_ROWS_MAX);
    let streams = files.iter().map(|file| stream_of(layout, file, batch_rows)).collect::<Result<Vec<_>, _>>()?;
    let by = layout.sort_indices().map(|at| {
        let column = Arc::new(Column::new(layout.arrow.field(at).name(), at));
        PhysicalSortExpr::new(column, SortOptions { descending: false, nulls_first: true })
    });
    let ordering = LexOrdering::new(by).expect("invariant: four columns are an ordering");
    // What is held is bounded by the number of files and of rows in a batch.
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    StreamingMergeBuilder::new()
        .with_streams(streams)
        .with_schema(Arc::clone(&layout.arrow))
        .with_expressions(&ordering)
        .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
        .with_batch_size(BATCH_ROWS_MAX)
        .with_reservation(MemoryConsumer::new("compaction").register(&pool))
        .build()
        .map_err(HistoryError::internal(format!("merging files of {}", layout.name())))
}

fn stream_of(layout: &Arc<Layout>, file: &Arc<DataFile>, batch_rows: usize) -> Result<SendableRecordBatchStream, HistoryError> {
    let (rows, adapting) = (reader::batches(file, batch_rows)?, Arc::clone(layout));
    let adapted = rows.map(move |batch| Ok::<_, DataFusionError>(adapting.adapt(&batch?)?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&layout.arrow), futures::stream::iter(adapted))))
}
