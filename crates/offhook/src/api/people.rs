//! Contacts: everybody known from any room.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::model::{Contact, ContactChange, Contacts, RoomMade, hex};
use super::request::{Body, Path};
use super::{Surface, names, odd_reply, storage_problem};
use crate::problem::{Kind, Problem};
use crate::proto::identity::PersonId;
use crate::proto::peer::{Command, Reply};

#[utoipa::path(
    get,
    path = "/contacts",
    description = "Everybody known from any room.",
    responses((status = 200, body = Contacts), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn contacts(State(surface): State<Surface>) -> Result<Json<Contacts>, Problem> {
    let views = surface.query(|peer| peer.contacts().map_err(storage_problem)).await?;
    let contacts = views.into_iter().map(Contact::from).collect();
    Ok(Json(Contacts { contacts }))
}

#[utoipa::path(
    get,
    path = "/contacts/{person}",
    description = "One contact.",
    params(("person" = String, Path, description = "A person's id, a name, or the beginning of an id")),
    responses((status = 200, body = Contact), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn contact(
    State(surface): State<Surface>,
    Path(person): Path<String>,
) -> Result<Json<Contact>, Problem> {
    let found = surface.query(move |peer| {
        let person = names::person(peer, &person)?;
        let all = peer.contacts().map_err(storage_problem)?;
        all.into_iter()
            .find(|contact| contact.person == person)
            .ok_or_else(|| Problem::new(Kind::NoPerson, "that is you; contacts are other people"))
    });
    Ok(Json(found.await?.into()))
}

#[utoipa::path(
    patch,
    path = "/contacts/{person}",
    description = "Name, verify or block somebody, here only.",
    params(("person" = String, Path, description = "A person's id, a name, or the beginning of an id")),
    request_body = ContactChange,
    responses((status = 200, body = Contact), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn change(
    State(surface): State<Surface>,
    Path(wanted): Path<String>,
    Body(change): Body<ContactChange>,
) -> Result<Json<Contact>, Problem> {
    let person = person_id(&surface, wanted).await?;
    let petname = change.petname.map(|petname| Command::NamePerson { person, petname });
    let verified = change
        .verified
        .map(|verified| Command::VerifyPerson { person, verified });
    let blocked = change.blocked.map(|blocked| Command::BlockPerson { person, blocked });
    for command in [petname, verified, blocked].into_iter().flatten() {
        surface.command(command).await?;
    }
    contact(State(surface), Path(hex(&person.0))).await
}

#[utoipa::path(
    post,
    path = "/contacts/{person}/chat",
    description = "Open the room of two.",
    params(("person" = String, Path, description = "A person's id, a name, or the beginning of an id")),
    responses((status = 201, body = RoomMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn chat(
    State(surface): State<Surface>,
    Path(wanted): Path<String>,
) -> Result<(StatusCode, Json<RoomMade>), Problem> {
    let person = person_id(&surface, wanted).await?;
    let Reply::Room(room) = surface.command(Command::Chat { person }).await? else {
        return Err(odd_reply());
    };
    let wanted = hex(&room.0);
    let view = surface.query(move |peer| names::room(peer, &wanted)).await?;
    let opened = RoomMade {
        room: hex(&room.0),
        name: view.name,
    };
    Ok((StatusCode::CREATED, Json(opened)))
}

async fn person_id(surface: &Surface, wanted: String) -> Result<PersonId, Problem> {
    surface.query(move |peer| names::person(peer, &wanted)).await
}
