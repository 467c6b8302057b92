//! When tables are read as they are: Debezium's words (`snapshot.mode`), for both databases.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotMode {
    /// At every start, then the stream.
    Always,
    /// When nothing is stored yet, or the snapshot was not finished; then the stream.
    #[default]
    Initial,
    /// Like `Initial`, and the source ends behind the snapshot: its `next` waits for ever.
    InitialOnly,
    /// Never: only changes from now on.
    NoData,
    /// Like `Initial`, and again, instead of refusing, when the database no longer has the place that is stored.
    WhenNeeded,
}

impl SnapshotMode {
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
}

#[cfg(test)]
mod tests {
    use super::SnapshotMode::{self, Always, Initial, InitialOnly, NoData, WhenNeeded};

    #[test]
    fn every_word_is_read_as_it_is_written() {
        for mode in [Always, Initial, InitialOnly, NoData, WhenNeeded] {
            assert_eq!(SnapshotMode::parse(mode.name()), Some(mode));
        }
        assert_eq!(SnapshotMode::parse("never"), None);
    }
}
