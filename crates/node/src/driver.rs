//! The only event loop: inputs in, one transaction for a batch of them, outputs after the commit.
//!
//! Runs on a thread of its own. A batch is whatever waits in the inbox, at most [`BATCH_INPUTS_MAX`]; queries run between
//! transactions, in order with the commands around them. When the store fails, everything of the batch is rolled back, those who wait for an
//! answer are told, the lines are closed, and the peer is opened again from the store. While that does not work, commands fail with the reason, queries
//! go on where the store can be read, and the store is tried again with growing pauses, and at once when a command comes.
//!
//! Every line has a generation. A frame or a decision that belongs to an earlier line to the same device is dropped: keys are bound to the
//! connection.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use offhook_proto::identity::DeviceId;
use offhook_proto::overlay::ledger::Limits;
use offhook_proto::peer::{Command, Event, Input, Output, Peer, Reply, Secrets};
use offhook_proto::store::StoreError;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};

use crate::dht;
use crate::endpoint::Order;
use crate::home::{self, Home};
use crate::journal::{self, LocalChange, Numbering, Wording};
use crate::node::NodeError;
use crate::store::SqliteStore;

/// Inputs in one transaction.
const BATCH_INPUTS_MAX: usize = 256;
/// How often the peer is told the wall clock.
const WALL_CLOCK_PERIOD: Duration = Duration::from_secs(5);
/// The wall clock and the monotonic clock differing by more than this since the last look is a step.
const STEP: Duration = Duration::from_millis(500);
/// A jump or a stall longer than this means that the machine slept: every peer is tried again.
const SLEPT: Duration = Duration::from_secs(25);
/// The first pause before a failed store is tried again; doubled up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// A failed store is not tried again sooner than this, even when commands come.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause before a failed store is tried again.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A deadline that is always due may not spin the loop faster than this.
const TIMEOUT_PAUSE: Duration = Duration::from_millis(1);

/// A closure that reads the peer, or is told why it cannot.
pub(crate) type Query = Box<dyn FnOnce(Result<&Peer<SqliteStore>, NodeError>) + Send>;
/// A closure that works on the store, or is told why it cannot.
pub(crate) type StoreWork = Box<dyn FnOnce(Result<&mut SqliteStore, NodeError>) + Send>;

/// What reaches the driver.
pub(crate) enum Message {
    /// From the person.
    Command {
        command: Command,
        answer: oneshot::Sender<Result<Reply, NodeError>>,
    },
    /// From the person, reading only.
    Query(Query),
    /// For backups and checks.
    Store(StoreWork),
    /// Local records of the surfaces, and an event that tells of them.
    Local {
        changes: Vec<LocalChange>,
        event: Option<Vec<u8>>,
        answer: oneshot::Sender<Result<(), NodeError>>,
    },
    /// From the network, where no line is concerned.
    Input(Input),
    /// A line came up.
    LineUp {
        peer: DeviceId,
        generation: u64,
        exporter: [u8; 32],
        address: Option<std::net::SocketAddr>,
    },
    /// A line is gone.
    LineDown { peer: DeviceId, generation: u64 },
    /// A frame arrived. The permit bounds the bytes that wait.
    Frame {
        peer: DeviceId,
        generation: u64,
        bytes: Vec<u8>,
        _permit: OwnedSemaphorePermit,
    },
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) home: Home,
    pub(crate) secrets: Secrets,
    pub(crate) name: String,
    pub(crate) inbox: mpsc::Receiver<Message>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) flows: Limits,
    /// Where the DHT is asked, if it may be.
    pub(crate) dht: Option<dht::Line>,
    /// How events are written down; without it they are not.
    pub(crate) wording: Option<Wording>,
    /// The number of the newest event that is written down.
    pub(crate) newest_event: watch::Sender<u64>,
    /// The name that is announced nearby.
    pub(crate) announced: watch::Sender<Option<String>>,
}

pub(crate) struct Driver {
    parts: Parts,
    state: State,
    clock: Clocks,
    desk: Desk,
    numbering: Numbering,
    timeout_at: Option<Instant>,
}

type OpenPeer = Box<Peer<SqliteStore>>;

enum State {
    Open(OpenPeer),
    Failing(Failure),
}

/// The store does not take writes.
struct Failure {
    why: String,
    /// For queries only, where the store can at least be read.
    peer: Option<OpenPeer>,
    tried_at: Instant,
    retry_at: Instant,
    pause: Duration,
}

