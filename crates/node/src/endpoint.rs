//! Lines: one iroh connection to a peer, carrying length-prefixed frames on one bidirectional stream.
//!
//! The *switchboard* is one task that owns all lines. Orders reach it from the driver, connections from dials and from the
//! accept loop; each line has a task that reads and one that writes. The dialler opens the stream with an empty frame. A frame is a length
//! (unsigned LEB128 of at most three bytes, at most [`FRAME_BYTES_MAX`]) and the bytes.
//!
//! *One connection to a peer*: of two dialled at the same time from both ends, the one dialled by the smaller id stays; any other newer one replaces the
//! older, because whoever dials again has lost it. *Addresses*: at most two are handed to a dial, since iroh sends to each at once and each is a flow
//! at the gateway; each needs a token of the flow ledger, and a dial without one waits for its turn. *Back-pressure*: the frames that wait for the driver are bounded in bytes over all lines; a peer that does not take what is sent to it is read from slowly,
//! and closed when nothing moves for [`DRAIN_TIMEOUT`].
//!
//! *Relays* are those configured, and the public ones unless they are turned off; one that a peer is reached by is taken over, up to a number.
//! No other public infrastructure is used: the minimal preset, no address look-up, no port mapping.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use iroh::endpoint::{
    BindError, Builder, Connection, Incoming, IncomingAddr, PortmapperConfig, QuicTransportConfig, RecvStream,
    SendStream, VarInt, presets,
};
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMap, RelayMode, RelayUrl, SecretKey, TransportAddr, Watcher};
use netwatch::gate;
use offhook_proto::crypto::Secret;
use offhook_proto::files::fetch::PIECES_PER_SOURCE;
use offhook_proto::identity::DeviceId;
use offhook_proto::overlay::dial;
use offhook_proto::overlay::ledger::{ADDRESSES_PER_DIAL_MAX, Answer, Ask, To, Urgency};
use offhook_proto::overlay::plan;
use offhook_proto::peer::Input;
use offhook_proto::wire::{FRAME_BYTES_MAX, put_varint};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;

use crate::driver::Message;
use crate::files::{Files, serve_line};
use crate::flows::{Doorman, Flows};
use crate::node::{Config, StartError};
use crate::relay::{self, RelayChoice};

mod own;
mod paths;

use own::own_addresses;
pub(crate) use paths::paths;
pub use paths::{PathAddress, PathView};

/// The application protocol, in the TLS handshake.
pub(crate) const ALPN: &[u8] = b"offhook/1";
const EXPORTER_LABEL: &[u8] = b"EXPORTER-offhook-1-line";

/// Bytes of the length before a frame.
const LENGTH_BYTES_MAX: usize = 3;
/// Own addresses told to the peer.
const OWN_ADDRESSES_MAX: usize = 8;
/// Dials that run at the same time; the line plan keeps below this ([`plan::DIALS_WITH_SLOW`]), whoever is sought comes beside.
const DIALS_MAX: usize = 2 * plan::DIALS_WITH_SLOW;
/// Lines at the same time, dialled and accepted.
const LINES_MAX: usize = 256;
/// Handshakes of others that run at the same time.
const HANDSHAKES_MAX: usize = 64;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Two dials from both ends within this are taken to be simultaneous.
const SIMULTANEOUS: Duration = Duration::from_secs(10);

/// Bytes of received frames that wait for the driver, over all lines.
const INBOX_BYTES_MAX: usize = 32 << 20;
/// Above this many bytes waiting to be sent, the peer is read from slowly.
const SEND_BYTES_SLOW: usize = 8 << 20;
/// Above this many bytes waiting to be sent, the line is closed.
const SEND_BYTES_MAX: usize = 64 << 20;
/// The pause between two frames read from a peer that does not drain what is sent to it.
const SLOW_READ_PAUSE: Duration = Duration::from_secs(1);
/// A line on which nothing can be sent for so long is closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Written at once: small frames are joined up to this, large ones cut, so that slow progress is told from none.
const WRITE_BYTES: usize = 64 * 1024;
const CHUNK_BYTES: usize = 16 * 1024;
/// How often dials that wait for a flow are looked at.
const TURN_PERIOD: Duration = Duration::from_secs(1);
/// How long a closing line may take to deliver its last frames.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Data in flight on one connection.
const RECEIVE_WINDOW_BYTES: u32 = 8 << 20;
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// The line itself, and requests for files: as many as a peer asks of one at once, and the next ones.
const STREAMS_MAX: u32 = 1 + 2 * PIECES_PER_SOURCE as u32;

