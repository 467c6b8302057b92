//! A captured database as it is configured. What its sources default to by themselves (sizes of batches, time limits) stands with them.

use super::filtered::FilterPlan;
use super::units::{duration, reference};
use super::written::{SourceSection, StreamSection};
use anyhow::{Context, Result, bail, ensure};
use mulgil_capture::mysql::settings::{GtidMode, OnStale};
use mulgil_capture::snapshot_mode::SnapshotMode;
use mulgil_capture::typed::{Changes, OnBreak};
use mulgil_model::ids::Topic;
use mulgil_model::schema::StreamKind;
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest name of a source: it is a part of its topics' names, of its slot's and of its owner's.
const NAME_BYTES_MAX: usize = 40;

/// PostgreSQL cuts longer names (NAMEDATALEN - 1); a slot's name has a-z, 0-9 and `_` only ("Replication Slots").
const SLOT_BYTES_MAX: usize = 63;

#[derive(Debug, Clone)]
pub struct CapturePlan {
    pub name: String,
    pub database: Database,
    /// Where its address stands: `env:…` or `file:…`. Looked up when it is opened, so that reading the log does not need it.
    pub url: String,
    pub tables: Vec<String>,
    /// Those of them that streams are made of: what is computed from their rows wants them in order.
    pub streamed: BTreeSet<String>,
    pub snapshot: SnapshotMode,
    /// None: none are sent.
    pub heartbeat: Option<Duration>,
    pub signals: Option<String>,
    /// The generator may put trades into its tables.
    pub allow_generate: bool,
    pub filter: FilterPlan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    Postgres { slot: String, publication: String },
    Mysql { server_id: Option<u32>, gtid: GtidMode, on_stale: OnStale },
}

/// Where a stream's rows come from: a table of a captured database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub source: String,
    /// `public.stock_trades`
    pub table: String,
    pub changes: Changes,
    pub on_break: OnBreak,
}

impl CapturePlan {
    pub fn new(name: &str, s: &SourceSection) -> Result<Self> {
        let section = || format!("[source.{name}]");
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        ensure!(
            !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_name),
            "{} is not a name for a captured database: use 1 to {NAME_BYTES_MAX} of a-z, 0-9, '_' and '-'",
            section()
        );
        if let Some(key) = s.simulator_keys().first() {
            bail!("{} {key} is a key of the simulator, not of a captured database", section());
        }
        let url =
            s.url.clone().with_context(|| format!("{} needs url = \"env:NAME\" or \"file:PATH\": the database's address", section()))?;
        reference(&format!("source.{name}.url"), &url)?;
        let tables = s.tables.clone().unwrap_or_default();
        ensure!(
            !tables.is_empty(),
            "{} needs tables = [\"…\"]: which to capture, such as \"public.stock_trades\" or \"public.*\"",
            section()
        );
        let heartbeat = match s.heartbeat.as_deref() {
            Some("never") => None,
            text => Some(text.map_or(Ok(HEARTBEAT), |t| duration(&format!("source.{name}.heartbeat"), t))?),
        };
        ensure!(
            heartbeat.is_none_or(|h| h >= HEARTBEAT_MIN),
            "{} heartbeat must be at least {} ms, or never",
            section(),
            HEARTBEAT_MIN.as_millis()
        );
        let plan = Self {
            name: name.to_owned(),
            database: database(name, s)?,
            url,
            tables,
            streamed: BTreeSet::new(),
            snapshot: snapshot(name, s.snapshot.as_deref())?,
            heartbeat,
            signals: s.signals.clone(),
            allow_generate: s.allow_generate.unwrap_or(false),
            filter: FilterPlan::new(name, s)?,
        };
        for table in &plan.tables {
            ensure!(table.contains('.'), "{} tables: '{table}' has no schema: write {}", section(), plan.example());
        }
        Ok(plan)
    }

    fn example(&self) -> &'static str {
        match self.database {
            Database::Postgres { .. } => "\"public.stock_trades\"",
            Database::Mysql { .. } => "\"shop.orders\" (database and table)",
        }
    }

    /// The topic of a table's changes: `exchange.public.stock_trades`. What a topic's name cannot have becomes `_`; two tables that would
    /// share a topic are told apart when they are met (see `capture::topics`).
    pub fn topic(source: &str, table: &str) -> Result<Topic> {
        let plain = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-') => c,
            _ => '_',
        };
        let name = format!("{source}.{}", table.chars().map(plain).collect::<String>());
        Topic::new(&name).with_context(|| format!("the changes of {table} need a topic"))
    }
}

