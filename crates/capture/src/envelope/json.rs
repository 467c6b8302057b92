//! Debezium's JSON: what its PostgreSQL, MySQL and MariaDB connectors (3.5) send through Kafka Connect's JsonConverter, so that a consumer
//! of theirs works unchanged. Held against the output of the real engine: `testdata/debezium`.
//!
//! Where this differs on purpose, since Debezium loses or invents a value there (all measured, see `testdata/debezium`):
//!
//! | value | Debezium | here |
//! |---|---|---|
//! | numeric NaN or Infinity, `precise` and `double` | null | refused, named; text with `decimal.handling.mode = string` |
//! | `bigint unsigned` above 2^63, mode `long` | a negative number | the number |
//! | timestamp without zone beyond 64 bits of microseconds | wrapped around | refused, named |
//! | MySQL `TIME` beyond a day in modes `connect` and `isostring` | null | refused, named |
//! | PostgreSQL type `name` in `precise`; comma in an enum's value | null; a backslash added | the text |
//! | not-null column that `before` lacks | 0, empty, or the column's default | null, in a schema that allows it |
//! | column without a value at all (minimal row image) that has no room for the placeholder | null | the field is left out |
//! | MariaDB `uuid` | null | the UUID |
//! | types unknown to it | left out | their text |
//!
//! `source.lsn` is the commit's, not the single record's, and `source.sequence` is (commit, ordinal): unique, and in commit order.
//! A numeric without a declared scale keeps the zeros at its end. Defaults of columns are not in the schema. `xmin`, `origin` and `query` are null. A topic of transaction boundaries is not written.

use super::form::Form;
pub use super::form::{Binaries, Connector, Decimals, Intervals, Times, UnsignedBigints};
use super::key::{key_has_changed, key_values};
use super::text::{push_int, push_json_escaped, push_json_string, push_signed};
use super::value::{Refusal, push_bytes, push_value};
use crate::change::{Change, Op, Origin, Place, Row, Snapshot, What};
use crate::datum::Datum;
use crate::table::{Table, TableId};
use mulgil_model::time::ReceiveTime;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Debezium's words for what it can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonOptions {
    pub connector: Connector,
    /// `topic.prefix`
    pub prefix: String,
    /// `schemas.enable`
    pub schemas: bool,
    pub decimals: Decimals,
    /// Must be said to have [`Decimals::Double`].
    pub allow_inexact_decimals: bool,
    pub times: Times,
    pub binaries: Binaries,
    pub intervals: Intervals,
    pub unsigned_bigints: UnsignedBigints,
    /// `tombstones.on.delete`
    pub tombstones: bool,
    /// `provide.transaction.metadata`: the block `transaction` is filled. Orders count from where the writer began: one that begins within
    /// a transaction counts the rest of it.
    pub transactions: bool,
    /// `unavailable.value.placeholder`
    pub placeholder: String,
}

