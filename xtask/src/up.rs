//! `cargo xtask up`: fetches or starts what tests need, and prints where it is.

use crate::tally::Tally;
use crate::tools;
use anyhow::Result;
use clap::{Args, ValueEnum};
use mulgil_servers::{MariaDb, Postgres, Settings};
use std::path::PathBuf;

#[derive(Args)]
pub struct Options {
    /// What to bring up
    #[arg(required = true)]
    servers: Vec<Server>,
}

/// Everything that can be brought up: the page needs a browser, verify needs DuckDB, change capture needs databases.
#[derive(Clone, Copy, ValueEnum)]
enum Server {
    Chromium,
    Duckdb,
    /// Fetched only: its programs' folder is what MULGIL_MYSQL_BIN wants
    Mysql,
    /// Runs in the foreground, on fresh data, until Ctrl-C
    Postgres,
    /// Runs in the foreground, on fresh data, until Ctrl-C
    Mariadb,
}

/// A database that lives as long as this process: ended with it by its reaper.
enum Running {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

pub fn run(options: &Options) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut running = Vec::new();
    for server in &options.servers {
        let (name, place) = match server {
            Server::Chromium => ("chromium", tools::chromium().map(|p| p.display().to_string())),
            Server::Duckdb => ("duckdb", tools::python().map(|p| p.display().to_string())),
            Server::Mysql => ("mysql", tools::mysql().map(|p| p.display().to_string())),
            Server::Postgres => {
                ("postgres", start(tools::postgres, || Postgres::start(&Settings::default()).map(Running::Postgres), &mut running))
            }
            Server::Mariadb => {
                ("mariadb", start(tools::mariadb, || MariaDb::start(&Settings::default()).map(Running::MariaDb), &mut running))
            }
        };
        tally.check(name, place);
    }
    tally.close();
    if !running.is_empty() && tally.n_failed == 0 {
        println!("Ctrl-C ends the servers and removes their data");
        loop {
            std::thread::park();
        }
    }
    Ok(tally)
}

fn start(fetch: fn() -> Result<PathBuf>, start: impl Fn() -> Result<Running>, running: &mut Vec<Running>) -> Result<String> {
    fetch()?;
    let server = start()?;
    let url = match &server {
        Running::Postgres(server) => server.url("postgres"),
        Running::MariaDb(server) => server.url(""),
    };
    running.push(server);
    Ok(url)
}
