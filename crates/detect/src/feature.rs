//! A feature: a named aggregate per key over a window, optionally filtered, with a warm-up.
//!
//! Rows are taken in order of arrival. The value that a row sees is computed before the row is added (`including = true`: after), with the
//! window ending at the latest event time of the key so far, the row's own included: so a late row sees what any row would see now, and is
//! then put into the window where its event time belongs, if it still belongs there. Rows whose column is null, and rows that the filter
//! does not pass, are not added; they still see a value. Before `warm_up` rows of the key have been added the value is null.
//!
//! | aggregate | type | without rows |
//! |---|---|---|
//! | count, distinct | int | 0 |
//! | sum | exact, 38 digits; null when it has more | 0 |
//! | min, max, lag | that of the column | null |
//! | avg, stddev, ewma, ratio, zscore | float | null |
//! | first_seen | bool; null for null | - |
//! | time_since | decimal(20, 6), seconds, never negative | null |

use crate::aggregate::cells::{Cells, Squares, Sum, to_f64};
use crate::aggregate::ewma::{Decay, Ewma};
use crate::aggregate::extreme::Extreme;
use crate::aggregate::lag::{LagRows, LagTime};
use crate::aggregate::values::Values;
use crate::aggregate::{Aggregate, Window, parse_aggregate};
use crate::error::DetectError;
use crate::expression::Expression;
use crate::scope::Scope;
use crate::source::{FLOAT_SCALE, Source, View};
use mulgil_engine::layout::{Fields, put_framed, put_i64, put_u64};
use mulgil_model::decimal;
use mulgil_model::schema::{ColumnType, StreamSchema};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// A feature as it is written in the config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// The section's name: `[feature.count_10s]`.
    #[serde(default)]
    pub name: String,
    pub stream: String,
    pub agg: String,
    /// `10s`, `last 20` or `lifetime`, which is the default.
    #[serde(default)]
    pub window: Option<String>,
    /// A SQL condition on the row's columns.
    #[serde(default, rename = "where")]
    pub filter: Option<String>,
    /// Rows of a key before the first value.
    #[serde(default)]
    pub warm_up: u64,
    /// The row under test is part of its own window.
    #[serde(default)]
    pub including: bool,
}

/// A feature, checked against its stream.
#[derive(Debug, Clone)]
pub struct Feature {
    pub name: String,
    pub kind: ColumnType,
    /// The definition in one line: what a rule's version is made of.
    pub text: String,
    /// Under which its state is kept. The same as long as name, aggregate, window and filter are the same.
    pub id: u64,
    aggregate: Aggregate,
    source: Option<Source>,
    window: Window,
    filter: Option<Expression>,
    warm_up: u64,
    including: bool,
}

/// A row as a feature sees it.
#[derive(Debug, Clone, Copy)]
pub struct FeatureRow {
    pub row: usize,
    pub event_time: i64,
    /// The latest event time of the key so far, this row included.
    pub latest: i64,
    pub offset: u64,
    pub accepted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FeatureValue {
    Null,
    Int(i128),
    Float(f64),
    Bool(bool),
}

impl Feature {
    pub fn parse(spec: &FeatureSpec, schema: &StreamSchema) -> Result<Self, DetectError> {
        let fail = |reason| DetectError::Feature { feature: spec.name.clone(), reason };
        check_name(&spec.name, schema).map_err(fail)?;
        let (aggregate, column) = parse_aggregate(&spec.agg).map_err(fail)?;
        let source = column.as_deref().map(|c| Source::find(c, schema)).transpose().map_err(fail)?;
        let window = spec.window.as_deref().map_or(Ok(Window::Lifetime), Window::parse).map_err(fail)?;
        check_window(aggregate, spec, window).map_err(fail)?;
        let kind = output_kind(aggregate, source).map_err(fail)?;
        let filter = spec.filter.as_deref().map(|text| Expression::condition(text, &Scope::of_row(schema))).transpose().map_err(fail)?;
        let state =
            format!("{} {} {window} {}", spec.name, canonical(aggregate, column.as_deref()), filter.as_ref().map_or("", |f| f.text()));
        let text = format!("{state} {} {}", spec.warm_up, spec.including);
        let id = xxh3_64(state.as_bytes());
        Ok(Self {
            name: spec.name.clone(),
            kind,
            text,
            id,
            aggregate,
            source,
            window,
            filter,
            warm_up: spec.warm_up,
            including: spec.including,
        })
    }

    pub fn filter(&self) -> Option<&Expression> {
        self.filter.as_ref()
    }

    pub fn source(&self) -> Option<Source> {
        self.source
    }

