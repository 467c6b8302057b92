//! Whether a snapshot is taken: what each mode means here.

use super::notes::SnapshotNotes;
use crate::snapshot_mode::SnapshotMode;

/// What is stored of the source.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    Nothing,
    /// A place in the stream; with what is known of the snapshot before it, if there was one.
    Place(Option<&'a SnapshotNotes>),
}

/// What to do at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Take a snapshot of everything. `is_reset`: rows given before are void (each table begins with a truncate).
    Snapshot { is_reset: bool },
    /// Go on with the snapshot that is stored.
    Resume,
    /// Go on with the stream.
    Stream,
    /// The place that is stored is gone, and going on would skip changes.
    Refuse,
}

/// `is_place_kept`: the database still has everything behind the stored place (the slot exists and is not behind or beside it).
pub fn start(mode: SnapshotMode, stored: Stored<'_>, is_place_kept: bool) -> Start {
    let unfinished = |notes: Option<&SnapshotNotes>| notes.is_some_and(|n| !n.is_complete);
    match (mode, stored) {
        (SnapshotMode::NoData, Stored::Nothing) => Start::Stream,
        (_, Stored::Nothing) => Start::Snapshot { is_reset: false },
        (SnapshotMode::WhenNeeded, Stored::Place(_)) if !is_place_kept => Start::Snapshot { is_reset: true },
        // Ended behind its snapshot, it needs no place in the stream.
        (SnapshotMode::InitialOnly, Stored::Place(Some(notes))) if notes.is_complete => Start::Stream,
        // A snapshot of everything, whatever became of the place.
        (SnapshotMode::Always, Stored::Place(notes)) if !(unfinished(notes) && is_place_kept) => Start::Snapshot { is_reset: true },
        (_, Stored::Place(_)) if !is_place_kept => Start::Refuse,
        (_, Stored::Place(notes)) if unfinished(notes) && mode != SnapshotMode::NoData => Start::Resume,
        (_, Stored::Place(_)) => Start::Stream,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_does_what_debezium_says() {
        let begun = SnapshotNotes::default();
        let done = SnapshotNotes { is_complete: true, ..SnapshotNotes::default() };
        let (fresh, again) = (Start::Snapshot { is_reset: false }, Start::Snapshot { is_reset: true });
        let (nothing, streaming) = (Stored::Nothing, Stored::Place(None));
        let (begun, done) = (Stored::Place(Some(&begun)), Stored::Place(Some(&done)));
        use Start::{Refuse, Resume, Stream};
        // nothing stored, streaming without a snapshot, begun, done; then the last three with the place gone.
        let table = [
            (SnapshotMode::Always, [fresh, again, Resume, again, again, again, again]),
            (SnapshotMode::Initial, [fresh, Stream, Resume, Stream, Refuse, Refuse, Refuse]),
            (SnapshotMode::InitialOnly, [fresh, Stream, Resume, Stream, Refuse, Refuse, Stream]),
            (SnapshotMode::NoData, [Stream, Stream, Stream, Stream, Refuse, Refuse, Refuse]),
            (SnapshotMode::WhenNeeded, [fresh, Stream, Resume, Stream, again, again, again]),
        ];
        for (mode, expected) in table {
            let kept = [nothing, streaming, begun, done].map(|s| start(mode, s, true));
            let gone = [streaming, begun, done].map(|s| start(mode, s, false));
            assert_eq!([kept.as_slice(), &gone].concat(), expected, "{}", mode.name());
            assert_eq!(SnapshotMode::parse(mode.name()), Some(mode));
        }
        assert_eq!(SnapshotMode::parse("never"), None);
    }
}
