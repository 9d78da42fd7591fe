//! One instance of a cluster: it finds the others, stands by for some, and goes on with what they owned.
//!
//! * [`engine`] NATS: discovery, live state, durable copies
//! * [`detector`] the thread that decides who may act; [`lease`] what it says, for everything that sends; [`mailbox`] what
//!   it is told, and [`turn`] what it tells
//! * [`own`] shards that this instance speaks for; [`standby`] shards held ready; [`place`] who does which
//! * [`stranger`] instances of other versions, which are named and left alone
//! * [`shared`] what all have in common: witnesses, accounts, bindings; [`address`] the address that moves
//!
//! Each instance begins with one *shard*: the calls and bindings of its own address. A shard has one owner at a time,
//! by lease and epoch. Its near standby (same network) takes the address over; its far standby (another failure
//! domain) goes on with the calls as its own, and tells the phones. Until the cluster has its three witnesses
//! nobody takes anything over, and each instance speaks for its own shard without lease.

mod address;
mod detector;
pub(crate) mod engine;
pub(crate) mod lease;
mod mailbox;
mod own;
mod place;
mod shared;
mod standby;
mod stranger;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use offhook_exchange_proto::Input;
use offhook_exchange_proto::detector::{NodeId, Timing};
use offhook_exchange_proto::locator::{Hello, Locator, Role, Shard};
use offhook_exchange_proto::protection::Follow;
use offhook_exchange_proto::registrar::Binding;
use offhook_exchange_proto::route::Account;
use offhook_exchange_proto::wire::{Ack, Announcement, Live, Notice, Wire, WireError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use self::detector::Command;
use self::engine::{Bucket, Change, Engine};
use self::lease::{Lease, Progress, clock};
use self::mailbox::Orders;
use self::own::Own;
use self::shared::Agreed;
pub(crate) use self::shared::binding_key;
use self::standby::Held;
use self::stranger::Strangers;
use self::turn::Heard;
use crate::driver::{self, Asker, Order};
use crate::store::Store;
use crate::view::MemberView;
use crate::{Error, Settings};

/// The number of witnesses, each in its own failure domain.
const WITNESSES: usize = 3;
const TICK: Duration = Duration::from_millis(200);
const HELLO_TICKS: u64 = 5;
/// Watched changes stored in one transaction.
const CHANGES_MAX: usize = 256;
const HELLO_SUBJECT: &str = "offhook.hello";
/// Where instances of all versions say which one they are.
const VERSION_SUBJECT: &str = "offhook.version";

/// Settings of one instance of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The engine's servers, the nearest first: `nats://HOST:PORT`.
    pub engine: Vec<String>,
    /// The failure domain, such as the data centre; by default the machine.
    pub site: String,
    /// What this instance does.
    pub roles: Vec<Role>,
    /// An address of this network that moves to another machine when this one dies; phones use it.
    pub movable: Option<Ipv4Addr>,
    /// UDP port of the detector.
    pub detector_port: u16,
    /// Port on which the engine's servers show their settings.
    pub monitor_port: u16,
    /// How often the engine keeps what is durable; less than 3 is for trials only.
    pub copies: usize,
    /// Whether calls are told to standbys. Off is the control of measurements only.
    pub replicate: bool,
    /// The version spoken between instances. Another one than usual is for trials only.
    pub wire: Wire,
}

impl ClusterSettings {
    /// The usual settings.
    pub fn new(engine: Vec<String>, site: impl Into<String>) -> Self {
        Self {
            engine,
            site: site.into(),
            roles: vec![Role::Calls, Role::Standby, Role::Witness],
            movable: None,
            detector_port: 5070,
            monitor_port: 8222,
            copies: 3,
            replicate: true,
            wire: Wire::default(),
        }
    }
}

/// Where a shard's changes are published.
pub(crate) fn live_subject(shard: NodeId) -> String {
    format!("offhook.live.{shard:x}")
}

