//! The configuration as it was written: TOML, every section optional, unknown keys refused. What it means is decided in `checked.rs`.

use mulgil_detect::detectors::DetectorConfig;
use mulgil_detect::feature::FeatureSpec;
use mulgil_detect::rule::RuleSpec;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Written {
    pub log: LogSection,
    pub source: BTreeMap<String, SourceSection>,
    pub stream: BTreeMap<String, StreamSection>,
    pub summary: BTreeMap<String, SummarySection>,
    pub feature: BTreeMap<String, FeatureSpec>,
    pub rule: BTreeMap<String, RuleSpec>,
    pub detector: BTreeMap<String, DetectorConfig>,
    pub state: StateSection,
    pub history: HistorySection,
    pub serve: ServeSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    pub dir: Option<PathBuf>,
    pub retention: RetentionSection,
    pub segment: Option<String>,
    /// `fsync` or `relaxed`.
    pub durability: Option<String>,
    /// Only with `relaxed`.
    pub flush_every: Option<String>,
    /// Free space below which nothing is accepted any more, so that what was accepted can be finished.
    pub reserve: Option<String>,
    /// Memory for the indexes of old segments that are being read.
    pub index_cache: Option<String>,
    /// Memory for rows that were committed a moment ago, for those who read on at the end.
    pub recent_cache: Option<String>,
    /// What the system is left to keep in its file cache of what was written.
    pub file_cache: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSection {
    pub time: Option<String>,
    pub bytes: Option<String>,
    /// How often the log is looked through for what may go.
    pub every: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceSection {
    /// `simulator`, `postgres` or `mysql` (MariaDB too).
    pub r#type: String,

    // A captured database.
    /// `env:NAME` or `file:PATH`; never the address itself, which has a password in it.
    pub url: Option<String>,
    /// `public.stock_trades`, `public.*`; `shop.orders` with MySQL.
    pub tables: Option<Vec<String>>,
    /// `initial`, `always`, `initial_only`, `no_data` or `when_needed`.
    pub snapshot: Option<String>,
    /// PostgreSQL: the replication slot and the publication, made where they are missing and that is allowed.
    pub slot: Option<String>,
    pub publication: Option<String>,
    /// `never` turns it off.
    pub heartbeat: Option<String>,
    /// A table whose rows ask for snapshots while streaming.
    pub signals: Option<String>,
    /// Whether the generator may put trades and orders that it made up into its tables (`POST /api/v1/stock/generate` with `into`).
    pub allow_generate: Option<bool>,
    /// What may leave it: `schema.table.column` with `*` and `?`; masks and truncations with a number of characters; hashes with a salt
    /// (`env:NAME` or `file:PATH`); other keys and conditions on rows by table.
    pub include_columns: Vec<String>,
    pub exclude_columns: Vec<String>,
    pub mask: BTreeMap<String, usize>,
    pub truncate: BTreeMap<String, usize>,
    pub hash: Vec<String>,
    pub salt: Option<String>,
    pub skip_operations: Vec<String>,
    pub keys: BTreeMap<String, Vec<String>>,
    pub rows: BTreeMap<String, BTreeMap<String, ConditionText>>,
    /// MySQL: ours among the server's replicas, and whether the place is named by GTID: `auto`, `on` or `off`.
    pub server_id: Option<u32>,
    pub gtid: Option<String>,
    /// MySQL, when rows come or go without row events (`ALTER TABLE … DROP PARTITION`): `tell` or `stop`.
    pub on_stale: Option<String>,

    // The market simulator.
    /// The stream it feeds.
    pub stream: Option<String>,
    /// `false`: it waits until it is asked for (`POST /api/v1/stock/generate`).
    pub start: Option<bool>,
    pub rate: Option<f64>,
    pub seed: Option<u64>,
    pub symbols: Option<Vec<String>>,
    pub anomaly_share: Option<f64>,
    /// `always` or `session`.
    pub hours: Option<String>,
}

/// `market_code = ["KRX", "KOSDAQ"]`, `price = ">= 10"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum ConditionText {
    One(String),
    Any(Vec<String>),
}

impl SourceSection {
    /// The keys that only a captured database has and that were written.
    pub fn capture_keys(&self) -> Vec<&'static str> {
        let written = [
            ("url", self.url.is_some()),
            ("tables", self.tables.is_some()),
            ("snapshot", self.snapshot.is_some()),
            ("heartbeat", self.heartbeat.is_some()),
            ("allow_generate", self.allow_generate.is_some()),
        ];
        written.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).chain(self.postgres_keys()).chain(self.mysql_keys()).collect()
    }

    pub fn postgres_keys(&self) -> Vec<&'static str> {
        let written = [("slot", self.slot.is_some()), ("publication", self.publication.is_some()), ("signals", self.signals.is_some())];
        written.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect()
    }

    pub fn mysql_keys(&self) -> Vec<&'static str> {
        let written = [("server_id", self.server_id.is_some()), ("gtid", self.gtid.is_some()), ("on_stale", self.on_stale.is_some())];
        written.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect()
    }

    pub fn simulator_keys(&self) -> Vec<&'static str> {
        let written = [
            ("stream", self.stream.is_some()),
            ("start", self.start.is_some()),
            ("rate", self.rate.is_some()),
            ("seed", self.seed.is_some()),
            ("symbols", self.symbols.is_some()),
            ("anomaly_share", self.anomaly_share.is_some()),
            ("hours", self.hours.is_some()),
        ];
        written.into_iter().filter(|(_, is)| *is).map(|(key, _)| key).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamSection {
    /// `trade` or `plain`.
    pub kind: Option<String>,
    /// A table of a captured database: `exchange.public.stock_trades`.
    pub from: Option<String>,
    /// Which of its changes become rows: `inserts`, `upserts` or `all`.
    pub changes: Option<String>,
    /// What becomes of changes whose table no longer fits: `dead_letters`, or `stop` the source.
    pub on_break: Option<String>,
    pub key: Option<String>,
    pub event_time: Option<String>,
    /// Stream column = name in the input.
    pub columns: BTreeMap<String, String>,
    /// Column = type, for columns beyond those of the kind; a `?` at the end allows null.
    pub types: BTreeMap<String, String>,
    /// Column = value that every row gets.
    pub constants: BTreeMap<String, String>,
    /// Decimals of `price` and `quantity`.
    pub decimals: BTreeMap<String, i8>,
    pub partitions: Option<u32>,
    pub bars: Vec<String>,
    pub timezone: Option<String>,
    /// Unit of numeric times in the input: `s`, `ms`, `us` or `ns`.
    pub time_unit: Option<String>,
    pub out_of_orderness: Option<String>,
    pub allowed_lateness: Option<String>,
    /// Without rows for this long, the watermark moves on with the clock; `never` turns it off.
    pub idle_after: Option<String>,
    pub dedupe: Option<DedupeSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupeSection {
    pub columns: Vec<String>,
    pub horizon: Option<String>,
    pub entries_max: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SummarySection {
    pub stream: String,
    pub group_by: Vec<String>,
    pub window: WindowSection,
    /// Column = `sum(quantity)`, `count`, …
    pub aggregates: BTreeMap<String, String>,
    pub allowed_lateness: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowSection {
    pub tumbling: Option<String>,
    /// `{ hopping = "1m", every = "30s" }`
    pub hopping: Option<String>,
    pub every: Option<String>,
    pub sliding: Option<String>,
    pub session: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateSection {
    /// Keys kept in memory per operator and shard; the rest is read from disk when it is needed.
    pub hot_keys_max: Option<usize>,
    pub snapshot_every: Option<String>,
    /// A snapshot is taken early when this many entries have changed.
    pub dirty_entries_max: Option<usize>,
    pub cache: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistorySection {
    /// Days of rows kept; nothing is removed without it.
    pub retention: Option<String>,
    pub disk_budget: Option<String>,
    pub flush_after: Option<String>,
    /// How often small files are merged and old ones dropped.
    pub upkeep_every: Option<String>,
    pub query_memory: Option<String>,
    pub query_timeout: Option<String>,
    pub query_rows_max: Option<usize>,
    /// Queries at a time, and searches at a time.
    pub queries_max: Option<usize>,
    pub searches_max: Option<usize>,
    /// Rows that are not in files yet, in memory.
    pub tail: Option<String>,
    pub footer_cache: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeSection {
    pub bind: Option<String>,
    pub allow_public: bool,
    pub cors_origins: Vec<String>,
    pub tls: Option<TlsSection>,
    pub keys: Vec<KeySection>,
    pub body_bytes_max: Option<String>,
    /// Bodies of all requests together.
    pub bodies_bytes_max: Option<String>,
    /// Until the answer begins; sending the body is part of it.
    pub request_timeout: Option<String>,
    /// Until a connection has sent the head of a request.
    pub header_timeout: Option<String>,
    pub ws_clients_max: Option<usize>,
    pub sse_clients_max: Option<usize>,
    pub connections_max: Option<usize>,
    /// Requests at a time, apart from streams.
    pub requests_max: Option<usize>,
    pub ws_subscriptions_max: Option<usize>,
    /// Frames that wait for one client.
    pub ws_buffer: Option<String>,
    /// Recent rows kept per partition for all live clients together.
    pub live_ring: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeySection {
    pub name: String,
    /// `read`, `ingest`, `admin`.
    pub scopes: Vec<String>,
    /// `env:NAME` or `file:PATH`; never the secret itself.
    pub key: String,
}
