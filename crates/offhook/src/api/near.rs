//! `/near`: who announces themselves on this network and this machine, and invitations between them.
//!
//! Names and devices there are claims by whoever is on the network, unless a line is up. Nothing that a stranger asks is done before this person says so.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use offhook_node::{Near, Where};

use super::model::{
    NearAnswer, NearAnswered, NearChange, NearInvite, NearInvited, NearRequest, NearVerdict, Nearby, Neighbour, hex,
};
use super::request::{Body, Path};
use super::{Surface, names};
use crate::problem::{Kind, Problem};
use crate::proto::identity::DeviceId;
use crate::proto::peer::view::PeerView;
use crate::proto::peer::{Command, MadeProposalView, ProposalView, Reply, Verdict};

/// `GET /near`.
#[utoipa::path(
    get,
    path = "/near",
    description = "Who announces themselves on this network and this machine, and who of them invites this person.",
    responses((status = 200, body = Nearby), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn near(State(surface): State<Surface>) -> Result<Json<Nearby>, Problem> {
    let seen = surface.node.near();
    let look = |peer: &crate::proto::peer::Peer<_>| {
        Ok((
            peer.peers(),
            peer.proposals(),
            peer.made_proposals(),
            peer.takes_proposals(),
        ))
    };
    let (peers, asked, made, visible) = surface.query(look).await?;
    let place = |device: &DeviceId| {
        seen.iter()
            .find(|near| near.device == *device)
            .map(|near| place(near.place))
    };
    let requests = asked.into_iter().map(|asked| {
        let place = place(&asked.device);
        request(asked, place)
    });
    Ok(Json(Nearby {
        requests: requests.collect(),
        visible,
        near: seen.iter().map(|near| neighbour(near, &peers, &made)).collect(),
    }))
}

/// `PATCH /near`.
#[utoipa::path(
    patch,
    path = "/near",
    description = "Be seen by name by strangers nearby and take their invitations, or neither.",
    request_body = NearChange,
    responses((status = 200, body = Nearby), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn change(
    State(surface): State<Surface>,
    Body(change): Body<NearChange>,
) -> Result<Json<Nearby>, Problem> {
    surface.command(Command::TakeProposals { on: change.visible }).await?;
    near(State(surface)).await
}

/// `POST /near/{device}/invite`.
#[utoipa::path(
    post,
    path = "/near/{device}/invite",
    description = "Invite somebody nearby into a room, or to a room of two. They are asked; how far that has got is told by GET /near.",
    params(("device" = String, Path, description = "A device's id, the beginning of one, or a name of somebody nearby")),
    request_body = NearInvite,
    responses((status = 202, body = Neighbour), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn invite(
    State(surface): State<Surface>,
    Path(wanted): Path<String>,
    Body(new): Body<NearInvite>,
) -> Result<(StatusCode, Json<Neighbour>), Problem> {
    let all = near(State(surface.clone())).await?.0;
    let chosen = names::neighbour(&all.near, &wanted)?.device.clone();
    let is_chosen = |near: &Near| hex(&near.device.0) == chosen;
    let gone = || Problem::new(Kind::NotNear, "they are not here any more");
    let device = surface.node.near().into_iter().find(is_chosen).ok_or_else(gone)?.device;
    let room = match new.room {
        Some(wanted) => Some(surface.query(move |peer| names::room_id(peer, &wanted)).await?),
        None => None,
    };
    surface.command(Command::Propose { device, room }).await?;
    let now = near(State(surface)).await?.0;
    let told = now.near.into_iter().find(|near| near.device == chosen);
    Ok((StatusCode::ACCEPTED, Json(told.ok_or_else(gone)?)))
}

/// `POST /near/requests/{request}`.
#[utoipa::path(
    post,
    path = "/near/requests/{request}",
    description = "Answer somebody nearby who invites this person. After `accept` the join goes on by itself, and its steps come as events.",
    params(("request" = String, Path, description = "An invitation's id, the beginning of one, or the name of who invites")),
    request_body = NearAnswer,
    responses((status = 200, body = NearAnswered), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn answer(
    State(surface): State<Surface>,
    Path(wanted): Path<String>,
    Body(answer): Body<NearAnswer>,
) -> Result<Json<NearAnswered>, Problem> {
    let verdict = match answer.answer {
        NearVerdict::Accept => Verdict::Accept,
        NearVerdict::Decline => Verdict::Decline,
        NearVerdict::Block => Verdict::Block,
    };
    let find = move |peer: &crate::proto::peer::Peer<_>| names::proposal(&peer.proposals(), &wanted);
    let token = surface.query(find).await?;
    let command = Command::AnswerProposal { token, verdict };
    let Reply::Room(room) = surface.command(command).await? else {
        return Ok(Json(NearAnswered { room: None, name: None }));
    };
    let wanted = hex(&room.0);
    let view = surface.query(move |peer| names::room(peer, &wanted)).await?;
    Ok(Json(NearAnswered {
        room: Some(hex(&room.0)),
        name: Some(view.name),
    }))
}

fn neighbour(near: &Near, peers: &[PeerView], made: &[MadeProposalView]) -> Neighbour {
    let known = peers.iter().find(|peer| peer.device == near.device);
    let mut invited: Vec<&MadeProposalView> = made.iter().filter(|made| made.device == near.device).collect();
    invited.sort_by_key(|made| made.left);
    let invited = invited.into_iter().map(|made| NearInvited {
        room: made.room.map(|room| hex(&room.0)),
        standing: made.standing.word().to_owned(),
        left_s: made.left.as_secs(),
    });
    Neighbour {
        device: hex(&near.device.0),
        person: known.and_then(|peer| peer.person).map(|person| hex(&person.0)),
        name: known.filter(|peer| peer.person.is_some()).map(|peer| peer.name.clone()),
        claims: near.claim.clone(),
        place: place(near.place),
        invited: invited.collect(),
        addresses: near.addresses.iter().map(ToString::to_string).collect(),
        up: known.is_some_and(|peer| peer.up),
        heard_s: near.since.as_secs(),
    }
}

fn request(asked: ProposalView, place: Option<String>) -> NearRequest {
    NearRequest {
        request: hex(&asked.token),
        device: hex(&asked.device.0),
        person: hex(&asked.person.0),
        claims: asked.claimed,
        name: asked.name,
        room_name: asked.room.map(|(_, name)| name),
        place,
        expires_s: asked.left.as_secs(),
    }
}

fn place(place: Where) -> String {
    match place {
        Where::Machine => "machine".to_owned(),
        Where::Network => "network".to_owned(),
    }
}
