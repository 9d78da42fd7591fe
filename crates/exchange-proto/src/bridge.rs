//! The call machine: a back-to-back user agent as a reducer. Events of one call go in, effects come out; it knows no
//! transactions, sockets or other calls.
//!
//! A [`Call`] holds any number of [`Leg`]s; today a leg has at most one peer, which is the seam for conferences. The
//! leg's dialog is ours with that phone alone: Call-IDs, tags, routes and session descriptions never cross unchanged.
//! * `setup`: call, forking, early media, reliable provisional responses, answer, CANCEL
//! * `change`: re-INVITE (hold), UPDATE, INFO, carried to the peer and answered back
//! * `session`: session timers (RFC 4028), which also find calls whose phones are gone
//! * `transfer`: REFER blind and attended, INVITE with Replaces
//! * `media`: session descriptions and relay ports
//! * `moving`: telling phones where a call goes on after a takeover
//! * `ending`: BYE, clearing, the call record

mod change;
mod ending;
mod media;
mod moving;
mod session;
mod setup;
mod transfer;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::dialog::Dialog;
use crate::flow::Flow;
use crate::registrar::Binding;
use crate::relay::{PortPool, RelayCommand};
use crate::sip::Message;
use crate::time::Moment;
use crate::token::Tokens;
use crate::transaction::{ClientId, ServerId};

pub use session::{MIN_SE_S, SESSION_EXPIRES_S, SessionTimer, is_too_small};
pub use setup::Invitation;
pub use transfer::ReferTarget;

/// Most phones rung at once for one call.
pub const FORK_MAX: usize = 16;
/// How long phones ring before the call is given up, ms.
pub const RING_MS_MAX: u64 = 180_000;
/// Most in-dialog requests carried across at one time in one call.
pub const FORWARDS_MAX: usize = 16;

/// Number of a leg in its call.
pub type LegId = u32;

/// Which side opened a leg's dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The phone called us.
    Caller,
    /// We called the phone.
    Callee,
}

/// How far a leg is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LegState {
    /// The phone's INVITE awaits our final answer.
    Invited,
    /// Our INVITE awaits the phone's.
    Inviting,
    /// Confirmed.
    Up,
    /// Our CANCEL or BYE awaits its answer.
    Closing,
}

/// One phone's part in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// Who opened it.
    pub side: Side,
    /// The account that the phone proved or is registered under.
    pub account: String,
    /// The dialog with the phone.
    pub dialog: Dialog,
    /// How far it is.
    pub state: LegState,
    /// The leg that it talks with.
    pub peer: Option<LegId>,
    /// Media ports facing the phone.
    pub ports: Vec<u16>,
    /// What we sent last, and its version.
    pub sent_sdp: Vec<u8>,
    /// Version in our origin line.
    pub sdp_version: u64,
    /// Session id in our origin line.
    pub sdp_session: u64,
    /// What the phone sent last.
    pub received_sdp: Vec<u8>,
    /// Session timer.
    pub timer: Option<SessionTimer>,
    /// The phone takes UPDATE.
    pub allows_update: bool,
    #[serde(skip)]
    setup: LegSetup,
}

/// What a leg needs only until it is up; calls in setup are not replicated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LegSetup {
    server: Option<ServerId>,
    client: Option<ClientId>,
    /// CANCEL as soon as a provisional response has come.
    cancel_wanted: bool,
    provisional_seen: bool,
    supports_100rel: bool,
    requires_100rel: bool,
    supports_timer: bool,
    /// RSeq last used towards a caller.
    rseq: u32,
    /// RSeq last acknowledged towards a callee.
    rseq_seen: Option<u32>,
    unacknowledged: Option<Unacknowledged>,
    /// An offer is expected in the ACK of our 2xx.
    offer_in_answer: bool,
    /// The 2xx of this server transaction awaits its ACK.
    ack_wanted: Option<ServerId>,
    /// When to tell again where the call goes on.
    move_at: Option<Moment>,
    /// It was not there to be told: told once it has registered anew.
    untold: bool,
    /// The client transaction and CSeq of a 2xx whose ACK waits for the other side's.
    ack_owed: Option<(ClientId, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Unacknowledged {
    reply: Reply,
    rseq: u32,
    next: Moment,
    interval_ms: u64,
    give_up: Moment,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nobody has answered.
    Setup,
    /// Two legs talk.
    Up,
    /// Its record is written; legs may still be closing.
    Ended,
}

/// How a call came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// Somebody talked.
    Answered,
    /// The caller gave up.
    Cancelled,
    /// Nobody answered in time.
    NoAnswer,
    /// All phones were busy or declined.
    Busy,
    /// Anything else.
    Failed,
}

