//! What a person keeps on this node alone, so that all their clients show the same: drafts, pinned and muted rooms, notes to self, settings of
//! programs. None of it is ever sent to a peer.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use offhook_node::SqliteStore;
use offhook_node::journal::{LocalChange, local, locals};
use serde::Deserialize;
use serde_json::Value;

use super::model::{Draft, Event, Focus, Kept, Room, RoomMade, hex};
use super::request::{Body, Path, Query};
use super::rooms::room_id;
use super::{Surface, names, node_problem, odd_reply, storage_problem};
use crate::problem::{Kind, Problem};
use crate::proto::history::RoomId;
use crate::proto::peer::view::{RoomView, Standing};
use crate::proto::peer::{Command, Peer, Reply};
use crate::proto::rooms::HistoryPolicy;

/// The longest draft: what a message may have.
const DRAFT_BYTES_MAX: usize = 65_536;
/// The longest settings of a program, as JSON.
const SETTINGS_BYTES_MAX: usize = 64 * 1024;
/// The longest name of a program, in bytes.
const PROGRAM_BYTES_MAX: usize = 32;
/// What a QR code of usual quality can hold, in bytes.
const QR_BYTES_MAX: usize = 2_000;
/// The room of notes to self.
const NOTE: &str = "note";
/// What that room is called.
const NOTE_NAME: &str = "Note to self";

fn pin(room: &str) -> String {
    format!("pin/{room}")
}

fn mute(room: &str) -> String {
    format!("mute/{room}")
}

fn draft_name(room: &str) -> String {
    format!("draft/{room}")
}

/// A room with what is kept about it.
pub(super) fn describe(peer: &Peer<SqliteStore>, view: RoomView) -> Result<Room, Problem> {
    let room = hex(&view.room.0);
    let read = |name: &str| local(peer.store(), name).map_err(storage_problem);
    let kept = Kept {
        pinned: read(&pin(&room))?.is_some(),
        muted: read(&mute(&room))?.is_some(),
        note_to_self: read(NOTE)?.is_some_and(|note| note == room.as_bytes()),
        draft: read(&draft_name(&room))?.and_then(|json| serde_json::from_slice(&json).ok()),
    };
    Ok(Room::new(view, kept))
}

/// The same for many.
pub(super) fn describe_all(peer: &Peer<SqliteStore>, views: Vec<RoomView>) -> Result<Vec<Room>, Problem> {
    views.into_iter().map(|view| describe(peer, view)).collect()
}

/// Pins and mutes.
pub(super) async fn set_marks(
    surface: &Surface,
    room: RoomId,
    pinned: Option<bool>,
    muted: Option<bool>,
) -> Result<(), Problem> {
    let room = hex(&room.0);
    let mark = |name: String, on: bool| -> LocalChange { (name, on.then(|| b"1".to_vec())) };
    let pinned = pinned.map(|on| mark(pin(&room), on));
    let muted = muted.map(|on| mark(mute(&room), on));
    let changes: Vec<LocalChange> = pinned.into_iter().chain(muted).collect();
    if changes.is_empty() {
        return Ok(());
    }
    write(surface, changes, Some(&Event::Room { room })).await
}

/// `GET /rooms/{room}/draft`: an empty text where there is none.
#[utoipa::path(
    get,
    path = "/rooms/{room}/draft",
    description = "What was begun and not said yet.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    responses((status = 200, body = Draft), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn draft(State(surface): State<Surface>, Path(room): Path<String>) -> Result<Json<Draft>, Problem> {
    let room = surface
        .query(move |peer| describe(peer, names::room(peer, &room)?))
        .await?;
    Ok(Json(room.draft.unwrap_or_else(|| Draft {
        text: String::new(),
        reply_to: None,
    })))
}

