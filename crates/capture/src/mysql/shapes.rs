//! Which shape the rows of a table map are read with, and how many shapes a table has had.
//!
//! Where a table map carries names (`binlog_row_metadata=FULL`) the shape is the map's own, and the catalog only adds the server's words: by the
//! columns' names where the catalog as a whole is of another version. Where it does not, the catalog is asked at every table number that is new,
//! and it may be ahead of the stream. The policy then, in this order:
//!
//! 1. the catalog, where its columns fit the map's types;
//! 2. the shape that this table had last, where it fits: the DDL is still to come;
//! 3. the catalog's first columns, where they fit: columns were added behind them;
//! 4. columns named `@1`, `@2` as mysqlbinlog names them, signed, text as bytes. Told as a warning.
//!
//! The row is kept and the stream goes on in every case.

use super::binlog::error::BinlogError;
use super::binlog::shape::{Known, Shape};
use super::binlog::table_map::TableMap;
use super::catalog::{self, CatalogTable, Selection};
use super::ddl::Name;
use super::wire::{Connection, WireError};
use crate::datum::Datum;
use crate::table::{Column, Table, TableId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Shapes by table number that are kept; table maps come before each statement, so that nothing is lost with one.
const MADE_MAX: usize = 4_096;

/// What is stored of a table's shapes: how many there were, and which was the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    pub v: u32,
    pub hash: u64,
}

/// A table map with what its rows are read with.
#[derive(Debug, Clone)]
pub struct Made {
    map: Arc<TableMap>,
    pub shape: Arc<Shape>,
    pub table: Arc<Table>,
    /// Positions of the key's columns that have a constant default, and what it is by the catalog.
    pub key_defaults: Vec<(usize, Datum)>,
}

pub struct Shapes {
    pub selection: Selection,
    /// While a transaction is gone on with in whose middle the selection was changed: what its rows were counted by.
    counted: Option<Selection>,
    /// As the catalog had them when last asked.
    catalog: HashMap<TableId, CatalogTable>,
    /// What fitted last.
    fitted: HashMap<TableId, Vec<Known>>,
    made: HashMap<u64, Made>,
    tables: HashMap<TableId, Arc<Table>>,
    pub versions: BTreeMap<String, Noted>,
}

impl Shapes {
    pub fn new(selection: Selection, versions: BTreeMap<String, Noted>) -> Self {
        Self {
            selection,
            counted: None,
            catalog: HashMap::new(),
            fitted: HashMap::new(),
            made: HashMap::new(),
            tables: HashMap::new(),
            versions,
        }
    }

    /// Of this very table map; none if it is not captured or has to be made first.
    pub fn of(&self, map: &Arc<TableMap>) -> Option<&Made> {
        self.made.get(&map.table_id).filter(|made| Arc::ptr_eq(&made.map, map))
    }

    pub fn must_be_made(&self, map: &Arc<TableMap>) -> bool {
        self.is_counted(&map.database, &map.table) && self.of(map).is_none()
    }

    /// The rows of the first transaction that were given out were counted by this selection. A table that it does not have is captured from
    /// behind that transaction on.
    pub fn count_by(&mut self, selection: Selection) {
        self.counted = Some(selection);
    }

    pub fn end_counting(&mut self) {
        if self.counted.take().is_some() {
            self.made.clear();
        }
    }

    /// The patterns that rows are counted by.
    pub fn counted_by(&self) -> Vec<String> {
        self.counted.as_ref().unwrap_or(&self.selection).patterns().map(|(d, t)| format!("{d}.{t}")).collect()
    }

    fn is_counted(&self, database: &str, table: &str) -> bool {
        self.counted.as_ref().unwrap_or(&self.selection).has(database, table)
    }

    /// Of a counted table.
    pub fn is_given(&self, id: &TableId) -> bool {
        self.counted.is_none() || self.selection.has(&id.database, &id.table)
    }

    pub async fn make(&mut self, map: &Arc<TableMap>, sql: &mut Connection) -> Result<(), MakeError> {
        let id = TableId { database: map.database.clone(), schema: "".into(), table: map.table.clone() };
        let fits = |t: &CatalogTable| Shape::new(map, Some(&known(t))).is_ok();
        if !self.catalog.get(&id).is_some_and(fits) {
            self.read_again(&id, sql).await?;
        }
        let shape = self.choose(map, &id)?;
        if !shape.gaps().is_empty() {
            tracing::warn!(table = %id, gaps = shape.gaps().len(), "the table map has no names and the catalog is of another version of the table: columns are named by number");
        }
        let key_defaults = self.catalog.get(&id).map_or_else(Vec::new, |catalog| super::text::key_defaults(catalog, shape.columns()));
        let table = self.table(id, shape.columns().to_vec());
        if self.made.len() >= MADE_MAX {
            self.made.clear();
        }
        self.made.insert(map.table_id, Made { map: map.clone(), shape: Arc::new(shape), table, key_defaults });
        Ok(())
    }

