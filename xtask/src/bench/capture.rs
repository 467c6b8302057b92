//! What the rows about captured databases share: a real server with the table of an example, and a `mulgil run` that captures it, which
//! says at what instant its changes were durable.

mod database;

pub mod latency;
pub mod memory;
pub mod snapshot;
pub mod stream;

use super::Bench;
use super::server::Server;
use crate::workload::{self, Workload};
use anyhow::{Context, Result, bail, ensure};
use database::{Database, Kind};
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Who reads the log while it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consumers {
    /// Nobody: the changes go into the log, and that is all.
    None,
    /// All of the example: streams, bars, rules, history.
    Example,
}

impl Consumers {
    const ALL: [Self; 2] = [Self::None, Self::Example];

    fn name(self) -> &'static str {
        match self {
            Self::None => "log only",
            Self::Example => "with the example's consumers",
        }
    }
}

/// Such a capture as a configuration and a data folder, empty.
fn workload(bench: &Bench, name: &str, kind: Kind, consumers: Consumers, snapshot: &str) -> Result<Workload> {
    let folder = workload::fresh_folder(&format!("bench-capture-{name}"))?;
    Workload::new(&bench.binary, &folder, &kind.config(consumers, snapshot)?)
}

/// A running `mulgil run` that captures a database.
struct Capture {
    server: Server,
    said: PathBuf,
    /// The start of its process, microseconds of the day.
    started_us: i64,
}

/// Changes that have become durable, with one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Durable {
    /// Microseconds of the day.
    at_us: i64,
    n_changes: u64,
    /// Since the source had read it: handed over, encoded, written and synced.
    own_us: i64,
}

const DAY_US: i64 = 86_400_000_000;
const LOOK_EVERY: Duration = Duration::from_millis(20);
const CONNECTS_WITHIN: Duration = Duration::from_secs(60);
/// Slower than that is not measured.
const ROWS_PER_SECOND_MIN: u64 = 5_000;

impl Capture {
    fn start(workload: &Workload, database: &Database) -> Result<Self> {
        let said = workload.config.with_extension("said");
        let stderr = File::create(&said).with_context(|| format!("create {}", said.display()))?;
        let started_us = now_us();
        let server = Server::start_with(workload, |command| {
            command.env("DATABASE_URL", database.url()).env("RUST_LOG", "warn,mulgil::capture=trace").env("NO_COLOR", "1").stderr(stderr);
        });
        let server = server.with_context(|| format!("it said: {}", std::fs::read_to_string(&said).unwrap_or_default().trim_end()))?;
        Ok(Self { server, said, started_us })
    }

    /// Waits until it streams: what is written from then on is captured.
    fn until_it_streams(&self) -> Result<()> {
        mulgil_servers::wait_until("the capture is connected", CONNECTS_WITHIN, || {
            self.fail_early()?;
            Ok(self.server.metric("mulgil_capture_up")? == 1.0)
        })
    }

    /// Waits until so many changes are durable since its start, and tells when they were.
    fn until_durable(&self, n_changes: u64) -> Result<Vec<Durable>> {
        let at_most = CONNECTS_WITHIN + Duration::from_secs(n_changes / ROWS_PER_SECOND_MIN);
        let mut durable = Vec::new();
        mulgil_servers::wait_until(&format!("{n_changes} changes are durable"), at_most, || {
            durable = self.fail_early()?;
            std::thread::sleep(LOOK_EVERY);
            Ok(durable.iter().map(|d| d.n_changes).sum::<u64>() >= n_changes)
        })?;
        let n_durable = durable.iter().map(|d| d.n_changes).sum::<u64>();
        ensure!(n_durable == n_changes, "{n_durable} changes were captured, {n_changes} were made");
        Ok(durable)
    }

    /// From the start of the process to the last of them, in seconds.
    fn seconds_until(&self, durable: &[Durable]) -> Result<f64> {
        let last = durable.iter().rev().find(|d| d.n_changes > 0).context("nothing became durable")?;
        Ok(apart_us(self.started_us, last.at_us) as f64 / 1e6)
    }

    /// What it has said so far of durable changes; an error of its is one of ours.
    fn fail_early(&self) -> Result<Vec<Durable>> {
        let said = std::fs::read_to_string(&self.said).with_context(|| format!("read {}", self.said.display()))?;
        if let Some(error) = said.lines().find(|line| line.contains(" ERROR ") || line.contains("capture is interrupted")) {
            bail!("`mulgil run` said: {error}");
        }
        Ok(said.lines().filter_map(durable).collect())
    }
}

/// `2026-11-22T07:34:40.123456Z TRACE durable n_changes=8192 handed_us=10 encode_us=2000 disk_us=300`, as `mulgil::capture::supervisor` says it.
fn durable(line: &str) -> Option<Durable> {
    let (time, rest) = line.split_once(' ')?;
    let words = rest.split_once(" durable ")?.1;
    let field = |name: &str| words.split(' ').find_map(|word| word.trim().strip_prefix(name)?.strip_prefix('=')?.parse::<i64>().ok());
    let n_changes = u64::try_from(field("n_changes")?).ok()?;
    let own_us = field("handed_us")? + field("encode_us")? + field("disk_us")?;
    let clock = time.split_once('T')?.1.strip_suffix('Z')?;
    let (clock, micros) = clock.split_once('.')?;
    let mut seconds = 0;
    for part in clock.split(':') {
        seconds = seconds * 60 + part.parse::<i64>().ok()?;
    }
    Some(Durable { at_us: seconds * 1_000_000 + format!("{micros:0<6}").parse::<i64>().ok()?, n_changes, own_us })
}

/// From one instant of the day to the next such one; a little backwards is negative.
fn apart_us(from_us: i64, to_us: i64) -> i64 {
    (to_us - from_us + DAY_US / 2).rem_euclid(DAY_US) - DAY_US / 2
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64) % DAY_US
}

/// The log has each row of the table once, and each of its streams too: else the figure means nothing.
fn verify(workload: &Workload, database: &Database, consumers: Consumers) -> Result<()> {
    let (in_table, topics) = (database.count()?, workload.topics()?);
    let streams = if consumers == Consumers::Example { database.kind.streams() } else { &[] };
    for topic in [database.kind.topic()].iter().chain(streams) {
        let in_log = topics.get(*topic).copied().unwrap_or(0);
        ensure!(in_log == in_table, "the topic {topic} has {in_log} rows, the table {in_table}");
    }
    let n_refused = topics.get("dead-letters").copied().unwrap_or(0);
    ensure!(n_refused == 0, "{n_refused} rows became dead letters");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_when_changes_were_durable() {
        let line = "2026-11-22T07:34:40.123456Z TRACE durable n_changes=8192 handed_us=10 encode_us=2000 disk_us=300";
        let at_us = ((7 * 60 + 34) * 60 + 40) * 1_000_000 + 123_456;
        assert_eq!(durable(line), Some(Durable { at_us, n_changes: 8192, own_us: 2_310 }));
        for other in [
            "mulgil 0.1.0 · data in data",
            "2026-11-22T07:34:40.123456Z  WARN durable",
            "2026-11-22T07:34:40.123456Z TRACE durable n_changes=1",
            "",
        ] {
            assert_eq!(durable(other), None, "{other}");
        }
    }

    #[test]
    fn midnight_may_lie_between() {
        assert_eq!(apart_us(DAY_US - 5, 10), 15);
        assert_eq!(apart_us(10, DAY_US - 5), -15);
        assert_eq!(apart_us(3, 10), 7);
    }
}