impl JsonOptions {
    pub fn new(connector: Connector, prefix: &str) -> Self {
        Self {
            connector,
            prefix: prefix.to_owned(),
            schemas: false,
            decimals: Decimals::default(),
            allow_inexact_decimals: false,
            times: Times::default(),
            binaries: Binaries::default(),
            intervals: Intervals::default(),
            unsigned_bigints: UnsignedBigints::default(),
            tombstones: true,
            transactions: false,
            placeholder: "__debezium_unavailable_value".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("decimal.handling.mode = double loses digits of money: use precise or string, or say that inexact decimals are wanted")]
    Inexact,
    #[error("column '{column}' of {table} cannot be written as Debezium's JSON: {reason}")]
    Value { table: String, column: String, reason: &'static str },
    #[error("a change of {table} has a row of {found} values where its table has {expected} columns")]
    Width { table: String, found: usize, expected: usize },
    #[error("an event is larger than {EVENT_BYTES_MAX} bytes: exclude a column of {table}")]
    TooLarge { table: String },
}

/// The longest event: what one record may be.
pub const EVENT_BYTES_MAX: usize = 256 << 20;

/// Shapes of tables whose forms are kept; all are forgotten when there are more.
const TABLES_MAX: usize = 4_096;

/// What a change becomes: mostly one event; an update of the key is a delete, a tombstone and a create.
#[derive(Debug, Default)]
pub struct Events {
    bytes: Vec<u8>,
    list: Vec<Spans>,
}

#[derive(Debug)]
struct Spans {
    topic: Arc<str>,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    pub topic: &'a str,
    /// None where the table has no key.
    pub key: Option<&'a [u8]>,
    /// None: a tombstone.
    pub value: Option<&'a [u8]>,
}

impl Events {
    pub fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        let bytes = |span: &Option<Range<usize>>| span.clone().map(|span| &self.bytes[span]);
        self.list.iter().map(move |s| Event { topic: &s.topic, key: bytes(&s.key), value: bytes(&s.value) })
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }
}

/// What is the same for every row of a table's shape.
#[derive(Debug)]
struct Prepared {
    /// Held, so that its address stays its own.
    _table: Arc<Table>,
    topic: Arc<str>,
    /// `"name":` with the comma before it, and the form.
    columns: Vec<(Vec<u8>, Form)>,
    key_schema: Vec<u8>,
    value_schema: Vec<u8>,
    /// For events that lack values of columns which may not be null.
    lenient_schema: Vec<u8>,
}

pub struct JsonWriter {
    options: JsonOptions,
    tables: HashMap<usize, Arc<Prepared>>,
    transaction: Counts,
    message_schema: Vec<u8>,
}

/// Orders within the transaction at hand.
#[derive(Debug, Default)]
struct Counts {
    id: String,
    total: u64,
    of: HashMap<TableId, u64>,
}

impl JsonWriter {
    pub fn new(options: JsonOptions) -> Result<Self, JsonError> {
        if options.decimals == Decimals::Double && !options.allow_inexact_decimals {
            return Err(JsonError::Inexact);
        }
        let message_schema = super::json_schema::message(&options);
        Ok(Self { options, tables: HashMap::new(), transaction: Counts::default(), message_schema })
    }

    /// Replaces `events` by those of a change. `at` is when this program processes it: Debezium's outer `ts_ms`. On an error nothing is left
    /// in `events`: the change belongs to the dead letters.
    pub fn write(&mut self, change: &Change, at: ReceiveTime, events: &mut Events) -> Result<(), JsonError> {
        events.clear();
        let result = match &change.what {
            What::Row { table, before, after } => self.write_row(change, at, table, before.as_ref(), after.as_ref(), events),
            What::Truncate { table, .. } => {
                let prepared = self.prepare(table);
                self.count(change);
                let envelope = Envelope { change, at, op: Op::Truncate, before: None, after: None };
                self.push_event(events, &prepared, table, None, &envelope)
            }
            What::Message { prefix, content, .. } => {
                self.count(change);
                self.push_message(events, change, at, prefix, content);
                Ok(())
            }
        };
        if result.is_err() {
            events.clear();
        }
        result
    }

    fn write_row(
        &mut self,
        change: &Change,
        at: ReceiveTime,
        table: &Arc<Table>,
        before: Option<&Row>,
        after: Option<&Row>,
        events: &mut Events,
    ) -> Result<(), JsonError> {
        for row in [before, after].into_iter().flatten() {
            if row.len() != table.columns.len() {
                return Err(JsonError::Width { table: table.id.to_string(), found: row.len(), expected: table.columns.len() });
            }
        }
        let prepared = self.prepare(table);
        let key = key_values(table, before, after);
        if change.op == Op::Update && key_has_changed(table, before, after) {
            let old_key = key_values(table, None, before);
            self.count(change);
            let gone = Envelope { change, at, op: Op::Delete, before, after: None };
            self.push_event(events, &prepared, table, old_key.as_deref(), &gone)?;
            self.push_tombstone(events, &prepared, table, old_key.as_deref())?;
            self.count(change);
            let come = Envelope { change, at, op: Op::Create, before: None, after };
            return self.push_event(events, &prepared, table, key.as_deref(), &come);
        }
        self.count(change);
        let envelope = Envelope { change, at, op: change.op, before, after };
        self.push_event(events, &prepared, table, key.as_deref(), &envelope)?;
        if change.op == Op::Delete { self.push_tombstone(events, &prepared, table, key.as_deref()) } else { Ok(()) }
    }

