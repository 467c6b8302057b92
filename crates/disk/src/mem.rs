//! A disk in memory that behaves as badly as a real one may, on request and reproducibly: what was not synced is gone after a
//! crash, wholly or in part; a sync fails once; room runs out; a bit flips; the nth operation fails, comes
//! too short, or is the last before a crash.
//!
//! A file is its bytes and how many of them are durable. Names are kept twice, as seen and as durable, because a name too needs
//! a sync. A crash makes what is seen equal to what is durable and kills every handle and lock from before it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::fault::{Faults, Meets, Op};
use crate::{Disk, DiskError, DiskFile, DiskLock, DiskResult, Entry, OpenMode};

/// What becomes of bytes that were written but not synced when the machine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// None of them survive.
    DropUnsynced,
    /// Of each file a part survives, from the front, as long as the seed says; some of it may be zeroes.
    TearUnsynced,
    /// All of them survive: the process died, not the machine.
    KeepUnsynced,
}

/// The disk; clones share it.
#[derive(Debug, Clone)]
pub struct MemDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    syncs_released: Condvar,
    /// Apart from the state, so that whoever watches may ask the disk something.
    watcher: Mutex<Option<Watcher>>,
}

/// Hears of every operation before it happens: to trace it, or to let simulated time pass.
pub type Hears = Arc<dyn Fn(Op, &Path) + Send + Sync>;

#[derive(Clone)]
struct Watcher(Hears);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

#[derive(Debug)]
struct State {
    /// Counts crashes; handles and locks of an earlier epoch are dead.
    epoch: u64,
    random: u64,
    inodes: Vec<Inode>,
    seen: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    capacity_bytes: Option<u64>,
    fail_syncs: u32,
    hold_syncs: bool,
    syncs: u64,
    faults: Faults,
    /// Crashed at an operation, and not started again yet.
    is_down: bool,
    forgotten: Vec<(PathBuf, Range<u64>)>,
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    n_durable: usize,
    /// Where each append that succeeded began and ended.
    appends: Vec<Range<usize>>,
    /// Durable bytes that were cut off, until a sync makes the cut durable too.
    cut: Vec<u8>,
    /// What a failed sync gave up: readable now, zeroes after a crash, whatever is synced later.
    lost: Vec<Range<usize>>,
}

