//! The flow ledger: one account of every 5-tuple that a gateway can see, and no more of them than the cap.
//!
//! *What counts.* Each address of a dial that was or may be sent to, each path of a line, each hole-punch and path probe, each answer to a stranger who called,
//! each connection to a relay, each look-up, each multicast group, each probe of the network itself. A socket is not a flow: one socket to 250
//! places is 250 flows at the gateway, and closing it frees none of them.
//!
//! *How long.* As long as a NAT remembers: a flow that nobody answered for [`UNANSWERED`] after the last packet, one that was answered for [`ANSWERED`] (Linux: 30 and
//! 120 s, RFC 4787 asks for no less than 120; the rest is for clocks and packets under way). A TCP connection counts until it is closed, and [`ANSWERED`] beyond.
//!
//! *How many.* [`Limits`]: everyday flows stay at or below the soft cap; what somebody waits for may use the space up to the hard cap, and answers to those who call that up to nine tenths of it: the gateway has let their
//! packet in and counts it already, and a popular node that is silent keeps its callers trying. Whoever finds no space waits in a
//! queue of at most [`QUEUE_MAX`], first come first served among equals, older ones before urgent ones after [`PROMOTED_AFTER`], each with a reason in words.
//!
//! *Where it is asked.* [`FlowLedger::may_send`] is asked before each packet leaves; a destination without a token is refused. So what the transport
//! does on its own (it sends to every address that a peer offers) cannot open a flow unseen. *Hole punching*: [`PUNCH_TOKENS`] unknown destinations for
//! [`PUNCH_WINDOW`], and none while [`Punching`] says so.
//!
//! *Over a restart* [`FlowLedger::remembered`] is kept and [`FlowLedger::take_up`] again: a gateway forgets nothing because a program ended.
//!
//! It does not see what other programs of this machine do, and it counts addresses on the local network, which no gateway sees, all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::identity::DeviceId;

/// The smallest cap that a node can work with: two dials with two addresses each, two lines, a relay and a look-up.
pub const CAP_MIN: u16 = 8;
/// The hard cap unless told otherwise.
pub const HARD_CAP: u16 = 60;
/// The soft cap unless told otherwise.
pub const SOFT_CAP: u16 = 40;
/// How long a gateway remembers a flow that nobody answered, with a margin.
pub const UNANSWERED: Duration = Duration::from_secs(32);
/// How long a gateway remembers a flow that was answered, with a margin.
pub const ANSWERED: Duration = Duration::from_secs(130);
/// Asks that wait.
pub const QUEUE_MAX: usize = 64;
/// An ask that waited so long goes before all that are more urgent.
pub const PROMOTED_AFTER: Duration = Duration::from_secs(60);
/// An ask that nobody repeated for so long is not wanted any more.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(90);
/// Destinations that may be punched or probed within [`PUNCH_WINDOW`].
pub const PUNCH_TOKENS: usize = 8;
/// How long the tokens of a punch last; the next one begins with new tokens.
pub const PUNCH_WINDOW: Duration = Duration::from_secs(30);
/// Addresses of one dial that get a token.
pub const ADDRESSES_PER_DIAL_MAX: usize = 2;
/// How long a punched destination is tried: nine probes within about four seconds are a round of the transport's.
const PUNCH_TRIED: Duration = Duration::from_secs(10);
/// A punched destination that did not answer is left alone for so long.
const SILENT_KEPT: Duration = Duration::from_secs(300);
/// Silent destinations that are remembered.
const SILENT_MAX: usize = 256;
/// A token that nothing was sent with is given back after this.
const RESERVED: Duration = Duration::from_secs(32);
/// Strangers that are remembered as having called, so that they may be answered.
const CALLERS_MAX: usize = 256;
/// How long one who called may be answered.
const CALLER_KEPT: Duration = Duration::from_secs(30);
/// Flows of the last run that are taken up.
const REMEMBERED_MAX: usize = 1024;
/// A connection's name ends so where the last run made it.
const OF_LAST_RUN: &str = " (of the last run)";
/// A flow with a packet either way within this is in use: lines say something every 5 s.
const IN_USE: Duration = Duration::from_secs(16);
/// Refused destinations that are remembered, to be shown.
const REFUSED_MAX: usize = 32;
/// How long a refused destination is shown.
const REFUSED_KEPT: Duration = Duration::from_secs(120);

