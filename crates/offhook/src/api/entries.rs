//! What is said: reading, writing, changing, finding.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body as Stream, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

use super::model::{EntryChange, EntryMade, Found, Line, NewEntry, Page, ReadMark, Whereabouts, hex};
use super::request::{Body, Path, Query};
use super::rooms::room_id;
use super::{Surface, files, names, odd_reply, storage_problem};
use crate::problem::{Kind, Problem};
use crate::proto::history::{EntryId, RoomId};
use crate::proto::peer::view::LineView;
use crate::proto::peer::{Command, Peer, Post, Reply};
use crate::proto::store::Store;

/// The most lines of one page.
const PAGE_LINES_MAX: usize = 1000;
/// How many lines a page has unless asked.
const PAGE_LINES: usize = 50;
/// The first characters of a cursor: its version and direction.
const OLDER: &str = "c1";
const NEWER: &str = "d1";
/// The context of the hash that makes a client's own id one of 16 bytes.
const CLIENT_ID: &str = "offhook 1 api client id";
/// The longest client id, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// Which lines of a timeline: at most one of the four places.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    limit: Option<usize>,
    /// An entry's id.
    before: Option<String>,
    /// An entry's id.
    after: Option<String>,
    /// An entry's id, to stand in the middle.
    around: Option<String>,
    /// From another page.
    cursor: Option<String>,
}

/// Where a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Newest,
    Before(EntryId),
    After(EntryId),
    Around(EntryId),
}

impl Which {
    fn place(&self) -> Result<Place, Problem> {
        let mut places = Vec::new();
        if let Some(id) = &self.before {
            places.push(Place::Before(names::entry(id)?));
        }
        if let Some(id) = &self.after {
            places.push(Place::After(names::entry(id)?));
        }
        if let Some(id) = &self.around {
            places.push(Place::Around(names::entry(id)?));
        }
        if let Some(cursor) = &self.cursor {
            places.push(read_cursor(cursor)?);
        }
        match places.as_slice() {
            [] => Ok(Place::Newest),
            [place] => Ok(*place),
            _ => {
                let detail = "`before`, `after`, `around` and `cursor` each say where the page is; give one of them";
                Err(Problem::new(Kind::BadRequest, detail))
            }
        }
    }
}

#[utoipa::path(
    get,
    path = "/rooms/{room}/entries",
    description = "A page of a timeline.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id"), Which),
    responses((status = 200, body = Page), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn page(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Page>, Problem> {
    let limit = line_count(which.limit)?;
    let place = which.place()?;
    let room = surface.query(move |peer| names::room_id(peer, &room)).await?;
    if place == Place::Newest {
        // Whoever asks for the newest page has it on screen. A disk that takes no writes must not keep it from being read.
        let _ = surface.command(Command::OpenRoom { room: Some(room) }).await;
    }
    let page = surface.query(move |peer| read_page(peer, room, place, limit));
    Ok(Json(page.await?))
}

fn line_count(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE_LINES) {
        limit @ 1..=PAGE_LINES_MAX => Ok(limit),
        _ => {
            let detail = format!("`limit` must be 1 to {PAGE_LINES_MAX}");
            Err(Problem::new(Kind::BadRequest, detail))
        }
    }
}

fn read_cursor(cursor: &str) -> Result<Place, Problem> {
    let stale = || Problem::new(Kind::BadRequest, "this cursor is not one that this node gave");
    let (kind, id) = cursor.split_once('-').ok_or_else(stale)?;
    let id = id.parse().map_err(|_| stale())?;
    match kind {
        OLDER => Ok(Place::Before(id)),
        NEWER => Ok(Place::After(id)),
        _ => Err(stale()),
    }
}

/// One page.
fn read_page<S: Store>(peer: &Peer<S>, room: RoomId, place: Place, limit: usize) -> Result<Page, Problem> {
    let gone = || Problem::new(Kind::NoRoom, "this room is not here any more");
    let before = |before: Option<EntryId>, limit: usize| {
        let lines = peer.timeline(room, before, limit).map_err(storage_problem)?;
        lines.ok_or_else(gone)
    };
    let after = |after: EntryId, limit: usize| {
        let lines = peer.timeline_after(room, after, limit).map_err(storage_problem)?;
        lines.ok_or_else(gone)
    };
    let me = peer.me().person;
    // A short stretch has nothing behind it.
    let (lines, may_have_older, may_have_newer) = match place {
        Place::Newest => {
            let lines = before(None, limit)?;
            let full = lines.len() >= limit;
            (lines, full, false)
        }
        Place::Before(id) => {
            let lines = before(Some(id), limit)?;
            let full = lines.len() >= limit;
            (lines, full, true)
        }
        Place::After(id) => {
            let lines = after(id, limit)?;
            let full = lines.len() >= limit;
            (lines, true, full)
        }
        Place::Around(id) => {
            let middle = peer
                .entry(id)
                .map_err(storage_problem)?
                .filter(|entry| entry.room == room);
            let middle = middle.ok_or_else(no_entry)?;
            let (above, below) = (limit / 2, limit.saturating_sub(limit / 2 + 1));
            let mut lines = if above > 0 {
                before(Some(id), above)?
            } else {
                Vec::new()
            };
            let may_have_older = lines.len() >= above;
            lines.push(LineView::Entry(Box::new(middle)));
            let later = if below > 0 { after(id, below)? } else { Vec::new() };
            let may_have_newer = later.len() >= below;
            lines.extend(later);
            (lines, may_have_older, may_have_newer)
        }
    };
    let entry = |line: &LineView| match line {
        LineView::Entry(entry) => Some(entry.id),
        LineView::Gap { .. } => None,
    };
    let oldest = lines.iter().find_map(entry).filter(|_| may_have_older);
    let newest = lines.iter().rev().find_map(entry).filter(|_| may_have_newer);
    Ok(Page {
        older: oldest.map(|id| format!("{OLDER}-{id}")),
        newer: newest.map(|id| format!("{NEWER}-{id}")),
        entries: lines.into_iter().map(|line| Line::new(line, &room, &me)).collect(),
    })
}

/// A stretch of a timeline, for surfaces other than HTTP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stretch {
    Newest,
    Before(EntryId),
    After(EntryId),
    /// The entry itself and what is behind it.
    From(EntryId),
}