impl Origin {
    /// `exchange.public.stock_trades` → `exchange` and `public.stock_trades`; the source must be one of `captures`.
    pub fn parse(stream: &str, s: &StreamSection, kind: StreamKind, captures: &[CapturePlan]) -> Result<Option<Self>> {
        let Some(from) = s.from.as_deref() else {
            let key = s.changes.as_ref().map(|_| "changes").or_else(|| s.on_break.as_ref().map(|_| "on_break"));
            return match key {
                Some(key) => bail!("[stream.{stream}] {key} is about a captured table: name it with from"),
                None => Ok(None),
            };
        };
        let (source, table) = from.split_once('.').with_context(|| {
            format!(
                "[stream.{stream}] from '{from}' names no table: write \"SOURCE.SCHEMA.TABLE\", such as \"exchange.public.stock_trades\""
            )
        })?;
        let known: Vec<&str> = captures.iter().map(|c| c.name.as_str()).collect();
        ensure!(
            known.contains(&source),
            "[stream.{stream}] from '{from}': there is no captured database '{source}': {}",
            if known.is_empty() { format!("add [source.{source}]") } else { format!("there are {}", known.join(", ")) }
        );
        ensure!(table.contains('.'), "[stream.{stream}] from '{from}' has no schema: write \"{source}.SCHEMA.{table}\"");
        let changes = match s.changes.as_deref() {
            None => Changes::default_of(kind),
            Some(text) => Changes::parse(text)
                .with_context(|| format!("[stream.{stream}] changes '{text}' is not known: use inserts, upserts or all"))?,
        };
        let on_break = match s.on_break.as_deref().unwrap_or("dead_letters") {
            "dead_letters" => OnBreak::DeadLetter,
            "stop" => OnBreak::Stop,
            other => bail!("[stream.{stream}] on_break '{other}' is not known: use dead_letters, or stop (which stops the source)"),
        };
        Ok(Some(Self { source: source.to_owned(), table: table.to_owned(), changes, on_break }))
    }
}

const HEARTBEAT: Duration = Duration::from_secs(10);
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

fn database(name: &str, s: &SourceSection) -> Result<Database> {
    let refuse = |keys: &[&str], of: &str| match keys.first() {
        Some(key) => bail!("[source.{name}] {key} is a key of {of}"),
        None => Ok(()),
    };
    match s.r#type.as_str() {
        "postgres" => {
            refuse(&s.mysql_keys(), "type = \"mysql\"")?;
            let given = format!("mulgil_{}", name.replace('-', "_"));
            let slot = s.slot.clone().unwrap_or_else(|| given.clone());
            let is_slot = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            ensure!(
                !slot.is_empty() && slot.len() <= SLOT_BYTES_MAX && slot.bytes().all(is_slot),
                "[source.{name}] slot '{slot}' is not a name for a slot: use 1 to {SLOT_BYTES_MAX} of a-z, 0-9 and '_'"
            );
            let publication = s.publication.clone().unwrap_or(given);
            ensure!(
                !publication.is_empty() && publication.len() <= SLOT_BYTES_MAX,
                "[source.{name}] publication must have 1 to {SLOT_BYTES_MAX} bytes"
            );
            Ok(Database::Postgres { slot, publication })
        }
        _ => {
            refuse(&s.postgres_keys(), "type = \"postgres\"")?;
            let gtid = match s.gtid.as_deref().unwrap_or("auto") {
                "auto" => GtidMode::Auto,
                "on" => GtidMode::On,
                "off" => GtidMode::Off,
                other => bail!("[source.{name}] gtid '{other}' is not known: use auto, on or off"),
            };
            let on_stale = match s.on_stale.as_deref().unwrap_or("tell") {
                "tell" => OnStale::Tell,
                "stop" => OnStale::Stop,
                other => bail!("[source.{name}] on_stale '{other}' is not known: use tell, or stop (which stops the source)"),
            };
            ensure!(s.server_id != Some(0), "[source.{name}] server_id must not be 0: choose one that no other replica of the server has");
            Ok(Database::Mysql { server_id: s.server_id, gtid, on_stale })
        }
    }
}

fn snapshot(name: &str, mode: Option<&str>) -> Result<SnapshotMode> {
    let word = mode.unwrap_or("initial");
    let known = SnapshotMode::parse(word);
    known.with_context(|| {
        format!("[source.{name}] snapshot '{word}' is not known: use initial, always, initial_only, no_data or when_needed")
    })
}
