//! What serving needs from the rest of the program, as six small traits that the binary implements.
//!
//! All of them are called concurrently from many connections. Nothing here retries: an error goes to the client, who decides.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::problem::RowProblem;
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::search::{SearchPage, SearchRequest};
use mulgil_model::time::{AppendTime, EventTime, ReceiveTime};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Everything the server talks to.
#[derive(Clone)]
pub struct Ports {
    pub feed: Arc<dyn Feed>,
    pub ingest: Arc<dyn Ingest>,
    pub past: Arc<dyn Past>,
    pub generator: Arc<dyn Generator>,
    pub captured: Arc<dyn Captured>,
    pub vitals: Arc<dyn Vitals>,
    /// Wall clock in microseconds since the epoch: for "the last 60 minutes" and for the receive time of ingested rows.
    pub clock: Clock,
    pub live: LiveThreads,
    /// What `/metrics` prints.
    pub metrics: metrics_exporter_prometheus::PrometheusHandle,
}

pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Runs a live client to its end, on threads of its own: a thousand of them with something to write must not stand before a request that
/// brings rows.
pub type LiveThreads = Arc<dyn Fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Committed rows, by stream and partition, for live clients.
pub trait Feed: Send + Sync {
    /// Every readable stream with a schema. May grow while running, never shrinks; cheap (asked per subscription and per request).
    fn streams(&self) -> Vec<StreamInfo>;

    /// The identity of this log: changes when offsets lose their meaning (a new data folder, a restored backup). ASCII, at most 64 bytes.
    fn epoch(&self) -> &str;

    /// The first offset still kept, and the offset that the next row will get. `NotFound` for an unknown stream or partition.
    fn bounds(&self, stream: &Topic, partition: Partition) -> Result<Bounds, PortError>;

    /// Up to `max_rows` committed rows, in order and without holes; may return fewer, and none only when `from` is the end. Blocking, but
    /// quick (memory or page cache). `NotFound` when `from` is below the first kept offset or behind the end.
    fn read(&self, stream: &Topic, partition: Partition, from: ReadFrom, max_rows: usize) -> Result<Rows, PortError>;

    /// Gets another value after each commit (once its rows are readable); which value means nothing, but two commits never leave the same.
    fn changed(&self) -> watch::Receiver<u64>;
}

#[derive(Debug, Clone)]
pub struct StreamInfo {
    pub schema: Arc<StreamSchema>,
    pub partitions: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub first: Offset,
    pub next: Offset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    Offset(Offset),
    /// From a row such that no kept row before it has this event time or a later one. Rows with earlier event times may come along: the
    /// reader filters. When no such row is kept the answer is empty, with `base` = the end.
    Time(EventTime),
}

/// The one way in.
pub trait Ingest: Send + Sync {
    /// Answers only after the commit (rows and the idempotency key together). Bad rows go to the dead letters and are told in the answer;
    /// the good ones are committed. `NotFound` for an unknown stream, `Full` when the disk is, `Busy` under back-pressure, `Invalid` when
    /// the body as a whole cannot be read, `Conflict` when the idempotency key came with another body before.
    fn ingest(&self, request: IngestRequest) -> BoxFuture<'_, Result<IngestAnswer, PortError>>;
}

#[derive(Debug, Clone)]
pub struct IngestRequest {
    pub stream: Topic,
    pub content: ContentKind,
    pub body: Bytes,
    /// 1 to 255 visible ASCII characters.
    pub idempotency_key: Option<String>,
    pub received: ReceiveTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentKind {
    /// One object, or an array of objects.
    Json,
    NdJson,
    /// An object container file, or messages in the Confluent wire format.
    Avro,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngestAnswer {
    pub accepted: u64,
    pub rejected: u64,
    /// The first [`PROBLEMS_MAX`] bad rows.
    pub problems: Vec<RowProblem>,
    pub placed: Vec<Placed>,
    /// The idempotency key was known: nothing was written this time, and this is the first answer again.
    pub replayed: bool,
}

/// Row problems told in one answer.
pub const PROBLEMS_MAX: usize = 100;

/// Where rows of one request stand in the log; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    pub partition: Partition,
    pub first: Offset,
    pub last: Offset,
}

/// Questions about what is stored.
pub trait Past: Send + Sync {
    /// Plans the query, then streams its answer. Dropping the stream cancels the query. Read-only: anything else is `Invalid`.
    fn sql(&self, request: SqlRequest) -> BoxFuture<'_, Result<SqlAnswer, PortError>>;

    /// One page, newest first.
    fn search(&self, request: SearchRequest) -> BoxFuture<'_, Result<SearchPage, PortError>>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlRequest {
    pub sql: String,
    /// Rows after which the answer ends; the server asks for one more than it shows, to know that it cut.
    pub rows_max: usize,
    pub timeout: Duration,
}

pub struct SqlAnswer {
    pub schema: SchemaRef,
    pub batches: BoxStream<'static, Result<RecordBatch, PortError>>,
}

/// The market simulator.
pub trait Generator: Send + Sync {
    /// Starts, or answers what already runs: starting twice does not make two. With `into`, `NotFound` when there is no such captured
    /// database, `Forbidden` when the configuration or the database does not allow it, `Invalid` when its table cannot take trades, `Busy`
    /// when it cannot be reached, and `Conflict` when a run goes somewhere else.
    fn start(&self, request: GenerateRequest) -> BoxFuture<'_, Result<Started, PortError>>;

