//! Starting and holding a node.
//!
//! [`Node::start`] opens the home, the store and the endpoint, and returns a [`NodeHandle`]: cheap to clone, usable from any task.
//! Commands and queries go to the driver's thread through one bounded queue; events come back by broadcast, where a receiver that falls
//! behind is told how many it missed and never holds anybody up.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iroh::{Endpoint, RelayUrl};
use offhook_proto::history::{Attachment, ContentId, EntryId};
use offhook_proto::identity::{DeviceId, PersonId};
use offhook_proto::overlay::ledger::{LedgerView, Limits};
use offhook_proto::peer::{Command, CommandError, Event, Input, Peer, Reply, Secrets};
use offhook_proto::store::StoreError;
use thiserror::Error;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::dht::{self, DhtOptions};
use crate::doctor::{self, Checkup};
use crate::driver::{self, Driver, Message};
use crate::endpoint::{self, Order, Own, PathView, Switchboard};
use crate::files::{FileLimits, FileMoved, FileProblem, FileProgress, FileReader, FileWriter, Files};
use crate::flows::{FlowSample, Flows};
use crate::home::{Home, HomeError, store_path};
use crate::journal::{LocalChange, Wording};
use crate::lan::{self, Near};
use crate::relay::{self, Relay, RelayError, RelayOptions};
use crate::store::SqliteStore;

/// Messages that may wait for the driver; whoever sends more waits.
const INBOX_MESSAGES_MAX: usize = 1_024;
/// Events that a slow receiver may fall behind before it is told of a gap.
const EVENTS_BEHIND_MAX: usize = 4_096;
/// How long after the start a node waits for its relay before it tells others where it is.
const RELAY_WAIT: Duration = Duration::from_secs(3);
/// How long a shutdown may take before it is given up.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(1_400);

/// How to run a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The home directory. Made where it does not exist.
    pub home: PathBuf,
    /// The name that the person goes by; used when the home is new.
    pub name: String,
    /// Where to listen. Without it: all interfaces, and the port of the last run where that is free.
    pub listen: Option<SocketAddr>,
    /// Addresses that others reach this node at, beside those it finds by itself: forwarded ports.
    pub announce: Vec<SocketAddr>,
    /// The URLs of relays to use.
    pub relays: Vec<String>,
    /// Serve as a relay for others.
    pub serve_relay: Option<RelayOptions>,
    /// Whether to look for peers on the local network by multicast.
    pub lan: bool,
    /// Use no public relay of the iroh project, neither own nor of a peer.
    pub no_public_infrastructure: bool,
    /// Keep this device's addresses in the Mainline DHT, sealed, and look for devices there that are found nowhere else. Without it the DHT is not used.
    pub dht: Option<DhtOptions>,
    /// How many flows a gateway may see of this node.
    pub flows: Limits,
    /// How large files may be.
    pub files: FileLimits,
    /// How events are written down in the numbered log (see [`crate::journal`]); without it they are only broadcast.
    pub wording: Option<Wording>,
}

impl Config {
    /// A node on this home that uses no public relay, with everything else as usual.
    pub fn new(home: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self {
            home: home.into(),
            name: name.into(),
            listen: None,
            announce: Vec::new(),
            relays: Vec::new(),
            serve_relay: None,
            lan: true,
            no_public_infrastructure: true,
            dht: None,
            flows: Limits::default(),
            files: FileLimits::default(),
            wording: None,
        }
    }
}

