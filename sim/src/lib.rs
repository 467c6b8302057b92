//! The simulator: the whole program on a simulated disk, network and clock, single-threaded, every choice from one seed.
//! It must never know how the program does its work: it knows what was sent, what was acknowledged and what was shown, and compares.

pub mod scenario;
pub mod trace;
pub mod world;

mod hands;
mod random;

mod program;
mod store;

mod market;
mod source;
mod viewer;

mod damage;
mod mirror;
mod oracle;
mod past;
mod reference;

use anyhow::Result;
use mulgil_disk::Crash;
use scenario::Scenario;
use trace::Trace;
use world::{Outcome, World};

/// One run of a seed.
pub fn run(seed: u64, trace: &Trace) -> Result<Outcome> {
    World::new(Scenario::of(seed), trace.clone())?.run()
}

/// A small run without faults, and then the same run again and again, each time with a crash at another operation of the disk. Returns how
/// many operations there were.
pub fn crash_everywhere(seed: u64, every: u64, mut on_run: impl FnMut(u64, u64)) -> Result<u64> {
    let n_ops = World::new(Scenario::small(seed), Trace::default())?.run()?.n_ops;
    for nth in (seed % every..n_ops).step_by(every as usize) {
        crash_once(seed, nth, &Trace::default())?;
        on_run(nth, n_ops);
    }
    Ok(n_ops)
}

/// The small run of a seed with a crash at its `nth` operation; how it crashes follows from the two numbers.
pub fn crash_once(seed: u64, nth: u64, trace: &Trace) -> Result<Outcome> {
    let how = [Crash::DropUnsynced, Crash::TearUnsynced, Crash::KeepUnsynced][((seed + nth) % 3) as usize];
    let world = World::new(Scenario::small(seed), trace.clone())?;
    world.crash_at(nth, how, (seed + nth / 3).is_multiple_of(2));
    world.run()
}

/// The command that repeats a run.
pub fn command(seed: u64, crash_at: Option<u64>) -> String {
    let crash = crash_at.map_or(String::new(), |nth| format!(" --crash-at {nth}"));
    format!("cargo run -p mulgil-sim -- --seed {seed}{crash} -v")
}
