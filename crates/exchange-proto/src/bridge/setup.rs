//! Call set-up: ringing phones in parallel, early media, reliable provisional responses (RFC 3262), the answer, CANCEL.
//!
//! Reliability of provisional responses is each leg's own matter: we acknowledge (PRACK) what a callee sends
//! reliably, and repeat to a caller until it acknowledges. Early media is carried only where a single phone rings;
//! with several, the caller hears its own ringing tone.

use super::{
    Call, Context, Disposition, Effect, FORK_MAX, Leg, LegId, LegState, Phase, Purpose, RING_MS_MAX, Reply, Side,
    Target, Unacknowledged,
};
use crate::dialog::Dialog;
use crate::flow::Flow;
use crate::sip::message::parse_decimal;
use crate::sip::uri::escape_user;
use crate::sip::{CSeq, Message, Method, NameAddr};
use crate::transaction::{ClientId, ServerId, T1_MS, T1X64_MS};

/// A caller's INVITE, authenticated and routed.
#[derive(Debug)]
pub struct Invitation<'a> {
    /// Its transaction.
    pub server: ServerId,
    /// The request.
    pub message: &'a Message,
    /// The flow it came on.
    pub flow: Flow,
    /// The account that sent it.
    pub account: String,
    /// What was dialled.
    pub dialled: String,
    /// Whom to ring, group by group.
    pub targets: Vec<Vec<Target>>,
}

impl Call {
    /// A new call. The INVITE has passed [`crate::sip::validate`], so it opens a dialog.
    pub fn begin(key: String, invitation: Invitation<'_>, ctx: &mut Context<'_>) -> Option<Self> {
        let message = invitation.message;
        let mut call = Self {
            key,
            phase: Phase::Setup,
            legs: Default::default(),
            from: invitation.account.clone(),
            to: invitation.dialled,
            started: ctx.now,
            answered: None,
            answered_by: None,
            transferred_to: None,
            next_leg: 0,
            waiting: invitation.targets,
            failure: None,
            ring_until: Some(ctx.now.plus_ms(RING_MS_MAX)),
            held_answer: None,
            display: message
                .get("From")
                .and_then(|from| NameAddr::parse(from).ok())
                .map(|from| from.display.into_owned())
                .unwrap_or_default(),
            transfer: None,
            forwards: Vec::new(),
        };
        let leg = call.add_caller(invitation.account, invitation.server, message, invitation.flow, ctx)?;
        call.ring_next_group(leg, ctx);
        Some(call)
    }

    pub(super) fn add_caller(
        &mut self,
        account: String,
        server: ServerId,
        invite: &Message,
        flow: Flow,
        ctx: &mut Context<'_>,
    ) -> Option<LegId> {
        let dialog = Dialog::from_invite(invite, &ctx.tokens.next_token(), flow)?;
        let mut leg = Leg::new(Side::Caller, account, dialog, LegState::Invited, ctx.tokens);
        leg.received_sdp = invite.body.clone();
        leg.allows_update = invite.has_token("Allow", "UPDATE");
        leg.setup.server = Some(server);
        leg.setup.supports_100rel = invite.has_token("Supported", "100rel");
        leg.setup.requires_100rel = invite.has_token("Require", "100rel");
        leg.setup.supports_timer = invite.has_token("Supported", "timer");
        leg.timer = super::session::ask_of(invite, ctx);
        leg.setup.offer_in_answer = invite.body.is_empty();
        Some(self.add_leg(leg))
    }

    /// Rings the next group of phones on behalf of `caller`; false when there is none left.
    pub(super) fn ring_next_group(&mut self, caller: LegId, ctx: &mut Context<'_>) -> bool {
        while !self.waiting.is_empty() {
            let group = self.waiting.remove(0);
            let rung = group
                .into_iter()
                .take(FORK_MAX)
                .filter(|target| self.ring(caller, target, ctx))
                .count();
            if rung > 0 {
                return true;
            }
        }
        if self.phase == Phase::Setup && !self.legs.values().any(|leg| leg.state == LegState::Inviting) {
            let status = self.failure.unwrap_or(480);
            self.finish(disposition_of(status), Some(status), ctx);
        }
        false
    }

