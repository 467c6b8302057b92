//! Summaries: aggregates per group and window, declared in config, as a stream of their own.
//!
//! Columns of `<stream>.<name>`: the group columns, `start`, `event_time` (the window's end; for sliding windows the row's time), the
//! aggregates, `revision`. Within one moment of the watermark, rows are ordered by end, then by the group's values.
//! Lateness is as with bars: a row older than the watermark by more than the allowed lateness goes to `<stream>.<name>.late`; one within it
//! revises its windows at once. Sliding windows allow none.
//!
//! The state is kept under a hash of the declaration: a summary that is declared differently begins anew, and what the old one left in
//! the store is dead weight until the state folder is rebuilt.

use crate::aggregate::{Cells, Function, SummaryRow};
use crate::error::EngineError;
use crate::late::LateRows;
use crate::operator::{Input, Operator, OperatorStats};
use crate::output::Outputs;
use crate::panes::{Panes, Published, Series};
use crate::sessions::Sessions;
use crate::sliding::Sliding;
use crate::state::{Snapshot, StateStore};
use crate::value::{Value, column, read_ordered, write_ordered};
use crate::window::{Assigner, Window, WindowError, WindowSpec};
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use mulgil_model::ids::{Offset, Topic};
use mulgil_model::schema::{Column, ColumnType, StreamKind, StreamSchema};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Chooses the rows that count, null meaning no. It must be a pure function of the batch, row by row.
pub type Mask = Arc<dyn Fn(&RecordBatch) -> Result<BooleanArray, ArrowError> + Send + Sync>;

#[derive(Clone)]
pub struct SummarySpec {
    /// `volume_by_user` gives `<stream>.volume_by_user`.
    pub name: String,
    /// The shard's input.
    pub input: Arc<StreamSchema>,
    /// What the output's name begins with.
    pub stream: Topic,
    pub group_by: Vec<String>,
    pub window: WindowSpec,
    pub filter: Option<Mask>,
    pub aggregates: Vec<AggregateSpec>,
    pub allowed_lateness_us: i64,
    /// Partitions of the input. A group's rows must be in one of them.
    pub n_partitions: u32,
    pub hot_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AggregateSpec {
    /// The output column.
    pub name: String,
    pub function: Function,
    /// None counts rows.
    pub column: Option<String>,
}

pub struct SummaryOperator {
    name: String,
    schema: Arc<StreamSchema>,
    group: Vec<(usize, ColumnType)>,
    functions: Vec<Function>,
    /// Where each aggregate's values come from; None counts rows.
    sources: Vec<Option<(usize, ColumnType)>>,
    filter: Option<Mask>,
    windows: Windows,
    late: LateRows,
    pending: Vec<Vec<Option<Value>>>,
}

// One per operator: its size does not matter.
#[allow(clippy::large_enum_variant)]
enum Windows {
    Fixed { assigner: Assigner, panes: Panes<Cells>, assigned: Vec<Window>, keyed: Vec<(Series, Window)> },
    Session(Sessions<Cells>),
    Sliding(Sliding<Cells>),
}

impl SummaryOperator {
    pub fn new(spec: &SummarySpec) -> Result<Self, EngineError> {
        let config = |e: String| EngineError::Config(format!("summary '{}' of stream '{}': {e}", spec.name, spec.stream));
        let find = |name: &String| spec.input.column(name).map(|(at, c)| (at, c.clone())).map_err(|e| config(e.to_string()));
        let group = spec.group_by.iter().map(&find).collect::<Result<Vec<_>, _>>()?;
        let mut sources = Vec::new();
        for aggregate in &spec.aggregates {
            sources.push(aggregate.column.as_ref().map(&find).transpose()?);
        }
        let key = output_key(spec, &group).map_err(&config)?;
        let aggregates = result_columns(spec, &sources).map_err(&config)?;
        let mut columns: Vec<Column> = group.iter().map(|(_, c)| c.clone()).collect();
        columns.extend([Column::required("start", ColumnType::Timestamp), Column::required("event_time", ColumnType::Timestamp)]);
        columns.extend(aggregates);
        columns.push(Column::required("revision", ColumnType::Int));
        let stream = spec.stream.derived(&spec.name).map_err(|e| config(e.to_string()))?;
        let late = stream.derived("late").map_err(|e| config(e.to_string()))?;
        let schema = StreamSchema::new(stream, StreamKind::Plain, columns, &key, "event_time").map_err(|e| config(e.to_string()))?;
        Ok(Self {
            name: format!("summary.{}", spec.name),
            pending: vec![Vec::new(); schema.columns.len()],
            schema: Arc::new(schema),
            group: group.into_iter().map(|(at, c)| (at, c.kind)).collect(),
            functions: spec.aggregates.iter().map(|a| a.function).collect(),
            sources: sources.into_iter().map(|s| s.map(|(at, c)| (at, c.kind))).collect(),
            filter: spec.filter.clone(),
            windows: Windows::new(spec).map_err(|e| config(e.to_string()))?,
            late: LateRows::new(&spec.input, late),
        })
    }

