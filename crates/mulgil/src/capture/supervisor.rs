//! One captured database at work: opened, read, committed, acknowledged; opened again after an error, with back-off, for ever.
//!
//! ```text
//! capture-NAME          open ─▶ next ─▶ batch ─┐        (an async runtime of its own: the source's connections live here)
//! write-NAME            encode, begin ◀────────┘─▶ commit on its way ─┐
//! sync-NAME             wait until it is durable ◀────────────────────┘─▶ acknowledge
//! ```
//! A commit behind which nothing waits is waited for where it was begun.
//!
//! Three threads, so that reading the database, encoding, and waiting for the disk do not wait for each other. A source that fails stops
//! nobody else; only a broken log ends the process.

use super::notes::{Begun, Notes};
use super::writer::ChangeWriter;
use crate::pipeline::recent::{Dealt, Recent};
use crate::pipeline::stop::Stop;
use anyhow::{Context, Result, anyhow};
use mulgil_capture::change::{Askers, Batch, Resume};
use mulgil_capture::source::{Health, Link, Phase, SnapshotRequest, Source, SourceError, SourceErrorKind};
use mulgil_log::{Clock, LogError, LogResult};
use mulgil_model::position::Position;
use mulgil_model::time::ReceiveTime;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as threads;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};

/// Batches that are read and not encoded yet.
const BATCHES_READ_MAX: usize = 2;

/// Commits that are on their way to the disk.
const COMMITS_IN_FLIGHT_MAX: usize = 16;

/// Snapshots that are asked for and not taken up yet.
const REQUESTS_MAX: usize = 8;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A setting that is wrong is looked at again so often: somebody may have put it right in the database.
const CONFIG_RETRY: Duration = Duration::from_secs(30);

/// What opens a source; a test has its own.
pub type Open = Box<dyn Fn(Option<Resume>, Link) -> Opening + Send + Sync>;
pub type Opening = Pin<Box<dyn Future<Output = Result<Box<dyn Source>, SourceError>> + Send>>;

/// One captured database, before it runs.
pub struct Supervisor {
    pub name: String,
    pub open: Open,
    pub notes: Arc<Notes>,
    pub writer: Arc<Mutex<ChangeWriter>>,
    pub recent: Arc<Recent>,
    pub clock: Clock,
    pub status: Arc<Status>,
}

/// How it is, for everybody who asks.
#[derive(Debug, Default)]
pub struct Status(Mutex<Seen>);

#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub state: State,
    /// Why it is not running, in words.
    pub detail: String,
    /// When it came into this state, microseconds since the epoch.
    pub since_us: i64,
    pub health: Health,
    pub durable: Option<Position>,
    pub n_changes: u64,
    pub n_commits: u64,
    pub n_failures: u64,
    /// Where snapshots are asked for; None while it is not open.
    requests: Option<mpsc::Sender<SnapshotRequest>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Connecting,
    Running,
    /// After an error, until it is tried again.
    Waiting,
    /// A person has to choose; the detail says between what.
    Refused,
    Stopped,
}

impl State {
    pub fn name(self, phase: Phase) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Running => phase.name(),
            Self::Waiting => "waiting",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}

impl Status {
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Asks the source for a snapshot while it streams.
    pub fn requests(&self) -> Option<mpsc::Sender<SnapshotRequest>> {
        self.lock().requests.clone()
    }