/// What the driver itself remembers between the outside and the peer.
#[derive(Default)]
struct Desk {
    last_id: u64,
    answers: BTreeMap<u64, oneshot::Sender<Result<Reply, NodeError>>>,
    /// The generation of each line that the peer knows to be up.
    lines: BTreeMap<DeviceId, u64>,
    /// Told again to a peer that was reopened.
    own_addresses: Option<Input>,
}

/// An output, and the generation of the line that it was decided for.
type Decision = (Output, Option<u64>);

impl Driver {
    /// Opens the peer. Fails as the store fails.
    pub(crate) fn open(parts: Parts) -> Result<Self, StoreError> {
        let peer = open_peer(&parts)?;
        let numbering = Numbering::read(peer.store())?;
        parts.newest_event.send_replace(numbering.newest());
        Ok(Self {
            numbering,
            parts,
            state: State::Open(Box::new(peer)),
            clock: Clocks::new(),
            desk: Desk::default(),
            timeout_at: None,
        })
    }

    /// Runs until the node stops.
    pub(crate) fn run(mut self) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "the driver has no timer");
                return;
            }
        };
        self.process(self.parts.first_inputs().map(Message::Input).into());
        while let Some(mut batch) = runtime.block_on(self.next_batch()) {
            self.add_clock_inputs(&mut batch);
            self.process(batch);
        }
    }

    /// Waits for messages or the next deadline, and takes what is there. None when the node stops.
    async fn next_batch(&mut self) -> Option<Vec<Message>> {
        let deadline = self.deadline();
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            // Also when the sender is gone: then nobody can ask for anything any more.
            _ = self.parts.stopping.wait_for(|stop| *stop) => None,
            count = self.parts.inbox.recv_many(&mut batch, BATCH_INPUTS_MAX) => (count > 0).then_some(batch),
            () = tokio::time::sleep_until(deadline.into()) => Some(batch),
        }
    }

    fn deadline(&self) -> Instant {
        let due = match &self.state {
            State::Open(_) => self.timeout_at,
            State::Failing(failure) => Some(failure.retry_at),
        };
        due.map_or(self.clock.next_tick, |due| due.min(self.clock.next_tick))
    }

    fn add_clock_inputs(&mut self, batch: &mut Vec<Message>) {
        let mut first = Vec::new();
        match self.clock.look() {
            Look::Nothing => {}
            Look::Tick => first.push(Message::Input(wall_clock())),
            Look::Slept => {
                tracing::info!("the machine slept; trying every peer again");
                self.parts.order(Order::NetworkChange);
                first.push(Message::Input(wall_clock()));
                first.push(Message::Input(Input::NetworkChanged));
            }
        }
        batch.splice(0..0, first);
        if self.timeout_at.is_some_and(|due| due <= Instant::now()) {
            batch.push(Message::Input(Input::Timeout));
        }
    }

    /// Applies messages in order: runs of inputs in one transaction each, queries between them.
    fn process(&mut self, batch: Vec<Message>) {
        self.retry_if_due(&batch);
        let mut run = Vec::new();
        for message in batch {
            match message {
                Message::Query(query) => {
                    self.apply(std::mem::take(&mut run));
                    query(self.readable());
                }
                Message::Store(work) => {
                    self.apply(std::mem::take(&mut run));
                    work(self.writable_store());
                }
                Message::Local { changes, event, answer } => {
                    self.apply(std::mem::take(&mut run));
                    // The asker may have gone away.
                    let _ = answer.send(self.write_local(changes, event));
                }
                other => run.push(other),
            }
        }
        self.apply(run);
        self.timeout_at = match &self.state {
            State::Open(peer) => peer
                .poll_timeout()
                .map(|(due, _)| due.max(Instant::now() + TIMEOUT_PAUSE)),
            State::Failing(_) => None,
        };
    }

    /// One transaction, and after its commit what was decided in it.
    fn apply(&mut self, run: Vec<Message>) {
        if run.is_empty() {
            return;
        }
        match &mut self.state {
            State::Open(peer) => match transact(peer, &mut self.desk, run, self.numbering, self.parts.wording) {
                Ok((decisions, numbering)) => {
                    self.numbering = numbering;
                    self.parts.newest_event.send_replace(numbering.newest());
                    for decision in decisions {
                        carry_out(decision, &mut self.desk, &self.parts);
                    }
                }
                Err(error) => self.recover(&error),
            },
            State::Failing(failure) => {
                let why = failure.why.clone();
                for message in run {
                    match message {
                        // A peer that is not there knows of no line; the other end will call again.
                        Message::LineUp { peer, generation, .. } => self.parts.order(Order::Close {
                            peer,
                            generation,
                            reason: "the store fails",
                        }),
                        Message::Command { .. } | Message::Input(_) => drop(self.desk.input(message)),
                        _ => {}
                    }
                }
                self.desk.refuse_all(&why);
            }
        }
    }

    /// Local records in a transaction of their own.
    fn write_local(&mut self, changes: Vec<LocalChange>, event: Option<Vec<u8>>) -> Result<(), NodeError> {
        let peer = match &mut self.state {
            State::Open(peer) => peer,
            State::Failing(failure) => return Err(NodeError::Storage(failure.why.clone())),
        };
        let mut numbering = self.numbering;
        let store = peer.store_mut();
        let written = store.begin().and_then(|()| {
            journal::write_locals(store, changes)?;
            if let Some(event) = event {
                numbering.append(store, &event)?;
            }
            store.commit()
        });
        match written {
            Ok(()) => {
                self.numbering = numbering;
                self.parts.newest_event.send_replace(numbering.newest());
                Ok(())
            }
            Err(error) => {
                self.recover(&error);
                Err(storage_error(error))
            }
        }
    }

    /// After a failed transaction: drop the peer, tell those who wait, close the lines, open again.
    fn recover(&mut self, error: &StoreError) {
        tracing::error!(%error, "the store failed; opening it again");
        let why = words(error);
        if let State::Open(peer) = &mut self.state {
            peer.store_mut().rollback();
        }
        self.desk.refuse_all(&why);
        self.desk.lines.clear();
        self.parts.order(Order::CloseAll);
        // The old connection has to be gone before the store is opened again.
        self.state = State::Failing(Failure {
            why,
            peer: None,
            tried_at: Instant::now(),
            retry_at: Instant::now(),
            pause: RETRY_MIN,
        });
        self.retry();
    }

    fn retry_if_due(&mut self, batch: &[Message]) {
        let State::Failing(failure) = &self.state else { return };
        let is_asked = batch.iter().any(|message| matches!(message, Message::Command { .. }));
        let now = Instant::now();
        if failure.retry_at <= now || is_asked && failure.tried_at + RETRY_PAUSE_MIN <= now {
            self.retry();
        }
    }

    /// Opens the store again and proves that it takes writes; else keeps what can be read.
    fn retry(&mut self) {
        let State::Failing(failure) = &mut self.state else {
            return;
        };
        failure.peer = None;
        match reopen(&self.parts) {
            Ok(peer) => {
                tracing::info!("the store works again");
                if let Ok(numbering) = Numbering::read(peer.store()) {
                    self.numbering = numbering;
                }
                self.state = State::Open(peer);
                let inputs = self.parts.first_inputs().into_iter();
                let inputs = inputs.chain(self.desk.own_addresses.clone());
                self.apply(inputs.map(Message::Input).collect());
            }
            Err((error, readable)) => {
                failure.why = words(&error);
                failure.peer = readable;
                failure.tried_at = Instant::now();
                failure.retry_at = failure.tried_at + failure.pause;
                failure.pause = (failure.pause * 2).min(RETRY_MAX);
                tracing::warn!(%error, "the store still fails");
            }
        }
    }

    fn readable(&self) -> Result<&Peer<SqliteStore>, NodeError> {
        match &self.state {
            State::Open(peer) => Ok(peer),
            State::Failing(failure) => match &failure.peer {
                Some(peer) => Ok(peer),
                None => Err(NodeError::Storage(failure.why.clone())),
            },
        }
    }

    fn writable_store(&mut self) -> Result<&mut SqliteStore, NodeError> {
        match &mut self.state {
            State::Open(peer) => Ok(peer.store_mut()),
            State::Failing(failure) => Err(NodeError::Storage(failure.why.clone())),
        }
    }
}

