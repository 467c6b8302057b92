//! A page of a trade stream's past, newest first: its trades, or bars of them.
//!
//! Bars come from the stream's own bars (`<stream>.bars.1m`, `1h`, `1d`) as far as those are closed, each in its latest revision, and from
//! the trades behind the last closed one; from trades alone when a filter asks for a part of them that has no bars of its own. A
//! partition's bars are closed up to the largest end among its bars, because all its symbols share one watermark.

use crate::candles::{self, Bar, BarColumns, Newest, Windows};
use crate::day::Day;
use crate::error::HistoryError;
use crate::history::{History, View, newest_by_partition};
use crate::layout::{OFFSET, PARTITION};
use crate::query::timed_out;
use crate::table::{StreamTable, time_literal};
use crate::views::column;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::logical_expr::{Expr, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::StreamExt;
use jiff::tz::TimeZone;
use mulgil_model::candle::{Candle, Side, Tick};
use mulgil_model::ids::Topic;
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use mulgil_model::search::{Interval, SearchCursor, SearchPage, SearchRequest, SearchTie};
use mulgil_model::streams::{TradeDecimals, bars};
use mulgil_model::time::EventTime;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl History {
    /// A page of at most `limit` rows of `[from, to)`: trades by event time, bars by the start of their window.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchPage, HistoryError> {
        let max = self.config.search_rows_max;
        if request.limit == 0 || request.limit > max {
            return Err(HistoryError::User(format!("limit is {}, but must be from 1 to {max}", request.limit)));
        }
        let _turn = self.turn(&self.searches, "searches").await?;
        let limits = &self.config.query;
        let answer = async {
            let search = Search { history: self, context: self.session(limits)?, views: self.views(), request };
            match request.interval {
                Interval::Tick => search.ticks().await,
                Interval::Minute | Interval::Hour | Interval::Day => search.bars().await,
            }
        };
        tokio::time::timeout(limits.timeout, answer).await.unwrap_or_else(|_| Err(timed_out(limits.timeout)))
    }
}

struct Search<'a> {
    history: &'a History,
    context: SessionContext,
    views: BTreeMap<Topic, View>,
    request: &'a SearchRequest,
}

