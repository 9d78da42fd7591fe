//! From octets to the part that they concern.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authenticate::{Identity, tag_to};
use super::{CALLS_MAX, ClientOwner, Exchange};
use crate::bridge::{Call, Event, Invitation, LegId, ReferTarget, Target, is_too_small};
use crate::flow::{Flow, Transport};
use crate::registrar::{Binding, EXPIRES_S_MIN, Refused};
use crate::replica::Setup;
use crate::route::{Destination, route};
use crate::sip::header::tag_of;
use crate::sip::validate::{is_sound_response, validate_request, wants_rport};
use crate::sip::{Message, Method, NameAddr, Uri, Via};
use crate::time::Moment;
use crate::transaction::{Received, ServerId, Transmit};

/// Methods that we act on.
pub(super) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, REGISTER, OPTIONS, PRACK, UPDATE, INFO, REFER, NOTIFY";
/// Extensions that we understand.
const SUPPORTED: [&str; 6] = ["100rel", "timer", "replaces", "path", "outbound", "norefersub"];

impl Exchange {
    pub(super) fn received(&mut self, flow: Flow, bytes: &[u8], now: Moment) {
        if self.keep_alive_received(flow, bytes) {
            return;
        }
        self.counters.messages_in += 1;
        let Ok(message) = Message::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        if message.status().is_some() {
            self.response_received(&message, now);
        } else {
            self.request_received(message, flow, bytes.len(), now);
        }
    }

    /// Empty lines and STUN bindings (RFC 5626) are answered to registered phones only.
    fn keep_alive_received(&mut self, flow: Flow, bytes: &[u8]) -> bool {
        let blank = bytes.iter().all(|b| b"\r\n\0 ".contains(b));
        let answer = if blank {
            (bytes == b"\r\n\r\n").then(|| b"\r\n".to_vec())
        } else {
            stun_answer(flow, bytes)
        };
        let stun = bytes.len() >= 20 && bytes[0] < 2 && bytes[4..8] == STUN_COOKIE;
        if let Some(bytes) = answer.filter(|_| self.registrar.knows_flow(flow)) {
            self.outputs.send.push(Transmit { flow, bytes });
        }
        blank || stun
    }

    fn response_received(&mut self, message: &Message, now: Moment) {
        if !is_sound_response(message) {
            self.counters.malformed += 1;
            return;
        }
        let Some(client) = self.transactions.receive_response(message, now) else {
            return;
        };
        let Some(ClientOwner { call, leg, purpose }) = self.clients.get(&client).cloned() else {
            return;
        };
        self.with_call(&call, now, |call, ctx| {
            call.handle(
                leg,
                Event::Response {
                    client,
                    purpose,
                    message,
                },
                ctx,
            )
        });
    }

    fn request_received(&mut self, mut request: Message, flow: Flow, length: usize, now: Moment) {
        let known = self.registrar.knows_flow(flow);
        let in_call = self.dialog_named_by(&request).is_some();
        let strange = !known && !in_call && self.config.authenticate;
        if strange && !self.guard.admits(flow.remote.ip(), now) {
            self.counters.ignored += 1;
            return;
        }
        let verdict = validate_request(&request);
        stamp_via(&mut request, flow);
        if let Err(refusal) = verdict {
            self.counters.refused += 1;
            return self.refuse_statelessly(&request, flow, length, refusal.0);
        }
        let request = Arc::new(request);
        match self.transactions.receive_request(&request, flow, now) {
            Received::New(server) => {
                self.asked = Some((flow, length, server));
                self.new_request(server, &request, flow, now);
            }
            Received::DialogAck => self.ack_received(&request, now),
            Received::Absorbed => {}
            Received::Overload => self.counters.ignored += 1,
        }
    }