impl Parts {
    /// What a peer is told before anything else.
    fn first_inputs(&self) -> [Input; 3] {
        let dht = Input::UseDht(self.dht.is_some());
        [wall_clock(), Input::FlowLimits(self.flows), dht]
    }

    fn order(&self, order: Order) {
        // The network may already be closing.
        let _ = self.orders.send(order);
    }
}

impl Desk {
    /// A message as the peer's input, where the peer is to see it at all.
    fn input(&mut self, message: Message) -> Option<Input> {
        match message {
            Message::Command { command, answer } => {
                self.last_id += 1;
                self.answers.insert(self.last_id, answer);
                Some(Input::Command {
                    id: self.last_id,
                    command,
                })
            }
            Message::Input(input) => {
                if matches!(input, Input::OwnAddresses { .. }) {
                    self.own_addresses = Some(input.clone());
                }
                Some(input)
            }
            Message::LineUp {
                peer,
                generation,
                exporter,
                address,
            } => {
                self.lines.insert(peer, generation);
                Some(Input::LineUp {
                    peer,
                    exporter,
                    address,
                })
            }
            Message::LineDown { peer, generation } => {
                let is_current = self.lines.get(&peer) == Some(&generation);
                is_current.then(|| {
                    self.lines.remove(&peer);
                    Input::LineDown { peer }
                })
            }
            Message::Frame {
                peer,
                generation,
                bytes,
                ..
            } => {
                let is_current = self.lines.get(&peer) == Some(&generation);
                is_current.then_some(Input::Frame { peer, bytes })
            }
            Message::Query(_) | Message::Store(_) | Message::Local { .. } => None,
        }
    }