/// How many flows there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    hard: u16,
    soft: u16,
}

/// A cap that no node can work with. The text says what can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// The hard cap is too low.
    #[error(
        "a cap of {0} flows is too low: {CAP_MIN} is the least that a node can work with (one dial may take two, and a gateway remembers each for up to two minutes)"
    )]
    TooLow(u16),
    /// The soft cap is not within the hard one.
    #[error("{soft} everyday flows do not fit a cap of {hard}: choose from {least} to {hard}", least = CAP_MIN / 2)]
    Soft {
        /// What was asked for.
        soft: u16,
        /// The hard cap.
        hard: u16,
    },
}

impl Limits {
    /// A hard cap, and a soft one or two thirds of the hard one.
    pub fn new(hard: u16, soft: Option<u16>) -> Result<Self, LimitsError> {
        if hard < CAP_MIN {
            return Err(LimitsError::TooLow(hard));
        }
        let soft = soft.unwrap_or(hard - hard / 3);
        if soft < CAP_MIN / 2 || soft > hard {
            return Err(LimitsError::Soft { soft, hard });
        }
        Ok(Self { hard, soft })
    }

    /// Never more flows than this.
    pub fn hard(self) -> usize {
        self.hard.into()
    }

    /// Everyday flows stay within this.
    pub fn soft(self) -> usize {
        self.soft.into()
    }

    /// Whoever calls is answered within this: a tenth of the hard cap, and two flows at least, are left for what somebody here waits for.
    fn answered(self) -> usize {
        (self.hard - (self.hard / 10).max(2)).into()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hard: HARD_CAP,
            soft: SOFT_CAP,
        }
    }
}

/// The far end of a flow. The near end is the node's one socket for each address family, or one of its own where it goes by a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// A UDP destination.
    Udp(SocketAddr),
    /// A TCP connection to a host that is known by name, such as a relay; the text names what.
    Tcp(String),
    /// A question to a name server or directory; the text names what.
    Lookup(String),
}

/// What a flow is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An address that a dial tries.
    Dial,
    /// A path of a line: somebody answers there.
    Path,
    /// A hole punch, or a probe of another path to a peer.
    Punch,
    /// An answer to somebody who called.
    Inbound,
    /// A connection to a relay.
    Relay,
    /// A question to a name server or directory.
    Lookup,
    /// A probe of the network itself.
    Probe,
    /// Multicast on the local network.
    Lan,
}

impl Kind {
    /// All kinds, in the order in which they are drawn and listed.
    pub const ALL: [Self; 8] = [
        Self::Path,
        Self::Dial,
        Self::Punch,
        Self::Inbound,
        Self::Relay,
        Self::Lookup,
        Self::Probe,
        Self::Lan,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dial => "dial",
            Self::Path => "path",
            Self::Punch => "punch",
            Self::Inbound => "inbound",
            Self::Relay => "relay",
            Self::Lookup => "lookup",
            Self::Probe => "probe",
            Self::Lan => "lan",
        }
    }
}

/// How a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has a token, and nothing was sent yet.
    Reserved,
    /// Sent to, and nothing came back.
    Unanswered,
    /// In use.
    Open,
    /// Not used any more, and not forgotten by the gateway yet.
    Closing,
}

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Unanswered => "unanswered",
            Self::Open => "open",
            Self::Closing => "closing",
        }
    }
}

