//! A MariaDB server that writes a row binlog; a MySQL where `MULGIL_MYSQL_BIN` names the folder of its programs.

use crate::Settings;
use crate::account::Account;
use crate::folder::Folder;
use crate::programs::{self, read};
use crate::server::{Plan, Server};
use anyhow::Result;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The user of Debian's package.
const ACCOUNT: &str = "mysql";
const SUPERUSER: &str = "root";

/// Initialised with a small redo log, so that a copy is quick.
const REDO_LOG: &str = "--innodb-log-file-size=16M";

/// MySQL makes its superuser for the socket alone.
const ROOT_BY_TCP: &str = "CREATE USER root@'127.0.0.1' IDENTIFIED BY ''; GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;";

/// What both servers are told.
const SETTINGS: [(&str, &str); 9] = [
    ("log-bin", "binlog"),
    ("binlog-row-image", "FULL"),
    ("binlog-row-metadata", "FULL"),
    ("bind-address", "127.0.0.1"),
    ("character-set-server", "utf8mb4"),
    ("max-allowed-packet", "256M"),
    ("max-connections", "150"),
    ("innodb-buffer-pool-size", "64M"),
    ("performance-schema", "OFF"),
];
const OF_MARIADB: [(&str, &str); 4] =
    [("binlog-format", "ROW"), ("gtid-strict-mode", "ON"), ("log-slave-updates", "ON"), ("innodb-log-file-size", "16M")];
const OF_MYSQL: [(&str, &str); 7] = [
    ("gtid-mode", "ON"),
    ("enforce-gtid-consistency", "ON"),
    ("innodb-redo-log-capacity", "32M"),
    // No folder for LOAD DATA, and no second protocol on a port of its own.
    ("secure-file-priv", "NULL"),
    ("mysqlx", "OFF"),
    // TLS is for who asks for it, as in MariaDB.
    ("auto-generate-certs", "OFF"),
    // Series of numbers are made by recursion there.
    ("cte-max-recursion-depth", "10000000"),
];

const DURABLE: [(&str, &str); 2] = [("innodb-flush-log-at-trx-commit", "1"), ("sync-binlog", "1")];
/// 2: written at each commit, so that a kill of the process loses nothing; not synced.
const UNSAFE_BUT_QUICK: [(&str, &str); 3] =
    [("innodb-flush-log-at-trx-commit", "2"), ("sync-binlog", "0"), ("innodb-flush-method", "nosync")];

pub struct MariaDb {
    server: Server,
    brand: Brand,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brand {
    MariaDb,
    MySql,
}

impl Brand {
    fn asked() -> Self {
        if programs::mysql_folder().is_some() { Self::MySql } else { Self::MariaDb }
    }

    /// A program by the name that MariaDB has for it.
    fn program(self, name: &str) -> Result<PathBuf> {
        match self {
            Self::MariaDb => programs::mariadb(name),
            Self::MySql => programs::mysql(match name {
                "mariadbd" => "mysqld",
                "mariadb-admin" => "mysqladmin",
                "mariadb-binlog" => "mysqlbinlog",
                "mariadb" => "mysql",
                other => other,
            }),
        }
    }

    fn settings(self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        SETTINGS.iter().chain(match self {
            Self::MariaDb => OF_MARIADB.iter(),
            Self::MySql => OF_MYSQL.iter(),
        })
    }

    /// Makes a data folder whose superuser has no password.
    fn initialise(self, data: &Path, account: Account) -> Result<()> {
        let mut command = match self {
            Self::MariaDb => {
                let mut command = Command::new(programs::mariadb("mariadb-install-db")?);
                command.args([
                    "--no-defaults",
                    "--auth-root-authentication-method=normal",
                    "--skip-test-db",
                    "--skip-name-resolve",
                    REDO_LOG,
                ]);
                command
            }
            Self::MySql => {
                let first = data.with_file_name("init.sql");
                std::fs::write(&first, ROOT_BY_TCP)?;
                let mut command = Command::new(self.program("mariadbd")?);
                command.args([
                    "--no-defaults",
                    "--initialize-insecure",
                    "--innodb-redo-log-capacity=32M",
                    "--secure-file-priv=NULL",
                    "--auto-generate-certs=OFF",
                ]);
                command.arg(format!("--init-file={}", first.display()));
                command
            }
        };
        command.arg(format!("--datadir={}", data.display())).current_dir("/");
        read(account.applied(&mut command))?;
        // It holds the name of this one server, which each copy gives itself anew.
        match std::fs::remove_file(data.join("auto.cnf")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// A statement of [`MariaDb::sql`] may take so long.
    fn statement_max(self) -> &'static str {
        match self {
            Self::MariaDb => "--init-command=SET max_statement_time=300",
            Self::MySql => "--init-command=SET max_execution_time=300000",
        }
    }
}

impl MariaDb {
    /// Its program; the error says which package to install.
    pub fn installed() -> Result<PathBuf> {
        if Brand::asked() == Brand::MariaDb {
            programs::mariadb("mariadb-install-db")?;
        }
        Brand::asked().program("mariadbd")
    }

