//! Starting, watching and killing the binary; reading what it left in its log.

use mulgil_disk::RealDisk;
use mulgil_log::{Journal, JournalConfig, Log, ReadLimit, Seek};
use mulgil_model::ids::TopicPartition;
use mulgil_model::time::AppendTime;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: it decides about hanging, never about speed.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn mulgil() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mulgil"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs a command to its end; its output, whatever its exit code.
pub fn output(args: &[&str]) -> Output {
    mulgil().args(args).output().unwrap()
}

/// Runs a command that must succeed; its standard output.
pub fn ok(args: &[&str]) -> String {
    let out = output(args);
    assert!(out.status.success(), "mulgil {args:?} failed:\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// Runs a command that must fail; its standard error.
pub fn fails(args: &[&str]) -> String {
    let out = output(args);
    assert!(!out.status.success(), "mulgil {args:?} should have failed");
    String::from_utf8(out.stderr).unwrap()
}

/// Waits for a condition, with a limit on hanging.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "gave up waiting: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A server that is killed when the test ends, however it ends.
pub struct Server {
    child: Child,
    pub url: String,
    stderr: std::thread::JoinHandle<String>,
}

impl Server {
    /// Starts `mulgil run` on a free port and waits until it is ready.
    pub fn start(config: &Path, data: &Path) -> Self {
        Self::start_with(config, data, &[], &[])
    }

    pub fn start_with(config: &Path, data: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = mulgil();
        command
            .arg("run")
            .arg("-c")
            .arg(config)
            .arg("--data")
            .arg(data)
            .args(["--bind", "127.0.0.1:0"])
            .args(args)
            .envs(env.iter().copied());
        Self::spawn(command)
    }

    /// Starts a command that becomes a server, and waits until it is ready.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "mulgil ended before it was ready:\n{said}");
            said.push_str(&line);
            if let Some(url) = line.trim().strip_prefix("live page") {
                break url.trim().trim_end_matches('/').to_owned();
            }
        };
        let stderr = std::thread::spawn(move || {
            lines.read_to_string(&mut said).ok();
            said
        });
        Self { child, url, stderr }
    }

    /// kill -9
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Ctrl-C; what it said on standard error.
    pub fn stop(mut self) -> String {
        self.signal("INT");
        let status = self.child.wait().unwrap();
        let said = std::mem::replace(&mut self.stderr, std::thread::spawn(String::new)).join().unwrap();
        assert!(status.success(), "mulgil did not stop in order:\n{said}");
        said
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One record as it stands in the log, without the times of the clock.
pub type Record = (u64, Vec<u8>, i64, Vec<u8>);

/// Every topic's records, by `topic/partition`.
pub fn dump(data: &Path) -> BTreeMap<String, Vec<Record>> {
    let journal = open(data);
    let mut all = BTreeMap::new();
    for info in journal.topics() {
        all.insert(info.at.to_string(), records(&journal, &info.at));
    }
    all
}

pub fn open(data: &Path) -> Journal {
    let clock: mulgil_log::Clock = Arc::new(|| AppendTime(0));
    Journal::open_read_only(JournalConfig::new(data), Arc::new(RealDisk), clock).unwrap().0
}

fn records(journal: &Journal, at: &TopicPartition) -> Vec<Record> {
    let mut from = journal.seek(at, Seek::First).unwrap();
    let mut records = Vec::new();
    loop {
        let chunk = journal.read(at, from, ReadLimit::records(10_000)).unwrap();
        if chunk.is_empty() {
            return records;
        }
        records.extend(chunk.iter().map(|r| (r.offset.0, r.key.to_vec(), r.event_time.0, r.value.to_vec())));
        from = chunk.next_offset();
    }
}

/// The dump of what a pipeline derives from its input, and the input itself: all but the topics that depend on how it was started.
pub fn derived(data: &Path) -> BTreeMap<String, Vec<Record>> {
    let mut all = dump(data);
    all.retain(|topic, _| !topic.starts_with('_'));
    all
}

/// Bytes in the journal: how far a run has come, seen from outside.
pub fn journal_bytes(data: &Path) -> u64 {
    let files = std::fs::read_dir(data.join("journal")).into_iter().flatten().flatten();
    files.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").join(path)
}

/// A file in `dir` with this text.
pub fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