    /// What is malformed gets no transaction; its answer is never longer than itself when the source is unproved.
    fn refuse_statelessly(&mut self, request: &Message, flow: Flow, length: usize, status: u16) {
        if request.method() == Some(&Method::Ack) {
            return;
        }
        let mut response = Message::response_to(request, status);
        tag_to(&mut response, &self.tokens.next_token());
        let limit = if self.is_unproved(flow) { length } else { usize::MAX };
        if let Some(bytes) = shortest_fitting(std::iter::once(response), limit) {
            self.outputs.send.push(Transmit { flow, bytes });
        }
    }

    fn new_request(&mut self, server: ServerId, request: &Message, flow: Flow, now: Moment) {
        let Some(method) = request.method() else {
            return;
        };
        if *method == Method::Cancel {
            return self.cancel_received(server, request, flow, now);
        }
        let unknown = unsupported(request);
        if !unknown.is_empty() {
            return self.respond(server, request, 420, &[("Unsupported", unknown.join(", "))], now);
        }
        if has_to_tag(request) {
            return self.in_dialog(server, request, flow, now);
        }
        match method {
            Method::Register => self.register_received(server, request, flow, now),
            Method::Invite => self.invite_received(server, request, flow, now),
            Method::Options => self.respond(
                server,
                request,
                200,
                &[("Allow", ALLOW.to_owned()), ("Accept", "application/sdp".to_owned())],
                now,
            ),
            Method::Other(_) => self.respond(server, request, 501, &[("Allow", ALLOW.to_owned())], now),
            Method::Bye | Method::Prack | Method::Update | Method::Info | Method::Notify => {
                self.respond(server, request, 481, &[], now)
            }
            _ => self.respond(server, request, 405, &[("Allow", ALLOW.to_owned())], now),
        }
    }

