//! The past: committed rows as Parquet files plus a tail in memory, kept, thinned out and asked with SQL.
//! It must never know HTTP or the log: rows are handed to it, and it says from which offset on it wants more.
//!
//! Threads: [`History::append`], [`History::flush`] and the other upkeep calls are synchronous and may be made from any thread; `append`
//! never waits for a file to be written. Queries run on the tokio runtime they are awaited on, and read files with blocking calls
//! there: give them a runtime of their own (two threads), so that a reader can never take a thread from ingest, with stacks of
//! [`STACK_BYTES`], as plans are walked by recursion. `block_on` is not enough: it plans on the stack of whoever calls it.

mod config;
mod error;

mod day;
mod layout;
mod manifest;

mod order;
mod parquet_file;
mod reader;
mod tail;

mod history;

mod compact;
mod flush;
mod retain;
mod verify;

mod depth;
mod functions;
mod growth;
mod query;
mod session;
mod table;
mod text;
mod views;
mod watch;
mod width;

mod candles;
mod search;

pub use compact::CompactReport;
pub use config::{HistoryConfig, QueryLimits, Retention};
pub use depth::STACK_BYTES;
pub use error::{ErrorKind, HistoryError};
pub use flush::FlushReport;
pub use history::{History, StreamStats};
pub use layout::{APPEND_TIME, OFFSET, PARTITION, RECEIVE_TIME};
pub use query::QueryStream;
pub use retain::RetainReport;
pub use verify::VerifyReport;
