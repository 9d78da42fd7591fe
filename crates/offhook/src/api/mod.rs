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
pub(crate) mod entries;
mod files;
mod identity;
mod keepers;
mod keys;
mod metrics;
mod names;
mod near;
mod people;
mod request;
mod rooms;
mod status;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use axum::{Extension, Router};
use jiff::Timestamp;
use offhook_node::journal::LocalChange;
use offhook_node::{NodeError, NodeHandle, PathAddress, PathView, SqliteStore};
use tokio::sync::watch;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, Info};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::{Access, Grant, Scope};
use crate::irc::Irc;
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
    irc: Irc,
    staged: files::Staged,
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
            irc: Irc::default(),
            staged: files::Staged::default(),
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

    /// Carries out a command.
    pub(crate) async fn command(&self, command: Command) -> Result<Reply, Problem> {
        self.node.command(command).await.map_err(node_problem)
    }

    /// Writes local records.
    pub(crate) async fn write_local(&self, changes: Vec<LocalChange>) -> Result<(), Problem> {
        self.node.write_local(changes, None).await.map_err(node_problem)
    }

    /// Turns true when the program is about to end.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.clone()
    }

    /// The number of the newest event.
    pub(crate) fn newest_event(&self) -> u64 {
        *self.node.newest_event().borrow()
    }

    /// The home's folder.
    pub(crate) fn home(&self) -> &std::path::Path {
        &self.home
    }

    /// Whether IRC is spoken, and where.
    pub(crate) fn irc(&self) -> &Irc {
        &self.irc
    }

    /// Reads the peer.
    pub(crate) async fn query<T: Send + 'static>(
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
    let (v1, _) = routes().split_for_parts();
    let v1_state = surface.clone();
    let v1 = v1.route("/openapi.json", get(document)).with_state(surface);
    let figures = OpenApiRouter::new().routes(routes!(metrics::metrics));
    let (figures, _) = need(Scope::Metrics, figures).with_state(v1_state).split_for_parts();
    Router::new()
        .nest("/api/v1", v1)
        .merge(figures)
        .fallback(no_endpoint)
        .method_not_allowed_fallback(bad_method)
        .layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Every route with its description: there is none without.
fn routes() -> OpenApiRouter<Surface> {
    OpenApiRouter::new()
        .routes(routes!(keys::sign_in))
        .merge(need(Scope::Read, read_routes()))
        .merge(need(Scope::Send, send_routes()))
        .merge(need(Scope::Admin, admin_routes()))
}

/// The description of the API (OpenAPI 3.1), made from the routes.
pub(crate) fn description() -> String {
    let mut api = OpenApiRouter::<Surface>::new()
        .nest("/api/v1", routes())
        .routes(routes!(metrics::metrics))
        .into_openapi();
    api.info = Info::new("Offhook's local API", "v1");
    api.info.description =
        Some("What a node answers on loopback and on its control socket; docs/api.md says it in words.".to_owned());
    let mut schemes = Components::new();
    let cookie = ApiKeyValue::with_description("offhook-PORT", "From POST /api/v1/session");
    schemes.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    schemes.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let components = api.components.get_or_insert_default();
    components.security_schemes = schemes.security_schemes;
    // Plain data: it has a form always.
    api.to_pretty_json().unwrap_or_default() + "\n"
}

/// `GET /openapi.json`: no secret, so whoever reaches this may have it.
async fn document() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(description);
    ([(axum::http::header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}

/// What only looks.
fn read_routes() -> OpenApiRouter<Surface> {
    OpenApiRouter::new()
        .routes(routes!(keys::session, keys::sign_out))
        .routes(routes!(status::status))
        .routes(routes!(doctor::doctor))
        .routes(routes!(doctor::doctor_of))
        .routes(routes!(network::flows))
        .routes(routes!(network::history))
        .routes(routes!(network::lines))
        .routes(routes!(identity::me))
        .routes(routes!(rooms::list))
        .routes(routes!(rooms::show))
        .routes(routes!(rooms::members))
        .routes(routes!(keepers::list))
        .routes(routes!(desk::draft))
        .routes(routes!(desk::settings))
        .routes(routes!(desk::qr))
        .routes(routes!(people::contacts))
        .routes(routes!(people::contact))
        .routes(routes!(near::near))
        .routes(routes!(entries::page))
        .routes(routes!(entries::export))
        .routes(routes!(entries::show))
        .routes(routes!(entries::whereabouts))
        .routes(routes!(entries::search))
        .routes(routes!(files::list))
        .routes(routes!(files::read))
        .routes(routes!(feed::events))
        .routes(routes!(feed::consumers))
        .routes(routes!(feed::acknowledge, feed::forget))
}

/// What says something, or keeps a place.
fn send_routes() -> OpenApiRouter<Surface> {
    OpenApiRouter::new()
        .routes(routes!(desk::set_draft))
        .routes(routes!(desk::note_to_self))
        .routes(routes!(desk::focus))
        .routes(routes!(people::chat))
        .routes(routes!(entries::say))
        .routes(routes!(entries::mark_read))
        .routes(routes!(entries::edit, entries::remove))
        .routes(routes!(entries::reply))
        .routes(routes!(entries::react, entries::unreact))
        .routes(routes!(files::take))
        .routes(routes!(files::fetch))
}

/// What changes rooms, people, this node, and who may do what.
fn admin_routes() -> OpenApiRouter<Surface> {
    OpenApiRouter::new()
        .routes(routes!(near::change))
        .routes(routes!(near::invite))
        .routes(routes!(near::answer))
        .routes(routes!(keys::irc, keys::set_irc))
        .routes(routes!(keys::new_link))
        .routes(routes!(keys::list, keys::new_token))
        .routes(routes!(keys::revoke))
        .routes(routes!(identity::rename))
        .routes(routes!(identity::phrase))
        .routes(routes!(identity::backup))
        .routes(routes!(rooms::create))
        .routes(routes!(rooms::change))
        .routes(routes!(rooms::leave))
        .routes(routes!(rooms::set_role))
        .routes(routes!(rooms::remove))
        .routes(routes!(rooms::invite))
        .routes(routes!(keepers::add))
        .routes(routes!(keepers::remove))
        .routes(routes!(rooms::join))
        .routes(routes!(rooms::cancel_join))
        .routes(routes!(desk::set_settings))
        .routes(routes!(people::change))
}

/// The routes, for those who may.
fn need(scope: Scope, routes: OpenApiRouter<Surface>) -> OpenApiRouter<Surface> {
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
        CommandError::TooLargeForRoom { .. } => Kind::TooLarge,
        CommandError::NotYours(_) => Kind::NotYours,
        CommandError::NotNear => Kind::NotNear,
        CommandError::NoProposal => Kind::NoRequest,
        CommandError::BadInvite(_) => Kind::BadInvite,
        CommandError::NoKeys => Kind::NoKeys,
        CommandError::Limit(_) => Kind::Limit,
        CommandError::Already(_) => Kind::Already,
    };
    Problem::new(kind, error.to_string())
}