/// Why a connection was closed, as its peer sees it.
mod close_code {
    pub(super) const DONE: u32 = 0;
    pub(super) const DUPLICATE: u32 = 1;
    pub(super) const STOPPING: u32 = 2;
    pub(super) const BAD_FRAME: u32 = 3;
    pub(super) const NOT_DRAINING: u32 = 4;
    pub(super) const BUSY: u32 = 5;
    pub(super) const REOPENING: u32 = 6;
}

/// From the driver.
#[derive(Debug)]
pub(crate) enum Order {
    Send {
        peer: DeviceId,
        generation: u64,
        bytes: Vec<u8>,
    },
    Dial {
        peer: DeviceId,
        addresses: Vec<SocketAddr>,
        relay: Option<String>,
        urgency: Urgency,
        reason: &'static str,
    },
    /// Whether what was missed is still coming in: no hole punching meanwhile.
    CatchingUp(bool),
    Close {
        peer: DeviceId,
        generation: u64,
        reason: &'static str,
    },
    /// The peer is opened afresh and knows of no line.
    CloseAll,
    /// The machine woke up.
    NetworkChange,
}

/// The connections that are up, for whoever wants to look at them.
pub(crate) type Lines = Arc<Mutex<BTreeMap<DeviceId, Connection>>>;

/// Opens the endpoint.
pub(crate) async fn bind(
    config: &Config,
    seed: &Secret,
    last_port: Option<u16>,
    flows: &Arc<Flows>,
) -> Result<Endpoint, StartError> {
    let parsed = config.relays.iter().map(|url| {
        let bad = |_| StartError::BadRelay(url.clone());
        url.parse::<RelayUrl>().map_err(bad)
    });
    let relays = relay::first_relays(
        &parsed.collect::<Result<Vec<_>, _>>()?,
        !config.no_public_infrastructure,
    );
    for url in config.relays.iter().filter_map(|url| url.parse::<RelayUrl>().ok()) {
        flows.note_home_relay(&RelayUrl::to_string(&url));
    }
    if !config.no_public_infrastructure {
        flows.note_public_relays();
    }
    let fresh = || {
        let announced = config.announce.iter().copied();
        let builder = builder(seed, relays.clone()).hooks(Doorman(flows.clone()));
        announced.fold(builder, Builder::external_addr)
    };
    let cannot = |why: String| StartError::Listen {
        listen: config.listen,
        why,
    };
    if let Some(at) = config.listen {
        return bind_at(fresh(), at, flows).await.map_err(cannot);
    }
    let anywhere = |port| SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port);
    if let Some(port) = last_port
        && let Ok(endpoint) = bind_at(fresh(), anywhere(port), flows).await
    {
        return Ok(endpoint);
    }
    bind_at(fresh(), anywhere(0), flows).await.map_err(cannot)
}

fn builder(seed: &Secret, relays: RelayMap) -> Builder {
    let transport = QuicTransportConfig::builder()
        // Packets stay at 1,200 octets: to look for more (RFC 8899) costs each line a full packet each way, a sixth of a look into a room, and gains a file a tenth (decision 0032).
        .mtu_discovery_config(None)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_remote_nat_traversal_addresses(8)
        .build();
    Endpoint::builder(presets::Minimal)
        .secret_key(SecretKey::from_bytes(&seed.0))
        .alpns(vec![ALPN.to_vec()])
        .transport_config(transport)
        .portmapper_config(PortmapperConfig::Disabled)
        // Also without any: some may be taken over from members.
        .relay_mode(RelayMode::Custom(relays))
        .ca_tls_config(relay::trust())
}

/// Binds the sockets with the gate before them.
async fn bind_at(builder: Builder, at: SocketAddr, flows: &Arc<Flows>) -> Result<Endpoint, String> {
    let mut builder = builder
        .clear_ip_transports()
        .bind_addr(at)
        .map_err(|error| error.to_string())?;
    if at.is_ipv4() && at.ip().is_unspecified() {
        // Machines without IPv6 do without.
        let v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), at.port());
        let optional = iroh::endpoint::BindOpts::default().set_is_required(false);
        builder = builder
            .bind_addr_with_opts(v6, optional)
            .map_err(|error| error.to_string())?;
    }
    let bound = gate::scope(flows.clone(), builder.bind()).await;
    bound.map_err(|error: BindError| error.to_string())
}

