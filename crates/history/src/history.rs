//! The history as a whole: what is in files, what is in memory, and one lock that shows both at once.

use crate::config::HistoryConfig;
use crate::error::HistoryError;
use crate::layout::Layout;
use crate::manifest::{MANIFEST, Manifest, OffsetRange, PartitionCover};
use crate::parquet_file::DataFile;
use crate::reader::FooterCache;
use crate::tail::{Tail, batch_bytes};
use arrow::array::RecordBatch;
use datafusion::execution::context::SessionState;
use mulgil_disk::{Disk, DiskLock, failpoint};
use mulgil_model::ids::{Offset, Partition, Topic};
use mulgil_model::rows::Rows;
use mulgil_model::schema::StreamSchema;
use mulgil_model::time::AppendTime;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Held by the one process that has the history open.
const LOCK: &str = "lock";

/// Committed rows of a fixed set of streams, as files and as a tail in memory.
///
/// Call order: [`History::open`]; for each partition read the log from [`History::next`] and hand the rows to [`History::append`];
/// once a second call [`History::flush_due`], now and then [`History::compact`] and [`History::retain`]; at the end
/// [`History::flush`]. Only one flush, compaction or retention runs at a time; the others wait. Nothing is retried here: after an
/// error the rows stay in the tail and the next flush takes them along.
#[derive(Debug)]
pub struct History {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) config: HistoryConfig,
    pub(crate) layouts: BTreeMap<Topic, Arc<Layout>>,
    /// Held for moments only: to look, to push a batch, to swap.
    pub(crate) state: Mutex<BTreeMap<Topic, StreamState>>,
    /// What stands on disk; held while files are written.
    pub(crate) upkeep: Mutex<Manifest>,
    pub(crate) footers: Arc<FooterCache>,
    pub(crate) session: SessionState,
    pub(crate) queries: Arc<Semaphore>,
    pub(crate) searches: Arc<Semaphore>,
    _lock: Box<dyn DiskLock>,
}

#[derive(Debug, Default)]
pub(crate) struct StreamState {
    pub files: Arc<Vec<Arc<DataFile>>>,
    pub partitions: BTreeMap<u32, PartitionState>,
    pub tail: Tail,
}

/// `start <= covered <= next`: rows up to `covered` are in files, from there up to `next` in the tail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartitionState {
    pub start: u64,
    pub covered: u64,
    pub next: u64,
}

/// What a query sees of one stream: fixed, whatever is written meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub layout: Arc<Layout>,
    pub files: Arc<Vec<Arc<DataFile>>>,
    pub tail: Vec<RecordBatch>,
}

/// The state of one stream, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStats {
    pub stream: Topic,
    pub n_files: usize,
    pub file_bytes: u64,
    pub file_rows: u64,
    pub tail_rows: usize,
    pub tail_bytes: usize,
    /// When the oldest row that is not in a file was appended to the log.
    pub tail_oldest: Option<AppendTime>,
}

