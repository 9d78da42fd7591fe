//! The local API, `/api/v1`: one router for whatever listens. The command line reaches it through the control socket in the home.
//!
//! Answers are JSON, errors are problem documents (RFC 9457), lists are paged by opaque cursors, a send with a client's own id says nothing
//! twice, and events are numbered and can be resumed (see [`feed`]). The router decides nothing: it turns requests into the
//! peer's commands and queries, and views into [`model`].
//!
//! Every route is in one of four groups by what it takes: nothing, `read`, `send` or `admin`. What whoever asks may do is the listener's to find out, as a
//! [`Grant`]: the control socket is in a folder of mode 0700 and has mode 0600, so whoever reaches it may do all; `http` looks at cookies and tokens. A
//! request without a grant gets nothing.

pub(crate) mod doctor;
pub(crate) mod feed;
pub(crate) mod model;
pub(crate) mod network;

mod desk;
mod entries;
mod identity;
mod keepers;
mod keys;
mod names;
mod people;
mod request;
mod rooms;
mod status;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post, put};
use axum::serve::Listener;
use axum::{Extension, Router};
use jiff::Timestamp;
use offhook_node::{NodeError, NodeHandle, PathAddress, PathView, SqliteStore};
use tokio::sync::watch;

use crate::access::{Access, Grant, Scope};
use crate::problem::{Kind, Problem};
use crate::proto::peer::{Command, CommandError, Peer, Reply};
use crate::proto::store::StoreError;

/// The largest body of a request: a message of the greatest length, each byte escaped as `\u00xx`.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// What every request is answered from.
#[derive(Clone)]
pub(crate) struct Surface {
    node: NodeHandle,
    access: Arc<Access>,
    home: Arc<PathBuf>,
    /// Where HTTP is spoken.
    http: Option<SocketAddr>,
    since: Timestamp,
    /// Turns true when the program is about to end: streams that would never end do so then.
    ending: watch::Receiver<bool>,
}

impl Surface {
    /// The surface of a running node.
    pub(crate) async fn new(
        node: NodeHandle,
        home: PathBuf,
        http: Option<SocketAddr>,
        ending: watch::Receiver<bool>,
    ) -> Result<Self, NodeError> {
        Ok(Self {
            access: Arc::new(Access::load(node.clone()).await?),
            node,
            home: Arc::new(home),
            http,
            since: Timestamp::now(),
            ending,
        })
    }

    /// Who may do what.
    pub(crate) fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access)
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

/// The API for whoever reaches the control socket.
pub(crate) fn owner_router(surface: Surface) -> Router {
    router(surface).layer(Extension(Grant::owner()))
}

/// Serves until `ended` is, then finishes what has begun.
pub(crate) async fn serve<L>(listener: L, router: Router, ended: impl Future<Output = ()> + Send + 'static)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let served = axum::serve(listener, router).with_graceful_shutdown(ended).await;
    // axum's serve has no way to fail: it retries what the listener cannot do.
    served.unwrap_or_default();
}

