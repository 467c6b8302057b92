//! A supervisor over a scripted source and a real journal.

mod held;

use super::*;
use crate::config::parse;
use crate::pipeline::folder::Folder;
use crate::pipeline::plan::Plan;
use bytes::Bytes;
use mulgil_capture::change::{Askers, Change, Op, Origin, Place, Snapshot, What};
use mulgil_capture::datum::Datum;
use mulgil_capture::source::Next;
use mulgil_capture::table::{Column, Kind, Table, TableId};
use mulgil_log::{Log as _, Seek};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::time::AppendTime;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

const CONFIG: &str = "[source.db]\ntype = \"postgres\"\nurl = \"env:NONE\"\ntables = [\"public.t\"]";

/// What one opening gives before it fails, or waits for ever.
struct Script {
    /// The numbers of the changes of each batch; a change's number is its commit position.
    batches: VecDeque<Vec<u64>>,
    end: Option<SourceError>,
    link: Link,
    acknowledged: Arc<AtomicU64>,
}

impl Source for Script {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            self.acknowledged.fetch_max(self.link.durable.borrow().commit, Ordering::SeqCst);
            if let Some(numbers) = self.batches.pop_front() {
                return Ok(batch(&numbers));
            }
            // What was given before an error becomes durable all the same, and is acknowledged at the next opening.
            match self.end.take() {
                Some(error) => Err(error),
                None => loop {
                    self.link.durable.changed().await.map_err(|_| SourceError::retry("gone"))?;
                    self.acknowledged.fetch_max(self.link.durable.borrow().commit, Ordering::SeqCst);
                },
            }
        })
    }
}

fn batch(numbers: &[u64]) -> Batch {
    let column = |name: &str, kind, is_key: bool| Column { name: name.into(), kind, is_nullable: !is_key, is_key, native: "x".into() };
    let id = TableId { database: "d".into(), schema: "public".into(), table: "t".into() };
    let table = Arc::new(Table { id, version: 1, columns: vec![column("id", Kind::Int64, true), column("s", Kind::Text, false)] });
    let place = Place::Postgres { database: "d".into(), commit_lsn: 1, txid: Some(1) };
    let origin = Arc::new(Origin { committed_us: 1, snapshot: Snapshot::No, place });
    let change = |n: &u64| Change {
        op: Op::Create,
        what: What::Row {
            table: Arc::clone(&table),
            before: None,
            after: Some(vec![Datum::Int(*n as i64), Datum::Text(Bytes::from_static(b"a"))]),
        },
        position: Position::new(*n, 1),
        origin: Arc::clone(&origin),
    };
    let last = numbers.last().copied().unwrap();
    Batch {
        changes: numbers.iter().map(change).collect(),
        resume: Resume { position: Position::new(last, 1), notes: json!({ "at": last }) },
        askers: Askers::default(),
    }
}

struct World {
    folder: Folder,
    status: Arc<Status>,
    stop: Stop,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
    _dir: tempfile::TempDir,
}

/// Openings are given in turn: each how it goes on from where the log is, or the error that it fails with.
type Openings = Vec<Box<dyn Fn(u64) -> Result<(Vec<Vec<u64>>, Option<SourceError>), SourceError> + Send + Sync>>;