impl MemDisk {
    /// An empty disk. The seed decides how crashes tear files.
    pub fn new(seed: u64) -> Self {
        let state = State {
            epoch: 0,
            random: seed,
            inodes: Vec::new(),
            seen: BTreeMap::new(),
            durable: BTreeMap::new(),
            dirs: BTreeSet::new(),
            locks: BTreeSet::new(),
            capacity_bytes: None,
            fail_syncs: 0,
            hold_syncs: false,
            syncs: 0,
            faults: Faults::default(),
            is_down: false,
            forgotten: Vec::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), syncs_released: Condvar::new(), watcher: Mutex::new(None) }) }
    }

    /// The machine (or the process) stops and starts again.
    pub fn crash(&self, how: Crash) {
        self.state().crash(how);
        self.shared.syncs_released.notify_all();
    }

    /// Plans what is to go wrong, at operations counted from now on.
    pub fn plan(&self, plan: impl FnOnce(&mut Faults)) {
        plan(&mut self.state().faults);
    }

    /// How many operations there were: those that change something, and reads.
    pub fn n_ops(&self) -> (u64, u64) {
        self.state().faults.n_ops()
    }

    /// Crashed at an operation: everything is refused until [`MemDisk::restart`].
    pub fn is_down(&self) -> bool {
        self.state().is_down
    }

    /// The machine (or the process) stops, and everything is refused until [`MemDisk::restart`]: also what the dying process still tries.
    pub fn stop(&self, how: Crash) {
        self.state().go_down(how);
        self.shared.syncs_released.notify_all();
    }

    /// What [`Disk::forget`] named, in order, where it was durable.
    pub fn forgotten(&self) -> Vec<(PathBuf, Range<u64>)> {
        self.state().forgotten.clone()
    }

    /// How many planned faults have struck.
    pub fn n_struck(&self) -> u64 {
        self.state().faults.n_struck()
    }

    /// After a crash at an operation.
    pub fn restart(&self) {
        self.state().is_down = false;
    }

    /// `watcher` hears of every operation before it happens.
    pub fn watch(&self, watcher: Hears) {
        *self.shared.watcher.lock() = Some(Watcher(watcher));
    }

    /// Files that can be read where a failed sync gave bytes up: zeroes once the machine stops, whatever is synced until then.
    pub fn shows_lost(&self) -> Vec<PathBuf> {
        let state = self.state();
        let shows = |inode: &Inode| inode.lost.iter().any(|lost| lost.start < lost.end.min(inode.bytes.len()));
        state.seen.iter().filter(|(_, inode)| shows(&state.inodes[**inode])).map(|(path, _)| path.clone()).collect()
    }

    pub fn has(&self, file: &Path) -> bool {
        self.state().seen.contains_key(file)
    }

    /// All files there are, in order, each with its size and where the latest append to it that succeeded, and is whole, began.
    pub fn files(&self) -> Vec<(PathBuf, u64, u64)> {
        let state = self.state();
        let file = |(path, inode): (&PathBuf, &usize)| {
            let inode = &state.inodes[*inode];
            (path.clone(), inode.bytes.len() as u64, inode.last_append() as u64)
        };
        state.seen.iter().map(file).collect()
    }

    /// The next `n` calls of `sync_data` fail, and what they should have made durable is lost at the next crash.
    pub fn fail_syncs(&self, n: u32) {
        self.state().fail_syncs = n;
    }

    /// The disk has room for this many bytes in all files together; `None` means no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// From now on `sync_data` waits, until [`MemDisk::release_syncs`] or a crash.
    pub fn hold_syncs(&self) {
        self.state().hold_syncs = true;
    }

    pub fn release_syncs(&self) {
        self.state().hold_syncs = false;
        self.shared.syncs_released.notify_all();
    }

    /// How often `sync_data` was called, failed and waiting calls included.
    pub fn n_syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Bytes in all files together.
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// Flips one bit (0 is the lowest) of a stored byte, as a tired disk would.
    pub fn flip_bit(&self, path: &Path, at: u64, bit: u8) -> DiskResult<()> {
        let state = &mut *self.state();
        let inode = state.find(path)?;
        let bytes = &mut state.inodes[inode].bytes;
        let byte = bytes.get_mut(at as usize).ok_or_else(|| DiskError::io("flip a bit of", path)(ErrorKind::UnexpectedEof.into()))?;
        *byte ^= 1 << (bit % 8);
        Ok(())
    }

    /// A second disk with the same durable and seen content and no faults, for trying many fates of one state.
    pub fn copy(&self) -> Self {
        let copy = Self::new(0);
        {
            let (from, mut to) = (self.state(), copy.state());
            to.random = from.random;
            to.seen = from.seen.clone();
            to.durable = from.durable.clone();
            to.dirs = from.dirs.clone();
            to.inodes = from.inodes.iter().map(Inode::copy).collect();
        }
        copy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }

    /// The disk for one operation, which may be the one at which a fault waits.
    fn begin(&self, op: Op, path: &Path) -> DiskResult<(MutexGuard<'_, State>, Meets)> {
        let watcher = self.shared.watcher.lock().clone();
        if let Some(Watcher(watcher)) = watcher {
            watcher(op, path);
        }
        let mut state = self.state();
        if state.is_down {
            return Err(DiskError::io(op.action(), path)(Error::other("the machine crashed")));
        }
        let meets = state.faults.meet(op);
        Ok((state, meets))
    }

    /// An operation on names: with a fault it may still have happened, but then it is not durable.
    fn change(&self, op: Op, path: &Path, durable: bool, apply: impl FnOnce(&mut State) -> DiskResult<()>) -> DiskResult<()> {
        let (mut state, meets) = self.begin(op, path)?;
        let failed = || DiskError::io(op.action(), path);
        match meets {
            Meets::Nothing => apply(&mut state),
            Meets::Failure { half_done } => {
                let names = state.durable.clone();
                if half_done {
                    apply(&mut state)?;
                    state.durable = names;
                }
                Err(failed()(Error::other("input/output error")))
            }
            Meets::Short => Err(failed()(ErrorKind::UnexpectedEof.into())),
            Meets::Crash { how, half_done } => {
                if half_done && durable {
                    apply(&mut state)?;
                }
                state.go_down(how);
                Err(failed()(Error::other("the machine crashed")))
            }
        }
    }
}