impl History {
    /// Opens the history in `dir`, or begins one. Removes files that the manifest does not name. One process at a time.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: HistoryConfig,
        streams: Vec<Arc<StreamSchema>>,
    ) -> Result<Arc<Self>, HistoryError> {
        disk.create_dir_all(dir)?;
        let lock = disk.lock(&dir.join(LOCK))?;
        // The last process may have failed before the manifest's name was durable: files that only the one before names go next.
        disk.sync_dir(dir)?;
        let manifest = Manifest::load(disk.as_ref(), dir)?;
        remove_strays(disk.as_ref(), dir, &manifest)?;
        let mut layouts = BTreeMap::new();
        for stream in streams {
            let name = stream.stream.clone();
            if layouts.insert(name.clone(), Arc::new(Layout::new(stream)?)).is_some() {
                return Err(HistoryError::User(format!("stream '{name}' is declared twice")));
            }
        }
        let state = layouts.keys().map(|name| (name.clone(), stream_state(&disk, dir, name, &manifest))).collect();
        Ok(Arc::new(Self {
            footers: FooterCache::new(config.footer_cache_bytes),
            session: crate::session::base(),
            queries: Arc::new(Semaphore::new(config.queries_max.max(1))),
            searches: Arc::new(Semaphore::new(config.searches_max.max(1))),
            dir: dir.to_owned(),
            state: Mutex::new(state),
            upkeep: Mutex::new(manifest),
            _lock: lock,
            disk,
            config,
            layouts,
        }))
    }

    /// The first offset not yet held, files and tail together: where to read the log from. Zero for a partition never seen.
    pub fn next(&self, stream: &Topic, partition: Partition) -> Offset {
        self.partition(stream, partition, |p| p.next)
    }

    /// Rows below this offset are in files: the log need not keep them for the history's sake.
    pub fn durable(&self, stream: &Topic, partition: Partition) -> Offset {
        self.partition(stream, partition, |p| p.covered)
    }

    fn partition(&self, stream: &Topic, partition: Partition, what: impl Fn(&PartitionState) -> u64) -> Offset {
        let state = self.state.lock();
        Offset(state.get(stream).and_then(|s| s.partitions.get(&partition.0)).map_or(0, what))
    }

    /// For a log that no longer has its first rows: a partition of which nothing is held yet begins at `first` instead of zero.
    pub fn start_at(&self, stream: &Topic, partition: Partition, first: Offset) -> Result<(), HistoryError> {
        let mut state = self.state.lock();
        let stream_state = state.get_mut(stream).ok_or_else(|| HistoryError::UnknownStream(stream.clone()))?;
        let fresh = PartitionState { start: first.0, covered: first.0, next: first.0 };
        let held = stream_state.partitions.entry(partition.0).or_insert(fresh);
        if held.start == held.next {
            *held = fresh;
        }
        let next = Offset(held.next);
        if next == first { Ok(()) } else { Err(HistoryError::Gap { stream: stream.clone(), partition, next, got: first }) }
    }

    /// Takes rows into the tail; queries see them when this returns. Rows below [`History::next`] are skipped, a gap is an error, and
    /// a full tail answers [`HistoryError::Busy`] until a flush made room. Never waits for a file.
    pub fn append(&self, rows: &Rows) -> Result<(), HistoryError> {
        let stream = &rows.schema.stream;
        let layout = self.layouts.get(stream).ok_or_else(|| HistoryError::UnknownStream(stream.clone()))?;
        if rows.is_empty() {
            return Ok(());
        }
        let batch = layout.batch(rows).map_err(HistoryError::internal(format!("taking rows of {stream} into the history")))?;
        let mut state = self.state.lock();
        let tails_bytes: usize = state.values().map(|s| s.tail.bytes).sum();
        let stream_state = state.get_mut(stream).expect("invariant: every layout has a state");
        let first = PartitionState { start: 0, covered: 0, next: 0 };
        let next = stream_state.partitions.get(&rows.partition.0).unwrap_or(&first).next;
        if rows.base.0 > next {
            return Err(HistoryError::Gap { stream: stream.clone(), partition: rows.partition, next: Offset(next), got: rows.base });
        }
        if rows.next().0 <= next {
            return Ok(());
        }
        let n_known = (next - rows.base.0) as usize;
        let batch = batch.slice(n_known, rows.len() - n_known);
        if tails_bytes > 0 && tails_bytes + batch_bytes(&batch) > self.config.tail_bytes_max {
            let max = self.config.tail_bytes_max;
            return Err(HistoryError::Busy(format!("the history's tail is full ({tails_bytes} of {max} bytes): flush, then append again")));
        }
        stream_state.tail.push(batch, rows.appended[n_known]).map_err(HistoryError::internal("joining rows of the tail"))?;
        stream_state.partitions.entry(rows.partition.0).or_insert(first).next = rows.next().0;
        Ok(())
    }

    /// Every stream as it is at this moment.
    pub(crate) fn views(&self) -> BTreeMap<Topic, View> {
        let state = self.state.lock();
        state.iter().map(|(name, s)| (name.clone(), self.view_of(name, s))).collect()
    }

    fn view_of(&self, name: &Topic, state: &StreamState) -> View {
        View { layout: Arc::clone(&self.layouts[name]), files: Arc::clone(&state.files), tail: state.tail.batches() }
    }

    pub fn stats(&self) -> Vec<StreamStats> {
        let state = self.state.lock();
        let one = |(name, s): (&Topic, &StreamState)| StreamStats {
            stream: name.clone(),
            n_files: s.files.len(),
            file_bytes: s.files.iter().map(|f| f.entry.bytes).sum(),
            file_rows: s.files.iter().map(|f| f.entry.rows).sum(),
            tail_rows: s.tail.rows,
            tail_bytes: s.tail.bytes,
            tail_oldest: s.tail.oldest,
        };
        state.iter().map(one).collect()
    }

    /// Puts `next` in force: on disk first, then for queries. `put` changes the states of the streams that it concerns.
    pub(crate) fn switch(
        &self,
        upkeep: &mut MutexGuard<'_, Manifest>,
        mut next: Manifest,
        put: impl FnOnce(&mut BTreeMap<Topic, StreamState>),
    ) -> Result<(), HistoryError> {
        // Numbers are never used twice, also when this fails: the file of that name may exist.
        upkeep.next_file = next.next_file;
        upkeep.generation += 1;
        next.generation = upkeep.generation;
        failpoint::here("history.before-manifest");
        next.store(self.disk.as_ref(), &self.dir)?;
        failpoint::here("history.after-manifest");
        **upkeep = next;
        put(&mut self.state.lock());
        Ok(())
    }
}

