//! Clients that asked for the same rows are given the same frames, and nobody misses a row for it. Those who are behind go together.

use crate::market::*;
use axum::extract::ws::Utf8Bytes;
use mulgil_serve::live::hub::Hub;
use mulgil_serve::live::scan::Turn;
use mulgil_serve::live::selection::{Form, Pulled, Selection, Spec, Start};
use mulgil_serve::ports::Feed;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

const SYMBOLS: [&str; 4] = ["A", "B", "C", "D"];

fn open(hub: &Hub, market: &Market, symbols: Option<&[&str]>) -> Selection {
    let streams = market.streams().into_iter().filter(|s| s.schema.stream.as_str() == "trades").collect();
    let symbols = symbols.map(|list| list.iter().map(|s| (*s).to_owned()).collect());
    let spec = Spec { id: "a".into(), streams, symbols, ops: None, form: Form::Stream, start: Start::Live, from: None };
    Selection::open(hub, spec).unwrap().0
}

fn turn(tick: u64) -> Turn {
    Turn { tick, now: Instant::now(), is_held: false }
}

fn pull(selection: &mut Selection, hub: &Hub, tick: u64) -> Vec<Utf8Bytes> {
    let mut frames = Vec::new();
    assert_eq!(selection.pull(hub, &turn(tick), 1 << 20, &mut frames).unwrap(), Pulled::CaughtUp);
    frames
}

fn ids(frames: &[Utf8Bytes]) -> Vec<usize> {
    frames.iter().flat_map(|f| crate::socket::ids(&serde_json::from_str(f).unwrap())).collect()
}

fn are_the_same(a: &[Utf8Bytes], b: &[Utf8Bytes]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.as_str().as_ptr() == b.as_str().as_ptr())
}

#[test]
fn who_stands_at_the_same_place_gets_the_same_frame() {
    let market = Market::new(1);
    let hub = Hub::new(Arc::clone(&market) as _, 1 << 20);
    let [mut first, mut second, mut late] = [(); 3].map(|()| open(&hub, &market, Some(&["A", "B"])));
    let mut other = open(&hub, &market, Some(&["A"]));
    let commit = |ids: std::ops::Range<usize>| market.commit(ids.map(|i| trade(SYMBOLS[i % 4], i as i64, 100, 1, i)));
    commit(0..20);
    let given = pull(&mut first, &hub, 1);
    assert_eq!(ids(&given), [0, 1, 4, 5, 8, 9, 12, 13, 16, 17]);
    assert!(are_the_same(&given, &pull(&mut second, &hub, 1)), "one text for both");
    assert_eq!(ids(&pull(&mut other, &hub, 1)), [0, 4, 8, 12, 16], "another wish, other frames");
    // One that missed two beats gets what the others were given meanwhile.
    let mut missed = given;
    for tick in 2..4 {
        commit(tick as usize * 10..tick as usize * 10 + 10);
        missed.extend(pull(&mut first, &hub, tick));
    }
    assert!(are_the_same(&missed, &pull(&mut late, &hub, 3)));
    // One that missed more than is remembered pulls by itself, and gets the same rows.
    let mut rows = Vec::new();
    for tick in 4..14 {
        commit(tick as usize * 10..tick as usize * 10 + 10);
        rows.extend(ids(&pull(&mut first, &hub, tick)));
    }
    assert_eq!(ids(&pull(&mut late, &hub, 13)), rows);
    assert!(hub.kept().bytes > 0);
    // Nothing new is nothing new for all.
    assert!(pull(&mut first, &hub, 14).is_empty() && pull(&mut late, &hub, 14).is_empty());
    let before = hub.audiences().bytes();
    drop([first, second, late]);
    assert!(before > 0 && hub.audiences().bytes() == 0, "what nobody wants is forgotten");
}

/// Each pulls so many bytes in turn, until all are at the end; what each has seen.
fn catch_up_in_turn(hub: &Hub, behind: &mut [(Selection, Vec<usize>)], bytes_max: usize) {
    // The clock of all stands still, so that nobody is ever silent.
    let turn = turn(1);
    let mut is_any_behind = true;
    while is_any_behind {
        is_any_behind = false;
        for (selection, seen) in &mut *behind {
            let mut frames = Vec::new();
            is_any_behind |= selection.pull(hub, &turn, bytes_max, &mut frames).unwrap() != Pulled::CaughtUp;
            seen.extend(ids(&frames));
        }
    }
}

fn commit(market: &Market, ids: std::ops::Range<usize>) {
    market.commit(ids.map(|i| trade(SYMBOLS[i % 4], i as i64, 100, 1, i)));
}

