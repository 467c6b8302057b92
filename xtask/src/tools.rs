//! Programs that tests need and a fresh machine lacks: a Python with DuckDB, Chromium, Node, database servers. Fetched once; what is no
//! system package is kept in the cache folder.

mod mysql;

use crate::{house, process};
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The independent engine and the decompressor that verify and bench use, pinned so that two machines compute the same.
const PYTHON_PACKAGES: [&str; 2] = ["duckdb==2.0.0", "zstandard==0.25.0"];
const PYTHON_CHECK: &str = "import duckdb, zstandard; assert duckdb.__version__ == '2.0.0'";

/// A Python that has DuckDB: the system's where it does already, else one of our own in the cache folder.
pub fn python() -> Result<PathBuf> {
    let own = house::cache()?.join("venv/bin/python");
    for candidate in [own.clone(), PathBuf::from("python3")] {
        if has_packages(&candidate) {
            return Ok(candidate);
        }
    }
    let venv = house::cache()?.join("venv");
    if make_venv(&venv).is_err() {
        install(&["python3", "python3-venv"]).context("Python with the venv module is missing")?;
        make_venv(&venv)?;
    }
    let mut pip = process::command(&own);
    process::run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PYTHON_PACKAGES))?;
    if !has_packages(&own) {
        bail!("{} cannot import DuckDB 2.0.0 after installing it; delete {} and try again", own.display(), venv.display());
    }
    Ok(own)
}

fn has_packages(python: &PathBuf) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", PYTHON_CHECK]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

fn make_venv(folder: &PathBuf) -> Result<()> {
    process::read(process::command("python3").args(["-m", "venv", "--clear"]).arg(folder)).map(drop)
}

/// A Chromium for the test of the page; `CHROMIUM` names another.
pub fn chromium() -> Result<PathBuf> {
    let named = std::env::var("CHROMIUM").ok();
    let candidates = named.iter().map(String::as_str).chain(["/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome"]);
    if let Some(found) = candidates.into_iter().find(|c| process::exists(c)) {
        return Ok(PathBuf::from(found));
    }
    install(&["chromium"])?;
    Ok(PathBuf::from("/usr/bin/chromium"))
}

/// Node's packages of the page, exactly as web/package-lock.json pins them.
pub fn node_modules() -> Result<()> {
    if !process::exists("npm") {
        install(&["nodejs", "npm"])?;
    }
    let web = house::root().join("web");
    let modified = |file: &str| std::fs::metadata(web.join(file)).and_then(|m| m.modified()).ok();
    let installed = modified("node_modules/.package-lock.json");
    if installed.is_some() && installed >= modified("package-lock.json") {
        return Ok(());
    }
    let mut command = process::command("npm");
    process::read(command.args(["ci", "--no-audit", "--no-fund"]).current_dir(web)).map(drop)
}

/// PostgreSQL's programs.
pub fn postgres() -> Result<PathBuf> {
    installed(mulgil_servers::Postgres::installed, "postgresql")
}

/// MariaDB's server.
pub fn mariadb() -> Result<PathBuf> {
    installed(mulgil_servers::MariaDb::installed, "mariadb-server")
}

/// MySQL's programs, which no package of the system has.
pub fn mysql() -> Result<PathBuf> {
    mysql::programs()
}

fn installed(find: fn() -> Result<PathBuf>, package: &str) -> Result<PathBuf> {
    if let Ok(found) = find() {
        return Ok(found);
    }
    install(&[package])?;
    find()
}

/// Installs system packages where that is possible without asking: as root, with apt.
fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !is_root() || !process::exists("apt-get") {
        bail!("{names} must be installed; on Debian or Ubuntu: sudo apt-get install {names}");
    }
    println!("installing {names}");
    process::read(process::command("apt-get").args(["update", "-q"]))?;
    let _quiet = NoServices::new();
    let mut command = process::command("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-q", "-y", "--no-install-recommends"]).args(packages);
    process::read(&mut command).map(drop)
}

/// While this lives, packages start no service of their own: tests start servers where they want them (invoke-rc.d(8), policy-rc.d).
struct NoServices(Option<PathBuf>);

impl NoServices {
    fn new() -> Self {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        let is_ours = !policy.exists() && write_program(&policy, "#!/bin/sh\nexit 101\n").is_ok();
        Self(is_ours.then_some(policy))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.0 {
            std::fs::remove_file(policy).ok();
        }
    }
}

fn write_program(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}

fn is_root() -> bool {
    process::read(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
