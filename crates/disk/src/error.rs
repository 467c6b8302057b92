//! What can go wrong on a disk, told with the name of the file.

use std::io;
use std::path::{Path, PathBuf};

pub type DiskResult<T> = Result<T, DiskError>;

#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by {holder}; stop that process first, or use another data folder", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("only {free_bytes} bytes are free in {}, and the last {reserve_bytes} are kept for what was accepted already", path.display())]
    Reserved { path: PathBuf, free_bytes: u64, reserve_bytes: u64 },
    #[error("{} has {size_bytes} bytes, more than the {max_bytes} that are read whole", path.display())]
    TooLarge { path: PathBuf, size_bytes: u64, max_bytes: u64 },
}

impl DiskError {
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
        move |source| DiskError::Io { action, path: path.to_owned(), source }
    }

    pub fn kind(&self) -> io::ErrorKind {
        match self {
            DiskError::Io { source, .. } => source.kind(),
            DiskError::Locked { .. } => io::ErrorKind::WouldBlock,
            DiskError::Reserved { .. } => io::ErrorKind::StorageFull,
            DiskError::TooLarge { .. } => io::ErrorKind::FileTooLarge,
        }
    }

    /// No room is left: the same write may succeed later.
    pub fn is_full(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    pub fn is_missing(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        io::Error::new(error.kind(), error)
    }
}
