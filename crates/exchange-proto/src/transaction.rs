//! Transactions (RFC 3261 section 17, as corrected by RFC 6026), without sockets or clock.
//!
//! Timers: A, E and G double from T1 (500 ms) to T2 (4 s) where the transport is unreliable; B, F, H, J, L and M
//! are 64 x T1; D 32 s; I and K are T4 (5 s), and so is J while more than half of [`TRANSACTIONS_MAX`] are held: 12,000
//! requests a second would fill the table for its usual half minute; over reliable transports D, I, J and K are zero. A 2xx to an INVITE is
//! retransmitted here until [`Transactions::acked`], although RFC 3261 gives that to the user agent core: one place
//! for all retransmission. The core sends the ACK of a 2xx and hands it over with [`Transactions::keep_ack`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::flow::{Flow, Transport};
use crate::sip::header::{CSeq, Via, find_param, tag_of};
use crate::sip::{Message, Method};
use crate::time::Moment;

/// Round-trip estimate, ms.
pub const T1_MS: u64 = 500;
/// Longest retransmission interval, ms.
pub const T2_MS: u64 = 4_000;
/// How long a message stays in the network, ms.
pub const T4_MS: u64 = 5_000;
/// When to give up, ms.
pub const T1X64_MS: u64 = 64 * T1_MS;
/// Timer D, ms.
pub const D_MS: u64 = 32_000;
/// Timer C: an INVITE that rings and rings. Longer than any call is let ring, so that the core acts first.
pub const C_MS: u64 = 200_000;
/// Most transactions held; beyond it new requests are dropped.
pub const TRANSACTIONS_MAX: usize = 200_000;

/// Octets to put on a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub flow: Flow,
    /// A whole message.
    pub bytes: Vec<u8>,
}

/// A server transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerId(pub u64);

/// A client transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// What a received request turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A new transaction: the core must reply.
    New(ServerId),
    /// A repetition or an ACK that ends here: nothing to do.
    Absorbed,
    /// An ACK of a 2xx: for the dialog.
    DialogAck,
    /// The table is full: dropped.
    Overload,
}

/// What happened by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elapsed {
    /// No response came (timer B or F).
    NoResponse(ClientId),
    /// No ACK came for a 2xx (timer L).
    NoAck(ServerId),
    /// A client transaction is over; nothing more comes from it.
    Ended(ClientId),
}

/// What a message's transaction is found by, hashed: branches of one peer begin alike, and there are many of them.
type Key = [u8; 16];

