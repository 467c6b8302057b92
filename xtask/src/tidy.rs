//! Static checks: what the project promises about its own sources, each with the place and what to do about it.

mod code;
mod finding;

mod calls;
mod doors;
mod features;
mod length;
mod licences;
mod links;
mod walls;
mod words;

use crate::house;
use crate::process;
use crate::tally::Tally;
use anyhow::{Context, Result, bail};
use clap::Args;
use code::Code;
use finding::report;

#[derive(Args, Default)]
pub struct Options {
    /// Leave out clippy, the only check that compiles
    #[arg(long)]
    no_clippy: bool,
    /// Lower the ratchet to today's sizes (never raises it)
    #[arg(long)]
    bless: bool,
}

impl Options {
    /// As `cargo xtask test` runs it.
    pub fn for_tests(quick: bool) -> Self {
        Self { no_clippy: quick, bless: false }
    }
}

pub fn run(options: &Options) -> Result<Tally> {
    let tally = checks(options)?;
    tally.close();
    Ok(tally)
}

/// All checks, without the closing line.
pub fn checks(options: &Options) -> Result<Tally> {
    let root = house::root();
    let rust: Vec<Code> = house::sources(&root, &["rs"])?.into_iter().map(Code::new).collect();
    let texts = house::sources(&root, &["rs", "ts", "toml", "sh", "css", "html"])?;
    let pages = house::sources(&root, &["md"])?;
    let deny = std::fs::read_to_string(root.join("deny.toml"))?;
    if options.bless {
        length::bless(&root, &rust)?;
    }

    let mut tally = Tally::default();
    let n_files = |n: usize| format!("{n} files");
    tally.check("dependency walls", report(&walls::findings(&house::manifests(&root)?)?, "crates keep to design.md section 7"));
    tally.check("banned calls", report(&calls::findings(&rust), &n_files(rust.len())));
    tally.check("length of functions and files", report(&length::findings(&length::Ratchet::read(&root)?, &rust), &n_files(rust.len())));
    tally.check("unwraps, leftovers and sleeps", report(&words::findings(&rust, &texts), &n_files(texts.len())));
    tally.check("each crate says what it must never know", report(&doors::findings(&rust), "lib.rs and main.rs"));
    tally.check("links in Markdown", report(&links::findings(&root, &pages), &n_files(pages.len())));
    tally.check("Cargo.lock is committed", locked());
    tally.check("licences, bans and sources (deny.toml)", licences::check(&deny));
    tally.check("one set of features for run and test", features::check());
    tally.check("rustfmt", formatted());
    if !options.no_clippy {
        tally.check("clippy: walls per crate", clippy(&["--lib", "--bins"], &[]));
        tally.check("clippy: all targets", clippy(&["--all-targets"], &WALL_LINTS));
    }
    Ok(tally)
}

fn formatted() -> Result<String> {
    let mut check = process::command("cargo");
    let listed = process::read(check.args(["fmt", "--all", "--check", "--", "-l"]));
    listed.map(|_| String::new()).context("run `cargo fmt --all`; it would change")
}

fn locked() -> Result<String> {
    process::read(process::command("git").args(["ls-files", "--error-unmatch", "Cargo.lock"]))?;
    process::read(process::command("cargo").args(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    Ok(String::new())
}

/// The lints that carry the walls of each crate's clippy.toml. Tests may open files and start threads, so for them these are off.
const WALL_LINTS: [&str; 2] = ["clippy::disallowed_methods", "clippy::disallowed_types"];

fn clippy(targets: &[&str], allowed: &[&str]) -> Result<String> {
    let mut command = process::command("cargo");
    command.args(["clippy", "--quiet", "--workspace"]).args(targets).args(["--", "-D", "warnings"]);
    command.args(allowed.iter().flat_map(|lint| ["-A", lint]));
    if process::run(&mut command).is_err() {
        bail!("clippy found something (above); `{}` shows it again", process::line(&command));
    }
    Ok(String::new())
}