/// Lines of a stretch, at most `limit`, oldest first.
pub(crate) async fn stretch(
    surface: &Surface,
    room: RoomId,
    stretch: Stretch,
    limit: usize,
) -> Result<Vec<Line>, Problem> {
    let limit = limit.min(PAGE_LINES_MAX);
    if limit == 0 {
        return Ok(Vec::new());
    }
    let read = surface.query(move |peer| {
        let (place, first) = match stretch {
            Stretch::Newest => (Place::Newest, None),
            Stretch::Before(id) => (Place::Before(id), None),
            Stretch::After(id) => (Place::After(id), None),
            Stretch::From(id) => (Place::After(id), peer.entry(id).map_err(storage_problem)?),
        };
        let me = peer.me().person;
        let mut lines: Vec<Line> = first.into_iter().map(|entry| Line::entry(entry, &me)).collect();
        if lines.len() < limit {
            lines.extend(read_page(peer, room, place, limit - lines.len())?.entries);
        }
        Ok(lines)
    });
    read.await
}

/// The newest lines of a room named by its id.
pub(crate) async fn newest_lines(surface: &Surface, room: &str, limit: usize) -> Result<Vec<Line>, Problem> {
    let room = room_id(surface, room.to_owned()).await?;
    stretch(surface, room, Stretch::Newest, limit).await
}

/// One line.
pub(crate) async fn line(surface: &Surface, id: EntryId) -> Result<Line, Problem> {
    let read = surface.query(move |peer| {
        let entry = peer.entry(id).map_err(storage_problem)?.ok_or_else(no_entry)?;
        Ok(Line::entry(entry, &peer.me().person))
    });
    read.await
}

/// The first entry at or after a time.
pub(crate) async fn entry_at(surface: &Surface, room: RoomId, unix_ms: i64) -> Result<Option<EntryId>, Problem> {
    let unix_ms = u64::try_from(unix_ms).unwrap_or(0);
    let read = surface.query(move |peer| peer.entry_at(room, unix_ms).map_err(storage_problem));
    read.await
}

/// The room of two with a person named by their id; made where there is none.
pub(crate) async fn chat_with(surface: &Surface, person: &str) -> Result<RoomId, Problem> {
    let wanted = person.to_owned();
    let person = surface.query(move |peer| names::person(peer, &wanted)).await?;
    match surface.command(Command::Chat { person }).await? {
        Reply::Room(room) => Ok(room),
        _ => Err(odd_reply()),
    }
}

/// All of a room as JSON lines, oldest first. The pages are gathered from the newest backwards, so all of it is in memory once.
#[utoipa::path(
    get,
    path = "/rooms/{room}/export",
    description = "Every line, oldest first.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    responses((status = 200, content_type = "application/x-ndjson", body = String), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn export(State(surface): State<Surface>, Path(room): Path<String>) -> Result<Response, Problem> {
    let room = room_id(&surface, room).await?;
    let mut pages = Vec::new();
    let mut place = Place::Newest;
    loop {
        let read = surface.query(move |peer| read_page(peer, room, place, PAGE_LINES_MAX));
        let page = read.await?;
        pages.push(Bytes::from(json_lines(&page.entries)?));
        match page.older {
            None => break,
            Some(older) => place = read_cursor(&older)?,
        }
    }
    let oldest_first = pages.into_iter().rev().map(Ok::<_, Infallible>);
    let body = Stream::from_stream(stream::iter(oldest_first));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn json_lines(lines: &[Line]) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

