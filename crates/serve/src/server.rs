//! The server: routes, their doors and limits, and the listener.

use crate::accept::Limited;
use crate::app::App;
use crate::auth::{Door, Keyring, check_host, check_key};
use crate::config::{Scope, ServeConfig, ServeError, Tls};
use crate::ports::Ports;
use crate::problem::Problem;
use crate::rest::{alerts, captures, generate, health, ingest, realtime, search, sql, streams};
use crate::seat::Seat;
use crate::{measure, openapi, pages};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// A checked configuration with everything behind it. It opens nothing and starts no task: `bind`, then `serve` in a task of the
/// binary's.
pub struct Server {
    config: ServeConfig,
    app: Arc<App>,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: watch::Sender<bool>,
}

impl Server {
    pub fn new(config: ServeConfig, ports: Ports) -> Result<Self, ServeError> {
        config.check_reach()?;
        let keys = Keyring::new(&config)?;
        let tls = config.tls.as_ref().map(tls_config).transpose()?;
        let (stop, stopping) = watch::channel(false);
        let app = Arc::new(App::new(&config, keys, ports, stopping));
        measure::describe();
        Ok(Self { config, app, tls, stop })
    }

    /// Opens the configured address.
    pub fn bind(&self) -> Result<TcpListener, ServeError> {
        let addr = self.config.bind;
        TcpListener::bind(addr).map_err(|source| ServeError::Bind { addr, source })
    }

    /// Where people go: `http://127.0.0.1:8080/`.
    pub fn url(&self, addr: SocketAddr) -> String {
        format!("{}://{addr}/", if self.tls.is_some() { "https" } else { "http" })
    }

    /// Serves until `shutdown` is done; then live clients are told to come again, open requests get `stop_timeout` to end, and it returns.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        listener.set_nonblocking(true)?;
        let limits = &self.app.limits;
        let handle = Handle::<SocketAddr>::new();
        let acceptor = Limited::new(limits.connections_max, limits.header_timeout);
        let service = self.router().into_make_service();
        let (header_timeout, stop_timeout, ws_clients_max) = (limits.header_timeout, limits.stop_timeout, limits.ws_clients_max);
        let mut server = axum_server::from_tcp(listener)?.handle(handle.clone());
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(header_timeout);
        server.http_builder().http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
        let serving = async {
            match self.tls {
                Some(tls) => {
                    let tls = RustlsAcceptor::new(RustlsConfig::from_config(tls)).handshake_timeout(header_timeout);
                    server.acceptor(tls.acceptor(acceptor)).serve(service).await
                }
                None => server.acceptor(acceptor).serve(service).await,
            }
        };
        let stopping = async {
            shutdown.await;
            self.stop.send_replace(true);
            handle.graceful_shutdown(Some(stop_timeout));
        };
        let (served, ()) = futures::future::join(serving, stopping).await;
        // Sockets outlive the connection that they came from: all slots free means all said goodbye.
        let all = u32::try_from(ws_clients_max).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(stop_timeout, self.app.ws_slots.acquire_many(all)).await;
        Ok(served?)
    }

    /// All routes with their middleware; for tests and for embedding.
    pub fn router(&self) -> Router {
        let app = &self.app;
        let door = |scope, key_in_query| from_fn_with_state(Door { app: Arc::clone(app), scope, key_in_query }, check_key);
        let with = |scope, routes: MethodRouter<Arc<App>>| routes.layer(door(scope, false));
        let streaming = |routes: MethodRouter<Arc<App>>| routes.layer(door(Scope::Read, true));
        let generating = with(Scope::Read, get(generate::status)).merge(with(Scope::Admin, post(generate::start).delete(generate::stop)));
        let routes = Router::new()
            .route("/api/v1/stock/generate", generating)
            .route("/api/v1/stock/generate/stop", with(Scope::Admin, post(generate::stop_by_post)))
            .route("/api/v1/stock/realtime", streaming(get(realtime::realtime)))
            .route("/api/v1/stock/real-time", streaming(get(realtime::realtime)))
            .route("/api/v1/stock/anomaly", streaming(get(alerts::anomaly)))
            .route("/api/v1/stock/search", with(Scope::Read, get(search::search)))
            .route("/api/v1/stock", with(Scope::Read, get(search::search)))
            .route("/api/v1/alerts", with(Scope::Read, get(alerts::latest)))
            .route("/api/v1/ingest/{stream}", with(Scope::Ingest, post(ingest::ingest)))
            .route("/api/v1/sql", with(Scope::Read, post(sql::sql)))
            .route("/api/v1/streams", with(Scope::Read, get(streams::list)))
            .route("/api/v1/captures", with(Scope::Read, get(captures::list)))
            .route("/api/v1/captures/{source}/snapshot", with(Scope::Admin, post(captures::snapshot)))
            .route("/metrics", with(Scope::Read, get(health::metrics)))
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready))
            .route("/openapi.json", get(api_document))
            .fallback(get(pages::page).fallback(nothing_here))
            .method_not_allowed_fallback(wrong_method)
            .with_state(Arc::clone(app));
        // The last layer is the first to see a request.
        routes
            .layer(from_fn_with_state(Arc::clone(app), limit))
            .layer(self.cors())
            .layer(from_fn_with_state(Arc::clone(app), check_host))
            .layer(from_fn(watch_and_harden))
    }

    fn cors(&self) -> CorsLayer {
        // `Keyring::new` has checked that they are origins, which are valid header values.
        let origins: Vec<HeaderValue> = self.config.cors_origins.iter().filter_map(|o| HeaderValue::from_str(o).ok()).collect();
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                "x-api-key".parse().expect("a header name"),
                "idempotency-key".parse().expect("a header name"),
                "last-event-id".parse().expect("a header name"),
            ])
            .max_age(Duration::from_secs(600))
    }
}