    fn ring(&mut self, caller: LegId, target: &Target, ctx: &mut Context<'_>) -> bool {
        let dialog = self.callee_dialog(target, ctx);
        let id = self.add_leg(Leg::new(
            Side::Callee,
            target.account.clone(),
            dialog,
            LegState::Inviting,
            ctx.tokens,
        ));
        let offer = self.leg(caller).map(|leg| leg.received_sdp.clone()).unwrap_or_default();
        let body = if offer.is_empty() {
            Ok(Vec::new())
        } else {
            self.carry_sdp(caller, id, &offer, ctx)
        };
        match body {
            Ok(body) => self.send_invite(id, body, ctx.session_s, ctx),
            Err(unfit) => {
                self.failure = Some(unfit.0);
                self.forget_leg(id, ctx);
                return false;
            }
        }
        true
    }

    fn callee_dialog(&self, target: &Target, ctx: &mut Context<'_>) -> Dialog {
        let tag = ctx.tokens.next_token();
        let domain = ctx.domain;
        let display = if self.display.is_empty() {
            &self.from
        } else {
            &self.display
        };
        let display: String = display
            .chars()
            .filter(|c| !c.is_control() && !"\"\\".contains(*c))
            .take(64)
            .collect();
        Dialog {
            call_id: format!("{}@{domain}", ctx.tokens.next_token()),
            local: format!("\"{display}\" <sip:{}@{domain}>;tag={tag}", escape_user(&self.from)),
            local_tag: tag,
            remote: format!("<sip:{}@{domain}>", escape_user(&target.account)),
            remote_tag: String::new(),
            local_cseq: 0,
            remote_cseq: None,
            routes: target.binding.path.clone(),
            target: target.binding.contact.clone(),
            flow: target.binding.flow,
        }
    }

    fn send_invite(&mut self, id: LegId, body: Vec<u8>, session_s: u32, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        let mut invite = leg.dialog.next_request(Method::Invite);
        let has_offer = !body.is_empty();
        // Without an offer of ours, a reliable response would carry one, and we could not answer it in PRACK.
        invite.push(
            "Supported",
            if has_offer {
                "100rel, timer, replaces"
            } else {
                "timer, replaces"
            },
        );
        super::session::ask(&mut invite, session_s);
        leg.setup.offer_in_answer = !has_offer;
        if has_offer {
            invite = invite.with_body("application/sdp", body);
        }
        self.request(id, invite, Purpose::Invite, ctx);
    }

    pub(super) fn invite_response(
        &mut self,
        id: LegId,
        client: ClientId,
        status: u16,
        message: &Message,
        ctx: &mut Context<'_>,
    ) {
        let Some(leg) = self.leg(id) else { return };
        leg.setup.client = Some(client);
        let cancel_wanted = leg.setup.cancel_wanted;
        match (leg.state, status) {
            (LegState::Inviting, 100..200) => {
                leg.setup.provisional_seen = true;
                if leg.setup.cancel_wanted {
                    self.cancel_when_possible(id, ctx);
                } else if status > 100 {
                    self.progress(id, status, message, ctx);
                }
            }
            (_, 100..200) => {}
            (LegState::Inviting, 200..300) if self.phase != Phase::Ended && !cancel_wanted => {
                self.answered(id, client, message, ctx);
            }
            (_, 200..300) => self.answered_too_late(id, client, message, ctx),
            (LegState::Inviting, 422) if self.retry_with_longer_session(id, message, ctx) => {}
            (LegState::Inviting | LegState::Closing, _) => self.leg_failed(id, status, ctx),
            (LegState::Up | LegState::Invited, _) => {}
        }
    }

    /// 422: ask again for what the phone wants (RFC 4028 section 7.4).
    fn retry_with_longer_session(&mut self, id: LegId, message: &Message, ctx: &mut Context<'_>) -> bool {
        let minimum = message
            .get("Min-SE")
            .and_then(|text| parse_decimal(text.split(';').next().unwrap_or("")));
        let Some(minimum) = minimum.filter(|s| *s > ctx.session_s && *s <= 86_400) else {
            return false;
        };
        let body = self.leg(id).map(|leg| leg.sent_sdp.clone()).unwrap_or_default();
        self.send_invite(id, body, minimum, ctx);
        true
    }

