//! What PostgreSQL's catalog says of the server and of the tables that are captured: a few queries, however many tables there are.
//!
//! PostgreSQL documentation, chapter "System Catalogs": pg_class, pg_attribute, pg_index, pg_type, pg_enum, pg_inherits, pg_publication.

use super::forms::Form;
use super::snapshot::key::Order;
use super::wire::{Connection, TextRow, WireError, identifier, literal};
use crate::table::{Column, Table, TableId};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

/// More tables than this are not read at once: a selection that large is a mistake.
pub const TABLES_MAX: usize = 20_000;
/// A domain over a domain over an array …: deeper is not followed.
const TYPE_DEPTH_MAX: usize = 32;

/// The server and the settings that capture depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `150012` is 15.12.
    pub version: u32,
    pub system_identifier: u64,
    pub database: Arc<str>,
    pub is_in_recovery: bool,
    /// Where the log ends now: of what is inserted, or replayed on a standby.
    pub wal_lsn: u64,
    pub has_timescaledb: bool,
    /// `wal_level`, `max_replication_slots`, …, as `SHOW` gives them; without those that this version does not have.
    pub settings: BTreeMap<String, String>,
}

const SETTINGS: [&str; 12] = [
    "wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "max_slot_wal_keep_size",
    "wal_sender_timeout",
    "wal_keep_size",
    "logical_decoding_work_mem",
    "hot_standby_feedback",
    "server_encoding",
    "block_size",
    "wal_segment_size",
    "password_encryption",
];

/// One table that may be captured, as the catalog has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    pub oid: u32,
    pub schema: Arc<str>,
    pub name: Arc<str>,
    pub shape: Shape,
    pub replica_identity: ReplicaIdentity,
    /// All columns that are not dropped, in the order of `attnum`.
    pub columns: Vec<Attribute>,
    /// Unique indexes over plain, not null columns: the primary key first, then the replica identity, then the others.
    pub keys: Vec<UniqueKey>,
    /// What holds the rows: the table itself, a partitioned table's leaves, a hypertable's chunks.
    pub leaves: Vec<Leaf>,
    /// The partitioned table or hypertable this is a part of.
    pub root: Option<u32>,
    /// Row-level security is on, and a snapshot would only see what the policies let through.
    pub has_row_security: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Ordinary,
    Partitioned,
    /// TimescaleDB's: a table without rows of its own, whose chunks inherit from it.
    Hypertable,
    /// A view, a foreign table, a sequence: has no rows of its own in the log, and cannot be captured.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    Default,
    Full,
    Index,
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub number: i16,
    pub name: Arc<str>,
    pub type_oid: u32,
    pub typmod: i32,
    /// As `format_type` writes it: `numeric(15,2)`.
    pub native: Arc<str>,
    pub is_not_null: bool,
    /// `GENERATED ALWAYS AS … STORED`: not in the change stream before version 18, so not in snapshots either.
    pub is_generated: bool,
    /// Quoted, with its schema; `None` for types without a collation.
    pub collation: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueKey {
    pub is_primary: bool,
    pub is_replica_identity: bool,
    /// Numbers of the columns, in the order of the index.
    pub columns: Vec<i16>,
    /// How the index orders each of them.
    pub ordered: Vec<Ordered>,
}

/// By what a column of an index is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// Quoted, with its schema.
    pub collation: Option<Arc<str>>,
    /// `None`: as the type is by itself, with the column's own collation.
    pub order: Option<Order>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    pub oid: u32,
    pub schema: Arc<str>,
    pub name: Arc<str>,
    /// Changes whenever the table is rewritten: TRUNCATE, VACUUM FULL, some forms of ALTER TABLE.
    pub file: u32,
    pub n_pages: u64,
    /// By the planner's way: rows per page at the last ANALYZE or VACUUM times pages now; `None` when there never was one.
    pub n_rows_estimated: Option<u64>,
}

