//! Carrying session descriptions from leg to leg, with our origin and, when media is relayed, our ports.

use super::{Call, Context, Effect, LegId};
use crate::relay::{MediaSource, RelayCommand};
use crate::sip::sdp::{Origin, Sdp};

/// The description cannot be carried: answer 488, or 503 when ports have run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit(pub(super) u16);

impl Call {
    /// Takes `body` as what `from` said and gives what `to` shall be sent.
    pub(super) fn carry_sdp(
        &mut self,
        from: LegId,
        to: LegId,
        body: &[u8],
        ctx: &mut Context<'_>,
    ) -> Result<Vec<u8>, Unfit> {
        let sdp = Sdp::parse(body).map_err(|_| Unfit(488))?;
        self.ensure_ports(from, sdp.media_count(), ctx)?;
        self.ensure_ports(to, sdp.media_count(), ctx)?;
        if let Some(leg) = self.leg(from) {
            leg.received_sdp = body.to_vec();
            let authenticated = leg.dialog.flow.remote.ip();
            for (&port, target) in leg.ports.iter().zip(sdp.targets()) {
                let source = MediaSource {
                    rtp: target.rtp,
                    rtcp: target.rtcp,
                    authenticated,
                };
                ctx.effects.push(Effect::Relay(RelayCommand::Remote { port, source }));
            }
        }
        let relayed = ctx.ports.is_some();
        let address = ctx.media_address;
        let leg = self.leg(to).ok_or(Unfit(500))?;
        let write = |version| {
            let origin = Origin {
                session: leg.sdp_session,
                version,
                address,
            };
            sdp.rewrite(origin, relayed.then_some((address, &leg.ports[..])))
        };
        // The same words keep their version (RFC 3264 section 8).
        let same = write(leg.sdp_version);
        if same != leg.sent_sdp {
            let next = write(leg.sdp_version.saturating_add(1));
            leg.sdp_version = leg.sdp_version.saturating_add(1);
            leg.sent_sdp = next;
        }
        Ok(leg.sent_sdp.clone())
    }

    fn ensure_ports(&mut self, leg: LegId, count: usize, ctx: &mut Context<'_>) -> Result<(), Unfit> {
        let (Some(pool), Some(leg)) = (ctx.ports.as_deref_mut(), self.leg(leg)) else {
            return Ok(());
        };
        while leg.ports.len() < count {
            let port = pool.take().ok_or(Unfit(503))?;
            leg.ports.push(port);
            ctx.effects.push(Effect::Relay(RelayCommand::Open { port }));
        }
        Ok(())
    }

    /// Lets media flow between two legs.
    pub(super) fn pair(&mut self, a: LegId, b: LegId, ctx: &mut Context<'_>) {
        let ports = |leg: LegId| self.legs.get(&leg).map(|leg| leg.ports.clone()).unwrap_or_default();
        for (a, b) in ports(a).into_iter().zip(ports(b)) {
            ctx.effects.push(Effect::Relay(RelayCommand::Pair { a, b }));
        }
    }

    /// Makes two legs each other's partner.
    pub(super) fn join(&mut self, a: LegId, b: LegId, ctx: &mut Context<'_>) {
        for (leg, peer) in [(a, b), (b, a)] {
            if let Some(leg) = self.leg(leg) {
                leg.peer = Some(peer);
            }
        }
        self.pair(a, b, ctx);
    }

    pub(super) fn free_ports(&mut self, leg: LegId, ctx: &mut Context<'_>) {
        let ports = self
            .leg(leg)
            .map(|leg| std::mem::take(&mut leg.ports))
            .unwrap_or_default();
        for port in ports {
            ctx.effects.push(Effect::Relay(RelayCommand::Close { port }));
            if let Some(pool) = ctx.ports.as_deref_mut() {
                pool.give_back(port);
            }
        }
    }
}
