//! How the program is: readiness judged by data that moves, and the lag of every hop from the row's own time.

use super::captured::Started;
use crate::capture::supervisor::{Seen, State};
use crate::config::captured::CapturePlan;
use crate::pipeline::running::Running;
use mulgil_log::{Log as _, Seek};
use mulgil_model::ids::{Partition, Topic, TopicPartition};
use mulgil_model::time::AppendTime;
use mulgil_serve::ports::{Check, HopLag, Readiness, Vitals};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that may wait for a shard or the history before it counts as behind; less is the normal beat of batches.
const BACKLOG_ROWS_MAX: u64 = 200_000;

/// A backlog that has not shrunk for so long is one that does not move.
const STUCK_US: i64 = 10_000_000;

/// Below this much free space the disk is as good as full: segments and files are written in pieces of this order.
const FREE_BYTES_MIN: u64 = 256 << 20;

pub struct PipelineVitals {
    running: Arc<Running>,
    captures: Started,
    sampled: Mutex<Sampled>,
    /// Rows of trades and other input so far, for the status line.
    pub n_input_rows: AtomicU64,
}

#[derive(Default)]
struct Sampled {
    /// Rows taken when a hop last moved, and when that was.
    moved: BTreeMap<&'static str, (u64, i64)>,
    since: BTreeMap<String, (bool, i64)>,
    lag: Vec<HopLag>,
}

impl PipelineVitals {
    pub fn new(running: Arc<Running>, captures: Started) -> Self {
        Self { running, captures, sampled: Mutex::default(), n_input_rows: AtomicU64::new(0) }
    }

    /// Takes figures for metrics, readiness and lag; called once a second.
    pub fn sample(&self) {
        let now = (self.running.clock)().0;
        let lag = self.measure_lag(now);
        for hop in &lag {
            metrics::gauge!("mulgil_lag_seconds", "stream" => hop.stream.to_string(), "hop" => hop.hop.clone()).set(hop.seconds);
        }
        self.publish_log();
        self.publish_shards();
        self.publish_history();
        self.publish_captures(now);
        publish_process();
        self.sampled.lock().unwrap_or_else(PoisonError::into_inner).lag = lag;
    }

    /// Event time of each base stream's newest row against the clock, and how long ago each hop had its newest row.
    fn measure_lag(&self, now: i64) -> Vec<HopLag> {
        let mut hops = Vec::new();
        for (reader, n_partitions) in &self.running.folder.readers {
            let stream = &reader.schema().stream;
            if !self.running.config.streams.iter().any(|s| s.schema.stream == *stream) {
                continue;
            }
            let mut newest: Option<(i64, i64, i64)> = None;
            for partition in (0..*n_partitions).map(Partition) {
                let at = TopicPartition::new(stream.clone(), partition);
                let Ok(next) = self.running.folder.journal.seek(&at, Seek::Next) else { continue };
                let Some(last) = next.0.checked_sub(1) else { continue };
                let Ok(rows) = reader.read(partition, mulgil_model::ids::Offset(last), 1) else { continue };
                if rows.is_empty() {
                    continue;
                }
                let row = (rows.event_times().value(0), rows.received[0].0, rows.appended[0].0);
                newest = newest.max(Some(row));
            }
            let Some((event, received, appended)) = newest else { continue };
            let mut hop =
                |name: &str, us: i64| hops.push(HopLag { stream: stream.clone(), hop: name.to_owned(), seconds: us.max(0) as f64 / 1e6 });
            hop("receive", received - event);
            hop("log", appended - event);
            // What has been read to its end is as fresh as the log; what has not is behind by the age of what waits.
            let waits = |behind: u64| if behind == 0 { appended - event } else { now - event };
            hop("processed", waits(self.shard_backlog(stream)));
            hop("history", waits(self.history_backlog(stream, *n_partitions)));
        }
        hops
    }

    fn shard_backlog(&self, stream: &Topic) -> u64 {
        let of_stream = self.running.shards.iter().filter(|(at, _)| at.topic == *stream);
        let behind = of_stream.map(|(at, v)| self.next(at).saturating_sub(v.next_offset.load(Ordering::Acquire)));
        behind.sum()
    }

