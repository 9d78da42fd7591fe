//! The event loop of a shard: arrivals, deadlines, orders and questions in; then store, replicate, relay, send, in
//! this order. A single machine has one shard; an instance of a cluster may speak for several.
//!
//! What has arrived is taken in batches, and a batch is committed once: persist, then send, and group commit for free.
//! A store error is fatal: nothing is acknowledged that the disk refused.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use offhook_exchange_proto::detector::{Mark, NodeId};
use offhook_exchange_proto::protection::Protection;
use offhook_exchange_proto::replica::{Key, Record};
use offhook_exchange_proto::route::Tables;
use offhook_exchange_proto::time::Moment;
use offhook_exchange_proto::wire::{Live, Notice, Part, RECORDS_MAX};
use offhook_exchange_proto::{Config, Exchange, Input, Outputs, Place, Seeds};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::cluster::engine::{Bucket, Engine};
use crate::cluster::lease::{Lease, Progress, clock};
use crate::cluster::{self, Instance};
use crate::control::{self, Answer, Ask};
use crate::relay::Relay;
use crate::signalling::{Arrival, Listen, Rsipstack, SipSignalling};
use crate::store::{Store, make_home};
use crate::view::{self, LiveCall, LivePhone, MemberView};
use crate::{Error, Settings, metrics, tls};

/// Arrivals waiting for the loop; sockets wait when it is full.
const ARRIVALS: usize = 4_096;
/// Most inputs in one batch, hence in one commit.
const BATCH: usize = 1_024;
/// Least time between commits while more arrives: one serves many, and an answer comes so much later at most.
const COMMIT_PACE: Duration = Duration::from_millis(5);
/// How often the store is looked at for accounts added by another process.
const ACCOUNTS_POLL: Duration = Duration::from_millis(500);
/// Records of another shard taken over in one commit.
const ABSORBED_AT_ONCE: usize = 64;
/// How soon a shard without its lease looks again.
const UNLEASED_NAP: Duration = Duration::from_millis(5);

/// A question to the driver of a shard.
pub(crate) enum Question {
    Calls(oneshot::Sender<Vec<LiveCall>>),
    Phones(oneshot::Sender<Vec<LivePhone>>),
    Metrics(oneshot::Sender<String>),
    ForwardedByPort(oneshot::Sender<BTreeMap<u16, u64>>),
}

/// What the driver of a shard is told, beyond what phones say.
pub(crate) enum Order {
    /// Pass it to the exchange.
    Take(Input),
    /// Who stands by.
    Standbys(Vec<NodeId>),
    /// A standby has everything up to this number.
    Ack { standby: NodeId, number: u64 },
    /// A standby asks for everything.
    Resync(NodeId),
    /// The shard is owned under this epoch now.
    Epoch(u64),
    /// Go on with another shard's calls, from here.
    Absorb(Vec<Record>),
}

/// Asks a running exchange; can be copied.
#[derive(Clone, Default)]
pub struct Asker {
    shards: Arc<Mutex<BTreeMap<NodeId, mpsc::Sender<Question>>>>,
    members: Arc<Mutex<Vec<MemberView>>>,
}

/// A running exchange.
pub struct Node {
    asker: Asker,
    task: JoinHandle<Result<(), Error>>,
    end: Option<oneshot::Sender<()>>,
    _doors: JoinSet<()>,
    banner: String,
    home: PathBuf,
}

