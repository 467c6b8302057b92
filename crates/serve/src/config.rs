//! How the server is set up: where it listens, who may ask what, and every limit with its unit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mulgil_model::ids::Topic;

/// What was validated elsewhere; [`crate::server::Server::new`] checks what only the whole can tell.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    pub bind: SocketAddr,
    pub keys: Vec<KeyConfig>,
    /// Listen on an address that others can reach although there are no keys.
    pub allow_public: bool,
    pub tls: Option<Tls>,
    /// `https://desk.example.com`; empty: browsers on other sites get nothing.
    pub cors_origins: Vec<String>,
    /// Names under which the server may be called besides addresses and `localhost`; empty: any name, once keys are configured or the
    /// address is public.
    pub host_names: Vec<String>,
    /// The trade stream of `/api/v1/stock`; None: the first of the feed.
    pub trades: Option<Topic>,
    pub limits: Limits,
}

impl ServeConfig {
    /// An address that others can reach needs keys, or the explicit word that everybody is welcome. Needs nothing opened yet.
    pub fn check_reach(&self) -> Result<(), ServeError> {
        let protected = self.bind.ip().is_loopback() || !self.keys.is_empty() || self.allow_public;
        if protected { Ok(()) } else { Err(ServeError::Public(self.bind)) }
    }
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            keys: Vec::new(),
            allow_public: false,
            tls: None,
            cors_origins: Vec::new(),
            host_names: Vec::new(),
            trades: None,
            limits: Limits::default(),
        }
    }
}

#[derive(Clone)]
pub struct KeyConfig {
    pub name: String,
    pub scopes: Vec<Scope>,
    /// The resolved secret, at least [`KEY_CHARS_MIN`] characters; only its hash is kept.
    pub key: String,
}

impl std::fmt::Debug for KeyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyConfig").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// Shorter keys can be guessed.
pub const KEY_CHARS_MIN: usize = 16;

/// What a key may do. `Admin` may do everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    Read,
    Ingest,
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Read, Self::Ingest, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// Contents of the files, PEM.
#[derive(Clone)]
pub struct Tls {
    pub cert_pem: Vec<u8>,
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub body_bytes_max: usize,
    /// Bodies of all requests together, as far as they have come; never less than one whole body.
    pub bodies_bytes_max: usize,
    /// For everything but streams: until the first byte of the answer.
    pub request_timeout: Duration,
    pub requests_max: usize,
    pub connections_max: usize,
    /// Until a connection has sent the head of a request.
    pub header_timeout: Duration,
    /// How long open requests and sockets may take to end when the server stops.
    pub stop_timeout: Duration,

    pub ws_clients_max: usize,
    pub ws_message_bytes_max: usize,
    pub ws_subscriptions_max: usize,
    pub ws_symbols_max: usize,
    /// Frames waiting for one client. It is met by not reading ahead, never by dropping rows.
    pub ws_buffer_bytes_max: usize,
    /// Unreadable messages after which a socket is closed.
    pub ws_bad_messages_max: u32,
    pub ws_ping_every: Duration,
    pub ws_pong_within: Duration,
    /// A client that has not caught up for so long is warned, then disconnected with its resume token.
    pub ws_slow_warn: Duration,
    pub ws_slow_close: Duration,

    pub sse_clients_max: usize,
    pub sse_heartbeat: Duration,
    pub sse_retry: Duration,

    pub search_rows_max: usize,
    pub sql_rows_max: usize,
    pub sql_timeout: Duration,
    /// Encoded rows kept per partition for all live clients together.
    pub ring_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 << 20,
            bodies_bytes_max: 64 << 20,
            request_timeout: Duration::from_secs(30),
            requests_max: 256,
            connections_max: 4096,
            header_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(10),
            ws_clients_max: 2048,
            ws_message_bytes_max: 64 << 10,
            ws_subscriptions_max: 100,
            ws_symbols_max: 1000,
            ws_buffer_bytes_max: 1 << 20,
            ws_bad_messages_max: 10,
            ws_ping_every: Duration::from_secs(25),
            ws_pong_within: Duration::from_secs(8),
            ws_slow_warn: Duration::from_secs(3),
            ws_slow_close: Duration::from_secs(15),
            sse_clients_max: 1024,
            sse_heartbeat: Duration::from_secs(15),
            sse_retry: Duration::from_secs(2),
            search_rows_max: 10_000,
            sql_rows_max: 1_000_000,
            sql_timeout: Duration::from_secs(30),
            ring_bytes_max: 8 << 20,
        }
    }
}

/// Why the server cannot start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(
        "refusing to listen on {0}: others can reach this address, and no keys are configured. Add a [[serve.keys]] entry, or bind to \
         127.0.0.1, or set allow_public = true if everybody may read, ingest and control"
    )]
    Public(SocketAddr),
    #[error("key '{0}' is shorter than {KEY_CHARS_MIN} characters: make one with `openssl rand -hex 32`")]
    ShortKey(String),
    #[error("key '{0}' has no scopes: give it one of read, ingest, admin")]
    NoScopes(String),
    #[error("two keys are named '{0}': give each its own name")]
    KeyTwice(String),
    #[error("'{0}' in cors_origins is not an origin: write it like https://desk.example.com")]
    Origin(String),
    #[error("tls cannot be set up: {0}")]
    Tls(String),
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: std::io::Error },
    #[error("the server ended: {0}")]
    Io(#[from] std::io::Error),
}
