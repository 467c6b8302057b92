//! The real binary, from outside: started, fed, killed, restarted, asked.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod program;

mod bad_input;
mod bars_duckdb;
mod capture;
mod commands;
mod determinism;
mod disk_full;
mod ingest;
mod kills;
mod limits;
mod page;
mod resume;
mod rules;
mod scenarios;