impl Node {
    /// Opens the store and the sockets and starts.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let asker = Asker::default();
        let doors = open_doors(&settings, &asker).await?;
        let (end, ending) = oneshot::channel();
        let (banner, home) = (banner(&settings), settings.home.clone());
        let task = match settings.cluster.clone() {
            Some(cluster) => tokio::spawn(Instance::open(settings, cluster, asker.clone()).await?.run(ending)),
            None => tokio::spawn(run_alone(open_alone(&settings, &asker).await?, ending)),
        };
        Ok(Self {
            asker,
            task,
            end: Some(end),
            _doors: doors,
            banner,
            home,
        })
    }

    /// Where it listens, for people.
    pub fn banner(&self) -> &str {
        &self.banner
    }

    /// Asks it.
    pub fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Live calls; none when it has stopped.
    pub async fn calls(&self) -> Vec<LiveCall> {
        self.asker.calls().await
    }

    /// Registered phones.
    pub async fn phones(&self) -> Vec<LivePhone> {
        self.asker.phones().await
    }

    /// Metrics in Prometheus' text format.
    pub async fn metrics(&self) -> String {
        self.asker.metrics().await
    }

    /// RTP packets sent to the phone behind each media port.
    pub async fn forwarded_by_port(&self) -> BTreeMap<u16, u64> {
        let all = self.asker.ask(Question::ForwardedByPort).await;
        all.into_iter().flatten().collect()
    }

    /// Returns when it has stopped by itself; [`Node::stop`] tells why.
    pub async fn stopped(&mut self) -> Result<(), Error> {
        (&mut self.task).await.unwrap_or(Ok(()))
    }

    /// Stops: of several instances, this one hands its calls over first.
    pub async fn stop(mut self) -> Result<(), Error> {
        drop(self.end.take());
        let ended = match self.task.is_finished() {
            true => Ok(()),
            false => self.stopped().await,
        };
        let _ = std::fs::remove_file(control::socket_path(&self.home));
        ended
    }
}

impl Asker {
    /// All shards' answers, one after another.
    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Question) -> Vec<T> {
        let shards: Vec<_> = lock(&self.shards).values().cloned().collect();
        let mut answers = Vec::new();
        for shard in shards {
            let (reply, answer) = oneshot::channel();
            if shard.send(question(reply)).await.is_ok() {
                answers.extend(answer.await.ok());
            }
        }
        answers
    }

    pub(crate) fn add(&self, shard: NodeId, questions: mpsc::Sender<Question>) {
        lock(&self.shards).insert(shard, questions);
    }

    pub(crate) fn remove(&self, shard: NodeId) {
        lock(&self.shards).remove(&shard);
    }

    pub(crate) fn set_members(&self, members: Vec<MemberView>) {
        *lock(&self.members) = members;
    }

    /// Live calls.
    pub async fn calls(&self) -> Vec<LiveCall> {
        self.ask(Question::Calls).await.into_iter().flatten().collect()
    }

    /// Registered phones.
    pub async fn phones(&self) -> Vec<LivePhone> {
        self.ask(Question::Phones).await.into_iter().flatten().collect()
    }

    /// Metrics in Prometheus' text format; of several shards, the sums.
    pub async fn metrics(&self) -> String {
        view::summed(&self.ask(Question::Metrics).await)
    }

    /// The instances of the cluster.
    pub fn members(&self) -> Vec<MemberView> {
        lock(&self.members).clone()
    }

    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Calls => Answer::Calls(self.calls().await),
            Ask::Phones => Answer::Phones(self.phones().await),
            Ask::Metrics => Answer::Metrics(self.metrics().await),
            Ask::Members => Answer::Members(self.members()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The control socket, and the metrics' port where one is set.
async fn open_doors(settings: &Settings, asker: &Asker) -> Result<JoinSet<()>, Error> {
    let mut doors = JoinSet::new();
    make_home(&settings.home)?;
    doors.spawn(serve_control(control::bind(&settings.home)?, asker.clone()));
    if let Some(address) = settings.metrics {
        let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen {
            address,
            transport: "metrics",
            source,
        })?;
        doors.spawn(serve_metrics(listener, asker.clone()));
    }
    Ok(doors)
}

/// One after another: questions are few and answered at once.
async fn serve_control(listener: UnixListener, asker: Asker) {
    while let Ok((mut stream, _)) = listener.accept().await {
        if let Ok(ask) = control::read_question(&mut stream).await {
            // Whoever asked may be gone.
            let _ = control::write_answer(&mut stream, &asker.answer(ask).await).await;
        }
    }
}

