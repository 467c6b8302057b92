//! The cold build: `cargo build` of the first command of the README, into an empty target folder. Crates that cargo has downloaded before
//! are not downloaded again.

use super::Bench;
use super::figure::{Aim, Figure, Runs};
use crate::{process, workload};
use anyhow::Result;
use std::time::Instant;

pub fn measure(_: &Bench) -> Result<Vec<Figure>> {
    let target = workload::fresh_folder("bench-build")?;
    let started = Instant::now();
    let mut build = process::command("cargo");
    process::run(build.args(["build", "--package", "mulgil", "--jobs", "2"]).env("CARGO_TARGET_DIR", &target))?;
    let minutes = started.elapsed().as_secs_f64() / 60.0;
    std::fs::remove_dir_all(&target)?;
    let note = "one run with two jobs; see docs/adr/0006-one-build-profile.md";
    Ok(vec![Figure::alone("cold build", "min", &Runs::one(minutes), Aim::AtMost(15.0)).noted(note)])
}