impl Relation {
    /// The table as changes carry it, with these of its columns. The key is the primary key, or the replica identity: Debezium's.
    pub fn table(&self, database: &Arc<str>, attributes: &[Attribute], types: &Types, version: u32) -> Table {
        let is_key = |a: &Attribute| self.identity().is_some_and(|k| k.columns.contains(&a.number));
        let column = |a: &Attribute| Column {
            name: a.name.clone(),
            kind: Form::of(a.type_oid, a.typmod, types).kind(),
            is_nullable: !a.is_not_null,
            is_key: is_key(a),
            native: a.native.clone(),
        };
        let id = TableId { database: database.clone(), schema: self.schema.clone(), table: self.name.clone() };
        Table { id, version, columns: attributes.iter().map(column).collect() }
    }

    /// Written so that it can stand in a statement: `public."Order Items"`.
    pub fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    pub fn column(&self, number: i16) -> Option<&Attribute> {
        self.columns.iter().find(|c| c.number == number)
    }

    pub fn primary_key(&self) -> Option<&UniqueKey> {
        self.keys.iter().find(|k| k.is_primary)
    }

    /// The columns by which a change names its row: Debezium's key. The primary key, or the index that is the replica identity.
    pub fn identity(&self) -> Option<&UniqueKey> {
        self.primary_key().or_else(|| self.keys.iter().find(|k| k.is_replica_identity))
    }

    pub fn n_rows_estimated(&self) -> Option<u64> {
        self.leaves.iter().map(|l| l.n_rows_estimated).sum()
    }
}

impl Leaf {
    pub fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }
}

/// A type that is not simply one of the built-in ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    pub oid: u32,
    pub schema: Arc<str>,
    pub name: Arc<str>,
    pub form: TypeForm,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeForm {
    Base,
    Enum(Vec<Arc<str>>),
    Domain { base: u32, typmod: i32 },
    Array { element: u32 },
    Composite,
    Range,
    Other,
}

/// The types that columns have, and those that these are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Types(pub BTreeMap<u32, Type>);

impl Types {
    pub fn get(&self, oid: u32) -> Option<&Type> {
        self.0.get(&oid)
    }

    /// The type below all domains, and the typmod that the innermost one that has one sets.
    pub fn base(&self, oid: u32, typmod: i32) -> (u32, i32) {
        let (mut oid, mut typmod) = (oid, typmod);
        for _ in 0..TYPE_DEPTH_MAX {
            let Some(Type { form: TypeForm::Domain { base, typmod: of_base }, .. }) = self.get(oid) else { break };
            oid = *base;
            typmod = if *of_base >= 0 { *of_base } else { typmod };
        }
        (oid, typmod)
    }

    /// The element of an array type, built-in or not.
    pub fn element(&self, oid: u32) -> Option<u32> {
        match self.get(oid)?.form {
            TypeForm::Array { element } => Some(element),
            _ => None,
        }
    }
}

/// Which tables.
#[derive(Debug, Clone)]
pub enum Selection {
    /// By their names, quoted or not: `public.stock_trades`. Names that do not exist are simply not in the answer.
    Names(Vec<(String, String)>),
    Oids(Vec<u32>),
    /// All ordinary and partitioned tables and hypertables that are not the system's, without partitions and chunks.
    All,
}

/// Tables with their types.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub relations: Vec<Relation>,
    pub types: Types,
}

impl Catalog {
    /// Reads the tables as the session's transaction sees them, or as they are now if it is in none.
    pub async fn read(connection: &mut Connection, selection: &Selection) -> Result<Self, WireError> {
        let has_timescaledb = has_timescaledb(connection).await?;
        let mut relations = relations(connection, selection, has_timescaledb).await?;
        let oids: Vec<u32> = relations.iter().map(|r| r.oid).collect();
        let mut columns = columns(connection, &oids).await?;
        let mut keys = keys(connection, &oids).await?;
        let mut leaves = leaves(connection, &relations).await?;
        for relation in &mut relations {
            relation.columns = columns.remove(&relation.oid).unwrap_or_default();
            relation.keys = keys.remove(&relation.oid).unwrap_or_default();
            // A key with a column that may be null, which is no key of ours: null is neither above nor below a value.
            relation.keys.retain(|key| {
                key.columns.iter().all(|n| relation.columns.iter().any(|c| c.number == *n && c.is_not_null && !c.is_generated))
            });
            relation.leaves = leaves.remove(&relation.oid).unwrap_or_default();
        }
        let types = types(connection, relations.iter().flat_map(|r| &r.columns).map(|c| c.type_oid).collect()).await?;
        Ok(Self { relations, types })
    }

    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|r| &*r.schema == schema && &*r.name == name)
    }
}