/// How much somebody wants a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody waits for it: may use the space between the soft and the hard cap.
    Urgent,
    /// A room has no other way.
    Cover,
    /// It makes things better.
    Spare,
}

/// A flow of the program's last run that a gateway may still remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Where it goes.
    pub to: To,
    /// Whether anybody answered there.
    pub answered: bool,
    /// How long ago the last packet was; none where it was in use to the end.
    pub unused_for: Option<Duration>,
}

fn of_last_run(name: &str) -> String {
    match name.ends_with(OF_LAST_RUN) {
        true => name.to_owned(),
        false => format!("{name}{OF_LAST_RUN}"),
    }
}

/// Asks for tokens for one dial, or for one connection to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// For whom. A device has one ask at a time; a newer one takes the place of the older.
    pub peer: DeviceId,
    /// Best first; the first [`ADDRESSES_PER_DIAL_MAX`] of UDP and one of TCP are looked at.
    pub to: Vec<To>,
    /// How much it is wanted.
    pub urgency: Urgency,
    /// Why, in words.
    pub reason: &'static str,
}

const SILENT: &str = "nobody answered there lately";

/// What comes of an ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Go ahead with these; there was no space for the others.
    Go(Vec<To>),
    /// It waits; [`FlowLedger::poll`] tells when its turn has come.
    Waits,
    /// The queue is full of others that are wanted as much: ask again later.
    Refused,
}

/// Whether the transport may try other ways to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Punching {
    /// Not before what was missed is here.
    CatchingUp,
    /// No line needs it: all are direct.
    NotNeeded,
    /// Yes.
    Allowed,
}

#[derive(Debug, Clone)]
struct Flow {
    kind: Kind,
    peer: Option<DeviceId>,
    reason: &'static str,
    since: Instant,
    /// The last packet either way; for a TCP connection when it was opened or closed.
    last: Instant,
    sent: bool,
    answered: bool,
    /// A connection that is open counts whatever its age.
    held: bool,
}

impl Flow {
    fn expires(&self) -> Option<Instant> {
        if self.held {
            return None;
        }
        Some(match (self.sent, self.answered) {
            (false, _) => self.since + RESERVED,
            (true, false) => self.last + UNANSWERED,
            (true, true) => self.last + ANSWERED,
        })
    }

    fn state(&self, now: Instant) -> State {
        match self {
            Self { held: true, .. } => State::Open,
            Self { sent: false, .. } => State::Reserved,
            Self { answered: false, .. } => State::Unanswered,
            _ if now.saturating_duration_since(self.last) <= IN_USE => State::Open,
            _ => State::Closing,
        }
    }
}

#[derive(Debug, Clone)]
struct Queued {
    ask: Ask,
    number: u64,
    since: Instant,
    renewed: Instant,
}

#[derive(Debug, Clone)]
struct Refusal {
    last: Instant,
    times: u64,
    reason: &'static str,
}

/// The account.
#[derive(Debug, Clone)]
pub struct FlowLedger {
    limits: Limits,
    flows: BTreeMap<To, Flow>,
    queue: Vec<Queued>,
    asks: u64,
    peak: usize,
    punching: Punching,
    /// When each token of the current punch was taken.
    punched: Vec<Instant>,
    /// Punched, and nobody answered.
    silent: BTreeMap<SocketAddr, Instant>,
    callers: BTreeMap<SocketAddr, Instant>,
    refused: BTreeMap<SocketAddr, Refusal>,
    refusals: u64,
}

