//! A few dozen fixed seeds, fresh ones for a while, crashes at operations of the disk, and the simulator's own test: a seed is a run.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use mulgil_sim::trace::Trace;
use mulgil_sim::{command, crash_everywhere, crash_once, run};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Always the same ones, so that a change that breaks one of them is seen at once.
const FIXED: std::ops::Range<u64> = 1..31;
/// Fresh seeds of former runs that found something.
const FOUND: [u64; 3] = [1_795_316_773_345_825, 1_795_390_919_318_917, 1_795_393_585_281_141];
/// Fresh seeds are begun for so long. `MULGIL_SIM_SECONDS` says otherwise.
const FRESH_SECONDS: u64 = 40;
/// Every so many operations of the small run there is a crash; `mulgil-sim --crash-everywhere` leaves none out.
const CRASH_EVERY: u64 = 7;

fn must_pass(seed: u64) -> mulgil_sim::world::Outcome {
    run(seed, &Trace::default()).unwrap_or_else(|error| panic!("seed {seed}: {error:#}\nto see it again: {}", command(seed, None)))
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [2, 6, 9] {
        let traces = [Trace::new(true), Trace::new(true)];
        let outcomes = traces.each_ref().map(|trace| run(seed, trace).unwrap());
        assert_eq!(outcomes[0], outcomes[1], "seed {seed}");
        let lines = traces.each_ref().map(Trace::lines);
        let differing = lines[0].iter().zip(&lines[1]).find(|(a, b)| a != b);
        assert_eq!(differing, None, "seed {seed}");
        assert_eq!(lines[0].len(), lines[1].len());
    }
    assert_ne!(must_pass(2).digest, must_pass(6).digest, "two seeds should not be the same run");
}

#[test]
fn fixed_seeds_and_fresh_ones() {
    let (mut faults, mut crashes, mut flips, mut full, mut resumed) = (0, 0, 0, 0, 0);
    for seed in FIXED.chain(FOUND) {
        let outcome = must_pass(seed);
        faults += outcome.n_struck;
        crashes += outcome.n_crashes;
        flips += outcome.n_flips_refused;
        full += outcome.n_full;
        resumed += outcome.n_resumed;
    }
    let counts = [faults, crashes, flips, full, resumed];
    assert!(
        counts.iter().all(|n| *n >= 5),
        "faults, crashes, refused flips, full disks, resumed clients {counts:?}: too few to prove much"
    );
    let seconds = std::env::var("MULGIL_SIM_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(FRESH_SECONDS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let mut n = 0;
    while Instant::now() < until {
        must_pass(first + n);
        n += 1;
    }
    println!("{n} fresh seeds from {first} on");
}

#[test]
fn a_crash_at_any_operation_of_the_disk() {
    let (seed, mut last) = (3, 0);
    let n_ops = crash_everywhere(seed, CRASH_EVERY, |nth, _| last = nth);
    let told = |error: anyhow::Error| -> u64 { panic!("{error:#}\nto see it again: {}", command(seed, Some(last + CRASH_EVERY))) };
    assert!(n_ops.unwrap_or_else(told) > 100, "the small run is too small to prove much");
}

#[test]
fn a_crash_happens_where_it_was_asked_for() {
    let trace = Trace::new(true);
    let outcome = crash_once(3, 20, &trace).unwrap();
    assert_eq!((outcome.n_struck, outcome.n_crashes + outcome.n_refused_starts), (1, 1));
    let ops = trace
        .lines()
        .iter()
        .take_while(|line| !line.contains("died") && !line.contains("does not start"))
        .filter(|l| l.contains("disk:"))
        .count();
    // Operations count from 0; what the dying process still tried is heard, too.
    assert!((21..=26).contains(&ops), "{ops}");
}
