//! A fresh server with the table of its example, and rows for it of about 200 bytes.

use super::Consumers;
use crate::{house, tools};
use anyhow::{Context, Result};
use mulgil_servers::{MariaDb, Postgres, Settings, wait_until};
use std::fmt::Write;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    MariaDb,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Postgres, Self::MariaDb];

    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MariaDb => "MariaDB",
        }
    }

    /// Where its changes go.
    pub fn topic(self) -> &'static str {
        match self {
            Self::Postgres => "exchange.public.stock_trades",
            Self::MariaDb => "shop.shop.orders",
        }
    }

    /// The example's streams that each row becomes one of.
    pub fn streams(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["trades"],
            Self::MariaDb => &["orders", "placed"],
        }
    }

    /// What runs beside the capture, for the note.
    pub fn consumers(self) -> &'static str {
        match self {
            Self::Postgres => "the stream trades, bars of five intervals, four rules, history",
            Self::MariaDb => "the streams orders and placed, three rules, history",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Postgres => "stocks",
            Self::MariaDb => "orders",
        }
    }

    /// The example's configuration, or as much of it as captures the table and nothing else.
    pub fn config(self, consumers: Consumers, snapshot: &str) -> Result<String> {
        let example = example(self, "mulgil.toml")?;
        let written = "snapshot = \"initial\"";
        anyhow::ensure!(example.contains(written), "examples/{}/mulgil.toml no longer says {written}", self.folder());
        let config = example.replace(written, &format!("snapshot = \"{snapshot}\""));
        let begin = config.find("[source.").context("the example has no source")?;
        let end = config[begin..].find("\n[stream.").context("the example has no stream")? + begin;
        Ok(if consumers == Consumers::Example { config } else { config[begin..=end].to_owned() })
    }
}

