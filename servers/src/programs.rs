//! Where the servers' programs are, and how one of them is run to its end.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of PostgreSQL's programs: the one that `MULGIL_POSTGRES_BIN` names, pg_config's, or the newest of Debian's.
pub fn postgres() -> Result<PathBuf> {
    let named = std::env::var_os("MULGIL_POSTGRES_BIN").map(PathBuf::from);
    if let Some(named) = named {
        let has = named.join("postgres").is_file();
        return has.then_some(named.clone()).with_context(|| format!("MULGIL_POSTGRES_BIN is {}: no postgres in it", named.display()));
    }
    let configured = read(Command::new("pg_config").arg("--bindir")).ok().map(|folder| PathBuf::from(folder.trim()));
    let candidates = configured.into_iter().chain(debian_versions()).chain(path_folders());
    candidates
        .into_iter()
        .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
        .context("PostgreSQL is not installed: apt-get install postgresql (or `cargo xtask up postgres` as root)")
}

/// `/usr/lib/postgresql/15/bin`, newest first.
fn debian_versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin")))).collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// A program of MariaDB's package.
pub fn mariadb(name: &str) -> Result<PathBuf> {
    let folders = path_folders().into_iter().chain(["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from));
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("{name} is not installed: apt-get install mariadb-server (or `cargo xtask up mariadb` as root)"))
}

/// The folder of MySQL's programs, where one is to be used instead of MariaDB.
pub fn mysql_folder() -> Option<PathBuf> {
    std::env::var_os("MULGIL_MYSQL_BIN").map(PathBuf::from)
}

/// A program of MySQL's.
pub fn mysql(name: &str) -> Result<PathBuf> {
    let folder = mysql_folder().context("MULGIL_MYSQL_BIN names no folder")?;
    let program = folder.join(name);
    program.is_file().then_some(program).with_context(|| format!("MULGIL_MYSQL_BIN is {}: no {name} in it", folder.display()))
}

fn path_folders() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// Runs to the end and gives what it printed; the error has what it said instead.
pub fn read(command: &mut Command) -> Result<String> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A command that wants input has been given it.
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().with_context(|| format!("start {name}"))?;
    if !output.status.success() {
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        bail!("{name} ended with {}: {}", output.status, tail(&String::from_utf8_lossy(said)));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} printed something that is not UTF-8"))
}

/// The last lines of a text: what an error message has room for.
pub fn tail(text: &str) -> String {
    const LINES_MAX: usize = 25;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}
