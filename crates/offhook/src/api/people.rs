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

pub(super) async fn contacts(State(surface): State<Surface>) -> Result<Json<Contacts>, Problem> {
    let views = surface.query(|peer| peer.contacts().map_err(storage_problem)).await?;
    let contacts = views.into_iter().map(Contact::from).collect();
    Ok(Json(Contacts { contacts }))
}

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
