//! Coverage-guided fuzzing with libFuzzer on the stable toolchain. Only the workspace's own crates are instrumented
//! (`fuzz/instrument.sh` as cargo's wrapper), so that the dependencies are those that tests have built already.

mod corpus;
mod report;

use crate::tally::Tally;
use crate::{house, process};
use anyhow::{Context, Result, bail};
use clap::Args;
use report::Report;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

/// How long one input may take before it counts as endless.
const INPUT_SECONDS_MAX: u32 = 20;
/// The whole process, including what C libraries take.
const PROCESS_MB_MAX: u32 = 2_048;
/// What `--quick` spends on fuzzing, building apart.
const QUICK_SECONDS: u64 = 150;

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
    /// As CI runs it: all targets from what is committed alone, in two and a half minutes
    #[arg(long, conflicts_with_all = ["seconds", "minutes", "keep"])]
    quick: bool,
    /// Targets at a time; as many as there are cores when left out
    #[arg(long)]
    jobs: Option<usize>,
    /// Run this one input and nothing else
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
    /// Afterwards put what reaches most beyond the seeds into fuzz/corpus
    #[arg(long)]
    keep: bool,
}

pub fn run(options: &Options) -> Result<Tally> {
    let started = Instant::now();
    let fuzzer = Fuzzer::build(options.quick)?;
    println!("the fuzzers are built in {} s", started.elapsed().as_secs());
    let targets = fuzzer.targets(options.target.as_deref())?;
    if let (Some(input), [target]) = (&options.input, &targets[..]) {
        return fuzzer.repeat(target, input);
    }
    let jobs = options.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let seconds = match options.minutes {
        _ if options.quick => (QUICK_SECONDS * jobs as u64 / fuzzer.targets(None)?.len() as u64).max(1),
        Some(minutes) => minutes * 60,
        None => options.seconds,
    };
    let (queue, tally) = (Mutex::new(targets.iter()), Mutex::new(Tally::default()));
    let next = || queue.lock().expect("invariant: nothing panics with this lock").next();
    let work = || {
        while let Some(target) = next() {
            let fuzzed = fuzzer.fuzz(target, seconds).and_then(|line| {
                let kept = if options.keep { fuzzer.keep(target)? } else { String::new() };
                Ok(line + &kept)
            });
            tally.lock().expect("invariant: nothing panics with this lock").check(&format!("fuzz {target}"), fuzzed);
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let tally = tally.into_inner().expect("invariant: nothing panics with this lock");
    tally.close();
    Ok(tally)
}

/// The packages that are instrumented: a crate is named after its folder.
fn ours() -> Result<Vec<String>> {
    let mut names = vec!["mulgil-fuzz".to_owned()];
    for folder in std::fs::read_dir(house::root().join("crates"))? {
        let folder = folder?.file_name().to_string_lossy().into_owned();
        names.push(if folder == "mulgil" { folder } else { format!("mulgil-{folder}") });
    }
    Ok(names)
}

struct Fuzzer {
    binary: PathBuf,
    /// Findings of this machine, and where inputs are collected.
    folder: PathBuf,
    /// What earlier runs on this machine found is left alone.
    is_fresh: bool,
}

impl Fuzzer {
    fn build(is_fresh: bool) -> Result<Self> {
        if !process::exists("c++") {
            bail!("libFuzzer is C++: install a compiler for it (`apt-get install g++`)");
        }
        let mut cargo = process::command("cargo");
        cargo.env("RUSTC_WORKSPACE_WRAPPER", house::root().join("fuzz/instrument.sh"));
        if is_fresh {
            // Not optimised, ours are compiled in a quarter of the time, and a cold machine has to compile them.
            cargo.args(ours()?.iter().flat_map(|name| ["--config".to_owned(), format!("profile.dev.package.{name}.opt-level=0")]));
        }
        process::run(cargo.args(["build", "--quiet", "--locked", "--package", "mulgil-fuzz", "--features", "libfuzzer"]))?;
        let target = std::path::absolute(house::target())?;
        Ok(Self { binary: target.join("debug/mulgil-fuzz"), folder: target.join("fuzz"), is_fresh })
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
        let own = [if self.is_fresh { "quick" } else { "corpus" }, "seeds"].map(|kind| self.folder.join(kind).join(target));
        if self.is_fresh {
            std::fs::remove_dir_all(&own[0]).ok();
        }
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
        let Some(input) = &report.artifact else { bail!("the fuzzer ended with {}: {said}", output.status) };
        let elsewhere = report.base64.as_ref().map_or_else(String::new, |text| format!("\nits bytes: echo {text} | base64 -d > input"));
        // Another build may have room on the stack where this one had none.
        let as_built = if self.is_fresh { " --quick" } else { "" };
        let repeat = format!("cargo xtask fuzz {target}{as_built} --input {input}");
        bail!("{}\n{}\nkept as {input}{elsewhere}\nrepeat it: {repeat}", report.line(), report.finding)
    }

    /// Puts into the repository what reaches most of all inputs of this machine, in place of what is there.
    fn keep(&self, target: &str) -> Result<String> {
        let corpora = self.corpora(target)?;
        let (committed, merged) = (house::root().join("fuzz/corpus").join(target), self.folder.join("merged").join(target));
        std::fs::remove_dir_all(&merged).ok();
        std::fs::create_dir_all(&merged)?;
        let control = merged.with_extension("control");
        std::fs::remove_file(&control).ok();
        let mut command = self.command(target);
        command.args(["-set_cover_merge=1", "-timeout=20"]).arg(format!("-merge_control_file={}", control.display()));
        process::read(command.arg(&merged).args(&corpora))?;
        let inputs = corpus::inputs(&std::fs::read_to_string(&control).with_context(|| format!("read {}", control.display()))?)?;
        // What once broke something runs in the suite as the seeds do.
        let is_kept = |input: &corpus::Input| !(input.path.starts_with(&corpora[0]) || input.path.starts_with(&committed));
        let (kept, found) = inputs.into_iter().partition::<Vec<_>, _>(is_kept);
        let chosen = corpus::chosen(&kept, found).into_iter();
        let chosen = chosen.map(|input| Ok((input.path.clone(), std::fs::read(&input.path)?))).collect::<Result<Vec<_>>>()?;
        std::fs::remove_dir_all(&committed).ok();
        std::fs::create_dir_all(&committed)?;
        for (path, bytes) in &chosen {
            let name = path.file_name().unwrap_or_default().to_string_lossy().chars().take(12).collect::<String>();
            std::fs::write(committed.join(name), bytes)?;
        }
        Ok(format!("  kept {} of {} bytes", chosen.len(), chosen.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()))
    }
}