fn owner_subject(node: NodeId) -> String {
    format!("offhook.owner.{node:x}")
}

/// One instance.
pub(crate) struct Instance {
    settings: Settings,
    cluster: ClusterSettings,
    node: NodeId,
    started: offhook_exchange_proto::time::Moment,
    store: Store,
    engine: Engine,
    nonces: [u8; 32],
    asker: Asker,
    locator: Locator,
    strangers: Strangers,
    detector: Orders<Command>,
    turns: Heard,
    messages_in: mpsc::Sender<bytes::Bytes>,
    messages: mpsc::Receiver<bytes::Bytes>,
    changes: mpsc::Receiver<Change>,
    recorded: mpsc::UnboundedReceiver<String>,
    /// Shards of others whose calls go on as ours, with their epochs.
    absorbed: BTreeMap<NodeId, Shard>,
    own: BTreeMap<NodeId, Own>,
    held: BTreeMap<NodeId, Held>,
    /// Listening to the changes of a held shard.
    listeners: BTreeMap<NodeId, JoinHandle<()>>,
    joined: BTreeSet<NodeId>,
    home_lease: Arc<Lease>,
    home_progress: Arc<Progress>,
    witnesses: Vec<(NodeId, String)>,
    accounts: BTreeMap<String, Account>,
    elsewhere: BTreeMap<(String, NodeId), Vec<Binding>>,
    leaving: bool,
    tables_changed: bool,
    ticks: u64,
    _tasks: JoinSet<()>,
}

impl Instance {
    /// Connects to the engine and takes its place in the cluster.
    pub(crate) async fn open(settings: Settings, cluster: ClusterSettings, asker: Asker) -> Result<Self, Error> {
        make_ready(&settings, &cluster)?;
        let store = Store::open(&settings.home)?;
        let node = store.node_id()?;
        let (port, copies) = (cluster.monitor_port, cluster.copies);
        let engine = Engine::connect(&cluster.engine, port, copies, cluster.wire).await?;
        let Agreed { nonces, secret } = shared::agree(&engine, &store, &settings).await?;
        let listen = SocketAddr::new(settings.listen, cluster.detector_port);
        let memory = settings.home.clone();
        let (detector, turns) = detector::start(node, listen, secret, cluster.wire, Timing::default(), memory)?;
        let (messages_in, messages) = mpsc::channel(4_096);
        let (changes_in, changes) = mpsc::channel(1_024);
        let (recorded_in, recorded) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(engine.clone().keep_writing(recorded_in));
        for bucket in [Bucket::Config, Bucket::Bindings, Bucket::Records] {
            tasks.spawn(engine.clone().watch(bucket, changes_in.clone()));
        }
        for subject in [
            VERSION_SUBJECT.to_owned(),
            HELLO_SUBJECT.to_owned(),
            owner_subject(node),
        ] {
            tasks.spawn(listen_to(engine.clone(), subject, messages_in.clone()));
        }
        let mut instance = Self {
            settings,
            cluster,
            node,
            started: driver::wall_clock(),
            store,
            engine,
            nonces,
            asker,
            locator: Locator::default(),
            strangers: Strangers::default(),
            detector,
            turns,
            messages_in,
            messages,
            changes,
            recorded,
            absorbed: BTreeMap::new(),
            own: BTreeMap::new(),
            held: BTreeMap::new(),
            listeners: BTreeMap::new(),
            joined: BTreeSet::new(),
            home_lease: Arc::new(Lease::none()),
            home_progress: Arc::default(),
            witnesses: Vec::new(),
            accounts: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            leaving: false,
            tables_changed: false,
            ticks: 0,
            _tasks: tasks,
        };
        instance.offer_witness().await?;
        instance.read_witnesses().await?;
        instance.offer_accounts()?;
        Ok(instance)
    }

