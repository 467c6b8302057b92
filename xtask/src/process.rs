//! Other programs: started in the checkout, with the command line in every error.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// A command that runs in the checkout.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate::house::root());
    // What `cargo run` tells xtask about itself would make build scripts believe that their own surroundings have changed.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|n| n.starts_with("CARGO_PKG_") || n.starts_with("CARGO_MANIFEST_") || n == "CARGO_CRATE_NAME") {
            command.env_remove(name);
        }
    }
    command
}

/// `program arguments…`, for messages.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs with the terminal's own input and output; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs and returns what it printed; standard error is kept for the error's text.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start `{}`", line(command)))?;
    if !output.status.success() {
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        bail!("`{}` ended with {}: {}", line(command), output.status, tail(&String::from_utf8_lossy(said)));
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed something that is not UTF-8", line(command)))
}

/// Runs and reads one JSON object from the last line of what it printed.
pub fn read_json(command: &mut Command) -> Result<serde_json::Value> {
    let text = read(command)?;
    let last = text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("`{}` should print one JSON object; its last line is {last:?}", line(command)))
}

/// True when the program can be started at all.
pub fn exists(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The sum of all files below a folder; 0 for one that is not there.
pub fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    // Files come and go while a program writes: what is gone has no size.
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(0) };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        bytes += if kind.is_dir() { folder_bytes(&entry.path())? } else { entry.metadata().map_or(0, |m| m.len()) };
    }
    Ok(bytes)
}

/// The last lines of a program's output: what an error message has room for.
fn tail(text: &str) -> String {
    const LINES: usize = 15;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
