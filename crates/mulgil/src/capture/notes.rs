//! What each captured database needs to go on where it was, kept in the log with the rows that it belongs to.
//!
//! Topic `_captures`, one partition. Record: key = the source's name, value = JSON, one of
//!
//! ```text
//! {"generation":0,"whole":{…}}                  all of a source's notes
//! {"generation":0,"set":{…},"unset":[…],"within":{"shapes":patch}}
//!                                               what has changed of them since the record before, by key; of maps and lists what has changed
//!                                               inside of them (`patch`)
//! ```
//!
//! A source may say in its notes `"same": ["shapes", …]`: what it has not given again because it is as it was in the batch before. So shapes
//! of five hundred tables are neither copied nor compared with every batch, and one that is new is written alone.
//!
//! Owner `source/NAME` (`source/NAME@2` in generation 2) has the position behind which the source goes on. A generation ends when somebody
//! decides that a source begins anew: its next positions need not be above the old ones. Owner `notes/all` has the offset from which on the
//! topic has a whole record of every source: reading begins there, and retention keeps what is behind it.

use super::patch::Patch;
use anyhow::{Context, Result, ensure};
use mulgil_capture::change::Resume;
use mulgil_log::{Advance, Append, Commit, Committed, Log, LogResult, Owner, ReadLimit, RecordsBuilder, Seek, Ticket};
use mulgil_model::ids::{Offset, Partition, Topic, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::{EventTime, ReceiveTime};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub const CAPTURES: &str = "_captures";

/// The key under which a source's notes name what is as it was.
const SAME: &str = "same";

/// Changes of a source's notes behind its last whole record: more are not read at a start.
const CHANGES_MAX: u32 = 2_000;

/// All sources' notes. One lock: commits are begun under it, which waits for no disk, so that their order is that of their notes.
pub struct Notes {
    log: Arc<dyn Log>,
    at: TopicPartition,
    kept: Mutex<AllKept>,
}

#[derive(Default)]
struct AllKept {
    sources: BTreeMap<String, Kept>,
    /// What owner `notes/all` has, or will have with a commit that is on its way.
    told: Option<Offset>,
}

/// Of one source.
#[derive(Debug, Clone, Default)]
struct Kept {
    generation: u32,
    /// None: it begins anew.
    position: Option<Position>,
    notes: Map<String, Value>,
    /// Its last whole record that is durable.
    whole: Option<Offset>,
    /// Records behind that one.
    n_changes: u32,
    /// Commits that were begun and have not come back.
    n_in_flight: u32,
    /// The next commit is to carry a whole record, so that older ones may go.
    is_whole_wanted: bool,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    whole: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    set: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unset: Vec<String>,
    /// Older versions of this program wrote none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    within: BTreeMap<String, Patch>,
}

impl Record {
    /// Says that nothing has changed.
    fn is_silent(&self) -> bool {
        self.whole.is_none() && self.set.is_empty() && self.unset.is_empty() && self.within.is_empty()
    }
}

/// A commit on its way.
pub struct Begun {
    source: String,
    ticket: Ticket,
    position: Position,
    whole: Option<Offset>,
}

impl Notes {
    pub fn open(log: Arc<dyn Log>) -> Result<Self> {
        let at = TopicPartition::new(Topic::new(CAPTURES)?, Partition(0));
        let kept = Mutex::new(read(&*log, &at)?);
        Ok(Self { log, at, kept })
    }

    /// Where the source goes on; None: it begins.
    pub fn resume(&self, source: &str) -> Option<Resume> {
        let all = self.kept();
        let kept = all.sources.get(source)?;
        Some(Resume { position: kept.position?, notes: Value::Object(kept.notes.clone()) })
    }

    /// Every source that the log has notes of.
    pub fn sources(&self) -> Vec<String> {
        self.kept().sources.keys().cloned().collect()
    }

    /// Begins the commit of what a source gave, together with where it goes on behind it. Commits of one source are begun in order, by one
    /// thread; each is given to [`Self::wait`]. After an error of either, and once all that were begun have come back, [`Self::reload`]
    /// tells what is true.
    pub fn begin(&self, source: &str, resume: Resume, mut commit: Commit) -> Result<Begun> {
        let Value::Object(mut notes) = resume.notes else { anyhow::bail!("the notes of {source} are not a JSON object") };
        let same = names(notes.remove(SAME));
        let mut all = self.kept();
        let floor = all.floor().filter(|floor| all.told.is_none_or(|told| *floor > told));
        let kept = all.sources.entry(source.to_owned()).or_default();
        let record = kept.record(&notes, &same)?;
        let is_silent = record.is_silent();
        if !is_silent {
            commit.appends.push(append(&self.at, source, &record)?);
        }
        commit.progress.push(Advance { owner: owner(source, kept.generation)?, partition: self.at.clone(), position: resume.position });
        commit.progress.extend(floor.map(|floor| told(&self.at, floor)).transpose()?);
        let ticket = self.log.begin(commit)?;
        for name in same {
            notes.extend(kept.notes.remove_entry(&name));
        }
        let whole = record.whole.and_then(|_| ticket.committed().base_offsets.last().copied());
        kept.n_changes = if whole.is_some() { 0 } else { kept.n_changes + u32::from(!is_silent) };
        kept.is_whole_wanted &= whole.is_none();
        (kept.position, kept.notes) = (Some(resume.position), notes);
        kept.n_in_flight += 1;
        all.told = floor.or(all.told);
        Ok(Begun { source: source.to_owned(), ticket, position: resume.position, whole })
    }

    /// Blocks until the commit is durable, and gives the position that it reaches. `first` is done before readers are woken, where possible.
    pub fn wait(&self, begun: Begun, first: impl FnOnce(&Committed)) -> LogResult<Position> {
        let result = begun.ticket.wait_and(first);
        if let Some(kept) = self.kept().sources.get_mut(&begun.source) {
            kept.n_in_flight = kept.n_in_flight.saturating_sub(1);
            kept.whole = begun.whole.filter(|_| result.is_ok()).or(kept.whole);
        }
        result.map(|_| begun.position)
    }

    /// Reads again what is durable.
    pub fn reload(&self, source: &str) -> Result<()> {
        let mut all = self.kept();
        let mut stored = read(&*self.log, &self.at)?;
        all.told = stored.told;
        match stored.sources.remove(source) {
            Some(kept) => drop(all.sources.insert(source.to_owned(), kept)),
            None => drop(all.sources.remove(source)),
        }
        Ok(())
    }

    /// Lets the source begin anew: without notes, and with positions that need not be above the old ones.
    pub fn forget(&self, source: &str) -> Result<()> {
        let mut all = self.kept();
        let kept = all.sources.get_mut(source).with_context(|| format!("the log has nothing of a captured database '{source}'"))?;
        ensure!(kept.n_in_flight == 0, "{source} is being captured: stop that first");
        *kept = Kept { generation: kept.generation + 1, ..Kept::default() };
        kept.whole = Some(self.write_whole(source, kept)?);
        Ok(())
    }

    /// The first offset of the topic that is still needed.
    pub fn needed_from(&self) -> Offset {
        let all = self.kept();
        if all.sources.is_empty() { Offset(u64::MAX) } else { all.told.unwrap_or(Offset::ZERO) }
    }

    /// Where old records are in the way (they keep rows from going, or there are very many) each source's notes are written anew: at once
    /// where it is quiet, else with its next commit.
    pub fn renew(&self, is_in_the_way: bool) -> Result<()> {
        let mut all = self.kept();
        let next = self.log.seek(&self.at, Seek::Next)?;
        let n_behind = |kept: &Kept| next.0 - kept.whole.unwrap_or(Offset::ZERO).0;
        for (source, kept) in &mut all.sources {
            if !is_in_the_way && n_behind(kept) <= u64::from(CHANGES_MAX) * 4 {
                continue;
            }
            if kept.n_in_flight > 0 {
                kept.is_whole_wanted = true;
            } else {
                kept.whole = Some(self.write_whole(source, kept)?);
                (kept.n_changes, kept.is_whole_wanted) = (0, false);
            }
        }
        let floor = all.floor().filter(|floor| all.told.is_none_or(|told| *floor > told));
        if let Some(floor) = floor {
            self.log.commit(Commit { appends: vec![], progress: vec![told(&self.at, floor)?] })?;
            all.told = Some(floor);
        }
        Ok(())
    }

    fn write_whole(&self, source: &str, kept: &Kept) -> Result<Offset> {
        let record = Record { generation: kept.generation, whole: Some(kept.notes.clone()), ..Record::default() };
        let commit = Commit { appends: vec![append(&self.at, source, &record)?], progress: vec![] };
        Ok(self.log.commit(commit)?.base_offsets.first().copied().unwrap_or(Offset::ZERO))
    }

    fn kept(&self) -> MutexGuard<'_, AllKept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AllKept {
    /// From here on there is a whole record of every source. None while one has none.
    fn floor(&self) -> Option<Offset> {
        let wholes: Option<Vec<Offset>> = self.sources.values().map(|kept| kept.whole).collect();
        wholes?.into_iter().min()
    }
}

impl Kept {
    /// What is to be recorded so that the notes become these, with what is the same as before.
    fn record(&self, notes: &Map<String, Value>, same: &[String]) -> Result<Record> {
        let generation = self.generation;
        if let Some(name) = same.iter().find(|name| !self.notes.contains_key(*name)) {
            anyhow::bail!("the notes say that '{name}' is as it was, and it was not there: this is a fault of the source");
        }
        let is_first = self.whole.is_none() && self.n_in_flight == 0;
        if is_first || self.is_whole_wanted || self.n_changes >= CHANGES_MAX {
            let mut whole = notes.clone();
            whole.extend(same.iter().filter_map(|name| self.notes.get_key_value(name)).map(|(k, v)| (k.clone(), v.clone())));
            return Ok(Record { generation, whole: Some(whole), ..Record::default() });
        }
        let mut record = Record { generation, ..Record::default() };
        for (name, new) in notes {
            match self.notes.get(name).map(|old| Patch::between(old, new)) {
                Some(None) => {}
                Some(Some(patch @ Patch::Within { .. })) => drop(record.within.insert(name.clone(), patch)),
                Some(Some(Patch::Is { .. })) | None => drop(record.set.insert(name.clone(), new.clone())),
            }
        }
        record.unset = self.notes.keys().filter(|name| !notes.contains_key(*name) && !same.contains(name)).cloned().collect();
        Ok(record)
    }

    /// Takes a record of the log.
    fn take(&mut self, record: Record, offset: Offset) -> Result<()> {
        if record.whole.is_none() && self.whole.is_none() {
            // Another source's whole record is older than ours: what is before ours is of no use, and changes what is not known.
            return Ok(());
        }
        self.n_changes += u32::from(record.whole.is_none() && !record.is_silent());
        if let Some(whole) = record.whole {
            *self = Self { generation: record.generation, notes: whole, whole: Some(offset), ..Self::default() };
        }
        self.notes.extend(record.set);
        for key in &record.unset {
            self.notes.remove(key);
        }
        for (key, patch) in record.within {
            let value =
                self.notes.get_mut(&key).with_context(|| format!("record {offset} of {CAPTURES} changes '{key}', which is not there"))?;
            ensure!(patch.apply(value), "record {offset} of {CAPTURES} changes '{key}' where it has nothing");
        }
        Ok(())
    }
}

/// A list of names in the notes.
fn names(value: Option<Value>) -> Vec<String> {
    let Some(Value::Array(names)) = value else { return Vec::new() };
    names.into_iter().filter_map(|name| if let Value::String(name) = name { Some(name) } else { None }).collect()
}

fn read(log: &dyn Log, at: &TopicPartition) -> Result<AllKept> {
    let told = log.progress(&reader()?, at)?.map(|p| Offset(p.commit));
    let mut all = AllKept { sources: BTreeMap::new(), told };
    let mut from = told.unwrap_or(Offset::ZERO).max(log.seek(at, Seek::First)?);
    loop {
        let chunk = log.read(at, from, ReadLimit::records(1_000)).context("cannot read the notes of captured databases in the log")?;
        if chunk.is_empty() {
            break;
        }
        for record in chunk.iter() {
            let (source, offset) = (String::from_utf8_lossy(record.key).into_owned(), record.offset);
            let record: Record = serde_json::from_slice(record.value).with_context(|| format!("record {offset} of {CAPTURES}"))?;
            all.sources.entry(source).or_default().take(record, offset)?;
        }
        from = chunk.next_offset();
    }
    for (source, kept) in &mut all.sources {
        kept.position = log.progress(&owner(source, kept.generation)?, at)?;
    }
    Ok(all)
}

fn append(at: &TopicPartition, source: &str, record: &Record) -> Result<Append> {
    let value = serde_json::to_vec(record).context("cannot write notes as JSON")?;
    let mut records = RecordsBuilder::new();
    records.push(source.as_bytes(), &[], &value, EventTime::default(), ReceiveTime::default());
    Ok(Append { to: at.clone(), records: records.finish() })
}

fn told(at: &TopicPartition, floor: Offset) -> Result<Advance> {
    Ok(Advance { owner: reader()?, partition: at.clone(), position: Position::new(floor.0, 0) })
}

fn owner(source: &str, generation: u32) -> Result<Owner> {
    let name = if generation == 0 { format!("source/{source}") } else { format!("source/{source}@{generation}") };
    Ok(Owner::new(&name)?)
}

fn reader() -> Result<Owner> {
    Ok(Owner::new("notes/all")?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mulgil_disk::RealDisk;
    use mulgil_log::{Journal, JournalConfig, LogError, Retention};
    use mulgil_model::time::AppendTime;
    use serde_json::json;
    use std::path::Path;

    fn journal(dir: &Path) -> Arc<Journal> {
        let mut config = JournalConfig::new(dir);
        (config.segment_bytes, config.retention) = (64 << 10, Retention { time: None, bytes: Some(128 << 10) });
        Arc::new(Journal::open(config, Arc::new(RealDisk), Arc::new(|| AppendTime(0))).unwrap().0)
    }

    fn commit(notes: &Notes, source: &str, at: u64, said: Value) {
        let resume = Resume { position: Position::new(at, 0), notes: said };
        let begun = notes.begin(source, resume, Commit::default()).unwrap();
        notes.wait(begun, |_| ()).unwrap();
    }

    #[test]
    fn notes_are_found_again_as_they_were_committed_last() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(journal(dir.path())).unwrap();
        assert_eq!(notes.resume("a"), None);
        commit(&notes, "a", 1, json!({"slot": "s", "tables": {"t": 1}}));
        commit(&notes, "b", 7, json!({}));
        commit(&notes, "a", 2, json!({"slot": "s", "lsn": 5}));
        commit(&notes, "a", 3, json!({"slot": "s", "lsn": 5}));
        let expected = Some(Resume { position: Position::new(3, 0), notes: json!({"slot": "s", "lsn": 5}) });
        assert_eq!(notes.resume("a"), expected);
        drop(notes);
        let notes = Notes::open(journal(dir.path())).unwrap();
        assert_eq!(notes.resume("a"), expected);
        assert_eq!(notes.resume("b").unwrap().position, Position::new(7, 0));
        let chunk = notes.log.read(&notes.at, Offset::ZERO, ReadLimit::records(100)).unwrap();
        assert_eq!(chunk.len(), 3, "notes that did not change were written");
    }

    /// What each record of the topic has, as text.
    fn records(notes: &Notes) -> Vec<String> {
        let chunk = notes.log.read(&notes.at, Offset::ZERO, ReadLimit::records(10_000)).unwrap();
        chunk.iter().map(|r| String::from_utf8(r.value.to_vec()).unwrap()).collect()
    }

    #[test]
    fn shapes_of_many_tables_are_written_when_they_change_and_only_what_changes() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(journal(dir.path())).unwrap();
        let mut shapes: Map<String, Value> = (0..500).map(|n| (format!("public.table_{n:03}"), json!([n]))).collect();
        commit(&notes, "a", 1, json!({"lsn": 1, "shapes": shapes}));
        let whole_bytes = records(&notes)[0].len();
        // Mostly there is no news of them, and they are not even handed over.
        for at in 2..10 {
            commit(&notes, "a", at, json!({"lsn": at, "same": ["shapes"]}));
        }
        shapes["public.table_007"] = json!([7, 99]);
        shapes.insert("public.table_500".to_owned(), json!([500]));
        commit(&notes, "a", 10, json!({"lsn": 10, "shapes": shapes}));
        let written = records(&notes);
        assert!(whole_bytes > 10_000 && written[1..9].iter().all(|r| r.len() < 50), "{}", written[1]);
        assert!(written[9].len() < 200 && written[9].contains("table_007") && !written[9].contains("table_008"), "{}", written[9]);
        let expected = Some(Resume { position: Position::new(10, 0), notes: json!({"lsn": 10, "shapes": shapes}) });
        assert_eq!(notes.resume("a"), expected);
        drop(notes);
        let notes = Notes::open(journal(dir.path())).unwrap();
        assert_eq!(notes.resume("a"), expected);
        // What is left out without a word is gone, as ever; what never was cannot be the same.
        commit(&notes, "a", 11, json!({"lsn": 11}));
        assert_eq!(notes.resume("a").unwrap().notes, json!({"lsn": 11}));
        let odd = Resume { position: Position::new(12, 0), notes: json!({"same": ["shapes"]}) };
        assert!(notes.begin("a", odd, Commit::default()).is_err());
    }

    #[test]
    fn a_whole_record_has_what_is_the_same_too() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(journal(dir.path())).unwrap();
        commit(&notes, "a", 1, json!({"n": 1, "shapes": {"t": [1]}}));
        for at in 2..u64::from(CHANGES_MAX) + 10 {
            commit(&notes, "a", at, json!({"n": at, "same": ["shapes"]}));
        }
        let wholes = records(&notes).iter().filter(|r| r.contains("whole")).cloned().collect::<Vec<_>>();
        assert_eq!((wholes.len(), wholes.iter().all(|r| r.contains("shapes"))), (2, true));
    }

    /// As they were written by the version before `within`.
    #[test]
    fn notes_of_before_open() {
        let dir = tempfile::tempdir().unwrap();
        let log = journal(dir.path());
        let at = TopicPartition::new(Topic::new(CAPTURES).unwrap(), Partition(0));
        for value in [
            r#"{"generation":0,"whole":{"stream":{"flush_lsn":1},"shapes":{"public.t":[5]}}}"#,
            r#"{"generation":0,"set":{"stream":{"flush_lsn":2},"shapes":{"public.t":[5,6]}},"unset":["x"]}"#,
        ] {
            let mut records = RecordsBuilder::new();
            records.push(b"a", &[], value.as_bytes(), EventTime::default(), ReceiveTime::default());
            let progress =
                vec![Advance { owner: owner("a", 0).unwrap(), partition: at.clone(), position: Position::new(value.len() as u64, 0) }];
            log.commit(Commit { appends: vec![Append { to: at.clone(), records: records.finish() }], progress }).unwrap();
        }
        let notes = Notes::open(log).unwrap();
        let expected = json!({"stream": {"flush_lsn": 2}, "shapes": {"public.t": [5, 6]}});
        assert_eq!(notes.resume("a").unwrap().notes, expected);
        commit(&notes, "a", 1_000, json!({"stream": {"flush_lsn": 3}, "same": ["shapes"]}));
        assert_eq!(notes.resume("a").unwrap().notes["shapes"], expected["shapes"]);
    }

    #[test]
    fn a_position_is_committed_once_and_a_refused_commit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(journal(dir.path())).unwrap();
        commit(&notes, "a", 5, json!({"n": 1}));
        let again = notes.begin("a", Resume { position: Position::new(5, 0), notes: json!({"n": 2}) }, Commit::default());
        let error = again.map(drop).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(LogError::AlreadyCommitted { .. })), "{error:#}");
        notes.reload("a").unwrap();
        assert_eq!(notes.resume("a").unwrap().notes, json!({"n": 1}));
    }

    #[test]
    fn retention_keeps_what_is_needed_and_old_records_make_way() {
        let dir = tempfile::tempdir().unwrap();
        let log = journal(dir.path());
        let notes = Notes::open(log.clone() as Arc<dyn Log>).unwrap();
        let filler = "x".repeat(1_000);
        commit(&notes, "idle", 1, json!({"kept": "for ever"}));
        commit(&notes, "busy", 1, json!({"fixed": filler, "n": 1}));
        for at in 2..2_000 {
            commit(&notes, "busy", at, json!({"fixed": filler, "n": at, "filler": format!("{filler}{at}"), "map": {"n": at, "fixed": 1}}));
            if at % 50 == 0 {
                let retained = log.retain(&|_| notes.needed_from()).unwrap();
                notes.renew(retained.held_by.is_some()).unwrap();
            }
        }
        assert!(log.seek(&notes.at, Seek::First).unwrap() > Offset(1_000), "nothing went");
        drop((notes, log));
        let notes = Notes::open(journal(dir.path())).unwrap();
        assert_eq!(notes.resume("idle"), Some(Resume { position: Position::new(1, 0), notes: json!({"kept": "for ever"}) }));
        assert_eq!(notes.resume("busy").unwrap().notes["n"], json!(1_999));
        assert_eq!(notes.resume("busy").unwrap().notes["fixed"], json!(filler));
        assert_eq!(notes.resume("busy").unwrap().notes["map"], json!({"n": 1_999, "fixed": 1}));
    }

    #[test]
    fn a_forgotten_source_begins_anew_with_any_position() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes::open(journal(dir.path())).unwrap();
        commit(&notes, "a", 500, json!({"n": 1}));
        notes.forget("a").unwrap();
        assert_eq!(notes.resume("a"), None);
        drop(notes);
        let notes = Notes::open(journal(dir.path())).unwrap();
        assert_eq!(notes.resume("a"), None);
        commit(&notes, "a", 3, json!({"n": 2}));
        drop(notes);
        let notes = Notes::open(journal(dir.path())).unwrap();
        assert_eq!(notes.resume("a"), Some(Resume { position: Position::new(3, 0), notes: json!({"n": 2}) }));
        assert!(notes.forget("nobody").is_err());
    }
}
