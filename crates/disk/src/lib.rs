//! The one small disk trait through which everything durable is written: real files, or files in memory that fail on purpose.
//! It must never know what is in a file: no journal, snapshot or Parquet format is named here.

mod error;
pub mod failpoint;
mod fault;
mod mem;
mod real;

pub use error::{DiskError, DiskResult};
pub use fault::{Fault, Faults, Op};
pub use mem::{Crash, MemDisk};
pub use real::RealDisk;

use std::fmt::Debug;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The ending of a file that [`write_atomic`] has not finished. Whoever owns a folder removes such files when it opens it.
pub const UNFINISHED: &str = "tmp";

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and for appending at its end.
    Append,
    /// A new, empty file, for reading and appending; what stood under that name is emptied.
    Create,
}

/// One file of a listed folder. Folders inside it are not listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name without its folder.
    pub name: String,
    pub size_bytes: u64,
}

/// Held for as long as the lock is; dropping it releases the lock.
pub trait DiskLock: Send + Sync + Debug {}

/// A folder tree.
///
/// Durability: the content of a file is safe after its [`DiskFile::sync_data`], its name after [`Disk::sync_dir`] of the folder.
/// A file that was created and synced, but whose folder was not, may be gone after a crash. Nothing is retried here.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file. Reading through a file that was removed meanwhile still works.
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>>;
    /// The files of a folder, in the order of their names; a folder that does not exist is an error.
    fn list(&self, dir: &Path) -> DiskResult<Vec<Entry>>;
    /// The names of the folders in a folder, in order; a folder that does not exist is an error.
    fn list_dirs(&self, dir: &Path) -> DiskResult<Vec<String>>;
    /// Gives the file a new name within its folder, in one step, replacing what had that name. Durable when it returns.
    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()>;
    /// Removes a file's name. Durable only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> DiskResult<()>;
    /// Makes a folder and those above it. Durable when it returns.
    fn create_dir_all(&self, dir: &Path) -> DiskResult<()>;
    /// Removes an empty folder; one that is not empty is an error.
    fn remove_dir(&self, dir: &Path) -> DiskResult<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> DiskResult<()>;
    /// Takes the exclusive lock file at `path`, or says who holds it ([`DiskError::Locked`]). Never waits.
    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>>;
    /// Says that these bytes of a file, which are durable, will hardly be read: the system need not keep them in memory. Nothing changes for whoever
    /// reads them nevertheless, so it is no error when there is no such file, or the system does not listen.
    fn forget(&self, path: &Path, bytes: Range<u64>);
    /// Free space of the file system that holds `dir`, for an ordinary user.
    fn free_bytes(&self, dir: &Path) -> DiskResult<u64>;
}

/// An open file. Written only at its end; read anywhere, also while it is being written.
pub trait DiskFile: Send + Sync + Debug {
    /// Fills `into` from byte `at` on; a file that ends before is an error of kind `UnexpectedEof`.
    fn read_at(&self, at: u64, into: &mut [u8]) -> DiskResult<()>;
    /// Writes all of `bytes` at the end. On an error a part of them may have been written.
    fn append(&self, bytes: &[u8]) -> DiskResult<()>;
    /// Makes all that was written durable (fdatasync). After an error what was written is in doubt, for good: never call it again.
    fn sync_data(&self) -> DiskResult<()>;
    /// Bytes in the file, durable or not.
    fn size_bytes(&self) -> DiskResult<u64>;
    /// Cuts the file to its first `size_bytes`.
    fn truncate(&self, size_bytes: u64) -> DiskResult<()>;
}

/// Writes a whole small file so that a reader, also after a crash, sees all of it or what was there before:
/// a file beside it ending in [`UNFINISHED`], a sync, a rename, a sync of the folder.
pub fn write_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> DiskResult<()> {
    let unfinished = unfinished_name(path);
    let file = disk.open(&unfinished, OpenMode::Create)?;
    let written = file.append(bytes).and_then(|()| file.sync_data()).and_then(|()| {
        failpoint::here("disk.before-rename");
        disk.rename(&unfinished, path)
    });
    if written.is_err() {
        // The first error is the one worth telling; a leftover is removed by whoever opens the folder next.
        disk.remove(&unfinished).ok();
    }
    written
}

/// Refuses, as a full disk would, when less than `reserve_bytes` are free: what was accepted needs room to be finished.
pub fn check_reserve(disk: &dyn Disk, dir: &Path, reserve_bytes: u64) -> DiskResult<()> {
    if reserve_bytes == 0 {
        return Ok(());
    }
    let free_bytes = disk.free_bytes(dir)?;
    if free_bytes >= reserve_bytes { Ok(()) } else { Err(DiskError::Reserved { path: dir.to_owned(), free_bytes, reserve_bytes }) }
}

/// Reads a whole file, refusing one larger than `max_bytes`.
pub fn read_whole(disk: &dyn Disk, path: &Path, max_bytes: u64) -> DiskResult<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let size = file.size_bytes()?;
    if size > max_bytes {
        return Err(DiskError::TooLarge { path: path.to_owned(), size_bytes: size, max_bytes });
    }
    let mut bytes = vec![0; size as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// An open file as [`std::io::Write`], for libraries that write through it. Flushing does not sync.
#[derive(Debug)]
pub struct Writer(pub Arc<dyn DiskFile>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn unfinished_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    path.with_file_name(name)
}
