//! The API's client: HTTP over the control socket of a home, one connection for each request.

use std::io;
use std::path::{Path, PathBuf};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::model::Event;
use crate::problem::{Kind, Problem};

/// What need not be escaped in a path segment or a query value (RFC 3986, unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The longest line of an event stream, in bytes: a message of the greatest length, escaped, with all that stands around it.
const EVENT_LINE_BYTES_MAX: usize = 1024 * 1024;

/// Where the node of a home answers.
pub(crate) struct Client {
    socket: PathBuf,
    home: PathBuf,
}

/// The path of a request, from segments and query values that are escaped here.
pub(crate) struct Target(String);

impl Target {
    /// `/api/v1` and the segments.
    pub(crate) fn new(segments: &[&str]) -> Self {
        let escaped = segments.iter().map(|segment| format!("/{}", escape(segment)));
        Self(format!("/api/v1{}", escaped.collect::<String>()))
    }

    /// Adds a value to the query.
    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        let sign = if self.0.contains('?') { '&' } else { '?' };
        self.0.push(sign);
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&escape(&value.to_string()));
        self
    }
}

fn escape(text: &str) -> String {
    // A segment of only dots would be taken for a way up.
    match text {
        "." | ".." => text.replace('.', "%2E"),
        _ => utf8_percent_encode(text, ESCAPED).to_string(),
    }
}

impl Client {
    /// The client of the node on `home`.
    pub(crate) fn new(home: &Path) -> Self {
        Self {
            socket: offhook_node::home::control_socket_path(home),
            home: home.to_owned(),
        }
    }

    /// Asks for something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: Target) -> Result<T, Problem> {
        read_json(self.request::<()>(Method::GET, target, None).await?).await
    }

    /// Does something.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        target: Target,
        body: Option<&impl Serialize>,
    ) -> Result<T, Problem> {
        read_json(self.request(method, target, body).await?).await
    }

    /// Sends a body.
    pub(crate) async fn post<T: DeserializeOwned>(&self, target: Target, body: &impl Serialize) -> Result<T, Problem> {
        self.send(Method::POST, target, Some(body)).await
    }

    /// Does something that has no body and whose answer does not matter.
    pub(crate) async fn act(
        &self,
        method: Method,
        target: Target,
        body: Option<&impl Serialize>,
    ) -> Result<(), Problem> {
        self.request(method, target, body).await.map(drop)
    }

    /// Sends a file, part by part.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        target: Target,
        parts: impl Iterator<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<T, Problem> {
        let frames = parts.map(|part| part.map(Frame::data));
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let response = self
            .exchange(Method::POST, target, Some("application/octet-stream"), body)
            .await?;
        read_json(response).await
    }

    /// Asks for a stream of bytes.
    pub(crate) async fn stream(
        &self,
        method: Method,
        target: Target,
        body: Option<&impl Serialize>,
    ) -> Result<Incoming, Problem> {
        Ok(self.request(method, target, body).await?.into_body())
    }

    /// Follows the events from now on.
    pub(crate) async fn events(&self) -> Result<Events, Problem> {
        let body = self.stream(Method::GET, Target::new(&["events"]), None::<&()>).await?;
        Ok(Events { body, held: Vec::new() })
    }

    async fn request<B: Serialize>(
        &self,
        method: Method,
        target: Target,
        body: Option<&B>,
    ) -> Result<Response<Incoming>, Problem> {
        let bytes = body.map(serde_json::to_vec).transpose();
        let bytes = bytes.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        let kind = bytes.is_some().then_some("application/json");
        let full = Full::new(Bytes::from(bytes.unwrap_or_default()));
        let body = full.map_err(|never| match never {}).boxed_unsync();
        self.exchange(method, target, kind, body).await
    }

    async fn exchange(
        &self,
        method: Method,
        target: Target,
        kind: Option<&str>,
        body: UnsyncBoxBody<Bytes, io::Error>,
    ) -> Result<Response<Incoming>, Problem> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(cut_off)?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(target.0)
            .header("host", "localhost");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let request = request
            .body(body)
            .map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        let response = sender.send_request(request).await.map_err(cut_off)?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(read_problem(response).await)
    }

    fn unreachable(&self, error: &io::Error) -> Problem {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let detail = "no node is running on this home; start it with `offhook up`";
                Problem::new(Kind::NoNode, format!("{detail} (home: {})", self.home.display()))
            }
            io::ErrorKind::PermissionDenied => {
                let detail = format!(
                    "{} belongs to another user; choose your own home with --home",
                    self.home.display()
                );
                Problem::new(Kind::BadHome, detail)
            }
            _ => Problem::new(
                Kind::Internal,
                format!("cannot reach {}: {error}", self.socket.display()),
            ),
        }
    }
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Problem> {
    let bytes = response.into_body().collect().await.map_err(cut_off)?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| {
        let detail = format!("the node answers in a way that this version does not understand: {error}");
        Problem::new(Kind::Internal, detail)
    })
}

async fn read_problem(response: Response<Incoming>) -> Problem {
    let status = response.status();
    let unreadable = |status: StatusCode| Problem::new(Kind::Internal, format!("the node answered {status}"));
    let Ok(body) = response.into_body().collect().await else {
        return unreadable(status);
    };
    serde_json::from_slice(&body.to_bytes()).unwrap_or_else(|_| unreadable(status))
}

fn cut_off(error: hyper::Error) -> Problem {
    Problem::new(Kind::Stopping, format!("the node stopped answering: {error}"))
}

/// A stream of events.
pub(crate) struct Events {
    body: Incoming,
    held: Vec<u8>,
}

impl Events {
    /// The next event that this version knows; `None` once the node stops.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Problem> {
        loop {
            while let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                let event = line
                    .strip_prefix(b"data:")
                    .and_then(|json| serde_json::from_slice(json).ok());
                if event.is_some() {
                    return Ok(event);
                }
            }
            if self.held.len() > EVENT_LINE_BYTES_MAX {
                return Err(Problem::new(Kind::Internal, "the node sent an event that is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Some(bytes) = frame.map_err(cut_off)?.data_ref() {
                        self.held.extend_from_slice(bytes);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_into_one_segment() {
        let target = Target::new(&["rooms", "a/b ü?", ".."])
            .with("before", "x&y")
            .with("limit", 5);
        assert_eq!(target.0, "/api/v1/rooms/a%2Fb%20%C3%BC%3F/%2E%2E?before=x%26y&limit=5");
    }
}
