//! Restart: kill -9 under load, then from the start of the process to its first "ready", on the data that the replay has written.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::server::Server;
use anyhow::{Context, Result};

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("restart")?;
    workload.replay(&[bench.trades(bench.n_rows, "200")?])?;
    let mut seconds = Vec::new();
    for _ in 0..bench.n_runs {
        let server = Server::start(&workload)?;
        let folder = workload.data.to_string_lossy().into_owned();
        bench.inside(&["latency", "--url", &server.url(), "--rate", "10000", "--seconds", "2", "--dir", &folder])?;
        server.kill()?;
        let again = Server::start(&workload)?;
        seconds.push(again.ready_after.as_secs_f64());
        again.kill()?;
    }
    let runs = Runs::new(seconds).context("no runs")?;
    let note =
        format!("after {} replayed rows and {} s of 10,000 rows/s; includes the start of the process", bench.n_rows, 2 * bench.n_runs);
    Ok(vec![Figure::alone("kill -9 to ready", "s", &runs, Aim::AtMost(1.0)).noted(note)])
}
