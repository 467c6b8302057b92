//! The `mulgil` program: reads the command line and says why it failed.
//! It must never know what a command does: that is in the library beside it.
#![allow(clippy::print_stderr)]

use clap::Parser;
use std::process::ExitCode;

/// Many keys are many small values that come and go: the system's allocator (glibc) took twice the time over them, and kept what they left.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match mulgil::failpoint::arm().and_then(|()| mulgil::cli::Cli::parse().run()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough (`mulgil … | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(broken))
}

/// The error and its causes, each once: many say in their own words what caused them.
fn told(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !said.contains(&cause) {
            said.push_str(if said.is_empty() { "" } else { ": " });
            said.push_str(&cause);
        }
    }
    said
}
