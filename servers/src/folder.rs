//! The folder of one server, below the system's folder for temporary files, and the cache of initialised data folders that make a start
//! quick.

use crate::account::Account;
use anyhow::{Context, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// `<temp>/data` is the server's, `<temp>/log` what it said, `<temp>/socket` its Unix socket's folder.
pub struct Folder {
    temp: TempDir,
    pub account: Account,
}

/// Others may pass through, but not list: the server's user has to reach its data.
const PASSAGE: u32 = 0o711;

impl Folder {
    pub fn new(user: &str) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("mulgil-server-").tempdir().context("make a temporary folder")?;
        let account = Account::for_server(user, temp.path())?;
        std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(PASSAGE))?;
        let folder = Self { temp, account };
        std::fs::create_dir(folder.socket())?;
        account.own(&folder.socket())?;
        Ok(folder)
    }

    pub fn root(&self) -> &Path {
        self.temp.path()
    }

    pub fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.root().join("log")
    }

    pub fn socket(&self) -> PathBuf {
        self.root().join("socket")
    }

    /// Puts an initialised data folder into place: a copy of the cached one, which `initialise` makes the first time. `name` tells
    /// everything that makes one differ from another: program, version, options.
    pub fn fill(&self, name: &str, initialise: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let template = templates(self)?.join(name);
        if !template.is_dir() {
            let making = Self::new_like(self, "mulgil-template-")?;
            initialise(&making.data())?;
            // Whoever is first wins; the others have made the same.
            if let Err(error) = std::fs::rename(making.data(), &template)
                && !template.is_dir()
            {
                return Err(error).with_context(|| format!("move the new data folder to {}", template.display()));
            }
        }
        copy(&template, &self.data(), self.account).with_context(|| format!("copy the data folder {}", template.display()))
    }

    /// Writes files into the data folder that only the server may read.
    pub fn put(&self, files: &[(String, Vec<u8>)]) -> Result<()> {
        for (name, content) in files {
            let path = self.data().join(name);
            std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
            self.account.own(&path)?;
        }
        Ok(())
    }

    fn new_like(other: &Self, prefix: &str) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix(prefix).tempdir()?;
        std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(PASSAGE))?;
        other.account.own(temp.path())?;
        Ok(Self { temp, account: other.account })
    }
}

/// `/tmp/mulgil-servers-0`: of this user, and nobody else may write there.
fn templates(folder: &Folder) -> Result<PathBuf> {
    let us = std::fs::metadata(folder.root())?.uid();
    let templates = std::env::temp_dir().join(format!("mulgil-servers-{us}"));
    if let Err(error) = std::fs::DirBuilder::new().mode(PASSAGE).create(&templates) {
        let found = std::fs::symlink_metadata(&templates).with_context(|| format!("create {}: {error}", templates.display()))?;
        let is_ours = found.is_dir() && found.uid() == us && found.mode() & 0o022 == 0;
        anyhow::ensure!(is_ours, "{} is not a folder that only we may write to: remove it", templates.display());
    }
    Ok(templates)
}

/// Copies a folder with its modes, and gives the copy to the account. Data folders have no links while they are fresh.
fn copy(from: &Path, to: &Path, account: Account) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target, account)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            account.own(&target)?;
        }
    }
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    account.own(to)
}
