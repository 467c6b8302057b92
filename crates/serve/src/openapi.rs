//! The OpenAPI 3.1 document of everything this server answers.

use crate::problem::{Problem, RowReport};
use crate::rest::{alerts, captures, generate, health, ingest, realtime, search, sql, streams};
use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mulgil",
        description = "Market trades and payments, live and past. With keys configured, everything under /api and /metrics needs one: read for GET and SQL, ingest for rows, admin for the generator and for snapshots. Errors are problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        generate::start, generate::status, generate::stop, generate::stop_by_post, search::search, realtime::realtime, alerts::anomaly,
        alerts::latest, ingest::ingest, sql::sql, streams::list, captures::list, captures::snapshot, health::live, health::ready, health::metrics,
    ),
    components(schemas(Problem, RowReport)),
    security(("bearer" = []), ("api_key" = [])),
)]
struct Document;

/// The document, indented, with a line end.
pub fn document() -> String {
    let mut document = Document::openapi();
    let paths = &mut document.paths.paths;
    // Both spellings answer alike; only the first is described by hand.
    for (alias, path) in [("/api/v1/stock", "/api/v1/stock/search"), ("/api/v1/stock/real-time", "/api/v1/stock/realtime")] {
        if let Some(mut item) = paths.get(path).cloned() {
            if let Some(get) = &mut item.get {
                get.operation_id = get.operation_id.as_ref().map(|id| format!("{id}_alias"));
                get.summary = Some(format!("The same as {path}."));
                get.description = None;
            }
            paths.insert(alias.to_owned(), item);
        }
    }
    let schemes = &mut document.components.get_or_insert_default().security_schemes;
    schemes.insert("bearer".to_owned(), SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)).into());
    schemes.insert("api_key".to_owned(), SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key"))).into());
    document.to_pretty_json().expect("the document holds only text and numbers") + "\n"
}
