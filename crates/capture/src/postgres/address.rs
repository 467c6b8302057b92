//! Where a PostgreSQL server is and how to log in, from a connection URL (PostgreSQL documentation, "Connection Strings").

use crate::url::{Secret, decoded};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_SECONDS: u64 = 10;
/// More than any real host, user or password; a bound so that a URL cannot be a file.
const URL_BYTES_MAX: usize = 8 * 1024;

/// How much TLS is asked for, in libpq's words ("SSL Mode Descriptions").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// TLS if the server has it, plain otherwise; the certificate is not looked at.
    Prefer,
    /// TLS or nothing; the certificate is looked at only if `sslrootcert` is given, as libpq does.
    Require,
    /// The certificate must be signed by a known root.
    VerifyCa,
    /// And be for this host.
    VerifyFull,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub tls: TlsMode,
    pub root_cert: Option<PathBuf>,
    pub application: String,
    pub connect_timeout: Duration,
}

/// Without the password: `trader@db.example:5432/shop`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// What is wrong with a URL. Names the part, never its text: a password may stand in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the PostgreSQL url {0}; it should look like postgres://user:password@host:5432/database?sslmode=verify-full")]
pub struct BadUrl(String);

impl From<&'static str> for BadUrl {
    fn from(why: &'static str) -> Self {
        Self(why.to_owned())
    }
}

impl FromStr for Address {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        let bad = |what: &str| BadUrl(what.to_owned());
        if url.len() > URL_BYTES_MAX {
            return Err(bad("is longer than 8 KiB"));
        }
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| bad("does not begin with postgres://"))?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (server, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, server) = server.rsplit_once('@').ok_or_else(|| bad("has no user"))?;
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (decoded(user)?, Some(Secret::new(decoded(password)?))),
            None => (decoded(login)?, None),
        };
        let (host, port) = host_and_port(server)?;
        let database = if database.is_empty() { user.clone() } else { decoded(database)? };
        if user.is_empty() || host.is_empty() {
            return Err(bad("has an empty user or host"));
        }
        let mut address = Self {
            host,
            port,
            user,
            password,
            database,
            tls: TlsMode::Prefer,
            root_cert: None,
            application: "mulgil".to_owned(),
            connect_timeout: Duration::from_secs(DEFAULT_CONNECT_SECONDS),
        };
        for option in options.split('&').filter(|o| !o.is_empty()) {
            let (name, value) = option.split_once('=').ok_or_else(|| bad("has an option without a value"))?;
            address.set(name, decoded(value)?)?;
        }
        if address.has_nul() {
            return Err(bad("has a zero byte"));
        }
        Ok(address)
    }
}

impl Address {
    fn set(&mut self, name: &str, value: String) -> Result<(), BadUrl> {
        match name {
            "sslmode" => {
                self.tls = match value.as_str() {
                    "disable" => TlsMode::Disable,
                    "prefer" | "allow" => TlsMode::Prefer,
                    "require" => TlsMode::Require,
                    "verify-ca" => TlsMode::VerifyCa,
                    "verify-full" => TlsMode::VerifyFull,
                    _ => return Err(BadUrl("has an sslmode other than disable, prefer, require, verify-ca, verify-full".to_owned())),
                }
            }
            "sslrootcert" => self.root_cert = Some(PathBuf::from(value)),
            "application_name" => self.application = value,
            "connect_timeout" => {
                let seconds: u64 = value.parse().map_err(|_| BadUrl("has a connect_timeout that is not a number of seconds".to_owned()))?;
                self.connect_timeout = Duration::from_secs(seconds.clamp(1, 3600));
            }
            _ => {
                return Err(BadUrl("has an option other than sslmode, sslrootcert, application_name, connect_timeout".to_owned()));
            }
        }
        Ok(())
    }

    /// The start-up message ends each text with a zero byte: one inside would begin another parameter.
    fn has_nul(&self) -> bool {
        let password = self.password.as_ref().map_or("", |p| p.reveal());
        [&self.user, &self.database, &self.application, password].iter().any(|t| t.contains('\0'))
    }
}

fn host_and_port(server: &str) -> Result<(String, u16), BadUrl> {
    let bad_port = || BadUrl("has a port that is not a number".to_owned());
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| BadUrl("has a [ without its ]".to_owned()))?;
            (host.to_owned(), rest.strip_prefix(':').unwrap_or(""))
        }
        None => {
            let (host, port) = server.split_once(':').unwrap_or((server, ""));
            (decoded(host)?, port)
        }
    };
    let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().map_err(|_| bad_port())? };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_url_is_read() {
        let url = "postgres://me%40home:p%3Aw%2F%25@[::1]:6000/my%20db?sslmode=verify-full&sslrootcert=/etc/root.pem&connect_timeout=3";
        let a: Address = url.parse().unwrap();
        assert_eq!((a.user.as_str(), a.password.as_ref().unwrap().reveal()), ("me@home", "p:w/%"));
        assert_eq!((a.host.as_str(), a.port, a.database.as_str()), ("::1", 6000, "my db"));
        assert_eq!((a.tls, a.root_cert.as_deref()), (TlsMode::VerifyFull, Some(std::path::Path::new("/etc/root.pem"))));
        assert_eq!(a.connect_timeout, Duration::from_secs(3));

        let a: Address = "postgresql://bob@db".parse().unwrap();
        assert_eq!((a.host.as_str(), a.port, a.database.as_str(), a.tls), ("db", 5432, "bob", TlsMode::Prefer));
        assert_eq!(a.password, None);
    }

    #[test]
    fn neither_an_address_nor_an_error_shows_the_password() {
        let a: Address = "postgres://bob:hunter2@db/shop".parse().unwrap();
        assert_eq!(a.to_string(), "bob@db:5432/shop");
        assert!(!format!("{a:?}").contains("hunter2"));
        for url in [
            "mysql://bob:hunter2@db/shop",
            "postgres://bob:hunter2@db:hunter2/shop",
            "postgres://bob:hunter2%@db/shop",
            "postgres://bob:hunter2",
            "postgres://bob:hunter2@db/shop?hunter2=hunter2",
            "postgres://bob:hunter2@db/shop?sslmode=hunter2",
            "postgres://bob:hunter2%00@db/shop",
            "postgres://bob:hunter2@/shop",
            "postgres://bob:hunter2@[::1/shop",
        ] {
            let error = url.parse::<Address>().unwrap_err();
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{error}");
        }
    }
}