    /// Runs until `ending` is dropped, then hands over.
    pub(crate) async fn run(mut self, mut ending: oneshot::Receiver<()>) -> Result<(), Error> {
        let mut changes = Vec::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                Some(turn) = self.turns.next() => self.turned(turn).await?,
                Some(bytes) = self.messages.recv() => self.message(&bytes),
                _ = &mut ending => break,
                count = self.changes.recv_many(&mut changes, CHANGES_MAX) => {
                    if count > 0 {
                        self.changed(changes.drain(..))?;
                    }
                }
                Some(call) = self.recorded.recv() => self.order_all(|| Order::Take(Input::Recorded(call.clone()))),
                _ = tick.tick() => self.tick().await?,
            }
        }
        self.leave().await
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for own in self.own.values() {
            // A driver that is gone is noticed by its task.
            let _ = own.orders.send(order());
        }
    }

    fn message(&mut self, bytes: &[u8]) {
        if let Some(announcement) = Announcement::parse(bytes) {
            return self.strangers.announced(announcement, self.cluster.wire, clock());
        }
        match self.cluster.wire.decode(bytes) {
            Ok(notice) => self.noticed(notice),
            // As good as lost; its sender shows in the list of instances.
            Err(WireError::Version(version)) => self.strangers.heard(version, self.cluster.wire, clock()),
            Err(WireError::Damaged) => {}
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Hello(hello) => self.hello_heard(hello),
            Notice::Live(live) => self.live(live),
            Notice::Ack(Ack {
                shard, number, standby, ..
            }) => self.order(shard, Order::Ack { standby, number }),
            Notice::Resync { shard, standby } => self.order(shard, Order::Resync(standby)),
        }
    }

    fn order(&self, shard: NodeId, order: Order) {
        if let Some(own) = self.own.get(&shard) {
            let _ = own.orders.send(order);
        }
    }

    fn hello_heard(&mut self, hello: Hello) {
        if hello.node == self.node {
            return;
        }
        let unknown = self
            .locator
            .get(hello.node)
            .is_none_or(|known| known.started != hello.started);
        self.locator.heard(hello, clock());
        if unknown {
            // So that a newcomer knows us at once.
            self.say_hello();
            self.place();
        }
    }

    fn live(&mut self, live: Live) {
        let (shard, stream) = (live.shard, live.stream);
        let Some(held) = self.held.get_mut(&shard) else { return };
        let owner = held.owner;
        match held.live(self.node, live) {
            Follow::Ack(number) => {
                let ack = Ack {
                    shard,
                    stream,
                    number,
                    standby: self.node,
                };
                self.engine.publish(owner_subject(owner), &Notice::Ack(ack));
            }
            Follow::AskWhole => self.ask_whole(shard),
            Follow::Wait => {}
        }
    }

    fn ask_whole(&mut self, shard: NodeId) {
        let Some(held) = self.held.get_mut(&shard) else { return };
        if held.may_ask() {
            let resync = Notice::Resync {
                shard,
                standby: self.node,
            };
            self.engine.publish(owner_subject(held.owner), &resync);
        }
    }

    async fn tick(&mut self) -> Result<(), Error> {
        self.ticks += 1;
        if self.store.changed_by_others()? {
            self.offer_accounts()?;
        }
        self.push_tables();
        self.begin_home().await?;
        self.look_after_drivers().await?;
        self.place();
        self.ask_where_stuck();
        self.give_back();
        if self.ticks.is_multiple_of(HELLO_TICKS) {
            self.locator.expire(clock());
            self.strangers.expire(clock());
            let witnesses: Vec<NodeId> = self.witnesses.iter().map(|(node, _)| *node).collect();
            self.strangers.look_at_witnesses(&witnesses, clock());
            self.say_hello();
        }
        self.asker.set_members(self.members());
        Ok(())
    }

    fn tell_detector(&self, command: Command) {
        self.detector.put(command);
    }

    fn hello(&self) -> Hello {
        let network = self.cluster.movable.map(network_of).unwrap_or_default();
        let owns = self
            .own
            .values()
            .map(|own| own.shard)
            .chain(self.absorbed.values().copied());
        Hello {
            node: self.node,
            started: self.started,
            site: self.cluster.site.clone(),
            network,
            detector: detector::listening(self.settings.listen, self.cluster.detector_port),
            roles: self.cluster.roles.clone(),
            owns: owns.collect(),
            holds: self
                .held
                .iter()
                .filter(|(_, held)| held.is_complete())
                .map(|(id, _)| *id)
                .collect(),
            leaving: self.leaving,
        }
    }

    fn say_hello(&self) {
        let announcement = Announcement {
            version: self.cluster.wire.0,
            node: self.node,
            address: self.settings.listen,
            site: self.cluster.site.clone(),
        };
        self.engine
            .publish_bytes(VERSION_SUBJECT.to_owned(), announcement.to_string().into_bytes());
        self.engine
            .publish(HELLO_SUBJECT.to_owned(), &Notice::Hello(self.hello()));
    }

    fn members(&self) -> Vec<MemberView> {
        let mut locator = self.locator.clone();
        locator.heard(self.hello(), clock());
        let shard = |shard: &Shard| {
            let absorbed = if shard.absorbed { " (absorbed)" } else { "" };
            format!("{:x}@{} epoch {}{absorbed}", shard.id, shard.address, shard.epoch)
        };
        let view = |(hello, silent_ms): (&Hello, u64)| MemberView {
            node: format!("{:x}", hello.node),
            site: hello.site.clone(),
            address: hello.detector.ip().to_string(),
            witness: self.witnesses.iter().any(|(node, _)| *node == hello.node),
            owns: hello.owns.iter().map(shard).collect(),
            stands_by: hello.holds.iter().map(|id| format!("{id:x}")).collect(),
            silent_ms,
            version: self.cluster.wire.0,
            understood: true,
        };
        let strangers = self.strangers.all(clock()).map(|(stranger, silent_ms)| MemberView {
            node: format!("{:x}", stranger.node),
            site: stranger.site.clone(),
            address: stranger.address.to_string(),
            witness: self.witnesses.iter().any(|(node, _)| *node == stranger.node),
            owns: Vec::new(),
            stands_by: Vec::new(),
            silent_ms,
            version: stranger.version,
            understood: false,
        });
        locator.all(clock()).map(view).chain(strangers).collect()
    }
}

