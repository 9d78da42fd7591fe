//! Files: taken in, sent with a message, fetched, read.
//!
//! Two steps: `POST /files` takes the bytes in and answers with what is known of them; a message then names them. What no message names within this run of
//! the node is gone at the next.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::body::{Body as Stream, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use futures_util::stream;
use http_body_util::BodyExt as _;
use offhook_node::files::{FileProblem, FileReader};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::model::{FileState, FileTaken, Files};
use super::request::{Path, Query};
use super::{Surface, names, node_problem, storage_problem};
use crate::picture;
use crate::problem::{Kind, Problem};
use crate::proto::history::file::{FILES_MAX, MEDIA_TYPE_BYTES_MAX, safe_name};
use crate::proto::history::{Attachment, ContentId, EntryId};

/// Files that were taken in and not sent yet.
const STAGED_MAX: usize = 64;
const UNKNOWN_TYPE: &str = "application/octet-stream";
/// Media types that a browser shows by itself, and that cannot run anything.
const SHOWN: &[&str] = &[
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "audio/",
    "video/",
];

/// Files that were taken in and not sent yet, by their content.
pub(super) type Staged = Arc<Mutex<BTreeMap<ContentId, Attachment>>>;

/// What the one who sends knows of the file.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Described {
    /// Its name.
    name: String,
    /// Its media type; guessed from the name unless given.
    #[serde(rename = "type")]
    media_type: Option<String>,
}

#[utoipa::path(
    post,
    path = "/files",
    description = "Take a file in, to be sent with a message. The body is the file.",
    params(Described),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 201, body = FileTaken), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn take(
    State(surface): State<Surface>,
    Query(described): Query<Described>,
    request: Request,
) -> Result<(StatusCode, Json<FileTaken>), Problem> {
    let name = safe_name(&described.name);
    let media_type = media_type(&name, described.media_type)?;
    let mut writer = surface.node.new_file().await.map_err(file_problem)?;
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let cut_off = |_| Problem::new(Kind::BadRequest, "the file broke off; send it again");
        if let Some(part) = frame.map_err(cut_off)?.data_ref() {
            writer.write(part).await.map_err(file_problem)?;
        }
    }
    let kept = writer.finish().await.map_err(file_problem)?;
    let mut file = Attachment {
        name,
        media_type,
        bytes: kept.bytes,
        content: kept.content,
        key: kept.key,
        picture: None,
    };
    if file.media_type.starts_with("image/") && file.bytes <= picture::LOOKED_AT_BYTES_MAX {
        let all = read_all(&surface, &file).await?;
        let described = tokio::task::spawn_blocking(move || picture::describe(&all)).await;
        file.picture = described.ok().flatten();
    }
    let taken = FileTaken::new(&file);
    stage(&surface.staged, file)?;
    Ok((StatusCode::CREATED, Json(taken)))
}

fn media_type(name: &str, given: Option<String>) -> Result<String, Problem> {
    let guessed = || {
        mime_guess::from_path(name)
            .first_raw()
            .unwrap_or(UNKNOWN_TYPE)
            .to_owned()
    };
    let given = given.filter(|given| !given.is_empty());
    let media_type = given.unwrap_or_else(guessed).to_ascii_lowercase();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c);
    let (kind, sub) = media_type.split_once('/').unwrap_or_default();
    let fits = [kind, sub]
        .iter()
        .all(|part| !part.is_empty() && part.chars().all(is_token));
    if !fits || media_type.len() > MEDIA_TYPE_BYTES_MAX {
        let detail = format!("`{media_type}` is no media type; it looks like image/png");
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    Ok(media_type)
}

async fn read_all(surface: &Surface, file: &Attachment) -> Result<Vec<u8>, Problem> {
    let reader = surface.node.read_file(file).await.map_err(file_problem)?;
    let mut all = Vec::new();
    loop {
        let part = reader.read_at(all.len() as u64).await.map_err(file_problem)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(part);
    }
}

fn stage(staged: &Staged, file: Attachment) -> Result<(), Problem> {
    let mut staged = staged.lock().unwrap_or_else(PoisonError::into_inner);
    if staged.len() >= STAGED_MAX {
        let detail = format!("{STAGED_MAX} files wait to be sent; send a message with some of them first");
        return Err(Problem::new(Kind::Limit, detail));
    }
    staged.insert(file.content, file);
    Ok(())
}