    fn set(&self, state: State, detail: &str, now_us: i64) {
        let mut seen = self.lock();
        if seen.state != state || seen.detail != detail {
            (seen.state, seen.since_us, seen.detail) = (state, now_us, detail.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why one run of a source ended.
enum End {
    Stopped,
    Failed(SourceError),
    /// The log: nothing goes on without it.
    Broken(anyhow::Error),
}

impl Supervisor {
    /// Until told to stop, or the log breaks.
    pub fn run(self, stop: &Stop) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot make a runtime")?;
        let mut wait = RETRY_FIRST;
        while !stop.asked() {
            let durable_before = self.notes.resume(&self.name).map(|r| r.position);
            let end = runtime.block_on(self.run_once(stop));
            self.status.lock().requests = None;
            let error = match end {
                End::Stopped => break,
                End::Broken(error) => return Err(error),
                End::Failed(error) => error,
            };
            self.notes.reload(&self.name)?;
            if self.notes.resume(&self.name).map(|r| r.position) != durable_before {
                wait = RETRY_FIRST;
            }
            self.status.lock().n_failures += 1;
            if !self.rest(&error, wait, stop) {
                break;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.status.set(State::Stopped, "", (self.clock)().0);
        Ok(())
    }

    /// Waits as long as the error deserves; false when told to stop meanwhile.
    fn rest(&self, error: &SourceError, wait: Duration, stop: &Stop) -> bool {
        let now = (self.clock)().0;
        match error.kind {
            SourceErrorKind::Refused => {
                tracing::error!(source = self.name, error = %error, "capture has stopped and waits for a decision");
                let choice = format!("to give up its place: stop mulgil, mulgil capture forget {}, start it again", self.name);
                self.status.set(State::Refused, &format!("{} ({choice})", error.message), now);
                while !stop.wait(Duration::from_secs(3600)) {}
                false
            }
            kind => {
                let wait = if kind == SourceErrorKind::Config { CONFIG_RETRY } else { wait };
                tracing::warn!(source = self.name, error = %error, retry_ms = wait.as_millis() as u64, "capture is interrupted");
                self.status.set(State::Waiting, &error.message, now);
                !stop.wait(wait)
            }
        }
    }

    async fn run_once(&self, stop: &Stop) -> End {
        self.status.set(State::Connecting, "", (self.clock)().0);
        let resume = self.notes.resume(&self.name);
        let begin = resume.as_ref().map_or_else(Position::default, |r| r.position);
        let (durable, durable_seen) = watch::channel(begin);
        let (health, health_seen) = watch::channel(Health::default());
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let opening = (self.open)(resume, Link { durable: durable_seen, health, requests: asked });
        let source = tokio::select! {
            opened = opening => match opened {
                Ok(source) => source,
                Err(error) => return End::Failed(error),
            },
            () = stop.wait_async() => return End::Stopped,
        };
        self.status.set(State::Running, "", (self.clock)().0);
        self.status.lock().requests = Some(requests);
        let failed = Arc::new(Notify::new());
        let commits = match Commits::start(self, durable, &failed) {
            Ok(commits) => commits,
            Err(error) => return End::Broken(error),
        };
        let end = self.read(source, &commits, health_seen, &failed, stop).await;
        // The source is gone by now; what it gave still becomes durable, or the error is told.
        match commits.join() {
            Err(error) => ended_by(error),
            Ok(()) => end,
        }
    }

    async fn read(
        &self,
        mut source: Box<dyn Source>,
        commits: &Commits,
        mut health: watch::Receiver<Health>,
        failed: &Notify,
        stop: &Stop,
    ) -> End {
        let Some(batches) = commits.batches.clone() else { return End::Stopped };
        let mut is_told = true;
        loop {
            let mut next = source.next();
            let batch = loop {
                tokio::select! {
                    batch = &mut next => break batch,
                    changed = health.changed(), if is_told => {
                        self.status.lock().health = health.borrow_and_update().clone();
                        is_told = changed.is_ok();
                    }
                    () = failed.notified() => return End::Stopped,
                    () = stop.wait_async() => return End::Stopped,
                }
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => return End::Failed(error),
            };
            tokio::select! {
                sent = batches.send((batch, Instant::now())) => if sent.is_err() { return End::Stopped },
                () = failed.notified() => return End::Stopped,
                () = stop.wait_async() => return End::Stopped,
            }
        }
    }
}

/// A broken log ends everything; a full disk is waited out.
fn ended_by(error: anyhow::Error) -> End {
    if let Some(SourceError { kind, message }) = error.downcast_ref() {
        return End::Failed(SourceError { kind: *kind, message: message.clone() });
    }
    match error.downcast_ref::<LogError>() {
        Some(full @ LogError::DiskFull { .. }) => End::Failed(SourceError::retry(full.to_string())),
        Some(same @ LogError::AlreadyCommitted { .. }) => {
            End::Failed(SourceError::refused(format!("the database gave a place that was captured before ({same})")))
        }
        Some(large @ (LogError::RecordTooLarge { .. } | LogError::CommitTooLarge { .. })) => {
            End::Failed(SourceError::refused(format!("a change does not fit into the log: {large}")))
        }
        Some(_) => End::Broken(error),
        None => End::Failed(SourceError::refused(format!("{error:#}"))),
    }
}

/// A commit on its way, with the rows that readers find decoded once it is durable.
struct OnItsWay {
    begun: Begun,
    dealt: Vec<Dealt>,
    n_changes: u64,
    steps: Steps,
    askers: Askers,
}

/// When a batch came from its source, when the writer took it up, and when its commit was begun.
#[derive(Clone, Copy)]
struct Steps {
    read: Instant,
    taken: Instant,
    begun: Instant,
}

impl Steps {
    /// With the time of the log line it tells `cargo xtask bench` when changes were durable, and how long each step to there took.
    fn say(self, n_changes: u64) {
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        let (handed_us, encode_us, disk_us) = (us(self.read, self.taken), us(self.taken, self.begun), us(self.begun, Instant::now()));
        tracing::trace!(n_changes, handed_us, encode_us, disk_us, "durable");
    }
}

/// A batch, and when it was read.
type Read = (Batch, Instant);

/// The two threads behind one run of a source.
struct Commits {
    batches: Option<mpsc::Sender<Read>>,
    write: JoinHandle<Result<()>>,
    sync: JoinHandle<Result<()>>,
}

impl Commits {
    /// `failed` is told when either ends with an error.
    fn start(of: &Supervisor, durable: watch::Sender<Position>, failed: &Arc<Notify>) -> Result<Self> {
        let (batches, read) = mpsc::channel(BATCHES_READ_MAX);
        let (on_their_way, begun) = threads::sync_channel(COMMITS_IN_FLIGHT_MAX);
        let acknowledge = Arc::new(Acknowledge {
            notes: Arc::clone(&of.notes),
            recent: Arc::clone(&of.recent),
            status: Arc::clone(&of.status),
            durable,
            n_handed: AtomicUsize::new(0),
        });
        let write = Write {
            name: of.name.clone(),
            notes: Arc::clone(&of.notes),
            writer: Arc::clone(&of.writer),
            clock: Arc::clone(&of.clock),
            on_their_way,
            acknowledge: Arc::clone(&acknowledge),
        };
        let (write, told) = (spawn(&of.name, "write", failed, move || write.run(read))?, Arc::clone(failed));
        let sync = spawn(&of.name, "sync", failed, move || acknowledge.run(&begun, &told))?;
        Ok(Self { batches: Some(batches), write, sync })
    }

    /// Waits until what was handed over is durable. The first error, in the order of the commits.
    fn join(self) -> Result<()> {
        let Self { batches, write, sync } = self;
        drop(batches);
        let broke = |_| Err(anyhow!("a thread of it broke"));
        // The commit that failed comes back in `sync`; what could not even be begun behind it is its consequence.
        let (write, sync) = (write.join().unwrap_or_else(broke), sync.join().unwrap_or_else(broke));
        sync.and(write)
    }
}

fn spawn(
    source: &str,
    part: &str,
    failed: &Arc<Notify>,
    work: impl FnOnce() -> Result<()> + Send + 'static,
) -> Result<JoinHandle<Result<()>>> {
    let failed = Arc::clone(failed);
    let body = move || {
        let result = work();
        if result.is_err() {
            failed.notify_one();
        }
        result
    };
    // Linux keeps fifteen letters of it.
    let name = format!("{part}-{source}");
    std::thread::Builder::new().name(name).spawn(body).context("cannot start a thread")
}

/// Encodes batches and begins their commits.
struct Write {
    name: String,
    notes: Arc<Notes>,
    writer: Arc<Mutex<ChangeWriter>>,
    clock: Clock,
    on_their_way: threads::SyncSender<OnItsWay>,
    acknowledge: Arc<Acknowledge>,
}

impl Write {
    fn run(self, mut batches: mpsc::Receiver<Read>) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((Batch { changes, resume, askers }, read)) = batches.blocking_recv() {
            let taken = Instant::now();
            mulgil_disk::failpoint::here("capture.batch-read");
            let n_changes = changes.len() as u64;
            let (commit, dealt) = writer.commit_of(changes, ReceiveTime((self.clock)().0))?;
            mulgil_disk::failpoint::here("capture.before-commit");
            let begun = self.notes.begin(&self.name, resume, commit)?;
            mulgil_disk::failpoint::here("capture.commit-begun");
            let steps = Steps { read, taken, begun: Instant::now() };
            let on_its_way = OnItsWay { begun, dealt, n_changes, steps, askers };
            // Where nothing waits behind it, another thread would only be one more to wake.
            if batches.is_empty() && self.acknowledge.n_handed.load(Ordering::Acquire) == 0 {
                self.acknowledge.wait(on_its_way)?;
                continue;
            }
            self.acknowledge.n_handed.fetch_add(1, Ordering::AcqRel);
            if self.on_their_way.send(on_its_way).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Waits for the disk and lets the source acknowledge.
struct Acknowledge {
    notes: Arc<Notes>,
    recent: Arc<Recent>,
    status: Arc<Status>,
    durable: watch::Sender<Position>,
    /// Commits that the thread which waits was handed and that have not come back.
    n_handed: AtomicUsize,
}

impl Acknowledge {
    /// After an error, of which the reader is told at once, it waits for the commits behind it too: they fail with it.
    fn run(&self, begun: &threads::Receiver<OnItsWay>, failed: &Notify) -> Result<()> {
        let mut first_error = None;
        for on_its_way in begun {
            if first_error.is_some() {
                // What it says is known; only its place is given up.
                drop(self.notes.wait(on_its_way.begun, |_| ()));
            } else if let Err(error) = self.wait(on_its_way) {
                failed.notify_one();
                first_error = Some(error);
            }
            self.n_handed.fetch_sub(1, Ordering::AcqRel);
        }
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn wait(&self, OnItsWay { begun, dealt, n_changes, steps, askers }: OnItsWay) -> LogResult<()> {
        let position = self.notes.wait(begun, |committed| {
            steps.say(n_changes);
            // Before readers look for them.
            self.recent.keep(dealt, committed);
        })?;
        mulgil_disk::failpoint::here("capture.after-commit");
        let mut seen = self.status.lock();
        seen.durable = Some(position);
        seen.n_changes += n_changes;
        seen.n_commits += 1;
        drop(seen);
        self.durable.send_replace(position);
        askers.tell();
        mulgil_disk::failpoint::here("capture.acknowledged");
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
