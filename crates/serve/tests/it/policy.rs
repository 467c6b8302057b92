//! Who may come in: keys and scopes, addresses, hosts and origins, slow and many connections.

use crate::market::*;
use mulgil_serve::config::{KeyConfig, Limits, Scope, ServeConfig};
use mulgil_serve::server::Server;
use reqwest::{Client, Method};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READ: &str = "read-key-0123456789";
const INGEST: &str = "ingest-key-0123456789";
const ADMIN: &str = "admin-key-0123456789";

fn with_keys() -> ServeConfig {
    let key = |name: &str, scope, key: &str| KeyConfig { name: name.into(), scopes: vec![scope], key: key.into() };
    ServeConfig { keys: vec![key("r", Scope::Read, READ), key("i", Scope::Ingest, INGEST), key("a", Scope::Admin, ADMIN)], ..config() }
}

#[tokio::test]
async fn scopes_by_route() {
    let server = start_with(Market::new(1), with_keys()).await;
    let routes = [
        (Method::GET, "/api/v1/stock"),
        (Method::GET, "/api/v1/stock/search"),
        (Method::GET, "/api/v1/streams"),
        (Method::GET, "/api/v1/captures"),
        (Method::POST, "/api/v1/captures/exchange/snapshot"),
        (Method::GET, "/api/v1/alerts"),
        (Method::GET, "/metrics"),
        (Method::GET, "/api/v1/stock/generate"),
        (Method::POST, "/api/v1/stock/generate"),
        (Method::DELETE, "/api/v1/stock/generate"),
        (Method::POST, "/api/v1/stock/generate/stop"),
        (Method::POST, "/api/v1/ingest/trades"),
        (Method::POST, "/api/v1/sql"),
        (Method::GET, "/api/v1/stock/realtime"),
        (Method::GET, "/api/v1/stock/anomaly"),
        (Method::GET, "/health/live"),
        (Method::GET, "/health/ready"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/"),
    ];
    let mut table = String::from("none wrong read ingest admin\n");
    for (method, path) in routes {
        let mut row = Vec::new();
        for key in [None, Some("wrong-key-0123456789"), Some(READ), Some(INGEST), Some(ADMIN)] {
            let mut request = Client::new().request(method.clone(), server.url(path));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            let response = request.send().await.unwrap();
            row.push(match response.status().as_u16() {
                401 => {
                    assert!(response.headers().contains_key("www-authenticate"));
                    "401"
                }
                403 => "403",
                _ => "in",
            });
        }
        table += &format!("{} {method} {path}\n", row.join(" "));
    }
    expect_test::expect![[r#"
        none wrong read ingest admin
        401 401 in 403 in GET /api/v1/stock
        401 401 in 403 in GET /api/v1/stock/search
        401 401 in 403 in GET /api/v1/streams
        401 401 in 403 in GET /api/v1/captures
        401 401 403 403 in POST /api/v1/captures/exchange/snapshot
        401 401 in 403 in GET /api/v1/alerts
        401 401 in 403 in GET /metrics
        401 401 in 403 in GET /api/v1/stock/generate
        401 401 403 403 in POST /api/v1/stock/generate
        401 401 403 403 in DELETE /api/v1/stock/generate
        401 401 403 403 in POST /api/v1/stock/generate/stop
        401 401 403 in in POST /api/v1/ingest/trades
        401 401 in 403 in POST /api/v1/sql
        401 401 in 403 in GET /api/v1/stock/realtime
        401 401 in 403 in GET /api/v1/stock/anomaly
        in in in in in GET /health/live
        in in in in in GET /health/ready
        in in in in in GET /openapi.json
        in in in in in GET /
    "#]]
    .assert_eq(&table);
    let status = async |path: &str, header: Option<&str>| {
        let mut request = Client::new().get(server.url(path));
        if let Some(key) = header {
            request = request.header("x-api-key", key);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("/api/v1/streams", Some(READ)).await, 200);
    // In the address only where a browser cannot do otherwise.
    assert_eq!(status(&format!("/api/v1/streams?access_token={READ}"), None).await, 401);
    assert_eq!(status(&format!("/api/v1/stock/anomaly?access_token={READ}"), None).await, 200);
    assert_eq!(status(&format!("/api/v1/stock/anomaly?key={INGEST}"), None).await, 403);
    let socket = tokio_tungstenite::connect_async(format!("ws://{}/api/v1/stock/realtime?access_token={READ}", server.addr)).await;
    drop(socket.unwrap());
    server.stop().await;
}

#[test]
fn configurations_that_are_refused() {
    let check = |change: fn(&mut ServeConfig), want: &str| {
        let mut config = with_keys();
        change(&mut config);
        let error = Server::new(config, ports(&Market::new(1))).err().map_or("fine".to_owned(), |e| e.to_string());
        assert!(error.contains(want), "{error}");
    };
    check(|_| {}, "fine");
    check(|c| c.bind = "0.0.0.0:0".parse().unwrap(), "fine");
    let public = "refusing to listen on 0.0.0.0:0: others can reach this address, and no keys are configured. Add a [[serve.keys]] entry, or bind to 127.0.0.1, or set allow_public = true if everybody may read, ingest and control";
    check(|c| (c.keys, c.bind) = (vec![], "0.0.0.0:0".parse().unwrap()), public);
    check(|c| (c.keys, c.bind) = (vec![], "[::]:0".parse().unwrap()), "refusing to listen on [::]:0");
    check(|c| (c.keys, c.bind) = (vec![], "[::1]:0".parse().unwrap()), "fine");
    check(|c| (c.keys, c.bind, c.allow_public) = (vec![], "0.0.0.0:0".parse().unwrap(), true), "fine");
    check(|c| c.keys[0].key = "short".into(), "key 'r' is shorter than 16 characters");
    check(|c| c.keys[0].scopes.clear(), "key 'r' has no scopes");
    check(|c| c.keys[1].name = "r".into(), "two keys are named 'r'");
    check(|c| c.cors_origins = vec!["*".into()], "'*' in cors_origins is not an origin");
    check(
        |c| c.tls = Some(mulgil_serve::config::Tls { cert_pem: b"x".to_vec(), key_pem: b"x".to_vec() }),
        "the certificate file holds no certificate",
    );
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let server = start_with(Market::new(1), ServeConfig { cors_origins: vec!["https://desk.example.com".into()], ..config() }).await;
    let own = format!("http://{}", server.addr);
    let status = async |host: Option<&str>, origin: Option<&str>| {
        let mut request = Client::new().get(server.url("/api/v1/streams"));
        for (name, value) in [("host", host), ("origin", origin)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap().to_owned()))
    };
    assert_eq!(status(None, None).await, (200, None));
    assert_eq!(status(Some("localhost:8080"), None).await, (200, None));
    assert_eq!(status(Some("evil.example"), None).await, (403, None));
    assert_eq!(status(None, Some(&own)).await, (200, None));
    assert_eq!(status(None, Some("https://evil.example")).await, (403, None));
    assert_eq!(status(None, Some("null")).await, (403, None));
    assert_eq!(status(None, Some("https://desk.example.com")).await, (200, Some("https://desk.example.com".into())));
    let mut request = tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(format!(
        "ws://{}/api/v1/stock/realtime",
        server.addr
    ))
    .unwrap();
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    let refused = tokio_tungstenite::connect_async(request).await;
    assert!(
        matches!(refused, Err(tokio_tungstenite::tungstenite::Error::Http(r)) if r.status() == 403),
        "a foreign page may not open a socket"
    );
    server.stop().await;
}

#[tokio::test]
async fn hesitant_and_surplus_connections_are_closed() {
    let limits = Limits { connections_max: 3, header_timeout: Duration::from_millis(200), ..Limits::default() };
    let server = start_limited(1, limits).await;
    // Nothing, the beginning of a method, and headers that do not end.
    let mut open = Vec::new();
    for begin in [&b""[..], b"P", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(begin).await.unwrap();
        open.push(stream);
    }
    let mut surplus = TcpStream::connect(server.addr).await.unwrap();
    let mut text = Vec::new();
    let _ = surplus.read_to_end(&mut text).await;
    assert_eq!(text, b"", "the fourth connection is closed without an answer");
    for mut stream in open {
        let mut text = Vec::new();
        let ended = tokio::time::timeout(crate::socket::PATIENCE, stream.read_to_end(&mut text)).await;
        assert!(ended.is_ok(), "the server closes a connection that does not finish its request");
    }
    // The places are free again.
    assert_eq!(reqwest::get(server.url("/health/live")).await.unwrap().status(), 200);
    server.stop().await;
}

/// The certificates in `testdata/tls` are the tests' own and protect nothing.
#[tokio::test]
async fn tls() {
    use mulgil_serve::config::Tls;
    use std::sync::Arc;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
    let tls = Tls {
        cert_pem: include_bytes!("../../testdata/tls/cert.pem").to_vec(),
        key_pem: include_bytes!("../../testdata/tls/key.pem").to_vec(),
    };
    let server = start_with(Market::new(1), ServeConfig { tls: Some(tls), ..config() }).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(include_bytes!("../../testdata/tls/ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    server.stop().await;
}