/// Why a node did not start. The text says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The store cannot be used: full or read-only disk, damage, or a newer version wrote it.
    #[error("{0}")]
    Store(StoreError),
    /// The network endpoint cannot be opened, for instance because the port is taken.
    #[error("cannot listen{}: {why}", .listen.map(|at| format!(" at {at}")).unwrap_or_default())]
    Listen {
        /// Where it was asked to.
        listen: Option<SocketAddr>,
        /// What the system said.
        why: String,
    },
    /// The relay's URL is not one.
    #[error("{0:?} is not a relay URL; it looks like https://relay.example.org")]
    BadRelay(String),
    /// The node cannot serve as a relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The folder of files cannot be used.
    #[error("cannot use the folder `files` of the home: {0}")]
    Files(std::io::Error),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Why a command or query was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NodeError {
    /// The peer refused; nothing was changed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The disk refused; nothing was changed, and nothing was sent. The node tries again by itself.
    #[error("nothing was changed, because {0}")]
    Storage(String),
    /// The node is stopping or has stopped.
    #[error("the node is stopping")]
    Stopped,
}

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node. Must be called within a Tokio runtime, which then carries its network.
    pub async fn start(mut config: Config) -> Result<NodeHandle, StartError> {
        let home = Home::open(&config.home)?;
        let secrets = home.secrets()?;
        let (device, person) = (secrets.device.device(), secrets.root.person());
        let dir = home.dir().to_owned();
        let relay = serve_relay(&mut config).await?;
        let (flows, endpoint) = bind(&config, &home, &secrets).await?;

        let (inbox, inputs) = mpsc::channel(INBOX_MESSAGES_MAX);
        let (orders_in, orders) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENTS_BEHIND_MAX);
        let (stop, stopping) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let (newest_event, newest) = watch::channel(0);
        let (announced_in, announced) = watch::channel(None);

        let lines = endpoint::Lines::default();
        let files = Files::open(&dir, config.files, inbox.clone(), lines.clone()).map_err(StartError::Files)?;
        let dht = start_dht(&config, &dir, &flows, &inbox, &stopping)?;
        let parts = driver::Parts {
            home,
            secrets,
            name: config.name.clone(),
            inbox: inputs,
            orders: orders_in,
            events: events.clone(),
            stopping: stopping.clone(),
            flows: config.flows,
            dht: dht.clone(),
            wording: config.wording,
            newest_event,
            announced: announced_in,
        };
        start_driver(parts, &endpoint).await?;

        let switchboard = Switchboard::new(endpoint.clone(), flows.clone(), files.clone(), &config);
        tokio::spawn(files.clone().run(events.subscribe(), stopping.clone()));
        let own = switchboard.own();
        let near = lan::start(
            &config,
            endpoint.clone(),
            inbox.clone(),
            stopping,
            own.clone(),
            announced,
        );
        tokio::spawn(run_network(switchboard, orders, relay, finished));

        Ok(NodeHandle {
            shared: Arc::new(Shared {
                inbox,
                events,
                stop,
                done,
                lines,
                flows,
                files,
                endpoint,
                is_lan_on: config.lan,
                own,
                awaited_relay: AwaitedRelay::of(&config),
                dht,
                near,
                newest,
                device,
                person,
                dir,
            }),
        })
    }
}

/// Binds the sockets, and takes up what a gateway remembers of the last run, which counts as the same flows where the port is the same.
async fn bind(config: &Config, home: &Home, secrets: &Secrets) -> Result<(Arc<Flows>, Endpoint), StartError> {
    let flows = Flows::new(config.flows);
    let endpoint = endpoint::bind(config, &secrets.device.0.seed(), home.last_port(), &flows).await?;
    let port = endpoint::port(&endpoint);
    flows.keep_in(home.dir(), port.is_some() && port == home.last_port());
    if let Some(port) = port {
        home.remember_port(port)?;
    }
    if config.lan {
        flows.note_multicast();
    }
    Ok((flows, endpoint))
}

/// The home relay, before it is known.
#[derive(Debug)]
struct AwaitedRelay {
    /// The first of those that may become it.
    first: Option<RelayUrl>,
    /// Until when it may be waited for.
    until: tokio::time::Instant,
}

impl AwaitedRelay {
    fn of(config: &Config) -> Self {
        let configured = config.relays.iter().find_map(|url| url.parse().ok());
        let public = || relay::public().into_iter().next();
        let first = configured.or_else(|| public().filter(|_| !config.no_public_infrastructure));
        let wait = if first.is_some() { RELAY_WAIT } else { Duration::ZERO };
        let until = tokio::time::Instant::now() + wait;
        Self { first, until }
    }
}

/// Starts the DHT's client where it is to be used.
fn start_dht(
    config: &Config,
    dir: &Path,
    flows: &Arc<Flows>,
    inbox: &mpsc::Sender<Message>,
    stopping: &watch::Receiver<bool>,
) -> Result<Option<dht::Line>, HomeError> {
    let start = |options: &DhtOptions| dht::start(options.clone(), dir, flows.clone(), inbox.clone(), stopping.clone());
    config.dht.as_ref().map(start).transpose()
}

/// Serves as a relay where asked to, and uses it, too.
async fn serve_relay(config: &mut Config) -> Result<Option<Relay>, StartError> {
    let Some(options) = config.serve_relay.clone() else {
        return Ok(None);
    };
    let relay = Relay::start(options).await?;
    config.relays.push(relay.url());
    Ok(Some(relay))
}

/// Opens the peer and starts its thread; where that fails the endpoint is closed again.
async fn start_driver(parts: driver::Parts, endpoint: &Endpoint) -> Result<(), StartError> {
    let started = Driver::open(parts).map_err(StartError::Store).and_then(|driver| {
        let thread = std::thread::Builder::new().name("offhook-peer".into());
        let running = thread.spawn(move || driver.run());
        running.map(drop).map_err(StartError::Thread)
    });
    if started.is_err() {
        endpoint.close().await;
    }
    started
}

