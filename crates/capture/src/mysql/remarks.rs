//! Statements that capture could not follow, kept for a person: in what is stored, in the source's health, and, where rows changed, told to
//! the stream's readers.
//!
//! *Stale*: rows of a table came or went without row events (`ALTER TABLE … DROP PARTITION`), so that what was captured is no longer the table. A whole
//! snapshot of the table, which then begins with a truncate, takes it off.
//! *Unread*: a statement may have changed any table's shape, and nobody can tell which. Every shape was read again, and nothing is lost.

use super::ddl::Name;
use crate::table::TableId;
use serde::{Deserialize, Serialize};

/// Tables that are kept as stale, each with the last statement.
const STALE_MAX: usize = 4_096;
/// Unread statements that are kept, the last ones.
const UNREAD_MAX: usize = 32;
/// Of a statement.
const STATEMENT_CHARS_MAX: usize = 300;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// `shop.orders`; empty where it cannot be told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// Its beginning, without the texts in it, which may be secrets or values of rows.
    pub statement: String,
    pub file: String,
    pub at: u64,
    /// The position's commit.
    pub commit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remarks {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<Remark>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Remark>,
}

impl Remarks {
    pub fn is_empty(&self) -> bool {
        self.stale.is_empty() && self.unread.is_empty()
    }

    pub fn add_stale(&mut self, remark: Remark) {
        self.stale.retain(|r| r.table != remark.table);
        if self.stale.len() < STALE_MAX {
            self.stale.push(remark);
        }
    }

    pub fn add_unread(&mut self, remark: Remark) {
        // A transaction that is read again has it already.
        self.unread.retain(|r| r.commit != remark.commit);
        self.unread.push(remark);
        self.unread.drain(..self.unread.len().saturating_sub(UNREAD_MAX));
    }

    pub fn is_stale(&self, table: &TableId) -> bool {
        let name = table.to_string();
        self.stale.iter().any(|r| r.table == name)
    }

    /// All of the table was read again, from this position on.
    pub fn was_read(&mut self, table: &TableId, since: u64) {
        let name = table.to_string();
        self.stale.retain(|r| r.table != name || r.commit > since);
    }

    /// For the source's health.
    pub fn told(&self) -> Vec<String> {
        self.stale.iter().map(|r| format!("{}: {} at {} {}", r.table, r.statement, r.file, r.at)).collect()
    }
}

pub fn display(name: &Name) -> String {
    format!("{}.{}", name.database, name.table)
}

/// The beginning of a statement, with what is in quotes left out: a partition's or table's name may stand in backticks, a secret never does.
pub fn statement_head(sql: &str) -> String {
    let mut out = String::new();
    let mut chars = sql.chars();
    let mut n = 0;
    while let Some(c) = chars.next().filter(|_| n < STATEMENT_CHARS_MAX) {
        n += 1;
        out.push(if c.is_whitespace() { ' ' } else { c });
        if c != '\'' && c != '"' {
            continue;
        }
        let mut is_escaped = false;
        for inside in chars.by_ref() {
            match inside {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                inside if inside == c => break,
                _ => {}
            }
        }
        out.push('…');
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remark(table: &str, commit: u64) -> Remark {
        Remark { table: table.into(), statement: "s".into(), file: "b.000001".into(), at: 4, commit }
    }

    #[test]
    fn a_statement_is_told_without_its_texts() {
        let cases = [
            ("ALTER TABLE `a b` DROP PARTITION p1", "ALTER TABLE `a b` DROP PARTITION p1"),
            ("CREATE TABLE t (a int)\nCONNECTION='mysql://u:p@h'  x", "CREATE TABLE t (a int) CONNECTION='…'  x"),
            ("X 'it''s' \"a\\\"b\" y", "X '…''…' \"…\" y"),
            ("X 'unended", "X '…'"),
        ];
        for (sql, want) in cases {
            assert_eq!(statement_head(sql), want);
        }
        assert!(statement_head(&"물".repeat(5_000)).chars().count() <= STATEMENT_CHARS_MAX);
    }

    #[test]
    fn a_table_is_stale_until_all_of_it_was_read_behind_the_statement() {
        let id = TableId { database: "d".into(), schema: "".into(), table: "t".into() };
        let mut remarks = Remarks::default();
        remarks.add_stale(remark("d.t", 5));
        remarks.add_stale(remark("d.u", 6));
        remarks.add_stale(remark("d.t", 7));
        remarks.was_read(&id, 6);
        assert!(remarks.is_stale(&id) && remarks.told().len() == 2);
        remarks.was_read(&id, 7);
        assert!(!remarks.is_stale(&id) && remarks.told() == ["d.u: s at b.000001 4"]);
        (0..100).for_each(|n| remarks.add_unread(remark("", n)));
        assert_eq!((remarks.unread.len(), remarks.unread[0].commit), (UNREAD_MAX, 100 - UNREAD_MAX as u64));
    }
}