/// The UDP port that was bound first.
pub(crate) fn port(endpoint: &Endpoint) -> Option<u16> {
    endpoint.bound_sockets().first().map(SocketAddr::port)
}

/// The one task that owns all lines.
pub(crate) struct Switchboard {
    endpoint: Endpoint,
    inbox: mpsc::Sender<Message>,
    lines: BTreeMap<DeviceId, Line>,
    open: Lines,
    dialling: BTreeMap<DeviceId, Dialling>,
    flows: Arc<Flows>,
    files: Arc<Files>,
    /// Dials that wait for a flow.
    waiting: BTreeMap<DeviceId, EndpointAddr>,
    /// Relays of peers that are held in the ledger.
    relays: BTreeSet<String>,
    catching_up: bool,
    dial_slots: Arc<Semaphore>,
    inbox_bytes: Arc<Semaphore>,
    last_generation: u64,
    last_dial: u64,
    news_in: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    own_in: watch::Sender<Own>,
    relay_choice: RelayChoice,
}

/// What the switchboard's own tasks tell it.
enum News {
    Connected(Connected),
    DialFailed { peer: DeviceId, number: u64 },
    Ended { peer: DeviceId, generation: u64 },
}

/// A dial under way. One to other addresses takes its place, or one that is wanted more.
struct Dialling {
    number: u64,
    /// All that was to be tried; there may have been flows for a part only.
    target: EndpointAddr,
    urgency: Urgency,
    task: AbortHandle,
}

/// A connection with its stream.
struct Connected {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    address: Option<SocketAddr>,
    dialled: bool,
}

struct Line {
    generation: u64,
    connection: Connection,
    dialled: bool,
    since: Instant,
    queue: mpsc::UnboundedSender<Vec<u8>>,
    backlog: Arc<Backlog>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// Bytes that wait to be sent on a line.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    drained: Notify,
}

impl Switchboard {
    pub(crate) fn new(endpoint: Endpoint, flows: Arc<Flows>, files: Arc<Files>, config: &Config) -> Self {
        let (news_in, news) = mpsc::channel(HANDSHAKES_MAX);
        let (own_in, _) = watch::channel(Own::default());
        Self {
            endpoint,
            inbox: files.inbox(),
            lines: BTreeMap::new(),
            open: files.lines(),
            dialling: BTreeMap::new(),
            flows,
            files,
            waiting: BTreeMap::new(),
            relays: BTreeSet::new(),
            catching_up: true,
            dial_slots: Arc::new(Semaphore::new(DIALS_MAX)),
            inbox_bytes: Arc::new(Semaphore::new(INBOX_BYTES_MAX)),
            last_generation: 0,
            last_dial: 0,
            news_in,
            news,
            own_in,
            relay_choice: RelayChoice::new(config.no_public_infrastructure),
        }
    }

    pub(crate) fn own(&self) -> watch::Receiver<Own> {
        self.own_in.subscribe()
    }

