//! How far a snapshot has come, as it is stored with its rows.
//!
//! Stored as JSON in `Resume::notes` under `snapshot`; a field that is missing has its default, an unknown one is ignored.
//!
//! ```json
//! {"begun_us": 1700000000000000, "lsn": 22682720, "is_complete": false,
//!  "views": [{"xmin": 731, "xmax": 731, "running": [], "lsn": 22682720, "is_of_slot": true}],
//!  "tables": [{"schema": "public", "name": "orders", "oid": 16389, "form": 1234, "key": [{"name": "id", "native": "bigint", "collation": null, "at": 0}],
//!              "n_rows": 8192, "state": "reading",
//!              "spans": [{"upto": ["50000"], "is_done": false, "pieces": [{"upto": ["8192"], "view": 0}]}, {"upto": null, "is_done": false, "pieces": []}]}]}
//! ```

use super::key::KeyColumn;
use super::view::View;
use serde::{Deserialize, Serialize};

/// The values of a key as the database writes them in text.
pub type KeyText = Vec<String>;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotNotes {
    /// When it was begun, microseconds since 1970 by the database's clock.
    pub begun_us: i64,
    /// The slot's consistent point, or where the log ended when a snapshot beside an existing slot was begun.
    pub lsn: u64,
    pub is_complete: bool,
    pub views: Vec<View>,
    pub tables: Vec<TableNotes>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableNotes {
    pub schema: String,
    pub name: String,
    pub oid: u32,
    /// Of the files that hold the rows and of the columns: with another one, what was read is of another table.
    pub form: u64,
    /// What it is paged by; empty: the table has no key, and can only be read whole.
    pub key: Vec<KeyColumn>,
    pub n_rows: u64,
    pub n_rows_estimated: Option<u64>,
    pub state: TableState,
    /// Ranges of the key, in its order.
    pub spans: Vec<SpanNotes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    Reading,
    Done,
    /// Why it could not be read.
    Skipped(String),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpanNotes {
    /// The last key that is in it; `None`: there is no bound.
    pub upto: Option<KeyText>,
    pub is_done: bool,
    /// What was read, one after the other; the next piece begins behind the last.
    pub pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The last key that was read; `None`: to the end of the span.
    pub upto: Option<KeyText>,
    /// Which of the views it was read under.
    pub view: usize,
}

impl SpanNotes {
    /// Everything up to `upto` (`None`: the end of the span) is read.
    pub fn advance(&mut self, upto: Option<KeyText>, view: usize) {
        self.is_done = upto.is_none();
        match self.pieces.last_mut() {
            Some(last) if last.view == view => last.upto = upto,
            _ => self.pieces.push(Piece { upto, view }),
        }
    }

    /// The last key that was read.
    pub fn last(&self) -> Option<&KeyText> {
        self.pieces.last().and_then(|p| p.upto.as_ref())
    }
}

impl TableNotes {
    pub fn is_done(&self) -> bool {
        self.state == TableState::Done
    }

    /// The table in ranges that were each read under one view: the last key of each, and the view. The last range has no bound.
    pub fn ranges(&self) -> Vec<(Option<&KeyText>, usize)> {
        let mut ranges: Vec<(Option<&KeyText>, usize)> = Vec::new();
        for span in &self.spans {
            for piece in &span.pieces {
                let upto = piece.upto.as_ref().or(span.upto.as_ref());
                match ranges.last_mut() {
                    Some(last) if last.1 == piece.view => last.0 = upto,
                    _ => ranges.push((upto, piece.view)),
                }
            }
        }
        ranges
    }
}

impl SnapshotNotes {
    /// Drops the views that nothing was read under.
    pub fn forget_unused_views(&mut self) {
        let pieces = |tables: &[TableNotes]| -> Vec<usize> {
            tables.iter().flat_map(|t| &t.spans).flat_map(|s| &s.pieces).map(|p| p.view).collect()
        };
        let mut used = pieces(&self.tables);
        used.sort_unstable();
        used.dedup();
        used.retain(|view| *view < self.views.len());
        self.views = used.iter().map(|view| self.views[*view].clone()).collect();
        for piece in self.tables.iter_mut().flat_map(|t| &mut t.spans).flat_map(|s| &mut s.pieces) {
            piece.view = used.binary_search(&piece.view).unwrap_or(usize::MAX);
        }
    }

    /// What was committed above this no row has seen; 0: nothing but what was committed before the stream begins.
    pub fn seen_lsn(&self) -> u64 {
        self.views.iter().filter(|v| !v.is_of_slot).map(|v| v.lsn).max().unwrap_or(0)
    }

    pub fn n_rows(&self) -> u64 {
        self.tables.iter().map(|t| t.n_rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<KeyText> {
        Some(vec![text.to_owned()])
    }

    fn table(spans: Vec<SpanNotes>) -> TableNotes {
        let (schema, name) = ("public".to_owned(), "t".to_owned());
        TableNotes { schema, name, oid: 1, form: 2, key: vec![], n_rows: 3, n_rows_estimated: None, state: TableState::Reading, spans }
    }

    #[test]
    fn pieces_read_under_one_view_are_one() {
        let mut first = SpanNotes { upto: key("9"), ..SpanNotes::default() };
        first.advance(key("3"), 0);
        first.advance(key("5"), 0);
        assert_eq!(first.last(), key("5").as_ref());
        first.advance(key("7"), 1);
        first.advance(None, 1);
        assert!(first.is_done);
        let mut second = SpanNotes::default();
        second.advance(key("20"), 1);
        second.advance(None, 2);
        let table = table(vec![first, second]);
        assert_eq!(table.ranges(), [(key("5").as_ref(), 0), (key("20").as_ref(), 1), (None, 2)]);
    }

    #[test]
    fn views_that_nothing_was_read_under_are_forgotten() {
        let view = |xmin| View { xmin, xmax: xmin, running: vec![], lsn: 0, is_of_slot: false };
        let piece = |view| SpanNotes { upto: None, is_done: true, pieces: vec![Piece { upto: None, view }] };
        let mut notes = SnapshotNotes {
            views: vec![view(1), view(2), view(3)],
            tables: vec![table(vec![piece(2), piece(0)])],
            ..SnapshotNotes::default()
        };
        notes.forget_unused_views();
        assert_eq!(notes.views, [view(1), view(3)]);
        assert_eq!(notes.tables[0].spans, [piece(1), piece(0)]);
    }

    #[test]
    fn the_form_of_the_documentation_opens() {
        let stored = r#"{"begun_us": 1700000000000000, "lsn": 22682720, "is_complete": false,
            "views": [{"xmin": 731, "xmax": 731, "running": [], "lsn": 22682720, "is_of_slot": true}],
            "tables": [{"schema": "public", "name": "orders", "oid": 16389, "form": 1234,
                        "key": [{"name": "id", "native": "bigint", "collation": null, "at": 0}], "n_rows": 8192, "state": "reading",
                        "spans": [{"upto": ["50000"], "is_done": false, "pieces": [{"upto": ["8192"], "view": 0}]},
                                  {"upto": null, "is_done": false, "pieces": []}]}]}"#;
        let notes: SnapshotNotes = serde_json::from_str(stored).unwrap();
        assert_eq!(notes.tables[0].spans[0].last(), key("8192").as_ref());
        assert_eq!(serde_json::from_value::<SnapshotNotes>(serde_json::to_value(&notes).unwrap()).unwrap(), notes);
    }
}