impl Search<'_> {
    fn view(&self) -> Result<&View, HistoryError> {
        let stream = &self.request.stream;
        self.views.get(stream).ok_or_else(|| HistoryError::User(format!("there is no stream '{stream}'")))
    }

    fn table(&self, view: &View) -> Result<DataFrame, HistoryError> {
        let table = StreamTable::new(view.clone(), Arc::clone(&self.history.footers));
        self.context.read_table(Arc::new(table)).map_err(HistoryError::of_query)
    }

    /// Rows with event times in [from, until) that pass the request's filters.
    fn rows(&self, view: &View, from: i64, until: i64) -> Result<DataFrame, HistoryError> {
        let schema = &view.layout.stream;
        let time = || column(&schema.columns[schema.event_time].name);
        let mut filter = time().gt_eq(time_literal(from)).and(time().lt(time_literal(until)));
        let wanted = [
            (schema.columns[schema.key].name.as_str(), &self.request.symbol),
            ("side", &self.request.side),
            ("market", &self.request.market),
        ];
        for (name, value) in wanted {
            let Some(value) = value else { continue };
            if schema.index_of(name).is_none() {
                return Err(HistoryError::User(format!("stream '{}' has no column '{name}' to search by", schema.stream)));
            }
            filter = filter.and(column(name).eq(lit(value.as_str())));
        }
        self.table(view)?.filter(filter).map_err(HistoryError::of_query)
    }

    /// Day by day from the newest on, until the page is full.
    async fn ticks(&self) -> Result<SearchPage, HistoryError> {
        let view = self.view()?;
        let (from, mut until) = (self.request.from.micros(), self.request.to.micros());
        let mut behind = None;
        if let Some(after) = &self.request.after {
            let SearchTie::Tick { partition, offset } = after.tie else { return Err(wrong_cursor()) };
            until = until.min(after.at.micros().saturating_add(1));
            behind = Some((after.at.micros(), partition, offset));
        }
        let n_wanted = self.request.limit + 1;
        let (mut found, mut n_found) = (Vec::new(), 0);
        for day in days(view).into_iter().rev() {
            if day.start_us() >= until {
                continue;
            }
            if day.end_us() <= from || n_found >= n_wanted {
                break;
            }
            let rows = self.rows(view, from.max(day.start_us()), until.min(day.end_us()))?;
            let rows = match behind {
                Some(place) => rows.filter(is_behind(&view.layout.stream, place)).map_err(HistoryError::of_query)?,
                None => rows,
            };
            let newest_first = [view.layout.stream.columns[view.layout.stream.event_time].name.as_str(), PARTITION, OFFSET];
            let rows = rows.sort(newest_first.map(|name| column(name).sort(false, false)).to_vec()).map_err(HistoryError::of_query)?;
            let rows = rows.limit(0, Some(n_wanted - n_found)).map_err(HistoryError::of_query)?;
            for batch in rows.collect().await.map_err(HistoryError::of_query)? {
                n_found += batch.num_rows();
                found.push(batch);
            }
        }
        let all = concat_batches(&view.layout.arrow, &found).map_err(making())?;
        self.tick_page(view, &all)
    }

    fn tick_page(&self, view: &View, all: &RecordBatch) -> Result<SearchPage, HistoryError> {
        let page = all.slice(0, all.num_rows().min(self.request.limit));
        let layout = &view.layout;
        let next = (all.num_rows() > page.num_rows()).then(|| {
            let last = page.num_rows() - 1;
            let (partition, offset) = (layout.partitions(&page).value(last) as u32, layout.offsets(&page).value(last) as u64);
            SearchCursor { at: EventTime(layout.event_times(&page).value(last)), tie: SearchTie::Tick { partition, offset } }
        });
        let own: Vec<usize> = (0..layout.stream.columns.len()).collect();
        let batch = page.project(&own).map_err(making())?;
        Ok(SearchPage { schema: Arc::clone(&layout.stream), batch, next })
    }

    /// Local day by local day from the newest on, until the page is full. Windows never cross a local midnight.
    async fn bars(&self) -> Result<SearchPage, HistoryError> {
        let trades = self.view()?;
        let (decimals, schema) = self.bar_schema(&trades.layout.stream)?;
        let closed = self.closed_bars(&schema);
        let zone = self.history.config.time_zones.get(&self.request.stream).map_or(Ok(TimeZone::UTC), |name| candles::zone(name))?;
        let below = match &self.request.after {
            None => None,
            Some(SearchCursor { at, tie: SearchTie::Bar { symbol } }) => Some((at.micros(), symbol.clone())),
            Some(_) => return Err(wrong_cursor()),
        };
        let mut windows = Windows::new(self.request.interval, &zone);
        let last = below.as_ref().map_or(i64::MAX, |(at, _)| *at).min(self.request.to.micros().saturating_sub(1));
        let mut until = windows.of(last).1;
        let horizons = Horizons::new(trades, closed);
        let mut found = Newest::new(self.request.limit + 1, below);
        let mut midnights = Windows::new(Interval::Day, &zone);
        let days: BTreeSet<Day> = days(trades).into_iter().chain(closed.into_iter().flat_map(bar_days)).collect();
        while !found.is_full() && until > self.request.from.micros() {
            let Some(day) = days.range(..=Day::of(until - 1)).next_back() else { break };
            let midnight = midnights.of(day.end_us().min(until) - 1).0;
            let from = midnight.max(self.request.from.micros());
            if let Some(closed) = closed {
                self.read_closed(closed, from, until, &mut found).await?;
            }
            self.fold_trades(trades, &horizons, &mut windows, (from, until), &mut found).await?;
            until = midnight;
        }
        self.bar_page(schema, decimals, found)
    }

    fn bar_schema(&self, trades: &Arc<StreamSchema>) -> Result<(TradeDecimals, Arc<StreamSchema>), HistoryError> {
        let scale = |name: &str| match trades.column(name).map(|(_, column)| column.kind) {
            Ok(ColumnType::Decimal { scale, .. }) if trades.kind == StreamKind::Trade => Ok(scale),
            _ => Err(HistoryError::User(format!("stream '{}' has no trades: search it by tick", trades.stream))),
        };
        let decimals = TradeDecimals { price_scale: scale("price")?, quantity_scale: scale("quantity")? };
        let suffix = match self.request.interval {
            Interval::Tick | Interval::Minute => "bars.1m",
            Interval::Hour => "bars.1h",
            Interval::Day => "bars.1d",
        };
        let name = trades.stream.derived(suffix).map_err(|e| HistoryError::User(e.to_string()))?;
        let schema = bars(name, decimals).map_err(HistoryError::internal("the schema of bars"))?;
        Ok((decimals, Arc::new(schema)))
    }

    /// The stream's own bars, where they answer the question: they know no side and no market.
    fn closed_bars(&self, schema: &StreamSchema) -> Option<&View> {
        let whole = self.request.side.is_none() && self.request.market.is_none();
        self.views.get(&schema.stream).filter(|view| whole && view.layout.stream.columns == schema.columns)
    }

    async fn read_closed(&self, bars: &View, from: i64, until: i64, found: &mut Newest<Found>) -> Result<(), HistoryError> {
        // The window is at most one long day, so its end is not far behind its start: that lets files be skipped.
        const WINDOW_US_MAX: i64 = 26 * 3_600_000_000;
        let starts = column("start").gt_eq(time_literal(from)).and(column("start").lt(time_literal(until)));
        let rows = self.rows(bars, from, until.saturating_add(WINDOW_US_MAX))?.filter(starts).map_err(HistoryError::of_query)?;
        let mut batches = rows.execute_stream().await.map_err(HistoryError::of_query)?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(HistoryError::of_query)?;
            let (columns, offsets) = (BarColumns::of(&batch).map_err(making())?, bars.layout.offsets(&batch));
            for row in 0..batch.num_rows() {
                let rank = (columns.revisions.value(row), offsets.value(row));
                let first = || Found::Closed { rank, bar: columns.bar(row) };
                found.fold(columns.start(row), columns.symbols.value(row), first, |held| held.revise(rank, || columns.bar(row)));
            }
        }
        Ok(())
    }

    /// Adds the trades of [from, until) that are in no closed bar.
    async fn fold_trades(
        &self,
        trades: &View,
        horizons: &Horizons,
        windows: &mut Windows,
        (from, until): (i64, i64),
        found: &mut Newest<Found>,
    ) -> Result<(), HistoryError> {
        let from = from.max(horizons.least);
        if from >= until {
            return Ok(());
        }
        let rows =
            self.rows(trades, from, until)?.select_columns(&["symbol", "event_time", "price", "quantity", "side", PARTITION, OFFSET]);
        let mut batches = rows.map_err(HistoryError::of_query)?.execute_stream().await.map_err(HistoryError::of_query)?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(HistoryError::of_query)?;
            let ticks = Ticks::of(&batch);
            for row in 0..batch.num_rows() {
                let tick = ticks.tick(row);
                let window = windows.of(tick.at.0);
                if window.0 < self.request.from.micros() || horizons.is_closed(ticks.partitions.value(row), tick.at.0) {
                    continue;
                }
                let first = || Found::Open { candle: Candle::of(&tick), window };
                found.fold(window.0, ticks.symbols.value(row), first, |held| held.add(&tick));
            }
        }
        Ok(())
    }

    fn bar_page(&self, schema: Arc<StreamSchema>, decimals: TradeDecimals, found: Newest<Found>) -> Result<SearchPage, HistoryError> {
        let mut rows: Vec<(String, Bar)> =
            found.into_rows().into_iter().map(|((_, symbol), row)| (symbol, row.into_bar(decimals))).collect();
        let more = rows.len() > self.request.limit;
        rows.truncate(self.request.limit);
        let next = rows.last().filter(|_| more);
        let next = next.map(|(symbol, bar)| SearchCursor { at: EventTime(bar.start), tie: SearchTie::Bar { symbol: symbol.clone() } });
        let batch = candles::batch(&schema, &rows).map_err(making())?;
        Ok(SearchPage { schema, batch, next })
    }
}