    fn stamp(&self, output: Output) -> Decision {
        let generation = match &output {
            Output::Send { peer, .. } | Output::Close { peer, .. } => self.lines.get(peer).copied(),
            _ => None,
        };
        (output, generation)
    }

    fn refuse_all(&mut self, why: &str) {
        for answer in std::mem::take(&mut self.answers).into_values() {
            // The asker may have gone away.
            let _ = answer.send(Err(NodeError::Storage(why.to_owned())));
        }
    }
}

/// Applies a run of inputs in one transaction and commits it.
fn transact(
    peer: &mut Peer<SqliteStore>,
    desk: &mut Desk,
    run: Vec<Message>,
    mut numbering: Numbering,
    wording: Option<Wording>,
) -> Result<(Vec<Decision>, Numbering), StoreError> {
    peer.store_mut().begin()?;
    let mut decisions = Vec::new();
    for message in run {
        if let Some(input) = desk.input(message) {
            let outputs = peer.handle(input, Instant::now())?;
            decisions.extend(outputs.0.into_iter().map(|output| desk.stamp(output)));
        }
    }
    if let Some(wording) = wording {
        let outputs = decisions.iter().map(|(output, _)| output);
        numbering.append_all(peer.store_mut(), outputs, wording)?;
    }
    peer.store_mut().commit()?;
    Ok((decisions, numbering))
}

fn carry_out((output, generation): Decision, desk: &mut Desk, parts: &Parts) {
    match output {
        Output::Reply { id, reply } => {
            if let Some(answer) = desk.answers.remove(&id) {
                // The asker may have gone away.
                let _ = answer.send(reply.map_err(NodeError::Command));
            }
        }
        Output::Send { peer, bytes } => match generation {
            Some(generation) => parts.order(Order::Send {
                peer,
                generation,
                bytes,
            }),
            None => tracing::debug!(?peer, "a frame for a line that is gone"),
        },
        Output::Dial {
            peer,
            addresses,
            relay,
            urgency,
            reason,
        } => parts.order(Order::Dial {
            peer,
            addresses,
            relay,
            urgency,
            reason,
        }),
        Output::Dht(job) => {
            if let Some(dht) = &parts.dht {
                dht.want(job);
            }
        }
        Output::Announce(name) => drop(parts.announced.send_replace(name)),
        Output::CatchingUp(catching_up) => parts.order(Order::CatchingUp(catching_up)),
        Output::Close { peer, reason } => {
            if let Some(generation) = generation {
                parts.order(Order::Close {
                    peer,
                    generation,
                    reason,
                });
            }
        }
        Output::Event(event) => {
            // Nobody may be watching.
            let _ = parts.events.send(event);
        }
    }
}

/// Opens the store and the peer over it, in one transaction.
fn open_peer(parts: &Parts) -> Result<Peer<SqliteStore>, StoreError> {
    let mut peer = begin_peer(parts, SqliteStore::begin)?;
    peer.store_mut().commit()?;
    Ok(peer)
}