impl FlowLedger {
    /// An empty ledger.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            flows: BTreeMap::new(),
            queue: Vec::new(),
            asks: 0,
            peak: 0,
            punching: Punching::CatchingUp,
            punched: Vec::new(),
            silent: BTreeMap::new(),
            callers: BTreeMap::new(),
            refused: BTreeMap::new(),
            refusals: 0,
        }
    }

    /// The caps.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many flows a gateway may see now.
    pub fn in_use(&mut self, now: Instant) -> usize {
        self.expire(now);
        self.flows.len()
    }

    /// Whether a destination has a token now.
    pub fn has(&mut self, to: &To, now: Instant) -> bool {
        self.expire(now);
        self.flows.contains_key(to)
    }

    /// Whether a connection is held open.
    pub fn is_held(&self, to: &To) -> bool {
        self.flows.get(to).is_some_and(|flow| flow.held)
    }

    /// Whether anybody has answered there, as far as is remembered.
    pub fn has_answered(&mut self, to: &To, now: Instant) -> bool {
        self.expire(now);
        self.flows.get(to).is_some_and(|flow| flow.answered)
    }

    /// Whether somebody who calls from there can be answered.
    pub fn may_answer(&mut self, from: SocketAddr, now: Instant) -> bool {
        self.has(&To::Udp(from), now) || self.flows.len() < self.limits.answered()
    }

    /// How many more an ask of this urgency may open.
    pub fn space(&mut self, urgency: Urgency, now: Instant) -> usize {
        let cap = self.cap(urgency);
        cap.saturating_sub(self.in_use(now))
    }

    fn cap(&self, urgency: Urgency) -> usize {
        match urgency {
            Urgency::Urgent => self.limits.hard(),
            Urgency::Cover | Urgency::Spare => self.limits.soft(),
        }
    }

    fn expire(&mut self, now: Instant) {
        self.flows.retain(|_, flow| flow.expires().is_none_or(|at| now < at));
    }

    /// What a gateway goes on to remember when this program ends.
    pub fn remembered(&mut self, now: Instant) -> Vec<Remembered> {
        self.expire(now);
        let sent = self.flows.iter().filter(|(_, flow)| flow.sent);
        sent.map(|(to, flow)| Remembered {
            to: to.clone(),
            answered: flow.answered,
            unused_for: match flow.state(now) {
                State::Open => None,
                _ => Some(now.saturating_duration_since(flow.last)),
            },
        })
        .collect()
    }

    /// Counts what a gateway remembers of the program's last run. Where the socket has the same port again, a destination that is called again is the same flow; else it is another one, as connections are.
    pub fn take_up(&mut self, flows: impl IntoIterator<Item = Remembered>, has_same_port: bool, now: Instant) {
        for Remembered {
            to,
            answered,
            unused_for,
        } in flows.into_iter().take(REMEMBERED_MAX)
        {
            let last = now.checked_sub(unused_for.unwrap_or_default()).unwrap_or(now);
            let (to, kind) = match to {
                To::Udp(_) if has_same_port && answered => (to, Kind::Path),
                To::Udp(_) if has_same_port => (to, Kind::Dial),
                To::Udp(at) => (To::Tcp(of_last_run(&at.to_string())), Kind::Path),
                To::Tcp(name) => (To::Tcp(of_last_run(&name)), Kind::Relay),
                To::Lookup(name) => (To::Lookup(of_last_run(&name)), Kind::Lookup),
            };
            self.flows.entry(to).or_insert(Flow {
                kind,
                peer: None,
                reason: "a gateway remembers it of the last run",
                since: last,
                last,
                sent: true,
                answered,
                held: false,
            });
        }
        self.expire(now);
        self.peak = self.peak.max(self.flows.len());
    }

    /// Asks for tokens before a dial or a connection.
    pub fn ask(&mut self, mut ask: Ask, now: Instant) -> Answer {
        limit_addresses(&mut ask.to);
        self.expire(now);
        self.forget_asks(now);
        let waiting = self.queue.iter().position(|queued| queued.ask.peer == ask.peer);
        let is_first = || {
            let order = waiting.map_or((ask.urgency, u64::MAX), |at| rank(&self.queue[at], now));
            let cap = self.cap(ask.urgency);
            let before = |queued: &Queued| rank(queued, now) < order && self.cap(queued.ask.urgency) >= cap;
            !self.queue.iter().any(before)
        };
        let is_free = ask.to.iter().all(|to| self.flows.contains_key(to));
        if is_free || is_first() {
            let granted = self.grant(&ask, now);
            if !granted.is_empty() || ask.to.is_empty() {
                if let Some(at) = waiting {
                    self.queue.remove(at);
                }
                return Answer::Go(granted);
            }
        }
        if let Some(at) = waiting {
            self.queue[at].renewed = now;
            self.queue[at].ask = ask;
            return Answer::Waits;
        }
        self.enqueue(ask, now)
    }

    fn enqueue(&mut self, ask: Ask, now: Instant) -> Answer {
        if self.queue.len() >= QUEUE_MAX {
            let last = self
                .queue
                .iter()
                .enumerate()
                .max_by_key(|(_, queued)| rank(queued, now));
            match last.filter(|(_, last)| ask.urgency < last.ask.urgency && ask.urgency < rank(last, now).0) {
                Some((at, _)) => drop(self.queue.remove(at)),
                None => return Answer::Refused,
            }
        }
        self.asks += 1;
        self.queue.push(Queued {
            ask,
            number: self.asks,
            since: now,
            renewed: now,
        });
        Answer::Waits
    }

    /// Tokens for as many of the addresses as there is space for, the best first.
    fn grant(&mut self, ask: &Ask, now: Instant) -> Vec<To> {
        let cap = self.cap(ask.urgency);
        let mut granted = Vec::new();
        for to in &ask.to {
            if !self.flows.contains_key(to) && self.flows.len() >= cap {
                continue;
            }
            let kind = match to {
                To::Udp(_) => Kind::Dial,
                To::Tcp(_) => Kind::Relay,
                To::Lookup(_) => Kind::Lookup,
            };
            self.open(to.clone(), kind, Some(ask.peer), ask.reason, now);
            granted.push(to.clone());
        }
        granted
    }

    fn open(&mut self, to: To, kind: Kind, peer: Option<DeviceId>, reason: &'static str, now: Instant) {
        let flow = self.flows.entry(to).or_insert_with(|| Flow {
            kind,
            peer,
            reason,
            since: now,
            last: now,
            sent: false,
            answered: false,
            held: false,
        });
        if peer.is_some() {
            flow.peer = peer;
            flow.reason = reason;
        }
        if !flow.sent {
            flow.since = now;
        }
        self.peak = self.peak.max(self.flows.len());
    }

    /// Those whose turn has come, with what they may open. Call it when [`FlowLedger::poll_timeout`] is due.
    pub fn poll(&mut self, now: Instant) -> Vec<(Ask, Vec<To>)> {
        self.expire(now);
        self.forget_asks(now);
        let mut turns = Vec::new();
        let mut queue = std::mem::take(&mut self.queue);
        queue.sort_by_key(|queued| rank(queued, now));
        // Whoever finds no space keeps its place, and only those whose cap is higher pass.
        let mut passes_above = 0;
        for queued in queue {
            let cap = self.cap(queued.ask.urgency);
            let granted = match cap > passes_above {
                true => self.grant(&queued.ask, now),
                false => Vec::new(),
            };
            if granted.is_empty() {
                passes_above = passes_above.max(cap);
                self.queue.push(queued);
            } else {
                turns.push((queued.ask, granted));
            }
        }
        turns
    }

    /// When it is worth calling [`FlowLedger::poll`]: never while nobody waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.queue.is_empty() {
            return None;
        }
        let renewed = self.queue.iter().map(|queued| queued.renewed + FORGOTTEN_AFTER);
        self.flows.values().filter_map(Flow::expires).chain(renewed).min()
    }

    fn forget_asks(&mut self, now: Instant) {
        self.queue
            .retain(|queued| now.saturating_duration_since(queued.renewed) < FORGOTTEN_AFTER);
    }

    /// A dial is over, whatever came of it: tokens that nothing was sent with are given back.
    pub fn dial_ended(&mut self, peer: DeviceId) {
        self.flows
            .retain(|_, flow| flow.peer != Some(peer) || flow.sent || flow.held);
    }

    /// Nobody wants this any more.
    pub fn withdraw(&mut self, peer: DeviceId) {
        self.queue.retain(|queued| queued.ask.peer != peer);
    }

    /// Asked before each packet: whether it may go there. Notes that it went.
    pub fn may_send(&mut self, to: SocketAddr, now: Instant) -> bool {
        if let Some(flow) = self.flows.get_mut(&To::Udp(to))
            && flow.expires().is_none_or(|at| now < at)
        {
            let tried = now.saturating_duration_since(flow.since);
            if flow.kind == Kind::Punch && !flow.answered && tried > PUNCH_TRIED {
                self.note_silent(to, now);
                self.refuse(to, SILENT, now);
                return false;
            }
            flow.sent = true;
            flow.last = flow.last.max(now);
            return true;
        }
        self.expire(now);
        match self.unknown(to, now) {
            Ok((kind, reason)) => {
                self.open(To::Udp(to), kind, None, reason, now);
                let flow = self.flows.get_mut(&To::Udp(to));
                if let Some(flow) = flow {
                    flow.sent = true;
                    // Whoever called has been heard: the gateway takes the answer for an answered flow.
                    flow.answered = kind == Kind::Inbound;
                }
                true
            }
            Err(reason) => {
                self.refuse(to, reason, now);
                false
            }
        }
    }

    /// What a packet to a destination without a token is, where it may go all the same.
    fn unknown(&mut self, to: SocketAddr, now: Instant) -> Result<(Kind, &'static str), &'static str> {
        let has_called = self
            .callers
            .get(&to)
            .is_some_and(|at| now.saturating_duration_since(*at) < CALLER_KEPT);
        if has_called {
            return match self.flows.len() < self.limits.answered() {
                true => Ok((Kind::Inbound, "called here")),
                false => Err("called here while all flows were in use"),
            };
        }
        if self.flows.len() >= self.limits.soft() {
            return Err("all everyday flows are in use");
        }
        match self.punching {
            Punching::CatchingUp => Err("other ways to a peer wait until what was missed is here"),
            Punching::NotNeeded => Err("another way to a peer is not needed: the line is direct"),
            Punching::Allowed => {
                if self.is_silent(&to, now) {
                    return Err(SILENT);
                }
                self.punched
                    .retain(|at| now.saturating_duration_since(*at) < PUNCH_WINDOW);
                let unanswered = |flow: &&Flow| flow.kind == Kind::Punch && !flow.answered;
                let under_way = self.flows.values().filter(unanswered).count();
                if self.punched.len().max(under_way) >= PUNCH_TOKENS {
                    return Err("another hole punch is under way");
                }
                self.punched.push(now);
                Ok((Kind::Punch, "a more direct way to a peer"))
            }
        }
    }

    fn is_silent(&self, to: &SocketAddr, now: Instant) -> bool {
        let since = self.silent.get(to);
        since.is_some_and(|at| now.saturating_duration_since(*at) < SILENT_KEPT)
    }

    fn note_silent(&mut self, to: SocketAddr, now: Instant) {
        self.silent
            .retain(|_, at| now.saturating_duration_since(*at) < SILENT_KEPT);
        if self.silent.len() < SILENT_MAX {
            self.silent.entry(to).or_insert(now);
        }
    }

    /// The network is another one: who was silent may answer now. What the old gateway remembers is counted on.
    pub fn network_changed(&mut self) {
        self.silent.clear();
    }

    fn refuse(&mut self, to: SocketAddr, reason: &'static str, now: Instant) {
        self.refusals += 1;
        self.refused
            .retain(|_, refusal| now.saturating_duration_since(refusal.last) < REFUSED_KEPT);
        if self.refused.len() >= REFUSED_MAX && !self.refused.contains_key(&to) {
            return;
        }
        let refusal = self.refused.entry(to).or_insert(Refusal {
            last: now,
            times: 0,
            reason,
        });
        refusal.last = now;
        refusal.times += 1;
        refusal.reason = reason;
    }

    /// A packet came from there.
    pub fn heard(&mut self, from: SocketAddr, now: Instant) {
        if let Some(flow) = self.flows.get_mut(&To::Udp(from))
            && flow.expires().is_none_or(|at| now < at)
        {
            flow.answered |= flow.sent;
            flow.last = flow.last.max(now);
            if flow.answered && matches!(flow.kind, Kind::Dial | Kind::Punch) {
                flow.kind = Kind::Path;
            }
            return;
        }
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&from) {
            self.callers
                .retain(|_, at| now.saturating_duration_since(*at) < CALLER_KEPT);
            if self.callers.len() >= CALLERS_MAX {
                return;
            }
        }
        self.callers.insert(from, now);
    }

    /// A line to a device goes this way.
    pub fn carries(&mut self, at: SocketAddr, peer: DeviceId) {
        if let Some(flow) = self.flows.get_mut(&To::Udp(at)) {
            flow.peer = Some(peer);
            flow.kind = Kind::Path;
        }
    }

    /// Accounts for a connection that stays open, such as the home relay's, if there is space up to the hard cap.
    pub fn hold(&mut self, to: To, kind: Kind, reason: &'static str, now: Instant) -> bool {
        self.expire(now);
        if !self.flows.contains_key(&to) && self.flows.len() >= self.limits.hard() {
            return false;
        }
        self.open(to.clone(), kind, None, reason, now);
        if let Some(flow) = self.flows.get_mut(&to) {
            (flow.sent, flow.answered, flow.held, flow.last) = (true, true, true, now);
        }
        true
    }

    /// A connection that was held is closed: it counts until the gateway has forgotten it.
    pub fn release(&mut self, to: &To, now: Instant) {
        if let Some(flow) = self.flows.get_mut(to) {
            (flow.held, flow.last) = (false, now);
        }
    }

    /// Accounts for one question and its answer (a look-up, a probe), if there is space up to the soft cap.
    pub fn question(&mut self, to: To, kind: Kind, reason: &'static str, now: Instant) -> bool {
        self.expire(now);
        if !self.flows.contains_key(&to) && self.flows.len() >= self.limits.soft() {
            return false;
        }
        self.open(to.clone(), kind, None, reason, now);
        if let Some(flow) = self.flows.get_mut(&to) {
            (flow.sent, flow.answered, flow.last) = (true, true, now);
        }
        true
    }

    /// Accounts for a datagram to a host of a directory, if there is space up to the soft cap. Until [`FlowLedger::host_answered`] it counts as one that nobody answered.
    pub fn ask_host(&mut self, to: To, reason: &'static str, now: Instant) -> bool {
        self.expire(now);
        if !self.flows.contains_key(&to) && self.flows.len() >= self.limits.soft() {
            return false;
        }
        self.open(to.clone(), Kind::Lookup, None, reason, now);
        if let Some(flow) = self.flows.get_mut(&to) {
            (flow.sent, flow.last) = (true, now);
        }
        true
    }

    /// A host of a directory answered.
    pub fn host_answered(&mut self, to: &To, now: Instant) {
        if let Some(flow) = self.flows.get_mut(to) {
            (flow.answered, flow.last) = (true, now);
        }
    }

    /// Whether the transport may look for other ways.
    pub fn set_punching(&mut self, punching: Punching) {
        self.punching = punching;
    }

    /// Everything, to be shown.
    pub fn view(&mut self, now: Instant) -> LedgerView {
        self.expire(now);
        self.forget_asks(now);
        self.refused
            .retain(|_, refusal| now.saturating_duration_since(refusal.last) < REFUSED_KEPT);
        let flows = self.flows.iter().map(|(to, flow)| FlowView {
            to: to.clone(),
            kind: flow.kind,
            state: flow.state(now),
            age: now.saturating_duration_since(flow.since),
            forgotten_in: flow.expires().map(|at| at.saturating_duration_since(now)),
            peer: flow.peer,
            reason: flow.reason,
        });
        let mut waiting: Vec<&Queued> = self.queue.iter().collect();
        waiting.sort_by_key(|queued| rank(queued, now));
        let full = self.flows.len() >= self.limits.hard();
        let waiting = waiting.into_iter().map(|queued| WaitingView {
            peer: queued.ask.peer,
            urgency: queued.ask.urgency,
            age: now.saturating_duration_since(queued.since),
            wants: queued.ask.reason,
            reason: match (queued.ask.urgency, full) {
                (_, true) => "all flows are in use: it goes on when the gateway has forgotten one",
                (Urgency::Urgent, false) => "others that are wanted as much came first",
                (Urgency::Cover | Urgency::Spare, false) => {
                    "all everyday flows are in use: the rest is kept for what somebody waits for"
                }
            },
        });
        LedgerView {
            now: self.flows.len(),
            peak: self.peak,
            limits: self.limits,
            flows: flows.collect(),
            waiting: waiting.collect(),
            refused: self
                .refused
                .iter()
                .map(|(to, refusal)| RefusedView {
                    to: *to,
                    times: refusal.times,
                    reason: refusal.reason,
                })
                .collect(),
            refusals: self.refusals,
        }
    }
}

