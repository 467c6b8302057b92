//! What goes wrong between us and the server.

use crate::source::{SourceError, SourceErrorKind};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("{what}: {source}")]
    Io { what: &'static str, source: std::io::Error },
    #[error("the server closed the connection")]
    Closed,
    #[error("the server said nothing for {} s, not even a heartbeat: the connection is cut", .0.as_secs_f32())]
    Silent(Duration),
    #[error("the server sent a packet of more than {max} bytes; raise packet_bytes_max if a row of the table may be that large")]
    TooLarge { max: usize },
    #[error("the server sent a {what} that is not one")]
    Malformed { what: &'static str },
    #[error("the server answered with error {code} ({state}): {message}")]
    Server { code: u16, state: String, message: String },
    #[error("{0}")]
    Login(String),
    #[error("TLS: {0}")]
    Tls(String),
}

/// Most of a server's message that is repeated.
const MESSAGE_CHARS_MAX: usize = 300;
/// `ER_PARSE_ERROR`: repeats a piece of the statement, which may hold the key of a row.
const PARSE_ERROR: u16 = 1064;

/// `ER_CON_COUNT_ERROR`, `ER_SERVER_SHUTDOWN`, `ER_LOCK_WAIT_TIMEOUT`, `ER_LOCK_DEADLOCK`, `ER_QUERY_INTERRUPTED`, `ER_NEW_ABORTING_CONNECTION`, MariaDB's
/// `ER_CONNECTION_KILLED`.
const PASSING: [u16; 8] = [1040, 1053, 1205, 1213, 1317, 1152, 1184, 1927];
/// `ER_DBACCESS_DENIED_ERROR` to `ER_BAD_DB_ERROR`, table and column access, `ER_NO_SUCH_TABLE`, `ER_SPECIFIC_ACCESS_DENIED_ERROR`,
/// `ER_ACCESS_DENIED_NO_PASSWORD_ERROR`, unknown plugin.
const OF_SETTINGS: [u16; 9] = [1044, 1045, 1049, 1130, 1142, 1143, 1146, 1227, 1698];

impl WireError {
    pub(super) fn server(code: u16, state: String, message: &str) -> Self {
        let message = match code {
            PARSE_ERROR => "it does not understand a statement".to_owned(),
            _ => message.chars().take(MESSAGE_CHARS_MAX).collect(),
        };
        Self::Server { code, state, message }
    }

    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    fn kind(&self) -> SourceErrorKind {
        match self {
            Self::Server { code, .. } if PASSING.contains(code) => SourceErrorKind::Retry,
            Self::Server { code, .. } if OF_SETTINGS.contains(code) => SourceErrorKind::Config,
            Self::Login(_) | Self::Tls(_) | Self::TooLarge { .. } => SourceErrorKind::Config,
            _ => SourceErrorKind::Retry,
        }
    }

    /// As the supervisor is told, with what was being done.
    pub fn during(self, what: &str) -> SourceError {
        SourceError { kind: self.kind(), message: format!("{what}: {self}") }
    }
}