    /// Runs until the driver is gone, then closes everything.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let accepting = tokio::spawn(accept(
            self.endpoint.clone(),
            self.open.clone(),
            self.news_in.clone(),
            self.flows.clone(),
        ));
        let mut turns = tokio::time::interval(TURN_PERIOD);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = 0u32;
        let watching = tokio::spawn(watch_addresses(
            self.endpoint.clone(),
            self.inbox.clone(),
            self.own_in.clone(),
        ));
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => break,
                },
                Some(news) = self.news.recv() => self.take(news).await,
                _ = turns.tick() => {
                    turn = turn.wrapping_add(1);
                    self.tend(turn);
                }
            }
        }
        accepting.abort();
        watching.abort();
        let flows = self.flows.clone();
        self.close().await;
        flows.close();
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Send {
                peer,
                generation,
                bytes,
            } => self.send(peer, generation, bytes).await,
            Order::Dial {
                peer,
                addresses,
                relay,
                urgency,
                reason,
            } => {
                let relay = self.relay_choice.of(relay.as_deref());
                self.adopt(relay.as_ref()).await;
                let Some(target) = dial_target(peer, &addresses, relay, self.endpoint.id()) else {
                    tracing::debug!(?peer, "no address to dial");
                    self.tell(Message::Input(Input::DialFailed { peer })).await;
                    return;
                };
                let ask = Ask {
                    peer,
                    to: flows_of(&target, &addresses),
                    urgency,
                    reason,
                };
                self.dial(target, ask).await;
            }
            Order::CatchingUp(catching_up) => {
                self.catching_up = catching_up;
                self.look_at_paths();
            }
            Order::Close {
                peer,
                generation,
                reason,
            } => {
                if self.lines.get(&peer).is_some_and(|line| line.generation == generation) {
                    tracing::debug!(?peer, reason, "closing a line");
                    self.drop_line(peer, close_code::DONE, reason).await;
                }
            }
            Order::CloseAll => {
                for peer in self.lines.keys().copied().collect::<Vec<_>>() {
                    self.drop_line(peer, close_code::REOPENING, "reopening").await;
                }
            }
            Order::NetworkChange => {
                self.flows.with(|ledger, _| ledger.network_changed());
                self.endpoint.network_change().await;
            }
        }
    }

    async fn send(&mut self, peer: DeviceId, generation: u64, bytes: Vec<u8>) {
        let Some(line) = self.lines.get(&peer).filter(|line| line.generation == generation) else {
            return;
        };
        let waiting = line.backlog.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        if waiting + bytes.len() > SEND_BYTES_MAX {
            tracing::info!(?peer, waiting, "closing a line that is not read from");
            line.connection
                .close(VarInt::from_u32(close_code::NOT_DRAINING), b"not draining");
            self.drop_line(peer, close_code::NOT_DRAINING, "not draining").await;
            return;
        }
        // Fails when the writer has ended; the reader then tells.
        let _ = line.queue.send(bytes);
    }

    /// Takes over a relay that a member is reached by, so that others reach this node by it.
    async fn adopt(&mut self, relay: Option<&RelayUrl>) {
        let Some(url) = relay else { return };
        if self.relay_choice.adopt(url) {
            tracing::debug!(%url, "using the relay of a member");
            let config = Arc::new(relay::config_of(url.clone()));
            self.flows.note_home_relay(url.as_ref());
            // One that is configured already stays as it is.
            drop(self.endpoint.insert_relay(url.clone(), config).await);
        }
    }

    /// Begins a dial once the ledger has tokens for it.
    async fn dial(&mut self, target: EndpointAddr, ask: Ask) {
        let peer = ask.peer;
        let serves = |dial: &Dialling| dial.target == target && dial.urgency <= ask.urgency;
        if self.lines.contains_key(&peer) || self.dialling.get(&peer).is_some_and(serves) {
            return;
        }
        match self.flows.with(|ledger, now| ledger.ask(ask.clone(), now)) {
            Answer::Go(granted) => self.begin_dial(target, &granted, &ask),
            Answer::Waits => drop(self.waiting.insert(peer, target)),
            Answer::Refused => self.tell(Message::Input(Input::DialFailed { peer })).await,
        }
    }

    /// Dials what the ledger has tokens for of a target.
    fn begin_dial(&mut self, target: EndpointAddr, granted: &[To], ask: &Ask) {
        let (peer, urgency) = (ask.peer, ask.urgency);
        self.waiting.remove(&peer);
        self.hold_relays(granted);
        self.last_dial += 1;
        let number = self.last_dial;
        let tried = part(&target, granted);
        tracing::debug!(?peer, addresses = ?granted, reason = ask.reason, "dialling");
        let (endpoint, flows) = (self.endpoint.clone(), self.flows.clone());
        let (slots, news) = (self.dial_slots.clone(), self.news_in.clone());
        let task = tokio::spawn(async move {
            // Never closed.
            let _slot = slots.acquire().await;
            let told = match connect_patiently(endpoint, tried, urgency, &flows).await {
                Ok(connected) => News::Connected(connected),
                Err(why) => {
                    tracing::debug!(?peer, why, "a dial failed");
                    News::DialFailed { peer, number }
                }
            };
            // The switchboard may be closing.
            let _ = news.send(told).await;
        });
        let dialling = Dialling {
            number,
            target,
            urgency,
            task: task.abort_handle(),
        };
        if let Some(earlier) = self.dialling.insert(peer, dialling) {
            earlier.task.abort();
        }
    }

    async fn take(&mut self, news: News) {
        match news {
            News::Connected(connected) => self.connected(connected).await,
            News::DialFailed { peer, number } => {
                let is_current = self.dialling.get(&peer).is_some_and(|dial| dial.number == number);
                if is_current {
                    self.dialling.remove(&peer);
                    self.flows.with(|ledger, _| ledger.dial_ended(peer));
                    if !self.lines.contains_key(&peer) {
                        self.tell(Message::Input(Input::DialFailed { peer })).await;
                    }
                }
            }
            News::Ended { peer, generation } => {
                if self.lines.get(&peer).is_some_and(|line| line.generation == generation) {
                    self.drop_line(peer, close_code::DONE, "ended").await;
                }
            }
        }
    }

    /// A new connection: the first to its peer, or one of two of which one stays.
    async fn connected(&mut self, new: Connected) {
        let peer = DeviceId(*new.connection.remote_id().as_bytes());
        // A dial that is not answered yet is not wanted any more: nothing of it has come up at the other end.
        if let Some(dial) = self.dialling.remove(&peer) {
            dial.task.abort();
        }
        self.waiting.remove(&peer);
        self.flows.with(|ledger, _| {
            ledger.withdraw(peer);
            ledger.dial_ended(peer);
            if let Some(at) = new.address {
                ledger.carries(at, peer);
            }
        });
        if let Some(old) = self.lines.get(&peer) {
            if !self.replaces(old, &new, peer) {
                new.connection
                    .close(VarInt::from_u32(close_code::DUPLICATE), b"duplicate");
                return;
            }
            self.drop_line(peer, close_code::DUPLICATE, "duplicate").await;
        } else if self.lines.len() >= LINES_MAX {
            new.connection.close(VarInt::from_u32(close_code::BUSY), b"busy");
            return;
        }
        self.add_line(peer, new).await;
    }

    /// Of two connections dialled from both ends at about the same time, the one dialled by the smaller id stays.
    fn replaces(&self, old: &Line, new: &Connected, peer: DeviceId) -> bool {
        if old.connection.close_reason().is_some() {
            return true;
        }
        let is_simultaneous = old.dialled != new.dialled && old.since.elapsed() < SIMULTANEOUS;
        let is_ours_to_keep = *self.endpoint.id().as_bytes() < peer.0;
        !is_simultaneous || new.dialled == is_ours_to_keep
    }

    async fn add_line(&mut self, peer: DeviceId, new: Connected) {
        let mut exporter = [0; 32];
        if new
            .connection
            .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
            .is_err()
        {
            new.connection.close(VarInt::from_u32(close_code::DONE), b"no exporter");
            return;
        }
        self.last_generation += 1;
        let generation = self.last_generation;
        self.tell(Message::LineUp {
            peer,
            generation,
            exporter,
            address: new.address,
        })
        .await;
        let backlog = Arc::new(Backlog::default());
        let (queue, queued) = mpsc::unbounded_channel();
        let reading = Reading {
            peer,
            generation,
            recv: new.recv,
            connection: new.connection.clone(),
            inbox: self.inbox.clone(),
            inbox_bytes: self.inbox_bytes.clone(),
            backlog: backlog.clone(),
        };
        let news = self.news_in.clone();
        let reader = tokio::spawn(async move {
            reading.run().await;
            // The switchboard may be closing.
            let _ = news.send(News::Ended { peer, generation }).await;
        });
        let writer = tokio::spawn(write_frames(new.send, new.connection.clone(), queued, backlog.clone()));
        locked(&self.open).insert(peer, new.connection.clone());
        // Ends with the connection.
        tokio::spawn(serve_line(self.files.clone(), peer, new.connection.clone()));
        let line = Line {
            generation,
            connection: new.connection,
            dialled: new.dialled,
            since: Instant::now(),
            queue,
            backlog,
            reader,
            writer,
        };
        self.lines.insert(peer, line);
        tracing::debug!(?peer, generation, "a line is up");
        // One through a relay is worth punching for, at once where nothing is being caught up with.
        self.look_at_paths();
    }

    /// Takes a line down: no frame of it reaches the driver after this.
    async fn drop_line(&mut self, peer: DeviceId, code: u32, reason: &'static str) {
        let Some(line) = self.lines.remove(&peer) else { return };
        locked(&self.open).remove(&peer);
        line.reader.abort();
        // Ends with "cancelled", or had ended already.
        let _ = line.reader.await;
        let generation = line.generation;
        drop(line.queue);
        tokio::spawn(finish(line.writer, line.connection, code, reason));
        self.tell(Message::LineDown { peer, generation }).await;
    }

    async fn tell(&self, message: Message) {
        // The driver may have stopped.
        let _ = self.inbox.send(message).await;
    }

    async fn close(mut self) {
        drop(self.news);
        let lines = std::mem::take(&mut self.lines);
        let flushing: Vec<_> = lines
            .into_values()
            .map(|line| {
                line.reader.abort();
                drop(line.queue);
                tokio::spawn(finish(line.writer, line.connection, close_code::STOPPING, "stopping"))
            })
            .collect();
        for line in flushing {
            // A panic in there has been reported already.
            let _ = line.await;
        }
        if timeout(CLOSE_TIMEOUT, self.endpoint.close()).await.is_err() {
            tracing::debug!("the endpoint did not close in time");
        }
    }
}

