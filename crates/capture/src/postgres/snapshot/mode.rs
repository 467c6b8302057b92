//! Whether a snapshot is taken: Debezium's words (`snapshot.mode`) and what they mean here.

use super::notes::SnapshotNotes;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// At every start, then the stream.
    Always,
    /// When nothing is stored yet, or the snapshot was not finished; then the stream.
    #[default]
    Initial,
    /// Like `Initial`, and the source ends behind the snapshot.
    InitialOnly,
    /// Never: only changes from now on.
    NoData,
    /// Like `Initial`, and again when the database no longer has the place that is stored.
    WhenNeeded,
}

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

impl Mode {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "always" => Self::Always,
            "initial" => Self::Initial,
            "initial_only" => Self::InitialOnly,
            "no_data" => Self::NoData,
            "when_needed" => Self::WhenNeeded,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Initial => "initial",
            Self::InitialOnly => "initial_only",
            Self::NoData => "no_data",
            Self::WhenNeeded => "when_needed",
        }
    }

    pub fn streams(self) -> bool {
        self != Self::InitialOnly
    }

    /// `is_place_kept`: the database still has everything behind the stored place (the slot exists and is not behind or beside it).
    pub fn start(self, stored: Stored<'_>, is_place_kept: bool) -> Start {
        let unfinished = |notes: Option<&SnapshotNotes>| notes.is_some_and(|n| !n.is_complete);
        match (self, stored) {
            (Self::NoData, Stored::Nothing) => Start::Stream,
            (_, Stored::Nothing) => Start::Snapshot { is_reset: false },
            (Self::WhenNeeded, Stored::Place(_)) if !is_place_kept => Start::Snapshot { is_reset: true },
            // Ended behind its snapshot, it needs no place in the stream.
            (Self::InitialOnly, Stored::Place(Some(notes))) if notes.is_complete => Start::Stream,
            // A snapshot of everything, whatever became of the place.
            (Self::Always, Stored::Place(notes)) if !(unfinished(notes) && is_place_kept) => Start::Snapshot { is_reset: true },
            (_, Stored::Place(_)) if !is_place_kept => Start::Refuse,
            (_, Stored::Place(notes)) if unfinished(notes) && self != Self::NoData => Start::Resume,
            (_, Stored::Place(_)) => Start::Stream,
        }
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
            (Mode::Always, [fresh, again, Resume, again, again, again, again]),
            (Mode::Initial, [fresh, Stream, Resume, Stream, Refuse, Refuse, Refuse]),
            (Mode::InitialOnly, [fresh, Stream, Resume, Stream, Refuse, Refuse, Stream]),
            (Mode::NoData, [Stream, Stream, Stream, Stream, Refuse, Refuse, Refuse]),
            (Mode::WhenNeeded, [fresh, Stream, Resume, Stream, again, again, again]),
        ];
        for (mode, expected) in table {
            let kept = [nothing, streaming, begun, done].map(|s| mode.start(s, true));
            let gone = [streaming, begun, done].map(|s| mode.start(s, false));
            assert_eq!([kept.as_slice(), &gone].concat(), expected, "{}", mode.name());
            assert_eq!(Mode::parse(mode.name()), Some(mode));
        }
        assert_eq!(Mode::parse("never"), None);
    }
}
