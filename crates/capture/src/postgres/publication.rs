//! The publication: what the server sends.

use super::catalog::{Catalog, Relation, Selection, Shape};
use super::settings::PostgresSettings;
use super::snapshot::Wanted;
use super::source::names;
use super::stream::Prepared;
use super::wire::{Connection, TextRow, WireError, identifier, literal};
use crate::source::SourceError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where TimescaleDB makes chunks. Publishing the schema publishes those that are made later, too.
const CHUNK_SCHEMA: &str = "_timescaledb_internal";
/// The version of PostgreSQL that publishes schemas.
const CHUNK_SCHEMA_SINCE: u32 = 15;
/// From this version on pgoutput passes over what was changed while the publication was away: 18.6 warns "skipped loading publication" in the
/// server's log, where 17.11 refuses to decode.
const MISSING_IS_SKIPPED_SINCE: u32 = 18;

/// Stored with every batch: the captured tables that the publication has. A table of them that it has no more has changed unseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    name: String,
    tables: BTreeSet<String>,
    /// The publication's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    oid: Option<u32>,
    /// Of those that a pattern means, to know one that was made anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    oids: BTreeMap<String, u32>,
    /// Of those that are named one by one, to know one that was dropped from one that was renamed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    named: BTreeMap<String, u32>,
}

/// The publication is as it should be.
pub struct Ensured {
    pub noted: Noted,
    /// Tables that a pattern means and that have come since the last time: the stream has them from now on, and not what they had before.
    pub anew: Vec<(String, String)>,
    /// Tables that are named one by one, were captured, and have been dropped since.
    pub dropped: Vec<(String, String)>,
}

fn name_of(relation: &Relation) -> String {
    format!("{}.{}", relation.schema, relation.name)
}

impl Noted {
    /// All that was published is so still.
    fn compare(
        &self,
        publication: Option<&Publication>,
        catalog: &Catalog,
        settings: &PostgresSettings,
        major: u32,
    ) -> Result<(), SourceError> {
        if self.name != settings.publication {
            return Ok(());
        }
        let (name, slot) = (&self.name, &settings.slot);
        let anew = format!("drop the slot {slot} and reset the stored position of this source, so that it begins anew with a snapshot");
        let Some(publication) = publication else {
            let hole = format!("the publication {name} is gone: what was changed since cannot be decoded, also if it is made again");
            return Err(SourceError::refused(format!("{hole}. Choose: {anew}")));
        };
        if major >= MISSING_IS_SKIPPED_SINCE && self.oid.is_some_and(|oid| oid != publication.oid) {
            let hole = format!("the publication {name} was dropped and made again: what was changed in between was not sent");
            return Err(SourceError::refused(format!("{hole}. Choose: {anew}")));
        }
        // A table that became a hypertable has its rows in chunks since.
        let is_sent = |r: &Relation| publication.has(r) && publication.missing_chunks(r) == 0;
        let is_gone = |r: &&Relation| self.tables.contains(&name_of(r)) && !is_sent(r) && !self.is_another(r);
        let gone: Vec<&Relation> = catalog.relations.iter().filter(is_gone).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let names = gone.iter().copied().map(name_of).collect::<Vec<_>>().join(", ");
        let add = if gone.iter().all(|r| publication.has(r)) { add_chunks_statement(name, major) } else { add_statement(name, &gone) };
        Err(SourceError::refused(format!(
            "the publication {name} no longer has {names} (taken out of it, dropped and made again, or in chunks since): what was changed there was not \
             sent. Choose: put it back ({add}), start again, and ask for a snapshot of it; or {anew}"
        )))
    }

    /// A table that a pattern means was dropped, and this one has its name.
    fn is_another(&self, relation: &Relation) -> bool {
        self.oids.get(&name_of(relation)).is_some_and(|oid| *oid != relation.oid)
    }

    fn now(settings: &PostgresSettings, relations: &[&Relation], publication: Option<&Publication>) -> Self {
        let oids = |is_named| relations.iter().filter(move |r| settings.is_only_matched(r) != is_named).map(|r| (name_of(r), r.oid));
        Self {
            name: settings.publication.clone(),
            oid: publication.map(|p| p.oid),
            tables: relations.iter().copied().map(name_of).collect(),
            oids: oids(false).collect(),
            named: oids(true).collect(),
        }
    }

