//! Memory: what the process holds while nothing happens, while 100,000 rows a second come in, and at most in an unthrottled replay.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use super::inside::Inside;
use super::server::Server;
use crate::process;
use crate::workload::Workload;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a fresh process still allocates after it is ready has settled by then.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// Each fills a folder anew.
const RUNS_MAX: usize = 3;

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let n_runs = bench.n_runs.min(RUNS_MAX);
    let (mut idle, mut loaded, mut unthrottled, mut note) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    for _ in 0..n_runs {
        let workload = bench.workload("memory")?;
        let server = Server::start(&workload)?;
        std::thread::sleep(SETTLES_WITHIN);
        idle.push(server.resident_mb()?);
        let (config, data) = (workload.config.to_string_lossy(), workload.data.to_string_lossy());
        let words = ["latency", "--url", &server.url(), "--rate", "100000", "--seconds", "15", "--config", &config, "--data", &data];
        let sent = Inside::run(bench, &words)?;
        loaded.push(server.peak_mb()?);
        note = format!("{:.0} rows in {:.0} s, one client listening to all of them", sent.number("sent")?, sent.number("seconds")?);
    }
    for _ in 0..n_runs {
        let file = bench.trades(bench.n_rows, "200")?;
        unthrottled.push(peak_of_replay(&bench.workload("memory-replay")?, &file)?);
    }
    let row = |name: &str, runs: Vec<f64>, aim: f64| -> Result<Figure> {
        Ok(Figure::alone(&format!("resident memory, {name}"), "MB", &Runs::new(runs).context("no runs")?, Aim::AtMost(aim)))
    };
    Ok(vec![
        row("idle", idle, 60.0)?,
        row("peak at 100,000 rows/s", loaded, 300.0)?.noted(note),
        row("peak unthrottled", unthrottled, 600.0)?.noted(format!("a replay of {} rows", bench.n_rows)),
    ])
}

/// The most that a replay at full speed ever held, in MB.
pub fn peak_of_replay(workload: &Workload, file: &Path) -> Result<f64> {
    let mut command = workload.command(&["replay"]);
    command.arg("--finish").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("start `{}`", process::line(&command)))?;
    let mut peak = 0.0f64;
    loop {
        // The last look is a moment before the end, when there is nothing left to allocate for.
        peak = peak.max(status_mb(child.id(), "VmHWM:").unwrap_or(0.0));
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("`{}` ended with {status}", process::line(&command));
            }
            return Ok(peak);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A figure of `/proc/PID/status`, in MB (10^6 bytes).
pub fn status_mb(pid: u32, key: &str) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)).with_context(|| format!("{path} has no {key}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// A process whose resident memory is looked at again and again.
pub struct Watched {
    stop: Arc<AtomicBool>,
    samples: JoinHandle<Result<Samples>>,
}

/// (seconds, value) pairs.
pub struct Samples(pub Vec<(f64, f64)>);

impl Watched {
    pub fn start(pid: u32) -> Self {
        const EVERY: Duration = Duration::from_millis(250);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, began) = (Arc::clone(&stop), Instant::now());
        let samples = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopping.load(Ordering::Acquire) {
                samples.push((began.elapsed().as_secs_f64(), status_mb(pid, "VmRSS:")?));
                std::thread::sleep(EVERY);
            }
            Ok(Samples(samples))
        });
        Self { stop, samples }
    }

    pub fn stop(self) -> Result<Samples> {
        self.stop.store(true, Ordering::Release);
        self.samples.join().map_err(|_| anyhow::anyhow!("the watching thread broke"))?
    }
}

impl Samples {
    /// The slope of the straight line that fits best, behind the first part (0 to 1) of the time.
    pub fn growth_per_minute(&self, skipped: f64) -> f64 {
        let end = self.0.last().map_or(0.0, |(t, _)| *t);
        let counted: Vec<(f64, f64)> = self.0.iter().copied().filter(|(t, _)| *t >= end * skipped).collect();
        let n = counted.len() as f64;
        let (mean_t, mean_v) = (counted.iter().map(|s| s.0).sum::<f64>() / n, counted.iter().map(|s| s.1).sum::<f64>() / n);
        let together: f64 = counted.iter().map(|(t, v)| (t - mean_t) * (v - mean_v)).sum();
        let alone: f64 = counted.iter().map(|(t, _)| (t - mean_t).powi(2)).sum();
        if alone > 0.0 { together / alone * 60.0 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn growth_is_the_slope_behind_what_is_skipped() {
        let steep_then_flat = (0..100).map(|i| (f64::from(i), if i < 50 { f64::from(i) } else { 50.0 + f64::from(i % 2) })).collect();
        let samples = Samples(steep_then_flat);
        assert!(samples.growth_per_minute(0.5).abs() < 0.5, "{}", samples.growth_per_minute(0.5));
        assert!(samples.growth_per_minute(0.0) > 20.0);
    }
}