fn start(openings: Openings) -> World {
    let dir = tempfile::tempdir().unwrap();
    let mut config = parse(CONFIG).unwrap();
    config.log.dir = dir.path().to_owned();
    let plan = Plan::new(&config).unwrap();
    let clock: Clock = Arc::new(|| AppendTime(7));
    let folder = Folder::open(&config, &plan, &clock).unwrap();
    let writer = ChangeWriter::new(&config.captures[0], &config, &plan, &folder.schemas, folder.log()).unwrap();
    let (status, stop, acknowledged) = (Arc::new(Status::default()), Stop::default(), Arc::new(AtomicU64::new(0)));
    let (turn, seen) = (AtomicU64::new(0), Arc::clone(&acknowledged));
    let open: Open = Box::new(move |resume: Option<Resume>, link: Link| -> Opening {
        let turn = turn.fetch_add(1, Ordering::SeqCst) as usize;
        let from = resume.as_ref().map_or(0, |r| r.position.commit);
        assert_eq!(resume.map(|r| r.notes), (from > 0).then(|| json!({ "at": from })), "notes and position belong together");
        let opened = openings[turn.min(openings.len() - 1)](from);
        let acknowledged = Arc::clone(&seen);
        Box::pin(async move {
            let (batches, end) = opened?;
            Ok(Box::new(Script { batches: batches.into(), end, link, acknowledged }) as Box<dyn Source>)
        })
    });
    let supervisor = Supervisor {
        name: "db".to_owned(),
        open,
        notes: Arc::clone(&folder.notes),
        writer: Arc::new(Mutex::new(writer)),
        recent: Arc::clone(&folder.recent),
        clock,
        status: Arc::clone(&status),
    };
    let asked = stop.clone();
    let thread = std::thread::spawn(move || supervisor.run(&asked));
    World { folder, status, stop, acknowledged, thread, _dir: dir }
}

impl Status {
    /// As if it ran.
    pub(crate) fn test_running(&self, health: Health, requests: mpsc::Sender<SnapshotRequest>) {
        let mut seen = self.lock();
        (seen.state, seen.health, seen.requests) = (State::Running, health, Some(requests));
    }
}

impl World {
    fn n_records(&self) -> u64 {
        let at = TopicPartition::new(Topic::new("db.public.t").unwrap(), Partition(0));
        self.folder.journal.seek(&at, Seek::Next).unwrap().0
    }

    fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        mulgil_servers::wait_until(what, Duration::from_secs(60), || Ok(is_so(self))).unwrap();
    }

    fn end(self) -> Seen {
        self.stop.ask();
        self.thread.join().unwrap().unwrap();
        self.status.seen()
    }
}

#[test]
fn every_change_is_committed_once_across_errors_and_acknowledged_when_it_is_durable() {
    let world = start(vec![
        Box::new(|from| Ok((vec![vec![from + 1, from + 2], vec![from + 3]], Some(SourceError::retry("the connection was cut"))))),
        Box::new(|_| Err(SourceError::retry("the server is starting up"))),
        Box::new(|from| Ok(((from + 1..=10).map(|n| vec![n]).collect(), None))),
    ]);
    world.until("all are durable and acknowledged", |w| w.acknowledged.load(Ordering::SeqCst) == 10);
    assert_eq!(world.n_records(), 10);
    let seen = world.end();
    assert_eq!((seen.n_changes, seen.n_failures, seen.state), (10, 2, State::Stopped));
}

#[test]
fn a_source_that_needs_a_decision_waits_for_it_and_says_why() {
    let world = start(vec![Box::new(|_| Err(SourceError::refused("the slot is gone: drop it or begin anew")))]);
    world.until("it is refused", |w| w.status.seen().state == State::Refused);
    let detail = world.status.seen().detail;
    assert!(detail.starts_with("the slot is gone: drop it or begin anew (") && detail.contains("capture forget db"), "{detail}");
    world.end();
}

#[test]
fn a_place_that_was_captured_before_is_never_captured_again() {
    let world = start(vec![Box::new(|_| Ok((vec![vec![5], vec![4]], None)))]);
    world.until("it is refused", |w| w.status.seen().state == State::Refused);
    assert!(world.status.seen().detail.contains("captured before"), "{}", world.status.seen().detail);
    assert_eq!(world.n_records(), 1);
    world.end();
}

#[test]
fn requests_for_snapshots_reach_the_source_only_while_it_is_open() {
    let world = start(vec![Box::new(|_| Ok((vec![], None)))]);
    world.until("it runs", |w| w.status.requests().is_some());
    let status = Arc::clone(&world.status);
    world.end();
    assert!(status.requests().is_none());
}
