//! What is read of each table, and in which parts.

use super::copy::{CopyRows, Piece};
use super::error::SnapshotError;
use super::key::{self, KeyColumn};
use super::notes::{KeyText, SpanNotes, TableNotes, TableState};
use super::{SnapshotSettings, Wanted};
use crate::postgres::catalog::{Attribute, Leaf, Relation, Shape, Types};
use crate::postgres::forms::Form;
use crate::postgres::wire::{Connection, WireError, identifier};
use crate::table::Table;
use bytes::Bytes;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// A table is read in at most so many ranges, however large it is: each has its place in the notes.
const SPANS_MAX: usize = 64;
/// Looked at for each range's bound.
const SAMPLES_PER_SPAN: u64 = 200;
/// Of a table that was never analysed.
const ROWS_PER_PAGE: u64 = 50;
/// A sample reads a few hundred pages.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(120);

/// A table as it is read.
pub(super) struct TablePlan {
    pub table: Arc<Table>,
    /// `public.orders`, for messages and for the program's log.
    pub name: String,
    /// What `COPY` writes, in the order of the table's columns.
    pub attributes: Vec<Attribute>,
    pub forms: Vec<Form>,
    pub key: Vec<KeyColumn>,
    /// `ONLY "public"."orders"`
    from: String,
    /// `"public"."orders"`
    pub quoted: String,
    filter: Option<String>,
    pub leaves: Vec<Leaf>,
    pub form: u64,
    pub oid: u32,
    pub n_rows_estimated: Option<u64>,
    can_sample: bool,
}

/// A part of a table that one connection reads from its begin to its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// In the order of the key, from behind one to another; `None`: without a bound.
    Keys { above: Option<KeyText>, upto: Option<KeyText> },
    /// Pages of one file, in no order. The last part has no upper bound.
    Pages { leaf: usize, from: u64, to: Option<u64> },
    /// All rows of a leaf.
    Leaf(usize),
}

impl TablePlan {
    /// `make` gives the table in the shape in which changes carry it.
    pub fn new(relation: &Relation, types: &Types, wanted: &Wanted, make: impl FnOnce(&[Attribute]) -> Arc<Table>) -> Self {
        let is_wanted =
            |a: &&Attribute| !a.is_generated && wanted.columns.as_ref().is_none_or(|names| names.iter().any(|n| **n == *a.name));
        let attributes: Vec<Attribute> = relation.columns.iter().filter(is_wanted).cloned().collect();
        let numbers: Vec<i16> = attributes.iter().map(|a| a.number).collect();
        let quoted = relation.quoted();
        Self {
            table: make(&attributes),
            name: format!("{}.{}", relation.schema, relation.name),
            key: key::choose(relation, &numbers),
            from: if relation.shape == Shape::Ordinary { format!("ONLY {quoted}") } else { quoted.clone() },
            quoted,
            filter: wanted.filter.clone(),
            leaves: relation.leaves.clone(),
            form: form(relation, &attributes),
            oid: relation.oid,
            n_rows_estimated: relation.n_rows_estimated(),
            can_sample: relation.shape != Shape::Hypertable,
            forms: attributes.iter().map(|a| Form::of(a.type_oid, a.typmod, types)).collect(),
            attributes,
        }
    }

    /// Notes of a table of which nothing is read yet. Reads bounds of ranges from a sample if the table is large.
    pub async fn begin(&self, connection: &mut Connection, settings: &SnapshotSettings) -> Result<TableNotes, SnapshotError> {
        let mut spans = Vec::new();
        if !self.key.is_empty() {
            spans.extend(self.bounds(connection, settings).await?.into_iter().map(|b| SpanNotes { upto: Some(b), ..SpanNotes::default() }));
            spans.push(SpanNotes::default());
        }
        let (schema, name) = (self.table.id.schema.to_string(), self.table.id.table.to_string());
        let (form, oid, key, n_rows_estimated) = (self.form, self.oid, self.key.clone(), self.n_rows_estimated);
        Ok(TableNotes { schema, name, oid, form, key, n_rows: 0, n_rows_estimated, state: TableState::Reading, spans })
    }

    /// What is still to be read, with the span each part is of.
    pub fn parts(&self, notes: &TableNotes, settings: &SnapshotSettings) -> Vec<(usize, Part)> {
        if self.key.is_empty() {
            return self.pages(settings).into_iter().enumerate().collect();
        }
        let mut parts = Vec::new();
        let mut begin: Option<&KeyText> = None;
        for (at, span) in notes.spans.iter().enumerate() {
            if !span.is_done {
                parts.push((at, Part::Keys { above: span.last().or(begin).cloned(), upto: span.upto.clone() }));
            }
            begin = span.upto.as_ref();
        }
        parts
    }

