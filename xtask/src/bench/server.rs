//! A running mulgil: started on a free port, ready when its health says so, ended when dropped.

use super::Bench;
use super::memory::status_mb;
use crate::process;
use crate::workload::Workload;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start may take before the bench gives up.
const READY_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(2);

pub struct Server {
    child: Child,
    address: String,
    /// From starting the process to its first "ready".
    pub ready_after: Duration,
}

impl Server {
    /// Starts `mulgil run` and waits until it is ready.
    pub fn start(workload: &Workload) -> Result<Self> {
        Self::start_with(workload, |_| {})
    }

    /// With more for the command: variables, a place for what it says.
    pub fn start_with(workload: &Workload, more: impl FnOnce(&mut Command)) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = workload.command(&["run", "--bind", &address]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        more(&mut command);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("start {}", workload.binary.display()))?;
        let mut server = Self { child, address, ready_after: Duration::ZERO };
        while !server.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                bail!("`mulgil run` ended with {status} before it was ready");
            }
            if started.elapsed() > READY_WITHIN {
                bail!("`mulgil run` was not ready within {} s", READY_WITHIN.as_secs());
            }
            std::thread::sleep(ASK_EVERY);
        }
        server.ready_after = started.elapsed();
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn is_ready(&self) -> bool {
        self.get("/health/ready").is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
    }

    /// The whole answer, head and body.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.take(4 << 20).read_to_string(&mut answer)?;
        Ok(answer)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory now, in MB (10^6 bytes).
    pub fn resident_mb(&self) -> Result<f64> {
        status_mb(self.pid(), "VmRSS:")
    }

    /// The most it ever was.
    pub fn peak_mb(&self) -> Result<f64> {
        status_mb(self.pid(), "VmHWM:")
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        Ok(self.metrics()?.get(name).copied().unwrap_or(0.0))
    }

    /// All metrics, each summed over its labels.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let mut sums = BTreeMap::new();
        for line in self.get("/metrics")?.lines().filter(|l| !l.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let name = series.split('{').next().unwrap_or_default();
            *sums.entry(name.to_owned()).or_insert(0.0) += value;
        }
        Ok(sums)
    }

    /// Processor time that it has used, in seconds (proc(5), `/proc/PID/stat`: user and system time, in hundredths).
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).context("read the server's processor time")?;
        Ok(seconds_of(&stat))
    }

    /// The same of its threads whose name begins so.
    pub fn thread_seconds(&self, name: &str) -> Result<f64> {
        let mut seconds = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid())).context("list the server's threads")? {
            // A thread that has ended meanwhile used nothing worth counting.
            let stat = std::fs::read_to_string(task?.path().join("stat")).unwrap_or_default();
            if stat.split_once('(').is_some_and(|(_, rest)| rest.starts_with(name)) {
                seconds += seconds_of(&stat);
            }
        }
        Ok(seconds)
    }

    /// Lets [`Self::peak_mb`] begin anew (proc(5), `/proc/PID/clear_refs`).
    pub fn forget_peak(&self) -> Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").context("reset the peak of the server's memory")
    }

    /// `kill -9`, as a power cut would end it.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is as good; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running bare broadcast, see `mulgil bench broadcast`; ended when dropped.
pub struct Bare {
    child: Child,
    address: String,
}

impl Bare {
    /// Frames of so many bytes, so many a second, to whoever connects.
    pub fn start(bench: &Bench, frame_bytes: f64, rate: f64) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = process::command(&bench.binary);
        command.args([
            "bench",
            "broadcast",
            "--bind",
            &address,
            "--frame-bytes",
            &format!("{frame_bytes:.0}"),
            "--rate",
            &rate.to_string(),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let bare = Self { child: command.spawn().with_context(|| format!("start `{}`", process::line(&command)))?, address };
        let started = Instant::now();
        while TcpStream::connect(&bare.address).is_err() {
            if started.elapsed() > READY_WITHIN {
                bail!("the bare broadcast did not listen within {} s", READY_WITHIN.as_secs());
            }
            std::thread::sleep(ASK_EVERY);
        }
        Ok(bare)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// User and system time of a line of `/proc/…/stat`.
fn seconds_of(stat: &str) -> f64 {
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    ticks.iter().sum::<f64>() / 100.0
}
