//! A real server for the tests of snapshots, the change stream of a slot read with SQL, and a fold of both.

use bytes::Bytes;
use mulgil_capture::change::{Batch, Change, Op, Origin, Place, Row, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::postgres::address::Address;
use mulgil_capture::postgres::catalog::{Catalog, Selection};
use mulgil_capture::postgres::forms::Form;
use mulgil_capture::postgres::pgoutput::{self, Cell, Message, Old, Tuple};
use mulgil_capture::postgres::snapshot::contained::Contained;
use mulgil_capture::postgres::snapshot::error::SnapshotError;
use mulgil_capture::postgres::snapshot::notes::SnapshotNotes;
use mulgil_capture::postgres::snapshot::reader::{Pinned, Shapes, SnapshotReader, SnapshotTask};
use mulgil_capture::postgres::snapshot::{SnapshotSettings, Wanted, connect};
use mulgil_capture::postgres::values;
use mulgil_capture::postgres::wire::{Connection, Purpose};
use mulgil_capture::table::Table;
use mulgil_model::position::Position;
use mulgil_servers::{Postgres, Settings};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// One server for all tests of this process; each test has a database of its own.
pub fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(&Settings::default()).unwrap())
}

pub struct Database {
    pub name: String,
    pub address: Address,
    /// Keeps the exported snapshot of a fresh slot alive.
    replication: Option<Connection>,
}

pub fn settings() -> SnapshotSettings {
    SnapshotSettings { connections: 3, chunk_rows: 7, chunk_bytes: 1 << 20, span_rows: 40, span_pages: 1, ..SnapshotSettings::default() }
}

pub fn shapes() -> Shapes {
    Arc::new(|relation, attributes, types| Arc::new(relation.table(&"db".into(), attributes, types, 1)))
}

impl Database {
    pub fn new(name: &str, sql: &str) -> Self {
        server().sql(&format!("CREATE DATABASE {name}")).unwrap();
        server().sql_in(name, sql).unwrap();
        let address = server().url(name).parse().unwrap();
        Self { name: name.to_owned(), address, replication: None }
    }

    pub fn sql(&self, sql: &str) -> String {
        server().sql_in(&self.name, sql).unwrap()
    }

