//! A PostgreSQL server that decodes its WAL.

use crate::folder::Folder;
use crate::programs;
use crate::server::{Plan, Server};
use crate::{Settings, programs::read};
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

const SUPERUSER: &str = "postgres";

/// Everybody on this machine may do everything: a test that wants passwords puts lines in front.
const HBA: &str =
    "local all all trust\nhost all all 127.0.0.1/32 trust\nlocal replication all trust\nhost replication all 127.0.0.1/32 trust\n";

/// Room for many slots, and nothing bigger than a test needs.
const SETTINGS: [(&str, &str); 8] = [
    ("wal_level", "logical"),
    ("max_replication_slots", "60"),
    ("max_wal_senders", "60"),
    ("max_connections", "150"),
    ("max_prepared_transactions", "10"),
    ("shared_buffers", "64MB"),
    ("listen_addresses", "127.0.0.1"),
    ("log_line_prefix", "%m [%p] %a "),
];

/// A statement of [`Postgres::sql`] may take so long.
const STATEMENT_MAX: &str = "-c statement_timeout=300s";
const CONNECT_SECONDS_MAX: &str = "15";

pub struct Postgres {
    server: Server,
}

impl Postgres {
    /// The folder of its programs; the error says which package to install.
    pub fn installed() -> Result<PathBuf> {
        programs::postgres()
    }

    /// A fresh server with the databases that initdb makes; its superuser is `postgres`, without a password.
    pub fn start(settings: &Settings) -> Result<Self> {
        let folder = Folder::new(SUPERUSER)?;
        let bin = programs::postgres()?;
        let version = read(Command::new(bin.join("postgres")).arg("--version"))?;
        folder.fill(&template_name(&version), |data| {
            let mut command = Command::new(bin.join("initdb"));
            command.args(["-N", "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--no-locale", "-D"]).arg(data).current_dir("/");
            read(folder.account.applied(&mut command)).map(drop)
        })?;
        Self::begin(folder, &bin, settings)
    }

    /// A hot standby that follows `primary`, from a copy of its folder while it runs: `pg_basebackup` would have to be of its version.
    pub fn standby_of(primary: &Self, settings: &Settings) -> Result<Self> {
        let folder = Folder::new(SUPERUSER)?;
        let (bin, data) = (programs::postgres()?, folder.data());
        let (begin, end) = match primary.major()? {
            ..=14 => ("pg_start_backup('standby', true, false)", "pg_stop_backup(false, false)"),
            _ => ("pg_backup_start('standby', true)", "pg_backup_stop(false)"),
        };
        // One session: its end would end the backup.
        let copy = format!("\\! cp -a -- '{}' '{}'", primary.data().display(), data.display());
        let label = primary.sql(&format!("\\o /dev/null\nSELECT {begin};\n{copy}\n\\o\nSELECT labelfile FROM {end};"))?;
        // What belongs to the primary alone, and its log, which the standby asks it for.
        for own in ["pg_replslot", "pg_wal"] {
            empty(&data.join(own)).context("copy the primary")?;
        }
        std::fs::remove_file(data.join("postmaster.pid")).context("copy the primary")?;
        let mut changed = std::fs::read_to_string(data.join("postgresql.auto.conf"))?;
        changed += &format!("primary_conninfo = 'host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres'\n", primary.port());
        let files = [("postgresql.auto.conf", changed), ("backup_label", label + "\n"), ("standby.signal", String::new())];
        folder.put(&files.map(|(name, text)| (name.to_owned(), text.into_bytes())))?;
        Self::begin(folder, &bin, settings)
    }

    fn begin(folder: Folder, bin: &Path, settings: &Settings) -> Result<Self> {
        let hba = settings.hba.iter().flat_map(|line| [line, "\n"]).chain([HBA]).collect::<String>();
        folder.put(&[("pg_hba.conf".to_owned(), hba.into_bytes())])?;
        folder.put(&settings.files)?;
        let unsafe_but_quick = [("fsync", "off"), ("full_page_writes", "off")];
        let ours = SETTINGS.iter().chain(if settings.is_durable { &[][..] } else { &unsafe_but_quick });
        let ours = ours.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let plan = Plan {
            program: bin.join("postgres"),
            arguments,
            ready,
            stop_signal: "INT",
            settings: ours.chain(settings.settings.iter().cloned()).collect(),
        };
        Ok(Self { server: Server::start(folder, plan)? })
    }

    /// As the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://{SUPERUSER}@127.0.0.1:{}/{database}", self.port())
    }

    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgresql://{user}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// Runs SQL in the database `postgres` as [`Self::sql_in`] does.
    pub fn sql(&self, text: &str) -> Result<String> {
        self.sql_in("postgres", text)
    }

    /// Runs SQL through psql, as the superuser, each statement a transaction of its own, to the first error. Gives the rows: columns
    /// separated by `|`, without heads or a last newline. psql's own commands work too, `COPY … FROM STDIN` with its data included.
    pub fn sql_in(&self, database: &str, text: &str) -> Result<String> {
        let mut command = self.client("psql", database);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]).stdin(self.server.input(text)?);
        Ok(read(&mut command)?.trim_end_matches('\n').to_owned())
    }

    /// A program of PostgreSQL (`psql`, `pg_recvlogical`, `pgbench`), told where the server is.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.bin().join(program));
        command.env("PGHOST", self.server.folder.socket()).env("PGPORT", self.port().to_string()).env("PGUSER", SUPERUSER);
        command.env("PGDATABASE", database).env("PGOPTIONS", STATEMENT_MAX).env("PGCONNECT_TIMEOUT", CONNECT_SECONDS_MAX);
        command
    }

    /// 15 for PostgreSQL 15.18.
    pub fn major(&self) -> Result<u32> {
        let number: u32 = self.sql("SHOW server_version_num")?.parse()?;
        Ok(number / 10_000)
    }

    /// Ends recovery: a standby becomes a primary of its own.
    pub fn promote(&self) -> Result<()> {
        let promoted = self.sql("SELECT pg_promote(true, 120)")?;
        anyhow::ensure!(promoted == "t", "the standby was not promoted within 120 s; its log ends with:\n{}", programs::tail(&self.log()));
        Ok(())
    }

    fn bin(&self) -> &Path {
        bin_of(&self.server)
    }
}

fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { std::fs::remove_dir_all(entry.path())? } else { std::fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// What every server can do.
impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Postgres {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

fn bin_of(server: &Server) -> &Path {
    server.plan.program.parent().expect("invariant: the program lies in the folder of programs")
}

fn arguments(server: &Server) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-D".into(), server.folder.data().into(), "-k".into(), server.folder.socket().into()];
    arguments.extend(["-p".into(), server.port.to_string().into()]);
    for (name, value) in &server.plan.settings {
        arguments.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    arguments
}

fn ready(server: &Server) -> Result<Command> {
    let mut command = Command::new(bin_of(server).join("pg_isready"));
    command.args(["-q", "-t", "5", "-d", "postgres", "-p", &server.port.to_string(), "-h"]).arg(server.folder.socket());
    Ok(command)
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → `postgres-15.18-Debian-…`.
fn template_name(version: &str) -> String {
    let words = version.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|w| !w.is_empty() && *w != "PostgreSQL");
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_version_is_a_folder_name() {
        assert_eq!(super::template_name("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), "postgres-15.18-Debian-15.18-0-deb12u1");
    }
}
