//! One stream as a table of DataFusion: its files and its tail, as they were when the query began.

use crate::history::View;
use crate::parquet_file::DataFile;
use crate::reader::{DiskReaders, FooterCache};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, DFSchema, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use std::sync::Arc;

/// Files are opened through [`DiskReaders`]; DataFusion still asks for a store of this name, which holds nothing.
pub(crate) const STORE: &str = "history://files";

#[derive(Debug)]
pub(crate) struct StreamTable {
    view: View,
    footers: Arc<FooterCache>,
}

impl StreamTable {
    pub fn new(view: View, footers: Arc<FooterCache>) -> Self {
        Self { view, footers }
    }

    fn schema_ref(&self) -> &SchemaRef {
        &self.view.layout.arrow
    }

    /// The files that can hold a row for which `predicate` is true.
    fn pruned(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Vec<(Arc<DataFile>, Arc<Statistics>)> {
        let files = self.view.files.iter().map(|file| (Arc::clone(file), Arc::new(self.statistics_of(file))));
        let files: Vec<_> = files.collect();
        let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(self.schema_ref()));
        let predicate = predicate.and_then(|p| builder.build(Arc::clone(p)));
        let Some(predicate) = predicate else { return files };
        let statistics = files.iter().map(|(_, s)| Arc::clone(s)).collect();
        match predicate.prune(&PrunableStatistics::new(statistics, Arc::clone(self.schema_ref()))) {
            Ok(kept) => files.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(file, _)| file).collect(),
            // Pruning saves work and decides nothing: the filter itself runs again over the rows.
            Err(_) => files,
        }
    }

    /// What the manifest says of a file, in DataFusion's words.
    fn statistics_of(&self, file: &DataFile) -> Statistics {
        let mut statistics = Statistics::new_unknown(self.schema_ref());
        statistics.num_rows = Precision::Exact(file.entry.rows as usize);
        let stream = &self.view.layout.stream;
        let text = |key: &str| ScalarValue::Utf8(Some(key.to_owned()));
        let time = |us: i64| ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
        let between = |min, max| ColumnStatistics {
            null_count: Precision::Exact(0),
            min_value: Precision::Exact(min),
            max_value: Precision::Exact(max),
            ..ColumnStatistics::new_unknown()
        };
        statistics.column_statistics[stream.key] = between(text(&file.entry.key_min), text(&file.entry.key_max));
        statistics.column_statistics[stream.event_time] = between(time(file.entry.event_time_min), time(file.entry.event_time_max));
        statistics
    }

    fn scan_files(
        &self,
        files: Vec<(Arc<DataFile>, Arc<Statistics>)>,
        n_groups: usize,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let readers = Arc::new(DiskReaders { footers: Arc::clone(&self.footers) });
        // DataFusion's own optimizer hands the filter to this source, where it skips row groups and pages.
        let source = ParquetSource::new(Arc::clone(self.schema_ref())).with_parquet_file_reader_factory(readers);
        let statistics = self.sum(&files);
        let scan = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE)?, Arc::new(source))
            .with_file_groups(groups(files, n_groups))
            .with_statistics(statistics)
            .with_limit(limit)
            .with_projection_indices(projection.cloned())?;
        Ok(DataSourceExec::from_data_source(scan.build()))
    }

    fn sum(&self, files: &[(Arc<DataFile>, Arc<Statistics>)]) -> Statistics {
        let mut sum = Statistics::new_unknown(self.schema_ref());
        sum.num_rows = Precision::Exact(files.iter().map(|(file, _)| file.entry.rows as usize).sum());
        for at in [self.view.layout.stream.key, self.view.layout.stream.event_time] {
            let columns = files.iter().map(|(_, s)| s.column_statistics[at].clone());
            let widened = columns.reduce(|a, b| ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: a.min_value.min(&b.min_value),
                max_value: a.max_value.max(&b.max_value),
                ..ColumnStatistics::new_unknown()
            });
            sum.column_statistics[at] = widened.unwrap_or_else(ColumnStatistics::new_unknown);
        }
        sum
    }
}

/// Cuts the files, newest first, into groups of like size that are read in parallel: who asks for a few rows mostly asks for the newest,
/// and a reader that has nothing left to do takes files from another's group.
fn groups(mut files: Vec<(Arc<DataFile>, Arc<Statistics>)>, n: usize) -> Vec<FileGroup> {
    files.sort_by_key(|(file, _)| std::cmp::Reverse((file.entry.event_time_max, file.entry.event_time_min)));
    let n = n.clamp(1, files.len().max(1));
    let bytes: u64 = files.iter().map(|(file, _)| file.entry.bytes).sum();
    let mut groups = vec![Vec::new(); n];
    let mut at = 0;
    for (file, statistics) in files {
        let group = (at * n as u64).checked_div(bytes).unwrap_or(0).min(n as u64 - 1);
        at += file.entry.bytes;
        let planned = PartitionedFile::new(file.path.to_string_lossy(), file.entry.bytes);
        groups[group as usize].push(planned.with_statistics(statistics).with_extension(file));
    }
    groups.into_iter().filter(|files| !files.is_empty()).map(FileGroup::new).collect()
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema_ref())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Files, row groups and pages are skipped by a filter; the rows that remain are filtered again above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = DFSchema::try_from(Arc::clone(self.schema_ref()))?;
        let predicate = conjunction(filters.to_vec()).map(|e| session.create_physical_expr(e, &schema)).transpose()?;
        let files = self.pruned(predicate.as_ref());
        let mut inputs = Vec::new();
        if !files.is_empty() {
            let n_groups = session.config().target_partitions();
            inputs.push(self.scan_files(files, n_groups, projection, limit)?);
        }
        if !self.view.tail.is_empty() || inputs.is_empty() {
            let tail = [self.view.tail.clone()];
            inputs.push(MemorySourceConfig::try_new_exec(&tail, Arc::clone(self.schema_ref()), projection.cloned())?);
        }
        if inputs.len() == 1 { Ok(inputs.remove(0)) } else { UnionExec::try_new(inputs) }
    }
}

/// A timestamp literal as the tables hold it.
pub(crate) fn time_literal(us: i64) -> Expr {
    let value = ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into()));
    debug_assert!(matches!(value.data_type(), DataType::Timestamp(..)));
    datafusion::logical_expr::lit(value)
}