#[utoipa::path(
    post,
    path = "/rooms/{room}/entries",
    description = "Say something.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    request_body = NewEntry,
    responses((status = 201, body = EntryMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn say(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Body(new): Body<NewEntry>,
) -> Result<(StatusCode, Json<EntryMade>), Problem> {
    let room = room_id(&surface, room).await?;
    let client_id = client_id(new.client_id.as_deref())?;
    let made = write_text(&surface, room, new.text, None, &new.files, client_id).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

#[utoipa::path(
    post,
    path = "/entries/{id}/replies",
    description = "Answer a message.",
    params(("id" = String, Path, description = "An entry's id")),
    request_body = NewEntry,
    responses((status = 201, body = EntryMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn reply(
    State(surface): State<Surface>,
    Path(id): Path<String>,
    Body(new): Body<NewEntry>,
) -> Result<(StatusCode, Json<EntryMade>), Problem> {
    let (target, room) = entry_and_room(&surface, &id).await?;
    let client_id = client_id(new.client_id.as_deref())?;
    let made = write_text(&surface, room, new.text, Some(target), &new.files, client_id).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn write_text(
    surface: &Surface,
    room: RoomId,
    text: String,
    reply_to: Option<EntryId>,
    names: &[String],
    client_id: Option<[u8; 16]>,
) -> Result<EntryMade, Problem> {
    let files = files::staged(surface, names)?;
    let post = Post::Text {
        text,
        reply_to,
        files: files.clone(),
    };
    let made = write(surface, room, post, client_id).await?;
    files::sent(surface, names::entry(&made.id)?, &files).await?;
    Ok(made)
}

/// A client's own id may be any text; the peer takes 16 bytes.
fn client_id(text: Option<&str>) -> Result<Option<[u8; 16]>, Problem> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() || text.len() > CLIENT_ID_BYTES_MAX {
        let detail = format!("`client_id` must be 1 to {CLIENT_ID_BYTES_MAX} bytes long");
        return Err(Problem::new(Kind::Length, detail));
    }
    let hash = blake3::derive_key(CLIENT_ID, text.as_bytes());
    Ok(hash.first_chunk().copied())
}

#[utoipa::path(
    patch,
    path = "/entries/{id}",
    description = "Give an own message another text.",
    params(("id" = String, Path, description = "An entry's id")),
    request_body = EntryChange,
    responses((status = 200, body = EntryMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn edit(
    State(surface): State<Surface>,
    Path(id): Path<String>,
    Body(change): Body<EntryChange>,
) -> Result<Json<EntryMade>, Problem> {
    let (target, room) = entry_and_room(&surface, &id).await?;
    let text = change.text;
    Ok(Json(write(&surface, room, Post::Edit { target, text }, None).await?))
}

#[utoipa::path(
    delete,
    path = "/entries/{id}",
    description = "Take a message away, everywhere.",
    params(("id" = String, Path, description = "An entry's id")),
    responses((status = 200, body = EntryMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn remove(State(surface): State<Surface>, Path(id): Path<String>) -> Result<Json<EntryMade>, Problem> {
    let (target, room) = entry_and_room(&surface, &id).await?;
    Ok(Json(write(&surface, room, Post::Delete { target }, None).await?))
}

#[utoipa::path(
    put,
    path = "/entries/{id}/reactions/{emoji}",
    description = "React to a message.",
    params(("id" = String, Path, description = "An entry's id"), ("emoji" = String, Path, description = "One emoji")),
    responses((status = 200, body = EntryMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn react(
    State(surface): State<Surface>,
    Path((id, emoji)): Path<(String, String)>,
) -> Result<Json<EntryMade>, Problem> {
    set_reaction(&surface, &id, emoji, true).await
}

#[utoipa::path(
    delete,
    path = "/entries/{id}/reactions/{emoji}",
    description = "Withdraw a reaction.",
    params(("id" = String, Path, description = "An entry's id"), ("emoji" = String, Path, description = "One emoji")),
    responses((status = 200, body = EntryMade), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn unreact(
    State(surface): State<Surface>,
    Path((id, emoji)): Path<(String, String)>,
) -> Result<Json<EntryMade>, Problem> {
    set_reaction(&surface, &id, emoji, false).await
}

async fn set_reaction(surface: &Surface, id: &str, emoji: String, on: bool) -> Result<Json<EntryMade>, Problem> {
    let (target, room) = entry_and_room(surface, id).await?;
    let post = Post::React { target, emoji, on };
    Ok(Json(write(surface, room, post, None).await?))
}

async fn write(surface: &Surface, room: RoomId, post: Post, client_id: Option<[u8; 16]>) -> Result<EntryMade, Problem> {
    let command = Command::Post { room, post, client_id };
    let Reply::Entry(id) = surface.command(command).await? else {
        return Err(odd_reply());
    };
    Ok(EntryMade {
        id: id.to_string(),
        room: hex(&room.0),
    })
}

#[utoipa::path(
    get,
    path = "/entries/{id}",
    description = "One line.",
    params(("id" = String, Path, description = "An entry's id")),
    responses((status = 200, body = Line), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn show(State(surface): State<Surface>, Path(id): Path<String>) -> Result<Json<Line>, Problem> {
    let id = names::entry(&id)?;
    let line = surface.query(move |peer| {
        let entry = peer.entry(id).map_err(storage_problem)?.ok_or_else(no_entry)?;
        Ok(Line::entry(entry, &peer.me().person))
    });
    Ok(Json(line.await?))
}

#[utoipa::path(
    get,
    path = "/entries/{id}/where",
    description = "How far an entry got, and why not further.",
    params(("id" = String, Path, description = "An entry's id")),
    responses((status = 200, body = Whereabouts), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn whereabouts(
    State(surface): State<Surface>,
    Path(id): Path<String>,
) -> Result<Json<Whereabouts>, Problem> {
    let id = names::entry(&id)?;
    let view = surface.query(move |peer| peer.where_is(id).map_err(storage_problem)?.ok_or_else(no_entry));
    Ok(Json(view.await?.into()))
}

#[utoipa::path(
    post,
    path = "/rooms/{room}/read",
    description = "All up to an entry has been seen.",
    params(("room" = String, Path, description = "A room's id, its name, or the beginning of its id")),
    request_body = ReadMark,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn mark_read(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Body(mark): Body<ReadMark>,
) -> Result<StatusCode, Problem> {
    let up_to = names::entry(&mark.up_to)?;
    let room = room_id(&surface, room).await?;
    surface.command(Command::MarkRead { room, up_to }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What to look for.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    words: String,
    room: Option<String>,
    limit: Option<usize>,
}

#[utoipa::path(
    get,
    path = "/search",
    description = "Find messages, newest first.",
    params(Wanted),
    responses((status = 200, body = Found), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn search(
    State(surface): State<Surface>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Found>, Problem> {
    let limit = line_count(wanted.limit)?;
    if wanted.words.trim().is_empty() {
        return Err(Problem::new(Kind::BadRequest, "say at least one word to look for"));
    }
    let found = surface.query(move |peer| {
        let in_room = wanted.room.map(|room| names::room_id(peer, &room)).transpose()?;
        let hits = peer.search(&wanted.words, in_room, limit).map_err(storage_problem)?;
        let me = peer.me().person;
        Ok(hits.into_iter().map(|entry| Line::entry(entry, &me)).collect())
    });
    Ok(Json(Found { entries: found.await? }))
}

async fn entry_and_room(surface: &Surface, id: &str) -> Result<(EntryId, RoomId), Problem> {
    let id = names::entry(id)?;
    let found = surface.query(move |peer| peer.entry(id).map_err(storage_problem)?.ok_or_else(no_entry));
    Ok((id, found.await?.room))
}

fn no_entry() -> Problem {
    Problem::new(
        Kind::NoEntry,
        "there is no such entry here; it may not have arrived yet",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_only_taken_back_from_who_got_it_here() {
        let id = EntryId { log: [7; 8], seq: 9 };
        assert_eq!(read_cursor(&format!("{OLDER}-{id}")), Ok(Place::Before(id)));
        assert_eq!(read_cursor(&format!("{NEWER}-{id}")), Ok(Place::After(id)));
        assert_eq!(read_cursor(&id.to_string()).unwrap_err().kind, Kind::BadRequest);
    }

    #[test]
    fn the_same_client_id_is_the_same_bytes() {
        assert_eq!(client_id(Some("a")), client_id(Some("a")));
        assert_ne!(client_id(Some("a")), client_id(Some("b")));
        assert_eq!(client_id(Some("")).unwrap_err().kind, Kind::Length);
        assert_eq!(client_id(Some(&"a".repeat(129))).unwrap_err().kind, Kind::Length);
    }
}