/// The network's part of a node, until the driver is gone.
async fn run_network(
    switchboard: Switchboard,
    orders: mpsc::UnboundedReceiver<Order>,
    relay: Option<Relay>,
    finished: watch::Sender<bool>,
) {
    switchboard.run(orders).await;
    if let Some(relay) = relay {
        relay.shutdown().await;
    }
    // Nobody may be listening any more.
    let _ = finished.send(true);
}

/// A running node.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inbox: mpsc::Sender<Message>,
    events: broadcast::Sender<Event>,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
    lines: endpoint::Lines,
    flows: Arc<Flows>,
    files: Arc<Files>,
    endpoint: Endpoint,
    is_lan_on: bool,
    own: watch::Receiver<Own>,
    awaited_relay: AwaitedRelay,
    dht: Option<dht::Line>,
    near: lan::Sightings,
    newest: watch::Receiver<u64>,
    device: DeviceId,
    person: PersonId,
    dir: PathBuf,
}

impl NodeHandle {
    /// Carries out a command. Returns once it is durable.
    pub async fn command(&self, command: Command) -> Result<Reply, NodeError> {
        let (answer, answered) = oneshot::channel();
        self.tell(Message::Command { command, answer }).await?;
        answered.await.map_err(|_| NodeError::Stopped)?
    }

