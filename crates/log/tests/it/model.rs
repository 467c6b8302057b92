//! Random commits, crashes, faults and restarts against the simplest model of a log: the list of all commits that were begun.
//!
//! What the journal must show is what the first so many of them say when they are carried out one after the other into a few vectors:
//! while it runs, those that are settled; after a crash, at least those that were durable, whole ones, in order, and none that was refused.
//!
//! It was tried on journals that were broken on purpose, and found each of them, after so many good cases: a commit may be begun although
//! one before it failed (8); the offsets of a failed group stay taken (at once, by an invariant); commits are not synced (1); a write that did
//! not fit is not cut off (1); a failed sync leaves no note for the next process (63); a position may be repeated (0).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mulgil_disk::{Crash, Fault as DiskFault, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;
use proptest::prelude::*;

use crate::harness::*;

const PARTITIONS: u32 = 4;
const OWNERS: u8 = 2;
const RETENTION_BYTES: u64 = 3_000;
const RETENTION_US: i64 = 5_000;

#[derive(Debug, Clone)]
enum Step {
    /// Rows by partition, number and size; positions by owner, partition and distance from what is stored.
    Begin {
        appends: Vec<(u32, u8, usize)>,
        progress: Vec<(u8, u32, i64)>,
    },
    /// For so many of the oldest tickets.
    Wait(usize),
    Read {
        partition: u32,
        from: f64,
        limit: ReadLimit,
    },
    /// A place between the first append and a little behind the last.
    SeekTime {
        partition: u32,
        place: f64,
    },
    Tick(i64),
    Flush,
    Close,
    Crash(Crash),
    Retain {
        floor_back: u64,
    },
    /// So little room from now on.
    Full(u64),
    Room,
    /// One of the next changes or reads goes wrong.
    FailChange(u64, DiskFault),
    FailRead(u64, DiskFault),
    /// Another process reads along.
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => Just(0), 10 => 1usize..40, 3 => 100usize..3_000, 1 => 60_000usize..140_000];
    let appends = prop::collection::vec((0..PARTITIONS, 0u8..5, size), 0..4);
    let progress = prop::collection::vec((0..OWNERS, 0..PARTITIONS, -2i64..6), 0..3);
    let crash = || prop_oneof![Just(Crash::DropUnsynced), Just(Crash::TearUnsynced), Just(Crash::KeepUnsynced)];
    let fail = || any::<bool>().prop_map(|half_done| DiskFault::Fail { half_done });
    let stop = (crash(), any::<bool>()).prop_map(|(how, half_done)| DiskFault::Crash { how, half_done });
    let limit = (prop_oneof![Just(0), 1usize..400, Just(1 << 20)], prop_oneof![Just(1usize), 2usize..9, Just(1000)])
        .prop_map(|(bytes, records)| ReadLimit { bytes, records });
    prop_oneof![
        30 => (appends, progress).prop_map(|(appends, progress)| Step::Begin { appends, progress }),
        12 => (1usize..6).prop_map(Step::Wait),
        8 => (0..PARTITIONS, 0.0..1.0, limit).prop_map(|(partition, from, limit)| Step::Read { partition, from, limit }),
        4 => (0..PARTITIONS, 0.0..1.1).prop_map(|(partition, place)| Step::SeekTime { partition, place }),
        4 => (0i64..1_000).prop_map(Step::Tick),
        2 => Just(Step::Flush),
        2 => Just(Step::Close),
        3 => crash().prop_map(Step::Crash),
        4 => (0u64..30).prop_map(|floor_back| Step::Retain { floor_back }),
        2 => (0u64..400).prop_map(Step::Full),
        4 => Just(Step::Room),
        3 => (0u64..12, prop_oneof![fail(), stop]).prop_map(|(nth, fault)| Step::FailChange(nth, fault)),
        2 => (0u64..4, prop_oneof![fail(), Just(DiskFault::Short)]).prop_map(|(nth, fault)| Step::FailRead(nth, fault)),
        2 => Just(Step::Look),
    ]
}

