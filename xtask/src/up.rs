//! `cargo xtask up`: fetches or starts what tests need, and prints where it is.

use crate::tally::Tally;
use crate::tools;
use anyhow::Result;
use clap::{Args, ValueEnum};

#[derive(Args)]
pub struct Options {
    /// What to bring up
    #[arg(required = true)]
    servers: Vec<Server>,
}

/// Everything that can be brought up. The page needs a browser and verify needs DuckDB; servers join here with the connectors that need them.
#[derive(Clone, Copy, ValueEnum)]
enum Server {
    Chromium,
    Duckdb,
}

pub fn run(options: &Options) -> Result<Tally> {
    let mut tally = Tally::default();
    for server in &options.servers {
        let (name, place) = match server {
            Server::Chromium => ("chromium", tools::chromium()),
            Server::Duckdb => ("duckdb", tools::python()),
        };
        tally.check(name, place.map(|p| p.display().to_string()));
    }
    tally.close();
    Ok(tally)
}
