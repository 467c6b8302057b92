//! Tables as the server's catalog has them now: two statements for hundreds of tables.
//!
//! The catalog may be ahead of the stream. Where table maps carry names (`binlog_row_metadata=FULL`) only the key's order and sizes are
//! taken from here; see `shapes.rs` for what happens where they do not.

use super::wire::{Connection, Flavor, TextRow, WireError, literal, quoted};
use crate::table::{TableId, is_like};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tables asked for in one statement.
const TABLES_PER_QUERY: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogColumn {
    pub name: Arc<str>,
    /// `COLUMN_TYPE`: `int(10) unsigned`, `enum('BUY','SELL')`.
    pub native: Arc<str>,
    /// `CHARACTER_SET_NAME`; none where the type has none.
    pub charset: Option<Arc<str>>,
    pub is_nullable: bool,
    pub is_key: bool,
    /// The text of a constant default.
    pub default: Option<Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogTable {
    pub id: TableId,
    pub columns: Vec<CatalogColumn>,
    /// Positions of the key's columns, in the key's own order: the primary key, else the first unique key without a nullable column or a
    /// prefix. Empty: none.
    pub key: Vec<usize>,
    /// The server's estimate.
    pub rows: u64,
    /// Of a row, the server's estimate.
    pub row_bytes: u64,
}

/// What the config names: `shop.orders`, `shop.*`.
#[derive(Debug, Clone)]
pub struct Selection {
    patterns: Vec<(String, String)>,
}

/// Never captured: the server's own.
const SYSTEM: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

impl Selection {
    /// Each is `database.table`, with `*` for any characters.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let split = |p: &String| {
            p.split_once('.').map(|(d, t)| (d.to_owned(), t.to_owned())).ok_or_else(|| format!("{p}: write it as database.table"))
        };
        let patterns = patterns.iter().map(split).collect::<Result<Vec<_>, _>>()?;
        if patterns.is_empty() { Err("no table is named".to_owned()) } else { Ok(Self { patterns }) }
    }

    pub fn has(&self, database: &str, table: &str) -> bool {
        let is_meant =
            |(d, t): &(String, String)| is_like(database, d) && is_like(table, t) && (!t.contains('*') || !is_working_table(table));
        !SYSTEM.contains(&database) && self.patterns.iter().any(is_meant)
    }

    /// Whether a statement's text names a table that is meant, as far as words tell.
    pub fn may_be_in(&self, text: &str, database: &str) -> bool {
        let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').filter(|w| !w.is_empty());
        words.into_iter().any(|word| {
            let is_meant = |(d, t): &(String, String)| {
                !t.contains('*') && word.eq_ignore_ascii_case(t) && (is_like(database, d) || text.contains(d.as_str()))
            };
            self.patterns.iter().any(is_meant)
        }) || self.patterns.iter().any(|(d, t)| t.contains('*') && is_like(database, d))
    }

    /// A condition on `TABLE_SCHEMA` and `TABLE_NAME` that holds for all that are meant, and for more.
    fn condition(&self) -> String {
        let like = |column: &str, pattern: &str| match pattern.contains('*') {
            // The backslash escapes in LIKE whatever the mode says, for the pattern is written in hexadecimal.
            true => format!(
                "{column} LIKE {}",
                literal(pattern.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%").replace('*', "%").as_bytes())
            ),
            false => format!("{column} = {}", literal(pattern.as_bytes())),
        };
        let each: Vec<String> =
            self.patterns.iter().map(|(d, t)| format!("({} AND {})", like("TABLE_SCHEMA", d), like("TABLE_NAME", t))).collect();
        format!("({})", each.join(" OR "))
    }

    pub fn patterns(&self) -> impl Iterator<Item = &(String, String)> {
        self.patterns.iter()
    }
}

/// Of gh-ost (`_orders_gho`, `_orders_ghc`, `_orders_del`) and pt-online-schema-change (`_orders_new`, `_orders_old`): copies of rows that are
/// captured from the table itself, and that take its name in the end.
pub fn is_working_table(table: &str) -> bool {
    table.starts_with('_') && ["_gho", "_ghc", "_del", "_new", "_old"].iter().any(|end| table.ends_with(end) && table.len() > end.len() + 1)
}

