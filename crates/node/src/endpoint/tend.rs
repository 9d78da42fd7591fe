//! What the switchboard does from time to time for the flow ledger: gives dials their turn, and tells it what is in use.

use std::collections::BTreeSet;

use offhook_proto::overlay::ledger::{Kind, Punching, To};

use super::{Dialling, PathAddress, Switchboard, paths};

/// Every so many turns the ledger is told which paths and relays are in use.
const TURNS_PER_LOOK: u32 = 4;
/// Every so many turns the network report asks the home relay again (every five minutes).
const TURNS_PER_REPORT: u32 = 300;

impl Switchboard {
    /// A connection to a peer's relay counts as long as it is used.
    pub(super) fn hold_relays(&mut self, granted: &[To]) {
        for to in granted {
            let To::Tcp(url) = to else { continue };
            let is_new = self.flows.with(|ledger, now| {
                let is_held = ledger.is_held(to);
                !is_held && ledger.hold(to.clone(), Kind::Relay, "a peer's relay", now)
            });
            if is_new {
                self.relays.insert(url.clone());
            }
        }
    }

    /// Gives those their turn who waited for a flow, and looks at the paths from time to time.
    pub(super) fn tend(&mut self, turn: u32) {
        for (ask, granted) in self.flows.with(|ledger, now| ledger.poll(now)) {
            let Some(wanted) = self.waiting.remove(&ask.peer) else {
                self.flows.with(|ledger, _| ledger.dial_ended(ask.peer));
                continue;
            };
            self.begin_dial(wanted, &granted, &ask);
        }
        if turn.is_multiple_of(TURNS_PER_LOOK) {
            self.look_at_paths();
        }
        self.flows.sample();
        self.flows.note_for_next_run();
        if turn.is_multiple_of(TURNS_PER_REPORT)
            && let Some(url) = self.endpoint.addr().relay_urls().next()
        {
            self.flows.note_home_relay(url.as_ref());
        }
    }

    /// Tells the ledger which flows carry lines, which relays are not used any more, and whether hole punching is worth it.
    pub(super) fn look_at_paths(&mut self) {
        let views = paths(&self.open);
        let mut direct = BTreeSet::new();
        let mut relays = BTreeSet::new();
        for view in &views {
            match &view.address {
                PathAddress::Direct(at) => {
                    direct.insert(view.peer);
                    self.flows.with(|ledger, _| ledger.carries(*at, view.peer));
                }
                PathAddress::Relay(url) => drop(relays.insert(url.clone())),
                PathAddress::Other(_) => {}
            }
        }
        let is_direct = self.lines.keys().all(|peer| direct.contains(peer));
        let punching = match (self.catching_up, is_direct) {
            (true, _) => Punching::CatchingUp,
            (false, true) => Punching::NotNeeded,
            (false, false) => Punching::Allowed,
        };
        self.flows.with(|ledger, _| ledger.set_punching(punching));
        let dialled: BTreeSet<String> = self.dialling.values().flat_map(relays_of).collect();
        let unused = |url: &String| !relays.contains(url) && !dialled.contains(url);
        for url in self.relays.extract_if(.., |url| unused(url)) {
            self.flows.with(|ledger, now| ledger.release(&To::Tcp(url), now));
        }
    }
}

fn relays_of(dial: &Dialling) -> Vec<String> {
    let urls = dial.target.relay_urls();
    urls.map(ToString::to_string).collect()
}
