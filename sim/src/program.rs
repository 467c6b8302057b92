//! One life of the program: opened on the simulated disk as the binary opens it on the real one, but with nobody to run its parts. Each
//! part is a step that the world takes when it likes.

use crate::hands::Hands;
use crate::scenario::{DATA, Scenario};
use crate::store::DiskEntries;
use anyhow::{Context, Result};
use mulgil::adapters::feed::LogFeed;
use mulgil::adapters::ingest::LogIngest;
use mulgil::config::checked::Checked;
use mulgil::pipeline::archive::Archivist;
use mulgil::pipeline::folder::Folder;
use mulgil::pipeline::plan::Plan;
use mulgil::pipeline::running::{RunOptions, Shards, deal, lowest_needed, open_shards, wanted_rules};
use mulgil::pipeline::state::StateFolder;
use mulgil::pipeline::worker::Worker;
use mulgil_disk::{Crash, Disk, MemDisk};
use mulgil_log::{Log, Watch};
use mulgil_model::ids::Topic;
use mulgil_serve::live::hub::Hub;
use mulgil_serve::live::scan::Turn;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::time::Instant;

/// Small, so that slow viewers fall out of it.
const RING_BYTES: usize = 20_000;

pub struct Program {
    pub config: Checked,
    pub plan: Plan,
    pub folder: Arc<Folder>,
    pub ingest: LogIngest,
    pub hub: Hub,
    /// None: it has failed, and its thread with it.
    workers: Vec<Option<Worker>>,
    archivist: Archivist,
    shards: Shards,
    decided: Vec<(Topic, Topic)>,
    finish_below: Arc<AtomicU32>,
    hands: Hands,
    watch: Watch,
    tick: u64,
    /// When the next viewer pulls.
    turn: Instant,
}

impl Program {
    pub fn start(disk: &MemDisk, scenario: &Scenario, hands: &Hands) -> Result<Self> {
        let (config, clock) = (scenario.config()?, hands.clock());
        let plan = Plan::new(&config)?;
        let state = || Ok(StateFolder::over(Arc::new(DiskEntries::open(disk, &Path::new(DATA).join("state"))?)));
        let identity = || format!("{:032x}", scenario.seed);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let folder = Arc::new(Folder::open_on(shared, state, identity, &config, &plan, &clock)?);
        let options = RunOptions { workers: scenario.workers, batch_rows: scenario.batch_rows, never_idle: false };
        let wanted = wanted_rules(&config, &plan)?;
        let (held, shards) = open_shards(&config, &plan, &folder, &options, &wanted)?;
        let finish_below = Arc::new(AtomicU32::new(0));
        let hand = |held| Worker::new(folder.log(), held, Arc::clone(&finish_below));
        let workers = deal(held, options.workers).into_iter().map(hand).map(Some).collect();
        let archivist = Archivist::new(folder.log(), Arc::clone(&folder.history), folder.readers.clone());
        let ingest = LogIngest::new(&config, &plan, &folder, clock())?;
        // Viewers ask for the tick themselves.
        let (_, changed) = tokio::sync::watch::channel(0);
        let feed = LogFeed::new(&folder, &config, changed)?;
        let hub = Hub::new(Arc::new(feed), RING_BYTES);
        let decided = plan.shards.iter().map(|s| (s.input.stream.clone(), s.decisions.clone())).collect();
        let watch = folder.journal.watch();
        let hands = hands.clone();
        Ok(Self {
            config,
            plan,
            folder,
            ingest,
            hub,
            workers,
            archivist,
            shards,
            decided,
            finish_below,
            hands,
            watch,
            tick: 0,
            turn: Instant::now(),
        })
    }

    pub fn n_workers(&self) -> usize {
        self.workers.len()
    }

    pub fn work(&mut self, worker: usize) -> Result<bool> {
        let Some(running) = &mut self.workers[worker] else { return Ok(false) };
        let stepped = running.step(self.hands.now());
        if stepped.is_err() {
            self.workers[worker] = None;
        }
        stepped.with_context(|| format!("shards-{worker} failed"))
    }

    pub fn archive(&mut self) -> Result<usize> {
        self.archivist.step().context("history failed")
    }

    pub fn flush_history(&mut self) -> Result<()> {
        self.folder.history.flush_due((self.hands.clock())()).context("writing history").map(drop)
    }

    pub fn merge_history(&mut self) -> Result<()> {
        self.folder.history.compact().context("merging history files")?;
        self.folder.history.retain((self.hands.clock())()).context("dropping old history").map(drop)
    }

    /// The log drops what is old and covered.
    pub fn retain(&mut self) -> Result<usize> {
        let floor = |at: &_| lowest_needed(at, &self.folder, &self.decided, &self.shards, self.folder.schemas_from);
        Ok(self.folder.journal.retain(&floor).context("cannot drop old rows from the log")?.n_segments)
    }

    /// The journal takes nothing any more.
    pub fn has_stopped(&self) -> bool {
        self.folder.journal.stats().poisoned.is_some()
    }

    /// Another number after commits.
    pub fn tick(&mut self) -> u64 {
        self.tick += u64::from(self.watch.wait(std::time::Duration::ZERO));
        self.tick
    }

    /// A viewer's turn at the log, so long after the one before it that those who vanish are noticed.
    pub fn turn(&mut self) -> Turn {
        self.turn += std::time::Duration::from_millis(50);
        Turn { tick: self.tick(), now: self.turn, is_held: false }
    }

    /// Has shards below this level close their windows once they have read everything.
    pub fn finish_below(&self, level: u32) {
        self.finish_below.store(level, Ordering::Release);
    }

    pub fn levels(&self) -> u32 {
        self.plan.shards.iter().map(|s| s.level + 1).max().unwrap_or(0)
    }

    /// Ends as the binary does when it is told to, or when one of its parts has failed: in order, as far as that goes.
    pub fn end(self) -> Result<()> {
        let Self { folder, workers, archivist, ingest, hub, .. } = self;
        let closed: Vec<Result<()>> = workers.into_iter().flatten().map(Worker::close).collect();
        let flushed = folder.history.flush().context("writing history");
        let synced = folder.journal.flush().context("cannot flush the log");
        drop((archivist, ingest, hub, folder));
        closed.into_iter().collect::<Result<()>>()?;
        flushed?;
        synced
    }

    /// Ends at once: nothing that its parts would still do on their way out reaches the disk.
    pub fn kill(self, disk: &MemDisk, how: Crash) {
        if !disk.is_down() {
            disk.stop(how);
        }
        drop(self);
    }
}
