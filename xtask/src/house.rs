//! The repository as folders and files: where things lie, which sources there are, who depends on whom.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The root of the checkout: the folder above this crate. Asked when it runs, not when it is compiled: a target folder that two checkouts
/// share (`.ci/run`) may hold an xtask that was compiled in the other one, which cargo takes for fresh.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().expect("xtask lies one folder below the root").to_path_buf()
}

/// Where fetched tools and prepared data are kept between runs; `MULGIL_CACHE` moves it out of the checkout.
pub fn cache() -> Result<PathBuf> {
    let folder = match std::env::var_os("MULGIL_CACHE") {
        Some(named) => PathBuf::from(named),
        None => target().join("xtask-cache"),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("create the cache folder {}", folder.display()))?;
    Ok(std::path::absolute(folder)?)
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The real trades to replay; the error names the folder that is missing.
pub fn trades(given: Option<&Path>) -> Result<PathBuf> {
    let data = given.map_or_else(|| root().join("../shared/data"), Path::to_path_buf);
    let trades = data.join("trades");
    if !trades.join("labels.csv").is_file() {
        bail!(
            "no real trades at {}: this check needs that folder with labels.csv and *.csv.zst; name another with --data DIR",
            trades.display()
        );
    }
    Ok(std::fs::canonicalize(trades)?)
}

/// A file of the checkout, as text, with its path from the root.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    /// True for files that hold only tests: integration tests, and modules kept in a file named for tests.
    pub fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.contains("/tests/")
            || self.path.contains("/benches/")
            || name == "tests.rs"
            || name.ends_with("_test.rs")
            || name.ends_with("_tests.rs")
    }

    /// The crate's folder: `crates/log` or `xtask`.
    pub fn crate_folder(&self) -> &str {
        let n_parts = if self.path.starts_with("crates/") { 2 } else { 1 };
        let end = self.path.match_indices('/').nth(n_parts - 1).map_or(self.path.len(), |(at, _)| at);
        &self.path[..end]
    }
}

const SKIPPED: [&str; 5] = ["target", "node_modules", ".git", "dist", "data"];

/// All files below the root with one of these extensions, in path order, without build output and fetched code.
pub fn sources(root: &Path, extensions: &[&str]) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file() && extensions.iter().any(|e| path.extension().is_some_and(|x| x == *e)) {
                let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
                found.push(Source { path: relative(root, &path), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

/// The manifests of the workspace's crates, by folder (`crates/log`, `xtask`).
pub fn manifests(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.join("servers"), root.join("xtask")];
    for entry in std::fs::read_dir(root.join("crates"))? {
        folders.push(entry?.path());
    }
    for folder in folders {
        let manifest = folder.join("Cargo.toml");
        if manifest.is_file() {
            found.insert(relative(root, &folder), std::fs::read_to_string(&manifest)?);
        }
    }
    Ok(found)
}