/// A commit as the model remembers it.
#[derive(Debug, Clone)]
struct Begun {
    rows: Vec<(u32, Vec<u8>)>,
    progress: Vec<(u8, u32, Position)>,
    append_us: i64,
}

/// What some number of commits amount to.
#[derive(Debug, Default)]
struct State<'a> {
    rows: BTreeMap<u32, Vec<(&'a [u8], i64)>>,
    progress: BTreeMap<(u8, u32), Position>,
}

impl State<'_> {
    fn next(&self, partition: u32) -> u64 {
        self.rows.get(&partition).map_or(0, Vec::len) as u64
    }
}

fn state(commits: &[Begun]) -> State<'_> {
    let mut state = State::default();
    for commit in commits {
        commit.rows.iter().for_each(|(partition, value)| state.rows.entry(*partition).or_default().push((value, commit.append_us)));
        state.progress.extend(commit.progress.iter().map(|(who, partition, position)| ((*who, *partition), *position)));
    }
    state
}

fn position(n: i64) -> Position {
    Position::new(n as u64 / 3, n as u64 % 3)
}

fn number(position: Position) -> i64 {
    (position.commit * 3 + position.ordinal) as i64
}

fn tp(partition: u32) -> TopicPartition {
    // Two topics, two partitions each.
    at(["a", "b"][partition as usize % 2], partition / 2)
}

fn who(n: u8) -> Owner {
    owner(&format!("source/{n}"))
}

struct Run {
    disk: MemDisk,
    hands: Hands,
    config: JournalConfig,
    journal: Option<Journal>,
    commits: Vec<Begun>,
    /// Of the last commits, the oldest first.
    tickets: VecDeque<Ticket>,
    /// Commits that no crash may take.
    n_safe: usize,
    /// The last commits, of which a failed journal did not say whether they happened.
    n_doubtful: usize,
    n_values: u64,
    now: i64,
    is_full: bool,
}