    /// The run with this id, or the latest. `NotFound` when there is none.
    fn status(&self, id: Option<&str>) -> Result<GeneratorStatus, PortError>;

    /// Stops the run with this id, or the latest; answers when its last row is committed. Stopping a finished run changes nothing.
    fn stop(&self, id: Option<String>) -> BoxFuture<'_, Result<GeneratorStatus, PortError>>;
}

/// None means the generator's own default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerateRequest {
    /// Empty: all it knows.
    pub symbols: Vec<String>,
    /// Trades per second, above 0.
    pub rate: Option<f64>,
    /// Ends after this time or this many trades, whichever comes first; without both it runs until stopped.
    pub duration: Option<Duration>,
    pub count: Option<u64>,
    /// Share of trades that belong to an injected anomaly, 0 to 1.
    pub anomaly_share: Option<f64>,
    pub seed: Option<u64>,
    /// The captured database whose table gets the trades (`exchange`, or `exchange.public.stock_trades`); none: the stream itself.
    pub into: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    pub status: GeneratorStatus,
    pub already_running: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorStatus {
    pub id: String,
    pub state: RunState,
    pub symbols: Vec<String>,
    pub rate: f64,
    pub seed: u64,
    /// `exchange.public.stock_trades`: the table that gets the trades; none: the stream itself.
    pub into: Option<String>,
    /// Committed, by the log or by the database.
    pub produced: u64,
    pub anomalies: u64,
    /// Microseconds since the epoch.
    pub started: i64,
    pub ended: Option<i64>,
    /// Why it failed, or what limits it; empty when there is nothing to say.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    Running,
    Finished,
    Stopped,
    Failed,
}

impl RunState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// The captured databases.
pub trait Captured: Send + Sync {
    /// All of the configuration, by name. `Busy` while the program starts.
    fn list(&self) -> Result<Vec<CaptureStatus>, PortError>;

    /// Reads tables again while changes go on; answers when the source has taken it up, which is durable soon after, and reading takes as
    /// long as it takes: see [`CaptureStatus`]. `NotFound` for an unknown source, `Conflict` while it does not stream, `Busy` when too many
    /// wait, `Invalid` for tables or a filter that it cannot use.
    fn snapshot(&self, request: SnapshotRequest) -> BoxFuture<'_, Result<(), PortError>>;
}

#[derive(Debug, Clone, PartialEq)]
pub struct CaptureStatus {
    pub source: String,
    /// `postgres` or `mysql`
    pub kind: &'static str,
    /// As the configuration names them.
    pub tables: Vec<String>,
    /// `connecting`, `snapshot`, `streaming`, `waiting`, `refused` or `stopped`
    pub state: &'static str,
    /// Why it does not stream, in words; empty when it does.
    pub detail: String,
    pub since: AppendTime,
    /// All up to here is durable, in this process's life; None before the first commit.
    pub position: Option<String>,
    pub n_changes: u64,
    pub n_commits: u64,
    pub n_failures: u64,
    /// When the last change that was read was committed, by the database's clock.
    pub committed: Option<EventTime>,
    /// Written by the database and not read yet.
    pub lag_bytes: Option<u64>,
    /// What the database keeps for this source.
    pub retained_bytes: Option<u64>,
    pub wal_status: Option<String>,
    pub safe_wal_bytes: Option<i64>,
    /// Tables that are no longer what was captured of them, with why; a snapshot mends each.
    pub stale: Vec<String>,
    /// Of the snapshot under way, or the last one.
    pub snapshot_rows: u64,
    pub snapshot_chunks_done: u64,
    pub snapshot_chunks: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRequest {
    pub source: String,
    /// `public.stock_trades`; at least one.
    pub tables: Vec<String>,
    /// A condition on the rows, in the database's SQL.
    pub filter: Option<String>,
}

/// How the program is.
pub trait Vitals: Send + Sync {
    /// False only when the process should be restarted (a poisoned journal).
    fn live(&self) -> bool;

    /// Ready means that data moves or is provably absent.
    fn ready(&self) -> Readiness;

    /// Per stream and hop, from the row's event time.
    fn lag(&self) -> Vec<HopLag>;
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    pub detail: String,
    /// Since when `ok` has its present value.
    pub since: Option<AppendTime>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct HopLag {
    pub stream: Topic,
    /// `receive`, `log`, `processed`, `history`, …
    pub hop: String,
    pub seconds: f64,
}

/// Why a port could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct PortError {
    pub kind: PortErrorKind,
    /// Lower case, names the thing, says what to do. Shown to the client: no payloads, no paths, no secrets. (For `Internal` only the
    /// log shows it.)
    pub detail: String,
    pub problems: Vec<RowProblem>,
    /// For `Busy` and `Full`.
    pub retry_after: Option<Duration>,
}

impl PortError {
    pub fn new(kind: PortErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), problems: Vec::new(), retry_after: None }
    }

    pub fn with_problems(mut self, problems: Vec<RowProblem>) -> Self {
        self.problems = problems;
        self
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortErrorKind {
    NotFound,
    Invalid,
    /// The configuration or somebody's rights do not allow it.
    Forbidden,
    Conflict,
    /// Under back-pressure: try again soon.
    Busy,
    TooLarge,
    /// The disk is full.
    Full,
    Timeout,
    Internal,
}