/// Lets a line's last frames out, then closes the connection.
async fn finish(mut writer: JoinHandle<()>, connection: Connection, code: u32, reason: &'static str) {
    if timeout(FLUSH_TIMEOUT, &mut writer).await.is_err() {
        writer.abort();
    }
    connection.close(VarInt::from_u32(code), reason.as_bytes());
}

/// At most two addresses, and the relay.
fn dial_target(
    peer: DeviceId,
    addresses: &[SocketAddr],
    relay: Option<RelayUrl>,
    me: EndpointId,
) -> Option<EndpointAddr> {
    let id = EndpointId::from_bytes(&peer.0).ok().filter(|id| *id != me)?;
    let direct = addresses
        .iter()
        .filter(|at| is_dialable(at))
        .take(ADDRESSES_PER_DIAL_MAX);
    let relay = relay.map(TransportAddr::Relay);
    let target = EndpointAddr::from_parts(id, direct.map(|at| TransportAddr::Ip(*at)).chain(relay));
    (!target.is_empty()).then_some(target)
}

/// What a dial opens at the gateway, in the order of the addresses.
fn flows_of(target: &EndpointAddr, addresses: &[SocketAddr]) -> Vec<To> {
    let is_tried = |at: &&SocketAddr| target.addrs.contains(&TransportAddr::Ip(**at));
    let direct = addresses.iter().filter(is_tried).map(|at| To::Udp(*at));
    let relays = target.relay_urls().map(|url| To::Tcp(url.to_string()));
    direct.chain(relays).collect()
}

