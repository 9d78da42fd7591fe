//! One exchange node: the only module that knows all the others.
//!
//! Contract: call [`Exchange::handle`] with every input and do its [`Outputs`] in this order: store, then relay, then
//! send. Call it with [`Input::Timeout`] when [`Exchange::poll_timeout`] is due. Same seed and inputs, same outputs.

mod authenticate;
mod effects;
mod incoming;
mod takeover;

pub use takeover::Place;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use crate::bridge::{Call, CallRecord, Context, Effect, Event, LegId, Purpose, SESSION_EXPIRES_S};
use crate::flow::{Flow, Transport};
use crate::guard::Guard;
use crate::registrar::{Binding, Change, Registrar};
use crate::relay::{PortPool, RelayCommand};
use crate::replica::{Key, Record, Setup};
use crate::route::Tables;
use crate::sip::Message;
use crate::sip::digest::Nonces;
use crate::time::Moment;
use crate::token::Tokens;
use crate::transaction::{ClientId, Elapsed, ServerId, Transactions, Transmit};

/// Most calls at one time.
pub const CALLS_MAX: usize = 20_000;
/// Keep-alive to phones behind translators over UDP, ms.
pub const KEEP_ALIVE_MS: u64 = 25_000;

/// No deadline is further away than ten years, ms.
const DEADLINE_MS_MAX: u64 = 315_360_000_000;

/// How media travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaPath {
    /// Through our relay, on this many even ports from the first.
    Relayed {
        /// First RTP port.
        first_port: u16,
        /// Number of RTP ports.
        count: u16,
    },
    /// From phone to phone.
    Direct,
}

/// Settings of one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Domain of addresses, also the digest realm.
    pub domain: String,
    /// Address that phones reach us at.
    pub address: IpAddr,
    /// Port for UDP and TCP.
    pub port: u16,
    /// Port for TLS.
    pub tls_port: u16,
    /// How media travels.
    pub media: MediaPath,
    /// Session timer interval, seconds.
    pub session_s: u32,
    /// Whether phones must prove who they are. Off is for measurements only.
    pub authenticate: bool,
    /// Number of this node; owner of its calls.
    pub node: u64,
    /// Fencing epoch.
    pub epoch: u64,
    /// Whether to put out replica records of confirmed calls and bindings.
    pub replicate: bool,
}

impl Config {
    /// The usual settings for an address.
    pub fn new(domain: impl Into<String>, address: IpAddr) -> Self {
        Self {
            domain: domain.into(),
            address,
            port: 5060,
            tls_port: 5061,
            media: MediaPath::Relayed {
                first_port: 30_000,
                count: 2_000,
            },
            session_s: SESSION_EXPIRES_S,
            authenticate: true,
            node: 1,
            epoch: 1,
            replicate: false,
        }
    }
}

/// Secrets drawn by the shell.
#[derive(Clone)]
pub struct Seeds {
    /// For tags, branches and Call-IDs: fresh at every start.
    pub tokens: [u8; 32],
    /// For nonces: the same on all nodes.
    pub nonces: [u8; 32],
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A datagram, or one framed message of a stream.
    Received {
        /// Where from.
        flow: Flow,
        /// As it came.
        bytes: Vec<u8>,
    },
    /// A connection closed or could not be written.
    FlowClosed(Flow),
    /// The configuration was pushed.
    Tables(Tables),
    /// Another node's bindings of an account.
    Elsewhere {
        /// Whose.
        account: String,
        /// At which node.
        node: u64,
        /// All of them.
        bindings: Vec<Binding>,
    },
    /// The call record of this call is stored where it outlives this node.
    Recorded(String),
    /// No new calls from now on: this node is about to stop.
    Drain,
    /// A deadline.
    Timeout,
}

/// To be stored before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCommand {
    /// Bindings of an account.
    Bindings(Change),
    /// A call's record; a second one of the same call must be ignored.
    Record(CallRecord),
}

/// What to do, in the order of the fields.
#[must_use]
#[derive(Debug, Default)]
pub struct Outputs {
    /// First, in one transaction.
    pub store: Vec<StoreCommand>,
    /// To the standby.
    pub replicate: Vec<Record>,
    /// Then.
    pub relay: Vec<RelayCommand>,
    /// Last.
    pub send: Vec<Transmit>,
}

