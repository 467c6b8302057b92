//! What the journal is told when it is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mulgil_model::time::AppendTime;

use crate::{LogError, LogResult};

/// Tells the time of a commit. May stand still or go backwards; the journal's append times do not go backwards.
pub type Clock = Arc<dyn Fn() -> AppendTime + Send + Sync>;

/// Positions in a segment are 32 bits wide; this leaves room for one commit, one group and one checkpoint on top.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
pub(crate) const COMMIT_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// The data folder. The journal uses `lock` and `journal/` in it.
    pub dir: PathBuf,
    /// A segment this large is sealed and a new one begun. At most 1 GiB.
    pub segment_bytes: u64,
    /// A segment this old is sealed with the next commit, so that retention by time can remove it.
    pub segment_age: Duration,
    pub durability: Durability,
    pub retention: Retention,
    /// The largest single record, encoded.
    pub max_record_bytes: usize,
    /// The largest commit, encoded. At most 256 MiB.
    pub max_commit_bytes: usize,
    /// What one sync covers at most, beyond its first commit. Bounds how long a small commit waits behind others, and memory: one such
    /// group gathers while the last is written.
    pub group_bytes: usize,
    /// Likewise, in commits.
    pub group_commits: u64,
    /// What is kept of a written group's buffer for the next.
    pub spare_bytes: usize,
    /// With less than this free on the disk nothing is committed: what was committed already must still become state and history there.
    pub reserve_bytes: u64,
    /// Memory for the indexes of sealed segments that are being read.
    pub index_cache_bytes: usize,
    /// Sealed segments kept open for reading, at most.
    pub open_segments: usize,
    /// What the system is left to keep in its file cache of what was written, besides some MiB.
    pub file_cache_bytes: u64,
}

/// When a commit is called done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When the disk says that it is durable (fdatasync). Many commits that wait together share one sync.
    Fsync,
    /// When the operating system has it. A sync follows with the first commit after `flush_every`, at [`crate::Journal::flush`], and
    /// at the end. **Risk**: a crash of the machine (not of the process alone) loses commits of the last `flush_every` or, without
    /// further commits, since the last flush. What is lost is the newest part, whole commits, rows and progress together; but
    /// a source that was told "committed" may have acknowledged them outside, and readers may have sent them on.
    Relaxed { flush_every: Duration },
}

/// What `retain` may remove: sealed segments, the oldest first, while either limit is exceeded. `None` means no such limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Rows appended longer ago than this.
    pub time: Option<Duration>,
    /// Of the whole journal.
    pub bytes: Option<u64>,
}

impl JournalConfig {
    /// The defaults: fsync, segments of 64 MiB or a day, nothing removed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(24 * 60 * 60),
            durability: Durability::Fsync,
            retention: Retention::default(),
            max_record_bytes: 8 << 20,
            max_commit_bytes: 64 << 20,
            group_bytes: 16 << 20,
            group_commits: 4_096,
            spare_bytes: 8 << 20,
            reserve_bytes: 0,
            index_cache_bytes: 64 << 20,
            open_segments: 256,
            file_cache_bytes: 256 << 20,
        }
    }

    pub(crate) fn check(&self) -> LogResult<()> {
        let refuse = |reason: String| Err(LogError::Config { reason });
        if self.segment_bytes > SEGMENT_BYTES_MAX {
            return refuse(format!("segment_bytes {} is more than {SEGMENT_BYTES_MAX}", self.segment_bytes));
        }
        if self.max_commit_bytes > COMMIT_BYTES_MAX {
            return refuse(format!("max_commit_bytes {} is more than {COMMIT_BYTES_MAX}", self.max_commit_bytes));
        }
        if self.group_bytes > COMMIT_BYTES_MAX {
            return refuse(format!("group_bytes {} is more than {COMMIT_BYTES_MAX}", self.group_bytes));
        }
        if self.max_record_bytes > self.max_commit_bytes {
            return refuse(format!("max_record_bytes {} is more than max_commit_bytes {}", self.max_record_bytes, self.max_commit_bytes));
        }
        Ok(())
    }

    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }
}

/// Whether `than` has passed from `since` to `now`.
pub(crate) fn is_older(since: AppendTime, now: AppendTime, than: Duration) -> bool {
    let age = now.micros().saturating_sub(since.micros());
    u64::try_from(age).is_ok_and(|age| Duration::from_micros(age) >= than)
}