impl Disposition {
    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::NoAnswer => "no-answer",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

/// Written once for each call, keyed by the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Key of the call.
    pub call: String,
    /// Caller's account.
    pub from: String,
    /// What was dialled.
    pub to: String,
    /// Account that answered.
    pub answered_by: Option<String>,
    /// When the INVITE came.
    pub started: Moment,
    /// When it was answered.
    pub answered: Option<Moment>,
    /// When it ended.
    pub ended: Moment,
    /// How it came out.
    pub disposition: Disposition,
    /// Final status sent to the caller, when it failed.
    pub status: Option<u16>,
    /// To whom it was transferred.
    pub transferred_to: Option<String>,
}

/// A phone to ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its account.
    pub account: String,
    /// Its binding.
    pub binding: Binding,
}

/// Why a request of ours was sent; comes back with its responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Ring a phone.
    Invite,
    /// Acknowledge a provisional response.
    Prack,
    /// Refresh the session.
    Refresh,
    /// Tell where the call goes on.
    Move,
    /// Carry a request across.
    Forward {
        /// The transaction to answer.
        server: ServerId,
        /// The leg it came from.
        from: LegId,
        /// The request held an offer.
        offered: bool,
    },
    /// Offer a transferred party's description to the new partner, then the answer back.
    Join {
        /// The new partner's leg, to be told next; `None` on the way back.
        then: Option<LegId>,
    },
    /// Offer a replacing leg's description to its new partner.
    Replace {
        /// The leg to answer.
        new: LegId,
        /// The leg to release.
        old: LegId,
    },
    /// Tell a referrer how its transfer goes.
    Notify {
        /// The subscription ends with it: release the referrer.
        last: bool,
    },
    /// BYE or CANCEL.
    Release,
    /// A branch downstream that answered too late.
    Stray,
}

/// A response for the shell to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The transaction.
    pub server: ServerId,
    /// The status.
    pub status: u16,
    /// Our tag, put into To when it has none.
    pub to_tag: String,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Session description.
    pub sdp: Option<Vec<u8>>,
}

/// What a call wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a request; Via and Contact are still to be added.
    Request {
        /// On this leg.
        leg: LegId,
        /// The request.
        message: Message,
        /// Over this flow.
        flow: Flow,
        /// Why.
        purpose: Purpose,
    },
    /// Cancel our INVITE.
    Cancel {
        /// On this leg.
        leg: LegId,
        /// The INVITE's transaction.
        client: ClientId,
    },
    /// Acknowledge a 2xx.
    Ack {
        /// The INVITE's transaction.
        client: ClientId,
        /// The ACK, without Via.
        message: Message,
        /// Tag of the 2xx.
        to_tag: String,
        /// Over this flow.
        flow: Flow,
    },
    /// Answer.
    Reply(Reply),
    /// The ACK of a 2xx came: stop repeating it.
    Acked(ServerId),
    /// Tell the media relay.
    Relay(RelayCommand),
    /// Write the call record.
    Record(CallRecord),
    /// The leg is gone: forget its dialog.
    LegGone(LegId),
}

/// What a call may use while it decides.
pub struct Context<'a> {
    /// Now.
    pub now: Moment,
    /// Fresh tags and Call-IDs.
    pub tokens: &'a mut Tokens,
    /// Relay ports; `None` lets phones send media to each other directly.
    pub ports: Option<&'a mut PortPool>,
    /// The domain in addresses.
    pub domain: &'a str,
    /// Our address for media.
    pub media_address: IpAddr,
    /// Session timer interval that we ask for, seconds.
    pub session_s: u32,
    /// What to do, in order.
    pub effects: Vec<Effect>,
}