/// A bar of the page while it is read.
#[derive(Debug)]
enum Found {
    /// `rank` orders the revisions of a bar.
    Closed {
        rank: (i64, i64),
        bar: Bar,
    },
    Open {
        candle: Candle,
        window: (i64, i64),
    },
}

impl Found {
    fn revise(&mut self, rank: (i64, i64), bar: impl FnOnce() -> Bar) {
        match self {
            Self::Closed { rank: held, .. } if *held >= rank => {}
            Self::Closed { .. } | Self::Open { .. } => *self = Self::Closed { rank, bar: bar() },
        }
    }

    fn add(&mut self, tick: &Tick) {
        // A closed bar has this trade already.
        if let Self::Open { candle, .. } = self {
            candle.add(tick);
        }
    }

    fn into_bar(self, decimals: TradeDecimals) -> Bar {
        match self {
            Self::Closed { bar, .. } => bar,
            Self::Open { candle, window } => Bar::open(&candle, window, decimals.price_scale, decimals.quantity_scale),
        }
    }
}

/// Up to where the bars of each partition are closed.
struct Horizons {
    by_partition: BTreeMap<u32, i64>,
    /// No partition with trades is open below it.
    least: i64,
}

impl Horizons {
    fn new(trades: &View, closed: Option<&View>) -> Self {
        let by_partition = closed.map(newest_by_partition).unwrap_or_default();
        let of_trades = newest_by_partition(trades);
        let least = of_trades.keys().map(|p| by_partition.get(p).copied().unwrap_or(i64::MIN)).min();
        Self { by_partition, least: least.unwrap_or(i64::MIN) }
    }

