//! Which server it is, and whether a stored place is in its binlog.

use super::gtid::{Gtid, GtidSet};
use super::place::{Gtids, Notes, file_number};
use super::settings::GtidMode;
use super::snapshot;
use super::wire::{Connection, Flavor, WireError, literal};

/// `ER_ERROR_WHEN_EXECUTING_COMMAND` of `SHOW BINLOG EVENTS`: no events can be read from there.
const CANNOT_SHOW: u16 = 1220;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub id: u32,
    /// MariaDB has none.
    pub uuid: Option<String>,
    pub flavor: Flavor,
    /// Whether its transactions have names.
    pub has_gtids: bool,
    /// The statement that says where its binlog ends.
    pub status: &'static str,
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Where it was left.
    File,
    /// On another server, by the names of the transactions that were read.
    Gtid,
    /// It would skip or repeat changes.
    Refused(String),
}

/// Numbers of the binlog's files and their sizes; the end of the last one is the binlog's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    files: Vec<(u64, u64)>,
    /// All that the server has: it may be asked for its end only.
    pub is_whole: bool,
}

impl Files {
    /// Bytes from there to the end; none where a file is not there.
    pub fn behind(&self, number: u64, at: u64) -> Option<u64> {
        let i = self.files.iter().position(|(n, _)| *n == number)?;
        let sizes = self.files[i..].iter().map(|(_, size)| *size);
        Some(sizes.fold(0, u64::saturating_add).saturating_sub(at))
    }
}

impl Server {
    pub async fn files(&self, sql: &mut Connection) -> Result<Files, WireError> {
        let malformed = || WireError::Malformed { what: "list of the binlog's files" };
        let one = |file: String, size: Option<u64>| file_number(&file).ok().zip(size).ok_or_else(malformed);
        match sql.query("SHOW BINARY LOGS").await {
            Ok(rows) => {
                let files = rows.iter().map(|row| one(row.text(0), row.number(1))).collect::<Result<_, _>>()?;
                Ok(Files { files, is_whole: true })
            }
            // It may not be asked for: then its end.
            Err(e) if e.code().is_some() => {
                let (file, at) = snapshot::end(sql, self.status).await?;
                Ok(Files { files: vec![one(file, Some(at))?], is_whole: false })
            }
            Err(e) => Err(e),
        }
    }

    pub async fn ask(sql: &mut Connection) -> Result<Self, WireError> {
        let flavor = sql.flavor();
        let extra = if flavor == Flavor::MySql { ", @@server_uuid, @@gtid_mode" } else { "" };
        let rows = sql.query(&format!("SELECT @@server_id{extra}")).await?;
        let row = rows.first().ok_or(WireError::Malformed { what: "server id" })?;
        Ok(Self {
            id: row.number(0).unwrap_or(0),
            uuid: (flavor == Flavor::MySql).then(|| row.text(1)),
            flavor,
            has_gtids: flavor == Flavor::MariaDb || row.text(2) == "ON",
            status: if flavor == Flavor::MySql && version(sql.version()) >= (8, 2) {
                "SHOW BINARY LOG STATUS"
            } else {
                "SHOW MASTER STATUS"
            },
        })
    }

    /// The binlog's end, and which transactions are before it.
    pub async fn end(&self, sql: &mut Connection) -> Result<(String, u64, Gtids), WireError> {
        if self.flavor == Flavor::MySql {
            let rows = sql.query(self.status).await?;
            let row = rows.first().ok_or(WireError::Login("the server writes no binlog: set log_bin, and restart it".into()))?;
            let gtids = if self.has_gtids { Gtids::parse(Some(&row.text(4)), false) } else { Gtids::None };
            return Ok((row.text(0), row.number(1).ok_or(WireError::Malformed { what: "end of the binlog" })?, gtids));
        }
        let (file, at) = snapshot::end(sql, self.status).await?;
        let gtids = gtids_at(sql, &file, at).await?.unwrap_or(Gtids::None);
        Ok((file, at, gtids))
    }

    fn is_of(&self, notes: &Notes) -> bool {
        self.id == notes.server_id && self.uuid == notes.server_uuid && (self.flavor == Flavor::MariaDb) == notes.is_mariadb
    }

    pub async fn start(&self, sql: &mut Connection, notes: &Notes, mode: GtidMode) -> Result<Start, WireError> {
        let by_file = self.by_file(sql, notes).await?;
        match (by_file, self.is_of(notes)) {
            (None, true) => Ok(Start::File),
            (Some(why), true) => Ok(Start::Refused(why)),
            (_, false) => self.by_gtid(sql, notes, mode).await,
        }
    }

    /// Why the stored file and position are not of this binlog; none if they are.
    async fn by_file(&self, sql: &mut Connection, notes: &Notes) -> Result<Option<String>, WireError> {
        let logs = sql.query("SHOW BINARY LOGS").await?;
        let place = format!("{} at {}", notes.file, notes.at);
        let Some(size) = logs.iter().find(|r| r.text(0) == notes.file).and_then(|r| r.number::<u64>(1)) else {
            let (first, last) = (logs.first().map(|r| r.text(0)).unwrap_or_default(), logs.last().map(|r| r.text(0)).unwrap_or_default());
            return Ok(Some(format!("the binlog was purged: the stored place is {place}, and the server has {first} to {last}")));
        };
        if notes.at > size {
            return Ok(Some(format!("the binlog was reset or its end lost: the stored place is {place}, and the file ends at {size}")));
        }
        if self.flavor == Flavor::MySql {
            return other_events(sql, notes, &place).await;
        }
        let (stored, have) = (notes.gtids(), gtids_at(sql, &notes.file, notes.at).await?);
        Ok(match have {
            Some(have) if have != stored => {
                let said = |g: &Gtids| g.text().unwrap_or_default();
                Some(format!(
                    "the binlog was reset: at the stored place {place} it has come to GTID {:?}, and {:?} is stored",
                    said(&have),
                    said(&stored)
                ))
            }
            Some(_) => None,
            None => Some(format!("the binlog was reset: the stored place {place} is not behind an event of it")),
        })
    }