impl Outputs {
    /// What the relay and phones are told, and the rest: where phones must not wait for it.
    pub fn told_first(self) -> (Self, Self) {
        let told = Self {
            relay: self.relay,
            send: self.send,
            ..Self::default()
        };
        let rest = Self {
            store: self.store,
            replicate: self.replicate,
            ..Self::default()
        };
        (told, rest)
    }
}

impl Extend<Outputs> for Outputs {
    fn extend<T: IntoIterator<Item = Outputs>>(&mut self, more: T) {
        for outputs in more {
            self.store.extend(outputs.store);
            self.replicate.extend(outputs.replicate);
            self.relay.extend(outputs.relay);
            self.send.extend(outputs.send);
        }
    }
}

/// What the exchange has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub messages_in: u64,
    pub malformed: u64,
    pub refused: u64,
    pub ignored: u64,
    pub challenges: u64,
    pub wrong_passwords: u64,
    pub registrations: u64,
    pub calls_begun: u64,
    pub calls_answered: u64,
    pub calls_ended: u64,
    pub transfers: u64,
}

/// One call as shown to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallView {
    /// Key of the call.
    pub key: String,
    /// Caller's account.
    pub from: String,
    /// What was dialled.
    pub to: String,
    /// Who answered.
    pub answered_by: Option<String>,
    /// When it began.
    pub started: Moment,
    /// When it was answered.
    pub answered: Option<Moment>,
    /// Accounts of its legs.
    pub legs: Vec<String>,
    /// RTP ports of its legs.
    pub ports: Vec<u16>,
}

#[derive(Debug, Clone)]
struct ClientOwner {
    call: String,
    leg: LegId,
    purpose: Purpose,
}

/// One exchange node.
pub struct Exchange {
    config: Config,
    tables: Tables,
    registrar: Registrar,
    transactions: Transactions,
    tokens: Tokens,
    nonces: Nonces,
    guard: Guard,
    ports: Option<PortPool>,
    calls: BTreeMap<String, Call>,
    call_deadlines: BTreeSet<(Moment, String)>,
    call_deadline_of: BTreeMap<String, Moment>,
    /// Leg by Call-ID and our tag, and back.
    dialogs: BTreeMap<(String, String), (String, LegId)>,
    dialog_of: BTreeMap<(String, LegId), (String, String)>,
    /// Accounts with their legs, and back.
    legs_of: BTreeSet<(String, (String, LegId))>,
    account_of_leg: BTreeMap<(String, LegId), String>,
    clients: BTreeMap<ClientId, ClientOwner>,
    /// INVITE transactions of phones, until acknowledged.
    invites: BTreeMap<ServerId, (String, LegId)>,
    /// Version last put out under each key.
    replicas: BTreeMap<Key, u64>,
    /// Calls in set-up, as a standby would begin them anew; those that have changed since they were put out.
    setups: BTreeMap<String, Setup>,
    setups_changed: BTreeSet<String>,
    /// Calls being adopted from another address, whose records are put out when phones have been told.
    adopted: Option<BTreeSet<String>>,
    /// Call records that are not stored for good yet.
    ended: BTreeMap<String, CallRecord>,
    /// Bindings at other nodes.
    elsewhere: BTreeMap<String, BTreeMap<u64, Vec<Binding>>>,
    draining: bool,
    keep_alive_at: Moment,
    /// The request being answered: where from, how long, which; until its sender has proved itself.
    asked: Option<(Flow, usize, ServerId)>,
    counters: Counters,
    clock: (Instant, Moment),
    outputs: Outputs,
}

impl Exchange {
    /// A node without calls; `wall` is Unix time at `now`.
    pub fn new(config: Config, seeds: Seeds, tables: Tables, now: Instant, wall: Moment) -> Self {
        let ports = match config.media {
            MediaPath::Relayed { first_port, count } => Some(PortPool::new(first_port, count)),
            MediaPath::Direct => None,
        };
        Self {
            config,
            tables,
            registrar: Registrar::default(),
            transactions: Transactions::default(),
            tokens: Tokens::new(seeds.tokens),
            nonces: Nonces::new(seeds.nonces),
            guard: Guard::default(),
            ports,
            calls: BTreeMap::new(),
            call_deadlines: BTreeSet::new(),
            call_deadline_of: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            dialog_of: BTreeMap::new(),
            legs_of: BTreeSet::new(),
            account_of_leg: BTreeMap::new(),
            clients: BTreeMap::new(),
            invites: BTreeMap::new(),
            replicas: BTreeMap::new(),
            setups: BTreeMap::new(),
            setups_changed: BTreeSet::new(),
            adopted: None,
            ended: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            draining: false,
            keep_alive_at: wall.plus_ms(KEEP_ALIVE_MS),
            asked: None,
            counters: Counters::default(),
            clock: (now, wall),
            outputs: Outputs::default(),
        }
    }