/// The files that a message to be sent names.
pub(super) fn staged(surface: &Surface, names: &[String]) -> Result<Vec<Attachment>, Problem> {
    if names.len() > FILES_MAX {
        let detail = format!("a message carries at most {FILES_MAX} files; send the others with another one");
        return Err(Problem::new(Kind::Limit, detail));
    }
    let staged = surface.staged.lock().unwrap_or_else(PoisonError::into_inner);
    let find = |name: &String| {
        let file = content(name).ok().and_then(|content| staged.get(&content));
        file.cloned().ok_or_else(|| {
            let detail = format!("no file `{name}` was taken in; `POST /api/v1/files` does that");
            Problem::new(Kind::NoFile, detail)
        })
    };
    names.iter().map(find).collect()
}

/// Files were sent with a message.
pub(super) async fn sent(surface: &Surface, entry: EntryId, files: &[Attachment]) -> Result<(), Problem> {
    for file in files {
        // A message that had been sent before, with other files, is not changed by sending it again.
        if find(surface, entry, file.content).await.is_ok() {
            let noted = surface.node.file_was_sent(entry, file.content).await;
            noted.map_err(file_problem)?;
        }
        let mut staged = surface.staged.lock().unwrap_or_else(PoisonError::into_inner);
        staged.remove(&file.content);
    }
    Ok(())
}

#[utoipa::path(
    get,
    path = "/entries/{id}/files",
    description = "The files of a message, and how much of each is here.",
    params(("id" = String, Path, description = "An entry's id")),
    responses((status = 200, body = Files), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn list(State(surface): State<Surface>, Path(id): Path<String>) -> Result<Json<Files>, Problem> {
    let entry = names::entry(&id)?;
    let (files, room_max) = of_entry(&surface, entry).await?;
    let comes = |file: &&Attachment| file.bytes <= room_max && surface.node.file_comes_unasked(file);
    for file in files.iter().filter(comes) {
        // Begun when its message came, unless that was passed by, or is this very moment; begun once.
        surface
            .node
            .fetch_file(entry, file.content)
            .await
            .map_err(file_problem)?;
    }
    let state = |file: &Attachment| FileState::new(file, room_max, surface.node.file_progress(file));
    Ok(Json(Files {
        entry: id,
        files: files.iter().map(state).collect(),
    }))
}

#[utoipa::path(
    post,
    path = "/entries/{id}/files/{file}/fetch",
    description = "Fetch a file of a message, until it is here. Goes on over restarts.",
    params(("id" = String, Path, description = "An entry's id"), ("file" = String, Path, description = "The file's content id")),
    responses((status = 202, body = FileState), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["send"]))
)]
pub(super) async fn fetch(
    State(surface): State<Surface>,
    Path((id, file)): Path<(String, String)>,
) -> Result<(StatusCode, Json<FileState>), Problem> {
    let (entry, content) = (names::entry(&id)?, content(&file)?);
    let (file, room_max) = find(&surface, entry, content).await?;
    surface.node.fetch_file(entry, content).await.map_err(file_problem)?;
    let state = FileState::new(&file, room_max, surface.node.file_progress(&file));
    Ok((StatusCode::ACCEPTED, Json(state)))
}

#[utoipa::path(
    get,
    path = "/entries/{id}/files/{file}",
    description = "What a file says, once it is here; one range of bytes where asked for (RFC 9110, 14).",
    params(("id" = String, Path, description = "An entry's id"), ("file" = String, Path, description = "The file's content id")),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 206, content_type = "application/octet-stream", body = Vec<u8>),
        (status = "default", body = Problem, content_type = "application/problem+json")
    ),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn read(
    State(surface): State<Surface>,
    Path((id, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (entry, content) = (names::entry(&id)?, content(&file)?);
    let (file, _) = find(&surface, entry, content).await?;
    let reader = surface.node.read_file(&file).await.map_err(file_problem)?;
    let whole = 0..file.bytes;
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let range = asked.map(|asked| range(asked, file.bytes));
    let (status, range) = match range {
        None | Some(Asked::Ignored) => (StatusCode::OK, whole),
        Some(Asked::Part(range)) => (StatusCode::PARTIAL_CONTENT, range),
        Some(Asked::Outside) => {
            let header = [(header::CONTENT_RANGE, format!("bytes */{}", file.bytes))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, header).into_response());
        }
    };
    let length = range.end - range.start;
    let mut response = Response::new(Stream::from_stream(parts(reader, range.clone())));
    *response.status_mut() = status;
    let is_shown = SHOWN.iter().any(|shown| file.media_type.starts_with(shown));
    let kind = if is_shown { &file.media_type } else { UNKNOWN_TYPE };
    let place = if is_shown { "inline" } else { "attachment" };
    let name = utf8_percent_encode(&file.name, NON_ALPHANUMERIC);
    let mut set = vec![
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::CONTENT_DISPOSITION, format!("{place}; filename*=UTF-8''{name}")),
        // The content never changes; the browser asks once.
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable".to_owned()),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        let told = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), file.bytes);
        set.push((header::CONTENT_RANGE, told));
    }
    for (name, value) in set {
        let value = HeaderValue::from_str(&value).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// What of a file is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// Not understood, or several ranges: all of it is an answer, too.
    Ignored,
    Part(Range<u64>),
    Outside,
}

/// `Range` (RFC 9110, 14.2).
fn range(asked: &str, bytes: u64) -> Asked {
    let Some((from, to)) = asked.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Ignored;
    };
    let range = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) if to >= from => from..to.saturating_add(1).min(bytes),
        (Ok(from), Err(_)) if to.trim().is_empty() => from..bytes,
        (Err(_), Ok(last)) if from.trim().is_empty() => bytes.saturating_sub(last)..bytes,
        _ => return Asked::Ignored,
    };
    if range.is_empty() {
        Asked::Outside
    } else {
        Asked::Part(range)
    }
}

