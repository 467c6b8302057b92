//! Real database servers for tests, benches and `cargo xtask up`: PostgreSQL and MariaDB (or MySQL), each with its own data folder and loopback port.
//! It must never know mulgil: it starts, stops, kills and asks servers, and that is all. No server outlives the process that started it.
//!
//! ```no_run
//! # use mulgil_servers::{Postgres, Settings};
//! # fn main() -> anyhow::Result<()> {
//! let mut server = Postgres::start(&Settings::default().with("max_slot_wal_keep_size", "32MB"))?;
//! server.sql("CREATE TABLE t (id int PRIMARY KEY)")?;
//! let url = server.url("postgres");
//! server.kill_hard()?;
//! server.restart()?;
//! # Ok(())
//! # }
//! ```

mod account;
mod folder;
mod programs;
mod reaper;

mod server;

mod mariadb;
mod postgres;

pub use mariadb::MariaDb;
pub use postgres::Postgres;
pub use server::Server;

use anyhow::Result;
use std::time::{Duration, Instant};

/// Asks again and again until the answer is yes; an error that names `what` once it took longer than `at_most`.
pub fn wait_until(what: &str, at_most: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    const ASK_EVERY: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + at_most;
    while !is_so()? {
        anyhow::ensure!(Instant::now() < deadline, "waited {} s in vain until {what}", at_most.as_secs());
        std::thread::sleep(ASK_EVERY);
    }
    Ok(())
}

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Settings of the server's own, which win over ours.
    pub settings: Vec<(String, String)>,
    /// Sync to disk as in production. Off by default: killing a server loses nothing that the operating system already has.
    pub is_durable: bool,
    /// PostgreSQL: lines of `pg_hba.conf` in front of "trust everybody on this machine".
    pub hba: Vec<String>,
    /// Put into the data folder, readable by the server only: certificates, keys.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Settings {
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn durable(mut self) -> Self {
        self.is_durable = true;
        self
    }

    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    #[must_use]
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.files.push((name.to_owned(), content.to_vec()));
        self
    }
}
