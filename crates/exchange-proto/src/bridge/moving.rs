//! After a takeover from another address: each phone is told by re-INVITE where media and requests go from now on.
//!
//! The offer is what its partner said last, under our address and fresh ports. A phone that is offering something
//! itself (491) is told again two seconds later; one that knows nothing of the call ends it. One that does not answer may
//! be behind a translator that we have no way through: it is told when it has registered with us, over that flow, or its
//! session timer ends the call.

use super::{Call, Context, LegId, LegState, Purpose};
use crate::flow::Flow;
use crate::sip::{Message, Method};
use crate::transaction::ClientId;

const GLARE_MS: u64 = 2_000;

impl Call {
    /// Tells every phone that talks.
    pub fn move_here(&mut self, ctx: &mut Context<'_>) {
        let legs: Vec<LegId> = self.legs.keys().copied().collect();
        for leg in legs {
            self.tell_move(leg, ctx);
        }
    }

    fn tell_move(&mut self, id: LegId, ctx: &mut Context<'_>) {
        let up = |leg: &LegId| self.legs.get(leg).is_some_and(|leg| leg.state == LegState::Up);
        let peer = self.legs.get(&id).and_then(|leg| leg.peer);
        let Some(peer) = peer.filter(|peer| up(&id) && up(peer)) else {
            return;
        };
        let said = self.leg(peer).map(|leg| leg.received_sdp.clone()).unwrap_or_default();
        let Ok(offer) = self.carry_sdp(peer, id, &said, ctx) else {
            return self.end_by_failure(ctx);
        };
        self.pair(id, peer, ctx);
        let Some(leg) = self.leg(id) else { return };
        let invite = leg.dialog.next_request(Method::Invite).with("Supported", "timer");
        let invite = invite.with_body("application/sdp", offer);
        self.request(id, invite, Purpose::Move, ctx);
    }

    pub(super) fn move_response(
        &mut self,
        id: LegId,
        client: ClientId,
        status: u16,
        message: &Message,
        ctx: &mut Context<'_>,
    ) {
        match status {
            0..200 => {}
            200..300 => self.moved(id, client, message, ctx),
            408 => {
                if let Some(leg) = self.leg(id) {
                    leg.setup.untold = true;
                }
            }
            481 => self.end_by_failure(ctx),
            _ => {
                let again = ctx.now.plus_ms(GLARE_MS);
                if let Some(leg) = self.leg(id) {
                    leg.setup.move_at = Some(again);
                }
            }
        }
    }

    fn moved(&mut self, id: LegId, client: ClientId, message: &Message, ctx: &mut Context<'_>) {
        self.acknowledge(id, client, super::setup::cseq_of(message), None, ctx);
        let Some(leg) = self.leg(id) else { return };
        leg.dialog.refresh_target(message);
        let news = message.has_sdp() && leg.received_sdp != message.body;
        if let Some(peer) = leg.peer.filter(|_| news) {
            // A phone that answers from another port than before: its partner need not know, the relay must.
            let _ = self.carry_sdp(id, peer, &message.body, ctx);
        }
    }

    /// Whether a phone could not be told.
    pub fn is_untold(&self, id: LegId) -> bool {
        self.legs.get(&id).is_some_and(|leg| leg.setup.untold)
    }

    /// A phone is there again, over this flow.
    pub fn found_again(&mut self, id: LegId, flow: Flow, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        leg.dialog.flow = flow;
        if std::mem::take(&mut leg.setup.untold) {
            self.tell_move(id, ctx);
        }
    }

    pub(super) fn move_due(&mut self, id: LegId, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let due = self.leg(id).and_then(|leg| leg.setup.move_at.take_if(|at| *at <= now));
        if due.is_some() {
            self.tell_move(id, ctx);
        }
    }
}
