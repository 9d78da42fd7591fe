//! Instances that speak another version: nothing of theirs is understood but that they are there. They neither stand by
//! for instances of this version nor have them stand by; the accounts, and the records of calls that are over, are
//! common to all.

use std::collections::BTreeMap;

use offhook_exchange_proto::detector::NodeId;
use offhook_exchange_proto::locator::{FORGOTTEN_MS, GONE_MS, HELLO_MS, INSTANCES_MAX};
use offhook_exchange_proto::time::Moment;
use offhook_exchange_proto::wire::{Announcement, Wire};

/// How long an instance may be heard before it has said who it is, ms.
const NAMELESS_MS: u64 = 3 * HELLO_MS;

/// Those that were heard of.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    named: BTreeMap<NodeId, (Announcement, Moment)>,
    /// Versions of those that do not say who they are, since when they are heard, and whether that has been told.
    nameless: BTreeMap<u8, (Moment, bool)>,
    /// Most witnesses were strangers when it was looked last.
    outvoted: bool,
}

impl Strangers {
    /// Takes what an instance says of itself; tells the operator of one that was not known.
    pub(super) fn announced(&mut self, stranger: Announcement, own: Wire, now: Moment) {
        if stranger.version == own.0 {
            self.named.remove(&stranger.node);
            return;
        }
        let known = self.named.get(&stranger.node);
        let new = known.is_none_or(|(known, _)| known.version != stranger.version);
        if known.is_none() && self.named.len() >= INSTANCES_MAX {
            return;
        }
        if new {
            let Announcement {
                version,
                node,
                address,
                site,
            } = &stranger;
            eprintln!(
                "offhook exchange: {node:x} at {address} ({site}) speaks version {version} between instances, and this one \
                 {}: neither stands by for the other's calls; upgrade the older one",
                own.0
            );
        }
        self.named.insert(stranger.node, (stranger, now));
    }

    /// A message of another version: from one that says who it is, soon if not yet, or from one too old for that.
    pub(super) fn heard(&mut self, version: u8, own: Wire, now: Moment) {
        let named = self.all(now).any(|(stranger, _)| stranger.version == version);
        let (since, told) = self.nameless.entry(version).or_insert((now, false));
        if named || *told || now.since_ms(*since) < NAMELESS_MS {
            return;
        }
        *told = true;
        eprintln!(
            "offhook exchange: an instance that does not say who it is speaks version {version} between instances, and this \
             one {}: neither stands by for the other's calls; upgrade the older one",
            own.0
        );
    }

    /// Forgets who has been silent for long.
    pub(super) fn expire(&mut self, now: Moment) {
        self.named.retain(|_, (_, heard)| now.since_ms(*heard) < FORGOTTEN_MS);
    }

    /// Without a majority of witnesses that understand it an instance may not speak for anything; tells the operator.
    pub(super) fn look_at_witnesses(&mut self, witnesses: &[NodeId], now: Moment) {
        let speaks = |node: &&NodeId| {
            self.named
                .get(*node)
                .is_some_and(|(_, heard)| now.since_ms(*heard) < GONE_MS)
        };
        let strange = witnesses.iter().filter(speaks).count();
        let outvoted = strange > witnesses.len() / 2;
        if outvoted && !self.outvoted {
            eprintln!(
                "offhook exchange: {strange} of {} witnesses speak another version between instances: this one takes no \
                 calls until most of them speak its own",
                witnesses.len()
            );
        }
        self.outvoted = outvoted;
    }

    /// Each, with its silence in ms.
    pub(super) fn all(&self, now: Moment) -> impl Iterator<Item = (&Announcement, u64)> {
        self.named
            .values()
            .map(move |(stranger, heard)| (stranger, now.since_ms(*heard)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_known_until_it_is_upgraded_or_silent() {
        let stranger = |version| Announcement {
            version,
            node: 7,
            address: "192.0.2.7".parse().unwrap(),
            site: "b".to_owned(),
        };
        let (mut strangers, own, now) = (Strangers::default(), Wire(2), Moment(1_000));
        let nobody: [u8; 0] = [];
        let known =
            |strangers: &Strangers, now| -> Vec<u8> { strangers.all(now).map(|(known, _)| known.version).collect() };
        strangers.announced(stranger(3), own, now);
        assert_eq!(known(&strangers, now), [3]);
        strangers.look_at_witnesses(&[6, 7, 8], now);
        assert!(!strangers.outvoted);
        strangers.look_at_witnesses(&[7], now);
        assert!(strangers.outvoted);
        let later = now.plus_ms(NAMELESS_MS);
        for version in [3, 1] {
            strangers.heard(version, own, now);
            strangers.heard(version, own, later);
        }
        let told: Vec<bool> = strangers.nameless.values().map(|(_, told)| *told).collect();
        assert_eq!(told, [true, false], "version 1 has no name, version 3 has");
        strangers.announced(stranger(2), own, now);
        assert_eq!(known(&strangers, now), nobody);
        strangers.announced(stranger(1), own, now);
        strangers.expire(now.plus_ms(FORGOTTEN_MS));
        assert_eq!(known(&strangers, now), nobody);
    }
}
