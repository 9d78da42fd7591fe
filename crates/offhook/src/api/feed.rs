//! The numbered event log and its stream (server-sent events).
//!
//! Events are written in the transaction that they tell of (`offhook_node::journal`), so their numbers survive restarts of either side. A consumer that
//! comes back with `Last-Event-ID` or `?after=` gets every event since; one that gives its name (`?consumer=`) goes on behind the last event that it
//! acknowledged. If some of those are no longer kept, it first gets `reset`, which means: read anew what you show. A slow consumer
//! holds nothing but its place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::{Extension, Json};
use futures_util::stream::{self, Stream};
use offhook_node::SqliteStore;
use offhook_node::files::FileMoved;
use offhook_node::journal::{events_after, local};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::model::{Acknowledged, Consumer, Consumers, Event, FileStanding, Line, hex};
use super::request::{Body, Path, Query};
use super::{Surface, desk, node_problem, storage_problem};
use crate::access::Grant;
use crate::problem::{Kind, Problem};
use crate::proto::peer::{self, Peer};

/// The most events read at once.
const BATCH_EVENTS: usize = 64;
/// A comment is sent after this long without events, so that a dead consumer is noticed.
const KEEP_ALIVE_S: u64 = 15;
/// A file's progress is told at most this often.
const FILE_EVERY: Duration = Duration::from_millis(200);
/// Consumers whose place is kept.
const CONSUMERS_MAX: usize = 256;
/// The longest name of a consumer, in bytes.
const CONSUMER_BYTES_MAX: usize = 64;
/// The local records of consumers: the name behind it, the number in decimal.
const CONSUMERS: &str = "consumer/";

/// How the node writes an event down.
pub(crate) fn wording(event: &peer::Event) -> Vec<u8> {
    written(&Event::from(event.clone()))
}

/// An event as it is kept.
pub(super) fn written(event: &Event) -> Vec<u8> {
    // Plain data: it has a form always.
    serde_json::to_vec(event).unwrap_or_default()
}

/// From where to stream.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    after: Option<u64>,
    consumer: Option<String>,
}