/// An event on one leg.
#[derive(Debug)]
pub enum Event<'a> {
    /// The caller cancelled.
    Cancelled,
    /// A request inside the dialog, already checked for its CSeq.
    Request {
        /// Its transaction.
        server: ServerId,
        /// The request.
        message: &'a Message,
    },
    /// A REFER, with its target looked up.
    Refer {
        /// Its transaction.
        server: ServerId,
        /// Where to.
        target: ReferTarget,
    },
    /// The ACK of a 2xx.
    Ack {
        /// The ACK.
        message: &'a Message,
    },
    /// A response to a request of ours; a request without response counts as 408.
    Response {
        /// Its transaction.
        client: ClientId,
        /// Why it was sent.
        purpose: Purpose,
        /// The response.
        message: &'a Message,
    },
    /// No ACK came.
    NoAck,
}

/// Transfer under way: `referrer` hands `transferee` to a party being rung.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Transfer {
    referrer: LegId,
    transferee: LegId,
    to: String,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Key: unique over all nodes and time.
    pub key: String,
    /// How far it is.
    pub phase: Phase,
    /// Its legs.
    pub legs: BTreeMap<LegId, Leg>,
    /// Caller's account.
    pub from: String,
    /// What was dialled.
    pub to: String,
    /// When it began.
    pub started: Moment,
    /// When it was answered.
    pub answered: Option<Moment>,
    /// Who answered.
    pub answered_by: Option<String>,
    /// To whom it was transferred.
    pub transferred_to: Option<String>,
    next_leg: LegId,
    #[serde(skip)]
    waiting: Vec<Vec<Target>>,
    #[serde(skip)]
    failure: Option<u16>,
    #[serde(skip)]
    ring_until: Option<Moment>,
    #[serde(skip)]
    held_answer: Option<(LegId, Vec<u8>)>,
    #[serde(skip)]
    display: String,
    #[serde(skip)]
    transfer: Option<Transfer>,
    #[serde(skip)]
    forwards: Vec<(ServerId, LegId)>,
}

impl Call {
    /// The same by a clock that is so far ahead.
    #[must_use]
    pub fn by_clock_ahead(mut self, ahead_ms: i64) -> Self {
        self.started = self.started.by_clock_ahead(ahead_ms);
        self.answered = self.answered.map(|at| at.by_clock_ahead(ahead_ms));
        for timer in self.legs.values_mut().filter_map(|leg| leg.timer.as_mut()) {
            timer.due = timer.due.by_clock_ahead(ahead_ms);
        }
        self
    }

    /// Takes one event of one leg.
    pub fn handle(&mut self, leg: LegId, event: Event<'_>, ctx: &mut Context<'_>) {
        if !self.legs.contains_key(&leg) {
            return;
        }
        match event {
            Event::Cancelled => self.cancelled(leg, ctx),
            Event::Request { server, message } => self.in_dialog_request(leg, server, message, ctx),
            Event::Refer { server, target } => self.refer(leg, server, target, ctx),
            Event::Ack { message } => self.ack_received(leg, message, ctx),
            Event::Response {
                client,
                purpose,
                message,
            } => self.response(leg, client, purpose, message, ctx),
            Event::NoAck => self.end_by_failure(ctx),
        }
    }

    fn response(&mut self, leg: LegId, client: ClientId, purpose: Purpose, message: &Message, ctx: &mut Context<'_>) {
        let status = message.status().unwrap_or(500);
        match purpose {
            Purpose::Invite => self.invite_response(leg, client, status, message, ctx),
            Purpose::Refresh => self.refresh_response(leg, client, status, message, ctx),
            Purpose::Move => self.move_response(leg, client, status, message, ctx),
            Purpose::Forward { server, from, offered } => {
                self.forward_response(leg, client, Forwarded { server, from, offered }, message, ctx);
            }
            Purpose::Join { then } => self.join_response(leg, client, then, message, ctx),
            Purpose::Replace { new, old } => self.replace_response(leg, client, new, old, message, ctx),
            Purpose::Notify { last } if status >= 200 && last => self.release_leg(leg, ctx),
            Purpose::Release if status >= 200 => self.forget_leg(leg, ctx),
            Purpose::Stray if status >= 200 => {}
            Purpose::Notify { .. } | Purpose::Release | Purpose::Stray | Purpose::Prack => {}
        }
    }

