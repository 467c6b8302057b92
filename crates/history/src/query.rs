//! SQL over the history: read-only, bounded in time, memory, rows and number, cancelled by dropping its answer.

use crate::config::QueryLimits;
use crate::error::HistoryError;
use crate::history::History;
use crate::session::SCHEMA;
use crate::text::TextShare;
use crate::watch::Watch;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::TableReference;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// The longest SQL text, in bytes.
const SQL_BYTES_MAX: usize = 64 * 1024;
/// Batches that a query makes before anybody asks for them.
const BATCHES_AHEAD: usize = 2;
/// Names that a message about an unknown table lists.
const TABLES_SHOWN_MAX: usize = 20;

/// The rows of an answer as they come. Holds one of the places for queries until it is dropped or at its end. The time limit counts from
/// the query's start and ends also a query whose rows nobody asks for any more, at the next time they are asked for.
pub struct QueryStream {
    schema: SchemaRef,
    rows: Option<SendableRecordBatchStream>,
    limits: QueryLimits,
    n_rows: u64,
    deadline: Instant,
    alarm: Pin<Box<Sleep>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl QueryStream {
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All rows at once.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>, HistoryError> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    fn end(&mut self) {
        self.rows = None;
        self.permit = None;
    }
}

impl std::fmt::Debug for QueryStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryStream").field("schema", &self.schema).field("n_rows", &self.n_rows).finish_non_exhaustive()
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch, HistoryError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(rows) = &mut this.rows else { return Poll::Ready(None) };
        // The alarm first: what the query does in its turn may leave no turn for it.
        if this.alarm.as_mut().poll(cx).is_ready() || Instant::now() >= this.deadline {
            let error = timed_out(this.limits.timeout);
            this.end();
            return Poll::Ready(Some(Err(error)));
        }
        let item = match futures::ready!(rows.poll_next_unpin(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(HistoryError::of_query(error))),
            Some(Ok(batch)) => {
                this.n_rows += batch.num_rows() as u64;
                let max = this.limits.rows_max;
                let too_many = || HistoryError::Limit(format!("the answer has more than {max} rows: add LIMIT, or narrow the query"));
                Some(if this.n_rows > max { Err(too_many()) } else { Ok(batch) })
            }
        };
        if !matches!(item, Some(Ok(_))) {
            this.end();
        }
        Poll::Ready(item)
    }
}

impl History {
    /// Answers one SELECT (or EXPLAIN, SHOW, DESCRIBE) over all streams as they are at this moment. `limits` replaces the configured ones.
    pub async fn query(&self, sql: &str, limits: Option<QueryLimits>) -> Result<QueryStream, HistoryError> {
        let limits = limits.unwrap_or_else(|| self.config.query.clone());
        if sql.len() > SQL_BYTES_MAX {
            return Err(HistoryError::User(format!("the query has {} bytes, more than the {SQL_BYTES_MAX} allowed", sql.len())));
        }
        crate::depth::check(sql)?;
        crate::width::check(sql)?;
        let permit = self.turn(&self.queries, "queries").await?;
        let context = self.session(&limits)?;
        let deadline = Instant::now() + limits.timeout;
        let started = tokio::time::timeout_at(deadline, async {
            let plan = plan(&context, sql, limits.memory_bytes).await?;
            run(plan, limits.memory_bytes).await.map_err(HistoryError::of_query)
        });
        let rows = started.await.unwrap_or_else(|_| Err(timed_out(limits.timeout)))?;
        Ok(QueryStream {
            schema: rows.schema(),
            rows: Some(rows),
            limits,
            n_rows: 0,
            deadline,
            alarm: Box::pin(tokio::time::sleep_until(deadline)),
            permit: Some(permit),
        })
    }

