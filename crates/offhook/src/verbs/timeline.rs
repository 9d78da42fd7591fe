//! `offhook log`, `tail`, `search`, `export`: lines of a timeline.

use std::collections::BTreeSet;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Method;

use super::{Context, Done};
use crate::api::model::{Event, Focus, Found, Line, LineKind, Page, ReadMark, Room};
use crate::client::Target;
use crate::flags::{Log, Search, Tail};
use crate::problem::{Kind, Problem};
use crate::render::Timeline;

/// The most lines that the API gives at once.
const PAGE_LINES_MAX: usize = 1000;
/// How often it is said which room is read.
const OPENED_AGAIN: Duration = Duration::from_secs(60);

pub(super) async fn log(context: &Context, flags: Log) -> Done {
    let lines = newest(context, &flags.room, flags.before.as_deref(), flags.limit).await?;
    show(context, &lines, flags.ids)?;
    if flags.before.is_none() {
        mark_read(context, &lines).await;
    }
    Ok(())
}

/// The newest `limit` lines, or those before an entry, oldest first: as many pages as it takes.
async fn newest(context: &Context, room: &str, before: Option<&str>, limit: usize) -> Result<Vec<Line>, Problem> {
    let mut pages = Vec::new();
    let mut missing = limit;
    let mut cursor = None;
    while missing > 0 {
        let mut target = Target::new(&["rooms", room, "entries"]).with("limit", missing.min(PAGE_LINES_MAX));
        if let Some(cursor) = &cursor {
            target = target.with("cursor", cursor);
        } else if let Some(before) = before {
            target = target.with("before", before);
        }
        let page: Page = context.node.get(target).await?;
        missing = missing.saturating_sub(page.entries.len());
        cursor = page.older;
        pages.push(page.entries);
        if cursor.is_none() {
            break;
        }
    }
    Ok(pages.into_iter().rev().flatten().collect())
}

fn show(context: &Context, lines: &[Line], ids: bool) -> Done {
    if context.out.json {
        return lines.iter().try_for_each(|line| context.out.object(line));
    }
    let mut timeline = Timeline::new(context.out.style, ids);
    timeline.measure(lines);
    lines.iter().try_for_each(|line| context.out.data(&timeline.line(line)))
}

/// What was shown to a person is read. Scripts (`--json`) read nothing; they can say so through the API.
async fn mark_read(context: &Context, lines: &[Line]) {
    let newest = lines.iter().rev().find(|line| line.entry.is_some());
    if let (false, Some(line)) = (context.out.json, newest) {
        let mark = ReadMark { up_to: line.id.clone() };
        // The lines were shown; that a mark could not be set is not worth an error.
        let _ = context
            .node
            .act(Method::POST, Target::new(&["rooms", &line.room, "read"]), Some(&mark))
            .await;
    }
}

pub(super) async fn tail(context: &Context, flags: Tail) -> Done {
    let mut timeline = Timeline::new(context.out.style, flags.ids);
    let mut shown = BTreeSet::new();
    // Shown before their key came: shown again once they can be read.
    let mut sealed = BTreeSet::new();
    // Followed before the past is read: what comes in between is in both, and shown once.
    let mut events = context.node.events().await?;
    let mut only = None;
    if let Some(wanted) = &flags.room {
        let room: Room = context.node.get(Target::new(&["rooms", wanted])).await?;
        let past = newest(context, &room.room, None, flags.limit).await?;
        timeline.measure(&past);
        for line in &past {
            print(context, &mut timeline, line)?;
        }
        mark_read(context, &past).await;
        sealed.extend(past.iter().filter(|l| l.kind == LineKind::Sealed).map(|l| l.id.clone()));
        shown = past.into_iter().map(|line| line.id).collect();
        only = Some(room.room);
    }
    let mut opened = tokio::time::interval(OPENED_AGAIN);
    loop {
        let event = tokio::select! {
            next = next_or_interrupt(&mut events) => match next? {
                Some(event) => event,
                None => return Ok(()),
            },
            _ = opened.tick(), if only.is_some() => {
                say_opened(context, only.as_deref()).await;
                continue;
            }
        };
        match event {
            Event::Entry {
                room,
                new,
                line: Some(line),
                ..
            } => {
                let here = only.as_ref().is_none_or(|only| *only == room);
                let first = new && shown.insert(line.id.clone());
                let opened = line.kind != LineKind::Sealed && sealed.remove(&line.id);
                if line.kind == LineKind::Sealed {
                    sealed.insert(line.id.clone());
                }
                if here && (first || opened || flags.changes) {
                    print(context, &mut timeline, &line)?;
                    mark_read(context, std::slice::from_ref(&line)).await;
                }
            }
            Event::Notice { text, .. } | Event::Near { text: Some(text) } => {
                context.out.talk(&crate::render::clean_line(&text))
            }
            Event::Reset {} => context
                .out
                .talk("some lines may have been passed over; `offhook log` has them all"),
            _ => {}
        }
    }
}

/// The person reads along in a room: it is to have a line.
async fn say_opened(context: &Context, room: Option<&str>) {
    let focus = Focus {
        room: room.map(str::to_owned),
    };
    // Without it, what is said comes later; that is not worth an error.
    let _ = context
        .node
        .act(Method::PUT, Target::new(&["focus"]), Some(&focus))
        .await;
}

/// The next event; `None` when the person presses Ctrl-C. That the node stops is an error.
async fn next_or_interrupt(events: &mut crate::client::Events) -> Result<Option<Event>, Problem> {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(None),
        next = events.next() => match next {
            Ok(Some(event)) => Ok(Some(event)),
            Ok(None) | Err(_) => Err(Problem::new(Kind::NoNode, "the node stopped; start it with `offhook up`")),
        },
    }
}

fn print(context: &Context, timeline: &mut Timeline, line: &Line) -> Done {
    if context.out.json {
        return context.out.object(line);
    }
    timeline.measure([line]);
    context.out.data(&timeline.line(line))
}

pub(super) async fn search(context: &Context, flags: Search) -> Done {
    let mut target = Target::new(&["search"])
        .with("words", flags.words.join(" "))
        .with("limit", flags.limit);
    if let Some(room) = &flags.room {
        target = target.with("room", room);
    }
    let found: Found = context.node.get(target).await?;
    if found.entries.iter().all(|line| line.kind == LineKind::Gap) {
        context.out.talk("nothing found in what is here");
    }
    show(context, &found.entries, flags.ids)
}

pub(super) async fn export(context: &Context, room: &str) -> Done {
    let target = Target::new(&["rooms", room, "export"]);
    let mut body = context.node.stream(Method::GET, target, None::<&()>).await?;
    let mut stdout = tokio::io::stdout();
    while let Some(frame) = body.frame().await {
        let cut_off = |_| Problem::new(Kind::Stopping, "the node stopped; the export is not complete");
        if let Some(bytes) = frame.map_err(cut_off)?.data_ref() {
            tokio::io::AsyncWriteExt::write_all(&mut stdout, bytes).await?;
        }
    }
    tokio::io::AsyncWriteExt::flush(&mut stdout).await?;
    Ok(())
}
