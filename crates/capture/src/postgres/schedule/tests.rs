//! An hour of an idle database, in no time: the schedule and the decoder against a server that is played.

use super::*;
use crate::postgres::decoder::{Asks, Bounds, Decoder, HEARTBEAT, Reached};
use crate::postgres::shapes::Shapes;
use crate::postgres::streams::{Spill, Streams};
use bytes::{BufMut, Bytes, BytesMut};
use mulgil_disk::MemDisk;
use mulgil_model::position::Position;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What other databases of the server write.
const OTHERS_BYTES_PER_SECOND: u64 = 16_384;
const HOUR: Duration = Duration::from_secs(3_600);
const SILENCE: Duration = Duration::from_secs(60);
/// From reading a batch to its being durable.
const DISK: Duration = Duration::from_millis(30);

/// A server whose slot moves only with what is acknowledged, and that sends nothing but the heartbeats that are written: so none of its
/// keepalives tells a new place.
struct Server {
    wal_lsn: u64,
    confirmed_lsn: u64,
    n_beats: u32,
    n_told: u32,
}

struct World {
    start: Instant,
    now: Instant,
    schedule: Schedule,
    decoder: Decoder,
    server: Server,
    given: Position,
    /// Batches on their way to the disk.
    pending: VecDeque<(Instant, Reached)>,
    durable_lsn: u64,
    told_lsn: u64,
    /// The most that the slot held back, in each minute.
    lag_by_minute: Vec<u64>,
    is_gone: bool,
}

impl World {
    fn new(heartbeat: Option<Duration>) -> Self {
        let now = Instant::now() + Duration::from_secs(60);
        let from = Reached { position: Position::new(1_000, 0), flush_lsn: 1_000 };
        let spill = Spill { disk: Arc::new(MemDisk::new(1)), dir: "/spill".into(), memory_bytes_max: 1 << 20 };
        let shapes = Shapes::new("db".into(), &[], BTreeMap::new());
        let bounds = Bounds { rows_max: 100, bytes_max: 1 << 20 };
        Self {
            start: now,
            now,
            schedule: Schedule::new(now, heartbeat, SILENCE),
            decoder: Decoder::new("db".into(), shapes, Streams::open(spill).unwrap(), bounds, from),
            server: Server { wal_lsn: 1_000, confirmed_lsn: 1_000, n_beats: 0, n_told: 0 },
            given: from.position,
            pending: VecDeque::new(),
            durable_lsn: 1_000,
            told_lsn: 0,
            lag_by_minute: Vec::new(),
            is_gone: false,
        }
    }

    fn standing(&self) -> Standing {
        let (has_place, has_news) = (self.decoder.reached().position > self.given, self.durable_lsn > self.told_lsn);
        Standing { has_place, has_news, is_caring: false }
    }

    /// `pg_logical_emit_message` in a transaction of its own, and the stream of it.
    fn beat(&mut self) {
        self.server.n_beats += 1;
        let commit_lsn = self.server.wal_lsn;
        self.server.wal_lsn += 200;
        let message = |tag: u8, fill: &dyn Fn(&mut BytesMut)| -> Bytes {
            let mut bytes = BytesMut::new();
            bytes.put_u8(tag);
            fill(&mut bytes);
            bytes.freeze()
        };
        let (end_lsn, xid) = (self.server.wal_lsn, self.server.n_beats);
        for bytes in [
            message(b'B', &|b| {
                b.put_u64(commit_lsn);
                b.put_i64(0);
                b.put_u32(xid);
            }),
            message(b'M', &|b| {
                b.put_u8(1);
                b.put_u64(commit_lsn);
                b.put_slice(HEARTBEAT.as_bytes());
                b.put_u8(0);
                b.put_u32(0);
            }),
            message(b'C', &|b| {
                b.put_u8(0);
                b.put_u64(commit_lsn);
                b.put_u64(end_lsn);
                b.put_i64(0);
            }),
        ] {
            assert!(matches!(self.decoder.feed(bytes).unwrap(), Asks::Nothing));
        }
        assert!(!self.decoder.has_changes(), "a heartbeat is no change");
        self.schedule.heard(self.now);
    }

    fn tell(&mut self) {
        self.server.n_told += 1;
        self.server.confirmed_lsn = self.server.confirmed_lsn.max(self.durable_lsn);
        self.told_lsn = self.durable_lsn;
        self.schedule.told(self.now);
    }

    /// What the source does in one turn, and what is due then.
    fn turn(&mut self) {
        while let Some((_, reached)) = self.pending.pop_front_if(|(at, _)| *at <= self.now) {
            self.durable_lsn = self.durable_lsn.max(reached.flush_lsn);
        }
        let due = self.schedule.due(self.now, self.standing());
        self.is_gone |= due.is_gone;
        if due.asks || due.tells {
            self.tell();
        }
        if due.asks {
            // The server answers with a keepalive, which tells the place that it told before.
            self.schedule.heard(self.now);
        }
        if due.cares == Some(true) {
            self.beat();
        }
        if self.schedule.is_empty_batch_due(self.now, self.standing()) {
            let reached = self.decoder.reached();
            self.given = reached.position;
            self.schedule.given(self.now, false);
            self.pending.push_back((self.now + DISK, reached));
        }
    }