impl State {
    fn crash(&mut self, how: Crash) {
        self.epoch += 1;
        self.locks.clear();
        self.hold_syncs = false;
        let random = &mut self.random;
        for inode in &mut self.inodes {
            inode.crash(how, random);
        }
        match how {
            Crash::KeepUnsynced => self.durable = self.seen.clone(),
            Crash::DropUnsynced | Crash::TearUnsynced => self.seen = self.durable.clone(),
        }
    }

    fn go_down(&mut self, how: Crash) {
        self.crash(how);
        self.is_down = true;
    }

    fn find(&self, path: &Path) -> DiskResult<usize> {
        self.seen.get(path).copied().ok_or_else(|| DiskError::io("open", path)(ErrorKind::NotFound.into()))
    }

    fn used_bytes(&self) -> u64 {
        self.seen.values().map(|inode| self.inodes[*inode].bytes.len() as u64).sum()
    }

    fn room_bytes(&self) -> u64 {
        self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()))
    }

    fn create(&mut self, path: &Path) -> DiskResult<usize> {
        if !path.parent().is_some_and(|dir| self.dirs.contains(dir)) {
            return Err(DiskError::io("create", path)(ErrorKind::NotFound.into()));
        }
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.seen.insert(path.to_owned(), inode);
        Ok(inode)
    }
}

impl Inode {
    fn crash(&mut self, how: Crash, random: &mut u64) {
        if how == Crash::KeepUnsynced {
            return;
        }
        for lost in std::mem::take(&mut self.lost) {
            let end = lost.end.min(self.bytes.len());
            self.bytes[lost.start.min(end)..end].fill(0);
        }
        if !self.cut.is_empty() {
            // The cut never reached the disk, nor did what was written behind it.
            self.bytes.truncate(self.n_durable);
            self.bytes.append(&mut self.cut);
            self.n_durable = self.bytes.len();
        }
        let n_unsynced = self.bytes.len() - self.n_durable;
        if how == Crash::TearUnsynced && n_unsynced > 0 {
            let n_kept = next_random(random) as usize % (n_unsynced + 1);
            let n_whole = if next_random(random).is_multiple_of(4) { next_random(random) as usize % (n_kept + 1) } else { n_kept };
            self.bytes.truncate(self.n_durable + n_kept);
            self.bytes[self.n_durable + n_whole..].fill(0);
        } else {
            self.bytes.truncate(self.n_durable);
        }
        self.n_durable = self.bytes.len();
    }

    fn truncate(&mut self, size: usize) {
        if size < self.n_durable {
            let mut cut = self.bytes[size..self.n_durable].to_vec();
            cut.append(&mut self.cut);
            self.cut = cut;
            self.n_durable = size;
        }
        self.bytes.truncate(size);
    }

    fn sync(&mut self) {
        self.n_durable = self.bytes.len();
        self.cut.clear();
    }

    fn copy(&self) -> Self {
        let (appends, cut, lost) = (self.appends.clone(), self.cut.clone(), self.lost.clone());
        Self { bytes: self.bytes.clone(), n_durable: self.n_durable, appends, cut, lost }
    }

    /// Where the latest append began that succeeded and is still whole.
    fn last_append(&self) -> usize {
        self.appends.iter().rev().find(|append| append.end <= self.bytes.len()).map_or(0, |append| append.start)
    }
}

