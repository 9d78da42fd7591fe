//! Doing what calls want: requests get Via and Contact, replies their copied header fields, and changed state goes
//! out as replica records.

use super::authenticate::tag_to;
use super::incoming::ALLOW;
use super::{ClientOwner, Exchange, StoreCommand};
use crate::bridge::{Call, Disposition, Effect, Phase, Reply};
use crate::flow::{Flow, Transport};
use crate::replica::{Key, Record};
use crate::sip::{CSeq, Message, Method};
use crate::time::Moment;
use crate::transaction::{ClientId, Transmit};

impl Exchange {
    pub(super) fn apply(&mut self, key: &str, effects: Vec<Effect>, now: Moment) {
        for effect in effects {
            match effect {
                Effect::Request {
                    leg,
                    message,
                    flow,
                    purpose,
                } => {
                    let request = self.dress(message, flow);
                    let ringing = purpose == crate::bridge::Purpose::Invite;
                    if let Some(setup) = self.setups.get_mut(key).filter(|_| ringing) {
                        setup.rung.push((flow, request.to_bytes()));
                        self.setups_changed.insert(key.to_owned());
                    }
                    let client = self.transactions.request(request, flow, now);
                    self.clients.insert(
                        client,
                        ClientOwner {
                            call: key.to_owned(),
                            leg,
                            purpose,
                        },
                    );
                    if let Some(call) = self.calls.get_mut(key).filter(|_| ringing) {
                        call.set_client(leg, client);
                    }
                }
                Effect::Cancel { client, .. } => self.cancel(client, now),
                Effect::Ack {
                    client,
                    message,
                    to_tag,
                    flow,
                } => {
                    let ack = self.dress(message, flow).to_bytes();
                    self.transactions.keep_ack(client, &to_tag, ack.clone());
                    self.outputs.send.push(Transmit { flow, bytes: ack });
                }
                Effect::Reply(reply) => self.reply(&reply, now),
                Effect::Acked(server) => {
                    self.invites.remove(&server);
                    self.transactions.acked(server);
                }
                Effect::Relay(command) => self.outputs.relay.push(command),
                Effect::Record(record) => {
                    self.counters.calls_ended += 1;
                    self.counters.calls_answered += u64::from(record.disposition == Disposition::Answered);
                    if self.config.replicate {
                        let replica = Record::ended(&record, self.config.node, self.config.epoch);
                        self.put_out(replica);
                        self.ended.insert(record.call.clone(), record.clone());
                    }
                    self.outputs.store.push(StoreCommand::Record(record));
                }
                Effect::LegGone(leg) => {
                    let named = (key.to_owned(), leg);
                    if let Some(dialog) = self.dialog_of.remove(&named) {
                        self.dialogs.remove(&dialog);
                    }
                    if let Some(account) = self.account_of_leg.remove(&named) {
                        self.legs_of.remove(&(account, named));
                    }
                }
            }
        }
    }

    /// Adds Via, Contact and what else every request of ours carries.
    fn dress(&mut self, mut request: Message, flow: Flow) -> Message {
        let via = format!(
            "SIP/2.0/{} {};branch={};rport",
            flow.transport.token(),
            self.sent_by(flow.transport),
            self.tokens.next_branch()
        );
        request.headers.insert(0, ("Via".into(), via.into()));
        if !matches!(request.method(), Some(Method::Bye | Method::Cancel)) {
            request.push("Contact", self.contact(flow.transport));
        }
        if request.method() == Some(&Method::Invite) {
            request.push("Allow", ALLOW);
        }
        request.with("User-Agent", "Offhook")
    }

    fn sent_by(&self, transport: Transport) -> String {
        let port = if transport == Transport::Tls {
            self.config.tls_port
        } else {
            self.config.port
        };
        std::net::SocketAddr::new(self.config.address, port).to_string()
    }

    fn contact(&self, transport: Transport) -> String {
        let sent_by = self.sent_by(transport);
        match transport {
            Transport::Udp => format!("<sip:{sent_by}>"),
            Transport::Tcp => format!("<sip:{sent_by};transport=tcp>"),
            Transport::Tls => format!("<sip:{sent_by};transport=tls>"),
        }
    }

