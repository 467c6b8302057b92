//! The system user a server runs as: PostgreSQL refuses to run as root, and MariaDB warns.

use anyhow::{Context, Result};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `None`: the user that runs us.
#[derive(Debug, Clone, Copy)]
pub struct Account(Option<Ids>);

#[derive(Debug, Clone, Copy)]
struct Ids {
    user: u32,
    group: u32,
}

impl Account {
    /// `preferred`, the user that the server's package makes, where we are root (which `probe`, a folder we just made, tells).
    pub fn for_server(preferred: &str, probe: &Path) -> Result<Self> {
        if std::fs::metadata(probe)?.uid() != 0 {
            return Ok(Self(None));
        }
        let users = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        let find = |name| users.lines().find_map(|line| ids_of(line, name));
        let ids = find(preferred).or_else(|| find("nobody"));
        let ids =
            ids.with_context(|| format!("running as root, and there is neither a user {preferred} nor nobody to run the server as"))?;
        Ok(Self(Some(ids)))
    }

    /// Has the command run as this user.
    pub fn applied(self, command: &mut Command) -> &mut Command {
        match self.0 {
            Some(ids) => command.uid(ids.user).gid(ids.group),
            None => command,
        }
    }

    /// Gives a file or folder to this user.
    pub fn own(self, path: &Path) -> Result<()> {
        match self.0 {
            Some(ids) => chown(path, Some(ids.user), Some(ids.group)).with_context(|| format!("change the owner of {}", path.display())),
            None => Ok(()),
        }
    }
}

/// A line of passwd(5): `postgres:x:101:104:…`.
fn ids_of(line: &str, name: &str) -> Option<Ids> {
    let mut fields = line.split(':');
    let is_it = fields.next()? == name;
    let (user, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    is_it.then_some(Ids { user, group })
}