fn read_all(selection: &mut Selection, hub: &Hub) -> usize {
    let mut frames = Vec::new();
    while selection.pull(hub, &turn(1), 1 << 20, &mut frames).unwrap() != Pulled::CaughtUp {}
    ids(&frames).len()
}

#[test]
fn those_who_are_behind_what_is_kept_read_it_once_for_all() {
    let market = Market::new(1);
    // Room for a few chunks of seven rows.
    let hub = Hub::new(Arc::clone(&market) as _, 8 << 10);
    let mut behind = [["A"], ["B"], ["C"]].map(|symbols| (open(&hub, &market, Some(&symbols)), Vec::new()));
    let mut leader = open(&hub, &market, None);
    commit(&market, 0..700);
    assert_eq!(read_all(&mut leader, &hub), 700);
    let n_before = market.n_reads.load(Ordering::Relaxed);
    catch_up_in_turn(&hub, &mut behind, 1);
    let n_reads = market.n_reads.load(Ordering::Relaxed) - n_before;
    assert!((90..=110).contains(&n_reads), "{n_reads} reads of seven rows for 700 rows and three clients");
    for (i, (_, seen)) in behind.iter().enumerate() {
        assert_eq!(*seen, (i..700).step_by(4).collect::<Vec<_>>());
    }
    assert!(hub.kept().bytes < 64 << 10);
}

/// Clients at these places of a log of 30,000 rows catch up, and read it once for all of them.
fn reads_of_those_far_behind(kept_bytes: usize, places: &[usize], bytes_max: usize) {
    const ROWS: usize = 30_000;
    let market = Market::new(1);
    let hub = Hub::new(Arc::clone(&market) as _, kept_bytes);
    let (mut behind, mut n) = (Vec::new(), 0);
    for (i, place) in places.iter().enumerate() {
        commit(&market, n..*place);
        n = *place;
        behind.push((open(&hub, &market, Some(&[SYMBOLS[i % 4]])), Vec::new()));
    }
    let mut leader = open(&hub, &market, None);
    commit(&market, n..ROWS);
    assert_eq!(read_all(&mut leader, &hub), ROWS - n);
    let n_before = market.n_reads.load(Ordering::Relaxed);
    catch_up_in_turn(&hub, &mut behind, bytes_max);
    let n_reads = market.n_reads.load(Ordering::Relaxed) - n_before;
    let once = (ROWS - places[0]) / 7;
    // The first one cannot know of the others: one turn of 16,384 rows.
    let first = (16 << 10) / 7 + 100;
    assert!(n_reads < once + first, "{n_reads} reads where {once} are enough");
    for (i, (_, seen)) in behind.iter().enumerate() {
        let expected: Vec<usize> = (places[i]..ROWS).filter(|id| id % 4 == i % 4).collect();
        assert_eq!(*seen, expected, "client {i}");
    }
    let bytes = hub.kept().bytes - hub.audiences().bytes();
    assert!(bytes <= 2 * kept_bytes + (8 << 10), "{bytes} of 2 * {kept_bytes}");
    assert_eq!(hub.kept().readers_behind, 0);
}

/// Whoever is first must not run so far ahead that what it has read is gone when the next one comes.
#[test]
fn those_who_are_far_behind_go_side_by_side() {
    reads_of_those_far_behind(4 << 20, &[0, 0, 0], 64 << 20);
    reads_of_those_far_behind(64 << 10, &[0, 0, 0], 64 << 20);
}

/// Each reading its own way, the log would be read once for each.
#[test]
fn those_who_are_behind_at_different_places_wait_for_the_hindmost() {
    let places: Vec<usize> = (0..20).map(|i| i * 500).collect();
    reads_of_those_far_behind(64 << 10, &places, 64 << 20);
    reads_of_those_far_behind(64 << 10, &places, 1);
}

/// Rows of two clients: one at the log's beginning, and one that the first may hold up, on the way from row 4,000 to the end at 10,000.
struct Pair {
    market: Arc<Market>,
    hub: Hub,
    hindmost: Selection,
    ahead: Selection,
}

fn pair() -> Pair {
    let market = Market::new(1);
    let hub = Hub::new(Arc::clone(&market) as _, 64 << 10);
    let hindmost = open(&hub, &market, Some(&["A"]));
    commit(&market, 0..4_000);
    let ahead = open(&hub, &market, Some(&["B"]));
    let mut leader = open(&hub, &market, None);
    commit(&market, 4_000..10_000);
    read_all(&mut leader, &hub);
    Pair { market, hub, hindmost, ahead }
}

