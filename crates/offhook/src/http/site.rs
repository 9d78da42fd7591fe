//! The browser client's files, which the program carries. Addresses are looked up in a table, so no path leads out of it; what is not in it and
//! looks like a page of the client gets the client's one page.

use std::sync::LazyLock;

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::problem::{Kind, Problem};

/// Path and content, in order of path.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/site.rs"));

/// The tag of each file: its hash.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |(_, bytes): &(&str, &[u8])| format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32]);
    FILES.iter().map(tag).collect()
});

const PAGE: &str = "/index.html";
/// Files below this have a hash in their name: what they hold never changes.
const HASHED: &str = "/assets/";

pub(super) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let path = uri.path();
    if path.starts_with("/api/") {
        let detail = format!("there is nothing at {path}; docs/api.md lists what there is");
        return Err(Problem::new(Kind::NoEndpoint, detail));
    }
    if !matches!(method, Method::GET | Method::HEAD) {
        let detail = format!("{path} does not take {method}; it is a page");
        return Err(Problem::new(Kind::BadMethod, detail));
    }
    let (name, bytes, tag) = find(path).ok_or_else(|| {
        let detail = format!("there is no file {path}");
        Problem::new(Kind::NoEndpoint, detail)
    })?;
    let cache = match name.starts_with(HASHED) {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let facts = [(header::ETAG, tag), (header::CACHE_CONTROL, cache)];
    if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag)) {
        return Ok((StatusCode::NOT_MODIFIED, facts).into_response());
    }
    Ok((facts, [(header::CONTENT_TYPE, content_type(name))], bytes).into_response())
}

fn find(path: &str) -> Option<(&'static str, &'static [u8], &'static str)> {
    let at = |path: &str| FILES.binary_search_by_key(&path, |(name, _)| name).ok();
    let is_page = !path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    let index = at(path).or_else(|| is_page.then(|| at(PAGE)).flatten())?;
    let (name, bytes) = FILES.get(index)?;
    Some((name, bytes, TAGS.get(index)?))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_client_are_its_one_page_and_nothing_leads_out() {
        for path in [
            "/",
            "/rooms/abc",
            "/index.html",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/../../etc/passwd",
        ] {
            assert_eq!(find(path).map(|(name, ..)| name), Some(PAGE), "{path}");
        }
        for path in [
            "/..",
            "/missing.js",
            "/assets/../../Cargo.toml",
            "/.env",
            "/etc/hosts.txt",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(FILES.is_sorted_by_key(|(name, _)| *name));
        assert_eq!(content_type("/a/b.min.js"), "text/javascript; charset=utf-8");
    }
}