/// SplitMix64: small, seedable, and good enough to choose where a file tears.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> DiskResult<Arc<dyn DiskFile>> {
        if mode == OpenMode::Create {
            self.change(Op::Create, path, false, |state| state.create(path).map(drop))?;
        }
        let (state, _) = self.begin(Op::Open, path)?;
        let inode = state.find(path)?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(MemFile { disk: self.clone(), path: path.to_owned(), inode, epoch: state.epoch, writable }))
    }

    fn list(&self, dir: &Path) -> DiskResult<Vec<Entry>> {
        let (state, _) = self.begin(Op::Open, dir)?;
        if !state.dirs.contains(dir) {
            return Err(DiskError::io("list", dir)(ErrorKind::NotFound.into()));
        }
        let inside = state.seen.iter().filter(|(path, _)| path.parent() == Some(dir));
        Ok(inside
            .map(|(path, inode)| Entry {
                name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                size_bytes: state.inodes[*inode].bytes.len() as u64,
            })
            .collect())
    }

    fn list_dirs(&self, dir: &Path) -> DiskResult<Vec<String>> {
        let (state, _) = self.begin(Op::Open, dir)?;
        if !state.dirs.contains(dir) {
            return Err(DiskError::io("list", dir)(ErrorKind::NotFound.into()));
        }
        let inside = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> DiskResult<()> {
        self.change(Op::Rename, from, true, |state| {
            let inode = state.find(from)?;
            for names in [&mut state.seen, &mut state.durable] {
                names.remove(from);
                names.insert(to.to_owned(), inode);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> DiskResult<()> {
        self.change(Op::Remove, path, false, |state| {
            state.find(path)?;
            state.seen.remove(path);
            Ok(())
        })
    }

    fn create_dir_all(&self, dir: &Path) -> DiskResult<()> {
        self.change(Op::CreateDir, dir, true, |state| {
            state.dirs.extend(dir.ancestors().map(Path::to_owned));
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &Path) -> DiskResult<()> {
        self.change(Op::RemoveDir, dir, false, |state| {
            let occupied = state.seen.keys().chain(&state.dirs).any(|path| path.parent() == Some(dir));
            if occupied {
                return Err(DiskError::io("remove folder", dir)(ErrorKind::DirectoryNotEmpty.into()));
            }
            if !state.dirs.remove(dir) {
                return Err(DiskError::io("remove folder", dir)(ErrorKind::NotFound.into()));
            }
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> DiskResult<()> {
        self.change(Op::SyncDir, dir, true, |state| {
            let inside = |path: &PathBuf| path.parent() == Some(dir);
            state.durable.retain(|path, _| !inside(path));
            state.durable.extend(state.seen.iter().filter(|(path, _)| inside(path)).map(|(path, inode)| (path.clone(), *inode)));
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> DiskResult<Box<dyn DiskLock>> {
        let (mut state, _) = self.begin(Op::Open, path)?;
        if !state.locks.insert(path.to_owned()) {
            return Err(DiskError::Locked { path: path.to_owned(), holder: "another handle of this disk".to_owned() });
        }
        Ok(Box::new(MemLock { disk: self.clone(), path: path.to_owned(), epoch: state.epoch }))
    }

    fn forget(&self, path: &Path, bytes: Range<u64>) {
        let mut state = self.state();
        let is_durable = state.seen.get(path).is_some_and(|inode| bytes.end <= state.inodes[*inode].n_durable as u64);
        if is_durable {
            state.forgotten.push((path.to_owned(), bytes));
        }
    }

    fn free_bytes(&self, _dir: &Path) -> DiskResult<u64> {
        Ok(self.state().room_bytes())
    }
}

#[derive(Debug)]
struct MemLock {
    disk: MemDisk,
    path: PathBuf,
    epoch: u64,
}

impl DiskLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        let state = &mut *self.disk.state();
        if state.epoch == self.epoch {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    path: PathBuf,
    inode: usize,
    epoch: u64,
    writable: bool,
}

impl MemFile {
    /// The disk, unless this handle is from before a crash.
    fn alive<'a>(&'a self, action: &'static str) -> DiskResult<MutexGuard<'a, State>> {
        let state = self.disk.state();
        if state.epoch == self.epoch { Ok(state) } else { Err(self.error(action, Error::other("the machine crashed"))) }
    }

    fn begin(&self, op: Op) -> DiskResult<(MutexGuard<'_, State>, Meets)> {
        drop(self.alive(op.action())?);
        self.disk.begin(op, &self.path)
    }

    fn begin_write(&self, op: Op) -> DiskResult<(MutexGuard<'_, State>, Meets)> {
        if self.writable { self.begin(op) } else { Err(self.error(op.action(), ErrorKind::PermissionDenied.into())) }
    }

    /// What a fault makes of an operation of which a part may have happened.
    fn end(&self, state: &mut State, action: &'static str, meets: Meets) -> DiskResult<()> {
        match meets {
            Meets::Nothing => Ok(()),
            Meets::Short | Meets::Failure { .. } => Err(self.error(action, Error::other("input/output error"))),
            Meets::Crash { how, .. } => {
                state.go_down(how);
                Err(self.error(action, Error::other("the machine crashed")))
            }
        }
    }

    fn error(&self, action: &'static str, error: Error) -> DiskError {
        DiskError::io(action, &self.path)(error)
    }
}

impl DiskFile for MemFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> DiskResult<()> {
        let (state, meets) = self.begin(Op::Read)?;
        match meets {
            Meets::Nothing => {}
            Meets::Short => return Err(self.error("read", ErrorKind::UnexpectedEof.into())),
            Meets::Failure { .. } | Meets::Crash { .. } => return Err(self.error("read", Error::other("input/output error"))),
        }
        let bytes = &state.inodes[self.inode].bytes;
        let found = usize::try_from(at).ok().and_then(|at| bytes.get(at..at.checked_add(into.len())?));
        into.copy_from_slice(found.ok_or_else(|| self.error("read", ErrorKind::UnexpectedEof.into()))?);
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> DiskResult<()> {
        let (mut state, meets) = self.begin_write(Op::Write)?;
        let mut n_fitting = (bytes.len() as u64).min(state.room_bytes()) as usize;
        if meets.half_done() == Some(true) {
            n_fitting = next_random(&mut state.random) as usize % (n_fitting + 1);
        } else if meets.half_done() == Some(false) {
            n_fitting = 0;
        }
        let inode = &mut state.inodes[self.inode];
        if meets == Meets::Nothing && n_fitting == bytes.len() {
            let began = inode.bytes.len();
            inode.appends.retain(|append| append.end <= began);
            inode.appends.push(began..began + n_fitting);
        }
        inode.bytes.extend_from_slice(&bytes[..n_fitting]);
        self.end(&mut state, "write", meets)?;
        if n_fitting < bytes.len() { Err(self.error("write", ErrorKind::StorageFull.into())) } else { Ok(()) }
    }

    fn sync_data(&self) -> DiskResult<()> {
        let (mut state, meets) = self.begin_write(Op::Sync)?;
        state.syncs += 1;
        while state.hold_syncs {
            self.disk.shared.syncs_released.wait(&mut state);
        }
        if state.epoch != self.epoch {
            return Err(self.error("sync", Error::other("the machine crashed")));
        }
        if let Meets::Crash { half_done: true, .. } = meets {
            state.inodes[self.inode].sync();
        }
        if let Meets::Crash { .. } = meets {
            return self.end(&mut state, "sync", meets);
        }
        let failing = state.fail_syncs > 0 || meets != Meets::Nothing;
        state.fail_syncs = state.fail_syncs.saturating_sub(1);
        let inode = &mut state.inodes[self.inode];
        if failing {
            inode.lost.push(inode.n_durable..inode.bytes.len());
            return Err(self.error("sync", Error::other("input/output error")));
        }
        inode.sync();
        Ok(())
    }

    fn size_bytes(&self) -> DiskResult<u64> {
        Ok(self.alive("look at")?.inodes[self.inode].bytes.len() as u64)
    }

    fn truncate(&self, size_bytes: u64) -> DiskResult<()> {
        let (mut state, meets) = self.begin_write(Op::Truncate)?;
        if meets.half_done() != Some(false) {
            state.inodes[self.inode].truncate(size_bytes as usize);
        }
        self.end(&mut state, "truncate", meets)
    }
}