    /// Answers; an unproved UDP source never gets more octets than it sent: what can be left out is, else all.
    pub(super) fn respond(
        &mut self,
        server: ServerId,
        request: &Message,
        status: u16,
        headers: &[(&'static str, String)],
        now: Moment,
    ) {
        let mut response = Message::response_to(request, status);
        tag_to(&mut response, &self.tokens.next_token());
        let plain = response.headers.len();
        for (name, value) in headers {
            response.push(name, value.clone());
        }
        let forms = [usize::MAX, plain].into_iter().map(move |fields| {
            let mut form = response.clone();
            form.headers.truncate(fields);
            form
        });
        self.answer_with_one_of(server, forms, now);
    }

    /// Answers with the first form that may be sent. To an unproved source that is one no longer than its request,
    /// sent without repetition (a forged INVITE would draw ten of them), or nothing.
    fn answer_with_one_of(&mut self, server: ServerId, mut forms: impl Iterator<Item = Message> + Clone, now: Moment) {
        let limit = self.answer_bytes_max(server);
        if limit == usize::MAX {
            let Some(first) = forms.next() else { return };
            return self.transactions.respond(server, &first, now);
        }
        let flow = self.transactions.flow_of(server);
        match (flow, shortest_fitting(forms, limit)) {
            (Some(flow), Some(bytes)) => self.outputs.send.push(Transmit { flow, bytes }),
            _ => self.counters.ignored += 1,
        }
        self.transactions.abandon(server);
    }

    fn answer_bytes_max(&self, server: ServerId) -> usize {
        match self.asked {
            Some((flow, length, asked)) if asked == server && self.is_unproved(flow) => length,
            _ => usize::MAX,
        }
    }

    /// Whether packets from there may have a forged source.
    pub(super) fn is_unproved(&self, flow: Flow) -> bool {
        flow.transport == Transport::Udp && self.config.authenticate && !self.registrar.knows_flow(flow)
    }

    /// The account, or `None` when the request has been answered or is to be ignored.
    fn account_of(&mut self, server: ServerId, request: &Message, flow: Flow, now: Moment) -> Option<String> {
        match self.identify(request, flow, now) {
            Identity::Account(account) => {
                self.asked = None;
                return Some(account);
            }
            Identity::Silence => self.transactions.abandon(server),
            Identity::Challenge { stale } => {
                let forms = self.challenges(request, flow, stale, now);
                self.answer_with_one_of(server, forms, now);
            }
        }
        None
    }

    fn register_received(&mut self, server: ServerId, request: &Message, flow: Flow, now: Moment) {
        let Some(account) = self.account_of(server, request, flow, now) else {
            return;
        };
        let address = request
            .get("To")
            .and_then(|to| NameAddr::parse(to).ok())
            .and_then(|to| to.uri);
        if address.is_none_or(|uri| uri.user != account) {
            return self.respond(server, request, 403, &[], now);
        }
        match self.registrar.register(request, &account, flow, now) {
            Ok((mut response, change)) => {
                self.counters.registrations += 1;
                tag_to(&mut response, &self.tokens.next_token());
                if let Some(change) = change {
                    self.binding_changed(change);
                }
                self.transactions.respond(server, &response, now);
                self.registered_anew(&account, flow, now);
            }
            Err(Refused::TooBrief) => {
                self.respond(server, request, 423, &[("Min-Expires", EXPIRES_S_MIN.to_string())], now)
            }
            Err(Refused::Status(status)) => self.respond(server, request, status, &[], now),
        }
    }

    /// Calls of a phone whose connection is gone, or that could not be told of a takeover, go on over its new flow.
    fn registered_anew(&mut self, account: &str, flow: Flow, now: Moment) {
        let first = (account.to_owned(), (String::new(), 0));
        let legs = self.legs_of.range(first..).take_while(|(owner, _)| owner == account);
        let legs: Vec<_> = legs.map(|(_, leg)| leg.clone()).collect();
        for (key, id) in legs {
            let Some(call) = self.calls.get(&key) else { continue };
            let Some(dialog) = call.legs.get(&id).map(|leg| &leg.dialog) else {
                continue;
            };
            let gone = dialog.flow.transport.is_reliable() && !self.registrar.knows_flow(dialog.flow);
            if dialog.flow != flow && (gone || call.is_untold(id)) && self.is_phone_at(account, &dialog.target, flow) {
                self.with_call(&key, now, |call, ctx| call.found_again(id, flow, ctx));
            }
        }
    }

    /// Whether the phone that has just registered on this flow is the one with that Contact, as far as can be told: an
    /// account with one phone has no other.
    fn is_phone_at(&self, account: &str, contact: &str, flow: Flow) -> bool {
        let bindings = self.registrar.bindings_of(account);
        let same = |binding: &Binding| match (Uri::parse(contact), Uri::parse(&binding.contact)) {
            (Ok(a), Ok(b)) => a.same_address(&b),
            _ => binding.contact == contact,
        };
        let registered = bindings.iter().filter(|binding| binding.flow == flow);
        bindings.len() == 1 || registered.into_iter().any(same)
    }

    fn invite_received(&mut self, server: ServerId, request: &Message, flow: Flow, now: Moment) {
        let Some(account) = self.account_of(server, request, flow, now) else {
            return;
        };
        if let Some((status, headers)) = unfit_invite(request) {
            return self.respond(server, request, status, &headers, now);
        }
        if let Some(replaces) = request.get("Replaces").map(str::to_owned) {
            return self.invite_with_replaces(server, request, flow, account, &replaces, now);
        }
        let dialled = request
            .uri()
            .and_then(|uri| Uri::parse(uri).ok())
            .map(|uri| uri.user.into_owned())
            .unwrap_or_default();
        let Destination::Account(callee) = route(&self.tables, &dialled) else {
            return self.respond(server, request, 404, &[], now);
        };
        if self.calls.len() >= CALLS_MAX || self.draining {
            return self.respond(server, request, 503, &[("Retry-After", "10".to_owned())], now);
        }
        let targets = self.targets_of(&callee, now);
        self.transactions
            .respond(server, &Message::response_to(request, 100), now);
        self.counters.calls_begun += 1;
        let key = format!("{:x}-{}", self.config.node, self.tokens.next_token());
        let invitation = Invitation {
            server,
            message: request,
            flow,
            account,
            dialled,
            targets,
        };
        let (call, effects) = self.in_context(now, |ctx| Call::begin(key.clone(), invitation, ctx));
        let Some(call) = call else {
            return self.respond(server, request, 400, &[], now);
        };
        self.invites.insert(server, (key.clone(), 0));
        self.calls.insert(key.clone(), call);
        if self.config.replicate {
            let setup = Setup {
                flow,
                invite: request.to_bytes(),
                rung: Vec::new(),
            };
            self.setups.insert(key.clone(), setup);
            self.setups_changed.insert(key.clone());
        }
        self.apply(&key, effects, now);
        self.settle(&key);
    }

    fn invite_with_replaces(
        &mut self,
        server: ServerId,
        request: &Message,
        flow: Flow,
        account: String,
        replaces: &str,
        now: Moment,
    ) {
        let Some((key, old)) = self.leg_named_by_replaces(replaces) else {
            return self.respond(server, request, 481, &[], now);
        };
        let invitation = Invitation {
            server,
            message: request,
            flow,
            account,
            dialled: String::new(),
            targets: Vec::new(),
        };
        let new = self.with_call(&key, now, |call, ctx| {
            call.replace(old, invitation, ctx);
            call.last_leg()
        });
        if let Some(new) = new {
            self.invites.insert(server, (key, new));
        }
    }

    fn targets_of(&self, account: &str, now: Moment) -> Vec<Vec<Target>> {
        let target = |binding: Binding| Target {
            account: account.to_owned(),
            binding,
        };
        let here = self.registrar.bindings_of(account);
        let nodes = self.elsewhere.get(account).into_iter().flat_map(BTreeMap::values);
        // Over another node's connection, or through a translator that it holds open, we cannot reach a phone.
        let reachable = |b: &&Binding| {
            let direct = b.flow.transport == Transport::Udp && !b.is_translated();
            direct && !here.iter().any(|held| b.replaces(held))
        };
        let elsewhere = nodes.flatten().filter(reachable).cloned().collect();
        let groups = self.registrar.targets(account, elsewhere, now).into_iter();
        groups.map(|group| group.into_iter().map(target).collect()).collect()
    }

    fn cancel_received(&mut self, server: ServerId, request: &Message, flow: Flow, now: Moment) {
        let invite = self.transactions.cancelled_by(request);
        let same_source = invite
            .and_then(|invite| self.transactions.flow_of(invite))
            .is_some_and(|from| from.remote.ip() == flow.remote.ip());
        let Some(invite) = invite.filter(|_| same_source) else {
            return self.respond(server, request, 481, &[], now);
        };
        self.respond(server, request, 200, &[], now);
        if let Some((key, leg)) = self.invites.get(&invite).cloned() {
            self.with_call(&key, now, |call, ctx| call.handle(leg, Event::Cancelled, ctx));
        }
    }

    fn ack_received(&mut self, request: &Message, now: Moment) {
        if let Some((key, leg)) = self.dialog_named_by(request) {
            self.with_call(&key, now, |call, ctx| {
                call.handle(leg, Event::Ack { message: request }, ctx)
            });
        }
    }

    /// A request inside a dialog must come from where the phone is known to be, or prove its account anew: a
    /// stranger who learnt the tags cannot hang up.
    fn in_dialog(&mut self, server: ServerId, request: &Message, flow: Flow, now: Moment) {
        let Some((key, leg)) = self.dialog_named_by(request) else {
            return self.respond(server, request, 481, &[], now);
        };
        let Some((home, owner)) = self
            .calls
            .get(&key)
            .and_then(|call| call.legs.get(&leg))
            .map(|leg| (leg.dialog.flow, leg.account.clone()))
        else {
            return self.respond(server, request, 481, &[], now);
        };
        if home != flow {
            let Some(account) = self.account_of(server, request, flow, now) else {
                return;
            };
            if account != owner {
                return self.respond(server, request, 403, &[], now);
            }
        }
        if request.method() == Some(&Method::Invite) {
            if let Some((status, headers)) = unfit_invite(request).filter(|(status, _)| *status != 422) {
                return self.respond(server, request, status, &headers, now);
            }
            self.invites.insert(server, (key.clone(), leg));
        }
        let refer = (request.method() == Some(&Method::Refer)).then(|| self.refer_target(&key, &owner, request, now));
        self.with_call(&key, now, |call, ctx| {
            let Some(state) = call.legs.get_mut(&leg) else {
                return;
            };
            if !state.dialog.accept_cseq(request) {
                return call.refuse_request(leg, server, 500, ctx);
            }
            state.dialog.flow = flow;
            match refer {
                Some(target) => call.handle(leg, Event::Refer { server, target }, ctx),
                None => call.handle(
                    leg,
                    Event::Request {
                        server,
                        message: request,
                    },
                    ctx,
                ),
            }
        });
    }

    /// Looks up what Refer-To names; for an attended transfer, takes the partner out of the referrer's other call.
    fn refer_target(&mut self, key: &str, owner: &str, request: &Message, now: Moment) -> ReferTarget {
        let uri = request
            .get("Refer-To")
            .and_then(|to| NameAddr::parse(to).ok())
            .and_then(|to| to.uri);
        let Some(uri) = uri else {
            return ReferTarget::Nobody(400);
        };
        self.counters.transfers += 1;
        if let Some(replaces) = uri.headers.and_then(replaces_in) {
            return self
                .partner_named_by(key, owner, &replaces, now)
                .map_or(ReferTarget::Nobody(481), |leg| ReferTarget::Partner(Box::new(leg)));
        }
        match route(&self.tables, &uri.user) {
            Destination::Account(name) => {
                let targets = self.targets_of(&name, now);
                ReferTarget::Account { name, targets }
            }
            Destination::Unknown => ReferTarget::Nobody(404),
        }
    }

    fn partner_named_by(&mut self, key: &str, owner: &str, replaces: &str, now: Moment) -> Option<crate::bridge::Leg> {
        let (other, own) = self.leg_named_by_replaces(replaces).filter(|(other, _)| other != key)?;
        let is_owner = self.calls.get(&other)?.legs.get(&own)?.account == owner;
        if !is_owner {
            return None;
        }
        self.with_call(&other, now, |call, ctx| call.give_partner(own, ctx))
            .flatten()
            .map(|(_, leg)| leg)
    }

    /// `call-id;to-tag=..;from-tag=..`; some phones swap the tags.
    fn leg_named_by_replaces(&self, replaces: &str) -> Option<(String, LegId)> {
        let mut parts = replaces.split(';').map(str::trim);
        let call_id = parts.next()?;
        let tag = |name: &str| {
            replaces
                .split(';')
                .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (to_tag, from_tag) = (tag("to-tag")?, tag("from-tag")?);
        self.leg_by_tags(call_id, to_tag, from_tag)
            .or_else(|| self.leg_by_tags(call_id, from_tag, to_tag))
    }

    fn leg_by_tags(&self, call_id: &str, local_tag: &str, remote_tag: &str) -> Option<(String, LegId)> {
        let found = self.dialogs.get(&(call_id.to_owned(), local_tag.to_owned()))?;
        let leg = self.calls.get(&found.0)?.legs.get(&found.1)?;
        (leg.dialog.remote_tag == remote_tag).then(|| found.clone())
    }

    pub(super) fn dialog_named_by(&self, request: &Message) -> Option<(String, LegId)> {
        let to_tag = tag_of(request.get("To")?)?;
        let from_tag = request.get("From").and_then(tag_of).unwrap_or_default();
        self.leg_by_tags(request.get("Call-ID")?, to_tag, from_tag)
    }
}

/// The first form within the limit: in full, else with compact names and no reason phrase.
fn shortest_fitting(forms: impl Iterator<Item = Message> + Clone, bytes_max: usize) -> Option<Vec<u8>> {
    let full = forms.clone().map(|form| form.to_bytes());
    let compact = forms.map(|form| form.to_compact_bytes());
    full.chain(compact).find(|bytes| bytes.len() <= bytes_max)
}

/// What an INVITE lacks, with the header fields of the answer.
fn unfit_invite(request: &Message) -> Option<(u16, Vec<(&'static str, String)>)> {
    if request.get("Max-Forwards") == Some("0") {
        return Some((483, Vec::new()));
    }
    if !request.body.is_empty() && !request.has_sdp() {
        return Some((415, vec![("Accept", "application/sdp".to_owned())]));
    }
    let accepts = request.list("Accept");
    let takes_sdp = accepts.is_empty()
        || accepts.iter().any(|kind| {
            kind.starts_with("application/sdp") || kind.starts_with("*/*") || kind.starts_with("application/*")
        });
    if !takes_sdp {
        return Some((406, Vec::new()));
    }
    if request.has_token("Require", "100rel") && request.body.is_empty() {
        return Some((420, vec![("Unsupported", "100rel".to_owned())]));
    }
    is_too_small(request).then(|| (422, vec![("Min-SE", crate::bridge::MIN_SE_S.to_string())]))
}

fn unsupported(request: &Message) -> Vec<String> {
    let names = request.list("Require").into_iter().chain(request.list("Proxy-Require"));
    names
        .filter(|name| !SUPPORTED.iter().any(|known| known.eq_ignore_ascii_case(name)))
        .map(str::to_owned)
        .collect()
}

fn has_to_tag(request: &Message) -> bool {
    request.get("To").and_then(tag_of).is_some()
}

/// The Replaces header inside a Refer-To URI.
fn replaces_in(headers: &str) -> Option<String> {
    let value = headers.split('&').find_map(|header| {
        let (name, value) = header.split_once('=')?;
        name.eq_ignore_ascii_case("Replaces").then_some(value)
    })?;
    Some(crate::sip::uri::unescape(value).ok()?.into_owned())
}

/// Notes in the topmost Via where the request came from (RFC 3261 section 18.2.1, RFC 3581).
fn stamp_via(request: &mut Message, flow: Flow) {
    let Some(at) = request.headers.iter().position(|(name, _)| name == "Via") else {
        return;
    };
    let value = request.headers[at].1.clone();
    let top = crate::sip::header::split_commas(value.as_str())
        .next()
        .unwrap_or_default();
    let Some(via) = Via::parse(top) else { return };
    let source = flow.remote.ip();
    let asks = wants_rport(&via);
    if !asks && via.host.parse() == Ok(source) {
        return;
    }
    let mut stamped = top.to_owned();
    if asks {
        let port = format!("rport={}", flow.remote.port());
        stamped = stamped
            .split(';')
            .map(|part| if is_param(part, "rport") { port.as_str() } else { part })
            .collect::<Vec<_>>()
            .join(";");
    }
    stamped = stamped
        .split(';')
        .filter(|part| !is_param(part, "received"))
        .collect::<Vec<_>>()
        .join(";");
    stamped.push_str(&format!(";received={source}"));
    request.headers[at].1 = value.as_str().replacen(top, &stamped, 1).into();
}

fn is_param(part: &str, name: &str) -> bool {
    part.split('=').next().unwrap_or("").trim().eq_ignore_ascii_case(name)
}

const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A STUN binding response with XOR-MAPPED-ADDRESS, for IPv4 (RFC 5389).
fn stun_answer(flow: Flow, bytes: &[u8]) -> Option<Vec<u8>> {
    let is_request =
        flow.transport == Transport::Udp && bytes.len() >= 20 && bytes[..2] == [0, 1] && bytes[4..8] == STUN_COOKIE;
    let std::net::SocketAddr::V4(remote) = flow.remote else {
        return None;
    };
    if !is_request {
        return None;
    }
    let mut answer = vec![1, 1, 0, 12];
    answer.extend_from_slice(&bytes[4..20]);
    answer.extend_from_slice(&[0, 0x20, 0, 8, 0, 1]);
    answer.extend_from_slice(&(remote.port() ^ 0x2112).to_be_bytes());
    answer.extend(remote.ip().octets().iter().zip(STUN_COOKIE).map(|(a, b)| a ^ b));
    Some(answer)
}
