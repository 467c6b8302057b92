//! Memory: what the process holds while nothing happens, and at its peak while 100,000 rows a second come in.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::server::Server;
use anyhow::Result;
use std::time::Duration;

/// What a fresh process still allocates after it is ready has settled by then.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("memory")?;
    let server = Server::start(&workload)?;
    std::thread::sleep(SETTLES_WITHIN);
    let idle = server.resident_mb()?;
    let mut figures = vec![Figure::alone("resident memory, idle", "MB", &Runs::one(idle), Aim::AtMost(60.0))];
    let folder = workload.data.to_string_lossy().into_owned();
    let load = ["latency", "--url", &server.url(), "--rate", "100000", "--seconds", "15", "--dir", &folder];
    figures.push(match bench.inside(&load) {
        Ok(sent) => {
            let note = format!("{} rows in {} s, one WebSocket client listening to all of them", sent["sent"], sent["seconds"]);
            Figure::alone("resident memory, peak at 100,000 rows/s", "MB", &Runs::one(server.peak_mb()?), Aim::AtMost(300.0)).noted(note)
        }
        Err(error) => Figure::missing("resident memory, peak at 100,000 rows/s", &error),
    });
    Ok(figures)
}