/// Partitions and chunks with the table they belong to: oid of the part -> oid of the root. With TimescaleDB's chunks, new ones included.
pub async fn roots(connection: &mut Connection) -> Result<BTreeMap<u32, u32>, WireError> {
    let mut roots = BTreeMap::new();
    let partitions = "SELECT c.oid, pg_partition_root(c.oid)::oid FROM pg_class c WHERE c.relispartition AND c.relkind IN ('r','p')";
    for row in connection.query(partitions).await? {
        roots.insert(number(&row, 0)?, number(&row, 1)?);
    }
    if has_timescaledb(connection).await? {
        for row in connection.query(&format!("SELECT part, root FROM ({CHUNKS}) chunks")).await? {
            roots.insert(number(&row, 0)?, number(&row, 1)?);
        }
    }
    Ok(roots)
}

/// TimescaleDB's own catalog: a chunk and its hypertable, by name. A compressed hypertable's inner table is a hypertable of its own, which
/// nobody names as a table to capture; a chunk that was dropped keeps its row until its continuous aggregates are done with it.
const CHUNKS: &str = "SELECT p.oid AS part, r.oid AS root
    FROM _timescaledb_catalog.chunk c
    JOIN _timescaledb_catalog.hypertable h ON h.id = c.hypertable_id
    JOIN pg_class p ON p.relname = c.table_name
    JOIN pg_namespace pn ON pn.oid = p.relnamespace AND pn.nspname = c.schema_name
    JOIN pg_class r ON r.relname = h.table_name
    JOIN pg_namespace rn ON rn.oid = r.relnamespace AND rn.nspname = h.schema_name";

async fn has_timescaledb(connection: &mut Connection) -> Result<bool, WireError> {
    let found = connection
        .query(
            "SELECT to_regclass('_timescaledb_catalog.hypertable') IS NOT NULL AND to_regclass('_timescaledb_catalog.chunk') IS NOT NULL",
        )
        .await?;
    flag(found.first().ok_or(ODD_ANSWER)?, 0)
}

impl Server {
    pub async fn read(connection: &mut Connection) -> Result<Self, WireError> {
        let rows = connection
            .query(
                "SELECT current_setting('server_version_num')::int4, (SELECT system_identifier FROM pg_control_system()), \
                 current_database()::text, pg_is_in_recovery(), \
                 (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text",
            )
            .await?;
        let row = rows.first().ok_or(ODD_ANSWER)?;
        let names = SETTINGS.map(literal).join(",");
        let settings = connection.query(&format!("SELECT name, current_setting(name) FROM pg_settings WHERE name IN ({names})")).await?;
        Ok(Self {
            version: number(row, 0)?,
            // Kept as an unsigned number, shown as a signed one: the bits are the same.
            system_identifier: number::<i64>(row, 1)? as u64,
            database: shared(row, 2)?,
            is_in_recovery: flag(row, 3)?,
            wal_lsn: optional(row, 4)?.and_then(parse_lsn).unwrap_or(0),
            has_timescaledb: has_timescaledb(connection).await?,
            settings: settings.iter().map(|r| Ok((text(r, 0)?.to_owned(), text(r, 1)?.to_owned()))).collect::<Result<_, WireError>>()?,
        })
    }
}

/// What [`Selection::All`] means.
pub(super) const EVERY_TABLE: &str = "c.relkind IN ('r','p') AND c.relpersistence = 'p' AND NOT c.relispartition \
     AND n.nspname NOT IN ('pg_catalog','information_schema') AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE '\\_timescaledb\\_%'";