    fn prepare(&mut self, table: &Arc<Table>) -> Arc<Prepared> {
        let address = Arc::as_ptr(table) as usize;
        if let Some(prepared) = self.tables.get(&address) {
            return Arc::clone(prepared);
        }
        if self.tables.len() >= TABLES_MAX {
            self.tables.clear();
        }
        let prepared = Arc::new(Prepared::of(table, &self.options));
        self.tables.insert(address, Arc::clone(&prepared));
        prepared
    }

    fn has_transaction(&self, change: &Change) -> bool {
        let is_outside = matches!(change.what, What::Message { is_transactional: false, .. }) || change.origin.snapshot != Snapshot::No;
        self.options.transactions && !is_outside
    }

    fn count(&mut self, change: &Change) {
        if !self.has_transaction(change) {
            return;
        }
        let id = transaction_id(&change.origin);
        if id != self.transaction.id {
            self.transaction = Counts { id, ..Counts::default() };
        }
        self.transaction.total += 1;
        if let Some(table) = change.what.table() {
            *self.transaction.of.entry(table.clone()).or_default() += 1;
        }
    }

    fn push_tombstone(&self, events: &mut Events, prepared: &Prepared, table: &Table, key: Option<&[&Datum]>) -> Result<(), JsonError> {
        if !self.options.tombstones {
            return Ok(());
        }
        let key = self.push_key(&mut events.bytes, prepared, table, key)?;
        events.list.push(Spans { topic: Arc::clone(&prepared.topic), key, value: None });
        Ok(())
    }

    fn push_key(
        &self,
        out: &mut Vec<u8>,
        prepared: &Prepared,
        table: &Table,
        key: Option<&[&Datum]>,
    ) -> Result<Option<Range<usize>>, JsonError> {
        let Some(values) = key.filter(|values| !values.is_empty()) else { return Ok(None) };
        let start = out.len();
        self.open_payload(out, &prepared.key_schema);
        out.push(b'{');
        for (n, (i, datum)) in table.key().zip(values).enumerate() {
            let (name, form) = &prepared.columns[i];
            out.extend_from_slice(if n == 0 { &name[1..] } else { name });
            if **datum == Datum::Unavailable {
                return Err(value_error(table, i, "the database did not send this column of the key"));
            }
            push_value(out, form, datum).map_err(|reason| value_error(table, i, reason))?;
        }
        out.push(b'}');
        self.close_payload(out);
        Ok(Some(start..out.len()))
    }

    fn push_event(
        &self,
        events: &mut Events,
        prepared: &Prepared,
        table: &Table,
        key: Option<&[&Datum]>,
        envelope: &Envelope<'_>,
    ) -> Result<(), JsonError> {
        let key = self.push_key(&mut events.bytes, prepared, table, key)?;
        let out = &mut events.bytes;
        let start = out.len();
        let lacks = |row: Option<&Row>| row.is_some_and(|row| is_lacking(table, row));
        let is_lenient = lacks(envelope.before) || lacks(envelope.after);
        self.open_payload(out, if is_lenient { &prepared.lenient_schema } else { &prepared.value_schema });
        out.extend_from_slice(b"{\"before\":");
        self.push_row(out, prepared, table, envelope.before, true)?;
        out.extend_from_slice(b",\"after\":");
        self.push_row(out, prepared, table, envelope.after, false)?;
        out.extend_from_slice(b",\"source\":");
        self.push_source(out, envelope.change, Some(&table.id));
        self.push_transaction(out, envelope.change, Some(&table.id));
        out.extend_from_slice(b",\"op\":\"");
        out.extend_from_slice(envelope.op.letter().as_bytes());
        out.push(b'"');
        push_times(out, envelope.at.micros());
        out.push(b'}');
        self.close_payload(out);
        if out.len() - start > EVENT_BYTES_MAX {
            return Err(JsonError::TooLarge { table: table.id.to_string() });
        }
        events.list.push(Spans { topic: Arc::clone(&prepared.topic), key, value: Some(start..out.len()) });
        Ok(())
    }