fn key_of(words: fmt::Arguments<'_>) -> Key {
    // Most branches fit.
    let mut text = String::with_capacity(256);
    let _ = text.write_fmt(words);
    let mut key = Key::default();
    key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    key
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServerState {
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
}

#[derive(Debug)]
struct Server {
    key: Key,
    invite: bool,
    /// Needed until it is answered; an INVITE's, to the end.
    request: Option<Arc<Message>>,
    flow: Flow,
    state: ServerState,
    last: Option<Vec<u8>>,
    acked: bool,
    timers: Timers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientState {
    Calling,
    Proceeding,
    Completed,
    Accepted,
}

#[derive(Debug)]
struct Client {
    key: Key,
    request: Message,
    bytes: Vec<u8>,
    flow: Flow,
    state: ClientState,
    /// A CANCEL is out.
    cancelled: bool,
    /// ACKs of 2xx by the To tag they answer.
    acks: BTreeMap<String, Vec<u8>>,
    timers: Timers,
}

#[derive(Clone, Copy, Debug, Default)]
struct Timers {
    retransmit: Option<(Moment, u64)>,
    end: Option<Moment>,
}

impl Timers {
    fn next(&self) -> Option<Moment> {
        self.retransmit.map(|(at, _)| at).into_iter().chain(self.end).min()
    }

    fn start_retransmit(&mut self, now: Moment) {
        self.retransmit = Some((now.plus_ms(T1_MS), T1_MS));
    }

    /// Whether the retransmission is due; schedules the next one.
    fn retransmit_due(&mut self, now: Moment, interval_ms_max: u64) -> bool {
        let Some((at, interval)) = self.retransmit.filter(|(at, _)| *at <= now) else {
            return false;
        };
        let interval = (interval * 2).min(interval_ms_max);
        self.retransmit = Some((at.plus_ms(interval), interval));
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Which {
    Server(ServerId),
    Client(ClientId),
}

/// All transactions of one exchange.
#[derive(Debug, Default)]
pub struct Transactions {
    servers: BTreeMap<ServerId, Server>,
    server_keys: BTreeMap<Key, ServerId>,
    clients: BTreeMap<ClientId, Client>,
    client_keys: BTreeMap<Key, ClientId>,
    deadlines: BTreeSet<(Moment, Which)>,
    next_id: u64,
    transmits: Vec<Transmit>,
}

impl Transactions {
    /// Takes a sound request and tells what it is.
    pub fn receive_request(&mut self, request: &Arc<Message>, flow: Flow, now: Moment) -> Received {
        let Some(key) = server_key(request) else {
            return Received::Absorbed;
        };
        if let Some(&id) = self.server_keys.get(&key) {
            return self.receive_again(id, request, now);
        }
        if request.method() == Some(&Method::Ack) {
            return Received::DialogAck;
        }
        if self.servers.len() + self.clients.len() >= TRANSACTIONS_MAX {
            return Received::Overload;
        }
        let id = ServerId(self.take_id());
        let server = Server {
            key,
            invite: request.method() == Some(&Method::Invite),
            request: Some(request.clone()),
            flow: reply_flow(request, flow),
            state: ServerState::Proceeding,
            last: None,
            acked: false,
            timers: Timers::default(),
        };
        self.server_keys.insert(key, id);
        self.servers.insert(id, server);
        Received::New(id)
    }

    fn receive_again(&mut self, id: ServerId, request: &Message, now: Moment) -> Received {
        let Some(server) = self.servers.get_mut(&id) else {
            return Received::Absorbed;
        };
        if request.method() == Some(&Method::Ack) {
            match server.state {
                ServerState::Completed => {
                    server.state = ServerState::Confirmed;
                    let wait_ms = if server.flow.transport.is_reliable() { 0 } else { T4_MS };
                    self.set_server_timers(
                        id,
                        Timers {
                            retransmit: None,
                            end: Some(now.plus_ms(wait_ms)),
                        },
                    );
                    return Received::Absorbed;
                }
                // An ACK of a 2xx with the INVITE's branch, as some phones send it.
                ServerState::Accepted => return Received::DialogAck,
                ServerState::Proceeding | ServerState::Confirmed => return Received::Absorbed,
            }
        }
        let again = matches!(server.state, ServerState::Proceeding | ServerState::Completed);
        if let Some(bytes) = server.last.clone().filter(|_| again) {
            let flow = server.flow;
            self.transmits.push(Transmit { flow, bytes });
        }
        Received::Absorbed
    }

    /// The INVITE transaction that a CANCEL speaks of.
    pub fn cancelled_by(&self, cancel: &Message) -> Option<ServerId> {
        let key = server_key_for(cancel, &Method::Invite)?;
        self.server_keys.get(&key).copied()
    }

    /// The request of a transaction still held.
    pub fn request_of(&self, id: ServerId) -> Option<&Message> {
        self.servers.get(&id)?.request.as_deref()
    }

    /// Where the request came from.
    pub fn flow_of(&self, id: ServerId) -> Option<Flow> {
        self.servers.get(&id).map(|server| server.flow)
    }

    /// Sends a response. After a final one, further responses are ignored.
    pub fn respond(&mut self, id: ServerId, response: &Message, now: Moment) {
        let crowded = self.count() > TRANSACTIONS_MAX / 2;
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        let status = response.status().unwrap_or(500);
        if server.state != ServerState::Proceeding {
            return;
        }
        let bytes = response.to_bytes();
        server.last = Some(bytes.clone());
        let flow = server.flow;
        self.transmits.push(Transmit { flow, bytes });
        if status < 200 {
            return;
        }
        let reliable = flow.transport.is_reliable();
        let mut timers = Timers {
            retransmit: None,
            end: Some(now.plus_ms(T1X64_MS)),
        };
        if !server.invite {
            server.state = ServerState::Completed;
            let kept_ms = if crowded { T4_MS } else { T1X64_MS };
            timers.end = Some(now.plus_ms(if reliable { 0 } else { kept_ms }));
            // Repetitions need the answer alone: of registrations there are many, for half a minute each.
            server.request = None;
        } else if status < 300 {
            server.state = ServerState::Accepted;
            timers.start_retransmit(now);
        } else {
            server.state = ServerState::Completed;
            if !reliable {
                timers.start_retransmit(now);
            }
        }
        self.set_server_timers(id, timers);
    }

    /// The ACK of a 2xx came: stop retransmitting it.
    pub fn acked(&mut self, id: ServerId) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        server.acked = true;
        let timers = Timers {
            retransmit: None,
            ..server.timers
        };
        self.set_server_timers(id, timers);
    }

    /// Forgets a server transaction that shall get no answer at all.
    pub fn abandon(&mut self, id: ServerId) {
        self.remove_server(id);
    }

    /// Starts a client transaction; its topmost Via must carry a branch of our own.
    pub fn request(&mut self, request: Message, flow: Flow, now: Moment) -> ClientId {
        let id = ClientId(self.take_id());
        let key = client_key(&request).unwrap_or_default();
        let bytes = request.to_bytes();
        let mut timers = Timers {
            retransmit: None,
            end: Some(now.plus_ms(T1X64_MS)),
        };
        if !flow.transport.is_reliable() {
            timers.start_retransmit(now);
        }
        self.transmits.push(Transmit {
            flow,
            bytes: bytes.clone(),
        });
        let client = Client {
            key,
            request,
            bytes,
            flow,
            state: ClientState::Calling,
            cancelled: false,
            acks: BTreeMap::new(),
            timers: Timers::default(),
        };
        self.client_keys.insert(key, id);
        self.clients.insert(id, client);
        self.set_client_timers(id, timers);
        id
    }

    /// The request of a client transaction still held.
    pub fn sent(&self, id: ClientId) -> Option<(&Message, Flow)> {
        self.clients.get(&id).map(|client| (&client.request, client.flow))
    }

    /// A CANCEL was sent for this INVITE: wait no longer than 64 x T1 for its end (RFC 3261 section 9.1).
    pub fn cancelled(&mut self, id: ClientId, now: Moment) {
        let pending = |c: &&mut Client| matches!(c.state, ClientState::Calling | ClientState::Proceeding);
        if let Some(client) = self.clients.get_mut(&id).filter(pending) {
            client.cancelled = true;
            self.set_client_timers(
                id,
                Timers {
                    retransmit: None,
                    end: Some(now.plus_ms(T1X64_MS)),
                },
            );
        }
    }

    /// Keeps the ACK of a 2xx, to be sent again whenever that 2xx comes again.
    pub fn keep_ack(&mut self, id: ClientId, to_tag: &str, ack: Vec<u8>) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.acks.insert(to_tag.to_owned(), ack);
        }
    }

    /// Takes a sound response; gives the transaction when the core has to see it.
    pub fn receive_response(&mut self, response: &Message, now: Moment) -> Option<ClientId> {
        let id = *self.client_keys.get(&client_key(response)?)?;
        let status = response.status()?;
        let client = self.clients.get_mut(&id)?;
        let invite = client.request.method() == Some(&Method::Invite);
        match (client.state, status) {
            (ClientState::Calling | ClientState::Proceeding, 100..200) => {
                client.state = ClientState::Proceeding;
                if invite {
                    let limit = client.timers.end.filter(|_| client.cancelled);
                    let end = limit.unwrap_or(now.plus_ms(C_MS));
                    self.set_client_timers(
                        id,
                        Timers {
                            retransmit: None,
                            end: Some(end),
                        },
                    );
                }
                Some(id)
            }
            (ClientState::Calling | ClientState::Proceeding, _) => {
                self.complete_client(id, response, invite, status, now);
                Some(id)
            }
            (ClientState::Accepted, 200..300) => self.receive_2xx_again(id, response),
            (ClientState::Completed, 300..) if invite => {
                self.acknowledge_failure(id, response);
                None
            }
            _ => None,
        }
    }

    fn complete_client(&mut self, id: ClientId, response: &Message, invite: bool, status: u16, now: Moment) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let reliable = client.flow.transport.is_reliable();
        let (state, end_ms) = match (invite, status < 300) {
            (true, true) => (ClientState::Accepted, T1X64_MS),
            (true, false) => (ClientState::Completed, if reliable { 0 } else { D_MS }),
            (false, _) => (ClientState::Completed, if reliable { 0 } else { T4_MS }),
        };
        client.state = state;
        self.set_client_timers(
            id,
            Timers {
                retransmit: None,
                end: Some(now.plus_ms(end_ms)),
            },
        );
        if invite && status >= 300 {
            self.acknowledge_failure(id, response);
        }
    }

    fn receive_2xx_again(&mut self, id: ClientId, response: &Message) -> Option<ClientId> {
        let client = self.clients.get(&id)?;
        match client.acks.get(&to_tag(response)) {
            Some(ack) => {
                let transmit = Transmit {
                    flow: client.flow,
                    bytes: ack.clone(),
                };
                self.transmits.push(transmit);
                None
            }
            // Another branch of a fork downstream answered too, or we owe the ACK still.
            None => Some(id),
        }
    }

    fn acknowledge_failure(&mut self, id: ClientId, response: &Message) {
        let Some(client) = self.clients.get(&id) else {
            return;
        };
        let ack = failure_ack(&client.request, response);
        let transmit = Transmit {
            flow: client.flow,
            bytes: ack.to_bytes(),
        };
        self.transmits.push(transmit);
    }

    /// Ends the client transactions of a flow that is gone; the core treats them as unanswered.
    pub fn flow_closed(&mut self, flow: Flow) -> Vec<ClientId> {
        let pending = |client: &Client| matches!(client.state, ClientState::Calling | ClientState::Proceeding);
        let ids: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, c)| c.flow == flow && pending(c))
            .map(|(id, _)| *id)
            .collect();
        ids.iter().for_each(|id| self.remove_client(*id));
        ids
    }

    /// The next deadline.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Moment) -> Vec<Elapsed> {
        let mut elapsed = Vec::new();
        while let Some(&(at, which)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(at, which));
            elapsed.extend(match which {
                Which::Server(id) => self.server_due(id, now),
                Which::Client(id) => self.client_due(id, now),
            });
        }
        elapsed
    }

    fn server_due(&mut self, id: ServerId, now: Moment) -> Option<Elapsed> {
        let server = self.servers.get_mut(&id)?;
        if server.timers.end.is_some_and(|end| end <= now) {
            let unheard = server.state == ServerState::Accepted && !server.acked;
            self.remove_server(id);
            return unheard.then_some(Elapsed::NoAck(id));
        }
        let mut timers = server.timers;
        if timers.retransmit_due(now, T2_MS) {
            let transmit = server.last.clone().map(|bytes| Transmit {
                flow: server.flow,
                bytes,
            });
            self.transmits.extend(transmit);
        }
        self.set_server_timers(id, timers);
        None
    }

    fn client_due(&mut self, id: ClientId, now: Moment) -> Option<Elapsed> {
        let client = self.clients.get_mut(&id)?;
        if client.timers.end.is_some_and(|end| end <= now) {
            let unanswered = matches!(client.state, ClientState::Calling | ClientState::Proceeding);
            self.remove_client(id);
            return Some(if unanswered {
                Elapsed::NoResponse(id)
            } else {
                Elapsed::Ended(id)
            });
        }
        let mut timers = client.timers;
        let invite = client.request.method() == Some(&Method::Invite);
        let interval_ms_max = if invite { T1X64_MS } else { T2_MS };
        if timers.retransmit_due(now, interval_ms_max) {
            let transmit = Transmit {
                flow: client.flow,
                bytes: client.bytes.clone(),
            };
            self.transmits.push(transmit);
        }
        self.set_client_timers(id, timers);
        None
    }

    /// Takes what is to be sent.
    pub fn drain_transmits(&mut self) -> Vec<Transmit> {
        std::mem::take(&mut self.transmits)
    }

    /// Transactions held.
    pub fn count(&self) -> usize {
        self.servers.len() + self.clients.len()
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn set_server_timers(&mut self, id: ServerId, timers: Timers) {
        let Some(server) = self.servers.get_mut(&id) else {
            return;
        };
        if let Some(at) = server.timers.next() {
            self.deadlines.remove(&(at, Which::Server(id)));
        }
        server.timers = timers;
        self.deadlines.extend(timers.next().map(|at| (at, Which::Server(id))));
    }

    fn set_client_timers(&mut self, id: ClientId, timers: Timers) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        if let Some(at) = client.timers.next() {
            self.deadlines.remove(&(at, Which::Client(id)));
        }
        client.timers = timers;
        self.deadlines.extend(timers.next().map(|at| (at, Which::Client(id))));
    }

    fn remove_server(&mut self, id: ServerId) {
        self.set_server_timers(id, Timers::default());
        if let Some(server) = self.servers.remove(&id) {
            self.server_keys.remove(&server.key);
        }
    }

    fn remove_client(&mut self, id: ClientId) {
        self.set_client_timers(id, Timers::default());
        if let Some(client) = self.clients.remove(&id) {
            self.client_keys.remove(&client.key);
        }
    }
}