    /// Takes bindings from the store, before the first input.
    pub fn restore_bindings(&mut self, account: &str, bindings: Vec<Binding>) {
        self.registrar.restore(account, bindings);
    }

    /// Takes one input and tells what to do.
    pub fn handle(&mut self, input: Input, now: Instant) -> Outputs {
        let now = self.moment(now);
        match input {
            Input::Received { flow, bytes } => self.received(flow, &bytes, now),
            Input::FlowClosed(flow) => self.flow_closed(flow, now),
            Input::Tables(tables) => self.tables = tables,
            Input::Elsewhere {
                account,
                node,
                bindings,
            } => self.elsewhere(account, node, bindings),
            Input::Recorded(call) => self.recorded(&call),
            Input::Drain => self.draining = true,
            Input::Timeout => self.timeout(now),
        }
        let transmits = self.transactions.drain_transmits();
        if self.outputs.send.is_empty() {
            self.outputs.send = transmits;
        } else {
            self.outputs.send.extend(transmits);
        }
        std::mem::take(&mut self.outputs)
    }

    /// The next deadline and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let transactions = self.transactions.poll_timeout().map(|at| (at, "transaction"));
        let calls = self.call_deadlines.first().map(|(at, _)| (*at, "call"));
        let bindings = self.registrar.poll_timeout().map(|at| (at, "binding"));
        let keep_alive = Some((self.keep_alive_at, "keep-alive"));
        let (at, why) = [transactions, calls, bindings, keep_alive]
            .into_iter()
            .flatten()
            .min()?;
        // A damaged record may name a time that no clock reaches.
        let wait_ms = at.since_ms(self.clock.1).min(DEADLINE_MS_MAX);
        Some((self.clock.0 + std::time::Duration::from_millis(wait_ms), why))
    }

    fn moment(&self, now: Instant) -> Moment {
        let elapsed = now.saturating_duration_since(self.clock.0);
        self.clock.1.plus_ms(elapsed.as_millis() as u64)
    }

    fn timeout(&mut self, now: Moment) {
        for elapsed in self.transactions.handle_timeout(now) {
            self.elapsed(elapsed, now);
        }
        while let Some((_, key)) = self.call_deadlines.first().filter(|(at, _)| *at <= now).cloned() {
            self.with_call(&key, now, |call, ctx| call.handle_timeout(ctx));
        }
        for change in self.registrar.handle_timeout(now) {
            self.binding_changed(change);
        }
        if self.keep_alive_at <= now {
            self.keep_alive_at = now.plus_ms(KEEP_ALIVE_MS);
            self.keep_alive();
        }
    }

    fn elapsed(&mut self, elapsed: Elapsed, now: Moment) {
        match elapsed {
            Elapsed::NoResponse(client) => self.unanswered(client, now),
            Elapsed::NoAck(server) => {
                if let Some((key, leg)) = self.invites.remove(&server) {
                    self.with_call(&key, now, |call, ctx| call.handle(leg, Event::NoAck, ctx));
                }
            }
            Elapsed::Ended(client) => {
                self.clients.remove(&client);
            }
        }
    }

    /// A request without response counts as answered by 408 (RFC 3261 section 8.1.3.1).
    fn unanswered(&mut self, client: ClientId, now: Moment) {
        let Some(owner) = self.clients.remove(&client) else {
            return;
        };
        let response = Message::response(408);
        let ClientOwner { call, leg, purpose } = owner;
        self.with_call(&call, now, |call, ctx| {
            call.handle(
                leg,
                Event::Response {
                    client,
                    purpose,
                    message: &response,
                },
                ctx,
            )
        });
    }

    fn flow_closed(&mut self, flow: Flow, now: Moment) {
        for change in self.registrar.flow_closed(flow) {
            self.binding_changed(change);
        }
        for client in self.transactions.flow_closed(flow) {
            self.unanswered(client, now);
        }
    }

    fn elsewhere(&mut self, account: String, node: u64, bindings: Vec<Binding>) {
        let nodes = self.elsewhere.entry(account.clone()).or_default();
        if bindings.is_empty() {
            nodes.remove(&node);
        } else {
            nodes.insert(node, bindings);
        }
        if nodes.is_empty() {
            self.elsewhere.remove(&account);
        }
    }

    fn binding_changed(&mut self, change: Change) {
        if self.config.replicate {
            let Change::Bindings { account, bindings } = &change;
            let record = Record::bindings(account, bindings, self.config.node, self.config.epoch);
            self.put_out(record);
        }
        self.outputs.store.push(StoreCommand::Bindings(change));
    }

    /// Two empty lines towards phones behind translators keep their ports open (RFC 6223).
    fn keep_alive(&mut self) {
        let flows: BTreeSet<Flow> = self
            .registrar
            .iter()
            .filter(|(_, b)| b.is_translated())
            .map(|(_, b)| b.flow)
            .filter(|f| f.transport == Transport::Udp)
            .collect();
        self.outputs.send.extend(flows.into_iter().map(|flow| Transmit {
            flow,
            bytes: b"\r\n\r\n".to_vec(),
        }));
    }

    /// Runs a call with its context and applies the effects.
    fn with_call<R>(
        &mut self,
        key: &str,
        now: Moment,
        run: impl FnOnce(&mut Call, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let mut call = self.calls.remove(key)?;
        let (result, effects) = self.in_context(now, |ctx| run(&mut call, ctx));
        self.calls.insert(key.to_owned(), call);
        self.apply(key, effects, now);
        self.settle(key);
        Some(result)
    }

    fn in_context<R>(&mut self, now: Moment, run: impl FnOnce(&mut Context<'_>) -> R) -> (R, Vec<Effect>) {
        let mut ctx = Context {
            now,
            tokens: &mut self.tokens,
            ports: self.ports.as_mut(),
            domain: &self.config.domain,
            media_address: self.config.address,
            session_s: self.config.session_s,
            effects: Vec::new(),
        };
        let result = run(&mut ctx);
        let effects = ctx.effects;
        (result, effects)
    }

    /// Brings the indexes in line with a call after it changed, and forgets it when it is gone.
    fn settle(&mut self, key: &str) {
        let Some(call) = self.calls.get(key) else {
            return;
        };
        let deadline = call.poll_timeout().map(|(at, _)| at);
        for (&leg, state) in &call.legs {
            let dialog = (state.dialog.call_id.clone(), state.dialog.local_tag.clone());
            if let std::collections::btree_map::Entry::Vacant(entry) = self.dialog_of.entry((key.to_owned(), leg)) {
                entry.insert(dialog.clone());
                let named = (key.to_owned(), leg);
                self.legs_of.insert((state.account.clone(), named.clone()));
                self.account_of_leg.insert(named.clone(), state.account.clone());
                self.dialogs.insert(dialog, named);
            }
        }
        let gone = call.is_gone();
        if let Some(old) = self.call_deadline_of.remove(key) {
            self.call_deadlines.remove(&(old, key.to_owned()));
        }
        if gone {
            self.calls.remove(key);
            self.withdraw_call(key);
            return;
        }
        if let Some(at) = deadline {
            self.call_deadlines.insert((at, key.to_owned()));
            self.call_deadline_of.insert(key.to_owned(), at);
        }
        self.replicate_call(key);
    }

    /// Live calls.
    pub fn calls(&self) -> Vec<CallView> {
        let view = |call: &Call| CallView {
            key: call.key.clone(),
            from: call.from.clone(),
            to: call.to.clone(),
            answered_by: call.answered_by.clone(),
            started: call.started,
            answered: call.answered,
            legs: call.legs.values().map(|leg| leg.account.clone()).collect(),
            ports: call.legs.values().flat_map(|leg| leg.ports.clone()).collect(),
        };
        self.calls.values().map(view).collect()
    }

    /// Registered phones, by account.
    pub fn bindings(&self) -> impl Iterator<Item = (&str, &Binding)> {
        self.registrar.iter()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Transactions held, for the list of gauges.
    pub fn transaction_count(&self) -> usize {
        self.transactions.count()
    }

    /// RTP ports in use.
    pub fn ports_in_use(&self) -> usize {
        self.ports.as_ref().map_or(0, PortPool::taken_count)
    }
}
