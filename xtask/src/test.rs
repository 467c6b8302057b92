//! `cargo xtask test`: everything a fresh machine can test, with one closing line over all of it.

mod page;

use crate::tally::Tally;
use crate::{process, tidy, tools};
use anyhow::{Context, Result};
use clap::Args;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

#[derive(Args)]
pub struct Options {
    /// Leave out clippy and the page
    #[arg(long)]
    quick: bool,
    /// The tests of `capture::mysql` on a MySQL from Debian's unstable packages, instead of MariaDB
    #[arg(long, conflicts_with_all = ["quick", "filter"])]
    mysql: bool,
    /// Only cargo tests whose name contains this
    filter: Option<String>,
}

pub fn run(options: &Options) -> Result<Tally> {
    let mut tally = Tally::default();
    if options.mysql {
        let tools = Tools { mysql: Some(tools::mysql()?), ..Tools::default() };
        tally.add(cargo_tests(Some("mysql_"), Some(&tools))?);
        tally.close();
        return Ok(tally);
    }
    if let Some(filter) = &options.filter {
        tally.add(cargo_tests(Some(filter), None)?);
        tally.close();
        return Ok(tally);
    }
    println!("== tools");
    let tools = Tools::fetch(options.quick, &mut tally);
    println!("\n== tidy");
    tally.add(tidy::checks(&tidy::Options::for_tests(options.quick))?);
    println!("\n== cargo test");
    tally.add(cargo_tests(None, Some(&tools))?);
    if !options.quick {
        println!("\n== page");
        tally.add(page::checks());
    }
    tally.close();
    Ok(tally)
}

/// What was found of the tools; a test that needs a missing one fails by itself and says so.
#[derive(Default)]
struct Tools {
    python: Option<PathBuf>,
    chromium: Option<PathBuf>,
    /// Only where MariaDB is not meant.
    mysql: Option<PathBuf>,
}

impl Tools {
    fn fetch(quick: bool, tally: &mut Tally) -> Self {
        let mut fetch = |name: &str, found: Result<PathBuf>| {
            let place = found.as_ref().ok().cloned();
            tally.check(name, found.map(|p| p.display().to_string()));
            place
        };
        let python = fetch("Python with DuckDB", tools::python());
        let chromium = fetch("Chromium", tools::chromium());
        fetch("PostgreSQL", tools::postgres());
        fetch("MariaDB", tools::mariadb());
        if !quick {
            tally.check("packages of the page (npm ci)", tools::node_modules().map(|()| String::new()));
        }
        Self { python, chromium, mysql: None }
    }
}

/// All Rust tests, in the one profile and feature set that `cargo run` uses too. The output passes through as it comes.
fn cargo_tests(filter: Option<&str>, tools: Option<&Tools>) -> Result<Tally> {
    // Building is silent for minutes and is waited for apart.
    if process::run(process::command("cargo").args(["test", "--workspace", "--no-run"])).is_err() {
        println!("FAIL  the tests do not build");
        return Ok(Tally { n_passed: 0, n_failed: 1 });
    }
    let mut command = process::command("cargo");
    command.args(["test", "--workspace", "--no-fail-fast"]).args(filter);
    if let Some(tools) = tools {
        command.envs(tools.python.iter().map(|p| ("MULGIL_PYTHON", p)));
        command.envs(tools.chromium.iter().map(|c| ("CHROMIUM", c)));
        command.envs(tools.mysql.iter().map(|m| ("MULGIL_MYSQL_BIN", m)));
    }
    let (mut tally, succeeded) = streamed(&mut command, cargo_line)?;
    if !succeeded && tally.n_failed == 0 {
        println!("FAIL  `{}` did not get as far as running every test", process::line(&command));
        tally.n_failed += 1;
    }
    Ok(tally)
}

/// Longest silence of a test runner, whose tests print a line each: behind it a test hangs, and the run ends with its name instead of never.
const SILENCE_MAX: Duration = Duration::from_mins(8);

/// Runs a command, prints its lines as they come, and sums what `count` finds in them.
fn streamed(command: &mut Command, count: fn(&str) -> Option<Tally>) -> Result<(Tally, bool)> {
    // A group of its own, so that a hanging test ends together with the servers it started.
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).spawn();
    let mut child = started.with_context(|| format!("start `{}`", process::line(command)))?;
    let output = child.stdout.take().expect("stdout was piped a line above");
    let (sender, lines) = mpsc::channel();
    let reader =
        std::thread::spawn(move || BufReader::new(output).split(b'\n').map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut tally = Tally::default();
    loop {
        match lines.recv_timeout(SILENCE_MAX) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                println!("{line}");
                tally.add(count(&line).unwrap_or_default());
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("FAIL  no line for {} minutes: a test that began above and has no result hangs", SILENCE_MAX.as_secs() / 60);
                tally.n_failed += 1;
                process::run(Command::new("kill").args(["-9", "--", &format!("-{}", child.id())]))?;
                break;
            }
        }
    }
    drop(lines);
    let succeeded = child.wait()?.success();
    reader.join().ok();
    Ok((tally, succeeded))
}

/// `test result: ok. 12 passed; 0 failed; …`
fn cargo_line(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?;
    Some(Tally { n_passed: number_before(counts, " passed")?, n_failed: number_before(counts, " failed")? })
}

/// vitest: ` Tests  1 failed | 12 passed (13)`.
fn vitest_line(line: &str) -> Option<Tally> {
    let counts = line.trim_start().strip_prefix("Tests ")?;
    Some(Tally { n_passed: number_before(counts, " passed").unwrap_or(0), n_failed: number_before(counts, " failed").unwrap_or(0) })
}

fn number_before(text: &str, word: &str) -> Option<u64> {
    text[..text.find(word)?].rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_others_are_read() {
        let tally = |n_passed, n_failed| Some(Tally { n_passed, n_failed });
        for (line, expected) in [
            ("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s", tally(12, 0)),
            ("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s", tally(1, 2)),
            ("test tests::a ... ok", None),
        ] {
            assert_eq!(cargo_line(line), expected, "{line}");
        }
        assert_eq!(vitest_line("      Tests  1 failed | 12 passed (13)"), tally(12, 1));
        assert_eq!(vitest_line(" Test Files  2 passed (2)"), None);
    }
}
