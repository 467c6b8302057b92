//! Coverage-guided fuzzing with libFuzzer on the stable toolchain. Only the workspace's own crates are instrumented
//! (`fuzz/instrument.sh` as cargo's wrapper), so that the dependencies are those that tests have built already.

use crate::tally::Tally;
use crate::{house, process};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long one input may take before it counts as endless.
const INPUT_SECONDS_MAX: u32 = 20;
/// The whole process, including what C libraries take.
const PROCESS_MB_MAX: u32 = 2_048;
/// Committed inputs of one target at most, by size: fewer, smaller ones are kept before more and larger ones.
const KEPT_BYTES_MAX: u64 = 64 << 10;
/// The suite runs all of them, unoptimised builds some ten a second.
const KEPT_FILES_MAX: usize = 40;

#[derive(Args)]
pub struct Options {
    /// One target; all of them when left out
    target: Option<String>,
    /// Seconds per target
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Minutes per target
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// As CI runs it: all targets in about three minutes
    #[arg(long, conflicts_with_all = ["seconds", "minutes"])]
    quick: bool,
    /// Run this one input and nothing else
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
    /// Afterwards put what was found beyond the seeds, minimised, into fuzz/corpus
    #[arg(long)]
    keep: bool,
}

pub fn run(options: &Options) -> Result<Tally> {
    let fuzzer = Fuzzer::build()?;
    let targets = fuzzer.targets(options.target.as_deref())?;
    if let (Some(input), [target]) = (&options.input, &targets[..]) {
        return fuzzer.repeat(target, input);
    }
    let seconds = match options.minutes {
        _ if options.quick => 150 / targets.len() as u64,
        Some(minutes) => minutes * 60,
        None => options.seconds,
    };
    let mut tally = Tally::default();
    for target in &targets {
        tally.check(&format!("fuzz {target}"), fuzzer.fuzz(target, seconds));
        if options.keep {
            fuzzer.keep(target)?;
        }
    }
    tally.close();
    Ok(tally)
}

struct Fuzzer {
    binary: PathBuf,
    /// Corpora and findings of this machine, kept between runs.
    folder: PathBuf,
}

impl Fuzzer {
    fn build() -> Result<Self> {
        let mut cargo = process::command("cargo");
        cargo.env("RUSTC_WORKSPACE_WRAPPER", house::root().join("fuzz/instrument.sh"));
        process::run(cargo.args(["build", "--quiet", "--locked", "--package", "mulgil-fuzz", "--features", "libfuzzer"]))?;
        let target = std::path::absolute(house::target())?;
        Ok(Self { binary: target.join("debug/mulgil-fuzz"), folder: target.join("fuzz") })
    }

    fn command(&self, target: &str) -> Command {
        let mut command = process::command(&self.binary);
        command.env("MULGIL_FUZZ_TARGET", target);
        command
    }

    fn targets(&self, only: Option<&str>) -> Result<Vec<String>> {
        let all: Vec<String> = process::read(&mut self.command("list"))?.lines().map(str::to_owned).collect();
        match only {
            None => Ok(all),
            Some(name) if all.iter().any(|t| t == name) => Ok(vec![name.to_owned()]),
            Some(name) => bail!("there is no target '{name}'; there are {}", all.join(", ")),
        }
    }

    fn repeat(&self, target: &str, input: &Path) -> Result<Tally> {
        let mut command = self.command(target);
        command.env("MULGIL_FUZZ_TRACE", "1").arg(std::path::absolute(input)?);
        let mut tally = Tally::default();
        tally.check(&format!("{target} with {}", input.display()), process::run(&mut command).map(|()| String::new()));
        tally.close();
        Ok(tally)
    }

