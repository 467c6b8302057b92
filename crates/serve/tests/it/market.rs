//! A small, real log in memory behind the ports, and a server over it on a real socket.

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use futures::FutureExt;
use futures::future::BoxFuture;
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::keys::partition_of;
use mulgil_model::problem::RowProblem;
use mulgil_model::rows::Rows;
use mulgil_model::schema::{ColumnType, StreamKind, StreamSchema};
use mulgil_model::search::{SearchCursor, SearchPage, SearchRequest, SearchTie};
use mulgil_model::streams::{self, TradeDecimals};
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};
use mulgil_serve::config::{Limits, ServeConfig};
use mulgil_serve::ports::*;
use mulgil_serve::server::Server;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// 2026-11-21T00:00:00Z in microseconds: where the tests' time begins.
pub const DAY: i64 = 1_795_219_200_000_000;
pub const SECOND: i64 = 1_000_000;

/// The changes of a captured table.
pub const CHANGES: &str = "exchange.public.stock_trades";

pub struct Market {
    pub epoch: Mutex<&'static str>,
    streams: Mutex<Vec<StreamInfo>>,
    /// Rows and the first kept offset of each partition.
    partitions: Mutex<BTreeMap<(Topic, Partition), Kept>>,
    tick: watch::Sender<u64>,
    /// Reads of rows, of all streams.
    pub n_reads: AtomicUsize,
    pub ready: Mutex<bool>,
    pub generator: Mutex<Option<GeneratorStatus>>,
    pub ingest_fails: Mutex<Option<PortError>>,
}

#[derive(Default)]
struct Kept {
    first: u64,
    /// One batch of one row each: the simplest log that is one.
    rows: Vec<RecordBatch>,
}

pub struct Trade<'a> {
    pub symbol: &'a str,
    pub at: i64,
    pub price: i128,
    pub quantity: i128,
    pub id: String,
}

pub fn trade(symbol: &str, at: i64, price: i128, quantity: i128, id: usize) -> Trade<'_> {
    Trade { symbol, at: DAY + at, price, quantity, id: id.to_string() }
}

impl Market {
    pub fn new(n_partitions: u32) -> Arc<Self> {
        let topic = |name| Topic::new(name).unwrap();
        let decimals = TradeDecimals::default();
        let streams = vec![
            StreamInfo { schema: Arc::new(streams::alerts(topic("alerts")).unwrap()), partitions: n_partitions },
            StreamInfo { schema: Arc::new(streams::trades(topic("trades"), decimals, vec![]).unwrap()), partitions: n_partitions },
            StreamInfo { schema: Arc::new(streams::bars(topic("trades.bars.1m"), decimals).unwrap()), partitions: n_partitions },
            StreamInfo { schema: Arc::new(streams::changes(topic(CHANGES)).unwrap()), partitions: 1 },
        ];
        let partitions =
            streams.iter().flat_map(|s| (0..s.partitions).map(|p| ((s.schema.stream.clone(), Partition(p)), Kept::default()))).collect();
        Arc::new(Self {
            epoch: Mutex::new("e1"),
            streams: Mutex::new(streams),
            partitions: Mutex::new(partitions),
            tick: watch::Sender::new(0),
            n_reads: AtomicUsize::new(0),
            ready: Mutex::new(true),
            generator: Mutex::new(None),
            ingest_fails: Mutex::new(None),
        })
    }

    pub fn schema(&self, name: &str) -> Arc<StreamSchema> {
        Arc::clone(&self.streams.lock().iter().find(|s| s.schema.stream.as_str() == name).unwrap().schema)
    }

