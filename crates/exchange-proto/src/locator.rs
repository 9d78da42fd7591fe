//! Which instances there are, and who stands by for whom: typed discovery, decided alike by everyone who knows the same.
//!
//! Every instance says once a second what it is ([`Hello`]). A shard (one instance's calls and bindings) has at most
//! two standbys: one on the owner's own network, which can take its movable address, and one in another failure
//! domain. Which, is a rendezvous hash of shard and instance, so a newcomer moves few of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::detector::NodeId;
use crate::time::Moment;

/// How often an instance says that it is there, ms.
pub const HELLO_MS: u64 = 1_000;
/// Silence after which an instance counts as gone, ms.
pub const GONE_MS: u64 = 5_000;
/// Silence after which it is forgotten, ms: its shard may still be waiting for a successor until then.
pub const FORGOTTEN_MS: u64 = 600_000;
/// Most instances.
pub const INSTANCES_MAX: usize = 64;

/// A part of the exchange that an instance may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Takes calls: edge, route, bridge and relay.
    Calls,
    /// Holds others' calls ready.
    Standby,
    /// Grants leases.
    Witness,
}

/// A shard as its owner describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The instance that it began with.
    pub id: NodeId,
    /// Fencing epoch.
    pub epoch: u64,
    /// Where phones reach it.
    pub address: IpAddr,
    /// Whether that address can move to another machine of its network.
    pub movable: bool,
    /// Its calls have gone on as another shard's: it is empty until its first instance comes back.
    pub absorbed: bool,
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who.
    pub node: NodeId,
    /// Fresh at every start: later ones are greater.
    pub started: Moment,
    /// Its failure domain, such as a data centre.
    pub site: String,
    /// The network that its movable address belongs to; empty without one.
    pub network: String,
    /// Where its detector listens.
    pub detector: SocketAddr,
    /// What it does.
    pub roles: Vec<Role>,
    /// What it acts for.
    pub owns: Vec<Shard>,
    /// What it holds completely, as standby.
    pub holds: Vec<NodeId>,
    /// It is about to stop.
    pub leaving: bool,
}

/// How good a standby's place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// On the owner's network: takes the address.
    Near,
    /// In another failure domain: tells the phones.
    Far,
}

/// The instances that were heard of.
#[derive(Clone, Debug, Default)]
pub struct Locator {
    instances: BTreeMap<NodeId, (Hello, Moment)>,
}

impl Locator {
    /// Takes what an instance says. What an earlier process of the same instance said late is left out.
    pub fn heard(&mut self, hello: Hello, now: Moment) {
        let known = self.instances.get(&hello.node);
        let stale = known.is_some_and(|(known, _)| known.started > hello.started);
        let room = known.is_some() || self.instances.len() < INSTANCES_MAX;
        if !stale && room {
            self.instances.insert(hello.node, (hello, now));
        }
    }

    /// Forgets who has been silent for long. Who hears nobody forgets nobody: it is the engine that is gone.
    pub fn expire(&mut self, now: Moment) {
        if self.alive(now).next().is_some() {
            self.instances
                .retain(|_, (_, heard)| now.since_ms(*heard) < FORGOTTEN_MS);
        }
    }

    /// Every instance that is remembered, with its silence in ms.
    pub fn all(&self, now: Moment) -> impl Iterator<Item = (&Hello, u64)> {
        self.instances
            .values()
            .map(move |(hello, heard)| (hello, now.since_ms(*heard)))
    }

    /// One instance, alive or not.
    pub fn get(&self, node: NodeId) -> Option<&Hello> {
        self.instances.get(&node).map(|(hello, _)| hello)
    }

    /// Those that are there now.
    pub fn alive(&self, now: Moment) -> impl Iterator<Item = &Hello> {
        self.all(now)
            .filter(|(_, silent_ms)| *silent_ms < GONE_MS)
            .map(|(hello, _)| hello)
    }

