//! Clearing legs, ending calls, and the record of a call: written once, when the call leaves `Setup` or `Up`.

use super::{Call, CallRecord, Context, Disposition, Effect, LegId, LegState, Phase, Purpose};
use crate::sip::Method;
use crate::transaction::ServerId;

impl Call {
    /// BYE from a phone.
    pub(super) fn bye_received(&mut self, leg: LegId, server: ServerId, ctx: &mut Context<'_>) {
        // A callee may not hang up before it has answered (RFC 3261 section 15): it must refuse the INVITE.
        if self.leg(leg).is_some_and(|leg| leg.state == LegState::Inviting) {
            return self.reply(leg, server, 481, ctx);
        }
        self.reply(leg, server, 200, ctx);
        let open = self
            .leg(leg)
            .filter(|leg| leg.state == LegState::Invited)
            .and_then(|leg| leg.setup.server.take());
        if let Some(open) = open {
            self.reply(leg, open, 487, ctx);
        }
        let in_setup = self.phase == Phase::Setup;
        let transferring = self.transfer.as_ref().is_some_and(|t| t.referrer == leg);
        self.forget_leg(leg, ctx);
        if self.transfer.as_ref().is_some_and(|t| t.transferee == leg) {
            self.transfer = None;
        }
        // A referrer may hang up while the party it named is still ringing.
        if transferring {
            return;
        }
        if in_setup {
            self.finish(Disposition::Cancelled, None, ctx);
        } else {
            self.finish_if_alone(ctx);
        }
    }

    /// Ends the call when no two legs talk or are about to.
    pub(super) fn finish_if_alone(&mut self, ctx: &mut Context<'_>) {
        let talking = self.legs.values().any(|leg| {
            leg.state == LegState::Up
                && leg
                    .peer
                    .and_then(|peer| self.legs.get(&peer))
                    .is_some_and(|peer| peer.state == LegState::Up)
        });
        if !talking && self.transfer.is_none() && self.phase == Phase::Up {
            self.finish(Disposition::Answered, None, ctx);
        }
    }

    /// Something is broken beyond repair: a phone does not answer any more.
    pub(super) fn end_by_failure(&mut self, ctx: &mut Context<'_>) {
        let disposition = if self.answered.is_some() {
            Disposition::Answered
        } else {
            Disposition::Failed
        };
        self.finish(disposition, None, ctx);
    }

    /// Writes the record and releases every leg.
    pub(super) fn finish(&mut self, disposition: Disposition, status: Option<u16>, ctx: &mut Context<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        self.ring_until = None;
        self.transfer = None;
        self.waiting.clear();
        let final_status = status.unwrap_or(if disposition == Disposition::Cancelled {
            487
        } else {
            480
        });
        for (server, leg) in std::mem::take(&mut self.forwards) {
            self.reply(leg, server, 487, ctx);
        }
        let legs: Vec<LegId> = self.legs.keys().copied().collect();
        for leg in legs {
            self.refuse_or_release(leg, final_status, ctx);
        }
        ctx.effects.push(Effect::Record(CallRecord {
            call: self.key.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            answered_by: self.answered_by.clone(),
            started: self.started,
            answered: self.answered,
            ended: ctx.now,
            disposition,
            status,
            transferred_to: self.transferred_to.clone(),
        }));
    }

    fn refuse_or_release(&mut self, leg: LegId, status: u16, ctx: &mut Context<'_>) {
        let invited = self
            .leg(leg)
            .filter(|leg| leg.state == LegState::Invited)
            .and_then(|leg| leg.setup.server.take());
        match invited {
            Some(server) => {
                self.reply(leg, server, status, ctx);
                self.forget_leg(leg, ctx);
            }
            None => self.release_leg(leg, ctx),
        }
    }

    /// BYE or CANCEL, whichever fits; the leg stays until its answer.
    pub(super) fn release_leg(&mut self, id: LegId, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        match leg.state {
            LegState::Up => {
                leg.state = LegState::Closing;
                let bye = leg.dialog.next_request(Method::Bye);
                self.request(id, bye, Purpose::Release, ctx);
                self.free_ports(id, ctx);
            }
            LegState::Inviting => {
                leg.setup.cancel_wanted = true;
                self.cancel_when_possible(id, ctx);
            }
            LegState::Invited | LegState::Closing => {}
        }
    }

    /// A CANCEL may go out only after a provisional response (RFC 3261 section 9.1).
    pub(super) fn cancel_when_possible(&mut self, id: LegId, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        if !leg.setup.cancel_wanted || !leg.setup.provisional_seen || leg.state != LegState::Inviting {
            return;
        }
        leg.state = LegState::Closing;
        if let Some(client) = leg.setup.client {
            ctx.effects.push(Effect::Cancel { leg: id, client });
        }
    }

    /// Drops a leg and all that belongs to it.
    pub(super) fn forget_leg(&mut self, id: LegId, ctx: &mut Context<'_>) {
        if !self.legs.contains_key(&id) {
            return;
        }
        self.free_ports(id, ctx);
        let stranded: Vec<_> = self.forwards.iter().filter(|(_, from)| *from == id).copied().collect();
        for (server, leg) in stranded {
            self.reply(leg, server, 487, ctx);
        }
        self.forwards.retain(|(_, from)| *from != id);
        self.legs.remove(&id);
        ctx.effects.push(Effect::LegGone(id));
    }
}
