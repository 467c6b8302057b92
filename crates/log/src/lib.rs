//! The log: topics, their partitions, and one verb, commit, which appends rows and records progress all or nothing.
//! It must never know payloads: keys, headers and values are bytes here, and no stream, schema or encoding is named.

mod commit;
mod error;
mod ticket;

mod chunk;
mod records;
mod watch;

mod config;
mod journal;

mod committer;
mod tail;

mod doubt;
mod fetch;
mod file_cache;
mod format;
mod index;
mod ledger;
mod recover;
mod replay;
mod retain;
mod salvage;
mod scan;
mod segment;
mod stats;
mod varint;
mod verify;
mod view;
mod writer;

pub use chunk::{Chunk, MAX_READ_BYTES, ReadLimit};
pub use commit::{Advance, Append, Commit, Committed, InvalidOwner, OWNER_BYTES_MAX, Owner, Seek};
pub use config::{Clock, Durability, JournalConfig, Retention};
pub use error::{Fault, LogError, LogResult};
pub use journal::{Journal, PartitionInfo};
pub use ledger::{MAX_PARTITIONS, MAX_PROGRESS};
pub use records::{BLOCK_BYTES, Headers, RecordRef, Records, RecordsBuilder};
pub use recover::{Opened, Repaired};
pub use retain::Retained;
pub use salvage::{Lost, Salvage, Salvaged};
pub use stats::{SYNC_BUCKETS_US, Stats};
pub use ticket::Ticket;
pub use verify::{Damage, Verified, Verifying, verify};
pub use watch::Watch;

use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;

/// The log as everything else sees it: embedded ([`Journal`]) or, later, Kafka.
///
/// Calls may come from any thread at any time. Rows of one partition keep the order of the `begin` calls that appended them. Nothing
/// is retried inside: [`LogError::is_retriable`] says which failures the caller may try again, and a commit that failed so has not
/// happened. After [`LogError::Poisoned`] only a restart helps; whether the commit happened is then told by `progress`.
pub trait Log: Send + Sync {
    /// Gives a commit its place: the offsets of its rows, behind all that was begun before; its progress is checked there. It has not happened
    /// yet: readers see it when [`Ticket::wait`] says that it is durable. Many may be in flight. Blocks only when too many are.
    ///
    /// When one fails, all that stand behind it fail with the same error. Until each of their tickets was waited for or dropped, nothing new
    /// is begun, so that nothing overtakes what failed: wait for all of your tickets, then begin again from the first that failed.
    fn begin(&self, commit: Commit) -> LogResult<Ticket>;

    /// Rows from `from` on, committed ones only, in order, without holes. Empty when there is nothing yet, never otherwise.
    fn read(&self, at: &TopicPartition, from: Offset, limit: ReadLimit) -> LogResult<Chunk>;

    /// What `owner` committed last for this partition.
    fn progress(&self, owner: &Owner, at: &TopicPartition) -> LogResult<Option<Position>>;

    /// The offset of a place in the partition. A partition nobody wrote to begins and ends at 0.
    fn seek(&self, at: &TopicPartition, to: Seek) -> LogResult<Offset>;

    /// Wakes after commits, so that a reader at the end need not poll.
    fn watch(&self) -> Watch;
}

impl dyn Log + '_ {
    /// Both steps of a commit in one: appends rows and records progress, all or nothing, durable before it returns. Blocks for about one
    /// disk sync.
    pub fn commit(&self, commit: Commit) -> LogResult<Committed> {
        self.begin(commit)?.wait()
    }
}
