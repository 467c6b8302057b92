//! The changes of one table, followed one by one from the log: the table that they make, with every step held against the ones before it.

use super::World;
use super::database::{Dialect, Rows};
use super::workload::own_columns;
use crate::program::{output, text};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const UNCHANGED: &str = "__debezium_unavailable_value";

/// Records that are read at a time: events are large, and are not kept.
const RECORDS_PER_READ: &str = "10000";

pub struct Fold<'a> {
    world: &'a World,
    topic: String,
    dialect: Dialect,
    pub rows: Rows,
    /// Of the record that is read next.
    offset: u64,
    /// In the database's own order: the commit, and what tells changes of one transaction apart.
    place: Option<(Value, [u64; 3])>,
    /// The row before is whole in every update and delete, so that it must be the row that the changes before it have made.
    pub has_whole_befores: bool,
    /// The stream may have changes of rows that a snapshot has not reached yet.
    pub is_ahead_of_snapshot: bool,
    pub n_events: u64,
    /// How often a snapshot gave each row.
    pub reads: BTreeMap<i64, u32>,
}

impl<'a> Fold<'a> {
    /// Of a table where [`super::database::Database`] has its own, or of `database.table`.
    pub fn new(world: &'a World, dialect: Dialect, table: &str) -> Self {
        let topic = if table.contains('.') { format!("exchange.{table}") } else { dialect.topic(table) };
        Self {
            world,
            topic,
            dialect,
            rows: Rows::new(),
            offset: 0,
            place: None,
            has_whole_befores: dialect == Dialect::MariaDb,
            is_ahead_of_snapshot: false,
            n_events: 0,
            reads: BTreeMap::new(),
        }
    }

    /// Reads what has come to the log since; also while mulgil runs.
    pub fn read(&mut self) -> &mut Self {
        loop {
            let (config, data, from) = (&self.world.config, self.world.data(), self.offset.to_string());
            let out =
                output(&["log", "cat", &self.topic, "-n", RECORDS_PER_READ, "--from", &from, "-c", text(config), "--data", text(&data)]);
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() || said.contains("has no topic"), "{said}");
            let before = self.offset;
            for line in String::from_utf8(out.stdout).unwrap().lines() {
                let mut line: Value = serde_json::from_str(line).unwrap();
                let offset = line["_offset"].as_u64().unwrap();
                let event = line["value"].take();
                // A tombstone follows the event of the row that is gone.
                if !event.is_null() {
                    self.in_order(&event, offset);
                    self.follow(&event);
                }
                self.offset = offset + 1;
            }
            if self.offset == before {
                return self;
            }
        }
    }

    /// Each record is behind the one before it in the database's own order; so none is there twice. The events of one record share a place.
    fn in_order(&mut self, event: &Value, offset: u64) {
        let source = &event["source"];
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no place in {event}"));
        let place = match self.dialect {
            Dialect::Postgres => {
                let sequence: Vec<String> = serde_json::from_str(source["sequence"].as_str().unwrap()).unwrap();
                [0, sequence[0].parse().unwrap(), sequence[1].parse().unwrap()]
            }
            Dialect::MariaDb => {
                let (_, file) = source["file"].as_str().unwrap().rsplit_once('.').unwrap();
                [file.parse().unwrap(), number(&source["pos"]), number(&source["row"])]
            }
        };
        // A snapshot's rows have no place in the stream of their own.
        if event["op"] == "r" {
            return;
        }
        if let Some((last, at)) = &self.place {
            assert!(offset < self.offset || *at < place, "{} is out of order: {event}\nbehind {last}", self.topic);
        }
        self.place = Some((source.clone(), place));
    }

    fn follow(&mut self, event: &Value) {
        self.n_events += 1;
        let id = |side: &str| event[side]["id"].as_i64().unwrap_or_else(|| panic!("no id: {event}"));
        match event["op"].as_str().unwrap() {
            "r" => {
                *self.reads.entry(id("after")).or_default() += 1;
                self.rows.insert(id("after"), event["after"].clone());
            }
            "c" => {
                let old = self.rows.insert(id("after"), event["after"].clone());
                assert!(old.is_none(), "{} created what is there: {event}\nis {old:?}", self.topic);
            }
            "u" => {
                let old = self.taken(id("after"), event);
                self.rows.insert(id("after"), completed(old, event));
            }
            "d" => drop(self.taken(id("before"), event)),
            "t" => self.rows.clear(),
            other => panic!("an event of kind {other}: {event}"),
        }
    }

    /// The row that the event changes, as it was.
    fn taken(&mut self, id: i64, event: &Value) -> Option<Value> {
        let old = self.rows.remove(&id);
        let Some(row) = &old else {
            assert!(self.is_ahead_of_snapshot, "{} changed what is not there: {event}", self.topic);
            return None;
        };
        if self.has_whole_befores {
            let before = &event["before"];
            for column in own_columns().filter(|c| row.get(c).is_some()) {
                assert!(is_same(&before[column], &row[column]), "{} lost a change of '{column}' before {event}\nwas {row}", self.topic);
            }
        }
        old
    }

    /// Holds the table against what the database itself has.
    pub fn is_table(&self, table: &Rows) {
        let missing: Vec<&i64> = table.keys().filter(|id| !self.rows.contains_key(id)).take(10).collect();
        let invented: Vec<&i64> = self.rows.keys().filter(|id| !table.contains_key(id)).take(10).collect();
        assert!(missing.is_empty() && invented.is_empty(), "{}: missing {missing:?}, not in the table {invented:?}", self.topic);
        for (id, row) in table {
            let (have, want) = (self.rows[id].as_object().unwrap(), row.as_object().unwrap());
            let is_row = have.len() == want.len() && want.iter().all(|(name, value)| have.get(name).is_some_and(|v| is_same(v, value)));
            assert!(is_row, "{} {id}:\nlog   {}\ntable {row}", self.topic, self.rows[id]);
        }
    }
}

/// What the database did not send, because it had not changed, is as it was.
fn completed(old: Option<Value>, event: &Value) -> Value {
    let after: &Map<String, Value> = event["after"].as_object().unwrap();
    let whole = after.iter().map(|(name, value)| {
        let value = if *value == UNCHANGED { old.as_ref().map_or(value, |old| &old[name]) } else { value };
        (name.clone(), value.clone())
    });
    Value::Object(whole.collect())
}

/// Equal, but for a number's form: `1` is `1.0`.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) if x.is_f64() || y.is_f64() => x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| is_same(x, y)),
        _ => a == b,
    }
}
