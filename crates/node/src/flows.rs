//! The flow ledger where packets leave: the gate before iroh's UDP sockets, and the account that dials, relays and look-ups ask.
//!
//! One ledger for a node, behind a lock that is held for a look into a small map. The gate (`shims/netwatch`) asks it for each datagram of each socket that the
//! endpoint binds, so nothing that iroh does on its own (paths that peers offer, hole punching, address discovery) leaves without a token.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iroh::EndpointAddr;
use iroh::endpoint::{BeforeConnectOutcome, EndpointHooks};
use netwatch::gate::Gate;
use offhook_proto::overlay::ledger::{FlowLedger, Kind, LedgerView, Limits, To};

use crate::relay;

mod notebook;

use notebook::Notebook;

/// Multicast DNS, as RFC 6762 says.
const MULTICAST_DNS: [&str; 2] = ["224.0.0.251:5353", "[ff02::fb]:5353"];

/// Between two samples of the history.
const SAMPLE_PERIOD: Duration = Duration::from_secs(5);
/// Samples kept: the last hour.
const SAMPLES_MAX: usize = 720;

/// The ledger of one node, and its last hour.
#[derive(Debug)]
pub(crate) struct Flows {
    ledger: Mutex<FlowLedger>,
    history: Mutex<History>,
    notebook: Mutex<Option<Notebook>>,
}

#[derive(Debug, Default)]
struct History {
    samples: VecDeque<FlowSample>,
    taken_at: Option<Instant>,
}

/// How many flows there were of each kind at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSample {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// How many of each kind, in the order of [`Kind::ALL`].
    pub kinds: [u16; Kind::ALL.len()],
    /// Asks that waited.
    pub waiting: u16,
}

impl FlowSample {
    /// Counts a ledger's flows by kind.
    pub fn of(view: &LedgerView, unix_ms: u64) -> Self {
        let count = |kind| view.flows.iter().filter(|flow| flow.kind == kind).count();
        // Both are capped far below 2^16.
        let few = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        Self {
            unix_ms,
            kinds: Kind::ALL.map(|kind| few(count(kind))),
            waiting: few(view.waiting.len()),
        }
    }
}

impl Flows {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            ledger: Mutex::new(FlowLedger::new(limits)),
            history: Mutex::default(),
            notebook: Mutex::default(),
        })
    }

    /// Goes on with what a gateway remembers of the last run in this home, and notes there what it is to remember of this one.
    pub(crate) fn keep_in(&self, home: &Path, has_same_port: bool) {
        let notebook = Notebook::of(home);
        let remembered = notebook.read(unix_ms());
        self.with(|ledger, now| ledger.take_up(remembered, has_same_port, now));
        *self.notebook.lock().unwrap_or_else(PoisonError::into_inner) = Some(notebook);
    }

    /// Notes which flows there are, where that is due.
    pub(crate) fn note_for_next_run(&self) {
        let mut notebook = self.notebook.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(notebook) = notebook.as_mut().filter(|notebook| notebook.is_due(now)) {
            let flows = self.with(FlowLedger::remembered);
            notebook.note(&flows, unix_ms(), now);
        }
    }

    /// The last note: nothing is sent any more.
    pub(crate) fn close(&self) {
        let notebook = self.notebook.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(notebook) = notebook.as_ref() {
            notebook.close(&self.with(FlowLedger::remembered), unix_ms());
        }
    }

    /// Takes a sample where one is due.
    pub(crate) fn sample(&self) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if history
            .taken_at
            .is_some_and(|at| now.duration_since(at) < SAMPLE_PERIOD)
        {
            return;
        }
        history.taken_at = Some(now);
        let view = self.with(|ledger, now| ledger.view(now));
        if history.samples.len() == SAMPLES_MAX {
            history.samples.pop_front();
        }
        history.samples.push_back(FlowSample::of(&view, unix_ms()));
    }

    /// The last hour, oldest first.
    pub(crate) fn history(&self) -> Vec<FlowSample> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.samples.iter().cloned().collect()
    }

    /// Asks the ledger, now.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&mut FlowLedger, Instant) -> T) -> T {
        // The ledger is whole after a panic, too: it has no state between two changes that must go together.
        ask(
            &mut self.ledger.lock().unwrap_or_else(PoisonError::into_inner),
            Instant::now(),
        )
    }

    /// Accounts for a relay: its connection, and what the network report asks of it from time to time.
    pub(crate) fn note_home_relay(&self, url: &str) {
        self.with(|ledger, now| {
            ledger.hold(To::Tcp(url.to_owned()), Kind::Relay, "the home relay", now);
            let name = To::Lookup(format!("name of {url}"));
            ledger.question(name, Kind::Lookup, "the home relay's address", now);
            for what in ["latency", "captive portal"] {
                let to = To::Tcp(format!("{url} ({what})"));
                ledger.question(to, Kind::Probe, "how the network is, asked of the home relay", now);
            }
            // Of one that goes by a name the address is not known here; asking it is then taken for a hole punch.
            if let Some(at) = relay::address_discovery(url) {
                ledger.hold(
                    To::Udp(at),
                    Kind::Probe,
                    "the own address, asked of the home relay",
                    now,
                );
            }
        });
    }

    /// Accounts for what the network report asks of the public relays to choose one.
    pub(crate) fn note_public_relays(&self) {
        self.with(|ledger, now| {
            for url in relay::public() {
                let to = To::Tcp(format!("{url} (latency)"));
                ledger.question(to, Kind::Probe, "which public relay is near", now);
            }
        });
    }

    /// Accounts for multicast on the local network.
    pub(crate) fn note_multicast(&self) {
        self.with(|ledger, now| {
            for group in MULTICAST_DNS.iter().filter_map(|at| at.parse().ok()) {
                ledger.hold(To::Udp(group), Kind::Lan, "finding peers on the local network", now);
            }
        });
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Gate for Flows {
    fn may_send(&self, destination: SocketAddr) -> bool {
        self.with(|ledger, now| ledger.may_send(destination, now))
    }

    fn received(&self, source: SocketAddr) {
        self.with(|ledger, now| ledger.heard(source, now));
    }
}

/// Refuses connections that were not asked for at the ledger: there is one place that dials, and this proves it.
#[derive(Debug)]
pub(crate) struct Doorman(pub(crate) Arc<Flows>);

impl EndpointHooks for Doorman {
    fn before_connect<'a>(
        &'a self,
        remote_addr: &'a EndpointAddr,
        _alpn: &'a [u8],
    ) -> impl Future<Output = BeforeConnectOutcome> + Send + 'a {
        let has_token = |at: &SocketAddr| self.0.with(|ledger, now| ledger.has(&To::Udp(*at), now));
        let outcome = match remote_addr.ip_addrs().all(has_token) {
            true => BeforeConnectOutcome::Accept,
            false => BeforeConnectOutcome::Reject,
        };
        std::future::ready(outcome)
    }
}