    /// Dropped tables stay noted: one that is made again under the name of one of them has changed unseen, until it is published again.
    fn with_dropped(mut self, before: Option<&Self>, dropped: &[(String, String)]) -> Self {
        for name in dropped.iter().map(|(schema, name)| format!("{schema}.{name}")) {
            if let Some(oid) = before.and_then(|noted| noted.named.get(&name)) {
                self.named.insert(name.clone(), *oid);
            }
            self.tables.insert(name);
        }
        self
    }
}

/// What changes with the publication, cheap to ask for again and again; `None`: there is none.
pub async fn fingerprint(connection: &mut Connection, name: &str) -> Result<Option<String>, WireError> {
    // Publishing whole schemas came with version 15.
    let schemas = match connection.server_major() {
        ..15 => "0",
        _ => "(SELECT coalesce(sum(n.oid::bigint), 0) FROM pg_publication_namespace n WHERE n.pnpubid = p.oid)",
    };
    let sql = format!(
        "SELECT concat_ws(' ', p.oid, p.xmin, {schemas}, (SELECT coalesce(sum(r.oid::bigint), 0) FROM pg_publication_rel r WHERE r.prpubid = p.oid)) \
         FROM pg_publication p WHERE p.pubname = {}",
        literal(name)
    );
    let rows = connection.query(&sql).await?;
    Ok(rows.first().and_then(|row| row.first()?.as_deref()).map(|text| String::from_utf8_lossy(text).into_owned()))
}

/// A row of `pg_publication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub oid: u32,
    pub has_all_tables: bool,
    /// Partitions are sent under their root's name.
    pub via_root: bool,
    /// Operations that are not sent.
    pub lacks: Vec<&'static str>,
    /// `schema.table` of each table, with partitions under the name in which they are sent.
    pub tables: BTreeSet<String>,
}

impl Publication {
    pub async fn read(connection: &mut Connection, name: &str) -> Result<Option<Self>, WireError> {
        let name = literal(name);
        let head = "SELECT puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate, oid FROM pg_publication WHERE pubname =";
        let rows = connection.query(&format!("{head} {name}")).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let is = |at: usize| row.get(at).and_then(Option::as_deref) == Some(b"t");
        let operations = ["insert", "update", "delete", "truncate"];
        let lacks = operations.into_iter().enumerate().filter(|(at, _)| !is(at + 2)).map(|(_, o)| o).collect();
        let listed = connection.query(&format!("SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = {name}")).await?;
        let text = |value: &Option<bytes::Bytes>| String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
        let tables = listed.iter().filter_map(|r| Some(format!("{}.{}", text(r.first()?), text(r.get(1)?)))).collect();
        let oid = row.get(6).and_then(Option::as_deref).and_then(|oid| std::str::from_utf8(oid).ok()?.parse().ok());
        let oid = oid.ok_or(WireError::Protocol("a publication without an oid"))?;
        Ok(Some(Self { oid, has_all_tables: is(0), via_root: is(1), lacks, tables }))
    }

    /// Whether the table's changes are sent, a partitioned table's under whatever name.
    pub fn has(&self, relation: &Relation) -> bool {
        let is_listed = |schema: &str, name: &str| self.tables.contains(&format!("{schema}.{name}"));
        match relation.shape {
            Shape::Partitioned if !self.via_root => relation.leaves.iter().all(|l| is_listed(&l.schema, &l.name)),
            _ => is_listed(&relation.schema, &relation.name),
        }
    }

    /// As far as can be seen: from version 15 on, missing chunks tell.
    pub fn sends_new_chunks(&self, major: u32) -> bool {
        self.has_all_tables || major >= CHUNK_SCHEMA_SINCE
    }

    /// Chunks of the hypertable that are not sent.
    pub fn missing_chunks(&self, relation: &Relation) -> usize {
        if relation.shape != Shape::Hypertable {
            return 0;
        }
        relation.leaves.iter().filter(|l| !self.tables.contains(&format!("{}.{}", l.schema, l.name))).count()
    }
}

