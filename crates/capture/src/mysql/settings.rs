//! What a MySQL or MariaDB source is told: where the server is, which tables, and how much at a time.

use crate::snapshot_mode::SnapshotMode;
use crate::url::{Secret, decoded};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const DEFAULT_PORT: u16 = 3306;
/// More than any real host, user or password; a bound so that a URL cannot be a file.
const URL_BYTES_MAX: usize = 8 * 1024;

/// How much TLS is asked for, in the words of the server's own clients (MySQL manual, "--ssl-mode").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    Disabled,
    /// TLS if the server has it; the certificate is not looked at.
    #[default]
    Preferred,
    /// TLS or nothing; the certificate is not looked at.
    Required,
    /// The certificate must be signed by a root of `ssl-ca`.
    VerifyCa,
    /// And be for this host.
    VerifyIdentity,
}

/// `mysql://user:password@host:port/database?ssl-mode=verify-identity&ssl-ca=/etc/ca.pem`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Secret,
    /// Empty: none is chosen.
    pub database: String,
    pub ssl_mode: SslMode,
    pub ssl_ca: Option<PathBuf>,
    /// Ask the server for the key that the password is encrypted with where there is no TLS. Whoever sits between could answer with a key
    /// of his own, so it is off unless `get-server-public-key=true` is written.
    pub is_public_key_asked: bool,
}

/// Without the password: `trader@db.example:3306`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

/// What is wrong with a URL. Names the part, never its text: a password may stand in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the MySQL url {0}; it should look like mysql://user:password@host:3306/database?ssl-mode=verify-identity&ssl-ca=/etc/ca.pem")]
pub struct BadUrl(&'static str);

impl From<&'static str> for BadUrl {
    fn from(why: &'static str) -> Self {
        Self(why)
    }
}

impl FromStr for Address {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        if url.len() > URL_BYTES_MAX {
            return Err(BadUrl("is longer than 8 KiB"));
        }
        let rest = url.strip_prefix("mysql://").or_else(|| url.strip_prefix("mariadb://"));
        let rest = rest.ok_or(BadUrl("does not begin with mysql://"))?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, server) = server.rsplit_once('@').ok_or(BadUrl("has no user"))?;
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = host_and_port(server)?;
        let mut address = Self {
            host,
            port,
            user: decoded(user)?,
            password: Secret::new(decoded(password)?),
            database: decoded(database)?,
            ssl_mode: SslMode::default(),
            ssl_ca: None,
            is_public_key_asked: false,
        };
        if address.user.is_empty() || address.host.is_empty() {
            return Err(BadUrl("has an empty user or host"));
        }
        for option in options.split('&').filter(|o| !o.is_empty()) {
            let (name, value) = option.split_once('=').ok_or(BadUrl("has an option without a value"))?;
            address.set(name, decoded(value)?)?;
        }
        if [address.user.as_str(), &address.database, address.password.reveal()].iter().any(|part| part.contains('\0')) {
            return Err(BadUrl("has a zero byte"));
        }
        if matches!(address.ssl_mode, SslMode::VerifyCa | SslMode::VerifyIdentity) && address.ssl_ca.is_none() {
            return Err(BadUrl("asks for a verified certificate and names no ssl-ca"));
        }
        Ok(address)
    }
}

impl Address {
    fn set(&mut self, name: &str, value: String) -> Result<(), BadUrl> {
        match name {
            "ssl-mode" => {
                self.ssl_mode = match value.to_ascii_lowercase().replace('_', "-").as_str() {
                    "disabled" => SslMode::Disabled,
                    "preferred" => SslMode::Preferred,
                    "required" => SslMode::Required,
                    "verify-ca" => SslMode::VerifyCa,
                    "verify-identity" => SslMode::VerifyIdentity,
                    _ => return Err(BadUrl("has an ssl-mode that is none of disabled, preferred, required, verify-ca, verify-identity")),
                }
            }
            "ssl-ca" => self.ssl_ca = Some(value.into()),
            "get-server-public-key" => self.is_public_key_asked = value == "true",
            _ => return Err(BadUrl("has an option that is none of ssl-mode, ssl-ca, get-server-public-key")),
        }
        Ok(())
    }
}

