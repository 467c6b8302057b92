//! Transactions that were prepared (`XA PREPARE`) and have not ended: nothing of them is given out before `XA COMMIT`, and nothing at all
//! after `XA ROLLBACK`.
//!
//! ```text
//! GTID, XA START x, rows, XA END x, XA_PREPARE ─▶ held ─┬▶ XA COMMIT x ─▶ the rows, as changes of the commit: its place, GTID and time
//!        (other transactions, given out as ever)        └▶ XA ROLLBACK x ─▶ nothing
//! ```
//!
//! Small ones wait in memory. What is larger than a batch, what memory is too small for together, and what was prepared before the source was
//! opened is read again from the binlog when it is committed (`replay.rs`): the binlog is the disk it is set aside on, and it is where the rows
//! are durable already. So the stored place may move on past what is prepared: where each one begins is stored with it.

use crate::change::Change;
use crate::source::SourceError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Prepared at a time; each is named in what is stored.
const PREPARED_MAX: usize = 4_096;

/// Where the transaction's first event is; none if that is not known: it was prepared before capture began, or on another server.
pub type Begin = Option<(Arc<str>, u64)>;

#[derive(Debug, Default)]
pub struct Prepared {
    /// By the name that servers write: `X'31',X'',1`.
    held: BTreeMap<String, Held>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Held {
    begin: Begin,
    waiting: Option<Waiting>,
}

/// Rows in memory. The ordinals of their positions count the rows of the transaction; all else of the positions is the commit's.
#[derive(Debug)]
pub struct Waiting {
    pub changes: Vec<Change>,
    pub bytes: usize,
}

/// As it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    pub xid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default)]
    pub at: u64,
}

impl Prepared {
    pub fn new(bytes_max: usize, noted: Vec<Noted>) -> Self {
        let held = |n: Noted| (n.xid, Held { begin: n.file.map(|file| (file.into(), n.at)), waiting: None });
        Self { held: noted.into_iter().map(held).collect(), bytes: 0, bytes_max }
    }

    pub fn noted(&self) -> Vec<Noted> {
        let one = |(xid, held): (&String, &Held)| {
            let (file, at) = held.begin.as_ref().map_or((None, 0), |(file, at)| (Some(file.to_string()), *at));
            Noted { xid: xid.clone(), file, at }
        };
        self.held.iter().map(one).collect()
    }

    /// Whether so many bytes more may wait in memory.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= self.bytes_max
    }

    pub fn hold(&mut self, xid: String, begin: (Arc<str>, u64), waiting: Option<Waiting>) -> Result<(), SourceError> {
        self.end(&xid);
        if self.held.len() >= PREPARED_MAX {
            return Err(SourceError::refused(format!(
                "the server has more than {PREPARED_MAX} prepared XA transactions: end those that nobody will end any more (XA RECOVER lists them, XA ROLLBACK ends one)"
            )));
        }
        self.bytes += waiting.as_ref().map_or(0, |w| w.bytes);
        self.held.insert(xid, Held { begin: Some(begin), waiting });
        Ok(())
    }

    /// The rows, if they are in memory: to be given out now.
    pub fn take_waiting(&mut self, xid: &str) -> Option<Vec<Change>> {
        let waiting = self.held.get_mut(xid)?.waiting.take()?;
        self.bytes -= waiting.bytes;
        Some(waiting.changes)
    }

    pub fn begin(&self, xid: &str) -> Begin {
        self.held.get(xid).and_then(|held| held.begin.clone())
    }

    /// Committed, with all its rows given out, or rolled back.
    pub fn end(&mut self, xid: &str) {
        if let Some(held) = self.held.remove(xid) {
            self.bytes -= held.waiting.map_or(0, |w| w.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(at: u64) -> (Arc<str>, u64) {
        ("b.000001".into(), at)
    }

    #[test]
    fn what_is_stored_says_where_each_begins_and_what_ended_is_gone() {
        let mut prepared = Prepared::new(100, vec![Noted { xid: "x".into(), file: None, at: 0 }]);
        prepared.hold("a".into(), begin(4), Some(Waiting { changes: Vec::new(), bytes: 60 })).expect("room");
        assert!(prepared.has_room(40) && !prepared.has_room(41));
        prepared.hold("b".into(), begin(9), None).expect("room");
        let stored = serde_json::to_value(prepared.noted()).expect("notes");
        let mut again = Prepared::new(100, serde_json::from_value(stored).expect("notes"));
        assert_eq!((again.begin("a"), again.begin("b"), again.begin("x"), again.begin("y")), (Some(begin(4)), Some(begin(9)), None, None));
        assert!(again.take_waiting("a").is_none(), "memory does not outlive the source");
        assert_eq!(prepared.take_waiting("a"), Some(Vec::new()));
        assert!(prepared.has_room(100));
        ["a", "b", "x"].into_iter().for_each(|xid| again.end(xid));
        assert_eq!(again.noted(), []);
    }

    #[test]
    fn there_is_an_end_to_how_many_are_kept() {
        let mut prepared = Prepared::new(0, Vec::new());
        (0..PREPARED_MAX).for_each(|i| prepared.hold(i.to_string(), begin(4), None).expect("room"));
        prepared.hold("0".into(), begin(5), None).expect("the same name again takes the old one's place");
        let refused = prepared.hold("one more".into(), begin(4), None).expect_err("full").to_string();
        assert!(refused.contains("XA RECOVER"), "{refused}");
    }
}
