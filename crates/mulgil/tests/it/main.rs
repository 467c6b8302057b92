//! The real binary, from outside: started, fed, killed, restarted, asked.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod program;

mod commands;
mod determinism;
mod ingest;
mod page;
mod resume;
mod rules;
mod scenarios;