/// Pulls little at a time until it waits or is at the end.
fn pull_on(selection: &mut Selection, hub: &Hub, turn: &Turn) -> Pulled {
    loop {
        let pulled = selection.pull(hub, turn, 1, &mut Vec::new()).unwrap();
        if pulled != Pulled::More {
            return pulled;
        }
    }
}

#[test]
fn nobody_waits_for_one_whose_socket_is_full() {
    let Pair { hub, mut hindmost, mut ahead, .. } = pair();
    let turn = turn(1);
    hindmost.pull(&hub, &turn, 1, &mut Vec::new()).unwrap();
    assert_eq!(pull_on(&mut ahead, &hub, &turn), Pulled::Waits);
    hindmost.pull(&hub, &Turn { is_held: true, ..turn }, 1, &mut Vec::new()).unwrap();
    assert_eq!(pull_on(&mut ahead, &hub, &turn), Pulled::CaughtUp);
}

#[test]
fn nobody_waits_for_one_that_is_silent_or_gone() {
    for is_gone in [false, true] {
        let Pair { hub, mut hindmost, mut ahead, .. } = pair();
        let turn = turn(1);
        hindmost.pull(&hub, &turn, 1, &mut Vec::new()).unwrap();
        assert_eq!(pull_on(&mut ahead, &hub, &turn), Pulled::Waits);
        let later = if is_gone {
            drop(hindmost);
            turn
        } else {
            Turn { now: turn.now + Duration::from_secs(2), ..turn }
        };
        assert_eq!(pull_on(&mut ahead, &hub, &later), Pulled::CaughtUp, "gone: {is_gone}");
    }
}

#[test]
fn nobody_waits_for_one_that_is_much_further_behind() {
    let Pair { market, hub, mut hindmost, .. } = pair();
    commit(&market, 10_000..12_000);
    let mut near = open(&hub, &market, Some(&["B"]));
    commit(&market, 12_000..14_000);
    read_all(&mut open(&hub, &market, None), &hub);
    let mut leader = open(&hub, &market, None);
    commit(&market, 14_000..16_000);
    read_all(&mut leader, &hub);
    let turn = turn(2);
    for _ in 0..2 {
        hindmost.pull(&hub, &turn, 1, &mut Vec::new()).unwrap();
    }
    assert_eq!(near.pull(&hub, &turn, 1, &mut Vec::new()).unwrap(), Pulled::Waits, "the first time, whoever else may come");
    assert_eq!(pull_on(&mut near, &hub, &turn), Pulled::CaughtUp, "4,000 rows behind, the other one 16,000");
}

