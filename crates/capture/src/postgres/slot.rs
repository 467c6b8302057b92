//! The replication slot: made or found, and compared with what was stored, so that capture never goes on over a hole.

use super::catalog::parse_lsn;
use super::wire::{Connection, TextRow, WireError, identifier, literal};
use crate::source::SourceError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Making a slot waits for all transactions that run then.
const CREATE_TIMEOUT: Duration = Duration::from_secs(600);

/// An LSN in the database's notation: `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

/// Which server, on which branch of its history ("IDENTIFY_SYSTEM").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    pub identifier: String,
    pub timeline: u32,
    /// Where its log ends.
    pub wal_lsn: u64,
}

impl System {
    /// Of a replication connection.
    pub async fn read(connection: &mut Connection) -> Result<Self, WireError> {
        let rows = connection.query("IDENTIFY_SYSTEM").await?;
        let row = rows.first().ok_or(WireError::Protocol("nothing for IDENTIFY_SYSTEM"))?;
        let number = |at| text(row, at).parse().map_err(|_| WireError::Protocol("a timeline that is not a number"));
        let wal_lsn = parse_lsn(&text(row, 2)).ok_or(WireError::Protocol("an LSN in a form of its own"))?;
        Ok(Self { identifier: text(row, 0), timeline: number(1)?, wal_lsn })
    }

    /// Where this server's history left the given timeline: `None` if it is still on it, `Some(None)` if it never was.
    pub async fn left(&self, connection: &mut Connection, timeline: u32) -> Result<Option<Option<u64>>, WireError> {
        if timeline == self.timeline {
            return Ok(None);
        }
        let rows = connection.query(&format!("TIMELINE_HISTORY {}", self.timeline)).await?;
        let content = rows.first().map(|row| text(row, 1)).unwrap_or_default();
        Ok(Some(switch(&content, timeline)))
    }
}

/// A line of a history file is `timeline <tab> LSN at which it was left <tab> reason`.
fn switch(history: &str, timeline: u32) -> Option<u64> {
    let mut lines = history.lines().map(|line| line.split_whitespace());
    lines.find_map(|mut fields| (fields.next()?.parse() == Ok(timeline)).then(|| parse_lsn(fields.next()?))?)
}

fn text(row: &TextRow, at: usize) -> String {
    let value = row.get(at).and_then(Option::as_deref).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

pub async fn is_standby(connection: &mut Connection) -> Result<bool, WireError> {
    let rows = connection.query("SELECT pg_is_in_recovery()").await?;
    Ok(rows.first().is_some_and(|row| text(row, 0) == "t"))
}

/// A row of `pg_replication_slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub plugin: String,
    pub database: String,
    pub is_active: bool,
    pub restart_lsn: Option<u64>,
    pub confirmed_lsn: Option<u64>,
    pub wal_status: Option<String>,
    pub safe_wal_bytes: Option<i64>,
    /// Where the log ends, or is replayed to on a standby.
    pub wal_lsn: u64,
}

impl Slot {
    pub async fn read(connection: &mut Connection, name: &str) -> Result<Option<Self>, WireError> {
        let sql = format!(
            "SELECT plugin, database, active, restart_lsn, confirmed_flush_lsn, wal_status, safe_wal_size, \
             CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END \
             FROM pg_replication_slots WHERE slot_name = {}",
            literal(name)
        );
        let rows = connection.query(&sql).await?;
        Ok(rows.first().map(|row| {
            let given = |at: usize| row.get(at).and_then(Option::as_ref).map(|_| text(row, at));
            Self {
                plugin: text(row, 0),
                database: text(row, 1),
                is_active: text(row, 2) == "t",
                restart_lsn: given(3).and_then(|l| parse_lsn(&l)),
                confirmed_lsn: given(4).and_then(|l| parse_lsn(&l)),
                wal_status: given(5),
                safe_wal_bytes: given(6).and_then(|b| b.parse().ok()),
                wal_lsn: given(7).and_then(|l| parse_lsn(&l)).unwrap_or(0),
            }
        }))
    }

    /// What the server keeps for it.
    pub fn retained_bytes(&self) -> Option<u64> {
        self.restart_lsn.map(|restart| self.wal_lsn.saturating_sub(restart))
    }

    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost") || self.restart_lsn.is_none()
    }
}

