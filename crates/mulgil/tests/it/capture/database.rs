//! The two kinds of servers as one, for tests that run on both: how they are configured, asked, and what their tables look like in the
//! words of Debezium's JSON.

use super::World;
use mulgil_servers::{MariaDb, Postgres, Server, Settings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    MariaDb,
}

pub enum Database {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

/// Rows of a table by their `id`.
pub type Rows = BTreeMap<i64, Value>;

/// Where MariaDB's tables are; PostgreSQL's are in the schema `public` of its first database.
const SHOP: &str = "shop";

impl Database {
    pub fn start(dialect: Dialect, settings: &Settings) -> Self {
        match dialect {
            Dialect::Postgres => Self::Postgres(Postgres::start(settings).unwrap()),
            Dialect::MariaDb => {
                let server = MariaDb::start(settings).unwrap();
                server.sql(&format!("CREATE DATABASE {SHOP}")).unwrap();
                Self::MariaDb(server)
            }
        }
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Postgres(_) => Dialect::Postgres,
            Self::MariaDb(_) => Dialect::MariaDb,
        }
    }

    /// What captures these tables as the source `exchange`.
    pub fn world(&self, tables: &[String], more: &str) -> World {
        let (kind, url) = match self {
            Self::Postgres(server) => ("postgres", server.url("postgres")),
            Self::MariaDb(server) => ("mysql", server.url(SHOP)),
        };
        let tables: Vec<String> = tables.iter().map(|t| self.dialect().captured(t)).collect();
        let config = format!(
            "[source.exchange]\ntype = \"{kind}\"\nurl = \"env:DATABASE_URL\"\nheartbeat = \"500ms\"\ntables = {}\n{more}",
            Value::from(tables)
        );
        World::new(&config, url)
    }

    pub fn sql(&self, text: &str) -> anyhow::Result<String> {
        match self {
            Self::Postgres(server) => server.sql(text),
            Self::MariaDb(server) => server.sql_in(SHOP, text),
        }
    }

    /// A client that runs a script to its first error. It needs nothing of this afterwards: the server may be killed under it.
    pub fn client(&self, script: &str) -> Command {
        let mut command = match self {
            Self::Postgres(server) => {
                let mut command = server.client("psql", "postgres");
                command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
                command
            }
            Self::MariaDb(server) => {
                let mut command = server.client("mariadb").unwrap();
                command.args(["--batch", "--raw", "--skip-column-names", SHOP]);
                command
            }
        };
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        input.rewind().unwrap();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn server(&mut self) -> &mut Server {
        match self {
            Self::Postgres(server) => server,
            Self::MariaDb(server) => server,
        }
    }

    /// The table as the database itself has it, in the events' words.
    pub fn rows(&self, table: &str) -> Rows {
        let columns = self.sql(&columns_of(self.dialect(), table)).unwrap();
        let columns = columns.lines().map(|line| line.split(['|', '\t']).collect::<Vec<_>>());
        let fields: Vec<String> = columns.map(|c| format!("'{0}', {1}", c[0], self.dialect().in_words(c[0], c[1]))).collect();
        // A function of PostgreSQL takes a hundred arguments at most.
        let object = match self.dialect() {
            Dialect::Postgres => {
                let parts: Vec<String> = fields.chunks(50).map(|part| format!("jsonb_build_object({})", part.join(", "))).collect();
                parts.join(" || ")
            }
            Dialect::MariaDb => format!("JSON_OBJECT({})", fields.join(", ")),
        };
        let script = match self.dialect() {
            Dialect::Postgres => format!("SELECT {object} FROM {table}"),
            Dialect::MariaDb => format!("SET time_zone = '+00:00'; SELECT {object} FROM {table}"),
        };
        let out = self.client(&script).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let lines = String::from_utf8(out.stdout).unwrap();
        let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        rows.map(|row| (row["id"].as_i64().unwrap(), row)).collect()
    }
}

fn columns_of(dialect: Dialect, table: &str) -> String {
    let schema = match dialect {
        Dialect::Postgres => "'public'",
        Dialect::MariaDb => "DATABASE()",
    };
    format!(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = {schema} AND table_name = '{table}' \
         ORDER BY ordinal_position"
    )
}

impl Dialect {
    /// As the configuration names a table.
    pub fn captured(self, table: &str) -> String {
        match self {
            Self::Postgres => format!("public.{table}"),
            Self::MariaDb => format!("{SHOP}.{table}"),
        }
    }

    pub fn topic(self, table: &str) -> String {
        format!("exchange.{}", self.captured(table))
    }

    /// An expression that gives a column as Debezium's JSON has it (decimals as text), a bare value where both agree.
    fn in_words(self, column: &str, data_type: &str) -> String {
        match (self, data_type) {
            (Self::Postgres, "numeric" | "jsonb" | "uuid" | "USER-DEFINED") => format!("{column}::text"),
            (Self::Postgres, "timestamp with time zone") => {
                format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US') || 'Z'")
            }
            (Self::Postgres, "timestamp without time zone") => format!("(extract(epoch FROM {column}) * 1000000)::bigint"),
            (Self::Postgres, "date") => format!("{column} - date '1970-01-01'"),
            (Self::Postgres, "bytea") => format!("replace(encode({column}, 'base64'), E'\\n', '')"),
            (Self::Postgres, _) => column.to_owned(),
            // The empty text keeps what looks like JSON from becoming a part of this one.
            (Self::MariaDb, "decimal" | "longtext" | "json" | "enum" | "set" | "uuid") => format!("CONCAT({column}, '')"),
            (Self::MariaDb, "timestamp") => format!("DATE_FORMAT({column}, '%Y-%m-%dT%H:%i:%s.%fZ')"),
            (Self::MariaDb, "datetime") => format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {column})"),
            (Self::MariaDb, "date") => format!("DATEDIFF({column}, '1970-01-01')"),
            (Self::MariaDb, "varbinary" | "longblob") => format!("REPLACE(TO_BASE64({column}), '\\n', '')"),
            (Self::MariaDb, _) => column.to_owned(),
        }
    }
}
