//! What the configuration means: names resolved, units read, defaults filled in. All defaults stand in this file.

use super::captured::{CapturePlan, Origin};
use super::filtered::keys_written;
use super::nearest::nearest;
use super::units::{bytes, duration, secret};
use super::written::{self, Written};
use anyhow::{Context, Result, bail, ensure};
use mulgil_detect::detectors::DetectorConfig;
use mulgil_detect::feature::FeatureSpec;
use mulgil_detect::rule::RuleSpec;
use mulgil_engine::aggregate::Function;
use mulgil_engine::summary::AggregateSpec;
use mulgil_engine::window::WindowSpec;
use mulgil_log::Durability;
use mulgil_model::ids::Topic;
use mulgil_model::schema::{Column, ColumnType, StreamKind, StreamSchema};
use mulgil_model::streams::{TradeDecimals, trade_columns, trades};
use mulgil_model::time::EpochUnit;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Checked {
    pub log: LogPlan,
    pub simulators: Vec<SimulatorPlan>,
    pub captures: Vec<CapturePlan>,
    pub streams: Vec<StreamPlan>,
    pub summaries: Vec<SummaryPlan>,
    pub features: Vec<FeatureSpec>,
    pub rules: Vec<RuleSpec>,
    pub detectors: Vec<DetectorConfig>,
    pub state: StatePlan,
    pub history: HistoryPlan,
    pub serve: ServePlan,
}

#[derive(Debug, Clone)]
pub struct LogPlan {
    pub dir: PathBuf,
    pub retention_time: Option<Duration>,
    pub retention_bytes: Option<u64>,
    pub retention_every: Duration,
    pub segment_bytes: u64,
    pub durability: Durability,
    pub reserve_bytes: u64,
    pub index_cache_bytes: u64,
    pub recent_cache_bytes: u64,
    pub file_cache_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct SimulatorPlan {
    pub name: String,
    pub stream: Topic,
    pub start: bool,
    pub rate: f64,
    /// None: the time at which it starts, so that every run is another one.
    pub seed: Option<u64>,
    /// Empty: all.
    pub symbols: Vec<String>,
    pub anomaly_share: f64,
    pub always_open: bool,
}

/// A stream that rows are put into from outside.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    pub schema: Arc<StreamSchema>,
    /// A table of a captured database, whose changes become its rows.
    pub from: Option<Origin>,
    pub partitions: u32,
    pub bars: Vec<String>,
    pub timezone: String,
    pub input: InputPlan,
    pub out_of_orderness: Duration,
    pub allowed_lateness: Duration,
    pub idle_after: Option<Duration>,
    pub dedupe: Option<DedupePlan>,
}

/// How foreign rows become rows of the stream.
#[derive(Debug, Clone)]
pub struct InputPlan {
    /// Stream column -> name in the input.
    pub columns: BTreeMap<String, String>,
    pub constants: BTreeMap<String, String>,
    pub time_unit: EpochUnit,
}

#[derive(Debug, Clone)]
pub struct DedupePlan {
    pub columns: Vec<String>,
    pub horizon: Duration,
    pub entries_max: usize,
}

#[derive(Debug, Clone)]
pub struct SummaryPlan {
    pub name: String,
    pub stream: Topic,
    pub group_by: Vec<String>,
    pub window: WindowSpec,
    pub aggregates: Vec<AggregateSpec>,
    pub allowed_lateness: Duration,
}