    fn reply(&mut self, reply: &Reply, now: Moment) {
        let Some(request) = self.transactions.request_of(reply.server).cloned() else {
            return;
        };
        let transport = self
            .transactions
            .flow_of(reply.server)
            .map_or(Transport::Udp, |flow| flow.transport);
        let mut response = Message::response_to(&request, reply.status);
        tag_to(&mut response, &reply.to_tag);
        for route in request.all("Record-Route") {
            response.push("Record-Route", route);
        }
        let invite = matches!(request.method(), Some(Method::Invite | Method::Update));
        if reply.status < 300 && (invite || request.method() == Some(&Method::Refer)) {
            response.push("Contact", self.contact(transport));
        }
        if (200..300).contains(&reply.status) && invite {
            response.push("Allow", ALLOW);
            response.push("Supported", "100rel, timer, replaces");
        }
        for (name, value) in &reply.headers {
            response.push(name, value.clone());
        }
        if let Some(sdp) = &reply.sdp {
            response = response.with_body("application/sdp", sdp.clone());
        }
        if reply.status >= 300 {
            self.invites.remove(&reply.server);
        }
        self.transactions.respond(reply.server, &response, now);
    }

    /// CANCEL for an INVITE of ours: same branch, its own transaction (RFC 3261 section 9.1).
    fn cancel(&mut self, client: ClientId, now: Moment) {
        let Some((invite, flow)) = self.transactions.sent(client) else {
            return;
        };
        let cancel = cancel_of(invite);
        self.transactions.request(cancel, flow, now);
        self.transactions.cancelled(client, now);
    }

    /// A confirmed call's record goes to the standby whenever it has changed; before that, what it takes to begin anew.
    pub(super) fn replicate_call(&mut self, key: &str) {
        let put_off = self.adopted.as_ref().is_some_and(|adopted| adopted.contains(key));
        if !self.config.replicate || put_off {
            return;
        }
        let Some(call) = self.calls.get(key) else { return };
        if call.is_confirmed() {
            let record = Record::call(call, self.config.node, self.config.epoch);
            self.put_out(record);
        }
        if call_in_setup(&self.calls, key) {
            self.replicate_setup(key);
        } else {
            self.forget_setup(key);
        }
    }

    fn replicate_setup(&mut self, key: &str) {
        if !self.setups_changed.remove(key) {
            return;
        }
        if let Some(setup) = self.setups.get(key) {
            let record = Record::setup(key, setup, self.config.node, self.config.epoch);
            self.put_out(record);
        }
    }

    fn forget_setup(&mut self, key: &str) {
        self.setups_changed.remove(key);
        if self.setups.remove(key).is_some() {
            self.withdraw(Key::Setup(key.to_owned()));
        }
    }

    pub(super) fn withdraw_call(&mut self, key: &str) {
        self.forget_setup(key);
        self.withdraw(Key::Call(key.to_owned()));
    }

    /// Tells that something is gone, where it had been told of.
    pub(super) fn withdraw(&mut self, key: Key) {
        if self.config.replicate && self.replicas.contains_key(&key) {
            self.put_out(Record::gone(key.clone(), self.config.node, self.config.epoch));
            self.replicas.remove(&key);
        }
    }

    /// Numbers a record and puts it out.
    pub(super) fn put_out(&mut self, mut record: Record) {
        let version = self.replicas.entry(record.key.clone()).or_insert(0);
        *version = version.saturating_add(1);
        record.version = *version;
        self.outputs.replicate.push(record);
    }
}

fn call_in_setup(calls: &std::collections::BTreeMap<String, Call>, key: &str) -> bool {
    calls.get(key).is_some_and(|call| call.phase == Phase::Setup)
}

/// CANCEL for an INVITE that was sent: same branch, own method (RFC 3261 section 9.1).
pub(super) fn cancel_of(invite: &Message) -> Message {
    let mut cancel = Message::request(Method::Cancel, invite.uri().unwrap_or_default());
    let number = invite.get("CSeq").and_then(CSeq::parse).map_or(0, |cseq| cseq.number);
    for name in ["Via", "Max-Forwards", "Route", "From", "To", "Call-ID"] {
        for value in invite.all(name) {
            cancel.push(name, value);
        }
    }
    cancel.push("CSeq", format!("{number} CANCEL"));
    cancel
}
