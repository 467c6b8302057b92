//! The names a query can use: every stream under its own name and with underscores, the latest revision of bars, all alerts as one.

use crate::history::View;
use crate::layout::OFFSET;
use crate::reader::FooterCache;
use crate::table::StreamTable;
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Column;
use datafusion::common::TableReference;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlanBuilder, lit};
use mulgil_model::ids::Topic;
use mulgil_model::schema::StreamKind;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All alert streams as one table.
const ALERTS: &str = "alerts";
/// Behind the name of a bar stream: only the last revision of each (symbol, start).
const LATEST: &str = "latest";

/// What stands behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Stream(Topic),
    Latest(Topic),
    Alerts(Vec<Topic>),
}

/// The tables of one query: all views are of the same moment.
#[derive(Debug)]
pub(crate) struct Tables {
    views: BTreeMap<Topic, View>,
    names: BTreeMap<String, Named>,
    footers: Arc<FooterCache>,
}

impl Tables {
    pub fn new(views: BTreeMap<Topic, View>, footers: Arc<FooterCache>) -> Self {
        let names = names(&views);
        Self { views, names, footers }
    }

    fn stream(&self, topic: &Topic) -> Arc<dyn TableProvider> {
        Arc::new(StreamTable::new(self.views[topic].clone(), Arc::clone(&self.footers)))
    }

    fn plan_stream(&self, topic: &Topic) -> Result<LogicalPlanBuilder> {
        LogicalPlanBuilder::scan(TableReference::bare(topic.as_str()), provider_as_source(self.stream(topic)), None)
    }

    fn columns(&self, topic: &Topic) -> Vec<Expr> {
        self.views[topic].layout.arrow.fields().iter().map(|f| column(f.name())).collect()
    }

    /// The end of a bar follows from its start, so grouping by it too changes nothing, but lets a filter on it pass below.
    fn latest(&self, topic: &Topic) -> Result<ViewTable> {
        const RANK: &str = "_rank";
        let newest_first = vec![column("revision").sort(false, false), column(OFFSET).sort(false, false)];
        let bar = vec![column("symbol"), column("start"), column("event_time")];
        let rank = row_number().partition_by(bar).order_by(newest_first).build()?.alias(RANK);
        let plan = self.plan_stream(topic)?.window([rank])?.filter(column(RANK).eq(lit(1u64)))?.project(self.columns(topic))?;
        Ok(ViewTable::new(plan.build()?, None))
    }

    fn alerts(&self, topics: &[Topic]) -> Result<ViewTable> {
        let mut plans = topics.iter().map(|topic| self.plan_stream(topic)?.project(self.columns(topic)));
        let first = plans.next().unwrap_or_else(|| Err(DataFusionError::Internal("a view of no streams".to_owned())))?;
        let plan = plans.try_fold(first, |all, next| all.union(next?.build()?))?;
        Ok(ViewTable::new(plan.build()?, None))
    }
}

pub(crate) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn names(views: &BTreeMap<Topic, View>) -> BTreeMap<String, Named> {
    let mut all: Vec<(String, Named)> = views.keys().map(|t| (t.to_string(), Named::Stream(t.clone()))).collect();
    let of_kind = |kind| views.iter().filter(move |(_, v)| v.layout.stream.kind == kind).map(|(topic, _)| topic.clone());
    all.extend(of_kind(StreamKind::Bar).map(|t| (format!("{t}.{LATEST}"), Named::Latest(t))));
    let alerts: Vec<Topic> = of_kind(StreamKind::Alert).collect();
    if !alerts.is_empty() {
        all.push((ALERTS.to_owned(), Named::Alerts(alerts)));
    }
    let with_underscores: Vec<_> = all.iter().map(|(name, named)| (name.replace(['.', '-'], "_"), named.clone())).collect();
    let mut names = BTreeMap::new();
    // A stream's own name wins over a view, and that over a spelling with underscores.
    for (name, named) in all.into_iter().chain(with_underscores) {
        names.entry(name).or_insert(named);
    }
    names
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn table_exist(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(match self.names.get(name) {
            None => None,
            Some(Named::Stream(topic)) => Some(self.stream(topic)),
            Some(Named::Latest(topic)) => Some(Arc::new(self.latest(topic)?)),
            Some(Named::Alerts(topics)) => Some(Arc::new(self.alerts(topics)?)),
        })
    }
}
