//! What every request over HTTP must show before anything looks at it.
//!
//! 1. `Host` names this listener exactly. A page elsewhere that rebinds its name to 127.0.0.1 still says its own name.
//! 2. `Origin`, where there is one, is this listener's: on every method, so event streams and upgrades of other pages are refused too. `Sec-Fetch-Site`,
//!    where a browser sends it, must not name another site for anything below `/api` and `/metrics`.
//! 3. Whoever brings a cookie and changes something, or upgrades, brings an `Origin`: every browser does. A program with a token needs none.
//! 4. What changes something is JSON or has no body, but for files, which are `application/octet-stream`: the types that a form can send are refused.
//! 5. The cookie or the token is one of ours. What it allows is checked at each route.
//!
//! The cookie is HttpOnly and SameSite=Strict. Browsers send cookies of 127.0.0.1 to every port of it, so other servers on this machine that a person
//! visits see the cookie: rules 2 and 3 stop their pages, not the servers themselves.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::access::{Access, Grant};
use crate::problem::{Kind, Problem};

/// What a listener is called, and who may come in.
pub(super) struct Door {
    hosts: Vec<String>,
    origins: Vec<String>,
    cookie: String,
    access: Arc<Access>,
}

impl Door {
    pub(super) fn new(at: SocketAddr, access: Arc<Access>) -> Self {
        let hosts = super::hosts(at);
        Self {
            origins: hosts.iter().map(|host| format!("http://{host}")).collect(),
            cookie: cookie_name(at.port()),
            hosts,
            access,
        }
    }

    /// Checks rules 1 to 4.
    fn judge(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let host = only(headers, header::HOST.as_str());
        if !host.is_some_and(|host| self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host))) {
            let detail = format!("this is {}; it answers to no other name", self.hosts.join(" or "));
            return Err(Problem::new(Kind::BadHost, detail));
        }
        let origins = headers.get_all(header::ORIGIN).iter().count();
        let origin = only(headers, header::ORIGIN.as_str());
        let is_own = origin.is_some_and(|origin| self.origins.iter().any(|ours| ours.eq_ignore_ascii_case(origin)));
        if origins > 0 && !is_own {
            return Err(foreign());
        }
        let is_page = !(path.starts_with("/api/") || path == "/metrics");
        let site = only(headers, "sec-fetch-site");
        if !is_page && !matches!(site, None | Some("same-origin" | "none")) {
            return Err(foreign());
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD) || headers.contains_key(header::UPGRADE);
        if changes && origins == 0 && !headers.contains_key(header::AUTHORIZATION) {
            let detail = "send `Origin` with what changes something, as every browser does; programs send `Authorization: Bearer TOKEN`";
            return Err(Problem::new(Kind::ForeignOrigin, detail));
        }
        let kind = only(headers, header::CONTENT_TYPE.as_str());
        let is_json = kind.is_none_or(|kind| {
            kind.split(';')
                .next()
                .is_some_and(|kind| kind.trim() == "application/json" || is_file(path, kind.trim()))
        });
        if changes && !is_json {
            let detail = "send the body as JSON, with `Content-Type: application/json`";
            return Err(Problem::new(Kind::NotJson, detail));
        }
        Ok(())
    }

    /// Rule 5: what the request's key allows; `None` where it brings none.
    fn grant(&self, headers: &HeaderMap) -> Result<Option<Grant>, Problem> {
        let unknown = || {
            let detail = "this token or session is not known here, or it has ended; `offhook open` signs a browser in";
            Problem::new(Kind::NoAccess, detail)
        };
        if let Some(value) = only(headers, header::AUTHORIZATION.as_str()) {
            let token = value
                .split_once(' ')
                .filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
            let (_, token) = token.ok_or_else(unknown)?;
            return self.access.grant(token.trim()).map(Some).ok_or_else(unknown);
        }
        Ok(cookie(headers, &self.cookie).and_then(|secret| self.access.grant(secret)))
    }
}

/// The bytes of a file. No form can send this type, so a page elsewhere would have to ask first, and is refused.
fn is_file(path: &str, kind: &str) -> bool {
    path == "/api/v1/files" && kind == "application/octet-stream"
}

/// The name of the session's cookie: nodes on one machine share a cookie jar, whatever their ports.
pub(crate) fn cookie_name(port: u16) -> String {
    format!("offhook-{port}")
}

pub(super) async fn check(
    State(door): State<Arc<Door>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    door.judge(request.method(), request.uri().path(), request.headers())?;
    if let Some(grant) = door.grant(request.headers())? {
        request.extensions_mut().insert(grant);
    }
    Ok(next.run(request).await)
}

fn foreign() -> Problem {
    Problem::new(Kind::ForeignOrigin, "another page may not ask this node for anything")
}

/// A header's value where it is there exactly once and is text.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
