//! Signing in and out, links for it, and tokens of programs.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use axum::{Extension, Json};
use jiff::Timestamp;

use super::Surface;
use super::model::{IrcChange, IrcState, LoginLink, NewToken, Session, SignIn, Token, TokenMade, Tokens, time};
use super::request::{Body, Path};
use crate::access::{Grant, Key, KeyKind};
use crate::http;
use crate::problem::{Kind, Problem};

/// How long a browser keeps the cookie: the session's own life is told by the node.
const COOKIE_S: u64 = 400 * 24 * 3600;

/// `POST /session`: the secret of a login link against a session's cookie.
#[utoipa::path(
    post,
    path = "/session",
    description = "Exchange the secret of a login link for a cookie.",
    request_body = SignIn,
    responses((status = 200, body = Session), (status = "default", body = Problem, content_type = "application/problem+json")),
)]
pub(super) async fn sign_in(
    State(surface): State<Surface>,
    headers: HeaderMap,
    Body(link): Body<SignIn>,
) -> Result<impl IntoResponse, Problem> {
    let at = surface.http.ok_or_else(no_http)?;
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let (secret, key) = surface.access.redeem(&link.token, agent.unwrap_or("a browser")).await?;
    let name = http::cookie_name(at.port());
    let cookie = format!("{name}={secret}; Path=/; Max-Age={COOKIE_S}; HttpOnly; SameSite=Strict");
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Json(described(&key))))
}

/// `GET /session`: what whoever asks may do.
#[utoipa::path(
    get,
    path = "/session",
    description = "What whoever asks may do.",
    responses((status = 200, body = Session), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn session(
    State(surface): State<Surface>,
    Extension(grant): Extension<Grant>,
) -> Result<Json<Session>, Problem> {
    let key = surface
        .access
        .list()
        .into_iter()
        .find(|key| Some(&key.id) == grant.key.as_ref());
    Ok(Json(match key {
        Some(key) => described(&key),
        None => Session {
            scopes: grant.names(),
            expires: None,
        },
    }))
}

fn described(key: &Key) -> Session {
    Session {
        scopes: key.scopes.iter().map(|scope| scope.name().to_owned()).collect(),
        expires: key.expires_ms().map(|ms| time(u64::try_from(ms).unwrap_or(0))),
    }
}

/// `DELETE /session`: ends the session that asks.
#[utoipa::path(
    delete,
    path = "/session",
    description = "End the session that asks.",
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn sign_out(
    State(surface): State<Surface>,
    Extension(grant): Extension<Grant>,
) -> Result<StatusCode, Problem> {
    let keys = surface.access.list();
    let own = keys
        .iter()
        .find(|key| Some(&key.id) == grant.key.as_ref() && key.kind == KeyKind::Session);
    if let Some(key) = own {
        surface.access.revoke(&key.id).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /login-links`: an address that signs a browser in, once.
#[utoipa::path(
    post,
    path = "/login-links",
    description = "An address that signs a browser in, once.",
    responses((status = 201, body = LoginLink), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn new_link(State(surface): State<Surface>) -> Result<(StatusCode, Json<LoginLink>), Problem> {
    let at = surface.http.ok_or_else(no_http)?;
    let (secret, life) = surface.access.new_link()?;
    let expires = Timestamp::now().checked_add(life).unwrap_or(Timestamp::MAX);
    let link = LoginLink {
        url: format!("{}/#token={secret}", http::base_url(at)),
        expires: format!("{expires:.3}"),
    };
    Ok((StatusCode::CREATED, Json(link)))
}

fn no_http() -> Problem {
    Problem::new(Kind::NoHttp, "this node speaks no HTTP; start it without `--http off`")
}

#[utoipa::path(
    get,
    path = "/tokens",
    description = "Tokens of programs and sessions of browsers.",
    responses((status = 200, body = Tokens), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn list(State(surface): State<Surface>) -> Json<Tokens> {
    Json(Tokens {
        tokens: surface.access.list().into_iter().map(Token::from).collect(),
    })
}

#[utoipa::path(
    post,
    path = "/tokens",
    description = "Make a token; the only time that it is shown.",
    request_body = NewToken,
    responses((status = 201, body = TokenMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn new_token(
    State(surface): State<Surface>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<TokenMade>), Problem> {
    let (token, key) = surface.access.new_token(new.name, new.scopes).await?;
    let made = TokenMade {
        token,
        about: key.into(),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

#[utoipa::path(
    delete,
    path = "/tokens/{token}",
    description = "Make a token or session worth nothing.",
    params(("token" = String, Path, description = "An id, or a token's name")),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn revoke(State(surface): State<Surface>, Path(token): Path<String>) -> Result<StatusCode, Problem> {
    surface.access.revoke(&token).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get,
    path = "/irc",
    description = "Whether IRC is spoken on this machine, and where.",
    responses((status = 200, body = IrcState), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn irc(State(surface): State<Surface>) -> Json<IrcState> {
    let at = surface.irc().at().await;
    let socket = at.map(|_| crate::irc::socket_path(surface.home()).display().to_string());
    Json(IrcState {
        on: at.is_some(),
        at: at.map(|at| at.to_string()),
        socket,
    })
}

#[utoipa::path(
    put,
    path = "/irc",
    description = "Turn IRC on or off, also for the next runs.",
    request_body = IrcChange,
    responses((status = 200, body = IrcState), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn set_irc(
    State(surface): State<Surface>,
    Body(change): Body<IrcChange>,
) -> Result<Json<IrcState>, Problem> {
    match change.on {
        true => {
            let at = change
                .port
                .map(|port| std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)));
            surface.irc().turn_on(&surface, at).await?;
        }
        false => surface.irc().turn_off(&surface).await?,
    }
    Ok(irc(State(surface)).await)
}