impl Run {
    fn new(seed: u64, durability: Durability) -> Self {
        let retention = Retention { time: Some(Duration::from_micros(RETENTION_US as u64)), bytes: Some(RETENTION_BYTES) };
        let config = JournalConfig {
            segment_bytes: 600,
            group_bytes: 4_000,
            index_cache_bytes: 100,
            open_segments: 3,
            retention,
            durability,
            ..config()
        };
        let (disk, hands) = (MemDisk::new(seed), Hands::default());
        let journal = Journal::open(config.clone(), Arc::new(disk.clone()), hands.clock()).unwrap().0;
        let (commits, tickets) = (Vec::new(), VecDeque::new());
        Self {
            disk,
            hands,
            config,
            journal: Some(journal),
            commits,
            tickets,
            n_safe: 0,
            n_doubtful: 0,
            n_values: 0,
            now: 0,
            is_full: false,
        }
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    /// How many commits readers see.
    fn n_visible(&self) -> usize {
        self.commits.len() - self.tickets.iter().filter(|ticket| !ticket.is_settled()).count()
    }

    fn begin(&mut self, appends: &[(u32, u8, usize)], progress: &[(u8, u32, i64)]) {
        let before = state(&self.commits);
        let (mut commit, mut begun) = (Commit::default(), Begun { rows: vec![], progress: vec![], append_us: 0 });
        let (mut bases, mut is_repeated) = (vec![], false);
        for (partition, n, size) in appends {
            let values: Vec<Vec<u8>> = (0..u64::from(*n)).map(|i| value(self.n_values + i, *size)).collect();
            self.n_values += u64::from(*n);
            bases.push(Offset(before.next(*partition) + begun.rows.iter().filter(|(p, _)| p == partition).count() as u64));
            commit.appends.push(Append { to: tp(*partition), records: rows(&values) });
            begun.rows.extend(values.into_iter().map(|value| (*partition, value)));
        }
        for (owner, partition, distance) in progress {
            let stored = before.progress.get(&(*owner, *partition)).copied();
            let here = begun.progress.iter().rev().find(|(o, p, _)| (o, p) == (owner, partition)).map(|(_, _, position)| *position);
            let new = position((stored.map_or(0, number) + distance).max(0));
            is_repeated |= here.or(stored).is_some_and(|stored| stored >= new);
            commit.progress.push(Advance { owner: who(*owner), partition: tp(*partition), position: new });
            begun.progress.push((*owner, *partition, new));
        }
        match self.journal().begin(commit) {
            Ok(ticket) => {
                assert!(!is_repeated);
                assert_eq!(ticket.committed().base_offsets, bases);
                begun.append_us = ticket.committed().append_time.micros();
                assert!(begun.append_us >= self.commits.last().map_or(0, |last| last.append_us));
                self.commits.push(begun);
                self.tickets.push_back(ticket);
            }
            Err(LogError::AlreadyCommitted { .. }) => assert!(is_repeated),
            Err(error) => self.failed(&error),
        }
    }

    /// Waits for the oldest tickets; a failed one fails all behind it.
    fn wait(&mut self, n: usize) {
        for _ in 0..n {
            let Some(ticket) = self.tickets.pop_front() else { return };
            if let Err(error) = ticket.wait() {
                // It and those behind it have not happened, or nobody knows.
                let n_before = self.commits.len() - self.tickets.len() - 1;
                self.tickets.drain(..).for_each(|ticket| assert!(ticket.wait().is_err(), "nothing behind a failed commit is committed"));
                if error.is_retriable() {
                    self.commits.truncate(n_before);
                }
                self.n_doubtful = self.commits.len() - n_before;
                return self.failed(&error);
            }
        }
    }

    fn failed(&mut self, error: &LogError) {
        match error {
            LogError::DiskFull { .. } => {
                assert!(self.is_full, "{error}");
                self.wait(usize::MAX);
            }
            LogError::Poisoned { .. } => {
                assert!(self.disk.n_struck() > 0, "{error}");
                self.reopen(Some(Crash::TearUnsynced));
            }
            other => panic!("{other}"),
        }
    }

    /// The process ends, in order unless the disk crashes first, and another one starts.
    fn reopen(&mut self, crash: Option<Crash>) {
        if let Some(how) = crash {
            self.disk.stop(how);
        }
        let struck = self.disk.n_struck();
        self.journal = None;
        let n_before = self.commits.len() - self.tickets.len() - std::mem::take(&mut self.n_doubtful);
        let answers: Vec<bool> = self.tickets.drain(..).map(|ticket| ticket.wait().is_ok()).collect();
        assert!(answers.is_sorted_by_key(|is_ok| !is_ok), "nothing behind a failed commit is committed");
        if crash.is_none() && self.disk.n_struck() == struck && !self.is_full {
            self.n_safe = self.commits.len();
        } else if self.config.durability == Durability::Fsync {
            self.n_safe = n_before + answers.iter().filter(|is_ok| **is_ok).count();
        }
        self.disk.restart();
        let mut struck = self.disk.n_struck();
        let journal = loop {
            match self.try_open() {
                Ok(journal) => break journal,
                Err(LogError::DiskFull { .. }) if self.is_full => {
                    self.set_room(None);
                    continue;
                }
                // A fault struck while it was opened, and the machine stops again.
                Err(error) => assert!(self.disk.n_struck() > struck || self.disk.is_down(), "{error}"),
            }
            struck = self.disk.n_struck();
            self.disk.stop(Crash::TearUnsynced);
            self.disk.restart();
        };
        self.disk.plan(|faults| faults.clear());
        self.journal = Some(journal);
        let fits = |k: &usize| self.is_state(self.journal(), &state(&self.commits[..*k]));
        let n_kept = (self.n_safe..=self.commits.len()).rev().find(fits).expect("whole commits, in order, all that were durable");
        self.commits.truncate(n_kept);
        self.n_safe = n_kept;
        self.check();
    }

    fn try_open(&self) -> LogResult<Journal> {
        Journal::open(self.config.clone(), Arc::new(self.disk.clone()), self.hands.clock()).map(|(journal, _)| journal)
    }

    fn is_state(&self, journal: &Journal, state: &State<'_>) -> bool {
        (0..PARTITIONS).all(|partition| {
            journal.seek(&tp(partition), Seek::Next).unwrap().0 == state.next(partition)
                && (0..OWNERS).all(|o| journal.progress(&who(o), &tp(partition)).unwrap() == state.progress.get(&(o, partition)).copied())
        })
    }

    fn check(&self) {
        let state = state(&self.commits[..self.n_visible()]);
        assert!(self.is_state(self.journal(), &state));
        (0..PARTITIONS).for_each(|partition| check_rows(self.journal(), partition, &state));
    }

    fn read(&self, partition: u32, from: f64, limit: ReadLimit) {
        let (struck, at) = (self.disk.n_struck(), tp(partition));
        let state = state(&self.commits[..self.n_visible()]);
        let (first, next) = (self.journal().seek(&at, Seek::First).unwrap().0, state.next(partition));
        let from = (next as f64 * from * 1.1) as u64;
        match self.journal().read(&at, Offset(from), limit) {
            Ok(chunk) => {
                let rows = state.rows.get(&partition).map_or(&[][..], Vec::as_slice);
                let seen: Vec<_> = chunk.iter().map(|r| (r.value, r.append_time.micros())).collect();
                assert_eq!(seen, rows[from as usize..from as usize + chunk.len()]);
                assert!(chunk.len() <= limit.records && (chunk.size_bytes() <= limit.bytes || chunk.len() == 1));
                assert!(!chunk.is_empty() || from == next, "empty only at the end");
                assert_eq!(chunk.next_offset().0, from + chunk.len() as u64);
            }
            Err(LogError::AheadOfLog { .. }) => assert!(from > next),
            Err(LogError::BelowRetention { .. }) => assert!(from < first),
            Err(error) => assert!(self.disk.n_struck() > struck, "{error}"),
        }
    }

    fn seek_time(&self, partition: u32, place: f64) {
        let (struck, at) = (self.disk.n_struck(), tp(partition));
        let us = (self.now as f64 * place) as i64;
        let state = state(&self.commits[..self.n_visible()]);
        let rows = state.rows.get(&partition).map_or(&[][..], Vec::as_slice);
        match self.journal().seek(&at, Seek::AppendedAt(AppendTime::from_micros(us))) {
            Ok(found) => {
                let first = self.journal().seek(&at, Seek::First).unwrap().0;
                assert_eq!(found.0, (rows.partition_point(|(_, time)| *time < us) as u64).max(first));
            }
            Err(error) => assert!(self.disk.n_struck() > struck, "{error}"),
        }
    }

    fn retain(&mut self, floor_back: u64) {
        let (struck, before, now) = (self.disk.n_struck(), self.firsts(), self.now);
        let bytes_before = self.journal().stats().journal_bytes;
        let state = state(&self.commits[..self.n_visible()]);
        let floor = |at: &TopicPartition| {
            let partition = (0..PARTITIONS).find(|p| tp(*p) == *at).unwrap();
            Offset(state.next(partition).saturating_sub(floor_back))
        };
        if let Err(error) = self.journal().retain(&floor) {
            assert!(self.disk.n_struck() > struck, "{error}");
            return;
        }
        let is_old = |rows: &Vec<(&[u8], i64)>, first: u64| rows.get(first as usize).is_some_and(|(_, time)| now - time >= RETENTION_US);
        for (partition, (before, after)) in before.into_iter().zip(self.firsts()).enumerate() {
            let partition = partition as u32;
            assert!(before <= after && after <= floor(&tp(partition)).0.max(before), "only below the floor, and nothing comes back");
            let was_due = bytes_before > RETENTION_BYTES || state.rows.get(&partition).is_some_and(|rows| is_old(rows, before));
            assert!(after == before || was_due);
        }
    }

    fn firsts(&self) -> Vec<u64> {
        (0..PARTITIONS).map(|partition| self.journal().seek(&tp(partition), Seek::First).unwrap().0).collect()
    }

    /// Another process may see more than is durable, but only whole commits, in order.
    fn look(&self) {
        let struck = self.disk.n_struck();
        match Journal::open_read_only(self.config.clone(), Arc::new(self.disk.clone()), self.hands.clock()) {
            Ok((looker, _)) => {
                let fits = |k: &usize| self.is_state(&looker, &state(&self.commits[..*k]));
                let k = (self.n_visible()..=self.commits.len()).find(fits).expect("all that is settled");
                self.disk.plan(|faults| faults.clear());
                (0..PARTITIONS).for_each(|partition| check_rows(&looker, partition, &state(&self.commits[..k])));
            }
            Err(error) => assert!(self.disk.n_struck() > struck, "{error}"),
        }
    }

    fn set_room(&mut self, room: Option<u64>) {
        self.disk.set_capacity(room.map(|room| self.disk.used_bytes() + room));
        self.is_full = room.is_some();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Begin { appends, progress } => self.begin(&appends, &progress),
            Step::Wait(n) => self.wait(n),
            Step::Read { partition, from, limit } => self.read(partition, from, limit),
            Step::SeekTime { partition, place } => self.seek_time(partition, place),
            Step::Tick(us) => {
                self.now += us;
                self.hands.set(self.now);
            }
            Step::Flush => match self.journal().flush() {
                Ok(()) => self.n_safe = self.commits.len(),
                Err(error) => {
                    self.wait(usize::MAX);
                    if !error.is_retriable() {
                        self.failed(&error);
                    }
                }
            },
            Step::Close => self.reopen(None),
            Step::Crash(how) => self.reopen(Some(how)),
            Step::Retain { floor_back } => self.retain(floor_back),
            Step::Full(room) => self.set_room(Some(room)),
            Step::Room => self.set_room(None),
            Step::FailChange(nth, fault) => self.disk.plan(|faults| faults.at_change(nth, fault)),
            Step::FailRead(nth, fault) => self.disk.plan(|faults| faults.at_read(nth, fault)),
            Step::Look => self.look(),
        }
        if self.disk.is_down() || self.journal().stats().poisoned.is_some() {
            self.reopen(Some(Crash::KeepUnsynced));
        }
        if self.config.durability == Durability::Fsync {
            self.n_safe = self.n_visible();
        }
    }
}