    async fn by_gtid(&self, sql: &mut Connection, notes: &Notes, mode: GtidMode) -> Result<Start, WireError> {
        let other = format!("this is another server (id {}, stored is {})", self.id, notes.server_id);
        let refuse = |why: &str| Ok(Start::Refused(format!("{other}, {why}")));
        if mode == GtidMode::Off {
            return refuse("and gtid is off in the settings, so that its binlog cannot be compared");
        }
        match notes.gtids() {
            _ if (self.flavor == Flavor::MariaDb) != notes.is_mariadb => refuse("of another make"),
            Gtids::None => refuse("and no GTIDs are stored: they were off on the old one"),
            _ if !self.has_gtids => refuse("and its gtid_mode is not ON"),
            Gtids::MySql(set) => self.by_mysql_set(sql, &set, &other).await,
            Gtids::MariaDb(stored) => {
                let rows = sql.query("SELECT @@gtid_current_pos").await?;
                let have = rows.first().map(|r| r.text(0)).unwrap_or_default();
                match have.parse::<super::gtid::MariadbPosition>().is_ok_and(|have| have.contains(&stored)) {
                    true => Ok(Start::Gtid),
                    false => refuse(&format!("and it has not come as far: it is at GTID {have:?}, {:?} is stored", stored.to_string())),
                }
            }
        }
    }

    async fn by_mysql_set(&self, sql: &mut Connection, stored: &GtidSet, other: &str) -> Result<Start, WireError> {
        let text = literal(stored.to_string().as_bytes());
        let question = format!(
            "SELECT GTID_SUBSET(CONVERT({text} USING latin1), @@GLOBAL.gtid_executed), GTID_SUBSET(@@GLOBAL.gtid_purged, CONVERT({text} USING latin1))"
        );
        let rows = sql.query(&question).await?;
        let is = |n: usize| rows.first().is_some_and(|r| r.text(n) == "1");
        Ok(match (is(0), is(1)) {
            (true, true) => Start::Gtid,
            (false, _) => {
                Start::Refused(format!("{other}, and it lacks transactions that were read: {stored} is not in its gtid_executed"))
            }
            (true, false) => {
                Start::Refused(format!("{other}, and it has purged transactions that were not read: its gtid_purged is not in {stored}"))
            }
        })
    }
}

/// MySQL: why the stored place is none of this binlog, by the event that is there, which follows all that was read.
async fn other_events(sql: &mut Connection, notes: &Notes, place: &str) -> Result<Option<String>, WireError> {
    // The statement takes no other literal than this.
    let file = notes.file.replace('\\', "\\\\").replace('\'', "''");
    let rows = match sql.query(&format!("SHOW BINLOG EVENTS IN '{file}' FROM {} LIMIT 1", notes.at)).await {
        Err(e) if e.code() == Some(CANNOT_SHOW) => {
            return Ok(Some(format!("the binlog was reset: the server finds no event at the stored place {place}: {e}")));
        }
        rows => rows?,
    };
    // Nothing yet. From within an event the server goes to the next one.
    let Some(row) = rows.first() else { return Ok(None) };
    if row.number::<u64>(1) != Some(notes.at) {
        return Ok(Some(format!("the binlog was reset: the stored place {place} is not behind an event of it")));
    }
    // `SET @@SESSION.GTID_NEXT= '7ba01cf9-e746-11f1-9c81-02fc00000001:4'`, which begins a transaction; no other event has a GTID in quotes.
    let (info, stored) = (row.text(5), notes.gtids());
    let next = info.split('\'').nth(1).and_then(|gtid| gtid.parse::<Gtid>().ok());
    Ok(match (next, stored) {
        (Some(next), Gtids::MySql(stored)) if stored.contains_gtid(&next) => {
            Some(format!("the binlog was reset: at the stored place {place} the next transaction is {next}, which was read before"))
        }
        _ => None,
    })
}

/// MariaDB: which transactions are before a place; none if the server cannot tell.
async fn gtids_at(sql: &mut Connection, file: &str, at: u64) -> Result<Option<Gtids>, WireError> {
    let rows = sql.query(&format!("SELECT BINLOG_GTID_POS(CONVERT({} USING utf8mb4), {at})", literal(file.as_bytes()))).await?;
    let value = rows.first().and_then(|r| r.0.first().cloned()).flatten();
    Ok(value.map(|text| Gtids::parse(Some(&String::from_utf8_lossy(&text)), true)))
}

/// `8.4.2` as 8, 4.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::Files;

    #[test]
    fn what_is_kept_is_counted_from_a_place_to_the_end() {
        let files = Files { files: vec![(3, 100), (4, 200), (5, 7)], is_whole: true };
        for ((number, at), want) in
            [((3, 0), Some(307)), ((3, 100), Some(207)), ((5, 4), Some(3)), ((5, 9), Some(0)), ((2, 0), None), ((6, 0), None)]
        {
            assert_eq!(files.behind(number, at), want, "{number} {at}");
        }
    }
}