async fn serve_metrics(listener: TcpListener, asker: Asker) {
    while let Ok((mut stream, _)) = listener.accept().await {
        if let Ok(wanted) = metrics::asks_for_metrics(&mut stream).await {
            let text = asker.metrics().await;
            let _ = metrics::answer(&mut stream, wanted.then_some(text.as_str())).await;
        }
    }
}

fn banner(settings: &Settings) -> String {
    let address = settings.advertised();
    let tls = settings
        .tls_port
        .map(|port| format!(", TLS {port}"))
        .unwrap_or_default();
    format!(
        "exchange for {} on {address}: UDP and TCP {}{tls}",
        settings.domain, settings.port
    )
}

/// A single machine: one shard, nobody to share it with.
const ALONE: NodeId = 1;

/// A driver with its inputs.
pub(crate) struct Running {
    pub(crate) driver: Driver<Rsipstack>,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    pub(crate) questions: mpsc::Receiver<Question>,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
}

/// What makes a shard's driver.
pub(crate) struct Opening<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) config: Config,
    pub(crate) listen: IpAddr,
    pub(crate) store: Store,
    pub(crate) tables: Tables,
    pub(crate) nonces: [u8; 32],
    pub(crate) relay: Relay,
    pub(crate) lease: Arc<Lease>,
    pub(crate) replication: Option<Replication>,
}

/// Opens the sockets of a shard; nothing runs yet.
pub(crate) async fn open(
    opening: Opening<'_>,
    questions: mpsc::Receiver<Question>,
    orders: mpsc::UnboundedReceiver<Order>,
) -> Result<Running, Error> {
    let settings = opening.settings;
    let (arrivals_in, arrivals) = mpsc::channel(ARRIVALS);
    let listen = Listen {
        address: opening.listen,
        port: settings.port,
        tls_port: settings.tls_port,
    };
    let acceptor = settings
        .tls_port
        .map(|_| tls::acceptor(&settings.home, &settings.domain))
        .transpose()?;
    let signalling = Rsipstack::open(listen, acceptor, arrivals_in).await?;
    let seeds = Seeds {
        tokens: crate::random()?,
        nonces: opening.nonces,
    };
    let exchange = Exchange::new(opening.config, seeds, opening.tables, Instant::now(), wall_clock());
    let driver = Driver {
        exchange,
        store: opening.store,
        signalling,
        relay: opening.relay,
        lease: opening.lease,
        replication: opening.replication,
        committed: Instant::now(),
    };
    Ok(Running {
        driver,
        arrivals,
        questions,
        orders,
    })
}

/// Unix time as it was when this process looked first, and goes on from there: steps of the machine's clock are not
/// followed, so that no deadline moves.
pub(crate) fn wall_clock() -> Moment {
    static ANCHOR: OnceLock<(Instant, Duration)> = OnceLock::new();
    let (since, wall) = ANCHOR.get_or_init(|| {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Instant::now(), wall)
    });
    Moment((*wall + since.elapsed()).as_millis() as u64)
}

/// What an exchange is configured with, but for who owns it.
pub(crate) fn config_of(settings: &Settings, address: IpAddr) -> Config {
    let mut config = Config::new(&settings.domain, address);
    config.port = settings.port;
    config.tls_port = settings.tls_port.unwrap_or(0);
    config.media = settings.media;
    config.authenticate = settings.authenticate;
    config
}

async fn open_alone(
    settings: &Settings,
    asker: &Asker,
) -> Result<(Running, mpsc::UnboundedSender<Order>, Asker), Error> {
    let store = Store::open(&settings.home)?;
    store.remember_server(&SocketAddr::new(settings.advertised(), settings.port).to_string())?;
    let (questions_in, questions) = mpsc::channel(64);
    let (orders_in, orders) = mpsc::unbounded_channel();
    let bindings = store.bindings()?;
    let opening = Opening {
        settings,
        config: config_of(settings, settings.advertised()),
        listen: settings.listen,
        tables: store.tables()?,
        nonces: store.nonce_key()?,
        store,
        relay: Relay::new(settings.listen, Arc::new(Lease::unlimited())),
        lease: Arc::new(Lease::unlimited()),
        replication: None,
    };
    let mut running = open(opening, questions, orders).await?;
    for (account, bindings) in bindings {
        running.driver.exchange.restore_bindings(&account, bindings);
    }
    asker.add(ALONE, questions_in);
    Ok((running, orders_in, asker.clone()))
}

