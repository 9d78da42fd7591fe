//! Files of messages: kept on disk, fetched from members, served to members.
//!
//! `shelf` is the disk, `stream` the two ends of a request, `fetch` brings one file in. A file is *wanted* once somebody asked for it, or when its message
//! arrives and it is no larger than what may come unasked; what is wanted is written down, and goes on after a restart. When no message carries
//! a file any more, it is removed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use offhook_proto::crypto::Secret;
use offhook_proto::files::FileAsk;
use offhook_proto::history::{Attachment, ContentId, EntryId, IntervalSet};
use offhook_proto::identity::DeviceId;
use offhook_proto::peer::command::too_large;
use offhook_proto::peer::{Event, Input, Peer};
use offhook_proto::store::StoreError;
use thiserror::Error;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::driver::{self, Message};
use crate::endpoint::Lines;
use crate::home;
use crate::node::NodeError;
use crate::store::SqliteStore;

mod fetch;
mod shelf;
mod stream;

use fetch::blocking;
pub use shelf::Kept;
use shelf::{Opened, Sealing, Shelf};
pub(crate) use stream::serve_line;

/// The largest file that is taken in to be sent, in bytes, unless set otherwise: what a room takes is said by the room.
pub const SEND_BYTES_MAX: u64 = 64_000_000_000;
/// Files whose last changes can be asked for.
const MOVED_MAX: usize = 4_096;
/// The largest file that comes unasked, in bytes, unless set otherwise.
pub const UNASKED_BYTES_MAX: u64 = 1_000_000;
/// Pieces that are served at once, to all.
const SERVING_MAX: usize = 16;
/// Bytes sealed, or opened, at once.
const STEP_BYTES: usize = 256 << 10;

/// What is sent and fetched.
#[derive(Debug, Clone, Copy)]
pub struct FileLimits {
    /// The largest file that can be sent, in bytes.
    pub send_bytes_max: u64,
    /// The largest file that is fetched without being asked for, in bytes; 0 for none.
    pub unasked_bytes_max: u64,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self {
            send_bytes_max: SEND_BYTES_MAX,
            unasked_bytes_max: UNASKED_BYTES_MAX,
        }
    }
}

/// Why something with a file did not work. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FileProblem {
    /// The disk refused.
    #[error("the disk does not take the file: {0}")]
    Disk(String),
    /// Too large.
    #[error("the file is larger than {0} bytes, the most that is sent; see `files_send_max` in the configuration")]
    TooLarge(u64),
    /// The room does not take it.
    #[error("{}", too_large(*.0))]
    TooLargeForRoom(u64),
    /// It is not whole yet.
    #[error("the file is not here yet; fetch it first")]
    NotHere,
    /// The message does not carry it, or is not here.
    #[error("no message here carries this file")]
    NoFile,
    /// The node refused.
    #[error(transparent)]
    Node(#[from] NodeError),
}

impl From<io::Error> for FileProblem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotHere,
            io::ErrorKind::StorageFull => Self::Disk("it is full; make room and try again".to_owned()),
            _ => Self::Disk(error.to_string()),
        }
    }
}

/// How much of a file is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProgress {
    /// Bytes that are here and right.
    pub bytes: u64,
    /// All of it is here.
    pub is_whole: bool,
    /// It is being fetched.
    pub is_fetching: bool,
    /// Members with a line that are asked.
    pub sources: usize,
    /// Why it stands still, where it failed.
    pub problem: Option<String>,
}

/// A file of some messages got further, or stands differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMoved {
    /// The messages that it is wanted for.
    pub entries: Vec<EntryId>,
    /// The file.
    pub content: ContentId,
    /// How much of it is here.
    pub progress: FileProgress,
}

/// When each file changed last, the oldest forgotten first.
#[derive(Debug, Default)]
struct Moves {
    last: BTreeMap<ContentId, u64>,
    in_order: BTreeMap<u64, (ContentId, u64)>,
}

impl Moves {
    fn note(&mut self, number: u64, content: ContentId, bytes: u64) {
        if let Some(before) = self.last.insert(content, number) {
            self.in_order.remove(&before);
        }
        self.in_order.insert(number, (content, bytes));
        if self.in_order.len() > MOVED_MAX
            && let Some((_, (oldest, _))) = self.in_order.pop_first()
        {
            self.last.remove(&oldest);
        }
    }

