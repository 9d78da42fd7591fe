//! Rooms: making, listing, joining and changing them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::model::{
    Done, InviteMade, Member, Members, NewInvite, NewJoin, NewRoom, RoleChange, Room, RoomChange, RoomMade, Rooms, hex,
    history_policy, time,
};
use super::request::{Body, Path};
use super::{Surface, desk, names, odd_reply, storage_problem};
use crate::problem::{Kind, Problem};
use crate::proto::history::RoomId;
use crate::proto::identity::PersonId;
use crate::proto::peer::{Command, Reply};
use crate::proto::rooms::{HistoryPolicy, Invite, Role};

type Answer<T> = Result<Json<T>, Problem>;
type Created<T> = Result<(StatusCode, Json<T>), Problem>;

#[utoipa::path(
    get,
    path = "/rooms",
    description = "All rooms, the most recently active first.",
    responses((status = 200, body = Rooms), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn list(State(surface): State<Surface>) -> Answer<Rooms> {
    let rooms = surface.query(|peer| desk::describe_all(peer, peer.rooms().map_err(storage_problem)?));
    Ok(Json(Rooms { rooms: rooms.await? }))
}

#[utoipa::path(
    post,
    path = "/rooms",
    description = "Make a room.",
    request_body = NewRoom,
    responses((status = 201, body = RoomMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn create(State(surface): State<Surface>, Body(new): Body<NewRoom>) -> Created<RoomMade> {
    let history = match &new.history {
        None => HistoryPolicy::All {},
        Some(text) => history_policy(text).ok_or_else(|| bad_history(text))?,
    };
    let name = new.name.clone();
    let reply = surface.command(Command::CreateRoom { name, history }).await?;
    let Reply::Room(room) = reply else {
        return Err(odd_reply());
    };
    let made = RoomMade {
        room: hex(&room.0),
        name: new.name,
    };
    Ok((StatusCode::CREATED, Json(made)))
}

fn bad_history(text: &str) -> Problem {
    let detail = format!("`{text}` is no history policy; say `all`, `none`, or a number of days such as `30d`");
    Problem::new(Kind::BadRequest, detail)
}

#[utoipa::path(
    get,
    path = "/rooms/{room}",
    description = "One room.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    responses((status = 200, body = Room), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn show(State(surface): State<Surface>, Path(room): Path<String>) -> Answer<Room> {
    let room = surface.query(move |peer| desk::describe(peer, names::room(peer, &room)?));
    Ok(Json(room.await?))
}

#[utoipa::path(
    patch,
    path = "/rooms/{room}",
    description = "Rename a room, say how large its files may be, pin or mute it.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    request_body = RoomChange,
    responses((status = 200, body = Room), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn change(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Body(change): Body<RoomChange>,
) -> Answer<Room> {
    let room = room_id(&surface, room).await?;
    if let Some(name) = change.name {
        surface.command(Command::RenameRoom { room, name }).await?;
    }
    if let Some(bytes_max) = change.file_limit {
        surface.command(Command::LimitFiles { room, bytes_max }).await?;
    }
    desk::set_marks(&surface, room, change.pinned, change.muted).await?;
    show(State(surface), Path(hex(&room.0))).await
}

#[utoipa::path(
    post,
    path = "/rooms/{room}/leave",
    description = "Leave a room; what was said stays readable here.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    responses((status = 200, body = Done), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn leave(State(surface): State<Surface>, Path(room): Path<String>) -> Answer<Done> {
    let room = room_id(&surface, room).await?;
    surface.command(Command::LeaveRoom { room }).await?;
    Ok(Json(Done { done: true }))
}

#[utoipa::path(
    get,
    path = "/rooms/{room}/members",
    description = "Who is in a room.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    responses((status = 200, body = Members), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn members(State(surface): State<Surface>, Path(room): Path<String>) -> Answer<Members> {
    let members = surface.query(move |peer| {
        let room = names::room_id(peer, &room)?;
        let views = peer.members(room).map_err(storage_problem)?.unwrap_or_default();
        let members = views.into_iter().map(Member::from).collect();
        Ok(Members {
            room: hex(&room.0),
            members,
        })
    });
    Ok(Json(members.await?))
}

#[utoipa::path(
    delete,
    path = "/rooms/{room}/members/{person}",
    description = "Remove a member and change the keys.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id"), ("person" = String, Path, description = "A person's id, a name, or the beginning of an id")),
    responses((status = 200, body = Done), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn remove(
    State(surface): State<Surface>,
    Path((room, person)): Path<(String, String)>,
) -> Answer<Done> {
    let (room, person) = room_and_person(&surface, room, person).await?;
    surface.command(Command::RemoveMember { room, person }).await?;
    Ok(Json(Done { done: true }))
}

#[utoipa::path(
    put,
    path = "/rooms/{room}/members/{person}/role",
    description = "Give a member a role.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id"), ("person" = String, Path, description = "A person's id, a name, or the beginning of an id")),
    request_body = RoleChange,
    responses((status = 200, body = Done), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn set_role(
    State(surface): State<Surface>,
    Path((room, person)): Path<(String, String)>,
    Body(change): Body<RoleChange>,
) -> Answer<Done> {
    let role = role(&change.role)?;
    let (room, person) = room_and_person(&surface, room, person).await?;
    surface.command(Command::SetRole { room, person, role }).await?;
    Ok(Json(Done { done: true }))
}

fn role(text: &str) -> Result<Role, Problem> {
    text.parse().map_err(|_| {
        let detail = format!("`{text}` is no role; there are reader, member, moderator, admin and owner");
        Problem::new(Kind::BadRequest, detail)
    })
}

#[utoipa::path(
    post,
    path = "/rooms/{room}/invites",
    description = "Make an invite.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    request_body = NewInvite,
    responses((status = 201, body = InviteMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn invite(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Body(new): Body<NewInvite>,
) -> Created<InviteMade> {
    let role = role(&new.role)?;
    let room = room_id(&surface, room).await?;
    // An invite of the first moment should name the relay too.
    surface.node.has_looked_for_relay().await;
    let command = Command::Invite {
        room,
        expires_s: new.expires_s,
        uses: new.uses,
        role,
        only_me: new.only_me,
    };
    let Reply::Invite(invite) = surface.command(command).await? else {
        return Err(odd_reply());
    };
    let made = InviteMade {
        invite: invite.to_link(),
        words: invite.to_lines(),
        room: hex(&invite.room.0),
        name: invite.room_name,
        role: invite.role.to_string(),
        uses: new.uses,
        expires: time(invite.expires_ms),
    };
    Ok((StatusCode::CREATED, Json(made)))
}

#[utoipa::path(
    post,
    path = "/joins",
    description = "Use an invite; progress comes as events.",
    request_body = NewJoin,
    responses((status = 202, body = RoomMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn join(State(surface): State<Surface>, Body(new): Body<NewJoin>) -> Created<RoomMade> {
    let invite = Invite::from_text(&new.invite).map_err(|bad| Problem::new(Kind::BadInvite, bad.to_string()))?;
    let name = invite.room_name.clone();
    let Reply::Room(room) = surface.command(Command::Join { invite }).await? else {
        return Err(odd_reply());
    };
    let joining = RoomMade {
        room: hex(&room.0),
        name,
    };
    Ok((StatusCode::ACCEPTED, Json(joining)))
}

#[utoipa::path(
    delete,
    path = "/joins/{room}",
    description = "Give up a join that has not succeeded.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    responses((status = 200, body = Done), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn cancel_join(State(surface): State<Surface>, Path(room): Path<String>) -> Answer<Done> {
    let room = room_id(&surface, room).await?;
    surface.command(Command::CancelJoin { room }).await?;
    Ok(Json(Done { done: true }))
}

/// The id of the room that a path segment means.
pub(super) async fn room_id(surface: &Surface, wanted: String) -> Result<RoomId, Problem> {
    surface.query(move |peer| names::room_id(peer, &wanted)).await
}

async fn room_and_person(surface: &Surface, room: String, person: String) -> Result<(RoomId, PersonId), Problem> {
    let ids = surface.query(move |peer| Ok((names::room_id(peer, &room)?, names::person(peer, &person)?)));
    ids.await
}
