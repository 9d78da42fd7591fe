//! Transfer: REFER (RFC 3515) blind and attended, and INVITE with Replaces (RFC 3891).
//!
//! REFER never reaches the other phone: the exchange acts on it. Blind: the named party is rung with the remaining
//! phone's description; when it answers, the remaining phone gets a re-INVITE with the answer, and the referrer is
//! released. Attended: the two remaining legs are joined, one re-INVITE each. Only the account whose own
//! dialog is named may have it replaced. Without `Replaces` in the setup phase: early dialogs are not replaced.

use super::setup::cseq_of;
use super::{Call, Context, Effect, Leg, LegId, LegState, Phase, Purpose, RING_MS_MAX, Reply, Target, Transfer};
use crate::sip::message::reason_phrase;
use crate::sip::{Message, Method};
use crate::transaction::{ClientId, ServerId};

/// What Refer-To turned out to name.
#[derive(Debug)]
pub enum ReferTarget {
    /// An account, with its phones.
    Account {
        /// Its name.
        name: String,
        /// Whom to ring.
        targets: Vec<Vec<Target>>,
    },
    /// The partner in another call of the referrer, taken out of it.
    Partner(Box<Leg>),
    /// Nothing that can be reached.
    Nobody(u16),
}

impl Call {
    pub(super) fn refer(&mut self, id: LegId, server: ServerId, target: ReferTarget, ctx: &mut Context<'_>) {
        let transferee = self
            .leg(id)
            .filter(|leg| leg.state == LegState::Up)
            .and_then(|leg| leg.peer);
        let transferee = transferee.filter(|peer| self.legs.get(peer).is_some_and(|leg| leg.state == LegState::Up));
        let Some(transferee) = transferee.filter(|_| self.transfer.is_none() && !self.has_open_offer()) else {
            return self.reply(id, server, 491, ctx);
        };
        match target {
            ReferTarget::Nobody(status) => self.reply(id, server, status, ctx),
            ReferTarget::Account { name, targets } => {
                self.accept_refer(id, server, ctx);
                self.transfer = Some(Transfer {
                    referrer: id,
                    transferee,
                    to: name,
                });
                self.ring_until = Some(ctx.now.plus_ms(RING_MS_MAX));
                self.failure = None;
                self.waiting = targets;
                self.notify(id, 100, false, ctx);
                if !self.ring_next_group(transferee, ctx) {
                    self.transfer_failed(ctx);
                }
            }
            ReferTarget::Partner(leg) => {
                self.accept_refer(id, server, ctx);
                self.transferred_to = Some(leg.account.clone());
                let partner = self.add_leg(*leg);
                self.unlink(id);
                self.join(transferee, partner, ctx);
                self.notify(id, 200, true, ctx);
                self.offer_join(transferee, partner, Some(transferee), ctx);
            }
        }
    }

    fn accept_refer(&mut self, id: LegId, server: ServerId, ctx: &mut Context<'_>) {
        self.reply(id, server, 202, ctx);
    }

    fn unlink(&mut self, id: LegId) {
        if let Some(leg) = self.leg(id) {
            leg.peer = None;
        }
    }

    /// Offers what `from` last said to `to`; `then` gets the answer.
    fn offer_join(&mut self, from: LegId, to: LegId, then: Option<LegId>, ctx: &mut Context<'_>) {
        let body = self.leg(from).map(|leg| leg.received_sdp.clone()).unwrap_or_default();
        let Ok(sdp) = self.carry_sdp(from, to, &body, ctx) else {
            return self.end_by_failure(ctx);
        };
        let Some(leg) = self.leg(to) else { return };
        let invite = leg
            .dialog
            .next_request(Method::Invite)
            .with("Supported", "timer")
            .with_body("application/sdp", sdp);
        self.request(to, invite, Purpose::Join { then }, ctx);
    }

    pub(super) fn join_response(
        &mut self,
        id: LegId,
        client: ClientId,
        then: Option<LegId>,
        message: &Message,
        ctx: &mut Context<'_>,
    ) {
        let status = message.status().unwrap_or(500);
        if status < 200 {
            return;
        }
        if status >= 300 {
            return self.end_by_failure(ctx);
        }
        self.acknowledge(id, client, cseq_of(message), None, ctx);
        let Some(leg) = self.leg(id) else { return };
        leg.dialog.refresh_target(message);
        if message.has_sdp() {
            leg.received_sdp = message.body.clone();
        }
        match then {
            Some(then) => self.offer_join(id, then, None, ctx),
            None => {
                if let Some(peer) = self.leg(id).and_then(|leg| leg.peer) {
                    // The final description of this phone tells the relay where it listens now.
                    if self.carry_sdp(id, peer, &message.body, ctx).is_ok() {
                        self.pair(id, peer, ctx);
                    }
                }
            }
        }
    }

    /// The party named by a blind transfer has answered.
    pub(super) fn transfer_answered(&mut self, id: LegId, message: &Message, ctx: &mut Context<'_>) {
        let Some(transfer) = self.transfer.take() else {
            return;
        };
        self.ring_until = None;
        self.waiting.clear();
        let losers: Vec<LegId> = self
            .legs
            .iter()
            .filter(|(_, leg)| leg.state == LegState::Inviting)
            .map(|(id, _)| *id)
            .collect();
        losers.into_iter().for_each(|id| self.release_leg(id, ctx));
        self.transferred_to = Some(transfer.to);
        self.unlink(transfer.referrer);
        self.join(transfer.transferee, id, ctx);
        self.notify(transfer.referrer, 200, true, ctx);
        if let Some(leg) = self.leg(id) {
            leg.received_sdp = message.body.clone();
        }
        self.offer_join(id, transfer.transferee, None, ctx);
    }

