//! Why a snapshot ended early.

use super::copy::CopyError;
use crate::postgres::slot::Lsn;
use crate::postgres::wire::WireError;
use crate::source::SourceError;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("table {table}: {source}")]
    Table { table: String, source: WireError },
    #[error(
        "the stored state of the snapshot cannot be read ({0}): take the snapshot again, or start with the stored state of the source that wrote it"
    )]
    Notes(String),
    #[error(
        "table {0} was rewritten (TRUNCATE, ALTER TABLE, VACUUM FULL) {RESTARTS_MAX} times while it was read: its snapshot is tried again later"
    )]
    Rewritten(String),
    #[error("table {0} does not exist")]
    NoTable(String),
    #[error(
        "table {0} has no key that can be paged by: an incremental snapshot needs a primary key or a unique index over not null columns"
    )]
    NoKey(String),
    #[error("the server did not bring its log to its disk up to {0} within {1:?}: the snapshot is tried again")]
    NotFlushed(Lsn, Duration),
    #[error("a task that read a part of the snapshot ended without a word: this is an error in mulgil")]
    Lost,
}

/// So often a table is begun again within one run.
pub(super) const RESTARTS_MAX: u32 = 8;

impl SnapshotError {
    fn code(&self) -> Option<&str> {
        match self {
            Self::Wire(error) | Self::Table { source: error, .. } => error.code(),
            _ => None,
        }
    }

    /// SQLSTATE undefined_table, undefined_column, undefined_object, or a type that is no longer the one it was: the table is not the one that
    /// was planned (PostgreSQL documentation, appendix "PostgreSQL Error Codes").
    pub(super) fn is_table_changed(&self) -> bool {
        matches!(self.code(), Some("42P01" | "42703" | "42704" | "3F000" | "42883" | "42846" | "42804" | "22P02" | "42809"))
    }
}

impl From<SnapshotError> for SourceError {
    fn from(error: SnapshotError) -> Self {
        // 42501 insufficient_privilege, 28… invalid authorization, 3D000 no such database.
        let is_config = error.code().is_some_and(|c| c == "42501" || c == "3D000" || c.starts_with("28"));
        let message = match (error.code(), &error) {
            (Some("42501"), SnapshotError::Table { table, .. }) => {
                format!(
                    "{error}; grant it: GRANT SELECT ON {table} TO the user of this source, and BYPASSRLS if the table has row-level security"
                )
            }
            _ => error.to_string(),
        };
        match error {
            SnapshotError::Notes(_) => Self::refused(message),
            SnapshotError::NoTable(_) | SnapshotError::NoKey(_) => Self::config(message),
            _ if is_config => Self::config(message),
            _ => Self::retry(message),
        }
    }
}