/// `GET /events`.
#[utoipa::path(
    get,
    path = "/events",
    description = "The numbered event stream (server-sent events).",
    params(Since),
    responses((status = 200, content_type = "text/event-stream", body = Event), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn events(
    State(surface): State<Surface>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
    Query(since): Query<Since>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let newest = *surface.node.newest_event().borrow();
    let kept = match &since.consumer {
        Some(consumer) => Some(place_of(&surface, consumer, newest).await?),
        None => None,
    };
    let place = last_event_id(&headers)?.or(since.after).or(kept).unwrap_or(newest);
    let moves = FileMoves::new(&surface);
    let follower = Follower::new(surface, grant, place);
    let stream = stream::unfold((follower, moves), |(mut follower, mut moves)| async {
        let (number, event) = tokio::select! {
            // What is numbered goes first: a file in a hurry holds up no message.
            biased;
            next = follower.next() => next.map(|(number, event)| (Some(number), event))?,
            moved = moves.next() => (None, moved),
        };
        let data = serde_json::to_string(&event).ok()?;
        let told = sse::Event::default().event(event.name()).data(data);
        let told = match number {
            Some(number) => told.id(number.to_string()),
            None => told,
        };
        Some((Ok(told), (follower, moves)))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(KEEP_ALIVE_S));
    Ok(Sse::new(stream).keep_alive(keep_alive))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    let bad = || {
        Problem::new(
            Kind::BadRequest,
            "`Last-Event-ID` must be the id of an event of this stream: a number",
        )
    };
    number.map(Some).ok_or_else(bad)
}

/// The place that a consumer acknowledged; now, and kept from now on, for one that is new.
async fn place_of(surface: &Surface, consumer: &str, newest: u64) -> Result<u64, Problem> {
    let name = consumer_name(consumer)?;
    let read = name.clone();
    let kept = surface.query(move |peer| local(peer.store(), &read).map_err(storage_problem));
    let kept = kept.await?.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
    match kept {
        Some(place) => Ok(place),
        None => keep_place(surface, name, newest).await.map(|()| newest),
    }
}

async fn keep_place(surface: &Surface, name: String, place: u64) -> Result<(), Problem> {
    let others = desk::kept(surface, CONSUMERS, CONSUMERS_MAX).await?;
    if others.len() >= CONSUMERS_MAX && !others.iter().any(|(known, _)| *known == name) {
        let detail =
            format!("{CONSUMERS_MAX} consumers is the most; forget one (DELETE /api/v1/events/consumers/NAME)");
        return Err(Problem::new(Kind::Limit, detail));
    }
    let change = (name, Some(place.to_string().into_bytes()));
    surface.node.write_local(vec![change], None).await.map_err(node_problem)
}

fn consumer_name(consumer: &str) -> Result<String, Problem> {
    match consumer.len() {
        1..=CONSUMER_BYTES_MAX => Ok(format!("{CONSUMERS}{consumer}")),
        _ => {
            let detail = format!("a consumer's name must be 1 to {CONSUMER_BYTES_MAX} bytes long");
            Err(Problem::new(Kind::Length, detail))
        }
    }
}

/// `PUT /events/consumers/{consumer}`: all up to this event has been dealt with.
#[utoipa::path(
    put,
    path = "/events/consumers/{consumer}",
    description = "All up to an event has been dealt with.",
    params(("consumer" = String, Path, description = "The consumer's name")),
    request_body = Acknowledged,
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn acknowledge(
    State(surface): State<Surface>,
    Path(consumer): Path<String>,
    Body(place): Body<Acknowledged>,
) -> Result<StatusCode, Problem> {
    let name = consumer_name(&consumer)?;
    let newest = *surface.node.newest_event().borrow();
    if place.acknowledged > newest {
        let detail = format!("there is no event {} yet; the newest is {newest}", place.acknowledged);
        return Err(Problem::new(Kind::BadRequest, detail));
    }
    keep_place(&surface, name, place.acknowledged).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /events/consumers`.
#[utoipa::path(
    get,
    path = "/events/consumers",
    description = "Who follows the events, and how far.",
    responses((status = 200, body = Consumers), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn consumers(State(surface): State<Surface>) -> Result<Json<Consumers>, Problem> {
    let kept = desk::kept(&surface, CONSUMERS, CONSUMERS_MAX).await?;
    let consumer = |(name, place): (String, Vec<u8>)| {
        Some(Consumer {
            consumer: name.strip_prefix(CONSUMERS)?.to_owned(),
            acknowledged: String::from_utf8(place).ok()?.parse().ok()?,
        })
    };
    Ok(Json(Consumers {
        newest: *surface.node.newest_event().borrow(),
        consumers: kept.into_iter().filter_map(consumer).collect(),
    }))
}

/// `DELETE /events/consumers/{consumer}`.
#[utoipa::path(
    delete,
    path = "/events/consumers/{consumer}",
    description = "Forget a consumer.",
    params(("consumer" = String, Path, description = "The consumer's name")),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn forget(
    State(surface): State<Surface>,
    Path(consumer): Path<String>,
) -> Result<StatusCode, Problem> {
    let change = (consumer_name(&consumer)?, None);
    surface
        .node
        .write_local(vec![change], None)
        .await
        .map_err(node_problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// One consumer's place in the log.
pub(crate) struct Follower {
    surface: Surface,
    grant: Grant,
    newest: watch::Receiver<u64>,
    revoked: watch::Receiver<()>,
    place: u64,
    batch: VecDeque<(u64, Event)>,
}

impl Follower {
    /// Whoever follows from behind an event on.
    pub(crate) fn new(surface: Surface, grant: Grant, place: u64) -> Self {
        Self {
            newest: surface.node.newest_event(),
            revoked: surface.access.changes(),
            surface,
            grant,
            place,
            batch: VecDeque::new(),
        }
    }

    /// The next event; `None` once the program is about to end, or the key that this was asked for with.
    pub(crate) async fn next(&mut self) -> Option<(u64, Event)> {
        while self.batch.is_empty() {
            if *self.surface.ending.borrow() || !self.surface.access.holds(&self.grant) {
                return None;
            }
            // Marked as seen before reading: what is written in between wakes us.
            self.newest.borrow_and_update();
            let place = self.place;
            let read = self.surface.query(move |peer| read_batch(peer, place));
            self.batch = read.await.ok()?;
            if self.batch.is_empty() {
                tokio::select! {
                    changed = self.newest.changed() => changed.ok()?,
                    changed = self.revoked.changed() => changed.ok()?,
                    ended = self.surface.ending.changed() => ended.ok()?,
                }
            }
        }
        let (number, event) = self.batch.pop_front()?;
        self.place = number;
        Some((number, event))
    }
}

/// What happens to files from here on, for one consumer: each file at most once in [`FILE_EVERY`], as it stands then.
struct FileMoves {
    surface: Surface,
    changes: watch::Receiver<u64>,
    /// The newest change that was looked at.
    seen: u64,
    looked: Instant,
    waiting: VecDeque<Event>,
}

impl FileMoves {
    fn new(surface: &Surface) -> Self {
        let changes = surface.node.file_changes();
        let seen = *changes.borrow();
        Self {
            seen,
            changes,
            surface: surface.clone(),
            looked: Instant::now(),
            waiting: VecDeque::new(),
        }
    }

    /// The next one; may be given up while it is waited for.
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return event;
            }
            while *self.changes.borrow_and_update() == self.seen {
                if self.changes.changed().await.is_err() {
                    // The node has stopped; the numbered events end the stream.
                    return std::future::pending().await;
                }
            }
            tokio::time::sleep_until(self.looked + FILE_EVERY).await;
            self.looked = Instant::now();
            let (seen, moved) = self.surface.node.files_moved(self.seen);
            self.seen = seen;
            self.waiting = moved.iter().flat_map(Event::of_file).collect();
        }
    }
}

/// The events after a place; a `reset` first where some are lost. Each about an entry has the line as it is shown now.
fn read_batch(peer: &Peer<SqliteStore>, place: u64) -> Result<VecDeque<(u64, Event)>, Problem> {
    let passage = events_after(peer.store(), place, BATCH_EVENTS).map_err(storage_problem)?;
    if passage.is_torn {
        return Ok(VecDeque::from([(passage.from, Event::Reset {})]));
    }
    let event = |(number, text): (u64, Vec<u8>)| {
        // What another version wrote and this one does not know is told as something to look at anew.
        let event = serde_json::from_slice(&text).unwrap_or(Event::Reset {});
        Ok((number, with_line(peer, event)?))
    };
    passage.events.into_iter().map(event).collect()
}

fn with_line(peer: &Peer<SqliteStore>, event: Event) -> Result<Event, Problem> {
    let Event::Entry { room, id, new, .. } = event else {
        return Ok(event);
    };
    let view = match id.parse() {
        Ok(entry) => peer.entry(entry).map_err(storage_problem)?,
        Err(_) => None,
    };
    let me = peer.me().person;
    let line = view.map(|view| Box::new(Line::entry(view, &me)));
    Ok(Event::Entry { room, id, new, line })
}

impl Event {
    /// What is told of a file, for each message that it is wanted for.
    fn of_file(moved: &FileMoved) -> impl Iterator<Item = Self> {
        let FileMoved {
            entries,
            content,
            progress,
        } = moved;
        entries.iter().map(|entry| Self::File {
            entry: entry.to_string(),
            file: hex(&content.0),
            here: progress.bytes,
            state: FileStanding::of(progress),
            sources: progress.sources,
            problem: progress.problem.clone(),
        })
    }

    /// Its name in the stream.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Entry { .. } => "entry",
            Self::Room { .. } => "room",
            Self::Draft { .. } => "draft",
            Self::Line { .. } => "line",
            Self::Near { .. } => "near",
            Self::Join { .. } => "join",
            Self::File { .. } => "file",
            Self::Notice { .. } => "notice",
            Self::Reset {} => "reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_can_be_read_again() {
        for event in [
            Event::Notice {
                room: None,
                text: "ü".to_owned(),
            },
            Event::Line {
                device: "ab".to_owned(),
                up: true,
            },
            Event::Reset {},
        ] {
            let text = written(&event);
            let read: Event = serde_json::from_slice(&text).unwrap();
            assert_eq!(written(&read), text);
        }
    }

    #[test]
    fn names_of_consumers_are_bounded() {
        assert_eq!(consumer_name("bot"), Ok("consumer/bot".to_owned()));
        assert!(consumer_name("").is_err());
        assert!(consumer_name(&"x".repeat(65)).is_err());
    }
}
