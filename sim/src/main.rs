//! `mulgil-sim`: runs seeds, and says how to repeat the one that failed.
//! It must never know what is simulated: that is in the library beside it.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use anyhow::{Context, Result, bail};
use clap::Parser;
use mulgil_sim::trace::Trace;
use mulgil_sim::{command, crash_everywhere, crash_once, run};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The whole program on a simulated disk, network and clock.
#[derive(Debug, Parser)]
struct Args {
    /// One seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Seeds from A to below B.
    #[arg(long, value_name = "A..B")]
    seeds: Option<String>,
    /// Fresh seeds for so many minutes.
    #[arg(long)]
    minutes: Option<f64>,
    /// With --seed: its small run, with a crash at this operation of the disk.
    #[arg(long)]
    crash_at: Option<u64>,
    /// Instead of the run of each seed: its small run, once for every operation of the disk, with a crash there.
    #[arg(long)]
    crash_everywhere: bool,
    /// With --seed: shows every step and every operation of the disk.
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    match work(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(args: &Args) -> Result<()> {
    match (args.seed, &args.seeds, args.minutes) {
        (Some(seed), None, None) => one(seed, args),
        (None, Some(range), None) => {
            let (from, to) = range.split_once("..").context("--seeds is A..B")?;
            for seed in from.trim().parse::<u64>()?..to.trim().parse()? {
                one(seed, args)?;
            }
            Ok(())
        }
        (None, None, Some(minutes)) => fresh(minutes, args),
        _ => bail!("say one of --seed N, --seeds A..B, --minutes M"),
    }
}

fn fresh(minutes: f64, args: &Args) -> Result<()> {
    let until = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let first = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64;
    let mut n = 0;
    while Instant::now() < until {
        one(first + n, args)?;
        n += 1;
    }
    println!("{n} fresh seeds from {first} on");
    Ok(())
}

fn one(seed: u64, args: &Args) -> Result<()> {
    if args.crash_everywhere {
        let mut last = None;
        let n = crash_everywhere(seed, 1, |nth, _| last = Some(nth));
        let n = n.with_context(|| failed(seed, Some(last.map_or(0, |nth| nth + 1))))?;
        println!("seed {seed}: crashed at each of {n} operations");
        return Ok(());
    }
    let trace = Trace::new(args.verbose);
    let outcome = match args.crash_at {
        Some(nth) => crash_once(seed, nth, &trace),
        None => run(seed, &trace),
    };
    trace.lines().iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {:?}", outcome.with_context(|| failed(seed, args.crash_at))?);
    Ok(())
}

fn failed(seed: u64, crash_at: Option<u64>) -> String {
    format!("seed {seed} failed; to see it again: {}\n", command(seed, crash_at))
}