/// The statement that makes the publication. Chunks that come later are only sent with their schema, or, before version 15, with all tables.
pub fn create_statement(settings: &PostgresSettings, with_chunks: bool, major: u32) -> String {
    let name = identifier(&settings.publication);
    let what = if settings.tables.is_empty() || (with_chunks && major < CHUNK_SCHEMA_SINCE) {
        "FOR ALL TABLES".to_owned()
    } else {
        let tables = settings.table_names().iter().map(|(s, t)| quoted(s, t)).collect::<Vec<_>>().join(", ");
        let chunks = if with_chunks { format!(", TABLES IN SCHEMA {CHUNK_SCHEMA}") } else { String::new() };
        // Patterns that mean no table yet.
        if tables.is_empty() { String::new() } else { format!("FOR TABLE {tables}{chunks}") }
    };
    format!("CREATE PUBLICATION {name} {what} WITH (publish_via_partition_root = true)")
}

/// The statement that adds tables to it.
pub fn add_statement(publication: &str, relations: &[&Relation]) -> String {
    let tables = relations.iter().map(|r| quoted(&r.schema, &r.name)).collect::<Vec<_>>().join(", ");
    format!("ALTER PUBLICATION {} ADD TABLE {tables}", identifier(publication))
}

/// The statements that have the chunks of hypertables sent, those of tomorrow too. One transaction, so that no change falls between them.
pub fn add_chunks_statement(publication: &str, major: u32) -> String {
    if major >= CHUNK_SCHEMA_SINCE {
        format!("ALTER PUBLICATION {} ADD TABLES IN SCHEMA {CHUNK_SCHEMA}", identifier(publication))
    } else {
        format!(
            "BEGIN; DROP PUBLICATION {0}; CREATE PUBLICATION {0} FOR ALL TABLES WITH (publish_via_partition_root = true); COMMIT",
            identifier(publication)
        )
    }
}

fn quoted(schema: &str, table: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(table))
}

/// Makes the publication or adds what it lacks, if the settings say that it is ours to manage. Before the slot: changes from before the
/// publication was there could not be decoded. What was noted with the stored place must still be so.
pub async fn ensure(connection: &mut Connection, settings: &PostgresSettings, noted: Option<&Noted>) -> Result<Ensured, SourceError> {
    let publication = Publication::read(connection, &settings.publication).await?;
    let selection = Selection::Names(settings.table_names());
    let catalog = if settings.tables.is_empty() { Catalog::default() } else { Catalog::read(connection, &selection).await? };
    let dropped = dropped(connection, settings, noted, &catalog).await?;
    if let Some(noted) = noted {
        noted.compare(publication.as_ref(), &catalog, settings, connection.server_major())?;
    }
    let mut captured: Vec<&Relation> = catalog.relations.iter().collect();
    let is_new = |r: &Relation| noted.is_some_and(|n| settings.is_only_matched(r) && (!n.tables.contains(&name_of(r)) || n.is_another(r)));
    let has_hypertables = catalog.relations.iter().any(|r| r.shape == Shape::Hypertable);
    let major = connection.server_major();
    let Some(publication) = publication else {
        let statement = create_statement(settings, has_hypertables, major);
        if !settings.manages {
            return Err(SourceError::config(format!("the publication {} does not exist; make it: {statement}", settings.publication)));
        }
        run(connection, &statement).await?;
        let made = Publication::read(connection, &settings.publication).await?;
        let now = Noted::now(settings, &captured, made.as_ref()).with_dropped(noted, &dropped);
        return Ok(Ensured { noted: now, anew: Vec::new(), dropped });
    };
    if has_hypertables && !publication.sends_new_chunks(major) {
        let statement = add_chunks_statement(&settings.publication, major);
        return Err(SourceError::config(format!(
            "PostgreSQL {major} sends the chunks of tomorrow only with all tables, and the publication {} has but some: {statement}",
            settings.publication
        )));
    }
    // One that nobody has asked for by its name, and that we may not add, stops no other.
    for relation in catalog.relations.iter().filter(|r| is_new(r) && !publication.has(r)) {
        let added = match settings.manages {
            true => run(connection, &add_statement(&settings.publication, &[relation])).await,
            false => Err(SourceError::config(add_statement(&settings.publication, &[relation]))),
        };
        if let Err(error) = added {
            tracing::warn!(table = name_of(relation), %error, "a pattern means this table, and it cannot be published: it is left out");
            captured.retain(|r| r.oid != relation.oid);
        }
    }
    let missing: Vec<&Relation> = catalog.relations.iter().filter(|r| !publication.has(r) && !is_new(r)).collect();
    if !missing.is_empty() {
        let statement = add_statement(&settings.publication, &missing);
        if !settings.manages {
            let names = missing.iter().map(|r| format!("{}.{}", r.schema, r.name)).collect::<Vec<_>>().join(", ");
            return Err(SourceError::config(format!("the publication {} lacks {names}; add: {statement}", settings.publication)));
        }
        run(connection, &statement).await?;
    }
    if settings.manages && catalog.relations.iter().any(|r| publication.missing_chunks(r) > 0) {
        run(connection, &add_chunks_statement(&settings.publication, major)).await?;
    }
    let anew = captured.iter().filter(|r| is_new(r)).map(|r| (r.schema.to_string(), r.name.to_string())).collect();
    let now = Noted::now(settings, &captured, Some(&publication)).with_dropped(noted, &dropped);
    Ok(Ensured { noted: now, anew, dropped })
}

