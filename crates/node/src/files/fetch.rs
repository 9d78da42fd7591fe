//! Bringing one file in: the pure [`Fetch`] decides, this asks over the lines that are up, checks, and writes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use iroh::endpoint::Connection;
use offhook_proto::files::fetch::PIECES_PER_SOURCE;
use offhook_proto::files::{Failure, Fetch, FileAsk, Order, piece_count};
use offhook_proto::history::{ContentId, EntryId};
use offhook_proto::identity::DeviceId;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::shelf::Part;
use super::stream::{ask_held, ask_piece};
use super::{FileProblem, Files};
use crate::endpoint::locked;

/// How often it is looked who has a line.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What came of a request.
enum Answer {
    Held(DeviceId, Result<Vec<offhook_proto::files::frame::PieceRange>, Failure>),
    Piece(DeviceId, u32, Result<(), Failure>),
    /// The disk does not take it.
    Disk(io::Error),
}

/// Fetches until all is here. Returns `Ok(false)` where no message carries the file any more.
pub(super) async fn run(files: &Arc<Files>, entry: EntryId, content: ContentId) -> Result<bool, FileProblem> {
    let Some((file, _)) = files.attachment(entry, content).await? else {
        return Ok(false);
    };
    let shelf = files.shelf.clone();
    let opening = move || shelf.open_part(&content, file.bytes);
    let (part, have) = blocking(opening).await?;
    let part = Arc::new(Mutex::new(part));
    let mut fetch = Fetch::new(piece_count(file.bytes), have);
    let mut requests = JoinSet::new();
    let mut look_at = Instant::now();
    while !fetch.is_complete() {
        let now = Instant::now();
        if look_at <= now {
            look_at = now + LOOK_EVERY;
            if files.attachment(entry, content).await?.is_none() {
                return Ok(false);
            }
            fetch.set_members(&files.sources(entry).await?);
        }
        for order in fetch.poll(now) {
            match order {
                Order::Meet(peer) => files.try_peer(peer).await,
                Order::AskHeld(peer) => ask_which(files, &mut requests, peer, (entry, content)),
                Order::AskPiece(peer, piece) => ask_for(files, &mut requests, peer, piece, (entry, content), &part),
            }
        }
        files.note(&file, fetch.have(), fetch.sources().count());
        let due = fetch.poll_timeout().map_or(look_at, |due| due.min(look_at));
        tokio::select! {
            Some(answer) = requests.join_next() => {
                let answer = answer.map_err(|error| FileProblem::Disk(error.to_string()))?;
                take(&mut fetch, answer)?;
            }
            () = tokio::time::sleep_until(due.into()) => {}
        }
    }
    files.note(&file, fetch.have(), 0);
    drop(requests);
    let shelf = files.shelf.clone();
    blocking(move || shelf.finish(&content, &part.lock().unwrap_or_else(PoisonError::into_inner))).await?;
    Ok(true)
}

/// Asks a source what it holds.
fn ask_which(files: &Files, requests: &mut JoinSet<Answer>, peer: DeviceId, (entry, content): (EntryId, ContentId)) {
    let line = locked(&files.lines).get(&peer).cloned();
    requests.spawn(async move {
        match line {
            Some(line) => Answer::Held(peer, ask_held(&line, FileAsk::Held { entry, content }).await),
            None => Answer::Held(peer, Err(Failure::Broken)),
        }
    });
}

/// Asks a source for a piece.
fn ask_for(
    files: &Files,
    requests: &mut JoinSet<Answer>,
    peer: DeviceId,
    piece: u32,
    (entry, content): (EntryId, ContentId),
    part: &Arc<Mutex<Part>>,
) {
    let line = locked(&files.lines).get(&peer).cloned();
    let (slots, part) = (files.slots(peer), part.clone());
    let ask = FileAsk::Piece { entry, content, piece };
    requests.spawn(async move {
        match line {
            Some(line) => piece_of(peer, &line, ask, piece, &slots, part).await,
            None => Answer::Piece(peer, piece, Err(Failure::Broken)),
        }
    });
}

async fn piece_of(
    peer: DeviceId,
    line: &Connection,
    ask: FileAsk,
    piece: u32,
    slots: &Semaphore,
    part: Arc<Mutex<Part>>,
) -> Answer {
    let asked = match slots.acquire().await {
        Ok(_slot) => ask_piece(line, ask).await,
        Err(_) => Err(Failure::Broken),
    };
    let slice = match asked {
        Ok(slice) => slice,
        Err(why) => return Answer::Piece(peer, piece, Err(why)),
    };
    let put = move || part.lock().unwrap_or_else(PoisonError::into_inner).put(piece, &slice);
    match tokio::task::spawn_blocking(put).await {
        Ok(Ok(())) => Answer::Piece(peer, piece, Ok(())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::info!(?peer, piece, "a peer sent wrong bytes for a file");
            Answer::Piece(peer, piece, Err(Failure::Wrong))
        }
        Ok(Err(error)) => Answer::Disk(error),
        Err(_) => Answer::Piece(peer, piece, Err(Failure::Broken)),
    }
}

fn take(fetch: &mut Fetch, answer: Answer) -> Result<(), FileProblem> {
    let now = Instant::now();
    match answer {
        Answer::Held(peer, Ok(pieces)) => fetch.held(&peer, &pieces, now),
        Answer::Held(peer, Err(why)) => fetch.failed(&peer, None, why, now),
        Answer::Piece(_, piece, Ok(())) => {
            fetch.arrived(piece);
        }
        Answer::Piece(peer, piece, Err(why)) => fetch.failed(&peer, Some(piece), why, now),
        Answer::Disk(error) => return Err(error.into()),
    }
    Ok(())
}

/// How many pieces of all files together are asked of one peer at once.
pub(super) fn new_slots() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(PIECES_PER_SOURCE))
}

/// Runs what waits for the disk on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, FileProblem> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| FileProblem::Disk(error.to_string()))??)
}
