//! What a failed write of the state leaves for the next process.
//!
//! The tree (fjall 3) writes a batch to its journal and syncs it; when that fails it takes nothing more, but when it is dropped it syncs
//! again, which succeeds, and a process that opens it later believes every batch of its journal whose checksum is right. After a failed
//! sync the system may show such a batch although it is not on the disk, and never write it. The next process would build on it: the
//! log's retention goes by the snapshots that the tree says it has, and when the machine then stops, the tree ends before the hole, at a
//! snapshot whose following rows the log has dropped.
//!
//! So whoever sees a write fail leaves a note beside the folder, and whoever opens it next writes all of it anew before it believes in it:
//! what is read is then on the disk. (Throwing it away would do while the log still has every row, which retention does not promise.)
//! The note need not be durable: if the machine stops, only what is on the disk is read. Where not even the note can be left, the log says
//! so. What no note can cover is a process killed between the failed sync and its note.
//!
//! ```text
//! state.doubtful   the note
//! state.anew       the copy, not whole while state.old is not there
//! state.old        what stood in its place; removed last
//! ```

use anyhow::{Context, Result};
use mulgil_disk::{Disk, DiskResult, OpenMode, RealDisk};
use std::path::{Path, PathBuf};

/// What is copied at once.
const COPY_BYTES: u64 = 1 << 20;
/// A disk that fails a sync may fail the note, too, and another moment later may not.
const NOTE_TRIES: usize = 3;
/// Folders within each other; the tree has three.
const DEPTH_MAX: usize = 8;

/// Leaves the note, as well as can be.
pub fn note(dir: &Path) {
    let mut tries = (0..NOTE_TRIES).map(|_| RealDisk.open(&beside(dir, "doubtful"), OpenMode::Create));
    if !tries.any(|noted| noted.is_ok()) {
        tracing::error!(
            "restart the machine, not just the process: {} may show state that is not on the disk, and no note of that could be left",
            dir.display()
        );
    }
}

/// Writes the folder anew if there is a note, and ends what was begun of that before. To be called before the folder is opened.
pub fn resolve(dir: &Path) -> Result<()> {
    let (noted, anew, old) = (beside(dir, "doubtful"), beside(dir, "anew"), beside(dir, "old"));
    let parent = dir.parent().context("the state folder stands in no folder")?;
    if !dir.exists() && anew.exists() && old.exists() {
        RealDisk.rename(&anew, dir)?;
    }
    if noted.exists() && dir.exists() {
        tracing::warn!(folder = %dir.display(), "a write of the state failed before the last stop: writing all of it anew");
        remove_all(&[&anew, &old])?;
        copy(dir, &anew, DEPTH_MAX).context("there must be room for a second copy of it")?;
        RealDisk.sync_dir(parent)?;
        RealDisk.rename(dir, &old)?;
        RealDisk.rename(&anew, dir)?;
    }
    if noted.exists() {
        RealDisk.remove(&noted)?;
        RealDisk.sync_dir(parent)?;
    }
    remove_all(&[&anew, &old])
}

fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    dir.with_file_name(name)
}

