//! Clients that asked for the same rows are given the same frames, and nobody misses a row for it.

use crate::market::*;
use axum::extract::ws::Utf8Bytes;
use mulgil_serve::live::hub::Hub;
use mulgil_serve::live::selection::{Form, Pulled, Selection, Spec, Start};
use mulgil_serve::ports::Feed;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const SYMBOLS: [&str; 4] = ["A", "B", "C", "D"];

fn open(hub: &Hub, market: &Market, symbols: Option<&[&str]>) -> Selection {
    let streams = market.streams().into_iter().filter(|s| s.schema.stream.as_str() == "trades").collect();
    let symbols = symbols.map(|list| list.iter().map(|s| (*s).to_owned()).collect());
    let spec = Spec { id: "a".into(), streams, symbols, ops: None, form: Form::Stream, start: Start::Live, from: None };
    Selection::open(hub, spec).unwrap().0
}

fn pull(selection: &mut Selection, hub: &Hub, tick: u64) -> Vec<Utf8Bytes> {
    let mut frames = Vec::new();
    assert_eq!(selection.pull_shared(hub, tick, 1 << 20, &mut frames).unwrap(), Pulled::CaughtUp);
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
    assert!(hub.ring_bytes() > 0);
    // Nothing new is nothing new for all.
    assert!(pull(&mut first, &hub, 14).is_empty() && pull(&mut late, &hub, 14).is_empty());
    let before = hub.audiences().bytes();
    drop([first, second, late]);
    assert!(before > 0 && hub.audiences().bytes() == 0, "what nobody wants is forgotten");
}

/// Each pulls so many bytes in turn, until all are at the end; what each has seen.
fn catch_up_in_turn(hub: &Hub, behind: &mut [(Selection, Vec<usize>)], bytes_max: usize) {
    let mut is_any_behind = true;
    while is_any_behind {
        is_any_behind = false;
        for (selection, seen) in &mut *behind {
            let mut frames = Vec::new();
            is_any_behind |= selection.pull_shared(hub, 1, bytes_max, &mut frames).unwrap() == Pulled::More;
            seen.extend(ids(&frames));
        }
    }
}

#[test]
fn those_who_are_behind_what_is_kept_read_it_once_for_all() {
    let market = Market::new(1);
    // Room for a few chunks of seven rows.
    let hub = Hub::new(Arc::clone(&market) as _, 8 << 10);
    let mut behind = [["A"], ["B"], ["C"]].map(|symbols| (open(&hub, &market, Some(&symbols)), Vec::new()));
    let mut leader = open(&hub, &market, None);
    market.commit((0..700).map(|i| trade(SYMBOLS[i % 4], i as i64, 100, 1, i)));
    assert_eq!(ids(&pull(&mut leader, &hub, 1)).len(), 700);
    let n_before = market.n_reads.load(Ordering::Relaxed);
    catch_up_in_turn(&hub, &mut behind, 1);
    let n_reads = market.n_reads.load(Ordering::Relaxed) - n_before;
    assert!((90..=110).contains(&n_reads), "{n_reads} reads of seven rows for 700 rows and three clients");
    for (i, (_, seen)) in behind.iter().enumerate() {
        assert_eq!(*seen, (i..700).step_by(4).collect::<Vec<_>>());
    }
    assert!(hub.ring_bytes() < 64 << 10);
}

/// With as much as a socket pulls at once: whoever is first must not run so far ahead that what it has read is gone when the next one comes.
#[test]
fn those_who_are_far_behind_go_side_by_side() {
    const ROWS: usize = 60_000;
    let market = Market::new(1);
    // Kept are some 20,000 rows.
    let hub = Hub::new(Arc::clone(&market) as _, 8 << 20);
    let mut behind = [["A"], ["B"], ["C"]].map(|symbols| (open(&hub, &market, Some(&symbols)), Vec::new()));
    let mut leader = open(&hub, &market, None);
    market.commit((0..ROWS).map(|i| trade(SYMBOLS[i % 4], i as i64, 100, 1, i)));
    let mut frames = Vec::new();
    while leader.pull_shared(&hub, 1, 1 << 20, &mut frames).unwrap() == Pulled::More {}
    let n_before = market.n_reads.load(Ordering::Relaxed);
    catch_up_in_turn(&hub, &mut behind, 64 << 20);
    let n_reads = market.n_reads.load(Ordering::Relaxed) - n_before;
    assert!(n_reads < ROWS / 7 + 100, "{n_reads} reads of seven rows for {ROWS} rows and three clients");
    assert!(behind.iter().all(|(_, seen)| seen.len() == ROWS / 4));
}

/// A client as a test sees it: what it wants, what it got, and the first id that it may get.
struct Client {
    selection: Selection,
    wanted: Option<&'static [&'static str]>,
    from: usize,
    seen: Vec<usize>,
}

#[test]
fn everybody_gets_each_row_once_in_order() {
    const WISHES: [Option<&[&str]>; 3] = [None, Some(&["A"]), Some(&["B", "D"])];
    for seed in 0..30 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let market = Market::new(1);
        // Now and then there is no room to remember anything.
        let hub = Hub::new(Arc::clone(&market) as _, if seed % 5 == 0 { 0 } else { 1 << 20 });
        let (mut clients, mut rows, mut tick) = (Vec::<Client>::new(), Vec::<&str>::new(), 0);
        for _ in 0..300 {
            match random.random_range(0..10) {
                0 if clients.len() < 12 => {
                    let wanted = WISHES[random.random_range(0..WISHES.len())];
                    clients.push(Client { selection: open(&hub, &market, wanted), wanted, from: rows.len(), seen: Vec::new() });
                }
                1 if !clients.is_empty() => {
                    let gone = random.random_range(0..clients.len());
                    drop(clients.swap_remove(gone));
                }
                2..5 => {
                    let more: Vec<_> = (0..random.random_range(1..20)).map(|_| SYMBOLS[random.random_range(0..4)]).collect();
                    market.commit(more.iter().enumerate().map(|(i, s)| trade(s, 0, 100, 1, rows.len() + i)));
                    rows.extend(more);
                    tick += 1;
                }
                _ if !clients.is_empty() => {
                    let n = random.random_range(0..clients.len());
                    // A beat may have begun before the last commits.
                    let beat = tick - random.random_range(0..3).min(tick);
                    let frames = pull(&mut clients[n].selection, &hub, beat);
                    clients[n].seen.extend(ids(&frames));
                }
                _ => {}
            }
        }
        for mut client in clients {
            client.seen.extend(ids(&pull(&mut client.selection, &hub, tick + 1)));
            let is_wanted = |i: &usize| client.wanted.is_none_or(|w| w.contains(&rows[*i]));
            let expected: Vec<usize> = (client.from..rows.len()).filter(is_wanted).collect();
            assert_eq!(client.seen, expected, "seed {seed}");
        }
    }
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
