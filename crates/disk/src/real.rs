//! The disk of the machine, on `std::fs`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Disk, DiskError, DiskFile, DiskLock, DiskResult, Entry, OpenMode};

/// A lock file holds a few words about its owner; more than this is not ours and is not shown.
const MAX_HOLDER_BYTES: u64 = 64;

#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealFile {
    path: PathBuf,
    file: File,
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Append => {
                options.append(true);
            }
            OpenMode::Create => {
                // Appending and truncating at once is refused by std, so the old content goes first.
                File::create(path).map_err(DiskError::io("create", path))?;
                options.append(true);
            }
        }
        let file = options.open(path).map_err(DiskError::io("open", path))?;
        Ok(Arc::new(RealFile { path: path.to_owned(), file }))
    }

    fn list(&self, dir: &Path) -> DiskResult<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(DiskError::io("list", dir))? {
            let entry = entry.map_err(DiskError::io("list", dir))?;
            // A file may be removed while the folder is read; then it is simply not there any more.
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DiskError::io("look at", &entry.path())(error)),
            };
            if meta.is_file() {
                entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), size_bytes: meta.len() });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn list_dirs(&self, dir: &Path) -> DiskResult<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(DiskError::io("list", dir))? {
            let entry = entry.map_err(DiskError::io("list", dir))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        fs::rename(from, to).map_err(DiskError::io("rename", from))?;
        self.sync_dir(parent(to))
    }

    fn remove(&self, path: &Path) -> DiskResult<()> {
        fs::remove_file(path).map_err(DiskError::io("remove", path))
    }

    fn create_dir_all(&self, dir: &Path) -> DiskResult<()> {
        let made: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        fs::create_dir_all(dir).map_err(DiskError::io("create folder", dir))?;
        made.into_iter().try_for_each(|dir| self.sync_dir(parent(dir)))
    }

    fn remove_dir(&self, dir: &Path) -> DiskResult<()> {
        fs::remove_dir(dir).map_err(DiskError::io("remove folder", dir))
    }

    fn sync_dir(&self, dir: &Path) -> DiskResult<()> {
        File::open(dir).and_then(|handle| handle.sync_all()).map_err(DiskError::io("sync folder", dir))
    }

    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>> {
        let mut options = OpenOptions::new();
        // The content is the holder's: it may be emptied only once the lock is ours.
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(DiskError::io("open lock file", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DiskError::Locked { path: path.to_owned(), holder: holder(&file) });
            }
            Err(TryLockError::Error(error)) => return Err(DiskError::io("lock", path)(error)),
        }
        file.set_len(0).map_err(DiskError::io("empty lock file", path))?;
        write!(file, "process {}", std::process::id()).map_err(DiskError::io("write lock file", path))?;
        Ok(Box::new(file))
    }

    fn forget(&self, path: &Path, bytes: Range<u64>) {
        let len = NonZeroU64::new(bytes.end.saturating_sub(bytes.start));
        if let Ok(file) = File::open(path) {
            rustix::fs::fadvise(&file, bytes.start, len, rustix::fs::Advice::DontNeed).ok();
        }
    }

    fn free_bytes(&self, dir: &Path) -> DiskResult<u64> {
        let stat = rustix::fs::statvfs(dir).map_err(|errno| DiskError::io("ask free space of", dir)(errno.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskLock for File {}

impl DiskFile for RealFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> DiskResult<()> {
        self.file.read_exact_at(into, at).map_err(DiskError::io("read", &self.path))
    }

    fn append(&self, bytes: &[u8]) -> DiskResult<()> {
        (&self.file).write_all(bytes).map_err(DiskError::io("write", &self.path))
    }

    fn sync_data(&self) -> DiskResult<()> {
        self.file.sync_data().map_err(DiskError::io("sync", &self.path))
    }

    fn size_bytes(&self) -> DiskResult<u64> {
        Ok(self.file.metadata().map_err(DiskError::io("look at", &self.path))?.len())
    }

    fn truncate(&self, size_bytes: u64) -> DiskResult<()> {
        self.file.set_len(size_bytes).map_err(DiskError::io("truncate", &self.path))
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn holder(file: &File) -> String {
    let mut text = String::new();
    match file.take(MAX_HOLDER_BYTES).read_to_string(&mut text) {
        Ok(n) if n > 0 => text,
        _ => "another process".to_owned(),
    }
}