    fn push_row(&self, out: &mut Vec<u8>, prepared: &Prepared, table: &Table, row: Option<&Row>, is_before: bool) -> Result<(), JsonError> {
        let Some(row) = row else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        let start = out.len() + 1;
        out.push(b'{');
        for (i, datum) in row.iter().enumerate() {
            let (name, form) = &prepared.columns[i];
            // Of the row before, Debezium's consumers expect what is not part of the replica identity as null.
            let is_left_out = *datum == Datum::Unavailable && !is_before && !form.has_room_for_placeholder();
            if is_left_out {
                continue;
            }
            out.extend_from_slice(if out.len() == start { &name[1..] } else { name });
            match datum {
                Datum::Unavailable if is_before => out.extend_from_slice(b"null"),
                Datum::Unavailable => form.push_placeholder(out, &self.options.placeholder),
                datum => push_value(out, form, datum).map_err(|reason| value_error(table, i, reason))?,
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn open_payload(&self, out: &mut Vec<u8>, schema: &[u8]) {
        if self.options.schemas {
            out.extend_from_slice(b"{\"schema\":");
            out.extend_from_slice(schema);
            out.extend_from_slice(b",\"payload\":");
        }
    }

    fn close_payload(&self, out: &mut Vec<u8>) {
        if self.options.schemas {
            out.push(b'}');
        }
    }

    fn push_source(&self, out: &mut Vec<u8>, change: &Change, table: Option<&TableId>) {
        let connector = self.options.connector.name();
        out.extend_from_slice(concat!("{\"version\":\"mulgil ", env!("CARGO_PKG_VERSION"), "\",\"connector\":\"").as_bytes());
        out.extend_from_slice(connector.as_bytes());
        out.extend_from_slice(b"\",\"name\":");
        push_json_string(out, self.options.prefix.as_bytes());
        let us = change.origin.committed_us;
        out.extend_from_slice(b",\"ts_ms\":");
        push_signed(out, us.div_euclid(1_000));
        out.extend_from_slice(b",\"snapshot\":\"");
        out.extend_from_slice(match change.origin.snapshot {
            Snapshot::No => b"false",
            Snapshot::Initial => b"true",
            Snapshot::Last => b"last",
            Snapshot::Incremental => b"incremental",
        });
        out.push(b'"');
        match &change.origin.place {
            Place::Postgres { database, commit_lsn, txid } => {
                push_named(out, "db", database);
                out.extend_from_slice(b",\"sequence\":\"[\\\"");
                push_int(out, *commit_lsn);
                out.extend_from_slice(b"\\\",\\\"");
                push_int(out, change.position.ordinal);
                out.extend_from_slice(b"\\\"]\"");
                push_fine_times(out, us);
                push_named(out, "schema", table.map_or("", |t| &t.schema));
                push_named(out, "table", table.map_or("", |t| &t.table));
                push_number(out, "txId", txid.map(u64::from));
                push_number(out, "lsn", Some(*commit_lsn));
                out.extend_from_slice(b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null}");
            }
            Place::Mysql { server_id, file, at, gtid, thread } => {
                push_named(out, "db", table.map_or("", |t| &t.database));
                out.extend_from_slice(b",\"sequence\":null");
                push_fine_times(out, us);
                push_named(out, "table", table.map_or("", |t| &t.table));
                push_number(out, "server_id", Some(u64::from(*server_id)));
                match gtid {
                    Some(gtid) => push_named(out, "gtid", gtid),
                    None => out.extend_from_slice(b",\"gtid\":null"),
                }
                push_named(out, "file", file);
                push_number(out, "pos", Some(*at));
                push_number(out, "row", Some(change.position.ordinal.min(i32::MAX as u64)));
                push_number(out, "thread", thread.map(u64::from));
                out.extend_from_slice(b",\"query\":null}");
            }
        }
    }

    fn push_transaction(&self, out: &mut Vec<u8>, change: &Change, table: Option<&TableId>) {
        if !self.has_transaction(change) {
            out.extend_from_slice(b",\"transaction\":null");
            return;
        }
        out.extend_from_slice(b",\"transaction\":{\"id\":");
        push_json_string(out, self.transaction.id.as_bytes());
        push_number(out, "total_order", Some(self.transaction.total));
        let of_table = table.map_or(self.transaction.total, |t| self.transaction.of.get(t).copied().unwrap_or(1));
        push_number(out, "data_collection_order", Some(of_table));
        out.push(b'}');
    }

    fn push_message(&self, events: &mut Events, change: &Change, at: ReceiveTime, prefix: &str, content: &[u8]) {
        let out = &mut events.bytes;
        self.open_payload(out, super::json_schema::MESSAGE_KEY.as_bytes());
        out.extend_from_slice(b"{\"prefix\":");
        push_json_string(out, prefix.as_bytes());
        out.push(b'}');
        self.close_payload(out);
        let start = out.len();
        self.open_payload(out, &self.message_schema);
        out.extend_from_slice(b"{\"op\":\"m\",\"ts_ms\":");
        push_signed(out, at.micros().div_euclid(1_000));
        out.extend_from_slice(b",\"source\":");
        self.push_source(out, change, None);
        self.push_transaction(out, change, None);
        out.extend_from_slice(b",\"message\":{\"prefix\":");
        push_json_string(out, prefix.as_bytes());
        out.extend_from_slice(b",\"content\":");
        push_bytes(out, self.options.binaries, content);
        out.extend_from_slice(b"}}");
        self.close_payload(out);
        let topic = topic_name(&format!("{}.message", self.options.prefix)).into();
        events.list.push(Spans { topic, key: Some(0..start), value: Some(start..out.len()) });
    }
}

/// What one event says.
struct Envelope<'a> {
    change: &'a Change,
    at: ReceiveTime,
    op: Op,
    before: Option<&'a Row>,
    after: Option<&'a Row>,
}

impl Prepared {
    fn of(table: &Arc<Table>, options: &JsonOptions) -> Self {
        let id = &table.id;
        let middle = if id.schema.is_empty() { &id.database } else { &id.schema };
        let topic = topic_name(&format!("{}.{middle}.{}", options.prefix, id.table));
        let forms: Vec<Form> = table.columns.iter().map(|c| Form::of(c, options)).collect();
        let (key_schema, value_schema, lenient_schema) = super::json_schema::of_table(table, &forms, &topic, options);
        let columns = table.columns.iter().zip(forms).map(|(column, form)| {
            let mut name = b",\"".to_vec();
            push_json_escaped(&mut name, column.name.as_bytes());
            name.extend_from_slice(b"\":");
            (name, form)
        });
        let columns = columns.collect();
        Self { _table: Arc::clone(table), topic: topic.into(), columns, key_schema, value_schema, lenient_schema }
    }
}

/// Kafka's letters of a topic's name; Debezium writes `_` for every other.
fn topic_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' }).collect()
}

fn transaction_id(origin: &Origin) -> String {
    match &origin.place {
        Place::Postgres { commit_lsn, txid, .. } => format!("{}:{commit_lsn}", txid.unwrap_or(0)),
        Place::Mysql { gtid: Some(gtid), .. } => gtid.to_string(),
        Place::Mysql { file, at, .. } => format!("file={file},pos={at}"),
    }
}

/// Whether a value is missing that the strict schema asks for.
fn is_lacking(table: &Table, row: &Row) -> bool {
    row.iter().zip(&table.columns).any(|(datum, column)| !column.is_nullable && matches!(datum, Datum::Unavailable | Datum::Null))
}

fn value_error(table: &Table, column: usize, reason: Refusal) -> JsonError {
    JsonError::Value { table: table.id.to_string(), column: table.columns[column].name.to_string(), reason }
}

fn push_named(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    push_json_string(out, text.as_bytes());
}

fn push_number(out: &mut Vec<u8>, name: &str, n: Option<u64>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    match n {
        Some(n) => push_int(out, n),
        None => out.extend_from_slice(b"null"),
    }
}

fn push_times(out: &mut Vec<u8>, us: i64) {
    out.extend_from_slice(b",\"ts_ms\":");
    push_signed(out, us.div_euclid(1_000));
    push_fine_times(out, us);
}

/// Nanoseconds beyond 64 bits (the years before 1678 and after 2261) stay at the end of what they can say.
fn push_fine_times(out: &mut Vec<u8>, us: i64) {
    out.extend_from_slice(b",\"ts_us\":");
    push_signed(out, us);
    out.extend_from_slice(b",\"ts_ns\":");
    push_signed(out, us.saturating_mul(1_000));
}