async fn api_document() -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], openapi::document()).into_response()
}

async fn nothing_here() -> Problem {
    Problem::not_found("there is nothing here: see /openapi.json")
}

async fn wrong_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this address does not take this method: see the Allow header")
}

/// How many requests at once, and for how long.
async fn limit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let seat = Seat::default();
    // Those who watch must get through when all others wait.
    let is_watch = matches!(request.uri().path(), "/health/live" | "/health/ready" | "/metrics");
    if !is_watch && let Err(busy) = seat.take(&app) {
        return busy.into_response();
    }
    request.extensions_mut().insert(seat.clone());
    // A query has its own limit; this one covers sending it.
    let own = if request.uri().path() == "/api/v1/sql" { app.limits.sql_timeout } else { Duration::ZERO };
    match tokio::time::timeout(app.limits.request_timeout + own, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            measure::refused("timeout");
            let detail = "the request was not answered in time: was its body sent completely?";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail).into_response()
        }
    }
}

/// Counts and times, and says to browsers what they may not do.
async fn watch_and_harden(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "page".to_owned(), |p| p.as_str().to_owned());
    let method = match *request.method() {
        Method::GET | Method::POST | Method::DELETE | Method::HEAD | Method::OPTIONS | Method::PUT | Method::PATCH => {
            request.method().as_str().to_owned()
        }
        _ => "other".to_owned(),
    };
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    }
    measure::request(&method, &route, response.status().as_u16(), began.elapsed());
    response
}

fn tls_config(tls: &Tls) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let failed = |what: &str, e: &dyn std::fmt::Display| ServeError::Tls(format!("{what}: {e}"));
    let certs = CertificateDer::pem_slice_iter(&tls.cert_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed("the certificate file is not PEM", &e))?;
    if certs.is_empty() {
        return Err(ServeError::Tls("the certificate file holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&tls.key_pem).map_err(|e| failed("the key file holds no private key", &e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| failed("the protocol versions", &e))?.with_no_client_auth();
    let mut config = builder.with_single_cert(certs, key).map_err(|e| failed("certificate and key do not fit together", &e))?;
    // WebSockets need HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