/// Those who come are always the hindmost, one after the other; those who were there before are not held up for good.
#[test]
fn waiting_has_an_end() {
    let Pair { market, hub, mut ahead, .. } = pair();
    let mut turn = turn(1);
    let info = market.streams().into_iter().find(|s| s.schema.stream.as_str() == "trades").unwrap();
    let [idle] = hub.seats(&info).try_into().ok().unwrap();
    let mut waited = Duration::ZERO;
    loop {
        idle.note_behind(mulgil_model::ids::Offset::ZERO, &turn);
        if ahead.pull(&hub, &turn, 1 << 20, &mut Vec::new()).unwrap() == Pulled::CaughtUp {
            break;
        }
        turn.now += Duration::from_millis(100);
        waited += Duration::from_millis(100);
        assert!(waited < Duration::from_secs(60));
    }
    assert!((4..=6).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn one_that_is_at_the_end_never_waits() {
    let Pair { market, hub, mut hindmost, mut ahead } = pair();
    let turn = turn(1);
    hindmost.pull(&hub, &turn, 1, &mut Vec::new()).unwrap();
    assert_eq!(pull_on(&mut ahead, &hub, &turn), Pulled::Waits);
    assert_eq!(hub.kept().readers_behind, 2);
    let mut live = open(&hub, &market, None);
    for tick in 2..50 {
        let from = 10_000 + tick as usize * 100;
        commit(&market, from..from + 100);
        assert_eq!(ids(&pull(&mut live, &hub, tick)).len(), 100);
        hindmost.pull(&hub, &turn, 1, &mut Vec::new()).unwrap();
    }
}

/// A client as a test sees it: what it wants, what it got, and the first id that it may get.
struct Client {
    selection: Selection,
    wanted: Option<&'static [&'static str]>,
    from: usize,
    seen: Vec<usize>,
}

/// With clients that come, go, lag, are held, and with little room or none; whoever waits gets on when the others do.
#[test]
fn everybody_gets_each_row_once_in_order() {
    const WISHES: [Option<&[&str]>; 3] = [None, Some(&["A"]), Some(&["B", "D"])];
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let market = Market::new(1);
        // Now and then there is no room to remember anything.
        let kept_bytes = [0, 4 << 10, 32 << 10, 1 << 20][seed as usize % 4];
        let hub = Hub::new(Arc::clone(&market) as _, kept_bytes);
        let (mut clients, mut rows, mut tick) = (Vec::<Client>::new(), Vec::<&str>::new(), 0);
        let mut now = Instant::now();
        for _ in 0..400 {
            match random.random_range(0..10) {
                0 if clients.len() < 12 => {
                    let wanted = WISHES[random.random_range(0..WISHES.len())];
                    clients.push(Client { selection: open(&hub, &market, wanted), wanted, from: rows.len(), seen: Vec::new() });
                }
                1 if !clients.is_empty() && random.random_bool(0.3) => {
                    let gone = random.random_range(0..clients.len());
                    drop(clients.swap_remove(gone));
                }
                2..5 => {
                    let more: Vec<_> = (0..random.random_range(1..60)).map(|_| SYMBOLS[random.random_range(0..4)]).collect();
                    market.commit(more.iter().enumerate().map(|(i, s)| trade(s, 0, 100, 1, rows.len() + i)));
                    rows.extend(more);
                    tick += 1;
                }
                _ if !clients.is_empty() => {
                    let n = random.random_range(0..clients.len());
                    // A beat may have begun before the last commits.
                    let turn = Turn { tick: tick - random.random_range(0..3).min(tick), now, is_held: random.random_bool(0.2) };
                    let (mut frames, bytes_max) = (Vec::new(), [1, 1 << 10, 1 << 20][random.random_range(0..3)]);
                    clients[n].selection.pull(&hub, &turn, bytes_max, &mut frames).unwrap();
                    clients[n].seen.extend(ids(&frames));
                    now += Duration::from_millis(random.random_range(0..300));
                    // And a chunk at each end.
                    let bytes = hub.kept().bytes - hub.audiences().bytes();
                    assert!(bytes <= 2 * kept_bytes + (8 << 10), "seed {seed}: {bytes} of 2 * {kept_bytes}");
                }
                _ => {}
            }
        }
        let turn = Turn { tick: tick + 1, now, is_held: false };
        let (mut n_behind, mut n_rounds) = (1, 0);
        while n_behind > 0 {
            n_behind = 0;
            for client in &mut clients {
                let mut frames = Vec::new();
                n_behind += usize::from(client.selection.pull(&hub, &turn, 1 << 20, &mut frames).unwrap() != Pulled::CaughtUp);
                client.seen.extend(ids(&frames));
            }
            n_rounds += 1;
            assert!(n_rounds <= rows.len(), "seed {seed}: {n_behind} wait for each other");
        }
        for client in clients {
            let is_wanted = |i: &usize| client.wanted.is_none_or(|w| w.contains(&rows[*i]));
            let expected: Vec<usize> = (client.from..rows.len()).filter(is_wanted).collect();
            assert!(client.seen == expected, "seed {seed}");
        }
    }
}

/// Clients that pause now and then while the log grows: when they ask again, somebody gets on, whatever is kept and wherever they stand.
#[test]
fn those_who_ask_are_never_all_waiting() {
    for seed in 0..12 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let market = Market::new(1);
        let hub = Hub::new(Arc::clone(&market) as _, [1 << 10, 4 << 10, 16 << 10][seed as usize % 3]);
        let mut clients: Vec<Selection> = (0..random.random_range(2..20)).map(|i| open(&hub, &market, Some(&[SYMBOLS[i % 4]]))).collect();
        let (mut tick, mut n_rows, mut now) = (0, 0, Instant::now());
        let (mut paused_until, mut moved_at) = (vec![now; clients.len()], now);
        for _ in 0..4_000 {
            now += Duration::from_millis(5);
            if random.random_bool(0.3) {
                let n = random.random_range(1..30);
                commit(&market, n_rows..n_rows + n);
                (n_rows, tick) = (n_rows + n, tick + 1);
            }
            let (mut n_asked, mut n_waiting) = (0, 0);
            for (client, paused) in clients.iter_mut().zip(&mut paused_until) {
                if random.random_bool(0.01) {
                    *paused = now + Duration::from_millis(random.random_range(0..2_000));
                }
                let turn = Turn { tick, now, is_held: random.random_bool(0.05) };
                if *paused <= now {
                    n_asked += 1;
                    n_waiting += usize::from(client.pull(&hub, &turn, 1 << 10, &mut Vec::new()).unwrap() == Pulled::Waits);
                }
            }
            if n_waiting < n_asked || n_asked == 0 {
                moved_at = now;
            }
            // A reader's patience, and the second after which one that pauses is not waited for.
            assert!(now - moved_at < Duration::from_secs(7), "seed {seed}: all wait, {:?}", hub.kept());
        }
    }
}