/// Runs the one shard, and looks for accounts that other processes made.
async fn run_alone(
    (running, orders, asker): (Running, mpsc::UnboundedSender<Order>, Asker),
    ending: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let mut watched = Store::open(&running.driver.store.home)?;
    let mut accounts = tokio::time::interval(ACCOUNTS_POLL);
    let mut driver = tokio::spawn(running.run(Vec::new()));
    let mut ending = ending;
    loop {
        tokio::select! {
            _ = &mut ending => break,
            ended = &mut driver => return ended.unwrap_or(Ok(())),
            _ = accounts.tick() => {
                if watched.changed_by_others()? {
                    // A driver that is gone ends this loop by itself.
                    let _ = orders.send(Order::Take(Input::Tables(watched.tables()?)));
                }
            }
        }
    }
    asker.remove(ALONE);
    drop(orders);
    driver.await.unwrap_or(Ok(()))
}

/// How a shard's changes reach its standbys and the durable copy.
pub(crate) struct Replication {
    engine: Engine,
    shard: NodeId,
    subject: String,
    /// Fresh in every process and every term, so that numbers of an earlier one are not mistaken.
    stream: u64,
    protection: Protection,
    waiting: VecDeque<(u64, Outputs)>,
    number: u64,
    /// What heartbeats carry of it.
    progress: Arc<Progress>,
}

impl Replication {
    pub(crate) fn new(engine: Engine, shard: NodeId, stream: u64, progress: Arc<Progress>) -> Self {
        progress.set_has(Some(Mark { stream, number: 0 }));
        Self {
            progress,
            engine,
            shard,
            subject: cluster::live_subject(shard),
            stream,
            protection: Protection::default(),
            waiting: VecDeque::new(),
            number: 0,
        }
    }

    /// Sends records on their way; what depends on them waits for the number.
    fn push(&mut self, records: Vec<Record>) {
        if !self.engine.is_connected() {
            self.protection.cut_off();
        }
        for record in &records {
            self.write_behind(record);
        }
        for chunk in records.chunks(RECORDS_MAX) {
            self.send(chunk.to_vec(), None);
        }
    }

    fn send(&mut self, records: Vec<Record>, whole: Option<Part>) {
        self.number = self.protection.push(clock());
        let live = Live {
            shard: self.shard,
            stream: self.stream,
            number: self.number,
            clock: wall_clock(),
            whole,
            records,
        };
        self.engine.publish(self.subject.clone(), &Notice::Live(live));
    }

    fn write_behind(&self, record: &Record) {
        let (bucket, key) = match &record.key {
            Key::Call(call) => (Bucket::Calls, format!("{:x}.{call}", self.shard)),
            Key::Bindings(account) => (Bucket::Bindings, cluster::binding_key(self.shard, account)),
            Key::Ended(call) if record.body.is_some() => (Bucket::Records, call.clone()),
            Key::Ended(_) | Key::Setup(_) => return,
        };
        self.engine.write(bucket, key, record.body.clone());
    }

    fn send_whole(&mut self, standby: NodeId, records: Vec<Record>) {
        self.protection.asked_whole(standby);
        let mut chunks: Vec<Vec<Record>> = records.chunks(RECORDS_MAX).map(<[Record]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let last = chunks.len() - 1;
        for (n, chunk) in chunks.into_iter().enumerate() {
            let part = Part {
                standby,
                first: n == 0,
                last: n == last,
            };
            self.send(chunk, Some(part));
        }
        self.protection.whole_sent(standby, self.number);
    }
}

/// Feeds one shard's exchange.
pub(crate) struct Driver<S> {
    pub(crate) exchange: Exchange,
    store: Store,
    signalling: S,
    relay: Relay,
    lease: Arc<Lease>,
    replication: Option<Replication>,
    committed: Instant,
}

impl Running {
    /// Does what is left of adoption, then runs until its orders end, and lets go of its addresses.
    pub(crate) async fn run(mut self, adopted: Vec<Outputs>) -> Result<(), Error> {
        let ended = self.run_until_the_end(adopted).await;
        drop(self.arrivals);
        self.driver.signalling.close().await;
        ended
    }

