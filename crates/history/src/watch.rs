//! What stands between two operators of a running query: it refuses a batch larger than all the query may hold, lets others have their
//! turn, and gives a join its rows in portions.
//!
//! DataFusion counts what its operators keep, not what they hand on, and a join that compares a batch of one side with all rows of the
//! other does so in one go: 8,192 rows against a million are minutes without a pause. In portions the pauses are milliseconds apart.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{ReplaceChildrenOptions, SchedulingType, replace_children_if_necessary};
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt};
use std::fmt::Formatter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The first portion; later ones follow what a join takes for them.
const PORTION_ROWS_FIRST: usize = 16;
/// A portion that took less is doubled, one that took longer is halved.
const PORTION_TIME_LEAST: Duration = Duration::from_millis(1);
const PORTION_TIME_MOST: Duration = Duration::from_millis(5);
/// A batch of this size is let through whatever the query's limit: slices count all the memory they are slices of.
const BATCH_BYTES_LEAST: usize = 16 << 20;

#[derive(Debug)]
pub(crate) struct Watch {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    bytes_max: usize,
    in_portions: bool,
}

impl Watch {
    /// Watches over what `node` hands on, and portions what a join compares with all rows of its other side.
    pub fn over(node: Arc<dyn ExecutionPlan>, memory_bytes: usize) -> Result<Arc<dyn ExecutionPlan>> {
        let compares = node.downcast_ref::<NestedLoopJoinExec>().is_some()
            || node.downcast_ref::<HashJoinExec>().is_some_and(|join| join.filter().is_some());
        let bytes_max = memory_bytes.max(BATCH_BYTES_LEAST);
        if !compares {
            return Ok(Arc::new(Self::new(node, bytes_max, false)));
        }
        let [kept, probing] = node.children()[..] else {
            return Err(DataFusionError::Internal("a join without two inputs".to_owned()));
        };
        let inputs = vec![Arc::clone(kept), Arc::new(Self::new(Arc::clone(probing), bytes_max, true)) as Arc<dyn ExecutionPlan>];
        Ok(Arc::new(Self::new(replace_children_if_necessary(node, inputs)?, bytes_max, false)))
    }

    fn with_input(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("nothing to watch over".to_owned()))?;
        Ok(Arc::new(Self::new(input, self.bytes_max, self.in_portions)))
    }

    fn new(input: Arc<dyn ExecutionPlan>, bytes_max: usize, in_portions: bool) -> Self {
        let properties = PlanProperties::clone(input.properties()).with_scheduling_type(SchedulingType::Cooperative);
        Self { input, properties: Arc::new(properties), bytes_max, in_portions }
    }
}

impl DisplayAs for Watch {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

impl ExecutionPlan for Watch {
    fn name(&self) -> &str {
        "Watch"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_input(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.with_input(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = make_cooperative(self.input.execute(partition, context)?);
        let portions = self.in_portions.then(Portions::default);
        Ok(Box::pin(Watched { input, bytes_max: self.bytes_max, portions }))
    }
}

struct Watched {
    input: SendableRecordBatchStream,
    bytes_max: usize,
    portions: Option<Portions>,
}

impl RecordBatchStream for Watched {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

impl Stream for Watched {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(portions) = &mut this.portions {
            if portions.must_pause() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(portion) = portions.next() {
                return Poll::Ready(Some(Ok(portion)));
            }
        }
        let Some(batch) = futures::ready!(this.input.poll_next_unpin(cx)) else { return Poll::Ready(None) };
        let batch = batch?;
        let bytes = batch.get_array_memory_size();
        if bytes > this.bytes_max {
            let max = this.bytes_max;
            return Poll::Ready(Some(Err(DataFusionError::ResourcesExhausted(format!(
                "a batch of {bytes} bytes, at most {max} are allowed"
            )))));
        }
        Poll::Ready(Some(Ok(match &mut this.portions {
            Some(portions) => portions.begin(batch),
            None => batch,
        })))
    }
}

/// The rest of a batch, and how much of it is handed on next.
struct Portions {
    rest: Option<RecordBatch>,
    n_rows: usize,
    /// When the last portion was handed on; None when the pause behind it is over.
    handed: Option<Instant>,
}

impl Default for Portions {
    fn default() -> Self {
        Self { rest: None, n_rows: PORTION_ROWS_FIRST, handed: None }
    }
}

impl Portions {
    /// Once after each portion, when the next is asked for.
    fn must_pause(&mut self) -> bool {
        let Some(handed) = self.handed.take() else { return false };
        let took = handed.elapsed();
        if took > PORTION_TIME_MOST {
            self.n_rows = (self.n_rows / 2).max(1);
        } else if took < PORTION_TIME_LEAST {
            self.n_rows = self.n_rows.saturating_mul(2);
        }
        true
    }

    fn begin(&mut self, batch: RecordBatch) -> RecordBatch {
        let empty = batch.slice(0, 0);
        self.rest = Some(batch);
        self.next().unwrap_or(empty)
    }

    fn next(&mut self) -> Option<RecordBatch> {
        let rest = self.rest.take().filter(|rest| rest.num_rows() > 0)?;
        let n = self.n_rows.min(rest.num_rows());
        self.handed = Some(Instant::now());
        self.rest = Some(rest.slice(n, rest.num_rows() - n));
        Some(rest.slice(0, n))
    }
}
