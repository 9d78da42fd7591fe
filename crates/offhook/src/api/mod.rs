//! The local API, `/api/v1`: one router for whatever listens. The command line reaches it through the control socket in the home.
//!
//! Answers are JSON, errors are problem documents (RFC 9457), lists are paged by opaque cursors, a send with a client's own id says nothing
//! twice, and events are numbered and can be resumed (see [`feed`]). The router decides nothing: it turns requests into the
//! peer's commands and queries, and views into [`model`].
//!
//! Security is the listener's: the control socket is in a folder of mode 0700 and has mode 0600, so whoever reaches it may do all.

pub(crate) mod feed;
pub(crate) mod model;

mod entries;
mod identity;
mod keepers;
mod names;
mod people;
mod request;
mod rooms;
mod status;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use axum::serve::Listener;
use jiff::Timestamp;
use offhook_node::{NodeError, NodeHandle, PathAddress, PathView, SqliteStore};
use tokio::sync::watch;

use crate::problem::{Kind, Problem};
use crate::proto::peer::{Command, CommandError, Peer, Reply};
use crate::proto::store::StoreError;
use feed::Feed;

/// The largest body of a request: a message of the greatest length, each byte escaped as `\u00xx`.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// What every request is answered from.
#[derive(Clone)]
pub(crate) struct Surface {
    node: NodeHandle,
    feed: Feed,
    home: Arc<PathBuf>,
    since: Timestamp,
    /// Turns true when the program is about to end: streams that would never end do so then.
    ending: watch::Receiver<bool>,
}

impl Surface {
    /// The surface of a running node. The feed is filled from now on.
    pub(crate) fn new(node: NodeHandle, home: PathBuf, ending: watch::Receiver<bool>) -> Self {
        let feed = Feed::new();
        tokio::spawn(feed::fill(feed.clone(), node.events()));
        Self {
            node,
            feed,
            home: Arc::new(home),
            since: Timestamp::now(),
            ending,
        }
    }

    async fn command(&self, command: Command) -> Result<Reply, Problem> {
        self.node.command(command).await.map_err(node_problem)
    }

    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Peer<SqliteStore>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.node.query(ask).await.map_err(node_problem)?
    }
}

/// Serves the API until `ended` is, then finishes what has begun.
pub(crate) async fn serve<L>(listener: L, surface: Surface, ended: impl Future<Output = ()> + Send + 'static)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let served = axum::serve(listener, router(surface))
        .with_graceful_shutdown(ended)
        .await;
    // axum's serve has no way to fail: it retries what the listener cannot do.
    served.unwrap_or_default();
}

fn router(surface: Surface) -> Router {
    let v1 = Router::new()
        .route("/status", get(status::status))
        .route("/events", get(feed::events))
        .route("/search", get(entries::search))
        .route("/contacts", get(people::contacts))
        .route("/contacts/{person}", get(people::contact).patch(people::change))
        .route("/contacts/{person}/chat", post(people::chat))
        .route("/rooms", get(rooms::list).post(rooms::create))
        .route("/rooms/{room}", get(rooms::show).patch(rooms::rename))
        .route("/rooms/{room}/leave", post(rooms::leave))
        .route("/rooms/{room}/members", get(rooms::members))
        .route("/rooms/{room}/members/{person}", delete(rooms::remove))
        .route("/rooms/{room}/members/{person}/role", put(rooms::set_role))
        .route("/rooms/{room}/invites", post(rooms::invite))
        .route("/rooms/{room}/keepers", get(keepers::list).post(keepers::add))
        .route("/rooms/{room}/keepers/{keeper}", delete(keepers::remove))
        .route("/joins", post(rooms::join))
        .route("/joins/{room}", delete(rooms::cancel_join))
        .route("/rooms/{room}/entries", get(entries::page).post(entries::say))
        .route("/rooms/{room}/export", get(entries::export))
        .route("/rooms/{room}/read", post(entries::mark_read))
        .route("/entries/{id}", get(entries::show).delete(entries::remove))
        .route("/entries/{id}", patch(entries::edit))
        .route("/entries/{id}/replies", post(entries::reply))
        .route(
            "/entries/{id}/reactions/{emoji}",
            put(entries::react).delete(entries::unreact),
        )
        .route("/entries/{id}/where", get(entries::whereabouts))
        .route("/identity/phrase", get(identity::phrase))
        .route("/backup", post(identity::backup))
        .with_state(surface);
    Router::new()
        .nest("/api/v1", v1)
        .fallback(no_endpoint)
        .method_not_allowed_fallback(bad_method)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn no_endpoint(uri: axum::http::Uri) -> Problem {
    let detail = format!("there is nothing at {}; docs/api.md lists what there is", uri.path());
    Problem::new(Kind::NoEndpoint, detail)
}

async fn bad_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let detail = format!("{} does not take {method}; docs/api.md lists what it takes", uri.path());
    Problem::new(Kind::BadMethod, detail)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(self)).into_response();
        let content_type = axum::http::HeaderValue::from_static("application/problem+json");
        response
            .headers_mut()
            .insert(axum::http::header::CONTENT_TYPE, content_type);
        response
    }
}

/// The way a line goes, for people.
fn path_text(path: &PathView) -> String {
    let rtt_ms = path.rtt.as_secs_f64() * 1000.0;
    match &path.address {
        PathAddress::Direct(address) => format!("direct to {address}, {rtt_ms:.1} ms"),
        PathAddress::Relay(url) => format!("through the relay {url}, {rtt_ms:.1} ms"),
        PathAddress::Other(carrier) => format!("by {carrier}, {rtt_ms:.1} ms"),
    }
}

fn node_problem(error: NodeError) -> Problem {
    match error {
        NodeError::Command(refused) => command_problem(&refused),
        NodeError::Storage(_) => Problem::new(Kind::Storage, error.to_string()),
        NodeError::Stopped => Problem::new(Kind::Stopping, "the node is stopping; try again once it runs again"),
    }
}

fn storage_problem(error: StoreError) -> Problem {
    Problem::new(Kind::Storage, error.to_string())
}

/// The reply was not of the kind that the command promises.
fn odd_reply() -> Problem {
    Problem::new(
        Kind::Internal,
        "the node answered with something that was not asked for",
    )
}

fn command_problem(error: &CommandError) -> Problem {
    let kind = match error {
        CommandError::NoRoom => Kind::NoRoom,
        CommandError::NoEntry => Kind::NoEntry,
        CommandError::NoPerson => Kind::NoPerson,
        CommandError::NotMember => Kind::NotMember,
        CommandError::NoLongerMember => Kind::NoLongerMember,
        CommandError::NotAllowed { .. } => Kind::NotAllowed,
        CommandError::LastOwner => Kind::LastOwner,
        CommandError::Length { .. } => Kind::Length,
        CommandError::NotYours(_) => Kind::NotYours,
        CommandError::BadInvite(_) => Kind::BadInvite,
        CommandError::NoKeys => Kind::NoKeys,
        CommandError::Limit(_) => Kind::Limit,
        CommandError::Already(_) => Kind::Already,
    };
    Problem::new(kind, error.to_string())
}
