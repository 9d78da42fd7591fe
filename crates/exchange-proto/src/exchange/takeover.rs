//! Going on with what another node owned, from its replica records.
//!
//! A confirmed call is taken up whole: dialogs, media ports, session timers. Requests that the old owner sent after its
//! last record are unknown, so CSeq numbers jump by `CSEQ_GAP`; carried requests and transfers that were open are
//! lost, and their phones hear nothing or repeat them.

use super::{Exchange, Outputs};
use crate::bridge::Call;
use crate::relay::{MediaSource, RelayCommand};
use crate::replica::{DecodeError, Key, Record, decode};
use crate::sip::sdp::Sdp;

/// More requests than the old owner can have sent on a leg since its last record.
const CSEQ_GAP: u32 = 100;

impl Exchange {
    /// Takes over one record. Only the holder of a higher epoch may do so: see [`crate::detector`].
    pub fn adopt(&mut self, record: &Record) -> Result<Outputs, DecodeError> {
        let Some(body) = &record.body else {
            return Ok(Outputs::default());
        };
        match &record.key {
            Key::Bindings(account) => self.registrar.restore(account, decode(body)?),
            Key::Call(key) => self.adopt_call(key, decode(body)?),
        }
        Ok(std::mem::take(&mut self.outputs))
    }

    fn adopt_call(&mut self, key: &str, mut call: Call) {
        for leg in call.legs.values_mut() {
            leg.dialog.local_cseq = leg.dialog.local_cseq.saturating_add(CSEQ_GAP);
        }
        self.adopt_media(&call);
        self.calls.insert(key.to_owned(), call);
        self.settle(key);
    }

    fn adopt_media(&mut self, call: &Call) {
        let Some(pool) = &mut self.ports else { return };
        let relay = &mut self.outputs.relay;
        for leg in call.legs.values() {
            let targets = Sdp::parse(&leg.received_sdp)
                .map(|sdp| sdp.targets())
                .unwrap_or_default();
            for (n, &port) in leg.ports.iter().enumerate() {
                pool.claim(port);
                relay.push(RelayCommand::Open { port });
                let Some(target) = targets.get(n) else { continue };
                let authenticated = leg.dialog.flow.remote.ip();
                let source = MediaSource {
                    rtp: target.rtp,
                    rtcp: target.rtcp,
                    authenticated,
                };
                relay.push(RelayCommand::Remote { port, source });
            }
        }
        for leg in call.legs.values() {
            let Some(peer) = leg.peer.and_then(|peer| call.legs.get(&peer)) else {
                continue;
            };
            relay.extend(
                leg.ports
                    .iter()
                    .zip(&peer.ports)
                    .map(|(&a, &b)| RelayCommand::Pair { a, b }),
            );
        }
    }
}