    /// One commit.
    pub fn commit<'a>(&self, trades: impl IntoIterator<Item = Trade<'a>>) {
        let schema = self.schema("trades");
        for t in trades {
            let batch = trade_batch(&schema, &t);
            self.append(&schema, t.symbol, batch);
        }
        self.tick.send_modify(|n| *n += 1);
    }

    pub fn alert(&self, symbol: &str, n: usize, rule: &str, severity: &str, mode: &str) {
        let schema = self.schema("alerts");
        let batch = alert_batch(&schema, symbol, n, rule, severity, mode);
        self.append(&schema, symbol, batch);
        self.tick.send_modify(|n| *n += 1);
    }

    /// A change of the row with this key; `was` is its key before.
    pub fn change(&self, op: &str, key: &str, was: Option<&str>, events: &str) {
        let schema = self.schema(CHANGES);
        let text = |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef;
        let at = Arc::new(TimestampMicrosecondArray::from(vec![DAY]).with_timezone("UTC"));
        let columns = vec![text(key), at, text(op), Arc::new(StringArray::from(vec![was])), text(events)];
        self.append(&schema, key, RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap());
        self.tick.send_modify(|n| *n += 1);
    }

    fn append(&self, schema: &StreamSchema, key: &str, batch: RecordBatch) {
        let n = self.streams.lock().iter().find(|s| s.schema.stream == schema.stream).unwrap().partitions;
        let mut partitions = self.partitions.lock();
        partitions.get_mut(&(schema.stream.clone(), partition_of(key.as_bytes(), n))).unwrap().rows.push(batch);
    }

    /// Retention: the oldest rows of every partition of a stream go.
    pub fn forget(&self, stream: &str, keep: u64) {
        for ((topic, _), kept) in self.partitions.lock().iter_mut() {
            if topic.as_str() == stream {
                kept.first = kept.first.max((kept.rows.len() as u64).saturating_sub(keep));
            }
        }
    }
}

fn trade_batch(schema: &StreamSchema, t: &Trade) -> RecordBatch {
    let text = |v: &str| Arc::new(StringArray::from(vec![v])) as ArrayRef;
    let decimal = |column: &str, v: i128| {
        let ColumnType::Decimal { precision, scale } = schema.column(column).unwrap().1.kind else { unreachable!() };
        Arc::new(Decimal128Array::from(vec![v]).with_precision_and_scale(precision, scale).unwrap()) as ArrayRef
    };
    let at = Arc::new(TimestampMicrosecondArray::from(vec![t.at]).with_timezone("UTC"));
    // Prices and quantities of the tests are in hundredths.
    let (price, quantity) = (decimal("price", t.price * 1_000_000), decimal("quantity", t.quantity * 1_000_000));
    let columns = vec![text(t.symbol), at, price, quantity, text("BUY"), text(&t.id), text("KRX"), text("KRW")];
    RecordBatch::try_new(Arc::clone(schema.arrow()), columns).unwrap()
}

fn alert_batch(schema: &StreamSchema, symbol: &str, n: usize, rule: &str, severity: &str, mode: &str) -> RecordBatch {
    let columns = schema.columns.iter().map(|c| match (c.name.as_str(), c.kind) {
        ("id", _) => Arc::new(StringArray::from(vec![format!("a{n}")])) as ArrayRef,
        ("key", _) => Arc::new(StringArray::from(vec![symbol])),
        ("rule", _) => Arc::new(StringArray::from(vec![rule])),
        ("severity", _) => Arc::new(StringArray::from(vec![severity])),
        ("mode", _) => Arc::new(StringArray::from(vec![mode])),
        ("evidence" | "thresholds", _) => Arc::new(StringArray::from(vec![format!("{{\"count_10s\":{n}}}")])),
        (_, ColumnType::Text) => Arc::new(StringArray::from(vec!["x"])),
        (_, ColumnType::Int) => Arc::new(Int64Array::from(vec![n as i64])),
        (_, ColumnType::Float) => Arc::new(Float64Array::from(vec![0.5])),
        (_, ColumnType::Timestamp) => Arc::new(TimestampMicrosecondArray::from(vec![DAY + n as i64 * SECOND]).with_timezone("UTC")),
        _ => unreachable!("alerts have no other types"),
    });
    RecordBatch::try_new(Arc::clone(schema.arrow()), columns.collect()).unwrap()
}

