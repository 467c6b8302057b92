//! Which changes of the stream the rows of a snapshot already contain.
//!
//! A snapshot that was interrupted was read under several views, and one that was taken beside an existing slot under a view that is newer
//! than the place where the stream begins. A change whose transaction is contained in the view that its row's range of the key was read under
//! is in the rows already. Ranges are compared by the database, a few hundred keys at a time, and only until the stream has passed the newest
//! view; a snapshot that was read under the slot's own view asks nothing.

use super::error::SnapshotError;
use super::key::{self, KeyColumn};
use super::notes::{KeyText, SnapshotNotes, TableState};
use super::view::View;
use crate::change::{Change, Op, Row, What};
use crate::postgres::catalog::number;
use crate::postgres::wire::Connection;
use crate::table::TableId;
use std::collections::BTreeMap;

/// Keys of one question to the database.
const KEYS_MAX: usize = 500;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contained {
    views: Vec<View>,
    /// By schema and name.
    tables: BTreeMap<(String, String), Ranges>,
    /// Every view contains only what was committed below this.
    lsn: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Ranges {
    key: Vec<KeyColumn>,
    /// The last key of each range but the last.
    bounds: Vec<KeyText>,
    /// The view of each range.
    views: Vec<usize>,
}

/// What of a change is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    Drop,
    /// The row moved to a range that was read later: there it is in the rows already, here it must go.
    OnlyDelete,
    /// The row moved from a range that was read later, and where it had already left, to one that was read before.
    OnlyCreate,
}

impl Contained {
    /// Of what is stored with the last batch of a snapshot. A table that is not finished counts as far as it was read.
    pub fn of(notes: &SnapshotNotes) -> Self {
        let mut tables = BTreeMap::new();
        for table in notes.tables.iter().filter(|t| t.state == TableState::Done) {
            let ranges = table.ranges();
            let views: Vec<usize> = ranges.iter().map(|(_, view)| *view).collect();
            if views.iter().all(|v| notes.views.get(*v).is_none_or(|view| view.is_of_slot)) {
                continue;
            }
            let bounds = ranges.iter().take(ranges.len().saturating_sub(1)).filter_map(|(upto, _)| upto.cloned()).collect();
            tables.insert((table.schema.clone(), table.name.clone()), Ranges { key: table.key.clone(), bounds, views });
        }
        Self { views: notes.views.clone(), tables, lsn: notes.seen_lsn() }
    }

    /// Nothing with a commit at or behind this place is contained: from there on this is not needed any more, nor are the notes of the snapshot
    /// but for the word that it is complete.
    pub fn is_passed(&self, commit_lsn: u64) -> bool {
        self.tables.is_empty() || commit_lsn >= self.lsn
    }

    /// Whether the rows of the snapshot contain what this transaction did to the row of this key, given as a row of the table of which at least
    /// the key's columns are there.
    pub async fn is_already_in_snapshot(
        &self,
        connection: &mut Connection,
        table: &TableId,
        key: &Row,
        xid: u32,
    ) -> Result<bool, SnapshotError> {
        let Some(ranges) = self.ranges(table) else { return Ok(false) };
        let points: Vec<String> = key::point_of(&ranges.key, key).into_iter().collect();
        let found = ranges.find(connection, table, &points).await?;
        Ok(self.is_in(ranges, found.first().copied(), xid))
    }

    /// Takes out of the changes of one transaction what the snapshot's rows already contain. Those that are left keep their positions. A row
    /// that moved between ranges of different views becomes a create or a delete; a column that the update did not carry (TOAST) then stays
    /// `Unavailable` in the create.
    pub async fn remove(&self, connection: &mut Connection, changes: Vec<Change>, xid: u32) -> Result<Vec<Change>, SnapshotError> {
        let verdicts = self.verdicts(connection, &changes, xid).await?;
        Ok(changes.into_iter().zip(verdicts).filter_map(|(change, verdict)| left(change, verdict)).collect())
    }

    async fn verdicts(&self, connection: &mut Connection, changes: &[Change], xid: u32) -> Result<Vec<Verdict>, SnapshotError> {
        let mut verdicts = vec![Verdict::Keep; changes.len()];
        // Changes of tables that were read in several ranges, in the order in which they came.
        let mut asked: BTreeMap<&TableId, Vec<usize>> = BTreeMap::new();
        for (at, change) in changes.iter().enumerate() {
            let Some((table, ranges)) = change.what.table().and_then(|t| Some((t, self.ranges(t)?))) else { continue };
            match change.what {
                What::Row { .. } if ranges.views.len() > 1 => asked.entry(table).or_default().push(at),
                // Of one view; or a truncate: a table that was truncated in between was begun again, so every range has seen it or none.
                _ if self.is_in(ranges, None, xid) => verdicts[at] = Verdict::Drop,
                _ => {}
            }
        }
        for (table, places) in asked {
            let Some(ranges) = self.ranges(table) else { continue };
            for places in places.chunks(KEYS_MAX) {
                self.ask(connection, (table, ranges), changes, places, xid, &mut verdicts).await?;
            }
        }
        Ok(verdicts)
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        (table, ranges): (&TableId, &Ranges),
        changes: &[Change],
        places: &[usize],
        xid: u32,
        verdicts: &mut [Verdict],
    ) -> Result<(), SnapshotError> {
        let mut points = Vec::new();
        // For each change where its keys stand among the points: the row as it was, and as it is.
        let mut stands = Vec::with_capacity(places.len());
        for at in places {
            let What::Row { before, after, .. } = &changes[*at].what else { continue };
            let mut point = |row: &Option<Row>| {
                let point = key::point_of(&ranges.key, row.as_ref()?)?;
                points.push(point);
                Some(points.len() - 1)
            };
            stands.push((*at, point(before), point(after)));
        }
        let found = ranges.find(connection, table, &points).await?;
        for (at, before, after) in stands {
            let is_in = |point: Option<usize>| point.map(|p| self.is_in(ranges, found.get(p).copied(), xid));
            verdicts[at] = verdict(changes[at].op, is_in(before), is_in(after));
        }
        Ok(())
    }