    /// How far back in event time the state reaches, where that is bounded by time; what a time to live must not undercut.
    pub fn horizon(&self) -> i64 {
        match (self.aggregate, self.window) {
            (Aggregate::LagTime { micros, tolerance }, _) => micros.saturating_add(tolerance),
            (Aggregate::Ewma(Decay::HalfLife { micros }), _) => micros.saturating_mul(10),
            (_, Window::Span { micros }) => micros,
            _ => 0,
        }
    }

    /// Whether old rows matter however old they are.
    pub fn is_unbounded(&self) -> bool {
        self.horizon() == 0
    }

    pub fn fresh(&self) -> FeatureState {
        let body = match self.aggregate {
            Aggregate::Count => Body::Count(Cells::default()),
            Aggregate::Sum | Aggregate::Avg | Aggregate::Ratio => Body::Sum(Box::default()),
            Aggregate::Stddev | Aggregate::Zscore => Body::Squares(Box::default()),
            Aggregate::Min | Aggregate::Max => Body::Extreme(Extreme::default()),
            Aggregate::Distinct | Aggregate::FirstSeen => Body::Values(Values::default()),
            Aggregate::Ewma(_) => Body::Ewma(Ewma::default()),
            Aggregate::LagRows { .. } => Body::LagRows(LagRows::default()),
            Aggregate::LagTime { .. } => Body::LagTime(LagTime::default()),
            Aggregate::TimeSince => Body::Latest(None),
        };
        FeatureState { seen: 0, body }
    }

    /// The value this row sees, with the offset of the oldest row behind it; then adds the row.
    pub fn step(&self, state: &mut FeatureState, view: Option<&View<'_>>, row: FeatureRow) -> (FeatureValue, Option<u64>) {
        if self.including {
            self.add(state, view, row);
            return self.value(state, view, row);
        }
        let value = self.value(state, view, row);
        self.add(state, view, row);
        value
    }

    fn value(&self, state: &mut FeatureState, view: Option<&View<'_>>, row: FeatureRow) -> (FeatureValue, Option<u64>) {
        if state.seen < self.warm_up {
            return (FeatureValue::Null, None);
        }
        let now = match self.window {
            Window::Last { .. } => state.seen as i64,
            Window::Span { .. } | Window::Lifetime => row.latest,
        };
        let seen = state.seen;
        match &mut state.body {
            Body::Count(cells) => {
                cells.advance(now, self.window);
                (FeatureValue::Int(i128::from(cells.n())), cells.first_offset())
            }
            Body::Sum(cells) => {
                cells.advance(now, self.window);
                (self.sum_value(cells, view, row), cells.first_offset())
            }
            Body::Squares(cells) => {
                cells.advance(now, self.window);
                (self.squares_value(cells, view, row), cells.first_offset())
            }
            Body::Extreme(extreme) => {
                extreme.advance(now, self.window);
                let sign = if self.aggregate == Aggregate::Min { -1 } else { 1 };
                extreme.largest().map_or((FeatureValue::Null, None), |(v, offset)| (self.number(v * sign), Some(offset)))
            }
            Body::Values(values) => {
                values.advance(now, self.window);
                (self.values_value(values, view, row), None)
            }
            Body::Ewma(ewma) => (ewma.mean().map_or(FeatureValue::Null, FeatureValue::Float), None),
            Body::LagRows(lag) => {
                let Aggregate::LagRows { rows } = self.aggregate else { return (FeatureValue::Null, None) };
                lag.value(rows).map_or((FeatureValue::Null, None), |(v, offset)| (self.number(v), Some(offset)))
            }
            Body::LagTime(lag) => {
                let Aggregate::LagTime { micros, tolerance } = self.aggregate else { return (FeatureValue::Null, None) };
                lag.value(row.latest, micros, tolerance).map_or((FeatureValue::Null, None), |(v, offset)| (self.number(v), Some(offset)))
            }
            Body::Latest(last) if seen > 0 => {
                let since =
                    last.map(|(at, offset)| (FeatureValue::Int(i128::from(row.event_time.saturating_sub(at).max(0))), Some(offset)));
                since.unwrap_or((FeatureValue::Null, None))
            }
            Body::Latest(_) => (FeatureValue::Null, None),
        }
    }

    fn sum_value(&self, cells: &Cells<Sum>, view: Option<&View<'_>>, row: FeatureRow) -> FeatureValue {
        let total = cells.total().0;
        if self.aggregate == Aggregate::Sum {
            return match total.to_i128().filter(|v| v.unsigned_abs() < 10u128.pow(38)) {
                Some(v) => self.number(v),
                None => FeatureValue::Null,
            };
        }
        if cells.n() == 0 {
            return FeatureValue::Null;
        }
        let mean = to_f64(total) / cells.n() as f64;
        if self.aggregate == Aggregate::Avg {
            return FeatureValue::Float(mean / self.unit());
        }
        match view.and_then(|v| v.number(row.row)) {
            Some(x) if mean != 0.0 => FeatureValue::Float(x as f64 / mean),
            _ => FeatureValue::Null,
        }
    }