    /// PostgreSQL 14's TID range scan ("Release 14", E.23.3.1.3) reads pages without looking at the others. A hypertable's chunk is read whole,
    /// since the rows of a compressed one do not lie in its own pages.
    fn pages(&self, settings: &SnapshotSettings) -> Vec<Part> {
        let step = settings.span_pages.max(1);
        let mut parts = Vec::new();
        for (at, leaf) in self.leaves.iter().enumerate() {
            if !self.can_sample || leaf.n_pages <= step {
                parts.push(Part::Leaf(at));
                continue;
            }
            let step = step.max(leaf.n_pages / SPANS_MAX as u64);
            let mut from = 0;
            while from + step < leaf.n_pages {
                parts.push(Part::Pages { leaf: at, from, to: Some(from + step) });
                from += step;
            }
            parts.push(Part::Pages { leaf: at, from, to: None });
        }
        parts
    }

    /// The statement that writes a part's rows.
    pub fn copy(&self, part: &Part) -> String {
        format!("COPY ({}) TO STDOUT", self.select(part))
    }

    /// The first rows of a part, at most `n_rows`: a chunk of an incremental snapshot.
    pub fn copy_first(&self, part: &Part, n_rows: usize) -> String {
        format!("COPY ({} LIMIT {n_rows}) TO STDOUT", self.select(part))
    }

    fn select(&self, part: &Part) -> String {
        let columns = self.attributes.iter().map(|a| identifier(&a.name)).collect::<Vec<_>>().join(", ");
        let mut conditions: Vec<String> = self.filter.iter().map(|f| format!("({f})")).collect();
        let mut order = String::new();
        let from = match part {
            Part::Keys { above, upto } => {
                conditions.extend(above.iter().map(|k| key::above(&self.key, k)));
                conditions.extend(upto.iter().map(|k| key::upto(&self.key, k)));
                order = format!(" ORDER BY {}", key::order(&self.key));
                self.from.clone()
            }
            Part::Pages { leaf, from, to } => {
                conditions.push(format!("ctid >= '({from},0)'::tid"));
                conditions.extend(to.map(|to| format!("ctid < '({to},0)'::tid")));
                format!("ONLY {}", self.leaves[*leaf].quoted())
            }
            Part::Leaf(leaf) => format!("ONLY {}", self.leaves[*leaf].quoted()),
        };
        let conditions = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("SELECT {columns} FROM {from}{conditions}{order}")
    }

    /// Bounds that cut the table into ranges of about `span_rows` rows: every n-th key of a sample of its pages, in order.
    async fn bounds(&self, connection: &mut Connection, settings: &SnapshotSettings) -> Result<Vec<KeyText>, SnapshotError> {
        let n_pages: u64 = self.leaves.iter().map(|l| l.n_pages).sum();
        let n_rows = self.n_rows_estimated.unwrap_or(n_pages * ROWS_PER_PAGE);
        let n_spans = (n_rows / settings.span_rows.max(1)).clamp(1, SPANS_MAX as u64);
        if n_spans < 2 || !self.can_sample {
            return Ok(Vec::new());
        }
        let percent = (100.0 * (n_spans * SAMPLES_PER_SPAN) as f64 / n_rows as f64).clamp(0.01, 100.0);
        let (names, order) = (key::names(&self.key), key::order(&self.key));
        let sql = format!(
            "COPY (SELECT {names} FROM (SELECT {names}, row_number() OVER (ORDER BY {order}) AS \"mulgil n\", count(*) OVER () AS \"mulgil of\" \
             FROM {} TABLESAMPLE SYSTEM ({percent})) AS sample \
             WHERE \"mulgil n\" % greatest(\"mulgil of\" / {n_spans}, 1) = 0 ORDER BY \"mulgil n\" LIMIT {}) TO STDOUT",
            self.from,
            n_spans - 1
        );
        connection.copy_out(&sql).await.map_err(|e| self.failed(e))?;
        let (mut rows, mut values, mut bounds) = (CopyRows::default(), Vec::new(), Vec::new());
        while let Some(row) = connection.copied(SAMPLE_TIMEOUT).await.map_err(|e| self.failed(e))? {
            rows.split(&row, self.key.len(), &mut values)?;
            bounds.extend(key_text(&row, values.iter()));
        }
        Ok(bounds)
    }

    pub fn failed(&self, source: WireError) -> SnapshotError {
        SnapshotError::Table { table: self.name.clone(), source }
    }

    /// The key of a row as `COPY` wrote it.
    pub fn key_of(&self, row: &Bytes, values: &[Piece]) -> Option<KeyText> {
        key_text(row, self.key.iter().map(|c| values.get(c.at).unwrap_or(&Piece::Null)))
    }
}

/// `None` if a value is null or no text: a key has neither.
fn key_text<'a>(row: &Bytes, values: impl Iterator<Item = &'a Piece>) -> Option<KeyText> {
    values.map(|v| String::from_utf8(v.of(row)?.1.to_vec()).ok()).collect()
}

