//! What a PostgreSQL source is told: validated, with the defaults in one place.

use super::address::Address;
use super::catalog::Relation;
use super::decoder::Bounds;
use super::snapshot::SnapshotSettings;
use super::streams::Spill;
use crate::snapshot_mode::SnapshotMode;
use crate::source::SourceError;
use crate::table::is_like;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// PostgreSQL's `NAMEDATALEN` less its zero byte.
const NAME_BYTES_MAX: usize = 63;

#[derive(Debug, Clone)]
pub struct PostgresSettings {
    pub address: Address,
    pub slot: String,
    pub publication: String,
    /// `public.stock_trades`, or with `*` for any characters: `public.*`; empty: whatever the publication has.
    pub tables: Vec<String>,
    /// What the patterns among them stand for, as it was found in the catalog last ([`Self::resolve`]).
    pub(super) matched: Vec<(String, String)>,
    /// Which of those that are named one by one were captured and are no more, as it was found last.
    pub(super) dropped: Vec<(String, String)>,
    /// Make the slot and the publication where they do not exist, and add tables that the publication lacks.
    pub manages: bool,
    /// Make the slot so that it follows a failover (PostgreSQL 17).
    pub failover: bool,
    pub bounds: Bounds,
    pub spill: Spill,
    /// An idle database is written to this often, so that its slot moves on. `None`: never.
    pub heartbeat: Option<Duration>,
    /// A server that is not heard of for so long, although it was asked, is taken for gone.
    pub silence: Duration,
    /// Whether the rows that are there already are read.
    pub mode: SnapshotMode,
    pub snapshot: SnapshotSettings,
    /// Rows put into this table are words to the source: `public.mulgil_signal`.
    pub signal_table: Option<String>,
    /// Waits the moment in which more of a transaction comes, when a part of it has come: the server sends each row by itself, and a reader that
    /// waits for each is woken a hundred times by a hundred rows. Shorter than what tokio's clock can wait, so the binary hands it in.
    pub gather: Option<fn()>,
    /// Set once the server has failed inside while it sent a transaction that had not committed: from then on it sends none before its commit.
    /// Whoever opens the source again hands in the same.
    pub waits_for_commits: Arc<AtomicBool>,
}

impl PostgresSettings {
    pub const ROWS_MAX: usize = 8_192;
    pub const BYTES_MAX: usize = 8 << 20;
    pub const MEMORY_BYTES_MAX: usize = 16 << 20;
    pub const HEARTBEAT: Duration = Duration::from_secs(10);
    pub const SILENCE: Duration = Duration::from_secs(60);

    /// With the defaults, and the source's name for slot and publication.
    pub fn new(name: &str, address: Address, spill: Spill) -> Self {
        let own = format!("mulgil_{}", name.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        Self {
            address,
            slot: own.clone(),
            publication: own,
            tables: Vec::new(),
            matched: Vec::new(),
            dropped: Vec::new(),
            manages: true,
            failover: true,
            bounds: Bounds { rows_max: Self::ROWS_MAX, bytes_max: Self::BYTES_MAX },
            spill,
            heartbeat: Some(Self::HEARTBEAT),
            silence: Self::SILENCE,
            mode: SnapshotMode::default(),
            snapshot: SnapshotSettings::default(),
            signal_table: None,
            gather: None,
            waits_for_commits: Arc::default(),
        }
    }

    pub fn validate(&self) -> Result<(), SourceError> {
        let is_slot_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.slot.is_empty() || self.slot.len() > NAME_BYTES_MAX || !self.slot.chars().all(is_slot_name) {
            return Err(SourceError::config(format!("the slot name {:?} must have 1 to 63 of a-z, 0-9 and _", self.slot)));
        }
        if self.publication.is_empty() || self.publication.len() > NAME_BYTES_MAX || self.publication.contains('\0') {
            return Err(SourceError::config("the publication's name must have 1 to 63 bytes"));
        }
        if let Some(table) = self.tables.iter().find(|t| parts(t).is_none()) {
            return Err(SourceError::config(format!("the table {table:?} must be written with its schema: public.{table}")));
        }
        if self.bounds.rows_max == 0 || self.silence < Duration::from_secs(1) {
            return Err(SourceError::config("a batch must have room for one row, and the server one second to answer"));
        }
        Ok(())
    }

    /// The tables as schema and name, those that patterns stand for too.
    pub fn table_names(&self) -> Vec<(String, String)> {
        let named: Vec<_> = self.named().into_iter().filter(|named| !self.dropped.contains(named)).collect();
        let more = self.matched.iter().filter(|m| !named.contains(m)).cloned().collect::<Vec<_>>();
        named.into_iter().chain(more).collect()
    }

    /// Those that are named one by one: they must be there.
    pub fn named(&self) -> Vec<(String, String)> {
        let named = self.tables.iter().filter(|t| !is_pattern(t)).filter_map(|t| parts(t));
        named.map(|(s, t)| (s.to_owned(), t.to_owned())).collect()
    }

    /// Captured, and only because of a pattern.
    pub(super) fn is_only_matched(&self, relation: &Relation) -> bool {
        self.has_patterns() && !self.named().iter().any(|(s, t)| **s == *relation.schema && **t == *relation.name)
    }

    pub fn has_patterns(&self) -> bool {
        self.tables.iter().any(|t| is_pattern(t))
    }

    /// Whether a table is captured: by its name, by a pattern, or because all are that the publication has.
    pub fn captures(&self, schema: &str, table: &str) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|wanted| is_meant(wanted, schema, table))
    }
}

pub(super) fn is_pattern(table: &str) -> bool {
    table.contains('*')
}

/// By its name, or by a pattern whose parts are each any characters where a star is.
pub(super) fn is_meant(wanted: &str, schema: &str, table: &str) -> bool {
    parts(wanted).is_some_and(|(s, t)| is_like(schema, s) && is_like(table, t))
}

/// Names are written as they are, without quotes: `public.Order Items`.
fn parts(table: &str) -> Option<(&str, &str)> {
    table.split_once('.').filter(|(schema, name)| !schema.is_empty() && !name.is_empty())
}