    /// A fresh server; its superuser is `root`, without a password.
    pub fn start(settings: &Settings) -> Result<Self> {
        static SERVER_ID: AtomicU32 = AtomicU32::new(1);
        let (folder, brand) = (Folder::new(ACCOUNT)?, Brand::asked());
        let program = brand.program("mariadbd")?;
        let version = read(Command::new(&program).args(["--no-defaults", "--version"]).current_dir("/"))?;
        folder.fill(&template_name(&version), |data| brand.initialise(data, folder.account))?;
        folder.put(&settings.files)?;
        let ours = brand.settings().chain(if settings.is_durable { &DURABLE[..] } else { &UNSAFE_BUT_QUICK });
        let ours = ours.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let id = ("server-id".to_owned(), SERVER_ID.fetch_add(1, Ordering::Relaxed).to_string());
        let settings = ours.chain([id]).chain(settings.settings.iter().cloned()).collect();
        let plan = Plan { program, arguments, ready, stop_signal: "TERM", settings };
        Ok(Self { server: Server::start(folder, plan)?, brand })
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
        command.args(["--batch", "--skip-column-names", "--max-allowed-packet=256M", self.brand.statement_max()]);
        if !database.is_empty() {
            command.arg(database);
        }
        Ok(read(command.stdin(self.server.input(text)?))?.trim_end_matches('\n').to_owned())
    }

    /// A program of MariaDB (`mariadb`, `mariadb-binlog`, `mariadb-dump`), told where the server is.
    pub fn client(&self, program: &str) -> Result<Command> {
        let mut command = Command::new(self.brand.program(program)?);
        command.arg("--no-defaults").arg(format!("--socket={}", socket(&self.server).display())).args(["--user", SUPERUSER]);
        // Loose: mariadb-binlog does not know it.
        command.args(["--loose-default-character-set=utf8mb4"]);
        Ok(command)
    }

    /// It is a MySQL: some statements are others there.
    pub fn is_mysql(&self) -> bool {
        self.brand == Brand::MySql
    }

    /// Whether [`Self::start`] starts a MySQL: some settings are others there.
    pub fn starts_mysql() -> bool {
        Brand::asked() == Brand::MySql
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
    let mut command = Command::new(Brand::asked().program("mariadb-admin")?);
    command.args(["--no-defaults", "--connect-timeout=5", "--user", SUPERUSER]);
    command.arg(format!("--socket={}", socket(server).display())).arg("ping");
    Ok(command)
}

/// `mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)` → `mariadb-10.11.19-MariaDB-0-deb12u1`.
fn template_name(version: &str) -> String {
    let number = version.split_whitespace().skip_while(|w| *w != "Ver").nth(1).unwrap_or("unknown");
    let words = number.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|w| !w.is_empty());
    let name = if version.contains("MariaDB") { "mariadb" } else { "mysql" };
    format!("{name}-{}", words.collect::<Vec<_>>().join("-"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_version_is_a_folder_name() {
        let printed = "/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64 (Debian 12)\n";
        assert_eq!(super::template_name(printed), "mariadb-10.11.19-MariaDB-0-deb12u1");
        let printed = "/tmp/mysql/usr/sbin/mysqld  Ver 9.7.4 for Linux on x86_64 ((Debian))\n";
        assert_eq!(super::template_name(printed), "mysql-9.7.4");
    }
}