    fn progress(&mut self, id: LegId, status: u16, message: &Message, ctx: &mut Context<'_>) {
        let alone = self.legs.values().filter(|leg| leg.state == LegState::Inviting).count() == 1;
        let Some(leg) = self.leg(id) else { return };
        if leg.dialog.remote_tag.is_empty() {
            leg.dialog.learn(message);
        }
        if !self.acknowledge_provisional(id, message, ctx) {
            return;
        }
        if let Some(transfer) = &self.transfer {
            return self.notify(transfer.referrer, status, false, ctx);
        }
        let Some(caller) = self.caller() else { return };
        let waits = self.leg(caller).is_some_and(|leg| leg.setup.offer_in_answer);
        let sdp = if alone && message.has_sdp() && !waits {
            self.carry_sdp(id, caller, &message.body, ctx).ok()
        } else {
            None
        };
        if sdp.is_some() {
            self.pair(id, caller, ctx);
        }
        self.send_provisional(caller, status, sdp, ctx);
    }

    /// PRACK; false when the response is a repetition or out of order.
    fn acknowledge_provisional(&mut self, id: LegId, message: &Message, ctx: &mut Context<'_>) -> bool {
        let Some(leg) = self.leg(id) else {
            return false;
        };
        let rseq = message
            .get("RSeq")
            .and_then(parse_decimal)
            .filter(|_| message.has_token("Require", "100rel"));
        let Some(rseq) = rseq else { return true };
        if leg.setup.rseq_seen.is_some_and(|seen| rseq != seen.wrapping_add(1)) {
            return false;
        }
        leg.setup.rseq_seen = Some(rseq);
        let mut early = leg.dialog.clone();
        early.refresh_target(message);
        let mut prack = early.next_request(Method::Prack);
        leg.dialog.local_cseq = early.local_cseq;
        prack.push("RAck", format!("{rseq} {}", message.get("CSeq").unwrap_or_default()));
        self.request(id, prack, Purpose::Prack, ctx);
        true
    }

    fn send_provisional(&mut self, caller: LegId, status: u16, sdp: Option<Vec<u8>>, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(caller) else { return };
        let Some(server) = leg.setup.server else {
            return;
        };
        let to_tag = leg.dialog.local_tag.clone();
        let mut reply = Reply {
            server,
            status,
            to_tag,
            headers: Vec::new(),
            sdp,
        };
        let reliable = leg.setup.requires_100rel || (leg.setup.supports_100rel && reply.sdp.is_some());
        if reliable {
            // One unacknowledged at a time (RFC 3262 section 3); a further one is dropped, the final answer follows anyway.
            if leg.setup.unacknowledged.is_some() {
                return;
            }
            leg.setup.rseq += 1;
            let rseq = leg.setup.rseq;
            reply.headers.push(("Require", "100rel".to_owned()));
            reply.headers.push(("RSeq", rseq.to_string()));
            leg.setup.unacknowledged = Some(Unacknowledged {
                reply: reply.clone(),
                rseq,
                next: ctx.now.plus_ms(T1_MS),
                interval_ms: T1_MS,
                give_up: ctx.now.plus_ms(T1X64_MS),
            });
        }
        ctx.effects.push(Effect::Reply(reply));
    }

    /// Repeats an unacknowledged provisional response, or gives the call up.
    pub(super) fn provisional_due(&mut self, id: LegId, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let Some(leg) = self.leg(id) else { return };
        let Some(waiting) = leg.setup.unacknowledged.as_mut().filter(|waiting| waiting.next <= now) else {
            return;
        };
        if waiting.give_up <= now {
            leg.setup.unacknowledged = None;
            return self.finish(Disposition::Failed, Some(504), ctx);
        }
        waiting.interval_ms *= 2;
        waiting.next = now.plus_ms(waiting.interval_ms);
        let reply = waiting.reply.clone();
        ctx.effects.push(Effect::Reply(reply));
    }

    /// PRACK from a caller.
    pub(super) fn prack_received(&mut self, id: LegId, server: ServerId, message: &Message, ctx: &mut Context<'_>) {
        let rseq = message
            .get("RAck")
            .and_then(|text| parse_decimal(text.split_whitespace().next()?));
        let Some(leg) = self.leg(id) else { return };
        let expected = leg
            .setup
            .unacknowledged
            .as_ref()
            .is_some_and(|waiting| Some(waiting.rseq) == rseq);
        if !expected {
            return self.reply(id, server, 481, ctx);
        }
        // An offer in PRACK is not supported.
        if message.has_sdp() {
            return self.reply(id, server, 488, ctx);
        }
        leg.setup.unacknowledged = None;
        self.reply(id, server, 200, ctx);
        if let Some((callee, sdp)) = self.held_answer.take() {
            self.send_answer(id, callee, sdp, ctx);
        }
    }

