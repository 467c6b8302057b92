//! Journal: rows of 100 B with group commit against writing and syncing the same bytes plainly.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use crate::workload;
use anyhow::{Context, Result};

pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut journal, mut raw, mut per_second, mut last) = (Vec::new(), Vec::new(), Vec::new(), serde_json::Value::Null);
    for _ in 0..bench.n_runs {
        let folder = workload::fresh_folder("bench-journal")?;
        let figures = bench.inside(&["journal", "--dir", &folder.to_string_lossy()])?;
        let field = |key: &str| figures[key].as_f64().with_context(|| format!("`mulgil bench journal` left out {key}"));
        journal.push(field("bytes")? / field("seconds")? / 1e6);
        raw.push(field("raw_bytes")? / field("raw_seconds")? / 1e6);
        per_second.push(field("rows")? / field("seconds")?);
        last = figures;
    }
    let (journal, raw) = (Runs::new(journal).context("no runs")?, Runs::new(raw).context("no runs")?);
    let rows = Runs::new(per_second).context("no runs")?.median();
    let note = format!(
        "{rows:.0} rows of {} B per second in {} groups; one fdatasync p50 {:.0} µs, p99 {:.0} µs",
        last["row_bytes"],
        last["commits"],
        last["fdatasync_p50_us"].as_f64().unwrap_or(f64::NAN),
        last["fdatasync_p99_us"].as_f64().unwrap_or(f64::NAN)
    );
    Ok(vec![Figure::compared("journal append", "MB/s", &journal, "write + fdatasync", raw.median(), Aim::RatioAtLeast(0.7)).noted(note)])
}