    fn history_backlog(&self, stream: &Topic, n_partitions: u32) -> u64 {
        let partitions = (0..n_partitions).map(|p| TopicPartition::new(stream.clone(), Partition(p)));
        partitions.map(|at| self.next(&at).saturating_sub(self.running.folder.history.next(&at.topic, at.partition).0)).sum()
    }

    fn next(&self, at: &TopicPartition) -> u64 {
        self.running.folder.journal.seek(at, Seek::Next).map_or(0, |o| o.0)
    }

    fn publish_log(&self) {
        let stats = self.running.folder.journal.stats();
        metrics::counter!("mulgil_log_commits_total").absolute(stats.n_commits);
        metrics::counter!("mulgil_log_commits_refused_total").absolute(stats.n_refused);
        metrics::counter!("mulgil_log_records_total").absolute(stats.n_records);
        metrics::counter!("mulgil_log_syncs_total").absolute(stats.n_syncs);
        metrics::counter!("mulgil_log_written_bytes_total").absolute(stats.written_bytes);
        metrics::gauge!("mulgil_log_sync_seconds_max").set(stats.sync_us_max as f64 / 1e6);
        metrics::gauge!("mulgil_log_bytes").set(stats.journal_bytes as f64);
        metrics::gauge!("mulgil_log_segments").set(stats.n_segments as f64);
        metrics::gauge!("mulgil_log_waiting_commits").set(stats.n_waiting as f64);
        metrics::gauge!("mulgil_log_index_cache_bytes").set(stats.index_cache_bytes as f64);
        metrics::gauge!("mulgil_log_file_cache_bytes").set(stats.file_cache_bytes as f64);
        metrics::gauge!("mulgil_log_recent_bytes").set(self.running.folder.recent.bytes() as f64);
        metrics::gauge!("mulgil_state_bytes").set(self.running.folder.state.disk_bytes() as f64);
    }

    fn publish_shards(&self) {
        let mut input_rows = 0;
        for (at, vitals) in &self.running.shards {
            let labels = [("stream", at.topic.to_string()), ("partition", at.partition.to_string())];
            let get = |v: &AtomicU64| v.load(Ordering::Relaxed);
            metrics::gauge!("mulgil_shard_backlog_rows", &labels).set(self.next(at).saturating_sub(get(&vitals.next_offset)) as f64);
            metrics::counter!("mulgil_shard_rows_total", &labels).absolute(get(&vitals.next_offset));
            metrics::counter!("mulgil_shard_late_rows_total", &labels).absolute(get(&vitals.n_late));
            metrics::counter!("mulgil_shard_duplicate_rows_total", &labels).absolute(get(&vitals.n_duplicates));
            metrics::gauge!("mulgil_shard_hot_entries", &labels).set(get(&vitals.hot_keys) as f64);
            metrics::gauge!("mulgil_shard_open_windows", &labels).set(get(&vitals.open_windows) as f64);
        }
        for (reader, n_partitions) in &self.running.folder.readers {
            let stream = &reader.schema().stream;
            if self.running.config.streams.iter().any(|s| s.schema.stream == *stream) {
                input_rows += (0..*n_partitions).map(|p| self.next(&TopicPartition::new(stream.clone(), Partition(p)))).sum::<u64>();
            }
        }
        self.n_input_rows.store(input_rows, Ordering::Relaxed);
    }

    fn publish_history(&self) {
        for stats in self.running.folder.history.stats() {
            let labels = [("stream", stats.stream.to_string())];
            metrics::gauge!("mulgil_history_files", &labels).set(stats.n_files as f64);
            metrics::gauge!("mulgil_history_file_bytes", &labels).set(stats.file_bytes as f64);
            metrics::gauge!("mulgil_history_tail_rows", &labels).set(stats.tail_rows as f64);
            metrics::gauge!("mulgil_history_tail_bytes", &labels).set(stats.tail_bytes as f64);
        }
        for (reader, n_partitions) in &self.running.folder.readers {
            let stream = &reader.schema().stream;
            let labels = [("stream", stream.to_string())];
            metrics::gauge!("mulgil_history_backlog_rows", &labels).set(self.history_backlog(stream, *n_partitions) as f64);
        }
    }

