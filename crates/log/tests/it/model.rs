//! Random commits, refusals, crashes and restarts against a few vectors that do the same in the simplest way.

use std::collections::HashMap;
use std::sync::Arc;

use mulgil_disk::{Crash, MemDisk};
use mulgil_log::*;
use mulgil_model::ids::{Offset, TopicPartition};
use mulgil_model::position::Position;
use mulgil_model::time::AppendTime;
use proptest::prelude::*;

use crate::harness::*;

#[derive(Debug, Clone)]
enum Step {
    Commit { appends: Vec<(u32, u8)>, progress: Vec<(u8, u32, u64)> },
    Crash(Crash),
    Close,
    Retain { floor_back: u64 },
    Full { room: u64 },
    Tick(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let appends = prop::collection::vec((0u32..3, 0u8..5), 0..4);
    let progress = prop::collection::vec((0u8..2, 0u32..3, 1u64..60), 0..2);
    let crash = prop_oneof![Just(Crash::DropUnsynced), Just(Crash::TearUnsynced), Just(Crash::KeepUnsynced)];
    prop_oneof![
        12 => (appends, progress).prop_map(|(appends, progress)| Step::Commit { appends, progress }),
        2 => crash.prop_map(Step::Crash),
        1 => Just(Step::Close),
        1 => (0u64..40).prop_map(|floor_back| Step::Retain { floor_back }),
        1 => (0u64..300).prop_map(|room| Step::Full { room }),
        2 => (0i64..1_000).prop_map(Step::Tick),
    ]
}

/// The journal's whole behaviour, in the fewest words.
#[derive(Default)]
struct Model {
    rows: HashMap<u32, Vec<(String, i64)>>,
    progress: HashMap<(u8, u32), u64>,
    n_values: u64,
    now: i64,
}

impl Model {
    /// The commit, and whether it will be refused.
    fn commit(&mut self, appends: &[(u32, u8)], progress: &[(u8, u32, u64)]) -> (Commit, bool) {
        let mut commit = Commit::default();
        for (partition, n) in appends {
            let values: Vec<_> = (0..*n).map(|i| format!("{}.{i}", self.n_values)).collect();
            self.n_values += 1;
            commit.appends.push(Append { to: at("t", *partition), records: rows(&values) });
        }
        for (who, partition, n) in progress {
            commit.progress.push(advance(&owner(&format!("o{who}")), &at("t", *partition), *n));
        }
        let refused = progress.iter().any(|(who, p, n)| self.progress.get(&(*who, *p)).is_some_and(|stored| stored >= n));
        (commit, refused)
    }

    fn apply(&mut self, commit: &Commit, committed: &Committed) {
        for (append, base) in commit.appends.iter().zip(&committed.base_offsets) {
            let rows = self.rows.entry(append.to.partition.0).or_default();
            assert_eq!(base.0, rows.len() as u64);
            // The records are opaque here; their values were made from the counter above.
            let decoded = decode(&append.records);
            rows.extend(decoded.into_iter().map(|value| (value, committed.append_time.micros())));
        }
        for advance in &commit.progress {
            let who = advance.owner.as_str().as_bytes()[1] - b'0';
            self.progress.insert((who, advance.partition.partition.0), advance.position.commit);
        }
    }

    fn check(&self, journal: &Journal) {
        for partition in 0..3 {
            let tp = at("t", partition);
            let rows = self.rows.get(&partition).map_or(&[][..], Vec::as_slice);
            let first = journal.seek(&tp, Seek::First).unwrap();
            assert_eq!(journal.seek(&tp, Seek::Next).unwrap().0, rows.len() as u64);
            let chunk = journal.read(&tp, first, ReadLimit::records(usize::MAX)).unwrap();
            let seen: Vec<_> = chunk.iter().map(|r| (String::from_utf8_lossy(r.value).into_owned(), r.append_time.micros())).collect();
            assert_eq!(seen, rows[first.0 as usize..]);
            for who in 0..2 {
                let stored = journal.progress(&owner(&format!("o{who}")), &tp).unwrap();
                assert_eq!(stored, self.progress.get(&(who, partition)).map(|n| Position::new(*n, 0)));
            }
            self.check_times(journal, &tp, rows, first);
        }
    }

    fn check_times(&self, journal: &Journal, tp: &TopicPartition, rows: &[(String, i64)], first: Offset) {
        for us in [0, self.now / 2, self.now, self.now + 1] {
            let want = rows.partition_point(|(_, time)| *time < us).max(first.0 as usize);
            assert_eq!(journal.seek(tp, Seek::AppendedAt(AppendTime::from_micros(us))).unwrap().0 as usize, want);
        }
    }
}

fn decode(records: &Records) -> Vec<String> {
    let (journal, _) = open(&MemDisk::new(0));
    journal.commit(Commit { appends: vec![Append { to: at("x", 0), records: records.clone() }], progress: vec![] }).unwrap();
    values(&journal, &at("x", 0))
}

fn run(seed: u64, steps: Vec<Step>) {
    let (disk, hands, mut model) = (MemDisk::new(seed), Hands::default(), Model::default());
    let retention = Retention { time: None, bytes: Some(1_500) };
    let config = JournalConfig { segment_bytes: 400, index_cache_bytes: 100, retention, ..config() };
    let open = || Journal::open(config.clone(), Arc::new(disk.clone()), hands.clock()).unwrap().0;
    let mut journal = open();
    for step in steps {
        match step {
            Step::Commit { appends, progress } => {
                let (commit, refused) = model.commit(&appends, &progress);
                match journal.commit(commit.clone()) {
                    Ok(committed) => {
                        assert!(!refused);
                        model.apply(&commit, &committed);
                    }
                    Err(LogError::AlreadyCommitted { .. }) => assert!(refused),
                    Err(other) => panic!("{other}"),
                }
                continue;
            }
            Step::Crash(how) => {
                disk.crash(how);
                drop(journal);
                journal = open();
            }
            Step::Close => {
                drop(journal);
                journal = open();
            }
            Step::Retain { floor_back } => {
                let floor = |tp: &TopicPartition| Offset(model.rows[&tp.partition.0].len() as u64).0.saturating_sub(floor_back);
                let first = |partition: u32| journal.seek(&at("t", partition), Seek::First).unwrap().0;
                let before: Vec<_> = (0..3).map(first).collect();
                journal.retain(&|tp| Offset(floor(tp))).unwrap();
                for partition in model.rows.keys().copied() {
                    // A lower floor than last time brings nothing back.
                    let protected = floor(&at("t", partition)).max(before[partition as usize]);
                    assert!(first(partition) <= protected);
                }
            }
            Step::Full { room } => {
                disk.set_capacity(Some(disk.used_bytes() + room));
                let commit = append(&at("t", 0), &[vec![b'x'; 400]]);
                assert!(journal.commit(commit).unwrap_err().is_retriable());
                disk.set_capacity(None);
            }
            Step::Tick(us) => {
                model.now += us;
                hands.set(model.now);
                continue;
            }
        }
        model.check(&journal);
    }
    model.check(&journal);
    let verified = journal.verify(&mut |_| {}).unwrap();
    assert_eq!((verified.damage, verified.torn), (vec![], None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn committed_is_kept_once_and_refused_stays_refused(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..80)) {
        run(seed, steps);
    }
}
