//! The Mainline DHT where datagrams leave, for those who chose to use it. Its pure partner is `offhook_proto::overlay::dht`.
//!
//! One UDP socket (IPv4), opened when something is first wanted: no packet and no socket before. Each host asked, and each name resolved, takes a token of the flow ledger below the soft cap; a
//! datagram without one does not leave. Hosts that answered are remembered in the file `dht-hosts` of the home, so that the hosts for newcomers are seldom asked.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use offhook_proto::overlay::dht::krpc::MESSAGE_BYTES_MAX;
use offhook_proto::overlay::dht::{Dht, Input, Job, KEPT_MAX, Outcome, Output};
use offhook_proto::overlay::ledger::{Kind, To};
use offhook_proto::peer;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::driver::Message;
use crate::flows::Flows;
use crate::home;

/// The hosts for newcomers that are asked where none are named: those of BitTorrent, Inc., Transmission, libtorrent and Pkarr.
pub const PUBLIC_ROUTERS: [&str; 4] = [
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
    "relay.pkarr.org:6881",
];
/// Names of hosts for newcomers that are looked at.
const ROUTERS_MAX: usize = 8;
/// Finding the address of one takes no longer.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Who asks whether anybody answers waits no longer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(6);
/// An answer so old says that the DHT answers, without asking again.
const FRESH: Duration = Duration::from_secs(600);
const HOSTS_FILE: &str = "dht-hosts";

/// How to use the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhtOptions {
    /// Hosts for newcomers, as `HOST:PORT`.
    pub bootstrap: Vec<String>,
}

impl Default for DhtOptions {
    fn default() -> Self {
        Self {
            bootstrap: PUBLIC_ROUTERS.map(str::to_owned).to_vec(),
        }
    }
}

/// How it stands with the DHT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DhtCheck {
    /// Somebody answered, or nobody did; none where it is not known, for want of a flow or of time.
    pub answers: Option<bool>,
    /// Hosts that are remembered.
    pub hosts: usize,
    /// How long ago the own addresses were put there last, and how many hosts keep them.
    pub put: Option<(Duration, usize)>,
}

/// Where to send what is wanted, and to ask how it stands.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    wishes: mpsc::UnboundedSender<Wish>,
    facts: Arc<Mutex<Facts>>,
}

#[derive(Debug)]
enum Wish {
    Job(Job),
    Check(oneshot::Sender<bool>),
}

/// What is known of the DHT.
#[derive(Debug, Default)]
struct Facts {
    hosts: usize,
    answered: Option<Instant>,
    put: Option<(Instant, usize)>,
}

impl Line {
    /// Has a job done. Bounded by those who ask: the client itself takes few.
    pub(crate) fn want(&self, job: Job) {
        // The client may be ending.
        let _ = self.wishes.send(Wish::Job(job));
    }

    /// Whether anybody answers: known from the last minutes, or asked now.
    pub(crate) async fn check(&self) -> DhtCheck {
        let is_fresh = |facts: &Facts| facts.answered.is_some_and(|at| at.elapsed() < FRESH);
        let answers = if self.with(is_fresh) {
            Some(true)
        } else {
            let (answer, answered) = oneshot::channel();
            let _ = self.wishes.send(Wish::Check(answer));
            timeout(CHECK_TIMEOUT, answered).await.ok().and_then(Result::ok)
        };
        self.with(|facts| DhtCheck {
            answers,
            hosts: facts.hosts,
            put: facts.put.map(|(at, hosts)| (at.elapsed(), hosts)),
        })
    }