/// One that comes from behind reads over what the others have just read: they stand in the midst of its chunk, behind a shorter one of their own.
#[test]
fn those_who_stand_in_the_midst_of_a_chunk_find_it() {
    let market = Market::new(1);
    let hub = Hub::new(Arc::clone(&market) as _, 4 << 10);
    commit(&market, 0..6);
    let mut behind = open(&hub, &market, Some(&["C"]));
    commit(&market, 6..10);
    let mut others = [["A"], ["B"]].map(|symbols| open(&hub, &market, Some(&symbols)));
    commit(&market, 10..12);
    others.iter_mut().for_each(|other| assert_eq!(pull_on(other, &hub, &turn(0)), Pulled::CaughtUp));
    commit(&market, 12..2_000);
    let turn = turn(1);
    // The first time it only says that it is there; then it reads the rows from 6 to 12.
    assert_eq!(behind.pull(&hub, &turn, 1, &mut Vec::new()).unwrap(), Pulled::Waits);
    assert_eq!(behind.pull(&hub, &turn, 1, &mut Vec::new()).unwrap(), Pulled::More);
    let n_reads = market.n_reads.load(Ordering::Relaxed);
    let mut frames = Vec::new();
    assert_eq!(others[0].pull(&hub, &turn, 1, &mut frames).unwrap(), Pulled::More);
    assert_eq!(ids(&frames), [12]);
    assert_eq!(market.n_reads.load(Ordering::Relaxed), n_reads, "what was read for one is there for the other");
}

/// So many that they rest between beats.
const CROWD: usize = 60;

#[tokio::test]
async fn a_crowd_gets_its_rows_and_its_answers() {
    const ROWS: usize = 900;
    let server = start(2).await;
    let mut sockets = Vec::new();
    for n in 0..CROWD {
        let mut socket = crate::socket::Socket::open(&server).await;
        let symbols = [json!("all"), json!(["A"]), json!(["B", "D"])][n % 3].clone();
        socket.subscribe(json!({"op": "subscribe", "id": "a", "streams": ["trades"], "symbols": symbols})).await;
        sockets.push(socket);
    }
    let market = Arc::clone(&server.market);
    let reading = sockets.into_iter().enumerate().map(|(n, mut socket)| async move {
        let expected = [ROWS, ROWS / 4, ROWS / 2][n % 3];
        let (mut seen, mut is_answered) = (Vec::new(), false);
        while seen.len() < expected || !is_answered {
            // In the midst of its rows it asks something.
            if seen.len() * 2 >= expected && !is_answered {
                socket.say(json!({"op": "ping", "id": "p"})).await;
                while !is_answered {
                    let frame = socket.next().await.unwrap();
                    is_answered = frame["type"] == "pong";
                    seen.extend(rows(&frame));
                }
                continue;
            }
            seen.extend(rows(&socket.next().await.unwrap()));
        }
        (n, seen)
    });
    let committing = async {
        for from in (0..ROWS).step_by(30) {
            market.commit((from..from + 30).map(|i| trade(SYMBOLS[i % 4], i as i64, 100, 1, i)));
            tokio::task::yield_now().await;
        }
    };
    let (all, ()) = futures::future::join(futures::future::join_all(reading), committing).await;
    for (n, mut seen) in all {
        let of = |symbol: usize| seen.iter().copied().filter(|id| id % 4 == symbol).collect::<Vec<_>>();
        assert!((0..4).all(|symbol| of(symbol).is_sorted()), "the order of each symbol");
        seen.sort_unstable();
        let wanted: &[usize] = [&[0, 1, 2, 3][..], &[0], &[1, 3]][n % 3];
        assert!(seen.into_iter().eq((0..ROWS).filter(|i| wanted.contains(&(i % 4)))), "client {n}");
    }
    server.stop().await;
}

fn rows(frame: &Value) -> Vec<usize> {
    if frame["type"] == "trades" { crate::socket::ids(frame) } else { Vec::new() }
}