    /// A publication of all tables and a slot, whose snapshot is exported.
    pub async fn slot(&mut self) -> Pinned {
        self.sql("CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true)");
        let mut connection = Connection::open(&self.address, Purpose::Replication).await.unwrap();
        let rows = connection.query(&format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput EXPORT_SNAPSHOT", self.name)).await.unwrap();
        let text = |at: usize| String::from_utf8(rows[0][at].as_ref().unwrap().to_vec()).unwrap();
        self.replication = Some(connection);
        Pinned::Slot { snapshot: text(2), consistent_point: mulgil_capture::postgres::catalog::parse_lsn(&text(1)).unwrap() }
    }

    pub fn task(&self, tables: &[&str], pinned: Pinned) -> SnapshotTask {
        let after = match &pinned {
            Pinned::Slot { consistent_point, .. } => Position::new(consistent_point - 1, 0),
            Pinned::Now => Position::new(1, 0),
        };
        SnapshotTask {
            address: self.address.clone(),
            settings: settings(),
            tables: tables.iter().map(|t| Wanted::table("public", t)).collect(),
            pinned,
            after,
            is_reset: false,
            notes: None,
            shapes: shapes(),
        }
    }

    /// The rows of a table as they are now, read in another way than snapshots read them.
    pub async fn rows(&self, table: &str, columns: &str) -> Vec<Row> {
        let mut connection = connect(&self.address).await.unwrap();
        let catalog = Catalog::read(&mut connection, &Selection::Names(vec![("public".to_owned(), table.to_owned())])).await.unwrap();
        let names: Vec<&str> = columns.split(", ").map(|c| c.trim_matches('"')).collect();
        let relation = &catalog.relations[0];
        let forms: Vec<Form> = names
            .iter()
            .map(|name| relation.columns.iter().find(|c| &*c.name == *name).unwrap())
            .map(|c| Form::of(c.type_oid, c.typmod, &catalog.types))
            .collect();
        let rows = connection.query(&format!("SELECT {columns} FROM {}", relation.quoted())).await.unwrap();
        rows.into_iter().map(|row| row.into_iter().zip(&forms).map(|(cell, form)| datum(cell, form)).collect()).collect()
    }

    /// All of the slot's changes, by transaction: its number, the place of its commit, its changes.
    pub async fn stream(&self) -> Vec<(u32, u64, Vec<Change>)> {
        let mut connection = connect(&self.address).await.unwrap();
        let rows = connection
            .query(&format!(
                "SELECT data FROM pg_logical_slot_get_binary_changes('{}', NULL, NULL, 'proto_version', '1', \
                 'publication_names', 'p', 'messages', 'true')",
                self.name
            ))
            .await
            .unwrap();
        let mut stream = Stream { connection, tables: HashMap::new(), transactions: Vec::new(), origin: None };
        for row in rows {
            let Datum::Binary(data) = values::decode(&Form::Bytea, row[0].clone().unwrap()) else { panic!("no bytes") };
            stream.take(pgoutput::decode(data, false).unwrap().1).await;
        }
        stream.transactions
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Slots are few.
        let slot = &self.name;
        server()
            .sql(&format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active"))
            .ok();
    }
}

fn datum(cell: Option<Bytes>, form: &Form) -> Datum {
    cell.map_or(Datum::Null, |text| values::decode(form, text))
}

struct Stream {
    connection: Connection,
    tables: HashMap<u32, (Arc<Table>, Vec<Form>)>,
    transactions: Vec<(u32, u64, Vec<Change>)>,
    origin: Option<Arc<Origin>>,
}

impl Stream {
    async fn take(&mut self, message: Message) {
        match message {
            Message::Begin { final_lsn, xid, committed_us } => {
                let place = Place::Postgres { database: "db".into(), commit_lsn: final_lsn, txid: Some(xid) };
                self.origin = Some(Arc::new(Origin { committed_us, snapshot: Snapshot::No, place }));
                self.transactions.push((xid, final_lsn, Vec::new()));
            }
            Message::Relation(relation) => {
                let catalog = Catalog::read(&mut self.connection, &Selection::Oids(vec![relation.oid])).await.unwrap();
                let forms = relation.columns.iter().map(|c| Form::of(c.type_oid, c.typmod, &catalog.types)).collect();
                let Some(known) = catalog.relations.first() else { return };
                let is_sent = |name: &str| relation.columns.iter().any(|c| c.name == name);
                let attributes: Vec<_> = known.columns.iter().filter(|a| is_sent(&a.name)).cloned().collect();
                let table = Arc::new(known.table(&"db".into(), &attributes, &catalog.types, 1));
                self.tables.insert(relation.oid, (table, forms));
            }
            Message::Insert { relation, new } => self.row(relation, Op::Create, None, Some(new)),
            Message::Update { relation, old, new } => self.row(relation, Op::Update, old, Some(new)),
            Message::Delete { relation, old } => self.row(relation, Op::Delete, Some(old), None),
            Message::Truncate { relations, cascade, restart_identity } => {
                for relation in relations {
                    let table = self.tables[&relation].0.clone();
                    self.push(Op::Truncate, What::Truncate { table, cascade, restart_identity });
                }
            }
            Message::Logical { is_transactional, prefix, content, .. } => {
                self.push(Op::Message, What::Message { prefix, content, is_transactional });
            }
            _ => {}
        }
    }

    fn row(&mut self, relation: u32, op: Op, old: Option<Old>, new: Option<Tuple>) {
        let Some((table, forms)) = self.tables.get(&relation) else { return };
        let value = |tuple: &Tuple, cell: Cell<'_>, form: &Form, is_unknown: bool| match cell {
            Cell::Null if is_unknown => Datum::Unavailable,
            Cell::Null => Datum::Null,
            Cell::Unchanged => Datum::Unavailable,
            Cell::Text(text) => values::decode_part(form, tuple.bytes(), text),
            Cell::Binary(_) => panic!("not asked for"),
        };
        let row = |tuple: &Tuple, is_key: bool| -> Row {
            let columns = tuple.cells().zip(forms).zip(&table.columns);
            columns.map(|((cell, form), column)| value(tuple, cell, form, is_key && !column.is_key)).collect()
        };
        let before = old.map(|old| match old {
            Old::Key(tuple) => row(&tuple, true),
            Old::Full(tuple) => row(&tuple, false),
        });
        let after = new.map(|tuple| row(&tuple, false));
        let what = What::Row { table: table.clone(), before, after };
        self.push(op, what);
    }

    fn push(&mut self, op: Op, what: What) {
        let (_, lsn, changes) = self.transactions.last_mut().unwrap();
        let position = Position::new(*lsn, changes.len() as u64 + 1);
        changes.push(Change { op, what, position, origin: self.origin.clone().unwrap() });
    }
}

/// What a consumer has after all changes: for tables with a key by the key, for others a bag of rows. Fails where a change makes no sense: a
/// create or read of what is there, an update or delete of what is not.
#[derive(Default)]
pub struct Fold {
    tables: BTreeMap<String, BTreeMap<String, Row>>,
    bags: BTreeMap<String, Vec<String>>,
    last: Position,
    /// An incremental snapshot gives rows that are there.
    pub is_lenient: bool,
    /// The consumer has not been given all rows yet: an update of one that it does not have brings it.
    pub is_partial: bool,
    /// The stream of a slot that was there before the snapshot begins below it.
    pub is_unordered: bool,
}

impl Fold {
    /// Of a consumer that begins while an incremental snapshot is under way.
    pub fn partial() -> Self {
        Self { is_lenient: true, is_partial: true, ..Self::default() }
    }

