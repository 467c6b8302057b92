//! `cargo xtask`: what a developer or CI runs on the project: tidy, test, up, verify, score, fuzz, bench.
//! It must never know the inside of mulgil: it reads sources as text and drives the built binary, Python and Node as processes.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod house;
mod process;
mod tally;
mod tools;

mod tidy;

mod test;
mod up;

mod score;
mod verify;
mod workload;

mod fuzz;

mod bench;
mod soak;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the project", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Static checks: walls, banned calls, lengths, words, links, licences, format, clippy
    Tidy(tidy::Options),
    /// Everything a fresh machine can test: tidy, cargo test, the page
    Test(test::Options),
    /// Fetch or start what tests need
    Up(up::Options),
    /// Replay the real trades and compare bars, counts and alerts with an independent computation
    Verify(verify::Options),
    /// Score the rush-order detector against the labelled events
    Score(score::Options),
    /// Fuzz every decoder and opener, guided by coverage
    Fuzz(fuzz::Options),
    /// Measure against what the machine can do, as one table
    Bench(bench::Options),
    /// Run at half load for an hour and see whether anything grows
    Soak(soak::Options),
}

fn main() {
    let ran = match Arguments::parse().task {
        Task::Tidy(options) => tidy::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Up(options) => up::run(&options),
        Task::Verify(options) => verify::run(&options),
        Task::Score(options) => score::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Soak(options) => soak::run(&options),
    };
    let code = match ran {
        Ok(tally) => i32::from(tally.n_failed > 0),
        Err(error) => {
            eprintln!("error: {error:#}");
            2
        }
    };
    std::process::exit(code);
}