    async fn run_until_the_end(&mut self, adopted: Vec<Outputs>) -> Result<(), Error> {
        let Self {
            driver,
            arrivals,
            questions,
            orders,
        } = self;
        driver.perform(adopted).await?;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = driver.deadline();
            let mut inputs = Vec::new();
            tokio::select! {
                count = arrivals.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                    driver.gather(arrivals, &mut batch).await;
                    inputs.extend(batch.drain(..).map(input));
                }
                () = tokio::time::sleep_until(deadline) => inputs.push(Input::Timeout),
                order = orders.recv() => match order {
                    Some(Order::Take(input)) => inputs.push(input),
                    Some(order) => driver.obey(order).await?,
                    None => return Ok(()),
                },
                Some(question) = questions.recv() => driver.answer(question),
            }
            driver.step(inputs).await?;
        }
    }
}

impl<S: SipSignalling> Driver<S> {
    /// When to look again if nothing comes.
    fn deadline(&self) -> tokio::time::Instant {
        let now = Instant::now();
        let idle = now + ACCOUNTS_POLL;
        let due = self.exchange.poll_timeout().map_or(idle, |(at, _)| at);
        let wait = self
            .replication
            .as_ref()
            .and_then(|replication| replication.protection.poll_timeout());
        let wait = wait.map_or(idle, |at| now + Duration::from_millis(at.since_ms(clock())));
        let at = due.min(wait);
        // Without the lease nothing is decided: look whether it has come.
        let at = if self.lease.holds() {
            at
        } else {
            at.max(now + UNLEASED_NAP)
        };
        tokio::time::Instant::from_std(at)
    }

    /// Soon after a commit, waits for what else arrives before the next one.
    async fn gather(&mut self, arrivals: &mut mpsc::Receiver<Arrival>, batch: &mut Vec<Arrival>) {
        let until = self.committed + COMMIT_PACE;
        if Instant::now() >= until {
            return;
        }
        tokio::time::sleep_until(until.into()).await;
        while batch.len() < BATCH {
            let Ok(arrival) = arrivals.try_recv() else { return };
            batch.push(arrival);
        }
    }

    /// Decides, stores, replicates, relays, sends. Without the lease nothing is taken in: phones repeat themselves.
    async fn step(&mut self, inputs: Vec<Input>) -> Result<(), Error> {
        let holds = self.lease.holds();
        let decided = inputs
            .into_iter()
            .filter(|input| holds || matches!(input, Input::Tables(_) | Input::Elsewhere { .. } | Input::Drain))
            .map(|input| self.exchange.handle(input, Instant::now()))
            .collect();
        self.perform(decided).await
    }

    async fn obey(&mut self, order: Order) -> Result<(), Error> {
        if let Order::Absorb(records) = order {
            return self.absorb(records).await;
        }
        if let Order::Epoch(epoch) = order {
            self.exchange.set_epoch(epoch);
        }
        let Some(replication) = &mut self.replication else {
            return Ok(());
        };
        match order {
            Order::Standbys(nodes) => replication.protection.set_standbys(&nodes),
            Order::Ack { standby, number } => replication.protection.acked(standby, number),
            Order::Resync(standby) => replication.send_whole(standby, self.exchange.records()),
            Order::Epoch(_) | Order::Take(_) | Order::Absorb(_) => {}
        }
        self.release_settled().await;
        Ok(())
    }

