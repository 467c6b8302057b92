//! Delivery: messages a second per core of the server's own time, in frames of about 1 KB, against a bare broadcast with the same library
//! that sends as many frames of the same size to as many clients. Time of the processor is counted, not of the clock, so that what else
//! the machine does changes both alike.

use super::Bench;
use super::clients::check;
use super::figure::{Aim, Figure, Runs};
use super::inside::Inside;
use super::server::{Bare, Server};
use anyhow::{Context, Result};

const CLIENTS: &str = "500";
/// Such that the rows of one pull make a frame of about 1 KB.
const ROWS_PER_SECOND: &str = "320";
const SECONDS: &str = "8";

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let workload = bench.workload("delivery")?;
    let server = Server::start(&workload)?;
    let (mut ours, mut bare, mut note) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..bench.n_runs {
        let run = clients(bench, &server.url(), server.pid(), &["--rate", ROWS_PER_SECOND, "--each", "0"])?;
        check(&run)?;
        let (frames, seconds) = (run.number("frames")?, run.number("seconds")?);
        let frame_bytes = run.number("bytes")? / frames;
        let rate = frames / seconds / CLIENTS.parse::<f64>()?;
        ours.push(frames / run.number("server_cpu_seconds")?);
        let broadcast = Bare::start(bench, frame_bytes, rate)?;
        let run = clients(bench, &broadcast.url(), broadcast.pid(), &["--rate", "0"])?;
        bare.push(run.number("frames")? / run.number("server_cpu_seconds")?);
        note = format!(
            "{CLIENTS} clients, {rate:.0} frames of {frame_bytes:.0} bytes a second each; the server's time includes taking, committing, \
             computing and keeping the rows"
        );
    }
    let bare = Runs::new(bare).context("no runs")?.median();
    let ours = Runs::new(ours).context("no runs")?;
    Ok(vec![Figure::compared("delivered messages per core", "frames/s", &ours, "bare broadcast", bare, Aim::RatioAtLeast(0.5)).noted(note)])
}

fn clients(bench: &Bench, url: &str, pid: u32, more: &[&str]) -> Result<Inside> {
    let pid = pid.to_string();
    let words = ["clients", "--url", url, "--clients", CLIENTS, "--seconds", SECONDS, "--server-pid", &pid];
    Inside::run(bench, &[&words, more].concat())
}
