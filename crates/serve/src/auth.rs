//! Who may ask: API keys with scopes, and the check that a request was meant for this server.

use crate::app::App;
use crate::config::{KEY_CHARS_MIN, KeyConfig, Scope, ServeConfig, ServeError};
use crate::measure;
use crate::problem::Problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The configured keys, as hashes. Without any, everybody who can reach the server may do everything.
pub struct Keyring {
    keys: Vec<Key>,
    hosts: Hosts,
}

struct Key {
    hash: [u8; 32],
    scopes: Vec<Scope>,
}

/// Which `Host` and `Origin` a request may carry.
struct Hosts {
    names: Vec<String>,
    /// No names are configured, and keys or the operator's word protect the server: any name will do.
    any: bool,
    origins: Vec<String>,
}

impl Keyring {
    pub fn new(config: &ServeConfig) -> Result<Self, ServeError> {
        let mut names: Vec<&str> = config.keys.iter().map(|k| k.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ServeError::KeyTwice(pair[0].to_owned()));
        }
        let keys = config.keys.iter().map(Key::new).collect::<Result<Vec<_>, _>>()?;
        if let Some(bad) = config.cors_origins.iter().find(|o| !is_origin(o)) {
            return Err(ServeError::Origin(bad.clone()));
        }
        let any = config.host_names.is_empty() && (!keys.is_empty() || !config.bind.ip().is_loopback());
        let hosts =
            Hosts { names: config.host_names.iter().map(|n| n.to_ascii_lowercase()).collect(), any, origins: config.cors_origins.clone() };
        Ok(Self { keys, hosts })
    }

    pub fn is_open(&self) -> bool {
        self.keys.is_empty()
    }

    /// The scopes of the key, if there is one like it. All keys are compared, so that the time says nothing about them.
    fn scopes(&self, given: &str) -> Option<&[Scope]> {
        let hash = Sha256::digest(given.as_bytes());
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.hash.as_slice().ct_eq(hash.as_slice())) {
                found = Some(key.scopes.as_slice());
            }
        }
        found
    }
}

impl Key {
    fn new(config: &KeyConfig) -> Result<Self, ServeError> {
        if config.key.chars().count() < KEY_CHARS_MIN {
            return Err(ServeError::ShortKey(config.name.clone()));
        }
        if config.scopes.is_empty() {
            return Err(ServeError::NoScopes(config.name.clone()));
        }
        Ok(Self { hash: Sha256::digest(config.key.as_bytes()).into(), scopes: config.scopes.clone() })
    }
}

/// A route's door: who may pass, and whether the key may stand in the address.
#[derive(Clone)]
pub struct Door {
    pub app: Arc<App>,
    pub scope: Scope,
    /// For WebSocket and EventSource: browsers cannot set headers there.
    pub key_in_query: bool,
}

pub async fn check_key(State(door): State<Door>, request: Request, next: Next) -> Response {
    match admit(&door, request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            measure::refused("key");
            problem.into_response()
        }
    }
}

fn admit(door: &Door, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    if door.app.keys.is_open() {
        return Ok(());
    }
    let in_query = || door.key_in_query.then(|| key_of_query(uri)).flatten();
    let given = key_of_headers(headers).map(str::to_owned).or_else(in_query);
    let given = given.ok_or_else(|| {
        let how = if door.key_in_query { ", X-API-Key, or ?access_token= in the address" } else { " or X-API-Key" };
        Problem::new(StatusCode::UNAUTHORIZED, "key-missing", format!("send a key: Authorization: Bearer …{how}"))
    })?;
    let unknown = || Problem::new(StatusCode::UNAUTHORIZED, "key-unknown", "this key is not known here");
    let scopes = door.app.keys.scopes(&given).ok_or_else(unknown)?;
    if scopes.contains(&door.scope) || scopes.contains(&Scope::Admin) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "scope-missing", format!("this needs a key with the scope '{}'", door.scope.as_str())))
}

fn key_of_headers(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| {
        let (scheme, key) = v.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key").and_then(|v| v.to_str().ok()))
}

fn key_of_query(uri: &Uri) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct InQuery {
        key: Option<String>,
        access_token: Option<String>,
    }
    let axum::extract::Query(q) = axum::extract::Query::<InQuery>::try_from_uri(uri).ok()?;
    q.access_token.or(q.key)
}

/// Refuses requests that a browser was tricked into: a foreign name that resolves to this machine (DNS rebinding), and calls and
/// WebSockets from other sites (which no CORS header stops).
pub async fn check_host(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let hosts = &app.keys.hosts;
    let host = request.headers().get(header::HOST).and_then(|v| v.to_str().ok()).or_else(|| request.uri().authority().map(|a| a.as_str()));
    let host = host.unwrap_or_default().to_ascii_lowercase();
    if !hosts.takes_host(&host) {
        measure::refused("host");
        let detail = "the Host header names another machine: call this server by address, as localhost, or by a name in serve.host_names";
        return Problem::new(StatusCode::FORBIDDEN, "host", detail).into_response();
    }
    let origin = request.headers().get(header::ORIGIN).map(|v| v.to_str().unwrap_or("invalid"));
    if origin.is_some_and(|origin| !hosts.takes_origin(origin, &host)) {
        measure::refused("origin");
        let detail = "this request comes from another site: add the site to serve.cors_origins if it may";
        return Problem::new(StatusCode::FORBIDDEN, "origin", detail).into_response();
    }
    next.run(request).await
}

impl Hosts {
    /// Addresses and localhost cannot be rebound by a foreign name server.
    fn takes_host(&self, host: &str) -> bool {
        let name = host_name(host);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        self.any || is_address || name == "localhost" || name.ends_with(".localhost") || self.names.iter().any(|n| n == name)
    }

    fn takes_origin(&self, origin: &str, host: &str) -> bool {
        let is_own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
        is_own || self.origins.iter().any(|o| o.eq_ignore_ascii_case(origin))
    }
}

/// `localhost:8080` -> `localhost`, `[::1]:8080` -> `[::1]`.
fn host_name(host: &str) -> &str {
    match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => &host[..at],
        _ => host,
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, authority)) = text.split_once("://") else { return false };
    matches!(scheme, "http" | "https") && !authority.is_empty() && !authority.contains(['/', '*', ' ', '?', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_origins() {
        let hosts = Hosts { names: vec!["desk.example.com".into()], any: false, origins: vec!["https://ui.example.com".into()] };
        for good in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "192.168.0.5", "desk.example.com:443", "a.localhost:1"]
        {
            assert!(hosts.takes_host(good), "{good}");
        }
        for bad in ["", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "[::1].evil.example"] {
            assert!(!hosts.takes_host(bad), "{bad}");
        }
        let check = |origin: &str, want: bool| assert_eq!(hosts.takes_origin(origin, "127.0.0.1:8080"), want, "{origin}");
        check("http://127.0.0.1:8080", true);
        check("https://ui.example.com", true);
        check("http://127.0.0.1:9999", false);
        check("http://evil.example", false);
        check("null", false);
        check("file://", false);
    }

    #[test]
    fn origins_are_checked() {
        for (text, want) in [
            ("https://a.b", true),
            ("http://localhost:5173", true),
            ("*", false),
            ("https://a.b/", false),
            ("a.b", false),
            ("https://*", false),
        ] {
            assert_eq!(is_origin(text), want, "{text}");
        }
    }
}
