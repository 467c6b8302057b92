//! A MariaDB server that writes a row binlog.

use crate::Settings;
use crate::folder::Folder;
use crate::programs::{self, read};
use crate::server::{Plan, Server};
use anyhow::Result;
use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The user of Debian's package.
const ACCOUNT: &str = "mysql";
const SUPERUSER: &str = "root";

/// Initialised with a small redo log, so that a copy is quick.
const REDO_LOG: &str = "--innodb-log-file-size=16M";

const SETTINGS: [(&str, &str); 13] = [
    ("log-bin", "binlog"),
    ("binlog-format", "ROW"),
    ("binlog-row-image", "FULL"),
    ("binlog-row-metadata", "FULL"),
    ("gtid-strict-mode", "ON"),
    ("log-slave-updates", "ON"),
    ("bind-address", "127.0.0.1"),
    ("character-set-server", "utf8mb4"),
    ("max-allowed-packet", "256M"),
    ("max-connections", "150"),
    ("innodb-buffer-pool-size", "64M"),
    ("innodb-log-file-size", "16M"),
    ("performance-schema", "OFF"),
];

/// A statement of [`MariaDb::sql`] may take so long.
const STATEMENT_MAX: &str = "--init-command=SET max_statement_time=300";

pub struct MariaDb {
    server: Server,
}

impl MariaDb {
    /// Its program; the error says which package to install.
    pub fn installed() -> Result<PathBuf> {
        programs::mariadb("mariadb-install-db")?;
        programs::mariadb("mariadbd")
    }

    /// A fresh server; its superuser is `root`, without a password.
    pub fn start(settings: &Settings) -> Result<Self> {
        static SERVER_ID: AtomicU32 = AtomicU32::new(1);
        let folder = Folder::new(ACCOUNT)?;
        let program = programs::mariadb("mariadbd")?;
        let version = read(Command::new(&program).args(["--no-defaults", "--version"]).current_dir("/"))?;
        folder.fill(&template_name(&version), |data| {
            let mut command = Command::new(programs::mariadb("mariadb-install-db")?);
            command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
            command.arg(REDO_LOG).arg(format!("--datadir={}", data.display())).current_dir("/");
            read(folder.account.applied(&mut command)).map(drop)
        })?;
        folder.put(&settings.files)?;
        // 2: written at each commit, so that a kill of the process loses nothing; not synced.
        let unsafe_but_quick = [("innodb-flush-log-at-trx-commit", "2"), ("sync-binlog", "0"), ("innodb-flush-method", "nosync")];
        let production = [("innodb-flush-log-at-trx-commit", "1"), ("sync-binlog", "1")];
        let ours = SETTINGS.iter().chain(if settings.is_durable { &production[..] } else { &unsafe_but_quick });
        let ours = ours.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let id = ("server-id".to_owned(), SERVER_ID.fetch_add(1, Ordering::Relaxed).to_string());
        let settings = ours.chain([id]).chain(settings.settings.iter().cloned()).collect();
        let plan = Plan { program, arguments, ready, stop_signal: "TERM", settings };
        Ok(Self { server: Server::start(folder, plan)? })
    }

    /// As the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{SUPERUSER}@127.0.0.1:{}/{database}", self.port())
    }

    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("mysql://{user}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// Runs SQL without a database as [`Self::sql_in`] does: name it (`shop.orders`) or `USE` it.
    pub fn sql(&self, text: &str) -> Result<String> {
        self.sql_in("", text)
    }

    /// Runs SQL through the client, as the superuser, to the first error. Gives the rows: columns separated by tabs, without heads or a last
    /// newline; tab, newline and backslash in a value are escaped with a backslash, NULL is `NULL`.
    pub fn sql_in(&self, database: &str, text: &str) -> Result<String> {
        let mut command = self.client("mariadb")?;
        command.args(["--batch", "--skip-column-names", "--max-allowed-packet=256M", STATEMENT_MAX]);
        if !database.is_empty() {
            command.arg(database);
        }
        Ok(read(command.stdin(self.server.input(text)?))?.trim_end_matches('\n').to_owned())
    }

    /// A program of MariaDB (`mariadb`, `mariadb-binlog`, `mariadb-dump`), told where the server is.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(programs::mariadb(program)?);
        command.arg("--no-defaults").arg(format!("--socket={}", socket(&self.server).display())).args(["--user", SUPERUSER]);
        // Loose: mariadb-binlog does not know it.
        command.args(["--loose-default-character-set=utf8mb4"]);
        Ok(command)
    }

    /// As `VERSION()` says it: `10.11.19-MariaDB-0+deb12u1-log`.
    pub fn version(&self) -> Result<String> {
        self.sql("SELECT VERSION()")
    }
}

/// What every server can do.
impl Deref for MariaDb {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for MariaDb {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

fn socket(server: &Server) -> PathBuf {
    server.folder.socket().join("mariadb")
}

fn arguments(server: &Server) -> Vec<OsString> {
    let folder = &server.folder;
    let mut arguments: Vec<OsString> = vec!["--no-defaults".into(), format!("--datadir={}", folder.data().display()).into()];
    arguments.push(format!("--socket={}", socket(server).display()).into());
    arguments.push(format!("--pid-file={}", folder.socket().join("pid").display()).into());
    arguments.push(format!("--tmpdir={}", folder.socket().display()).into());
    arguments.push(format!("--port={}", server.port).into());
    arguments.extend(server.plan.settings.iter().map(|(name, value)| format!("--{name}={value}").into()));
    arguments
}

fn ready(server: &Server) -> Result<Command> {
    let mut command = Command::new(programs::mariadb("mariadb-admin")?);
    command.args(["--no-defaults", "--connect-timeout=5", "--user", SUPERUSER]);
    command.arg(format!("--socket={}", socket(server).display())).arg("ping");
    Ok(command)
}

/// `mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)` → `mariadb-10.11.19-MariaDB-0-deb12u1`.
fn template_name(version: &str) -> String {
    let number = version.split_whitespace().skip_while(|w| *w != "Ver").nth(1).unwrap_or("unknown");
    let words = number.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|w| !w.is_empty());
    format!("mariadb-{}", words.collect::<Vec<_>>().join("-"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_version_is_a_folder_name() {
        let printed = "/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)\n";
        assert_eq!(super::template_name(printed), "mariadb-10.11.19-MariaDB-0-deb12u1");
    }
}