/// Urgent before spare, and what waited long before all; among equals in the order in which they came.
fn rank(queued: &Queued, now: Instant) -> (Urgency, u64) {
    let is_old = now.saturating_duration_since(queued.since) >= PROMOTED_AFTER;
    let urgency = if is_old { Urgency::Urgent } else { queued.ask.urgency };
    (urgency, queued.number)
}

/// The first addresses of each kind, each once.
fn limit_addresses(to: &mut Vec<To>) {
    let mut seen = BTreeSet::new();
    let (mut udp, mut tcp) = (0, 0);
    to.retain(|to| {
        let (count, most) = match to {
            To::Udp(_) => (&mut udp, ADDRESSES_PER_DIAL_MAX),
            To::Tcp(_) | To::Lookup(_) => (&mut tcp, 1),
        };
        let fits = *count < most && seen.insert(to.clone());
        *count += usize::from(fits);
        fits
    });
}

/// The ledger as shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerView {
    /// Flows that a gateway may see now.
    pub now: usize,
    /// The most there were at one time.
    pub peak: usize,
    /// The caps.
    pub limits: Limits,
    /// Each flow.
    pub flows: Vec<FlowView>,
    /// Who waits, the next first.
    pub waiting: Vec<WaitingView>,
    /// Destinations that were refused lately.
    pub refused: Vec<RefusedView>,
    /// Packets that were refused since the start.
    pub refusals: u64,
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowView {
    /// Where to.
    pub to: To,
    /// What for.
    pub kind: Kind,
    /// How it stands.
    pub state: State,
    /// Since when.
    pub age: Duration,
    /// When the gateway will have forgotten it, unless it is used again; none while a connection is held.
    pub forgotten_in: Option<Duration>,
    /// For whom, where that is known.
    pub peer: Option<DeviceId>,
    /// Why.
    pub reason: &'static str,
}

/// One that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingView {
    /// For whom.
    pub peer: DeviceId,
    /// How much it is wanted.
    pub urgency: Urgency,
    /// Since when.
    pub age: Duration,
    /// What it is wanted for.
    pub wants: &'static str,
    /// Why it waits.
    pub reason: &'static str,
}

/// A destination that packets were refused to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedView {
    /// Where to.
    pub to: SocketAddr,
    /// How often.
    pub times: u64,
    /// Why.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests;
