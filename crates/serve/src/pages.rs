//! The pages, as built in `web/dist` and compiled in.

use crate::problem::Problem;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};
use std::fmt::Write;

static PAGES: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../web/dist");

/// Scripts, styles and connections only from here; inline styles, because charts set them.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub async fn page(uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let path = if path.is_empty() { "index.html" } else { path };
    match PAGES.get_file(path) {
        Some(file) => answer(path, file.contents(), &headers),
        None => Problem::not_found(format!("there is nothing at {}: see /openapi.json", shorten(uri.path()))).into_response(),
    }
}

fn answer(path: &str, contents: &'static [u8], headers: &HeaderMap) -> Response {
    let tag = tag_of(contents);
    // Vite puts a hash of the contents into the names of assets, so those never change.
    let caching = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.split(',').any(|t| t.trim().trim_start_matches("W/") == tag));
    let shared = [
        (header::ETAG, HeaderValue::from_str(&tag).expect("a tag is hex in quotes")),
        (header::CACHE_CONTROL, HeaderValue::from_static(caching)),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, shared).into_response();
    }
    let own = [(header::CONTENT_TYPE, media_type(path)), (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)];
    (shared, own, contents).into_response()
}

fn tag_of(contents: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in &Sha256::digest(contents)[..12] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag + "\""
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn shorten(path: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    path.chars().take(SHOWN_CHARS_MAX).collect()
}
