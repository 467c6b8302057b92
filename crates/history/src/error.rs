//! What can go wrong, and whose fault it is.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use mulgil_disk::DiskError;
use mulgil_model::ids::{Offset, Partition, Topic};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The question is wrong; asking it again gives the same answer.
    #[error("{0}")]
    User(String),
    /// The question is too large for its limits.
    #[error("{0}")]
    Limit(String),
    /// The question took longer than it may.
    #[error("{0}")]
    Time(String),
    /// Too much is going on; the same call may succeed later.
    #[error("{0}")]
    Busy(String),
    #[error("stream '{0}' is not one of the history's: declare it in the configuration")]
    UnknownStream(Topic),
    #[error("rows of {stream}/{partition} begin at offset {got}, but {next} is the next one wanted: read again from there")]
    Gap { stream: Topic, partition: Partition, next: Offset, got: Offset },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("{}: {problem}", path.display())]
    Corrupt { path: PathBuf, problem: String },
    #[error("{doing}: {source}")]
    Internal { doing: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The asker's: bad SQL, an unknown stream.
    User,
    /// A limit of memory, rows or terms was reached.
    Limit,
    /// The limit of time was reached.
    Time,
    /// Ask again later.
    Busy,
    /// Ours or the disk's.
    Internal,
}

impl HistoryError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::User(_) => ErrorKind::User,
            Self::Limit(_) => ErrorKind::Limit,
            Self::Time(_) => ErrorKind::Time,
            Self::Busy(_) => ErrorKind::Busy,
            Self::UnknownStream(_) | Self::Gap { .. } | Self::Disk(_) | Self::Corrupt { .. } | Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// No room is left on the disk, as far down as the cause may stand: writers of formats wrap what the disk said.
    pub fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            let kind = io.or_else(|| error.downcast_ref::<DiskError>().map(DiskError::kind));
            if kind.is_some_and(|kind| matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) {
                return true;
            }
            cause = match error.downcast_ref::<Self>() {
                // It speaks for the disk, and its own source is what lies below that.
                Some(Self::Disk(disk)) => Some(disk),
                _ => error.source(),
            };
        }
        false
    }

    pub(crate) fn internal<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Internal { doing, source: source.into() }
    }

    /// What DataFusion says while it plans or runs a query: mostly about the query, sometimes about a limit, rarely about us.
    pub(crate) fn of_query(error: DataFusionError) -> Self {
        if let Some(cause) = of_filter(&error) {
            return if cause.starts_with("ResourcesExhausted") { too_much_memory() } else { Self::User(cause) };
        }
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => too_much_memory(),
            DataFusionError::SQL(parser, _) => Self::User(parser.to_string()),
            DataFusionError::Plan(_)
            | DataFusionError::SchemaError(..)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Configuration(_)
            | DataFusionError::Execution(_) => Self::User(shown(error.find_root())),
            DataFusionError::ArrowError(arrow, _) => match about_values(arrow) {
                Some(words) => Self::User(words.to_owned()),
                None => Self::Internal { doing: "running the query".to_owned(), source: Box::new(error) },
            },
            _ => Self::Internal { doing: "running the query".to_owned(), source: Box::new(error) },
        }
    }
}

fn too_much_memory() -> HistoryError {
    let words = "the query needs more memory than its limit: narrow its time range, group by fewer values, or join less";
    HistoryError::Limit(words.to_owned())
}

/// What a filter failed with that was worked out while a file was read: the reader of files keeps only its words.
fn of_filter(error: &DataFusionError) -> Option<String> {
    let words = error.strip_backtrace();
    let (_, cause) = words.split_once("Error evaluating filter predicate: ")?;
    // `ArrowError(DivideByZero, None)`, `ArrowError(CastError("words"), Some(""))` and the like.
    let inner = cause.strip_prefix("ArrowError(").map(|inner| inner.trim_end_matches(", None)").trim_end_matches(", Some(\"\"))"));
    let inner = inner.unwrap_or(cause);
    let words = inner.split_once("(\"").and_then(|(kind, words)| Some(words.strip_suffix("\")")?).filter(|_| kind != "ResourcesExhausted"));
    Some(if inner == "DivideByZero" { DIVISION_BY_ZERO } else { words.unwrap_or(inner) }.to_owned())
}

const DIVISION_BY_ZERO: &str = "division by zero";

/// Arithmetic and casts fail because of what was asked of the values, everything else because of the files. In the same words as a filter's that was worked
/// out while a file was read: which of them fails first is chance, where some rows are in files and some in memory.
fn about_values(error: &ArrowError) -> Option<&str> {
    use ArrowError::{ArithmeticOverflow, CastError, ComputeError, DivideByZero, InvalidArgumentError, NotYetImplemented, ParseError};
    match error {
        DivideByZero => Some(DIVISION_BY_ZERO),
        ArithmeticOverflow(words)
        | CastError(words)
        | ComputeError(words)
        | InvalidArgumentError(words)
        | NotYetImplemented(words)
        | ParseError(words) => Some(words),
        _ => None,
    }
}

fn shown(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let mut text = text.as_str();
    for prefix in ["Error during planning: ", "SQL error: ", "Schema error: ", "This feature is not implemented: ", "Execution error: "] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    // What it got instead is shown as the planner holds it.
    let got = text.find(", got ").filter(|at| text[*at..].contains('{'));
    text[..got.unwrap_or(text.len())].to_owned()
}