    fn squares_value(&self, cells: &Cells<Squares>, view: Option<&View<'_>>, row: FeatureRow) -> FeatureValue {
        let Some(sd) = cells.total().variance(cells.n()).map(f64::sqrt) else { return FeatureValue::Null };
        if self.aggregate == Aggregate::Stddev {
            return FeatureValue::Float(sd / self.unit());
        }
        let mean = to_f64(cells.total().sum) / cells.n() as f64;
        match view.and_then(|v| v.number(row.row)) {
            Some(x) if sd > 0.0 => FeatureValue::Float((x as f64 - mean) / sd),
            _ => FeatureValue::Null,
        }
    }

    fn values_value(&self, values: &Values, view: Option<&View<'_>>, row: FeatureRow) -> FeatureValue {
        match (self.aggregate, view.and_then(|v| v.hash(row.row))) {
            (Aggregate::Distinct, _) => FeatureValue::Int(i128::from(values.n())),
            (_, Some(hash)) => FeatureValue::Bool(!values.contains(hash)),
            (_, None) => FeatureValue::Null,
        }
    }

    fn add(&self, state: &mut FeatureState, view: Option<&View<'_>>, row: FeatureRow) {
        if !row.accepted {
            return;
        }
        let number = view.and_then(|v| v.number(row.row));
        let (at, now) = match self.window {
            Window::Last { .. } => (state.seen as i64 + 1, state.seen as i64 + 1),
            Window::Span { .. } | Window::Lifetime => (row.event_time, row.latest),
        };
        let window = self.window;
        match (&mut state.body, number) {
            (Body::Count(cells), _) => cells.add(at, row.offset, (), now, window),
            (Body::Sum(cells), Some(x)) => cells.add(at, row.offset, Sum::of(x), now, window),
            (Body::Squares(cells), Some(x)) => {
                let Some(squares) = Squares::of(x) else { return };
                cells.add(at, row.offset, squares, now, window);
            }
            (Body::Extreme(extreme), Some(x)) => {
                let sign = if self.aggregate == Aggregate::Min { -1 } else { 1 };
                extreme.add(at, row.offset, x * sign, now, window);
            }
            (Body::Values(values), _) => {
                let Some(hash) = view.and_then(|v| v.hash(row.row)) else { return };
                values.add(at, hash, now, window);
            }
            (Body::Ewma(ewma), Some(x)) => {
                let Some(decay) = self.decay() else { return };
                ewma.add(row.event_time, x as f64 / self.unit(), decay);
            }
            (Body::LagRows(lag), Some(x)) => {
                let Aggregate::LagRows { rows } = self.aggregate else { return };
                lag.add(row.offset, x, rows);
            }
            (Body::LagTime(lag), Some(x)) => {
                let Aggregate::LagTime { micros, .. } = self.aggregate else { return };
                lag.add(row.event_time, row.offset, x, row.latest, micros);
            }
            (Body::Latest(last), _) => {
                if last.is_none_or(|(before, _)| row.event_time >= before) {
                    *last = Some((row.event_time, row.offset));
                }
            }
            (_, None) => return,
        }
        state.seen += 1;
    }

    fn decay(&self) -> Option<Decay> {
        if let Aggregate::Ewma(decay) = self.aggregate { Some(decay) } else { None }
    }

    /// The scaled integers that stand for 1.
    fn unit(&self) -> f64 {
        10f64.powi(self.source.and_then(Source::scale).map_or(0, i32::from))
    }

