//! Writes groups of frames to the last segment, makes them durable, and begins new segments.

use std::sync::Arc;

use mulgil_disk::{DiskError, DiskFile, failpoint};
use mulgil_model::time::AppendTime;

use crate::format::{self, CommitHead, FrameHead, FrameKind, Place};

/// The end of the last segment. Belongs to whoever leads a group.
#[derive(Debug)]
pub(crate) struct Writer {
    pub file: Arc<dyn DiskFile>,
    pub segment: u64,
    pub segment_started: AppendTime,
    /// Where the next frame goes.
    pub position: u64,
    /// Up to where it is durable.
    pub synced: u64,
    pub next_sequence: u64,
    pub last_append: AppendTime,
    pub last_sync: AppendTime,
    /// Something was committed since the segment began or a mark was written.
    pub is_unmarked: bool,
}

/// What is left of a failed write.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// No room; the segment is as it was before.
    Full(DiskError),
    /// Nobody knows what the file looks like now.
    Unknown(DiskError),
}

impl Writer {
    /// Writes whole commits at the end.
    pub fn append(&mut self, frames: &[u8]) -> Result<(), WriteError> {
        failpoint::here("log.before-write");
        self.tear(frames);
        match self.file.append(frames) {
            Ok(()) => {
                self.position += frames.len() as u64;
                self.is_unmarked = true;
                Ok(())
            }
            Err(error) if error.is_full() => match self.take_back() {
                Ok(()) => Err(WriteError::Full(error)),
                Err(worse) => Err(WriteError::Unknown(worse)),
            },
            Err(error) => Err(WriteError::Unknown(error)),
        }
    }

    /// A process that is killed within a write leaves a part of it: the first half, when a test asks for it.
    fn tear(&self, frames: &[u8]) {
        if failpoint::is_due("log.torn-write") {
            self.file.append(&frames[..frames.len() / 2]).ok();
            std::process::abort();
        }
    }

    /// Cuts off what a failed write left. Durably: whole commits among it must not come back after a crash, they were refused.
    fn take_back(&mut self) -> Result<(), DiskError> {
        self.file.truncate(self.position)?;
        self.file.sync_data()?;
        self.synced = self.position;
        Ok(())
    }

    pub fn sync(&mut self, now: AppendTime) -> Result<(), DiskError> {
        failpoint::here("log.before-sync");
        self.file.sync_data()?;
        failpoint::here("log.after-sync");
        self.synced = self.position;
        self.last_sync = now;
        Ok(())
    }

    /// Says that everything before is durable, so that damage to the last commit is not taken for a torn tail. Without room for it
    /// there is none.
    pub fn mark(&mut self, now: AppendTime) -> Result<(), DiskError> {
        if self.synced < self.position {
            self.sync(now)?;
        }
        if !self.is_unmarked {
            return Ok(());
        }
        let mut frame = Vec::new();
        let commit = CommitHead { sequence: self.next_sequence, append_time: self.last_append };
        let place = Place { segment: self.segment, position: self.position };
        let head = FrameHead { kind: FrameKind::Mark, ends_commit: true, unsynced_bytes: 0, commit };
        format::put_frame(&mut frame, place, head, |_| {});
        match self.append(&frame) {
            Ok(()) => self.sync(now)?,
            Err(WriteError::Full(_)) => return Ok(()),
            Err(WriteError::Unknown(error)) => return Err(error),
        }
        self.is_unmarked = false;
        Ok(())
    }

    /// Goes on in a new segment whose file holds `bytes`.
    pub fn move_to(&mut self, file: Arc<dyn DiskFile>, started: AppendTime, bytes: u64) {
        self.file = file;
        self.segment = self.next_sequence;
        self.segment_started = started;
        self.last_append = started;
        (self.position, self.synced) = (bytes, bytes);
        self.is_unmarked = false;
    }
}