fn example(kind: Kind, file: &str) -> Result<String> {
    let path = house::root().join("examples").join(kind.folder()).join(file);
    std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

/// Not durable: what the server does with its own disk is not what is measured.
pub struct Database {
    pub kind: Kind,
    server: Server,
    /// Event times begin here: yesterday, in seconds since 1970.
    begin: u64,
}

enum Server {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

/// Distinct symbols, and users.
const SYMBOLS: u64 = 200;
const USERS: u64 = 10_000;
/// Makes a row of the orders one of 200 bytes in the binlog.
const NOTE_BYTES: u64 = 147;
const DAY: Duration = Duration::from_hours(24);
/// How long a connection that is gone may still hold its slot.
const LETS_GO_WITHIN: Duration = Duration::from_secs(30);

/// The place in the binlog.
pub struct BinlogPlace {
    pub file: String,
    pub at: String,
}

impl Database {
    pub fn start(kind: Kind) -> Result<Self> {
        let setup = example(kind, "setup.sql")?;
        let server = match kind {
            Kind::Postgres => {
                tools::postgres()?;
                let server = Postgres::start(&Settings::default())?;
                server.sql(&format!("\\set password '\\'bench\\''\n{setup}"))?;
                Server::Postgres(server)
            }
            Kind::MariaDb => {
                tools::mariadb()?;
                let server = MariaDb::start(&Settings::default())?;
                server.sql(&setup)?;
                server.sql("ALTER TABLE shop.orders ADD COLUMN note varchar(200)")?;
                Server::MariaDb(server)
            }
        };
        let begin = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(DAY).as_secs();
        Ok(Self { kind, server, begin })
    }

    /// For the account that the example's setup makes.
    pub fn url(&self) -> String {
        match &self.server {
            Server::Postgres(server) => server.url_as("mulgil", "bench", "postgres"),
            Server::MariaDb(server) => server.url_as("mulgil", "change%20me", "shop"),
        }
    }

    pub fn sql(&self, text: &str) -> Result<String> {
        match &self.server {
            Server::Postgres(server) => server.sql(text),
            Server::MariaDb(server) => server.sql(text),
        }
    }

    /// The server's own client, which runs the statements of its standard input as they come and prints what they answer.
    pub fn client(&self) -> Result<Command> {
        Ok(match &self.server {
            Server::Postgres(server) => {
                let mut command = server.client("psql", "postgres");
                command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
                command
            }
            Server::MariaDb(server) => {
                let mut command = server.client("mariadb")?;
                command.args(["--batch", "--skip-column-names", "--unbuffered"]);
                command
            }
        })
    }

    pub fn count(&self) -> Result<u64> {
        let count = self.sql(match self.kind {
            Kind::Postgres => "SELECT count(*) FROM public.stock_trades",
            Kind::MariaDb => "SELECT count(*) FROM shop.orders",
        })?;
        count.parse().with_context(|| format!("count the rows: {count:?}"))
    }

    /// One statement of so many rows, which follow the first `from`.
    pub fn insert(&self, from: u64, n_rows: u64) -> String {
        let (begin, to) = (self.begin, from + n_rows - 1);
        match self.kind {
            Kind::Postgres => format!(
                "INSERT INTO public.stock_trades SELECT to_timestamp({begin}) + i * interval '1 ms', gen_random_uuid(), \
                 'S' || lpad((i % {SYMBOLS})::text, 5, '0'), (1000000 + i * 7919 % 40000) / 100.0, 1 + i % 100, \
                 CASE WHEN i % 2 = 0 THEN 'BUY' ELSE 'SELL' END, gen_random_uuid(), 'KOSPI-MAIN-SESSION-1', 'KRW' \
                 FROM generate_series({from}::bigint, {to}) AS i;\n"
            ),
            Kind::MariaDb => format!(
                "INSERT INTO shop.orders (user_id, symbol, order_type, quantity, price, note) SELECT 1 + seq % {USERS}, \
                 CONCAT('S', LPAD(seq % {SYMBOLS}, 5, '0')), IF(seq % 2 = 0, 'BUY', 'SELL'), 1 + seq % 100, \
                 (1000000 + seq * 7919 % 40000) / 100, REPEAT('n', {NOTE_BYTES}) FROM shop.seq_{from}_to_{to};\n"
            ),
        }
    }

    /// So many rows, in transactions of so many.
    pub fn fill(&self, from: u64, n_rows: u64, rows_each: u64) -> Result<()> {
        // A client's input is a file, and its statements have a time limit each.
        const STATEMENTS_MAX: u64 = 10_000;
        let end = from + n_rows;
        let mut at = from;
        while at < end {
            let mut text = String::new();
            for _ in 0..STATEMENTS_MAX.min((end - at).div_ceil(rows_each)) {
                let n = rows_each.min(end - at);
                text.write_str(&self.insert(at, n))?;
                at += n;
            }
            self.sql(&text)?;
        }
        Ok(())
    }

    /// What the server still does for rows that were just written (vacuum and checkpoint, or the flush of its pages) it does now, not beside
    /// what is measured.
    pub fn rest(&self) -> Result<()> {
        self.sql(match self.kind {
            Kind::Postgres => "VACUUM (ANALYZE) public.stock_trades;\nCHECKPOINT;\n",
            Kind::MariaDb => "FLUSH TABLES shop.orders FOR EXPORT; UNLOCK TABLES;",
        })
        .map(drop)
    }

    /// A statement whose answer is the instant, in microseconds since 1970.
    pub fn ask_time(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;\n",
            Kind::MariaDb => "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED);\n",
        }
    }

    /// Reads the whole table over one connection, as the server's own client does.
    pub fn read_all(&self) -> Result<Command> {
        Ok(match &self.server {
            Server::Postgres(server) => {
                let mut command = server.client("psql", "postgres");
                command.args(["-X", "-q", "-c", "COPY public.stock_trades TO STDOUT"]);
                command
            }
            Server::MariaDb(server) => {
                let mut command = server.client("mariadb")?;
                command.args(["--batch", "--quick", "--skip-column-names", "-e", "SELECT * FROM shop.orders"]);
                command
            }
        })
    }

    /// PostgreSQL: the slot is a copy of another, which stands where that one does. Whoever had it has gone.
    pub fn copy_slot(&self, from: &str, to: &str) -> Result<()> {
        self.drop_slot(to)?;
        self.sql(&format!("SELECT pg_copy_logical_replication_slot('{from}', '{to}')")).map(drop)
    }

    pub fn drop_slot(&self, slot: &str) -> Result<()> {
        self.until_free(slot)?;
        self.sql(&format!("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}'")).map(drop)
    }

    pub fn until_free(&self, slot: &str) -> Result<()> {
        wait_until(&format!("nobody reads the slot {slot}"), LETS_GO_WITHIN, || {
            Ok(self.sql(&format!("SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name = '{slot}'"))? == "0")
        })
    }

    /// `pg_recvlogical` from where the slot stands to the end of the log, asking for what mulgil asks for; its output goes to /dev/null.
    pub fn recvlogical(&self, slot: &str) -> Result<Command> {
        let Server::Postgres(server) = &self.server else { anyhow::bail!("pg_recvlogical reads from PostgreSQL only") };
        let end = server.sql("SELECT pg_current_wal_lsn()")?;
        let version = match server.major()? {
            ..15 => 2,
            15 => 3,
            _ => 4,
        };
        let mut command = server.client("pg_recvlogical", "postgres");
        command.args(["--start", "--no-loop", "--dbname", "postgres", "--slot", slot, "--endpos", &end, "--file", "/dev/null"]);
        for option in [&format!("proto_version={version}"), "publication_names=mulgil_exchange", "messages=true", "streaming=on"] {
            command.args(["--option", option]);
        }
        Ok(command)
    }

    /// MariaDB: where its binlog ends.
    pub fn binlog_end(&self) -> Result<BinlogPlace> {
        let status = self.sql("SHOW MASTER STATUS")?;
        let mut fields = status.split('\t').map(str::to_owned);
        let place = fields.next().zip(fields.next()).map(|(file, at)| BinlogPlace { file, at });
        place.with_context(|| format!("SHOW MASTER STATUS answered {status:?}"))
    }

    /// `mariadb-binlog` from there to the end of the last file, where `--stop-never` would begin to wait.
    pub fn read_binlog(&self, from: &BinlogPlace, options: &[&str]) -> Result<Command> {
        let Server::MariaDb(server) = &self.server else { anyhow::bail!("mariadb-binlog reads from MariaDB only") };
        let mut command = server.client("mariadb-binlog")?;
        command.args(["--read-from-remote-server", "--to-last-log", "--start-position", &from.at]).args(options).arg(&from.file);
        Ok(command)
    }
}
