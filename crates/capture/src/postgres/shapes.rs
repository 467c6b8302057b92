//! The tables of the stream as Relation messages describe them: which are captured, under whose name, in which version.
//!
//! A partition or a TimescaleDB chunk is its root's row in another place, so its changes are the root's. A version is the place of a shape
//! in the list of all shapes that were seen of a table: the same columns have the same version whenever they are read again.

use super::catalog::{self, Attribute, Types};
use super::forms::{self, Form};
use super::pgoutput::{Identity, Relation, RelationColumn};
use super::settings::{is_meant, is_pattern};
use crate::table::{Column, Table, TableId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// Shapes of one table whose versions are told apart; a table that changes more often goes on under the last number.
const SHAPES_MAX: usize = 10_000;
/// Relations that are known at a time. The server describes a relation again after it changed, so forgetting one would lose it: it is an error.
const RELATIONS_MAX: usize = 1_000_000;

/// A relation of the stream.
#[derive(Debug, Clone)]
pub struct Known {
    pub table: Arc<Table>,
    /// In the order of the message, as is `is_identity`.
    pub forms: Vec<Form>,
    pub is_identity: Vec<bool>,
    /// Where each column of the message stands in the table, if not in the same place.
    pub order: Option<Vec<usize>>,
    pub is_wanted: bool,
    /// A chunk: emptied when it is compressed, so a truncate of it alone says nothing of the hypertable's rows.
    pub is_chunk: bool,
}

/// What the catalog adds to a Relation message, as it is now; a relation that is already gone has nothing.
#[derive(Debug, Clone, Default)]
pub struct Background {
    pub relation: Option<catalog::Relation>,
    pub root: Option<catalog::Relation>,
    pub types: Types,
}

/// How tables are called and counted, shared by the stream and the snapshots of a source.
#[derive(Debug)]
pub struct Naming {
    database: Arc<str>,
    /// `public.trades`; empty: all of the publication.
    wanted: BTreeSet<String>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The shapes seen of each table, by their fingerprints, the first first.
    shapes: BTreeMap<String, Vec<u64>>,
    /// Set when `shapes` has changed.
    is_new: bool,
}

#[derive(Debug)]
pub struct Shapes {
    naming: Arc<Naming>,
    known: HashMap<u32, Arc<Known>>,
}

impl Shapes {
    pub fn new(database: Arc<str>, wanted: &[String], seen: BTreeMap<String, Vec<u64>>) -> Self {
        let seen = Mutex::new(Seen { shapes: seen, is_new: true });
        let naming = Naming { database, wanted: wanted.iter().cloned().collect(), seen };
        Self { naming: Arc::new(naming), known: HashMap::new() }
    }

    pub fn naming(&self) -> &Arc<Naming> {
        &self.naming
    }

    pub fn known(&self, oid: u32) -> Option<&Arc<Known>> {
        self.known.get(&oid)
    }

    /// A Relation message. `false`: there are more relations than can be kept.
    pub fn learn(&mut self, relation: &Relation, background: &Background) -> bool {
        let is_own_name = self.naming.wanted.contains(&format!("{}.{}", relation.schema, relation.name));
        let root = background.root.as_ref().filter(|_| !is_own_name);
        let (schema, name) = root.map_or((&*relation.schema, &*relation.name), |r| (&*r.schema, &*r.name));
        let order = root.and_then(|root| order(&relation.columns, root));
        let places: Vec<usize> = order.clone().unwrap_or_else(|| (0..relation.columns.len()).collect());
        let mut sources: Vec<&RelationColumn> = relation.columns.iter().collect();
        for (from, to) in places.iter().enumerate() {
            sources[*to] = &relation.columns[from];
        }
        let described = Described { identity: relation.identity, own: background.relation.as_ref(), types: &background.types };
        let columns: Vec<Column> = sources.iter().map(|c| described.column(c)).collect();
        let known = Known {
            table: self.naming.table(schema, name, columns, fingerprint(&sources)),
            forms: relation.columns.iter().map(|c| Form::of(c.type_oid, c.typmod, &background.types)).collect(),
            is_identity: relation.columns.iter().map(|c| c.is_key).collect(),
            order,
            is_wanted: self.naming.is_wanted(schema, name),
            is_chunk: root.is_some_and(|r| r.shape == catalog::Shape::Hypertable),
        };
        if known.is_wanted {
            note_unknown_types(&known.table);
        } else if let Some(before) = self.known.get(&relation.oid).filter(|before| before.is_wanted) {
            tracing::warn!(table = %before.table.id, "a captured table is called {} now: what changes there is not captured", known.table.id);
        }
        self.known.insert(relation.oid, Arc::new(known));
        self.known.len() <= RELATIONS_MAX
    }
}

impl Naming {
    /// All shapes that were seen, if that is news since the last call.
    pub fn news(&self) -> Option<BTreeMap<String, Vec<u64>>> {
        let mut seen = self.seen();
        std::mem::take(&mut seen.is_new).then(|| seen.shapes.clone())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing panics while it is held, and a list of numbers is never half changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_wanted(&self, schema: &str, table: &str) -> bool {
        let is_matched = || self.wanted.iter().any(|w| is_pattern(w) && is_meant(w, schema, table));
        self.wanted.is_empty() || self.wanted.contains(&format!("{schema}.{table}")) || is_matched()
    }

    /// The table as the stream will describe it, from the catalog: for the rows of a snapshot. `attributes`: those that are published.
    pub fn of_catalog(&self, relation: &catalog::Relation, attributes: &[Attribute], types: &Types) -> Arc<Table> {
        let identity = match relation.replica_identity {
            catalog::ReplicaIdentity::Default => Identity::Default,
            catalog::ReplicaIdentity::Full => Identity::Full,
            catalog::ReplicaIdentity::Index => Identity::Index,
            catalog::ReplicaIdentity::Nothing => Identity::Nothing,
        };
        let key = match identity {
            Identity::Index => relation.keys.iter().find(|k| k.is_replica_identity),
            _ => relation.primary_key(),
        };
        let is_key = |number: i16| match identity {
            Identity::Full => true,
            Identity::Nothing => false,
            _ => key.is_some_and(|k| k.columns.contains(&number)),
        };
        let columns: Vec<RelationColumn> = attributes
            .iter()
            .map(|a| RelationColumn { is_key: is_key(a.number), name: a.name.to_string(), type_oid: a.type_oid, typmod: a.typmod })
            .collect();
        let described = Described { identity, own: Some(relation), types };
        let sources: Vec<&RelationColumn> = columns.iter().collect();
        let columns = sources.iter().map(|c| described.column(c)).collect();
        self.table(&relation.schema, &relation.name, columns, fingerprint(&sources))
    }

    fn table(&self, schema: &str, name: &str, columns: Vec<Column>, fingerprint: u64) -> Arc<Table> {
        let id = TableId { database: self.database.clone(), schema: schema.into(), table: name.into() };
        let version = if self.is_wanted(schema, name) { self.version(&id.to_string(), fingerprint) } else { 0 };
        Arc::new(Table { id, version, columns })
    }

    fn version(&self, table: &str, fingerprint: u64) -> u32 {
        let mut seen = self.seen();
        let shapes = seen.shapes.entry(table.to_owned()).or_default();
        if let Some(place) = shapes.iter().position(|s| *s == fingerprint) {
            return place as u32 + 1;
        }
        if shapes.len() < SHAPES_MAX {
            shapes.push(fingerprint);
        }
        let version = shapes.len() as u32;
        seen.is_new = true;
        version
    }
}

/// What a column's description is made from.
struct Described<'a> {
    identity: Identity,
    own: Option<&'a catalog::Relation>,
    types: &'a Types,
}

impl Described<'_> {
    fn column(&self, column: &RelationColumn) -> Column {
        let attribute = self.own.and_then(|r| r.columns.iter().find(|a| *a.name == *column.name));
        Column {
            name: column.name.as_str().into(),
            kind: Form::of(column.type_oid, column.typmod, self.types).kind(),
            is_nullable: attribute.is_none_or(|a| !a.is_not_null),
            is_key: self.is_key(column, attribute),
            native: forms::native(column.type_oid, column.typmod, self.types).into(),
        }
    }

    /// What a delete carries is what can be a key: the message's own columns with replica identity DEFAULT (the primary key) and USING INDEX.
    /// FULL marks all columns and NOTHING none; there the key is the primary key, if there is one.
    fn is_key(&self, column: &RelationColumn, attribute: Option<&Attribute>) -> bool {
        match self.identity {
            Identity::Default | Identity::Index => column.is_key,
            Identity::Full | Identity::Nothing => {
                let key = self.own.and_then(catalog::Relation::primary_key);
                attribute.zip(key).is_some_and(|(a, k)| k.columns.contains(&a.number))
            }
        }
    }
}