    pub(super) fn transfer_failed(&mut self, ctx: &mut Context<'_>) {
        let Some(transfer) = self.transfer.take() else {
            return;
        };
        self.ring_until = None;
        let status = self.failure.take().unwrap_or(480);
        self.notify_failure(transfer.referrer, status, ctx);
        self.finish_if_alone(ctx);
    }

    fn notify_failure(&mut self, referrer: LegId, status: u16, ctx: &mut Context<'_>) {
        self.send_notify(
            referrer,
            status,
            "terminated;reason=noresource",
            Purpose::Notify { last: false },
            ctx,
        );
    }

    /// NOTIFY with a status line (RFC 3515 section 2.4.5).
    pub(super) fn notify(&mut self, referrer: LegId, status: u16, last: bool, ctx: &mut Context<'_>) {
        let state = if last {
            "terminated;reason=noresource"
        } else {
            "active;expires=180"
        };
        self.send_notify(referrer, status, state, Purpose::Notify { last }, ctx);
    }

    fn send_notify(&mut self, referrer: LegId, status: u16, state: &str, purpose: Purpose, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(referrer).filter(|leg| leg.state == LegState::Up) else {
            return;
        };
        let body = format!("SIP/2.0 {status} {}\r\n", reason_phrase(status));
        let notify = leg
            .dialog
            .next_request(Method::Notify)
            .with("Event", "refer")
            .with("Subscription-State", state)
            .with_body("message/sipfrag;version=2.0", body.into_bytes());
        self.request(referrer, notify, purpose, ctx);
    }

    /// Takes the partner of `own` out of this call, which ends: the other half of an attended transfer.
    pub fn give_partner(&mut self, own: LegId, ctx: &mut Context<'_>) -> Option<(LegId, Leg)> {
        if self.phase != Phase::Up || self.has_open_offer() || self.transfer.is_some() {
            return None;
        }
        let partner = self.legs.get(&own).filter(|leg| leg.state == LegState::Up)?.peer?;
        let up = self.legs.get(&partner).is_some_and(|leg| leg.state == LegState::Up);
        let leg = up.then(|| self.legs.remove(&partner)).flatten()?;
        ctx.effects.push(Effect::LegGone(partner));
        self.transferred_to = Some(leg.account.clone());
        self.finish(super::Disposition::Answered, None, ctx);
        Some((partner, leg))
    }

    /// An INVITE with Replaces: the new leg takes the place of `old`, another phone of the same account.
    pub fn replace(&mut self, old: LegId, invitation: super::Invitation<'_>, ctx: &mut Context<'_>) {
        let server = invitation.server;
        let refuse = |status: u16, ctx: &mut Context<'_>| {
            let to_tag = ctx.tokens.next_token();
            ctx.effects.push(Effect::Reply(Reply {
                server,
                status,
                to_tag,
                headers: Vec::new(),
                sdp: None,
            }));
        };
        let own = self
            .leg(old)
            .filter(|leg| leg.state == LegState::Up)
            .map(|leg| (leg.account.clone(), leg.peer));
        let Some((account, Some(peer))) = own else {
            return refuse(481, ctx);
        };
        if account != invitation.account {
            return refuse(403, ctx);
        }
        if self.has_open_offer() || !invitation.message.has_sdp() {
            return refuse(488, ctx);
        }
        let Some(new) = self.add_caller(invitation.account, server, invitation.message, invitation.flow, ctx) else {
            return refuse(400, ctx);
        };
        let Ok(sdp) = self.carry_sdp(new, peer, &invitation.message.body, ctx) else {
            return self.refuse(new, 488, ctx);
        };
        let Some(leg) = self.leg(peer) else { return };
        let invite = leg
            .dialog
            .next_request(Method::Invite)
            .with("Supported", "timer")
            .with_body("application/sdp", sdp);
        self.request(peer, invite, Purpose::Replace { new, old }, ctx);
    }

    pub(super) fn replace_response(
        &mut self,
        peer: LegId,
        client: ClientId,
        new: LegId,
        old: LegId,
        message: &Message,
        ctx: &mut Context<'_>,
    ) {
        let status = message.status().unwrap_or(500);
        if status < 200 {
            return;
        }
        if status >= 300 {
            return self.refuse(new, 488, ctx);
        }
        self.acknowledge(peer, client, cseq_of(message), None, ctx);
        match self.carry_sdp(peer, new, &message.body, ctx) {
            Ok(sdp) if self.legs.contains_key(&new) => {
                self.unlink(old);
                self.join(new, peer, ctx);
                self.accept(new, sdp, ctx);
                self.release_leg(old, ctx);
            }
            Ok(_) => self.end_by_failure(ctx),
            Err(unfit) => self.refuse(new, unfit.0, ctx),
        }
    }

    /// Adds a leg that another call gave away. Its number is new here.
    pub fn last_leg(&self) -> LegId {
        self.next_leg.saturating_sub(1)
    }
}
