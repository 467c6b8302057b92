//! What a seed means: how the program is configured, who uses it, and what will go wrong.

use crate::random::Random;
use anyhow::Result;
use mulgil::config::checked::Checked;
use std::path::PathBuf;
use std::time::Duration;

/// Where the simulated disk has the data folder.
pub const DATA: &str = "/data";

#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub n_steps: u64,
    pub workers: usize,
    pub batch_rows: usize,
    pub n_posters: usize,
    pub n_viewers: usize,
    pub file_rows: u64,
    pub segment_bytes: u64,
    pub snapshot_every: Duration,
    pub dirty_entries_max: usize,
    pub hot_keys_max: usize,
    pub idle_after: Option<Duration>,
    pub retention_bytes: Option<u64>,
    pub faults: FaultKinds,
    /// At the end all windows are closed.
    pub finish: bool,
}

/// Which kinds of faults there are, each in percent of the steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultKinds {
    /// The machine stops, or the process is killed.
    pub crash: u64,
    /// An operation fails: a write, a sync, a rename.
    pub fail: u64,
    pub fail_read: u64,
    /// The disk is full for a while.
    pub full: u64,
    /// Of restarts: faults while recovering.
    pub while_recovering: u64,
    /// Of restarts: a bit flips in a copy, which is opened and read to the end.
    pub flip: u64,
    pub clock_jump: u64,
    /// A request or an answer is lost.
    pub network: u64,
    /// An operation takes long.
    pub slow: u64,
}

impl Scenario {
    pub fn of(seed: u64) -> Self {
        let mut r = Random::new(seed);
        let faults = FaultKinds {
            crash: r.pick(&[0, 1, 2, 4]),
            fail: r.pick(&[0, 0, 1, 2]),
            fail_read: r.pick(&[0, 0, 1, 2]),
            full: r.pick(&[0, 0, 1, 2]),
            while_recovering: r.pick(&[0, 20, 60]),
            flip: r.pick(&[0, 30, 60]),
            clock_jump: r.pick(&[0, 0, 2]),
            network: r.pick(&[0, 10, 30]),
            slow: r.pick(&[0, 0, 5]),
        };
        Self {
            seed,
            n_steps: r.between(60, 260),
            workers: r.between(1, 3) as usize,
            batch_rows: r.pick(&[1, 7, 50, 1000]),
            n_posters: r.between(1, 3) as usize,
            n_viewers: r.between(1, 3) as usize,
            file_rows: r.between(0, 200),
            segment_bytes: r.pick(&[2_000, 8_000, 40_000, 64 << 20]),
            snapshot_every: Duration::from_millis(r.pick(&[1, 500, 5_000, 3_600_000])),
            dirty_entries_max: r.pick(&[5, 40, 100_000]),
            hot_keys_max: r.pick(&[1, 3, 1000]),
            idle_after: r.pick(&[None, Some(Duration::from_secs(3))]),
            retention_bytes: r.pick(&[None, None, Some(20_000), Some(60_000)]),
            faults,
            finish: r.percent(50),
        }
    }

    /// The same small run without faults, for crashing at each of its operations in turn.
    pub fn small(seed: u64) -> Self {
        let mut r = Random::new(seed);
        Self {
            n_steps: 40,
            n_viewers: 1,
            n_posters: 1,
            file_rows: 20,
            segment_bytes: 3_000,
            snapshot_every: Duration::from_millis(500),
            workers: r.between(1, 2) as usize,
            faults: FaultKinds::default(),
            retention_bytes: None,
            ..Self::of(seed)
        }
    }

    pub fn config(&self) -> Result<Checked> {
        let mut config = mulgil::config::parse(CONFIG)?;
        config.log.dir = PathBuf::from(DATA);
        config.log.segment_bytes = self.segment_bytes;
        config.log.retention_bytes = self.retention_bytes;
        config.state.snapshot_every = self.snapshot_every;
        config.state.dirty_entries_max = self.dirty_entries_max;
        config.state.hot_keys_max = self.hot_keys_max;
        config.streams.iter_mut().for_each(|stream| stream.idle_after = self.idle_after);
        Ok(config)
    }
}

/// Two streams, one of them de-duplicated; bars, a summary, features, rules on rows and on bars, a detector.
const CONFIG: &str = r#"
[stream.trades]
kind = "trade"
decimals = { price = 2, quantity = 0 }
types = { event_id = "text" }
bars = ["1s", "1m"]
partitions = 3
time_unit = "us"
out_of_orderness = "2s"
allowed_lateness = "10s"

[stream.orders]
kind = "trade"
decimals = { price = 2, quantity = 0 }
types = { event_id = "text" }
bars = ["1m"]
partitions = 2
time_unit = "us"
allowed_lateness = "10s"
dedupe = { columns = ["event_id"], horizon = "24h" }

[summary.by_side]
stream = "trades"
group_by = ["symbol", "side"]
window = { tumbling = "5s" }
aggregates = { n = "count", total = "sum(quantity)", mean = "avg(price)" }
allowed_lateness = "10s"

[feature.previous]
stream = "trades"
agg = "lag(price)"

[feature.n]
stream = "trades"
agg = "count"
window = "10s"

[rule.move]
stream = "trades"
severity = "medium"
when = "abs(price - previous) > 0.05 * previous"
cooldown = "2s"

[rule.burst]
stream = "trades"
severity = "high"
when = "n >= 4"
transitions_only = true

[rule.bar]
stream = "trades.bars.1s"
severity = "low"
when = "count > 1"
cooldown = "5s"

[detector.rush]
type = "rush_order"
stream = "orders"

[history]
flush_after = "2s"
"#;