/// Only what the message says: the catalog may have gone on meanwhile.
fn fingerprint(columns: &[&RelationColumn]) -> u64 {
    let mut hash = Xxh3::new();
    for column in columns {
        hash.update(&(column.name.len() as u64).to_le_bytes());
        hash.update(column.name.as_bytes());
        hash.update(&column.type_oid.to_le_bytes());
        hash.update(&column.typmod.to_le_bytes());
        hash.update(&[u8::from(column.is_key)]);
    }
    hash.digest()
}

/// Where each column of a part stands among the same columns in their root's order. `None`: in the same place, or the root has others by now.
fn order(columns: &[RelationColumn], root: &catalog::Relation) -> Option<Vec<usize>> {
    let at_root = |c: &RelationColumn| root.columns.iter().position(|a| *a.name == *c.name);
    let at_root: Vec<usize> = columns.iter().map(at_root).collect::<Option<_>>()?;
    if at_root.is_sorted() {
        return None;
    }
    Some(at_root.iter().map(|place| at_root.iter().filter(|other| *other < place).count()).collect())
}

fn note_unknown_types(table: &Table) {
    for column in table.columns.iter().filter(|c| c.kind == crate::table::Kind::Unknown) {
        tracing::info!(table = %table.id, column = %column.name, native = %column.native, "a type without a form of its own is captured as the database's text");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::{ReplicaIdentity, Shape, UniqueKey};
    use crate::table::Kind;

    fn column(name: &str, type_oid: u32, is_key: bool) -> RelationColumn {
        RelationColumn { is_key, name: name.into(), type_oid, typmod: -1 }
    }

    fn message(oid: u32, name: &str, identity: Identity, columns: Vec<RelationColumn>) -> Relation {
        Relation { oid, schema: "public".into(), name: name.into(), identity, columns }
    }

    fn in_catalog(name: &str, columns: &[(&str, u32)], key: &[i16]) -> catalog::Relation {
        let attribute = |(at, (name, type_oid)): (usize, &(&str, u32))| Attribute {
            number: at as i16 + 1,
            name: (*name).into(),
            type_oid: *type_oid,
            typmod: -1,
            native: "".into(),
            is_not_null: key.contains(&(at as i16 + 1)),
            is_generated: false,
            collation: None,
        };
        catalog::Relation {
            oid: 7,
            schema: "public".into(),
            name: name.into(),
            shape: Shape::Ordinary,
            replica_identity: ReplicaIdentity::Default,
            columns: columns.iter().enumerate().map(attribute).collect(),
            keys: vec![UniqueKey { is_primary: true, is_replica_identity: false, columns: key.to_vec(), ordered: vec![] }],
            leaves: Vec::new(),
            root: None,
            has_row_security: false,
        }
    }

    fn keys(shapes: &Shapes, oid: u32) -> Vec<&str> {
        let table = &shapes.known(oid).unwrap().table;
        table.columns.iter().filter(|c| c.is_key).map(|c| &*c.name).collect()
    }

    #[test]
    fn a_shape_seen_again_has_its_old_version() {
        let narrow = message(7, "t", Identity::Default, vec![column("id", 20, true)]);
        let wide = message(7, "t", Identity::Default, vec![column("id", 20, true), column("n", 1700, false)]);
        let mut shapes = Shapes::new("db".into(), &[], BTreeMap::new());
        let mut version = |relation: &Relation| {
            shapes.learn(relation, &Background::default());
            shapes.known(7).unwrap().table.version
        };
        assert_eq!([version(&narrow), version(&wide), version(&wide), version(&narrow)], [1, 2, 2, 1]);
        let seen = shapes.naming().news().unwrap();
        assert!(shapes.naming().news().is_none());
        let mut again = Shapes::new("db".into(), &[], seen);
        again.learn(&wide, &Background::default());
        assert_eq!(again.known(7).unwrap().table.version, 2);
    }

    #[test]
    fn the_key_is_what_a_delete_carries() {
        let columns = |flags: [bool; 2]| vec![column("id", 20, flags[0]), column("code", 25, flags[1])];
        let background = Background { relation: Some(in_catalog("t", &[("id", 20), ("code", 25)], &[1])), ..Background::default() };
        let mut shapes = Shapes::new("db".into(), &[], BTreeMap::new());
        let cases: [(Identity, [bool; 2], &[&str]); 4] = [
            (Identity::Default, [true, false], &["id"]),
            (Identity::Index, [false, true], &["code"]),
            (Identity::Full, [true, true], &["id"]),
            (Identity::Nothing, [false, false], &["id"]),
        ];
        for (identity, flags, expected) in cases {
            shapes.learn(&message(7, "t", identity, columns(flags)), &background);
            assert_eq!(keys(&shapes, 7), expected, "{identity:?}");
        }
        shapes.learn(&message(7, "t", Identity::Full, columns([true, true])), &Background::default());
        assert!(keys(&shapes, 7).is_empty(), "without a primary key, FULL has no key");
    }

    #[test]
    fn a_part_has_the_name_and_the_order_of_its_root() {
        let mut root = in_catalog("t", &[("id", 20), ("at", 1184), ("n", 1700)], &[1]);
        root.shape = Shape::Hypertable;
        let background = Background { root: Some(root), ..Background::default() };
        let part = message(
            8,
            "_hyper_1_2_chunk",
            Identity::Default,
            vec![column("n", 1700, false), column("id", 20, true), column("at", 1184, false)],
        );
        let mut shapes = Shapes::new("db".into(), &["public.t".into()], BTreeMap::new());
        shapes.learn(&part, &background);
        let known = shapes.known(8).unwrap();
        assert!(known.is_wanted && known.is_chunk);
        assert_eq!(known.table.id.to_string(), "public.t");
        assert_eq!(known.order, Some(vec![2, 0, 1]));
        assert_eq!(known.table.columns.iter().map(|c| &*c.name).collect::<Vec<_>>(), ["id", "at", "n"]);
        assert_eq!(known.forms[0], Form::Numeric(None), "forms are in the order of the message");
        // A part that is asked for by its own name is itself.
        let mut shapes = Shapes::new("db".into(), &["public._hyper_1_2_chunk".into()], BTreeMap::new());
        shapes.learn(&part, &background);
        assert_eq!(shapes.known(8).unwrap().table.id.to_string(), "public._hyper_1_2_chunk");
    }

    #[test]
    fn a_snapshot_and_the_stream_agree() {
        for (identity, catalog_identity) in [
            (Identity::Default, ReplicaIdentity::Default),
            (Identity::Full, ReplicaIdentity::Full),
            (Identity::Nothing, ReplicaIdentity::Nothing),
        ] {
            let mut relation = in_catalog("t", &[("id", 20), ("n", 1700)], &[1]);
            relation.replica_identity = catalog_identity;
            let flag = |is_primary| match identity {
                Identity::Full => true,
                Identity::Nothing => false,
                _ => is_primary,
            };
            let described = message(7, "t", identity, vec![column("id", 20, flag(true)), column("n", 1700, flag(false))]);
            let mut shapes = Shapes::new("db".into(), &[], BTreeMap::new());
            let of_catalog = shapes.naming().of_catalog(&relation, &relation.columns, &Types::default());
            shapes.learn(&described, &Background { relation: Some(relation.clone()), ..Background::default() });
            assert_eq!(*of_catalog, *shapes.known(7).unwrap().table);
            assert_eq!(of_catalog.columns[1].kind, Kind::Decimal(None));
        }
    }
}