    pub fn apply(&mut self, change: &Change) {
        assert!(self.is_unordered || change.position > self.last, "{:?} behind {:?}", change.position, self.last);
        self.last = change.position;
        let Some(id) = change.what.table() else { return };
        let name = id.table.to_string();
        match &change.what {
            What::Truncate { .. } => {
                self.tables.remove(&name);
                self.bags.remove(&name);
            }
            What::Row { table, before, after } if table.key().next().is_none() => {
                let bag = self.bags.entry(name).or_default();
                if let Some(before) = before {
                    let at = bag.iter().position(|r| *r == format!("{before:?}")).unwrap();
                    bag.swap_remove(at);
                }
                bag.extend(after.iter().map(|row| format!("{row:?}")));
            }
            What::Row { table, before, after } => self.keyed(change.op, name, table, before.as_ref(), after.as_ref()),
            What::Message { .. } => {}
        }
    }

    fn keyed(&mut self, op: Op, name: String, table: &Table, before: Option<&Row>, after: Option<&Row>) {
        let is_lenient = self.is_lenient && op == Op::Read;
        let rows = self.tables.entry(name).or_default();
        let key = |row: &Row| table.key().map(|i| format!("{:?}", row[i])).collect::<Vec<_>>().join(",");
        let old_key = before.or(after).map(key).unwrap();
        let old = if op == Op::Create || op == Op::Read { None } else { rows.remove(&old_key) };
        assert!(old.is_some() || matches!(op, Op::Create | Op::Read) || self.is_partial, "{op:?} of {old_key}, which is not there");
        let Some(after) = after else { return };
        let kept = |at: usize| old.as_ref().map_or(Datum::Unavailable, |old| old[at].clone());
        let row: Row =
            after.iter().enumerate().map(|(at, value)| if *value == Datum::Unavailable { kept(at) } else { value.clone() }).collect();
        assert!(!row.contains(&Datum::Unavailable), "{op:?}: a value that nobody knows");
        let there = rows.insert(key(&row), row);
        assert!(there.is_none() || is_lenient, "{op:?} of {}, which is there", key(after));
    }

    pub fn batch(&mut self, batch: &Batch) {
        for change in &batch.changes {
            self.apply(change);
        }
        assert!(batch.resume.position >= self.last, "a batch whose place is behind its rows");
        self.last = batch.resume.position;
    }

    pub fn n_rows(&self, table: &str) -> usize {
        self.tables.get(table).map_or(0, BTreeMap::len) + self.bags.get(table).map_or(0, Vec::len)
    }

    /// Fails unless the table has just these rows.
    pub fn assert_equals(&self, table: &str, rows: Vec<Row>) {
        let mut expected: Vec<String> = rows.iter().map(|r| format!("{r:?}")).collect();
        let keyed = self.tables.get(table).into_iter().flat_map(BTreeMap::values).map(|r| format!("{r:?}"));
        let mut found: Vec<String> = keyed.chain(self.bags.get(table).into_iter().flatten().cloned()).collect();
        expected.sort_unstable();
        found.sort_unstable();
        let differs = expected.iter().zip(&found).find(|(a, b)| a != b);
        assert_eq!(expected.len(), found.len(), "{table}: first difference {differs:?}");
        assert_eq!(differs, None, "{table}");
    }
}

/// The notes that a batch is stored with.
pub fn notes_of(batch: &Batch) -> SnapshotNotes {
    // As they come back from the disk.
    let stored = batch.resume.notes.to_string();
    let mut notes: serde_json::Value = serde_json::from_str(&stored).unwrap();
    serde_json::from_value(notes["snapshot"].take()).unwrap()
}

/// Reads a snapshot to its end.
pub async fn read_all(task: SnapshotTask) -> Result<Vec<Batch>, SnapshotError> {
    let mut reader = SnapshotReader::open(task).await?;
    let mut batches = Vec::new();
    while let Some(batch) = reader.next().await? {
        batches.push(batch);
    }
    Ok(batches)
}

/// The stream behind the snapshot, without what the snapshot has.
pub async fn stream_behind(database: &Database, notes: &SnapshotNotes, fold: &mut Fold) {
    let contained = Contained::of(notes);
    let mut connection = connect(&database.address).await.unwrap();
    for (xid, lsn, changes) in database.stream().await {
        let is_passed = contained.is_passed(lsn);
        let n_before = changes.len();
        let left = contained.remove(&mut connection, changes, xid).await.unwrap();
        assert!(!is_passed || left.len() == n_before, "a change behind the newest view was taken out");
        left.iter().for_each(|change| fold.apply(change));
    }
}

/// Numbers that look random, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    /// Of 0 to `below`, without it (xorshift64*, Vigna 2014).
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % below
    }
}