    /// Every shard with the instance that owns it by the newest epoch.
    pub fn shards(&self) -> BTreeMap<NodeId, (Shard, NodeId)> {
        let mut shards: BTreeMap<NodeId, (Shard, NodeId)> = BTreeMap::new();
        for (hello, _) in self.instances.values() {
            for shard in &hello.owns {
                let newer = shards.get(&shard.id).is_none_or(|(known, _)| known.epoch < shard.epoch);
                if newer {
                    shards.insert(shard.id, (*shard, hello.node));
                }
            }
        }
        shards
    }

    /// Who stands by for a shard of this owner, best first.
    pub fn standbys(&self, shard: &Shard, owner: NodeId, now: Moment) -> Vec<(NodeId, Standing)> {
        let Some(home) = self.get(owner).filter(|_| !shard.absorbed) else {
            return Vec::new();
        };
        let able = |hello: &&Hello| hello.node != owner && hello.roles.contains(&Role::Standby) && !hello.leaving;
        let best = |fits: &dyn Fn(&Hello) -> bool| {
            let fitting = self.alive(now).filter(able).filter(|hello| fits(hello));
            fitting
                .map(|hello| hello.node)
                .max_by_key(|node| weight(shard.id, *node))
        };
        let near = best(&|hello| shard.movable && !hello.network.is_empty() && hello.network == home.network);
        let far = best(&|hello| hello.site != home.site && hello.roles.contains(&Role::Calls));
        // Without another site, another machine of this one is better than none.
        let far = far.or_else(|| best(&|hello| Some(hello.node) != near && hello.roles.contains(&Role::Calls)));
        let near = near.map(|node| (node, Standing::Near));
        let far = far
            .filter(|node| near.map(|(near, _)| near) != Some(*node))
            .map(|node| (node, Standing::Far));
        near.into_iter().chain(far).collect()
    }
}

/// Rendezvous hash.
fn weight(shard: NodeId, node: NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&shard.to_le_bytes());
    hasher.update(&node.to_le_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(node: NodeId, site: &str, network: &str) -> Hello {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        Hello {
            node,
            started: Moment(1),
            site: site.to_owned(),
            network: network.to_owned(),
            detector: SocketAddr::new(address, 5070),
            roles: vec![Role::Calls, Role::Standby, Role::Witness],
            owns: vec![Shard {
                id: node,
                epoch: 1,
                address,
                movable: !network.is_empty(),
                absorbed: false,
            }],
            holds: Vec::new(),
            leaving: false,
        }
    }

    #[test]
    fn one_on_the_same_network_and_one_in_another_data_centre() {
        let mut locator = Locator::default();
        for (node, site) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
            locator.heard(hello(node, site, site), Moment(0));
        }
        let (shard, owner) = locator.shards()[&1];
        assert_eq!(owner, 1);
        let standbys = locator.standbys(&shard, owner, Moment(10));
        assert_eq!(standbys[0], (2, Standing::Near));
        assert!(matches!(standbys[1], (3 | 4, Standing::Far)));
        assert!(
            locator.standbys(&shard, owner, Moment(GONE_MS)).is_empty(),
            "nobody was heard of since"
        );
    }

    #[test]
    fn a_shard_belongs_to_who_has_the_newest_epoch() {
        let mut locator = Locator::default();
        locator.heard(hello(1, "a", "a"), Moment(0));
        let mut successor = hello(2, "a", "a");
        successor.owns.push(Shard {
            epoch: 2,
            ..locator.shards()[&1].0
        });
        locator.heard(successor, Moment(1));
        assert_eq!(locator.shards()[&1].1, 2);
        locator.expire(Moment(FORGOTTEN_MS + 1));
        assert_eq!(locator.shards().len(), 2, "nobody was heard of for long");
        locator.heard(hello(3, "b", "b"), Moment(FORGOTTEN_MS + 1));
        locator.expire(Moment(FORGOTTEN_MS + 1));
        assert!(locator.shards().keys().eq(&[3]));
    }
}