    /// A scaled integer of the column, as a value of the feature's type.
    fn number(&self, value: i128) -> FeatureValue {
        if self.kind == ColumnType::Float { FeatureValue::Float(decimal::to_f64(value, FLOAT_SCALE)) } else { FeatureValue::Int(value) }
    }
}

fn canonical(aggregate: Aggregate, column: Option<&str>) -> String {
    format!("{aggregate:?}({})", column.unwrap_or(""))
}

/// A feature stands beside the columns in expressions, so it follows their rules and may not hide one.
fn check_name(name: &str, schema: &StreamSchema) -> Result<(), String> {
    let mut bytes = name.bytes();
    let valid =
        bytes.next().is_some_and(|b| b.is_ascii_lowercase()) && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !valid {
        return Err("a feature's name is made of a-z, 0-9 and '_' and begins with a letter".to_owned());
    }
    let taken = schema.index_of(name).is_some() || (name == crate::source::AMOUNT && Source::amount(schema).is_some());
    if taken { Err(format!("stream '{}' already has a column of that name", schema.stream)) } else { Ok(()) }
}

fn check_window(aggregate: Aggregate, spec: &FeatureSpec, window: Window) -> Result<(), String> {
    let windowless = matches!(aggregate, Aggregate::Ewma(_) | Aggregate::LagRows { .. } | Aggregate::LagTime { .. } | Aggregate::TimeSince);
    if windowless && window != Window::Lifetime {
        return Err(format!("'{}' has no window: remove window = '{window}'", spec.agg));
    }
    let before_only =
        matches!(aggregate, Aggregate::LagRows { .. } | Aggregate::LagTime { .. } | Aggregate::TimeSince | Aggregate::FirstSeen);
    if before_only && spec.including {
        return Err(format!("'{}' looks at earlier rows only: remove including = true", spec.agg));
    }
    Ok(())
}

fn output_kind(aggregate: Aggregate, source: Option<Source>) -> Result<ColumnType, String> {
    let Some(source) = source else {
        return Ok(if aggregate == Aggregate::TimeSince { ColumnType::Decimal { precision: 20, scale: 6 } } else { ColumnType::Int });
    };
    let kind = source.kind();
    let number = || {
        if source.scale().is_some() && kind != ColumnType::Timestamp {
            Ok(())
        } else {
            Err(format!("it needs an int, decimal or float column, this one is {kind}"))
        }
    };
    Ok(match aggregate {
        Aggregate::Count | Aggregate::Distinct => ColumnType::Int,
        Aggregate::TimeSince => ColumnType::Decimal { precision: 20, scale: 6 },
        Aggregate::FirstSeen => ColumnType::Bool,
        Aggregate::Sum => {
            number()?;
            if kind == ColumnType::Float { kind } else { ColumnType::Decimal { precision: 38, scale: source.scale().unwrap_or(0) } }
        }
        Aggregate::Avg | Aggregate::Stddev | Aggregate::Ratio | Aggregate::Zscore | Aggregate::Ewma(_) => {
            number()?;
            ColumnType::Float
        }
        Aggregate::Min | Aggregate::Max | Aggregate::LagRows { .. } | Aggregate::LagTime { .. } => {
            if source.scale().is_none() {
                return Err(format!("it needs an int, decimal, float or timestamp column, this one is {kind}"));
            }
            kind
        }
    })
}

/// What a feature keeps for one key. Layout: rows added, kind of state (one byte), then the state as its own module writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureState {
    seen: u64,
    body: Body,
}

#[derive(Debug, Clone, PartialEq)]
enum Body {
    Count(Cells<()>),
    /// Boxed, as these are several times as large as the others.
    Sum(Box<Cells<Sum>>),
    Squares(Box<Cells<Squares>>),
    Extreme(Extreme),
    Values(Values),
    Ewma(Ewma),
    LagRows(LagRows),
    LagTime(LagTime),
    /// The latest event time and its offset. Layout: 0, or 1, then both.
    Latest(Option<(i64, u64)>),
}

impl Body {
    /// The kind of state.
    fn tag(&self) -> u8 {
        match self {
            Self::Count(_) => 0,
            Self::Sum(_) => 1,
            Self::Squares(_) => 2,
            Self::Extreme(_) => 3,
            Self::Values(_) => 4,
            Self::Ewma(_) => 5,
            Self::LagRows(_) => 6,
            Self::LagTime(_) => 7,
            Self::Latest(_) => 8,
        }
    }
}

impl FeatureState {
    pub fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.seen);
        out.push(self.body.tag());
        put_framed(out, |out| match &self.body {
            Body::Count(s) => s.write(out),
            Body::Sum(s) => s.write(out),
            Body::Squares(s) => s.write(out),
            Body::Extreme(s) => s.write(out),
            Body::Values(s) => s.write(out),
            Body::Ewma(s) => s.write(out),
            Body::LagRows(s) => s.write(out),
            Body::LagTime(s) => s.write(out),
            Body::Latest(last) => {
                out.push(u8::from(last.is_some()));
                if let Some((at, offset)) = last {
                    put_i64(out, *at);
                    put_u64(out, *offset);
                }
            }
        });
    }

    pub fn read(bytes: &mut Fields<'_>) -> Result<Self, String> {
        let seen = bytes.u64()?;
        let tag = bytes.u8()?;
        let body = &mut Fields::part(bytes.bytes()?);
        let state = match tag {
            0 => Body::Count(Cells::read(body)?),
            1 => Body::Sum(Box::new(Cells::read(body)?)),
            2 => Body::Squares(Box::new(Cells::read(body)?)),
            3 => Body::Extreme(Extreme::read(body)?),
            4 => Body::Values(Values::read(body)?),
            5 => Body::Ewma(Ewma::read(body)?),
            6 => Body::LagRows(LagRows::read(body)?),
            7 => Body::LagTime(LagTime::read(body)?),
            8 => Body::Latest(if body.u8()? == 0 { None } else { Some((body.i64()?, body.u64()?)) }),
            other => return Err(format!("there is no feature state of kind {other}")),
        };
        body.end()?;
        Ok(Self { seen, body: state })
    }
}
