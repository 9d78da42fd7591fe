//! Keepers: which a room has, and what this node keeps for others.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Surface;
use super::model::{Keeper, KeeperNode, Keepers, NewKeeper, hex};
use super::request::{Body, Path};
use super::rooms::room_id;
use crate::problem::{Kind, Problem};
use crate::proto::history::RoomId;
use crate::proto::keeper::KeeperAddress;
use crate::proto::peer::Command;
use crate::proto::rooms::keepers::KEEPERS_ADVISED;

type Answer<T> = Result<Json<T>, Problem>;

#[utoipa::path(
    get,
    path = "/rooms/{room}/keepers",
    description = "A room's keepers.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    responses((status = 200, body = Keepers), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn list(State(surface): State<Surface>, Path(room): Path<String>) -> Answer<Keepers> {
    let room = room_id(&surface, room).await?;
    Ok(Json(of_room(&surface, room).await?))
}

#[utoipa::path(
    post,
    path = "/rooms/{room}/keepers",
    description = "Name a keeper by the address that it prints.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    request_body = NewKeeper,
    responses((status = 201, body = Keepers), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn add(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Body(new): Body<NewKeeper>,
) -> Result<(StatusCode, Json<Keepers>), Problem> {
    let keeper =
        KeeperAddress::from_link(&new.address).map_err(|bad| Problem::new(Kind::BadKeeper, bad.to_string()))?;
    let room = room_id(&surface, room).await?;
    surface.command(Command::AddKeeper { room, keeper }).await?;
    Ok((StatusCode::CREATED, Json(of_room(&surface, room).await?)))
}

#[utoipa::path(
    delete,
    path = "/rooms/{room}/keepers/{keeper}",
    description = "Take a keeper away.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id"), ("keeper" = String, Path, description = "The beginning of the keeper's device id, four digits at least")),
    responses((status = 200, body = Keepers), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn remove(
    State(surface): State<Surface>,
    Path((room, wanted)): Path<(String, String)>,
) -> Answer<Keepers> {
    let room = room_id(&surface, room).await?;
    let there = surface
        .query(move |peer| Ok(peer.keepers(room).unwrap_or_default()))
        .await?;
    let digits = wanted.to_lowercase();
    let mut fitting = there.iter().filter(|keeper| hex(&keeper.device.0).starts_with(&digits));
    let device = match (fitting.next(), fitting.next()) {
        (Some(one), None) if digits.len() >= 4 => one.device,
        _ => {
            let detail = format!("`{wanted}` is no keeper of this room; `offhook room keepers R` lists those it has");
            return Err(Problem::new(Kind::NoKeeper, detail));
        }
    };
    surface.command(Command::RemoveKeeper { room, device }).await?;
    Ok(Json(of_room(&surface, room).await?))
}

async fn of_room(surface: &Surface, room: RoomId) -> Result<Keepers, Problem> {
    let views = surface
        .query(move |peer| Ok(peer.keepers(room).unwrap_or_default()))
        .await?;
    Ok(Keepers {
        room: hex(&room.0),
        keepers: views.into_iter().map(Keeper::from).collect(),
        advised: KEEPERS_ADVISED,
    })
}

/// What this node keeps for others, if it does.
pub(super) async fn own(surface: &Surface) -> Result<Option<KeeperNode>, Problem> {
    let own = surface
        .query(|peer| Ok((peer.keeper_address(), peer.keeper_usage())))
        .await?;
    Ok(own.0.map(|address| KeeperNode {
        address: address.to_link(),
        rooms: own.1.vaults,
        entries: own.1.entries,
        bytes: own.1.bytes,
    }))
}