/// `PUT /rooms/{room}/draft`: an empty text takes it away.
#[utoipa::path(
    put,
    path = "/rooms/{room}/draft",
    description = "Keep a draft; an empty text takes it away.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    request_body = Draft,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn set_draft(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Body(draft): Body<Draft>,
) -> Result<StatusCode, Problem> {
    if draft.text.len() > DRAFT_BYTES_MAX {
        let detail = format!("a draft may be {DRAFT_BYTES_MAX} bytes long, as a message may");
        return Err(Problem::new(Kind::Length, detail));
    }
    if let Some(id) = &draft.reply_to {
        names::entry(id)?;
    }
    let room = hex(&room_id(&surface, room).await?.0);
    let draft = (!draft.text.is_empty()).then_some(draft);
    let json = draft.as_ref().map(serde_json::to_vec).transpose();
    let json = json.map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    let change = (draft_name(&room), json);
    write(&surface, vec![change], Some(&Event::Draft { room, draft })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /note-to-self`: the room that only this person is in; made the first time.
#[utoipa::path(
    post,
    path = "/note-to-self",
    description = "The room that only you are in; made the first time.",
    responses((status = 200, body = RoomMade), (status = 201, body = RoomMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn note_to_self(State(surface): State<Surface>) -> Result<(StatusCode, Json<RoomMade>), Problem> {
    let known = surface.query(|peer| {
        let Some(id) = local(peer.store(), NOTE).map_err(storage_problem)? else {
            return Ok(None);
        };
        let view = names::room(peer, &String::from_utf8_lossy(&id)).ok();
        Ok(view.filter(|view| view.standing == Standing::Member))
    });
    if let Some(view) = known.await? {
        let made = RoomMade {
            room: hex(&view.room.0),
            name: view.name,
        };
        return Ok((StatusCode::OK, Json(made)));
    }
    let command = Command::CreateRoom {
        name: NOTE_NAME.to_owned(),
        history: HistoryPolicy::All {},
    };
    let Reply::Room(room) = surface.command(command).await? else {
        return Err(odd_reply());
    };
    let room = hex(&room.0);
    let change = (NOTE.to_owned(), Some(room.clone().into_bytes()));
    write(&surface, vec![change], Some(&Event::Room { room: room.clone() })).await?;
    let made = RoomMade {
        room,
        name: NOTE_NAME.to_owned(),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

/// `PUT /focus`: which room is on the screen, so that it is fetched first and has a line.
#[utoipa::path(
    put,
    path = "/focus",
    description = "Which room is on the screen: it is fetched first, and a line leads into it for two minutes, also where none would otherwise. To be said again each minute while it is there.",
    request_body = Focus,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn focus(State(surface): State<Surface>, Body(focus): Body<Focus>) -> Result<StatusCode, Problem> {
    let room = match focus.room {
        Some(room) => Some(room_id(&surface, room).await?),
        None => None,
    };
    surface.command(Command::OpenRoom { room }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /settings/{program}`: what a program keeps here, `{}` at first.
#[utoipa::path(
    get,
    path = "/settings/{program}",
    description = "What a program keeps here.",
    params(("program" = String, Path, description = "The program's name")),
    responses((status = 200, body = Value), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn settings(
    State(surface): State<Surface>,
    Path(program): Path<String>,
) -> Result<Json<Value>, Problem> {
    let name = settings_name(&program)?;
    let read = surface.query(move |peer| local(peer.store(), &name).map_err(storage_problem));
    let kept = read.await?.and_then(|json| serde_json::from_slice(&json).ok());
    Ok(Json(kept.unwrap_or_else(|| Value::Object(serde_json::Map::new()))))
}

/// `PUT /settings/{program}`: replaces it whole.
#[utoipa::path(
    put,
    path = "/settings/{program}",
    description = "Replace what a program keeps here.",
    params(("program" = String, Path, description = "The program's name")),
    request_body = Value,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn set_settings(
    State(surface): State<Surface>,
    Path(program): Path<String>,
    Body(settings): Body<Value>,
) -> Result<StatusCode, Problem> {
    let name = settings_name(&program)?;
    if !settings.is_object() {
        return Err(Problem::new(Kind::BadRequest, "settings are a JSON object"));
    }
    let json = serde_json::to_vec(&settings).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    if json.len() > SETTINGS_BYTES_MAX {
        let detail = format!("settings may be {SETTINGS_BYTES_MAX} bytes long");
        return Err(Problem::new(Kind::Length, detail));
    }
    write(&surface, vec![(name, Some(json))], None).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn settings_name(program: &str) -> Result<String, Problem> {
    let fits = (1..=PROGRAM_BYTES_MAX).contains(&program.len())
        && program.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    match fits {
        true => Ok(format!("settings/{program}")),
        false => {
            let detail = format!("a program's name is 1 to {PROGRAM_BYTES_MAX} letters, digits and dashes");
            Err(Problem::new(Kind::BadRequest, detail))
        }
    }
}

/// What to draw.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Drawn {
    text: String,
}

/// `GET /qr`: a text as a QR code, for an invite that a telephone reads.
#[utoipa::path(
    get,
    path = "/qr",
    description = "A text as a QR code.",
    params(Drawn),
    responses((status = 200, content_type = "image/svg+xml", body = String), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn qr(Query(drawn): Query<Drawn>) -> Result<Response, Problem> {
    let too_long = || Problem::new(Kind::Length, format!("a QR code holds 1 to {QR_BYTES_MAX} bytes"));
    if drawn.text.is_empty() || drawn.text.len() > QR_BYTES_MAX {
        return Err(too_long());
    }
    let code = qrcode::QrCode::with_error_correction_level(&drawn.text, qrcode::EcLevel::L).map_err(|_| too_long())?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml")], svg(&code)).into_response())
}

/// Black squares on white, four of them as the margin that readers need.
fn svg(code: &qrcode::QrCode) -> String {
    let width = code.width();
    let size = width + 8;
    let mut path = String::new();
    for (at, colour) in code.to_colors().into_iter().enumerate() {
        if colour == qrcode::Color::Dark {
            path.push_str(&format!("M{} {}h1v1h-1z", at % width + 4, at / width + 4));
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0 0h{size}v{size}H0z\"/><path d=\"{path}\"/></svg>"
    )
}

async fn write(surface: &Surface, changes: Vec<LocalChange>, event: Option<&Event>) -> Result<(), Problem> {
    let event = event.map(super::feed::written);
    surface.node.write_local(changes, event).await.map_err(node_problem)
}

/// What is kept under a beginning of a name.
pub(super) async fn kept(
    surface: &Surface,
    prefix: &'static str,
    most: usize,
) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    let read = surface.query(move |peer| locals(peer.store(), prefix, most).map_err(storage_problem));
    read.await
}