fn stream_state(disk: &Arc<dyn Disk>, dir: &Path, name: &Topic, manifest: &Manifest) -> StreamState {
    let Some(held) = manifest.streams.get(name.as_str()) else { return StreamState::default() };
    let file = |entry: &crate::manifest::FileEntry| DataFile::new(Arc::clone(disk), dir, name.as_str(), entry.clone());
    let cover = |c: &PartitionCover| (c.partition, PartitionState { start: c.start, covered: c.covered, next: c.covered });
    StreamState {
        files: Arc::new(held.files.iter().map(file).collect()),
        partitions: held.partitions.iter().map(cover).collect(),
        tail: Tail::default(),
    }
}

/// Removes what a stopped process left behind: files being written, files replaced but not yet removed, empty folders of days.
fn remove_strays(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> Result<(), HistoryError> {
    for entry in disk.list(dir)?.iter().filter(|e| e.name.starts_with(MANIFEST) && e.name != MANIFEST) {
        disk.remove(&dir.join(&entry.name))?;
    }
    for stream in disk.list_dirs(dir)? {
        let files = manifest.streams.get(&stream).map(|s| s.files.as_slice()).unwrap_or_default();
        let known: BTreeSet<PathBuf> = files.iter().map(|f| f.path(dir, &stream)).collect();
        for day in disk.list_dirs(&dir.join(&stream))? {
            let folder = dir.join(&stream).join(&day);
            let names = disk.list(&folder)?;
            let (kept, strays): (Vec<_>, Vec<_>) = names.iter().map(|e| folder.join(&e.name)).partition(|path| known.contains(path));
            for path in strays.iter().filter(|path| path.extension().is_some_and(|e| e == "parquet")) {
                tracing::info!(path = %path.display(), "removing a file that is not part of the history");
                disk.remove(path)?;
            }
            if kept.is_empty() {
                disk.remove_dir(&folder).ok();
            }
        }
    }
    Ok(())
}

/// The largest event time in files and tail, per partition.
pub(crate) fn newest_by_partition(view: &View) -> BTreeMap<u32, i64> {
    let mut newest: BTreeMap<u32, i64> = BTreeMap::new();
    let mut note = |partition: u32, us: i64| {
        newest.entry(partition).and_modify(|held| *held = us.max(*held)).or_insert(us);
    };
    let ranges = view.files.iter().flat_map(|f| &f.entry.offsets);
    ranges.for_each(|r: &OffsetRange| note(r.partition, r.event_time_max));
    for batch in &view.tail {
        let times = view.layout.event_times(batch).values();
        view.layout.partitions(batch).values().iter().zip(times).for_each(|(partition, us)| note(*partition as u32, *us));
    }
    newest
}
