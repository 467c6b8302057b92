//! Many files as one stream in event-time order.
//!
//! Rows of one file keep their order. Between files, the row with the smaller time comes first, where a row's time is the newest event
//! time of its file so far; ties go to the file named first. A bad row has no time and follows the row before it. So the stream, and the
//! ordinal of each of its rows, depend on the files and the options alone, never on the size of the batches.

use super::input::{FileError, InputFile, Rows};
use crate::decode::{Decoded, Format, Plan};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use mulgil_model::position::Position;
use mulgil_model::problem::RowProblem;
use mulgil_model::time::{EpochUnit, ReceiveTime};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Clone)]
pub struct ReplayOptions {
    /// Taken for all files; None tells each by its name or its first bytes.
    pub format: Option<Format>,
    /// Rows, good and bad together, in one [`ReplayBatch`] at most.
    pub batch_rows: usize,
    /// How far a row may lie before the newest row above it in its file.
    pub tolerance_us: i64,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { format: None, batch_rows: 8_192, tolerance_us: 5_000_000 }
    }
}

/// The next rows of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayBatch {
    pub batch: RecordBatch,
    /// The ordinal in the replay of each row of the batch, ascending. Good and bad rows are counted together, from 0.
    pub ordinals: Vec<u64>,
    /// The bad rows among them, by ascending ordinal.
    pub problems: Vec<ReplayProblem>,
    /// Of the last row, good or bad: what to commit with the batch, and to hand to [`Replay::resume_after`].
    pub position: Position,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ReplayProblem {
    pub ordinal: u64,
    pub file: PathBuf,
    /// Its `row` and `line` count within the file.
    pub problem: RowProblem,
}

/// The files of a replay, read once each from front to back. Holds open only files whose time has come.
pub struct Replay {
    plan: Arc<Plan>,
    options: ReplayOptions,
    received: ReceiveTime,
    identity: u64,
    lanes: Vec<Lane>,
    /// The lanes that have rows left, by the time of their next row.
    order: BinaryHeap<Reverse<(i64, usize)>>,
    /// The ordinal of the next row.
    next: u64,
    /// What ended the replay, kept until the rows before it are delivered.
    failure: Option<FileError>,
    bytes_done: Arc<AtomicU64>,
    bytes_total: u64,
}

impl Replay {
    /// Looks at every file: its content's hash, its header and its first row. `received` is the receive time of all rows.
    pub fn open<P: AsRef<Path>>(paths: &[P], options: ReplayOptions, plan: Arc<Plan>, received: ReceiveTime) -> Result<Self, FileError> {
        if paths.is_empty() {
            return Err(FileError::NoFiles);
        }
        let files = paths.iter().map(|p| InputFile::examine(p.as_ref(), options.format)).collect::<Result<Vec<_>, _>>()?;
        let identity = identity(&files, &options, &plan);
        let bytes_total = files.iter().map(|f| f.n_bytes).sum();
        let mut lanes: Vec<Lane> = files.into_iter().map(Lane::new).collect();
        let mut order = BinaryHeap::with_capacity(lanes.len());
        for (i, lane) in lanes.iter_mut().enumerate() {
            if let Some(first) = lane.peek(&plan, received, options.tolerance_us)? {
                order.push(Reverse((first, i)));
            }
        }
        Ok(Self { plan, options, received, identity, lanes, order, next: 0, failure: None, bytes_done: Arc::default(), bytes_total })
    }

    /// The same for the same files (names and contents, in the same order), mapping and tolerance: a stored position is worth nothing
    /// for any other replay.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Continues behind a position that was committed before. Must come before the first batch.
    pub fn resume_after(&mut self, position: Position) -> Result<(), FileError> {
        self.skip_to(position.commit.saturating_add(1))
    }

    /// Passes over rows so that the next one delivered has this ordinal. Rows are still decoded, as merging needs their times.
    pub fn skip_to(&mut self, ordinal: u64) -> Result<(), FileError> {
        while self.next < ordinal {
            let n_rows_max = usize::try_from(ordinal - self.next).unwrap_or(usize::MAX);
            self.advance(n_rows_max, &mut None);
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if self.order.is_empty() && self.next < ordinal {
                return Err(FileError::PastEnd { ordinal: ordinal - 1, n_rows: self.next });
            }
        }
        Ok(())
    }