/// Tables that are named one by one and are not there: whoever dropped one that was captured knows that nothing more comes of it, and the others
/// go on. One that never was there is a mistake, and one that was renamed would change unseen.
async fn dropped(
    connection: &mut Connection,
    settings: &PostgresSettings,
    noted: Option<&Noted>,
    catalog: &Catalog,
) -> Result<Vec<(String, String)>, SourceError> {
    let missing: Vec<_> = settings.named().into_iter().filter(|(s, t)| catalog.relation(s, t).is_none()).collect();
    for (schema, name) in &missing {
        let table = format!("{schema}.{name}");
        let Some(oid) = noted.and_then(|noted| noted.named.get(&table)) else {
            return Err(SourceError::config(format!("table {table} does not exist, or the user of this source may not see it")));
        };
        let sql = format!(
            "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {oid}"
        );
        let rows = connection.query(&sql).await?;
        if let Some(now) = rows.first().and_then(|row| row.first()?.as_deref()) {
            let now = String::from_utf8_lossy(now);
            return Err(SourceError::refused(format!(
                "table {table} is called {now} now, and what changed there since is not captured. Choose: give it its name back; or write {now} in tables, \
                 start again, and ask for a snapshot of it"
            )));
        }
        tracing::warn!(table, "a captured table was dropped: the others go on. Take it out of tables, so that this is not told again");
    }
    Ok(missing)
}

/// What a snapshot reads: the captured tables that are published, with the columns and rows that are (both since version 15).
pub async fn wanted(prepared: &mut Prepared) -> Result<Vec<Wanted>, SourceError> {
    let (captures_all, captured) = (prepared.settings().tables.is_empty(), prepared.settings().table_names());
    let publication = prepared.settings().publication.clone();
    let connection = prepared.sql();
    let more = if connection.server_major() >= 15 { ", attnames, rowfilter" } else { "" };
    let sql =
        format!("SELECT schemaname, tablename{more} FROM pg_publication_tables WHERE pubname = {} ORDER BY 1, 2", literal(&publication));
    let rows = connection.query(&sql).await?;
    let text = |row: &TextRow, at: usize| row.get(at).and_then(Option::as_ref).map(|v| String::from_utf8_lossy(v).into_owned());
    let mut wanted: Vec<Wanted> = Vec::new();
    for row in &rows {
        let (Some(schema), Some(name)) = (text(row, 0), text(row, 1)) else { continue };
        let columns = row.get(2).and_then(Option::as_ref).map(names);
        wanted.push(Wanted { schema, name, columns, filter: text(row, 3) });
    }
    if captures_all {
        return Ok(wanted);
    }
    // A table that is published in parts, under other names, is read whole.
    let published = |(schema, name): &(String, String)| {
        let found = wanted.iter().find(|w| w.schema == *schema && w.name == *name);
        found.cloned().unwrap_or_else(|| Wanted::table(schema, name))
    };
    Ok(captured.iter().map(published).collect())
}

async fn run(connection: &mut Connection, statement: &str) -> Result<(), SourceError> {
    tracing::info!(statement, "changing the publication");
    match connection.query(statement).await {
        // Somebody else was faster, another process of ours for example.
        Err(error) if error.code() == Some("42710") => Ok(()),
        Err(error) => Err(SourceError::config(format!("{error}; run it as a user who may: {statement}"))),
        Ok(_) => Ok(()),
    }
}