async fn relations(connection: &mut Connection, selection: &Selection, has_timescaledb: bool) -> Result<Vec<Relation>, WireError> {
    let (hypertable, chunk) = if has_timescaledb {
        (
            "EXISTS (SELECT 1 FROM _timescaledb_catalog.hypertable h WHERE h.schema_name = n.nspname AND h.table_name = c.relname)",
            format!("(SELECT root FROM ({CHUNKS}) chunks WHERE part = c.oid)"),
        )
    } else {
        ("false", "NULL::oid".to_owned())
    };
    let wanted = match selection {
        Selection::Names(names) if names.is_empty() => return Ok(Vec::new()),
        Selection::Names(names) => {
            let pairs: Vec<String> = names.iter().map(|(s, t)| format!("({},{})", literal(s), literal(t))).collect();
            format!("(n.nspname::text, c.relname::text) IN ({})", pairs.join(","))
        }
        Selection::Oids(oids) => format!("c.oid = ANY({})", oid_array(oids)),
        Selection::All => EVERY_TABLE.to_owned(),
    };
    let rows = connection
        .query(&format!(
            "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.relrowsecurity, {hypertable}, \
             CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::oid ELSE {chunk} END \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE {wanted} ORDER BY n.nspname, c.relname LIMIT {}",
            TABLES_MAX + 1
        ))
        .await?;
    if rows.len() > TABLES_MAX {
        return Err(WireError::TooLarge { what: "a list of tables", bytes: rows.len(), limit: TABLES_MAX });
    }
    rows.iter().map(relation).collect()
}

fn relation(row: &TextRow) -> Result<Relation, WireError> {
    let is_hypertable = flag(row, 6)?;
    Ok(Relation {
        oid: number(row, 0)?,
        schema: shared(row, 1)?,
        name: shared(row, 2)?,
        shape: match text(row, 3)? {
            "r" if is_hypertable => Shape::Hypertable,
            "r" => Shape::Ordinary,
            "p" => Shape::Partitioned,
            _ => Shape::Other,
        },
        replica_identity: match text(row, 4)? {
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            "n" => ReplicaIdentity::Nothing,
            _ => ReplicaIdentity::Default,
        },
        has_row_security: flag(row, 5)?,
        root: optional(row, 7)?.map(str::parse).transpose().map_err(|_| ODD_ANSWER)?,
        columns: Vec::new(),
        keys: Vec::new(),
        leaves: Vec::new(),
    })
}

async fn columns(connection: &mut Connection, oids: &[u32]) -> Result<BTreeMap<u32, Vec<Attribute>>, WireError> {
    let rows = connection
        .query(&format!(
            "SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), \
             a.attnotnull, a.attgenerated <> '', quote_ident(n.nspname) || '.' || quote_ident(l.collname) \
             FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = l.collnamespace \
             WHERE a.attrelid = ANY({}) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum",
            oid_array(oids)
        ))
        .await?;
    let mut columns: BTreeMap<u32, Vec<Attribute>> = BTreeMap::new();
    for row in &rows {
        columns.entry(number(row, 0)?).or_default().push(Attribute {
            number: number(row, 1)?,
            name: shared(row, 2)?,
            type_oid: number(row, 3)?,
            typmod: number(row, 4)?,
            native: shared(row, 5)?,
            is_not_null: flag(row, 6)?,
            is_generated: flag(row, 7)?,
            collation: optional(row, 8)?.map(Arc::from),
        });
    }
    Ok(columns)
}

