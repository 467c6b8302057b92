//! Why the log refuses.

use std::path::PathBuf;
use std::sync::Arc;

use mulgil_disk::DiskError;
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;

use crate::Owner;

pub type LogResult<T> = Result<T, LogError>;

/// Cheap to clone, because one failed write answers everyone who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("{owner} already committed {partition} up to {stored}: continue behind it")]
    AlreadyCommitted { owner: Owner, partition: TopicPartition, stored: Position },
    #[error("{at} begins at offset {first}, {asked} was removed by retention: read from {first}, or restore from a snapshot")]
    BelowRetention { at: TopicPartition, asked: Offset, first: Offset },
    #[error("{at} ends before offset {next}, but {asked} was asked for: was the data folder replaced?")]
    AheadOfLog { at: TopicPartition, asked: Offset, next: Offset },
    #[error("a record for {to} has {size_bytes} bytes, more than the {max_bytes} of [log] max_record_bytes")]
    RecordTooLarge { to: TopicPartition, size_bytes: usize, max_bytes: usize },
    #[error("a commit has {size_bytes} bytes, more than the {max_bytes} of [log] max_commit_bytes: commit fewer rows at once")]
    CommitTooLarge { size_bytes: usize, max_bytes: usize },
    #[error("the log is full of {what}: {max} is the most it keeps")]
    TooMany { what: &'static str, max: usize },
    #[error("the disk is full, nothing was committed: free some space or shorten [log] retention ({source})")]
    DiskFull { source: Arc<DiskError> },
    #[error("{} is damaged at byte {byte}: {reason}; restore the file from a copy", file.display())]
    Damaged { file: PathBuf, byte: u64, reason: String },
    #[error("the journal stopped after a failed write, restart to continue from what is safely on disk: {reason}")]
    Poisoned { reason: Arc<str> },
    #[error("the journal was opened for reading only")]
    ReadOnly,
    #[error("the journal cannot be opened like this: {reason}")]
    Config { reason: String },
    #[error(transparent)]
    Disk(Arc<DiskError>),
}

/// Whose doing a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller asked for what cannot be.
    User,
    /// The disk, or somebody who touched the files.
    External,
}

impl LogError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::DiskFull { .. } | Self::Damaged { .. } | Self::Poisoned { .. } | Self::Disk(_) => Fault::External,
            Self::AlreadyCommitted { .. }
            | Self::BelowRetention { .. }
            | Self::AheadOfLog { .. }
            | Self::RecordTooLarge { .. }
            | Self::CommitTooLarge { .. }
            | Self::TooMany { .. }
            | Self::ReadOnly
            | Self::Config { .. } => Fault::User,
        }
    }

    /// The same call may succeed later, and has had no effect now.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::DiskFull { .. })
    }
}

impl From<DiskError> for LogError {
    fn from(error: DiskError) -> Self {
        if error.is_full() { Self::DiskFull { source: Arc::new(error) } } else { Self::Disk(Arc::new(error)) }
    }
}
