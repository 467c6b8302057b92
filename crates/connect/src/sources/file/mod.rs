//! Replay of files: CSV, NDJSON and Parquet, plain or packed, merged into one stream in event-time order.

mod input;
mod merge;
mod pace;

pub use input::FileError;
pub use merge::{Replay, ReplayBatch, ReplayOptions, ReplayProblem};
pub use pace::{Pace, PaceError};