/// A slot that was just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The stream has all transactions that commit from here on.
    pub consistent_lsn: u64,
    /// Has all that committed before; can be imported until the connection runs its next command.
    pub snapshot: String,
}

/// Makes the slot, on a replication connection ("CREATE_REPLICATION_SLOT"; options in parentheses since version 15).
pub async fn create(connection: &mut Connection, name: &str, failover: bool) -> Result<Created, WireError> {
    let name = identifier(name);
    let major = connection.server_major();
    let sql = match major {
        ..15 => format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput EXPORT_SNAPSHOT"),
        17.. if failover => format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)"),
        _ => format!("CREATE_REPLICATION_SLOT {name} LOGICAL pgoutput (SNAPSHOT 'export')"),
    };
    let rows = connection.query_within(&sql, CREATE_TIMEOUT).await?;
    let row = rows.first().ok_or(WireError::Protocol("nothing for CREATE_REPLICATION_SLOT"))?;
    let consistent_lsn = parse_lsn(&text(row, 1)).ok_or(WireError::Protocol("an LSN in a form of its own"))?;
    Ok(Created { consistent_lsn, snapshot: text(row, 2) })
}

/// What is stored with every batch to come back to its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub system: String,
    pub timeline: u32,
    pub database: String,
    pub slot: String,
    /// Never acknowledged beyond this.
    pub flush_lsn: u64,
    /// When the last transaction before the place was committed: what a message outside of transactions behind it is dated by. Not stored by
    /// older versions of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_us: Option<i64>,
}

/// What stood in the way of going on.
pub struct Found<'a> {
    pub system: &'a System,
    pub slot: Option<&'a Slot>,
    /// As [`System::left`] gives it for the stored timeline.
    pub left: Option<Option<u64>>,
    pub database: &'a str,
    pub slot_name: &'a str,
    /// The server is a standby: what it does not have yet may still come.
    pub is_standby: bool,
    /// Changes of the transaction whose commit record stands at the stored place were given, but not all.
    pub is_within: bool,
    /// Up to where a snapshot may have seen what was committed, until the stream has passed that.
    pub seen_lsn: u64,
}

/// Whether the stream can go on where it was left, without a hole and without another history.
///
/// A promoted standby has the old primary's system identifier, a new timeline, and the old log up to where the timelines part. It is the same
/// history if that is not before the stored place; and behind it, if changes of a transaction were given whose commit record stands there: on
/// the new timeline there is no such transaction.
pub fn compare(stored: &Stored, found: &Found<'_>) -> Result<(), SourceError> {
    let name = found.slot_name;
    let at = Lsn(stored.flush_lsn);
    let hole = |what: String| {
        Err(SourceError::refused(format!(
            "{what}; changes behind {at} may be lost for this source. Choose: bring the slot back as it was, or reset the stored position of this \
             source, so that it begins anew with a snapshot"
        )))
    };
    if stored.system != found.system.identifier {
        return hole(format!("the server's system identifier is {}, the stored position is of {}", found.system.identifier, stored.system));
    }
    if stored.database != found.database {
        return hole(format!("the database is {}, the stored position is of {}", found.database, stored.database));
    }
    if stored.slot != name {
        return hole(format!("the slot is {name}, the stored position is of {}", stored.slot));
    }
    match found.left {
        Some(None) => return hole(format!("the server was never on timeline {}, where the stored position is", stored.timeline)),
        Some(Some(switch)) if switch < stored.flush_lsn || (switch == stored.flush_lsn && found.is_within) => {
            return hole(format!(
                "the server left timeline {} at {}, before the stored position (it was promoted or restored without the changes between)",
                stored.timeline,
                Lsn(switch)
            ));
        }
        _ => {}
    }
    compare_rows(stored, found)?;
    let is_behind = found.system.wal_lsn < stored.flush_lsn || (found.system.wal_lsn == stored.flush_lsn && found.is_within);
    if found.is_standby && is_behind {
        let (here, name) = (Lsn(found.system.wal_lsn), found.slot_name);
        return Err(SourceError::retry(format!(
            "the server is a standby that has replayed up to {here}, and the stored position is {at}: waiting for it to catch up, and for the \
             slot {name} there"
        )));
    }
    if is_behind {
        return hole(format!(
            "the server's log ends at {}, before the stored position (it was restored or reset)",
            Lsn(found.system.wal_lsn)
        ));
    }
    let Some(slot) = found.slot else {
        if found.is_standby {
            return Err(SourceError::retry(format!(
                "the server is a standby and has no replication slot {name}: waiting until it is promoted and has the slot (PostgreSQL 17 keeps \
                 failover slots on standbys: sync_replication_slots), or name the primary in the url"
            )));
        }
        return hole(format!("the replication slot {name} is gone"));
    };
    if slot.is_lost() {
        return hole(format!("the replication slot {name} has lost its WAL (wal_status lost; see max_slot_wal_keep_size)"));
    }
    match slot.confirmed_lsn {
        Some(confirmed) if confirmed <= stored.flush_lsn => Ok(()),
        Some(confirmed) => {
            hole(format!("the replication slot {name} was made again or moved by somebody else: it begins at {}", Lsn(confirmed)))
        }
        None => hole(format!("the replication slot {name} is not a logical one")),
    }
}

