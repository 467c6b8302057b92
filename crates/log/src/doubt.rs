//! What a failed sync leaves for the next process.
//!
//! After it the system may show rows that are not on the disk, call their pages clean, and let the next sync succeed without writing them.
//! A process that starts again on the same machine reads them, makes nothing of what it syncs, and builds on sand; when the machine
//! then stops, they are holes in the middle of the journal. So whoever sees a sync fail leaves a note, the empty file `journal/doubtful`,
//! and whoever opens the journal next writes the last segment anew before it believes in it. The note itself need not be durable: if the
//! machine stops, only what is on the disk is read. One that outlived its reason costs a copy of one segment.
//!
//! Considered instead: to write the last group again in place at every start after a process that died. It would need no note, and the last
//! group is enough, as none is written before the one in front of it is durable. It is not needed for a process that died before it saw a
//! failure: an error of writing back that nobody was told yet is told to the first sync of whoever opens the file next (Linux since 4.17,
//! `errseq_sample`; once the file has left the cache its lost pages have, too), and a start syncs what it read before it believes in it.
//! That sync fails, leaves the note, and the start after it writes anew. So it would only help where a process is killed between a failed
//! sync and its note, or where the disk takes no note, which the log says. For that every such start would write up to a group, and every
//! disk would need one more operation, to overwrite, which nothing else uses.

use std::path::Path;
use std::sync::Arc;

use mulgil_disk::{Disk, DiskFile, DiskResult, OpenMode, UNFINISHED};

const NOTE: &str = "doubtful";
/// What is copied at once.
const COPY_BYTES: u64 = 1 << 20;

/// A disk that fails a sync may fail the note, too, and another moment later may not.
const NOTE_TRIES: usize = 3;

/// Leaves the note, as well as can be.
pub(crate) fn note(disk: &dyn Disk, dir: &Path) {
    let mut tries = (0..NOTE_TRIES).map(|_| disk.open(&dir.join(NOTE), OpenMode::Create));
    if !tries.any(|noted| noted.is_ok()) {
        tracing::error!(
            "restart the machine, not just the process: it may show rows that are not on the disk, and no note of that could be left"
        );
    }
}

pub(crate) fn is_noted(disk: &dyn Disk, dir: &Path) -> DiskResult<bool> {
    Ok(disk.list(dir)?.iter().any(|entry| entry.name == NOTE))
}

/// Writes the first `bytes` of the segment at `path` to a new file in its place, durably, and takes the note away.
pub(crate) fn resolve(disk: &dyn Disk, path: &Path, file: &dyn DiskFile, bytes: u64) -> DiskResult<Arc<dyn DiskFile>> {
    tracing::warn!(segment = %path.display(), "a sync failed before the last stop: writing the last segment anew");
    let unfinished = path.with_extension(UNFINISHED);
    let copy = disk.open(&unfinished, OpenMode::Create)?;
    let mut buffer = Vec::new();
    let mut at = 0;
    while at < bytes {
        buffer.resize((bytes - at).min(COPY_BYTES) as usize, 0);
        file.read_at(at, &mut buffer)?;
        copy.append(&buffer)?;
        at += buffer.len() as u64;
    }
    copy.sync_data()?;
    disk.rename(&unfinished, path)?;
    if let Some(dir) = path.parent() {
        disk.remove(&dir.join(NOTE))?;
        disk.sync_dir(dir)?;
    }
    disk.open(path, OpenMode::Append)
}
