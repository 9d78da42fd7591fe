//! HTTP on loopback: the same API as on the control socket behind a [`guard`], and the browser client's files ([`site`]).
//!
//! Only loopback addresses are listened on. Whoever asks must name this listener in `Host`, come from its own page where a page asks at all, and
//! bring a session's cookie or a program's token. [`patience`] bounds connections, and ends those that stand still.

mod guard;
pub(crate) mod patience;
mod site;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use tokio::net::TcpListener;

use crate::api::{self, Surface};
use crate::problem::{Kind, Problem};

pub(crate) use guard::cookie_name;

/// Nothing inline, nothing from elsewhere, no frames around us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Where to listen, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Not at all.
    Off,
    /// On a loopback address.
    At(SocketAddr),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(at) => write!(f, "{at}"),
        }
    }
}

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no place to listen; say a port, 127.0.0.1:PORT, [::1]:PORT or off");
        if text == "off" {
            return Ok(Self::Off);
        }
        let at = match text.parse::<u16>() {
            Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Err(_) => text.parse::<SocketAddr>().map_err(|_| bad())?,
        };
        if !at.ip().is_loopback() {
            return Err(format!(
                "{} is not on this machine only; Offhook speaks HTTP on loopback alone: reach it from elsewhere through SSH (ssh -L)",
                at.ip()
            ));
        }
        Ok(Self::At(at))
    }
}

/// Listens where asked to; else on the port of the last run where that is free, else on any.
pub(crate) async fn bind(asked: Option<Listen>, last_port: Option<u16>) -> Result<Option<TcpListener>, Problem> {
    let loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let at = match asked {
        Some(Listen::Off) => return Ok(None),
        Some(Listen::At(at)) => at,
        None => {
            if let Some(port) = last_port
                && let Ok(listener) = TcpListener::bind(loopback(port)).await
            {
                return Ok(Some(listener));
            }
            loopback(0)
        }
    };
    let bound = TcpListener::bind(at).await;
    bound.map(Some).map_err(|error| {
        let detail =
            format!("cannot listen for HTTP at {at}: {error}; choose another place with --http, or --http off");
        Problem::new(Kind::CannotListen, detail)
    })
}

/// The address of this listener's pages.
pub(crate) fn base_url(at: SocketAddr) -> String {
    format!("http://{at}")
}

/// The API and the pages, behind the guard.
pub(crate) fn router(surface: Surface, at: SocketAddr) -> Router {
    let door = Arc::new(guard::Door::new(at, surface.access()));
    api::router(surface)
        .fallback(site::serve)
        .layer(middleware::from_fn_with_state(door, guard::check))
        .layer(middleware::map_response(harden))
}

/// Headers that every answer has.
async fn harden(mut response: Response) -> Response {
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The names by which a listener may be called: exactly these.
fn hosts(at: SocketAddr) -> Vec<String> {
    let name = match at.ip() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let mut hosts = vec![format!("{name}:{}", at.port()), format!("localhost:{}", at.port())];
    if at.port() == 80 {
        hosts.extend([name, "localhost".to_owned()]);
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_can_be_asked_for() {
        assert_eq!("off".parse(), Ok(Listen::Off));
        assert_eq!("8080".parse(), Ok(Listen::At("127.0.0.1:8080".parse().unwrap())));
        assert_eq!("[::1]:1".parse(), Ok(Listen::At("[::1]:1".parse().unwrap())));
        for bad in ["0.0.0.0:80", "192.168.1.2:80", "[::]:80", "example.org:80", "70000", ""] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }
}
