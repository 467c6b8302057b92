//! One query's surroundings: its tables, its memory, and nothing else it could reach.

use crate::config::QueryLimits;
use crate::error::HistoryError;
use crate::history::History;
use crate::table::STORE;
use crate::views::Tables;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList};
use datafusion::error::Result;
use datafusion::execution::context::{SessionContext, SessionState};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::object_store::memory::InMemory;
use datafusion::prelude::SessionConfig;
use std::sync::Arc;

pub(crate) const CATALOG: &str = "mulgil";
pub(crate) const SCHEMA: &str = "public";
/// One query may use so many threads of its runtime.
const TARGET_PARTITIONS: usize = 2;

/// What all queries share: functions and settings. Built once, as registering the functions takes longer than a small query.
pub(crate) fn base() -> SessionState {
    let mut config = SessionConfig::new()
        .with_target_partitions(TARGET_PARTITIONS)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    config.options_mut().execution.time_zone = Some("UTC".to_owned());
    // Text stays text: a literal of a price is an exact decimal, as the columns are.
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    // Rows that a filter drops are dropped before their other columns are decoded, and a sort by time reads the newest files first.
    config.options_mut().execution.parquet.pushdown_filters = true;
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    crate::functions::replace(&mut state).expect("invariant: DataFusion has the functions that are replaced");
    state
}

impl History {
    /// A session with the streams as they are now.
    pub(crate) fn session(&self, limits: &QueryLimits) -> Result<SessionContext, HistoryError> {
        let tables = Tables::new(self.views(), Arc::clone(&self.footers));
        let catalog = MemoryCatalogProvider::new();
        let starting = || HistoryError::internal("starting a query");
        catalog.register_schema(SCHEMA, Arc::new(tables)).map_err(starting())?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
        let runtime = runtime(limits).map_err(starting())?;
        let state = SessionStateBuilder::new_from_existing(self.session.clone());
        Ok(SessionContext::new_with_state(state.with_catalog_list(Arc::new(catalogs)).with_runtime_env(runtime).build()))
    }
}

/// A memory pool of the query's own, no spilling, and no store but an empty one: there is no path to any file.
fn runtime(limits: &QueryLimits) -> Result<Arc<RuntimeEnv>> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(limits.memory_bytes)))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()?;
    runtime.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
    runtime.register_object_store(ObjectStoreUrl::parse(STORE)?.as_ref(), Arc::new(InMemory::new()));
    Ok(runtime)
}