    /// What changed after a number, with its size.
    fn since(&self, number: u64) -> Vec<(ContentId, u64)> {
        let after = self.in_order.range(number.saturating_add(1)..);
        after.map(|(_, moved)| *moved).collect()
    }
}

/// The files of a node.
#[derive(Debug)]
pub(crate) struct Files {
    shelf: Shelf,
    limits: FileLimits,
    inbox: mpsc::Sender<Message>,
    lines: Lines,
    state: Mutex<State>,
    /// Grows with whatever happens to a file.
    changed: watch::Sender<u64>,
    serving: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    /// The messages of each file that is here, or to be here.
    entries: BTreeMap<ContentId, Vec<EntryId>>,
    fetching: BTreeMap<ContentId, Fetching>,
    problems: BTreeMap<ContentId, String>,
    slots: BTreeMap<DeviceId, Arc<Semaphore>>,
    moves: Moves,
}

#[derive(Debug)]
struct Fetching {
    task: Option<AbortHandle>,
    have: IntervalSet,
    bytes: u64,
    sources: usize,
}

impl Files {
    pub(crate) fn open(
        home: &Path,
        limits: FileLimits,
        inbox: mpsc::Sender<Message>,
        lines: Lines,
    ) -> io::Result<Arc<Self>> {
        let (shelf, entries) = Shelf::open(home)?;
        Ok(Arc::new(Self {
            shelf,
            limits,
            inbox,
            lines,
            state: Mutex::new(State {
                entries,
                ..State::default()
            }),
            changed: watch::Sender::new(0),
            serving: Semaphore::new(SERVING_MAX),
        }))
    }

    /// Where the peer is told things.
    pub(crate) fn inbox(&self) -> mpsc::Sender<Message> {
        self.inbox.clone()
    }