    /// Goes from one moment when something is due to the next.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let disk = self.pending.front().map_or(end, |(at, _)| *at);
            let next = self.schedule.deadline(self.standing()).min(disk).min(end).max(self.now + Duration::from_millis(1));
            self.server.wal_lsn += (next - self.now).as_millis() as u64 * OTHERS_BYTES_PER_SECOND / 1_000;
            self.now = next;
            let minute = (self.now - self.start).as_secs() as usize / 60;
            self.lag_by_minute.resize((minute + 1).max(self.lag_by_minute.len()), 0);
            let lag = self.server.wal_lsn - self.server.confirmed_lsn;
            self.lag_by_minute[minute] = self.lag_by_minute[minute].max(lag);
            self.turn();
        }
    }
}

#[test]
fn an_idle_hour_keeps_the_slot_where_the_log_is() {
    let every = Duration::from_secs(10);
    let mut world = World::new(Some(every));
    world.run(HOUR);
    assert!(!world.is_gone, "a server that answers is not gone");
    assert!((358..=361).contains(&world.server.n_beats), "{} heartbeats", world.server.n_beats);
    // A heartbeat, then at most a second until its place is given, the disk, and half a second until it is told.
    let bound = (every + EMPTY_BATCH_EVERY + STATUS_AFTER + DISK * 2).as_millis() as u64 * OTHERS_BYTES_PER_SECOND / 1_000;
    let worst = world.lag_by_minute.iter().max().unwrap();
    assert!(*worst <= bound, "{worst} bytes were held back, of {bound}");
    let (first, last) = (world.lag_by_minute[1], world.lag_by_minute[58]);
    assert!(last <= first + 1_000, "the lag grows: {first} in the second minute, {last} in the last but one");
    assert!(world.server.n_told < 1_000, "{} words to the server", world.server.n_told);
    assert!(world.server.wal_lsn > HOUR.as_secs() * OTHERS_BYTES_PER_SECOND);
}

/// What heartbeats are for: without them the slot holds back all that the others write.
#[test]
fn without_heartbeats_the_slot_stays_behind() {
    let mut world = World::new(None);
    world.run(HOUR);
    assert_eq!((world.server.n_beats, world.is_gone), (0, false));
    assert!(*world.lag_by_minute.last().unwrap() >= 3_590 * OTHERS_BYTES_PER_SECOND);
}

#[test]
fn changes_are_heartbeats_enough() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, Some(Duration::from_secs(10)), SILENCE);
    let standing = Standing { has_place: false, has_news: false, is_caring: false };
    let mut beats = Vec::new();
    for second in 0..=60 {
        let now = now + Duration::from_secs(second);
        schedule.heard(now);
        if (15..=35).contains(&second) {
            schedule.given(now, true);
        }
        if schedule.due(now, standing).cares == Some(true) {
            beats.push(second);
        }
    }
    assert_eq!(beats, [10, 50, 60], "none is due while changes flow, and the one behind them is the last that is spared");
}

#[test]
fn a_silent_server_is_asked_then_gone() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, None, SILENCE);
    let standing = Standing { has_place: false, has_news: false, is_caring: true };
    let at = |schedule: &mut Schedule, seconds| {
        let due = schedule.due(now + Duration::from_secs(seconds), standing);
        (due.asks, due.is_gone)
    };
    assert_eq!(at(&mut schedule, 29), (false, false));
    assert_eq!(at(&mut schedule, 30), (true, false));
    assert_eq!(at(&mut schedule, 59), (false, false));
    assert_eq!(schedule.deadline(Standing { has_news: false, ..standing }).min(now + SILENCE), now + STATUS_EVERY, "told first");
    assert_eq!(at(&mut schedule, 60), (false, true));
    schedule.heard(now + Duration::from_secs(60));
    assert_eq!(at(&mut schedule, 89), (false, false));
    assert_eq!(at(&mut schedule, 90), (true, false));
}

#[test]
fn news_are_told_soon_but_not_at_once() {
    let now = Instant::now();
    let mut schedule = Schedule::new(now, None, SILENCE);
    let standing = |has_news| Standing { has_place: false, has_news, is_caring: true };
    let tells = |schedule: &mut Schedule, ms, has_news| schedule.due(now + Duration::from_millis(ms), standing(has_news)).tells;
    assert!(!tells(&mut schedule, 499, true) && tells(&mut schedule, 500, true));
    schedule.told(now + Duration::from_millis(500));
    assert!(!tells(&mut schedule, 999, true) && !tells(&mut schedule, 10_499, false) && tells(&mut schedule, 10_500, false));
    assert_eq!(schedule.deadline(standing(true)), now + Duration::from_millis(1_000));
}