fn id(database: &str, table: &str) -> TableId {
    TableId { database: database.into(), schema: "".into(), table: table.into() }
}

/// Base tables that are meant, as `(database, table)` in order.
pub async fn names(connection: &mut Connection, selection: &Selection) -> Result<Vec<TableId>, WireError> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {}",
        selection.condition()
    );
    let rows = connection.query(&sql).await?;
    let mut names: Vec<TableId> =
        rows.iter().map(|r| (r.text(0), r.text(1))).filter(|(d, t)| selection.has(d, t)).map(|(d, t)| id(&d, &t)).collect();
    names.sort_unstable();
    Ok(names)
}

/// The tables that exist of these.
pub async fn read(connection: &mut Connection, tables: &[TableId]) -> Result<Vec<CatalogTable>, WireError> {
    let mut found = BTreeMap::new();
    for some in tables.chunks(TABLES_PER_QUERY) {
        read_some(connection, some, &mut found).await?;
    }
    Ok(found.into_values().collect())
}

async fn read_some(connection: &mut Connection, tables: &[TableId], found: &mut BTreeMap<TableId, CatalogTable>) -> Result<(), WireError> {
    let pairs: Vec<String> = tables
        .iter()
        .map(|t| format!("(TABLE_SCHEMA = {} AND TABLE_NAME = {})", literal(t.database.as_bytes()), literal(t.table.as_bytes())))
        .collect();
    let condition = pairs.join(" OR ");
    let columns = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, COLUMN_DEFAULT, EXTRA FROM information_schema.COLUMNS \
         WHERE {condition} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    );
    for row in connection.query(&columns).await? {
        let id = id(&row.text(0), &row.text(1));
        let empty = || CatalogTable { id: id.clone(), columns: Vec::new(), key: Vec::new(), rows: 0, row_bytes: 0 };
        found.entry(id.clone()).or_insert_with(empty).columns.push(column(&row, connection.flavor()));
    }
    if connection.flavor() == Flavor::MariaDb && found.values().any(|t| t.columns.iter().any(is_long_text)) {
        read_json(connection, &condition.replace("TABLE_SCHEMA", "CONSTRAINT_SCHEMA"), found).await?;
    }
    let keys = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART FROM information_schema.STATISTICS \
         WHERE NON_UNIQUE = 0 AND ({condition}) ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX"
    );
    let rows = connection.query(&keys).await?;
    for index in rows.chunk_by(|a, b| a.0[..3] == b.0[..3]) {
        if let Some(table) = found.get_mut(&id(&index[0].text(0), &index[0].text(1))) {
            table.set_key(index);
        }
    }
    let sizes = format!("SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, AVG_ROW_LENGTH FROM information_schema.TABLES WHERE {condition}");
    for row in connection.query(&sizes).await? {
        if let Some(table) = found.get_mut(&id(&row.text(0), &row.text(1))) {
            (table.rows, table.row_bytes) = (row.number(2).unwrap_or(0), row.number(3).unwrap_or(0));
        }
    }
    Ok(())
}

/// MariaDB's `json` is a `longtext` with a check, and the catalog calls it `longtext`.
async fn read_json(connection: &mut Connection, condition: &str, found: &mut BTreeMap<TableId, CatalogTable>) -> Result<(), WireError> {
    let checks = format!("SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS WHERE {condition}");
    for row in connection.query(&checks).await? {
        let Some(table) = found.get_mut(&id(&row.text(0), &row.text(1))) else { continue };
        let clause = row.text(2);
        let of_it = |c: &&mut CatalogColumn| is_long_text(c) && clause.eq_ignore_ascii_case(&format!("json_valid({})", quoted(&c.name)));
        if let Some(column) = table.columns.iter_mut().find(of_it) {
            column.native = "json".into();
        }
    }
    Ok(())
}

/// In a charset whose bytes are those of JSON.
fn is_long_text(column: &CatalogColumn) -> bool {
    &*column.native == "longtext" && column.charset.as_deref().is_some_and(|c| c.starts_with("utf8"))
}