    /// Runs a closure on the peer's thread, after everything asked for before it. Keep it short: the peer waits.
    pub async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Peer<SqliteStore>) -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        let (answer, answered) = oneshot::channel();
        let run: driver::Query = Box::new(move |peer| {
            // The asker may have gone away.
            let _ = answer.send(peer.map(ask));
        });
        self.tell(Message::Query(run)).await?;
        answered.await.map_err(|_| NodeError::Stopped)?
    }

    /// Copies the store into a new file, consistent at one moment, while the node goes on. The file holds what the home holds, but for the secrets.
    pub async fn backup_to(&self, path: impl AsRef<Path>) -> Result<(), NodeError> {
        let (from, to) = (store_path(&self.shared.dir), path.as_ref().to_owned());
        // A connection of its own: the peer need not wait.
        let copy = move || SqliteStore::open(&from).and_then(|store| store.backup_to(&to));
        let copied = tokio::task::spawn_blocking(copy)
            .await
            .map_err(|_| NodeError::Stopped)?;
        copied.map_err(driver::storage_error)
    }

    /// Reads the whole store and checks it.
    pub async fn check_store(&self) -> Result<(), NodeError> {
        self.with_store(|store| store.check()).await
    }

    /// What happens from now on.
    pub fn events(&self) -> EventStream {
        EventStream {
            receiver: self.shared.events.subscribe(),
        }
    }

    /// The number of the newest event in the log, and its growth.
    pub fn newest_event(&self) -> watch::Receiver<u64> {
        self.shared.newest.clone()
    }

    /// Writes local records, and an event that tells of them, in one transaction.
    pub async fn write_local(&self, changes: Vec<LocalChange>, event: Option<Vec<u8>>) -> Result<(), NodeError> {
        let (answer, answered) = oneshot::channel();
        self.tell(Message::Local { changes, event, answer }).await?;
        answered.await.map_err(|_| NodeError::Stopped)?
    }

    /// Nodes on the local network and on this machine, as they announce themselves: a claim, until a line is up.
    pub fn near(&self) -> Vec<Near> {
        self.shared.near.list()
    }

    /// The network paths of every line that is up.
    pub fn paths(&self) -> Vec<PathView> {
        endpoint::paths(&self.shared.lines)
    }

    /// What a gateway sees of this node: every flow, who waits for one, and what was refused.
    pub fn flows(&self) -> LedgerView {
        self.shared.flows.with(|ledger, now| ledger.view(now))
    }

    /// How many flows of each kind there were in the last hour, every five seconds, oldest first.
    pub fn flow_history(&self) -> Vec<FlowSample> {
        self.shared.flows.history()
    }

    /// Looks at the network. Takes a few seconds at most; asks nobody but one relay that may be used, and the DHT where it is used.
    pub async fn checkup(&self) -> Checkup {
        let shared = &self.shared;
        let dht = async {
            match &shared.dht {
                Some(dht) => Some(dht.check().await),
                None => None,
            }
        };
        let look = doctor::look(
            &shared.endpoint,
            &shared.flows,
            shared.awaited_relay.first.as_ref(),
            shared.is_lan_on,
        );
        let ((relay, multicast), dht) = tokio::join!(look, dht);
        Checkup {
            addresses: self.addresses(),
            paths: self.paths(),
            flows: self.flows(),
            relay,
            multicast,
            dht,
        }
    }

    /// Tries to reach a device at the next opportunity.
    pub async fn try_peer(&self, peer: DeviceId) -> Result<(), NodeError> {
        self.tell(Message::Input(Input::TryPeer { peer })).await
    }

    /// Where this node can be reached, best first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.own.borrow().addresses.clone()
    }

    /// The relay that others reach this node through, once it is known.
    pub fn home_relay(&self) -> Option<String> {
        self.shared.own.borrow().relay.clone()
    }

    /// Returns once this node knows the relay that it is reached through; at once where it has none, or was started [`RELAY_WAIT`] ago without hearing of one.
    pub async fn has_looked_for_relay(&self) {
        let mut own = self.shared.own.clone();
        let known = own.wait_for(|own| own.relay.is_some());
        // Without one it is reached as far as its addresses go.
        let _ = tokio::time::timeout_at(self.shared.awaited_relay.until, known).await;
    }

    /// Begins to take a file in, to be sent.
    pub async fn new_file(&self) -> Result<FileWriter, FileProblem> {
        self.shared.files.begin().await
    }

    /// Notes that a message that was sent carries a file that was taken in. Else the file is swept away at the next start.
    pub async fn file_was_sent(&self, entry: EntryId, content: ContentId) -> Result<(), FileProblem> {
        self.shared.files.carried_by(entry, content).await
    }

    /// Fetches a file of a message, also over restarts, until it is here or its message is gone.
    pub async fn fetch_file(&self, entry: EntryId, content: ContentId) -> Result<(), FileProblem> {
        self.shared.files.want(entry, content).await
    }

    /// How much of a file is here.
    pub fn file_progress(&self, file: &Attachment) -> FileProgress {
        self.shared.files.progress(file)
    }

    /// Whether a file is so small that it is fetched without being asked for.
    pub fn file_comes_unasked(&self, file: &Attachment) -> bool {
        self.shared.files.comes_unasked(file)
    }

    /// Grows whenever something happens to a file.
    pub fn file_changes(&self) -> watch::Receiver<u64> {
        self.shared.files.changes()
    }

    /// The number of the newest change, and which files have changed since the one with this number: each once, as it is now.
    pub fn files_moved(&self, since: u64) -> (u64, Vec<FileMoved>) {
        self.shared.files.moved_since(since)
    }

    /// Opens a file that is here.
    pub async fn read_file(&self, file: &Attachment) -> Result<FileReader, FileProblem> {
        self.shared.files.read(file).await
    }

    /// The own device.
    pub fn device(&self) -> DeviceId {
        self.shared.device
    }

    /// The own person.
    pub fn person(&self) -> PersonId {
        self.shared.person
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        &self.shared.dir
    }

    /// Ends the node: finishes the current transaction, says goodbye to peers, releases the home. Takes at most two seconds.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.stopped()).await.is_err() {
            tracing::warn!("the network did not close in time");
        }
    }

    /// Returns when the node has stopped, for whatever reason.
    pub async fn stopped(&self) {
        let mut done = self.shared.done.clone();
        // An error means that the sender is gone, which is as stopped as can be.
        let _ = done.wait_for(|done| *done).await;
    }

    async fn with_store(
        &self,
        work: impl FnOnce(&mut SqliteStore) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), NodeError> {
        let (answer, answered) = oneshot::channel();
        let run: driver::StoreWork = Box::new(move |store| {
            let result = store.and_then(|store| work(store).map_err(driver::storage_error));
            // The asker may have gone away.
            let _ = answer.send(result);
        });
        self.tell(Message::Store(run)).await?;
        answered.await.map_err(|_| NodeError::Stopped)?
    }

    async fn tell(&self, message: Message) -> Result<(), NodeError> {
        self.shared.inbox.send(message).await.map_err(|_| NodeError::Stopped)
    }
}

/// The events of a node, for one watcher.
#[derive(Debug)]
pub struct EventStream {
    receiver: broadcast::Receiver<Event>,
}

/// One item of an [`EventStream`].
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// An event.
    Event(Event),
    /// The watcher was too slow: this many events are lost to it. Look at the state afresh.
    Gap {
        /// How many.
        missed: u64,
    },
}

impl EventStream {
    /// The next event, or none once the node has stopped.
    pub async fn next(&mut self) -> Option<Happening> {
        match self.receiver.recv().await {
            Ok(event) => Some(Happening::Event(event)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Happening::Gap { missed }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