/// Two tables of one form have the same columns and the same files: rows of both are rows of one table.
fn form(relation: &Relation, attributes: &[Attribute]) -> u64 {
    // The fixed keys of `DefaultHasher::new` are not promised to stay between versions of Rust; a table whose form then seems another is
    // read again, no more.
    let mut hasher = DefaultHasher::new();
    relation.oid.hash(&mut hasher);
    for leaf in &relation.leaves {
        (leaf.oid, leaf.file).hash(&mut hasher);
    }
    for attribute in attributes {
        (attribute.number, &*attribute.name, attribute.type_oid, attribute.typmod).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, Kind, TableId};

    fn plan(key: &[&str]) -> TablePlan {
        let id = TableId { database: "d".into(), schema: "public".into(), table: "t".into() };
        let attribute = |number, name: &str| Attribute {
            number,
            name: name.into(),
            type_oid: 20,
            typmod: -1,
            native: "bigint".into(),
            is_not_null: true,
            is_generated: false,
            collation: None,
        };
        let attributes = vec![attribute(1, "a"), attribute(2, "B c")];
        let columns = attributes.iter().map(|a| Column {
            name: a.name.clone(),
            kind: Kind::Int64,
            is_nullable: false,
            is_key: true,
            native: a.native.clone(),
        });
        let key_column =
            |name: &&str| KeyColumn { name: (*name).to_owned(), native: "bigint".to_owned(), collation: None, at: 0, order: None };
        let leaf = Leaf { oid: 5, schema: "public".into(), name: "t".into(), file: 7, n_pages: 25, n_rows_estimated: Some(100) };
        TablePlan {
            table: Arc::new(Table { id, version: 1, columns: columns.collect() }),
            name: "public.t".to_owned(),
            attributes,
            forms: vec![Form::Int64; 2],
            key: key.iter().map(key_column).collect(),
            from: "ONLY \"public\".\"t\"".to_owned(),
            quoted: "\"public\".\"t\"".to_owned(),
            filter: None,
            leaves: vec![leaf],
            form: 1,
            oid: 5,
            n_rows_estimated: Some(100),
            can_sample: true,
        }
    }

    fn text(n: &str) -> Option<KeyText> {
        Some(vec![n.to_owned()])
    }

    #[test]
    fn a_part_is_one_copy() {
        let mut by_key = plan(&["B c"]);
        by_key.filter = Some("a > 0".to_owned());
        assert_eq!(
            by_key.copy(&Part::Keys { above: text("3"), upto: text("9") }),
            "COPY (SELECT \"a\", \"B c\" FROM ONLY \"public\".\"t\" WHERE (a > 0) AND (\"B c\") > ('3'::bigint) AND (\"B c\") <= ('9'::bigint) \
             ORDER BY \"B c\") TO STDOUT"
        );
        assert_eq!(
            by_key.copy_first(&Part::Keys { above: None, upto: None }, 7),
            "COPY (SELECT \"a\", \"B c\" FROM ONLY \"public\".\"t\" WHERE (a > 0) ORDER BY \"B c\" LIMIT 7) TO STDOUT"
        );
        let by_page = plan(&[]);
        assert_eq!(
            by_page.copy(&Part::Pages { leaf: 0, from: 10, to: Some(20) }),
            "COPY (SELECT \"a\", \"B c\" FROM ONLY \"public\".\"t\" WHERE ctid >= '(10,0)'::tid AND ctid < '(20,0)'::tid) TO STDOUT"
        );
    }

    #[test]
    fn pages_cover_the_table_and_the_last_part_has_no_end() {
        let settings = SnapshotSettings { span_pages: 10, ..SnapshotSettings::default() };
        let page = |from, to| Part::Pages { leaf: 0, from, to };
        assert_eq!(plan(&[]).pages(&settings), [page(0, Some(10)), page(10, Some(20)), page(20, None)]);
        let whole = SnapshotSettings { span_pages: 25, ..SnapshotSettings::default() };
        assert_eq!(plan(&[]).pages(&whole), [Part::Leaf(0)]);
    }

    #[test]
    fn what_is_read_is_not_read_again() {
        let plan = plan(&["a"]);
        let span = |upto: Option<KeyText>| SpanNotes { upto, ..SpanNotes::default() };
        let (schema, name) = (String::new(), String::new());
        let spans = vec![span(text("10")), span(text("20")), span(None)];
        let mut notes = TableNotes {
            schema,
            name,
            oid: 5,
            form: 1,
            key: plan.key.clone(),
            n_rows: 0,
            n_rows_estimated: None,
            state: TableState::Reading,
            spans,
        };
        notes.spans[0].advance(None, 0);
        notes.spans[1].advance(text("15"), 0);
        let keys = |above, upto| Part::Keys { above, upto };
        assert_eq!(plan.parts(&notes, &SnapshotSettings::default()), [(1, keys(text("15"), text("20"))), (2, keys(text("20"), None))]);
    }
}