impl Feed for Market {
    fn streams(&self) -> Vec<StreamInfo> {
        self.streams.lock().clone()
    }

    fn epoch(&self) -> &str {
        *self.epoch.lock()
    }

    fn bounds(&self, stream: &Topic, partition: Partition) -> Result<Bounds, PortError> {
        let partitions = self.partitions.lock();
        let kept =
            partitions.get(&(stream.clone(), partition)).ok_or_else(|| PortError::new(PortErrorKind::NotFound, "no such partition"))?;
        Ok(Bounds { first: Offset(kept.first), next: Offset(kept.rows.len() as u64) })
    }

    fn read(&self, stream: &Topic, partition: Partition, from: ReadFrom, max_rows: usize) -> Result<Rows, PortError> {
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        let not_found = || PortError::new(PortErrorKind::NotFound, "no such place");
        let schema =
            self.streams.lock().iter().find(|s| s.schema.stream == *stream).map(|s| Arc::clone(&s.schema)).ok_or_else(not_found)?;
        let partitions = self.partitions.lock();
        let kept = partitions.get(&(stream.clone(), partition)).ok_or_else(not_found)?;
        let time_of = |batch: &RecordBatch| {
            let array = batch.column(schema.event_time);
            arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(array.as_ref()).value(0)
        };
        let from = match from {
            ReadFrom::Offset(o) => o.0,
            ReadFrom::Time(t) => {
                let after = kept.rows.iter().skip(kept.first as usize).position(|b| time_of(b) >= t.micros());
                after.map_or(kept.rows.len() as u64, |i| kept.first + i as u64)
            }
        };
        if from < kept.first || from > kept.rows.len() as u64 {
            return Err(not_found());
        }
        // Never all that could be had, so that readers prove they go on.
        let n = (kept.rows.len() - from as usize).min(max_rows).min(7);
        let batch = arrow::compute::concat_batches(schema.arrow(), &kept.rows[from as usize..from as usize + n]).unwrap();
        Ok(Rows { schema, partition, base: Offset(from), appended: vec![AppendTime(0); n], received: vec![ReceiveTime(0); n], batch })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.tick.subscribe()
    }
}

impl Ingest for Market {
    /// Reads `{"symbol","price"}` objects, one per line; a line without a symbol is bad.
    fn ingest(&self, request: IngestRequest) -> BoxFuture<'_, Result<IngestAnswer, PortError>> {
        async move {
            if let Some(error) = self.ingest_fails.lock().clone() {
                return Err(error);
            }
            if !self.streams.lock().iter().any(|s| s.schema.stream == request.stream && s.schema.kind == StreamKind::Trade) {
                return Err(PortError::new(PortErrorKind::NotFound, format!("there is no stream '{}' that takes rows", request.stream)));
            }
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let mut answer = IngestAnswer { replayed: request.idempotency_key.as_deref() == Some("known"), ..IngestAnswer::default() };
            for (i, line) in text.lines().enumerate() {
                match serde_json::from_str::<serde_json::Value>(line).ok().and_then(|v| v["symbol"].as_str().map(str::to_owned)) {
                    Some(symbol) => {
                        self.commit([trade(&symbol, 0, 100, 1, i)]);
                        answer.accepted += 1;
                    }
                    None => {
                        answer.rejected += 1;
                        let reason = "symbol is missing".to_owned();
                        answer.problems.push(RowProblem {
                            row: i as u64,
                            line: i as u64 + 1,
                            column: 1,
                            field: Some("symbol".into()),
                            reason,
                            original: line.into(),
                        });
                    }
                }
            }
            answer.placed.push(Placed { partition: Partition(0), first: Offset(0), last: Offset(answer.accepted.saturating_sub(1)) });
            Ok(answer)
        }
        .boxed()
    }
}