/// An address of IPv6 stands in brackets.
fn host_and_port(server: &str) -> Result<(String, u16), BadUrl> {
    let (host, port) = match server.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or("")),
        None => server.split_once(':').unwrap_or((server, "")),
    };
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().map_err(|_| BadUrl("has a port that is not one"))? };
    Ok((decoded(host)?, port))
}

/// How the place in the binlog is named when streaming begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GtidMode {
    /// By GTID where the server has them and the stored place does too.
    #[default]
    Auto,
    /// By GTID or not at all.
    On,
    /// By file and position.
    Off,
}

/// What to do when rows of a captured table come or go without row events: `ALTER TABLE … DROP PARTITION`, a tablespace that is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStale {
    /// Go on, and tell: the table is stale in the source's health, and the stream's readers get a message `mulgil.stale`.
    #[default]
    Tell,
    /// Refuse to go on before a person has chosen.
    Stop,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub address: Address,
    /// `shop.orders`; `*` stands for any characters: `shop.*`. The working tables of gh-ost and pt-online-schema-change are captured only
    /// if they are named without a star.
    pub tables: Vec<String>,
    /// Ours among the server's replicas; must be unique there.
    pub server_id: u32,
    pub snapshot: SnapshotMode,
    pub gtid: GtidMode,
    /// How often an idle server says that it is there. After three without a word the connection counts as cut.
    pub heartbeat: Duration,
    pub batch_rows_max: usize,
    pub batch_bytes_max: usize,
    /// Rows behind a filter of a table without a key are one batch up to here: they could not be told apart when they come again.
    pub filtered_bytes_max: usize,
    pub chunk_rows_max: usize,
    /// What prepared XA transactions may take of memory together; the rows of others are read again when they are committed.
    pub prepared_bytes_max: usize,
    pub on_stale: OnStale,
    /// Largest event or row that is accepted from the server.
    pub packet_bytes_max: usize,
}

impl Settings {
    pub fn new(address: Address, tables: &[&str]) -> Self {
        let tables: Vec<String> = tables.iter().map(|&t| t.to_owned()).collect();
        Self {
            server_id: own_id(&address, &tables),
            address,
            tables,
            snapshot: SnapshotMode::default(),
            gtid: GtidMode::default(),
            heartbeat: Duration::from_secs(5),
            batch_rows_max: 8_192,
            batch_bytes_max: 8 << 20,
            filtered_bytes_max: 32 << 20,
            chunk_rows_max: 8_192,
            prepared_bytes_max: 32 << 20,
            on_stale: OnStale::default(),
            packet_bytes_max: 1 << 30,
        }
    }
}

/// The same for the same source, above what people number their servers with.
fn own_id(address: &Address, tables: &[String]) -> u32 {
    let text = format!("{address} {}", tables.join(" "));
    let hash = text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    hash | 0x4000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_server_user_and_trust() {
        let a: Address = "mysql://tr%40der:p%3Aw@db.example:3307/shop?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem".parse().expect("url");
        assert_eq!((a.host.as_str(), a.port, a.user.as_str(), a.password.reveal()), ("db.example", 3307, "tr@der", "p:w"));
        assert_eq!((a.database.as_str(), a.ssl_mode, a.is_public_key_asked), ("shop", SslMode::VerifyIdentity, false));
        let a: Address = "mariadb://u@[::1]".parse().expect("url");
        assert_eq!((a.host.as_str(), a.port, a.ssl_mode), ("::1", 3306, SslMode::Preferred));
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_the_password() {
        let cases = [
            ("postgres://u:hunter2@h", "does not begin"),
            ("mysql://hunter2", "no user"),
            ("mysql://u:hunter2@h:x", "port"),
            ("mysql://u:hunter2%zz@h", "%"),
            ("mysql://u:hunter2@h?ssl-mode=maybe", "ssl-mode"),
            ("mysql://u:hunter2@h?ssl-mode=verify-ca", "ssl-ca"),
            ("mysql://u:hunter2@h?speed=1", "option"),
            ("mysql://u:hunter2%00@h", "zero"),
        ];
        for (url, why) in cases {
            let said = url.parse::<Address>().expect_err(url).to_string();
            assert!(said.contains(why) && !said.contains("hunter2"), "{url}: {said}");
        }
        let shown = format!("{:?}", "mysql://u:hunter2@h".parse::<Address>().expect("url"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
