//! The places at which a test may have this process end on the spot, as `kill -9` would: `MULGIL_FAILPOINT=name` or `name:n-th visit`.
//!
//! Each name stands at one place in the code (`mulgil_disk::failpoint::here`). The kill tests visit every one of them, so that a name
//! without a place, or a place that nothing reaches any more, is noticed.

use crate::config::nearest::nearest;
use anyhow::{Context, Result, bail, ensure};
use mulgil_disk::failpoint;

pub const VARIABLE: &str = "MULGIL_FAILPOINT";

/// In the order of a row's way, then what happens around it.
pub const NAMES: [&str; 33] = [
    "ingest.before-commit",
    "log.before-write",
    "log.torn-write",
    "log.before-sync",
    "log.after-sync",
    "ingest.before-answer",
    "simulator.after-commit",
    "replay.after-commit",
    "capture.batch-read",
    "capture.schema-learned",
    "capture.before-commit",
    "capture.commit-begun",
    "capture.after-commit",
    "capture.acknowledged",
    "shard.before-commit",
    "shard.after-commit",
    "shard.before-snapshot",
    "shard.after-snapshot",
    "archive.taken",
    "history.a-file-written",
    "history.files-written",
    "history.before-manifest",
    "disk.before-rename",
    "history.after-manifest",
    "history.merged",
    "history.merge-swapped",
    "history.dropped",
    "log.segment-begun",
    "log.retention",
    "log.retained",
    "log.tail-cut",
    "shard.recovering",
    "start.recovered",
];

/// Arms what the environment names; says so, because nobody should run a program that is going to end like this without knowing.
pub fn arm() -> Result<()> {
    let Some(text) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let text = text.to_string_lossy();
    let (name, nth) = parse(&text).with_context(|| format!("in {VARIABLE}={text}"))?;
    eprintln!("WARNING: {VARIABLE} is set: this process will end without cleaning up at visit {nth} of '{name}'; it is meant for tests");
    ensure!(failpoint::arm(name, nth), "a failpoint is armed already");
    Ok(())
}

/// `name` or `name:nth`.
fn parse(text: &str) -> Result<(&str, u64)> {
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    if !NAMES.contains(&name) {
        match nearest(name, NAMES) {
            Some(near) => bail!("there is no failpoint '{name}': did you mean '{near}'?"),
            None => bail!("there is no failpoint '{name}': they are {}", NAMES.join(", ")),
        }
    }
    let nth = nth.parse().ok().filter(|n| *n > 0).with_context(|| format!("'{nth}' is not a count from 1"))?;
    Ok((name, nth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, want: Expect) {
        want.assert_eq(&parse(text).map_or_else(|e| e.to_string(), |(name, nth)| format!("{name} at {nth}")));
    }

    #[test]
    fn names_are_known_and_counts_begin_at_one() {
        check("log.before-sync", expect!["log.before-sync at 1"]);
        check("log.before-sync:7", expect!["log.before-sync at 7"]);
        check("log.before-sink", expect!["there is no failpoint 'log.before-sink': did you mean 'log.before-sync'?"]);
        check("log.before-sync:0", expect!["'0' is not a count from 1"]);
    }
}