impl Past for Market {
    /// Answers `rows N` with N rows in batches of two, `fail N` with N rows and then an error, and refuses the rest.
    fn sql(&self, request: SqlRequest) -> BoxFuture<'_, Result<SqlAnswer, PortError>> {
        async move {
            let refuse = || PortError::new(PortErrorKind::Invalid, "only 'rows N' and 'fail N' are understood");
            let (word, n) = request.sql.split_once(' ').ok_or_else(refuse)?;
            let n: usize = n.parse().map_err(|_| refuse())?;
            let schema = self.schema("trades");
            let batches: Vec<_> =
                (0..n.min(request.rows_max)).map(|i| Ok(trade_batch(&schema, &trade("A,1", 0, 100 + i as i128, 1, i)))).collect();
            let error = (word == "fail").then(|| Err(PortError::new(PortErrorKind::Timeout, "the query took too long")));
            Ok(SqlAnswer { schema: Arc::clone(schema.arrow()), batches: Box::pin(futures::stream::iter(batches.into_iter().chain(error))) })
        }
        .boxed()
    }

    /// All trades in the bounds, newest first, symbol by symbol.
    fn search(&self, request: SearchRequest) -> BoxFuture<'_, Result<SearchPage, PortError>> {
        async move {
            let schema = self.schema("trades");
            let mut found = Vec::new();
            for p in 0..self.streams().iter().find(|s| s.schema.stream == request.stream).unwrap().partitions {
                let mut at = self.bounds(&request.stream, Partition(p))?.first;
                loop {
                    let rows = self.read(&request.stream, Partition(p), ReadFrom::Offset(at), 100)?;
                    for i in 0..rows.len() {
                        let time = rows.event_times().value(i);
                        let in_bounds = (request.from.micros()..request.to.micros()).contains(&time);
                        if in_bounds && request.symbol.as_deref().is_none_or(|s| s == rows.keys().value(i)) {
                            found.push((time, p, rows.base.0 + i as u64, rows.batch.slice(i, 1)));
                        }
                    }
                    if rows.is_empty() {
                        break;
                    }
                    at = rows.next();
                }
            }
            found.sort_by_key(|(t, p, o, _)| std::cmp::Reverse((*t, *p, *o)));
            if let Some(SearchCursor { at, tie: SearchTie::Tick { partition, offset } }) = request.after {
                found.retain(|(t, p, o, _)| (*t, *p, *o) < (at.micros(), partition, offset));
            }
            let is_last = found.len() <= request.limit;
            found.truncate(request.limit);
            let next = found
                .last()
                .filter(|_| !is_last)
                .map(|(t, p, o, _)| SearchCursor { at: EventTime(*t), tie: SearchTie::Tick { partition: *p, offset: *o } });
            let batches: Vec<_> = found.into_iter().map(|f| f.3).collect();
            let batch = arrow::compute::concat_batches(schema.arrow(), &batches).unwrap();
            Ok(SearchPage { schema, batch, next })
        }
        .boxed()
    }
}

impl Generator for Market {
    fn start(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Started, PortError>> {
        async move {
            let mut running = self.generator.lock();
            let already_running = running.as_ref().is_some_and(|s| s.state == RunState::Running);
            let fresh = GeneratorStatus {
                id: "g1".into(),
                state: RunState::Running,
                symbols: request.symbols,
                rate: request.rate.unwrap_or(100.0),
                seed: request.seed.unwrap_or(1),
                into: request.into,
                produced: 0,
                anomalies: 0,
                started: DAY,
                ended: None,
                detail: request.duration.map_or_else(String::new, |d| format!("for {} s", d.as_secs())),
            };
            let status = if already_running { running.clone().unwrap() } else { running.insert(fresh).clone() };
            Ok(Started { status, already_running })
        }
        .boxed()
    }

    fn status(&self, _: Option<&str>) -> Result<GeneratorStatus, PortError> {
        self.generator.lock().clone().ok_or_else(|| PortError::new(PortErrorKind::NotFound, "the generator was never started"))
    }

    fn stop(&self, _: Option<String>) -> BoxFuture<'_, Result<GeneratorStatus, PortError>> {
        async move {
            if let Some(status) = self.generator.lock().as_mut() {
                (status.state, status.ended) = (RunState::Stopped, Some(DAY + SECOND));
            }
            self.status(None)
        }
        .boxed()
    }
}