/// Opens the peer and proves that the disk takes writes. On failure: the reason, and a peer to read from where there is one.
fn reopen(parts: &Parts) -> Result<OpenPeer, (StoreError, Option<OpenPeer>)> {
    let mut peer = match begin_peer(parts, SqliteStore::begin) {
        Ok(peer) => Box::new(peer),
        Err(error) => {
            // A disk that takes no writes at all may still be read.
            let readable = begin_peer(parts, SqliteStore::begin_reading).ok();
            return Err((error, readable.map(|peer| to_read(Box::new(peer)))));
        }
    };
    let store = peer.store_mut();
    match store.commit().and_then(|()| store.probe()) {
        Ok(()) => Ok(peer),
        Err(error) => {
            store.rollback();
            Err((error, Some(to_read(peer))))
        }
    }
}

/// A peer over a store that takes no writes, to be asked only. It is told the time, by which it judges others' clocks; what else follows from that is not carried out.
fn to_read(mut peer: OpenPeer) -> OpenPeer {
    if let Err(error) = peer.handle(wall_clock(), Instant::now()) {
        tracing::debug!(%error, "nothing can be written");
    }
    peer
}

/// The peer in an open transaction.
fn begin_peer(
    parts: &Parts,
    begin: fn(&mut SqliteStore) -> Result<(), StoreError>,
) -> Result<Peer<SqliteStore>, StoreError> {
    let mut store = SqliteStore::open(&parts.home.store_path())?;
    begin(&mut store)?;
    let seed = home::random_bytes().map_err(|error| StoreError::Io(error.to_string()))?;
    Peer::open(store, parts.secrets.clone(), &parts.name, seed, Instant::now())
}

/// A store's error as a node's.
pub(crate) fn storage_error(error: StoreError) -> NodeError {
    NodeError::Storage(words(&error))
}

/// The reason without the preface that it is about storage.
fn words(error: &StoreError) -> String {
    match error {
        StoreError::Io(why) => why.clone(),
        StoreError::Damaged(_) => error.to_string(),
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn wall_clock() -> Input {
    Input::WallClock { unix_ms: unix_ms() }
}

/// The wall clock against the monotonic one.
struct Clocks {
    seen_at: Instant,
    seen_ms: u64,
    next_tick: Instant,
}

enum Look {
    Nothing,
    /// Time to tell the wall clock.
    Tick,
    /// The machine slept or stood still.
    Slept,
}

impl Clocks {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            seen_at: now,
            seen_ms: unix_ms(),
            next_tick: now + WALL_CLOCK_PERIOD,
        }
    }

    fn look(&mut self) -> Look {
        self.look_at(Instant::now(), unix_ms())
    }

    fn look_at(&mut self, now: Instant, wall_ms: u64) -> Look {
        let passed = now.saturating_duration_since(self.seen_at);
        let expected_ms = self
            .seen_ms
            .saturating_add(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        let off = Duration::from_millis(wall_ms.abs_diff(expected_ms));
        let late = now.saturating_duration_since(self.next_tick);
        let look = if (off > SLEPT && wall_ms > expected_ms) || late > SLEPT {
            Look::Slept
        } else if off > STEP || now >= self.next_tick {
            Look::Tick
        } else {
            return Look::Nothing;
        };
        *self = Self {
            seen_at: now,
            seen_ms: wall_ms,
            next_tick: now + WALL_CLOCK_PERIOD,
        };
        look
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_is_told_apart_from_sleep() {
        let start = Instant::now();
        let mut clocks = Clocks {
            seen_at: start,
            seen_ms: 1_000_000,
            next_tick: start + WALL_CLOCK_PERIOD,
        };
        let second = Duration::from_secs(1);
        assert!(matches!(clocks.look_at(start + second, 1_001_000), Look::Nothing));
        assert!(matches!(clocks.look_at(start + second * 2, 1_012_000), Look::Tick));
        assert!(matches!(clocks.look_at(start + second * 3, 900_000), Look::Tick));
        assert!(matches!(clocks.look_at(start + second * 4, 931_000), Look::Slept));
        assert!(matches!(clocks.look_at(start + second * 9, 936_000), Look::Tick));
        assert!(matches!(clocks.look_at(start + second * 60, 987_000), Look::Slept));
    }
}