    fn answered(&mut self, id: LegId, client: ClientId, message: &Message, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        leg.dialog.learn(message);
        leg.state = LegState::Up;
        leg.allows_update = message.has_token("Allow", "UPDATE");
        leg.timer = Some(super::session::agreed(message, ctx));
        let number = cseq_of(message);
        let waits_for_answer = leg.setup.offer_in_answer;
        if waits_for_answer {
            leg.setup.ack_owed = Some((client, number));
        } else {
            self.acknowledge(id, client, number, None, ctx);
        }
        if self.transfer.is_some() {
            return self.transfer_answered(id, message, ctx);
        }
        let Some(caller) = self.caller() else {
            return self.release_leg(id, ctx);
        };
        match self.carry_sdp(id, caller, &message.body, ctx) {
            Ok(sdp) => self.connect(caller, id, sdp, ctx),
            Err(unfit) => {
                if waits_for_answer {
                    self.acknowledge(id, client, number, None, ctx);
                }
                self.finish(Disposition::Failed, Some(unfit.0), ctx);
            }
        }
    }

    fn connect(&mut self, caller: LegId, callee: LegId, sdp: Vec<u8>, ctx: &mut Context<'_>) {
        self.phase = Phase::Up;
        self.ring_until = None;
        self.waiting.clear();
        self.answered = Some(ctx.now);
        self.answered_by = self.legs.get(&callee).map(|leg| leg.account.clone());
        self.join(caller, callee, ctx);
        let losers: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(_, leg)| leg.state == LegState::Inviting)
            .map(|(id, _)| *id)
            .collect();
        losers.into_iter().for_each(|id| self.release_leg(id, ctx));
        let unacknowledged = self.leg(caller).is_some_and(|leg| leg.setup.unacknowledged.is_some());
        if unacknowledged {
            self.held_answer = Some((callee, sdp));
        } else {
            self.send_answer(caller, callee, sdp, ctx);
        }
    }

    fn send_answer(&mut self, caller: LegId, _callee: LegId, sdp: Vec<u8>, ctx: &mut Context<'_>) {
        self.accept(caller, sdp, ctx);
    }

    /// 200 to the INVITE of a leg.
    pub(super) fn accept(&mut self, id: LegId, sdp: Vec<u8>, ctx: &mut Context<'_>) {
        let session_s = ctx.session_s;
        let now = ctx.now;
        let Some(leg) = self.leg(id) else { return };
        let Some(server) = leg.setup.server.take() else {
            return;
        };
        leg.state = LegState::Up;
        leg.setup.unacknowledged = None;
        leg.setup.ack_wanted = Some(server);
        let timer = leg.timer.get_or_insert_with(|| super::session::ours(session_s, now));
        let headers = super::session::answer_headers(timer, leg.setup.supports_timer);
        let to_tag = leg.dialog.local_tag.clone();
        ctx.effects.push(Effect::Reply(Reply {
            server,
            status: 200,
            to_tag,
            headers,
            sdp: Some(sdp),
        }));
    }

    /// Sends the ACK of a 2xx on this leg.
    pub(super) fn acknowledge(
        &mut self,
        id: LegId,
        client: ClientId,
        number: u32,
        sdp: Option<Vec<u8>>,
        ctx: &mut Context<'_>,
    ) {
        let Some(leg) = self.leg(id) else { return };
        let mut ack = leg.dialog.ack(number);
        if let Some(sdp) = sdp {
            ack = ack.with_body("application/sdp", sdp);
        }
        let effect = Effect::Ack {
            client,
            message: ack,
            to_tag: leg.dialog.remote_tag.clone(),
            flow: leg.dialog.flow,
        };
        ctx.effects.push(effect);
    }

    /// A 2xx for a leg that is up already, or was cancelled: accept and hang up (RFC 3261 section 13.2.2.4).
    fn answered_too_late(&mut self, id: LegId, client: ClientId, message: &Message, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        let mut dialog = leg.dialog.clone();
        dialog.learn(message);
        let ack = dialog.ack(cseq_of(message));
        dialog.local_cseq = dialog.local_cseq.max(cseq_of(message));
        let bye = dialog.next_request(Method::Bye);
        let flow = dialog.flow;
        ctx.effects.push(Effect::Ack {
            client,
            message: ack,
            to_tag: dialog.remote_tag.clone(),
            flow,
        });
        ctx.effects.push(Effect::Request {
            leg: id,
            message: bye,
            flow,
            purpose: Purpose::Stray,
        });
        if self.leg(id).is_some_and(|leg| leg.state != LegState::Up) {
            self.forget_leg(id, ctx);
        }
    }

    fn leg_failed(&mut self, id: LegId, status: u16, ctx: &mut Context<'_>) {
        let was_cancelled = self.leg(id).is_some_and(|leg| leg.setup.cancel_wanted);
        self.forget_leg(id, ctx);
        if self.phase == Phase::Ended || was_cancelled {
            return;
        }
        self.failure = Some(better_failure(self.failure, status));
        if status >= 600 {
            self.waiting.clear();
            let ringing: Vec<LegId> = self
                .legs
                .iter()
                .filter(|(_, leg)| leg.state == LegState::Inviting)
                .map(|(id, _)| *id)
                .collect();
            ringing.into_iter().for_each(|id| self.release_leg(id, ctx));
        } else if self
            .legs
            .values()
            .any(|leg| leg.state == LegState::Inviting && !leg.setup.cancel_wanted)
        {
            return;
        }
        if let Some(transfer) = self.transfer.clone() {
            if !self.ring_next_group(transfer.transferee, ctx) {
                self.transfer_failed(ctx);
            }
        } else if let (Phase::Setup, Some(caller)) = (self.phase, self.caller()) {
            self.ring_next_group(caller, ctx);
            if self.phase == Phase::Setup && self.failure.is_some_and(|status| status >= 600) {
                let status = self.failure.unwrap_or(603);
                self.finish(disposition_of(status), Some(status), ctx);
            }
        }
    }

    pub(super) fn cancelled(&mut self, id: LegId, ctx: &mut Context<'_>) {
        if self.phase == Phase::Setup && self.caller() == Some(id) {
            self.finish(Disposition::Cancelled, Some(487), ctx);
        } else if self.leg(id).is_some_and(|leg| leg.state == LegState::Invited) {
            self.refuse(id, 487, ctx);
        }
    }

    /// Refuses a leg's INVITE and forgets the leg.
    pub(super) fn refuse(&mut self, id: LegId, status: u16, ctx: &mut Context<'_>) {
        if let Some(server) = self.leg(id).and_then(|leg| leg.setup.server.take()) {
            self.reply(id, server, status, ctx);
        }
        self.forget_leg(id, ctx);
    }

    pub(super) fn no_answer(&mut self, ctx: &mut Context<'_>) {
        if self.phase == Phase::Setup {
            self.finish(Disposition::NoAnswer, Some(480), ctx);
        } else if self.transfer.is_some() {
            let ringing: Vec<LegId> = self
                .legs
                .iter()
                .filter(|(_, leg)| leg.state == LegState::Inviting)
                .map(|(id, _)| *id)
                .collect();
            ringing.into_iter().for_each(|id| self.release_leg(id, ctx));
            self.transfer_failed(ctx);
        }
    }

    /// The leg whose INVITE began the call, while it is there.
    pub(super) fn caller(&self) -> Option<LegId> {
        self.legs.get(&0).map(|_| 0)
    }
}

pub(super) fn cseq_of(message: &Message) -> u32 {
    message.get("CSeq").and_then(CSeq::parse).map_or(0, |cseq| cseq.number)
}

/// Which failure of several phones the caller hears of: any 6xx, else what tells most.
fn better_failure(known: Option<u16>, new: u16) -> u16 {
    let rank = |status: u16| match status {
        600.. => 0,
        486 => 1,
        480 | 408 => 3,
        500..600 => 4,
        _ => 2,
    };
    // Redirection and challenges by phones mean nothing to the caller.
    let new = if matches!(new, 300..=399 | 401 | 407 | 430) {
        480
    } else {
        new
    };
    known.filter(|known| rank(*known) <= rank(new)).unwrap_or(new)
}

fn disposition_of(status: u16) -> Disposition {
    match status {
        486 | 600 | 603 => Disposition::Busy,
        408 | 480 => Disposition::NoAnswer,
        _ => Disposition::Failed,
    }
}