    /// The next deadline and why.
    pub fn poll_timeout(&self) -> Option<(Moment, &'static str)> {
        let ring = self.ring_until.map(|at| (at, "no answer"));
        let legs = self.legs.values().flat_map(|leg| {
            let timer = leg
                .timer
                .as_ref()
                .filter(|_| leg.state == LegState::Up)
                .map(|timer| (timer.due, "session timer"));
            let reliable = leg
                .setup
                .unacknowledged
                .as_ref()
                .map(|u| (u.next, "reliable provisional response"));
            let moving = leg.setup.move_at.map(|at| (at, "move"));
            timer.into_iter().chain(reliable).chain(moving)
        });
        ring.into_iter().chain(legs).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        if self.ring_until.is_some_and(|at| at <= ctx.now) {
            self.ring_until = None;
            self.no_answer(ctx);
        }
        let legs: Vec<LegId> = self.legs.keys().copied().collect();
        for leg in legs {
            self.provisional_due(leg, ctx);
            self.session_due(leg, ctx);
            self.move_due(leg, ctx);
        }
    }

    /// Whether nothing is left of it.
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Ended && self.legs.is_empty()
    }

    /// Whether its state is worth replicating: two confirmed legs.
    pub fn is_confirmed(&self) -> bool {
        self.phase == Phase::Up && self.legs.values().filter(|leg| leg.state == LegState::Up).count() >= 2
    }

    fn leg(&mut self, id: LegId) -> Option<&mut Leg> {
        self.legs.get_mut(&id)
    }

    fn add_leg(&mut self, leg: Leg) -> LegId {
        let id = self.next_leg;
        self.next_leg = self.next_leg.wrapping_add(1);
        self.legs.insert(id, leg);
        id
    }

    fn reply(&self, leg: LegId, server: ServerId, status: u16, ctx: &mut Context<'_>) {
        let to_tag = self
            .legs
            .get(&leg)
            .map(|leg| leg.dialog.local_tag.clone())
            .unwrap_or_default();
        ctx.effects.push(Effect::Reply(Reply {
            server,
            status,
            to_tag,
            headers: Vec::new(),
            sdp: None,
        }));
    }

    /// Refuses a request inside a dialog.
    pub fn refuse_request(&mut self, leg: LegId, server: ServerId, status: u16, ctx: &mut Context<'_>) {
        self.reply(leg, server, status, ctx);
    }

    fn request(&mut self, leg: LegId, message: Message, purpose: Purpose, ctx: &mut Context<'_>) {
        if let Some(flow) = self.legs.get(&leg).map(|leg| leg.dialog.flow) {
            ctx.effects.push(Effect::Request {
                leg,
                message,
                flow,
                purpose,
            });
        }
    }

    /// The transaction that carries a leg's INVITE, once the caller of [`Call::handle`] has made it.
    pub fn set_client(&mut self, leg: LegId, client: ClientId) {
        if let Some(leg) = self.leg(leg) {
            leg.setup.client = Some(client);
        }
    }
}

/// A request carried across, by the transaction to answer.
#[derive(Clone, Copy, Debug)]
struct Forwarded {
    server: ServerId,
    from: LegId,
    offered: bool,
}

impl Leg {
    fn new(side: Side, account: String, dialog: Dialog, state: LegState, tokens: &mut Tokens) -> Self {
        Self {
            side,
            account,
            dialog,
            state,
            peer: None,
            ports: Vec::new(),
            sent_sdp: Vec::new(),
            sdp_version: 0,
            sdp_session: tokens.next_u64() >> 2,
            received_sdp: Vec::new(),
            timer: None,
            allows_update: false,
            setup: LegSetup::default(),
        }
    }
}