    fn is_closed(&self, partition: i32, at: i64) -> bool {
        self.by_partition.get(&(partition as u32)).is_some_and(|horizon| at < *horizon)
    }
}

/// The columns of a batch of trades.
struct Ticks<'a> {
    symbols: &'a arrow::array::StringArray,
    times: &'a arrow::array::TimestampMicrosecondArray,
    prices: &'a arrow::array::Decimal128Array,
    quantities: &'a arrow::array::Decimal128Array,
    sides: &'a arrow::array::StringArray,
    partitions: &'a arrow::array::Int32Array,
    offsets: &'a arrow::array::Int64Array,
}

impl<'a> Ticks<'a> {
    /// Of a batch with the columns that `fold_trades` selects, in their order.
    fn of(batch: &'a RecordBatch) -> Self {
        Self {
            symbols: batch.column(0).as_string(),
            times: batch.column(1).as_primitive::<TimestampMicrosecondType>(),
            prices: batch.column(2).as_primitive::<Decimal128Type>(),
            quantities: batch.column(3).as_primitive::<Decimal128Type>(),
            sides: batch.column(4).as_string(),
            partitions: batch.column(5).as_primitive::<Int32Type>(),
            offsets: batch.column(6).as_primitive::<Int64Type>(),
        }
    }

    fn tick(&self, row: usize) -> Tick {
        let side = self.sides.is_valid(row).then(|| self.sides.value(row));
        Tick {
            at: (self.times.value(row), self.offsets.value(row) as u64),
            price: self.prices.value(row),
            quantity: self.quantities.value(row),
            side: Side::parse(side),
        }
    }
}

/// The days that have rows, in files or in the tail.
fn days(view: &View) -> BTreeSet<Day> {
    let in_tail = view.tail.iter().flat_map(|batch| view.layout.event_times(batch).values().iter().map(|us| Day::of(*us)));
    view.files.iter().map(|f| f.entry.day).chain(in_tail).collect()
}

/// The days on which bars can start: a bar stands on the day of its end.
fn bar_days(view: &View) -> impl Iterator<Item = Day> {
    days(view).into_iter().flat_map(|day| [day, Day::of(day.start_us() - 1)])
}

fn is_behind(schema: &StreamSchema, (at, partition, offset): (i64, u32, u64)) -> Expr {
    let time = || column(&schema.columns[schema.event_time].name);
    let (partition, offset) = (lit(i32::try_from(partition).unwrap_or(i32::MAX)), lit(i64::try_from(offset).unwrap_or(i64::MAX)));
    let same_partition = column(PARTITION).eq(partition.clone()).and(column(OFFSET).lt(offset));
    let same_time = time().eq(time_literal(at)).and(column(PARTITION).lt(partition).or(same_partition));
    time().lt(time_literal(at)).or(same_time)
}

fn wrong_cursor() -> HistoryError {
    HistoryError::User("the cursor is of a search with another interval: begin again without it".to_owned())
}

fn making() -> impl FnOnce(ArrowError) -> HistoryError {
    HistoryError::internal("making a page of a search")
}