    fn publish_captures(&self, now: i64) {
        for (plan, seen) in self.captures.get().into_iter().flat_map(|captures| captures.seen()) {
            let labels = [("source", plan.name.clone())];
            metrics::gauge!("mulgil_capture_up", &labels).set(f64::from(u8::from(seen.state == State::Running)));
            metrics::counter!("mulgil_capture_changes_total", &labels).absolute(seen.n_changes);
            metrics::counter!("mulgil_capture_commits_total", &labels).absolute(seen.n_commits);
            metrics::counter!("mulgil_capture_failures_total", &labels).absolute(seen.n_failures);
            let health = &seen.health;
            let told = [
                ("mulgil_capture_lag_bytes", health.lag_bytes.map(|b| b as f64)),
                ("mulgil_capture_retained_bytes", health.retained_bytes.map(|b| b as f64)),
                ("mulgil_capture_safe_wal_bytes", health.safe_wal_bytes.map(|b| b as f64)),
                ("mulgil_capture_last_commit_age_seconds", health.committed_us.map(|us| (now - us).max(0) as f64 / 1e6)),
                ("mulgil_capture_wal_ok", health.wal_status.as_deref().map(|s| f64::from(u8::from(is_wal_safe(s))))),
                ("mulgil_capture_stale_tables", Some(health.stale.len() as f64)),
                ("mulgil_capture_snapshot_rows", Some(health.snapshot_rows as f64)),
                ("mulgil_capture_snapshot_chunks_done", Some(health.snapshot_chunks_done as f64)),
                ("mulgil_capture_snapshot_chunks", Some(health.snapshot_chunks as f64)),
            ];
            for (name, value) in told {
                if let Some(value) = value {
                    metrics::gauge!(name, &labels).set(value);
                }
            }
        }
    }

    /// A source is well while it runs and the database keeps what it has not read yet. One that is opened, or again after a short
    /// interruption, has a moment for it.
    fn capture_check(source: &str, seen: &Seen, now: i64) -> Check {
        let name = format!("capture {source}");
        let state = seen.state.name(seen.health.phase);
        let (ok, detail) = match seen.state {
            State::Running => match seen.health.wal_status.as_deref().filter(|status| !is_wal_safe(status)) {
                Some(status) => {
                    (false, format!("{state}, but the slot's wal_status is {status}: the database is about to drop what is not read yet"))
                }
                None => (true, format!("{state}, {} changes{}", seen.n_changes, stale(&seen.health.stale))),
            },
            State::Connecting => (now.abs_diff(seen.since_us) < STUCK_US as u64, state.to_owned()),
            State::Waiting | State::Refused | State::Stopped => (false, format!("{state}: {}", seen.detail)),
        };
        Check { name, ok, detail, since: None }
    }

    /// A hop is fine while it is nearly caught up, or moves.
    fn moving(&self, sampled: &mut Sampled, hop: &'static str, backlog: u64, done: u64, now: i64) -> Check {
        let (seen, at) = *sampled
            .moved
            .entry(hop)
            .and_modify(|(seen, at)| {
                if *seen != done {
                    (*seen, *at) = (done, now)
                }
            })
            .or_insert((done, now));
        debug_assert!(seen == done);
        let stuck = backlog > 0 && now - at > STUCK_US;
        let detail = match (stuck, backlog) {
            (true, n) => format!("{n} rows wait, and nothing has moved for {} s", (now - at) / 1_000_000),
            (false, 0) => "caught up".to_owned(),
            (false, n) => format!("{n} rows behind, moving"),
        };
        Check { name: hop.to_owned(), ok: !stuck && backlog <= BACKLOG_ROWS_MAX, detail, since: None }
    }

