//! Requests inside a dialog: answered here when they concern one leg only, else carried to the peer and answered with
//! the peer's answer. At most one offer is open in a call at any time; a second one gets 491 (glare).

use super::{Call, Context, Effect, FORWARDS_MAX, Forwarded, LegId, LegState, Phase, Purpose, Reply};
use crate::sip::{Message, Method};
use crate::transaction::{ClientId, ServerId};

impl Call {
    pub(super) fn in_dialog_request(&mut self, id: LegId, server: ServerId, message: &Message, ctx: &mut Context<'_>) {
        let Some(method) = message.method() else {
            return;
        };
        match method {
            Method::Bye => self.bye_received(id, server, ctx),
            Method::Prack => self.prack_received(id, server, message, ctx),
            Method::Options => self.reply(id, server, 200, ctx),
            Method::Invite | Method::Update => self.offer_received(id, server, message, ctx),
            Method::Info | Method::Message => self.forward(id, server, message, ctx),
            Method::Notify => self.reply(id, server, 481, ctx),
            _ => self.reply(id, server, 405, ctx),
        }
    }

    fn offer_received(&mut self, id: LegId, server: ServerId, message: &Message, ctx: &mut Context<'_>) {
        if super::session::is_too_small(message) {
            return self.reply_422(id, server, ctx);
        }
        let timer = super::session::ask_of(message, ctx);
        let Some(leg) = self.leg(id) else { return };
        leg.dialog.refresh_target(message);
        leg.setup.supports_timer = message.has_token("Supported", "timer");
        if timer.is_some() {
            leg.timer = timer;
        }
        if leg.state != LegState::Up {
            return self.reply(id, server, 491, ctx);
        }
        let update = message.method() == Some(&Method::Update);
        let unchanged = message.body == leg.received_sdp;
        if (update && message.body.is_empty()) || (unchanged && !message.body.is_empty()) {
            let sdp = leg.sent_sdp.clone();
            return self.accept_change(id, server, (!message.body.is_empty()).then_some(sdp), !update, ctx);
        }
        if self.has_open_offer() {
            return self.reply(id, server, 491, ctx);
        }
        self.forward(id, server, message, ctx);
    }

    fn reply_422(&mut self, id: LegId, server: ServerId, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        let to_tag = leg.dialog.local_tag.clone();
        let headers = vec![("Min-SE", super::session::MIN_SE_S.to_string())];
        ctx.effects.push(Effect::Reply(Reply {
            server,
            status: 422,
            to_tag,
            headers,
            sdp: None,
        }));
    }

    /// 200 to a re-INVITE or UPDATE.
    fn accept_change(
        &mut self,
        id: LegId,
        server: ServerId,
        sdp: Option<Vec<u8>>,
        invite: bool,
        ctx: &mut Context<'_>,
    ) {
        let Some(leg) = self.leg(id) else { return };
        if invite {
            leg.setup.ack_wanted = Some(server);
        }
        let headers = leg
            .timer
            .as_ref()
            .map(|t| super::session::answer_headers(t, leg.setup.supports_timer))
            .unwrap_or_default();
        let to_tag = leg.dialog.local_tag.clone();
        ctx.effects.push(Effect::Reply(Reply {
            server,
            status: 200,
            to_tag,
            headers,
            sdp,
        }));
    }

    /// Whether an offer is under way on any leg.
    pub(super) fn has_open_offer(&self) -> bool {
        self.forwards.iter().any(|_| true) || self.legs.values().any(|leg| leg.setup.ack_owed.is_some())
    }

