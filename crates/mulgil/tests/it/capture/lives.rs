//! Lives of mulgil that end at random moments or at failpoints, while clients write and the server dies now and then.

use super::World;
use super::database::{Database, Dialect};
use super::workload;
use crate::program::{journal_bytes, mulgil, text, until};
use mulgil::failpoint::VARIABLE;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Where the process ends itself, as told by its exit status.
const SIGABRT: i32 = 6;

/// A failpoint that is not reached for so long is tried again in a later life; the process is killed all the same.
const FAILPOINT_WITHIN: Duration = Duration::from_secs(5);

/// For the first commit of a life, then it ends whether there was one or not.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// Those that work at a time.
const CLIENTS: u64 = 2;

/// From one script of a client to its next: the log is read to its end when all is over.
const SCRIPTS_APART_MS: std::ops::Range<u64> = 20..80;

/// How a life ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Failpoint(&'static str),
    /// Some time after its first commit.
    Committing,
    /// Some time after its start.
    Anytime,
    /// The server is killed and comes back; then mulgil, once it has committed again.
    Server,
}

pub struct Lives<'a> {
    world: &'a World,
    database: &'a RwLock<Database>,
    random: StdRng,
    pub n_kills: u64,
    pub fired: BTreeMap<&'static str, u64>,
}

impl<'a> Lives<'a> {
    pub fn new(world: &'a World, database: &'a RwLock<Database>, seed: u64) -> Self {
        Self { world, database, random: StdRng::seed_from_u64(seed), n_kills: 0, fired: BTreeMap::new() }
    }

    /// One life.
    pub fn live(&mut self, end: End) {
        match end {
            End::Failpoint(name) => {
                let nth = self.random.random_range(1..4);
                self.live_to(name, nth);
            }
            End::Committing => {
                self.n_kills += 1;
                let mut child = self.start(None);
                self.until_commit(&mut child);
                self.pause(0..200);
                self.bury(child);
            }
            End::Anytime => {
                self.n_kills += 1;
                let child = self.start(None);
                self.pause(0..1_200);
                self.bury(child);
            }
            End::Server => {
                self.n_kills += 2;
                let mut child = self.start(None);
                self.until_commit(&mut child);
                self.pause(0..100);
                let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
                database.server().kill_hard().unwrap();
                database.server().restart().unwrap();
                // Nobody works but what is prepared, of clients that are gone.
                end_prepared(&database);
                drop(database);
                self.until_commit(&mut child);
                self.bury(child);
            }
        }
    }

    /// A life that ends at a failpoint, or is ended when that is not reached.
    pub fn live_to(&mut self, name: &'static str, nth: u64) {
        self.n_kills += 1;
        let mut child = self.start(Some(format!("{name}:{nth}")));
        let began = Instant::now();
        let status = until("the failpoint", || match child.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => (began.elapsed() > FAILPOINT_WITHIN).then_some(None),
        });
        match status {
            Some(status) => {
                assert_eq!(status.signal(), Some(SIGABRT), "{name}:{nth} ended with {status}:\n{}", self.said());
                *self.fired.entry(name).or_default() += 1;
            }
            None => self.bury(child),
        }
    }

    fn start(&self, failpoint: Option<String>) -> Child {
        let mut command = mulgil();
        command.args(["run", "-c", text(&self.world.config), "--data", text(&self.world.data()), "--bind", "127.0.0.1:0"]);
        command.env("DATABASE_URL", &self.world.url).envs(failpoint.map(|f| (VARIABLE, f)));
        let said = std::fs::File::create(self.world.dir.path().join("said")).unwrap();
        command.stdout(Stdio::null()).stderr(said).spawn().unwrap()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.world.dir.path().join("said")).unwrap_or_default()
    }

    /// Until the log has grown.
    fn until_commit(&self, child: &mut Child) {
        let (before, began) = (journal_bytes(&self.world.data()), Instant::now());
        until("a commit", || {
            assert!(child.try_wait().unwrap().is_none(), "mulgil ended by itself:\n{}", self.said());
            (journal_bytes(&self.world.data()) > before || began.elapsed() > COMMIT_WITHIN).then_some(())
        });
    }

    fn pause(&mut self, ms: std::ops::Range<u64>) {
        std::thread::park_timeout(Duration::from_millis(self.random.random_range(ms)));
    }

    /// kill -9
    fn bury(&self, mut child: Child) {
        if let Some(status) = child.try_wait().unwrap() {
            panic!("mulgil ended by itself with {status}:\n{}", self.said());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Clients that run scripts until `enough` is true. A script that the server's death cut off may have happened or not.
pub struct Clients<'a> {
    pub database: &'a RwLock<Database>,
    pub enough: AtomicBool,
    pub n_scripts: AtomicU64,
    pub n_failed: AtomicU64,
}

impl<'a> Clients<'a> {
    pub fn new(database: &'a RwLock<Database>) -> Self {
        Self { database, enough: AtomicBool::new(false), n_scripts: AtomicU64::new(0), n_failed: AtomicU64::new(0) }
    }

    /// Some of them work while `body` runs.
    pub fn at_work(&self, seed: u64, script: fn(Dialect, &mut StdRng) -> String, body: impl FnOnce()) {
        std::thread::scope(|scope| {
            let _enough = Enough(self);
            for client in 0..CLIENTS {
                scope.spawn(move || self.work(seed + 1 + client, script));
            }
            body();
        });
    }

    fn work(&self, seed: u64, script: fn(Dialect, &mut StdRng) -> String) {
        let mut random = StdRng::seed_from_u64(seed);
        while !self.enough.load(Ordering::SeqCst) {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let script = script(database.dialect(), &mut random);
            let mut client = database.client(&script);
            // Without it the server may be killed under the client.
            let unharmed = workload::must_end_unharmed(database.dialect(), &script).then_some(database);
            let is_done = client.output().unwrap().status.success();
            drop(unharmed);
            let counter = if is_done { &self.n_scripts } else { &self.n_failed };
            counter.fetch_add(1, Ordering::SeqCst);
            std::thread::park_timeout(Duration::from_millis(random.random_range(SCRIPTS_APART_MS)));
        }
    }
}

/// Has the clients end their work, also when the test fails.
struct Enough<'a>(&'a Clients<'a>);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::SeqCst);
    }
}

/// `MULGIL_KILLS_SEED=n` repeats a run, as far as the machine does.
pub fn seed() -> u64 {
    let seed = number("MULGIL_KILLS_SEED").unwrap_or(u64::from(std::process::id()));
    eprintln!("MULGIL_KILLS_SEED={seed}");
    seed
}

/// `MULGIL_CAPTURE_KILLS=n` kills more often, or less often while working on a test.
pub fn n_lives(default: u64) -> u64 {
    number("MULGIL_CAPTURE_KILLS").unwrap_or(default)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Settles both tables of the workload and marks their end.
pub fn finish(database: &Database) {
    end_prepared(database);
    for table in workload::TABLES {
        database.sql(&workload::last_script(table)).unwrap();
    }
}

fn end_prepared(database: &Database) {
    let dialect = database.dialect();
    let listed = database.sql(workload::list_prepared(dialect)).unwrap();
    database.sql(&workload::rollback_prepared(dialect, &listed)).unwrap();
}