fn remove_all(dirs: &[&Path]) -> Result<()> {
    for dir in dirs.iter().filter(|dir| dir.exists()) {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// A copy of the whole folder, durable in itself. Read and written, not cloned by the system: a clone has what is on the disk.
fn copy(from: &Path, to: &Path, depth: usize) -> Result<()> {
    let levels =
        depth.checked_sub(1).with_context(|| format!("{} has more folders within each other than it ever should", from.display()))?;
    RealDisk.create_dir_all(to)?;
    for entry in RealDisk.list(from)? {
        copy_file(&from.join(&entry.name), &to.join(&entry.name))?;
    }
    for name in RealDisk.list_dirs(from)? {
        copy(&from.join(&name), &to.join(&name), levels)?;
    }
    Ok(RealDisk.sync_dir(to)?)
}

fn copy_file(from: &Path, to: &Path) -> DiskResult<()> {
    let (read, written) = (RealDisk.open(from, OpenMode::Read)?, RealDisk.open(to, OpenMode::Create)?);
    let (bytes, mut at, mut buffer) = (read.size_bytes()?, 0, Vec::new());
    while at < bytes {
        buffer.resize((bytes - at).min(COPY_BYTES) as usize, 0);
        read.read_at(at, &mut buffer)?;
        written.append(&buffer)?;
        at += buffer.len() as u64;
    }
    written.sync_data()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Entries, Noting, StateFolder, Tree};
    use super::*;
    use std::ops::Bound;
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;

    type Change = (Vec<u8>, Option<Vec<u8>>);

    struct Failing;

    impl Entries for Failing {
        fn apply(&self, _: Vec<Change>) -> Result<()> {
            anyhow::bail!("input/output error")
        }

        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>> {
            Ok(None)
        }

        fn range(&self, _: Bound<&[u8]>, _: Bound<Vec<u8>>, _: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
            Ok(())
        }

        fn disk_bytes(&self) -> u64 {
            0
        }
    }

    fn filled(dir: &Path) {
        let tree = Tree::open(dir, 1 << 20).unwrap();
        (0..100_u32).for_each(|n| tree.apply(vec![(n.to_be_bytes().to_vec(), Some(vec![7; 1_000]))]).unwrap());
    }

    fn n_entries(dir: &Path) -> usize {
        let folder = StateFolder::open(dir, 1 << 20).unwrap();
        let mut n = 0;
        let mut count = |_: &[u8], value: &[u8]| {
            n += usize::from(value == [7; 1_000]);
            true
        };
        folder.entries.range(Bound::Unbounded, Bound::Unbounded, &mut count).unwrap();
        n
    }

    fn paths(dir: &Path) -> Vec<PathBuf> {
        let inner = RealDisk.list_dirs(dir).unwrap().into_iter().flat_map(|name| paths(&dir.join(name)));
        RealDisk.list(dir).unwrap().into_iter().map(|e| dir.join(e.name)).chain(inner).collect()
    }

    fn files(dir: &Path) -> Vec<u64> {
        paths(dir).iter().map(|path| path.metadata().unwrap().ino()).collect()
    }

    /// Under a second name a file that is removed keeps its number: no new file can be taken for it.
    fn hold(dir: &Path, in_folder: &Path) {
        for (n, path) in paths(dir).iter().enumerate() {
            std::fs::hard_link(path, in_folder.join(n.to_string())).unwrap();
        }
    }

    #[test]
    fn a_failed_write_is_noted_and_the_next_process_writes_all_anew() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        filled(&dir);
        let names = || RealDisk.list(root.path()).unwrap().into_iter().map(|e| e.name).collect::<Vec<_>>();
        let held = tempfile::tempdir_in(root.path().parent().unwrap()).unwrap();
        hold(&dir, held.path());
        let before = files(&dir);
        assert_eq!((n_entries(&dir), names()), (100, vec![]));
        assert!(before.iter().any(|ino| files(&dir).contains(ino)), "without a note they are the same files");
        Noting { entries: Arc::new(Failing), dir: dir.clone() }.apply(vec![]).unwrap_err();
        assert_eq!(names(), ["state.doubtful"]);
        assert_eq!((n_entries(&dir), names()), (100, vec![]));
        assert!(before.iter().all(|ino| !files(&dir).contains(ino)), "all that is read has been written anew");
        assert_eq!(RealDisk.list_dirs(root.path()).unwrap(), ["state"]);
    }

    /// Whatever was done of it when the process was killed: nothing is lost, and the next process ends it.
    #[test]
    fn writing_anew_can_be_interrupted_anywhere() {
        for stopped_at in ["copying", "copied", "between the names", "renamed"] {
            let root = tempfile::tempdir().unwrap();
            let (dir, anew, old) = (root.path().join("state"), root.path().join("state.anew"), root.path().join("state.old"));
            filled(&dir);
            note(&dir);
            match stopped_at {
                "copying" => RealDisk.create_dir_all(&anew.join("keyspaces")).unwrap(),
                "copied" => copy(&dir, &anew, DEPTH_MAX).unwrap(),
                _ => {
                    copy(&dir, &anew, DEPTH_MAX).unwrap();
                    RealDisk.rename(&dir, &old).unwrap();
                }
            }
            if stopped_at == "renamed" {
                RealDisk.rename(&anew, &dir).unwrap();
            }
            assert_eq!(n_entries(&dir), 100, "{stopped_at}");
            assert_eq!(RealDisk.list_dirs(root.path()).unwrap(), ["state"], "{stopped_at}");
        }
    }

    /// Whoever deletes the folder wants it rebuilt from the log, not from half a copy.
    #[test]
    fn a_folder_that_was_deleted_stays_so() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("state");
        note(&dir);
        RealDisk.create_dir_all(&root.path().join("state.anew/keyspaces")).unwrap();
        assert_eq!(n_entries(&dir), 0);
        assert_eq!(RealDisk.list(root.path()).unwrap(), []);
    }
}