async fn keys(connection: &mut Connection, oids: &[u32]) -> Result<BTreeMap<u32, Vec<UniqueKey>>, WireError> {
    // A unique index is a btree, whose access method has this number ("pg_am.dat").
    let operators = "SELECT array_agg('OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')' ORDER BY a.amopstrategy) \
         FROM pg_amop a JOIN pg_operator o ON o.oid = a.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace \
         WHERE a.amopfamily = c.opcfamily AND a.amopmethod = 403 AND a.amoppurpose = 's' \
         AND a.amoplefttype = c.opcintype AND a.amoprighttype = c.opcintype";
    let collation = "SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname) \
         FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = k.coll";
    let rows = connection
        .query(&format!(
            "SELECT i.indrelid, i.indisprimary, i.indisreplident, \
             json_agg(k.attnum ORDER BY k.n), json_agg(({collation}) ORDER BY k.n), \
             json_agg(CASE WHEN c.opcdefault AND c.opcnamespace = 'pg_catalog'::regnamespace AND k.coll = a.attcollation THEN NULL \
               ELSE ({operators}) END ORDER BY k.n) \
             FROM pg_index i, unnest(i.indkey::int2[], i.indclass::oid[], i.indcollation::oid[]) WITH ORDINALITY k(attnum, class, coll, n) \
             JOIN pg_opclass c ON c.oid = k.class JOIN pg_attribute a ON a.attnum = k.attnum \
             WHERE i.indrelid = ANY({}) AND a.attrelid = i.indrelid AND k.n <= i.indnkeyatts AND i.indisunique AND i.indisvalid \
             AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
             GROUP BY i.indrelid, i.indisprimary, i.indisreplident, i.indexrelid \
             ORDER BY i.indrelid, i.indisprimary DESC, i.indisreplident DESC, i.indexrelid",
            oid_array(oids)
        ))
        .await?;
    let mut keys: BTreeMap<u32, Vec<UniqueKey>> = BTreeMap::new();
    for row in &rows {
        let (collations, orders): (Vec<Option<String>>, Vec<Option<Order>>) = (json(row, 4)?, json(row, 5)?);
        let ordered = collations.into_iter().zip(orders).map(|(c, order)| Ordered { collation: c.map(Arc::from), order });
        keys.entry(number(row, 0)?).or_default().push(UniqueKey {
            is_primary: flag(row, 1)?,
            is_replica_identity: flag(row, 2)?,
            columns: json(row, 3)?,
            ordered: ordered.collect(),
        });
    }
    Ok(keys)
}

fn json<T: serde::de::DeserializeOwned>(row: &TextRow, at: usize) -> Result<T, WireError> {
    serde_json::from_str(text(row, at)?).map_err(|_| ODD_ANSWER)
}

async fn leaves(connection: &mut Connection, relations: &[Relation]) -> Result<BTreeMap<u32, Vec<Leaf>>, WireError> {
    let of = |wanted: &[Shape]| oid_array(&relations.iter().filter(|r| wanted.contains(&r.shape)).map(|r| r.oid).collect::<Vec<u32>>());
    let (plain, parents) = (of(&[Shape::Ordinary]), of(&[Shape::Partitioned, Shape::Hypertable]));
    // A hypertable's chunks inherit from it directly; its own file is empty but a part of it.
    let rows = connection
        .query(&format!(
            "WITH RECURSIVE part AS (\
               SELECT r AS root, r AS oid FROM unnest({plain} || {parents}) r \
               UNION ALL \
               SELECT part.root, i.inhrelid FROM part JOIN pg_inherits i ON i.inhparent = part.oid WHERE part.root = ANY({parents})) \
             SELECT part.root, c.oid, n.nspname, c.relname, c.relfilenode, \
             coalesce(pg_relation_size(c.oid), 0) / current_setting('block_size')::int8, c.reltuples::float8, c.relpages \
             FROM part JOIN pg_class c ON c.oid = part.oid JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' ORDER BY part.root, c.oid"
        ))
        .await?;
    let mut leaves: BTreeMap<u32, Vec<Leaf>> = BTreeMap::new();
    for row in &rows {
        let n_pages = number(row, 5)?;
        leaves.entry(number(row, 0)?).or_default().push(Leaf {
            oid: number(row, 1)?,
            schema: shared(row, 2)?,
            name: shared(row, 3)?,
            file: number(row, 4)?,
            n_pages,
            n_rows_estimated: estimate(number(row, 6)?, number(row, 7)?, n_pages),
        });
    }
    Ok(leaves)
}

/// PostgreSQL documentation, "pg_class": `reltuples` is -1 where the table was never vacuumed or analysed.
fn estimate(n_tuples: f64, n_pages_then: i32, n_pages_now: u64) -> Option<u64> {
    if n_pages_now == 0 {
        return Some(0);
    }
    let pages_then = f64::from(n_pages_then);
    (n_tuples >= 0.0 && pages_then > 0.0).then(|| (n_tuples / pages_then * n_pages_now as f64) as u64)
}