/// The bytes of a range, part by part, as fast as they are taken.
fn parts(reader: FileReader, range: Range<u64>) -> impl futures_util::Stream<Item = Result<Bytes, FileProblem>> {
    stream::unfold((reader, range), |(reader, range)| async move {
        if range.is_empty() {
            return None;
        }
        let part = reader.read_at(range.start).await.map(|mut part| {
            let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            part.truncate(left);
            Bytes::from(part)
        });
        let next = match &part {
            Ok(part) if !part.is_empty() => range.start + part.len() as u64..range.end,
            _ => range.end..range.end,
        };
        Some((part, (reader, next)))
    })
}

/// The files of a message, and the largest that its room takes, in bytes.
async fn of_entry(surface: &Surface, entry: EntryId) -> Result<(Vec<Attachment>, u64), Problem> {
    let no_entry = || {
        Problem::new(
            Kind::NoEntry,
            "there is no such entry here; it may not have arrived yet",
        )
    };
    let read = surface.query(move |peer| {
        let view = peer.entry(entry).map_err(storage_problem)?.ok_or_else(no_entry)?;
        let no_room = || Problem::new(Kind::NoRoom, "the room of this message is not here (any more)");
        Ok((view.files, peer.file_limit(entry).ok_or_else(no_room)?))
    });
    read.await
}

async fn find(surface: &Surface, entry: EntryId, content: ContentId) -> Result<(Attachment, u64), Problem> {
    let (files, room_max) = of_entry(surface, entry).await?;
    let found = files.into_iter().find(|file| file.content == content);
    found
        .map(|file| (file, room_max))
        .ok_or_else(|| Problem::new(Kind::NoFile, "this message carries no such file"))
}

fn content(hex: &str) -> Result<ContentId, Problem> {
    let bytes = HEXLOWER.decode(hex.as_bytes()).ok();
    let content = bytes.and_then(|bytes| bytes.try_into().ok()).map(ContentId);
    content.ok_or_else(|| Problem::new(Kind::NoFile, "a file is named by 64 hexadecimal digits"))
}

fn file_problem(problem: FileProblem) -> Problem {
    let detail = problem.to_string();
    match problem {
        FileProblem::Disk(_) => Problem::new(Kind::Storage, detail),
        FileProblem::TooLarge(_) | FileProblem::TooLargeForRoom(_) => Problem::new(Kind::TooLarge, detail),
        FileProblem::NotHere => Problem::new(Kind::NotHere, detail),
        FileProblem::NoFile => Problem::new(Kind::NoFile, detail),
        FileProblem::Node(error) => node_problem(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_rfc() {
        for (asked, part) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=10-", Asked::Part(10..100)),
            ("bytes=90-1000", Asked::Part(90..100)),
            ("bytes=-5", Asked::Part(95..100)),
            ("bytes=-500", Asked::Part(0..100)),
            ("bytes=100-", Asked::Outside),
            ("bytes=-0", Asked::Outside),
            ("bytes=5-3", Asked::Ignored),
            ("bytes=1-2,4-5", Asked::Ignored),
            ("lines=1-2", Asked::Ignored),
            ("bytes=a-b", Asked::Ignored),
        ] {
            assert_eq!(range(asked, 100), part, "{asked}");
        }
    }

    #[test]
    fn a_media_type_is_guessed_or_checked() {
        assert_eq!(media_type("cat.JPG", None).unwrap(), "image/jpeg");
        assert_eq!(media_type("noextension", None).unwrap(), UNKNOWN_TYPE);
        assert_eq!(media_type("x", Some("Text/HTML".into())).unwrap(), "text/html");
        for bad in ["html", "a/b/c", "a/", "text/html; x\r\nSet-Cookie: y"] {
            assert!(media_type("x", Some(bad.into())).is_err(), "{bad}");
        }
    }
}