    /// Bytes of the files read so far, and of all files.
    pub fn progress(&self) -> (u64, u64) {
        (self.bytes_done.load(Ordering::Relaxed).min(self.bytes_total), self.bytes_total)
    }

    /// The next rows; None behind the last. After an error there is nothing more.
    pub fn next_batch(&mut self) -> Result<Option<ReplayBatch>, FileError> {
        for lane in &mut self.lanes {
            lane.part = None;
        }
        let mut picked = Some(Picked::default());
        if self.failure.is_none() {
            self.advance(self.options.batch_rows.max(1), &mut picked);
        }
        let picked = picked.unwrap_or_default();
        if picked.ordinals.is_empty() && picked.problems.is_empty() {
            return self.failure.take().map_or(Ok(None), Err);
        }
        let batch = picked.assemble(&self.plan);
        Ok(Some(ReplayBatch { batch, ordinals: picked.ordinals, problems: picked.problems, position: Position::new(self.next - 1, 0) }))
    }

    /// Takes up to `n_rows_max` rows in order. What fails is kept as `failure`, behind the rows taken before it.
    fn advance(&mut self, n_rows_max: usize, picked: &mut Option<Picked>) {
        let mut left = n_rows_max;
        while left > 0 && self.failure.is_none() {
            let Some(Reverse((_, i))) = self.order.pop() else { return };
            // A file that is opened only now has yet to learn the time of its first row.
            let opened = self.lanes[i].open(&self.plan, self.received, &self.bytes_done);
            if let Err(e) = opened.and_then(|()| self.lanes[i].head(&self.plan, self.options.tolerance_us)) {
                return self.fail(e);
            }
            let until = self.order.peek().map(|Reverse(other)| *other);
            let lane = &mut self.lanes[i];
            // The lane goes first as long as its next row comes before every other lane's.
            loop {
                lane.take(self.next, picked);
                self.next += 1;
                left -= 1;
                match lane.head(&self.plan, self.options.tolerance_us) {
                    Ok(Some(time)) if left == 0 || until.is_some_and(|other| (time, i) > other) => {
                        self.order.push(Reverse((time, i)));
                        break;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(e) => return self.fail(e),
                }
            }
        }
    }

    fn fail(&mut self, e: FileError) {
        self.order.clear();
        self.failure = Some(e);
    }
}

impl Iterator for Replay {
    type Item = Result<ReplayBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

fn identity(files: &[InputFile], options: &ReplayOptions, plan: &Plan) -> u64 {
    let mapping = &plan.options().mapping;
    let zone = mapping.time_zone.as_ref().map(|z| format!("{z:?}"));
    let unit = match mapping.time_unit {
        EpochUnit::Seconds => "s",
        EpochUnit::Millis => "ms",
        EpochUnit::Micros => "us",
        EpochUnit::Nanos => "ns",
    };
    let mut text = format!("{}|{:?}|{}|", plan.schema().stream, options.format, options.tolerance_us);
    text += &format!("{:?}|{:?}|{unit}|{zone:?}|{:?}|", mapping.columns, mapping.constants, mapping.sides);
    for file in files {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        text += &format!("{name:?},{},{:016x}|", file.n_bytes, file.hash);
    }
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// One file and how far it is read.
struct Lane {
    file: InputFile,
    state: LaneState,
    chunk: Option<Decoded>,
    /// The next good and the next bad row of the chunk.
    good: usize,
    bad: usize,
    /// The newest event time so far; the time of the next row to be taken.
    newest: i64,
    /// The chunk's number among the parts of the batch in the making.
    part: Option<usize>,
}

enum LaneState {
    Waiting,
    Open(Rows),
    Done,
}

impl Lane {
    fn new(file: InputFile) -> Self {
        Self { file, state: LaneState::Waiting, chunk: None, good: 0, bad: 0, newest: i64::MIN, part: None }
    }

    /// The time of the first row; the file is closed again, so that only files whose time has come take memory.
    fn peek(&mut self, plan: &Arc<Plan>, received: ReceiveTime, tolerance_us: i64) -> Result<Option<i64>, FileError> {
        self.open(plan, received, &Arc::default())?;
        let first = self.head(plan, tolerance_us)?;
        *self = Self::new(self.file.clone());
        Ok(first)
    }

    fn open(&mut self, plan: &Arc<Plan>, received: ReceiveTime, done: &Arc<AtomicU64>) -> Result<(), FileError> {
        if matches!(self.state, LaneState::Waiting) {
            self.state = LaneState::Open(self.file.rows(plan, received, Arc::clone(done))?);
            self.load()?;
        }
        Ok(())
    }

    /// Brings the next chunk in.
    fn load(&mut self) -> Result<(), FileError> {
        let LaneState::Open(rows) = &mut self.state else { return Ok(()) };
        self.chunk = rows.next().map_err(|source| FileError::Read { path: self.file.path.clone(), source })?;
        (self.good, self.bad, self.part) = (0, 0, None);
        if self.chunk.is_none() {
            self.state = LaneState::Done;
        }
        Ok(())
    }

    /// The time of the next row, None behind the last.
    fn head(&mut self, plan: &Plan, tolerance_us: i64) -> Result<Option<i64>, FileError> {
        while self.chunk.as_ref().is_some_and(|c| self.good == c.rows.len() && self.bad == c.problems.len()) {
            self.load()?;
        }
        let Some(chunk) = &self.chunk else { return Ok(None) };
        if self.is_bad(chunk) {
            return Ok(Some(self.newest));
        }
        let event_time = chunk.batch.column(plan.schema().event_time).as_primitive::<TimestampMicrosecondType>().value(self.good);
        if event_time < self.newest.saturating_sub(tolerance_us) {
            let (line, path) = (chunk.lines[self.good], self.file.path.clone());
            return Err(FileError::OutOfOrder { path, line, event_time, newest: self.newest, tolerance_us });
        }
        self.newest = self.newest.max(event_time);
        Ok(Some(self.newest))
    }

    /// Whether the next row is a bad one. There must be a next row.
    fn is_bad(&self, chunk: &Decoded) -> bool {
        let bad = chunk.problems.get(self.bad).map(|p| p.row);
        bad.is_some_and(|bad| chunk.rows.get(self.good).is_none_or(|good| bad < *good))
    }

    /// Takes the row that [`Self::head`] told of.
    fn take(&mut self, ordinal: u64, picked: &mut Option<Picked>) {
        let chunk = self.chunk.as_ref().expect("a lane in the order has a next row");
        if self.is_bad(chunk) {
            if let Some(picked) = picked {
                let problem = chunk.problems[self.bad].clone();
                picked.problems.push(ReplayProblem { ordinal, file: self.file.path.clone(), problem });
            }
            self.bad += 1;
            return;
        }
        if let Some(picked) = picked {
            let part = *self.part.get_or_insert_with(|| picked.add_part(&chunk.batch));
            picked.add_row(part, self.good, ordinal);
        }
        self.good += 1;
    }
}

/// Rows of a batch in the making: which rows of which chunks, in runs.
#[derive(Default)]
struct Picked {
    parts: Vec<RecordBatch>,
    /// Part, first row, number of rows.
    runs: Vec<(usize, usize, usize)>,
    ordinals: Vec<u64>,
    problems: Vec<ReplayProblem>,
}

/// Below this many rows a run, rows are gathered one by one instead of copied in runs.
const RUN_ROWS_MIN: usize = 16;

impl Picked {
    fn add_part(&mut self, batch: &RecordBatch) -> usize {
        self.parts.push(batch.clone());
        self.parts.len() - 1
    }

    fn add_row(&mut self, part: usize, row: usize, ordinal: u64) {
        self.ordinals.push(ordinal);
        match self.runs.last_mut() {
            Some((p, first, n)) if *p == part && *first + *n == row => *n += 1,
            _ => self.runs.push((part, row, 1)),
        }
    }

    fn assemble(&self, plan: &Plan) -> RecordBatch {
        let schema = plan.schema().arrow();
        let slice = |(part, first, n): &(usize, usize, usize)| self.parts[*part].slice(*first, *n);
        match self.runs.as_slice() {
            [] => RecordBatch::new_empty(Arc::clone(schema)),
            [run] => slice(run),
            runs if self.ordinals.len() / runs.len() >= RUN_ROWS_MIN => {
                let slices: Vec<RecordBatch> = runs.iter().map(slice).collect();
                concat_batches(schema, &slices).expect("all parts have the stream's schema")
            }
            runs => {
                let rows: Vec<(usize, usize)> =
                    runs.iter().flat_map(|(part, first, n)| (*first..first + n).map(|row| (*part, row))).collect();
                let parts: Vec<&RecordBatch> = self.parts.iter().collect();
                interleave_record_batch(&parts, &rows).expect("all parts have the stream's schema")
            }
        }
    }
}