    /// Carries a request to the peer.
    fn forward(&mut self, id: LegId, server: ServerId, message: &Message, ctx: &mut Context<'_>) {
        let peer = self.leg(id).and_then(|leg| leg.peer);
        let peer = peer.filter(|peer| self.legs.get(peer).is_some_and(|peer| peer.state == LegState::Up));
        let Some(peer) = peer.filter(|_| self.phase == Phase::Up && self.forwards.len() < FORWARDS_MAX) else {
            return self.reply(id, server, 480, ctx);
        };
        let offered = message.has_sdp();
        let sdp = if offered {
            match self.carry_sdp(id, peer, &message.body, ctx) {
                Ok(sdp) => Some(sdp),
                Err(unfit) => return self.reply(id, server, unfit.0, ctx),
            }
        } else {
            None
        };
        let Some(leg) = self.leg(peer) else { return };
        let method = carried_method(message, leg.allows_update);
        let mut request = leg.dialog.next_request(method);
        if offered || message.method() == Some(&Method::Invite) {
            request.push("Supported", "timer");
        }
        match sdp {
            Some(sdp) => request = request.with_body("application/sdp", sdp),
            None if !message.body.is_empty() => {
                let kind = message.get("Content-Type").unwrap_or("application/octet-stream");
                request = request.with_body(kind, message.body.clone());
            }
            None => {}
        }
        self.forwards.push((server, id));
        self.request(
            peer,
            request,
            Purpose::Forward {
                server,
                from: id,
                offered,
            },
            ctx,
        );
    }

    pub(super) fn forward_response(
        &mut self,
        peer: LegId,
        client: ClientId,
        forwarded: Forwarded,
        message: &Message,
        ctx: &mut Context<'_>,
    ) {
        let status = message.status().unwrap_or(500);
        if status < 200 {
            return;
        }
        let number = super::setup::cseq_of(message);
        let invite = message.get("CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"));
        let Forwarded { server, from, offered } = forwarded;
        let known = self.forwards.iter().any(|(known, _)| *known == server);
        self.forwards.retain(|(known, _)| *known != server);
        if status >= 300 {
            if known {
                self.reply(from, server, status, ctx);
            }
            if matches!(status, 408 | 481) {
                self.end_by_failure(ctx);
            }
            return;
        }
        if let Some(leg) = self.leg(peer) {
            leg.dialog.refresh_target(message);
            if invite && !offered {
                leg.setup.ack_owed = Some((client, number));
            }
        }
        if invite && offered {
            self.acknowledge(peer, client, number, None, ctx);
        }
        if known {
            self.answer_forwarded(peer, server, from, message, ctx);
        }
    }

    fn answer_forwarded(
        &mut self,
        peer: LegId,
        server: ServerId,
        from: LegId,
        message: &Message,
        ctx: &mut Context<'_>,
    ) {
        let asked_by_invite = message.get("CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"));
        if !message.has_sdp() {
            return self.accept_change(from, server, None, asked_by_invite, ctx);
        }
        match self.carry_sdp(peer, from, &message.body, ctx) {
            Ok(sdp) => {
                self.pair(from, peer, ctx);
                self.accept_change(from, server, Some(sdp), asked_by_invite, ctx);
            }
            Err(unfit) => self.reply(from, server, unfit.0, ctx),
        }
    }

    /// The ACK of our 2xx; it may bring the answer to an offer that the peer made.
    pub(super) fn ack_received(&mut self, id: LegId, message: &Message, ctx: &mut Context<'_>) {
        let Some(leg) = self.leg(id) else { return };
        if let Some(server) = leg.setup.ack_wanted.take() {
            ctx.effects.push(Effect::Acked(server));
        }
        let Some(peer) = self.leg(id).and_then(|leg| leg.peer) else {
            return;
        };
        let owed = self.leg(peer).and_then(|leg| leg.setup.ack_owed.take());
        let Some((client, number)) = owed else { return };
        let answer = if message.has_sdp() {
            self.carry_sdp(id, peer, &message.body, ctx).ok()
        } else {
            None
        };
        let answered = answer.is_some();
        self.acknowledge(peer, client, number, answer, ctx);
        if answered {
            self.pair(id, peer, ctx);
        } else {
            self.end_by_failure(ctx);
        }
    }
}

/// A phone that does not take UPDATE gets a re-INVITE for it.
fn carried_method(message: &Message, allows_update: bool) -> Method {
    match message.method() {
        Some(Method::Update) if !allows_update => Method::Invite,
        Some(method) => method.clone(),
        None => Method::Options,
    }
}