    fn checks(&self, sampled: &mut Sampled, now: i64) -> Vec<Check> {
        let stats = self.running.folder.journal.stats();
        let free = mulgil_disk::Disk::free_bytes(&mulgil_disk::RealDisk, &self.running.folder.dir).unwrap_or(0);
        let done: u64 = self.running.shards.iter().map(|(_, v)| v.next_offset.load(Ordering::Acquire)).sum();
        let kept: u64 = self.running.folder.history.stats().iter().map(|s| s.file_rows + s.tail_rows as u64).sum();
        let check = |name: &str, ok: bool, detail: String| Check { name: name.to_owned(), ok, detail, since: None };
        let captured = match self.captures.get() {
            Some(captures) => captures.seen().map(|(plan, seen)| Self::capture_check(&plan.name, &seen, now)).collect(),
            None => not_started(&self.running.config.captures),
        };
        let mut checks = vec![
            check(
                "log",
                stats.poisoned.is_none(),
                stats.poisoned.map_or_else(|| format!("{} commits", stats.n_commits), |why| why.to_string()),
            ),
            check("disk", free >= FREE_BYTES_MIN, format!("{} MB free", free / 1_000_000)),
            self.moving(sampled, "shards", self.running.backlog().unwrap_or(u64::MAX), done, now),
            self.moving(sampled, "history", self.running.history_backlog().unwrap_or(u64::MAX), kept, now),
        ];
        checks.extend(captured);
        checks
    }
}

/// The server answers before captured databases are at work: it is not ready then.
fn not_started(captures: &[CapturePlan]) -> Vec<Check> {
    let check =
        |plan: &CapturePlan| Check { name: format!("capture {}", plan.name), ok: false, detail: "starting".to_owned(), since: None };
    captures.iter().map(check).collect()
}

/// Tables that are no longer what was captured of them, the first few.
fn stale(tables: &[String]) -> String {
    const NAMED_MAX: usize = 5;
    match tables.len() {
        0 => String::new(),
        n => format!("; {n} stale until a new snapshot of them: {}", tables[..n.min(NAMED_MAX)].join("; ")),
    }
}

/// `pg_replication_slots.wal_status`: `unreserved` is about to be `lost`.
fn is_wal_safe(status: &str) -> bool {
    matches!(status, "reserved" | "extended")
}

/// What the operating system counts of this process, under the names that Prometheus gives them everywhere.
fn publish_process() {
    let figure = |file: &str, key: &str| -> Option<f64> {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_whitespace().find_map(|word| word.parse().ok())
    };
    let count = |folder: &str| std::fs::read_dir(folder).ok().map(|entries| entries.count() as f64);
    let told = [
        ("process_resident_memory_bytes", figure("/proc/self/status", "VmRSS:").map(|kib| kib * 1024.0)),
        ("process_open_fds", count("/proc/self/fd")),
        ("process_max_fds", figure("/proc/self/limits", "Max open files")),
        ("process_threads", count("/proc/self/task")),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            metrics::gauge!(name).set(value);
        }
    }
}

impl Vitals for PipelineVitals {
    fn live(&self) -> bool {
        self.running.folder.journal.stats().poisoned.is_none()
    }

    fn ready(&self) -> Readiness {
        let now = (self.running.clock)().0;
        let mut sampled = self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        let mut checks = self.checks(&mut sampled, now);
        for check in &mut checks {
            let (ok, since) = sampled.since.entry(check.name.clone()).or_insert((check.ok, now));
            if *ok != check.ok {
                (*ok, *since) = (check.ok, now);
            }
            check.since = Some(AppendTime(*since));
        }
        Readiness { ready: checks.iter().all(|c| c.ok), checks }
    }

    fn lag(&self) -> Vec<HopLag> {
        self.sampled.lock().unwrap_or_else(PoisonError::into_inner).lag.clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_database_that_is_not_at_work_yet_keeps_the_program_from_being_ready() {
        let source = "[source.db]\ntype = \"mysql\"\nurl = \"env:NONE\"\ntables = [\"a.b\"]";
        let checks = not_started(&crate::config::parse(source).unwrap().captures);
        assert_eq!(checks.iter().map(|c| (c.name.as_str(), c.ok)).collect::<Vec<_>>(), [("capture db", false)]);
    }
}