impl Captured for Market {
    fn list(&self) -> Result<Vec<CaptureStatus>, PortError> {
        let status = CaptureStatus {
            source: "exchange".into(),
            kind: "postgres",
            tables: vec!["public.stock_trades".into()],
            state: "streaming",
            detail: String::new(),
            since: AppendTime(DAY),
            position: Some("7:1".into()),
            n_changes: 9,
            n_commits: 2,
            n_failures: 0,
            committed: Some(EventTime(DAY)),
            lag_bytes: Some(64),
            retained_bytes: Some(1024),
            wal_status: Some("reserved".into()),
            safe_wal_bytes: None,
            stale: vec!["public.stock_trades: a partition was dropped".into()],
            snapshot_rows: 5,
            snapshot_chunks_done: 1,
            snapshot_chunks: 2,
        };
        Ok(vec![status])
    }

    /// Takes `public.stock_trades` of `exchange`.
    fn snapshot(&self, request: SnapshotRequest) -> BoxFuture<'_, Result<(), PortError>> {
        async move {
            let error = |kind| Err(PortError::new(kind, format!("{request:?} cannot be")));
            match (request.source.as_str(), request.tables[0].as_str(), request.filter.as_deref()) {
                ("exchange", "public.stock_trades", None | Some("price > 10")) => Ok(()),
                ("exchange", ..) => error(PortErrorKind::Invalid),
                ("asleep", ..) => error(PortErrorKind::Conflict),
                _ => error(PortErrorKind::NotFound),
            }
        }
        .boxed()
    }
}

impl Vitals for Market {
    fn live(&self) -> bool {
        true
    }

    fn ready(&self) -> Readiness {
        let ok = *self.ready.lock();
        Readiness { ready: ok, checks: vec![Check { name: "trades".into(), ok, detail: "rows move".into(), since: Some(AppendTime(DAY)) }] }
    }

    fn lag(&self) -> Vec<HopLag> {
        vec![HopLag { stream: Topic::new("trades").unwrap(), hop: "log".into(), seconds: 0.25 }]
    }
}

/// A running server; stopped and joined by `stop`.
pub struct Running {
    pub market: Arc<Market>,
    pub addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

pub fn ports(market: &Arc<Market>) -> Ports {
    // Every test process shares one recorder, as the program does.
    static METRICS: std::sync::OnceLock<metrics_exporter_prometheus::PrometheusHandle> = std::sync::OnceLock::new();
    let metrics = METRICS.get_or_init(|| metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap()).clone();
    let m = || Arc::clone(market);
    Ports {
        feed: m(),
        ingest: m(),
        past: m(),
        generator: m(),
        captured: m(),
        vitals: m(),
        clock: Arc::new(|| DAY + 3600 * SECOND),
        live: Arc::new(|client| client),
        metrics,
    }
}

pub fn config() -> ServeConfig {
    ServeConfig { bind: "127.0.0.1:0".parse().unwrap(), ..ServeConfig::default() }
}

pub async fn start_with(market: Arc<Market>, config: ServeConfig) -> Running {
    let server = Server::new(config, ports(&market)).unwrap();
    let listener = server.bind().unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        server.serve(listener, async { drop(stopped.await) }).await.unwrap();
    });
    Running { market, addr, stop, task }
}

pub async fn start(n_partitions: u32) -> Running {
    start_with(Market::new(n_partitions), config()).await
}

pub async fn start_limited(n_partitions: u32, limits: Limits) -> Running {
    start_with(Market::new(n_partitions), ServeConfig { limits, ..config() }).await
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Returns when every connection and socket has ended.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}