    #[cfg(test)]
    pub fn knows(&mut self, table: CatalogTable) {
        self.catalog.insert(table.id.clone(), table);
    }

    async fn read_again(&mut self, id: &TableId, sql: &mut Connection) -> Result<(), WireError> {
        let found = catalog::read(sql, std::slice::from_ref(id)).await?.pop();
        match found {
            Some(table) => self.catalog.insert(id.clone(), table),
            None => self.catalog.remove(id),
        };
        Ok(())
    }

    fn choose(&mut self, map: &TableMap, id: &TableId) -> Result<Shape, BinlogError> {
        let catalog = self.catalog.get(id).map(known);
        let prefix = catalog.as_ref().and_then(|k| k.get(..map.columns.len())).map(<[Known]>::to_vec);
        let has_names = map.columns.iter().all(|c| c.name.is_some());
        let guesses = if has_names { [None, None] } else { [self.fitted.get(id).cloned(), prefix] };
        for candidate in [catalog.clone()].into_iter().chain(guesses).flatten() {
            if let Ok(shape) = Shape::new(map, Some(&candidate)) {
                self.fitted.insert(id.clone(), candidate);
                return Ok(shape);
            }
        }
        if has_names {
            let known: Vec<Known> = self.fitted.get(id).into_iter().flatten().chain(catalog.iter().flatten()).cloned().collect();
            return Shape::by_name(map, &known);
        }
        Shape::new(map, None)
    }

    /// The table in this shape; a new version if it is another than the last.
    pub fn table(&mut self, id: TableId, columns: Vec<Column>) -> Arc<Table> {
        if let Some(table) = self.tables.get(&id).filter(|t| t.columns == columns) {
            return table.clone();
        }
        let hash = hash(&columns);
        let noted = self.versions.entry(id.to_string()).or_insert(Noted { v: 0, hash });
        if noted.v == 0 || noted.hash != hash {
            *noted = Noted { v: noted.v + 1, hash };
        }
        let table = Arc::new(Table { id: id.clone(), version: noted.v, columns });
        self.tables.insert(id, table.clone());
        table
    }

    /// The table as last seen, for a statement that has no rows.
    pub async fn current(&mut self, name: &Name, sql: &mut Connection) -> Result<Option<Arc<Table>>, WireError> {
        if !self.is_counted(&name.database, &name.table) {
            return Ok(None);
        }
        let id = TableId { database: name.database.as_str().into(), schema: "".into(), table: name.table.as_str().into() };
        if let Some(table) = self.tables.get(&id) {
            return Ok(Some(table.clone()));
        }
        self.read_again(&id, sql).await?;
        let columns = self.catalog.get(&id).map(|t| super::text::TextShape::new(t).columns);
        Ok(columns.map(|columns| self.table(id, columns)))
    }

    /// Table numbers begin anew with a file.
    pub fn forget_made(&mut self) {
        self.made.clear();
    }

    /// A statement may have changed these, or, if none is named, any.
    pub fn forget(&mut self, names: &[Name]) {
        self.made.clear();
        let is_meant = |id: &TableId| names.is_empty() || names.iter().any(|n| n.database == *id.database && n.table == *id.table);
        self.catalog.retain(|id, _| !is_meant(id));
    }
}

fn known(table: &CatalogTable) -> Vec<Known> {
    let one =
        |c: &catalog::CatalogColumn| Known { name: c.name.clone(), native: c.native.clone(), charset: c.charset.clone(), is_key: c.is_key };
    table.columns.iter().map(one).collect()
}

/// FNV-1a: stored, so it must be the same in every version of this program.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    }
}

fn hash(columns: &[Column]) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    for c in columns {
        (&*c.name, &*c.native, c.is_nullable, c.is_key).hash(&mut hasher);
        hasher.write(format!("{:?}", c.kind).as_bytes());
    }
    // 53 bits: exact also where a JSON number is a double.
    hasher.finish() >> 11
}

#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Binlog(#[from] BinlogError),
}
