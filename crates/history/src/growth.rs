//! How large a query may grow, judged by its plan before it is optimised.
//!
//! Optimisers put what a column is computed from in the place of the column: thirty queries around each other, each with `t || t AS t` of
//! the one within, are short and not deep, but a filter around them becomes a billion terms, made without a pause. Names of WITH share
//! one plan until then, and count here as often as they are used.

use crate::error::HistoryError;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Expr, JoinType, LogicalPlan, Operator};

/// Terms and steps of a plan, columns counted as what they are computed from.
const PARTS_MAX: u64 = 10_000;
/// Terms within each other, counted so: as many as [`crate::depth`] lets be written, and the few that planning adds.
const DEPTH_MAX: u64 = 1_200;

/// How many terms of the plan make values, which may be texts.
pub(crate) fn check(plan: &LogicalPlan) -> Result<u64, HistoryError> {
    let mut growth = Growth::default();
    if growth.add(plan, &[]).is_some() {
        return Ok(growth.n_makers);
    }
    Err(HistoryError::Limit(format!(
        "the query grows to more than {PARTS_MAX} terms, or {DEPTH_MAX} within each other, when its columns are replaced by what they are \
         computed from: use each fewer times, or ask in parts"
    )))
}

/// A term with everything that its columns are computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weight {
    n_parts: u64,
    n_makers: u64,
    depth: u64,
}

const COLUMN: Weight = Weight { n_parts: 1, n_makers: 0, depth: 1 };

impl Weight {
    fn beside(self, other: Self) -> Self {
        Self {
            n_parts: self.n_parts.saturating_add(other.n_parts),
            n_makers: self.n_makers.saturating_add(other.n_makers),
            depth: self.depth.max(other.depth),
        }
    }
}

/// The columns of an input, in the order of its schema.
struct Columns<'a> {
    schema: &'a DFSchema,
    weights: Vec<Weight>,
}

impl Columns<'_> {
    /// Looking for a name takes as long as there are columns, so only where it matters.
    fn is_plain(&self) -> bool {
        self.weights.iter().all(|weight| *weight == COLUMN)
    }
}

#[derive(Debug, Default)]
struct Growth {
    n_parts: u64,
    n_makers: u64,
    depth: u64,
}

impl Growth {
    /// The weights of what the plan gives, or None if it is too large. `outer` are the columns of the queries around it.
    fn add(&mut self, plan: &LogicalPlan, outer: &[&Columns]) -> Option<Vec<Weight>> {
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            inputs.push(Columns { schema: input.schema(), weights: self.add(input, outer)? });
        }
        let scope: Vec<&Columns> = inputs.iter().chain(outer.iter().copied()).filter(|columns| !columns.is_plain()).collect();
        let mut terms = Vec::new();
        let each = |expr: &Expr| {
            terms.push(weight(expr, &scope));
            Ok(TreeNodeRecursion::Continue)
        };
        plan.apply_expressions(each).ok()?;
        let all = terms.iter().fold(COLUMN, |all, term| all.beside(*term));
        self.n_parts = self.n_parts.saturating_add(all.n_parts);
        self.n_makers = self.n_makers.saturating_add(all.n_makers);
        self.depth = self.depth.max(all.depth);
        let mut fits = self.n_parts <= PARTS_MAX && self.depth <= DEPTH_MAX;
        let within = |subquery: &LogicalPlan| {
            fits = fits && self.add(subquery, &scope).is_some();
            Ok(if fits { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Stop })
        };
        plan.apply_subqueries(within).ok()?;
        fits.then(|| given(plan, &inputs, terms))
    }
}

/// What each column that `plan` gives is computed from.
fn given(plan: &LogicalPlan, inputs: &[Columns], terms: Vec<Weight>) -> Vec<Weight> {
    let n = plan.schema().fields().len();
    let handed_on = inputs.iter().flat_map(|input| input.weights.iter().copied());
    let with_new = |known: Vec<Weight>| known.into_iter().chain(std::iter::repeat(COLUMN)).take(n).collect();
    match plan {
        LogicalPlan::Projection(_) => terms,
        LogicalPlan::Aggregate(aggregate) => with_new(terms.into_iter().take(aggregate.group_expr.len()).collect()),
        LogicalPlan::Union(_) => {
            let branch = |at: usize| inputs.iter().filter_map(move |input| input.weights.get(at).copied());
            (0..n).map(|at| branch(at).reduce(Weight::beside).unwrap_or(COLUMN)).collect()
        }
        LogicalPlan::Join(join) if matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark) => {
            with_new(inputs.last().map_or_else(Vec::new, |right| right.weights.clone()))
        }
        LogicalPlan::Join(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Repartition(_) => with_new(handed_on.collect()),
        // The heaviest there is stands for each.
        _ => vec![handed_on.chain(terms).max_by_key(|weight| (weight.n_parts, weight.depth)).unwrap_or(COLUMN); n],
    }
}

fn weight(expr: &Expr, scope: &[&Columns]) -> Weight {
    match expr {
        // Lists of them are flat, and as long as a query may be.
        Expr::Literal(..) => Weight { n_parts: 0, ..COLUMN },
        Expr::Column(column) | Expr::OuterReferenceColumn(_, column) => {
            let found = scope.iter().find_map(|columns| columns.weights.get(columns.schema.maybe_index_of_column(column)?));
            found.copied().unwrap_or(COLUMN)
        }
        _ => {
            let mut all = Weight { n_makers: u64::from(makes_values(expr)), ..COLUMN };
            let each = |child: &Expr| {
                let within = weight(child, scope);
                all = all.beside(Weight { depth: within.depth + 1, ..within });
                Ok(TreeNodeRecursion::Continue)
            };
            expr.apply_children(each).expect("invariant: nothing fails on the way");
            all
        }
    }
}

/// What may give a text that was not there before.
fn makes_values(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => *op == Operator::StringConcat,
        Expr::ScalarFunction(_) | Expr::Cast(_) | Expr::TryCast(_) | Expr::Case(_) => true,
        _ => false,
    }
}
