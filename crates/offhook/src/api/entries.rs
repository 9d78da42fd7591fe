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
use super::{Surface, names, odd_reply, storage_problem};
use crate::problem::{Kind, Problem};
use crate::proto::history::{EntryId, RoomId};
use crate::proto::peer::view::LineView;
use crate::proto::peer::{Command, Peer, Post, Reply};
use crate::proto::store::Store;

/// The most lines of one page.
const PAGE_LINES_MAX: usize = 1000;
/// How many lines a page has unless asked.
const PAGE_LINES: usize = 50;
/// The first characters of a cursor: its version.
const CURSOR: &str = "c1-";
/// The context of the hash that makes a client's own id one of 16 bytes.
const CLIENT_ID: &str = "offhook 1 api client id";
/// The longest client id, in bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// Which lines of a timeline.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    limit: Option<usize>,
    /// An entry's id.
    before: Option<String>,
    /// From the page before.
    cursor: Option<String>,
}

pub(super) async fn page(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Page>, Problem> {
    let limit = line_count(which.limit)?;
    let before = match (which.before, which.cursor) {
        (None, None) => None,
        (Some(id), None) => Some(names::entry(&id)?),
        (None, Some(cursor)) => Some(read_cursor(&cursor)?),
        (Some(_), Some(_)) => {
            let detail = "`before` and `cursor` say the same thing; give one of them";
            return Err(Problem::new(Kind::BadRequest, detail));
        }
    };
    let room = surface.query(move |peer| names::room_id(peer, &room)).await?;
    if before.is_none() {
        // Whoever asks for the newest page has it on screen. A disk that takes no writes must not keep it from being read.
        let _ = surface.command(Command::OpenRoom { room: Some(room) }).await;
    }
    let page = surface.query(move |peer| read_page(peer, room, before, limit).map(|(page, _)| page));
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

fn read_cursor(cursor: &str) -> Result<EntryId, Problem> {
    let stale = || Problem::new(Kind::BadRequest, "this cursor is not one that this node gave");
    let id = cursor.strip_prefix(CURSOR).ok_or_else(stale)?;
    id.parse().map_err(|_| stale())
}

/// One page and the entry to ask before for the next.
fn read_page<S: Store>(
    peer: &Peer<S>,
    room: RoomId,
    before: Option<EntryId>,
    limit: usize,
) -> Result<(Page, Option<EntryId>), Problem> {
    let lines = peer.timeline(room, before, limit).map_err(storage_problem)?;
    let lines = lines.ok_or_else(|| Problem::new(Kind::NoRoom, "this room is not here any more"))?;
    let first = lines.iter().find_map(|line| match line {
        LineView::Entry(entry) => Some(entry.id),
        LineView::Gap { .. } => None,
    });
    // A short page is the oldest.
    let older = first.filter(|_| lines.len() >= limit);
    let me = peer.me().person;
    let page = Page {
        entries: lines.into_iter().map(|line| Line::new(line, &room, &me)).collect(),
        older: older.map(|id| format!("{CURSOR}{id}")),
    };
    Ok((page, older))
}

/// All of a room as JSON lines, oldest first. The pages are gathered from the newest backwards, so all of it is in memory once.
pub(super) async fn export(State(surface): State<Surface>, Path(room): Path<String>) -> Result<Response, Problem> {
    let room = room_id(&surface, room).await?;
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let read = surface.query(move |peer| read_page(peer, room, before, PAGE_LINES_MAX));
        let (page, older) = read.await?;
        pages.push(Bytes::from(json_lines(&page.entries)?));
        if older.is_none() {
            break;
        }
        before = older;
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

pub(super) async fn say(
    State(surface): State<Surface>,
    Path(room): Path<String>,
    Body(new): Body<NewEntry>,
) -> Result<(StatusCode, Json<EntryMade>), Problem> {
    let room = room_id(&surface, room).await?;
    let client_id = client_id(new.client_id.as_deref())?;
    let text = new.text;
    let post = Post::Text { text, reply_to: None };
    let made = write(&surface, room, post, client_id).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

pub(super) async fn reply(
    State(surface): State<Surface>,
    Path(id): Path<String>,
    Body(new): Body<NewEntry>,
) -> Result<(StatusCode, Json<EntryMade>), Problem> {
    let (target, room) = entry_and_room(&surface, &id).await?;
    let client_id = client_id(new.client_id.as_deref())?;
    let post = Post::Text {
        text: new.text,
        reply_to: Some(target),
    };
    let made = write(&surface, room, post, client_id).await?;
    Ok((StatusCode::CREATED, Json(made)))
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

pub(super) async fn edit(
    State(surface): State<Surface>,
    Path(id): Path<String>,
    Body(change): Body<EntryChange>,
) -> Result<Json<EntryMade>, Problem> {
    let (target, room) = entry_and_room(&surface, &id).await?;
    let text = change.text;
    Ok(Json(write(&surface, room, Post::Edit { target, text }, None).await?))
}

pub(super) async fn remove(State(surface): State<Surface>, Path(id): Path<String>) -> Result<Json<EntryMade>, Problem> {
    let (target, room) = entry_and_room(&surface, &id).await?;
    Ok(Json(write(&surface, room, Post::Delete { target }, None).await?))
}

pub(super) async fn react(
    State(surface): State<Surface>,
    Path((id, emoji)): Path<(String, String)>,
) -> Result<Json<EntryMade>, Problem> {
    set_reaction(&surface, &id, emoji, true).await
}

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

pub(super) async fn show(State(surface): State<Surface>, Path(id): Path<String>) -> Result<Json<Line>, Problem> {
    let id = names::entry(&id)?;
    let line = surface.query(move |peer| {
        let entry = peer.entry(id).map_err(storage_problem)?.ok_or_else(no_entry)?;
        Ok(Line::entry(entry, &peer.me().person))
    });
    Ok(Json(line.await?))
}

pub(super) async fn whereabouts(
    State(surface): State<Surface>,
    Path(id): Path<String>,
) -> Result<Json<Whereabouts>, Problem> {
    let id = names::entry(&id)?;
    let view = surface.query(move |peer| peer.where_is(id).map_err(storage_problem)?.ok_or_else(no_entry));
    Ok(Json(view.await?.into()))
}

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
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    words: String,
    room: Option<String>,
    limit: Option<usize>,
}

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
        assert_eq!(read_cursor(&format!("{CURSOR}{id}")), Ok(id));
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