fn column(row: &TextRow, flavor: Flavor) -> CatalogColumn {
    CatalogColumn {
        name: row.text(2).into(),
        native: row.text(3).into(),
        charset: row.0.get(4).and_then(Option::as_ref).map(|c| String::from_utf8_lossy(c).into()),
        is_nullable: row.text(5) == "YES",
        is_key: false,
        default: row.0.get(6).cloned().flatten().and_then(|text| constant(&text, &row.text(7), flavor)),
    }
}

/// A default as a text. MySQL has the text itself, and says of an expression that it is one; MariaDB has an expression, which is a constant if
/// it is a number or a string ("Information Schema COLUMNS Table").
fn constant(text: &Bytes, extra: &str, flavor: Flavor) -> Option<Bytes> {
    if flavor == Flavor::MySql {
        return Some(text.clone()).filter(|_| !extra.to_ascii_uppercase().contains("DEFAULT_GENERATED"));
    }
    let words = std::str::from_utf8(text).ok()?;
    let is_number =
        words.starts_with(|c: char| c.is_ascii_digit() || c == '-') && words.bytes().all(|b| b.is_ascii_digit() || b"-+.e".contains(&b));
    if is_number {
        return Some(text.clone());
    }
    let inside = words.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut out = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next() != Some('\'') => return None,
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                c => c,
            }),
            c => out.push(c),
        }
    }
    Some(out.into())
}

impl CatalogTable {
    fn set_key(&mut self, index: &[TextRow]) {
        const NAME: usize = 3;
        let is_whole = index
            .iter()
            .all(|r| r.0.get(NAME).is_some_and(Option::is_some) && r.text(4) != "YES" && r.0.get(5).is_some_and(Option::is_none));
        if !self.key.is_empty() || !is_whole {
            return;
        }
        let position = |r: &TextRow| self.columns.iter().position(|c| *c.name == *r.text(NAME));
        if let Some(key) = index.iter().map(position).collect::<Option<Vec<_>>>() {
            key.iter().for_each(|&i| self.columns[i].is_key = true);
            self.key = key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_a_constant_or_none() {
        let of = |text: &'static str, extra: &str, flavor| {
            constant(&Bytes::from_static(text.as_bytes()), extra, flavor).map(|b| String::from_utf8(b.to_vec()).expect("text"))
        };
        let some = |text: &str| Some(text.to_owned());
        for (text, want) in [
            ("7", some("7")),
            ("-1.50", some("-1.50")),
            ("'it''s \\\\ \\'", None),
            ("'it''s \\\\'", some("it's \\")),
            ("''", some("")),
            ("NULL", None),
            ("current_timestamp()", None),
            ("'a' || 'b'", None),
            ("uuid()", None),
        ] {
            assert_eq!(of(text, "", Flavor::MariaDb), want, "{text}");
        }
        assert_eq!(of("it's", "", Flavor::MySql), some("it's"));
        assert_eq!(of("uuid()", "DEFAULT_GENERATED", Flavor::MySql), None);
    }

    #[test]
    fn a_selection_has_what_it_names_and_no_working_table() {
        let s = Selection::new(&["shop.orders".into(), "a*.b*c".into(), "x._t_new".into(), "*.all".into()]).expect("selection");
        for (database, table) in [("shop", "orders"), ("a", "bc"), ("abc", "b*c"), ("x", "_t_new"), ("y", "all")] {
            assert!(s.has(database, table), "{database}.{table}");
        }
        for (database, table) in [("shop", "orders2"), ("Shop", "orders"), ("a", "b"), ("mysql", "all"), ("x", "_u_new")] {
            assert!(!s.has(database, table), "{database}.{table}");
        }
        assert!(Selection::new(&["orders".into()]).is_err() && Selection::new(&[]).is_err());
        let all = Selection::new(&["shop.*".into()]).expect("selection");
        for table in ["_orders_gho", "_orders_ghc", "_orders_del", "_orders_new", "_orders_old"] {
            assert!(!all.has("shop", table), "{table}");
        }
        for table in ["orders", "orders_new", "_new", "_orders"] {
            assert!(all.has("shop", table), "{table}");
        }
    }
}
