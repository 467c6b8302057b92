//! The built `mulgil` with one configuration and one data folder: the commands that verify, score and bench drive it with.

use crate::{house, process};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the binary as `cargo run` does and says where it is. `MULGIL_BIN` names one that is built already.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("MULGIL_BIN") {
        return Ok(PathBuf::from(named));
    }
    process::run(process::command("cargo").args(["build", "--package", "mulgil"]))?;
    Ok(std::path::absolute(house::target().join("debug/mulgil"))?)
}

/// A folder of its own below the cache, empty.
pub fn fresh_folder(name: &str) -> Result<PathBuf> {
    let folder = house::cache()?.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

pub struct Workload {
    pub binary: PathBuf,
    pub config: PathBuf,
    pub data: PathBuf,
}

/// One partition of a topic, as `mulgil log ls --json` prints it.
#[derive(Debug, Deserialize)]
struct Listed {
    topic: String,
    rows: u64,
}

impl Workload {
    /// Writes the configuration into the folder; the data folder lies beside it.
    pub fn new(binary: &Path, folder: &Path, config: &str) -> Result<Self> {
        let path = folder.join("mulgil.toml");
        std::fs::write(&path, config).with_context(|| format!("write {}", path.display()))?;
        Ok(Self { binary: binary.to_path_buf(), config: path, data: folder.join("data") })
    }

    /// `mulgil COMMAND … --config … --data …`
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = process::command(&self.binary);
        command.args(words).arg("--config").arg(&self.config).arg("--data").arg(&self.data);
        command
    }

    /// Replays files to the end and closes all windows.
    pub fn replay(&self, files: &[PathBuf]) -> Result<()> {
        process::run(self.command(&["replay"]).arg("--finish").args(files))
    }

    /// Replays files and leaves windows open, as a stream that goes on would.
    pub fn replay_open(&self, files: &[&PathBuf]) -> Result<()> {
        process::run(self.command(&["replay"]).args(files))
    }

    /// Writes the answer as CSV.
    pub fn query(&self, sql: &str, out: &Path) -> Result<()> {
        process::read(self.command(&["query", sql, "--format", "csv"]).arg("--out").arg(out)).map(drop)
    }

    /// The answer to a question with one number.
    pub fn number(&self, sql: &str) -> Result<u64> {
        let text = process::read(&mut self.command(&["query", sql, "--format", "csv"]))?;
        let last = text.lines().last().unwrap_or_default().trim();
        last.parse().with_context(|| format!("`{sql}` should answer with one number, not {last:?}"))
    }

    /// Rows of each topic in the log.
    pub fn topics(&self) -> Result<BTreeMap<String, u64>> {
        let text = process::read(&mut self.command(&["log", "ls", "--json"]))?;
        let mut rows = BTreeMap::new();
        for line in text.lines() {
            let listed: Listed = serde_json::from_str(line).with_context(|| format!("read the line {line:?} of `mulgil log ls --json`"))?;
            *rows.entry(listed.topic).or_insert(0) += listed.rows;
        }
        Ok(rows)
    }
}

/// The files of the real trades, by name.
pub fn trade_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|f| f.to_string_lossy().ends_with(".csv.zst"));
    files.sort();
    if files.is_empty() {
        bail!("no *.csv.zst in {}", folder.display());
    }
    Ok(files)
}