/// What the machine must allow, and what an earlier process left.
fn make_ready(settings: &Settings, cluster: &ClusterSettings) -> Result<(), Error> {
    // Four sockets a call, and as many for those held ready; what the system allows has to do.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    if settings.listen.is_unspecified() {
        return Err(Error::Cluster(
            "say which address this instance has, with --listen IP".to_owned(),
        ));
    }
    if let Some(address) = cluster.movable {
        if address::interface_of(address).is_none() {
            return Err(Error::Cluster(format!(
                "no interface of this machine is on the network of {address}"
            )));
        }
        address::drop_leftover(address);
    }
    Ok(())
}

/// The interface's own network names the neighbourhood of an address.
fn network_of(address: Ipv4Addr) -> String {
    let interface = address::interface_of(address);
    let networks = interface.into_iter().flat_map(|interface| interface.ips);
    let mut holding = networks.filter(|network| network.prefix() < 32 && network.contains(address.into()));
    holding
        .next()
        .map(|network| format!("{}/{}", network.network(), network.prefix()))
        .unwrap_or_default()
}

/// Passes on what is published under a subject, for ever.
async fn listen_to(engine: Engine, subject: String, messages: mpsc::Sender<bytes::Bytes>) {
    loop {
        if let Ok(mut subscriber) = engine.subscribe(subject.clone()).await {
            while let Some(message) = subscriber.next().await {
                if messages.send(message.payload).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
}