fn check_rows(journal: &Journal, partition: u32, state: &State<'_>) {
    let first = journal.seek(&tp(partition), Seek::First).unwrap();
    let chunk = journal.read(&tp(partition), first, ReadLimit::records(usize::MAX)).unwrap();
    let seen: Vec<_> = chunk.iter().map(|r| (r.value, r.append_time.micros())).collect();
    assert_eq!(seen, state.rows.get(&partition).map_or(&[][..], |rows| &rows[first.0 as usize..]));
}

/// Distinct values, as far as the size allows.
fn value(n: u64, size: usize) -> Vec<u8> {
    n.to_le_bytes().into_iter().cycle().take(size).collect()
}

fn run(seed: u64, durability: Durability, steps: Vec<Step>) {
    let mut run = Run::new(seed, durability);
    for step in steps {
        run.step(step);
    }
    run.set_room(None);
    run.disk.plan(|faults| faults.clear());
    run.wait(usize::MAX);
    run.check();
    let verified = run.journal().verify(&mut |_| {}).unwrap();
    assert_eq!((verified.damage, verified.torn), (vec![], None));
    run.reopen(None);
}

/// A long run is `PROPTEST_CASES=20000 cargo test -p mulgil-log model`.
fn n_cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: n_cases(), failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_is_a_list_of_commits(seed in any::<u64>(), relaxed in prop::bool::weighted(0.2), steps in prop::collection::vec(step(), 1..80)) {
        let durability = if relaxed { Durability::Relaxed { flush_every: Duration::from_micros(700) } } else { Durability::Fsync };
        run(seed, durability, steps);
    }
}