pub(super) async fn types(connection: &mut Connection, oids: BTreeSet<u32>) -> Result<Types, WireError> {
    let oids = oid_array(&oids.into_iter().collect::<Vec<_>>());
    let rows = connection
        .query(&format!(
            "WITH RECURSIVE t AS (\
               SELECT unnest({oids}) AS oid \
               UNION SELECT u.oid FROM t JOIN pg_type p ON p.oid = t.oid, unnest(ARRAY[p.typbasetype, p.typelem]) u(oid) WHERE u.oid <> 0) \
             SELECT p.oid, n.nspname, p.typname, p.typtype, p.typbasetype, p.typtypmod, p.typelem, p.typcategory, \
             array_to_json(ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = p.oid ORDER BY e.enumsortorder)) \
             FROM t JOIN pg_type p ON p.oid = t.oid JOIN pg_namespace n ON n.oid = p.typnamespace"
        ))
        .await?;
    let mut types = Types::default();
    for row in &rows {
        let form = match (text(row, 3)?, text(row, 7)?) {
            ("e", _) => {
                let labels: Vec<String> = serde_json::from_str(text(row, 8)?).map_err(|_| ODD_ANSWER)?;
                TypeForm::Enum(labels.into_iter().map(Arc::from).collect())
            }
            ("d", _) => TypeForm::Domain { base: number(row, 4)?, typmod: number(row, 5)? },
            ("b", "A") => TypeForm::Array { element: number(row, 6)? },
            ("b", _) => TypeForm::Base,
            ("c", _) => TypeForm::Composite,
            ("r" | "m", _) => TypeForm::Range,
            _ => TypeForm::Other,
        };
        let oid = number(row, 0)?;
        types.0.insert(oid, Type { oid, schema: shared(row, 1)?, name: shared(row, 2)?, form });
    }
    Ok(types)
}

const ODD_ANSWER: WireError = WireError::Protocol("a row of its catalog that is not as documented");

/// A cell that may be null.
pub(super) fn optional(row: &TextRow, at: usize) -> Result<Option<&str>, WireError> {
    let cell = row.get(at).ok_or(ODD_ANSWER)?;
    cell.as_ref().map(|bytes| std::str::from_utf8(bytes).map_err(|_| ODD_ANSWER)).transpose()
}

pub(super) fn text(row: &TextRow, at: usize) -> Result<&str, WireError> {
    optional(row, at)?.ok_or(ODD_ANSWER)
}

fn shared(row: &TextRow, at: usize) -> Result<Arc<str>, WireError> {
    Ok(Arc::from(text(row, at)?))
}

pub(super) fn number<T: FromStr>(row: &TextRow, at: usize) -> Result<T, WireError> {
    text(row, at)?.parse().map_err(|_| ODD_ANSWER)
}

pub(super) fn flag(row: &TextRow, at: usize) -> Result<bool, WireError> {
    Ok(text(row, at)? == "t")
}

fn oid_array(oids: &[u32]) -> String {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    format!("'{{{}}}'::oid[]", oids.join(","))
}

/// `16/B374D848`: two hexadecimal numbers of 32 bits.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_two_numbers() {
        assert_eq!(parse_lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(parse_lsn("16B374D848"), None);
        assert_eq!(parse_lsn("1FFFFFFFF/0"), None);
    }

    #[test]
    fn rows_are_estimated_as_the_planner_does() {
        assert_eq!(estimate(-1.0, 0, 10), None);
        assert_eq!(estimate(0.0, 0, 0), Some(0));
        assert_eq!(estimate(1_000.0, 10, 20), Some(2_000));
    }

    #[test]
    fn a_domain_leads_to_its_base() {
        let of = |oid, form| (oid, Type { oid, schema: "public".into(), name: "t".into(), form });
        let types = Types(
            [
                of(1, TypeForm::Domain { base: 2, typmod: -1 }),
                of(2, TypeForm::Domain { base: 1700, typmod: 983_046 }),
                of(1700, TypeForm::Base),
                of(1231, TypeForm::Array { element: 1700 }),
                of(9, TypeForm::Domain { base: 9, typmod: -1 }),
            ]
            .into(),
        );
        assert_eq!(types.base(1, -1), (1700, 983_046));
        assert_eq!(types.base(1700, 5), (1700, 5));
        assert_eq!(types.base(9, -1), (9, -1), "a catalog that goes in circles ends");
        assert_eq!(types.element(1231), Some(1700));
    }
}