    fn emit(&mut self, out: &mut Outputs) -> Result<(), EngineError> {
        if self.pending[0].is_empty() {
            return Ok(());
        }
        let columns = self.schema.columns.iter().zip(&mut self.pending).map(|(c, values)| {
            let array = column(c.kind, values);
            values.clear();
            array
        });
        let batch = RecordBatch::try_new(Arc::clone(self.schema.arrow()), columns.collect())?;
        out.emit(&self.schema, batch);
        Ok(())
    }
}

impl Operator for SummaryOperator {
    fn name(&self) -> &str {
        &self.name
    }

    fn outputs(&self) -> Vec<Arc<StreamSchema>> {
        vec![Arc::clone(&self.schema), Arc::clone(self.late.schema())]
    }

    fn open(&mut self, watermark: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        match &mut self.windows {
            Windows::Fixed { panes, .. } => panes.open(store),
            Windows::Session(sessions) => sessions.open(store),
            Windows::Sliding(sliding) => sliding.open(watermark, store),
        }
    }

    fn on_rows(&mut self, input: &Input<'_>, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let mask = self.filter.as_ref().map(|filter| filter(&input.rows.batch)).transpose()?;
        if mask.as_ref().is_some_and(|mask| mask.len() != input.rows.len()) {
            return Err(EngineError::Operator { operator: self.name.clone(), reason: "its filter lost rows".to_owned() });
        }
        let Self { group, functions, sources, windows, late, pending, .. } = self;
        let times = input.rows.event_times().values();
        let (mut key, mut values) = (Vec::new(), Vec::with_capacity(sources.len()));
        for (i, &at) in times.iter().enumerate() {
            let counts = mask.as_ref().is_none_or(|mask| mask.is_valid(i) && mask.value(i));
            let watermark = input.watermark_at(i);
            let mut publish = |p: Published<'_, Cells>| append(pending, group, functions, sources, &p);
            if counts && windows.is_late(at, watermark) {
                late.push(i);
            } else if counts {
                key.clear();
                group.iter().for_each(|(column, kind)| write_ordered(input.rows.column(*column), *kind, i, &mut key));
                values.clear();
                values.extend(
                    sources.iter().map(|s| s.map_or(Some(Value::Bool(true)), |(c, kind)| Value::at(input.rows.column(c), kind, i))),
                );
                let row = SummaryRow { at: (at, input.offset_of(i).0), functions, values: &values };
                windows.add(&key, &row, watermark, store, &mut publish)?;
            }
            windows.close(input.watermarks[i], store, &mut publish)?;
        }
        late.emit(input, out)?;
        windows.purge(input.watermarks.last().copied().unwrap_or(input.watermark_before), store)?;
        self.emit(out)
    }

    fn on_watermark(&mut self, watermark: i64, _at: Offset, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let Self { group, functions, sources, windows, pending, .. } = self;
        windows.close(watermark, store, &mut |p| append(pending, group, functions, sources, &p))?;
        windows.purge(watermark, store)?;
        self.emit(out)
    }

