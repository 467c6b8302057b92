//! Tables that are captured by a pattern (`public.*`): which there are now, and which of them can be published.
//!
//! A table is only taken if its updates and deletes can be named: to publish one that has no replica identity would have them fail, and nobody
//! has asked for that table by its name. Looked at whenever the source is opened, and with each heartbeat.

use super::catalog::{EVERY_TABLE, TABLES_MAX, flag, text};
use super::settings::{PostgresSettings, is_meant, is_pattern};
use super::wire::{Connection, WireError, literal};

/// A table that a pattern means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub schema: String,
    pub name: String,
    /// Its updates and deletes name their rows.
    pub has_identity: bool,
    /// The publication has it, under its own name.
    pub is_published: bool,
}

impl Match {
    fn can_be_captured(&self) -> bool {
        self.has_identity || self.is_published
    }
}

/// `relreplident` as "pg_class" has it; the default is the primary key.
const HAS_IDENTITY: &str = "(c.relreplident = 'f' OR EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid \
     AND (c.relreplident = 'd' AND i.indisprimary OR c.relreplident = 'i' AND i.indisreplident)))";

/// All that the patterns mean.
pub async fn matches(connection: &mut Connection, settings: &PostgresSettings) -> Result<Vec<Match>, WireError> {
    let patterns: Vec<&String> = settings.tables.iter().filter(|t| is_pattern(t)).collect();
    if patterns.is_empty() {
        return Ok(Vec::new());
    }
    let rows = connection
        .query(&format!(
            "SELECT n.nspname, c.relname, {HAS_IDENTITY}, p.tablename IS NOT NULL FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_publication_tables p ON p.pubname = {} AND p.schemaname = n.nspname AND p.tablename = c.relname \
             WHERE {EVERY_TABLE} ORDER BY 1, 2 LIMIT {}",
            literal(&settings.publication),
            TABLES_MAX + 1
        ))
        .await?;
    if rows.len() > TABLES_MAX {
        return Err(WireError::TooLarge { what: "a list of tables", bytes: rows.len(), limit: TABLES_MAX });
    }
    let mut found = Vec::new();
    for row in &rows {
        let (schema, name) = (text(row, 0)?.to_owned(), text(row, 1)?.to_owned());
        if patterns.iter().any(|pattern| is_meant(pattern, &schema, &name)) {
            found.push(Match { schema, name, has_identity: flag(row, 2)?, is_published: flag(row, 3)? });
        }
    }
    Ok(found)
}

impl PostgresSettings {
    /// Finds out what the patterns stand for now.
    pub(super) async fn resolve(&mut self, connection: &mut Connection) -> Result<(), WireError> {
        let found = matches(connection, self).await?;
        for m in found.iter().filter(|m| !m.can_be_captured()) {
            tracing::warn!(table = %format!("{}.{}", m.schema, m.name), "a pattern means this table, and it is left out: it has no replica identity");
        }
        self.matched = found.into_iter().filter(Match::can_be_captured).map(|m| (m.schema, m.name)).collect();
        Ok(())
    }
}

/// Tables that have come since the patterns were resolved, and that nobody publishes yet.
pub async fn news(connection: &mut Connection, settings: &PostgresSettings) -> Result<Vec<String>, WireError> {
    let found = matches(connection, settings).await?;
    let is_new = |m: &&Match| m.has_identity && !m.is_published && !settings.matched.iter().any(|(s, n)| *s == m.schema && *n == m.name);
    Ok(found.iter().filter(is_new).map(|m| format!("{}.{}", m.schema, m.name)).collect())
}