#[derive(Debug, Clone)]
pub struct StatePlan {
    pub hot_keys_max: usize,
    pub snapshot_every: Duration,
    pub dirty_entries_max: usize,
    pub cache_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct HistoryPlan {
    pub retention: Option<Duration>,
    pub disk_budget_bytes: Option<u64>,
    pub flush_after: Duration,
    pub upkeep_every: Duration,
    pub query_memory_bytes: u64,
    pub query_timeout: Duration,
    pub query_rows_max: usize,
    pub queries_max: usize,
    pub searches_max: usize,
    pub tail_bytes_max: u64,
    pub footer_cache_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct ServePlan {
    pub bind: SocketAddr,
    pub allow_public: bool,
    pub cors_origins: Vec<String>,
    pub tls: Option<(PathBuf, PathBuf)>,
    pub keys: Vec<KeyPlan>,
    pub body_bytes_max: u64,
    pub bodies_bytes_max: u64,
    pub request_timeout: Duration,
    pub header_timeout: Duration,
    pub ws_clients_max: usize,
    pub sse_clients_max: usize,
    pub connections_max: usize,
    pub requests_max: usize,
    pub ws_subscriptions_max: usize,
    pub ws_buffer_bytes_max: u64,
    pub ring_bytes_max: u64,
}

/// Never printed: Debug hides the secret.
#[derive(Clone)]
pub struct KeyPlan {
    pub name: String,
    pub scopes: Vec<String>,
    pub secret: String,
}

impl std::fmt::Debug for KeyPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPlan").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

pub const PARTITIONS_MAX: u32 = 1024;

const RETENTION_EVERY: Duration = Duration::from_secs(10);
const UPKEEP_EVERY: Duration = Duration::from_secs(30);

impl Checked {
    pub fn new(written: &Written) -> Result<Self> {
        let is_captured = |s: &written::SourceSection| matches!(s.r#type.as_str(), "postgres" | "mysql");
        let captures = written.source.iter().filter(|(_, s)| is_captured(s));
        let mut captures = captures.map(|(name, s)| CapturePlan::new(name, s)).collect::<Result<Vec<_>>>()?;
        let streams = written.stream.iter().map(|(name, s)| stream(name, s, &captures)).collect::<Result<Vec<_>>>()?;
        for origin in streams.iter().filter_map(|s| s.from.as_ref()) {
            for capture in captures.iter_mut().filter(|c| c.name == origin.source) {
                capture.streamed.insert(origin.table.clone());
            }
        }
        let zone_of = |stream: &str| {
            streams.iter().find(|s| s.schema.stream.as_str() == stream).map_or_else(|| "UTC".to_owned(), |s| s.timezone.clone())
        };
        let mut checked = Self {
            log: log(&written.log)?,
            simulators: written
                .source
                .iter()
                .filter(|(_, s)| !is_captured(s))
                .map(|(name, s)| simulator(name, s))
                .collect::<Result<_>>()?,
            captures,
            streams: streams.clone(),
            summaries: written.summary.iter().map(|(name, s)| summary(name, s, zone_of)).collect::<Result<_>>()?,
            features: written.feature.iter().map(|(name, f)| FeatureSpec { name: name.clone(), ..f.clone() }).collect(),
            rules: written.rule.iter().map(|(name, r)| RuleSpec { name: name.clone(), ..r.clone() }).collect(),
            detectors: written.detector.iter().map(|(name, d)| DetectorConfig { name: name.clone(), ..d.clone() }).collect(),
            state: state(&written.state)?,
            history: history(&written.history)?,
            serve: serve(&written.serve)?,
        };
        for source in &checked.simulators {
            let (name, stream) = (&source.name, &source.stream);
            ensure!(
                checked.streams.iter().any(|s| s.schema.stream == *stream),
                "[source.{name}] feeds the stream '{stream}', which is not configured: add [stream.{stream}]"
            );
        }
        checked.streams.sort_by(|a, b| a.schema.stream.cmp(&b.schema.stream));
        Ok(checked)
    }
}

fn log(s: &written::LogSection) -> Result<LogPlan> {
    let flush_every = s.flush_every.as_deref().map_or(Ok(Duration::from_secs(1)), |t| duration("log.flush_every", t))?;
    let durability = match s.durability.as_deref().unwrap_or("fsync") {
        "fsync" => Durability::Fsync,
        "relaxed" => Durability::Relaxed { flush_every },
        other => {
            bail!("[log] durability '{other}' is not known: use fsync, or relaxed (a crash of the machine then loses the last moments)")
        }
    };
    Ok(LogPlan {
        dir: s.dir.clone().unwrap_or_else(|| PathBuf::from("data")),
        retention_time: s.retention.time.as_deref().map(|t| duration("log.retention.time", t)).transpose()?,
        retention_bytes: s.retention.bytes.as_deref().map(|t| bytes("log.retention.bytes", t)).transpose()?,
        retention_every: interval("log.retention.every", s.retention.every.as_deref(), RETENTION_EVERY)?,
        segment_bytes: s.segment.as_deref().map_or(Ok(64 << 20), |t| bytes("log.segment", t))?,
        durability,
        reserve_bytes: s.reserve.as_deref().map_or(Ok(64 << 20), |t| bytes("log.reserve", t))?,
        index_cache_bytes: s.index_cache.as_deref().map_or(Ok(64 << 20), |t| bytes("log.index_cache", t))?,
        recent_cache_bytes: s.recent_cache.as_deref().map_or(Ok(40 << 20), |t| bytes("log.recent_cache", t))?,
        file_cache_bytes: s.file_cache.as_deref().map_or(Ok(256 << 20), |t| bytes("log.file_cache", t))?,
    })
}

/// A pause between rounds of work, or a time limit: nothing of either makes sense.
fn interval(key: &str, text: Option<&str>, default: Duration) -> Result<Duration> {
    let Some(text) = text else { return Ok(default) };
    let every = duration(key, text)?;
    ensure!(!every.is_zero(), "'{key}' must be more than nothing");
    Ok(every)
}

fn simulator(name: &str, s: &written::SourceSection) -> Result<SimulatorPlan> {
    ensure!(
        s.r#type == "simulator",
        "[source.{name}] type '{}' is not known here: use postgres, mysql or simulator (HTTP ingest and files need no source)",
        s.r#type
    );
    if let Some(key) = s.capture_keys().first().copied().or_else(|| keys_written(s).first().copied()) {
        bail!("[source.{name}] {key} is a key of a captured database, not of the simulator");
    }
    let hours = s.hours.as_deref().unwrap_or("always");
    ensure!(matches!(hours, "always" | "session"), "[source.{name}] hours '{hours}' is not known: use always or session");
    let stream = s.stream.as_deref().with_context(|| format!("[source.{name}] needs stream = \"…\": the stream it feeds"))?;
    Ok(SimulatorPlan {
        name: name.to_owned(),
        stream: topic("source", name, stream)?,
        start: s.start.unwrap_or(true),
        rate: s.rate.unwrap_or(100.0),
        seed: s.seed,
        symbols: s.symbols.clone().unwrap_or_default(),
        anomaly_share: s.anomaly_share.unwrap_or(0.002),
        always_open: hours == "always",
    })
}

fn stream(name: &str, s: &written::StreamSection, captures: &[CapturePlan]) -> Result<StreamPlan> {
    let of = |key: &str| format!("{name}.{key}");
    let topic = topic("stream", name, name)?;
    let scale = |column| s.decimals.get(column).copied().unwrap_or(TradeDecimals::SCALE_MAX);
    let decimals = TradeDecimals { price_scale: scale("price"), quantity_scale: scale("quantity") };
    for (column, scale) in &s.decimals {
        ensure!(
            matches!(column.as_str(), "price" | "quantity"),
            "[stream.{name}] decimals are set for price and quantity, not for '{column}': give it a type in types"
        );
        ensure!(
            (0..=TradeDecimals::SCALE_MAX).contains(scale),
            "[stream.{name}] decimals of {column} must be 0 to {}",
            TradeDecimals::SCALE_MAX
        );
    }
    let partitions = s.partitions.unwrap_or(2);
    ensure!((1..=PARTITIONS_MAX).contains(&partitions), "[stream.{name}] partitions must be 1 to {PARTITIONS_MAX}");
    let timezone = s.timezone.clone().unwrap_or_else(|| "UTC".to_owned());
    check_timezone(name, &timezone)?;
    let out_of_orderness = s.out_of_orderness.as_deref().map_or(Ok(Duration::from_secs(5)), |t| duration(&of("out_of_orderness"), t))?;
    let allowed_lateness = s.allowed_lateness.as_deref().map_or(Ok(Duration::from_secs(3600)), |t| duration(&of("allowed_lateness"), t))?;
    let idle_after = match s.idle_after.as_deref() {
        Some("never") => None,
        text => Some(text.map_or(Ok(Duration::from_secs(10)), |t| duration(&of("idle_after"), t))?),
    };
    let schema = Arc::new(schema(name, topic, s, decimals)?);
    ensure!(s.bars.is_empty() || schema.kind == StreamKind::Trade, "[stream.{name}] has bars, which need kind = \"trade\"");
    let dedupe = s.dedupe.as_ref().map(|d| dedupe(name, d, &schema)).transpose()?;
    let input =
        InputPlan { columns: s.columns.clone(), constants: s.constants.clone(), time_unit: time_unit(name, s.time_unit.as_deref())? };
    for column in input.columns.keys().chain(input.constants.keys()) {
        schema.column(column)?;
    }
    let from = Origin::parse(name, s, schema.kind, captures)?;
    Ok(StreamPlan {
        schema,
        from,
        partitions,
        bars: s.bars.clone(),
        timezone,
        input,
        out_of_orderness,
        allowed_lateness,
        idle_after,
        dedupe,
    })
}

fn schema(name: &str, topic: Topic, s: &written::StreamSection, decimals: TradeDecimals) -> Result<StreamSchema> {
    let mut extra = Vec::new();
    for (column, kind) in &s.types {
        let (kind, optional) = kind.strip_suffix('?').map_or((kind.as_str(), false), |k| (k, true));
        let kind = ColumnType::parse(kind).with_context(|| format!("[stream.{name}] types.{column}"))?;
        extra.push(if optional { Column::optional(column, kind) } else { Column::required(column, kind) });
    }
    match s.kind.as_deref().unwrap_or("trade") {
        "trade" => {
            let given = trade_columns(decimals);
            for (key, role) in [(&s.key, "symbol"), (&s.event_time, "event_time")] {
                ensure!(
                    key.as_deref().is_none_or(|k| k == role),
                    "[stream.{name}] the key and event time of trades are symbol and event_time: map input columns to them with columns = {{ {role} = \"…\" }}"
                );
            }
            ensure!(
                !extra.iter().any(|e| given.iter().any(|g| g.name == e.name)),
                "[stream.{name}] types name a column that every trade has: use decimals for price and quantity"
            );
            Ok(trades(topic, decimals, extra)?)
        }
        "plain" => {
            let need = |v: &Option<String>, what: &str| {
                v.clone().with_context(|| format!("[stream.{name}] needs {what} = \"…\": the name of a column in types"))
            };
            Ok(StreamSchema::new(topic, StreamKind::Plain, extra, &need(&s.key, "key")?, &need(&s.event_time, "event_time")?)?)
        }
        other => bail!("[stream.{name}] kind '{other}' is not known: use trade or plain"),
    }
}

fn dedupe(name: &str, d: &written::DedupeSection, schema: &StreamSchema) -> Result<DedupePlan> {
    ensure!(
        !d.columns.is_empty(),
        "[stream.{name}] dedupe needs columns: the natural key, such as [\"symbol\", \"event_time\", \"trade_id\"]"
    );
    for column in &d.columns {
        schema.column(column)?;
    }
    let horizon = d.horizon.as_deref().map_or(Ok(Duration::from_secs(3600)), |t| duration(&format!("{name}.dedupe.horizon"), t))?;
    Ok(DedupePlan { columns: d.columns.clone(), horizon, entries_max: d.entries_max.unwrap_or(10_000_000) })
}

fn time_unit(name: &str, text: Option<&str>) -> Result<EpochUnit> {
    Ok(match text.unwrap_or("ms") {
        "s" => EpochUnit::Seconds,
        "ms" => EpochUnit::Millis,
        "us" => EpochUnit::Micros,
        "ns" => EpochUnit::Nanos,
        other => bail!("[stream.{name}] time_unit '{other}' is not known: use s, ms, us or ns"),
    })
}

fn check_timezone(stream: &str, name: &str) -> Result<()> {
    if jiff::tz::TimeZone::get(name).is_ok() {
        return Ok(());
    }
    let known: Vec<String> = jiff::tz::db().available().map(|n| n.as_str().to_owned()).collect();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => bail!("[stream.{stream}] time zone '{name}' is not known: did you mean '{near}'?"),
        None => bail!("[stream.{stream}] time zone '{name}' is not known: use an IANA name such as Asia/Seoul"),
    }
}

/// The zone of a summary's tumbling windows is that of its stream, which `Checked::new` fills in.
fn summary(name: &str, s: &written::SummarySection, zone_of: impl Fn(&str) -> String) -> Result<SummaryPlan> {
    let of = |key: &str| format!("summary.{name}.{key}");
    let us = |key: &str, text: &str| duration(&of(key), text).map(|d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    let w = &s.window;
    let window = match (&w.tumbling, &w.hopping, &w.sliding, &w.session) {
        (Some(interval), None, None, None) => WindowSpec::Tumbling { interval: interval.clone(), zone: zone_of(&s.stream) },
        (None, Some(size), None, None) => {
            let every = w.every.as_deref().with_context(|| format!("[summary.{name}] a hopping window needs every = \"…\""))?;
            WindowSpec::Hopping { size_us: us("hopping", size)?, hop_us: us("every", every)? }
        }
        (None, None, Some(range), None) => WindowSpec::Sliding { range_us: us("sliding", range)? },
        (None, None, None, Some(gap)) => WindowSpec::Session { gap_us: us("session", gap)? },
        _ => bail!(
            "[summary.{name}] needs one window: {{ tumbling = \"5m\" }}, {{ hopping = \"1m\", every = \"30s\" }}, {{ sliding = \"1m\" }} or {{ session = \"10m\" }}"
        ),
    };
    ensure!(!s.aggregates.is_empty(), "[summary.{name}] needs aggregates, such as {{ total = \"sum(quantity)\" }}");
    Ok(SummaryPlan {
        name: name.to_owned(),
        stream: topic("summary", name, &s.stream)?,
        group_by: s.group_by.clone(),
        window,
        aggregates: s.aggregates.iter().map(|(column, text)| aggregate(name, column, text)).collect::<Result<_>>()?,
        allowed_lateness: s.allowed_lateness.as_deref().map_or(Ok(Duration::from_secs(3600)), |t| duration(&of("allowed_lateness"), t))?,
    })
}

/// `count`, `sum(quantity)`.
fn aggregate(summary: &str, column: &str, text: &str) -> Result<AggregateSpec> {
    let (function, argument) = match text.split_once('(') {
        Some((function, rest)) => (
            function,
            Some(
                rest.strip_suffix(')')
                    .with_context(|| format!("[summary.{summary}] {column} = '{text}' lacks its closing bracket"))?
                    .trim()
                    .to_owned(),
            ),
        ),
        None => (text, None),
    };
    let known = || Function::ALL.iter().map(|(name, _)| *name);
    let unknown = || match nearest(function.trim(), known()) {
        Some(near) => format!("[summary.{summary}] {column}: function '{function}' is not known: did you mean '{near}'?"),
        None => format!("[summary.{summary}] {column}: function '{function}' is not known: use {}", known().collect::<Vec<_>>().join(", ")),
    };
    let function = Function::ALL.iter().find(|(name, _)| *name == function.trim()).map(|(_, f)| *f).with_context(unknown)?;
    ensure!(argument.is_some() || function == Function::Count, "[summary.{summary}] {column} = '{text}' needs a column: {text}(quantity)");
    Ok(AggregateSpec { name: column.to_owned(), function, column: argument.filter(|a| a != "*") })
}

fn state(s: &written::StateSection) -> Result<StatePlan> {
    Ok(StatePlan {
        hot_keys_max: s.hot_keys_max.unwrap_or(25_000),
        snapshot_every: s.snapshot_every.as_deref().map_or(Ok(Duration::from_secs(10)), |t| duration("state.snapshot_every", t))?,
        dirty_entries_max: s.dirty_entries_max.unwrap_or(50_000),
        cache_bytes: s.cache.as_deref().map_or(Ok(32 << 20), |t| bytes("state.cache", t))?,
    })
}

fn history(s: &written::HistorySection) -> Result<HistoryPlan> {
    Ok(HistoryPlan {
        retention: s.retention.as_deref().map(|t| duration("history.retention", t)).transpose()?,
        disk_budget_bytes: s.disk_budget.as_deref().map(|t| bytes("history.disk_budget", t)).transpose()?,
        flush_after: s.flush_after.as_deref().map_or(Ok(Duration::from_secs(60)), |t| duration("history.flush_after", t))?,
        upkeep_every: interval("history.upkeep_every", s.upkeep_every.as_deref(), UPKEEP_EVERY)?,
        query_memory_bytes: s.query_memory.as_deref().map_or(Ok(512 << 20), |t| bytes("history.query_memory", t))?,
        query_timeout: s.query_timeout.as_deref().map_or(Ok(Duration::from_secs(30)), |t| duration("history.query_timeout", t))?,
        query_rows_max: s.query_rows_max.unwrap_or(1_000_000),
        queries_max: at_least_one("history.queries_max", s.queries_max, 4)?,
        searches_max: at_least_one("history.searches_max", s.searches_max, 8)?,
        tail_bytes_max: s.tail.as_deref().map_or(Ok(64 << 20), |t| bytes("history.tail", t))?,
        footer_cache_bytes: s.footer_cache.as_deref().map_or(Ok(64 << 20), |t| bytes("history.footer_cache", t))?,
    })
}

fn serve(s: &written::ServeSection) -> Result<ServePlan> {
    let bind = s.bind.as_deref().unwrap_or("127.0.0.1:8080");
    let mut keys = Vec::new();
    for key in &s.keys {
        let secret = secret(&format!("serve.keys.{}", key.name), &key.key)?;
        keys.push(KeyPlan { name: key.name.clone(), scopes: key.scopes.clone(), secret });
    }
    Ok(ServePlan {
        bind: bind.parse().with_context(|| format!("[serve] bind '{bind}' is not an address and port, such as 127.0.0.1:8080"))?,
        allow_public: s.allow_public,
        cors_origins: s.cors_origins.clone(),
        tls: s.tls.as_ref().map(|t| (t.cert.clone(), t.key.clone())),
        keys,
        body_bytes_max: s.body_bytes_max.as_deref().map_or(Ok(16 << 20), |t| bytes("serve.body_bytes_max", t))?,
        bodies_bytes_max: s.bodies_bytes_max.as_deref().map_or(Ok(64 << 20), |t| bytes("serve.bodies_bytes_max", t))?,
        request_timeout: interval("serve.request_timeout", s.request_timeout.as_deref(), Duration::from_secs(30))?,
        header_timeout: interval("serve.header_timeout", s.header_timeout.as_deref(), Duration::from_secs(10))?,
        ws_clients_max: s.ws_clients_max.unwrap_or(2_000),
        sse_clients_max: s.sse_clients_max.unwrap_or(500),
        connections_max: at_least_one("serve.connections_max", s.connections_max, 4096)?,
        requests_max: at_least_one("serve.requests_max", s.requests_max, 256)?,
        ws_subscriptions_max: at_least_one("serve.ws_subscriptions_max", s.ws_subscriptions_max, 100)?,
        ws_buffer_bytes_max: s.ws_buffer.as_deref().map_or(Ok(1 << 20), |t| bytes("serve.ws_buffer", t))?,
        ring_bytes_max: s.live_ring.as_deref().map_or(Ok(8 << 20), |t| bytes("serve.live_ring", t))?,
    })
}

fn at_least_one(key: &str, given: Option<usize>, default: usize) -> Result<usize> {
    ensure!(given != Some(0), "'{key}' must be 1 or more");
    Ok(given.unwrap_or(default))
}

fn topic(section: &str, name: &str, stream: &str) -> Result<Topic> {
    ensure!(!stream.is_empty(), "[{section}.{name}] needs stream = \"…\"");
    Topic::new(stream).with_context(|| format!("[{section}.{name}]"))
}