    /// Folders of a target: where new inputs go, the seeds, and what is committed.
    fn corpora(&self, target: &str) -> Result<Vec<PathBuf>> {
        let own = ["corpus", "seeds"].map(|kind| self.folder.join(kind).join(target));
        for folder in &own {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let committed = ["corpus", "regressions"].map(|kind| house::root().join("fuzz").join(kind).join(target));
        Ok(own.into_iter().chain(committed.into_iter().filter(|f| f.is_dir())).collect())
    }

    fn fuzz(&self, target: &str, seconds: u64) -> Result<String> {
        let corpora = self.corpora(target)?;
        let findings = self.folder.join("findings").join(target);
        std::fs::create_dir_all(&findings)?;
        let mut command = self.command(target);
        command.env("MULGIL_FUZZ_SEEDS", &corpora[1]).args(&corpora).arg("-print_final_stats=1");
        command.arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        command.arg(format!("-rss_limit_mb={PROCESS_MB_MAX}")).arg(format!("-artifact_prefix={}/", findings.display()));
        let output = command.output().with_context(|| format!("start `{}`", process::line(&command)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let report = Report::of(&said);
        if output.status.success() {
            return Ok(report.line());
        }
        let what: Vec<&str> = said.lines().skip_while(|l| !is_finding(l)).take_while(|l| !l.starts_with("NOTE:")).take(12).collect();
        let Some(input) = &report.artifact else { bail!("the fuzzer ended with {}: {said}", output.status) };
        bail!("{}\n{}\nkept as {input}\nrepeat it: cargo xtask fuzz {target} --input {input}", report.line(), what.join("\n"))
    }

    /// What the inputs of this machine cover and the seeds do not, as few and small ones as will do.
    fn keep(&self, target: &str) -> Result<()> {
        let corpora = self.corpora(target)?;
        let (committed, merged) = (house::root().join("fuzz/corpus").join(target), self.folder.join("merged").join(target));
        std::fs::remove_dir_all(&merged).ok();
        std::fs::create_dir_all(&merged)?;
        // The first folder of a merge gets what the others add to it: the seeds stand in it first and leave it again.
        let seeds: Vec<PathBuf> = files(&corpora[1])?;
        for seed in &seeds {
            std::fs::copy(seed, merged.join(seed.file_name().unwrap_or_default()))?;
        }
        let mut command = self.command(target);
        command.args(["-merge=1", "-timeout=20"]).arg(&merged).args(&corpora);
        process::read(&mut command)?;
        std::fs::remove_dir_all(&committed).ok();
        std::fs::create_dir_all(&committed)?;
        let mut found = files(&merged)?;
        found.retain(|f| !f.file_name().is_some_and(|n| n.to_string_lossy().starts_with("seed-")));
        let mut sized = found.into_iter().map(|f| Ok((f.metadata()?.len(), f))).collect::<Result<Vec<_>>>()?;
        sized.sort();
        let mut kept_bytes = 0;
        for (bytes, file) in sized.into_iter().take(KEPT_FILES_MAX) {
            kept_bytes += bytes;
            if kept_bytes > KEPT_BYTES_MAX {
                break;
            }
            let name = file.file_name().unwrap_or_default().to_string_lossy().chars().take(12).collect::<String>();
            std::fs::copy(&file, committed.join(name))?;
        }
        Ok(())
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect()
}

fn is_finding(line: &str) -> bool {
    line.starts_with("FINDING")
        || line.starts_with("==")
        || line.starts_with("memory allocation of")
        || line.contains("has overflowed its stack")
}

/// What libFuzzer said about a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    n_executions: u64,
    /// Edges of the workspace's crates that were taken.
    n_edges: u64,
    n_inputs: u64,
    artifact: Option<String>,
}

impl Report {
    fn of(said: &str) -> Self {
        let mut report = Self::default();
        for line in said.lines() {
            let after = |name: &str| line.split_once(name).and_then(|(_, rest)| rest.trim_start().split([' ', '/']).next());
            let number = |name: &str| after(name).and_then(|word| word.parse().ok());
            if let Some(counted) = line.strip_prefix('#') {
                let n_done = counted.split(['\t', ' ', ':']).next().and_then(|n| n.parse().ok());
                report.n_executions = n_done.unwrap_or(report.n_executions);
                report.n_edges = number("cov:").unwrap_or(report.n_edges);
                report.n_inputs = number("corp:").unwrap_or(report.n_inputs);
            }
            report.artifact = line.split_once("Test unit written to ").map(|(_, path)| path.trim().to_owned()).or(report.artifact);
        }
        report
    }

    fn line(&self) -> String {
        format!("{:>9} executions  {:>6} edges  {:>5} inputs", self.n_executions, self.n_edges, self.n_inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read() {
        let said = "INFO: Seed: 1\n#2\tINITED cov: 9 ft: 9 corp: 1/1b\n#28085\tDONE   cov: 236 ft: 298 corp: 10/33b lim: 254 exec/s: 2553 rss: 57Mb\n";
        assert_eq!(Report::of(said), Report { n_executions: 28_085, n_edges: 236, n_inputs: 10, artifact: None });
        let crash = "#7\tNEW    cov: 3 ft: 1 corp: 2/9b\n\nFINDING json: it broke\n==7== ERROR: libFuzzer: deadly signal\nartifact_prefix='/x/'; Test unit written to /x/crash-1\n";
        assert_eq!(Report::of(crash).artifact.as_deref(), Some("/x/crash-1"));
        assert!(is_finding("FINDING json: it broke"));
    }
}