    fn with<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts the client; it runs until the node stops.
pub(crate) fn start(
    options: DhtOptions,
    dir: &Path,
    flows: Arc<Flows>,
    inbox: mpsc::Sender<Message>,
    stopping: watch::Receiver<bool>,
) -> Result<Line, home::HomeError> {
    let (wishes, wanted) = mpsc::unbounded_channel();
    let (routers_in, routers) = mpsc::channel(1);
    let facts = Arc::new(Mutex::new(Facts::default()));
    let client = Client {
        dht: Dht::new(home::random_bytes()?),
        options,
        dir: dir.to_owned(),
        flows,
        inbox,
        facts: facts.clone(),
        socket: None,
        checks: Vec::new(),
        routers_in,
    };
    tokio::spawn(client.run(wanted, routers, stopping));
    Ok(Line { wishes, facts })
}

struct Client {
    dht: Dht,
    options: DhtOptions,
    dir: PathBuf,
    flows: Arc<Flows>,
    inbox: mpsc::Sender<Message>,
    facts: Arc<Mutex<Facts>>,
    socket: Option<UdpSocket>,
    /// Who waits to hear whether anybody answers.
    checks: Vec<oneshot::Sender<bool>>,
    routers_in: mpsc::Sender<Vec<SocketAddrV4>>,
}

impl Client {
    async fn run(
        mut self,
        mut wishes: mpsc::UnboundedReceiver<Wish>,
        mut routers: mpsc::Receiver<Vec<SocketAddrV4>>,
        mut stopping: watch::Receiver<bool>,
    ) {
        self.take(Input::Remembered(read_hosts(&self.dir))).await;
        let mut buffer = vec![0; MESSAGE_BYTES_MAX + 1];
        loop {
            let due = self.dht.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                () = stopped(&mut stopping) => return,
                wish = wishes.recv() => match wish {
                    Some(wish) => self.wish(wish).await,
                    None => return,
                },
                Some(hosts) = routers.recv() => self.take(Input::Routers(hosts)).await,
                (from, length) = receive(self.socket.as_ref(), &mut buffer) => {
                    if let Some(bytes) = buffer.get(..length) {
                        self.datagram(from, bytes.to_vec()).await;
                    }
                }
                () = sleep_until(due) => self.take(Input::Timeout).await,
            }
        }
    }