    /// In parts: the first phones are told while the last calls are still being read. They are told before anybody
    /// stores or hears of it: should this instance end meanwhile, the calls would be no more lost than without.
    async fn absorb(&mut self, records: Vec<Record>) -> Result<(), Error> {
        let begun = Instant::now();
        let mut later = Outputs::default();
        for part in records.chunks(ABSORBED_AT_ONCE) {
            let adopted = adopt(&mut self.exchange, part, Place::Elsewhere);
            let (told, rest): (Vec<_>, Vec<_>) = adopted.into_iter().map(Outputs::told_first).unzip();
            self.carry_out(told).await;
            later.extend(rest);
        }
        let (count, took_ms) = (records.len(), begun.elapsed().as_millis());
        eprintln!("offhook exchange: {count} records of another shard go on here, after {took_ms} ms");
        later.extend([self.exchange.put_out_adopted()]);
        self.perform(vec![later]).await
    }

    async fn perform(&mut self, outputs: Vec<Outputs>) -> Result<(), Error> {
        if self.store.commit(outputs.iter().flat_map(|outputs| &outputs.store))? {
            self.committed = Instant::now();
        }
        let Some(replication) = &mut self.replication else {
            self.carry_out(outputs).await;
            return Ok(());
        };
        for mut decided in outputs {
            replication.push(std::mem::take(&mut decided.replicate));
            if !decided.relay.is_empty() || !decided.send.is_empty() {
                replication.waiting.push_back((replication.number, decided));
            }
        }
        self.release_settled().await;
        Ok(())
    }

    /// Tells phones what standbys know, in the order in which it was decided.
    async fn release_settled(&mut self) {
        let Some(replication) = &mut self.replication else {
            return;
        };
        let settled = replication.protection.settled(clock());
        // Before anything is told: no phone knows what a heartbeat does not say.
        replication.progress.set_has(Some(Mark {
            stream: replication.stream,
            number: replication.protection.told(),
        }));
        let ready = replication
            .waiting
            .iter()
            .take_while(|(number, _)| *number <= settled)
            .count();
        let ready: Vec<Outputs> = replication.waiting.drain(..ready).map(|(_, outputs)| outputs).collect();
        self.carry_out(ready).await;
    }

    async fn carry_out(&mut self, outputs: Vec<Outputs>) {
        for command in outputs.iter().flat_map(|outputs| &outputs.relay) {
            self.relay.handle(*command);
        }
        for transmit in outputs.into_iter().flat_map(|outputs| outputs.send) {
            // Asked before each: whoever has been paused must not speak for a shard that is another's by now.
            if self.lease.holds() {
                self.signalling.send(transmit).await;
            }
        }
    }

    /// Whoever asked may be gone; that is no fault.
    fn answer(&self, question: Question) {
        match question {
            Question::Calls(reply) => {
                let protected = self.replication.as_ref().is_some_and(|r| r.protection.is_protected());
                let calls = self.exchange.calls().into_iter();
                let _ = reply.send(calls.map(|call| LiveCall::new(call, protected)).collect());
            }
            Question::Phones(reply) => {
                let _ = reply.send(view::phones(&self.exchange));
            }
            Question::Metrics(reply) => {
                let protection = self.replication.as_ref().map(|replication| view::ClusterFigures {
                    protected: replication.protection.is_protected(),
                    backlog: replication.engine.backlog(),
                    engine_connected: replication.engine.is_connected(),
                });
                let _ = reply.send(view::prometheus(&self.exchange, self.relay.counters(), protection));
            }
            Question::ForwardedByPort(reply) => {
                let _ = reply.send(self.relay.forwarded_by_port());
            }
        }
    }
}

/// Takes over records; one that cannot be read is counted out, the others go on.
pub(crate) fn adopt(exchange: &mut Exchange, records: &[Record], place: Place) -> Vec<Outputs> {
    let mut outputs = Vec::new();
    for record in records {
        match exchange.adopt(record, place, Instant::now()) {
            Ok(adopted) => outputs.push(adopted),
            Err(error) => eprintln!("offhook exchange: a record of another instance is left out: {error}"),
        }
    }
    outputs
}

fn input(arrival: Arrival) -> Input {
    match arrival {
        Arrival::Message(flow, bytes) => Input::Received { flow, bytes },
        Arrival::Closed(flow) => Input::FlowClosed(flow),
    }
}