/// RFC 3261 section 17.2.3; without the magic cookie, the fields of RFC 2543.
fn server_key(request: &Message) -> Option<Key> {
    let method = request.method()?;
    server_key_for(
        request,
        if *method == Method::Ack {
            &Method::Invite
        } else {
            method
        },
    )
}

fn server_key_for(request: &Message, method: &Method) -> Option<Key> {
    let top = request.elements("Via").next()?;
    let via = Via::parse(top)?;
    match via
        .branch()
        .and_then(|branch| branch.strip_prefix("z9hG4bK"))
        .filter(|rest| !rest.is_empty())
    {
        Some(rest) => Some(key_of(format_args!("{rest}|{}:{:?}|{method}", via.host, via.port))),
        None => {
            let from_tag = crate::sip::NameAddr::parse(request.get("From")?)
                .ok()?
                .tag()
                .unwrap_or("")
                .to_owned();
            let number = CSeq::parse(request.get("CSeq")?)?.number;
            Some(key_of(format_args!(
                "2543|{}|{from_tag}|{}|{number}|{top}|{method}",
                request.uri()?,
                request.get("Call-ID")?
            )))
        }
    }
}

fn client_key(message: &Message) -> Option<Key> {
    let via = Via::parse(message.elements("Via").next()?)?;
    let method = CSeq::parse(message.get("CSeq")?)?.method;
    Some(key_of(format_args!("{}|{method}", via.branch()?)))
}