    fn ranges(&self, table: &TableId) -> Option<&Ranges> {
        self.tables.get(&(table.schema.to_string(), table.table.to_string()))
    }

    /// Of the range, or of the last if it is not known.
    fn is_in(&self, ranges: &Ranges, range: Option<usize>, xid: u32) -> bool {
        let view = range.and_then(|r| ranges.views.get(r)).or(ranges.views.last());
        view.and_then(|v| self.views.get(*v)).is_some_and(|v| v.contains(xid))
    }
}

impl Ranges {
    /// The range of each key.
    async fn find(&self, connection: &mut Connection, table: &TableId, points: &[String]) -> Result<Vec<usize>, SnapshotError> {
        if self.bounds.is_empty() || points.is_empty() {
            return Ok(vec![self.views.len().saturating_sub(1); points.len()]);
        }
        let names: Vec<String> = (0..self.key.len()).map(|i| format!("k{i}")).collect();
        let renamed: Vec<KeyColumn> = self.key.iter().zip(&names).map(|(c, name)| KeyColumn { name: name.clone(), ..c.clone() }).collect();
        let cases: Vec<String> =
            self.bounds.iter().enumerate().map(|(i, bound)| format!("WHEN {} THEN {i}", key::upto(&renamed, bound))).collect();
        let rows: Vec<String> = points.iter().enumerate().map(|(i, point)| format!("({i}, {point})")).collect();
        let sql = format!(
            "SELECT CASE {} ELSE {} END FROM (VALUES {}) AS v(i, {}) ORDER BY i",
            cases.join(" "),
            self.bounds.len(),
            rows.join(", "),
            names.join(", ")
        );
        let failed = |source| SnapshotError::Table { table: table.to_string(), source };
        let rows = connection.query(&sql).await.map_err(failed)?;
        rows.iter().map(|row| Ok(number(row, 0)?)).collect()
    }
}

/// From whether the rows contain the change at the row's place before it and behind it; `None`: the place is not told. An update that tells no
/// place before it did not move the row.
fn verdict(op: Op, before: Option<bool>, after: Option<bool>) -> Verdict {
    match (op, before, after) {
        (Op::Delete, before, _) => {
            if before.unwrap_or(false) {
                Verdict::Drop
            } else {
                Verdict::Keep
            }
        }
        (_, Some(true), Some(true)) | (_, None, Some(true)) => Verdict::Drop,
        // The key of the row as it is now was too large to be sent again, so it is the one it was.
        (_, Some(is_in), None) => {
            if is_in {
                Verdict::Drop
            } else {
                Verdict::Keep
            }
        }
        (_, Some(true), Some(false)) => Verdict::OnlyCreate,
        (_, Some(false), Some(true)) => Verdict::OnlyDelete,
        (_, _, Some(false)) | (_, None, None) => Verdict::Keep,
    }
}

fn left(mut change: Change, verdict: Verdict) -> Option<Change> {
    let (op, keeps_before) = match verdict {
        Verdict::Keep => return Some(change),
        Verdict::Drop => return None,
        Verdict::OnlyDelete => (Op::Delete, true),
        Verdict::OnlyCreate => (Op::Create, false),
    };
    change.op = op;
    if let What::Row { before, after, .. } = &mut change.what {
        if keeps_before {
            *after = None;
        } else {
            *before = None;
        }
    }
    Some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_change() {
        use Verdict::{Drop, Keep, OnlyCreate, OnlyDelete};
        let (yes, no) = (Some(true), Some(false));
        for (op, before, after, expected) in [
            (Op::Create, None, yes, Drop),
            (Op::Create, None, no, Keep),
            (Op::Delete, yes, None, Drop),
            (Op::Delete, no, None, Keep),
            (Op::Update, None, yes, Drop),
            (Op::Update, None, no, Keep),
            (Op::Update, yes, yes, Drop),
            (Op::Update, no, no, Keep),
            (Op::Update, no, yes, OnlyDelete),
            (Op::Update, yes, no, OnlyCreate),
            (Op::Update, yes, None, Drop),
            (Op::Update, None, None, Keep),
        ] {
            assert_eq!(verdict(op, before, after), expected, "{op:?} {before:?} {after:?}");
        }
    }
}