/// The part of a dial's addresses that there are flows for.
fn part(target: &EndpointAddr, granted: &[To]) -> EndpointAddr {
    let is_granted = |address: &&TransportAddr| match address {
        TransportAddr::Ip(at) => granted.contains(&To::Udp(*at)),
        TransportAddr::Relay(url) => granted.contains(&To::Tcp(url.to_string())),
        _ => false,
    };
    EndpointAddr::from_parts(target.id, target.addrs.iter().filter(is_granted).cloned())
}

/// Whether an address can be one of a peer's at all.
pub(crate) fn is_dialable(at: &SocketAddr) -> bool {
    let broadcast = matches!(at.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast() && !broadcast
}

/// Dials for as long as the urgency says, or [`dial::TIMEOUT`] where anything has come back from any of the addresses.
async fn connect_patiently(
    endpoint: Endpoint,
    target: EndpointAddr,
    urgency: Urgency,
    flows: &Flows,
) -> Result<Connected, String> {
    let has_relay = target.relay_urls().next().is_some();
    let addresses: Vec<SocketAddr> = target.ip_addrs().copied().collect();
    let answering = || {
        let answers = |at: &&SocketAddr| flows.with(|ledger, now| ledger.has_answered(&To::Udp(**at), now));
        addresses.iter().find(answers).copied()
    };
    let connecting = connect(endpoint, target);
    tokio::pin!(connecting);
    let patience = dial::patience(urgency, has_relay);
    let mut connected = match timeout(patience, &mut connecting).await {
        Ok(connected) => connected?,
        Err(_) if patience < dial::TIMEOUT && answering().is_some() => {
            let rest = timeout(dial::TIMEOUT - patience, connecting).await;
            rest.map_err(|_| "no handshake in time".to_owned())??
        }
        Err(_) => return Err("no answer".to_owned()),
    };
    // The transport may not have settled on a path yet.
    if connected.address.is_none() && !has_relay {
        connected.address = answering();
    }
    Ok(connected)
}

async fn connect(endpoint: Endpoint, target: EndpointAddr) -> Result<Connected, String> {
    let connection = endpoint
        .connect(target, ALPN)
        .await
        .map_err(|error| error.to_string())?;
    let (mut send, recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
    // A stream exists for the other end once something was written to it.
    send.write_all(&[0]).await.map_err(|error| error.to_string())?;
    Ok(Connected {
        address: direct_address(&connection),
        connection,
        send,
        recv,
        dialled: true,
    })
}

fn direct_address(connection: &Connection) -> Option<SocketAddr> {
    let paths = connection.paths();
    let selected = paths.iter().find(iroh::endpoint::Path::is_selected)?;
    match selected.remote_addr() {
        TransportAddr::Ip(at) => Some(*at),
        _ => None,
    }
}

/// Takes connections from outside, each on a task of its own.
async fn accept(endpoint: Endpoint, open: Lines, news: mpsc::Sender<News>, flows: Arc<Flows>) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = endpoint.accept().await {
        if let IncomingAddr::Ip(at) = incoming.remote_addr()
            && !flows.with(|ledger, now| ledger.may_answer(at, now))
        {
            // A refusal would be a packet too.
            incoming.ignore();
            continue;
        }
        let slot = slots.clone().try_acquire_owned();
        let is_full = locked(&open).len() >= LINES_MAX;
        let (Ok(slot), false) = (slot, is_full) else {
            incoming.refuse();
            continue;
        };
        let news = news.clone();
        tokio::spawn(async move {
            match timeout(HANDSHAKE_TIMEOUT, greet(incoming)).await {
                // The switchboard may be closing.
                Ok(Ok(connected)) => drop(news.send(News::Connected(connected)).await),
                Ok(Err(why)) => tracing::debug!(why, "a connection from outside failed"),
                Err(_) => tracing::debug!("a connection from outside went silent"),
            }
            drop(slot);
        });
    }
}

async fn greet(incoming: Incoming) -> Result<Connected, String> {
    let address = match incoming.remote_addr() {
        IncomingAddr::Ip(at) => Some(at),
        _ => None,
    };
    let accepting = incoming.accept().map_err(|error| error.to_string())?;
    let connection = accepting.await.map_err(|error| error.to_string())?;
    let (send, recv) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    Ok(Connected {
        connection,
        send,
        recv,
        address,
        dialled: false,
    })
}

/// The reading half of a line.
struct Reading {
    peer: DeviceId,
    generation: u64,
    recv: RecvStream,
    connection: Connection,
    inbox: mpsc::Sender<Message>,
    inbox_bytes: Arc<Semaphore>,
    backlog: Arc<Backlog>,
}

impl Reading {
    async fn run(mut self) {
        loop {
            self.backlog.wait_while_slow().await;
            let bytes = match read_frame(&mut self.recv).await {
                Ok(bytes) if bytes.is_empty() => continue,
                Ok(bytes) => bytes,
                Err(FrameError::TooLong(len)) => {
                    tracing::info!(peer = ?self.peer, len, "closing a line: a frame is longer than allowed");
                    self.connection
                        .close(VarInt::from_u32(close_code::BAD_FRAME), b"frame too long");
                    return;
                }
                Err(FrameError::Ended) => return,
            };
            // Frames are far below 2^32 bytes.
            let permits = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let Ok(permit) = self.inbox_bytes.clone().acquire_many_owned(permits).await else {
                return;
            };
            let message = Message::Frame {
                peer: self.peer,
                generation: self.generation,
                bytes,
                _permit: permit,
            };
            if self.inbox.send(message).await.is_err() {
                return;
            }
        }
    }
}

impl Backlog {
    /// Returns at once while the peer takes what is sent to it; else when it has, or after a pause: reading goes on slowly, so that two
    /// ends that both wait for the other do not wait for ever.
    async fn wait_while_slow(&self) {
        let drained = self.drained.notified();
        if self.bytes.load(Ordering::Relaxed) > SEND_BYTES_SLOW {
            // Either way reading goes on.
            let _ = timeout(SLOW_READ_PAUSE, drained).await;
        }
    }

    fn taken(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before - bytes <= SEND_BYTES_SLOW {
            self.drained.notify_waiters();
        }
    }
}

enum FrameError {
    /// The stream or the connection is gone.
    Ended,
    /// The peer claims a frame of this length.
    TooLong(usize),
}

/// The length before a frame.
async fn read_length(recv: &mut RecvStream) -> Result<usize, FrameError> {
    let mut len = 0;
    for shift in (0..).step_by(7).take(LENGTH_BYTES_MAX) {
        let mut byte = [0];
        recv.read_exact(&mut byte).await.map_err(|_| FrameError::Ended)?;
        len |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(len);
        }
    }
    Err(FrameError::TooLong(len))
}