fn to_tag(message: &Message) -> String {
    message.get("To").and_then(tag_of).unwrap_or_default().to_owned()
}

/// Over UDP without rport, the response goes to the port that the Via names (RFC 3261 section 18.2.2).
fn reply_flow(request: &Message, flow: Flow) -> Flow {
    let via = request.elements("Via").next().and_then(Via::parse);
    match via {
        Some(via) if flow.transport == Transport::Udp && find_param(&via.params, "rport").is_none() => {
            let mut flow = flow;
            flow.remote.set_port(via.port.unwrap_or(5060));
            flow
        }
        _ => flow,
    }
}

/// The ACK of a final response other than 2xx (RFC 3261 section 17.1.1.3).
fn failure_ack(request: &Message, response: &Message) -> Message {
    let mut ack = Message::request(Method::Ack, request.uri().unwrap_or_default());
    if let Some(via) = request.elements("Via").next() {
        ack.push("Via", via);
    }
    for name in ["From", "Call-ID", "Max-Forwards"] {
        if let Some(value) = request.texts(name).next() {
            ack.push(name, value.clone());
        }
    }
    ack.push("To", response.get("To").unwrap_or_default());
    for route in request.all("Route") {
        ack.push("Route", route);
    }
    let number = request.get("CSeq").and_then(CSeq::parse).map_or(0, |cseq| cseq.number);
    ack.with("CSeq", format!("{number} ACK"))
}
