//! Latency: from the commit of a row to its arrival at a WebSocket client, at 10,000 rows a second, against one fdatasync.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::server::Server;
use anyhow::{Context, Result, bail};

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("latency")?;
    let server = Server::start(&workload)?;
    let folder = workload.data.to_string_lossy().into_owned();
    let figures = bench.inside(&["latency", "--url", &server.url(), "--rate", "10000", "--seconds", "10", "--dir", &folder])?;
    let field = |key: &str| figures[key].as_f64().with_context(|| format!("`mulgil bench latency` left out {key}"));
    if field("received")? < field("sent")? {
        bail!("{} rows sent, only {} arrived", figures["sent"], figures["received"]);
    }
    let disk = field("fdatasync_p99_us")? / 1e3;
    let row = |name: &str, key: &str, aim: f64| -> Result<Figure> {
        Ok(Figure::compared(name, "ms", &Runs::one(field(key)? / 1e3), "one fdatasync, p99", disk, Aim::RatioAtMost(aim)))
    };
    let note = format!("{} rows at {:.0} a second, one run", figures["rows"], field("sent")? / field("seconds")?);
    Ok(vec![row("commit to WebSocket, p50", "p50_us", 2.0)?, row("commit to WebSocket, p99", "p99_us", 4.0)?.noted(note)])
}