/// One frame. Memory grows with what has arrived, not with what was claimed.
async fn read_frame(recv: &mut RecvStream) -> Result<Vec<u8>, FrameError> {
    let len = read_length(recv).await?;
    if len > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(len));
    }
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + WRITE_BYTES), 0);
        recv.read_exact(&mut bytes[start..])
            .await
            .map_err(|_| FrameError::Ended)?;
    }
    Ok(bytes)
}

/// The writing half of a line: until the queue ends, the peer is gone, or it takes nothing for too long.
async fn write_frames(
    mut send: SendStream,
    connection: Connection,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    backlog: Arc<Backlog>,
) {
    let mut buffer = Vec::new();
    while let Some(frame) = queue.recv().await {
        buffer.clear();
        let mut taken = put_frame(&mut buffer, &frame);
        while buffer.len() < WRITE_BYTES
            && let Ok(frame) = queue.try_recv()
        {
            taken += put_frame(&mut buffer, &frame);
        }
        for chunk in buffer.chunks(CHUNK_BYTES) {
            match timeout(DRAIN_TIMEOUT, send.write_all(chunk)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::info!("closing a line: its peer takes nothing");
                    connection.close(VarInt::from_u32(close_code::NOT_DRAINING), b"not draining");
                    return;
                }
            }
        }
        backlog.taken(taken);
        buffer.shrink_to(WRITE_BYTES * 2);
    }
    // Fails where the stream is closed already; then there is nothing to wait for.
    if send.finish().is_ok() {
        let _ = timeout(FLUSH_TIMEOUT, send.stopped()).await;
    }
}

