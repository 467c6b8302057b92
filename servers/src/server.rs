//! One server process: started on a port of its own, waited for, stopped, killed, started again. What every kind of server can do is here;
//! `Postgres` and `MariaDb` are one with something to say of their own.

use crate::folder::Folder;
use crate::programs::{self, tail};
use crate::reaper::Reaper;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for a server to answer: recovery after a kill on a busy machine included.
const START_MAX: Duration = Duration::from_mins(3);
const STOP_MAX: Duration = Duration::from_mins(1);
const POLL_EVERY: Duration = Duration::from_millis(25);
/// How often another port is tried when somebody else took ours in between.
const PORTS_TRIED_MAX: u32 = 8;

pub struct Server {
    pub(crate) folder: Folder,
    pub(crate) port: u16,
    pub(crate) plan: Plan,
    child: Option<Child>,
    reaper: Reaper,
}

/// How the server is started and asked.
pub(crate) struct Plan {
    pub program: PathBuf,
    pub arguments: fn(&Server) -> Vec<OsString>,
    /// Succeeds when the server takes connections; over its own socket, never a port that may be another's.
    pub ready: fn(&Server) -> Result<Command>,
    /// The signal that asks for an orderly end.
    pub stop_signal: &'static str,
    /// Settings of the server's own.
    pub settings: Vec<(String, String)>,
}

impl Server {
    /// Starts it, on the next port that is free.
    pub(crate) fn start(folder: Folder, plan: Plan) -> Result<Self> {
        let reaper = Reaper::start(folder.root())?;
        let mut server = Self { folder, port: 0, plan, child: None, reaper };
        for _ in 0..PORTS_TRIED_MAX {
            server.port = free_port()?;
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(error) if format!("{error:#}").contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
        bail!("{PORTS_TRIED_MAX} ports in a row were taken by others before {} could listen", server.name());
    }

    /// Starts it on its port and data, and waits until it answers.
    fn launch(&mut self) -> Result<()> {
        anyhow::ensure!(self.child.is_none(), "{} is running", self.name());
        let log = std::fs::File::options().create(true).append(true).open(self.folder.log()).context("open the server's log")?;
        let said_before = log.metadata()?.len();
        let mut command = Command::new(&self.plan.program);
        command.args((self.plan.arguments)(self)).current_dir(self.folder.data()).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = self.folder.account.applied(&mut command).spawn().with_context(|| format!("start {}", self.name()))?;
        self.reaper.watch(child.id())?;
        self.child = Some(child);
        let started = self.wait_ready();
        if started.is_err() {
            self.kill_hard()?;
        }
        started.with_context(|| format!("{} did not start; its log ends with:\n{}", self.name(), self.log_tail(said_before)))
    }

    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("it ended with {status}");
            }
            let mut ready = (self.plan.ready)(self)?;
            ready.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if ready.status().context("ask whether the server is ready")?.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("it did not answer within {} s", START_MAX.as_secs());
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// An orderly end; the data stays.
    pub fn stop(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        signal(self.plan.stop_signal, &[child.id()])?;
        let deadline = Instant::now() + STOP_MAX;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("{} did not stop within {} s; its log ends with:\n{}", self.name(), STOP_MAX.as_secs(), self.log_tail(0));
            }
            std::thread::sleep(POLL_EVERY);
        }
        self.child = None;
        self.reaper.watch(0)
    }

    /// Starts it again after a kill or a stop, or stops it first: same port, same data.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch()
    }

    /// Changes a setting of the command line, from the next restart on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.plan.settings.push((name.to_owned(), value.to_owned()));
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data(&self) -> PathBuf {
        self.folder.data()
    }

    /// `kill -9` for every process of the server, as when the power fails, but for what the operating system still writes. The data stays.
    pub fn kill_hard(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        // A stopped parent has no more children while the list is made, and restarts none that die before it.
        signal("STOP", &[child.id()]).ok();
        let mut pids = self.pids()?;
        pids.push(child.id());
        signal("KILL", &pids).ok();
        child.wait()?;
        let deadline = Instant::now() + STOP_MAX;
        while !self.pids()?.is_empty() {
            signal("KILL", &self.pids()?).ok();
            anyhow::ensure!(Instant::now() < deadline, "processes of {} outlive a kill -9", self.name());
            std::thread::sleep(POLL_EVERY);
        }
        self.reaper.watch(0)
    }

    /// Halts all of its processes: connections stay open and silent. [`Self::thaw`] goes on.
    pub fn freeze(&self) -> Result<()> {
        self.hold(true)
    }

    pub fn thaw(&self) -> Result<()> {
        self.hold(false)
    }

    fn hold(&self, is_frozen: bool) -> Result<()> {
        signal(if is_frozen { "STOP" } else { "CONT" }, &self.pids()?)
    }

    /// The server's processes: all work in its data folder, whoever their parent is by now.
    fn pids(&self) -> Result<Vec<u32>> {
        let data = std::fs::canonicalize(self.folder.data())?;
        let processes = std::fs::read_dir("/proc").context("list the processes")?.flatten();
        let of_ours = processes.filter(|p| std::fs::read_link(p.path().join("cwd")).is_ok_and(|cwd| cwd == data));
        Ok(of_ours.filter_map(|p| p.file_name().to_str()?.parse().ok()).collect())
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read(self.folder.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of what it said behind the first `from` bytes.
    fn log_tail(&self, from: u64) -> String {
        let text = self.log();
        tail(text.get(from as usize..).unwrap_or(&text))
    }

    fn name(&self) -> String {
        self.plan.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A file with this text, as the input of a client: a pipe could fill up while the client writes its answer.
    pub(crate) fn input(&self, text: &str) -> Result<std::fs::File> {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile_in(self.folder.root()).context("make a temporary file")?;
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What cannot be ended here is left to the reaper.
        if self.kill_hard().is_ok() && remove(self.folder.root()).is_ok() {
            self.reaper.dismiss();
        }
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn signal(name: &str, pids: &[u32]) -> Result<()> {
    if pids.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(pids.iter().map(u32::to_string));
    programs::read(&mut command).map(drop)
}

/// A port that nobody listens on, below those that the system gives to outgoing connections: a client that tries again while its server is
/// down would else connect to itself one day.
fn free_port() -> Result<u16> {
    const FIRST: u32 = 15_000;
    const PORTS: u32 = 17_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(7_919);
    for _ in 0..PORTS {
        let port = FIRST + begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(port).expect("invariant: FIRST + PORTS is below 2^16");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port from {FIRST} to {} is free on the loopback interface", FIRST + PORTS)
}
