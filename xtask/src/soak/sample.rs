//! What is looked at every few seconds of a soak: memory, files, threads, bytes on disk, and what waits in queues.

use crate::bench::memory::Samples;
use crate::bench::server::Server;
use crate::process::folder_bytes;
use crate::workload::Workload;
use anyhow::Result;

/// One column of the CSV and one panel of the drawing.
pub struct Column {
    pub name: &'static str,
    from: From,
}

enum From {
    ResidentMemory,
    OpenFiles,
    Threads,
    /// A metric, summed over its labels, divided by this.
    Metric(&'static str, f64),
    /// The bytes of a folder below the data folder, in MB.
    Folder(&'static str),
}

const fn column(name: &'static str, from: From) -> Column {
    Column { name, from }
}

pub const COLUMNS: [Column; 16] = [
    column("resident_mb", From::ResidentMemory),
    column("open_files", From::OpenFiles),
    column("threads", From::Threads),
    column("journal_mb", From::Metric("mulgil_log_bytes", 1e6)),
    column("history_mb", From::Folder("history")),
    column("state_mb", From::Metric("mulgil_state_bytes", 1e6)),
    column("shard_backlog_rows", From::Metric("mulgil_shard_backlog_rows", 1.0)),
    column("history_backlog_rows", From::Metric("mulgil_history_backlog_rows", 1.0)),
    column("history_tail_mb", From::Metric("mulgil_history_tail_bytes", 1e6)),
    column("waiting_commits", From::Metric("mulgil_log_waiting_commits", 1.0)),
    column("hot_entries", From::Metric("mulgil_shard_hot_entries", 1.0)),
    column("open_windows", From::Metric("mulgil_shard_open_windows", 1.0)),
    column("ws_clients", From::Metric("mulgil_ws_clients", 1.0)),
    column("ws_buffered_kb", From::Metric("mulgil_ws_buffered_bytes", 1e3)),
    column("ring_mb", From::Metric("mulgil_live_ring_bytes", 1e6)),
    column("readers_behind", From::Metric("mulgil_live_readers_behind", 1.0)),
];

/// All columns at one moment.
pub struct Sample {
    pub seconds: f64,
    pub values: [f64; COLUMNS.len()],
}

impl Sample {
    pub fn take(server: &Server, workload: &Workload, seconds: f64) -> Result<Self> {
        let metrics = server.metrics()?;
        let proc = format!("/proc/{}", server.pid());
        let mut values = [0.0; COLUMNS.len()];
        for (value, column) in values.iter_mut().zip(&COLUMNS) {
            *value = match &column.from {
                From::ResidentMemory => server.resident_mb()?,
                From::OpenFiles => std::fs::read_dir(format!("{proc}/fd"))?.count() as f64,
                From::Threads => std::fs::read_dir(format!("{proc}/task"))?.count() as f64,
                From::Metric(name, divided_by) => metrics.get(*name).copied().unwrap_or(0.0) / divided_by,
                From::Folder(name) => folder_bytes(&workload.data.join(name))? as f64 / 1e6,
            };
        }
        Ok(Self { seconds, values })
    }

    pub fn value(&self, name: &str) -> f64 {
        COLUMNS.iter().position(|c| c.name == name).map_or(f64::NAN, |at| self.values[at])
    }
}

/// Over the second half of the run: how much the best straight line rises, and the mean. None for too few samples.
pub fn growth(samples: &[Sample], name: &str) -> Option<(f64, f64)> {
    const SAMPLES_MIN: usize = 8;
    let half = samples.get(samples.len() / 2..).filter(|half| half.len() >= SAMPLES_MIN)?;
    let mean = half.iter().map(|s| s.value(name)).sum::<f64>() / half.len() as f64;
    let minutes = (half.last()?.seconds - half.first()?.seconds) / 60.0;
    let per_minute = Samples(half.iter().map(|s| (s.seconds, s.value(name))).collect()).growth_per_minute(0.0);
    Some((per_minute * minutes, mean))
}