fn put_frame(buffer: &mut Vec<u8>, frame: &[u8]) -> usize {
    debug_assert!(
        frame.len() <= FRAME_BYTES_MAX,
        "a peer sends no longer frames than it reads"
    );
    put_varint(buffer, frame.len() as u64);
    buffer.extend_from_slice(frame);
    frame.len()
}

/// Where this node can be reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    /// Best first.
    pub(crate) addresses: Vec<SocketAddr>,
    /// The relay that it can be reached through.
    pub(crate) relay: Option<String>,
}

/// Tells the peer its own addresses, at first and whenever they change.
async fn watch_addresses(endpoint: Endpoint, inbox: mpsc::Sender<Message>, own: watch::Sender<Own>) {
    let mut watcher = endpoint.watch_addr();
    let mut now = watcher.get();
    let mut told: Vec<SocketAddr> = Vec::new();
    loop {
        let addresses = own_addresses(&now, &endpoint.bound_sockets());
        let relay = now.relay_urls().next().map(ToString::to_string);
        tracing::debug!(?addresses, ?relay, "own addresses");
        let is_changed = !told.is_empty() && told != addresses;
        told.clone_from(&addresses);
        let seen = Own {
            addresses: addresses.clone(),
            relay: relay.clone(),
        };
        let mut news = vec![Input::OwnAddresses { addresses, relay }];
        if is_changed {
            news.push(Input::NetworkChanged);
        }
        for input in news {
            if inbox.send(Message::Input(input)).await.is_err() {
                return;
            }
        }
        // After the peer, so that who has seen it here can ask the peer for an invite that names it.
        own.send_replace(seen);
        match watcher.updated().await {
            Ok(next) => now = next,
            Err(_) => return,
        }
    }
}

pub(crate) fn locked(lines: &Lines) -> MutexGuard<'_, BTreeMap<DeviceId, Connection>> {
    // The map is whole after a panic, too: every change is one call.
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

mod tend;

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod tests;