/// Whether the server still has all that rows of a snapshot have seen.
fn compare_rows(stored: &Stored, found: &Found<'_>) -> Result<(), SourceError> {
    let how = match found.left {
        Some(Some(switch)) if switch < found.seen_lsn => {
            format!("the server left timeline {} at {} (it was promoted or restored)", stored.timeline, Lsn(switch))
        }
        _ if !found.is_standby && found.system.wal_lsn < found.seen_lsn => {
            format!("the server's log ends at {} (it was restored or reset)", Lsn(found.system.wal_lsn))
        }
        _ => return Ok(()),
    };
    Err(SourceError::refused(format!(
        "{how}, and rows of a snapshot were read at {}: they may have what was lost since. Choose: bring the server back with its log, or reset \
         the stored position of this source, so that it begins anew with a snapshot",
        Lsn(found.seen_lsn)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceErrorKind;

    fn stored() -> Stored {
        Stored { system: "7".into(), timeline: 1, database: "shop".into(), slot: "s".into(), flush_lsn: 1000, committed_us: None }
    }

    fn slot() -> Slot {
        Slot {
            plugin: "pgoutput".into(),
            database: "shop".into(),
            is_active: false,
            restart_lsn: Some(800),
            confirmed_lsn: Some(900),
            wal_status: Some("reserved".into()),
            safe_wal_bytes: None,
            wal_lsn: 2000,
        }
    }

    /// The verdict after something has changed.
    fn verdict(change: impl FnOnce(&mut Stored, &mut System, &mut Option<Slot>, &mut Option<Option<u64>>)) -> Result<(), SourceError> {
        let (mut stored, mut system) = (stored(), System { identifier: "7".into(), timeline: 1, wal_lsn: 2000 });
        let (mut slot, mut left) = (Some(slot()), None);
        change(&mut stored, &mut system, &mut slot, &mut left);
        let slot = slot.as_ref();
        let found =
            Found { system: &system, slot, left, database: "shop", slot_name: "s", is_standby: false, is_within: false, seen_lsn: 0 };
        compare(&stored, &found)
    }

    fn refused(part: &str, change: impl FnOnce(&mut Stored, &mut System, &mut Option<Slot>, &mut Option<Option<u64>>)) {
        let error = verdict(change).unwrap_err();
        assert_eq!(error.kind, SourceErrorKind::Refused);
        assert!(error.message.contains(part) && error.message.contains("Choose"), "{error}");
    }

    #[test]
    fn it_goes_on_where_nothing_is_missing() {
        assert!(verdict(|_, _, _, _| {}).is_ok());
        assert!(verdict(|_, _, slot, _| slot.as_mut().unwrap().confirmed_lsn = Some(1000)).is_ok());
        assert!(
            verdict(|_, system, _, left| (system.timeline, *left) = (2, Some(Some(1000)))).is_ok(),
            "promoted behind the stored position"
        );
    }

    #[test]
    fn it_stops_before_every_hole() {
        refused("gone", |_, _, slot, _| *slot = None);
        refused("made again", |_, _, slot, _| slot.as_mut().unwrap().confirmed_lsn = Some(1001));
        refused("lost", |_, _, slot, _| slot.as_mut().unwrap().wal_status = Some("lost".into()));
        refused("lost", |_, _, slot, _| slot.as_mut().unwrap().restart_lsn = None);
        refused("system identifier", |_, system, _, _| system.identifier = "8".into());
        refused("database", |stored, _, _, _| stored.database = "other".into());
        refused("slot is s", |stored, _, _, _| stored.slot = "other".into());
        refused("log ends", |_, system, _, _| system.wal_lsn = 999);
        refused("left timeline 1 at 0/3E7", |_, system, _, left| (system.timeline, *left) = (2, Some(Some(999))));
        refused("never on timeline 3", |stored, _, _, left| (stored.timeline, *left) = (3, Some(None)));
    }

    /// The verdict on a server whose log parts from the stored timeline at `switch` and ends at `wal_lsn`, with or without a slot.
    fn promoted(switch: Option<u64>, wal_lsn: u64, has_slot: bool, is_standby: bool, is_within: bool) -> Option<SourceErrorKind> {
        let (stored, slot) = (stored(), slot());
        let timeline = if switch.is_some() { 2 } else { 1 };
        let system = System { identifier: "7".into(), timeline, wal_lsn };
        let (left, slot) = (switch.map(Some), has_slot.then_some(&slot));
        let found = Found { system: &system, slot, left, database: "shop", slot_name: "s", is_standby, is_within, seen_lsn: 0 };
        compare(&stored, &found).err().map(|e| e.kind)
    }

    #[test]
    fn a_promoted_standby_goes_on_only_with_all_that_was_given() {
        let refused = Some(SourceErrorKind::Refused);
        assert_eq!(promoted(Some(1000), 2000, true, false, false), None);
        assert_eq!(promoted(Some(1000), 2000, false, false, false), refused, "without its slot");
        assert_eq!(promoted(Some(999), 2000, true, false, false), refused, "without what was stored last");
        // The commit record of a transaction that was given in part stands at the stored place, and was not replayed.
        assert_eq!(promoted(Some(1000), 2000, true, false, true), refused);
        assert_eq!(promoted(Some(1001), 2000, true, false, true), None);
        assert_eq!(promoted(None, 1000, true, false, true), refused, "restored without it");
        assert_eq!(promoted(None, 1000, true, false, false), None);
    }

    /// Rows of a snapshot were read at 1500: the server, which has the slot and the stored place, must have that, too.
    #[test]
    fn rows_that_saw_what_was_lost_are_not_built_upon() {
        let verdict = |left: Option<u64>, wal_lsn, is_standby| {
            let (stored, slot) = (stored(), slot());
            let system = System { identifier: "7".into(), timeline: if left.is_some() { 2 } else { 1 }, wal_lsn };
            let (left, slot) = (left.map(Some), Some(&slot));
            let found =
                Found { system: &system, slot, left, database: "shop", slot_name: "s", is_standby, is_within: false, seen_lsn: 1500 };
            compare(&stored, &found).err()
        };
        for (left, wal_lsn) in [(Some(1499), 2000), (None, 1499)] {
            let error = verdict(left, wal_lsn, false).unwrap();
            assert_eq!(error.kind, SourceErrorKind::Refused);
            assert!(error.message.contains("read at 0/5DC") && error.message.contains("Choose"), "{error}");
        }
        assert!(verdict(Some(1500), 2000, false).is_none() && verdict(None, 1500, false).is_none());
        assert!(verdict(None, 1499, true).is_none(), "a standby may be behind");
    }

    #[test]
    fn a_standby_is_waited_for() {
        let retry = Some(SourceErrorKind::Retry);
        assert_eq!(promoted(None, 2000, false, true, false), retry, "its slot may still come");
        assert_eq!(promoted(None, 999, true, true, false), retry, "it is behind");
        assert_eq!(promoted(None, 1000, true, true, true), retry);
        assert_eq!(promoted(None, 2000, true, true, false), None, "version 16 streams from standbys");
        assert_eq!(promoted(Some(999), 2000, true, true, false), Some(SourceErrorKind::Refused), "of another branch of history");
    }

    #[test]
    fn a_history_file_says_where_a_timeline_was_left() {
        let history = "1\t0/3000000\tno recovery target specified\n\n2\t16/B374D848\tbefore 2024-01-01\n";
        assert_eq!(switch(history, 1), Some(0x300_0000));
        assert_eq!(switch(history, 2), Some(0x16_B374_D848));
        assert_eq!(switch(history, 3), None);
    }
}
