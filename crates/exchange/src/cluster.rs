//! One instance of a cluster: it finds the others, stands by for some, and goes on with what they owned.
//!
//! * [`engine`] NATS: discovery, live state, durable copies
//! * [`detector`] the thread that decides who may act; [`lease`] what it says, for everything that sends
//! * [`standby`] shards held ready; [`address`] the address that moves
//!
//! Each instance begins with one *shard*: the calls and bindings of its own address. A shard has one owner at a time,
//! by lease and epoch. Its near standby (same network) takes the address over; its far standby (another failure
//! domain) goes on with the calls as its own, and tells the phones. Until the cluster has its three witnesses
//! nobody takes anything over, and each instance speaks for its own shard without lease.

mod address;
mod detector;
pub(crate) mod engine;
pub(crate) mod lease;
mod standby;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use offhook_exchange_proto::bridge::CallRecord;
use offhook_exchange_proto::detector::{NodeId, Timing};
use offhook_exchange_proto::locator::{Hello, Locator, Role, Shard, Standing};
use offhook_exchange_proto::protection::Follow;
use offhook_exchange_proto::registrar::Binding;
use offhook_exchange_proto::replica::decode;
use offhook_exchange_proto::route::{Account, Tables};
use offhook_exchange_proto::sip::digest::Secret;
use offhook_exchange_proto::wire::{Ack, Notice};
use offhook_exchange_proto::{Input, Place, wire};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use self::detector::{Command, Join, Turn};
use self::engine::{Bucket, Change, Engine};
use self::lease::{Lease, clock};
use self::standby::Held;
use crate::driver::{self, Asker, Opening, Order, Replication};
use crate::relay::Relay;
use crate::store::Store;
use crate::view::MemberView;
use crate::{Error, Settings};

/// Heartbeats missed before a claim: by the first and the second standby, by one that lacks something, and by an
/// instance that begins with its shard.
const MISSES_FIRST: u64 = 3;
const MISSES_SECOND: u64 = 8;
const MISSES_LACKING: u64 = 150;
const MISSES_HOME: u64 = 15;
/// The number of witnesses, each in its own failure domain.
const WITNESSES: usize = 3;
const TICK: Duration = Duration::from_millis(200);
const HELLO_TICKS: u64 = 5;
/// How long the first instance of a shard must hold it completely before it gets it back.
const RETURN_AFTER: Duration = Duration::from_secs(10);
/// How long a stopping instance waits for its calls when nobody stands by.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How long it stays after it has handed over, so that what is under way gets out.
const LINGER: Duration = Duration::from_millis(500);
/// Watched changes stored in one transaction.
const CHANGES_MAX: usize = 256;
const HELLO_SUBJECT: &str = "offhook.hello";

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

/// The key of an account's bindings at a shard; names are written in hexadecimal, for keys allow few characters.
pub(crate) fn binding_key(shard: NodeId, account: &str) -> String {
    format!("{shard:x}.{}", hex(account))
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<String> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let bytes = digits
        .chunks(2)
        .map(|pair| Some(pair[0] << 4 | pair.get(1)?))
        .collect::<Option<_>>()?;
    String::from_utf8(bytes).ok()
}

