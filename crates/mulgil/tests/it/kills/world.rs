//! A data folder whose server is started and killed again and again, at random moments and at failpoints.

use super::clients::Outside;
use crate::program::{file, mulgil, ok, text, until};
use mulgil::failpoint::VARIABLE;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Where the process ends itself, as told by its exit status.
const SIGABRT: i32 = 6;

/// A failpoint that is not reached for so long is tried again later; the process is killed all the same.
const FAILPOINT_WITHIN: Duration = Duration::from_secs(6);

/// The same for a later visit, after the first has been seen to work: any moment is as good.
const LATER_VISIT_WITHIN: Duration = Duration::from_millis(1_500);

/// Times that a failpoint is tried before it counts as one that nothing reaches.
const TRIES_MAX: usize = 8;

pub struct World {
    dir: tempfile::TempDir,
    pub config: PathBuf,
    pub data: PathBuf,
    pub trades: PathBuf,
    pub outside: Arc<Outside>,
    pub kills: u32,
    /// Kills before the server was ready: during recovery, for the most part.
    pub kills_early: u32,
    pub fired: BTreeMap<&'static str, u32>,
    rng: ChaCha8Rng,
    /// How long the last starts took: random moments lie before and after.
    start_takes: Duration,
}

/// How the server is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Run,
    /// A replay that serves meanwhile, with the simulator on.
    Replay,
}

impl World {
    /// `file_rows` trades are replayed meanwhile, as far as they get.
    pub fn new(config: &str, seed: u64, file_rows: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trades = dir.path().join("trades.ndjson");
        ok(&[
            "simulate",
            "--rows",
            &file_rows.to_string(),
            "--seed",
            "42",
            "--rate",
            "0.2",
            "--anomaly-share",
            "0.01",
            "--out",
            text(&trades),
        ]);
        Self {
            config: file(dir.path(), "mulgil.toml", config),
            data: dir.path().join("data"),
            trades,
            outside: Arc::default(),
            kills: 0,
            kills_early: 0,
            fired: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            start_takes: Duration::from_millis(400),
            dir,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Kills `n` times: every second time at a failpoint, each of `names` at least once.
    pub fn kill(&mut self, n: u32, names: &[&'static str]) {
        let mut wanted: VecDeque<&'static str> = names.iter().copied().collect();
        let mut tries: BTreeMap<&'static str, usize> = BTreeMap::new();
        while self.kills < n || !wanted.is_empty() {
            if self.kills % 2 == 1 && self.kills < n {
                let moment = self.start_takes.mul_f64(self.rng.random_range(0.05..2.5));
                self.live_until(moment);
                continue;
            }
            let (name, nth) = match wanted.pop_front() {
                Some(name) => (name, 1),
                None => (names[self.rng.random_range(0..names.len())], self.rng.random_range(1..12)),
            };
            // A torn tail is cut off by the next start.
            let fired =
                if name == "log.tail-cut" { self.live_to("log.torn-write", nth) && self.live_to(name, 1) } else { self.live_to(name, nth) };
            if !fired && nth == 1 && !self.fired.contains_key(name) {
                let tried = tries.entry(name).or_default();
                *tried += 1;
                assert!(*tried < TRIES_MAX, "the failpoint {name} was not reached in {tried} lives of {FAILPOINT_WITHIN:?}");
                wanted.push_back(name);
            }
        }
    }

    /// A life that ends at a moment after its beginning.
    fn live_until(&mut self, moment: Duration) {
        let way = self.way();
        let (mut child, life) = self.start(way, None);
        until("the moment of the kill", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("a {way:?} ended by itself with {status}:\n{}", life.said());
            }
            (life.began.elapsed() >= moment).then_some(())
        });
        child.kill().unwrap();
        self.buried(&mut child, &life);
    }

    /// A life that ends at a failpoint; false when it was not reached.
    fn live_to(&mut self, name: &'static str, nth: u64) -> bool {
        let way = if name.starts_with("replay.") { Way::Replay } else { self.way() };
        let (mut child, life) = self.start(way, Some(format!("{name}:{nth}")));
        let within = if nth == 1 { FAILPOINT_WITHIN } else { LATER_VISIT_WITHIN };
        let status = until("the failpoint to be reached", || match child.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => (life.began.elapsed() >= within).then_some(None),
        });
        match status {
            Some(status) => {
                assert_eq!(status.signal(), Some(SIGABRT), "a {way:?} with {name}:{nth} ended with {status}:\n{}", life.said());
                *self.fired.entry(name).or_default() += 1;
            }
            None => child.kill().unwrap(),
        }
        self.buried(&mut child, &life);
        status.is_some()
    }

    fn way(&mut self) -> Way {
        if self.rng.random_bool(0.5) { Way::Run } else { Way::Replay }
    }

    fn buried(&mut self, child: &mut Child, life: &Life) {
        child.wait().unwrap();
        *self.outside.url.lock().unwrap() = None;
        let ready_after = *life.ready_after.lock().unwrap();
        self.kills += 1;
        self.kills_early += u32::from(ready_after.is_none());
        if let Some(took) = ready_after {
            self.start_takes = (self.start_takes * 3 + took) / 4;
        }
    }

    fn start(&self, way: Way, failpoint: Option<String>) -> (Child, Life) {
        let mut command = mulgil();
        match way {
            Way::Run => command.arg("run"),
            Way::Replay => command.args(["replay", text(&self.trades), "-s", "trades", "--serve", "--speed", "1500"]),
        };
        command.args(["-c", text(&self.config), "--data", text(&self.data)]);
        if let Some(failpoint) = &failpoint {
            command.env(VARIABLE, failpoint);
        }
        let began = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let life = Life { began, said: Arc::default(), ready_after: Arc::default() };
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (said, ready_after, outside) = (Arc::clone(&life.said), Arc::clone(&life.ready_after), Arc::clone(&self.outside));
        std::thread::spawn(move || {
            for line in lines {
                if let Some(url) = line.trim().strip_prefix("live page") {
                    let url = url.trim().trim_end_matches('/').to_owned();
                    *ready_after.lock().unwrap() = Some(began.elapsed());
                    turn_simulator_on(&url);
                    *outside.url.lock().unwrap() = Some(url);
                }
                said.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        (child, life)
    }
}

/// One process, from its start to its end.
struct Life {
    began: Instant,
    said: Arc<Mutex<String>>,
    ready_after: Arc<Mutex<Option<Duration>>>,
}

impl Life {
    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

/// As far as the server lives long enough to hear it.
fn turn_simulator_on(url: &str) {
    let address = url.trim_start_matches("http://");
    let head = format!("POST /api/v1/stock/generate HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    if let Ok(mut socket) = std::net::TcpStream::connect(address) {
        socket.write_all(head.as_bytes()).ok();
    }
}
