//! The mulgil binary as a library, so that the simulator and the fuzz targets run the very same wiring: configuration, supervision and the
//! command line; the only crate that spawns threads and tasks. It must never hold logic of the pipeline itself: what is computed, stored or
//! served is decided in the crates it puts together.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod config;

pub mod failpoint;

pub mod pipeline;

pub mod capture;

pub mod adapters;

pub mod cli;
