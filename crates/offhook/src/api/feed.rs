//! The numbered event log and its stream (server-sent events).
//!
//! The last [`EVENTS_HELD_MAX`] events are held in memory under consecutive numbers. The first number of a run is the time of its start in microseconds,
//! so numbers grow across restarts too (unless the clock was set back; then the next rule holds). A consumer that comes back with `Last-Event-ID` or `?after=`
//! gets every event since; if some are no longer held, it first gets `reset`, which means: read anew what you show. What is not
//! held: the events of an earlier run. A slow consumer holds nothing but its place in the ring.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use offhook_node::{EventStream, Happening};
use serde::Deserialize;
use tokio::sync::watch;

use super::Surface;
use super::model::{Event, Line};
use super::request::Query;
use crate::problem::{Kind, Problem};

/// The most events held for those who come back.
const EVENTS_HELD_MAX: usize = 4096;
/// The most events taken from the ring at once.
const BATCH_EVENTS: usize = 64;
/// A comment is sent after this long without events, so that a dead consumer is noticed.
const KEEP_ALIVE_S: u64 = 15;

/// The ring of the newest events.
#[derive(Clone)]
pub(crate) struct Feed {
    ring: Arc<Mutex<Ring>>,
    newest: Arc<watch::Sender<u64>>,
}

struct Ring {
    /// The number of the first event in `events`.
    first: u64,
    events: VecDeque<Event>,
}

impl Ring {
    /// The number of the newest event ever added.
    fn newest(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }

    /// The events after `place`, at most [`BATCH_EVENTS`]; a `reset` first where some are lost.
    fn after(&self, place: u64) -> Vec<(u64, Event)> {
        let lost = place + 1 < self.first || place > self.newest();
        if lost {
            // The number before the oldest event held: whoever comes back with it gets all that is held.
            return vec![(self.first - 1, Event::Reset {})];
        }
        let skipped = usize::try_from(place + 1 - self.first).unwrap_or(usize::MAX);
        let fresh = self.events.iter().skip(skipped).take(BATCH_EVENTS);
        (place + 1..).zip(fresh.cloned()).collect()
    }
}

impl Feed {
    /// An empty feed.
    pub(crate) fn new() -> Self {
        let start = jiff::Timestamp::now().as_microsecond();
        let first = u64::try_from(start).unwrap_or(0).max(1);
        let ring = Ring {
            first,
            events: VecDeque::new(),
        };
        Self {
            newest: Arc::new(watch::Sender::new(ring.newest())),
            ring: Arc::new(Mutex::new(ring)),
        }
    }

    fn push(&self, event: Event) {
        let mut ring = self.lock();
        if ring.events.len() == EVENTS_HELD_MAX {
            ring.events.pop_front();
            ring.first += 1;
        }
        ring.events.push_back(event);
        self.newest.send_replace(ring.newest());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        // Nothing that holds the lock can panic half-way.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers what the node tells, until it stops.
pub(super) async fn fill(feed: Feed, mut events: EventStream) {
    while let Some(happening) = events.next().await {
        feed.push(match happening {
            Happening::Event(event) => event.into(),
            Happening::Gap { .. } => Event::Reset {},
        });
    }
}

/// From where to stream.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Since {
    after: Option<u64>,
}

/// `GET /events`.
pub(super) async fn events(
    State(surface): State<Surface>,
    headers: HeaderMap,
    Query(since): Query<Since>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let resumed = last_event_id(&headers)?.or(since.after);
    let place = resumed.unwrap_or_else(|| surface.feed.lock().newest());
    let follower = Follower {
        newest: surface.feed.newest.subscribe(),
        surface,
        place,
        batch: VecDeque::new(),
    };
    let stream = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok(event), follower))
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

/// One consumer's place in the feed.
struct Follower {
    surface: Surface,
    newest: watch::Receiver<u64>,
    place: u64,
    batch: VecDeque<(u64, Event)>,
}

impl Follower {
    /// The next event; `None` once the program is about to end.
    async fn next(&mut self) -> Option<sse::Event> {
        while self.batch.is_empty() {
            if *self.surface.ending.borrow() {
                return None;
            }
            // Marked as seen before reading: what is pushed in between wakes us.
            self.newest.borrow_and_update();
            self.batch = self.surface.feed.lock().after(self.place).into();
            if self.batch.is_empty() {
                tokio::select! {
                    changed = self.newest.changed() => changed.ok()?,
                    ended = self.surface.ending.changed() => ended.ok()?,
                }
            }
        }
        let (number, event) = self.batch.pop_front()?;
        self.place = number;
        let event = self.with_line(event).await;
        let data = serde_json::to_string(&event).ok()?;
        Some(
            sse::Event::default()
                .id(number.to_string())
                .event(event.name())
                .data(data),
        )
    }

    /// Adds the line to an event about an entry, as it is shown now.
    async fn with_line(&self, event: Event) -> Event {
        let Event::Entry { room, id, new, .. } = event else {
            return event;
        };
        let found = match id.parse() {
            Err(_) => None,
            Ok(entry) => {
                let read = self.surface.query(move |peer| {
                    let me = peer.me().person;
                    let view = peer.entry(entry).map_err(super::storage_problem)?;
                    Ok(view.map(|view| Box::new(Line::entry(view, &me))))
                });
                read.await.ok().flatten()
            }
        };
        Event::Entry {
            room,
            id,
            new,
            line: found,
        }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Entry { .. } => "entry",
            Self::Room { .. } => "room",
            Self::Line { .. } => "line",
            Self::Join { .. } => "join",
            Self::Notice { .. } => "notice",
            Self::Reset {} => "reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(n: usize) -> Event {
        Event::Notice {
            room: None,
            text: n.to_string(),
        }
    }

    fn texts(batch: &[(u64, Event)]) -> Vec<String> {
        let text = |event: &Event| match event {
            Event::Notice { text, .. } => text.clone(),
            other => other.name().to_owned(),
        };
        batch.iter().map(|(_, event)| text(event)).collect()
    }

    #[test]
    fn whoever_comes_back_gets_what_came_since() {
        let feed = Feed::new();
        let start = feed.lock().newest();
        (0..3).for_each(|n| feed.push(notice(n)));
        let ring = feed.lock();
        assert_eq!(texts(&ring.after(start)), ["0", "1", "2"]);
        assert_eq!(texts(&ring.after(start + 2)), ["2"]);
        assert_eq!(texts(&ring.after(start + 3)), [""; 0]);
    }

    #[test]
    fn what_is_no_longer_held_is_said() {
        let feed = Feed::new();
        let start = feed.lock().newest();
        (0..EVENTS_HELD_MAX + 2).for_each(|n| feed.push(notice(n)));
        let ring = feed.lock();
        let reset = ring.after(start);
        assert_eq!(texts(&reset), ["reset"]);
        assert_eq!(texts(&ring.after(reset[0].0))[0], "2", "the oldest held comes next");
        assert_eq!(texts(&ring.after(u64::MAX - 1)), ["reset"], "a number from the future");
    }
}
