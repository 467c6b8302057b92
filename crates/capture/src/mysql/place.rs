//! Where in the binlog a source has come to, and how that is stored.
//!
//! A position's commit is the number of the binlog file in the upper 28 bits and, in the lower 36, where the event ends in it; its ordinal
//! counts the rows of that event, and behind the last event that was read the rows of a snapshot's chunk. File numbers of another server begin anew: `file_base`
//! is added to them, so that positions grow also over a failover.

use super::gtid::{Gtid, GtidSet, MariadbGtid, MariadbPosition};
use crate::source::SourceError;
use mulgil_model::position::Position;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const AT_BITS: u32 = 36;
const FILE_NUMBER_MAX: u64 = (1 << (u64::BITS - AT_BITS)) - 1;
/// `BIN_LOG_HEADER_SIZE`: where the first event of a file is.
pub const FIRST_AT: u64 = 4;

/// Transactions that have been read, by their names on every server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gtids {
    /// The server has none, or it is not known which were before the place.
    None,
    MySql(GtidSet),
    MariaDb(MariadbPosition),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OneGtid {
    MySql(Gtid),
    MariaDb(MariadbGtid),
}

impl Gtids {
    pub fn add(&mut self, one: &OneGtid) -> Result<(), SourceError> {
        let added = match (self, one) {
            (Self::MySql(set), OneGtid::MySql(gtid)) => set.add(gtid).map(|_| ()),
            (Self::MariaDb(position), OneGtid::MariaDb(gtid)) => position.add(*gtid),
            _ => Ok(()),
        };
        added.map_err(|e| SourceError::refused(format!("transactions that were read: {e}")))
    }

    pub fn text(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::MySql(set) => Some(set.to_string()),
            Self::MariaDb(position) => Some(position.to_string()),
        }
    }

    /// A MariaDB position has dashes between numbers, a MySQL set colons.
    pub fn parse(text: Option<&str>, is_mariadb: bool) -> Self {
        match text {
            None => Self::None,
            Some(text) if is_mariadb => text.parse().map_or(Self::None, Self::MariaDb),
            Some(text) => text.parse().map_or(Self::None, Self::MySql),
        }
    }
}

/// `file` and `at` are behind the last whole transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub file: Arc<str>,
    pub at: u64,
    pub file_base: u64,
    pub gtids: Gtids,
}

impl Place {
    /// The file's number and the place in it; none if the position is of another server's binlog, or of none.
    pub fn of(&self, position: Position) -> Option<(u64, u64)> {
        let number = (position.commit >> AT_BITS).checked_sub(self.file_base).filter(|number| *number > 0)?;
        Some((number, position.commit & ((1 << AT_BITS) - 1)))
    }

    pub fn position(&self, at: u64, ordinal: u64) -> Result<Position, SourceError> {
        position(&self.file, self.file_base, at, ordinal)
    }
}

pub fn position(file: &str, base: u64, at: u64, ordinal: u64) -> Result<Position, SourceError> {
    let number = file_number(file)? + base;
    if number > FILE_NUMBER_MAX || at >> AT_BITS != 0 {
        return Err(SourceError::refused(format!("binlog file {file} at {at} is beyond file number {FILE_NUMBER_MAX} or 64 GiB")));
    }
    Ok(Position { commit: number << AT_BITS | at, ordinal })
}

/// The number behind the last dot.
pub fn file_number(file: &str) -> Result<u64, SourceError> {
    let number = file.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).filter(|n: &u64| *n <= FILE_NUMBER_MAX);
    number.ok_or_else(|| SourceError::refused(format!("the binlog file {file:?} has no number behind its last dot")))
}

/// What must be added to the file numbers of a server that is continued with, to be above this position.
pub fn base_above(last: Position, file: &str) -> Result<u64, SourceError> {
    Ok((last.commit >> AT_BITS) + 1).map(|next: u64| next.saturating_sub(file_number(file).unwrap_or(0)))
}

/// The notes of a `Resume`, version 1.
///
/// ```json
/// {"v":1,"server_id":7,"server_uuid":"3e11…","is_mariadb":false,"file":"binlog.000004","at":1234,"file_begun":1795442400,"file_base":0,"gtid":"3e11…:1-9",
///  "tables":["shop.*"],"rows_done":17,"prepared":[{"xid":"X'31',X'',1","file":"binlog.000003","at":99}],
///  "remarks":{"stale":[{"table":"shop.log","statement":"ALTER TABLE log DROP PARTITION p1","file":"binlog.000003","at":7,"commit":206158430215}]},
///  "snapshots":[{"why":"initial","begun_us":1,"tables":[["shop","orders"]],"after":["3137"],"rows":17,"chunks_done":1}],"shapes":{"shop.orders":{"v":2,"hash":9}}}
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notes {
    pub v: u32,
    pub server_id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    pub is_mariadb: bool,
    /// Behind the last whole transaction.
    pub file: String,
    pub at: u64,
    /// When the server began the file, in seconds: one that was reset has files of the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_begun: Option<u32>,
    pub file_base: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<String>,
    /// Rows, of all tables, of the transaction behind `at` that are in this batch or an earlier one.
    #[serde(default)]
    pub rows_done: u64,
    /// The tables that these rows were counted of, as the config named them.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Prepared before `at`, and neither committed nor rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<super::prepared::Noted>,
    #[serde(default, skip_serializing_if = "super::remarks::Remarks::is_empty")]
    pub remarks: super::remarks::Remarks,
    /// Not finished, the first is under way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<super::snapshot::Progress>,
    /// By table, so that versions of shapes go on counting.
    #[serde(default)]
    pub shapes: std::collections::BTreeMap<String, super::shapes::Noted>,
}

pub const NOTES_VERSION: u32 = 1;

impl Notes {
    pub fn parse(value: &serde_json::Value) -> Result<Self, SourceError> {
        let notes =
            Self::deserialize(value).map_err(|e| SourceError::refused(format!("the stored place is not one of a MySQL source: {e}")))?;
        match notes.v {
            NOTES_VERSION => Ok(notes),
            v => Err(SourceError::refused(format!(
                "the stored place has version {v}, this program knows {NOTES_VERSION}: use the newer program"
            ))),
        }
    }

    pub fn gtids(&self) -> Gtids {
        Gtids::parse(self.gtid.as_deref(), self.is_mariadb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_grow_with_the_binlog_and_over_a_failover() {
        let p = |file, base, at, ordinal| position(file, base, at, ordinal).expect("position");
        let in_order =
            [p("b.000001", 0, 4, 0), p("b.000001", 0, 4, 1), p("b.000001", 0, 1 << 32, 0), p("b.000002", 0, 4, 0), p("b.1000000", 0, 4, 0)];
        assert!(in_order.is_sorted_by(|a, b| a < b), "{in_order:?}");
        let base = base_above(in_order[4], "other.000007").expect("base");
        assert!(p("other.000007", base, 4, 0) > in_order[4]);
        for bad in ["binlog", "binlog.x", "b.99999999999"] {
            assert!(position(bad, 0, 4, 0).is_err(), "{bad}");
        }
        assert!(position("b.000001", 0, 1 << 36, 0).is_err());
    }
}