    /// The lines that files go over.
    pub(crate) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    /// Goes on with what was wanted, and then follows what is said and taken back, until the node stops.
    pub(crate) async fn run(self: Arc<Self>, events: broadcast::Receiver<Event>, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow(events) => {}
            // Also when the sender is gone: then nobody can ask for anything any more.
            _ = stopping.wait_for(|stop| *stop) => {}
        }
        for fetching in std::mem::take(&mut self.state().fetching).into_values() {
            if let Some(task) = fetching.task {
                task.abort();
            }
        }
    }

    async fn follow(self: &Arc<Self>, mut events: broadcast::Receiver<Event>) {
        let wanted = self.state().entries.clone();
        for (content, entries) in wanted {
            for entry in entries {
                self.look_again(entry, content).await;
            }
        }
        loop {
            match events.recv().await {
                Ok(Event::Entry { id, new, .. }) => self.entry_changed(id, new).await,
                Ok(_) => {}
                // What was missed can still be asked for by hand, and what was taken back goes at the next start.
                Err(broadcast::error::RecvError::Lagged(missed)) => tracing::debug!(missed, "events passed by files"),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    async fn entry_changed(self: &Arc<Self>, id: EntryId, new: bool) {
        if new {
            let (files, room_max) = self
                .query(move |peer| Ok((files_of(peer, id)?, peer.file_limit(id))))
                .await
                .unwrap_or_default();
            let fits = |file: &Attachment| self.comes_unasked(file) && fits_room(file, room_max);
            for file in files.into_iter().filter(fits) {
                if let Err(error) = self.want(id, file.content).await {
                    tracing::warn!(%error, "a file is not fetched");
                }
            }
            return;
        }
        for content in self.contents_of(id) {
            self.look_again(id, content).await;
        }
    }

    /// Whether a file is fetched without being asked for.
    pub(crate) fn comes_unasked(&self, file: &Attachment) -> bool {
        file.bytes <= self.limits.unasked_bytes_max
    }

    fn contents_of(&self, id: EntryId) -> Vec<ContentId> {
        let state = self.state();
        let of_it = state.entries.iter().filter(|(_, entries)| entries.contains(&id));
        of_it.map(|(content, _)| *content).collect()
    }

    /// Fetches a file that is wanted and not here; lets go of one that its message does not carry any more.
    async fn look_again(self: &Arc<Self>, entry: EntryId, content: ContentId) {
        match self.attachment(entry, content).await {
            // What the room does not take any more is not fetched on, and not lost sight of.
            Ok(Some((file, room_max))) if !fits_room(&file, room_max) => {}
            Ok(Some((file, _))) => self.start(entry, &file),
            Ok(None) => {
                if let Err(error) = self.let_go(entry, content).await {
                    tracing::warn!(%error, "a file is not removed");
                }
            }
            // Nothing is removed on a doubt.
            Err(error) => tracing::debug!(%error, "not known whether a file is still wanted"),
        }
    }

    /// Fetches a file of a message, and goes on doing so over restarts.
    pub(crate) async fn want(self: &Arc<Self>, entry: EntryId, content: ContentId) -> Result<(), FileProblem> {
        let (file, room_max) = self.attachment(entry, content).await?.ok_or(FileProblem::NoFile)?;
        if !self.shelf.is_whole(&content) && !fits_room(&file, room_max) {
            return Err(FileProblem::TooLargeForRoom(room_max.unwrap_or(0)));
        }
        self.carried_by(entry, content).await?;
        self.start(entry, &file);
        Ok(())
    }

    /// Writes down that a message carries a file that is here, or is to be.
    pub(crate) async fn carried_by(&self, entry: EntryId, content: ContentId) -> Result<(), FileProblem> {
        let entries = {
            let mut state = self.state();
            let entries = state.entries.entry(content).or_default();
            if entries.contains(&entry) {
                return Ok(());
            }
            entries.push(entry);
            entries.clone()
        };
        let shelf = self.shelf.clone();
        blocking(move || shelf.set_entries(&content, &entries)).await
    }

    async fn let_go(&self, entry: EntryId, content: ContentId) -> Result<(), FileProblem> {
        let (left, bytes) = {
            let mut state = self.state();
            let Some(entries) = state.entries.get_mut(&content) else {
                return Ok(());
            };
            entries.retain(|carrier| *carrier != entry);
            let left = entries.clone();
            let mut bytes = 0;
            if left.is_empty() {
                state.entries.remove(&content);
                if let Some(fetching) = state.fetching.remove(&content) {
                    bytes = fetching.bytes;
                    fetching.task.iter().for_each(AbortHandle::abort);
                }
            }
            (left, bytes)
        };
        self.tell_change(content, bytes);
        let shelf = self.shelf.clone();
        blocking(move || {
            if left.is_empty() {
                shelf.remove(&content)
            } else {
                shelf.set_entries(&content, &left)
            }
        })
        .await
    }

    fn start(self: &Arc<Self>, entry: EntryId, file: &Attachment) {
        let content = file.content;
        let mut state = self.state();
        if self.shelf.is_whole(&content) || state.fetching.contains_key(&content) {
            return;
        }
        state.problems.remove(&content);
        state.fetching.insert(
            content,
            Fetching {
                task: None,
                have: IntervalSet::default(),
                bytes: file.bytes,
                sources: 0,
            },
        );
        let files = self.clone();
        let running = tokio::spawn(async move {
            let outcome = fetch::run(&files, entry, content).await;
            files.ended(content, outcome.as_ref().err());
            if matches!(outcome, Ok(false))
                && let Err(error) = files.let_go(entry, content).await
            {
                tracing::warn!(%error, "a file is not removed");
            }
        });
        if let Some(fetching) = state.fetching.get_mut(&content) {
            fetching.task = Some(running.abort_handle());
        }
        drop(state);
        self.tell_change(content, file.bytes);
    }

    fn ended(&self, content: ContentId, problem: Option<&FileProblem>) {
        let mut state = self.state();
        let bytes = state.fetching.remove(&content).map_or(0, |fetching| fetching.bytes);
        if let Some(problem) = problem {
            tracing::warn!(%problem, "a file is not fetched");
            state.problems.insert(content, problem.to_string());
        }
        drop(state);
        self.tell_change(content, bytes);
    }

    fn note(&self, file: &Attachment, have: &IntervalSet, sources: usize) {
        let mut state = self.state();
        let Some(fetching) = state.fetching.get_mut(&file.content) else {
            return;
        };
        let is_news = fetching.have != *have || fetching.sources != sources;
        fetching.have = have.clone();
        fetching.sources = sources;
        drop(state);
        if is_news {
            self.tell_change(file.content, file.bytes);
        }
    }

    pub(crate) fn progress(&self, file: &Attachment) -> FileProgress {
        self.progress_of(&self.state(), file.content, file.bytes)
    }

    fn progress_of(&self, state: &State, content: ContentId, bytes: u64) -> FileProgress {
        let is_whole = self.shelf.is_whole(&content);
        let fetching = state.fetching.get(&content);
        let here = fetching.map_or(0, |fetching| bytes_of(&fetching.have, fetching.bytes));
        FileProgress {
            bytes: if is_whole { bytes } else { here },
            is_whole,
            is_fetching: fetching.is_some() && !is_whole,
            sources: fetching.map_or(0, |fetching| fetching.sources),
            problem: state.problems.get(&content).cloned().filter(|_| !is_whole),
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The number of the newest change, and what has changed since the one with this number, each file once.
    pub(crate) fn moved_since(&self, number: u64) -> (u64, Vec<FileMoved>) {
        let state = self.state();
        let newest = *self.changed.borrow();
        let moved = state.moves.since(number).into_iter().map(|(content, bytes)| FileMoved {
            entries: state.entries.get(&content).cloned().unwrap_or_default(),
            content,
            progress: self.progress_of(&state, content, bytes),
        });
        (newest, moved.collect())
    }

    /// Begins to take a file in.
    pub(crate) async fn begin(self: &Arc<Self>) -> Result<FileWriter, FileProblem> {
        let seed = home::random_bytes().map_err(|error| FileProblem::Disk(error.to_string()))?;
        let shelf = self.shelf.clone();
        let sealing = blocking(move || shelf.begin(Secret(seed))).await?;
        Ok(FileWriter {
            sealing: Some(sealing),
            waiting: Vec::new(),
            bytes_max: self.limits.send_bytes_max,
        })
    }

    /// Opens a file that is whole.
    pub(crate) async fn read(&self, file: &Attachment) -> Result<FileReader, FileProblem> {
        let (shelf, file) = (self.shelf.clone(), file.clone());
        let opened = blocking(move || shelf.read(&file.content, file.key, file.bytes)).await?;
        Ok(FileReader {
            opened: Arc::new(opened),
        })
    }

    fn slots(&self, peer: DeviceId) -> Arc<Semaphore> {
        let mut state = self.state();
        // Slots that nobody holds are as good as new.
        state.slots.retain(|_, slots| Arc::strong_count(slots) > 1);
        state.slots.entry(peer).or_insert_with(fetch::new_slots).clone()
    }

    /// The pieces that are here and may be served.
    fn held(&self, file: &Attachment) -> IntervalSet {
        if self.shelf.is_whole(&file.content) {
            return stream::all_pieces(file);
        }
        let state = self.state();
        state
            .fetching
            .get(&file.content)
            .map(|fetching| fetching.have.clone())
            .unwrap_or_default()
    }

    async fn allowed(&self, peer: DeviceId, ask: FileAsk) -> Option<Attachment> {
        let asked = self.query(move |node| node.file_for(peer, &ask)).await;
        asked.ok().flatten()
    }

    /// What a message says of a file, and how large a file its room takes.
    async fn attachment(
        &self,
        entry: EntryId,
        content: ContentId,
    ) -> Result<Option<(Attachment, Option<u64>)>, FileProblem> {
        self.query(move |peer| {
            let file = peer.attachment(entry, content)?;
            Ok(file.map(|file| (file, peer.file_limit(entry))))
        })
        .await
    }

    async fn sources(&self, entry: EntryId) -> Result<Vec<(DeviceId, bool)>, FileProblem> {
        self.query(move |peer| peer.file_sources(entry)).await
    }

    async fn try_peer(&self, peer: DeviceId) {
        // The node may be stopping.
        let _ = self.inbox.send(Message::Input(Input::TryPeer { peer })).await;
    }

    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Peer<SqliteStore>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, FileProblem> {
        let (answer, answered) = oneshot::channel();
        let run: driver::Query = Box::new(move |peer| {
            let result = peer.and_then(|peer| ask(peer).map_err(driver::storage_error));
            // The asker may have gone away.
            let _ = answer.send(result);
        });
        let sent = self.inbox.send(Message::Query(run)).await;
        sent.map_err(|_| NodeError::Stopped)?;
        Ok(answered.await.map_err(|_| NodeError::Stopped)??)
    }

    fn tell_change(&self, content: ContentId, bytes: u64) {
        let mut state = self.state();
        // Numbered while the state is held: whoever asks by number sees all of them up to it.
        self.changed.send_modify(|count| {
            *count = count.wrapping_add(1);
            state.moves.note(*count, content, bytes);
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fits_room(file: &Attachment, room_max: Option<u64>) -> bool {
    room_max.is_none_or(|most| file.bytes <= most)
}

fn files_of(peer: &Peer<SqliteStore>, id: EntryId) -> Result<Vec<Attachment>, StoreError> {
    Ok(peer.entry(id)?.map(|view| view.files).unwrap_or_default())
}

fn bytes_of(have: &IntervalSet, bytes: u64) -> u64 {
    let of = |(from, to): &(u32, u32)| {
        let first = offhook_proto::files::piece_range(*from, bytes).start;
        offhook_proto::files::piece_range(*to, bytes).end - first
    };
    have.ranges().iter().map(of).sum()
}

/// A file that is being taken in, part by part. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct FileWriter {
    sealing: Option<Sealing>,
    waiting: Vec<u8>,
    bytes_max: u64,
}

impl FileWriter {
    /// Takes the next part.
    pub async fn write(&mut self, part: &[u8]) -> Result<(), FileProblem> {
        let so_far = self.sealing.as_ref().map_or(0, Sealing::bytes);
        if so_far + (self.waiting.len() + part.len()) as u64 > self.bytes_max {
            return Err(FileProblem::TooLarge(self.bytes_max));
        }
        self.waiting.extend_from_slice(part);
        if self.waiting.len() >= STEP_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    /// All of it is there.
    pub async fn finish(mut self) -> Result<Kept, FileProblem> {
        self.flush().await?;
        let sealing = self.sealing.take().ok_or(FileProblem::NotHere)?;
        blocking(move || sealing.finish()).await
    }

    async fn flush(&mut self) -> Result<(), FileProblem> {
        let mut sealing = self.sealing.take().ok_or(FileProblem::NotHere)?;
        let mut waiting = std::mem::take(&mut self.waiting);
        let (sealing, written) = blocking(move || {
            let written = sealing.write(&mut waiting);
            Ok((sealing, written))
        })
        .await?;
        self.sealing = Some(sealing);
        Ok(written?)
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if let Some(sealing) = self.sealing.take() {
            sealing.abandon();
        }
    }
}

/// A whole file, to be read.
#[derive(Debug, Clone)]
pub struct FileReader {
    opened: Arc<Opened>,
}

impl FileReader {
    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.opened.bytes
    }

    /// What it says from `at` on: at most 256 KiB, empty at its end.
    pub async fn read_at(&self, at: u64) -> Result<Vec<u8>, FileProblem> {
        let opened = self.opened.clone();
        blocking(move || opened.read_at(at, STEP_BYTES)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_told_once_with_its_newest_change_and_the_oldest_are_forgotten() {
        let content = |n: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            ContentId(id)
        };
        let mut moves = Moves::default();
        for number in 1..=10 {
            moves.note(number, content(number % 2), number);
        }
        assert_eq!(moves.since(0), [(content(1), 9), (content(0), 10)]);
        assert_eq!(moves.since(9), [(content(0), 10)]);
        assert_eq!(moves.since(10), []);
        for number in 11..11 + 2 * MOVED_MAX as u64 {
            moves.note(number, content(number), 1);
        }
        assert_eq!((moves.last.len(), moves.in_order.len()), (MOVED_MAX, MOVED_MAX));
    }
}