    /// A place among those that run at a time, waited for as long as configured.
    pub(crate) async fn turn(&self, places: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit, HistoryError> {
        let busy = || HistoryError::Busy(format!("as many {what} as are allowed at a time are running: try again in a moment"));
        match tokio::time::timeout(self.config.wait_max, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }
}

pub(crate) fn timed_out(timeout: Duration) -> HistoryError {
    HistoryError::Time(format!("the query took longer than its limit of {} s: narrow its time range", timeout.as_secs_f64()))
}

/// Plans and checks a statement; nothing has run yet.
async fn plan(context: &SessionContext, sql: &str, memory_bytes: usize) -> Result<DataFrame, HistoryError> {
    let mut state = context.state();
    let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect).map_err(HistoryError::of_query)?;
    let tables = state.resolve_table_references(&statement).map_err(HistoryError::of_query)?;
    let plan = match state.statement_to_plan(statement).await {
        Ok(plan) => plan,
        Err(error) => {
            // Functions that give rows stand among the tables of a statement.
            let is_function = |table: &&TableReference| state.table_functions().contains_key(table.table());
            tables.iter().filter(|table| !is_function(table)).try_for_each(|table| check_exists(context, table))?;
            return Err(HistoryError::of_query(error));
        }
    };
    let n_makers = crate::growth::check(&plan)?;
    state.config_mut().options_mut().extensions.insert(TextShare::of(memory_bytes, n_makers));
    state.mark_start_execution();
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan).map_err(|error| {
        let what = error.strip_backtrace();
        let what = what.rsplit(": ").next().unwrap_or_default();
        HistoryError::User(format!("the history is read-only, {what} is not allowed: use SELECT, EXPLAIN, SHOW or DESCRIBE"))
    })?;
    Ok(DataFrame::new(state, plan))
}

/// Runs a plan in a task of its own that ends when its rows are dropped. Every operator gives way after each batch, so that a join that
/// makes millions of rows from a few can be stopped; while one batch takes long, the asker is not kept waiting by it.
async fn run(plan: DataFrame, memory_bytes: usize) -> datafusion::error::Result<SendableRecordBatchStream> {
    let context = Arc::new(plan.task_ctx());
    let plan = plan.create_physical_plan().await?;
    let plan = plan.transform_up(|node| Ok(Transformed::yes(Watch::over(node, memory_bytes)?)))?.data;
    let plan = if plan.output_partitioning().partition_count() > 1 { Arc::new(CoalescePartitionsExec::new(plan)) } else { plan };
    let mut rows = RecordBatchReceiverStream::builder(plan.schema(), BATCHES_AHEAD);
    let (made, mut making) = (rows.tx(), plan.execute(0, context)?);
    rows.spawn(async move {
        while let Some(batch) = making.next().await {
            if made.send(batch).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    Ok(rows.build())
}

/// An unknown table is told with the nearest known one and a list, instead of only its name.
fn check_exists(context: &SessionContext, table: &TableReference) -> Result<(), HistoryError> {
    let schema = table.schema().unwrap_or(SCHEMA);
    let catalog = context.catalog(table.catalog().unwrap_or(crate::session::CATALOG));
    if catalog.is_some() && schema == "information_schema" {
        return Ok(());
    }
    let tables = catalog.and_then(|c| c.schema(schema));
    if tables.as_ref().is_some_and(|t| t.table_exist(table.table())) {
        return Ok(());
    }
    let known = context.catalog(crate::session::CATALOG).and_then(|c| c.schema(SCHEMA)).map(|s| s.table_names()).unwrap_or_default();
    let name = table.to_string().to_lowercase();
    let distance = |known: &&String| strsim::damerau_levenshtein(known, &name);
    let nearest = known.iter().min_by_key(distance).filter(|known| distance(known) <= name.len().max(4) / 2);
    let meant = nearest.map(|n| format!(", did you mean {}?", quoted(n))).unwrap_or_else(|| ".".to_owned());
    let more = if known.len() > TABLES_SHOWN_MAX { ", …" } else { "" };
    let list: Vec<String> = known.iter().take(TABLES_SHOWN_MAX).map(|n| quoted(n)).collect();
    Err(HistoryError::User(format!("there is no table '{table}'{meant} Tables: {}{more}", list.join(", "))))
}

/// As it is written in SQL.
fn quoted(name: &str) -> String {
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') { name.to_owned() } else { format!("\"{name}\"") }
}