    async fn wish(&mut self, wish: Wish) {
        let job = match wish {
            Wish::Job(job) => job,
            Wish::Check(asker) => {
                self.checks.retain(|asker| !asker.is_closed());
                self.checks.push(asker);
                Job::Check
            }
        };
        if self.socket.is_none() {
            match UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).await {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => tracing::warn!(%error, "no socket for the DHT"),
            }
        }
        self.take(Input::Want(job)).await;
    }

    async fn datagram(&mut self, from: SocketAddrV4, bytes: Vec<u8>) {
        let flow = flow(from, self.socket.as_ref());
        self.flows.with(|ledger, now| ledger.host_answered(&flow, now));
        self.take(Input::Datagram { from, bytes }).await;
    }

    /// Hands an input in and carries out what follows, in order.
    async fn take(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.dht.handle(input, Instant::now()).0 {
                match output {
                    Output::Send { to, bytes } => inputs.extend(self.send(to, &bytes).await),
                    Output::Resolve => self.resolve(),
                    Output::Found(item) => self.tell(peer::Input::DhtFound(item)).await,
                    Output::Remember(hosts) => self.remember(hosts),
                    Output::Done(outcome) => self.done(outcome).await,
                }
            }
        }
    }

    /// Sends a datagram where there is a flow for it; else tells that there is none.
    async fn send(&self, to: SocketAddrV4, bytes: &[u8]) -> Option<Input> {
        let flow = flow(to, self.socket.as_ref());
        let has_flow = self
            .flows
            .with(|ledger, now| ledger.ask_host(flow, "where a device is, asked in the DHT", now));
        if !has_flow {
            return Some(Input::NoFlow(to));
        }
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send_to(bytes, to).await
        {
            // As if nobody answered.
            tracing::debug!(%to, %error, "a host of the DHT cannot be reached");
        }
        None
    }

    fn resolve(&self) {
        let names: Vec<String> = self.options.bootstrap.iter().take(ROUTERS_MAX).cloned().collect();
        let (flows, told) = (self.flows.clone(), self.routers_in.clone());
        tokio::spawn(async move {
            let mut hosts = Vec::new();
            for name in names {
                hosts.extend(addresses_of(&name, &flows).await);
            }
            // The client may have ended.
            let _ = told.send(hosts).await;
        });
    }

    async fn tell(&self, input: peer::Input) {
        // The node may be stopping.
        let _ = self.inbox.send(Message::Input(input)).await;
    }

    fn remember(&self, hosts: Vec<SocketAddrV4>) {
        let text: String = hosts.iter().map(|host| format!("{host}\n")).collect();
        let dir = self.dir.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = home::write_whole(&dir, HOSTS_FILE, text.as_bytes(), 0o600) {
                tracing::warn!(%error, "hosts of the DHT are not remembered");
            }
        });
    }

    async fn done(&mut self, outcome: Outcome) {
        let what = match outcome.job {
            Job::Get { .. } => "a look-up",
            Job::Put(_) => "a put",
            Job::Check => "a check",
        };
        tracing::debug!(
            end = ?outcome.end,
            asked = outcome.asked,
            answered = outcome.answered,
            stored = outcome.stored,
            is_found = outcome.is_found,
            "{what} in the DHT is over"
        );
        {
            let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            facts.hosts = self.dht.kept().len();
            facts.answered = if outcome.is_answered {
                Some(Instant::now())
            } else {
                facts.answered.filter(|_| outcome.asked == 0)
            };
            if outcome.stored > 0 {
                facts.put = Some((Instant::now(), outcome.stored));
            }
        }
        match outcome.job {
            Job::Put(_) if outcome.stored == 0 => self.tell(peer::Input::DhtNotKept).await,
            Job::Check => {
                for asker in self.checks.drain(..) {
                    if outcome.is_answered || outcome.asked > 0 {
                        // The asker may have gone away.
                        let _ = asker.send(outcome.is_answered);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A host as a flow of this socket, which is one for all hosts. Destinations of iroh's sockets stand in the ledger as such; an earlier run's socket had another port.
fn flow(host: SocketAddrV4, socket: Option<&UdpSocket>) -> To {
    let port = socket
        .and_then(|socket| socket.local_addr().ok())
        .map_or(0, |at| at.port());
    To::Lookup(format!("{host} (DHT, from port {port})"))
}

/// The next datagram; never without a socket.
async fn receive(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> (SocketAddrV4, usize) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    loop {
        match socket.recv_from(buffer).await {
            Ok((length, SocketAddr::V4(from))) => return (from, length),
            Ok(_) => {}
            // What comes back of datagrams that nobody took (ICMP).
            Err(error) => {
                tracing::debug!(%error, "the DHT's socket");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Also when the sender is gone.
    drop(stopping.wait_for(|stop| *stop).await);
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The IPv4 addresses of a host for newcomers; asking for them is a look-up like others.
async fn addresses_of(name: &str, flows: &Flows) -> Vec<SocketAddrV4> {
    if let Ok(at) = name.parse() {
        return vec![at];
    }
    let to = To::Lookup(format!("name of {name}"));
    let may_ask = flows.with(|ledger, now| ledger.question(to, Kind::Lookup, "where the DHT begins", now));
    if !may_ask {
        return Vec::new();
    }
    let found = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(name)).await;
    let found = found.ok().and_then(Result::ok).into_iter().flatten();
    found
        .filter_map(|at| match at {
            SocketAddr::V4(at) => Some(at),
            SocketAddr::V6(_) => None,
        })
        .take(1)
        .collect()
}

/// Hosts remembered from earlier; a file that says something else says nothing.
fn read_hosts(dir: &Path) -> Vec<SocketAddrV4> {
    let text = std::fs::read_to_string(dir.join(HOSTS_FILE)).unwrap_or_default();
    let hosts = text.lines().take(KEPT_MAX);
    hosts.filter_map(|line| line.parse().ok()).collect()
}