    fn n_due(&self, to: i64, max: usize) -> usize {
        match &self.windows {
            Windows::Fixed { panes, .. } => panes.n_due(to, max),
            Windows::Session(_) | Windows::Sliding(_) => 0,
        }
    }

    fn close_ahead(&mut self, to: i64, at_most: usize, store: &dyn StateStore, out: &mut Outputs) -> Result<(), EngineError> {
        let Self { group, functions, sources, windows, pending, .. } = self;
        let publish: Publish<'_> = &mut |p| append(pending, group, functions, sources, &p);
        if let Windows::Fixed { panes, .. } = windows {
            panes.close_some(to, at_most, store, publish)?;
        }
        self.emit(out)
    }

    fn snapshot(&mut self, watermark: i64, into: &mut Snapshot) {
        match &mut self.windows {
            Windows::Fixed { panes, .. } => panes.snapshot(watermark, into),
            Windows::Session(sessions) => sessions.snapshot(into),
            Windows::Sliding(sliding) => sliding.snapshot(watermark, into),
        }
    }

    fn stats(&self) -> OperatorStats {
        let stats = match &self.windows {
            Windows::Fixed { panes, .. } => panes.stats(),
            Windows::Session(sessions) => sessions.stats(),
            Windows::Sliding(sliding) => sliding.stats(),
        };
        OperatorStats { n_late: self.late.n_total(), ..stats }
    }
}

type Publish<'a> = &'a mut dyn FnMut(Published<'_, Cells>);

impl Windows {
    fn new(spec: &SummarySpec) -> Result<Self, WindowError> {
        let state = format!("summary.{}.{:016x}", spec.name, declaration_hash(spec));
        let (lateness_us, hot_max) = (spec.allowed_lateness_us, spec.hot_max);
        let fixed = |assigner| Self::Fixed { assigner, panes: Panes::new(&state, lateness_us, hot_max), assigned: vec![], keyed: vec![] };
        match &spec.window {
            WindowSpec::Tumbling { interval, zone } => Assigner::tumbling(interval, zone).map(fixed),
            WindowSpec::Hopping { size_us, hop_us } => Assigner::hopping(*size_us, *hop_us).map(fixed),
            WindowSpec::Session { gap_us } if *gap_us > 0 => Ok(Self::Session(Sessions::new(&state, *gap_us, lateness_us, hot_max))),
            WindowSpec::Session { .. } => Err(WindowError::Empty("gap")),
            WindowSpec::Sliding { range_us } if *range_us > 0 => Ok(Self::Sliding(Sliding::new(&state, *range_us, hot_max))),
            WindowSpec::Sliding { .. } => Err(WindowError::Empty("range")),
        }
    }

    fn is_late(&self, at: i64, watermark: i64) -> bool {
        match self {
            Self::Fixed { panes, .. } => panes.is_late(at, watermark),
            Self::Session(sessions) => sessions.is_late(at, watermark),
            Self::Sliding(sliding) => sliding.is_late(at, watermark),
        }
    }

    fn add(
        &mut self,
        key: &[u8],
        row: &SummaryRow<'_>,
        watermark: i64,
        store: &dyn StateStore,
        publish: Publish<'_>,
    ) -> Result<(), EngineError> {
        match self {
            Self::Fixed { assigner, panes, assigned, keyed } => {
                assigner.assign(row.at.0, assigned);
                keyed.clear();
                keyed.extend(assigned.iter().map(|window| (0, *window)));
                panes.add(key, keyed, row, watermark, store, publish)
            }
            Self::Session(sessions) => sessions.add((key, row.at.0), row, watermark, store, publish),
            Self::Sliding(sliding) => sliding.add((key, row.at.0), row, store),
        }
    }

    fn close(&mut self, watermark: i64, store: &dyn StateStore, publish: Publish<'_>) -> Result<(), EngineError> {
        match self {
            Self::Fixed { panes, .. } => panes.close(watermark, store, publish),
            Self::Session(sessions) => sessions.close(watermark, store, publish),
            Self::Sliding(sliding) => sliding.close(watermark, store, publish),
        }
    }

    fn purge(&mut self, watermark: i64, store: &dyn StateStore) -> Result<(), EngineError> {
        match self {
            Self::Fixed { panes, .. } => panes.purge(watermark, store),
            Self::Session(_) => Ok(()),
            Self::Sliding(sliding) => sliding.purge(watermark, store),
        }
    }
}

/// Hash of everything that the state depends on, in words that stay the same from version to version.
fn declaration_hash(spec: &SummarySpec) -> u64 {
    let window = match &spec.window {
        WindowSpec::Tumbling { interval, zone } => format!("tumbling {interval} {zone}"),
        WindowSpec::Hopping { size_us, hop_us } => format!("hopping {size_us} {hop_us}"),
        WindowSpec::Sliding { range_us } => format!("sliding {range_us}"),
        WindowSpec::Session { gap_us } => format!("session {gap_us}"),
    };
    let kind = |name: &str| spec.input.index_of(name).map_or(ColumnType::Bool, |i| spec.input.columns[i].kind);
    let groups = spec.group_by.iter().map(|name| format!("; {name} {}", kind(name)));
    let aggregates = spec.aggregates.iter().map(|a| {
        let column = a.column.as_deref().unwrap_or("*");
        format!("; {} {column} {}", a.function.as_str(), kind(column))
    });
    xxh3_64([window].into_iter().chain(groups).chain(aggregates).collect::<String>().as_bytes())
}

fn output_key(spec: &SummarySpec, group: &[(usize, Column)]) -> Result<String, String> {
    let stream_key = &spec.input.columns[spec.input.key].name;
    if spec.group_by.contains(stream_key) {
        return Ok(stream_key.clone());
    }
    if spec.n_partitions > 1 {
        return Err(format!(
            "group_by must contain the key '{stream_key}', because a group's rows must be in one partition; or give the stream one partition"
        ));
    }
    let text = group.iter().find(|(_, c)| c.kind == ColumnType::Text && !c.nullable);
    text.map(|(_, c)| c.name.clone()).ok_or_else(|| "group_by needs at least one text column that is never null".to_owned())
}

fn result_columns(spec: &SummarySpec, sources: &[Option<(usize, Column)>]) -> Result<Vec<Column>, String> {
    let column = |(aggregate, source): (&AggregateSpec, &Option<(usize, Column)>)| {
        let function = aggregate.function;
        let kind = match source {
            Some((_, c)) => function
                .result(c.kind)
                .ok_or_else(|| format!("{} of column '{}', which is {}, has no meaning", function.as_str(), c.name, c.kind))?,
            None if function == Function::Count => ColumnType::Int,
            None => return Err(format!("'{}' needs a column: only count can do without", aggregate.name)),
        };
        Ok(if function == Function::Count { Column::required(&aggregate.name, kind) } else { Column::optional(&aggregate.name, kind) })
    };
    spec.aggregates.iter().zip(sources).map(column).collect()
}

/// Appends one result to the columns on their way out.
fn append(
    pending: &mut [Vec<Option<Value>>],
    group: &[(usize, ColumnType)],
    functions: &[Function],
    sources: &[Option<(usize, ColumnType)>],
    p: &Published<'_, Cells>,
) {
    let mut columns = pending.iter_mut();
    let mut push = |value| columns.next().expect("invariant: one column per value").push(value);
    let mut key = p.key;
    for (_, kind) in group {
        push(read_ordered(&mut key, *kind).flatten());
    }
    push(Some(Value::Timestamp(p.window.start)));
    push(Some(Value::Timestamp(p.window.end)));
    for (i, (function, source)) in functions.iter().zip(sources).enumerate() {
        push(p.acc.result(i, *function, source.map_or(ColumnType::Bool, |(_, kind)| kind)));
    }
    push(Some(Value::Int(p.revision.into())));
}