/// A shard that this instance speaks for.
struct Own {
    shard: Shard,
    orders: mpsc::UnboundedSender<Order>,
    task: JoinHandle<Result<(), Error>>,
    lease: Arc<Lease>,
    /// While it is held, the address is ours.
    _address: Option<address::Held>,
    /// Since when its first instance could take it back.
    returnable: Option<Instant>,
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
    detector: std::sync::mpsc::Sender<Command>,
    turns: mpsc::UnboundedReceiver<Turn>,
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
    joined: std::collections::BTreeSet<NodeId>,
    home_lease: Arc<Lease>,
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
        let store = Store::open(&settings.home)?;
        let node = store.node_id()?;
        let engine = Engine::connect(&cluster.engine, cluster.monitor_port, cluster.copies).await?;
        let nonces = shared_key(&engine, "nonces", store.nonce_key()?).await?;
        let secret = shared_key(&engine, "secret", crate::random()?).await?;
        let domain = engine
            .create(Bucket::Config, "domain", settings.domain.clone().into_bytes())
            .await?;
        let domain = String::from_utf8_lossy(&domain).into_owned();
        if domain != settings.domain {
            return Err(Error::Cluster(format!(
                "this cluster is for the domain {domain}: say --domain {domain}"
            )));
        }
        let listen = SocketAddr::new(settings.listen, cluster.detector_port);
        let (detector, turns) = detector::start(node, listen, secret, Timing::default(), settings.home.clone())?;
        let (messages_in, messages) = mpsc::channel(4_096);
        let (changes_in, changes) = mpsc::channel(1_024);
        let (recorded_in, recorded) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(engine.clone().keep_writing(recorded_in));
        for bucket in [Bucket::Config, Bucket::Bindings, Bucket::Records] {
            tasks.spawn(engine.clone().watch(bucket, changes_in.clone()));
        }
        for subject in [HELLO_SUBJECT.to_owned(), owner_subject(node)] {
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
            joined: Default::default(),
            home_lease: Arc::new(Lease::none()),
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

    /// Takes a place among the witnesses while there is one free, and none in this failure domain.
    async fn offer_witness(&mut self) -> Result<(), Error> {
        if !self.cluster.roles.contains(&Role::Witness) {
            return Ok(());
        }
        let (node, site) = (self.node, self.cluster.site.clone());
        let add = move |held: Option<&[u8]>| {
            let mut witnesses: Vec<(NodeId, String)> = held.and_then(|held| decode(held).ok()).unwrap_or_default();
            let full = witnesses.len() >= WITNESSES;
            if full || witnesses.iter().any(|(id, at)| *id == node || *at == site) {
                return None;
            }
            witnesses.push((node, site.clone()));
            Some(offhook_exchange_proto::replica::encode(&witnesses))
        };
        self.engine.update(Bucket::Config, "witnesses", add).await
    }

    /// Read once before anything is spoken for: with all witnesses there, only a lease allows that.
    async fn read_witnesses(&mut self) -> Result<(), Error> {
        let held = self.engine.get(Bucket::Config, "witnesses").await?;
        self.witnesses_changed(held.as_deref());
        Ok(())
    }

    fn witnesses_changed(&mut self, value: Option<&[u8]>) {
        self.witnesses = value.and_then(|value| decode(value).ok()).unwrap_or_default();
        if self.witnesses.len() == WITNESSES {
            let nodes = self.witnesses.iter().map(|(node, _)| *node).collect();
            self.tell_detector(Command::Witnesses(nodes));
        }
    }

    /// Runs until `ending` is dropped, then hands over.
    pub(crate) async fn run(mut self, mut ending: oneshot::Receiver<()>) -> Result<(), Error> {
        let mut changes = Vec::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                Some(turn) = self.turns.recv() => self.turned(turn).await?,
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
        // One of another version, or damaged, is as good as lost; its sender shows in the list of instances.
        let Ok(notice) = wire::decode(bytes) else { return };
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

    fn live(&mut self, live: wire::Live) {
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
        self.give_back();
        if self.ticks.is_multiple_of(HELLO_TICKS) {
            self.locator.expire(clock());
            self.say_hello();
        }
        self.asker.set_members(self.members());
        Ok(())
    }

    /// Takes part in the own shard: with a lease once the witnesses are complete, freely before.
    async fn begin_home(&mut self) -> Result<(), Error> {
        if !self.cluster.roles.contains(&Role::Calls) {
            return Ok(());
        }
        let complete = self.witnesses.len() == WITNESSES;
        if complete && !self.joined.contains(&self.node) {
            // A driver that ran freely waits for its lease from now on.
            self.home_lease.set(None);
            self.joined.insert(self.node);
            let join = Join {
                shard: self.node,
                home: true,
                misses: MISSES_HOME,
                lease: self.home_lease.clone(),
            };
            self.tell_detector(Command::Join(join));
        }
        let waited = self.ticks >= HELLO_TICKS;
        if !complete && waited && !self.own.contains_key(&self.node) {
            self.home_lease
                .set(Some(offhook_exchange_proto::time::Moment(u64::MAX)));
            let shard = self.home_shard(0);
            self.start_driver(shard, None, self.home_lease.clone()).await?;
        }
        Ok(())
    }

    fn home_shard(&self, epoch: u64) -> Shard {
        let movable = self.cluster.movable.map(IpAddr::V4);
        Shard {
            id: self.node,
            epoch,
            address: movable.unwrap_or(self.settings.listen),
            movable: movable.is_some(),
            absorbed: false,
        }
    }

    /// A driver that failed ends the instance: one way to recover, the one that is always tried.
    async fn look_after_drivers(&mut self) -> Result<(), Error> {
        let ended = self
            .own
            .iter()
            .find(|(_, own)| own.task.is_finished())
            .map(|(shard, _)| *shard);
        if let Some(own) = ended.and_then(|shard| self.own.remove(&shard)) {
            own.task.await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    fn tell_detector(&self, command: Command) {
        // The thread ends only with us.
        let _ = self.detector.send(command);
    }

    /// Decides for whom to stand by, and tells owners and detector who is who.
    fn place(&mut self) {
        let now = clock();
        let addresses = self
            .locator
            .all(now)
            .map(|(hello, _)| (hello.node, hello.detector))
            .collect();
        self.tell_detector(Command::Addresses(addresses));
        let mut shards = self.locator.shards();
        for own in self.own.values() {
            shards.insert(own.shard.id, (own.shard, self.node));
        }
        for (id, (shard, owner)) in &shards {
            if *owner == self.node || self.absorbed.contains_key(id) {
                continue;
            }
            let alive = self.locator.alive(now).any(|hello| hello.node == *owner);
            let standing = self
                .standbys(shard, *owner)
                .into_iter()
                .find(|(node, _)| *node == self.node);
            match standing {
                // Lost before we had it: begin anew.
                _ if *id == self.node && !alive && self.held.get(id).is_some_and(|held| !held.is_complete()) => {
                    self.let_go(*id);
                }
                Some((_, standing)) => self.hold(*shard, *owner, standing),
                None if alive => self.let_go(*id),
                // Gone without a successor so far: whoever held it still does.
                None => {}
            }
        }
        self.place_own();
        self.place_held();
    }

    /// We know ourselves without hearing ourselves.
    fn standbys(&self, shard: &Shard, owner: NodeId) -> Vec<(NodeId, Standing)> {
        let mut locator = self.locator.clone();
        locator.heard(self.hello(), clock());
        locator.standbys(shard, owner, clock())
    }

    fn hold(&mut self, shard: Shard, owner: NodeId, standing: Standing) {
        if !self.cluster.roles.contains(&Role::Standby) || self.leaving || self.own.contains_key(&shard.id) {
            return;
        }
        let same = self.held.get(&shard.id).is_some_and(|held| held.standing == standing);
        if !same {
            let lease = if shard.id == self.node {
                self.home_lease.clone()
            } else {
                Arc::new(Lease::none())
            };
            self.held
                .insert(shard.id, Held::new(shard, owner, standing, lease.clone()));
            let listener = listen_to(self.engine.clone(), live_subject(shard.id), self.messages_in.clone());
            if let Some(old) = self.listeners.insert(shard.id, tokio::spawn(listener)) {
                old.abort();
            }
            self.joined.insert(shard.id);
            self.tell_detector(Command::Join(Join {
                shard: shard.id,
                home: false,
                misses: MISSES_LACKING,
                lease,
            }));
        }
        if let Some(held) = self.held.get_mut(&shard.id) {
            held.owner = owner;
            held.shard = shard;
        }
    }

    fn let_go(&mut self, shard: NodeId) {
        if self.held.remove(&shard).is_some() {
            self.stop_listening(shard);
            self.joined.remove(&shard);
            self.tell_detector(Command::Leave(shard));
        }
    }

    fn stop_listening(&mut self, shard: NodeId) {
        if let Some(listener) = self.listeners.remove(&shard) {
            listener.abort();
        }
    }

    fn place_own(&mut self) {
        let now = clock();
        let everyone: Vec<NodeId> = self.locator.alive(now).map(|hello| hello.node).collect();
        for own in self.own.values() {
            let standbys = self.standbys(&own.shard, self.node);
            let nodes: Vec<NodeId> = standbys.iter().map(|(node, _)| *node).collect();
            let _ = own
                .orders
                .send(Order::Standbys(if self.cluster.replicate { nodes } else { Vec::new() }));
            self.tell_detector(Command::Adjust {
                shard: own.shard.id,
                misses: MISSES_LACKING,
                peers: everyone.clone(),
            });
        }
        for shard in self.absorbed.keys() {
            self.tell_detector(Command::Adjust {
                shard: *shard,
                misses: MISSES_LACKING,
                peers: everyone.clone(),
            });
        }
    }

    fn place_held(&mut self) {
        let lacking: Vec<NodeId> = self
            .held
            .iter()
            .filter(|(_, held)| !held.is_complete())
            .map(|(id, _)| *id)
            .collect();
        for shard in lacking {
            self.ask_whole(shard);
        }
        for (id, held) in &self.held {
            let first = self.standbys(&held.shard, held.owner).first().map(|(node, _)| *node) == Some(self.node);
            let misses = match (held.is_complete(), first) {
                (false, _) => MISSES_LACKING,
                (true, true) => MISSES_FIRST,
                (true, false) => MISSES_SECOND,
            };
            self.tell_detector(Command::Adjust {
                shard: *id,
                misses,
                peers: Vec::new(),
            });
        }
    }

    /// Gives shards back to the instances that they began with, once these are there again.
    fn give_back(&mut self) {
        let now = clock();
        let returned: Vec<NodeId> = self
            .absorbed
            .keys()
            .copied()
            .filter(|id| self.locator.alive(now).any(|hello| hello.node == *id && !hello.leaving))
            .collect();
        for shard in returned {
            self.absorbed.remove(&shard);
            self.tell_detector(Command::Release {
                shard,
                successor: shard,
            });
        }
        let mut ripe = Vec::new();
        for (id, own) in self.own.iter_mut().filter(|(id, _)| **id != self.node) {
            let back = self
                .locator
                .alive(now)
                .any(|hello| hello.node == *id && hello.holds.contains(id));
            own.returnable = own.returnable.filter(|_| back).or(back.then(Instant::now));
            if own.returnable.is_some_and(|since| since.elapsed() >= RETURN_AFTER) {
                ripe.push(*id);
            }
        }
        for shard in ripe {
            self.hand_over(shard, shard);
        }
    }

    /// Another instance goes on with a shard, at once.
    fn hand_over(&mut self, shard: NodeId, successor: NodeId) {
        self.tell_detector(Command::Release { shard, successor });
    }

    async fn turned(&mut self, turn: Turn) -> Result<(), Error> {
        match turn {
            Turn::Owned { shard, epoch } => self.owned(shard, epoch).await?,
            Turn::Lost { shard } => self.lost(shard).await?,
        }
        self.say_hello();
        self.place();
        Ok(())
    }

    async fn owned(&mut self, id: NodeId, epoch: u64) -> Result<(), Error> {
        if let Some(own) = self.own.get_mut(&id) {
            own.shard.epoch = epoch;
            let _ = own.orders.send(Order::Epoch(epoch));
            return Ok(());
        }
        if let Some(shard) = self.absorbed.get_mut(&id) {
            shard.epoch = epoch;
            return Ok(());
        }
        self.stop_listening(id);
        match self.held.remove(&id) {
            Some(held) if held.standing == Standing::Near => {
                let shard = Shard { epoch, ..held.shard };
                self.start_driver(shard, Some(held), self.lease_of(id)).await
            }
            Some(held) => {
                self.absorb(Shard { epoch, ..held.shard }, held);
                Ok(())
            }
            None if id == self.node => {
                let shard = self.home_shard(epoch);
                self.start_driver(shard, None, self.home_lease.clone()).await
            }
            None => Ok(()),
        }
    }

    fn lease_of(&self, shard: NodeId) -> Arc<Lease> {
        match self.own.get(&shard) {
            Some(own) => own.lease.clone(),
            None => self.home_lease.clone(),
        }
    }

    /// The calls of another shard go on as ours.
    fn absorb(&mut self, shard: Shard, held: Held) {
        let (records, _) = held.take_over();
        self.order(self.node, Order::Absorb(records));
        self.absorbed.insert(
            shard.id,
            Shard {
                absorbed: true,
                ..shard
            },
        );
    }

    async fn lost(&mut self, shard: NodeId) -> Result<(), Error> {
        self.absorbed.remove(&shard);
        if let Some(own) = self.own.remove(&shard) {
            self.asker.remove(shard);
            drop(own.orders);
            // The sockets close with it.
            own.task.await.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    async fn start_driver(&mut self, shard: Shard, held: Option<Held>, lease: Arc<Lease>) -> Result<(), Error> {
        let lease = held.as_ref().map_or(lease, |held| held.lease.clone());
        let address = match shard.address {
            IpAddr::V4(address) if shard.movable => {
                let taken = address::Held::take(address);
                Some(taken.map_err(|error| Error::Cluster(format!("cannot take {address}: {error}")))?)
            }
            _ => None,
        };
        let (records, relay) = held.map(Held::take_over).unwrap_or_default();
        let mut config = driver::config_of(&self.settings, shard.address);
        config.node = shard.id;
        config.epoch = shard.epoch;
        config.replicate = self.cluster.replicate;
        let stream = u64::from_le_bytes(crate::random()?);
        let (questions_in, questions) = mpsc::channel(64);
        let (orders, orders_out) = mpsc::unbounded_channel();
        let store = Store::open(&self.settings.home)?;
        let opening = Opening {
            settings: &self.settings,
            config,
            listen: shard.address,
            tables: self.tables(),
            nonces: self.nonces,
            relay: relay.unwrap_or_else(|| Relay::new(shard.address, lease.clone())),
            lease: lease.clone(),
            replication: Some(Replication::new(self.engine.clone(), shard.id, stream)),
            store,
        };
        let mut running = driver::open(opening, questions, orders_out).await?;
        if shard.id == self.node && records.is_empty() {
            for (account, bindings) in self.store.bindings()? {
                running.driver.exchange.restore_bindings(&account, bindings);
            }
        }
        for ((account, node), bindings) in self.elsewhere.iter().filter(|((_, node), _)| *node != shard.id) {
            let known = Input::Elsewhere {
                account: account.clone(),
                node: *node,
                bindings: bindings.clone(),
            };
            let _ = running.driver.exchange.handle(known, Instant::now());
        }
        let adopted = driver::adopt(&mut running.driver.exchange, &records, Place::Same);
        self.asker.add(shard.id, questions_in);
        let own = Own {
            shard,
            orders,
            task: tokio::spawn(running.run(adopted)),
            lease,
            _address: address,
            returnable: None,
        };
        self.own.insert(shard.id, own);
        Ok(())
    }

    fn tables(&self) -> Tables {
        Tables::new(self.accounts.values().cloned().collect())
    }

    fn changed(&mut self, changes: impl Iterator<Item = Change>) -> Result<(), Error> {
        self.store.begin()?;
        for change in changes {
            self.change(change)?;
        }
        self.store.end()?;
        self.push_tables();
        Ok(())
    }

    fn change(&mut self, change: Change) -> Result<(), Error> {
        match change.bucket {
            Bucket::Config => self.config_changed(&change.key, change.value.as_deref()),
            Bucket::Bindings => {
                self.bindings_changed(&change.key, change.value.as_deref());
                Ok(())
            }
            Bucket::Records => match change.value.and_then(|value| decode::<CallRecord>(&value).ok()) {
                Some(record) => self.store.put_record(&record),
                None => Ok(()),
            },
            Bucket::Calls => Ok(()),
        }
    }

    fn config_changed(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Error> {
        if key == "witnesses" {
            self.witnesses_changed(value);
            return Ok(());
        }
        let Some(name) = key.strip_prefix("account.").and_then(unhex) else {
            return Ok(());
        };
        match value.and_then(|value| decode::<AccountRow>(value).ok()) {
            Some((sha256, md5, extension)) => {
                let account = Account {
                    name: name.clone(),
                    secret: Secret { sha256, md5 },
                    extension,
                };
                self.store.put_account(&account)?;
                self.accounts.insert(name, account);
            }
            None => {
                self.store.remove_account(&name)?;
                self.accounts.remove(&name);
            }
        }
        self.tables_changed = true;
        Ok(())
    }

    /// Many accounts may have changed at once: drivers are told of all together.
    fn push_tables(&mut self) {
        if std::mem::take(&mut self.tables_changed) {
            let tables = self.tables();
            self.order_all(|| Order::Take(Input::Tables(tables.clone())));
        }
    }

    /// What was added to or removed from this instance's store goes to everybody.
    fn offer_accounts(&mut self) -> Result<(), Error> {
        let local: BTreeMap<String, Account> = self
            .store
            .accounts()?
            .into_iter()
            .map(|account| (account.name.clone(), account))
            .collect();
        for (name, account) in &local {
            if self.accounts.get(name) != Some(account) {
                let row: AccountRow = (
                    account.secret.sha256.clone(),
                    account.secret.md5.clone(),
                    account.extension.clone(),
                );
                let value = offhook_exchange_proto::replica::encode(&row);
                self.engine
                    .write(Bucket::Config, format!("account.{}", hex(name)), Some(value));
            }
        }
        for name in self.accounts.keys().filter(|name| !local.contains_key(*name)) {
            self.engine
                .write(Bucket::Config, format!("account.{}", hex(name)), None);
        }
        if local != self.accounts {
            self.accounts = local;
            self.tables_changed = true;
        }
        Ok(())
    }

    fn bindings_changed(&mut self, key: &str, value: Option<&[u8]>) {
        let Some((shard, account)) = key.split_once('.') else {
            return;
        };
        let (Ok(node), Some(account)) = (NodeId::from_str_radix(shard, 16), unhex(account)) else {
            return;
        };
        let bindings: Vec<Binding> = value.and_then(|value| decode(value).ok()).unwrap_or_default();
        for own in self.own.values().filter(|own| own.shard.id != node) {
            let news = Input::Elsewhere {
                account: account.clone(),
                node,
                bindings: bindings.clone(),
            };
            let _ = own.orders.send(Order::Take(news));
        }
        if bindings.is_empty() {
            self.elsewhere.remove(&(account, node));
        } else {
            self.elsewhere.insert((account, node), bindings);
        }
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
        };
        locator.all(clock()).map(view).collect()
    }

    /// Hands every shard to a standby that has everything, or waits for the calls to end where there is none.
    async fn leave(&mut self) -> Result<(), Error> {
        self.leaving = true;
        self.say_hello();
        let shards: Vec<NodeId> = self.own.keys().copied().collect();
        let mut alone = false;
        for shard in shards {
            let holder = |node: &NodeId| {
                self.locator
                    .get(*node)
                    .is_some_and(|hello| hello.holds.contains(&shard))
            };
            let standbys = self.own.get(&shard).map(|own| self.standbys(&own.shard, self.node));
            let mut standbys = standbys.unwrap_or_default().into_iter().map(|(node, _)| node);
            match standbys.find(holder) {
                Some(successor) => self.hand_over(shard, successor),
                None => {
                    alone = true;
                    self.order(shard, Order::Take(Input::Drain));
                }
            }
        }
        let absorbed: Vec<NodeId> = self.absorbed.keys().copied().collect();
        absorbed.into_iter().for_each(|shard| self.hand_over(shard, shard));
        let until = Instant::now() + DRAIN_MAX;
        while alone && Instant::now() < until && !self.asker.calls().await.is_empty() {
            tokio::time::sleep(TICK).await;
        }
        tokio::time::sleep(LINGER).await;
        let shards: Vec<NodeId> = self.own.keys().copied().collect();
        for shard in shards {
            self.lost(shard).await?;
        }
        // Call records that the engine has not confirmed are with the standbys; what is left gets a last chance.
        let until = Instant::now() + Duration::from_secs(2);
        while self.engine.backlog() > 0 && Instant::now() < until {
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }
}

/// An account as it is kept under its name.
type AccountRow = (String, String, Option<String>);

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

/// 32 octets that all instances share: whoever comes first has drawn them.
async fn shared_key(engine: &Engine, name: &str, fresh: [u8; 32]) -> Result<[u8; 32], Error> {
    let held = engine.create(Bucket::Config, name, fresh.to_vec()).await?;
    let wrong = |_| Error::Engine(format!("{name} in the engine is damaged"));
    <[u8; 32]>::try_from(&held[..]).map_err(wrong)
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