/// The API; what lies outside it is answered by the fallback.
pub(crate) fn router(surface: Surface) -> Router {
    let v1 = Router::new()
        .route("/session", post(keys::sign_in))
        .merge(need(Scope::Read, read_routes()))
        .merge(need(Scope::Send, send_routes()))
        .merge(need(Scope::Admin, admin_routes()))
        .with_state(surface);
    Router::new()
        .nest("/api/v1", v1)
        .fallback(no_endpoint)
        .method_not_allowed_fallback(bad_method)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// What only looks.
fn read_routes() -> Router<Surface> {
    Router::new()
        .route("/session", get(keys::session).delete(keys::sign_out))
        .route("/status", get(status::status))
        .route("/doctor", get(doctor::doctor))
        .route("/doctor/{person}", get(doctor::doctor_of))
        .route("/flows", get(network::flows))
        .route("/flows/history", get(network::history))
        .route("/lines", get(network::lines))
        .route("/events", get(feed::events))
        .route("/events/consumers", get(feed::consumers))
        .route(
            "/events/consumers/{consumer}",
            put(feed::acknowledge).delete(feed::forget),
        )
        .route("/search", get(entries::search))
        .route("/contacts", get(people::contacts))
        .route("/contacts/{person}", get(people::contact))
        .route("/near", get(people::near))
        .route("/rooms", get(rooms::list))
        .route("/rooms/{room}", get(rooms::show))
        .route("/rooms/{room}/members", get(rooms::members))
        .route("/rooms/{room}/keepers", get(keepers::list))
        .route("/rooms/{room}/entries", get(entries::page))
        .route("/rooms/{room}/export", get(entries::export))
        .route("/rooms/{room}/draft", get(desk::draft))
        .route("/entries/{id}", get(entries::show))
        .route("/entries/{id}/where", get(entries::whereabouts))
        .route("/settings/{program}", get(desk::settings))
        .route("/identity", get(identity::me))
        .route("/qr", get(desk::qr))
}

/// What says something, or keeps a place.
fn send_routes() -> Router<Surface> {
    Router::new()
        .route("/rooms/{room}/entries", post(entries::say))
        .route("/rooms/{room}/read", post(entries::mark_read))
        .route("/rooms/{room}/draft", put(desk::set_draft))
        .route("/entries/{id}", patch(entries::edit).delete(entries::remove))
        .route("/entries/{id}/replies", post(entries::reply))
        .route(
            "/entries/{id}/reactions/{emoji}",
            put(entries::react).delete(entries::unreact),
        )
        .route("/focus", put(desk::focus))
        .route("/note-to-self", post(desk::note_to_self))
        .route("/contacts/{person}/chat", post(people::chat))
}

/// What changes rooms, people, this node, and who may do what.
fn admin_routes() -> Router<Surface> {
    Router::new()
        .route("/contacts/{person}", patch(people::change))
        .route("/rooms", post(rooms::create))
        .route("/rooms/{room}", patch(rooms::change))
        .route("/rooms/{room}/leave", post(rooms::leave))
        .route("/rooms/{room}/members/{person}", delete(rooms::remove))
        .route("/rooms/{room}/members/{person}/role", put(rooms::set_role))
        .route("/rooms/{room}/invites", post(rooms::invite))
        .route("/rooms/{room}/keepers", post(keepers::add))
        .route("/rooms/{room}/keepers/{keeper}", delete(keepers::remove))
        .route("/joins", post(rooms::join))
        .route("/joins/{room}", delete(rooms::cancel_join))
        .route("/settings/{program}", put(desk::set_settings))
        .route("/identity", patch(identity::rename))
        .route("/identity/phrase", get(identity::phrase))
        .route("/backup", post(identity::backup))
        .route("/login-links", post(keys::new_link))
        .route("/tokens", get(keys::list).post(keys::new_token))
        .route("/tokens/{token}", delete(keys::revoke))
}

/// The routes, for those who may.
fn need(scope: Scope, routes: Router<Surface>) -> Router<Surface> {
    routes.route_layer(middleware::from_fn(move |request, next| require(scope, request, next)))
}

async fn require(scope: Scope, request: Request, next: Next) -> Result<Response, Problem> {
    match request.extensions().get::<Grant>() {
        None => {
            let detail = "sign in first: `offhook open` opens this in a browser; programs send `Authorization: Bearer TOKEN` (`offhook token new`)";
            Err(Problem::new(Kind::NoAccess, detail))
        }
        Some(grant) if grant.has(scope) => Ok(next.run(request).await),
        Some(grant) => {
            let detail = format!(
                "this takes the scope `{}`, and the token has: {}",
                scope.name(),
                grant.names().join(", ")
            );
            Err(Problem::new(Kind::Scope, detail))
        }
    }
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
        PathAddress::Direct(address) if network::path_kind(path) == "lan" => {
            format!("on the local network at {address}, {rtt_ms:.1} ms")
        }
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
