//! The mulgil binary: configuration, wiring, supervision and the command line; the only crate that spawns threads and tasks.
//! It must never hold logic of the pipeline itself: what is computed, stored or served is decided in the crates it puts together.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod adapters;
mod cli;
mod config;
mod pipeline;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
